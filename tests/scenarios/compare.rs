//! A trail's session against what `strace` saw, as sets with counts, both ways.
//!
//! What is made equal before the comparison, and why (`bailiwick_tests::strace` lists what it leaves out itself):
//!
//! 1. A `file.create` is an open: `strace` cannot tell whether `O_CREAT` created. What the trail calls a creation must
//!    have asked for it.
//! 2. The path of a failed open is compared by its letters, without `.`, `..` and doubled slashes: there is no file whose
//!    name could be resolved.
//! 3. An exec is compared by the path as it was given: `strace` does not see which file that was. Which one it was is
//!    compared after the fact, with what the file system says of the path.
//! 4. A process is its id alone: `strace` does not see start times, and the run is too short for an id to come again.
//! 5. A failed exec is compared without its arguments: they stand in the image that was not exchanged, where nobody can
//!    read them after the call.
//! 6. An exec is compared without its first argument: that of a script is exchanged by the kernel for the script's path,
//!    and `strace` does not see what is a script.
//! 7. What a process did before the session's first exec belongs to `bailiwick run`, on both sides.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;
use std::path::Path;

use bailiwick_tests::entries::Entries;
use bailiwick_tests::strace::{ACTS, Act, Connect, Exec, Observed, normalised};
use bailiwick_tests::workload::Open;
use serde_json::Value;

/// Holds a session's entries against what was observed.
#[track_caller]
pub(crate) fn session(entries: &Entries, observed: &Observed) {
    let entries = after_first_exec(entries, observed.root);
    same("processes", &as_counts(entries.processes()), &as_counts(observed.processes.clone()));
    same("forks", &as_counts(forks(&entries)), &as_counts(observed.forks.clone()));
    same("execs", &execs(&entries), &observed_execs(observed));
    same("opens", &opens(&entries), &observed_opens(observed));
    same("connects", &connects(&entries), &observed.connects);
    same("changes and privileges", &acts(&entries), &observed.acts);
    creations(&entries, observed);
    images(&entries);
}

/// Normalisation 7.
fn after_first_exec(entries: &Entries, root: u64) -> Entries {
    let is_exec = |entry: &Value| {
        entry["event"] == "process.exec"
            && entry["process"]["tgid"] == root
            && entry["attributes"]["error.type"].is_null()
    };
    let first = entries.0.iter().find(|entry| is_exec(entry)).expect("the session has an exec of its root");
    let time = first["time"].as_str().unwrap().to_owned();
    entries.filter(|entry| entry["process"]["tgid"] != root || entry["time"].as_str() >= Some(&time))
}

#[track_caller]
fn same<K: Ord + Debug>(what: &str, trail: &BTreeMap<K, u64>, observed: &BTreeMap<K, u64>) {
    let missing: Vec<_> = observed.iter().filter(|(key, count)| trail.get(key) != Some(count)).collect();
    let surplus: Vec<_> = trail.iter().filter(|(key, count)| observed.get(key) != Some(count)).collect();
    assert!(
        missing.is_empty() && surplus.is_empty(),
        "{what}: {} of {} differ\nstrace saw, with how often: {missing:#?}\nthe trail has: {surplus:#?}",
        missing.len().max(surplus.len()),
        observed.len(),
    );
}

fn as_counts<K: Ord>(set: BTreeSet<K>) -> BTreeMap<K, u64> {
    set.into_iter().map(|key| (key, 1)).collect()
}

fn text(entry: &Value, name: &str) -> String {
    entry["attributes"][name].as_str().unwrap_or_else(|| panic!("no {name}: {entry}")).to_owned()
}

fn optional(entry: &Value, name: &str) -> Option<String> {
    entry["attributes"][name].as_str().map(str::to_owned)
}

fn tgid(entry: &Value) -> u64 {
    entry["process"]["tgid"].as_u64().unwrap_or_else(|| panic!("no process: {entry}"))
}

fn count(entry: &Value) -> u64 {
    entry["count"].as_u64().unwrap_or_else(|| panic!("no count: {entry}"))
}

fn forks(entries: &Entries) -> BTreeSet<(u64, u64)> {
    let child = |entry: &Value| entry["attributes"]["bailiwick.child.tgid"].as_u64().expect("a fork has a child");
    entries.event("process.fork").0.iter().map(|entry| (tgid(entry), child(entry))).collect()
}

