//! Whose action it is: recognition, inheritance, delegation, outsiders, several instances.

use std::net::TcpListener;
use std::path::Path;
use std::process::Command;

use bailiwick_tests::bounded::{self, Running};
use bailiwick_tests::declaration::Declaration;
use bailiwick_tests::entries::Entries;
use bailiwick_tests::instance::{Instance, Setup};
use bailiwick_tests::requirement::Requirement::Tier2;
use bailiwick_tests::requirement::require;
use bailiwick_tests::workload::{self, DEADLINE, SOON};
use serde_json::{Value, json};

/// An agent that lives until it is told: opens its argument's file, then waits for the file `ARGUMENT.go`.
const WAITS: &str = "#!/bin/sh\nread -r x < \"$1\"\nuntil [ -e \"$1.go\" ]; do sleep 0.01; done\nexit 0\n";

fn attribution(entry: &Value) -> (&str, &str) {
    let text = |name: &str| entry["attribution"][name].as_str().unwrap_or("none");
    (text("method"), text("confidence"))
}

fn opened(trail: &Entries, path: &Path) -> Entries {
    trail.event("file.open").filter(|entry| entry["attributes"]["file.path"] == json!(path))
}

#[test]
fn a_process_outside_any_session_leaves_no_entry_while_a_session_lives() {
    if !require(&[Tier2]) {
        return;
    }
    let instance = Instance::start(&[Declaration::new("waits")]);
    let place = instance.place();
    let file = place.join("file");
    std::fs::write(&file, "x\n").unwrap();
    let mut agent = instance.spawn("waits", &[place.script("waits", WAITS), file.clone()]);
    bounded::until("the session", SOON, || !opened(&instance.synced_trail(), &file).is_empty());

    let (opener, connector) =
        (place.copy_of("opener", "outside-opener"), place.copy_of("connector", "outside-connector"));
    let dir = place.files("files", 50);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let mut tgids = Vec::new();
    for _ in 0..5 {
        let arguments = ["repeats".as_ref(), dir.as_os_str(), "50".as_ref(), "20".as_ref(), "2".as_ref(), "r".as_ref()];
        let said = workload::run(&opener, &arguments).success().json();
        tgids.push(said["processes"][0]["tgid"].as_u64().unwrap());
        let said = workload::run(&connector, &["tcp", &address, "udp", &address]).success().json();
        tgids.push(said["tgid"].as_u64().unwrap());
    }
    assert!(!agent.ended(), "the session was to live all the while");
    std::fs::write(place.join("file.go"), []).unwrap();
    agent.finish(DEADLINE).success();

    let trail = instance.synced_trail();
    for tgid in tgids {
        assert!(!trail.processes().contains(&tgid), "{:#?}", trail.process(tgid).0);
    }
    let text = serde_json::to_string(&trail.0).unwrap();
    assert!(!text.contains("outside-") && !text.contains(&dir.display().to_string()));
}

/// An agent that opens its argument's file and then does nothing at all until somebody writes to the FIFO `ARGUMENT.go`.
const SLEEPS: &str = "#!/bin/sh\nread -r x < \"$1\"\nread -r x < \"$1.go\"\nexit 0\n";

