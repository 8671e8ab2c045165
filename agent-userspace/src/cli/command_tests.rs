//! The commands against a fake daemon, over a real socket.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use serde_json::Value;

use super::*;
use crate::cli::args::{Cli, Command};
use crate::cli::{BAD_INPUT, NO_DAEMON, execute};
use crate::control::testing::{FakeDaemon, entry};
use crate::entry::Entry;
use clap::Parser;

fn some_entries() -> Vec<Entry> {
    vec![
        entry(1, "session.start").agent("demo", 0xab).process(10, "/bin/sh").build(),
        entry(2, "file.open").agent("demo", 0xab).process(10, "/bin/sh").path("r", "/tmp/x").nearest("/srv/**").build(),
        entry(3, "session.end").agent("demo", 0xab).build(),
    ]
}

/// Runs a command of this line; returns its exit code and output.
fn bailiwick(daemon: &FakeDaemon, words: &[&str]) -> (u8, String) {
    let runtime_dir = daemon.runtime_dir.path().to_str().unwrap();
    let words = [&["bailiwick", "--runtime-dir", runtime_dir], words].concat();
    let cli = Cli::try_parse_from(words).unwrap();
    let mut written = Vec::new();
    let code = {
        let mut output = Output::to(&mut written);
        match execute(&cli, &mut output, Palette::PLAIN) {
            Ok(code) => code,
            Err(error) => {
                output.text(&error.to_string()).unwrap();
                error.exit_code()
            }
        }
    };
    (code, String::from_utf8(written).unwrap())
}

#[test]
fn tail_prints_entries_as_json_exactly_as_they_are() {
    let daemon = FakeDaemon::holding(some_entries());
    let (code, text) = bailiwick(&daemon, &["tail", "--since", "start", "--no-follow", "--json"]);
    assert_eq!(code, GOOD);
    let parsed: Vec<Entry> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(parsed, some_entries());
    assert_eq!(text.lines().next().unwrap(), serde_json::to_string(&some_entries()[0]).unwrap());
}

#[test]
fn tail_filters_and_prints_a_line_for_a_person() {
    let daemon = FakeDaemon::holding(some_entries());
    let words =
        ["tail", "--since", "start", "--no-follow", "--verdict", "out_of_scope", "--session", "00000000000000ab"];
    let (code, text) = bailiwick(&daemon, &words);
    assert_eq!(code, GOOD);
    let line = text.lines().last().unwrap();
    assert!(line.ends_with("nearest: /srv/**  (explain: bailiwick explain 5f3a91c2-2)"), "{text}");
    assert_eq!(text.lines().filter(|line| !line.starts_with("--")).count(), 1);
}

#[test]
fn show_tells_the_story_or_prints_the_entries() {
    let daemon = FakeDaemon::holding(some_entries());
    let (code, text) = bailiwick(&daemon, &["show", "00000000000000ab"]);
    assert_eq!(code, GOOD);
    assert!(text.starts_with("session 00000000000000ab of demo\n"), "{text}");
    assert!(text.contains("1 entry is out of scope") || text.contains("1 entries are"), "{text}");
    let (_, json) = bailiwick(&daemon, &["show", "00000000000000ab", "--json"]);
    assert_eq!(json.lines().count(), 3);
    assert_eq!(bailiwick(&daemon, &["show", "ff"]).0, BAD_INPUT);
}

#[test]
fn listings_are_items() {
    let daemon = FakeDaemon::holding(some_entries());
    for (command, key) in [("agents", "agent"), ("sessions", "session")] {
        let (code, text) = bailiwick(&daemon, &[command, "--json"]);
        let json: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(code, GOOD);
        assert!(json["items"][0][key].is_string(), "{text}");
    }
    let (_, text) = bailiwick(&daemon, &["sessions"]);
    assert!(text.contains("alice via run") && text.contains("OUT OF SCOPE"), "{text}");
}

