//! What the daemon reports of itself, of its agents and of their sessions.
//!
//! Purpose: one type for each answer. Inputs: filled by the daemon's core, or folded from entries. Outputs: the JSON that
//! `--json` prints (`docs/contract.md`). Refuses: nothing, these are plain values.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use crate::discover::Discovered;
use crate::entry::{Delegator, Entry, Gap, Principal, SessionId, Timestamp};
use crate::integrity::KnownFile;

/// A listing: `{"items": [...]}`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Items<T> {
    /// What is listed.
    pub items: Vec<T>,
}

/// How the daemon is: `bailiwick status`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// Whether all is as it should be.
    pub healthy: bool,
    /// Why not, in sentences.
    pub reasons: Vec<String>,
    /// The trail.
    pub trail: TrailStatus,
    /// Actions known to be lost since the trail began.
    pub lost: u64,
    /// Records that the sensor has handed over since the daemon started. It grows for members of sessions alone; where
    /// a declaration recognises what only the daemon can decide on, for such execs of anybody too.
    pub records: u64,
    /// What this kernel does not let the sensor see.
    pub blind_spots: Vec<String>,
    /// One item for each target and signal; empty where nothing is exported.
    pub export: Vec<ExportStatus>,
    /// Whether recognition is attached, the rest attached or armed, and what already ran is reconciled. What
    /// `status --wait` waits for.
    pub ready: bool,
    /// Where `/metrics`, `/healthz` and `/readyz` are answered; null where they are not.
    pub metrics: Option<SocketAddr>,
}

/// The trail's part of a [`Status`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TrailStatus {
    /// Entries in the trail.
    pub entries: u64,
}

/// How far a signal of a target has come.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExportStatus {
    /// The target's name.
    pub target: String,
    /// `logs`, `traces` or `metrics`.
    pub signal: String,
    /// The last entry that the target has acknowledged, with all before it.
    pub acknowledged: u64,
    /// Entries after it.
    pub pending: u64,
    /// Records that the target refused for good, and that a dead letter tells of.
    pub dead_lettered: u64,
    /// Records that the target refused for good.
    pub rejected: u64,
    /// Records that the target accepted since the daemon started.
    pub sent: u64,
    /// Requests that were tried again since the daemon started.
    pub retried: u64,
    /// When the target last accepted something since the daemon started.
    pub last_success: Option<Timestamp>,
    /// The time of the first entry that is on its way.
    pub oldest: Option<Timestamp>,
    /// Why nothing goes on, while nothing does.
    pub error: Option<String>,
}

/// How a signal gets to a target.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExportWay {
    /// The target's name.
    pub target: String,
    /// `logs`, `traces` or `metrics`.
    pub signal: String,
    /// The URL.
    pub endpoint: String,
    /// `grpc` or `http/protobuf`.
    pub protocol: String,
    /// `none`, `gzip` or `zstd`.
    pub compression: String,
    /// The proxy on the way, as `host:port`.
    pub proxy: Option<String>,
    /// The file of headers.
    pub headers_file: Option<String>,
    /// The file of authorities; null: the host's store.
    pub ca_file: Option<String>,
    /// The file of our own certificate.
    pub certificate_file: Option<String>,
    /// Why nothing goes on, while nothing does.
    pub error: Option<String>,
}

/// What the sensor can see on this kernel: `bailiwick doctor`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Doctor {
    /// Which way of seeing is in use: 1 or 2 (`docs/architecture.md`).
    pub tier: u8,
    /// One item for each observation.
    pub observations: Vec<Observation>,
    /// What is not observed at all, in a sentence.
    pub unobserved: String,
    /// One item for each target and signal; empty where nothing is exported.
    pub export: Vec<ExportWay>,
}

impl Doctor {
    /// Every blind spot once, in the order of the observations; what is not observed at all comes last.
    pub fn blind_spots(&self) -> Vec<&str> {
        let mut all: Vec<&str> = Vec::new();
        let of_observations = self.observations.iter().flat_map(|observation| &observation.blind_spots);
        for spot in of_observations.chain([&self.unobserved]) {
            if !spot.is_empty() && !all.contains(&spot.as_str()) {
                all.push(spot);
            }
        }
        all
    }
}

/// How one event is observed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Observation {
    /// The event's name.
    pub event: String,
    /// The hook in use; `none` where there is none.
    pub hook: String,
    /// Whether it saw what was done to try it, when the daemon started.
    pub working: bool,
    /// What the hook guarantees.
    pub guarantee: String,
    /// What it does not see.
    pub blind_spots: Vec<String>,
}

