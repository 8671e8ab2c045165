//! Privacy: secrets that were planted where agents put them occur in no byte of what Bailiwick keeps, shows or sends.

use std::path::Path;
use std::time::Duration;

use bailiwick_tests::bounded;
use bailiwick_tests::declaration::Declaration;
use bailiwick_tests::instance::{Instance, Setup};
use bailiwick_tests::receiver::{Receiver, attribute};
use bailiwick_tests::requirement::Requirement::{Tier2, Venv};
use bailiwick_tests::requirement::require;
use bailiwick_tests::workload;
use serde_json::json;

/// Metrics go out on a timer, which no barrier waits for.
const METRICS_WITHIN: Duration = Duration::from_secs(30);
/// So is the index made.
const INDEXED_WITHIN: Duration = Duration::from_secs(30);

/// What an agent may have: none opens anything. Each has a mark that nothing else has.
const SECRETS: [&str; 10] = [
    "ghp_Planted1Planted2Planted3Planted4Pl",
    "AKIAPLANTED5PLANTED6",
    "planted-hunter-option",
    "planted-hunter-next",
    "planted-hunter-variable",
    "planted-hunter-login",
    "planted-hunter-query",
    "planted-hunter-header",
    "Zk3vQ9xL2mT8wB5nR7yHpLaNtEd1",
    "planted-corp-badge",
];

/// Runs another with the secrets on its command line, and opens a file whose name has one.
const AGENT: &str = r#"#!/bin/sh
/bin/true "Authorization: Bearer planted-hunter-header" --password=planted-hunter-option --token planted-hunter-next \
    "https://me:planted-hunter-login@x.test/a?q=1&access_token=planted-hunter-query&page=2" \
    AKIAPLANTED5PLANTED6 Zk3vQ9xL2mT8wB5nR7yHpLaNtEd1 badge:planted-corp-badge --verbose
read -r x < "$1/ghp_Planted1Planted2Planted3Planted4Pl.txt"
/nowhere/ghp_Planted1Planted2Planted3Planted4Pl
exec /bin/sh -c "DB_PASSWORD=planted-hunter-option; : curl -u me:planted-hunter-login x.test; exit 0" \
    ghp_Planted1Planted2Planted3Planted4Pl
"#;

/// The first secret that occurs in the bytes, and some of what stands around it.
fn planted(bytes: &[u8]) -> Option<String> {
    SECRETS.iter().find_map(|secret| {
        let at = bytes.windows(secret.len()).position(|window| window == secret.as_bytes())?;
        let around = bytes.get(at.saturating_sub(200)..(at + 100).min(bytes.len())).unwrap_or_default();
        Some(format!("{secret} in {}", String::from_utf8_lossy(around)))
    })
}

#[track_caller]
fn holds_none(what: &str, bytes: &[u8]) {
    assert!(!bytes.is_empty(), "{what} is empty");
    if let Some(found) = planted(bytes) {
        panic!("{what}: {found}");
    }
}

/// How many files there are below a directory, and the first secret that one of them holds.
fn look_below(directory: &Path) -> (usize, Option<String>) {
    let (mut files, mut found) = (0, None);
    for item in std::fs::read_dir(directory).unwrap() {
        let path = item.unwrap().path();
        if path.is_dir() {
            let (more, below) = look_below(&path);
            files += more;
            found = found.or(below);
        } else if path.is_file() {
            files += 1;
            let secret = planted(&std::fs::read(&path).unwrap());
            found = found.or(secret.map(|secret| format!("{}: {secret}", path.display())));
        }
    }
    (files, found)
}

/// Has the segment with the secrets closed, by what fills the next one, and indexed.
fn have_it_indexed(instance: &Instance) {
    let filler =
        format!("i=0; while [ $i -lt 200 ]; do i=$((i+1)); : > {}/filler-$i; done", instance.place().path().display());
    instance.run("plants", &["/bin/sh", "-c", &filler]).success();
    instance.sync();
    let index = instance.state().join("trail/00000000000000000001.index");
    let has_path = || {
        let bytes = std::fs::read(&index).unwrap_or_default();
        let wanted = b"[redacted].txt";
        bytes.windows(wanted.len()).any(|window| window == wanted)
    };
    bounded::until("an index that has the redacted path", INDEXED_WITHIN, has_path);
}

fn start(redact: &str, environment: &[(&str, String)]) -> Instance {
    let settings = format!(
        "[trail]\nsegment_bytes = 65536\n\n[sensor]\nenvironment = [\"MY_API_TOKEN\", \"AI_AGENT\"]\n\n[redact]\n{redact}"
    );
    let setup = Setup::new().agent(&Declaration::new("plants").with("[scope.files]\nread = [\"/**\"]"));
    let setup = setup.file("bailiwick.toml", &settings).env("BAILIWICK_LOG", "trace");
    environment.iter().fold(setup, |setup, (name, value)| setup.env(name, value)).start()
}

fn plant(instance: &Instance) {
    let place = instance.place();
    std::fs::write(place.join("ghp_Planted1Planted2Planted3Planted4Pl.txt"), "x\n").unwrap();
    let agent = place.script("plants", AGENT);
    let mut run = instance.run_command("plants", &[agent.as_os_str(), place.join("").as_os_str()]);
    run.env("MY_API_TOKEN", "planted-hunter-variable").env("AI_AGENT", "plants/1.0");
    bounded::run(&mut run, workload::DEADLINE).success();
}

