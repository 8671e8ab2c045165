//! An instance of Bailiwick of a test's own: its directories, its pins, its daemon.
//!
//! Nothing is shared with another instance, and nothing stays behind: dropping an instance ends its daemon, whatever it
//! left running, and removes what it made, after a panic too. Where the test fails, the daemon's log is printed.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal};
use serde_json::Value;

use crate::bounded::{self, Running, Said};
use crate::declaration::Declaration;
use crate::entries::Entries;
use crate::requirement::{Requirement, require};
use crate::workload::{self, Place};

const BPFFS: &str = "/sys/fs/bpf";
/// `CAFE4A11`, `BPF_FS_MAGIC` in the kernel.
const BPFFS_MAGIC: i64 = 0xcafe_4a11;
/// How long an orderly end may take.
const STOP_WITHIN: Duration = Duration::from_secs(10);
/// An exec is through by then.
const LOOK_AGAIN_AFTER: Duration = Duration::from_millis(20);
/// What still forks after so many looks is no test's.
const LOOKS_MAX: u32 = 50;
/// How long any call of the command line may take.
const CALL_WITHIN: Duration = Duration::from_secs(60);

/// What an instance is started with.
#[derive(Debug, Default)]
pub struct Setup {
    files: Vec<(String, String)>,
    environment: Vec<(String, OsString)>,
}

impl Setup {
    /// An empty configuration.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a file below the configuration's directory.
    #[must_use]
    pub fn file(mut self, name: &str, text: &str) -> Self {
        self.files.push((name.to_owned(), text.to_owned()));
        self
    }

    /// Adds a declaration.
    #[must_use]
    pub fn agent(self, declaration: &Declaration) -> Self {
        self.file(&declaration.file(), declaration.text())
    }

    /// Sets a variable of the daemon's environment.
    #[must_use]
    pub fn env(mut self, name: &str, value: impl Into<OsString>) -> Self {
        self.environment.push((name.to_owned(), value.into()));
        self
    }

    /// Starts the daemon and waits until it is ready.
    ///
    /// # Panics
    ///
    /// If it does not become ready.
    #[must_use]
    #[track_caller]
    pub fn start(self) -> Instance {
        let mut instance = self.prepare();
        instance.start_daemon();
        instance
    }

    /// Makes the directories and starts nothing.
    ///
    /// # Panics
    ///
    /// If the file system does not let it.
    #[must_use]
    pub fn prepare(self) -> Instance {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let place = Place::new();
        for name in ["config/agents.d", "config/grants.d", "config/catalogue.d", "state", "run"] {
            std::fs::create_dir_all(place.join(name)).unwrap();
        }
        let pins = Path::new(BPFFS).join(format!("bailiwick-test-{}-{number}", std::process::id()));
        let log = place.join("daemon.log");
        let instance = Instance { place, pins, log, environment: self.environment, daemon: None };
        for (name, text) in self.files {
            instance.write(&name, &text);
        }
        instance
    }
}

/// An instance to be set up for each set of observations, `default` and `full`: what a test asserts must come out under
/// both. None where a requirement is not met.
#[must_use]
pub fn both_sets(needs: &[Requirement]) -> Vec<Setup> {
    if !require(needs) {
        return Vec::new();
    }
    let setup = |set| Setup::new().file("bailiwick.toml", &format!("[sensor]\nobserve = \"{set}\"\n"));
    ["default", "full"].map(setup).into()
}

/// A running (or prepared, or stopped) instance.
#[derive(Debug)]
pub struct Instance {
    place: Place,
    pins: PathBuf,
    log: PathBuf,
    environment: Vec<(String, OsString)>,
    daemon: Option<Child>,
}

impl Instance {
    /// Starts an instance that knows these agents.
    ///
    /// # Panics
    ///
    /// If it does not become ready.
    #[must_use]
    #[track_caller]
    pub fn start(agents: &[Declaration]) -> Self {
        agents.iter().fold(Setup::new(), Setup::agent).start()
    }

    /// A directory of the test's own that lives as long as the instance.
    pub fn place(&self) -> &Place {
        &self.place
    }

    /// The file `name` below the configuration's directory.
    pub fn config(&self, name: &str) -> PathBuf {
        self.place.join("config").join(name)
    }

