//! A dictionary: sorted terms, each with the lines that have it.
//!
//! Terms stand in blocks of [`BLOCK`]; within one, a term is what it shares with the one before and the rest. At the end
//! stand the places where blocks begin, and how many there are: so that a term, or the first of a range, is found by halving.

use std::cmp::Ordering;
use std::collections::HashMap;

use super::chunk::Malformed;
use super::lines::{self, Lines};

/// Terms of a block.
const BLOCK: usize = 16;

/// Terms with their lines, while a chunk is built.
#[derive(Debug, Default)]
pub(super) struct Terms(HashMap<Vec<u8>, Vec<u16>>);

impl Terms {
    /// That line has that term.
    pub(super) fn add(&mut self, term: &[u8], line: u16) {
        match self.0.get_mut(term) {
            Some(lines) if lines.last() == Some(&line) => {}
            Some(lines) => lines.push(line),
            None => {
                self.0.insert(term.to_vec(), vec![line]);
            }
        }
    }

    pub(super) fn encode(self) -> Vec<u8> {
        let mut terms: Vec<_> = self.0.into_iter().collect();
        terms.sort_unstable();
        let (mut written, mut blocks, mut posting) = (Vec::new(), Vec::new(), Vec::new());
        for (index, (term, lines)) in terms.iter().enumerate() {
            let before = match index % BLOCK {
                0 => {
                    blocks.push(written.len());
                    None
                }
                _ => index.checked_sub(1).and_then(|before| terms.get(before)),
            };
            let shared = before.map_or(0, |(before, _)| before.iter().zip(term).take_while(|(a, b)| a == b).count());
            let rest = term.get(shared..).unwrap_or_default();
            posting.clear();
            lines::encode(lines, &mut posting);
            for number in [shared, rest.len(), posting.len()] {
                lines::put_number(number as u64, &mut written);
            }
            written.extend_from_slice(rest);
            written.extend_from_slice(&posting);
        }
        for block in &blocks {
            written.extend_from_slice(&(*block as u32).to_le_bytes());
        }
        written.extend_from_slice(&(blocks.len() as u32).to_le_bytes());
        written
    }
}

/// A dictionary as it was written.
#[derive(Clone, Debug)]
pub(super) struct Dictionary<'a> {
    terms: &'a [u8],
    blocks: &'a [u8],
}

impl<'a> Dictionary<'a> {
    pub(super) fn read(written: &'a [u8]) -> Result<Self, Malformed> {
        let (rest, count) = written.split_last_chunk::<4>().ok_or(Malformed)?;
        let bytes = (u32::from_le_bytes(*count) as usize).checked_mul(4).ok_or(Malformed)?;
        let (terms, blocks) =
            rest.split_at_checked(rest.len().checked_sub(bytes).ok_or(Malformed)?).ok_or(Malformed)?;
        Ok(Self { terms, blocks })
    }

    /// Adds the lines of one term.
    pub(super) fn add_term(&self, term: &[u8], to: &mut Lines) -> Result<(), Malformed> {
        self.add_range(term, to, |found| if found == term { Take::Add } else { Take::End })
    }

    /// Adds the lines of all terms that begin so and that `wanted` wants.
    pub(super) fn add_beginning(
        &self,
        beginning: &[u8],
        to: &mut Lines,
        wanted: impl Fn(&[u8]) -> bool,
    ) -> Result<(), Malformed> {
        self.add_range(beginning, to, |found| match (found.starts_with(beginning), wanted(found)) {
            (false, _) => Take::End,
            (true, true) => Take::Add,
            (true, false) => Take::Pass,
        })
    }

    /// Goes through the terms from `first` on.
    pub(super) fn add_range(
        &self,
        first: &[u8],
        to: &mut Lines,
        take: impl Fn(&[u8]) -> Take,
    ) -> Result<(), Malformed> {
        let mut rest = self.terms.get(self.block_before(first)?..).ok_or(Malformed)?;
        let mut term = Vec::new();
        while !rest.is_empty() {
            let posting = next(&mut rest, &mut term)?;
            if term.as_slice() < first {
                continue;
            }
            match take(&term) {
                Take::Add => to.add_encoded(posting)?,
                Take::Pass => {}
                Take::End => break,
            }
        }
        Ok(())
    }

