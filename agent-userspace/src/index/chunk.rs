//! A chunk as it lies in an index: the length of its head and a checksum of it, the head as JSON, and sections, each with a
//! checksum in the head. Reading one never believes it: what does not fit is [`Malformed`], and the segment is scanned.

use std::fs::File;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::lines::{self, Lines};
use crate::control::sessions::Tally;
use crate::entry::Timestamp;
use crate::trail::segment::read_at_most;

/// The form of what is written, and the rules by which it is derived from entries. One of another version is made anew.
pub(super) const VERSION: u32 = 2;

/// A head is at most this long.
const MAX_HEAD_BYTES: usize = 64 << 10;
/// A section is at most this long: many times what a chunk can come to.
const MAX_SECTION_BYTES: u32 = 256 << 20;
/// The length of the head and its checksum.
const BEFORE_HEAD: usize = 8;

/// What is read is no chunk, or not one of this segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("what an index says does not fit")]
pub(super) struct Malformed;

/// Names of sections.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Section {
    /// Each line's length in bytes, its line feed included.
    Lengths,
    /// Lines that are no entries: whoever asks for anything is told.
    Unreadable,
    /// The sums of each session, as JSON, in the order of their first lines.
    Sessions,
    /// Dictionaries: names of agents.
    Agents,
    /// Ids of the sessions that entries belong to.
    SessionIds,
    /// Of gaps: the session that they speak of, or nothing.
    Gaps,
    /// Names of events.
    Events,
    /// Verdicts.
    Verdicts,
    /// Names of agents that delegated.
    Delegators,
    /// Ids of sessions that delegated.
    DelegatorSessions,
    /// Addresses, with ports.
    Addresses,
    /// Paths.
    Paths,
}

/// What a chunk says of itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Head {
    pub(super) version: u32,
    /// The bytes of the segment that it covers: whole lines.
    pub(super) from: u64,
    pub(super) to: u64,
    /// The seq of its first entry.
    pub(super) first_seq: u64,
    /// How many lines.
    pub(super) lines: usize,
    /// The earliest and the latest time of an entry.
    pub(super) earliest: Timestamp,
    pub(super) latest: Timestamp,
    /// The checksum of its last bytes in the segment, so many: those of the chain of its last line among them.
    pub(super) end: (usize, u32),
    /// Name, length, checksum.
    pub(super) sections: Vec<(Section, u32, u32)>,
}

/// A chunk in an index that is open.
#[derive(Clone, Debug)]
pub(super) struct Chunk {
    pub(super) head: Head,
    index: Arc<File>,
    /// Where its sections begin.
    sections_at: u64,
}

impl Chunk {
    /// Reads the head of the chunk that begins there; returns with it where the next one does.
    pub(super) fn open(index: &Arc<File>, at: u64) -> Result<(Self, u64), Malformed> {
        let before = read(index, at, BEFORE_HEAD)?;
        let (len, checksum) = before.split_first_chunk::<4>().ok_or(Malformed)?;
        let len = u32::from_le_bytes(*len) as usize;
        if len > MAX_HEAD_BYTES {
            return Err(Malformed);
        }
        let text = read(index, at + BEFORE_HEAD as u64, len)?;
        if crc32c::crc32c(&text).to_le_bytes() != checksum {
            return Err(Malformed);
        }
        let head: Head = serde_json::from_slice(&text).map_err(|_| Malformed)?;
        if head.version != VERSION || head.lines > super::CHUNK_LINES || head.from > head.to {
            return Err(Malformed);
        }
        let sections_at = at + (BEFORE_HEAD + len) as u64;
        let end = head.sections.iter().map(|&(_, len, _)| u64::from(len)).sum::<u64>() + sections_at;
        Ok((Self { head, index: Arc::clone(index), sections_at }, end))
    }

    /// Whether the segment's bytes are those that it was made of, by the last of them.
    pub(super) fn fits(&self, segment: &File) -> bool {
        let (len, checksum) = self.head.end;
        let at = self.head.to.checked_sub(len as u64).filter(|_| len <= MAX_HEAD_BYTES);
        at.and_then(|at| read(segment, at, len).ok()).is_some_and(|bytes| crc32c::crc32c(&bytes) == checksum)
    }

    /// Whether all its sections are as they were written.
    pub(super) fn is_sound(&self) -> bool {
        self.head.sections.iter().all(|&(name, ..)| self.section(name).is_ok())
    }

    /// Reads a section.
    pub(super) fn section(&self, wanted: Section) -> Result<Vec<u8>, Malformed> {
        let mut at = self.sections_at;
        for &(name, len, checksum) in &self.head.sections {
            if name == wanted {
                let bytes = read(&self.index, at, len.min(MAX_SECTION_BYTES) as usize)?;
                return if crc32c::crc32c(&bytes) == checksum { Ok(bytes) } else { Err(Malformed) };
            }
            at += u64::from(len);
        }
        Err(Malformed)
    }

    /// Lines that are no entries.
    pub(super) fn unreadable(&self) -> Result<Lines, Malformed> {
        let mut lines = Lines::none(self.head.lines);
        lines.add_encoded(&self.section(Section::Unreadable)?)?;
        Ok(lines)
    }

    /// The sums of each session.
    pub(super) fn sessions(&self) -> Result<Vec<Tally>, Malformed> {
        serde_json::from_slice(&self.section(Section::Sessions)?).map_err(|_| Malformed)
    }

    /// Where in the segment these lines stand: each one's first byte, and its length.
    pub(super) fn places(&self, wanted: &Lines) -> Result<Vec<(u64, usize)>, Malformed> {
        let lengths = self.section(Section::Lengths)?;
        let mut rest = lengths.as_slice();
        let (mut line, mut at) = (0, self.head.from);
        let mut places = Vec::new();
        for wanted in wanted.iter() {
            loop {
                let len = lines::number(&mut rest)?;
                let place = (at, len);
                at += len as u64;
                line += 1;
                if at > self.head.to {
                    return Err(Malformed);
                }
                if line > wanted {
                    places.push(place);
                    break;
                }
            }
        }
        Ok(places)
    }

    /// The first line that begins there or behind.
    pub(super) fn line_at(&self, offset: u64) -> Result<usize, Malformed> {
        let lengths = self.section(Section::Lengths)?;
        let (mut rest, mut line, mut at) = (lengths.as_slice(), 0, self.head.from);
        while at < offset && !rest.is_empty() {
            at += lines::number(&mut rest)? as u64;
            line += 1;
        }
        Ok(line)
    }
}

/// Writes a chunk: `head` lacks its sections only.
pub(super) fn encode(mut head: Head, sections: Vec<(Section, Vec<u8>)>) -> Result<Vec<u8>, serde_json::Error> {
    let described = |(name, bytes): &(Section, Vec<u8>)| (*name, bytes.len() as u32, crc32c::crc32c(bytes));
    head.sections = sections.iter().map(described).collect();
    let text = serde_json::to_vec(&head)?;
    let mut written = (text.len() as u32).to_le_bytes().to_vec();
    written.extend_from_slice(&crc32c::crc32c(&text).to_le_bytes());
    written.extend_from_slice(&text);
    for (_, bytes) in &sections {
        written.extend_from_slice(bytes);
    }
    Ok(written)
}

fn read(file: &File, at: u64, len: usize) -> Result<Vec<u8>, Malformed> {
    let mut bytes = vec![0; len];
    let read = read_at_most(file, &mut bytes, at).map_err(|_| Malformed)?;
    if read == len { Ok(bytes) } else { Err(Malformed) }
}
