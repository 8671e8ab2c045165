//! Scopes: what an agent may do, compiled once, and the verdict on each action.
//!
//! Input: the parsed rules of a declaration and of the grant sets it includes, then actions with bytes as the kernel gave
//! them. Output: a [`Judgement`]: the verdict, the grant or rule that decided, and what that cost. Judging is pure, and
//! costs the same with ten grants or a hundred thousand. What is not granted is out of scope; a deny beats every grant.
//! Refuses to read files or to resolve anything: symlinks are resolved by whoever parses the rules, at load.
//!
//! - [`pattern`], [`glob`] and [`network`]: what grants are written in
//! - [`trie`]: which path grant covers a path
//! - [`effective`]: an agent's scope within those of the agents that it acts for
//! - [`explain`]: why a verdict is what it is, and what would change it
//! - [`path_index`]: what else stands for paths by patterns than grants
//! - `rests`: which grants an action rests on
//! - [`recorded`]: the same for actions as the trail has them

pub mod effective;
pub mod explain;
pub mod glob;
pub mod grant;
pub mod network;
pub mod path_index;
pub mod pattern;
pub mod recorded;
mod rests;
pub mod trie;

#[cfg(test)]
mod tests;

use std::borrow::Cow;
use std::collections::HashMap;
use std::net::SocketAddr;

use crate::entry::{Reason, ReasonKind, Verdict};
use grant::{NetworkRule, Origin, PathRule, Rules};
use network::NetworkTable;
use trie::{PathTrie, TooManyIrregular};

/// How a file is accessed, as `bailiwick.file.access` says it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Access {
    /// `r`: opened for reading.
    Read,
    /// `w`: opened for writing, or created.
    Write,
    /// `rw`: both; needs both granted.
    ReadWrite,
    /// `path`: opened as a place only (`O_PATH`). Judged as reading.
    Path,
    /// `x`: opened to be executed. Judged as an exec.
    Exec,
}

/// A path as it was seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SeenPath<'a> {
    /// The bytes.
    pub bytes: &'a [u8],
    /// Whether some of them were cut: such a path matches no grant.
    pub cut: bool,
}

impl<'a> SeenPath<'a> {
    /// A path of which nothing was cut.
    pub fn whole(bytes: &'a [u8]) -> Self {
        Self { bytes, cut: false }
    }
}

/// What a scope judges.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action<'a> {
    /// A file is opened or created.
    File {
        /// The file.
        path: SeenPath<'a>,
        /// How.
        access: Access,
    },
    /// A program is executed.
    Exec {
        /// The image: for a `#!` script its interpreter.
        path: SeenPath<'a>,
        /// The `#!` script, where it is one. Then the script is what a grant must cover.
        script: Option<SeenPath<'a>>,
    },
    /// A file is changed by its names, all of which count: both of a rename, say.
    Files {
        /// The names.
        paths: &'a [SeenPath<'a>],
        /// How.
        access: Access,
    },
    /// A connection is opened, or something is sent.
    Connect {
        /// To where.
        address: SocketAddr,
    },
    /// A socket takes an address of its own, or waits for connections there.
    Listen {
        /// The address.
        address: SocketAddr,
    },
    /// A Unix socket is connected to.
    Unix {
        /// Which.
        address: UnixAddress<'a>,
    },
    /// A privilege is used.
    Privilege {
        /// Which of [`grant::PRIVILEGES`].
        name: &'a str,
    },
}

/// What a Unix socket is known by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UnixAddress<'a> {
    /// A path.
    Path(SeenPath<'a>),
    /// An abstract name, without what marks it as one.
    Abstract(&'a [u8]),
}

/// A verdict, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Judgement {
    /// What the scope says.
    pub verdict: Verdict,
    /// What decided; none where the verdict is none.
    pub reason: Option<Reason>,
    /// How many look-ups and comparisons that took.
    pub operations: u32,
}

/// One grant or deny of a compiled scope.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Grant {
    pub(crate) rule: GrantRule,
    pub(crate) origin: Origin,
}

/// What a grant says, by the list it stands in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum GrantRule {
    Path { list: PathList, rule: PathRule },
    Connect(network::NetworkPattern),
    Listen(network::NetworkPattern),
    Privilege(String),
}

/// The lists of path rules.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PathList {
    Read,
    Write,
    Deny,
    Exec,
    ExecDeny,
    Unix,
    UnixAbstract,
}

