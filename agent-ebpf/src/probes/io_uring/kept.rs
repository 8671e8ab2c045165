//! Records that are kept from the submission of an operation to its completion: what was asked for stands in the kernel's own
//! copy at the first alone, the result is known at the second.

use aya_ebpf::helpers::bpf_ktime_get_boot_ns;

use crate::kernel::offsets::IO_USER_DATA;
use crate::kernel::read;
use crate::maps::{Scratch, URING_KEPT, URING_KEPT_LONG, URING_TOLD};
use crate::record::Builder;

/// Keeps a record for a request; whether there was room.
#[inline(always)]
pub(super) fn keep(record: &mut Builder, request: u64) -> bool {
    forget(request);
    record.header().reserved_wide = mark(request);
    let kept = match record.whole() {
        Some(short) => URING_KEPT.insert(&request, short, 0).is_ok(),
        None => match record.whole() {
            Some(long) => URING_KEPT_LONG.insert(&request, long, 0).is_ok(),
            None => false,
        },
    };
    if !kept {
        record.header().reserved_wide = 0;
    }
    kept
}

/// The record that was kept for a request, as of now.
#[inline(always)]
pub(super) fn take(scratch: *mut Scratch, request: u64) -> Option<Builder> {
    // SAFETY: the values are copied at once, and nobody else has this request.
    let record = unsafe {
        match URING_KEPT.get(&request) {
            Some(short) => Builder::restore(scratch, short),
            None => Builder::restore(scratch, URING_KEPT_LONG.get(&request)?),
        }
    };
    forget(request);
    let mut record = record.ok()?;
    let header = record.header();
    let is_its_own = header.reserved_wide == mark(request);
    header.reserved_wide = 0;
    // SAFETY: the helper takes nothing.
    header.time_boot_ns = unsafe { bpf_ktime_get_boot_ns() };
    is_its_own.then_some(record)
}

#[inline(always)]
fn forget(request: u64) {
    let _ = URING_KEPT.remove(&request);
    let _ = URING_KEPT_LONG.remove(&request);
}

/// Remembers that a request was told of when it was submitted.
#[inline(always)]
pub(super) fn remember_told(request: u64) {
    let _ = URING_TOLD.insert(&request, &mark(request), 0);
}

/// Whether a request was told of when it was submitted.
#[inline(always)]
pub(super) fn was_told(request: u64) -> bool {
    // SAFETY: the value is copied at once.
    let remembered = unsafe { URING_TOLD.get(&request) }.copied();
    if remembered.is_some() {
        let _ = URING_TOLD.remove(&request);
    }
    remembered == Some(mark(request))
}

/// What tells a request from one that had its place before.
#[inline(always)]
pub(super) fn mark(request: u64) -> u64 {
    read(request, &IO_USER_DATA).unwrap_or(0)
}
