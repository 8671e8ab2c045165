//! All that can be judged without running anything: format, lints, licences and sources, documentation, units.
//!
//! Advisories are not among it: their database comes over the network from outside the registries, and a check that
//! passes or fails by what was published overnight does not say whether a change is good. `cargo deny check
//! advisories` does it by hand.

mod units;

use anyhow::{Result, bail};

use crate::{build, invocation::Invocation, workspace::Workspace};

/// Carries out every check, also after one has failed, so that one run shows all there is to mend.
///
/// # Errors
/// When a check fails; the error names each.
pub(crate) fn all(workspace: &Workspace) -> Result<()> {
    let mut failed = Vec::new();
    for check in checks().into_iter().chain(units::verification(workspace)?) {
        if let Err(error) = check.run_in(workspace) {
            eprintln!("check: {error:#}");
            failed.push(check.to_string());
        }
    }
    if !failed.is_empty() {
        bail!("{} check(s) failed: {}", failed.len(), failed.join("; "));
    }
    eprintln!("check: all good");
    Ok(())
}

fn checks() -> [Invocation; 5] {
    let cargo = || Invocation::new("cargo");
    [
        cargo().args(["fmt", "--all", "--check"]),
        cargo().args(["clippy", "--all-targets", "--", "-D", "warnings"]),
        build::sensor_command("clippy").args(["--", "-D", "warnings"]),
        cargo().args(["deny", "--workspace", "check", "--hide-inclusion-graph", "licenses", "bans", "sources"]),
        cargo().env("RUSTDOCFLAGS", "-D warnings").args(["doc", "--no-deps"]),
    ]
}
