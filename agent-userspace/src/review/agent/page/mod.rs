//! A review as one page of HTML that needs nothing else: its style and its charts are in it.
//!
//! Input: a [`Review`]. Output: the page. Pure. Refuses: scripts, and anything from elsewhere; the page itself forbids both, and
//! every string of an agent is escaped, so that no name of a file can do more than be read.
//!
//! - `charts`: activity over time, grants by use
//! - `map`: who delegated to whom
//! - `markup`: elements, tables, escaping

mod charts;
mod map;
mod markup;
#[cfg(test)]
mod tests;

use self::markup::{Cell, escaped, moment, number, table};
use super::grants::Uses;
use super::report::{GrantItem, Review};
use crate::entry::Timestamp;

const STYLE: &str = include_str!("style.css");

/// The page.
pub fn page(review: &Review, made: Timestamp) -> String {
    let title = format!("Review of {}", escaped(&review.agent));
    let body = [
        head(review, made),
        tiles(review),
        section("activity", "Activity over time", &charts::activity(&review.activity)),
        section("unused", "Granted and not used", &unused(review)),
        section("outside", "Done and not granted", &not_granted(review)),
        section("grants", "Grants by use", &charts::grants(review)),
        section("map", "Who delegated to whom", &map::delegations(review)),
        section("things", "Privileges, resources, credentials, findings", &things(review)),
        section("complete", "How complete this is", &completeness(review)),
        section("diff", "The narrower scope", &narrower(review)),
    ]
    .concat();
    format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n<meta name=\"viewport\" \
         content=\"width=device-width, initial-scale=1\">\n<meta http-equiv=\"Content-Security-Policy\" \
         content=\"default-src 'none'; style-src 'unsafe-inline'\">\n<title>{title}</title>\n<style>\n{STYLE}</style>\n\
         </head>\n<body>\n<main>\n{body}</main>\n</body>\n</html>\n"
    )
}

fn section(id: &str, title: &str, content: &str) -> String {
    format!("<section id=\"{id}\">\n<h2>{title}</h2>\n{content}</section>\n")
}

fn head(review: &Review, made: Timestamp) -> String {
    let fact = |name: &str, value: &str| format!("<div><dt>{name}</dt><dd>{value}</dd></div>\n");
    let mut facts = fact("Owner", &review.owner.as_deref().map_or("nobody".to_owned(), escaped));
    if let Some(purpose) = &review.purpose {
        facts += &fact("Purpose", &escaped(purpose));
    }
    let between = review.from.zip(review.to).map(|(from, to)| format!("{} to {}", moment(from), moment(to)));
    facts += &fact("Looked at", &between.unwrap_or("nothing: it did nothing in that time".to_owned()));
    let last = review.last_review.as_ref();
    facts += &fact(
        "Last review",
        &last.map_or("none is recorded".to_owned(), |last| format!("{} by {}", moment(last.time), escaped(&last.by))),
    );
    if let Some(due) = review.due {
        let (name, class) = if review.overdue { ("Overdue since", " class=\"alarm\"") } else { ("Next review", "") };
        facts += &format!("<div><dt>{name}</dt><dd{class}>{}</dd></div>\n", moment(due));
    }
    if let Some(file) = &review.declared_in {
        facts += &fact("Declared in", &format!("<code>{}</code>", escaped(file)));
    }
    format!(
        "<header>\n<p class=\"kind\">Bailiwick · review of privileges</p>\n<h1>{}</h1>\n<dl>\n{facts}</dl>\n<p \
         class=\"quiet\">Made {}</p>\n</header>\n",
        escaped(&review.agent),
        moment(made)
    )
}

/// The numbers to look at first.
fn tiles(review: &Review) -> String {
    let sessions = review.sessions.len() as u64 + review.sessions_left_out;
    let findings: u64 = review.findings.iter().map(|finding| finding.uses.count).sum();
    let outside = review.used_not_granted.len() as u64 + review.used_not_granted_left_out;
    let tiles = [
        ("sessions", sessions, ""),
        ("actions", review.actions, ""),
        ("grants unused", review.granted_unused.len() as u64, "caution"),
        ("things done without a grant", outside, "alarm"),
        ("findings", findings, "alarm"),
        ("actions lost", review.completeness.lost, "caution"),
    ];
    let tile = |(name, value, class): (&str, u64, &str)| {
        let class = if value == 0 { "" } else { class };
        format!("<div class=\"tile {class}\"><b>{}</b><span>{name}</span></div>\n", number(value))
    };
    format!("<div class=\"tiles\">\n{}</div>\n", tiles.into_iter().map(tile).collect::<String>())
}

fn place(grant: &GrantItem) -> Cell {
    Cell::code(&format!("{}:{}", grant.file, grant.line))
}

fn unused(review: &Review) -> String {
    if !review.scoped {
        return "<p>The agent has no scope: nothing is judged. <code>bailiwick learn SESSION</code> proposes one.</p>\n"
            .to_owned();
    }
    let row = |grant: &GrantItem| vec![Cell::text(&grant.grant), Cell::code(&grant.text), place(grant)];
    let rows: Vec<_> = review.granted_unused.iter().map(row).collect();
    table(&["Grant", "Of", "Declared in"], &rows, "Every grant was used.")
}

