//! The daemon's side of the gate: starts it, tells it what to mark and when the hooks are attached, reads its reports.
//!
//! Nothing here blocks on the gate but [`Gate::start`] (bounded), [`Gate::set_targets`] and [`Gate::refresh`] when its
//! socket is full (bounded). The last two follow the targets' paths on the caller's thread.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

use super::as_ns;
use super::channel::{self, Receipt};
use super::event::{GateCounts, GateEvent};
use super::kernel::{SharedPage, boot_ns};
use super::target::{MAX_TARGETS, MarkedFiles, Target, TargetState, Unmarked, look_up};
use super::wire::{Order, Passage, Report, Step, Why};

/// How long a gate may take to begin: it is a process start and a handful of system calls, slow only where the machine
/// is emulated.
const READY_WITHIN: Duration = Duration::from_secs(10);
/// How long `start` waits for the targets to be marked. Late marks arrive as events.
const MARKED_WITHIN: Duration = Duration::from_secs(2);
/// How long orders wait for room in the gate's socket.
const ROOM_WITHIN: Duration = Duration::from_millis(200);

/// How to start a gate.
#[derive(Clone, Debug)]
pub struct GateOptions {
    /// The binary that has the subcommand `gate`: `/proc/self/exe`, so that an upgrade does not mix versions.
    pub exe: PathBuf,
    /// What to hold: executables declared by themselves and `#!` scripts named by a literal path. Never an interpreter
    /// for the sake of its script.
    pub targets: Vec<PathBuf>,
}