#[test]
fn planted_secrets_occur_in_no_byte_of_state_export_control_socket_or_log() {
    if !require(&[Tier2, Venv]) {
        return;
    }
    let receiver = Receiver::start();
    let export = [
        ("OTEL_EXPORTER_OTLP_ENDPOINT", receiver.http_endpoint()),
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf".to_owned()),
        ("OTEL_METRIC_EXPORT_INTERVAL", "200".to_owned()),
    ];
    let place = workload::Place::new();
    let ocsf = place.join("ocsf.jsonl");
    let settings = format!("patterns = ['badge:(?<secret>[a-z-]+)']\n\n[export.ocsf]\nfile = \"{}\"\n", ocsf.display());
    let mut instance = start(&settings, &export);
    plant(&instance);
    instance.call("sync --exported").success();
    let trail = instance.trail();

    let of_true =
        |entry: &serde_json::Value| entry["process"]["executable"].as_str().is_some_and(|path| path.ends_with("/true"));
    let executed = trail.event("process.exec").filter(of_true);
    let executed = executed.only();
    let expected = json!([
        "/bin/true",
        "Authorization: Bearer [redacted]",
        "--password=[redacted]",
        "--token",
        "[redacted]",
        "https://[redacted]@x.test/a?q=1&access_token=[redacted]&page=2",
        "[redacted]",
        "[redacted]",
        "badge:[redacted]",
        "--verbose"
    ]);
    assert_eq!(executed["attributes"]["process.command_args"], expected);
    let variable = "process.environment_variable.MY_API_TOKEN";
    assert_eq!(executed["attributes"][variable], "[redacted]");
    assert_eq!(executed["attributes"]["process.environment_variable.AI_AGENT"], "plants/1.0");
    assert_eq!(executed["redacted"], json!(["process.command_args", variable]));
    assert_eq!(executed["attributes"]["bailiwick.redacted"], 9);
    let opened = trail.filter(|entry| {
        entry["event"] == "file.open" && entry["redacted"] == json!(["file.path"]) && entry["verdict"] == "in_scope"
    });
    assert!(opened.only()["attributes"]["file.path"].as_str().unwrap().ends_with("/[redacted].txt"));

    let uid = opened.only()["uid"].as_str().unwrap();
    let explained = instance.call(&format!("explain {uid}")).success().stdout;
    assert!(explained.contains("file.path: the value was redacted"), "{explained}");
    holds_none("explain", explained.as_bytes());
    for shown in
        ["tail --json --since start --no-follow", "tail --since start --no-follow", "sessions --json", "status --json"]
    {
        holds_none(shown, instance.call(shown).success().stdout.as_bytes());
    }
    let session = trail.sessions().remove(0);
    holds_none("show", instance.call(&format!("show {session}")).success().stdout.as_bytes());

    let redacted = trail.filter(|entry| entry["redacted"].is_array()).len() as u64;
    let counted = || {
        receiver.metrics().iter().filter(|metric| metric["name"] == "bailiwick.records.redacted").any(|metric| {
            let points = metric["sum"]["data_points"].as_array().cloned().unwrap_or_default();
            let of = |point: &serde_json::Value| {
                point["as_int"].as_str().and_then(|value| value.parse::<u64>().ok()).unwrap_or(0)
            };
            points.iter().map(of).sum::<u64>() == redacted
        })
    };
    bounded::until("bailiwick.records.redacted", METRICS_WITHIN, counted);
    let (records, spans, metrics) = (receiver.log_records(), receiver.spans(), receiver.metrics());
    assert_eq!(records.len(), trail.len());
    let marked = records.iter().filter(|record| attribute(record, "bailiwick.redacted.attributes").is_some());
    assert_eq!(marked.count() as u64, redacted);
    for (what, sent) in [("logs", &records), ("traces", &spans), ("metrics", &metrics)] {
        holds_none(what, serde_json::to_string(sent).unwrap().as_bytes());
    }

    have_it_indexed(&instance);
    assert_eq!(instance.stop(), Some(0));
    let (files, found) = look_below(&instance.state());
    assert_eq!(found, None);
    assert!(files >= 6, "the trail and its index, its name, a key, cursors: {files}");
    let events = std::fs::read(ocsf).unwrap();
    assert!(events.windows(10).any(|window| window == b"[redacted]"));
    holds_none("the file of OCSF events", &events);
    holds_none("the log", instance.log().as_bytes());
}

#[test]
fn what_is_allowed_is_kept_and_a_reload_puts_other_settings_into_force() {
    if !require(&[Tier2]) {
        return;
    }
    let instance = start("allow = ['planted-hunter-(next|header)']\n", &[]);
    let secret = |argument: &str| {
        instance.run("plants", &["/bin/true", "--token", argument]).success();
        let trail = instance.synced_trail().event("process.exec");
        trail.0.last().unwrap()["attributes"]["process.command_args"][2].as_str().unwrap().to_owned()
    };
    assert_eq!(secret("planted-hunter-next"), "planted-hunter-next");
    assert_eq!(secret("planted-hunter-option"), "[redacted]");
    instance.write("bailiwick.toml", "[redact]\nenabled = false\n");
    instance.call("reload").success();
    let is_found = || look_below(&instance.state()).1.is_some_and(|found| found.contains(": planted-hunter-option in"));
    assert!(!is_found());
    assert_eq!(secret("planted-hunter-option"), "planted-hunter-option");
    assert!(is_found(), "who looks for secrets finds those that are there");
    instance.write("bailiwick.toml", "[redact]\nallow = [\"(\"]\n");
    let refused = instance.call("reload");
    assert_eq!(refused.code(), Some(2), "{}", refused.stderr);
    assert!(refused.stderr.contains("bailiwick.toml:2:10: `allow` has \"(\""), "{}", refused.stderr);
}
