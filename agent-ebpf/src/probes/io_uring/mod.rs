//! io_uring: every operation, and what it does.
//!
//! Hooks: `tp_btf/io_uring_submit_req`, when an operation has been taken in and nothing of it has been done, and
//! `tp_btf/io_uring_complete`, when its result is known. What makes a file, or has one, is resolved at completion, from the
//! kernel's own objects, be it a descriptor or in the ring's table of fixed files. What is given in words is kept from the
//! submission on: it stands in the kernel's own copy by then, which no thread can change, and is gone at completion. An
//! operation that asks for no completion where it succeeds is told of when it is submitted, and once more if it fails; what
//! it does beyond names is a gap, for nothing tells of its end. One whose completion found no room
//! (`tp_btf/io_uring_cqe_overflow`) is told of all the same, unless others under way go by the same word. Worker and poll threads raise no fork event and carry no membership: theirs is their
//! process's. Misses what is refused when it is taken in, of which there is the operation alone.
//!
//! - `kept`: records between submission and completion.
//! - `live`: operations by what their completions say.
//! - `names`: what is done by a path.
//! - `files`: files, bytes, lengths.
//! - `sockets`: addresses, and what comes with messages.

mod files;
mod kept;
pub mod live;
mod names;
pub mod sockets;

use core::ffi::c_void;

use agent_common::file::Open;
use agent_common::maps::{LOSS_READ, LOSS_UNTOLD};
use agent_common::record::FLAG_IO_URING;
use agent_common::{RecordKind, StringTag};
use aya_ebpf::bindings::task_struct;
use aya_ebpf::macros::btf_tracepoint;
use aya_ebpf::programs::BtfTracePointContext;

use self::files::{made_file, moved, resized};
use self::live::{Key, Live, SEVERAL, TAKES_CONNECTIONS, TAKES_MESSAGES};
use super::calls::Call;
use super::file::{OpenFile, announce, begin_key, count, tell_open};
use super::network::{accepted, made, tell_socket};
use crate::kernel::hash::Hash;
use crate::kernel::offsets::{
    CQE_FLAGS, CQE_RES, CQE_USER_DATA, IO_ACCEPT_SLOT, IO_ASYNC_DATA, IO_ASYNC_NAMELEN, IO_CMD, IO_CONTEXT, IO_FILE,
    IO_FLAGS, IO_OPCODE, IO_OPEN_SLOT, IO_SOCKET_DOMAIN, IO_SOCKET_PROTOCOL, IO_SOCKET_TYPE, IO_USER_DATA,
    TASK_GROUP_LEADER,
};
use crate::kernel::path::resolve;
use crate::kernel::task::{Who, current};
use crate::kernel::{Unreadable, field, read};
use crate::maps::{Scratch, ScratchOf};
use crate::member;
use crate::record::{Builder, count_lost};

// The numbers of operations: `enum io_uring_op`.
const READV: u8 = 1;
const WRITEV: u8 = 2;
const READ_FIXED: u8 = 4;
const WRITE_FIXED: u8 = 5;
const SENDMSG: u8 = 9;
const RECVMSG: u8 = 10;
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
fn call(scratch: *mut Scratch, result: i64) -> Option<&'static mut Call> {
    let task = current();
    // SAFETY: a group leader is BTF-typed.
    let leader: *mut task_struct = unsafe { field(task, &TASK_GROUP_LEADER) };
    let member = match member::of(task) {
        Some(member) => *member,
        None => *member::of(leader)?,
    };
    let who = Who::of(task);
    let call = Call { who, member, place: 0, narrow: false, flags: FLAG_IO_URING, arguments: [0; 8], result };
    Some(call.put(scratch))
}

/// An operation was taken in.
#[btf_tracepoint(function = "io_uring_submit_req")]
pub fn on_uring_submit(ctx: BtfTracePointContext) -> i32 {
    let request: u64 = ctx.arg(0);
    let Some(scratch) = Scratch::of(ScratchOf::Uring) else { return 0 };
    let Some(call) = call(scratch, 0) else { return 0 };
    let Ok(opcode) = read::<u8>(request, &IO_OPCODE) else { return 0 };
    sockets::remember(call, scratch, request, opcode);
    let ending = if is_silent(request) {
        silent(call, scratch, request, opcode);
        Ending::Untold
    } else if live::begin(&key_of(request), request, opcode, name_len(request, opcode)) {
        Ending::Told
    } else {
        Ending::ToldOfSeveral
    };
    if names::submitted(call, scratch, request, opcode, ending).is_err()
        && let Some(kind) = names::kind_of(opcode, request)
    {
        count_lost(call.member.session, kind.to_wire(), LOSS_READ);
    }
    0
}