    /// Where the last block begins whose first term is not behind this one.
    fn block_before(&self, term: &[u8]) -> Result<usize, Malformed> {
        let (mut low, mut high) = (0, self.blocks.len() / 4);
        while high - low > 1 {
            let middle = low + (high - low) / 2;
            let mut block = self.terms.get(self.block(middle)?..).ok_or(Malformed)?;
            let mut found = Vec::new();
            next(&mut block, &mut found)?;
            match found.as_slice().cmp(term) {
                Ordering::Greater => high = middle,
                Ordering::Less | Ordering::Equal => low = middle,
            }
        }
        if high == 0 { Ok(0) } else { self.block(low) }
    }

    fn block(&self, index: usize) -> Result<usize, Malformed> {
        let place = self.blocks.get(index * 4..).and_then(<[u8]>::first_chunk).ok_or(Malformed)?;
        Ok(u32::from_le_bytes(*place) as usize)
    }
}

/// What to do with a term.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Take {
    /// Add its lines.
    Add,
    /// Go on with the next.
    Pass,
    /// It and all behind are not wanted.
    End,
}

/// Makes the term before into the next one; returns its lines as they are written.
fn next<'a>(rest: &mut &'a [u8], term: &mut Vec<u8>) -> Result<&'a [u8], Malformed> {
    let (shared, own, posting) = (lines::number(rest)?, lines::number(rest)?, lines::number(rest)?);
    if shared > term.len() {
        return Err(Malformed);
    }
    let (suffix, behind) = rest.split_at_checked(own).ok_or(Malformed)?;
    let (posting, behind) = behind.split_at_checked(posting).ok_or(Malformed)?;
    *rest = behind;
    term.truncate(shared);
    term.extend_from_slice(suffix);
    Ok(posting)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that cannot go on says so by panicking")]

    use super::*;

    fn written(count: u16) -> Vec<u8> {
        let mut terms = Terms::default();
        for line in 0..count {
            terms.add(format!("/srv/shop/{:03}", line % 100).as_bytes(), line);
            terms.add(b"", line);
        }
        terms.encode()
    }

    fn found(written: &[u8], add: impl Fn(&Dictionary<'_>, &mut Lines) -> Result<(), Malformed>) -> Vec<usize> {
        let mut lines = Lines::none(1000);
        add(&Dictionary::read(written).unwrap(), &mut lines).unwrap();
        lines.iter().collect()
    }

    #[test]
    fn a_term_is_found_wherever_it_stands() {
        let written = written(300);
        for term in 0..100usize {
            let name = format!("/srv/shop/{term:03}");
            let lines = found(&written, |dictionary, to| dictionary.add_term(name.as_bytes(), to));
            assert_eq!(lines, [term, term + 100, term + 200]);
        }
        assert_eq!(found(&written, |dictionary, to| dictionary.add_term(b"", to)).len(), 300);
        for missing in ["/srv/shop/0", "/srv/shop/0500", "/a", "/z"] {
            let lines = found(&written, |dictionary, to| dictionary.add_term(missing.as_bytes(), to));
            assert!(lines.is_empty(), "{missing}");
        }
    }

    #[test]
    fn terms_that_begin_alike_are_found_together() {
        let lines = found(&written(100), |dictionary, to| dictionary.add_beginning(b"/srv/shop/04", to, |_| true));
        assert_eq!(lines, (40..50).collect::<Vec<_>>());
        let even = |term: &[u8]| term.last().is_some_and(|digit| digit % 2 == 0);
        let lines = found(&written(100), |dictionary, to| dictionary.add_beginning(b"/srv/shop/04", to, even));
        assert_eq!(lines, [40, 42, 44, 46, 48]);
    }

    #[test]
    fn an_empty_dictionary_has_no_term() {
        let written = Terms::default().encode();
        assert!(found(&written, |dictionary, to| dictionary.add_beginning(b"", to, |_| true)).is_empty());
    }

    /// Whatever a damaged one says, reading it ends, without a panic.
    #[test]
    fn a_damaged_dictionary_is_malformed_or_says_something_else() {
        let good = written(300);
        for at in 0..good.len() {
            for bit in 0..8 {
                let mut bad = good.clone();
                bad[at] ^= 1 << bit;
                if let Ok(dictionary) = Dictionary::read(&bad) {
                    let _ = dictionary.add_beginning(b"/srv/shop/04", &mut Lines::none(300), |_| true);
                }
            }
        }
        for len in 0..good.len() {
            if let Ok(dictionary) = Dictionary::read(&good[..len]) {
                let _ = dictionary.add_term(b"/srv/shop/099", &mut Lines::none(300));
            }
        }
    }
}
