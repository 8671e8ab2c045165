//! Sockets: addresses of one's own, what is taken and sent, bytes, Unix peers, and descriptors that come over them.

use std::fs::File;
use std::io::{IoSlice, Read};
use std::mem::MaybeUninit;
use std::net::TcpListener;
use std::os::fd::AsFd;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener};
use std::time::Duration;

use bailiwick_tests::bounded;
use bailiwick_tests::declaration::Declaration;
use bailiwick_tests::entries::Entries;
use bailiwick_tests::instance::{Instance, both_sets};
use bailiwick_tests::requirement::Requirement::Tier2;
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
use serde_json::json;

/// Runs a script of Python's as an agent, and returns the trail.
fn trail_of(instance: &Instance, script: &str) -> Entries {
    instance.run("sockets", &["python3", "-c", script]).success();
    instance.synced_trail()
}

fn with(trail: &Entries, event: &str, name: &str, value: impl Into<serde_json::Value>) -> Entries {
    let value = value.into();
    trail.event(event).filter(|entry| entry["attributes"][name] == value)
}

const TCP: &str = r#"
import socket, threading
server = socket.socket(); server.bind(("127.0.0.1", 0)); server.listen(5)
port = server.getsockname()[1]
def serve():
    peer, _ = server.accept()
    got = b""
    while len(got) < 1000: got += peer.recv(4096)
    peer.sendall(b"y" * 2000); peer.close()
thread = threading.Thread(target=serve); thread.start()
client = socket.create_connection(("127.0.0.1", port))
client.sendall(b"x" * 1000)
got = b""
while True:
    part = client.recv(4096)
    if not part: break
    got += part
client.close(); thread.join(); server.close()
assert len(got) == 2000
"#;

#[test]
fn a_server_and_its_client_are_told_of_with_both_ends_and_the_bytes() {
    for setup in both_sets(&[Tier2]) {
        let instance = setup.agent(&Declaration::new("sockets")).start();
        let trail = trail_of(&instance, TCP);
        let bound = trail.event("network.bind");
        assert_eq!(bound.only()["attributes"]["network.local.address"], "127.0.0.1");
        let listened = trail.event("network.listen");
        let port = listened.only()["attributes"]["network.local.port"].clone();
        let accepted = trail.event("network.accept");
        let accept = &accepted.only()["attributes"];
        assert_eq!((&accept["client.address"], &accept["network.local.port"]), (&json!("127.0.0.1"), &port));
        assert_eq!(with(&trail, "network.connect", "server.port", port.clone()).len(), 1);
        let bytes = |sent: u64, received: u64| {
            trail.event("network.close").filter(|entry| {
                let attributes = &entry["attributes"];
                attributes["bailiwick.network.bytes_sent"] == sent
                    && attributes["bailiwick.network.bytes_received"] == received
            })
        };
        assert_eq!(bytes(1000, 2000).len(), 1, "the client's end: {:#?}", trail.event("network.close").0);
        assert_eq!(bytes(2000, 1000).len(), 1, "the server's end: {:#?}", trail.event("network.close").0);
    }
}

const DATAGRAMS: &str = r#"
import socket
sink = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); sink.bind(("127.0.0.1", 0))
to = sink.getsockname()
out = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
for _ in range(40): out.sendto(b"x", to)
for _ in range(2): out.sendmsg([b"x"], [], 0, to)
six = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM); six.sendto(b"x", ("::1", 9))
socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0).close()
socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP).close()
socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE).close()
fast = socket.socket()
try: fast.sendto(b"x", 0x20000000, ("127.0.0.1", 9))
except OSError: pass
"#;

