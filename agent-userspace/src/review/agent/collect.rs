//! What an agent did, held against what it was granted.
//!
//! Input: its declaration, then entries of the trail in any number. Output: a [`Review`]. Everything that grows with what agents
//! do has a bound, and what is beyond is counted.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde_json::Value;

use super::grants::{GrantUses, Uses};
use super::narrow::Element;
use super::report::{
    Completeness, CredentialUse, Day, DelegationUse, GrantItem, LastReview, NotGranted, PrivilegeUse, ResourceUse,
    Review, UsedGrant, UsedThing,
};
use crate::config::{Config, Declaration};
use crate::credential;
use crate::entry::{Entry, Principal, Reason, SessionId, Timestamp, Verdict};
use crate::review::gaps::{Missing, MissingPart};
use crate::scope::grant::PRIVILEGES;
use crate::scope::recorded::{Deed, Reading, Recorded};
use crate::scope::{Action, privilege_event};

/// Kinds of actions without a grant that are told apart.
const MAX_NOT_GRANTED: usize = 1_000;
/// Sessions that are named.
const MAX_SESSIONS: usize = 10_000;
/// Days of the activity: five years.
const MAX_DAYS: usize = 1_830;
/// Credentials that are told apart.
const MAX_CREDENTIALS: usize = 1_000;
/// Agents that delegated or were delegated to.
const MAX_DELEGATIONS: usize = 1_000;

/// The event by which an operator says that a review was done.
pub const DECISION: &str = "decision.review";

/// When the next review is due, of an agent that was reviewed, or first seen, at `since`.
pub fn due(since: Timestamp, every: Duration) -> Timestamp {
    Timestamp(since.0.saturating_add(u64::try_from(every.as_nanos()).unwrap_or(u64::MAX)))
}

/// A review under way.
#[derive(Debug)]
pub struct Reviewing<'a> {
    config: &'a Config,
    declaration: &'a Declaration,
    grants: Option<GrantUses<'a>>,
    delegates: BTreeMap<String, Uses>,
    delegations: BTreeMap<(String, String), Uses>,
    not_granted: BTreeMap<(String, String), (Uses, Option<Reason>)>,
    not_granted_left_out: u64,
    privileges: BTreeMap<&'static str, Uses>,
    resources: BTreeMap<String, Uses>,
    credentials: BTreeMap<String, Uses>,
    findings: BTreeMap<String, Uses>,
    days: BTreeMap<String, Day>,
    sessions: BTreeSet<SessionId>,
    sessions_left_out: u64,
    actions: u64,
    entries: u64,
    lost: u64,
    between: Option<(Timestamp, Timestamp)>,
    missing: Missing,
    last_review: Option<LastReview>,
    first_seen: Option<Timestamp>,
}

impl<'a> Reviewing<'a> {
    /// Of this agent, by the scope in force.
    pub fn of(config: &'a Config, declaration: &'a Declaration) -> Self {
        Self {
            config,
            declaration,
            grants: declaration.scope.as_deref().map(GrantUses::of),
            delegates: BTreeMap::new(),
            delegations: BTreeMap::new(),
            not_granted: BTreeMap::new(),
            not_granted_left_out: 0,
            privileges: BTreeMap::new(),
            resources: declaration.resources.iter().map(|one| (one.name.clone(), Uses::default())).collect(),
            credentials: declaration.credentials.iter().map(|one| (one.name.clone(), Uses::default())).collect(),
            findings: BTreeMap::new(),
            days: BTreeMap::new(),
            sessions: BTreeSet::new(),
            sessions_left_out: 0,
            actions: 0,
            entries: 0,
            lost: 0,
            between: None,
            missing: Missing::default(),
            last_review: None,
            first_seen: None,
        }
    }

    /// Takes note of when the agent was first seen, and who reviewed it last: of whatever time.
    pub fn look_back(&mut self, entry: &Entry) {
        let draft = &entry.draft;
        if draft.agent.as_deref() != Some(self.declaration.name()) {
            return;
        }
        self.first_seen = Some(self.first_seen.map_or(draft.time, |first| first.min(draft.time)));
        if draft.event == DECISION {
            let by = draft.principal.as_ref().map_or_else(String::new, name_of);
            self.last_review = Some(LastReview { time: draft.time, by, uid: entry.uid.clone() });
        }
    }

