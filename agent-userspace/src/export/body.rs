//! The one sentence that a log record's body is.

use std::fmt::Write;

use serde_json::Value;

use crate::entry::{Draft, Verdict};

/// Says what an entry is about. Strings from the monitored process are escaped: a viewer may print them raw.
pub(super) fn sentence(draft: &Draft) -> String {
    let mut text = escaped(&action(draft));
    if draft.count > 1 {
        let _ = write!(text, " ({} times)", draft.count);
    }
    if let Some(error) = string(draft, "error.type") {
        let _ = write!(text, ", which failed with {}", escaped(error));
    }
    let because = draft.reason.as_ref().map(|reason| escaped(&reason.text));
    match (draft.verdict, because) {
        (Verdict::OutOfScope, Some(because)) => drop(write!(text, ": out of scope ({because})")),
        (Verdict::OutOfScope, None) => text.push_str(": out of scope"),
        (Verdict::Denied, Some(because)) => drop(write!(text, ": denied ({because})")),
        (Verdict::Denied, None) => text.push_str(": denied"),
        (Verdict::InScope | Verdict::None, _) => {}
    }
    text
}

fn action(draft: &Draft) -> String {
    let who = draft.agent.as_deref().unwrap_or("no agent");
    let path = string(draft, "file.path").unwrap_or("an unknown path");
    match draft.event.as_str() {
        "process.fork" => {
            format!("{who}: {} started a process {}", actor(draft), number(draft, "bailiwick.child.tgid"))
        }
        "process.exec" => format!("{who} ran {}", executable(draft)),
        "process.exit" => match draft.attributes.get("bailiwick.exit.signal") {
            Some(signal) => format!("{who}: {} was ended by signal {signal}", actor(draft)),
            None => format!("{who}: {} ended with code {}", actor(draft), number(draft, "process.exit.code")),
        },
        "file.create" => format!("{who} created {path}"),
        "file.open" => format!("{who} opened {path} {}", access(draft)),
        "network.connect" => format!("{who} connected to {}", server(draft)),
        "session.start" => format!("{who}: a session started"),
        "session.end" => format!("{who}: the session ended"),
        "delegation.start" => match draft.delegation.last() {
            Some(delegator) => format!("{} started {who}", delegator.agent),
            None => format!("{who} was started by another agent"),
        },
        "gap" => gap(draft),
        event => match &draft.agent {
            Some(agent) => format!("{agent}: {event}"),
            None => event.to_owned(),
        },
    }
}

fn gap(draft: &Draft) -> String {
    let Some(gap) = &draft.gap else { return "something may have been lost".to_owned() };
    match gap.lost {
        Some(lost) => format!("{lost} of {} lost: {}", gap.kind, gap.reason),
        None => format!("{} not observed from {} to {}: {}", gap.kind, gap.from, gap.to, gap.reason),
    }
}

fn access(draft: &Draft) -> &'static str {
    match string(draft, "bailiwick.file.access") {
        Some("r") => "for reading",
        Some("w") => "for writing",
        Some("rw") => "for reading and writing",
        Some("x") => "for execution",
        Some("path") => "as a path only",
        Some(_) | None => "",
    }
}

fn server(draft: &Draft) -> String {
    let address = string(draft, "server.address").unwrap_or("an unknown address");
    let port = number(draft, "server.port");
    if address.contains(':') { format!("[{address}]:{port}") } else { format!("{address}:{port}") }
}

fn actor(draft: &Draft) -> String {
    match &draft.process {
        Some(process) => format!("{} ({})", process.executable.as_deref().unwrap_or("a process"), process.tgid),
        None => "a process".to_owned(),
    }
}

fn executable(draft: &Draft) -> &str {
    string(draft, "process.executable.path").or_else(|| string(draft, "bailiwick.exec.given")).unwrap_or("a program")
}

fn string<'a>(draft: &'a Draft, key: &str) -> Option<&'a str> {
    draft.attributes.get(key).and_then(Value::as_str)
}

fn number(draft: &Draft, key: &str) -> String {
    draft.attributes.get(key).map_or_else(|| "unknown".to_owned(), Value::to_string)
}

fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for letter in text.chars() {
        if letter.is_control() {
            out.extend(letter.escape_default());
        } else {
            out.push(letter);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::sentence;
    use crate::entry::{Draft, Reason, ReasonKind, Timestamp, Verdict};

    fn of(event: &str, attributes: &[(&str, serde_json::Value)]) -> Draft {
        let mut draft = Draft::of_host(Timestamp(0), event);
        draft.agent = Some("code-assistant".to_owned());
        draft.count = 1;
        draft.attributes.extend(attributes.iter().map(|(key, value)| ((*key).to_owned(), value.clone())));
        draft
    }

    #[test]
    fn an_open_out_of_scope_says_so_and_why() {
        let mut draft =
            of("file.open", &[("file.path", json!("/home/a/.ssh/id")), ("bailiwick.file.access", json!("r"))]);
        draft.verdict = Verdict::OutOfScope;
        draft.count = 3;
        draft.reason = Some(Reason {
            kind: ReasonKind::Rule,
            text: "deny **/.ssh/**".to_owned(),
            file: None,
            line: None,
            delegator: None,
        });
        let expected = "code-assistant opened /home/a/.ssh/id for reading (3 times): out of scope (deny **/.ssh/**)";
        assert_eq!(sentence(&draft), expected);
    }

    #[test]
    fn an_address_is_written_as_it_would_be_typed() {
        let draft = of(
            "network.connect",
            &[("server.address", json!("::1")), ("server.port", json!(443)), ("error.type", json!("ECONNREFUSED"))],
        );
        assert_eq!(sentence(&draft), "code-assistant connected to [::1]:443, which failed with ECONNREFUSED");
    }

    #[test]
    fn control_characters_of_a_path_do_not_reach_a_terminal() {
        let draft = of("file.create", &[("file.path", json!("/tmp/\u{1b}[2J\nx"))]);
        assert_eq!(sentence(&draft), "code-assistant created /tmp/\\u{1b}[2J\\nx");
    }
}