#[test]
fn an_outsider_makes_the_sensor_emit_nothing_before_during_and_after_a_session() {
    if !require(&[Tier2]) {
        return;
    }
    let instance = Instance::start(&[Declaration::new("sleeps")]);
    let place = instance.place();
    let (file, go) = (place.join("file"), place.join("file.go"));
    std::fs::write(&file, "x\n").unwrap();
    let fifo = rustix::fs::FileType::Fifo;
    rustix::fs::mknodat(rustix::fs::CWD, &go, fifo, rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR, 0).unwrap();
    let (opener, connector) =
        (place.copy_of("opener", "outside-opener"), place.copy_of("connector", "outside-connector"));
    let dir = place.files("files", 50);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let records = || {
        instance.sync();
        instance.json("status --json")["records"].as_u64().unwrap()
    };
    let mut tgids = Vec::new();
    let mut outsiders = |when: &str| {
        let before = records();
        let arguments = ["repeats".as_ref(), dir.as_os_str(), "50".as_ref(), "20".as_ref(), "2".as_ref(), "r".as_ref()];
        let said = workload::run(&opener, &arguments).success().json();
        tgids.push(said["processes"][0]["tgid"].as_u64().unwrap());
        let said = workload::run(&connector, &["tcp", &address, "udp", &address]).success().json();
        tgids.push(said["tgid"].as_u64().unwrap());
        assert_eq!(records(), before, "{when}: an outsider's actions were handed over");
        before
    };

    let at_first = outsiders("before any session");
    let mut agent = instance.spawn("sleeps", &[place.script("sleeps", SLEEPS), file.clone()]);
    bounded::until("the session", SOON, || !opened(&instance.synced_trail(), &file).is_empty());
    let alive = outsiders("while a session lives");
    assert!(alive > at_first, "the counter counts: {at_first}, {alive}");
    assert!(!agent.ended(), "the session was to live all the while");
    std::fs::write(&go, "x\n").unwrap();
    agent.finish(DEADLINE).success();
    bounded::until("its end", SOON, || !instance.synced_trail().event("session.end").is_empty());
    outsiders("just after the last session ended");

    let trail = instance.synced_trail();
    for tgid in tgids {
        assert!(!trail.processes().contains(&tgid), "{:#?}", trail.process(tgid).0);
    }
    let text = serde_json::to_string(&trail.0).unwrap();
    assert!(!text.contains("outside-") && !text.contains(&dir.display().to_string()));
    let end = trail.event("session.end").only()["process"].clone();
    assert!(end["executable"].as_str().is_some_and(|path| path.contains("sh")), "the last image is known: {end}");
}

#[test]
fn an_agent_is_recognised_by_its_executable_and_judged_by_its_scope() {
    if !require(&[Tier2]) {
        return;
    }
    let place = workload::Place::new();
    let (agent, granted, other) = (place.copy_of("first-open", "agent"), place.join("granted"), place.join("other"));
    std::fs::write(&granted, []).unwrap();
    std::fs::write(&other, []).unwrap();
    let scope = format!("[scope.files]\nread = [{granted:?}]");
    let instance = Instance::start(&[Declaration::new("by-executable").executable(&agent).with(&scope)]);
    workload::run(&agent, &[&granted]).success();
    workload::run(&agent, &[&other]).success();

    let trail = instance.synced_trail();
    assert_eq!(trail.sessions().len(), 2);
    let (granted, other) = (opened(&trail, &granted).only().clone(), opened(&trail, &other).only().clone());
    assert_eq!(granted["agent"], "by-executable");
    assert_eq!(attribution(&granted), ("executable", "certain"));
    assert_eq!(granted["verdict"], "in_scope");
    assert_eq!(other["verdict"], "out_of_scope");
    let explained = instance.call(&format!("explain {}", other["uid"].as_str().unwrap())).success();
    assert!(explained.stdout.contains("read"), "{}", explained.stdout);
}

#[test]
fn a_selector_gives_the_confidence_that_it_deserves() {
    if !require(&[Tier2]) {
        return;
    }
    let place = workload::Place::new();
    let file = place.join("file");
    std::fs::write(&file, "x\n").unwrap();
    let own = place.script("own-script", "#!/bin/sh\nread -r x < \"$1\"\nexit 0\n");
    let named = place.script("named-script", "read -r x < \"$1\"\nexit 0\n");
    let claims = place.script("claims", "read -r x < \"$1\"\nexit 0\n");
    // Armed: what is looked at here is who is recognised, not what is missed meanwhile.
    let setup = Setup::new().file("bailiwick.toml", "[sensor]\nidle = \"armed\"\nenvironment = [\"TEST_MARKER\"]\n");
    let instance = setup
        .agent(&Declaration::new("own").script(&own))
        .agent(&Declaration::new("named").script(&named))
        .agent(&Declaration::new("argv").with("[[recognise]]\nargv = [\"--bailiwick-test-claim\"]"))
        .agent(&Declaration::new("marked").with("[[recognise]]\nenvironment = [\"TEST_MARKER=here\"]"))
        .start();
    workload::run(&own, &[&file]).success();
    workload::run(Path::new("/bin/sh"), &[&named, &file]).success();
    let claim = [claims.as_os_str(), file.as_os_str(), "--bailiwick-test-claim".as_ref()];
    workload::run(Path::new("/bin/sh"), &claim).success();
    let mut marked = Command::new("/bin/sh");
    bounded::run(marked.arg(&claims).arg(&file).env("TEST_MARKER", "here"), DEADLINE).success();

    let trail = instance.synced_trail();
    for (agent, expected) in [
        ("own", ("script", "certain")),
        ("named", ("script", "probable")),
        ("argv", ("argv", "claimed")),
        ("marked", ("environment", "claimed")),
    ] {
        assert_eq!(attribution(trail.agent(agent).event("session.start").only()), expected, "{agent}");
    }
}

