//! What can be wrong with a configuration, said with file, line, column and what would be right.
//!
//! Each [`Fault`] prints as "what is wrong; what would be right". A [`Problem`] is a fault with its place, and
//! [`ConfigErrors`] are all that were found, not only the first.

use std::fmt;
use std::sync::Arc;

use super::duration::DurationError;
use crate::export::{NoEndpoint, NoProxy};
use crate::redact::BadExpression;
use crate::scope::glob::GlobError;
use crate::scope::grant::Origin;
use crate::scope::network::NetworkError;
use crate::scope::pattern::PatternError;
use crate::scope::trie::TooManyIrregular;

/// What is wrong, and what would be right.
#[derive(Debug, thiserror::Error)]
pub enum Fault {
    /// The file or directory cannot be read, for no reason that the next three name.
    #[error("cannot be read: {0}; put one there that can be")]
    Unreadable(std::io::Error),
    /// It is not there.
    #[error("is not there; create it, or name another")]
    Missing,
    /// A symlink that leads nowhere.
    #[error("is a symlink to {}, which is not there; make it lead to what is, or remove it", target.display())]
    Dangling {
        /// What it leads to, as it says.
        target: std::path::PathBuf,
    },
    /// It is another user's.
    #[error("may not be read by uid {uid}; let that user read it, or run this as one who may")]
    NotAllowed {
        /// Who asked.
        uid: u32,
    },
    /// A directory in place of a file.
    #[error("is a directory; put a TOML file in its place")]
    Directory,
    /// A directory that is no configuration's.
    #[error(
        "is a directory without agents.d, grants.d, catalogue.d and bailiwick.toml; name a declaration's file, or the directory of a \
         configuration"
    )]
    NotAConfiguration,
    /// A pipe, a device.
    #[error("is not a regular file; put a TOML file there")]
    NotAFile,
    /// Longer than the limit.
    #[error("is longer than {limit} bytes and was not read; split it, grants into sets in grants.d")]
    TooLarge {
        /// The limit.
        limit: u64,
    },
    /// More files than the limit.
    #[error("has more than {limit} files; merge grant sets, or remove declarations of agents that are gone")]
    TooManyFiles {
        /// The limit.
        limit: usize,
    },
    /// Not UTF-8.
    #[error("is not UTF-8 from here on; save the file as UTF-8")]
    NotUtf8,
    /// Not TOML.
    #[error("is not TOML: {0}; strings stand in quotes, lists in brackets, sections under [name]")]
    Syntax(String),
    /// A key that nothing knows.
    #[error("`{key}` is not a key of {section}; {}", did_you_mean(.near.as_deref(), .known))]
    UnknownKey {
        /// The key as written.
        key: String,
        /// The section.
        section: String,
        /// The known key that is nearest.
        near: Option<String>,
        /// All keys that the section knows.
        known: Vec<String>,
    },
    /// A value of another type.
    #[error("`{key}` is a TOML {found}; write {wanted}")]
    WrongType {
        /// The key.
        key: String,
        /// The type that was found.
        found: &'static str,
        /// What would be right.
        wanted: &'static str,
    },
    /// A key that must be there.
    #[error("{section} has no `{key}`; add {example}")]
    MissingKey {
        /// The section.
        section: String,
        /// The key.
        key: &'static str,
        /// A line to add.
        example: &'static str,
    },
    /// A name with other characters, or none, or too many.
    #[error("the name {0:?} is not usable; write 1 to 64 of a-z, 0-9, `.`, `_` and `-`, begun with a letter or digit")]
    Name(String),
    /// A text that is empty.
    #[error("`{0}` is empty; write something, or leave the key out")]
    Empty(&'static str),
    /// A text with control characters.
    #[error("`{0}` has a control character; write plain text")]
    Control(&'static str),
    /// Two agents of one name.
    #[error("the agent `{name}` is declared at {first} already; give one of them another name")]
    DuplicateAgent {
        /// The name.
        name: String,
        /// The other place.
        first: Origin,
    },
    /// Two sets of one name.
    #[error("the grant set `{name}` is defined at {first} already; give this one another name")]
    DuplicateSet {
        /// The name.
        name: String,
        /// The other place.
        first: Origin,
    },
    /// Two targets of one name.
    #[error("the target `{name}` stands at {first} already; give one of them another name")]
    DuplicateTarget {
        /// The name.
        name: String,
        /// The other place.
        first: Origin,
    },
    /// A receiver's URL that cannot be used.
    #[error("`endpoint` {0}")]
    Endpoint(NoEndpoint),
    /// A proxy that cannot be used; it is not shown, since a login may be in it.
    #[error("`proxy` {0}, or \"none\"")]
    Proxy(NoProxy),
    /// A set of the name of a shipped one.
    #[error(
        "the grant set `{name}` ships with Bailiwick; give this one another name, or add `replace = true` to [set]"
    )]
    ShippedSet {
        /// The name.
        name: String,
    },
    /// `replace = true` where nothing is replaced.
    #[error(
        "no grant set `{name}` ships with Bailiwick, so nothing is replaced; remove `replace`, or use the name of one of {shipped}"
    )]
    NothingToReplace {
        /// The name.
        name: String,
        /// The sets that ship.
        shipped: String,
    },
    /// An entry of the catalogue that is there already.
    #[error(
        "the {heading} `{name}` stands at {first} already; give this one another name, or add `replace = true` to take the \
         place of one that ships"
    )]
    TwiceInCatalogue {
        /// Its kind.
        heading: &'static str,
        /// The name.
        name: String,
        /// The other place.
        first: Origin,
    },
    /// `replace = true` in the catalogue where nothing is replaced.
    #[error(
        "no {heading} `{name}` ships with Bailiwick, so nothing is replaced; remove `replace`, or use the name of one of {shipped}"
    )]
    NothingInCatalogue {
        /// Its kind.
        heading: &'static str,
        /// The name.
        name: String,
        /// The entries that ship.
        shipped: String,
    },
    /// An entry of the catalogue that no process can be.
    #[error("the {heading} `{name}` names nothing that a process could be found by; add one of {keys}")]
    NamesNothing {
        /// Its kind.
        heading: &'static str,
        /// The name.
        name: String,
        /// What does.
        keys: &'static str,
    },
    /// An include that names no set.
    #[error("there is no grant set `{name}`; {}", did_you_mean(.near.as_deref(), .known))]
    UnknownSet {
        /// The name.
        name: String,
        /// The nearest known one.
        near: Option<String>,
        /// All known ones.
        known: Vec<String>,
    },
    /// A delegate that no file declares.
    #[error("no agent `{name}` is declared; {}", did_you_mean(.near.as_deref(), .known))]
    UnknownAgent {
        /// The name.
        name: String,
        /// The nearest declared one.
        near: Option<String>,
        /// All declared ones.
        known: Vec<String>,
    },
    /// Agents that delegate to each other in a circle.
    #[error("the agents delegate in a circle: {0}, so that a chain of them need not end; take one of these links away")]
    DelegationCircle(String),
    /// A value that is none of the choices.
    #[error("`{key}` is \"{value}\"; {}", did_you_mean(.near.as_deref(), .known))]
    Choice {
        /// The key.
        key: &'static str,
        /// The value as written.
        value: String,
        /// The nearest choice.
        near: Option<String>,
        /// All choices.
        known: Vec<String>,
    },
    /// A number outside of its range.
    #[error("`{key}` is {value}; write {wanted}")]
    Range {
        /// The key.
        key: &'static str,
        /// The number as written.
        value: String,
        /// What would be right.
        wanted: String,
    },
    /// A duration that cannot be read.
    #[error("`{key}` is \"{text}\", which {error}")]
    Duration {
        /// The key.
        key: &'static str,
        /// The text.
        text: String,
        /// Why not.
        error: DurationError,
    },
    /// A path pattern that cannot be read.
    #[error("\"{text}\" {error}")]
    Pattern {
        /// The text.
        text: String,
        /// Why not.
        error: PatternError,
    },
    /// A glob that cannot be read.
    #[error("\"{text}\": {error}")]
    Glob {
        /// The text.
        text: String,
        /// Why not.
        error: GlobError,
    },
    /// A network grant that cannot be read.
    #[error("\"{text}\" {error}")]
    Network {
        /// The text.
        text: String,
        /// Why not.
        error: NetworkError,
    },
    /// A pattern too many.
    #[error("\"{text}\" {error}")]
    Irregular {
        /// The text.
        text: String,
        /// Why not.
        error: TooManyIrregular,
    },
    /// A regular expression that cannot be used.
    #[error("`{key}` has \"{text}\", which {error}; write an expression of Rust's regex crate that matches a secret")]
    Expression {
        /// The key.
        key: &'static str,
        /// The text.
        text: String,
        /// Why not.
        error: BadExpression,
    },
    /// A thing that later versions will know.
    #[error("{what} is not supported yet; {instead}")]
    NotYet {
        /// The thing.
        what: String,
        /// What to do in its place.
        instead: &'static str,
    },
    /// A `[[recognise]]` without a selector.
    #[error(
        "[[recognise]] is empty and would recognise every process; name at least one of {0}, or remove the table: \
             without one the agent is started by `bailiwick run` alone"
    )]
    EmptyRecognise(String),
    /// A hash that is none.
    #[error("\"{0}\" is no SHA-256; write 64 hexadecimal digits, as `sha256sum FILE` prints them")]
    Sha256(String),
    /// A hash of nothing.
    #[error("`sha256` needs `executable` beside it; add the path of the file that has this hash")]
    Sha256Alone,
    /// An executable that is any.
    #[error("\"{0}\" names every executable; name a directory or a file in it, as in `/opt/agent/bin/*`")]
    AnyExecutable(String),
    /// A user that the host does not know.
    #[error("there is no user `{0}` in /etc/passwd; use the name of one there is, or its number")]
    UnknownUser(String),
    /// A unit's name without its kind.
    #[error(
        "\"{0}\" is no unit that holds processes; write its name with its kind, as in `agent.service`, `agent@*.service` or `agent.slice`"
    )]
    Unit(String),
    /// An environment marker without a name.
    #[error("\"{0}\" names no variable; write `KEY`, or `KEY=VALUE` where the value may be a glob")]
    EnvironmentKey(String),
    /// An environment marker that the sensor does not read.
    #[error(
        "the sensor does not read the variable `{key}`; add it to `environment` in [sensor] of bailiwick.toml, or use one of {allowed}"
    )]
    EnvironmentNotRead {
        /// The variable.
        key: String,
        /// Those that are read.
        allowed: String,
    },
    /// Two agents that recognise the same processes.
    #[error(
        "the agents `{this}` and `{other}` ({place}) recognise the same processes equally well; give one of them a further \
             key, such as `user`, `script` or `argv`"
    )]
    SameProcess {
        /// The agent of this table.
        this: String,
        /// The other.
        other: String,
        /// Where the other's table stands.
        place: Origin,
    },
    /// A credential's file that is not there.
    #[error(
        "\"{0}\" is not there, so nothing would be watched over; name the file that holds the credential, or take it out"
    )]
    NoCredential(String),
    /// Two credentials of one name in a file.
    #[error(
        "the credential `{name}` stands at {first} already; give one of them another name, or list its places in one"
    )]
    DuplicateCredential {
        /// The name.
        name: String,
        /// The other place.
        first: Origin,
    },
    /// More elements than the limit.
    #[error("`{key}` has {found} elements; write at most {limit}")]
    TooMany {
        /// The key.
        key: String,
        /// How many there are.
        found: usize,
        /// The limit.
        limit: usize,
    },
    /// A file that is none of ours.
    #[error(
        "is neither a declaration (it has no [agent]), nor a grant set ([set]), nor a catalogue ([[runtime]], \
             [[interpreter]], [[model_server]]), nor daemon settings ([sensor], [trail], \
             [export], [redact], [discovery]), nor well-known credentials (a file named credentials.toml); begin a declaration with [agent] and `name = \"...\"`"
    )]
    NoKind,
}

