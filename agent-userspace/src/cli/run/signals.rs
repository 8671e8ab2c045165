//! Signals while a command runs: held back, read one at a time, handed on.
//!
//! Inputs: the signals this process gets. Outputs: what to do about each ([`Received::action`], pure). Nothing is handled in a signal
//! handler: all are blocked in this thread and read from a descriptor.
//! Refuses: to hand on what the terminal has sent to the whole process group already, and what the command itself sent.
#![allow(unsafe_code, reason = "rustix has neither signalfd nor signal masks; each block says what it relies on")]

use std::io;
use std::marker::PhantomData;
use std::mem::{MaybeUninit, size_of};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::ptr;

use rustix::process::{Pid, WaitId, WaitIdOptions, waitid};

/// Signals that the processor raises: handing them on means nothing, and holding them back ends the process.
const OF_THE_PROCESSOR: [i32; 6] =
    [libc::SIGSEGV, libc::SIGBUS, libc::SIGFPE, libc::SIGILL, libc::SIGTRAP, libc::SIGSYS];

/// Signals that end a process which does nothing about them, as a person or a supervisor sends them.
const ENDING: [i32; 4] = [libc::SIGINT, libc::SIGTERM, libc::SIGHUP, libc::SIGQUIT];

/// Signals that stop a process from the terminal.
const STOPPING: [i32; 3] = [libc::SIGTSTP, libc::SIGTTIN, libc::SIGTTOU];

/// What signals were before, for the command.
pub(super) struct Inherited {
    mask: libc::sigset_t,
    is_child_ignored: bool,
}

impl Inherited {
    /// Makes signals what they were. Async-signal-safe.
    pub(super) fn restore(&self) {
        // SAFETY: plain system calls; the mask was filled by sigprocmask. Rust's runtime ignores SIGPIPE before `main`, so
        // what the caller had is not known: the default is what a shell gives.
        unsafe {
            libc::signal(libc::SIGPIPE, libc::SIG_DFL);
            if self.is_child_ignored {
                libc::signal(libc::SIGCHLD, libc::SIG_IGN);
            }
            libc::pthread_sigmask(libc::SIG_SETMASK, &raw const self.mask, ptr::null_mut());
        }
    }
}

/// This thread's signals, held back. Stays in the thread: masks are a thread's own.
pub(super) struct Signals {
    inherited: Inherited,
    descriptor: OwnedFd,
    stays: PhantomData<*const ()>,
}

/// One signal that came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Received {
    /// Which.
    pub(super) number: i32,
    /// From where (`si_code`).
    code: i32,
    /// From which process, where one sent it.
    sender: u32,
}

/// What to do about a signal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Action {
    /// The command has it already, or it means nothing.
    Nothing,
    /// Send it to the command.
    Forward,
    /// Send it to the command, and stop as well.
    ForwardAndStop,
    /// The command has it already; stop as well.
    Stop,
    /// Something about the command has changed.
    LookAtChild,
}

impl Received {
    /// Whether it means that this process should end.
    pub(super) fn ends_a_process(self) -> bool {
        ENDING.contains(&self.number)
    }

    /// What to do about it while the command runs.
    pub(super) fn action(self, child: Pid) -> Action {
        if self.number == libc::SIGCHLD {
            return Action::LookAtChild;
        }
        let is_of_terminal = self.code == libc::SI_KERNEL;
        if STOPPING.contains(&self.number) {
            return if is_of_terminal { Action::Stop } else { Action::ForwardAndStop };
        }
        let is_of_child = self.code <= 0 && i64::from(self.sender) == i64::from(child.as_raw_nonzero().get());
        if is_of_terminal || is_of_child { Action::Nothing } else { Action::Forward }
    }
}

impl Signals {
    /// Holds back, in this thread, all signals that can be handed on.
    pub(super) fn hold() -> io::Result<Self> {
        let mut held = MaybeUninit::<libc::sigset_t>::uninit();
        let mut before = MaybeUninit::<libc::sigset_t>::uninit();
        // SAFETY: each set is filled by the call that takes its pointer before it is read; SIG_DFL is a valid disposition.
        unsafe {
            libc::sigfillset(held.as_mut_ptr());
            for number in OF_THE_PROCESSOR {
                libc::sigdelset(held.as_mut_ptr(), number);
            }
            let failed = libc::pthread_sigmask(libc::SIG_BLOCK, held.as_ptr(), before.as_mut_ptr());
            if failed != 0 {
                return Err(io::Error::from_raw_os_error(failed));
            }
            // With an ignored SIGCHLD the kernel would reap the command, and its exit code would be lost.
            let child = libc::signal(libc::SIGCHLD, libc::SIG_DFL);
            let mask = before.assume_init();
            let descriptor = libc::signalfd(-1, held.as_ptr(), libc::SFD_CLOEXEC | libc::SFD_NONBLOCK);
            let inherited = Inherited { mask, is_child_ignored: child == libc::SIG_IGN };
            if descriptor < 0 {
                let error = io::Error::last_os_error();
                libc::pthread_sigmask(libc::SIG_SETMASK, &raw const inherited.mask, ptr::null_mut());
                return Err(error);
            }
            Ok(Self { inherited, descriptor: OwnedFd::from_raw_fd(descriptor), stays: PhantomData })
        }
    }

