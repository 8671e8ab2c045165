//! What loading a configuration asks of the host: symlinks, files, users.
//!
//! Injected, so that tests have a host of their own making and `check` gives the same answer wherever it is run with one.

use std::ffi::OsString;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// A file, whatever it is called.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct FileIdentity {
    /// The file system's device, as `stat` gives it.
    pub device: u64,
    /// The inode's number in it.
    pub inode: u64,
}

/// The most names that a listing gives.
pub const MAX_LISTED: usize = 4096;

/// The host that a configuration is loaded on.
pub trait Host {
    /// The path with every symlink resolved.
    fn canonicalize(&self, path: &Path) -> io::Result<PathBuf>;
    /// Which file a path leads to, where there is one.
    fn identity(&self, path: &Path) -> Option<FileIdentity>;
    /// The names in a directory, sorted, at most [`MAX_LISTED`]; none where it cannot be read.
    fn list(&self, directory: &Path) -> Vec<OsString>;
    /// The number of a user.
    fn user_id(&self, name: &str) -> Option<u32>;
}

/// The host that this process runs on.
#[derive(Clone, Copy, Debug, Default)]
pub struct ThisHost;

impl Host for ThisHost {
    fn canonicalize(&self, path: &Path) -> io::Result<PathBuf> {
        path.canonicalize()
    }

    fn identity(&self, path: &Path) -> Option<FileIdentity> {
        let metadata = path.metadata().ok()?;
        metadata.is_file().then(|| FileIdentity { device: metadata.dev(), inode: metadata.ino() })
    }

    fn list(&self, directory: &Path) -> Vec<OsString> {
        let Ok(listing) = directory.read_dir() else { return Vec::new() };
        let mut names: Vec<OsString> = listing.flatten().map(|item| item.file_name()).take(MAX_LISTED).collect();
        names.sort();
        names
    }

    /// Of `/etc/passwd`. Users of a directory service are given by number.
    fn user_id(&self, name: &str) -> Option<u32> {
        let passwd = std::fs::read_to_string("/etc/passwd").ok()?;
        user_id_in(&passwd, name)
    }
}

fn user_id_in(passwd: &str, name: &str) -> Option<u32> {
    passwd.lines().find_map(|line| {
        let mut fields = line.split(':');
        if fields.next() != Some(name) {
            return None;
        }
        fields.nth(1)?.parse().ok()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_is_found_by_its_whole_name() {
        let passwd = "root:x:0:0:root:/root:/bin/bash\nagent:x:990:990::/:/usr/sbin/nologin\nbroken\n";
        assert_eq!(user_id_in(passwd, "agent"), Some(990));
        assert_eq!(user_id_in(passwd, "agen"), None);
        assert_eq!(user_id_in(passwd, "broken"), None);
    }
}
