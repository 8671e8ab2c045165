//! What a session did after it read a credential: where it connected to, and which handles it goes on to use.
//!
//! Input: the entries of sessions, in the order of the trail. Output: what follows from two of them ([`After`]). Pure. Bounded
//! by [`MOST_READS`] and [`MOST_HANDLES`] of a session: of more reads the latest are remembered, of more handles the first.

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;

use super::table::{CredentialTable, Use};
use crate::entry::{Draft, Timestamp, Verdict};
use crate::scope::recorded::{address, text};

/// The credentials of a session that are remembered as read.
pub const MOST_READS: usize = 64;
/// The open files of a session that are remembered as credentials.
pub const MOST_HANDLES: usize = 256;
/// The programs of a session that are told of as having a credential in their environment.
pub const MOST_TOLD: usize = 1_024;
/// How soon after a read something is right after it.
pub const RIGHT_AFTER_NS: u64 = 60 * 1_000_000_000;

/// A credential that a session read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Read {
    /// Which, and how.
    pub used: Use,
    /// What it is called.
    pub name: String,
    /// When it was read last.
    pub time: Timestamp,
    /// The entry of that.
    pub uid: String,
}

/// What followed a read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum After {
    /// A connection out of scope: to where.
    WentOut(String),
    /// Another host, or a place where administration happens: to where.
    Moved(String),
}

/// What is remembered of a session.
#[derive(Debug, Default)]
struct Session {
    reads: Vec<Read>,
    handles: HashMap<(u32, u64), Use>,
    told: HashSet<(u32, String)>,
}

/// What is remembered of all sessions that live.
#[derive(Debug, Default)]
pub struct Watch {
    sessions: HashMap<u64, Session>,
}

impl Watch {
    /// Notes that a session read a credential.
    pub fn note(&mut self, session: u64, read: Read, handle: Option<(u32, u64)>) {
        let known = self.sessions.entry(session).or_default();
        if let Some(handle) = handle
            && known.handles.len() < MOST_HANDLES
        {
            known.handles.insert(handle, read.used.clone());
        }
        known.reads.retain(|before| before.used.place != read.used.place || before.used.means != read.used.means);
        if known.reads.len() >= MOST_READS {
            known.reads.remove(0);
        }
        known.reads.push(read);
    }

    /// Whether a credential in the environment of this program was not told of in the session yet.
    pub fn is_untold(&mut self, session: u64, used: &Use, draft: &Draft) -> bool {
        let program = draft.process.as_ref().and_then(|process| process.executable.clone()).unwrap_or_default();
        let told = &mut self.sessions.entry(session).or_default().told;
        told.len() < MOST_TOLD && told.insert((used.number, program))
    }

    /// Which credential an open file is, by device and inode.
    pub fn handle(&self, session: u64, file: (u32, u64)) -> Option<&Use> {
        self.sessions.get(&session)?.handles.get(&file)
    }

    /// What an entry of a session means after what it read, with the latest read that it follows.
    pub fn after(&self, session: u64, draft: &Draft, table: &CredentialTable) -> Vec<(After, &Read)> {
        if !matches!(draft.event.as_str(), "network.connect" | "network.send") {
            return Vec::new();
        }
        let Some(reads) = self.sessions.get(&session).map(|session| &session.reads) else { return Vec::new() };
        // A read and a connection of the same moment are in the order of the trail.
        let Some(latest) = reads.last() else { return Vec::new() };
        let Some(to) = address(draft, "server") else { return Vec::new() };
        let is_outside = matches!(draft.verdict, Verdict::OutOfScope | Verdict::Denied);
        let mut after = Vec::new();
        if is_outside {
            after.push((After::WentOut(to.to_string()), latest));
        }
        let is_soon = draft.time.0.saturating_sub(latest.time.0) <= RIGHT_AFTER_NS;
        let is_admins = table.is_admin(draft) && (draft.verdict != Verdict::InScope || !latest.used.is_declared);
        let is_another =
            is_outside && is_near(to.ip()) && text(draft, "network.local.address") != text(draft, "server.address");
        if is_soon && (is_admins || is_another) {
            after.push((After::Moved(to.to_string()), latest));
        }
        after
    }

