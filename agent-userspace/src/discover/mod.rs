//! Discovery: the agents that run on a host, declared or not, from what `/proc` shows of processes and sockets.
//!
//! Input: a `/proc`, the catalogue, and who belongs to whom already. Output: an [`Inventory`]. It looks, and does nothing
//! else: no hook, no mark, no signal, no look-up of a name. What a process says of itself (arguments, environment) makes
//! no identity: an argument counts only where it names, to what is an interpreter by its image, a file that is an agent's by
//! its place or by what it imports; a marker in an environment is told beside other evidence, and is else a mere claim.
//!
//! - `identify`: what one process is
//! - `image`: which interpreter an image is, whatever it is called
//! - `sockets`: who is connected to what answers agents, and who listens as such
//! - `declaration`: the declaration that an undeclared one could have
//! - [`look`]: all that without a daemon

mod declaration;
mod identify;
mod image;
mod sockets;
#[cfg(test)]
mod tests;
mod unattended;

use std::collections::{BTreeMap, HashMap};

use rustix::param::clock_ticks_per_second;
use serde::{Deserialize, Serialize};

use self::identify::{Identified, Identifier};
pub use self::unattended::look;
use crate::attribute::principal::principal;
use crate::attribute::procfs::ProcFs;
use crate::config::Config;
use crate::entry::{Principal, Timestamp};
use crate::scope::recorded::readable;

/// The most processes that are looked at; of more, the inventory says so.
const MOST_PROCESSES: usize = 262_144;
/// The longest chain of parents that is followed.
const MOST_ANCESTORS: usize = 64;
/// The most arguments of a process, and bytes of one, that the inventory repeats.
const MOST_ARGUMENTS: usize = 32;
const MOST_ARGUMENT_BYTES: usize = 512;

/// What kind of thing was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// An agent runtime of the catalogue.
    Agent,
    /// No known runtime, but it is connected to a model server.
    ModelClient,
    /// A model server of this host's own.
    ModelServer,
}

impl Kind {
    /// The kind as it is written everywhere.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Agent => "agent",
            Self::ModelClient => "model_client",
            Self::ModelServer => "model_server",
        }
    }

    /// The kind in a sentence.
    pub fn words(self) -> &'static str {
        match self {
            Self::Agent => "an agent",
            Self::ModelClient => "a client of a model server",
            Self::ModelServer => "a model server",
        }
    }
}

/// By what something was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Proof {
    /// The image's path.
    Executable,
    /// The script that its interpreter runs.
    Script,
    /// The module that its interpreter runs.
    Module,
    /// A connection that it holds.
    Connection,
    /// A socket that it listens at.
    Listening,
    /// A variable of its environment: a claim, beside other evidence.
    Environment,
}

/// A piece of evidence.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Evidence {
    /// By what.
    pub kind: Proof,
    /// The path, module, address or variable.
    pub what: String,
    /// The catalogue's words for it: the entry's name, and what of it holds.
    pub because: String,
}

/// A process that was found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FoundProcess {
    /// Its id.
    pub tgid: u32,
    /// When it started, to a hundredth of a second.
    pub started: Timestamp,
    /// Its image's path.
    pub executable: Option<String>,
}

/// Something that was found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Discovered {
    /// The runtime's or server's name in the catalogue; of a mere client its program's.
    pub name: String,
    /// What it is.
    pub kind: Kind,
    /// Its first process: what that started is part of it.
    pub process: FoundProcess,
    /// That one's command line.
    pub command: Vec<String>,
    /// On whose behalf it runs.
    pub principal: Principal,
    /// By what it was found.
    pub evidence: Vec<Evidence>,
    /// The declared agent that it is; none: nothing declares it.
    pub declared_as: Option<String>,
    /// The agent of the session that it runs in, or of the runtime that started it, where that is another.
    pub inside: Option<String>,
    /// A declaration that would recognise it, where nothing does.
    pub declaration: Option<String>,
}

/// A process that carries an agent's marker, and nothing else shows that it is one's.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claim {
    /// The variable.
    pub marker: String,
    /// The runtime that marks its children so.
    pub name: String,
    /// The process.
    pub process: FoundProcess,
}

/// What was found on a host.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Inventory {
    /// Agents and model servers, by name.
    pub items: Vec<Discovered>,
    /// Marked processes that nothing else shows to be an agent's: the first of each line of descent. Only where asked for.
    pub claims: Vec<Claim>,
    /// How many processes were looked at.
    pub processes: u64,
    /// How many there were that this user may not look into, or that were too many.
    pub unseen: u64,
}

