//! Whose trail this is: `trail.json`, written once, when the trail is made.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::chain;
use super::error::{TrailError, io_error};
use super::segment;
use crate::entry::Timestamp;

/// A trail's name and age. Every uid starts with the id, so entries of two hosts never share one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// Eight hexadecimal digits, drawn at random.
    pub id: String,
    /// When the trail was made.
    pub created: Timestamp,
}

impl Identity {
    /// Reads the identity of the trail below `state_dir`; `None` where no trail was made yet.
    pub fn read(state_dir: &Path) -> Result<Option<Self>, TrailError> {
        let path = state_dir.join("trail.json");
        let text = match fs::read(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(io_error("read", &path)(error)),
        };
        serde_json::from_slice(&text).map(Some).map_err(|source| TrailError::BadIdentity { path, source })
    }

    /// The chain that the trail's first entry follows.
    pub(super) fn genesis(state_dir: &Path) -> Result<String, TrailError> {
        let path = state_dir.join("trail.json");
        fs::read(&path).map(|text| chain::genesis(&text)).map_err(io_error("read", &path))
    }

    /// Reads it, or makes one where neither it nor a segment is there.
    pub(super) fn read_or_create(state_dir: &Path) -> Result<Self, TrailError> {
        if let Some(identity) = Self::read(state_dir)? {
            return Ok(identity);
        }
        let path = state_dir.join("trail.json");
        let dir = segment::directory(state_dir);
        if !segment::list(&dir)?.is_empty() {
            return Err(TrailError::NoIdentity { path, dir });
        }
        let identity = Self { id: random_id()?, created: Timestamp::now() };
        let text = serde_json::to_vec(&identity)
            .map_err(|source| TrailError::Encode { event: "trail.json".to_owned(), source })?;
        // Whole or not at all, and durable before the first entry that carries the id.
        let draft = state_dir.join("trail.json.new");
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(true).mode(0o600);
        let mut file = options.open(&draft).map_err(io_error("create", &draft))?;
        file.write_all(&text).and_then(|()| file.sync_all()).map_err(io_error("write", &draft))?;
        fs::rename(&draft, &path).map_err(io_error("write", &path))?;
        segment::sync_directory(state_dir)?;
        Ok(identity)
    }
}

fn random_id() -> Result<String, TrailError> {
    let path = Path::new("/dev/urandom");
    let mut bytes = [0; 4];
    File::open(path).and_then(|mut source| source.read_exact(&mut bytes)).map_err(io_error("read", path))?;
    Ok(format!("{:08x}", u32::from_ne_bytes(bytes)))
}
