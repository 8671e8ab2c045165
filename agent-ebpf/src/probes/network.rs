//! Network: connect.
//!
//! Hook: `tp_btf/sys_exit` of `connect` (and of `socketcall`, in 32-bit calls). The remote address is the socket's own
//! where the call succeeded or is under way; where it failed the socket holds none any more, and it is as given. Sees IPv4
//! and IPv6, streams, datagrams and raw sockets. Misses connects by io_uring, and what is sent without a connect.

use core::ptr::addr_of_mut;

use agent_common::RecordKind;
use agent_common::call::Call as SystemCall;
use agent_common::network::Connect;
use aya_ebpf::helpers::generated::bpf_probe_read_user;

use super::calls::Call;
use crate::kernel::offsets::{
    FILE_INODE, FILE_PRIVATE, INODE_MODE, SOCK_DADDR, SOCK_DPORT, SOCK_FAMILY, SOCK_NUM, SOCK_PROTOCOL, SOCK_RCV_SADDR,
    SOCK_TYPE, SOCK_V6_DADDR, SOCK_V6_RCV_SADDR, SOCKET_SK,
};
use crate::kernel::{Unreadable, read};
use crate::maps::Scratch;
use crate::record::{Fixed, Urgency};

const AF_INET: u16 = 2;
const AF_INET6: u16 = 10;
const EINPROGRESS: u32 = 115;

/// A connect, at the exit of the call. A descriptor that is no socket connects nothing, and is not recorded.
#[inline(always)]
fn connected(call: &Call, fd: u64, address: u64) -> Result<(), Unreadable> {
    let Ok(file) = call.file(fd) else { return Ok(()) };
    let Some(mut body) = socket(file)? else { return Ok(()) };
    let errno = match call.errno() {
        EINPROGRESS => 0,
        errno => errno,
    };
    let given = Address::read(address);
    if given.family != AF_INET && given.family != AF_INET6 {
        // AF_UNSPEC dissolves a connection.
        return Ok(());
    }
    body.errno = errno;
    if errno != 0 {
        body.remote = given.address();
        body.remote_port = u16::from_be(given.port);
        body.family = given.family;
        body.as_given = 1;
    }
    Fixed { header: call.header(RecordKind::Connect), body }.emit(Urgency::Weighty);
    Ok(())
}

/// A call about a socket.
#[inline(always)]
pub fn socket_family_call(call: &Call, _scratch: *mut Scratch) -> Result<(), Unreadable> {
    const CONNECT: u32 = SystemCall::place_of("connect");
    const SOCKETCALL: u32 = SystemCall::place_of("socketcall");
    let [first, second, ..] = call.arguments;
    match call.place {
        CONNECT => connected(call, first, second),
        SOCKETCALL => socket_call(call, first, second),
        _ => Ok(()),
    }
}

/// The call that 32-bit programs make for everything about sockets.
#[inline(always)]
fn socket_call(call: &Call, which: u64, arguments: u64) -> Result<(), Unreadable> {
    const SYS_CONNECT: u64 = 3;
    if which != SYS_CONNECT {
        return Ok(());
    }
    let mut narrow = [0u32; 2];
    // SAFETY: eight bytes of our own.
    let failed = unsafe { bpf_probe_read_user(addr_of_mut!(narrow).cast(), 8, arguments as *const core::ffi::c_void) };
    if failed != 0 {
        return Err(Unreadable);
    }
    connected(call, u64::from(narrow[0]), u64::from(narrow[1]))
}

/// The head of a `sockaddr_in` or `sockaddr_in6`.
#[repr(C)]
struct Address {
    family: u16,
    port: u16,
    v4: [u8; 4],
    v6: [u8; 16],
    scope: u32,
}

impl Address {
    /// What the process gave; all zero where it cannot be read.
    #[inline(always)]
    fn read(address: u64) -> Self {
        const V4_BYTES: u32 = 16;
        let mut given = Self { family: 0, port: 0, v4: [0; 4], v6: [0; 16], scope: 0 };
        // SAFETY: bytes of our own; the longer read fails on a short address at a page's end, so the shorter comes first.
        unsafe {
            bpf_probe_read_user(addr_of_mut!(given).cast(), V4_BYTES, address as *const core::ffi::c_void);
            if given.family == AF_INET6 {
                bpf_probe_read_user(
                    addr_of_mut!(given).cast(),
                    size_of::<Self>() as u32,
                    address as *const core::ffi::c_void,
                );
            }
        }
        given
    }

    #[inline(always)]
    fn address(&self) -> [u8; 16] {
        if self.family == AF_INET6 { self.v6 } else { widen(self.v4) }
    }
}

#[inline(always)]
fn widen(v4: [u8; 4]) -> [u8; 16] {
    let [a, b, c, d] = v4;
    [a, b, c, d, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]
}

/// The connection of an IPv4 or IPv6 socket; `None` for all else.
#[inline(always)]
pub fn socket(file: u64) -> Result<Option<Connect>, Unreadable> {
    const S_IFMT: u16 = 0o170_000;
    const S_IFSOCK: u16 = 0o140_000;
    let inode: u64 = read(file, &FILE_INODE)?;
    let mode: u16 = read(inode, &INODE_MODE)?;
    if mode & S_IFMT != S_IFSOCK {
        return Ok(None);
    }
    let socket: u64 = read(file, &FILE_PRIVATE)?;
    let sock: u64 = read(socket, &SOCKET_SK)?;
    if sock == 0 {
        return Ok(None);
    }
    let family: u16 = read(sock, &SOCK_FAMILY)?;
    let (remote, local) = match family {
        AF_INET => (widen(read(sock, &SOCK_DADDR)?), widen(read(sock, &SOCK_RCV_SADDR)?)),
        AF_INET6 => (read(sock, &SOCK_V6_DADDR)?, read(sock, &SOCK_V6_RCV_SADDR)?),
        _ => return Ok(None),
    };
    Ok(Some(Connect {
        remote,
        local,
        remote_port: u16::from_be(read(sock, &SOCK_DPORT)?),
        local_port: read(sock, &SOCK_NUM)?,
        family,
        socket_type: read(sock, &SOCK_TYPE)?,
        protocol: read(sock, &SOCK_PROTOCOL)?,
        as_given: 0,
        errno: 0,
    }))
}
