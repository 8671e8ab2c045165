//! What a receiver refuses for good: `<state>/dead-letters/<target>.<signal>.jsonl`, one JSON object a line.
//!
//! They are for people: nothing reads them back. The entries themselves stay in the trail as long as its retention says.

use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::entry::{Entry, Timestamp};

/// A file that is longer is put aside as `.1`, in place of the one before: at most twice this is kept of a signal.
const MAX_FILE_BYTES: u64 = 8 << 20;

/// A dead letter cannot be written.
#[derive(Debug, thiserror::Error)]
#[error("cannot {action} {}: {source}", path.display())]
pub(super) struct DeadLetterError {
    action: &'static str,
    path: PathBuf,
    source: io::Error,
}

/// One answer of a receiver that refused something for good.
#[derive(Debug, Serialize)]
pub(super) struct Letter<'a> {
    /// When.
    pub(super) time: Timestamp,
    pub(super) target: &'a str,
    pub(super) signal: &'static str,
    /// What the receiver said.
    pub(super) why: &'a str,
    /// How many records it refused.
    pub(super) rejected: u64,
    /// The entries they are among: of a partial success OTLP does not say which.
    pub(super) uids: Vec<&'a str>,
    /// The entry, where it is a single one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) entry: Option<&'a Entry>,
}

/// Where the dead letters of a signal are kept.
#[derive(Clone, Debug)]
pub(super) struct DeadLetters {
    path: PathBuf,
}

impl DeadLetters {
    /// The file for a signal of a target; it is made when it is needed.
    pub(super) fn at(state_dir: &Path, target: &str, signal: &str) -> Self {
        Self { path: state_dir.join("dead-letters").join(format!("{target}.{signal}.jsonl")) }
    }

    /// Adds one.
    pub(super) fn put(&self, letter: &Letter<'_>) -> Result<(), DeadLetterError> {
        let error = |action| move |source| DeadLetterError { action, path: self.path.clone(), source };
        if let Some(dir) = self.path.parent() {
            DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(error("make the directory of"))?;
        }
        let mut line = serde_json::to_vec(letter).map_err(io::Error::from).map_err(error("write"))?;
        line.push(b'\n');
        let long = fs::metadata(&self.path).map_or(0, |found| found.len());
        if long > 0 && long.saturating_add(u64::try_from(line.len()).unwrap_or(u64::MAX)) > MAX_FILE_BYTES {
            fs::rename(&self.path, self.path.with_extension("jsonl.1")).map_err(error("put aside"))?;
        }
        let file = OpenOptions::new().append(true).create(true).mode(0o600).open(&self.path);
        file.and_then(|mut file| file.write_all(&line)).map_err(error("write"))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that cannot go on says so by panicking")]

    use std::fs;

    use super::{DeadLetters, Letter, MAX_FILE_BYTES};
    use crate::entry::Timestamp;

    #[test]
    fn letters_are_lines_and_only_the_latest_are_kept() {
        let state = tempfile::TempDir::new().unwrap();
        let letters = DeadLetters::at(state.path(), "backup", "logs");
        let why = "x".repeat(1 << 20);
        let put = |rejected| {
            let letter = Letter {
                time: Timestamp(1),
                target: "backup",
                signal: "logs",
                why: &why,
                rejected,
                uids: vec!["5f3a91c2-1"],
                entry: None,
            };
            letters.put(&letter).unwrap();
        };
        (1..=30).for_each(put);
        let read = |name: &str| -> Vec<u64> {
            let text = fs::read_to_string(state.path().join("dead-letters").join(name)).unwrap();
            assert!(u64::try_from(text.len()).unwrap() <= MAX_FILE_BYTES);
            let numbers = text.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
            numbers.map(|letter| letter["rejected"].as_u64().unwrap()).collect()
        };
        assert_eq!((read("backup.logs.jsonl.1"), read("backup.logs.jsonl")), ((22..=28).collect(), vec![29, 30]));
        assert_eq!(fs::read_dir(state.path().join("dead-letters")).unwrap().count(), 2);
    }
}
