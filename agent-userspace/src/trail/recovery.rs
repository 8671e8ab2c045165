//! What a crash left behind: the last segment's torn end is set aside, so that the next entry starts a line.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use super::error::{TrailError, io_error};
use super::segment;

/// What was set aside when the trail was opened: the daemon records it as `trail.recovered`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recovered {
    /// The segment that was cut.
    pub segment: PathBuf,
    /// Where what was cut off is kept.
    pub kept_in: PathBuf,
    /// How many bytes that is.
    pub bytes: u64,
    /// The last entry that stands.
    pub last_seq: u64,
}

/// Where a segment ends.
pub(super) struct End {
    pub(super) last_seq: u64,
    pub(super) len: u64,
    /// The chain of the last entry that stands; none where the segment has none.
    pub(super) chain: Option<String>,
    pub(super) recovered: Option<Recovered>,
}

/// Cuts the segment after its last whole entry, keeping what follows in a file of its own.
///
/// Only an end can be torn by a crash. A line before it that cannot be read is damage of another kind: it stays where it
/// is, readers name it, and nothing that can be read is thrown away because of it.
pub(super) fn recover(file: &File, path: &Path, first_seq: u64) -> Result<End, TrailError> {
    let (last_seq, good, chain) = match segment::last_line(file, path)? {
        Some(last) => (last.head.seq, last.end, Some(last.head.chain)),
        None => (first_seq.saturating_sub(1), 0, None),
    };
    let len = file.metadata().map_err(io_error("inspect", path))?.len();
    if len == good {
        return Ok(End { last_seq, len, chain, recovered: None });
    }
    let kept_in = set_aside(file, path, good, len)?;
    file.set_len(good).and_then(|()| file.sync_all()).map_err(io_error("cut", path))?;
    let recovered = Recovered { segment: path.to_owned(), kept_in, bytes: len - good, last_seq };
    Ok(End { last_seq, len: good, chain, recovered: Some(recovered) })
}

/// Copies the bytes from `from` to `to` into a new file beside the segment, durably.
fn set_aside(file: &File, path: &Path, from: u64, to: u64) -> Result<PathBuf, TrailError> {
    let (kept, kept_in) = create_beside(path)?;
    if let Err(error) = copy(file, path, (from, to), &kept, &kept_in) {
        // Half a copy is worth nothing, and the next start makes another: what was torn is still where it was.
        return Err(fs::remove_file(&kept_in).map_err(io_error("remove", &kept_in)).err().unwrap_or(error));
    }
    segment::sync_directory(path.parent().unwrap_or(Path::new("/")))?;
    Ok(kept_in)
}

fn copy(file: &File, path: &Path, (from, to): (u64, u64), kept: &File, kept_in: &Path) -> Result<(), TrailError> {
    let mut block = vec![0; segment::READ_BYTES];
    let mut at = from;
    while at < to {
        let read = segment::read_at_most(file, &mut block, at).map_err(io_error("read", path))?;
        if read == 0 {
            break;
        }
        kept.write_all_at(block.get(..read).unwrap_or_default(), at - from).map_err(io_error("write", kept_in))?;
        at += read as u64;
    }
    kept.sync_all().map_err(io_error("sync", kept_in))
}

/// The first `<segment>.torn-<n>` that is free.
fn create_beside(path: &Path) -> Result<(File, PathBuf), TrailError> {
    let mut number = 1u32;
    loop {
        let mut name = path.as_os_str().to_owned();
        name.push(format!(".torn-{number}"));
        let kept_in = PathBuf::from(name);
        match OpenOptions::new().write(true).create_new(true).mode(0o600).open(&kept_in) {
            Ok(kept) => return Ok((kept, kept_in)),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists && number < u32::MAX => number += 1,
            Err(error) => return Err(io_error("create", &kept_in)(error)),
        }
    }
}
