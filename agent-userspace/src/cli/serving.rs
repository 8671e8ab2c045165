//! `bailiwick daemon` and `bailiwick live`: the commands that are the daemon.
//!
//! Inputs: where its things are. Outputs: for `daemon` its log on standard error; for `live` what is worth a person's
//! attention on standard output. Refuses: to start where anything is wrong; then nothing is left behind.

use std::fs::{DirBuilder, OpenOptions};
use std::io::{self, IsTerminal, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::process::ExitStatus;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use rustix::fs::OFlags;
use tracing_subscriber::EnvFilter;

use super::args::{DEFAULT_RUNTIME_DIR, LiveArgs, Paths};
use super::line::quoted;
use super::live::{Hints, banner, start_agent, watch};
use super::output::Output;
use super::text::{Palette, printable};
use super::{CliError, GOOD};
use crate::control::Core;
use crate::control::client::Client;
use crate::control::protocol::Since;
use crate::daemon::{self, ConfigSource, DaemonError};
use crate::discover::look;
use crate::entry::Timestamp;

/// How long what an agent did last may take to be in the trail.
const SYNC_WITHIN: Duration = Duration::from_secs(10);
/// The demo, as it ships: a small agent with a declaration of its own and one planted violation.
const DEMO: &str = include_str!("../../demo/demo.sh");

/// Runs the daemon until it is told to end.
pub(super) fn daemon(paths: &Paths) -> Result<u8, CliError> {
    log("info");
    let running = daemon::start(paths)?;
    let waited = running.wait(&AtomicBool::new(false));
    running.stop();
    waited?;
    Ok(GOOD)
}

/// Runs the daemon, and shows what happens; with a command, until that has ended.
pub(super) fn live(
    paths: &Paths,
    args: &LiveArgs,
    client: &Client,
    output: &mut Output<'_>,
    palette: Palette,
) -> Result<u8, CliError> {
    log("warn");
    let since = Since::At(Timestamp::now());
    let running = daemon::start(paths)?;
    let core = running.core();
    let demo = if args.agent.is_none() { Some(demo_command(paths)?) } else { None };
    let hints = Hints { demo, reach: reach(paths) };
    output.text(&banner(&core.doctor(), &undeclared(paths)?, &hints))?;
    output.flush()?;
    let code = Arc::new(AtomicU64::new(u64::from(GOOD)));
    let last = Arc::new(AtomicU64::new(u64::MAX));
    let ended = AtomicBool::new(false);
    if let Some(agent) = &args.agent {
        let child = start_agent(paths, agent, &args.command).map_err(CliError::Output)?;
        follow_child(child, &core, &code, &last)?;
    }
    let watched = std::thread::scope(|threads| {
        let stop = threads.spawn(|| {
            let waited = running.wait(&ended);
            // Shown is what there is: nothing more will come.
            last.fetch_min(0, Ordering::Relaxed);
            waited
        });
        let shown = watch(client, since, output, palette, || match last.load(Ordering::Relaxed) {
            u64::MAX => None,
            last => Some(last),
        });
        ended.store(true, Ordering::Relaxed);
        let waited = stop.join().unwrap_or(Ok(()));
        shown.and(waited.map_err(CliError::from))
    });
    drop(core);
    running.stop();
    watched?;
    let state = printable(&paths.state_dir.display().to_string()).into_owned();
    // Whoever does not read it any more misses nothing: the command's exit code matters more.
    let _ = output.text(&format!("The trail stays in {state}: start again to explain or show what is in it.\n"));
    Ok(u8::try_from(code.load(Ordering::Relaxed)).unwrap_or(1))
}

/// The agents that run and that nothing declares, each as `name (process): command`.
fn undeclared(paths: &Paths) -> Result<Vec<String>, CliError> {
    let config = Arc::new(ConfigSource::at(&paths.config_dir).load()?);
    let items = look(&config, false).items.into_iter().filter(|item| item.declared_as.is_none());
    Ok(items.map(|item| format!("{} ({}): {}", item.name, item.process.tgid, item.command.join(" "))).collect())
}

/// Waits for the command in a thread of its own, and tells up to which entry its story goes.
fn follow_child(
    mut child: std::process::Child,
    core: &Arc<dyn Core>,
    code: &Arc<AtomicU64>,
    last: &Arc<AtomicU64>,
) -> Result<(), CliError> {
    let (core, code, last) = (Arc::clone(core), Arc::clone(code), Arc::clone(last));
    let wait = move || {
        let status = child.wait();
        code.store(status.map_or(1, exit_code), Ordering::Relaxed);
        let seq = core.sync(false, SYNC_WITHIN).map_or(0, |report| report.seq);
        // `watch` shows what there is up to that entry, and ends then.
        last.store(seq, Ordering::Relaxed);
    };
    let spawned = std::thread::Builder::new().name("command".to_owned()).spawn(wait);
    spawned.map(drop).map_err(|source| DaemonError::System { what: "start a thread", source }.into())
}

fn exit_code(status: ExitStatus) -> u64 {
    // `bailiwick run` itself exits with 128 + n for signal n.
    status.code().and_then(|code| u64::try_from(code).ok()).unwrap_or(1)
}

/// Puts the demo where its declaration lets it run, plants the key that it will read, and gives the command that starts it.
fn demo_command(paths: &Paths) -> Result<String, CliError> {
    let (directory, secret) = (Path::new("/tmp/bailiwick-demo"), Path::new("/tmp/bailiwick-demo-secret"));
    plant(directory, "demo.sh", DEMO)?;
    plant(secret, "id_ed25519", "a planted key that opens nothing\n")?;
    let program = std::env::current_exe().map_or_else(|_| "bailiwick".to_owned(), |path| path.display().to_string());
    let runtime = quoted(&paths.runtime_dir.display().to_string());
    let script = directory.join("demo.sh");
    Ok(format!("{} --runtime-dir {runtime} run --agent demo -- sh {}", quoted(&program), script.display()))
}

/// What makes a shell's `bailiwick` this program, asking this daemon; none where it is and does already.
fn reach(paths: &Paths) -> Option<String> {
    let program = std::env::current_exe().ok()?;
    let mut settings = Vec::new();
    let search = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&search).map(|directory| directory.join("bailiwick")).find(|file| file.is_file());
    if found.and_then(|file| file.canonicalize().ok()).as_ref() != Some(&program) {
        let directory = program.parent()?.display().to_string();
        settings.push(format!("PATH={}:\"$PATH\"", quoted(&directory)));
    }
    if paths.runtime_dir != Path::new(DEFAULT_RUNTIME_DIR) {
        settings.push(format!("BAILIWICK_RUNTIME_DIR={}", quoted(&paths.runtime_dir.display().to_string())));
    }
    (!settings.is_empty()).then(|| format!("export {}", settings.join(" ")))
}

