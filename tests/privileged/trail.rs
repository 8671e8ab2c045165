//! The trail can be believed: chained, vouched for, verified, and bounded without a break.

use std::fs::{self, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::time::Duration;

use bailiwick_tests::bounded;
use bailiwick_tests::declaration::Declaration;
use bailiwick_tests::instance::{Instance, Setup};
use bailiwick_tests::receiver::{Receiver, attribute};
use bailiwick_tests::requirement::Requirement::{Tier2, Venv};
use bailiwick_tests::requirement::require;
use bailiwick_tests::tmpfs::Tmpfs;
use serde_json::{Value, json};

/// Retention is looked after on a timer.
const PRUNED_WITHIN: Duration = Duration::from_secs(60);

pub(crate) fn segments(instance: &Instance) -> Vec<PathBuf> {
    let names = fs::read_dir(instance.state().join("trail")).unwrap();
    let names = names.map(|name| name.unwrap().path());
    let mut paths: Vec<_> = names.filter(|path| path.extension().is_some_and(|end| end == "jsonl")).collect();
    paths.sort();
    paths
}

#[test]
fn after_a_crash_the_chain_goes_on_and_a_flipped_bit_is_found() {
    if !require(&[Tier2]) {
        return;
    }
    let mut instance = Setup::new().agent(&Declaration::new("opener")).start();
    instance.read_files(50);
    instance.sync();
    instance.crash();
    instance.start_daemon();
    instance.read_files(50);
    instance.sync();
    let beside = instance.json("verify --json");
    assert_eq!(beside["whole"], true, "beside a daemon that runs: {beside}");
    assert_eq!(instance.stop(), Some(0));

    let verified = instance.json("verify --json");
    let entries = verified["entries"].as_u64().unwrap();
    let of_segments =
        segments(&instance).into_iter().map(|path| fs::read_to_string(path).unwrap().lines().count() as u64);
    assert!(entries == of_segments.sum::<u64>() && entries > 100, "{verified}");
    // Exactly this, and until the checkpoint that the daemon ended with.
    let whole = json!({"whole": true, "entries": entries, "first_bad": null, "vouched_until": entries - 1});
    assert_eq!(verified, whole);
    let said = instance.call("verify").success().stdout;
    assert!(said.starts_with("whole: ") && said.contains("a tail that was cut off"), "{said}");
    assert_eq!(said.lines().count(), 1, "{said}");

    let first = segments(&instance).remove(0);
    let at = fs::metadata(&first).unwrap().len() / 2;
    let text = fs::read(&first).unwrap();
    let expected = 1 + text.iter().take(usize::try_from(at).unwrap()).filter(|&&byte| byte == b'\n').count();
    let flipped = text[usize::try_from(at).unwrap()] ^ 1;
    OpenOptions::new().write(true).open(&first).unwrap().write_all_at(&[flipped], at).unwrap();
    let said = instance.call("verify --json");
    assert_eq!(said.code(), Some(1));
    let bad: Value = serde_json::from_str(&said.stdout).unwrap();
    let line_at = text.iter().take(usize::try_from(at).unwrap()).rposition(|&byte| byte == b'\n').unwrap() + 1;
    let id = bad["first_bad"]["uid"].as_str().unwrap().split('-').next().unwrap();
    let first_bad = json!({"uid": format!("{id}-{expected}"), "file": first.to_str(), "offset": line_at});
    assert_eq!(bad["first_bad"], first_bad);
    assert_eq!((&bad["whole"], bad["entries"].as_u64()), (&false.into(), Some(expected as u64 - 1)), "{bad}");
}

#[test]
fn a_checkpoint_that_the_back_end_received_shows_what_was_cut_off() {
    if !require(&[Tier2, Venv]) {
        return;
    }
    let receiver = Receiver::start();
    let mut instance = Setup::new()
        .agent(&Declaration::new("opener"))
        .file("bailiwick.toml", "[trail]\ncheckpoint_seconds = 1\n")
        .env("OTEL_EXPORTER_OTLP_ENDPOINT", receiver.http_endpoint())
        .env("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf")
        .start();
    instance.read_files(20);
    let of_checkpoint = |record: &Value| record["event_name"] == "trail.checkpoint";
    let newest = |records: &[Value]| {
        let seqs = records.iter().filter(|record| of_checkpoint(record));
        seqs.filter_map(|record| attribute(record, "bailiwick.checkpoint.seq")?.parse::<u64>().ok()).max()
    };
    bounded::until("a checkpoint at the back end", PRUNED_WITHIN, || {
        instance.call("sync --exported").success();
        newest(&receiver.log_records()).is_some_and(|seq| seq > 20)
    });
    let records = receiver.log_records();
    assert_eq!(instance.stop(), Some(0));
    let lines: Vec<String> = records.iter().filter(|record| of_checkpoint(record)).map(ToString::to_string).collect();
    let file = instance.place().join("checkpoints.jsonl");
    fs::write(&file, lines.join("\n")).unwrap();
    let verify = format!("verify --json --checkpoints {}", file.display());
    let vouched = instance.json(&verify);
    assert_eq!((vouched["whole"].as_bool(), vouched["vouched_until"].as_u64()), (Some(true), newest(&records)));

    let segment = segments(&instance).remove(0);
    let text = fs::read_to_string(&segment).unwrap();
    let kept: Vec<&str> = text.lines().take(15).collect();
    fs::write(&segment, kept.join("\n") + "\n").unwrap();
    assert_eq!(instance.json("verify --json")["whole"], true, "by itself a cut trail is whole");
    let said = instance.call(&verify.replace(" --json", ""));
    assert_eq!(said.code(), Some(1), "{}", said.stdout);
    assert!(said.stdout.starts_with("NOT whole: ") && said.stdout.contains("vouches for it"), "{}", said.stdout);
}

#[test]
fn a_session_ends_with_a_statement_of_how_complete_its_entries_are() {
    if !require(&[Tier2]) {
        return;
    }
    let instance = Instance::start(&[Declaration::new("opener")]);
    instance.read_files(20);
    let trail = instance.synced_trail();
    let (start, end) = (trail.event("sensor.start"), trail.event("session.end"));
    let said = &end.only()["attributes"];
    assert_eq!((&said["bailiwick.session.lost"], &said["bailiwick.session.gaps"]), (&0.into(), &0.into()), "{said}");
    assert_eq!(said["bailiwick.session.blind_spots"], start.only()["attributes"]["bailiwick.sensor.blind_spots"]);
    let own = trail.filter(|entry| entry["session"] == end.only()["session"]);
    assert_eq!(said["bailiwick.session.entries"].as_u64(), Some(own.len() as u64));

    let session = end.only()["session"].as_str().unwrap();
    let shown = instance.call(&format!("show {session} --json --event process.*")).success();
    let of_processes = own.filter(|entry| entry["event"].as_str().is_some_and(|name| name.starts_with("process.")));
    assert_eq!(shown.stdout.lines().count(), of_processes.len());
    let listed = |filter: &str| instance.json(&format!("sessions --json {filter}"))["items"].as_array().unwrap().len();
    assert_eq!((listed(""), listed("--event file.open"), listed("--until 1h")), (1, 1, 0));
    assert_eq!((listed("--address 127.0.0.0/8"), listed("--delegation opener")), (0, 0));
    assert_eq!(instance.call("tail --no-follow --address nowhere").code(), Some(2));
}

/// Whoever is root on the host has the trail's name, the host's key and the program.
#[test]
fn a_trail_written_anew_by_root_fails_against_the_checkpoints_exported_before() {
    if !require(&[Tier2]) {
        return;
    }
    let mut instance = Setup::new()
        .agent(&Declaration::new("opener"))
        .file("bailiwick.toml", "[trail]\ncheckpoint_entries = 50\n")
        .start();
    instance.read_files(200);
    instance.sync();
    assert_eq!(instance.stop(), Some(0));
    instance.start_daemon();
    let exported = instance.trail().event("trail.checkpoint");
    assert!(exported.len() >= 3);
    let file = instance.place().join("yesterday.jsonl");
    let lines: Vec<String> = exported.0.iter().map(ToString::to_string).collect();
    fs::write(&file, lines.join("\n")).unwrap();
    let verify = format!("verify --json --checkpoints {}", file.display());
    let last_vouched = exported.0.last().unwrap()["attributes"]["bailiwick.checkpoint.seq"].as_u64();
    let before = instance.json(&verify);
    assert_eq!((before["whole"].as_bool(), before["vouched_until"].as_u64()), (Some(true), last_vouched));
    assert_eq!(instance.stop(), Some(0));

    segments(&instance).into_iter().for_each(|segment| fs::remove_file(segment).unwrap());
    instance.start_daemon();
    // More than there was, so that nothing is missing.
    for _ in 0..3 {
        instance.read_files(200);
    }
    instance.sync();
    assert_eq!(instance.stop(), Some(0));
    let alone = instance.json("verify --json");
    assert_eq!(alone["whole"], true, "by itself it looks whole: {alone}");
    assert!(alone["entries"].as_u64() > before["entries"].as_u64());
    let said = instance.call(&verify);
    assert_eq!(said.code(), Some(1), "{}", said.stdout);
    let against = said.json();
    assert_eq!((&against["whole"], &against["vouched_until"]), (&false.into(), &Value::Null), "{against}");
    let first = segments(&instance).remove(0);
    assert!(against["first_bad"]["uid"].as_str().unwrap().ends_with("-1"), "{against}");
    assert_eq!((&against["first_bad"]["file"], &against["first_bad"]["offset"]), (&first.to_str().into(), &0.into()));
}

#[test]
fn on_a_full_disk_the_daemon_lives_the_gap_is_exact_and_it_recovers_by_itself() {
    if !require(&[Tier2]) {
        return;
    }
    const FILES: usize = 3_000;
    let setup = Setup::new().agent(&Declaration::new("opener")).env("BAILIWICK_RING_BYTES", "131072");
    let mut instance = setup.prepare();
    let disk = Tmpfs::over(instance.state(), "size=8m");
    instance.start_daemon();
    let filler = disk.fill(64 * 1024);
    instance.read_files(FILES);
    let said = instance.call("status --json");
    assert_eq!(said.code(), Some(1), "{}", said.stdout);
    let full: Value = serde_json::from_str(&said.stdout).unwrap();
    assert!(full["reasons"].to_string().contains("the trail cannot be written"), "{full}");
    let said = instance.call("sync --wait 2s");
    assert_ne!(said.code(), Some(0), "nothing can be durable: {}", said.stdout);

    fs::remove_file(filler).unwrap();
    instance.sync();
    let trail = instance.trail();
    let dir = instance.place().join("files").display().to_string();
    let seen = trail
        .event("file.open")
        .filter(|entry| entry["attributes"]["file.path"].as_str().is_some_and(|path| path.starts_with(&dir)));
    let lost = trail.lost("file.open");
    assert!(lost > 0, "the disk was not full for long enough");
    assert_eq!(seen.count() + lost, FILES as u64);
    bounded::until("health", PRUNED_WITHIN, || instance.call("status --json").code() == Some(0));
    assert_eq!(instance.json("verify --json")["whole"], true);
}

#[test]
fn a_daemon_that_starts_on_a_full_disk_lives_and_goes_on_when_there_is_room() {
    if !require(&[Tier2]) {
        return;
    }
    let mut instance = Setup::new().agent(&Declaration::new("opener")).prepare();
    let disk = Tmpfs::over(instance.state(), "size=4m");
    instance.start_daemon();
    instance.read_files(20);
    instance.sync();
    let filler = disk.fill(0);
    instance.crash();
    instance.spawn_daemon();
    bounded::until("the daemon to say what it waits for", PRUNED_WITHIN, || {
        instance.call("status --json").stdout.contains("the trail cannot be written")
    });
    fs::remove_file(filler).unwrap();
    bounded::until("health", PRUNED_WITHIN, || instance.call("status --wait 5s").code() == Some(0));
    instance.read_files(20);
    let trail = instance.synced_trail();
    assert_eq!(trail.event("sensor.start").len(), 2);
    assert_eq!(trail.event("session.end").len(), 2);
    assert_eq!(instance.json("verify --json")["whole"], true);
}

#[test]
fn a_torn_last_entry_is_kept_aside_at_the_start_and_recorded() {
    if !require(&[Tier2]) {
        return;
    }
    let mut instance = Instance::start(&[Declaration::new("opener")]);
    instance.read_files(20);
    instance.sync();
    instance.crash();
    let segment = segments(&instance).remove(0);
    let len = fs::metadata(&segment).unwrap().len();
    let text = fs::read_to_string(&segment).unwrap();
    let last = text.lines().last().unwrap().len() as u64;
    OpenOptions::new().write(true).open(&segment).unwrap().set_len(len - last / 2).unwrap();
    assert_eq!(instance.call("verify").code(), Some(1), "a torn entry is no whole one");
    assert_eq!(fs::metadata(&segment).unwrap().len(), len - last / 2, "and `verify` cuts nothing");

    instance.start_daemon();
    let trail = instance.synced_trail();
    let recovered = trail.event("trail.recovered");
    let said = &recovered.only()["attributes"];
    let kept_in = said["bailiwick.trail.kept_in"].as_str().unwrap();
    let torn = fs::read(kept_in).unwrap();
    assert_eq!(said["bailiwick.trail.bytes"].as_u64(), Some(torn.len() as u64));
    assert!(text.as_bytes().windows(torn.len()).any(|window| window == torn), "what was torn is what stood there");
    assert_eq!(instance.json("verify --json")["whole"], true);
}
