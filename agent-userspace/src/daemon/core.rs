//! The daemon as the control socket sees it: asks the pipeline for what changes, reads the trail for all else.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{RecvTimeoutError, sync_channel};
use std::time::{Duration, Instant};

use tokio::runtime::Handle;
use tokio::sync::watch;

use super::command::{Asker, Command};
use super::credentials::SharedLedger;
use super::health::DaemonHealth;
use super::judged::explain;
use super::state::SharedView;
use super::{ConfigSource, exporting::Export};
use crate::control::protocol::ReviewDone;
use crate::control::report::{
    AgentItem, Doctor, Explanation, ExportStatus, Observation, ReloadReport, RunAccepted, Status, SyncReport,
    TrailStatus,
};
use crate::control::{Answer, Core, CoreError, Entries, From, Peer, Question, RunRefused};
use crate::credential::map::CredentialMap;
use crate::entry::{Entry, Timestamp};
use crate::index::Search;
use crate::metrics::{Registry, instruments};
use crate::observation::{OBSERVATIONS, UNOBSERVED, blind_spots};
use crate::trail::{Position, TrailReader};

/// How long a command is given to be started.
const RUN_WITHIN: Duration = Duration::from_secs(10);
/// How long a new configuration is given to be put into force.
const RELOAD_WITHIN: Duration = Duration::from_secs(30);
/// Entries read of the trail at a time.
const BATCH_ENTRIES: usize = 1_024;
const BATCH_BYTES: usize = 4 << 20;

/// The daemon.
pub(super) struct Daemon {
    pub(super) asker: Asker,
    pub(super) view: SharedView,
    pub(super) state_dir: PathBuf,
    pub(super) config: ConfigSource,
    pub(super) ledger: SharedLedger,
    pub(super) written: watch::Receiver<u64>,
    pub(super) export: Arc<Export>,
    pub(super) runtime: Handle,
    pub(super) reloads: Reloads,
    pub(super) health: Arc<DaemonHealth>,
}

/// How often the configuration was read again.
#[derive(Debug, Default)]
pub(super) struct Reloads {
    ok: Arc<AtomicU64>,
    failed: Arc<AtomicU64>,
}

impl Reloads {
    /// None yet; the registry tells of them.
    pub(super) fn observed(metrics: &Registry) -> Self {
        let reloads = Self::default();
        let (ok, failed) = (Arc::clone(&reloads.ok), Arc::clone(&reloads.failed));
        metrics.observe(move |readings| {
            readings.add(&instruments::CONFIG_RELOADS, &["ok"], ok.load(Ordering::Relaxed));
            readings.add(&instruments::CONFIG_RELOADS, &["failed"], failed.load(Ordering::Relaxed));
        });
        reloads
    }

    fn count(&self, succeeded: bool) {
        if succeeded { &self.ok } else { &self.failed }.fetch_add(1, Ordering::Relaxed);
    }
}

impl Daemon {
    /// Has the pipeline do something and waits for its answer.
    fn ask<T>(
        &self,
        within: Duration,
        what: &str,
        command: impl FnOnce(std::sync::mpsc::SyncSender<T>) -> Command,
    ) -> Result<T, CoreError> {
        let (reply, answer) = sync_channel(1);
        if !self.asker.ask(command(reply)) {
            return Err(CoreError::Stopping);
        }
        answer.recv_timeout(within).map_err(|error| match error {
            RecvTimeoutError::Timeout => CoreError::TimedOut { wait: within, waiting_for: what.to_owned() },
            RecvTimeoutError::Disconnected => CoreError::Stopping,
        })
    }

    fn read_again(&self, peer: Option<Peer>) -> Result<ReloadReport, CoreError> {
        let config =
            self.config.load().map_err(|error| CoreError::BadInput(format!("{error}; what was in force stays")))?;
        let agents = config.declarations.len() as u64;
        let warnings = config.notes.iter().map(ToString::to_string).collect();
        let config = Arc::new(config);
        let answer = self.ask(RELOAD_WITHIN, "the pipeline", |reply| Command::Reload { config, peer, reply })?;
        answer.map_err(CoreError::BadInput)?;
        Ok(ReloadReport { agents, warnings })
    }
}

impl Core for Daemon {
    fn run(&self, agent: &str, child_tgid: u32, peer: Peer) -> Result<RunAccepted, RunRefused> {
        let command = |reply| Command::Run { agent: agent.to_owned(), child_tgid, peer_uid: peer.uid, reply };
        match self.ask(RUN_WITHIN, "the sensor", command) {
            Ok(answer) => answer.map(|session| RunAccepted { session }),
            Err(CoreError::Stopping) => Err(RunRefused::Stopping),
            Err(error) => Err(RunRefused::NotWatching(error.to_string())),
        }
    }

    fn sync(&self, exported: bool, wait: Duration) -> Result<SyncReport, CoreError> {
        let deadline = Instant::now() + wait;
        let answer = self.ask(wait, "the trail", |reply| Command::Sync { reply })?;
        let seq = answer.map_err(CoreError::Trail)?;
        if exported {
            let left = deadline.saturating_duration_since(Instant::now());
            let flushed = self.runtime.block_on(self.export.flush(seq, left));
            flushed.map_err(|waiting_for| CoreError::TimedOut { wait, waiting_for })?;
        }
        Ok(SyncReport { seq })
    }

