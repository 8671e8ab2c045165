//! Who a task is.

use aya_ebpf::bindings::task_struct;
use aya_ebpf::helpers::bpf_get_current_task_btf;

use super::field;
use super::offsets::{TASK_GROUP_LEADER, TASK_PID, TASK_REAL_PARENT, TASK_START_BOOTTIME, TASK_STATUS, TASK_TGID};

/// A process and a thread of it, with ids as the host sees them.
#[derive(Clone, Copy)]
pub struct Who {
    /// The process.
    pub tgid: u32,
    /// The thread.
    pub tid: u32,
    /// When the process started, in nanoseconds after boot.
    pub start_boot_ns: u64,
}

impl Who {
    /// Of a task.
    #[inline(always)]
    pub fn of(task: *mut task_struct) -> Self {
        // SAFETY: `task` is a BTF-typed pointer, and the offsets are those of its fields; so is its group leader.
        unsafe {
            let leader: *mut task_struct = field(task, &TASK_GROUP_LEADER);
            let start_boot_ns = field(leader, &TASK_START_BOOTTIME);
            Self { tgid: field(task, &TASK_TGID), tid: field(task, &TASK_PID), start_boot_ns }
        }
    }
}

/// The task that runs.
#[inline(always)]
pub fn current() -> *mut task_struct {
    // SAFETY: the helper takes nothing.
    unsafe { bpf_get_current_task_btf() }.cast()
}

/// The parent of a task: the thread that made it, or who took its place.
#[inline(always)]
pub fn parent(task: *mut task_struct) -> *mut task_struct {
    // SAFETY: as in `Who::of`.
    unsafe { field(task, &TASK_REAL_PARENT) }
}

/// Whether the task is inside a 32-bit system call.
#[inline(always)]
pub fn is_compat(task: *mut task_struct) -> bool {
    const TS_COMPAT: u32 = 2;
    // SAFETY: as in `Who::of`.
    let status: u32 = unsafe { field(task, &TASK_STATUS) };
    status & TS_COMPAT != 0
}
