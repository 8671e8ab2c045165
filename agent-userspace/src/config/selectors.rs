//! How a process is recognised as an agent's: the tables under `[[recognise]]`.
//!
//! Input: one such table. Output: a [`Recognise`], all of whose selectors must hold. Refuses a table without a selector,
//! a hash without its executable, and what is not supported yet.

use std::path::Path;

use super::fault::Fault;
use super::host::FileIdentity;
use super::kernel_selectors::expand;
use super::reader::{Located, Section};
use super::rules::Reading;
use crate::scope::glob::Glob;
use crate::scope::grant::Origin;
use crate::scope::pattern::{Part, PathPattern};

/// A path selector, and the same with its symlinks resolved.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct PathSelector {
    /// As declared.
    pub pattern: PathPattern,
    /// With the symlinks of its literal beginning resolved, where that makes another one.
    pub resolved: Option<PathPattern>,
}

impl PathSelector {
    /// Whether a path is selected.
    pub fn matches(&self, path: &[u8]) -> bool {
        self.pattern.matches(path) || self.resolved.as_ref().is_some_and(|resolved| resolved.matches(path))
    }

    /// The pattern that the kernel's resolved paths are compared with.
    pub fn as_resolved(&self) -> &PathPattern {
        self.resolved.as_ref().unwrap_or(&self.pattern)
    }
}

/// `executable`, and `sha256` beside it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExecutableSelector {
    /// The path.
    pub path: PathSelector,
    /// The file that a path without wildcards led to when the configuration was loaded.
    pub identity: Option<FileIdentity>,
    /// The hash that the file must have.
    pub sha256: Option<[u8; 32]>,
}

/// One of `environment`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct EnvironmentSelector {
    /// The variable.
    pub key: String,
    /// What its value must match; none: any value will do.
    pub value: Option<Glob>,
}

/// One `[[recognise]]` table; all that it names must hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recognise {
    /// Where it stands.
    pub origin: Origin,
    /// The image.
    pub executable: Option<ExecutableSelector>,
    /// A `#!` script, or one named to an interpreter.
    pub script: Option<PathSelector>,
    /// Arguments that follow each other anywhere in the command line; empty: not asked for.
    pub argv: Vec<Glob>,
    /// Environment markers; empty: not asked for.
    pub environment: Vec<EnvironmentSelector>,
    /// The user, by number.
    pub uid: Option<u32>,
    /// A systemd unit: a component of the control group's path.
    pub unit: Option<Glob>,
    /// The control group, as `/proc/PID/cgroup` names it.
    pub cgroup: Option<PathPattern>,
}

/// The selectors, as messages list them.
pub(super) const SELECTORS: &str = "`executable`, `script`, `argv`, `environment`, `user`, `unit`, `cgroup`";

/// Reads a table; none where it selects nothing or a selector is faulty, so that no wider one takes its place.
pub(super) fn read(mut table: Section<'_>, environment: &[String], reading: &mut Reading<'_>) -> Option<Recognise> {
    let faults_before = reading.problems.len();
    let recognise = Recognise {
        origin: table.origin(),
        executable: read_executable(&mut table, reading),
        script: read_path(&mut table, "script", reading),
        argv: read_argv(&mut table, reading),
        environment: read_environment(&mut table, environment, reading),
        uid: read_user(&mut table, reading),
        unit: read_unit(&mut table, reading),
        cgroup: read_cgroup(&mut table, reading),
    };
    if table.has("container") {
        let _ = table.string("container", &mut reading.problems);
        let instead = "use `cgroup` with the container's control group, or `bailiwick run`";
        let fault = Fault::NotYet { what: "recognising a `container`".to_owned(), instead };
        reading.fault(&table.key_origin("container"), fault);
    }
    let origin = table.origin();
    table.finish(&mut reading.problems);
    if reading.problems.len() > faults_before {
        return None;
    }
    if !recognise.selects() {
        reading.fault(&origin, Fault::EmptyRecognise(SELECTORS.to_owned()));
        return None;
    }
    Some(recognise)
}

impl Recognise {
    fn selects(&self) -> bool {
        self.executable.is_some()
            || self.script.is_some()
            || self.uid.is_some()
            || !self.argv.is_empty()
            || !self.environment.is_empty()
            || self.unit.is_some()
            || self.cgroup.is_some()
    }

    /// Whether the two ask for the same, wherever they stand: then neither is the better match for any process.
    pub fn asks_the_same_as(&self, other: &Self) -> bool {
        fn executable(of: &Recognise) -> Option<(&PathPattern, Option<[u8; 32]>)> {
            of.executable.as_ref().map(|executable| (executable.path.as_resolved(), executable.sha256))
        }
        fn sorted(of: &Recognise) -> Vec<&EnvironmentSelector> {
            let mut markers: Vec<_> = of.environment.iter().collect();
            markers.sort_by(|one, two| one.key.cmp(&two.key));
            markers
        }
        let script = |of: &Self| of.script.as_ref().map(|script| script.as_resolved().clone());
        executable(self) == executable(other)
            && script(self) == script(other)
            && self.argv == other.argv
            && sorted(self) == sorted(other)
            && (self.uid, &self.unit, &self.cgroup) == (other.uid, &other.unit, &other.cgroup)
    }
}

fn read_path(table: &mut Section<'_>, key: &'static str, reading: &mut Reading<'_>) -> Option<PathSelector> {
    let text = table.string(key, &mut reading.problems)?;
    let rule = reading.path_rule(&text)?;
    if let Some(path) = rule.pattern.as_literal()
        && reading.host.identity(Path::new(path)).is_none()
    {
        reading.note(
            &text.origin,
            format!("there is no file {path}: a `{key}` that appears later counts from the next reload"),
        );
    }
    Some(PathSelector { pattern: rule.pattern, resolved: rule.resolved })
}

