//! io_uring: every operation, and what it does.
//!
//! Hooks: `tp_btf/io_uring_submit_req`, when an operation has been taken in and nothing of it has been done, and
//! `tp_btf/io_uring_complete`, when its result is known. What makes a file, or has one, is resolved at completion, from the
//! kernel's own objects, be it a descriptor or in the ring's table of fixed files. What is given in words is kept from the
//! submission on: it stands in the kernel's own copy by then, which no thread can change, and is gone at completion. An
//! operation that asks for no completion where it succeeds is told of when it is submitted, and once more if it fails; what
//! it does beyond names is a gap, for nothing tells of its end. So is one whose completion found no room
//! (`tp_btf/io_uring_cqe_overflow`). Worker and poll threads raise no fork event and carry no membership: theirs is their
//! process's. Misses what is refused when it is taken in, of which there is the operation alone.
//!
//! - `kept`: records between submission and completion.
//! - `names`: what is done by a path.

mod kept;
mod names;

use core::ffi::c_void;

use agent_common::RecordKind;
use agent_common::StringTag;
use agent_common::call::Call as SystemCall;
use agent_common::file::{ACCESS_READ, ACCESS_WRITE, Open};
use agent_common::maps::{LOSS_READ, LOSS_UNTOLD};
use agent_common::record::FLAG_IO_URING;
use aya_ebpf::bindings::task_struct;
use aya_ebpf::helpers::bpf_get_current_task_btf;
use aya_ebpf::macros::btf_tracepoint;
use aya_ebpf::programs::BtfTracePointContext;

use super::act::{add_object, begin_act};
use super::calls::Call;
use super::file::{OpenFile, announce, begin_key, count, tell_open, transferred};
use super::network::{Address, connected, made, send, sent_to, sock_of, tell_socket};
use crate::kernel::hash::Hash;
use crate::kernel::offsets::{
    CQE_RES, IO_ACCEPT_SLOT, IO_ASYNC_DATA, IO_ASYNC_MSG, IO_CMD, IO_CONNECT_ADDR, IO_CONTEXT, IO_FILE, IO_FIXED_FILES,
    IO_FLAGS, IO_FTRUNCATE_LEN, IO_MSG, IO_NODE_FILE, IO_OPCODE, IO_OPEN_SLOT, IO_SOCKET_DOMAIN, IO_SOCKET_PROTOCOL,
    IO_SOCKET_TYPE, IO_SPLICE_FLAGS, IO_SPLICE_IN, IO_SYNC_LEN, IO_SYNC_MODE, IO_SYNC_OFF, MSGHDR_NAME, MSGHDR_NAMELEN,
    TASK_GROUP_LEADER,
};
use crate::kernel::path::resolve;
use crate::kernel::{Unreadable, field, read, read_at};
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
const FALLOCATE: u8 = 17;
const OPENAT: u8 = 18;
const READ: u8 = 22;
const WRITE: u8 = 23;
const SEND: u8 = 26;
const OPENAT2: u8 = 28;
const SPLICE: u8 = 30;
const RENAMEAT: u8 = 35;
const UNLINKAT: u8 = 36;
const MKDIRAT: u8 = 37;
const SYMLINKAT: u8 = 38;
const LINKAT: u8 = 39;
const FSETXATTR: u8 = 41;
const SETXATTR: u8 = 42;
const SOCKET: u8 = 45;
const SEND_ZC: u8 = 47;
const SENDMSG_ZC: u8 = 48;
const FTRUNCATE: u8 = 55;
const BIND: u8 = 56;
const LISTEN: u8 = 57;
const READV_FIXED: u8 = 60;
const WRITEV_FIXED: u8 = 61;

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
    let Some(mut call) = call(0) else { return 0 };
    let Some(scratch) = SCRATCH_URING.get_ptr_mut(0) else { return 0 };
    let Ok(opcode) = read::<u8>(request, &IO_OPCODE) else { return 0 };
    if is_send(opcode) {
        remember_address(request);
    }
    let is_silent = is_silent(request);
    if is_silent {
        silent(&call, scratch, request, opcode);
    }
    if names::submitted(&mut call, scratch, request, opcode, is_silent).is_err()
        && let Some(kind) = names::kind_of(opcode, request)
    {
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
    kept::remember_silent(request);
    if submitted(call, scratch, request, opcode).is_err() {
        count_lost(call.member.session, RecordKind::IoUringSubmit.to_wire(), LOSS_READ);
    }
    if let Some(kind) = kind_at_completion(opcode) {
        count_lost(call.member.session, kind.to_wire(), LOSS_UNTOLD);
    }
}

