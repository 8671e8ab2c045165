//! Targets of the export as an operator writes them, and what each of them got.

use std::collections::BTreeSet;
use std::fmt::Write;
use std::path::Path;

use bailiwick_tests::entries::Entries;
use bailiwick_tests::instance::Instance;
use bailiwick_tests::receiver::{Receiver, SESSION_HEADER, distinct};
use serde_json::Value;

/// A target's table; its headers have the receiver keep it apart from others.
pub(crate) struct Target {
    pub(crate) name: &'static str,
    pub(crate) endpoint: String,
    pub(crate) protocol: &'static str,
    /// Further lines of the table.
    pub(crate) more: String,
    /// Further lines of the file of headers.
    pub(crate) headers: &'static str,
}

impl Target {
    pub(crate) fn new(name: &'static str, endpoint: impl Into<String>, protocol: &'static str) -> Self {
        Self { name, endpoint: endpoint.into(), protocol, more: String::new(), headers: "" }
    }

    pub(crate) fn with(mut self, lines: impl AsRef<str>) -> Self {
        self.more.push_str(lines.as_ref());
        self.more.push('\n');
        self
    }

    /// Writes its file of headers, with other lines than before.
    pub(crate) fn write_headers(&self, dir: &Path, headers: &str) {
        std::fs::write(self.headers_file(dir), format!("{SESSION_HEADER}: {}\n{headers}\n", self.name)).unwrap();
    }

    fn headers_file(&self, dir: &Path) -> std::path::PathBuf {
        dir.join(format!("{}.headers", self.name))
    }
}

/// `bailiwick.toml` with these targets, whose files of headers are put into `dir`.
pub(crate) fn settings(targets: &[&Target], dir: &Path) -> String {
    let mut text = String::new();
    for target in targets {
        target.write_headers(dir, target.headers);
        let (name, endpoint, protocol) = (target.name, &target.endpoint, target.protocol);
        let headers = target.headers_file(dir);
        writeln!(text, "[[export.target]]\nname = {name:?}\nendpoint = {endpoint:?}\nprotocol = {protocol:?}").unwrap();
        writeln!(text, "headers_file = {headers:?}\nlongest_pause = \"2s\"\n{}", target.more).unwrap();
    }
    text
}

/// Waits until every target has everything, and gives the trail up to then.
#[track_caller]
pub(crate) fn exported(instance: &Instance) -> Entries {
    let report = instance.json("sync --exported --wait 50s --json");
    let seq = report["seq"].as_u64().unwrap();
    instance.trail().filter(|entry| entry["seq"].as_u64().unwrap() <= seq)
}

pub(crate) fn uids(trail: &Entries) -> BTreeSet<String> {
    trail.0.iter().map(|entry| entry["uid"].as_str().unwrap().to_owned()).collect()
}

/// Asserts that a target got each entry, each span and the sums. Every session must have ended.
#[track_caller]
pub(crate) fn has_everything(receiver: &Receiver, target: &str, trail: &Entries) {
    let all = uids(trail);
    let got = distinct(&receiver.session(target).log_records(), "log.record.uid");
    let missing: Vec<_> = all.difference(&got).collect();
    assert!(missing.is_empty(), "{target} lacks {} of {}: {missing:?}", missing.len(), all.len());
    has_spans_and_sums(receiver, target, trail);
}

#[track_caller]
pub(crate) fn has_spans_and_sums(receiver: &Receiver, target: &str, trail: &Entries) {
    let session = receiver.session(target);
    let spans: BTreeSet<String> =
        session.spans().iter().map(|span| span["span_id"].as_str().unwrap().to_owned()).collect();
    let ended = trail.event("session.end").len() + trail.event("process.exit").len();
    assert!(ended > 0, "nothing happened");
    assert_eq!(spans.len(), ended, "spans of {target}");
    let sum = session.sum("bailiwick.entries", &[]);
    assert!(sum >= trail.len() as u64, "{target} was told of {sum} of {} entries", trail.len());
}

/// The item of `status --json` for a signal of a target.
#[track_caller]
pub(crate) fn status_of<'a>(status: &'a Value, target: &str, signal: &str) -> &'a Value {
    let items = status["export"].as_array().unwrap();
    let found = items.iter().find(|item| item["target"] == target && item["signal"] == signal);
    found.unwrap_or_else(|| panic!("no {target} {signal}: {status}"))
}
