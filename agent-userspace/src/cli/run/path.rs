//! Which file a command is.
//!
//! Inputs: a command's name, `PATH`. Outputs: the file to execute. Looked up before the fork, so that the agent's record does
//! not begin with failed attempts of ours along `PATH`.
//! Refuses: what is not there (127, as a shell), and what may not be executed (126).

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{Access, access};

/// Where commands are looked for when there is no `PATH`.
const DEFAULT_PATH: &str = "/usr/local/bin:/usr/bin:/bin";

/// The command is no file that can be executed.
#[derive(Debug, thiserror::Error)]
pub(super) enum NotExecutable {
    /// There is none of that name.
    #[error("{}: command not found", name.display())]
    Missing {
        /// The command.
        name: PathBuf,
    },
    /// There is one, but it cannot be executed.
    #[error("{}: cannot be executed: {source}", path.display())]
    Refused {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

impl NotExecutable {
    pub(super) fn at(path: &Path, source: io::Error) -> Self {
        Self::Refused { path: path.to_owned(), source }
    }

    pub(super) fn is_missing(&self) -> bool {
        matches!(self, Self::Missing { .. })
    }
}

/// The file that the first word names.
pub(super) fn resolve(command: &[OsString]) -> Result<PathBuf, NotExecutable> {
    let name = command.first().map_or(OsStr::new(""), OsString::as_os_str);
    resolve_in(name, std::env::var_os("PATH").as_deref())
}

fn resolve_in(name: &OsStr, search: Option<&OsStr>) -> Result<PathBuf, NotExecutable> {
    if name.is_empty() {
        return Err(NotExecutable::Missing { name: PathBuf::from("''") });
    }
    if name.as_bytes().contains(&b'/') {
        let path = PathBuf::from(name);
        return match why_not(&path) {
            None => Ok(path),
            Some(error) if error.kind() == io::ErrorKind::NotFound => Err(NotExecutable::Missing { name: path }),
            Some(error) => Err(NotExecutable::at(&path, error)),
        };
    }
    let mut refused = None;
    for directory in std::env::split_paths(search.unwrap_or(OsStr::new(DEFAULT_PATH))) {
        // An empty directory of PATH is the current one; without a slash the kernel takes it so too.
        let path = directory.join(name);
        match why_not(&path) {
            None => return Ok(path),
            // Not so a directory of PATH that may not be searched: as in a shell, nothing is known to be there.
            Some(error) if path.is_file() => {
                refused.get_or_insert(NotExecutable::at(&path, error));
            }
            Some(_) => {}
        }
    }
    Err(refused.unwrap_or(NotExecutable::Missing { name: PathBuf::from(name) }))
}

fn why_not(path: &Path) -> Option<io::Error> {
    match std::fs::metadata(path) {
        Err(error) => Some(error),
        Ok(metadata) if metadata.is_dir() => Some(io::ErrorKind::IsADirectory.into()),
        Ok(_) => access(path, Access::EXEC_OK).err().map(io::Error::from),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn file(directory: &Path, name: &str, mode: u32) -> PathBuf {
        let path = directory.join(name);
        std::fs::write(&path, "#!/bin/sh\n").unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        path
    }

    #[test]
    fn the_first_executable_along_the_path_is_taken() {
        let (first, second) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        file(first.path(), "tool", 0o644);
        let tool = file(second.path(), "tool", 0o755);
        std::fs::create_dir(first.path().join("other")).unwrap();
        let search = std::env::join_paths([first.path(), second.path()]).unwrap();
        assert_eq!(resolve_in(OsStr::new("tool"), Some(&search)).unwrap(), tool);
        assert!(resolve_in(OsStr::new("other"), Some(&search)).unwrap_err().is_missing());
        assert!(resolve_in(OsStr::new(""), Some(&search)).unwrap_err().is_missing());
    }

    #[test]
    fn a_directory_that_may_not_be_searched_is_passed_over() {
        let directory = tempfile::tempdir().unwrap();
        let locked = directory.path().join("locked");
        std::fs::create_dir(&locked).unwrap();
        file(&locked, "tool", 0o755);
        std::fs::set_permissions(&locked, std::fs::Permissions::from_mode(0o000)).unwrap();
        if std::fs::metadata(locked.join("tool")).is_ok() {
            println!("skipped: root may search every directory");
            return;
        }
        assert!(resolve_in(OsStr::new("tool"), Some(locked.as_os_str())).unwrap_err().is_missing());
    }

    #[test]
    fn what_is_there_but_may_not_be_executed_is_told_from_what_is_missing() {
        let directory = tempfile::tempdir().unwrap();
        let data = file(directory.path(), "data", 0o644);
        let search = Some(directory.path().as_os_str());
        assert!(!resolve_in(OsStr::new("data"), search).unwrap_err().is_missing());
        assert!(!resolve_in(data.as_os_str(), search).unwrap_err().is_missing());
        assert!(!resolve_in(directory.path().as_os_str(), search).unwrap_err().is_missing());
        assert!(resolve_in(directory.path().join("none").as_os_str(), search).unwrap_err().is_missing());
    }
}
