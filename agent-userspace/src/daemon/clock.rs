//! The kernel's clock and the wall's.

use rustix::time::{ClockId, clock_gettime};

use crate::entry::Timestamp;

/// Nanoseconds after boot, suspended time included: the clock that records are stamped with.
pub(super) fn boot_ns() -> u64 {
    nanoseconds(ClockId::Boottime)
}

fn nanoseconds(clock: ClockId) -> u64 {
    let time = clock_gettime(clock);
    // Neither clock is before its beginning.
    time.tv_sec.cast_unsigned() * 1_000_000_000 + time.tv_nsec.cast_unsigned()
}

/// What has to be added to a boot time to have the wall's: taken afresh for each batch, since the wall clock is set.
#[derive(Clone, Copy, Debug)]
pub(super) struct Clock {
    wall_minus_boot_ns: u64,
}

impl Clock {
    /// As it is now.
    pub(super) fn now() -> Self {
        Self { wall_minus_boot_ns: nanoseconds(ClockId::Realtime).wrapping_sub(boot_ns()) }
    }

    /// The wall's time of a boot time.
    pub(super) fn wall(self, boot_ns: u64) -> Timestamp {
        Timestamp(self.wall_minus_boot_ns.wrapping_add(boot_ns))
    }
}