/// Writes a file into a directory of our own. In a place where everybody may write, nobody's symlink is followed.
fn plant(directory: &Path, name: &str, text: &str) -> Result<(), CliError> {
    let failed = |source| DaemonError::Directory { path: directory.to_owned(), source };
    let made = DirBuilder::new().mode(0o755).create(directory);
    made.or_else(|error| if error.kind() == io::ErrorKind::AlreadyExists { Ok(()) } else { Err(error) })
        .map_err(failed)?;
    let found = std::fs::symlink_metadata(directory).map_err(failed)?;
    if !found.is_dir() || found.uid() != rustix::process::geteuid().as_raw() {
        return Err(failed(io::Error::other("it is there already, and somebody else's")).into());
    }
    let flags = OFlags::NOFOLLOW.bits().cast_signed();
    let file =
        OpenOptions::new().write(true).create(true).truncate(true).custom_flags(flags).open(directory.join(name));
    file.and_then(|mut file| file.write_all(text.as_bytes())).map_err(failed)?;
    Ok(())
}

fn log(default: &str) {
    let filter = EnvFilter::try_from_env("BAILIWICK_LOG").unwrap_or_else(|_| EnvFilter::new(default));
    let subscriber = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(io::stderr)
        .with_ansi(io::stderr().is_terminal())
        .with_target(false);
    // A second daemon in one process, as in tests, keeps the first one's log.
    let _ = subscriber.try_init();
}
