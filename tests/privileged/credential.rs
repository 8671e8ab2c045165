//! Credentials: who read which, how old they are, and what a session did after it read one. All by a real process.

use std::collections::BTreeSet;
use std::fs::{self, FileTimes, Permissions};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use bailiwick_tests::bounded;
use bailiwick_tests::declaration::Declaration;
use bailiwick_tests::entries::Entries;
use bailiwick_tests::instance::{Instance, Setup};
use bailiwick_tests::requirement::Requirement::Tier2;
use bailiwick_tests::requirement::require;
use bailiwick_tests::workload::{DEADLINE, Place};
use serde_json::{Value, json};

const SECRET: &str = "not-to-be-told-7c1f";

/// A key that only its owner may read.
fn key(place: &Place, name: &str) -> PathBuf {
    let path = place.join(name);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    write(&path);
    path
}

fn write(path: &Path) {
    fs::write(path, SECRET).unwrap();
    fs::set_permissions(path, Permissions::from_mode(0o600)).unwrap();
}

fn text(path: &Path) -> String {
    path.display().to_string()
}

/// An agent that may do all but connect elsewhere than to that port.
fn declaration(name: &str, credential: Option<(&str, &Path, &str)>, port: u16) -> Declaration {
    let scope = format!(
        "[scope.files]\nread = [\"/**\"]\nwrite = [\"/**\"]\n[scope.exec]\nallow = [\"/**\"]\n\
         [scope.network]\nconnect = [\"127.0.0.1:{port}\"]\n"
    );
    let declared = credential.map_or_else(String::new, |(name, file, every)| {
        format!("[[credential]]\nname = {name:?}\nfile = {:?}\nrotate_every = {every:?}\n", text(file))
    });
    Declaration::new(name).with(&format!("{scope}{declared}"))
}

/// Reads each file, then connects to each port.
const WORK: &str = "import socket, sys\n\
    files, ports = sys.argv[1].split(','), sys.argv[2].split(',')\n\
    for file in filter(None, files): open(file).read()\n\
    for port in filter(None, ports):\n\
    \x20   s = socket.socket(); s.connect_ex(('127.0.0.1', int(port))); s.close()\n";

fn work(instance: &Instance, agent: &str, files: &[&Path], ports: &[u16]) -> String {
    let files: Vec<String> = files.iter().map(|file| text(file)).collect();
    let ports: Vec<String> = ports.iter().map(u16::to_string).collect();
    let before = instance.trail().sessions();
    instance.run(agent, &["python3", "-c", WORK, &files.join(","), &ports.join(",")]).success();
    let sessions = instance.synced_trail().sessions();
    sessions.into_iter().find(|session| !before.contains(session)).unwrap()
}

fn findings(trail: &Entries, name: &str, session: &str) -> Entries {
    // Variables of whoever runs the tests do not count.
    let by_variable = |entry: &Value| !entry["attributes"]["bailiwick.credential.variable"].is_null();
    trail.event(&format!("finding.{name}")).session(session).filter(|entry| !by_variable(entry))
}

fn item<'a>(map: &'a Value, name: &str) -> &'a Value {
    let items = map["items"].as_array().unwrap();
    items.iter().find(|item| item["name"] == name).unwrap_or_else(|| panic!("no '{name}' in {map:#}"))
}

