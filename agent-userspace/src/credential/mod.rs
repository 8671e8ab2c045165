//! Credentials: which agent read which, when, from which process; how old they are; and what follows from that. Never a value.
//!
//! - [`table`]: which credential an entry uses, by declarations and by the catalogue of well-known ones
//! - [`ledger`]: who has read which, over sessions and restarts
//! - [`watch`]: what a session does after it read one
//! - [`rotation`]: when it was changed, and when it is due
//! - [`found`]: the findings
//! - [`map`]: who reads what, both ways
//!
//! All but the ledger's file and `stat` is pure; `daemon/credentials.rs` hands them the entries. Refuses to open a
//! credential's file.

pub mod found;
pub mod ledger;
pub mod map;
pub mod rotation;
pub mod table;
pub mod watch;