/// What will be known of the end of an operation.
#[derive(Clone, Copy, PartialEq)]
enum Ending {
    /// Its completion, even where that finds no room.
    Told,
    /// Its completion, but for one that finds no room: others go by the same word.
    ToldOfSeveral,
    /// Nothing, where it succeeds.
    Untold,
}

#[inline(always)]
fn key_of(request: u64) -> Key {
    let (ring, user_data) = (read(request, &IO_CONTEXT).unwrap_or(0), read(request, &IO_USER_DATA).unwrap_or(0));
    Key { ring, user_data }
}

/// The room that each of several messages has for its sender's name.
#[inline(always)]
fn name_len(request: u64, opcode: u8) -> u32 {
    if opcode != RECVMSG {
        return 0;
    }
    match read::<u64>(request, &IO_ASYNC_DATA) {
        Ok(data) if data != 0 => read(data, &IO_ASYNC_NAMELEN).unwrap_or(0),
        _ => 0,
    }
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

/// Tells of an operation whose completion will not be seen, and counts what it does as lost.
#[inline(always)]
fn silent(call: &Call, scratch: *mut Scratch, request: u64, opcode: u8) {
    kept::remember_told(request);
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
        RECVMSG => RecordKind::FdReceive,
        _ => return None,
    })
}

/// What a completion says of the operation that it ends is what this says too, since an operation is known by it; but not
/// which one it ends where several go by the same word.
#[btf_tracepoint(function = "io_uring_cqe_overflow")]
pub fn on_uring_overflow(ctx: BtfTracePointContext) -> i32 {
    let (key, result, flags) =
        (Key { ring: ctx.arg(0), user_data: ctx.arg(1) }, i64::from(ctx.arg::<i32>(2)), ctx.arg::<u32>(3));
    if flags & IORING_CQE_F_NOTIF != 0 {
        return 0;
    }
    let Some(scratch) = Scratch::of(ScratchOf::Uring) else { return 0 };
    let Some(call) = call(scratch, result) else { return 0 };
    let session = call.member.session;
    match live::of(&key) {
        Some(live) if live.count == 1 && live.request != 0 => {
            let Ok(opcode) = read::<u8>(live.request, &IO_OPCODE) else { return 0 };
            names::completed(scratch, live.request, opcode, result, session);
            ended(call, scratch, &key, live.request, opcode);
        }
        Some(live) => {
            count_lost(session, RecordKind::IoUringSubmit.to_wire(), LOSS_UNTOLD);
            names::tell_without_result(scratch, live.request);
            let kind = if live.opcode == SEVERAL {
                ANY
            } else {
                kind_at_completion(live.opcode as u8).map(RecordKind::to_wire)
            };
            if let Some(kind) = kind {
                count_lost(session, kind, LOSS_UNTOLD);
            }
            live::end(&key, live.request);
        }
        None => count_lost(session, RecordKind::IoUringSubmit.to_wire(), LOSS_UNTOLD),
    }
    0
}

/// In the place of a kind: it may have been any.
const ANY: Option<u16> = Some(0);
/// An operation that sends says at last that it needs its memory no longer.
const IORING_CQE_F_NOTIF: u32 = 1 << 3;

/// An operation was completed.
#[btf_tracepoint(function = "io_uring_complete")]
pub fn on_uring_complete(ctx: BtfTracePointContext) -> i32 {
    let (ring, request, cqe): (u64, u64, *const c_void) = (ctx.arg(0), ctx.arg(1), ctx.arg(2));
    // SAFETY: the completion is BTF-typed, and the offsets are those of its fields.
    let (result, flags, user_data) = unsafe {
        (i64::from(field::<i32, _>(cqe, &CQE_RES)), field::<u32, _>(cqe, &CQE_FLAGS), field(cqe, &CQE_USER_DATA))
    };
    if flags & IORING_CQE_F_NOTIF != 0 {
        return 0;
    }
    let Some(scratch) = Scratch::of(ScratchOf::Uring) else { return 0 };
    let key = Key { ring, user_data };
    let Some(call) = call(scratch, result) else {
        // Of the kernel's own threads that end what others have begun: whose it is was kept.
        if let Ok(opcode) = read::<u8>(request, &IO_OPCODE) {
            names::completed(scratch, request, opcode, result, 0);
        }
        return 0;
    };
    if request == 0 {
        if let Some(live) = live::of(&key)
            && result >= 0
        {
            further(call, scratch, &key, &live);
        }
        return 0;
    }
    let Ok(opcode) = read::<u8>(request, &IO_OPCODE) else { return 0 };
    names::completed(scratch, request, opcode, result, call.member.session);
    ended(call, scratch, &key, request, opcode);
    0
}

