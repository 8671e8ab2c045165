//! What a daemon itself uses: the CPU and memory of its process and of those it started, and the memory of its maps.
//!
//! Read from `/proc`. CPU is that of `schedstat`, which counts nanoseconds where `stat` counts hundredths of a second;
//! a thread that has ended takes what it used with it, so differences are taken over short times.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

/// The processes below one, that one included.
#[derive(Debug, Clone)]
pub(super) struct Family {
    proc_root: PathBuf,
    head: u32,
}

/// Memory, at its most.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Memory {
    /// The processes' own, in bytes (`VmHWM`, summed; pages that they share count for each).
    pub(super) processes_bytes: u64,
    /// That of BPF maps, rings included, in bytes.
    pub(super) maps_bytes: u64,
}

impl Family {
    /// `head` and what it started, as `/proc` shows them.
    pub(super) fn of(head: u32) -> Self {
        Self { proc_root: PathBuf::from("/proc"), head }
    }

    /// CPU used so far by the threads that live.
    pub(super) fn cpu(&self) -> Duration {
        let thread = |folder: PathBuf| {
            let text = fs::read_to_string(folder.join("schedstat")).unwrap_or_default();
            text.split(' ').next().and_then(|nanos| nanos.parse().ok()).unwrap_or(0)
        };
        let nanos = self.members().iter().flat_map(|pid| listed(&self.folder(*pid).join("task"))).map(thread).sum();
        Duration::from_nanos(nanos)
    }

    /// Memory of those that live.
    pub(super) fn memory(&self) -> Memory {
        let mut maps = BTreeMap::new();
        let mut processes_bytes = 0;
        for folder in self.members().iter().map(|pid| self.folder(*pid)) {
            let status = fs::read_to_string(folder.join("status")).unwrap_or_default();
            processes_bytes += field(&status, "VmHWM").unwrap_or(0) * 1024;
            for descriptor in listed(&folder.join("fdinfo")) {
                let text = fs::read_to_string(descriptor).unwrap_or_default();
                if let (Some(id), Some(bytes)) = (field(&text, "map_id"), field(&text, "memlock")) {
                    maps.insert(id, bytes);
                }
            }
        }
        Memory { processes_bytes, maps_bytes: maps.values().sum() }
    }

    /// The head first found, then the children of what is found, until nobody is added.
    fn members(&self) -> BTreeSet<u32> {
        let parents: BTreeMap<u32, u32> =
            listed(&self.proc_root).into_iter().filter_map(|path| parent(&path)).collect();
        let mut members = BTreeSet::from([self.head]);
        loop {
            let before = members.len();
            let children: Vec<u32> =
                parents.iter().filter(|(_, parent)| members.contains(parent)).map(|(child, _)| *child).collect();
            members.extend(children);
            if members.len() == before {
                return members;
            }
        }
    }

    fn folder(&self, pid: u32) -> PathBuf {
        self.proc_root.join(pid.to_string())
    }
}

/// What lies in a directory; nothing where it is gone.
fn listed(folder: &Path) -> Vec<PathBuf> {
    fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path()).collect()
}

/// A process and its parent, from its directory in `/proc`. The name may hold anything, but what follows it is fixed.
fn parent(folder: &Path) -> Option<(u32, u32)> {
    let pid = folder.file_name()?.to_str()?.parse().ok()?;
    let stat = fs::read_to_string(folder.join("stat")).ok()?;
    let parent = stat.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse().ok()?;
    Some((pid, parent))
}

/// The number of a line `name:  number ...`.
fn field(text: &str, name: &str) -> Option<u64> {
    let rest = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
    rest.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;

    fn fake(root: &Path, pid: u32, parent: u32, nanos: &[u64]) {
        let folder = root.join(pid.to_string());
        fs::create_dir_all(folder.join("fdinfo")).unwrap();
        fs::write(folder.join("stat"), format!("{pid} (a) b) S {parent} 1 1")).unwrap();
        fs::write(folder.join("status"), "Name:\tx\nVmHWM:\t    8 kB\n").unwrap();
        fs::write(folder.join("fdinfo/3"), "pos:\t0\nmemlock:\t4096\nmap_id:\t7\n").unwrap();
        for (number, nanos) in nanos.iter().enumerate() {
            let task = folder.join("task").join(number.to_string());
            fs::create_dir_all(&task).unwrap();
            fs::write(task.join("schedstat"), format!("{nanos} 5 6\n")).unwrap();
        }
    }

    #[test]
    fn grandchildren_count_and_strangers_do_not() {
        let root = tempfile::tempdir().unwrap();
        fake(root.path(), 10, 1, &[100, 20]);
        fake(root.path(), 11, 10, &[3]);
        fake(root.path(), 5, 11, &[4]);
        fake(root.path(), 12, 1, &[9000]);
        let family = Family { proc_root: root.path().to_owned(), head: 10 };
        assert_eq!(family.cpu(), Duration::from_nanos(127));
        assert_eq!(family.memory(), Memory { processes_bytes: 3 * 8192, maps_bytes: 4096 });
    }

    #[test]
    fn a_process_that_is_gone_uses_nothing() {
        let root = tempfile::tempdir().unwrap();
        let family = Family { proc_root: root.path().to_owned(), head: 10 };
        assert_eq!((family.cpu(), family.memory()), (Duration::ZERO, Memory::default()));
    }

    #[test]
    fn this_process_uses_cpu_and_memory() {
        let family = Family::of(std::process::id());
        assert!(family.cpu() > Duration::ZERO);
        assert!(family.memory().processes_bytes > 1 << 20);
    }
}
