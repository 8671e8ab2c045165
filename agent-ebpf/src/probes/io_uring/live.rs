//! Operations that are under way, by what their completions will say: the ring and the process's own word for the operation
//! (`user_data`). Further completions of one that has several, and those that find no room, name no request.
//!
//! The process may give several operations the same word. Then it is not known which of them a completion means.

use super::{ACCEPT, RECVMSG};
use crate::maps::{URING_LIVE, fetch_add};
use crate::record::BPF_NOEXIST;

/// What a completion says of its operation.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Key {
    /// The `struct io_ring_ctx`.
    pub ring: u64,
    /// The process's own word.
    pub user_data: u64,
}

/// The operations that go by the same key.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Live {
    /// The first of them: a `struct io_kiocb`; 0 where that has ended.
    pub request: u64,
    /// How many they are.
    pub count: u64,
    /// What they do, or [`SEVERAL`].
    pub opcode: u16,
    /// Of what takes connections or messages whether one is among them: constants beginning with `TAKES_`.
    pub takes: u16,
    /// Of one that receives messages, the room for the name in each.
    pub name_len: u32,
}

/// In the place of an opcode: they do not do the same.
pub const SEVERAL: u16 = u16::MAX;
/// One takes connections.
pub const TAKES_CONNECTIONS: u16 = 1;
/// One takes messages.
pub const TAKES_MESSAGES: u16 = 2;

/// An operation begins; whether a completion with that key will mean it and no other.
#[inline(always)]
pub(super) fn begin(key: &Key, request: u64, opcode: u8, name_len: u32) -> bool {
    let takes = match opcode {
        ACCEPT => TAKES_CONNECTIONS,
        RECVMSG => TAKES_MESSAGES,
        _ => 0,
    };
    let new = Live { request, count: 1, opcode: u16::from(opcode), takes, name_len };
    let Some(live) = URING_LIVE.get_ptr_mut(key) else {
        return URING_LIVE.insert(key, &new, BPF_NOEXIST).is_ok();
    };
    // SAFETY: the pointer comes from the map.
    unsafe {
        if (*live).request == request {
            // What had this place before was never completed.
            *live = new;
            return true;
        }
        fetch_add(core::ptr::addr_of_mut!((*live).count), 1);
        if (*live).opcode != new.opcode {
            (*live).opcode = SEVERAL;
        }
        (*live).takes |= takes;
    }
    false
}

/// The operations that go by a key.
#[inline(always)]
pub(super) fn of(key: &Key) -> Option<Live> {
    // SAFETY: the value is copied at once.
    unsafe { URING_LIVE.get(key) }.copied()
}

/// An operation has ended.
#[inline(always)]
pub(super) fn end(key: &Key, request: u64) {
    const LESS_ONE: u64 = u64::MAX;
    let Some(live) = URING_LIVE.get_ptr_mut(key) else { return };
    // SAFETY: the pointer comes from the map.
    unsafe {
        if fetch_add(core::ptr::addr_of_mut!((*live).count), LESS_ONE) <= 1 {
            let _ = URING_LIVE.remove(key);
        } else if (*live).request == request {
            (*live).request = 0;
        }
    }
}
