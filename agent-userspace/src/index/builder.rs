//! A chunk in the making: lines of a segment in, a chunk out. Pure.

use std::collections::HashMap;

use super::CHUNK_LINES;
use super::chunk::{self, Head, Section, VERSION};
use super::dictionary::Terms;
use super::facets::{self, DICTIONARIES};
use super::lines;
use crate::control::sessions::{Tally, session_of};
use crate::entry::{Entry, SessionId, Timestamp};

/// So many of a chunk's last bytes show that it is of this segment: the end of a line, with its chain.
const END_BYTES: usize = 128;

#[derive(Debug)]
pub(super) struct Builder {
    most_bytes: u64,
    from: u64,
    to: u64,
    first_seq: Option<u64>,
    count: usize,
    earliest: Timestamp,
    latest: Timestamp,
    end: (usize, u32),
    lengths: Vec<u8>,
    unreadable: Vec<u16>,
    terms: [Terms; DICTIONARIES.len()],
    sessions: Vec<Tally>,
    places: HashMap<SessionId, usize>,
}

impl Builder {
    /// Of the lines from that byte of a segment on, full with so many bytes.
    pub(super) fn from(from: u64, most_bytes: u64) -> Self {
        Self {
            most_bytes,
            from,
            to: from,
            first_seq: None,
            count: 0,
            earliest: Timestamp(u64::MAX),
            latest: Timestamp(0),
            end: (0, 0),
            lengths: Vec::new(),
            unreadable: Vec::new(),
            terms: Default::default(),
            sessions: Vec::new(),
            places: HashMap::new(),
        }
    }

    /// Adds the next line, and the entry that it is.
    pub(super) fn add(&mut self, line: &[u8], entry: Option<&Entry>) {
        let number = self.count as u16;
        self.count += 1;
        self.to += line.len() as u64;
        let end = line.get(line.len().saturating_sub(END_BYTES)..).unwrap_or_default();
        self.end = (end.len(), crc32c::crc32c(end));
        lines::put_number(line.len() as u64, &mut self.lengths);
        match entry {
            None => self.unreadable.push(number),
            Some(entry) => self.add_entry(number, entry),
        }
    }

    fn add_entry(&mut self, number: u16, entry: &Entry) {
        self.first_seq.get_or_insert(entry.seq);
        self.earliest = self.earliest.min(entry.draft.time);
        self.latest = self.latest.max(entry.draft.time);
        facets::terms(entry, |section, term| {
            for (name, terms) in DICTIONARIES.iter().zip(&mut self.terms) {
                if *name == section {
                    terms.add(term, number);
                }
            }
        });
        let Some(session) = session_of(entry) else { return };
        let place = *self.places.entry(session).or_insert(self.sessions.len());
        if place == self.sessions.len() {
            self.sessions.push(Tally::of(session));
        }
        if let Some(tally) = self.sessions.get_mut(place) {
            tally.add(entry);
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.count == 0
    }

    pub(super) fn is_full(&self) -> bool {
        self.to - self.from >= self.most_bytes || self.count >= CHUNK_LINES
    }

    /// The byte behind the last line.
    pub(super) fn to(&self) -> u64 {
        self.to
    }

    /// The chunk as it is written.
    pub(super) fn finish(self) -> Result<Vec<u8>, serde_json::Error> {
        let head = Head {
            version: VERSION,
            from: self.from,
            to: self.to,
            first_seq: self.first_seq.unwrap_or(0),
            lines: self.count,
            earliest: self.earliest,
            latest: self.latest,
            end: self.end,
            sections: Vec::new(),
        };
        let mut unreadable = Vec::new();
        lines::encode(&self.unreadable, &mut unreadable);
        let mut sections = vec![
            (Section::Lengths, self.lengths),
            (Section::Unreadable, unreadable),
            (Section::Sessions, serde_json::to_vec(&self.sessions)?),
        ];
        sections.extend(DICTIONARIES.into_iter().zip(self.terms.map(Terms::encode)));
        chunk::encode(head, sections)
    }
}
