//! Messages: addresses that they are sent to, and descriptors that come with them.

use core::ffi::c_void;
use core::ptr::addr_of_mut;

use agent_common::call::Call as SystemCall;
use aya_ebpf::helpers::generated::{bpf_loop, bpf_probe_read_user};

use super::{GivenAt, sent};
use crate::kernel::Unreadable;
use crate::maps::Scratch;
use crate::probes::calls::Call;
use crate::probes::file::received;

/// The most messages of one call that are looked at: `UIO_MAXIOV`.
const MOST_MESSAGES: u32 = 1_024;
/// The most control messages looked at, and descriptors among them: `SCM_MAX_FD`.
const MOST_CONTROLS: u32 = 8;
const MOST_DESCRIPTORS: u32 = 253;

/// `struct user_msghdr`, of a 64-bit or a 32-bit process.
#[derive(Clone, Copy)]
struct Message {
    name: u64,
    name_len: u64,
    control: u64,
    control_len: u64,
}

impl Message {
    #[inline(always)]
    fn read(address: u64, narrow: bool) -> Result<Self, Unreadable> {
        let mut words = [0u64; 6];
        let len = if narrow { 24 } else { 48 };
        // SAFETY: bytes of our own.
        let failed = unsafe { bpf_probe_read_user(addr_of_mut!(words).cast(), len, address as *const c_void) };
        if failed != 0 {
            return Err(Unreadable);
        }
        let [a, b, c, _, e, f] = words;
        if narrow {
            return Ok(Self {
                name: a & 0xffff_ffff,
                name_len: a >> 32,
                control: c & 0xffff_ffff,
                control_len: c >> 32,
            });
        }
        Ok(Self { name: a, name_len: b & 0xffff_ffff, control: e, control_len: f })
    }
}

#[repr(C)]
struct Walk {
    call: *const Call,
    scratch: *mut Scratch,
    at: u64,
    flags: u64,
    left: u32,
    failed: u32,
}

/// A call that sends messages. Of several each is looked at, and of those that failed altogether the first.
#[inline(always)]
pub fn send_message_call(call: &Call, scratch: *mut Scratch) -> Result<(), Unreadable> {
    const SENDMSG: u32 = SystemCall::place_of("sendmsg");
    let [_, messages, flags, flags_of_several, ..] = call.arguments;
    if call.place == SENDMSG {
        // A descriptor that is none, or that another thread has closed, is no socket.
        let Ok(file) = call.file(call.arguments[0]) else { return Ok(()) };
        return send(call, scratch, file, messages, flags);
    }
    let left = if call.result > 0 { call.result as u32 } else { 1 };
    let mut walk = Walk { call, scratch, at: messages, flags: flags_of_several, left, failed: 0 };
    each(&mut walk, MOST_MESSAGES, send_next as *const ())
}

/// A call that receives a message.
#[inline(always)]
pub fn receive_message_call(call: &Call, scratch: *mut Scratch) -> Result<(), Unreadable> {
    if call.result < 0 { Ok(()) } else { receive(call, scratch, call.arguments[1]) }
}

/// A call that receives several messages.
#[inline(always)]
pub fn receive_messages_call(call: &Call, scratch: *mut Scratch) -> Result<(), Unreadable> {
    if call.result <= 0 {
        return Ok(());
    }
    let mut walk = Walk { call, scratch, at: call.arguments[1], flags: 0, left: call.result as u32, failed: 0 };
    each(&mut walk, MOST_MESSAGES, receive_next as *const ())
}

/// Takes a walk's steps.
#[inline(always)]
fn each(walk: &mut Walk, most: u32, step: *const ()) -> Result<(), Unreadable> {
    // SAFETY: `step` takes a `Walk`, which outlives the loop.
    unsafe { bpf_loop(most, step as *mut c_void, core::ptr::from_mut(walk).cast(), 0) };
    if walk.failed == 0 { Ok(()) } else { Err(Unreadable) }
}

/// Tells of a message that was sent to an address. One without it went where the socket is connected to, unless the socket is
/// not: then another thread has taken it away.
#[inline(always)]
pub fn send(call: &Call, scratch: *mut Scratch, file: u64, message: u64, flags: u64) -> Result<(), Unreadable> {
    let Ok(message) = Message::read(message, call.narrow) else { return Ok(()) };
    if message.name == 0 || message.name_len == 0 {
        GivenAt::NONE.put(scratch);
        return sent(scratch, file, 0);
    }
    GivenAt::Process { at: message.name, len: message.name_len }.put(scratch);
    sent(scratch, file, flags)
}

/// How far one `struct mmsghdr` is from the next.
#[inline(always)]
fn stride(call: &Call) -> u64 {
    if call.narrow { 32 } else { 64 }
}

