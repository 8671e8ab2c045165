//! Binary integrity: what an agent begins with is hashed and kept, and a change is found.

use std::fs;
use std::path::Path;
use std::time::Duration;

use bailiwick_tests::bounded;
use bailiwick_tests::declaration::Declaration;
use bailiwick_tests::instance::Instance;
use bailiwick_tests::requirement::Requirement::Tier2;
use bailiwick_tests::requirement::require;
use bailiwick_tests::workload::{self, Place};
use serde_json::Value;

const SOON: Duration = Duration::from_secs(60);

fn files(instance: &Instance, agent: &str) -> Vec<Value> {
    let listed = instance.json("agents --json");
    let item = listed["items"].as_array().unwrap().iter().find(|item| item["agent"] == agent).unwrap();
    item["files"].as_array().unwrap().clone()
}

/// The hash of an agent's script, once it is known and is not that one.
fn hash_of(instance: &Instance, path: &Path, not: Option<&str>) -> String {
    let is = |file: &Value| file["role"] == "script" && file["path"] == path.to_str().unwrap();
    let known = || files(instance, "a").into_iter().find(is).map(|file| file["sha256"].as_str().unwrap().to_owned());
    bounded::until("the hash", SOON, || known().is_some_and(|known| Some(known.as_str()) != not));
    known().unwrap()
}

#[test]
fn a_script_that_changed_is_found_over_a_restart_and_one_that_did_not_is_not() {
    if !require(&[Tier2]) {
        return;
    }
    let place = Place::new();
    let script = place.script("agent", "#!/bin/sh\nexit 0\n");
    let mut instance = Instance::start(&[Declaration::new("a").script(&script)]);
    workload::run::<&str>(&script, &[]).success();
    let before = hash_of(&instance, &script, None);
    instance.stop();
    instance.start_daemon();
    workload::run::<&str>(&script, &[]).success();
    assert_eq!(hash_of(&instance, &script, None), before);

    fs::write(&script, "#!/bin/sh\n# planted\nexit 0\n").unwrap();
    workload::run::<&str>(&script, &[]).success();
    let after = hash_of(&instance, &script, Some(&before));
    let all = || instance.synced_trail().event("finding.agent_changed");
    bounded::until("the finding", SOON, || !all().is_empty());
    let found = all().only().clone();
    let attributes = &found["attributes"];
    assert_eq!((&found["agent"], &attributes["bailiwick.integrity.role"]), (&"a".into(), &"script".into()), "{found}");
    assert_eq!(attributes["bailiwick.integrity.path"], script.to_str().unwrap());
    assert_eq!(
        (&attributes["bailiwick.integrity.was"], &attributes["bailiwick.integrity.is"]),
        (&before.into(), &after.into())
    );
    let causes = &attributes["bailiwick.finding.causes"];
    let cause = |entry: &Value| entry["uid"] == causes[0];
    assert_eq!(instance.trail().filter(cause).only()["event"], "process.exec", "{causes}");
}

#[test]
fn an_image_that_was_replaced_is_found() {
    if !require(&[Tier2]) {
        return;
    }
    let place = Place::new();
    let program = place.join("program");
    fs::copy("/bin/true", &program).unwrap();
    let instance = Instance::start(&[Declaration::new("a").executable(&program)]);
    workload::run::<&str>(&program, &[]).success();
    bounded::until("the hash", SOON, || !files(&instance, "a").is_empty());
    fs::copy("/bin/echo", place.join("new")).unwrap();
    fs::rename(place.join("new"), &program).unwrap();
    instance.call("reload").success();
    workload::run::<&str>(&program, &[]).success();
    let all = || instance.synced_trail().event("finding.agent_changed");
    bounded::until("the finding", SOON, || !all().is_empty());
    assert_eq!(all().only()["attributes"]["bailiwick.integrity.role"], "image");
}
