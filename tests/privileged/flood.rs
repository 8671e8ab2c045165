//! One that floods: it hides neither what others do, nor what it does itself that weighs more.

use bailiwick_tests::declaration::Declaration;
use bailiwick_tests::instance::Setup;
use bailiwick_tests::requirement::Requirement::Tier2;
use bailiwick_tests::requirement::require;
use bailiwick_tests::workload::DEADLINE;
use rustix::process::Signal;

/// Waits for `$1` to be there, bounded.
const WAIT: &str = "wait_for() { i=0; while [ ! -e \"$1\" ] && [ $i -lt 500 ]; do sleep 0.02; i=$((i+1)); done; }\n";

fn shell(script: &str) -> String {
    format!("{WAIT}{script}")
}

/// While the daemon drains nothing, `flood` is done in `DIR`, then `weighty` by the same session and `quiet` by another.
fn while_nobody_drains(flood: &str, weighty: &str, quiet: &str) -> bailiwick_tests::entries::Entries {
    let agents = [Declaration::new("loud"), Declaration::new("quiet")];
    let mut setup = Setup::new().env("BAILIWICK_RING_BYTES", "131072");
    for agent in &agents {
        setup = setup.agent(agent);
    }
    let instance = setup.start();
    let dir = instance.place().files("files", 3_000);
    let at = |name: &str| instance.place().join(name).display().to_string();
    let loud = shell(&format!(
        "cd {}; touch {}; wait_for {}; {flood}; {weighty}; echo > {}",
        dir.display(),
        at("loud-ready"),
        at("go"),
        at("flooded")
    ));
    // It waits without doing anything, however long the flood takes: what it did would be of its own share.
    let quiet = format!(
        "mkfifo {flooded}; exec 3<> {flooded}; touch {}; read -r x <&3; {quiet}; touch {}",
        at("quiet-ready"),
        at("done"),
        flooded = at("flooded")
    );
    let running = [instance.spawn("loud", &["sh", "-c", &loud]), instance.spawn("quiet", &["sh", "-c", &quiet])];
    let wait = |name: &str| {
        let path = instance.place().join(name);
        for _ in 0..1_000 {
            if path.exists() {
                return;
            }
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
        panic!("{} never came", path.display());
    };
    wait("loud-ready");
    wait("quiet-ready");
    instance.sync();
    instance.signal(Signal::STOP);
    std::fs::write(instance.place().join("go"), "").unwrap();
    wait("done");
    instance.signal(Signal::CONT);
    for running in running {
        running.finish(DEADLINE).success();
    }
    instance.synced_trail()
}

#[test]
fn a_session_that_floods_with_opens_leaves_room_for_anothers() {
    if !require(&[Tier2]) {
        return;
    }
    let trail = while_nobody_drains(
        "for f in f*; do read -r x < $f; done",
        ":",
        "for i in 1 2 3 4 5 6 7 8; do read -r x < /proc/sys/kernel/osrelease; done",
    );
    let of = |agent: &str| trail.agent(agent);
    assert!(of("loud").lost("file.open") > 0, "the flood was none");
    assert_eq!(of("quiet").lost("file.open"), 0);
    let opened =
        of("quiet").event("file.open").filter(|entry| entry["attributes"]["file.path"] == "/proc/sys/kernel/osrelease");
    assert_eq!(opened.count(), 8);
}

#[test]
fn a_session_that_floods_with_unlinks_hides_no_exec_of_its_own() {
    if !require(&[Tier2]) {
        return;
    }
    let trail = while_nobody_drains("rm -f f*", "/bin/true", "/bin/true");
    assert!(trail.agent("loud").lost("file.unlink") > 0, "the flood was none");
    for agent in ["loud", "quiet"] {
        let ran = trail.agent(agent).event("process.exec").filter(|entry| {
            entry["attributes"]["process.executable.path"].as_str().is_some_and(|path| path.ends_with("/true"))
        });
        assert_eq!(ran.len(), 1, "{agent}");
        assert_eq!(trail.agent(agent).lost("process.exec"), 0);
    }
    let unlinked = trail.agent("loud").event("file.unlink").count() + trail.agent("loud").lost("file.unlink");
    assert_eq!(unlinked, 3_000);
}
