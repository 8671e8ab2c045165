//! What somebody who can write the trail may try, and what `verify` says of it: by itself, and against the checkpoints that
//! were exported before.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on says so by panicking")]

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::json;
use tempfile::TempDir;

use super::chain;
use super::{
    CHECKPOINT, Checkpoint, FirstBad, Position, Removable, Retention, Trail, TrailOptions, TrailReader, Verified,
    verify,
};
use crate::entry::{Draft, Entry, Timestamp};

const SECOND: u64 = 1_000_000_000;
const ENTRIES: u64 = 60;

fn draft(number: u64) -> Draft {
    let event = if number.is_multiple_of(10) { CHECKPOINT } else { "file.open" };
    let mut draft = Draft::of_host(Timestamp(1_700_000_000 * SECOND + number * SECOND), event);
    if event != CHECKPOINT {
        draft.attributes.insert("file.path".to_owned(), json!(format!("/srv/shop/{number}")));
    }
    draft
}

fn append(state: &Path, drafts: impl IntoIterator<Item = Draft>) {
    let mut trail = Trail::open(state, TrailOptions { segment_bytes: 2_000 }).unwrap().trail;
    for draft in drafts {
        trail.append(vec![draft]).unwrap();
    }
}

fn entries(state: &Path) -> Vec<Entry> {
    TrailReader::open(state, Position::Start).unwrap().next_batch(usize::MAX, usize::MAX).unwrap()
}

fn segments(state: &Path) -> Vec<PathBuf> {
    let mut paths: Vec<_> = fs::read_dir(state.join("trail")).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths
}

fn first_of(segment: &Path) -> u64 {
    segment.file_stem().unwrap().to_str().unwrap().parse().unwrap()
}

fn lines(segment: &Path) -> Vec<String> {
    fs::read_to_string(segment).unwrap().split_inclusive('\n').map(str::to_owned).collect()
}

/// A trail, and what a back end holds of it.
struct Attacked {
    state: TempDir,
    exported: Vec<Checkpoint>,
}

impl Attacked {
    fn new() -> Self {
        let state = TempDir::new().unwrap();
        append(state.path(), (1..=ENTRIES).map(draft));
        let of = |entry: &Entry| Checkpoint::of_attributes(&entry.draft.attributes);
        let exported = entries(state.path()).iter().filter_map(of).collect();
        let attacked = Self { state, exported };
        assert!(segments(attacked.path()).len() >= 6);
        assert_eq!((attacked.alone().first_bad, attacked.against().first_bad), (None, None));
        attacked
    }

    fn path(&self) -> &Path {
        self.state.path()
    }

    fn alone(&self) -> Verified {
        verify(self.path(), None, None).unwrap()
    }

    fn against(&self) -> Verified {
        verify(self.path(), None, Some(&self.exported)).unwrap()
    }

    /// Both say that this entry is the first that is not as it was; returns what the first says.
    #[track_caller]
    fn is_found_at(&self, seq: u64) -> FirstBad {
        assert_eq!(seq_of(&self.against()), Some(seq), "against checkpoints: {:?}", self.against());
        let alone = self.alone();
        assert_eq!(seq_of(&alone), Some(seq), "alone: {alone:?}");
        alone.first_bad.unwrap()
    }

    /// By itself the trail looks whole; the checkpoints say that this entry is the first that is not as it was.
    #[track_caller]
    fn is_found_by_checkpoints_alone_at(&self, seq: u64) -> FirstBad {
        assert_eq!(self.alone().first_bad, None);
        let against = self.against();
        assert_eq!(seq_of(&against), Some(seq), "{against:?}");
        assert_eq!(against.entries, seq - 1, "what is before it");
        against.first_bad.unwrap()
    }

    /// Writes the trail anew as root may: with its name, and with the host's key if that is still there.
    fn write_anew(&self, drafts: impl IntoIterator<Item = Draft>) {
        segments(self.path()).into_iter().for_each(|segment| fs::remove_file(segment).unwrap());
        append(self.path(), drafts);
    }
}

