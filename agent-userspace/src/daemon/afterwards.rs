//! Paths that left no object: what they lead to is looked up after the action, where it still stands.
//!
//! Input: a path as the process gave it, and the process, whose root directory and mounts count. Output: the same place as
//! the host sees it, or `None` where nothing leads there any more. What is found was found afterwards: entries say so.
//! Follows no link that the kernel makes up (`/proc/PID/fd/N`), which would be the daemon's own.

use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStringExt;

use rustix::fs::{Mode, OFlags, open};

use crate::attribute::procfs::open_below;

/// What the last name of a path means to a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum LastName {
    /// It is what the call acts on, even if it is a symbolic link.
    Kept,
    /// A symbolic link there is followed.
    Followed,
}

/// The place that a path of that process leads to. `path` is absolute: as the process sees it, or, where it was relative,
/// after the directory that the kernel resolved.
pub(super) fn lookup(tgid: u32, path: &[u8], relative: bool, last: LastName) -> Option<Vec<u8>> {
    let own_root = format!("/proc/{tgid}/root");
    let (root, seen_from) = match open(own_root.as_str(), OFlags::PATH | OFlags::CLOEXEC, Mode::empty()) {
        Ok(root) => (root, std::fs::read_link(&own_root).map(|path| path.into_os_string().into_vec()).ok()?),
        // The process has ended: the host's root is the best guess.
        Err(_) => (open("/", OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).ok()?, b"/".to_vec()),
    };
    let inside = match relative {
        // The kernel resolved that directory beyond the process's own root.
        true if seen_from != b"/" => path.strip_prefix(&seen_from[..])?,
        _ => path,
    };
    if last == LastName::Followed
        && let Some(found) = place(&root, inside)
    {
        return Some(found);
    }
    let end = inside.iter().rposition(|&byte| byte != b'/').map_or(0, |at| at + 1);
    let trimmed = inside.get(..end).unwrap_or_default();
    let (parent, name) = trimmed.split_at(trimmed.iter().rposition(|&byte| byte == b'/').map_or(0, |at| at + 1));
    if name.is_empty() || name == b"." || name == b".." {
        return place(&root, inside);
    }
    let mut found = place(&root, if parent.is_empty() { b"/" } else { parent })?;
    if found.last() != Some(&b'/') {
        found.push(b'/');
    }
    found.extend_from_slice(name);
    Some(found)
}

/// Where a path below a root leads to, as the host sees it.
fn place(root: &OwnedFd, path: &[u8]) -> Option<Vec<u8>> {
    open_below(root, path, OFlags::PATH).map(|(_, place)| place)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use std::os::unix::ffi::OsStrExt;
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn a_link_on_the_way_is_followed_and_the_last_one_where_the_call_follows_it() {
        let place = tempfile::tempdir().unwrap();
        let at = |name: &str| place.path().join(name);
        std::fs::create_dir(at("real")).unwrap();
        std::fs::write(at("real/file"), "").unwrap();
        symlink(at("real"), at("way")).unwrap();
        symlink("file", at("real/last")).unwrap();
        let found = |name: &str, last| lookup(std::process::id(), at(name).as_os_str().as_bytes(), false, last);
        let real = |name: &str| Some(at(name).canonicalize().unwrap().into_os_string().into_vec());
        assert_eq!(found("way/last", LastName::Followed), real("real/file"));
        let kept = Some([at("real").as_os_str().as_bytes(), b"/last"].concat());
        assert_eq!(found("way/last", LastName::Kept), kept);
        assert_eq!(found("way/gone", LastName::Followed), Some([at("real").as_os_str().as_bytes(), b"/gone"].concat()));
        assert_eq!(found("nowhere/gone", LastName::Kept), None);
    }
}
