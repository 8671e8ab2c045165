//! What is told of as it was made: changes of names, of what files are, of mounts, and of privileges.
//!
//! Hook: `tp_btf/sys_exit` of the calls that the table gives to `Route::Act`. An argument that is a descriptor is resolved
//! to its object. What is done by a path has left no object by then: the path is as given, beside the resolved directory
//! that it starts from; another thread may have changed it during the call. Misses what io_uring does.

use agent_common::call::{ABSENT, ACT_OBJECT, Act, CWD, Call as SystemCall, PathArgument};
use agent_common::{RecordKind, StringTag};

use super::calls::{AT_FDCWD, Call, add_directory};
use super::file::{OpenFile, received};
use super::privilege;
use crate::kernel::Unreadable;
use crate::kernel::path::resolve;
use crate::maps::Scratch;
use crate::record::{Builder, Urgency};

/// A call that is told of as it was made, at its exit.
#[inline(always)]
pub fn act(call: &Call, scratch: *mut Scratch) -> Result<(), Unreadable> {
    let shape = call.shape();
    if shape.kind == RecordKind::Signal.to_wire() {
        return privilege::owner_set(call, scratch);
    }
    if shape.kind == RecordKind::Ptrace.to_wire() && !is_worth_telling(call) {
        return Ok(());
    }
    let kind = if removes_directory(call) { RecordKind::Rmdir.to_wire() } else { shape.kind };
    let (mut record, body) = begin_act(call, kind, scratch);
    body.target_tgid = if shape.target == ABSENT { 0 } else { call.argument(shape.target) as u32 };
    if shape.object != ABSENT
        && let Ok(file) = call.file(call.argument(shape.object))
    {
        add_object(&mut record, body, scratch, file)?;
    }
    let [first, second] = shape.paths;
    add_path(&mut record, call, scratch, first)?;
    add_path(&mut record, call, scratch, second)?;
    if shape.text != ABSENT {
        record.user_string(StringTag::Text, call.argument(shape.text));
    }
    record.emit(Urgency::Weighty);
    const PIDFD_GETFD: u32 = SystemCall::place_of("pidfd_getfd");
    if call.place == PIDFD_GETFD && call.result >= 0 {
        return received(scratch, call.result as u64);
    }
    Ok(())
}

/// Begins a record of a call as it was made.
#[inline(always)]
pub fn begin_act(call: &Call, kind: u16, scratch: *mut Scratch) -> (Builder, &'static mut Act) {
    let (record, body) = Builder::begin::<Act>(scratch, call.header_of(kind));
    let [a, b, c, d, e, f, ..] = call.arguments;
    body.arguments = [a, b, c, d, e, f];
    body.result = call.result;
    body.inode = 0;
    body.target_start_boot_ns = 0;
    body.target_session = 0;
    body.call = call.place;
    body.errno = call.errno();
    body.device = 0;
    body.flags = 0;
    body.access = 0;
    body.target_tgid = 0;
    body.has = 0;
    body.reserved = 0;
    (record, body)
}

/// Says which file it was done to, by its descriptor.
#[inline(always)]
pub fn add_object(record: &mut Builder, body: &mut Act, scratch: *mut Scratch, file: u64) -> Result<(), Unreadable> {
    let object = OpenFile::read(file)?;
    body.inode = object.inode;
    body.device = object.device;
    body.flags = object.flags;
    body.access = object.access;
    body.has = ACT_OBJECT;
    let path = resolve(object.place, scratch)?;
    record.path(StringTag::Path, &path)
}

#[inline(always)]
fn add_path(record: &mut Builder, call: &Call, scratch: *mut Scratch, path: PathArgument) -> Result<(), Unreadable> {
    if path.name == ABSENT {
        return Ok(());
    }
    let given = record.user_string(StringTag::Given, call.argument(path.name));
    let directory = if path.directory == CWD { AT_FDCWD } else { call.argument(path.directory) };
    add_directory(scratch, directory, u32::from(given.first))
}

/// `unlinkat` does the work of two calls.
#[inline(always)]
fn removes_directory(call: &Call) -> bool {
    const UNLINKAT: u32 = SystemCall::place_of("unlinkat");
    const AT_REMOVEDIR: u64 = 0x200;
    call.place == UNLINKAT && call.arguments[2] & AT_REMOVEDIR != 0
}

/// A debugger makes thousands of calls about a process that it has taken hold of: that it did so is what counts.
#[inline(always)]
fn is_worth_telling(call: &Call) -> bool {
    const PTRACE: u32 = SystemCall::place_of("ptrace");
    const TRACEME: u64 = 0;
    const ATTACH: u64 = 16;
    const SEIZE: u64 = 0x4206;
    call.place != PTRACE || matches!(call.arguments[0], TRACEME | ATTACH | SEIZE)
}
