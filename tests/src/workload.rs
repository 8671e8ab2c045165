//! Where the built programs are, and how a test gets an executable of its own making out of one.
//!
//! Agents are recognised, and gates set, by executable: so that no test touches what another uses, each copies the
//! workload into its own directory and declares the copy.

use std::ffi::OsStr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use serde_json::Value;

use crate::bounded::{self, Said};

/// No workload takes as long on an idle machine; two cores that also build may be slow.
pub const DEADLINE: Duration = Duration::from_secs(120);

/// What another program does at once, on an idle machine.
pub const SOON: Duration = Duration::from_secs(20);

/// The directory of the built programs: `target/debug` or `target/release`.
///
/// # Panics
///
/// If the test does not lie where cargo puts it.
pub fn target_dir() -> PathBuf {
    let test = std::env::current_exe().unwrap();
    test.ancestors().nth(2).expect("a test lies in target/PROFILE/deps").to_owned()
}

/// The program under test: `BAILIWICK_BIN`, else the one built beside this test.
pub fn bailiwick() -> PathBuf {
    std::env::var_os("BAILIWICK_BIN").map_or_else(|| target_dir().join("bailiwick"), PathBuf::from)
}

/// The Python environment of the tests: `BAILIWICK_TEST_VENV`, else `target/venv`.
///
/// # Panics
///
/// If the test does not lie where cargo puts it.
pub fn venv() -> PathBuf {
    let ours = || target_dir().parent().expect("target/PROFILE has a parent").join("venv");
    std::env::var_os("BAILIWICK_TEST_VENV").map_or_else(ours, PathBuf::from)
}

/// Prometheus' own tool: as `cargo xtask setup` unpacks it, else as the search path has it.
///
/// # Panics
///
/// If the test does not lie where cargo puts it.
pub fn promtool() -> PathBuf {
    let unpacked = target_dir().parent().expect("target/PROFILE has a parent").join("prometheus/usr/bin/promtool");
    if unpacked.exists() { unpacked } else { PathBuf::from("promtool") }
}

/// The npm packages of the tests: `target/npm/node_modules`.
///
/// # Panics
///
/// If the test does not lie where cargo puts it.
pub fn npm() -> PathBuf {
    target_dir().parent().expect("target/PROFILE has a parent").join("npm/node_modules")
}

/// A directory of a test's own that everybody may enter, with its path free of symbolic links.
#[derive(Debug)]
pub struct Place {
    path: PathBuf,
    _dir: tempfile::TempDir,
}

impl Place {
    /// Makes one.
    ///
    /// # Panics
    ///
    /// If the file system does not let it.
    pub fn new() -> Self {
        let dir = tempfile::Builder::new().prefix("bailiwick-").tempdir().unwrap();
        std::fs::set_permissions(dir.path(), PermissionsExt::from_mode(0o755)).unwrap();
        Self { path: dir.path().canonicalize().unwrap(), _dir: dir }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The path of `name` in it.
    pub fn join(&self, name: impl AsRef<Path>) -> PathBuf {
        self.path.join(name)
    }

    /// Copies the workload `name` to `copy` in it, and returns the copy's path.
    ///
    /// # Panics
    ///
    /// If the workload is not built.
    pub fn copy_of(&self, name: &str, copy: &str) -> PathBuf {
        let (from, to) = (target_dir().join(name), self.join(copy));
        std::fs::copy(&from, &to).unwrap_or_else(|error| panic!("{}: {error}", from.display()));
        to
    }

    /// Writes an executable script.
    ///
    /// # Panics
    ///
    /// If it cannot be written.
    pub fn script(&self, name: &str, text: &str) -> PathBuf {
        let path = self.join(name);
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o755)).unwrap();
        path
    }

    /// Makes the directory `name` with `count` files `f0`, `f1`, ... for `opener repeats`.
    ///
    /// # Panics
    ///
    /// If the file system does not let it.
    pub fn files(&self, name: &str, count: usize) -> PathBuf {
        let dir = self.join(name);
        std::fs::create_dir(&dir).unwrap();
        for number in 0..count {
            std::fs::write(dir.join(format!("f{number}")), []).unwrap();
        }
        dir
    }

    /// Makes the directory `name` with what `opener ways` and `opener fail` look for.
    ///
    /// # Panics
    ///
    /// If the file system does not let it.
    pub fn ways(&self, name: &str) -> PathBuf {
        let dir = self.join(name);
        std::fs::create_dir_all(dir.join("sub")).unwrap();
        for file in ["plain", "sub/inner", "secret"] {
            std::fs::write(dir.join(file), []).unwrap();
        }
        std::fs::set_permissions(dir.join("secret"), PermissionsExt::from_mode(0o600)).unwrap();
        for (target, link) in [("plain", "link"), ("sub/../plain", "up"), ("loop", "loop")] {
            std::os::unix::fs::symlink(target, dir.join(link)).unwrap();
        }
        let (fifo, mode) = (rustix::fs::FileType::Fifo, rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR);
        rustix::fs::mknodat(rustix::fs::CWD, dir.join("fifo"), fifo, mode, 0).unwrap();
        dir
    }
}

impl Default for Place {
    fn default() -> Self {
        Self::new()
    }
}

/// Runs a program to its end, outside any session.
///
/// # Panics
///
/// If it cannot be started, or takes longer than [`DEADLINE`].
#[track_caller]
pub fn run<A: AsRef<OsStr>>(program: &Path, arguments: &[A]) -> Said {
    bounded::run(Command::new(program).args(arguments), DEADLINE)
}

/// What `opener` says it opened, as `(tgid, path, access, errno)` with how often.
///
/// # Panics
///
/// If it said something else.
pub fn opens(said: &Value) -> Vec<(Open, u64)> {
    let text = |value: &Value| value.as_str().map(str::to_owned);
    let processes = said["processes"].as_array().expect("processes");
    let each = processes.iter().flat_map(|process| {
        let tgid = process["tgid"].as_u64().expect("tgid");
        process["opens"].as_array().expect("opens").iter().map(move |open| {
            let (path, access) = (text(&open["path"]).expect("path"), text(&open["access"]).expect("access"));
            let count = open["count"].as_u64().expect("count");
            (Open { tgid, path, access, errno: text(&open["errno"]) }, count)
        })
    });
    each.collect()
}

/// The key under which opens are counted.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Open {
    /// Who.
    pub tgid: u64,
    /// What.
    pub path: String,
    /// How: `r`, `w`, `rw`, `path`.
    pub access: String,
    /// Why not, where it failed.
    pub errno: Option<String>,
}