/// An agent, declared or found: one item of `bailiwick agents`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AgentItem {
    /// Its name; of one that is not declared, what it was found to be.
    pub agent: String,
    /// Whether it is declared.
    pub declared: bool,
    /// Who answers for it.
    pub owner: Option<String>,
    /// What it is for.
    pub purpose: Option<String>,
    /// When it last did something.
    pub last_seen: Option<Timestamp>,
    /// Its sessions that live.
    pub sessions: Vec<SessionId>,
    /// How many sessions of it stand in the trail.
    pub sessions_total: u64,
    /// It has no scope, so nothing it does is judged.
    pub unscoped: bool,
    /// How often it must be reviewed.
    pub review_every_seconds: Option<u64>,
    /// When it last was.
    pub reviewed: Option<Timestamp>,
    /// When it must be next: counted from its last review, else from its first session.
    pub review_due: Option<Timestamp>,
    /// What its sessions began with, by hash.
    pub files: Vec<KnownFile>,
    /// Of one that is not declared: what was found.
    pub found: Option<Discovered>,
}

impl AgentItem {
    /// One that discovery found.
    pub fn undeclared(found: Discovered) -> Self {
        Self { agent: found.name.clone(), unscoped: true, found: Some(found), ..Self::default() }
    }

    /// Adds a session of it.
    pub fn add_session(&mut self, session: &SessionItem) {
        self.sessions_total += 1;
        self.last_seen = self.last_seen.max(session.ended).max(session.started);
        if self.reviewed.is_none() {
            let due = session.started.and_then(|started| self.due_after(started));
            self.review_due = self.review_due.into_iter().chain(due).min();
        }
    }

    /// Takes note of a review, which counts where it is the last.
    pub fn add_review(&mut self, at: Timestamp) {
        self.reviewed = self.reviewed.max(Some(at));
        self.review_due = self.reviewed.and_then(|reviewed| self.due_after(reviewed));
    }

    fn due_after(&self, time: Timestamp) -> Option<Timestamp> {
        let every = self.review_every_seconds?;
        Some(Timestamp(time.0.saturating_add(every.saturating_mul(1_000_000_000))))
    }
}

/// A session: one item of `bailiwick sessions`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionItem {
    /// Its id.
    pub session: SessionId,
    /// Its agent.
    pub agent: Option<String>,
    /// On whose behalf it runs.
    pub principal: Option<Principal>,
    /// Who delegated, outermost first.
    pub delegation: Vec<Delegator>,
    /// The time of its first entry.
    pub started: Option<Timestamp>,
    /// When it ended; null while it lives, and where its end was not seen.
    pub ended: Option<Timestamp>,
    /// Whether it lives.
    pub alive: bool,
    /// Processes that were in it.
    pub processes: u64,
    /// Its entries in the trail.
    pub entries: u64,
    /// Entries that a grant covers.
    pub in_scope: u64,
    /// Entries out of scope, those refused by Bailiwick among them.
    pub out_of_scope: u64,
    /// Actions known to be lost.
    pub lost: u64,
    /// Gaps in which nobody counted what was lost.
    pub uncounted_gaps: u64,
}

/// A link of a chain of delegations: one item of `bailiwick chain`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LinkItem {
    /// The session.
    #[serde(flatten)]
    pub session: SessionItem,
    /// How many delegators it has.
    pub depth: usize,
    /// Whether it is the session that was asked about.
    pub is_asked: bool,
    /// The command line of its first process.
    pub command: Vec<String>,
    /// How many actions, by event.
    pub actions: BTreeMap<String, u64>,
    /// What was executed, the first sixteen; so are the next three.
    pub executed: Vec<String>,
    /// Files that were written.
    pub wrote: Vec<String>,
    /// Addresses and Unix sockets that were reached.
    pub reached: Vec<String>,
    /// What was found, with uids.
    pub findings: Vec<String>,
}

/// What follows the entries of `bailiwick show`: all that a statement of completeness needs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Closing {
    /// The session.
    pub session: SessionItem,
    /// Gaps of no known session that overlap it: what was lost in them may have been its.
    pub host_gaps: Vec<Gap>,
    /// The sensor's blind spots while it ran; null where the trail does not say.
    pub blind_spots: Option<Vec<String>>,
    /// Sessions that it delegated to.
    pub delegated_to: Vec<Delegator>,
}

/// An entry with the way to its verdict: `bailiwick explain`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Explained {
    /// The entry.
    pub entry: Entry,
    /// The way.
    pub explanation: Explanation,
}

/// The way to a verdict, in sentences.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Explanation {
    /// How the action came to be this session's, from its first process on.
    pub attribution: Vec<String>,
    /// Deny rules and grants that were tried, each with what came of it.
    pub tried: Vec<String>,
    /// Lines of a declaration that would have allowed it; empty where it was allowed.
    pub would_allow: Vec<String>,
}

/// The daemon watches the child, which may start.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunAccepted {
    /// The session it is the first process of.
    pub session: SessionId,
}

/// Everything before the call is durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SyncReport {
    /// The last entry that is durable (and acknowledged, where that was asked for).
    pub seq: u64,
}

/// The configuration was read again and is in force.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReloadReport {
    /// Declared agents.
    pub agents: u64,
    /// What a person should know of it.
    pub warnings: Vec<String>,
}
