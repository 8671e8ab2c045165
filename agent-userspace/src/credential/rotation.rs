//! Rotation: when a credential was changed last, when it is due, and who may read its file.
//!
//! Input: a known credential, and what `stat` says of its files. Output: a [`Rotation`]. A file's last change is that of its
//! content (`mtime`), whoever made it. Refuses to guess: what has no file of a full name, or one that cannot be looked at,
//! is unknown, and says why.

use std::fs::Metadata;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::table::Known;
use crate::entry::Timestamp;

/// How things stand with a rotation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// It was changed in time.
    Fresh,
    /// It should have been changed.
    Overdue,
    /// Nobody declares how often it must be changed.
    Unscheduled,
    /// Nobody knows when it was changed.
    Unknown,
}

/// The rotation of a credential.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rotation {
    /// How it stands.
    pub state: State,
    /// When it was changed last: the oldest of its files.
    pub last_changed: Option<Timestamp>,
    /// How often it must be changed, in seconds.
    pub rotate_every_seconds: Option<u64>,
    /// When it must be changed next.
    pub due: Option<Timestamp>,
    /// Whether that has passed; none where it is not known.
    pub overdue: Option<bool>,
    /// Why it is unknown.
    pub why: Option<String>,
}

impl Rotation {
    /// As things are now, by what `stat` says of a file.
    pub fn of(known: &Known, now: Timestamp, stat: impl Fn(&Path) -> io::Result<Metadata>) -> Self {
        let mut changed: Option<Timestamp> = None;
        let mut why = Some("it has no file of a full name".to_owned());
        for file in known.files() {
            match stat(file) {
                Ok(metadata) => {
                    why = None;
                    let at = changed_at(&metadata);
                    changed = Some(changed.map_or(at, |before| before.min(at)));
                }
                Err(error) => {
                    why = Some(format!("{}: {error}", file.display()));
                    changed = None;
                    break;
                }
            }
        }
        Self::since(changed, known.rotate_every, now, why)
    }

    /// The same of a place that nobody declares, and that is a file or not.
    pub fn of_place(is_file: bool, place: &str, now: Timestamp, stat: impl Fn(&Path) -> io::Result<Metadata>) -> Self {
        if !is_file {
            return Self::since(None, None, now, Some("it has no file".to_owned()));
        }
        match stat(Path::new(place)) {
            Ok(metadata) => Self::since(Some(changed_at(&metadata)), None, now, None),
            Err(error) => Self::since(None, None, now, Some(format!("{place}: {error}"))),
        }
    }

    fn since(changed: Option<Timestamp>, every: Option<Duration>, now: Timestamp, why: Option<String>) -> Self {
        let nanoseconds = |every: Duration| u64::try_from(every.as_nanos()).unwrap_or(u64::MAX);
        let due = changed.zip(every).map(|(changed, every)| Timestamp(changed.0.saturating_add(nanoseconds(every))));
        let overdue = due.map(|due| now > due);
        let state = match (changed, overdue) {
            (None, _) => State::Unknown,
            (Some(_), None) => State::Unscheduled,
            (Some(_), Some(true)) => State::Overdue,
            (Some(_), Some(false)) => State::Fresh,
        };
        Self {
            state,
            last_changed: changed,
            rotate_every_seconds: every.map(|every| every.as_secs()),
            due,
            overdue,
            why: why.filter(|_| state == State::Unknown),
        }
    }
}

/// When the content of a file changed.
pub fn changed_at(metadata: &Metadata) -> Timestamp {
    moment(metadata.mtime(), metadata.mtime_nsec())
}

/// When a file came to be where it is, or to be what it is: its content, its name, its owner.
pub fn placed_at(metadata: &Metadata) -> Timestamp {
    moment(metadata.ctime(), metadata.ctime_nsec())
}

fn moment(seconds: i64, nanoseconds: i64) -> Timestamp {
    let (seconds, nanoseconds) = (u64::try_from(seconds).unwrap_or(0), u64::try_from(nanoseconds).unwrap_or(0));
    Timestamp(seconds.saturating_mul(1_000_000_000).saturating_add(nanoseconds))
}

/// The bits of a mode by which others than a file's owner may read it; 0 where none may.
pub fn readable_by_others(metadata: &Metadata) -> u32 {
    metadata.mode() & 0o044
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: u64 = 86_400 * 1_000_000_000;

    fn at(changed: Option<u64>, every: Option<u64>, now: u64) -> (State, Option<u64>, Option<bool>) {
        let every = every.map(|days| Duration::from_secs(days * 86_400));
        let rotation = Rotation::since(changed.map(Timestamp), every, Timestamp(now), Some("w".to_owned()));
        assert_eq!(rotation.why.is_some(), rotation.state == State::Unknown);
        (rotation.state, rotation.due.map(|due| due.0 / DAY), rotation.overdue)
    }

    #[test]
    fn what_was_changed_too_long_ago_is_overdue_and_what_cannot_be_known_is_unknown() {
        assert_eq!(at(Some(10 * DAY), Some(30), 40 * DAY), (State::Fresh, Some(40), Some(false)));
        assert_eq!(at(Some(10 * DAY), Some(30), 40 * DAY + 1), (State::Overdue, Some(40), Some(true)));
        assert_eq!(at(Some(39 * DAY), Some(30), 41 * DAY), (State::Fresh, Some(69), Some(false)));
        assert_eq!(at(Some(10 * DAY), None, 40 * DAY), (State::Unscheduled, None, None));
        assert_eq!(at(None, Some(30), 40 * DAY), (State::Unknown, None, None));
    }
}
