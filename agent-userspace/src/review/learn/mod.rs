//! The narrow declaration that covers what was done.
//!
//! Input: the entries of sessions of one agent, and its present declaration. Output: a [`Learnt`] scope, at most
//! [`MAX_GRANTS`] grants of its own beside the grant sets that cover most, each with why and how often. What was judged out of
//! scope is left out unless it is asked for, and what a rule denied always is: no pattern covers it. Denies of the present
//! declaration stay. Pure. Refuses sessions of different agents.
//!
//! - `shape`: names that will be others the next time
//! - `tree`: many paths to few patterns
//! - `network`: addresses and ports likewise
//! - `sets`: which grant sets cover what was done
//! - `text`: the declaration as TOML

mod network;
mod sets;
mod shape;
mod text;
mod tree;
mod uses;

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, HashSet};

use serde_json::Value;

use self::network::Addresses;
use self::shape::{Known, shaped};
pub use self::text::Kept;
use self::text::SECRETS;
use self::tree::{Pattern, Tree};
use self::uses::Use;
use crate::config::{Config, Declaration};
use crate::entry::{Entry, ReasonKind, SessionId, Verdict};
use crate::scope::pattern::PathPattern;
use crate::scope::recorded::{Deed, Name, Recorded};
use crate::scope::{Access, PathList, Scope, abstract_path};

/// Grants of its own that a learnt declaration has at most.
pub const MAX_GRANTS: usize = 40;
/// Different paths that are kept apart; of more, each is only counted.
const MAX_PATHS: usize = 500_000;
/// What was left out that is told of one by one.
const LEFT_OUT_TOLD: usize = 50;

/// A list of a scope that paths stand in.
const LISTS: [PathList; 5] = [PathList::Read, PathList::Write, PathList::Exec, PathList::Unix, PathList::UnixAbstract];

/// What was done, so far.
#[derive(Debug, Default)]
pub struct Learner {
    /// Whether what no grant covered is learnt too.
    include_out_of_scope: bool,
    agent: Option<String>,
    sessions: BTreeSet<SessionId>,
    paths: BTreeMap<(usize, Vec<u8>), Done>,
    made: HashSet<Vec<u8>>,
    connected: Addresses,
    listened: Addresses,
    privileges: BTreeMap<&'static str, Use>,
    delegates: BTreeMap<String, u64>,
    outside: BTreeMap<usize, BTreeSet<Vec<u8>>>,
    left_out: Vec<String>,
    left_out_more: u64,
    ungrantable: BTreeMap<String, u64>,
    actions: u64,
    beyond: u64,
}

#[derive(Clone, Debug, Default)]
struct Done {
    uses: Use,
    is_redacted: bool,
}

/// The entries are of another agent than those before.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("session {session} is of the agent '{agent}', the ones before are of '{first}': learn of one agent at a time")]
pub struct AnotherAgent {
    session: SessionId,
    agent: String,
    first: String,
}

/// A learnt scope.
#[derive(Debug)]
pub struct Learnt {
    agent: String,
    sessions: BTreeSet<SessionId>,
    actions: u64,
    include: Vec<(String, Use)>,
    lists: Vec<(PathList, Vec<Pattern>)>,
    connect: Vec<Pattern>,
    listen: Vec<Pattern>,
    privileges: BTreeMap<&'static str, Use>,
    delegates: BTreeMap<String, u64>,
    left_out: Vec<String>,
    left_out_more: u64,
    ungrantable: BTreeMap<String, u64>,
    beyond: u64,
    /// Places of secrets that nothing was done at.
    secrets: Vec<&'static str>,
    /// What is not whole about the history that was learnt from.
    notes: Vec<String>,
    /// Everything that must be granted.
    needed: Vec<(PathList, Vec<u8>)>,
}

impl Learner {
    /// With `include_out_of_scope`, what no grant covered is learnt, too; what a rule denied never is.
    pub fn new(include_out_of_scope: bool) -> Self {
        Self { include_out_of_scope, ..Self::default() }
    }

