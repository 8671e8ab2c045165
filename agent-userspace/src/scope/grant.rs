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
    /// Where connections may go.
    pub connect: Vec<NetworkRule>,
}