#[test]
fn a_read_says_which_agent_read_which_credential_when_and_from_which_process_but_never_the_value() {
    if !require(&[Tier2]) {
        return;
    }
    let place = Place::new();
    let (declared, unknown) = (key(&place, "model-key"), key(&place, "home/.ssh/id_ed25519"));
    write(&place.join("home/.ssh/id_ed25519.pub"));
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let agent = declaration("reader", Some(("model key", &declared, "30d")), port);
    let mut instance = Setup::new().agent(&agent).agent(&declaration("other", None, port)).start();
    let session = work(&instance, "reader", &[&declared, &unknown, &place.join("home/.ssh/id_ed25519.pub")], &[]);

    let trail = instance.synced_trail();
    let reads = trail.event("credential.read").session(&session);
    let reads = reads.filter(|entry| entry["attributes"]["bailiwick.credential.means"] == "file");
    let of = |path: &Path| reads.filter(|entry| entry["attributes"]["file.path"] == text(path).as_str());
    assert_eq!(reads.len(), 2, "the public half is no credential: {:#?}", reads.0);
    let read = of(&declared).only().clone();
    assert_eq!(read["attributes"]["bailiwick.credential.name"], "model key");
    assert_eq!(read["attributes"]["bailiwick.credential.declared"], true);
    assert_eq!((&read["agent"], &read["count"], &read["verdict"]), (&json!("reader"), &json!(1), &json!("none")));
    let opened = trail.filter(|entry| entry["uid"] == read["attributes"]["bailiwick.credential.entry"]);
    assert_eq!(opened.only()["event"], "file.open");
    assert_eq!(opened.only()["process"], read["process"]);

    // In no declaration, but in the catalogue.
    let read = of(&unknown).only().clone();
    assert_eq!(read["attributes"]["bailiwick.credential.name"], "ssh private key");
    assert_eq!(read["attributes"]["bailiwick.credential.declared"], false);
    let undeclared = findings(&trail, "credential_undeclared", &session);
    assert_eq!(undeclared.only()["attributes"]["bailiwick.credential.path"], text(&unknown).as_str());
    assert_eq!(undeclared.only()["attributes"]["bailiwick.finding.causes"][0], read["uid"]);

    // By another agent, which does not declare it.
    let session = work(&instance, "other", &[&declared], &[]);
    let trail = instance.synced_trail();
    let by = findings(&trail, "credential_undeclared", &session).only().clone();
    assert_eq!(by["attributes"]["bailiwick.credential.declared_by"], json!(["reader"]));
    let shared = findings(&trail, "credential_exposed", &session).only().clone();
    assert_eq!(shared["attributes"]["bailiwick.credential.agents"], json!(["other", "reader"]));
    let new = findings(&trail, "credential_new_reader", &session).only().clone();
    assert_eq!(new["attributes"]["bailiwick.credential.new"], "agent");

    let map = instance.json("credentials --json");
    let readers = item(&map, "model key")["readers"].as_array().unwrap();
    assert_eq!(readers.iter().map(|reader| &reader["agent"]).collect::<Vec<_>>(), ["other", "reader"]);
    assert_eq!(readers[0]["sessions"], json!([session]));
    let agents = map["agents"].as_array().unwrap();
    let theirs = agents.iter().find(|agent| agent["agent"] == "reader").unwrap()["credentials"].as_array().unwrap();
    let places: Vec<&Value> = theirs.iter().map(|one| &one["place"]).collect();
    assert!(places.contains(&&json!(text(&declared))) && places.contains(&&json!(text(&unknown))), "{theirs:#?}");
    let told = instance.call("credentials").success().stdout;
    assert!(told.contains("other, last ") && told.contains("does not declare it"), "{told}");

    // Who has read what is remembered over a restart, and nothing holds the value.
    instance.stop();
    instance.start_daemon();
    let again = instance.json("credentials --json");
    assert_eq!(item(&again, "model key")["readers"], item(&map, "model key")["readers"]);
    let session = work(&instance, "other", &[&declared], &[]);
    let trail = instance.synced_trail();
    assert!(findings(&trail, "credential_new_reader", &session).is_empty(), "it is not new any more");
    assert!(findings(&trail, "credential_exposed", &session).is_empty(), "it was said already");
    let all = format!("{told}{map}{:?}", trail.0);
    assert!(!all.contains(SECRET), "the value was told");
    let ledger = fs::read_to_string(instance.state().join("credentials.json")).unwrap();
    assert!(ledger.contains("model-key") && !ledger.contains(SECRET), "{ledger}");
}

