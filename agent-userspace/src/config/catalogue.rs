//! The catalogue that discovery goes by: agent runtimes, what runs their scripts, and what answers them.
//!
//! Input: the top level of the catalogue that ships, or of a file of `catalogue.d`. Output: a [`Catalogue`]. An entry of a
//! user's takes the place of the shipped one of its name when it says `replace = true`, so that nothing is overridden
//! unseen; with an empty one in its place, a shipped entry is taken out. `catalogue/agents.toml` describes the format.

use std::net::SocketAddr;
use std::sync::LazyLock;

use super::declaration::read_name;
use super::fault::Fault;
use super::reader::{Located, Section};
use super::rules::Reading;
use super::source::SourceFile;
use crate::scope::grant::NetworkRule;
use crate::scope::pattern::PathPattern;

/// The catalogue that ships with the daemon.
pub const SHIPPED: (&str, &str) = ("catalogue/agents.toml", include_str!("../../catalogue/agents.toml"));

/// The longest name of a package, a module, a symbol or a variable.
const MAX_WORD_BYTES: usize = 214;
/// The most entries of a list: each process on the host is compared with each of them.
const MAX_WORDS: usize = 256;

/// The catalogue that ships, as a file.
pub(super) fn shipped_source() -> SourceFile {
    SourceFile::shipped(SHIPPED.0, SHIPPED.1)
}

/// An agent runtime.
#[derive(Clone, Debug)]
pub struct Runtime {
    /// What people call it.
    pub name: Located<String>,
    /// Images that are it.
    pub executables: Vec<PathPattern>,
    /// Scripts that are it, whatever interprets them.
    pub scripts: Vec<PathPattern>,
    /// npm packages that its scripts lie in.
    pub npm: Vec<String>,
    /// Python modules that its scripts lie in, or import.
    pub python: Vec<String>,
    /// Variables that it marks its children with.
    pub environment: Vec<String>,
    entry: Kept,
}

/// What runs scripts.
#[derive(Clone, Debug)]
pub struct Interpreter {
    /// What people call it.
    pub name: Located<String>,
    /// Images that are it.
    pub executables: Vec<PathPattern>,
    /// Dynamic symbols that only its image has.
    pub symbols: Vec<String>,
    /// Files beside an image that say that it is something else.
    pub unless_beside: Vec<String>,
    /// Words before the script that are none.
    pub subcommands: Vec<String>,
    entry: Kept,
}

/// What answers agents.
#[derive(Clone, Debug)]
pub struct ModelServer {
    /// What people call it.
    pub name: Located<String>,
    /// Images that are it.
    pub executables: Vec<PathPattern>,
    /// Python modules that are it.
    pub python: Vec<String>,
    /// Where it listens.
    pub addresses: Vec<NetworkRule>,
    entry: Kept,
}

/// How an entry stands to another of its name.
#[derive(Clone, Copy, Debug)]
struct Kept {
    shipped: bool,
    replace: bool,
}

/// All entries, shipped ones first.
#[derive(Clone, Debug, Default)]
pub struct Catalogue {
    /// Agent runtimes.
    pub runtimes: Vec<Runtime>,
    /// What runs scripts.
    pub interpreters: Vec<Interpreter>,
    /// What answers agents.
    pub model_servers: Vec<ModelServer>,
}

/// An entry of any kind.
trait Entry {
    /// The heading that it stands under, as messages give it.
    const HEADING: &'static str;
    /// What a process can be found by.
    const KEYS: &'static str;
    fn name(&self) -> &Located<String>;
    fn kept(&self) -> Kept;
    /// Whether nothing can be one.
    fn names_nothing(&self) -> bool;
}

macro_rules! entry {
    ($kind:ident, $heading:literal, $($list:ident),+) => {
        impl Entry for $kind {
            const HEADING: &'static str = $heading;
            const KEYS: &'static str = concat!($("`", stringify!($list), "` "),+);
            fn name(&self) -> &Located<String> {
                &self.name
            }
            fn kept(&self) -> Kept {
                self.entry
            }
            fn names_nothing(&self) -> bool {
                $(self.$list.is_empty())&&+
            }
        }
    };
}

entry!(Runtime, "[[runtime]]", executables, scripts, npm, python);
entry!(Interpreter, "[[interpreter]]", executables, symbols);
entry!(ModelServer, "[[model_server]]", executables, python, addresses);

