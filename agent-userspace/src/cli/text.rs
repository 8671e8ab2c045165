//! Text for a terminal: what agents chose is made harmless, what we say may be coloured.
//!
//! Purpose: the one place where strings of monitored processes become text for people. Inputs: any string. Outputs: text
//! without a character that moves the cursor, changes colours, turns the direction of reading or cannot be seen.
//! Refuses: to let any of those through; they are written out, `\x1b` or `\u{202e}`.

use std::borrow::Cow;
use std::io::IsTerminal;

/// Makes a string safe to print on a line of a terminal.
pub fn printable(text: &str) -> Cow<'_, str> {
    if !text.chars().any(is_hostile) {
        return Cow::Borrowed(text);
    }
    let mut safe = String::with_capacity(text.len() + 16);
    for character in text.chars() {
        if is_hostile(character) {
            escape(character, &mut safe);
        } else {
            safe.push(character);
        }
    }
    Cow::Owned(safe)
}

/// The same for text of several lines, which stay lines.
pub fn printable_lines(text: &str) -> String {
    let lines: Vec<Cow<'_, str>> = text.lines().map(printable).collect();
    lines.join("\n")
}

/// The same as [`printable`], cut after about `limit` characters: the end then says that something is missing.
pub fn printable_start(text: &str, limit: usize) -> String {
    match text.char_indices().nth(limit) {
        None => printable(text).into_owned(),
        Some((end, _)) => format!("{}...", printable(&text[..end])),
    }
}

fn escape(character: char, safe: &mut String) {
    match character {
        '\n' => safe.push_str("\\n"),
        '\r' => safe.push_str("\\r"),
        '\t' => safe.push_str("\\t"),
        _ if character <= '\u{ff}' => safe.push_str(&format!("\\x{:02x}", u32::from(character))),
        _ => safe.push_str(&format!("\\u{{{:x}}}", u32::from(character))),
    }
}

/// Controls (C0, DEL, C1), separators of lines, marks of direction, and characters that take no place.
pub(super) fn is_hostile(character: char) -> bool {
    character.is_control()
        || matches!(character,
            '\u{ad}' | '\u{34f}' | '\u{61c}' | '\u{115f}' | '\u{1160}' | '\u{17b4}' | '\u{17b5}'
            | '\u{180b}'..='\u{180f}'
            | '\u{200b}'..='\u{200f}'
            | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}'
            | '\u{3164}'
            | '\u{fe00}'..='\u{fe0f}'
            | '\u{feff}' | '\u{ffa0}'
            | '\u{fff0}'..='\u{fffb}'
            | '\u{1bca0}'..='\u{1bca3}'
            | '\u{1d173}'..='\u{1d17a}'
            | '\u{e0000}'..='\u{e0fff}')
}

/// What a colour means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tone {
    /// Out of scope, unhealthy.
    Alarm,
    /// Something was lost, or cannot be seen.
    Caution,
    /// Less important than the rest.
    Quiet,
    /// A heading.
    Strong,
}

/// Colours, or none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Palette {
    is_on: bool,
}

impl Palette {
    /// No colours.
    pub const PLAIN: Self = Self { is_on: false };

    /// Colours.
    pub const COLOURED: Self = Self { is_on: true };

    /// Colours where standard output is a terminal and neither `NO_COLOR` nor a dumb `TERM` speaks against them.
    pub fn of_stdout() -> Self {
        let is_unwanted = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty())
            || std::env::var_os("TERM").is_some_and(|term| term == "dumb");
        Self { is_on: std::io::stdout().is_terminal() && !is_unwanted }
    }

    /// The text in its tone. The text must be printable already.
    pub fn paint(self, tone: Tone, text: &str) -> String {
        if !self.is_on || text.is_empty() {
            return text.to_owned();
        }
        let code = match tone {
            Tone::Alarm => "31;1",
            Tone::Caution => "33",
            Tone::Quiet => "2",
            Tone::Strong => "1",
        };
        format!("\u{1b}[{code}m{text}\u{1b}[0m")
    }
}

/// A number with its thousands apart: `1,042`.
pub fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// `1 entry`, `2 entries`.
pub fn counted(number: u64, one: &str, many: &str) -> String {
    format!("{} {}", grouped(number), if number == 1 { one } else { many })
}

