//! Opens, and their exact number.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use bailiwick_tests::bounded;
use bailiwick_tests::declaration::Declaration;
use bailiwick_tests::instance::{Instance, Setup};
use bailiwick_tests::requirement::Requirement::{Strace, Tier2};
use bailiwick_tests::requirement::require;
use bailiwick_tests::strace;
use bailiwick_tests::workload::{DEADLINE, Open, Place, opens};
use serde_json::json;

/// 2 processes x 500 files x 2 modes x 50 times: 100,000 opens.
const FLOOD: [&str; 5] = ["500", "50", "2", "r,rw", "2"];

fn flood<'a>(opener: &'a Path, dir: &'a Path) -> Vec<&'a std::ffi::OsStr> {
    let mut command = vec![opener.as_os_str(), "repeats".as_ref(), dir.as_os_str()];
    command.extend(FLOOD.map(<str as AsRef<std::ffi::OsStr>>::as_ref));
    command
}

/// The opens below a directory.
fn below(opens: BTreeMap<Open, u64>, dir: &Path) -> BTreeMap<Open, u64> {
    opens.into_iter().filter(|(open, _)| Path::new(&open.path).starts_with(dir)).collect()
}

#[test]
fn a_hundred_thousand_opens_are_counted_exactly() {
    if !require(&[Tier2]) {
        return;
    }
    let instance = Instance::start(&[Declaration::new("opener")]);
    let opener = instance.place().copy_of("opener", "agent-opener");
    let dir = instance.place().files("files", 500);
    let said = instance.run("opener", &flood(&opener, &dir)).success().json();

    let expected: BTreeMap<_, _> = opens(&said).into_iter().collect();
    assert_eq!(expected.values().sum::<u64>(), 100_000, "the workload itself");
    let trail = instance.synced_trail();
    assert_eq!(below(trail.opens(), &dir), expected);
    assert!(trail.event("gap").is_empty(), "{:#?}", trail.event("gap").0);
    let entries = trail.event("file.open").len();
    assert!(entries < 20_000, "repeats were not folded: {entries} entries");
}

#[test]
fn with_a_tiny_ring_counts_and_gaps_account_for_every_open() {
    if !require(&[Tier2, Strace]) {
        return;
    }
    // What the workload opens besides: its loader's libraries. The same program with fewer files opens the same, and an
    // observer that loses nothing counts it.
    let place = Place::new();
    let opener = place.copy_of("opener", "agent-opener");
    let few = place.files("few", 1);
    let prefix = place.join("trace");
    let mut arguments = flood(&opener, &few);
    arguments[3] = "1".as_ref();
    arguments[4] = "2".as_ref();
    bounded::run(&mut strace::command(&prefix, &arguments), DEADLINE).success();
    let observed = strace::read(&prefix, &opener).unwrap();
    let besides: u64 = observed
        .opens
        .iter()
        .filter(|(open, _)| !Path::new(&open.path).starts_with(&few))
        .map(|(_, count)| count)
        .sum();
    assert_eq!(observed.opens.values().sum::<u64>() - besides, 2 * 2 * 2, "the workload itself");

    let instance = Setup::new().agent(&Declaration::new("opener")).env("BAILIWICK_RING_BYTES", "4096").start();
    let dir = instance.place().files("files", 500);
    let said = instance.run("opener", &flood(&opener, &dir)).success().json();
    let expected: BTreeMap<_, _> = opens(&said).into_iter().collect();

    let trail = instance.synced_trail();
    let [session] = &trail.sessions()[..] else { panic!("not one session: {:?}", trail.sessions()) };
    let entries = trail.session(session);
    let (counted, lost) = (entries.event("file.open").count(), entries.lost("file.open"));
    assert_eq!(counted + lost, 100_000 + besides, "{counted} counted, {lost} lost");
    let unowned = trail.event("gap").filter(|gap| gap["session"].is_null());
    assert!(unowned.is_empty(), "{:#?}", unowned.0);
    for (open, count) in below(entries.opens(), &dir) {
        let truth = expected.get(&open).unwrap_or_else(|| panic!("never opened: {open:?}"));
        assert!(count <= *truth, "{open:?}: {count} counted, and {truth} happened");
    }
}

