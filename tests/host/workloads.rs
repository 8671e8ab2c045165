//! What the workloads say of themselves is what `strace` sees of them.

use std::collections::{BTreeMap, BTreeSet};
use std::net::TcpListener;
use std::path::Path;

use bailiwick_tests::bounded;
use bailiwick_tests::requirement::Requirement::{Root, Strace};
use bailiwick_tests::requirement::require;
use bailiwick_tests::strace::{self, Observed};
use bailiwick_tests::workload::{DEADLINE, Open, Place, opens};
use serde_json::Value;

/// Modes that any user may use.
const MODES: &str = "fork,double-fork,setsid,thread,vfork";

fn traced(place: &Place, program: &Path, arguments: &[&str]) -> (Value, Observed) {
    let prefix = place.join("trace");
    let mut command = vec![program.display().to_string()];
    command.extend(arguments.iter().map(|argument| (*argument).to_owned()));
    let said = bounded::run(&mut strace::command(&prefix, &command), DEADLINE).success();
    (said.json(), strace::read(&prefix, program).unwrap())
}

fn below(opens: &BTreeMap<Open, u64>, dir: &Path) -> BTreeMap<Open, u64> {
    let below = opens.iter().filter(|(open, _)| Path::new(&open.path).starts_with(dir));
    below.map(|(open, count)| (open.clone(), *count)).collect()
}

#[test]
fn a_storm_makes_the_processes_that_it_says() {
    if !require(&[Strace]) {
        return;
    }
    let place = Place::new();
    let (said, observed) = traced(&place, &place.copy_of("storm", "storm"), &["60", MODES]);
    let number = |value: &Value| value.as_u64().unwrap();
    let made = said["made"].as_array().unwrap();
    let forks: BTreeSet<_> = made.iter().map(|made| (number(&made["parent"]), number(&made["tgid"]))).collect();
    assert_eq!(observed.forks, forks);
    let mut execs: BTreeMap<u64, u64> = BTreeMap::new();
    for (exec, count) in &observed.execs {
        *execs.entry(exec.tgid).or_default() += count;
    }
    let expected = made.iter().map(|made| (number(&made["tgid"]), number(&made["execs"])));
    let expected: BTreeMap<_, _> = expected.chain([(observed.root, 1)]).filter(|(_, execs)| *execs > 0).collect();
    assert_eq!(execs, expected);
}

#[test]
fn an_opener_opens_what_it_says_as_often_as_it_says() {
    if !require(&[Strace]) {
        return;
    }
    let place = Place::new();
    let dir = place.files("files", 5);
    let arguments = ["repeats", dir.to_str().unwrap(), "5", "7", "3", "r,w,rw", "2"];
    let (said, observed) = traced(&place, &place.copy_of("opener", "opener"), &arguments);
    let expected: BTreeMap<_, _> = opens(&said).into_iter().collect();
    assert_eq!(expected.len(), 2 * 5 * 3);
    assert_eq!(below(&observed.opens, &dir), expected);
}

#[test]
fn an_opener_names_files_as_the_kernel_resolves_them() {
    if !require(&[Strace]) {
        return;
    }
    let place = Place::new();
    let dir = place.ways("ways");
    let (said, observed) = traced(&place, &place.copy_of("opener", "opener"), &["ways", dir.to_str().unwrap()]);
    let mut expected = BTreeMap::new();
    for (open, count) in opens(&said) {
        *expected.entry(open).or_default() += count;
    }
    assert_eq!(below(&observed.opens, &dir), expected);
}

#[test]
fn an_opener_names_what_has_no_path_as_the_kernel_does() {
    if !require(&[Strace]) {
        return;
    }
    let place = Place::new();
    let (said, observed) = traced(&place, &place.copy_of("opener", "opener"), &["nameless"]);
    // A socket is named by its protocol where `strace` knows that.
    let nameless = |(open, _): &(Open, u64)| open.path.starts_with("pipe:[") || open.path.starts_with("anon_inode:");
    let expected: BTreeMap<_, _> = opens(&said).into_iter().filter(nameless).collect();
    assert_eq!(expected.len(), 3);
    assert_eq!(observed.opens.into_iter().filter(nameless).collect::<BTreeMap<_, _>>(), expected);
}

#[test]
fn a_narrow_worker_opens_and_connects_as_it_says() {
    if !require(&[Strace]) {
        return;
    }
    let place = Place::new();
    let dir = place.ways("ways");
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let arguments = ["64", dir.to_str().unwrap(), &listener.local_addr().unwrap().to_string()];
    let (said, observed) = traced(&place, &place.copy_of("narrow", "narrow"), &arguments);
    let expected: BTreeMap<_, _> = opens(&said).into_iter().collect();
    assert_eq!(below(&observed.opens, &dir), expected);
    assert_eq!(observed.connects.values().sum::<u64>(), 2);
}

#[test]
fn an_opener_fails_as_it_says() {
    if !require(&[Strace, Root]) {
        return;
    }
    let place = Place::new();
    let dir = place.ways("ways");
    let (said, observed) = traced(&place, &place.copy_of("opener", "opener"), &["fail", dir.to_str().unwrap()]);
    let expected: BTreeMap<_, _> = opens(&said).into_iter().collect();
    assert_eq!(below(&observed.opens, &dir), expected);
}

#[test]
fn a_connector_connects_to_what_it_says() {
    if !require(&[Strace]) {
        return;
    }
    let place = Place::new();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let open = listener.local_addr().unwrap().to_string();
    let refused = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let arguments = ["tcp", &open, "tcp-nonblocking", &open, "udp", &open, "tcp", &refused];
    let (said, observed) = traced(&place, &place.copy_of("connector", "connector"), &arguments);
    let text = |value: &Value| value.as_str().map(str::to_owned);
    let mut expected = BTreeMap::new();
    for connect in said["connects"].as_array().unwrap() {
        let key = strace::Connect {
            tgid: said["tgid"].as_u64().unwrap(),
            transport: text(&connect["transport"]).unwrap(),
            address: connect["address"].as_str().unwrap().parse().unwrap(),
            port: connect["port"].as_u64().unwrap().try_into().unwrap(),
            errno: text(&connect["errno"]),
        };
        *expected.entry(key).or_default() += 1;
    }
    assert_eq!(observed.connects, expected);
}

#[test]
fn the_first_system_call_of_first_open_is_its_open() {
    if !require(&[Strace]) {
        return;
    }
    let place = Place::new();
    let (program, file, log) = (place.copy_of("first-open", "first"), place.join("file"), place.join("all"));
    std::fs::write(&file, []).unwrap();
    let mut command = std::process::Command::new("strace");
    bounded::run(command.arg("-o").arg(&log).arg(&program).arg(&file), DEADLINE).success();
    let calls = std::fs::read_to_string(&log).unwrap();
    let calls: Vec<_> = calls.lines().filter_map(|line| line.split_once('(').map(|(name, _)| name)).collect();
    assert_eq!(calls, ["execve", "openat", "exit_group"]);
}
