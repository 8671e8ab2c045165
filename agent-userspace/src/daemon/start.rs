//! What happens before the pipeline turns for the first time: what the daemon before left is settled, what runs is found.

use std::collections::BTreeMap;

use agent_common::maps::Member;
use tracing::{info, warn};

use super::account::end_of_abandoned;
use super::clock::boot_ns;
use super::drafts::{Compose, gap, uncounted_gap};
use super::pipeline::Pipeline;
use crate::decode::{Action, ProcessKey};
use crate::entry::{Draft, SessionId, Timestamp};
use crate::observation::{OBSERVATIONS, blind_spots};
use crate::sensor::{SensorError, new_session};
use crate::trail::Recovered;

/// Adopting is repeated until a pass adds nothing; a host that forks faster than this many passes is not caught up with.
const MOST_PASSES: u32 = 64;

/// What the trail said when it was opened.
pub(super) struct Before {
    /// A torn end that was cut off.
    pub(super) recovered: Option<Recovered>,
    /// When its last entry was, if there is one.
    pub(super) last_entry: Option<Timestamp>,
}

impl Pipeline {
    /// Attaches recognition, finds what runs, and tells of all that in the trail.
    pub(super) fn begin(&mut self, before: Before) -> Result<(), SensorError> {
        self.tell_of_before(before);
        self.measure_programs();
        self.look_at_files();
        self.sensor.attach_recognition()?;
        self.tell_of_start();
        // While the kernel side recognises nobody: else the child that checks could be taken for an agent.
        self.check_hooks()?;
        self.sensor.set_adopting(true)?;
        self.tell_selectors()?;
        let adopted = self.adopt();
        self.sensor.set_adopting(false)?;
        adopted?;
        if self.config.settings.sensor.idle == crate::config::settings::Idle::Armed {
            self.arm()?;
        }
        self.write();
        self.view.lock().ready = true;
        self.publish_figures();
        Ok(())
    }

    fn tell_of_before(&mut self, before: Before) {
        let now = Timestamp::now();
        if let Some(recovered) = before.recovered {
            let mut draft = Draft::of_host(now, "trail.recovered");
            draft.attributes.insert("bailiwick.trail.bytes".to_owned(), recovered.bytes.into());
            let kept_in = recovered.kept_in.display().to_string();
            draft.attributes.insert("bailiwick.trail.kept_in".to_owned(), kept_in.into());
            self.drafts.push(draft);
        }
        for session in self.live_sessions.abandoned() {
            self.drafts.push(end_of_abandoned(&session, now));
        }
        if let Some(last) = before.last_entry {
            self.drafts.push(gap(uncounted_gap(None, last, now, "no daemon was running"), None));
        }
        self.live_sessions.note(std::iter::empty());
    }

    fn tell_of_start(&mut self) {
        let now = self.clock.wall(boot_ns());
        let hooks: Vec<&str> = OBSERVATIONS.iter().map(|observation| observation.hook).collect();
        let mut start = Draft::of_host(now, "sensor.start");
        start.attributes.insert("bailiwick.sensor.tier".to_owned(), 2.into());
        start.attributes.insert("bailiwick.sensor.blind_spots".to_owned(), blind_spots().into());
        start.attributes.insert("bailiwick.sensor.hooks".to_owned(), hooks.into());
        start.attributes.insert("bailiwick.config.hash".to_owned(), self.config.hash.clone().into());
        self.drafts.push(start);
    }

    /// Finds what runs already: agents become sessions, with all that descends from them.
    fn adopt(&mut self) -> Result<(), SensorError> {
        let now = self.clock.wall(boot_ns());
        let rows = self.sensor.tasks()?;
        let mut failed = None;
        let found = self.attributor.adopt_running(&rows, std::process::id(), now, || {
            new_session().unwrap_or_else(|error| {
                failed = Some(error);
                0
            })
        });
        if let Some(error) = failed {
            return Err(error);
        }
        if found.is_empty() {
            return Ok(());
        }
        info!(sessions = found.len(), "agents run already");
        let mut members: BTreeMap<u32, Member> = BTreeMap::new();
        for &(id, root) in &found {
            let Some(agent) = self.attributor.session(id).map(|session| session.agent.clone()) else { continue };
            let agent = self.attributor.wire_agent(&agent);
            members.insert(root.tgid, Member { session: id, agent, ..Member::default() });
        }
        self.adopt_until_nothing_is_added(members)?;
        self.arm()?;
        let rows = self.sensor.tasks()?;
        self.attributor.reconcile(&rows, boot_ns());
        let sessions: Vec<u64> = found.iter().map(|&(id, _)| id).collect();
        for &(id, root) in &found {
            self.announce_adopted(id, root, now);
        }
        self.add_found_open(&sessions);
        self.live_sessions.note(self.attributor.sessions());
        Ok(())
    }

    /// A child that was forked before its parent was adopted slips through when its number is a lower one, or its parent
    /// has gone: the fork hook tells of every fork meanwhile.
    fn adopt_until_nothing_is_added(&mut self, mut members: BTreeMap<u32, Member>) -> Result<(), SensorError> {
        for _ in 0..MOST_PASSES {
            let added = self.sensor.adopt(&members)?;
            members = self.orphans()?;
            if added == 0 && members.is_empty() {
                return Ok(());
            }
        }
        warn!("processes are made faster than they can be adopted; some may not be in their session");
        Ok(())
    }

    /// Children, by the fork hook's word, of members, that are none themselves.
    fn orphans(&mut self) -> Result<BTreeMap<u32, Member>, SensorError> {
        let (batch, _) = self.sensor.drain(boot_ns(), usize::MAX);
        let rows = self.sensor.tasks()?;
        let member_of = |key: ProcessKey| {
            rows.iter().find(|row| row.session != 0 && row.tgid == key.tgid && row.start_boot_ns == key.start_boot_ns)
        };
        let outside = |key: ProcessKey| {
            rows.iter().any(|row| row.session == 0 && row.tgid == key.tgid && row.start_boot_ns == key.start_boot_ns)
        };
        let mut orphans = BTreeMap::new();
        for event in &batch.events {
            let Action::Fork(fork) = &event.action else { continue };
            if let Some(parent) = member_of(event.head.process)
                && outside(fork.child)
            {
                let agent = self.attributor.resolve(parent.session).and_then(|id| self.attributor.session(id));
                let agent = agent.map(|session| session.agent.clone());
                let agent = agent.map_or(0, |agent| self.attributor.wire_agent(&agent));
                orphans.insert(fork.child.tgid, Member { session: parent.session, agent, ..Member::default() });
            }
        }
        Ok(orphans)
    }

    fn announce_adopted(&mut self, id: u64, root: ProcessKey, now: Timestamp) {
        let Some(session) = self.attributor.session(id) else { return };
        let mut compose = Compose::of(&self.attributor, session, root, root.tgid, now, "session.start");
        compose.draft.count = 0;
        compose.set("bailiwick.session.adopted", true);
        compose.image(self.attributor.process(root));
        let (draft, delegated, session_id) = (compose.draft, !session.delegation.is_empty(), SessionId(id));
        let agent = session.agent.clone();
        let seq = self.push(id, draft.clone());
        self.look_at_files_of(id, &draft, seq, None);
        if delegated {
            self.announce_delegation(id, root, now, None);
        }
        let since = self.clock.wall(root.start_boot_ns);
        let reason = "it ran before the daemon did";
        self.push(id, gap(uncounted_gap(Some(session_id), since, now, reason), Some(&agent)));
    }
}
