//! Files that the settings name: headers and certificates. Read when something is to be sent, and again when they change.

use std::fs::{self, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::PathBuf;

/// More is no list of headers and no bundle of certificates.
const MAX_FILE_BYTES: u64 = 4 << 20;

/// A file, and what names it, so that what is wrong with it can be told with both.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NamedFile {
    /// The file.
    pub path: PathBuf,
    /// The variable, or the key with its file and line.
    pub named_by: String,
}

/// A file that the settings name cannot be used. What it says is never repeated.
#[derive(Debug, thiserror::Error)]
#[error("{}: {}{}: {problem}", file.named_by, file.path.display(), line.map(|line| format!(":{line}")).unwrap_or_default())]
pub struct FileError {
    /// The file.
    pub file: Box<NamedFile>,
    /// Where in it, from 1.
    pub line: Option<usize>,
    /// What is wrong, and what would be right.
    pub problem: Box<FileProblem>,
}

/// What is wrong with a file.
#[derive(Debug, thiserror::Error)]
pub enum FileProblem {
    /// It cannot be read.
    #[error("cannot be read ({0}); put it there, and let the daemon read it")]
    Unreadable(io::Error),
    /// A directory, a pipe.
    #[error("is not a regular file; name one")]
    NotAFile,
    /// It is too long.
    #[error("is longer than {MAX_FILE_BYTES} bytes; is it the right file?")]
    TooLong,
    /// A line that is no header.
    #[error("{0}; write one header on a line, as in `authorization: Bearer TOKEN`")]
    Header(&'static str),
    /// Not the PEM that is looked for.
    #[error("has no {0} in PEM; it begins with `-----BEGIN {1}-----`")]
    NoPem(&'static str, &'static str),
    /// PEM that is damaged.
    #[error("is damaged PEM ({0}); make it again")]
    Pem(rustls::pki_types::pem::Error),
    /// What the certificates say cannot be used.
    #[error("cannot be used ({0}); do certificate and key belong together?")]
    Refused(rustls::Error),
}

impl NamedFile {
    /// The whole file. Opened without blocking, so that a named pipe in its place holds nothing up.
    pub(super) fn read(&self) -> Result<Vec<u8>, FileError> {
        let unreadable = |error| self.error(FileProblem::Unreadable(error));
        let file = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(&self.path).map_err(unreadable)?;
        if !file.metadata().map_err(unreadable)?.is_file() {
            return Err(self.error(FileProblem::NotAFile));
        }
        let mut bytes = Vec::new();
        file.take(MAX_FILE_BYTES + 1).read_to_end(&mut bytes).map_err(unreadable)?;
        if u64::try_from(bytes.len()).unwrap_or(u64::MAX) > MAX_FILE_BYTES {
            return Err(self.error(FileProblem::TooLong));
        }
        Ok(bytes)
    }

    /// That this is wrong with it.
    pub(super) fn error(&self, problem: FileProblem) -> FileError {
        FileError { file: Box::new(self.clone()), line: None, problem: Box::new(problem) }
    }

    /// What changes when the file does: by being written, or by another taking its name.
    pub(super) fn stamp(&self) -> Option<Stamp> {
        let found = fs::metadata(&self.path).ok()?;
        Some(Stamp { id: (found.dev(), found.ino()), len: found.len(), changed: (found.ctime(), found.ctime_nsec()) })
    }
}

/// A file's state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stamp {
    id: (u64, u64),
    len: u64,
    changed: (i64, i64),
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that cannot go on says so by panicking")]

    use std::fs;

    use super::NamedFile;

    #[test]
    fn a_file_that_is_written_or_replaced_has_another_stamp() {
        let dir = tempfile::TempDir::new().unwrap();
        let file = NamedFile { path: dir.path().join("x"), named_by: "x.toml:1:1".to_owned() };
        assert_eq!(file.stamp(), None);
        fs::write(&file.path, "one").unwrap();
        let first = file.stamp();
        assert_eq!(first, file.stamp());
        fs::write(&file.path, "three").unwrap();
        let second = file.stamp();
        assert_ne!(first, second);
        fs::write(dir.path().join("y"), "three").unwrap();
        fs::rename(dir.path().join("y"), &file.path).unwrap();
        assert_ne!(second, file.stamp());
    }

    #[test]
    fn what_cannot_be_read_is_told_with_what_names_it() {
        let dir = tempfile::TempDir::new().unwrap();
        let named = |path| NamedFile { path, named_by: "bailiwick.toml:4:9".to_owned() };
        let missing = named(dir.path().join("x")).read().unwrap_err().to_string();
        assert!(missing.starts_with("bailiwick.toml:4:9: /") && missing.contains("/x: cannot be read (No such"));
        assert!(
            named(dir.path().to_owned()).read().unwrap_err().to_string().ends_with("is not a regular file; name one")
        );
    }
}
