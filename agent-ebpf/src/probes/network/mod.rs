//! Network: connect, bind, listen, accept, send, raw and netlink sockets; Unix sockets and what comes over them.
//!
//! Hook: `tp_btf/sys_exit` of the calls on sockets (and of `socketcall`, in 32-bit calls). The remote address is the
//! socket's own where the call succeeded or is under way; where it failed the socket holds none any more, and it is as
//! given; so is that of a datagram, which no socket keeps. Misses what io_uring does.
//!
//! - `messages`: `sendmsg`, `recvmsg` and their like: addresses and descriptors in messages.
//! - `unix`: Unix sockets, with the process at the other end.
//! - `close`: the end of a connection, with its bytes.

mod close;
mod messages;
mod unix;

use core::ptr::addr_of_mut;

use agent_common::RecordKind;
use agent_common::call::Call as SystemCall;
use agent_common::file::Open;
use agent_common::network::{Sent, Socket};
use aya_ebpf::helpers::generated::{bpf_probe_read_kernel, bpf_probe_read_user};

pub use self::messages::{
    receive, receive_into_room, receive_message_call, receive_messages_call, send, send_message_call,
};
use super::calls::Call;
use super::file::{announce, begin_key, count};
use crate::kernel::hash::Hash;
use crate::kernel::offsets::{
    FILE_INODE, FILE_PRIVATE, INODE_MODE, SOCK_DADDR, SOCK_DPORT, SOCK_FAMILY, SOCK_NUM, SOCK_PROTOCOL, SOCK_RCV_SADDR,
    SOCK_TYPE, SOCK_V6_DADDR, SOCK_V6_RCV_SADDR, SOCKET_SK,
};
use crate::kernel::{Unreadable, read};
use crate::maps::Scratch;
use crate::record::{Builder, Urgency};
use crate::verified::verified_once;

const AF_UNSPEC: u16 = 0;
const AF_UNIX: u16 = 1;
const AF_INET: u16 = 2;
const AF_INET6: u16 = 10;
const AF_NETLINK: u16 = 16;
const AF_VSOCK: u16 = 40;
const SOCK_STREAM: u16 = 1;
const SOCK_DGRAM: u16 = 2;
const SOCK_SEQPACKET: u16 = 5;
const EINPROGRESS: u32 = 115;

/// A call about a socket.
#[inline(always)]
pub fn socket_family_call(call: &Call, scratch: *mut Scratch) -> Result<(), Unreadable> {
    const CONNECT: u32 = SystemCall::place_of("connect");
    const BIND: u32 = SystemCall::place_of("bind");
    const LISTEN: u32 = SystemCall::place_of("listen");
    const SOCKET: u32 = SystemCall::place_of("socket");
    const SENDTO: u32 = SystemCall::place_of("sendto");
    const ACCEPT: u32 = SystemCall::place_of("accept");
    const ACCEPT4: u32 = SystemCall::place_of("accept4");
    let [first, second, third, fourth, fifth, sixth, ..] = call.arguments;
    let accepts = matches!(call.place, ACCEPT | ACCEPT4);
    if call.place == SOCKET {
        return made(call, scratch, first, second, third);
    }
    if accepts && call.result < 0 || call.place == SENDTO && fifth == 0 {
        return Ok(());
    }
    // A descriptor that is none, or that another thread has closed, is no socket.
    let Ok(file) = call.file(if accepts { call.result as u64 } else { first }) else { return Ok(()) };
    let given = if call.place == SENDTO {
        GivenAt::Process { at: fifth, len: sixth }
    } else {
        GivenAt::Process { at: second, len: third }
    };
    given.put(scratch);
    match call.place {
        BIND => bound(scratch, file),
        CONNECT => connected(scratch, file),
        LISTEN => tell_socket(scratch, RecordKind::Listen, file),
        ACCEPT | ACCEPT4 => tell_socket(scratch, RecordKind::Accept, file),
        SENDTO => sent(scratch, file, fourth),
        _ => Ok(()),
    }
}

/// A socket was made: told of where it is one whose connections and messages are not. That is every family but those below,
/// so that none is forgotten, and of those what does not go by their usual protocols.
#[inline(always)]
pub fn made(call: &Call, scratch: *mut Scratch, domain: u64, kind: u64, protocol: u64) -> Result<(), Unreadable> {
    const TYPE_MASK: u64 = 0xf;
    let (family, socket_type) = (domain as u16, (kind & TYPE_MASK) as u16);
    let kind = match family {
        AF_UNIX => return Ok(()),
        AF_INET | AF_INET6 if is_usual(socket_type, protocol as u32) => return Ok(()),
        AF_VSOCK if matches!(socket_type, SOCK_STREAM | SOCK_SEQPACKET) => return Ok(()),
        AF_NETLINK => RecordKind::Netlink,
        _ => RecordKind::Raw,
    };
    let (mut record, body) = Builder::begin::<Socket>(scratch, call.header(kind));
    empty(body);
    body.family = family;
    body.socket_type = socket_type;
    body.protocol = protocol as u16;
    body.errno = call.errno();
    record.emit(Urgency::Weighty);
    Ok(())
}

