//! What the daemon tells of the trail: how large, how old, how far behind.

use std::path::Path;
use std::sync::Arc;

use tokio::sync::watch;
use tracing::warn;

use crate::entry::{Entry, Timestamp};
use crate::metrics::{Histogram, Registry, SECONDS, instruments};
use crate::trail::Extent;

/// How long actions took to become entries of the trail.
#[derive(Clone, Debug)]
pub(super) struct Latency(Arc<Histogram>);

impl Latency {
    /// Of what happened in the kernel one by one: counts that were flushed, and what the daemon itself says, are no measure.
    pub(super) fn record(&self, entries: &[Arc<Entry>], now: Timestamp) {
        let is_action = |entry: &&Arc<Entry>| {
            entry.draft.process.is_some() && entry.draft.count == 1 && entry.draft.first_time.is_none()
        };
        for entry in entries.iter().filter(is_action) {
            self.0.record_ns(now.0.saturating_sub(entry.draft.time.0));
        }
    }
}

/// Has the registry tell of the trail below `state_dir`, as far as it is written and durable.
pub(super) fn observe_trail(
    metrics: &Registry,
    state_dir: &Path,
    written: watch::Receiver<u64>,
    durable: watch::Receiver<u64>,
) -> Latency {
    let latency = Latency(Arc::new(Histogram::new(SECONDS)));
    let (told, state_dir) = (latency.clone(), state_dir.to_owned());
    metrics.observe(move |readings| {
        readings.add_histogram(&instruments::TRAIL_LATENCY, &[], &told.0);
        let durable = *durable.borrow();
        readings.add(&instruments::TRAIL_UNSYNCED, &[], written.borrow().saturating_sub(durable));
        match Extent::of(&state_dir) {
            Ok(extent) => {
                readings.add(&instruments::TRAIL_SIZE, &["entries"], extent.bytes);
                readings.add(&instruments::TRAIL_SIZE, &["index"], extent.index_bytes);
                readings.add(&instruments::TRAIL_SEGMENTS, &[], extent.segments);
                if let Some(oldest) = extent.oldest {
                    let age = Timestamp::now().0.saturating_sub(oldest.0);
                    readings.add(&instruments::TRAIL_OLDEST_AGE, &[], age as f64 / 1e9);
                }
            }
            Err(error) => warn!(%error, "the metrics do not tell how large the trail is"),
        }
    });
    latency
}
