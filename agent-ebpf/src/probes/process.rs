//! Processes: fork, exec, exit.
//!
//! Hooks: `tp_btf/sched_process_fork`, `tp_btf/sched_process_exec`, `tp_btf/sched_process_exit`; always attached, since
//! they are how sessions begin, grow and end. Failed execs come from the system-call hook.

use core::ffi::c_void;

use agent_common::call::Call as SystemCall;
use agent_common::maps::{FileId, LOSS_READ, MEMBER_PROVISIONAL, Member, Opened, RECOGNISE_DECIDED, Recognition};
use agent_common::process::{EXEC_INTERPRETED, EXEC_NAMELESS, Exec, ExecFailed, Exit, Fork};
use agent_common::record::{FLAG_NEW_SESSION, FLAG_PROVISIONAL};
use agent_common::{RecordKind, StringTag};
use aya_ebpf::bindings::task_struct;
use aya_ebpf::helpers::bpf_ktime_get_boot_ns;
use aya_ebpf::helpers::generated::{bpf_get_current_cgroup_id, bpf_loop, bpf_probe_read_user_str};
use aya_ebpf::macros::btf_tracepoint;
use aya_ebpf::programs::BtfTracePointContext;

use crate::kernel::offsets::{
    BPRM_FILE, BPRM_FILENAME, BPRM_INTERP, CRED_EUID, CRED_GID, CRED_UID, FILE_INODE, FILE_PATH_DENTRY, FILE_PATH_MNT,
    FS_PWD_DENTRY, FS_PWD_MNT, INODE_INO, INODE_SB, MM_ARG_END, MM_ARG_START, MM_ENV_END, MM_ENV_START, SB_DEV,
    SIGNAL_FLAGS, SIGNAL_GROUP_EXIT_CODE, SIGNAL_LIVE, TASK_CRED, TASK_EXIT_CODE, TASK_FS, TASK_GROUP_LEADER,
    TASK_LOGINUID, TASK_MM, TASK_SIGNAL,
};
use crate::kernel::path::{Place, is_internal, is_nameless, resolve};
use crate::kernel::task::{Who, parent};
use crate::kernel::{Unreadable, field};
use crate::maps::{ENVIRONMENT, EXECUTABLES, MEMBER, OPENED, Scratch, ScratchOf, State, USERS, new_session};
use crate::member;
use crate::probes::calls::{AT_FDCWD, Call, add_directory};
use crate::probes::privilege;
use crate::record::{Builder, Fixed, Urgency, count_lost, header};

/// A task was made. Sees every fork, vfork and clone, whatever namespaces it makes; a thread only inherits. Tells of the
/// namespaces that a member makes so. Misses the worker threads of io_uring, which raise no event. Of a task outside any session it keeps nothing, but reports forks
/// while the daemon adopts what runs.
#[btf_tracepoint(function = "sched_process_fork")]
pub fn on_fork(ctx: BtfTracePointContext) -> i32 {
    let maker: *mut task_struct = ctx.arg(0);
    let child: *mut task_struct = ctx.arg(1);
    let member = member::of(maker);
    if member.is_none() && State::Adopting.load() == 0 {
        return 0;
    }
    let who = Who::of(maker);
    let new = Who::of(child);
    let (session, exec_number, flags) = match &member {
        Some(member) => {
            member::inherit(child, member);
            (member.session, member.exec_number, member::record_flags(member))
        }
        None => (0, 0, 0),
    };
    if let Some(member) = &member {
        privilege::tell_new_namespaces(maker, child, member);
    }
    if new.tgid != who.tgid {
        Fixed {
            header: header(RecordKind::Fork.to_wire(), who, session, exec_number, flags),
            body: Fork { child_tgid: new.tgid, reserved: 0, child_start_boot_ns: new.start_boot_ns },
        }
        .emit(Urgency::Weighty);
    }
    0
}

