//! OCSF events against the schema as it was published, by a program that is not ours (`tests/ocsf/validate.py`).

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use serde_json::Value;

use crate::{bounded, workload};

/// The schema is several megabytes of JSON, and so are the events of a busy test.
const VALIDATED_WITHIN: Duration = Duration::from_secs(120);

/// What is wrong with the events of a file, a line each.
///
/// # Errors
///
/// That.
pub fn valid(file: &Path) -> Result<(), String> {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/ocsf/validate.py");
    let said = bounded::run(Command::new(workload::venv().join("bin/python")).arg(script).arg(file), VALIDATED_WITHIN);
    if said.code() == Some(0) { Ok(()) } else { Err(format!("{}{}", said.stdout, said.stderr)) }
}

/// The events of a file.
///
/// # Panics
///
/// If a line is no JSON.
pub fn events(file: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(file).unwrap_or_default();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}
