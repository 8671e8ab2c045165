//! Answers a question about the trail: by the index where there is one that fits, by reading every line where there is none.
//!
//! Inputs: a [`Question`]; segments and their indexes. Outputs: what was [`Found`], in the order of the trail. Whoever asks
//! holds every entry against the filter: here some are left out that cannot match, nothing more. Refuses: entries behind
//! the one that was the last when it was asked.

use std::collections::{HashSet, VecDeque};
use std::fs::File;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::chunk::{Chunk, Malformed};
use super::facets::{self, OfSession};
use super::file::{self, Index};
use super::lines::Lines;
use crate::control::query::Filter;
use crate::control::sessions::session_of;
use crate::control::{Found, From, Question};
use crate::entry::{Entry, SessionId};
use crate::trail::segment::{self, read_at_most};
use crate::trail::{Position, TrailError, TrailReader};

/// Entries read of a segment at a time, where there is no index.
const BATCH_ENTRIES: usize = 1_024;
const BATCH_BYTES: usize = 4 << 20;
/// Lines that stand no further apart are read as one.
const NEAR_BYTES: u64 = 16 << 10;
/// So much is read as one at most, if it is more than one line.
const WINDOW_BYTES: u64 = 256 << 10;

/// An answer in the making.
#[derive(Debug)]
pub struct Search {
    state_dir: PathBuf,
    dir: PathBuf,
    question: Question,
    /// The last entry that is looked at.
    through: u64,
    /// Segments still to come, and where in the first of them to begin.
    segments: VecDeque<u64>,
    begin: u64,
    /// Sessions of which an entry is known to match.
    matched: HashSet<SessionId>,
    current: Option<Segment>,
    ready: VecDeque<Found>,
    lines: Option<Selected>,
}

/// A segment that is being searched.
#[derive(Debug)]
struct Segment {
    first: u64,
    file: Arc<File>,
    path: PathBuf,
    chunks: std::vec::IntoIter<Chunk>,
    /// All before this byte was searched.
    searched: u64,
    /// Reads what has no index.
    rest: Option<Rest>,
}

#[derive(Debug)]
struct Rest {
    reader: TrailReader,
    through: u64,
    batch: std::vec::IntoIter<Entry>,
}

impl Search {
    /// Looks in the trail below `state_dir`, up to the entry `through`.
    ///
    /// # Errors
    /// The trail cannot be read.
    pub fn of(state_dir: &Path, mut question: Question, through: u64) -> Result<Self, TrailError> {
        if let Question::Entries { from: From::Time(time), filter } = &mut question
            && *filter != Filter::default()
        {
            // The place of a time is early by a minute: what chunks hold of that is left out.
            filter.since = filter.since.max(Some(*time));
        }
        let dir = segment::directory(state_dir);
        let mut segments: VecDeque<u64> = segment::list(&dir)?.into();
        let mut begin = 0;
        if let Question::Entries { from, .. } = &question {
            let position = match *from {
                From::Start => Position::Start,
                From::Seq(seq) => Position::Seq(seq),
                From::Time(time) => Position::Since(time),
            };
            let cursor = TrailReader::open(state_dir, position)?.cursor();
            segments.retain(|&first| first >= cursor.segment);
            begin = cursor.offset;
        }
        Ok(Self {
            state_dir: state_dir.to_owned(),
            dir,
            question,
            through,
            segments,
            begin,
            matched: HashSet::new(),
            current: None,
            ready: VecDeque::new(),
            lines: None,
        })
    }

    fn step(&mut self) -> Result<Option<Found>, TrailError> {
        loop {
            if let Some(found) = self.ready.pop_front() {
                return Ok(Some(found));
            }
            if let Some(lines) = &mut self.lines {
                match lines.next()? {
                    Some(entry) if entry.seq <= self.through => {
                        return Ok(Some(if lines.counted { Found::Counted(entry) } else { Found::Entry(entry) }));
                    }
                    Some(_) | None => self.lines = None,
                }
                continue;
            }
            let Some(mut current) = self.current.take() else {
                if !self.enter_next()? {
                    return Ok(None);
                }
                continue;
            };
            if let Some(rest) = &mut current.rest {
                let next = rest.next()?;
                if next.is_some() {
                    self.current = Some(current);
                    return Ok(next.map(Found::Entry));
                }
                // The segment is at its end.
                continue;
            }
            let usable = current.chunks.next().filter(|chunk| chunk.head.first_seq <= self.through);
            match usable.map(|chunk| (self.search(&current, &chunk), chunk)) {
                Some((Ok(()), chunk)) => current.searched = chunk.head.to,
                Some((Err(Unusable::Trail(error)), _)) => return Err(error),
                Some((Err(Unusable::Malformed(_)), _)) | None => {
                    self.ready.clear();
                    self.lines = None;
                    current.rest = Some(self.rest_of(&current)?);
                }
            }
            self.current = Some(current);
        }
    }

