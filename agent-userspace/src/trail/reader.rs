//! Reading the trail, also while it is written: a reader takes whole lines, follows from segment to segment, and never
//! holds up the writer.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::error::{TrailError, io_error};
use super::segment;
use crate::entry::{Entry, Timestamp};

/// Entries stand in the trail in the order in which they were decided, which is near the order of their times, not
/// exactly it: a flush of repeats or a gap comes after what happened meanwhile. Looking for a time starts this much
/// earlier.
const DISORDER_NS: u64 = 60 * 1_000_000_000;

/// A place in the trail: after an entry.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cursor {
    /// The entry's seq; 0 before the first.
    pub seq: u64,
    /// The segment it is in, by its first seq. With `offset`, a hint: where it is wrong, `seq` decides.
    pub segment: u64,
    /// The byte after it.
    pub offset: u64,
}

/// Where to start reading.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Position {
    /// With the first entry there is.
    Start,
    /// After the last entry there is now.
    End,
    /// With the entry of this seq.
    Seq(u64),
    /// With the first entry of this time or later. Entries of an earlier time are left out wherever they stand.
    Since(Timestamp),
    /// After the entry that the cursor names.
    Cursor(Cursor),
}

/// Reads entries in order.
#[derive(Debug)]
pub struct TrailReader {
    dir: PathBuf,
    segment: Option<Segment>,
    last_seq: u64,
    /// Entries before this seq are passed over.
    from_seq: u64,
    /// Entries before this time are passed over.
    since: Timestamp,
    buffer: Vec<u8>,
    taken: usize,
}

#[derive(Debug)]
struct Segment {
    first_seq: u64,
    path: PathBuf,
    file: File,
    /// The start of the next line.
    offset: u64,
}

impl TrailReader {
    /// Opens a reader of the trail below `state_dir`, which need not exist yet.
    pub fn open(state_dir: &Path, from: Position) -> Result<Self, TrailError> {
        let mut reader = Self {
            dir: segment::directory(state_dir),
            segment: None,
            last_seq: 0,
            from_seq: 0,
            since: Timestamp(0),
            buffer: Vec::new(),
            taken: 0,
        };
        match from {
            Position::Start => {}
            Position::End => reader.seek_end()?,
            Position::Seq(seq) => reader.seek_seq(seq)?,
            Position::Since(time) => reader.seek_time(time)?,
            Position::Cursor(cursor) => reader.seek_cursor(cursor)?,
        }
        Ok(reader)
    }

    /// Opens a reader at the byte of a segment where a line begins.
    pub(crate) fn open_at(state_dir: &Path, segment: u64, offset: u64) -> Result<Self, TrailError> {
        let mut reader = Self::open(state_dir, Position::Start)?;
        reader.enter(segment, offset)?;
        Ok(reader)
    }

    /// The place after the last entry that was read.
    pub fn cursor(&self) -> Cursor {
        let (segment, offset) = self.segment.as_ref().map_or((0, 0), |segment| (segment.first_seq, segment.offset));
        Cursor { seq: self.last_seq, segment, offset }
    }

    /// The next entries, as many as there are but no more than given; none at the trail's present end.
    ///
    /// A line that is no entry ends the batch; when it comes first, it is the error, and stays so until
    /// [`Self::skip_line`] is called.
    pub fn next_batch(&mut self, max_entries: usize, max_bytes: usize) -> Result<Vec<Entry>, TrailError> {
        self.next_batch_through(u64::MAX, max_entries, max_bytes)
    }

    /// As [`Self::next_batch`], but none after the entry of seq `through`.
    pub fn next_batch_through(
        &mut self,
        through: u64,
        max_entries: usize,
        max_bytes: usize,
    ) -> Result<Vec<Entry>, TrailError> {
        // What was read ahead last time may have been cut off since, after a write that failed.
        self.buffer.clear();
        self.taken = 0;
        let mut batch = Vec::new();
        let mut bytes = 0;
        while batch.len() < max_entries && bytes < max_bytes && self.last_seq < through {
            match self.next_entry(through) {
                Ok(Some((entry, len))) => {
                    // What is passed over does not count: an empty batch always means the present end.
                    bytes += entry.as_ref().map_or(0, |_| len);
                    batch.extend(entry);
                }
                Ok(None) => break,
                Err(error) if batch.is_empty() || !error.is_bad_line() => return Err(error),
                Err(_) => break,
            }
        }
        Ok(batch)
    }

