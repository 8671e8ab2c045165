//! Questions: each filter, in each command that takes it, finds what somebody finds who reads the whole trail.

use std::collections::BTreeSet;
use std::net::TcpListener;

use bailiwick_tests::declaration::Declaration;
use bailiwick_tests::entries::Entries;
use bailiwick_tests::instance::Instance;
use bailiwick_tests::requirement::Requirement::Tier2;
use bailiwick_tests::requirement::require;
use serde_json::Value;

/// Options, and what they mean.
type Question<'a> = (String, Box<dyn Fn(&Value) -> bool + 'a>);

fn asked<'a>(options: impl Into<String>, means: impl Fn(&Value) -> bool + 'a) -> Question<'a> {
    (options.into(), Box::new(means))
}

fn uids(entries: &Entries) -> Vec<&str> {
    entries.0.iter().map(|entry| entry["uid"].as_str().unwrap()).collect()
}

fn attribute(entry: &Value, name: &str, value: &str) -> bool {
    entry["attributes"][name] == value
}

/// An agent that reads, renames and starts another; one that connects. Returns the listener's port.
fn work(instance: &Instance, inner: &std::path::Path) -> u16 {
    let place = instance.place();
    for name in ["granted", "other", "before"] {
        std::fs::write(place.join(name), "x\n").unwrap();
    }
    let path = |name: &str| place.join(name).display().to_string();
    let script = format!(
        "read -r x < {}; read -r x < {}; mv {} {}; {}",
        path("granted"),
        path("other"),
        path("before"),
        path("after"),
        inner.display()
    );
    instance.run("outer", &["/bin/sh", "-c", &script]).success();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let connector = place.copy_of("connector", "agent-connector");
    instance.run("connector", &[connector.as_os_str(), "tcp".as_ref(), address.to_string().as_ref()]).success();
    address.port()
}

#[test]
fn every_filter_of_tail_show_and_sessions_finds_what_a_reader_of_the_whole_trail_finds() {
    if !require(&[Tier2]) {
        return;
    }
    let place = bailiwick_tests::workload::Place::new();
    let inner = place.script("inner", "#!/bin/sh\nexit 0\n");
    let own = place.path().display();
    let instance = Instance::start(&[
        Declaration::new("outer").with(&format!(
            "[scope]\ninclude = [\"base\"]\n[scope.files]\nread = [\"{own}/**\"]\n[scope.delegate]\nto = [\"inner\"]\n"
        )),
        Declaration::new("inner").script(&inner),
        Declaration::new("connector"),
    ]);
    let port = work(&instance, &inner);
    let all = instance.synced_trail();
    let outer = all.event("session.start").agent("outer").only()["session"].as_str().unwrap().to_owned();
    let renamed = all.event("file.rename").only().clone();
    let time = renamed["time"].as_str().unwrap();
    let after = instance.place().join("after").display().to_string();
    let address = format!("127.0.0.1:{port}");
    let questions = [
        asked("--agent outer", |entry| entry["agent"] == "outer"),
        asked("--agent outer --agent connector", |entry| entry["agent"] == "outer" || entry["agent"] == "connector"),
        asked("--delegation outer", |entry| entry["delegation"][0]["agent"] == "outer"),
        asked(format!("--delegation {outer}"), |entry| entry["delegation"][0]["session"] == outer.as_str()),
        asked("--event file.rename", |entry| entry["event"] == "file.rename"),
        asked("--event file.*", |entry| entry["event"].as_str().unwrap().starts_with("file.")),
        asked(format!("--path {after}"), |entry| attribute(entry, "bailiwick.file.new_path", &after)),
        asked(format!("--address {address}"), |entry| {
            ["server", "network.peer", "network.local", "client"].iter().any(|end| {
                attribute(entry, &format!("{end}.address"), "127.0.0.1")
                    && entry["attributes"][format!("{end}.port")] == port
            })
        }),
        asked("--verdict out_of_scope", |entry| entry["verdict"] == "out_of_scope"),
        asked("--verdict in_scope --event file.open", |entry| {
            entry["verdict"] == "in_scope" && entry["event"] == "file.open"
        }),
        asked(format!("--since {time}"), |entry| entry["time"].as_str().unwrap() >= time),
        asked(format!("--until {time}"), |entry| entry["time"].as_str().unwrap() < time),
    ];
    for (options, means) in &questions {
        let expected = all.filter(means);
        assert!(!expected.is_empty() && expected.len() < all.len(), "{options}: {} of {}", expected.len(), all.len());
        let start = if options.contains("--since") { "" } else { "--since start" };
        let said = instance.call(&format!("tail --json --no-follow {start} {options}")).success();
        assert_eq!(uids(&Entries::parse(&said.stdout)), uids(&expected), "tail {options}");

        let of_outer = expected.session(&outer);
        let said = instance.call(&format!("show {outer} --json {options}")).success();
        assert_eq!(uids(&Entries::parse(&said.stdout)), uids(&of_outer), "show {options}");

        let listed = instance.json(&format!("sessions --json {options}"));
        let listed: BTreeSet<&str> =
            listed["items"].as_array().unwrap().iter().map(|session| session["session"].as_str().unwrap()).collect();
        let sessions: BTreeSet<&str> = expected.0.iter().filter_map(|entry| entry["session"].as_str()).collect();
        assert_eq!(listed, sessions, "sessions {options}");
    }
    for command in ["tail --json --no-follow --since start", "sessions --json"] {
        let said = instance.call(&format!("{command} --session {}", &outer[..12])).success().stdout;
        assert!(said.contains(&outer), "{command}");
        assert!(!said.contains("\"agent\":\"connector\""), "{command}");
    }
}
