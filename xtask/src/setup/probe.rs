//! What setup looks at on the host. Injected, so that tests decide what a host has.

use std::{fs, path::Path, process::Stdio};

use crate::{invocation::Invocation, workspace::Workspace};

/// How setup looks at a host: files and versions only, never the network.
pub(crate) trait Probe {
    /// Whether we may install packages.
    fn is_root(&self) -> bool;
    /// Whether `program` is on the search path.
    fn has_program(&self, program: &str) -> bool;
    /// Whether `path` is a file (links followed).
    fn has_file(&self, path: &Path) -> bool;
    /// The content of the file at `path`; none when it cannot be read.
    fn read(&self, path: &Path) -> Option<String>;
    /// What a quick command prints, trimmed; none when it fails.
    fn answer(&self, command: &Invocation) -> Option<String>;
}

/// The host that this runs on.
pub(crate) struct Host<'a> {
    workspace: &'a Workspace,
}

impl<'a> Host<'a> {
    pub(crate) fn new(workspace: &'a Workspace) -> Self {
        Self { workspace }
    }
}

impl Probe for Host<'_> {
    fn is_root(&self) -> bool {
        rustix::process::geteuid().is_root()
    }

    fn has_program(&self, program: &str) -> bool {
        self.workspace.has_program(program)
    }

    fn has_file(&self, path: &Path) -> bool {
        path.is_file()
    }

    fn read(&self, path: &Path) -> Option<String> {
        fs::read_to_string(path).ok()
    }

    fn answer(&self, command: &Invocation) -> Option<String> {
        // rustup must not fetch a missing toolchain because it was asked whether there is one.
        let output =
            command.command(self.workspace).env("RUSTUP_AUTO_INSTALL", "0").stderr(Stdio::null()).output().ok()?;
        output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
    }
}

#[cfg(test)]
pub(crate) mod fake {
    //! Hosts that exist only in tests.
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use std::{
        collections::{BTreeMap, BTreeSet},
        path::PathBuf,
    };

    use super::*;

    /// A host as a test describes it.
    #[derive(Debug, Clone, Default)]
    pub(crate) struct FakeHost {
        root: bool,
        programs: BTreeSet<String>,
        files: BTreeMap<PathBuf, String>,
        answers: BTreeMap<String, String>,
    }

    impl FakeHost {
        /// The workspace that the tests of setup speak of.
        pub(crate) fn workspace() -> Workspace {
            let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
            Workspace::at(root, Path::new("/cargo/bin"), "/usr/bin".into()).unwrap()
        }

        /// Debian with root, rustup and the C compiler that built xtask, and nothing else.
        pub(crate) fn bare_debian() -> Self {
            Self { root: true, ..Self::default() }
                .with_program("apt-get")
                .with_program("rustup")
                .with_program("cc")
                .with_file("/usr/include/stdio.h", "")
        }

        /// A host on which nothing is missing.
        pub(crate) fn complete() -> Self {
            let workspace = Self::workspace();
            let mut host = Self::bare_debian()
                .with_answer("rustc --version", "rustc 1.95.0 (59807616e 2026-04-14)")
                .with_answer("rustc --print sysroot", "/sysroot")
                .with_file("/sysroot/lib/rustlib/src/rust/library/Cargo.lock", "")
                .with_file("/sysroot/bin/cargo-clippy", "")
                .with_file("/sysroot/bin/cargo-fmt", "")
                .with_answer("bpf-linker --version", "bpf-linker 0.13.0")
                .with_answer("cargo-deny --version", "cargo-deny 0.20.2")
                .with_answer("cargo-fuzz --version", "cargo-fuzz 0.13.2")
                .with_file("/etc/ssl/certs/ca-certificates.crt", "")
                .with_requirements("some-package==1.0\n")
                .with_file(workspace.python_environment().join("bin/python"), "")
                .with_file(workspace.python_environment().join("requirements.stamp"), "some-package==1.0\n");
            for program in ["c++", "dbus-daemon", "git", "strace", "tmux", "promtool", "python3"] {
                host = host.with_program(program);
            }
            host
        }

        pub(crate) fn without_root(mut self) -> Self {
            self.root = false;
            self
        }

        pub(crate) fn with_program(mut self, program: &str) -> Self {
            self.programs.insert(program.to_owned());
            self
        }

        pub(crate) fn without_program(mut self, program: &str) -> Self {
            assert!(self.programs.remove(program), "{program} is not there to be removed");
            self
        }

        pub(crate) fn with_file(mut self, path: impl Into<PathBuf>, content: &str) -> Self {
            self.files.insert(path.into(), content.to_owned());
            self
        }

        pub(crate) fn without_file(mut self, path: impl AsRef<Path>) -> Self {
            assert!(self.files.remove(path.as_ref()).is_some(), "no such file to remove");
            self
        }

        pub(crate) fn with_requirements(self, content: &str) -> Self {
            self.with_file(Self::workspace().python_requirements(), content)
        }

        pub(crate) fn with_answer(mut self, command: &str, answer: &str) -> Self {
            self.answers.insert(command.to_owned(), answer.to_owned());
            self
        }

        pub(crate) fn without_version(mut self, program: &str) -> Self {
            assert!(self.answers.remove(&format!("{program} --version")).is_some(), "{program} has no version");
            self
        }
    }

    impl Probe for FakeHost {
        fn is_root(&self) -> bool {
            self.root
        }

        fn has_program(&self, program: &str) -> bool {
            self.programs.contains(program)
        }

        fn has_file(&self, path: &Path) -> bool {
            self.files.contains_key(path)
        }

        fn read(&self, path: &Path) -> Option<String> {
            self.files.get(path).cloned()
        }

        fn answer(&self, command: &Invocation) -> Option<String> {
            self.answers.get(&command.to_string()).cloned()
        }
    }
}
