//! What the sensor says of itself, and what the kernel says of it.

use std::collections::BTreeSet;

use bailiwick_tests::declaration::Declaration;
use bailiwick_tests::instance::Instance;
use bailiwick_tests::kernel_side::{Program, programs_of};
use bailiwick_tests::requirement::Requirement::Tier2;
use bailiwick_tests::requirement::require;

/// What is observed on any kernel that the tests run on: the contract's list, but for names of hosts.
const OBSERVED: [&str; 43] = [
    "process.fork",
    "process.exec",
    "process.exit",
    "file.open",
    "file.create",
    "file.unlink",
    "file.rename",
    "file.link",
    "file.symlink",
    "file.mkdir",
    "file.rmdir",
    "file.truncate",
    "file.chmod",
    "file.chown",
    "file.xattr",
    "file.mount",
    "file.map_exec",
    "file.map_write",
    "file.io",
    "network.connect",
    "network.send",
    "network.bind",
    "network.listen",
    "network.accept",
    "network.close",
    "network.raw",
    "network.netlink",
    "unix.connect",
    "fd.receive",
    "privilege.ptrace",
    "privilege.signal",
    "privilege.setid",
    "privilege.capset",
    "privilege.namespace",
    "privilege.bpf",
    "privilege.module",
    "privilege.kexec",
    "privilege.keyctl",
    "privilege.memfd",
    "privilege.perf",
    "io_uring.setup",
    "io_uring.submit",
    "syscall.count",
];

/// The page of events.
const PAGE: &str = include_str!("../../docs/events.md");

#[test]
fn doctor_names_the_hook_and_the_blind_spots_of_each_observation() {
    if !require(&[Tier2]) {
        return;
    }
    let instance = Instance::start(&[]);
    let doctor = instance.json("doctor --json");
    assert_eq!(doctor["tier"], 2, "{doctor}");
    let observations = doctor["observations"].as_array().unwrap();
    let named: Vec<&str> = observations.iter().filter_map(|observation| observation["event"].as_str()).collect();
    let documented: Vec<&str> =
        PAGE.lines().filter_map(|line| line.strip_prefix("## ")).filter(|name| name.contains('.')).collect();
    assert_eq!(documented, named, "docs/events.md and doctor");
    assert_eq!(named.len(), OBSERVED.len(), "{named:?}");
    for event in OBSERVED {
        let found = observations.iter().find(|observation| observation["event"] == event);
        let observation = found.unwrap_or_else(|| panic!("{event} is missing: {doctor}"));
        let hook = observation["hook"].as_str().unwrap_or_default();
        assert!(hook.contains("tp_btf"), "{event}: {observation}");
        assert_eq!(observation["working"], true, "{event}: {observation}");
        assert!(observation["guarantee"].as_str().is_some_and(|text| !text.is_empty()), "{event}: {observation}");
        assert!(observation["blind_spots"].is_array(), "{event}: {observation}");
    }
    let text = instance.call("doctor").success().stdout;
    assert!(OBSERVED.iter().all(|event| text.contains(event)), "{text}");
}

/// The hooks that a text names.
fn hooks_in(text: &str) -> BTreeSet<&str> {
    let ends = |c: char| !(c.is_ascii_alphanumeric() || c == '_');
    text.split("tp_btf/").skip(1).filter_map(|after| after.split(ends).next()).collect()
}

/// The events of the page, each with the line that names its hooks.
fn documented() -> Vec<(&'static str, &'static str)> {
    let events = PAGE.split("\n## ").skip(1).filter_map(|section| {
        let event = section.lines().next()?;
        Some((event, section.lines().find_map(|line| line.strip_prefix("- Hook: "))?))
    });
    events.collect()
}

fn attached(programs: &[Program]) -> BTreeSet<&str> {
    let attached = programs.iter().filter(|program| program.is_attached);
    attached.map(|program| program.tracepoint.as_deref().expect("an iterator stays attached")).collect()
}

