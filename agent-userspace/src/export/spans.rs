//! Sessions and processes as spans. A span is sent once, whole, when what it stands for has ended.

use opentelemetry::trace::SpanId;
use opentelemetry_proto::tonic::common::v1::KeyValue;
use opentelemetry_proto::tonic::trace::v1::span::{Link, SpanKind};
use opentelemetry_proto::tonic::trace::v1::status::StatusCode;
use opentelemetry_proto::tonic::trace::v1::{Span, SpanFlags, Status};
use serde_json::Value;

use super::contexts::Contexts;
use super::value::attribute;
use super::{ids, logs};
use crate::entry::{Draft, Entry, SessionId, Timestamp};
use crate::trace_context::TraceContext;

/// The W3C flag "sampled", and that the parent is known to be of this host.
const FLAGS: u32 = 1 | SpanFlags::ContextHasIsRemoteMask as u32;
/// That it is not of this host, as far as is known.
const REMOTE: u32 = (SpanFlags::ContextHasIsRemoteMask as u32) | (SpanFlags::ContextIsRemoteMask as u32);

/// The span that ends with this entry, if one does.
pub(super) fn span(entry: &Entry, contexts: &Contexts) -> Option<Span> {
    let draft = &entry.draft;
    match draft.event.as_str() {
        "process.exit" => process_span(draft, draft.session?, contexts),
        "session.end" => session_span(draft, contexts),
        "delegation.start" => departed_span(draft, contexts),
        _ => None,
    }
}

/// The root of a session's trace, linked to the session that delegated to it, and to the trace that the agent says it is part
/// of; or, where it has joined that, a span in there.
fn session_span(draft: &Draft, contexts: &Contexts) -> Option<Span> {
    let session = draft.session?;
    let mut attributes = Vec::new();
    logs::session(draft, &mut attributes);
    attributes.retain(|given| !draft.attributes.contains_key(&given.key));
    attributes.extend(draft.attributes.iter().map(|(key, value)| attribute(key, value)));
    let delegation = draft.delegation.last().map(|delegator| Link {
        trace_id: contexts.trace_id(delegator.session).to_bytes().to_vec(),
        span_id: ids::session_span_id(delegator.session).to_bytes().to_vec(),
        attributes: vec![
            attribute("bailiwick.link", "delegation"),
            attribute("bailiwick.agent", delegator.agent.as_str()),
        ],
        flags: FLAGS,
        ..Link::default()
    });
    let mut span = Span {
        name: draft.agent.clone().unwrap_or_else(|| "session".to_owned()),
        links: delegation.into_iter().chain(contexts.linked(session).map(link)).collect(),
        ..spanning(
            session,
            contexts,
            ids::session_span_id(session),
            time(draft, "bailiwick.session.start_time"),
            draft.time,
            attributes,
        )
    };
    if let Some(parent) = contexts.joined(session) {
        span.parent_span_id = parent.span_id.to_vec();
        span.flags |= REMOTE;
    }
    Some(span)
}

/// To the span that an environment names.
fn link(claimed: &TraceContext) -> Link {
    Link {
        trace_id: claimed.trace_id.to_vec(),
        span_id: claimed.span_id.to_vec(),
        trace_state: claimed.state.clone(),
        attributes: vec![attribute("bailiwick.link", "agent_trace")],
        flags: u32::from(claimed.flags) | REMOTE,
        ..Link::default()
    }
}