    /// Goes to the next segment; one that retention has removed meanwhile is passed over.
    fn enter_next(&mut self) -> Result<bool, TrailError> {
        while let Some(first) = self.segments.pop_front().filter(|&first| first <= self.through) {
            let begin = std::mem::take(&mut self.begin);
            let path = segment::path(&self.dir, first);
            let file = match File::open(&path) {
                Ok(file) => Arc::new(file),
                Err(error) if error.kind() == ErrorKind::NotFound => continue,
                Err(source) => return Err(TrailError::Io { action: "open", path, source }),
            };
            let is_plain = matches!(&self.question, Question::Entries { filter, .. } if *filter == Filter::default());
            let index = if is_plain { Index::default() } else { Index::read(&file::path(&self.dir, first), &file) };
            let mut chunks = index.chunks;
            chunks.retain(|chunk| chunk.head.to > begin);
            let chunks = chunks.into_iter();
            self.current = Some(Segment { first, file, path, chunks, searched: begin, rest: None });
            return Ok(true);
        }
        Ok(false)
    }

    fn rest_of(&self, current: &Segment) -> Result<Rest, TrailError> {
        let reader = TrailReader::open_at(&self.state_dir, current.first, current.searched)?;
        // Entries of the next segment have a turn of their own.
        let next = self.segments.front().map_or(u64::MAX, |next| next.saturating_sub(1));
        Ok(Rest { reader, through: self.through.min(next), batch: Vec::new().into_iter() })
    }

    /// Finds what the question wants of a chunk.
    fn search(&mut self, current: &Segment, chunk: &Chunk) -> Result<(), Unusable> {
        match self.question.clone() {
            Question::Entries { filter, .. } => {
                let mut lines = facets::wanted(&filter, chunk)?;
                if current.searched > chunk.head.from {
                    lines.drop_before(chunk.line_at(current.searched)?);
                }
                self.lines = Some(Selected::of(current, chunk, &lines, false)?);
            }
            Question::Sessions { filter } => self.sum_up(current, chunk, &filter)?,
            Question::Story { session, filter } => self.tell(current, chunk, session, &filter)?,
        }
        Ok(())
    }

    /// The sums of the chunk's sessions, and of which of them an entry matches.
    fn sum_up(&mut self, current: &Segment, chunk: &Chunk, filter: &Filter) -> Result<(), Unusable> {
        let sessions = chunk.sessions()?;
        if *filter == Filter::default() {
            self.ready.extend(sessions.into_iter().map(|tally| Found::Sums { tally, matched: true }));
            return Ok(());
        }
        let wanted = facets::wanted(filter, chunk)?;
        let of_session = OfSession::of(chunk)?;
        for tally in sessions {
            let session = tally.item().session;
            if !wanted.is_empty() && !self.matched.contains(&session) {
                let mut lines = of_session.lines(session)?;
                lines.keep_only(&wanted);
                let mut selected = Selected::of(current, chunk, &lines, false)?;
                while let Some(entry) = selected.next()? {
                    if session_of(&entry) == Some(session) && filter.matches(&entry) && entry.seq <= self.through {
                        self.matched.insert(session);
                        break;
                    }
                }
            }
            let matched = self.matched.contains(&session);
            self.ready.push_back(Found::Sums { tally, matched });
        }
        Ok(())
    }

