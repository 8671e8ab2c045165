//! `bailiwick replay`: recorded history, judged by a proposed declaration.
//!
//! Inputs: a declaration's file, the trail. Outputs: what would be judged otherwise, as text or JSON; exit code 1 where
//! anything would. Refuses: to say "no difference" without what the history does not hold.

use std::collections::BTreeSet;

use super::args::{Paths, ReplayArgs};
use super::history::{self, Wanted};
use super::line::{self, moment};
use super::output::Output;
use super::text::{Palette, Tone, counted, printable};
use super::{CliError, GOOD, NO};
use crate::config::Config;
use crate::control::query::Filter;
use crate::entry::{Entry, SessionId, Timestamp, Verdict};
use crate::review::gaps::MissingPart;
use crate::review::replay::{Changed, Replay, Replayed};

/// Changes that the text tells of one by one.
const TOLD: usize = 50;
/// Parts that are missing, likewise.
const MISSING_TOLD: usize = 10;

/// Whose history is judged again.
struct Judged<'a> {
    /// The agent's own.
    own: Filter,
    /// Its delegates', who are judged by its scope as well, and the agent's name.
    delegates: Option<(Filter, &'a str)>,
}

impl<'a> Judged<'a> {
    /// Of the declared agent and its delegates, or else of the agents that are asked for, alone.
    fn of(args: &ReplayArgs, declared: &'a str) -> Self {
        let (this, sessions) = (vec![declared.to_owned()], args.session.clone());
        let delegators = if sessions.is_empty() { this.clone() } else { sessions.clone() };
        let delegates = (Filter { delegators, ..Filter::default() }, declared);
        let is_declared = args.agent.is_empty();
        let agents = if is_declared { this } else { args.agent.clone() };
        Self { own: Filter { agents, sessions, ..Filter::default() }, delegates: is_declared.then_some(delegates) }
    }

    fn filters(&self) -> Vec<Filter> {
        [Some(&self.own), self.delegates.as_ref().map(|(filter, _)| filter)].into_iter().flatten().cloned().collect()
    }

    fn has(&self, entry: &Entry) -> bool {
        let is_its = |delegator: &str| entry.draft.delegation.iter().any(|link| link.agent == delegator);
        self.own.matches(entry)
            || self.delegates.as_ref().is_some_and(|(filter, delegator)| filter.matches(entry) && is_its(delegator))
    }
}

/// Replays and says what it came to.
pub(super) fn replay(
    paths: &Paths,
    args: &ReplayArgs,
    output: &mut Output<'_>,
    palette: Palette,
) -> Result<u8, CliError> {
    let (config, declared) = Config::with_proposed(&args.declaration, &paths.config_dir)?;
    let since = args.since.and_then(|since| since.time(Timestamp::now()));
    let judged = Judged::of(args, &declared);
    let wanted = Wanted::with_gaps(judged.filters(), since);
    let mut replay = Replay::by(&config, &declared);
    let mut told = Vec::new();
    let mut sessions: BTreeSet<SessionId> = BTreeSet::new();
    let read = history::read(paths, args.offline, &wanted, |entry| {
        if judged.has(entry) {
            sessions.extend(entry.draft.session);
        }
        if let Some(changed) = replay.add(entry, |entry| judged.has(entry))
            && told.len() < TOLD
        {
            told.push(line_of(entry, changed, palette));
        }
        Ok(())
    })?;
    let mut replayed = replay.finish();
    if read.unreadable > 0 {
        replayed.gaps.push(unreadable(read.unreadable));
    }
    if args.json {
        output.json(&replayed)?;
    } else {
        let title = format!(
            "{} of {} judged by {}",
            counted(replayed.judged, "entry", "entries"),
            counted(sessions.len() as u64, "session", "sessions"),
            printable(&args.declaration.display().to_string()),
        );
        output.text(&tell(&replayed, &title, &told, palette))?;
    }
    Ok(if replayed.differs() { NO } else { GOOD })
}

/// Lines of the trail's files that are no entries.
pub(super) fn unreadable(lines: u64) -> MissingPart {
    MissingPart {
        uid: String::new(),
        kind: "unreadable".to_owned(),
        session: None,
        lost: Some(lines),
        from: Timestamp(0),
        to: Timestamp(u64::MAX),
        reason: "lines of the trail are no entries; `bailiwick verify` says where".to_owned(),
    }
}

fn line_of(entry: &Entry, changed: &Changed, palette: Palette) -> String {
    let tone = if changed.would_be == Verdict::OutOfScope { Tone::Alarm } else { Tone::Strong };
    let verdicts = palette.paint(tone, &format!("{} -> {}", changed.was.as_str(), changed.would_be.as_str()));
    let mut text = format!("{verdicts}  {}  {}\n", changed.uid, line::action(&entry.draft));
    if let Some(reason) = &changed.reason {
        let place = match (&reason.file, reason.line) {
            (Some(file), Some(line)) => format!(" ({}:{line})", printable(file)),
            (Some(_) | None, _) => String::new(),
        };
        let kind = match reason.kind {
            crate::entry::ReasonKind::Grant => "granted by",
            crate::entry::ReasonKind::Rule => "denied by",
            crate::entry::ReasonKind::Nearest => "no grant covers it; nearest:",
        };
        text.push_str(&format!("    {kind} {}{place}\n", printable(&reason.text)));
    }
    text
}

fn tell(replayed: &Replayed, title: &str, told: &[String], palette: Palette) -> String {
    let mut text = palette.paint(Tone::Strong, title) + "\n";
    let changes = replayed.changed.len() as u64 + replayed.changed_left_out;
    if changes == 0 {
        text.push_str("nothing would be judged otherwise\n");
    } else {
        text.push_str(&format!("{} would be judged otherwise:\n", counted(changes, "entry", "entries")));
        told.iter().for_each(|line| text.push_str(line));
        let more = changes.saturating_sub(told.len() as u64);
        if more > 0 {
            text.push_str(&format!("and {} (--json has them)\n", counted(more, "more", "more")));
        }
    }
    text.push_str(&missing_text(&replayed.gaps, replayed.gaps_left_out, palette));
    text
}

/// What the history does not hold, or that there is no such thing.
pub(super) fn missing_text(gaps: &[MissingPart], left_out: u64, palette: Palette) -> String {
    if gaps.is_empty() {
        return "the history has no gap, and all of it can be judged\n".to_owned();
    }
    let total = gaps.len() as u64 + left_out;
    let title = format!("{} of the history could not be judged:", counted(total, "part", "parts"));
    let mut text = palette.paint(Tone::Caution, &title) + "\n";
    for gap in gaps.iter().take(MISSING_TOLD) {
        let lost = gap.lost.map_or("nobody counted".to_owned(), |lost| counted(lost, "lost", "lost"));
        let what = match gap.kind.as_str() {
            "unjudgeable" => format!("{}: {}", printable(&gap.uid), printable(&gap.reason)),
            kind => format!("{}, {lost}: {}", printable(kind), printable(&gap.reason)),
        };
        text.push_str(&format!("  {} {what}\n", moment(gap.from)));
    }
    let more = total.saturating_sub(gaps.len().min(MISSING_TOLD) as u64);
    if more > 0 {
        text.push_str(&format!("  and {} (--json has them)\n", counted(more, "more", "more")));
    }
    text
}
