//! The check of the hooks at start: what they saw of a child that did everything once.

use std::collections::BTreeSet;

use agent_common::RecordKind;
use agent_common::maps::{LOSS_ANNOUNCE, LOSS_RING, Member};
use tracing::{error, info};

use super::clock::boot_ns;
use super::pipeline::{Pipeline, SETTLE};
use crate::config::settings::Idle;
use crate::entry::Draft;
use crate::hook_check::{Performer, not_working};
use crate::sensor::{SensorError, new_session};

/// The session that no entry tells of, and what came of it.
pub(super) struct Checked {
    pub(super) session: u64,
    pub(super) seen: BTreeSet<RecordKind>,
}

impl Pipeline {
    /// Tries every hook. What saw nothing is said in the trail, by `status` and by `doctor`.
    pub(super) fn check_hooks(&mut self) -> Result<(), SensorError> {
        let session = new_session()?;
        let was_armed = self.armed_since.is_some();
        self.arm()?;
        self.checked = Some(Checked { session, seen: BTreeSet::new() });
        let performed = self.perform(session);
        std::thread::sleep(SETTLE);
        let now = boot_ns();
        while self.drain(now) {}
        let mut seen = self.checked.take().map(|checked| checked.seen).unwrap_or_default();
        seen.extend(self.forget_checked(session)?);
        if !was_armed && self.config.settings.sensor.idle != Idle::Armed {
            self.sensor.disarm()?;
            self.armed_since = None;
            self.gate.set_attached(false);
        }
        match performed {
            Ok(()) => self.tell_of_check(&not_working(&seen, self.config.settings.sensor.observe)),
            Err(why) => {
                error!(why, "the hooks could not be checked");
                self.view.lock().problems.insert("hooks", format!("the hooks could not be checked: {why}"));
            }
        }
        Ok(())
    }

    fn perform(&self, session: u64) -> Result<(), String> {
        let performer = Performer::start().map_err(|error| format!("no child could be started: {error}"))?;
        let member = Member { session, ..Member::default() };
        let marked = self.sensor.set_member(performer.pidfd(), &member);
        marked.map_err(|error| format!("the child could not be put into a session: {error}"))?;
        performer.perform().map_err(|error| error.to_string())
    }

    /// Takes what the check left in the kernel side's tables out of them. What found no room in a ring was seen all the
    /// same: returns its kinds.
    fn forget_checked(&mut self, session: u64) -> Result<Vec<RecordKind>, SensorError> {
        for (key, _) in self.sensor.folds()?.iter().filter(|(key, _)| key.session == session) {
            self.sensor.forget_fold(key);
        }
        let mut seen = Vec::new();
        for (key, _) in self.sensor.losses()?.iter().filter(|(key, _)| key.session == session) {
            self.sensor.forget_loss(key);
            if matches!(key.why, LOSS_RING | LOSS_ANNOUNCE) {
                seen.extend(u16::try_from(key.kind).ok().and_then(RecordKind::from_wire));
            }
        }
        Ok(seen)
    }

    fn tell_of_check(&mut self, not_working: &BTreeSet<&'static str>) {
        if not_working.is_empty() {
            return info!("every hook saw what was done to try it");
        }
        let names: Vec<&str> = not_working.iter().copied().collect();
        let problem = format!("hooks saw nothing when they were tried: {}", names.join(", "));
        error!("{problem}");
        let mut view = self.view.lock();
        view.problems.insert("hooks", problem);
        view.not_working.clone_from(not_working);
        drop(view);
        let mut draft = Draft::of_host(self.clock.wall(boot_ns()), "sensor.degraded");
        draft.attributes.insert("bailiwick.sensor.not_working".to_owned(), names.into());
        self.drafts.push(draft);
    }
}
