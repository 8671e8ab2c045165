//! An index beside its segment: chunks, one behind the other, from the segment's first byte on.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::chunk::Chunk;
use crate::trail::segment;

/// The chunks of an index that can be used, in order, and how far they go.
#[derive(Debug, Default)]
pub(super) struct Index {
    pub(super) chunks: Vec<Chunk>,
    /// So many of its own bytes are good.
    len: u64,
}

impl Index {
    /// Reads what can be used of the index of a segment: up to the first chunk that does not fit. There need not be one.
    /// What a chunk's sections hold is looked at when they are read.
    pub(super) fn read(path: &Path, segment: &File) -> Self {
        Self::read_where(path, segment, |_| true)
    }

    /// The same, up to the first chunk of which anything is damaged.
    pub(super) fn read_checked(path: &Path, segment: &File) -> Self {
        Self::read_where(path, segment, Chunk::is_sound)
    }

    fn read_where(path: &Path, segment: &File, is_good: impl Fn(&Chunk) -> bool) -> Self {
        let mut index = Self::default();
        let Ok(file) = File::open(path) else { return index };
        let (file, mut covered) = (Arc::new(file), 0);
        while let Ok((chunk, end)) = Chunk::open(&file, index.len) {
            if chunk.head.from != covered || !chunk.fits(segment) || !is_good(&chunk) {
                break;
            }
            covered = chunk.head.to;
            index.len = end;
            index.chunks.push(chunk);
        }
        index
    }

    /// Up to which byte of the segment it goes.
    pub(super) fn covered(&self) -> u64 {
        self.chunks.last().map_or(0, |chunk| chunk.head.to)
    }

    /// Writes a chunk behind those that can be used, in place of whatever stands there.
    pub(super) fn append(&self, path: &Path, chunk: &[u8]) -> io::Result<()> {
        let mut options = OpenOptions::new();
        let mut file = options.append(true).create(true).mode(0o600).open(path)?;
        file.set_len(self.len)?;
        let written = file.write_all(chunk);
        if written.is_err() {
            // What stands there is no chunk; but on a full disk others want its room.
            file.set_len(self.len)?;
        }
        written
    }
}

/// Where the index of a segment is.
pub(super) fn path(dir: &Path, first_seq: u64) -> PathBuf {
    segment::index_path(dir, first_seq)
}
