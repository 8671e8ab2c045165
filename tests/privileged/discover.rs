//! Discovery by the daemon: what nothing declares is found and told once, and nothing else is written about outsiders.

use std::ffi::OsStr;
use std::fs;
use std::process::Command;
use std::time::Duration;

use bailiwick_tests::bounded;
use bailiwick_tests::declaration::Declaration;
use bailiwick_tests::held::Held;
use bailiwick_tests::instance::{Instance, Setup};
use bailiwick_tests::requirement::Requirement::Tier2;
use bailiwick_tests::requirement::require;
use bailiwick_tests::workload::Place;
use serde_json::{Value, json};

/// A look is slow where the program was built to be debugged and the machine is busy.
const SOON: Duration = Duration::from_secs(60);
const EVERY_SECOND: &str = "[discovery]\ninterval_seconds = 1\n";

/// A catalogue of a runtime that is this test's own, so that no other test's agent is taken for it.
fn catalogue(name: &str, place: &Place) -> String {
    format!(
        "[[runtime]]\nname = {name:?}\nscripts = [\"{}/**\"]\nenvironment = [\"OWN_MARKER\"]\n",
        place.path().display()
    )
}

fn waits(place: &Place, name: &str) -> std::path::PathBuf {
    place.script(name, "#!/bin/sh\nread -r line\n")
}

fn found(instance: &Instance, of: u32) -> Vec<Value> {
    let about = |entry: &Value| entry["process"]["tgid"] == of;
    instance.synced_trail().event("finding.undeclared_agent").filter(about).0
}

#[test]
fn an_undeclared_agent_is_found_once_and_its_declaration_makes_it_known() {
    if !require(&[Tier2]) {
        return;
    }
    let place = Place::new();
    let script = waits(&place, "agent");
    let setup = Setup::new().file("bailiwick.toml", EVERY_SECOND);
    let instance = setup.file("catalogue.d/own.toml", &catalogue("own-agent", &place)).start();
    let agent = Held::start(&mut Command::new(&script)).unwrap();
    bounded::until("the finding", SOON, || !found(&instance, agent.tgid()).is_empty());

    let entry = found(&instance, agent.tgid()).pop().unwrap();
    assert_eq!(
        (&entry["session"], &entry["agent"], &entry["count"]),
        (&Value::Null, &Value::Null, &json!(0)),
        "{entry}"
    );
    let attributes = &entry["attributes"];
    assert_eq!(attributes["bailiwick.discovery.name"], "own-agent", "{entry}");
    assert!(attributes["bailiwick.discovery.evidence"][0].as_str().unwrap().contains("own-agent: scripts"), "{entry}");
    let of_process = |entry: &Value| entry["process"]["tgid"] == agent.tgid();
    let listed = instance.json("agents --json");
    let listed =
        listed["items"].as_array().unwrap().iter().find(|item| item["found"]["process"]["tgid"] == agent.tgid());
    assert_eq!(listed.unwrap()["declared"], false, "{listed:?}");
    let text = instance.call("agents").success().stdout;
    assert!(text.contains("own-agent") && text.contains("NOT DECLARED"), "{text}");

    std::thread::sleep(Duration::from_secs(3));
    assert_eq!(found(&instance, agent.tgid()).len(), 1, "several looks tell of it once");
    let all = instance.synced_trail().filter(of_process);
    assert_eq!(all.len(), 1, "nothing else is written about an outsider: {:#?}", all.0);

    let declaration = attributes["bailiwick.discovery.declaration"].as_str().unwrap();
    instance.write("agents.d/own-agent.toml", declaration);
    instance.call("reload").success();
    drop(agent);
    let again = Held::start(&mut Command::new(&script)).unwrap();
    let started = |trail: &bailiwick_tests::entries::Entries| {
        let of_it = |entry: &Value| entry["process"]["tgid"] == again.tgid();
        trail.event("session.start").agent("own-agent").filter(of_it).len() == 1
    };
    bounded::until("its session", SOON, || started(&instance.synced_trail()));
    std::thread::sleep(Duration::from_secs(3));
    assert_eq!(found(&instance, again.tgid()), [] as [Value; 0], "it is declared now");
}

