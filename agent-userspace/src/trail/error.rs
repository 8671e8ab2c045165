//! What can go wrong with the trail, each with the file it concerns.

use std::io;
use std::path::{Path, PathBuf};

use crate::entry::Draft;

/// A failure of the trail.
#[derive(Debug, thiserror::Error)]
pub enum TrailError {
    /// The operating system refused.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// On which file or directory.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Another daemon writes this trail.
    #[error(
        "the state directory {} is in use by a daemon with pid {holder}: stop that one, or give this one a directory of \
         its own with BAILIWICK_STATE_DIR",
        state.display()
    )]
    Held {
        /// The state directory.
        state: PathBuf,
        /// The pid that stands in the lock file, or `unknown`.
        holder: String,
    },
    /// `trail.json` is there, but does not say whose trail this is.
    #[error("{} is not readable as a trail's identity: {source}; restore it from a copy", path.display())]
    BadIdentity {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: serde_json::Error,
    },
    /// There are segments, but no `trail.json`.
    #[error("{} is missing, though {} has segments: restore it, or move the segments elsewhere", path.display(), dir.display())]
    NoIdentity {
        /// The missing file.
        path: PathBuf,
        /// The directory of segments.
        dir: PathBuf,
    },
    /// A line is no entry.
    #[error("{} at byte {offset}: this line is no entry: {source}", path.display())]
    BadLine {
        /// The segment.
        path: PathBuf,
        /// Where the line starts.
        offset: u64,
        /// What is wrong with it.
        source: serde_json::Error,
    },
    /// A line does not end, or not within the longest that is ever written.
    #[error("{} at byte {offset}: a line that starts here does not end as entries do", path.display())]
    Endless {
        /// The segment.
        path: PathBuf,
        /// Where the line starts.
        offset: u64,
    },
    /// An entry could not be written as JSON.
    #[error("an entry '{event}' cannot be written as JSON: {source}")]
    Encode {
        /// The entry's event.
        event: String,
        /// What the encoder said.
        source: serde_json::Error,
    },
    /// There is no trail.
    #[error(
        "there is no trail below {}: name the state directory with --state-dir or BAILIWICK_STATE_DIR",
        state.display()
    )]
    NoTrail {
        /// The state directory.
        state: PathBuf,
    },
    /// The host's key cannot be used.
    #[error(
        "{}: no key to sign checkpoints with: {why}; restore it from a copy, or move it away and a new one is made",
        path.display()
    )]
    BadKey {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// The disk failed to make an earlier write durable; the kernel may have dropped it.
    #[error(
        "{} could not be made durable earlier, so what was written since is not claimed to be: check the disk, then \
         restart the daemon",
        path.display()
    )]
    SyncFailed {
        /// The segment.
        path: PathBuf,
    },
}

impl TrailError {
    /// Whether this is a line (not a file, nor the system) that cannot be read: [`skip_line`] gets past it.
    ///
    /// [`skip_line`]: super::TrailReader::skip_line
    pub fn is_bad_line(&self) -> bool {
        match self {
            Self::BadLine { .. } | Self::Endless { .. } => true,
            Self::Io { .. }
            | Self::Held { .. }
            | Self::BadIdentity { .. }
            | Self::NoIdentity { .. }
            | Self::Encode { .. }
            | Self::NoTrail { .. }
            | Self::BadKey { .. }
            | Self::SyncFailed { .. } => false,
        }
    }
}

/// Names what was tried on `path`, for `map_err`.
pub(super) fn io_error<'a>(action: &'static str, path: &'a Path) -> impl FnOnce(io::Error) -> TrailError + 'a {
    move |source| TrailError::Io { action, path: path.to_owned(), source }
}

/// A batch was not written, no part of it. The drafts come back, in their order, so that they can be tried again.
#[derive(Debug, thiserror::Error)]
#[error("{} entries were not written: {error}", drafts.len())]
pub struct AppendError {
    /// What was to be written.
    pub drafts: Vec<Draft>,
    /// Why it was not.
    #[source]
    pub error: TrailError,
}
