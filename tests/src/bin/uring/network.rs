//! Sockets: made, connected, sent to.

use std::net::SocketAddrV4;
use std::os::fd::AsRawFd;

use io_uring::{opcode, types};
use rustix::net::{AddressFamily, SocketType, socket};

use crate::ring::Ring;

pub(crate) fn network(ring: &mut Ring, port: u16) -> anyhow::Result<()> {
    let address = SocketAddrV4::new(std::net::Ipv4Addr::LOCALHOST, port);
    let raw = libc::sockaddr_in {
        sin_family: libc::AF_INET as u16,
        sin_port: address.port().to_be(),
        sin_addr: libc::in_addr { s_addr: u32::from(*address.ip()).to_be() },
        sin_zero: [0; 8],
    };
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
