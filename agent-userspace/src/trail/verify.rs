//! Is the trail whole? Follows the chain from line to line, looks at each checkpoint's signature, and compares what exported
//! checkpoints say. Reads alone: nothing is cut, repaired or made.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{BufRead, BufReader, ErrorKind, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::chain;
use super::checkpoint::{CHECKPOINT, Checkpoint};
use super::error::{TrailError, io_error};
use super::identity::Identity;
use super::reader::{Position, TrailReader};
use super::retention::{TOMBSTONE, Tombstone};
use super::segment;
use crate::entry::{Entry, Timestamp};

/// A last line without its end may be one that is being written: it is looked at so often, this long apart.
const LOOKS: u32 = 10;
const LOOK_AGAIN_AFTER: Duration = Duration::from_millis(20);
/// Retention may remove a segment while it is to be read: then all is looked at again, so often.
const TRIES: u32 = 3;
/// An entry's event stands within so many bytes of its start.
const EVENT_WITHIN: usize = 256;

/// What was found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verified {
    /// Entries that are as they were written.
    pub entries: u64,
    /// The seq of the first entry looked at; 0 where there is none.
    pub first_seq: u64,
    /// The seq of the last entry that is as it was written; 0 where there is none.
    pub last_seq: u64,
    /// The first that is not.
    pub first_bad: Option<FirstBad>,
    /// The last checkpoint that agrees: an exported one where such were given, otherwise one in the trail itself.
    pub vouched: Option<Checkpoint>,
    /// Checkpoints that agree.
    pub checkpoints: u64,
    /// The public keys that signed them.
    pub keys: BTreeSet<String>,
    /// Entries that retention removed, by the tombstones in the trail.
    pub removed: u64,
}

/// The first entry that is not as it was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FirstBad {
    /// Its uid, by its place.
    pub uid: String,
    /// The segment it stands in, or should.
    pub file: PathBuf,
    /// The byte in it where its line begins.
    pub offset: u64,
    /// What is wrong.
    pub why: String,
}

/// Verifies the trail below `state_dir`: all of it, or from the segment on that holds `since`; against exported checkpoints,
/// where there are some.
///
/// # Errors
/// There is no trail, or it cannot be read.
pub fn verify(
    state_dir: &Path,
    since: Option<Timestamp>,
    exported: Option<&[Checkpoint]>,
) -> Result<Verified, TrailError> {
    let mut tries = 1;
    loop {
        match Walk::prepare(state_dir, exported)?.run(state_dir, since) {
            Err(TrailError::Io { source, .. }) if source.kind() == ErrorKind::NotFound && tries < TRIES => tries += 1,
            result => return result,
        }
    }
}

/// Where a line is.
#[derive(Clone, Debug)]
struct Place {
    seq: u64,
    file: PathBuf,
    offset: u64,
}

/// The first line of a trail whose beginning was removed: a tombstone further on says what it must follow.
struct Unproven {
    place: Place,
    body: Vec<u8>,
    chain: String,
}

struct Walk {
    id: String,
    dir: PathBuf,
    verified: Verified,
    /// The chain before the next line; none where a tombstone must tell.
    before: Option<String>,
    unproven: Option<Unproven>,
    tombstones: Vec<Tombstone>,
    /// Exported checkpoints of this trail, by the entry they vouch for.
    exported: Option<BTreeMap<u64, Vec<Checkpoint>>>,
    /// Behind the last exported checkpoint that agrees: if a later one does not, the change is there or behind.
    doubtful: Option<Place>,
}

impl Walk {
    fn prepare(state_dir: &Path, exported: Option<&[Checkpoint]>) -> Result<Self, TrailError> {
        let dir = segment::directory(state_dir);
        let firsts = segment::list(&dir)?;
        let mut walk = Self {
            id: String::new(),
            verified: Verified::default(),
            before: None,
            unproven: None,
            tombstones: Vec::new(),
            exported: None,
            doubtful: None,
            dir,
        };
        let first = firsts.first().copied().unwrap_or(1);
        let place = Place { seq: first, file: segment::path(&walk.dir, first), offset: 0 };
        match Identity::read(state_dir) {
            Ok(Some(identity)) => walk.id = identity.id,
            Ok(None) if firsts.is_empty() => match exported.and_then(<[_]>::first) {
                None => return Err(TrailError::NoTrail { state: state_dir.to_owned() }),
                Some(checkpoint) => {
                    walk.id.clone_from(&checkpoint.trail);
                    walk.bad(&place, "there is no trail here, though checkpoints vouch for one".to_owned());
                }
            },
            Ok(None) => walk.bad(&place, "trail.json, which says whose trail this is, is missing".to_owned()),
            Err(error @ TrailError::BadIdentity { .. }) => walk.bad(&place, error.to_string()),
            Err(error) => return Err(error),
        }
        if let Some(exported) = exported.filter(|_| walk.verified.first_bad.is_none()) {
            let mut by_seq: BTreeMap<u64, Vec<Checkpoint>> = BTreeMap::new();
            for checkpoint in exported.iter().filter(|checkpoint| checkpoint.trail == walk.id) {
                by_seq.entry(checkpoint.seq).or_default().push(checkpoint.clone());
            }
            if by_seq.is_empty() {
                let others: BTreeSet<&str> = exported.iter().map(|checkpoint| checkpoint.trail.as_str()).collect();
                let others: Vec<&str> = others.into_iter().collect();
                let why = format!("no checkpoint is of this trail ({}), but of {}", walk.id, others.join(", "));
                walk.bad(&place, why);
            }
            walk.exported = Some(by_seq);
        }
        Ok(walk)
    }

