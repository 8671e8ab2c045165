//! The trail's only writer.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde_json::Value;
use tokio::sync::watch;

use super::chain;
use super::checkpoint::{CHECKPOINT, Checkpoint};
use super::error::{AppendError, TrailError, io_error};
use super::identity::Identity;
use super::key::HostKey;
use super::lock::StateLock;
use super::recovery::{self, Recovered};
use super::segment;
use crate::entry::{Draft, Entry};

/// A segment is closed once it is this long: small enough to copy and to keep or drop as one, large enough that ten
/// million entries stay within a few hundred files.
const SEGMENT_BYTES: u64 = 64 * 1024 * 1024;

/// An attribute longer than this is cut when its entry would be longer than a line may be.
const CUT_ATTRIBUTE_BYTES: usize = 1024;

/// How the trail is written.
#[derive(Clone, Copy, Debug)]
pub struct TrailOptions {
    /// A segment that has reached this length is closed before the next batch.
    pub segment_bytes: u64,
}

impl Default for TrailOptions {
    fn default() -> Self {
        Self { segment_bytes: SEGMENT_BYTES }
    }
}

/// An opened trail, and what had to be repaired to open it.
#[derive(Debug)]
pub struct Opened {
    /// The trail.
    pub trail: Trail,
    /// What a crash had torn, if anything: to be recorded as `trail.recovered`.
    pub recovered: Option<Recovered>,
}

/// The trail, as its writer has it. Dropping it lets go of the state directory.
#[derive(Debug)]
pub struct Trail {
    dir: PathBuf,
    identity: Identity,
    options: TrailOptions,
    current: Segment,
    next_seq: u64,
    /// The last entry's.
    chain: String,
    key: HostKey,
    /// A failed write left bytes behind the last whole batch that could not be cut off yet.
    torn: bool,
    lines: Vec<u8>,
    shared: Arc<Shared>,
    written: watch::Sender<u64>,
    _lock: StateLock,
}

#[derive(Clone, Debug)]
struct Segment {
    path: PathBuf,
    file: Arc<File>,
    /// Up to the end of the last whole batch.
    len: u64,
}

/// What the writer and those who make its work durable both see.
#[derive(Debug)]
struct Shared {
    pending: Mutex<Pending>,
    synced: watch::Sender<u64>,
}

#[derive(Debug)]
struct Pending {
    path: PathBuf,
    file: Arc<File>,
    written: u64,
    failed: bool,
}

impl Shared {
    fn pending(&self) -> MutexGuard<'_, Pending> {
        // Every change below the lock is a plain store: a thread that panicked left nothing half done.
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn synced_through(&self, seq: u64) {
        self.synced.send_if_modified(|synced| {
            let ahead = seq > *synced;
            if ahead {
                *synced = seq;
            }
            ahead
        });
    }
}

impl Trail {
    /// Opens the trail below `state_dir`, making what is missing, and takes the state directory for this process.
    ///
    /// Everything that is found is made durable first, so that nothing is exported that a power cut could take back.
    pub fn open(state_dir: &Path, options: TrailOptions) -> Result<Opened, TrailError> {
        let dir = segment::directory(state_dir);
        DirBuilder::new().recursive(true).mode(0o700).create(&dir).map_err(io_error("create", &dir))?;
        let lock = StateLock::take(state_dir)?;
        let identity = Identity::read_or_create(state_dir)?;
        let key = HostKey::read_or_create(state_dir)?;
        let firsts = segment::list(&dir)?;
        let first_seq = firsts.last().copied().unwrap_or(1);
        let (path, file) = open_segment(&dir, first_seq)?;
        let end = recovery::recover(&file, &path, first_seq)?;
        file.sync_all().map_err(io_error("sync", &path))?;
        let chain = match end.chain {
            Some(chain) => chain,
            None => chain_before(state_dir, &dir, &firsts)?,
        };
        let file = Arc::new(file);
        let shared = Arc::new(Shared {
            pending: Mutex::new(Pending {
                path: path.clone(),
                file: Arc::clone(&file),
                written: end.last_seq,
                failed: false,
            }),
            synced: watch::Sender::new(end.last_seq),
        });
        let trail = Self {
            dir,
            identity,
            options,
            current: Segment { path, file, len: end.len },
            next_seq: end.last_seq + 1,
            chain,
            key,
            torn: false,
            lines: Vec::new(),
            shared,
            written: watch::Sender::new(end.last_seq),
            _lock: lock,
        };
        Ok(Opened { trail, recovered: end.recovered })
    }

