//! Privileges: signals sent to processes outside the session, and namespaces made with a process.
//!
//! Hook of the signals: `tp_btf/signal_generate`, which runs in the sender and names the task that is signalled: whatever call, and
//! whatever process id it was given. Signals that the kernel itself sends are not told of, nor are those that stay within
//! the session. Misses a signal that the kernel refuses: that is no use of a privilege.
//!
//! Namespaces that a clone makes are seen by the fork hook, by the kernel's own objects: what `clone3` was asked for stands in
//! memory that another thread may change. Misses a clone that the kernel refuses. All other privileges are system calls, told
//! of as they are made; so is the making of an outsider the owner of a file's signals, which the kernel sends later.

use core::ffi::c_void;

use agent_common::RecordKind;
use agent_common::call::{Act, Call as SystemCall, X32_BIT};
use agent_common::maps::Member;
use aya_ebpf::bindings::task_struct;
use aya_ebpf::helpers::bpf_get_current_task_btf;
use aya_ebpf::helpers::generated::bpf_task_pt_regs;
use aya_ebpf::macros::btf_tracepoint;
use aya_ebpf::programs::BtfTracePointContext;

use super::act::begin_act;
use super::calls::Call;
use crate::kernel::offsets::{
    ABSENT, CRED_USER_NS, FILE_OWNER, FOWN_FILE, FOWN_PID, FOWN_PID_TYPE, FOWN_SIGNAL, NSPROXY_CGROUP, NSPROXY_IPC,
    NSPROXY_MNT, NSPROXY_NET, NSPROXY_PID, NSPROXY_TIME, NSPROXY_UTS, PID_NUMBERS, PID_TASKS, REGS_AX, SIGINFO_CODE,
    TASK_CRED, TASK_GROUP_LEADER, TASK_NSPROXY, TASK_PID_LINKS, TASK_START_BOOTTIME, TASK_TGID,
};
use crate::kernel::task::{Who, is_compat};
use crate::kernel::{Unreadable, field, read, read_at};
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
    if target_session == member.session || !is_from_a_process(task, info) {
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

/// Tells of whom a file's signals go to, when that was set, or which signal: whoever sets it off then, it is the kernel that
/// sends it. Whether the owner is outside the session the daemon knows.
#[inline(always)]
pub fn owner_set(call: &Call, scratch: *mut Scratch) -> Result<(), Unreadable> {
    const SIGIO: u64 = 29;
    const PIDTYPE_PGID: u32 = 2;
    if !sets_owner(call) || call.result < 0 {
        return Ok(());
    }
    // Another thread may have closed it.
    let Ok(file) = call.file(call.arguments[0]) else { return Ok(()) };
    let owner = owner_of(file)?;
    if owner == 0 {
        return Ok(());
    }
    let pid: u64 = read(owner, &FOWN_PID)?;
    if pid == 0 {
        return Ok(());
    }
    let (mut record, body) = begin_act(call, RecordKind::Signal.to_wire(), scratch);
    let signal: i32 = read(owner, &FOWN_SIGNAL)?;
    body.arguments = [if signal == 0 { SIGIO } else { signal as u64 }, 0, 0, 0, 0, 0];
    // struct upid begins with the number; the first is the host's.
    body.target_tgid = read(pid, &PID_NUMBERS)?;
    let kind: u32 = read(owner, &FOWN_PID_TYPE)?;
    // A group is known by its first process's id alone; a process or a thread of one by the task.
    if kind < PIDTYPE_PGID {
        let link: u64 = read_at(pid + PID_TASKS.load() + u64::from(kind) * LIST_HEAD_BYTES)?;
        if link != 0 {
            let task = link - TASK_PID_LINKS.load() - u64::from(kind) * LIST_NODE_BYTES;
            body.target_tgid = read(task, &TASK_TGID)?;
            body.target_start_boot_ns = read(read(task, &TASK_GROUP_LEADER)?, &TASK_START_BOOTTIME)?;
        }
    }
    record.emit(Urgency::Weighty);
    Ok(())
}

/// `struct hlist_head` and `struct hlist_node`.
const LIST_HEAD_BYTES: u64 = 8;
const LIST_NODE_BYTES: u64 = 16;

/// Whether a call sets who is signalled about a file, or by what signal.
#[inline(always)]
fn sets_owner(call: &Call) -> bool {
    const IOCTL: u32 = SystemCall::place_of("ioctl");
    const F_SETOWN: u64 = 8;
    const F_SETSIG: u64 = 10;
    const F_SETOWN_EX: u64 = 15;
    const FIOSETOWN: u64 = 0x8901;
    const SIOCSPGRP: u64 = 0x8902;
    // The kernel takes it from the lower half of its register alone.
    let command = call.arguments[1] & 0xffff_ffff;
    if call.place == IOCTL {
        matches!(command, FIOSETOWN | SIOCSPGRP)
    } else {
        matches!(command, F_SETOWN | F_SETSIG | F_SETOWN_EX)
    }
}

/// Whom a file's signals go to: a `struct fown_struct`. It stands in the file, since 6.12 beside it; null where none ever was.
#[inline(always)]
fn owner_of(file: u64) -> Result<u64, Unreadable> {
    if FOWN_FILE.load() == ABSENT { Ok(file + FILE_OWNER.load()) } else { read(file, &FILE_OWNER) }
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

/// Whether a signal was sent by a process, as opposed to the kernel: `SEND_SIG_NOINFO`, or a code that user space gives. What
/// the kernel sends in the name of a timer, a queue or a file has such a code too, whoever runs at that time: only a call that
/// gives the code by itself is believed that it is a process's.
#[inline(always)]
fn is_from_a_process(task: *mut task_struct, info: u64) -> bool {
    const SEND_SIG_NOINFO: u64 = 0;
    const SEND_SIG_PRIV: u64 = 1;
    const SI_USER: i32 = 0;
    const SI_QUEUE: i32 = -1;
    const SI_TKILL: i32 = -6;
    match info {
        SEND_SIG_NOINFO => true,
        SEND_SIG_PRIV => false,
        info => match read::<i32>(info, &SIGINFO_CODE) {
            Ok(SI_USER | SI_QUEUE | SI_TKILL) => true,
            Ok(code) => code < SI_USER && gives_a_code(task),
            Err(Unreadable) => false,
        },
    }
}

/// Whether the task is in a call that sends a signal with a code of its own.
#[inline(always)]
fn gives_a_code(task: *mut task_struct) -> bool {
    const RT_SIGQUEUEINFO: u64 = 129;
    const RT_TGSIGQUEUEINFO: u64 = 297;
    const PIDFD_SEND_SIGNAL: u64 = 424;
    const NARROW_RT_SIGQUEUEINFO: u64 = 178;
    const NARROW_RT_TGSIGQUEUEINFO: u64 = 335;
    const X32_RT_SIGQUEUEINFO: u64 = 524;
    const X32_RT_TGSIGQUEUEINFO: u64 = 536;
    // SAFETY: the task is a BTF-typed pointer, and the helper gives another, to its registers.
    let number = unsafe {
        let regs = bpf_task_pt_regs(task.cast()) as *const c_void;
        field::<u64, _>(regs, &REGS_AX) & 0xffff_ffff & !u64::from(X32_BIT)
    };
    if is_compat(task) {
        matches!(number, NARROW_RT_SIGQUEUEINFO | NARROW_RT_TGSIGQUEUEINFO | PIDFD_SEND_SIGNAL)
    } else {
        matches!(
            number,
            RT_SIGQUEUEINFO | RT_TGSIGQUEUEINFO | PIDFD_SEND_SIGNAL | X32_RT_SIGQUEUEINFO | X32_RT_TGSIGQUEUEINFO
        )
    }
}