/// An operation has ended, or one of several by the same word.
#[inline(always)]
fn ended(call: &mut Call, scratch: *mut Scratch, key: &Key, request: u64, opcode: u8) {
    let session = call.member.session;
    if submitted(call, scratch, request, opcode).is_err() {
        count_lost(session, RecordKind::IoUringSubmit.to_wire(), LOSS_READ);
    }
    if done(call, scratch, key, request, opcode).is_err() {
        let kind = kind_at_completion(opcode).unwrap_or(RecordKind::IoUringSubmit);
        count_lost(session, kind.to_wire(), LOSS_READ);
    }
    live::end(key, request);
}

/// One of the completions of an operation that has several, but for its last: connections and messages.
#[inline(never)]
fn further(call: &mut Call, scratch: *mut Scratch, key: &Key, live: &Live) {
    if live.takes & TAKES_CONNECTIONS != 0 {
        let command = live.request + IO_CMD.load();
        let slot = if live.request == 0 { 0 } else { read(command, &IO_ACCEPT_SLOT).unwrap_or(0) };
        if let Ok(file) = made_file(call, key.ring, slot)
            && accepted(scratch, file).is_err()
        {
            count_lost(call.member.session, RecordKind::Accept.to_wire(), LOSS_READ);
        }
    }
    if live.takes & TAKES_MESSAGES != 0 {
        let session = call.member.session;
        if live.count != 1 || live.request == 0 {
            count_lost(session, RecordKind::FdReceive.to_wire(), LOSS_UNTOLD);
        } else if sockets::received(call, scratch, live.request, live.name_len).is_err() {
            count_lost(session, RecordKind::FdReceive.to_wire(), LOSS_READ);
        }
    }
}

/// The same as by a system call.
#[inline(always)]
fn done(call: &mut Call, scratch: *mut Scratch, key: &Key, request: u64, opcode: u8) -> Result<(), Unreadable> {
    let command = request + IO_CMD.load();
    match opcode {
        OPENAT | OPENAT2 if call.result >= 0 => {
            tell_open(scratch, made_file(call, key.ring, read(command, &IO_OPEN_SLOT)?)?)
        }
        ACCEPT if call.result >= 0 => match made_file(call, key.ring, read(command, &IO_ACCEPT_SLOT)?) {
            Ok(file) => tell_socket(scratch, RecordKind::Accept, file),
            Err(Unreadable) => Ok(()),
        },
        CONNECT | BIND | SEND | SENDMSG | SEND_ZC | SENDMSG_ZC => sockets::addressed(call, scratch, request, opcode),
        RECVMSG if call.result >= 0 => {
            let name_len = live::of(key).map_or(0, |live| live.name_len);
            sockets::received(call, scratch, request, name_len)
        }
        READV | READ_FIXED | READ | READV_FIXED | WRITEV | WRITE_FIXED | WRITE | WRITEV_FIXED | SPLICE
            if call.result > 0 =>
        {
            moved(call, scratch, request, opcode)
        }
        LISTEN => match read(request, &IO_FILE)? {
            0 => Ok(()),
            file => tell_socket(scratch, RecordKind::Listen, file),
        },
        SOCKET => {
            let (domain, kind): (u32, u32) = (read(command, &IO_SOCKET_DOMAIN)?, read(command, &IO_SOCKET_TYPE)?);
            let protocol: u32 = read(command, &IO_SOCKET_PROTOCOL)?;
            made(call, scratch, u64::from(domain), u64::from(kind), u64::from(protocol))
        }
        FTRUNCATE | FALLOCATE => resized(call, scratch, request, opcode),
        _ => Ok(()),
    }
}

/// The operation itself: repeats are counted by operation, file and errno.
#[inline(never)]
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
        if count(&record, open) {
            announce(&mut record, open);
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
    if count(&record, open) {
        record.path(StringTag::Path, &path)?;
        announce(&mut record, open);
    }
    Ok(())
}
