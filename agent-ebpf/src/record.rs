//! Putting records together and handing them over.
//!
//! Whatever finds no room is counted, by session and kind; nothing is lost in silence.

use core::ffi::c_void;
use core::hint::black_box;

use agent_common::maps::{LOSS_RING, Loss, LossKey, Share};
use agent_common::record::STRING_CUT;
use agent_common::{RecordHeader, RecordKind, StringHeader, StringTag};
use aya_ebpf::bindings::{BPF_RB_AVAIL_DATA, BPF_RB_FORCE_WAKEUP, BPF_RB_NO_WAKEUP, BPF_RB_RING_SIZE};
use aya_ebpf::helpers::bpf_ktime_get_boot_ns;
use aya_ebpf::helpers::generated::{
    bpf_probe_read_kernel, bpf_probe_read_kernel_str, bpf_probe_read_user, bpf_probe_read_user_str, bpf_ringbuf_output,
};
use aya_ebpf::maps::RingBuf;

use crate::kernel::Unreadable;
use crate::kernel::hash::hash_of_string;
use crate::kernel::path::Resolved;
use crate::kernel::task::Who;
use crate::maps::{BULK, EMITTED, LOST, PATH_BYTES, RECORD_BYTES, SHARES, Scratch, State, WEIGHTY, fetch_add};

/// Wake the daemon when this many bytes wait: it polls as well, so that no record waits long. Waking it for each record
/// would cost more than all else.
const WAKE_AT_BYTES: u64 = 256 << 10;

/// Which ring, and whether the daemon must look at once.
#[derive(Clone, Copy, PartialEq)]
pub enum Urgency {
    /// The bulk ring.
    Bulk,
    /// The weighty ring.
    Weighty,
    /// The weighty ring, and the daemon is woken: somebody waits for its word.
    Now,
}

/// The header of a record about what `who` does.
#[inline(always)]
pub fn header(kind: u16, who: Who, session: u64, exec_number: u32, flags: u16) -> RecordHeader {
    RecordHeader {
        len_bytes: 0,
        kind,
        flags,
        // SAFETY: the helper takes nothing.
        time_boot_ns: unsafe { bpf_ktime_get_boot_ns() },
        session,
        start_boot_ns: who.start_boot_ns,
        tgid: who.tgid,
        tid: who.tid,
        exec_number,
        reserved: 0,
        sequence: 0,
        reserved_wide: 0,
    }
}

/// A record without strings: header and body, built where they stand.
#[repr(C)]
pub struct Fixed<B> {
    /// The header.
    pub header: RecordHeader,
    /// The body.
    pub body: B,
}

impl<B> Fixed<B> {
    /// Hands it over; whether it found room.
    #[inline(always)]
    pub fn emit(&mut self, urgency: Urgency) -> bool {
        let len = size_of::<Self>() as u32;
        self.header.len_bytes = len;
        self.header.sequence = next_sequence(urgency);
        let emitted = output(core::ptr::from_mut(self).cast(), len, &self.header, urgency);
        account(&self.header, emitted);
        emitted
    }
}

/// A record with strings, put together in a program's scratch buffer.
///
/// Its length so far stands in its header: of a number on the stack the verifier would follow every value it can take.
pub struct Builder {
    scratch: *mut Scratch,
}

/// The furthest a string may begin; a string has less than [`STRING_BYTES`], so all fits into the buffer.
const FURTHEST: u32 = 0x3fff;
const STRING_BYTES: u32 = 0x1fff;

/// A string as it stands in a record.
pub struct Given {
    at: *const u8,
    len_bytes: u32,
    /// Its first byte; 0 where it is empty.
    pub first: u8,
}

