//! What goes over the socket: one request a connection, then lines of answers.
//!
//! Inputs and outputs: lines of JSON. Both sides parse them into these types before anything looks at them.
//! Refuses: unknown requests and fields, and lines over the limits below.

use serde::{Deserialize, Serialize};

use super::query::Filter;
use super::report::{
    AgentItem, Closing, Doctor, Explained, Items, LinkItem, ReloadReport, RunAccepted, SessionItem, Status, SyncReport,
};
use crate::credential::map::CredentialMap;
use crate::entry::{Entry, Timestamp};

/// The longest request. Filters are short; this bounds what a client makes the daemon hold.
pub const MAX_REQUEST_BYTES: usize = 64 * 1024;

/// The longest answer that a client reads. An entry's strings are cut long before.
pub const MAX_RESPONSE_BYTES: usize = 8 * 1024 * 1024;

/// What a client asks for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Request {
    /// Make `child`, a child of the asking process that waits to be released, the first process of a session.
    Run {
        /// The declared agent's name.
        agent: String,
        /// The child's id, in the daemon's pid namespace.
        child: u32,
    },
    /// Wait until everything the kernel did before is durable.
    Sync {
        /// And acknowledged by every target.
        exported: bool,
        /// For how long to wait at most.
        wait_ms: u64,
    },
    /// How the daemon is.
    Status {},
    /// What the sensor can see.
    Doctor {},
    /// The declared agents.
    Agents {},
    /// Who reads which credential.
    Credentials {},
    /// Read the configuration again.
    Reload {},
    /// Record that an agent was reviewed.
    Review {
        /// What was reviewed.
        done: Box<ReviewDone>,
    },
    /// Entries, as they match.
    Tail {
        /// Which.
        filter: Filter,
        /// From where.
        since: Since,
        /// Whether to go on with those to come.
        follow: bool,
    },
    /// The sessions in the trail.
    Sessions {
        /// Only those with an entry that matches.
        filter: Filter,
    },
    /// One session's entries, and what they do not hold.
    Show {
        /// The session's id, or the beginning of it.
        session: String,
        /// Which of its entries.
        filter: Filter,
    },
    /// The chain of delegations that a session is part of.
    Chain {
        /// The session's id, or the beginning of it.
        session: String,
    },
    /// One entry, and the way to its verdict.
    Explain {
        /// The entry's uid.
        uid: String,
    },
}

/// A review that was done, in numbers: the entry that says so has them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReviewDone {
    /// The agent.
    pub agent: String,
    /// The SHA-256 of the declaration that was reviewed.
    pub declaration_sha256: Option<String>,
    /// The time of the first entry that was looked at.
    pub from: Option<Timestamp>,
    /// And of the last.
    pub to: Option<Timestamp>,
    /// Sessions.
    pub sessions: u64,
    /// Entries.
    pub entries: u64,
    /// Actions known to be lost.
    pub lost: u64,
    /// Parts of the history that are missing.
    pub gaps: u64,
    /// Grants that were not used.
    pub granted_unused: u64,
    /// Kinds of actions without a grant.
    pub used_not_granted: u64,
    /// Findings.
    pub findings: u64,
}

/// Where entries begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Since {
    /// With the next one to be written.
    Now,
    /// With the first of the trail.
    Start,
    /// With the first of that time or later.
    At(Timestamp),
}

/// One line of an answer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Response {
    /// To `run`.
    Accepted(RunAccepted),
    /// To `sync`.
    Synced(SyncReport),
    /// To `status`.
    Status(Status),
    /// To `doctor`.
    Doctor(Doctor),
    /// To `agents`.
    Agents(Items<AgentItem>),
    /// To `credentials`.
    Credentials(Box<CredentialMap>),
    /// To `sessions`, oldest first.
    Sessions(Items<SessionItem>),
    /// To `tail` and `show`: one entry.
    Entry(Box<Entry>),
    /// To `show`, after the entries.
    Closing(Box<Closing>),
    /// To `chain`: each link after the one that it acts for.
    Chain(Items<LinkItem>),
    /// To `explain`.
    Explained(Box<Explained>),
    /// To `review`.
    Reviewed {
        /// The entry that says so.
        uid: String,
    },
    /// To `reload`.
    Reloaded(ReloadReport),
    /// The last line of an answer that failed.
    Error(RemoteError),
    /// The last line of an answer that is whole.
    End {},
}

/// Why the daemon did not, or not fully, answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{message}")]
pub struct RemoteError {
    /// What kind of failure it is; decides the exit code.
    pub kind: ErrorKind,
    /// A sentence for a person, with the remedy where there is one.
    pub message: String,
}

impl RemoteError {
    /// A failure of this kind.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into() }
    }
}

/// Kinds of failures.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ErrorKind {
    /// The request, or something named in it, is wrong.
    BadRequest,
    /// What it names does not exist.
    NotFound,
    /// The peer may not use the socket.
    Forbidden,
    /// Too many connections.
    Busy,
    /// The client read too slowly.
    TooSlow,
    /// The time ran out.
    TimedOut,
    /// The daemon tried and could not.
    Failed,
    /// The daemon is stopping, or cannot watch.
    Unavailable,
}
