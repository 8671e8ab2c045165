//! Network: connections, sockets, and what is sent.

use crate::file::Open;
use crate::wire;

wire! {
    /// The body of what is told of a socket: a connect, a bind, ... It has no strings.
    ///
    /// Of an `AF_VSOCK` socket the first four bytes of `remote` are the context, the next four the port.
    pub struct Socket [48] {
        /// The remote address; an IPv4 one in the first four bytes.
        pub remote: [u8; 16],
        /// The local address, all zero where there is none.
        pub local: [u8; 16],
        /// The remote port.
        pub remote_port: u16,
        /// The local port, 0 where there is none.
        pub local_port: u16,
        /// `AF_INET`, `AF_INET6`, `AF_PACKET`, `AF_NETLINK` or `AF_VSOCK`.
        pub family: u16,
        /// `SOCK_STREAM`, `SOCK_DGRAM`, ...
        pub socket_type: u16,
        /// `IPPROTO_TCP`, ...
        pub protocol: u16,
        /// 1 where the address is as the process gave it, since the socket holds none (the connect failed).
        pub as_given: u16,
        /// Why it failed, as a positive errno; 0 for one that succeeded or is under way.
        pub errno: u32,
    }
}

wire! {
    /// The body of what was sent to an address on a socket that is not connected: repeats are counted by address.
    pub struct Sent [144] {
        /// The count.
        pub open: Open,
        /// The socket, and the address in the place of its far end.
        pub socket: Socket,
    }
}

wire! {
    /// The body of the end of a TCP connection.
    pub struct Closed [64] {
        /// The connection.
        pub socket: Socket,
        /// Bytes of data sent, each counted once.
        pub bytes_sent: u64,
        /// Bytes of data received.
        pub bytes_received: u64,
    }
}

wire! {
    /// The body of a connect on a Unix socket, or of a message sent to an address on one.
    ///
    /// Strings: the listener's own `Path`; or, where that is not known, the path as `Given` and the `Directory` that it
    /// starts from; or the abstract name as `Text`.
    pub struct Unix [24] {
        /// Why it failed, as a positive errno; 0 where it succeeded.
        pub errno: u32,
        /// `SOCK_STREAM`, `SOCK_DGRAM`, ...
        pub socket_type: u32,
        /// The process that listens; 0 where it is not known.
        pub peer_tgid: u32,
        /// Its effective user; `u32::MAX` where it is not known.
        pub peer_uid: u32,
        /// See the constants beginning with `UNIX_`.
        pub flags: u32,
        /// Zero.
        pub reserved: u32,
    }
}

/// The name is as the process gave it.
pub const UNIX_AS_GIVEN: u32 = 1;
/// The name is an abstract one, and no path.
pub const UNIX_ABSTRACT: u32 = 2;
