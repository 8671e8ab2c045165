//! Who is in a session.

use agent_common::maps::{LOSS_INHERIT, MEMBER_PROVISIONAL, Member};
use agent_common::{RecordKind, record::FLAG_PROVISIONAL};
use aya_ebpf::bindings::task_struct;

use crate::maps::{DECIDED, MEMBER};
use crate::record::count_lost;

/// The membership of a task; `None` turns it away. A provisional one is brought up to date first, so that the daemon's
/// decision reaches every task of the session at its next action.
#[inline(always)]
pub fn of(task: *mut task_struct) -> Option<&'static mut Member> {
    let member = MEMBER.get(task)?;
    if member.flags & MEMBER_PROVISIONAL == 0 {
        return Some(member);
    }
    // SAFETY: the value is copied at once; the daemon writes it only once.
    let Some(decision) = (unsafe { DECIDED.get(&member.session) }) else { return Some(member) };
    if decision.session == 0 {
        MEMBER.delete(task);
        return None;
    }
    member.session = decision.session;
    member.agent = decision.agent;
    member.flags = 0;
    Some(member)
}

/// Gives a new task its parent's membership.
#[inline(always)]
pub fn inherit(child: *mut task_struct, parent: &Member) {
    match MEMBER.get_or_create(child) {
        Some(member) => *member = *parent,
        None => count_lost(parent.session, RecordKind::Fork.to_wire(), LOSS_INHERIT),
    }
}

/// The flags that a record about a member carries.
#[inline(always)]
pub fn record_flags(member: &Member) -> u16 {
    if member.flags & MEMBER_PROVISIONAL == 0 { 0 } else { FLAG_PROVISIONAL }
}
