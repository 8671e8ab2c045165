//! Accounts that are settled late: counts of folded repeats, losses, processes and sessions that have ended.

use agent_common::maps::{LOSS_ANNOUNCE, LOSS_INHERIT, LOSS_READ, LOSS_UNTOLD};
use agent_common::record::RecordKind;
use tracing::warn;

use super::clock::boot_ns;
use super::drafts::Compose;
use super::figures::{LOST_RING_FULL, LOST_UNCOUNTED, loss_reason};
use super::pipeline::Pipeline;
use crate::attribute::Session;
use crate::decode::ProcessKey;
use crate::entry::{Draft, Timestamp};
use crate::observation::{blind_spots, event_of};

impl Pipeline {
    /// Writes what the keys of a process have counted, of one that has exec'd those before that exec, and forgets them: they
    /// count no more.
    pub(super) fn flush_process(&mut self, process: ProcessKey, before_exec: Option<u32>) {
        for key in self.folding.keys_of(process, before_exec) {
            if let Ok(Some(fold)) = self.sensor.fold(&key) {
                let clock = self.clock;
                if let Some(draft) = self.folding.flush(&key, &fold, |boot_ns| clock.wall(boot_ns)) {
                    let session = self.attributor.resolve(key.session).unwrap_or(0);
                    self.push(session, draft);
                }
                if fold.announced == 0 {
                    // Its count stays in the kernel until it has been told as lost.
                    continue;
                }
            }
            self.sensor.forget_fold(&key);
            self.folding.forget(&key);
        }
    }

    /// Writes what every key has counted.
    pub(super) fn flush_all(&mut self) {
        let folds = match self.sensor.folds() {
            Ok(folds) => folds,
            Err(error) => return warn!(%error, "counts of repeats are late"),
        };
        let clock = self.clock;
        for (key, fold) in &folds {
            if let Some(draft) = self.folding.flush(key, fold, |boot_ns| clock.wall(boot_ns)) {
                let session = self.attributor.resolve(key.session).unwrap_or(0);
                self.push(session, draft);
            }
        }
    }

    /// Records as lost what was counted under keys that nobody could announce.
    pub(super) fn sweep_unannounced(&mut self) {
        if !self.unannounced {
            return;
        }
        // Who lives is asked before the counts are read: of one that ends in between nothing is forgotten yet.
        self.recount();
        let Ok(folds) = self.sensor.folds() else { return };
        let clock = self.clock;
        for (key, fold) in &folds {
            if let Some(draft) = self.folding.flush(key, fold, |boot_ns| clock.wall(boot_ns)) {
                let session = self.attributor.resolve(key.session).unwrap_or(0);
                self.push(session, draft);
            }
        }
        for ((id, kind), sum) in self.folding.unannounced(&folds) {
            let session = self.attributor.resolve(id);
            let kind = u16::try_from(kind).ok().and_then(RecordKind::from_wire).map_or("all", event_of);
            self.figures.lose(kind, LOST_RING_FULL, sum.lost);
            let why = "the ring was full, and no later action of the same kind told what it was done to";
            self.lose(session, kind, Some(sum.lost), (sum.from_boot_ns, sum.to_boot_ns), why);
        }
        self.forget_folds_of_the_dead(&folds);
    }

    fn forget_folds_of_the_dead(&mut self, folds: &[(agent_common::file::OpenKey, agent_common::maps::Fold)]) {
        let mut outstanding = false;
        for (key, fold) in folds {
            let process = ProcessKey { tgid: key.tgid, start_boot_ns: key.start_boot_ns };
            let known = self.attributor.process(process);
            if known.is_none_or(|process| process.ended_boot_ns.is_some()) {
                self.sensor.forget_fold(key);
                self.folding.forget(key);
            } else {
                outstanding |= fold.announced == 0;
            }
        }
        self.unannounced = outstanding;
    }

    /// Records what could not be handed over since it was last asked.
    pub(super) fn sweep_losses(&mut self) {
        let losses = match self.sensor.losses() {
            Ok(losses) => losses,
            Err(error) => return warn!(%error, "losses are not known"),
        };
        let mut members_lost = false;
        for (key, loss) in losses {
            let (seen, until) = self.losses.get(&key).copied().unwrap_or((0, loss.first_boot_ns));
            let more = loss.count.saturating_sub(seen);
            if more == 0 {
                continue;
            }
            self.losses.insert(key, (loss.count, loss.last_boot_ns));
            let kind = u16::try_from(key.kind).ok().and_then(RecordKind::from_wire);
            let (kind, lost, why) = match key.why {
                LOSS_ANNOUNCE => {
                    self.unannounced = true;
                    continue;
                }
                // Nothing of what it has done yet is lost: all that it does from now on is.
                LOSS_INHERIT => ("all", None, "a process could not be given its session: what it does is not seen"),
                LOSS_READ => (kind.map_or("all", event_of), Some(more), "the kernel's memory could not be read"),
                LOSS_UNTOLD => {
                    (kind.map_or("all", event_of), Some(more), "an io_uring told nobody that its operation had ended")
                }
                _ => (kind.map_or("all", event_of), Some(more), "the ring was full"),
            };
            self.figures.lose(kind, loss_reason(key.why), more);
            members_lost |= !matches!(kind, "file.open" | "network.connect");
            let session = self.attributor.resolve(key.session);
            self.lose(session, kind, lost, (until, loss.last_boot_ns), why);
        }
        if members_lost {
            self.recount();
        }
        let now = boot_ns();
        if let Ok(uncounted) = self.sensor.uncounted_losses()
            && uncounted > self.uncounted
        {
            let more = uncounted - self.uncounted;
            self.uncounted = uncounted;
            self.figures.lose("all", LOST_UNCOUNTED, more);
            self.lose(None, "all", Some(more), (now, now), "more sessions lost records than losses are kept for");
        }
        for (hook, misses) in self.sensor.recursion_misses() {
            let seen = self.missed.entry(hook).or_insert(0);
            if misses > *seen {
                *seen = misses;
                let why = format!("the program on {hook} was running already on that processor");
                self.lose(None, "all", None, (now, now), &why);
            }
        }
        match self.sensor.emitted() {
            Ok(emitted) => {
                self.figures.note_records(&emitted);
                self.view.lock().records = emitted.into_iter().map(|(_, records)| records).sum();
            }
            Err(error) => warn!(%error, "how many records there were is not known"),
        }
    }

