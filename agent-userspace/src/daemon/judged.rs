//! Recorded actions, judged again: for `explain`, and for what folded repeats count after the scope has changed.

use std::net::SocketAddr;

use agent_common::RecordKind;
use serde_json::Value;

use crate::config::Declaration;
use crate::control::report::Explanation;
use crate::entry::{Attribution, Draft, Entry, Verdict};
use crate::observation::{Judged, event_of, judged_by};
use crate::scope::grant::PRIVILEGES;
use crate::scope::{Access, Action, SeenPath, UnixAddress, judge_for};

/// What an entry says was done.
struct Recorded {
    what: What,
    errno: Option<i32>,
}

enum What {
    File { path: Vec<u8>, cut: bool, access: Access },
    Exec { path: Vec<u8>, script: Option<Vec<u8>>, cut: bool },
    Names { paths: Vec<Vec<u8>>, cut: bool },
    Connect { address: SocketAddr },
    Listen { address: SocketAddr },
    UnixPath { path: Vec<u8>, cut: bool },
    UnixAbstract { name: Vec<u8> },
    Privilege { name: &'static str },
}

impl Recorded {
    /// `None` for an event that no scope judges.
    fn of(draft: &Draft) -> Option<Self> {
        let text = |name: &str| draft.attributes.get(name).and_then(Value::as_str);
        let bytes = |name: &str| {
            let text = text(name)?;
            Some(if draft.escaped.iter().any(|field| field == name) { unescape(text) } else { text.into() })
        };
        let cut = |name: &str| draft.truncated.iter().any(|field| field == name);
        let what = match draft.event.as_str() {
            "file.open" | "file.create" | "file.map_write" | "fd.receive" if text("bailiwick.syscall").is_none() => {
                What::File {
                    path: bytes("file.path")?,
                    cut: cut("file.path"),
                    access: match text("bailiwick.file.access")? {
                        "w" => Access::Write,
                        "rw" => Access::ReadWrite,
                        "path" => Access::Path,
                        "x" => Access::Exec,
                        _ => Access::Read,
                    },
                }
            }
            "process.exec" => What::Exec {
                path: bytes("process.executable.path")?,
                script: bytes("bailiwick.exec.script"),
                cut: cut("process.executable.path") || cut("bailiwick.exec.given"),
            },
            "network.connect" | "network.send" => What::Connect { address: address(draft, "server")? },
            "network.bind" | "network.listen" => What::Listen { address: address(draft, "network.local")? },
            "network.raw" => What::Privilege { name: "raw" },
            "file.mount" => What::Privilege { name: "mount" },
            "unix.connect" => match bytes("bailiwick.unix.path") {
                Some(path) => What::UnixPath { path, cut: cut("bailiwick.unix.path") },
                None => What::UnixAbstract { name: bytes("bailiwick.unix.abstract")? },
            },
            event if event.starts_with("privilege.") => {
                let name = event.strip_prefix("privilege.")?;
                What::Privilege { name: PRIVILEGES.into_iter().find(|known| *known == name)? }
            }
            event if is_change(event) => What::Names {
                paths: ["file.path", "bailiwick.file.new_path"].into_iter().filter_map(bytes).collect(),
                cut: cut("file.path") || cut("bailiwick.file.new_path"),
            },
            _ => return None,
        };
        // Of errors only those of a search for a path are judged otherwise.
        let errno = text("error.type").map(|name| match name {
            "ENOENT" => libc::ENOENT,
            "ENOTDIR" => libc::ENOTDIR,
            _ => libc::EIO,
        });
        Some(Self { what, errno })
    }

