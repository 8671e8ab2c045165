//! The daemon: what runs in it, and how it starts and ends. It only wires; what is done is done by the parts.
//!
//! - One thread, the pipeline: sensor → attribute → judge → trail.
//! - The trail is made durable by a thread of its own, so that the pipeline never waits for the disk's acknowledgement.
//! - Others, of low priority, look for agents that nothing declares, and hash what agents begin with.
//! - A tokio runtime: the control socket, and the exporters, which read the trail.
//!
//! Nothing is attached before everything that can be wrong has been looked at; whatever is attached goes with the process.

mod account;
mod acts;
mod afterwards;
mod arming;
mod checking;
mod clock;
mod command;
mod core;
mod counted;
mod credentials;
mod discovering;
mod drafts;
mod exporting;
mod figures;
mod files;
mod folding;
mod found;
mod gatekeeper;
mod handle;
mod health;
mod integrity;
mod judged;
mod late;
mod obey;
mod operations;
mod overdue;
mod pipeline;
mod places;
mod reviewing;
mod session_start;
mod sessions_file;
mod sockets;
mod start;
mod state;
mod trail_metrics;
mod vouching;

use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use sd_notify::NotifyState;
use tokio::runtime::Runtime;
use tokio::signal::unix::{SignalKind, signal};
use tracing::{error, info, warn};

use self::command::{Asker, Command, pair};
use self::core::{Daemon, Reloads};
use self::credentials::SharedLedger;
use self::discovering::Discovery;
use self::exporting::{Export, export_settings};
use self::figures::Published;
use self::gatekeeper::Gatekeeper;
use self::health::{Beat, DaemonHealth, answer_at};
use self::pipeline::{Parts, Pipeline};
use self::sessions_file::SessionsFile;
use self::start::Before;
use self::state::SharedView;
use self::trail_metrics::observe_trail;
use crate::attribute::Attributor;
use crate::attribute::procfs::ProcFs;
use crate::cli::args::Paths;
use crate::config::settings::Observe;
use crate::config::{Config, ConfigErrors};
use crate::control::server::{Limits, serve};
use crate::control::socket::BindError;
use crate::control::{Access, ControlSocket, Core};
use crate::export::{Exporters, SenderError, SettingsError, StartError, host_resource};
use crate::index::Indexer;
use crate::metrics::{Registry, observe_this_process};
use crate::redact::{RedactError, Redactor};
use crate::sensor::{Sensor, SensorError, SensorOptions};
use crate::trail::{Opened, Position, Syncer, Trail, TrailError, TrailOptions, TrailReader};

/// The configuration directory that need not exist: without it, what ships with the daemon is in force.
const DEFAULT_CONFIG_DIR: &str = "/etc/bailiwick";
/// How long the exporters have to send the rest when the daemon ends.
const STOP_WITHIN: Duration = Duration::from_secs(5);
/// How often it is looked whether somebody wants the daemon to end.
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// How often it is looked whether there is more of the trail than need be kept.
const PRUNE_EVERY: Duration = Duration::from_secs(1);
/// How often the service manager is told that we live.
const WATCHDOG_EVERY: Duration = Duration::from_secs(10);

