//! One session out of the trail: which one is meant, which entries are its, and what a statement of completeness needs.
//!
//! Inputs: entries, or sums over stretches, in the order of the trail. Outputs: a session's id; the [`Closing`] that follows its entries. Pure.
//! Refuses: a beginning of an id that fits several sessions.

use std::collections::BTreeSet;

use serde_json::Value;

use super::core::Found;
use super::protocol::{ErrorKind, RemoteError};
use super::query::Filter;
use super::report::Closing;
use super::sessions::{Tally, session_of};
use crate::entry::{Delegator, Entry, Gap, SessionId, Timestamp};

/// Sessions named in an error at most.
const MAX_NAMED: usize = 8;

/// Gaps and delegations that a closing holds at most.
const MAX_RELATED: usize = 10_000;

/// The sessions whose id begins so.
#[derive(Debug)]
pub(super) struct Candidates {
    prefix: String,
    found: BTreeSet<SessionId>,
}

impl Candidates {
    pub(super) fn beginning(prefix: &str) -> Result<Self, RemoteError> {
        let prefix = prefix.to_ascii_lowercase();
        let is_hex = prefix.bytes().all(|byte| byte.is_ascii_hexdigit());
        if prefix.is_empty() || prefix.len() > 16 || !is_hex {
            let message = "a session is named by its id, sixteen hexadecimal digits, or by the first of them (see \
                           `bailiwick sessions`)";
            return Err(RemoteError::new(ErrorKind::BadRequest, message));
        }
        Ok(Self { prefix, found: BTreeSet::new() })
    }

    /// Takes note of a piece of an answer; returns its session where that is a candidate.
    pub(super) fn add(&mut self, found: &Found) -> Option<SessionId> {
        let session = match found {
            Found::Entry(entry) | Found::Counted(entry) => session_of(entry),
            Found::Sums { tally, .. } => Some(tally.item().session),
        };
        let session = session.filter(|session| session.to_string().starts_with(&self.prefix))?;
        if self.found.len() <= MAX_NAMED {
            self.found.insert(session);
        }
        self.found.contains(&session).then_some(session)
    }

    pub(super) fn only(self) -> Result<SessionId, RemoteError> {
        let mut found = self.found.iter();
        match (found.next(), found.next()) {
            (Some(session), None) => Ok(*session),
            (Some(_), Some(_)) => {
                let all: Vec<String> = self.found.iter().take(MAX_NAMED).map(ToString::to_string).collect();
                let more = if self.found.len() > MAX_NAMED { " and others" } else { "" };
                let message = format!("'{}' fits several sessions: {}{more}", self.prefix, all.join(", "));
                Err(RemoteError::new(ErrorKind::BadRequest, message))
            }
            (None, _) => {
                let message = format!("no session '{}' stands in the trail (see `bailiwick sessions`)", self.prefix);
                Err(RemoteError::new(ErrorKind::NotFound, message))
            }
        }
    }
}

/// What is gathered of a session while its entries go out.
#[derive(Debug)]
pub(crate) struct Story {
    tally: Tally,
    filter: Filter,
    host_gaps: Vec<Gap>,
    delegated_to: Vec<Delegator>,
    blind_now: Option<BTreeSet<String>>,
    blind_then: Option<BTreeSet<String>>,
}

impl Story {
    /// Of all its entries; those that match are handed out.
    pub(crate) fn matching(session: SessionId, filter: Filter) -> Self {
        Self {
            tally: Tally::of(session),
            filter,
            host_gaps: Vec::new(),
            delegated_to: Vec::new(),
            blind_now: None,
            blind_then: None,
        }
    }

    /// Takes note of a piece of the trail; returns the entry that it is, where that is one of the session's that match.
    pub(crate) fn add(&mut self, found: Found) -> Option<Entry> {
        let (entry, counted) = match found {
            Found::Entry(entry) => (entry, false),
            Found::Counted(entry) => (entry, true),
            Found::Sums { tally, .. } => {
                if tally.item().session == self.tally.item().session {
                    self.note_beginning();
                    self.tally.append(tally);
                }
                return None;
            }
        };
        if session_of(&entry) != Some(self.tally.item().session) {
            self.add_others(&entry);
            return None;
        }
        if !counted {
            self.note_beginning();
            self.tally.add(&entry);
        }
        self.filter.matches(&entry).then_some(entry)
    }

    fn note_beginning(&mut self) {
        if self.tally.item().entries == 0 {
            self.blind_then.clone_from(&self.blind_now);
        }
    }

    fn add_others(&mut self, entry: &Entry) {
        let draft = &entry.draft;
        match &draft.gap {
            Some(gap) if gap.session.is_none() && self.host_gaps.len() < MAX_RELATED => {
                self.host_gaps.push(gap.clone());
            }
            Some(_) | None => {}
        }
        if matches!(draft.event.as_str(), "sensor.start" | "sensor.degraded") {
            self.note_blind_spots(entry);
        }
        let session = self.tally.item().session;
        if draft.event == "delegation.start"
            && draft.delegation.last().is_some_and(|delegator| delegator.session == session)
            && let (Some(agent), Some(delegated)) = (&draft.agent, draft.session)
            && self.delegated_to.len() < MAX_RELATED
        {
            self.delegated_to.push(Delegator { agent: agent.clone(), session: delegated });
        }
    }

