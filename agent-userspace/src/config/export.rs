//! `[export]` of `bailiwick.toml`, and its `[[export.target]]`.
//!
//! Input: the section. Output: [`ExportSettings`]. Refuses: a target without a name or an endpoint, a name twice, and
//! what the exporters could not honour: so the faults have their places.

use std::path::PathBuf;
use std::time::Duration;

use hyper::header::HeaderMap;

use super::declaration::read_name;
use super::duration;
use super::fault::{Fault, Problem};
use super::reader::{Located, Section};
use super::rules::Reading;
use super::settings::{choice, no_choice, within};
use crate::export::ocsf::{OCSF_TARGET, OcsfSettings};
use crate::export::{
    Backoff, ClientFiles, Compression, DEFAULT_TIMEOUT, NamedFile, Protocol, Proxy, ProxyChoice, STANDARD_TARGET,
    Signal, SignalSettings, TargetSettings, TlsFiles,
};

/// The most targets: each has readers of the trail and connections of its own.
pub const MAX_TARGETS: usize = 16;
/// A request that takes longer is none that anybody waits for.
const MAX_TIMEOUT: Duration = Duration::from_secs(300);
/// A receiver that is back is noticed after so long at the latest.
const MAX_LONGEST_PAUSE: Duration = Duration::from_secs(600);

/// Files of OCSF events that may be kept beside the one that is written.
const MAX_OCSF_FILES: u64 = 1_000;
/// So much, where nothing is said, comes to at most 600 MiB.
const DEFAULT_OCSF_BYTES: u64 = 100 << 20;
const DEFAULT_OCSF_FILES: u32 = 5;

/// `[export]`; the `OTEL_EXPORTER_OTLP_*` variables override its endpoint and protocol.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ExportSettings {
    /// The URL of the standard target; none: only what the variables say.
    pub endpoint: Option<String>,
    /// Its protocol; none: OpenTelemetry's default.
    pub protocol: Option<Protocol>,
    /// The targets of `[[export.target]]`.
    pub targets: Vec<TargetSettings>,
    /// `[export.ocsf]`; none: no file is written.
    pub ocsf: Option<OcsfSettings>,
    /// Whether sessions join the trace that their agent says it is part of.
    pub join_traces: bool,
}

impl ExportSettings {
    pub(super) fn read(&mut self, mut section: Section<'_>, reading: &mut Reading<'_>) {
        let problems = &mut reading.problems;
        self.endpoint = endpoint(&mut section, Protocol::Grpc, problems).map(|endpoint| endpoint.value);
        self.protocol = choice(&mut section, "protocol", &Protocol::ALL, problems);
        self.join_traces = section.boolean("join_traces", problems).is_some_and(|joins| joins.value);
        let tables = section.sections("target", "[[export.target]]", problems);
        if tables.len() > MAX_TARGETS {
            let fault = Fault::TooMany { key: "target".to_owned(), found: tables.len(), limit: MAX_TARGETS };
            problems.push(Problem::at(&section.key_origin("target"), fault));
        }
        let table = section.section("ocsf", "[export.ocsf]", problems);
        self.ocsf = table.and_then(|table| ocsf(table, problems));
        section.finish(problems);
        let mut names: Vec<Located<String>> = Vec::new();
        for table in tables.into_iter().take(MAX_TARGETS) {
            self.targets.extend(target(table, &mut names, reading));
        }
    }
}

/// The file of OCSF events.
fn ocsf(mut table: Section<'_>, problems: &mut Vec<Problem>) -> Option<OcsfSettings> {
    let file = table.plain_string("file", problems);
    if !table.has("file") {
        let (section, example) = (table.name().to_owned(), "file = \"/var/log/bailiwick/ocsf.jsonl\"");
        problems.push(Problem::at(&table.origin(), Fault::MissingKey { section, key: "file", example }));
    }
    let rotate_bytes = within(&mut table, "rotate_bytes", 64 << 10, 64 << 30, problems);
    let keep_files = within(&mut table, "keep_files", 0, MAX_OCSF_FILES, problems);
    table.finish(problems);
    let file = file?;
    let path = PathBuf::from(&file.value);
    if !path.is_absolute() || path.file_name().is_none() || file.value.ends_with('/') {
        let fault = range("file", &file.value, "the whole path of a file, such as \"/var/log/bailiwick/ocsf.jsonl\"");
        problems.push(Problem::at(&file.origin, fault));
        return None;
    }
    Some(OcsfSettings {
        file: path,
        rotate_bytes: rotate_bytes.unwrap_or(DEFAULT_OCSF_BYTES),
        keep_files: keep_files.and_then(|keep| u32::try_from(keep).ok()).unwrap_or(DEFAULT_OCSF_FILES),
    })
}