impl Builder {
    /// Begins a record with its header, and hands out the place of its body, to be filled in there: two of them would not
    /// fit on the stack.
    ///
    /// `scratch` is a map's value, and `B` integers alone: what stands there from before is a `B` too, whatever it says.
    #[inline(always)]
    pub fn begin<B: Copy>(scratch: *mut Scratch, header: RecordHeader) -> (Self, &'static mut B) {
        const { assert!(size_of::<RecordHeader>() + size_of::<B>() < FURTHEST as usize) };
        // SAFETY: header and body are much shorter than the buffer, which begins a map's value and so is aligned for both.
        let body = unsafe {
            let record = core::ptr::addr_of_mut!((*scratch).record).cast::<u8>();
            record.cast::<RecordHeader>().write(header);
            &mut *record.add(size_of::<RecordHeader>()).cast::<B>()
        };
        let mut record = Self { scratch };
        record.header().len_bytes = (size_of::<RecordHeader>() + size_of::<B>()) as u32;
        (record, body)
    }

    /// The record that stands in a scratch buffer.
    #[inline(always)]
    pub fn of(scratch: *mut Scratch) -> Self {
        Self { scratch }
    }

    /// Its header.
    #[inline(always)]
    pub fn header(&mut self) -> &mut RecordHeader {
        // SAFETY: the record begins with a header.
        unsafe { &mut *core::ptr::addr_of_mut!((*self.scratch).record).cast::<RecordHeader>() }
    }

    /// Where something stands that is part of the record: how far from its beginning.
    #[inline(always)]
    pub fn place_of<T>(&self, part: &T) -> u32 {
        (core::ptr::from_ref(part) as u64).wrapping_sub(self.scratch as u64) as u32
    }

    /// Of whose working memory this is a part.
    #[inline(always)]
    pub fn scratch(&self) -> u32 {
        // SAFETY: `scratch` is a map's value.
        unsafe { (*self.scratch).place }
    }

    #[inline(always)]
    fn at(&self, offset: u32) -> *mut u8 {
        let offset = (black_box(offset) & FURTHEST) as usize;
        // SAFETY: FURTHEST lies within the record's buffer.
        unsafe { core::ptr::addr_of_mut!((*self.scratch).record).cast::<u8>().add(offset) }
    }

    /// Begins with a record that was put together before, as long as its place.
    #[inline(always)]
    pub fn restore<const N: usize>(scratch: *mut Scratch, kept: &[u8; N]) -> Result<Self, Unreadable> {
        const { assert!(N <= RECORD_BYTES) };
        // SAFETY: the buffer has room for it, as just asserted.
        let failed = unsafe {
            let record = core::ptr::addr_of_mut!((*scratch).record);
            bpf_probe_read_kernel(record.cast(), N as u32, kept.as_ptr().cast())
        };
        if failed == 0 { Ok(Self { scratch }) } else { Err(Unreadable) }
    }

    /// The record so far, in a place of its own size, where it fits into that.
    #[inline(always)]
    pub fn whole<const N: usize>(&mut self) -> Option<&[u8; N]> {
        const { assert!(N <= RECORD_BYTES) };
        if self.header().len_bytes > N as u32 {
            return None;
        }
        // SAFETY: the record's buffer is a map's value and longer than that, as just asserted.
        Some(unsafe { &*core::ptr::addr_of!((*self.scratch).record).cast() })
    }