/// The kind of what is told of an operation from what it leaves; `None` where there is none, or it is told of by its names.
#[inline(always)]
fn kind_at_completion(opcode: u8) -> Option<RecordKind> {
    Some(match opcode {
        OPENAT | OPENAT2 => RecordKind::Open,
        ACCEPT => RecordKind::Accept,
        CONNECT => RecordKind::Connect,
        SEND | SENDMSG | SEND_ZC | SENDMSG_ZC => RecordKind::Send,
        READV | READ_FIXED | READ | WRITEV | WRITE_FIXED | WRITE | READV_FIXED | WRITEV_FIXED | SPLICE => {
            RecordKind::Io
        }
        BIND => RecordKind::Bind,
        LISTEN => RecordKind::Listen,
        FTRUNCATE | FALLOCATE => RecordKind::Truncate,
        FSETXATTR => RecordKind::Xattr,
        _ => return None,
    })
}

/// A completion found no room: of what it ended nothing is known but that it did.
#[btf_tracepoint(function = "io_uring_cqe_overflow")]
pub fn on_uring_overflow(_ctx: BtfTracePointContext) -> i32 {
    if let Some(call) = call(0) {
        count_lost(call.member.session, RecordKind::IoUringSubmit.to_wire(), LOSS_UNTOLD);
    }
    0
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
    let Ok(opcode) = read::<u8>(request, &IO_OPCODE) else { return 0 };
    let call = call(result);
    let Some(scratch) = SCRATCH_URING.get_ptr_mut(0) else { return 0 };
    let session = call.as_ref().map_or(0, |call| call.member.session);
    names::completed(scratch, request, opcode, result, session);
    let Some(mut call) = call else { return 0 };
    if submitted(&call, scratch, request, opcode).is_err() {
        count_lost(call.member.session, RecordKind::IoUringSubmit.to_wire(), LOSS_READ);
    }
    if done(&mut call, scratch, request, opcode).is_err() {
        let kind = kind_at_completion(opcode).unwrap_or(RecordKind::IoUringSubmit);
        count_lost(call.member.session, kind.to_wire(), LOSS_READ);
    }
    0
}

/// The same as by a system call.
#[inline(always)]
fn done(call: &mut Call, scratch: *mut Scratch, request: u64, opcode: u8) -> Result<(), Unreadable> {
    let command = request + IO_CMD.load();
    match opcode {
        OPENAT | OPENAT2 if call.result >= 0 => {
            tell_open(call, made_file(call, request, read(command, &IO_OPEN_SLOT)?)?, scratch)
        }
        ACCEPT if call.result >= 0 => match made_file(call, request, read(command, &IO_ACCEPT_SLOT)?) {
            Ok(file) => tell_socket(call, scratch, RecordKind::Accept, file),
            Err(Unreadable) => Ok(()),
        },
        CONNECT => connected(call, scratch, read(request, &IO_FILE)?, read(command, &IO_CONNECT_ADDR)?, 0),
        opcode if is_send(opcode) => sent_from_ring(call, scratch, request, opcode),
        READV | READ_FIXED | READ | READV_FIXED | WRITEV | WRITE_FIXED | WRITE | WRITEV_FIXED | SPLICE
            if call.result > 0 =>
        {
            moved(call, scratch, request, opcode)
        }
        BIND => tell_socket(call, scratch, RecordKind::Bind, read(request, &IO_FILE)?),
        LISTEN => tell_socket(call, scratch, RecordKind::Listen, read(request, &IO_FILE)?),
        SOCKET => {
            let (domain, kind): (u32, u32) = (read(command, &IO_SOCKET_DOMAIN)?, read(command, &IO_SOCKET_TYPE)?);
            let protocol: u32 = read(command, &IO_SOCKET_PROTOCOL)?;
            made(call, scratch, u64::from(domain), u64::from(kind), u64::from(protocol))
        }
        FTRUNCATE | FALLOCATE => resized(call, scratch, request, opcode),
        _ => Ok(()),
    }
}