#[test]
fn rotating_a_declared_file_moves_when_it_is_due_and_ends_that_it_is_overdue() {
    if !require(&[Tier2]) {
        return;
    }
    let place = Place::new();
    let file = key(&place, "key");
    let old = SystemTime::now() - Duration::from_secs(40 * 86_400);
    fs::File::options().write(true).open(&file).unwrap().set_times(FileTimes::new().set_modified(old)).unwrap();
    let agent = declaration("keeper", Some(("key", &file, "30d")), 9)
        .with("[[credential]]\nname = \"by variable\"\nenvironment = [\"KEEPERS_KEY\"]\nrotate_every = \"30d\"\n");
    let instance = Instance::start(&[agent]);
    instance.sync();
    let before = instance.json("credentials --json");
    let before = &item(&before, "key")["rotation"];
    assert_eq!((&before["state"], &before["overdue"]), (&json!("overdue"), &json!(true)), "{before}");
    let overdue = instance.trail().event("finding.credential_overdue");
    assert_eq!(overdue.only()["attributes"]["bailiwick.credential.due"], before["due"]);
    assert_eq!(overdue.only()["agent"], "keeper");

    write(&file);
    instance.sync();
    let map = instance.json("credentials --json");
    let after = &item(&map, "key")["rotation"];
    assert_eq!((&after["state"], &after["overdue"]), (&json!("fresh"), &json!(false)), "{after}");
    assert!(after["due"].as_str().unwrap() > before["due"].as_str().unwrap(), "{before} {after}");
    assert_eq!(instance.trail().event("finding.credential_overdue").len(), 1, "one for the change that was overdue");
    let unknown = &item(&map, "by variable")["rotation"];
    assert_eq!((&unknown["state"], &unknown["due"]), (&json!("unknown"), &Value::Null));
}

#[test]
fn a_read_before_a_connection_out_of_scope_is_found_and_before_one_in_scope_is_not() {
    if !require(&[Tier2]) {
        return;
    }
    let place = Place::new();
    let planted = key(&place, "planted");
    let plain = key(&place, "plain");
    let listeners = [(); 2].map(|()| TcpListener::bind("127.0.0.1:0").unwrap());
    let [inside, outside] = listeners.each_ref().map(|listener| listener.local_addr().unwrap().port());
    let agent = declaration("worker", Some(("planted key", &planted, "30d")), inside);
    let instance = Instance::start(&[agent]);

    let good = work(&instance, "worker", &[&planted], &[inside]);
    let bad = work(&instance, "worker", &[&planted], &[inside, outside]);
    let no_key = work(&instance, "worker", &[&plain], &[outside]);
    let trail = instance.synced_trail();
    assert!(findings(&trail, "exfiltration", &good).is_empty());
    assert!(findings(&trail, "exfiltration", &no_key).is_empty());
    let found = findings(&trail, "exfiltration", &bad).only().clone();
    assert_eq!(found["attributes"]["bailiwick.connection.to"], format!("127.0.0.1:{outside}"));
    let causes = found["attributes"]["bailiwick.finding.causes"].as_array().unwrap();
    let events: Vec<Value> =
        causes.iter().map(|uid| trail.filter(|entry| entry["uid"] == *uid).only()["event"].clone()).collect();
    assert_eq!(events, ["credential.read", "network.connect"]);
    assert!(findings(&trail, "lateral_movement", &bad).is_empty(), "it stayed on this host, at no port of an admin's");

    // Where administration happens, out of scope.
    let moved = work(&instance, "worker", &[&planted], &[22]);
    let trail = instance.synced_trail();
    let found = findings(&trail, "lateral_movement", &moved).only().clone();
    assert_eq!(found["attributes"]["bailiwick.connection.to"], "127.0.0.1:22");
}

#[test]
fn a_credential_that_others_may_read_is_found_once_and_so_is_a_handle_that_outlives_a_rotation() {
    if !require(&[Tier2]) {
        return;
    }
    let place = Place::new();
    let file = key(&place, "key");
    fs::set_permissions(&file, Permissions::from_mode(0o644)).unwrap();
    let instance = Instance::start(&[declaration("holder", Some(("key", &file, "30d")), 9)]);
    instance.sync();
    let exposed = instance.trail().event("finding.credential_exposed");
    assert_eq!(exposed.only()["attributes"]["bailiwick.credential.mode"], "0644");

    // Reads on after another file has taken the place of the one that it opened.
    let holding = "import os, sys, time\n\
        file = sys.argv[1]\n\
        held = os.open(file, os.O_RDONLY); os.read(held, 4)\n\
        new = file + '.new'; open(new, 'w').write('another'); os.chmod(new, 0o600); os.rename(new, file)\n\
        time.sleep(0.1)\n\
        if sys.argv[2] == 'old': os.read(held, 4)\n\
        else: open(file).read()\n";
    let mut sessions = Vec::new();
    for how in ["old", "new"] {
        bounded::run(&mut instance.run_command("holder", &["python3", "-c", holding, &text(&file), how]), DEADLINE)
            .success();
        sessions.extend(
            instance.synced_trail().sessions().into_iter().filter(|id| !sessions.contains(id)).collect::<Vec<_>>(),
        );
    }
    let trail = instance.synced_trail();
    let found = findings(&trail, "credential_old_handle", &sessions[0]);
    assert_eq!(found.only()["attributes"]["bailiwick.credential.path"], text(&file).as_str());
    assert!(findings(&trail, "credential_old_handle", &sessions[1]).is_empty());
    assert_eq!(trail.event("finding.credential_exposed").len(), 1, "the new file is its owner's alone");
}

