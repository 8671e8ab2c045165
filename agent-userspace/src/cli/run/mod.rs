//! `bailiwick run`: a command as a declared agent, watched from its first instruction on.
//!
//! Inputs: an agent's name, a command. Outputs: the command's exit code, or 128 + n for signal n. The child is forked first
//! and held; the daemon makes it the first process of a session and attaches the hooks; only then is it let go and becomes
//! the command. It keeps uid, groups, environment, directory, terminal, open files and signals, and stays in the process
//! group, so that a shell's job control means both.
//! Refuses: to start anything that the daemon does not watch.

mod held;
mod path;
mod signals;

use std::io;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, WaitOptions, WaitStatus, kill_process, pidfd_open, waitpid};

use self::held::{HeldChild, Image};
use self::path::NotExecutable;
use self::signals::{Action, Received, Signals};
use super::CliError;
use super::args::RunArgs;
use super::text::printable;
use crate::control::client::{Answer, Client};
use crate::control::{Request, Response};

/// The daemon attaches in milliseconds; one that takes so long will not.
const ACCEPT_PATIENCE: Duration = Duration::from_secs(10);

/// As a shell: the command is there, but cannot be executed; and, it is not there.
const CANNOT_EXECUTE: u8 = 126;
const NOT_FOUND: u8 = 127;

/// Signals of the command's end are reported as this and their number.
const SIGNAL_BASE: u8 = 128;

