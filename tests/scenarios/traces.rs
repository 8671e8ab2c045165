//! The agent's own trace: a claim of its environment, to which spans are linked and which they join where that is
//! configured. Nothing else depends on it, whatever it says.

use std::collections::{BTreeMap, BTreeSet};

use bailiwick_tests::bounded::{self, Running};
use bailiwick_tests::declaration::Declaration;
use bailiwick_tests::entries::Entries;
use bailiwick_tests::instance::{Instance, Setup};
use bailiwick_tests::receiver::{Receiver, attribute};
use bailiwick_tests::requirement::Requirement::{Tier2, Venv};
use bailiwick_tests::requirement::require;
use bailiwick_tests::workload;
use base64::Engine;
use serde_json::Value;

use crate::targets::{exported, has_everything};

const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const SPAN: &str = "b7ad6b7169203331";

/// Reads a file, and runs something that says it is of another trace.
const SCRIPT: &str =
    "read -r x < /etc/hostname; TRACEPARENT=00-11111111111111111111111111111111-2222222222222222-00 /bin/true; exit 0";

fn start(receiver: &Receiver, settings: &str) -> Instance {
    Setup::new()
        .agent(&Declaration::new("traced").with("[scope.files]\nread = [\"/usr/**\"]"))
        .file("bailiwick.toml", settings)
        .env("OTEL_EXPORTER_OTLP_ENDPOINT", receiver.http_endpoint())
        .env("OTEL_METRIC_EXPORT_INTERVAL", "500")
        .start()
}

/// Runs the script with these variables.
fn run(instance: &Instance, variables: &[(&str, &str)]) {
    let mut command = instance.run_command("traced", &["/bin/sh", "-c", SCRIPT]);
    command.env_remove("TRACEPARENT").env_remove("TRACESTATE").envs(variables.iter().copied());
    bounded::run(&mut command, workload::DEADLINE).success();
}

