//! The map both ways: which agents read a credential, and which credentials an agent reads.
//!
//! Input: what is known, what the ledger remembers, and what `stat` says of files. Output: a [`CredentialMap`], which
//! `bailiwick credentials` prints. Pure but for the `stat` that is handed in. A declared credential is told of though nobody
//! read it; a well-known one only where it was read.

use std::collections::BTreeMap;
use std::fs::Metadata;
use std::io;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::ledger::{Ledger, Reader};
use super::rotation::{Rotation, State, readable_by_others};
use super::table::{CredentialTable, Means};
use crate::entry::{ProcessRef, SessionId, Timestamp};

/// `bailiwick credentials`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CredentialMap {
    /// The credentials, declared ones first.
    pub items: Vec<CredentialItem>,
    /// The agents, by name.
    pub agents: Vec<AgentCredentials>,
    /// Reads that nothing is remembered of, for want of room.
    pub forgotten: u64,
}

/// A credential.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CredentialItem {
    /// What it is called.
    pub name: String,
    /// The agents that declare it; empty: it is well known, and was read.
    pub declared_by: Vec<String>,
    /// Where it is declared, or stands in the catalogue; none where it does not any more.
    pub declared_in: Option<String>,
    /// Where it is: `{"means": "file", "place": "/etc/keys/model"}`.
    pub places: Vec<PlaceItem>,
    /// When it was changed, and when it is due.
    pub rotation: Rotation,
    /// Who read it.
    pub readers: Vec<ReaderItem>,
}

/// Where a credential is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlaceItem {
    /// `file`, `socket` or `environment`.
    pub means: String,
    /// The file, socket, variable, or the pattern that was declared.
    pub place: String,
    /// The file's mode, where others than its owner may read it.
    pub exposed_mode: Option<String>,
}

/// A reader of a credential.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReaderItem {
    /// The agent.
    pub agent: String,
    /// Whether it declares it.
    pub declared: bool,
    /// How it came by it.
    pub means: String,
    /// Where.
    pub place: String,
    /// When first.
    pub first: Timestamp,
    /// When last.
    pub last: Timestamp,
    /// How often.
    pub reads: u64,
    /// In which sessions: the last of them.
    pub sessions: Vec<SessionId>,
    /// By which programs.
    pub executables: Vec<String>,
    /// How the sessions were started.
    pub via: Vec<String>,
    /// The entry of the last time.
    pub last_uid: String,
    /// The process of the last time.
    pub last_process: Option<ProcessRef>,
}

/// What an agent reads.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AgentCredentials {
    /// The agent.
    pub agent: String,
    /// What it declares or read.
    pub credentials: Vec<AgentCredential>,
}

/// A credential of an agent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AgentCredential {
    /// What it is called.
    pub name: String,
    /// Where it is, or was read.
    pub place: String,
    /// Whether the agent declares it.
    pub declared: bool,
    /// How often it read it.
    pub reads: u64,
    /// When last; none: never.
    pub last: Option<Timestamp>,
    /// How its rotation stands.
    pub rotation: State,
}

impl CredentialMap {
    /// The map as things are now.
    pub fn of(
        table: &CredentialTable,
        ledger: &Ledger,
        now: Timestamp,
        stat: impl Fn(&Path) -> io::Result<Metadata>,
    ) -> Self {
        let mut items: Vec<CredentialItem> = table
            .known()
            .iter()
            .filter(|known| !known.declared_by.is_empty())
            .map(|known| CredentialItem {
                name: known.name.clone(),
                declared_by: known.declared_by.clone(),
                declared_in: Some(known.origin.to_string()),
                places: known.places.iter().map(|(means, place)| place_item(means.as_str(), place, &stat)).collect(),
                rotation: Rotation::of(known, now, &stat),
                readers: Vec::new(),
            })
            .collect();
        let mut found: BTreeMap<(String, String), CredentialItem> = BTreeMap::new();
        for (key, place) in ledger.places().filter(|(_, place)| !place.readers.is_empty()) {
            let Some((means, at)) = key.split_once(':') else { continue };
            let readers = place.readers.iter().map(|(agent, reader)| reader_item(agent, means, at, reader));
            let number = means_of(means).and_then(|means| table.at("", means, at.as_bytes())).map(|(number, _)| number);
            let known = number.and_then(|number| table.get(number));
            let declared = number.filter(|_| known.is_some_and(|known| !known.declared_by.is_empty()));
            if let Some(item) = declared.and_then(|number| items.get_mut(number as usize)) {
                item.readers.extend(readers);
                continue;
            }
            let rotation = Rotation::of_place(means_of(means) == Some(Means::File), at, now, &stat);
            found.insert(
                (place.name.clone(), key.to_owned()),
                CredentialItem {
                    name: place.name.clone(),
                    declared_by: Vec::new(),
                    declared_in: known.map(|known| known.origin.to_string()),
                    places: vec![place_item(means, at, &stat)],
                    rotation,
                    readers: readers.collect(),
                },
            );
        }
        items.extend(found.into_values());
        let agents = agents(&items);
        Self { items, agents, forgotten: ledger.forgotten }
    }
}

