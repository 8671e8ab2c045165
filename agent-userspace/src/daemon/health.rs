//! How the daemon is, for its end point and its metrics.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};
use std::time::Duration;

use tokio::net::TcpListener;
use tracing::{error, info};

use super::clock::boot_ns;
use super::exporting::Export;
use super::figures::Published;
use super::state::SharedView;
use crate::health::{self, Health, Limits};
use crate::metrics::{self, Registry, instruments};

/// A pipeline that has not turned for so long is taken for dead: the service manager ends it then, too.
const SILENT_MAX: Duration = Duration::from_secs(30);
/// An address that is taken is tried again after so long.
const BIND_AGAIN: Duration = Duration::from_secs(5);

/// The problems of [`super::state::View::problems`] that leave an agent unwatched, or what it does unwritten.
const NOT_READY: [&str; 2] = ["sensor", "trail"];

/// When the pipeline last turned, in nanoseconds after boot.
#[derive(Clone, Debug)]
pub(super) struct Beat(Arc<AtomicU64>);

impl Beat {
    /// It begins now.
    pub(super) fn now() -> Self {
        Self(Arc::new(AtomicU64::new(boot_ns())))
    }

    /// The pipeline has turned.
    pub(super) fn turned(&self) {
        self.0.store(boot_ns(), Ordering::Relaxed);
    }

    /// When that was.
    pub(super) fn last(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    fn silence(&self) -> Duration {
        Duration::from_nanos(boot_ns().saturating_sub(self.last()))
    }
}

/// The daemon, as its end point sees it.
pub(super) struct DaemonHealth {
    registry: Arc<Registry>,
    figures: Published,
    view: SharedView,
    beat: Beat,
    /// Known as soon as it is there. It must be able to go first.
    export: OnceLock<Weak<Export>>,
    /// Where the end point listens, while it does.
    listening: Mutex<Option<SocketAddr>>,
}

impl DaemonHealth {
    /// Has the registry tell of all this.
    pub(super) fn observed(registry: &Arc<Registry>, figures: Published, view: SharedView, beat: Beat) -> Arc<Self> {
        let this = Arc::new(Self {
            registry: Arc::clone(registry),
            figures,
            view,
            beat,
            export: OnceLock::new(),
            listening: Mutex::new(None),
        });
        let told = Arc::downgrade(&this);
        registry.observe(move |readings| {
            if let Some(health) = told.upgrade() {
                health.tell(readings);
            }
        });
        this
    }

    /// Whose problems are the daemon's too.
    pub(super) fn set_export(&self, export: &Arc<Export>) {
        // Set once, where the daemon starts.
        let _ = self.export.set(Arc::downgrade(export));
    }

    /// Where the end point listens.
    pub(super) fn listening(&self) -> Option<SocketAddr> {
        *self.listening.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn export_problems(&self) -> Vec<String> {
        self.export.get().and_then(Weak::upgrade).map(|export| export.problems()).unwrap_or_default()
    }

    fn tell(&self, readings: &mut metrics::Readings) {
        let export = self.export_problems();
        let view = self.view.lock();
        let problems: Vec<&str> =
            view.problems.keys().copied().chain((!export.is_empty()).then_some("export")).collect();
        let (ready, agents) = (view.ready, view.config.declarations.len() as u64);
        let not_working = view.not_working.clone();
        drop(view);
        readings.add(&instruments::HEALTHY, &[], ready && problems.is_empty());
        readings.add(&instruments::READY, &[], self.dead().is_none() && self.not_ready().is_empty());
        for problem in problems {
            readings.add(&instruments::PROBLEM, &[problem], true);
        }
        readings.add(&instruments::PIPELINE_SILENCE, &[], self.beat.silence().as_secs_f64());
        readings.add(&instruments::AGENTS, &[], agents);
        for observation in crate::observation::OBSERVATIONS {
            let working = !not_working.contains(observation.event);
            readings.add(&instruments::OBSERVATION_WORKING, &[observation.event], working);
        }
        readings.add(&instruments::BLIND_SPOTS, &[], crate::observation::blind_spots().len() as u64);
        self.figures.figures().tell(readings);
    }
}

impl Health for DaemonHealth {
    fn metrics(&self) -> String {
        let mut all = self.figures.figures().sums(self.registry.started());
        all.extend(self.registry.metrics());
        metrics::text(&all)
    }

    fn dead(&self) -> Option<String> {
        let silence = self.beat.silence();
        (silence > SILENT_MAX).then(|| format!("the pipeline has stood still for {} s", silence.as_secs()))
    }

    fn not_ready(&self) -> Vec<String> {
        let view = self.view.lock();
        let mut reasons: Vec<String> = NOT_READY.iter().filter_map(|part| view.problems.get(part).cloned()).collect();
        if !view.ready {
            reasons.push("the daemon is starting".to_owned());
        }
        reasons
    }

    fn problems(&self) -> Vec<String> {
        let mut problems: Vec<String> = self.view.lock().problems.values().cloned().collect();
        problems.extend(self.export_problems());
        problems
    }
}

/// Answers at that address for as long as the daemon lives. An address that cannot be had is a problem of the daemon's, and is
/// tried again.
pub(super) async fn answer_at(address: SocketAddr, health: Arc<DaemonHealth>) -> Infallible {
    loop {
        match TcpListener::bind(address).await {
            Ok(listener) => {
                let at = listener.local_addr().unwrap_or(address);
                *health.listening.lock().unwrap_or_else(PoisonError::into_inner) = Some(at);
                if health.view.lock().problems.remove("metrics").is_some() {
                    info!(%at, "the metrics are answered after all");
                }
                return health::serve(listener, health, Limits::default()).await;
            }
            Err(source) => {
                let problem = format!(
                    "the metrics cannot be answered at {address}: {source}; it is tried again every {} s, or give \
                     [metrics] listen another address and restart",
                    BIND_AGAIN.as_secs()
                );
                if health.view.lock().problems.insert("metrics", problem.clone()).is_none() {
                    error!("{problem}");
                }
            }
        }
        tokio::time::sleep(BIND_AGAIN).await;
    }
}
