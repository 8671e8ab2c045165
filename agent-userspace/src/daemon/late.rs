//! What comes of a session after its end: connections that its processes left open.

use std::collections::VecDeque;

use super::drafts::Compose;
use super::pipeline::Pipeline;
use crate::attribute::Session;
use crate::decode::{Action, Event};
use crate::entry::Timestamp;

/// So many sessions are remembered after their end: a session is a few strings.
const MOST_OVER: usize = 1_024;

/// The sessions that ended last.
#[derive(Debug, Default)]
pub(super) struct Over(VecDeque<Session>);

impl Over {
    /// Remembers one, and forgets the oldest where there are too many.
    pub(super) fn note(&mut self, session: Session) {
        if self.0.len() == MOST_OVER {
            self.0.pop_front();
        }
        self.0.push_back(session);
    }

    fn get(&self, id: u64) -> Option<&Session> {
        self.0.iter().rev().find(|session| session.id.0 == id)
    }
}

impl Pipeline {
    /// Takes the end of a connection that comes after its session's; whether it was such. Of a session that is not remembered
    /// any more it is a gap.
    pub(super) fn took_late(&mut self, event: &Event, time: Timestamp) -> bool {
        let head = &event.head;
        let Action::Closed(closed) = &event.action else { return false };
        // Of a session that nobody had decided on when the connection was made it is not known whether it was one.
        if head.provisional || self.attributor.resolve(head.session).is_some() {
            return false;
        }
        let Some(session) = self.over.get(head.session) else {
            let why = "a connection ended after its session, which is not remembered any more";
            self.lose(None, "network.close", Some(1), (head.time_boot_ns, head.time_boot_ns), why);
            return true;
        };
        let mut compose = Compose::of(&self.attributor, session, head.process, head.tid, time, "network.close");
        compose.closed(closed);
        self.push(head.session, compose.draft);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::{MOST_OVER, Over};
    use crate::attribute::Session;
    use crate::decode::ProcessKey;
    use crate::entry::{Attribution, Confidence, Method, Principal, SessionId, Timestamp};

    fn session(id: u64) -> Session {
        Session {
            id: SessionId(id),
            agent: "an-agent".to_owned(),
            root: ProcessKey { tgid: 1, start_boot_ns: 1 },
            root_executable: None,
            attribution: Attribution { method: Method::Run, confidence: Confidence::Certain },
            delegation: Vec::new(),
            principal: Principal { uid: 0, ..Principal::default() },
            lost: None,
            started: Timestamp(0),
            live: std::collections::BTreeSet::new(),
            processes: 1,
            tally: crate::attribute::Tally::default(),
        }
    }

    #[test]
    fn the_sessions_that_ended_last_are_remembered_and_no_more_than_so_many() {
        let mut over = Over::default();
        let many = MOST_OVER as u64 + 1;
        (1..=many).for_each(|id| over.note(session(id)));
        assert!(over.get(1).is_none());
        assert!(over.get(2).is_some() && over.get(many).is_some());
        assert_eq!(over.0.len(), MOST_OVER);
    }
}