#[test]
fn an_undeclared_agent_within_a_session_is_an_entry_of_that_session_and_a_declared_one_is_none() {
    if !require(&[Tier2]) {
        return;
    }
    let place = Place::new();
    for directory in ["inner", "outer"] {
        fs::create_dir(place.join(directory)).unwrap();
    }
    // What a shell starts in the background has no input to wait for.
    let inner = place.script("inner/agent", "#!/bin/sh\nsleep 600\n:\n");
    let outer = place.script("outer/agent", &format!("#!/bin/sh\n\"{}\" &\nread -r line\nkill $!\n", inner.display()));
    let catalogue = format!(
        "[[runtime]]\nname = \"outer\"\nscripts = [\"{0}/outer/*\"]\n[[runtime]]\nname = \"inner\"\nscripts = [\"{0}/inner/*\"]\n",
        place.path().display()
    );
    let setup = Setup::new().file("bailiwick.toml", EVERY_SECOND).file("catalogue.d/own.toml", &catalogue);
    let instance = setup.agent(&Declaration::new("helper").script(&outer)).start();
    let agent = Held::start(&mut Command::new(&outer)).unwrap();
    let all = || instance.synced_trail().event("finding.undeclared_agent").agent("helper");
    bounded::until("the finding", SOON, || !all().is_empty());

    let entry = all().only().clone();
    assert_eq!(entry["attributes"]["bailiwick.discovery.name"], "inner", "{entry}");
    assert_eq!(entry["attributes"]["bailiwick.discovery.inside"], "helper", "{entry}");
    let start = instance.synced_trail().event("session.start").agent("helper").only()["session"].clone();
    assert_eq!(entry["session"], start);
    assert_eq!(found(&instance, agent.tgid()), [] as [Value; 0]);
}

#[test]
fn a_forged_environment_changes_no_identity() {
    if !require(&[Tier2]) {
        return;
    }
    let place = Place::new();
    let script = place.script("agent", "#!/bin/sh\nread -r x < \"$1\"\nexit 0\n");
    let victim = Declaration::new("victim").with("[[recognise]]\nenvironment = [\"AI_AGENT=victim\"]");
    let setup = Setup::new().file("bailiwick.toml", EVERY_SECOND).agent(&victim);
    let instance = setup.agent(&Declaration::new("own").script(&script)).start();
    let file = place.script("file", "x\n");
    let trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let mut forged = Command::new(&script);
    forged.arg(&file).env("AI_AGENT", "victim").env("CLAUDECODE", "1").env("TRACEPARENT", trace);
    bounded::run(&mut forged, SOON).success();
    // Within a session, where a claim could move it, it is set by another program.
    let marked = [OsStr::new("env"), OsStr::new("AI_AGENT=victim"), script.as_os_str(), file.as_os_str()];
    bounded::run(&mut instance.run_command("own", &marked), SOON).success();

    let trail = instance.synced_trail();
    assert!(trail.agent("victim").is_empty(), "{:#?}", trail.agent("victim").0);
    let starts = trail.event("session.start").agent("own");
    assert_eq!(starts.len(), 2, "{:#?}", starts.0);
    let opened = |entry: &Value| entry["attributes"]["file.path"] == json!(file);
    assert_eq!(trail.event("file.open").agent("own").filter(opened).count(), 2);
}

#[test]
fn a_daemon_does_not_start_with_a_mistake_in_its_catalogue() {
    if !require(&[Tier2]) {
        return;
    }
    let instance =
        Setup::new().file("catalogue.d/own.toml", "[[runtime]]\nname = \"x\"\nscript = [\"/x\"]\n").prepare();
    let said = instance.refused();
    assert_eq!(said.code(), Some(2), "{}", said.stderr);
    assert!(
        said.stderr.contains("own.toml:3:1:") && said.stderr.contains("did you mean `scripts`?"),
        "{}",
        said.stderr
    );
}

#[test]
fn what_is_discovered_can_be_turned_off() {
    if !require(&[Tier2]) {
        return;
    }
    let place = Place::new();
    let script = waits(&place, "agent");
    let setup = Setup::new().file("bailiwick.toml", "[discovery]\nenabled = false\ninterval_seconds = 1\n");
    let instance = setup.file("catalogue.d/own.toml", &catalogue("own-agent", &place)).start();
    let agent = Held::start(&mut Command::new(&script)).unwrap();
    std::thread::sleep(Duration::from_secs(4));
    assert_eq!(found(&instance, agent.tgid()), [] as [Value; 0]);
    let seen = bounded::run(&mut instance.command(&["discover", "--json"]), SOON).success().json();
    let items = seen["items"].as_array().unwrap();
    assert!(items.iter().any(|item| item["process"]["tgid"] == agent.tgid()), "asked for, it is found: {seen}");
}
