//! System calls in the way that 32-bit programs make them.

use std::collections::BTreeMap;
use std::net::{TcpListener, UdpSocket};
use std::path::Path;

use bailiwick_tests::declaration::Declaration;
use bailiwick_tests::entries::Entries;
use bailiwick_tests::instance::both_sets;
use bailiwick_tests::requirement::Requirement::{Ia32, Tier2};
use bailiwick_tests::workload::{Open, opens};
use serde_json::{Value, json};

/// What an entry says, without what differs between two runs.
fn done(entry: &Value) -> Value {
    let mut attributes = entry["attributes"].clone();
    // The created file is another one each time, and so is the near port; calls that only 32-bit programs have say so.
    for name in ["bailiwick.file.inode", "network.local.port", "bailiwick.syscall"] {
        if entry["event"] == "file.create" || !name.starts_with("bailiwick.file") {
            attributes.as_object_mut().unwrap().remove(name);
        }
    }
    json!([entry["event"], entry["count"], entry["verdict"], attributes])
}

fn of_workload(trail: &Entries, tgid: u64, dir: &Path) -> Vec<Value> {
    let of_process = trail.process(tgid);
    let below = of_process.filter(|entry| {
        let path = entry["attributes"]["file.path"].as_str().unwrap_or_default();
        ["network.connect", "network.send", "privilege.setid"].iter().any(|event| entry["event"] == *event)
            || Path::new(path).starts_with(dir)
    });
    // Counts are flushed in no order.
    let mut all: Vec<Value> = below.0.iter().map(done).collect();
    all.sort_by_key(Value::to_string);
    all
}

#[test]
fn calls_of_32_bits_are_recorded_as_those_of_64_bits_are() {
    for setup in both_sets(&[Tier2, Ia32]) {
        let instance = setup.agent(&Declaration::new("narrow")).start();
        let narrow = instance.place().copy_of("narrow", "agent-narrow");
        let dir = instance.place().ways("ways");
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let _sink = UdpSocket::bind(listener.local_addr().unwrap()).unwrap();
        let target = listener.local_addr().unwrap().to_string();
        let run = |width: &str| {
            let command = [narrow.as_os_str(), width.as_ref(), dir.as_os_str(), target.as_ref()];
            instance.run("narrow", &command).success().json()
        };
        let (said_32, said_64) = (run("32"), run("64"));

        let trail = instance.synced_trail();
        assert!(trail.event("gap").is_empty(), "{:#?}", trail.event("gap").0);
        let mut expected: BTreeMap<Open, u64> = BTreeMap::new();
        for said in [&said_32, &said_64] {
            expected.extend(opens(said));
            let tgid = said["processes"][0]["tgid"].as_u64().unwrap();
            let connects = trail.process(tgid).event("network.connect");
            assert_eq!(connects.count(), 2, "one by its own call and one by socketcall: {:#?}", connects.0);
            let of = |event: &str| trail.process(tgid).event(event);
            assert_eq!(of("network.send").count(), 3, "{:#?}", of("network.send").0);
            let received =
                of("fd.receive").filter(|entry| entry["attributes"]["file.path"] == json!(dir.join("plain")));
            assert_eq!(received.len(), 2, "{:#?}", of("fd.receive").0);
            for event in ["link", "rename", "chmod", "chown", "symlink", "mkdir", "rmdir", "io", "unlink", "truncate"] {
                assert!(!of(&format!("file.{event}")).is_empty(), "{event}");
            }
            assert_eq!(of("privilege.setid").len(), 1);
        }
        let found = trail.opens().into_iter().filter(|(open, _)| Path::new(&open.path).starts_with(&dir));
        assert_eq!(found.collect::<BTreeMap<_, _>>(), expected);
        let of = |said: &Value| of_workload(&trail, said["processes"][0]["tgid"].as_u64().unwrap(), &dir);
        assert_eq!(of(&said_32), of(&said_64));
    }
}
