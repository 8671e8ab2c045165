#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use serde_json::json;

use super::*;
use crate::control::report::SessionItem;
use crate::control::testing::{Builder, entry, time_of};
use crate::entry::{Delegator, SessionId};

fn closing() -> Closing {
    let session = SessionItem {
        session: SessionId(0x5f),
        agent: Some("demo".into()),
        principal: None,
        delegation: Vec::new(),
        started: Some(time_of(1)),
        ended: Some(time_of(9)),
        alive: false,
        processes: 2,
        entries: 9,
        in_scope: 3,
        out_of_scope: 0,
        lost: 0,
        uncounted_gaps: 0,
    };
    Closing { session, host_gaps: Vec::new(), blind_spots: Some(Vec::new()), delegated_to: Vec::new() }
}

fn of(seq: u64, event: &str, tgid: u32) -> Builder {
    entry(seq, event).agent("demo", 0x5f).process(tgid, "/bin/sh")
}

fn fork(seq: u64, parent: u32, child: u32) -> Entry {
    of(seq, "process.fork", parent)
        .with("bailiwick.child.tgid", json!(child))
        .with("bailiwick.child.start_boot_ns", json!((child * 1000).to_string()))
        .build()
}

fn exec(seq: u64, tgid: u32, args: &[&str]) -> Entry {
    of(seq, "process.exec", tgid).with("process.command_args", json!(args)).verdict(Verdict::InScope).build()
}

fn told(entries: &[Entry], closing: &Closing) -> String {
    let mut story = Story::default();
    entries.iter().for_each(|entry| story.add(entry));
    story.tell(closing, Palette::PLAIN)
}

#[test]
fn the_tree_says_what_each_process_executed_read_wrote_and_reached() {
    let entries = [
        of(1, "session.start", 10).with("process.command_args", json!(["sh", "run.sh"])).build(),
        fork(2, 10, 11),
        exec(3, 11, &["cat", "/srv/a"]),
        of(4, "file.open", 11).path("r", "/srv/a").count(3).build(),
        of(5, "file.open", 11).path("rw", "/srv/b").build(),
        of(6, "file.open", 11).path("r", "/root/key").nearest("/srv/**").build(),
        of(7, "file.open", 11).path("r", "/lib/none").with("error.type", json!("ENOENT")).build(),
        of(8, "network.connect", 10)
            .with("server.address", json!("127.0.0.1"))
            .with("server.port", json!(80))
            .with("network.transport", json!("tcp"))
            .build(),
        of(9, "process.exit", 11).with("process.exit.code", json!(1)).build(),
    ];
    let text = told(&entries, &closing());
    let tree = text.split("processes\n").nth(1).unwrap().split("\nout of scope").next().unwrap();
    assert_eq!(
        tree,
        "  10 sh run.sh\n\
         \x20     reached   tcp 127.0.0.1:80\n\
         \x20   11 cat /srv/a  [code 1]\n\
         \x20       executed  cat /srv/a\n\
         \x20       read      /root/key  OUT OF SCOPE\n\
         \x20                 /srv/a x3\n\
         \x20                 /srv/b\n\
         \x20       wrote     /srv/b\n\
         \x20       tried     file.open r /lib/none = ENOENT\n"
    );
}

#[test]
fn every_violation_is_listed_with_the_command_that_explains_it() {
    let text = told(&[of(6, "file.open", 11).path("r", "/root/key").nearest("/srv/**").build()], &closing());
    let expected = "  file.open r /root/key  by 11  nearest: /srv/**  (explain: bailiwick explain 5f3a91c2-6)\n";
    assert!(text.contains(expected), "{text}");
}

#[test]
fn a_long_list_is_cut_but_never_what_is_out_of_scope() {
    let mut entries: Vec<Entry> =
        (1..=50).map(|n| of(n, "file.open", 10).path("r", &format!("/a/{n:02}")).build()).collect();
    entries.push(of(51, "file.open", 10).path("r", "/z/last").nearest("/a").build());
    let text = told(&entries, &closing());
    assert!(text.contains("/z/last  OUT OF SCOPE"), "{text}");
    assert!(text.contains("and 38 more"), "{text}");
    assert!(!text.contains("/a/13"), "{text}");
}

#[test]
fn processes_are_below_their_parents_even_where_the_fork_was_not_seen() {
    let orphan = of(1, "process.exit", 20)
        .with("process.parent_pid", json!(10))
        .with("bailiwick.process.parent_start_boot_ns", json!("10000"))
        .build();
    let text = told(&[of(1, "session.start", 10).build(), orphan], &closing());
    assert!(text.contains("\n  10 ?\n    20 /bin/sh  [code ?]\n"), "{text}");
}

