#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test that cannot go on says so by panicking"
)]

mod receiver;

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::runtime::Handle;
use tonic::Code;

use self::receiver::{Answer, Receiver, text};
use super::{Backoff, ExportSettings, Exporters, NamedFile, Signal, host_resource, ids};
use crate::entry::{Delegator, Draft, Gap, Principal, ProcessRef, SessionId, Timestamp, Verdict};
use crate::metrics::Registry;
use crate::trail::{Trail, TrailOptions};

const ANYWHERE: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 0);
const LONG: Duration = Duration::from_secs(30);
const S: u64 = 1_000_000_000;

fn settings(address: SocketAddr, protocol: &str, more: &[(&str, &str)]) -> ExportSettings {
    let endpoint = format!("http://{address}");
    let lookup = |name: &str| match name {
        "OTEL_EXPORTER_OTLP_ENDPOINT" => Some(endpoint.clone()),
        "OTEL_EXPORTER_OTLP_PROTOCOL" => Some(protocol.to_owned()),
        _ => more.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned()),
    };
    let mut settings = ExportSettings::from_variables(lookup, &[]).unwrap();
    settings.targets[0].backoff = Backoff { first: Duration::from_millis(20), longest: Duration::from_millis(100) };
    settings
}

fn start(state: &Path, trail: &Trail, settings: &ExportSettings) -> Exporters {
    Exporters::start(
        &Handle::current(),
        state,
        settings,
        trail.subscribe_synced(),
        host_resource(),
        &Registry::default().into(),
    )
    .unwrap()
}

fn open(state: &Path) -> Trail {
    Trail::open(state, TrailOptions::default()).unwrap().trail
}

fn of_session(event: &str, at: u64, process: Option<(u32, u64)>, attributes: &[(&str, Value)]) -> Draft {
    let mut draft = Draft::of_host(Timestamp(1_700_000_000 * S + at), event);
    draft.agent = Some("code-assistant".to_owned());
    draft.session = Some(SessionId(0xA));
    draft.principal = Some(Principal {
        uid: 1000,
        user: Some("sre".to_owned()),
        login_uid: None,
        via: Some("run".to_owned()),
        ..Principal::default()
    });
    let executable = Some("/usr/bin/git".to_owned());
    draft.process = process.map(|(tgid, start_boot_ns)| ProcessRef { tgid, tid: tgid, start_boot_ns, executable });
    draft.attributes.extend(attributes.iter().map(|(key, value)| ((*key).to_owned(), value.clone())));
    draft
}

fn opened(number: u64) -> Draft {
    let mut draft = of_session("file.open", number, Some((11, 500)), &[("file.path", json!(format!("/srv/{number}")))]);
    draft.count = 2;
    draft.verdict = if number.is_multiple_of(10) { Verdict::OutOfScope } else { Verdict::InScope };
    draft
}

/// A session of two processes that opens files: 8 entries and as many more as are asked for.
fn story(opens: u64) -> Vec<Draft> {
    let mut story = vec![
        Draft::of_host(Timestamp(1_700_000_000 * S), "sensor.start"),
        of_session("session.start", 1, Some((10, 400)), &[]),
        of_session("process.exec", 2, Some((11, 500)), &[("process.executable.path", json!("/usr/bin/cargo"))]),
    ];
    story.extend((0..opens).map(opened));
    let mut gap = of_session("gap", 5, None, &[("bailiwick.gap.lost", json!(7))]);
    gap.gap = Some(Gap {
        kind: "file.open".to_owned(),
        session: gap.session,
        lost: Some(7),
        from: Timestamp(1),
        to: Timestamp(2),
        reason: "the ring was full".to_owned(),
    });
    let created = json!("2023-11-14T22:13:20.000000002Z");
    let mut child = of_session(
        "process.exit",
        6,
        Some((11, 500)),
        &[
            ("process.exit.code", json!(3)),
            ("process.parent_pid", json!(10)),
            ("bailiwick.process.parent_start_boot_ns", json!("400")),
            ("process.creation.time", created.clone()),
            ("process.executable.path", json!("/usr/bin/cargo")),
            ("process.command_args", json!(["cargo", "test"])),
        ],
    );
    child.count = 1;
    let mut root = of_session(
        "process.exit",
        7,
        Some((10, 400)),
        &[("process.exit.code", json!(0)), ("process.parent_pid", json!(1)), ("process.creation.time", created)],
    );
    root.count = 1;
    let mut end = of_session(
        "session.end",
        8,
        None,
        &[("bailiwick.session.start_time", json!("2023-11-14T22:13:20.000000001Z"))],
    );
    end.delegation = vec![
        Delegator { agent: "outermost".to_owned(), session: SessionId(1) },
        Delegator { agent: "delegator".to_owned(), session: SessionId(2) },
    ];
    story.extend([gap, child, root, end, Draft::of_host(Timestamp(1_700_000_000 * S + 9), "sensor.stop")]);
    story
}