/// A process runs a new image. Sees what the kernel resolved and loaded: the image after `#!` and `binfmt_misc`, and
/// `execveat` of a descriptor; the arguments and the environment as they stand in the new image's memory. Misses nothing
/// that runs; failed execs are seen at the exit of the call.
#[btf_tracepoint(function = "sched_process_exec")]
pub fn on_exec(ctx: BtfTracePointContext) -> i32 {
    let task: *mut task_struct = ctx.arg(0);
    let bprm: *const c_void = ctx.arg(2);
    let member = member::of(task);
    // SAFETY: `bprm` and what it leads to are BTF-typed; the offsets are those of their fields.
    let (file, inode, uid) = unsafe {
        let file: *const c_void = field(bprm, &BPRM_FILE);
        let inode: *const c_void = field(file, &FILE_INODE);
        let cred: *const c_void = field(task, &TASK_CRED);
        (file, inode, field::<u32, _>(cred, &CRED_UID))
    };
    // SAFETY: as above.
    let image = unsafe {
        let sb: *const c_void = field(inode, &INODE_SB);
        FileId { inode: field(inode, &INODE_INO), device: field(sb, &SB_DEV), reserved: 0 }
    };
    let recognised = recognise(&image, uid, member.as_deref());
    if member.is_none() && recognised.is_none() {
        return 0;
    }
    let (now, before) = join(task, member, recognised);
    let Some(now) = now else { return 0 };
    if let Some(scratch) = Scratch::of(ScratchOf::Exec)
        && report_exec(scratch, task, bprm, file, &image, &now, before).is_err()
    {
        count_lost(now.session, RecordKind::Exec.to_wire(), LOSS_READ);
    }
    0
}

/// What the kernel side makes of an image and a user. A member is only moved by what names another agent than its own.
#[inline(always)]
fn recognise(image: &FileId, uid: u32, member: Option<&Member>) -> Option<Recognition> {
    // SAFETY: the values are copied at once.
    let found = unsafe { EXECUTABLES.get(image).or_else(|| USERS.get(&uid)) };
    let found = match found {
        Some(found) => *found,
        None if State::EveryExec.load() != 0 => Recognition { agent: 0, how: 0 },
        None => return None,
    };
    match member {
        Some(member) if found.agent != 0 && found.agent == member.agent => None,
        _ => Some(found),
    }
}

/// Puts the task into the session that the recognition opens, or counts its exec. Returns its membership from now on, and
/// the session it was in before.
#[inline(always)]
fn join(
    task: *mut task_struct,
    member: Option<&'static mut Member>,
    recognised: Option<Recognition>,
) -> (Option<Member>, u64) {
    let (before, execs) = match &member {
        Some(member) => (member.session, member.exec_number),
        None => (0, 0),
    };
    let Some(recognition) = recognised else {
        return match member {
            Some(member) => {
                member.exec_number += 1;
                (Some(*member), before)
            }
            None => (None, before),
        };
    };
    let provisional = recognition.how != RECOGNISE_DECIDED;
    let who = Who::of(task);
    let new = Member {
        session: new_session(),
        // Goes on from the session before: should the daemon decide that the process stays there, its numbers do not repeat.
        exec_number: execs + 1,
        flags: if provisional { MEMBER_PROVISIONAL } else { 0 },
        agent: if provisional { 0 } else { recognition.agent },
        reserved: 0,
    };
    let opened = Opened {
        // SAFETY: the helper takes nothing.
        time_boot_ns: unsafe { bpf_ktime_get_boot_ns() },
        start_boot_ns: who.start_boot_ns,
        session_before: before,
        tgid: who.tgid,
        agent: new.agent,
        flags: new.flags,
        reserved: 0,
    };
    // A full table costs only what the record says anyway.
    let _ = OPENED.insert(&new.session, &opened, 0);
    match MEMBER.get_or_create(task) {
        Some(stored) => *stored = new,
        None => count_lost(new.session, RecordKind::Exec.to_wire(), agent_common::maps::LOSS_INHERIT),
    }
    (Some(new), before)
}