/// The command could not be started, through no fault of the daemon's.
#[derive(Debug, thiserror::Error)]
enum RunError {
    /// It cannot be executed.
    #[error(transparent)]
    Command(#[from] NotExecutable),
    /// The kernel refused something that `run` needs.
    #[error("cannot {step}: {source}")]
    Step { step: &'static str, source: io::Error },
}

impl RunError {
    fn step(step: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Step { step, source }
    }

    fn exit_code(&self) -> u8 {
        match self {
            Self::Command(error) if error.is_missing() => NOT_FOUND,
            Self::Command(_) | Self::Step { .. } => CANNOT_EXECUTE,
        }
    }
}

/// Either side may fail.
#[derive(Debug)]
enum Failed {
    Asking(CliError),
    Starting(RunError),
}

impl From<RunError> for Failed {
    fn from(error: RunError) -> Self {
        Self::Starting(error)
    }
}

impl<E: Into<CliError>> From<E> for Failed {
    fn from(error: E) -> Self {
        Self::Asking(error.into())
    }
}

/// Runs the command, and returns what to exit with.
pub(super) fn run(client: &Client, args: &RunArgs) -> Result<u8, CliError> {
    match start_and_wait(client, args) {
        Ok(code) => Ok(code),
        Err(Failed::Asking(error)) => Err(error),
        Err(Failed::Starting(error)) => {
            eprintln!("bailiwick run: {}", printable(&error.to_string()));
            Ok(error.exit_code())
        }
    }
}

fn start_and_wait(client: &Client, args: &RunArgs) -> Result<u8, Failed> {
    // First the daemon: without one nothing is looked up, forked or run.
    let connected = client.connect()?;
    let image =
        path::resolve(&args.command).and_then(|file| Image::new(file, &args.command)).map_err(RunError::from)?;
    let mut signals = Signals::hold().map_err(RunError::step("hold signals back"))?;
    let mut child = HeldChild::fork(&image, signals.inherited()).map_err(RunError::step("fork"))?;
    let request = Request::Run { agent: args.agent.clone(), child: child.tgid() };
    let mut answer = connected.ask(&request, Some(ACCEPT_PATIENCE))?;
    if let Some(signal) = wait_for_answer(&answer, &mut signals)? {
        return Ok(SIGNAL_BASE.saturating_add(signal));
    }
    match answer.next().transpose()? {
        Some(Response::Accepted(_)) => {}
        Some(_) | None => return Err(answer.not_understood("an answer to another question").into()),
    }
    drop(answer);
    child.release().map_err(|source| NotExecutable::at(image.path(), source)).map_err(RunError::from)?;
    Ok(wait_for(child.started(), &mut signals)?)
}

/// Waits until the daemon answers; returns the number of a signal that ends the waiting.
fn wait_for_answer(answer: &Answer, signals: &mut Signals) -> Result<Option<u8>, RunError> {
    let until = Instant::now() + ACCEPT_PATIENCE;
    loop {
        let left = until.saturating_duration_since(Instant::now());
        let (is_answered, is_signalled) = wait_readable(answer, &*signals, Some(left))?;
        // Out of time too: reading then says so.
        if is_answered || left.is_zero() {
            return Ok(None);
        }
        while let Some(received) = is_signalled.then(|| signals.next()).flatten() {
            if received.ends_a_process() {
                return Ok(u8::try_from(received.number).ok());
            }
        }
    }
}

fn wait_readable(first: impl AsFd, second: impl AsFd, at_most: Option<Duration>) -> Result<(bool, bool), RunError> {
    let mut waiting = [PollFd::new(&first, PollFlags::IN), PollFd::new(&second, PollFlags::IN)];
    let limit = at_most.map(|time| Timespec {
        tv_sec: i64::try_from(time.as_secs()).unwrap_or(i64::MAX),
        tv_nsec: i64::from(time.subsec_nanos()),
    });
    match poll(&mut waiting, limit.as_ref()) {
        Ok(_) => {
            let [first, second] = &waiting;
            Ok((!first.revents().is_empty(), !second.revents().is_empty()))
        }
        Err(rustix::io::Errno::INTR) => Ok((false, false)),
        Err(error) => Err(RunError::Step { step: "wait", source: error.into() }),
    }
}

/// Waits for the command's end, handing on what signals come.
fn wait_for(child: Pid, signals: &mut Signals) -> Result<u8, RunError> {
    let failed = |step| move |error: rustix::io::Errno| RunError::Step { step, source: error.into() };
    let ended = pidfd_open(child, PidfdFlags::empty()).map_err(failed("watch the command"))?;
    loop {
        let (is_over, is_signalled) = wait_readable(&ended, &*signals, None)?;
        while let Some(received) = is_signalled.then(|| signals.next()).flatten() {
            hand_on(received, child, signals);
        }
        if is_over {
            let status = waitpid(Some(child), WaitOptions::empty()).map_err(failed("wait for the command"))?;
            return Ok(status.map_or(CANNOT_EXECUTE, |(_, status)| exit_code(status)));
        }
    }
}

/// Failures to signal are left alone: the child has ended then, which is seen next.
fn hand_on(received: Received, child: Pid, signals: &Signals) {
    match received.action(child) {
        Action::Nothing => {}
        Action::Forward => signals.forward(received.number, child),
        Action::ForwardAndStop => {
            signals.forward(received.number, child);
            stop_together(child);
        }
        Action::Stop => stop_together(child),
        Action::LookAtChild => {
            // What has ended stays to be waited for: the pidfd tells.
            if signals::is_stopped(child) && signals::is_in_foreground() {
                stop_together(child);
            }
        }
    }
}

/// Stops this process as its command is stopped, so that the shell gets its terminal back; when it goes on, so does the
/// command.
fn stop_together(child: Pid) {
    let _ = kill_process(rustix::process::getpid(), Signal::STOP);
    let _ = kill_process(child, Signal::CONT);
}

fn exit_code(status: WaitStatus) -> u8 {
    let code = status.exit_status().and_then(|code| u8::try_from(code).ok());
    let signal = status.terminating_signal().and_then(|signal| u8::try_from(signal).ok());
    match (code, signal) {
        (Some(code), _) => code,
        (None, Some(signal)) => SIGNAL_BASE.saturating_add(signal),
        (None, None) => CANNOT_EXECUTE,
    }
}

#[cfg(test)]
mod tests;
