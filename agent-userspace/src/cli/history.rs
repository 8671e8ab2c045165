//! The trail, read for commands that look back: through the daemon, or, where none answers, from the state directory.
//!
//! Inputs: filters. Outputs: the entries that match any of them, in the trail's order, each once. Refuses: to take what was
//! cut off for whole, and to pass over a line that is no entry without saying so.

use std::path::Path;

use super::CliError;
use super::args::Paths;
use crate::control::client::{Answer, Client, ClientError};
use crate::control::protocol::Since;
use crate::control::query::Filter;
use crate::control::{Request, Response};
use crate::entry::{Entry, Timestamp};
use crate::trail::{Identity, Position, TrailError, TrailReader};

/// Entries read of the trail at a time.
const BATCH_ENTRIES: usize = 1_024;
const BATCH_BYTES: usize = 4 << 20;

/// What tells of what a history does not hold.
pub(super) const ABOUT_THE_TRAIL: [&str; 4] = ["gap", "trail.tombstone", "trail.recovered", "sensor.*"];

/// Which part of the trail is looked at.
#[derive(Debug)]
pub(super) struct Wanted {
    /// Entries that match any of these, of whatever time.
    pub(super) filters: Vec<Filter>,
    /// Of this time or later.
    pub(super) since: Option<Timestamp>,
}

impl Wanted {
    /// These, and what tells of gaps.
    pub(super) fn with_gaps(mut filters: Vec<Filter>, since: Option<Timestamp>) -> Self {
        filters.push(Filter { events: ABOUT_THE_TRAIL.map(str::to_owned).to_vec(), ..Filter::default() });
        Self { filters, since }
    }
}

/// What reading came to.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Read {
    /// Lines of the trail that are no entries.
    pub(super) unreadable: u64,
    /// Whether no daemon was asked.
    pub(super) offline: bool,
}

/// Reads the trail from its start, or from the time that is wanted.
pub(super) fn read(
    paths: &Paths,
    offline: bool,
    wanted: &Wanted,
    mut take: impl FnMut(&Entry) -> Result<(), CliError>,
) -> Result<Read, CliError> {
    if offline {
        return read_files(&paths.state_dir, wanted, take);
    }
    let client = Client::at(&paths.runtime_dir);
    match Streams::open(&client, wanted) {
        Ok(mut streams) => {
            while let Some(entry) = streams.next()? {
                take(&entry)?;
            }
            Ok(Read::default())
        }
        Err(ClientError::NoDaemon { .. }) => read_files(&paths.state_dir, wanted, take),
        Err(error) => Err(error.into()),
    }
}

fn read_files(
    state_dir: &Path,
    wanted: &Wanted,
    mut take: impl FnMut(&Entry) -> Result<(), CliError>,
) -> Result<Read, CliError> {
    if Identity::read(state_dir)?.is_none() {
        return Err(TrailError::NoTrail { state: state_dir.to_owned() }.into());
    }
    let position = wanted.since.map_or(Position::Start, Position::Since);
    let mut reader = TrailReader::open(state_dir, position)?;
    let mut unreadable = 0;
    loop {
        let batch = match reader.next_batch(BATCH_ENTRIES, BATCH_BYTES) {
            Ok(batch) if batch.is_empty() => return Ok(Read { unreadable, offline: true }),
            Ok(batch) => batch,
            Err(error) if error.is_bad_line() => {
                unreadable += 1;
                if reader.skip_line()? == 0 {
                    return Ok(Read { unreadable, offline: true });
                }
                continue;
            }
            Err(error) => return Err(error.into()),
        };
        for entry in batch.iter().filter(|entry| wanted.filters.iter().any(|filter| filter.matches(entry))) {
            take(entry)?;
        }
    }
}

/// One answer for each filter, merged by seq.
struct Streams(Vec<Stream>);

struct Stream {
    answer: Answer,
    next: Option<Box<Entry>>,
}

impl Streams {
    fn open(client: &Client, wanted: &Wanted) -> Result<Self, ClientError> {
        let since = wanted.since.map_or(Since::Start, Since::At);
        let open = |filter: &Filter| {
            let request = Request::Tail { filter: filter.clone(), since, follow: false };
            let mut stream = Stream { answer: client.ask(&request, None)?, next: None };
            stream.advance()?;
            Ok(stream)
        };
        wanted.filters.iter().map(open).collect::<Result<_, _>>().map(Self)
    }

    fn next(&mut self) -> Result<Option<Box<Entry>>, ClientError> {
        let seqs = self.0.iter().filter_map(|stream| stream.next.as_ref().map(|entry| entry.seq));
        let Some(least) = seqs.min() else { return Ok(None) };
        let mut found = None;
        for stream in &mut self.0 {
            if stream.next.as_ref().is_some_and(|entry| entry.seq == least) {
                found = stream.next.take();
                stream.advance()?;
            }
        }
        Ok(found)
    }
}

impl Stream {
    fn advance(&mut self) -> Result<(), ClientError> {
        self.next = match self.answer.next().transpose()? {
            Some(Response::Entry(entry)) => Some(entry),
            Some(other) => return Err(super::commands::strange(&other)),
            None => None,
        };
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;
    use crate::control::testing::entry;

    fn paths(state: &Path) -> Paths {
        Paths {
            config_dir: "/nonexistent".into(),
            state_dir: state.to_owned(),
            runtime_dir: state.join("no-daemon"),
            pin_dir: "/nonexistent".into(),
            cgroup: None,
            ring_bytes: None,
        }
    }

    #[test]
    fn without_a_daemon_the_files_are_read_and_a_line_that_is_no_entry_is_counted() {
        let state = tempfile::tempdir().unwrap();
        let seqs = |wanted: &Wanted| {
            let mut seqs = Vec::new();
            let read = read(&paths(state.path()), false, wanted, |entry| {
                seqs.push(entry.seq);
                Ok(())
            });
            read.map(|read| (read, seqs))
        };
        let demo = || Filter { agents: vec!["demo".to_owned()], ..Filter::default() };
        let wanted = Wanted::with_gaps(vec![demo()], None);
        assert_eq!(seqs(&wanted).unwrap_err().exit_code(), 2, "there is no trail");

        let line = |entry: Entry| serde_json::to_string(&entry).unwrap() + "\n";
        let lines = [
            line(entry(1, "file.open").agent("demo", 1).build()),
            line(entry(2, "file.open").agent("other", 2).build()),
            "no entry\n".to_owned(),
            line(entry(4, "gap").gap(None, 1, 2).build()),
        ];
        std::fs::create_dir(state.path().join("trail")).unwrap();
        std::fs::write(state.path().join("trail/00000000000000000001.jsonl"), lines.concat()).unwrap();
        std::fs::write(
            state.path().join("trail.json"),
            "{\"id\":\"5f3a91c2\",\"created\":\"2026-01-31T12:03:04.123000000Z\"}",
        )
        .unwrap();
        assert_eq!(seqs(&wanted).unwrap(), (Read { unreadable: 1, offline: true }, vec![1, 4]));
    }
}
