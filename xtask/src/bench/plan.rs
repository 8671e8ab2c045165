//! What is measured, under which conditions, and in which order.
//!
//! Between any two conditions stands one with nothing attached, which both are compared with: these machines change
//! their speed within seconds, so only neighbours can be compared. Each round goes through the conditions in another
//! order, so that none always follows the same one.

use std::fmt;

use clap::ValueEnum;

/// What the worker does, again and again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub(crate) enum Workload {
    /// A system call that touches nothing
    Getpid,
    /// Open and close one file
    OpenSame,
    /// Open and close files that the process has not opened before
    OpenNew,
    /// Read from one open file, and write to it
    ReadWrite,
    /// Connect to a listener on loopback, and close
    Connect,
    /// Start a program of a few bytes, and wait for its end
    ForkExec,
}

impl Workload {
    pub(super) const ALL: [Self; 6] =
        [Self::Getpid, Self::OpenSame, Self::OpenNew, Self::ReadWrite, Self::Connect, Self::ForkExec];

    /// The name in the command line and in JSON.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Getpid => "getpid",
            Self::OpenSame => "open-same",
            Self::OpenNew => "open-new",
            Self::ReadWrite => "read-write",
            Self::Connect => "connect",
            Self::ForkExec => "fork-exec",
        }
    }

    /// The heading of its column.
    pub(super) fn heading(self) -> &'static str {
        match self {
            Self::Getpid => "getpid",
            Self::OpenSame => "open+close, same file",
            Self::OpenNew => "open+close, new files",
            Self::ReadWrite => "read+write, open file",
            Self::Connect => "connect",
            Self::ForkExec => "fork+exec",
        }
    }

    /// As many as take about a tenth of a second with nothing attached.
    fn operations(self) -> usize {
        match self {
            Self::Getpid => 400_000,
            Self::OpenSame | Self::OpenNew => 20_000,
            Self::ReadWrite => 100_000,
            Self::Connect => 3_000,
            Self::ForkExec => 250,
        }
    }
}

/// What is attached to the host, or to the worker, while it works.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub(crate) enum Condition {
    /// Nothing: what the others are compared with
    #[value(skip)]
    Nothing,
    /// Bailiwick runs, no session lives: its system-call hooks are detached
    Idle,
    /// A session lives, and the worker does not belong to it
    Outside,
    /// The worker is an agent
    Inside,
    /// `strace -f`, writing to /dev/null
    Strace,
    /// The same for the calls alone that Bailiwick observes, with its seccomp filter
    StraceFiltered,
}

impl Condition {
    /// All that are compared with [`Self::Nothing`].
    pub(super) const COMPARED: [Self; 5] =
        [Self::Idle, Self::Outside, Self::Inside, Self::Strace, Self::StraceFiltered];

    /// The name in JSON.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Nothing => "nothing",
            Self::Idle => "idle",
            Self::Outside => "outside",
            Self::Inside => "inside",
            Self::Strace => "strace",
            Self::StraceFiltered => "strace-filtered",
        }
    }

    /// Whether a daemon runs.
    pub(super) fn has_daemon(self) -> bool {
        match self {
            Self::Idle | Self::Outside | Self::Inside => true,
            Self::Nothing | Self::Strace | Self::StraceFiltered => false,
        }
    }

    /// By how much fewer operations are enough, since each takes so much longer.
    fn divisor(self) -> usize {
        match self {
            Self::Nothing | Self::Idle | Self::Outside | Self::Inside => 1,
            Self::Strace => 8,
            Self::StraceFiltered => 2,
        }
    }
}

/// The heading of its row.
impl fmt::Display for Condition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Nothing => "nothing",
            Self::Idle => "Bailiwick, no session alive",
            Self::Outside => "Bailiwick, a session alive, outside it",
            Self::Inside => "Bailiwick, inside a session",
            Self::Strace => "`strace -f`",
            Self::StraceFiltered => "`strace -f --seccomp-bpf`, the same calls",
        })
    }
}

/// How much is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Plan {
    /// How often each condition comes.
    pub(super) rounds: usize,
    /// How often each workload runs each time; the median counts.
    pub(super) passes: usize,
    /// By how much fewer operations a run has than it should have for good numbers.
    hurry: usize,
}

impl Plan {
    /// A plan whose numbers mean something.
    pub(super) fn thorough(rounds: usize) -> Self {
        Self { rounds, passes: 3, hurry: 1 }
    }

    /// A plan that shows whether all works.
    pub(super) fn quick(rounds: usize) -> Self {
        Self { rounds, passes: 1, hurry: 4 }
    }

    /// How many operations of `workload` one run measures under `condition`.
    pub(super) fn operations(&self, workload: Workload, condition: Condition) -> usize {
        (workload.operations() / condition.divisor() / self.hurry).max(1)
    }

    /// The most operations of `workload` that any run measures.
    pub(super) fn most_operations(&self, workload: Workload) -> usize {
        self.operations(workload, Condition::Nothing)
    }

    /// The conditions in the order in which they are measured: [`Condition::Nothing`] at both ends and between any two.
    pub(super) fn slots(&self, compared: &[Condition]) -> Vec<Condition> {
        let mut slots = vec![Condition::Nothing];
        for round in 0..self.rounds {
            let mut order = compared.to_vec();
            // Forwards and backwards in turn, so that the one before is not always the same either.
            if round % 2 == 1 {
                order.reverse();
            }
            order.rotate_left(round % compared.len().max(1));
            slots.extend(order.into_iter().flat_map(|condition| [condition, Condition::Nothing]));
        }
        slots
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_condition_stands_between_two_with_nothing_attached() {
        let slots = Plan::thorough(7).slots(&Condition::COMPARED);
        assert_eq!(slots.len(), 2 * 7 * Condition::COMPARED.len() + 1);
        for (index, condition) in slots.iter().enumerate() {
            assert_eq!(*condition == Condition::Nothing, index % 2 == 0, "slot {index} is {condition}");
        }
    }

    #[test]
    fn every_round_has_every_condition_once_and_begins_with_another() {
        let plan = Plan::thorough(5);
        let compared: Vec<_> = plan.slots(&Condition::COMPARED).into_iter().skip(1).step_by(2).collect();
        let mut first = Vec::new();
        for round in compared.chunks(Condition::COMPARED.len()) {
            first.push(round[0]);
            let mut sorted = round.to_vec();
            sorted.sort();
            assert_eq!(sorted, Condition::COMPARED);
        }
        first.sort();
        first.dedup();
        assert_eq!(first.len(), 5, "{first:?}");
    }

    #[test]
    fn a_single_condition_still_alternates_with_nothing() {
        let slots = Plan::quick(2).slots(&[Condition::Strace]);
        let (nothing, strace) = (Condition::Nothing, Condition::Strace);
        assert_eq!(slots, [nothing, strace, nothing, strace, nothing]);
    }

    #[test]
    fn no_run_is_empty_nor_larger_than_what_is_prepared() {
        for plan in [Plan::thorough(1), Plan::quick(1)] {
            for workload in Workload::ALL {
                for condition in Condition::COMPARED {
                    let operations = plan.operations(workload, condition);
                    assert!(
                        operations >= 1 && operations <= plan.most_operations(workload),
                        "{workload:?} {condition}"
                    );
                }
            }
        }
    }

    #[test]
    fn names_are_those_of_the_command_line() {
        for workload in Workload::ALL {
            assert_eq!(Workload::from_str(workload.name(), false), Ok(workload));
        }
        for condition in Condition::COMPARED {
            assert_eq!(Condition::from_str(condition.name(), false), Ok(condition));
        }
    }
}
