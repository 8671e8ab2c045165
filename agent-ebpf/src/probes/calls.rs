//! System calls, seen at their exit.
//!
//! Hook: `tp_btf/sys_exit`, one for all: the number and the arguments still stand in the registers, the result is known,
//! and what was opened or connected is there to be asked. It taxes every call of every process on the host, so it is
//! attached only while a session lives. Sees 64-bit and 32-bit calls. Misses what leaves no system call: io_uring.

use aya_ebpf::bindings::task_struct;
use aya_ebpf::helpers::bpf_get_current_task_btf;
use aya_ebpf::macros::btf_tracepoint;
use aya_ebpf::programs::BtfTracePointContext;

use agent_common::maps::{LOSS_READ, Member};
use agent_common::{RecordHeader, RecordKind};

use super::{file, network, process};
use crate::kernel::offsets::{
    FDTABLE_FD, FDTABLE_MAX_FDS, FILE_PATH_DENTRY, FILE_PATH_MNT, FILES_FDT, FS_PWD_DENTRY, FS_PWD_MNT, REGS_AX,
    REGS_BX, REGS_CX, REGS_DI, REGS_DX, REGS_R10, REGS_SI, TASK_FILES, TASK_FS,
};
use crate::kernel::path::Place;
use crate::kernel::task::{Who, is_compat};
use crate::kernel::{Unreadable, field, read, read_at};
use crate::maps::{SCRATCH_CALL, Scratch};
use crate::member;
use crate::record::{count_lost, header};

/// A system call of a member, at its exit.
pub struct Call {
    /// The calling task.
    pub task: *mut task_struct,
    /// Its membership.
    pub member: Member,
    /// Its arguments.
    pub arguments: [u64; 4],
    /// What it returned: a negative errno on failure.
    pub result: i64,
}

impl Call {
    /// The errno; 0 for a call that succeeded.
    #[inline(always)]
    pub fn errno(&self) -> u32 {
        const EINTR: u32 = 4;
        // ERESTARTSYS to ERESTART_RESTARTBLOCK: what the kernel calls a call that a signal interrupted.
        const RESTARTS: core::ops::RangeInclusive<i64> = -516..=-512;
        if self.result >= 0 {
            0
        } else if RESTARTS.contains(&self.result) {
            EINTR
        } else {
            -self.result as u32
        }
    }

    /// The header of a record about this call.
    #[inline(always)]
    pub fn header(&self, kind: RecordKind) -> RecordHeader {
        header(
            kind,
            Who::of(self.task),
            self.member.session,
            self.member.exec_number,
            member::record_flags(&self.member),
        )
    }

    /// The `struct file` behind one of the caller's descriptors.
    #[inline(always)]
    pub fn file(&self, fd: u64) -> Result<u64, Unreadable> {
        // SAFETY: the task is BTF-typed, and so is what its field holds.
        let table: u64 = unsafe {
            let files: *const core::ffi::c_void = field(self.task, &TASK_FILES);
            field(files, &FILES_FDT)
        };
        let size: u32 = read(table, &FDTABLE_MAX_FDS)?;
        if fd >= u64::from(size) {
            return Err(Unreadable);
        }
        let array: u64 = read(table, &FDTABLE_FD)?;
        match read_at(array + fd * 8)? {
            0 => Err(Unreadable),
            file => Ok(file),
        }
    }

    /// Where a path that the caller gave starts from: nowhere if it is absolute, else the descriptor's or the working
    /// directory.
    #[inline(always)]
    pub fn directory(&self, fd: u64, given_first: u8) -> Result<Option<Place>, Unreadable> {
        const AT_FDCWD: i32 = -100;
        if given_first == b'/' {
            return Ok(None);
        }
        if fd as i32 != AT_FDCWD {
            let Ok(file) = self.file(fd) else { return Ok(None) };
            return Ok(Some(Place { mnt: read(file, &FILE_PATH_MNT)?, dentry: read(file, &FILE_PATH_DENTRY)? }));
        }
        // SAFETY: the task is BTF-typed, and so is what its field holds.
        Ok(Some(unsafe {
            let fs: *const core::ffi::c_void = field(self.task, &TASK_FS);
            Place { mnt: field(fs, &FS_PWD_MNT), dentry: field(fs, &FS_PWD_DENTRY) }
        }))
    }
}

/// What a number means. Numbers differ between 64-bit and 32-bit calls; meanings do not.
#[derive(Clone, Copy, PartialEq)]
enum Meaning {
    Open,
    OpenAt,
    OpenAt2,
    Creat,
    OpenByHandle,
    Connect,
    SocketCall,
    Execve,
    ExecveAt,
}

