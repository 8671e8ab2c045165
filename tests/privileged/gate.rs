//! The first instructions of an agent that starts while the hooks are detached, and what is said where they were missed.

use std::path::Path;
use std::time::Duration;

use bailiwick_tests::bounded::{self, Running};
use bailiwick_tests::declaration::Declaration;
use bailiwick_tests::entries::Entries;
use bailiwick_tests::instance::{Instance, Setup};
use bailiwick_tests::requirement::Requirement::Tier2;
use bailiwick_tests::requirement::require;
use bailiwick_tests::workload::{self, DEADLINE, Place, SOON};
use rustix::process::Signal;
use serde_json::{Value, json};

/// How often an agent is started from the detached state.
const TIMES: usize = 50;
/// Whatever happens to the daemon, an exec takes no longer.
const EXEC_WITHIN: Duration = Duration::from_secs(1);
/// The hooks go as soon as the last session ends.
const NO_LINGER: &str = "[sensor]\nlinger_seconds = 0\n";

/// How many BPF links the daemon holds: fewer while the system-call hooks are detached.
fn links(instance: &Instance) -> usize {
    let fds = format!("/proc/{}/fdinfo", instance.daemon_pid().as_raw_nonzero());
    let infos = std::fs::read_dir(fds).unwrap().flatten();
    infos.filter(|info| std::fs::read_to_string(info.path()).is_ok_and(|text| text.contains("link_type"))).count()
}

/// An instance whose hooks are detached, and the number of links that tells so.
fn detached(agents: &[Declaration]) -> (Instance, usize) {
    let instance = agents.iter().fold(Setup::new().file("bailiwick.toml", NO_LINGER), Setup::agent).start();
    let idle = links(&instance);
    (instance, idle)
}

fn wait_detached(instance: &Instance, idle: usize) {
    bounded::until("the hooks are detached", SOON, || links(instance) <= idle);
}

fn opened(trail: &Entries, path: &Path) -> usize {
    trail.opens().keys().filter(|open| Path::new(&open.path) == path).count()
}

/// Of the trail: gaps with an interval, and nobody counted what was lost.
fn uncounted(trail: &Entries) -> Entries {
    trail.event("gap").filter(|gap| gap["gap"]["lost"].is_null())
}

/// Starts the agent often, each time from the detached state; `opens` stands for what each run opens first.
fn nothing_missing(declaration: Declaration, program: &Path, file: &Path) {
    let waiter = Declaration::new("waiter");
    let (instance, idle) = detached(&[declaration, waiter]);
    // That the number of links tells: while a session lives there are more.
    let go = instance.place().join("go");
    let waits = instance.place().script("waits", "#!/bin/sh\nuntil [ -e \"$1\" ]; do sleep 0.01; done\n");
    let waiter = instance.spawn("waiter", &[&waits, &go]);
    bounded::until("the hooks are attached", SOON, || links(&instance) > idle);
    std::fs::write(&go, []).unwrap();
    waiter.finish(DEADLINE).success();

    for _ in 0..TIMES {
        wait_detached(&instance, idle);
        let said = workload::run(program, &[file]).success();
        assert!(said.took < EXEC_WITHIN, "the exec took {:?}", said.took);
        instance.sync();
    }
    let trail = instance.synced_trail().filter(|entry| entry["agent"] != "waiter");
    let sessions = trail.sessions();
    assert_eq!(sessions.len(), TIMES);
    let seen = sessions.iter().filter(|session| opened(&trail.session(session), file) == 1).count();
    assert_eq!(seen, TIMES, "opens in the first instructions were missed");
    assert!(trail.event("gap").is_empty(), "{:#?}", trail.event("gap").0);
}

#[test]
fn with_the_hooks_detached_the_first_open_of_an_executable_is_seen_every_time() {
    if !require(&[Tier2]) {
        return;
    }
    let place = Place::new();
    let (agent, file) = (place.copy_of("first-open", "agent"), place.join("file"));
    std::fs::write(&file, []).unwrap();
    nothing_missing(Declaration::new("first").executable(&agent), &agent, &file);
}

#[test]
fn with_the_hooks_detached_the_first_open_of_a_script_is_seen_every_time() {
    if !require(&[Tier2]) {
        return;
    }
    let place = Place::new();
    let (interpreter, file) = (place.copy_of("first-open", "interpreter"), place.join("file"));
    std::fs::write(&file, []).unwrap();
    // The interpreter opens its argument, the file, in its first instructions, and never the script.
    let script = place.script("script", &format!("#!{} {}\n", interpreter.display(), file.display()));
    nothing_missing(Declaration::new("script").script(&script), &script, &file);
}

#[test]
fn while_the_daemon_is_stopped_the_exec_goes_on_and_a_gap_says_so() {
    if !require(&[Tier2]) {
        return;
    }
    let place = Place::new();
    let (agent, file) = (place.copy_of("first-open", "agent"), place.join("file"));
    std::fs::write(&file, []).unwrap();
    let (instance, idle) = detached(&[Declaration::new("stopped").executable(&agent)]);
    wait_detached(&instance, idle);
    instance.signal(Signal::STOP);
    let before = now();
    let said = workload::run(&agent, &[&file]).success();
    let after = now();
    instance.signal(Signal::CONT);
    assert!(said.took < EXEC_WITHIN, "the exec took {:?}", said.took);
    covers(&uncounted(&instance.synced_trail()), &before, &after);
}

