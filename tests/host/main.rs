//! Tests that need neither root nor a kernel of a certain kind: the observers and the workloads themselves.
//!
//! What the privileged tests compare the trail with must be right by itself, so it is held against a second observer here.

#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used, reason = "a panic is how a test fails")]

mod alerts;
mod conventions;
mod discover;
mod ocsf;
mod receiver;
mod workloads;
