//! Connects to what it is told and says what became of it.
//!
//! `connector KIND ADDRESS:PORT [KIND ADDRESS:PORT]...`, where KIND is `tcp`, `tcp-nonblocking` or `udp`, prints one JSON
//! object: `{"tgid", "connects": [{"transport", "type", "address", "port", "errno"}]}`; `errno` is null where the call
//! succeeded or is under way. It listens on nothing, and reads and sends nothing.

use std::io::{self, Write};
use std::net::SocketAddr;

use anyhow::{Context, bail};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, connect, socket_with};
use serde_json::{Value, json};

fn connect_to(kind: &str, target: &str) -> anyhow::Result<Value> {
    let address: SocketAddr = target.parse().with_context(|| format!("{target} is no ADDRESS:PORT"))?;
    let (transport, socket_type, flags) = match kind {
        "tcp" => ("tcp", SocketType::STREAM, SocketFlags::CLOEXEC),
        "tcp-nonblocking" => ("tcp", SocketType::STREAM, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK),
        "udp" => ("udp", SocketType::DGRAM, SocketFlags::CLOEXEC),
        _ => bail!("{kind} is none of tcp, tcp-nonblocking, udp"),
    };
    let (family, network) = match address {
        SocketAddr::V4(_) => (AddressFamily::INET, "ipv4"),
        SocketAddr::V6(_) => (AddressFamily::INET6, "ipv6"),
    };

    let socket = socket_with(family, socket_type, flags, None)?;
    let errno = match connect(&socket, &address) {
        Ok(()) | Err(Errno::INPROGRESS) => None,
        Err(Errno::CONNREFUSED) => Some("ECONNREFUSED"),
        Err(error) => bail!("{kind} {target}: {error}"),
    };
    let (ip, port) = (address.ip().to_string(), address.port());
    Ok(json!({"transport": transport, "type": network, "address": ip, "port": port, "errno": errno}))
}

fn main() -> anyhow::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let (pairs, rest) = arguments.as_chunks::<2>();
    if pairs.is_empty() || !rest.is_empty() {
        bail!("usage: connector KIND ADDRESS:PORT [KIND ADDRESS:PORT]...");
    }
    let connects: Result<Vec<_>, _> = pairs.iter().map(|[kind, target]| connect_to(kind, target)).collect();
    writeln!(io::stdout(), "{}", json!({"tgid": std::process::id(), "connects": connects?}))?;
    Ok(())
}
