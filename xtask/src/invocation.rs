//! A program to start, as data: it can be shown before it runs, or printed for the operator to run instead.
//!
//! Everything starts in the workspace's root, with the pinned toolchain, the search path of [`Workspace::path`] and
//! nothing on standard input. Errors name the command line and how it ended.

use std::{
    env,
    ffi::{OsStr, OsString},
    fmt,
    io::{self, BufRead, BufReader, Write},
    path::Path,
    process::{Command, ExitStatus, Stdio},
};

use anyhow::{Context, Result, bail};

use crate::workspace::Workspace;

/// A program, its arguments, and what it needs in the environment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Invocation {
    program: OsString,
    args: Vec<OsString>,
    env: Vec<(&'static str, OsString)>,
}

impl Invocation {
    /// `program`, without arguments.
    pub(crate) fn new(program: impl Into<OsString>) -> Self {
        Self { program: program.into(), args: Vec::new(), env: Vec::new() }
    }

    /// With one argument more.
    pub(crate) fn arg(mut self, arg: impl Into<OsString>) -> Self {
        self.args.push(arg.into());
        self
    }

    /// With these arguments more.
    pub(crate) fn args<A: Into<OsString>>(mut self, args: impl IntoIterator<Item = A>) -> Self {
        self.args.extend(args.into_iter().map(Into::into));
        self
    }

    /// With `key` set to `value` in the environment.
    pub(crate) fn env(mut self, key: &'static str, value: impl Into<OsString>) -> Self {
        self.env.push((key, value.into()));
        self
    }

    /// The command as the standard library starts it.
    pub(crate) fn command(&self, workspace: &Workspace) -> Command {
        let mut command = Command::new(&self.program);
        for (key, _) in env::vars_os().filter(|(key, _)| tells_of_xtask(key)) {
            command.env_remove(key);
        }
        command
            .args(&self.args)
            .current_dir(workspace.root())
            .env("PATH", workspace.path())
            // So that `cargo +other xtask` still builds the project with the toolchain that it is pinned to.
            .env("RUSTUP_TOOLCHAIN", workspace.channel())
            .envs(self.env.iter().map(|(key, value)| (key, value)))
            .stdin(Stdio::null());
        command
    }

    /// Shows the command, runs it, and passes its output through.
    ///
    /// # Errors
    /// When it cannot be started, or ends with anything but 0.
    pub(crate) fn run_in(&self, workspace: &Workspace) -> Result<()> {
        eprintln!("$ {self}");
        let status = self.command(workspace).status().with_context(|| format!("cannot start `{self}`"))?;
        self.judge(status)
    }

    /// As [`Self::run_in`], but hands each line of standard output to `see` once it is passed on.
    ///
    /// # Errors
    /// As [`Self::run_in`], or when the output cannot be read or passed on.
    pub(crate) fn run_and_watch(&self, workspace: &Workspace, mut see: impl FnMut(&str)) -> Result<()> {
        eprintln!("$ {self}");
        let mut child =
            self.command(workspace).stdout(Stdio::piped()).spawn().with_context(|| format!("cannot start `{self}`"))?;
        let copied =
            child.stdout.take().map_or(Ok(()), |output| pass_on(BufReader::new(output), &mut io::stdout(), &mut see));
        let status = child.wait().with_context(|| format!("cannot wait for `{self}`"))?;
        copied.with_context(|| format!("cannot pass on the output of `{self}`"))?;
        self.judge(status)
    }

