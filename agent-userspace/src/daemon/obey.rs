//! What the pipeline does when it is asked: run, sync, reload; and what it tells the kernel side of the declarations.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::AsFd;
use std::path::Path;
use std::sync::Arc;

use agent_common::maps::{Member, RECOGNISE_DECIDED, RECOGNISE_PROVISIONAL, Recognition};
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use tracing::warn;

use super::clock::boot_ns;
use super::command::Command;
use super::drafts::Compose;
use super::files::kernel_id;
use super::judged::judge_again;
use super::pipeline::Pipeline;
use super::places::DeniedFiles;
use crate::config::kernel_selectors::kernel_selectors;
use crate::config::{Config, ThisHost};
use crate::control::{Peer, RunRefused};
use crate::decode::ProcessKey;
use crate::entry::{Draft, SessionId};
use crate::sensor::{SensorError, new_session};

impl Pipeline {
    /// Does what was asked, and answers. Who has gone in the meantime needs no answer.
    pub(super) fn obey(&mut self, command: Command) {
        match command {
            Command::Run { agent, child_tgid, peer_uid, reply } => {
                let answer = self.begin_run(&agent, child_tgid, peer_uid);
                self.write();
                let _ = reply.send(answer);
            }
            Command::Sync { reply } => {
                self.settle();
                let answer = if self.write_now() {
                    self.trail.sync().map_err(|error| error.to_string())
                } else {
                    Err(self.trail_problem())
                };
                let _ = reply.send(answer);
            }
            Command::Reload { config, peer, reply } => {
                let answer = self.take_config(config, peer).map_err(|error| error.to_string());
                self.write();
                let _ = reply.send(answer);
            }
            Command::Members { reply } => {
                let _ = reply.send(self.members());
            }
            Command::Undeclared { item } => self.find_undeclared(&item),
            Command::Changed { session, change, whose, cause } => self.find_changed(session, &change, *whose, cause),
            Command::Review { done, peer, reply } => {
                let _ = reply.send(self.record_review(&done, peer));
            }
            Command::ReviewOverdue { overdue } => self.find_review_overdue(&overdue),
            Command::Prune { acknowledged } => self.prune(acknowledged),
            Command::Stop => {}
        }
    }

    pub(super) fn trail_problem(&self) -> String {
        self.view.lock().problems.get("trail").cloned().unwrap_or_else(|| "the trail cannot be written".to_owned())
    }

    /// Makes a held child the first process of a session.
    fn begin_run(&mut self, agent: &str, child_tgid: u32, peer_uid: u32) -> Result<SessionId, RunRefused> {
        if self.config.declaration(agent).is_none() {
            let known = self.config.declarations.iter().map(|known| known.name().to_owned()).collect();
            return Err(RunRefused::UnknownAgent { agent: agent.to_owned(), known });
        }
        let not_watching = |error: &dyn std::error::Error| RunRefused::NotWatching(error.to_string());
        self.arm().map_err(|error| not_watching(&error))?;
        let id = new_session().map_err(|error| not_watching(&error))?;
        let member = Member { session: id, agent: self.attributor.wire_agent(agent), ..Member::default() };
        let (root, before) = self.enlist(child_tgid, &member).map_err(|error| not_watching(&error))?;
        // What the child's maker did up to now belongs before this session's start.
        let from = before.and_then(|before| self.attributor.resolve(before.session)).unwrap_or(0);
        let time = self.clock.wall(boot_ns());
        let process = self.attributor.process(root).cloned();
        self.attributor.open_run(id, agent, root, from, peer_uid, time);
        if let Some(session) = self.attributor.session(id) {
            let mut compose = Compose::of(&self.attributor, session, root, root.tgid, time, "session.start");
            compose.draft.count = 0;
            compose.image(self.attributor.process(root));
            let draft = compose.draft;
            self.push(id, draft);
        }
        if from != 0 {
            self.announce_delegation(id, root, time, process.as_ref());
        }
        self.live_sessions.note(self.attributor.sessions());
        Ok(SessionId(id))
    }

    /// Sets the membership of a process that has one thread and waits. Returns it and what it was a member of.
    fn enlist(&mut self, tgid: u32, member: &Member) -> io::Result<(ProcessKey, Option<Member>)> {
        let pid = i32::try_from(tgid).ok().and_then(Pid::from_raw).ok_or(io::ErrorKind::InvalidInput)?;
        let pidfd = pidfd_open(pid, PidfdFlags::empty())?;
        let before = self.sensor.member(pidfd.as_fd())?;
        self.sensor.set_member(pidfd.as_fd(), member)?;
        let start_boot_ns = self.sensor.start_of(tgid).map_err(io::Error::other)?;
        Ok((ProcessKey { tgid, start_boot_ns }, before))
    }

    /// Puts a configuration into force.
    ///
    /// Folded keys are flushed before: what they count from now on is judged by another scope.
    fn take_config(&mut self, config: Arc<Config>, peer: Option<Peer>) -> Result<(), SensorError> {
        self.settle();
        let before = std::mem::replace(&mut self.config, Arc::clone(&config));
        self.attributor.set_config(Arc::clone(&config));
        self.redactor.set(config.settings.redact.clone());
        self.view.lock().config = Arc::clone(&config);
        self.tell_selectors()?;
        let mut draft = Draft::of_host(self.clock.wall(boot_ns()), "config.change");
        draft.principal = peer.map(|peer| self.attributor.asker(peer.tgid, peer.uid));
        draft.attributes.insert("bailiwick.config.hash".to_owned(), config.hash.clone().into());
        draft.attributes.insert("bailiwick.config.hash_before".to_owned(), before.hash.clone().into());
        self.drafts.push(draft);
        self.folding.judge_again(|draft| {
            judge_again(draft, &config);
        });
        Ok(())
    }

    /// Tells the kernel side what it can recognise by itself, and the gate what to hold.
    pub(super) fn tell_selectors(&mut self) -> Result<(), SensorError> {
        self.denied = DeniedFiles::of(&self.config);
        let selectors = kernel_selectors(&self.config.declarations, &ThisHost);
        let mut executables: BTreeMap<(u32, u64), Recognition> = BTreeMap::new();
        for path in &selectors.provisional_executables {
            note(&mut executables, path, Recognition { agent: 0, how: RECOGNISE_PROVISIONAL });
        }
        for deciding in &selectors.executables {
            let Some(declaration) = self.config.declarations.get(deciding.agent) else { continue };
            let agent = self.attributor.wire_agent(declaration.name());
            note(&mut executables, &deciding.path, Recognition { agent, how: RECOGNISE_DECIDED });
        }
        let provisional = Recognition { agent: 0, how: RECOGNISE_PROVISIONAL };
        let users = selectors.provisional_uids.iter().map(|&uid| (uid, provisional)).collect();
        self.sensor.set_recognition(&executables, &users, selectors.all_execs_provisional())?;
        self.gate.set_targets(selectors.gate_targets);
        Ok(())
    }
}

/// Notes the file that a path leads to. Where it is noted already, the daemon decides.
fn note(executables: &mut BTreeMap<(u32, u64), Recognition>, path: &Path, recognition: Recognition) {
    match kernel_id(path) {
        Ok(id) => {
            executables
                .entry(id)
                .and_modify(|known| *known = Recognition { agent: 0, how: RECOGNISE_PROVISIONAL })
                .or_insert(recognition);
        }
        Err(error) => warn!(path = %path.display(), %error, "it is recognised when it is there and the daemon reloads"),
    }
}
