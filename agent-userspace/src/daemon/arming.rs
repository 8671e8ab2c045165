//! When the hooks on system calls are attached: while a session lives, and a little longer.

use std::time::Instant;

use tracing::{error, info, warn};

use super::clock::boot_ns;
use super::pipeline::Pipeline;
use crate::config::settings::Idle;
use crate::entry::Draft;
use crate::sensor::SensorError;

/// Why there is a gap while they can't be attached.
const REFUSED: &str = "the hooks could not be attached";

impl Pipeline {
    /// Attaches them, if they are not attached. What the kernel refuses is said in the trail and by `status`, and tried
    /// again as long as a session lives.
    pub(super) fn arm(&mut self) -> Result<(), SensorError> {
        self.quiet_since = None;
        if self.armed_since.is_some() {
            return Ok(());
        }
        if let Err(error) = self.sensor.arm() {
            self.tell_of_refusal(&error);
            return Err(error);
        }
        let now = boot_ns();
        self.armed_since = Some(now);
        self.gate.set_attached(true);
        if let Some(since) = self.refused_since.take() {
            info!("the hooks are attached after all");
            self.view.lock().problems.remove("sensor");
            let live: Vec<u64> = self.attributor.sessions().map(|(id, _)| id).collect();
            for session in live {
                self.lose(Some(session), "all", None, (since, now), REFUSED);
            }
        }
        Ok(())
    }

    fn tell_of_refusal(&mut self, error: &SensorError) {
        if self.refused_since.is_some() {
            return;
        }
        let now = boot_ns();
        self.refused_since = Some(now);
        let problem = format!("what agents do is not seen: {error}");
        error!("{problem}");
        let mut draft = Draft::of_host(self.clock.wall(now), "sensor.degraded");
        draft.attributes.insert("bailiwick.sensor.problem".to_owned(), problem.as_str().into());
        self.drafts.push(draft);
        self.view.lock().problems.insert("sensor", problem);
    }

    /// Attaches them where that was refused and a session lives.
    pub(super) fn try_arming_again(&mut self) {
        if self.refused_since.is_some() && self.attributor.sessions().next().is_some() {
            // Told of already.
            let _ = self.arm();
        }
    }

    /// What a session that ends has done unseen.
    pub(super) fn lose_refused(&mut self, session: u64) {
        if let Some(since) = self.refused_since {
            self.lose(Some(session), "all", None, (since, boot_ns()), REFUSED);
        }
    }

    /// Detaches the system-call hook when no session has lived for long enough.
    pub(super) fn relax(&mut self, now: Instant) {
        if self.attributor.sessions().next().is_some() {
            self.quiet_since = None;
            return;
        }
        let quiet_since = *self.quiet_since.get_or_insert(now);
        let settings = &self.config.settings.sensor;
        if settings.idle == Idle::Armed || self.armed_since.is_none() || now - quiet_since < settings.linger {
            return;
        }
        if !self.gate.withdraw() {
            self.quiet_since = Some(now);
            return;
        }
        self.disarm(now);
    }

    /// Detaches the system-call hook.
    fn disarm(&mut self, now: Instant) {
        match self.sensor.disarm() {
            Ok(()) => self.armed_since = None,
            Err(error) => {
                warn!(%error, "the system-call hook stays attached");
                self.gate.set_attached(true);
                self.quiet_since = Some(now);
            }
        }
    }
}
