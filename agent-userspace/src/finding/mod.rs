//! Findings: what follows from more than one event, or from an event and what was declared.
//!
//! [`FINDINGS`] is the one table of them: name, meaning, attributes. Documents derive from it, and a finding can only be made
//! of a row of it. Input: a [`Found`] and the entry that says whose it is. Output: a draft of `finding.NAME` with a `count`
//! of 0, which names the entries that it follows from by their uids. Pure. Refuses: to flood the trail; [`ledger`] lets one
//! through for each session and key, and counts the rest.

pub mod ledger;

use serde_json::{Map, Value};

use crate::credential::found;
use crate::entry::{Draft, Verdict};

/// A kind of finding.
#[derive(Debug, PartialEq, Eq)]
pub struct Finding {
    /// The event's name.
    pub event: &'static str,
    /// What it means, for people.
    pub meaning: &'static str,
    /// Its own attributes; those in brackets only where they apply. [`COMMON`] stand beside them.
    pub attributes: &'static [&'static str],
}

/// The sentence for people.
pub const TEXT: &str = "bailiwick.finding.text";
/// The uids of the entries that it follows from.
pub const CAUSES: &str = "bailiwick.finding.causes";
/// How many findings the entry stands for, itself included.
pub const REPEATS: &str = "bailiwick.finding.repeats";

/// The attributes of every finding.
pub const COMMON: &[&str] = &[TEXT, CAUSES, "[bailiwick.finding.repeats]"];

/// An agent was started within another's session, and the declarations do not let it.
pub const DELEGATION: Finding = Finding {
    event: "finding.delegation",
    meaning: "an agent was started from within another's session though that one's declaration does not name it in \
              `[scope.delegate] to`, or deeper than a `max_depth` of the chain allows; it names the link where the chain broke",
    attributes: &[
        "bailiwick.delegation.from",
        "bailiwick.delegation.from_session",
        "bailiwick.delegation.to",
        "bailiwick.delegation.depth",
        "[bailiwick.delegation.max_depth]",
        "[bailiwick.delegation.declared_in]",
    ],
};

/// An agent runs that nothing declares.
pub const UNDECLARED_AGENT: Finding = Finding {
    event: "finding.undeclared_agent",
    meaning: "discovery found an agent runtime of its catalogue, a client of a model server or a model server among the \
              processes of this host, and no declaration names it; a declaration that would stands beside. It is an entry of \
              the session that it runs in, where it does",
    attributes: &[
        "bailiwick.discovery.name",
        "bailiwick.discovery.kind",
        "bailiwick.discovery.evidence",
        "bailiwick.discovery.command_args",
        "bailiwick.discovery.started",
        "bailiwick.discovery.declaration",
        "[bailiwick.discovery.inside]",
    ],
};

/// An agent began with another image or script than before.
pub const AGENT_CHANGED: Finding = Finding {
    event: "finding.agent_changed",
    meaning: "a session of the agent began with an image, or a script, of other bytes than the sessions before: the same \
              path with another SHA-256, or, of what the agent is recognised by, another file in the place of the last",
    attributes: &[
        "bailiwick.integrity.role",
        "bailiwick.integrity.path",
        "bailiwick.integrity.was",
        "bailiwick.integrity.is",
        "bailiwick.integrity.since",
        "[bailiwick.integrity.was_path]",
    ],
};

/// On whose behalf a session runs is not known beyond a process.
pub const LINEAGE_LOST: Finding = Finding {
    event: "finding.lineage_lost",
    meaning: "it is not known beyond a process on whose behalf the session runs: the server of a terminal multiplexer that \
              nobody, or more than one, is attached to, or a process whose parent has ended and the leader of its session too",
    attributes: &["bailiwick.lineage.tgid", "bailiwick.lineage.program", "bailiwick.lineage.why"],
};

/// An agent's review is overdue.
pub const REVIEW_OVERDUE: Finding = Finding {
    event: "finding.review_overdue",
    meaning: "the `review_every` of an agent's declaration is over since its last `decision.review`, or since its first session \
              where it was never reviewed; looked for when the daemon starts and once an hour, told of once a day. Its cause is \
              that last review",
    attributes: &["bailiwick.review.due"],
};

/// Every finding there is.
pub const FINDINGS: &[&Finding] = &[
    &DELEGATION,
    &UNDECLARED_AGENT,
    &AGENT_CHANGED,
    &LINEAGE_LOST,
    &REVIEW_OVERDUE,
    &found::OVERDUE,
    &found::UNDECLARED,
    &found::EXPOSED,
    &found::NEW_READER,
    &found::OLD_HANDLE,
    &found::EXFILTRATION,
    &found::LATERAL_MOVEMENT,
];

