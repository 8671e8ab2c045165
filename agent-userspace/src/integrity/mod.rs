//! Binary integrity: what each agent ran when it began, by hash, and when that changed.
//!
//! Input: the files of an agent's sessions, as they were when these began. Output: what changed since the last time. The
//! table is pure: hashing is asked for, and only where the file is not the one that was hashed last. Bounded: of an agent
//! the [`MOST_FILES`] files that it used last are known; a file that it has not used for longer is new to it again.

use serde::{Deserialize, Serialize};

use crate::entry::Timestamp;

/// The most files that are known of one agent.
pub const MOST_FILES: usize = 64;
/// The most agents that files are known of.
const MOST_AGENTS: usize = 1_024;

/// What a file is to its agent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// The image: the agent's own, or its interpreter.
    Image,
    /// The script that its interpreter runs.
    Script,
}

impl Role {
    /// The role as it is written everywhere.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Image => "image",
            Self::Script => "script",
        }
    }
}

/// A file as it is: another one, or the same after a change, is another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct FileState {
    /// The device that it lies on.
    pub device: u64,
    /// Its number there.
    pub inode: u64,
    /// Its length.
    pub len_bytes: u64,
    /// When it was changed last, by the kernel's word: nobody but root's clock can set it.
    pub changed: (i64, i64),
}

/// A file that an agent began with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KnownFile {
    /// The agent.
    pub agent: String,
    /// What it is to it.
    pub role: Role,
    /// Its path.
    pub path: String,
    /// The SHA-256 of its bytes, in hexadecimal.
    pub sha256: String,
    /// Since when it has that.
    pub since: Timestamp,
    /// When a session began with it last.
    pub last: Timestamp,
    /// What it was when it was hashed.
    pub state: FileState,
}

/// A file that an agent began with, as it is seen now.
#[derive(Clone, Copy, Debug)]
pub struct Seen<'a> {
    /// The agent.
    pub agent: &'a str,
    /// What it is to it.
    pub role: Role,
    /// Its path.
    pub path: &'a str,
    /// What it is.
    pub state: FileState,
    /// Whether the agent is recognised by this very file, so that another one in its place is a change. Of what somebody
    /// starts by `bailiwick run`, or of an interpreter, another path is another program.
    pub is_its_own: bool,
}

/// That an agent began with something else than before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// What it was.
    pub was: KnownFile,
    /// What it is.
    pub is: KnownFile,
}

/// The files that are known.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Files {
    files: Vec<KnownFile>,
}

impl Files {
    /// Those of one agent.
    pub fn of(&self, agent: &str) -> impl Iterator<Item = &KnownFile> {
        self.files.iter().filter(move |file| file.agent == agent)
    }

    /// Takes note of a file, which `hash` gives the SHA-256 of; tells whether that is a change. Nothing is noted where the
    /// file could not be hashed.
    pub fn look(&mut self, seen: &Seen<'_>, now: Timestamp, hash: impl FnOnce() -> Option<String>) -> Option<Change> {
        let is_known = |file: &KnownFile| file.agent == seen.agent && file.role == seen.role && file.path == seen.path;
        let known = self.files.iter().position(is_known);
        if let Some(file) = known.and_then(|at| self.files.get_mut(at))
            && file.state == seen.state
        {
            file.last = now;
            return None;
        }
        let sha256 = hash()?;
        let before = known.map(|at| self.files.remove(at)).or_else(|| {
            // An update may put the new version at a path of its own.
            let own = self.of(seen.agent).filter(|file| seen.is_its_own && file.role == seen.role);
            own.max_by_key(|file| file.last).cloned()
        });
        let is_same = before.as_ref().is_some_and(|before| before.sha256 == sha256);
        let since = before.as_ref().filter(|_| is_same).map_or(now, |before| before.since);
        let (agent, path) = (seen.agent.to_owned(), seen.path.to_owned());
        let is = KnownFile { agent, role: seen.role, path, sha256, since, last: now, state: seen.state };
        self.files.push(is.clone());
        self.make_room(seen.agent);
        before.filter(|_| !is_same).map(|was| Change { was, is })
    }

    fn make_room(&mut self, agent: &str) {
        if self.of(agent).count() > MOST_FILES {
            self.forget_oldest(Some(agent));
        }
        if self.files.len() > MOST_AGENTS * MOST_FILES {
            self.forget_oldest(None);
        }
    }

    fn forget_oldest(&mut self, agent: Option<&str>) {
        let of = self.files.iter().enumerate().filter(|(_, file)| agent.is_none_or(|agent| file.agent == agent));
        if let Some((oldest, _)) = of.min_by_key(|(_, file)| file.last) {
            self.files.remove(oldest);
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

    use super::*;

    fn seen(path: &str, inode: u64) -> Seen<'_> {
        let state = FileState { device: 1, inode, len_bytes: 10, changed: (0, 0) };
        Seen { agent: "a", role: Role::Image, path, state, is_its_own: true }
    }

    fn hash(of: &str) -> impl FnOnce() -> Option<String> {
        let of = of.to_owned();
        || Some(of)
    }

    #[test]
    fn a_file_with_other_bytes_is_a_change_and_one_that_was_only_touched_is_none() {
        let mut files = Files::default();
        assert_eq!(files.look(&seen("/x", 1), Timestamp(1), hash("one")), None, "the first is known from now on");
        assert_eq!(files.look(&seen("/x", 1), Timestamp(2), || panic!("the same file is not hashed again")), None);
        assert_eq!(files.look(&seen("/x", 2), Timestamp(3), hash("one")), None, "another file of the same bytes");
        let change = files.look(&seen("/x", 3), Timestamp(4), hash("two")).unwrap();
        assert_eq!((change.was.sha256.as_str(), change.is.sha256.as_str()), ("one", "two"));
        assert_eq!((change.was.since, change.is.since), (Timestamp(1), Timestamp(4)));
        assert_eq!(files.look(&seen("/x", 3), Timestamp(5), || panic!("it is known")), None);
    }

    #[test]
    fn a_new_version_at_a_path_of_its_own_is_a_change_of_what_the_agent_is_recognised_by_alone() {
        let mut files = Files::default();
        files.look(&seen("/versions/1", 1), Timestamp(1), hash("one"));
        let change = files.look(&seen("/versions/2", 2), Timestamp(2), hash("two")).unwrap();
        assert_eq!((change.was.path.as_str(), change.is.path.as_str()), ("/versions/1", "/versions/2"));
        assert_eq!(files.look(&seen("/versions/1", 1), Timestamp(3), hash("one")), None, "both are known");
        let other = Seen { is_its_own: false, ..seen("/bin/sh", 3) };
        assert_eq!(files.look(&other, Timestamp(4), hash("sh")), None);
    }

    #[test]
    fn what_cannot_be_hashed_leaves_what_was_known() {
        let mut files = Files::default();
        files.look(&seen("/x", 1), Timestamp(1), hash("one"));
        assert_eq!(files.look(&seen("/x", 2), Timestamp(2), || None), None);
        assert!(files.look(&seen("/x", 3), Timestamp(3), hash("two")).is_some());
    }

    #[test]
    fn no_agent_has_more_files_than_so_many() {
        let mut files = Files::default();
        for inode in 0..1_000 {
            let path = format!("/{inode}");
            let one = Seen { is_its_own: false, ..seen(&path, inode) };
            files.look(&one, Timestamp(inode), hash("x"));
        }
        assert_eq!(files.of("a").count(), MOST_FILES);
        assert!(files.of("a").all(|file| file.last.0 >= 1_000 - MOST_FILES as u64));
    }
}
