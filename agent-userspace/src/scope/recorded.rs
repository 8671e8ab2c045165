//! Actions as the trail has them: what an entry says was done, judged with the same code as the event was.
//!
//! Input: a [`Draft`] or an entry's. Output: a [`Reading`]: the action, or why there is none to judge. For an unchanged scope
//! the verdict is the one that the event got: all names count that the event was judged by, those among them that the entry
//! has only because a rule denied them. Pure. Refuses to guess: what was judged by a value that the entry has no more
//! (redacted, or cut afterwards) is said to be unknown.

use std::net::SocketAddr;

use agent_common::RecordKind;
use serde_json::Value;

use super::effective::Effective;
use super::grant::PRIVILEGES;
use super::pattern::PathPattern;
use super::{Access, Action, Judgement, SeenPath, UnixAddress};
use crate::entry::{Draft, ReasonKind, Verdict};
use crate::observation::{Judged, event_of, judged_by};

/// The attributes by whose values actions are judged.
const JUDGED_BY: [&str; 8] = [
    "file.path",
    "bailiwick.file.new_path",
    "bailiwick.file.host_path",
    "bailiwick.file.other_path",
    "process.executable.path",
    "bailiwick.exec.script",
    "bailiwick.unix.path",
    "bailiwick.unix.abstract",
];

/// What an entry says that can be judged.
#[derive(Clone, Debug)]
pub enum Reading {
    /// No scope judges such an event, or such a file.
    NotJudged,
    /// It was judged by what the entry does not have any more: why.
    Unknown(&'static str),
    /// An action.
    Action(Recorded),
}

/// A recorded action.
#[derive(Clone, Debug)]
pub struct Recorded {
    /// What was done.
    pub deed: Deed,
    /// The host's own path of the file, which must be granted as well.
    host: Option<Name>,
    /// Other names of the file: a deny on one of them denies.
    others: Vec<Vec<u8>>,
    errno: Option<i32>,
}

/// A path of an entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Name {
    /// Its bytes.
    pub bytes: Vec<u8>,
    /// Whether some of them were cut.
    pub cut: bool,
}

impl Name {
    fn seen(&self) -> SeenPath<'_> {
        SeenPath { bytes: &self.bytes, cut: self.cut }
    }
}

/// What was done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Deed {
    /// A file was opened or created, mapped to be written, or received.
    File {
        /// The file.
        path: Name,
        /// How.
        access: Access,
    },
    /// A program was executed.
    Exec {
        /// The image.
        path: Name,
        /// The `#!` script.
        script: Option<Name>,
    },
    /// A file was changed by its names.
    Names(Vec<Name>),
    /// A connection was opened, or something sent.
    Connect(SocketAddr),
    /// An address of its own was taken.
    Listen(SocketAddr),
    /// A Unix socket with a path was connected to.
    UnixPath(Name),
    /// A Unix socket with an abstract name was.
    UnixAbstract(Vec<u8>),
    /// A privilege was used.
    Privilege(&'static str),
}

impl Reading {
    /// Reads what an entry says.
    pub fn of(draft: &Draft) -> Self {
        let Some(recorded) = Recorded::of(draft) else { return Self::NotJudged };
        if is_judged_by_redacted(draft) {
            return Self::Unknown("it was judged by a value that was redacted");
        }
        if draft.verdict == Verdict::InScope && recorded.deed.names().any(|name| name.cut) {
            return Self::Unknown("it was judged by a path that was cut when it was written");
        }
        Self::Action(recorded)
    }
}

/// Whether an attribute by which an action is judged had a secret in it.
pub fn is_judged_by_redacted(draft: &Draft) -> bool {
    draft.redacted.iter().any(|name| JUDGED_BY.contains(&name.as_str()))
}

impl Recorded {
    /// What is left of an action in its entry; none where no scope judges it.
    pub fn of(draft: &Draft) -> Option<Self> {
        if draft.attributes.get("bailiwick.file.internal") == Some(&Value::Bool(true)) && is_of_an_open(draft) {
            return None;
        }
        let deed = deed_of(draft)?;
        let mut others: Vec<Vec<u8>> = bytes(draft, "bailiwick.file.other_path").into_iter().collect();
        others.extend(name_of_rule(draft));
        // Of errors only those of a search for a path are judged otherwise.
        let errno = text(draft, "error.type").map(|name| match name {
            "ENOENT" => libc::ENOENT,
            "ENOTDIR" => libc::ENOTDIR,
            _ => libc::EIO,
        });
        Some(Self { deed, host: name(draft, "bailiwick.file.host_path"), others, errno })
    }

