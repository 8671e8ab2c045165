//! The trail: the durable, ordered record of everything the daemon saw and decided.
//!
//! Inputs: [`Draft`](crate::entry::Draft)s from the pipeline, its only writer. Outputs: segment files of JSON Lines
//! that any tool can read, one [`Entry`](crate::entry::Entry) a line exactly as `--json` prints it, and
//! [`TrailReader`]s that follow them. Viewers and exporters are readers: the trail is their queue.
//!
//! Refusals: a second writer on the same state is turned away; a batch is written whole or not at all; nothing is ever
//! rewritten, and what a crash tore is set aside, not deleted. `docs/trail.md` describes the format.

mod error;
mod identity;
mod lock;
mod reader;
mod recovery;
mod segment;
#[cfg(test)]
mod tests;
mod writer;

pub use error::{AppendError, TrailError};
pub use identity::Identity;
pub use reader::{Cursor, Position, TrailReader};
pub use recovery::Recovered;
pub use writer::{Opened, Syncer, Trail, TrailOptions};