/// Lines of columns, each as wide as its widest cell, two spaces between them.
pub fn table(heads: &[&str], rows: &[Vec<String>], palette: Palette) -> String {
    let mut widths: Vec<usize> = heads.iter().map(|head| head.chars().count()).collect();
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let heads: Vec<String> = heads.iter().map(|head| (*head).to_owned()).collect();
    let mut text = palette.paint(Tone::Strong, &line_of(&heads, &widths));
    text.push('\n');
    for row in rows {
        text.push_str(&line_of(row, &widths));
        text.push('\n');
    }
    text
}

fn line_of(cells: &[String], widths: &[usize]) -> String {
    let padded: Vec<String> = cells.iter().zip(widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
    padded.join("  ").trim_end().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_harmless_stays_as_it_is() {
        for text in ["/srv/shop/a b.txt", "größer", "文件", "\\x1b", "🦀", "a'b\"c"] {
            assert!(matches!(printable(text), Cow::Borrowed(same) if same == text), "{text}");
        }
    }

    #[test]
    fn what_would_drive_the_terminal_is_written_out() {
        assert_eq!(printable("\u{1b}]0;owned\u{7}"), "\\x1b]0;owned\\x07");
        assert_eq!(printable("a\u{9b}2Jb"), "a\\x9b2Jb");
        assert_eq!(printable("x\r\ny\tz\u{8}\u{7f}"), "x\\r\\ny\\tz\\x08\\x7f");
        assert_eq!(printable("\0"), "\\x00");
    }

    #[test]
    fn what_turns_or_hides_text_is_written_out() {
        assert_eq!(printable("evil\u{202e}txt.sh"), "evil\\u{202e}txt.sh");
        assert_eq!(printable("\u{2066}a\u{2069}\u{200f}\u{61c}"), "\\u{2066}a\\u{2069}\\u{200f}\\u{61c}");
        assert_eq!(printable("a\u{200b}b\u{feff}c\u{ad}d"), "a\\u{200b}b\\u{feff}c\\xadd");
        assert_eq!(printable("\u{2028}\u{2029}\u{e0041}"), "\\u{2028}\\u{2029}\\u{e0041}");
    }

    #[test]
    fn no_character_at_all_gets_a_control_onto_the_terminal() {
        for character in '\0'..=char::MAX {
            let text = character.to_string();
            assert!(!printable(&text).chars().any(|c| c.is_control() || ('\u{202a}'..='\u{202e}').contains(&c)));
        }
    }

    #[test]
    fn lines_stay_lines_and_nothing_else_gets_through() {
        assert_eq!(printable_lines("a.toml:3:1: bad\n  | owmer\u{1b}[2J\r\n"), "a.toml:3:1: bad\n  | owmer\\x1b[2J");
    }

    #[test]
    fn a_cut_never_falls_into_a_character_and_is_marked() {
        assert_eq!(printable_start("äöü", 2), "äö...");
        assert_eq!(printable_start("äöü", 3), "äöü");
        assert_eq!(printable_start("\u{1b}\u{1b}\u{1b}", 1), "\\x1b...");
    }

    #[test]
    fn colours_are_there_only_when_they_are_on() {
        assert_eq!(Palette::PLAIN.paint(Tone::Alarm, "OUT"), "OUT");
        assert_eq!(Palette::COLOURED.paint(Tone::Alarm, "OUT"), "\u{1b}[31;1mOUT\u{1b}[0m");
        assert_eq!(Palette::COLOURED.paint(Tone::Alarm, ""), "");
    }

    #[test]
    fn thousands_stand_apart() {
        assert_eq!(grouped(0), "0");
        assert_eq!(grouped(999), "999");
        assert_eq!(grouped(1042), "1,042");
        assert_eq!(grouped(1_000_000), "1,000,000");
        assert_eq!(counted(1, "entry", "entries"), "1 entry");
    }

    #[test]
    fn columns_line_up_and_lines_end_without_blanks() {
        let rows = vec![vec!["äö".to_owned(), String::new()], vec!["x".to_owned(), "y".to_owned()]];
        assert_eq!(table(&["A", "B"], &rows, Palette::PLAIN), "A   B\näö\nx   y\n");
    }
}