    /// The directory of the trail.
    pub fn state(&self) -> PathBuf {
        self.place.join("state")
    }

    /// The directory of the pins, which need not exist.
    pub fn pins(&self) -> &Path {
        &self.pins
    }

    /// Writes a file below the configuration's directory.
    ///
    /// # Panics
    ///
    /// If it cannot be written.
    pub fn write(&self, name: &str, text: &str) {
        std::fs::write(self.config(name), text).unwrap_or_else(|error| panic!("{name}: {error}"));
    }

    /// Sets a variable of the environment of what is started from now on.
    pub fn set_env(&mut self, name: &str, value: impl Into<OsString>) {
        self.environment.push((name.to_owned(), value.into()));
    }

    /// A call of the program with this instance's environment.
    pub fn command<A: AsRef<OsStr>>(&self, arguments: &[A]) -> Command {
        let mut command = Command::new(workload::bailiwick());
        command.args(arguments);
        self.set_environment(&mut command);
        command
    }

    fn set_environment(&self, command: &mut Command) {
        for variable in ["ENDPOINT", "PROTOCOL", "HEADERS"] {
            command.env_remove(format!("OTEL_EXPORTER_OTLP_{variable}"));
        }
        for variable in ["HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"] {
            command.env_remove(variable).env_remove(variable.to_ascii_lowercase());
        }
        // Cargo's, for tests: it would make each exec of each agent search some thirty folders for its libraries.
        command.env_remove("LD_LIBRARY_PATH");
        command
            .env("BAILIWICK_CONFIG_DIR", self.place.join("config"))
            .env("BAILIWICK_STATE_DIR", self.state())
            .env("BAILIWICK_RUNTIME_DIR", self.runtime_dir())
            .env("BAILIWICK_PIN_DIR", &self.pins)
            .envs(self.environment.iter().map(|(name, value)| (name, value)));
    }

    fn runtime_dir(&self) -> PathBuf {
        self.place.join("run")
    }

    /// Starts the daemon and waits until it is ready.
    ///
    /// # Panics
    ///
    /// If it does not become ready; also if it runs already.
    #[track_caller]
    pub fn start_daemon(&mut self) {
        self.spawn_daemon();
        let said = bounded::run(&mut self.command(&["status", "--wait", "30s", "--json"]), CALL_WITHIN);
        // A daemon whose receiver is away is ready, though it is not well.
        let status: Option<Value> = serde_json::from_str(&said.stdout).ok();
        assert!(status.is_some_and(|status| status["ready"] == true), "not ready: {}{}", said.stdout, said.stderr);
    }

    /// Starts the daemon without waiting for it.
    ///
    /// # Panics
    ///
    /// If it cannot be started; also if it runs already.
    #[track_caller]
    pub fn spawn_daemon(&mut self) {
        assert!(self.daemon.is_none(), "the daemon runs already");
        mount_bpffs();
        let log = File::options().create(true).append(true).open(&self.log).unwrap();
        let mut command = self.command(&["daemon"]);
        command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
        self.daemon = Some(command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}")));
    }

    /// Starts a daemon that is to refuse, and returns what it said.
    ///
    /// # Panics
    ///
    /// If it keeps running.
    #[track_caller]
    pub fn refused(&self) -> Said {
        mount_bpffs();
        bounded::run(&mut self.command(&["daemon"]), STOP_WITHIN)
    }

    /// The daemon's process id.
    ///
    /// # Panics
    ///
    /// If there is none.
    #[track_caller]
    pub fn daemon_pid(&self) -> Pid {
        Pid::from_child(self.daemon.as_ref().expect("no daemon runs"))
    }

    /// Sends a signal to the daemon, and to nothing else.
    ///
    /// # Panics
    ///
    /// If there is no daemon.
    #[track_caller]
    pub fn signal(&self, signal: Signal) {
        rustix::process::kill_process(self.daemon_pid(), signal).unwrap();
    }

    /// Kills the daemon as a crash would.
    ///
    /// # Panics
    ///
    /// If there is no daemon.
    #[track_caller]
    pub fn crash(&mut self) {
        self.signal(Signal::KILL);
        self.daemon.take().unwrap().wait().unwrap();
    }