/// The file that an operation made: behind a descriptor, or in the table of fixed files, at a place that it was given or at
/// one that was free.
#[inline(always)]
fn made_file(call: &Call, request: u64, slot: u32) -> Result<u64, Unreadable> {
    const DESCRIPTOR: u32 = 0;
    const ANY_FREE: u32 = u32::MAX;
    match slot {
        DESCRIPTOR => call.file(call.result as u64),
        ANY_FREE => fixed_file(request, call.result as u32),
        place => fixed_file(request, place - 1),
    }
}

/// The file at a place of the table of fixed files.
#[inline(always)]
fn fixed_file(request: u64, place: u32) -> Result<u64, Unreadable> {
    /// The kernel has none: before 6.13 the table held the files themselves.
    const ABSENT: u64 = u64::MAX;
    /// What the kernel keeps in the lowest bits of a file's address (`FFS_MASK`).
    const KNOWN_OF_FILE: u64 = 7;
    let table: u64 = read(read(request, &IO_CONTEXT)?, &IO_FIXED_FILES)?;
    let mut file: u64 = read_at(table + u64::from(place) * 8)?;
    if file != 0 && IO_NODE_FILE.load() != ABSENT {
        file = read(file, &IO_NODE_FILE)?;
    }
    match file & !KNOWN_OF_FILE {
        0 => Err(Unreadable),
        file => Ok(file),
    }
}

/// Bytes that were read or written.
#[inline(always)]
fn moved(call: &Call, scratch: *mut Scratch, request: u64, opcode: u8) -> Result<(), Unreadable> {
    let file: u64 = read(request, &IO_FILE)?;
    let (from, to) = match opcode {
        SPLICE => (spliced_from(call, request)?, file),
        WRITEV | WRITE_FIXED | WRITE | WRITEV_FIXED => (0, file),
        _ => (file, 0),
    };
    for (file, access) in [(from, ACCESS_READ), (to, ACCESS_WRITE)] {
        if file != 0 {
            transferred(call, file, access, scratch)?;
        }
    }
    Ok(())
}

/// Where spliced bytes came from. One that has been closed by now is counted as lost.
#[inline(always)]
fn spliced_from(call: &Call, request: u64) -> Result<u64, Unreadable> {
    const SPLICE_F_FD_IN_FIXED: u32 = 1 << 31;
    let command = request + IO_CMD.load();
    let (fd, flags): (u32, u32) = (read(command, &IO_SPLICE_IN)?, read(command, &IO_SPLICE_FLAGS)?);
    if flags & SPLICE_F_FD_IN_FIXED != 0 { fixed_file(request, fd) } else { call.file(u64::from(fd)) }
}

/// A file's length was set, or room for it made: the arguments stand where the system calls have them.
#[inline(always)]
fn resized(call: &mut Call, scratch: *mut Scratch, request: u64, opcode: u8) -> Result<(), Unreadable> {
    const OF_FTRUNCATE: u32 = SystemCall::place_of("ftruncate");
    const OF_FALLOCATE: u32 = SystemCall::place_of("fallocate");
    let command = request + IO_CMD.load();
    if opcode == FTRUNCATE {
        call.place = OF_FTRUNCATE;
        call.arguments[1] = read(command, &IO_FTRUNCATE_LEN)?;
    } else {
        call.place = OF_FALLOCATE;
        call.arguments[1] = u64::from(read::<u32>(command, &IO_SYNC_MODE)?);
        call.arguments[2] = read(command, &IO_SYNC_OFF)?;
        call.arguments[3] = read(command, &IO_SYNC_LEN)?;
    }
    let (mut record, body) = begin_act(call, RecordKind::Truncate.to_wire(), scratch);
    let file: u64 = read(request, &IO_FILE)?;
    if file != 0 {
        add_object(&mut record, body, scratch, file)?;
    }
    record.emit(Urgency::Weighty);
    Ok(())
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
