//! The file of OCSF events: one for each entry of the trail, whatever comes in between.

use std::path::{Path, PathBuf};
use std::time::Duration;

use bailiwick_tests::declaration::Declaration;
use bailiwick_tests::instance::{Instance, Setup};
use bailiwick_tests::requirement::Requirement::{Tier2, Venv};
use bailiwick_tests::requirement::require;
use bailiwick_tests::tmpfs::Tmpfs;
use bailiwick_tests::{bounded, ocsf};
use serde_json::Value;

/// The exporter looks again after a pause of up to thirty seconds.
const RECOVERS_WITHIN: Duration = Duration::from_secs(60);

fn writing_to(file: &Path) -> Setup {
    let text = format!("[export.ocsf]\nfile = \"{}\"\n", file.display());
    Setup::new().agent(&Declaration::new("opener")).file("bailiwick.toml", &text)
}

#[track_caller]
fn same_as_the_trail(instance: &Instance, file: &Path) {
    let expected: Vec<String> =
        instance.trail().0.iter().map(|entry| entry["uid"].as_str().unwrap().to_owned()).collect();
    let uid = |event: &Value| event["metadata"]["uid"].as_str().unwrap().to_owned();
    let written: Vec<String> = ocsf::events(file).iter().map(uid).collect();
    assert_eq!(written, expected);
}

#[test]
fn every_entry_is_an_event_once_and_right_though_the_daemon_is_killed() {
    if !require(&[Tier2, Venv]) {
        return;
    }
    let place = bailiwick_tests::workload::Place::new();
    let file: PathBuf = place.join("ocsf.jsonl");
    let mut instance = writing_to(&file).start();
    for _ in 0..3 {
        instance.read_files(200);
        instance.crash();
        instance.start_daemon();
    }
    instance.read_files(200);
    instance.call("sync --exported").success();
    let status = instance.json("status --json");
    let target = &status["export"][0];
    assert_eq!((&target["target"], &target["signal"], &target["pending"]), (&"ocsf".into(), &"logs".into(), &0.into()));
    same_as_the_trail(&instance, &file);
    ocsf::valid(&file).unwrap();
    let opened = ocsf::events(&file).into_iter().find(|event| event["type_uid"] == 100_114).unwrap();
    assert_eq!(opened["ai_agent"]["uid"], "opener");
    let charter = &opened["ai_agent"]["charter"];
    assert!(charter["path"].as_str().unwrap().starts_with(instance.config("agents.d").to_str().unwrap()), "{charter}");
    assert_eq!(charter["hashes"][0]["value"].as_str().unwrap().len(), 64);
    assert_eq!(instance.stop(), Some(0));
}

#[test]
fn a_full_disk_holds_the_events_and_no_half_of_one_is_left() {
    if !require(&[Tier2]) {
        return;
    }
    let place = bailiwick_tests::workload::Place::new();
    let mount = place.join("full");
    std::fs::create_dir(&mount).unwrap();
    let full = Tmpfs::over(mount.clone(), "size=1m");
    let filler = full.fill(64 << 10);
    let file = mount.join("ocsf.jsonl");
    let mut instance = writing_to(&file).start();
    instance.read_files(300);
    instance.sync();
    let held = || {
        let status = instance.call("status --json").json();
        let said = status["reasons"].to_string().contains("No space left");
        said && status["healthy"] == false && status["export"][0]["pending"].as_u64() > Some(0)
    };
    bounded::until("the status says what it waits for", RECOVERS_WITHIN, held);
    std::fs::remove_file(filler).unwrap();
    instance.call("sync --exported --wait 60s").success();
    same_as_the_trail(&instance, &file);
    assert_eq!(instance.json("status --json")["healthy"], true);
    assert_eq!(instance.stop(), Some(0));
}
