//! Globs over one string: a component of a path, an argument, the value of an environment variable.
//!
//! Input: a glob's text, then byte strings to match. Output: yes or no. `*` stands for any bytes, `?` for one
//! character, `[a-z]` and `[!a-z]` for one of, or none of, a class. A special character is taken literally inside a
//! class: `[*]`. There is no escape character. Bytes that are not UTF-8 count as one character each and are in no class.
//! Refuses a class that is never closed or is empty.

/// What is wrong with a glob.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GlobError {
    /// A `[` without its `]`.
    #[error("`[` is never closed; close the class as in `[0-9]`, or write `[[]` for the character itself")]
    OpenClass,
    /// A range such as `[z-a]`.
    #[error("the range `{0}-{1}` is empty; write its lower end first")]
    EmptyRange(char, char),
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Token {
    Bytes(Box<[u8]>),
    AnyCharacter,
    Class { negated: bool, ranges: Box<[(char, char)]> },
    Star,
}

/// A parsed glob.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Glob {
    tokens: Box<[Token]>,
}

impl Glob {
    /// Parses a glob.
    pub fn parse(text: &str) -> Result<Self, GlobError> {
        let mut tokens = Vec::new();
        let mut literal = String::new();
        let mut rest = text.chars();
        while let Some(character) = rest.next() {
            let token = match character {
                '*' => Token::Star,
                '?' => Token::AnyCharacter,
                '[' => {
                    let (class, after) = parse_class(rest.as_str())?;
                    rest = after.chars();
                    class
                }
                other => {
                    literal.push(other);
                    continue;
                }
            };
            flush(&mut literal, &mut tokens);
            // `**` inside one string says no more than `*`.
            if !(token == Token::Star && tokens.last() == Some(&Token::Star)) {
                tokens.push(token);
            }
        }
        flush(&mut literal, &mut tokens);
        Ok(Self { tokens: tokens.into() })
    }

    /// Whether the text has a character that a glob gives a meaning to.
    pub fn is_needed_for(text: &str) -> bool {
        text.contains(['*', '?', '['])
    }

    /// The literal bytes, where the glob has no wildcard at all.
    pub fn as_literal(&self) -> Option<&[u8]> {
        match &*self.tokens {
            [] => Some(b""),
            [Token::Bytes(bytes)] => Some(bytes),
            _ => None,
        }
    }

    /// The bytes that every match begins with.
    pub fn literal_prefix(&self) -> &[u8] {
        match self.tokens.first() {
            Some(Token::Bytes(bytes)) => bytes,
            Some(Token::AnyCharacter | Token::Class { .. } | Token::Star) | None => b"",
        }
    }

    /// The bytes that every match ends with; empty for a literal, all of which is its prefix.
    pub fn literal_suffix(&self) -> &[u8] {
        match &*self.tokens {
            [_, .., Token::Bytes(bytes)] => bytes,
            _ => b"",
        }
    }

    /// Whether the glob is a prefix, one `*` and a suffix (either may be empty), so that those two decide.
    pub fn is_prefix_star_suffix(&self) -> bool {
        matches!(
            &*self.tokens,
            [Token::Star]
                | [Token::Bytes(_), Token::Star]
                | [Token::Star, Token::Bytes(_)]
                | [Token::Bytes(_), Token::Star, Token::Bytes(_)]
        )
    }

    /// Whether the glob matches all of `text`. Costs at most the product of the two lengths.
    pub fn matches(&self, text: &[u8]) -> bool {
        let (mut token, mut at) = (0, 0);
        // Where to go back to: the token after the last `*`, and how far that `*` reaches.
        let mut retry: Option<(usize, usize)> = None;
        loop {
            match self.tokens.get(token) {
                Some(Token::Star) => {
                    retry = Some((token + 1, at));
                    token += 1;
                    continue;
                }
                Some(one) => {
                    if let Some(length) = one.match_length(text.get(at..).unwrap_or_default()) {
                        token += 1;
                        at += length;
                        continue;
                    }
                }
                None if at == text.len() => return true,
                None => {}
            }
            match retry {
                Some((after_star, reach)) if reach < text.len() => {
                    retry = Some((after_star, reach + 1));
                    token = after_star;
                    at = reach + 1;
                }
                Some(_) | None => return false,
            }
        }
    }
}

