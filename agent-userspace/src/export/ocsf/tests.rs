#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on says so by panicking")]

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::runtime::Handle;

use super::OcsfSettings;
use super::class::{BASE, classify};
use super::event::{Charters, Device, event};
use crate::entry::{
    Attribution, Confidence, Delegator, Draft, Entry, Gap, Method, Principal, ProcessRef, Reason, ReasonKind,
    SessionId, Timestamp, Verdict,
};
use crate::export::{ExportSettings, Exporters};
use crate::metrics::Registry;
use crate::observation::OBSERVATIONS;
use crate::trail::{Trail, TrailOptions};

const LONG: Duration = Duration::from_secs(30);
const GOLDEN: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/src/export/ocsf/golden/events.jsonl");

/// What OCSF 1.9.0 requires of each class beside what it requires of all.
const REQUIRED: &[(u64, &[&str])] = &[
    (0, &[]),
    (1001, &["actor", "device", "file"]),
    (1002, &["actor", "device", "driver"]),
    (1003, &["actor", "device", "kernel"]),
    (1005, &["actor", "device", "module"]),
    (1007, &["actor", "device", "process"]),
    (1008, &["log_name"]),
    (2004, &["finding_info"]),
    (4001, &["src_endpoint|dst_endpoint"]),
    (6002, &["app"]),
    (6008, &[]),
];
const REQUIRED_OF_ALL: &[&str] =
    &["activity_id", "category_uid", "class_uid", "metadata", "severity_id", "time", "type_uid"];

fn draft(name: &str, attributes: Value) -> Draft {
    let mut draft = Draft::of_host(Timestamp(1_767_225_600_123_456_789), name);
    draft.agent = Some("code-assistant".to_owned());
    draft.session = Some(SessionId(0x2a));
    draft.count = 1;
    draft.principal = Some(Principal {
        uid: 1000,
        user: Some("ada".to_owned()),
        login_uid: Some(1000),
        via: Some("ssh".to_owned()),
        ..Principal::default()
    });
    draft.process =
        Some(ProcessRef { tgid: 77, tid: 78, start_boot_ns: 5_000, executable: Some("/usr/bin/node".to_owned()) });
    draft.attribution = Some(Attribution { method: Method::Inherited, confidence: Confidence::Certain });
    draft.attributes = attributes.as_object().cloned().unwrap();
    draft
}

fn judged(mut draft: Draft, verdict: Verdict, kind: ReasonKind, text: &str) -> Draft {
    draft.verdict = verdict;
    draft.reason = Some(Reason {
        kind,
        text: text.to_owned(),
        file: Some("agents.d/a.toml".to_owned()),
        line: Some(9),
        delegator: None,
    });
    draft
}

