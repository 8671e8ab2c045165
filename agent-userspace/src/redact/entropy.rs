//! Words that look drawn at random: long, of mixed classes of characters that change often, of high entropy.
//!
//! What is random but no secret has forms of its own: digests (hexadecimal, of a digest's length), UUIDs (short runs
//! between dashes), ULIDs, integrity hashes (`sha512-…`), public SSH keys, and names of files: what a compiler or a cache
//! makes up for them looks random, and stands in every command line of a linker.

use std::ops::Range;

/// Shorter words of three classes are too like identifiers.
const MIXED_BYTES: usize = 20;
/// The same for words of digits and lower-case letters.
const LOWER_BYTES: usize = 24;
/// The same for digits and upper-case letters: one more than a ULID has, and two.
const UPPER_BYTES: usize = 28;
/// A word with slashes in it is as long as an AWS secret key, or more likely a relative path.
const SLASHED_BYTES: usize = 40;
/// Hexadecimal digits of a digest: MD5 and trace ids, SHA-1 and git (38 in the name of an object's file), SHA-224, SHA-256,
/// SHA-384, SHA-512.
const DIGESTS: [usize; 7] = [32, 38, 40, 56, 64, 96, 128];
/// One in so many characters at most is neither letter nor digit; in names of several words more are.
const MOST_MARKS_IN: usize = 9;
/// How a public SSH key begins: the length and the start of its algorithm's name.
const PUBLIC_KEYS: [&[u8]; 4] = [b"AAAAB3NzaC1", b"AAAAC3NzaC1", b"AAAAE2VjZHNh", b"AAAAGnNr"];

/// Adds the words of a text that look drawn at random.
pub(super) fn find(text: &[u8], pieces: &mut Vec<Range<usize>>) {
    let mut start = 0;
    let mut place = Place { start: 0, slashed: false };
    for end in 0..=text.len() {
        let byte = text.get(end).copied().unwrap_or(b' ');
        if is_of_word(byte) {
            place.slashed |= byte == b'/';
            continue;
        }
        if end - start >= MIXED_BYTES {
            judge(text, start..end, &place, pieces);
        }
        start = end + 1;
        if !is_of_path(byte) {
            place = Place { start, slashed: false };
        }
    }
}

/// Where a word stands: what may be the name of a file, up to the word's end.
struct Place {
    start: usize,
    /// Whether it has a slash in it.
    slashed: bool,
}

fn is_of_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/' | b'-' | b'_')
}

/// Whether the byte, which is of no word, may stand within a path.
fn is_of_path(byte: u8) -> bool {
    matches!(byte, b'.' | b'~' | b'@' | b'%') || !byte.is_ascii()
}

fn judge(text: &[u8], at: Range<usize>, place: &Place, pieces: &mut Vec<Range<usize>>) {
    let word = text.get(at.clone()).unwrap_or_default();
    let before = text.get(..at.start).unwrap_or_default();
    let whole = text.get(place.start..at.end).unwrap_or_default();
    let rooted = [b"/".as_slice(), b"./", b"../", b"~/"].iter().any(|root| whole.starts_with(root));
    if rooted || is_integrity(before, word) || PUBLIC_KEYS.iter().any(|key| word.starts_with(key)) {
        return;
    }
    if is_mixed(word) && (!place.slashed || word.len() >= SLASHED_BYTES) {
        // What is base64 may be padded: that tells nothing, but belongs to it.
        let padding = text.get(at.end..).unwrap_or_default().iter().take(2).take_while(|&&byte| byte == b'=').count();
        return pieces.push(at.start..at.end + padding);
    }
    if place.slashed {
        return;
    }
    let mut run = 0;
    for end in 0..=word.len() {
        if word.get(end).is_some_and(u8::is_ascii_alphanumeric) {
            continue;
        }
        if word.get(run..end).is_some_and(is_random_run) {
            pieces.push(at.start + run..at.start + end);
        }
        run = end + 1;
    }
}

/// `sha512-BASE64`, `SHA256:BASE64`: what a thing is, not what opens it.
fn is_integrity(before: &[u8], word: &[u8]) -> bool {
    let names: [&[u8]; 4] = [b"sha1", b"sha256", b"sha384", b"sha512"];
    let begins =
        |text: &[u8], name: &[u8]| text.get(..name.len()).is_some_and(|start| start.eq_ignore_ascii_case(name));
    let ends = |text: &[u8], name: &[u8]| {
        text.len()
            .checked_sub(name.len())
            .is_some_and(|at| text.get(at..).is_some_and(|end| end.eq_ignore_ascii_case(name)))
    };
    names.iter().any(|name| {
        (begins(word, name) && word.get(name.len()) == Some(&b'-'))
            || before.strip_suffix(b":").is_some_and(|before| ends(before, name))
    })
}

/// What a word is made of.
#[derive(Default)]
struct Made {
    lower: usize,
    upper: usize,
    digits: usize,
    /// Neighbours, both letters or digits.
    pairs: usize,
    /// Neighbours of different classes.
    changes: usize,
    /// Neighbours of which one is a capital and the other is not.
    case_changes: usize,
}

