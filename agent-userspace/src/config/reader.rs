//! Reads a section of a TOML file key by key, and remembers which keys it was asked for.
//!
//! Input: a parsed table with spans. Output: values with their places. What is asked for is what a section knows, so the
//! code that reads a section is its schema: [`Section::finish`] reports every other key. Every fault is reported, not only
//! the first, which serde's derive with `deny_unknown_fields` cannot do.

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::fault::{Fault, Problem, nearest};
use super::source::SourceFile;
use crate::scope::grant::Origin;

/// The most syntax errors that one file is reported with: what follows is mostly their consequence.
const MAX_SYNTAX_ERRORS: usize = 20;
/// The most elements of a list.
const MAX_ELEMENTS: usize = 65_536;

/// The most sections of one name: each exec is compared with every `[[recognise]]`.
const MAX_SECTIONS: usize = 64;

/// A value and where it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Located<T> {
    /// The value.
    pub value: T,
    /// Where it stands.
    pub origin: Origin,
}

/// A section being read.
pub(super) struct Section<'a> {
    source: &'a SourceFile,
    /// The section's name as messages give it: `[scope.files]`.
    name: String,
    table: &'a DeTable<'a>,
    offset: usize,
    known: Vec<&'static str>,
}

/// Parses a file and reads its top level with `read`; none where it is no TOML.
pub(super) fn read_document<T>(
    source: &SourceFile,
    problems: &mut Vec<Problem>,
    read: impl FnOnce(Section<'_>) -> T,
) -> Option<T> {
    let (document, errors) = DeTable::parse_recoverable(source.text());
    if !errors.is_empty() {
        // Of each line the first one is told.
        let mut told: Vec<u32> = Vec::new();
        for error in errors {
            let origin = source.origin(error.span().map_or(0, |span| span.start));
            if told.len() < MAX_SYNTAX_ERRORS && told.last() != Some(&origin.line) {
                told.push(origin.line);
                problems.push(Problem::at(&origin, Fault::Syntax(error.message().to_owned())));
            }
        }
        return None;
    }
    let section =
        Section { source, name: "the file".to_owned(), table: document.get_ref(), offset: 0, known: Vec::new() };
    Some(read(section))
}

impl<'a> Section<'a> {
    /// The section's name as messages give it.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// Where the section begins.
    pub(super) fn origin(&self) -> Origin {
        self.source.origin(self.offset)
    }

    /// Whether the key is there; does not count as asking for it.
    pub(super) fn has(&self, key: &str) -> bool {
        self.table.get(key).is_some()
    }

    /// Where the key itself stands.
    pub(super) fn key_origin(&self, key: &str) -> Origin {
        let spanned = self.table.keys().find(|known| known.get_ref() == key);
        self.source.origin(spanned.map_or(self.offset, |known| known.span().start))
    }

    /// Reports every key that was not asked for.
    pub(super) fn finish(self, problems: &mut Vec<Problem>) {
        for key in self.table.keys().filter(|key| !self.known.contains(&&**key.get_ref())) {
            let fault = Fault::UnknownKey {
                key: shorten(key.get_ref()),
                section: self.name.clone(),
                near: nearest(key.get_ref(), self.known.iter().copied()),
                known: self.known.iter().map(|known| (*known).to_owned()).collect(),
            };
            problems.push(Problem::at(&self.source.origin(key.span().start), fault));
        }
    }

    /// A string.
    pub(super) fn string(&mut self, key: &'static str, problems: &mut Vec<Problem>) -> Option<Located<&'a str>> {
        let value = self.value(key)?;
        self.typed(key, value, DeValue::as_str, "a string in quotes", problems)
    }

    /// A string of at least one character, none of them a control character.
    pub(super) fn plain_string(&mut self, key: &'static str, problems: &mut Vec<Problem>) -> Option<Located<String>> {
        let text = self.string(key, problems)?;
        let fault = if text.value.trim().is_empty() {
            Fault::Empty(key)
        } else if text.value.chars().any(char::is_control) {
            Fault::Control(key)
        } else {
            return Some(Located { value: text.value.to_owned(), origin: text.origin });
        };
        problems.push(Problem::at(&text.origin, fault));
        None
    }

    /// A string, or the text of an integer.
    pub(super) fn string_or_integer(
        &mut self,
        key: &'static str,
        problems: &mut Vec<Problem>,
    ) -> Option<Located<String>> {
        let value = self.value(key)?;
        let text = |value: &'a DeValue<'a>| match value.as_integer() {
            Some(number) => Some(number.to_string()),
            None => value.as_str().map(str::to_owned),
        };
        self.typed(key, value, text, "a string in quotes, or a whole number", problems)
    }

    /// A whole number.
    pub(super) fn integer(&mut self, key: &'static str, problems: &mut Vec<Problem>) -> Option<Located<i64>> {
        let value = self.value(key)?;
        let number =
            |value: &'a DeValue<'a>| value.as_integer().and_then(|n| i64::from_str_radix(n.as_str(), n.radix()).ok());
        self.typed(key, value, number, "a whole number", problems)
    }

    /// `true` or `false`.
    pub(super) fn boolean(&mut self, key: &'static str, problems: &mut Vec<Problem>) -> Option<Located<bool>> {
        let value = self.value(key)?;
        self.typed(key, value, DeValue::as_bool, "true or false, without quotes", problems)
    }

    /// A list of strings; none where the key is not there.
    pub(super) fn strings(&mut self, key: &'static str, problems: &mut Vec<Problem>) -> Option<Vec<Located<&'a str>>> {
        const WANTED: &str = "a list of strings, as in [\"one\", \"two\"]";
        let value = self.value(key)?;
        let list = self.typed(key, value, DeValue::as_array, WANTED, problems)?;
        if list.value.len() > MAX_ELEMENTS {
            let fault = Fault::TooMany { key: key.to_owned(), found: list.value.len(), limit: MAX_ELEMENTS };
            problems.push(Problem::at(&list.origin, fault));
            return None;
        }
        let elements = list.value.iter();
        Some(elements.filter_map(|element| self.typed(key, element, DeValue::as_str, WANTED, problems)).collect())
    }

    /// A string, or a list of some; empty where the key is not there.
    pub(super) fn one_or_more(&mut self, key: &'static str, problems: &mut Vec<Problem>) -> Vec<Located<&'a str>> {
        match self.table.get(key).map(Spanned::get_ref) {
            Some(DeValue::String(_)) => self.string(key, problems).into_iter().collect(),
            _ => self.strings(key, problems).unwrap_or_default(),
        }
    }

    /// A section within this one.
    pub(super) fn section(
        &mut self,
        key: &'static str,
        name: &str,
        problems: &mut Vec<Problem>,
    ) -> Option<Section<'a>> {
        let value = self.value(key)?;
        let table = self.typed(key, value, DeValue::as_table, "a section of its own in brackets", problems)?;
        Some(self.within(name, table.value, value.span().start))
    }

    /// Sections of one name, each under double brackets.
    pub(super) fn sections(&mut self, key: &'static str, name: &str, problems: &mut Vec<Problem>) -> Vec<Section<'a>> {
        const WANTED: &str = "each under a heading of its own in double brackets";
        let Some(value) = self.value(key) else { return Vec::new() };
        let Some(list) = self.typed(key, value, DeValue::as_array, WANTED, problems) else { return Vec::new() };
        if list.value.len() > MAX_SECTIONS {
            let fault = Fault::TooMany { key: key.to_owned(), found: list.value.len(), limit: MAX_SECTIONS };
            problems.push(Problem::at(&list.origin, fault));
            return Vec::new();
        }
        let mut sections = Vec::new();
        for element in list.value.iter() {
            if let Some(table) = self.typed(key, element, DeValue::as_table, WANTED, problems) {
                sections.push(self.within(name, table.value, element.span().start));
            }
        }
        sections
    }

    fn within(&self, name: &str, table: &'a DeTable<'a>, offset: usize) -> Section<'a> {
        Section { source: self.source, name: name.to_owned(), table, offset, known: Vec::new() }
    }

    fn value(&mut self, key: &'static str) -> Option<&'a Spanned<DeValue<'a>>> {
        self.known.push(key);
        self.table.get(key)
    }

    fn typed<T>(
        &self,
        key: &str,
        value: &'a Spanned<DeValue<'a>>,
        read: impl FnOnce(&'a DeValue<'a>) -> Option<T>,
        wanted: &'static str,
        problems: &mut Vec<Problem>,
    ) -> Option<Located<T>> {
        let origin = self.source.origin(value.span().start);
        match read(value.get_ref()) {
            Some(value) => Some(Located { value, origin }),
            None => {
                let fault = Fault::WrongType { key: key.to_owned(), found: value.get_ref().type_str(), wanted };
                problems.push(Problem::at(&origin, fault));
                None
            }
        }
    }
}

/// A key as messages show it: escaped and at most 64 characters.
fn shorten(key: &str) -> String {
    key.chars().take(64).flat_map(char::escape_debug).collect()
}