    /// Asks the daemon to end, and returns its exit code.
    ///
    /// # Panics
    ///
    /// If it takes too long.
    #[track_caller]
    pub fn stop(&mut self) -> Option<i32> {
        self.signal(Signal::TERM);
        let mut daemon = self.daemon.take().unwrap();
        let status = wait_within(&mut daemon, STOP_WITHIN);
        if status.is_none() {
            kill(&mut daemon);
        }
        status.expect("the daemon did not end in time").code()
    }

    /// Calls the command line.
    ///
    /// # Panics
    ///
    /// If it takes too long.
    #[track_caller]
    pub fn call(&self, arguments: &str) -> Said {
        let arguments: Vec<&str> = arguments.split_whitespace().collect();
        bounded::run(&mut self.command(&arguments), CALL_WITHIN)
    }

    /// Calls the command line for JSON.
    ///
    /// # Panics
    ///
    /// If the call does not end well, or gives no JSON.
    #[track_caller]
    pub fn json(&self, arguments: &str) -> Value {
        self.call(arguments).success().json()
    }

    /// `bailiwick run` of a command as that agent, all of it under `strace`, which writes to files that begin with `prefix`.
    pub fn run_traced_command<A: AsRef<OsStr>>(&self, agent: &str, command: &[A], prefix: &Path) -> Command {
        let run = self.run_command(agent, command);
        let mut words = vec![run.get_program().to_owned()];
        words.extend(run.get_args().map(ToOwned::to_owned));
        let mut traced = crate::strace::command(prefix, &words);
        for (name, value) in run.get_envs() {
            if let Some(value) = value {
                traced.env(name, value);
            }
        }
        traced
    }

    /// `bailiwick run --agent AGENT -- COMMAND...`, to be started.
    pub fn run_command<A: AsRef<OsStr>>(&self, agent: &str, command: &[A]) -> Command {
        let mut run = self.command(&["run", "--agent", agent, "--"]);
        run.args(command);
        run
    }

    /// Runs a command as an agent, to its end.
    ///
    /// # Panics
    ///
    /// If it takes longer than a workload may.
    #[track_caller]
    pub fn run<A: AsRef<OsStr>>(&self, agent: &str, command: &[A]) -> Said {
        bounded::run(&mut self.run_command(agent, command), workload::DEADLINE)
    }

    /// Has the agent `opener` read `count` files once each, in the directory `files`, which is made for the first time.
    ///
    /// # Panics
    ///
    /// If it takes longer than a workload may, or fails.
    #[track_caller]
    pub fn read_files(&self, count: usize) {
        let opener = self.place().copy_of("opener", "agent-opener");
        let dir = self.place().join("files");
        if !dir.exists() {
            self.place().files("files", count);
        }
        let count = count.to_string();
        let arguments = [opener.as_os_str(), "repeats".as_ref(), dir.as_os_str(), count.as_ref()];
        self.run("opener", &[&arguments[..], &["1".as_ref(), "1".as_ref(), "r".as_ref()]].concat()).success();
    }

    /// Starts a command as an agent.
    ///
    /// # Panics
    ///
    /// If it cannot be started.
    #[track_caller]
    pub fn spawn<A: AsRef<OsStr>>(&self, agent: &str, command: &[A]) -> Running {
        Running::start(&mut self.run_command(agent, command))
    }

    /// Returns when all that happened before is in the trail.
    ///
    /// # Panics
    ///
    /// If that fails.
    #[track_caller]
    pub fn sync(&self) {
        self.call("sync").success();
    }

    /// The whole trail.
    ///
    /// # Panics
    ///
    /// If it cannot be read.
    #[track_caller]
    pub fn trail(&self) -> Entries {
        Entries::parse(&self.call("tail --json --since start --no-follow").success().stdout)
    }

    /// The whole trail, with all that happened before in it.
    ///
    /// # Panics
    ///
    /// If it cannot be read.
    #[track_caller]
    pub fn synced_trail(&self) -> Entries {
        self.sync();
        self.trail()
    }

    /// The daemon's log so far.
    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// How many processes carry this instance's environment.
    pub fn left_running(&self) -> usize {
        self.processes().len()
    }

