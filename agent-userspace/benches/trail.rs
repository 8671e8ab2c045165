//! What the trail costs: writing, indexing, verifying, and asking about it. `cargo xtask bench trail` runs this.
//!
//! Inputs: how many entries, and where. Outputs: JSON on standard output, progress on standard error; the trail that was made
//! is removed. What is measured is what the daemon runs: [`Trail::append`] beside a thread that makes it durable and the
//! [`Indexer`], [`verify`], and [`Search`] with what the control socket makes of it.
#![allow(clippy::unwrap_used, reason = "a bench that cannot go on says so by panicking")]

use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use agent_userspace::control::query::Filter;
use agent_userspace::control::{Found, From, Question};
use agent_userspace::entry::{
    Attribution, Confidence, Delegator, Draft, Method, Principal, ProcessRef, Reason, ReasonKind, SessionId, Timestamp,
    Verdict,
};
use agent_userspace::index::{Indexer, Search};
use agent_userspace::trail::{CHECKPOINT, Position, Trail, TrailOptions, TrailReader, verify};
use rustix::time::{ClockId, clock_gettime};
use serde_json::{Map, Value, json};

/// 2026-01-31T12:00:00Z.
const BEGAN: u64 = 1_769_860_800 * 1_000_000_000;
/// Between entries, in nanoseconds: 2,000 a second.
const STEP_NS: u64 = 500_000;
/// Entries of a batch, as the pipeline writes them when it is busy.
const BATCH: u64 = 512;
/// Entries between two checkpoints.
const CHECKPOINT_EVERY: u64 = 10_000;
/// Entries of a session, and sessions that live at a time.
const SESSION_ENTRIES: u64 = 5_000;
const SESSIONS_AT_ONCE: u64 = 4;
/// How often a question is asked: the median counts.
const ASKED: usize = 5;

fn main() {
    let mut arguments = std::env::args().skip(1).filter(|argument| argument != "--bench");
    let entries: u64 = arguments.next().map_or(100_000, |count| count.parse().unwrap());
    let state = arguments.next().map_or_else(|| std::env::temp_dir().join("bailiwick-bench-trail"), PathBuf::from);
    fs::create_dir_all(&state).unwrap();
    let place = Place(state);
    println!("{:#}", measure(&place.0, entries));
}

/// Gone when the bench is.
struct Place(PathBuf);

impl Drop for Place {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.0) {
            eprintln!("bench: cannot remove {}: {error}", self.0.display());
        }
    }
}

fn measure(state: &Path, entries: u64) -> Value {
    let writing = write(state, entries);
    let indexing = index(state, entries);
    let verifying = verified(state);
    let asking: Vec<Value> =
        questions(entries).into_iter().map(|(name, question)| ask(state, entries, name, &question)).collect();
    json!({
        "entries": entries,
        "write": writing,
        "index": indexing,
        "verify": verifying,
        "read": read(state),
        "queries": asking,
        "peak_rss_kib": peak_rss_kib(),
    })
}

/// Writes the trail: the first tenth alone, the rest beside the indexer.
fn write(state: &Path, entries: u64) -> Value {
    let mut trail = Trail::open(state, TrailOptions::default()).unwrap().trail;
    let ended = Arc::new(AtomicBool::new(false));
    let syncer = std::thread::spawn({
        let (syncer, ended) = (trail.syncer(), Arc::clone(&ended));
        move || {
            while !ended.load(Ordering::Relaxed) {
                std::thread::sleep(Duration::from_millis(200));
                syncer.sync().unwrap();
            }
        }
    });
    let alone = append(&mut trail, 1, entries / 10);
    let indexer = std::thread::spawn({
        let (indexer, ended) = (Indexer::of(state, trail.subscribe()), Arc::clone(&ended));
        move || indexer.run(&ended)
    });
    let beside = append(&mut trail, entries / 10 + 1, entries);
    trail.sync().unwrap();
    ended.store(true, Ordering::Relaxed);
    indexer.thread().unpark();
    indexer.join().unwrap();
    syncer.join().unwrap();
    let bytes = bytes_of(state, "jsonl");
    json!({
        "alone": alone,
        "beside_the_indexer": beside,
        "bytes": bytes,
        "bytes_an_entry": bytes / entries,
        "segments": files_of(state, "jsonl").count(),
    })
}

