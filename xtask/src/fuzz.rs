//! Fuzzes the decoder: whatever stands in a ring, it may not panic.
//!
//! libFuzzer starts from `tests/fuzz/corpus/decode`, a real record of every kind; what it finds beside goes to
//! `target/fuzz`, never into the tree. Its last lines, which say how much was covered, are shown as they are.
//!
//! Refuses: to use a sanitizer of memory. The decoder has no unsafe code; overflows and bounds panic by themselves.

use anyhow::{Context, Result};
use clap::Args;

use crate::{invocation::Invocation, workspace::Workspace};

/// How long the tests fuzz.
pub(crate) const IN_TESTS: Options = Options { seconds: 30 };

#[derive(Debug, Args)]
pub(crate) struct Options {
    /// How long
    #[arg(long, default_value_t = 600, value_parser = clap::value_parser!(u32).range(1..))]
    seconds: u32,
}

/// Fuzzes for so long.
///
/// # Errors
/// It cannot be built, or found something: then libFuzzer has said where the input is.
pub(crate) fn run(workspace: &Workspace, options: &Options) -> Result<()> {
    let target = workspace.root().join("target/fuzz");
    let found = target.join("found");
    std::fs::create_dir_all(&found).with_context(|| format!("cannot create {}", found.display()))?;
    Invocation::new("cargo")
        .args(["fuzz", "run", "--fuzz-dir", "tests/fuzz", "--sanitizer", "none", "--target-dir"])
        .arg(&target)
        .arg("decode")
        .arg(&found)
        .args(["tests/fuzz/corpus/decode", "--", "-print_final_stats=1", "-max_len=8192"])
        .arg(format!("-max_total_time={}", options.seconds))
        .arg(format!("-artifact_prefix={}/", target.display()))
        // What instruments the code is not stable.
        .env("RUSTC_BOOTSTRAP", "1")
        .run_in(workspace)
}