/// Whether an IPv4 or IPv6 socket tells itself where it is connected to, or is told with each message: of SCTP, SMC and the
/// like only their own options know. `SOCK_PACKET` makes a packet socket of any family (`__sock_create`).
#[inline(always)]
fn is_usual(socket_type: u16, protocol: u32) -> bool {
    const UNSAID: u32 = 0;
    const ICMP: u32 = 1;
    const TCP: u32 = 6;
    const UDP: u32 = 17;
    const ICMPV6: u32 = 58;
    const UDPLITE: u32 = 136;
    const MPTCP: u32 = 262;
    matches!(socket_type, SOCK_STREAM | SOCK_DGRAM)
        && matches!(protocol, UNSAID | ICMP | TCP | UDP | ICMPV6 | UDPLITE | MPTCP)
}

#[inline(always)]
fn empty(body: &mut Socket) {
    body.remote = [0; 16];
    body.local = [0; 16];
    body.remote_port = 0;
    body.local_port = 0;
    body.as_given = 0;
    body.errno = 0;
}

verified_once! {
    /// A connect that is over. A descriptor that is no socket connects nothing, and is not recorded. What kind of connect it is the
    /// socket says: the address stands in memory that another thread may have changed since.
    pub fn connected as tell_of_connect(call, scratch, file: u64) {
        let Some(sock) = sock_of(file)? else { return Ok(()) };
        match read::<u16>(sock, &SOCK_FAMILY)? {
            AF_UNIX => unix::connected(scratch, sock),
            AF_INET | AF_INET6 => connected_over_ip(scratch, sock),
            AF_VSOCK => vsock(call, scratch, &Address::read(GivenAt::of(scratch))),
            _ => Ok(()),
        }
    }

    /// A connect of an IPv4 or IPv6 socket.
    fn connected_over_ip as tell_of_ip_connect(call, scratch, sock: u64) {
        let errno = match call.errno() {
            EINPROGRESS => 0,
            errno => errno,
        };
        let (mut record, body) = Builder::begin::<Socket>(scratch, call.header(RecordKind::Connect));
        if !describe(sock, body)? {
            return Ok(());
        }
        body.errno = errno;
        if errno != 0 {
            Address::read(GivenAt::of(scratch)).put(body);
        } else if is_unconnected(body) {
            // AF_UNSPEC dissolves a connection.
            return Ok(());
        } else {
            close::remember(call, sock, body);
        }
        record.emit(Urgency::Weighty);
        Ok(())
    }
}

/// A connect to another virtual machine: context and port stand in the place of the address.
#[inline(always)]
fn vsock(call: &Call, scratch: *mut Scratch, given: &Address) -> Result<(), Unreadable> {
    let (mut record, body) = Builder::begin::<Socket>(scratch, call.header(RecordKind::Connect));
    empty(body);
    // struct sockaddr_vm: after family and a reserved word the port, then the context.
    let [a, b, c, d, ..] = given.v6;
    let [e, f, g, h] = given.v4;
    body.remote = [a, b, c, d, e, f, g, h, 0, 0, 0, 0, 0, 0, 0, 0];
    body.family = AF_VSOCK;
    body.socket_type = SOCK_STREAM;
    body.protocol = 0;
    body.as_given = 1;
    body.errno = match call.errno() {
        EINPROGRESS => 0,
        errno => errno,
    };
    record.emit(Urgency::Weighty);
    Ok(())
}

verified_once! {
    /// A bind: the address is the socket's own, or, where it failed, as given.
    pub fn bound as tell_of_bind(call, scratch, file: u64) {
        let given = GivenAt::of(scratch);
        let Some(sock) = sock_of(file)? else { return Ok(()) };
        if read::<u16>(sock, &SOCK_FAMILY)? == AF_UNIX {
            return unix::bound(scratch);
        }
        let (mut record, body) = Builder::begin::<Socket>(scratch, call.header(RecordKind::Bind));
        if !describe(sock, body)? {
            return Ok(());
        }
        body.errno = call.errno();
        if body.errno != 0 {
            let given = Address::read(given);
            body.local = given.address();
            body.local_port = u16::from_be(given.port);
            body.as_given = 1;
        }
        record.emit(Urgency::Weighty);
        Ok(())
    }
}

