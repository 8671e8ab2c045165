//! How far a signal was sent: `<state>/cursors/<target>.<signal>.json`, replaced as a whole.

use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::contexts::Contexts;
use super::ocsf::Charters;
use super::totals::Totals;
use crate::trail::Cursor;

/// A cursor's file cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("cannot {action} {}: {source}", path.display())]
pub struct CursorError {
    action: &'static str,
    path: PathBuf,
    source: io::Error,
}

/// What is kept of a signal.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Saved {
    /// The id of the trail that the place is in.
    pub(super) trail: String,
    /// After the last entry that was acknowledged.
    pub(super) cursor: Cursor,
    /// How many records the receiver refused for good.
    #[serde(default)]
    pub(super) rejected: u64,
    /// How many of them a dead letter tells of.
    #[serde(default)]
    pub(super) dead_lettered: u64,
    /// Of metrics: the totals up to there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) totals: Option<Totals>,
    /// The traces of agents that sessions have joined, or are linked to.
    #[serde(default, skip_serializing_if = "Contexts::is_empty")]
    pub(super) contexts: Contexts,
    /// Of OCSF events: the charters of the sessions that live there.
    #[serde(default, skip_serializing_if = "Charters::is_empty")]
    pub(super) charters: Charters,
}

/// Where a signal's cursor is kept.
#[derive(Clone, Debug)]
pub(super) struct CursorFile {
    path: PathBuf,
}

impl CursorFile {
    /// The file for a signal of a target, its directory made where it is missing.
    pub(super) fn open(state_dir: &Path, target: &str, signal: &str) -> Result<Self, CursorError> {
        let dir = state_dir.join("cursors");
        let error = |source| CursorError { action: "create", path: dir.clone(), source };
        DirBuilder::new().recursive(true).mode(0o700).create(&dir).map_err(error)?;
        Ok(Self { path: dir.join(format!("{target}.{signal}.json")) })
    }

    /// What was kept for this trail. What belongs to another, or cannot be understood, counts as nothing: then all is
    /// sent again, which loses nothing.
    pub(super) fn load(&self, trail: &str) -> Result<Option<Saved>, CursorError> {
        let text = match fs::read(&self.path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(CursorError { action: "read", path: self.path.clone(), source }),
        };
        match serde_json::from_slice::<Saved>(&text) {
            Ok(saved) if saved.trail == trail => Ok(Some(saved)),
            Ok(saved) => {
                tracing::warn!(file = %self.path.display(), of = saved.trail, "this cursor is of another trail: sending from the start");
                Ok(None)
            }
            Err(error) => {
                tracing::warn!(file = %self.path.display(), %error, "this cursor cannot be read: sending from the start");
                Ok(None)
            }
        }
    }

    /// Keeps this, durably, in place of what was kept.
    pub(super) fn save(&self, saved: &Saved) -> Result<(), CursorError> {
        let draft = self.path.with_extension("json.new");
        let write = || {
            let text = serde_json::to_vec(saved)?;
            let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&draft)?;
            file.write_all(&text)?;
            // Before the rename: otherwise a power cut may leave an empty file under the name.
            file.sync_data()?;
            fs::rename(&draft, &self.path)
        };
        write().map_err(|source| CursorError { action: "write", path: self.path.clone(), source })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that cannot go on says so by panicking")]

    use std::fs;

    use tempfile::TempDir;

    use super::{CursorFile, Saved};
    use crate::entry::{Draft, Entry, SessionId, Timestamp};
    use crate::export::totals::Totals;
    use crate::trail::Cursor;

    fn saved() -> Saved {
        let mut totals = Totals::default();
        let mut draft = Draft::of_host(Timestamp(1), "session.start");
        draft.agent = Some("a".to_owned());
        draft.session = Some(SessionId(7));
        totals.add(&Entry { uid: "x-1".to_owned(), seq: 1, draft, chain: String::new() });
        let cursor = Cursor { seq: 5, segment: 1, offset: 900 };
        let trail = "5f3a91c2".to_owned();
        Saved { trail, cursor, rejected: 2, dead_lettered: 1, totals: Some(totals), ..Saved::default() }
    }

    #[test]
    fn what_is_kept_comes_back_whole() {
        let state = TempDir::new().unwrap();
        let file = CursorFile::open(state.path(), "otlp", "metrics").unwrap();
        assert_eq!(file.load("5f3a91c2").unwrap(), None);
        file.save(&saved()).unwrap();
        assert_eq!(file.load("5f3a91c2").unwrap(), Some(saved()));
        let names: Vec<_> =
            fs::read_dir(state.path().join("cursors")).unwrap().map(|name| name.unwrap().file_name()).collect();
        assert_eq!(names, ["otlp.metrics.json"]);
    }

    #[test]
    fn a_cursor_of_another_trail_or_a_damaged_one_starts_anew() {
        let state = TempDir::new().unwrap();
        let file = CursorFile::open(state.path(), "otlp", "logs").unwrap();
        file.save(&saved()).unwrap();
        assert_eq!(file.load("00000000").unwrap(), None);
        fs::write(state.path().join("cursors/otlp.logs.json"), "").unwrap();
        assert_eq!(file.load("5f3a91c2").unwrap(), None);
    }
}
