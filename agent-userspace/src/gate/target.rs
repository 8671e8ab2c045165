//! The files to mark: from a path to an open file that may be marked, and what became of each.
//!
//! A target is a path; what is marked is the inode it leads to now. A package upgrade puts another inode there, so
//! targets are looked up and marked again at every refresh (marking what is marked does nothing), whether or not the
//! inode's number changed: file systems give the number of a deleted file to the next.

use std::collections::VecDeque;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{FileType, Mode, OFlags, Stat};
use rustix::io::Errno;

use super::wire::FileId;

/// How many targets a gate takes: each is a mark in the kernel and a path looked up at every refresh.
pub const MAX_TARGETS: usize = 1024;

/// How many files the gate's reports can name: those of every target, and of those that were replaced lately.
const MAX_FILES: usize = 4 * MAX_TARGETS;

/// File systems that another program or another host serves (`linux/magic.h`, and those their drivers define). Reading
/// an event opens its file; one that does not answer would keep the gate, and so every held exec, waiting.
const SERVED: [(u64, &str); 11] = [
    (0x6969, "NFS"),
    (0x6573_5546, "FUSE"),
    (0xff53_4d42, "CIFS"),
    (0xfe53_4d42, "SMB"),
    (0x517b, "SMB"),
    (0x0102_1997, "9p"),
    (0x5346_414f, "AFS"),
    (0x6b41_4653, "AFS"),
    (0x00c3_6400, "Ceph"),
    (0x7375_7245, "Coda"),
    (0x564c, "NCP"),
];

/// Why a target is not marked. Its execs are then not held: a session that begins with one begins with a gap.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unmarked {
    /// There is no such file yet.
    #[error("there is no such file; it is looked for again at every refresh")]
    Absent,
    /// The path cannot be followed.
    #[error("the path cannot be followed: {0}")]
    Unreachable(Errno),
    /// It is a directory, a device, a socket or a pipe.
    #[error("it is no regular file")]
    NotAFile,
    /// Holding its exec could hang others.
    #[error("it lies on {0}, which another program or host serves: one that does not answer would hang every exec")]
    Served(&'static str),
    /// The daemon's own binary.
    #[error("it is Bailiwick itself")]
    Own,
    /// More targets than [`MAX_TARGETS`].
    #[error("there are more than {MAX_TARGETS} executables to watch")]
    TooMany,
    /// The kernel refused the mark.
    #[error("the kernel refused the mark: {0}")]
    Refused(Errno),
    /// The gate does not take the order now.
    #[error("the gate is gone or does not read; it is tried again at every refresh")]
    NoGate,
}

/// What became of a target.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TargetState {
    /// The gate has been asked to mark it.
    Asked,
    /// Its exec is held until the hooks are attached.
    Marked,
    /// Its exec is not held.
    Unmarked(Unmarked),
}

/// A path to mark.
#[derive(Debug)]
pub(super) struct Target {
    pub(super) path: PathBuf,
    pub(super) state: TargetState,
    /// The last attempt.
    pub(super) attempt: u64,
    /// The file that its path led to then.
    pub(super) file: Option<FileId>,
}

/// An open file that may be marked, and which it is.
#[derive(Debug)]
pub(super) struct Candidate {
    pub(super) file: OwnedFd,
    pub(super) id: FileId,
}

/// Looks a target up. The descriptor is opened for its path alone (`O_PATH`): that reads nothing, holds no exec, and
/// does not touch a device or a pipe that stands there.
pub(super) fn look_up(path: &Path) -> Result<Candidate, Unmarked> {
    let file = rustix::fs::open(path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).map_err(|errno| match errno {
        Errno::NOENT | Errno::NOTDIR => Unmarked::Absent,
        errno => Unmarked::Unreachable(errno),
    })?;
    let stat = rustix::fs::fstat(&file).map_err(Unmarked::Unreachable)?;
    if !FileType::from_raw_mode(stat.st_mode).is_file() {
        return Err(Unmarked::NotAFile);
    }
    if let Some(name) = served_by_another(&file)? {
        return Err(Unmarked::Served(name));
    }
    let id = id_of(&stat);
    if rustix::fs::stat("/proc/self/exe").is_ok_and(|own| id_of(&own) == id) {
        return Err(Unmarked::Own);
    }
    Ok(Candidate { file, id })
}