/// Normalisations 3, 5 and 6.
fn execs(entries: &Entries) -> BTreeMap<Exec, u64> {
    let mut counts = BTreeMap::new();
    for entry in &entries.event("process.exec").0 {
        let given = text(entry, "bailiwick.exec.given");
        let errno = optional(entry, "error.type");
        if errno.is_some() {
            *counts.entry(Exec { tgid: tgid(entry), given, arguments: Vec::new(), errno }).or_default() += count(entry);
            continue;
        }
        let words = entry["attributes"]["process.command_args"].as_array().expect("an exec has arguments");
        let mut arguments: Vec<String> =
            words.iter().map(|word| word.as_str().unwrap_or_default().to_owned()).collect();
        // The kernel puts a script's interpreter, and its option, in front.
        if let Some(script) = optional(entry, "bailiwick.exec.script") {
            let own = arguments.iter().position(|argument| *argument == given || *argument == script);
            arguments.drain(..own.unwrap_or_default());
        }
        arguments.drain(..1.min(arguments.len()));
        let exec = Exec { tgid: tgid(entry), given, arguments, errno };
        *counts.entry(exec).or_default() += count(entry);
    }
    counts
}

/// Normalisations 5 and 6.
fn observed_execs(observed: &Observed) -> BTreeMap<Exec, u64> {
    let mut counts = BTreeMap::new();
    for (exec, count) in &observed.execs {
        let mut exec = exec.clone();
        let left_out = if exec.errno.is_some() { exec.arguments.len() } else { 1.min(exec.arguments.len()) };
        exec.arguments.drain(..left_out);
        *counts.entry(exec).or_default() += count;
    }
    counts
}

/// Normalisations 1 and 2.
fn opens(entries: &Entries) -> BTreeMap<Open, u64> {
    let mut counts = BTreeMap::new();
    for (open, count) in entries.opens() {
        *counts.entry(comparable(open)).or_default() += count;
    }
    counts
}

fn observed_opens(observed: &Observed) -> BTreeMap<Open, u64> {
    let mut counts = BTreeMap::new();
    for (open, count) in &observed.opens {
        *counts.entry(comparable(open.clone())).or_default() += count;
    }
    counts
}

fn comparable(open: Open) -> Open {
    if open.errno.is_none() {
        return open;
    }
    Open { path: normalised(Path::new(&open.path)), ..open }
}

fn connects(entries: &Entries) -> BTreeMap<Connect, u64> {
    let mut counts = BTreeMap::new();
    for entry in &entries.event("network.connect").0 {
        let port = entry["attributes"]["server.port"].as_u64().and_then(|port| u16::try_from(port).ok());
        let connect = Connect {
            tgid: tgid(entry),
            transport: text(entry, "network.transport"),
            address: text(entry, "server.address").parse().expect("an address"),
            port: port.expect("a port"),
            errno: optional(entry, "error.type"),
        };
        *counts.entry(connect).or_default() += count(entry);
    }
    counts
}

fn acts(entries: &Entries) -> BTreeMap<Act, u64> {
    let mut counts = BTreeMap::new();
    for entry in &entries.0 {
        let Some(call) = optional(entry, "bailiwick.syscall").filter(|call| ACTS.contains(&call.as_str())) else {
            continue;
        };
        *counts.entry(Act { tgid: tgid(entry), call, errno: optional(entry, "error.type") }).or_default() +=
            count(entry);
    }
    counts
}

/// What the trail calls a creation asked to create.
#[track_caller]
fn creations(entries: &Entries, observed: &Observed) {
    let created = entries.event("file.create").opens();
    assert!(!created.is_empty(), "the agent made files");
    for open in created.keys() {
        assert!(observed.creating.contains(open), "nothing asked to create {open:?}");
    }
}

/// The image of every exec is what the file system says of the path that was given, or that script's interpreter.
#[track_caller]
fn images(entries: &Entries) {
    for entry in entries.event("process.exec").filter(|entry| entry["attributes"]["error.type"].is_null()).0 {
        let image = text(&entry, "process.executable.path");
        assert_eq!(entry["process"]["executable"], image.as_str(), "{entry}");
        let given = optional(&entry, "bailiwick.exec.script").unwrap_or_else(|| text(&entry, "bailiwick.exec.given"));
        let Ok(file) = std::fs::read(&given) else { continue };
        let expected = match file.strip_prefix(b"#!") {
            Some(rest) => {
                let line = rest.split(|byte| *byte == b'\n').next().unwrap_or_default();
                String::from_utf8_lossy(line).split_whitespace().next().unwrap_or_default().to_owned()
            }
            None => given,
        };
        assert_eq!(Path::new(&image), std::fs::canonicalize(&expected).expect("the image is still there"), "{entry}");
    }
}
