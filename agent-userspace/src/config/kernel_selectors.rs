//! What of recognising the sensor can decide itself, and what makes an exec provisional.
//!
//! Input: the declarations and a host. Output: [`KernelSelectors`]. An exec is *provisional* when only userspace can tell
//! whose it is: its events are kept until that is decided. A table's cheapest filter counts: its executable where that can
//! be listed, else its user, else every exec on the host is provisional, and the declaration is named as costly.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use super::declaration::Declaration;
use super::host::Host;
use super::selectors::Recognise;
use crate::scope::grant::Origin;
use crate::scope::pattern::{Part, PathPattern};

/// The most files that a pattern is expanded to.
pub const MAX_EXPANDED: usize = 256;

/// An executable that makes a process an agent's, whatever else it is.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct DecidingExecutable {
    /// Its path as the kernel resolves it.
    pub path: PathBuf,
    /// The position of the agent's declaration.
    pub agent: usize,
}

/// Why every exec on the host is provisional.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Costly {
    /// The position of the agent's declaration.
    pub agent: usize,
    /// Where the table stands.
    pub origin: Origin,
    /// Why, and what would make it cheaper.
    pub text: String,
}

/// What the sensor is told.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KernelSelectors {
    /// Executables that decide alone.
    pub executables: Vec<DecidingExecutable>,
    /// Executables, interpreters among them, whose exec is provisional.
    pub provisional_executables: Vec<PathBuf>,
    /// Users whose every exec is provisional.
    pub provisional_uids: Vec<u32>,
    /// Why every exec on the host is provisional; empty: it is not.
    pub costly: Vec<Costly>,
    /// Files that the gate may hold: executables that decide by themselves or by their hash, and scripts named by a path
    /// without wildcards. Never an interpreter for the sake of a script. Only files that exist.
    pub gate_targets: Vec<PathBuf>,
}

impl KernelSelectors {
    /// Whether every exec on the host is provisional.
    pub fn all_execs_provisional(&self) -> bool {
        !self.costly.is_empty()
    }
}

/// What the kernel can decide of the declarations.
pub fn kernel_selectors(declarations: &[Declaration], host: &dyn Host) -> KernelSelectors {
    let mut deciding: BTreeSet<DecidingExecutable> = BTreeSet::new();
    let mut provisional: BTreeSet<PathBuf> = BTreeSet::new();
    let mut uids: BTreeSet<u32> = BTreeSet::new();
    let mut gate: BTreeSet<PathBuf> = BTreeSet::new();
    let mut costly = Vec::new();
    let tables = declarations.iter().enumerate().flat_map(|(agent, one)| one.recognise.iter().map(move |t| (agent, t)));
    for (agent, table) in tables {
        if let Some(script) = table.script.as_ref().and_then(|script| script.as_resolved().as_literal()) {
            gate.insert(script.into());
        }
        match executables_of(table, host) {
            Some(paths) => {
                if table.is_executable_and_hash() {
                    gate.extend(paths.iter().cloned());
                }
                if table.is_executable_alone() {
                    deciding.extend(paths.into_iter().map(|path| DecidingExecutable { path, agent }));
                } else {
                    provisional.extend(paths);
                }
            }
            None => match table.uid {
                Some(uid) => {
                    uids.insert(uid);
                }
                None => costly.push(Costly { agent, origin: table.origin.clone(), text: table.why_costly() }),
            },
        }
    }
    // Where a narrower table may be the better match, or two agents' patterns meet, userspace decides.
    let contested = |one: &DecidingExecutable| {
        provisional.contains(&one.path)
            || deciding.iter().any(|other| other.path == one.path && other.agent != one.agent)
    };
    let (undecided, executables): (Vec<_>, Vec<_>) = deciding.iter().cloned().partition(contested);
    provisional.extend(undecided.into_iter().map(|one| one.path));
    KernelSelectors {
        executables,
        provisional_executables: provisional.into_iter().collect(),
        provisional_uids: uids.into_iter().collect(),
        costly,
        gate_targets: gate.into_iter().filter(|path| host.identity(path).is_some()).collect(),
    }
}

impl Recognise {
    fn is_executable_and_hash(&self) -> bool {
        let others = self.script.is_some() || !self.argv.is_empty() || !self.environment.is_empty();
        let more = self.uid.is_some() || self.unit.is_some() || self.cgroup.is_some();
        self.executable.is_some() && !others && !more
    }

    fn is_executable_alone(&self) -> bool {
        self.is_executable_and_hash() && self.executable.as_ref().is_some_and(|executable| executable.sha256.is_none())
    }

    fn why_costly(&self) -> String {
        let given = [
            ("an `executable` with `**`", self.executable.is_some()),
            ("`script`", self.script.is_some()),
            ("`argv`", !self.argv.is_empty()),
            ("`environment`", !self.environment.is_empty()),
            ("`unit`", self.unit.is_some()),
            ("`cgroup`", self.cgroup.is_some()),
        ];
        let names: Vec<&str> = given.into_iter().filter(|(_, is_given)| *is_given).map(|(name, _)| name).collect();
        format!(
            "costly: recognised by {} alone, which the kernel cannot decide, so every exec on the host is kept until it is \
             decided; add `executable` (without `**`) or `user` to limit that to theirs",
            names.join(" and ")
        )
    }
}

/// The executables of a table as the kernel resolves them; none where it names none, or none that can be listed.
fn executables_of(table: &Recognise, host: &dyn Host) -> Option<Vec<PathBuf>> {
    let selector = &table.executable.as_ref()?.path;
    if selector.pattern.parts().contains(&Part::AnyDepth) {
        return None;
    }
    let mut paths = BTreeSet::new();
    for pattern in [Some(&selector.pattern), selector.resolved.as_ref()].into_iter().flatten() {
        match pattern.as_literal() {
            // A path that does not exist yet is kept: the kernel may meet it later.
            Some(path) if pattern == selector.as_resolved() => {
                paths.insert(PathBuf::from(path));
            }
            Some(_) => {}
            None => paths.extend(expand(pattern, host)),
        }
    }
    Some(paths.into_iter().collect())
}

/// The files that a pattern without `**` matches, as the kernel resolves them; at most [`MAX_EXPANDED`].
pub fn expand(pattern: &PathPattern, host: &dyn Host) -> Vec<PathBuf> {
    let mut reached = vec![PathBuf::from("/")];
    for part in pattern.parts() {
        let mut next = Vec::new();
        for directory in &reached {
            match part {
                Part::Literal(name) => next.push(directory.join(OsStr::from_bytes(name))),
                Part::Glob(glob) => {
                    let names = host.list(directory).into_iter().filter(|name| glob.matches(name.as_bytes()));
                    next.extend(names.map(|name| directory.join(OsStr::from_bytes(&name.into_vec()))));
                }
                Part::AnyDepth => return Vec::new(),
            }
            if next.len() > MAX_EXPANDED {
                break;
            }
        }
        next.truncate(MAX_EXPANDED);
        reached = next;
    }
    let resolved = |path: PathBuf| host.canonicalize(Path::new(&path)).unwrap_or(path);
    let files: BTreeSet<PathBuf> =
        reached.into_iter().filter(|path| host.identity(path).is_some()).map(resolved).collect();
    files.into_iter().collect()
}

#[cfg(test)]
#[path = "kernel_selectors_tests.rs"]
mod tests;