#[test]
fn what_is_sent_without_a_connection_is_counted_by_address() {
    for setup in both_sets(&[Tier2]) {
        let instance = setup
            .agent(
                &Declaration::new("sockets")
                    .with("[scope.network]\nconnect = [\"127.0.0.1:*\"]\n[scope.privileges]\nallow = [\"raw\"]"),
            )
            .start();
        let trail = trail_of(&instance, DATAGRAMS);
        let v4 = with(&trail, "network.send", "server.address", "127.0.0.1");
        assert_eq!(v4.count(), 42, "{:#?}", v4.0);
        assert!(v4.len() < 10, "repeats were not folded: {} entries", v4.len());
        assert!(v4.0.iter().all(|entry| entry["verdict"] == "in_scope"), "{:#?}", v4.0);
        let v6 = with(&trail, "network.send", "server.address", "::1");
        assert_eq!((v6.count(), &v6.only()["verdict"]), (1, &json!("out_of_scope")));
        let raw = trail.event("network.raw");
        assert_eq!(raw.len(), 2, "{:#?}", raw.0);
        assert!(raw.0.iter().all(|entry| entry["verdict"] == "in_scope"), "{:#?}", raw.0);
        assert!(!trail.event("network.netlink").is_empty());
        // TCP fast open connects by sending.
        assert_eq!(with(&trail, "network.connect", "server.port", 9).len(), 1);
    }
}

#[test]
fn a_unix_connection_names_the_listeners_own_path_and_its_process() {
    for setup in both_sets(&[Tier2]) {
        let place = bailiwick_tests::workload::Place::new();
        let dir = place.files("sockets", 0);
        let path = dir.join("real.sock");
        let _listener = UnixListener::bind(&path).unwrap();
        let link = dir.join("link.sock");
        std::os::unix::fs::symlink(&path, &link).unwrap();
        let name = format!("bailiwick-test-{}", std::process::id());
        let _named = UnixListener::bind_addr(&SocketAddr::from_abstract_name(&name).unwrap()).unwrap();
        let scope = format!("[scope.unix]\nconnect = [\"{}\"]", path.display());
        let instance = setup.agent(&Declaration::new("sockets").with(&scope)).start();
        let script = format!(
            "import socket\n\
         for name in [{link:?}, \"\\0{name}\", {gone:?}]:\n\
         \x20   s = socket.socket(socket.AF_UNIX)\n\
         \x20   try: s.connect(name)\n\
         \x20   except OSError: pass\n\
         socket.socket(socket.AF_UNIX).bind({made:?})\n",
            link = link.display().to_string(),
            gone = dir.join("gone.sock").display().to_string(),
            made = dir.join("made.sock").display().to_string(),
        );
        let trail = trail_of(&instance, &script);
        let by_path = with(&trail, "unix.connect", "bailiwick.unix.path", path.display().to_string());
        let entry = by_path.only();
        assert_eq!(entry["attributes"]["bailiwick.peer.tgid"], std::process::id(), "{entry:#}");
        assert!(entry["attributes"]["bailiwick.peer.executable"].is_string(), "{entry:#}");
        assert_eq!(entry["verdict"], "in_scope", "{entry:#}");
        let by_name = with(&trail, "unix.connect", "bailiwick.unix.abstract", name);
        assert_eq!(by_name.only()["attributes"]["bailiwick.peer.tgid"], std::process::id());
        assert_eq!(by_name.only()["verdict"], "out_of_scope");
        let gone = with(&trail, "unix.connect", "error.type", "ENOENT").filter(|entry| {
            entry["attributes"]["bailiwick.unix.path"].as_str().is_some_and(|path| path.ends_with("/gone.sock"))
        });
        assert_eq!(gone.only()["verdict"], "none");
        let made = with(&trail, "file.create", "file.path", dir.join("made.sock").display().to_string());
        assert_eq!(made.only()["attributes"]["bailiwick.syscall"], "bind");
    }
}