impl Token {
    /// How many bytes of the start of `text` the token takes; a `*` takes none by itself.
    fn match_length(&self, text: &[u8]) -> Option<usize> {
        match self {
            Self::Bytes(bytes) => text.starts_with(bytes).then_some(bytes.len()),
            Self::AnyCharacter => first_character(text).map(|(_, length)| length),
            Self::Class { negated, ranges } => {
                let (character, length) = first_character(text)?;
                let inside = character.is_some_and(|c| ranges.iter().any(|(low, high)| (*low..=*high).contains(&c)));
                (inside != *negated).then_some(length)
            }
            Self::Star => Some(0),
        }
    }
}

/// The first character and its length in bytes; a byte that begins no character is one of its own, without a value.
fn first_character(text: &[u8]) -> Option<(Option<char>, usize)> {
    let first = *text.first()?;
    if first.is_ascii() {
        return Some((Some(char::from(first)), 1));
    }
    for length in 2..=4 {
        if let Some(Ok(valid)) = text.get(..length).map(std::str::from_utf8) {
            return Some((valid.chars().next(), length));
        }
    }
    Some((None, 1))
}

fn flush(literal: &mut String, tokens: &mut Vec<Token>) {
    if !literal.is_empty() {
        tokens.push(Token::Bytes(std::mem::take(literal).into_bytes().into()));
    }
}

/// Parses what follows a `[`; returns the class and what follows its `]`.
fn parse_class(text: &str) -> Result<(Token, &str), GlobError> {
    let negated = text.starts_with(['!', '^']);
    let mut rest = if negated { &text[1..] } else { text };
    let mut ranges = Vec::new();
    loop {
        let mut characters = rest.chars();
        let low = characters.next().ok_or(GlobError::OpenClass)?;
        // A `]` that comes first is a member, as in every shell.
        if low == ']' && !ranges.is_empty() {
            return Ok((Token::Class { negated, ranges: ranges.into() }, characters.as_str()));
        }
        let mut ahead = characters.clone();
        let range = match (ahead.next(), ahead.next()) {
            (Some('-'), Some(high)) if high != ']' => {
                characters = ahead;
                (low, high)
            }
            _ => (low, low),
        };
        if range.0 > range.1 {
            return Err(GlobError::EmptyRange(range.0, range.1));
        }
        ranges.push(range);
        rest = characters.as_str();
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;

    fn matches(glob: &str, text: &[u8]) -> bool {
        Glob::parse(glob).unwrap().matches(text)
    }

    #[test]
    fn wildcards_match_what_a_shell_would() {
        for (glob, text, expected) in [
            ("*", "", true),
            ("*", ".env", true),
            ("a*c", "abbc", true),
            ("a*c", "abbd", false),
            ("a*b*c", "axbxbxc", true),
            ("?", "é", true),
            ("?", "ab", false),
            ("??", "é", false),
            ("python3.[0-9]*", "python3.11", true),
            ("python3.[0-9]*", "python3.x", false),
            ("[!a-c]x", "dx", true),
            ("[!a-c]x", "bx", false),
            ("[]]", "]", true),
            ("[*]", "*", true),
            ("[*]", "a", false),
            ("[a-]", "-", true),
            ("", "", true),
            ("", "a", false),
        ] {
            assert_eq!(matches(glob, text.as_bytes()), expected, "{glob} against {text}");
        }
    }

    #[test]
    fn a_byte_that_is_no_utf8_is_one_character_in_no_class() {
        assert!(matches("a?b", b"a\xffb"));
        assert!(!matches("a[a-z]b", b"a\xffb"));
        assert!(matches("a[!a-z]b", b"a\xffb"));
    }

    #[test]
    fn a_class_that_is_never_closed_or_is_empty_is_refused() {
        assert_eq!(Glob::parse("a[bc"), Err(GlobError::OpenClass));
        assert_eq!(Glob::parse("a["), Err(GlobError::OpenClass));
        assert_eq!(Glob::parse("[z-a]"), Err(GlobError::EmptyRange('z', 'a')));
    }

    #[test]
    fn many_stars_against_a_long_text_stay_quadratic() {
        let started = std::time::Instant::now();
        assert!(!matches(&"*a".repeat(60), &[b'b'; 4000]));
        let mut text = vec![b'a'; 4000];
        text.push(b'b');
        assert!(!matches(&format!("{}c", "*a".repeat(60)), &text));
        assert!(started.elapsed() < std::time::Duration::from_secs(2));
    }
}
