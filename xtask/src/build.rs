//! Builds the sensor, puts its object where the daemon's build script looks for it, then builds the daemon.
//!
//! The sensor is always optimised: the verifier does not accept what rustc makes of it otherwise.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};

use crate::{
    invocation::{Invocation, shown},
    workspace::Workspace,
};

/// The target that the sensor is compiled for.
pub(crate) const BPF_TARGET: &str = "bpfel-unknown-none";

/// How the daemon is compiled.
///
/// Dev unless asked otherwise: `test` and `check` use it too, so the first `run` after them builds nothing, and an
/// optimised daemon takes longer to compile. Nothing here measures the daemon's speed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Profile {
    Dev,
    Release,
}

impl Profile {
    /// Release where `release` is set.
    pub(crate) fn from_flag(release: bool) -> Self {
        if release { Self::Release } else { Self::Dev }
    }

    fn folder(self) -> &'static str {
        match self {
            Self::Dev => "debug",
            Self::Release => "release",
        }
    }
}

/// Builds the sensor and the daemon that carries it. Returns the daemon's program.
///
/// # Errors
/// When a compilation fails or the sensor's object cannot be copied.
pub(crate) fn all(workspace: &Workspace, profile: Profile) -> Result<PathBuf> {
    let target = workspace.metadata()?.target_directory;
    sensor_command("build").run_in(workspace)?;
    let built = target.join(BPF_TARGET).join("release/sensor");
    let object = workspace.sensor_object();
    let size = fs::metadata(&built).with_context(|| format!("cannot read {}", built.display()))?.len();
    let change = if place(&built, &object)? { "new" } else { "unchanged" };
    eprintln!("sensor: {} ({} KiB, {change})", shown(&object, workspace), size.div_ceil(1024));

    let mut daemon = Invocation::new("cargo").args(["build", "--package", "agent-userspace"]);
    if profile == Profile::Release {
        daemon = daemon.arg("--release");
    }
    daemon.run_in(workspace)?;
    Ok(target.join(profile.folder()).join("bailiwick"))
}

/// Cargo's `verb` for the sensor. Its flags for rustc stand in `.cargo/config.toml`.
pub(crate) fn sensor_command(verb: &str) -> Invocation {
    Invocation::new("cargo")
        // `build-std` is a nightly feature of cargo; the pinned toolchain is stable.
        .env("RUSTC_BOOTSTRAP", "1")
        .args([verb, "--release", "--package", "agent-ebpf", "--bin", "sensor"])
        .args(["--target", BPF_TARGET, "-Z", "build-std=core"])
}

/// Copies `built` to `object` unless it already holds the same bytes: cargo goes by the time of the file, and would
/// compile the daemon again. Returns whether it copied.
fn place(built: &Path, object: &Path) -> Result<bool> {
    let bytes = fs::read(built).with_context(|| format!("cannot read {}", built.display()))?;
    if fs::read(object).is_ok_and(|present| present == bytes) {
        return Ok(false);
    }
    if let Some(folder) = object.parent() {
        fs::create_dir_all(folder).with_context(|| format!("cannot create {}", folder.display()))?;
    }
    // Renamed into place: a compilation that runs meanwhile sees the old object or the new one.
    let partial = object.with_extension("o.partial");
    fs::write(&partial, &bytes).with_context(|| format!("cannot write {}", partial.display()))?;
    fs::rename(&partial, object)
        .with_context(|| format!("cannot rename {} to {}", partial.display(), object.display()))?;
    Ok(true)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;

    #[test]
    fn an_object_with_the_same_bytes_is_not_touched() {
        let folder = tempfile::tempdir().unwrap();
        let (built, object) = (folder.path().join("sensor"), folder.path().join("sub/sensor.o"));
        fs::write(&built, b"one").unwrap();
        assert!(place(&built, &object).unwrap());
        let written = fs::metadata(&object).unwrap().modified().unwrap();

        fs::write(&built, b"one").unwrap();
        assert!(!place(&built, &object).unwrap());
        assert_eq!(fs::metadata(&object).unwrap().modified().unwrap(), written);
    }

    #[test]
    fn an_object_with_other_bytes_is_replaced_and_nothing_else_is_left() {
        let folder = tempfile::tempdir().unwrap();
        let (built, object) = (folder.path().join("sensor"), folder.path().join("sub/sensor.o"));
        for bytes in [b"one", b"two"] {
            fs::write(&built, bytes).unwrap();
            assert!(place(&built, &object).unwrap());
            assert_eq!(fs::read(&object).unwrap(), bytes);
        }
        assert_eq!(fs::read_dir(folder.path().join("sub")).unwrap().count(), 1);
    }

    #[test]
    fn a_missing_object_is_an_error_that_names_it() {
        let error = place(Path::new("/nowhere/sensor"), Path::new("/nowhere/sensor.o")).unwrap_err();
        assert_eq!(error.to_string(), "cannot read /nowhere/sensor");
    }
}
