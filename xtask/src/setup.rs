//! Installs what is missing, and says what, why and about how long it takes.
//!
//! What is missing is found by looking at files and by asking programs for their version, never over the network:
//! when nothing is missing this takes a fraction of a second. A step that this host does not allow (no root, no
//! apt-get, no rustup) stops everything before anything is changed, with the commands to run printed.
//!
//! Refuses: to change the system's configuration, to remove anything, to install a newer version of what is there,
//! unless the project is pinned to it.

mod probe;
mod steps;

use std::{fs, time::Instant};

use anyhow::{Context, Result, bail};
use clap::ValueEnum;

use self::{
    probe::{Host, Probe},
    steps::{Obstacle, Step},
};
use crate::workspace::Workspace;

/// What is set up together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Group {
    /// What building the sensor and the daemon needs
    Build,
    /// What `cargo xtask check` needs besides
    Check,
    /// What the end-to-end tests need besides
    Test,
}

impl Group {
    /// Every group.
    pub(crate) const ALL: [Self; 3] = [Self::Build, Self::Check, Self::Test];
}

/// Makes sure that all that `groups` need is there.
///
/// # Errors
/// When a step fails, or is one that this host does not allow.
pub(crate) fn ensure(workspace: &Workspace, groups: &[Group]) -> Result<()> {
    let host = Host::new(workspace);
    let missing = steps::missing(workspace, groups, &host);
    if missing.is_empty() {
        eprintln!("setup: nothing is missing");
        return Ok(());
    }
    if let Some(advice) = advice(workspace, &missing, &host) {
        eprintln!("{advice}");
        bail!("setup cannot go on by itself: run the commands above, then this again");
    }
    for (index, step) in missing.iter().enumerate() {
        carry_out(workspace, step, &format!("setup {}/{}", index + 1, missing.len()))?;
    }
    verify(workspace, groups, &missing)
}

fn carry_out(workspace: &Workspace, step: &Step, position: &str) -> Result<()> {
    eprintln!("{position}: {} ({})", step.what, step.about);
    for reason in &step.why {
        eprintln!("  {reason}");
    }
    let started = Instant::now();
    for command in &step.commands {
        command.run_in(workspace).with_context(|| format!("setup: {}", step.what))?;
    }
    if let Some(stamp) = &step.stamp {
        fs::write(&stamp.path, &stamp.content).with_context(|| format!("cannot write {}", stamp.path.display()))?;
    }
    eprintln!("{position}: done in {} s", started.elapsed().as_secs());
    Ok(())
}

/// A step may change what another one needs, and an installer may end well without having installed: look again.
fn verify(workspace: &Workspace, groups: &[Group], done: &[Step]) -> Result<()> {
    let left = steps::missing(workspace, groups, &Host::new(workspace));
    if left.is_empty() {
        return Ok(());
    }
    let names: Vec<_> = left.iter().map(|step| step.what.as_str()).collect();
    bail!("setup carried out {} step(s), and yet this is missing: {}", done.len(), names.join(", "));
}

/// The commands of `missing` for the operator to run, when one of them cannot run from here.
fn advice(workspace: &Workspace, missing: &[Step], probe: &dyn Probe) -> Option<String> {
    let obstacles: Vec<_> = missing.iter().map(|step| step.obstacle(probe)).collect();
    obstacles.iter().flatten().next()?;
    let mut lines = vec!["setup: these steps are missing, and not all of them can run from here.".to_owned()];
    lines.push(format!("Run them in {}:", workspace.root().display()));
    for (step, obstacle) in missing.iter().zip(obstacles) {
        lines.push(String::new());
        lines.push(format!("# {} ({})", step.what, step.about));
        lines.extend(step.why.iter().map(|reason| format!("#   {reason}")));
        lines.extend(obstacle.as_ref().map(|obstacle| format!("# {obstacle}")));
        let sudo = if obstacle == Some(Obstacle::NotRoot) { "sudo " } else { "" };
        lines.extend(step.commands.iter().map(|command| format!("{sudo}{command}")));
    }
    Some(lines.join("\n"))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::{probe::fake::FakeHost, *};

    fn steps_on(host: &FakeHost) -> (Workspace, Vec<Step>) {
        let workspace = FakeHost::workspace();
        let missing = steps::missing(&workspace, &Group::ALL, host);
        (workspace, missing)
    }

    #[test]
    fn as_root_on_debian_there_is_nothing_to_advise() {
        let host = FakeHost::bare_debian();
        let (workspace, missing) = steps_on(&host);
        assert!(!missing.is_empty());
        assert_eq!(advice(&workspace, &missing, &host), None);
    }

    #[test]
    fn without_root_every_command_is_printed_and_those_that_need_root_have_sudo() {
        let host = FakeHost::bare_debian().without_root();
        let (workspace, missing) = steps_on(&host);
        let advice = advice(&workspace, &missing, &host).unwrap();
        assert!(advice.contains("\nsudo apt-get update\n"), "{advice}");
        assert!(advice.contains("\nsudo DEBIAN_FRONTEND=noninteractive apt-get install"), "{advice}");
        assert!(advice.contains("\nLLVM_PREFIX=/usr/lib/llvm-22 cargo install"), "{advice}");
    }

    #[test]
    fn without_apt_the_advice_says_so_and_still_names_the_packages() {
        let host = FakeHost::bare_debian().without_program("apt-get");
        let (workspace, missing) = steps_on(&host);
        let advice = advice(&workspace, &missing, &host).unwrap();
        assert!(advice.contains("no apt-get"), "{advice}");
        assert!(advice.contains("llvm-22-dev"), "{advice}");
    }

    #[test]
    fn without_root_what_needs_no_root_is_done_all_the_same() {
        let host = FakeHost::complete().without_root().without_version("cargo-deny");
        let (workspace, missing) = steps_on(&host);
        assert_eq!(missing.len(), 1);
        assert_eq!(advice(&workspace, &missing, &host), None);
    }
}