    /// Adds an entry of a session that is learnt from, or of one that it delegated: then its delegates' actions count as its
    /// own, since they are judged by its scope as well.
    ///
    /// # Errors
    /// It is of another agent than those before.
    pub fn add(&mut self, entry: &Entry, is_delegates: bool) -> Result<(), AnotherAgent> {
        let draft = &entry.draft;
        let (Some(agent), Some(session)) = (&draft.agent, draft.session) else { return Ok(()) };
        if is_delegates {
            if draft.event == "delegation.start"
                && draft.delegation.last().is_some_and(|link| self.sessions.contains(&link.session))
            {
                *self.delegates.entry(agent.clone()).or_default() += 1;
            }
        } else {
            let first = self.agent.get_or_insert_with(|| agent.clone());
            if first != agent {
                return Err(AnotherAgent { session, agent: agent.clone(), first: first.clone() });
            }
            self.sessions.insert(session);
        }
        self.note_made(entry);
        let Some(recorded) = Recorded::of(draft) else { return Ok(()) };
        // A search that found nothing needs no grant.
        let denied = draft.reason.as_ref().is_some_and(|reason| reason.kind == ReasonKind::Rule);
        let is_out =
            matches!(draft.verdict, Verdict::OutOfScope | Verdict::Denied) && !is_granted_by_own(entry, is_delegates);
        if recorded.is_search() && !denied {
            return Ok(());
        }
        if is_out && (denied || !self.include_out_of_scope) {
            self.leave_out(entry, &recorded, denied);
            return Ok(());
        }
        self.learn(entry, &recorded);
        Ok(())
    }

    fn learn(&mut self, entry: &Entry, recorded: &Recorded) {
        let draft = &entry.draft;
        self.actions = self.actions.saturating_add(draft.count);
        let mut uses = Use { actions: draft.count, paths: 1, ..Use::default() };
        uses.failed = if recorded.failed() { draft.count } else { 0 };
        let program = draft.process.as_ref().and_then(|process| process.executable.as_deref());
        if let Some(name) = program.and_then(|path| path.rsplit('/').next()) {
            uses.by(name);
        }
        let is_redacted = !draft.redacted.is_empty();
        for (list, name) in places(recorded) {
            if name.cut || !name.bytes.starts_with(b"/") {
                self.cannot_be_granted(&name);
            } else {
                self.note(list, name.bytes, &uses, is_redacted);
            }
        }
        match &recorded.deed {
            Deed::Connect(address) => self.connected.add(*address, &uses),
            Deed::Listen(address) => self.listened.add(*address, &uses),
            Deed::Privilege(name) => self.privileges.entry(name).or_default().add(&uses),
            Deed::File { .. } | Deed::Exec { .. } | Deed::Names(_) | Deed::UnixPath(_) | Deed::UnixAbstract(_) => {}
        }
    }

    fn note(&mut self, list: PathList, path: Vec<u8>, uses: &Use, is_redacted: bool) {
        let key = (index(list), path);
        if self.paths.len() >= MAX_PATHS && !self.paths.contains_key(&key) {
            self.beyond += 1;
            return;
        }
        let done = self.paths.entry(key).or_default();
        let paths = done.uses.paths.max(uses.paths);
        done.uses.add(uses);
        done.uses.paths = paths;
        done.is_redacted |= is_redacted;
    }

    /// Pipes and sockets are not judged; what is left has no path from the root, or only a part of one.
    fn cannot_be_granted(&mut self, name: &Name) {
        if !name.cut && crate::scope::is_nameless(&name.bytes) {
            return;
        }
        let what = if name.cut { "a path that was cut" } else { "a path that does not begin with `/`" };
        *self.ungrantable.entry(what.to_owned()).or_default() += 1;
    }

