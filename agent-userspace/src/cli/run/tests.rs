//! Real children, with a fake daemon.
#![allow(unsafe_code, reason = "one test sends a signal to one thread, which std cannot")]
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use std::ffi::OsString;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::mpsc;

use super::*;
use crate::cli::{BAD_INPUT, NO_DAEMON};
use crate::control::testing::FakeDaemon;

fn run_as(daemon: &FakeDaemon, agent: &str, command: &[&str]) -> Result<u8, CliError> {
    let command = command.iter().map(OsString::from).collect();
    run(&daemon.client(), &RunArgs { agent: agent.into(), command })
}

fn code_of(command: &[&str]) -> u8 {
    run_as(&FakeDaemon::holding(Vec::new()), "demo", command).unwrap()
}

fn wait_until_there(path: &Path) {
    let until = Instant::now() + Duration::from_secs(20);
    while !path.exists() {
        assert!(Instant::now() < until, "{} does not appear", path.display());
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn the_exit_code_is_the_commands() {
    assert_eq!(code_of(&["/bin/sh", "-c", "exit 7"]), 7);
    assert_eq!(code_of(&["true"]), 0);
}

#[test]
fn death_by_a_signal_is_128_and_its_number() {
    assert_eq!(code_of(&["/bin/sh", "-c", "kill -9 $$"]), 137);
    assert_eq!(code_of(&["/bin/sh", "-c", "kill -TERM $$"]), 143);
}

#[test]
fn the_daemon_is_told_of_the_child_that_becomes_the_command() {
    let daemon = FakeDaemon::holding(Vec::new());
    let directory = tempfile::tempdir().unwrap();
    let told = directory.path().join("pid");
    let script = format!("echo $$ > {}", told.display());
    assert_eq!(run_as(&daemon, "demo", &["/bin/sh", "-c", &script]).unwrap(), 0);
    let pid: u32 = std::fs::read_to_string(&told).unwrap().trim().parse().unwrap();
    let runs = daemon.core.runs.lock().unwrap();
    assert_eq!((runs[0].0.as_str(), runs[0].1), ("demo", pid));
    assert_eq!(runs[0].2.tgid, Some(std::process::id()));
}

#[test]
fn directory_environment_and_ids_are_the_callers() {
    let here = std::env::current_dir().unwrap();
    let home = std::env::var("PATH").unwrap();
    let uid = rustix::process::getuid().as_raw();
    let test = format!("[ \"$(pwd -P)\" = '{}' ] && [ \"$PATH\" = '{home}' ] && [ $(id -u) = {uid} ]", here.display());
    assert_eq!(code_of(&["/bin/sh", "-c", &test]), 0);
}

#[test]
fn no_descriptor_of_ours_and_no_blocked_signal_is_left_to_the_command() {
    let test =
        "! ls -l /proc/self/fd | grep -E 'signalfd|socket' && grep -q 'SigBlk:.0000000000000000' /proc/self/status";
    assert_eq!(code_of(&["/bin/sh", "-c", test]), 0);
}

#[test]
fn an_unknown_agent_exits_with_2_names_the_known_ones_and_runs_nothing() {
    let daemon = FakeDaemon::holding(Vec::new());
    let directory = tempfile::tempdir().unwrap();
    let mark = directory.path().join("mark");
    let error = run_as(&daemon, "nobody", &["/bin/sh", "-c", &format!("touch {}", mark.display())]).unwrap_err();
    assert_eq!(error.exit_code(), BAD_INPUT);
    assert_eq!(error.to_string(), "no agent 'nobody' is declared; declared are: demo, other");
    assert!(!mark.exists());
}

#[test]
fn without_a_daemon_nothing_runs_and_the_code_is_69() {
    let directory = tempfile::tempdir().unwrap();
    let mark = directory.path().join("mark");
    let command = vec!["/bin/sh".into(), "-c".into(), format!("touch {}", mark.display()).into()];
    let args = RunArgs { agent: "demo".into(), command };
    let error = run(&Client::at(directory.path()), &args).unwrap_err();
    assert_eq!(error.exit_code(), NO_DAEMON);
    assert!(!mark.exists());
}

#[test]
fn what_cannot_be_executed_is_126_or_127_as_in_a_shell() {
    assert_eq!(code_of(&["no-such-command-anywhere"]), 127);
    assert_eq!(code_of(&["/no/such/file"]), 127);
    assert_eq!(code_of(&["/etc/passwd"]), 126);
    assert_eq!(code_of(&["/tmp"]), 126);
    let directory = tempfile::tempdir().unwrap();
    let script = directory.path().join("script");
    std::fs::write(&script, "#!/no/such/interpreter\n").unwrap();
    std::fs::set_permissions(&script, PermissionsExt::from_mode(0o755)).unwrap();
    assert_eq!(code_of(&[script.to_str().unwrap()]), 126);
}

#[test]
fn a_script_without_an_interpreter_is_given_to_the_shell() {
    let directory = tempfile::tempdir().unwrap();
    let script = directory.path().join("script");
    std::fs::write(&script, "exit $1\n").unwrap();
    std::fs::set_permissions(&script, PermissionsExt::from_mode(0o755)).unwrap();
    assert_eq!(code_of(&[script.to_str().unwrap(), "9"]), 9);
}

#[test]
fn a_signal_to_run_reaches_the_command() {
    let directory = tempfile::tempdir().unwrap();
    let ready = directory.path().join("ready");
    let script = format!("trap 'exit 9' USR1; touch {}; while :; do sleep 0.02; done", ready.display());
    let (tell, told) = mpsc::channel();
    let running = std::thread::spawn(move || {
        tell.send(rustix::thread::gettid().as_raw_nonzero().get()).unwrap();
        code_of(&["/bin/sh", "-c", &script])
    });
    let thread = told.recv().unwrap();
    wait_until_there(&ready);
    // SAFETY: a plain system call; the thread is one of this process, and waits to be joined. It holds the signal back, as
    // `run` does with all.
    let sent = unsafe { libc::syscall(libc::SYS_tgkill, std::process::id(), thread, libc::SIGUSR1) };
    assert_eq!(sent, 0);
    assert_eq!(running.join().unwrap(), 9);
}

#[test]
fn a_held_child_that_is_not_released_ends_without_becoming_the_command() {
    let directory = tempfile::tempdir().unwrap();
    let mark = directory.path().join("mark");
    let words: Vec<OsString> = vec!["touch".into(), mark.clone().into()];
    let image = Image::new("/usr/bin/touch".into(), &words).unwrap();
    let signals = Signals::hold().unwrap();
    let child = HeldChild::fork(&image, signals.inherited()).unwrap();
    let process = Path::new("/proc").join(child.tgid().to_string());
    assert!(process.exists());
    drop(child);
    assert!(!process.exists() && !mark.exists());
}
