//! What is known of a session and of its processes.

use std::collections::BTreeSet;

use crate::decode::ProcessKey;
use crate::entry::{Attribution, Delegator, Principal, SessionId, Timestamp};

/// One run of an agent.
#[derive(Clone, Debug)]
pub struct Session {
    /// Its id.
    pub id: SessionId,
    /// Its agent.
    pub agent: String,
    /// Its first process.
    pub root: ProcessKey,
    /// The image that the first process ran last, once that has ended and is forgotten.
    pub root_executable: Option<Vec<u8>>,
    /// How that was recognised.
    pub attribution: Attribution,
    /// Who delegated, outermost first.
    pub delegation: Vec<Delegator>,
    /// On whose behalf it runs.
    pub principal: Principal,
    /// When it began.
    pub started: Timestamp,
    /// Its processes that live.
    pub live: BTreeSet<ProcessKey>,
    /// How many processes were in it.
    pub processes: u64,
    /// What stands in the trail about it.
    pub tally: Tally,
}

/// A session's entries, counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// All of them.
    pub entries: u64,
    /// Those out of scope.
    pub out_of_scope: u64,
    /// Actions known to be lost.
    pub lost: u64,
}

/// A process of a session.
#[derive(Clone, Debug, Default)]
pub struct Process {
    /// The session's kernel id.
    pub session: u64,
    /// The image's path, where known.
    pub executable: Option<Vec<u8>>,
    /// The arguments of its last exec.
    pub arguments: Vec<Vec<u8>>,
    /// Its parent's id.
    pub parent_tgid: Option<u32>,
    /// Its parent, where that belongs to the same session.
    pub parent: Option<ProcessKey>,
    /// How many execs it made in its session.
    pub execs: u32,
    /// When it ended, in nanoseconds after boot.
    pub ended_boot_ns: Option<u64>,
}
