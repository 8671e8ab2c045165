//! Entries as log records: one each, whatever they say.

use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue, any_value};
use opentelemetry_proto::tonic::logs::v1::{LogRecord, SeverityNumber};

use super::contexts::Contexts;
use super::value::attribute;
use super::{body, ids};
use crate::entry::{Draft, Entry, ReasonKind, Verdict};

/// The W3C flag "sampled": a back end must not think that the trace is elsewhere.
const SAMPLED: u32 = 1;

/// The entry as a log record.
pub(super) fn record(entry: &Entry, contexts: &Contexts) -> LogRecord {
    let draft = &entry.draft;
    let severity = severity(draft);
    let (trace_id, span_id) = context(draft, contexts);
    LogRecord {
        time_unix_nano: draft.time.0,
        // The trail does not keep when an entry was read from the ring; a time of sending would differ each time.
        observed_time_unix_nano: draft.time.0,
        severity_number: severity.into(),
        severity_text: severity_text(severity).to_owned(),
        body: Some(AnyValue { value: Some(any_value::Value::StringValue(body::sentence(draft))) }),
        attributes: attributes(entry),
        dropped_attributes_count: 0,
        flags: if trace_id.is_empty() { 0 } else { SAMPLED },
        trace_id,
        span_id,
        event_name: draft.event.clone(),
    }
}

/// The span an entry belongs to: its process's, else its session's, else none.
fn context(draft: &Draft, contexts: &Contexts) -> (Vec<u8>, Vec<u8>) {
    let Some(session) = draft.session else { return (Vec::new(), Vec::new()) };
    let span = match &draft.process {
        Some(process) => ids::process_span_id(session, process.tgid, process.start_boot_ns),
        None => ids::session_span_id(session),
    };
    (contexts.trace_id(session).to_bytes().to_vec(), span.to_bytes().to_vec())
}

fn severity(draft: &Draft) -> SeverityNumber {
    match draft.verdict {
        Verdict::OutOfScope => return SeverityNumber::Warn,
        Verdict::Denied => return SeverityNumber::Warn2,
        Verdict::InScope | Verdict::None => {}
    }
    match draft.event.as_str() {
        "gap" => SeverityNumber::Error,
        "sensor.degraded" => SeverityNumber::Error,
        "trail.recovered" => SeverityNumber::Warn,
        event if event.starts_with("finding.") => SeverityNumber::Warn,
        _ => SeverityNumber::Info,
    }
}

fn severity_text(severity: SeverityNumber) -> &'static str {
    severity.as_str_name().trim_start_matches("SEVERITY_NUMBER_")
}

fn attributes(entry: &Entry) -> Vec<KeyValue> {
    let draft = &entry.draft;
    let mut all = vec![
        attribute("log.record.uid", entry.uid.as_str()),
        attribute("bailiwick.seq", entry.seq),
        attribute("bailiwick.verdict", draft.verdict.as_str()),
        attribute("bailiwick.count", draft.count),
    ];
    all.extend(draft.first_time.map(|time| attribute("bailiwick.first_time", time.to_string())));
    session(draft, &mut all);
    process(draft, &mut all);
    if let Some(reason) = &draft.reason {
        all.push(attribute("bailiwick.reason.kind", reason_kind(reason.kind)));
        all.push(attribute("bailiwick.reason.text", reason.text.as_str()));
        all.extend(reason.file.as_deref().map(|file| attribute("bailiwick.reason.file", file)));
        all.extend(reason.line.map(|line| attribute("bailiwick.reason.line", line)));
        all.extend(reason.delegator.as_deref().map(|agent| attribute("bailiwick.reason.delegator", agent)));
    }
    if !draft.escaped.is_empty() {
        all.push(attribute("bailiwick.escaped", draft.escaped.as_slice()));
    }
    if !draft.truncated.is_empty() {
        all.push(attribute("bailiwick.truncated", draft.truncated.as_slice()));
    }
    if !draft.redacted.is_empty() {
        all.push(attribute("bailiwick.redacted.attributes", draft.redacted.as_slice()));
    }
    // What the event itself says takes the place of what its process is known as: an exec names the new image.
    all.retain(|given| !draft.attributes.contains_key(&given.key));
    all.extend(draft.attributes.iter().map(|(key, value)| attribute(key, value)));
    all
}

/// Whose session it is.
pub(super) fn session(draft: &Draft, all: &mut Vec<KeyValue>) {
    if let Some(agent) = draft.agent.as_deref() {
        all.push(attribute("bailiwick.agent", agent));
        all.push(attribute("gen_ai.agent.name", agent));
    }
    all.extend(draft.session.map(|session| attribute("session.id", session.to_string())));
    if !draft.delegation.is_empty() {
        let agents: Vec<_> = draft.delegation.iter().map(|delegator| delegator.agent.clone()).collect();
        let sessions: Vec<_> = draft.delegation.iter().map(|delegator| delegator.session.to_string()).collect();
        all.push(attribute("bailiwick.delegation.agents", agents.as_slice()));
        all.push(attribute("bailiwick.delegation.sessions", sessions.as_slice()));
    }
    if let Some(principal) = &draft.principal {
        all.push(attribute("bailiwick.principal.uid", principal.uid));
        all.extend(principal.user.as_deref().map(|user| attribute("bailiwick.principal.user", user)));
        all.extend(principal.login_uid.map(|uid| attribute("bailiwick.principal.login_uid", uid)));
        all.extend(principal.via.as_deref().map(|via| attribute("bailiwick.principal.via", via)));
        let texts = [
            ("bailiwick.principal.login_user", &principal.login_user),
            ("bailiwick.principal.ssh", &principal.ssh),
            ("bailiwick.principal.unit", &principal.unit),
            ("bailiwick.principal.terminal", &principal.terminal),
        ];
        all.extend(texts.into_iter().filter_map(|(name, text)| Some(attribute(name, text.as_deref()?))));
        all.extend(principal.asked_by.as_ref().map(|asker| attribute("bailiwick.principal.asked_by.uid", asker.uid)));
    }
    if let Some(attribution) = draft.attribution {
        all.push(attribute("bailiwick.attribution.method", attribution.method.as_str()));
        all.push(attribute("bailiwick.attribution.confidence", attribution.confidence.as_str()));
    }
}

fn process(draft: &Draft, all: &mut Vec<KeyValue>) {
    let Some(process) = &draft.process else { return };
    all.push(attribute("process.pid", process.tgid));
    all.push(attribute("thread.id", process.tid));
    all.push(attribute("bailiwick.process.start_boot_ns", process.start_boot_ns.to_string()));
    all.extend(process.executable.as_deref().map(|path| attribute("process.executable.path", path)));
}

fn reason_kind(kind: ReasonKind) -> &'static str {
    match kind {
        ReasonKind::Grant => "grant",
        ReasonKind::Rule => "rule",
        ReasonKind::Nearest => "nearest",
    }
}
