//! The command line: `bailiwick COMMAND`.
//!
//! Purpose: say to the daemon what a person asks for, and to the person what it answers. Inputs: arguments, `BAILIWICK_*`,
//! the control socket. Outputs: text or JSON on standard output, one sentence on standard error when it fails, and the
//! exit codes of `docs/commands.md`. Refuses: to let a string of an agent reach the terminal as it is.

pub mod args;
mod chain;
pub mod check;
mod commands;
mod credentials;
mod deed;
mod discover;
mod history;
mod learn;
pub mod line;
mod listing;
pub mod live;
pub mod output;
mod replay;
mod review;
mod run;
mod serving;
pub mod story;
pub mod text;
mod verify;

use std::io;

use clap::Parser;

use self::args::{Cli, Command};
use self::output::Output;
use self::text::{Palette, printable_lines};
use crate::config::ConfigErrors;
use crate::control::client::{Client, ClientError};
use crate::control::{ErrorKind, RemoteError};
use crate::daemon::DaemonError;
use crate::sensor::SensorError;
use crate::trail::{ExportedError, TrailError};

/// All is well.
pub const GOOD: u8 = 0;
/// The answer is no.
pub const NO: u8 = 1;
/// The input is bad.
pub const BAD_INPUT: u8 = 2;
/// No daemon answers.
pub const NO_DAEMON: u8 = 69;
/// Too little privilege.
pub const TOO_LITTLE_PRIVILEGE: u8 = 77;

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
pub enum CliError {
    /// Asking the daemon failed.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// The output could not be written.
    #[error("cannot write the output: {0}")]
    Output(#[source] io::Error),
    /// The daemon did not start.
    #[error(transparent)]
    Daemon(#[from] DaemonError),
    /// A declaration, or the configuration around it, is wrong.
    #[error(transparent)]
    Config(#[from] ConfigErrors),
    /// What was named does not fit together.
    #[error("{0}")]
    BadInput(String),
    /// The trail cannot be looked at.
    #[error(transparent)]
    Trail(#[from] TrailError),
    /// Exported checkpoints cannot be used.
    #[error(transparent)]
    Checkpoints(#[from] ExportedError),
    /// The daemon is there, but not ready.
    #[error("the daemon is not ready after {waited:?}{}", because(.reasons))]
    NotReady {
        /// How long was waited.
        waited: std::time::Duration,
        /// What the daemon says.
        reasons: Vec<String>,
    },
}

fn because(reasons: &[String]) -> String {
    if reasons.is_empty() { String::new() } else { format!(": {}", reasons.join("; ")) }
}

impl CliError {
    /// The exit code of the contract.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Output(error) if error.kind() == io::ErrorKind::BrokenPipe => GOOD,
            Self::Output(_) | Self::NotReady { .. } => NO,
            Self::Config(_)
            | Self::BadInput(_)
            | Self::Daemon(DaemonError::Config(_) | DaemonError::Export(_) | DaemonError::ExportFile(_)) => BAD_INPUT,
            Self::Daemon(
                DaemonError::TooLittlePrivilege { .. } | DaemonError::Sensor(SensorError::NotPermitted { .. }),
            ) => TOO_LITTLE_PRIVILEGE,
            Self::Trail(TrailError::Io { source, .. }) if source.kind() == io::ErrorKind::PermissionDenied => {
                TOO_LITTLE_PRIVILEGE
            }
            Self::Trail(TrailError::NoTrail { .. }) | Self::Checkpoints(_) => BAD_INPUT,
            Self::Daemon(_) | Self::Trail(_) => NO,
            Self::Client(error) => match error {
                ClientError::NoDaemon { .. } | ClientError::Silent { .. } | ClientError::CutOff { .. } => NO_DAEMON,
                ClientError::NotAllowed { .. } => TOO_LITTLE_PRIVILEGE,
                ClientError::Unreadable { .. } => NO,
                ClientError::Remote(error) => remote_exit_code(error),
            },
        }
    }
}

fn remote_exit_code(error: &RemoteError) -> u8 {
    match error.kind {
        ErrorKind::BadRequest | ErrorKind::NotFound => BAD_INPUT,
        ErrorKind::Forbidden => TOO_LITTLE_PRIVILEGE,
        ErrorKind::Busy | ErrorKind::Unavailable => NO_DAEMON,
        ErrorKind::TooSlow | ErrorKind::TimedOut | ErrorKind::Failed => NO,
    }
}

/// Parses the arguments, does what they say, and returns the exit code.
pub fn main() -> u8 {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // Help and the version come this way too, with 0. Where even this cannot be written, nothing can.
            drop(error.print());
            return u8::try_from(error.exit_code()).unwrap_or(BAD_INPUT);
        }
    };
    let mut output = Output::stdout();
    let done = execute(&cli, &mut output, Palette::of_stdout());
    let flushed = output.flush();
    match done.and_then(|code| flushed.map(|()| code)) {
        Ok(code) => code,
        Err(error) => report(&error),
    }
}

/// Says on standard error why a command failed; returns its exit code.
pub fn report(error: &CliError) -> u8 {
    let code = error.exit_code();
    if code != GOOD {
        eprintln!("bailiwick: {}", printable_lines(&error.to_string()));
    }
    code
}

fn execute(cli: &Cli, output: &mut Output<'_>, palette: Palette) -> Result<u8, CliError> {
    let client = Client::at(&cli.paths.runtime_dir);
    match &cli.command {
        Command::Daemon => serving::daemon(&cli.paths),
        Command::Live(args) => serving::live(&cli.paths, args, &client, output, palette),
        Command::Check(args) => check::check(args, output, |files, explain| {
            let outcome = crate::config::check::check(files, explain);
            (outcome.text, outcome.ok)
        }),
        Command::Run(args) => run::run(&client, args),
        Command::Tail(args) => commands::tail(&client, args, output, palette),
        Command::Agents(args) => commands::agents(&client, *args, output, palette),
        Command::Credentials(args) => commands::credentials(&client, *args, output, palette),
        Command::Sessions(args) => commands::sessions(&client, args, output, palette),
        Command::Show(args) => commands::show(&client, args, output, palette),
        Command::Chain(args) => commands::chain(&client, args, output, palette),
        Command::Discover(args) => discover::discover(&cli.paths, args, output, palette),
        Command::Explain(args) => commands::explain(&client, args, output, palette),
        Command::Sync(args) => commands::sync(&client, *args, output),
        Command::Doctor(args) => commands::doctor(&client, *args, output, palette),
        Command::Status(args) => commands::status(&client, *args, output, palette),
        Command::Learn(args) => learn::learn(&cli.paths, args, output),
        Command::Replay(args) => replay::replay(&cli.paths, args, output, palette),
        Command::Review(args) => review::review(&cli.paths, args, &client, output, palette),
        Command::Verify(args) => verify::verify(&cli.paths, args, output),
        Command::Reload(args) => commands::reload(&client, *args, output),
    }
}
