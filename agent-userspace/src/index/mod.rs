//! The index: what makes a question about the trail quick.
//!
//! Beside each segment lies an index of it, in chunks of `CHUNK_BYTES` of the segment: which lines have which agent,
//! session, delegator, event, verdict, address or path, and the sums of each session. Inputs: the trail's segments. Outputs:
//! those of its lines that a question may want, read from the segments; every one is then held against the filter itself.
//!
//! Refusals: an index is never believed where it does not fit its segment, or itself: what it does not cover is scanned. It
//! holds nothing that the segment does not, and may be removed at any time: the [`Indexer`] makes it again.
//! `docs/trail.md` describes the format.

mod builder;
mod chunk;
mod dictionary;
mod facets;
mod file;
mod indexer;
mod lines;
mod search;
#[cfg(test)]
mod tests;

pub use indexer::Indexer;
pub use search::Search;

/// So much of a segment a chunk covers, or the rest of a segment that is closed: what is not indexed yet is scanned, so this
/// bounds the time for that, and the memory that building takes.
const CHUNK_BYTES: u64 = 8 << 20;

/// Lines of a chunk at most: they are numbered with 16 bits.
const CHUNK_LINES: usize = 1 << 16;
