//! What the pipeline notes of credentials: reads, who reads what, rotations, and what is found about them.

use std::collections::{BTreeSet, HashMap};
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tracing::warn;

use super::drafts::Compose;
use super::files::kernel_id;
use super::pipeline::Pipeline;
use crate::config::Config;
use crate::credential::found::{self, DECLARED, ENTRY, MEANS, NAME, PATH, VARIABLE};
use crate::credential::ledger::Ledger;
use crate::credential::rotation::{Rotation, State, changed_at, placed_at, readable_by_others};
use crate::credential::table::{Means, Use, VARIABLES, identity, reads};
use crate::credential::watch::{After, Read, Watch};
use crate::entry::{Draft, Timestamp, Verdict};
use crate::finding::Found;

/// What is new in a directory's clock may be so much older than it says: file systems count in ticks.
const TICK_NS: u64 = 10_000_000;

/// Variables of an exec that are named.
const MOST_VARIABLES: usize = 32;

/// The ledger, for the pipeline and for whoever asks.
#[derive(Clone, Debug)]
pub(super) struct SharedLedger(Arc<Mutex<Ledger>>);

impl SharedLedger {
    /// What the state directory knows.
    pub(super) fn of(state_dir: &Path) -> Self {
        let file = &file_in(state_dir);
        let ledger = Ledger::read(file).unwrap_or_else(|error| {
            warn!(path = %file.display(), %error, "who has read which credential is not known any more");
            Ledger::default()
        });
        Self(Arc::new(Mutex::new(ledger)))
    }

    /// Looks at it, or changes it: held for a moment only.
    pub(super) fn lock(&self) -> MutexGuard<'_, Ledger> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn file_in(state_dir: &Path) -> PathBuf {
    state_dir.join("credentials.json")
}

/// What the pipeline knows of credentials.
#[derive(Debug)]
pub(super) struct Credentials {
    pub(super) ledger: SharedLedger,
    watch: Watch,
    /// Declared files by device and inode, so that another name hides none.
    declared: HashMap<(u32, u64), Vec<u8>>,
    file: PathBuf,
    is_changed: bool,
}

impl Credentials {
    /// With this ledger, which is written down in the state directory.
    pub(super) fn of(state_dir: &Path, ledger: SharedLedger) -> Self {
        let file = file_in(state_dir);
        Self { ledger, watch: Watch::default(), declared: HashMap::new(), file, is_changed: false }
    }

    /// Looks which files are declared: one that is replaced is another.
    pub(super) fn look_at_files(&mut self, config: &Config) {
        let files = config.credentials.known().iter().filter(|known| !known.declared_by.is_empty());
        let files = files.flat_map(|known| known.files());
        self.declared =
            files.filter_map(|file| Some((kernel_id(file).ok()?, file.as_os_str().as_bytes().to_vec()))).collect();
    }

    fn save(&mut self) {
        if !self.is_changed {
            return;
        }
        match self.ledger.lock().write(&self.file) {
            Ok(()) => self.is_changed = false,
            Err(error) => {
                warn!(path = %self.file.display(), %error, "should the daemon be killed, new readers of credentials are found again");
            }
        }
    }
}

impl Pipeline {
    /// Whether an entry of a session means something to credentials.
    pub(super) fn concerns_credentials(&self, session: u64, draft: &Draft) -> bool {
        session != 0
            && match draft.event.as_str() {
                "file.open" | "file.create" | "fd.receive" | "unix.connect" | "process.exec" => {
                    !self.config.credentials.uses(draft, &self.credentials.declared).is_empty()
                }
                "network.connect" | "network.send" | "file.io" | "session.end" => self.credentials.watch.knows(session),
                _ => false,
            }
    }

