//! Sockets: made, connected, bound, sent to, taken from, and what comes over them.

use std::io::IoSlice;
use std::mem::MaybeUninit;
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;

use io_uring::{opcode, types};
use rustix::net::{AddressFamily, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketType, sendmsg, socket};
use serde_json::json;

use crate::ring::{Mode, Ring};

fn v4(port: u16) -> libc::sockaddr_in {
    libc::sockaddr_in {
        sin_family: libc::AF_INET as u16,
        sin_port: port.to_be(),
        sin_addr: libc::in_addr { s_addr: u32::from(Ipv4Addr::LOCALHOST).to_be() },
        sin_zero: [0; 8],
    }
}

/// An address of a Unix socket, and its length.
fn unix(name: &[u8]) -> (libc::sockaddr_un, u32) {
    let mut raw = libc::sockaddr_un { sun_family: libc::AF_UNIX as u16, sun_path: [0; 108] };
    for (to, from) in raw.sun_path.iter_mut().zip(name) {
        *to = from.cast_signed();
    }
    (raw, 2 + name.len() as u32)
}

pub(crate) fn network(ring: &mut Ring, port: u16) -> anyhow::Result<()> {
    let raw = v4(port);
    let len = size_of_val(&raw) as u32;
    let stream = socket(AddressFamily::INET, SocketType::STREAM, None)?;
    let connect = opcode::Connect::new(types::Fd(stream.as_raw_fd()), (&raw const raw).cast(), len).build();
    ring.run("CONNECT", connect)?;
    ring.run("SEND", opcode::Send::new(types::Fd(stream.as_raw_fd()), b"x".as_ptr(), 1).build())?;
    let datagrams = socket(AddressFamily::INET, SocketType::DGRAM, None)?;
    let mut part = libc::iovec { iov_base: b"x".as_ptr().cast_mut().cast(), iov_len: 1 };
    // SAFETY: all zero is a message without a name, parts or control data.
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    message.msg_name = (&raw const raw).cast_mut().cast();
    message.msg_namelen = len;
    message.msg_iov = &raw mut part;
    message.msg_iovlen = 1;
    let to = opcode::SendZc::new(types::Fd(datagrams.as_raw_fd()), b"z".as_ptr(), 1);
    ring.run_twice("SEND_ZC", to.dest_addr((&raw const raw).cast()).dest_addr_len(len).build())?;
    ring.run("SENDMSG", opcode::SendMsg::new(types::Fd(datagrams.as_raw_fd()), &raw const message).build())?;
    let netlink = opcode::Socket::new(libc::AF_NETLINK, libc::SOCK_RAW | libc::SOCK_CLOEXEC, libc::NETLINK_ROUTE);
    ring.run("SOCKET", netlink.build())?;
    Ok(())
}

/// Addresses that are gone, or others, by the time the operation begins; and those of Unix sockets.
pub(crate) fn addresses(ring: &mut Ring, dir: &Path) -> anyhow::Result<u16> {
    let free = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
    let (mut raw, len) = (v4(free), size_of::<libc::sockaddr_in>() as u32);
    let stream = socket(AddressFamily::INET, SocketType::STREAM, None)?;
    let to = &raw mut raw;
    let connect = opcode::Connect::new(types::Fd(stream.as_raw_fd()), to.cast_const().cast(), len).build();
    // SAFETY: nothing else uses the address, which outlives the operation.
    let result = ring.run_later("CONNECT", connect, || unsafe { to.write(v4(1)) })?;
    anyhow::ensure!(result == -libc::ECONNREFUSED, "a connect to a free port came to {result}");

    let (listens, bound) = (dir.join("listens"), dir.join("bound"));
    let _listener = UnixListener::bind(&listens)?;
    let peer = || socket(AddressFamily::UNIX, SocketType::STREAM, None);
    let (name, len) = unix(listens.as_os_str().as_bytes());
    let fd = peer()?;
    ring.run("CONNECT", opcode::Connect::new(types::Fd(fd.as_raw_fd()), (&raw const name).cast(), len).build())?;
    let (name, len) = unix(b"\0nobody-has-this");
    let connect = opcode::Connect::new(types::Fd(fd.as_raw_fd()), (&raw const name).cast(), len);
    ring.attempt("CONNECT", connect.build())?;
    let (name, len) = unix(bound.as_os_str().as_bytes());
    let fd = peer()?;
    ring.run("BIND", opcode::Bind::new(types::Fd(fd.as_raw_fd()), (&raw const name).cast(), len).build())?;
    let fd = socket(AddressFamily::INET, SocketType::STREAM, None)?;
    let any = v4(0);
    let len = size_of_val(&any) as u32;
    ring.run("BIND", opcode::Bind::new(types::Fd(fd.as_raw_fd()), (&raw const any).cast(), len).build())?;
    ring.run("LISTEN", opcode::Listen::new(types::Fd(fd.as_raw_fd()), 1).build())?;
    Ok(free)
}

