//! A file system of a test's own that can be full.

use std::fs;
use std::io::ErrorKind;
use std::path::PathBuf;

use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};

/// A small file system of the test's own for the trail; gone with it.
#[derive(Debug)]
pub struct Tmpfs(PathBuf);

impl Tmpfs {
    /// Mounts it over a directory, with the options of `mount`.
    ///
    /// # Panics
    ///
    /// If it cannot be mounted.
    #[must_use]
    pub fn over(path: PathBuf, options: &str) -> Self {
        let options = std::ffi::CString::new(options).unwrap();
        mount("tmpfs", &path, "tmpfs", MountFlags::empty(), Some(options.as_c_str())).unwrap();
        Self(path)
    }

    /// Leaves so many bytes free, or fewer where others write meanwhile, and gives the file that takes up the rest.
    ///
    /// # Panics
    ///
    /// If it cannot be written for another reason than that nothing is left.
    pub fn fill(&self, leave: u64) -> PathBuf {
        let free = rustix::fs::statvfs(&self.0).unwrap();
        let filler = self.0.join("filler");
        let len = (free.f_bavail * free.f_frsize).saturating_sub(leave);
        match fs::write(&filler, vec![1; usize::try_from(len).unwrap()]) {
            Err(error) if error.kind() != ErrorKind::StorageFull => panic!("the disk is not filled: {error}"),
            Ok(()) | Err(_) => filler,
        }
    }
}

impl Drop for Tmpfs {
    fn drop(&mut self) {
        // Whoever still has a file open there keeps it until then.
        let _ = unmount(&self.0, UnmountFlags::DETACH);
    }
}
