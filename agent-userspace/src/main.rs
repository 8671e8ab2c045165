//! `bailiwick`: the daemon and the command line. All of it is in the library.

use std::process::ExitCode;

fn main() -> ExitCode {
    // The gate is this program too. It does one thing, and nothing of the command line's comes before it.
    if std::env::args_os().nth(1).is_some_and(|command| command == "gate") {
        return ExitCode::from(u8::try_from(agent_userspace::gate::process_main()).unwrap_or(1));
    }
    ExitCode::from(agent_userspace::cli::main())
}