/// Why there is no gate.
#[derive(Debug, thiserror::Error)]
pub enum GateError {
    /// The socket or the shared page could not be made.
    #[error("cannot prepare the gate: {0}")]
    Prepare(#[source] io::Error),
    /// The process could not be started.
    #[error("cannot start the gate from '{exe}': {source}")]
    Spawn {
        /// The binary.
        exe: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// The gate cannot do its work here.
    #[error("the gate failed at {}: {source}", .step.as_str())]
    Failed {
        /// At what.
        step: Step,
        /// What the kernel said.
        source: io::Error,
    },
    /// The gate ended before it was ready.
    #[error("the gate ended before it was ready ({status})")]
    Ended {
        /// How.
        status: ExitStatus,
    },
    /// The gate was not ready in time.
    #[error("the gate was not ready within {} s", READY_WITHIN.as_secs())]
    Late,
}

/// A running gate. Dropping it ends it.
#[derive(Debug)]
pub struct Gate {
    child: Child,
    socket: OwnedFd,
    page: SharedPage,
    targets: Vec<Target>,
    files: MarkedFiles,
    attempts: u64,
    last_attached_boot_ns: u64,
    reported: u64,
    events: VecDeque<GateEvent>,
    dead: bool,
}

impl Gate {
    /// Starts a gate and has it mark the targets; returns when each has been tried.
    ///
    /// # Errors
    ///
    /// [`GateError`]; a target that cannot be marked is none, but stands in [`Gate::targets`].
    pub fn start(options: GateOptions) -> Result<Self, GateError> {
        let (socket, gates_end) = channel::pair().map_err(GateError::Prepare)?;
        let (page, memory) = SharedPage::create().map_err(GateError::Prepare)?;
        channel::send(&socket, &Order::Begin.encode(), Some(memory.as_fd())).map_err(GateError::Prepare)?;
        let child = spawn(&options.exe, gates_end)?;
        let mut gate = Self {
            child,
            socket,
            page,
            targets: Vec::new(),
            files: MarkedFiles::default(),
            attempts: 0,
            last_attached_boot_ns: 0,
            reported: 0,
            events: VecDeque::new(),
            dead: false,
        };
        gate.await_ready()?;
        gate.set_targets(options.targets);
        gate.await_marks();
        Ok(gate)
    }

    fn await_ready(&mut self) -> Result<(), GateError> {
        let deadline = Instant::now() + READY_WITHIN;
        while self.readable_before(deadline) {
            match channel::receive(&self.socket).map_err(GateError::Prepare)? {
                Receipt::Nothing => {}
                Receipt::Closed => {
                    let status = self.child.wait().map_err(GateError::Prepare)?;
                    return Err(GateError::Ended { status });
                }
                Receipt::Message(message, _) => match Report::decode(&message) {
                    Some(Report::Ready) => return Ok(()),
                    Some(Report::Failed { step, errno }) => {
                        return Err(GateError::Failed { step, source: io::Error::from_raw_os_error(errno) });
                    }
                    // Without marks it has nothing else to say.
                    Some(
                        Report::Marked { .. } | Report::NotMarked { .. } | Report::Held { .. } | Report::LetThrough(_),
                    )
                    | None => {}
                },
            }
        }
        Err(GateError::Late)
    }

    /// Waits for the marks, keeping what else comes for [`Gate::next_event`].
    fn await_marks(&mut self) {
        let deadline = Instant::now() + MARKED_WITHIN;
        while !self.dead && !self.is_settled() && self.readable_before(deadline) {
            self.take_report();
        }
    }

    fn readable_before(&self, deadline: Instant) -> bool {
        ready_before(&self.socket, PollFlags::IN, deadline)
    }

    /// The gate's process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What the gate did so far.
    pub fn counts(&self) -> GateCounts {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        GateCounts {
            seen: read(&self.page.seen),
            at_once: read(&self.page.at_once),
            after_attaching: read(&self.page.after_attaching),
            let_through: read(&self.page.let_through),
        }
    }

    /// Every target and what became of it, in the order they were given.
    pub fn targets(&self) -> impl Iterator<Item = (&Path, &TargetState)> {
        self.targets.iter().map(|target| (target.path.as_path(), &target.state))
    }

    /// Whether every target has been tried.
    pub fn is_settled(&self) -> bool {
        self.targets.iter().all(|target| target.state != TargetState::Asked)
    }

    /// Tells the gate whether the hooks are attached. From true on execs go on at once, and those that wait are let go.
    ///
    /// Before detaching use [`Gate::withdraw`]: after a plain false an exec may just have gone on that counts on hooks.
    pub fn set_attached(&mut self, attached: bool) {
        if !attached {
            self.page.attached_since_boot_ns.store(0, Ordering::SeqCst);
            return;
        }
        if self.page.attached_since_boot_ns.load(Ordering::SeqCst) == 0 {
            self.last_attached_boot_ns = boot_ns();
            self.page.attached_since_boot_ns.store(self.last_attached_boot_ns, Ordering::SeqCst);
        }
        self.order(Order::Look);
    }

    /// Says that the hooks are about to be detached, unless an exec went on within the last `quiet` that counts on them.
    ///
    /// True: they may be detached, and every exec from now on asks first. False: nothing has changed; try again later.
    pub fn withdraw(&self, quiet: Duration) -> bool {
        let since = self.page.attached_since_boot_ns.swap(0, Ordering::SeqCst);
        let last_passage = self.page.last_passage_boot_ns.load(Ordering::SeqCst);
        let is_quiet = boot_ns().saturating_sub(last_passage) >= as_ns(quiet);
        if !is_quiet && since != 0 {
            self.page.attached_since_boot_ns.store(since, Ordering::SeqCst);
            // An exec that came in between waits for an answer.
            self.order(Order::Look);
        }
        is_quiet
    }

    /// Answers one [`GateEvent::AttachRequested`]: the hooks are attached.
    pub fn attached(&self, ticket: u64) {
        self.order(Order::Answer { ticket, attached: true });
    }

    /// Answers one [`GateEvent::AttachRequested`]: the hooks cannot be attached. The exec goes on at once, and comes
    /// back as [`GateEvent::LetThrough`].
    pub fn declined(&self, ticket: u64) {
        self.order(Order::Answer { ticket, attached: false });
    }

    /// Replaces the targets. Those that stay keep their mark throughout.
    pub fn set_targets(&mut self, paths: Vec<PathBuf>) {
        let (old, mut new) = (std::mem::take(&mut self.targets), Vec::<Target>::with_capacity(paths.len()));
        for path in paths {
            if new.iter().all(|target| target.path != path) {
                let known = old.iter().find(|target| target.path == path);
                let state = known.map_or(TargetState::Asked, |target| target.state.clone());
                new.push(Target { path, state, attempt: 0, file: None });
            }
        }
        self.targets = new;
        self.refresh();
        if self.targets.is_empty() {
            self.order(Order::UnmarkAll);
            return;
        }
        for gone in old.iter().filter(|old| self.targets.iter().all(|new| new.path != old.path)) {
            // A file that was renamed keeps its mark until the gate ends: holding its exec costs a little and harms
            // nobody. One that a target leads to by another path must keep it.
            let candidate = look_up(&gone.path).ok();
            let unwanted = candidate.filter(|found| self.targets.iter().all(|target| target.file != Some(found.id)));
            if let Some(candidate) = unwanted {
                self.order_with(Order::Unmark, Some(candidate.file.as_fd()));
            }
        }
    }

    /// Looks every target up again and marks what its path leads to now: a new file, or one that a package upgrade put
    /// there. Call it every few seconds, and whenever there is reason to. What changes comes as an event.
    pub fn refresh(&mut self) {
        if self.dead {
            return;
        }
        for index in 0..self.targets.len() {
            let outcome = self.ask_for_mark(index);
            if let Err(why) = outcome {
                self.settle(index, TargetState::Unmarked(why));
            }
        }
    }

    fn ask_for_mark(&mut self, index: usize) -> Result<(), Unmarked> {
        let Some(target) = self.targets.get_mut(index) else {
            return Ok(());
        };
        if index >= MAX_TARGETS {
            return Err(Unmarked::TooMany);
        }
        let candidate = look_up(&target.path)?;
        self.attempts += 1;
        target.attempt = self.attempts;
        target.file = Some(candidate.id);
        self.files.remember(candidate.id, &target.path);
        let order = Order::Mark { id: self.attempts };
        if self.order_with(order, Some(candidate.file.as_fd())) { Ok(()) } else { Err(Unmarked::NoGate) }
    }

    /// Notes what became of a target, and makes an event of a change.
    fn settle(&mut self, index: usize, state: TargetState) {
        let Some(target) = self.targets.get_mut(index) else {
            return;
        };
        if target.state == state {
            return;
        }
        target.state = state;
        match &target.state {
            TargetState::Asked => {}
            TargetState::Marked => self.events.push_back(GateEvent::Marked { target: target.path.clone() }),
            TargetState::Unmarked(why) => {
                self.events.push_back(GateEvent::Unmarked { target: target.path.clone(), why: why.clone() });
            }
        }
    }

    /// The next event, if there is one; never blocks. Call it until it gives none whenever the gate's descriptor
    /// ([`AsFd`]) is readable, and after each call that changes targets.
    pub fn next_event(&mut self) -> Option<GateEvent> {
        while self.events.is_empty() && !self.dead && self.take_report() {}
        self.events.pop_front()
    }

    /// Takes one report; false when there was none.
    fn take_report(&mut self) -> bool {
        match channel::receive(&self.socket) {
            Ok(Receipt::Nothing) => return false,
            Ok(Receipt::Message(message, _)) => {
                if let Some(report) = Report::decode(&message) {
                    self.note(report);
                }
            }
            // The socket of two processes on one host fails only when the other end is gone.
            Ok(Receipt::Closed) | Err(_) => self.note_death(),
        }
        true
    }

    fn note(&mut self, report: Report) {
        match report {
            Report::Ready | Report::Failed { .. } => {}
            Report::Marked { id } => self.settle_attempt(id, TargetState::Marked),
            Report::NotMarked { id, errno } => {
                let why = Unmarked::Refused(Errno::from_raw_os_error(errno));
                self.settle_attempt(id, TargetState::Unmarked(why));
            }
            Report::Held { ticket, file, tgid, since_boot_ns } => {
                let executable = self.files.path_of(file).map(Path::to_owned);
                self.events.push_back(GateEvent::AttachRequested { ticket, executable, tgid, since_boot_ns });
            }
            Report::LetThrough(Passage { file, tgid, execs, from_boot_ns, why }) => {
                let executable = file.and_then(|file| self.files.path_of(file)).map(Path::to_owned);
                // Execs that found no room in the kernel's queue are none that the gate saw.
                if why != Why::QueueFull {
                    self.reported += execs.unwrap_or(0);
                }
                let until_boot_ns = self.attached_again_after(from_boot_ns);
                self.events.push_back(GateEvent::LetThrough {
                    executable,
                    tgid,
                    execs,
                    from_boot_ns,
                    until_boot_ns,
                    why,
                });
            }
        }
    }

    fn settle_attempt(&mut self, id: u64, state: TargetState) {
        if let Some(index) = self.targets.iter().position(|target| target.attempt == id) {
            self.settle(index, state);
        }
    }

    /// When the gap that began at `from_boot_ns` ended.
    fn attached_again_after(&self, from_boot_ns: u64) -> Option<u64> {
        if self.last_attached_boot_ns >= from_boot_ns {
            return Some(self.last_attached_boot_ns);
        }
        // The hooks were published as attached while the gate was letting the exec go: the gap is empty.
        (self.page.attached_since_boot_ns.load(Ordering::SeqCst) != 0).then_some(from_boot_ns)
    }

    fn note_death(&mut self) {
        self.dead = true;
        for target in &mut self.targets {
            target.state = TargetState::Unmarked(Unmarked::NoGate);
        }
        let counts = self.counts();
        let spoken_of = counts.at_once + counts.after_attaching + self.reported;
        self.events.push_back(GateEvent::Died {
            status: self.child.try_wait().ok().flatten(),
            alive_until_boot_ns: self.page.last_beat_boot_ns.load(Ordering::Relaxed),
            unreported: counts.seen.saturating_sub(spoken_of),
        });
    }

    fn order(&self, order: Order) {
        self.order_with(order, None);
    }

    /// Sends an order; false when the gate did not take it.
    fn order_with(&self, order: Order, descriptor: Option<BorrowedFd<'_>>) -> bool {
        let message = order.encode();
        match channel::send(&self.socket, &message, descriptor) {
            Ok(()) => return true,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            // It is dead, which the next read of the socket reports.
            Err(_) => return false,
        }
        ready_before(&self.socket, PollFlags::OUT, Instant::now() + ROOM_WITHIN)
            && channel::send(&self.socket, &message, descriptor).is_ok()
    }
}

impl AsFd for Gate {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl Drop for Gate {
    fn drop(&mut self) {
        // Both fail only when it has been reaped already.
        let _gone = self.child.kill();
        let _reaped = self.child.wait();
    }
}

fn spawn(exe: &Path, gates_end: OwnedFd) -> Result<Child, GateError> {
    Command::new(exe)
        .arg("gate")
        .env_clear()
        .current_dir("/")
        .stdin(Stdio::from(gates_end))
        .stdout(Stdio::null())
        // A group of its own: what a terminal sends to the daemon's (Ctrl-C, Ctrl-Z) is not for the gate.
        .process_group(0)
        .spawn()
        .map_err(|source| GateError::Spawn { exe: exe.to_owned(), source })
}

/// Waits until the socket is ready; false when it is not by then.
fn ready_before(socket: &OwnedFd, flags: PollFlags, deadline: Instant) -> bool {
    loop {
        let wait = deadline.saturating_duration_since(Instant::now());
        // The module's waits are of seconds, so nothing is cut.
        let timeout = Timespec { tv_sec: wait.as_secs() as i64, tv_nsec: i64::from(wait.subsec_nanos()) };
        match poll(&mut [PollFd::new(socket, flags)], Some(&timeout)) {
            Ok(0) => return false,
            Err(Errno::INTR) => {}
            Ok(_) | Err(_) => return true,
        }
    }
}
