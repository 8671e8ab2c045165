//! fork, exec, exit.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::process::CommandExt;

use bailiwick_tests::bounded;
use bailiwick_tests::declaration::Declaration;
use bailiwick_tests::entries::Entries;
use bailiwick_tests::instance::{Instance, Setup};
use bailiwick_tests::requirement::Requirement::Tier2;
use bailiwick_tests::requirement::require;
use bailiwick_tests::workload::{self, DEADLINE};
use serde_json::{Value, json};

/// How many processes an agent makes as fast as they go.
const STORM: &str = "2000";

fn number(value: &Value) -> u64 {
    value.as_u64().unwrap_or_else(|| panic!("no number: {value}"))
}

/// How many entries of an event each process has.
fn per_process(entries: &Entries, event: &str) -> BTreeMap<u64, u64> {
    let mut counts = BTreeMap::new();
    for entry in &entries.event(event).0 {
        *counts.entry(number(&entry["process"]["tgid"])).or_default() += number(&entry["count"]);
    }
    counts
}

#[test]
fn every_process_of_a_storm_is_in_the_session_and_no_other() {
    if !require(&[Tier2]) {
        return;
    }
    let instance = Instance::start(&[Declaration::new("storm")]);
    let storm = instance.place().copy_of("storm", "agent-storm");
    // Beside it, what does the same outside any session.
    let outsider = bounded::Running::start(std::process::Command::new(workload::target_dir().join("storm")).arg("500"));
    let said = instance.run("storm", &[storm.as_os_str(), STORM.as_ref()]).success().json();
    outsider.finish(DEADLINE).success();

    let trail = instance.synced_trail();
    let [session] = &trail.sessions()[..] else { panic!("not one session: {:?}", trail.sessions()) };
    let entries = trail.session(session);
    let root = number(&said["root"]);
    let made = said["made"].as_array().unwrap();

    let tgids = made.iter().map(|made| number(&made["tgid"]));
    let expected: BTreeSet<u64> = tgids.chain([root]).collect();
    assert_eq!(entries.processes(), expected);

    let forks: BTreeSet<_> = made.iter().map(|made| (number(&made["parent"]), number(&made["tgid"]))).collect();
    let fork =
        |entry: &Value| (number(&entry["process"]["tgid"]), number(&entry["attributes"]["bailiwick.child.tgid"]));
    assert_eq!(entries.event("process.fork").0.iter().map(fork).collect::<BTreeSet<_>>(), forks);
    assert_eq!(entries.event("process.fork").count(), forks.len() as u64, "each fork once");

    let execs = made.iter().map(|made| (number(&made["tgid"]), number(&made["execs"]))).chain([(root, 1)]);
    let execs: BTreeMap<_, _> = execs.filter(|(_, execs)| *execs > 0).collect();
    assert_eq!(per_process(&entries, "process.exec"), execs);
    assert_eq!(per_process(&entries, "process.exit"), expected.iter().map(|tgid| (*tgid, 1)).collect());
    for exit in &entries.event("process.exit").0 {
        assert_eq!(exit["attributes"]["process.exit.code"], 0, "{exit}");
    }

    assert!(trail.event("gap").is_empty(), "{:#?}", trail.event("gap").0);
    let of_others = trail.filter(|entry| !entry["process"].is_null() && entry["session"] != session.as_str());
    assert!(of_others.is_empty(), "{:#?}", of_others.0);
    let end = entries.event("session.end").only()["attributes"].clone();
    assert_eq!(number(&end["bailiwick.session.processes"]), expected.len() as u64);
}

#[test]
fn an_exec_tells_image_arguments_directory_parent_and_user() {
    if !require(&[Tier2]) {
        return;
    }
    let instance = Instance::start(&[Declaration::new("tool")]);
    let place = instance.place();
    std::fs::create_dir(place.join("dir")).unwrap();
    std::fs::copy("/bin/true", place.join("dir/tool")).unwrap();
    let script = place.script("start", "#!/bin/sh\ncd \"$1\"\n./tool 'two words' '' \"$(printf 'a\\377b')\"\nexit 0\n");
    let mut command = instance.run_command("tool", &[script.as_os_str(), place.join("dir").as_os_str()]);
    command.env("AI_AGENT", "a claim").env("SECRET_TOKEN", "hunter2");
    bounded::run(&mut command, DEADLINE).success();

    let trail = instance.synced_trail();
    let tool = place.join("dir/tool");
    let exec = trail.event("process.exec").filter(|entry| entry["process"]["executable"] == json!(tool));
    let exec = exec.only();
    let attributes = &exec["attributes"];
    assert_eq!(attributes["process.executable.path"], json!(tool));
    assert_eq!(attributes["bailiwick.exec.given"], "./tool");
    assert_eq!(attributes["process.command_args"], json!(["./tool", "two words", "", "a\\xFFb"]));
    assert!(exec["escaped"].as_array().is_some_and(|names| names.contains(&json!("process.command_args"))), "{exec}");
    assert_eq!(attributes["process.working_directory"], json!(place.join("dir")));
    assert_eq!((&attributes["process.user.id"], &attributes["process.real_user.id"]), (&json!(0), &json!(0)));
    assert_eq!(attributes["process.environment_variable.AI_AGENT"], "a claim");
    assert!(!exec.to_string().contains("hunter2"), "an environment key that is not allow-listed was recorded");
    let root = trail.event("session.start").only()["process"]["tgid"].clone();
    assert_eq!(attributes["process.parent_pid"], root);
}

