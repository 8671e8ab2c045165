//! What `/proc` says of a process: the only way in which attribution asks the host. The root is given, so tests make one.
//!
//! What a process says there about itself (arguments, environment) is a claim. All reads are bounded; a process that has
//! ended has nothing to say, which is no error.

use std::ffi::OsStr;
use std::fs;
use std::io::Read;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::fs::{FileType, Mode, OFlags, ResolveFlags, fstat, open, openat2};

/// The most that is read of one file: arguments and environments can be longer, and are cut.
const MOST_BYTES: u64 = 256 << 10;
/// The most that is read of a table of sockets.
const MOST_TABLE_BYTES: u64 = 64 << 20;
/// The most descriptors of one process that are looked at.
const MOST_DESCRIPTORS: usize = 65_536;

/// A `/proc`.
#[derive(Clone, Debug)]
pub struct ProcFs {
    root: PathBuf,
    logins: PathBuf,
}

/// A login, as the service manager keeps it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Login {
    /// The host that it came from, where it came from another.
    pub remote_host: Option<String>,
}

/// Who a process is, by its `stat` and `status`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Identity {
    /// Its parent.
    pub parent_tgid: u32,
    /// Real user id.
    pub uid: u32,
    /// Effective user id.
    pub euid: u32,
    /// Whether it has a controlling terminal.
    pub on_terminal: bool,
    /// Its controlling terminal, as the kernel numbers it; 0: none.
    pub terminal: u32,
    /// The leader of its process session.
    pub leader: u32,
    /// When it started, in ticks of the clock after boot.
    pub start_ticks: u64,
}

impl ProcFs {
    /// The one at that root.
    pub fn at(root: &Path) -> Self {
        Self { root: root.to_owned(), logins: PathBuf::from("/run/systemd/sessions") }
    }

    /// The same, with logins in another place.
    #[must_use]
    pub fn with_logins(self, logins: &Path) -> Self {
        Self { logins: logins.to_owned(), ..self }
    }

    /// The unit of systemd's that the process is in: the innermost service or scope.
    pub fn unit(&self, tgid: u32) -> Option<String> {
        let cgroup = self.cgroup(tgid)?;
        let is_unit = |part: &&str| part.ends_with(".service") || part.ends_with(".scope");
        cgroup.rsplit('/').find(is_unit).map(str::to_owned)
    }

    /// The login that a scope, `session-3.scope`, is of.
    pub fn login_of_scope(&self, scope: &str) -> Option<Login> {
        let id = scope.strip_prefix("session-")?.strip_suffix(".scope")?;
        if !id.chars().all(|one| one.is_ascii_alphanumeric()) {
            return None;
        }
        let text = fs::read_to_string(self.logins.join(id)).ok()?;
        let value = |key: &str| text.lines().find_map(|line| line.strip_prefix(key)).map(str::to_owned);
        Some(Login { remote_host: value("REMOTE_HOST=").filter(|host| !host.is_empty()) })
    }

    /// Whose file the process's image is.
    pub fn owner_of_image(&self, tgid: u32) -> Option<u32> {
        fs::metadata(self.image(tgid)).ok().map(|metadata| metadata.uid())
    }

    fn file(&self, tgid: u32, name: &str) -> PathBuf {
        self.root.join(tgid.to_string()).join(name)
    }

    fn read(&self, tgid: u32, name: &str) -> Option<Vec<u8>> {
        self.read_at_most(tgid, name, MOST_BYTES)
    }

    fn read_at_most(&self, tgid: u32, name: &str, most_bytes: u64) -> Option<Vec<u8>> {
        let mut bytes = Vec::new();
        fs::File::open(self.file(tgid, name)).ok()?.take(most_bytes).read_to_end(&mut bytes).ok()?;
        Some(bytes)
    }

    fn text(&self, tgid: u32, name: &str) -> Option<String> {
        self.read(tgid, name).map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
    }

    /// The processes there are.
    pub fn processes(&self) -> Vec<u32> {
        let entries = fs::read_dir(&self.root).into_iter().flatten().flatten();
        entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect()
    }

    /// The image's path; without what the kernel appends to one that has been deleted.
    pub fn executable(&self, tgid: u32) -> Option<Vec<u8>> {
        let path = fs::read_link(self.file(tgid, "exe")).ok()?.into_os_string().into_vec();
        Some(path.strip_suffix(b" (deleted)").map_or_else(|| path.clone(), <[u8]>::to_vec))
    }

    /// A way to open the image itself, whatever has become of its path.
    pub fn image(&self, tgid: u32) -> PathBuf {
        self.file(tgid, "exe")
    }