#[test]
fn a_claim_moves_no_process_out_of_its_session() {
    if !require(&[Tier2]) {
        return;
    }
    let thief = Declaration::new("thief").with("[[recognise]]\nargv = [\"--bailiwick-test-steal\"]");
    let instance = Instance::start(&[Declaration::new("owner"), thief]);
    let file = instance.place().join("file");
    std::fs::write(&file, "x\n").unwrap();
    let text = "#!/bin/sh\nsh -c 'read -r x < \"$1\"' claim \"$1\" --bailiwick-test-steal\nexit 0\n";
    let script = instance.place().script("owner", text);
    instance.run("owner", &[&script, &file]).success();

    let trail = instance.synced_trail();
    assert_eq!(opened(&trail, &file).only()["agent"], "owner");
    assert!(trail.agent("thief").is_empty(), "{:#?}", trail.agent("thief").0);
}

#[test]
fn a_declared_agent_started_by_another_is_a_delegation_with_its_chain() {
    if !require(&[Tier2]) {
        return;
    }
    let place = workload::Place::new();
    let file = place.join("file");
    std::fs::write(&file, []).unwrap();
    let inner = place.copy_of("first-open", "inner");
    let outer = place.script("outer", "#!/bin/sh\n\"$1\" \"$2\"\nexit 0\n");
    let scope = "[scope]\ninclude = [\"base\"]\n[scope.delegate]\nto = [\"inner\"]";
    let instance = Instance::start(&[
        Declaration::new("outer").script(&outer).with(scope),
        Declaration::new("inner").executable(&inner),
    ]);
    workload::run(&outer, &[&inner, &file]).success();

    let trail = instance.synced_trail();
    let of = |agent: &str| trail.agent(agent).event("session.start").0.first().cloned().unwrap_or_default();
    let outer = trail.agent("outer").event("session.start").only()["session"].clone();
    let open = opened(&trail, &file).only().clone();
    assert_eq!(open["agent"], "inner");
    assert_ne!(open["session"], outer);
    assert_eq!(open["delegation"], json!([{"agent": "outer", "session": outer}]));
    assert_eq!(trail.event("delegation.start").only()["session"], open["session"], "{}", of("inner"));
}

#[test]
fn what_already_runs_when_the_daemon_starts_is_adopted_with_its_descendants() {
    if !require(&[Tier2]) {
        return;
    }
    let place = workload::Place::new();
    let file = place.join("file");
    std::fs::write(&file, "x\n").unwrap();
    // The recognised shell has a child before the daemon starts, and the child opens the file after it.
    let agent = place.join("agent-shell");
    std::fs::copy(std::fs::canonicalize("/bin/sh").unwrap(), &agent).unwrap();
    let child =
        place.script("child", "#!/bin/sh\nuntil [ -e \"$1.go\" ]; do sleep 0.01; done\nread -r x < \"$1\"\nexit 0\n");
    let parent = place.script("parent", "\"$1\" \"$2\" &\n: > \"$2.ready\"\nwait\n");
    let mut command = Command::new(&agent);
    let running = Running::start(command.arg(&parent).arg(&child).arg(&file));
    let tgid = running.tgid();
    bounded::until("the agent", SOON, || place.join("file.ready").exists());

    let instance = Instance::start(&[Declaration::new("before").executable(&agent)]);
    std::fs::write(place.join("file.go"), []).unwrap();
    running.finish(DEADLINE).success();

    let trail = instance.synced_trail();
    let start = trail.event("session.start").only().clone();
    assert_eq!(start["attributes"]["bailiwick.session.adopted"], true);
    assert_eq!(start["process"]["tgid"], tgid);
    let open = opened(&trail, &file).only().clone();
    assert_eq!((&open["agent"], &open["session"]), (&json!("before"), &start["session"]));
    assert_ne!(open["process"]["tgid"], tgid, "the child opened it");
}

