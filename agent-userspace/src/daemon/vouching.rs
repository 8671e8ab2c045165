//! What keeps the trail believable and bounded: checkpoints, and retention with its tombstones.

use std::time::Instant;

use tracing::{error, info};

use super::pipeline::Pipeline;
use crate::entry::{Draft, Timestamp};
use crate::trail::{CHECKPOINT, Removable};

/// How far the last checkpoint came, and when.
pub(super) struct Vouched {
    seq: u64,
    at: Instant,
}

impl Vouched {
    /// Nothing yet of what the trail holds.
    pub(super) fn nothing() -> Self {
        Self { seq: 0, at: Instant::now() }
    }
}

impl Pipeline {
    /// Signs a checkpoint when there is something new and it is time.
    pub(super) fn vouch_if_due(&mut self) {
        let settings = &self.config.settings.trail;
        let new = self.trail.last_seq().saturating_sub(self.vouched.seq);
        let due = new >= settings.checkpoint_entries || self.vouched.at.elapsed() >= settings.checkpoint_interval;
        if new > 0 && due {
            self.vouch();
        }
    }

    /// Signs a checkpoint for all that is in the trail now. While that cannot be written, there is nothing new to vouch for.
    pub(super) fn vouch(&mut self) {
        if !self.write() {
            return;
        }
        self.drafts.push(Draft::of_host(Timestamp::now(), CHECKPOINT));
        self.write();
        self.vouched = Vouched { seq: self.trail.last_seq(), at: Instant::now() };
    }

    /// Removes what need not be kept any longer, of what is acknowledged up to that entry. The tombstones are durable first.
    pub(super) fn prune(&mut self, acknowledged: u64) {
        let now = Timestamp::now();
        let keep = self.config.settings.trail.retention;
        let removable = match Removable::find(&self.state_dir, &keep, acknowledged, now) {
            Ok(Some(removable)) => removable,
            Ok(None) => return,
            Err(error) => return error!(%error, "nothing of the trail is removed"),
        };
        if !self.has_room_for(&removable) {
            return;
        }
        self.drafts.extend(removable.drafts(now));
        if !self.write() {
            return;
        }
        let entries = removable.entries();
        let removed = self.trail.sync().and_then(|_| removable.remove());
        match removed {
            Ok(()) => info!(entries, "what the trail need not keep any longer was removed"),
            Err(error) => error!(%error, "not all was removed of what the trail need not keep"),
        }
    }

    /// Whether what waits can be written, so that the tombstones can. Where the disk is full, the indexes of what goes make
    /// room: they are no part of the trail.
    fn has_room_for(&mut self, removable: &Removable) -> bool {
        if self.write_now() {
            return true;
        }
        if let Err(error) = removable.remove_indexes() {
            error!(%error, "indexes of the trail that were to make room stay");
        }
        self.write_now()
    }
}
