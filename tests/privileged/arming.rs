//! The hooks that are attached only while a session lives, where the kernel refuses to attach them.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use bailiwick_tests::bounded::Running;
use bailiwick_tests::declaration::Declaration;
use bailiwick_tests::instance::Instance;
use bailiwick_tests::requirement::Requirement::Tier2;
use bailiwick_tests::requirement::require;
use rustix::process::{Resource, Rlimit, getrlimit, prlimit};

/// Waits until it holds.
fn until(what: &str, holds: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !holds() {
        assert!(Instant::now() < deadline, "{what}: not within 20 s");
        std::thread::sleep(Duration::from_millis(100));
    }
}

#[test]
fn hooks_that_cannot_be_attached_are_told_of_tried_again_and_a_gap() {
    const FREE: usize = 4;
    if !require(&[Tier2]) {
        return;
    }
    let place = bailiwick_tests::workload::Place::new();
    let agent = place.join("agent-sleep");
    std::fs::copy("/bin/sleep", &agent).unwrap();
    let instance = Instance::start(&[Declaration::new("sleeper").executable(&agent)]);
    let daemon = instance.daemon_pid();
    // Each hook takes a descriptor: some are left, which questions need, but not enough for all.
    let open = std::fs::read_dir(format!("/proc/{}/fd", daemon.as_raw_pid())).unwrap();
    let open: BTreeSet<u64> = open.filter_map(|entry| entry.unwrap().file_name().to_str()?.parse().ok()).collect();
    let last_free = (0..).filter(|fd| !open.contains(fd)).nth(FREE).unwrap();
    let limit = Rlimit { current: Some(last_free), maximum: getrlimit(Resource::Nofile).maximum };
    let before = prlimit(Some(daemon), Resource::Nofile, limit).unwrap();
    let sleeper = Running::start(std::process::Command::new(&agent).arg("600"));

    until("it is told of", || !instance.trail().event("sensor.degraded").is_empty());
    let degraded = instance.trail().event("sensor.degraded");
    let problem = degraded.only()["attributes"]["bailiwick.sensor.problem"].as_str().unwrap().to_owned();
    assert!(problem.starts_with("what agents do is not seen: "), "{problem}");
    let status = instance.call("status");
    assert!(!status.status.success() && status.stdout.contains(&problem), "{status:?}");

    prlimit(Some(daemon), Resource::Nofile, before).unwrap();
    until("it recovers", || instance.call("status").status.success());
    let trail = instance.synced_trail();
    let session = trail.event("session.start").only()["session"].clone();
    let gaps = trail.event("gap").filter(|gap| gap["session"] == session);
    let refused = gaps.filter(|gap| gap["gap"]["reason"] == "the hooks could not be attached");
    assert_eq!(refused.len(), 1, "{:#?}", gaps.0);
    assert!(refused.only()["gap"]["lost"].is_null(), "how much is not known");
    drop(sleeper);
}
