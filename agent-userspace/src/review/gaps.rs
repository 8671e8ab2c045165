//! What a history does not hold: what was lost or may have been, what retention removed, what cannot be judged again.
//!
//! Input: every entry that is read. Output: one [`MissingPart`] each, in the trail's order. Refuses to keep more than
//! [`MAX_MISSING`]: the rest is counted.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::entry::{Entry, SessionId, Timestamp};

/// Parts that are told of one by one.
pub const MAX_MISSING: usize = 10_000;

/// A part that is missing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MissingPart {
    /// The entry that says so.
    pub uid: String,
    /// The event that was lost, or `all`; `removed` by retention; `unjudgeable`.
    pub kind: String,
    /// The session, where it is one's.
    pub session: Option<SessionId>,
    /// How many actions or entries; none where nobody knows.
    pub lost: Option<u64>,
    /// From when.
    pub from: Timestamp,
    /// Until when.
    pub to: Timestamp,
    /// Why, in words.
    pub reason: String,
}

/// All that is missing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Missing {
    parts: Vec<MissingPart>,
    left_out: u64,
}

impl Missing {
    /// Takes note of what an entry says is missing: a gap of a session that is `wanted` or of nobody knows which, or what
    /// retention removed.
    pub fn look_at(&mut self, entry: &Entry, wanted: impl Fn(&Entry) -> bool) {
        let draft = &entry.draft;
        if draft.event == "trail.tombstone" {
            let seq = |name: &str| draft.attributes.get(name).and_then(Value::as_u64);
            let removed = seq("bailiwick.tombstone.to_seq")
                .zip(seq("bailiwick.tombstone.from_seq"))
                .map(|(to, from)| to.saturating_sub(from).saturating_add(1));
            let reason = "retention removed entries before this one";
            self.add(MissingPart {
                kind: "removed".to_owned(),
                lost: removed,
                from: Timestamp(0),
                ..part(entry, "removed", reason)
            });
        }
        let Some(gap) = &draft.gap else { return };
        if draft.session.or(gap.session).is_none() || wanted(entry) {
            self.add(MissingPart {
                session: draft.session.or(gap.session),
                lost: gap.lost,
                from: gap.from,
                to: gap.to,
                ..part(entry, &gap.kind, &gap.reason)
            });
        }
    }

    /// Takes note of an entry that cannot be judged again.
    pub fn unjudgeable(&mut self, entry: &Entry, why: &str) {
        self.add(part(entry, "unjudgeable", why));
    }

    /// Takes note of a part.
    pub fn add(&mut self, part: MissingPart) {
        if self.parts.len() < MAX_MISSING {
            self.parts.push(part);
        } else {
            self.left_out += 1;
        }
    }

    /// The parts, but for gaps of no known session that ended before `from` or began after `to`; and how many were left out.
    pub fn between(self, from: Timestamp, to: Timestamp) -> (Vec<MissingPart>, u64) {
        let overlaps = |part: &MissingPart| part.session.is_some() || (part.from <= to && part.to >= from);
        (self.parts.into_iter().filter(overlaps).collect(), self.left_out)
    }
}

fn part(entry: &Entry, kind: &str, reason: &str) -> MissingPart {
    let time = entry.draft.time;
    MissingPart {
        uid: entry.uid.clone(),
        kind: kind.to_owned(),
        session: entry.draft.session,
        lost: None,
        from: time,
        to: time,
        reason: reason.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::control::testing::{entry, time_of};

    #[test]
    fn gaps_of_others_are_left_out_and_those_of_nobody_are_kept_where_they_overlap() {
        let mut missing = Missing::default();
        let is_demo = |entry: &Entry| entry.draft.agent.as_deref() == Some("demo");
        for entry in [
            entry(1, "gap").agent("demo", 1).gap(Some(3), 1, 2).build(),
            entry(2, "gap").agent("other", 2).gap(Some(5), 1, 2).build(),
            entry(3, "gap").gap(None, 3, 4).build(),
            entry(9, "gap").gap(None, 8, 9).build(),
        ] {
            missing.look_at(&entry, is_demo);
        }
        let (parts, left_out) = missing.between(time_of(1), time_of(5));
        let uids: Vec<&str> = parts.iter().map(|part| part.uid.as_str()).collect();
        assert_eq!((uids, left_out), (vec!["5f3a91c2-1", "5f3a91c2-3"], 0));
    }

    #[test]
    fn what_retention_removed_is_missing() {
        let mut missing = Missing::default();
        let tombstone = entry(9, "trail.tombstone")
            .with("bailiwick.tombstone.from_seq", json!(1))
            .with("bailiwick.tombstone.to_seq", json!(8))
            .build();
        missing.look_at(&tombstone, |_| false);
        let (parts, _) = missing.between(time_of(5), time_of(9));
        assert_eq!((parts[0].kind.as_str(), parts[0].lost), ("removed", Some(8)));
    }
}
