//! The execs that wait, oldest first, each with the same patience. Pure: time is an argument.
//!
//! All wait equally long, so the oldest is always the next whose time is up.

use std::collections::VecDeque;

use super::wire::FileId;
use super::{ANSWER_WITHIN, as_ns};

/// How many execs wait at once. Each holds a file descriptor of the gate; the oldest goes on when another comes.
pub(super) const MAX_HELD: usize = 256;

/// An exec that waits.
#[derive(Debug)]
pub(super) struct HeldExec<F> {
    /// Under which it was reported.
    pub(super) ticket: u64,
    /// What the kernel wants answered.
    pub(super) held: F,
    /// What is executed.
    pub(super) file: FileId,
    /// Who executes it.
    pub(super) tgid: Option<u32>,
    /// Since when it waits.
    pub(super) since_boot_ns: u64,
}

/// The execs that wait.
#[derive(Debug)]
pub(super) struct HeldExecs<F> {
    execs: VecDeque<HeldExec<F>>,
}

impl<F> HeldExecs<F> {
    /// Room for [`MAX_HELD`] execs, allocated once.
    pub(super) fn new() -> Self {
        Self { execs: VecDeque::with_capacity(MAX_HELD) }
    }

    /// Whether none waits.
    pub(super) fn is_empty(&self) -> bool {
        self.execs.is_empty()
    }

    /// Lets an exec wait; returns the one that must go on for lack of room.
    #[must_use]
    pub(super) fn hold(&mut self, exec: HeldExec<F>) -> Option<HeldExec<F>> {
        let crowded_out = if self.execs.len() >= MAX_HELD { self.execs.pop_front() } else { None };
        self.execs.push_back(exec);
        crowded_out
    }

    /// The exec that was reported under a ticket, if it still waits.
    pub(super) fn take(&mut self, ticket: u64) -> Option<HeldExec<F>> {
        let place = self.execs.iter().position(|exec| exec.ticket == ticket)?;
        self.execs.remove(place)
    }

    /// The oldest exec.
    pub(super) fn take_oldest(&mut self) -> Option<HeldExec<F>> {
        self.execs.pop_front()
    }

    /// An exec whose time is up.
    pub(super) fn take_expired(&mut self, now_boot_ns: u64) -> Option<HeldExec<F>> {
        if self.next_deadline_boot_ns()? > now_boot_ns {
            return None;
        }
        self.execs.pop_front()
    }

    /// When the next exec's time is up.
    pub(super) fn next_deadline_boot_ns(&self) -> Option<u64> {
        self.execs.front().map(|exec| exec.since_boot_ns.saturating_add(as_ns(ANSWER_WITHIN)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn exec(ticket: u64, since_boot_ns: u64) -> HeldExec<()> {
        HeldExec { ticket, held: (), file: FileId { device: 1, inode: 2 }, tgid: Some(3), since_boot_ns }
    }

    fn ticket(exec: Option<HeldExec<()>>) -> Option<u64> {
        exec.map(|exec| exec.ticket)
    }

    #[test]
    fn an_exec_expires_at_its_deadline_and_not_before() {
        let mut held = HeldExecs::new();
        assert!(held.hold(exec(1, 1_000)).is_none());
        let deadline = 1_000 + as_ns(ANSWER_WITHIN);
        assert_eq!(held.next_deadline_boot_ns(), Some(deadline));
        assert_eq!(ticket(held.take_expired(deadline - 1)), None);
        assert_eq!(ticket(held.take_expired(deadline)), Some(1));
        assert!(held.is_empty());
        assert_eq!(held.next_deadline_boot_ns(), None);
    }

    #[test]
    fn an_answer_frees_the_exec_it_names_and_no_other() {
        let mut held = HeldExecs::new();
        for ticket in 1..=3 {
            assert!(held.hold(exec(ticket, ticket)).is_none());
        }
        assert_eq!(ticket(held.take(2)), Some(2));
        assert_eq!(ticket(held.take(2)), None);
        assert_eq!(ticket(held.take_oldest()), Some(1));
        assert_eq!(ticket(held.take_oldest()), Some(3));
    }

    #[test]
    fn when_too_many_wait_the_oldest_goes_on() {
        let mut held = HeldExecs::new();
        for ticket in 0..MAX_HELD as u64 {
            assert!(held.hold(exec(ticket, ticket)).is_none());
        }
        assert_eq!(ticket(held.hold(exec(1_000, 1_000))), Some(0));
        assert_eq!(held.execs.len(), MAX_HELD);
        assert_eq!(held.execs.capacity(), VecDeque::<HeldExec<()>>::with_capacity(MAX_HELD).capacity());
    }
}
