//! The pipeline: one thread that drains the rings, attributes, judges, and writes the trail.
//!
//! Order matters and the tables have one owner, hence one thread. A record is given up only when what it said is in the
//! trail: where that cannot be written, the rings fill, and what finds no room there is counted by the kernel side.

use std::collections::{BTreeMap, VecDeque};
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use agent_common::maps::LossKey;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use tracing::{error, warn};

use super::clock::{Clock, boot_ns};
use super::command::{Asked, Command};
use super::credentials::{Credentials, SharedLedger};
use super::figures::{Figures, LOST_UNDECODABLE, Published};
use super::folding::Folding;
use super::gatekeeper::Gatekeeper;
use super::health::Beat;
use super::integrity::Hasher;
use super::places::{DeniedFiles, HostMounts};
use super::state::SharedView;
use super::trail_metrics::Latency;
use super::vouching::Vouched;
use crate::attribute::Attributor;
use crate::config::Config;
use crate::entry::{Draft, Timestamp, Verdict};
use crate::finding::ledger::Ledger;
use crate::redact::Redactor;
use crate::sensor::{Drained, Sensor};
use crate::trail::Trail;

/// Records are handled this long after they were made, so that those of another processor, made before, have come.
pub(super) const SETTLE: Duration = Duration::from_millis(2);
/// How many records of each ring are handled in one go.
const MOST_RECORDS: usize = 8_192;
/// How often the rings are looked at while a session lives; they wake us earlier when they fill.
const POLL_BUSY: Duration = Duration::from_millis(20);
/// The same while none lives.
const POLL_IDLE: Duration = Duration::from_millis(250);
/// How often counts of folded repeats are written while their process lives.
const FLUSH_EVERY: Duration = Duration::from_secs(10);
/// How often losses are looked for.
const SWEEP_EVERY: Duration = Duration::from_millis(500);
/// How often it is tried again to write what could not be: each time all of it is encoded anew.
const TRY_WRITING_EVERY: Duration = Duration::from_millis(250);
/// A process that has ended is kept for so long, for records that come late.
const KEEP_ENDED: Duration = Duration::from_millis(200);

/// The pipeline and all it owns.
pub(super) struct Pipeline {
    pub(super) sensor: Sensor,
    pub(super) attributor: Attributor,
    pub(super) trail: Trail,
    pub(super) folding: Folding,
    pub(super) gate: Gatekeeper,
    pub(super) config: Arc<Config>,
    pub(super) view: SharedView,
    pub(super) clock: Clock,
    pub(super) asked: Asked,
    /// Drafts for the trail, in order.
    pub(super) drafts: Vec<Draft>,
    /// What was found, and how often.
    pub(super) ledger: Ledger,
    pub(super) redactor: Redactor,
    /// Who reads which credential.
    pub(super) credentials: Credentials,
    /// How many of them, from the first on, have been redacted: those that the trail gave back.
    redacted: usize,
    /// What was drained for them.
    drained: Option<Drained>,
    /// Since when the system-call hook is attached, in nanoseconds after boot.
    pub(super) armed_since: Option<u64>,
    /// Since when it can't be attached, in the same.
    pub(super) refused_since: Option<u64>,
    /// Since when no session lives.
    pub(super) quiet_since: Option<Instant>,
    /// The sessions that ended last.
    pub(super) over: super::late::Over,
    /// Decisions on provisional sessions, and until when (nanoseconds after boot) they are kept for their tasks.
    pub(super) decisions: VecDeque<(u64, u64)>,
    /// What was lost by the last sweep: how many, and until when.
    pub(super) losses: BTreeMap<LossKey, (u64, u64)>,
    pub(super) uncounted: u64,
    pub(super) missed: BTreeMap<&'static str, u64>,
    pub(super) unannounced: bool,
    /// The host's mounts.
    pub(super) mounts: HostMounts,
    /// The files that no name may lead to.
    pub(super) denied: DeniedFiles,
    /// The session whose records check the hooks, while they do.
    pub(super) checked: Option<super::checking::Checked>,
    /// What the last checkpoint vouches for.
    pub(super) vouched: Vouched,
    pub(super) state_dir: PathBuf,
    latency: Latency,
    pub(super) hasher: Hasher,
    next_flush: Instant,
    next_sweep: Instant,
    next_gate_look: Instant,
    /// When it is tried again to write what could not be.
    next_try: Option<Instant>,
    pub(super) live_sessions: super::sessions_file::SessionsFile,
    /// Shows a watchdog that the loop turns.
    pub(super) beat: Beat,
    /// What it counts of itself,
    pub(super) figures: Figures,
    /// and shows of that.
    pub(super) published: Published,
}

