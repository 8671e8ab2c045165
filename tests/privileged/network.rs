//! Connections.

use std::collections::BTreeMap;
use std::net::{TcpListener, UdpSocket};

use bailiwick_tests::declaration::Declaration;
use bailiwick_tests::instance::Instance;
use bailiwick_tests::requirement::Requirement::Tier2;
use bailiwick_tests::requirement::require;
use serde_json::{Value, json};

/// Address, port, transport, type, errno.
type Key = [String; 5];

fn key(value: &Value, names: [&str; 5]) -> Key {
    names.map(|name| match &value[name] {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    })
}

const TRAIL: [&str; 5] = ["server.address", "server.port", "network.transport", "network.type", "error.type"];
const WORKLOAD: [&str; 5] = ["address", "port", "transport", "type", "errno"];

#[test]
fn connections_over_both_transports_and_families_are_counted_with_their_errors() {
    if !require(&[Tier2]) {
        return;
    }
    let instance = Instance::start(&[Declaration::new("connector")]);
    let connector = instance.place().copy_of("connector", "agent-connector");
    let tcp = ["127.0.0.1:0", "[::1]:0"].map(|address| TcpListener::bind(address).unwrap());
    let udp = ["127.0.0.1:0", "[::1]:0"].map(|address| UdpSocket::bind(address).unwrap());
    // A port that was free a moment ago refuses.
    let refusing = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();

    let mut command = vec![connector.display().to_string()];
    let mut add = |kind: &str, address: std::net::SocketAddr| command.extend([kind.to_owned(), address.to_string()]);
    for listener in &tcp {
        let address = listener.local_addr().unwrap();
        ["tcp", "tcp", "tcp-nonblocking"].into_iter().for_each(|kind| add(kind, address));
    }
    udp.iter().for_each(|socket| add("udp", socket.local_addr().unwrap()));
    add("tcp", refusing);
    let said = instance.run("connector", &command).success().json();

    let mut expected: BTreeMap<Key, u64> = BTreeMap::new();
    for connect in said["connects"].as_array().unwrap() {
        *expected.entry(key(connect, WORKLOAD)).or_default() += 1;
    }
    assert_eq!(expected.len(), 5, "the workload itself: {expected:?}");
    let trail = instance.synced_trail();
    let connects = trail.event("network.connect");
    let mut found: BTreeMap<Key, u64> = BTreeMap::new();
    for entry in &connects.0 {
        assert_eq!(entry["process"]["tgid"], said["tgid"]);
        *found.entry(key(&entry["attributes"], TRAIL)).or_default() += entry["count"].as_u64().unwrap();
    }
    assert_eq!(found, expected);
    for entry in connects.filter(|entry| entry["attributes"]["error.type"].is_null()).0 {
        let local = &entry["attributes"];
        assert_eq!(local["network.local.address"], local["server.address"], "both ends are on loopback: {entry}");
        assert!(local["network.local.port"].as_u64().is_some_and(|port| port > 0), "{entry}");
    }
}

#[test]
fn a_connection_is_judged_by_address_and_port() {
    if !require(&[Tier2]) {
        return;
    }
    let granted = TcpListener::bind("127.0.0.1:0").unwrap();
    let other = TcpListener::bind("127.0.0.1:0").unwrap();
    let granted = granted.local_addr().unwrap();
    let scope =
        format!("[scope]\ninclude = [\"base\"]\n[scope.network]\nconnect = [\"127.0.0.0/8:{}\"]", granted.port());
    let instance = Instance::start(&[Declaration::new("judged").with(&scope)]);
    let connector = instance.place().copy_of("connector", "agent-connector");
    let other = other.local_addr().unwrap();
    let command = [connector.display().to_string(), "tcp".into(), granted.to_string(), "tcp".into(), other.to_string()];
    instance.run("judged", &command);

    let connects = instance.synced_trail().event("network.connect");
    let to = |port: u16| connects.filter(|entry| entry["attributes"]["server.port"] == port).only().clone();
    let (granted, other) = (to(granted.port()), to(other.port()));
    assert_eq!((&granted["verdict"], &granted["reason"]["kind"]), (&json!("in_scope"), &json!("grant")));
    assert_eq!((&other["verdict"], &other["reason"]["kind"]), (&json!("out_of_scope"), &json!("nearest")));
    assert!(other["reason"]["text"].as_str().unwrap().contains("127.0.0.0/8"), "{other}");
}
