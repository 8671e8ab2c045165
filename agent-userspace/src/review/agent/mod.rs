//! The review of an agent: what it was granted and did not use, what it used and was not granted.
//!
//! Inputs: its declaration, the configuration around it, entries in any order. Outputs: a [`Review`], and the narrower declaration
//! as a diff. Pure. Judged by the scope in force now, with the code that judges events; what the history does not hold stands in
//! [`report::Completeness`]. Refuses: to say that something is unused without saying of what time that is, and to narrow by what
//! agents say of themselves.
//!
//! - [`grants`]: what each grant was used for
//! - [`collect`]: a review under way
//! - [`report`]: what it says
//! - [`narrow`]: the narrower declaration
//! - [`page`]: all of it as a page of HTML

pub mod collect;
pub mod grants;
pub mod narrow;
pub mod page;
pub mod report;
#[cfg(test)]
mod tests;

pub use collect::{DECISION, Reviewing, due};
pub use report::Review;
