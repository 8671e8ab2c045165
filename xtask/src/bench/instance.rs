//! A daemon of the bench's own, with directories, pins and a declaration of its own.
//!
//! Nothing stays behind. Dropping an instance ends its daemon and removes its directories. A guard, in a process group
//! of its own, does the same for whatever is left when the bench itself ends, also when it was killed.

use std::{
    env,
    ffi::OsString,
    fs::{self, File},
    io::{BufRead, BufReader},
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Output, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use clap::Args;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use super::{cost::Family, worker::Worker};

/// The agent that the worker is when it is one.
pub(super) const AGENT: &str = "bench";
/// Granted whatever it does: judging costs the same, and there is no alert to write.
const DECLARATION: &str = r#"[agent]
name = "bench"
owner = "bench@example.com"
purpose = "Measures what Bailiwick costs; started by `run` alone"

[scope.files]
read = ["/**"]
write = ["/**"]

[scope.network]
connect = ["*:*"]

[scope.exec]
allow = ["/**"]
"#;
/// How long a daemon may take to end by itself.
const STOP_WITHIN: Duration = Duration::from_secs(15);
/// How long any call may take.
const CALL_WITHIN: Duration = Duration::from_secs(120);
/// As much of a log as helps.
const LOG_LINES: usize = 20;

/// Where everything of one bench lies.
#[derive(Debug, Clone, Args)]
pub(crate) struct Place {
    /// A directory
    #[arg(long)]
    root: PathBuf,
    /// A directory of a bpffs
    #[arg(long)]
    pins: PathBuf,
}

impl Place {
    /// A new place, and the guard that clears it.
    ///
    /// # Errors
    /// When the directory exists, or the guard cannot be started.
    pub(super) fn new(program: &Path) -> Result<(Self, Guard)> {
        let name = format!("bailiwick-bench-{}", std::process::id());
        let root = env::temp_dir().join(&name);
        fs::create_dir(&root).with_context(|| format!("cannot create {}", root.display()))?;
        // As the kernel names what lies below it.
        let root = root.canonicalize().with_context(|| format!("cannot resolve {}", root.display()))?;
        let place = Self { root, pins: Path::new("/sys/fs/bpf").join(name) };
        let guard = Guard::start(program, &place);
        if guard.is_err() {
            place.clear();
        }
        Ok((place, guard?))
    }

    /// A path in its directory.
    pub(super) fn join(&self, name: &str) -> PathBuf {
        self.root.join(name)
    }

    /// Ends what runs here and removes all.
    pub(super) fn clear(&self) {
        let until = Instant::now() + STOP_WITHIN;
        for pid in self.processes() {
            // Ended meanwhile is as good. A stopped process sees no SIGTERM.
            let _: rustix::io::Result<()> = kill_process(pid, Signal::CONT);
            let _: rustix::io::Result<()> = kill_process(pid, Signal::TERM);
        }
        while !self.processes().is_empty() && Instant::now() < until {
            thread::sleep(Duration::from_millis(20));
        }
        for pid in self.processes() {
            let _: rustix::io::Result<()> = kill_process(pid, Signal::KILL);
        }
        remove(&self.pins);
        remove(&self.root);
    }

    /// Those whose environment names an instance in here: daemons, and what `run` started.
    fn processes(&self) -> Vec<Pid> {
        let mark = format!("BAILIWICK_RUNTIME_DIR={}/", self.root.display()).into_bytes();
        let ours = |pid: &Pid| {
            let environment = fs::read(format!("/proc/{}/environ", pid.as_raw_nonzero())).unwrap_or_default();
            environment.split(|byte| *byte == 0).any(|variable| variable.starts_with(&mark))
        };
        let all = fs::read_dir("/proc").into_iter().flatten().flatten();
        let pids = all.filter_map(|entry| entry.file_name().to_str()?.parse().ok().and_then(Pid::from_raw));
        pids.filter(ours).collect()
    }
}

/// Says so where it fails: nobody can go on from there.
fn remove(folder: &Path) {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            eprintln!("bench: cannot remove {}: {error}", folder.display());
        }
        Ok(()) | Err(_) => {}
    }
}

/// The process that clears a place when this one ends.
#[derive(Debug)]
pub(super) struct Guard(Child);

