//! io_uring: every operation, and what it does.
//!
//! Hooks: `tp_btf/io_uring_submit_req`, when an operation has been taken in and nothing of it has been done, and
//! `tp_btf/io_uring_complete`, when its result is known. What makes a descriptor, or has one, is resolved at completion,
//! from the kernel's own objects. What is done by a path is told of when it is submitted: the path stands in the kernel's
//! own copy by then, which no thread can change, and is gone at completion. An operation that asks for no completion where
//! it succeeds is told of when it is submitted, and once more if it fails; what it does beyond names is a gap, for nothing
//! tells of its end. So is one whose completion found no room (`tp_btf/io_uring_cqe_overflow`). Worker and poll threads raise no fork event and
//! carry no membership: theirs is their process's. The address that something is sent to is the kernel's copy of it, kept
//! from the submission to the completion. Misses opens into the table of fixed files, which make no descriptor, and
//! whether what was done by a path succeeded: that stands with the operation.

use core::ffi::c_void;

use agent_common::call::Act;
use agent_common::file::{ACCESS_READ, ACCESS_WRITE, Open};
use agent_common::maps::{LOSS_READ, LOSS_UNTOLD};
use agent_common::record::FLAG_IO_URING;
use agent_common::{RecordKind, StringTag};
use aya_ebpf::bindings::task_struct;
use aya_ebpf::helpers::bpf_get_current_task_btf;
use aya_ebpf::macros::btf_tracepoint;
use aya_ebpf::programs::BtfTracePointContext;

use super::act::begin_act;
use super::calls::Call;
use super::file::{OpenFile, announce, begin_key, count, tell_open, transferred};
use super::network::{Address, connected, send, sent_to, sock_of, tell_socket};
use crate::kernel::hash::Hash;
use crate::kernel::offsets::{
    CQE_RES, FILENAME_NAME, IO_ASYNC_DATA, IO_ASYNC_MSG, IO_CMD, IO_CONNECT_ADDR, IO_FILE, IO_FLAGS, IO_LINK_NEW,
    IO_LINK_NEW_DFD, IO_LINK_OLD, IO_LINK_OLD_DFD, IO_MKDIR_DFD, IO_MKDIR_NAME, IO_MSG, IO_OPCODE, IO_RENAME_NEW,
    IO_RENAME_NEW_DFD, IO_RENAME_OLD, IO_RENAME_OLD_DFD, IO_UNLINK_DFD, IO_UNLINK_FLAGS, IO_UNLINK_NAME, MSGHDR_NAME,
    MSGHDR_NAMELEN, TASK_GROUP_LEADER,
};
use crate::kernel::path::resolve;
use crate::kernel::{Unreadable, field, read};
use crate::maps::{SCRATCH_URING, Scratch, URING_SENDS};
use crate::member;
use crate::record::{Builder, Urgency, count_lost};

// The numbers of operations: `enum io_uring_op`.
const READV: u8 = 1;
const WRITEV: u8 = 2;
const READ_FIXED: u8 = 4;
const WRITE_FIXED: u8 = 5;
const SENDMSG: u8 = 9;
const ACCEPT: u8 = 13;
const CONNECT: u8 = 16;
const OPENAT: u8 = 18;
const READ: u8 = 22;
const WRITE: u8 = 23;
const SEND: u8 = 26;
const OPENAT2: u8 = 28;
const RENAMEAT: u8 = 35;
const UNLINKAT: u8 = 36;
const MKDIRAT: u8 = 37;
const SYMLINKAT: u8 = 38;
const LINKAT: u8 = 39;
const SEND_ZC: u8 = 47;
const SENDMSG_ZC: u8 = 48;
const BIND: u8 = 56;
const LISTEN: u8 = 57;

