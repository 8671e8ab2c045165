#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use std::path::Path;

use serde_json::json;

use super::*;
use crate::control::testing::{Builder, entry};
use crate::entry::Reason;

fn nowhere() -> &'static Path {
    Path::new("/nonexistent")
}

fn demo(seq: u64, event: &str) -> Builder {
    entry(seq, event).agent("demo", 1).process(7, "/usr/bin/cat")
}

fn read(seq: u64, path: &str) -> Entry {
    demo(seq, "file.open").path("r", path).build()
}

fn config() -> Config {
    Config::load_on(None, &crate::config::ThisHost).unwrap()
}

fn learnt(entries: &[Entry]) -> (String, Learnt) {
    let mut learner = Learner::new(false);
    entries.iter().for_each(|entry| learner.add(entry, false).unwrap());
    let learnt = learner.finish(&config(), Vec::new());
    (learnt.to_toml(&Kept::default()), learnt)
}

fn scope_of(text: &str) -> Config {
    Config::with_proposed_text("learnt.toml", text, nowhere()).unwrap_or_else(|errors| panic!("{errors}\n{text}")).0
}

fn verdict(config: &Config, entry: &Entry) -> Verdict {
    Recorded::of(&entry.draft).unwrap().judge(&config.effective("demo", &[])).verdict
}

#[test]
fn what_was_done_is_granted_and_what_was_not_is_not() {
    let done = [
        demo(1, "process.exec").with("process.executable.path", json!("/opt/tool-1.2/bin/tool")).build(),
        read(2, "/srv/shop/a"),
        demo(3, "file.open").path("rw", "/srv/shop/b").count(5).build(),
        demo(4, "file.rename")
            .with("file.path", json!("/srv/shop/b"))
            .with("bailiwick.file.new_path", json!("/srv/c"))
            .build(),
        demo(5, "network.connect").with("server.address", json!("10.0.0.5")).with("server.port", json!(443)).build(),
        demo(6, "network.listen")
            .with("network.local.address", json!("::1"))
            .with("network.local.port", json!(80))
            .build(),
        demo(7, "unix.connect").with("bailiwick.unix.abstract", json!("bus-AbCdEf12")).build(),
        demo(8, "unix.connect").with("bailiwick.unix.path", json!("/run/x.sock")).build(),
        demo(9, "privilege.setid").build(),
        demo(10, "file.open").path("r", "/proc/812/status").build(),
        demo(11, "file.open").path("r", "/missing").with("error.type", json!("ENOENT")).build(),
        demo(12, "file.open").path("w", "pipe:[123]").build(),
    ];
    let (text, learnt) = learnt(&done);
    let config = scope_of(&text);
    for entry in done.iter().take(10) {
        assert_eq!(verdict(&config, entry), Verdict::InScope, "{entry:?}\n{text}");
    }
    let planted = [
        read(20, "/srv/shop/c"),
        read(21, "/missing"),
        demo(22, "file.open").path("w", "/srv/shop/a").build(),
        demo(23, "network.connect").with("server.address", json!("10.0.0.5")).with("server.port", json!(22)).build(),
        demo(24, "privilege.ptrace").build(),
        demo(25, "process.exec").with("process.executable.path", json!("/usr/bin/nc")).build(),
    ];
    for entry in &planted {
        assert_eq!(verdict(&config, entry), Verdict::OutOfScope, "{entry:?}\n{text}");
    }
    assert!(learnt.uncovered(config.declaration("demo").unwrap().scope.as_deref().unwrap()).is_empty());
    assert!(text.contains("\"/proc/[0-9]*/status\",") && text.contains("\"/opt/tool-1.[0-9]*/bin/tool\","), "{text}");
    let line = text.lines().find(|line| line.contains("\"/srv/shop/b\"")).unwrap();
    assert!(line.contains("# read 5 times by cat"), "{line}");
}

#[test]
fn ten_thousand_paths_are_at_most_forty_grants_and_all_of_them_are_covered() {
    let mut entries = Vec::new();
    let roots =
        ["/srv/shop/src", "/home/dev/work/x", "/var/lib/app/data", "/opt/pkg/lib", "/tmp", "/etc/app.d", "/home/dev"];
    for number in 0..10_000_u64 {
        let root = roots[usize::try_from(number).unwrap() % roots.len()];
        let path = match number % 3 {
            0 => format!("{root}/f{number}.txt"),
            1 => format!("{root}/d{}/f{number}", number % 97),
            _ => format!("{root}/d{}/e{}/f{number}", number % 89, number % 13),
        };
        let access = if number % 4 == 0 { "rw" } else { "r" };
        entries.push(demo(number + 1, "file.open").path(access, &path).build());
    }
    for number in 0..300_u64 {
        let address = format!("10.{}.{}.9", number % 7, number % 100);
        let connect = demo(20_000 + number, "network.connect").with("server.address", json!(address));
        entries.push(connect.with("server.port", json!(1000 + number)).build());
    }
    let (text, learnt) = learnt(&entries);
    let config = scope_of(&text);
    assert!(learnt.grants() <= MAX_GRANTS, "{} grants\n{text}", learnt.grants());
    for entry in &entries {
        assert_eq!(verdict(&config, entry), Verdict::InScope, "{:?}\n{text}", entry.draft.attributes);
    }
    for path in ["/etc/shadow", "/root/.bashrc", "/srv/other", "/home/dev/.ssh/id_ed25519"] {
        assert_eq!(verdict(&config, &read(1, path)), Verdict::OutOfScope, "{path}\n{text}");
    }
}