#[inline(always)]
fn report_exec(
    scratch: *mut Scratch,
    task: *mut task_struct,
    bprm: *const c_void,
    file: *const c_void,
    image: &FileId,
    member: &Member,
    session_before: u64,
) -> Result<(), Unreadable> {
    let who = Who::of(task);
    let elder = Who::of(parent(task));
    // SAFETY: all are BTF-typed pointers, and the offsets are those of their fields.
    let (place, pwd, filename, interp, mm) = unsafe {
        let fs: *const c_void = field(task, &TASK_FS);
        (
            Place { mnt: field(file, &FILE_PATH_MNT), dentry: field(file, &FILE_PATH_DENTRY) },
            Place { mnt: field(fs, &FS_PWD_MNT), dentry: field(fs, &FS_PWD_DENTRY) },
            field::<u64, _>(bprm, &BPRM_FILENAME),
            field::<u64, _>(bprm, &BPRM_INTERP),
            field::<*const c_void, _>(task, &TASK_MM),
        )
    };
    let mut flags = 0;
    if filename != interp {
        flags |= EXEC_INTERPRETED;
    }
    if is_nameless(place.dentry)? || is_internal(place.mnt)? {
        flags |= EXEC_NAMELESS;
    }
    let new = member.session != session_before;
    let provisional = member.flags & MEMBER_PROVISIONAL != 0;
    let head = header(
        RecordKind::Exec.to_wire(),
        who,
        member.session,
        member.exec_number,
        if new { FLAG_NEW_SESSION } else { 0 } | if provisional { FLAG_PROVISIONAL } else { 0 },
    );
    let (mut record, body) = Builder::begin::<Exec>(scratch, head);
    body.session_before = session_before;
    body.inode = image.inode;
    body.device = image.device;
    body.agent = member.agent;
    body.parent_start_boot_ns = elder.start_boot_ns;
    body.parent_tgid = elder.tgid;
    // SAFETY: as above; the helper takes nothing.
    unsafe {
        let cred: *const c_void = field(task, &TASK_CRED);
        body.uid = field(cred, &CRED_UID);
        body.euid = field(cred, &CRED_EUID);
        body.gid = field(cred, &CRED_GID);
        body.login_uid = field(task, &TASK_LOGINUID);
        body.cgroup_id = bpf_get_current_cgroup_id();
    }
    body.flags = flags;
    body.reserved = 0;
    let path = resolve(place, scratch)?;
    record.path(StringTag::Path, &path)?;
    record.kernel_string(StringTag::Given, filename)?;
    let path = resolve(pwd, scratch)?;
    record.path(StringTag::Directory, &path)?;
    add_environment(&mut record, scratch, mm)?;
    // SAFETY: as above.
    let (start, end) = unsafe { (field(mm, &MM_ARG_START), field(mm, &MM_ARG_END)) };
    record.user_block(StringTag::Arguments, start, end)?;
    record.emit(if new { Urgency::Now } else { Urgency::Weighty });
    Ok(())
}

/// The most environment strings (and pieces of long ones) looked at.
const MOST_VARIABLES: u32 = 1_024;
/// The longest value kept.
const VARIABLE_BYTES: u32 = 512;
const KEY_BYTES: usize = 64;

#[repr(C)]
struct Variables {
    next: u64,
    end: u64,
    buffer: *mut u8,
    record: *mut Builder,
    inside: u32,
    kept: u32,
}

/// Records the allow-listed environment variables.
#[inline(always)]
fn add_environment(record: &mut Builder, scratch: *mut Scratch, mm: *const c_void) -> Result<(), Unreadable> {
    // SAFETY: `mm` is BTF-typed; `scratch` is a map's value, and the path in it has been copied already.
    let mut variables = unsafe {
        Variables {
            next: field(mm, &MM_ENV_START),
            end: field(mm, &MM_ENV_END),
            buffer: core::ptr::addr_of_mut!((*scratch).path).cast(),
            record: core::ptr::from_mut(record),
            inside: 0,
            kept: 0,
        }
    };
    // SAFETY: `variable` takes a `Variables`, which outlives the loop.
    unsafe {
        bpf_loop(MOST_VARIABLES, variable as *const () as *mut c_void, core::ptr::addr_of_mut!(variables).cast(), 0);
    }
    Ok(())
}

extern "C" fn variable(_index: u64, variables: *mut Variables) -> i64 {
    const MOST_KEPT: u32 = 6;
    // SAFETY: `bpf_loop` hands on the pointer that `add_environment` gave it.
    let variables = unsafe { &mut *variables };
    if variables.next >= variables.end || variables.kept >= MOST_KEPT {
        return 1;
    }
    // SAFETY: the buffer has room for VARIABLE_BYTES.
    let read =
        unsafe { bpf_probe_read_user_str(variables.buffer.cast(), VARIABLE_BYTES, variables.next as *const c_void) };
    if read <= 0 {
        return 1;
    }
    let len = (read as u32 - 1) & (VARIABLE_BYTES - 1);
    let whole = len < VARIABLE_BYTES - 1;
    // A string longer than the buffer is gone through piece by piece: only its first piece has the key.
    variables.next += u64::from(len) + u64::from(whole);
    let first = variables.inside == 0;
    variables.inside = u32::from(!whole);
    if first && is_allowed(variables.buffer) {
        // SAFETY: the record outlives the loop.
        let record = unsafe { &mut *variables.record };
        if record.bytes(StringTag::Environment, variables.buffer, len, !whole).is_err() {
            return 1;
        }
        variables.kept += 1;
    }
    0
}

