#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::Path;

use serde_json::json;

use super::narrow::{diff, narrowed};
use super::report::Review;
use super::{DECISION, Reviewing};
use crate::config::Config;
use crate::control::testing::{entry, time_of};
use crate::entry::{Entry, Timestamp, Verdict};
use crate::review::replay::Replay;

const DECLARATION: &str = r#"[agent]
name = "demo"
owner = "o"
review_every = "30d"

[scope]
include = ["git", "rust"]

[scope.files]
read = ["/srv/**", "/opt/unused/**"]
write = ["/srv/out/**"]
deny = ["/srv/secret"]

[scope.network]
connect = ["10.0.0.5:5432", "10.0.0.6:443"]

[scope.exec]
allow = ["/usr/bin/make"]

[scope.privileges]
allow = ["ptrace", "memfd"]

[[resource]]
name = "orders database"
address = ["10.0.0.5:5432"]

[[credential]]
name = "model key"
file = "/etc/passwd"
rotate_every = "30d"
"#;

fn open(seq: u64, access: &str, path: &str) -> Entry {
    entry(seq, "file.open").agent("demo", 1).path(access, path).build()
}

fn connect(seq: u64, address: &str, port: u16) -> Entry {
    let made = entry(seq, "network.connect").agent("demo", 1);
    made.with("server.address", json!(address)).with("server.port", json!(port)).build()
}

fn history() -> Vec<Entry> {
    let git = json!("/usr/bin/git");
    vec![
        entry(1, "session.start").agent("demo", 1).count(0).build(),
        open(2, "rw", "/srv/out/a"),
        open(3, "r", "/srv/key"),
        connect(4, "10.0.0.5", 5432),
        connect(5, "10.9.9.9", 80),
        entry(6, "process.exec").agent("demo", 1).with("process.executable.path", git).count(4).build(),
        entry(7, "privilege.ptrace").agent("demo", 1).build(),
        entry(8, "file.unlink").agent("demo", 1).with("file.path", json!("/srv/out/a")).build(),
        open(9, "r", "/srv/secret"),
        entry(10, "finding.delegation").agent("demo", 1).with("bailiwick.finding.repeats", json!(3)).count(0).build(),
        open(11, "r", "/opt/unused/x"),
        entry(12, "gap").agent("demo", 1).gap(Some(7), 10, 11).build(),
        entry(13, "session.end").agent("demo", 1).count(0).build(),
    ]
}

fn config(text: &str) -> Config {
    Config::with_proposed_text("demo.toml", text, Path::new("/nonexistent")).unwrap().0
}

fn reviewed(text: &str, entries: &[Entry]) -> (Review, String) {
    let config = config(text);
    let mut reviewing = Reviewing::of(&config, config.declaration("demo").unwrap());
    entries.iter().for_each(|entry| reviewing.look_back(entry));
    entries.iter().for_each(|entry| reviewing.add(entry));
    let (review, unused) = reviewing.finish(time_of(100), vec!["mapped memory".to_owned()]);
    (review, narrowed(text, &unused).unwrap())
}

fn without(uid: u64) -> Vec<Entry> {
    history().into_iter().filter(|entry| entry.seq != uid).collect()
}

#[test]
fn what_was_granted_and_not_used_is_told_with_its_place() {
    let (review, _) = reviewed(DECLARATION, &without(11));
    let unused: Vec<_> =
        review.granted_unused.iter().map(|grant| (grant.grant.as_str(), grant.text.as_str(), grant.line)).collect();
    assert_eq!(
        unused,
        [
            ("files.read", "/opt/unused/**", 10),
            ("exec.allow", "/usr/bin/make", 18),
            ("network.connect", "10.0.0.6:443", 15),
            ("privileges.allow", "memfd", 21),
            ("include", "rust", 7),
        ]
    );
    assert_eq!(reviewed(DECLARATION, &history()).0.granted_unused.len(), 4, "and with that one used, it is not");
}

