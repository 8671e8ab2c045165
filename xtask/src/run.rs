//! Builds the daemon and lets it show this host's agents, with directories of its own below `target/run`.
//!
//! No configuration directory is given: what is embedded in the daemon applies. Whatever `BAILIWICK_*` the caller set
//! is left as it is.

use std::{
    env,
    ffi::{OsStr, OsString},
    fs,
    os::unix::process::CommandExt,
    path::Path,
    process::Stdio,
};

use anyhow::{Context, Error, Result, bail};

use crate::{
    build::{self, Profile},
    invocation::Invocation,
    mounts,
    setup::{self, Group},
    workspace::Workspace,
};

/// Below the bpffs that [`mounts`] sees to, and apart from that of an installed daemon.
const PIN_DIR: &str = "/sys/fs/bpf/bailiwick-run";

/// Becomes `bailiwick live ARGS`: returns only with an error.
///
/// # Errors
/// Without root, and when a step before the start fails.
pub(crate) fn live(workspace: &Workspace, profile: Profile, args: Vec<OsString>) -> Result<()> {
    if !rustix::process::geteuid().is_root() {
        bail!(
            "monitoring a host needs root, since it loads programs into the kernel. Run this:\n  \
             sudo env \"HOME=$HOME\" \"PATH=$PATH\" cargo xtask run"
        );
    }
    setup::ensure(workspace, &[Group::Build])?;
    mounts::ensure(workspace, mounts::FOR_RUN)?;
    let program = build::all(workspace, profile)?;

    let mut live = Invocation::new(program).arg("live").args(args);
    for (variable, value) in defaults(workspace.root(), |name| env::var_os(name)) {
        if variable != "BAILIWICK_PIN_DIR" {
            fs::create_dir_all(&value).with_context(|| format!("cannot create {}", Path::new(&value).display()))?;
        }
        live = live.env(variable, value);
    }
    let mut command = live.command(workspace);
    // The command that it starts is the user's: in their directory, on their terminal, with their toolchain.
    let here = env::current_dir().context("the current directory is gone")?;
    command.stdin(Stdio::inherit()).current_dir(here).env_remove("RUSTUP_TOOLCHAIN");
    Err(Error::new(command.exec()).context(format!("cannot start `{live}`")))
}

/// The directories of this instance that `given` does not name.
fn defaults(root: &Path, given: impl Fn(&str) -> Option<OsString>) -> Vec<(&'static str, OsString)> {
    let run = root.join("target/run");
    [
        ("BAILIWICK_STATE_DIR", run.join("state").into_os_string()),
        ("BAILIWICK_RUNTIME_DIR", run.join("runtime").into_os_string()),
        ("BAILIWICK_PIN_DIR", OsStr::new(PIN_DIR).to_owned()),
    ]
    .into_iter()
    .filter(|(variable, _)| given(variable).is_none_or(|value| value.is_empty()))
    .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_instance_keeps_to_directories_of_its_own() {
        let names = |given: fn(&str) -> Option<OsString>| defaults(Path::new("/w"), given);
        assert_eq!(
            names(|_| None),
            [
                ("BAILIWICK_STATE_DIR", "/w/target/run/state".into()),
                ("BAILIWICK_RUNTIME_DIR", "/w/target/run/runtime".into()),
                ("BAILIWICK_PIN_DIR", PIN_DIR.into()),
            ]
        );
    }

    #[test]
    fn a_directory_that_the_caller_chose_is_kept() {
        let given = |name: &str| (name == "BAILIWICK_STATE_DIR").then(|| "/chosen".into());
        let names: Vec<_> = defaults(Path::new("/w"), given).into_iter().map(|(name, _)| name).collect();
        assert_eq!(names, ["BAILIWICK_RUNTIME_DIR", "BAILIWICK_PIN_DIR"]);
    }
}
