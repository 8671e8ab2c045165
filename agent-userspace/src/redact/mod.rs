//! Redaction: what looks like a secret is taken out of a draft before the draft reaches the trail.
//!
//! Input: a [`Draft`], judged already. Output: the same with `[redacted]` in place of every secret, what is around it kept;
//! the attributes that this was done to stand in [`Draft::redacted`], and how many pieces it were in `bailiwick.redacted`.
//! Everything else (export, control socket, viewers) reads the trail, so nothing has to be redacted again.
//!
//! - `patterns`: secrets of a known form, and values whose name says that they are secret
//! - `arguments`: command lines, where the name of a value may stand in the argument before
//! - `entropy`: words that no one would make up; never in paths
//!
//! Pure. Refuses: to look into files (nothing of what they hold is ever recorded), and to promise that every secret is
//! found: one that looks like an ordinary word is left.

mod arguments;
mod entropy;
mod expression;
mod patterns;
#[cfg(test)]
mod tests;

use std::ops::Range;
use std::sync::Arc;

use serde_json::Value;

pub use expression::{BadExpression, Expression};
use patterns::Known;

use crate::entry::Draft;

/// What stands in place of a secret.
pub const REDACTED: &str = "[redacted]";
/// The attribute that says how many pieces of an entry were redacted.
pub const REDACTED_PIECES: &str = "bailiwick.redacted";

/// The attribute of a command line.
const ARGUMENTS: &str = "process.command_args";
/// The beginning of the attributes of environment variables.
const VARIABLE: &str = "process.environment_variable.";
/// Nothing shorter holds both a name and a value.
const SHORTEST_BYTES: usize = 6;

/// `[redact]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RedactSettings {
    /// Whether anything is redacted.
    pub enabled: bool,
    /// Whether words of high entropy are, beside what has a known form.
    pub entropy: bool,
    /// What is redacted as well.
    pub patterns: Vec<Expression>,
    /// What never is.
    pub allow: Vec<Expression>,
}

impl Default for RedactSettings {
    fn default() -> Self {
        Self { enabled: true, entropy: true, patterns: Vec::new(), allow: Vec::new() }
    }
}

/// A pattern that is built in cannot be compiled.
#[derive(Debug, thiserror::Error)]
pub enum RedactError {
    /// The pattern.
    #[error("a pattern of redaction that is built in: {0}")]
    Pattern(#[from] BadExpression),
    /// The search for what makes a pattern worth trying.
    #[error("the search for secrets cannot be built: {0}")]
    Anchors(#[from] aho_corasick::BuildError),
}

/// How a text is searched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Search {
    /// For patterns alone: names of files are made up by programs, and many of them look random.
    Patterns,
    /// For words of high entropy as well.
    Entropy,
}

/// Redacts drafts.
#[derive(Clone, Debug)]
pub struct Redactor {
    known: Arc<Known>,
    settings: RedactSettings,
}

/// Where secrets stand in a text.
type Pieces = Vec<Range<usize>>;

impl Redactor {
    /// One with these settings.
    ///
    /// # Errors
    /// A pattern that is built in cannot be compiled, which a test excludes.
    pub fn new(settings: RedactSettings) -> Result<Self, RedactError> {
        Ok(Self { known: Arc::new(Known::compile()?), settings })
    }

    /// Goes on with other settings.
    pub fn set(&mut self, settings: RedactSettings) {
        self.settings = settings;
    }

    /// Takes the secrets out of a draft. To do it again changes nothing.
    pub fn redact(&self, draft: &mut Draft) {
        if !self.settings.enabled {
            return;
        }
        let mut pieces = 0;
        for (name, value) in &mut draft.attributes {
            let found = self.value(name, value);
            if found > 0 {
                pieces += found;
                mark(&mut draft.redacted, name);
            }
        }
        if let Some(executable) = draft.process.as_mut().and_then(|process| process.executable.as_mut()) {
            let found = self.replace(executable, Search::Patterns);
            if found > 0 {
                pieces += found;
                mark(&mut draft.redacted, "process.executable");
            }
        }
        if pieces > 0 {
            let before = draft.attributes.get(REDACTED_PIECES).and_then(Value::as_u64).unwrap_or(0);
            draft.attributes.insert(REDACTED_PIECES.to_owned(), (before + pieces).into());
        }
    }

    /// Takes the secrets out of a path that is told of elsewhere than in a draft.
    pub fn path(&self, path: &mut String) {
        if self.settings.enabled {
            self.replace(path, Search::Patterns);
        }
    }

