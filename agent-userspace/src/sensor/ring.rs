//! A reader of a mapped BPF ring buffer that moves the consumer's position only when it is told to.
//!
//! aya's reader gives each record up as it is read; ours gives records up when what they said is on disk.
#![allow(unsafe_code, reason = "the ring is memory that the kernel shares with us")]

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};

const HEADER_BYTES: u64 = 8;
const BUSY: u32 = 1 << 31;
const DISCARDED: u32 = 1 << 30;

/// A ring, mapped.
///
/// Layout (kernel/bpf/ringbuf.c): a page with the consumer's position, which we write; a page with the producer's; then
/// the data, mapped twice in a row so that no record is ever split.
pub(super) struct Ring {
    fd: OwnedFd,
    consumer: NonNull<u8>,
    producer: NonNull<u8>,
    data_bytes: u64,
    page_bytes: u64,
}

// SAFETY: the mappings belong to the ring alone, and positions are accessed as atomics.
unsafe impl Send for Ring {}

impl Ring {
    /// Maps the ring buffer map behind `fd`, whose data are `data_bytes` long.
    ///
    /// # Errors
    /// The map can't be mapped: it is no ring buffer of that size.
    pub(super) fn map(fd: OwnedFd, data_bytes: u64) -> io::Result<Self> {
        let page_bytes = rustix::param::page_size() as u64;
        let consumer = map_shared(&fd, page_bytes as usize, ProtFlags::READ | ProtFlags::WRITE, 0)?;
        let whole = (page_bytes + 2 * data_bytes) as usize;
        let producer = match map_shared(&fd, whole, ProtFlags::READ, page_bytes) {
            Ok(producer) => producer,
            Err(error) => {
                // SAFETY: mapped just above, with this length, and not used by anybody.
                let _ = unsafe { munmap(consumer.as_ptr().cast(), page_bytes as usize) };
                return Err(error);
            }
        };
        Ok(Self { fd, consumer, producer, data_bytes, page_bytes })
    }

    /// Where the next record begins that has not been given up.
    pub(super) fn position(&self) -> u64 {
        // SAFETY: the first word of the consumer's page is its position.
        unsafe { self.consumer.cast::<AtomicU64>().as_ref() }.load(Ordering::Acquire)
    }

    /// What it can hold.
    pub(super) fn size_bytes(&self) -> u64 {
        self.data_bytes
    }

    /// What waits in it, heads and what is not complete yet included.
    pub(super) fn used_bytes(&self) -> u64 {
        // SAFETY: the first word of the producer's page is its position.
        let produced = unsafe { self.producer.cast::<AtomicU64>().as_ref() }.load(Ordering::Acquire);
        produced.saturating_sub(self.position())
    }

    /// The record at `position`, and the position behind it; `None` when there is none that is complete.
    ///
    /// The bytes are the kernel's to write again as soon as [`Ring::give_up`] moves beyond them: hence `&mut` there.
    pub(super) fn record_at(&self, mut position: u64) -> Option<(&[u8], u64)> {
        loop {
            // SAFETY: the first word of the producer's page is its position.
            let produced = unsafe { self.producer.cast::<AtomicU64>().as_ref() }.load(Ordering::Acquire);
            if position >= produced {
                return None;
            }
            let at = (self.page_bytes + (position & (self.data_bytes - 1))) as usize;
            // SAFETY: `at` lies within the data, and a record's head is aligned to eight bytes.
            let header = unsafe { self.producer.add(at).cast::<AtomicU32>().as_ref() }.load(Ordering::Acquire);
            if header & BUSY != 0 {
                return None;
            }
            let len = u64::from(header & !(BUSY | DISCARDED));
            let next = position + (HEADER_BYTES + len).next_multiple_of(8);
            if header & DISCARDED != 0 {
                position = next;
                continue;
            }
            // SAFETY: a record lies within the doubled data, and the kernel does not write it until it is given up.
            let bytes = unsafe {
                std::slice::from_raw_parts(self.producer.add(at + HEADER_BYTES as usize).as_ptr(), len as usize)
            };
            return Some((bytes, next));
        }
    }

    /// Gives up all records before `position`.
    pub(super) fn give_up(&mut self, position: u64) {
        // SAFETY: the first word of the consumer's page is its position, which only we write.
        unsafe { self.consumer.cast::<AtomicU64>().as_ref() }.store(position, Ordering::Release);
    }
}

impl AsFd for Ring {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl Drop for Ring {
    fn drop(&mut self) {
        // SAFETY: both were mapped with these lengths, and no reference outlives the ring.
        unsafe {
            let _ = munmap(self.consumer.as_ptr().cast(), self.page_bytes as usize);
            let _ = munmap(self.producer.as_ptr().cast(), (self.page_bytes + 2 * self.data_bytes) as usize);
        }
    }
}

fn map_shared(fd: &OwnedFd, len: usize, protection: ProtFlags, offset: u64) -> io::Result<NonNull<u8>> {
    // SAFETY: a fresh mapping, at an address of the kernel's choice.
    let address = unsafe { mmap(std::ptr::null_mut(), len, protection, MapFlags::SHARED, fd, offset) }?;
    NonNull::new(address.cast()).ok_or_else(|| io::Error::other("the kernel mapped the ring at address 0"))
}