    fn leave_out(&mut self, entry: &Entry, recorded: &Recorded, denied: bool) {
        for (list, name) in places(recorded) {
            self.outside.entry(index(list)).or_default().insert(name.bytes);
        }
        match &recorded.deed {
            Deed::Connect(address) => self.connected.leave_out(*address),
            Deed::Listen(address) => self.listened.leave_out(*address),
            _ => {}
        }
        if self.left_out.len() == LEFT_OUT_TOLD {
            self.left_out_more += 1;
            return;
        }
        let whose = entry.draft.reason.as_ref().and_then(|reason| reason.delegator.as_deref());
        let whose = whose.map_or_else(String::new, |delegator| format!(" of its delegator {delegator}"));
        let why = if denied { format!("a rule{whose} denies it") } else { format!("it was out of scope{whose}") };
        let what = recorded.ask(crate::scope::explain::describe);
        self.left_out.push(format!("{}: {what} ({why})", entry.uid));
    }

    /// What the session itself brings into being has a name that it chose.
    fn note_made(&mut self, entry: &Entry) {
        let draft = &entry.draft;
        if draft.attributes.contains_key("error.type") || self.made.len() >= MAX_PATHS {
            return;
        }
        let attribute = match draft.event.as_str() {
            "file.create" | "file.mkdir" | "file.symlink" => "file.path",
            "file.rename" | "file.link" => "bailiwick.file.new_path",
            _ => return,
        };
        if let Some(path) = draft.attributes.get(attribute).and_then(Value::as_str) {
            self.made.insert(path.as_bytes().to_vec());
        }
    }

    /// The sessions that were learnt from.
    pub fn sessions(&self) -> &BTreeSet<SessionId> {
        &self.sessions
    }

    /// The agent, where there was any entry.
    pub fn agent(&self) -> Option<&str> {
        self.agent.as_deref()
    }

    /// What the present declaration denies by now is left out.
    fn leave_out_denied(&mut self, present: Option<&Declaration>) {
        let Some(scope) = present.and_then(|present| present.scope.as_deref()) else { return };
        let denied: Vec<(usize, Vec<u8>)> =
            self.paths.keys().filter(|(_, path)| scope.denial_of(path).is_some()).cloned().collect();
        for (list, path) in denied {
            self.paths.remove(&(list, path.clone()));
            if self.left_out.len() < LEFT_OUT_TOLD {
                self.left_out.push(format!("{} (a rule denies it by now)", path.escape_ascii()));
            } else {
                self.left_out_more += 1;
            }
            self.outside.entry(list).or_default().insert(path);
        }
    }

    /// The places of secrets at which nothing was done.
    fn untouched_secrets(&self) -> Vec<&'static str> {
        let untouched = |secret: &&str| {
            let pattern = PathPattern::parse(secret).ok();
            pattern.is_some_and(|pattern| !self.paths.keys().any(|(_, path)| pattern.matches(path)))
        };
        SECRETS.into_iter().filter(untouched).collect()
    }

    /// The scope, with the grant sets of this configuration. `notes` say what is not whole about the history.
    pub fn finish(mut self, config: &Config, notes: Vec<String>) -> Learnt {
        let agent = self.agent.clone().unwrap_or_default();
        let present = config.declaration(&agent);
        self.leave_out_denied(present);
        let secrets = self.untouched_secrets();
        let of_list = |at: &usize| LISTS.get(*at).copied();
        let needed = self.paths.keys().filter_map(|(list, path)| Some((of_list(list)?, path.clone()))).collect();
        let include = sets::covering(config, present, &mut self.paths, &self.outside);
        let mut trees: Vec<Tree> = LISTS.iter().map(|list| self.tree(*list)).collect();
        trees.iter_mut().for_each(Tree::put_together);
        let (mut connect, mut listen) = (self.connected.patterns(), self.listened.patterns());
        let others = self.privileges.len();
        loop {
            let total = trees.iter().map(Tree::len).sum::<usize>() + connect.len() + listen.len() + others;
            if total <= MAX_GRANTS {
                break;
            }
            if connect.len() + listen.len() > MAX_GRANTS / 4 {
                let networks = (self.connected.widen(), self.listened.widen());
                (connect, listen) = (self.connected.patterns(), self.listened.patterns());
                if networks.0 || networks.1 {
                    continue;
                }
            }
            let far_too_many = total > 4 * MAX_GRANTS;
            // The list with most patterns gives way first.
            let mut order: Vec<usize> = (0..trees.len()).collect();
            order.sort_by_key(|at| std::cmp::Reverse(trees.get(*at).map_or(0, Tree::len)));
            let shrunk = order.into_iter().any(|at| trees.get_mut(at).is_some_and(|tree| tree.shrink(far_too_many)));
            if !shrunk {
                break;
            }
        }
        Learnt {
            agent,
            sessions: self.sessions,
            actions: self.actions,
            include,
            lists: LISTS.into_iter().zip(trees.iter().map(Tree::patterns)).collect(),
            connect,
            listen,
            privileges: self.privileges,
            delegates: self.delegates,
            left_out: self.left_out,
            left_out_more: self.left_out_more,
            ungrantable: self.ungrantable,
            beyond: self.beyond,
            secrets,
            notes,
            needed,
        }
    }

    fn tree(&self, list: PathList) -> Tree {
        let number = index(list);
        let mut tree = Tree::new(self.outside.get(&number).cloned().unwrap_or_default());
        let of_list = self.paths.range((number, Vec::new())..(number + 1, Vec::new()));
        for ((_, path), done) in of_list {
            let components: Vec<&[u8]> = path.split(|byte| *byte == b'/').filter(|part| !part.is_empty()).collect();
            let is_abstract = list == PathList::UnixAbstract;
            // The names of abstract sockets are always someone's choice.
            let made = |length: usize| is_abstract || self.made.contains(&joined(components.get(..length)));
            let known = Known { made: &made, is_program: list == PathList::Exec, is_redacted: done.is_redacted };
            let literal: String =
                components.iter().map(|component| format!("/{}", shape::literal(component))).collect();
            tree.add(&shaped(&components, &known), &literal, &done.uses);
        }
        tree
    }
}

