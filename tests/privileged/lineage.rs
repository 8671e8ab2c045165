//! On whose behalf: over su, setsid and a terminal multiplexer's server, and where it is lost.

use std::process::Command;
use std::time::Duration;

use bailiwick_tests::bounded;
use bailiwick_tests::declaration::Declaration;
use bailiwick_tests::instance::Instance;
use bailiwick_tests::requirement::Requirement::Tier2;
use bailiwick_tests::requirement::require;
use bailiwick_tests::workload::Place;
use serde_json::Value;

const SOON: Duration = Duration::from_secs(60);
/// Who an agent's parents are is read in /proc, while it lives.
const LIVES: &str = "#!/bin/sh\nsleep 2\n";

fn start_of(instance: &Instance) -> Value {
    let starts = || instance.synced_trail().event("session.start").agent("a");
    bounded::until("a session", SOON, || !starts().is_empty());
    starts().only().clone()
}

#[test]
fn who_called_su_is_known_though_the_agent_runs_as_another_and_in_a_session_of_its_own() {
    if !require(&[Tier2]) {
        return;
    }
    let place = Place::new();
    let script = place.script("agent", LIVES);
    let instance = Instance::start(&[Declaration::new("a").script(&script)]);
    let line = format!("setsid -w {}", script.display());
    bounded::run(Command::new("su").args(["-s", "/bin/sh", "nobody", "-c", &line]), SOON).success();
    let start = start_of(&instance);
    let principal = &start["principal"];
    assert_eq!((&principal["uid"], &principal["user"]), (&65_534.into(), &"nobody".into()), "{start}");
    assert_eq!((&principal["asked_by"]["uid"], &principal["through"][0]), (&0.into(), &"su".into()), "{start}");
    assert!(instance.trail().event("finding.lineage_lost").is_empty());
}

#[test]
fn it_is_lost_at_a_multiplexers_server_that_nobody_is_attached_to() {
    if !require(&[Tier2]) {
        return;
    }
    let place = Place::new();
    let script = place.script("agent", LIVES);
    let instance = Instance::start(&[Declaration::new("a").script(&script)]);
    let socket = place.join("tmux");
    let tmux = |arguments: &[&str]| {
        let mut command = Command::new("tmux");
        bounded::run(command.arg("-S").arg(&socket).args(arguments).env_remove("TMUX"), SOON)
    };
    tmux(&["new-session", "-d", "-s", "t", "sleep 60"]).success();
    let server: u32 = tmux(&["display-message", "-p", "#{pid}"]).success().stdout.trim().parse().unwrap();
    // The client that opens the window is attached for a moment; the agent begins when it has gone.
    tmux(&["new-window", &format!("sleep 1; exec {}", script.display())]).success();
    let start = start_of(&instance);
    let found = instance.synced_trail().event("finding.lineage_lost").only().clone();
    tmux(&["kill-server"]);
    assert_eq!(found["session"], start["session"]);
    assert_eq!(found["attributes"]["bailiwick.lineage.tgid"], server, "{found}");
    assert_eq!(found["attributes"]["bailiwick.lineage.program"], "tmux", "{found}");
    assert_eq!(found["attributes"]["bailiwick.finding.causes"][0], start["uid"]);
    assert_eq!(start["principal"]["through"][0], "tmux", "{start}");
}
