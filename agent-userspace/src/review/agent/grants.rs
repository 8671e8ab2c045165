//! What each grant of a scope was used for.
//!
//! Input: recorded actions, and the scope in force. Output: for each grant how often and when last an action rested on it. An
//! action that was in scope rests on all the grants that it needed: of each name, and for reading and writing both. Pure. Refuses
//! to count what rests on a grant by a list that denies: a deny is no grant.

use serde::{Deserialize, Serialize};

use crate::entry::{Entry, Timestamp};
use crate::scope::recorded::Recorded;
use crate::scope::{Grant, Scope};

/// How often, and when last.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Uses {
    /// How many actions.
    pub count: u64,
    /// When the first was, in what was looked at.
    pub first: Option<Timestamp>,
    /// When the last was.
    pub last: Option<Timestamp>,
    /// The entry that tells of the last.
    pub uid: Option<String>,
}

impl Uses {
    /// Adds the actions of an entry. Entries do not come in the order of time.
    pub fn add(&mut self, entry: &Entry) {
        self.add_counted(entry, entry.draft.count);
    }

    /// Adds an entry that stands for so many.
    pub fn add_counted(&mut self, entry: &Entry, count: u64) {
        let time = entry.draft.time;
        self.count = self.count.saturating_add(count);
        self.first = Some(self.first.map_or(time, |first| first.min(time)));
        if self.last.is_none_or(|last| time >= last) {
            self.last = Some(time);
            self.uid = Some(entry.uid.clone());
        }
    }

    /// Adds others.
    pub fn join(&mut self, other: &Self) {
        self.count = self.count.saturating_add(other.count);
        self.first = self.first.into_iter().chain(other.first).min();
        if other.last > self.last {
            self.last = other.last;
            self.uid.clone_from(&other.uid);
        }
    }

    /// Whether there was none. What was open when a session began counts as no action, and is a use all the same.
    pub fn is_none(&self) -> bool {
        self.last.is_none()
    }
}

/// The uses of each grant, by its number.
#[derive(Debug)]
pub(super) struct GrantUses<'a> {
    scope: &'a Scope,
    uses: Vec<Uses>,
}

impl<'a> GrantUses<'a> {
    pub(super) fn of(scope: &'a Scope) -> Self {
        Self { scope, uses: vec![Uses::default(); scope.grants.len()] }
    }

    /// Adds an action that was in scope.
    pub(super) fn add(&mut self, recorded: &Recorded, entry: &Entry) {
        let mut grants = recorded.ask(|action| self.scope.rests_on(action));
        if let Some(action) = recorded.host_action() {
            grants.extend(self.scope.rests_on(&action));
        }
        grants.sort_unstable();
        grants.dedup();
        for grant in grants {
            if let Some(uses) = self.uses.get_mut(grant as usize) {
                uses.add(entry);
            }
        }
    }

    /// Each grant that is no denial, with its uses: the declaration's own first.
    pub(super) fn each(&self) -> impl Iterator<Item = (usize, &Grant, &Uses)> {
        let pairs = self.scope.grants.iter().zip(&self.uses).enumerate();
        pairs.map(|(number, (grant, uses))| (number, grant, uses)).filter(|(_, grant, _)| !grant.denies())
    }
}
