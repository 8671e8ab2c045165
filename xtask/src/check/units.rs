//! The service units, judged by systemd itself.
//!
//! systemd refuses a unit whose program is not installed. So that this does not depend on what is installed here, the
//! units are put into a directory that stands for the root of a host, with an empty program in its place.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};

use crate::{invocation::Invocation, workspace::Workspace};

/// Where the package installs the daemon.
const PROGRAM: &str = "usr/bin/bailiwick";
/// Where systemd looks for units below the root that it is given.
const UNITS: &str = "etc/systemd/system";

/// The command that verifies the units; none where there are no units or this host has no `systemd-analyze`.
pub(super) fn verification(workspace: &Workspace) -> Result<Option<Invocation>> {
    let units = services(&workspace.root().join("systemd"))?;
    if units.is_empty() {
        return Ok(None);
    }
    if !workspace.has_program("systemd-analyze") {
        eprintln!("check: the units are not verified, since this host has no systemd-analyze");
        return Ok(None);
    }
    let root = workspace.root().join("target/units");
    let names = stage(&units, &root).with_context(|| format!("cannot lay out the units in {}", root.display()))?;
    // The units of the host are not in that root, and not ours to judge.
    let verify = Invocation::new("systemd-analyze").args(["verify", "--man=no", "--recursive-errors=no", "--root"]);
    Ok(Some(verify.arg(root).args(names)))
}

fn services(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut units = Vec::new();
    if folder.is_dir() {
        for entry in fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))? {
            let path = entry.with_context(|| format!("cannot read {}", folder.display()))?.path();
            if path.extension().is_some_and(|extension| extension == "service") {
                units.push(path);
            }
        }
    }
    units.sort();
    Ok(units)
}

/// Lays `units` out below `root`, which it empties first, and returns their names.
fn stage(units: &[PathBuf], root: &Path) -> Result<Vec<String>> {
    if root.is_dir() {
        fs::remove_dir_all(root)?;
    }
    fs::create_dir_all(root.join(UNITS))?;
    let program = root.join(PROGRAM);
    fs::create_dir_all(program.parent().unwrap_or(root))?;
    fs::write(&program, "")?;
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755))?;
    let mut names = Vec::new();
    for unit in units {
        let name = unit.file_name().context("a unit without a name")?.to_string_lossy().into_owned();
        fs::copy(unit, root.join(UNITS).join(&name))?;
        names.push(name);
    }
    Ok(names)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;

    /// A workspace with one unit; none where this host cannot judge units.
    fn workspace_with(unit: &str) -> Option<(tempfile::TempDir, Workspace)> {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("rust-toolchain.toml"), "channel = \"1.95.0\"").unwrap();
        fs::create_dir(folder.path().join("systemd")).unwrap();
        fs::write(folder.path().join("systemd/bailiwick.service"), unit).unwrap();
        fs::write(folder.path().join("systemd/bailiwick.sysusers"), "").unwrap();
        let path = std::env::var_os("PATH").unwrap_or_default();
        let workspace = Workspace::at(folder.path(), Path::new("/usr/bin"), path).unwrap();
        if !workspace.has_program("systemd-analyze") {
            eprintln!("skipped: this host has no systemd-analyze");
            return None;
        }
        Some((folder, workspace))
    }

    #[test]
    fn a_unit_of_a_program_that_is_not_installed_here_passes() {
        let unit = "[Service]\nType=notify\nExecStart=/usr/bin/bailiwick daemon\n";
        let Some((_folder, workspace)) = workspace_with(unit) else { return };
        verification(&workspace).unwrap().unwrap().run_in(&workspace).unwrap();
    }

    #[test]
    fn a_misspelt_key_in_a_unit_fails() {
        let unit = "[Service]\nExecStart=/usr/bin/bailiwick daemon\nProtectSistem=strict\n";
        let Some((_folder, workspace)) = workspace_with(unit) else { return };
        assert!(verification(&workspace).unwrap().unwrap().run_in(&workspace).is_err());
    }

    #[test]
    fn without_units_there_is_nothing_to_verify() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(services(&folder.path().join("systemd")).unwrap(), Vec::<PathBuf>::new());
    }
}