    /// What signals were before.
    pub(super) fn inherited(&self) -> &Inherited {
        &self.inherited
    }

    /// The next signal that came, if one did.
    pub(super) fn next(&mut self) -> Option<Received> {
        let mut information = MaybeUninit::<libc::signalfd_siginfo>::zeroed();
        let size = size_of::<libc::signalfd_siginfo>();
        // SAFETY: the kernel writes at most `size` bytes, which is what there is room for; any bytes are a valid value of
        // this struct of integers.
        let (read, information) = unsafe {
            let read = libc::read(self.descriptor.as_raw_fd(), information.as_mut_ptr().cast(), size);
            (read, information.assume_init())
        };
        let is_whole = usize::try_from(read).is_ok_and(|read| read == size);
        is_whole.then_some(Received {
            number: i32::try_from(information.ssi_signo).ok()?,
            code: information.ssi_code,
            sender: information.ssi_pid,
        })
    }

    /// Sends a signal to the command; one that has ended gets none.
    pub(super) fn forward(&self, number: i32, child: Pid) {
        // SAFETY: a plain system call. The child is not yet reaped, so its id is its own.
        unsafe { libc::kill(child.as_raw_nonzero().get(), number) };
    }
}

impl AsFd for Signals {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.descriptor.as_fd()
    }
}

impl Drop for Signals {
    fn drop(&mut self) {
        // SAFETY: the mask was filled by pthread_sigmask, and in this thread, which the type does not leave.
        unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, &raw const self.inherited.mask, ptr::null_mut()) };
    }
}

/// Whether the command is stopped. Told once for each stop; its end is not taken by this.
pub(super) fn is_stopped(child: Pid) -> bool {
    let options = WaitIdOptions::STOPPED | WaitIdOptions::NOHANG;
    waitid(WaitId::Pid(child), options).ok().flatten().is_some_and(|status| status.stopped())
}

/// Whether this process is in the foreground of its terminal: somebody waits for a prompt when the command stops.
pub(super) fn is_in_foreground() -> bool {
    let Ok(terminal) = std::fs::File::open("/dev/tty") else { return false };
    // SAFETY: plain system calls on a descriptor that is open.
    unsafe { libc::tcgetpgrp(terminal.as_raw_fd()) == libc::getpgrp() }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;

    /// What to do about a signal while the command is process 50.
    fn about(number: i32, code: i32, sender: u32) -> Action {
        Received { number, code, sender }.action(Pid::from_raw(50).unwrap())
    }

    #[test]
    fn what_a_person_or_a_supervisor_sends_is_handed_on() {
        for number in [libc::SIGTERM, libc::SIGINT, libc::SIGHUP, libc::SIGUSR1, libc::SIGCONT, libc::SIGWINCH] {
            assert_eq!(about(number, libc::SI_USER, 7), Action::Forward);
        }
        assert_eq!(about(libc::SIGTERM, libc::SI_TKILL, 7), Action::Forward);
    }

    #[test]
    fn what_the_terminal_sends_to_the_whole_group_is_not_sent_twice() {
        for number in [libc::SIGINT, libc::SIGQUIT, libc::SIGHUP, libc::SIGWINCH] {
            assert_eq!(about(number, libc::SI_KERNEL, 0), Action::Nothing);
        }
    }

    #[test]
    fn what_the_command_itself_sends_to_its_parent_does_not_come_back_to_it() {
        assert_eq!(about(libc::SIGTERM, libc::SI_USER, 50), Action::Nothing);
    }

    #[test]
    fn a_stop_from_the_terminal_stops_both_and_one_from_elsewhere_is_handed_on_first() {
        assert_eq!(about(libc::SIGTSTP, libc::SI_KERNEL, 0), Action::Stop);
        assert_eq!(about(libc::SIGTTIN, libc::SI_KERNEL, 0), Action::Stop);
        assert_eq!(about(libc::SIGTSTP, libc::SI_USER, 7), Action::ForwardAndStop);
    }

    #[test]
    fn before_the_command_has_started_only_what_ends_a_process_ends_the_waiting() {
        let ends = |number| Received { number, code: 0, sender: 7 }.ends_a_process();
        assert!(ends(libc::SIGINT) && ends(libc::SIGTERM) && ends(libc::SIGHUP));
        assert!(!ends(libc::SIGWINCH) && !ends(libc::SIGCHLD));
    }
}