impl Guard {
    fn start(program: &Path, place: &Place) -> Result<Self> {
        let mut command = Command::new(program);
        command.args(["bench-worker", "guard", "--root"]).arg(&place.root).arg("--pins").arg(&place.pins);
        // A Ctrl-C meant for the bench must not end the guard first.
        command.stdin(Stdio::piped()).stdout(Stdio::null()).process_group(0);
        command.spawn().map(Self).with_context(|| format!("cannot start {}", program.display()))
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        drop(self.0.stdin.take());
        if finish(&mut self.0, STOP_WITHIN * 2).is_err() {
            eprintln!("bench: the guard did not end in time");
        }
    }
}

/// A running daemon.
#[derive(Debug)]
pub(super) struct Instance {
    program: PathBuf,
    folder: PathBuf,
    pins: PathBuf,
    daemon: Child,
}

impl Instance {
    /// Starts a daemon and waits until it is ready.
    ///
    /// # Errors
    /// When it does not become ready, with the end of its log.
    pub(super) fn start(program: &Path, place: &Place, number: usize) -> Result<Self> {
        let (folder, pins) = (place.join(&number.to_string()), place.pins.join(number.to_string()));
        let agents = folder.join("config/agents.d");
        for made in [&agents, &folder.join("state"), &folder.join("run")] {
            fs::create_dir_all(made).with_context(|| format!("cannot create {}", made.display()))?;
        }
        fs::write(agents.join("bench.toml"), DECLARATION).context("cannot write the declaration")?;
        let log = File::create(folder.join("daemon.log")).context("cannot create the daemon's log")?;
        let mut command = Command::new(program);
        command.arg("daemon").envs(environment(&folder, &pins)).stdin(Stdio::null());
        without_export(&mut command);
        let output = log.try_clone().context("cannot share the daemon's log")?;
        let daemon = command
            .stdout(output)
            .stderr(log)
            .spawn()
            .with_context(|| format!("cannot start {}", program.display()))?;
        let instance = Self { program: program.to_owned(), folder, pins, daemon };
        match instance.call(&["status", "--wait", "30s"]) {
            Ok(_) => Ok(instance),
            Err(error) => Err(error.context(format!("the daemon is not ready; its log ends:\n{}", instance.log_end()))),
        }
    }

    /// What it uses itself.
    pub(super) fn family(&self) -> Family {
        Family::of(self.daemon.id())
    }

    /// A call of its command line, to be started.
    pub(super) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        command.args(arguments).envs(environment(&self.folder, &self.pins)).stdin(Stdio::null());
        command
    }

    /// `bailiwick run` of `program`, to be given its arguments and started.
    pub(super) fn run(&self, program: &Path) -> Command {
        let mut command = self.command(&["run", "--agent", AGENT, "--"]);
        command.arg(program);
        command
    }

    /// Calls its command line and returns what that printed.
    ///
    /// # Errors
    /// When it takes too long, or ends with anything but 0.
    pub(super) fn call(&self, arguments: &[&str]) -> Result<Vec<u8>> {
        output_of(&mut self.command(arguments), &format!("bailiwick {}", arguments.join(" ")))
    }

    /// Waits until all that happened before is in the trail.
    ///
    /// # Errors
    /// As [`Self::call`].
    pub(super) fn sync(&self) -> Result<()> {
        self.call(&["sync", "--wait", "60s"]).map(drop)
    }

    /// `status --json`, also of a daemon that is not well: it says why.
    ///
    /// # Errors
    /// When it says something else.
    pub(super) fn status(&self) -> Result<Value> {
        let output = self.command(&["status", "--json"]).output().context("cannot start `bailiwick status`")?;
        serde_json::from_slice(&output.stdout)
            .with_context(|| format!("`bailiwick status --json`: {}", String::from_utf8_lossy(&output.stderr)))
    }

    /// Hands every entry of the trail to `see`.
    ///
    /// # Errors
    /// When the trail cannot be read, or has a line that is no JSON.
    pub(super) fn each_entry(&self, mut see: impl FnMut(&Value)) -> Result<()> {
        let mut command = self.command(&["tail", "--json", "--since", "start", "--no-follow"]);
        let mut tail = command.stdout(Stdio::piped()).spawn().context("cannot start `bailiwick tail`")?;
        let output = tail.stdout.take().context("`bailiwick tail` has no output")?;
        let read: Result<()> = BufReader::new(output).lines().try_for_each(|line| {
            let line = line.context("cannot read the output of `bailiwick tail`")?;
            see(&serde_json::from_str(&line).with_context(|| format!("`bailiwick tail`: no JSON: {line}"))?);
            Ok(())
        });
        let status = finish(&mut tail, CALL_WITHIN)?;
        read?;
        if !status.success() {
            bail!("`bailiwick tail` failed: {status}");
        }
        Ok(())
    }

    fn log_end(&self) -> String {
        let log = fs::read(self.folder.join("daemon.log")).unwrap_or_default();
        let log = String::from_utf8_lossy(&log);
        let lines: Vec<_> = log.lines().collect();
        lines[lines.len().saturating_sub(LOG_LINES)..].join("\n")
    }
}

