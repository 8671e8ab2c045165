//! What is done through an io_uring is told of as if by system calls, whichever thread of the kernel's does it.

use std::net::{TcpListener, UdpSocket};

use bailiwick_tests::declaration::Declaration;
use bailiwick_tests::instance::Instance;
use bailiwick_tests::requirement::Requirement::Tier2;
use bailiwick_tests::requirement::require;
use serde_json::json;

/// The event, the file's name, the other name.
const NAMES: [(&str, &str, Option<&str>); 6] = [
    ("file.create", "made", None),
    ("file.link", "made", Some("old")),
    ("file.rename", "old", Some("new")),
    ("file.unlink", "new", None),
    ("file.mkdir", "sub", None),
    ("file.symlink", "link", None),
];

fn the_same_events_come_as_by_system_calls(mode: &str) {
    if !require(&[Tier2]) {
        return;
    }
    let place = bailiwick_tests::workload::Place::new();
    let dir = place.files("dir", 0);
    let scope = format!(
        "[scope.files]\nread = [\"/**\"]\nwrite = [\"{dir}/**\"]\ndeny = [\"{dir}/new\"]\n[scope.exec]\nallow = [\"/**\"]",
        dir = dir.display()
    );
    let instance = Instance::start(&[Declaration::new("ring").with(&scope)]);
    let program = instance.place().copy_of("uring", "agent-uring");
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let _sink = UdpSocket::bind(("127.0.0.1", port)).unwrap();
    let port_text = port.to_string();
    let command = [program.as_os_str(), mode.as_ref(), dir.as_os_str(), port_text.as_ref()];
    let said = instance.run("ring", &command).success().json();
    let results = said["results"].as_object().unwrap();
    assert!(results.values().all(|result| result.as_i64().unwrap() >= 0), "the workload itself: {said}");

    let trail = instance.synced_trail();
    let session = trail.event("session.start").only()["session"].clone();
    let path = |name: &str| json!(dir.join(name).to_str());
    for (event, name, other) in NAMES {
        let told = trail.event(event).filter(|entry| {
            entry["attributes"]["file.path"] == path(name) && entry["attributes"]["bailiwick.io_uring"] == true
        });
        assert_eq!(told.len(), 1, "{event} of {name}: {:#?}", trail.event(event).0);
        let entry = told.only();
        assert_eq!(entry["session"], session);
        if let Some(other) = other {
            assert_eq!(entry["attributes"]["bailiwick.file.new_path"], path(other), "{entry:#}");
        }
        let denied = name == "new" || other == Some("new");
        assert_eq!(entry["verdict"], if denied { "out_of_scope" } else { "in_scope" }, "{entry:#}");
    }
    // Two datagrams, by SEND_ZC and SENDMSG.
    for (event, count) in [("network.connect", 1), ("network.send", 2)] {
        let told = trail.event(event).filter(|entry| entry["attributes"]["server.port"] == port);
        assert_eq!(told.count(), count, "{event}: {:#?}", trail.event(event).0);
        assert!(told.0.iter().all(|entry| entry["attributes"]["bailiwick.io_uring"] == true), "{:#?}", told.0);
    }
    for operation in results.keys() {
        let told = trail.event("io_uring.submit");
        let told = told.filter(|entry| entry["attributes"]["bailiwick.io_uring.operation"] == operation.as_str());
        assert_eq!(told.count(), 1, "{operation}");
    }
    let read = trail.event("io_uring.submit");
    let read = read.filter(|entry| entry["attributes"]["bailiwick.io_uring.operation"] == "READ");
    assert_eq!(read.only()["attributes"]["file.path"], path("made"));
    assert_eq!(trail.event("io_uring.setup").len(), 1);
}

#[test]
fn operations_of_a_plain_ring_are_told_of() {
    the_same_events_come_as_by_system_calls("plain");
}

#[test]
fn operations_that_worker_threads_do_are_told_of() {
    the_same_events_come_as_by_system_calls("async");
}

#[test]
fn operations_that_a_polling_thread_takes_are_told_of() {
    the_same_events_come_as_by_system_calls("polled");
}

#[test]
fn operations_whose_end_nobody_is_told_of_are_named_or_a_gap() {
    if !require(&[Tier2]) {
        return;
    }
    let place = bailiwick_tests::workload::Place::new();
    let dir = place.files("dir", 0);
    let instance = Instance::start(&[Declaration::new("ring").with("")]);
    let program = instance.place().copy_of("uring", "agent-uring");
    let said = instance.run("ring", &[program.as_os_str(), "silent".as_ref(), dir.as_os_str(), "0".as_ref()]);
    let said = said.success().json();

    let trail = instance.synced_trail();
    let session = trail.event("session.start").only()["session"].clone();
    let unlinked = trail.event("file.unlink");
    assert_eq!(unlinked.only()["attributes"]["file.path"], json!(dir.join("silent").to_str()));
    for operation in ["OPENAT", "UNLINKAT"] {
        let told = trail.event("io_uring.submit");
        let told = told.filter(|entry| entry["attributes"]["bailiwick.io_uring.operation"] == operation);
        assert_eq!(told.count(), 1, "{operation}");
    }
    let lost = |kind: &str| -> u64 {
        let gaps = trail.event("gap").filter(|gap| gap["session"] == session && gap["gap"]["kind"] == kind);
        gaps.0.iter().map(|gap| gap["gap"]["lost"].as_u64().unwrap()).sum()
    };
    assert_eq!(lost("file.open"), 1, "{:#?}", trail.event("gap").0);
    assert_eq!(lost("io_uring.submit"), said["overflowed"].as_u64().unwrap(), "{:#?}", trail.event("gap").0);
}
