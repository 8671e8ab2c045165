//! Chains of delegations out of the trail: who acted for whom, and what was done at each link.
//!
//! Inputs: entries in the order of the trail. Outputs: a [`LinkItem`] for each session of the tree that a session belongs to:
//! those that it acts for, itself, and all that act for it. Pure. Refuses: to hold more than [`MAX_LINKS`] links, and of what
//! was done at one more than [`MAX_TOLD`] things of a kind; the counts are of all.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use serde_json::Value;

use super::core::Found;
use super::protocol::RemoteError;
use super::report::LinkItem;
use super::sessions::{Tally, session_of};
use super::show::Candidates;
use crate::entry::{Delegator, Draft, Entry, SessionId};
use crate::resource::named_in;

/// Links of a tree that are told.
const MAX_LINKS: usize = 1_000;
/// Things of one kind that are told of a link.
const MAX_TOLD: usize = 16;

/// Finds the session that is meant, and whom it acts for.
#[derive(Debug)]
pub(super) struct Asked {
    candidates: Candidates,
    delegations: HashMap<SessionId, Vec<Delegator>>,
}

impl Asked {
    pub(super) fn beginning(prefix: &str) -> Result<Self, RemoteError> {
        Ok(Self { candidates: Candidates::beginning(prefix)?, delegations: HashMap::new() })
    }

    pub(super) fn add(&mut self, found: &Found) {
        let Some(session) = self.candidates.add(found) else { return };
        let delegation = match found {
            Found::Entry(entry) | Found::Counted(entry) => &entry.draft.delegation,
            Found::Sums { tally, .. } => &tally.item().delegation,
        };
        if !delegation.is_empty() {
            self.delegations.entry(session).or_insert_with(|| delegation.clone());
        }
    }

    /// The tree of the one session that was meant.
    pub(super) fn tree(mut self) -> Result<Tree, RemoteError> {
        let session = self.candidates.only()?;
        let above = self.delegations.remove(&session).unwrap_or_default();
        Ok(Tree {
            session,
            above: above.iter().map(|link| link.session).collect(),
            links: Vec::new(),
            places: HashMap::new(),
        })
    }
}

/// The links of a tree so far, each at the place where it was met: after the one that it acts for.
#[derive(Debug)]
pub(super) struct Tree {
    session: SessionId,
    above: Vec<SessionId>,
    links: Vec<Link>,
    places: HashMap<SessionId, usize>,
}

#[derive(Debug)]
struct Link {
    tally: Tally,
    command: Option<Vec<String>>,
    actions: BTreeMap<String, u64>,
    told: BTreeMap<&'static str, BTreeSet<String>>,
}

impl Tree {
    /// Takes note of an entry; sums of entries say too little.
    pub(super) fn add(&mut self, found: &Found) {
        let (Found::Entry(entry) | Found::Counted(entry)) = found else { return };
        let Some(session) = session_of(entry) else { return };
        let known = self.places.get(&session).copied();
        let is_of_it = || {
            session == self.session
                || self.above.contains(&session)
                || entry.draft.delegation.iter().any(|link| link.session == self.session)
        };
        if known.is_none() && (self.links.len() >= MAX_LINKS || !is_of_it()) {
            return;
        }
        let place = known.unwrap_or_else(|| {
            self.links.push(Link::of(session));
            self.places.insert(session, self.links.len() - 1);
            self.links.len() - 1
        });
        if let Some(link) = self.links.get_mut(place) {
            link.add(entry);
        }
    }

    /// The links: each after the one that it acts for, and before those that came later.
    pub(super) fn finish(self, live: &HashSet<SessionId>) -> Vec<LinkItem> {
        let asked = self.session;
        let mut below: HashMap<Option<SessionId>, Vec<LinkItem>> = HashMap::new();
        let known: HashSet<SessionId> = self.places.keys().copied().collect();
        for link in self.links {
            let item = link.finish(asked, live);
            // One whose delegator stands in the trail no more is told as the first of its own.
            let by = item.session.delegation.last().map(|by| by.session).filter(|by| known.contains(by));
            below.entry(by).or_default().push(item);
        }
        let mut waiting: Vec<LinkItem> = below.remove(&None).unwrap_or_default();
        waiting.reverse();
        let mut links = Vec::new();
        while let Some(link) = waiting.pop() {
            let delegates = below.remove(&Some(link.session.session)).unwrap_or_default();
            waiting.extend(delegates.into_iter().rev());
            links.push(link);
        }
        links
    }
}

impl Link {
    fn of(session: SessionId) -> Self {
        Self { tally: Tally::of(session), command: None, actions: BTreeMap::new(), told: BTreeMap::new() }
    }

    fn add(&mut self, entry: &Entry) {
        self.tally.add(entry);
        let draft = &entry.draft;
        if draft.event == "session.start" {
            let words = draft.attributes.get("process.command_args").and_then(Value::as_array);
            self.command = words.map(|words| words.iter().filter_map(Value::as_str).map(str::to_owned).collect());
        }
        if draft.count > 0 {
            *self.actions.entry(draft.event.clone()).or_default() += draft.count;
        }
        if draft.attributes.contains_key("error.type") {
            return;
        }
        if let Some((kind, thing)) = told(entry) {
            let names: Vec<&str> = named_in(&draft.attributes).collect();
            let thing = if names.is_empty() { thing } else { format!("{thing} [{}]", names.join(", ")) };
            let things = self.told.entry(kind).or_default();
            if things.len() < MAX_TOLD {
                things.insert(thing);
            }
        }
    }