/// An entry of each family, and of what is derived.
fn drafts() -> Vec<Draft> {
    let arguments = json!(["git", "commit", "-m", "it's done"]);
    let declared = json!({ "bailiwick.declaration.file": "/etc/bailiwick/agents.d/code-assistant.toml",
        "bailiwick.declaration.sha256": "b1".repeat(32), "process.executable.path": "/usr/bin/node" });
    let exec = json!({ "process.executable.path": "/usr/bin/git", "process.command_args": arguments,
        "process.working_directory": "/srv/shop", "process.parent_pid": 70, "bailiwick.exec.number": 2 });
    let connected = json!({ "server.address": "10.0.0.5", "server.port": 5432, "network.transport": "tcp",
        "network.type": "ipv4", "network.local.address": "10.0.0.9", "network.local.port": 40000 });
    let closed = json!({ "server.address": "::1", "server.port": 443, "network.transport": "tcp", "network.type": "ipv6",
        "network.local.address": "::1", "network.local.port": 40001, "bailiwick.network.bytes_sent": 12,
        "bailiwick.network.bytes_received": 900 });
    let mut start = Draft { count: 0, ..draft("session.start", declared) };
    start.delegation = vec![Delegator { agent: "planner".to_owned(), session: SessionId(0x29) }];
    let mut folded = draft(
        "file.io",
        json!({ "file.path": "/srv/shop/a", "bailiwick.file.access": "w", "bailiwick.file.bytes": 512 }),
    );
    (folded.count, folded.first_time) = (40, Some(Timestamp(1_767_225_590_000_000_000)));
    let gap = Gap {
        kind: "file.open".to_owned(),
        session: Some(SessionId(0x2a)),
        lost: Some(3),
        from: Timestamp(1),
        to: Timestamp(2),
        reason: "the ring was full".to_owned(),
    };
    let finding = json!({ "bailiwick.finding.text": "it was started by an agent that nobody let start it",
        "bailiwick.finding.causes": ["5f3a91c2-1"] });
    let secret =
        json!({ "file.path": "/home/ada/.ssh/id_rsa", "bailiwick.file.access": "r", "bailiwick.file.inode": "9" });
    vec![
        start,
        draft("process.fork", json!({ "bailiwick.child.tgid": 99, "bailiwick.child.start_boot_ns": "6000" })),
        judged(draft("process.exec", exec), Verdict::InScope, ReasonKind::Grant, "/usr/bin/git"),
        draft("process.exit", json!({ "process.exit.code": 1, "process.parent_pid": 70 })),
        judged(draft("file.open", secret.clone()), Verdict::OutOfScope, ReasonKind::Rule, "/home/*/.ssh/**"),
        judged(draft("file.create", json!({ "file.path": "/etc/x" })), Verdict::Denied, ReasonKind::Nearest, "/tmp/**"),
        draft("file.open", json!({ "file.path": "/gone", "error.type": "ENOENT" })),
        draft("file.rename", json!({ "file.path": "/srv/a", "bailiwick.file.new_path": "/srv/b" })),
        draft("file.map_exec", json!({ "file.path": "/usr/lib/libc.so.6" })),
        folded,
        draft("network.connect", connected),
        draft(
            "network.connect",
            json!({ "server.address": "10.0.0.6", "server.port": 1, "error.type": "ECONNREFUSED" }),
        ),
        draft(
            "network.accept",
            json!({ "client.address": "127.0.0.1", "client.port": 4, "network.local.address": "127.0.0.1",
            "network.local.port": 80 }),
        ),
        draft("network.close", closed),
        draft("network.netlink", json!({ "bailiwick.network.protocol": 0 })),
        draft("unix.connect", json!({ "bailiwick.unix.path": "/run/docker.sock" })),
        draft("privilege.signal", json!({ "bailiwick.signal": 9, "bailiwick.target.tgid": 4 })),
        draft("privilege.bpf", json!({ "bailiwick.syscall": "bpf", "error.type": "EPERM" })),
        draft("privilege.module", json!({ "bailiwick.module.path": "/tmp/rootkit.ko", "error.type": "EPERM" })),
        draft("io_uring.setup", json!({ "bailiwick.io_uring.entries": 8, "bailiwick.syscall": "io_uring_setup" })),
        Draft { count: 0, gap: Some(gap), ..draft("gap", json!({})) },
        Draft { count: 0, ..draft("finding.delegation", finding) },
        Draft { count: 0, ..draft("decision.approve", json!({})) },
        Draft { count: 0, ..draft("session.end", json!({})) },
        Draft::of_host(Timestamp(1_767_225_600_000_000_000), "sensor.degraded"),
        Draft::of_host(Timestamp(1_767_225_600_000_000_000), "trail.tombstone"),
    ]
}

fn events_of(drafts: Vec<Draft>) -> Vec<Value> {
    let device = Device { hostname: "shop-7".to_owned(), uid: Some("0badc0de".to_owned()) };
    let mut charters = Charters::default();
    let events = drafts.into_iter().zip(1..).map(|(draft, seq)| {
        let entry = Entry { uid: format!("5f3a91c2-{seq}"), seq, draft, chain: format!("{seq:064x}") };
        charters.before(&entry.draft);
        let event = event(&entry, &device, &charters);
        charters.after(&entry.draft);
        event
    });
    events.collect()
}

fn has(event: &Value, key: &str) -> bool {
    key.split('|').any(|key| event.get(key).is_some_and(|value| !value.is_null()))
}