    /// Whose trail this is.
    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// The last entry's seq; 0 while there is none.
    pub fn last_seq(&self) -> u64 {
        self.next_seq - 1
    }

    /// What the entry of that seq is named by.
    pub fn uid(&self, seq: u64) -> String {
        format!("{}-{seq}", self.identity.id)
    }

    /// Gives the drafts their places and writes them, all or none, with one write.
    ///
    /// On return readers see them, and they outlive this process; they outlive a power cut once [`Self::sync`] (or a
    /// [`Syncer`]) has been called. After an error the trail is as it was before, and the drafts come back.
    pub fn append(&mut self, drafts: Vec<Draft>) -> Result<Vec<Arc<Entry>>, AppendError> {
        let mut entries = Vec::with_capacity(drafts.len());
        for (seq, draft) in (self.next_seq..).zip(drafts) {
            entries.push(Entry { uid: self.uid(seq), seq, draft, chain: String::new() });
        }
        match self.write(&mut entries) {
            Ok(()) => {
                if let Some(last) = entries.last() {
                    self.chain.clone_from(&last.chain);
                }
                self.next_seq += entries.len() as u64;
                let written = self.last_seq();
                self.shared.pending().written = written;
                self.written.send_if_modified(|last| std::mem::replace(last, written) != written);
                Ok(entries.into_iter().map(Arc::new).collect())
            }
            Err(error) => Err(AppendError { drafts: entries.into_iter().map(|entry| entry.draft).collect(), error }),
        }
    }

    fn write(&mut self, entries: &mut [Entry]) -> Result<(), TrailError> {
        let mut lines = std::mem::take(&mut self.lines);
        lines.clear();
        let result = self.encode(entries, &mut lines).and_then(|()| self.write_lines(&lines));
        self.lines = lines;
        result
    }

    /// Chains the entries, signs checkpoints among them, and writes their lines.
    fn encode(&self, entries: &mut [Entry], lines: &mut Vec<u8>) -> Result<(), TrailError> {
        let mut before = self.chain.clone();
        for entry in entries {
            if entry.draft.event == CHECKPOINT {
                Checkpoint::seal(&mut entry.draft, &self.key, &self.identity.id, entry.seq - 1, &before);
            }
            let start = lines.len();
            encode_body(entry, lines)?;
            if lines.len() - start > segment::MAX_LINE_BYTES - 2 * chain::CHAIN_BYTES {
                lines.truncate(start);
                shorten(entry);
                encode_body(entry, lines)?;
            }
            entry.chain = chain::link(&before, lines.get(start..).unwrap_or_default());
            chain::close(lines, &entry.chain);
            before.clone_from(&entry.chain);
        }
        Ok(())
    }

    fn write_lines(&mut self, lines: &[u8]) -> Result<(), TrailError> {
        self.cut_torn()?;
        if self.current.len >= self.options.segment_bytes {
            self.roll()?;
        }
        let mut file: &File = &self.current.file;
        if let Err(error) = file.write_all(lines) {
            self.torn = true;
            // What cannot be cut off now is cut off before the next write: readers only take whole lines.
            let cut = self.cut_torn();
            return Err(cut.err().unwrap_or_else(|| io_error("write", &self.current.path)(error)));
        }
        self.current.len += lines.len() as u64;
        Ok(())
    }

    fn cut_torn(&mut self) -> Result<(), TrailError> {
        if self.torn {
            self.current.file.set_len(self.current.len).map_err(io_error("cut", &self.current.path))?;
            self.torn = false;
        }
        Ok(())
    }

