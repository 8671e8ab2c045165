//! Sessions, folded from the trail's entries.
//!
//! Inputs: entries, or sums over stretches, in the order of the trail. Outputs: one [`SessionItem`] for each session. Pure. Refuses: to hold more than
//! [`MAX_SESSIONS`]: the oldest that ended are left out first.

use std::collections::{BTreeSet, HashMap, HashSet, VecDeque};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::core::Found;
use super::query::Filter;
use super::report::SessionItem;
use crate::entry::{Draft, Entry, SessionId, Timestamp, Verdict};

/// Sessions that a listing holds at most.
pub const MAX_SESSIONS: usize = 10_000;

/// Processes that a session keeps apart. Beyond, every fork counts as one more, which it is.
const MAX_PROCESSES_TOLD_APART: usize = 65_536;

/// One session's sums over a stretch of the trail.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tally {
    item: SessionItem,
    /// The latest time of an entry of it.
    last: Timestamp,
    /// Its processes, as long as its end does not say how many there were.
    processes: BTreeSet<(u32, u64)>,
    forks: u64,
    /// Whether its end says how many there were.
    counted: bool,
}

impl Tally {
    /// Of no entry yet.
    pub(crate) fn of(session: SessionId) -> Self {
        let item = SessionItem {
            session,
            agent: None,
            principal: None,
            delegation: Vec::new(),
            started: None,
            ended: None,
            alive: false,
            processes: 0,
            entries: 0,
            in_scope: 0,
            out_of_scope: 0,
            lost: 0,
            uncounted_gaps: 0,
        };
        Self { item, last: Timestamp::default(), processes: BTreeSet::new(), forks: 0, counted: false }
    }

    /// The sums.
    pub fn item(&self) -> &SessionItem {
        &self.item
    }

    /// The latest time of an entry of it.
    pub(super) fn last(&self) -> Timestamp {
        self.last
    }

    /// Adds an entry of this session.
    pub(crate) fn add(&mut self, entry: &Entry) {
        let draft = &entry.draft;
        self.last = self.last.max(draft.time);
        let item = &mut self.item;
        item.entries += 1;
        item.started = item.started.or(Some(draft.time));
        if item.agent.is_none() {
            item.agent.clone_from(&draft.agent);
        }
        if item.principal.is_none() {
            item.principal.clone_from(&draft.principal);
        }
        if item.delegation.is_empty() {
            item.delegation.clone_from(&draft.delegation);
        }
        match draft.verdict {
            Verdict::InScope => item.in_scope += 1,
            Verdict::OutOfScope | Verdict::Denied => item.out_of_scope += 1,
            Verdict::None => {}
        }
        if let Some(gap) = &draft.gap {
            item.lost = item.lost.saturating_add(gap.lost.unwrap_or(0));
            item.uncounted_gaps += u64::from(gap.lost.is_none());
        }
        self.count_processes(draft);
    }

    fn count_processes(&mut self, draft: &Draft) {
        if self.item.ended.is_some() {
            return;
        }
        if draft.event == "session.end" {
            self.item.ended = Some(draft.time);
            if let Some(counted) = draft.attributes.get("bailiwick.session.processes").and_then(Value::as_u64) {
                self.item.processes = counted;
                self.processes = BTreeSet::new();
                self.counted = true;
            }
            return;
        }
        let acting = draft.process.as_ref().map(|process| (process.tgid, process.start_boot_ns));
        let forked = child_of(draft);
        self.forks += u64::from(forked.is_some());
        if self.processes.len() >= MAX_PROCESSES_TOLD_APART {
            self.item.processes += u64::from(forked.is_some());
            return;
        }
        for key in acting.into_iter().chain(forked) {
            self.item.processes += u64::from(self.processes.insert(key));
        }
    }

