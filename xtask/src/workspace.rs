//! Where things are, and with which toolchain they are built.
//!
//! Cargo's own artefacts lie in cargo's target directory, which the environment may move ([`Workspace::metadata`]).
//! What xtask makes itself (the sensor's object, the tests' virtual environment, the directories of `run`) always lies
//! in `target/` of the workspace, so that build scripts and tests find it without asking.

use std::{
    env,
    ffi::OsString,
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::invocation::Invocation;

/// This workspace and the toolchain that it is pinned to.
#[derive(Debug, Clone)]
pub(crate) struct Workspace {
    root: PathBuf,
    /// The pinned toolchain, as `rust-toolchain.toml` names it.
    channel: String,
    /// `PATH`, with the directory in it where `cargo install` puts programs, for everything that is started from here.
    path: OsString,
}

/// What cargo says about the workspace.
#[derive(Debug)]
pub(crate) struct Metadata {
    /// Cargo's target directory.
    pub(crate) target_directory: PathBuf,
    document: Value,
}

impl Workspace {
    /// The workspace that this program was built from.
    ///
    /// # Errors
    /// When `rust-toolchain.toml` cannot be read or pins nothing, or the home directory is unknown.
    pub(crate) fn locate() -> Result<Self> {
        let Some(root) = Path::new(env!("CARGO_MANIFEST_DIR")).parent() else {
            bail!("{} has no parent directory", env!("CARGO_MANIFEST_DIR"));
        };
        let cargo_home = match env::var_os("CARGO_HOME").filter(|home| !home.is_empty()) {
            Some(home) => PathBuf::from(home),
            None => PathBuf::from(env::var_os("HOME").context("neither CARGO_HOME nor HOME is set")?).join(".cargo"),
        };
        Self::at(root, &cargo_home.join("bin"), env::var_os("PATH").unwrap_or_default())
    }

    /// The workspace at `root`, with `cargo_bin` added to `path`.
    pub(crate) fn at(root: &Path, cargo_bin: &Path, path: OsString) -> Result<Self> {
        let pin = root.join("rust-toolchain.toml");
        let text = fs::read_to_string(&pin).with_context(|| format!("cannot read {}", pin.display()))?;
        let channel =
            channel_of(&text).with_context(|| format!("{}: no line `channel = \"...\"`", pin.display()))?.to_owned();
        let path = if env::split_paths(&path).any(|folder| folder == cargo_bin) {
            path
        } else {
            env::join_paths(std::iter::once(cargo_bin.to_owned()).chain(env::split_paths(&path)))
                .with_context(|| format!("{} cannot stand in PATH", cargo_bin.display()))?
        };
        Ok(Self { root: root.to_owned(), channel, path })
    }

    /// The workspace's root directory.
    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    /// The pinned toolchain, such as `1.95.0`.
    pub(crate) fn channel(&self) -> &str {
        &self.channel
    }

    /// The search path for everything that is started from here.
    pub(crate) fn path(&self) -> &OsString {
        &self.path
    }

    /// Whether `program` is on the search path.
    pub(crate) fn has_program(&self, program: &str) -> bool {
        env::split_paths(&self.path).any(|folder| folder.join(program).is_file())
    }

    /// The sensor's object, as the daemon's build script embeds it.
    pub(crate) fn sensor_object(&self) -> PathBuf {
        self.root.join("target/sensor/sensor.o")
    }

    /// The Python packages that tests need, one a line, as pip reads them.
    pub(crate) fn python_requirements(&self) -> PathBuf {
        self.root.join("tests/requirements.txt")
    }

    /// The virtual environment that holds them.
    pub(crate) fn python_environment(&self) -> PathBuf {
        self.root.join("target/venv")
    }

    /// Where Prometheus' `promtool` is unpacked, which tests judge metrics and alerts with.
    pub(crate) fn prometheus(&self) -> PathBuf {
        self.root.join("target/prometheus")
    }

    /// The npm packages that tests need, one a line, with their versions.
    pub(crate) fn npm_requirements(&self) -> PathBuf {
        self.root.join("tests/npm.txt")
    }

    /// The directory that holds them.
    pub(crate) fn npm_directory(&self) -> PathBuf {
        self.root.join("target/npm")
    }

    /// What cargo says about the workspace: takes about a tenth of a second.
    ///
    /// # Errors
    /// When cargo fails, or says something else than its metadata format.
    pub(crate) fn metadata(&self) -> Result<Metadata> {
        let text = Invocation::new("cargo").args(["metadata", "--no-deps", "--format-version", "1"]).output_in(self)?;
        Metadata::parse(&text)
    }
}

impl Metadata {
    fn parse(text: &str) -> Result<Self> {
        let document: Value = serde_json::from_str(text).context("cargo metadata: not JSON")?;
        let Some(target_directory) = document["target_directory"].as_str() else {
            bail!("cargo metadata: no target_directory");
        };
        Ok(Self { target_directory: target_directory.into(), document })
    }

    /// Whether `package` has an integration test called `name`.
    pub(crate) fn has_test(&self, package: &str, name: &str) -> bool {
        let all = |value: &Value| value.as_array().cloned().unwrap_or_default();
        all(&self.document["packages"])
            .iter()
            .filter(|found| found["name"] == package)
            .flat_map(|found| all(&found["targets"]))
            .any(|target| target["name"] == name && all(&target["kind"]).iter().any(|kind| kind == "test"))
    }
}

/// The toolchain that a `rust-toolchain.toml` names. It is read by line: one key does not call for a TOML parser in
/// the first program that a clean clone compiles.
fn channel_of(text: &str) -> Option<&str> {
    text.lines().find_map(|line| {
        let value = line.trim().strip_prefix("channel")?.trim_start().strip_prefix('=')?;
        value.trim().strip_prefix('"')?.split('"').next().filter(|channel| !channel.is_empty())
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;

    #[test]
    fn the_pinned_toolchain_is_read_from_its_file() {
        assert_eq!(channel_of("[toolchain]\nchannel = \"1.95.0\"\nprofile = \"minimal\"\n"), Some("1.95.0"));
        assert_eq!(channel_of("[toolchain]\n# channel = \"nightly\"\n"), None);
        assert_eq!(channel_of("channel = \"\""), None);
    }

    #[test]
    fn programs_that_cargo_installs_are_found_even_when_path_lacks_them() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("rust-toolchain.toml"), "channel = \"1.95.0\"").unwrap();
        let at = |path: &str| Workspace::at(folder.path(), Path::new("/c/bin"), path.into()).unwrap();
        assert_eq!(at("/usr/bin:/bin").path(), "/c/bin:/usr/bin:/bin");
        assert_eq!(at("/usr/bin:/c/bin").path(), "/usr/bin:/c/bin");
    }

    #[test]
    fn an_integration_test_is_known_by_package_and_name() {
        let metadata = Metadata::parse(
            r#"{"target_directory": "/t", "packages": [
                {"name": "bailiwick-tests", "targets": [{"name": "privileged", "kind": ["test"]}]},
                {"name": "other", "targets": [{"name": "scenarios", "kind": ["test"]}, {"name": "b", "kind": ["bin"]}]}
            ]}"#,
        )
        .unwrap();
        assert_eq!(metadata.target_directory, Path::new("/t"));
        assert!(metadata.has_test("bailiwick-tests", "privileged"));
        assert!(!metadata.has_test("bailiwick-tests", "scenarios"));
        assert!(!metadata.has_test("other", "b"));
    }
}