    fn finish(mut self, asked: SessionId, live: &HashSet<SessionId>) -> LinkItem {
        let mut told = |kind: &str| self.told.remove(kind).unwrap_or_default().into_iter().collect();
        let (executed, wrote, reached, findings) = (told("executed"), told("wrote"), told("reached"), told("findings"));
        let session = self.tally.item().session;
        let session = self.tally.finish(live.contains(&session));
        let (depth, is_asked) = (session.delegation.len(), session.session == asked);
        LinkItem {
            session,
            depth,
            is_asked,
            command: self.command.unwrap_or_default(),
            actions: self.actions,
            executed,
            wrote,
            reached,
            findings,
        }
    }
}

/// What an entry tells of its link.
fn told(entry: &Entry) -> Option<(&'static str, String)> {
    let draft = &entry.draft;
    let text = |name: &str| draft.attributes.get(name).and_then(Value::as_str);
    let writes = || matches!(text("bailiwick.file.access"), Some("w" | "rw"));
    Some(match draft.event.as_str() {
        "process.exec" => {
            ("executed", text("bailiwick.exec.script").or_else(|| text("process.executable.path"))?.to_owned())
        }
        "file.create" => ("wrote", text("file.path")?.to_owned()),
        "file.open" if writes() => ("wrote", text("file.path")?.to_owned()),
        "network.connect" | "network.send" => ("reached", address(draft)?),
        "unix.connect" => (
            "reached",
            text("bailiwick.unix.path").map_or_else(
                || text("bailiwick.unix.abstract").map(|name| format!("@{name}")),
                |path| Some(path.to_owned()),
            )?,
        ),
        event if event.starts_with("finding.") => ("findings", format!("{event} ({})", entry.uid)),
        _ => return None,
    })
}

fn address(draft: &Draft) -> Option<String> {
    let address = draft.attributes.get("server.address")?.as_str()?;
    let port = draft.attributes.get("server.port")?;
    Some(if address.contains(':') { format!("[{address}]:{port}") } else { format!("{address}:{port}") })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use serde_json::json;

    use super::*;
    use crate::control::testing::entry;

    fn chain(entries: &[Entry], prefix: &str) -> Vec<LinkItem> {
        let mut asked = Asked::beginning(prefix).unwrap();
        entries.iter().for_each(|entry| asked.add(&Found::Entry(entry.clone())));
        let mut tree = asked.tree().unwrap();
        entries.iter().for_each(|entry| tree.add(&Found::Entry(entry.clone())));
        tree.finish(&HashSet::new())
    }

    fn a_day() -> Vec<Entry> {
        vec![
            entry(1, "session.start").agent("a", 1).with("process.command_args", json!(["/a", "x"])).build(),
            entry(2, "session.start").agent("b", 2).delegated_by("a", 1).build(),
            entry(3, "session.start").agent("c", 3).delegated_by("a", 1).delegated_by("b", 2).build(),
            entry(4, "session.start").agent("d", 4).delegated_by("a", 1).build(),
            entry(5, "session.start").agent("z", 9).build(),
            entry(6, "file.open")
                .agent("c", 3)
                .delegated_by("a", 1)
                .delegated_by("b", 2)
                .path("w", "/o")
                .count(3)
                .build(),
            entry(7, "file.open").agent("c", 3).delegated_by("a", 1).delegated_by("b", 2).path("r", "/i").build(),
            entry(8, "network.connect")
                .agent("b", 2)
                .delegated_by("a", 1)
                .with("server.address", json!("::1"))
                .with("server.port", json!(443))
                .build(),
            entry(9, "finding.delegation").agent("c", 3).delegated_by("a", 1).delegated_by("b", 2).build(),
        ]
    }

    #[test]
    fn a_chain_is_told_from_its_outermost_link_on_with_what_was_done_at_each() {
        let links = chain(&a_day(), "0000000000000002");
        let told: Vec<_> = links.iter().map(|link| (link.session.session.0, link.depth, link.is_asked)).collect();
        assert_eq!(told, [(1, 0, false), (2, 1, true), (3, 2, false)]);
        assert_eq!(links[0].command, ["/a", "x"]);
        assert_eq!(links[1].reached, ["[::1]:443"]);
        assert_eq!((&links[2].wrote[..], links[2].actions["file.open"]), (&["/o".to_owned()][..], 4));
        assert_eq!(links[2].findings, ["finding.delegation (5f3a91c2-9)"]);
    }

    #[test]
    fn the_outermost_session_shows_all_that_acted_for_it_and_no_stranger() {
        let links = chain(&a_day(), "0000000000000001");
        assert_eq!(links.iter().map(|link| link.session.session.0).collect::<Vec<_>>(), [1, 2, 3, 4]);
    }

    #[test]
    fn what_was_done_is_cut_and_counted() {
        let mut entries = vec![entry(1, "session.start").agent("a", 1).build()];
        entries
            .extend((2..1_000).map(|seq| entry(seq, "file.open").agent("a", 1).path("w", &format!("/{seq}")).build()));
        let links = chain(&entries, "0000000000000001");
        assert_eq!((links[0].wrote.len(), links[0].actions["file.open"]), (MAX_TOLD, 998));
    }
}
