//! No hook is believed: whether each sees anything is tried at start.
//!
//! A child of the daemon, in a session of its own that no entry tells of, does everything that is observed once
//! (`deeds`); what could change the host is asked for with arguments that the kernel must refuse. What the sensor then
//! has not told of is not working, whatever the kernel said when it was attached.
//!
//! Input: the kinds of records that came. Output: the events that cannot be relied on.

mod deeds;

use std::collections::BTreeSet;
use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use agent_common::RecordKind;
use rustix::process::{Pid, PidfdFlags, pidfd_open};

use crate::config::settings::Observe;
use crate::observation::event_of;

/// The hidden subcommand that runs [`process_main`].
pub const SUBCOMMAND: &str = "hook-check";

/// How long the child may take. It takes a few milliseconds.
const DEADLINE: Duration = Duration::from_secs(5);

/// What the child does, in its own process.
pub fn process_main() -> i32 {
    deeds::do_all()
}

/// A child that waits to be put into its session.
pub struct Performer {
    child: Child,
    pidfd: OwnedFd,
}

impl Performer {
    /// Starts one; it does nothing yet.
    ///
    /// # Errors
    /// The program cannot be started once more.
    pub fn start() -> io::Result<Self> {
        let mut command = Command::new("/proc/self/exe");
        command.arg(SUBCOMMAND).env_clear().stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
        let child = command.spawn()?;
        let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
        let pid = pid.ok_or_else(|| io::Error::other("a child without a process id"))?;
        let pidfd = pidfd_open(pid, PidfdFlags::empty())?;
        Ok(Self { child, pidfd })
    }

    /// What it is known by to the sensor.
    pub fn pidfd(&self) -> BorrowedFd<'_> {
        self.pidfd.as_fd()
    }

    /// Lets it do everything, and waits for its end.
    ///
    /// # Errors
    /// It did not end in time, or not well.
    pub fn perform(mut self) -> io::Result<()> {
        if let Some(mut start) = self.child.stdin.take() {
            start.write_all(b"go")?;
        }
        let deadline = Instant::now() + DEADLINE;
        while Instant::now() < deadline {
            if let Some(status) = self.child.try_wait()? {
                let failed = || io::Error::other(format!("the check of the hooks ended with {status}"));
                return if status.success() { Ok(()) } else { Err(failed()) };
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        self.child.kill()?;
        self.child.wait()?;
        Err(io::Error::new(io::ErrorKind::TimedOut, "the check of the hooks did not end in time"))
    }
}

/// The events that were done and not told of, of those that are observed.
pub fn not_working(seen: &BTreeSet<RecordKind>, observe: Observe) -> BTreeSet<&'static str> {
    let expected = |kind: RecordKind| kind != RecordKind::SyscallCount || observe == Observe::Full;
    RecordKind::ALL
        .iter()
        .filter(|&&kind| expected(kind) && !seen.contains(&kind))
        .map(|&kind| event_of(kind))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_not_seen_is_named_by_its_event() {
        let mut seen: BTreeSet<RecordKind> = RecordKind::ALL.iter().copied().collect();
        assert!(not_working(&seen, Observe::Full).is_empty());
        seen.remove(&RecordKind::Xattr);
        assert_eq!(not_working(&seen, Observe::Default), BTreeSet::from(["file.xattr"]));
    }
}
