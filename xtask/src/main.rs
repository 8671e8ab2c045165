//! `cargo xtask`: what the project does to itself.
//!
//! Every subcommand first sets up what it needs and is missing (`setup`), so that each works from a clean clone. What
//! CI runs is `cargo xtask test`, nothing else.
//!
//! The C compiler is the one thing that cannot be set up from here: cargo links this program with it.

mod bench;
mod build;
mod check;
mod fuzz;
mod invocation;
mod mounts;
mod run;
mod setup;
mod test;
mod workspace;

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};

use crate::{build::Profile, setup::Group, workspace::Workspace};

/// What the project does to itself.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Cli {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Install what is missing: a quick no-op when nothing is
    Setup {
        /// Only what this needs (all when not given); may be given several times
        #[arg(long = "only", value_enum)]
        groups: Vec<Group>,
    },
    /// Build the sensor and the daemon that carries it
    Build {
        /// Build the daemon optimised (the sensor always is)
        #[arg(long)]
        release: bool,
    },
    /// Build, then monitor this host and show what its agents do (needs root)
    Run {
        /// Run the optimised daemon
        #[arg(long)]
        release: bool,
        /// Passed on to `bailiwick live`: `-- --agent NAME -- COMMAND ARGS` also starts COMMAND as that agent
        #[arg(last = true, value_name = "ARGS")]
        args: Vec<std::ffi::OsString>,
    },
    /// Format, lints, licences, documentation, units
    Check,
    /// Measure what Bailiwick costs, beside nothing and `strace` (needs root)
    Bench(bench::Options),
    /// Fuzz the decoder of the sensor's records
    Fuzz(fuzz::Options),
    /// What `bench` starts this program as
    #[command(hide = true, subcommand)]
    BenchWorker(bench::Worker),
    /// Everything that must hold before a change lands: check, build, and every test (needs root)
    Test,
}

fn main() -> ExitCode {
    match carry_out(Cli::parse().task) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn carry_out(task: Task) -> Result<ExitCode> {
    let workspace = Workspace::locate()?;
    match task {
        Task::Setup { groups } => {
            let groups = if groups.is_empty() { Group::ALL.to_vec() } else { groups };
            setup::ensure(&workspace, &groups)?;
        }
        Task::Build { release } => {
            setup::ensure(&workspace, &[Group::Build])?;
            build::all(&workspace, Profile::from_flag(release))?;
        }
        Task::Run { release, args } => run::live(&workspace, Profile::from_flag(release), args)?,
        Task::Check => {
            setup::ensure(&workspace, &[Group::Build, Group::Check])?;
            check::all(&workspace)?;
        }
        Task::Bench(options) => return bench::run(&workspace, &options),
        Task::BenchWorker(worker) => worker.run()?,
        Task::Fuzz(options) => {
            setup::ensure(&workspace, &[Group::Test])?;
            fuzz::run(&workspace, &options)?;
        }
        Task::Test => return test::all(&workspace),
    }
    Ok(ExitCode::SUCCESS)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::panic, reason = "a test fails by panicking")]

    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_well_formed() {
        Cli::command().debug_assert();
    }

    #[test]
    fn run_passes_on_everything_after_the_first_double_dash() {
        let line = ["cargo xtask", "run", "--", "--agent", "demo", "--", "ls", "-l"];
        let Ok(Cli { task: Task::Run { args, release } }) = Cli::try_parse_from(line) else {
            panic!("did not parse as `run`");
        };
        assert_eq!(args, ["--agent", "demo", "--", "ls", "-l"]);
        assert!(!release);
    }
}
