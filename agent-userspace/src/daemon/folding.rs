//! Folded repeats: what the kernel side has counted, and how much of it stands in the trail.
//!
//! Counts in the kernel only grow; what an entry says is the difference to what the entries before it said. A key whose
//! first record found no room has no path yet: it is announced again with its next repeat, and until then what it counts
//! is lost, and said to be.

use std::collections::{BTreeMap, HashMap};

use agent_common::file::OpenKey;
use agent_common::maps::Fold;

use super::counted::BYTES;
use crate::decode::ProcessKey;
use crate::entry::{Draft, Timestamp};

/// What stands in the trail of a key.
#[derive(Clone, Debug)]
struct Reported {
    total: u64,
    bytes: u64,
    last: Timestamp,
    /// The entry that announced it; `None` while it has not been.
    announced: Option<Draft>,
}

/// Everything that is folded.
#[derive(Debug, Default)]
pub(super) struct Folding {
    keys: HashMap<ProcessKey, HashMap<OpenKey, Reported>>,
}

/// Opens of which only the number is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Unannounced {
    pub(super) lost: u64,
    pub(super) from_boot_ns: u64,
    pub(super) to_boot_ns: u64,
}

fn process(key: &OpenKey) -> ProcessKey {
    ProcessKey { tgid: key.tgid, start_boot_ns: key.start_boot_ns }
}

impl Folding {
    /// A key is announced by an entry that says `total`. Returns the entry with what it adds to the ones before; `None`
    /// when another record has said as much.
    pub(super) fn announce(&mut self, key: OpenKey, total: u64, mut draft: Draft) -> Option<Draft> {
        let keys = self.keys.entry(process(&key)).or_default();
        let known = keys.entry(key).or_insert(Reported { total: 0, bytes: 0, last: draft.time, announced: None });
        draft.count = total.saturating_sub(known.total);
        known.total = known.total.max(total);
        known.last = draft.time;
        known.announced.get_or_insert_with(|| draft.clone());
        (draft.count > 0).then_some(draft)
    }

    /// A key is told of by its flushes alone: says what an entry of it says.
    pub(super) fn hold(&mut self, key: OpenKey, draft: Draft) {
        let keys = self.keys.entry(process(&key)).or_default();
        let known = keys.entry(key).or_insert(Reported { total: 0, bytes: 0, last: draft.time, announced: None });
        known.announced.get_or_insert(draft);
    }

    /// The keys of a process, of one that has exec'd those before that exec.
    pub(super) fn keys_of(&self, process: ProcessKey, before_exec: Option<u32>) -> Vec<OpenKey> {
        let keys = self.keys.get(&process).into_iter().flat_map(HashMap::keys);
        keys.filter(|key| before_exec.is_none_or(|exec| key.exec_number < exec)).copied().collect()
    }

    /// The entry for what a key has counted since the one before; `None` where that is nothing, or it has not been announced.
    pub(super) fn flush(&mut self, key: &OpenKey, fold: &Fold, wall: impl Fn(u64) -> Timestamp) -> Option<Draft> {
        let known = self.keys.get_mut(&process(key))?.get_mut(key)?;
        let announced = known.announced.as_ref()?;
        let count = fold.total.saturating_sub(known.total);
        if count == 0 {
            return None;
        }
        let time = wall(fold.last_boot_ns).max(known.last);
        let mut draft = Draft { time, count, first_time: Some(known.last), ..announced.clone() };
        if let Some(bytes) = draft.attributes.get_mut(BYTES) {
            *bytes = fold.bytes.saturating_sub(known.bytes).into();
        }
        known.total = fold.total;
        known.bytes = fold.bytes;
        known.last = time;
        Some(draft)
    }

    /// What keys without a path have counted since it was last asked, by the session that the kernel side gives
    /// them, and the kind.
    pub(super) fn unannounced(&mut self, folds: &[(OpenKey, Fold)]) -> BTreeMap<(u64, u32), Unannounced> {
        let mut lost: BTreeMap<(u64, u32), Unannounced> = BTreeMap::new();
        for (key, fold) in folds {
            let keys = self.keys.entry(process(key)).or_default();
            let known = keys.entry(*key).or_insert(Reported {
                total: 0,
                bytes: 0,
                last: Timestamp::default(),
                announced: None,
            });
            let more = fold.total.saturating_sub(known.total);
            if known.announced.is_some() || more == 0 {
                continue;
            }
            known.total = fold.total;
            known.bytes = fold.bytes;
            let sum = lost.entry((key.session, key.kind)).or_insert(Unannounced {
                lost: 0,
                from_boot_ns: fold.first_boot_ns,
                to_boot_ns: fold.last_boot_ns,
            });
            sum.lost += more;
            sum.from_boot_ns = sum.from_boot_ns.min(fold.first_boot_ns);
            sum.to_boot_ns = sum.to_boot_ns.max(fold.last_boot_ns);
        }
        lost
    }

    /// The scope has changed: what keys count from now on is judged by the new one.
    pub(super) fn judge_again(&mut self, mut judge: impl FnMut(&mut Draft)) {
        for known in self.keys.values_mut().flat_map(HashMap::values_mut) {
            if let Some(draft) = &mut known.announced {
                judge(draft);
            }
        }
    }

    /// Forgets a key.
    pub(super) fn forget(&mut self, key: &OpenKey) {
        if let Some(keys) = self.keys.get_mut(&process(key)) {
            keys.remove(key);
            if keys.is_empty() {
                self.keys.remove(&process(key));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;

    fn key(path_hash: u64) -> OpenKey {
        OpenKey { session: 9, tgid: 7, path_hash, exec_number: 1, ..OpenKey::default() }
    }

    fn fold(total: u64) -> Fold {
        Fold { total, bytes: 0, first_boot_ns: 10, last_boot_ns: 20, announced: 1 }
    }

    fn draft() -> Draft {
        Draft::of_host(Timestamp(1), "file.open")
    }

    #[test]
    fn what_is_flushed_is_what_came_since_the_entry_before() {
        let mut folding = Folding::default();
        assert_eq!(folding.announce(key(1), 1, draft()).unwrap().count, 1);
        assert_eq!(folding.flush(&key(1), &fold(1_000), Timestamp).unwrap().count, 999);
        assert_eq!(folding.flush(&key(1), &fold(1_000), Timestamp), None);
        assert_eq!(folding.flush(&key(1), &fold(1_002), Timestamp).unwrap().count, 2);
    }

    #[test]
    fn two_announcements_of_one_key_add_up() {
        let mut folding = Folding::default();
        let second = folding.announce(key(1), 2, draft()).unwrap().count;
        let first = folding.announce(key(1), 1, draft());
        assert_eq!((second, first), (2, None));
    }

    #[test]
    fn what_was_lost_before_a_late_announcement_is_not_counted_again() {
        let mut folding = Folding::default();
        assert_eq!(folding.unannounced(&[(key(1), fold(5))]).get(&(9, 0)).unwrap().lost, 5);
        assert!(folding.unannounced(&[(key(1), fold(5))]).is_empty());
        assert_eq!(folding.announce(key(1), 6, draft()).unwrap().count, 1);
        assert!(folding.unannounced(&[(key(1), fold(9))]).is_empty());
        assert_eq!(folding.flush(&key(1), &fold(9), Timestamp).unwrap().count, 3);
    }
}