fn seq_of(verified: &Verified) -> Option<u64> {
    verified.first_bad.as_ref().map(|bad| bad.uid.split_once('-').unwrap().1.parse().unwrap())
}

#[test]
fn a_segment_that_is_missing_is_missed_at_its_first_entry() {
    for at in 1..5 {
        let attacked = Attacked::new();
        let gone = segments(attacked.path()).remove(at);
        let before = segments(attacked.path()).remove(at - 1);
        fs::remove_file(&gone).unwrap();
        let bad = attacked.is_found_at(first_of(&gone));
        assert_eq!((bad.file.clone(), bad.offset), (before.clone(), fs::metadata(before).unwrap().len()));
    }
    let attacked = Attacked::new();
    fs::remove_file(segments(attacked.path()).remove(0)).unwrap();
    attacked.is_found_at(first_of(&segments(attacked.path())[0]));
}

#[test]
fn the_newest_segment_is_missed_by_checkpoints_alone() {
    let attacked = Attacked::new();
    let gone = segments(attacked.path()).pop().unwrap();
    fs::remove_file(&gone).unwrap();
    attacked.is_found_by_checkpoints_alone_at(first_of(&gone));
}

#[test]
fn a_segment_cut_at_the_end_of_a_line_is_missed_at_the_first_entry_that_is_gone() {
    for at in 0..4 {
        let attacked = Attacked::new();
        let cut = segments(attacked.path()).remove(at);
        let mut kept = lines(&cut);
        kept.pop();
        fs::write(&cut, kept.concat()).unwrap();
        let bad = attacked.is_found_at(first_of(&cut) + kept.len() as u64);
        assert_eq!((bad.file, bad.offset), (cut, kept.concat().len() as u64));
    }
}

#[test]
fn entries_taken_out_around_the_end_of_a_segment_are_missed() {
    let attacked = Attacked::new();
    let [first, second, ..] = &segments(attacked.path())[..] else { panic!() };
    let mut kept = lines(first);
    kept.pop();
    fs::write(first, kept.concat()).unwrap();
    fs::write(second, lines(second)[1..].concat()).unwrap();
    fs::rename(second, second.with_file_name(format!("{:020}.jsonl", first_of(second) + 1))).unwrap();
    attacked.is_found_at(first_of(first) + kept.len() as u64);
}

#[test]
fn segments_and_lines_that_change_places_are_found() {
    let attacked = Attacked::new();
    let [_, second, third, ..] = &segments(attacked.path())[..] else { panic!() };
    let (seconds, thirds) = (fs::read(second).unwrap(), fs::read(third).unwrap());
    fs::write(second, thirds).unwrap();
    fs::write(third, seconds).unwrap();
    attacked.is_found_at(first_of(second));

    let attacked = Attacked::new();
    let segment = segments(attacked.path()).remove(2);
    let mut swapped = lines(&segment);
    swapped.swap(1, 2);
    fs::write(&segment, swapped.concat()).unwrap();
    attacked.is_found_at(first_of(&segment) + 1);
}

#[test]
fn an_older_copy_of_the_trail_is_found_by_checkpoints_also_when_it_was_gone_on_with() {
    let attacked = Attacked::new();
    attacked.write_anew((1..=35).map(draft));
    attacked.is_found_by_checkpoints_alone_at(36);
    append(attacked.path(), (36..=ENTRIES).map(|number| draft(number + u64::from(number == 37) * 1_000)));
    // Until the last checkpoint that agrees, of the entry before the thirtieth, it is known good.
    attacked.is_found_by_checkpoints_alone_at(30);
}

