//! Grants and denies as written, and the symlinks that they begin with.
//!
//! Input: sections of a declaration or of a grant set. Output: [`Rules`], each with its place, and a [`Note`] for each
//! rule whose literal beginning is a symlink: the kernel reports resolved paths, so the resolved pattern counts as well.
//! A link that appears or moves later counts from the next reload on. Links below a wildcard are not looked for.

use std::fmt;
use std::path::{Path, PathBuf};

use super::fault::{Fault, Problem};
use super::host::Host;
use super::reader::{Located, Section};
use crate::scope::grant::{NetworkRule, Origin, PathRule, Rules};
use crate::scope::network::NetworkPattern;
use crate::scope::pattern::{PathPattern, literally};

/// Something about a configuration that is no fault, but that its author should know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Note {
    /// What it is about.
    pub origin: Origin,
    /// What to know.
    pub text: String,
    /// Whether it is about a file that ships with Bailiwick.
    pub shipped: bool,
}

impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.origin, self.text)
    }
}

/// What a part of a configuration is read with.
pub(super) struct Reading<'a> {
    pub(super) host: &'a dyn Host,
    pub(super) problems: Vec<Problem>,
    pub(super) notes: Vec<Note>,
    /// Whether the file being read ships with Bailiwick.
    pub(super) shipped: bool,
}

impl Reading<'_> {
    pub(super) fn fault(&mut self, origin: &Origin, fault: Fault) {
        self.problems.push(Problem::at(origin, fault));
    }

    pub(super) fn note(&mut self, origin: &Origin, text: String) {
        self.notes.push(Note { origin: origin.clone(), text, shipped: self.shipped });
    }

    /// A pattern, and the same with its symlinks resolved.
    pub(super) fn path_rule(&mut self, text: &Located<&str>) -> Option<PathRule> {
        match PathPattern::parse(text.value) {
            Ok(pattern) => {
                let resolved = resolve(&pattern, self.host);
                if let Some(resolved) = &resolved {
                    self.note(
                        &text.origin,
                        format!("\"{pattern}\" begins with a symlink: \"{resolved}\" counts as well"),
                    );
                }
                Some(PathRule { pattern, resolved, origin: text.origin.clone() })
            }
            Err(error) => {
                self.fault(&text.origin, Fault::Pattern { text: text.value.to_owned(), error });
                None
            }
        }
    }

    fn path_rules(&mut self, section: &mut Section<'_>, key: &'static str) -> Vec<PathRule> {
        let texts = section.strings(key, &mut self.problems).unwrap_or_default();
        texts.iter().filter_map(|text| self.path_rule(text)).collect()
    }

    /// A pattern, or a list of some.
    pub(super) fn one_or_more_paths(&mut self, section: &mut Section<'_>, key: &'static str) -> Vec<PathRule> {
        let texts = section.one_or_more(key, &mut self.problems);
        texts.iter().filter_map(|text| self.path_rule(text)).collect()
    }

    /// Reads `read`, `write` and `deny` of a section on files.
    pub(super) fn files(&mut self, mut section: Section<'_>, rules: &mut Rules) {
        rules.read = self.path_rules(&mut section, "read");
        rules.write = self.path_rules(&mut section, "write");
        rules.deny = self.path_rules(&mut section, "deny");
        section.finish(&mut self.problems);
    }

    /// Reads `allow` and `deny` of a section on programs.
    pub(super) fn exec(&mut self, mut section: Section<'_>, rules: &mut Rules) {
        rules.exec = self.path_rules(&mut section, "allow");
        rules.exec_deny = self.path_rules(&mut section, "deny");
        section.finish(&mut self.problems);
    }

    /// Reads `connect` of a section on Unix sockets: paths, and abstract names behind an `@`.
    pub(super) fn unix(&mut self, mut section: Section<'_>, rules: &mut Rules) {
        let texts = section.strings("connect", &mut self.problems).unwrap_or_default();
        (rules.unix, rules.unix_abstract) = self.sockets(&texts);
        section.finish(&mut self.problems);
    }

    /// Unix sockets: those with paths, and those with abstract names, which stand behind an `@`.
    pub(super) fn sockets(&mut self, texts: &[Located<&str>]) -> (Vec<PathRule>, Vec<PathRule>) {
        let (mut paths, mut abstract_names) = (Vec::new(), Vec::new());
        for text in texts {
            let Some(name) = text.value.strip_prefix('@') else {
                paths.extend(self.path_rule(text));
                continue;
            };
            match PathPattern::parse(&format!("/{name}")) {
                Ok(pattern) => {
                    abstract_names.push(PathRule { pattern, resolved: None, origin: text.origin.clone() });
                }
                Err(error) => self.fault(&text.origin, Fault::Pattern { text: text.value.to_owned(), error }),
            }
        }
        (paths, abstract_names)
    }

    /// Reads `connect` and `listen` of a section on the network.
    pub(super) fn network(&mut self, mut section: Section<'_>, rules: &mut Rules) {
        rules.connect = self.addresses(&mut section, "connect");
        rules.listen = self.addresses(&mut section, "listen");
        section.finish(&mut self.problems);
    }

    /// Reads a list of network patterns.
    pub(super) fn addresses(&mut self, section: &mut Section<'_>, key: &'static str) -> Vec<NetworkRule> {
        let texts = section.strings(key, &mut self.problems).unwrap_or_default();
        self.network_rules(texts)
    }

    /// Network patterns.
    pub(super) fn network_rules(&mut self, texts: Vec<Located<&str>>) -> Vec<NetworkRule> {
        let mut rules = Vec::new();
        for text in texts {
            match NetworkPattern::parse(text.value) {
                Ok(pattern) => rules.push(NetworkRule { pattern, origin: text.origin }),
                Err(error) => self.fault(&text.origin, Fault::Network { text: text.value.to_owned(), error }),
            }
        }
        rules
    }
}

/// Paths that lead each process elsewhere: what they are links to here says nothing about anyone else.
const EACH_PROCESS_ITS_OWN: [&str; 5] = ["/proc", "/dev/fd", "/dev/stdin", "/dev/stdout", "/dev/stderr"];

/// The pattern with the symlinks of its literal beginning resolved, where that makes another one.
pub(super) fn resolve(pattern: &PathPattern, host: &dyn Host) -> Option<PathPattern> {
    let prefix = pattern.literal_prefix();
    let own = |start: &str| prefix.strip_prefix(start).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
    if pattern.literal_components() == 0 || EACH_PROCESS_ITS_OWN.iter().any(|start| own(start)) {
        return None;
    }
    let resolved = canonicalize_existing(Path::new(&prefix), host)?;
    let resolved = resolved.to_str().filter(|resolved| *resolved != prefix)?;
    let rest = pattern.after_literal_prefix();
    // Of a link to `/` nothing is left but the rest.
    let start = if resolved == "/" && !rest.is_empty() { String::new() } else { literally(resolved) };
    PathPattern::parse(&format!("{start}{rest}")).ok()
}

/// Canonicalizes as much of a path as exists, and appends the rest.
pub(super) fn canonicalize_existing(path: &Path, host: &dyn Host) -> Option<PathBuf> {
    path.ancestors().find_map(|ancestor| {
        let resolved = host.canonicalize(ancestor).ok()?;
        let rest = path.strip_prefix(ancestor).ok()?;
        // Joining an empty rest would add a slash.
        Some(if rest.as_os_str().is_empty() { resolved } else { resolved.join(rest) })
    })
}
