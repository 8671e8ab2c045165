//! The trail: the durable, ordered record of everything the daemon saw and decided.
//!
//! Inputs: [`Draft`](crate::entry::Draft)s from the pipeline, its only writer. Outputs: segment files of JSON Lines
//! that any tool can read, one [`Entry`](crate::entry::Entry) a line exactly as `--json` prints it, and
//! [`TrailReader`]s that follow them. Viewers and exporters are readers: the trail is their queue.
//!
//! Refusals: a second writer on the same state is turned away; a batch is written whole or not at all; nothing is ever
//! rewritten, and what a crash tore is set aside, not deleted. `docs/trail.md` describes the format.

mod chain;
mod checkpoint;
mod error;
mod exported;
mod extent;
#[cfg(test)]
mod forgery_tests;
mod identity;
mod key;
mod lock;
mod reader;
mod recovery;
mod retention;
pub(crate) mod segment;
#[cfg(test)]
mod tests;
mod verify;
#[cfg(test)]
mod verify_tests;
mod walk;
mod writer;

pub use checkpoint::{CHECKPOINT, Checkpoint, short_key};
pub use error::{AppendError, TrailError};
pub use exported::{ExportedError, read as read_checkpoints};
pub use extent::Extent;
pub use identity::Identity;
pub use reader::{Cursor, Position, TrailReader};
pub use recovery::Recovered;
pub use retention::{Removable, Retention, TOMBSTONE};
pub use verify::{FirstBad, Verified, verify};
pub use writer::{Opened, Syncer, Trail, TrailOptions};
