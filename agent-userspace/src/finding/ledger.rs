//! How often the same is said: one entry for a session, a finding and a key, and then one for all repeats of ten minutes.
//!
//! Input: findings with the session that they are about (0: none) and the time. Output: those to be written now. Pure: the
//! time is handed in. Refuses: to hold more than [`MOST_KEYS`] keys of a finding and session; what comes beyond is held
//! under one key together, so that no loop over names fills the trail, and is counted all the same.

use std::collections::{BTreeMap, HashMap};

use super::{Found, REPEATS};
use crate::entry::Draft;

/// How long repeats are counted before one entry says how many they were.
pub const REPEAT_NS: u64 = 600 * 1_000_000_000;
/// The keys of one finding that one session has a count of its own for.
pub const MOST_KEYS: usize = 64;
/// The same of what is about no session: of the whole host.
pub const MOST_KEYS_OF_HOST: usize = 1_024;

/// What was said of a key.
#[derive(Debug)]
struct Said {
    at_boot_ns: u64,
    /// How many came since.
    repeats: u64,
    /// The last of them.
    last: Option<Draft>,
}

/// What was said.
#[derive(Debug, Default)]
pub struct Ledger {
    said: BTreeMap<(u64, &'static str), HashMap<String, Said>>,
}

impl Ledger {
    /// Takes a finding that is a session's doing; returns its entry where it is to be written now.
    pub fn tell(&mut self, session: u64, found: &Found, whose: Draft, now_boot_ns: u64) -> Option<Draft> {
        let keys = self.said.entry((session, found.finding().event)).or_default();
        let most = if session == 0 { MOST_KEYS_OF_HOST } else { MOST_KEYS };
        let draft = found.draft(whose);
        // The key of all that found no place.
        let key = if keys.contains_key(found.key()) || keys.len() < most { found.key() } else { "" };
        let Some(said) = keys.get_mut(key) else {
            keys.insert(key.to_owned(), Said { at_boot_ns: now_boot_ns, repeats: 0, last: None });
            return Some(draft);
        };
        said.repeats += 1;
        said.last = Some(draft);
        if now_boot_ns.saturating_sub(said.at_boot_ns) < REPEAT_NS { None } else { said.summary(now_boot_ns) }
    }

    /// The entries for repeats that have been counted for long enough. What was not repeated is forgotten, and is said anew
    /// should it come again.
    pub fn due(&mut self, now_boot_ns: u64) -> Vec<Draft> {
        let mut due = Vec::new();
        self.said.retain(|_, keys| {
            keys.retain(|_, said| {
                if now_boot_ns.saturating_sub(said.at_boot_ns) < REPEAT_NS {
                    return true;
                }
                let summary = said.summary(now_boot_ns);
                let is_repeated = summary.is_some();
                due.extend(summary);
                is_repeated
            });
            !keys.is_empty()
        });
        due
    }

    /// A session ends (`None`: the daemon does): the entries for what was counted of it.
    pub fn close(&mut self, session: Option<u64>) -> Vec<Draft> {
        let ends = |of: u64| session.is_none_or(|session| session == of);
        let ended: Vec<_> = self.said.extract_if(.., |&(of, _), _| ends(of)).collect();
        let said = ended.into_iter().flat_map(|(_, keys)| keys.into_values());
        said.filter_map(|mut said| said.summary(0)).collect()
    }
}

impl Said {
    fn summary(&mut self, now_boot_ns: u64) -> Option<Draft> {
        let mut draft = self.last.take()?;
        draft.attributes.insert(REPEATS.to_owned(), self.repeats.into());
        *self = Self { at_boot_ns: now_boot_ns, repeats: 0, last: None };
        Some(draft)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::entry::Timestamp;
    use crate::finding::DELEGATION;

    fn tell(ledger: &mut Ledger, session: u64, key: &str, now: u64) -> Option<Draft> {
        let found = Found::new(&DELEGATION, key, key);
        ledger.tell(session, &found, Draft::of_host(Timestamp(now), "x"), now)
    }

    fn repeats(draft: &Draft) -> u64 {
        draft.attributes.get(REPEATS).map_or(1, |repeats| repeats.as_u64().unwrap_or(0))
    }

    #[test]
    fn a_loop_makes_one_entry_and_its_repeats_are_counted() {
        let mut ledger = Ledger::default();
        assert!(tell(&mut ledger, 1, "k", 0).is_some_and(|draft| repeats(&draft) == 1));
        for now in 1..=1_000 {
            assert_eq!(tell(&mut ledger, 1, "k", now), None);
        }
        assert!(ledger.due(REPEAT_NS - 1).is_empty());
        let due = ledger.due(REPEAT_NS);
        assert_eq!(due.iter().map(repeats).collect::<Vec<_>>(), [1_000]);
        assert!(ledger.due(3 * REPEAT_NS).is_empty());
        assert!(tell(&mut ledger, 1, "k", 3 * REPEAT_NS).is_some(), "what was forgotten is said anew");
    }

    #[test]
    fn a_loop_over_keys_is_bounded_and_still_counted() {
        let mut ledger = Ledger::default();
        let written: Vec<Draft> = (0..10_000).filter_map(|n| tell(&mut ledger, 1, &format!("k{n}"), n)).collect();
        assert_eq!(written.len(), MOST_KEYS + 1);
        let rest = ledger.close(Some(1));
        assert_eq!(written.iter().chain(&rest).map(repeats).sum::<u64>(), 10_000);
        assert!(ledger.close(None).is_empty());
    }

    #[test]
    fn sessions_and_keys_have_counts_of_their_own() {
        let mut ledger = Ledger::default();
        assert!(tell(&mut ledger, 1, "a", 0).is_some());
        assert!(tell(&mut ledger, 1, "b", 0).is_some());
        assert!(tell(&mut ledger, 2, "a", 0).is_some());
        assert!(tell(&mut ledger, 2, "a", 1).is_none());
        assert!(ledger.close(Some(1)).is_empty());
        assert_eq!(ledger.close(None).len(), 1);
    }
}
