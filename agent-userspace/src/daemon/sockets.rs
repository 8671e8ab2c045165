//! What is done with sockets: connections, addresses of one's own, what is sent, Unix sockets.

use std::net::SocketAddr;

use agent_common::RecordKind;

use super::acts::place_of;
use super::afterwards::LastName;
use super::drafts::Compose;
use super::pipeline::Pipeline;
use crate::decode::{Closed, Head, Sent, Socket, Text, Unix, UnixName};
use crate::entry::Timestamp;
use crate::observation::event_of;
use crate::scope::{self, SeenPath, UnixAddress};

impl Pipeline {
    pub(super) fn record_socket(&mut self, session: u64, head: &Head, socket: &Socket, time: Timestamp) {
        let draft = self.socket_draft(session, head, socket, time);
        self.push_composed(session, draft);
    }

    pub(super) fn socket_draft(&self, session: u64, head: &Head, socket: &Socket, time: Timestamp) -> Option<Compose> {
        let mut compose = self.compose(session, head, time, event_of(socket.kind))?;
        compose.socket(socket);
        let action = match socket.kind {
            RecordKind::Connect if socket.vsock.is_none() => Some(scope::Action::Connect { address: socket.remote }),
            RecordKind::Bind | RecordKind::Listen => socket.local.map(|address| scope::Action::Listen { address }),
            RecordKind::Raw => Some(scope::Action::Privilege { name: "raw" }),
            _ => None,
        };
        if let Some(action) = action {
            self.judge(session, &mut compose, &action, errno(socket.errno));
        }
        Some(compose)
    }

    pub(super) fn record_sent(&mut self, session: u64, head: &Head, sent: &Sent, time: Timestamp) {
        let Some(mut compose) = self.compose(session, head, time, "network.send") else { return };
        compose.socket(&sent.socket);
        let action = scope::Action::Connect { address: sent.socket.remote };
        self.judge(session, &mut compose, &action, errno(sent.socket.errno));
        self.push_counted(session, &sent.count, compose.draft);
    }

    pub(super) fn record_closed(&mut self, session: u64, head: &Head, closed: &Closed, time: Timestamp) {
        let Some(mut compose) = self.compose(session, head, time, "network.close") else { return };
        compose.closed(closed);
        self.push(session, compose.draft);
    }

    pub(super) fn record_unix(&mut self, session: u64, head: &Head, unix: &Unix, time: Timestamp) {
        let Some(mut compose) = self.compose(session, head, time, "unix.connect") else { return };
        compose.set("network.transport", "unix");
        let place = match &unix.name {
            UnixName::Path(path) => Some(path.clone()),
            UnixName::Given(named) => {
                compose.set("bailiwick.network.as_given", true);
                Some(place_of(head.process.tgid, named, LastName::Followed).path)
            }
            UnixName::Abstract(_) => None,
        };
        let abstract_name = match &unix.name {
            UnixName::Abstract(name) => name.clone(),
            UnixName::Path(_) | UnixName::Given(_) => Text::default(),
        };
        let address = match &place {
            Some(path) => {
                compose.text("bailiwick.unix.path", path);
                UnixAddress::Path(SeenPath { bytes: &path.bytes, cut: path.cut })
            }
            None => {
                compose.text("bailiwick.unix.abstract", &abstract_name);
                UnixAddress::Abstract(&abstract_name.bytes)
            }
        };
        if let Some(tgid) = unix.peer_tgid {
            compose.set("bailiwick.peer.tgid", tgid);
            if let Some(executable) = self.attributor.executable_of(tgid) {
                compose.bytes("bailiwick.peer.executable", &executable);
            }
        }
        if let Some(uid) = unix.peer_uid {
            compose.set("bailiwick.peer.user.id", uid);
        }
        compose.error(unix.errno);
        self.judge(session, &mut compose, &scope::Action::Unix { address }, errno(unix.errno));
        self.push(session, compose.draft);
    }
}

fn errno(errno: u32) -> Option<u32> {
    (errno != 0).then_some(errno)
}

impl Compose {
    /// The end of a connection.
    pub(super) fn closed(&mut self, closed: &Closed) {
        self.socket(&closed.socket);
        self.set("bailiwick.network.bytes_sent", closed.bytes_sent);
        self.set("bailiwick.network.bytes_received", closed.bytes_received);
    }

    /// What a socket says.
    pub(super) fn socket(&mut self, socket: &Socket) {
        let far = match socket.kind {
            RecordKind::Accept => Some("client"),
            RecordKind::Connect | RecordKind::Send | RecordKind::Close => Some("server"),
            _ => None,
        };
        if let Some((context, port)) = socket.vsock {
            self.set("bailiwick.vsock.context", context);
            self.set("bailiwick.vsock.port", port);
        } else if let Some(far) = far {
            self.address(far, socket.remote);
        }
        self.set("network.transport", transport(socket));
        match socket.family {
            AF_INET | AF_INET6 => {
                let address = if far.is_some() { Some(socket.remote) } else { socket.local };
                if let Some(address) = address {
                    self.set("network.type", if address.is_ipv4() { "ipv4" } else { "ipv6" });
                }
            }
            family => self.set("bailiwick.network.family", family_name(family)),
        }
        if matches!(socket.kind, RecordKind::Raw | RecordKind::Netlink) {
            self.set("bailiwick.network.protocol", socket.protocol);
        }
        if let Some(local) = socket.local {
            self.address("network.local", local);
        }
        if socket.as_given {
            self.set("bailiwick.network.as_given", true);
        }
        self.error(socket.errno);
    }

    fn address(&mut self, of: &str, address: SocketAddr) {
        self.set(&format!("{of}.address"), address.ip().to_string());
        self.set(&format!("{of}.port"), address.port());
    }
}

const AF_INET: u16 = 2;
const AF_INET6: u16 = 10;

fn transport(socket: &Socket) -> &'static str {
    const SOCK_STREAM: u16 = 1;
    const SOCK_DGRAM: u16 = 2;
    if socket.kind == RecordKind::Raw {
        return "raw";
    }
    match (socket.family, socket.socket_type) {
        (AF_INET | AF_INET6, SOCK_STREAM) => "tcp",
        (AF_INET | AF_INET6, SOCK_DGRAM) => "udp",
        (40, _) => "vsock",
        (16, _) => "netlink",
        _ => "raw",
    }
}

fn family_name(family: u16) -> String {
    let name = match family {
        15 => "key",
        16 => "netlink",
        17 => "packet",
        21 => "rds",
        29 => "can",
        30 => "tipc",
        31 => "bluetooth",
        38 => "alg",
        40 => "vsock",
        42 => "qipcrtr",
        43 => "smc",
        44 => "xdp",
        other => return other.to_string(),
    };
    name.to_owned()
}
