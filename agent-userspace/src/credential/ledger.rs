//! Who has read which credential: what is remembered over sessions and restarts.
//!
//! Input: uses of credentials with the entry that they are of. Output: what is new about a reader. Stands in
//! `credentials.json` of the state directory. Never a value: names, places, who and when. Bounded; what finds no place is
//! counted, and nothing is found about it.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::table::{Means, Use};
use crate::entry::{Draft, ProcessRef, SessionId, Timestamp};

/// The most places that are remembered.
pub const MOST_PLACES: usize = 4_096;
/// The most agents that are remembered of a place.
pub const MOST_READERS: usize = 256;
/// The most programs, and units, that are remembered of a reader.
pub const MOST_NAMES: usize = 64;
/// The sessions that are remembered of a reader: its last.
pub const MOST_SESSIONS: usize = 16;

/// A reader of a credential: an agent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reader {
    /// Whether it declares the credential.
    pub declared: bool,
    /// When it read it first.
    pub first: Timestamp,
    /// When last.
    pub last: Timestamp,
    /// How often.
    pub reads: u64,
    /// In which sessions, the last of them.
    pub sessions: VecDeque<SessionId>,
    /// By which programs.
    pub executables: BTreeSet<String>,
    /// How the sessions were started: units among them.
    pub via: BTreeSet<String>,
    /// The entry of the last time.
    pub last_uid: String,
    /// The process of the last time.
    pub last_process: Option<ProcessRef>,
}

/// What is remembered of a place where a credential is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Place {
    /// What the credential is called.
    pub name: String,
    /// The agents that read it.
    pub readers: BTreeMap<String, Reader>,
    /// How many agents read it when it was said that it is shared.
    #[serde(default)]
    pub shared_told: usize,
    /// The mode of the file when it was said that others may read it.
    #[serde(default)]
    pub mode_told: Option<u32>,
    /// The change that is overdue, when that was said.
    #[serde(default)]
    pub overdue_told: Option<Timestamp>,
}

/// What is new about a read of a place that had readers before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum New {
    /// The agent.
    Agent,
    /// The unit, or how else the session was started.
    Unit(String),
    /// The program.
    Binary(String),
}

/// The ledger.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ledger {
    places: BTreeMap<String, Place>,
    /// Reads that found no place.
    #[serde(default)]
    pub forgotten: u64,
}

/// A place as the ledger names it: `file:/etc/keys/model`.
pub fn key(means: Means, place: &str) -> String {
    format!("{}:{place}", means.as_str())
}

impl Ledger {
    /// Notes a use; returns what is new about it.
    pub fn note(&mut self, used: &Use, name: &str, draft: &Draft, uid: &str) -> Vec<New> {
        let Some(agent) = draft.agent.as_deref() else { return Vec::new() };
        let Some(place) = self.place_mut(used.means, &used.place, name) else {
            self.forgotten += 1;
            return Vec::new();
        };
        let was_read = !place.readers.is_empty();
        if !place.readers.contains_key(agent) && place.readers.len() >= MOST_READERS {
            self.forgotten += 1;
            return Vec::new();
        }
        let executable = draft.process.as_ref().and_then(|process| process.executable.clone());
        let via = draft.principal.as_ref().and_then(|principal| principal.via.clone());
        let known = place.readers.get(agent);
        let mut new = Vec::new();
        match known {
            None => new.push(New::Agent),
            Some(reader) => {
                new.extend(via.iter().filter(|via| reader.is_new_via(via)).cloned().map(New::Unit));
                new.extend(executable.iter().filter(|path| reader.is_new(path)).cloned().map(New::Binary));
            }
        }
        place.readers.entry(agent.to_owned()).or_insert_with(|| Reader::at(draft.time)).add(used, draft, uid);
        if was_read { new } else { Vec::new() }
    }

    /// What is remembered of a place, to be changed; none where there is no room for it.
    pub fn place_mut(&mut self, means: Means, place: &str, name: &str) -> Option<&mut Place> {
        let key = key(means, place);
        if !self.places.contains_key(&key) {
            if self.places.len() >= MOST_PLACES {
                return None;
            }
            let place = Place {
                name: name.to_owned(),
                readers: BTreeMap::new(),
                shared_told: 0,
                mode_told: None,
                overdue_told: None,
            };
            self.places.insert(key.clone(), place);
        }
        let place = self.places.get_mut(&key)?;
        if place.name != name {
            name.clone_into(&mut place.name);
        }
        Some(place)
    }

    /// What is remembered, by place.
    pub fn places(&self) -> impl Iterator<Item = (&str, &Place)> {
        self.places.iter().map(|(key, place)| (key.as_str(), place))
    }

    /// The ledger of a file; an empty one where there is none.
    ///
    /// # Errors
    /// It cannot be read, or is none.
    pub fn read(file: &Path) -> io::Result<Self> {
        match fs::read(file) {
            Ok(bytes) => Ok(serde_json::from_slice(&bytes)?),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Self::default()),
            Err(error) => Err(error),
        }
    }

    /// Writes it down.
    ///
    /// # Errors
    /// The file cannot be written; the one before stays.
    pub fn write(&self, file: &Path) -> io::Result<()> {
        let new = file.with_extension("new");
        let mut opened = fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&new)?;
        opened.write_all(&serde_json::to_vec(self)?)?;
        fs::rename(new, file)
    }
}