/// Why the daemon did not start.
#[derive(Debug, thiserror::Error)]
pub enum DaemonError {
    /// Declarations or settings.
    #[error("{0}")]
    Config(ConfigErrors),
    /// What the environment asks of the export.
    #[error(transparent)]
    Export(#[from] SettingsError),
    /// A file that the settings of the export name.
    #[error(transparent)]
    ExportFile(#[from] SenderError),
    /// Not root.
    #[error("the daemon needs root (or the capabilities that systemd/bailiwick.service names); this is uid {uid}")]
    TooLittlePrivilege {
        /// Who it is.
        uid: u32,
    },
    /// Maps and links could not be pinned.
    #[error("the pin directory {} is not on a bpffs: mount one with `mount -t bpf bpf /sys/fs/bpf`, or name another with --pin-dir", path.display())]
    NoBpffs {
        /// The pin directory.
        path: PathBuf,
    },
    /// The sensor.
    #[error(transparent)]
    Sensor(#[from] SensorError),
    /// The trail.
    #[error(transparent)]
    Trail(#[from] TrailError),
    /// The patterns of redaction.
    #[error(transparent)]
    Redact(#[from] RedactError),
    /// The control socket.
    #[error(transparent)]
    Socket(#[from] BindError),
    /// The exporters.
    #[error(transparent)]
    Exporters(#[from] StartError),
    /// A directory.
    #[error("cannot make the directory {}: {source}", path.display())]
    Directory {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The operating system refuses something small.
    #[error("cannot {what}: {source}")]
    System {
        /// What.
        what: &'static str,
        /// Why.
        source: io::Error,
    },
}

/// Where the configuration is read from.
#[derive(Clone, Debug)]
pub struct ConfigSource(Option<PathBuf>);

impl ConfigSource {
    /// That directory; what ships with the daemon where it is the usual one and does not exist.
    pub fn at(directory: &Path) -> Self {
        let embedded = directory == Path::new(DEFAULT_CONFIG_DIR) && !directory.exists();
        Self((!embedded).then(|| directory.to_owned()))
    }

    /// Reads it.
    ///
    /// # Errors
    /// Everything that is wrong with it.
    pub fn load(&self) -> Result<Config, ConfigErrors> {
        Config::load(self.0.as_deref())
    }
}

/// A daemon that runs. Dropping it does not end it: [`Running::stop`] does.
pub struct Running {
    runtime: Runtime,
    asker: Asker,
    pipeline: JoinHandle<()>,
    syncer: JoinHandle<()>,
    indexer: JoinHandle<()>,
    discovery: JoinHandle<()>,
    integrity: JoinHandle<()>,
    ended: Arc<AtomicBool>,
    export: Arc<Export>,
    server: tokio::task::JoinHandle<()>,
    core: Arc<Daemon>,
    beat: Beat,
}

/// Starts the daemon: returns when recognition is attached and what runs is reconciled.
///
/// # Errors
/// Anything is wrong; nothing is left attached then.
pub fn start(paths: &Paths) -> Result<Running, DaemonError> {
    let source = ConfigSource::at(&paths.config_dir);
    let config = Arc::new(source.load().map_err(DaemonError::Config)?);
    for note in config.notes.iter().filter(|note| !note.shipped) {
        info!("{note}");
    }
    let export_settings = export_settings(&config)?;
    let uid = rustix::process::geteuid();
    if !uid.is_root() && !may_load_programs() {
        return Err(DaemonError::TooLittlePrivilege { uid: uid.as_raw() });
    }
    check_pin_dir(&paths.pin_dir)?;
    make_directory(&paths.state_dir, 0o700)?;
    make_directory(&paths.runtime_dir, 0o755)?;
    let trail_options = TrailOptions { segment_bytes: config.settings.trail.segment_bytes };
    let Opened { trail, recovered } = Trail::open(&paths.state_dir, trail_options)?;
    let before = Before { recovered, last_entry: last_entry(&paths.state_dir, trail.last_seq())? };
    let access = Access::of_host();
    let runtime = runtime()?;
    let socket = {
        let _inside = runtime.enter();
        ControlSocket::bind(&paths.runtime_dir, &access)?
    };
    let settings = &config.settings.sensor;
    let sensor = Sensor::load(&SensorOptions {
        ring_bytes: paths.ring_bytes.unwrap_or(settings.ring_bytes),
        environment: settings.environment.clone(),
        count_calls: settings.observe == Observe::Full,
    })?;
    let metrics = Arc::new(Registry::default());
    observe_this_process(&metrics);
    let redactor = Redactor::new(config.settings.redact.clone())?;
    let (durable, written, syncer) = (trail.subscribe_synced(), trail.subscribe(), trail.syncer());
    let latency = observe_trail(&metrics, &paths.state_dir, written.clone(), durable.clone());
    let (asker, asked) = pair().map_err(|source| DaemonError::System { what: "make an event descriptor", source })?;
    let view = SharedView::new(Arc::clone(&config));
    let (beat, published) = (Beat::now(), Published::default());
    let health = DaemonHealth::observed(&metrics, published.clone(), view.clone(), beat.clone());
    let ledger = SharedLedger::of(&paths.state_dir);
    let (hasher, integrity) = integrity::pair(&paths.state_dir, asker.clone(), view.clone());
    let mut pipeline = Pipeline::new(Parts {
        sensor,
        attributor: Attributor::new(Arc::clone(&config), ProcFs::at(Path::new("/proc"))),
        trail,
        gate: Gatekeeper::new(settings.gate),
        redactor,
        ledger: ledger.clone(),
        config: Arc::clone(&config),
        view: view.clone(),
        asked,
        live_sessions: SessionsFile::at(&paths.state_dir),
        beat: beat.clone(),
        published,
        state_dir: paths.state_dir.clone(),
        latency,
        hasher,
    });
    let integrity = spawn("integrity", move || integrity.run())?;
    pipeline.begin(before)?;
    let export = Arc::new(match &export_settings {
        Some(settings) => {
            let (state_dir, resource) = (&paths.state_dir, host_resource());
            let exporters = Exporters::start(runtime.handle(), state_dir, settings, durable, resource, &metrics)?;
            Export::by(exporters, settings.clone())
        }
        None => Export::none(),
    });
    health.set_export(&export);
    if let Some(address) = config.settings.metrics.listen {
        let health = Arc::clone(&health);
        runtime.spawn(async move { answer_at(address, health).await });
    }
    let core = Arc::new(Daemon {
        asker: asker.clone(),
        view: view.clone(),
        state_dir: paths.state_dir.clone(),
        config: source,
        ledger,
        written: written.clone(),
        export: Arc::clone(&export),
        runtime: runtime.handle().clone(),
        reloads: Reloads::observed(&metrics),
        health,
    });
    let served: Arc<dyn Core> = Arc::clone(&core) as Arc<dyn Core>;
    let server = runtime.spawn(async move {
        if let Err(error) = serve(socket, served, access, Limits::default()).await {
            error!(%error, "the control socket does not answer any more");
        }
    });
    runtime.spawn(overdue::remind(asker.clone(), core.view.clone(), paths.state_dir.clone(), written.clone()));
    runtime.spawn(prune_every(PRUNE_EVERY, asker.clone(), Arc::clone(&export)));
    let ended = Arc::new(AtomicBool::new(false));
    let pipeline = spawn("pipeline", move || pipeline.run())?;
    let interval = config.settings.trail.sync_interval;
    let syncer = spawn("syncer", {
        let ended = Arc::clone(&ended);
        move || sync_every(interval, &syncer, &ended)
    })?;
    let indexer = spawn("indexer", {
        let (indexer, ended) = (Indexer::of(&paths.state_dir, written), Arc::clone(&ended));
        move || indexer.run(&ended)
    })?;
    let discovery = spawn("discovery", {
        let (discovery, ended) = (Discovery::new(asker.clone(), view), Arc::clone(&ended));
        move || discovery.run(&ended)
    })?;
    Ok(Running { runtime, asker, pipeline, syncer, indexer, discovery, integrity, ended, export, server, core, beat })
}

impl Running {
    /// What the daemon sees, for whoever runs it.
    pub fn core(&self) -> Arc<dyn Core> {
        Arc::clone(&self.core) as Arc<dyn Core>
    }

    /// Waits for a signal to end, or for `over`; meanwhile reloads when told to and tells the service manager that we live.
    ///
    /// # Errors
    /// Signals cannot be waited for.
    pub fn wait(&self, over: &AtomicBool) -> Result<(), DaemonError> {
        let system = |source| DaemonError::System { what: "wait for signals", source };
        notify(&[NotifyState::Ready, NotifyState::Status("watching")]);
        self.runtime.block_on(async {
            let mut terminate = signal(SignalKind::terminate()).map_err(system)?;
            let mut interrupt = signal(SignalKind::interrupt()).map_err(system)?;
            let mut hangup = signal(SignalKind::hangup()).map_err(system)?;
            let mut tick = tokio::time::interval(WATCHDOG_EVERY);
            let mut look = tokio::time::interval(LOOK_EVERY);
            let mut last_beat = None;
            loop {
                tokio::select! {
                    _ = terminate.recv() => break,
                    _ = interrupt.recv() => break,
                    _ = hangup.recv() => self.reload().await,
                    _ = tick.tick() => {
                        // Not while the pipeline stands still: then the service manager should start another.
                        let beat = self.beat.last();
                        if last_beat != Some(beat) {
                            notify(&[NotifyState::Watchdog]);
                        }
                        last_beat = Some(beat);
                    }
                    _ = look.tick() => {
                        if over.load(Ordering::Relaxed) {
                            break;
                        }
                        if self.pipeline.is_finished() {
                            error!("the pipeline has ended by itself");
                            break;
                        }
                    }
                }
            }
            Ok(())
        })
    }

    async fn reload(&self) {
        let core = Arc::clone(&self.core);
        match tokio::task::spawn_blocking(move || core.reload(None)).await {
            Ok(Ok(report)) => info!(agents = report.agents, "the configuration was read again"),
            Ok(Err(error)) => error!("{error}"),
            Err(error) => error!(%error, "the configuration was not read again"),
        }
    }

    /// Ends the daemon: what the kernel did before is in the trail, and the hooks are detached.
    pub fn stop(self) {
        notify(&[NotifyState::Stopping]);
        self.server.abort();
        self.asker.ask(Command::Stop);
        if self.pipeline.join().is_err() {
            error!("the pipeline has panicked");
        }
        self.ended.store(true, Ordering::Relaxed);
        self.syncer.thread().unpark();
        if self.syncer.join().is_err() {
            error!("the thread that makes the trail durable has panicked");
        }
        self.indexer.thread().unpark();
        if self.indexer.join().is_err() {
            error!("the thread that indexes the trail has panicked");
        }
        self.discovery.thread().unpark();
        if self.discovery.join().is_err() {
            error!("the thread that discovers agents has panicked");
        }
        // It ends with the pipeline, whose end of the queue is gone.
        if self.integrity.join().is_err() {
            error!("the thread that hashes agents has panicked");
        }
        self.runtime.block_on(self.export.stop(STOP_WITHIN));
        self.runtime.shutdown_timeout(STOP_WITHIN);
    }
}

/// Whether this process, though not root, has what it takes to load programs: CAP_BPF (39) in its effective set.
fn may_load_programs() -> bool {
    const CAP_BPF: u32 = 39;
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let effective = effective.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0);
    effective >> CAP_BPF & 1 == 1
}

/// Makes sure that the pin directory lies, or would lie, on a bpffs.
fn check_pin_dir(path: &Path) -> Result<(), DaemonError> {
    const BPF_FS_MAGIC: u64 = 0xcafe_4a11;
    let found = path.ancestors().find_map(|ancestor| rustix::fs::statfs(ancestor).ok());
    match found {
        Some(found) if found.f_type.cast_unsigned() == BPF_FS_MAGIC => Ok(()),
        Some(_) | None => Err(DaemonError::NoBpffs { path: path.to_owned() }),
    }
}

fn make_directory(path: &Path, mode: u32) -> Result<(), DaemonError> {
    let made = DirBuilder::new().recursive(true).mode(mode).create(path);
    made.map_err(|source| DaemonError::Directory { path: path.to_owned(), source })
}

fn last_entry(state_dir: &Path, last_seq: u64) -> Result<Option<crate::entry::Timestamp>, TrailError> {
    if last_seq == 0 {
        return Ok(None);
    }
    let mut reader = TrailReader::open(state_dir, Position::Seq(last_seq))?;
    Ok(reader.next_batch(1, usize::MAX)?.first().map(|entry| entry.draft.time))
}

fn runtime() -> Result<Runtime, DaemonError> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    runtime.map_err(|source| DaemonError::System { what: "start the threads for connections", source })
}

fn spawn(name: &'static str, run: impl FnOnce() + Send + 'static) -> Result<JoinHandle<()>, DaemonError> {
    let spawned = std::thread::Builder::new().name(name.to_owned()).spawn(run);
    spawned.map_err(|source| DaemonError::System { what: "start a thread", source })
}

/// Makes the trail durable as often as the configuration says, until the daemon ends.
fn sync_every(interval: Duration, syncer: &Syncer, ended: &AtomicBool) {
    while !ended.load(Ordering::Relaxed) {
        std::thread::park_timeout(interval);
        if let Err(error) = syncer.sync() {
            error!(%error, "the trail may not be on disk");
        }
    }
}

/// Has what the trail need not keep removed, as far as every target has acknowledged it.
async fn prune_every(interval: Duration, asker: Asker, export: Arc<Export>) {
    let export = Arc::downgrade(&export);
    let mut ticks = tokio::time::interval(interval);
    loop {
        ticks.tick().await;
        let Some(acknowledged) = export.upgrade().map(|export| export.acknowledged()) else { return };
        if !asker.ask(Command::Prune { acknowledged }) {
            return;
        }
    }
}

fn notify(states: &[NotifyState<'_>]) {
    // Without a service manager there is nobody to tell.
    if let Err(error) = sd_notify::notify(states) {
        warn!(%error, "the service manager was not told");
    }
}