#[test]
fn variables_and_sockets_are_credentials_too_and_only_the_name_of_a_variable_is_told() {
    if !require(&[Tier2]) {
        return;
    }
    let place = Place::new();
    let socket = place.join("agent.sock");
    let _listener = UnixListener::bind(&socket).unwrap();
    let declared = format!(
        "[[credential]]\nname = \"our token\"\nenvironment = [\"OUR_TOKEN\"]\n\
         [[credential]]\nname = \"our agent\"\nsocket = [{:?}]\n",
        text(&socket)
    );
    let instance = Instance::start(&[Declaration::new("asker").with(&declared)]);
    let asking = "import socket, subprocess, sys\n\
        s = socket.socket(socket.AF_UNIX); s.connect(sys.argv[1])\n\
        for _ in range(3): subprocess.run(['/bin/sleep', '0.2'])\n";
    let mut command = instance.run_command("asker", &["python3", "-c", asking, &text(&socket)]);
    command.env("OUR_TOKEN", SECRET).env("OPENAI_API_KEY", SECRET).env("GH_TOKEN", "");
    bounded::run(&mut command, DEADLINE).success();
    let trail = instance.synced_trail();
    let reads = trail.event("credential.read");
    let of = |name: &str| reads.filter(|entry| entry["attributes"]["bailiwick.credential.name"] == name);
    assert_eq!(of("our agent").only()["attributes"]["bailiwick.credential.path"], text(&socket).as_str());
    let tokens = of("our token");
    assert!(tokens.0.iter().all(|read| read["attributes"]["bailiwick.credential.variable"] == "OUR_TOKEN"));
    let programs: Vec<&str> = tokens.0.iter().filter_map(|read| read["process"]["executable"].as_str()).collect();
    let distinct: BTreeSet<&str> = programs.iter().copied().collect();
    assert_eq!(programs.len(), distinct.len(), "once for each program: {programs:?}");
    assert!(programs.iter().any(|program| program.ends_with("/sleep")), "{programs:?}");
    assert_eq!(of("model api key").0[0]["attributes"]["bailiwick.credential.declared"], false);
    assert!(of("code forge token").is_empty(), "an empty variable holds nothing");
    let executed = trail.event("process.exec").0[0]["attributes"]["bailiwick.credential.variables"].clone();
    assert_eq!(executed.as_array().map(Vec::len), Some(2), "{executed}");
    assert!(!format!("{:?}", trail.0).contains(SECRET), "the value was told");
}

#[test]
fn a_credential_file_that_is_not_there_and_a_catalogue_with_a_mistake_are_refused_with_their_line() {
    let missing =
        Setup::new().agent(&Declaration::new("x").with("[[credential]]\nname = \"k\"\nfile = \"/no/such/key\"\n"));
    let said = missing.prepare().refused();
    assert_eq!(said.code(), Some(2));
    assert!(said.stderr.contains("agents.d/x.toml:8:8: \"/no/such/key\" is not there"), "{}", said.stderr);

    let catalogue =
        "[[credential]]\nname = \"a\"\nfile = [\"**/.a\"]\n\n[[credential]]\nname = \"b\"\nfiel = [\"/b\"]\n";
    let instance = Setup::new().file("credentials.toml", catalogue).prepare();
    let said = instance.refused();
    assert_eq!(said.code(), Some(2));
    assert!(said.stderr.contains("credentials.toml:7:1: `fiel` is not a key of [[credential]]; did you mean `file`?"));
    let checked = instance.call(&format!("check {}", instance.config("credentials.toml").display()));
    assert_eq!(checked.code(), Some(2));
    assert!(checked.stdout.contains("credentials.toml:7:1"), "{}", checked.stdout);
}
