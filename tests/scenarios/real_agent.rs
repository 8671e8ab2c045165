//! The main job: a coding agent that nobody here wrote, watched from its first exec to its end.

use std::time::Duration;

use bailiwick_tests::bounded;
use bailiwick_tests::instance::{Instance, Setup};
use bailiwick_tests::receiver::Receiver;
use bailiwick_tests::requirement::Requirement::{Strace, Tier2, Venv};
use bailiwick_tests::requirement::require;
use bailiwick_tests::strace;
use serde_json::json;

use crate::mini::{LINES_MAX, Mini, NAME};
use crate::{compare, telemetry};

/// Under strace on two busy cores; alone it takes seconds.
const AGENT_WITHIN: Duration = Duration::from_secs(180);

#[test]
fn the_agent_alone_does_its_work_and_strace_understands_all_of_it() {
    if !require(&[Strace, Venv]) {
        return;
    }
    let mini = Mini::new();
    let prefix = mini.place().join("trace");
    let mut command = strace::command(&prefix, &mini.command_line());
    bounded::run(mini.prepare(&mut command), AGENT_WITHIN).success();
    mini.assert_done();

    let observed = strace::read(&prefix, &Mini::program()).unwrap();
    let key = mini.key().display().to_string();
    assert_eq!(observed.opens.keys().filter(|open| open.path == key).count(), 1, "the key is opened once");
    assert!(observed.processes.len() > 10 && observed.forks.len() + 1 == observed.processes.len());
    let ran = |name: &str| observed.execs.keys().any(|exec| exec.given.ends_with(name) && exec.errno.is_none());
    assert!(["/git", "/curl", "/sed", "/python3", "/sh"].into_iter().all(ran), "{:#?}", observed.execs);
    assert!(observed.connects.len() >= 2, "the model, and the page: {:?}", observed.connects);
}

#[test]
fn the_declaration_is_short() {
    let text = include_str!("../agents/mini-swe-agent.toml");
    let lines = text.lines().filter(|line| !line.trim().is_empty()).count();
    assert!(lines <= LINES_MAX, "{lines} lines");
}

#[test]
fn a_real_agent_is_seen_whole_and_its_one_step_out_of_scope_is_the_only_one() {
    if !require(&[Tier2, Strace, Venv]) {
        return;
    }
    let mini = Mini::new();
    let receiver = Receiver::start();
    let instance = Setup::new()
        .agent(&mini.declaration())
        .env("OTEL_EXPORTER_OTLP_ENDPOINT", receiver.grpc_endpoint())
        .env("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")
        .env("OTEL_METRIC_EXPORT_INTERVAL", "200")
        .start();
    let observed = run_observed(&mini, &instance);
    mini.assert_done();

    let trail = instance.synced_trail();
    let [session] = &trail.sessions()[..] else { panic!("not one session: {:?}", trail.sessions()) };
    let entries = trail.session(session);
    assert!(entries.filter(|entry| entry["agent"] != NAME).is_empty());
    assert!(trail.event("gap").is_empty(), "{:#?}", trail.event("gap").0);
    assert_eq!(entries.event("session.start").only()["process"]["tgid"], observed.root);
    compare::session(&entries, &observed);

    let out = entries.filter(|entry| entry["verdict"] == "out_of_scope");
    let paths: Vec<_> = out.0.iter().map(|entry| &entry["attributes"]).collect();
    assert_eq!(out.len(), 1, "the planted action is the only one: {paths:#?}");
    let planted = out.only();
    assert_eq!((&planted["event"], &planted["count"]), (&json!("file.open"), &json!(1)));
    assert_eq!(planted["attributes"]["file.path"], json!(mini.key()));
    assert_eq!(planted["reason"]["kind"], "rule");
    assert_eq!(planted["reason"]["text"], "**/.ssh/**");
    let explained = instance.call(&format!("explain {}", planted["uid"].as_str().unwrap())).success();
    assert!(explained.stdout.contains("**/.ssh/**"), "{}", explained.stdout);

    telemetry::same_counts(&instance, &receiver);
}

/// Runs the agent through `bailiwick run`, all of it under `strace`; the session begins where `run` executes the agent.
fn run_observed(mini: &Mini, instance: &Instance) -> strace::Observed {
    let prefix = mini.place().join("trace");
    let mut command = instance.run_traced_command(NAME, &mini.command_line(), &prefix);
    bounded::run(mini.prepare(&mut command), AGENT_WITHIN).success();
    strace::read(&prefix, &Mini::program()).unwrap()
}