impl PathList {
    pub(crate) const ALL: [Self; 7] =
        [Self::Read, Self::Write, Self::Deny, Self::Exec, Self::ExecDeny, Self::Unix, Self::UnixAbstract];

    /// The section and key that the list is declared under.
    pub(crate) fn declared_as(self) -> (&'static str, &'static str) {
        match self {
            Self::Read => ("[scope.files]", "read"),
            Self::Write => ("[scope.files]", "write"),
            Self::Deny => ("[scope.files]", "deny"),
            Self::Exec => ("[scope.exec]", "allow"),
            Self::ExecDeny => ("[scope.exec]", "deny"),
            Self::Unix | Self::UnixAbstract => ("[scope.unix]", "connect"),
        }
    }

    /// The event's name that a missing grant is named with.
    fn grants(self) -> &'static str {
        match self {
            Self::Read => "file.read",
            Self::Write => "file.write",
            Self::Exec | Self::ExecDeny => "process.exec",
            Self::Deny => "file",
            Self::Unix | Self::UnixAbstract => "unix.connect",
        }
    }
}

impl Grant {
    /// The pattern as declared.
    pub(crate) fn text(&self) -> Cow<'_, str> {
        match &self.rule {
            GrantRule::Path { list: PathList::UnixAbstract, rule } => {
                Cow::Owned(format!("@{}", rule.pattern.text().trim_start_matches('/')))
            }
            GrantRule::Path { rule, .. } => Cow::Borrowed(rule.pattern.text()),
            GrantRule::Connect(pattern) | GrantRule::Listen(pattern) => Cow::Borrowed(pattern.text()),
            GrantRule::Privilege(name) => Cow::Borrowed(name),
        }
    }

    /// How many bytes it begins alike with a path; none where not even the first component is the same.
    pub(crate) fn shared_beginning(&self, path: &[u8]) -> usize {
        match &self.rule {
            GrantRule::Path { rule, .. } => {
                let patterns = [Some(&rule.pattern), rule.resolved.as_ref()].into_iter().flatten();
                patterns.map(|pattern| explain::shared_path(pattern.text(), path)).max().unwrap_or(0)
            }
            GrantRule::Connect(_) | GrantRule::Listen(_) | GrantRule::Privilege(_) => 0,
        }
    }

    fn reason(&self, kind: ReasonKind) -> Reason {
        Reason {
            kind,
            text: self.text().into_owned(),
            file: Some(self.origin.file.to_string()),
            line: Some(self.origin.line),
            delegator: None,
        }
    }
}

/// A rule that cannot be compiled.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{origin}: `{text}` {error}")]
pub struct CompileError {
    /// Where the rule stands.
    pub origin: Origin,
    /// The rule as declared.
    pub text: String,
    /// What is wrong with it.
    #[source]
    pub error: TooManyIrregular,
}

/// A compiled scope.
#[derive(Debug, Default)]
pub struct Scope {
    pub(crate) grants: Vec<Grant>,
    /// How many of them are the declaration's own: they come first.
    pub(crate) own: usize,
    read: PathTrie,
    write: PathTrie,
    deny: PathTrie,
    exec: PathTrie,
    exec_deny: PathTrie,
    unix: PathTrie,
    unix_abstract: PathTrie,
    connect: NetworkTable,
    listen: NetworkTable,
    privileges: HashMap<String, u32>,
}