    /// Adds an entry of the agent's, of one that it delegated to, or about the trail itself.
    pub fn add(&mut self, entry: &Entry) {
        let name = self.declaration.name();
        let is_own = entry.draft.agent.as_deref() == Some(name);
        let is_delegates = entry.draft.delegation.iter().any(|link| link.agent == name);
        self.missing.look_at(entry, |_| is_own);
        if is_own {
            self.add_own(entry);
        }
        if is_own || is_delegates {
            self.add_delegation(entry);
            self.add_deed(entry, is_own);
        }
    }

    fn add_own(&mut self, entry: &Entry) {
        let draft = &entry.draft;
        self.entries += 1;
        self.actions = self.actions.saturating_add(draft.count);
        self.lost = self.lost.saturating_add(draft.gap.as_ref().and_then(|gap| gap.lost).unwrap_or(0));
        let (first, last) = self.between.unwrap_or((draft.time, draft.time));
        self.between = Some((first.min(draft.time), last.max(draft.time)));
        if let Some(session) = draft.session
            && !self.sessions.contains(&session)
        {
            if self.sessions.len() < MAX_SESSIONS {
                self.sessions.insert(session);
            } else if draft.event == "session.start" {
                self.sessions_left_out += 1;
            }
        }
        if draft.event.starts_with("finding.") {
            self.findings.entry(draft.event.clone()).or_default().add_counted(entry, repeats(entry));
        }
        // Opens are counted, and their bytes are the same touch.
        if draft.event != "file.io" {
            for name in self.config.resources.names_of(draft) {
                self.resources.entry(name.to_owned()).or_default().add(entry);
            }
        }
        self.add_credential(entry);
        self.add_day(entry);
    }

    fn add_day(&mut self, entry: &Entry) {
        let day: String = entry.draft.time.to_string().chars().take(10).collect();
        if self.days.len() >= MAX_DAYS && !self.days.contains_key(&day) {
            return;
        }
        let sums = self.days.entry(day).or_default();
        let count = entry.draft.count;
        match entry.draft.verdict {
            Verdict::InScope => sums.in_scope += count,
            Verdict::OutOfScope | Verdict::Denied => sums.out_of_scope += count,
            Verdict::None => sums.not_judged += count,
        }
        if entry.draft.event.starts_with("finding.") {
            sums.findings += repeats(entry);
        }
    }

    fn add_delegation(&mut self, entry: &Entry) {
        let draft = &entry.draft;
        let (Some(to), Some(from)) = (&draft.agent, draft.delegation.last()) else { return };
        if draft.event != "delegation.start" {
            return;
        }
        let key = (from.agent.clone(), to.clone());
        if self.delegations.len() < MAX_DELEGATIONS || self.delegations.contains_key(&key) {
            self.delegations.entry(key).or_default().add_counted(entry, 1);
        }
        if from.agent == self.declaration.name() {
            self.delegates.entry(to.clone()).or_default().add_counted(entry, 1);
        }
    }

    /// What was done: of the agent itself all of it, of its delegates what rests on its grants.
    fn add_deed(&mut self, entry: &Entry, is_own: bool) {
        let draft = &entry.draft;
        let recorded = match Reading::of(draft) {
            Reading::NotJudged => return,
            Reading::Unknown(why) => {
                if is_own {
                    self.missing.unjudgeable(entry, why);
                }
                return;
            }
            Reading::Action(recorded) => recorded,
        };
        if is_own {
            self.add_privilege(&recorded, entry);
        }
        let Some(agent) = &draft.agent else { return };
        let effective = self.config.effective(agent, &draft.delegation);
        let is_bound = is_own || effective.layers().any(|layer| layer.agent == self.declaration.name());
        let judgement = recorded.judge(&effective);
        match judgement.verdict {
            Verdict::InScope if is_bound => {
                if let Some(grants) = &mut self.grants {
                    grants.add(&recorded, entry);
                }
            }
            Verdict::OutOfScope if is_own => self.add_not_granted(&recorded, entry, judgement.reason.as_ref()),
            Verdict::InScope | Verdict::OutOfScope | Verdict::Denied | Verdict::None => {}
        }
    }

    fn add_not_granted(&mut self, recorded: &Recorded, entry: &Entry, reason: Option<&Reason>) {
        let key = (entry.draft.event.clone(), told(&recorded.deed));
        if self.not_granted.len() >= MAX_NOT_GRANTED && !self.not_granted.contains_key(&key) {
            self.not_granted_left_out += 1;
            return;
        }
        let (uses, why) = self.not_granted.entry(key).or_default();
        uses.add(entry);
        *why = reason.cloned();
    }

    /// Privileges, whether granted or not.
    fn add_privilege(&mut self, recorded: &Recorded, entry: &Entry) {
        if let Deed::Privilege(name) = &recorded.deed {
            self.privileges.entry(name).or_default().add(entry);
        }
    }