#[test]
fn processes_that_name_each_other_as_parents_are_still_told() {
    let text = told(&[fork(1, 10, 11), fork(2, 11, 10)], &closing());
    assert!(text.contains("10 /bin/sh") && text.contains("11 /bin/sh"), "{text}");
}

#[test]
fn a_chain_of_many_thousand_forks_is_told_without_running_out_of_stack() {
    let entries: Vec<Entry> = (1..=9_000).map(|n| fork(u64::from(n), n, n + 1)).collect();
    let text = told(&entries, &closing());
    assert!(text.contains(&format!("{}9001 /bin/sh\n", "  ".repeat(MAX_INDENT + 1))));
}

#[test]
fn no_violations_is_said_alone_only_with_nothing_lost_and_no_blind_spots() {
    assert_eq!(
        statement(&closing(), &[]),
        ["9 entries.", "No violations, with nothing lost and no blind spots.", "Nothing lost.", "No blind spots."]
    );
}

#[test]
fn what_was_lost_and_what_is_not_seen_stand_beside_no_violations() {
    let gap = of(3, "gap", 10).gap(Some(12), 2, 3).build().draft.gap.unwrap();
    let host_gap = entry(4, "gap").gap(None, 3, 4).build().draft.gap.unwrap();
    let mut incomplete = closing();
    incomplete.session.lost = 12;
    incomplete.host_gaps = vec![host_gap];
    incomplete.blind_spots = Some(vec!["io_uring".into()]);
    let lines = statement(&incomplete, &[gap]);
    assert_eq!(
        lines,
        [
            "9 entries.",
            "No violations in what was seen; what was not seen follows.",
            "Lost: 12 actions, as far as counted.",
            "  lost 12 actions of file.open from 12:03:04.125 to 12:03:04.126: the ring was full",
            "  nobody counted file.open from 12:03:04.126 to 12:03:04.127: the ring was full (of no known session: may be \
             this one's)",
            "1 blind spot:",
            "  io_uring",
        ]
    );
}

#[test]
fn blind_spots_that_nobody_knows_are_not_taken_for_none() {
    let unknown = Closing { blind_spots: None, ..closing() };
    let lines = statement(&unknown, &[]);
    assert!(lines[1].starts_with("No violations in what was seen"), "{lines:?}");
    assert!(lines[3].starts_with("Blind spots: unknown"), "{lines:?}");
}

#[test]
fn an_agent_without_a_scope_is_not_said_to_have_no_violations() {
    let mut unscoped = closing();
    unscoped.session.in_scope = 0;
    assert!(!statement(&unscoped, &[]).join(" ").contains("No violations"));
}

#[test]
fn the_head_names_principal_chain_and_delegates() {
    let mut chained = closing();
    chained.session.delegation = vec![Delegator { agent: "lead".into(), session: SessionId(1) }];
    chained.delegated_to = vec![Delegator { agent: "tester".into(), session: SessionId(2) }];
    chained.session.ended = None;
    let text = told(&[], &chained);
    assert!(text.contains("delegated by  lead 0000000000000001\n"), "{text}");
    assert!(text.contains("delegated to  tester 0000000000000002\n"), "{text}");
    assert!(text.contains("ended         its end was not seen\n"), "{text}");
}

#[test]
fn hostile_names_are_harmless_in_a_story_too() {
    let evil = "\u{1b}[2J\u{202e}\n";
    let mut entries = vec![exec(1, 10, &[evil])];
    for (seq, event) in ["file.open", "file.unlink", "unix.connect", evil].into_iter().enumerate() {
        entries.push(of(seq as u64, event, 10).path(evil, evil).nearest(evil).build());
        entries.push(of(seq as u64, event, 10).path("r", evil).with("error.type", json!(evil)).build());
    }
    let mut hostile = closing();
    hostile.session.agent = Some(evil.into());
    hostile.blind_spots = Some(vec![evil.into()]);
    let text = told(&entries, &hostile);
    assert!(!text.contains('\u{1b}') && !text.contains('\u{202e}'), "{text:?}");
}

#[test]
fn what_matters_is_told_by_its_name() {
    let named = |builder: Builder| builder.with("bailiwick.resource", json!(["orders", "x\u{1b}"])).build();
    let entries = [
        named(of(1, "file.open", 10).path("r", "/srv/a").count(3)),
        named(of(2, "file.io", 10).path("r", "/srv/a").count(9)),
        named(of(3, "file.open", 10).path("r", "/srv/b")),
    ];
    let text = told(&entries, &closing());
    assert!(text.contains("read      /srv/a [orders, x\\x1b] x3\n"), "{text}");
    assert!(text.contains("\nresources\n  orders: read x4\n  x\\x1b: read x4\n"), "{text}");
}
