//! The gate process: one thread, one loop, no lock and no wait but the one in `poll`.
//!
//! Everything that could stand between an event and its answer is kept away from it: it opens no path (the daemon does,
//! and hands over the descriptor), starts no process, writes no log, allocates nothing after its beginning but the few
//! bytes of a mark, and drops to the outbox what the daemon does not read at once. Whatever goes wrong ends the process,
//! since that frees every held exec.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::Ordering;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::mm::MlockAllFlags;
use rustix::net::SocketType;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::channel::{self, Receipt};
use super::held::{HeldExec, HeldExecs, MAX_HELD};
use super::kernel::{DeadMansSwitch, EVENTS_A_READ, Group, HeldFile, Notice, SharedPage};
use super::kernel::{boot_ns, event_buffer};
use super::outbox::Outbox;
use super::wire::{Order, Passage, Report, Step, Why};
use super::{ANSWER_WITHIN, BEAT_EVERY, KILLED_WHEN_STILL_FOR, as_ns};

/// How many orders one turn of the loop takes, so that a reload does not keep an exec waiting.
const ORDERS_A_TURN: usize = 32;

/// File descriptors that the gate needs: those of the execs that wait, of one read more, and a few of its own.
const DESCRIPTORS: u64 = (MAX_HELD + EVENTS_A_READ + 32) as u64;

/// How long the gate waits for the daemon's first order.
const BEGIN_WITHIN: Duration = Duration::from_secs(10);

/// The life of the gate process: what `bailiwick gate` does, started by [`super::Gate::start`] with its end of a socket
/// as standard input. Returns the exit code: 0 when the daemon is gone, 1 when something failed, 2 when it was started
/// by hand.
pub fn process_main() -> i32 {
    let Ok(socket) = io::stdin().as_fd().try_clone_to_owned() else {
        return refuse_to_start();
    };
    if rustix::net::sockopt::socket_type(&socket) != Ok(SocketType::SEQPACKET) {
        return refuse_to_start();
    }
    // Best effort: a name for `ps`, and no page fault between an event and its answer.
    let _unnamed = rustix::thread::set_name(c"bailiwick-gate");
    let _unlocked = rustix::mm::mlockall(MlockAllFlags::CURRENT | MlockAllFlags::FUTURE | MlockAllFlags::ONFAULT);
    match Server::begin(socket) {
        Ok(Some(mut server)) => server.serve().map_or(1, |()| 0),
        Ok(None) => 0,
        Err(_told_to_the_daemon) => 1,
    }
}

fn refuse_to_start() -> i32 {
    eprintln!("bailiwick: the gate is started by the daemon, not by hand");
    2
}

struct Server {
    group: Group,
    socket: OwnedFd,
    page: SharedPage,
    switch: DeadMansSwitch,
    held: HeldExecs<HeldFile>,
    outbox: Outbox,
    last_ticket: u64,
    /// Whether a mark was set: only then can the gate keep anybody waiting.
    watching: bool,
}

/// Whether the loop goes on.
#[derive(PartialEq, Eq)]
enum Turn {
    Next,
    DaemonGone,
}

impl Server {
    /// Everything a gate needs, or the report of what failed. `None` when the daemon is gone.
    fn begin(socket: OwnedFd) -> io::Result<Option<Self>> {
        let Some(memory) = await_begin(&socket)? else {
            return Ok(None);
        };
        let page = told(&socket, Step::Page, SharedPage::map(memory.as_fd()))?;
        told(&socket, Step::Descriptors, raise_descriptor_limit())?;
        let switch = told(&socket, Step::Timer, DeadMansSwitch::new())?;
        let group = told(&socket, Step::Group, Group::new())?;
        let mut outbox = Outbox::new();
        outbox.push(Report::Ready);
        Ok(Some(Self { group, socket, page, switch, held: HeldExecs::new(), outbox, last_ticket: 0, watching: false }))
    }

    fn serve(&mut self) -> io::Result<()> {
        loop {
            self.beat()?;
            self.flush()?;
            self.wait()?;
            if self.obey()? == Turn::DaemonGone {
                return Ok(());
            }
            self.take_events()?;
            self.release_attached()?;
            self.release_expired()?;
        }
    }