    /// Credentials, whether declared or not.
    fn add_credential(&mut self, entry: &Entry) {
        let name = entry.draft.attributes.get(credential::found::NAME).and_then(Value::as_str);
        let Some(name) = name.filter(|_| entry.draft.event == "credential.read") else { return };
        if self.credentials.len() < MAX_CREDENTIALS || self.credentials.contains_key(name) {
            self.credentials.entry(name.to_owned()).or_default().add(entry);
        }
    }

    /// Lines of the trail that are no entries.
    pub fn add_missing(&mut self, part: MissingPart) {
        self.missing.add(part);
    }

    /// What it came to at `now`, and what of the declaration nothing rested on.
    pub fn finish(self, now: Timestamp, blind_spots: Vec<String>) -> (Review, Vec<Element>) {
        let (granted_unused, last_used, unused) = self.grants_used();
        let (privileges, resources, credentials) = (self.privileges(), self.resources(), self.credentials());
        let about = &self.declaration.about;
        let declared = self.config.declared_in.get(&about.name);
        let (from, to) = self.between.unwrap_or_default();
        let (gaps, gaps_left_out) = self.missing.between(from, to);
        let since = self.last_review.as_ref().map(|review| review.time).or(self.first_seen);
        let due = about.review_every.zip(since).map(|(every, since)| due(since, every));
        let not_granted = self.not_granted.into_iter();
        let mut used_not_granted: Vec<NotGranted> = not_granted
            .map(|((event, what), (uses, reason))| {
                let (reason, delegator) = reason.map(|reason| (reason.text, reason.delegator)).unzip();
                NotGranted { thing: UsedThing { event, what, uses }, reason, delegator: delegator.flatten() }
            })
            .collect();
        used_not_granted.sort_by_key(|one| std::cmp::Reverse(one.thing.uses.count));
        let delegations = self.delegations.into_iter().map(|((from, to), uses)| DelegationUse { from, to, uses });
        let findings = self.findings.into_iter().map(|(event, uses)| UsedThing { what: String::new(), event, uses });
        let review = Review {
            agent: about.name.clone(),
            owner: about.owner.clone(),
            purpose: about.purpose.clone(),
            declared_in: declared.map(|declared| declared.file.clone()),
            declaration_sha256: declared.map(|declared| declared.sha256.clone()),
            scoped: self.declaration.declared_scope.is_some(),
            from: self.between.map(|(from, _)| from),
            to: self.between.map(|(_, to)| to),
            sessions: self.sessions.into_iter().collect(),
            sessions_left_out: self.sessions_left_out,
            actions: self.actions,
            granted_unused,
            used_not_granted,
            used_not_granted_left_out: self.not_granted_left_out,
            last_used,
            privileges,
            resources,
            credentials,
            delegations: delegations.collect(),
            findings: findings.collect(),
            activity: self.days.into_iter().map(|(day, sums)| Day { day, ..sums }).collect(),
            completeness: Completeness { entries: self.entries, lost: self.lost, gaps, gaps_left_out, blind_spots },
            last_review: self.last_review,
            overdue: due.is_some_and(|due| due < now),
            due,
            diff: None,
        };
        (review, unused)
    }

    fn privileges(&self) -> Vec<PrivilegeUse> {
        let scope = self.declaration.scope.as_deref();
        let is_granted = |name| scope.is_some_and(|scope| !scope.rests_on(&Action::Privilege { name }).is_empty());
        let used = PRIVILEGES.iter().filter_map(|&name| Some((name, self.privileges.get(name)?)));
        used.map(|(name, uses)| PrivilegeUse {
            privilege: name.to_owned(),
            granted: is_granted(name),
            uses: uses.clone(),
        })
        .collect()
    }

    fn resources(&self) -> Vec<ResourceUse> {
        let pairs = self.resources.iter();
        pairs.map(|(name, uses)| ResourceUse { name: name.clone(), uses: uses.clone() }).collect()
    }

    fn credentials(&self) -> Vec<CredentialUse> {
        let of = |(name, uses): (&String, &Uses)| {
            let declared = self.declaration.credentials.iter().find(|one| one.name == *name);
            let files = declared.map(|one| one.file.iter().map(|rule| rule.pattern.text().to_owned()).collect());
            CredentialUse {
                name: name.clone(),
                declared: declared.is_some(),
                files: files.unwrap_or_default(),
                rotate_every_seconds: declared.and_then(|one| one.rotate_every).map(|every| every.as_secs()),
                uses: uses.clone(),
            }
        };
        self.credentials.iter().map(of).collect()
    }

