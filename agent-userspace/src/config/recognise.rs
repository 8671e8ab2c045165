//! Whose process is it? Which declaration recognises a process, by what, and how sure that is.
//!
//! Input: the declarations, and what is known of a process at an exec. Output: the best match. Pure but for the injected
//! [`Lookups`]. All selectors of a `[[recognise]]` table must hold; of several tables, any.
//!
//! **Method and confidence** of a table are those of its strongest selector, in this order: executable, `#!` script, unit,
//! control group, user (all certain), script named to an interpreter (probable), argv, environment (claimed). One exception:
//! where a table has a `script` that holds only because it was named to an interpreter, the whole is probable, even beside
//! `executable`, which then says no more than which interpreter it is.
//!
//! **Which table wins** where several hold: the one whose strongest kind of selector is the stronger; of equal ones the one
//! with the stronger second kind, and so on, so that a narrower table beats a wider one (`node` with a script beats `node`
//! alone); then a path without wildcards before one with; then the longer patterns; then the first declared. Tables that ask
//! for exactly the same never get here: they are refused at load. `bailiwick run` names its agent, and is not decided here.

use std::path::{Path, PathBuf};

use super::declaration::Declaration;
use super::host::FileIdentity;
use super::selectors::{ExecutableSelector, PathSelector, Recognise};
use crate::entry::{Confidence, Method};

/// What is looked up only when a selector asks for it.
pub trait Lookups {
    /// The SHA-256 of the executable's file.
    fn sha256(&self) -> Option<[u8; 32]>;
    /// The value of an environment variable.
    fn environment(&self, key: &str) -> Option<Vec<u8>>;
    /// A path with its symlinks resolved.
    fn canonicalize(&self, path: &Path) -> Option<PathBuf>;
}

/// What is known of a process.
#[derive(Clone, Copy)]
pub struct Facts<'a> {
    /// The image's path as the kernel resolved it: for a `#!` script its interpreter.
    pub executable: Option<&'a [u8]>,
    /// The image's file.
    pub identity: Option<FileIdentity>,
    /// The `#!` script's path as it was given to the exec.
    pub script: Option<&'a [u8]>,
    /// The command line.
    pub argv: &'a [Vec<u8>],
    /// Where relative paths of the command line begin.
    pub working_directory: Option<&'a [u8]>,
    /// The effective user.
    pub uid: u32,
    /// The control group's path, from its hierarchy's root.
    pub cgroup: Option<&'a [u8]>,
    /// The rest.
    pub lookups: &'a dyn Lookups,
}

/// A recognised process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Recognised {
    /// The position of the agent's declaration.
    pub agent: usize,
    /// By what.
    pub method: Method,
    /// How sure that is.
    pub confidence: Confidence,
}

/// Kinds of selectors, strongest first; each a bit, so that sets of them compare as numbers.
mod kind {
    pub(super) const EXECUTABLE: u16 = 1 << 8;
    pub(super) const HASH: u16 = 1 << 7;
    pub(super) const SHEBANG_SCRIPT: u16 = 1 << 6;
    pub(super) const UNIT: u16 = 1 << 5;
    pub(super) const CGROUP: u16 = 1 << 4;
    pub(super) const USER: u16 = 1 << 3;
    pub(super) const NAMED_SCRIPT: u16 = 1 << 2;
    pub(super) const ARGV: u16 = 1 << 1;
    pub(super) const ENVIRONMENT: u16 = 1;
}

/// How good a match is; greater is better.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Strength {
    kinds: u16,
    literal_paths: u8,
    pattern_bytes: usize,
}

/// The declaration that recognises a process best.
pub fn recognise(declarations: &[Declaration], facts: &Facts<'_>) -> Option<Recognised> {
    let mut best: Option<(Strength, usize)> = None;
    for (agent, declaration) in declarations.iter().enumerate() {
        for table in &declaration.recognise {
            let Some(strength) = table.holds(facts) else { continue };
            if best.is_none_or(|(so_far, _)| strength > so_far) {
                best = Some((strength, agent));
            }
        }
    }
    let (strength, agent) = best?;
    let (method, confidence) = strength.method();
    Some(Recognised { agent, method, confidence })
}

impl Strength {
    fn method(self) -> (Method, Confidence) {
        let has = |kind: u16| self.kinds & kind != 0;
        if has(kind::NAMED_SCRIPT) {
            return (Method::Script, Confidence::Probable);
        }
        // A script that the kernel ran by its `#!` says more than which interpreter runs it.
        if has(kind::SHEBANG_SCRIPT) {
            return (Method::Script, Confidence::Certain);
        }
        let certain = [
            (kind::EXECUTABLE, Method::Executable),
            (kind::UNIT, Method::Unit),
            (kind::CGROUP, Method::Cgroup),
            (kind::USER, Method::User),
        ];
        match certain.into_iter().find(|(kind, _)| has(*kind)) {
            Some((_, method)) => (method, Confidence::Certain),
            None if has(kind::ARGV) => (Method::Argv, Confidence::Claimed),
            None => (Method::Environment, Confidence::Claimed),
        }
    }
}

