//! What the pipeline finds: entries of findings, whose they are, and how often they are said.

use super::clock::boot_ns;
use super::pipeline::Pipeline;
use crate::config::delegation::{Broken, broken_link};
use crate::entry::{Delegator, Draft};
use crate::finding::{DELEGATION, Found, LINEAGE_LOST};
use crate::scope;

impl Pipeline {
    /// Records a finding about whoever `whose` says. Repeats are counted with the session `by`, whose doing it is (0: no
    /// session's).
    pub(super) fn find(&mut self, by: u64, found: &Found, whose: Draft) {
        let draft = self.ledger.tell(by, found, whose, boot_ns());
        self.push_found(draft);
    }

    /// Records how often findings were repeated in the last minutes.
    pub(super) fn repeat_findings(&mut self) {
        let due = self.ledger.due(boot_ns());
        self.push_found(due);
    }

    /// The same at the end of a session, or of the daemon.
    pub(super) fn close_findings(&mut self, session: Option<u64>) {
        let counted = self.ledger.close(session);
        self.push_found(counted);
    }

    /// Finds that it is not known on whose behalf a session runs, beyond some process. `start` is its first entry.
    pub(super) fn look_at_lineage(&mut self, session: u64, start: Draft, seq: u64) {
        let Some(lost) = self.attributor.session(session).and_then(|session| session.lost.clone()) else { return };
        let program = scope::recorded::readable(lost.program.as_bytes()).0;
        let text = format!("on whose behalf this runs was lost at process {} ({program}): {}", lost.tgid, lost.why);
        let found = Found::new(&LINEAGE_LOST, format!("{} {program}", lost.tgid), text)
            .with("bailiwick.lineage.tgid", lost.tgid)
            .with("bailiwick.lineage.program", program)
            .with("bailiwick.lineage.why", lost.why)
            .because_of([self.uid(seq)]);
        self.find(session, &found, start);
    }

    fn push_found(&mut self, drafts: impl IntoIterator<Item = Draft>) {
        for draft in drafts {
            self.push(draft.session.map_or(0, |session| session.0), draft);
        }
    }

    /// Finds that a session should not have been started where it was. `whose` is the entry of the delegation, with that seq.
    /// It is the delegator's doing, who may start as many sessions as it likes.
    pub(super) fn look_at_delegation(&mut self, whose: &Draft, seq: u64) {
        let Some((agent, from)) = whose.agent.as_deref().zip(whose.delegation.last()) else { return };
        let delegators: Vec<&str> = whose.delegation.iter().map(|link| link.agent.as_str()).collect();
        let Some(broken) = broken_link(&delegators, agent, |name| self.config.declaration(name)) else { return };
        let found = delegation_found(agent, from, delegators.len(), &broken).because_of([self.uid(seq)]);
        self.find(from.session.0, &found, whose.clone());
    }
}

/// The finding that a link of a chain, the one to `agent`, is not allowed.
fn delegation_found(agent: &str, from: &Delegator, depth: usize, broken: &Broken) -> Found {
    let (text, declared, limit) = match broken {
        Broken::NotNamed { declared } => {
            let text = format!(
                "'{}' started '{agent}', which its declaration does not name in `to` of [scope.delegate]",
                from.agent
            );
            (text, declared, None)
        }
        Broken::TooDeep { limit_of, max_depth, depth, declared } => {
            let text = format!(
                "'{}' started '{agent}' at depth {depth} below '{limit_of}', which allows {max_depth} (`max_depth` of \
                 [scope.delegate])",
                from.agent
            );
            (text, declared, Some(*max_depth))
        }
    };
    let found = Found::new(&DELEGATION, format!("{} > {agent}", from.agent), text)
        .with("bailiwick.delegation.from", from.agent.clone())
        .with("bailiwick.delegation.from_session", from.session.to_string())
        .with("bailiwick.delegation.to", agent)
        .with("bailiwick.delegation.depth", depth)
        .with("bailiwick.delegation.declared_in", format!("{}:{}", declared.file, declared.line));
    match limit {
        Some(limit) => found.with("bailiwick.delegation.max_depth", limit),
        None => found,
    }
}