    /// Settles with the processes that ended before that time, and with the sessions of which nothing lives.
    pub(super) fn reap(&mut self, before_boot_ns: u64) {
        let ended = self.attributor.ended_before(before_boot_ns);
        if !ended.is_empty() {
            // Before they are forgotten, what was lost of them must be known.
            self.sweep_losses();
        }
        for &process in &ended {
            self.flush_process(process, None);
        }
        if !ended.is_empty() {
            self.sweep_unannounced();
        }
        for &process in &ended {
            self.attributor.forget(process);
        }
        let over: Vec<u64> =
            self.attributor.sessions().map(|(id, _)| id).filter(|&id| self.attributor.is_over(id)).collect();
        if over.is_empty() || !self.is_really_over() {
            return;
        }
        for id in over {
            if self.attributor.is_over(id) {
                self.close(id);
            }
        }
    }

    /// Asks the kernel who lives: after losses, our own account of it may be wrong.
    pub(super) fn recount(&mut self) {
        if self.attributor.sessions().next().is_some() && !self.is_really_over() {
            warn!("who lives is not known for sure");
        }
    }

    /// Takes decisions off the kernel side's table, and off ours, when they have been heard of or will be told again.
    pub(super) fn forget_decisions(&mut self) {
        let now = boot_ns();
        while self.decisions.front().is_some_and(|&(keep_until, _)| keep_until < now) {
            let Some((_, provisional)) = self.decisions.pop_front() else { break };
            self.sensor.forget_decision(provisional);
            if self.attributor.session(provisional).is_none() {
                self.attributor.forget_outsider(provisional);
                // Kept for the daemon alone, which knows by now.
                let _ = self.sensor.take_opened(provisional);
            }
        }
    }

    /// Before a session is closed the kernel is asked whether a process of it lives that we have not heard of.
    fn is_really_over(&mut self) -> bool {
        match self.sensor.tasks() {
            Ok(rows) => {
                self.attributor.reconcile(&rows, boot_ns());
                true
            }
            Err(error) => {
                warn!(%error, "a session's end waits");
                false
            }
        }
    }

    fn close(&mut self, id: u64) {
        self.lose_refused(id);
        self.close_findings(Some(id));
        let Some(session) = self.attributor.session(id).cloned() else { return };
        let time = self.clock.wall(boot_ns());
        let draft = end(
            Compose::of(&self.attributor, &session, session.root, session.root.tgid, time, "session.end"),
            &session,
        );
        self.push(id, draft);
        self.attributor.close(id);
        self.over.note(session);
        // Kept for the daemon alone, which is done with it.
        let _ = self.sensor.take_opened(id);
        for (key, _) in self.losses.extract_if(.., |key, _| key.session == id) {
            self.sensor.forget_loss(&key);
        }
        self.live_sessions.note(self.attributor.sessions());
    }
}

/// A session's last entry.
fn end(mut compose: Compose, session: &Session) -> Draft {
    compose.draft.count = 0;
    compose.set("bailiwick.session.start_time", session.started.to_string());
    compose.set("bailiwick.session.processes", session.processes);
    // Its own entry among them.
    compose.set("bailiwick.session.entries", session.tally.entries + 1);
    compose.set("bailiwick.session.out_of_scope", session.tally.out_of_scope);
    compose.set("bailiwick.session.findings", session.tally.findings);
    compose.set("bailiwick.session.lost", session.tally.lost);
    compose.set("bailiwick.session.gaps", session.tally.gaps);
    compose.set("bailiwick.session.gaps_told", session.tally.told.clone());
    compose.set("bailiwick.session.lost_by_kind", session.tally.lost_by_kind());
    compose.set("bailiwick.session.blind_spots", blind_spots());
    compose.draft
}

/// The last entry of a session that a daemon before this one left open.
pub(super) fn end_of_abandoned(session: &super::sessions_file::Abandoned, time: Timestamp) -> Draft {
    let mut draft = Draft {
        agent: Some(session.agent.clone()),
        session: Some(session.session),
        delegation: session.delegation.clone(),
        principal: Some(session.principal.clone()),
        ..Draft::of_host(time, "session.end")
    };
    draft.attributes.insert("bailiwick.session.start_time".to_owned(), session.started.to_string().into());
    draft.attributes.insert("bailiwick.session.end_unseen".to_owned(), true.into());
    draft
}
