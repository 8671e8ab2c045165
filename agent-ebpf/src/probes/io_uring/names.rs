//! What is done by a path: changes of names, extended attributes, and opens that fail.
//!
//! The path stands in the kernel's own copy when an operation is submitted, and no thread can change it. It is gone when
//! the operation is completed, so the record is kept until then, and told of with the result.

use agent_common::call::{Act, Call as SystemCall};
use agent_common::file::Open;
use agent_common::maps::LOSS_READ;
use agent_common::{RecordKind, StringTag};

use super::kept::{keep, remember_told, take, was_told};
use super::{Ending, FSETXATTR, LINKAT, MKDIRAT, OPENAT, OPENAT2, RENAMEAT, SETXATTR, SYMLINKAT, UNLINKAT};
use crate::kernel::offsets::{
    FILENAME_NAME, IO_CMD, IO_FILE, IO_LINK_FLAGS, IO_LINK_NEW, IO_LINK_NEW_DFD, IO_LINK_OLD, IO_LINK_OLD_DFD,
    IO_MKDIR_DFD, IO_MKDIR_NAME, IO_OPCODE, IO_OPEN_DFD, IO_OPEN_FLAGS, IO_OPEN_NAME, IO_RENAME_NEW, IO_RENAME_NEW_DFD,
    IO_RENAME_OLD, IO_RENAME_OLD_DFD, IO_UNLINK_DFD, IO_UNLINK_FLAGS, IO_UNLINK_NAME, IO_XATTR_NAME, IO_XATTR_PATH,
};
use crate::kernel::{Unreadable, read};
use crate::maps::Scratch;
use crate::probes::act::{add_object, begin_act};
use crate::probes::calls::{AT_FDCWD, Call, add_directory, errno_of};
use crate::probes::file::{access_of_flags, announce, begin, count, name_as_given};
use crate::record::{Builder, Urgency, count_lost};

/// The kind of the record that is kept for an operation; `None` where there is none.
#[inline(always)]
pub(super) fn kind_of(opcode: u8, request: u64) -> Option<RecordKind> {
    Some(match opcode {
        OPENAT | OPENAT2 => RecordKind::Open,
        UNLINKAT if removes_directory(request) => RecordKind::Rmdir,
        UNLINKAT => RecordKind::Unlink,
        RENAMEAT => RecordKind::Rename,
        LINKAT => RecordKind::Link,
        SYMLINKAT => RecordKind::Symlink,
        MKDIRAT => RecordKind::Mkdir,
        SETXATTR | FSETXATTR => RecordKind::Xattr,
        _ => return None,
    })
}

#[inline(always)]
fn removes_directory(request: u64) -> bool {
    const AT_REMOVEDIR: u32 = 0x200;
    read::<u32>(request + IO_CMD.load(), &IO_UNLINK_FLAGS).is_ok_and(|flags| flags & AT_REMOVEDIR != 0)
}

/// Keeps what a submitted operation is to do by a path. Where nobody may tell of its end, and where there is no room, it is told
/// of at once, without its result; a path that an open was given is of no use then.
#[inline(always)]
pub(super) fn submitted(
    call: &mut Call,
    scratch: *mut Scratch,
    request: u64,
    opcode: u8,
    ending: Ending,
) -> Result<(), Unreadable> {
    let Some(kind) = kind_of(opcode, request) else { return Ok(()) };
    let command = request + IO_CMD.load();
    if kind == RecordKind::Open {
        return if ending == Ending::Untold { Ok(()) } else { open(call, scratch, request, command) };
    }
    if opcode == FSETXATTR && ending == Ending::Untold {
        // Its file is not known yet.
        return Ok(());
    }
    let mut record = names(call, scratch, kind, command, opcode)?;
    // Whose file is not known yet stays for its completion.
    let waits = ending == Ending::Told || opcode == FSETXATTR;
    if !waits || !keep(&mut record, request) {
        remember_told(request);
        record.emit(Urgency::Weighty);
    }
    Ok(())
}

#[inline(always)]
fn open(call: &Call, scratch: *mut Scratch, request: u64, command: u64) -> Result<(), Unreadable> {
    let (mut record, open) = begin(call, RecordKind::Open, scratch);
    open.key.errno = 0;
    open.key.access = access_of_flags(read(command, &IO_OPEN_FLAGS)?);
    let filename: u64 = read(command, &IO_OPEN_NAME)?;
    let given = record.kernel_string(StringTag::Given, read(filename, &FILENAME_NAME)?)?;
    let directory: u32 = read(command, &IO_OPEN_DFD)?;
    name_as_given(&mut record, open, call, scratch, u64::from(directory), &given)?;
    // One that finds no room is missed where it fails, and then it is counted.
    keep(&mut record, request);
    Ok(())
}