/// Who is whose already.
pub trait Whose {
    /// The declared agent that this very process is recognised as, or whose session it began.
    fn root(&self, tgid: u32) -> Option<String>;
    /// The agent in whose session it is.
    fn member(&self, tgid: u32) -> Option<String>;
}

/// A process as it was seen.
#[derive(Clone, Debug, Default)]
struct Seen {
    tgid: u32,
    parent: u32,
    uid: u32,
    start_ticks: u64,
    executable: Vec<u8>,
    arguments: Vec<Vec<u8>>,
}

/// Looks at a host, as often as it is asked; remembers which interpreter an image is.
#[derive(Debug)]
pub struct Scanner {
    proc: ProcFs,
    images: image::Images,
    own_tgid: u32,
}

impl Scanner {
    /// One that looks at this `/proc`, and not at the process that it is itself.
    pub fn of(proc: ProcFs, own_tgid: u32) -> Self {
        Self { proc, images: image::Images::default(), own_tgid }
    }

    /// Looks once.
    pub fn scan(&mut self, config: &Config, whose: &dyn Whose, with_claims: bool) -> Inventory {
        let mut inventory = Inventory::default();
        let processes = self.processes(&mut inventory);
        let mut found: HashMap<u32, Identified> = HashMap::new();
        let catalogue = &config.catalogue;
        for seen in processes.values() {
            let mut identifier = Identifier { proc: &self.proc, images: &mut self.images, catalogue };
            if let Some(identified) = identifier.identify(seen) {
                found.insert(seen.tgid, identified);
            }
        }
        sockets::add(&self.proc, catalogue, &processes, &mut found);
        if with_claims {
            inventory.claims = self.claims(config, &processes, &found);
        }
        let boot_seconds = self.proc.boot_seconds().unwrap_or(0);
        let scan = Scan { proc: &self.proc, config, whose, processes: &processes, found: &found, boot_seconds };
        inventory.items = scan.items();
        inventory
    }

    fn processes(&self, inventory: &mut Inventory) -> BTreeMap<u32, Seen> {
        let mut processes = BTreeMap::new();
        for tgid in self.proc.processes() {
            if tgid == self.own_tgid {
                continue;
            }
            let Some(identity) = self.proc.identity(tgid) else { continue };
            let arguments = self.proc.arguments(tgid);
            let executable = self.proc.executable(tgid);
            // Kernel threads have neither.
            if executable.is_none() && arguments.is_empty() {
                continue;
            }
            inventory.processes += 1;
            if executable.is_none() || processes.len() >= MOST_PROCESSES {
                inventory.unseen += 1;
                continue;
            }
            let seen = Seen {
                tgid,
                parent: identity.parent_tgid,
                uid: identity.uid,
                start_ticks: identity.start_ticks,
                executable: executable.unwrap_or_default(),
                arguments,
            };
            processes.insert(tgid, seen);
        }
        processes
    }

    /// The marked ones of no found agent; of a line of descent the first that there is.
    fn claims(&self, config: &Config, processes: &BTreeMap<u32, Seen>, found: &HashMap<u32, Identified>) -> Vec<Claim> {
        let marked: HashMap<u32, (String, String)> = processes
            .keys()
            .filter_map(|&tgid| {
                let environment = self.proc.environment(tgid);
                let mut runtimes = config.catalogue.runtimes.iter();
                let (marker, name) = runtimes.find_map(|runtime| {
                    let marker = identify::marker_in(&environment, runtime)?;
                    Some((marker.to_owned(), runtime.name.value.clone()))
                })?;
                Some((tgid, (marker, name)))
            })
            .collect();
        let boot_seconds = self.proc.boot_seconds().unwrap_or(0);
        let mut claims: Vec<Claim> = Vec::new();
        for (tgid, (marker, name)) in &marked {
            let Some(seen) = processes.get(tgid) else { continue };
            let known = ancestors(processes, seen).any(|one| found.contains_key(&one.tgid));
            if found.contains_key(tgid) || known || marked.contains_key(&seen.parent) {
                continue;
            }
            let process = seen.told(boot_seconds);
            claims.push(Claim { marker: marker.clone(), name: name.clone(), process });
        }
        claims.sort_by_key(|claim| claim.process.tgid);
        claims
    }
}