fn means_of(text: &str) -> Option<Means> {
    [Means::File, Means::Socket, Means::Environment].into_iter().find(|means| means.as_str() == text)
}

fn place_item(means: &str, place: &str, stat: impl Fn(&Path) -> io::Result<Metadata>) -> PlaceItem {
    let metadata = (means == Means::File.as_str()).then(|| stat(Path::new(place)).ok()).flatten();
    let exposed = metadata.filter(|metadata| readable_by_others(metadata) != 0);
    let mode = |metadata: Metadata| format!("{:04o}", std::os::unix::fs::MetadataExt::mode(&metadata) & 0o7777);
    PlaceItem { means: means.to_owned(), place: place.to_owned(), exposed_mode: exposed.map(mode) }
}

fn reader_item(agent: &str, means: &str, place: &str, reader: &Reader) -> ReaderItem {
    ReaderItem {
        agent: agent.to_owned(),
        declared: reader.declared,
        means: means.to_owned(),
        place: place.to_owned(),
        first: reader.first,
        last: reader.last,
        reads: reader.reads,
        sessions: reader.sessions.iter().copied().collect(),
        executables: reader.executables.iter().cloned().collect(),
        via: reader.via.iter().cloned().collect(),
        last_uid: reader.last_uid.clone(),
        last_process: reader.last_process.clone(),
    }
}

/// The other way round.
fn agents(items: &[CredentialItem]) -> Vec<AgentCredentials> {
    let mut agents: BTreeMap<&str, Vec<AgentCredential>> = BTreeMap::new();
    for item in items {
        let rotation = item.rotation.state;
        for agent in &item.declared_by {
            if item.readers.iter().all(|reader| reader.agent != *agent) {
                let place = item.places.first().map(|place| place.place.clone()).unwrap_or_default();
                let unread =
                    AgentCredential { name: item.name.clone(), place, declared: true, reads: 0, last: None, rotation };
                agents.entry(agent).or_default().push(unread);
            }
        }
        for reader in &item.readers {
            agents.entry(&reader.agent).or_default().push(AgentCredential {
                name: item.name.clone(),
                place: reader.place.clone(),
                declared: item.declared_by.contains(&reader.agent),
                reads: reader.reads,
                last: Some(reader.last),
                rotation,
            });
        }
    }
    let of =
        |(agent, credentials): (&str, Vec<AgentCredential>)| AgentCredentials { agent: agent.to_owned(), credentials };
    agents.into_iter().map(of).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test fails by panicking")]

    use super::*;
    use crate::config::Config;
    use crate::credential::ledger::Ledger;
    use crate::credential::table::Use;
    use crate::entry::Draft;

    #[test]
    fn the_map_tells_of_credentials_by_their_readers_and_of_agents_by_what_they_read() {
        let text = "[agent]\nname = \"a\"\nowner = \"o\"\n\
            [[credential]]\nname = \"keys\"\nfile = \"/srv/keys/*\"\n\
            [[credential]]\nname = \"unread\"\nenvironment = \"UNREAD\"\n";
        let (config, _) = Config::with_proposed_text("a.toml", text, Path::new("/nonexistent/x")).unwrap();
        let mut ledger = Ledger::default();
        for (agent, place, name) in
            [("a", "/srv/keys/x", "keys"), ("b", "/srv/keys/y", "keys"), ("b", "/etc/shadow", "hashes")]
        {
            let mut draft = Draft::of_host(Timestamp(7), "credential.read");
            draft.agent = Some(agent.to_owned());
            draft.count = 1;
            let used = Use { number: 0, means: Means::File, place: place.to_owned(), is_declared: agent == "a" };
            ledger.note(&used, name, &draft, "t-1");
        }
        let stat = |_: &Path| Err(io::ErrorKind::NotFound.into());
        let map = CredentialMap::of(&config.credentials, &ledger, Timestamp(9), stat);
        let of = |item: &CredentialItem| {
            let readers = item.readers.iter().map(|reader| format!("{} {}", reader.agent, reader.place));
            (item.name.clone(), item.declared_by.len(), readers.collect::<Vec<_>>().join(", "))
        };
        assert_eq!(
            map.items.iter().map(of).collect::<Vec<_>>(),
            [
                ("keys".to_owned(), 1, "a /srv/keys/x, b /srv/keys/y".to_owned()),
                ("unread".to_owned(), 1, String::new()),
                ("hashes".to_owned(), 0, "b /etc/shadow".to_owned()),
            ]
        );
        assert!(map.items.iter().all(|item| item.rotation.state == State::Unknown && item.rotation.why.is_some()));
        let agents = map.agents.iter().map(|agent| {
            let of = |one: &AgentCredential| format!("{} {} {}", one.name, one.declared, one.reads);
            (agent.agent.as_str(), agent.credentials.iter().map(of).collect::<Vec<_>>().join(", "))
        });
        assert_eq!(
            agents.collect::<Vec<_>>(),
            [("a", "keys true 1, unread true 0".to_owned()), ("b", "keys false 1, hashes false 1".to_owned()),]
        );
    }
}