    /// Looks at an entry of a session, which has that seq, for what it means to credentials.
    pub(super) fn look_at_credentials(&mut self, session: u64, draft: &Draft, seq: u64) {
        match draft.event.as_str() {
            "file.open" | "file.create" | "fd.receive" | "unix.connect" | "process.exec" => {
                for used in self.config.credentials.uses(draft, &self.credentials.declared) {
                    self.note_use(session, draft, seq, used);
                }
            }
            "network.connect" | "network.send" => self.look_after_reads(session, draft, seq),
            "file.io" => self.look_at_handle(session, draft, seq),
            "session.end" => self.credentials.watch.forget(session),
            _ => {}
        }
    }

    /// Says in an exec's entry the names of the variables that hold credentials, while the process is there to be looked at.
    pub(super) fn name_variables(&self, compose: &mut Compose, tgid: u32) {
        let variables = self.attributor.environment_of(tgid);
        let names: BTreeSet<&str> =
            variables.iter().filter_map(|variable| self.config.credentials.variable(&variable.bytes)).collect();
        if !names.is_empty() {
            compose.set(VARIABLES, names.into_iter().take(MOST_VARIABLES).collect::<Vec<_>>());
        }
    }

    /// Records that a credential was read, and what is found about that.
    fn note_use(&mut self, session: u64, draft: &Draft, seq: u64, mut used: Use) {
        let config = Arc::clone(&self.config);
        let Some(known) = config.credentials.get(used.number) else { return };
        let Some(agent) = draft.agent.clone() else { return };
        if used.means == Means::Environment && !self.credentials.watch.is_untold(session, &used, draft) {
            return;
        }
        // What is remembered and found says no more than the entry will.
        self.redactor.path(&mut used.place);
        let entry = self.uid(seq);
        let read = self.read_draft(draft, &used, &known.name, &entry);
        let seq = self.push(session, read.clone());
        let uid = self.uid(seq);
        let new = self.credentials.ledger.lock().note(&used, &known.name, &read, &uid);
        self.credentials.is_changed = true;
        let causes = || [uid.clone(), entry.clone()];
        let mut all: Vec<Found> = new.iter().map(|new| found::new_reader(&agent, &used, &known.name, new)).collect();
        if !used.is_declared {
            all.push(found::undeclared(&agent, &used, known));
        }
        all.extend(self.newly_shared(&used, &known.name));
        if used.means == Means::File {
            all.extend(self.newly_readable(&known.name, &used.place));
        }
        let noted = Read { used, name: known.name.clone(), time: draft.time, uid: uid.clone() };
        let handle = if reads(draft) { identity(draft) } else { None };
        self.credentials.watch.note(session, noted, handle);
        for found in all {
            self.find(session, &found.because_of(causes()), draft.clone());
        }
    }

    /// The entry of a read: of whoever did it, with as many times as the entry that it follows from.
    fn read_draft(&self, draft: &Draft, used: &Use, name: &str, entry: &str) -> Draft {
        let mut read = Draft {
            event: "credential.read".to_owned(),
            verdict: Verdict::None,
            reason: None,
            gap: None,
            attributes: serde_json::Map::new(),
            escaped: draft.escaped.iter().filter(|name| *name == "process.executable").cloned().collect(),
            truncated: Vec::new(),
            redacted: Vec::new(),
            ..draft.clone()
        };
        let mut set = |name: &str, value: serde_json::Value| read.attributes.insert(name.to_owned(), value);
        set(NAME, name.into());
        set(MEANS, used.means.as_str().into());
        set(DECLARED, used.is_declared.into());
        set(ENTRY, entry.into());
        match used.means {
            Means::File => set("file.path", used.place.clone().into()),
            Means::Socket => set(PATH, used.place.clone().into()),
            Means::Environment => set(VARIABLE, used.place.clone().into()),
        };
        read
    }

    /// That several agents read it, where one more does than when it was said last.
    fn newly_shared(&self, used: &Use, name: &str) -> Option<Found> {
        let mut ledger = self.credentials.ledger.lock();
        let place = ledger.place_mut(used.means, &used.place, name)?;
        if place.readers.len() < 2 || place.readers.len() <= place.shared_told {
            return None;
        }
        place.shared_told = place.readers.len();
        let agents: Vec<String> = place.readers.keys().cloned().collect();
        Some(found::shared(used, name, &agents))
    }