    /// The body, which is a `B`: the kind of the record says so.
    #[inline(always)]
    pub fn body<B: Copy>(&mut self) -> &'static mut B {
        // SAFETY: as for `begin`.
        unsafe {
            &mut *core::ptr::addr_of_mut!((*self.scratch).record).cast::<u8>().add(size_of::<RecordHeader>()).cast()
        }
    }

    /// The place that the next string's bytes would have.
    #[inline(always)]
    fn room(&mut self) -> *mut u8 {
        let len = self.header().len_bytes;
        self.at(len + size_of::<StringHeader>() as u32)
    }

    #[inline(always)]
    fn close(&mut self, tag: StringTag, len_bytes: u32, cut: bool) {
        let header =
            StringHeader { tag: tag.to_wire(), flags: if cut { STRING_CUT } else { 0 }, len_bytes: len_bytes as u16 };
        let len = self.header().len_bytes;
        // SAFETY: `at` lies within the buffer, with room behind it for a string.
        unsafe { core::ptr::write_unaligned(self.at(len).cast(), header) };
        self.header().len_bytes = len + size_of::<StringHeader>() as u32 + len_bytes;
    }

    /// Adds a resolved path.
    #[inline(always)]
    pub fn path(&mut self, tag: StringTag, path: &Resolved) -> Result<(), Unreadable> {
        let len = if path.len_bytes > PATH_BYTES as u32 { PATH_BYTES as u32 } else { path.len_bytes };
        let from = (black_box(path.start) & (PATH_BYTES as u32 - 1)) as usize;
        // SAFETY: `from` lies within the path's buffer, with room behind it for a path.
        let failed = unsafe {
            let from = core::ptr::addr_of!((*self.scratch).path).cast::<u8>().add(from);
            bpf_probe_read_kernel(self.room().cast(), black_box(len) & STRING_BYTES, from.cast())
        };
        if failed != 0 {
            return Err(Unreadable);
        }
        self.close(tag, len, path.cut);
        Ok(())
    }

    /// Adds a string that the process gave, up to its NUL.
    ///
    /// An address that cannot be read gives an empty string: the call failed for just that (EFAULT).
    #[inline(always)]
    pub fn user_string(&mut self, tag: StringTag, address: u64) -> Given {
        let at = self.room();
        // SAFETY: `room` has PATH_BYTES behind it.
        let read = unsafe { bpf_probe_read_user_str(at.cast(), PATH_BYTES as u32, address as *const c_void) };
        let len_bytes = if read > 0 { (read as u32 - 1) & (PATH_BYTES as u32 - 1) } else { 0 };
        // SAFETY: one byte of the buffer.
        let first = if len_bytes > 0 { unsafe { *at } } else { 0 };
        self.close(tag, len_bytes, len_bytes == PATH_BYTES as u32 - 1);
        Given { at, len_bytes, first }
    }

    /// A keyed hash of a string of the record. It is copied to where it stands aligned: the path's buffer, which is not in
    /// use yet.
    #[inline(always)]
    pub fn hash_of(&mut self, given: &Given) -> Result<u64, Unreadable> {
        const LAST_WORD: u32 = PATH_BYTES as u32 - 8;
        // SAFETY: the path's buffer is aligned and has more than PATH_BYTES.
        let (aligned, failed) = unsafe {
            let aligned = core::ptr::addr_of_mut!((*self.scratch).path).cast::<u8>();
            aligned.add((black_box(given.len_bytes) & LAST_WORD) as usize).cast::<u64>().write(0);
            let len = black_box(given.len_bytes) & (PATH_BYTES as u32 - 1);
            (aligned, bpf_probe_read_kernel(aligned.cast(), len, given.at.cast()))
        };
        if failed != 0 {
            return Err(Unreadable);
        }
        Ok(hash_of_string(aligned.cast(), given.len_bytes))
    }

    /// Adds a string of the kernel's, up to its NUL.
    #[inline(always)]
    pub fn kernel_string(&mut self, tag: StringTag, address: u64) -> Result<Given, Unreadable> {
        let at = self.room();
        // SAFETY: `room` has PATH_BYTES behind it.
        let read = unsafe { bpf_probe_read_kernel_str(at.cast(), PATH_BYTES as u32, address as *const c_void) };
        if read <= 0 {
            return Err(Unreadable);
        }
        let len_bytes = (read as u32 - 1) & (PATH_BYTES as u32 - 1);
        // SAFETY: one byte of the buffer.
        let first = if len_bytes > 0 { unsafe { *at } } else { 0 };
        self.close(tag, len_bytes, len_bytes == PATH_BYTES as u32 - 1);
        Ok(Given { at, len_bytes, first })
    }

    /// Adds a block of the process's memory, cut to what there is room for.
    #[inline(always)]
    pub fn user_block(&mut self, tag: StringTag, start: u64, end: u64) -> Result<(), Unreadable> {
        let wanted = end - start;
        let len = if wanted > u64::from(STRING_BYTES) { STRING_BYTES } else { wanted as u32 };
        // SAFETY: `room` has STRING_BYTES behind it.
        let failed =
            unsafe { bpf_probe_read_user(self.room().cast(), black_box(len) & STRING_BYTES, start as *const c_void) };
        if failed != 0 {
            return Err(Unreadable);
        }
        self.close(tag, len, wanted > u64::from(STRING_BYTES));
        Ok(())
    }

    /// Adds a short string that stands in a scratch buffer of the kernel side.
    #[inline(always)]
    pub fn bytes(&mut self, tag: StringTag, from: *const u8, len: u32, cut: bool) -> Result<(), Unreadable> {
        // SAFETY: `room` has STRING_BYTES behind it; a read from a bad address fails.
        let failed = unsafe { bpf_probe_read_kernel(self.room().cast(), black_box(len) & STRING_BYTES, from.cast()) };
        if failed != 0 {
            return Err(Unreadable);
        }
        self.close(tag, len, cut);
        Ok(())
    }

    /// Hands the record over; whether it found room. A failure is not counted here: the caller knows what it means.
    #[inline(always)]
    pub fn try_emit(&mut self, urgency: Urgency) -> bool {
        // SAFETY: `scratch` is a map's value.
        unsafe { hand_over((*self.scratch).place, urgency as u32) != 0 }
    }

    /// Hands the record over; a failure is counted.
    #[inline(always)]
    pub fn emit(&mut self, urgency: Urgency) {
        if !self.try_emit(urgency) {
            let header = self.header();
            count_lost(header.session, header.kind, LOSS_RING);
        }
    }
}