fn target(
    mut table: Section<'_>,
    names: &mut Vec<Located<String>>,
    reading: &mut Reading<'_>,
) -> Option<TargetSettings> {
    let name = own_name(&mut table, names, reading);
    let problems = &mut reading.problems;
    let protocol = choice(&mut table, "protocol", &Protocol::ALL, problems).unwrap_or(Protocol::HttpProtobuf);
    let endpoint = endpoint(&mut table, protocol, problems);
    if !table.has("endpoint") {
        let (section, example) = (table.name().to_owned(), "endpoint = \"https://collector.example:4318\"");
        problems.push(Problem::at(&table.origin(), Fault::MissingKey { section, key: "endpoint", example }));
    }
    let compression = choice(&mut table, "compression", &Compression::ALL, problems).unwrap_or(Compression::None);
    let timeout = pause(&mut table, "timeout", MAX_TIMEOUT, problems).unwrap_or(DEFAULT_TIMEOUT);
    let mut backoff = Backoff::default();
    if let Some(longest) = pause(&mut table, "longest_pause", MAX_LONGEST_PAUSE, problems) {
        backoff.longest = longest;
    }
    let headers_file = file(&mut table, "headers_file", problems);
    let proxy = proxy(&mut table, problems);
    let tls = tls(&mut table, endpoint.as_ref(), problems);
    let chosen = signals(&mut table, problems);
    table.finish(problems);
    let (name, endpoint) = (name?, endpoint?);
    let signal = |signal: Signal| {
        Some(SignalSettings {
            signal,
            endpoint: signal.endpoint(&endpoint.value, protocol).ok()?,
            protocol,
            headers: HeaderMap::new(),
            headers_file: headers_file.clone(),
            timeout,
            compression,
            tls: tls.clone(),
            proxy: proxy.clone(),
        })
    };
    Some(TargetSettings { name, signals: chosen.into_iter().filter_map(signal).collect(), backoff })
}

/// A name that no other target has: cursors are files that are called by it.
fn own_name(table: &mut Section<'_>, names: &mut Vec<Located<String>>, reading: &mut Reading<'_>) -> Option<String> {
    let name = read_name(table, "name = \"backup\"", reading)?;
    let taken = [
        (STANDARD_TARGET, "another name: this is that of the target of [export] and of OTEL_EXPORTER_OTLP_ENDPOINT"),
        (OCSF_TARGET, "another name: this is that of the file of [export.ocsf]"),
    ];
    if let Some((taken, wanted)) = taken.into_iter().find(|(taken, _)| *taken == name.value) {
        reading.fault(&name.origin, range("name", taken, wanted));
        return None;
    }
    if let Some(first) = names.iter().find(|known| known.value == name.value) {
        let first = first.origin.clone();
        reading.fault(&name.origin, Fault::DuplicateTarget { name: name.value, first });
        return None;
    }
    names.push(name.clone());
    Some(name.value)
}

/// A receiver's URL, which becomes one for each signal.
fn endpoint(section: &mut Section<'_>, protocol: Protocol, problems: &mut Vec<Problem>) -> Option<Located<String>> {
    let endpoint = section.plain_string("endpoint", problems)?;
    match Signal::Logs.endpoint(&endpoint.value, protocol) {
        Ok(_) => return Some(endpoint),
        Err(error) => problems.push(Problem::at(&endpoint.origin, Fault::Endpoint(error))),
    }
    None
}

fn range(key: &'static str, value: &str, wanted: &str) -> Fault {
    Fault::Range { key, value: format!("\"{value}\""), wanted: wanted.to_owned() }
}

