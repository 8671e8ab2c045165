//! System calls, seen at their exit.
//!
//! Hook: `tp_btf/sys_exit`, one for all: the number and the arguments still stand in the registers, the result is known,
//! and what was opened or connected is there to be asked. It taxes every call of every process on the host, so it is
//! attached only while a session lives. Sees 64-bit, 32-bit and x32 calls. Misses what leaves no system call: what io_uring
//! does.
//!
//! The hook itself only turns away: by the number, then by membership. What is left goes to the program that handles the
//! call ([`Route`]), each verified on its own; they share the hook's guard against recursion, and so its working memory.

use core::hint::black_box;
use core::ptr::addr_of_mut;

use aya_ebpf::Global;
use aya_ebpf::helpers::generated::bpf_probe_read_user;
use aya_ebpf::macros::btf_tracepoint;
use aya_ebpf::programs::BtfTracePointContext;

use agent_common::call::{
    ABSENT, CALLS, Call as SystemCall, NUMBERS, PathArgument, SOCKETCALLS, X32_BIT, X32_FIRST, places,
    socketcall_places,
};
use agent_common::maps::{LOSS_READ, Member};
use agent_common::record::KINDS;
use agent_common::{RecordHeader, RecordKind, StringTag};

use super::{act, file, network, process};
use crate::kernel::offsets::{
    FDTABLE_FD, FDTABLE_MAX_FDS, FILE_PATH_DENTRY, FILE_PATH_MNT, FILES_FDT, FS_PWD_DENTRY, FS_PWD_MNT, FS_ROOT_DENTRY,
    FS_ROOT_MNT, REGS_AX, REGS_BP, REGS_BX, REGS_CX, REGS_DI, REGS_DX, REGS_R8, REGS_R9, REGS_R10, REGS_SI, TASK_FILES,
    TASK_FS, VFSMOUNT_ROOT,
};
use crate::kernel::path::{Place, resolve};
use crate::kernel::task::{Who, current, is_compat};
use crate::kernel::{Unreadable, field, read, read_at};
use crate::maps::{HANDLERS, Scratch, ScratchOf};
use crate::member;
use crate::record::{Builder, count_lost, header};
use crate::verified::verified_once;

/// The working directory in the place of a descriptor.
pub const AT_FDCWD: u64 = -100i64 as u64;

/// A system call of a member, at its exit.
#[repr(C)]
pub struct Call {
    /// Who makes it.
    pub who: Who,
    /// Their membership.
    pub member: Member,
    /// Its place in the table of calls, from 1.
    pub place: u32,
    /// Whether what it points to is laid out as for 32 bits.
    pub narrow: bool,
    /// What its records carry beside its member's flags: `FLAG_IO_URING` or 0.
    pub flags: u16,
    /// Its arguments; the last two are no arguments.
    pub arguments: [u64; 8],
    /// What it returned: a negative errno on failure.
    pub result: i64,
}