/// The operation as a call of the process that submitted it; `None` where that is in no session.
#[inline(always)]
fn call(result: i64) -> Option<Call> {
    // SAFETY: the helper takes nothing; a group leader is BTF-typed.
    let (task, leader): (*mut task_struct, *mut task_struct) = unsafe {
        let task: *mut task_struct = bpf_get_current_task_btf().cast();
        (task, field(task, &TASK_GROUP_LEADER))
    };
    let member = match member::of(task) {
        Some(member) => *member,
        None => *member::of(leader)?,
    };
    Some(Call { task, member, place: 0, narrow: false, flags: FLAG_IO_URING, arguments: [0; 8], result })
}

/// An operation was taken in.
#[btf_tracepoint(function = "io_uring_submit_req")]
pub fn on_uring_submit(ctx: BtfTracePointContext) -> i32 {
    let request: u64 = ctx.arg(0);
    let Some(call) = call(0) else { return 0 };
    let Some(scratch) = SCRATCH_URING.get_ptr_mut(0) else { return 0 };
    let Ok(opcode) = read::<u8>(request, &IO_OPCODE) else { return 0 };
    if is_send(opcode) {
        remember_address(request);
    }
    if is_silent(request) {
        silent(&call, scratch, request, opcode);
    }
    let command = request + IO_CMD.load();
    let kind = match opcode {
        UNLINKAT if removes_directory(command) => RecordKind::Rmdir,
        UNLINKAT => RecordKind::Unlink,
        RENAMEAT => RecordKind::Rename,
        LINKAT => RecordKind::Link,
        SYMLINKAT => RecordKind::Symlink,
        MKDIRAT => RecordKind::Mkdir,
        _ => return 0,
    };
    if names(&call, scratch, kind, command).is_err() {
        count_lost(call.member.session, kind.to_wire(), LOSS_READ);
    }
    0
}

/// Whether no completion comes where it succeeds.
#[inline(always)]
fn is_silent(request: u64) -> bool {
    const REQ_F_CQE_SKIP: u32 = 1 << 6;
    // Wider in later kernels: the lower half is at the same place.
    read::<u32>(request, &IO_FLAGS).is_ok_and(|flags| flags & REQ_F_CQE_SKIP != 0)
}

#[inline(always)]
fn is_send(opcode: u8) -> bool {
    matches!(opcode, SEND | SENDMSG | SEND_ZC | SENDMSG_ZC)
}

/// Keeps the address that an operation sends to, where it has one: the kernel's own copy, before anything is sent.
#[inline(always)]
fn remember_address(request: u64) {
    let address = || {
        let data: u64 = read(request, &IO_ASYNC_DATA)?;
        if data == 0 {
            return Err(Unreadable);
        }
        let message = data + IO_ASYNC_MSG.load();
        let (name, len): (u64, u32) = (read(message, &MSGHDR_NAME)?, read(message, &MSGHDR_NAMELEN)?);
        if name == 0 || len == 0 { Err(Unreadable) } else { Address::of_kernel(name) }
    };
    match address() {
        Ok(address) => {
            let _ = URING_SENDS.insert(&request, &address, 0);
        }
        // A request's place is used again and again.
        Err(Unreadable) => {
            let _ = URING_SENDS.remove(&request);
        }
    }
}

/// What an operation sent, if to an address of its own. Earlier kernels copy a message's only when it is sent.
#[inline(always)]
fn sent_from_ring(call: &Call, scratch: *mut Scratch, request: u64, opcode: u8) -> Result<(), Unreadable> {
    // SAFETY: the value is copied at once.
    let Some(address) = (unsafe { URING_SENDS.get(&request) }).copied() else {
        if opcode != SENDMSG && opcode != SENDMSG_ZC {
            return Ok(());
        }
        return send(call, scratch, read(request, &IO_FILE)?, read(request + IO_CMD.load(), &IO_MSG)?, 0);
    };
    let _ = URING_SENDS.remove(&request);
    let Some(sock) = sock_of(read(request, &IO_FILE)?)? else { return Ok(()) };
    sent_to(call, scratch, sock, address)
}

