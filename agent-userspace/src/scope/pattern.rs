//! Path patterns: what a file or exec grant, a deny and a path selector are written in.
//!
//! Input: a pattern's text. Output: its parts, one a path component. A pattern is absolute, or begins with `**/`. In a
//! component `*`, `?` and `[..]` match as a [`Glob`] does, a leading dot included; `**` as a whole component stands for
//! any number of components, and `X/**` covers `X` itself and everything below it. Refuses whatever the kernel's resolved
//! paths never contain (`//`, `.`, `..`, a `/` at the end), and `/proc/self`, which is another path for each process.

use std::fmt;

use super::glob::{Glob, GlobError};

/// The longest pattern: a path of the kernel's longest kind.
pub const MAX_PATTERN_BYTES: usize = 4096;
/// The most `**` in one pattern; each one may multiply the positions that a look-up keeps.
pub const MAX_ANY_DEPTH: usize = 3;

/// What is wrong with a path pattern.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PatternError {
    /// The text is empty.
    #[error("is empty; write an absolute path, or a pattern that begins with `**/`")]
    Empty,
    /// Neither absolute nor begun with `**/`.
    #[error("is not absolute; begin it with `/`, or with `**/` to match at any depth")]
    Relative,
    /// Longer than any path.
    #[error("is longer than {MAX_PATTERN_BYTES} bytes, the longest path that the kernel knows; shorten it")]
    TooLong,
    /// A control character.
    #[error("has a control character; `?` matches any one character")]
    Control,
    /// Begins with a tilde.
    #[error("begins with `~`, which no shell expands here; write the directory itself, `/home/*/...` for everyone's")]
    Tilde,
    /// `//`.
    #[error("has an empty component (`//`); write `{0}`")]
    EmptyComponent(String),
    /// `.` or `..`.
    #[error("has a `{0}` component, which the kernel resolves away; write the path without it")]
    Dots(&'static str),
    /// Ends with `/`.
    #[error("ends with `/`; write `{0}/**` for the directory and everything below, `{0}` for the directory alone")]
    TrailingSlash(String),
    /// `**` beside something else in one component.
    #[error(
        "has `**` inside the component `{0}`; `**` must stand alone between slashes, `*` is for within a component"
    )]
    PartialAnyDepth(String),
    /// More than [`MAX_ANY_DEPTH`] of `**`.
    #[error("has more than {MAX_ANY_DEPTH} `**`; use fewer, or several patterns")]
    TooManyAnyDepth,
    /// `/proc/self` and its like.
    #[error("names `{0}`, which is another path for each process; write `/proc/[0-9]*` in its place")]
    ProcSelf(&'static str),
    /// A component is no glob.
    #[error(transparent)]
    Glob(#[from] GlobError),
}

/// One component of a pattern.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Part {
    /// Exactly these bytes.
    Literal(Box<[u8]>),
    /// What the glob matches.
    Glob(Glob),
    /// `**`: any number of components, none included.
    AnyDepth,
}

/// A parsed pattern.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct PathPattern {
    text: Box<str>,
    parts: Box<[Part]>,
}

impl PathPattern {
    /// Parses a pattern.
    pub fn parse(text: &str) -> Result<Self, PatternError> {
        refuse_shape(text)?;
        let mut parts = Vec::new();
        let mut any_depth = 0;
        // `/` itself has no component.
        for component in text.trim_start_matches('/').split('/').filter(|component| !component.is_empty()) {
            let part = parse_component(component)?;
            if part == Part::AnyDepth {
                if parts.last() == Some(&Part::AnyDepth) {
                    continue;
                }
                any_depth += 1;
            }
            parts.push(part);
        }
        if any_depth > MAX_ANY_DEPTH {
            return Err(PatternError::TooManyAnyDepth);
        }
        Ok(Self { text: text.into(), parts: parts.into() })
    }

    /// The pattern as it was written.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Its components.
    pub fn parts(&self) -> &[Part] {
        &self.parts
    }

    /// The path itself, where the pattern has no wildcard.
    pub fn as_literal(&self) -> Option<&str> {
        self.parts.iter().all(|part| matches!(part, Part::Literal(_))).then_some(&*self.text)
    }

    /// How many leading components are literal.
    pub fn literal_components(&self) -> usize {
        self.parts.iter().take_while(|part| matches!(part, Part::Literal(_))).count()
    }

