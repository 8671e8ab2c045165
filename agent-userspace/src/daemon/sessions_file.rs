//! Which sessions live, on disk: a daemon that was killed leaves sessions without an end, and the next one must end them.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use tracing::warn;

use crate::attribute::Session;
use crate::entry::{Delegator, Principal, SessionId, Timestamp};

/// A session that was left open.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Abandoned {
    pub(super) session: SessionId,
    pub(super) agent: String,
    pub(super) started: Timestamp,
    pub(super) principal: Principal,
    pub(super) delegation: Vec<Delegator>,
}

/// The file.
#[derive(Debug)]
pub(super) struct SessionsFile {
    path: PathBuf,
}

impl SessionsFile {
    /// The one in that state directory.
    pub(super) fn at(state_dir: &Path) -> Self {
        Self { path: state_dir.join("live-sessions.json") }
    }

    /// The sessions that the daemon before left open. A file that cannot be read names none: they then have no end.
    pub(super) fn abandoned(&self) -> Vec<Abandoned> {
        let text = match fs::read(&self.path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Vec::new(),
            Err(error) => {
                warn!(path = %self.path.display(), %error, "sessions that were left open are not known");
                return Vec::new();
            }
        };
        serde_json::from_slice(&text).unwrap_or_else(|error| {
            warn!(path = %self.path.display(), %error, "sessions that were left open are not known");
            Vec::new()
        })
    }

    /// Writes down which sessions live.
    pub(super) fn note<'a>(&self, sessions: impl Iterator<Item = (u64, &'a Session)>) {
        let live: Vec<Abandoned> = sessions
            .map(|(_, session)| Abandoned {
                session: session.id,
                agent: session.agent.clone(),
                started: session.started,
                principal: session.principal.clone(),
                delegation: session.delegation.clone(),
            })
            .collect();
        if let Err(error) = self.write(&live) {
            warn!(path = %self.path.display(), %error, "should the daemon be killed, sessions will have no end");
        }
    }

    fn write(&self, live: &[Abandoned]) -> io::Result<()> {
        let new = self.path.with_extension("new");
        fs::write(&new, serde_json::to_vec(live)?)?;
        fs::rename(new, &self.path)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::SessionsFile;

    #[test]
    fn a_file_that_is_torn_names_no_session() {
        let state = tempfile::tempdir().unwrap();
        std::fs::write(state.path().join("live-sessions.json"), b"[{\"session\":").unwrap();
        assert!(SessionsFile::at(state.path()).abandoned().is_empty());
    }
}