/// The processes that started a process, nearest first.
fn ancestors<'a>(processes: &'a BTreeMap<u32, Seen>, of: &Seen) -> impl Iterator<Item = &'a Seen> {
    let first = processes.get(&of.parent);
    std::iter::successors(first, move |seen| processes.get(&seen.parent).filter(|next| next.tgid != seen.tgid))
        .take(MOST_ANCESTORS)
}

impl Seen {
    fn told(&self, boot_seconds: u64) -> FoundProcess {
        let ticks = clock_ticks_per_second().max(1);
        let nanoseconds = u128::from(self.start_ticks) * 1_000_000_000 / u128::from(ticks);
        let started = u128::from(boot_seconds) * 1_000_000_000 + nanoseconds;
        FoundProcess {
            tgid: self.tgid,
            started: Timestamp(u64::try_from(started).unwrap_or(u64::MAX)),
            executable: Some(readable(&self.executable).0),
        }
    }

    fn command(&self) -> Vec<String> {
        let cut = |argument: &Vec<u8>| {
            let kept = argument.get(..MOST_ARGUMENT_BYTES.min(argument.len())).unwrap_or_default();
            readable(kept).0
        };
        self.arguments.iter().take(MOST_ARGUMENTS).map(cut).collect()
    }
}

/// One look at a host, once each process has been identified.
struct Scan<'a> {
    proc: &'a ProcFs,
    config: &'a Config,
    whose: &'a dyn Whose,
    processes: &'a BTreeMap<u32, Seen>,
    found: &'a HashMap<u32, Identified>,
    boot_seconds: u64,
}

impl Scan<'_> {
    fn items(&self) -> Vec<Discovered> {
        let mut items: Vec<Discovered> =
            self.processes.values().filter_map(|seen| self.item(seen, self.found.get(&seen.tgid)?)).collect();
        items.sort_by(|a, b| (a.kind, &a.name, a.process.tgid).cmp(&(b.kind, &b.name, b.process.tgid)));
        let mut taken: Vec<String> =
            self.config.declarations.iter().map(|declaration| declaration.name().to_owned()).collect();
        for item in items.iter_mut().filter(|item| item.declared_as.is_none()) {
            let Some((seen, identified)) =
                self.processes.get(&item.process.tgid).zip(self.found.get(&item.process.tgid))
            else {
                continue;
            };
            item.declaration = Some(declaration::propose(item, seen, identified, self.proc, &mut taken));
        }
        items
    }

    /// What a found process is an item of; none where it is part of what started it.
    fn item(&self, seen: &Seen, identified: &Identified) -> Option<Discovered> {
        let outer = self.outer(seen);
        if let Some((_, outer)) = outer {
            // What an agent starts to ask its model is part of it, as is a further process of its own kind.
            if outer.name == identified.name || identified.kind == Kind::ModelClient {
                return None;
            }
        }
        let own = self.whose.root(seen.tgid);
        let owner = own.clone().or_else(|| self.owner(seen));
        let outer_owner = outer
            .and_then(|(tgid, _)| self.processes.get(&tgid))
            .and_then(|outer| self.whose.root(outer.tgid).or_else(|| self.owner(outer)));
        let is_guest = own.is_none() && outer.is_some() && outer_owner == owner;
        let inside = outer_owner.or_else(|| outer.map(|(_, outer)| outer.name.clone()));
        let uid = seen.uid;
        Some(Discovered {
            name: identified.name.clone(),
            kind: identified.kind,
            process: seen.told(self.boot_seconds),
            command: seen.command(),
            principal: principal(self.proc, seen.tgid, uid, self.proc.login_uid(seen.tgid), None),
            evidence: identified.evidence.clone(),
            declared_as: if is_guest { None } else { owner },
            inside,
            declaration: None,
        })
    }

    /// The nearest found process among those that started it.
    fn outer(&self, seen: &Seen) -> Option<(u32, &Identified)> {
        ancestors(self.processes, seen).find_map(|one| Some((one.tgid, self.found.get(&one.tgid)?)))
    }

    /// In whose session it is: by its own membership, or by descent.
    fn owner(&self, seen: &Seen) -> Option<String> {
        let descent = || ancestors(self.processes, seen).find_map(|one| self.whose.root(one.tgid));
        self.whose.member(seen.tgid).or_else(descent)
    }
}