fn append(trail: &mut Trail, drafts: Vec<Draft>) -> BTreeSet<String> {
    let entries = trail.append(drafts).unwrap();
    trail.sync().unwrap();
    entries.iter().map(|entry| entry.uid.clone()).collect()
}

fn all_arrived(receiver: &Receiver, uids: &BTreeSet<String>, opens: i64) {
    assert_eq!(&receiver.uids(), uids);
    assert_eq!(receiver.kept().logs.len(), uids.len(), "nothing came twice");
    assert_eq!(receiver.kept().spans.len(), 3);
    assert_eq!(receiver.sum("bailiwick.entries", &[]), i64::try_from(uids.len()).unwrap());
    let of_opens = [("bailiwick.event", "file.open"), ("bailiwick.agent", "code-assistant")];
    assert_eq!(receiver.sum("bailiwick.entries", &of_opens), opens);
    assert_eq!(receiver.sum("bailiwick.events", &of_opens), 2 * opens);
    assert_eq!(receiver.sum("bailiwick.events", &[("bailiwick.verdict", "out_of_scope")]), 2 * opens / 10);
    assert_eq!(receiver.sum("bailiwick.events", &[]), 2 * opens + 2);
    assert_eq!(receiver.sum("bailiwick.lost", &[("bailiwick.event", "file.open")]), 7);
    assert_eq!(receiver.sum("bailiwick.sessions", &[]), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn every_entry_arrives_over_grpc_with_the_counts_of_the_trail() {
    for (compression, encoding) in [("none", None), ("gzip", Some("gzip")), ("zstd", Some("zstd"))] {
        let (state, receiver) = (TempDir::new().unwrap(), Receiver::default());
        let (address, _serving) = receiver.serve_grpc(ANYWHERE).await;
        let mut trail = open(state.path());
        let more = [("OTEL_EXPORTER_OTLP_HEADERS", "x-tenant=a%20b"), ("OTEL_EXPORTER_OTLP_COMPRESSION", compression)];
        let exporters = start(state.path(), &trail, &settings(address, "grpc", &more));
        let uids = append(&mut trail, story(2_000));
        exporters.flush(trail.last_seq(), LONG).await.unwrap();
        all_arrived(&receiver, &uids, 2_000);
        for status in exporters.status() {
            let acknowledged = (status.target.as_str(), status.acknowledged, status.pending, status.error);
            assert_eq!(acknowledged, ("otlp", 2_008, 0, None));
        }
        assert!(receiver.kept().headers.iter().all(|headers| headers["x-tenant"] == "a b"));
        assert_compressed(&receiver, "grpc-encoding", encoding);
        assert!(receiver.kept().sizes.iter().all(|(_, records)| *records <= 512));
        exporters.stop(LONG).await;
    }
}

fn assert_compressed(receiver: &Receiver, header: &str, encoding: Option<&str>) {
    for headers in &receiver.kept().headers {
        assert_eq!(headers.get(header).map(|value| value.to_str().unwrap()), encoding);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_entry_arrives_over_http_with_the_counts_of_the_trail() {
    for (compression, encoding) in [("none", None), ("gzip", Some("gzip")), ("zstd", Some("zstd"))] {
        let (state, receiver) = (TempDir::new().unwrap(), Receiver::default());
        let (address, _serving) = receiver.serve_http(ANYWHERE).await;
        let mut trail = open(state.path());
        let more = [("OTEL_EXPORTER_OTLP_HEADERS", "x-tenant=b"), ("OTEL_EXPORTER_OTLP_COMPRESSION", compression)];
        let exporters = start(state.path(), &trail, &settings(address, "http/protobuf", &more));
        let uids = append(&mut trail, story(600));
        exporters.flush(trail.last_seq(), LONG).await.unwrap();
        all_arrived(&receiver, &uids, 600);
        assert!(receiver.kept().headers.iter().all(|headers| headers["x-tenant"] == "b"));
        assert_compressed(&receiver, "content-encoding", encoding);
        exporters.stop(LONG).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_target_has_its_own_place_and_holds_up_no_other() {
    let (state, ready, late) = (TempDir::new().unwrap(), Receiver::default(), Receiver::default());
    let (address, _serving) = ready.serve_grpc(ANYWHERE).await;
    let (late_address, _late_serving) = late.serve_http(ANYWHERE).await;
    late.answer("logs", vec![Answer::Http(401); 1_000]);
    let mut all = settings(address, "grpc", &[]);
    let mut second = settings(late_address, "http/protobuf", &[]).targets.remove(0);
    second.name = "second".to_owned();
    second.signals.retain(|signal| signal.signal != Signal::Traces);
    all.targets.push(second);
    let mut trail = open(state.path());
    let exporters = start(state.path(), &trail, &all);
    let uids = append(&mut trail, story(100));
    let error = exporters.flush(trail.last_seq(), Duration::from_millis(500)).await.unwrap_err();
    assert_eq!((error.target.as_str(), error.signal, error.acknowledged), ("second", "logs", 0));
    let pending = |exporters: &Exporters| -> Vec<_> {
        exporters.status().into_iter().map(|status| (status.target, status.signal, status.pending)).collect()
    };
    let expected = [("otlp", "logs", 0), ("otlp", "traces", 0), ("otlp", "metrics", 0), ("second", "logs", 108)];
    let expected = expected.into_iter().chain([("second", "metrics", 0)]);
    let expected: Vec<_> = expected.map(|(target, signal, pending)| (target.to_owned(), signal, pending)).collect();
    assert_eq!(pending(&exporters), expected);
    all_arrived(&ready, &uids, 100);
    exporters.stop(LONG).await;

    late.kept().answers.clear();
    let exporters = start(state.path(), &trail, &all);
    exporters.flush(trail.last_seq(), LONG).await.unwrap();
    assert_eq!((late.uids(), late.kept().spans.len()), (uids.clone(), 0));
    all_arrived(&ready, &uids, 100);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_is_one_trace_of_which_its_entries_are_records() {
    let (state, receiver) = (TempDir::new().unwrap(), Receiver::default());
    let (address, _serving) = receiver.serve_grpc(ANYWHERE).await;
    let mut trail = open(state.path());
    let exporters = start(state.path(), &trail, &settings(address, "grpc", &[]));
    append(&mut trail, story(10));
    exporters.flush(trail.last_seq(), LONG).await.unwrap();

    let kept = receiver.kept();
    let session = SessionId(0xA);
    let trace = ids::trace_id(session).to_bytes().to_vec();
    let root_id = ids::session_span_id(session).to_bytes().to_vec();
    let [parent_id, child_id] =
        [(10, 400), (11, 500)].map(|(tgid, start)| ids::process_span_id(session, tgid, start).to_bytes().to_vec());
    let span = |id: &Vec<u8>| kept.spans.iter().find(|span| &span.span_id == id).unwrap();
    assert!(kept.spans.iter().all(|span| span.trace_id == trace && span.kind == 1));

    let root = span(&root_id);
    assert_eq!((root.name.as_str(), root.parent_span_id.as_slice()), ("code-assistant", [].as_slice()));
    assert_eq!((root.start_time_unix_nano, root.end_time_unix_nano), (1_700_000_000 * S + 1, 1_700_000_000 * S + 8));
    assert_eq!(root.links.len(), 1);
    assert_eq!(root.links[0].span_id, ids::session_span_id(SessionId(2)).to_bytes(), "the nearest delegator is linked");

    let parent = span(&parent_id);
    assert_eq!((parent.name.as_str(), &parent.parent_span_id, &parent.status), ("git", &root_id, &None));
    let child = span(&child_id);
    assert_eq!((child.name.as_str(), &child.parent_span_id), ("cargo", &parent_id));
    assert_eq!((child.start_time_unix_nano, child.end_time_unix_nano), (1_700_000_000 * S + 2, 1_700_000_000 * S + 6));
    assert_eq!((child.status.as_ref().unwrap().code, text(&child.attributes, "error.type")), (2, Some("3".to_owned())));
    assert_eq!(text(&child.attributes, "process.executable.path").unwrap(), "/usr/bin/cargo");

    let record = |event: &str| kept.logs.iter().find(|record| record.event_name == event).unwrap();
    let open = record("file.open");
    assert_eq!((&open.trace_id, &open.span_id), (&trace, &child_id));
    assert_eq!((open.severity_number, text(&open.attributes, "session.id")), (13, Some("000000000000000a".to_owned())));
    assert_eq!(text(&open.attributes, "process.pid").unwrap(), "11");
    assert_eq!((&record("gap").span_id, record("gap").severity_number), (&root_id, 17));
    assert!(record("sensor.start").trace_id.is_empty());
    let exec = record("process.exec");
    let paths = exec.attributes.iter().filter(|attribute| attribute.key == "process.executable.path");
    assert_eq!(paths.count(), 1, "an attribute stands once");
    assert_eq!(text(&exec.attributes, "process.executable.path").unwrap(), "/usr/bin/cargo");
    assert_eq!(text(&kept.resources[0].attributes, "service.name").unwrap(), "bailiwick");
    assert_eq!(text(&kept.resources[0].attributes, "service.instance.id").unwrap(), trail.identity().id);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_receiver_that_comes_late_gets_everything() {
    let (state, receiver) = (TempDir::new().unwrap(), Receiver::default());
    let reserved = std::net::TcpListener::bind(ANYWHERE).unwrap();
    let address = reserved.local_addr().unwrap();
    drop(reserved);
    for protocol in ["grpc", "http/protobuf"] {
        let state = state.path().join(protocol.replace('/', "-"));
        let mut trail = open(&state);
        let exporters = start(&state, &trail, &settings(address, protocol, &[]));
        let uids = append(&mut trail, story(1_000));
        let error = exporters.flush(trail.last_seq(), Duration::from_millis(300)).await.unwrap_err();
        assert_eq!((error.signal, error.acknowledged, error.wanted), ("logs", 0, 1_008));
        assert!(error.error.as_ref().unwrap().to_lowercase().contains("connect"), "{error}");
        assert_eq!(exporters.status()[0].pending, 1_008);
        let receiver = if protocol == "grpc" { Receiver::default() } else { receiver.clone() };
        let serving = match protocol {
            "grpc" => receiver.serve_grpc(address).await.1,
            _ => receiver.serve_http(address).await.1,
        };
        exporters.flush(trail.last_seq(), LONG).await.unwrap();
        all_arrived(&receiver, &uids, 1_000);
        exporters.stop(LONG).await;
        serving.abort();
        let _ = serving.await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_signal_that_is_refused_holds_up_no_other_and_loses_nothing() {
    let (state, receiver) = (TempDir::new().unwrap(), Receiver::default());
    let (address, _serving) = receiver.serve_grpc(ANYWHERE).await;
    let mut trail = open(state.path());
    receiver.answer("logs", [Code::Unauthenticated; 3].map(Answer::Grpc));
    receiver.answer("logs", [Code::Unavailable, Code::Internal, Code::Unimplemented].map(Answer::Grpc));
    receiver.answer("logs", vec![Answer::Grpc(Code::PermissionDenied); 20]);
    let exporters = start(state.path(), &trail, &settings(address, "grpc", &[]));
    let uids = append(&mut trail, story(100));
    let error = exporters.flush(trail.last_seq(), Duration::from_millis(500)).await.unwrap_err();
    assert_eq!((error.signal, error.acknowledged), ("logs", 0));
    let of_others: Vec<_> = exporters.status().iter().map(|status| (status.signal, status.pending)).collect();
    assert_eq!(of_others, [("logs", 108), ("traces", 0), ("metrics", 0)]);
    exporters.flush(trail.last_seq(), LONG).await.unwrap();
    all_arrived(&receiver, &uids, 100);
    assert_eq!(exporters.status()[0].error, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_place_and_the_totals_survive_a_restart() {
    let (state, receiver) = (TempDir::new().unwrap(), Receiver::default());
    let (address, _serving) = receiver.serve_grpc(ANYWHERE).await;
    let settings = settings(address, "grpc", &[]);
    let mut trail = open(state.path());
    let exporters = start(state.path(), &trail, &settings);
    let mut uids = append(&mut trail, story(50));
    exporters.flush(trail.last_seq(), LONG).await.unwrap();
    exporters.stop(LONG).await;
    uids.extend(append(&mut trail, (50..100).map(opened).collect()));
    drop(trail);

    let trail = open(state.path());
    let exporters = start(state.path(), &trail, &settings);
    assert_eq!(exporters.status()[0].acknowledged, 58);
    exporters.flush(trail.last_seq(), LONG).await.unwrap();
    all_arrived(&receiver, &uids, 100);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_export_that_is_broken_off_is_taken_up_again_and_loses_nothing() {
    let (state, receiver) = (TempDir::new().unwrap(), Receiver::default());
    let (address, _serving) = receiver.serve_grpc(ANYWHERE).await;
    let settings = settings(address, "grpc", &[]);
    let mut trail = open(state.path());
    let uids = append(&mut trail, story(20_000));
    for round in 0..5 {
        // Dropped, not stopped: nothing is kept that was not kept before, as after kill -9.
        let exporters = start(state.path(), &trail, &settings);
        let _ = exporters.flush(trail.last_seq(), Duration::from_millis(20 * round)).await;
    }
    let exporters = start(state.path(), &trail, &settings);
    exporters.flush(trail.last_seq(), LONG).await.unwrap();
    assert_eq!(receiver.uids(), uids);
    assert_eq!(receiver.sum("bailiwick.entries", &[]), 20_008);
}

fn dead_letters(state: &Path, file: &str) -> Vec<Value> {
    let text = std::fs::read_to_string(state.join("dead-letters").join(file)).unwrap_or_default();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_partial_success_leaves_out_is_counted_and_a_dead_letter() {
    let (state, receiver) = (TempDir::new().unwrap(), Receiver::default());
    let (address, _serving) = receiver.serve_http(ANYWHERE).await;
    let mut trail = open(state.path());
    receiver.answer("logs", [Answer::Http(503), Answer::Partly(2)]);
    let exporters = start(state.path(), &trail, &settings(address, "http/protobuf", &[]));
    let uids = append(&mut trail, story(10));
    exporters.flush(trail.last_seq(), LONG).await.unwrap();
    let refused = |exporters: &Exporters| -> Vec<_> {
        exporters.status().iter().map(|status| (status.rejected, status.dead_lettered)).collect()
    };
    assert_eq!(refused(&exporters), [(2, 2), (0, 0), (0, 0)]);
    let counts = exporters.status();
    assert_eq!((counts[0].sent, counts[0].retried, counts[1].sent, counts[1].retried), (16, 1, 3, 0));
    let letters = dead_letters(state.path(), "otlp.logs.jsonl");
    let [letter] = letters.as_slice() else { panic!("one letter: {letters:?}") };
    assert_eq!(
        (&letter["target"], &letter["signal"], &letter["rejected"]),
        (&json!("otlp"), &json!("logs"), &json!(2))
    );
    assert_eq!(letter["why"], "two of them are bad");
    let among: BTreeSet<String> = serde_json::from_value(letter["uids"].clone()).unwrap();
    assert_eq!(among, uids, "which of them OTLP does not say");
    exporters.stop(LONG).await;
    let exporters = start(state.path(), &trail, &settings(address, "http/protobuf", &[]));
    assert_eq!(refused(&exporters)[0], (2, 2), "the counts are kept");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_that_is_refused_for_good_is_a_dead_letter_and_holds_nothing_up() {
    for (protocol, refusal) in [
        ("grpc", Answer::Grpc(Code::InvalidArgument)),
        ("grpc", Answer::Grpc(Code::Internal)),
        ("http/protobuf", Answer::Http(400)),
        ("http/protobuf", Answer::Http(500)),
    ] {
        let (state, receiver) = (TempDir::new().unwrap(), Receiver::default());
        let (address, _serving) = match protocol {
            "grpc" => receiver.serve_grpc(ANYWHERE).await,
            _ => receiver.serve_http(ANYWHERE).await,
        };
        receiver.kept().poison = Some(("/srv/77".to_owned(), refusal));
        let mut trail = open(state.path());
        let exporters = start(state.path(), &trail, &settings(address, protocol, &[]));
        let mut uids = append(&mut trail, story(300));
        exporters.flush(trail.last_seq(), LONG).await.unwrap();
        let letters = dead_letters(state.path(), "otlp.logs.jsonl");
        let [letter] = letters.as_slice() else { panic!("one letter: {letters:?}") };
        assert_eq!(letter["entry"]["attributes"]["file.path"], "/srv/77", "{refusal:?}");
        assert_eq!(letter["uids"], json!([letter["entry"]["uid"]]));
        assert!(uids.remove(letter["entry"]["uid"].as_str().unwrap()));
        assert_eq!(receiver.uids(), uids);
        assert_eq!(receiver.kept().logs.len(), uids.len(), "nothing came twice");
        let status = exporters.status().remove(0);
        assert_eq!((status.rejected, status.dead_lettered, status.sent, status.error), (1, 1, 307, None));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_receiver_that_refuses_everything_empties_no_trail_into_dead_letters() {
    let (state, receiver) = (TempDir::new().unwrap(), Receiver::default());
    let (address, _serving) = receiver.serve_grpc(ANYWHERE).await;
    receiver.answer("logs", vec![Answer::Grpc(Code::InvalidArgument); 100_000]);
    let mut trail = open(state.path());
    let exporters = start(state.path(), &trail, &settings(address, "grpc", &[]));
    let uids = append(&mut trail, story(100));
    let error = exporters.flush(trail.last_seq(), Duration::from_secs(2)).await.unwrap_err();
    assert_eq!((error.signal, error.acknowledged), ("logs", 0));
    assert!(error.error.unwrap().starts_with("refused, and nothing after it was accepted: InvalidArgument"));
    assert_eq!(dead_letters(state.path(), "otlp.logs.jsonl"), Vec::<Value>::new());
    receiver.kept().answers.clear();
    exporters.flush(trail.last_seq(), LONG).await.unwrap();
    all_arrived(&receiver, &uids, 100);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_last_record_that_is_refused_waits_for_one_that_is_accepted() {
    let (state, receiver) = (TempDir::new().unwrap(), Receiver::default());
    let (address, _serving) = receiver.serve_grpc(ANYWHERE).await;
    let mut trail = open(state.path());
    let exporters = start(state.path(), &trail, &settings(address, "grpc", &[]));
    append(&mut trail, (0..5).map(opened).collect());
    exporters.flush(5, LONG).await.unwrap();
    receiver.kept().poison = Some(("/srv/5".to_owned(), Answer::Grpc(Code::InvalidArgument)));
    append(&mut trail, vec![opened(5)]);
    assert_eq!(exporters.flush(6, Duration::from_millis(300)).await.unwrap_err().acknowledged, 5);
    assert_eq!(dead_letters(state.path(), "otlp.logs.jsonl").len(), 0);
    append(&mut trail, vec![opened(6)]);
    exporters.flush(7, LONG).await.unwrap();
    assert_eq!(dead_letters(state.path(), "otlp.logs.jsonl").len(), 1);
    assert_eq!(receiver.kept().logs.len(), 6, "nothing came twice");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_is_put_right_in_its_file_is_used_without_a_restart() {
    let (state, receiver) = (TempDir::new().unwrap(), Receiver::default());
    let (address, _serving) = receiver.serve_grpc(ANYWHERE).await;
    receiver.kept().token = Some("Bearer second".to_owned());
    let path = state.path().join("headers");
    std::fs::write(&path, "authorization: Bearer first\n").unwrap();
    let mut all = settings(address, "grpc", &[]);
    all.targets[0].backoff = Backoff { first: LONG, longest: LONG };
    for signal in &mut all.targets[0].signals {
        signal.headers_file = Some(NamedFile { path: path.clone(), named_by: "bailiwick.toml:4:16".to_owned() });
    }
    let mut trail = open(state.path());
    let exporters = start(state.path(), &trail, &all);
    let uids = append(&mut trail, story(20));
    let error = exporters.flush(trail.last_seq(), Duration::from_millis(500)).await.unwrap_err();
    assert!(error.to_string().contains("Unauthenticated"), "{error}");
    std::fs::write(&path, "authorization\n").unwrap();
    let told = |exporters: &Exporters| exporters.status()[0].error.clone().unwrap_or_default();
    for _ in 0..50 {
        if told(&exporters).contains("headers:1: is not of the form name: value") {
            break;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert!(told(&exporters).starts_with("bailiwick.toml:4:16: "), "{}", told(&exporters));
    std::fs::write(&path, "authorization: Bearer second\n").unwrap();
    exporters.flush(trail.last_seq(), LONG / 2).await.unwrap();
    all_arrived(&receiver, &uids, 20);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_export_tells_each_target_how_all_are() {
    let (state, receiver) = (TempDir::new().unwrap(), Receiver::default());
    let (address, _serving) = receiver.serve_grpc(ANYWHERE).await;
    let mut all = settings(address, "grpc", &[]);
    let mut away = settings("127.0.0.1:1".parse().unwrap(), "grpc", &[]).targets.remove(0);
    away.name = "away".to_owned();
    all.targets.push(away);
    let mut trail = open(state.path());
    let exporters = start(state.path(), &trail, &all);
    append(&mut trail, story(92));
    let error = exporters.flush(trail.last_seq(), Duration::from_millis(500)).await.unwrap_err();
    assert_eq!((error.target.as_str(), error.signal), ("away", "logs"));
    append(&mut trail, vec![opened(1)]);
    let _ = exporters.flush(trail.last_seq(), Duration::from_millis(500)).await;
    let of = |target, signal| [("bailiwick.target", target), ("bailiwick.signal", signal)];
    assert_eq!(receiver.sum("bailiwick.export.queue.size", &of("away", "logs")), 101);
    assert!(receiver.sum("bailiwick.export.queue.age", &of("away", "logs")) > 1_000_000, "entries of 2023");
    assert!(receiver.sum("bailiwick.export.retried", &of("away", "logs")) > 0);
    assert_eq!(receiver.sum("bailiwick.export.sent", &of("away", "logs")), 0);
    assert_eq!(receiver.sum("bailiwick.export.sent", &of("otlp", "traces")), 3);
    assert_eq!(receiver.sum("bailiwick.export.last_success", &of("away", "logs")), 0);
    assert!(receiver.sum("bailiwick.export.last_success", &of("otlp", "traces")) > 1_700_000_000);
}

#[tokio::test(flavor = "multi_thread")]
async fn no_request_is_larger_than_a_receiver_takes() {
    let (state, receiver) = (TempDir::new().unwrap(), Receiver::default());
    let (address, _serving) = receiver.serve_grpc(ANYWHERE).await;
    let mut trail = open(state.path());
    let long = |number| {
        let mut draft = opened(number);
        let values = (0..6_000).map(|value| json!(value)).collect();
        draft.attributes.insert("process.command_args".to_owned(), Value::Array(values));
        draft.attributes.insert("more".to_owned(), json!("x".repeat(200_000)));
        draft
    };
    let uids = append(&mut trail, (0..40).map(long).collect());
    let exporters = start(state.path(), &trail, &settings(address, "grpc", &[]));
    exporters.flush(trail.last_seq(), LONG).await.unwrap();
    assert_eq!(receiver.uids(), uids);
    let largest = receiver.kept().sizes.iter().map(|(len, _)| *len).max().unwrap();
    assert!(largest < 1024 * 1024, "{largest}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_receiver_that_takes_less_at_a_time_gets_less_at_a_time() {
    let (state, receiver) = (TempDir::new().unwrap(), Receiver::default());
    let (address, _serving) = receiver.serve_grpc(ANYWHERE).await;
    receiver.kept().most_records = Some(100);
    let mut trail = open(state.path());
    let uids = append(&mut trail, story(1_000));
    let exporters = start(state.path(), &trail, &settings(address, "grpc", &[]));
    exporters.flush(trail.last_seq(), LONG).await.unwrap();
    all_arrived(&receiver, &uids, 1_000);
    assert!(receiver.kept().sizes.iter().any(|(_, records)| *records > 100), "it was tried with more");
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_sent_before_it_is_durable() {
    let (state, receiver) = (TempDir::new().unwrap(), Receiver::default());
    let (address, _serving) = receiver.serve_grpc(ANYWHERE).await;
    let mut trail = open(state.path());
    append(&mut trail, story(10));
    let exporters = start(state.path(), &trail, &settings(address, "grpc", &[]));
    exporters.flush(18, LONG).await.unwrap();
    trail.append((0..5).map(opened).collect()).unwrap();
    assert!(exporters.flush(23, Duration::from_millis(300)).await.is_err());
    assert_eq!(receiver.uids().len(), 18);
    trail.sync().unwrap();
    exporters.flush(23, LONG).await.unwrap();
    assert_eq!(receiver.uids().len(), 23);
    assert_eq!(receiver.sum("bailiwick.entries", &[]), 23);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_line_of_the_trail_that_cannot_be_read_holds_up_nothing() {
    let (state, receiver) = (TempDir::new().unwrap(), Receiver::default());
    let (address, _serving) = receiver.serve_grpc(ANYWHERE).await;
    let mut trail = open(state.path());
    append(&mut trail, story(10));
    let segment = state.path().join("trail/00000000000000000001.jsonl");
    let damaged = std::fs::read_to_string(&segment).unwrap().replacen("\"seq\":7,", "\"seq\":x,", 1);
    std::fs::write(&segment, damaged).unwrap();
    let exporters = start(state.path(), &trail, &settings(address, "grpc", &[]));
    exporters.flush(18, LONG).await.unwrap();
    assert_eq!(receiver.uids().len(), 17);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_state_put_back_from_an_old_copy_does_not_pass_over_what_comes_next() {
    let (state, receiver) = (TempDir::new().unwrap(), Receiver::default());
    let (address, _serving) = receiver.serve_grpc(ANYWHERE).await;
    let settings = settings(address, "grpc", &[]);
    let mut trail = open(state.path());
    append(&mut trail, story(2));
    let cursors = state.path().join("cursors");
    std::fs::create_dir(&cursors).unwrap();
    let ahead = json!({"trail": trail.identity().id, "cursor": {"seq": 99, "segment": 1, "offset": 12_345}});
    std::fs::write(cursors.join("otlp.logs.json"), ahead.to_string()).unwrap();
    let exporters = start(state.path(), &trail, &settings);
    let next = append(&mut trail, (0..3).map(opened).collect());
    exporters.flush(trail.last_seq(), LONG).await.unwrap();
    assert_eq!(receiver.uids(), next);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_encrypted_receiver_can_be_named() {
    let state = TempDir::new().unwrap();
    let mut trail = open(state.path());
    append(&mut trail, story(1));
    for protocol in ["grpc", "http/protobuf"] {
        let endpoint = |name: &str| match name {
            "OTEL_EXPORTER_OTLP_ENDPOINT" => Some("https://127.0.0.1:1".to_owned()),
            "OTEL_EXPORTER_OTLP_PROTOCOL" => Some(protocol.to_owned()),
            _ => None,
        };
        let settings = ExportSettings::from_variables(endpoint, &[]).unwrap();
        let exporters = start(state.path(), &trail, &settings);
        let error = exporters.flush(trail.last_seq(), Duration::from_millis(500)).await.unwrap_err();
        assert!(error.error.is_some(), "it was tried: {error}");
    }
}