impl Call {
    /// The call whose exit this is; `None` where nobody observes it, or the task is in no session.
    #[inline(always)]
    fn of(ctx: &BtfTracePointContext, scratch: *mut Scratch) -> Option<&'static Self> {
        let regs: *const core::ffi::c_void = ctx.arg(0);
        let task = current();
        let compat = is_compat(task);
        let number = number(regs)?;
        let mut place = place(number, compat);
        if place == 0 {
            return None;
        }
        let member = member::of(task)?;
        // SAFETY: `regs` is BTF-typed, and the offsets are those of its fields.
        let mut arguments = unsafe {
            if compat {
                [&REGS_BX, &REGS_CX, &REGS_DX, &REGS_SI, &REGS_DI, &REGS_BP, &REGS_BP, &REGS_BP]
                    .map(|register| u64::from(field::<u32, _>(regs, register)))
            } else {
                [&REGS_DI, &REGS_SI, &REGS_DX, &REGS_R10, &REGS_R8, &REGS_R9, &REGS_R9, &REGS_R9]
                    .map(|register| field::<u64, _>(regs, register))
            }
        };
        if place == SOCKETCALL {
            let [which, at, ..] = arguments;
            // What cannot be read stays what it was: nobody's to handle, and so counted as lost.
            if let Ok([a, b, c, d, e, f]) = socketcall_arguments(at) {
                place = socketcall(which);
                arguments = [a, b, c, d, e, f, 0, 0];
            }
        }
        let narrow = compat || number >= X32_FIRST;
        let call = Self { who: Who::of(task), member: *member, place, narrow, flags: 0, arguments, result: ctx.arg(1) };
        Some(call.put(scratch))
    }

    /// Puts it where it is handled: in a map's memory.
    #[inline(always)]
    pub fn put(self, scratch: *mut Scratch) -> &'static mut Self {
        // SAFETY: `scratch` is a map's value. Volatile, or the compiler would keep what it has written in registers, which the
        // verifier follows.
        unsafe {
            let place = addr_of_mut!((*scratch).call);
            place.write_volatile(self);
            &mut *place
        }
    }

    /// The call that is handled.
    #[inline(always)]
    pub fn at(scratch: *mut Scratch) -> &'static Self {
        // SAFETY: `scratch` is a map's value, in which the hook has put a call.
        unsafe { &(*scratch).call }
    }

    /// The argument in that place; 0 where there is none.
    #[inline(always)]
    pub fn argument(&self, place: u8) -> u64 {
        // SAFETY: there are eight.
        unsafe { *self.arguments.as_ptr().add((black_box(u64::from(place)) & 7) as usize) }
    }

    /// What the table says of it.
    #[inline(always)]
    pub fn shape(&self) -> Shape {
        // SAFETY: as many stand there as the mask lets through.
        unsafe { *SHAPES.as_ptr().add((black_box(u64::from(self.place)) & 0xff) as usize) }
    }

    /// The errno; 0 for a call that succeeded.
    #[inline(always)]
    pub fn errno(&self) -> u32 {
        errno_of(self.result)
    }

    /// The header of a record about this call.
    #[inline(always)]
    pub fn header(&self, kind: RecordKind) -> RecordHeader {
        self.header_of(kind.to_wire())
    }

    /// The header of a record of the kind with that number.
    #[inline(always)]
    pub fn header_of(&self, kind: u16) -> RecordHeader {
        header(
            kind,
            self.who,
            self.member.session,
            self.member.exec_number,
            member::record_flags(&self.member) | self.flags,
        )
    }

    /// The `struct file` behind one of the caller's descriptors.
    #[inline(always)]
    pub fn file(&self, fd: u64) -> Result<u64, Unreadable> {
        // SAFETY: the task is BTF-typed, and so is what its field holds.
        let table: u64 = unsafe {
            let files: *const core::ffi::c_void = field(current(), &TASK_FILES);
            field(files, &FILES_FDT)
        };
        let size: u32 = read(table, &FDTABLE_MAX_FDS)?;
        // The kernel takes a descriptor from the lower half of its register alone.
        let fd = fd & 0xffff_ffff;
        if fd >= u64::from(size) {
            return Err(Unreadable);
        }
        let array: u64 = read(table, &FDTABLE_FD)?;
        match read_at(array + fd * 8)? {
            0 => Err(Unreadable),
            file => Ok(file),
        }
    }

    /// Where a path that the caller gave starts from: the descriptor's or the working directory, and, if it is absolute, the
    /// caller's own root where that is none of a mount (a chroot), else nowhere.
    #[inline(always)]
    pub fn directory(&self, fd: u64, given_first: u8) -> Result<Option<Place>, Unreadable> {
        if given_first == b'/' {
            // SAFETY: the task is BTF-typed, and so is what its field holds.
            let root = unsafe {
                let fs: *const core::ffi::c_void = field(current(), &TASK_FS);
                Place { mnt: field(fs, &FS_ROOT_MNT), dentry: field(fs, &FS_ROOT_DENTRY) }
            };
            let of_mount: u64 = read(root.mnt, &VFSMOUNT_ROOT)?;
            return Ok((root.dentry != of_mount).then_some(root));
        }
        if fd as i32 != AT_FDCWD as i32 {
            let Ok(file) = self.file(fd) else { return Ok(None) };
            return Ok(Some(Place { mnt: read(file, &FILE_PATH_MNT)?, dentry: read(file, &FILE_PATH_DENTRY)? }));
        }
        // SAFETY: the task is BTF-typed, and so is what its field holds.
        Ok(Some(unsafe {
            let fs: *const core::ffi::c_void = field(current(), &TASK_FS);
            Place { mnt: field(fs, &FS_PWD_MNT), dentry: field(fs, &FS_PWD_DENTRY) }
        }))
    }
}

verified_once! {
    /// Adds to the record the directory that a path starts from, where it is not the root of all.
    pub fn add_directory as add_directory_of(call, scratch, fd: u64, given_first: u32) {
        if let Some(directory) = call.directory(fd, given_first as u8)? {
            let path = resolve(directory, scratch)?;
            Builder::of(scratch).path(StringTag::Directory, &path)?;
        }
        Ok(())
    }
}