fn append(trail: &mut Trail, from: u64, to: u64) -> Value {
    let (mut wall, mut cpu) = (Duration::ZERO, Duration::ZERO);
    let mut next = from;
    while next <= to {
        let drafts: Vec<Draft> = (next..=to.min(next + BATCH - 1)).map(draft).collect();
        next += drafts.len() as u64;
        let (began, used) = (Instant::now(), thread_cpu());
        trail.append(drafts).unwrap();
        wall += began.elapsed();
        cpu += thread_cpu() - used;
    }
    let count = (to + 1 - from) as f64;
    json!({"entries_a_second": (count / wall.as_secs_f64()) as u64, "cpu_us_an_entry": cpu.as_secs_f64() * 1e6 / count})
}

/// Indexes anew, from nothing: what that takes.
fn index(state: &Path, entries: u64) -> Value {
    files_of(state, "index").for_each(|path| fs::remove_file(path).unwrap());
    let (_sender, written) = tokio::sync::watch::channel(entries);
    let mut indexer = Indexer::of(state, written);
    let (began, used) = (Instant::now(), thread_cpu());
    indexer.catch_up(&AtomicBool::new(false)).unwrap();
    let (wall, cpu) = (began.elapsed().as_secs_f64(), (thread_cpu() - used).as_secs_f64());
    let bytes = bytes_of(state, "index");
    json!({
        "entries_a_second": (entries as f64 / wall) as u64,
        "cpu_us_an_entry": cpu * 1e6 / entries as f64,
        "bytes": bytes,
        "share_of_trail": bytes as f64 / bytes_of(state, "jsonl") as f64,
    })
}

fn verified(state: &Path) -> Value {
    let began = Instant::now();
    let verified = verify(state, None, None).unwrap();
    let wall = began.elapsed().as_secs_f64();
    assert_eq!(verified.first_bad, None);
    json!({
        "entries_a_second": (verified.entries as f64 / wall) as u64,
        "mib_a_second": (bytes_of(state, "jsonl") as f64 / wall / f64::from(1 << 20)) as u64,
    })
}

/// Reading and parsing every entry, as an exporter or a question without an index does; a million at most.
fn read(state: &Path) -> Value {
    let mut reader = TrailReader::open(state, Position::Start).unwrap();
    let (began, mut count) = (Instant::now(), 0);
    while count < 1_000_000 {
        match reader.next_batch(1024, 4 << 20).unwrap().len() {
            0 => break,
            read => count += read,
        }
    }
    json!({"entries_a_second": (count as f64 / began.elapsed().as_secs_f64()) as u64})
}

fn questions(entries: u64) -> Vec<(&'static str, Question)> {
    let entries_of = |filter| Question::Entries { from: From::Start, filter };
    let path = |path: &str| Filter { paths: vec![path.to_owned()], ..Filter::default() };
    // Not a checkpoint, which is of no session.
    let middle = draft(entries / 2 + CHECKPOINT_EVERY / 3);
    let session = middle.session.unwrap();
    let time = middle.time;
    let until = Timestamp(time.0 + 1_000_000_000);
    vec![
        ("tail --path /srv/shop/rare.txt", entries_of(path("/srv/shop/rare.txt"))),
        ("tail --path /srv/shop/rare", entries_of(path("/srv/shop/rare"))),
        ("tail --path '**/rare.*'", entries_of(path("**/rare.*"))),
        ("tail --path '/srv/shop/src/**/m77?.rs' --verdict out_of_scope", {
            let filter = Filter { verdicts: vec![Verdict::OutOfScope], ..path("/srv/shop/src/**/m77?.rs") };
            entries_of(filter)
        }),
        (
            "tail --address 203.0.113.7",
            entries_of(Filter { addresses: vec!["203.0.113.7".into()], ..Filter::default() }),
        ),
        ("tail --address 203.0.113.0/24", {
            entries_of(Filter { addresses: vec!["203.0.113.0/24".into()], ..Filter::default() })
        }),
        ("tail --session ID", entries_of(Filter { sessions: vec![session.to_string()], ..Filter::default() })),
        ("tail --event file.unlink --verdict out_of_scope", {
            let events = vec!["file.unlink".into()];
            entries_of(Filter { events, verdicts: vec![Verdict::OutOfScope], ..Filter::default() })
        }),
        ("tail --agent auditor", entries_of(Filter { agents: vec!["auditor".into()], ..Filter::default() })),
        ("tail --delegation ID", entries_of(Filter { delegators: vec![session.to_string()], ..Filter::default() })),
        ("tail --since TIME --until TIME (a second)", {
            let filter = Filter { until: Some(until), ..Filter::default() };
            Question::Entries { from: From::Time(time), filter }
        }),
        ("tail --agent nobody", entries_of(Filter { agents: vec!["nobody".into()], ..Filter::default() })),
        ("sessions", Question::Sessions { filter: Filter::default() }),
        ("sessions --path /srv/shop/rare.txt", Question::Sessions { filter: path("/srv/shop/rare.txt") }),
        ("sessions --event file.open", {
            Question::Sessions { filter: Filter { events: vec!["file.open".into()], ..Filter::default() } }
        }),
        ("show ID", Question::Story { session, filter: Filter::default() }),
    ]
}

