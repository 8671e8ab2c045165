//! Segment files: their names, their order, and finding a place in one without reading all of it.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::error::{TrailError, io_error};
use crate::entry::Timestamp;

/// The longest line that is ever written (the writer cuts what is longer), so that a reader knows when to give up.
pub(super) const MAX_LINE_BYTES: usize = 512 * 1024;

/// How much is read at a time.
pub(super) const READ_BYTES: usize = 64 * 1024;

const SUFFIX: &str = ".jsonl";
/// What the name of a segment's index ends with.
pub(super) const INDEX_EXTENSION: &str = "index";

/// What finding a place needs of a line.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct Head {
    pub(super) seq: u64,
    pub(super) time: Timestamp,
    /// Empty where the line was written before there was a chain, or is damaged: then the chain begins anew behind it.
    #[serde(default)]
    pub(super) chain: String,
}

/// The directory of the segments.
pub(crate) fn directory(state_dir: &Path) -> PathBuf {
    state_dir.join("trail")
}

/// The path of the segment whose first entry has this seq.
pub(crate) fn path(dir: &Path, first_seq: u64) -> PathBuf {
    dir.join(format!("{first_seq:020}{SUFFIX}"))
}

/// The path of its index, which may be missing.
pub(crate) fn index_path(dir: &Path, first_seq: u64) -> PathBuf {
    path(dir, first_seq).with_extension(INDEX_EXTENSION)
}

/// The first seqs of all segments, in order. A directory that is not there has none.
pub(crate) fn list(dir: &Path) -> Result<Vec<u64>, TrailError> {
    let names = match fs::read_dir(dir) {
        Ok(names) => names,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(io_error("list", dir)(error)),
    };
    let mut firsts = Vec::new();
    for name in names {
        let name = name.map_err(io_error("list", dir))?.file_name();
        let first = name.to_str().and_then(|name| name.strip_suffix(SUFFIX)).filter(|stem| stem.len() == 20);
        // Anything else (what was set aside, an operator's notes) is no segment.
        firsts.extend(first.and_then(|stem| stem.parse::<u64>().ok()));
    }
    firsts.sort_unstable();
    Ok(firsts)
}

/// Makes the names in a directory durable.
pub(super) fn sync_directory(dir: &Path) -> Result<(), TrailError> {
    File::open(dir).and_then(|dir| dir.sync_all()).map_err(io_error("sync", dir))
}

/// The last whole line that is an entry.
#[derive(Clone, Debug)]
pub(super) struct LastLine {
    pub(super) head: Head,
    /// The byte after its line feed.
    pub(super) end: u64,
}

/// Finds the last whole line that is an entry, reading backwards from the end.
pub(super) fn last_line(file: &File, path: &Path) -> Result<Option<LastLine>, TrailError> {
    let mut from = file.metadata().map_err(io_error("inspect", path))?.len();
    let mut tail = Vec::new();
    // Bounded by the file: each round reads further towards its start.
    loop {
        let whole_from = if from == 0 { Some(0) } else { tail.iter().position(|&byte| byte == b'\n').map(|at| at + 1) };
        if let Some(whole_from) = whole_from
            && let Some((end, head)) = last_head(tail.get(whole_from..).unwrap_or_default())
        {
            return Ok(Some(LastLine { head, end: from + (whole_from + end) as u64 }));
        }
        if from == 0 {
            return Ok(None);
        }
        // Of what holds no entry, only the end of the line that starts further back can still become one.
        let keep = tail.iter().position(|&byte| byte == b'\n').map_or(tail.len(), |at| at + 1);
        tail.truncate(keep.min(MAX_LINE_BYTES));
        let step = from.min(READ_BYTES as u64);
        from -= step;
        let mut block = vec![0; usize::try_from(step).unwrap_or(READ_BYTES)];
        file.read_exact_at(&mut block, from).map_err(io_error("read", path))?;
        block.append(&mut tail);
        tail = block;
    }
}

/// Of whole lines, the end and the head of the last that is an entry.
fn last_head(lines: &[u8]) -> Option<(usize, Head)> {
    let mut end = lines.iter().rposition(|&byte| byte == b'\n')? + 1;
    while end > 0 {
        let start = lines.get(..end - 1)?.iter().rposition(|&byte| byte == b'\n').map_or(0, |at| at + 1);
        if let Ok(head) = serde_json::from_slice(lines.get(start..end)?) {
            return Some((end, head));
        }
        end = start;
    }
    None
}

/// A line's start at or before the first line of which `wanted` holds, and not far before it. `wanted` must hold of
/// every line after one of which it holds.
pub(super) fn bisect(file: &File, path: &Path, wanted: impl Fn(&Head) -> bool) -> Result<u64, TrailError> {
    let mut low = 0;
    let mut high = file.metadata().map_err(io_error("inspect", path))?.len();
    let mut block = vec![0; MAX_LINE_BYTES];
    while high.saturating_sub(low) > 2 * MAX_LINE_BYTES as u64 {
        let middle = low + (high - low) / 2;
        let read = read_at_most(file, &mut block, middle).map_err(io_error("read", path))?;
        let mut lines = block.get(..read).unwrap_or_default().split_inclusive(|&byte| byte == b'\n');
        let Some(skipped) = lines.next() else { break };
        let start = middle + skipped.len() as u64;
        let Some(line) = lines.next().filter(|line| line.ends_with(b"\n")) else { break };
        // An unreadable line decides nothing: the rest is left to reading line by line.
        let Ok(head) = serde_json::from_slice(line) else { break };
        if wanted(&head) {
            high = start;
        } else {
            low = start + line.len() as u64;
        }
    }
    Ok(low)
}

/// Reads until the buffer is full or the file ends.
pub(crate) fn read_at_most(file: &File, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
    let mut filled = 0;
    while let Some(rest) = buffer.get_mut(filled..).filter(|rest| !rest.is_empty()) {
        match file.read_at(rest, offset + filled as u64) {
            Ok(0) => break,
            Ok(read) => filled += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}
