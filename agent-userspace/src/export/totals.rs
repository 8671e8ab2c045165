//! Running totals over the trail, from its first entry on: what the metrics tell.
//!
//! They are a pure fold of the entries and are kept with the cursor, so they go on where they were after a restart, and
//! where they are lost they are computed again from the trail.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use opentelemetry_proto::tonic::metrics::v1::Metric;

use crate::entry::{Draft, Entry, SessionId, Timestamp};

/// Distinct series kept of each kind, so that all of them fit into one request. Labels are agents, events and verdicts;
/// what is beyond is counted in one series, marked as OpenTelemetry marks it, so that sums stay right.
const MAX_SERIES: usize = 3_000;

/// Sessions followed as live at once; beyond, the gauge reads low.
const MAX_LIVE: usize = 100_000;

/// What entries are counted by.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(super) struct Series {
    pub(super) agent: Option<String>,
    pub(super) event: String,
    pub(super) verdict: String,
    /// The series of what found no place of its own.
    #[serde(default)]
    pub(super) overflow: bool,
}

/// How much there was.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Sums {
    /// Entries.
    pub(super) entries: u64,
    /// Actions: the sum of their `count`.
    pub(super) events: u64,
    /// Entries of which something was redacted.
    #[serde(default)]
    pub(super) redacted: u64,
}

/// What gaps are counted by.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(super) struct GapSeries {
    pub(super) agent: Option<String>,
    pub(super) kind: String,
    #[serde(default)]
    pub(super) overflow: bool,
}

/// How much was lost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct GapSums {
    /// Gaps whose losses were counted.
    pub(super) counted: u64,
    /// Gaps in which nobody counted.
    pub(super) uncounted: u64,
    /// Actions lost, where they were counted.
    pub(super) lost: u64,
}

/// All totals.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Totals {
    #[serde(with = "as_list")]
    pub(super) series: BTreeMap<Series, Sums>,
    #[serde(with = "as_list")]
    pub(super) gaps: BTreeMap<GapSeries, GapSums>,
    /// Sessions that have not ended, with their agents.
    #[serde(with = "as_list")]
    live: BTreeMap<SessionId, Option<String>>,
    /// Agents that ever had a session: a gauge that has fallen to nothing is still to be told.
    agents: BTreeSet<Option<String>>,
}

impl Totals {
    /// Adds an entry.
    pub(super) fn add(&mut self, entry: &Entry) {
        self.add_draft(&entry.draft);
    }

    /// Adds what is to be an entry.
    pub(crate) fn add_draft(&mut self, draft: &Draft) {
        let key = Series {
            agent: draft.agent.clone(),
            event: draft.event.clone(),
            verdict: draft.verdict.as_str().to_owned(),
            overflow: false,
        };
        let rest = Series { agent: None, event: "other".to_owned(), verdict: "none".to_owned(), overflow: true };
        let sums = place(&mut self.series, key, rest);
        sums.entries += 1;
        sums.events = sums.events.saturating_add(draft.count);
        sums.redacted += u64::from(!draft.redacted.is_empty());
        if let Some(gap) = &draft.gap {
            let key = GapSeries { agent: draft.agent.clone(), kind: gap.kind.clone(), overflow: false };
            let rest = GapSeries { agent: None, kind: "other".to_owned(), overflow: true };
            let sums = place(&mut self.gaps, key, rest);
            match gap.lost {
                Some(lost) => {
                    sums.counted += 1;
                    sums.lost = sums.lost.saturating_add(lost);
                }
                None => sums.uncounted += 1,
            }
        }
        self.follow(draft);
    }

    fn follow(&mut self, draft: &Draft) {
        let Some(session) = draft.session else { return };
        match draft.event.as_str() {
            "session.start" if self.live.len() < MAX_LIVE => {
                if self.agents.len() < MAX_SERIES {
                    self.agents.insert(draft.agent.clone());
                }
                self.live.insert(session, draft.agent.clone());
            }
            "session.end" => drop(self.live.remove(&session)),
            _ => {}
        }
    }

