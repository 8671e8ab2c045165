//! Privileges: signals sent to processes outside the session, and namespaces made with a process.
//!
//! Hook of the signals: `tp_btf/signal_generate`, which runs in the sender and names the task that is signalled: whatever call, and
//! whatever process id it was given. Signals that the kernel itself sends are not told of, nor are those that stay within
//! the session. Misses a signal that the kernel refuses: that is no use of a privilege.
//!
//! Namespaces that a clone makes are seen by the fork hook, by the kernel's own objects: what `clone3` was asked for stands in
//! memory that another thread may change. Misses a clone that the kernel refuses. All other privileges are system calls, told
//! of as they are made.

use core::ffi::c_void;

use agent_common::RecordKind;
use agent_common::call::{Act, Call as SystemCall};
use agent_common::maps::Member;
use aya_ebpf::bindings::task_struct;
use aya_ebpf::helpers::bpf_get_current_task_btf;
use aya_ebpf::macros::btf_tracepoint;
use aya_ebpf::programs::BtfTracePointContext;

use crate::kernel::offsets::{
    CRED_USER_NS, NSPROXY_CGROUP, NSPROXY_IPC, NSPROXY_MNT, NSPROXY_NET, NSPROXY_PID, NSPROXY_TIME, NSPROXY_UTS,
    SIGINFO_CODE, TASK_CRED, TASK_NSPROXY,
};
use crate::kernel::task::Who;
use crate::kernel::{field, read};
use crate::maps::{MEMBER, Scratch, ScratchOf};
use crate::member;
use crate::record::{Builder, Fixed, Urgency, header};

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
    let Some(scratch) = Scratch::of(ScratchOf::Signal) else { return 0 };
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

/// Tells of the namespaces that `child` has and its maker, a member, has not: the clone made them.
#[inline(always)]
pub fn tell_new_namespaces(maker: *mut task_struct, child: *mut task_struct, member: &Member) {
    const CLONE_NEWUSER: u64 = 0x1000_0000;
    // SAFETY: all are BTF-typed pointers, and the offsets are those of their fields.
    let made = unsafe {
        let (own, new): (*const c_void, *const c_void) = (field(maker, &TASK_CRED), field(child, &TASK_CRED));
        let user = field::<u64, _>(own, &CRED_USER_NS) != field::<u64, _>(new, &CRED_USER_NS);
        let (own, new): (*const c_void, *const c_void) = (field(maker, &TASK_NSPROXY), field(child, &TASK_NSPROXY));
        let mut made = if user { CLONE_NEWUSER } else { 0 };
        if own != new {
            for (namespace, flag) in [
                (&NSPROXY_TIME, 0x80),
                (&NSPROXY_MNT, 0x2_0000),
                (&NSPROXY_CGROUP, 0x200_0000),
                (&NSPROXY_UTS, 0x400_0000),
                (&NSPROXY_IPC, 0x800_0000),
                (&NSPROXY_PID, 0x2000_0000),
                (&NSPROXY_NET, 0x4000_0000),
            ] {
                if field::<u64, _>(own, namespace) != field::<u64, _>(new, namespace) {
                    made |= flag;
                }
            }
        }
        made
    };
    if made == 0 {
        return;
    }
    let kind = RecordKind::Namespace.to_wire();
    let whom = Who::of(child);
    Fixed {
        header: header(kind, Who::of(maker), member.session, member.exec_number, member::record_flags(member)),
        body: Act {
            arguments: [made, 0, 0, 0, 0, 0],
            result: i64::from(whom.tgid),
            inode: 0,
            target_start_boot_ns: 0,
            target_session: 0,
            call: const { SystemCall::place_of("clone") },
            errno: 0,
            device: 0,
            flags: 0,
            access: 0,
            target_tgid: 0,
            has: 0,
            reserved: 0,
        },
    }
    .emit(Urgency::Weighty);
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