#[test]
fn each_grant_has_its_last_use_and_reading_and_writing_rest_on_two() {
    let (review, _) = reviewed(DECLARATION, &history());
    let uses = |text: &str| {
        let used = review.last_used.iter().find(|used| used.grant.text == text).unwrap();
        (used.uses.count, used.uses.uid.clone().unwrap_or_default())
    };
    assert_eq!(uses("/srv/**"), (2, "5f3a91c2-3".to_owned()), "the rw, and the key");
    assert_eq!(uses("/srv/out/**"), (2, "5f3a91c2-8".to_owned()), "the rw, and the unlink");
    assert_eq!(uses("git"), (4, "5f3a91c2-6".to_owned()));
    assert_eq!(uses("memfd"), (0, String::new()));
}

#[test]
fn what_was_done_without_a_grant_is_told_by_the_scope_in_force() {
    let (review, _) = reviewed(DECLARATION, &history());
    let mut told: Vec<_> = review
        .used_not_granted
        .iter()
        .map(|one| (one.thing.what.as_str(), one.thing.uses.uid.as_deref().unwrap(), one.reason.as_deref().unwrap()))
        .collect();
    told.sort_unstable();
    assert_eq!(
        told,
        [("/srv/secret", "5f3a91c2-9", "/srv/secret"), ("10.9.9.9:80", "5f3a91c2-5", "10.0.0.5:5432, 10.0.0.6:443")]
    );
}

#[test]
fn resources_credentials_privileges_and_findings_are_named() {
    let read = |seq, name: &str| {
        let read = entry(seq, "credential.read").agent("demo", 1);
        read.with("bailiwick.credential.name", json!(name)).build()
    };
    let mut entries = history();
    entries.extend([read(90, "model key"), read(91, "ssh key")]);
    let (review, _) = reviewed(DECLARATION, &entries);
    assert_eq!((review.resources[0].name.as_str(), review.resources[0].uses.count), ("orders database", 1));
    assert_eq!((review.credentials[0].name.as_str(), review.credentials[0].uses.count), ("model key", 1));
    assert_eq!(review.credentials[0].rotate_every_seconds, Some(30 * 86_400));
    let other = &review.credentials[1];
    assert_eq!((other.name.as_str(), other.declared, other.uses.count), ("ssh key", false, 1));
    assert_eq!((review.privileges[0].privilege.as_str(), review.privileges[0].granted), ("ptrace", true));
    assert_eq!((review.findings[0].event.as_str(), review.findings[0].uses.count), ("finding.delegation", 3));
}

#[test]
fn nothing_is_said_without_what_the_history_does_not_hold() {
    let mut entries = history();
    entries.push(entry(14, "gap").gap(None, 2, 3).build());
    entries.push(entry(15, "gap").agent("other", 2).gap(Some(1), 2, 3).build());
    let (review, _) = reviewed(DECLARATION, &entries);
    assert_eq!((review.completeness.lost, review.completeness.gaps.len()), (7, 2));
    assert_eq!(review.completeness.blind_spots, ["mapped memory"]);
    assert_eq!((review.from, review.to), (Some(time_of(1)), Some(time_of(13))));
}

#[test]
fn the_narrower_declaration_grants_all_that_was_granted_and_used_and_denies_as_before() {
    let entries = without(11);
    let (_, text) = reviewed(DECLARATION, &entries);
    let config = config(&text);
    for gone in ["/opt/unused", "make", "10.0.0.6", "memfd", "rust"] {
        assert!(!text.contains(gone), "{gone}: {text}");
    }
    let before = self::config(DECLARATION);
    let judged = |config: &Config| {
        let mut replay = Replay::by(config, "demo");
        let mut verdicts: Vec<(u64, Verdict)> = Vec::new();
        for entry in &entries {
            if let Some(changed) = replay.add(entry, |_| true) {
                verdicts.push((entry.seq, changed.would_be));
            }
        }
        verdicts
    };
    assert_eq!(judged(&config), judged(&before));
    let (again, _) = reviewed(&text, &entries);
    assert_eq!(again.granted_unused, [], "nothing more is unused");
    assert!(diff("demo.toml", DECLARATION, &text).contains("-include = [\"git\", \"rust\"]\n+include = [\"git\"]\n"));
}