#[test]
fn what_only_a_delegators_scope_lacked_is_granted_and_what_its_rule_denied_is_not() {
    let by_delegator = |seq, path, kind| {
        let mut out = demo(seq, "file.open").path("r", path).verdict(Verdict::OutOfScope).build();
        let delegator = Some("outer".to_owned());
        out.draft.reason = Some(Reason { kind, text: "/srv/**".to_owned(), file: None, line: None, delegator });
        out
    };
    let lacking = by_delegator(1, "/opt/data/a", ReasonKind::Nearest);
    let denied = by_delegator(2, "/srv/b", ReasonKind::Rule);
    let (text, _) = learnt(&[lacking.clone(), denied.clone()]);
    let config = scope_of(&text);
    assert_eq!((verdict(&config, &lacking), verdict(&config, &denied)), (Verdict::InScope, Verdict::OutOfScope));
    assert!(text.contains("5f3a91c2-2: read /srv/b (a rule of its delegator outer denies it)"), "{text}");
}

#[test]
fn what_was_out_of_scope_is_left_out_and_no_directory_grants_it_by_the_way() {
    let mut entries: Vec<Entry> = (1..30).map(|number| read(number, &format!("/srv/shop/f{number}"))).collect();
    entries.push(demo(50, "file.open").path("r", "/srv/shop/salaries").nearest("/srv/shop/f*").build());
    let mut denied = demo(51, "file.open").path("r", "/srv/shop/key").verdict(Verdict::OutOfScope).build();
    denied.draft.reason =
        Some(Reason { kind: ReasonKind::Rule, text: "**/key".to_owned(), file: None, line: None, delegator: None });
    entries.push(denied.clone());
    let (text, _) = learnt(&entries);
    let config = scope_of(&text);
    for entry in entries.iter().skip(29) {
        assert_eq!(verdict(&config, entry), Verdict::OutOfScope, "{text}");
    }
    assert!(
        text.contains("# Left out:") && text.contains("5f3a91c2-50: read /srv/shop/salaries (it was out of scope)"),
        "{text}"
    );

    let mut learner = Learner::new(true);
    entries.iter().for_each(|entry| learner.add(entry, false).unwrap());
    let config = scope_of(&learner.finish(&config, Vec::new()).to_toml(&Kept::default()));
    assert_eq!(verdict(&config, &entries[29]), Verdict::InScope);
    denied.draft.reason = None;
    assert_eq!(verdict(&config, &denied), Verdict::OutOfScope, "what a rule denies is never granted");
}

#[test]
fn grant_sets_are_included_where_they_cover_several_things() {
    let entries = [
        read(1, "/etc/ld.so.cache"),
        read(2, "/usr/lib/x86_64-linux-gnu/libc.so.6"),
        read(3, "/etc/passwd"),
        read(4, "/srv/x"),
    ];
    let (text, learnt) = learnt(&entries);
    assert!(text.contains("\"base\",") && !text.contains("\"rust\""), "{text}");
    assert_eq!(learnt.grants(), 1, "{text}");
}

#[test]
fn temporary_names_that_the_session_made_are_granted_under_their_next_name() {
    let entries = [
        demo(1, "file.create").path("rw", "/srv/shop/sedAb12Cd").build(),
        demo(2, "file.rename")
            .with("file.path", json!("/srv/shop/sedAb12Cd"))
            .with("bailiwick.file.new_path", json!("/srv/shop/calc.py"))
            .build(),
    ];
    let (text, _) = learnt(&entries);
    let next = demo(3, "file.create").path("rw", "/srv/shop/sedXy98Zw").build();
    assert_eq!(verdict(&scope_of(&text), &next), Verdict::InScope, "{text}");
    assert_eq!(verdict(&scope_of(&text), &read(4, "/srv/shop/other")), Verdict::OutOfScope, "{text}");
}

#[test]
fn a_hostile_name_stays_within_its_string_and_its_comment() {
    let entries = [demo(1, "file.open")
        .process(7, "/x/ev\n[scope.exec]\nallow = [\"/**\"]")
        .path("r", "/srv/\"]\nwrite = [\"/**\"]\n#")
        .build()];
    let (text, learnt) = learnt(&entries);
    let config = scope_of(&text);
    assert_eq!((learnt.grants(), verdict(&config, &entries[0])), (1, Verdict::InScope), "{text}");
    let written = demo(2, "file.open").path("w", "/etc/x").build();
    assert_eq!(verdict(&config, &written), Verdict::OutOfScope, "{text}");
}

#[test]
fn sessions_of_two_agents_are_refused() {
    let mut learner = Learner::new(false);
    learner.add(&read(1, "/x"), false).unwrap();
    let other = entry(2, "file.open").agent("other", 2).path("r", "/x").build();
    assert!(learner.add(&other, false).unwrap_err().to_string().contains("of the agent 'other'"));
}

#[test]
fn a_delegate_is_named_and_what_it_did_is_granted() {
    let mut learner = Learner::new(false);
    learner.add(&read(1, "/x"), false).unwrap();
    let delegates = |seq, event| entry(seq, event).agent("tester", 2).delegated_by("demo", 1);
    learner.add(&delegates(2, "delegation.start").build(), true).unwrap();
    learner.add(&delegates(3, "file.open").path("r", "/y").build(), true).unwrap();
    let text = learner.finish(&config(), Vec::new()).to_toml(&Kept::default());
    assert!(text.contains("\"tester\",") && text.contains("[scope.delegate]"), "{text}");
    assert_eq!(verdict(&scope_of(&text), &read(4, "/y")), Verdict::InScope);
}
