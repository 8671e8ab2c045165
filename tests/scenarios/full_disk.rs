//! A disk that is full, with a receiver behind it: what was lost is told of, and the receiver has the whole trail in the end.

use std::fs;

use bailiwick_tests::bounded;
use bailiwick_tests::declaration::Declaration;
use bailiwick_tests::instance::Setup;
use bailiwick_tests::receiver::{Receiver, attribute};
use bailiwick_tests::requirement::Requirement::{Tier2, Venv};
use bailiwick_tests::requirement::require;
use bailiwick_tests::tmpfs::Tmpfs;

use crate::targets::{exported, has_everything};

const TOLD_WITHIN: std::time::Duration = std::time::Duration::from_secs(30);

#[test]
fn after_a_full_disk_the_receiver_has_the_trail_with_its_exact_gap() {
    if !require(&[Tier2, Venv]) {
        return;
    }
    const FILES: usize = 3_000;
    let receiver = Receiver::start();
    let mut instance = Setup::new()
        .agent(&Declaration::new("opener"))
        .env("BAILIWICK_RING_BYTES", "131072")
        .env("OTEL_EXPORTER_OTLP_ENDPOINT", receiver.http_endpoint())
        .env("OTEL_METRIC_EXPORT_INTERVAL", "500")
        .prepare();
    let disk = Tmpfs::over(instance.state(), "size=8m");
    instance.start_daemon();
    instance.call("sync --exported").success();
    let filler = disk.fill(64 * 1024);
    instance.read_files(FILES);
    let waits = || instance.call("status --json").json()["reasons"].to_string().contains("the trail cannot be written");
    bounded::until("the trail waits for space", TOLD_WITHIN, waits);
    let so_far = receiver.log_records().len();

    fs::remove_file(filler).unwrap();
    let trail = exported(&instance);
    has_everything(&receiver, "", &trail);
    let lost = trail.lost("file.open");
    assert!(lost > 0 && so_far < trail.len(), "the disk was not full for long enough: {lost} lost, {so_far} sent");
    let records = receiver.log_records();
    let gaps = records.iter().filter(|record| {
        record["event_name"] == "gap" && attribute(record, "bailiwick.gap.kind").as_deref() == Some("file.open")
    });
    let told: u64 = gaps.map(|gap| attribute(gap, "bailiwick.gap.lost").unwrap().parse::<u64>().unwrap()).sum();
    assert_eq!(told, lost, "the receiver was told of as many as the trail was");
    let sum = || receiver.session("").sum("bailiwick.lost", &[("bailiwick.event", "file.open")]) == lost;
    bounded::until("the sum of what was lost", TOLD_WITHIN, sum);
    let status = instance.json("status --json");
    assert_eq!(status["healthy"], true, "{status}");
    // What the cursors say survives: nothing is sent again.
    assert_eq!(instance.stop(), Some(0));
    let before = receiver.log_records().len();
    instance.start_daemon();
    let trail = exported(&instance);
    assert_eq!(receiver.log_records().len(), trail.len(), "sent before: {before}");
}
