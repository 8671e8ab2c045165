//! The configuration: daemon settings, declarations of agents, grant sets, the catalogue of agent runtimes.
//!
//! Input: a directory with `bailiwick.toml`, `agents.d/*.toml`, `grants.d/*.toml` and `catalogue.d/*.toml`, or nothing, for
//! what ships with the daemon. Output: a [`Config`], with every scope compiled, or [`ConfigErrors`]: everything that is wrong, each with file,
//! line, column and what would be right. Files are read once; nothing is half loaded. Refuses to guess: a key that it does
//! not know, a name that it cannot find and a response that it cannot give are errors.
//!
//! - [`declaration`], [`grant_set`], [`catalogue`], [`settings`]: the four kinds of files
//! - [`delegation`]: who may start whom
//! - [`resource`]: names for what matters
//! - [`credential`], [`well_known`]: secrets that are declared, and those that are well known
//! - [`selectors`], [`recognise`], [`kernel_selectors`]: whose process is it, and what of that the kernel can decide
//! - [`check`]: the same without loading it, for `bailiwick check`

pub mod catalogue;
pub mod check;
pub mod credential;
pub mod declaration;
pub mod delegation;
pub mod duration;
pub mod export;
pub mod fault;
pub mod grant_set;
pub mod host;
pub mod kernel_selectors;
pub mod metrics;
mod proposed;
mod reader;
pub mod recognise;
pub mod resource;
mod rules;
pub mod selectors;
pub mod settings;
pub mod source;
pub mod well_known;

#[cfg(test)]
mod shipped_tests;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use sha2::{Digest, Sha256};

pub use declaration::{Declaration, Delegate, Limit};
pub use fault::{ConfigErrors, Fault, Problem};
pub use host::{Host, ThisHost};
pub use reader::Located;
pub use rules::Note;
pub use settings::Settings;

use crate::credential::table::CredentialTable;
use crate::entry::{Delegator, Draft};
use crate::resource::ResourceTable;
use crate::scope::effective::Effective;
use crate::scope::grant::Origin;
use crate::scope::{CompileError, Scope};
use catalogue::Catalogue;
use declaration::{DeclaredScope, ParsedDeclaration};
use fault::nearest;
use grant_set::GrantSet;
use reader::read_document;
use rules::Reading;
use source::SourceFile;
use well_known::WellKnown;

/// The declarations that ship, which are in force where there is no configuration directory.
pub const SHIPPED_DECLARATIONS: [(&str, &str); 2] = [
    ("agents.d/code-assistant.toml", include_str!("../../../systemd/agents.d/code-assistant.toml")),
    ("agents.d/demo.toml", include_str!("../../../systemd/agents.d/demo.toml")),
];

/// A loaded configuration.
#[derive(Clone, Debug)]
pub struct Config {
    /// The daemon's settings.
    pub settings: Settings,
    /// The declared agents, in the order of their files.
    pub declarations: Vec<Declaration>,
    /// What matters, by name: of all declarations.
    pub resources: Arc<ResourceTable>,
    /// Credentials: of all declarations, and well-known ones.
    pub credentials: Arc<CredentialTable>,
    /// The grant sets there are, shipped ones first.
    pub grant_sets: Vec<GrantSet>,
    /// What discovery goes by.
    pub catalogue: Catalogue,
    /// What is no fault, but worth knowing: symlinks, paths that do not exist, agents without an owner.
    pub notes: Vec<Note>,
    /// SHA-256, in hexadecimal, over the names and bytes of all that was loaded.
    pub hash: String,
    /// Where each agent is declared, and the SHA-256 of that file's bytes, by the agent's name.
    pub declared_in: HashMap<String, DeclaredIn>,
}

/// The file of a declaration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeclaredIn {
    /// Its name, as it was read.
    pub file: String,
    /// The SHA-256 of its bytes, in hexadecimal.
    pub sha256: String,
}