impl Made {
    fn of(word: &[u8]) -> Self {
        let mut made = Self::default();
        let mut before = None;
        for byte in word {
            let class = match byte {
                b'a'..=b'z' => Some(0),
                b'A'..=b'Z' => Some(1),
                b'0'..=b'9' => Some(2),
                _ => None,
            };
            match class {
                Some(0) => made.lower += 1,
                Some(1) => made.upper += 1,
                Some(_) => made.digits += 1,
                None => {}
            }
            if let (Some(before), Some(class)) = (before, class) {
                made.pairs += 1;
                made.changes += usize::from(before != class);
                made.case_changes += usize::from(before + class == 1);
            }
            before = class;
        }
        made
    }

    /// Whether at least that many of a hundred neighbours differ in class. Of random base64 62 do, of identifiers about 20.
    fn changes_often(&self, of_hundred: usize) -> bool {
        self.changes * 100 >= self.pairs * of_hundred
    }
}

/// Random base64: three classes, which change from character to character.
fn is_mixed(word: &[u8]) -> bool {
    let made = Made::of(word);
    made.lower >= 2
        && made.upper >= 2
        && made.digits >= 1
        && (word.len() - made.lower - made.upper - made.digits) * MOST_MARKS_IN <= word.len()
        && made.changes_often(38)
        && made.case_changes * 100 >= made.pairs * 12
        && entropy_of(word) >= least_entropy(word.len())
}

/// Random letters of one case with digits: base32, base36, hexadecimal of no digest's length.
fn is_random_run(run: &[u8]) -> bool {
    if run.len() < LOWER_BYTES {
        return false;
    }
    let made = Made::of(run);
    let one_case = match (made.lower, made.upper) {
        (0, _) => run.len() >= UPPER_BYTES,
        (_, 0) => true,
        _ => false,
    };
    let is_digest = DIGESTS.contains(&run.len()) && run.iter().all(u8::is_ascii_hexdigit);
    one_case
        && !is_digest
        && made.digits * 100 >= run.len() * 10
        && made.digits * 100 <= run.len() * 85
        && made.changes_often(22)
        && entropy_of(run) >= 3.2
}

/// Random words of 20 characters have 4.1 bits a character, of 40 about 4.8; what repeats itself has less.
fn least_entropy(bytes: usize) -> f64 {
    if bytes < 32 { 3.5 } else { 4.0 }
}

/// Shannon's entropy of the characters of a word, in bits a character.
fn entropy_of(word: &[u8]) -> f64 {
    let mut counts = [0_u32; 256];
    for &byte in word {
        if let Some(count) = counts.get_mut(usize::from(byte)) {
            *count += 1;
        }
    }
    let all = word.len() as f64;
    let share = |&count: &u32| f64::from(count) / all;
    counts.iter().filter(|&&count| count > 0).map(share).map(|share| -share * share.log2()).sum()
}

#[cfg(test)]
mod tests {
    use super::{entropy_of, find};

    /// `xorshift64*`: the same words in every run.
    struct Random(u64);

    impl Random {
        fn word(&mut self, alphabet: &[u8], bytes: usize) -> String {
            let mut word = String::new();
            for _ in 0..bytes {
                self.0 ^= self.0 >> 12;
                self.0 ^= self.0 << 25;
                self.0 ^= self.0 >> 27;
                let drawn = self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33;
                word.push(char::from(alphabet[usize::try_from(drawn).unwrap_or(0) % alphabet.len()]));
            }
            word
        }
    }

    fn is_found(word: &str) -> bool {
        let mut pieces = Vec::new();
        find(word.as_bytes(), &mut pieces);
        !pieces.is_empty()
    }

    #[test]
    fn entropy_is_that_of_shannon() {
        assert!((entropy_of(b"aaaa") - 0.0).abs() < 1e-9);
        assert!((entropy_of(b"abcd") - 2.0).abs() < 1e-9);
    }

    #[test]
    fn nearly_every_random_word_is_found() {
        let lower: &[u8] = b"abcdefghijklmnopqrstuvwxyz0123456789";
        let mixed: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";
        let url: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
        let base64: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
        let mut random = Random(0x9e37_79b9_7f4a_7c15);
        for (alphabet, bytes, least) in
            [(mixed, 24, 930), (mixed, 32, 980), (url, 43, 980), (base64, 44, 940), (lower, 32, 930), (lower, 40, 960)]
        {
            let found = (0..1_000).filter(|_| is_found(&random.word(alphabet, bytes))).count();
            println!("{bytes} of {} characters: {found} of 1000", alphabet.len());
            assert!(found >= least, "{bytes} of {} characters: {found} of 1000", alphabet.len());
        }
    }

    #[test]
    fn a_digest_is_no_secret_however_random() {
        let mut random = Random(7);
        for bytes in [32, 40, 56, 64, 96, 128] {
            assert!((0..1_000).all(|_| !is_found(&random.word(b"0123456789abcdef", bytes))), "{bytes}");
        }
    }
}
