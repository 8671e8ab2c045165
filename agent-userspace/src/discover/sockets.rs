//! Who is connected to what answers agents, and who listens as such: by the kernel's tables of TCP sockets.
//!
//! Input: the tables of each network namespace that a process is in, and the descriptors of processes. Output: evidence.
//! Descriptors are only looked at where some socket matters. Refuses: to look names up, or to connect.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::net::{IpAddr, SocketAddr};

use super::identify::{Identified, Run};
use super::{Evidence, Kind, Proof, Seen};
use crate::attribute::procfs::ProcFs;
use crate::attribute::tcp::{Socket, sockets};
use crate::config::catalogue::Catalogue;
use crate::scope::recorded::readable;

/// The most network namespaces that are looked into.
const MOST_NAMESPACES: usize = 256;
/// What a socket shows of whoever holds it.
#[derive(Clone, Debug)]
struct Shows {
    proof: Proof,
    server: String,
    address: SocketAddr,
}

/// Adds to what was found by images and scripts: evidence to those, and who was found by a socket alone.
pub(super) fn add(
    proc: &ProcFs,
    catalogue: &Catalogue,
    processes: &BTreeMap<u32, Seen>,
    found: &mut HashMap<u32, Identified>,
) {
    let tables = tables(proc, processes);
    let servers = serving(proc, &tables, found);
    let mut shows: HashMap<u64, Shows> = HashMap::new();
    for socket in tables.iter().flatten() {
        let address = if socket.is_listening { socket.local } else { socket.remote };
        let server = servers.get(&address.port()).filter(|_| is_own(address.ip())).cloned();
        let server = server.or_else(|| catalogue.model_server_at(address).map(|server| server.name.value.clone()));
        let Some(server) = server else { continue };
        let proof = if socket.is_listening { Proof::Listening } else { Proof::Connection };
        shows.insert(socket.inode, Shows { proof, server, address });
    }
    if shows.is_empty() {
        return;
    }
    for seen in processes.values() {
        let held: HashSet<u64> = proc.sockets(seen.tgid).into_iter().collect();
        let mut evidence: Vec<(Kind, String, Evidence)> =
            held.iter().filter_map(|inode| shows.get(inode)).map(|shows| shows.told()).collect();
        evidence.sort_by(|a, b| a.2.cmp(&b.2));
        evidence.dedup();
        add_to(seen, evidence, found);
    }
}

impl Shows {
    fn told(&self) -> (Kind, String, Evidence) {
        let kind = if self.proof == Proof::Listening { Kind::ModelServer } else { Kind::ModelClient };
        let because = format!("{}: model server", self.server);
        (kind, self.server.clone(), Evidence { kind: self.proof, what: self.address.to_string(), because })
    }
}

fn add_to(seen: &Seen, evidence: Vec<(Kind, String, Evidence)>, found: &mut HashMap<u32, Identified>) {
    // Who listens as a server answers others, whatever it is connected to itself.
    let Some((kind, server, _)) = evidence.iter().max_by_key(|(kind, _, _)| *kind).cloned() else { return };
    let identified = found.entry(seen.tgid).or_insert_with(|| {
        let name = if kind == Kind::ModelServer { server } else { program(seen) };
        Identified { name, kind, evidence: Vec::new(), run: Run::Image }
    });
    identified.evidence.extend(evidence.into_iter().map(|(_, _, evidence)| evidence));
}

/// What to call a program that the catalogue has no name for.
fn program(seen: &Seen) -> String {
    readable(seen.executable.rsplit(|byte| *byte == b'/').next().unwrap_or_default()).0
}

/// The sockets of each network namespace.
fn tables(proc: &ProcFs, processes: &BTreeMap<u32, Seen>) -> Vec<Vec<Socket>> {
    let mut seen: HashSet<Option<Vec<u8>>> = HashSet::new();
    let mut tables = Vec::new();
    for &tgid in processes.keys() {
        if seen.len() >= MOST_NAMESPACES || !seen.insert(proc.network_namespace(tgid)) {
            continue;
        }
        tables.push(sockets(proc, tgid));
    }
    tables
}

/// The ports that found model servers listen at.
fn serving(proc: &ProcFs, tables: &[Vec<Socket>], found: &HashMap<u32, Identified>) -> HashMap<u16, String> {
    let mut ports = HashMap::new();
    for (&tgid, server) in found.iter().filter(|(_, identified)| identified.kind == Kind::ModelServer) {
        let held: HashSet<u64> = proc.sockets(tgid).into_iter().collect();
        let listening = tables.iter().flatten().filter(|socket| socket.is_listening && held.contains(&socket.inode));
        ports.extend(listening.map(|socket| (socket.local.port(), server.name.clone())));
    }
    ports
}

/// Whether an address is this host's own, as far as can be told from it: of a loopback, or any.
fn is_own(address: IpAddr) -> bool {
    address.is_loopback() || address.is_unspecified()
}