    /// Whether a session read any.
    pub fn knows(&self, session: u64) -> bool {
        self.sessions.contains_key(&session)
    }

    /// A session has ended.
    pub fn forget(&mut self, session: u64) {
        self.sessions.remove(&session);
    }
}

/// Whether an address is another host's of a network of one's own.
fn is_near(address: IpAddr) -> bool {
    match address.to_canonical() {
        IpAddr::V4(v4) => v4.is_private() || v4.is_link_local(),
        IpAddr::V6(v6) => v6.is_unique_local() || v6.is_unicast_link_local(),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use serde_json::json;

    use super::*;
    use crate::config::Config;
    use crate::credential::table::Means;

    fn read(number: usize, seconds: u64, is_declared: bool) -> Read {
        let used = Use { number: 0, means: Means::File, place: format!("/k{number}"), is_declared };
        Read { used, name: "k".to_owned(), time: Timestamp(seconds * 1_000_000_000), uid: format!("t-{number}") }
    }

    fn connected(address: &str, port: u16, seconds: u64, verdict: Verdict) -> Draft {
        let mut draft = Draft::of_host(Timestamp(seconds * 1_000_000_000), "network.connect");
        draft.attributes = json!({"server.address": address, "server.port": port}).as_object().unwrap().clone();
        draft.verdict = verdict;
        draft
    }

    fn after(is_declared: bool, draft: &Draft) -> Vec<After> {
        let mut watch = Watch::default();
        watch.note(1, read(0, 100, is_declared), None);
        let table = &Config::load(None).unwrap().credentials;
        assert!(watch.after(2, draft, table).is_empty(), "another session's read");
        watch.after(1, draft, table).into_iter().map(|(after, _)| after).collect()
    }

    #[test]
    fn only_what_is_out_of_scope_after_a_read_went_out() {
        let to = |to: &str| vec![After::WentOut(to.to_owned())];
        assert_eq!(after(true, &connected("9.9.9.9", 443, 9_000, Verdict::OutOfScope)), to("9.9.9.9:443"));
        assert!(after(true, &connected("9.9.9.9", 443, 101, Verdict::InScope)).is_empty());
        assert!(after(true, &connected("9.9.9.9", 443, 101, Verdict::None)).is_empty());
    }

    #[test]
    fn an_admins_port_or_a_near_host_is_movement_right_after_a_read_alone() {
        let moved = |draft: &Draft, is_declared| {
            after(is_declared, draft).into_iter().any(|after| matches!(after, After::Moved(_)))
        };
        assert!(moved(&connected("127.0.0.1", 22, 101, Verdict::None), true));
        assert!(moved(&connected("10.0.0.9", 22, 101, Verdict::InScope), false), "with a key that is not its own");
        assert!(!moved(&connected("10.0.0.9", 22, 101, Verdict::InScope), true), "with its own, where it may");
        assert!(!moved(&connected("10.0.0.9", 22, 200, Verdict::None), true), "much later");
        assert!(moved(&connected("10.0.0.9", 8080, 101, Verdict::OutOfScope), true));
        assert!(!moved(&connected("9.9.9.9", 8080, 101, Verdict::OutOfScope), true));
        let mut own = connected("10.0.0.9", 8080, 101, Verdict::OutOfScope);
        own.attributes.insert("network.local.address".to_owned(), "10.0.0.9".into());
        assert!(!moved(&own, true), "this host itself");
    }

    #[test]
    fn a_session_that_reads_without_end_is_bounded() {
        let mut watch = Watch::default();
        (0..1_000).for_each(|number| watch.note(1, read(number, 1, true), Some((1, number as u64))));
        let session = watch.sessions.get(&1).unwrap();
        assert_eq!((session.reads.len(), session.handles.len()), (MOST_READS, MOST_HANDLES));
        watch.forget(1);
        assert!(!watch.knows(1));
    }
}
