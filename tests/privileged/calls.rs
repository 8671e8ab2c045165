//! System calls in the way that 32-bit programs make them.

use std::collections::BTreeMap;
use std::net::TcpListener;
use std::path::Path;

use bailiwick_tests::declaration::Declaration;
use bailiwick_tests::entries::Entries;
use bailiwick_tests::instance::Instance;
use bailiwick_tests::requirement::Requirement::{Ia32, Tier2};
use bailiwick_tests::requirement::require;
use bailiwick_tests::workload::{Open, opens};
use serde_json::{Value, json};

/// What an entry says, without what differs between two runs.
fn done(entry: &Value) -> Value {
    let mut attributes = entry["attributes"].clone();
    // The created file is another one each time, and so is the near port.
    for name in ["bailiwick.file.inode", "network.local.port"] {
        if entry["event"] == "file.create" || name.starts_with("network") {
            attributes.as_object_mut().unwrap().remove(name);
        }
    }
    json!([entry["event"], entry["count"], entry["verdict"], attributes])
}

fn of_workload(trail: &Entries, tgid: u64, dir: &Path) -> Vec<Value> {
    let of_process = trail.process(tgid);
    let below = of_process.filter(|entry| {
        let path = entry["attributes"]["file.path"].as_str().unwrap_or_default();
        entry["event"] == "network.connect" || Path::new(path).starts_with(dir)
    });
    below.0.iter().map(done).collect()
}

#[test]
fn calls_of_32_bits_are_recorded_as_those_of_64_bits_are() {
    if !require(&[Tier2, Ia32]) {
        return;
    }
    let instance = Instance::start(&[Declaration::new("narrow")]);
    let narrow = instance.place().copy_of("narrow", "agent-narrow");
    let dir = instance.place().ways("ways");
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
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
    }
    let found = trail.opens().into_iter().filter(|(open, _)| Path::new(&open.path).starts_with(&dir));
    assert_eq!(found.collect::<BTreeMap<_, _>>(), expected);
    let of = |said: &Value| of_workload(&trail, said["processes"][0]["tgid"].as_u64().unwrap(), &dir);
    assert_eq!(of(&said_32), of(&said_64));
}