/// Tells of an operation whose completion will not be seen, and counts what it does as lost.
#[inline(always)]
fn silent(call: &Call, scratch: *mut Scratch, request: u64, opcode: u8) {
    if submitted(call, scratch, request, opcode).is_err() {
        count_lost(call.member.session, RecordKind::IoUringSubmit.to_wire(), LOSS_READ);
    }
    let kind = match opcode {
        OPENAT | OPENAT2 => RecordKind::Open,
        ACCEPT => RecordKind::Accept,
        CONNECT => RecordKind::Connect,
        SEND | SENDMSG | SEND_ZC | SENDMSG_ZC => RecordKind::Send,
        READV | READ_FIXED | READ | WRITEV | WRITE_FIXED | WRITE => RecordKind::Io,
        BIND => RecordKind::Bind,
        LISTEN => RecordKind::Listen,
        _ => return,
    };
    count_lost(call.member.session, kind.to_wire(), LOSS_UNTOLD);
}

/// A completion found no room: of what it ended nothing is known but that it did.
#[btf_tracepoint(function = "io_uring_cqe_overflow")]
pub fn on_uring_overflow(_ctx: BtfTracePointContext) -> i32 {
    if let Some(call) = call(0) {
        count_lost(call.member.session, RecordKind::IoUringSubmit.to_wire(), LOSS_UNTOLD);
    }
    0
}

#[inline(always)]
fn removes_directory(command: u64) -> bool {
    const AT_REMOVEDIR: u32 = 0x200;
    read::<u32>(command, &IO_UNLINK_FLAGS).is_ok_and(|flags| flags & AT_REMOVEDIR != 0)
}

/// What is done by a path, or by two.
#[inline(always)]
fn names(call: &Call, scratch: *mut Scratch, kind: RecordKind, command: u64) -> Result<(), Unreadable> {
    let (mut record, _body): (Builder, &mut Act) = begin_act(call, kind.to_wire(), scratch);
    let (first, second) = match kind {
        RecordKind::Rename => (
            (read::<u32>(command, &IO_RENAME_OLD_DFD)?, read(command, &IO_RENAME_OLD)?),
            (read::<u32>(command, &IO_RENAME_NEW_DFD)?, read(command, &IO_RENAME_NEW)?),
        ),
        RecordKind::Link => (
            (read::<u32>(command, &IO_LINK_OLD_DFD)?, read(command, &IO_LINK_OLD)?),
            (read::<u32>(command, &IO_LINK_NEW_DFD)?, read(command, &IO_LINK_NEW)?),
        ),
        RecordKind::Symlink => ((read::<u32>(command, &IO_LINK_NEW_DFD)?, read(command, &IO_LINK_NEW)?), (0, 0)),
        RecordKind::Mkdir => ((read::<u32>(command, &IO_MKDIR_DFD)?, read(command, &IO_MKDIR_NAME)?), (0, 0)),
        _ => ((read::<u32>(command, &IO_UNLINK_DFD)?, read(command, &IO_UNLINK_NAME)?), (0, 0)),
    };
    add_name(&mut record, call, scratch, first)?;
    add_name(&mut record, call, scratch, second)?;
    if kind == RecordKind::Symlink {
        let target: u64 = read(command, &IO_LINK_OLD)?;
        record.kernel_string(StringTag::Text, read(target, &FILENAME_NAME)?)?;
    }
    record.emit(Urgency::Weighty);
    Ok(())
}

/// Adds a path that stands in a `struct filename`; nothing where there is none.
#[inline(always)]
fn add_name(
    record: &mut Builder,
    call: &Call,
    scratch: *mut Scratch,
    (directory, filename): (u32, u64),
) -> Result<(), Unreadable> {
    if filename == 0 {
        return Ok(());
    }
    let given = record.kernel_string(StringTag::Given, read(filename, &FILENAME_NAME)?)?;
    call.add_directory(record, scratch, u64::from(directory), given.first)
}