impl Scope {
    /// Compiles rules: the declaration's own first, then those of the sets it includes, so that of equal grants and of
    /// equally near ones the declaration's own is named.
    pub fn compile<'a>(parts: impl IntoIterator<Item = &'a Rules>) -> Result<Self, Vec<CompileError>> {
        let mut scope = Self::default();
        let mut errors = Vec::new();
        for (part, rules) in parts.into_iter().enumerate() {
            for list in PathList::ALL {
                let of_list = match list {
                    PathList::Read => &rules.read,
                    PathList::Write => &rules.write,
                    PathList::Deny => &rules.deny,
                    PathList::Exec => &rules.exec,
                    PathList::ExecDeny => &rules.exec_deny,
                    PathList::Unix => &rules.unix,
                    PathList::UnixAbstract => &rules.unix_abstract,
                };
                errors.extend(of_list.iter().filter_map(|rule| scope.add_path(list, rule).err()));
            }
            rules.connect.iter().for_each(|rule| scope.add_connect(rule));
            rules.listen.iter().for_each(|rule| scope.add_listen(rule));
            for rule in &rules.privileges {
                let number = scope.add(GrantRule::Privilege(rule.name.clone()), &rule.origin);
                scope.privileges.entry(rule.name.clone()).or_insert(number);
            }
            if part == 0 {
                scope.own = scope.grants.len();
            }
        }
        if errors.is_empty() { Ok(scope) } else { Err(errors) }
    }

    /// The files that are denied by their full names, and the rules that do.
    pub fn literal_denies(&self) -> impl Iterator<Item = (String, Reason)> {
        self.grants.iter().filter_map(|grant| match &grant.rule {
            GrantRule::Path { list: PathList::Deny, rule } if rule.pattern.after_literal_prefix().is_empty() => {
                Some((rule.pattern.literal_prefix(), grant.reason(ReasonKind::Rule)))
            }
            _ => None,
        })
    }

    /// Judges an action that succeeded.
    pub fn judge(&self, action: &Action<'_>) -> Judgement {
        let mut operations = 0;
        let decided = match action {
            Action::File { path, access } => self.judge_file(*path, *access, &mut operations),
            Action::Exec { path, script } => self.judge_exec(*path, *script, &mut operations),
            Action::Files { paths, access } => self.judge_files(paths, *access, &mut operations),
            Action::Connect { address } => {
                self.judge_address(&self.connect, *address, "network.connect", &mut operations)
            }
            Action::Listen { address } => self.judge_address(&self.listen, *address, "network.listen", &mut operations),
            Action::Unix { address } => self.judge_unix(*address, &mut operations),
            Action::Privilege { name } => self.judge_privilege(name, &mut operations),
        };
        decided.into_judgement(operations)
    }

    /// Judges an action that failed with `errno`. It is judged alike, but one that found nothing there (`ENOENT`,
    /// `ENOTDIR`: a search along a path) has no verdict unless a deny covers it.
    pub fn judge_failed(&self, action: &Action<'_>, errno: i32) -> Judgement {
        let judgement = self.judge(action);
        let denied = judgement.reason.as_ref().is_some_and(|reason| reason.kind == ReasonKind::Rule);
        if matches!(errno, libc::ENOENT | libc::ENOTDIR) && !denied {
            return Judgement { verdict: Verdict::None, reason: None, operations: judgement.operations };
        }
        judgement
    }

    /// The verdict of a rule that denies a path, where there is one.
    pub fn denial_of(&self, path: &[u8]) -> Option<Judgement> {
        let mut operations = 0;
        let denied = self.denied(PathList::Deny, SeenPath::whole(path), &mut operations)?;
        Some(denied.into_judgement(operations))
    }

    fn judge_file(&self, path: SeenPath<'_>, access: Access, operations: &mut u32) -> Decided {
        if is_nameless(path.bytes) {
            return Decided::NotJudged;
        }
        let lists: &[PathList] = match access {
            Access::Read | Access::Path => &[PathList::Read],
            Access::Write => &[PathList::Write],
            Access::ReadWrite => &[PathList::Read, PathList::Write],
            Access::Exec => return self.judge_exec(path, None, operations),
        };
        if let Some(denied) = self.denied(PathList::Deny, path, operations) {
            return denied;
        }
        let mut decided = Decided::NotJudged;
        for list in lists {
            decided = self.granted(*list, path, operations);
            if matches!(decided, Decided::Outside(_)) {
                break;
            }
        }
        decided
    }

    fn judge_exec(&self, image: SeenPath<'_>, script: Option<SeenPath<'_>>, operations: &mut u32) -> Decided {
        for path in script.iter().chain([&image]) {
            for list in [PathList::ExecDeny, PathList::Deny] {
                if let Some(denied) = self.denied(list, *path, operations) {
                    return denied;
                }
            }
        }
        self.granted(PathList::Exec, script.unwrap_or(image), operations)
    }

    /// All the names count: a deny on any, or one that nothing grants, decides.
    fn judge_files(&self, paths: &[SeenPath<'_>], access: Access, operations: &mut u32) -> Decided {
        let mut decided = Decided::NotJudged;
        for path in paths {
            match self.judge_file(*path, access, operations) {
                Decided::Outside(reason) if reason.kind == ReasonKind::Rule => return Decided::Outside(reason),
                outside @ Decided::Outside(_) if !matches!(decided, Decided::Outside(_)) => decided = outside,
                inside @ Decided::Inside(_) if matches!(decided, Decided::NotJudged) => decided = inside,
                Decided::Outside(_) | Decided::Inside(_) | Decided::NotJudged => {}
            }
        }
        decided
    }

    fn judge_address(&self, table: &NetworkTable, address: SocketAddr, what: &str, operations: &mut u32) -> Decided {
        match table.find(address, operations).and_then(|grant| self.grant(grant)) {
            Some(grant) => Decided::Inside(grant.reason(ReasonKind::Grant)),
            None => {
                let near = table.nearest(address, operations);
                Decided::Outside(self.nearest_reason(&near, what))
            }
        }
    }

    fn judge_unix(&self, address: UnixAddress<'_>, operations: &mut u32) -> Decided {
        match address {
            UnixAddress::Path(path) => match self.denied(PathList::Deny, path, operations) {
                Some(denied) => denied,
                None => self.granted(PathList::Unix, path, operations),
            },
            UnixAddress::Abstract(name) => {
                let path = abstract_path(name);
                self.granted(PathList::UnixAbstract, SeenPath::whole(&path), operations)
            }
        }
    }

    fn judge_privilege(&self, name: &str, operations: &mut u32) -> Decided {
        *operations += 1;
        match self.privileges.get(name).and_then(|grant| self.grant(*grant)) {
            Some(grant) => Decided::Inside(grant.reason(ReasonKind::Grant)),
            None => Decided::Outside(words(ReasonKind::Nearest, &format!("no grant for {}", privilege_event(name)))),
        }
    }

    fn denied(&self, list: PathList, path: SeenPath<'_>, operations: &mut u32) -> Option<Decided> {
        let rule = self.trie(list).find(path.bytes, operations).and_then(|grant| self.grant(grant))?;
        Some(Decided::Outside(rule.reason(ReasonKind::Rule)))
    }

    fn granted(&self, list: PathList, path: SeenPath<'_>, operations: &mut u32) -> Decided {
        if path.cut {
            return Decided::Outside(words(
                ReasonKind::Nearest,
                "the path was cut, and a path that was cut matches no grant",
            ));
        }
        let trie = self.trie(list);
        if let Some(grant) = trie.find(path.bytes, operations).and_then(|grant| self.grant(grant)) {
            return Decided::Inside(grant.reason(ReasonKind::Grant));
        }
        let candidates = trie.nearest(path.bytes, operations);
        let near = self.nearest_first(&candidates, path.bytes);
        if near.is_empty() && !candidates.is_empty() {
            return Decided::Outside(words(ReasonKind::Nearest, &format!("no grant for {} is near", list.grants())));
        }
        Decided::Outside(self.nearest_reason(&near, list.grants()))
    }

    /// The few of these grants that are worth naming: the declaration's own where there are some, since those are the lines
    /// that its author knows and would change; those with the longest beginning in common with the path first. One with
    /// nothing in common is named only if it is the declaration's own, and none has.
    fn nearest_first(&self, near: &[u32], path: &[u8]) -> Vec<u32> {
        let shared = |number: u32| self.grant(number).map_or(0, |grant| grant.shared_beginning(path));
        let mut ranked: Vec<(usize, u32)> = near.iter().map(|number| (shared(*number), *number)).collect();
        let has_own = ranked.iter().any(|(_, number)| self.is_own(*number as usize));
        if has_own {
            ranked.retain(|(_, number)| self.is_own(*number as usize));
        }
        ranked.sort_by_key(|(shared, _)| std::cmp::Reverse(*shared));
        if !has_own || ranked.first().is_some_and(|(shared, _)| *shared > 0) {
            ranked.retain(|(shared, _)| *shared > 0);
        }
        ranked.into_iter().take(trie::NEAREST).map(|(_, number)| number).collect()
    }

    /// Whether the declaration itself has it, and not a set that it includes.
    pub(crate) fn is_own(&self, grant: usize) -> bool {
        grant < self.own
    }

    fn nearest_reason(&self, near: &[u32], what: &str) -> Reason {
        let texts: Vec<_> = near.iter().filter_map(|grant| self.grant(*grant)).map(Grant::text).collect();
        if texts.is_empty() {
            return words(ReasonKind::Nearest, &format!("no grant for {what}"));
        }
        words(ReasonKind::Nearest, &texts.join(", "))
    }

    pub(crate) fn trie(&self, list: PathList) -> &PathTrie {
        match list {
            PathList::Read => &self.read,
            PathList::Write => &self.write,
            PathList::Deny => &self.deny,
            PathList::Exec => &self.exec,
            PathList::ExecDeny => &self.exec_deny,
            PathList::Unix => &self.unix,
            PathList::UnixAbstract => &self.unix_abstract,
        }
    }

    fn grant(&self, grant: u32) -> Option<&Grant> {
        self.grants.get(grant as usize)
    }

    fn add_path(&mut self, list: PathList, rule: &PathRule) -> Result<(), CompileError> {
        let number = u32::try_from(self.grants.len()).unwrap_or(u32::MAX);
        let trie = match list {
            PathList::Read => &mut self.read,
            PathList::Write => &mut self.write,
            PathList::Deny => &mut self.deny,
            PathList::Exec => &mut self.exec,
            PathList::ExecDeny => &mut self.exec_deny,
            PathList::Unix => &mut self.unix,
            PathList::UnixAbstract => &mut self.unix_abstract,
        };
        for pattern in [Some(&rule.pattern), rule.resolved.as_ref()].into_iter().flatten() {
            trie.insert(pattern, number).map_err(|error| CompileError {
                origin: rule.origin.clone(),
                text: rule.pattern.text().to_owned(),
                error,
            })?;
        }
        self.grants.push(Grant { rule: GrantRule::Path { list, rule: rule.clone() }, origin: rule.origin.clone() });
        Ok(())
    }

    fn add_connect(&mut self, rule: &NetworkRule) {
        let number = self.add(GrantRule::Connect(rule.pattern.clone()), &rule.origin);
        self.connect.insert(&rule.pattern, number);
    }

    fn add_listen(&mut self, rule: &NetworkRule) {
        let number = self.add(GrantRule::Listen(rule.pattern.clone()), &rule.origin);
        self.listen.insert(&rule.pattern, number);
    }

    /// Keeps a grant, and returns its number.
    fn add(&mut self, rule: GrantRule, origin: &Origin) -> u32 {
        let number = u32::try_from(self.grants.len()).unwrap_or(u32::MAX);
        self.grants.push(Grant { rule, origin: origin.clone() });
        number
    }
}

