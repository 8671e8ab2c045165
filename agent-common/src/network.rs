//! Network: connect.

use crate::wire;

wire! {
    /// The body of a connect on an IPv4 or IPv6 socket. It has no strings.
    pub struct Connect [48] {
        /// The remote address; an IPv4 one in the first four bytes.
        pub remote: [u8; 16],
        /// The local address, all zero where there is none.
        pub local: [u8; 16],
        /// The remote port.
        pub remote_port: u16,
        /// The local port, 0 where there is none.
        pub local_port: u16,
        /// `AF_INET` or `AF_INET6`.
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
