//! What the index answers is what reading every line does.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on says so by panicking")]

use std::collections::HashSet;
use std::fs::{self, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

use serde_json::json;
use tempfile::TempDir;
use tokio::sync::watch;

use super::{Indexer, Search};
use crate::control::query::Filter;
use crate::control::testing::{entry, time_of};
use crate::control::{Found, From, Question};
use crate::control::{sessions::Sessions, show::Story};
use crate::entry::{Draft, Entry, SessionId, Verdict};
use crate::trail::{Position, Removable, Retention, Trail, TrailError, TrailOptions, TrailReader};

/// Numbers that look random, the same for the same seed.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % limit
    }

    fn of<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[usize::try_from(self.below(choices.len() as u64)).unwrap()]
    }

    fn often(&mut self) -> bool {
        self.below(3) > 0
    }
}

const AGENTS: [&str; 3] = ["demo", "demo-2", "tester"];
const EVENTS: [&str; 7] =
    ["file.open", "file.create", "process.fork", "network.connect", "dns.query", "gap", "session.end"];
const PATHS: [&str; 12] = [
    "/srv/shop",
    "/srv/shop/a",
    "/srv/shop-2/a",
    "/srv/shop/deep/er/.env",
    "/srv/.env",
    "/tmp/x",
    "/tmp/y.txt",
    "/",
    "",
    "given/relative",
    "/srv/\u{fc}ber/a",
    "/srv/sho",
];
const ADDRESSES: [&str; 6] = ["10.1.2.3", "10.1.2.4", "10.255.255.255", "11.0.0.1", "fd00::7", "not an address"];
const VERDICTS: [Verdict; 4] = [Verdict::InScope, Verdict::OutOfScope, Verdict::Denied, Verdict::None];

/// Ids that begin alike.
fn session(number: u64) -> u64 {
    [0xaa00_0000_0000_0001, 0xaa00_0000_0000_0002, 0xab00_0000_0000_0001, 0x0000_0000_0000_00ab, 7][number as usize % 5]
}

fn any_draft(random: &mut Random, seq: u64) -> Draft {
    let event = random.of(&EVENTS);
    // Times are near the order of the trail, not in it.
    let mut made = entry(seq + random.below(5), event).verdict(random.of(&VERDICTS));
    if random.often() {
        made = made.agent(random.of(&AGENTS), session(random.below(5)));
    }
    if random.below(4) == 0 {
        made = made.delegated_by(random.of(&AGENTS), session(random.below(5)));
    }
    if random.often() {
        made = made.process(random.below(20) as u32 + 1, "/bin/sh").path("r", random.of(&PATHS));
    }
    if random.below(4) == 0 {
        made = made.with("process.executable.path", json!(random.of(&PATHS)));
    }
    if random.below(3) == 0 {
        made = made.with("server.address", json!(random.of(&ADDRESSES)));
        if random.often() {
            made = made.with("server.port", json!(random.of(&[80, 443, 70_000])));
        }
    }
    match event {
        "gap" => made = made.gap(Some(random.below(9)).filter(|lost| *lost > 3), seq, seq + 1),
        "session.end" if random.often() => made = made.with("bailiwick.session.processes", json!(random.below(30))),
        "process.fork" => {
            let child = random.below(40);
            made = made
                .with("bailiwick.child.tgid", json!(child))
                .with("bailiwick.child.start_boot_ns", json!(child.to_string()));
        }
        _ => {}
    }
    let mut draft = made.build().draft;
    if let Some(gap) = draft.gap.as_mut().filter(|_| random.below(2) == 0) {
        // One that speaks of another session than the one it is of, or of none.
        gap.session = Some(SessionId(session(random.below(5)))).filter(|_| random.often());
    }
    if random.below(40) == 0 {
        let name = random.of(&["sensor.start", "sensor.degraded", "delegation.start"]);
        draft.event = name.to_owned();
        draft.attributes.insert("bailiwick.sensor.blind_spots".to_owned(), json!([format!("spot {seq}")]));
        if name != "delegation.start" {
            draft.session = None;
        }
    }
    draft
}

fn any_filter(random: &mut Random, entries: u64) -> Filter {
    let mut some = |choices: &[&str]| -> Vec<String> {
        let many = random.below(9).saturating_sub(6);
        (0..many).map(|_| random.of(choices).to_owned()).collect()
    };
    let mut filter = Filter {
        agents: some(&["demo", "tester", "nobody"]),
        sessions: some(&["aa", "AB", "0000000000000007", "", "x", "aa00000000000001"]),
        events: some(&["file.*", "file.open", "*", "gap", "process.", "session.*"]),
        delegators: some(&["demo", "aa", "ab00000000000001", "nobody", ""]),
        addresses: some(&["10.0.0.0/8", "10.1.2.3", "10.1.2.3:443", "0.0.0.0/0", "::/0", "fd00::7", "nonsense"]),
        paths: some(&[
            "/srv/shop",
            "/srv/shop/",
            "/",
            "",
            "/srv/*",
            "/srv/**",
            "**/.env",
            "*",
            "**",
            "/tmp/?",
            "/srv/sho?/a",
            "given",
            "/srv/\u{fc}*/a",
        ]),
        ..Filter::default()
    };
    filter.verdicts = (0..random.below(9).saturating_sub(6)).map(|_| random.of(&VERDICTS)).collect();
    filter.since = (random.below(4) == 0).then(|| time_of(random.below(entries)));
    filter.until = (random.below(4) == 0).then(|| time_of(random.below(entries)));
    filter
}