#[test]
fn a_flood_of_opens_pushes_no_process_out_of_the_trail() {
    if !require(&[Tier2]) {
        return;
    }
    let instance = Setup::new().agent(&Declaration::new("both")).env("BAILIWICK_RING_BYTES", "65536").start();
    let (storm, opener) = (instance.place().copy_of("storm", "s"), instance.place().copy_of("opener", "o"));
    let dir = instance.place().files("files", 2000);
    // Ever new files in one process, and processes at the same time.
    let script = "#!/bin/sh\n\"$1\" repeats \"$2\" 2000 2 2 r,w,rw >/dev/null &\n\"$3\" 200\nwait\n";
    let script = instance.place().script("both", script);
    let said = instance.run("both", &[script.as_path(), &opener, &dir, &storm]).success().json();

    let trail = instance.synced_trail();
    for event in ["process.fork", "process.exec", "process.exit"] {
        assert_eq!(trail.lost(event), 0, "{event}");
    }
    let processes = trail.processes();
    for made in said["made"].as_array().unwrap() {
        assert!(processes.contains(&made["tgid"].as_u64().unwrap()), "{made}");
    }
}

#[test]
fn an_open_is_named_by_the_file_however_it_was_asked_for() {
    if !require(&[Tier2]) {
        return;
    }
    let instance = Instance::start(&[Declaration::new("ways")]);
    let opener = instance.place().copy_of("opener", "agent-opener");
    let dir = instance.place().ways("ways");
    let said = instance.run("ways", &[opener.as_os_str(), "ways".as_ref(), dir.as_os_str()]).success().json();
    let mut expected = BTreeMap::new();
    for (open, count) in opens(&said) {
        *expected.entry(open).or_default() += count;
    }
    assert_eq!(below(instance.synced_trail().opens(), &dir), expected);
}

#[test]
fn a_failed_open_has_its_errno() {
    if !require(&[Tier2]) {
        return;
    }
    let instance = Instance::start(&[Declaration::new("fail")]);
    let opener = instance.place().copy_of("opener", "agent-opener");
    let dir = instance.place().ways("ways");
    let said = instance.run("fail", &[opener.as_os_str(), "fail".as_ref(), dir.as_os_str()]).success().json();
    let expected: BTreeMap<_, _> = opens(&said).into_iter().collect();
    let trail = instance.synced_trail();
    assert_eq!(below(trail.opens(), &dir), expected);
    let missing =
        trail.event("file.open").filter(|entry| entry["attributes"]["file.path"] == json!(dir.join("missing")));
    assert_eq!(missing.only()["verdict"], "none", "a search for what is not there is not judged");
}

#[test]
fn an_open_that_creates_is_one_creation_and_the_next_is_an_open() {
    if !require(&[Tier2]) {
        return;
    }
    let instance = Instance::start(&[Declaration::new("creates")]);
    let new = instance.place().join("new");
    let script = instance.place().script("creates", "#!/bin/sh\n: > \"$1\"\n: > \"$1\"\n");
    instance.run("creates", &[&script, &new]).success();
    let trail = instance.synced_trail().filter(|entry| entry["attributes"]["file.path"] == json!(new));
    assert_eq!(trail.event("file.create").count(), 1);
    assert_eq!(trail.event("file.open").count(), 1);
    for entry in &trail.0 {
        assert_eq!(entry["attributes"]["bailiwick.file.access"], "w");
    }
}

#[test]
fn a_path_crosses_the_mounts_that_the_session_made() {
    if !require(&[Tier2]) {
        return;
    }
    let instance = Instance::start(&[Declaration::new("mounts")]);
    let place = instance.place();
    std::fs::create_dir_all(place.join("host/deep")).unwrap();
    std::fs::write(place.join("host/deep/file"), []).unwrap();
    for mount in ["tmpfs", "bind"] {
        std::fs::create_dir(place.join(mount)).unwrap();
    }
    // A mount namespace of the script's own: the host sees none of it.
    let text = "#!/bin/sh\nset -e\ncd \"$1\"\nmount -t tmpfs none tmpfs\nmkdir tmpfs/sub\n: > tmpfs/sub/made\n\
                mount --bind host bind\nmount -t tmpfs none host/deep\n: > host/deep/hidden\n\
                read -r line < bind/deep/file || :\n";
    let script = place.script("mounts", text);
    let root = place.path();
    instance.run("mounts", &["unshare".as_ref(), "-m".as_ref(), script.as_os_str(), root.as_os_str()]).success();
    assert!(!place.join("tmpfs/sub").exists(), "the mounts were to be the script's own");

    let paths: Vec<_> = instance.synced_trail().opens().into_keys().filter(|open| open.errno.is_none()).collect();
    for (path, access) in [("tmpfs/sub/made", "w"), ("host/deep/hidden", "w"), ("bind/deep/file", "r")] {
        let path = place.join(path).display().to_string();
        assert!(paths.iter().any(|open| open.path == path && open.access == access), "{path} is missing: {paths:#?}");
    }
}