/// Asks until the answer has ended; the filter is held against every entry, and what matches is made into JSON, as for a client.
fn ask(state: &Path, entries: u64, name: &str, question: &Question) -> Value {
    let filter = match question {
        Question::Entries { filter, .. } | Question::Sessions { filter } | Question::Story { filter, .. } => filter,
    };
    let mut times = Vec::new();
    let (mut found, mut sessions) = (0, HashSet::new());
    for _ in 0..ASKED {
        let began = Instant::now();
        (found, sessions) = (0, HashSet::new());
        for piece in Search::of(state, question.clone(), entries).unwrap() {
            match piece.unwrap() {
                Found::Entry(entry) | Found::Counted(entry) => {
                    if filter.matches(&entry) {
                        found += 1;
                        std::hint::black_box(serde_json::to_vec(&entry).unwrap());
                    }
                }
                Found::Sums { tally, matched } => {
                    if matched {
                        sessions.insert(tally.item().session);
                    }
                }
            }
        }
        times.push(began.elapsed());
    }
    times.sort_unstable();
    eprintln!("bench: {name}: {:?}", times.get(ASKED / 2));
    json!({
        "question": name,
        "found": found,
        "sessions": sessions.len(),
        "median_ms": times.get(ASKED / 2).map(|time| time.as_secs_f64() * 1e3),
        "greatest_ms": times.last().map(|time| time.as_secs_f64() * 1e3),
    })
}

/// Entry `number` of a trail that looks like that of a host on which agents work on a shop's repository.
fn draft(number: u64) -> Draft {
    let mut random = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    random ^= random >> 29;
    let mut below = |limit: u64| {
        random = random.wrapping_mul(0xbf58_476d_1ce4_e5b9) ^ (random >> 31);
        (random >> 16) % limit
    };
    let time = Timestamp(BEGAN + number * STEP_NS);
    if number.is_multiple_of(CHECKPOINT_EVERY) {
        return Draft::of_host(time, CHECKPOINT);
    }
    let at = number % (SESSION_ENTRIES * SESSIONS_AT_ONCE);
    let one = if !(5..19_996).contains(&at) { number } else { below(SESSIONS_AT_ONCE) } % SESSIONS_AT_ONCE;
    let session = number / (SESSION_ENTRIES * SESSIONS_AT_ONCE) * SESSIONS_AT_ONCE + one;
    let (event, attributes, verdict) = match at {
        // Each of those that live at once begins, and ends.
        1..=4 => ("session.start", Map::new(), Verdict::None),
        19_996.. => (
            "session.end",
            [("bailiwick.session.processes".to_owned(), 41.into())].into_iter().collect(),
            Verdict::None,
        ),
        _ => action(number, &mut below),
    };
    let agent = if session.is_multiple_of(97) {
        "auditor"
    } else {
        ["code-assistant", "test-runner", "triage"][session as usize % 3]
    };
    let id = |session: u64| SessionId(session.wrapping_mul(0x2545_f491_4f6c_dd1d) | 1);
    let delegation = match session % 5 {
        0 => vec![Delegator { agent: "code-assistant".to_owned(), session: id(session - session % SESSIONS_AT_ONCE) }],
        _ => Vec::new(),
    };
    let tgid = 10_000 + (session * 37 + below(40)) as u32;
    let executable = ["/usr/bin/node", "/usr/bin/git", "/usr/bin/rg", "/usr/bin/python3.13"][below(4) as usize];
    let reason = Reason {
        delegator: None,
        kind: if verdict == Verdict::InScope { ReasonKind::Grant } else { ReasonKind::Nearest },
        text: "/srv/shop/**".to_owned(),
        file: Some("/etc/bailiwick/agents.d/code-assistant.toml".to_owned()),
        line: Some(15),
    };
    Draft {
        agent: Some(agent.to_owned()),
        session: Some(id(session)),
        delegation,
        principal: Some(Principal {
            uid: 1000,
            user: Some("alice".to_owned()),
            login_uid: Some(1000),
            via: Some("run".to_owned()),
            ..Principal::default()
        }),
        process: Some(ProcessRef {
            tgid,
            tid: tgid,
            start_boot_ns: u64::from(tgid) * 1_000_003,
            executable: Some(executable.to_owned()),
        }),
        attribution: Some(Attribution { method: Method::Inherited, confidence: Confidence::Certain }),
        verdict,
        reason: Some(reason),
        count: 1,
        attributes,
        ..Draft::of_host(time, event)
    }
}