/// The files of a configuration, before they are read.
#[derive(Debug, Default)]
pub(super) struct Sources {
    pub(super) settings: Option<SourceFile>,
    /// What the host adds to the well-known credentials.
    pub(super) well_known: Option<SourceFile>,
    pub(super) grant_sets: Vec<SourceFile>,
    pub(super) catalogues: Vec<SourceFile>,
    pub(super) declarations: Vec<SourceFile>,
    /// Whether other declarations than these may exist, so that a delegate that none of them declares is no fault.
    pub(super) partial: bool,
}

impl Config {
    /// Loads a directory; without one, what ships with the daemon.
    pub fn load(directory: Option<&Path>) -> Result<Self, ConfigErrors> {
        Self::load_on(directory, &ThisHost)
    }

    /// Loads as though on another host.
    pub fn load_on(directory: Option<&Path>, host: &dyn Host) -> Result<Self, ConfigErrors> {
        let sources = match directory {
            Some(directory) => Sources::of_directory(directory)?,
            None => Sources {
                declarations: SHIPPED_DECLARATIONS.iter().map(|(name, text)| SourceFile::shipped(name, text)).collect(),
                ..Sources::default()
            },
        };
        sources.load(host)
    }

    /// The declaration of an agent.
    pub fn declaration(&self, agent: &str) -> Option<&Declaration> {
        self.declarations.iter().find(|declaration| declaration.name() == agent)
    }

    /// The scope that binds an agent's session with those delegators, outermost first.
    pub fn effective<'a>(&'a self, agent: &'a str, delegation: &'a [Delegator]) -> Effective<'a> {
        delegation::effective(agent, delegation, |name| self.declaration(name))
    }

    /// The scope that binds the session of an entry.
    pub fn effective_of<'a>(&'a self, draft: &'a Draft) -> Effective<'a> {
        draft.agent.as_deref().map(|agent| self.effective(agent, &draft.delegation)).unwrap_or_default()
    }
}

impl Sources {
    /// Reads the files of a directory. Every file that cannot be read is reported.
    pub(super) fn of_directory(directory: &Path) -> Result<Self, ConfigErrors> {
        let mut problems = Vec::new();
        if let Err(error) = std::fs::read_dir(directory) {
            problems.push(Problem::of_file(&directory.display().to_string(), source::unreadable(directory, error)));
            return Err(ConfigErrors(problems));
        }
        let mut read_one = |name: &str| {
            let file = directory.join(name);
            if source::is_there(&file) { keep(SourceFile::read(&file), &mut problems) } else { None }
        };
        let (settings, well_known) = (read_one("bailiwick.toml"), read_one(well_known::FILE));
        let mut read_all = |name: &str| {
            let files = keep(source::files_of(&directory.join(name)), &mut problems).unwrap_or_default();
            files.iter().filter_map(|file| keep(SourceFile::read(file), &mut problems)).collect()
        };
        let (grant_sets, catalogues) = (read_all("grants.d"), read_all("catalogue.d"));
        let declarations = read_all("agents.d");
        if problems.is_empty() {
            Ok(Self { settings, well_known, grant_sets, catalogues, declarations, partial: false })
        } else {
            Err(ConfigErrors(problems))
        }
    }