    /// Goes past the line that [`Self::next_batch`] could not read; returns how many bytes that is.
    pub fn skip_line(&mut self) -> Result<u64, TrailError> {
        self.buffer.clear();
        self.taken = 0;
        let Some(current) = &mut self.segment else { return Ok(0) };
        let mut block = vec![0; segment::READ_BYTES];
        let start = current.offset;
        loop {
            let read = segment::read_at_most(&current.file, &mut block, current.offset)
                .map_err(io_error("read", &current.path))?;
            let line_feed = block.get(..read).unwrap_or_default().iter().position(|&byte| byte == b'\n');
            current.offset += line_feed.map_or(read, |at| at + 1) as u64;
            if line_feed.is_some() || read == 0 {
                return Ok(current.offset - start);
            }
        }
    }

    /// The next line's entry (none if it is to be passed over) and its length, or nothing at the present end.
    fn next_entry(&mut self, through: u64) -> Result<Option<(Option<Entry>, usize)>, TrailError> {
        let Some(len) = self.next_line()? else { return Ok(None) };
        let Some(current) = &mut self.segment else { return Ok(None) };
        let line = self.buffer.get(self.taken..self.taken + len).unwrap_or_default();
        let entry: Entry = serde_json::from_slice(line).map_err(|source| TrailError::BadLine {
            path: current.path.clone(),
            offset: current.offset,
            source,
        })?;
        if entry.seq > through {
            return Ok(None);
        }
        self.taken += len;
        current.offset += len as u64;
        self.last_seq = entry.seq;
        let wanted = entry.seq >= self.from_seq && entry.draft.time >= self.since;
        Ok(Some((wanted.then_some(entry), len)))
    }

    /// Brings the next whole line into the buffer, at `taken`; returns its length with its line feed.
    fn next_line(&mut self) -> Result<Option<usize>, TrailError> {
        if self.segment.is_none() && !self.open_next()? {
            return Ok(None);
        }
        let mut searched = 0;
        let mut last_chance = false;
        loop {
            let rest = self.buffer.get(self.taken..).unwrap_or_default();
            if let Some(at) = rest.get(searched..).unwrap_or_default().iter().position(|&byte| byte == b'\n') {
                return Ok(Some(searched + at + 1));
            }
            searched = rest.len();
            if searched > 2 * segment::MAX_LINE_BYTES {
                return Err(self.endless());
            }
            if self.fill()? > 0 {
                continue;
            }
            if !self.has_next()? {
                return Ok(None);
            }
            if !last_chance {
                // The writer may have appended between the end we saw and the next segment it made: look once more.
                last_chance = true;
                continue;
            }
            if searched > 0 {
                return Err(self.endless());
            }
            last_chance = false;
            self.open_next()?;
        }
    }

    fn endless(&self) -> TrailError {
        let (path, offset) =
            self.segment.as_ref().map(|segment| (segment.path.clone(), segment.offset)).unwrap_or_default();
        TrailError::Endless { path, offset }
    }

    /// Reads on behind what is in the buffer; returns how many bytes came.
    fn fill(&mut self) -> Result<usize, TrailError> {
        let Some(current) = &self.segment else { return Ok(0) };
        self.buffer.drain(..self.taken);
        self.taken = 0;
        let held = self.buffer.len();
        self.buffer.resize(held + segment::READ_BYTES, 0);
        let room = self.buffer.get_mut(held..).unwrap_or_default();
        let read = current.file.read_at(room, current.offset + held as u64);
        self.buffer.truncate(held + read.as_ref().copied().unwrap_or(0));
        read.map_err(io_error("read", &current.path))
    }

    fn has_next(&self) -> Result<bool, TrailError> {
        let current = self.segment.as_ref().map_or(0, |segment| segment.first_seq);
        Ok(segment::list(&self.dir)?.last().is_some_and(|&last| last > current))
    }

