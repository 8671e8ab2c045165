//! Why a verdict is what it is: the grants that were tried, the one that decided, and the line that would have allowed it.
//!
//! Input: a compiled scope and an action. Output: an [`Explanation`], which prints as a few lines of text. This walks all
//! grants, so it is for a person who asks, never for the way of an action. Strings of actions are escaped when printed.

use std::borrow::Cow;
use std::fmt;
use std::net::SocketAddr;

use super::grant::Origin;
use super::{Access, Action, GrantRule, Judgement, PathList, Scope, SeenPath, UnixAddress, abstract_path};
use crate::entry::{ReasonKind, Verdict};

/// The most grants that an explanation lists.
pub const MAX_TRIED: usize = 20;

/// A grant or deny that was looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tried {
    /// The list it stands in: `read`, `write`, `deny`, `allow`, `connect`.
    pub list: &'static str,
    /// The pattern as declared.
    pub text: String,
    /// What it also stands for, where its beginning is a symlink.
    pub resolved: Option<String>,
    /// Where it stands.
    pub origin: Origin,
    /// Whether it covers the action.
    pub covers: bool,
}

/// Why a verdict is what it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Explanation {
    /// What was judged, in words.
    pub action: String,
    /// The verdict and its reason.
    pub judgement: Judgement,
    /// The grants and denies that cover the action or come near: those that cover it first, then the declaration's own, and
    /// of each those that share most with it; at most [`MAX_TRIED`].
    pub tried: Vec<Tried>,
    /// What to add or remove for the action to be in scope; none where it is.
    pub would_allow: Option<String>,
}

impl Scope {
    /// Explains the verdict on an action.
    pub fn explain(&self, action: &Action<'_>) -> Explanation {
        let judgement = self.judge(action);
        let would_allow = match judgement.verdict {
            Verdict::OutOfScope | Verdict::Denied => Some(self.remedy(action, &judgement)),
            Verdict::InScope | Verdict::None => None,
        };
        Explanation { action: describe(action), tried: self.tried(action), judgement, would_allow }
    }

    fn tried(&self, action: &Action<'_>) -> Vec<Tried> {
        let mut near: Vec<(bool, usize, Tried)> = Vec::new();
        for (number, grant) in self.grants.iter().enumerate() {
            let (list, covers, shared, resolved) = match (&grant.rule, action) {
                (GrantRule::Connect(pattern), Action::Connect { address }) => {
                    let shared = shared_address(pattern.text(), *address);
                    ("connect", pattern.matches(*address), shared, None)
                }
                (GrantRule::Listen(pattern), Action::Listen { address }) => {
                    let shared = shared_address(pattern.text(), *address);
                    ("listen", pattern.matches(*address), shared, None)
                }
                (GrantRule::Privilege(granted), Action::Privilege { name }) => ("allow", granted == name, 1, None),
                (GrantRule::Path { list, rule }, _) => {
                    let patterns = [Some(&rule.pattern), rule.resolved.as_ref()];
                    let paths = paths_judged(action, *list);
                    let pairs =
                        || patterns.iter().flatten().flat_map(|pattern| paths.iter().map(move |path| (pattern, path)));
                    let covers = pairs().any(|(pattern, path)| pattern.matches(path));
                    let shared = paths.iter().map(|path| grant.shared_beginning(path)).max().unwrap_or(0);
                    let resolved = rule.resolved.as_ref().map(|pattern| pattern.text().to_owned());
                    if paths.is_empty() {
                        continue;
                    }
                    (list.declared_as().1, covers, shared, resolved)
                }
                (GrantRule::Connect(_) | GrantRule::Listen(_) | GrantRule::Privilege(_), _) => continue,
            };
            if covers || shared > 0 {
                let text = grant.text().into_owned();
                near.push((
                    self.is_own(number),
                    shared,
                    Tried { list, text, resolved, origin: grant.origin.clone(), covers },
                ));
            }
        }
        near.sort_by_key(|(own, shared, tried)| (!tried.covers, !own, std::cmp::Reverse(*shared)));
        near.into_iter().take(MAX_TRIED).map(|(_, _, tried)| tried).collect()
    }

