//! What one process is: by its image, or by the script or module that its interpreter runs.
//!
//! Input: a process as it was seen, and the catalogue. Output: what it is, with the evidence. Files are read in the process's
//! own root, the beginning of them alone. Refuses: a name without evidence.

use super::image::Images;
use super::{Evidence, Kind, Proof, Seen};
use crate::attribute::procfs::ProcFs;
use crate::config::catalogue::{Catalogue, Interpreter, Runtime, matching};
use crate::config::recognise::script_argument;
use crate::scope::recorded::readable;

/// The most that is read of a script: imports stand at its beginning.
const MOST_SCRIPT_BYTES: u64 = 64 << 10;

/// What a process is.
#[derive(Clone, Debug)]
pub(super) struct Identified {
    pub(super) name: String,
    pub(super) kind: Kind,
    pub(super) evidence: Vec<Evidence>,
    /// What of it a declaration can name.
    pub(super) run: Run,
}

/// What a process runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Run {
    /// Its image.
    Image,
    /// A script, at that path.
    Script(Vec<u8>),
    /// A module of Python's.
    Module(String),
}

/// What is looked at for it.
pub(super) struct Identifier<'a> {
    pub(super) proc: &'a ProcFs,
    pub(super) images: &'a mut Images,
    pub(super) catalogue: &'a Catalogue,
}

impl Identifier<'_> {
    /// What a process is, where the catalogue knows it.
    pub(super) fn identify(&mut self, seen: &Seen) -> Option<Identified> {
        let by_image = self.by_image(seen);
        let (run, is_python) = match by_image {
            Some(identified) => return Some(self.with_marker(seen, identified)),
            None => self.run(seen)?,
        };
        let identified = match &run {
            Run::Image => return None,
            Run::Module(module) => self.by_module(module),
            Run::Script(path) => self.by_script(seen.tgid, path, is_python),
        };
        identified.map(|identified| self.with_marker(seen, identified))
    }

    fn by_image(&self, seen: &Seen) -> Option<Identified> {
        let what = readable(&seen.executable).0;
        let evidence = |because: String| Evidence { kind: Proof::Executable, what: what.clone(), because };
        if let Some((runtime, pattern)) = self.catalogue.runtime_of_image(&seen.executable) {
            let name = runtime.name.value.clone();
            let evidence = vec![evidence(format!("{name}: executables {pattern}"))];
            return Some(Identified { name, kind: Kind::Agent, evidence, run: Run::Image });
        }
        let server = self.catalogue.model_server_of_image(&seen.executable)?;
        let name = server.name.value.clone();
        let evidence = vec![evidence(format!("{name}: executables"))];
        Some(Identified { name, kind: Kind::ModelServer, evidence, run: Run::Image })
    }

    /// What the process's interpreter runs, where it is one, and whether that is Python.
    fn run(&mut self, seen: &Seen) -> Option<(Run, bool)> {
        if seen.arguments.len() < 2 {
            return None;
        }
        let interpreter = self.images.interpreter(self.proc, self.catalogue, seen)?;
        let is_python = interpreter.name.value == "python";
        let arguments = arguments_for(interpreter, &seen.arguments);
        if is_python && let Some(module) = module_argument(&arguments) {
            return Some((Run::Module(module), true));
        }
        let script = script_argument(&arguments)?;
        let path = match script.first() {
            Some(b'/') => script.to_vec(),
            Some(_) => [&self.proc.directory(seen.tgid)?[..], b"/", script].concat(),
            None => return None,
        };
        Some((Run::Script(path), is_python))
    }

    fn by_module(&self, module: &str) -> Option<Identified> {
        let (name, kind, known) = self.python().find(|(_, _, known)| is_within(module, known))?;
        let because = format!("{name}: python {known}");
        let evidence = vec![Evidence { kind: Proof::Module, what: module.to_owned(), because }];
        Some(Identified { name: name.to_owned(), kind, evidence, run: Run::Module(module.to_owned()) })
    }

    /// Every Python module of the catalogue, with whose it is.
    fn python(&self) -> impl Iterator<Item = (&str, Kind, &str)> {
        let runtimes =
            self.catalogue.runtimes.iter().flat_map(|one| {
                one.python.iter().map(|module| (one.name.value.as_str(), Kind::Agent, module.as_str()))
            });
        let servers = self.catalogue.model_servers.iter().flat_map(|one| {
            one.python.iter().map(|module| (one.name.value.as_str(), Kind::ModelServer, module.as_str()))
        });
        runtimes.chain(servers)
    }

    fn by_script(&self, tgid: u32, path: &[u8], is_python: bool) -> Option<Identified> {
        let (text, place) = self.proc.beginning_of(tgid, path, MOST_SCRIPT_BYTES)?;
        let (name, kind, because) = self.of_place(&place).or_else(|| {
            let imported = |(_, _, module): &(&str, Kind, &str)| imports(&text, module);
            let (name, kind, module) = self.python().filter(|_| is_python).find(imported)?;
            Some((name.to_owned(), kind, format!("imports {module}")))
        })?;
        let because = format!("{name}: {because}");
        let evidence = vec![Evidence { kind: Proof::Script, what: readable(path).0, because }];
        Some(Identified { name, kind, evidence, run: Run::Script(path.to_vec()) })
    }

    /// Whose a script is by where it really lies.
    fn of_place(&self, place: &[u8]) -> Option<(String, Kind, String)> {
        for runtime in &self.catalogue.runtimes {
            let of = |because: String| Some((runtime.name.value.clone(), Kind::Agent, because));
            if let Some(pattern) = matching(&runtime.scripts, place) {
                return of(format!("scripts {pattern}"));
            }
            let package = npm_package(place);
            if let Some(package) = runtime.npm.iter().find(|known| package == Some(known.as_bytes())) {
                return of(format!("npm {package}"));
            }
        }
        let module = python_module(place)?;
        let (name, kind, known) = self.python().find(|(_, _, known)| is_within(&module, known))?;
        Some((name.to_owned(), kind, format!("python {known}")))
    }

    /// Adds the marker of the same runtime, where the process carries it: a claim that agrees with what was found.
    fn with_marker(&self, seen: &Seen, mut identified: Identified) -> Identified {
        let runtime = self.catalogue.runtimes.iter().find(|runtime| runtime.name.value == identified.name);
        if let Some(runtime) = runtime.filter(|runtime| !runtime.environment.is_empty())
            && let Some(marker) = marker_in(&self.proc.environment(seen.tgid), runtime)
        {
            let because = format!("{}: environment", identified.name);
            identified.evidence.push(Evidence { kind: Proof::Environment, what: marker.to_owned(), because });
        }
        identified
    }
}