    /// The leading literal components as a path: `/srv/shop` of `/srv/shop/**`; `/` where the first one is a wildcard.
    pub fn literal_prefix(&self) -> String {
        let components = self.parts.iter().map_while(|part| match part {
            Part::Literal(bytes) => Some(String::from_utf8_lossy(bytes)),
            Part::Glob(_) | Part::AnyDepth => None,
        });
        let mut prefix = String::new();
        for component in components {
            prefix.push('/');
            prefix.push_str(&component);
        }
        if prefix.is_empty() { "/".to_owned() } else { prefix }
    }

    /// What follows the literal prefix, as written: `/**` of `/srv/shop/**`, empty for a path without wildcards.
    pub fn after_literal_prefix(&self) -> &str {
        let mut rest = &*self.text;
        for _ in 0..self.literal_components() {
            let from = rest.get(1..).unwrap_or_default();
            rest = from.find('/').and_then(|slash| from.get(slash..)).unwrap_or_default();
        }
        rest
    }

    /// Whether the pattern matches a path, one pattern at a time: for selectors and explanations. Grants are judged by
    /// the trie, which must agree.
    pub fn matches(&self, path: &[u8]) -> bool {
        let Some(components) = PathComponents::of(path) else { return false };
        matches_from(&self.parts, &components.list, components.absolute)
    }
}

impl fmt::Display for PathPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// A path split at its slashes, with `//`, `.` and `..` taken out.
pub(crate) struct PathComponents<'a> {
    pub(crate) absolute: bool,
    pub(crate) list: Vec<&'a [u8]>,
}

impl<'a> PathComponents<'a> {
    /// The most components a path can have: the kernel's longest path, a slash and a character each.
    const MAX: usize = MAX_PATTERN_BYTES / 2;

    /// Splits a path; none where it has more components than the kernel's longest path.
    pub(crate) fn of(path: &'a [u8]) -> Option<Self> {
        let mut list: Vec<&[u8]> = Vec::with_capacity(16);
        for component in path.split(|byte| *byte == b'/') {
            match component {
                b"" | b"." => {}
                b".." => {
                    list.pop();
                }
                other => list.push(other),
            }
            if list.len() > Self::MAX {
                return None;
            }
        }
        Some(Self { absolute: path.first() == Some(&b'/'), list })
    }
}

/// Whether `parts` match all of `components`. A path that is not absolute matches only what begins with `**`.
fn matches_from(parts: &[Part], components: &[&[u8]], absolute: bool) -> bool {
    if !absolute && parts.first() != Some(&Part::AnyDepth) {
        return false;
    }
    // Which components' ends are reachable after the parts so far: at most one more than there are components.
    let mut reachable = vec![false; components.len() + 1];
    if let Some(first) = reachable.first_mut() {
        *first = true;
    }
    for part in parts {
        let mut next = vec![false; components.len() + 1];
        match part {
            Part::AnyDepth => {
                let mut open = false;
                for (slot, was) in next.iter_mut().zip(&reachable) {
                    open |= *was;
                    *slot = open;
                }
            }
            Part::Literal(bytes) => advance(&reachable, components, &mut next, |component| component == &**bytes),
            Part::Glob(glob) => advance(&reachable, components, &mut next, |component| glob.matches(component)),
        }
        reachable = next;
    }
    reachable.last().copied().unwrap_or(false)
}

fn advance(reachable: &[bool], components: &[&[u8]], next: &mut [bool], matches: impl Fn(&[u8]) -> bool) {
    for ((was, component), slot) in reachable.iter().zip(components).zip(next.iter_mut().skip(1)) {
        *slot = *was && matches(component);
    }
}

fn refuse_shape(text: &str) -> Result<(), PatternError> {
    if text.is_empty() {
        return Err(PatternError::Empty);
    }
    if text.len() > MAX_PATTERN_BYTES {
        return Err(PatternError::TooLong);
    }
    if text.chars().any(char::is_control) {
        return Err(PatternError::Control);
    }
    if text.starts_with('~') {
        return Err(PatternError::Tilde);
    }
    if !text.starts_with('/') && text != "**" && !text.starts_with("**/") {
        return Err(PatternError::Relative);
    }
    if text.contains("//") {
        let joined = text.split('/').filter(|component| !component.is_empty()).collect::<Vec<_>>().join("/");
        return Err(PatternError::EmptyComponent(if text.starts_with('/') { format!("/{joined}") } else { joined }));
    }
    if text != "/" && text.ends_with('/') {
        return Err(PatternError::TrailingSlash(text.trim_end_matches('/').to_owned()));
    }
    for name in ["/proc/self", "/proc/thread-self"] {
        if text.strip_prefix(name).is_some_and(|rest| rest.is_empty() || rest.starts_with('/')) {
            return Err(PatternError::ProcSelf(name));
        }
    }
    Ok(())
}

