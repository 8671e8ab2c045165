#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test that cannot go on says so by panicking"
)]

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use serde_json::json;
use tempfile::TempDir;

use super::{Extent, Opened, Position, Trail, TrailError, TrailOptions, TrailReader};
use crate::entry::{Draft, Entry, Gap, SessionId, Timestamp};

const SECOND: u64 = 1_000_000_000;

fn draft(number: u64) -> Draft {
    let mut draft = Draft::of_host(Timestamp(1_700_000_000 * SECOND + number * SECOND), "file.open");
    draft.attributes.insert("file.path".to_owned(), json!(format!("/srv/shop/{number}")));
    draft.attributes.insert("z.first".to_owned(), json!([1, "two", null]));
    draft.attributes.insert("a.second".to_owned(), json!(u64::MAX));
    draft.session = Some(SessionId(number));
    draft.count = 1;
    draft
}

fn drafts(numbers: std::ops::Range<u64>) -> Vec<Draft> {
    numbers.map(draft).collect()
}

fn open(state: &Path) -> Trail {
    let Opened { trail, recovered } = Trail::open(state, TrailOptions::default()).unwrap();
    assert_eq!(recovered, None);
    trail
}

fn small(state: &Path) -> Trail {
    Trail::open(state, TrailOptions { segment_bytes: 2_000 }).unwrap().trail
}

fn read_all(reader: &mut TrailReader) -> Vec<Entry> {
    let mut entries = Vec::new();
    loop {
        let batch = reader.next_batch(7, 1 << 20).unwrap();
        if batch.is_empty() {
            return entries;
        }
        entries.extend(batch);
    }
}

fn seqs(entries: &[Entry]) -> Vec<u64> {
    entries.iter().map(|entry| entry.seq).collect()
}

fn segments(state: &Path) -> Vec<PathBuf> {
    let mut paths: Vec<_> = fs::read_dir(state.join("trail")).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths
}

#[test]
fn a_line_of_the_trail_is_exactly_the_entry_as_json() {
    let state = TempDir::new().unwrap();
    let mut trail = open(state.path());
    let mut with_gap = draft(2);
    with_gap.gap = Some(Gap {
        kind: "file.open".to_owned(),
        session: None,
        lost: None,
        from: Timestamp(1),
        to: Timestamp(2),
        reason: "a \"quoted\" reason\nof two lines, ünd more".to_owned(),
    });
    let entries = trail.append(vec![draft(1), with_gap]).unwrap();
    let text = fs::read_to_string(&segments(state.path())[0]).unwrap();
    let lines: Vec<_> = text.lines().collect();
    assert_eq!(lines.len(), 2);
    for (line, entry) in lines.iter().zip(&entries) {
        assert_eq!(*line, serde_json::to_string(&**entry).unwrap());
    }
    let read = read_all(&mut TrailReader::open(state.path(), Position::Start).unwrap());
    assert_eq!(read.iter().map(|entry| serde_json::to_string(entry).unwrap()).collect::<Vec<_>>(), lines);
    assert_eq!(entries[1].uid, format!("{}-2", trail.identity().id));
}

#[test]
fn places_go_on_where_the_last_daemon_stopped() {
    let state = TempDir::new().unwrap();
    let first = open(state.path()).append(drafts(0..3)).unwrap();
    let mut trail = open(state.path());
    assert_eq!(trail.last_seq(), 3);
    let second = trail.append(drafts(3..5)).unwrap();
    assert_eq!(second[0].seq, 4);
    assert_eq!(first[0].uid.split('-').next(), second[0].uid.split('-').next());
}

#[test]
fn a_torn_last_line_is_set_aside_and_its_place_given_again() {
    let state = TempDir::new().unwrap();
    open(state.path()).append(drafts(0..3)).unwrap();
    let segment = segments(state.path()).remove(0);
    let whole = fs::read(&segment).unwrap();
    let torn = br#"{"uid":"5f3a91c2-4","seq":4,"time":"2026-01"#;
    OpenOptions::new().append(true).open(&segment).unwrap().write_all(torn).unwrap();

    let opened = Trail::open(state.path(), TrailOptions::default()).unwrap();
    let recovered = opened.recovered.expect("what was torn is reported");
    assert_eq!((recovered.bytes, recovered.last_seq), (torn.len() as u64, 3));
    assert!(recovered.kept_in.to_str().unwrap().ends_with(".jsonl.torn-1"));
    assert_eq!(fs::read(&recovered.kept_in).unwrap(), torn);
    assert_eq!(fs::read(&segment).unwrap(), whole);
    let mut trail = opened.trail;
    assert_eq!(trail.append(drafts(3..4)).unwrap()[0].seq, 4);
    assert_eq!(seqs(&read_all(&mut TrailReader::open(state.path(), Position::Start).unwrap())), [1, 2, 3, 4]);
}

