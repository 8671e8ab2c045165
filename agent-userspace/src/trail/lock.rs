//! One daemon a state directory: an exclusive lock on `<state>/lock`, let go by the kernel however the daemon ends.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use super::error::{TrailError, io_error};

/// Holds the state directory until it is dropped.
#[derive(Debug)]
pub(super) struct StateLock {
    _file: File,
}

impl StateLock {
    /// Takes the lock, or names the pid that has it.
    pub(super) fn take(state_dir: &Path) -> Result<Self, TrailError> {
        let path = state_dir.join("lock");
        let mut options = OpenOptions::new();
        // Not truncated on open: until the lock is ours, the pid in the file is somebody else's.
        options.read(true).write(true).create(true).truncate(false).mode(0o600);
        let mut file = options.open(&path).map_err(io_error("open", &path))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(TrailError::Held { state: state_dir.to_owned(), holder: holder(&mut file) });
            }
            Err(TryLockError::Error(error)) => return Err(io_error("lock", &path)(error)),
        }
        let pid = format!("{}\n", std::process::id());
        // Over what stands there, and only then cut: a block that is let go of may not come back on a full disk.
        file.write_all(pid.as_bytes())
            .and_then(|()| file.set_len(pid.len() as u64))
            .map_err(io_error("write", &path))?;
        Ok(Self { _file: file })
    }
}

fn holder(file: &mut File) -> String {
    let mut text = String::new();
    let read = file.take(32).read_to_string(&mut text);
    match read {
        Ok(_) if !text.trim().is_empty() => text.trim().to_owned(),
        // The holder has not written its pid yet.
        Ok(_) | Err(_) => "unknown".to_owned(),
    }
}