/// A duration up to a longest one.
fn pause(
    table: &mut Section<'_>,
    key: &'static str,
    longest: Duration,
    problems: &mut Vec<Problem>,
) -> Option<Duration> {
    let text = table.string(key, problems)?;
    let fault = match duration::parse(text.value) {
        Ok(duration) if duration <= longest => return Some(duration),
        Ok(_) => range(key, text.value, &format!("at most \"{}s\"", longest.as_secs())),
        Err(error) => Fault::Duration { key, text: text.value.chars().take(80).collect(), error },
    };
    problems.push(Problem::at(&text.origin, fault));
    None
}

/// A file by its whole path. Whether it is there is seen when the daemon starts: who checks a configuration may not read it.
fn file(table: &mut Section<'_>, key: &'static str, problems: &mut Vec<Problem>) -> Option<NamedFile> {
    let path = table.plain_string(key, problems)?;
    if path.value.starts_with('/') {
        return Some(NamedFile { path: path.value.into(), named_by: path.origin.to_string() });
    }
    problems.push(Problem::at(&path.origin, range(key, &path.value, "the file's whole path, from `/` on")));
    None
}

/// `proxy`: where one is, or `"none"`.
fn proxy(table: &mut Section<'_>, problems: &mut Vec<Problem>) -> ProxyChoice {
    let Some(text) = table.plain_string("proxy", problems) else { return ProxyChoice::ByVariables };
    if text.value == "none" {
        return ProxyChoice::Direct;
    }
    match Proxy::parse(&text.value) {
        Ok(proxy) => ProxyChoice::Through(proxy),
        Err(error) => {
            problems.push(Problem::at(&text.origin, Fault::Proxy(error)));
            ProxyChoice::ByVariables
        }
    }
}

/// `[export.target.tls]`.
fn tls(table: &mut Section<'_>, endpoint: Option<&Located<String>>, problems: &mut Vec<Problem>) -> TlsFiles {
    let Some(mut section) = table.section("tls", "[export.target.tls]", problems) else { return TlsFiles::default() };
    let ca = file(&mut section, "ca_file", problems);
    let (certificate, key) =
        (file(&mut section, "certificate_file", problems), file(&mut section, "key_file", problems));
    for (this, other, example) in [
        ("certificate_file", "key_file", "key_file = \"/etc/bailiwick/export.key\""),
        ("key_file", "certificate_file", "certificate_file = \"/etc/bailiwick/export.pem\""),
    ] {
        if section.has(this) && !section.has(other) {
            let fault = Fault::MissingKey { section: section.name().to_owned(), key: other, example };
            problems.push(Problem::at(&section.key_origin(this), fault));
        }
    }
    section.finish(problems);
    if let Some(plain) = endpoint.filter(|endpoint| endpoint.value.starts_with("http:")) {
        let wanted = "one that begins with https://, or leave [export.target.tls] out: nothing is encrypted over http";
        let shown = plain.value.split('?').next().unwrap_or_default();
        problems.push(Problem::at(&plain.origin, range("endpoint", shown, wanted)));
    }
    TlsFiles { ca, client: certificate.zip(key).map(|(certificate, key)| ClientFiles { certificate, key }) }
}

/// The signals that a target gets: all, where nothing is said.
fn signals(table: &mut Section<'_>, problems: &mut Vec<Problem>) -> Vec<Signal> {
    let Some(words) = table.strings("signals", problems) else { return Signal::ALL.to_vec() };
    if words.is_empty() {
        problems.push(Problem::at(&table.key_origin("signals"), Fault::Empty("signals")));
    }
    let mut chosen = Vec::new();
    for word in words {
        match Signal::ALL.into_iter().find(|signal| signal.as_str() == word.value) {
            Some(signal) if chosen.contains(&signal) => {}
            Some(signal) => chosen.push(signal),
            None => {
                let fault = no_choice("signals", word.value, Signal::ALL.iter().map(|signal| signal.as_str()));
                problems.push(Problem::at(&word.origin, fault));
            }
        }
    }
    chosen
}
