//! What is done through an io_uring is told of as if by system calls, whichever thread of the kernel's does it.

use std::net::{TcpListener, UdpSocket};
use std::path::Path;

use bailiwick_tests::declaration::Declaration;
use bailiwick_tests::entries::Entries;
use bailiwick_tests::instance::{Setup, both_sets};
use bailiwick_tests::requirement::Requirement::Tier2;
use serde_json::{Value, json};

/// The event, the file's name, the other name, the errno.
const NAMES: [(&str, &str, Option<&str>, Option<&str>); 16] = [
    ("file.create", "made", None, None),
    ("file.link", "made", Some("old"), None),
    ("file.rename", "old", Some("new"), None),
    ("file.unlink", "new", None, None),
    ("file.mkdir", "sub", None, None),
    ("file.rmdir", "gone", None, None),
    ("file.symlink", "link", None, None),
    ("file.create", "fixed", None, None),
    ("file.open", "absent", None, Some("ENOENT")),
    ("file.open", "sub", None, Some("EISDIR")),
    ("file.unlink", "sub", None, Some("EISDIR")),
    ("file.rename", "sub", Some("made"), Some("ENOTDIR")),
    ("file.link", "made", Some("sub"), Some("EEXIST")),
    ("file.mkdir", "made", None, Some("EEXIST")),
    ("file.symlink", "made", None, Some("EEXIST")),
    ("file.xattr", "made", None, Some("EOPNOTSUPP")),
];

fn of_ring(trail: &Entries, event: &str) -> Entries {
    trail.event(event).filter(|entry| entry["attributes"]["bailiwick.io_uring"] == true)
}

fn names_are_told_of_with_their_results(trail: &Entries, dir: &Path) {
    let path = |name: &str| json!(dir.join(name).to_str());
    for (event, name, other, errno) in NAMES {
        let told = of_ring(trail, event).filter(|entry| {
            let attributes = &entry["attributes"];
            attributes["file.path"] == path(name) && attributes["error.type"] == json!(errno)
        });
        let told = match event {
            // Of those that succeeded there are two.
            "file.xattr" => told,
            _ => told.filter(|entry| entry["attributes"]["bailiwick.file.new_path"] == other.map_or(json!(null), path)),
        };
        assert_eq!(told.len(), 1, "{event} of {name}: {:#?}", trail.event(event).0);
        let entry = told.only();
        assert_eq!(entry["session"], trail.event("session.start").only()["session"]);
        assert_eq!(entry["attributes"]["bailiwick.syscall"], json!(null), "no call was made: {entry:#}");
        let denied = name == "new" || other == Some("new");
        let expected = match errno {
            Some("ENOENT" | "ENOTDIR") => "none",
            _ if denied => "out_of_scope",
            _ => "in_scope",
        };
        assert_eq!(entry["verdict"], expected, "{entry:#}");
    }
    // One whose path is longer than what most take.
    let absent = of_ring(trail, "file.unlink").filter(|entry| entry["attributes"]["error.type"] == "ENOENT");
    assert_eq!(absent.count(), 2, "{:#?}", absent.0);
    assert!(absent.0.iter().all(|entry| entry["attributes"]["file.path"] == path("absent")), "{:#?}", absent.0);
    assert_eq!(trail.event("file.open").filter(|entry| entry["attributes"]["file.path"] == "/dev/null").len(), 0);
}

/// Lengths, extended attributes, bytes: of each, how often.
fn changes_and_bytes_are_told_of(trail: &Entries, dir: &Path) {
    let of = |event: &str, name: &str| {
        let path = json!(dir.join(name).to_str());
        of_ring(trail, event).filter(|entry| entry["attributes"]["file.path"] == path)
    };
    let sizes: Vec<_> =
        of("file.truncate", "made").0.iter().map(|entry| entry["attributes"]["file.size"].clone()).collect();
    assert_eq!(sizes, [json!(100), json!(7)]);
    let set = of("file.xattr", "made").filter(|entry| entry["attributes"]["error.type"] == json!(null));
    let set: Vec<_> = set.0.iter().map(|entry| entry["attributes"]["bailiwick.file.xattr"].clone()).collect();
    assert_eq!(set, [json!("user.by_path"), json!("user.by_file")]);
    let moved = |name: &str, access: &str| {
        let moved = of("file.io", name).filter(|entry| entry["attributes"]["bailiwick.file.access"] == access);
        let bytes = |entry: &Value| entry["attributes"]["bailiwick.file.bytes"].as_u64().unwrap();
        (moved.count(), moved.0.iter().map(bytes).sum::<u64>())
    };
    assert_eq!(moved("made", "w"), (1, 7));
    assert_eq!(moved("made", "r"), (1, 7));
    assert_eq!(moved("fixed", "w"), (1, 5));
    assert_eq!(moved("fixed", "r"), (2, 10), "read, and spliced from");
    assert_eq!(moved("spliced", "w"), (1, 5));
    assert_eq!(of("file.open", "fixed").filter(|entry| entry["attributes"]["bailiwick.file.access"] == "r").count(), 1);
}

