//! What `strace` saw: an observer that shares nothing with Bailiwick, to compare a trail with.
//!
//! Reads what [`command`] writes: one file a thread (so that no call is torn in two), every string in hexadecimal (so
//! that none can be mistaken for syntax), descriptors with the path that they stood for when the call returned. A line
//! that is not understood is an error, never skipped.
//!
//! What is left out, and why:
//! - calls that never returned, or that the kernel restarts (`= ?`): the action did not happen, or happens again;
//! - connections of other families than IPv4 and IPv6: they are no `network.connect`;
//! - of the first process, what it did before it executed the command: that was the starter, not the agent.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::workload::Open;

/// The calls that are compared by what they were about.
const CALLS: &str = "open,openat,openat2,creat,execve,execveat,connect,fork,vfork,clone,clone3";
/// The calls that are compared by process, name and errno.
pub const ACTS: [&str; 45] = [
    "unlink",
    "unlinkat",
    "rmdir",
    "rename",
    "renameat",
    "renameat2",
    "link",
    "linkat",
    "symlink",
    "symlinkat",
    "mkdir",
    "mkdirat",
    "mknod",
    "mknodat",
    "truncate",
    "ftruncate",
    "fallocate",
    "chmod",
    "fchmod",
    "fchmodat",
    "chown",
    "fchown",
    "lchown",
    "fchownat",
    "setxattr",
    "lsetxattr",
    "fsetxattr",
    "removexattr",
    "lremovexattr",
    "fremovexattr",
    "setuid",
    "setgid",
    "setreuid",
    "setregid",
    "setresuid",
    "setresgid",
    "setgroups",
    "capset",
    "unshare",
    "setns",
    "memfd_create",
    "perf_event_open",
    "keyctl",
    "add_key",
    "io_uring_setup",
];
/// Longer than any string that the kernel takes as one argument.
const STRING_MAX: &str = "131072";

/// `strace` over a command, to write into files `PREFIX.TID`.
pub fn command<A: AsRef<OsStr>>(prefix: &Path, traced: &[A]) -> Command {
    let mut command = Command::new("strace");
    let traced_calls = format!("trace={CALLS},{}", ACTS.join(","));
    command.args([
        "-ff",
        "-q",
        "-xx",
        "--decode-fds=path,socket",
        "-e",
        &traced_calls,
        "-e",
        "signal=none",
        "-s",
        STRING_MAX,
    ]);
    command.arg("-o").arg(prefix).arg("--").args(traced);
    // As for an instance's commands: what cargo adds for tests is none of the workload's.
    command.env_remove("LD_LIBRARY_PATH");
    command
}

/// An exec as `strace` saw it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Exec {
    /// Who.
    pub tgid: u64,
    /// The path as it was given.
    pub given: String,
    /// The arguments as they were given.
    pub arguments: Vec<String>,
    /// Why not, where it failed.
    pub errno: Option<String>,
}

/// A connect as `strace` saw it; EINPROGRESS is no failure.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Connect {
    /// Who.
    pub tgid: u64,
    /// `tcp` or `udp`.
    pub transport: String,
    /// To where.
    pub address: IpAddr,
    /// To which port.
    pub port: u16,
    /// Why not, where it failed.
    pub errno: Option<String>,
}

/// A call that is compared by process, name and errno.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Act {
    /// Who.
    pub tgid: u64,
    /// One of [`ACTS`].
    pub call: String,
    /// Why not, where it failed.
    pub errno: Option<String>,
}

/// What a command and all its descendants did.
#[derive(Debug, Default)]
pub struct Observed {
    /// The process that executed the command.
    pub root: u64,
    /// Every process, the root among them.
    pub processes: BTreeSet<u64>,
    /// Parent and child.
    pub forks: BTreeSet<(u64, u64)>,
    /// With how often.
    pub execs: BTreeMap<Exec, u64>,
    /// With how often. The path of a failed open is the directory's and the one given, joined.
    pub opens: BTreeMap<Open, u64>,
    /// The opens that asked to create.
    pub creating: BTreeSet<Open>,
    /// With how often.
    pub connects: BTreeMap<Connect, u64>,
    /// With how often.
    pub acts: BTreeMap<Act, u64>,
}

/// A line that is not understood.
#[derive(Debug, PartialEq, Eq)]
pub struct NotUnderstood(String);

impl std::fmt::Display for NotUnderstood {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "not understood: {}", self.0)
    }
}

impl std::error::Error for NotUnderstood {}

/// One call that returned.
struct Call<'a> {
    name: &'a str,
    arguments: Vec<&'a str>,
    /// The descriptor, process or zero that it returned, or the name of its error.
    result: Result<u64, &'a str>,
    /// The path of the descriptor that it returned.
    returned: Option<String>,
}