#[test]
fn a_script_is_named_beside_its_interpreter() {
    if !require(&[Tier2]) {
        return;
    }
    let instance = Instance::start(&[Declaration::new("script")]);
    let interpreter = instance.place().join("interpreter");
    std::fs::copy(std::fs::canonicalize("/bin/sh").unwrap(), &interpreter).unwrap();
    let script = instance.place().script("script", &format!("#!{} -e\nexit 0\n", interpreter.display()));
    instance.run("script", &[&script]).success();

    let trail = instance.synced_trail();
    let exec = trail.event("process.exec").filter(|entry| entry["process"]["executable"] == json!(interpreter));
    let attributes = &exec.only()["attributes"];
    assert_eq!(attributes["bailiwick.exec.script"], json!(script));
    assert_eq!(attributes["process.command_args"], json!([interpreter, "-e", script]));
}

#[test]
fn a_failed_exec_is_recorded_with_its_reason() {
    if !require(&[Tier2]) {
        return;
    }
    let instance = Instance::start(&[Declaration::new("fails")]);
    let place = instance.place();
    let (missing, plain) = (place.join("missing"), place.join("plain"));
    std::fs::write(&plain, "no program").unwrap();
    let script = place.script("start", "#!/bin/sh\n\"$1\"\n\"$2\"\nexit 0\n");
    instance.run("fails", &[script.as_path(), &missing, &plain]).success();

    let trail = instance.synced_trail();
    for (path, errno) in [(missing, "ENOENT"), (plain, "EACCES")] {
        let exec =
            trail.event("process.exec").filter(|entry| entry["attributes"]["bailiwick.exec.given"] == json!(path));
        assert_eq!(exec.only()["attributes"]["error.type"], errno);
    }
}

#[test]
fn run_exits_as_its_command_does_and_the_trail_says_the_same() {
    if !require(&[Tier2]) {
        return;
    }
    let instance = Instance::start(&[Declaration::new("exits")]);
    let exits = instance.place().script("exits", "#!/bin/sh\nexit 7\n");
    let killed = instance.place().script("killed", "#!/bin/sh\nkill -9 $$\n");
    assert_eq!(instance.run("exits", &[exits]).code(), Some(7));
    assert_eq!(instance.run("exits", &[killed]).code(), Some(128 + 9));

    let exits = instance.synced_trail().event("process.exit");
    let endings: Vec<_> = exits.0.iter().map(|exit| &exit["attributes"]).collect();
    assert_eq!(endings.len(), 2);
    assert_eq!(endings[0]["process.exit.code"], 7);
    assert_eq!(endings[1]["bailiwick.exit.signal"], 9);
}

#[test]
fn run_keeps_the_callers_user_groups_environment_directory_and_input() {
    if !require(&[Tier2]) {
        return;
    }
    let instance = Instance::start(&[Declaration::new("keeps")]);
    let text = "#!/bin/sh\necho \"$(id -u):$(id -g):$(id -G):$MARK:$(pwd)\"\n";
    let script = instance.place().script("keeps", text);
    // The group may use the socket only where it exists, so the user is root and the groups differ.
    let mut command = instance.run_command("keeps", &[script]);
    command.env("MARK", "kept").current_dir(instance.place().path()).gid(12345);
    let said = bounded::run(&mut command, DEADLINE).success();
    let expected = format!("0:12345:12345:kept:{}", instance.place().path().display());
    assert_eq!(said.stdout.trim(), expected);
}

#[test]
fn run_without_a_daemon_runs_nothing_and_exits_69() {
    if !require(&[Tier2]) {
        return;
    }
    let instance = Setup::new().agent(&Declaration::new("orphan")).prepare();
    let mark = instance.place().join("mark");
    let script = instance.place().script("touch", "#!/bin/sh\n: > \"$1\"\n");
    let said = instance.run("orphan", &[&script, &mark]);
    assert_eq!(said.code(), Some(69), "{}", said.stderr);
    assert!(!mark.exists(), "the command was run");
}