fn not_granted(review: &Review) -> String {
    let rows: Vec<_> = review
        .used_not_granted
        .iter()
        .map(|one| {
            let uses = &one.thing.uses;
            let reason = one.reason.as_deref().unwrap_or_default();
            let whose = one.delegator.as_ref().map_or_else(String::new, |delegator| format!(" (scope of {delegator})"));
            vec![
                Cell::text(&one.thing.event),
                Cell::code(&one.thing.what),
                Cell::number(uses.count),
                last(uses),
                Cell::text(&format!("{reason}{whose}")),
                Cell::code(uses.uid.as_deref().unwrap_or_default()),
            ]
        })
        .collect();
    let heads = ["Event", "Of", "Times", "Last", "Nearest grant, or rule", "Entry"];
    let mut text = table(&heads, &rows, "Nothing was done without a grant.");
    if review.used_not_granted_left_out > 0 {
        text += &format!("<p>And {} more.</p>\n", number(review.used_not_granted_left_out));
    }
    text
}

fn last(uses: &Uses) -> Cell {
    uses.last.map_or_else(|| Cell::quiet("never"), |last| Cell::text(&moment(last)))
}

fn things(review: &Review) -> String {
    let mut text = String::new();
    let mut part = |title: &str, heads: &[&str], rows: &[Vec<Cell>]| {
        if !rows.is_empty() {
            text.push_str(&format!("<h3>{title}</h3>\n{}", table(heads, rows, "")));
        }
    };
    let rows: Vec<_> = review
        .privileges
        .iter()
        .map(|one| {
            let granted = if one.granted { Cell::text("granted") } else { Cell::alarm("not granted") };
            vec![Cell::text(&one.privilege), granted, Cell::number(one.uses.count), last(&one.uses)]
        })
        .collect();
    part("Privileges", &["Privilege", "", "Times", "Last"], &rows);
    let rows: Vec<_> = review
        .resources
        .iter()
        .map(|one| vec![Cell::text(&one.name), Cell::number(one.uses.count), last(&one.uses)])
        .collect();
    part("Resources", &["Resource", "Times", "Last"], &rows);
    let rows: Vec<_> = review
        .credentials
        .iter()
        .map(|one| {
            let files = if one.declared { Cell::code(&one.files.join(", ")) } else { Cell::alarm("not declared") };
            vec![Cell::text(&one.name), files, Cell::number(one.uses.count), last(&one.uses)]
        })
        .collect();
    part("Credentials", &["Credential", "Files", "Read", "Last"], &rows);
    let rows: Vec<_> = review
        .findings
        .iter()
        .map(|one| {
            let uid = Cell::code(one.uses.uid.as_deref().unwrap_or_default());
            vec![Cell::alarm(&one.event), Cell::number(one.uses.count), last(&one.uses), uid]
        })
        .collect();
    part("Findings", &["Finding", "Times", "Last", "Entry"], &rows);
    if text.is_empty() { "<p>None was used, and nothing was found.</p>\n".to_owned() } else { text }
}

fn completeness(review: &Review) -> String {
    let complete = &review.completeness;
    let rows: Vec<_> = complete
        .gaps
        .iter()
        .map(|gap| {
            let lost = gap.lost.map_or_else(|| Cell::quiet("nobody counted"), Cell::number);
            let (from, to) = (Cell::text(&moment(gap.from)), Cell::text(&moment(gap.to)));
            vec![Cell::text(&gap.kind), lost, from, to, Cell::text(&gap.reason)]
        })
        .collect();
    let none = "No gap, and all of the history can be judged.";
    let mut text = table(&["Missing", "Lost", "From", "To", "Why"], &rows, none);
    if complete.gaps_left_out > 0 {
        text += &format!("<p>And {} more.</p>\n", number(complete.gaps_left_out));
    }
    let spots: String = complete.blind_spots.iter().map(|spot| format!("<li>{}</li>\n", escaped(spot))).collect();
    text + &format!(
        "<details><summary>{} blind spots: what the sensor cannot see, whatever is done</summary><ul>\n{spots}</ul></details>\n",
        number(complete.blind_spots.len() as u64)
    )
}

fn narrower(review: &Review) -> String {
    match review.diff.as_deref() {
        None => "<p>Without a scope there is nothing to narrow.</p>\n".to_owned(),
        Some("") => "<p>Nothing can be taken away: every grant of the declaration was used.</p>\n".to_owned(),
        Some(diff) => {
            let line = |line: &str| {
                let class = match line.as_bytes().first() {
                    Some(b'-') => "gone",
                    Some(b'+') => "new",
                    _ => "",
                };
                format!("<span class=\"{class}\">{}</span>\n", escaped(line))
            };
            let lines: String = diff.lines().map(line).collect();
            let file = review.declared_in.as_deref().unwrap_or_default();
            format!(
                "<p><code>bailiwick review {} --diff | patch {}</code> applies it; <code>bailiwick reload</code> puts it into \
                 force.</p>\n<pre class=\"diff\">{lines}</pre>\n",
                escaped(&review.agent),
                escaped(file)
            )
        }
    }
}