/// A trail of random entries in some segments.
fn write(state: &Path, random: &mut Random, entries: u64) -> Trail {
    let mut trail = Trail::open(state, TrailOptions { segment_bytes: 40_000 }).unwrap().trail;
    let first = trail.last_seq() + 1;
    for seq in first..first + entries {
        trail.append(vec![any_draft(random, seq)]).unwrap();
    }
    trail
}

fn index(state: &Path, through: u64) {
    let (_sender, written) = watch::channel(through);
    Indexer::of(state, written).with_chunks(9_000).catch_up(&AtomicBool::new(false)).unwrap();
}

fn indexes(state: &Path) -> Vec<PathBuf> {
    let names = fs::read_dir(state.join("trail")).unwrap().map(|name| name.unwrap().path());
    let mut paths: Vec<_> =
        names.filter(|path| path.extension().is_some_and(|extension| extension == "index")).collect();
    paths.sort();
    paths
}

fn searched(state: &Path, question: Question, through: u64) -> impl Iterator<Item = Found> {
    Search::of(state, question, through).unwrap().map(Result::unwrap)
}

fn scanned(state: &Path, from: Position) -> Vec<Entry> {
    TrailReader::open(state, from).unwrap().next_batch(usize::MAX, usize::MAX).unwrap()
}

/// Asks everything that can be asked, both ways.
fn answers_are_those_of_a_scan(state: &Path, filter: &Filter, random: &mut Random, what: &str) {
    let all = scanned(state, Position::Start);
    let last = all.last().unwrap().seq;
    let since = time_of(random.below(last + 1));
    for (from, position) in [(From::Start, Position::Start), (From::Time(since), Position::Since(since))] {
        let wanted = |entry: &Entry| filter.matches(entry) && (from == From::Start || entry.draft.time >= since);
        let expected: Vec<u64> =
            scanned(state, position).iter().filter(|entry| wanted(entry)).map(|entry| entry.seq).collect();
        let question = Question::Entries { from, filter: filter.clone() };
        let found = searched(state, question, last).filter_map(|found| match found {
            Found::Entry(entry) => Some(entry).filter(|entry| wanted(entry)).map(|entry| entry.seq),
            Found::Counted(_) | Found::Sums { .. } => panic!("nobody asked for sums"),
        });
        assert_eq!(found.collect::<Vec<_>>(), expected, "{what}: {filter:?} from {from:?}");
    }
    let live: HashSet<SessionId> = [SessionId(session(2)), SessionId(session(3))].into();
    let sums = |found: &mut dyn Iterator<Item = Found>| {
        let mut sessions = Sessions::matching(filter.clone());
        found.for_each(|found| sessions.add(found));
        sessions.finish(&live)
    };
    let expected = sums(&mut all.iter().cloned().map(Found::Entry));
    let question = Question::Sessions { filter: filter.clone() };
    assert_eq!(sums(&mut searched(state, question, last)), expected, "{what}: {filter:?}");

    let wanted = SessionId(session(random.below(5)));
    let told = |found: &mut dyn Iterator<Item = Found>| {
        let mut story = Story::matching(wanted, filter.clone());
        let entries: Vec<u64> = found.filter_map(|found| story.add(found)).map(|entry| entry.seq).collect();
        (entries, story.close(false))
    };
    let expected = told(&mut all.into_iter().map(Found::Entry));
    let question = Question::Story { session: wanted, filter: filter.clone() };
    assert_eq!(told(&mut searched(state, question, last)), expected, "{what}: {wanted} {filter:?}");
}

#[test]
fn an_indexed_answer_is_that_of_a_scan_whatever_the_trail_and_the_filter() {
    for seed in 1..=6 {
        let random = &mut Random(seed * 0x9e37_79b9);
        let state = TempDir::new().unwrap();
        let trail = write(state.path(), random, 500);
        answers_are_those_of_a_scan(state.path(), &any_filter(random, 500), random, "without an index");
        index(state.path(), trail.last_seq());
        drop(trail);
        assert!(indexes(state.path()).len() > 2);
        for _ in 0..40 {
            let filter = any_filter(random, 500);
            answers_are_those_of_a_scan(state.path(), &filter, random, "indexed");
        }
        // What came since stands in no index yet.
        let trail = write(state.path(), random, 100);
        for _ in 0..10 {
            let filter = any_filter(random, 600);
            answers_are_those_of_a_scan(state.path(), &filter, random, "grown");
        }
        index(state.path(), trail.last_seq());
        answers_are_those_of_a_scan(state.path(), &any_filter(random, 600), random, "indexed again");
    }
}

