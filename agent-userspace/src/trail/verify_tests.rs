#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on says so by panicking")]

use std::fs::{self, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::json;
use tempfile::TempDir;

use super::{
    CHECKPOINT, Checkpoint, Position, Removable, Retention, Trail, TrailError, TrailOptions, TrailReader, Verified,
    read_checkpoints, verify,
};
use crate::entry::{Draft, Timestamp};

const SECOND: u64 = 1_000_000_000;

fn draft(number: u64) -> Draft {
    let mut draft = Draft::of_host(Timestamp(1_700_000_000 * SECOND + number * SECOND), "file.open");
    draft.attributes.insert("file.path".to_owned(), json!(format!("/srv/shop/{number}")));
    draft
}

fn checkpoint(number: u64) -> Draft {
    Draft { event: CHECKPOINT.to_owned(), attributes: serde_json::Map::new(), ..draft(number) }
}

fn open(state: &Path) -> Trail {
    Trail::open(state, TrailOptions { segment_bytes: 1_000 }).unwrap().trail
}

/// Fifteen entries in several segments; every fifth is a checkpoint.
fn write(state: &Path) {
    let mut trail = open(state);
    for number in 1..=15 {
        trail.append(vec![if number % 5 == 0 { checkpoint(number) } else { draft(number) }]).unwrap();
    }
}

fn segments(state: &Path) -> Vec<PathBuf> {
    let mut paths: Vec<_> = fs::read_dir(state.join("trail")).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths
}

fn whole(state: &Path) -> Verified {
    verify(state, None, None).unwrap()
}

fn bad_seq(verified: &Verified) -> u64 {
    let bad = verified.first_bad.as_ref().unwrap();
    bad.uid.split_once('-').unwrap().1.parse().unwrap()
}

fn exported(state: &Path) -> Vec<Checkpoint> {
    let entries = TrailReader::open(state, Position::Start).unwrap().next_batch(1000, 1 << 24).unwrap();
    let lines: Vec<String> = entries
        .iter()
        .filter(|entry| entry.draft.event == CHECKPOINT)
        .map(|entry| serde_json::to_string(entry).unwrap())
        .collect();
    let file = state.join("exported.jsonl");
    fs::write(&file, lines.join("\n")).unwrap();
    read_checkpoints(&file).unwrap()
}

#[test]
fn a_trail_that_nobody_touched_is_whole_and_vouched_for() {
    let state = TempDir::new().unwrap();
    write(state.path());
    assert!(segments(state.path()).len() > 2);
    let verified = whole(state.path());
    assert_eq!((verified.first_bad.clone(), verified.entries, verified.last_seq), (None, 15, 15));
    assert_eq!((verified.vouched.as_ref().unwrap().seq, verified.checkpoints, verified.keys.len()), (14, 3, 1));
    let exported = exported(state.path());
    let against = verify(state.path(), None, Some(&exported)).unwrap();
    assert_eq!((against.first_bad, against.vouched.unwrap().seq), (None, 14));
}

#[test]
fn the_chain_goes_on_over_restarts_and_the_beginning_of_a_segment() {
    let state = TempDir::new().unwrap();
    for number in 1..=30 {
        open(state.path()).append(vec![draft(number)]).unwrap();
    }
    assert_eq!(whole(state.path()).first_bad, None);
}

/// Every byte, one after the other: the first bad entry is the one in which it lies.
#[test]
fn a_flipped_bit_anywhere_is_found_at_the_right_entry() {
    let state = TempDir::new().unwrap();
    {
        let mut trail = open(state.path());
        for draft in [draft(1), checkpoint(2), draft(3), draft(4), checkpoint(5)] {
            trail.append(vec![draft]).unwrap();
        }
    }
    assert!(segments(state.path()).len() > 1);
    let mut before = 0;
    for segment in segments(state.path()) {
        let bytes = fs::read(&segment).unwrap();
        let file = OpenOptions::new().write(true).open(&segment).unwrap();
        for (at, &byte) in bytes.iter().enumerate() {
            file.write_all_at(&[byte ^ 1 << (at % 8)], at as u64).unwrap();
            let line = bytes[..at].iter().filter(|&&byte| byte == b'\n').count() as u64;
            let start = bytes[..at].iter().rposition(|&byte| byte == b'\n').map_or(0, |end| end as u64 + 1);
            let verified = whole(state.path());
            assert_eq!(bad_seq(&verified), before + line + 1, "byte {at} of {}", segment.display());
            let bad = verified.first_bad.unwrap();
            assert_eq!((bad.file, bad.offset), (segment.clone(), start), "byte {at}");
            file.write_all_at(&[byte], at as u64).unwrap();
        }
        before += bytes.iter().filter(|&&byte| byte == b'\n').count() as u64;
    }
    assert_eq!(whole(state.path()).first_bad, None);
    let identity = state.path().join("trail.json");
    let text = fs::read(&identity).unwrap();
    for at in 0..text.len() {
        let mut changed = text.clone();
        changed[at] ^= 1;
        fs::write(&identity, changed).unwrap();
        assert_eq!(bad_seq(&whole(state.path())), 1, "byte {at} of trail.json");
    }
}

#[test]
fn a_trail_without_one_entry_is_not_whole() {
    let state = TempDir::new().unwrap();
    drop(open(state.path()));
    assert_eq!(bad_seq(&whole(state.path())), 1);
    fs::remove_file(segments(state.path()).remove(0)).unwrap();
    assert_eq!(bad_seq(&whole(state.path())), 1);
}

#[test]
fn an_entry_taken_out_is_missed() {
    let state = TempDir::new().unwrap();
    write(state.path());
    let segment = segments(state.path()).remove(1);
    let text = fs::read_to_string(&segment).unwrap();
    let first: u64 =
        serde_json::from_str::<serde_json::Value>(text.lines().next().unwrap()).unwrap()["seq"].as_u64().unwrap();
    let kept: Vec<&str> = text.lines().skip(1).collect();
    fs::write(&segment, kept.join("\n") + "\n").unwrap();
    assert_eq!(bad_seq(&whole(state.path())), first);
    fs::remove_file(&segment).unwrap();
    assert_eq!(bad_seq(&whole(state.path())), first, "as is a whole segment");
}

#[test]
fn a_torn_last_line_is_named_and_not_cut() {
    let state = TempDir::new().unwrap();
    write(state.path());
    let segment = segments(state.path()).pop().unwrap();
    let len = fs::metadata(&segment).unwrap().len();
    OpenOptions::new().write(true).open(&segment).unwrap().set_len(len - 7).unwrap();
    assert_eq!(bad_seq(&whole(state.path())), 15);
    assert_eq!(fs::metadata(&segment).unwrap().len(), len - 7);
}

#[test]
fn a_tail_that_was_cut_off_shows_against_exported_checkpoints_alone() {
    let state = TempDir::new().unwrap();
    write(state.path());
    let exported = exported(state.path());
    let segment = segments(state.path()).pop().unwrap();
    let text = fs::read_to_string(&segment).unwrap();
    let cut: Vec<&str> = text.lines().take(text.lines().count() - 2).collect();
    fs::write(&segment, cut.iter().map(|line| format!("{line}\n")).collect::<String>()).unwrap();
    assert_eq!(whole(state.path()).first_bad, None);
    let against = verify(state.path(), None, Some(&exported)).unwrap();
    assert_eq!((bad_seq(&against), against.vouched.unwrap().seq), (14, 9));
}

/// With the host's own key, as root can.
#[test]
fn a_trail_written_anew_fails_against_yesterdays_checkpoints() {
    let state = TempDir::new().unwrap();
    write(state.path());
    let exported = exported(state.path());
    for segment in segments(state.path()) {
        fs::remove_file(segment).unwrap();
    }
    {
        let mut trail = open(state.path());
        for number in 1..=15 {
            // All but one entry, behind the first checkpoint, is as it was.
            let told = if number == 7 { draft(70) } else { draft(number) };
            trail.append(vec![if number % 5 == 0 { checkpoint(number) } else { told }]).unwrap();
        }
    }
    assert_eq!(whole(state.path()).first_bad, None, "by itself it is whole");
    let against = verify(state.path(), None, Some(&exported)).unwrap();
    assert_eq!(
        (bad_seq(&against), against.vouched.unwrap().seq),
        (5, 4),
        "it is known good until the first checkpoint"
    );

    fs::remove_dir_all(state.path().join("trail")).unwrap();
    fs::remove_file(state.path().join("trail.json")).unwrap();
    assert_eq!(bad_seq(&verify(state.path(), None, Some(&exported)).unwrap()), 1);
    assert!(matches!(verify(state.path(), None, None), Err(TrailError::NoTrail { .. })));
    write(state.path());
    let another = verify(state.path(), None, Some(&exported)).unwrap();
    assert!(another.first_bad.unwrap().why.contains("no checkpoint is of this trail"));
}

#[test]
fn an_exported_checkpoint_is_found_in_whatever_shape() {
    let state = TempDir::new().unwrap();
    write(state.path());
    let of_trail = exported(state.path());
    let text = fs::read_to_string(state.path().join("exported.jsonl")).unwrap();
    let entry: serde_json::Value = serde_json::from_str(text.lines().next().unwrap()).unwrap();
    let attributes = entry["attributes"].as_object().unwrap();
    let pairs: Vec<_> = attributes
        .iter()
        .map(|(key, value)| match value.as_u64() {
            Some(number) => json!({"key": key, "value": {"intValue": number.to_string()}}),
            None => json!({"key": key, "value": {"stringValue": value}}),
        })
        .collect();
    let otlp = json!({"resourceLogs": [{"scopeLogs": [{"logRecords": [{"attributes": pairs}]}]}]});
    let file = state.path().join("otlp.jsonl");
    fs::write(&file, format!("{otlp}\n{}\n", json!(attributes))).unwrap();
    assert_eq!(read_checkpoints(&file).unwrap(), [of_trail[0].clone(), of_trail[0].clone()]);
    for (bad, wanted) in
        [("nonsense", "no JSON"), ("{\"a\": 1}", ":1: there is no checkpoint"), ("", "holds no checkpoint")]
    {
        fs::write(&file, bad).unwrap();
        assert!(read_checkpoints(&file).unwrap_err().to_string().contains(wanted), "{bad}");
    }
    fs::write(
        &file,
        text.lines().next().unwrap().replace("\"bailiwick.checkpoint.seq\":4", "\"bailiwick.checkpoint.seq\":3"),
    )
    .unwrap();
    assert!(read_checkpoints(&file).unwrap_err().to_string().contains("not what was signed"));
}

#[test]
fn what_retention_removed_is_vouched_for_by_its_tombstone() {
    let state = TempDir::new().unwrap();
    write(state.path());
    let now = Timestamp(1_700_000_016 * SECOND);
    let keep = Retention { age: Some(Duration::from_secs(5)), ..Retention::default() };
    assert_eq!(Removable::find(state.path(), &Retention::default(), u64::MAX, now).unwrap(), None);
    assert_eq!(Removable::find(state.path(), &keep, 0, now).unwrap(), None, "nothing is acknowledged");
    let before = segments(state.path());
    let removable = Removable::find(state.path(), &keep, u64::MAX, now).unwrap().unwrap();
    let entries = removable.entries();
    assert!((1..11).contains(&entries));
    let tombstones = removable.drafts(now);
    let written = tombstones.len() as u64;
    open(state.path()).append(tombstones).unwrap();
    assert_eq!(whole(state.path()).first_bad, None, "also before the segments go");
    removable.remove().unwrap();
    assert!(segments(state.path()).len() < before.len());
    let verified = whole(state.path());
    assert_eq!((verified.first_bad, verified.entries, verified.removed), (None, 15 + written - entries, entries));

    let first = segments(state.path()).remove(0);
    let first_seq: u64 = first.file_stem().unwrap().to_str().unwrap().parse().unwrap();
    assert_eq!(first_seq, entries + 1);
    fs::remove_file(&first).unwrap();
    assert_ne!(whole(state.path()).first_bad, None, "one more than the tombstone says");
}

#[test]
fn retention_by_size_removes_the_oldest_first_and_never_the_last() {
    let state = TempDir::new().unwrap();
    write(state.path());
    let keep = Retention { bytes: Some(1), unacknowledged: true, ..Retention::default() };
    let removable = Removable::find(state.path(), &keep, 0, Timestamp(0)).unwrap().unwrap();
    removable.remove().unwrap();
    assert_eq!(segments(state.path()).len(), 1);
}

#[test]
fn the_oldest_go_while_less_of_the_disk_is_free_than_must_be_left() {
    let state = TempDir::new().unwrap();
    write(state.path());
    let find = |free| {
        let keep = Retention { free: Some(free), ..Retention::default() };
        Removable::find(state.path(), &keep, u64::MAX, Timestamp(0)).unwrap()
    };
    assert_eq!(find(0), None);
    let removable = find(u64::MAX).unwrap();
    let index = segments(state.path()).remove(0).with_extension("index");
    fs::write(&index, "made again when it is wanted").unwrap();
    removable.remove_indexes().unwrap();
    assert!(!index.exists());
    assert!(segments(state.path()).len() > 1, "the segments stay until a tombstone says so");
    removable.remove().unwrap();
    assert_eq!(segments(state.path()).len(), 1);
}

#[test]
fn since_begins_with_the_segment_that_holds_the_time() {
    let state = TempDir::new().unwrap();
    let mut trail = open(state.path());
    for number in 1..=200 {
        trail.append(vec![draft(number)]).unwrap();
    }
    let since = Timestamp(1_700_000_150 * SECOND);
    let verified = verify(state.path(), Some(since), None).unwrap();
    assert_eq!((verified.first_bad, verified.last_seq), (None, 200));
    assert!((60..150).contains(&verified.first_seq), "{}", verified.first_seq);
}