#[test]
fn two_instances_side_by_side_do_not_disturb_each_other() {
    if !require(&[Tier2]) {
        return;
    }
    let one = Instance::start(&[Declaration::new("one")]);
    let mut two = Instance::start(&[Declaration::new("two")]);
    let storm = |instance: &Instance| instance.place().copy_of("storm", "agent-storm");
    let (storm_one, storm_two) = (storm(&one), storm(&two));
    let running = one.spawn("one", &[storm_one.as_os_str(), "600".as_ref()]);
    let said_two = two.run("two", &[storm_two.as_os_str(), "300".as_ref()]).success().json();
    let trail_two = two.synced_trail();
    // The other goes on when this one ends.
    assert_eq!(two.stop(), Some(0));
    let said_one = running.finish(DEADLINE).success().json();
    one.run("one", &[storm_one.as_os_str(), "50".as_ref()]).success();

    let trail_one = one.synced_trail();
    for (trail, said, name, sessions) in [(&trail_one, &said_one, "one", 2), (&trail_two, &said_two, "two", 1)] {
        assert_eq!(trail.sessions().len(), sessions);
        assert!(trail.filter(|entry| !entry["agent"].is_null() && entry["agent"] != name).is_empty());
        assert!(trail.event("gap").is_empty(), "{:#?}", trail.event("gap").0);
        let processes = trail.processes();
        let made = said["made"].as_array().unwrap();
        assert!(made.iter().all(|made| processes.contains(&made["tgid"].as_u64().unwrap())));
    }
    assert!(!two.pins().exists() || two.pins().read_dir().unwrap().next().is_none(), "pins are left");
}

#[test]
fn listings_give_ids_that_join() {
    if !require(&[Tier2]) {
        return;
    }
    let instance = Instance::start(&[Declaration::new("listed"), Declaration::new("idle")]);
    let storm = instance.place().copy_of("storm", "agent-storm");
    instance.run("listed", &[storm.as_os_str(), "5".as_ref()]).success();
    let trail = instance.synced_trail();
    let [session] = &trail.sessions()[..] else { panic!("not one session: {:?}", trail.sessions()) };

    let sessions = instance.json("sessions --json");
    let item = &sessions["items"][0];
    assert_eq!((&item["session"], &item["agent"], &item["alive"]), (&json!(session), &json!("listed"), &json!(false)));
    let agents = instance.json("agents --json");
    let mut names: Vec<_> =
        agents["items"].as_array().unwrap().iter().map(|item| item["agent"].as_str().unwrap()).collect();
    names.sort_unstable();
    assert_eq!(names, ["idle", "listed"]);
    let shown = instance.call(&format!("show {session}")).success();
    assert!(shown.stdout.contains("agent-storm"), "{}", shown.stdout);
    let filtered = instance.call("tail --json --since start --no-follow --event process.* --agent listed").success();
    let filtered = Entries::parse(&filtered.stdout);
    assert!(!filtered.is_empty());
    assert_eq!(filtered.len(), trail.filter(|entry| entry["event"].as_str().unwrap().starts_with("process.")).len());
}

#[test]
fn tail_follows_what_happens_from_now_on() {
    if !require(&[Tier2]) {
        return;
    }
    let instance = Instance::start(&[Declaration::new("before"), Declaration::new("after")]);
    let storm = instance.place().copy_of("storm", "agent-storm");
    instance.run("before", &[storm.as_os_str(), "2".as_ref()]).success();
    instance.sync();
    let out = instance.place().join("followed");
    let mut follow = instance.command(&["tail", "--json", "--event", "session.*"]);
    follow.stdout(std::fs::File::create(&out).unwrap()).stderr(std::process::Stdio::null());
    let mut follow = follow.spawn().unwrap();
    // Nothing says when a follower has begun to follow: so sessions are started until it has seen one.
    bounded::until("the follower sees a session", SOON, || {
        instance.run("after", &[storm.as_os_str(), "1".as_ref()]).success();
        std::fs::read_to_string(&out).unwrap().contains("session.start")
    });
    follow.kill().unwrap();
    follow.wait().unwrap();
    let text = std::fs::read_to_string(&out).unwrap();
    assert!(text.contains("\"after\"") && !text.contains("\"before\""), "{text}");
}