    fn status(&self) -> Status {
        let view = self.view.lock();
        let mut reasons: Vec<String> = view.problems.values().cloned().collect();
        if !view.ready {
            reasons.push("the daemon is starting".to_owned());
        }
        let (lost, records, ready) = (view.lost, view.records, view.ready);
        drop(view);
        let export: Vec<ExportStatus> = self.export.status();
        reasons.extend(self.export.problems());
        Status {
            healthy: reasons.is_empty(),
            reasons,
            trail: TrailStatus { entries: *self.written.borrow() },
            lost,
            records,
            blind_spots: blind_spots(),
            export,
            ready,
            metrics: self.health.listening(),
        }
    }

    fn doctor(&self) -> Doctor {
        let not_working = self.view.lock().not_working.clone();
        let observations = OBSERVATIONS.iter().map(|observation| Observation {
            event: observation.event.to_owned(),
            working: !not_working.contains(observation.event),
            hook: observation.hook.to_owned(),
            guarantee: observation.guarantee.to_owned(),
            blind_spots: observation.blind_spots.iter().map(|&spot| spot.to_owned()).collect(),
        });
        Doctor {
            tier: 2,
            observations: observations.collect(),
            unobserved: UNOBSERVED.to_owned(),
            export: self.export.ways(),
        }
    }

    fn agents(&self) -> Vec<AgentItem> {
        let view = self.view.lock();
        let item = |declaration: &crate::config::Declaration| AgentItem {
            agent: declaration.name().to_owned(),
            owner: declaration.about.owner.clone(),
            purpose: declaration.about.purpose.clone(),
            last_seen: view.last_seen.get(declaration.name()).copied(),
            sessions: view.live.get(declaration.name()).cloned().unwrap_or_default(),
            unscoped: declaration.scope.is_none(),
            files: view.files.of(declaration.name()).cloned().collect(),
            review_every_seconds: declaration.about.review_every.map(|every| every.as_secs()),
            declared: true,
            ..AgentItem::default()
        };
        let mut items: Vec<AgentItem> = view.config.declarations.iter().map(item).collect();
        items.sort_by(|a, b| a.agent.cmp(&b.agent));
        items.extend(view.found.items.iter().cloned().map(AgentItem::undeclared));
        items
    }

    fn credentials(&self) -> CredentialMap {
        let config = Arc::clone(&self.view.lock().config);
        let ledger = self.ledger.lock().clone();
        CredentialMap::of(&config.credentials, &ledger, Timestamp::now(), |file| std::fs::metadata(file))
    }

    fn reload(&self, peer: Option<Peer>) -> Result<ReloadReport, CoreError> {
        let report = self.read_again(peer);
        self.reloads.count(report.is_ok());
        report
    }

    fn review(&self, done: ReviewDone, peer: Peer) -> Result<String, CoreError> {
        self.ask(RUN_WITHIN, "the trail", |reply| Command::Review { done, peer, reply })?
    }

    fn explain(&self, entry: &Entry) -> Explanation {
        let config = Arc::clone(&self.view.lock().config);
        explain(entry, &config)
    }

    fn entries(&self, from: From) -> Entries {
        let position = match from {
            From::Start => Position::Start,
            From::Seq(seq) => Position::Seq(seq),
            From::Time(time) => Position::Since(time),
        };
        let last = *self.written.borrow();
        match TrailReader::open(&self.state_dir, position) {
            Ok(reader) => Box::new(Reading { reader, last, batch: Vec::new().into_iter(), over: false }),
            Err(error) => Box::new(std::iter::once(Err(CoreError::Trail(error.to_string())))),
        }
    }

    fn find(&self, question: Question) -> Answer {
        let last = *self.written.borrow();
        match Search::of(&self.state_dir, question, last) {
            Ok(search) => Box::new(search.map(|found| found.map_err(|error| CoreError::Trail(error.to_string())))),
            Err(error) => Box::new(std::iter::once(Err(CoreError::Trail(error.to_string())))),
        }
    }

    fn follow(&self) -> watch::Receiver<u64> {
        self.written.clone()
    }
}

/// The entries up to one of them.
struct Reading {
    reader: TrailReader,
    last: u64,
    batch: std::vec::IntoIter<Entry>,
    over: bool,
}

impl Iterator for Reading {
    type Item = Result<Entry, CoreError>;

    fn next(&mut self) -> Option<Self::Item> {
        if let Some(entry) = self.batch.next() {
            return Some(Ok(entry));
        }
        if self.over {
            return None;
        }
        match self.reader.next_batch_through(self.last, BATCH_ENTRIES, BATCH_BYTES) {
            Ok(batch) if batch.is_empty() => None,
            Ok(batch) => {
                self.batch = batch.into_iter();
                self.batch.next().map(Ok)
            }
            Err(error) => {
                self.over = true;
                Some(Err(CoreError::Trail(error.to_string())))
            }
        }
    }
}
