//! The end of a connection, with the bytes that went over it.
//!
//! Hook: `tp_btf/inet_sock_set_state`. It runs wherever the connection ends, in whatever process that is: whose it was is
//! remembered when it was made. Sees TCP. Misses connections that were made before their process joined a session.

use agent_common::RecordKind;
use agent_common::maps::Owner;
use agent_common::network::{Closed, Socket};
use aya_ebpf::macros::btf_tracepoint;
use aya_ebpf::programs::BtfTracePointContext;

use super::{SOCK_STREAM, describe};
use crate::kernel::offsets::{SOCK_FLAGS, TCP_BYTES_RECEIVED, TCP_BYTES_RETRANS, TCP_BYTES_SENT};
use crate::kernel::task::Who;
use crate::kernel::{Unreadable, read};
use crate::maps::{OWNERS, Scratch, ScratchOf};
use crate::member;
use crate::probes::calls::Call;
use crate::record::{Builder, Urgency, count_lost, header};

/// Remembers whose connection this is.
#[inline(always)]
pub(super) fn remember(call: &Call, sock: u64, body: &Socket) {
    const IPPROTO_TCP: u16 = 6;
    if body.socket_type != SOCK_STREAM || body.protocol != IPPROTO_TCP {
        return;
    }
    let who = call.who;
    let owner = Owner {
        session: call.member.session,
        start_boot_ns: who.start_boot_ns,
        tgid: who.tgid,
        tid: who.tid,
        exec_number: call.member.exec_number,
        flags: u32::from(member::record_flags(&call.member)),
    };
    if OWNERS.insert(&sock, &owner, 0).is_err() {
        count_lost(owner.session, RecordKind::Close.to_wire(), agent_common::maps::LOSS_READ);
    }
}

/// Whether it is remembered whose connection this is.
#[inline(always)]
pub(super) fn is_known(sock: u64) -> bool {
    // SAFETY: nothing of the value is read.
    unsafe { OWNERS.get(&sock) }.is_some()
}

/// A socket changes its state.
#[btf_tracepoint(function = "inet_sock_set_state")]
pub fn on_socket_state(ctx: BtfTracePointContext) -> i32 {
    const TCP_CLOSE: i32 = 7;
    let sock: u64 = ctx.arg(0);
    let state: i32 = ctx.arg(2);
    if state != TCP_CLOSE {
        return 0;
    }
    // SAFETY: the value is copied at once.
    let Some(owner) = (unsafe { OWNERS.get(&sock) }) else { return 0 };
    let owner = *owner;
    let _ = OWNERS.remove(&sock);
    let Some(scratch) = Scratch::of(ScratchOf::State) else { return 0 };
    if closed(sock, &owner, scratch).is_err() {
        count_lost(owner.session, RecordKind::Close.to_wire(), agent_common::maps::LOSS_READ);
    }
    0
}

#[inline(always)]
fn closed(sock: u64, owner: &Owner, scratch: *mut Scratch) -> Result<(), Unreadable> {
    /// The far end has said that it sends no more: that too takes a place in its sequence of bytes.
    const SOCK_DONE: u64 = 2;
    let who = Who { tgid: owner.tgid, tid: owner.tid, start_boot_ns: owner.start_boot_ns };
    let head = header(RecordKind::Close.to_wire(), who, owner.session, owner.exec_number, owner.flags as u16);
    let (mut record, body) = Builder::begin::<Closed>(scratch, head);
    if !describe(sock, &mut body.socket)? {
        return Ok(());
    }
    let sent: u64 = read(sock, &TCP_BYTES_SENT)?;
    let again: u64 = read(sock, &TCP_BYTES_RETRANS)?;
    let received: u64 = read(sock, &TCP_BYTES_RECEIVED)?;
    let done = read::<u64>(sock, &SOCK_FLAGS)? & SOCK_DONE != 0;
    body.bytes_sent = sent.wrapping_sub(again);
    body.bytes_received = if done && received > 0 { received - 1 } else { received };
    record.emit(Urgency::Weighty);
    Ok(())
}