/// The marker of a runtime that an environment has.
pub(super) fn marker_in<'a>(environment: &[Vec<u8>], runtime: &'a Runtime) -> Option<&'a str> {
    let has = |marker: &&String| {
        let value = |variable: &Vec<u8>| {
            variable.strip_prefix(marker.as_bytes()).is_some_and(|rest| rest.first() == Some(&b'='))
        };
        environment.iter().any(value)
    };
    runtime.environment.iter().find(has).map(String::as_str)
}

/// The arguments with the interpreter's own name in front, whatever it is called, and without its subcommand.
fn arguments_for(interpreter: &Interpreter, arguments: &[Vec<u8>]) -> Vec<Vec<u8>> {
    let mut rest = arguments.get(1..).unwrap_or_default();
    if let Some((first, others)) = rest.split_first()
        && interpreter.subcommands.iter().any(|word| word.as_bytes() == first)
    {
        rest = others;
    }
    std::iter::once(interpreter.name.value.clone().into_bytes()).chain(rest.iter().cloned()).collect()
}

/// The module that a command line has Python run: what follows `-m`, where that comes before any script.
fn module_argument(arguments: &[Vec<u8>]) -> Option<String> {
    let at = arguments.iter().position(|argument| argument == b"-m")?;
    let before: Vec<Vec<u8>> = arguments.get(..at)?.to_vec();
    // What follows a script, or a program in the command line, is that one's.
    if script_argument(&before).is_some() || before.iter().any(|argument| argument == b"-c") {
        return None;
    }
    String::from_utf8(arguments.get(at + 1)?.clone()).ok()
}

