//! Sessions that live for weeks: they are seen while they live, and a span comes when what it stands for has ended.

use bailiwick_tests::bounded;
use bailiwick_tests::declaration::Declaration;
use bailiwick_tests::instance::Setup;
use bailiwick_tests::receiver::{Receiver, attribute};
use bailiwick_tests::requirement::Requirement::{Tier2, Venv};
use bailiwick_tests::requirement::require;

use crate::targets::exported;

const TOLD_WITHIN: std::time::Duration = std::time::Duration::from_secs(30);

#[test]
fn a_session_that_lives_is_seen_by_its_start_its_execs_and_a_gauge_and_has_its_spans_as_they_end() {
    if !require(&[Tier2, Venv]) {
        return;
    }
    let receiver = Receiver::start();
    let instance = Setup::new()
        .agent(&Declaration::new("sleeper"))
        .env("OTEL_EXPORTER_OTLP_ENDPOINT", receiver.http_endpoint())
        .env("OTEL_METRIC_EXPORT_INTERVAL", "200")
        .start();
    let dir = instance.place().ways("lives");
    let lives = dir.join("plain");
    // Waits without running anything else. Ends when the file has gone, or after a minute whatever happens.
    let script = format!(
        "/bin/true; exec 3<>{}; i=0; while [ -e {} ] && [ $i -lt 600 ]; do i=$((i+1)); read -r -t 0.1 -u 3 x; done; exit 0",
        dir.join("fifo").display(),
        lives.display()
    );
    let session = instance.spawn("sleeper", &["/bin/bash", "-c", &script]);
    let of = |event: &str| {
        let records = receiver.log_records();
        records.into_iter().filter(|record| record["event_name"] == event).collect::<Vec<_>>()
    };
    let sleepers = || receiver.session("").latest("bailiwick.sessions", &[("bailiwick.agent", "sleeper")]);
    bounded::until("the exec of true has ended", TOLD_WITHIN, || {
        instance.call("sync --exported").success();
        !of("process.exit").is_empty()
    });
    let start = of("session.start");
    let [start] = start.as_slice() else { panic!("{start:?}") };
    assert_eq!(attribute(start, "bailiwick.agent").as_deref(), Some("sleeper"));
    assert!(start["trace_id"].is_string() && start["span_id"].is_string(), "{start}");
    assert!(of("process.exec").len() >= 2, "the shell and what it ran");
    bounded::until("the gauge", TOLD_WITHIN, || sleepers() == Some(1));
    let spans = receiver.spans();
    let names: Vec<&str> = spans.iter().map(|span| span["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["true"], "what has ended has its span, and nothing else");
    assert_eq!(spans[0]["trace_id"], start["trace_id"]);
    assert_eq!(spans[0]["parent_span_id"], start["span_id"], "below the shell, which still runs");

    std::fs::remove_file(&lives).unwrap();
    session.finish(TOLD_WITHIN).success();
    instance.sync();
    exported(&instance);
    let spans = receiver.spans();
    let names: std::collections::BTreeSet<&str> = spans.iter().map(|span| span["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["bash", "sleeper", "true"].into());
    assert!(spans.iter().all(|span| span["trace_id"] == start["trace_id"]), "{spans:?}");
    bounded::until("the gauge again", TOLD_WITHIN, || sleepers() == Some(0));
}
