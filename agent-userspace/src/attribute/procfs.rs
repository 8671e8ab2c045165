//! What `/proc` says of a process: the only way in which attribution asks the host. The root is given, so tests make one.
//!
//! What a process says there about itself (arguments, environment) is a claim. All reads are bounded; a process that has
//! ended has nothing to say, which is no error.

use std::fs;
use std::io::Read;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

/// The most that is read of one file: arguments and environments can be longer, and are cut.
const MOST_BYTES: u64 = 256 << 10;

/// A `/proc`.
#[derive(Clone, Debug)]
pub struct ProcFs {
    root: PathBuf,
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
}

impl ProcFs {
    /// The one at that root.
    pub fn at(root: &Path) -> Self {
        Self { root: root.to_owned() }
    }

    fn file(&self, tgid: u32, name: &str) -> PathBuf {
        self.root.join(tgid.to_string()).join(name)
    }

    fn read(&self, tgid: u32, name: &str) -> Option<Vec<u8>> {
        let mut bytes = Vec::new();
        fs::File::open(self.file(tgid, name)).ok()?.take(MOST_BYTES).read_to_end(&mut bytes).ok()?;
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
        })
    }
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
        let expected = Identity { parent_tgid: 3, uid: 1000, euid: 0, on_terminal: true };
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