    /// Adds the sums of the stretch that follows.
    pub(super) fn append(&mut self, next: Self) {
        self.last = self.last.max(next.last);
        let Self { item, processes, forks, counted, .. } = next;
        let own = &mut self.item;
        own.entries += item.entries;
        own.started = own.started.or(item.started);
        own.agent = own.agent.take().or(item.agent);
        own.principal = own.principal.take().or(item.principal);
        if own.delegation.is_empty() {
            own.delegation = item.delegation;
        }
        own.in_scope += item.in_scope;
        own.out_of_scope += item.out_of_scope;
        own.lost = own.lost.saturating_add(item.lost);
        own.uncounted_gaps += item.uncounted_gaps;
        if own.ended.is_some() {
            return;
        }
        own.ended = item.ended;
        self.forks += forks;
        self.counted = counted;
        if counted {
            own.processes = item.processes;
            self.processes = BTreeSet::new();
        } else if self.processes.len() + processes.len() > MAX_PROCESSES_TOLD_APART {
            own.processes += forks;
        } else {
            self.processes.extend(processes);
            own.processes = self.processes.len() as u64;
        }
    }

    /// What it came to. A session without an end lives only if the daemon says so: its end may not have been seen.
    pub(crate) fn finish(mut self, is_live: bool) -> SessionItem {
        self.item.alive = is_live && self.item.ended.is_none();
        self.item
    }
}

/// The child of a `process.fork`: tgid and start after boot in nanoseconds.
pub fn child_of(draft: &Draft) -> Option<(u32, u64)> {
    if draft.event != "process.fork" {
        return None;
    }
    let tgid = draft.attributes.get("bailiwick.child.tgid").and_then(Value::as_u64)?;
    let start = draft.attributes.get("bailiwick.child.start_boot_ns").and_then(Value::as_str)?;
    Some((u32::try_from(tgid).ok()?, start.parse().ok()?))
}

/// The session an entry belongs to; of a gap, the one it speaks of.
pub fn session_of(entry: &Entry) -> Option<SessionId> {
    entry.draft.session.or_else(|| entry.draft.gap.as_ref().and_then(|gap| gap.session))
}

/// All sessions' sums so far, each with whether an entry of it is wanted.
#[derive(Debug, Default)]
pub(crate) struct Sessions {
    filter: Filter,
    tallies: HashMap<SessionId, (Tally, bool)>,
    order: VecDeque<SessionId>,
}

impl Sessions {
    /// Those of which an entry matches, each with all its entries.
    pub(crate) fn matching(filter: Filter) -> Self {
        Self { filter, ..Self::default() }
    }

    pub(crate) fn add(&mut self, found: Found) {
        match found {
            Found::Entry(entry) => {
                let Some(session) = session_of(&entry) else { return };
                let matches = self.filter.matches(&entry);
                let (tally, matched) = self.of(session);
                *matched |= matches;
                tally.add(&entry);
            }
            Found::Sums { tally: next, matched: matches } => {
                let (tally, matched) = self.of(next.item.session);
                *matched |= matches;
                tally.append(next);
            }
            Found::Counted(_) => {}
        }
    }

    fn of(&mut self, session: SessionId) -> &mut (Tally, bool) {
        if !self.tallies.contains_key(&session) {
            self.make_room();
            self.order.push_back(session);
        }
        self.tallies.entry(session).or_insert_with(|| (Tally::of(session), false))
    }

    fn make_room(&mut self) {
        if self.order.len() < MAX_SESSIONS {
            return;
        }
        let has_ended = |id: &SessionId| self.tallies.get(id).is_some_and(|(tally, _)| tally.item.ended.is_some());
        let oldest = self.order.iter().position(has_ended).unwrap_or(0);
        if let Some(id) = self.order.remove(oldest) {
            self.tallies.remove(&id);
        }
    }

