//! Recorded actions judged by another configuration.
//!
//! Input: a configuration with the proposed declaration in it, then entries. Output: a [`Replayed`]: how many entries were
//! judged, which would be judged otherwise, and what is missing or cannot be judged again. An entry that was refused
//! (`denied`) and would be out of scope is no change: it stays outside. Refuses to keep more than [`MAX_CHANGED`] changes:
//! the rest is counted.

use serde::{Deserialize, Serialize};

use super::gaps::{Missing, MissingPart};
use crate::config::Config;
use crate::entry::{Entry, Reason, Timestamp, Verdict};
use crate::scope::effective::Effective;
use crate::scope::recorded::Reading;

/// Changes that are told of one by one.
pub const MAX_CHANGED: usize = 100_000;

/// An entry that would be judged otherwise.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Changed {
    /// The entry.
    pub uid: String,
    /// Its verdict.
    pub was: Verdict,
    /// The verdict by the proposed declaration.
    pub would_be: Verdict,
    /// Why.
    pub reason: Option<Reason>,
}

/// What a replay came to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Replayed {
    /// How many entries were judged again.
    pub judged: u64,
    /// Those that would be judged otherwise.
    pub changed: Vec<Changed>,
    /// What the history does not hold, or cannot be judged again.
    pub gaps: Vec<MissingPart>,
    /// Changes beyond [`MAX_CHANGED`].
    pub changed_left_out: u64,
    /// Parts of `gaps` beyond what is told of one by one.
    pub gaps_left_out: u64,
}

impl Replayed {
    /// Whether any entry would be judged otherwise.
    pub fn differs(&self) -> bool {
        !self.changed.is_empty()
    }
}

/// A replay under way.
#[derive(Debug)]
pub struct Replay<'a> {
    config: &'a Config,
    proposed: &'a str,
    judged: u64,
    changed: Vec<Changed>,
    changed_left_out: u64,
    missing: Missing,
    /// The times of the first and the last entry looked at.
    between: Option<(Timestamp, Timestamp)>,
}

impl<'a> Replay<'a> {
    /// By the declaration of the agent `proposed` in this configuration, within the scopes of the delegators in it.
    pub fn by(config: &'a Config, proposed: &'a str) -> Self {
        let missing = Missing::default();
        Self { config, proposed, judged: 0, changed: Vec::new(), changed_left_out: 0, missing, between: None }
    }

    /// Judges an entry, if it is `wanted`. Returns the change, where there is one.
    pub fn add(&mut self, entry: &Entry, wanted: impl Fn(&Entry) -> bool) -> Option<&Changed> {
        self.missing.look_at(entry, &wanted);
        if !wanted(entry) {
            return None;
        }
        let time = entry.draft.time;
        let (first, last) = self.between.unwrap_or((time, time));
        self.between = Some((first.min(time), last.max(time)));
        let recorded = match Reading::of(&entry.draft) {
            Reading::NotJudged => return None,
            Reading::Unknown(why) => {
                self.missing.unjudgeable(entry, why);
                return None;
            }
            Reading::Action(recorded) => recorded,
        };
        self.judged += 1;
        let judgement = recorded.judge(&self.scope_of(entry));
        let was = entry.draft.verdict;
        if is_same(was, judgement.verdict) {
            return None;
        }
        if self.changed.len() == MAX_CHANGED {
            self.changed_left_out += 1;
            return None;
        }
        self.changed.push(Changed {
            uid: entry.uid.clone(),
            was,
            would_be: judgement.verdict,
            reason: judgement.reason,
        });
        self.changed.last()
    }

    /// A delegate's own scope, within the proposed one among its delegators'; of any other entry the proposed one.
    fn scope_of<'e>(&'e self, entry: &'e Entry) -> Effective<'e> {
        let draft = &entry.draft;
        let is_delegate = draft.agent.as_deref() != Some(self.proposed)
            && draft.delegation.iter().any(|link| link.agent == self.proposed);
        if is_delegate {
            self.config.effective_of(draft)
        } else {
            self.config.effective(self.proposed, &draft.delegation)
        }
    }

    /// What it came to.
    pub fn finish(self) -> Replayed {
        let (from, to) = self.between.unwrap_or_default();
        let (gaps, gaps_left_out) = self.missing.between(from, to);
        Replayed {
            judged: self.judged,
            changed: self.changed,
            gaps,
            changed_left_out: self.changed_left_out,
            gaps_left_out,
        }
    }
}