#[inline(always)]
fn meaning_64(number: u64) -> Option<Meaning> {
    match number {
        2 => Some(Meaning::Open),
        42 => Some(Meaning::Connect),
        59 => Some(Meaning::Execve),
        85 => Some(Meaning::Creat),
        257 => Some(Meaning::OpenAt),
        304 => Some(Meaning::OpenByHandle),
        322 => Some(Meaning::ExecveAt),
        437 => Some(Meaning::OpenAt2),
        _ => None,
    }
}

#[inline(always)]
fn meaning_32(number: u64) -> Option<Meaning> {
    match number {
        5 => Some(Meaning::Open),
        8 => Some(Meaning::Creat),
        11 => Some(Meaning::Execve),
        102 => Some(Meaning::SocketCall),
        295 => Some(Meaning::OpenAt),
        342 => Some(Meaning::OpenByHandle),
        358 => Some(Meaning::ExecveAt),
        362 => Some(Meaning::Connect),
        437 => Some(Meaning::OpenAt2),
        _ => None,
    }
}

/// The exit of any system call: turned away by its number before anything is looked up, then by membership.
#[btf_tracepoint(function = "sys_exit")]
pub fn on_sys_exit(ctx: BtfTracePointContext) -> i32 {
    let regs: *const core::ffi::c_void = ctx.arg(0);
    // SAFETY: `regs` is BTF-typed, and the offset is that of its field.
    let number: u64 = unsafe { field(regs, &REGS_AX) };
    let (wide, narrow) = (meaning_64(number), meaning_32(number));
    if wide.is_none() && narrow.is_none() {
        return 0;
    }
    // SAFETY: the helper takes nothing.
    let task: *mut task_struct = unsafe { bpf_get_current_task_btf() }.cast();
    let compat = is_compat(task);
    let Some(meaning) = (if compat { narrow } else { wide }) else { return 0 };
    let Some(member) = member::of(task) else { return 0 };
    // SAFETY: as above.
    let arguments: [u64; 4] = unsafe {
        if compat {
            let (a, b, c, d): (u32, u32, u32, u32) =
                (field(regs, &REGS_BX), field(regs, &REGS_CX), field(regs, &REGS_DX), field(regs, &REGS_SI));
            [u64::from(a), u64::from(b), u64::from(c), u64::from(d)]
        } else {
            [field(regs, &REGS_DI), field(regs, &REGS_SI), field(regs, &REGS_DX), field(regs, &REGS_R10)]
        }
    };
    let call = Call { task, member: *member, arguments, result: ctx.arg(1) };
    let Some(scratch) = SCRATCH_CALL.get_ptr_mut(0) else { return 0 };
    let kind = match meaning {
        Meaning::Connect | Meaning::SocketCall => RecordKind::Connect,
        Meaning::Execve | Meaning::ExecveAt => RecordKind::ExecFailed,
        Meaning::Open | Meaning::OpenAt | Meaning::OpenAt2 | Meaning::Creat | Meaning::OpenByHandle => RecordKind::Open,
    };
    if report(&call, meaning, scratch).is_err() {
        count_lost(call.member.session, kind.to_wire(), LOSS_READ);
    }
    0
}

#[inline(always)]
fn report(call: &Call, meaning: Meaning, scratch: *mut Scratch) -> Result<(), Unreadable> {
    const AT_FDCWD: u64 = -100i64 as u64;
    const O_CREAT_WRONLY: u64 = 0o101;
    let [first, second, third, _] = call.arguments;
    match meaning {
        Meaning::Open => file::opened(call, scratch, AT_FDCWD, first, second),
        Meaning::Creat => file::opened(call, scratch, AT_FDCWD, first, O_CREAT_WRONLY),
        Meaning::OpenAt => file::opened(call, scratch, first, second, third),
        Meaning::OpenAt2 => {
            let flags = if call.result < 0 { file::open_how(third) } else { 0 };
            file::opened(call, scratch, first, second, flags)
        }
        Meaning::OpenByHandle => file::opened(call, scratch, first, 0, third),
        Meaning::Connect => network::connected(call, first, second),
        Meaning::SocketCall => network::socket_call(call, first, second),
        Meaning::Execve if call.result < 0 => process::exec_failed(call, scratch, AT_FDCWD, first),
        Meaning::ExecveAt if call.result < 0 => process::exec_failed(call, scratch, first, second),
        Meaning::Execve | Meaning::ExecveAt => Ok(()),
    }
}