    /// That others than its owner may read it, where that was not said of this mode.
    fn newly_readable(&self, name: &str, file: &str) -> Option<Found> {
        let metadata = std::fs::metadata(Path::new(OsStr::new(file))).ok()?;
        let mode = std::os::unix::fs::MetadataExt::mode(&metadata) & 0o7777;
        let mut ledger = self.credentials.ledger.lock();
        let place = ledger.place_mut(Means::File, file, name)?;
        if readable_by_others(&metadata) == 0 {
            place.mode_told = None;
            return None;
        }
        if place.mode_told == Some(mode) {
            return None;
        }
        place.mode_told = Some(mode);
        Some(found::readable(name, file, mode))
    }

    /// What a connection means after what its session read.
    fn look_after_reads(&mut self, session: u64, draft: &Draft, seq: u64) {
        let after = self.credentials.watch.after(session, draft, &self.config.credentials);
        let after: Vec<(After, Read)> = after.into_iter().map(|(after, read)| (after, read.clone())).collect();
        let agent = draft.agent.as_deref().unwrap_or_default();
        for (after, read) in after {
            let found = match &after {
                After::WentOut(to) => found::exfiltration(agent, &read, to),
                After::Moved(to) => found::lateral_movement(agent, &read, to),
            };
            let found = found.because_of([read.uid, self.uid(seq)]);
            self.find(session, &found, draft.clone());
        }
    }

    /// Whether a process reads on from a credential's file that was replaced.
    fn look_at_handle(&mut self, session: u64, draft: &Draft, seq: u64) {
        let Some(handle) = identity(draft).filter(|_| reads(draft)) else { return };
        let Some(used) = self.credentials.watch.handle(session, handle).cloned() else { return };
        let path = Path::new(&used.place);
        let (Ok((_, inode)), Ok(metadata)) = (kernel_id(path), std::fs::metadata(path)) else { return };
        let replaced = placed_at(&metadata);
        if inode == handle.1 || draft.time.0 <= replaced.0.saturating_add(TICK_NS) {
            return;
        }
        let Some(name) = self.config.credentials.get(used.number).map(|known| known.name.clone()) else { return };
        let found = found::old_handle(&used, &name, replaced).because_of([self.uid(seq)]);
        self.find(session, &found, draft.clone());
    }

    /// Looks at the declared files: which they are, how old, and who may read them. Writes down who has read what.
    pub(super) fn look_at_declared_credentials(&mut self) {
        let config = Arc::clone(&self.config);
        self.credentials.look_at_files(&config);
        let now = Timestamp::now();
        let mut all: Vec<(String, Found)> = Vec::new();
        for known in config.credentials.known() {
            let Some(agent) = known.declared_by.first() else { continue };
            for file in known.files() {
                let file = file.to_string_lossy();
                all.extend(self.newly_readable(&known.name, &file).map(|found| (agent.clone(), found)));
                all.extend(self.newly_overdue(known, &file, now).map(|found| (agent.clone(), found)));
            }
        }
        self.credentials.is_changed |= !all.is_empty();
        for (agent, found) in all {
            let whose = Draft { agent: Some(agent), ..Draft::of_host(now, "finding") };
            self.find(0, &found, whose);
        }
        self.credentials.save();
    }

    /// That a file was not changed in time, where that was not said of this change.
    fn newly_overdue(&self, known: &crate::credential::table::Known, file: &str, now: Timestamp) -> Option<Found> {
        let metadata = std::fs::metadata(file).ok()?;
        let rotation = Rotation::of(known, now, |_| std::fs::metadata(file));
        let changed = changed_at(&metadata);
        let mut ledger = self.credentials.ledger.lock();
        let place = ledger.place_mut(Means::File, file, &known.name)?;
        if rotation.state != State::Overdue || place.overdue_told == Some(changed) {
            return None;
        }
        place.overdue_told = Some(changed);
        Some(found::overdue(known, file, changed, rotation.due?))
    }
}
