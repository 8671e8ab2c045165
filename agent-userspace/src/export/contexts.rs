//! Which trace a session is in: one of its own or, where the settings say so, that of the agent; and what its span is linked to.
//!
//! What an agent says of its trace stands in the session's first entry alone. So it is noted when that is read, and kept with
//! the cursor: sent twice, a span is the same span, and what began joined ends joined, whatever is configured meanwhile.

use std::collections::{BTreeMap, VecDeque};

use opentelemetry::trace::TraceId;
use serde::{Deserialize, Serialize};

use super::ids;
use crate::entry::{Entry, SessionId};
use crate::trace_context::TraceContext;

/// Sessions whose context is kept at once; one beyond is neither joined nor linked.
const MAX_LIVING: usize = 1024;
/// Of sessions that have ended: what comes late goes where the rest went.
const MAX_ENDED: usize = 64;

/// The contexts of sessions.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Contexts {
    living: BTreeMap<SessionId, Context>,
    ended: VecDeque<(SessionId, Context)>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Context {
    #[serde(flatten)]
    claimed: TraceContext,
    /// Whether the session is in that trace.
    joined: bool,
}

/// What is noted of the contexts that entries have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Noting {
    /// Whether sessions join the agent's trace.
    pub(super) joins: bool,
    /// Whether those that do not are linked to it.
    pub(super) links: bool,
}

impl Contexts {
    /// Notes what these entries begin, before they are sent. Read again, they change nothing.
    pub(super) fn begin(&mut self, entries: &[Entry], noting: Noting) {
        if !noting.joins && !noting.links {
            return;
        }
        for draft in entries.iter().map(|entry| &entry.draft).filter(|draft| draft.event == "session.start") {
            if let Some(session) = draft.session
                && self.of(session).is_none()
                && self.living.len() < MAX_LIVING
                && let Some(claimed) = TraceContext::of_entry(draft)
            {
                self.living.insert(session, Context { claimed, joined: noting.joins });
            }
        }
    }

    /// Notes what these entries ended, once they are sent.
    pub(super) fn end(&mut self, entries: &[Entry]) {
        for draft in entries.iter().map(|entry| &entry.draft).filter(|draft| draft.event == "session.end") {
            let Some(session) = draft.session else { continue };
            let Some(context) = self.living.remove(&session) else { continue };
            self.ended.push_back((session, context));
            if self.ended.len() > MAX_ENDED {
                self.ended.pop_front();
            }
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.living.is_empty() && self.ended.is_empty()
    }

    /// The trace that a session is in.
    pub(super) fn trace_id(&self, session: SessionId) -> TraceId {
        self.joined(session).map_or_else(|| ids::trace_id(session), |joined| TraceId::from_bytes(joined.trace_id))
    }

    /// What a session's span is below, where it has joined the agent's trace.
    pub(super) fn joined(&self, session: SessionId) -> Option<&TraceContext> {
        self.of(session).filter(|context| context.joined).map(|context| &context.claimed)
    }

    /// What a session's span is linked to, where it has a trace of its own.
    pub(super) fn linked(&self, session: SessionId) -> Option<&TraceContext> {
        self.of(session).filter(|context| !context.joined).map(|context| &context.claimed)
    }

    fn of(&self, session: SessionId) -> Option<&Context> {
        let ended = || self.ended.iter().rev().find(|(known, _)| *known == session).map(|(_, context)| context);
        self.living.get(&session).or_else(ended)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{Contexts, MAX_ENDED, MAX_LIVING, Noting};
    use crate::entry::{Draft, Entry, SessionId, Timestamp};
    use crate::export::ids;

    const JOINING: Noting = Noting { joins: true, links: true };
    const LINKING: Noting = Noting { joins: false, links: true };

    fn entry(event: &str, session: u64) -> Entry {
        let mut draft = Draft::of_host(Timestamp(1), event);
        draft.session = Some(SessionId(session));
        let claimed = json!("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00");
        draft.attributes.insert("process.environment_variable.TRACEPARENT".to_owned(), claimed);
        Entry { uid: format!("x-{session}"), seq: session, draft, chain: String::new() }
    }

    #[test]
    fn what_began_in_a_trace_ends_in_it_whatever_is_configured_meanwhile() {
        let mut contexts = Contexts::default();
        contexts.begin(&[entry("session.start", 1), entry("process.exec", 9)], LINKING);
        contexts.begin(&[entry("session.start", 1), entry("session.start", 2)], JOINING);
        assert_eq!(
            (contexts.trace_id(SessionId(1)), contexts.joined(SessionId(1))),
            (ids::trace_id(SessionId(1)), None)
        );
        assert!(contexts.linked(SessionId(1)).is_some());
        assert_eq!(contexts.trace_id(SessionId(2)).to_string(), "0af7651916cd43dd8448eb211c80319c");
        assert_eq!(contexts.linked(SessionId(9)), None, "only its first entry says so of a session");
        contexts.end(&[entry("session.end", 2)]);
        contexts.begin(&[entry("session.start", 2)], LINKING);
        assert!(contexts.joined(SessionId(2)).is_some(), "an entry that is late goes where the rest went");
    }

    #[test]
    fn nothing_is_kept_where_nothing_asks_for_it_and_never_without_end() {
        let mut contexts = Contexts::default();
        let all: Vec<_> = (1..=2000).map(|session| entry("session.start", session)).collect();
        contexts.begin(&all, Noting { joins: false, links: false });
        assert!(contexts.is_empty());
        contexts.begin(&all, JOINING);
        assert_eq!(contexts.living.len(), MAX_LIVING);
        let ends: Vec<_> = (1..=2000).map(|session| entry("session.end", session)).collect();
        contexts.end(&ends);
        assert_eq!((contexts.living.len(), contexts.ended.len()), (0, MAX_ENDED));
    }
}