    fn note_blind_spots(&mut self, entry: &Entry) {
        let listed = entry.draft.attributes.get("bailiwick.sensor.blind_spots").and_then(Value::as_array);
        let spots = listed.into_iter().flatten().filter_map(Value::as_str).map(str::to_owned);
        if entry.draft.event == "sensor.start" {
            self.blind_now = Some(spots.collect());
        } else if let Some(now) = &mut self.blind_now {
            now.extend(spots);
        }
        let item = self.tally.item();
        if item.entries > 0
            && item.ended.is_none()
            && let (Some(then), Some(now)) = (&mut self.blind_then, &self.blind_now)
        {
            then.extend(now.iter().cloned());
        }
    }

    /// What follows the entries.
    pub(crate) fn close(self, is_live: bool) -> Closing {
        let last = self.tally.last();
        let session = self.tally.finish(is_live);
        let from = session.started.unwrap_or_default();
        let to = if session.alive { Timestamp(u64::MAX) } else { session.ended.unwrap_or_default().max(last) };
        let host_gaps = self.host_gaps.into_iter().filter(|gap| gap.from <= to && gap.to >= from).collect();
        let blind_spots = self.blind_then.map(|spots| spots.into_iter().collect());
        Closing { session, host_gaps, blind_spots, delegated_to: self.delegated_to }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

    use serde_json::json;

    use super::*;
    use crate::control::testing::entry;

    fn find(prefix: &str, sessions: &[u64]) -> Result<SessionId, RemoteError> {
        let mut candidates = Candidates::beginning(prefix)?;
        for id in sessions {
            candidates.add(&Found::Entry(entry(1, "session.start").agent("demo", *id).build()));
        }
        candidates.only()
    }

    fn told(entries: &[Entry]) -> (Vec<u64>, Closing) {
        let mut story = Story::matching(SessionId(1), Filter::default());
        let own =
            entries.iter().filter_map(|entry| story.add(Found::Entry(entry.clone()))).map(|entry| entry.seq).collect();
        (own, story.close(false))
    }

    #[test]
    fn a_session_is_found_by_the_beginning_of_its_id() {
        let sessions = [0xaa00_0000_0000_0001, 0xab00_0000_0000_0001];
        assert_eq!(find("AB", &sessions), Ok(SessionId(sessions[1])));
        assert_eq!(find("aa00000000000001", &sessions), Ok(SessionId(sessions[0])));
    }

    #[test]
    fn a_beginning_that_fits_two_sessions_is_refused_with_both_named() {
        let error = find("a", &[0xaa00_0000_0000_0001, 0xab00_0000_0000_0001]).unwrap_err();
        assert_eq!(error.kind, ErrorKind::BadRequest);
        assert_eq!(error.message, "'a' fits several sessions: aa00000000000001, ab00000000000001");
    }

    #[test]
    fn what_is_no_session_is_refused() {
        assert_eq!(find("ff", &[1]).unwrap_err().kind, ErrorKind::NotFound);
        assert_eq!(find("", &[1]).unwrap_err().kind, ErrorKind::BadRequest);
        assert_eq!(find("../..", &[1]).unwrap_err().kind, ErrorKind::BadRequest);
    }

    #[test]
    fn the_hosts_gaps_count_only_where_they_overlap_the_session() {
        let (own, closing) = told(&[
            entry(1, "gap").gap(Some(1), 1, 2).build(),
            entry(3, "session.start").agent("demo", 1).build(),
            entry(4, "gap").gap(None, 2, 4).build(),
            entry(5, "session.end").agent("demo", 1).build(),
            entry(9, "gap").gap(Some(2), 8, 9).build(),
            entry(10, "gap").agent("other", 2).gap(Some(2), 3, 4).build(),
        ]);
        assert_eq!(own, [3, 5]);
        assert_eq!(closing.host_gaps.len(), 1);
        assert_eq!(closing.host_gaps[0].lost, None);
    }

    #[test]
    fn blind_spots_are_those_of_the_sensor_while_the_session_ran() {
        let spots = |seq, event: &str, spots: &[&str]| {
            entry(seq, event).with("bailiwick.sensor.blind_spots", json!(spots)).build()
        };
        let (_, closing) = told(&[
            spots(1, "sensor.start", &["long ago"]),
            spots(2, "sensor.start", &["b"]),
            entry(3, "session.start").agent("demo", 1).build(),
            spots(4, "sensor.degraded", &["a"]),
            entry(5, "session.end").agent("demo", 1).build(),
            spots(6, "sensor.start", &["later"]),
        ]);
        assert_eq!(closing.blind_spots, Some(vec!["a".to_owned(), "b".to_owned()]));
    }

    #[test]
    fn where_the_trail_does_not_hold_the_sensors_start_blind_spots_are_unknown() {
        let (_, closing) = told(&[
            entry(1, "session.start").agent("demo", 1).build(),
            entry(2, "sensor.start").with("bailiwick.sensor.blind_spots", json!([])).build(),
        ]);
        assert_eq!(closing.blind_spots, None);
    }

    #[test]
    fn only_sessions_it_delegated_to_itself_are_named() {
        let (_, closing) = told(&[
            entry(1, "session.start").agent("demo", 1).build(),
            entry(2, "delegation.start").agent("tester", 2).delegated_by("demo", 1).build(),
            entry(3, "delegation.start").agent("third", 3).delegated_by("demo", 1).delegated_by("tester", 2).build(),
        ]);
        assert_eq!(closing.delegated_to, [Delegator { agent: "tester".into(), session: SessionId(2) }]);
    }
}
