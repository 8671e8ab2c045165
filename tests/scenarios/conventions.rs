//! The names of what is exported: those of the semantic conventions, or documented ones of our own.

use std::collections::BTreeSet;

use bailiwick_tests::declaration::Declaration;
use bailiwick_tests::instance::Setup;
use bailiwick_tests::receiver::Receiver;
use bailiwick_tests::requirement::Requirement::{Tier2, Venv};
use bailiwick_tests::requirement::require;
use bailiwick_tests::{bounded, conventions};
use serde_json::Value;

use crate::targets::exported;

/// Metrics go out on a timer, which no barrier waits for.
const METRICS_WITHIN: std::time::Duration = std::time::Duration::from_secs(30);

/// Listens, connects, accepts, sends and closes.
const TALKS: &str = "import socket
listener = socket.create_server(('127.0.0.1', 0))
caller = socket.create_connection(listener.getsockname())
taken, _ = listener.accept()
caller.sendall(b'x'); taken.recv(1); taken.close(); caller.close()
datagram = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
datagram.sendto(b'x', ('127.0.0.1', 9))";

/// The names of the attributes of each of these, of its links, and of its points.
fn names(of: &[Value]) -> BTreeSet<String> {
    let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let mut names = BTreeSet::new();
    for one in of {
        let points = ["sum", "gauge", "histogram"].into_iter().flat_map(|kind| list(&one[kind]["data_points"]));
        let parts = list(&one["links"]).into_iter().chain(points).chain([one.clone()]);
        for attribute in parts.flat_map(|part| list(&part["attributes"])) {
            names.insert(attribute["key"].as_str().unwrap().to_owned());
        }
    }
    names
}

#[test]
fn every_name_that_is_exported_is_of_the_conventions_or_documented() {
    if !require(&[Tier2, Venv]) {
        return;
    }
    let receiver = Receiver::start();
    let instance = Setup::new()
        .agent(&Declaration::new("deeds").with("[scope.files]\nread = [\"/usr/**\"]"))
        .agent(&Declaration::new("inner"))
        .env("OTEL_EXPORTER_OTLP_ENDPOINT", receiver.http_endpoint())
        .env("OTEL_METRIC_EXPORT_INTERVAL", "200")
        .env("TRACEPARENT", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")
        .env("TRACESTATE", "vendor=value")
        .start();
    let place = instance.place();
    std::fs::create_dir_all(place.join("deeds")).unwrap();
    for (workload, arguments) in [
        ("deeds", vec!["names".into(), place.join("deeds").into_os_string()]),
        ("deeds", vec!["privileges".into()]),
        ("storm", vec!["20".into()]),
    ] {
        let program = place.copy_of(workload, &format!("agent-{workload}-{}", arguments.len()));
        instance.run("deeds", &[vec![program.into_os_string()], arguments].concat()).success();
    }
    instance.run("deeds", &["python3", "-c", TALKS]).success();
    let run = format!("{} run --agent inner -- /bin/false", bailiwick_tests::workload::bailiwick().display());
    instance.run("deeds", &["/bin/sh", "-c", &run]);
    let trail = exported(&instance);
    let events: BTreeSet<&str> = trail.0.iter().map(|entry| entry["event"].as_str().unwrap()).collect();
    assert!(events.len() > 25, "few kinds of events: {events:?}");

    bounded::until("metrics", METRICS_WITHIN, || {
        receiver.session("").latest("bailiwick.sessions", &[("bailiwick.agent", "deeds")]) == Some(0)
    });
    let (logs, spans, metrics) = (receiver.log_records(), receiver.spans(), receiver.metrics());
    let resources = receiver.session("").resources();
    let documented = conventions::documented();
    for (what, of) in [("logs", &logs), ("spans", &spans), ("metrics", &metrics), ("resources", &resources)] {
        let names = names(of);
        assert!(!names.is_empty(), "no names of {what}");
        let is_known = |name: &&String| conventions::has_attribute(name) || documented.contains(*name);
        let strange: Vec<&String> = names.iter().filter(|name| !is_known(name)).collect();
        assert!(strange.is_empty(), "{what}: {strange:?}");
    }
    for metric in &metrics {
        let name = metric["name"].as_str().unwrap();
        assert!(conventions::has_metric(name) || documented.contains(name), "{name}");
    }
    let schemas = receiver.session("").schemas();
    assert_eq!(schemas, BTreeSet::from([conventions::SCHEMA_URL.to_owned()]));
}
