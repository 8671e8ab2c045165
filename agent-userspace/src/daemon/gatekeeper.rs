//! The gate, kept alive: started, its targets looked after, started again when it dies.

use std::os::fd::{AsFd, BorrowedFd};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use tracing::{info, warn};

use crate::gate::{Backoff, Gate, GateEvent, GateOptions};

/// Before the hooks are detached, no exec may have relied on them for so long.
const QUIET: Duration = Duration::from_millis(50);
/// What was let through is told this much later, so that the session it began, if any, is known.
const TELL_AFTER_NS: u64 = 300_000_000;

/// An exec, or several, that went on while nothing was attached.
#[derive(Clone, Debug)]
pub(super) struct Passage {
    /// Who executed, where that is known.
    pub(super) tgid: Option<u32>,
    /// From when, in nanoseconds after boot.
    pub(super) from_boot_ns: u64,
    /// Until when.
    pub(super) until_boot_ns: u64,
    /// Why, in words.
    pub(super) why: String,
}

/// The gate, or its absence.
pub(super) struct Gatekeeper {
    gate: Option<Gate>,
    enabled: bool,
    targets: Vec<PathBuf>,
    attached: bool,
    started: Instant,
    backoff: Backoff,
    not_before: Instant,
    wanted: bool,
    passages: Vec<Passage>,
    problem: Option<String>,
}

impl Gatekeeper {
    /// How often targets are looked at again.
    pub(super) const LOOK_EVERY: Duration = Duration::from_secs(5);

    /// No gate yet.
    pub(super) fn new(enabled: bool) -> Self {
        let now = Instant::now();
        Self {
            gate: None,
            enabled,
            targets: Vec::new(),
            attached: false,
            started: now,
            backoff: Backoff::default(),
            not_before: now,
            wanted: false,
            passages: Vec::new(),
            problem: None,
        }
    }

    /// Sets the files whose exec is held.
    pub(super) fn set_targets(&mut self, targets: Vec<PathBuf>) {
        self.targets = targets;
        if let Some(gate) = &mut self.gate {
            gate.set_targets(self.targets.clone());
        }
        self.keep();
    }

    /// Starts the gate where one is wanted and there is none, and looks at its targets again.
    pub(super) fn keep(&mut self) {
        self.take_events();
        if let Some(gate) = &mut self.gate {
            gate.refresh();
            return;
        }
        if !self.enabled || self.targets.is_empty() || Instant::now() < self.not_before {
            return;
        }
        let options = GateOptions { exe: PathBuf::from("/proc/self/exe"), targets: self.targets.clone() };
        match Gate::start(options) {
            Ok(mut gate) => {
                gate.set_attached(self.attached);
                self.gate = Some(gate);
                self.started = Instant::now();
                self.problem = None;
            }
            Err(error) => {
                self.problem =
                    Some(format!("there is no gate, so the first actions of an agent may go unseen: {error}"));
                warn!(%error, "the gate did not start");
                self.not_before = Instant::now() + self.backoff.after_death(Duration::ZERO);
            }
        }
    }

    /// What to poll.
    pub(super) fn fd(&self) -> Option<BorrowedFd<'_>> {
        self.gate.as_ref().map(AsFd::as_fd)
    }

    /// Publishes whether the system-call hook is attached.
    pub(super) fn set_attached(&mut self, attached: bool) {
        self.attached = attached;
        self.wanted = false;
        if let Some(gate) = &mut self.gate {
            gate.set_attached(attached);
        }
    }

    /// Before detaching: whether no exec relies on the hooks.
    pub(super) fn withdraw(&mut self) -> bool {
        let safe = self.gate.as_mut().is_none_or(|gate| gate.withdraw(QUIET));
        if safe {
            self.attached = false;
        }
        safe
    }

    /// Whether an exec waits for the hooks to be attached.
    pub(super) fn wants_attached(&mut self) -> bool {
        self.take_events();
        if self.wanted && self.attached {
            // Attached since it asked: this releases it.
            self.set_attached(true);
        }
        self.wanted
    }

    /// The hooks cannot be attached: what waits goes on.
    pub(super) fn decline(&mut self) {
        self.wanted = false;
        if let Some(gate) = &mut self.gate {
            // Dropping the gate releases all that it holds.
            info!(pid = gate.pid(), "the gate is ended");
        }
        self.gate = None;
        self.not_before = Instant::now() + self.backoff.after_death(self.started.elapsed());
    }

    fn take_events(&mut self) {
        while let Some(event) = self.gate.as_mut().and_then(Gate::next_event) {
            match event {
                GateEvent::AttachRequested { .. } => self.wanted = true,
                GateEvent::LetThrough { tgid, from_boot_ns, until_boot_ns, why, .. } => self.passages.push(Passage {
                    tgid,
                    from_boot_ns,
                    until_boot_ns: until_boot_ns.unwrap_or_else(super::clock::boot_ns),
                    why: format!("an agent's program started unseen: {}", why.as_str()),
                }),
                GateEvent::Marked { target } => info!(target = %target.display(), "its exec is held until we watch"),
                GateEvent::Unmarked { target, why } => {
                    info!(target = %target.display(), %why, "its exec is not held");
                }
                GateEvent::Died { alive_until_boot_ns, unreported, .. } => {
                    warn!(unreported, "the gate died; another is started");
                    if unreported > 0 {
                        self.passages.push(Passage {
                            tgid: None,
                            from_boot_ns: alive_until_boot_ns,
                            until_boot_ns: super::clock::boot_ns(),
                            why: "the gate died while an agent's program started".to_owned(),
                        });
                    }
                    self.gate = None;
                    self.wanted = false;
                    self.not_before = Instant::now() + self.backoff.after_death(self.started.elapsed());
                }
            }
        }
    }

    /// What was let through long enough ago.
    pub(super) fn take_passages(&mut self, now_boot_ns: u64) -> Vec<Passage> {
        let due = |passage: &mut Passage| passage.until_boot_ns + TELL_AFTER_NS <= now_boot_ns;
        self.passages.extract_if(.., due).collect()
    }

    /// Why there is no gate, where one is wanted.
    pub(super) fn problem(&self) -> Option<String> {
        self.problem.clone()
    }
}
