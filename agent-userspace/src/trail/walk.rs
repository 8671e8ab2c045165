//! One segment, looked at by itself: does each line follow the one before, and do checkpoints say what is there?

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead, BufReader, Seek, SeekFrom};
use std::path::PathBuf;
use std::time::Duration;

use super::chain;
use super::checkpoint::{CHECKPOINT, Checkpoint, short_key};
use super::error::{TrailError, io_error};
use super::retention::{TOMBSTONE, Tombstone};
use crate::entry::Entry;

/// A last line without its end may be one that is being written: it is looked at so often, this long apart.
const LOOKS: u32 = 10;
const LOOK_AGAIN_AFTER: Duration = Duration::from_millis(20);
/// How much is read at a time.
const READ_BYTES: usize = 1 << 18;
/// What a line has before its event, behind its seq: the time, in thirty digits and signs.
const TIME: &[u8] = b"\"time\":\"";
const TIME_BYTES: usize = 30;
const EVENT: &[u8] = b"\",\"event\":\"";

/// Where a line is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) seq: u64,
    pub(super) file: PathBuf,
    pub(super) offset: u64,
}

/// A segment to be looked at.
pub(super) struct Task<'a> {
    /// The trail's id.
    pub(super) id: &'a str,
    /// The seq of its first entry.
    pub(super) first: u64,
    pub(super) path: PathBuf,
    /// Up to that byte.
    pub(super) until: u64,
    /// The chain that its first line follows; none where a tombstone must tell.
    pub(super) before: Option<String>,
    /// Exported checkpoints, by the entry they vouch for.
    pub(super) exported: Option<&'a BTreeMap<u64, Vec<Checkpoint>>>,
}

/// What was found in a segment.
pub(super) struct Part {
    /// Lines that are as they were written.
    pub(super) entries: u64,
    /// The chain of the last of them; the one before the segment where it has none.
    pub(super) chain: Option<String>,
    /// Behind them.
    pub(super) end: Place,
    /// The first line that is not.
    pub(super) bad: Option<Bad>,
    /// Checkpoints that agree.
    pub(super) vouching: Vec<Checkpoint>,
    /// The place behind the last exported checkpoint that agrees, where one does.
    pub(super) agreed: Option<Place>,
    /// Tombstones, with their seqs.
    pub(super) tombstones: Vec<(u64, Tombstone)>,
    pub(super) unproven: Option<Unproven>,
}

/// What is wrong.
pub(super) enum Bad {
    /// With a line.
    Line { place: Place, why: String },
    /// An exported checkpoint vouches for another line: the change is behind the last one that agrees.
    Checkpoint { why: String },
}

/// The first line of a trail whose beginning was removed: a tombstone further on says what it must follow.
pub(super) struct Unproven {
    pub(super) place: Place,
    pub(super) body: Vec<u8>,
    pub(super) chain: String,
}

/// Looks at a segment, up to its end or the first line that is bad.
pub(super) fn walk(task: &Task<'_>) -> Result<Part, TrailError> {
    let path = &task.path;
    let mut lines = BufReader::with_capacity(READ_BYTES, File::open(path).map_err(io_error("open", path))?);
    let end = Place { seq: task.first, file: path.clone(), offset: 0 };
    let mut part = Part {
        entries: 0,
        chain: task.before.clone(),
        end,
        bad: None,
        vouching: Vec::new(),
        agreed: None,
        tombstones: Vec::new(),
        unproven: None,
    };
    let mut line = Vec::new();
    let mut beginning = Vec::new();
    while part.end.offset < task.until {
        line.clear();
        read_line(&mut lines, &mut line).map_err(io_error("read", path))?;
        if line.is_empty() {
            break;
        }
        part.bad = part.look_at(task, &line, &mut beginning).err();
        if part.bad.is_some() {
            break;
        }
    }
    Ok(part)
}

