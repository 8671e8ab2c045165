//! The golden file of OCSF events, against the schema as it was published.

use bailiwick_tests::ocsf;
use bailiwick_tests::requirement::Requirement::Venv;
use bailiwick_tests::requirement::require;

#[test]
fn the_published_schema_finds_no_fault_with_an_event_of_any_family() {
    if !require(&[Venv]) {
        return;
    }
    let golden = concat!(env!("CARGO_MANIFEST_DIR"), "/../agent-userspace/src/export/ocsf/golden/events.jsonl");
    ocsf::valid(golden.as_ref()).unwrap();
}

#[test]
fn the_published_schema_finds_what_is_missing_or_made_up() {
    if !require(&[Venv]) {
        return;
    }
    let golden = concat!(env!("CARGO_MANIFEST_DIR"), "/../agent-userspace/src/export/ocsf/golden/events.jsonl");
    let text = std::fs::read_to_string(golden).unwrap();
    let exec: serde_json::Value = text
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .find(|event: &serde_json::Value| event["exit_code"].is_null() && event["class_uid"] == 1007)
        .unwrap();
    let place = bailiwick_tests::workload::Place::new();
    for (key, value) in [("device", None), ("ai_agents", Some("x"))] {
        let mut spoilt = exec.clone();
        let object = spoilt.as_object_mut().unwrap();
        object.remove(key);
        if let Some(value) = value {
            object.insert(key.to_owned(), value.into());
        }
        let file = place.join("spoilt.jsonl");
        std::fs::write(&file, format!("{spoilt}\n")).unwrap();
        let fault = ocsf::valid(&file).unwrap_err();
        assert!(fault.contains(&format!("'{key}'")), "{fault}");
    }
}
