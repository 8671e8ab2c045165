//! Keyed hashes of strings that the monitored process chose: two that hash alike would be counted as one.

use core::ffi::c_void;
use core::hint::black_box;

use aya_ebpf::Global;
use aya_ebpf::helpers::generated::bpf_loop;

use crate::maps::PATH_BYTES;

/// Key the hashes of paths, so that nobody outside can make two collide. Random.
#[unsafe(no_mangle)]
static PATH_HASH_KEY_LOW: Global<u64> = Global::new(0);
#[unsafe(no_mangle)]
static PATH_HASH_KEY_HIGH: Global<u64> = Global::new(0);

/// A keyed hash in the making: SipHash-1-3, a word at a time.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Hash([u64; 4]);

impl Hash {
    /// Of nothing yet.
    #[inline(always)]
    pub fn new() -> Self {
        let (low, high) = (PATH_HASH_KEY_LOW.load(), PATH_HASH_KEY_HIGH.load());
        Self([
            low ^ 0x736f_6d65_7073_6575,
            high ^ 0x646f_7261_6e64_6f6d,
            low ^ 0x6c79_6765_6e65_7261,
            high ^ 0x7465_6462_7974_6573,
        ])
    }

    /// Takes eight bytes in.
    #[inline(always)]
    pub fn word(&mut self, word: u64) {
        self.0[3] ^= word;
        self.round();
        self.0[0] ^= word;
    }

    /// The hash of all that was taken in.
    #[inline(always)]
    pub fn finish(mut self) -> u64 {
        self.0[2] ^= 0xff;
        self.round();
        self.round();
        self.round();
        self.0[0] ^ self.0[1] ^ self.0[2] ^ self.0[3]
    }

    #[inline(always)]
    fn round(&mut self) {
        let [mut a, mut b, mut c, mut d] = self.0;
        a = a.wrapping_add(b);
        c = c.wrapping_add(d);
        b = b.rotate_left(13) ^ a;
        d = d.rotate_left(16) ^ c;
        a = a.rotate_left(32).wrapping_add(d);
        c = c.wrapping_add(b);
        d = d.rotate_left(21) ^ a;
        b = b.rotate_left(17) ^ c;
        self.0 = [a, b, c.rotate_left(32), d];
    }
}

const WORDS: u32 = PATH_BYTES as u32 / 8;

#[repr(C)]
struct Hashing {
    words: *const u64,
    next: u32,
    end: u32,
    hash: Hash,
}

/// Takes a word in: a step of `bpf_loop`.
extern "C" fn take(_index: u64, hashing: *mut Hashing) -> i64 {
    // SAFETY: `bpf_loop` hands on the pointer that it was given.
    let hashing = unsafe { &mut *hashing };
    if hashing.next >= hashing.end {
        return 1;
    }
    let next = (black_box(hashing.next) & (WORDS - 1)) as usize;
    // SAFETY: the string stands in a buffer of PATH_BYTES.
    hashing.hash.word(unsafe { hashing.words.add(next).read() });
    hashing.next += 1;
    0
}

#[inline(always)]
fn take_all(hashing: &mut Hashing) {
    // SAFETY: `take` takes a `Hashing`, which outlives the loop.
    unsafe { bpf_loop(WORDS, take as *const () as *mut c_void, core::ptr::from_mut(hashing).cast(), 0) };
}

/// A keyed hash of a string that stands at `words`, with zeroes behind it up to a whole word.
#[inline(always)]
pub fn hash_of_string(words: *const u64, len: u32) -> u64 {
    let mut hashing = Hashing { words, next: 0, end: len.div_ceil(8), hash: Hash::new() };
    take_all(&mut hashing);
    hashing.hash.word(u64::from(len));
    hashing.hash.finish()
}

/// A keyed hash of the string that begins at `start` in a buffer of [`PATH_BYTES`] and fills it to its end.
#[inline(always)]
pub fn hash_of_end(words: *const u64, start: u32) -> u64 {
    let mut hashing = Hashing { words, next: start / 8, end: WORDS, hash: Hash::new() };
    if start & 7 != 0 {
        // What stands in the first word before the string is no part of it.
        let next = (black_box(hashing.next) & (WORDS - 1)) as usize;
        // SAFETY: `next` lies within the buffer.
        let first = unsafe { words.add(next).read() };
        hashing.hash.word(first >> ((start & 7) * 8));
        hashing.next += 1;
    }
    take_all(&mut hashing);
    hashing.hash.word(u64::from(start));
    hashing.hash.finish()
}
