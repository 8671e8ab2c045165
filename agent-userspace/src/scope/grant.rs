//! One line of a scope, and where it was declared.
//!
//! Holds what the declarations' reader hands to [`super::Scope::compile`]: parsed patterns with their places. Decides
//! nothing itself.

use std::fmt;
use std::sync::Arc;

use super::network::NetworkPattern;
use super::pattern::PathPattern;

/// A place in a configuration file.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Origin {
    /// The file as it was named, or `grants/base.toml (shipped)`.
    pub file: Arc<str>,
    /// The line, from 1.
    pub line: u32,
    /// The column in characters, from 1.
    pub column: u32,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}", self.file, self.line, self.column)
    }
}

/// A path grant or deny.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PathRule {
    /// The pattern as declared.
    pub pattern: PathPattern,
    /// The same with the symlinks of its literal beginning resolved, where there are some: both count.
    pub resolved: Option<PathPattern>,
    /// Where it stands.
    pub origin: Origin,
}

/// A network grant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NetworkRule {
    /// The pattern as declared.
    pub pattern: NetworkPattern,
    /// Where it stands.
    pub origin: Origin,
}

/// The rules of one `[scope]` or of one grant set.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rules {
    /// Files that may be read.
    pub read: Vec<PathRule>,
    /// Files that may be written. Writing implies nothing about reading.
    pub write: Vec<PathRule>,
    /// Files that may be neither read, written nor executed, whatever grants them.
    pub deny: Vec<PathRule>,
    /// What may be executed.
    pub exec: Vec<PathRule>,
    /// What may not be executed, whatever grants it.
    pub exec_deny: Vec<PathRule>,
    /// Where connections may go, and what is sent.
    pub connect: Vec<NetworkRule>,
    /// The addresses of its own that it may wait for connections at.
    pub listen: Vec<NetworkRule>,
    /// The Unix sockets that it may connect to.
    pub unix: Vec<PathRule>,
    /// The same by abstract names: each pattern is of `/` and the name.
    pub unix_abstract: Vec<PathRule>,
    /// The privileges that it may use.
    pub privileges: Vec<PrivilegeRule>,
}

impl Rules {
    /// How many grants there are, denies not counted.
    pub fn grants(&self) -> usize {
        let paths = [&self.read, &self.write, &self.exec, &self.unix, &self.unix_abstract];
        let paths: usize = paths.into_iter().map(Vec::len).sum();
        paths + self.connect.len() + self.listen.len() + self.privileges.len()
    }
}

/// A privilege that may be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PrivilegeRule {
    /// One of [`PRIVILEGES`].
    pub name: String,
    /// Where it stands.
    pub origin: Origin,
}

/// The privileges there are. Each is the last part of an event's name: `privilege.ptrace`, `file.mount`, `network.raw`.
pub const PRIVILEGES: [&str; 13] = [
    "bpf",
    "capset",
    "kexec",
    "keyctl",
    "memfd",
    "module",
    "mount",
    "namespace",
    "perf",
    "ptrace",
    "raw",
    "setid",
    "signal",
];
