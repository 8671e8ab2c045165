//! TCP sockets, by the kernel's own tables in `/proc`.
//!
//! Input: a process, whose network namespace counts. Output: its connections, and what waits for some. A row that cannot be
//! read is passed over.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::procfs::ProcFs;

/// As `net/tcp_states.h` has them.
const ESTABLISHED: u8 = 1;
const LISTEN: u8 = 10;

/// A connection, or a socket that waits for some.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Socket {
    /// Its own end.
    pub local: SocketAddr,
    /// The other end.
    pub remote: SocketAddr,
    /// Whether it waits for connections.
    pub is_listening: bool,
    /// The kernel's number for it, which descriptors name.
    pub inode: u64,
}

/// The sockets of a process's network namespace.
pub fn sockets(proc: &ProcFs, tgid: u32) -> Vec<Socket> {
    let table = |name| proc.socket_table(tgid, name).unwrap_or_default();
    ["tcp", "tcp6"].into_iter().flat_map(|name| rows(&table(name))).collect()
}

/// The rows of a table that are connections, or wait for some.
fn rows(table: &str) -> Vec<Socket> {
    table.lines().skip(1).filter_map(row).collect()
}

fn row(line: &str) -> Option<Socket> {
    let mut fields = line.split_ascii_whitespace();
    let local = address(fields.nth(1)?)?;
    let remote = address(fields.next()?)?;
    let state = u8::from_str_radix(fields.next()?, 16).ok()?;
    let inode = fields.nth(5)?.parse().ok()?;
    let is_listening = state == LISTEN;
    (is_listening || state == ESTABLISHED).then_some(Socket { local, remote, is_listening, inode })
}

/// An address as the kernel prints it: words of 32 bits in the host's order, each as a number.
fn address(text: &str) -> Option<SocketAddr> {
    let (address, port) = text.split_once(':')?;
    let port = u16::from_str_radix(port, 16).ok()?;
    let word = |at: usize| u32::from_str_radix(address.get(at..at + 8)?, 16).ok().map(u32::to_ne_bytes);
    let ip = match address.len() {
        8 => IpAddr::V4(Ipv4Addr::from(word(0)?)),
        32 => {
            let words = [word(0)?, word(8)?, word(16)?, word(24)?].concat();
            let bytes: [u8; 16] = words.try_into().ok()?;
            // What came over IPv4 counts as that.
            Ipv6Addr::from(bytes).to_canonical()
        }
        _ => return None,
    };
    Some(SocketAddr::new(ip, port))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;

    #[test]
    fn addresses_are_read_as_the_kernel_prints_them() {
        assert_eq!(address("0100007F:2CAA").unwrap().to_string(), "127.0.0.1:11434");
        let mapped = "0000000000000000FFFF00000100007F:0050";
        assert_eq!(address(mapped).unwrap().to_string(), "127.0.0.1:80");
        assert_eq!(address("00000000000000000000000001000000:01BB").unwrap().to_string(), "[::1]:443");
        assert_eq!(address("x"), None);
    }

    #[test]
    fn only_connections_and_what_waits_for_them_count() {
        let table = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n   \
                     0: 0100007F:2CAA 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 4711 1 0\n   \
                     1: 0100007F:9C40 0100007F:2CAA 01 00000000:00000000 00:00000000 00000000     0        0 4712 1 0\n   \
                     2: 0100007F:9C41 0100007F:2CAA 06 00000000:00000000 03:00000000 00000000     0        0 0 3 0\n";
        let rows = rows(table);
        assert_eq!(
            rows.iter().map(|row| (row.inode, row.is_listening)).collect::<Vec<_>>(),
            [(4711, true), (4712, false)]
        );
    }
}
