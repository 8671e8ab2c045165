//! Whole stories: a real agent at its work, watched by Bailiwick and by an observer that shares nothing with it.

#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used, reason = "a panic is how a test fails")]

mod compare;
mod conventions;
mod faults;
mod full_disk;
mod learn;
mod living;
mod mini;
mod real_agent;
mod receivers;
mod secured;
mod targets;
mod telemetry;
mod traces;
mod workloads;