extern "C" fn send_next(_index: u64, walk: *mut Walk) -> i64 {
    // SAFETY: `bpf_loop` hands on the pointer that `several` gave it, and the call outlives the loop.
    let (walk, call) = unsafe { (&mut *walk, &*(*walk).call) };
    if walk.left == 0 {
        return 1;
    }
    walk.left -= 1;
    let at = walk.at;
    walk.at += stride(call);
    let Ok(file) = call.file(call.arguments[0]) else { return 1 };
    if send(call, walk.scratch, file, at, walk.flags).is_err() {
        walk.failed = 1;
    }
    0
}

extern "C" fn receive_next(_index: u64, walk: *mut Walk) -> i64 {
    // SAFETY: as for `send_next`.
    let (walk, call) = unsafe { (&mut *walk, &*(*walk).call) };
    if walk.left == 0 {
        return 1;
    }
    walk.left -= 1;
    let at = walk.at;
    walk.at += stride(call);
    if receive(call, walk.scratch, at).is_err() {
        walk.failed = 1;
    }
    0
}

/// Tells of every descriptor that came with a message. The kernel puts all of them into one control message.
#[inline(always)]
pub fn receive(call: &Call, scratch: *mut Scratch, message: u64) -> Result<(), Unreadable> {
    let Ok(message) = Message::read(message, call.narrow) else { return Ok(()) };
    receive_of(call, scratch, &message)
}

/// The same of one of several messages that an io_uring received into a room of its own: a head (`struct
/// io_uring_recvmsg_out`), the name, the control messages.
#[inline(always)]
pub fn receive_into_room(call: &Call, scratch: *mut Scratch, room: u64, name_len: u64) -> Result<(), Unreadable> {
    let mut head = [0u32; 4];
    // SAFETY: bytes of our own.
    let failed = unsafe { bpf_probe_read_user(addr_of_mut!(head).cast(), 16, room as *const c_void) };
    if failed != 0 {
        return Err(Unreadable);
    }
    let [_, control_len, ..] = head;
    let control = room + 16 + name_len;
    receive_of(call, scratch, &Message { name: 0, name_len, control, control_len: u64::from(control_len) })
}

#[inline(always)]
fn receive_of(call: &Call, scratch: *mut Scratch, message: &Message) -> Result<(), Unreadable> {
    let Some((at, left)) = descriptors(message, call.narrow) else { return Ok(()) };
    let mut walk = Walk { call, scratch, at, flags: 0, left, failed: 0 };
    each(&mut walk, MOST_DESCRIPTORS, receive_descriptor as *const ())
}

/// Where the descriptors of a message stand, and how many they are.
#[inline(always)]
fn descriptors(message: &Message, narrow: bool) -> Option<(u64, u32)> {
    if message.control == 0 {
        return None;
    }
    let (head, align) = if narrow { (12, 3) } else { (16, 7) };
    let end = message.control + message.control_len;
    let mut at = message.control;
    let mut controls = 0;
    while controls < MOST_CONTROLS && at + head <= end {
        let (len, is_rights) = control(at, narrow)?;
        if len < head {
            return None;
        }
        if is_rights {
            return Some((at + head, ((len - head) / 4) as u32));
        }
        at += (len + align) & !align;
        controls += 1;
    }
    None
}

/// A control message's length, and whether it carries descriptors.
#[inline(always)]
fn control(at: u64, narrow: bool) -> Option<(u64, bool)> {
    const SOL_SOCKET: u32 = 1;
    const SCM_RIGHTS: u32 = 1;
    let mut words = [0u32; 4];
    let len = if narrow { 12 } else { 16 };
    // SAFETY: bytes of our own.
    let failed = unsafe { bpf_probe_read_user(addr_of_mut!(words).cast(), len, at as *const c_void) };
    let [a, b, c, d] = words;
    let (level, kind) = if narrow { (b, c) } else { (c, d) };
    (failed == 0).then_some((u64::from(a), level == SOL_SOCKET && kind == SCM_RIGHTS))
}

extern "C" fn receive_descriptor(_index: u64, walk: *mut Walk) -> i64 {
    // SAFETY: as for `send_next`.
    let walk = unsafe { &mut *walk };
    if walk.left == 0 {
        return 1;
    }
    walk.left -= 1;
    let mut fd = 0u32;
    // SAFETY: four bytes of our own.
    let failed = unsafe { bpf_probe_read_user(addr_of_mut!(fd).cast(), 4, walk.at as *const c_void) };
    walk.at += 4;
    if failed != 0 || received(walk.scratch, u64::from(fd)).is_err() {
        walk.failed = 1;
    }
    0
}