#[test]
fn a_descriptor_that_comes_over_a_socket_is_told_of_as_the_file_and_judged() {
    for setup in both_sets(&[Tier2]) {
        let place = bailiwick_tests::workload::Place::new();
        let dir = place.files("sent", 1);
        let path = dir.join("socket");
        let listener = UnixListener::bind(&path).unwrap();
        let scope = "[scope.unix]\nconnect = [\"/**\"]\n[scope.files]\nread = [\"/usr/**\", \"/etc/**\"]";
        let instance = setup.agent(&Declaration::new("sockets").with(scope)).start();
        let script = format!(
            "import socket, os\ns = socket.socket(socket.AF_UNIX)\ns.connect({:?})\n\
         data, fds, _, _ = socket.recv_fds(s, 10, 4)\nassert os.read(fds[0], 10) is not None\n",
            path.display().to_string()
        );
        let running = instance.spawn("sockets", &["python3", "-c", &script]);
        let (mut peer, _) = listener.accept().unwrap();
        let file = File::open(dir.join("f0")).unwrap();
        let mut room = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(2))];
        let mut control = SendAncillaryBuffer::new(&mut room);
        let descriptors = [file.as_fd(), peer.as_fd()];
        assert!(control.push(SendAncillaryMessage::ScmRights(&descriptors)));
        sendmsg(&peer, &[IoSlice::new(b"x")], &mut control, SendFlags::empty()).unwrap();
        let mut rest = Vec::new();
        let _ = peer.read_to_end(&mut rest);
        running.finish(bailiwick_tests::workload::DEADLINE).success();

        let trail = instance.synced_trail();
        let received = trail.event("fd.receive");
        assert_eq!(received.len(), 2, "{:#?}", received.0);
        let of_file = with(&trail, "fd.receive", "file.path", dir.join("f0").display().to_string());
        let entry = of_file.only();
        assert_eq!(
            (&entry["attributes"]["bailiwick.file.access"], &entry["verdict"]),
            (&json!("r"), &json!("out_of_scope"))
        );
        let of_socket = with(&trail, "fd.receive", "bailiwick.file.internal", true);
        assert_eq!(of_socket.only()["verdict"], "none");
    }
}

#[test]
fn a_signal_to_a_process_outside_the_session_is_told_of_and_one_inside_is_not() {
    for setup in both_sets(&[Tier2]) {
        let instance = setup.agent(&Declaration::new("sockets")).start();
        let script =
            format!("sleep 30 & inside=$!; kill -URG $inside; kill -URG {}; kill $inside; wait", std::process::id());
        instance.run("sockets", &["sh", "-c", &script]).success();
        let trail = instance.synced_trail();
        let sent = trail.event("privilege.signal");
        let entry = sent.only();
        assert_eq!(entry["attributes"]["bailiwick.target.tgid"], std::process::id(), "{entry:#}");
        assert_eq!(entry["attributes"]["bailiwick.signal"], 23, "{entry:#}");
    }
}

/// Sends until nobody takes any more, and ends with its connection open.
const LEAVES_OPEN: &str = r#"
import socket, sys
out = socket.create_connection(("127.0.0.1", int(sys.argv[1])))
out.setblocking(False)
try:
    while True: out.send(b"x" * 65536)
except BlockingIOError: pass
"#;

const WITHIN: Duration = Duration::from_secs(10);

#[test]
fn the_end_of_a_connection_that_outlives_its_session_stands_behind_the_sessions_end() {
    for setup in both_sets(&[Tier2]) {
        let instance = setup.agent(&Declaration::new("sockets")).start();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        instance.run("sockets", &["python3", "-c", LEAVES_OPEN, &port.to_string()]).success();
        let (peer, _) = listener.accept().unwrap();
        bounded::until("the session's end", WITHIN, || !instance.trail().event("session.end").is_empty());
        assert_eq!(
            with(&instance.trail(), "network.close", "server.port", port).len(),
            0,
            "nobody has taken what was sent"
        );
        // What was sent is unread: the kernel resets the connection.
        drop(peer);
        bounded::until("the connection's end", WITHIN, || {
            instance.sync();
            !with(&instance.trail(), "network.close", "server.port", port).is_empty()
        });
        let trail = instance.trail();
        let (end, closed) = (trail.event("session.end"), with(&trail, "network.close", "server.port", port));
        assert_eq!(closed.only()["session"], end.only()["session"]);
        assert_eq!(closed.only()["agent"], "sockets");
        assert!(closed.only()["seq"].as_u64() > end.only()["seq"].as_u64());
        assert!(closed.only()["attributes"]["bailiwick.network.bytes_sent"].as_u64() > Some(65_536), "{closed:#?}");
        assert_eq!(trail.event("gap").len(), 0, "{:#?}", trail.event("gap").0);
    }
}
