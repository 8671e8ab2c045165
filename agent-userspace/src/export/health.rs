//! How the export itself is, among the daemon's own metrics: what was sent and refused, and what waits, by target and
//! signal. Every target is told of all: one that is away cannot say so itself.

use std::sync::Arc;

use tokio::sync::watch;

use super::exporters::Stream;
use crate::entry::Timestamp;
use crate::metrics::{Registry, instruments};

const NS_PER_S: u64 = 1_000_000_000;

/// Has the registry tell of these, of a trail that is durable up to an entry.
pub(super) fn observe(streams: &Arc<[Stream]>, durable: &watch::Receiver<u64>, registry: &Registry) {
    let (streams, durable) = (Arc::clone(streams), durable.clone());
    registry.observe(move |readings| {
        let (durable, now) = (*durable.borrow(), Timestamp::now());
        for stream in streams.iter() {
            let labels = [stream.target.as_str(), stream.signal.as_str()];
            let progress = stream.progress.borrow().clone();
            let counts = progress.counts;
            readings.add(&instruments::EXPORT_SENT, &labels, counts.sent);
            readings.add(&instruments::EXPORT_RETRIED, &labels, counts.retried);
            readings.add(&instruments::EXPORT_REJECTED, &labels, counts.rejected);
            readings.add(&instruments::EXPORT_DEAD_LETTERED, &labels, counts.dead_lettered);
            let waiting = durable.saturating_sub(progress.acknowledged);
            readings.add(&instruments::EXPORT_QUEUE_SIZE, &labels, waiting);
            let oldest = progress.oldest.filter(|_| waiting > 0);
            let age = oldest.map_or(0, |oldest| now.0.saturating_sub(oldest.0) / NS_PER_S);
            readings.add(&instruments::EXPORT_QUEUE_AGE, &labels, age);
            if let Some(time) = progress.last_success {
                readings.add(&instruments::EXPORT_LAST_SUCCESS, &labels, time.0 / NS_PER_S);
            }
        }
    });
}