#[test]
fn a_long_run_of_zeros_at_the_end_is_set_aside_too() {
    let state = TempDir::new().unwrap();
    open(state.path()).append(drafts(0..3)).unwrap();
    let segment = segments(state.path()).remove(0);
    OpenOptions::new().append(true).open(&segment).unwrap().write_all(&vec![0; 3_000_000]).unwrap();
    let opened = Trail::open(state.path(), TrailOptions::default()).unwrap();
    assert_eq!(opened.recovered.unwrap().bytes, 3_000_000);
    assert_eq!(opened.trail.last_seq(), 3);
}

#[test]
fn a_damaged_line_in_the_middle_is_named_and_can_be_passed() {
    let state = TempDir::new().unwrap();
    let mut trail = open(state.path());
    trail.append(drafts(0..2)).unwrap();
    let segment = segments(state.path()).remove(0);
    let offset = fs::metadata(&segment).unwrap().len();
    OpenOptions::new().append(true).open(&segment).unwrap().write_all(b"{\"seq\": nonsense}\n").unwrap();
    trail.append(drafts(2..4)).unwrap();
    drop(trail);

    assert_eq!(open(state.path()).last_seq(), 4, "what follows the damage still counts");
    let mut reader = TrailReader::open(state.path(), Position::Start).unwrap();
    assert_eq!(seqs(&reader.next_batch(100, 1 << 20).unwrap()), [1, 2]);
    let error = reader.next_batch(100, 1 << 20).unwrap_err();
    assert!(error.is_bad_line());
    assert!(error.to_string().contains(&format!("{} at byte {offset}", segment.display())), "{error}");
    assert_eq!(reader.skip_line().unwrap(), 18);
    assert_eq!(seqs(&reader.next_batch(100, 1 << 20).unwrap()), [3, 4]);
}

#[test]
fn a_second_daemon_on_the_same_state_is_told_who_has_it() {
    let state = TempDir::new().unwrap();
    let trail = open(state.path());
    let error = Trail::open(state.path(), TrailOptions::default()).unwrap_err();
    assert!(matches!(error, TrailError::Held { .. }));
    let text = error.to_string();
    assert!(text.contains(&format!("pid {}", std::process::id())), "{text}");
    assert!(text.contains("BAILIWICK_STATE_DIR"), "{text}");
    drop(trail);
    open(state.path());
}

#[test]
fn only_the_owner_can_read_the_trail() {
    let state = TempDir::new().unwrap();
    let mut trail = open(&state.path().join("state"));
    trail.append(drafts(0..1)).unwrap();
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&state.path().join("state/trail")), 0o700);
    assert_eq!(mode(&segments(&state.path().join("state"))[0]), 0o600);
    assert_eq!(mode(&state.path().join("state/trail.json")), 0o600);
    assert_eq!(mode(&state.path().join("state/lock")), 0o600);
}

#[test]
fn segments_without_an_identity_are_refused() {
    let state = TempDir::new().unwrap();
    open(state.path()).append(drafts(0..1)).unwrap();
    fs::remove_file(state.path().join("trail.json")).unwrap();
    let error = Trail::open(state.path(), TrailOptions::default()).unwrap_err();
    assert!(matches!(error, TrailError::NoIdentity { .. }), "{error}");
}

#[test]
fn segments_roll_and_are_named_for_their_first_entry() {
    let state = TempDir::new().unwrap();
    let mut trail = small(state.path());
    for number in 0..40 {
        trail.append(drafts(number..number + 1)).unwrap();
    }
    let segments = segments(state.path());
    assert!(segments.len() > 3);
    for segment in &segments {
        let first: Entry = serde_json::from_str(fs::read_to_string(segment).unwrap().lines().next().unwrap()).unwrap();
        assert_eq!(segment.file_name().unwrap().to_str().unwrap(), format!("{:020}.jsonl", first.seq));
    }
    let read = read_all(&mut TrailReader::open(state.path(), Position::Start).unwrap());
    assert_eq!(seqs(&read), (1..=40).collect::<Vec<_>>());
}

