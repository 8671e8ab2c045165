//! Privileges: signals sent to processes outside the session.
//!
//! Hook: `tp_btf/signal_generate`, which runs in the sender and names the task that is signalled: whatever call, and
//! whatever process id it was given. Signals that the kernel itself sends are not told of, nor are those that stay within
//! the session. Misses a signal that the kernel refuses: that is no use of a privilege. All other privileges are system
//! calls, told of as they are made.

use agent_common::RecordKind;
use agent_common::call::Act;
use aya_ebpf::bindings::task_struct;
use aya_ebpf::helpers::bpf_get_current_task_btf;
use aya_ebpf::macros::btf_tracepoint;
use aya_ebpf::programs::BtfTracePointContext;

use crate::kernel::offsets::SIGINFO_CODE;
use crate::kernel::read;
use crate::kernel::task::Who;
use crate::maps::{MEMBER, SCRATCH_SIGNAL};
use crate::member;
use crate::record::{Builder, Urgency, header};

/// A signal is sent.
#[btf_tracepoint(function = "signal_generate")]
pub fn on_signal(ctx: BtfTracePointContext) -> i32 {
    // SAFETY: the helper takes nothing.
    let task: *mut task_struct = unsafe { bpf_get_current_task_btf() }.cast();
    let Some(member) = member::of(task) else { return 0 };
    let (signal, info): (u32, u64) = (ctx.arg(0), ctx.arg(1));
    let target: *mut task_struct = ctx.arg(2);
    let target_session = match MEMBER.get(target) {
        Some(target) => target.session,
        None => 0,
    };
    if target_session == member.session || !is_from_a_process(info) {
        return 0;
    }
    let Some(scratch) = SCRATCH_SIGNAL.get_ptr_mut(0) else { return 0 };
    let kind = RecordKind::Signal.to_wire();
    let head = header(kind, Who::of(task), member.session, member.exec_number, member::record_flags(member));
    let (mut record, body) = Builder::begin::<Act>(scratch, head);
    let whom = Who::of(target);
    body.arguments = [u64::from(signal), 0, 0, 0, 0, 0];
    body.result = 0;
    body.inode = 0;
    body.target_start_boot_ns = whom.start_boot_ns;
    body.target_session = target_session;
    body.call = 0;
    body.errno = 0;
    body.device = 0;
    body.flags = 0;
    body.access = 0;
    body.target_tgid = whom.tgid;
    body.has = 0;
    body.reserved = 0;
    record.emit(Urgency::Weighty);
    0
}

/// Whether a signal was sent by a process, as opposed to the kernel: `SEND_SIG_NOINFO`, or a code that user space gives.
#[inline(always)]
fn is_from_a_process(info: u64) -> bool {
    const SEND_SIG_NOINFO: u64 = 0;
    const SEND_SIG_PRIV: u64 = 1;
    const SI_USER: i32 = 0;
    match info {
        SEND_SIG_NOINFO => true,
        SEND_SIG_PRIV => false,
        info => read::<i32>(info, &SIGINFO_CODE).is_ok_and(|code| code <= SI_USER),
    }
}
