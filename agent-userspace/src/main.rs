//! `bailiwick`: the daemon and the command line. All of it is in the library.

use std::process::ExitCode;

fn main() -> ExitCode {
    // The gate and the check of the hooks are this program too. Each does one thing, and nothing of the command line's
    // comes before it.
    let hidden: Option<fn() -> i32> = match std::env::args_os().nth(1) {
        Some(command) if command == "gate" => Some(agent_userspace::gate::process_main),
        Some(command) if command == agent_userspace::hook_check::SUBCOMMAND => {
            Some(agent_userspace::hook_check::process_main)
        }
        _ => None,
    };
    if let Some(main) = hidden {
        return ExitCode::from(u8::try_from(main()).unwrap_or(1));
    }
    ExitCode::from(agent_userspace::cli::main())
}
