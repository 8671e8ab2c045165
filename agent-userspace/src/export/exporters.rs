//! All signals together: started, asked how far they are, waited for, stopped.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use opentelemetry::KeyValue;
use opentelemetry_proto::transform::common::tonic::Attributes;
use serde::Serialize;
use tokio::runtime::Handle;
use tokio::sync::{Mutex, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::backoff::Backoff;
use super::cursor::CursorError;
use super::dead_letters::DeadLetters;
use super::delivery::Delivery;
use super::health;
use super::ocsf::{Device, OCSF_TARGET, OcsfSink};
use super::payload::Origin;
use super::place::{Ground, Place, Progress};
use super::sender::{Sender, SenderError};
use super::settings::{ExportSettings, Signal};
use super::sums::Sums;
use crate::entry::Timestamp;
use crate::metrics::Registry;
use crate::trail::{Identity, TrailError};

/// The export cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The trail cannot be read.
    #[error(transparent)]
    Trail(#[from] TrailError),
    /// There is no trail to export.
    #[error("there is no trail below {0}: it is opened before it is exported")]
    NoTrail(std::path::PathBuf),
    /// A cursor cannot be used.
    #[error(transparent)]
    Cursor(#[from] CursorError),
    /// A file of headers or certificates cannot be used.
    #[error(transparent)]
    Sender(#[from] SenderError),
}

/// A signal did not come as far as was asked for, in time.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{target} {signal}: acknowledged up to {acknowledged} of {wanted}{}", because(error.as_deref()))]
pub struct FlushError {
    /// The target.
    pub target: String,
    /// The signal.
    pub signal: &'static str,
    /// How far it came.
    pub acknowledged: u64,
    /// How far it was to come.
    pub wanted: u64,
    /// Why it waits, where that is known.
    pub error: Option<String>,
}

fn because(error: Option<&str>) -> String {
    error.map(|error| format!(" ({error})")).unwrap_or_default()
}

/// How far a signal is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct TargetStatus {
    /// The target's name.
    pub target: String,
    /// `logs`, `traces` or `metrics`.
    pub signal: &'static str,
    /// The last seq that the receiver has acknowledged, with all before it.
    pub acknowledged: u64,
    /// Durable entries after that one.
    pub pending: u64,
    /// Records that the receiver refused for good and that a dead letter tells of.
    pub dead_lettered: u64,
    /// Records that the receiver refused for good.
    pub rejected: u64,
    /// Records that it accepted since the daemon started.
    pub sent: u64,
    /// Requests that were tried again since the daemon started.
    pub retried: u64,
    /// When it last accepted something.
    pub last_success: Option<Timestamp>,
    /// The time of the first entry that is on its way.
    pub oldest: Option<Timestamp>,
    /// Why it waits, while it does.
    pub error: Option<String>,
}

/// A signal on its way to a target.
#[derive(Clone, Debug)]
pub(super) struct Stream {
    pub(super) target: String,
    pub(super) signal: Signal,
    pub(super) progress: watch::Receiver<Progress>,
}

/// The running export. Dropping it ends it at once; what was not acknowledged is sent after the next start.
#[derive(Debug)]
pub struct Exporters {
    streams: Arc<[Stream]>,
    durable: watch::Receiver<u64>,
    wanted: watch::Sender<u64>,
    stop: watch::Sender<bool>,
    workers: Mutex<JoinSet<()>>,
}

impl Exporters {
    /// Starts a worker for each signal of each target. `durable` is
    /// [`Trail::subscribe_synced`](crate::trail::Trail::subscribe_synced): nothing beyond it is sent. What the
    /// daemon's `own` metrics say goes with the sums over the trail.
    pub fn start(
        runtime: &Handle,
        state_dir: &Path,
        settings: &ExportSettings,
        durable: watch::Receiver<u64>,
        resource: Vec<KeyValue>,
        own: &Arc<Registry>,
    ) -> Result<Self, StartError> {
        let _inside = runtime.enter();
        let identity = Identity::read(state_dir)?.ok_or_else(|| StartError::NoTrail(state_dir.to_owned()))?;
        let device = Device::of(&resource);
        let mut resource = Attributes::from(resource).0;
        resource.push(super::value::attribute("service.instance.id", identity.id.as_str()));
        let origin = Origin::new(resource);
        let (wanted, stop) = (watch::Sender::new(0), watch::Sender::new(false));
        let ground =
            Ground { state_dir: state_dir.to_owned(), identity, durable: durable.clone(), stop: stop.subscribe() };
        let (mut streams, mut workers) = (Vec::new(), JoinSet::new());
        let mut place = |target: &str, signal: Signal, backoff| {
            let place = Place::open(target, signal, &ground, backoff)?;
            let progress = place.progress.subscribe();
            streams.push(Stream { target: target.to_owned(), signal, progress });
            Ok::<_, CursorError>(place)
        };
        let mut sums = Vec::new();
        for target in &settings.targets {
            for signal in &target.signals {
                let place = place(&target.name, signal.signal, target.backoff)?;
                let dead_letters = DeadLetters::at(state_dir, &target.name, signal.signal.as_str());
                let delivery = Delivery::new(Sender::new(signal)?, origin.clone(), dead_letters, settings.join_traces);
                match signal.signal {
                    Signal::Logs | Signal::Traces => {
                        workers.spawn_on(place.feed(delivery), runtime);
                    }
                    Signal::Metrics => sums.push((place, delivery)),
                }
            }
        }
        if let Some(ocsf) = &settings.ocsf {
            let place = place(OCSF_TARGET, Signal::Logs, Backoff::default())?;
            workers.spawn_on(place.feed(OcsfSink::new(ocsf.clone(), device)), runtime);
        }
        let streams: Arc<[Stream]> = streams.into();
        // Before the metrics are sent: the first request tells of this too.
        health::observe(&streams, &durable, own);
        for (place, delivery) in sums {
            let (own, interval, wanted) = (Arc::clone(own), settings.metrics_interval.0, wanted.subscribe());
            workers.spawn_on(Sums { place, delivery, own, interval, wanted }.run(), runtime);
        }
        Ok(Self { streams, durable, wanted, stop, workers: Mutex::new(workers) })
    }

    /// How far each signal of each target is.
    pub fn status(&self) -> Vec<TargetStatus> {
        let durable = *self.durable.borrow();
        let status = |stream: &Stream| {
            let progress = stream.progress.borrow();
            TargetStatus {
                target: stream.target.clone(),
                signal: stream.signal.as_str(),
                acknowledged: progress.acknowledged,
                pending: durable.saturating_sub(progress.acknowledged),
                dead_lettered: progress.dead_lettered,
                rejected: progress.rejected,
                sent: progress.counts.sent,
                retried: progress.counts.retried,
                last_success: progress.last_success,
                oldest: progress.oldest,
                error: progress.error.clone(),
            }
        };
        self.streams.iter().map(status).collect()
    }

    /// A handle with which other tasks wait for the export.
    pub fn flusher(&self) -> Flusher {
        Flusher { streams: Arc::clone(&self.streams), wanted: self.wanted.clone() }
    }

    /// Waits until every receiver has acknowledged all entries up to this one (which must be made durable first).
    /// Metrics are sent at once for it.
    pub async fn flush(&self, until_seq: u64, within: Duration) -> Result<(), FlushError> {
        self.flusher().flush(until_seq, within).await
    }

    /// Lets each signal end the request it is at and keep its place; what takes longer is broken off and sent again.
    pub async fn stop(&self, within: Duration) {
        self.stop.send_replace(true);
        let mut workers = self.workers.lock().await;
        let ending = async { while workers.join_next().await.is_some() {} };
        if tokio::time::timeout(within, ending).await.is_err() {
            tracing::warn!("the export was broken off: what was not acknowledged is sent after the next start");
        }
    }
}

/// Waits for the export.
#[derive(Clone, Debug)]
pub struct Flusher {
    streams: Arc<[Stream]>,
    wanted: watch::Sender<u64>,
}

impl Flusher {
    /// As [`Exporters::flush`].
    pub async fn flush(&self, until_seq: u64, within: Duration) -> Result<(), FlushError> {
        let deadline = Instant::now() + within;
        self.wanted.send_if_modified(|wanted| {
            let further = until_seq > *wanted;
            *wanted = until_seq.max(*wanted);
            further
        });
        for stream in self.streams.iter() {
            let mut progress = stream.progress.clone();
            let reached = progress.wait_for(|progress| progress.acknowledged >= until_seq);
            let reached = matches!(tokio::time::timeout_at(deadline, reached).await, Ok(Ok(_)));
            if !reached {
                let progress = progress.borrow();
                return Err(FlushError {
                    target: stream.target.clone(),
                    signal: stream.signal.as_str(),
                    acknowledged: progress.acknowledged,
                    wanted: until_seq,
                    error: progress.error.clone(),
                });
            }
        }
        Ok(())
    }
}