#[test]
fn an_entry_of_each_family_is_the_event_that_the_golden_file_has() {
    let lines: String = events_of(drafts()).iter().map(|event| format!("{event}\n")).collect();
    if std::env::var_os("BAILIWICK_WRITE_GOLDEN").is_some() {
        fs::write(GOLDEN, &lines).unwrap();
    }
    let golden = fs::read_to_string(GOLDEN).unwrap_or_default();
    for (line, expected) in lines.lines().zip(golden.lines()) {
        assert_eq!(line, expected, "make it anew: BAILIWICK_WRITE_GOLDEN=1 cargo test -p agent-userspace ocsf");
    }
    assert_eq!(lines.lines().count(), golden.lines().count());
}

#[test]
fn every_event_has_what_its_class_requires_and_ids_that_agree() {
    let observed = OBSERVATIONS.iter().map(|observation| draft(observation.event, json!({ "file.path": "/a" })));
    for event in events_of(drafts().into_iter().chain(observed).collect()) {
        let uid = event["class_uid"].as_u64().unwrap();
        let (_, required) = REQUIRED.iter().find(|(class, _)| *class == uid).expect("a class that the table has");
        for key in REQUIRED_OF_ALL.iter().chain(*required) {
            assert!(has(&event, key), "{} has no {key}", event["metadata"]["event_code"]);
        }
        assert_eq!(event["type_uid"], uid * 100 + event["activity_id"].as_u64().unwrap());
        assert_eq!(event["category_uid"], uid / 1000);
        for key in ["version", "product", "uid"] {
            assert!(has(&event["metadata"], key), "{key}");
        }
    }
}

#[test]
fn whatever_the_sensor_observes_has_a_class_of_its_own() {
    let path = json!({ "file.path": "/a" });
    let other: BTreeSet<_> = OBSERVATIONS
        .iter()
        .filter(|observation| classify(&draft(observation.event, path.clone())).0 == BASE)
        .map(|observation| observation.event)
        .collect();
    assert_eq!(other, BTreeSet::new());
}

#[test]
fn an_agent_is_known_by_its_declaration_until_its_session_ends() {
    let events = events_of(drafts());
    let agent = &events[4]["ai_agent"];
    assert_eq!((&agent["uid"], &agent["instance_uid"]), (&json!("code-assistant"), &json!("000000000000002a")));
    assert_eq!(agent["charter"]["path"], "/etc/bailiwick/agents.d/code-assistant.toml");
    assert_eq!(agent["charter"]["hashes"][0]["value"], "b1".repeat(32));
    let finding = events.iter().find(|event| event["class_uid"] == 2004).unwrap();
    assert!(finding.get("ai_agent").is_none(), "the class does not carry the profile");
    assert_eq!(finding["evidences"][0]["ai_agent"]["uid"], "code-assistant");
    assert_eq!(events[0]["unmapped"]["bailiwick"]["delegation"][0]["agent"], "planner");
    assert_eq!(events[4]["attestation"]["prev_event"]["uid"], "5f3a91c2-4");
    let after = events_of(vec![draft("session.end", json!({})), draft("file.open", json!({ "file.path": "/a" }))]);
    assert!(after[1]["ai_agent"].get("charter").is_none());
}

fn open(state: &Path) -> Trail {
    Trail::open(state, TrailOptions::default()).unwrap().trail
}

fn append(trail: &mut Trail, count: usize) {
    let of = |number| draft("file.open", json!({ "file.path": format!("/srv/{number}") }));
    trail.append((0..count).map(of).collect()).unwrap();
    trail.sync().unwrap();
}

fn settings(file: &Path) -> OcsfSettings {
    OcsfSettings { file: file.to_owned(), rotate_bytes: 1 << 30, keep_files: 2 }
}

fn start(state: &Path, trail: &Trail, ocsf: OcsfSettings) -> Exporters {
    let settings = ExportSettings { ocsf: Some(ocsf), ..ExportSettings::default() };
    let own = Registry::default().into();
    Exporters::start(&Handle::current(), state, &settings, trail.subscribe_synced(), Vec::new(), &own).unwrap()
}

