//! An operator's word that an agent was reviewed, as an entry of the trail.

use serde_json::Value;

use super::clock::boot_ns;
use super::pipeline::Pipeline;
use crate::control::protocol::ReviewDone;
use crate::control::{CoreError, Peer};
use crate::entry::Draft;
use crate::review::agent::DECISION;

impl Pipeline {
    /// Records who reviewed what. Returns the uid of the entry, which is durable then.
    pub(super) fn record_review(&mut self, done: &ReviewDone, peer: Peer) -> Result<String, CoreError> {
        let Some(declared) = self.config.declared_in.get(&done.agent) else {
            return Err(CoreError::BadInput(format!("no agent '{}' is declared", done.agent)));
        };
        if done.declaration_sha256.as_deref().is_some_and(|sha256| sha256 != declared.sha256) {
            return Err(CoreError::BadInput(format!(
                "what was reviewed is not the declaration in force: {} was changed since; `bailiwick reload`, then review again",
                declared.file
            )));
        }
        let mut draft = Draft::of_host(self.clock.wall(boot_ns()), DECISION);
        draft.agent = Some(done.agent.clone());
        draft.principal = Some(self.attributor.asker(peer.tgid, peer.uid));
        let mut set = |name: &str, value: Value| draft.attributes.insert(format!("bailiwick.review.{name}"), value);
        for (name, time) in [("from", done.from), ("to", done.to)] {
            if let Some(time) = time {
                set(name, time.to_string().into());
            }
        }
        let counts = [
            ("sessions", done.sessions),
            ("entries", done.entries),
            ("lost", done.lost),
            ("gaps", done.gaps),
            ("granted_unused", done.granted_unused),
            ("used_not_granted", done.used_not_granted),
            ("findings", done.findings),
        ];
        for (name, count) in counts {
            set(name, count.into());
        }
        set("declaration_sha256", declared.sha256.clone().into());
        let seq = self.push(0, draft);
        let uid = self.uid(seq);
        if !self.write() {
            return Err(CoreError::Trail(self.trail_problem()));
        }
        self.trail.sync().map_err(|error| CoreError::Trail(error.to_string()))?;
        Ok(uid)
    }
}