    /// What would put an action in scope.
    fn remedy(&self, action: &Action<'_>, judgement: &Judgement) -> String {
        if let Some(reason) = judgement.reason.as_ref().filter(|reason| reason.kind == ReasonKind::Rule) {
            let place = match (&reason.file, reason.line) {
                (Some(file), Some(line)) => format!(" at {file}:{line}"),
                (Some(_) | None, _) => String::new(),
            };
            return format!("no grant can: a deny beats every grant; only taking `{}`{place} away would", reason.text);
        }
        match action {
            Action::Connect { address } => format!("connect = [\"{}\"] in [scope.network]", unmapped(*address)),
            Action::Listen { address } => format!("listen = [\"{}\"] in [scope.network]", unmapped(*address)),
            Action::Privilege { name } => format!("allow = [\"{name}\"] in [scope.privileges]"),
            Action::Unix { address: UnixAddress::Path(path) } => path_remedy(PathList::Unix, *path),
            Action::Unix { address: UnixAddress::Abstract(name) } => {
                format!("connect = [\"@{}\"] in [scope.unix]", exact_pattern(name))
            }
            Action::Files { paths, .. } => {
                let missing = paths.iter().filter(|path| self.write.find(path.bytes, &mut 0).is_none());
                missing.map(|path| path_remedy(PathList::Write, *path)).collect::<Vec<_>>().join(" and ")
            }
            Action::Exec { path, script } => path_remedy(PathList::Exec, script.unwrap_or(*path)),
            Action::File { path, access } => match access {
                Access::Exec => path_remedy(PathList::Exec, *path),
                Access::Read | Access::Path => path_remedy(PathList::Read, *path),
                Access::Write => path_remedy(PathList::Write, *path),
                Access::ReadWrite => {
                    let missing = [PathList::Read, PathList::Write]
                        .into_iter()
                        .filter(|list| self.trie(*list).find(path.bytes, &mut 0).is_none());
                    missing.map(|list| path_remedy(list, *path)).collect::<Vec<_>>().join(" and ")
                }
            },
        }
    }
}

/// The paths of an action that a list of rules is asked about.
fn paths_judged<'a>(action: &Action<'a>, list: PathList) -> Vec<Cow<'a, [u8]>> {
    match action {
        Action::Connect { .. } | Action::Listen { .. } | Action::Privilege { .. } => Vec::new(),
        Action::Unix { address: UnixAddress::Path(path) } => match list {
            PathList::Unix | PathList::Deny => vec![path.bytes.into()],
            _ => Vec::new(),
        },
        Action::Unix { address: UnixAddress::Abstract(name) } => match list {
            PathList::UnixAbstract => vec![abstract_path(name).into()],
            _ => Vec::new(),
        },
        Action::Files { paths, .. } => match list {
            PathList::Write | PathList::Deny => paths.iter().map(|path| path.bytes.into()).collect(),
            _ => Vec::new(),
        },
        Action::Exec { path, script } => match list {
            PathList::Exec => vec![script.unwrap_or(*path).bytes.into()],
            PathList::ExecDeny | PathList::Deny => script.iter().chain([path]).map(|seen| seen.bytes.into()).collect(),
            PathList::Read | PathList::Write | PathList::Unix | PathList::UnixAbstract => Vec::new(),
        },
        Action::File { path, access } => {
            let asked = match list {
                PathList::Read => matches!(access, Access::Read | Access::ReadWrite | Access::Path),
                PathList::Write => matches!(access, Access::Write | Access::ReadWrite),
                PathList::Exec | PathList::ExecDeny => *access == Access::Exec,
                PathList::Deny => true,
                PathList::Unix | PathList::UnixAbstract => false,
            };
            if asked { vec![path.bytes.into()] } else { Vec::new() }
        }
    }
}

fn shared_bytes(pattern: &[u8], path: &[u8]) -> usize {
    pattern.iter().zip(path).take_while(|(ours, theirs)| ours == theirs).count()
}