impl Learnt {
    /// What was done and a scope does not grant: paths of which no pattern could be made.
    pub fn uncovered(&self, scope: &Scope) -> Vec<String> {
        let is_granted = |list: PathList, path: &[u8]| scope.trie(list).find(path, &mut 0).is_some();
        let missing = self.needed.iter().filter(|(list, path)| !is_granted(*list, path));
        missing.map(|(list, path)| format!("{}: {}", list.declared_as().1, path.escape_ascii())).collect()
    }
}

/// Whether only a delegator's scope lacks a grant: the agent's own is asked first, so that it has one.
fn is_granted_by_own(entry: &Entry, is_delegates: bool) -> bool {
    let reason = entry.draft.reason.as_ref().filter(|reason| reason.kind == ReasonKind::Nearest);
    !is_delegates && reason.is_some_and(|reason| reason.delegator.is_some())
}

fn joined(components: Option<&[&[u8]]>) -> Vec<u8> {
    let mut path = Vec::new();
    for component in components.unwrap_or_default() {
        path.push(b'/');
        path.extend_from_slice(component);
    }
    path
}

fn index(list: PathList) -> usize {
    LISTS.iter().position(|known| *known == list).unwrap_or(LISTS.len())
}

/// The lists that an action needs a grant in, and the paths.
fn places(recorded: &Recorded) -> Vec<(PathList, Name)> {
    let mut places = Vec::new();
    match &recorded.deed {
        Deed::File { path, access } => {
            let lists: &[PathList] = match access {
                Access::Read | Access::Path => &[PathList::Read],
                Access::Write => &[PathList::Write],
                Access::ReadWrite => &[PathList::Read, PathList::Write],
                Access::Exec => &[PathList::Exec],
            };
            for list in lists {
                places.extend([Some(path), recorded.host()].into_iter().flatten().map(|name| (*list, name.clone())));
            }
        }
        Deed::Exec { path, script } => places.push((PathList::Exec, script.as_ref().unwrap_or(path).clone())),
        Deed::Names(names) => places.extend(names.iter().map(|name| (PathList::Write, name.clone()))),
        Deed::UnixPath(path) => places.push((PathList::Unix, path.clone())),
        Deed::UnixAbstract(name) => {
            places.push((PathList::UnixAbstract, Name { bytes: abstract_path(name), cut: false }));
        }
        Deed::Connect(_) | Deed::Listen(_) | Deed::Privilege(_) => {}
    }
    places
}