/// An operation was completed.
#[btf_tracepoint(function = "io_uring_complete")]
pub fn on_uring_complete(ctx: BtfTracePointContext) -> i32 {
    let (request, cqe): (u64, *const c_void) = (ctx.arg(1), ctx.arg(2));
    if request == 0 {
        // The end of one that was told of already.
        return 0;
    }
    // SAFETY: the completion is BTF-typed, and the offset is that of its field.
    let result = i64::from(unsafe { field::<i32, _>(cqe, &CQE_RES) });
    let Some(call) = call(result) else { return 0 };
    let Some(scratch) = SCRATCH_URING.get_ptr_mut(0) else { return 0 };
    let Ok(opcode) = read::<u8>(request, &IO_OPCODE) else { return 0 };
    if submitted(&call, scratch, request, opcode).is_err() {
        count_lost(call.member.session, RecordKind::IoUringSubmit.to_wire(), LOSS_READ);
    }
    if done(&call, scratch, request, opcode).is_err() {
        let kind = if matches!(opcode, OPENAT | OPENAT2) { RecordKind::Open } else { RecordKind::Connect };
        count_lost(call.member.session, kind.to_wire(), LOSS_READ);
    }
    0
}

/// The same as by a system call.
#[inline(always)]
fn done(call: &Call, scratch: *mut Scratch, request: u64, opcode: u8) -> Result<(), Unreadable> {
    let command = request + IO_CMD.load();
    match opcode {
        OPENAT | OPENAT2 if call.result >= 0 => tell_open(call, call.result as u64, scratch),
        ACCEPT if call.result >= 0 => match call.file(call.result as u64) {
            Ok(file) => tell_socket(call, scratch, RecordKind::Accept, file),
            Err(Unreadable) => Ok(()),
        },
        CONNECT => connected(call, scratch, read(request, &IO_FILE)?, read(command, &IO_CONNECT_ADDR)?, 0),
        opcode if is_send(opcode) => sent_from_ring(call, scratch, request, opcode),
        READV | READ_FIXED | READ if call.result > 0 => {
            transferred(call, read(request, &IO_FILE)?, ACCESS_READ, scratch)
        }
        WRITEV | WRITE_FIXED | WRITE if call.result > 0 => {
            transferred(call, read(request, &IO_FILE)?, ACCESS_WRITE, scratch)
        }
        BIND => tell_socket(call, scratch, RecordKind::Bind, read(request, &IO_FILE)?),
        LISTEN => tell_socket(call, scratch, RecordKind::Listen, read(request, &IO_FILE)?),
        _ => Ok(()),
    }
}

/// The operation itself: repeats are counted by operation, file and errno.
#[inline(always)]
fn submitted(call: &Call, scratch: *mut Scratch, request: u64, opcode: u8) -> Result<(), Unreadable> {
    let (mut record, open): (Builder, &mut Open) = Builder::begin(scratch, call.header(RecordKind::IoUringSubmit));
    begin_key(call, RecordKind::IoUringSubmit, open);
    let file: u64 = if matches!(opcode, OPENAT | OPENAT2) { 0 } else { read(request, &IO_FILE)? };
    let mut hash = Hash::new();
    hash.word(u64::from(opcode));
    open.key.inode = 0;
    open.key.device = 0;
    open.key.flags = 0;
    open.key.access = u32::from(opcode);
    open.key.errno = call.errno();
    if file == 0 {
        open.key.path_hash = hash.finish();
        if let Some(fold) = count(open) {
            announce(&mut record, fold, open);
        }
        return Ok(());
    }
    let found = OpenFile::read(file)?;
    let path = resolve(found.place, scratch)?;
    hash.word(path.hash);
    open.key.path_hash = hash.finish();
    open.key.inode = found.inode;
    open.key.device = found.device;
    open.key.flags = found.flags;
    if let Some(fold) = count(open) {
        record.path(StringTag::Path, &path)?;
        announce(&mut record, fold, open);
    }
    Ok(())
}