#[test]
fn explain_and_doctor_have_text_and_json() {
    let daemon = FakeDaemon::holding(some_entries());
    let (code, text) = bailiwick(&daemon, &["explain", "5f3a91c2-2"]);
    assert_eq!(code, GOOD);
    assert!(text.contains("tried for 5f3a91c2-2"), "{text}");
    let (_, json) = bailiwick(&daemon, &["explain", "5f3a91c2-2", "--json"]);
    let json: Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json["entry"]["uid"], "5f3a91c2-2");
    assert_eq!(bailiwick(&daemon, &["explain", "5f3a91c2-9"]).0, BAD_INPUT);
    let (_, json) = bailiwick(&daemon, &["doctor", "--json"]);
    let json: Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json["tier"], 2);
    assert_eq!(json["observations"][0]["hook"], "tp_btf/sys_exit");
}

#[test]
fn status_exits_with_0_when_healthy_and_says_when_it_is_not_ready_in_time() {
    let daemon = FakeDaemon::holding(Vec::new());
    assert_eq!(bailiwick(&daemon, &["status"]).0, GOOD);
    daemon.core.ready.send_replace(false);
    let (code, text) = bailiwick(&daemon, &["status", "--wait", "250ms"]);
    assert_eq!((code, text.as_str()), (NO, "the daemon is not ready after 250ms"));
    let core = std::sync::Arc::clone(&daemon.core);
    let later = std::thread::spawn(move || {
        sleep(Duration::from_millis(300));
        core.ready.send_replace(true);
    });
    assert_eq!(bailiwick(&daemon, &["status", "--wait", "20s"]).0, GOOD);
    later.join().unwrap();
}

#[test]
fn sync_and_reload_that_fail_exit_as_the_contract_says() {
    let daemon = FakeDaemon::holding(some_entries());
    assert_eq!(bailiwick(&daemon, &["sync", "--json"]), (GOOD, "{\"seq\":3}\n".to_owned()));
    let (code, text) = bailiwick(&daemon, &["sync", "--exported", "--wait", "100ms"]);
    assert_eq!(code, NO);
    assert!(text.contains("http://127.0.0.1:4318 (logs)"), "{text}");
    let (code, text) = bailiwick(&daemon, &["reload"]);
    assert_eq!(code, BAD_INPUT);
    assert!(text.contains("demo.toml:3:1"), "{text}");
}

#[test]
fn without_a_daemon_every_command_exits_with_69() {
    let daemon = FakeDaemon::holding(Vec::new());
    std::fs::remove_file(daemon.runtime_dir.path().join("control.sock")).unwrap();
    let commands: [&[&str]; 11] = [
        &["tail"],
        &["agents"],
        &["sessions"],
        &["show", "ab"],
        &["explain", "5f3a91c2-2"],
        &["sync"],
        &["doctor"],
        &["status"],
        &["status", "--wait", "150ms"],
        &["reload"],
        &["run", "--agent", "demo", "--", "/bin/false"],
    ];
    for words in commands {
        let (code, text) = bailiwick(&daemon, words);
        assert_eq!(code, NO_DAEMON, "{words:?}: {text}");
        assert!(text.contains("control.sock") && text.contains("bailiwick daemon"), "{text}");
    }
}

#[test]
fn a_reader_that_left_ends_a_command_quietly() {
    struct Left;
    impl std::io::Write for Left {
        fn write(&mut self, _: &[u8]) -> std::io::Result<usize> {
            Err(std::io::ErrorKind::BrokenPipe.into())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    let daemon = FakeDaemon::holding(some_entries());
    let runtime_dir = daemon.runtime_dir.path().to_str().unwrap();
    let words = ["bailiwick", "--runtime-dir", runtime_dir, "tail", "--since", "start"];
    let cli = Cli::try_parse_from(words).unwrap();
    assert!(matches!(cli.command, Command::Tail(_)));
    let error = execute(&cli, &mut Output::to(Left), Palette::PLAIN).unwrap_err();
    assert_eq!(error.exit_code(), GOOD);
}
