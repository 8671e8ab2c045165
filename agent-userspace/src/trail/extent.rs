//! How much of a trail there is on disk.

use std::fs::File;
use std::io::{BufRead, BufReader, ErrorKind, Read};
use std::path::Path;

use super::error::{TrailError, io_error};
use super::segment;
use crate::entry::Timestamp;

/// What a trail takes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Extent {
    /// How many segments.
    pub segments: u64,
    /// Their bytes.
    pub bytes: u64,
    /// The bytes of their indexes.
    pub index_bytes: u64,
    /// The time of the first entry that is kept, where it can be read.
    pub oldest: Option<Timestamp>,
}

impl Extent {
    /// Looks at the trail below `state_dir`.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn of(state_dir: &Path) -> Result<Self, TrailError> {
        let dir = segment::directory(state_dir);
        let firsts = segment::list(&dir)?;
        let mut extent = Self { segments: firsts.len() as u64, ..Self::default() };
        for &first in &firsts {
            extent.bytes += len(&segment::path(&dir, first))?;
            extent.index_bytes += len(&segment::index_path(&dir, first))?;
        }
        extent.oldest = firsts.first().and_then(|&first| first_time(&segment::path(&dir, first)));
        Ok(extent)
    }
}

/// What retention removed meanwhile has no length.
fn len(path: &Path) -> Result<u64, TrailError> {
    match path.metadata() {
        Ok(metadata) => Ok(metadata.len()),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(0),
        Err(error) => Err(io_error("inspect", path)(error)),
    }
}

fn first_time(path: &Path) -> Option<Timestamp> {
    let mut line = Vec::new();
    let file = File::open(path).ok()?.take(segment::MAX_LINE_BYTES as u64);
    BufReader::new(file).read_until(b'\n', &mut line).ok()?;
    serde_json::from_slice::<segment::Head>(&line).ok().map(|head| head.time)
}