/// The errno that a result means; 0 for one of success.
#[inline(always)]
pub fn errno_of(result: i64) -> u32 {
    const EINTR: u32 = 4;
    // ERESTARTSYS to ERESTART_RESTARTBLOCK: what the kernel calls a call that a signal interrupted.
    const RESTARTS: core::ops::RangeInclusive<i64> = -516..=-512;
    if result >= 0 {
        0
    } else if RESTARTS.contains(&result) {
        EINTR
    } else {
        -result as u32
    }
}

/// What the table says of a call, in numbers.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Shape {
    /// The kind of its record.
    pub kind: u16,
    /// Its route.
    pub route: u8,
    /// The argument that is a descriptor of the object.
    pub object: u8,
    /// The paths.
    pub paths: [PathArgument; 2],
    /// The argument that is some other string.
    pub text: u8,
    /// The argument that is the process it is done to.
    pub target: u8,
}

const SOCKETCALL: u32 = SystemCall::place_of("socketcall");

static WIDE: [u8; NUMBERS] = places(false);
static NARROW: [u8; NUMBERS] = places(true);
/// Not 0 for a number that means something observed, among the 64-bit calls or the 32-bit ones.
static EITHER: [u8; NUMBERS] = either();
static SOCKET_CALLS: [u8; SOCKETCALLS] = socketcall_places();
static SHAPES: [Shape; 256] = shapes();

const fn either() -> [u8; NUMBERS] {
    let (mut either, narrow) = (places(false), places(true));
    let mut number = 0;
    while number < NUMBERS {
        either[number] |= narrow[number];
        number += 1;
    }
    either
}

const fn shapes() -> [Shape; 256] {
    const NO_PATH: PathArgument = PathArgument { directory: ABSENT, name: ABSENT };
    let mut shapes =
        [Shape { kind: 0, route: 0, object: ABSENT, paths: [NO_PATH; 2], text: ABSENT, target: ABSENT }; 256];
    let mut at = 0;
    while at < CALLS.len() {
        let call = &CALLS[at];
        let kind = call.kind.to_wire();
        assert!((kind as u32) < KINDS);
        shapes[at + 1] = Shape {
            kind,
            route: call.route as u8,
            object: call.object,
            paths: call.paths,
            text: call.text,
            target: call.target,
        };
        at += 1;
    }
    shapes
}

/// The number of a call as our tables have it, if it means something observed: the first look, and for most calls the only one.
///
/// The kernel takes a number from the lower half of its register alone (`do_syscall_64`), whatever stands in the upper.
#[inline(always)]
fn number(regs: *const core::ffi::c_void) -> Option<usize> {
    // SAFETY: `regs` is BTF-typed, and the offset is that of its field.
    let whole = unsafe { field::<u64, _>(regs, &REGS_AX) } & 0xffff_ffff;
    let number = whole & !u64::from(X32_BIT);
    let end = if whole == number { X32_FIRST } else { NUMBERS };
    if number >= end as u64 {
        return None;
    }
    let number = (black_box(number) & (NUMBERS as u64 - 1)) as usize;
    // SAFETY: NUMBERS stand there.
    (unsafe { *EITHER.as_ptr().add(number) } != 0).then_some(number)
}

/// A call's place in the table; 0 for what nobody observes.
#[inline(always)]
fn place(number: usize, narrow: bool) -> u32 {
    let table = if narrow { NARROW.as_ptr() } else { WIDE.as_ptr() };
    // SAFETY: NUMBERS stand there, and `number` gives no more.
    u32::from(unsafe { *table.add(number) })
}

/// The place in the table of what `socketcall` is to do; 0 for what nobody observes.
#[inline(always)]
fn socketcall(which: u64) -> u32 {
    if which >= SOCKETCALLS as u64 {
        return 0;
    }
    // SAFETY: as many stand there as the mask lets through.
    u32::from(unsafe { *SOCKET_CALLS.as_ptr().add((black_box(which) & (SOCKETCALLS as u64 - 1)) as usize) })
}

