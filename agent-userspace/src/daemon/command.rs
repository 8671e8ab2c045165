//! What others ask of the pipeline, and how they wake it.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel};

use rustix::event::{EventfdFlags, eventfd};

use super::discovering::Members;
use super::overdue::Overdue;
use crate::config::Config;
use crate::control::protocol::ReviewDone;
use crate::control::{CoreError, Peer, RunRefused};
use crate::discover::Discovered;
use crate::entry::{Draft, SessionId};
use crate::integrity::Change;

/// What can be asked.
pub(super) enum Command {
    /// Make the held child the first process of a session.
    Run { agent: String, child_tgid: u32, peer_uid: u32, reply: SyncSender<Result<SessionId, RunRefused>> },
    /// Have everything that the kernel did before now in the trail, and say up to where that is.
    Sync { reply: SyncSender<Result<u64, String>> },
    /// Take another configuration, for that peer or for a signal.
    Reload { config: Arc<Config>, peer: Option<Peer>, reply: SyncSender<Result<(), String>> },
    /// Record that an agent was reviewed, and say by which entry.
    Review { done: ReviewDone, peer: Peer, reply: SyncSender<Result<String, CoreError>> },
    /// Record that a review is overdue.
    ReviewOverdue { overdue: Overdue },
    /// Remove what the trail need not keep, of what every target has acknowledged: up to this seq.
    Prune { acknowledged: u64 },
    /// Say who is in whose session.
    Members { reply: SyncSender<Members> },
    /// Record that an agent runs that nothing declares.
    Undeclared { item: Box<Discovered> },
    /// Record that an agent began with something else than before.
    Changed { session: u64, change: Box<Change>, whose: Box<Draft>, cause: String },
    /// End.
    Stop,
}

/// The asking end. Cloned for each that asks.
#[derive(Clone)]
pub(super) struct Asker {
    commands: Sender<Command>,
    wake: Arc<OwnedFd>,
}

/// The pipeline's end.
pub(super) struct Asked {
    commands: Receiver<Command>,
    wake: Arc<OwnedFd>,
}

/// A pair of ends.
pub(super) fn pair() -> io::Result<(Asker, Asked)> {
    let wake = Arc::new(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?);
    let (sender, receiver) = channel();
    Ok((Asker { commands: sender, wake: Arc::clone(&wake) }, Asked { commands: receiver, wake }))
}

impl Asker {
    /// Asks. Returns whether the pipeline is there to be asked.
    pub(super) fn ask(&self, command: Command) -> bool {
        let sent = self.commands.send(command).is_ok();
        // A full counter wakes just as well.
        let _ = rustix::io::write(&*self.wake, &1u64.to_ne_bytes());
        sent
    }
}

impl Asked {
    /// The next command, if there is one.
    pub(super) fn next(&self) -> Option<Command> {
        self.commands.try_recv().ok()
    }

    /// Takes note of having been woken.
    pub(super) fn awake(&self) {
        let mut count = [0; 8];
        let _ = rustix::io::read(&*self.wake, &mut count);
    }
}

impl AsFd for Asked {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.wake.as_fd()
    }
}
