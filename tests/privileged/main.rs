//! Tests on the live kernel: each does the real thing and looks for it in the trail.
//!
//! They need root and a kernel that lets the sensor attach; where that is missing each says so and passes. Every test has
//! an instance of its own, and marks, signals and monitors only what it made itself.

#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used, reason = "a panic is how a test fails")]

mod agent_review;
mod arming;
mod bus;
mod calls;
mod config;
mod credential;
mod deeds;
mod delegation;
mod detours;
mod discover;
mod disguises;
mod doctor;
mod evasions;
mod file;
mod flood;
mod gate;
mod health;
mod integrity;
mod io_uring;
mod lineage;
mod network;
mod ocsf;
mod process;
mod questions;
mod redaction;
mod resource;
mod retention;
mod review;
mod session;
mod sly;
mod soak;
mod sockets;
mod trail;