/// Something that was found.
#[derive(Clone, Debug)]
pub struct Found {
    finding: &'static Finding,
    key: String,
    draft_attributes: Map<String, Value>,
}

impl Found {
    /// A finding about `key`: of the same finding with the same key, in one session, one entry is written at first, and then
    /// one for all that repeat it for a while. `text` is a sentence, which ends without a full stop.
    pub fn new(finding: &'static Finding, key: impl Into<String>, text: impl Into<String>) -> Self {
        let mut draft_attributes = Map::new();
        draft_attributes.insert(TEXT.to_owned(), text.into().into());
        draft_attributes.insert(CAUSES.to_owned(), Value::Array(Vec::new()));
        Self { finding, key: key.into(), draft_attributes }
    }

    /// Adds an attribute of the finding's own.
    #[must_use]
    pub fn with(mut self, name: &'static str, value: impl Into<Value>) -> Self {
        self.draft_attributes.insert(name.to_owned(), value.into());
        self
    }

    /// Names the entries that it follows from.
    #[must_use]
    pub fn because_of(mut self, uids: impl IntoIterator<Item = String>) -> Self {
        let uids: Vec<Value> = uids.into_iter().map(Value::from).collect();
        self.draft_attributes.insert(CAUSES.to_owned(), uids.into());
        self
    }

    /// The kind of finding.
    pub fn finding(&self) -> &'static Finding {
        self.finding
    }

    /// What it is about.
    pub fn key(&self) -> &str {
        &self.key
    }

    /// The entry, of whoever `whose` says: its agent, session, principal, process.
    pub fn draft(&self, whose: Draft) -> Draft {
        Draft {
            event: self.finding.event.to_owned(),
            verdict: Verdict::None,
            reason: None,
            count: 0,
            first_time: None,
            gap: None,
            attributes: self.draft_attributes.clone(),
            // What was escaped or cut of other attributes is not here.
            escaped: whose.escaped.into_iter().filter(|name| name == "process.executable").collect(),
            truncated: Vec::new(),
            redacted: Vec::new(),
            ..whose
        }
    }
}

/// The findings' part of `docs/events.md`.
pub fn findings_page() -> String {
    let mut page = String::from(
        "\n## Findings\n\nWhat follows from more than one event. Recorded only, with a `count` of 0. Each has a \
         sentence for people (`bailiwick.finding.text`)\nand the uids of the entries that it follows from \
         (`bailiwick.finding.causes`). Of the same finding about the same thing, in one\nsession, the first is an entry; \
         those of the next ten minutes are counted, and then one entry stands for all of them: for\n\
         `bailiwick.finding.repeats`, itself included. The session's end writes what is counted by then.\n",
    );
    for finding in FINDINGS {
        let attributes: Vec<String> = finding.attributes.iter().map(|name| format!("`{name}`")).collect();
        page.push_str(&format!("\n### {}\n\n- Means: {}\n", finding.event, finding.meaning));
        page.push_str(&format!("- Attributes: {}\n", attributes.join(", ")));
    }
    page
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::entry::Timestamp;

    #[test]
    fn no_finding_stands_in_the_table_twice_and_each_says_what_it_means() {
        let mut names: Vec<_> = FINDINGS.iter().map(|finding| finding.event).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), FINDINGS.len());
        for finding in FINDINGS {
            assert!(finding.event.starts_with("finding.") && !finding.meaning.is_empty(), "{finding:?}");
            assert!(finding.attributes.iter().all(|name| name.trim_start_matches('[').starts_with("bailiwick.")));
        }
    }

    #[test]
    fn a_finding_is_derived_is_not_judged_and_names_its_causes() {
        let mut whose = Draft::of_host(Timestamp(1), "file.open");
        whose.agent = Some("a".to_owned());
        whose.count = 7;
        whose.verdict = Verdict::OutOfScope;
        whose.attributes.insert("file.path".to_owned(), "/x".into());
        let found = Found::new(&DELEGATION, "k", "it was").because_of(["t-1".to_owned()]);
        let draft = found.draft(whose);
        assert_eq!((draft.event.as_str(), draft.count, draft.verdict), ("finding.delegation", 0, Verdict::None));
        assert_eq!(draft.agent.as_deref(), Some("a"));
        assert_eq!(serde_json::Value::Object(draft.attributes), serde_json::json!({ TEXT: "it was", CAUSES: ["t-1"] }));
    }
}