#[test]
fn an_index_that_is_missing_cut_changed_or_anothers_is_not_believed_and_made_anew() {
    let random = &mut Random(77);
    let state = TempDir::new().unwrap();
    let last = write(state.path(), random, 600).last_seq();
    index(state.path(), last);
    let paths = indexes(state.path());
    let good: Vec<Vec<u8>> = paths.iter().map(|path| fs::read(path).unwrap()).collect();
    for round in 0..120 {
        let at = usize::try_from(random.below(paths.len() as u64)).unwrap();
        let mut bad = good[at].clone();
        let byte = usize::try_from(random.below(bad.len() as u64)).unwrap();
        match round % 4 {
            0 => bad[byte] ^= 1 << random.below(8),
            1 => bad.truncate(byte),
            2 => bad = good[(at + 1) % good.len()].clone(),
            _ => bad.extend_from_slice(b"and more"),
        }
        fs::write(&paths[at], bad).unwrap();
        let filter = any_filter(random, 600);
        answers_are_those_of_a_scan(state.path(), &filter, random, &format!("round {round}, {byte} of {at}"));
        fs::write(&paths[at], &good[at]).unwrap();
    }
    fs::write(&paths[0], b"nonsense").unwrap();
    fs::write(&paths[1], &good[1][..good[1].len() / 2]).unwrap();
    fs::remove_file(&paths[2]).unwrap();
    index(state.path(), last);
    let again: Vec<Vec<u8>> = paths.iter().map(|path| fs::read(path).unwrap()).collect();
    assert!(again == good, "the same entries give the same index");
}

/// Lines that cannot match are not looked at: one that cannot be read any more stops a scan, but not this.
#[test]
fn only_lines_that_may_match_are_read() {
    let state = TempDir::new().unwrap();
    let mut trail = Trail::open(state.path(), TrailOptions { segment_bytes: 40_000 }).unwrap().trail;
    for seq in 1..=300 {
        let made = entry(seq, "file.open").agent("demo", 1).path("r", &format!("/srv/{}", seq % 10));
        trail.append(vec![made.build().draft]).unwrap();
    }
    index(state.path(), trail.last_seq());
    let segment = state.path().join("trail/00000000000000000001.jsonl");
    let text = fs::read_to_string(&segment).unwrap();
    let at = text.find("/srv/4\"").unwrap() as u64 + 6;
    OpenOptions::new().write(true).open(&segment).unwrap().write_all_at(b"\x00", at).unwrap();
    let seqs = |path: &str| {
        let filter = Filter { paths: vec![path.to_owned()], ..Filter::default() };
        let question = Question::Entries { from: From::Start, filter: filter.clone() };
        let found = Search::of(state.path(), question, 300).unwrap().collect::<Result<Vec<_>, _>>()?;
        let matching = found.iter().filter(|found| matches!(found, Found::Entry(entry) if filter.matches(entry)));
        Ok::<_, TrailError>(matching.count())
    };
    assert_eq!(seqs("/srv/5").unwrap(), 30);
    let error = seqs("/srv/4").unwrap_err();
    assert!(error.to_string().contains("this line is no entry"), "{error}");
}

#[test]
fn what_is_not_visible_to_readers_yet_is_not_indexed() {
    let state = TempDir::new().unwrap();
    let random = &mut Random(5);
    let mut trail = Trail::open(state.path(), TrailOptions::default()).unwrap().trail;
    for seq in 1..=100 {
        trail.append(vec![any_draft(random, seq)]).unwrap();
    }
    index(state.path(), 1);
    assert_eq!(indexes(state.path()), Vec::<PathBuf>::new());
    index(state.path(), 100);
    assert_eq!(indexes(state.path()).len(), 1, "also of the segment that is written");
    let filter = Filter::default();
    answers_are_those_of_a_scan(state.path(), &filter, random, "the segment that is written");
}

#[test]
fn an_index_goes_with_its_segment() {
    let state = TempDir::new().unwrap();
    let last = write(state.path(), &mut Random(3), 600).last_seq();
    index(state.path(), last);
    let before = indexes(state.path());
    let keep = Retention { bytes: Some(1), unacknowledged: true, ..Retention::default() };
    Removable::find(state.path(), &keep, 0, time_of(0)).unwrap().unwrap().remove().unwrap();
    let left = fs::read_dir(state.path().join("trail")).unwrap().map(|name| name.unwrap().path());
    let written = left.filter(|path| path.extension().is_some_and(|extension| extension == "jsonl"));
    assert_eq!(written.count(), 1);
    assert!(before.len() > 2 && indexes(state.path()).len() <= 1, "that of the segment that is written may be left");
}
