//! Sums over the trail and what the daemon tells of itself, as metrics: sent on a timer, and at once for whoever waits.
//!
//! The sums are of the entries up to the place, and are kept with it: they move together, when a request is acknowledged.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::MissedTickBehavior;

use super::delivery::{Delivery, Sent};
use super::metrics;
use super::place::Place;
use crate::entry::Timestamp;
use crate::metrics::Registry;

/// The metrics on their way to a target.
pub(super) struct Sums {
    pub(super) place: Place,
    pub(super) delivery: Delivery,
    /// What the daemon tells of itself.
    pub(super) own: Arc<Registry>,
    pub(super) interval: Duration,
    /// A seq that somebody waits for.
    pub(super) wanted: watch::Receiver<u64>,
}

impl Sums {
    /// Sends them until it is told to stop.
    pub(super) async fn run(mut self) {
        let mut ticks = tokio::time::interval(self.interval);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let acknowledged = self.place.progress.borrow().acknowledged;
            let wanted = self.wanted.clone();
            let awaited = async {
                let mut wanted = wanted;
                wanted.wait_for(|seq| *seq > acknowledged).await.is_ok()
            };
            let due = tokio::select! {
                _ = ticks.tick() => true,
                alive = awaited => alive && self.durable_beyond(acknowledged).await,
                () = self.place.stopped() => return,
            };
            if !due {
                return;
            }
            let through = *self.place.ground.durable.borrow_and_update();
            self.fold(through).await;
            if self.place.saved.cursor.seq == acknowledged && through > acknowledged {
                // The trail could not be read: whoever waits must not make this loop spin.
                tokio::time::sleep(self.place.backoff.first).await;
            }
            let totals = self.place.saved.totals.clone().unwrap_or_default();
            let mut metrics = metrics::metrics(&totals, self.place.ground.identity.created, Timestamp::now());
            metrics.extend(self.own.metrics());
            let payload = self.delivery.origin.metrics(metrics);
            if let Sent::Stopped = self.delivery.send(&mut self.place, &payload, &[]).await {
                return;
            }
            self.place.acknowledged();
            self.place.keep().await;
        }
    }

    /// Waits until there is more that may be sent; `false` when it is time to stop.
    async fn durable_beyond(&self, seq: u64) -> bool {
        let mut durable = self.place.ground.durable.clone();
        tokio::select! {
            more = durable.wait_for(|last| *last > seq) => more.is_ok(),
            () = self.place.stopped() => false,
        }
    }

    /// Adds what is new to the totals.
    async fn fold(&mut self, through: u64) {
        let mut totals = self.place.saved.totals.take().unwrap_or_default();
        while !self.place.is_to_stop() {
            let entries = self.place.read(through).await;
            if entries.is_empty() {
                break;
            }
            self.place.on_its_way(&entries);
            for entry in &entries {
                totals.add(entry);
            }
            self.place.passed();
        }
        self.place.saved.totals = Some(totals);
    }
}
