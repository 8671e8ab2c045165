//! Sets of a chunk's lines.

use super::chunk::Malformed;

/// Which of a chunk's lines, by their numbers from 0.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Lines {
    words: Vec<u64>,
    count: usize,
}

impl Lines {
    /// None of so many.
    pub(super) fn none(count: usize) -> Self {
        Self { words: vec![0; count.div_ceil(64)], count }
    }

    /// All of so many.
    pub(super) fn all(count: usize) -> Self {
        let mut lines = Self { words: vec![u64::MAX; count.div_ceil(64)], count };
        if let (Some(last), rest @ 1..) = (lines.words.last_mut(), count % 64) {
            *last = (1 << rest) - 1;
        }
        lines
    }

    pub(super) fn is_empty(&self) -> bool {
        self.words.iter().all(|&word| word == 0)
    }

    /// Adds a line; returns whether there is one of that number.
    pub(super) fn add(&mut self, line: usize) -> bool {
        let is_there = line < self.count;
        if is_there && let Some(word) = self.words.get_mut(line / 64) {
            *word |= 1 << (line % 64);
        }
        is_there
    }

    /// Adds what is written as [`encode`] does.
    pub(super) fn add_encoded(&mut self, encoded: &[u8]) -> Result<(), Malformed> {
        let mut rest = encoded;
        let mut next = 0;
        while !rest.is_empty() {
            let line = next + number(&mut rest)?;
            if !self.add(line) {
                return Err(Malformed);
            }
            next = line + 1;
        }
        Ok(())
    }

    pub(super) fn keep_only(&mut self, other: &Self) {
        for (word, other) in self.words.iter_mut().zip(&other.words) {
            *word &= other;
        }
    }

    pub(super) fn add_all(&mut self, other: &Self) {
        for (word, other) in self.words.iter_mut().zip(&other.words) {
            *word |= other;
        }
    }

    /// Takes away those before that one.
    pub(super) fn drop_before(&mut self, line: usize) {
        for (index, word) in self.words.iter_mut().enumerate() {
            let first = index * 64;
            if first + 64 <= line {
                *word = 0;
            } else if first < line {
                *word &= u64::MAX << (line - first);
            }
        }
    }

    /// Their numbers, ascending.
    pub(super) fn iter(&self) -> impl Iterator<Item = usize> + '_ {
        self.words.iter().enumerate().flat_map(|(index, &word)| {
            let rest = |word: &u64| Some(word & (word - 1)).filter(|&rest| rest != 0);
            std::iter::successors(Some(word).filter(|&word| word != 0), rest)
                .map(move |word| index * 64 + word.trailing_zeros() as usize)
        })
    }
}

/// Appends ascending lines: each as its distance from the one after the line before.
pub(super) fn encode(lines: &[u16], to: &mut Vec<u8>) {
    let mut next = 0;
    for &line in lines {
        put_number(u64::from(line) - next, to);
        next = u64::from(line) + 1;
    }
}

/// Appends a number in seven bits a byte, the least first; all but the last byte have the eighth bit.
pub(super) fn put_number(mut number: u64, to: &mut Vec<u8>) {
    while number >= 0x80 {
        to.push((number & 0x7f) as u8 | 0x80);
        number >>= 7;
    }
    to.push(number as u8);
}

/// Takes such a number off the beginning.
pub(super) fn number(from: &mut &[u8]) -> Result<usize, Malformed> {
    let mut number = 0;
    for shift in (0..=28).step_by(7) {
        let (&byte, rest) = from.split_first().ok_or(Malformed)?;
        *from = rest;
        number |= usize::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Ok(number);
        }
    }
    Err(Malformed)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that cannot go on says so by panicking")]

    use super::*;

    #[test]
    fn lines_come_back_as_they_were_written() {
        for lines in [vec![], vec![0], vec![63, 64, 65], vec![0, 1, 200, 201, 65_535]] {
            let mut written = Vec::new();
            encode(&lines, &mut written);
            let mut read = Lines::none(65_536);
            read.add_encoded(&written).unwrap();
            assert_eq!(
                read.iter().collect::<Vec<_>>(),
                lines.iter().map(|&line| usize::from(line)).collect::<Vec<_>>()
            );
        }
    }

    #[test]
    fn a_line_beyond_the_chunk_or_a_number_without_end_is_malformed() {
        assert!(Lines::none(10).add_encoded(&[10]).is_err());
        assert!(Lines::none(10).add_encoded(&[0x80]).is_err());
        assert!(Lines::none(10).add_encoded(&[0xff; 9]).is_err());
    }

    #[test]
    fn sets_are_cut_and_joined() {
        let mut all = Lines::all(130);
        assert_eq!(all.iter().count(), 130);
        all.drop_before(65);
        assert_eq!(all.iter().next(), Some(65));
        let mut some = Lines::none(130);
        assert!(some.add(3) && some.add(129) && !some.add(130));
        all.keep_only(&some);
        assert_eq!(all.iter().collect::<Vec<_>>(), [129]);
        all.add_all(&some);
        assert_eq!(all.iter().collect::<Vec<_>>(), [3, 129]);
        assert!(Lines::none(130).is_empty() && !all.is_empty());
    }
}
