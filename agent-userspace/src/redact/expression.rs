//! A regular expression over the bytes of a text, compiled once, and equal to another of the same text.

use std::ops::Range;

use regex::bytes::{Regex, RegexBuilder};

/// The most memory that a compiled expression may take: `\w{1000}` should be refused, not tried on every entry.
const MAX_COMPILED_BYTES: usize = 1 << 20;
/// The group that stands for the secret in an expression that has more around it.
const SECRET: &str = "secret";

/// The text is no expression that can be used.
#[derive(Debug, thiserror::Error)]
pub enum BadExpression {
    /// It cannot be compiled.
    #[error("is no regular expression: {}", last_line(.0))]
    Syntax(#[from] regex::Error),
    /// It matches everywhere.
    #[error("matches the empty string, which is everywhere")]
    Empty,
}

/// What the compiler says at the end: its whole message has several lines, with a drawing.
fn last_line(error: &regex::Error) -> String {
    let text = error.to_string();
    let last = text.lines().last().unwrap_or_default().trim();
    last.strip_prefix("error: ").unwrap_or(last).to_owned()
}

/// An expression.
#[derive(Clone, Debug)]
pub struct Expression {
    regex: Regex,
    /// The group that is the secret; 0 for all that is matched.
    group: usize,
}

impl PartialEq for Expression {
    fn eq(&self, other: &Self) -> bool {
        self.regex.as_str() == other.regex.as_str()
    }
}

impl Eq for Expression {}

impl Expression {
    /// Compiles an expression of the settings, in the syntax of the regex crate.
    ///
    /// # Errors
    /// It is none, it is too large, or it matches the empty string.
    pub fn parse(text: &str) -> Result<Self, BadExpression> {
        Self::compile(text, true)
    }

    /// Compiles one that knows of ASCII alone, which is smaller.
    pub(super) fn of_ascii(text: &str) -> Result<Self, BadExpression> {
        Self::compile(text, false)
    }

    fn compile(text: &str, unicode: bool) -> Result<Self, BadExpression> {
        let regex = RegexBuilder::new(text).unicode(unicode).size_limit(MAX_COMPILED_BYTES).build()?;
        if regex.is_match(b"") {
            return Err(BadExpression::Empty);
        }
        let group = regex.capture_names().position(|name| name == Some(SECRET)).unwrap_or(0);
        Ok(Self { regex, group })
    }

    /// Whether it matches anywhere.
    pub(super) fn is_match(&self, text: &[u8]) -> bool {
        self.regex.is_match(text)
    }

    /// Adds what it finds: all that is matched, or of an expression with a group named `secret` that group.
    pub(super) fn find(&self, text: &[u8], pieces: &mut Vec<Range<usize>>) {
        if self.group == 0 {
            return pieces.extend(self.regex.find_iter(text).map(|found| found.range()));
        }
        let found = self.regex.captures_iter(text);
        pieces.extend(found.filter_map(|groups| groups.get(self.group).map(|secret| secret.range())));
    }

    /// Adds what any of its groups finds; of an expression without groups, all that is matched.
    pub(super) fn find_groups(&self, text: &[u8], worth: fn(&[u8]) -> bool, pieces: &mut Vec<Range<usize>>) {
        let first = usize::from(self.regex.captures_len() > 1);
        for groups in self.regex.captures_iter(text) {
            let found = groups.iter().skip(first).flatten();
            pieces.extend(found.filter(|secret| worth(secret.as_bytes())).map(|secret| secret.range()));
        }
    }
}