fn read_executable(table: &mut Section<'_>, reading: &mut Reading<'_>) -> Option<ExecutableSelector> {
    let sha256 = table.string("sha256", &mut reading.problems);
    let hash = sha256.as_ref().and_then(|text| parse_sha256(text, reading));
    if let Some(sha256) = sha256.as_ref().filter(|_| !table.has("executable")) {
        reading.fault(&sha256.origin, Fault::Sha256Alone);
    }
    let origin = table.key_origin("executable");
    let path = read_path(table, "executable", reading)?;
    let any = |part: &Part| match part {
        Part::AnyDepth => true,
        Part::Glob(glob) => glob.literal_prefix().is_empty() && glob.literal_suffix().is_empty(),
        Part::Literal(_) => false,
    };
    if path.pattern.parts().iter().all(any) {
        reading.fault(&origin, Fault::AnyExecutable(path.pattern.text().to_owned()));
        return None;
    }
    if path.pattern.as_literal().is_none() && !path.pattern.parts().contains(&Part::AnyDepth) {
        let files = expand(path.as_resolved(), reading.host).len();
        let text = format!(
            "\"{}\" leads to {files} files now; those that appear later are recognised from the next reload on",
            path.pattern
        );
        reading.note(&origin, text);
    }
    let identity = path.pattern.as_literal().and_then(|path| reading.host.identity(Path::new(path)));
    Some(ExecutableSelector { path, identity, sha256: hash })
}

fn parse_sha256(text: &Located<&str>, reading: &mut Reading<'_>) -> Option<[u8; 32]> {
    let mut hash = [0; 32];
    let digits = text.value.as_bytes();
    let mut pairs = digits.chunks_exact(2);
    let parsed = digits.len() == 64
        && hash.iter_mut().all(|byte| {
            let pair = pairs.next().filter(|pair| pair.iter().all(u8::is_ascii_hexdigit));
            let value = pair.and_then(|pair| std::str::from_utf8(pair).ok()).map(|pair| u8::from_str_radix(pair, 16));
            value.and_then(Result::ok).map(|value| *byte = value).is_some()
        });
    if !parsed {
        reading.fault(&text.origin, Fault::Sha256(text.value.escape_debug().take(80).collect()));
    }
    parsed.then_some(hash)
}

fn glob(text: &Located<&str>, reading: &mut Reading<'_>) -> Option<Glob> {
    parse_glob(text.value, text, reading)
}

fn parse_glob(glob: &str, text: &Located<&str>, reading: &mut Reading<'_>) -> Option<Glob> {
    match Glob::parse(glob) {
        Ok(glob) => Some(glob),
        Err(error) => {
            reading.fault(&text.origin, Fault::Glob { text: text.value.escape_debug().take(80).collect(), error });
            None
        }
    }
}

fn read_argv(table: &mut Section<'_>, reading: &mut Reading<'_>) -> Vec<Glob> {
    let arguments = table.strings("argv", &mut reading.problems).unwrap_or_default();
    arguments.iter().filter_map(|argument| glob(argument, reading)).collect()
}

fn read_environment(
    table: &mut Section<'_>,
    allowed: &[String],
    reading: &mut Reading<'_>,
) -> Vec<EnvironmentSelector> {
    let mut selectors = Vec::new();
    for text in table.strings("environment", &mut reading.problems).unwrap_or_default() {
        let (key, value) = match text.value.split_once('=') {
            Some((key, value)) => (key, Some(value)),
            None => (text.value, None),
        };
        if key.is_empty() {
            reading.fault(&text.origin, Fault::EnvironmentKey(text.value.escape_debug().take(80).collect()));
        } else if !allowed.iter().any(|known| known == key) {
            let key = key.escape_debug().take(80).collect();
            reading.fault(&text.origin, Fault::EnvironmentNotRead { key, allowed: allowed.join(", ") });
        } else {
            let value = value.map(|value| parse_glob(value, &text, reading));
            if value != Some(None) {
                selectors.push(EnvironmentSelector { key: key.to_owned(), value: value.flatten() });
            }
        }
    }
    selectors
}

fn read_user(table: &mut Section<'_>, reading: &mut Reading<'_>) -> Option<u32> {
    let user = table.string_or_integer("user", &mut reading.problems)?;
    let uid = user.value.parse().ok().or_else(|| reading.host.user_id(&user.value));
    if uid.is_none() {
        reading.fault(&user.origin, Fault::UnknownUser(user.value.escape_debug().take(80).collect()));
    }
    uid
}

fn read_unit(table: &mut Section<'_>, reading: &mut Reading<'_>) -> Option<Glob> {
    let unit = table.string("unit", &mut reading.problems)?;
    let kind = [".service", ".scope", ".slice"].into_iter().find(|kind| unit.value.ends_with(kind));
    if kind.is_none_or(|kind| unit.value.len() == kind.len()) || unit.value.contains('/') {
        reading.fault(&unit.origin, Fault::Unit(unit.value.escape_debug().take(80).collect()));
        return None;
    }
    glob(&unit, reading)
}

fn read_cgroup(table: &mut Section<'_>, reading: &mut Reading<'_>) -> Option<PathPattern> {
    let text = table.string("cgroup", &mut reading.problems)?;
    match PathPattern::parse(text.value) {
        Ok(pattern) => Some(pattern),
        Err(error) => {
            reading.fault(&text.origin, Fault::Pattern { text: text.value.to_owned(), error });
            None
        }
    }
}