impl Drop for Instance {
    fn drop(&mut self) {
        if let Some(pid) = Pid::from_raw(self.daemon.id().cast_signed()) {
            // Ended meanwhile is as good.
            let _: rustix::io::Result<()> = kill_process(pid, Signal::TERM);
        }
        if finish(&mut self.daemon, STOP_WITHIN).is_err() {
            eprintln!("bench: the daemon had to be killed; its log ends:\n{}", self.log_end());
        }
        remove(&self.pins);
        remove(&self.folder);
    }
}

fn environment(folder: &Path, pins: &Path) -> [(&'static str, OsString); 4] {
    [
        ("BAILIWICK_CONFIG_DIR", folder.join("config").into()),
        ("BAILIWICK_STATE_DIR", folder.join("state").into()),
        ("BAILIWICK_RUNTIME_DIR", folder.join("run").into()),
        ("BAILIWICK_PIN_DIR", pins.into()),
    ]
}

/// A collector of the caller's is not to be measured, nor to be sent what the bench does.
fn without_export(command: &mut Command) {
    for (name, _) in env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("OTEL_")) {
        command.env_remove(name);
    }
}

/// An agent that does nothing, so that a session lives.
#[derive(Debug)]
pub(super) struct Held(Child);

impl Held {
    /// Starts it, and returns when it runs: the sensor watches it then.
    ///
    /// # Errors
    /// When it does not start.
    pub(super) fn start(instance: &Instance, worker: &Path) -> Result<Self> {
        let mut command = instance.run(worker);
        command.args(["bench-worker", "hold"]).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut held = Self(command.spawn().context("cannot start `bailiwick run`")?);
        let mut said = String::new();
        if let Some(output) = held.0.stdout.take() {
            BufReader::new(output).read_line(&mut said).context("cannot read what an agent says")?;
        }
        if said.trim_end() != Worker::READY {
            bail!("`bailiwick run` started no agent: {said:?}");
        }
        Ok(held)
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        drop(self.0.stdin.take());
        if finish(&mut self.0, STOP_WITHIN).is_err() {
            eprintln!("bench: an agent had to be killed");
        }
    }
}

/// Runs `command` to its end and returns its standard output.
///
/// # Errors
/// When it cannot be started, or ends with anything but 0.
pub(super) fn output_of(command: &mut Command, shown: &str) -> Result<Vec<u8>> {
    let mut child = command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot start `{shown}`"))?;
    let status = finish(&mut child, CALL_WITHIN).with_context(|| format!("`{shown}`"))?;
    // What it wrote waits in the pipes: calls of this kind write little.
    let Output { stdout, stderr, .. } =
        child.wait_with_output().with_context(|| format!("cannot read the output of `{shown}`"))?;
    if !status.success() {
        bail!("`{shown}` failed: {status}: {}", String::from_utf8_lossy(&stderr).trim_end());
    }
    Ok(stdout)
}

