//! `bailiwick learn`: the narrow declaration that covers what sessions did.
//!
//! Inputs: sessions, the trail, the configuration directory. Outputs: TOML on standard output that passes `check`, and on
//! standard error what it cannot grant; exit code 1 where there is such a thing. Refuses: sessions of several agents.

use std::path::Path;

use super::args::{LearnArgs, Paths};
use super::history::{self, Wanted};
use super::output::Output;
use super::text::printable;
use super::{CliError, GOOD, NO};
use crate::config::{Config, Limit};
use crate::control::query::Filter;
use crate::daemon::ConfigSource;
use crate::entry::{Entry, SessionId};
use crate::review::gaps::Missing;
use crate::review::learn::{Kept, Learner, Learnt};

/// What cannot be granted that is told of one by one.
const TOLD: usize = 20;
/// Gaps that are told of one by one.
const GAPS_TOLD: usize = 10;

/// Learns and prints what came of it.
pub(super) fn learn(paths: &Paths, args: &LearnArgs, output: &mut Output<'_>) -> Result<u8, CliError> {
    let config = ConfigSource::at(&paths.config_dir).load()?;
    let (learner, notes) = read(paths, args, &config)?;
    let learnt = learner.finish(&config, notes);
    let text = declaration(&config, &learnt)?;
    let (proposed, agent) = Config::with_proposed_text("the learnt declaration", &text, &paths.config_dir)?;
    output.text(&text)?;
    let scope = proposed.declaration(&agent).and_then(|declaration| declaration.scope.as_deref());
    let uncovered = scope.map(|scope| learnt.uncovered(scope)).unwrap_or_default();
    for what in uncovered.iter().take(TOLD) {
        eprintln!("bailiwick: not granted: {}", printable(what));
    }
    if uncovered.len() > TOLD {
        eprintln!("bailiwick: not granted: {} more", uncovered.len() - TOLD);
    }
    Ok(if uncovered.is_empty() { GOOD } else { NO })
}

/// Reads what the sessions did, and what their delegates did where these are judged by the same scope.
fn read(paths: &Paths, args: &LearnArgs, config: &Config) -> Result<(Learner, Vec<String>), CliError> {
    let own = Filter { sessions: args.sessions.clone(), ..Filter::default() };
    let delegates = Filter { delegators: args.sessions.clone(), ..Filter::default() };
    let wanted = Wanted::with_gaps(vec![own.clone(), delegates.clone()], None);
    let mut learner = Learner::new(args.include_out_of_scope);
    let mut missing = Missing::default();
    let mut between = None;
    let read = history::read(paths, args.offline, &wanted, |entry| {
        let is_own = own.matches(entry);
        missing.look_at(entry, |entry| own.matches(entry));
        if is_own {
            let (from, _) = between.unwrap_or((entry.draft.time, entry.draft.time));
            between = Some((from, entry.draft.time));
        }
        let counts = is_own || (delegates.matches(entry) && is_bound(entry, config));
        if counts {
            learner.add(entry, !is_own).map_err(|error| CliError::BadInput(error.to_string()))?;
        }
        Ok(())
    })?;
    for prefix in &args.sessions {
        only(prefix, learner.sessions().iter())?;
    }
    let (from, to) = between.unwrap_or_default();
    let (gaps, left_out) = missing.between(from, to);
    let mut notes: Vec<String> =
        gaps.iter().take(GAPS_TOLD).map(|gap| format!("{}: {}", gap.kind, gap.reason)).collect();
    let more = (gaps.len().saturating_sub(GAPS_TOLD)) as u64 + left_out + read.unreadable;
    if more > 0 {
        notes.push(format!("{more} more gaps, or lines of the trail that are no entries"));
    }
    Ok((learner, notes))
}

/// Whether a delegate's actions are judged by its delegator's scope as well. That it was started counts always.
fn is_bound(entry: &Entry, config: &Config) -> bool {
    let delegator = entry.draft.delegation.last().and_then(|link| config.declaration(&link.agent));
    let limit = delegator.and_then(|declaration| declaration.declared_scope.as_ref()).map(|scope| scope.delegate.limit);
    limit != Some(Limit::Theirs) || entry.draft.event == "delegation.start"
}

/// Makes sure that a beginning of an id is that of one session.
fn only<'a>(prefix: &str, sessions: impl Iterator<Item = &'a SessionId>) -> Result<(), CliError> {
    let found: Vec<String> =
        sessions.map(ToString::to_string).filter(|id| id.starts_with(&prefix.to_ascii_lowercase())).collect();
    match found.as_slice() {
        [_] => Ok(()),
        [] => Err(CliError::BadInput(format!("no session '{prefix}' in the trail (see `bailiwick sessions`)"))),
        several => Err(CliError::BadInput(format!("'{prefix}' fits several sessions: {}", several.join(", ")))),
    }
}

fn declaration(config: &Config, learnt: &Learnt) -> Result<String, CliError> {
    let present = config.declaration(learnt.agent());
    let file = present.map(|declaration| declaration.about.origin.file.to_string());
    let text = match file {
        Some(file) => text_of(&file)?,
        None => None,
    };
    let scope = present.and_then(|declaration| declaration.declared_scope.as_ref().zip(declaration.scope.as_deref()));
    Ok(learnt.to_toml(&Kept { text: text.as_deref(), scope }))
}

/// The text of a declaration's file, be it one that ships.
pub(super) fn text_of(file: &str) -> Result<Option<String>, CliError> {
    let shipped = crate::config::SHIPPED_DECLARATIONS.iter().find(|(name, _)| file == format!("{name} (shipped)"));
    if let Some((_, text)) = shipped {
        return Ok(Some((*text).to_owned()));
    }
    match std::fs::read_to_string(Path::new(file)) {
        Ok(text) => Ok(Some(text)),
        Err(error) => Err(CliError::BadInput(format!("{file}: cannot be read: {error}"))),
    }
}
