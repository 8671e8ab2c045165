//! The daemon's own health, over HTTP: `/metrics` as Prometheus' text, `/healthz`, `/readyz`.
//!
//! Inputs: an address, a [`Health`]. Outputs: answers to GET and HEAD. Refuses: anything else. Whatever clients do, it costs
//! little: few connections at a time, each for one request and a few seconds, and one page of metrics a second. What blocks runs
//! on threads for that, and nothing of it is waited for by the pipeline.

mod answer;
mod server;
#[cfg(test)]
mod tests;

pub use answer::{Answer, Health};
pub use server::{Limits, serve};
