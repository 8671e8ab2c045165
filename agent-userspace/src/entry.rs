//! The entry: what the trail keeps, `--json` prints and the exporters send.
//!
//! Field names and values are those of `docs/contract.md`. A [`Draft`] is an entry before the trail has given it its
//! place; only the trail makes an [`Entry`].

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::{Map, Value};

/// A moment, in nanoseconds since the Unix epoch; written as RFC 3339, UTC, with nine digits of a second.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Timestamp(pub u64);

impl Timestamp {
    /// The wall clock's present time.
    pub fn now() -> Self {
        let since_epoch = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        Self(u64::try_from(since_epoch.as_nanos()).unwrap_or(u64::MAX))
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match jiff::Timestamp::from_nanosecond(i128::from(self.0)) {
            Ok(time) => write!(f, "{time:.9}"),
            Err(_) => f.write_str("1970-01-01T00:00:00.000000000Z"),
        }
    }
}

/// The text is no RFC 3339 time.
#[derive(Debug, thiserror::Error)]
#[error("'{text}' is no RFC 3339 time such as 2026-01-31T12:00:00Z")]
pub struct BadTimestamp {
    text: String,
}

impl FromStr for Timestamp {
    type Err = BadTimestamp;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let bad = || BadTimestamp { text: text.to_owned() };
        let time: jiff::Timestamp = text.parse().map_err(|_| bad())?;
        u64::try_from(time.as_nanosecond()).map(Self).map_err(|_| bad())
    }
}

impl Serialize for Timestamp {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Timestamp {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// One run of an agent. Written as sixteen hexadecimal digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SessionId(pub u64);

impl fmt::Display for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// The text is no session's id.
#[derive(Debug, thiserror::Error)]
#[error("'{text}' is no session id: sixteen hexadecimal digits are (see `bailiwick sessions`)")]
pub struct BadSessionId {
    text: String,
}

impl FromStr for SessionId {
    type Err = BadSessionId;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let bad = || BadSessionId { text: text.to_owned() };
        if text.len() != 16 {
            return Err(bad());
        }
        u64::from_str_radix(text, 16).map(Self).map_err(|_| bad())
    }
}

impl Serialize for SessionId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for SessionId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// One link of a chain of delegations.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Delegator {
    /// The delegating agent.
    pub agent: String,
    /// Its session.
    pub session: SessionId,
}

/// On whose behalf a session runs.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Principal {
    /// The user id of the session's first process.
    pub uid: u32,
    /// That user's name, where the host knows one.
    pub user: Option<String>,
    /// The uid that logged in, where one did.
    pub login_uid: Option<u32>,
    /// How the session came to be started: `run`, `ssh`, `terminal`, or a systemd unit's name.
    pub via: Option<String>,
    /// The name of the user that logged in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub login_user: Option<String>,
    /// Who asked, where that is another user: the outermost caller of sudo or su, whoever typed `bailiwick run`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub asked_by: Option<Person>,
    /// The far end of the ssh connection that it came over.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ssh: Option<String>,
    /// The service that it belongs to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unit: Option<String>,
    /// The terminal that it was started at.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub terminal: Option<String>,
    /// What lay between, innermost first: `sudo`, `su`, `tmux`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub through: Vec<String>,
}

/// A user of the host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Person {
    /// The user id.
    pub uid: u32,
    /// That user's name, where the host knows one.
    pub user: Option<String>,
}

/// A process, with ids as the host sees them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessRef {
    /// The process's id (thread group).
    pub tgid: u32,
    /// The acting thread's id.
    pub tid: u32,
    /// When the process started, nanoseconds after boot; a string, since JSON numbers lose digits.
    #[serde(with = "decimal")]
    pub start_boot_ns: u64,
    /// The image's absolute path as the kernel resolved it, where known.
    pub executable: Option<String>,
}

mod decimal {
    use serde::{Deserialize, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(value: &u64, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(value)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// How an action was attributed to its session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Method {
    /// Started by `bailiwick run`.
    Run,
    /// The executable's path or inode.
    Executable,
    /// A `#!` script, or a script named to an interpreter (the confidence tells which).
    Script,
    /// The command line.
    Argv,
    /// An environment variable.
    Environment,
    /// The user.
    User,
    /// A control group.
    Cgroup,
    /// A systemd unit.
    Unit,
    /// Descended from a process of the session.
    Inherited,
}

impl Method {
    /// The method as it is written everywhere.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Run => "run",
            Self::Executable => "executable",
            Self::Script => "script",
            Self::Argv => "argv",
            Self::Environment => "environment",
            Self::User => "user",
            Self::Cgroup => "cgroup",
            Self::Unit => "unit",
            Self::Inherited => "inherited",
        }
    }
}

/// How sure an attribution is, weakest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Confidence {
    /// What the process says about itself.
    Claimed,
    /// A script named to an interpreter.
    Probable,
    /// Decided by the kernel, or by `run`.
    Certain,
}

impl Confidence {
    /// The confidence as it is written everywhere.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Claimed => "claimed",
            Self::Probable => "probable",
            Self::Certain => "certain",
        }
    }
}

/// How an action was attributed, and how sure that is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attribution {
    /// By what.
    pub method: Method,
    /// How sure.
    pub confidence: Confidence,
}

/// What the scope says of an action.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// A grant covers it.
    InScope,
    /// No grant covers it, or a deny does.
    OutOfScope,
    /// Bailiwick refused it.
    Denied,
    /// Not judged, or the agent has no scope.
    None,
}