#[test]
fn the_page_of_events_doctor_and_what_the_kernel_has_attached_name_the_same_hooks() {
    if !require(&[Tier2]) {
        return;
    }
    let instance = Instance::start(&[Declaration::new("idle")]);
    let doctor = instance.json("doctor --json");
    let observations = doctor["observations"].as_array().unwrap();
    let documented = documented();
    assert_eq!(documented.len(), OBSERVED.len(), "{documented:?}");
    let mut named = BTreeSet::new();
    for (event, line) in &documented {
        let observation = observations.iter().find(|observation| observation["event"] == *event).unwrap();
        let hooks = hooks_in(line);
        assert!(!hooks.is_empty(), "{event}: {line}");
        assert_eq!(hooks, hooks_in(observation["hook"].as_str().unwrap()), "{event}: {observation}");
        named.extend(hooks);
    }

    let daemon = instance.daemon_pid();
    let recognition = documented.iter().filter(|(event, _)| event.starts_with("process."));
    let recognition: BTreeSet<_> =
        recognition.flat_map(|(_, line)| hooks_in(line)).filter(|hook| *hook != "sys_exit").collect();
    assert_eq!(attached(&programs_of(daemon)), recognition, "while no session lives");
    let sleeper = instance.spawn("idle", &["sleep", "600"]);
    instance.sync();
    let programs = programs_of(daemon);
    assert_eq!(attached(&programs), named, "while a session lives");
    drop(sleeper);

    // Each is attached once, and what is loaded and not attached is handed over to by one that is, or is an iterator.
    for hook in &named {
        let on = programs.iter().filter(|program| program.is_attached && program.tracepoint.as_deref() == Some(*hook));
        assert_eq!(on.count(), 1, "{hook}: {programs:#?}");
    }
    let idle = programs.iter().filter(|program| !program.is_attached);
    for program in idle {
        let is_handler = program.name.starts_with("handle_") && program.tracepoint.as_deref() == Some("sys_exit");
        assert!(is_handler || program.tracepoint.is_none(), "{program:?}");
    }
}

#[test]
fn a_start_costs_the_verifier_no_more_than_what_is_written_down() {
    const AT_MOST: u64 = 400_000;
    if !require(&[Tier2]) {
        return;
    }
    let instance = Instance::start(&[]);
    let programs = programs_of(instance.daemon_pid());
    let verified: u64 = programs.iter().map(|program| program.verified).sum();
    assert!(programs.len() > 20 && verified > 0, "{programs:#?}");
    assert!(verified <= AT_MOST, "{verified} instructions: {programs:#?}");
}

#[test]
fn the_trail_begins_with_what_the_sensor_can_see_and_ends_with_its_stop() {
    if !require(&[Tier2]) {
        return;
    }
    let mut instance = Instance::start(&[Declaration::new("idle")]);
    let start = instance.synced_trail().event("sensor.start").only()["attributes"].clone();
    assert!(start["bailiwick.sensor.hooks"].as_array().is_some_and(|hooks| !hooks.is_empty()), "{start}");
    assert!(start["bailiwick.sensor.blind_spots"].is_array(), "{start}");
    assert_eq!(instance.stop(), Some(0));
    instance.start_daemon();
    let trail = instance.synced_trail();
    assert_eq!((trail.event("sensor.start").len(), trail.event("sensor.stop").len()), (2, 1));
    let sequence: Vec<_> = trail.0.iter().map(|entry| entry["seq"].as_u64().unwrap()).collect();
    assert!(sequence.is_sorted_by(|one, next| one + 1 == *next), "{sequence:?}");
}

#[test]
fn status_is_healthy_and_says_how_much_is_in_the_trail() {
    if !require(&[Tier2]) {
        return;
    }
    let instance = Instance::start(&[]);
    let status = instance.json("status --json");
    assert_eq!((&status["healthy"], &status["lost"]), (&true.into(), &0.into()), "{status}");
    assert!(status["reasons"].as_array().unwrap().is_empty(), "{status}");
    assert!(status["blind_spots"].is_array() && status["export"].as_array().unwrap().is_empty(), "{status}");
    assert_eq!(status["trail"]["entries"], instance.trail().len() as u64);
}

#[test]
fn without_a_daemon_every_question_exits_69() {
    if !require(&[Tier2]) {
        return;
    }
    let instance = bailiwick_tests::instance::Setup::new().prepare();
    for question in ["status", "sync", "doctor", "agents", "sessions", "tail --since start --no-follow"] {
        let said = instance.call(question);
        assert_eq!(said.code(), Some(69), "{question}: {}", said.stderr);
        assert!(said.stderr.contains("bailiwick daemon"), "{question}: the remedy is missing: {}", said.stderr);
    }
}