fn served_by_another(file: impl AsFd) -> Result<Option<&'static str>, Unmarked> {
    let kind = rustix::fs::fstatfs(file).map_err(Unmarked::Unreachable)?.f_type;
    Ok(name_if_served(kind.cast_unsigned()))
}

fn name_if_served(kind: u64) -> Option<&'static str> {
    // The number is 32 bits wide; some kernels and file systems extend its sign.
    SERVED.into_iter().find_map(|(served, name)| (served == kind & 0xffff_ffff).then_some(name))
}

fn id_of(stat: &Stat) -> FileId {
    FileId { device: stat.st_dev, inode: stat.st_ino }
}

/// By which path the gate's reports know a file: the last [`MAX_FILES`] that were marked.
#[derive(Debug, Default)]
pub(super) struct MarkedFiles {
    files: VecDeque<(FileId, PathBuf)>,
}

impl MarkedFiles {
    /// Remembers a file as what a target's path led to.
    pub(super) fn remember(&mut self, id: FileId, path: &Path) {
        if self.path_of(id).is_some_and(|known| known == path) {
            return;
        }
        self.files.retain(|(known, _)| *known != id);
        if self.files.len() >= MAX_FILES {
            self.files.pop_front();
        }
        self.files.push_back((id, path.to_owned()));
    }

    /// The target's path, if the file is known.
    pub(super) fn path_of(&self, id: FileId) -> Option<&Path> {
        self.files.iter().rev().find_map(|(known, path)| (*known == id).then_some(path.as_path()))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn a_link_leads_to_the_file_that_is_marked() {
        let dir = tempfile::tempdir().unwrap();
        let (file, link) = (dir.path().join("cli.js"), dir.path().join("agent"));
        fs::write(&file, "#!/bin/true\n").unwrap();
        symlink(&file, &link).unwrap();
        assert_eq!(look_up(&link).unwrap().id, look_up(&file).unwrap().id);
    }

    #[test]
    fn what_cannot_be_marked_says_why() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(look_up(&dir.path().join("absent")).unwrap_err(), Unmarked::Absent);
        assert_eq!(look_up(dir.path()).unwrap_err(), Unmarked::NotAFile);
        let pipe = dir.path().join("pipe");
        rustix::fs::mknodat(rustix::fs::CWD, &pipe, FileType::Fifo, Mode::RUSR, 0).unwrap();
        assert_eq!(look_up(&pipe).unwrap_err(), Unmarked::NotAFile);
        let circle = dir.path().join("circle");
        symlink(&circle, &circle).unwrap();
        assert_eq!(look_up(&circle).unwrap_err(), Unmarked::Unreachable(Errno::LOOP));
        assert_eq!(look_up(&std::env::current_exe().unwrap()).unwrap_err(), Unmarked::Own);
    }

    #[test]
    fn file_systems_that_others_serve_are_known_by_their_number() {
        assert_eq!(name_if_served(0x6573_5546), Some("FUSE"));
        assert_eq!(name_if_served(0xffff_ffff_ff53_4d42), Some("CIFS"));
        assert_eq!(name_if_served(0xef53), None, "ext4 is local");
    }

    #[test]
    fn a_file_is_known_by_the_path_that_led_to_it_last() {
        let mut files = MarkedFiles::default();
        let id = |inode| FileId { device: 1, inode };
        files.remember(id(1), Path::new("/old"));
        files.remember(id(1), Path::new("/new"));
        assert_eq!(files.path_of(id(1)), Some(Path::new("/new")));
        for inode in 2..=MAX_FILES as u64 + 1 {
            files.remember(id(inode), Path::new("/other"));
        }
        assert_eq!(files.path_of(id(1)), None);
        assert_eq!(files.files.len(), MAX_FILES);
    }
}