/// Reads the files that [`command`] wrote, and keeps what the process that executed `root` and its descendants did.
///
/// # Errors
///
/// When a file cannot be read, a line is not understood, or nothing executed `root`.
pub fn read(prefix: &Path, root: &Path) -> anyhow::Result<Observed> {
    let mut threads = BTreeMap::new();
    let name = prefix.file_name().unwrap_or_default().to_string_lossy().into_owned() + ".";
    for entry in prefix.parent().unwrap_or(Path::new(".")).read_dir()? {
        let entry = entry?;
        if let Some(tid) = entry.file_name().to_string_lossy().strip_prefix(&name) {
            threads.insert(tid.parse()?, std::fs::read_to_string(entry.path())?);
        }
    }
    Ok(observe(&threads, &root.to_string_lossy())?)
}

/// The same from text, by thread.
///
/// # Errors
///
/// When a line is not understood, or nothing executed `root`.
pub fn observe(threads: &BTreeMap<u64, String>, root: &str) -> Result<Observed, NotUnderstood> {
    let mut calls = BTreeMap::new();
    for (tid, text) in threads {
        let parsed: Result<Vec<_>, _> = text.lines().filter_map(|line| parse(line).transpose()).collect();
        calls.insert(*tid, parsed?);
    }
    let first = calls.iter().find_map(|(tid, calls)| {
        let executes =
            |call: &Call<'_>| call.is_exec() && call.result.is_ok() && call.exec_path().as_deref() == Some(root);
        calls.iter().position(executes).map(|index| (*tid, index))
    });
    let (root, start) = first.ok_or_else(|| NotUnderstood(format!("nothing executed {root}")))?;

    let mut observed = Observed { root, ..Observed::default() };
    observed.processes.insert(root);
    let mut waiting = vec![(root, root, start)];
    while let Some((tid, tgid, from)) = waiting.pop() {
        // A thread that made no call has no file.
        for call in calls.get(&tid).into_iter().flatten().skip(from) {
            if let Some((child, is_thread)) = observed.record(tgid, call)? {
                waiting.push((child, if is_thread { tgid } else { child }, 0));
            }
        }
    }
    Ok(observed)
}

impl Observed {
    /// Adds a call; returns the thread or process that it made.
    fn record(&mut self, tgid: u64, call: &Call<'_>) -> Result<Option<(u64, bool)>, NotUnderstood> {
        let errno = call.result.err().map(str::to_owned);
        match call.name {
            "fork" | "vfork" | "clone" | "clone3" => {
                let Ok(child) = call.result else { return Ok(None) };
                let is_thread = call.arguments.iter().any(|argument| argument.contains("CLONE_THREAD"));
                if !is_thread {
                    self.processes.insert(child);
                    self.forks.insert((tgid, child));
                }
                return Ok(Some((child, is_thread)));
            }
            "execve" | "execveat" => {
                let exec = call.exec(tgid, errno)?;
                *self.execs.entry(exec).or_default() += 1;
            }
            "open" | "openat" | "openat2" | "creat" => {
                let (open, creates) = call.open(tgid, errno)?;
                if creates {
                    self.creating.insert(open.clone());
                }
                *self.opens.entry(open).or_default() += 1;
            }
            "connect" => {
                if let Some(connect) = call.connect(tgid, errno.filter(|errno| errno != "EINPROGRESS"))? {
                    *self.connects.entry(connect).or_default() += 1;
                }
            }
            name if ACTS.contains(&name) => {
                *self.acts.entry(Act { tgid, call: name.to_owned(), errno }).or_default() += 1;
            }
            other => return Err(NotUnderstood(other.to_owned())),
        }
        Ok(None)
    }
}