/// How many bytes a pattern and a path begin with alike; none where not even the first component is the same.
pub(super) fn shared_path(pattern: &str, path: &[u8]) -> usize {
    let first = |bytes: &[u8]| bytes.iter().skip(1).position(|byte| *byte == b'/').map_or(bytes.len(), |end| end + 1);
    let (pattern, shared) = (pattern.as_bytes(), shared_bytes(pattern.as_bytes(), path));
    if shared >= first(pattern).max(first(path)) { shared } else { 0 }
}

/// How many bytes a network pattern and the address as written begin with alike. Never none: every network grant is near.
fn shared_address(pattern: &str, address: SocketAddr) -> usize {
    1 + shared_bytes(pattern.as_bytes(), unmapped(address).to_string().as_bytes())
}

/// The address as it is judged: an IPv4-mapped one as IPv4.
fn unmapped(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

fn path_remedy(list: PathList, path: SeenPath<'_>) -> String {
    let (section, key) = list.declared_as();
    if path.cut {
        return format!("`{key}` in {section} cannot name a path that was cut; nothing would");
    }
    if path.bytes.first() != Some(&b'/') {
        return format!("`{key}` in {section} can name it only by a pattern that begins with `**/`");
    }
    format!("{key} = [\"{}\"] in {section}", exact_pattern(path.bytes))
}

/// The pattern that covers exactly this path; a byte that is no UTF-8, or a control character, becomes `?`. Escaped as
/// TOML wants it.
fn exact_pattern(path: &[u8]) -> String {
    let mut pattern = String::new();
    for chunk in path.utf8_chunks() {
        for character in chunk.valid().chars() {
            match character {
                '*' | '?' | '[' => pattern.extend(['[', character, ']']),
                '"' | '\\' => pattern.extend(['\\', character]),
                control if control.is_control() => pattern.push('?'),
                plain => pattern.push(plain),
            }
        }
        pattern.extend(chunk.invalid().iter().map(|_| '?'));
    }
    pattern
}

/// An action in words.
pub(crate) fn describe(action: &Action<'_>) -> String {
    match action {
        Action::File { path, access } => {
            let verb = match access {
                Access::Read => "read",
                Access::Write => "write",
                Access::ReadWrite => "read and write",
                Access::Path => "open as a path",
                Access::Exec => "open to execute",
            };
            format!("{verb} {}", path.bytes.escape_ascii())
        }
        Action::Exec { path, script: None } => format!("execute {}", path.bytes.escape_ascii()),
        Action::Exec { path, script: Some(script) } => {
            format!("execute {} (by {})", script.bytes.escape_ascii(), path.bytes.escape_ascii())
        }
        Action::Files { paths, .. } => {
            let paths: Vec<String> = paths.iter().map(|path| path.bytes.escape_ascii().to_string()).collect();
            format!("change {}", paths.join(" and "))
        }
        Action::Connect { address } => format!("connect to {address}"),
        Action::Listen { address } => format!("listen at {address}"),
        Action::Unix { address: UnixAddress::Path(path) } => format!("connect to {}", path.bytes.escape_ascii()),
        Action::Unix { address: UnixAddress::Abstract(name) } => format!("connect to @{}", name.escape_ascii()),
        Action::Privilege { name } => format!("use the privilege {name}"),
    }
}

impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}: {}", self.action, self.judgement.verdict.as_str())?;
        if let Some(reason) = &self.judgement.reason {
            let kind = match reason.kind {
                ReasonKind::Grant => "granted by",
                ReasonKind::Rule => "denied by",
                ReasonKind::Nearest => "no grant covers it; nearest:",
            };
            write!(f, "  {kind} {}", reason.text)?;
            match (&reason.file, reason.line) {
                (Some(file), Some(line)) => writeln!(f, " ({file}:{line})")?,
                (Some(_) | None, _) => writeln!(f)?,
            }
        }
        for tried in &self.tried {
            let mark = if tried.covers { "covers it" } else { "does not cover it" };
            write!(f, "  tried {} \"{}\"", tried.list, tried.text)?;
            if let Some(resolved) = &tried.resolved {
                write!(f, " (that is {resolved})")?;
            }
            writeln!(f, ", {}:{}: {mark}", tried.origin.file, tried.origin.line)?;
        }
        match &self.would_allow {
            Some(line) => writeln!(f, "  would allow it: {line}"),
            None => Ok(()),
        }
    }
}