impl Reader {
    fn at(time: Timestamp) -> Self {
        Self {
            declared: false,
            first: time,
            last: time,
            reads: 0,
            sessions: VecDeque::new(),
            executables: BTreeSet::new(),
            via: BTreeSet::new(),
            last_uid: String::new(),
            last_process: None,
        }
    }

    fn is_new(&self, executable: &str) -> bool {
        !self.executables.contains(executable) && self.executables.len() < MOST_NAMES
    }

    fn is_new_via(&self, via: &str) -> bool {
        !self.via.contains(via) && self.via.len() < MOST_NAMES
    }

    fn add(&mut self, used: &Use, draft: &Draft, uid: &str) {
        self.declared = used.is_declared;
        self.first = self.first.min(draft.time);
        self.last = self.last.max(draft.time);
        self.reads = self.reads.saturating_add(draft.count);
        if let Some(session) = draft.session
            && !self.sessions.contains(&session)
        {
            if self.sessions.len() >= MOST_SESSIONS {
                self.sessions.pop_front();
            }
            self.sessions.push_back(session);
        }
        if let Some(path) = draft.process.as_ref().and_then(|process| process.executable.as_ref())
            && self.is_new(path)
        {
            self.executables.insert(path.clone());
        }
        if let Some(via) = draft.principal.as_ref().and_then(|principal| principal.via.as_ref())
            && self.is_new_via(via)
        {
            self.via.insert(via.clone());
        }
        uid.clone_into(&mut self.last_uid);
        self.last_process.clone_from(&draft.process);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;
    use crate::entry::Principal;

    fn draft(agent: &str, executable: &str, via: &str) -> Draft {
        let mut draft = Draft::of_host(Timestamp(5), "credential.read");
        draft.agent = Some(agent.to_owned());
        draft.session = Some(SessionId(1));
        draft.count = 2;
        draft.principal = Some(Principal { via: Some(via.to_owned()), ..Principal::default() });
        draft.process = Some(ProcessRef { tgid: 1, tid: 1, start_boot_ns: 1, executable: Some(executable.to_owned()) });
        draft
    }

    fn used(place: &str) -> Use {
        Use { number: 0, means: Means::File, place: place.to_owned(), is_declared: true }
    }

    #[test]
    fn the_first_reader_is_no_news_and_each_new_agent_unit_and_program_after_it_is() {
        let mut ledger = Ledger::default();
        let mut note = |agent: &str, executable: &str, via: &str| {
            ledger.note(&used("/k"), "k", &draft(agent, executable, via), "t-1")
        };
        assert!(note("a", "/bin/a", "a.service").is_empty());
        assert!(note("a", "/bin/a", "a.service").is_empty());
        assert_eq!(note("a", "/bin/b", "a.service"), [New::Binary("/bin/b".to_owned())]);
        assert_eq!(note("a", "/bin/b", "ssh"), [New::Unit("ssh".to_owned())]);
        assert_eq!(note("b", "/bin/b", "ssh"), [New::Agent]);
        assert!(note("b", "/bin/b", "ssh").is_empty());
        let (key, place) = ledger.places().next().unwrap();
        let reader = place.readers.get("a").unwrap();
        assert_eq!((key, reader.reads, reader.sessions.len()), ("file:/k", 8, 1));
    }

    #[test]
    fn a_loop_over_places_and_programs_is_bounded_and_what_found_no_room_is_counted() {
        let mut ledger = Ledger::default();
        for number in 0..MOST_PLACES + 3 {
            ledger.note(&used(&format!("/{number}")), "k", &draft("a", "/bin/a", "ssh"), "t-1");
        }
        assert_eq!((ledger.places().count(), ledger.forgotten), (MOST_PLACES, 3));
        for number in 0..2 * MOST_NAMES {
            ledger.note(&used("/1"), "k", &draft("a", &format!("/bin/{number}"), "ssh"), "t-1");
        }
        let (_, place) = ledger.places().find(|(key, _)| *key == "file:/1").unwrap();
        assert_eq!(place.readers.get("a").unwrap().executables.len(), MOST_NAMES);
    }

    #[test]
    fn what_is_remembered_outlives_the_daemon_and_a_torn_file_is_an_error() {
        let state = tempfile::tempdir().unwrap();
        let file = state.path().join("credentials.json");
        assert_eq!(Ledger::read(&file).unwrap(), Ledger::default());
        let mut ledger = Ledger::default();
        ledger.note(&used("/k"), "k", &draft("a", "/bin/a", "ssh"), "t-1");
        ledger.write(&file).unwrap();
        assert_eq!(Ledger::read(&file).unwrap(), ledger);
        std::fs::write(&file, "{").unwrap();
        assert!(Ledger::read(&file).is_err());
    }
}