    /// As metrics, of what was added since `start`.
    pub(crate) fn metrics(&self, start: Timestamp) -> Vec<Metric> {
        super::metrics::metrics(self, start, Timestamp::now())
    }

    /// How many sessions live, by agent.
    pub(super) fn live(&self) -> BTreeMap<Option<&str>, u64> {
        let mut counts: BTreeMap<_, _> = self.agents.iter().map(|agent| (agent.as_deref(), 0)).collect();
        for agent in self.live.values() {
            *counts.entry(agent.as_deref()).or_default() += 1;
        }
        counts
    }
}

fn place<K: Ord, V: Default>(map: &mut BTreeMap<K, V>, key: K, rest: K) -> &mut V {
    let full = map.len() >= MAX_SERIES && !map.contains_key(&key);
    map.entry(if full { rest } else { key }).or_default()
}

/// A map as a list of pairs: JSON has no keys but strings.
mod as_list {
    use super::{BTreeMap, Deserialize, Deserializer, Serialize, Serializer};

    pub(super) fn serialize<S, K, V>(map: &BTreeMap<K, V>, serializer: S) -> Result<S::Ok, S::Error>
    where
        S: Serializer,
        K: Serialize,
        V: Serialize,
    {
        serializer.collect_seq(map)
    }

    pub(super) fn deserialize<'de, D, K, V>(deserializer: D) -> Result<BTreeMap<K, V>, D::Error>
    where
        D: Deserializer<'de>,
        K: Deserialize<'de> + Ord,
        V: Deserialize<'de>,
    {
        Ok(Vec::<(K, V)>::deserialize(deserializer)?.into_iter().collect())
    }
}

#[cfg(test)]
mod tests {
    use super::{MAX_SERIES, Totals};
    use crate::entry::{Draft, Entry, SessionId, Timestamp};

    fn entry(event: &str, agent: &str, session: u64) -> Entry {
        let mut draft = Draft::of_host(Timestamp(0), event);
        draft.agent = Some(agent.to_owned());
        draft.session = Some(SessionId(session));
        draft.count = 2;
        Entry { uid: String::new(), seq: 1, draft, chain: String::new() }
    }

    #[test]
    fn sums_stay_right_when_names_are_made_up_without_end() {
        let mut totals = Totals::default();
        let many = MAX_SERIES as u64 + 50;
        for number in 0..many {
            totals.add(&entry("file.open", &format!("agent-{number}"), number));
        }
        assert_eq!(totals.series.len(), MAX_SERIES + 1);
        assert_eq!(totals.series.values().map(|sums| sums.entries).sum::<u64>(), many);
        assert_eq!(totals.series.values().map(|sums| sums.events).sum::<u64>(), 2 * many);
        let rest = totals.series.iter().find(|(series, _)| series.overflow);
        assert_eq!(rest.map(|(_, sums)| sums.entries), Some(50));
    }

    #[test]
    fn entries_of_which_something_was_redacted_are_counted() {
        let mut totals = Totals::default();
        let mut redacted = entry("process.exec", "a", 1);
        totals.add(&redacted);
        redacted.draft.redacted = vec!["process.command_args".to_owned(), "process.executable".to_owned()];
        totals.add(&redacted);
        assert_eq!(totals.series.values().map(|sums| (sums.entries, sums.redacted)).collect::<Vec<_>>(), [(2, 1)]);
    }

    #[test]
    fn an_agent_without_a_session_left_is_still_told_as_zero() {
        let mut totals = Totals::default();
        totals.add(&entry("session.start", "a", 1));
        totals.add(&entry("session.start", "a", 2));
        totals.add(&entry("session.start", "b", 3));
        totals.add(&entry("session.end", "a", 1));
        totals.add(&entry("session.end", "b", 3));
        assert_eq!(totals.live().into_iter().collect::<Vec<_>>(), [(Some("a"), 1), (Some("b"), 0)]);
    }
}