/// Whether the string `KEY=VALUE` has a key that may be recorded.
///
/// Eight bytes at a time, by arithmetic: a branch for each byte is more than the verifier follows.
#[inline(always)]
fn is_allowed(string: *const u8) -> bool {
    const EQUALS: u64 = 0x3d3d_3d3d_3d3d_3d3d;
    let mut key = [0u64; KEY_BYTES / 8];
    let mut inside = u64::MAX;
    let mut at = 0;
    while at < KEY_BYTES / 8 {
        // SAFETY: the buffer is aligned, and longer than any key.
        let word = unsafe { string.cast::<u64>().add(at).read() };
        let end = zero_bytes(word) | zero_bytes(word ^ EQUALS);
        let first = end & end.wrapping_neg();
        // All bytes before the first that ends the key; all of them if none does.
        key[at] = word & (first >> 7).wrapping_sub(1) & inside;
        if end != 0 {
            inside = 0;
        }
        at += 1;
    }
    // SAFETY: as many bytes, of integers; the value is not looked at.
    unsafe { ENVIRONMENT.get(core::mem::transmute::<&[u64; KEY_BYTES / 8], &[u8; KEY_BYTES]>(&key)).is_some() }
}

/// The high bit of each byte that is zero; of bytes above the first such it may say too much.
#[inline(always)]
fn zero_bytes(word: u64) -> u64 {
    const ONES: u64 = 0x0101_0101_0101_0101;
    word.wrapping_sub(ONES) & !word & (ONES << 7)
}

/// The last thread of a process ended: `signal->live` has been counted down before this hook. Sees the status that `wait`
/// will give. Two threads that end at the same moment may both see the last one gone: the daemon takes the first.
#[btf_tracepoint(function = "sched_process_exit")]
pub fn on_exit(ctx: BtfTracePointContext) -> i32 {
    const SIGNAL_GROUP_EXIT: u32 = 4;
    let task: *mut task_struct = ctx.arg(0);
    let Some(member) = member::of(task) else { return 0 };
    // SAFETY: all are BTF-typed pointers, and the offsets are those of their fields.
    let status = unsafe {
        let signal: *const c_void = field(task, &TASK_SIGNAL);
        if field::<u32, _>(signal, &SIGNAL_LIVE) != 0 {
            return 0;
        }
        if field::<u32, _>(signal, &SIGNAL_FLAGS) & SIGNAL_GROUP_EXIT != 0 {
            field::<u32, _>(signal, &SIGNAL_GROUP_EXIT_CODE)
        } else {
            let leader: *mut task_struct = field(task, &TASK_GROUP_LEADER);
            field::<u32, _>(leader, &TASK_EXIT_CODE)
        }
    };
    let elder_task = parent(task);
    let elder = Who::of(elder_task);
    let parent_session = match MEMBER.get(elder_task) {
        Some(member) => member.session,
        None => 0,
    };
    Fixed {
        header: header(
            RecordKind::Exit.to_wire(),
            Who::of(task),
            member.session,
            member.exec_number,
            member::record_flags(member),
        ),
        body: Exit { status, parent_tgid: elder.tgid, parent_start_boot_ns: elder.start_boot_ns, parent_session },
    }
    .emit(Urgency::Weighty);
    0
}

/// An exec that failed, at the exit of the call: the path is as the process gave it.
#[inline(always)]
pub fn exec_call(call: &Call, scratch: *mut Scratch) -> Result<(), Unreadable> {
    const EXECVEAT: u32 = SystemCall::place_of("execveat");
    if call.result >= 0 {
        return Ok(());
    }
    let [first, second, ..] = call.arguments;
    let (directory_fd, name) = if call.place == EXECVEAT { (first, second) } else { (AT_FDCWD, first) };
    let (mut record, body) = Builder::begin::<ExecFailed>(scratch, call.header(RecordKind::ExecFailed));
    *body = ExecFailed { errno: call.errno(), reserved: 0 };
    let given = record.user_string(StringTag::Given, name);
    add_directory(scratch, directory_fd, u32::from(given.first))?;
    record.emit(Urgency::Weighty);
    Ok(())
}