/// What the pipeline is made of.
pub(super) struct Parts {
    pub(super) sensor: Sensor,
    pub(super) attributor: Attributor,
    pub(super) trail: Trail,
    pub(super) gate: Gatekeeper,
    pub(super) redactor: Redactor,
    pub(super) ledger: SharedLedger,
    pub(super) config: Arc<Config>,
    pub(super) view: SharedView,
    pub(super) asked: Asked,
    pub(super) live_sessions: super::sessions_file::SessionsFile,
    pub(super) beat: Beat,
    pub(super) published: Published,
    pub(super) state_dir: PathBuf,
    pub(super) latency: Latency,
    pub(super) hasher: Hasher,
}

/// How a turn of the loop ended.
#[derive(PartialEq)]
enum Turn {
    Again,
    Stop,
}

impl Pipeline {
    pub(super) fn new(parts: Parts) -> Self {
        let now = Instant::now();
        Self {
            sensor: parts.sensor,
            attributor: parts.attributor,
            trail: parts.trail,
            folding: Folding::default(),
            gate: parts.gate,
            config: parts.config,
            view: parts.view,
            clock: Clock::now(),
            asked: parts.asked,
            drafts: Vec::new(),
            ledger: Ledger::default(),
            redactor: parts.redactor,
            credentials: Credentials::of(&parts.state_dir, parts.ledger),
            redacted: 0,
            drained: None,
            armed_since: None,
            refused_since: None,
            quiet_since: None,
            over: super::late::Over::default(),
            decisions: VecDeque::new(),
            losses: BTreeMap::new(),
            uncounted: 0,
            missed: BTreeMap::new(),
            unannounced: false,
            mounts: HostMounts::default(),
            denied: DeniedFiles::default(),
            checked: None,
            vouched: Vouched::nothing(),
            state_dir: parts.state_dir,
            latency: parts.latency,
            hasher: parts.hasher,
            next_flush: now + FLUSH_EVERY,
            next_sweep: now + SWEEP_EVERY,
            next_gate_look: now,
            next_try: None,
            live_sessions: parts.live_sessions,
            beat: parts.beat,
            figures: Figures::default(),
            published: parts.published,
        }
    }

    /// Runs until it is told to stop.
    pub(super) fn run(&mut self) {
        while self.turn() == Turn::Again {
            self.beat.turned();
            self.wait();
        }
        self.settle();
        self.close_findings(None);
        let stop = Draft::of_host(Timestamp::now(), "sensor.stop");
        self.drafts.push(stop);
        self.vouch();
        if !self.drafts.is_empty() {
            let entries = self.drafts.len();
            error!(entries, "what could not be written is lost: the next start of the daemon will say since when");
        }
        if let Err(error) = self.trail.sync() {
            error!(%error, "the end of the trail may not be on disk");
        }
    }

    fn turn(&mut self) -> Turn {
        self.clock = Clock::now();
        while self.drain(boot_ns().saturating_sub(nanoseconds(SETTLE))) {}
        self.look_at_gate();
        self.asked.awake();
        while let Some(command) = self.asked.next() {
            if matches!(command, Command::Stop) {
                return Turn::Stop;
            }
            self.obey(command);
        }
        let now = Instant::now();
        // While nothing can be written, what there is to say stays where it is counted.
        if self.write() {
            self.look_after(now);
        }
        self.renew_view();
        Turn::Again
    }

