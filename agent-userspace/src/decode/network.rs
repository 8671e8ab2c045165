//! Network: connections, sockets, what is sent, and Unix sockets.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use agent_common::network as wire;
use agent_common::{RecordKind, StringTag};

use super::{DecodeError, Named, Open, Rest, Text, file};

const AF_INET6: u16 = 10;
const AF_VSOCK: u16 = 40;

/// A socket, and what was done with it: connected, bound, ...
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Socket {
    /// What was done.
    pub kind: RecordKind,
    /// The far end; an IPv4 address mapped into IPv6 is given as IPv4. All zero where there is none.
    pub remote: SocketAddr,
    /// The near end, where there is one.
    pub local: Option<SocketAddr>,
    /// `AF_INET`, `AF_PACKET`, ...
    pub family: u16,
    /// Of an `AF_VSOCK` socket the context and the port at the far end.
    pub vsock: Option<(u32, u32)>,
    /// `SOCK_STREAM`, `SOCK_DGRAM`, ...
    pub socket_type: u16,
    /// `IPPROTO_TCP`, ...
    pub protocol: u16,
    /// Whether the address is as given.
    pub as_given: bool,
    /// Why it failed, as a positive errno.
    pub errno: u32,
}

/// What was sent to an address on a socket that is not connected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sent {
    /// How often.
    pub count: Open,
    /// The socket, and the address in the place of its far end.
    pub socket: Socket,
}

/// A TCP connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Closed {
    /// The connection.
    pub socket: Socket,
    /// Bytes of data sent.
    pub bytes_sent: u64,
    /// Bytes of data received.
    pub bytes_received: u64,
}

/// A connection to a Unix socket, or a message to one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unix {
    /// What it is known by.
    pub name: UnixName,
    /// `SOCK_STREAM`, ...
    pub socket_type: u32,
    /// The process that listens, where it is known.
    pub peer_tgid: Option<u32>,
    /// Its effective user.
    pub peer_uid: Option<u32>,
    /// Why it failed, as a positive errno; 0 where it succeeded.
    pub errno: u32,
}

/// What a Unix socket is known by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum UnixName {
    /// The listener's own path.
    Path(Text),
    /// A path as the process gave it.
    Given(Named),
    /// A name that is no path; empty where there is none.
    Abstract(Text),
}

pub(super) fn socket(mut rest: Rest<'_>) -> Result<Socket, DecodeError> {
    let kind = rest.kind;
    rest.body().map(|body: wire::Socket| of_wire(&body, kind))
}

pub(super) fn sent(mut rest: Rest<'_>) -> Result<Sent, DecodeError> {
    let body: wire::Sent = rest.body()?;
    Ok(Sent { count: file::counted(&body.open), socket: of_wire(&body.socket, RecordKind::Send) })
}

pub(super) fn closed(mut rest: Rest<'_>) -> Result<Closed, DecodeError> {
    let body: wire::Closed = rest.body()?;
    let socket = of_wire(&body.socket, RecordKind::Close);
    Ok(Closed { socket, bytes_sent: body.bytes_sent, bytes_received: body.bytes_received })
}

pub(super) fn unix(mut rest: Rest<'_>) -> Result<Unix, DecodeError> {
    let body: wire::Unix = rest.body()?;
    let (mut path, mut named, mut other) = (None, Named::default(), Text::default());
    rest.strings(|tag, text| match tag {
        StringTag::Path => path = Some(text),
        StringTag::Given => named.given = text,
        StringTag::Directory => named.directory = Some(text),
        StringTag::Text => other = text,
        StringTag::Arguments | StringTag::Environment | StringTag::Within => {}
    })?;
    let name = match path {
        Some(path) => UnixName::Path(path),
        None if body.flags & wire::UNIX_ABSTRACT != 0 => UnixName::Abstract(other),
        None => UnixName::Given(named),
    };
    Ok(Unix {
        name,
        socket_type: body.socket_type,
        peer_tgid: (body.peer_tgid != 0).then_some(body.peer_tgid),
        peer_uid: (body.peer_uid != u32::MAX).then_some(body.peer_uid),
        errno: body.errno,
    })
}

/// A socket as the sensor describes one, in records and in rows.
pub(crate) fn of_wire(body: &wire::Socket, kind: RecordKind) -> Socket {
    let local = SocketAddr::new(address(body.family, body.local), body.local_port);
    Socket {
        kind,
        remote: SocketAddr::new(address(body.family, body.remote), body.remote_port),
        local: (local.port() != 0).then_some(local),
        family: body.family,
        vsock: (body.family == AF_VSOCK).then(|| vsock(&body.remote)),
        socket_type: body.socket_type,
        protocol: body.protocol,
        as_given: body.as_given != 0,
        errno: body.errno,
    }
}

fn vsock(remote: &[u8; 16]) -> (u32, u32) {
    let [a, b, c, d, e, f, g, h, ..] = *remote;
    (u32::from_ne_bytes([a, b, c, d]), u32::from_ne_bytes([e, f, g, h]))
}

fn address(family: u16, bytes: [u8; 16]) -> IpAddr {
    if family == AF_INET6 {
        return Ipv6Addr::from(bytes).to_canonical();
    }
    let [a, b, c, d, ..] = bytes;
    IpAddr::V4(Ipv4Addr::new(a, b, c, d))
}