    /// Runs the command without showing it, and returns its standard output.
    ///
    /// # Errors
    /// When it cannot be started, or ends with anything but 0.
    pub(crate) fn output_in(&self, workspace: &Workspace) -> Result<String> {
        let output = self
            .command(workspace)
            .stderr(Stdio::inherit())
            .output()
            .with_context(|| format!("cannot start `{self}`"))?;
        self.judge(output.status)?;
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    fn judge(&self, status: ExitStatus) -> Result<()> {
        if !status.success() {
            bail!("`{self}` failed: {status}");
        }
        Ok(())
    }
}

/// Whether cargo set this variable to describe the program that it started, which is us. Build scripts that watch
/// these (ring's does) would run again each time that xtask and plain cargo take turns.
fn tells_of_xtask(key: &OsStr) -> bool {
    let key = key.to_string_lossy();
    key.starts_with("CARGO_PKG_") || key.starts_with("CARGO_MANIFEST_")
}

fn pass_on(mut from: impl BufRead, to: &mut impl Write, see: &mut impl FnMut(&str)) -> io::Result<()> {
    let mut line = Vec::new();
    while from.read_until(b'\n', &mut line)? > 0 {
        to.write_all(&line)?;
        see(String::from_utf8_lossy(&line).trim_end());
        line.clear();
    }
    to.flush()
}

/// As one types it into a shell.
impl fmt::Display for Invocation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (key, value) in &self.env {
            write!(f, "{key}={} ", quoted(value))?;
        }
        write!(f, "{}", quoted(&self.program))?;
        self.args.iter().try_for_each(|arg| write!(f, " {}", quoted(arg)))
    }
}

/// `word` so that a shell takes it for one word.
fn quoted(word: &OsStr) -> String {
    let word = word.to_string_lossy();
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_=+./,:@%".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        word.into_owned()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

/// `path` relative to the workspace where it lies in it, for messages.
pub(crate) fn shown(path: &Path, workspace: &Workspace) -> String {
    path.strip_prefix(workspace.root()).unwrap_or(path).display().to_string()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;

    fn here() -> Workspace {
        Workspace::locate().unwrap()
    }

    #[test]
    fn a_command_is_shown_as_a_shell_takes_it() {
        let command = Invocation::new("cargo").env("RUSTDOCFLAGS", "-D warnings").args(["doc", "it's", ""]);
        assert_eq!(command.to_string(), r"RUSTDOCFLAGS='-D warnings' cargo doc 'it'\''s' ''");
    }

    #[test]
    fn a_failing_command_is_an_error_that_names_it_and_its_status() {
        let error = Invocation::new("sh").args(["-c", "exit 3"]).run_in(&here()).unwrap_err();
        assert_eq!(error.to_string(), "`sh -c 'exit 3'` failed: exit status: 3");
    }

    #[test]
    fn a_command_that_does_not_exist_is_an_error_that_names_it() {
        let error = Invocation::new("no-such-program").run_in(&here()).unwrap_err();
        assert_eq!(error.to_string(), "cannot start `no-such-program`");
    }

    #[test]
    fn output_is_passed_on_byte_for_byte_and_seen_by_line() {
        let (mut passed, mut seen) = (Vec::new(), Vec::new());
        let output: &[u8] = b"one\n\xfftwo\nthree";
        pass_on(output, &mut passed, &mut |line: &str| seen.push(line.to_owned())).unwrap();
        assert_eq!(passed, output);
        assert_eq!(seen, ["one", "\u{fffd}two", "three"]);
    }

    #[test]
    fn the_output_of_a_watched_command_is_seen_even_when_it_fails() {
        let mut seen = Vec::new();
        let command = Invocation::new("sh").args(["-c", "echo seen; exit 1"]);
        assert!(command.run_and_watch(&here(), |line| seen.push(line.to_owned())).is_err());
        assert_eq!(seen, ["seen"]);
    }

    #[test]
    fn a_command_is_not_told_what_cargo_told_xtask_of_itself() {
        let told = |names: &str| names.lines().filter(|line| tells_of_xtask(OsStr::new(line))).count();
        let ours: String = env::vars().map(|(key, _)| key + "\n").collect();
        assert!(told(&ours) > 0, "cargo tells a test program of its package");
        assert_eq!(told(&Invocation::new("env").output_in(&here()).unwrap()), 0);
    }

    #[test]
    fn a_command_has_nothing_on_standard_input() {
        assert_eq!(Invocation::new("cat").output_in(&here()).unwrap(), "");
    }
}
