//! A chain of delegations as a tree, with what was done at each link.
//!
//! Inputs: the links, each after the one that it acts for. Outputs: text. Pure. Refuses: strings of agents as they are.

use super::line::{moment, principal_text, quoted};
use super::text::{Palette, Tone, counted, grouped, printable, printable_start};
use crate::control::report::LinkItem;

/// A tree is not indented beyond this.
const MAX_INDENT: usize = 16;
/// A command line is shown to this length.
const MAX_SHOWN: usize = 120;

/// `bailiwick chain`.
pub(super) fn chain(links: &[LinkItem], palette: Palette) -> String {
    let mut text = String::new();
    for link in links {
        let indent = "   ".repeat(link.depth.min(MAX_INDENT));
        let joint = if link.depth == 0 { "" } else { "└─ " };
        let outer = indent.strip_suffix("   ").unwrap_or(&indent);
        text.push_str(&format!("{outer}{joint}{}\n", head(link, palette)));
        for (name, value) in rows(link, palette) {
            text.push_str(&format!("{indent}   {name:<9} {value}\n"));
        }
    }
    text
}

fn head(link: &LinkItem, palette: Palette) -> String {
    let session = &link.session;
    let agent = session.agent.as_deref().map_or("?".into(), printable);
    let name = format!("{agent} {}", session.session);
    let name = if link.is_asked { palette.paint(Tone::Strong, &format!("{name}  <")) } else { name };
    let end = match (session.ended, session.alive) {
        (Some(ended), _) => format!("ended {}", moment(ended)),
        (None, true) => "alive".to_owned(),
        (None, false) => "its end was not seen".to_owned(),
    };
    let started = session.started.map_or_else(|| "?".to_owned(), moment);
    format!("{name}  started {started}, {end} (UTC)")
}

fn rows(link: &LinkItem, palette: Palette) -> Vec<(&'static str, String)> {
    let session = &link.session;
    let mut rows = Vec::new();
    if link.depth == 0
        && let Some(principal) = &session.principal
    {
        rows.push(("for", principal_text(principal)));
    }
    if !link.command.is_empty() {
        let words: Vec<String> = link.command.iter().map(|word| quoted(word)).collect();
        rows.push(("command", printable_start(&words.join(" "), MAX_SHOWN)));
    }
    let actions: Vec<String> =
        link.actions.iter().map(|(event, count)| format!("{} {}", printable(event), grouped(*count))).collect();
    if !actions.is_empty() {
        rows.push(("did", actions.join(", ")));
    }
    for (name, things) in [("executed", &link.executed), ("wrote", &link.wrote), ("reached", &link.reached)] {
        rows.extend(
            things.iter().enumerate().map(|(at, thing)| (if at == 0 { name } else { "" }, printable(thing).into())),
        );
    }
    if session.out_of_scope > 0 {
        let out = counted(session.out_of_scope, "entry is out of scope", "entries are out of scope");
        rows.push(("verdicts", palette.paint(Tone::Alarm, &out)));
    }
    let found = |finding: &String| ("found", palette.paint(Tone::Alarm, &printable(finding)));
    rows.extend(link.findings.iter().map(found));
    if session.lost > 0 || session.uncounted_gaps > 0 {
        let gaps = counted(session.uncounted_gaps, "gap nobody counted", "gaps nobody counted");
        rows.push(("lost", format!("{}, {gaps}", counted(session.lost, "action", "actions"))));
    }
    rows
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::control::report::SessionItem;
    use crate::entry::{Delegator, Principal, SessionId, Timestamp};

    fn link(id: u64, agent: &str, delegators: &[&str]) -> LinkItem {
        let delegation = (1..).zip(delegators);
        let delegation =
            delegation.map(|(id, agent)| Delegator { agent: (*agent).to_owned(), session: SessionId(id) }).collect();
        let principal = Principal {
            uid: 1,
            user: Some("alice".to_owned()),
            login_uid: None,
            via: Some("ssh".to_owned()),
            ..Principal::default()
        };
        LinkItem {
            session: SessionItem {
                session: SessionId(id),
                agent: Some(agent.to_owned()),
                principal: Some(principal),
                delegation,
                started: Some(Timestamp(0)),
                ended: None,
                alive: true,
                processes: 1,
                entries: 4,
                in_scope: 3,
                out_of_scope: u64::from(delegators.len() == 1),
                lost: 0,
                uncounted_gaps: 0,
            },
            depth: delegators.len(),
            is_asked: delegators.len() == 1,
            command: vec!["/x".to_owned(), "a b\u{1b}".to_owned()],
            actions: BTreeMap::from([("file.open".to_owned(), 1_234)]),
            executed: vec!["/x".to_owned(), "/y".to_owned()],
            wrote: Vec::new(),
            reached: Vec::new(),
            findings: Vec::new(),
        }
    }

    #[test]
    fn a_chain_is_drawn_with_what_was_done_at_each_link() {
        let text = chain(&[link(1, "outer", &[]), link(2, "inner", &["outer"])], Palette::PLAIN);
        assert_eq!(
            text,
            "outer 0000000000000001  started 1970-01-01 00:00:00, alive (UTC)\n\
             \x20  for       alice via ssh\n\
             \x20  command   /x 'a b\\x1b'\n\
             \x20  did       file.open 1,234\n\
             \x20  executed  /x\n\
             \x20            /y\n\
             └─ inner 0000000000000002  <  started 1970-01-01 00:00:00, alive (UTC)\n\
             \x20     command   /x 'a b\\x1b'\n\
             \x20     did       file.open 1,234\n\
             \x20     executed  /x\n\
             \x20               /y\n\
             \x20     verdicts  1 entry is out of scope\n"
        );
    }
}