    /// The sessions, oldest first.
    pub(crate) fn finish(mut self, live: &HashSet<SessionId>) -> Vec<SessionItem> {
        let tallies = &mut self.tallies;
        self.order
            .iter()
            .filter_map(|id| tallies.remove(id))
            .filter(|(_, matched)| *matched)
            .map(|(tally, _)| {
                let is_live = live.contains(&tally.item.session);
                tally.finish(is_live)
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

    use serde_json::json;

    use super::*;
    use crate::control::testing::{entry, time_of};

    fn fold(entries: &[Entry], live: &[u64]) -> Vec<SessionItem> {
        let mut sessions = Sessions::default();
        entries.iter().for_each(|entry| sessions.add(Found::Entry(entry.clone())));
        sessions.finish(&live.iter().map(|id| SessionId(*id)).collect())
    }

    #[test]
    fn a_session_sums_its_own_entries_and_no_others() {
        let entries = [
            entry(1, "sensor.start").build(),
            entry(2, "session.start").agent("demo", 1).process(10, "/bin/sh").build(),
            entry(3, "process.fork")
                .agent("demo", 1)
                .process(10, "/bin/sh")
                .with("bailiwick.child.tgid", json!(11))
                .with("bailiwick.child.start_boot_ns", json!("11000"))
                .build(),
            entry(4, "file.open").agent("demo", 1).process(11, "/bin/cat").verdict(Verdict::InScope).build(),
            entry(5, "file.open").agent("demo", 1).process(11, "/bin/cat").nearest("/tmp/**").build(),
            entry(6, "gap").agent("demo", 1).gap(Some(12), 4, 5).build(),
            entry(7, "gap").agent("demo", 1).gap(None, 4, 5).build(),
            entry(8, "file.open").agent("other", 2).process(20, "/bin/cat").build(),
        ];
        let items = fold(&entries, &[1]);
        assert_eq!(items.len(), 2);
        let demo = &items[0];
        assert_eq!((demo.session, demo.agent.as_deref()), (SessionId(1), Some("demo")));
        assert_eq!((demo.processes, demo.entries), (2, 6));
        assert_eq!((demo.in_scope, demo.out_of_scope, demo.lost, demo.uncounted_gaps), (1, 1, 12, 1));
        assert_eq!((demo.started, demo.ended, demo.alive), (Some(time_of(2)), None, true));
        assert!(!items[1].alive, "the daemon does not know it as living: its end was not seen");
    }

    #[test]
    fn an_ended_session_takes_the_count_of_processes_from_its_end() {
        let entries = [
            entry(1, "session.start").agent("demo", 1).process(10, "/bin/sh").build(),
            entry(2, "session.end").agent("demo", 1).with("bailiwick.session.processes", json!(7)).build(),
            entry(3, "file.open").agent("demo", 1).process(12, "/bin/cat").build(),
        ];
        let items = fold(&entries, &[1]);
        assert_eq!((items[0].processes, items[0].entries), (7, 3));
        assert_eq!((items[0].ended, items[0].alive), (Some(time_of(2)), false));
    }

    #[test]
    fn over_the_limit_the_oldest_that_ended_is_left_out() {
        let mut sessions = Sessions::default();
        sessions.add(Found::Entry(entry(1, "session.start").agent("demo", 1).build()));
        sessions.add(Found::Entry(entry(2, "session.start").agent("demo", 2).build()));
        sessions.add(Found::Entry(entry(3, "session.end").agent("demo", 2).build()));
        for id in 3..=MAX_SESSIONS as u64 + 1 {
            sessions.add(Found::Entry(entry(id + 1, "session.start").agent("demo", id).build()));
        }
        let items = sessions.finish(&HashSet::new());
        assert_eq!(items.len(), MAX_SESSIONS);
        assert_eq!(items[0].session, SessionId(1), "it lives, so it stays");
        assert_eq!(items[1].session, SessionId(3));
    }

    #[test]
    fn one_agents_sessions_can_be_asked_for() {
        let mut sessions = Sessions::matching(Filter { agents: vec!["demo".into()], ..Filter::default() });
        sessions.add(Found::Entry(entry(1, "session.start").agent("demo", 1).build()));
        sessions.add(Found::Entry(entry(2, "session.start").agent("other", 2).build()));
        let items = sessions.finish(&HashSet::new());
        assert_eq!(items.iter().map(|item| item.session.0).collect::<Vec<_>>(), [1]);
    }
}