    fn run(mut self, state_dir: &Path, since: Option<Timestamp>) -> Result<Verified, TrailError> {
        if self.verified.first_bad.is_some() {
            return Ok(self.verified);
        }
        let firsts = segment::list(&self.dir)?;
        let begin = match since {
            None => 0,
            Some(time) => {
                let segment = TrailReader::open(state_dir, Position::Since(time))?.cursor().segment;
                firsts.iter().position(|&first| first == segment).unwrap_or(0)
            }
        };
        let firsts = firsts.get(begin..).unwrap_or_default();
        let Some(&first) = firsts.first() else { return Ok(self.without_entries()) };
        self.verified.first_seq = first;
        self.verified.last_seq = first.saturating_sub(1);
        self.before = match first {
            1 => Some(Identity::genesis(state_dir)?),
            _ => self.chain_before(begin)?,
        };
        // What is written meanwhile is for the next time.
        let end = segment_len(&segment::path(&self.dir, firsts.last().copied().unwrap_or(first)))?;
        for (index, &first) in firsts.iter().enumerate() {
            let is_last = index + 1 == firsts.len();
            self.walk_segment(first, is_last.then_some(end))?;
            if self.verified.first_bad.is_some() {
                return Ok(self.verified);
            }
        }
        if self.verified.entries == 0 && first == 1 && since.is_none() {
            return Ok(self.without_entries());
        }
        self.prove_beginning();
        self.look_behind_the_end();
        Ok(self.verified)
    }

    /// The first thing a daemon does is to write an entry: whoever made a trail left some in it.
    fn without_entries(mut self) -> Verified {
        self.look_behind_the_end();
        if self.verified.first_bad.is_none() {
            let place = Place { seq: 1, file: segment::path(&self.dir, 1), offset: 0 };
            self.bad(&place, "the trail was made, but there is not one entry".to_owned());
        }
        self.verified
    }

    /// The chain at the end of the segment before, where there is one.
    fn chain_before(&self, begin: usize) -> Result<Option<String>, TrailError> {
        let firsts = segment::list(&self.dir)?;
        let Some(&before) = begin.checked_sub(1).and_then(|before| firsts.get(before)) else { return Ok(None) };
        let path = segment::path(&self.dir, before);
        let file = File::open(&path).map_err(io_error("open", &path))?;
        Ok(segment::last_line(&file, &path)?.map(|last| last.head.chain))
    }

    fn walk_segment(&mut self, first: u64, until: Option<u64>) -> Result<(), TrailError> {
        let path = segment::path(&self.dir, first);
        let mut place = Place { seq: self.verified.last_seq + 1, file: path.clone(), offset: 0 };
        if first != place.seq {
            let why = format!("the entries up to {} are missing", first.saturating_sub(1));
            self.bad(&place, why);
            return Ok(());
        }
        let mut lines = BufReader::with_capacity(1 << 20, File::open(&path).map_err(io_error("open", &path))?);
        let mut line = Vec::new();
        while until.is_none_or(|until| place.offset < until) {
            line.clear();
            read_line(&mut lines, &mut line).map_err(io_error("read", &path))?;
            if line.is_empty() {
                break;
            }
            self.look_at(&place, &line);
            if self.verified.first_bad.is_some() {
                break;
            }
            place.offset += line.len() as u64;
            place.seq += 1;
        }
        Ok(())
    }

