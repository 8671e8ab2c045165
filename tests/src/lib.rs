//! What the tests share: an instance of one's own, workloads that know what they did, and independent observers.
//!
//! The tests use the built program as its users do: through the command line, its JSON and its exit codes, as
//! `docs/contract.md` has them. Nothing here links the daemon. A failure panics, since that is how a test says what is
//! wrong; what a test started or made is ended and removed when it is dropped, on a panic too.

#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used, reason = "a panic is how a test fails")]

pub mod alerts;
pub mod bounded;
pub mod certificates;
pub mod connect_proxy;
pub mod conventions;
pub mod declaration;
pub mod entries;
pub mod faulty;
pub mod held;
pub mod http;
pub mod instance;
pub mod kernel_side;
pub mod model;
pub mod ocsf;
pub mod receiver;
pub mod requirement;
pub mod rotel;
pub mod scrape;
pub mod strace;
pub mod tmpfs;
pub mod workload;
