//! Reviews that are overdue: looked for once an hour, told of once a day.
//!
//! Inputs: the declarations in force, the trail. Outputs: `finding.review_overdue`. Looked for beside the pipeline, which only
//! writes what was found.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::sync::watch;
use tracing::warn;

use super::clock::boot_ns;
use super::command::{Asker, Command};
use super::pipeline::Pipeline;
use super::state::SharedView;
use crate::control::query::Filter;
use crate::control::{Found as Answered, From, Question};
use crate::entry::{Draft, Entry, Timestamp};
use crate::finding::{Found, REVIEW_OVERDUE};
use crate::index::Search;
use crate::review::agent::{DECISION, due};
use crate::trail::TrailError;

/// How often it is looked.
const LOOK_EVERY: Duration = Duration::from_secs(3_600);
/// The same overdue review is told of again after so long.
const TELL_EVERY_NS: u64 = 86_400_000_000_000;

/// A review that is overdue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Overdue {
    agent: String,
    due: Timestamp,
    /// The entry of the review before.
    last: Option<String>,
}

/// Looks for overdue reviews, until the daemon ends.
pub(super) async fn remind(asker: Asker, view: SharedView, state_dir: PathBuf, written: watch::Receiver<u64>) {
    let mut told: BTreeMap<String, (Timestamp, u64)> = BTreeMap::new();
    let mut ticks = tokio::time::interval(LOOK_EVERY);
    loop {
        ticks.tick().await;
        let (view, state_dir, last) = (view.clone(), state_dir.clone(), *written.borrow());
        let looked = tokio::task::spawn_blocking(move || overdue(&view, &state_dir, last, Timestamp::now())).await;
        let found = match looked {
            Ok(Ok(found)) => found,
            Ok(Err(error)) => {
                warn!(%error, "whether reviews are overdue is not known");
                continue;
            }
            Err(error) => {
                warn!(%error, "whether reviews are overdue is not known");
                continue;
            }
        };
        for overdue in found {
            let now = boot_ns();
            let is_told =
                told.get(&overdue.agent).is_some_and(|&(due, at)| due == overdue.due && now - at < TELL_EVERY_NS);
            if is_told {
                continue;
            }
            told.insert(overdue.agent.clone(), (overdue.due, now));
            if !asker.ask(Command::ReviewOverdue { overdue }) {
                return;
            }
        }
    }
}

/// The reviews that are overdue at `now`.
fn overdue(view: &SharedView, state_dir: &Path, through: u64, now: Timestamp) -> Result<Vec<Overdue>, TrailError> {
    let config = std::sync::Arc::clone(&view.lock().config);
    let mut found = Vec::new();
    for declaration in &config.declarations {
        let Some(every) = declaration.about.review_every else { continue };
        let agent = declaration.name();
        let last = entries(state_dir, agent, DECISION, through)?.last().transpose()?;
        let since = match &last {
            Some(review) => Some(review.draft.time),
            None => {
                entries(state_dir, agent, "session.start", through)?.next().transpose()?.map(|start| start.draft.time)
            }
        };
        if let Some(due) = since.map(|since| due(since, every))
            && due < now
        {
            found.push(Overdue { agent: agent.to_owned(), due, last: last.map(|review| review.uid) });
        }
    }
    Ok(found)
}

/// The entries of an event of an agent.
fn entries(
    state_dir: &Path,
    agent: &str,
    event: &str,
    through: u64,
) -> Result<impl Iterator<Item = Result<Entry, TrailError>>, TrailError> {
    let filter = Filter { agents: vec![agent.to_owned()], events: vec![event.to_owned()], ..Filter::default() };
    let question = Question::Entries { from: From::Start, filter: filter.clone() };
    let search = Search::of(state_dir, question, through)?;
    Ok(search.filter_map(move |answered| match answered {
        Ok(Answered::Entry(entry) | Answered::Counted(entry)) => filter.matches(&entry).then_some(Ok(entry)),
        Ok(Answered::Sums { .. }) => None,
        Err(error) => Some(Err(error)),
    }))
}

impl Pipeline {
    /// Finds that a review is overdue.
    pub(super) fn find_review_overdue(&mut self, overdue: &Overdue) {
        let mut whose = Draft::of_host(self.clock.wall(boot_ns()), REVIEW_OVERDUE.event);
        whose.agent = Some(overdue.agent.clone());
        let owner = self.config.declaration(&overdue.agent).and_then(|declaration| declaration.about.owner.as_deref());
        let text = format!(
            "the review of '{}' is overdue since {}; its owner is {}, and `bailiwick review {}` begins it",
            overdue.agent,
            overdue.due,
            owner.unwrap_or("nobody"),
            overdue.agent
        );
        let found = Found::new(&REVIEW_OVERDUE, overdue.agent.clone(), text)
            .with("bailiwick.review.due", overdue.due.to_string())
            .because_of(overdue.last.clone());
        self.find(0, &found, whose);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;
    use crate::config::Config;
    use crate::control::testing::{entry, time_of};

    const DAY_NS: u64 = 86_400_000_000_000;

    fn trail(entries: &[Entry]) -> tempfile::TempDir {
        let state = tempfile::tempdir().unwrap();
        std::fs::create_dir(state.path().join("trail")).unwrap();
        let lines: String = entries.iter().map(|entry| serde_json::to_string(entry).unwrap() + "\n").collect();
        std::fs::write(state.path().join("trail/00000000000000000001.jsonl"), lines).unwrap();
        let identity = "{\"id\":\"5f3a91c2\",\"created\":\"2026-01-31T12:03:04.123000000Z\"}";
        std::fs::write(state.path().join("trail.json"), identity).unwrap();
        state
    }

    #[test]
    fn a_review_is_overdue_after_the_last_one_and_after_the_first_session_where_there_was_none() {
        let text = "[agent]\nname = \"demo\"\nowner = \"o\"\nreview_every = \"30d\"\n";
        let (config, _) = Config::with_proposed_text("demo.toml", text, Path::new("/nonexistent")).unwrap();
        let view = SharedView::new(std::sync::Arc::new(config));
        let start = entry(1, "session.start").agent("demo", 1).build();
        let others = entry(2, DECISION).agent("other", 2).build();
        let review = entry(3, DECISION).agent("demo", 1).build();
        let after = |state: &tempfile::TempDir, days: u64| {
            overdue(&view, state.path(), 3, Timestamp(time_of(1).0 + days * DAY_NS)).unwrap()
        };
        let never = trail(&[start.clone(), others.clone()]);
        assert_eq!(after(&never, 29), []);
        let due = Timestamp(time_of(1).0 + 30 * DAY_NS);
        assert_eq!(after(&never, 31), [Overdue { agent: "demo".to_owned(), due, last: None }]);
        let reviewed = trail(&[start, others, review]);
        assert_eq!(after(&reviewed, 30), []);
        let due = Timestamp(time_of(3).0 + 30 * DAY_NS);
        let last = Some("5f3a91c2-3".to_owned());
        assert_eq!(after(&reviewed, 31), [Overdue { agent: "demo".to_owned(), due, last }]);
        assert_eq!(after(&trail(&[]), 999), [], "one that was never seen has nothing to be reviewed");
    }
}