/// What is done: mostly opens, of few paths often and of many now and then.
fn action(number: u64, below: &mut impl FnMut(u64) -> u64) -> (&'static str, Map<String, Value>, Verdict) {
    let mut attributes = Map::new();
    let mut set = |name: &str, value: Value| attributes.insert(name.to_owned(), value);
    let verdict = if below(200) == 0 { Verdict::OutOfScope } else { Verdict::InScope };
    let path = match below(10) {
        0..5 => format!("/srv/shop/src/part{}/module{}/m{}.rs", below(9), below(12), below(60) * 13),
        5..7 => format!("/srv/shop/node_modules/@acme/lib{}/dist/index{}.js", below(300), below(40)),
        7 => format!("/tmp/build-{number}/out.o"),
        8 => format!("/usr/lib/python3.13/site-packages/pkg{}/__init__.py", below(500)),
        _ => "/etc/ld.so.cache".to_owned(),
    };
    let path = if number % 1_000_003 == 7 { "/srv/shop/rare.txt".to_owned() } else { path };
    let event = match below(100) {
        0..4 => {
            set("server.address", format!("10.0.{}.{}", below(4), below(250)).into());
            if number % 50_021 < 40 {
                set("server.address", "203.0.113.7".into());
            }
            set("server.port", 443.into());
            set("network.transport", "tcp".into());
            set("network.type", "ipv4".into());
            return ("network.connect", attributes, verdict);
        }
        4..8 => {
            set("bailiwick.child.tgid", (20_000 + below(40_000)).into());
            set("bailiwick.child.start_boot_ns", (number * STEP_NS).to_string().into());
            return ("process.fork", attributes, Verdict::None);
        }
        8..12 => {
            set("process.executable.path", "/usr/bin/git".into());
            set("process.command_args", json!(["git", "-C", "/srv/shop", "status", "--porcelain", path]));
            set("process.working_directory", "/srv/shop".into());
            return ("process.exec", attributes, verdict);
        }
        12..16 => {
            set("process.exit.code", 0.into());
            return ("process.exit", attributes, Verdict::None);
        }
        16..18 => "file.unlink",
        18..26 => "file.create",
        26..34 => "file.io",
        _ => "file.open",
    };
    set("file.path", path.into());
    set("bailiwick.file.access", if event == "file.create" { "w" } else { "r" }.into());
    set("bailiwick.file.device", "259:1".into());
    set("bailiwick.file.inode", (1_000_000 + below(500_000)).into());
    (event, attributes, verdict)
}

fn files_of(state: &Path, extension: &'static str) -> impl Iterator<Item = PathBuf> {
    let names = fs::read_dir(state.join("trail")).unwrap().map(|name| name.unwrap().path());
    names.filter(move |path| path.extension().is_some_and(|found| found == extension))
}

fn bytes_of(state: &Path, extension: &'static str) -> u64 {
    files_of(state, extension).map(|path| path.metadata().unwrap().len()).sum()
}

fn thread_cpu() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec.cast_unsigned(), time.tv_nsec as u32)
}

fn peak_rss_kib() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.split_whitespace().next().unwrap().parse().unwrap()
}
