//! The gate: holds the exec of a declared executable until the sensor's hooks are attached.
//!
//! While no session lives the system-call hooks are detached, so that a host with no agent running pays nothing. An
//! agent that starts then would act unseen until they are attached again. So the inodes of declared executables (and
//! of `#!` scripts named by a literal path) carry a fanotify open-for-exec permission mark: the kernel holds such an
//! exec until the mark's holder answers, and the holder answers when the hooks are attached.
//!
//! * Inputs: paths to mark; whether the hooks are attached; the kernel's permission events.
//! * Outputs: [`GateEvent`]s: an exec waits for the hooks; an exec had to go on without them; the gate died.
//! * Refuses: to hold an exec longer than [`ANSWER_WITHIN`], to deny one, to mark what is not a regular file or lies on
//!   a file system that another program or host serves, and to mark an interpreter for the sake of its script: which
//!   paths are targets is the caller's choice, and a script is a target only by its own path.
//!
//! Whoever holds the mark can hang every exec of a marked file on the host. Therefore the holder is a process of its
//! own (the same binary, `bailiwick gate`) that does nothing else: [`process_main`] is its whole life. It survives a
//! stopped daemon (it has a deadline of its own), ends with a killed one (its socket closes, its marks vanish with it,
//! held execs go on), and when it is itself stopped, frozen or stuck, a timer in the kernel kills it. `docs/gate.md`
//! goes through every order of deaths and stops.

mod backoff;
mod channel;
mod event;
mod handle;
mod held;
mod kernel;
mod outbox;
mod process;
mod target;
mod wire;

use std::time::Duration;

pub use backoff::Backoff;
pub use event::{GateCounts, GateEvent};
pub use handle::{Gate, GateError, GateOptions};
pub use process::process_main;
pub use target::{MAX_TARGETS, TargetState, Unmarked};
pub use wire::{Step, Why};

/// How long an exec is held at most while the daemon attaches.
///
/// Attaching takes 0.2 to 0.4 ms, and up to 25 ms right after a detach: four times that, and still below what a person
/// starting a program notices.
pub const ANSWER_WITHIN: Duration = Duration::from_millis(100);

/// How often a gate that watches something shows that it lives.
const BEAT_EVERY: Duration = Duration::from_millis(250);

/// A gate that has not shown that it lives for so long is killed by the kernel.
///
/// Three beats, so that a busy host does not kill a healthy gate; and still below the second within which an exec goes
/// on, whatever happens to the gate.
const KILLED_WHEN_STILL_FOR: Duration = Duration::from_millis(750);

/// A duration in nanoseconds, as the boot clock counts.
const fn as_ns(duration: Duration) -> u64 {
    // The module's durations are below a second, so nothing is cut.
    duration.as_nanos() as u64
}