fn addresses_are_those_that_the_kernel_took(trail: &Entries, dir: &Path, said: &Value) {
    let refused = of_ring(trail, "network.connect").filter(|entry| !entry["attributes"]["error.type"].is_null());
    let refused = &refused.only()["attributes"];
    assert_eq!((&refused["error.type"], &refused["server.port"]), (&json!("ECONNREFUSED"), &said["refused"]));
    let unix = of_ring(trail, "unix.connect");
    let path = json!(dir.join("listens").to_str());
    assert_eq!(unix.filter(|entry| entry["attributes"]["bailiwick.unix.path"] == path).count(), 1, "{:#?}", unix.0);
    let name = "nobody-has-this";
    assert_eq!(unix.filter(|entry| entry["attributes"]["bailiwick.unix.abstract"] == name).count(), 1, "{:#?}", unix.0);
    let bound = json!(dir.join("bound").to_str());
    assert_eq!(of_ring(trail, "file.create").filter(|entry| entry["attributes"]["file.path"] == bound).count(), 1);
    assert_eq!(of_ring(trail, "network.bind").only()["attributes"]["network.local.address"], "127.0.0.1");
    assert_eq!(of_ring(trail, "network.listen").count(), 1);
}

/// Connections and descriptors, those after the first of several too.
fn all_that_came_is_told_of(trail: &Entries, dir: &Path, said: &Value) {
    let path = json!(dir.join("made").to_str());
    let received = of_ring(trail, "fd.receive");
    assert_eq!(received.count(), 3, "{:#?}", received.0);
    assert!(received.0.iter().all(|entry| entry["attributes"]["file.path"] == path), "{:#?}", received.0);
    for (port, times) in said["accepted"].as_array().unwrap().iter().zip([3, 2]) {
        let accepted = of_ring(trail, "network.accept");
        let accepted = accepted.filter(|entry| entry["attributes"]["network.local.port"] == *port);
        assert_eq!(accepted.count(), times, "{:#?}", trail.event("network.accept").0);
    }
}

fn the_same_events_come_as_by_system_calls(mode: &str) {
    for setup in both_sets(&[Tier2]) {
        the_same_events_come(setup, mode);
    }
}