#[test]
fn with_another_key_the_trail_can_be_written_anew_but_not_against_checkpoints_and_both_keys_are_named() {
    let attacked = Attacked::new();
    let key = attacked.exported[0].key.clone();
    fs::remove_file(attacked.path().join("keys/checkpoint.p8")).unwrap();
    attacked.write_anew((1..=ENTRIES).map(|number| draft(if number == 3 { 300 } else { number })));
    let bad = attacked.is_found_by_checkpoints_alone_at(1);
    assert!(bad.why.contains(&key[..16]), "{}", bad.why);

    // Half way: who goes on with a key of his own is told apart from the host.
    let attacked = Attacked::new();
    fs::remove_file(attacked.path().join("keys/checkpoint.p8")).unwrap();
    append(attacked.path(), [draft(ENTRIES + 10)]);
    assert_eq!(attacked.alone().keys.len(), 2);
}

/// Also where whoever put it there has the line's own chain right.
#[test]
fn a_checkpoint_that_somebody_else_signed_is_none() {
    let attacked = Attacked::new();
    let other = Attacked::new();
    let segment = segments(attacked.path()).pop().unwrap();
    let mut forged = lines(&segment);
    let line = forged.pop().unwrap();
    let (body, _) = chain::split(line.as_bytes()).unwrap();
    let body = std::str::from_utf8(body).unwrap();
    let (own, foreign) = (attacked.exported.last().unwrap(), other.exported.last().unwrap());
    assert!(body.contains(&own.signature), "the last entry is a checkpoint");
    let mut line = body.replace(&own.signature, &foreign.signature).into_bytes();
    let chain = chain::link(&own.chain, &line);
    chain::close(&mut line, &chain);
    fs::write(&segment, [forged.concat().into_bytes(), line].concat()).unwrap();
    let bad = attacked.is_found_at(ENTRIES);
    assert!(bad.why.contains("signature"), "{}", bad.why);
}

#[test]
fn a_segment_or_the_name_of_another_trail_is_found() {
    let attacked = Attacked::new();
    let other = Attacked::new();
    fs::copy(&segments(other.path())[1], &segments(attacked.path())[1]).unwrap();
    attacked.is_found_at(first_of(&segments(attacked.path())[1]));

    let attacked = Attacked::new();
    fs::copy(other.path().join("trail.json"), attacked.path().join("trail.json")).unwrap();
    attacked.is_found_at(1);
}

/// Who may write can say in the trail that retention removed what he did: it is for the checkpoints to show that nobody vouches
/// for that yet.
#[test]
fn a_tombstone_made_up_is_one_that_no_exported_checkpoint_vouches_for() {
    let attacked = Attacked::new();
    let keep = Retention { bytes: Some(8_000), unacknowledged: true, ..Retention::default() };
    let removable = Removable::find(attacked.path(), &keep, 0, Timestamp(0)).unwrap().unwrap();
    append(attacked.path(), removable.drafts(Timestamp(0)));
    removable.remove().unwrap();
    let against = attacked.against();
    assert_eq!(against.first_bad, None);
    assert!(against.removed > 0 && against.tombstone.unwrap() > against.vouched.unwrap().seq);

    // And not for more than the tombstone says.
    let oldest = segments(attacked.path()).remove(0);
    fs::remove_file(&oldest).unwrap();
    attacked.is_found_at(first_of(&segments(attacked.path())[0]));
}

#[test]
fn retention_that_was_interrupted_leaves_a_trail_that_is_whole() {
    let attacked = Attacked::new();
    let keep = Retention { bytes: Some(4_000), unacknowledged: true, ..Retention::default() };
    let removable = Removable::find(attacked.path(), &keep, 0, Timestamp(0)).unwrap().unwrap();
    let tombstones = removable.drafts(Timestamp(0));
    assert!(tombstones.len() > 2);
    append(attacked.path(), tombstones.clone());
    for segment in segments(attacked.path()).into_iter().take(tombstones.len()) {
        assert_eq!(attacked.alone().first_bad, None);
        assert_eq!(attacked.alone().removed, first_of(&segment) - 1);
        fs::remove_file(segment).unwrap();
    }
    assert_eq!(attacked.against().first_bad, None);
}