impl Call<'_> {
    fn is_exec(&self) -> bool {
        matches!(self.name, "execve" | "execveat")
    }

    fn argument(&self, index: usize) -> Result<&str, NotUnderstood> {
        self.arguments.get(index).copied().ok_or_else(|| NotUnderstood(format!("{}: {:?}", self.name, self.arguments)))
    }

    fn exec_path(&self) -> Option<String> {
        self.arguments.iter().find_map(|argument| string(argument))
    }

    fn exec(&self, tgid: u64, errno: Option<String>) -> Result<Exec, NotUnderstood> {
        let bad = || NotUnderstood(format!("{}: {:?}", self.name, self.arguments));
        let list = self.arguments.iter().find_map(|argument| argument.strip_prefix('[')?.strip_suffix(']'));
        let arguments: Option<Vec<_>> = list.ok_or_else(bad)?.split_terminator(", ").map(string).collect();
        Ok(Exec { tgid, given: self.exec_path().ok_or_else(bad)?, arguments: arguments.ok_or_else(bad)?, errno })
    }

    /// The open, and whether it asked to create.
    fn open(&self, tgid: u64, errno: Option<String>) -> Result<(Open, bool), NotUnderstood> {
        let (dir, path, flags) = match self.name {
            "open" => (None, self.argument(0)?, self.argument(1)?),
            "creat" => (None, self.argument(0)?, "O_WRONLY|O_CREAT|O_TRUNC"),
            _ => (decoded(self.argument(0)?), self.argument(1)?, self.argument(2)?),
        };
        let path = match (&self.returned, string(path)) {
            (Some(resolved), _) => resolved.clone(),
            (None, Some(given)) => normalised(&dir.map_or(PathBuf::new(), PathBuf::from).join(given)),
            (None, None) => return Err(NotUnderstood(format!("{}: {:?}", self.name, self.arguments))),
        };
        let has = |flag: &str| flags.split(|c: char| !c.is_ascii_alphanumeric() && c != '_').any(|word| word == flag);
        let access = match () {
            () if has("O_PATH") => "path",
            () if has("O_RDWR") => "rw",
            () if has("O_WRONLY") => "w",
            () => "r",
        };
        Ok((Open { tgid, path, access: access.to_owned(), errno }, has("O_CREAT")))
    }

    fn connect(&self, tgid: u64, errno: Option<String>) -> Result<Option<Connect>, NotUnderstood> {
        let (socket, target) = (self.argument(0)?, self.argument(1)?);
        if !target.contains("sa_family=AF_INET,") && !target.contains("sa_family=AF_INET6,") {
            return Ok(None);
        }
        let bad = || NotUnderstood(format!("connect: {:?}", self.arguments));
        let transport = match socket.split_once('<').map(|(_, kind)| kind) {
            Some(kind) if kind.starts_with("TCP") => "tcp",
            Some(kind) if kind.starts_with("UDP") => "udp",
            _ => return Err(bad()),
        };
        let port = target.split_once("htons(").and_then(|(_, rest)| rest.split_once(')')?.0.parse().ok());
        let address = target.split('"').nth(1).and_then(unhex).and_then(|text| text.parse().ok());
        let (Some(port), Some(address)) = (port, address) else { return Err(bad()) };
        Ok(Some(Connect { tgid, transport: transport.to_owned(), address, port, errno }))
    }
}

/// Parses a line; `None` for what is no call that returned.
fn parse(line: &str) -> Result<Option<Call<'_>>, NotUnderstood> {
    let bad = || NotUnderstood(line.to_owned());
    if line.starts_with("+++ ") || line.starts_with("--- ") || line.ends_with("<unfinished ...>") {
        return Ok(None);
    }
    let (call, result) = line.rsplit_once(" = ").ok_or_else(bad)?;
    let (name, arguments) = call.trim_end().strip_suffix(')').and_then(|call| call.split_once('(')).ok_or_else(bad)?;
    if !name.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
        return Err(bad());
    }
    if result.starts_with('?') {
        return Ok(None);
    }
    let outcome = match result.strip_prefix("-1 ") {
        Some(error) => Err(error.split(' ').next().unwrap_or_default()),
        None => Ok(result.split(['<', ' ']).next().and_then(|value| value.parse().ok()).ok_or_else(bad)?),
    };
    Ok(Some(Call { name, arguments: split(arguments), result: outcome, returned: decoded(result) }))
}

/// Splits at the commas that stand in no bracket. Strings are hexadecimal and hold neither.
fn split(arguments: &str) -> Vec<&str> {
    let (mut parts, mut depth, mut start) = (Vec::new(), 0_usize, 0);
    for (index, character) in arguments.char_indices() {
        match character {
            '[' | '{' | '(' => depth += 1,
            ']' | '}' | ')' => depth = depth.saturating_sub(1),
            ',' if depth == 0 => {
                parts.push(arguments[start..index].trim());
                start = index + 1;
            }
            _ => {}
        }
    }
    parts.push(arguments[start..].trim());
    parts
}

/// The text of a quoted string.
fn string(argument: &str) -> Option<String> {
    unhex(argument.strip_prefix('"')?.strip_suffix('"')?)
}

/// The path that stands in angle brackets behind a descriptor.
fn decoded(descriptor: &str) -> Option<String> {
    unhex(descriptor.split_once('<')?.1.split_once('>')?.0)
}

/// Text from `\x2f\x74`; bytes that are no UTF-8 as the contract escapes them.
fn unhex(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len() / 4);
    for pair in text.split("\\x").skip(1) {
        bytes.push(u8::from_str_radix(pair, 16).ok()?);
    }
    if bytes.len() * 4 != text.len() {
        return None;
    }
    let chunks = bytes.utf8_chunks();
    Some(chunks.fold(String::new(), |mut text, chunk| {
        text.push_str(chunk.valid());
        chunk.invalid().iter().for_each(|byte| text.push_str(&format!("\\x{byte:02X}")));
        text
    }))
}

/// The path without `.`, `..` and doubled slashes, by its letters alone: of a failed open nothing else is left to go by.
pub fn normalised(path: &Path) -> String {
    let mut result = PathBuf::new();
    for component in path.components() {
        match component {
            std::path::Component::CurDir => {}
            std::path::Component::ParentDir => {
                result.pop();
            }
            other => result.push(other),
        }
    }
    result.display().to_string()
}

#[cfg(test)]
mod tests;