/// Whether a module is the known one, or lies in it.
fn is_within(module: &str, known: &str) -> bool {
    module.strip_prefix(known).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
}

/// The npm package that a file lies in: the innermost.
fn npm_package(place: &[u8]) -> Option<&[u8]> {
    const WITHIN: &[u8] = b"/node_modules/";
    let at = place.windows(WITHIN.len()).rposition(|window| window == WITHIN)? + WITHIN.len();
    let rest = place.get(at..)?;
    let mut slashes = rest.iter().enumerate().filter(|(_, byte)| **byte == b'/').map(|(at, _)| at);
    let end = if rest.starts_with(b"@") { slashes.nth(1) } else { slashes.next() }?;
    rest.get(..end)
}

/// The Python module that an installed file is: `a.b` of `.../site-packages/a/b.py`.
fn python_module(place: &[u8]) -> Option<String> {
    let place = std::str::from_utf8(place).ok()?;
    let within = ["/site-packages/", "/dist-packages/"].into_iter().find_map(|within| place.rsplit_once(within))?;
    let file = within.1.strip_suffix(".py").unwrap_or(within.1);
    Some(file.replace('/', "."))
}

/// Whether a script imports a module, or one that lies in it, by a statement that begins its line.
fn imports(text: &[u8], module: &str) -> bool {
    let names = |rest: &[u8]| {
        let end = rest.iter().position(|byte| !(byte.is_ascii_alphanumeric() || b"_.".contains(byte)));
        let name = rest.get(..end.unwrap_or(rest.len())).unwrap_or_default();
        std::str::from_utf8(name).is_ok_and(|name| is_within(name, module))
    };
    text.split(|byte| *byte == b'\n').any(|line| {
        let line = line.trim_ascii_start();
        let after = |word: &[u8]| line.strip_prefix(word).map(<[u8]>::trim_ascii_start);
        match after(b"from ").or_else(|| after(b"import ")) {
            Some(rest) => rest.split(|byte| *byte == b',').any(|part| names(part.trim_ascii_start())),
            None => false,
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_import_is_one_of_the_module_itself() {
        assert!(imports(b"#!/x\nimport re\nfrom minisweagent.run.mini import app\n", "minisweagent"));
        assert!(imports(b"import os, aider.main\n", "aider"));
        assert!(imports(b"try:\n    import aider\n", "aider"));
        assert!(!imports(b"import aiderlike\n# import aider\n", "aider"));
        assert!(!imports(b"print('from aider import x')\n", "aider"));
        assert!(!imports(b"import interpreter\n", "interpreter.terminal_interface"));
    }

    #[test]
    fn a_package_is_the_innermost_one() {
        assert_eq!(npm_package(b"/usr/lib/node_modules/@openai/codex/bin/codex.js"), Some(&b"@openai/codex"[..]));
        assert_eq!(npm_package(b"/l/node_modules/@openai/codex/node_modules/x/y.js"), Some(&b"x"[..]));
        assert_eq!(npm_package(b"/l/node_modules/cline"), None);
        assert_eq!(npm_package(b"/srv/cline/cli.js"), None);
    }

    #[test]
    fn a_module_is_named_by_its_place_and_lies_within_its_package() {
        let module = python_module(b"/v/lib/python3.11/site-packages/aider/__main__.py");
        assert_eq!(module.as_deref(), Some("aider.__main__"));
        assert!(is_within("aider.__main__", "aider") && !is_within("aiders", "aider"));
    }

    #[test]
    fn a_module_is_what_follows_m_before_any_script() {
        let words = |line: &str| line.split(' ').map(|word| word.as_bytes().to_vec()).collect::<Vec<_>>();
        assert_eq!(module_argument(&words("python -X utf8 -m aider x")).as_deref(), Some("aider"));
        assert_eq!(module_argument(&words("python app.py -m aider")), None);
        assert_eq!(module_argument(&words("python -c pass -m aider")), None);
        assert_eq!(module_argument(&words("python -m")), None);
    }
}
