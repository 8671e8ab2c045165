//! The second sink: every entry as an OCSF event, a line of JSON each, in a file for whoever collects files.
//!
//! Inputs: the trail, as any exporter reads it, with a cursor of its own. Outputs: one event an entry, of OCSF 1.9.0, with
//! `metadata.uid` the entry's uid. The file is bounded: it is rotated by size, and only so many are kept. What could not be
//! written is held: the cursor stays. What was written before a crash and not noted is found at the file's end, and not
//! written again.
//!
//! - `class`: which class and activity an event is, and what else follows from its name
//! - `event`: an entry as an event
//! - `objects`: the parts that events are made of
//! - `file`: the file, its rotation, what stands at its end
//! - `sink`: from the trail to the file
//!
//! Refuses: to say of an agent what was not observed (its model, its framework). What OCSF has no place for stands in
//! `unmapped`, so that nothing of an entry is missing. `docs/ocsf.md` has the mapping.

mod class;
mod event;
mod file;
mod objects;
mod sink;
#[cfg(test)]
mod tests;

use std::path::PathBuf;

pub(super) use event::{Charters, Device};
pub use file::FileError;
pub(super) use sink::OcsfSink;

/// The name that `status` and the cursor have for this target. No other may have it.
pub const OCSF_TARGET: &str = "ocsf";

/// Where events go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OcsfSettings {
    /// The file that is written.
    pub file: PathBuf,
    /// It is put aside when it has come to this many bytes.
    pub rotate_bytes: u64,
    /// How many that were put aside are kept.
    pub keep_files: u32,
}
