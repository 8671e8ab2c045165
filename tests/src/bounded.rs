//! Commands that cannot hang a test: each has a deadline, and is killed when it passes.
//!
//! Output goes to files and not through pipes, since what a command leaves running in the background would hold a pipe
//! open for ever.

use std::fs::File;
use std::io::{Read, Seek};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// How often an end is looked for. Barriers, not this, order what a test does.
const LOOK_EVERY: Duration = Duration::from_millis(2);

/// What a command said, and how it ended.
#[derive(Debug)]
pub struct Said {
    /// How it ended.
    pub status: ExitStatus,
    /// Its standard output, undecodable bytes replaced.
    pub stdout: String,
    /// Its standard error, undecodable bytes replaced.
    pub stderr: String,
    /// How long it took.
    pub took: Duration,
}

impl Said {
    /// The exit code; `None` after a signal.
    pub fn code(&self) -> Option<i32> {
        self.status.code()
    }

    /// The same, if it ended well.
    ///
    /// # Panics
    ///
    /// If the exit code is not 0, with all that it said.
    #[track_caller]
    pub fn success(self) -> Self {
        assert!(self.status.success(), "{}\nstdout: {}\nstderr: {}", self.status, self.stdout, self.stderr);
        self
    }

    /// Standard output as JSON.
    ///
    /// # Panics
    ///
    /// If it is none.
    #[track_caller]
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("no JSON: {error}: {}", self.stdout))
    }
}

/// A command that runs, and is killed when this is dropped.
#[derive(Debug)]
pub struct Running {
    child: Child,
    stdout: File,
    stderr: File,
    started: Instant,
    what: String,
}

impl Running {
    /// Starts `command` with no standard input.
    ///
    /// # Panics
    ///
    /// If it cannot be started.
    #[track_caller]
    pub fn start(command: &mut Command) -> Self {
        let what = format!("{command:?}");
        let (stdout, stderr) = (tempfile::tempfile().unwrap(), tempfile::tempfile().unwrap());
        command.stdin(Stdio::null()).stdout(stdout.try_clone().unwrap()).stderr(stderr.try_clone().unwrap());
        let started = Instant::now();
        let child = command.spawn().unwrap_or_else(|error| panic!("{what}: {error}"));
        Self { child, stdout, stderr, started, what }
    }

    /// Its process id.
    pub fn tgid(&self) -> u32 {
        self.child.id()
    }

    /// Whether it has ended.
    pub fn ended(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(Some(_)))
    }

    /// Waits for its end.
    ///
    /// # Panics
    ///
    /// If that takes longer than `deadline` from now.
    #[track_caller]
    pub fn finish(mut self, deadline: Duration) -> Said {
        let until = Instant::now() + deadline;
        let status = loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                break status;
            }
            if Instant::now() > until {
                let _ = self.child.kill();
                let _ = self.child.wait();
                let (stdout, stderr) = (text_of(&mut self.stdout), text_of(&mut self.stderr));
                panic!("{} did not end within {deadline:?}\nstdout: {stdout}\nstderr: {stderr}", self.what);
            }
            std::thread::sleep(LOOK_EVERY);
        };
        let took = self.started.elapsed();
        Said { status, stdout: text_of(&mut self.stdout), stderr: text_of(&mut self.stderr), took }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

fn text_of(file: &mut File) -> String {
    let mut bytes = Vec::new();
    file.rewind().unwrap();
    file.read_to_end(&mut bytes).unwrap();
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Runs `command` to its end.
///
/// # Panics
///
/// If it cannot be started, or takes longer than `deadline`.
#[track_caller]
pub fn run(command: &mut Command, deadline: Duration) -> Said {
    Running::start(command).finish(deadline)
}

/// Looks until `condition` holds; for what no barrier orders, such as another program's start.
///
/// # Panics
///
/// If it does not hold within `deadline`.
#[track_caller]
pub fn until(what: &str, deadline: Duration, mut condition: impl FnMut() -> bool) {
    let end = Instant::now() + deadline;
    while !condition() {
        assert!(Instant::now() < end, "{what}: not within {deadline:?}");
        std::thread::sleep(LOOK_EVERY);
    }
}