#[test]
fn reading_starts_where_it_is_told_to() {
    let state = TempDir::new().unwrap();
    let mut trail = small(state.path());
    for number in 1..=40 {
        trail.append(vec![draft(number)]).unwrap();
    }
    let from = |position| seqs(&read_all(&mut TrailReader::open(state.path(), position).unwrap()));
    for seq in [1, 2, 17, 40] {
        assert_eq!(from(Position::Seq(seq)), (seq..=40).collect::<Vec<_>>());
    }
    assert_eq!(from(Position::Seq(41)), [] as [u64; 0]);
    assert_eq!(from(Position::Since(draft(23).time)), (23..=40).collect::<Vec<_>>());
    assert_eq!(from(Position::Since(Timestamp(0))).len(), 40);
    assert_eq!(from(Position::Since(draft(41).time)), [] as [u64; 0]);

    let mut reader = TrailReader::open(state.path(), Position::End).unwrap();
    assert_eq!(reader.cursor().seq, 40);
    assert_eq!(reader.next_batch(10, 1 << 20).unwrap(), []);
    trail.append(drafts(41..43)).unwrap();
    assert_eq!(seqs(&reader.next_batch(10, 1 << 20).unwrap()), [41, 42]);
}

#[test]
fn a_place_deep_in_a_long_segment_is_found() {
    let state = TempDir::new().unwrap();
    let mut trail = open(state.path());
    for start in (0..20_000).step_by(500) {
        trail.append(drafts(start..start + 500)).unwrap();
    }
    let first = |position| TrailReader::open(state.path(), position).unwrap().next_batch(1, 1).unwrap();
    let sought = |position| {
        let mut reader = TrailReader::open(state.path(), position).unwrap();
        let offset = reader.cursor().offset;
        (offset, read_all(&mut reader)[0].seq)
    };
    assert_eq!(first(Position::Seq(1))[0].seq, 1);
    let (offset, seq) = sought(Position::Seq(15_000));
    assert_eq!(seq, 15_000);
    assert!(offset > 1_000_000, "most of the segment was not read: {offset}");
    let (offset, seq) = sought(Position::Since(draft(15_000).time));
    assert_eq!(seq, 15_001);
    assert!(offset > 1_000_000, "most of the segment was not read: {offset}");
}

#[test]
fn a_cursor_resumes_after_the_entry_it_names_even_when_its_hint_is_wrong() {
    let state = TempDir::new().unwrap();
    let mut trail = small(state.path());
    for number in 1..=40 {
        trail.append(vec![draft(number)]).unwrap();
    }
    let mut reader = TrailReader::open(state.path(), Position::Start).unwrap();
    for _ in 0..5 {
        reader.next_batch(4, 1 << 20).unwrap();
        let cursor = reader.cursor();
        let mut wrong_offset = cursor;
        wrong_offset.offset += 3;
        let mut wrong_segment = cursor;
        wrong_segment.segment += 1;
        let mut other_line = cursor;
        other_line.seq -= 1;
        for (cursor, after) in [
            (cursor, cursor.seq),
            (wrong_offset, cursor.seq),
            (wrong_segment, cursor.seq),
            (other_line, cursor.seq - 1),
        ] {
            let mut resumed = TrailReader::open(state.path(), Position::Cursor(cursor)).unwrap();
            assert_eq!(seqs(&read_all(&mut resumed)), (after + 1..=40).collect::<Vec<_>>());
        }
    }
}

#[test]
fn a_reader_of_a_live_trail_sees_every_entry_once_and_in_order() {
    let state = TempDir::new().unwrap();
    let mut trail = Trail::open(state.path(), TrailOptions { segment_bytes: 20_000 }).unwrap().trail;
    let written = trail.subscribe();
    let path = state.path().to_owned();
    let reading = std::thread::spawn(move || {
        let mut reader = TrailReader::open(&path, Position::Start).unwrap();
        let mut seen = Vec::new();
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(60);
        while seen.len() < 3_000 && std::time::Instant::now() < deadline {
            seen.extend(seqs(&reader.next_batch(100, 1 << 20).unwrap()));
        }
        seen
    });
    for start in (0..3_000).step_by(10) {
        trail.append(drafts(start..start + 10)).unwrap();
    }
    assert_eq!(reading.join().unwrap(), (1..=3_000).collect::<Vec<_>>());
    assert_eq!(*written.borrow(), 3_000);
}

