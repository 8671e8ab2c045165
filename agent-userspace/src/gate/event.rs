//! What the gate has to say to the daemon's loop.

use std::path::PathBuf;
use std::process::ExitStatus;

use super::target::Unmarked;
use super::wire::Why;

/// What the gate has to say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum GateEvent {
    /// An exec waits, 100 ms at most: attach, then call [`Gate::set_attached`](super::Gate::set_attached); or
    /// [`Gate::declined`](super::Gate::declined).
    AttachRequested {
        /// For the answer.
        ticket: u64,
        /// The target; `None` for a file that was one earlier.
        executable: Option<PathBuf>,
        /// Who executes it; `None` where the kernel could not tell (a pid namespace that does not contain it).
        tgid: Option<u32>,
        /// Since when it waits, nanoseconds after boot.
        since_boot_ns: u64,
    },
    /// One exec or several went on while the hooks were not attached: a gap.
    LetThrough {
        /// The target; `None` where there were several, or it is not known.
        executable: Option<PathBuf>,
        /// Who executed it; `None` likewise.
        tgid: Option<u32>,
        /// How many there were; `None` where nobody counted them.
        execs: Option<u64>,
        /// When the (first) exec went on: before, it could do nothing. Nanoseconds after boot.
        from_boot_ns: u64,
        /// When the hooks were attached; `None` while they are not: the gap is still open.
        until_boot_ns: Option<u64>,
        /// Why.
        why: Why,
    },
    /// A target's exec is held from now on.
    Marked {
        /// Its path.
        target: PathBuf,
    },
    /// A target's exec is not held.
    Unmarked {
        /// Its path.
        target: PathBuf,
        /// Why.
        why: Unmarked,
    },
    /// The gate is gone, and with it its marks; what it held went on. Drop it, and start another ([`super::Backoff`]).
    Died {
        /// How it ended, where that is known already. Signal 9: it stood still and was killed, or somebody killed it.
        status: Option<ExitStatus>,
        /// When it last showed that it lived, nanoseconds after boot: from here on nothing is sure to have been held.
        alive_until_boot_ns: u64,
        /// Execs that it saw and that no event of this gate speaks of as let through: they went on unattached.
        unreported: u64,
    },
}

/// What a gate did so far.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GateCounts {
    /// Execs that it saw.
    pub seen: u64,
    /// Of these: went on at once, since the hooks were attached.
    pub at_once: u64,
    /// Of these: went on when the hooks had been attached for them.
    pub after_attaching: u64,
    /// Of these: went on unattached.
    pub let_through: u64,
}