    /// What is due by now.
    fn look_after(&mut self, now: Instant) {
        if now >= self.next_sweep {
            self.next_sweep = now + SWEEP_EVERY;
            self.sweep_losses();
            self.try_arming_again();
            self.publish_figures();
        }
        if now >= self.next_flush {
            self.next_flush = now + FLUSH_EVERY;
            self.flush_all();
            self.repeat_findings();
            self.recount();
            self.look_at_declared_credentials();
        }
        self.reap(boot_ns().saturating_sub(nanoseconds(KEEP_ENDED)));
        self.forget_decisions();
        self.write();
        self.vouch_if_due();
        self.relax(now);
    }

    fn wait(&self) {
        let timeout =
            if self.attributor.sessions().next().is_some() || self.drained.is_some() { POLL_BUSY } else { POLL_IDLE };
        let [weighty, bulk] = self.sensor.wake_fds();
        let mut fds = vec![
            PollFd::from_borrowed_fd(weighty, PollFlags::IN),
            PollFd::from_borrowed_fd(bulk, PollFlags::IN),
            PollFd::from_borrowed_fd(self.asked.as_fd(), PollFlags::IN),
        ];
        fds.extend(self.gate.fd().map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN)));
        // A record that has woken us is younger than SETTLE: let it, rather than turn in haste.
        let started = Instant::now();
        if self.waits_for_room() {
            std::thread::sleep(POLL_BUSY);
            return;
        }
        let _ = poll(&mut fds, Timespec::try_from(timeout).ok().as_ref());
        let gate_or_command = fds.iter().skip(2).any(|fd| !fd.revents().is_empty());
        if !gate_or_command && started.elapsed() < SETTLE {
            std::thread::sleep(SETTLE);
        }
    }

    fn waits_for_room(&self) -> bool {
        self.drained.is_some()
    }

    /// Handles what happened before that time. Returns whether there may be more.
    pub(super) fn drain(&mut self, until_boot_ns: u64) -> bool {
        if self.drained.is_some() && !self.write() {
            return false;
        }
        self.figures.look_at_rings(self.sensor.rings());
        let (batch, drained) = self.sensor.drain(until_boot_ns, MOST_RECORDS);
        let more = batch.events.len() >= MOST_RECORDS;
        if batch.undecodable > 0 {
            let lost = batch.undecodable;
            warn!(lost, "records of an unknown form");
            self.figures.lose("all", LOST_UNDECODABLE, lost);
            self.lose(None, "all", Some(lost), (boot_ns(), boot_ns()), "records of an unknown form");
        }
        for event in batch.events {
            self.handle(event);
        }
        self.drained = Some(drained);
        self.write() && more
    }

    /// Writes the drafts to the trail, and gives up the records they came from. Returns whether that was possible.
    ///
    /// Here, and nowhere else, they are redacted: every draft comes this way, and every verdict was on what really was.
    pub(super) fn write(&mut self) -> bool {
        if self.next_try.is_some_and(|next_try| Instant::now() < next_try) {
            return false;
        }
        self.next_try = None;
        if !self.drafts.is_empty() {
            for draft in self.drafts.iter_mut().skip(self.redacted) {
                self.redactor.redact(draft);
            }
            self.figures.count(self.drafts.iter().skip(self.redacted));
            self.redacted = 0;
            let drafts = std::mem::take(&mut self.drafts);
            match self.trail.append(drafts) {
                Ok(entries) => {
                    self.latency.record(&entries, self.clock.wall(boot_ns()));
                    self.view.lock().problems.remove("trail");
                }
                Err(failed) => {
                    let problem = format!("the trail cannot be written: {}", failed.error);
                    if self.view.lock().problems.insert("trail", problem.clone()).is_none() {
                        error!("{problem}");
                    }
                    self.redacted = failed.drafts.len();
                    self.drafts = failed.drafts;
                    self.next_try = Some(Instant::now() + TRY_WRITING_EVERY);
                    return false;
                }
            }
        }
        if let Some(drained) = self.drained.take() {
            self.sensor.give_up(drained);
        }
        true
    }

    /// Writes them without waiting for the next try.
    pub(super) fn write_now(&mut self) -> bool {
        self.next_try = None;
        self.write()
    }

    /// Has everything that the kernel did before now in the trail, folded counts and losses included.
    pub(super) fn settle(&mut self) {
        std::thread::sleep(SETTLE);
        self.write_now();
        let now = boot_ns();
        self.clock = Clock::now();
        while self.drain(now) {}
        self.look_at_gate();
        if !self.write_now() {
            return;
        }
        self.sweep_losses();
        self.flush_all();
        self.sweep_unannounced();
        self.recount();
        self.look_at_declared_credentials();
        self.reap(now);
        self.renew_view();
        self.write();
        self.publish_figures();
    }

    /// Notes a draft of a session, and counts it there. Returns the seq that its entry will have: drafts reach the trail in
    /// order, and by no other way.
    pub(super) fn push(&mut self, session: u64, mut draft: Draft) -> u64 {
        if draft.event == "session.start" {
            draft = self.complete_start(draft);
        }
        self.config.resources.name(&mut draft);
        if let Some(gap) = draft.gap.as_ref() {
            let known = self.attributor.session(session).is_some();
            let concerned: Vec<u64> = match known {
                true => vec![session],
                false => self.attributor.sessions().map(|(id, _)| id).collect(),
            };
            for id in concerned {
                if let Some(session) = self.attributor.session_mut(id) {
                    session.tally.add_gap(gap);
                }
            }
        }
        if let Some(session) = self.attributor.session_mut(session) {
            session.tally.entries += 1;
            session.tally.out_of_scope += u64::from(draft.verdict == Verdict::OutOfScope);
            session.tally.findings += u64::from(draft.event.starts_with("finding."));
        }
        let begins = (draft.event == "session.start").then(|| draft.clone());
        let copy = self.concerns_credentials(session, &draft).then(|| draft.clone());
        self.drafts.push(draft);
        let seq = self.trail.last_seq() + self.drafts.len() as u64;
        if let Some(start) = begins {
            self.look_at_lineage(session, start, seq);
        }
        if let Some(draft) = copy {
            self.look_at_credentials(session, &draft, seq);
        }
        seq
    }

    /// The uid of the entry with that seq.
    pub(super) fn uid(&self, seq: u64) -> String {
        self.trail.uid(seq)
    }

    fn look_at_gate(&mut self) {
        let now = Instant::now();
        if now >= self.next_gate_look {
            self.next_gate_look = now + Gatekeeper::LOOK_EVERY;
            self.gate.keep();
        }
        while self.gate.wants_attached() {
            if let Err(error) = self.arm() {
                error!(%error, "an exec goes on unseen");
                self.gate.decline();
            }
        }
        for passage in self.gate.take_passages(boot_ns()) {
            self.note_passage(&passage);
        }
    }

    fn renew_view(&mut self) {
        let mut live: BTreeMap<String, Vec<_>> = BTreeMap::new();
        for (_, session) in self.attributor.sessions() {
            live.entry(session.agent.clone()).or_default().push(session.id);
        }
        let gate_problem = self.gate.problem();
        let mut view = self.view.lock();
        for (agent, _) in live.iter() {
            view.last_seen.insert(agent.clone(), self.clock.wall(boot_ns()));
        }
        view.live = live;
        match gate_problem {
            Some(problem) => {
                view.problems.insert("gate", problem);
            }
            None => {
                view.problems.remove("gate");
            }
        }
    }
}

pub(super) fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}