#[test]
fn a_file_that_was_deleted_or_never_had_a_name_is_marked() {
    if !require(&[Tier2]) {
        return;
    }
    let instance = Instance::start(&[Declaration::new("deleted")]);
    let file = instance.place().join("gone");
    std::fs::write(&file, []).unwrap();
    let script = instance
        .place()
        .script("deleted", "#!/bin/sh\nexec 3< \"$1\"\nrm \"$1\"\nread -r x < /proc/self/fd/3\nexit 0\n");
    instance.run("deleted", &[&script, &file]).success();
    let trail = instance.synced_trail().event("file.open");
    let marked = trail.filter(|entry| entry["attributes"]["bailiwick.file.deleted"] == true);
    let path = marked.only()["attributes"]["file.path"].as_str().unwrap().to_owned();
    assert!(path.starts_with(&file.display().to_string()), "{path}");
}

#[test]
fn a_pipe_a_socket_and_an_eventfd_have_the_names_that_the_kernel_gives_them() {
    if !require(&[Tier2]) {
        return;
    }
    let scope = "[scope]\ninclude = [\"base\"]";
    let instance = Instance::start(&[Declaration::new("nameless").with(scope)]);
    let opener = instance.place().copy_of("opener", "agent-opener");
    let said = instance.run("nameless", &[opener.as_os_str(), "nameless".as_ref()]).success().json();
    let expected: BTreeMap<_, _> = opens(&said).into_iter().collect();
    assert_eq!(expected.len(), 4, "the workload itself");
    let trail = instance.synced_trail();
    let nameless =
        trail.event("file.open").filter(|entry| entry["attributes"]["bailiwick.file.internal"] == json!(true));
    assert_eq!(nameless.opens(), expected);
    for entry in &nameless.0 {
        assert_eq!(entry["verdict"], "none", "no grant could name it: {entry}");
    }
}

#[test]
fn the_same_path_in_another_file_is_another_key() {
    if !require(&[Tier2]) {
        return;
    }
    let instance = Instance::start(&[Declaration::new("inodes")]);
    let (file, other) = (instance.place().join("file"), instance.place().join("other"));
    std::fs::write(&file, []).unwrap();
    std::fs::write(&other, []).unwrap();
    let text = "#!/bin/sh\nread -r x < \"$1\"\nread -r x < \"$1\"\nmv \"$2\" \"$1\"\nread -r x < \"$1\"\nexit 0\n";
    let script = instance.place().script("inodes", text);
    instance.run("inodes", &[&script, &file, &other]).success();
    let trail = instance.synced_trail().filter(|entry| entry["attributes"]["file.path"] == json!(file));
    let mut by_inode: BTreeMap<String, u64> = BTreeMap::new();
    // `mv` first looks whether the target is a folder, which fails and names no inode.
    let opened = trail.event("file.open").filter(|entry| entry["attributes"]["error.type"].is_null());
    for entry in &opened.0 {
        let inode = entry["attributes"]["bailiwick.file.inode"].as_str().unwrap().to_owned();
        *by_inode.entry(inode).or_default() += entry["count"].as_u64().unwrap();
    }
    let mut counts: Vec<_> = by_inode.into_values().collect();
    counts.sort_unstable();
    assert_eq!(counts, [1, 2]);
}

#[test]
fn an_outsider_that_enters_the_same_files_is_not_counted() {
    if !require(&[Tier2]) {
        return;
    }
    let instance = Instance::start(&[Declaration::new("opener")]);
    let opener = instance.place().copy_of("opener", "agent-opener");
    let dir = instance.place().files("files", 20);
    let mut command = Command::new(&opener);
    let mut outsider = bounded::Running::start(command.arg("repeats").arg(&dir).args(["20", "2000", "1", "r"]));
    let arguments = [opener.as_os_str(), "repeats".as_ref(), dir.as_os_str(), "20".as_ref(), "50".as_ref()];
    let arguments: Vec<_> = arguments.into_iter().chain(["1", "r"].map(AsRef::as_ref)).collect();
    let said = instance.run("opener", &arguments).success().json();
    let _ = outsider.ended();
    outsider.finish(DEADLINE).success();
    let expected: BTreeMap<_, _> = opens(&said).into_iter().collect();
    assert_eq!(below(instance.synced_trail().opens(), &dir), expected);
}