    /// Shows that the gate lives. One that watches nothing can harm nobody, and sleeps without a timer.
    fn beat(&mut self) -> io::Result<()> {
        self.page.last_beat_boot_ns.store(boot_ns(), Ordering::Relaxed);
        self.switch.set(if self.watching { KILLED_WHEN_STILL_FOR } else { Duration::ZERO })
    }

    fn flush(&mut self) -> io::Result<()> {
        let socket = &self.socket;
        match self.outbox.flush(|report| channel::send(socket, &report.encode(), None)) {
            // The daemon is gone: the next turn's read of the socket says so too.
            Err(error) if is_gone(&error) => Ok(()),
            other => other,
        }
    }

    /// Sleeps until there is something to do.
    fn wait(&self) -> io::Result<()> {
        let wants = if self.outbox.is_empty() { PollFlags::IN } else { PollFlags::IN | PollFlags::OUT };
        let mut sources = [PollFd::new(&self.group, PollFlags::IN), PollFd::new(&self.socket, wants)];
        let until_deadline = self.held.next_deadline_boot_ns().map(|deadline| deadline.saturating_sub(boot_ns()));
        let until_beat = self.watching.then_some(as_ns(BEAT_EVERY));
        let wait_ns = until_deadline.into_iter().chain(until_beat).min();
        let timeout = wait_ns.map(|wait_ns| timespec(Duration::from_nanos(wait_ns)));
        match poll(&mut sources, timeout.as_ref()) {
            Ok(_) | Err(Errno::INTR) => Ok(()),
            Err(errno) => Err(errno.into()),
        }
    }

    fn obey(&mut self) -> io::Result<Turn> {
        for _ in 0..ORDERS_A_TURN {
            match channel::receive(&self.socket)? {
                Receipt::Nothing => return Ok(Turn::Next),
                Receipt::Closed => return Ok(Turn::DaemonGone),
                Receipt::Message(message, file) => match Order::decode(&message) {
                    Some(order) => self.carry_out(order, file)?,
                    None => return Err(io::ErrorKind::InvalidData.into()),
                },
            }
        }
        Ok(Turn::Next)
    }

    fn carry_out(&mut self, order: Order, file: Option<OwnedFd>) -> io::Result<()> {
        match order {
            // The first order alone; `await_begin` took it. The others need no act but the look that follows.
            Order::Begin | Order::Look => Ok(()),
            Order::Mark { id } => {
                let marked = file.ok_or_else(|| Errno::BADF.into()).and_then(|file| self.group.mark(file.as_fd()));
                self.watching |= marked.is_ok();
                self.outbox.push(match marked {
                    Ok(()) => Report::Marked { id },
                    Err(error) => Report::NotMarked { id, errno: error.raw_os_error().unwrap_or(libc::EIO) },
                });
                Ok(())
            }
            Order::Unmark => {
                // A mark that is not there any more went with its file.
                let _gone = file.map(|file| self.group.unmark(file.as_fd()));
                Ok(())
            }
            Order::UnmarkAll => {
                self.watching = false;
                self.group.unmark_all()
            }
            Order::Answer { ticket, attached } => match self.held.take(ticket) {
                Some(exec) if attached => self.go_on_attached(exec, boot_ns()),
                Some(exec) => self.go_on(exec, Why::Declined),
                None => Ok(()),
            },
        }
    }

    fn take_events(&mut self) -> io::Result<()> {
        let mut buffer = event_buffer();
        for notice in self.group.read(&mut buffer)? {
            match notice? {
                Notice::Held { file, tgid } => self.admit(file, tgid)?,
                Notice::QueueFull => self.outbox.push(Report::LetThrough(Passage {
                    file: None,
                    tgid: None,
                    execs: None,
                    from_boot_ns: boot_ns(),
                    why: Why::QueueFull,
                })),
            }
        }
        Ok(())
    }

    /// Lets an exec go on at once, or wait while the daemon is asked.
    fn admit(&mut self, held: HeldFile, tgid: Option<u32>) -> io::Result<()> {
        let since_boot_ns = boot_ns();
        self.page.seen.fetch_add(1, Ordering::Relaxed);
        if self.page.passes_attached(since_boot_ns) {
            self.group.allow(held)?;
            self.page.at_once.fetch_add(1, Ordering::Relaxed);
            return Ok(());
        }
        let file = held.id()?;
        self.last_ticket += 1;
        let ticket = self.last_ticket;
        // A daemon that does not read cannot answer either: the question is dropped, and the deadline decides.
        self.flush()?;
        if self.outbox.is_empty() {
            let question = Report::Held { ticket, file, tgid, since_boot_ns };
            let _unasked = channel::send(&self.socket, &question.encode(), None);
        }
        match self.held.hold(HeldExec { ticket, held, file, tgid, since_boot_ns }) {
            Some(crowded_out) => self.go_on(crowded_out, Why::Crowded),
            None => Ok(()),
        }
    }