/// Hands over the record in a scratch buffer; 0 where it found no room.
///
/// By numbers alone, so that the verifier goes through it once for each program, not once for each way that leads to it.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn hand_over(scratch: u32, urgency: u32) -> u32 {
    let Some(scratch) = Scratch::at(scratch) else { return 0 };
    let mut record = Builder::of(scratch);
    let header = record.header();
    let len = black_box(header.len_bytes) & 0x7fff;
    let emitted = if urgency == Urgency::Bulk as u32 {
        header.sequence = next_sequence(Urgency::Bulk);
        output(core::ptr::from_mut(header).cast(), len, header, Urgency::Bulk)
    } else {
        header.sequence = next_sequence(Urgency::Weighty);
        let urgency = if urgency == Urgency::Now as u32 { Urgency::Now } else { Urgency::Weighty };
        output(core::ptr::from_mut(header).cast(), len, header, urgency)
    };
    if emitted {
        count_emitted(header.kind);
    }
    u32::from(emitted)
}

#[inline(always)]
fn account(header: &RecordHeader, emitted: bool) {
    if emitted {
        count_emitted(header.kind);
    } else {
        count_lost(header.session, header.kind, LOSS_RING);
    }
}

#[inline(always)]
fn count_emitted(kind: u16) {
    if let Some(count) = EMITTED.get_ptr_mut(u32::from(kind)) {
        // SAFETY: this processor's own number.
        unsafe { *count += 1 };
    }
}

#[inline(always)]
fn next_sequence(urgency: Urgency) -> u64 {
    match urgency {
        Urgency::Bulk => State::BulkSequence.next(),
        Urgency::Weighty | Urgency::Now => State::WeightySequence.next(),
    }
}