    /// Redacts an attribute. Returns how many pieces of it.
    fn value(&self, name: &str, value: &mut Value) -> u64 {
        match value {
            Value::String(text) => match name.strip_prefix(VARIABLE) {
                Some(variable) => self.variable(variable, text),
                None => self.replace(text, search_of(name)),
            },
            Value::Array(values) if name == ARGUMENTS => self.command_line(values),
            Value::Array(values) => values.iter_mut().map(|value| self.value(name, value)).sum(),
            Value::Object(fields) => fields.iter_mut().map(|(_, value)| self.value(name, value)).sum(),
            Value::Null | Value::Bool(_) | Value::Number(_) => 0,
        }
    }

    /// An environment variable: its name may say that all of its value is secret.
    fn variable(&self, name: &str, value: &mut String) -> u64 {
        if self.known.names_secret(name.as_bytes()) && patterns::is_value(value.as_bytes()) {
            let whole = 0..value.len();
            return self.apply(value, vec![whole]);
        }
        // The ids of a trace are random, and no secret.
        let is_trace = matches!(name, "TRACEPARENT" | "TRACESTATE");
        self.replace(value, if is_trace { Search::Patterns } else { Search::Entropy })
    }

    fn command_line(&self, arguments: &mut [Value]) -> u64 {
        let texts: Vec<&str> = arguments.iter().map(|argument| argument.as_str().unwrap_or_default()).collect();
        let mut told = arguments::find(&self.known, &texts).into_iter().peekable();
        let mut count = 0;
        for (index, argument) in arguments.iter_mut().enumerate() {
            let Value::String(text) = argument else { continue };
            let mut pieces = self.find(text, Search::Entropy);
            while let Some((_, piece)) = told.next_if(|(of, _)| *of == index) {
                pieces.push(piece);
            }
            count += self.apply(text, pieces);
        }
        count
    }

    fn replace(&self, text: &mut String, search: Search) -> u64 {
        let pieces = self.find(text, search);
        self.apply(text, pieces)
    }

    fn find(&self, text: &str, search: Search) -> Pieces {
        let mut pieces = Vec::new();
        if text.len() >= SHORTEST_BYTES {
            self.known.find(text.as_bytes(), &mut pieces);
            if search == Search::Entropy && self.settings.entropy {
                entropy::find(text.as_bytes(), &mut pieces);
            }
        }
        for pattern in &self.settings.patterns {
            pattern.find(text.as_bytes(), &mut pieces);
        }
        pieces
    }

    /// Redacts these pieces but those that are allowed. Returns how many.
    fn apply(&self, text: &mut String, pieces: Pieces) -> u64 {
        if pieces.is_empty() {
            return 0;
        }
        let mut pieces = merged(text, pieces);
        let mut allowed = Vec::new();
        for allow in &self.settings.allow {
            allow.find(text.as_bytes(), &mut allowed);
        }
        pieces.retain(|piece| !allowed.iter().any(|all| all.start <= piece.start && piece.end <= all.end));
        for piece in pieces.iter().rev() {
            text.replace_range(piece.clone(), REDACTED);
        }
        pieces.len() as u64
    }
}

/// Whether a text is a path, which is searched for patterns alone.
fn search_of(name: &str) -> Search {
    let is_path = name.ends_with("path")
        || matches!(
            name,
            "process.working_directory"
                | "bailiwick.exec.given"
                | "bailiwick.exec.script"
                | "bailiwick.mount.source"
                | "bailiwick.peer.executable"
                | "bailiwick.trail.kept_in"
        );
    if is_path { Search::Patterns } else { Search::Entropy }
}

fn mark(redacted: &mut Vec<String>, name: &str) {
    if !redacted.iter().any(|known| known == name) {
        redacted.push(name.to_owned());
    }
}

/// The pieces in order, those that touch made one, cut at whole characters. What has been redacted already is none.
fn merged(text: &str, mut pieces: Pieces) -> Pieces {
    pieces.sort_unstable_by_key(|piece| (piece.start, piece.end));
    let mut merged: Pieces = Vec::with_capacity(pieces.len());
    for piece in pieces {
        let piece = text.floor_char_boundary(piece.start)..text.ceil_char_boundary(piece.end);
        if text.get(piece.clone()).is_none_or(|found| found.is_empty() || found == REDACTED) {
            continue;
        }
        match merged.last_mut() {
            Some(last) if piece.start <= last.end => last.end = last.end.max(piece.end),
            Some(_) | None => merged.push(piece),
        }
    }
    merged
}