impl Catalogue {
    /// The one that ships, by itself.
    pub fn shipped() -> &'static Self {
        static SHIPPED: LazyLock<Catalogue> = LazyLock::new(|| {
            super::Sources::default().load(&super::ThisHost).map(|config| config.catalogue).unwrap_or_default()
        });
        &SHIPPED
    }

    /// Adds what a file says.
    pub(super) fn add_file(&mut self, mut top: Section<'_>, reading: &mut Reading<'_>) {
        for section in top.sections("runtime", Runtime::HEADING, &mut reading.problems) {
            add(&mut self.runtimes, read_runtime(section, reading), reading);
        }
        for section in top.sections("interpreter", Interpreter::HEADING, &mut reading.problems) {
            add(&mut self.interpreters, read_interpreter(section, reading), reading);
        }
        for section in top.sections("model_server", ModelServer::HEADING, &mut reading.problems) {
            add(&mut self.model_servers, read_model_server(section, reading), reading);
        }
        top.finish(&mut reading.problems);
    }

    /// Takes out what was put there to stand for nothing.
    pub(super) fn settle(&mut self) {
        self.runtimes.retain(|entry| !entry.names_nothing());
        self.interpreters.retain(|entry| !entry.names_nothing());
        self.model_servers.retain(|entry| !entry.names_nothing());
    }

    /// The runtime that an image is by itself, and by which pattern.
    pub fn runtime_of_image(&self, path: &[u8]) -> Option<(&Runtime, &PathPattern)> {
        self.runtimes.iter().find_map(|runtime| Some((runtime, matching(&runtime.executables, path)?)))
    }

    /// The interpreter that an image is by its name.
    pub fn interpreter_named(&self, path: &[u8]) -> Option<&Interpreter> {
        self.interpreters.iter().find(|interpreter| matching(&interpreter.executables, path).is_some())
    }

    /// The model server that an image is by itself.
    pub fn model_server_of_image(&self, path: &[u8]) -> Option<&ModelServer> {
        self.model_servers.iter().find(|server| matching(&server.executables, path).is_some())
    }

    /// The model server that answers at that address.
    pub fn model_server_at(&self, address: SocketAddr) -> Option<&ModelServer> {
        let at = |server: &&ModelServer| server.addresses.iter().any(|rule| rule.pattern.matches(address));
        self.model_servers.iter().find(at)
    }
}

/// The pattern that a path falls under.
pub fn matching<'a>(patterns: &'a [PathPattern], path: &[u8]) -> Option<&'a PathPattern> {
    patterns.iter().find(|pattern| pattern.matches(path))
}

/// Adds an entry to those known, or reports why it cannot be.
fn add<T: Entry>(known: &mut Vec<T>, entry: Option<T>, reading: &mut Reading<'_>) {
    let Some(entry) = entry else { return };
    let name = entry.name().value.clone();
    let origin = entry.name().origin.clone();
    let place = known.iter().position(|known| known.name().value == name);
    let Some(first) = place.and_then(|place| known.get_mut(place)) else {
        if entry.kept().replace {
            let shipped = known.iter().filter(|known| known.kept().shipped).map(|known| known.name().value.as_str());
            let shipped = shipped.collect::<Vec<_>>().join(", ");
            return reading.fault(&origin, Fault::NothingInCatalogue { heading: T::HEADING, name, shipped });
        }
        if entry.names_nothing() {
            return reading.fault(&origin, Fault::NamesNothing { heading: T::HEADING, name, keys: T::KEYS.trim_end() });
        }
        return known.push(entry);
    };
    if first.kept().shipped && entry.kept().replace {
        let what = if entry.names_nothing() { "takes out" } else { "takes the place of" };
        reading.note(&origin, format!("this {what} the {} `{name}` that ships", T::HEADING));
        *first = entry;
    } else {
        let first = first.name().origin.clone();
        reading.fault(&origin, Fault::TwiceInCatalogue { heading: T::HEADING, name, first });
    }
}

fn read_head(section: &mut Section<'_>, reading: &mut Reading<'_>) -> Option<(Located<String>, Kept)> {
    let name = read_name(section, "name = \"my-agent\"", reading);
    let replace = section.boolean("replace", &mut reading.problems).is_some_and(|replace| replace.value);
    name.map(|name| (name, Kept { shipped: reading.shipped, replace }))
}

