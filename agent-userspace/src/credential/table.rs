//! Where credentials are, ready for look-ups: those of all declarations, and the well-known ones.
//!
//! Input: declarations and the catalogue; then drafts. Output: which credentials an entry uses, as a [`Use`] each. The same
//! place declared by several agents is one credential, by the name that was declared first. A well-known one is found
//! where nobody has declared the place. Pure. Refuses to read any file: a value is never looked at.

use std::collections::HashMap;
use std::path::Path;
use std::time::Duration;

use serde_json::Value;

use crate::config::credential::Credential;
use crate::config::well_known::WellKnown;
use crate::entry::Draft;
use crate::scope::CompileError;
use crate::scope::grant::{Origin, PathRule};
use crate::scope::network::NetworkTable;
use crate::scope::path_index::PathIndex;
use crate::scope::pattern::PathPattern;
use crate::scope::recorded::{address, bytes, is_cut, readable, text};

/// The names of the credentials' variables in the environment of an exec.
pub const VARIABLES: &str = "bailiwick.credential.variables";

/// How a credential is come by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Means {
    /// A file was opened for reading.
    File,
    /// A socket behind which it lies was connected to.
    Socket,
    /// A variable was in the environment of an exec.
    Environment,
}

impl Means {
    /// As it is written everywhere.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::File => "file",
            Self::Socket => "socket",
            Self::Environment => "environment",
        }
    }
}

/// A credential that is known.
#[derive(Clone, Debug)]
pub struct Known {
    /// What it is called.
    pub name: String,
    /// The agents that declare it; empty: it is a well-known one.
    pub declared_by: Vec<String>,
    /// Where it stands first.
    pub origin: Origin,
    /// Where it is.
    pub places: Vec<(Means, String)>,
    /// How often it must be changed: the shortest of those declared.
    pub rotate_every: Option<Duration>,
    except: Vec<PathPattern>,
}

impl Known {
    /// The files that it is, by their full names.
    pub fn files(&self) -> impl Iterator<Item = &Path> {
        self.places.iter().filter_map(|(means, place)| {
            let pattern = (*means == Means::File).then(|| PathPattern::parse(place).ok()).flatten()?;
            pattern.as_literal().map(|_| Path::new(place.as_str()))
        })
    }
}

/// A use of a credential.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Use {
    /// The place of it in [`CredentialTable::known`].
    pub number: u32,
    /// How.
    pub means: Means,
    /// The file, the socket (an abstract name behind an `@`), or the variable.
    pub place: String,
    /// Whether the agent declares it.
    pub is_declared: bool,
}

/// Places, each with the numbers of what it is.
#[derive(Debug, Default)]
struct Places {
    files: PathIndex,
    sockets: PathIndex,
    abstract_sockets: PathIndex,
    variables: HashMap<String, u32>,
}

impl Places {
    fn add(&mut self, credential: &Credential, number: u32, errors: &mut Vec<CompileError>) {
        let lists = [
            (&mut self.files, &credential.file),
            (&mut self.sockets, &credential.socket),
            (&mut self.abstract_sockets, &credential.socket_abstract),
        ];
        for (index, rules) in lists {
            errors.extend(rules.iter().filter_map(|rule| index.add(rule, number).err()));
        }
        for variable in &credential.environment {
            self.variables.entry(variable.clone()).or_insert(number);
        }
    }

    fn find(&self, means: Means, place: &[u8]) -> &[u32] {
        match means {
            Means::File => self.files.find(place),
            Means::Socket => match place.strip_prefix(b"@") {
                Some(name) => self.abstract_sockets.find(&[b"/", name].concat()),
                None => self.sockets.find(place),
            },
            Means::Environment => {
                let variable = std::str::from_utf8(place).ok().and_then(|name| self.variables.get(name));
                variable.map_or(&[], std::slice::from_ref)
            }
        }
    }
}

/// All that is known.
#[derive(Debug, Default)]
pub struct CredentialTable {
    known: Vec<Known>,
    declared: Places,
    /// The same, of each agent alone.
    own: HashMap<String, Places>,
    well_known: Places,
    admin: NetworkTable,
}

