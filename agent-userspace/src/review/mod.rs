//! What the trail says about declarations: what a proposed one would have made of what was done.
//!
//! Inputs: entries in the order of the trail, a configuration. Outputs: reports. Pure, and judged with the same code as events
//! are. Refuses: to change a declaration; and to speak of what it did not see without naming it.
//!
//! - [`agent`]: what an agent was granted and did not use, and what it did without a grant
//! - [`gaps`]: what the history that was looked at does not hold
//! - [`learn`]: the narrow declaration that covers what was done
//! - [`replay`]: recorded actions judged by another configuration

pub mod agent;
pub mod gaps;
pub mod learn;
pub mod replay;