    /// Goes to the start of the next segment there is.
    fn open_next(&mut self) -> Result<bool, TrailError> {
        let current = self.segment.as_ref().map_or(0, |segment| segment.first_seq);
        let next = segment::list(&self.dir)?.into_iter().find(|&first| first > current);
        let Some(first_seq) = next else { return Ok(false) };
        self.enter(first_seq, 0)?;
        Ok(true)
    }

    fn enter(&mut self, first_seq: u64, offset: u64) -> Result<(), TrailError> {
        let path = segment::path(&self.dir, first_seq);
        let file = File::open(&path).map_err(io_error("open", &path))?;
        self.buffer.clear();
        self.taken = 0;
        self.segment = Some(Segment { first_seq, path, file, offset });
        Ok(())
    }

    fn seek_end(&mut self) -> Result<(), TrailError> {
        let Some(&first_seq) = segment::list(&self.dir)?.last() else { return Ok(()) };
        self.enter(first_seq, 0)?;
        self.last_seq = first_seq.saturating_sub(1);
        if let Some(current) = &mut self.segment
            && let Some(last) = segment::last_line(&current.file, &current.path)?
        {
            current.offset = last.end;
            self.last_seq = last.head.seq;
        }
        Ok(())
    }

    fn seek_seq(&mut self, seq: u64) -> Result<(), TrailError> {
        self.from_seq = seq;
        let firsts = segment::list(&self.dir)?;
        let index = firsts.partition_point(|&first| first <= seq).saturating_sub(1);
        let Some(&first_seq) = firsts.get(index) else { return Ok(()) };
        self.enter(first_seq, 0)?;
        self.last_seq = seq.saturating_sub(1);
        if let Some(current) = &mut self.segment {
            current.offset = segment::bisect(&current.file, &current.path, |head| head.seq >= seq)?;
        }
        Ok(())
    }

    fn seek_time(&mut self, time: Timestamp) -> Result<(), TrailError> {
        self.since = time;
        let early = Timestamp(time.0.saturating_sub(DISORDER_NS));
        // The last segment that starts early enough; one whose first line says nothing is gone back over.
        for first_seq in segment::list(&self.dir)?.into_iter().rev() {
            self.enter(first_seq, 0)?;
            self.last_seq = first_seq.saturating_sub(1);
            let Some(current) = &mut self.segment else { continue };
            let mut block = vec![0; segment::READ_BYTES];
            let read = segment::read_at_most(&current.file, &mut block, 0).map_err(io_error("read", &current.path))?;
            let line = block.get(..read).unwrap_or_default().split_inclusive(|&byte| byte == b'\n').next();
            let head = line.and_then(|line| serde_json::from_slice::<segment::Head>(line).ok());
            if head.is_some_and(|head| head.time < early) {
                current.offset = segment::bisect(&current.file, &current.path, |head| head.time >= early)?;
                return Ok(());
            }
        }
        Ok(())
    }

    fn seek_cursor(&mut self, cursor: Cursor) -> Result<(), TrailError> {
        let next = cursor.seq.saturating_add(1);
        if cursor.seq == 0 || !segment::list(&self.dir)?.contains(&cursor.segment) {
            return self.seek_seq(next);
        }
        self.enter(cursor.segment, cursor.offset)?;
        self.last_seq = cursor.seq;
        self.from_seq = next;
        if !self.at_line_after(cursor)? {
            return self.seek_seq(next);
        }
        Ok(())
    }

    /// Whether the cursor's hint is right: the line before it ends there and is the entry it names.
    fn at_line_after(&self, cursor: Cursor) -> Result<bool, TrailError> {
        let Some(current) = &self.segment else { return Ok(false) };
        let from = cursor.offset.saturating_sub(segment::MAX_LINE_BYTES as u64 + 1);
        let mut block = vec![0; usize::try_from(cursor.offset - from).unwrap_or(0)];
        let read = segment::read_at_most(&current.file, &mut block, from).map_err(io_error("read", &current.path))?;
        if read < block.len() {
            return Ok(false);
        }
        let Some(body) = block.strip_suffix(b"\n") else { return Ok(false) };
        let line = body.rsplit(|&byte| byte == b'\n').next().unwrap_or_default();
        Ok(serde_json::from_slice::<segment::Head>(line).is_ok_and(|head| head.seq == cursor.seq))
    }
}
