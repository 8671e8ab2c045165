//! What was done, in the words of one line: files, sockets, privileges. Each by what a person looks for first.

use serde_json::{Map, Value};

use super::line::{shown, string};
use super::text::{counted, printable};
use crate::credential::found::{DECLARED, NAME, PATH, VARIABLE};

type Attributes = Map<String, Value>;

/// A file, how it was used, and what became of it.
pub(super) fn file(attributes: &Attributes) -> String {
    let path = string(attributes, "file.path").map_or("?".into(), printable);
    let mut text = match string(attributes, "bailiwick.file.access").map(printable) {
        Some(access) => format!("{access} {path}"),
        None => path.into_owned(),
    };
    let after = [
        ("bailiwick.file.new_path", " -> "),
        ("file.symbolic_link.target_path", " -> "),
        ("bailiwick.mount.source", " <- "),
        ("file.mode", " to "),
        ("bailiwick.file.xattr", " "),
    ];
    for (name, before) in after {
        if attributes.contains_key(name) {
            text.push_str(before);
            text.push_str(&shown(attributes, name));
        }
    }
    if let Some(bytes) = number(attributes, "bailiwick.file.bytes") {
        text.push_str(&format!(" {}", counted(bytes, "byte", "bytes")));
    }
    for (name, mark) in [
        ("bailiwick.file.as_given", "as given"),
        ("bailiwick.file.deleted", "deleted"),
        ("bailiwick.file.found_open", "found open"),
        ("bailiwick.io_uring", "by io_uring"),
    ] {
        if attributes.get(name) == Some(&Value::Bool(true)) {
            text.push_str(&format!(" ({mark})"));
        }
    }
    text
}

/// A socket: the far end, or, where there is none, its own.
pub(super) fn address(attributes: &Attributes) -> String {
    let transport = shown(attributes, "network.transport");
    let end =
        ["server", "client", "network.local"].into_iter().find(|end| attributes.contains_key(&format!("{end}.port")));
    let mut text = match end {
        Some(end) => {
            let host = shown(attributes, &format!("{end}.address"));
            let host = if host.contains(':') { format!("[{host}]") } else { host };
            format!("{transport} {host}:{}", shown(attributes, &format!("{end}.port")))
        }
        None => match string(attributes, "bailiwick.network.family") {
            Some(family) => {
                format!("{} protocol {}", printable(family), shown(attributes, "bailiwick.network.protocol"))
            }
            None => transport,
        },
    };
    if let (Some(sent), Some(received)) =
        (number(attributes, "bailiwick.network.bytes_sent"), number(attributes, "bailiwick.network.bytes_received"))
    {
        text.push_str(&format!(
            " sent {} received {}",
            counted(sent, "byte", "bytes"),
            counted(received, "byte", "bytes")
        ));
    }
    text
}

/// A Unix socket, and who listens there.
pub(super) fn unix(attributes: &Attributes) -> String {
    let name = match string(attributes, "bailiwick.unix.path") {
        Some(path) => printable(path).into_owned(),
        None => format!("@{}", shown(attributes, "bailiwick.unix.abstract")),
    };
    match number(attributes, "bailiwick.peer.tgid") {
        Some(tgid) => format!("{name} of {}[{tgid}]", shown(attributes, "bailiwick.peer.executable")),
        None => name,
    }
}

/// A credential that was read, and where it lay.
pub(super) fn credential(attributes: &Attributes) -> String {
    let place = ["file.path", PATH, VARIABLE].into_iter().find_map(|name| string(attributes, name));
    let declared = if attributes.get(DECLARED) == Some(&Value::Bool(false)) { ", not declared" } else { "" };
    format!("{} ({}{declared})", shown(attributes, NAME), place.map_or("?".into(), printable))
}

/// The use of a privilege: the call, and to whom or what.
pub(super) fn privilege(attributes: &Attributes) -> String {
    let mut text = string(attributes, "bailiwick.syscall").map_or("signal".into(), printable).into_owned();
    let details = attributes.iter().filter(|(name, _)| {
        !matches!(name.as_str(), "bailiwick.syscall" | "error.type" | "bailiwick.target.start_boot_ns")
    });
    for (name, _) in details.take(6) {
        let short = name.rsplit('.').next().unwrap_or(name);
        text.push_str(&format!(" {}={}", printable(short), shown(attributes, name)));
    }
    text
}

fn number(attributes: &Attributes, name: &str) -> Option<u64> {
    attributes.get(name).and_then(Value::as_u64)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn attributes(value: Value) -> Attributes {
        match value {
            Value::Object(attributes) => attributes,
            _ => Attributes::default(),
        }
    }

    #[test]
    fn what_was_done_is_told_by_what_a_person_looks_for_first() {
        let renamed =
            attributes(json!({"file.path": "/a", "bailiwick.file.new_path": "/b", "bailiwick.file.as_given": true}));
        assert_eq!(file(&renamed), "/a -> /b (as given)");
        let moved = attributes(json!({"file.path": "/a", "bailiwick.file.access": "w", "bailiwick.file.bytes": 1}));
        assert_eq!(file(&moved), "w /a 1 byte");
        let listening =
            attributes(json!({"network.transport": "tcp", "network.local.address": "::1", "network.local.port": 80}));
        assert_eq!(address(&listening), "tcp [::1]:80");
        let raw = attributes(
            json!({"network.transport": "raw", "bailiwick.network.family": "packet", "bailiwick.network.protocol": 3}),
        );
        assert_eq!(address(&raw), "packet protocol 3");
        let peer = attributes(
            json!({"bailiwick.unix.abstract": "x", "bailiwick.peer.tgid": 7, "bailiwick.peer.executable": "/d"}),
        );
        assert_eq!(unix(&peer), "@x of /d[7]");
        let traced =
            attributes(json!({"bailiwick.syscall": "ptrace", "bailiwick.target.tgid": 9, "error.type": "EPERM"}));
        assert_eq!(privilege(&traced), "ptrace tgid=9");
        let read = attributes(json!({NAME: "key", "file.path": "/k\u{1b}", DECLARED: false}));
        assert_eq!(credential(&read), "key (/k\\x1b, not declared)");
    }
}