impl Recognise {
    /// How good a match the table is, where all that it asks for holds. What costs most is asked last.
    fn holds(&self, facts: &Facts<'_>) -> Option<Strength> {
        let mut strength = Strength { kinds: 0, literal_paths: 0, pattern_bytes: 0 };
        if let Some(uid) = self.uid {
            strength.require(uid == facts.uid, kind::USER)?;
        }
        if let Some(executable) = &self.executable {
            strength.require(is_executable(executable, facts), kind::EXECUTABLE)?;
            strength.add_path(&executable.path);
        }
        if !self.argv.is_empty() {
            let here = |run: &[Vec<u8>]| run.iter().zip(&self.argv).all(|(argument, glob)| glob.matches(argument));
            strength.require(facts.argv.windows(self.argv.len()).any(here), kind::ARGV)?;
            strength.pattern_bytes += self.argv.len();
        }
        if let Some(unit) = &self.unit {
            let component = |group: &[u8]| group.split(|byte| *byte == b'/').any(|component| unit.matches(component));
            strength.require(facts.cgroup.is_some_and(component), kind::UNIT)?;
        }
        if let Some(cgroup) = &self.cgroup {
            strength.require(facts.cgroup.is_some_and(|group| cgroup.matches(group)), kind::CGROUP)?;
            strength.pattern_bytes += cgroup.text().len();
        }
        if let Some(script) = &self.script {
            let kind = script_kind(script, facts)?;
            strength.require(true, kind)?;
            strength.add_path(script);
        }
        for marker in &self.environment {
            let value = facts.lookups.environment(&marker.key)?;
            let holds = marker.value.as_ref().is_none_or(|glob| glob.matches(&value));
            strength.require(holds, kind::ENVIRONMENT)?;
            strength.pattern_bytes += marker.key.len();
        }
        if let Some(hash) = self.executable.as_ref().and_then(|executable| executable.sha256) {
            strength.require(facts.lookups.sha256() == Some(hash), kind::HASH)?;
        }
        Some(strength)
    }
}

impl Strength {
    fn require(&mut self, holds: bool, kind: u16) -> Option<()> {
        self.kinds |= kind;
        holds.then_some(())
    }

    fn add_path(&mut self, path: &PathSelector) {
        self.literal_paths += u8::from(path.pattern.as_literal().is_some());
        self.pattern_bytes += path.pattern.text().len();
    }
}

fn is_executable(selector: &ExecutableSelector, facts: &Facts<'_>) -> bool {
    let same_file = selector.identity.is_some() && selector.identity == facts.identity;
    same_file || facts.executable.is_some_and(|path| selector.path.matches(path))
}

/// Whether the process runs the script, and how that is known.
fn script_kind(selector: &PathSelector, facts: &Facts<'_>) -> Option<u16> {
    if let Some(script) = facts.script {
        return selects(selector, script, facts).then_some(kind::SHEBANG_SCRIPT);
    }
    let named = script_argument(facts.argv)?;
    selects(selector, named, facts).then_some(kind::NAMED_SCRIPT)
}

/// Whether a path as a process gave it, or what it leads to, is selected.
fn selects(selector: &PathSelector, given: &[u8], facts: &Facts<'_>) -> bool {
    let absolute = if given.first() == Some(&b'/') {
        given.to_vec()
    } else {
        let Some(directory) = facts.working_directory else { return selector.matches(given) };
        [directory, b"/", given].concat()
    };
    if selector.matches(&absolute) {
        return true;
    }
    let path = Path::new(<std::ffi::OsStr as std::os::unix::ffi::OsStrExt>::from_bytes(&absolute));
    let resolved = facts.lookups.canonicalize(path);
    resolved.is_some_and(|resolved| selector.matches(resolved.as_os_str().as_encoded_bytes()))
}

/// Options of common interpreters that take the next argument, so that it is no script.
const OPTIONS_WITH_VALUE: [(&str, &[&str]); 7] = [
    ("python", &["-W", "-X", "--check-hash-based-pycs"]),
    ("pypy", &["-W", "-X"]),
    ("node", &["-r", "--require", "--import", "--loader", "--experimental-loader", "-C", "--conditions", "--env-file"]),
    ("ruby", &["-I", "-r", "-C", "-E"]),
    ("bash", &["-o", "+o", "-O", "+O", "--rcfile", "--init-file"]),
    ("dash", &["-o", "+o"]),
    ("sh", &["-o", "+o"]),
];

/// Options after which the program itself stands in the command line, and no script does.
const NO_SCRIPT_AFTER: [&str; 6] = ["-c", "-e", "-m", "-p", "--eval", "--print"];

/// The script that a command line names to an interpreter: its first argument that is no option.
pub(crate) fn script_argument(argv: &[Vec<u8>]) -> Option<&[u8]> {
    let (program, arguments) = argv.split_first()?;
    let name = program.rsplit(|byte| *byte == b'/').next().unwrap_or_default();
    let known = OPTIONS_WITH_VALUE.iter().find(|(interpreter, _)| is_version_of(name, interpreter.as_bytes()));
    let with_value = known.map_or(&[][..], |(_, options)| options);
    let is = |argument: &[u8], options: &[&str]| options.iter().any(|option| option.as_bytes() == argument);
    let mut arguments = arguments.iter();
    while let Some(argument) = arguments.next() {
        if is(argument, &NO_SCRIPT_AFTER) {
            return None;
        }
        if argument == b"--" {
            return arguments.next().map(Vec::as_slice);
        }
        if is(argument, with_value) {
            arguments.next();
        } else if !argument.starts_with(b"-") && !argument.starts_with(b"+") {
            return Some(argument);
        }
    }
    None
}

/// Whether a program's name is the interpreter's, with or without a version: `python3.11` is `python`.
fn is_version_of(name: &[u8], interpreter: &[u8]) -> bool {
    name.strip_prefix(interpreter)
        .is_some_and(|version| version.iter().all(|byte| byte.is_ascii_digit() || *byte == b'.'))
}

#[cfg(test)]
#[path = "recognise_tests.rs"]
mod tests;
