//! A histogram that many threads may add to.

use std::sync::atomic::{AtomicU64, Ordering};

/// Bounds for times in seconds: from a millisecond to a minute.
pub const SECONDS: &[f64] = &[0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0, 30.0, 60.0];

/// Counts of durations, by upper bounds.
#[derive(Debug)]
pub struct Histogram {
    pub(super) bounds: &'static [f64],
    /// One for each bound, and one for what is beyond the last.
    pub(super) counts: Vec<AtomicU64>,
    sum_ns: AtomicU64,
}

impl Histogram {
    /// An empty one with these bounds, in seconds, smallest first.
    pub fn new(bounds: &'static [f64]) -> Self {
        let counts = (0..=bounds.len()).map(|_| AtomicU64::new(0)).collect();
        Self { bounds, counts, sum_ns: AtomicU64::new(0) }
    }

    /// Adds a duration.
    pub fn record_ns(&self, duration_ns: u64) {
        let seconds = duration_ns as f64 / 1e9;
        let at = self.bounds.partition_point(|bound| *bound < seconds);
        if let Some(count) = self.counts.get(at) {
            count.fetch_add(1, Ordering::Relaxed);
        }
        self.sum_ns.fetch_add(duration_ns, Ordering::Relaxed);
    }

    pub(super) fn sum_seconds(&self) -> f64 {
        self.sum_ns.load(Ordering::Relaxed) as f64 / 1e9
    }
}
