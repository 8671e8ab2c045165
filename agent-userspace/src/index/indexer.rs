//! Makes indexes: those of segments that have none, or none that fits, and of what is added to the trail.
//!
//! Inputs: the trail's segments, and how far readers may read. Outputs: indexes beside them. Reads what was written, like any
//! other reader, so the writer does not know of it. Refuses: to hold more than one chunk in memory; to index what is not
//! visible to readers; to fail: without an index a question takes longer, that is all.

use std::collections::HashSet;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::sync::watch;
use tracing::{info, warn};

use super::CHUNK_BYTES;
use super::builder::Builder;
use super::file::{self, Index};
use crate::entry::Entry;
use crate::trail::segment;

/// How often it is looked whether there is enough for another chunk.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// After a failure nothing is tried for so long.
const REST: Duration = Duration::from_secs(60);
/// How much less than others this thread counts for the scheduler: it can wait.
const NICENESS: i32 = 15;

/// Makes indexes until the daemon ends.
#[derive(Debug)]
pub struct Indexer {
    dir: PathBuf,
    chunk_bytes: u64,
    /// The last entry that readers see.
    written: watch::Receiver<u64>,
    /// Closed segments with a whole index.
    done: HashSet<u64>,
    /// The segment whose index was made, or looked through, last.
    looked_through: Option<u64>,
}

impl Indexer {
    /// Of the trail below `state_dir`, as far as it is written.
    pub fn of(state_dir: &Path, written: watch::Receiver<u64>) -> Self {
        Self {
            dir: segment::directory(state_dir),
            chunk_bytes: CHUNK_BYTES,
            written,
            done: HashSet::new(),
            looked_through: None,
        }
    }

    /// With chunks of another length.
    #[cfg(test)]
    pub(super) fn with_chunks(self, chunk_bytes: u64) -> Self {
        Self { chunk_bytes, ..self }
    }

    /// Goes on until `ended`; [`std::thread::Thread::unpark`] has it look.
    pub fn run(mut self, ended: &AtomicBool) {
        let own = rustix::thread::gettid();
        if let Err(error) = rustix::process::setpriority_process(Some(own), NICENESS) {
            info!(%error, "indexing counts as much as the rest");
        }
        while !ended.load(Ordering::Relaxed) {
            let rest = match self.catch_up(ended) {
                Ok(()) => LOOK_EVERY,
                Err(error) => {
                    warn!(%error, "the trail is not indexed for a minute: questions about it take longer");
                    REST
                }
            };
            std::thread::park_timeout(rest);
        }
    }

    /// Indexes all of the closed segments, and of the one that is written what makes a whole chunk.
    ///
    /// # Errors
    /// A segment cannot be read, or an index not be written.
    pub fn catch_up(&mut self, ended: &AtomicBool) -> io::Result<()> {
        let through = *self.written.borrow();
        let firsts = segment::list(&self.dir).map_err(io::Error::other)?;
        self.done.retain(|first| firsts.binary_search(first).is_ok());
        for (at, &first) in firsts.iter().enumerate() {
            let is_closed = at + 1 < firsts.len();
            if self.done.contains(&first) {
                continue;
            }
            match self.index(first, is_closed, through, ended) {
                // Retention was quicker.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                result => result?,
            }
            if ended.load(Ordering::Relaxed) {
                break;
            }
            if is_closed {
                self.done.insert(first);
            }
        }
        Ok(())
    }

    fn index(&mut self, first: u64, is_closed: bool, through: u64, ended: &AtomicBool) -> io::Result<()> {
        let (path, segment) = (file::path(&self.dir, first), File::open(segment::path(&self.dir, first))?);
        let len = segment.metadata()?.len();
        let known = self.looked_through.replace(first) == Some(first);
        let mut index = if known { Index::read(&path, &segment) } else { Index::read_checked(&path, &segment) };
        let mut lines = BufReader::with_capacity(1 << 18, &segment);
        while index.covered() < len && !ended.load(Ordering::Relaxed) {
            if !is_closed && len - index.covered() < self.chunk_bytes {
                break;
            }
            lines.seek(SeekFrom::Start(index.covered()))?;
            let chunk = build(&mut lines, Builder::from(index.covered(), self.chunk_bytes), through)?;
            if chunk.is_empty() || !(is_closed || chunk.is_full()) {
                break;
            }
            let (from, to) = (index.covered(), chunk.to());
            index.append(&path, &chunk.finish()?)?;
            index = Index::read(&path, &segment);
            if index.covered() != to {
                return Err(io::Error::other(format!("what was indexed of {first} from {from} to {to} does not fit")));
            }
        }
        Ok(())
    }
}

/// Fills a chunk with whole lines, of entries up to `through`.
fn build(lines: &mut impl BufRead, mut chunk: Builder, through: u64) -> io::Result<Builder> {
    let mut line = Vec::new();
    while !chunk.is_full() {
        line.clear();
        lines.read_until(b'\n', &mut line)?;
        if !line.ends_with(b"\n") {
            break;
        }
        let entry: Option<Entry> = serde_json::from_slice(&line).ok();
        if entry.as_ref().is_some_and(|entry| entry.seq > through) {
            break;
        }
        chunk.add(&line, entry.as_ref());
    }
    Ok(chunk)
}