    /// Kills what carries this instance's environment, and what that forks meanwhile.
    ///
    /// A process that is just executing shows no environment yet (`begin_new_exec` lets the parent go on before
    /// `create_elf_tables` has set it), so one empty look is not enough.
    fn end_processes(&self) {
        let mut empty_looks = 0;
        for _ in 0..LOOKS_MAX {
            let processes = self.processes();
            for pid in &processes {
                let _ = rustix::process::kill_process(*pid, Signal::KILL);
            }
            empty_looks = if processes.is_empty() { empty_looks + 1 } else { 0 };
            if empty_looks == 2 {
                return;
            }
            std::thread::sleep(LOOK_AGAIN_AFTER);
        }
    }

    /// Every process that carries this instance's environment: the daemon's own, and what `run` started.
    fn processes(&self) -> Vec<Pid> {
        let mark = format!("BAILIWICK_RUNTIME_DIR={}", self.runtime_dir().display()).into_bytes();
        let ours = |pid: &Pid| {
            let environment = std::fs::read(format!("/proc/{}/environ", pid.as_raw_nonzero())).unwrap_or_default();
            environment.split(|byte| *byte == 0).any(|variable| variable == mark)
        };
        let all = std::fs::read_dir("/proc").into_iter().flatten().flatten();
        let pids = all.filter_map(|entry| entry.file_name().to_str()?.parse().ok().and_then(Pid::from_raw));
        pids.filter(ours).collect()
    }
}

impl Drop for Instance {
    fn drop(&mut self) {
        if let Some(mut daemon) = self.daemon.take() {
            let pid = Pid::from_child(&daemon);
            // A test may have stopped it, and a stopped process does not see a SIGTERM.
            let _ = rustix::process::kill_process(pid, Signal::CONT);
            let _ = rustix::process::kill_process(pid, Signal::TERM);
            if wait_within(&mut daemon, STOP_WITHIN).is_none() {
                kill(&mut daemon);
            }
        }
        self.end_processes();
        // Pins are files of a bpffs: unlinking the last one is what frees a program.
        let _ = std::fs::remove_dir_all(&self.pins);
        if std::thread::panicking() {
            let _ = writeln!(io::stderr(), "--- the daemon's log\n{}---", self.log());
        }
    }
}

fn kill(child: &mut Child) {
    let _ = child.kill();
    let _ = child.wait();
}

fn wait_within(child: &mut Child, deadline: Duration) -> Option<std::process::ExitStatus> {
    let until = Instant::now() + deadline;
    while Instant::now() < until {
        if let Ok(Some(status)) = child.try_wait() {
            return Some(status);
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    None
}

/// Mounts the bpffs where it is missing, as systemd does on a usual host.
fn mount_bpffs() {
    let mounted = || rustix::fs::statfs(BPFFS).is_ok_and(|info| info.f_type == BPFFS_MAGIC);
    if mounted() || !rustix::process::geteuid().is_root() || !Path::new(BPFFS).exists() {
        return;
    }
    let flags =
        rustix::mount::MountFlags::NOSUID | rustix::mount::MountFlags::NODEV | rustix::mount::MountFlags::NOEXEC;
    if let Err(error) = rustix::mount::mount("bpf", BPFFS, "bpf", flags, c"mode=0700") {
        // Another test may have been faster.
        assert!(mounted(), "{BPFFS} cannot be mounted: {error}");
    }
}

#[cfg(test)]
mod tests {
    use super::{Instance, Running, Setup};
    use crate::declaration::Declaration;
    use crate::workload::SOON;

    #[test]
    fn two_prepared_instances_share_no_directory() {
        let one: Instance = Setup::new().agent(&Declaration::new("same")).prepare();
        let other = Setup::new().agent(&Declaration::new("same")).prepare();
        assert_ne!(one.state(), other.state());
        assert_ne!(one.pins(), other.pins());
        assert!(one.config("agents.d/same.toml").exists() && other.config("agents.d/same.toml").exists());
    }

    #[test]
    fn a_dropped_instance_ends_what_carries_its_environment() {
        let instance = Setup::new().prepare();
        let mut sleeper = std::process::Command::new("sleep");
        instance.set_environment(&mut sleeper);
        let sleeper = Running::start(sleeper.arg("60"));
        let dir = instance.state();
        drop(instance);
        assert!(!sleeper.finish(SOON).status.success());
        assert!(!dir.exists());
    }
}