#[test]
fn a_set_that_also_denies_is_told_of_as_unused_and_stays() {
    let directory = tempfile::tempdir().unwrap();
    std::fs::create_dir(directory.path().join("grants.d")).unwrap();
    let set = "[set]\nname = \"guard\"\n[files]\nread = [\"/guarded/**\"]\ndeny = [\"**/.env\"]\n";
    std::fs::write(directory.path().join("grants.d/guard.toml"), set).unwrap();
    let text = "[agent]\nname = \"demo\"\nowner = \"o\"\n[scope]\ninclude = [\"guard\"]\n";
    let (config, _) = Config::with_proposed_text("demo.toml", text, directory.path()).unwrap();
    let reviewing = Reviewing::of(&config, config.declaration("demo").unwrap());
    let (review, unused) = reviewing.finish(time_of(1), Vec::new());
    assert_eq!(review.granted_unused[0].text, "guard");
    assert_eq!(narrowed(text, &unused).unwrap(), text);
}

#[test]
fn what_a_delegate_does_within_its_delegators_scope_uses_the_delegators_grants() {
    let config_with = |limit: &str| {
        let text = format!(
            "[agent]\nname = \"demo\"\nowner = \"o\"\n[scope.files]\nread = [\"/srv/**\"]\n[scope.delegate]\nto = [\"deputy\"]\n\
             limit = \"{limit}\"\n"
        );
        let directory = tempfile::tempdir().unwrap();
        std::fs::create_dir(directory.path().join("agents.d")).unwrap();
        let deputy = "[agent]\nname = \"deputy\"\nowner = \"o\"\n[scope.files]\nread = [\"/srv/**\"]\n";
        std::fs::write(directory.path().join("agents.d/deputy.toml"), deputy).unwrap();
        Config::with_proposed_text("demo.toml", &text, directory.path()).unwrap().0
    };
    let entries = [
        entry(1, "delegation.start").agent("deputy", 2).delegated_by("demo", 1).count(0).build(),
        entry(2, "file.open").agent("deputy", 2).delegated_by("demo", 1).path("r", "/srv/x").build(),
    ];
    let used = |limit: &str| {
        let config = config_with(limit);
        let mut reviewing = Reviewing::of(&config, config.declaration("demo").unwrap());
        entries.iter().for_each(|entry| reviewing.add(entry));
        let (review, _) = reviewing.finish(time_of(9), Vec::new());
        let used = review.last_used.iter().filter(|used| !used.uses.is_none());
        (used.map(|used| used.grant.text.clone()).collect::<Vec<_>>(), review.delegations.len(), review.actions)
    };
    assert_eq!(used("mine"), (vec!["/srv/**".to_owned(), "deputy".to_owned()], 1, 0));
    assert_eq!(used("theirs"), (vec!["deputy".to_owned()], 1, 0));
}

#[test]
fn a_review_is_due_so_long_after_the_last_or_after_the_first_session() {
    const DAY: u64 = 86_400_000_000_000;
    let (review, _) = reviewed(DECLARATION, &history());
    assert_eq!((review.due, review.overdue), (Some(Timestamp(time_of(1).0 + 30 * DAY)), false));
    let config = config(DECLARATION);
    let mut reviewing = Reviewing::of(&config, config.declaration("demo").unwrap());
    reviewing.look_back(&entry(1, "session.start").agent("demo", 1).build());
    reviewing.look_back(&entry(20, DECISION).agent("demo", 1).build());
    reviewing.look_back(&entry(30, DECISION).agent("other", 1).build());
    let (review, _) = reviewing.finish(Timestamp(time_of(20).0 + 31 * DAY), Vec::new());
    assert_eq!((review.due, review.overdue), (Some(Timestamp(time_of(20).0 + 30 * DAY)), true));
    let last = review.last_review.unwrap();
    assert_eq!((last.by.as_str(), last.uid.as_str()), ("alice", "5f3a91c2-20"));
}

#[test]
fn what_is_done_without_end_is_bounded_and_counted() {
    let config = config(DECLARATION);
    let mut reviewing = Reviewing::of(&config, config.declaration("demo").unwrap());
    for seq in 1..=1_500 {
        reviewing.add(&open(seq, "r", &format!("/elsewhere/{seq}")));
    }
    let (review, _) = reviewing.finish(time_of(2_000), Vec::new());
    assert_eq!((review.used_not_granted.len(), review.used_not_granted_left_out), (1_000, 500));
}