    /// The verdict of the scopes that bind the agent, by all the names that the event was judged by.
    pub fn judge(&self, effective: &Effective<'_>) -> Judgement {
        let mut judgement = self.ask(|action| effective.judge(action, self.errno));
        if let Some(action) = self.host_action()
            && judgement.verdict != Verdict::OutOfScope
        {
            judgement = effective.judge(&action, self.errno);
        }
        if judgement.verdict == Verdict::InScope
            && let Some(denied) = self.others.iter().find_map(|other| effective.denial_of(other))
        {
            judgement = denied;
        }
        judgement
    }

    /// Hands the action to whoever judges or explains it, by the names that the session itself used.
    pub fn ask<T>(&self, question: impl FnOnce(&Action<'_>) -> T) -> T {
        let action = match &self.deed {
            Deed::File { path, access } => Action::File { path: path.seen(), access: *access },
            Deed::Exec { path, script } => Action::Exec { path: path.seen(), script: script.as_ref().map(Name::seen) },
            Deed::Names(names) => {
                let paths: Vec<SeenPath<'_>> = names.iter().map(Name::seen).collect();
                return question(&Action::Files { paths: &paths, access: Access::Write });
            }
            Deed::Connect(address) => Action::Connect { address: *address },
            Deed::Listen(address) => Action::Listen { address: *address },
            Deed::UnixPath(path) => Action::Unix { address: UnixAddress::Path(path.seen()) },
            Deed::UnixAbstract(name) => Action::Unix { address: UnixAddress::Abstract(name) },
            Deed::Privilege(name) => Action::Privilege { name },
        };
        question(&action)
    }

    /// The host's own path of the file, where it must be granted as well.
    pub fn host(&self) -> Option<&Name> {
        self.host.as_ref()
    }

    /// The same action by the host's own path, where that must be granted as well.
    pub fn host_action(&self) -> Option<Action<'_>> {
        match (&self.host, &self.deed) {
            (Some(host), Deed::File { access, .. }) => Some(Action::File { path: host.seen(), access: *access }),
            _ => None,
        }
    }

    /// Whether it found nothing there: a search along a path, which no grant is needed for.
    pub fn is_search(&self) -> bool {
        matches!(self.errno, Some(libc::ENOENT | libc::ENOTDIR))
    }

    /// Whether it failed.
    pub fn failed(&self) -> bool {
        self.errno.is_some()
    }
}

impl Deed {
    /// The paths that it names.
    pub fn names(&self) -> impl Iterator<Item = &Name> {
        let (list, script): (&[Name], Option<&Name>) = match self {
            Self::File { path, .. } | Self::UnixPath(path) => (std::slice::from_ref(path), None),
            Self::Exec { path, script } => (std::slice::from_ref(path), script.as_ref()),
            Self::Names(names) => (names, None),
            Self::Connect(_) | Self::Listen(_) | Self::UnixAbstract(_) | Self::Privilege(_) => (&[], None),
        };
        list.iter().chain(script)
    }
}

fn deed_of(draft: &Draft) -> Option<Deed> {
    Some(match draft.event.as_str() {
        _ if is_of_an_open(draft) => Deed::File {
            path: name(draft, "file.path")?,
            access: match text(draft, "bailiwick.file.access")? {
                "w" => Access::Write,
                "rw" => Access::ReadWrite,
                "path" => Access::Path,
                "x" => Access::Exec,
                _ => Access::Read,
            },
        },
        "process.exec" => {
            let mut path = name(draft, "process.executable.path")?;
            if draft.attributes.contains_key("error.type") {
                path.bytes = normalised(&path.bytes);
            }
            let script = bytes(draft, "bailiwick.exec.script");
            let cut = is_cut(draft, "bailiwick.exec.given");
            Deed::Exec { path, script: script.map(|bytes| Name { bytes, cut }) }
        }
        "network.connect" | "network.send" => Deed::Connect(address(draft, "server")?),
        "network.bind" | "network.listen" => Deed::Listen(address(draft, "network.local")?),
        "network.raw" => Deed::Privilege("raw"),
        "file.mount" => Deed::Privilege("mount"),
        "unix.connect" => match name(draft, "bailiwick.unix.path") {
            Some(path) => Deed::UnixPath(path),
            None => Deed::UnixAbstract(bytes(draft, "bailiwick.unix.abstract")?),
        },
        event if event.starts_with("privilege.") => {
            let name = event.strip_prefix("privilege.")?;
            Deed::Privilege(PRIVILEGES.into_iter().find(|known| *known == name)?)
        }
        event if is_change(event) => {
            let names = ["file.path", "bailiwick.file.new_path"];
            Deed::Names(names.into_iter().filter_map(|attribute| name(draft, attribute)).collect())
        }
        _ => return None,
    })
}

