//! Mounts the kernel's own file systems that are missing, and says so.
//!
//! A host with systemd has them all; containers and small images often do not. They stay mounted: others may use them
//! by the time we are done.

use std::fs;

use anyhow::{Context, Result, bail};

use crate::{invocation::Invocation, workspace::Workspace};

/// A file system of the kernel and what it is needed for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct KernelFs {
    kind: &'static str,
    at: &'static str,
    why: &'static str,
}

const BPFFS: KernelFs = KernelFs {
    kind: "bpf",
    at: "/sys/fs/bpf",
    why: "holds the sensor's pinned maps and links while a daemon restarts",
};
const TRACEFS: KernelFs =
    KernelFs { kind: "tracefs", at: "/sys/kernel/tracing", why: "lets tests compare with what the kernel traces" };
const SECURITYFS: KernelFs =
    KernelFs { kind: "securityfs", at: "/sys/kernel/security", why: "names the active LSMs, for the tier in use" };

/// What a running daemon needs.
pub(crate) const FOR_RUN: &[KernelFs] = &[BPFFS, SECURITYFS];
/// What the tests of a live kernel need.
pub(crate) const FOR_TEST: &[KernelFs] = &[BPFFS, TRACEFS, SECURITYFS];

/// Mounts those of `wanted` that are not mounted. Root alone may.
///
/// # Errors
/// When one is missing and we are not root, or mounting fails.
pub(crate) fn ensure(workspace: &Workspace, wanted: &[KernelFs]) -> Result<()> {
    let table = fs::read_to_string("/proc/self/mountinfo").context("cannot read /proc/self/mountinfo")?;
    for missing in wanted.iter().filter(|wanted| !is_mounted(&table, wanted)) {
        let mount = Invocation::new("mount").args(["-t", missing.kind, missing.kind, missing.at]);
        eprintln!("mounts: {} is not mounted at {}; it {}", missing.kind, missing.at, missing.why);
        if !rustix::process::geteuid().is_root() {
            bail!("mounting needs root: run `sudo {mount}`");
        }
        mount.run_in(workspace)?;
    }
    Ok(())
}

/// Whether the mount table (as /proc/self/mountinfo has it) has this file system at its place.
fn is_mounted(table: &str, wanted: &KernelFs) -> bool {
    table.lines().any(|line| {
        let Some((place, source)) = line.split_once(" - ") else { return false };
        place.split(' ').nth(4) == Some(wanted.at) && source.split(' ').next() == Some(wanted.kind)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &str = "\
        24 1 0:22 / /sys rw,nosuid shared:7 - sysfs sysfs rw\n\
        31 24 0:27 / /sys/fs/bpf rw,nosuid shared:11 - bpf bpf rw,mode=700\n\
        36 24 0:12 / /sys/kernel/tracing rw - tmpfs none rw\n";

    #[test]
    fn a_mounted_file_system_is_found_with_any_number_of_optional_fields() {
        assert!(is_mounted(TABLE, &BPFFS));
        assert!(is_mounted("31 24 0:27 / /sys/fs/bpf rw - bpf bpf rw", &BPFFS));
    }

    #[test]
    fn a_file_system_that_is_absent_or_covered_by_another_kind_is_missing() {
        assert!(!is_mounted(TABLE, &SECURITYFS));
        assert!(!is_mounted(TABLE, &TRACEFS));
        assert!(!is_mounted("", &BPFFS));
    }
}