fn the_same_events_come(setup: Setup, mode: &str) {
    let place = bailiwick_tests::workload::Place::new();
    let dir = place.files("dir", 0);
    let scope = format!(
        "[scope.files]\nread = [\"/**\"]\nwrite = [\"{dir}/**\"]\ndeny = [\"{dir}/new\"]\n[scope.exec]\nallow = [\"/**\"]",
        dir = dir.display()
    );
    let instance = setup.agent(&Declaration::new("ring").with(&scope)).start();
    let program = instance.place().copy_of("uring", "agent-uring");
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let _sink = UdpSocket::bind(("127.0.0.1", port)).unwrap();
    let port_text = port.to_string();
    let command = [program.as_os_str(), mode.as_ref(), dir.as_os_str(), port_text.as_ref()];
    let said = instance.run("ring", &command).success().json();

    let trail = instance.synced_trail();
    names_are_told_of_with_their_results(&trail, &dir);
    changes_and_bytes_are_told_of(&trail, &dir);
    // Two datagrams, by SEND_ZC and SENDMSG.
    for (event, count) in [("network.connect", 1), ("network.send", 2)] {
        let told = trail.event(event).filter(|entry| entry["attributes"]["server.port"] == port);
        assert_eq!(told.count(), count, "{event}: {:#?}", trail.event(event).0);
        assert!(told.0.iter().all(|entry| entry["attributes"]["bailiwick.io_uring"] == true), "{:#?}", told.0);
    }
    addresses_are_those_that_the_kernel_took(&trail, &dir, &said);
    all_that_came_is_told_of(&trail, &dir, &said);
    assert_eq!(of_ring(&trail, "network.netlink").count(), 1);
    let done = said["done"].as_array().unwrap();
    for operation in done.iter().map(|done| &done["operation"]) {
        let told = trail.event("io_uring.submit");
        let told = told.filter(|entry| entry["attributes"]["bailiwick.io_uring.operation"] == *operation);
        let times = done.iter().filter(|done| done["operation"] == *operation).count();
        assert_eq!(told.count(), times as u64, "{operation}");
    }
    let read = trail.event("io_uring.submit");
    let read = read.filter(|entry| entry["attributes"]["bailiwick.io_uring.operation"] == "READ");
    assert_eq!(read.0[0]["attributes"]["file.path"], json!(dir.join("made").to_str()));
    assert_eq!(trail.event("io_uring.setup").len(), 4);
    assert_eq!(trail.event("gap").len(), 0, "{:#?}", trail.event("gap").0);
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

/// Has the workload do that under each set of observations, and says of each the trail and where it was done.
fn done(mode: &str) -> Vec<(Entries, bailiwick_tests::workload::Place)> {
    let under = |setup: Setup| {
        let place = bailiwick_tests::workload::Place::new();
        let dir = place.files("dir", 0);
        let instance = setup.agent(&Declaration::new("ring").with("")).start();
        let program = instance.place().copy_of("uring", "agent-uring");
        instance.run("ring", &[program.as_os_str(), mode.as_ref(), dir.as_os_str(), "0".as_ref()]).success();
        (instance.synced_trail(), place)
    };
    both_sets(&[Tier2]).into_iter().map(under).collect()
}

fn submitted(trail: &Entries, operation: &str) -> u64 {
    let told = trail.event("io_uring.submit");
    told.filter(|entry| entry["attributes"]["bailiwick.io_uring.operation"] == operation).count()
}

fn lost(trail: &Entries, kind: &str) -> u64 {
    let gaps = trail.event("gap").filter(|gap| gap["gap"]["kind"] == kind);
    gaps.0.iter().map(|gap| gap["gap"]["lost"].as_u64().unwrap()).sum()
}

fn unlinked(trail: &Entries, path: &Path) -> Entries {
    trail.event("file.unlink").filter(|entry| entry["attributes"]["file.path"] == json!(path.to_str()))
}

#[test]
fn operations_whose_end_nobody_is_told_of_are_named_or_a_gap() {
    for (trail, place) in done("silent") {
        assert_eq!(unlinked(&trail, &place.join("dir/silent")).count(), 1);
        // One of the opens failed: it is told of once when it was submitted, and once more then.
        assert_eq!((submitted(&trail, "OPENAT"), submitted(&trail, "UNLINKAT")), (3, 1));
        let gaps = trail.event("gap");
        let lost_only = gaps.0.iter().all(|gap| gap["gap"]["kind"] == "file.open");
        assert_eq!((lost(&trail, "file.open"), lost_only), (2, true), "{:#?}", gaps.0);
    }
}

#[test]
fn operations_whose_completion_finds_no_room_are_told_of_all_the_same() {
    for (trail, place) in done("crowded") {
        let path = |name: &str| place.join("dir").join(name);
        assert_eq!(submitted(&trail, "NOP"), 9, "{:#?}", trail.event("gap").0);
        assert_eq!(unlinked(&trail, &path("alone")).only()["attributes"]["error.type"], json!(null));
        assert_eq!(unlinked(&trail, &path("absent")).only()["attributes"]["error.type"], "ENOENT");
        for name in ["first", "second", "third"] {
            assert_eq!(unlinked(&trail, &path(name)).count(), 1, "{name}: {:#?}", trail.event("file.unlink").0);
        }
        // Of those by the same word it is not known which of them ended, only that one did.
        assert_eq!(submitted(&trail, "UNLINKAT") + lost(&trail, "io_uring.submit"), 5);
        assert_eq!(lost(&trail, "file.unlink"), 0, "{:#?}", trail.event("gap").0);
    }
}
