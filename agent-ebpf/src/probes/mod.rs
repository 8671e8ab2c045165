//! The hooks, one file a family of observations.

pub mod act;
pub mod calls;
pub mod file;
pub mod io_uring;
pub mod network;
pub mod privilege;
pub mod process;