/// Whether the event is judged as an open is.
fn is_of_an_open(draft: &Draft) -> bool {
    matches!(draft.event.as_str(), "file.open" | "file.create" | "file.map_write" | "fd.receive")
        && !draft.attributes.contains_key("bailiwick.syscall")
}

/// Whether the event is a change of a file, judged by its names.
fn is_change(event: &str) -> bool {
    RecordKind::ALL.iter().any(|&kind| judged_by(kind) == Judged::Write && event_of(kind) == event)
}

/// The file's full name by which a rule denied it: another than those of the entry, where it is the same file by another name.
fn name_of_rule(draft: &Draft) -> Option<Vec<u8>> {
    let reason = draft.reason.as_ref().filter(|reason| reason.kind == ReasonKind::Rule)?;
    let pattern = PathPattern::parse(&reason.text).ok()?;
    pattern.as_literal().map(|path| path.as_bytes().to_vec())
}

/// An attribute's text.
pub(crate) fn text<'a>(draft: &'a Draft, attribute: &str) -> Option<&'a str> {
    draft.attributes.get(attribute).and_then(Value::as_str)
}

/// An attribute's bytes, as they were before they were escaped.
pub(crate) fn bytes(draft: &Draft, attribute: &str) -> Option<Vec<u8>> {
    let text = text(draft, attribute)?;
    Some(if draft.escaped.iter().any(|field| field == attribute) { unescape(text) } else { text.into() })
}

/// Whether an attribute was cut.
pub(crate) fn is_cut(draft: &Draft, attribute: &str) -> bool {
    draft.truncated.iter().any(|field| field == attribute)
}

fn name(draft: &Draft, attribute: &str) -> Option<Name> {
    Some(Name { bytes: bytes(draft, attribute)?, cut: is_cut(draft, attribute) })
}

/// An address among the attributes.
pub(crate) fn address(draft: &Draft, of: &str) -> Option<SocketAddr> {
    let ip = text(draft, &format!("{of}.address"))?.parse().ok()?;
    let port = draft.attributes.get(&format!("{of}.port"))?.as_u64()?;
    Some(SocketAddr::new(ip, u16::try_from(port).ok()?))
}

/// A path without `//`, `.` and `..`, by its text alone: what it leads to may be another place where a symlink lies in it.
pub fn normalised(path: &[u8]) -> Vec<u8> {
    let mut parts: Vec<&[u8]> = Vec::new();
    for part in path.split(|&byte| byte == b'/') {
        match part {
            b"" | b"." => {}
            b".." => {
                parts.pop();
            }
            part => parts.push(part),
        }
    }
    let mut normal = Vec::with_capacity(path.len());
    for part in parts {
        normal.push(b'/');
        normal.extend_from_slice(part);
    }
    if normal.is_empty() { b"/".to_vec() } else { normal }
}

/// Bytes as a string; whether some had to be escaped as `\xHH`. Then backslashes are too, so that what the process itself
/// wrote that way can be told from what we escaped.
pub fn readable(bytes: &[u8]) -> (String, bool) {
    if let Ok(text) = std::str::from_utf8(bytes) {
        return (text.to_owned(), false);
    }
    let mut text = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        text.push_str(&chunk.valid().replace('\\', "\\x5C"));
        for byte in chunk.invalid() {
            text.push_str(&format!("\\x{byte:02X}"));
        }
    }
    (text, true)
}

/// What [`readable`] escaped, back to bytes.
fn unescape(text: &str) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        let code = rest.strip_prefix(b"\\x").and_then(|code| code.get(..2));
        let code =
            code.and_then(|code| std::str::from_utf8(code).ok()).and_then(|code| u8::from_str_radix(code, 16).ok());
        match code {
            Some(code) => {
                bytes.push(code);
                rest = rest.get(4..).unwrap_or_default();
            }
            None => {
                bytes.push(byte);
                rest = after;
            }
        }
    }
    bytes
}

#[cfg(test)]
#[path = "recorded_tests.rs"]
mod tests;
