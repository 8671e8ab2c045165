//! Sockets: the addresses that operations are given, and what comes with messages.
//!
//! An address is copied by the kernel when the operation is taken in, and its copy may be gone when that is completed: so it
//! is kept from the submission on, and no thread can change it.

use core::ptr::addr_of_mut;

use agent_common::RecordKind;
use agent_common::maps::LOSS_READ;
use aya_ebpf::helpers::generated::bpf_probe_read_kernel;

use super::kept::mark;
use super::{BIND, CONNECT, SENDMSG, SENDMSG_ZC, is_send};
use crate::kernel::offsets::{
    IO_ASYNC_ADDR, IO_ASYNC_DATA, IO_ASYNC_MSG, IO_BIND_LEN, IO_CMD, IO_CONNECT_ADDR, IO_CONNECT_LEN, IO_FILE, IO_MSG,
    IO_MSG_FLAGS, IO_MSG_SHOTS, MSGHDR_NAME, MSGHDR_NAMELEN,
};
use crate::kernel::{Unreadable, read, read_at};
use crate::maps::{Scratch, URING_ADDRESSES};
use crate::probes::calls::Call;
use crate::probes::network::{GivenAt, bound, connected, receive, receive_into_room, send, sent};
use crate::record::count_lost;

/// An address as the kernel copied it.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Copied {
    /// What tells the request from one that had its place before.
    mark: u64,
    /// Its length in bytes.
    len: u64,
    /// The address, with zeroes behind it.
    bytes: [u8; 112],
}

/// The longest address that is kept: that of a Unix socket.
const LONGEST: u32 = 110;

/// Keeps the address that an operation was given, where it has one.
#[inline(always)]
pub(super) fn remember(call: &Call, scratch: *mut Scratch, request: u64, opcode: u8) {
    if !is_send(opcode) && opcode != CONNECT && opcode != BIND {
        return;
    }
    let Ok((from, len)) = given(request, opcode) else {
        // A request's place is used again and again.
        let _ = URING_ADDRESSES.remove(&request);
        return;
    };
    let len = if len > LONGEST { LONGEST } else { len };
    // SAFETY: the path's buffer is aligned, longer, and not in use; a read from a bad address leaves zeroes.
    let copied = unsafe {
        let copied = addr_of_mut!((*scratch).path).cast::<Copied>();
        copied.write(Copied { mark: mark(request), len: u64::from(len), bytes: [0; 112] });
        let to = addr_of_mut!((*copied).bytes);
        bpf_probe_read_kernel(to.cast(), core::hint::black_box(len) & 0x7f, from as *const core::ffi::c_void);
        &*copied
    };
    if URING_ADDRESSES.insert(&request, copied, 0).is_err() && is_send(opcode) {
        // Of the others the socket says where to, or the process's memory.
        count_lost(call.member.session, RecordKind::Send.to_wire(), LOSS_READ);
    }
}

/// Where the kernel has its copy, and how long it is. Earlier kernels have it later, some of them.
#[inline(always)]
fn given(request: u64, opcode: u8) -> Result<(u64, u32), Unreadable> {
    let (data, command): (u64, u64) = (read(request, &IO_ASYNC_DATA)?, request + IO_CMD.load());
    if data == 0 {
        return Err(Unreadable);
    }
    let (from, len): (u64, u32) = match opcode {
        CONNECT => (copy_at(data)?, read(command, &IO_CONNECT_LEN)?),
        BIND => (copy_at(data)?, read(command, &IO_BIND_LEN)?),
        _ => {
            let message = data + IO_ASYNC_MSG.load();
            (read(message, &MSGHDR_NAME)?, read(message, &MSGHDR_NAMELEN)?)
        }
    };
    if from == 0 || len == 0 { Err(Unreadable) } else { Ok((from, len)) }
}

/// Where the address of a connect or a bind stands in what the kernel keeps for the operation. Some kernels keep nothing else,
/// and some (6.10 to 6.18, before it was mended) a message, whose first word is null or the address of an array, so that its
/// lower half is no family of ours.
#[inline(always)]
fn copy_at(data: u64) -> Result<u64, Unreadable> {
    const AF_UNIX: u16 = 1;
    const AF_INET: u16 = 2;
    const AF_INET6: u16 = 10;
    const AF_VSOCK: u16 = 40;
    match read_at(data)? {
        AF_UNIX | AF_INET | AF_INET6 | AF_VSOCK => Ok(data),
        _ => Ok(data + IO_ASYNC_ADDR.load()),
    }
}

/// What an operation connected, bound or sent.
#[inline(never)]
pub(super) fn addressed(call: &mut Call, scratch: *mut Scratch, request: u64, opcode: u8) -> Result<(), Unreadable> {
    const MSG_CMSG_COMPAT: u32 = 1 << 31;
    let (file, command): (u64, u64) = (read(request, &IO_FILE)?, request + IO_CMD.load());
    if file == 0 {
        // No descriptor.
        return Ok(());
    }
    let given = match URING_ADDRESSES.get_ptr(&request) {
        // SAFETY: the pointer comes from the map; nobody else has this request.
        Some(copied) if unsafe { (*copied).mark } == mark(request) => unsafe {
            Some(GivenAt::Copy { at: (*copied).bytes.as_ptr() as u64, len: (*copied).len })
        },
        _ => None,
    };
    let told = match opcode {
        CONNECT => {
            let (at, len): (u64, u32) = (read(command, &IO_CONNECT_ADDR)?, read(command, &IO_CONNECT_LEN)?);
            given.unwrap_or(GivenAt::Process { at, len: u64::from(len) }).put(scratch);
            connected(scratch, file)
        }
        BIND => {
            given.unwrap_or(GivenAt::NONE).put(scratch);
            bound(scratch, file)
        }
        _ => {
            let flags: u32 = read(command, &IO_MSG_FLAGS)?;
            call.narrow = flags & MSG_CMSG_COMPAT != 0;
            match given {
                Some(given) => {
                    given.put(scratch);
                    sent(scratch, file, u64::from(flags))
                }
                None if matches!(opcode, SENDMSG | SENDMSG_ZC) => {
                    send(call, scratch, file, read(command, &IO_MSG)?, u64::from(flags))
                }
                None => Ok(()),
            }
        }
    };
    let _ = URING_ADDRESSES.remove(&request);
    told
}

/// Descriptors that came with a message: with the process's own, or with one of several that each have a room of their own.
#[inline(never)]
pub(super) fn received(call: &mut Call, scratch: *mut Scratch, request: u64, name_len: u32) -> Result<(), Unreadable> {
    const MSG_CMSG_COMPAT: u32 = 1 << 31;
    const IORING_RECV_MULTISHOT: u16 = 2;
    let command = request + IO_CMD.load();
    call.narrow = read::<u32>(command, &IO_MSG_FLAGS)? & MSG_CMSG_COMPAT != 0;
    let at: u64 = read(command, &IO_MSG)?;
    if read::<u16>(command, &IO_MSG_SHOTS)? & IORING_RECV_MULTISHOT == 0 {
        receive(call, scratch, at)
    } else {
        receive_into_room(call, scratch, at, u64::from(name_len))
    }
}