impl Verdict {
    /// The verdict as it is written everywhere.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::InScope => "in_scope",
            Self::OutOfScope => "out_of_scope",
            Self::Denied => "denied",
            Self::None => "none",
        }
    }
}

/// What decided a verdict.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ReasonKind {
    /// The grant that covers the action.
    Grant,
    /// The deny rule that forbids it.
    Rule,
    /// No grant covers it: these are the nearest.
    Nearest,
}

/// Why the verdict is what it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reason {
    /// What decided.
    pub kind: ReasonKind,
    /// The grant or the rule as declared; for `nearest`, the nearest grants.
    pub text: String,
    /// The file it stands in, where it stands in one.
    pub file: Option<String>,
    /// The line in that file, from 1.
    pub line: Option<u32>,
    /// The delegator whose scope it is; none where it is the agent's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delegator: Option<String>,
}

/// An interval in which something was, or may have been, lost.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gap {
    /// The event whose actions were lost, or `all`.
    pub kind: String,
    /// The session they belong to, where known.
    pub session: Option<SessionId>,
    /// How many were lost; `None` where the hooks were not attached and nobody counted.
    pub lost: Option<u64>,
    /// From when.
    pub from: Timestamp,
    /// Until when.
    pub to: Timestamp,
    /// Why, in words.
    pub reason: String,
}

/// An entry that has no place in the trail yet.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Draft {
    /// When the action was (the kernel's clock, converted).
    pub time: Timestamp,
    /// The event's name, `file.open` say.
    pub event: String,
    /// The agent, or none.
    pub agent: Option<String>,
    /// The session, or none.
    pub session: Option<SessionId>,
    /// Who delegated, outermost first.
    #[serde(default)]
    pub delegation: Vec<Delegator>,
    /// On whose behalf.
    pub principal: Option<Principal>,
    /// Who acted.
    pub process: Option<ProcessRef>,
    /// How that is known.
    pub attribution: Option<Attribution>,
    /// What the scope says.
    pub verdict: Verdict,
    /// And why.
    pub reason: Option<Reason>,
    /// How many actions this entry stands for.
    pub count: u64,
    /// Of a flush of folded repeats: when the first of them was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub first_time: Option<Timestamp>,
    /// Of a `gap`: what was lost.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gap: Option<Gap>,
    /// What is known of the action, under OpenTelemetry's names where there are some.
    pub attributes: Map<String, Value>,
    /// Names of attributes whose bytes were no UTF-8 and stand escaped as `\xHH`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub escaped: Vec<String>,
    /// Names of attributes that were cut.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub truncated: Vec<String>,
    /// Names of attributes that had what looked like a secret, which is `[redacted]` now.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub redacted: Vec<String>,
}

impl Draft {
    /// An entry about the daemon itself, or the host: it belongs to no session, and is not judged.
    pub fn of_host(time: Timestamp, event: &str) -> Self {
        Self {
            time,
            event: event.to_owned(),
            agent: None,
            session: None,
            delegation: Vec::new(),
            principal: None,
            process: None,
            attribution: None,
            verdict: Verdict::None,
            reason: None,
            count: 0,
            first_time: None,
            gap: None,
            attributes: Map::new(),
            escaped: Vec::new(),
            truncated: Vec::new(),
            redacted: Vec::new(),
        }
    }
}

/// An entry of the trail.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(from = "Flat")]
pub struct Entry {
    /// Unique and stable: the same in the trail, in JSON and as `log.record.uid`.
    pub uid: String,
    /// Its position in the trail, from 1.
    pub seq: u64,
    /// What it says.
    #[serde(flatten)]
    pub draft: Draft,
    /// The hash over this entry and all before it, as `docs/trail.md` defines it.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub chain: String,
}

/// An entry as it is read: serde reads a flattened struct by way of a copy of all its fields, which takes twice as long.
#[derive(Deserialize)]
struct Flat {
    uid: String,
    seq: u64,
    time: Timestamp,
    event: String,
    agent: Option<String>,
    session: Option<SessionId>,
    #[serde(default)]
    delegation: Vec<Delegator>,
    principal: Option<Principal>,
    process: Option<ProcessRef>,
    attribution: Option<Attribution>,
    verdict: Verdict,
    reason: Option<Reason>,
    count: u64,
    #[serde(default)]
    first_time: Option<Timestamp>,
    #[serde(default)]
    gap: Option<Gap>,
    attributes: Map<String, Value>,
    #[serde(default)]
    escaped: Vec<String>,
    #[serde(default)]
    truncated: Vec<String>,
    #[serde(default)]
    redacted: Vec<String>,
    #[serde(default)]
    chain: String,
}

impl From<Flat> for Entry {
    fn from(flat: Flat) -> Self {
        let draft = Draft {
            time: flat.time,
            event: flat.event,
            agent: flat.agent,
            session: flat.session,
            delegation: flat.delegation,
            principal: flat.principal,
            process: flat.process,
            attribution: flat.attribution,
            verdict: flat.verdict,
            reason: flat.reason,
            count: flat.count,
            first_time: flat.first_time,
            gap: flat.gap,
            attributes: flat.attributes,
            escaped: flat.escaped,
            truncated: flat.truncated,
            redacted: flat.redacted,
        };
        Self { uid: flat.uid, seq: flat.seq, draft, chain: flat.chain }
    }
}
