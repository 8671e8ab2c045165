//! Bailiwick, as a library: the binary is a thin `main`, so that tests and benches use what users use.
//!
//! The way of an action: kernel hook → record → decode → event → attribute → judge → trail → export and viewers.
//! `docs/architecture.md` has the whole picture.
#![deny(unsafe_code)]

pub mod attribute;
pub mod cli;
pub mod config;
pub mod control;
pub mod credential;
pub mod daemon;
pub mod decode;
pub mod discover;
pub mod entry;
pub mod export;
pub mod finding;
pub mod gate;
pub mod health;
pub mod hook_check;
pub mod index;
pub mod integrity;
pub mod metrics;
pub mod observation;
pub mod redact;
pub mod resource;
pub mod review;
pub mod scope;
pub mod sensor;
pub mod trace_context;
pub mod trail;
