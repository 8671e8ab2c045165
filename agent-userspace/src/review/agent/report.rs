//! What a review says, as `--json` has it.

use serde::{Deserialize, Serialize};

use super::grants::Uses;
use crate::entry::{SessionId, Timestamp};
use crate::review::gaps::MissingPart;

/// A grant, as it is declared.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct GrantItem {
    /// What it grants: `files.read`, `network.connect`, `include`, `delegate.to`.
    pub grant: String,
    /// As it is written: a pattern, an address, a set of grants, an agent.
    pub text: String,
    /// The file it stands in.
    pub file: String,
    /// The line.
    pub line: u32,
}

/// A grant that was used.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UsedGrant {
    /// The grant.
    #[serde(flatten)]
    pub grant: GrantItem,
    /// How often and when; nothing where it was not used in what was looked at.
    #[serde(flatten)]
    pub uses: Uses,
}

/// Actions of one kind on one thing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UsedThing {
    /// The event.
    pub event: String,
    /// What it was about: a path, an address, a name.
    pub what: String,
    /// How often and when.
    #[serde(flatten)]
    pub uses: Uses,
}

/// What was done without a grant.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NotGranted {
    /// What was done.
    #[serde(flatten)]
    pub thing: UsedThing,
    /// Why it is out of scope: the rule that denies it, or the nearest grants.
    pub reason: Option<String>,
    /// Whose scope that is, where it is a delegator's.
    pub delegator: Option<String>,
}

/// A privilege.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PrivilegeUse {
    /// Its name in `[scope.privileges]`.
    pub privilege: String,
    /// Whether it is granted now.
    pub granted: bool,
    /// How often and when.
    #[serde(flatten)]
    pub uses: Uses,
}

/// A resource that was touched, whoever declares it, or that the agent declares.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResourceUse {
    /// What people call it.
    pub name: String,
    /// How often and when it was touched.
    #[serde(flatten)]
    pub uses: Uses,
}

/// A credential: a declared one, or one that was read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CredentialUse {
    /// What people call it.
    pub name: String,
    /// Whether the agent's declaration names it.
    pub declared: bool,
    /// The files that hold it, as declared.
    pub files: Vec<String>,
    /// How often it must be changed, in seconds.
    pub rotate_every_seconds: Option<u64>,
    /// How often and when it was read.
    #[serde(flatten)]
    pub uses: Uses,
}

/// A delegation to or from the agent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DelegationUse {
    /// Who delegated.
    pub from: String,
    /// To whom.
    pub to: String,
    /// How often and when; `count` is how many sessions.
    #[serde(flatten)]
    pub uses: Uses,
}

/// What was done on one day (UTC), in actions.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Day {
    /// As in `2026-01-31`.
    pub day: String,
    /// In scope.
    pub in_scope: u64,
    /// Out of scope, or refused.
    pub out_of_scope: u64,
    /// Not judged.
    pub not_judged: u64,
    /// Findings.
    pub findings: u64,
}

/// How much of what was done the trail has.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Completeness {
    /// Entries that were looked at.
    pub entries: u64,
    /// Actions known to be lost.
    pub lost: u64,
    /// Gaps, what retention removed, and what cannot be judged again.
    pub gaps: Vec<MissingPart>,
    /// Parts beyond those that are told of one by one.
    pub gaps_left_out: u64,
    /// What the sensor cannot see, whatever is done.
    pub blind_spots: Vec<String>,
}

/// Who reviewed last.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LastReview {
    /// When.
    pub time: Timestamp,
    /// Who: a user's name or number.
    pub by: String,
    /// The entry.
    pub uid: String,
}

/// A review.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Review {
    /// The agent.
    pub agent: String,
    /// Who answers for it.
    pub owner: Option<String>,
    /// What it is for.
    pub purpose: Option<String>,
    /// The declaration's file.
    pub declared_in: Option<String>,
    /// The SHA-256 of that file.
    pub declaration_sha256: Option<String>,
    /// Whether it has a scope at all.
    pub scoped: bool,
    /// The time of the first entry that was looked at.
    pub from: Option<Timestamp>,
    /// And of the last.
    pub to: Option<Timestamp>,
    /// Its sessions in that time.
    pub sessions: Vec<SessionId>,
    /// Sessions beyond those.
    pub sessions_left_out: u64,
    /// Its own actions.
    pub actions: u64,
    /// Grants that nothing rested on.
    pub granted_unused: Vec<GrantItem>,
    /// What was done and no grant covers.
    pub used_not_granted: Vec<NotGranted>,
    /// Kinds of it beyond those.
    pub used_not_granted_left_out: u64,
    /// Every grant, with its last use.
    pub last_used: Vec<UsedGrant>,
    /// Privileges that were used.
    pub privileges: Vec<PrivilegeUse>,
    /// Resources.
    pub resources: Vec<ResourceUse>,
    /// Declared credentials, and others that were read.
    pub credentials: Vec<CredentialUse>,
    /// Delegations.
    pub delegations: Vec<DelegationUse>,
    /// Findings, by name.
    pub findings: Vec<UsedThing>,
    /// What was done, day by day.
    pub activity: Vec<Day>,
    /// How much of it the trail has.
    pub completeness: Completeness,
    /// The review before.
    pub last_review: Option<LastReview>,
    /// When the next one is due; none where `review_every` is not declared.
    pub due: Option<Timestamp>,
    /// Whether that is over.
    pub overdue: bool,
    /// The narrower scope, as a difference to the declaration; empty where nothing is unused, none where there is no scope.
    pub diff: Option<String>,
}
