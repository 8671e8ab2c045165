//! Which agent a process is: facts gathered from an exec and from `/proc`, matched against the declarations.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use agent_common::maps::TaskRow;
use sha2::{Digest, Sha256};

use super::principal::{lineage, principal, user_name};
use super::procfs::ProcFs;
use super::{Attributor, Opening, Recognition};
use crate::config::recognise::{Facts, Lookups, recognise, script_argument};
use crate::decode::{Exec, ProcessKey, Text};
use crate::entry::{Attribution, Principal, Timestamp};

/// What only costs when a declaration asks for it.
struct Asked<'a> {
    proc: &'a ProcFs,
    tgid: u32,
    /// The exec's own, where there is one: a process may have ended by now.
    environment: &'a [Text],
}

impl Lookups for Asked<'_> {
    fn sha256(&self) -> Option<[u8; 32]> {
        const CHUNK: usize = 1 << 16;
        let mut file = File::open(self.proc.image(self.tgid)).ok()?;
        let (mut hash, mut chunk) = (Sha256::new(), vec![0; CHUNK]);
        loop {
            match file.read(&mut chunk).ok()? {
                0 => return Some(hash.finalize().into()),
                read => hash.update(chunk.get(..read)?),
            }
        }
    }

    fn environment(&self, key: &str) -> Option<Vec<u8>> {
        let value = |variable: &[u8]| variable.strip_prefix(key.as_bytes())?.strip_prefix(b"=").map(<[u8]>::to_vec);
        let of_exec = self.environment.iter().find_map(|variable| value(&variable.bytes));
        of_exec.or_else(|| self.proc.environment(self.tgid).iter().find_map(|variable| value(variable)))
    }

    fn canonicalize(&self, path: &Path) -> Option<PathBuf> {
        path.canonicalize().ok()
    }
}

impl Attributor {
    /// The agent that a process is that runs already, if any.
    pub fn recognise_running(&self, tgid: u32) -> Option<Recognition> {
        self.recognise_exec(tgid, &self.exec_from_proc(tgid, 0, 0))
    }

    /// The script that a process that runs already names to its interpreter.
    pub fn script_of_running(&self, tgid: u32) -> Option<Vec<u8>> {
        script_of(&self.exec_from_proc(tgid, 0, 0), true)
    }

    /// The agent that an exec makes a process, if any.
    pub(super) fn recognise_exec(&self, tgid: u32, exec: &Exec) -> Option<Recognition> {
        let script = exec.interpreted.then(|| absolute(&exec.directory.bytes, &exec.given.bytes));
        let cgroups = self.proc.cgroups(tgid);
        let lookups = Asked { proc: &self.proc, tgid, environment: &exec.environment };
        let facts = |cgroup: Option<&'_ str>| {
            let facts = Facts {
                executable: Some(&exec.path.bytes),
                // By path alone: the kernel's number of a device is not always the one that `stat` gives.
                identity: None,
                script: script.as_deref(),
                argv: &exec.arguments,
                working_directory: Some(&exec.directory.bytes),
                uid: exec.euid,
                cgroup: cgroup.map(str::as_bytes),
                lookups: &lookups,
            };
            recognise(&self.config.declarations, &facts)
        };
        // A process stands in one control group of each hierarchy: any may be the one that was declared.
        let found = cgroups.iter().find_map(|cgroup| facts(Some(cgroup))).or_else(|| facts(None))?;
        let agent = self.config.declarations.get(found.agent)?.name().to_owned();
        Some(Recognition { agent, attribution: Attribution { method: found.method, confidence: found.confidence } })
    }

    /// An exec as it may have been, of a process that runs already.
    pub(super) fn exec_from_proc(&self, tgid: u32, session_before: u64, agent: u32) -> Exec {
        let text = |bytes: Option<Vec<u8>>| Text { bytes: bytes.unwrap_or_default(), cut: false };
        let identity = self.proc.identity(tgid).unwrap_or_default();
        let arguments = self.proc.arguments(tgid);
        Exec {
            session_before,
            path: text(self.proc.executable(tgid)),
            given: text(self.proc.executable(tgid)),
            directory: text(self.proc.directory(tgid)),
            arguments,
            agent: agent.checked_sub(1).map(|index| index as usize),
            parent_tgid: identity.parent_tgid,
            uid: identity.uid,
            euid: identity.euid,
            login_uid: self.proc.login_uid(tgid),
            ..Exec::default()
        }
    }

    /// Opens a session for each agent among what runs already, and tells its first process and the session it lies in.
    /// Parents come before children, so that what an agent started stays in its session.
    pub fn adopt_running(
        &mut self,
        rows: &[TaskRow],
        own_tgid: u32,
        now: Timestamp,
        mut new_session: impl FnMut() -> u64,
    ) -> Vec<(u64, ProcessKey)> {
        let mut leaders: Vec<&TaskRow> = rows
            .iter()
            .filter(|row| row.tid == row.tgid && row.kernel_thread == 0 && row.tgid != own_tgid && row.session == 0)
            .collect();
        leaders.sort_by_key(|row| row.start_boot_ns);
        let mut inside: std::collections::HashMap<u32, u64> = std::collections::HashMap::new();
        let mut opened = Vec::new();
        for row in leaders {
            let from = inside.get(&row.parent_tgid).copied().unwrap_or(0);
            let exec = self.exec_from_proc(row.tgid, from, 0);
            let found = self.recognise_exec(row.tgid, &exec).filter(|found| self.may_open(from, found));
            let root = ProcessKey { tgid: row.tgid, start_boot_ns: row.start_boot_ns };
            if let Some(recognition) = found {
                let id = new_session();
                let lineage = lineage(&self.proc, row.tgid, exec.uid, exec.login_uid, None);
                self.open(Opening { id, from, root, recognition, lineage, started: now });
                self.join_process(root, id, None);
                inside.insert(row.tgid, id);
                opened.push((id, root));
            } else if from != 0 {
                inside.insert(row.tgid, from);
            }
        }
        opened
    }

    /// Who asks the daemon for something, by the process that does, where it can be seen.
    pub fn asker(&self, tgid: Option<u32>, uid: u32) -> Principal {
        match tgid {
            Some(tgid) => principal(&self.proc, tgid, uid, self.proc.login_uid(tgid), None),
            None => Principal { uid, user: user_name(uid), ..Principal::default() },
        }
    }
}

/// The script that an exec runs by its `#!`, or, where it is known to run one, that it names to its interpreter.
pub fn script_of(exec: &Exec, runs_one: bool) -> Option<Vec<u8>> {
    if exec.interpreted {
        return Some(absolute(&exec.directory.bytes, &exec.given.bytes));
    }
    let named = runs_one.then(|| script_argument(&exec.arguments)).flatten()?;
    Some(absolute(&exec.directory.bytes, named))
}

fn absolute(directory: &[u8], path: &[u8]) -> Vec<u8> {
    if path.starts_with(b"/") {
        return path.to_vec();
    }
    [directory, b"/", path.strip_prefix(b"./").unwrap_or(path)].concat()
}