impl CredentialTable {
    /// The credentials of agents, in the order of their declarations, and the catalogue. Second: what cannot be looked up.
    pub fn of<'a>(
        declared: impl IntoIterator<Item = (&'a str, &'a [Credential])>,
        well_known: &WellKnown,
    ) -> (Self, Vec<CompileError>) {
        let (mut table, mut errors) = (Self::default(), Vec::new());
        for (agent, credentials) in declared {
            for credential in credentials {
                let number = table.declare(agent, credential);
                table.declared.add(credential, number, &mut errors);
                // What is wrong with it has been told.
                table.own.entry(agent.to_owned()).or_default().add(credential, number, &mut Vec::new());
            }
        }
        for credential in &well_known.credentials {
            let number = table.push(credential, Vec::new());
            table.well_known.add(credential, number, &mut errors);
        }
        well_known.admin.iter().for_each(|rule| table.admin.insert(&rule.pattern, 0));
        (table, errors)
    }

    fn declare(&mut self, agent: &str, credential: &Credential) -> u32 {
        let places = places_of(credential);
        let same =
            self.known.iter_mut().enumerate().find(|(_, known)| known.places.iter().any(|at| places.contains(at)));
        let Some((number, known)) = same else { return self.push(credential, vec![agent.to_owned()]) };
        if !known.declared_by.iter().any(|known| known == agent) {
            known.declared_by.push(agent.to_owned());
        }
        known.rotate_every = match (known.rotate_every, credential.rotate_every) {
            (Some(one), Some(other)) => Some(one.min(other)),
            (one, other) => one.or(other),
        };
        let more: Vec<_> = places.into_iter().filter(|place| !known.places.contains(place)).collect();
        known.places.extend(more);
        u32::try_from(number).unwrap_or(u32::MAX)
    }

    fn push(&mut self, credential: &Credential, declared_by: Vec<String>) -> u32 {
        let number = u32::try_from(self.known.len()).unwrap_or(u32::MAX);
        self.known.push(Known {
            name: credential.name.clone(),
            declared_by,
            origin: credential.origin.clone(),
            places: places_of(credential),
            rotate_every: credential.rotate_every,
            except: credential.except.clone(),
        });
        number
    }

    /// All of them: the declared ones first.
    pub fn known(&self) -> &[Known] {
        &self.known
    }

    /// One of them.
    pub fn get(&self, number: u32) -> Option<&Known> {
        self.known.get(number as usize)
    }

    /// The name of a variable (`KEY=VALUE`) that holds a credential; one without a value holds none.
    pub fn variable(&self, variable: &[u8]) -> Option<&str> {
        let equals = variable.iter().position(|&byte| byte == b'=').filter(|at| at + 1 < variable.len())?;
        let name = variable.get(..equals).and_then(|name| std::str::from_utf8(name).ok())?;
        let all = [&self.declared.variables, &self.well_known.variables];
        all.into_iter().find_map(|known| known.get_key_value(name)).map(|(name, _)| name.as_str())
    }

    /// Whether something is reached where administration happens.
    pub fn is_admin(&self, draft: &Draft) -> bool {
        let mut operations = 0;
        address(draft, "server").is_some_and(|address| self.admin.find(address, &mut operations).is_some())
    }

    /// Which credential a place is, of that agent; whether it declares it.
    pub fn at(&self, agent: &str, means: Means, place: &[u8]) -> Option<(u32, bool)> {
        let declared = self.own.get(agent).and_then(|own| own.find(means, place).first());
        if let Some(number) = declared {
            return Some((*number, true));
        }
        if let Some(number) = self.declared.find(means, place).first() {
            return Some((*number, false));
        }
        let number = *self.well_known.find(means, place).first()?;
        let excepted = self.get(number).is_some_and(|known| known.except.iter().any(|except| except.matches(place)));
        (!excepted).then_some((number, false))
    }

    /// The credentials that an entry uses. `declared` knows declared files by device and inode, whatever their name.
    pub fn uses(&self, draft: &Draft, declared: &HashMap<(u32, u64), Vec<u8>>) -> Vec<Use> {
        let Some(agent) = draft.agent.as_deref() else { return Vec::new() };
        if draft.attributes.contains_key("error.type") {
            return Vec::new();
        }
        let known = |means, place: &[u8]| {
            let (number, is_declared) = self.at(agent, means, place)?;
            Some(Use { number, means, place: readable(place).0, is_declared })
        };
        match draft.event.as_str() {
            "file.open" | "file.create" | "fd.receive" if reads(draft) => {
                let names = ["file.path", "bailiwick.file.host_path", "bailiwick.file.other_path"];
                let names = names.into_iter().filter(|name| !is_cut(draft, name)).filter_map(|name| bytes(draft, name));
                let same = if declared.is_empty() { None } else { identity(draft) };
                let same = same.and_then(|identity| declared.get(&identity)).cloned();
                names.chain(same).find_map(|path| known(Means::File, &path)).into_iter().collect()
            }
            "unix.connect" => {
                let path = bytes(draft, "bailiwick.unix.path").filter(|_| !is_cut(draft, "bailiwick.unix.path"));
                let name = bytes(draft, "bailiwick.unix.abstract").map(|name| [b"@", &name[..]].concat());
                path.or(name).and_then(|place| known(Means::Socket, &place)).into_iter().collect()
            }
            "process.exec" => {
                let names = draft.attributes.get(VARIABLES).and_then(Value::as_array);
                let names = names.into_iter().flatten().filter_map(Value::as_str);
                names.filter_map(|name| known(Means::Environment, name.as_bytes())).collect()
            }
            _ => Vec::new(),
        }
    }
}

fn places_of(credential: &Credential) -> Vec<(Means, String)> {
    let text = |rule: &PathRule| rule.pattern.text().to_owned();
    let files = credential.file.iter().map(|rule| (Means::File, text(rule)));
    let sockets = credential.socket.iter().map(|rule| (Means::Socket, text(rule)));
    let names = credential.socket_abstract.iter();
    let names = names.map(|rule| (Means::Socket, format!("@{}", text(rule).trim_start_matches('/'))));
    let variables = credential.environment.iter().map(|name| (Means::Environment, name.clone()));
    files.chain(sockets).chain(names).chain(variables).collect()
}

/// Whether a file was opened so that it can be read.
pub fn reads(draft: &Draft) -> bool {
    matches!(text(draft, "bailiwick.file.access"), Some("r" | "rw"))
}

/// The device (major << 20 | minor) and inode that an entry names.
pub fn identity(draft: &Draft) -> Option<(u32, u64)> {
    let (major, minor) = text(draft, "bailiwick.file.device")?.split_once(':')?;
    let (major, minor): (u32, u32) = (major.parse().ok()?, minor.parse().ok()?);
    Some((major << 20 | minor, text(draft, "bailiwick.file.inode")?.parse().ok()?))
}

#[cfg(test)]
#[path = "table_tests.rs"]
mod tests;