/// A process of a session, from its start (or its entry into the session) to its end.
fn process_span(draft: &Draft, session: SessionId, contexts: &Contexts) -> Option<Span> {
    let process = draft.process.as_ref()?;
    let path = string(draft, "process.executable.path").or(process.executable.as_deref());
    let name = path.map(|path| path.rsplit('/').next().unwrap_or(path));
    let mut attributes = vec![
        attribute("process.pid", process.tgid),
        attribute("session.id", session.to_string()),
        attribute("bailiwick.process.start_boot_ns", process.start_boot_ns.to_string()),
    ];
    attributes.extend(name.map(|name| attribute("process.executable.name", name)));
    attributes.extend(path.map(|path| attribute("process.executable.path", path)));
    for key in ["process.parent_pid", "process.command_args", "process.exit.code", "bailiwick.exit.signal"] {
        attributes.extend(draft.attributes.get(key).map(|value| attribute(key, value)));
    }
    let status = failure(draft);
    attributes.extend(status.as_ref().map(|(kind, _)| attribute("error.type", kind.as_str())));
    let id = ids::process_span_id(session, process.tgid, process.start_boot_ns);
    // What the session's own span is below needs no link.
    let claimed = TraceContext::of_entry(draft).filter(|claimed| contexts.joined(session) != Some(claimed));
    Some(Span {
        name: name.unwrap_or("process").to_owned(),
        parent_span_id: parent(draft, session).to_bytes().to_vec(),
        status: status.map(|(_, message)| Status { message, code: StatusCode::Error.into() }),
        links: claimed.iter().map(link).collect(),
        ..spanning(session, contexts, id, time(draft, "process.creation.time"), draft.time, attributes)
    })
}

/// A process that a delegation took into a session of its own: its time in the delegator's session ends here.
fn departed_span(draft: &Draft, contexts: &Contexts) -> Option<Span> {
    let delegator = draft.delegation.last()?;
    // Without its start there is no span to draw: the process's own span in the new session still stands.
    draft.attributes.get("process.creation.time")?;
    let mut span = process_span(draft, delegator.session, contexts)?;
    span.attributes.push(attribute("bailiwick.agent", delegator.agent.as_str()));
    span.attributes
        .extend(draft.session.map(|session| attribute("bailiwick.delegated_to.session", session.to_string())));
    span.attributes.extend(draft.agent.as_deref().map(|agent| attribute("bailiwick.delegated_to.agent", agent)));
    Some(span)
}

fn spanning(
    session: SessionId,
    contexts: &Contexts,
    id: SpanId,
    start: Option<Timestamp>,
    end: Timestamp,
    attributes: Vec<KeyValue>,
) -> Span {
    Span {
        trace_id: contexts.trace_id(session).to_bytes().to_vec(),
        trace_state: contexts.joined(session).map(|joined| joined.state.clone()).unwrap_or_default(),
        span_id: id.to_bytes().to_vec(),
        flags: FLAGS,
        kind: SpanKind::Internal.into(),
        // A span may not end before it starts; clocks converted at different moments differ by a little.
        start_time_unix_nano: start.unwrap_or(end).min(end).0,
        end_time_unix_nano: end.0,
        attributes,
        ..Span::default()
    }
}

/// The parent's span where the parent belonged to the session, else the session's.
fn parent(draft: &Draft, session: SessionId) -> SpanId {
    let tgid =
        draft.attributes.get("process.parent_pid").and_then(Value::as_u64).and_then(|tgid| u32::try_from(tgid).ok());
    let start = string(draft, "bailiwick.process.parent_start_boot_ns").and_then(|start| start.parse().ok());
    match (tgid, start) {
        (Some(tgid), Some(start)) => ids::process_span_id(session, tgid, start),
        (Some(_) | None, None) | (None, Some(_)) => ids::session_span_id(session),
    }
}

/// The error's type and a message, for a process that failed.
fn failure(draft: &Draft) -> Option<(String, String)> {
    if let Some(signal) = draft.attributes.get("bailiwick.exit.signal") {
        return Some((format!("signal {signal}"), format!("ended by signal {signal}")));
    }
    let code = draft.attributes.get("process.exit.code")?.as_i64()?;
    (code != 0).then(|| (code.to_string(), format!("exit code {code}")))
}

fn string<'a>(draft: &'a Draft, key: &str) -> Option<&'a str> {
    draft.attributes.get(key).and_then(Value::as_str)
}