    /// Parses the files and puts them together.
    pub(super) fn load(self, host: &dyn Host) -> Result<Config, ConfigErrors> {
        let mut reading = Reading { host, problems: Vec::new(), notes: Vec::new(), shipped: false };
        let mut hash = Sha256::new();
        let mut settings = Settings::default();
        if let Some(source) = &self.settings {
            add_to_hash(&mut hash, source);
            let mut faults = Vec::new();
            let read = read_document(source, &mut faults, |top| Settings::read(top, &mut reading));
            reading.problems.append(&mut faults);
            settings = read.unwrap_or(settings);
        }
        let mut grant_sets = Vec::new();
        for source in grant_set::shipped_sources().iter().chain(&self.grant_sets) {
            add_to_hash(&mut hash, source);
            if let Some(set) = read_with(source, &mut reading, grant_set::read) {
                grant_set::add(&mut grant_sets, set, &mut reading);
            }
        }
        let mut catalogue = Catalogue::default();
        for source in std::iter::once(&catalogue::shipped_source()).chain(&self.catalogues) {
            add_to_hash(&mut hash, source);
            read_with(source, &mut reading, |top, reading| {
                catalogue.add_file(top, reading);
                Some(())
            });
        }
        catalogue.settle();
        let (mut parsed, mut declared_in) = (Vec::new(), HashMap::new());
        for source in &self.declarations {
            add_to_hash(&mut hash, source);
            let environment = &settings.sensor.environment;
            let read = read_with(source, &mut reading, |top, reading| declaration::read(top, environment, reading));
            let Some(declaration) = read else { continue };
            let file = declaration.about.origin.file.to_string();
            let sha256 = hexadecimal(Sha256::digest(source.text().as_bytes()).as_slice());
            declared_in.insert(declaration.about.name.clone(), DeclaredIn { file, sha256 });
            parsed.push(declaration);
        }
        refuse_twins(&parsed, &mut reading);
        refuse_unknown_delegates(&parsed, self.partial, &mut reading);
        delegation::refuse_circles(&parsed, &mut reading);
        let resources = compile_resources(&parsed, &mut reading);
        let shipped = read_with(&well_known::shipped_source(), &mut reading, well_known::read);
        let own = self.well_known.as_ref().and_then(|source| {
            add_to_hash(&mut hash, source);
            read_with(source, &mut reading, well_known::read)
        });
        let well_known = WellKnown::of(shipped, own, &mut reading);
        let credentials = compile_credentials(&parsed, &well_known, &mut reading);
        let declarations =
            parsed.into_iter().map(|parsed| resolve_includes(parsed, &grant_sets, &mut reading)).collect();
        if !reading.problems.is_empty() {
            return Err(ConfigErrors(reading.problems));
        }
        let hash = hexadecimal(hash.finalize().as_slice());
        Ok(Config {
            settings,
            declarations,
            resources,
            credentials,
            grant_sets,
            catalogue,
            notes: reading.notes,
            hash,
            declared_in,
        })
    }
}

fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Reads one file's top level, with its faults and notes among the others.
fn read_with<T>(
    source: &SourceFile,
    reading: &mut Reading<'_>,
    read: impl FnOnce(reader::Section<'_>, &mut Reading<'_>) -> Option<T>,
) -> Option<T> {
    reading.shipped = source.is_shipped();
    let mut faults = Vec::new();
    let value = read_document(source, &mut faults, |top| read(top, reading));
    reading.problems.append(&mut faults);
    reading.shipped = false;
    value.flatten()
}

/// A value, or its problem among the others.
fn keep<T>(result: Result<T, Problem>, problems: &mut Vec<Problem>) -> Option<T> {
    result.map_err(|problem| problems.push(problem)).ok()
}

/// Lengths are hashed too, so that no two configurations run together to the same bytes.
fn add_to_hash(hash: &mut Sha256, source: &SourceFile) {
    for part in [source.hashed_as(), source.text()] {
        hash.update(u64::try_from(part.len()).unwrap_or(u64::MAX).to_be_bytes());
        hash.update(part.as_bytes());
    }
}

