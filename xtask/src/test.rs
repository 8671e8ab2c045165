//! Everything that must hold before a change lands, in phases, with the time of each.
//!
//! CI relies on the last line of standard output: `N passed, N failed`. A phase that fails without naming a failed
//! test (a lint, a compilation, a test program that was killed) counts as one failure, so that the line never says
//! `0 failed` of a run that failed.
//!
//! Refuses: to run tests of the live kernel side by side. They share the kernel, and its timing.

mod report;

use std::process::ExitCode;

use anyhow::Result;

use self::report::{Counts, Report};
use crate::{
    build::{self, Profile},
    check, fuzz,
    invocation::Invocation,
    mounts,
    setup::{self, Group},
    workspace::Workspace,
};

/// The package of the tests that use the built program.
const PACKAGE: &str = "bailiwick-tests";
/// Its tests that need root and a live kernel, each to be run alone.
const ON_THE_KERNEL: [&str; 2] = ["privileged", "scenarios"];

/// Carries out every phase, and says how each went.
///
/// # Errors
/// When the report cannot be written. A phase that fails is no error: the exit code says it.
pub(crate) fn all(workspace: &Workspace) -> Result<ExitCode> {
    let mut report = Report::new();
    phases(workspace, &mut report);
    report.print(&mut std::io::stdout())?;
    Ok(if report.is_good() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn phases(workspace: &Workspace, report: &mut Report) {
    let ready = report.phase("setup", |_| setup::ensure(workspace, &Group::ALL))
        && report.phase("mounts", |_| mounts::ensure(workspace, mounts::FOR_TEST));
    if !ready {
        return;
    }
    // What a lint has to say does not keep the tests from saying theirs.
    report.phase("check", |_| check::all(workspace));
    if !report.phase("build", |_| build::all(workspace, Profile::Dev).map(drop)) {
        return;
    }
    report.phase("host tests", |counts| count(workspace, &cargo_test(), counts));
    report.phase("fuzz", |_| fuzz::run(workspace, &fuzz::IN_TESTS));
    for name in ON_THE_KERNEL {
        report.phase(&format!("{name} tests"), |counts| on_the_kernel(workspace, name, counts));
    }
}

fn cargo_test() -> Invocation {
    Invocation::new("cargo").args(["test", "--no-fail-fast"])
}

fn on_the_kernel(workspace: &Workspace, name: &str, counts: &mut Counts) -> Result<()> {
    if !workspace.metadata()?.has_test(PACKAGE, name) {
        eprintln!("test: skipped, since {PACKAGE} has no test target `{name}`");
        return Ok(());
    }
    let tests = cargo_test().args(["--package", PACKAGE, "--test", name, "--", "--test-threads=1"]);
    count(workspace, &tests, counts)
}

/// Runs `tests` and adds up what their programs say of themselves.
fn count(workspace: &Workspace, tests: &Invocation, counts: &mut Counts) -> Result<()> {
    tests.run_and_watch(workspace, |line| *counts += Counts::of_line(line))
}
