//! The alerts that ship: each fires for what it is about, and speaks of metrics that there are.

use std::collections::BTreeSet;
use std::process::Command;
use std::time::Duration;

use bailiwick_tests::requirement::Requirement::Promtool;
use bailiwick_tests::requirement::require;
use bailiwick_tests::{alerts, bounded, workload};

const WITHIN: Duration = Duration::from_secs(60);

#[test]
fn each_alert_fires_when_it_should_and_is_quiet_when_all_is_well() {
    if !require(&[Promtool]) {
        return;
    }
    let rules = |arguments: &[&str]| {
        let mut command = Command::new(workload::promtool());
        command.args(arguments).current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/.."));
        bounded::run(&mut command, WITHIN).success()
    };
    rules(&["check", "rules", "docs/alerts.yml"]);
    rules(&["test", "rules", "tests/alerts/alerts_test.yml"]);
}

#[test]
fn every_alert_is_tested_for_firing_and_for_silence() {
    let tested = include_str!("../alerts/alerts_test.yml");
    let names = alerts::names();
    assert!(names.len() > 10, "{names:?}");
    for name in names {
        let fires = tested.contains(&format!("alertname: {name}\n        exp_alerts:"));
        let is_quiet = tested.contains(&format!("alertname: {name}}}"));
        assert!(fires && is_quiet, "{name} is tested for firing: {fires}, for silence: {is_quiet}");
    }
}

#[test]
fn every_metric_of_the_alerts_is_documented() {
    let documented = alerts::documented();
    let missing: BTreeSet<_> = alerts::metrics().difference(&documented).cloned().collect();
    assert!(missing.is_empty(), "no page has {missing:?}");
}
