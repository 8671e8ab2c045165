//! The control socket: how the command line, and nothing else, asks the daemon for something.
//!
//! Purpose: answer `bailiwick tail`, `run`, `status` and the others over `<runtime>/control.sock`, without ever letting
//! a client slow the daemon down.
//! Inputs: one [`Request`] a connection, a line of JSON; a [`Core`] that knows the answers; the trail's entries.
//! Outputs: lines of JSON, each a [`Response`]; the last of them is `end` or `error`.
//! Refuses: peers that are neither root, nor the daemon's own user, nor of the group `bailiwick`; requests over
//! [`protocol::MAX_REQUEST_BYTES`]; more connections than [`server::Limits`] allows; readers that do not read.

mod chain;
pub mod client;
mod core;
mod follow;
pub mod peer;
pub mod protocol;
pub mod query;
pub mod report;
pub mod server;
pub mod sessions;
pub(crate) mod show;
pub mod socket;
mod writer;

#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;

pub use self::core::{Answer, Core, CoreError, Entries, Found, From, Question, RunRefused};
pub use self::peer::{Access, Peer};
pub use self::protocol::{ErrorKind, RemoteError, Request, Response};
pub use self::socket::ControlSocket;