    /// What nothing rested on; each grant with its uses; and what of that stands in the declaration itself.
    fn grants_used(&self) -> (Vec<GrantItem>, Vec<UsedGrant>, Vec<Element>) {
        let mut items: Vec<(GrantItem, Uses, Element)> = Vec::new();
        let Some((grants, scope)) = self.grants.as_ref().zip(self.declaration.scope.as_deref()) else {
            return (Vec::new(), Vec::new(), Vec::new());
        };
        let (mut of_sets, mut keep): (BTreeMap<&str, Uses>, BTreeSet<&str>) = Default::default();
        for (number, grant, uses) in grants.each() {
            if !scope.is_own(number) {
                of_sets.entry(&grant.origin.file).or_default().join(uses);
                continue;
            }
            let (table, key) = grant.declared_as();
            let table = table.trim_start_matches("[scope.").trim_end_matches(']');
            let text = grant.text().into_owned();
            let element =
                Element { tables: vec!["scope".to_owned(), table.to_owned()], key: key.to_owned(), text: text.clone() };
            let (file, line) = (grant.origin.file.to_string(), grant.origin.line);
            items.push((GrantItem { grant: format!("{table}.{key}"), text, file, line }, uses.clone(), element));
        }
        let Some(declared) = &self.declaration.declared_scope else { return (Vec::new(), Vec::new(), Vec::new()) };
        for name in &declared.include {
            let set = self.config.grant_sets.iter().find(|set| set.name.value == name.value);
            let uses = set.and_then(|set| of_sets.get(&*set.name.origin.file)).cloned().unwrap_or_default();
            // Without it more would be allowed.
            if set.is_some_and(|set| !set.rules.deny.is_empty() || !set.rules.exec_deny.is_empty()) {
                keep.insert(name.value.as_str());
            }
            items.push(item("include", &["scope"], "include", name, uses));
        }
        for name in &declared.delegate.to {
            let uses = self.delegates.get(&name.value).cloned().unwrap_or_default();
            items.push(item("delegate.to", &["scope", "delegate"], "to", name, uses));
        }
        let may_go = |element: &Element| element.key != "include" || !keep.contains(element.text.as_str());
        let elements = items.iter().filter(|(_, uses, _)| uses.is_none()).map(|(.., element)| element);
        let unused = elements.filter(|element| may_go(element)).cloned().collect();
        let granted_unused = items.iter().filter(|(_, uses, _)| uses.is_none()).map(|(item, ..)| item.clone());
        let granted_unused = granted_unused.collect();
        let last_used = items.into_iter().map(|(grant, uses, _)| UsedGrant { grant, uses }).collect();
        (granted_unused, last_used, unused)
    }
}

fn item(
    grant: &str,
    tables: &[&str],
    key: &str,
    name: &crate::config::Located<String>,
    uses: Uses,
) -> (GrantItem, Uses, Element) {
    let (file, line) = (name.origin.file.to_string(), name.origin.line);
    let element = Element {
        tables: tables.iter().map(|&table| table.to_owned()).collect(),
        key: key.to_owned(),
        text: name.value.clone(),
    };
    (GrantItem { grant: grant.to_owned(), text: name.value.clone(), file, line }, uses, element)
}

/// Who decided: with the user that logged in, where that is another.
fn name_of(principal: &Principal) -> String {
    let name = principal.user.clone().unwrap_or_else(|| format!("uid {}", principal.uid));
    match principal.login_uid {
        Some(login) if login != principal.uid => format!("{name} (logged in as uid {login})"),
        Some(_) | None => name,
    }
}

fn repeats(entry: &Entry) -> u64 {
    entry.draft.attributes.get(crate::finding::REPEATS).and_then(Value::as_u64).unwrap_or(1)
}

/// What an action was about, as text: escaped where it is no text.
fn told(deed: &Deed) -> String {
    let names: Vec<String> = deed.names().map(|name| crate::scope::recorded::readable(&name.bytes).0).collect();
    match deed {
        Deed::Connect(address) | Deed::Listen(address) => address.to_string(),
        Deed::UnixAbstract(name) => format!("@{}", crate::scope::recorded::readable(name).0),
        Deed::Privilege(name) => privilege_event(name),
        Deed::Exec { path, script } => crate::scope::recorded::readable(&script.as_ref().unwrap_or(path).bytes).0,
        Deed::File { .. } | Deed::Names(_) | Deed::UnixPath(_) => names.join(", "),
    }
}