#[test]
fn a_reader_stops_where_it_is_told_to() {
    let state = TempDir::new().unwrap();
    let mut trail = open(state.path());
    trail.append(drafts(0..10)).unwrap();
    let mut reader = TrailReader::open(state.path(), Position::Start).unwrap();
    assert_eq!(seqs(&reader.next_batch_through(4, 100, 1 << 20).unwrap()), [1, 2, 3, 4]);
    assert_eq!(reader.next_batch_through(4, 100, 1 << 20).unwrap(), []);
    assert_eq!(seqs(&reader.next_batch_through(6, 100, 1 << 20).unwrap()), [5, 6]);
    assert_eq!(reader.next_batch(100, 1).unwrap().len(), 1, "one entry at least, however few bytes are asked for");
}

#[test]
fn what_is_durable_is_told_apart_from_what_is_written() {
    let state = TempDir::new().unwrap();
    let mut trail = open(state.path());
    let (written, synced, syncer) = (trail.subscribe(), trail.subscribe_synced(), trail.syncer());
    trail.append(drafts(0..5)).unwrap();
    assert_eq!((*written.borrow(), *synced.borrow()), (5, 0));
    assert_eq!(syncer.sync().unwrap(), 5);
    assert_eq!(*synced.borrow(), 5);
    trail.append(drafts(5..6)).unwrap();
    assert_eq!(trail.sync().unwrap(), 6);
    drop(trail);
    assert_eq!(*open(state.path()).subscribe_synced().borrow(), 6);
}

#[test]
fn an_entry_longer_than_a_line_may_be_is_cut_and_says_so() {
    let state = TempDir::new().unwrap();
    let mut trail = open(state.path());
    let mut long = draft(1);
    long.attributes.insert("process.command_args".to_owned(), json!(["ä".repeat(400_000)]));
    let entries = trail.append(vec![long]).unwrap();
    assert_eq!(entries[0].draft.truncated, ["process.command_args"]);
    assert_eq!(entries[0].draft.attributes["file.path"], "/srv/shop/1");
    let read = read_all(&mut TrailReader::open(state.path(), Position::Start).unwrap());
    assert_eq!(read[0], *entries[0]);
}

/// A file system of a size of its own, taken down when dropped.
struct SmallDisk(TempDir);

impl SmallDisk {
    fn new() -> Option<Self> {
        let dir = TempDir::new().unwrap();
        let flags = rustix::mount::MountFlags::empty();
        match rustix::mount::mount("none", dir.path(), "tmpfs", flags, Some(c"size=64k")) {
            Ok(()) => Some(Self(dir)),
            Err(error) => {
                eprintln!("skipped: a small disk cannot be mounted without privileges: {error}");
                None
            }
        }
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        rustix::mount::unmount(self.0.path(), rustix::mount::UnmountFlags::DETACH).unwrap();
    }
}

#[test]
fn a_full_disk_leaves_nothing_half_written_and_gives_the_drafts_back() {
    let Some(disk) = SmallDisk::new() else { return };
    let state = disk.0.path().join("state");
    let mut trail = open(&state);
    let ballast = disk.0.path().join("ballast");
    fs::write(&ballast, vec![0; 24 * 1024]).unwrap();
    let refused = (0..100).find_map(|round| trail.append(drafts(round * 10..round * 10 + 10)).err()).unwrap();
    assert_eq!(refused.drafts.len(), 10);
    assert!(refused.to_string().contains("No space left"), "{refused}");

    let last = trail.last_seq();
    let text = fs::read_to_string(&segments(&state)[0]).unwrap();
    assert!(text.ends_with('\n'));
    assert_eq!(text.lines().count() as u64, last, "the file ends with the last whole batch");
    fs::remove_file(&ballast).unwrap();
    let first = refused.drafts[0].clone();
    let written = trail.append(refused.drafts).unwrap();
    assert_eq!((written[0].seq, &written[0].draft), (last + 1, &first));
    drop(trail);
    assert_eq!(open(&state).last_seq(), last + 10);
}

#[test]
fn the_extent_of_a_trail_is_what_lies_on_disk_and_the_time_of_its_first_entry() {
    let state = TempDir::new().unwrap();
    assert_eq!(Extent::of(state.path()).unwrap(), Extent::default());
    let mut trail = open(state.path());
    for number in 1..=40 {
        trail.append(vec![draft(number)]).unwrap();
    }
    let segments = segments(state.path());
    let bytes: u64 = segments.iter().map(|path| fs::metadata(path).unwrap().len()).sum();
    fs::write(segments[0].with_extension("index"), b"12345").unwrap();
    let extent = Extent::of(state.path()).unwrap();
    assert_eq!((extent.segments, extent.bytes, extent.index_bytes), (segments.len() as u64, bytes, 5));
    assert_eq!(extent.oldest, Some(draft(1).time));
}
