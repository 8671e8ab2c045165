//! What the server needs of the daemon.
//!
//! Inputs: requests, already parsed and allowed. Outputs: reports, and the trail's entries.
//! Refuses: to know the sensor, the trail's files or the configuration: the daemon implements [`Core`], tests a fake.

use std::time::Duration;

use tokio::sync::watch;

use super::peer::Peer;
use super::protocol::{ErrorKind, RemoteError, ReviewDone};
use super::query::Filter;
use super::report::{AgentItem, Doctor, Explanation, ReloadReport, RunAccepted, Status, SyncReport};
use super::sessions::Tally;
use crate::credential::map::CredentialMap;
use crate::entry::{Entry, SessionId, Timestamp};

/// Where reading begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum From {
    /// At the first entry there is.
    Start,
    /// At this position, or the first one after it.
    Seq(u64),
    /// At or before the first entry of that time or later; the server drops what is earlier.
    Time(Timestamp),
}

/// What is asked of the trail.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Question {
    /// Entries from there on, of which the filter may hold.
    Entries {
        /// From where.
        from: From,
        /// Which.
        filter: Filter,
    },
    /// All sessions, and of which of them an entry matches.
    Sessions {
        /// Which entries.
        filter: Filter,
    },
    /// All that a session's story needs.
    Story {
        /// The session.
        session: SessionId,
        /// Which of its entries are shown.
        filter: Filter,
    },
}

/// A piece of an answer. Entries that cannot matter may be left out; those that come are to be held against the filter.
#[derive(Clone, Debug)]
pub enum Found {
    /// An entry.
    Entry(Entry),
    /// An entry that stands in sums already, where it belongs to a session.
    Counted(Entry),
    /// The sums of a session over a stretch of the trail, instead of its entries there.
    Sums {
        /// The sums.
        tally: Tally,
        /// Whether an entry of it matches, in this stretch or one before.
        matched: bool,
    },
}

/// The pieces of an answer, in the order of the trail.
pub type Answer = Box<dyn Iterator<Item = Result<Found, CoreError>> + Send>;

/// Entries in the order of the trail.
pub type Entries = Box<dyn Iterator<Item = Result<Entry, CoreError>> + Send>;

/// The daemon, as the control socket sees it. Every method may block: the server calls each on a thread for that.
pub trait Core: Send + Sync + 'static {
    /// Makes the held child the first process of a session of `agent`. Returns once the hooks are attached and its
    /// membership is set, so that it may start. The server has made sure that it is a child of the peer. The peer may leave
    /// meanwhile: then the child ends without having become anything.
    fn run(&self, agent: &str, child_tgid: u32, peer: Peer) -> Result<RunAccepted, RunRefused>;

    /// Returns when everything the kernel did before the call is durable, and with `exported` acknowledged by every
    /// target; [`CoreError::TimedOut`] when that takes longer than `wait`.
    fn sync(&self, exported: bool, wait: Duration) -> Result<SyncReport, CoreError>;

    /// How the daemon is. Must be quick: `status --wait` asks ten times a second.
    fn status(&self) -> Status;

    /// What the sensor can see.
    fn doctor(&self) -> Doctor;

    /// The declared agents, by name, with their sessions that live.
    fn agents(&self) -> Vec<AgentItem>;

    /// Who reads which credential, and how old they are.
    fn credentials(&self) -> CredentialMap;

    /// Reads the configuration again, for that peer or for a signal. On [`CoreError::BadInput`] what was in force stays.
    fn reload(&self, peer: Option<Peer>) -> Result<ReloadReport, CoreError>;

    /// Records that the peer has reviewed an agent. Returns the uid of the entry, which is durable.
    fn review(&self, done: ReviewDone, peer: Peer) -> Result<String, CoreError>;

    /// The way to an entry's verdict.
    fn explain(&self, entry: &Entry) -> Explanation;

    /// The entries from there up to now: it ends.
    fn entries(&self, from: From) -> Entries;

    /// The answer, of the trail up to now: it ends.
    fn find(&self, question: Question) -> Answer;

    /// The `seq` of the last entry that [`Core::entries`] can return, 0 for none, as it grows.
    fn follow(&self) -> watch::Receiver<u64>;
}

/// Why the core could not.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CoreError {
    /// The time ran out.
    #[error("not done within {wait:?}: {waiting_for}")]
    TimedOut {
        /// How long that was.
        wait: Duration,
        /// What it was waiting for.
        waiting_for: String,
    },
    /// What an operator wrote is wrong; the sentence names file, line and column.
    #[error("{0}")]
    BadInput(String),
    /// The trail cannot be read.
    #[error("the trail cannot be read: {0}")]
    Trail(String),
    /// The daemon is stopping.
    #[error("the daemon is stopping")]
    Stopping,
}

impl std::convert::From<CoreError> for RemoteError {
    fn from(error: CoreError) -> Self {
        let kind = match &error {
            CoreError::TimedOut { .. } => ErrorKind::TimedOut,
            CoreError::BadInput(_) => ErrorKind::BadRequest,
            CoreError::Trail(_) => ErrorKind::Failed,
            CoreError::Stopping => ErrorKind::Unavailable,
        };
        Self::new(kind, error.to_string())
    }
}

/// Why a command was not started.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RunRefused {
    /// No agent of that name is declared.
    #[error("no agent '{agent}' is declared; {}", known_agents(.known))]
    UnknownAgent {
        /// The name asked for.
        agent: String,
        /// The names there are.
        known: Vec<String>,
    },
    /// The sensor cannot watch it, so it must not start.
    #[error("the sensor cannot watch it: {0}")]
    NotWatching(String),
    /// The daemon is stopping.
    #[error("the daemon is stopping")]
    Stopping,
}

fn known_agents(known: &[String]) -> String {
    if known.is_empty() {
        return "none is (declarations stand in agents.d of the configuration's directory)".to_owned();
    }
    format!("declared are: {}", known.join(", "))
}

impl std::convert::From<RunRefused> for RemoteError {
    fn from(refused: RunRefused) -> Self {
        let kind = match &refused {
            RunRefused::UnknownAgent { .. } => ErrorKind::BadRequest,
            RunRefused::NotWatching(_) | RunRefused::Stopping => ErrorKind::Unavailable,
        };
        Self::new(kind, refused.to_string())
    }
}