fn is_same(was: Verdict, would_be: Verdict) -> bool {
    was == would_be || (was == Verdict::Denied && would_be == Verdict::OutOfScope)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use std::path::Path;

    use super::*;
    use crate::control::testing::entry;
    use crate::entry::SessionId;

    const DECLARATION: &str = "[agent]\nname = \"demo\"\nowner = \"o\"\n[scope.files]\nread = [\"/srv/**\"]\n";

    fn replayed(text: &str, entries: &[Entry]) -> Replayed {
        let (config, agent) = Config::with_proposed_text("new.toml", text, Path::new("/nonexistent")).unwrap();
        let mut replay = Replay::by(&config, &agent);
        for entry in entries {
            replay.add(entry, |entry| entry.draft.agent.as_deref() == Some(&agent));
        }
        replay.finish()
    }

    fn history() -> Vec<Entry> {
        let mut redacted = entry(5, "file.open").agent("demo", 1).path("r", "/srv/[redacted]").build();
        redacted.draft.redacted.push("file.path".to_owned());
        vec![
            entry(1, "session.start").agent("demo", 1).build(),
            entry(2, "file.open").agent("demo", 1).path("r", "/srv/x").verdict(Verdict::InScope).build(),
            entry(3, "file.open").agent("demo", 1).path("r", "/tmp/x").nearest("/srv/**").build(),
            entry(4, "file.open").agent("other", 2).path("r", "/srv/x").build(),
            redacted,
            entry(6, "file.unlink")
                .agent("demo", 1)
                .with("file.path", "/tmp/y".into())
                .verdict(Verdict::Denied)
                .build(),
        ]
    }

    #[test]
    fn the_declaration_that_judged_changes_nothing() {
        let replayed = replayed(DECLARATION, &history());
        assert_eq!((replayed.judged, &replayed.changed[..]), (3, &[][..]));
        assert_eq!(replayed.gaps.len(), 1, "the redacted path cannot be judged again: {:?}", replayed.gaps);
        assert_eq!((replayed.gaps[0].kind.as_str(), replayed.gaps[0].uid.as_str()), ("unjudgeable", "5f3a91c2-5"));
    }

    #[test]
    fn another_declaration_says_what_it_would_change_and_why() {
        let replayed = replayed(&DECLARATION.replace("/srv", "/tmp"), &history());
        let said: Vec<_> = replayed.changed.iter().map(|one| (one.uid.as_str(), one.was, one.would_be)).collect();
        assert_eq!(
            said,
            [
                ("5f3a91c2-2", Verdict::InScope, Verdict::OutOfScope),
                ("5f3a91c2-3", Verdict::OutOfScope, Verdict::InScope)
            ]
        );
        assert_eq!(replayed.changed[1].reason.as_ref().unwrap().text, "/tmp/**");
    }

    #[test]
    fn what_a_delegate_did_is_judged_by_its_own_scope_within_the_proposed_one() {
        let mut by_delegate = entry(1, "file.open").agent("helper", 2).path("r", "/srv/x").build();
        by_delegate.draft.verdict = Verdict::InScope;
        by_delegate.draft.delegation =
            vec![crate::entry::Delegator { agent: "demo".to_owned(), session: SessionId(1) }];
        let judged = |text: &str| {
            let (config, agent) = Config::with_proposed_text("new.toml", text, Path::new("/nonexistent")).unwrap();
            let mut replay = Replay::by(&config, &agent);
            replay.add(&by_delegate, |_| true).map(|changed| (changed.would_be, changed.reason.clone()))
        };
        assert_eq!(judged(DECLARATION), None);
        let (would_be, reason) = judged(&DECLARATION.replace("/srv", "/tmp")).unwrap();
        assert_eq!((would_be, reason.unwrap().delegator.as_deref()), (Verdict::OutOfScope, Some("demo")));
    }

    #[test]
    fn without_a_scope_nothing_would_be_judged() {
        let unscoped = replayed("[agent]\nname = \"demo\"\nowner = \"o\"\n", &history());
        assert!(unscoped.changed.iter().all(|changed| changed.would_be == Verdict::None));
        assert_eq!(unscoped.changed.len(), 3);
    }
}