    /// The working directory.
    pub fn directory(&self, tgid: u32) -> Option<Vec<u8>> {
        fs::read_link(self.file(tgid, "cwd")).ok().map(|path| path.into_os_string().into_vec())
    }

    /// The arguments.
    pub fn arguments(&self, tgid: u32) -> Vec<Vec<u8>> {
        split(&self.read(tgid, "cmdline").unwrap_or_default())
    }

    /// The environment that the process was started with, `KEY=VALUE`.
    pub fn environment(&self, tgid: u32) -> Vec<Vec<u8>> {
        split(&self.read(tgid, "environ").unwrap_or_default())
    }

    /// The control group, in the hierarchy that systemd names units in: the unified one, or `name=systemd`.
    pub fn cgroup(&self, tgid: u32) -> Option<String> {
        let text = self.text(tgid, "cgroup")?;
        let of = |prefix: &str| text.lines().find_map(|line| line.strip_prefix(prefix)).map(str::to_owned);
        let unified = of("0::").filter(|path| path != "/");
        unified
            .or_else(|| {
                text.lines().find_map(|line| line.split_once(":name=systemd:")).map(|(_, path)| path.to_owned())
            })
            .or_else(|| of("0::"))
    }

    /// Every control group that the process is in, one for each hierarchy.
    pub fn cgroups(&self, tgid: u32) -> Vec<String> {
        let text = self.text(tgid, "cgroup").unwrap_or_default();
        text.lines().filter_map(|line| line.splitn(3, ':').nth(2)).map(str::to_owned).collect()
    }

    /// The user id that logged in, where one did.
    pub fn login_uid(&self, tgid: u32) -> Option<u32> {
        self.text(tgid, "loginuid")?.trim().parse().ok().filter(|&uid| uid != u32::MAX)
    }

    /// The name of the process's image, cut to fifteen bytes by the kernel.
    pub fn name(&self, tgid: u32) -> Option<String> {
        self.text(tgid, "comm").map(|name| name.trim_end().to_owned())
    }

    /// Who the process is.
    pub fn identity(&self, tgid: u32) -> Option<Identity> {
        let status = self.text(tgid, "status")?;
        let field = |name: &str, index: usize| -> Option<u32> {
            let line = status.lines().find_map(|line| line.strip_prefix(name))?;
            line.split_ascii_whitespace().nth(index)?.parse().ok()
        };
        let stat = self.text(tgid, "stat")?;
        // The name in the second field may hold anything; what follows its last parenthesis is numbers.
        let (_, numbers) = stat.rsplit_once(')')?;
        let terminal = numbers.split_ascii_whitespace().nth(4)?;
        Some(Identity {
            parent_tgid: field("PPid:", 0)?,
            uid: field("Uid:", 0)?,
            euid: field("Uid:", 1)?,
            on_terminal: terminal != "0",
            terminal: terminal.parse::<i32>().map_or(0, i32::cast_unsigned),
            leader: numbers.split_ascii_whitespace().nth(3)?.parse().ok()?,
            start_ticks: numbers.split_ascii_whitespace().nth(19).and_then(|ticks| ticks.parse().ok()).unwrap_or(0),
        })
    }

    /// When the host booted, in seconds since the Unix epoch.
    pub fn boot_seconds(&self) -> Option<u64> {
        let text = fs::read_to_string(self.root.join("stat")).ok()?;
        text.lines().find_map(|line| line.strip_prefix("btime "))?.trim().parse().ok()
    }

    /// The network namespace that the process is in.
    pub fn network_namespace(&self, tgid: u32) -> Option<Vec<u8>> {
        fs::read_link(self.file(tgid, "ns/net")).ok().map(|name| name.into_os_string().into_vec())
    }

    /// A table of the sockets of the process's network namespace: `tcp`, `tcp6`.
    pub fn socket_table(&self, tgid: u32, name: &str) -> Option<String> {
        let bytes = self.read_at_most(tgid, &format!("net/{name}"), MOST_TABLE_BYTES)?;
        String::from_utf8(bytes).ok()
    }

    /// The inodes of the sockets that the process holds.
    pub fn sockets(&self, tgid: u32) -> Vec<u64> {
        let descriptors = fs::read_dir(self.file(tgid, "fd")).into_iter().flatten().flatten().take(MOST_DESCRIPTORS);
        let inode = |link: PathBuf| link.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok();
        descriptors.filter_map(|descriptor| inode(fs::read_link(descriptor.path()).ok()?)).collect()
    }