    fn release_attached(&mut self) -> io::Result<()> {
        while !self.held.is_empty() && self.page.attached_since_boot_ns.load(Ordering::SeqCst) != 0 {
            let Some(exec) = self.held.take_oldest() else {
                return Ok(());
            };
            self.go_on(exec, Why::NoAnswer)?;
        }
        Ok(())
    }

    fn release_expired(&mut self) -> io::Result<()> {
        while let Some(exec) = self.held.take_expired(boot_ns()) {
            self.go_on(exec, Why::NoAnswer)?;
        }
        Ok(())
    }

    /// Lets an exec go on, and remembers why if the hooks are not attached even now.
    fn go_on(&mut self, exec: HeldExec<HeldFile>, why: Why) -> io::Result<()> {
        let from_boot_ns = boot_ns();
        if self.page.passes_attached(from_boot_ns) {
            return self.go_on_attached(exec, from_boot_ns);
        }
        self.group.allow(exec.held)?;
        self.page.let_through.fetch_add(1, Ordering::Relaxed);
        let passage = Passage { file: Some(exec.file), tgid: exec.tgid, execs: Some(1), from_boot_ns, why };
        self.outbox.push(Report::LetThrough(passage));
        Ok(())
    }

    fn go_on_attached(&mut self, exec: HeldExec<HeldFile>, now_boot_ns: u64) -> io::Result<()> {
        self.page.last_passage_boot_ns.store(now_boot_ns, Ordering::SeqCst);
        self.group.allow(exec.held)?;
        self.page.after_attaching.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }
}

/// Waits for the first order, and takes the page that comes with it.
fn await_begin(socket: &OwnedFd) -> io::Result<Option<OwnedFd>> {
    let mut sources = [PollFd::new(socket, PollFlags::IN)];
    if poll(&mut sources, Some(&timespec(BEGIN_WITHIN)))? == 0 {
        return Err(io::ErrorKind::TimedOut.into());
    }
    match channel::receive(socket)? {
        Receipt::Message(message, Some(memory)) if Order::decode(&message) == Some(Order::Begin) => Ok(Some(memory)),
        Receipt::Closed => Ok(None),
        Receipt::Nothing | Receipt::Message(..) => Err(io::ErrorKind::InvalidData.into()),
    }
}

/// Tells the daemon of a failure before passing it on.
fn told<T>(socket: &OwnedFd, step: Step, result: io::Result<T>) -> io::Result<T> {
    if let Err(error) = &result {
        let failed = Report::Failed { step, errno: error.raw_os_error().unwrap_or(libc::EIO) };
        // If the daemon is gone too there is nobody to tell.
        let _untold = channel::send(socket, &failed.encode(), None);
    }
    result
}

/// The kernel refuses an exec whose event finds no free descriptor in the gate, so there must always be one.
fn raise_descriptor_limit() -> io::Result<()> {
    let limit = getrlimit(Resource::Nofile);
    if limit.current.is_none_or(|current| current >= DESCRIPTORS) {
        return Ok(());
    }
    Ok(setrlimit(Resource::Nofile, Rlimit { current: Some(DESCRIPTORS), maximum: limit.maximum })?)
}

fn is_gone(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset)
}

fn timespec(duration: Duration) -> Timespec {
    // The gate's waits are of seconds at most, so nothing is cut.
    Timespec { tv_sec: duration.as_secs() as i64, tv_nsec: i64::from(duration.subsec_nanos()) }
}

// The deadline of an exec lies within the time after which a gate that stands still is killed, so that the latter
// bounds both.
const _: () = assert!(as_ns(ANSWER_WITHIN) < as_ns(KILLED_WHEN_STILL_FOR));
const _: () = assert!(2 * as_ns(BEAT_EVERY) < as_ns(KILLED_WHEN_STILL_FOR));