/// An abstract name as the patterns for such names see it.
pub(crate) fn abstract_path(name: &[u8]) -> Vec<u8> {
    [b"/", name].concat()
}

/// The event that tells of the use of a privilege.
pub(crate) fn privilege_event(name: &str) -> String {
    match name {
        "mount" => "file.mount".to_owned(),
        "raw" => "network.raw".to_owned(),
        name => format!("privilege.{name}"),
    }
}

/// A verdict before its cost is known.
enum Decided {
    Inside(Reason),
    Outside(Reason),
    NotJudged,
}

impl Decided {
    fn into_judgement(self, operations: u32) -> Judgement {
        let (verdict, reason) = match self {
            Self::Inside(reason) => (Verdict::InScope, Some(reason)),
            Self::Outside(reason) => (Verdict::OutOfScope, Some(reason)),
            Self::NotJudged => (Verdict::None, None),
        };
        Judgement { verdict, reason, operations }
    }
}

fn words(kind: ReasonKind, text: &str) -> Reason {
    Reason { kind, text: text.to_owned(), file: None, line: None, delegator: None }
}

/// Whether the kernel's name for a file is that of a pipe, a socket or the like, reopened through `/proc/PID/fd` or
/// `/dev/stderr`: no file that a grant could name, and nothing that the process did not hold already.
pub(crate) fn is_nameless(path: &[u8]) -> bool {
    [&b"pipe:["[..], b"socket:[", b"anon_inode:"].iter().any(|start| path.starts_with(start))
}

/// Judges for an agent: one without a `[scope]` has no verdict, and is shown as unscoped.
pub fn judge_for(scope: Option<&Scope>, action: &Action<'_>, errno: Option<i32>) -> Judgement {
    match (scope, errno) {
        (None, _) => Judgement { verdict: Verdict::None, reason: None, operations: 0 },
        (Some(scope), None) => scope.judge(action),
        (Some(scope), Some(errno)) => scope.judge_failed(action, errno),
    }
}