#[test]
fn when_the_daemon_is_killed_the_exec_goes_on_and_the_next_daemon_says_what_was_missed() {
    if !require(&[Tier2]) {
        return;
    }
    let place = Place::new();
    let (agent, file) = (place.copy_of("first-open", "agent"), place.join("file"));
    std::fs::write(&file, []).unwrap();
    let (mut instance, idle) = detached(&[Declaration::new("killed").executable(&agent)]);
    wait_detached(&instance, idle);
    // Stopped first, so that the exec is under way when the daemon dies.
    instance.signal(Signal::STOP);
    let before = now();
    let running = Running::start(std::process::Command::new(&agent).arg(&file));
    instance.crash();
    let said = running.finish(DEADLINE).success();
    let after = now();
    assert!(said.took < EXEC_WITHIN, "the exec took {:?}", said.took);
    instance.start_daemon();
    covers(&uncounted(&instance.synced_trail()), &before, &after);
}

#[test]
fn an_agent_recognised_by_argv_alone_has_a_gap_from_exec_to_attachment() {
    if !require(&[Tier2]) {
        return;
    }
    let declaration = Declaration::new("argv").with("[[recognise]]\nargv = [\"--bailiwick-test-agent\"]");
    let (instance, idle) = detached(&[declaration]);
    let place = instance.place();
    let (early, late) = (place.join("early"), place.join("late"));
    std::fs::write(&early, "x\n").unwrap();
    std::fs::write(&late, "x\n").unwrap();
    wait_detached(&instance, idle);
    // It holds the early file open, and opens the late one when the hooks have long been attached.
    let text = "exec 3< \"$1\"\nuntil [ -e \"$2.go\" ]; do sleep 0.01; done\nread -r x < \"$2\"\nexit 0\n";
    let script = place.script("agent", text);
    let mut command = std::process::Command::new("/bin/sh");
    let running = Running::start(command.arg(&script).args([&early, &late]).arg("--bailiwick-test-agent"));
    bounded::until("the hooks are attached", SOON, || links(&instance) > idle);
    instance.sync();
    std::fs::write(place.join("late.go"), []).unwrap();
    running.finish(DEADLINE).success();

    let trail = instance.synced_trail();
    let start = trail.event("session.start").only().clone();
    assert_eq!(start["attribution"], json!({"method": "argv", "confidence": "claimed"}));
    let gap = uncounted(&trail).only().clone();
    assert_eq!(gap["gap"]["session"], start["session"]);
    let exec = trail.event("process.exec").0.first().cloned().unwrap_or_default();
    let from = gap["gap"]["from"].as_str().unwrap();
    assert!(from <= exec["time"].as_str().unwrap(), "the gap begins with the exec: {gap} {exec}");
    assert!(from < gap["gap"]["to"].as_str().unwrap());
    assert_eq!(opened(&trail, &late), 1);
    let found = trail.filter(|entry| entry["attributes"]["bailiwick.file.found_open"] == true);
    let found: Vec<&Value> = found.0.iter().filter(|entry| entry["attributes"]["file.path"] == json!(early)).collect();
    // On a busy machine the hooks may be attached before the shell has come to open it: then it is an open like any other.
    assert!(found.len() == 1 || opened(&trail, &early) == 1, "what was open already is told");
    assert!(found.iter().all(|entry| entry["count"] == 0));
}

#[test]
fn the_gate_can_be_turned_off_and_then_the_gap_says_so() {
    if !require(&[Tier2]) {
        return;
    }
    let place = Place::new();
    let (agent, file) = (place.copy_of("first-open", "agent"), place.join("file"));
    std::fs::write(&file, []).unwrap();
    let setup = Setup::new().file("bailiwick.toml", &format!("{NO_LINGER}gate = false\n"));
    let instance = setup.agent(&Declaration::new("ungated").executable(&agent)).start();
    workload::run(&agent, &[&file]).success();
    let trail = instance.synced_trail();
    let start = trail.event("session.start").only().clone();
    let gaps = uncounted(&trail).session(start["session"].as_str().unwrap());
    assert!(!gaps.is_empty() || opened(&trail, &file) == 1, "the open is neither there nor in a gap");
}

/// The wall clock as the contract writes times.
fn now() -> String {
    let said = bounded::run(std::process::Command::new("date").args(["-u", "+%Y-%m-%dT%H:%M:%S.%NZ"]), DEADLINE);
    said.success().stdout.trim().to_owned()
}

/// Times of one form and one zone compare as text.
#[track_caller]
fn covers(gaps: &Entries, before: &str, after: &str) {
    let time = |gap: &Value, name: &str| gap["gap"][name].as_str().unwrap().to_owned();
    let overlaps = |gap: &Value| time(gap, "from").as_str() <= after && time(gap, "to").as_str() >= before;
    assert!(gaps.0.iter().any(overlaps), "no gap overlaps {before} to {after}: {:#?}", gaps.0);
}
