//! Where a file lies on the host, whatever path a session sees it by; and the files that no name may lead to.
//!
//! Input: the mounts of the daemon's own namespace, the denies of the declarations. A session can mount a directory
//! elsewhere, or give a file another name: what the scope says of the file holds all the same.

use std::collections::HashMap;
use std::path::Path;

use agent_common::file::OPEN_LAYERED;

use super::files::kernel_id;
use crate::config::Config;
use crate::entry::Reason;

/// A mount: a file system's device, the directory of it that is mounted, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Mount {
    device: u32,
    root: Vec<u8>,
    point: Vec<u8>,
}

/// The host's mounts, as they were when no session had made any.
#[derive(Clone, Debug, Default)]
pub(super) struct HostMounts(Vec<Mount>);

impl HostMounts {
    /// As they are now.
    pub(super) fn now() -> Self {
        Self::parse(&std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default())
    }

    fn parse(mounts: &str) -> Self {
        let mount = |line: &str| {
            let mut fields = line.split(' ').skip(2);
            let (major, minor) = fields.next()?.split_once(':')?;
            let (major, minor): (u32, u32) = (major.parse().ok()?, minor.parse().ok()?);
            let (root, point) = (unescape(fields.next()?), unescape(fields.next()?));
            Some(Mount { device: major << 20 | minor, root, point })
        };
        Self(mounts.lines().filter_map(mount).collect())
    }

    /// The paths by which the host sees what lies there in a file system; none where it is not mounted on the host.
    pub(super) fn paths(&self, device: u32, within: &[u8]) -> Vec<Vec<u8>> {
        let seen = |mount: &Mount| {
            let below = if mount.root == b"/" { within } else { within.strip_prefix(&mount.root[..])? };
            if !below.is_empty() && below.first() != Some(&b'/') {
                return None;
            }
            let point: &[u8] = if mount.point == b"/" { b"" } else { &mount.point };
            let path = [point, below].concat();
            Some(if path.is_empty() { b"/".to_vec() } else { path })
        };
        self.0.iter().filter(|mount| mount.device == device).filter_map(seen).collect()
    }
}

/// A field of `mountinfo`: blanks and backslashes stand there as octal numbers.
fn unescape(field: &str) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(field.len());
    let mut rest = field.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        let code = after.get(..3).filter(|_| byte == b'\\').and_then(|code| std::str::from_utf8(code).ok());
        match code.and_then(|code| u8::from_str_radix(code, 8).ok()) {
            Some(code) => {
                bytes.push(code);
                rest = after.get(3..).unwrap_or_default();
            }
            None => {
                bytes.push(byte);
                rest = after;
            }
        }
    }
    bytes
}

/// The files that declarations deny by their full names, by agent, device and inode.
#[derive(Clone, Debug, Default)]
pub(super) struct DeniedFiles(HashMap<String, HashMap<(u32, u64), Reason>>);

impl DeniedFiles {
    /// As they are now: a file that is replaced is another.
    pub(super) fn of(config: &Config) -> Self {
        let mut agents = HashMap::new();
        for declaration in &config.declarations {
            let Some(scope) = &declaration.scope else { continue };
            let files = scope.literal_denies();
            let files = files.filter_map(|(path, reason)| Some((kernel_id(Path::new(&path)).ok()?, reason)));
            agents.insert(declaration.name().to_owned(), files.collect());
        }
        Self(agents)
    }

    /// Whether any file is denied to an agent by its full name.
    pub(super) fn names_any(&self, agent: &str) -> bool {
        self.0.get(agent).is_some_and(|files| !files.is_empty())
    }

    /// The rule that denies a file to an agent, whatever name it is reached by. A file of an overlay has the inode number
    /// of the file in the layer below, but another device: a file of another layer's file system with the same number
    /// would be taken for the denied one.
    pub(super) fn rule(&self, agent: &str, file: FileSeen) -> Option<&Reason> {
        let denied = self.0.get(agent)?;
        let exactly = denied.get(&(file.device, file.inode));
        if exactly.is_some() || file.flags & OPEN_LAYERED == 0 {
            return exactly;
        }
        denied.iter().find(|((_, inode), _)| *inode == file.inode).map(|(_, reason)| reason)
    }
}

/// A file as a record has it.
#[derive(Clone, Copy, Debug)]
pub(super) struct FileSeen {
    pub(super) device: u32,
    pub(super) inode: u64,
    /// The constants of `agent_common::file` beginning with `OPEN_`.
    pub(super) flags: u32,
}

#[cfg(test)]
mod tests {
    use super::HostMounts;

    #[test]
    fn what_lies_in_a_file_system_is_seen_by_every_mount_that_reaches_it() {
        let mounts = HostMounts::parse(
            "1 0 254:0 / / rw - ext4 x rw\n2 1 0:5 / /proc rw - proc x rw\n3 1 254:0 /srv/a\\040b /mnt rw - ext4 x rw\n",
        );
        let device = 254 << 20;
        assert_eq!(mounts.paths(device, b"/srv/a b/key"), [b"/srv/a b/key".to_vec(), b"/mnt/key".to_vec()]);
        assert_eq!(mounts.paths(device, b"/srv/a bc"), [b"/srv/a bc".to_vec()]);
        assert!(mounts.paths(7, b"/x").is_empty());
    }
}
