//! What the trail need not keep goes, and nothing else: by size, by what is left of the disk, as far as every target has it.

use std::fs;
use std::net::TcpListener;
use std::path::PathBuf;
use std::time::Duration;

use bailiwick_tests::bounded;
use bailiwick_tests::declaration::Declaration;
use bailiwick_tests::instance::{Instance, Setup};
use bailiwick_tests::receiver::Receiver;
use bailiwick_tests::requirement::Requirement::{Tier2, Venv};
use bailiwick_tests::requirement::require;
use bailiwick_tests::tmpfs::Tmpfs;

use crate::trail::segments;

/// Retention is looked after on a timer.
const PRUNED_WITHIN: Duration = Duration::from_secs(60);
/// So often it was looked by then.
const LOOKED_AFTER: Duration = Duration::from_secs(4);

fn keeping(settings: &str) -> Setup {
    let settings = format!("[trail]\nsegment_bytes = 65536\n{settings}\n");
    Setup::new().agent(&Declaration::new("opener")).file("bailiwick.toml", &settings)
}

fn bytes(instance: &Instance) -> u64 {
    segments(instance).iter().map(|path| fs::metadata(path).unwrap().len()).sum()
}

fn first(instance: &Instance) -> PathBuf {
    segments(instance).remove(0)
}

/// Writes some 400,000 bytes.
fn write_much(instance: &Instance) {
    for _ in 0..12 {
        instance.read_files(60);
        instance.sync();
    }
}

#[test]
fn retention_leaves_a_tombstone_and_a_trail_that_is_whole() {
    if !require(&[Tier2]) {
        return;
    }
    let instance = keeping("keep_bytes = 200000").start();
    write_much(&instance);
    bounded::until("a tombstone", PRUNED_WITHIN, || !instance.trail().event("trail.tombstone").is_empty());
    instance.sync();
    assert!(bytes(&instance) < 400_000, "{} bytes are left", bytes(&instance));
    assert!(segments(&instance).len() > 1);
    let verified = instance.json("verify --json");
    assert_eq!(verified["whole"], true, "{verified}");
    let first = first(&instance);
    let first_seq: u64 = first.file_stem().unwrap().to_str().unwrap().parse().unwrap();
    let said = instance.call("verify").success().stdout;
    assert!(said.contains(&format!("({} older ones were removed, as the tombstone at seq ", first_seq - 1)), "{said}");
    fs::remove_file(first).unwrap();
    let said = instance.call("verify");
    assert_eq!(said.code(), Some(1), "a segment that no tombstone tells of: {verified} {}", said.stdout);
}

#[test]
fn nothing_goes_that_one_of_several_targets_has_not_acknowledged() {
    if !require(&[Tier2, Venv]) {
        return;
    }
    let receiver = Receiver::start();
    // It takes what is sent, and never answers.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let silent_endpoint = format!("http://{}", silent.local_addr().unwrap());
    let target = |name: &str, endpoint: &str| {
        format!("\n[[export.target]]\nname = \"{name}\"\nendpoint = \"{endpoint}\"\nprotocol = \"http/protobuf\"\n")
    };
    let there = target("there", &receiver.http_endpoint());
    let text =
        |more: &str, targets: &str| format!("[trail]\nsegment_bytes = 65536\nkeep_bytes = 200000\n{more}{targets}");
    let both = there.clone() + &target("away", &silent_endpoint);
    let mut instance = Setup::new().agent(&Declaration::new("opener")).file("bailiwick.toml", &text("", &both)).start();
    write_much(&instance);
    bounded::until("all of it at the one target", PRUNED_WITHIN, || {
        let status = instance.call("status --json").json();
        let of = |name: &str| {
            let targets = status["export"].as_array().unwrap().clone();
            targets.into_iter().find(|of| of["target"] == name && of["signal"] == "logs").unwrap()
        };
        assert_eq!(of("away")["acknowledged"], 0);
        of("there")["acknowledged"].as_u64() > Some(500)
    });
    std::thread::sleep(LOOKED_AFTER);
    assert!(first(&instance).ends_with("00000000000000000001.jsonl") && bytes(&instance) > 250_000);
    assert!(instance.trail().event("trail.tombstone").is_empty());

    // Whoever wants it otherwise says so.
    instance.write("bailiwick.toml", &text("delete_unacknowledged = true\n", &both));
    instance.call("reload").success();
    bounded::until("a tombstone", PRUNED_WITHIN, || !instance.trail().event("trail.tombstone").is_empty());
    assert_eq!(instance.json("verify --json")["whole"], true);

    // And a target that is given up holds nothing any more.
    instance.write("bailiwick.toml", &text("", &there));
    assert_eq!(instance.stop(), Some(0));
    instance.start_daemon();
    write_much(&instance);
    instance.call("sync --exported").success();
    bounded::until("less to be left", PRUNED_WITHIN, || bytes(&instance) < 300_000);
    assert_eq!(instance.json("verify --json")["whole"], true);
}

#[test]
fn where_the_disk_must_not_fill_the_oldest_go_in_time_and_nothing_is_lost() {
    if !require(&[Tier2]) {
        return;
    }
    let mut instance = keeping("keep_free_bytes = 4194304").prepare();
    let disk = Tmpfs::over(instance.state(), "size=16m");
    instance.start_daemon();
    write_much(&instance);
    assert!(instance.trail().event("trail.tombstone").is_empty(), "the disk is empty enough");
    // Somebody else fills it until half a mebibyte less is free than there must be.
    disk.fill((4 << 20) - (1 << 19));
    bounded::until("a tombstone", PRUNED_WITHIN, || !instance.trail().event("trail.tombstone").is_empty());
    for _ in 0..3 {
        write_much(&instance);
    }
    let trail = instance.trail();
    let why = &trail.event("trail.tombstone").0[0]["attributes"]["bailiwick.tombstone.reason"];
    assert_eq!(why, "less of the disk was free than must be left");
    assert_eq!(trail.event("gap").filter(|gap| gap["gap"]["lost"] != 0).0, Vec::<serde_json::Value>::new());
    let status = instance.json("status --json");
    assert_eq!((&status["healthy"], &status["lost"]), (&true.into(), &0.into()), "{status}");
    assert_eq!(instance.json("verify --json")["whole"], true);
}
