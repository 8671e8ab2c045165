//! The sensor: the eBPF side of Bailiwick, tier 2 (BTF-typed raw tracepoints alone).
//!
//! Membership in a session is kept with each task and inherited at fork, so it cannot be outrun. A task that belongs to
//! no session is turned away by the first look-up. What the sensor can't hand over it counts, by kind and session.
//!
//! - `maps`: everything that outlives a call, and what the daemon reads and writes.
//! - `kernel`: reading kernel structures, at offsets that the daemon took from the running kernel's BTF.
//! - `record`: putting records together and handing them over.
//! - `member`: who is in a session.
//! - `probes`: one file a family of observations.
//! - `iterators`: what already runs.
//! - `verified`: functions that are verified once.
#![no_std]
#![no_main]
#![feature(core_intrinsics)]
#![allow(
    clippy::needless_borrows_for_generic_args,
    reason = "a key that is passed by value is copied to the stack, which has 512 bytes"
)]
#![allow(internal_features, reason = "fetch atomics have no stable form on this target")]

mod iterators;
mod kernel;
mod maps;
mod member;
mod probes;
mod record;
mod verified;

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    // The verifier admits no program that could reach this.
    loop {}
}

#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
