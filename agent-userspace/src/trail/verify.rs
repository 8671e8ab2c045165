//! Is the trail whole? Follows the chain from line to line, looks at each checkpoint's signature, and compares what exported
//! checkpoints say. Reads alone: nothing is cut, repaired or made.
//!
//! Every line has its own chain, so each segment is looked at by itself ([`walk`](super::walk)), several at a time; here they
//! are put together, in order.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::ErrorKind;
use std::num::NonZero;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use super::chain;
use super::checkpoint::Checkpoint;
use super::error::{TrailError, io_error};
use super::identity::Identity;
use super::reader::{Position, TrailReader};
use super::retention::Tombstone;
use super::segment;
use super::walk::{Bad, Part, Place, Task, Unproven, walk};
use crate::entry::Timestamp;

/// Segments that are looked at at a time, where there are so many processors: the disk is no faster for more.
const MOST_THREADS: usize = 4;
/// Retention may remove a segment while it is to be read: then all is looked at again, so often.
const TRIES: u32 = 3;

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
    /// Entries before the first one looked at that retention removed, by the tombstones in the trail.
    pub removed: u64,
    /// The seq of the tombstone that says so.
    pub tombstone: Option<u64>,
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
        match Verifier::prepare(state_dir, exported)?.run(state_dir, since) {
            Err(TrailError::Io { source, .. }) if source.kind() == ErrorKind::NotFound && tries < TRIES => tries += 1,
            result => return result,
        }
    }
}

/// What all segments have in common, and what was found in those before.
struct Verifier {
    id: String,
    dir: PathBuf,
    verified: Verified,
    /// Exported checkpoints of this trail, by the entry they vouch for.
    exported: Option<BTreeMap<u64, Vec<Checkpoint>>>,
    /// The first line behind the last exported checkpoint that agrees: if a later one does not, the change is there or behind.
    doubtful: Option<Place>,
    unproven: Option<Unproven>,
    tombstones: Vec<(u64, Tombstone)>,
}

impl Verifier {
    fn prepare(state_dir: &Path, exported: Option<&[Checkpoint]>) -> Result<Self, TrailError> {
        let dir = segment::directory(state_dir);
        let firsts = segment::list(&dir)?;
        let mut verifier = Self {
            id: String::new(),
            verified: Verified::default(),
            exported: None,
            doubtful: None,
            unproven: None,
            tombstones: Vec::new(),
            dir,
        };
        let first = firsts.first().copied().unwrap_or(1);
        let place = Place { seq: first, file: segment::path(&verifier.dir, first), offset: 0 };
        match Identity::read(state_dir) {
            Ok(Some(identity)) => verifier.id = identity.id,
            Ok(None) if firsts.is_empty() => match exported.and_then(<[_]>::first) {
                None => return Err(TrailError::NoTrail { state: state_dir.to_owned() }),
                Some(checkpoint) => {
                    verifier.id.clone_from(&checkpoint.trail);
                    verifier.bad(&place, "there is no trail here, though checkpoints vouch for one".to_owned());
                }
            },
            Ok(None) => verifier.bad(&place, "trail.json, which says whose trail this is, is missing".to_owned()),
            Err(error @ TrailError::BadIdentity { .. }) => verifier.bad(&place, error.to_string()),
            Err(error) => return Err(error),
        }
        if let Some(exported) = exported.filter(|_| verifier.verified.first_bad.is_none()) {
            let mut by_seq: BTreeMap<u64, Vec<Checkpoint>> = BTreeMap::new();
            for checkpoint in exported.iter().filter(|checkpoint| checkpoint.trail == verifier.id) {
                by_seq.entry(checkpoint.seq).or_default().push(checkpoint.clone());
            }
            if by_seq.is_empty() {
                let others: BTreeSet<&str> = exported.iter().map(|checkpoint| checkpoint.trail.as_str()).collect();
                let others: Vec<&str> = others.into_iter().collect();
                let why = format!("no checkpoint is of this trail ({}), but of {}", verifier.id, others.join(", "));
                verifier.bad(&place, why);
            }
            verifier.exported = Some(by_seq);
        }
        Ok(verifier)
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
        let Some(&first) = firsts.get(begin) else { return Ok(self.without_entries()) };
        self.verified.first_seq = first;
        self.verified.last_seq = first.saturating_sub(1);
        let (id, exported) = (self.id.clone(), self.exported.clone());
        let tasks = self.tasks(state_dir, &firsts, begin, (&id, exported.as_ref()))?;
        let parts = walk_all(&tasks);
        let mut chain = tasks.first().and_then(|task| task.before.clone());
        let mut end = Place { seq: first, file: segment::path(&self.dir, first), offset: 0 };
        for (task, part) in tasks.iter().zip(parts) {
            let Some(part) = part.transpose()? else { break };
            self.add(task, part, &mut chain, &mut end);
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

    /// What is to be looked at: each segment, with the chain that the one before ends with.
    fn tasks<'a>(
        &self,
        state_dir: &Path,
        firsts: &[u64],
        begin: usize,
        (id, exported): (&'a str, Option<&'a BTreeMap<u64, Vec<Checkpoint>>>),
    ) -> Result<Vec<Task<'a>>, TrailError> {
        let mut tasks = Vec::new();
        for (at, &first) in firsts.iter().enumerate().skip(begin) {
            let before = match at.checked_sub(1).and_then(|before| firsts.get(before)) {
                Some(&before) => self.last_chain(before)?,
                None if first == 1 => Some(Identity::genesis(state_dir)?),
                None => None,
            };
            let path = segment::path(&self.dir, first);
            // What is written meanwhile is for the next time.
            let until = if at + 1 == firsts.len() { segment_len(&path)? } else { u64::MAX };
            tasks.push(Task { id, first, path, until, before, exported });
        }
        Ok(tasks)
    }