fn read_runtime(mut section: Section<'_>, reading: &mut Reading<'_>) -> Option<Runtime> {
    let head = read_head(&mut section, reading);
    let executables = patterns(&mut section, "executables", reading);
    let scripts = patterns(&mut section, "scripts", reading);
    let npm = words(&mut section, "npm", "a package's name, as in `@scope/name`", is_npm, reading);
    let python = words(&mut section, "python", MODULE, is_module, reading);
    let environment = words(&mut section, "environment", "a variable's name, without `=`", is_plain, reading);
    section.finish(&mut reading.problems);
    head.map(|(name, entry)| Runtime { name, executables, scripts, npm, python, environment, entry })
}

fn read_interpreter(mut section: Section<'_>, reading: &mut Reading<'_>) -> Option<Interpreter> {
    let head = read_head(&mut section, reading);
    let executables = patterns(&mut section, "executables", reading);
    let symbols = words(&mut section, "symbols", "a symbol's name", is_plain, reading);
    let unless_beside = words(&mut section, "unless_beside", "a file's name, without `/`", is_file_name, reading);
    let subcommands = words(&mut section, "subcommands", "a word", is_plain, reading);
    section.finish(&mut reading.problems);
    head.map(|(name, entry)| Interpreter { name, executables, symbols, unless_beside, subcommands, entry })
}

fn read_model_server(mut section: Section<'_>, reading: &mut Reading<'_>) -> Option<ModelServer> {
    let head = read_head(&mut section, reading);
    let executables = patterns(&mut section, "executables", reading);
    let python = words(&mut section, "python", MODULE, is_module, reading);
    let addresses = reading.addresses(&mut section, "addresses");
    section.finish(&mut reading.problems);
    head.map(|(name, entry)| ModelServer { name, executables, python, addresses, entry })
}

fn patterns(section: &mut Section<'_>, key: &'static str, reading: &mut Reading<'_>) -> Vec<PathPattern> {
    let texts = section.strings(key, &mut reading.problems).unwrap_or_default();
    let texts = bounded(texts, section, key, reading);
    let parsed = texts.iter().filter_map(|text| match PathPattern::parse(text.value) {
        Ok(pattern) => Some(pattern),
        Err(error) => {
            reading.fault(&text.origin, Fault::Pattern { text: text.value.to_owned(), error });
            None
        }
    });
    parsed.collect()
}

fn words(
    section: &mut Section<'_>,
    key: &'static str,
    wanted: &str,
    is_right: fn(&str) -> bool,
    reading: &mut Reading<'_>,
) -> Vec<String> {
    let texts = section.strings(key, &mut reading.problems).unwrap_or_default();
    let texts = bounded(texts, section, key, reading);
    let mut words = Vec::new();
    for text in texts {
        if !text.value.is_empty() && text.value.len() <= MAX_WORD_BYTES && is_right(text.value) {
            words.push(text.value.to_owned());
        } else {
            let value = format!("{:?}", text.value.chars().take(80).collect::<String>());
            reading.fault(&text.origin, Fault::Range { key, value, wanted: wanted.to_owned() });
        }
    }
    words
}

fn bounded<'a>(
    texts: Vec<Located<&'a str>>,
    section: &Section<'_>,
    key: &'static str,
    reading: &mut Reading<'_>,
) -> Vec<Located<&'a str>> {
    if texts.len() <= MAX_WORDS {
        return texts;
    }
    let fault = Fault::TooMany { key: key.to_owned(), found: texts.len(), limit: MAX_WORDS };
    reading.fault(&section.key_origin(key), fault);
    Vec::new()
}

const MODULE: &str = "a module's name as Python imports it, as in `package` or `package.module`";

fn is_module(text: &str) -> bool {
    text.split('.').all(|part| {
        part.starts_with(|first: char| first.is_ascii_alphabetic() || first == '_')
            && part.chars().all(|other| other.is_ascii_alphanumeric() || other == '_')
    })
}

fn is_npm(text: &str) -> bool {
    let part = |part: &str| {
        !part.is_empty()
            && !part.starts_with('.')
            && part.chars().all(|one| one.is_ascii_alphanumeric() || "._-~".contains(one))
    };
    match text.strip_prefix('@') {
        Some(scoped) => scoped.split_once('/').is_some_and(|(scope, name)| part(scope) && part(name)),
        None => part(text),
    }
}

fn is_plain(text: &str) -> bool {
    !text.contains(|one: char| one == '=' || one.is_whitespace() || one.is_control())
}

fn is_file_name(text: &str) -> bool {
    !text.contains(['/', '\0']) && text != "." && text != ".."
}

#[cfg(test)]
#[path = "catalogue_tests.rs"]
mod tests;