verified_once! {
    /// What a socket is now, told of as it is.
    pub fn tell_socket as tell_of_socket(call, scratch, kind: RecordKind, file: u64) {
        let Some(sock) = sock_of(file)? else { return Ok(()) };
        let (mut record, body) = Builder::begin::<Socket>(scratch, call.header(kind));
        if !describe(sock, body)? {
            return Ok(());
        }
        body.errno = call.errno();
        if kind == RecordKind::Accept {
            close::remember(call, sock, body);
        }
        record.emit(Urgency::Weighty);
        Ok(())
    }
}

/// What an operation of an io_uring took off a listening socket, unless it was told of already: all that is known of a further
/// one of several is a number, which may be that of another operation.
#[inline(always)]
pub fn accepted(scratch: *mut Scratch, file: u64) -> Result<(), Unreadable> {
    match sock_of(file)? {
        Some(sock) if !close::is_known(sock) => tell_socket(scratch, RecordKind::Accept, file),
        _ => Ok(()),
    }
}

verified_once! {
    /// What was sent to an address that the call gave; repeats are counted by address. The address stands in memory that another
    /// thread may have changed since: where it is none, and the socket has none of its own, what was sent is told of without it.
    pub fn sent as tell_of_sent(call, scratch, file: u64, flags: u64) {
        const MSG_FASTOPEN: u64 = 0x2000_0000;
        let given = GivenAt::of(scratch);
        let Some(sock) = sock_of(file)? else { return Ok(()) };
        let family: u16 = read(sock, &SOCK_FAMILY)?;
        match family {
            AF_UNIX if given.len() == 0 => return Ok(()),
            AF_UNIX => return unix::connected(scratch, sock),
            AF_INET | AF_INET6 => {}
            _ => return Ok(()),
        }
        if flags & MSG_FASTOPEN != 0 {
            return connected_over_ip(scratch, sock);
        }
        sent_to(call, scratch, sock, Address::read(given))
    }
}

/// What was sent on a socket to this address; to none where its family is none.
#[inline(always)]
fn sent_to(call: &Call, scratch: *mut Scratch, sock: u64, mut given: Address) -> Result<(), Unreadable> {
    let (mut record, body) = Builder::begin::<Sent>(scratch, call.header(RecordKind::Send));
    if !describe(sock, &mut body.socket)? {
        return Ok(());
    }
    if body.socket.socket_type == SOCK_STREAM {
        // A connection takes no address: what was given is not looked at.
        return Ok(());
    }
    // IPv4 takes an address of no family for one of its own.
    if given.family == AF_UNSPEC && body.socket.family == AF_INET && given.port != 0 {
        given.family = AF_INET;
    }
    let is_one = given.family == AF_INET || given.family == AF_INET6;
    if !is_one && (call.result < 0 || !is_unconnected(&body.socket)) {
        return Ok(());
    }
    given.put(&mut body.socket);
    body.socket.errno = call.errno();
    let open: &mut Open = &mut body.open;
    begin_key(call, RecordKind::Send, open);
    let mut hash = Hash::new();
    let [low, high] = words(&body.socket.remote);
    hash.word(low);
    hash.word(high);
    hash.word(u64::from(body.socket.remote_port) << 32 | u64::from(body.socket.local_port));
    open.key.path_hash = hash.finish();
    open.key.inode = 0;
    open.key.device = u32::from(body.socket.protocol);
    open.key.errno = body.socket.errno;
    open.key.access = 0;
    open.key.flags = 0;
    if count(&record, open) {
        announce(&mut record, open);
    }
    Ok(())
}

/// Whether a socket that was described has no far end.
#[inline(always)]
fn is_unconnected(body: &Socket) -> bool {
    let [low, high] = words(&body.remote);
    low | high == 0 && body.remote_port == 0
}

#[inline(always)]
fn words(address: &[u8; 16]) -> [u64; 2] {
    let [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p] = *address;
    [u64::from_ne_bytes([a, b, c, d, e, f, g, h]), u64::from_ne_bytes([i, j, k, l, m, n, o, p])]
}

/// Where an address stands that was given.
#[repr(C)]
#[derive(Clone, Copy)]
pub enum GivenAt {
    /// In the process's memory: another thread may have changed it since.
    Process {
        /// Its place.
        at: u64,
        /// Its length in bytes.
        len: u64,
    },
    /// In a copy that is ours, with zeroes behind it.
    Copy {
        /// Its place.
        at: u64,
        /// Its length in bytes.
        len: u64,
    },
}

impl GivenAt {
    /// No address.
    pub const NONE: Self = Self::Process { at: 0, len: 0 };

