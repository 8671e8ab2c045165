//! Network: connect.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use agent_common::network as wire;

use super::{DecodeError, Rest};

const AF_INET6: u16 = 10;

/// A connection was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Connect {
    /// The far end; an IPv4 address mapped into IPv6 is given as IPv4.
    pub remote: SocketAddr,
    /// The near end, where there is one.
    pub local: Option<SocketAddr>,
    /// `SOCK_STREAM`, `SOCK_DGRAM`, ...
    pub socket_type: u16,
    /// `IPPROTO_TCP`, ...
    pub protocol: u16,
    /// Whether the address is as given.
    pub as_given: bool,
    /// Why it failed, as a positive errno.
    pub errno: u32,
}

pub(super) fn connect(mut rest: Rest<'_>) -> Result<Connect, DecodeError> {
    rest.body().map(|body: wire::Connect| of_wire(&body))
}

/// A connection as the sensor describes one, in records and in rows.
pub(crate) fn of_wire(body: &wire::Connect) -> Connect {
    let local = SocketAddr::new(address(body.family, body.local), body.local_port);
    Connect {
        remote: SocketAddr::new(address(body.family, body.remote), body.remote_port),
        local: (local.port() != 0).then_some(local),
        socket_type: body.socket_type,
        protocol: body.protocol,
        as_given: body.as_given != 0,
        errno: body.errno,
    }
}

fn address(family: u16, bytes: [u8; 16]) -> IpAddr {
    if family == AF_INET6 {
        return Ipv6Addr::from(bytes).to_canonical();
    }
    let [a, b, c, d, ..] = bytes;
    IpAddr::V4(Ipv4Addr::new(a, b, c, d))
}
