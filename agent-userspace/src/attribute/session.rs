//! What is known of a session and of its processes.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::principal::Lost;
use crate::decode::ProcessKey;
use crate::entry::{Attribution, Delegator, Gap, Principal, SessionId, Timestamp};
use crate::trace_context::TraceContext;

/// One run of an agent.
#[derive(Clone, Debug)]
pub struct Session {
    /// Its id.
    pub id: SessionId,
    /// Its agent.
    pub agent: String,
    /// Its first process.
    pub root: ProcessKey,
    /// The image that the first process ran last, once that has ended and is forgotten.
    pub root_executable: Option<Vec<u8>>,
    /// How that was recognised.
    pub attribution: Attribution,
    /// Who delegated, outermost first.
    pub delegation: Vec<Delegator>,
    /// On whose behalf it runs.
    pub principal: Principal,
    /// Where that was lost.
    pub lost: Option<Lost>,
    /// When it began.
    pub started: Timestamp,
    /// Its processes that live.
    pub live: BTreeSet<ProcessKey>,
    /// How many processes were in it.
    pub processes: u64,
    /// What stands in the trail about it.
    pub tally: Tally,
}

/// A session's entries, counted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// All of them.
    pub entries: u64,
    /// Those out of scope.
    pub out_of_scope: u64,
    /// Findings among them.
    pub findings: u64,
    /// Actions known to be lost.
    pub lost: u64,
    /// Gaps of the session's own, and those of nobody knows which session while it lived.
    pub gaps: u64,
    /// The first of them, in words: kind, how many, interval, reason.
    pub told: Vec<String>,
    /// All of them, by kind.
    pub kinds: BTreeMap<String, LostOfKind>,
}

/// What was lost of one kind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LostOfKind {
    /// In how many gaps.
    pub gaps: u64,
    /// Actions of the session.
    pub lost: u64,
    /// Actions of nobody knows which session.
    pub perhaps: u64,
    /// Gaps in which nobody counted.
    pub uncounted: u64,
    /// When the first gap began.
    pub from: Timestamp,
    /// When the last one ended.
    pub to: Timestamp,
}

impl LostOfKind {
    fn add(&mut self, gap: &Gap) {
        self.gaps += 1;
        match (gap.lost, gap.session) {
            (Some(lost), Some(_)) => self.lost += lost,
            (Some(lost), None) => self.perhaps += lost,
            (None, _) => self.uncounted += 1,
        }
        self.from = self.from.min(gap.from);
        self.to = self.to.max(gap.to);
    }
}

impl std::fmt::Display for LostOfKind {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { gaps, lost, perhaps, uncounted, from, to } = self;
        let of = if *gaps == 1 { "gap" } else { "gaps" };
        write!(formatter, "{lost} in {gaps} {of}, from {from} to {to}")?;
        if *perhaps > 0 {
            write!(formatter, ", and {perhaps} of no known session")?;
        }
        if *uncounted > 0 {
            write!(formatter, ", uncounted in {uncounted} of the gaps")?;
        }
        Ok(())
    }
}

impl Tally {
    /// Gaps that are kept in words; of more, the entries themselves tell.
    const MOST_TOLD: usize = 16;
    /// Kinds that are kept apart: more than there are events.
    const MOST_KINDS: usize = 128;

    /// Adds a gap. Of one that may be another session's, what was lost is not counted as this one's.
    pub fn add_gap(&mut self, gap: &Gap) {
        self.gaps += 1;
        if gap.session.is_some() {
            self.lost += gap.lost.unwrap_or(0);
        }
        let nothing = LostOfKind { gaps: 0, lost: 0, perhaps: 0, uncounted: 0, from: gap.from, to: gap.to };
        if let Some(kind) = self.kinds.get_mut(&gap.kind) {
            kind.add(gap);
        } else if self.kinds.len() < Self::MOST_KINDS {
            self.kinds.entry(gap.kind.clone()).or_insert(nothing).add(gap);
        }
        if self.told.len() < Self::MOST_TOLD {
            let lost = gap.lost.map_or_else(|| "uncounted".to_owned(), |lost| lost.to_string());
            self.told.push(format!("{}: {lost}, from {} to {}: {}", gap.kind, gap.from, gap.to, gap.reason));
        }
    }

    /// What was lost, a sentence for each kind.
    pub fn lost_by_kind(&self) -> Vec<String> {
        self.kinds.iter().map(|(kind, lost)| format!("{kind}: {lost}")).collect()
    }
}

/// A process of a session.
#[derive(Clone, Debug, Default)]
pub struct Process {
    /// The session's kernel id.
    pub session: u64,
    /// The image's path, where known.
    pub executable: Option<Vec<u8>>,
    /// The arguments of its last exec.
    pub arguments: Vec<Vec<u8>>,
    /// Its parent's id.
    pub parent_tgid: Option<u32>,
    /// Its parent, where that belongs to the same session.
    pub parent: Option<ProcessKey>,
    /// The trace that its environment says it is part of, as of its last exec.
    pub trace: Option<Arc<TraceContext>>,
    /// How many execs it made in its session.
    pub execs: u32,
    /// When it ended, in nanoseconds after boot.
    pub ended_boot_ns: Option<u64>,
}

#[cfg(test)]
mod tests {
    use super::Tally;
    use crate::entry::{Gap, SessionId, Timestamp};

    #[test]
    fn a_gap_of_nobody_knows_which_session_is_told_but_not_counted_as_ones_own() {
        let gap = |session, lost| Gap {
            kind: "file.open".to_owned(),
            session,
            lost,
            from: Timestamp(0),
            to: Timestamp(1),
            reason: "the ring was full".to_owned(),
        };
        let mut tally = Tally::default();
        tally.add_gap(&gap(Some(SessionId(1)), Some(12)));
        tally.add_gap(&gap(None, Some(5)));
        tally.add_gap(&gap(Some(SessionId(1)), None));
        assert_eq!((tally.lost, tally.gaps, tally.told.len()), (12, 3, 3));
        assert!(
            tally.told[0].starts_with("file.open: 12, from 1970-01-01T00:00:00.000000000Z to "),
            "{:?}",
            tally.told
        );
        assert!(tally.told[2].contains("uncounted"));
        for _ in 0..100 {
            tally.add_gap(&gap(None, None));
        }
        assert_eq!((tally.gaps, tally.told.len()), (103, Tally::MOST_TOLD));
    }

    #[test]
    fn of_however_many_gaps_the_kinds_and_the_whole_interval_are_told() {
        let mut tally = Tally::default();
        for second in 1..=100 {
            let (session, lost) = match second {
                50 => (None, Some(7)),
                60 => (Some(SessionId(1)), None),
                _ => (Some(SessionId(1)), Some(2)),
            };
            let kind = if second == 100 { "file.rename" } else { "file.open" };
            let reason = "the ring was full".to_owned();
            let (from, to) = (Timestamp(second * 1_000_000_000), Timestamp((second + 1) * 1_000_000_000));
            tally.add_gap(&Gap { kind: kind.to_owned(), session, lost, from, to, reason });
        }
        let told = [
            "file.open: 194 in 99 gaps, from 1970-01-01T00:00:01.000000000Z to 1970-01-01T00:01:40.000000000Z, and 7 of no \
             known session, uncounted in 1 of the gaps",
            "file.rename: 2 in 1 gap, from 1970-01-01T00:01:40.000000000Z to 1970-01-01T00:01:41.000000000Z",
        ];
        assert_eq!(tally.lost_by_kind(), told);
    }
}