    /// Puts it beside the call.
    #[inline(always)]
    pub fn put(self, scratch: *mut Scratch) {
        // SAFETY: `scratch` is a map's value. Volatile as the call is.
        unsafe { core::ptr::addr_of_mut!((*scratch).given).write_volatile(self) };
    }

    /// Of the call that is handled.
    #[inline(always)]
    fn of(scratch: *mut Scratch) -> Self {
        // SAFETY: `scratch` is a map's value, in which one was put.
        unsafe { (*scratch).given }
    }

    #[inline(always)]
    fn len(self) -> u64 {
        match self {
            Self::Process { len, .. } | Self::Copy { len, .. } => len,
        }
    }
}

/// The head of a `sockaddr_in` or `sockaddr_in6`.
#[repr(C)]
#[derive(Clone, Copy)]
struct Address {
    family: u16,
    port: u16,
    v4: [u8; 4],
    v6: [u8; 16],
    scope: u32,
}

impl Address {
    const NONE: Self = Self { family: 0, port: 0, v4: [0; 4], v6: [0; 16], scope: 0 };

    /// What was given; all zero where it cannot be read.
    #[inline(always)]
    fn read(given: GivenAt) -> Self {
        match given {
            GivenAt::Process { at, .. } => Self::of_process(at),
            GivenAt::Copy { at, .. } => Self::of_copy(at),
        }
    }

    #[inline(always)]
    fn of_copy(address: u64) -> Self {
        let mut given = Self::NONE;
        // SAFETY: bytes of our own; of what cannot be read the helper makes zeroes.
        unsafe {
            bpf_probe_read_kernel(
                addr_of_mut!(given).cast(),
                size_of::<Self>() as u32,
                address as *const core::ffi::c_void,
            );
        }
        given
    }

    #[inline(always)]
    fn of_process(address: u64) -> Self {
        const V4_BYTES: u32 = 16;
        let mut given = Self::NONE;
        // SAFETY: bytes of our own; the longer read fails on a short address at a page's end, so the shorter comes first.
        unsafe {
            if bpf_probe_read_user(addr_of_mut!(given).cast(), V4_BYTES, address as *const core::ffi::c_void) != 0 {
                // A Unix address may be shorter than that.
                bpf_probe_read_user(addr_of_mut!(given).cast(), 2, address as *const core::ffi::c_void);
            }
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

    /// Puts it in the place of the far end; none where it is of another family.
    #[inline(always)]
    fn put(&self, body: &mut Socket) {
        body.as_given = 1;
        if self.family == AF_INET || self.family == AF_INET6 {
            body.remote = self.address();
            body.remote_port = u16::from_be(self.port);
            body.family = self.family;
        } else {
            body.remote = [0; 16];
            body.remote_port = 0;
        }
    }
}

#[inline(always)]
fn widen(v4: [u8; 4]) -> [u8; 16] {
    let [a, b, c, d] = v4;
    [a, b, c, d, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]
}

/// The `struct sock` behind a file; `None` where it is no socket.
#[inline(always)]
pub fn sock_of(file: u64) -> Result<Option<u64>, Unreadable> {
    const S_IFMT: u16 = 0o170_000;
    const S_IFSOCK: u16 = 0o140_000;
    let inode: u64 = read(file, &FILE_INODE)?;
    let mode: u16 = read(inode, &INODE_MODE)?;
    if mode & S_IFMT != S_IFSOCK {
        return Ok(None);
    }
    let socket: u64 = read(file, &FILE_PRIVATE)?;
    let sock: u64 = read(socket, &SOCKET_SK)?;
    Ok((sock != 0).then_some(sock))
}

/// Writes into a body what an IPv4 or IPv6 socket is; whether it is one.
#[inline(always)]
pub fn describe(sock: u64, body: &mut Socket) -> Result<bool, Unreadable> {
    let family: u16 = read(sock, &SOCK_FAMILY)?;
    match family {
        AF_INET => {
            body.remote = widen(read(sock, &SOCK_DADDR)?);
            body.local = widen(read(sock, &SOCK_RCV_SADDR)?);
        }
        AF_INET6 => {
            body.remote = read(sock, &SOCK_V6_DADDR)?;
            body.local = read(sock, &SOCK_V6_RCV_SADDR)?;
        }
        _ => return Ok(false),
    }
    body.remote_port = u16::from_be(read(sock, &SOCK_DPORT)?);
    body.local_port = read(sock, &SOCK_NUM)?;
    body.family = family;
    body.socket_type = read(sock, &SOCK_TYPE)?;
    body.protocol = read(sock, &SOCK_PROTOCOL)?;
    body.as_given = 0;
    body.errno = 0;
    Ok(true)
}