    fn look_at(&mut self, place: &Place, line: &[u8]) {
        let Some((body, chain)) = chain::split(line) else {
            return self.bad(place, "its line does not end as those of the trail do".to_owned());
        };
        let beginning = format!("{{\"uid\":\"{}-{}\",\"seq\":{},", self.id, place.seq, place.seq);
        if !body.starts_with(beginning.as_bytes()) {
            return self.bad(place, "another entry stands in its place".to_owned());
        }
        match &self.before {
            Some(before) if chain::link(before, body) != chain => {
                return self
                    .bad(place, "it does not fit the chain: it was changed, or what comes before it was".to_owned());
            }
            Some(_) => {}
            None => {
                self.unproven = Some(Unproven { place: place.clone(), body: body.to_vec(), chain: chain.to_owned() });
            }
        }
        if is_of(body, CHECKPOINT) && !self.agrees(line, place.seq) {
            return self.bad(place, "the checkpoint's signature, or what it vouches for, is not right".to_owned());
        }
        if is_of(body, TOMBSTONE)
            && let Some(tombstone) =
                read(line).as_ref().and_then(|entry| Tombstone::of_attributes(&entry.draft.attributes))
        {
            self.verified.removed += tombstone.entries();
            self.tombstones.push(tombstone);
        }
        self.before = Some(chain.to_owned());
        self.verified.entries += 1;
        self.verified.last_seq = place.seq;
        self.compare_with_exported(place, chain);
    }

    /// Whether the checkpoint in this line is signed, and says what the trail says.
    fn agrees(&mut self, line: &[u8], seq: u64) -> bool {
        let Some(checkpoint) = read(line).and_then(|entry| Checkpoint::of_attributes(&entry.draft.attributes)) else {
            return false;
        };
        let same_chain = self.before.as_ref().is_none_or(|before| *before == checkpoint.chain);
        let agrees = checkpoint.trail == self.id && checkpoint.seq + 1 == seq && same_chain && checkpoint.is_signed();
        if agrees && self.exported.is_none() {
            self.vouch(checkpoint);
        }
        agrees
    }

    fn compare_with_exported(&mut self, place: &Place, chain: &str) {
        let Some(exported) = &self.exported else { return };
        if self.doubtful.is_none() {
            self.doubtful = Some(place.clone());
        }
        let Some(checkpoints) = exported.get(&place.seq).cloned() else { return };
        for checkpoint in checkpoints {
            if checkpoint.chain == chain {
                self.vouch(checkpoint);
                self.doubtful = None;
                continue;
            }
            let from = self.doubtful.clone().unwrap_or_else(|| place.clone());
            let why = format!(
                "the checkpoint of {} vouches for another entry {}: the trail was written anew here or behind",
                checkpoint.time, checkpoint.seq
            );
            return self.bad(&from, why);
        }
    }

    fn vouch(&mut self, checkpoint: Checkpoint) {
        self.verified.checkpoints += 1;
        self.verified.keys.insert(checkpoint.key.clone());
        self.verified.vouched = Some(checkpoint);
    }

    /// What was removed before the first line must be what a tombstone says was.
    fn prove_beginning(&mut self) {
        let Some(unproven) = self.unproven.take() else { return };
        let removed = unproven.place.seq - 1;
        let tombstone = self.tombstones.iter().find(|tombstone| tombstone.to == removed);
        match tombstone {
            None => self.bad(&unproven.place, format!("no tombstone says who removed the entries up to {removed}")),
            Some(tombstone) if chain::link(&tombstone.chain, &unproven.body) != unproven.chain => {
                self.bad(&unproven.place, "it does not follow what the tombstone says was removed".to_owned());
            }
            Some(_) => {}
        }
    }

    /// Exported checkpoints of entries that are not there: the end was cut off.
    fn look_behind_the_end(&mut self) {
        let last = self.verified.last_seq;
        let beyond = self.exported.iter().flatten().find(|&(&seq, _)| seq > last);
        let Some(time) = beyond.and_then(|(_, checkpoints)| checkpoints.first()).map(|checkpoint| checkpoint.time)
        else {
            return;
        };
        if self.verified.first_bad.is_some() {
            return;
        }
        let segments = segment::list(&self.dir).unwrap_or_default();
        let file = segment::path(&self.dir, segments.last().copied().unwrap_or(1));
        let offset = segment_len(&file).unwrap_or(0);
        self.bad(
            &Place { seq: last + 1, file, offset },
            format!("it is missing, with all behind it: the checkpoint of {time} vouches for it"),
        );
    }

    fn bad(&mut self, place: &Place, why: String) {
        let uid = format!("{}-{}", self.id, place.seq);
        self.verified.first_bad = Some(FirstBad { uid, file: place.file.clone(), offset: place.offset, why });
    }
}

fn segment_len(path: &Path) -> Result<u64, TrailError> {
    path.metadata().map(|metadata| metadata.len()).map_err(io_error("inspect", path))
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

/// Whether the entry with this body is of that event.
fn is_of(body: &[u8], event: &str) -> bool {
    let beginning = body.get(..EVENT_WITHIN.min(body.len())).unwrap_or_default();
    let wanted = format!("\"event\":\"{event}\"");
    beginning.windows(wanted.len()).any(|window| window == wanted.as_bytes())
}

fn read(line: &[u8]) -> Option<Entry> {
    serde_json::from_slice(line).ok()
}
