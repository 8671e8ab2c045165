//! The daemon's own metrics: what it says of itself, over OTLP beside the trail's sums, and at `/metrics`.
//!
//! Inputs: closures that read numbers where they are kept. Outputs: OTLP [`Metric`]s, and the same as Prometheus' text.
//! Both names of a metric come from one, by OpenTelemetry's rules. What is counted here is counted since the daemon
//! started; the sums over the trail are the export's. Refuses: labels without a bound (a path, a process, an address).
//!
//! To add a metric:
//!
//! 1. a row in [`instruments`], and its line in `docs/metrics.md` (a test asks for it);
//! 2. a closure where the numbers are, given to the registry when that part starts:
//!
//! ```
//! use agent_userspace::metrics::{Registry, instruments};
//! use std::sync::Arc;
//! use std::sync::atomic::{AtomicU64, Ordering};
//!
//! let registry = Registry::default();
//! let failed = Arc::new(AtomicU64::new(0));
//! let counted = Arc::clone(&failed);
//! registry.observe(move |readings| {
//!     readings.add(&instruments::CONFIG_RELOADS, &["failed"], counted.load(Ordering::Relaxed));
//! });
//! ```
//!
//! The closure is called at each scrape and before each sending of metrics, on a thread of the runtime: it reads what is
//! there and waits for nothing. A label that is empty is left out. The daemon hands `Arc<Registry>` to its parts
//! (`daemon/mod.rs`).

mod histogram;
pub mod instruments;
mod process;
mod prometheus;
mod readings;
mod sums;

use std::fmt;
use std::sync::{Mutex, PoisonError};

use opentelemetry_proto::tonic::metrics::v1::Metric;

pub use histogram::{Histogram, SECONDS};
pub use instruments::{Instrument, Kind};
pub use process::observe_this_process;
pub use readings::{Number, Readings};
pub use sums::Sums;

use crate::entry::Timestamp;

type Source = Box<dyn Fn(&mut Readings) + Send + Sync>;

/// All that has numbers to tell.
pub struct Registry {
    started: Timestamp,
    sources: Mutex<Vec<Source>>,
}

impl Default for Registry {
    fn default() -> Self {
        Self { started: Timestamp::now(), sources: Mutex::default() }
    }
}

impl fmt::Debug for Registry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Registry").field("started", &self.started).finish_non_exhaustive()
    }
}

impl Registry {
    /// Has `source` asked for its numbers whenever somebody wants them.
    pub fn observe(&self, source: impl Fn(&mut Readings) + Send + Sync + 'static) {
        self.sources.lock().unwrap_or_else(PoisonError::into_inner).push(Box::new(source));
    }

    /// Since when its counters count.
    pub fn started(&self) -> Timestamp {
        self.started
    }

    /// Every metric as it is now.
    pub fn metrics(&self) -> Vec<Metric> {
        let mut readings = Readings::new(self.started, Timestamp::now());
        for source in self.sources.lock().unwrap_or_else(PoisonError::into_inner).iter() {
            source(&mut readings);
        }
        readings.into_metrics()
    }
}

/// Metrics as Prometheus reads them.
pub fn text(metrics: &[Metric]) -> String {
    prometheus::text(metrics)
}
