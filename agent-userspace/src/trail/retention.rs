//! What the trail need not keep any longer. Whole segments go, the oldest first; a tombstone in the chain says which, so
//! that what is left can still be verified.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::{Map, Value};

use super::error::{TrailError, io_error};
use super::segment;
use crate::entry::{Draft, Timestamp};

/// The event of a tombstone.
pub const TOMBSTONE: &str = "trail.tombstone";

const FROM: &str = "bailiwick.tombstone.from_seq";
const TO: &str = "bailiwick.tombstone.to_seq";
const CHAIN: &str = "bailiwick.tombstone.chain";
const BYTES: &str = "bailiwick.tombstone.bytes";
const REASON: &str = "bailiwick.tombstone.reason";

/// How long the trail is kept; what is none bounds nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Retention {
    /// Entries older than this may go.
    pub age: Option<Duration>,
    /// The oldest go while there are more bytes than this.
    pub bytes: Option<u64>,
    /// The oldest go while the file system has fewer bytes free than this.
    pub free: Option<u64>,
    /// Whether entries go that no target has acknowledged.
    pub unacknowledged: bool,
}

/// Segments that may go, oldest first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Removable(Vec<RemovableSegment>);

/// One of them, with what its tombstone says.
#[derive(Clone, Debug, PartialEq, Eq)]
struct RemovableSegment {
    path: PathBuf,
    tombstone: Tombstone,
    bytes: u64,
    reason: &'static str,
}

/// What was removed: the entries from one seq to another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Tombstone {
    pub(super) from: u64,
    pub(super) to: u64,
    /// The chain of the last of them.
    pub(super) chain: String,
}

impl Tombstone {
    pub(super) fn of_attributes(attributes: &Map<String, Value>) -> Option<Self> {
        let number = |name: &str| attributes.get(name).and_then(Value::as_u64);
        let chain = attributes.get(CHAIN)?.as_str()?.to_owned();
        Some(Self { from: number(FROM)?, to: number(TO)?, chain })
    }

    pub(super) fn entries(&self) -> u64 {
        (self.to + 1).saturating_sub(self.from)
    }
}

impl Removable {
    /// Finds what may go of the trail below `state_dir`; never the segment that is written.
    ///
    /// # Errors
    /// The trail cannot be read.
    pub fn find(
        state_dir: &Path,
        keep: &Retention,
        acknowledged: u64,
        now: Timestamp,
    ) -> Result<Option<Self>, TrailError> {
        if keep.age.is_none() && keep.bytes.is_none() && keep.free.is_none() {
            return Ok(None);
        }
        let dir = segment::directory(state_dir);
        let mut free = keep.free.map(|_| free_bytes(&dir)).transpose()?;
        let firsts = segment::list(&dir)?;
        let mut total = 0;
        for &first in &firsts {
            total += len(&segment::path(&dir, first))?;
        }
        let mut removable = Vec::new();
        for &first in firsts.iter().take(firsts.len().saturating_sub(1)) {
            let path = segment::path(&dir, first);
            let file = fs::File::open(&path).map_err(io_error("open", &path))?;
            // A segment that cannot be read stays: somebody will want to look at it.
            let Some(last) = segment::last_line(&file, &path)? else { break };
            let too_many = keep.bytes.is_some_and(|most| total > most);
            let too_old = keep.age.is_some_and(|age| {
                let age = u64::try_from(age.as_nanos()).unwrap_or(u64::MAX);
                last.head.time.0 < now.0.saturating_sub(age)
            });
            let too_little_left = keep.free.zip(free).is_some_and(|(least, free)| free < least);
            if !(too_many || too_old || too_little_left) || (last.head.seq > acknowledged && !keep.unacknowledged) {
                break;
            }
            let bytes = len(&path)?;
            total -= bytes;
            free = free.map(|free| free.saturating_add(bytes));
            let reason = match (too_old, too_many) {
                (true, _) => "older than the trail is kept",
                (_, true) => "the trail was larger than it may be",
                (false, false) => "less of the disk was free than must be left",
            };
            let tombstone = Tombstone { from: first, to: last.head.seq, chain: last.head.chain };
            removable.push(RemovableSegment { path, tombstone, bytes, reason });
        }
        Ok((!removable.is_empty()).then_some(Self(removable)))
    }

    /// The entries that say what is removed, one for each segment, so that what is left can be verified wherever removing
    /// them is interrupted: to be durable before [`Removable::remove`] is called.
    pub fn drafts(&self, now: Timestamp) -> Vec<Draft> {
        self.0.iter().map(|segment| segment.draft(now)).collect()
    }

    /// How many entries go.
    pub fn entries(&self) -> u64 {
        self.0.iter().map(|segment| segment.tombstone.entries()).sum()
    }

    /// Removes their indexes alone, which nobody needs to be told of: so there is room for what must be written first.
    ///
    /// # Errors
    /// A file cannot be removed.
    pub fn remove_indexes(&self) -> Result<(), TrailError> {
        self.0.iter().try_for_each(|segment| remove_file(&segment.index()))
    }

    /// Removes the segments. What is left after an error goes the next time, with tombstones of its own.
    ///
    /// # Errors
    /// A file cannot be removed.
    pub fn remove(self) -> Result<(), TrailError> {
        for segment in &self.0 {
            remove_file(&segment.index())?;
            remove_file(&segment.path)?;
        }
        let dir = self.0.first().and_then(|segment| segment.path.parent());
        dir.map_or(Ok(()), segment::sync_directory)
    }
}

impl RemovableSegment {
    fn index(&self) -> PathBuf {
        self.path.with_extension(segment::INDEX_EXTENSION)
    }

    fn draft(&self, now: Timestamp) -> Draft {
        let mut draft = Draft::of_host(now, TOMBSTONE);
        let said: [(&str, Value); 5] = [
            (FROM, self.tombstone.from.into()),
            (TO, self.tombstone.to.into()),
            (CHAIN, self.tombstone.chain.clone().into()),
            (BYTES, self.bytes.into()),
            (REASON, self.reason.into()),
        ];
        draft.attributes = said.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
        draft
    }
}

/// What is gone already need not be removed.
fn remove_file(path: &Path) -> Result<(), TrailError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        removed => removed.map_err(io_error("remove", path)),
    }
}

/// What the daemon may still write there.
fn free_bytes(dir: &Path) -> Result<u64, TrailError> {
    let system = rustix::fs::statvfs(dir).map_err(|error| io_error("inspect the file system of", dir)(error.into()))?;
    Ok(system.f_bavail.saturating_mul(system.f_frsize))
}

fn len(path: &Path) -> Result<u64, TrailError> {
    path.metadata().map(|metadata| metadata.len()).map_err(io_error("inspect", path))
}