fn hex(id: &Value) -> String {
    let bytes = base64::engine::general_purpose::STANDARD.decode(id.as_str().unwrap_or_default()).unwrap();
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The spans of a session, by name: its own is called as the agent, a process as its image (the shell is `dash`).
fn spans(receiver: &Receiver, session: &str) -> BTreeMap<String, Value> {
    let of_session = |span: &Value| attribute(span, "session.id").as_deref() == Some(session);
    let spans = receiver.spans().into_iter().filter(of_session);
    spans.map(|span| (span["name"].as_str().unwrap().to_owned(), span)).collect()
}

/// Where the links of a span lead that are to an agent's trace.
fn links(span: &Value) -> Vec<String> {
    let links = span["links"].as_array().cloned().unwrap_or_default();
    let to_agent = links.iter().filter(|link| attribute(link, "bailiwick.link").as_deref() == Some("agent_trace"));
    to_agent.map(|link| format!("{}-{}", hex(&link["trace_id"]), hex(&link["span_id"]))).collect()
}

/// What must not depend on a trace context: all of it, but for ids, times and the variables themselves.
fn identity(trail: &Entries, session: &str) -> Vec<String> {
    let entries = trail.session(session);
    let mut said: Vec<String> = entries
        .0
        .iter()
        .map(|entry| {
            let of = |key: &str| &entry["attributes"][key];
            let keys = ["agent", "delegation", "principal", "attribution", "verdict", "count"].map(|key| &entry[key]);
            format!("{} {keys:?} {} {}", entry["event"], of("file.path"), of("process.executable.path"))
        })
        .collect();
    said.sort();
    said
}

#[test]
fn spans_link_to_the_trace_that_an_environment_names_and_nothing_else_depends_on_it() {
    if !require(&[Tier2, Venv]) {
        return;
    }
    let receiver = Receiver::start();
    let instance = start(&receiver, "");
    run(&instance, &[]);
    instance.sync();
    let plain = instance.trail().sessions().remove(0);
    exported(&instance);
    let plain_spans = spans(&receiver, &plain);
    let plain_trace = hex(&plain_spans["traced"]["trace_id"]);
    // Forged: the trace and the span of another session of ours; and it says that nobody wants to see it.
    let forged = format!("00-{plain_trace}-{}-00", hex(&plain_spans["traced"]["span_id"]));
    run(&instance, &[("TRACEPARENT", &forged), ("TRACESTATE", "vendor=a1")]);
    run(&instance, &[("TRACEPARENT", "00-nothing-01")]);
    let trail = exported(&instance);
    let [_, claimed, wrong] = &trail.sessions()[..] else { panic!("{:?}", trail.sessions()) };
    let (claimed_spans, wrong_spans) = (spans(&receiver, claimed), spans(&receiver, wrong));

    let to_plain = forged[3..forged.len() - 3].to_owned();
    assert_eq!(links(&claimed_spans["traced"]), [to_plain.clone()]);
    assert_eq!(links(&claimed_spans["dash"]), [to_plain]);
    assert_eq!(claimed_spans["traced"]["links"][0]["trace_state"], "vendor=a1");
    let others = format!("{}-{}", "1".repeat(32), "2".repeat(16));
    for spans in [&plain_spans, &claimed_spans, &wrong_spans] {
        assert_eq!(links(&spans["true"]), [others.clone()]);
    }
    assert!(links(&plain_spans["traced"]).is_empty() && links(&wrong_spans["traced"]).is_empty());

    let traces: BTreeSet<String> =
        [&plain_spans, &claimed_spans, &wrong_spans].map(|spans| hex(&spans["traced"]["trace_id"])).into();
    assert_eq!(traces.len(), 3, "each in a trace of its own");
    assert_eq!(identity(&trail, claimed), identity(&trail, &plain));
    assert_eq!(identity(&trail, wrong), identity(&trail, &plain));
    has_everything(&receiver, "", &trail);
}

#[test]
fn where_it_is_configured_a_session_joins_the_trace_that_it_came_with_and_stays_who_it_is() {
    if !require(&[Tier2, Venv]) {
        return;
    }
    let receiver = Receiver::start();
    let mut instance = start(&receiver, "[export]\njoin_traces = true\n");
    run(&instance, &[]);
    run(&instance, &[("TRACEPARENT", &format!("00-{TRACE}-{SPAN}-01")), ("TRACESTATE", "vendor=a1")]);
    exported(&instance);
    // After a restart what was joined is still known.
    assert_eq!(instance.stop(), Some(0));
    instance.start_daemon();
    let trail = exported(&instance);
    let [alone, joined] = &trail.sessions()[..] else { panic!("{:?}", trail.sessions()) };
    let (alone_spans, joined_spans) = (spans(&receiver, alone), spans(&receiver, joined));

    assert_eq!(hex(&joined_spans["traced"]["parent_span_id"]), SPAN);
    assert_eq!(joined_spans["traced"]["trace_state"], "vendor=a1");
    assert!(joined_spans.values().all(|span| hex(&span["trace_id"]) == TRACE), "{joined_spans:?}");
    assert_eq!(joined_spans["dash"]["parent_span_id"], joined_spans["traced"]["span_id"]);
    assert_eq!((links(&joined_spans["traced"]).len(), links(&joined_spans["true"]).len()), (0, 1));
    assert!(alone_spans["traced"]["parent_span_id"].as_str().unwrap_or_default().is_empty());
    let records = receiver.log_records();
    let of = |session: &str| {
        let of_session = |record: &&Value| attribute(record, "session.id").as_deref() == Some(session);
        records.iter().filter(of_session).map(|record| hex(&record["trace_id"])).collect::<BTreeSet<_>>()
    };
    assert_eq!(of(joined), BTreeSet::from([TRACE.to_owned()]));
    assert_eq!(of(alone), BTreeSet::from([hex(&alone_spans["traced"]["trace_id"])]));
    assert_eq!(identity(&trail, joined), identity(&trail, alone));
    has_everything(&receiver, "", &trail);
}

#[test]
fn what_ran_before_the_daemon_is_linked_by_the_environment_that_it_was_started_with() {
    if !require(&[Tier2, Venv]) {
        return;
    }
    let receiver = Receiver::start();
    let mut instance = Setup::new().env("OTEL_EXPORTER_OTLP_ENDPOINT", receiver.http_endpoint()).prepare();
    let sleep = instance.place().join("agent-sleep");
    std::fs::copy("/bin/sleep", &sleep).unwrap();
    let declaration = Declaration::new("traced").executable(&sleep);
    instance.write(&declaration.file(), declaration.text());
    let claimed = format!("00-{TRACE}-{SPAN}-01");
    let mut sleeping = std::process::Command::new(&sleep);
    let sleeping = Running::start(sleeping.arg("60").env("TRACEPARENT", &claimed));
    instance.start_daemon();
    let trail = instance.synced_trail();
    let start = trail.event("session.start");
    let attributes = &start.only()["attributes"];
    assert_eq!(attributes["process.environment_variable.TRACEPARENT"], claimed);
    assert_eq!(attributes["bailiwick.session.adopted"], true);
    drop(sleeping);
    let session = trail.sessions().remove(0);
    let ended = || {
        exported(&instance);
        spans(&receiver, &session).len() == 2
    };
    bounded::until("the spans of what has ended", workload::DEADLINE, ended);
    let spans = spans(&receiver, &session);
    assert!(spans.values().all(|span| links(span) == [format!("{TRACE}-{SPAN}")]), "{spans:?}");
}