    /// Closes the segment, durably, and starts the next one.
    fn roll(&mut self) -> Result<(), TrailError> {
        self.sync()?;
        let (path, file) = open_segment(&self.dir, self.next_seq)?;
        let file = Arc::new(file);
        let mut pending = self.shared.pending();
        pending.path.clone_from(&path);
        pending.file = Arc::clone(&file);
        drop(pending);
        self.current = Segment { path, file, len: 0 };
        Ok(())
    }

    /// Makes everything written durable; returns the last seq that is.
    pub fn sync(&mut self) -> Result<u64, TrailError> {
        self.syncer().sync()
    }

    /// A handle with which another thread makes the trail durable, so that the writer need not wait for the disk.
    pub fn syncer(&self) -> Syncer {
        Syncer { shared: Arc::clone(&self.shared) }
    }

    /// Follows the last seq that readers can see.
    pub fn subscribe(&self) -> watch::Receiver<u64> {
        self.written.subscribe()
    }

    /// Follows the last seq that is durable: what exporters may send.
    pub fn subscribe_synced(&self) -> watch::Receiver<u64> {
        self.shared.synced.subscribe()
    }
}

/// Makes a trail durable from any thread.
#[derive(Clone, Debug)]
pub struct Syncer {
    shared: Arc<Shared>,
}

impl Syncer {
    /// Makes durable what was written before the call; returns the last seq that is. Does not hold up the writer.
    pub fn sync(&self) -> Result<u64, TrailError> {
        let (path, file, written) = {
            let pending = self.shared.pending();
            if pending.failed {
                return Err(TrailError::SyncFailed { path: pending.path.clone() });
            }
            (pending.path.clone(), Arc::clone(&pending.file), pending.written)
        };
        if *self.shared.synced.borrow() >= written {
            return Ok(written);
        }
        if let Err(error) = file.sync_data() {
            // Linux reports a failed write-back once and may drop the pages: a second try would falsely succeed.
            self.shared.pending().failed = true;
            return Err(io_error("sync", &path)(error));
        }
        self.shared.synced_through(written);
        Ok(written)
    }
}

fn open_segment(dir: &Path, first_seq: u64) -> Result<(PathBuf, File), TrailError> {
    let path = segment::path(dir, first_seq);
    let mut options = OpenOptions::new();
    // Appending: after a cut, the next write goes to the new end.
    options.read(true).append(true).create(true).mode(0o600);
    let file = options.open(&path).map_err(io_error("open", &path))?;
    segment::sync_directory(dir)?;
    Ok((path, file))
}

/// The chain that the first entry of the last of these segments follows: it holds none yet.
fn chain_before(state_dir: &Path, dir: &Path, firsts: &[u64]) -> Result<String, TrailError> {
    let Some(&before) = firsts.iter().rev().nth(1) else { return Identity::genesis(state_dir) };
    let path = segment::path(dir, before);
    let file = File::open(&path).map_err(io_error("open", &path))?;
    Ok(segment::last_line(&file, &path)?.map(|last| last.head.chain).unwrap_or_default())
}

/// Writes an entry that has no chain yet; all but the brace that ends it.
fn encode_body(entry: &Entry, lines: &mut Vec<u8>) -> Result<(), TrailError> {
    serde_json::to_writer(&mut *lines, entry)
        .map_err(|source| TrailError::Encode { event: entry.draft.event.clone(), source })?;
    lines.pop();
    Ok(())
}

/// Cuts what is long in an entry that is longer than a line may be, and says so in the entry.
fn shorten(entry: &mut Entry) {
    let draft = &mut entry.draft;
    for (name, value) in &mut draft.attributes {
        let text = match &*value {
            Value::String(text) => text.clone(),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_) => value.to_string(),
        };
        if text.len() <= CUT_ATTRIBUTE_BYTES {
            continue;
        }
        *value = Value::String(text[..text.floor_char_boundary(CUT_ATTRIBUTE_BYTES)].to_owned());
        if !draft.truncated.contains(name) {
            draft.truncated.push(name.clone());
        }
    }
}
