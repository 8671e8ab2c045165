//! Elements of the page: everything that is text goes through [`escaped`].

use crate::cli::text::printable;
use crate::entry::Timestamp;

/// Text that cannot be markup, nor turn the direction of reading.
pub(super) fn escaped(text: &str) -> String {
    let mut safe = String::with_capacity(text.len() + 8);
    for character in printable(text).chars() {
        match character {
            '&' => safe.push_str("&amp;"),
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            '"' => safe.push_str("&quot;"),
            '\'' => safe.push_str("&#39;"),
            _ => safe.push(character),
        }
    }
    safe
}

/// A number with its thousands apart.
pub(super) fn number(number: u64) -> String {
    crate::cli::text::grouped(number)
}

/// A time, to the second.
pub(super) fn moment(time: Timestamp) -> String {
    time.to_string().chars().take(19).collect::<String>().replace('T', " ") + " UTC"
}

/// A cell of a table: its class and its content, escaped already.
pub(super) struct Cell {
    class: &'static str,
    content: String,
}

impl Cell {
    pub(super) fn text(text: &str) -> Self {
        Self { class: "", content: escaped(text) }
    }

    pub(super) fn code(text: &str) -> Self {
        Self { class: "", content: format!("<code>{}</code>", escaped(text)) }
    }

    pub(super) fn number(value: u64) -> Self {
        Self { class: "number", content: number(value) }
    }

    pub(super) fn quiet(text: &str) -> Self {
        Self { class: "quiet", content: escaped(text) }
    }

    pub(super) fn alarm(text: &str) -> Self {
        Self { class: "alarm", content: escaped(text) }
    }
}

/// A table; on a narrow screen each row stands as a card, and each cell tells its head.
pub(super) fn table(heads: &[&str], rows: &[Vec<Cell>], none: &str) -> String {
    if rows.is_empty() {
        return format!("<p>{none}</p>\n");
    }
    let head: String = heads.iter().map(|head| format!("<th>{head}</th>")).collect();
    let body: String = rows
        .iter()
        .map(|row| {
            let cell = |(cell, head): (&Cell, &&str)| {
                format!("<td class=\"{}\" data-head=\"{head}\">{}</td>", cell.class, cell.content)
            };
            format!("<tr>{}</tr>\n", row.iter().zip(heads).map(cell).collect::<String>())
        })
        .collect();
    format!("<table>\n<thead><tr>{head}</tr></thead>\n<tbody>\n{body}</tbody>\n</table>\n")
}