impl Part {
    fn look_at(&mut self, task: &Task<'_>, line: &[u8], beginning: &mut Vec<u8>) -> Result<(), Bad> {
        let seq = self.end.seq;
        let Some((body, chain)) = chain::split(line) else {
            return Err(self.bad("its line does not end as those of the trail do"));
        };
        beginning.clear();
        beginning.extend_from_slice(b"{\"uid\":\"");
        beginning.extend_from_slice(format!("{}-{seq}\",\"seq\":{seq},", task.id).as_bytes());
        let Some(rest) = body.strip_prefix(beginning.as_slice()) else {
            return Err(self.bad("another entry stands in its place"));
        };
        match &self.chain {
            Some(before) if chain::link(before, body) != chain => {
                return Err(self.bad("it does not fit the chain: it was changed, or what comes before it was"));
            }
            Some(_) => {}
            None => {
                let place = self.end.clone();
                self.unproven = Some(Unproven { place, body: body.to_vec(), chain: chain.to_owned() });
            }
        }
        let is_of = |event: &str| event_of(rest).is_none_or(|found| found == event.as_bytes());
        if is_of(CHECKPOINT) || is_of(TOMBSTONE) {
            self.look_into(task, line).map_err(|why| self.bad(why))?;
        }
        match &mut self.chain {
            Some(before) => {
                before.clear();
                before.push_str(chain);
            }
            before @ None => *before = Some(chain.to_owned()),
        }
        self.entries += 1;
        self.end.seq += 1;
        self.end.offset += line.len() as u64;
        self.compare_with_exported(task, seq, chain)
    }

    fn bad(&self, why: &str) -> Bad {
        Bad::Line { place: self.end.clone(), why: why.to_owned() }
    }

    /// Takes note of a tombstone or a checkpoint. A checkpoint must be signed, and say what the trail says.
    fn look_into(&mut self, task: &Task<'_>, line: &[u8]) -> Result<(), &'static str> {
        let entry: Entry = serde_json::from_slice(line).map_err(|_| "it is no entry")?;
        let attributes = &entry.draft.attributes;
        if entry.draft.event == TOMBSTONE {
            self.tombstones.extend(Tombstone::of_attributes(attributes).map(|tombstone| (entry.seq, tombstone)));
        }
        if entry.draft.event != CHECKPOINT {
            return Ok(());
        }
        let agrees = |checkpoint: &Checkpoint| {
            let same_chain = self.chain.as_ref().is_none_or(|before| *before == checkpoint.chain);
            let is_of_place = checkpoint.trail == task.id && checkpoint.seq + 1 == self.end.seq;
            is_of_place && same_chain && checkpoint.is_signed()
        };
        let checkpoint = Checkpoint::of_attributes(attributes).filter(agrees);
        let checkpoint = checkpoint.ok_or("the checkpoint's signature, or what it vouches for, is not right")?;
        if task.exported.is_none() {
            self.vouching.push(checkpoint);
        }
        Ok(())
    }

    fn compare_with_exported(&mut self, task: &Task<'_>, seq: u64, chain: &str) -> Result<(), Bad> {
        let Some(checkpoints) = task.exported.and_then(|exported| exported.get(&seq)) else { return Ok(()) };
        if let Some(checkpoint) = checkpoints.iter().find(|checkpoint| checkpoint.chain != chain) {
            let why = format!(
                "the checkpoint of {}, signed with {}, vouches for another entry {seq}: the trail was written anew here \
                 or behind",
                checkpoint.time,
                short_key(&checkpoint.key)
            );
            return Err(Bad::Checkpoint { why });
        }
        self.vouching.extend(checkpoints.iter().cloned());
        self.agreed = Some(self.end.clone());
        Ok(())
    }
}

/// The event of an entry, by what stands behind its seq; none where that is not what is written there.
fn event_of(rest: &[u8]) -> Option<&[u8]> {
    let behind = rest.strip_prefix(TIME)?.get(TIME_BYTES..)?.strip_prefix(EVENT)?;
    behind.split(|&byte| byte == b'"').next()
}

/// Reads a line. One that has no end yet may be one that is being written.
fn read_line(lines: &mut BufReader<File>, line: &mut Vec<u8>) -> std::io::Result<()> {
    for _ in 0..LOOKS {
        lines.read_until(b'\n', line)?;
        if line.is_empty() || line.ends_with(b"\n") {
            return Ok(());
        }
        std::thread::sleep(LOOK_AGAIN_AFTER);
        // The reader has seen the end: it must be told that the file may be longer now.
        let position = lines.stream_position()?;
        lines.seek(SeekFrom::Start(position))?;
    }
    Ok(())
}
