//! What arrived at a real receiver, against the trail.

use std::collections::BTreeSet;
use std::time::Duration;

use bailiwick_tests::bounded;
use bailiwick_tests::declaration::Declaration;
use bailiwick_tests::entries::Entries;
use bailiwick_tests::instance::{Instance, Setup};
use bailiwick_tests::receiver::{Receiver, distinct};
use bailiwick_tests::requirement::Requirement::{Tier2, Venv};
use bailiwick_tests::requirement::require;

/// Metrics go out on a timer, which no barrier waits for.
const METRICS_WITHIN: Duration = Duration::from_secs(30);

/// Asserts that traces, logs and metrics say what the trail says. Every session must have ended.
#[track_caller]
pub(crate) fn same_counts(instance: &Instance, receiver: &Receiver) {
    instance.call("sync --exported").success();
    let trail = instance.trail();

    let records = receiver.log_records();
    let uids: BTreeSet<String> = trail.0.iter().map(|entry| entry["uid"].as_str().unwrap().to_owned()).collect();
    assert_eq!(uids.len(), trail.len(), "a uid is unique");
    assert_eq!(distinct(&records, "log.record.uid"), uids);
    for record in &records {
        let name = record["event_name"].as_str().unwrap_or_default();
        assert!(!name.is_empty(), "no event name: {record}");
    }

    let spans = receiver.spans();
    let ids: BTreeSet<&str> = spans.iter().map(|span| span["span_id"].as_str().unwrap()).collect();
    let (sessions, ended) = (trail.event("session.end").len(), trail.event("process.exit").len());
    assert!(sessions > 0, "nothing happened");
    assert_eq!(sessions, trail.event("session.start").len(), "every session has ended");
    assert_eq!(ids.len(), sessions + ended, "a span for each session and each process in it");
    let traces: BTreeSet<&str> = spans.iter().map(|span| span["trace_id"].as_str().unwrap()).collect();
    assert_eq!(traces.len(), sessions, "a trace for each session");
    let parents = spans.iter().filter_map(|span| span["parent_span_id"].as_str());
    assert!(parents.clone().all(|parent| ids.contains(parent)), "a parent is missing");
    assert_eq!(parents.count(), ended, "only a session's span has no parent");
    let of_sessions: Vec<_> = records.iter().filter(|record| record["trace_id"].is_string()).collect();
    assert!(of_sessions.iter().all(|record| traces.contains(record["trace_id"].as_str().unwrap())));

    let totals = [("bailiwick.entries", trail.len() as u64), ("bailiwick.events", trail.count())];
    for (name, expected) in totals {
        bounded::until(name, METRICS_WITHIN, || receiver.session("").sum(name, &[]) == expected);
    }
    by_verdict(receiver, &trail);
}

#[track_caller]
fn by_verdict(receiver: &Receiver, trail: &Entries) {
    for verdict in ["in_scope", "out_of_scope", "none"] {
        let sum = receiver.session("").sum("bailiwick.entries", &[("bailiwick.verdict", verdict)]);
        assert_eq!(sum, trail.filter(|entry| entry["verdict"] == verdict).len() as u64, "{verdict}");
    }
}

#[test]
fn over_http_the_receiver_gets_what_the_trail_has() {
    if !require(&[Tier2, Venv]) {
        return;
    }
    let receiver = Receiver::start();
    let instance = Setup::new()
        .agent(&Declaration::new("storm"))
        .env("OTEL_EXPORTER_OTLP_ENDPOINT", receiver.http_endpoint())
        .env("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf")
        .env("OTEL_METRIC_EXPORT_INTERVAL", "200")
        .start();
    let storm = instance.place().copy_of("storm", "agent-storm");
    for _ in 0..2 {
        instance.run("storm", &[storm.as_os_str(), "300".as_ref()]).success();
    }
    instance.sync();
    same_counts(&instance, &receiver);
    let status = instance.json("status --json");
    for signal in status["export"].as_array().unwrap() {
        assert_eq!((&signal["pending"], &signal["dead_lettered"]), (&0.into(), &0.into()), "{status}");
    }
}