fn send_file(over: &UnixStream, file: &std::fs::File) -> anyhow::Result<()> {
    let mut room = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut room);
    let descriptors = [file.as_fd()];
    anyhow::ensure!(control.push(SendAncillaryMessage::ScmRights(&descriptors)), "no room for a descriptor");
    sendmsg(over, &[IoSlice::new(b"x")], &mut control, SendFlags::empty())?;
    Ok(())
}

/// A message, and two more to an operation that takes several, each with a descriptor of that file.
pub(crate) fn descriptors(ring: &mut Ring, mode: Mode, path: &Path) -> anyhow::Result<()> {
    const GROUP: u16 = 1;
    const ROOM: i32 = 256;
    let (here, there) = UnixStream::pair()?;
    let file = std::fs::File::open(path)?;
    let (mut control, mut byte) = ([0u64; 8], [0u8; 1]);
    let mut part = libc::iovec { iov_base: byte.as_mut_ptr().cast(), iov_len: 1 };
    // SAFETY: all zero is a message without a name, parts or control data.
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    message.msg_control = control.as_mut_ptr().cast();
    message.msg_controllen = size_of_val(&control);
    message.msg_iov = &raw mut part;
    message.msg_iovlen = 1;
    send_file(&here, &file)?;
    ring.run("RECVMSG", opcode::RecvMsg::new(types::Fd(there.as_raw_fd()), &raw mut message).build())?;

    let mut several = Ring::new(mode)?;
    let mut rooms = [0u8; 4 * ROOM as usize];
    let provide = opcode::ProvideBuffers::new(rooms.as_mut_ptr(), ROOM, 4, GROUP, 0).build();
    several.run("PROVIDE_BUFFERS", provide)?;
    message.msg_iovlen = 0;
    message.msg_controllen = size_of_val(&control);
    let take = opcode::RecvMsgMulti::new(types::Fd(there.as_raw_fd()), &raw const message, GROUP).build();
    several.run_several(take, 2, |_| send_file(&here, &file))?;
    ring.done.push(json!({"operation": "RECVMSG", "result": -libc::ECANCELED}));
    Ok(())
}

/// Three connections for an operation that takes several, and two for one that puts them into the table of fixed files.
/// Returns where they were taken.
pub(crate) fn accepts(mode: Mode) -> anyhow::Result<[u16; 2]> {
    let mut peers = Vec::new();
    let mut take = |fixed: bool, times: usize| {
        let mut ring = Ring::new(mode)?;
        ring.ring.submitter().register_files_sparse(4)?;
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let address = listener.local_addr()?;
        let accept = opcode::AcceptMulti::new(types::Fd(listener.as_raw_fd())).allocate_file_index(fixed).build();
        ring.run_several(accept, times, |_| {
            peers.push(TcpStream::connect(address)?);
            Ok(())
        })?;
        anyhow::Ok(address.port())
    };
    Ok([take(false, 3)?, take(true, 2)?])
}