/// Reports agents of one name, and agents that recognise the same processes equally well.
fn refuse_twins(parsed: &[ParsedDeclaration], reading: &mut Reading<'_>) {
    let mut names: HashMap<&str, &Origin> = HashMap::new();
    for (position, declaration) in parsed.iter().enumerate() {
        let about = &declaration.about;
        if let Some(first) = names.get(about.name.as_str()) {
            let fault = Fault::DuplicateAgent { name: about.name.clone(), first: (*first).clone() };
            reading.fault(&about.origin, fault);
            continue;
        }
        names.insert(&about.name, &about.origin);
        let earlier = parsed.iter().take(position).filter(|earlier| earlier.about.name != about.name);
        for (other, theirs) in earlier.flat_map(|other| other.recognise.iter().map(move |table| (other, table))) {
            for ours in declaration.recognise.iter().filter(|ours| ours.asks_the_same_as(theirs)) {
                let (this, other) = (about.name.clone(), other.about.name.clone());
                let fault = Fault::SameProcess { this, other, place: theirs.origin.clone() };
                reading.fault(&ours.origin, fault);
            }
        }
    }
}

fn refuse_unknown_delegates(parsed: &[ParsedDeclaration], partial: bool, reading: &mut Reading<'_>) {
    let known: Vec<&str> = parsed.iter().map(|declaration| declaration.about.name.as_str()).collect();
    for name in parsed.iter().filter_map(|declaration| declaration.scope.as_ref()).flat_map(|scope| &scope.delegate.to)
    {
        if known.contains(&name.value.as_str()) {
            continue;
        }
        if partial {
            reading.note(&name.origin, format!("no file given declares the agent `{}`", name.value));
            continue;
        }
        let fault = Fault::UnknownAgent {
            name: name.value.escape_debug().take(80).collect(),
            near: nearest(&name.value, known.iter().copied()),
            known: known.iter().map(|name| (*name).to_owned()).collect(),
        };
        reading.fault(&name.origin, fault);
    }
}

/// Compiles a declaration's scope together with the sets that it includes.
fn resolve_includes(parsed: ParsedDeclaration, sets: &[GrantSet], reading: &mut Reading<'_>) -> Declaration {
    let scope = parsed.scope.as_ref().and_then(|scope| compile(scope, sets, reading));
    Declaration {
        about: parsed.about,
        recognise: parsed.recognise,
        declared_scope: parsed.scope,
        scope: scope.map(Arc::new),
        resources: parsed.resources,
        credentials: parsed.credentials,
    }
}

/// What all declarations name: what matters, matters whoever touches it.
fn compile_resources(parsed: &[ParsedDeclaration], reading: &mut Reading<'_>) -> Arc<ResourceTable> {
    let mut table = ResourceTable::default();
    for resource in parsed.iter().flat_map(|declaration| &declaration.resources) {
        for CompileError { origin, text, error } in table.add(resource) {
            reading.fault(&origin, Fault::Irregular { text, error });
        }
    }
    Arc::new(table)
}

fn compile_credentials(
    parsed: &[ParsedDeclaration],
    well_known: &WellKnown,
    reading: &mut Reading<'_>,
) -> Arc<CredentialTable> {
    let declared = parsed.iter().map(|one| (one.about.name.as_str(), one.credentials.as_slice()));
    let (table, errors) = CredentialTable::of(declared, well_known);
    for CompileError { origin, text, error } in errors {
        reading.fault(&origin, Fault::Irregular { text, error });
    }
    Arc::new(table)
}

fn compile(declared: &DeclaredScope, sets: &[GrantSet], reading: &mut Reading<'_>) -> Option<Scope> {
    let mut rules = vec![&declared.rules];
    for name in &declared.include {
        if let Some(set) = sets.iter().find(|set| set.name.value == name.value) {
            rules.push(&set.rules);
            continue;
        }
        let known = || sets.iter().map(|set| set.name.value.as_str());
        let fault = Fault::UnknownSet {
            name: name.value.escape_debug().take(80).collect(),
            near: nearest(&name.value, known()),
            known: known().map(str::to_owned).collect(),
        };
        reading.fault(&name.origin, fault);
    }
    match Scope::compile(rules) {
        Ok(scope) => Some(scope),
        Err(errors) => {
            for CompileError { origin, text, error } in errors {
                reading.fault(&origin, Fault::Irregular { text, error });
            }
            None
        }
    }
}