/// The arguments of what `socketcall` does; those that the call does not have may not be there to be read.
#[inline(always)]
fn socketcall_arguments(address: u64) -> Result<[u64; 6], Unreadable> {
    let mut narrow = [0u32; 6];
    let at = addr_of_mut!(narrow);
    // SAFETY: bytes of our own; the longer read fails where memory ends, so the shorter comes first.
    let failed = unsafe {
        let failed = bpf_probe_read_user(at.cast(), 8, address as *const core::ffi::c_void);
        bpf_probe_read_user(at.cast(), 12, address as *const core::ffi::c_void);
        bpf_probe_read_user(at.cast(), 24, address as *const core::ffi::c_void);
        failed
    };
    let [a, b, c, d, e, f] = narrow;
    if failed != 0 {
        return Err(Unreadable);
    }
    Ok([u64::from(a), u64::from(b), u64::from(c), u64::from(d), u64::from(e), u64::from(f)])
}

/// Not 0: every system call of a member is counted by its number.
#[unsafe(no_mangle)]
static COUNT_CALLS: Global<u64> = Global::new(0);

/// Counts any system call of a member.
#[inline(always)]
fn count_any(ctx: &BtfTracePointContext) {
    let regs: *const core::ffi::c_void = ctx.arg(0);
    // SAFETY: `regs` is BTF-typed, and the offset is that of its field.
    let number: u64 = unsafe { field(regs, &REGS_AX) };
    let task = current();
    let Some(member) = member::of(task) else { return };
    let Some(scratch) = Scratch::of(ScratchOf::Call) else { return };
    let narrow = is_compat(task);
    let who = Who::of(task);
    let call = Call { who, member: *member, place: 0, narrow, flags: 0, arguments: [0; 8], result: 0 };
    file::count_call(call.put(scratch), number as u32, scratch);
}

/// The exit of any system call.
#[btf_tracepoint(function = "sys_exit")]
pub fn on_sys_exit(ctx: BtfTracePointContext) -> i32 {
    if COUNT_CALLS.load() != 0 {
        count_any(&ctx);
    }
    let Some(number) = number(ctx.arg(0)) else { return 0 };
    let task = current();
    let mut place = place(number, is_compat(task));
    if place == SOCKETCALL {
        let regs: *const core::ffi::c_void = ctx.arg(0);
        // SAFETY: `regs` is BTF-typed, and the offset is that of its field.
        place = socketcall(u64::from(unsafe { field::<u32, _>(regs, &REGS_BX) }));
    }
    if place == 0 {
        return 0;
    }
    let Some(member) = member::of(task) else { return 0 };
    // SAFETY: as many stand there as the mask lets through.
    let shape = unsafe { *SHAPES.as_ptr().add((black_box(u64::from(place)) & 0xff) as usize) };
    // SAFETY: the programs there were made for this hook.
    unsafe { HANDLERS.tail_call(&ctx, u32::from(shape.route)) };
    // Only a call that could not be handed over comes back.
    count_lost(member.session, shape.kind, LOSS_READ);
    0
}

#[inline(always)]
fn handle(ctx: &BtfTracePointContext, handler: impl FnOnce(&Call, *mut Scratch) -> Result<(), Unreadable>) -> i32 {
    const EFAULT: i64 = -14;
    let Some(scratch) = Scratch::of(ScratchOf::Call) else { return 0 };
    let Some(call) = Call::of(ctx, scratch) else { return 0 };
    if call.place == SOCKETCALL {
        // The kernel could not read its arguments either, or another thread has taken them away.
        if call.result != EFAULT {
            count_lost(call.member.session, call.shape().kind, LOSS_READ);
        }
    } else if handler(call, scratch).is_err() {
        count_lost(call.member.session, call.shape().kind, LOSS_READ);
    }
    0
}

/// Declares the programs that handle system calls.
macro_rules! handlers {
    ($($(#[$meta:meta])* $name:ident: $handler:path;)*) => {
        $($(#[$meta])* #[btf_tracepoint(function = "sys_exit")]
        pub fn $name(ctx: BtfTracePointContext) -> i32 {
            handle(&ctx, $handler)
        })*
    };
}

handlers! {
    /// `Route::Open`.
    handle_open: file::open_call;
    /// `Route::ExecFailed`.
    handle_exec_failed: process::exec_call;
    /// `Route::Socket`.
    handle_socket: network::socket_family_call;
    /// `Route::Act`.
    handle_act: act::act;
    /// `Route::Map`.
    handle_map: file::map_call;
    /// `Route::Transfer`.
    handle_transfer: file::transfer_call;
    /// `Route::SendMessage`.
    handle_send_message: network::send_message_call;
    /// `Route::ReceiveMessage`.
    handle_receive_message: network::receive_message_call;
    /// `Route::ReceiveMessages`.
    handle_receive_messages: network::receive_messages_call;
}