/// The record of what is done by a path, or by two, all but its result.
#[inline(always)]
fn names(
    call: &mut Call,
    scratch: *mut Scratch,
    kind: RecordKind,
    command: u64,
    opcode: u8,
) -> Result<Builder, Unreadable> {
    const NOTHING: (u32, u64) = (0, 0);
    call.place = place_of(opcode);
    let (first, second) = match opcode {
        RENAMEAT => (
            (read::<u32>(command, &IO_RENAME_OLD_DFD)?, read(command, &IO_RENAME_OLD)?),
            (read::<u32>(command, &IO_RENAME_NEW_DFD)?, read(command, &IO_RENAME_NEW)?),
        ),
        LINKAT => {
            // Where `linkat` has them: whether it follows a symbolic link stands there.
            call.arguments[4] = u64::from(read::<u32>(command, &IO_LINK_FLAGS)?);
            (
                (read::<u32>(command, &IO_LINK_OLD_DFD)?, read(command, &IO_LINK_OLD)?),
                (read::<u32>(command, &IO_LINK_NEW_DFD)?, read(command, &IO_LINK_NEW)?),
            )
        }
        SYMLINKAT => ((read::<u32>(command, &IO_LINK_NEW_DFD)?, read(command, &IO_LINK_NEW)?), NOTHING),
        MKDIRAT => ((read::<u32>(command, &IO_MKDIR_DFD)?, read(command, &IO_MKDIR_NAME)?), NOTHING),
        SETXATTR => ((AT_FDCWD as u32, read(command, &IO_XATTR_PATH)?), NOTHING),
        FSETXATTR => (NOTHING, NOTHING),
        _ => ((read::<u32>(command, &IO_UNLINK_DFD)?, read(command, &IO_UNLINK_NAME)?), NOTHING),
    };
    let (mut record, _body): (Builder, &mut Act) = begin_act(call, kind.to_wire(), scratch);
    add_name(&mut record, scratch, first)?;
    add_name(&mut record, scratch, second)?;
    let text = match opcode {
        SYMLINKAT => read(read(command, &IO_LINK_OLD)?, &FILENAME_NAME)?,
        SETXATTR | FSETXATTR => read(command, &IO_XATTR_NAME)?,
        _ => 0,
    };
    if text != 0 {
        record.kernel_string(StringTag::Text, text)?;
    }
    Ok(record)
}

/// The system call that does the same.
#[inline(always)]
fn place_of(opcode: u8) -> u32 {
    const UNLINK: u32 = SystemCall::place_of("unlinkat");
    const RENAME: u32 = SystemCall::place_of("renameat2");
    const LINK: u32 = SystemCall::place_of("linkat");
    const SYMLINK: u32 = SystemCall::place_of("symlinkat");
    const MKDIR: u32 = SystemCall::place_of("mkdirat");
    const XATTR: u32 = SystemCall::place_of("setxattr");
    const XATTR_OF_FILE: u32 = SystemCall::place_of("fsetxattr");
    match opcode {
        RENAMEAT => RENAME,
        LINKAT => LINK,
        SYMLINKAT => SYMLINK,
        MKDIRAT => MKDIR,
        SETXATTR => XATTR,
        FSETXATTR => XATTR_OF_FILE,
        _ => UNLINK,
    }
}

/// Adds a path that stands in a `struct filename`; nothing where there is none.
#[inline(always)]
fn add_name(record: &mut Builder, scratch: *mut Scratch, (directory, filename): (u32, u64)) -> Result<(), Unreadable> {
    if filename == 0 {
        return Ok(());
    }
    let given = record.kernel_string(StringTag::Given, read(filename, &FILENAME_NAME)?)?;
    add_directory(scratch, u64::from(directory), u32::from(given.first))
}

/// Tells of what a completed operation did by a path, or did not. Whose it is was kept with it, so it does not matter which
/// of the kernel's threads completes it.
#[inline(always)]
pub(super) fn completed(scratch: *mut Scratch, request: u64, opcode: u8, result: i64, session: u64) {
    let Some(kind) = kind_of(opcode, request) else { return };
    let Some(mut record) = take(scratch, request) else {
        // Of one that found no room the names were told of already. One that was refused when it was taken in had none, and of
        // an open that found no room they are not known.
        if result < 0 && session != 0 && !was_told(request) {
            count_lost(session, kind.to_wire(), LOSS_READ);
        }
        return;
    };
    if tell(&mut record, scratch, request, opcode, result).is_err() {
        count_lost(record.header().session, kind.to_wire(), LOSS_READ);
    }
}

/// Tells of an operation that may have ended, or may not: its completion found no room, or that of another by its word. An
/// open stays for its completion.
#[inline(always)]
pub(super) fn tell_without_result(scratch: *mut Scratch, request: u64) {
    let opcode: u8 = read(request, &IO_OPCODE).unwrap_or(0);
    if request == 0 || matches!(opcode, OPENAT | OPENAT2 | FSETXATTR) || kind_of(opcode, request).is_none() {
        return;
    }
    if let Some(mut record) = take(scratch, request) {
        remember_told(request);
        record.emit(Urgency::Weighty);
    }
}

#[inline(always)]
fn tell(record: &mut Builder, scratch: *mut Scratch, request: u64, opcode: u8, result: i64) -> Result<(), Unreadable> {
    if matches!(opcode, OPENAT | OPENAT2) {
        // Of one that succeeded the file itself is asked.
        if result < 0 {
            let open: &mut Open = record.body();
            open.key.errno = errno_of(result);
            if count(record, open) {
                announce(record, open);
            }
        }
        return Ok(());
    }
    let body: &mut Act = record.body();
    body.result = result;
    body.errno = errno_of(result);
    if opcode == FSETXATTR {
        let file: u64 = read(request, &IO_FILE)?;
        if file != 0 {
            add_object(record, body, scratch, file)?;
        }
    }
    record.emit(Urgency::Weighty);
    Ok(())
}
