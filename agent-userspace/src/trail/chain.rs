//! The hash chain over the lines of the trail, as they lie on disk.
//!
//! Each line ends with `,"chain":"HASH"}`. HASH is the SHA-256, in hexadecimal, of the chain of the line before and of the
//! line's own bytes up to that comma: `printf '%s%s' "$before" "$body" | sha256sum`. The first line's predecessor is the
//! SHA-256 of `trail.json`. So nothing can be changed, put in, taken out or moved without every later line being written
//! anew.

use sha2::{Digest, Sha256};

/// What comes between a line's body and its chain.
const BEFORE: &str = ",\"chain\":\"";
/// What comes behind the chain.
const BEHIND: &str = "\"}\n";
/// A SHA-256 in hexadecimal digits.
pub(super) const CHAIN_BYTES: usize = 64;

/// The chain that the first line follows.
pub(super) fn genesis(identity: &[u8]) -> String {
    hexadecimal(&Sha256::digest(identity))
}

/// The chain of a line with this body.
pub(super) fn link(before: &str, body: &[u8]) -> String {
    let mut hash = Sha256::new();
    hash.update(before.as_bytes());
    hash.update(body);
    hexadecimal(&hash.finalize())
}

/// Ends a line whose body stands at the end of `lines`.
pub(super) fn close(lines: &mut Vec<u8>, chain: &str) {
    lines.extend_from_slice(BEFORE.as_bytes());
    lines.extend_from_slice(chain.as_bytes());
    lines.extend_from_slice(BEHIND.as_bytes());
}

/// A line's body and its chain; nothing where it does not end as a line of the trail does.
pub(super) fn split(line: &[u8]) -> Option<(&[u8], &str)> {
    let rest = line.strip_suffix(BEHIND.as_bytes())?;
    let (rest, chain) = rest.split_at_checked(rest.len().checked_sub(CHAIN_BYTES)?)?;
    Some((rest.strip_suffix(BEFORE.as_bytes())?, std::str::from_utf8(chain).ok()?))
}

/// Bytes as lower-case hexadecimal digits.
pub(super) fn hexadecimal(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let digit = |value: u8| DIGITS.get(usize::from(value)).copied().map_or('0', char::from);
    let mut text = String::with_capacity(2 * bytes.len());
    for &byte in bytes {
        text.push(digit(byte >> 4));
        text.push(digit(byte & 0xf));
    }
    text
}

/// The bytes that hexadecimal digits stand for.
pub(super) fn bytes_of(digits: &str) -> Option<Vec<u8>> {
    let pairs = digits.as_bytes().chunks(2);
    pairs
        .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok().filter(|pair| pair.len() == 2)?, 16).ok())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::{bytes_of, close, genesis, hexadecimal, link, split};

    #[test]
    fn a_closed_line_comes_apart_again() {
        let mut line = b"{\"uid\":\"x-1\"".to_vec();
        let chain = link(&genesis(b"{}"), &line);
        close(&mut line, &chain);
        assert_eq!(split(&line), Some((&b"{\"uid\":\"x-1\""[..], chain.as_str())));
        assert_eq!(split(line.strip_suffix(b"\n").unwrap_or_default()), None);
        assert_eq!(split(b"{}\n"), None);
    }

    #[test]
    fn hexadecimal_digits_come_back_as_bytes() {
        assert_eq!(hexadecimal(&[0, 0x9f, 0xff]), "009fff");
        assert_eq!(bytes_of("009fff"), Some(vec![0, 0x9f, 0xff]));
        assert_eq!((bytes_of("0g"), bytes_of("012")), (None, None));
    }
}