#[inline(always)]
fn output(record: *mut u8, len_bytes: u32, header: &RecordHeader, urgency: Urgency) -> bool {
    let ring: &RingBuf = match urgency {
        Urgency::Bulk => &BULK,
        Urgency::Weighty | Urgency::Now => &WEIGHTY,
    };
    let waiting = ring.query(u64::from(BPF_RB_AVAIL_DATA));
    let size = ring.query(u64::from(BPF_RB_RING_SIZE));
    let is_bulk = u32::from(urgency == Urgency::Bulk);
    if waiting >= free_to_all(size, header, urgency)
        && takes_of_its_share(header.session, len_bytes, is_bulk, size / 8) == 0
    {
        return false;
    }
    let wake = urgency == Urgency::Now || waiting > WAKE_AT_BYTES;
    let flags = if wake { BPF_RB_FORCE_WAKEUP } else { BPF_RB_NO_WAKEUP };
    // SAFETY: `len_bytes` bytes at `record` are initialised; a `RingBuf` is a map definition and nothing else.
    unsafe {
        bpf_ringbuf_output(
            core::ptr::from_ref(ring).cast_mut().cast(),
            record.cast(),
            u64::from(len_bytes),
            u64::from(flags),
        ) == 0
    }
}

/// How much of a ring is free to all, whoever needs it first.
///
/// That is half of it. Of the rest each session has an eighth of the ring until the daemon has drained some, so that one
/// that floods leaves room for the others. In the weighty ring what comes in numbers (changes of names) stops at half, all
/// else at three quarters: a session can't hide its own execs behind its own unlinks.
#[inline(always)]
fn free_to_all(size: u64, header: &RecordHeader, urgency: Urgency) -> u64 {
    const FIRST_IN_NUMBERS: u16 = RecordKind::Unlink.to_wire();
    const LAST_IN_NUMBERS: u16 = RecordKind::Mount.to_wire();
    let in_numbers = urgency == Urgency::Bulk || (FIRST_IN_NUMBERS..=LAST_IN_NUMBERS).contains(&header.kind);
    if in_numbers { size / 2 } else { size / 4 * 3 }
}

/// Takes room for one more record from a session's share of a ring; 0 where nothing is left of it.
///
/// By numbers alone: see `hand_over`.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn takes_of_its_share(session: u64, len_bytes: u32, is_bulk: u32, most: u64) -> u32 {
    let (epoch, len) = (State::Drains.load(), u64::from(len_bytes));
    if SHARES.get_ptr_mut(&session).is_none() {
        let new = Share { epoch, weighty_bytes: 0, bulk_bytes: 0 };
        // Another processor may have been quicker: then this fails, as it should.
        let _ = SHARES.insert(&session, &new, BPF_NOEXIST);
    }
    let Some(share) = SHARES.get_ptr_mut(&session) else { return 0 };
    // SAFETY: the pointer comes from the map.
    let share = unsafe { &mut *share };
    if share.epoch != epoch {
        *share = Share { epoch, weighty_bytes: 0, bulk_bytes: 0 };
    }
    let used = if is_bulk != 0 { &mut share.bulk_bytes } else { &mut share.weighty_bytes };
    // SAFETY: the pointer comes from the map.
    u32::from(unsafe { fetch_add(used, len) + len <= most })
}

/// Counts what could not be handed over.
#[inline(always)]
pub fn count_lost(session: u64, kind: u16, why: u32) {
    count_loss(session, u32::from(kind), why);
}

/// By numbers alone: see `hand_over`.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn count_loss(session: u64, kind: u32, why: u32) -> u32 {
    let key = LossKey { session, kind, why };
    // SAFETY: the helper takes nothing.
    let now = unsafe { bpf_ktime_get_boot_ns() };
    if LOST.get_ptr_mut(&key).is_none() {
        // Another processor may have been quicker: then this fails, as it should.
        let _ = LOST.insert(&key, &Loss { count: 0, first_boot_ns: now, last_boot_ns: now }, BPF_NOEXIST);
    }
    match LOST.get_ptr_mut(&key) {
        // SAFETY: the pointer comes from the map.
        Some(loss) => unsafe {
            fetch_add(core::ptr::addr_of_mut!((*loss).count), 1);
            (*loss).last_boot_ns = now;
        },
        None => {
            State::LostUncounted.next();
        }
    }
    0
}

/// Insert only where there is nothing.
pub const BPF_NOEXIST: u64 = 1;
