//! Checkpoints as a back end gives them back: JSON Lines of whatever shape, as long as the attributes stand in it.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use super::checkpoint::Checkpoint;

/// A file of exported checkpoints that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ExportedError {
    /// It cannot be read.
    #[error("cannot read {}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A line is no JSON.
    #[error("{}:{line}: this line is no JSON: {source}; give exported checkpoints as JSON Lines", path.display())]
    NoJson {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// What is wrong with it.
        source: serde_json::Error,
    },
    /// A line holds no checkpoint.
    #[error(
        "{}:{line}: there is no checkpoint in this line: entries 'trail.checkpoint' carry the attributes \
         bailiwick.checkpoint.trail, .seq, .chain, .time, .key and .signature",
        path.display()
    )]
    NoCheckpoint {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
    },
    /// A checkpoint was changed on its way.
    #[error("{}:{line}: this checkpoint is not what was signed: take it from where it was exported to", path.display())]
    NotSigned {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
    },
    /// There is not one.
    #[error("{} holds no checkpoint: `bailiwick tail --json --event trail.checkpoint --since start --no-follow` prints such", path.display())]
    Empty {
        /// The file.
        path: PathBuf,
    },
}

/// Reads a file of exported checkpoints: entries as `tail --json` prints them, records of OTLP's JSON, or any other object
/// that has the attributes, one or more a line.
///
/// # Errors
/// The file cannot be read, or a line of it holds no checkpoint.
pub fn read(path: &Path) -> Result<Vec<Checkpoint>, ExportedError> {
    let io = |source| ExportedError::Io { path: path.to_owned(), source };
    let mut found = Vec::new();
    for (number, line) in (1..).zip(BufReader::new(File::open(path).map_err(io)?).lines()) {
        let line = line.map_err(io)?;
        if line.trim().is_empty() {
            continue;
        }
        let value: Value = serde_json::from_str(&line).map_err(|source| ExportedError::NoJson {
            path: path.to_owned(),
            line: number,
            source,
        })?;
        let before = found.len();
        collect(&value, &mut found);
        if found.len() == before {
            return Err(ExportedError::NoCheckpoint { path: path.to_owned(), line: number });
        }
        if found.iter().skip(before).any(|checkpoint| !checkpoint.is_signed()) {
            return Err(ExportedError::NotSigned { path: path.to_owned(), line: number });
        }
    }
    if found.is_empty() {
        return Err(ExportedError::Empty { path: path.to_owned() });
    }
    Ok(found)
}

/// Looks for checkpoints in a value; JSON's own limit on nesting bounds this.
fn collect(value: &Value, found: &mut Vec<Checkpoint>) {
    match value {
        Value::Object(object) => match Checkpoint::of_attributes(object) {
            Some(checkpoint) => found.push(checkpoint),
            None => object.values().for_each(|value| collect(value, found)),
        },
        Value::Array(items) => match Checkpoint::of_attributes(&key_values(items)) {
            Some(checkpoint) => found.push(checkpoint),
            None => items.iter().for_each(|value| collect(value, found)),
        },
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

/// OTLP's attributes: `[{"key": …, "value": {"stringValue": …}}]`.
fn key_values(items: &[Value]) -> Map<String, Value> {
    let pair = |item: &Value| {
        let value = item.get("value")?;
        let plain = value.as_object().and_then(|wrapped| wrapped.values().next()).unwrap_or(value);
        Some((item.get("key")?.as_str()?.to_owned(), plain.clone()))
    };
    items.iter().filter_map(pair).collect()
}