    /// Hands the action to whoever judges or explains it.
    fn ask<T>(&self, question: impl FnOnce(&Action<'_>) -> T) -> T {
        let action = match &self.what {
            What::File { path, cut, access } => {
                Action::File { path: SeenPath { bytes: path, cut: *cut }, access: *access }
            }
            What::Exec { path, script, cut } => Action::Exec {
                path: SeenPath { bytes: path, cut: *cut },
                script: script.as_ref().map(|script| SeenPath { bytes: script, cut: *cut }),
            },
            What::Names { paths, cut } => {
                let paths: Vec<SeenPath<'_>> = paths.iter().map(|bytes| SeenPath { bytes, cut: *cut }).collect();
                return question(&Action::Files { paths: &paths, access: Access::Write });
            }
            What::Connect { address } => Action::Connect { address: *address },
            What::Listen { address } => Action::Listen { address: *address },
            What::UnixPath { path, cut } => {
                Action::Unix { address: UnixAddress::Path(SeenPath { bytes: path, cut: *cut }) }
            }
            What::UnixAbstract { name } => Action::Unix { address: UnixAddress::Abstract(name) },
            What::Privilege { name } => Action::Privilege { name },
        };
        question(&action)
    }
}

/// Whether the event is a change of a file, judged by its names.
fn is_change(event: &str) -> bool {
    RecordKind::ALL.iter().any(|&kind| judged_by(kind) == Judged::Write && event_of(kind) == event)
}

/// An address among the attributes.
fn address(draft: &Draft, of: &str) -> Option<SocketAddr> {
    let ip = draft.attributes.get(&format!("{of}.address"))?.as_str()?.parse().ok()?;
    let port = draft.attributes.get(&format!("{of}.port"))?.as_u64()?;
    Some(SocketAddr::new(ip, u16::try_from(port).ok()?))
}

/// `\xHH` back to bytes.
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

/// Gives a recorded action the verdict of the declaration as it is now.
pub(super) fn judge_again(draft: &mut Draft, declaration: Option<&Declaration>) {
    let Some(recorded) = Recorded::of(draft) else { return };
    let scope = declaration.and_then(|declaration| declaration.scope.as_deref());
    let judgement = recorded.ask(|action| judge_for(scope, action, recorded.errno));
    draft.verdict = judgement.verdict;
    draft.reason = judgement.reason;
}

/// The way to an entry's verdict, by the declarations as they are now. Says which values had been redacted.
pub(super) fn explain(entry: &Entry, declaration: Option<&Declaration>) -> Explanation {
    let mut explanation = explain_what_is_left(&entry.draft, declaration);
    if !entry.draft.redacted.is_empty() {
        let names = entry.draft.redacted.join(", ");
        explanation.tried.push(format!(
            "{names}: the value was redacted; the verdict was on what it had been, this is on what is left of it"
        ));
    }
    explanation
}

fn explain_what_is_left(draft: &Draft, declaration: Option<&Declaration>) -> Explanation {
    let attribution = draft.attribution.map(|attribution| vec![attributed(draft, attribution)]).unwrap_or_default();
    let Some(recorded) = Recorded::of(draft) else {
        let tried = vec![format!("{} is recorded, and judged by no grant", draft.event)];
        return Explanation { attribution, tried, would_allow: Vec::new() };
    };
    let Some(scope) = declaration.and_then(|declaration| declaration.scope.as_deref()) else {
        let agent = draft.agent.as_deref().unwrap_or("nobody");
        let tried = vec![format!("'{agent}' declares no [scope], so nothing that it does is judged")];
        return Explanation { attribution, tried, would_allow: Vec::new() };
    };
    let explained = recorded.ask(|action| scope.explain(action));
    let mut tried: Vec<String> = explained
        .tried
        .iter()
        .map(|tried| {
            let outcome = if tried.covers { "covers it" } else { "does not cover it" };
            format!("{} \"{}\" ({}): {outcome}", tried.list, tried.text, tried.origin)
        })
        .collect();
    if recorded.errno.is_some() && draft.verdict == Verdict::None {
        tried.push("it failed for want of the file, and no deny matches: such searches are not judged".to_owned());
    }
    // By what is left of a value nobody can tell what it would be now, or what would allow it.
    let redacted = is_judged_by_redacted(draft);
    if explained.judgement.verdict != draft.verdict && recorded.errno.is_none() && !redacted {
        let now = explained.judgement.verdict.as_str();
        tried.push(format!("the declarations have changed since: as they are now it would be {now}"));
    }
    let would_allow = explained.would_allow.into_iter().filter(|_| !redacted).collect();
    Explanation { attribution, tried, would_allow }
}

/// Whether an attribute by which an action is judged had a secret in it.
fn is_judged_by_redacted(draft: &Draft) -> bool {
    let judged_by = |name: &str| {
        matches!(
            name,
            "file.path"
                | "bailiwick.file.new_path"
                | "process.executable.path"
                | "bailiwick.exec.script"
                | "bailiwick.unix.path"
                | "bailiwick.unix.abstract"
        )
    };
    draft.redacted.iter().any(|name| judged_by(name))
}

fn attributed(draft: &Draft, attribution: Attribution) -> String {
    use crate::entry::Method;
    let agent = draft.agent.as_deref().unwrap_or("nobody");
    let how = match attribution.method {
        Method::Run => "it is the process that `bailiwick run` started",
        Method::Executable => "its executable is one that the declaration names",
        Method::Script => "it runs the script that the declaration names",
        Method::Argv => "its command line is one that the declaration describes",
        Method::Environment => "its environment carries the marker that the declaration names",
        Method::User => "it runs as the user that the declaration names",
        Method::Cgroup => "it runs in the control group that the declaration names",
        Method::Unit => "it runs in the unit that the declaration names",
        Method::Inherited => "it descends from the first process of the session, by the kernel's own account",
    };
    format!("'{agent}', since {how}")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

    use super::{Recorded, What, explain, unescape};
    use crate::config::Config;
    use crate::daemon::drafts::readable;
    use crate::entry::{Draft, Entry, Timestamp, Verdict};
    use crate::redact::{RedactSettings, Redactor};

    #[test]
    fn escaped_bytes_come_back_as_they_were() {
        let bytes = b"/tmp/\xff\\x41\xc3";
        assert_eq!(unescape(&readable(bytes).0), bytes);
    }

    #[test]
    fn an_explanation_says_that_the_value_was_redacted_and_proposes_no_grant_for_what_is_left() {
        let config = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(config.path().join("agents.d")).unwrap();
        let declaration =
            "[agent]\nname = \"shop\"\nowner = \"o\"\npurpose = \"p\"\n[scope.files]\nread = [\"/srv/**\"]\n";
        std::fs::write(config.path().join("agents.d/shop.toml"), declaration).unwrap();
        let config = Config::load(Some(config.path())).unwrap();
        let mut draft = Draft::of_host(Timestamp(0), "file.open");
        draft.agent = Some("shop".to_owned());
        draft.verdict = Verdict::OutOfScope;
        draft.attributes.insert("file.path".to_owned(), "/tmp/ghp_16C7e42F292c6912E7710c838347Ae178B4a".into());
        draft.attributes.insert("bailiwick.file.access".to_owned(), "r".into());
        Redactor::new(RedactSettings::default()).unwrap().redact(&mut draft);
        let explanation =
            explain(&Entry { uid: String::new(), seq: 1, draft, chain: String::new() }, config.declaration("shop"));
        let said = explanation.tried.iter().any(|tried| tried.starts_with("file.path: the value was redacted"));
        assert!(said && explanation.would_allow.is_empty(), "{explanation:?}");
    }

    #[test]
    fn a_recorded_open_is_the_action_that_was_judged() {
        let mut draft = Draft::of_host(Timestamp(0), "file.open");
        draft.attributes.insert("file.path".to_owned(), "/srv/x".into());
        draft.attributes.insert("bailiwick.file.access".to_owned(), "rw".into());
        draft.attributes.insert("error.type".to_owned(), "ENOENT".into());
        let recorded = Recorded::of(&draft).unwrap();
        let What::File { path, access, .. } = recorded.what else { panic!("no file") };
        assert_eq!(
            (path.as_slice(), access, recorded.errno),
            (b"/srv/x".as_slice(), super::Access::ReadWrite, Some(2))
        );
    }
}