    /// Opens what a path leads to in the process's own root and mounts, and tells the place as the host sees it. Follows no
    /// link that the kernel makes up.
    pub fn open_in_root(&self, tgid: u32, path: &[u8], flags: OFlags) -> Option<(OwnedFd, Vec<u8>)> {
        let root = open(self.file(tgid, "root"), OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).ok()?;
        open_below(&root, path, flags)
    }

    /// The beginning of a regular file in the process's own root and mounts, and its place.
    pub fn beginning_of(&self, tgid: u32, path: &[u8], most_bytes: u64) -> Option<(Vec<u8>, Vec<u8>)> {
        // Whatever its owner put there: a pipe without a writer must not hold us up, nor a device be opened for real.
        let (_, place) = self.open_in_root(tgid, path, OFlags::PATH).filter(|(file, _)| is_regular(file))?;
        let (file, _) = self.open_in_root(tgid, path, OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY)?;
        if !is_regular(&file) {
            return None;
        }
        let mut bytes = Vec::new();
        fs::File::from(file).take(most_bytes).read_to_end(&mut bytes).ok()?;
        Some((bytes, place))
    }
}

impl Identity {
    /// The path of its controlling terminal, where it is one that people have: `/dev/pts/3`, `/dev/tty1`.
    pub fn terminal_name(&self) -> Option<String> {
        // As `new_encode_dev` of the kernel puts a device's numbers together.
        let (major, minor) = (self.terminal >> 8 & 0xfff, self.terminal & 0xff | self.terminal >> 12 & 0xfff00);
        match major {
            136..=143 => Some(format!("/dev/pts/{}", (major - 136) * 256 + minor)),
            4 if minor < 64 => Some(format!("/dev/tty{minor}")),
            4 => Some(format!("/dev/ttyS{}", minor - 64)),
            0 => None,
            _ => Some(format!("{major}:{minor}")),
        }
    }
}

fn is_regular(file: &OwnedFd) -> bool {
    fstat(file).is_ok_and(|status| FileType::from_raw_mode(status.st_mode) == FileType::RegularFile)
}

/// Opens a path below a root, which no link leads out of, and tells the place that it is.
pub fn open_below(root: &OwnedFd, path: &[u8], flags: OFlags) -> Option<(OwnedFd, Vec<u8>)> {
    let path = Path::new(OsStr::from_bytes(path));
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    let found = openat2(root, path, flags | OFlags::CLOEXEC, Mode::empty(), resolve).ok()?;
    let place = fs::read_link(format!("/proc/self/fd/{}", found.as_raw_fd())).ok()?;
    Some((found, place.into_os_string().into_vec()))
}

fn split(block: &[u8]) -> Vec<Vec<u8>> {
    let block = block.strip_suffix(b"\0").unwrap_or(block);
    if block.is_empty() { Vec::new() } else { block.split(|&byte| byte == 0).map(<[u8]>::to_vec).collect() }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::{Identity, ProcFs};

    fn process(files: &[(&str, &str)]) -> (tempfile::TempDir, ProcFs) {
        let root = tempfile::tempdir().unwrap();
        std::fs::create_dir(root.path().join("7")).unwrap();
        for (name, content) in files {
            std::fs::write(root.path().join("7").join(name), content).unwrap();
        }
        let proc = ProcFs::at(root.path());
        (root, proc)
    }

    #[test]
    fn a_name_with_parentheses_does_not_hide_the_terminal() {
        let (_root, proc) = process(&[
            ("stat", "7 (a) b) S 3 7 7 34816 7 0"),
            ("status", "Name:\ta) b\nPPid:\t3\nUid:\t1000\t0\t0\t0\n"),
        ]);
        let expected = Identity {
            parent_tgid: 3,
            uid: 1000,
            euid: 0,
            on_terminal: true,
            terminal: 34_816,
            leader: 7,
            start_ticks: 0,
        };
        assert_eq!(proc.identity(7), Some(expected));
    }

    #[test]
    fn the_control_group_is_systemds_where_the_unified_one_says_nothing() {
        let (_root, proc) = process(&[("cgroup", "9:name=systemd:/system.slice/a.service\n4:memory:/x\n0::/\n")]);
        assert_eq!(proc.cgroup(7).as_deref(), Some("/system.slice/a.service"));
    }

    #[test]
    fn an_empty_argument_at_the_end_is_kept() {
        let (_root, proc) = process(&[("cmdline", "sh\0-c\0\0")]);
        assert_eq!(proc.arguments(7), [b"sh".to_vec(), b"-c".to_vec(), b"".to_vec()]);
    }

    #[test]
    fn a_process_that_has_ended_has_nothing_to_say() {
        let (_root, proc) = process(&[]);
        assert_eq!((proc.identity(8), proc.executable(8), proc.arguments(8)), (None, None, Vec::new()));
    }
}