fn did_you_mean(near: Option<&str>, known: &[String]) -> String {
    match near {
        Some(near) => format!("did you mean `{near}`?"),
        None if known.is_empty() => "there is none to choose from".to_owned(),
        None => format!("write one of {}", known.join(", ")),
    }
}

/// A fault and its place.
#[derive(Debug)]
pub struct Problem {
    /// The file.
    pub file: Arc<str>,
    /// The line and the column in characters, from 1; none where the fault is the file's.
    pub place: Option<(u32, u32)>,
    /// What is wrong.
    pub fault: Box<Fault>,
}

impl Problem {
    /// A fault of a whole file.
    pub fn of_file(file: &str, fault: Fault) -> Self {
        Self { file: file.into(), place: None, fault: Box::new(fault) }
    }

    /// A fault at a place.
    pub fn at(origin: &Origin, fault: Fault) -> Self {
        Self { file: origin.file.clone(), place: Some((origin.line, origin.column)), fault: Box::new(fault) }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.place {
            Some((line, column)) => write!(f, "{}:{line}:{column}: {}", self.file, self.fault),
            None => write!(f, "{}: {}", self.file, self.fault),
        }
    }
}

/// The most problems that are printed.
const MAX_PRINTED: usize = 100;

/// All that is wrong with a configuration. Prints as a line each, the first hundred of them.
#[derive(Debug)]
pub struct ConfigErrors(pub Vec<Problem>);

impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (number, problem) in self.0.iter().take(MAX_PRINTED).enumerate() {
            if number > 0 {
                writeln!(f)?;
            }
            write!(f, "{problem}")?;
        }
        match self.0.len().checked_sub(MAX_PRINTED) {
            Some(more @ 1..) => write!(f, "\nand {more} more"),
            Some(0) | None => Ok(()),
        }
    }
}

impl std::error::Error for ConfigErrors {}

/// The candidate that a misspelt word most likely stands for, where one is near.
pub(super) fn nearest<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<String> {
    // Words are cut: the cost of a comparison is the product of the lengths, and a key may be as long as its file.
    let word: Vec<char> = word.chars().take(64).collect();
    let near = candidates.into_iter().map(|candidate| (distance(&word, candidate), candidate));
    let (distance, candidate) = near.min_by_key(|(distance, _)| *distance)?;
    (distance <= (word.len() / 3).clamp(1, 3)).then(|| candidate.to_owned())
}

/// How many characters to insert, remove, replace or swap with their neighbour make one word the other.
fn distance(word: &[char], other: &str) -> usize {
    let mut before: Vec<usize> = Vec::new();
    let mut row: Vec<usize> = (0..=word.len()).collect();
    let mut previous = None;
    for (line, theirs) in other.chars().enumerate() {
        let mut next = vec![line + 1];
        for (column, ours) in word.iter().enumerate() {
            let at = |cells: &[usize], index: usize| cells.get(index).copied().unwrap_or(usize::MAX - 1);
            let replaced = at(&row, column) + usize::from(*ours != theirs);
            let mut cost = replaced.min(at(&row, column + 1) + 1).min(at(&next, column) + 1);
            if column > 0 && previous == Some(*ours) && word.get(column - 1) == Some(&theirs) {
                cost = cost.min(at(&before, column - 1) + 1);
            }
            next.push(cost);
        }
        previous = Some(theirs);
        before = std::mem::replace(&mut row, next);
    }
    row.last().copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_misspelt_word_finds_its_like_and_a_strange_one_finds_none() {
        let keys = ["executable", "script", "sha256", "argv", "user"];
        for (word, expected) in [
            ("executabel", Some("executable")),
            ("exeutable", Some("executable")),
            ("scirpt", Some("script")),
            ("usr", Some("user")),
            ("banana", None),
            ("", None),
        ] {
            assert_eq!(nearest(word, keys).as_deref(), expected, "{word}");
        }
    }
}