    /// What a session's story needs of the chunk: the session's sums with those of its entries that may match, and what
    /// the host says of itself. Where it says what the sensor is blind to, the order counts, and all of the session's entries go.
    fn tell(&mut self, current: &Segment, chunk: &Chunk, session: SessionId, filter: &Filter) -> Result<(), Unusable> {
        let of_sensor = facets::of_events(chunk, &["sensor.start", "sensor.degraded"])?;
        let mut lines = OfSession::of(chunk)?.lines(session)?;
        let counted = of_sensor.is_empty();
        if counted && !lines.is_empty() {
            let tally = chunk.sessions()?.into_iter().find(|tally| tally.item().session == session);
            self.ready.extend(tally.map(|tally| Found::Sums { tally, matched: true }));
            lines.keep_only(&facets::wanted(filter, chunk)?);
        }
        lines.add_all(&of_sensor);
        lines.add_all(&facets::host_gaps(chunk)?);
        lines.add_all(&facets::of_events(chunk, &["delegation.start"])?);
        lines.add_all(&chunk.unreadable()?);
        self.lines = Some(Selected::of(current, chunk, &lines, counted)?);
        Ok(())
    }
}

impl Iterator for Search {
    type Item = Result<Found, TrailError>;

    fn next(&mut self) -> Option<Self::Item> {
        let next = self.step().transpose();
        if let Some(Err(_)) = &next {
            self.segments.clear();
            self.current = None;
            self.lines = None;
        }
        next
    }
}

impl Rest {
    fn next(&mut self) -> Result<Option<Entry>, TrailError> {
        if let Some(entry) = self.batch.next() {
            return Ok(Some(entry));
        }
        self.batch = self.reader.next_batch_through(self.through, BATCH_ENTRIES, BATCH_BYTES)?.into_iter();
        Ok(self.batch.next())
    }
}

/// Why a chunk does not answer.
enum Unusable {
    /// It does not fit: the segment is read instead.
    Malformed(Malformed),
    /// The segment cannot be read.
    Trail(TrailError),
}

impl std::convert::From<Malformed> for Unusable {
    fn from(malformed: Malformed) -> Self {
        Self::Malformed(malformed)
    }
}

impl std::convert::From<TrailError> for Unusable {
    fn from(error: TrailError) -> Self {
        Self::Trail(error)
    }
}

/// Lines of a segment, to be read.
#[derive(Debug)]
struct Selected {
    file: Arc<File>,
    path: PathBuf,
    places: std::vec::IntoIter<(u64, usize)>,
    window: Vec<u8>,
    window_at: u64,
    counted: bool,
}

impl Selected {
    fn of(current: &Segment, chunk: &Chunk, lines: &Lines, counted: bool) -> Result<Self, Malformed> {
        Ok(Self {
            file: Arc::clone(&current.file),
            path: current.path.clone(),
            places: if lines.is_empty() { Vec::new() } else { chunk.places(lines)? }.into_iter(),
            window: Vec::new(),
            window_at: 0,
            counted,
        })
    }

    fn next(&mut self) -> Result<Option<Entry>, TrailError> {
        let Some((offset, len)) = self.places.next() else { return Ok(None) };
        if self.in_window(offset, len).is_none() {
            self.read(offset, offset + len as u64)?;
        }
        let line = self.in_window(offset, len).unwrap_or_default();
        serde_json::from_slice(line).map(Some).map_err(|source| TrailError::BadLine {
            path: self.path.clone(),
            offset,
            source,
        })
    }

    fn in_window(&self, offset: u64, len: usize) -> Option<&[u8]> {
        let start = usize::try_from(offset.checked_sub(self.window_at)?).ok()?;
        self.window.get(start..start.checked_add(len)?)
    }

    /// Reads from there to the end of a line, and those that follow near by.
    fn read(&mut self, from: u64, mut to: u64) -> Result<(), TrailError> {
        for &(offset, len) in self.places.as_slice() {
            let end = offset + len as u64;
            if offset > to + NEAR_BYTES || end - from > WINDOW_BYTES {
                break;
            }
            to = end;
        }
        self.window.resize(usize::try_from(to - from).unwrap_or(0), 0);
        self.window_at = from;
        let read = read_at_most(&self.file, &mut self.window, from).map_err(|source| TrailError::Io {
            action: "read",
            path: self.path.clone(),
            source,
        })?;
        self.window.truncate(read);
        Ok(())
    }
}