fn parse_component(component: &str) -> Result<Part, PatternError> {
    match component {
        "." => Err(PatternError::Dots(".")),
        ".." => Err(PatternError::Dots("..")),
        "**" => Ok(Part::AnyDepth),
        other if other.contains("**") => Err(PatternError::PartialAnyDepth(other.to_owned())),
        other if Glob::is_needed_for(other) => Ok(Part::Glob(Glob::parse(other)?)),
        other => Ok(Part::Literal(other.as_bytes().into())),
    }
}

/// A text as a pattern, or a glob, that matches it alone.
pub fn literally(path: &str) -> String {
    let mut pattern = String::with_capacity(path.len());
    for character in path.chars() {
        match character {
            '*' | '?' | '[' => pattern.extend(['[', character, ']']),
            plain => pattern.push(plain),
        }
    }
    pattern
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;

    #[test]
    fn a_pattern_covers_the_paths_it_says() {
        for (pattern, path, expected) in [
            ("/", "/", true),
            ("/", "/etc", false),
            ("/srv/shop", "/srv/shop", true),
            ("/srv/shop", "/srv/shop/a", false),
            ("/srv/shop/**", "/srv/shop", true),
            ("/srv/shop/**", "/srv/shop/a/b", true),
            ("/srv/shop/**", "/srv/shopping", false),
            ("/srv/*", "/srv/a", true),
            ("/srv/*", "/srv/a/b", false),
            ("/srv/*", "/srv", false),
            ("/usr/bin/python3*", "/usr/bin/python3.11", true),
            ("**/.env", "/.env", true),
            ("**/.env", "/a/b/.env", true),
            ("**/.env", "/a/b/.env/c", false),
            ("**/.env", ".env", true),
            ("**/.env", "a/../b/.env", true),
            ("/srv/**", "srv/a", false),
            ("**/node_modules/**", "/a/node_modules/b/c", true),
            ("/home/*/.ssh/**", "/home/a/.ssh/id", true),
            ("/a/**/b/**/c", "/a/x/b/y/z/c", true),
            ("/a/**/b/**/c", "/a/b/c", true),
            ("/a/**/b/**/c", "/a/c", false),
            ("**", "/anything/at/all", true),
            ("/srv/shop/**", "/srv//./x/../shop/a", true),
        ] {
            assert_eq!(PathPattern::parse(pattern).unwrap().matches(path.as_bytes()), expected, "{pattern} on {path}");
        }
    }

    #[test]
    fn what_the_kernel_never_says_is_refused_with_what_would_be_right() {
        for (pattern, expected) in [
            ("", "is empty; write an absolute path"),
            ("srv/x", "is not absolute; begin it with `/`"),
            ("*/x", "is not absolute"),
            ("~/x", "begins with `~`"),
            ("/srv//x", "write `/srv/x`"),
            ("/srv/./x", "has a `.` component"),
            ("/srv/../x", "has a `..` component"),
            ("/srv/x/", "write `/srv/x/**` for the directory"),
            ("/srv/x**", "has `**` inside the component `x**`"),
            ("/srv/[x", "`[` is never closed"),
            ("/a/**/b/**/c/**/d/**", "more than 3 `**`"),
            ("/proc/self/maps", "write `/proc/[0-9]*` in its place"),
            ("/srv/\u{1}", "has a control character"),
        ] {
            let message = PathPattern::parse(pattern).unwrap_err().to_string();
            assert!(message.contains(expected), "{pattern}: {message}");
        }
    }

    #[test]
    fn the_literal_prefix_and_the_rest_make_the_pattern_again() {
        for (pattern, prefix, rest) in [
            ("/srv/shop/**", "/srv/shop", "/**"),
            ("/usr/bin/git", "/usr/bin/git", ""),
            ("/usr/bin/py*/x", "/usr/bin", "/py*/x"),
            ("**/x", "/", "**/x"),
        ] {
            let parsed = PathPattern::parse(pattern).unwrap();
            assert_eq!((parsed.literal_prefix().as_str(), parsed.after_literal_prefix()), (prefix, rest));
        }
    }
}