/// The uids in a file, in order.
fn uids(file: &Path) -> Vec<String> {
    let text = fs::read_to_string(file).unwrap_or_default();
    let uid = |line: &str| serde_json::from_str::<Value>(line).unwrap()["metadata"]["uid"].as_str().unwrap().to_owned();
    text.lines().map(uid).collect()
}

fn seqs(file: &Path) -> Vec<u64> {
    uids(file).iter().map(|uid| uid.rsplit_once('-').unwrap().1.parse().unwrap()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_entry_is_written_once_though_the_cursor_was_lost_and_an_event_torn() {
    let (state, out) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let file = out.path().join("new/ocsf.jsonl");
    let mut trail = open(state.path());
    append(&mut trail, 700);
    let exporters = start(state.path(), &trail, settings(&file));
    exporters.flush(700, LONG).await.unwrap();
    let status = exporters.status();
    assert_eq!((status[0].target.as_str(), status[0].signal, status[0].pending), ("ocsf", "logs", 0));
    exporters.stop(LONG).await;
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o7777, 0o600);
    // As after a power cut: the cursor is older than the file, whose last event is torn.
    fs::remove_dir_all(state.path().join("cursors")).unwrap();
    let len = fs::metadata(&file).unwrap().len();
    fs::OpenOptions::new().write(true).open(&file).unwrap().set_len(len - 10).unwrap();
    append(&mut trail, 5);
    let exporters = start(state.path(), &trail, settings(&file));
    exporters.flush(705, LONG).await.unwrap();
    exporters.stop(LONG).await;
    assert_eq!(seqs(&file), (1..=705).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_file_is_put_aside_when_it_is_full_and_the_oldest_goes() {
    let (state, out) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let file = out.path().join("ocsf.jsonl");
    let mut trail = open(state.path());
    let small = OcsfSettings { rotate_bytes: 64 << 10, ..settings(&file) };
    let exporters = start(state.path(), &trail, small.clone());
    let mut last = 0;
    for _ in 0..20 {
        append(&mut trail, 20);
        last += 20;
        exporters.flush(last, LONG).await.unwrap();
    }
    let aside = |number: u32| PathBuf::from(format!("{}.{number}", file.display()));
    let kept: Vec<u64> = [aside(2), aside(1), file.clone()].iter().flat_map(|file| seqs(file)).collect();
    assert_eq!(kept, (kept[0]..=last).collect::<Vec<_>>(), "no hole, no repeat, to the end");
    assert!(kept[0] > 1, "the oldest is gone");
    assert!(!aside(3).exists());
    for file in [aside(2), aside(1), file.clone()] {
        assert!(fs::metadata(&file).unwrap().len() <= 64 << 10);
    }
    // Somebody else rotates it: a new one is begun.
    fs::rename(&file, out.path().join("theirs")).unwrap();
    append(&mut trail, 1);
    exporters.flush(last + 1, LONG).await.unwrap();
    assert_eq!(seqs(&file), [last + 1]);
    exporters.stop(LONG).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_written_is_held_and_told_and_goes_on_by_itself() {
    let (state, out) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let (file, victim) = (out.path().join("ocsf.jsonl"), out.path().join("victim"));
    fs::write(&victim, "").unwrap();
    symlink(&victim, &file).unwrap();
    let mut trail = open(state.path());
    append(&mut trail, 3);
    let exporters = start(state.path(), &trail, settings(&file));
    let held = exporters.flush(3, Duration::from_millis(300)).await.unwrap_err();
    assert_eq!((held.target.as_str(), held.acknowledged), ("ocsf", 0));
    assert!(held.to_string().contains("cannot open"), "{held}");
    assert_eq!(fs::metadata(&victim).unwrap().size(), 0, "no link is followed");
    fs::remove_file(&file).unwrap();
    exporters.flush(3, LONG).await.unwrap();
    assert_eq!(seqs(&file), [1, 2, 3]);
    exporters.stop(LONG).await;
}