/// Waits for `child`, and kills it when it takes too long.
fn finish(child: &mut Child, within: Duration) -> Result<ExitStatus> {
    let until = Instant::now() + within;
    loop {
        if let Some(status) = child.try_wait().context("cannot wait for a process")? {
            return Ok(status);
        }
        if Instant::now() >= until {
            // The wait that follows reports what went wrong, if anything did.
            let _: std::io::Result<()> = child.kill();
            let _: std::io::Result<ExitStatus> = child.wait();
            bail!("took more than {} s, and was killed", within.as_secs());
        }
        thread::sleep(Duration::from_millis(2));
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use std::os::unix::fs::PermissionsExt;

    use super::*;

    /// Does what the bench asks of a daemon and its command line.
    const STAND_IN: &str = r#"#!/bin/sh
case $1 in
daemon) echo started; exec sleep 600 ;;
status) test "$2" != --wait || test -d "$BAILIWICK_STATE_DIR"; echo '{"healthy":false,"lost":3}' ;;
tail) echo '{"event":"gap"}'; echo '{"event":"file.open"}' ;;
run) echo nothing ;;
*) echo "unknown: $1" >&2; exit 2 ;;
esac
"#;

    struct Fixture {
        folder: tempfile::TempDir,
        place: Place,
    }

    impl Fixture {
        fn new(program: &str) -> Self {
            let folder = tempfile::tempdir().unwrap();
            fs::write(folder.path().join("bailiwick"), program).unwrap();
            fs::set_permissions(folder.path().join("bailiwick"), fs::Permissions::from_mode(0o755)).unwrap();
            let place = Place { root: folder.path().join("root"), pins: folder.path().join("pins") };
            fs::create_dir(&place.root).unwrap();
            Self { folder, place }
        }

        fn start(&self) -> Result<Instance> {
            Instance::start(&self.folder.path().join("bailiwick"), &self.place, 1)
        }
    }

    fn lives(pid: u32) -> bool {
        Path::new("/proc").join(pid.to_string()).exists()
    }

    #[test]
    fn a_dropped_instance_leaves_neither_daemon_nor_directory() {
        let fixture = Fixture::new(STAND_IN);
        let instance = fixture.start().unwrap();
        let (pid, folder) = (instance.daemon.id(), instance.folder.clone());
        assert!(lives(pid) && folder.join("config/agents.d/bench.toml").exists());
        drop(instance);
        assert!(!lives(pid) && !folder.exists());
    }

    #[test]
    fn clearing_a_place_ends_what_a_killed_bench_left_running() {
        let fixture = Fixture::new(STAND_IN);
        let mut instance = fixture.start().unwrap();
        fixture.place.clear();
        assert!(!finish(&mut instance.daemon, STOP_WITHIN).unwrap().success());
        assert!(!fixture.place.root.exists());
    }

    #[test]
    fn status_is_read_also_when_the_daemon_is_not_well_and_entries_one_by_one() {
        let fixture = Fixture::new(STAND_IN);
        let instance = fixture.start().unwrap();
        assert_eq!(instance.status().unwrap()["lost"], 3);
        let mut events = Vec::new();
        instance.each_entry(|entry| events.push(entry["event"].as_str().unwrap().to_owned())).unwrap();
        assert_eq!(events, ["gap", "file.open"]);
    }

    #[test]
    fn a_daemon_that_does_not_become_ready_is_an_error_with_its_log() {
        // It is asked for its status when it has said why it ends.
        let fixture = Fixture::new(
            "#!/bin/sh\ntries=0\n\
             until test $1 = daemon -o -e \"$0.ended\" -o $tries -eq 1000; do sleep 0.01; tries=$((tries + 1)); done\n\
             echo \"$1: no BTF\" >&2\ntouch \"$0.ended\"\nexit 69\n",
        );
        let error = format!("{:#}", fixture.start().unwrap_err());
        assert!(error.contains("its log ends:\ndaemon: no BTF"), "{error}");
        assert!(error.contains("`bailiwick status --wait 30s` failed: exit status: 69"), "{error}");
    }

    #[test]
    fn an_agent_that_does_not_start_is_an_error() {
        let fixture = Fixture::new(STAND_IN);
        let instance = fixture.start().unwrap();
        let error = Held::start(&instance, Path::new("/nowhere")).unwrap_err();
        assert_eq!(error.to_string(), "`bailiwick run` started no agent: \"nothing\\n\"");
    }

    #[test]
    fn what_takes_too_long_is_killed() {
        let mut child = Command::new("sleep").arg("600").spawn().unwrap();
        let pid = child.id();
        assert!(finish(&mut child, Duration::from_millis(10)).is_err());
        assert!(!lives(pid));
    }
}