    /// The chain that a segment ends with. One that ends with something else is found when it is looked at.
    fn last_chain(&self, first: u64) -> Result<Option<String>, TrailError> {
        let path = segment::path(&self.dir, first);
        let file = File::open(&path).map_err(io_error("open", &path))?;
        Ok(Some(segment::last_line(&file, &path)?.map(|last| last.head.chain).unwrap_or_default()))
    }

    /// Adds what was found in a segment to what was found in those before: `chain` is the chain that they end with, `end`
    /// the place.
    fn add(&mut self, task: &Task<'_>, part: Part, chain: &mut Option<String>, end: &mut Place) {
        let seq = self.verified.last_seq + 1;
        if task.first != seq {
            // Where they should stand: at the end of what is there.
            let why = format!("the entries up to {} are missing", task.first.saturating_sub(1));
            return self.bad(&Place { seq, ..end.clone() }, why);
        }
        if *chain != task.before {
            let why = "it does not follow the segment before".to_owned();
            return self.bad(&Place { seq, file: task.path.clone(), offset: 0 }, why);
        }
        let start = Place { seq, file: task.path.clone(), offset: 0 };
        let doubtful = self.doubtful.take().unwrap_or(start);
        self.verified.entries += part.entries;
        self.verified.last_seq += part.entries;
        for checkpoint in part.vouching {
            self.verified.checkpoints += 1;
            self.verified.keys.insert(checkpoint.key.clone());
            self.verified.vouched = Some(checkpoint);
        }
        self.tombstones.extend(part.tombstones);
        self.unproven = self.unproven.take().or(part.unproven);
        *chain = part.chain;
        *end = part.end.clone();
        match part.bad {
            // Behind the last line of a segment is the first of the next.
            None => {
                let agreed = part.agreed.as_ref().map(|place| Some(place.clone()).filter(|place| *place != part.end));
                self.doubtful = agreed.unwrap_or(Some(doubtful));
            }
            Some(Bad::Line { place, why }) => self.bad(&place, why),
            Some(Bad::Checkpoint { why }) => {
                let place = part.agreed.unwrap_or(doubtful);
                self.verified.entries = place.seq - self.verified.first_seq;
                self.verified.last_seq = place.seq - 1;
                self.bad(&place, why);
            }
        }
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

    /// What was removed before the first line must be what a tombstone says was.
    fn prove_beginning(&mut self) {
        let Some(unproven) = self.unproven.take() else { return };
        let removed = unproven.place.seq - 1;
        let tombstone = self.tombstones.iter().find(|(_, tombstone)| tombstone.to == removed);
        match tombstone {
            None => self.bad(&unproven.place, format!("no tombstone says who removed the entries up to {removed}")),
            Some((_, tombstone)) if chain::link(&tombstone.chain, &unproven.body) != unproven.chain => {
                self.bad(&unproven.place, "it does not follow what the tombstone says was removed".to_owned());
            }
            Some(&(seq, _)) => {
                self.verified.removed = removed;
                self.verified.tombstone = Some(seq);
            }
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

/// Looks at segments, several at a time; not at those behind one that is bad.
fn walk_all(tasks: &[Task<'_>]) -> Vec<Option<Result<Part, TrailError>>> {
    let parts: Vec<Mutex<Option<Result<Part, TrailError>>>> = tasks.iter().map(|_| Mutex::default()).collect();
    let (next, bad) = (AtomicUsize::new(0), AtomicUsize::new(usize::MAX));
    let work = || {
        loop {
            let at = next.fetch_add(1, Ordering::Relaxed);
            let (Some(task), Some(place)) = (tasks.get(at), parts.get(at)) else { return };
            if at > bad.load(Ordering::Relaxed) {
                return;
            }
            let part = walk(task);
            if part.as_ref().is_ok_and(|part| part.bad.is_some()) {
                bad.fetch_min(at, Ordering::Relaxed);
            }
            *place.lock().unwrap_or_else(PoisonError::into_inner) = Some(part);
        }
    };
    let threads = std::thread::available_parallelism().map_or(1, NonZero::get).min(MOST_THREADS).min(tasks.len());
    std::thread::scope(|scope| {
        for _ in 1..threads {
            scope.spawn(work);
        }
        work();
    });
    parts.into_iter().map(|part| part.into_inner().unwrap_or_else(PoisonError::into_inner)).collect()
}

fn segment_len(path: &Path) -> Result<u64, TrailError> {
    path.metadata().map(|metadata| metadata.len()).map_err(io_error("inspect", path))
}
