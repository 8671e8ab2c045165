//! What already runs: BPF iterators over tasks and their files. They are run by the daemon, once at its start and when it
//! has lost count; they hook nothing.

use agent_common::maps::{FileRow, Member, TaskRow};
use agent_common::network::Socket;
use aya_ebpf::bindings::{seq_file, task_struct};
use aya_ebpf::helpers::generated::bpf_seq_write;
use core::ffi::c_void;

use crate::kernel::offsets::{CRED_UID, TASK_CRED, TASK_FLAGS, TASK_GROUP_LEADER};
use crate::kernel::path::resolve;
use crate::kernel::task::{Who, parent};
use crate::kernel::{Unreadable, field};
use crate::maps::{ADOPT, MEMBER, PATH_BYTES, Scratch, ScratchOf, State};
use crate::probes::file::OpenFile;
use crate::probes::network::{describe, sock_of};

#[repr(C)]
pub struct Meta {
    seq: *mut seq_file,
    session_id: u64,
    number: u64,
}

#[repr(C)]
pub struct TaskContext {
    meta: *mut Meta,
    task: *mut task_struct,
}

#[repr(C)]
pub struct FileContext {
    meta: *mut Meta,
    task: *mut task_struct,
    fd: u32,
    file: *mut c_void,
}

/// Writes a [`TaskRow`] for each task on the host.
#[unsafe(link_section = "iter/task")]
#[unsafe(no_mangle)]
pub extern "C" fn list_tasks(ctx: *mut TaskContext) -> i32 {
    const PF_EXITING: u32 = 4;
    const PF_KTHREAD: u32 = 0x0020_0000;
    // SAFETY: the kernel hands over the context; the task is BTF-typed, and null at the end.
    unsafe {
        let task = (*ctx).task;
        if task.is_null() {
            return 0;
        }
        let (who, elder) = (Who::of(task), Who::of(parent(task)));
        let cred: *const c_void = field(task, &TASK_CRED);
        let flags: u32 = field(task, &TASK_FLAGS);
        let member = match MEMBER.get(task) {
            Some(member) => *member,
            None => Member { session: 0, exec_number: 0, flags: 0, agent: 0, reserved: 0 },
        };
        let row = TaskRow {
            start_boot_ns: who.start_boot_ns,
            session: member.session,
            parent_start_boot_ns: elder.start_boot_ns,
            tgid: who.tgid,
            tid: who.tid,
            parent_tgid: elder.tgid,
            uid: field(cred, &CRED_UID),
            kernel_thread: u32::from(flags & PF_KTHREAD != 0),
            exec_number: member.exec_number,
            flags: member.flags,
            exiting: u32::from(flags & PF_EXITING != 0),
        };
        bpf_seq_write((*(*ctx).meta).seq, core::ptr::addr_of!(row).cast(), size_of::<TaskRow>() as u32);
    }
    0
}

/// Makes a member of each task whose process the daemon recognised, and of all that descends from one.
#[unsafe(link_section = "iter/task")]
#[unsafe(no_mangle)]
pub extern "C" fn adopt_tasks(ctx: *mut TaskContext) -> i32 {
    // SAFETY: as in `list_tasks`.
    unsafe {
        let task = (*ctx).task;
        if task.is_null() || MEMBER.get(task).is_some() {
            return 0;
        }
        let tgid = Who::of(task).tgid;
        let leader: *mut task_struct = field(task, &TASK_GROUP_LEADER);
        let membership = if let Some(member) = ADOPT.get(&tgid) {
            *member
        } else if let Some(member) = MEMBER.get(leader) {
            *member
        } else if let Some(member) = MEMBER.get(parent(leader)) {
            *member
        } else {
            return 0;
        };
        if let Some(member) = MEMBER.get_or_create(task) {
            *member = membership;
            State::Adopted.next();
        }
    }
    0
}

/// Writes a [`FileRow`] and a path for each file that a member has open.
#[unsafe(link_section = "iter/task_file")]
#[unsafe(no_mangle)]
pub extern "C" fn list_files(ctx: *mut FileContext) -> i32 {
    // SAFETY: as in `list_tasks`.
    let (seq, task, fd, file) = unsafe {
        let (task, file) = ((*ctx).task, (*ctx).file);
        if task.is_null() || file.is_null() {
            return 0;
        }
        ((*(*ctx).meta).seq, task, (*ctx).fd, file as u64)
    };
    let Some(member) = MEMBER.get(task) else { return 0 };
    // What can't be read is not listed.
    let _ = write_file(seq, task, member.session, fd, file);
    0
}

#[inline(always)]
fn write_file(seq: *mut seq_file, task: *mut task_struct, session: u64, fd: u32, file: u64) -> Result<(), Unreadable> {
    let Some(scratch) = Scratch::of(ScratchOf::Files) else { return Ok(()) };
    let open = OpenFile::read(file)?;
    let path = resolve(open.place, scratch)?;
    let who = Who::of(task);
    let mut row = FileRow {
        start_boot_ns: who.start_boot_ns,
        session,
        inode: open.inode,
        tgid: who.tgid,
        fd,
        device: open.device,
        access: open.access,
        flags: open.flags,
        path_len_bytes: path.len_bytes & (PATH_BYTES as u32 - 1),
        socket: NO_SOCKET,
    };
    if let Some(sock) = sock_of(file)? {
        describe(sock, &mut row.socket)?;
    }
    let from = (core::hint::black_box(path.start) & (PATH_BYTES as u32 - 1)) as usize;
    let len = core::hint::black_box(row.path_len_bytes) & (PATH_BYTES as u32 - 1);
    // SAFETY: the row is ours; `from` and `len` lie within the buffer, which is twice PATH_BYTES.
    unsafe {
        bpf_seq_write(seq, core::ptr::addr_of!(row).cast(), size_of::<FileRow>() as u32);
        let from = core::ptr::addr_of!((*scratch).path).cast::<u8>().add(from);
        bpf_seq_write(seq, from.cast(), len);
    }
    Ok(())
}

const NO_SOCKET: Socket = Socket {
    remote: [0; 16],
    local: [0; 16],
    remote_port: 0,
    local_port: 0,
    family: 0,
    socket_type: 0,
    protocol: 0,
    as_given: 0,
    errno: 0,
};