fn time(draft: &Draft, key: &str) -> Option<Timestamp> {
    string(draft, key)?.parse().ok()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that cannot go on says so by panicking")]

    use serde_json::json;

    use super::{Contexts, REMOTE, ids, span};
    use crate::entry::{Delegator, Draft, Entry, ProcessRef, SessionId, Timestamp};
    use crate::export::contexts::Noting;

    fn entry(event: &str, attributes: &[(&str, serde_json::Value)]) -> Entry {
        let mut draft = Draft::of_host(Timestamp(9_000), event);
        draft.agent = Some("test-runner".to_owned());
        draft.session = Some(SessionId(2));
        draft.delegation = vec![Delegator { agent: "code-assistant".to_owned(), session: SessionId(1) }];
        draft.process =
            Some(ProcessRef { tgid: 7, tid: 7, start_boot_ns: 70, executable: Some("/usr/bin/run".to_owned()) });
        draft.attributes.extend(attributes.iter().map(|(key, value)| ((*key).to_owned(), value.clone())));
        Entry { uid: "x-1".to_owned(), seq: 1, draft, chain: String::new() }
    }

    #[test]
    fn a_process_that_delegation_takes_away_has_a_span_in_the_delegators_session_too() {
        let parent = [
            ("process.creation.time", json!("1970-01-01T00:00:00.000001000Z")),
            ("process.parent_pid", json!(6)),
            ("bailiwick.process.parent_start_boot_ns", json!("60")),
        ];
        let span = span(&entry("delegation.start", &parent), &Contexts::default()).unwrap();
        assert_eq!(span.trace_id, ids::trace_id(SessionId(1)).to_bytes());
        assert_eq!(span.span_id, ids::process_span_id(SessionId(1), 7, 70).to_bytes());
        assert_eq!(span.parent_span_id, ids::process_span_id(SessionId(1), 6, 60).to_bytes());
        assert_eq!((span.start_time_unix_nano, span.end_time_unix_nano), (1_000, 9_000));
    }

    #[test]
    fn a_process_that_a_signal_ended_is_an_error() {
        let span = span(&entry("process.exit", &[("bailiwick.exit.signal", json!(9))]), &Contexts::default()).unwrap();
        let status = span.status.unwrap();
        assert_eq!((status.code, status.message.as_str()), (2, "ended by signal 9"));
        assert_eq!((span.start_time_unix_nano, span.end_time_unix_nano), (9_000, 9_000), "no start is known");
    }

    #[test]
    fn a_joined_sessions_spans_are_in_the_agents_trace_and_what_says_otherwise_is_a_link() {
        const VARIABLE: &str = "process.environment_variable.TRACEPARENT";
        let ours = json!("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00");
        let other = json!("00-11111111111111111111111111111111-2222222222222222-01");
        let mut contexts = Contexts::default();
        let noting = Noting { joins: true, links: true };
        contexts.begin(&[entry("session.start", &[(VARIABLE, ours.clone())])], noting);
        let session = span(&entry("session.end", &[]), &contexts).unwrap();
        assert_eq!((session.trace_id[0], session.parent_span_id[0]), (0x0a, 0xb7));
        assert_eq!(session.flags & 0xff, 1, "sampled, whatever the agent says");
        assert_eq!((session.flags & REMOTE, session.links.len()), (REMOTE, 1), "the delegation alone");
        let same = span(&entry("process.exit", &[(VARIABLE, ours)]), &contexts).unwrap();
        assert_eq!((same.trace_id[0], same.links.len()), (0x0a, 0));
        let differs = span(&entry("process.exit", &[(VARIABLE, other)]), &contexts).unwrap();
        assert_eq!((differs.trace_id[0], differs.links[0].trace_id[0]), (0x0a, 0x11));
    }

    #[test]
    fn other_entries_are_no_spans() {
        assert_eq!(span(&entry("file.open", &[]), &Contexts::default()), None);
        assert_eq!(span(&entry("delegation.start", &[]), &Contexts::default()), None);
    }
}
