//! Files: where an operation's file is, the bytes that were moved, and lengths.

use agent_common::RecordKind;
use agent_common::call::Call as SystemCall;
use agent_common::file::{ACCESS_READ, ACCESS_WRITE};

use super::{FTRUNCATE, SPLICE, WRITE, WRITE_FIXED, WRITEV, WRITEV_FIXED};
use crate::kernel::offsets::{
    ABSENT, IO_CMD, IO_CONTEXT, IO_FILE, IO_FIXED_FILES, IO_FTRUNCATE_LEN, IO_NODE_FILE, IO_SPLICE_FLAGS, IO_SPLICE_IN,
    IO_SYNC_LEN, IO_SYNC_MODE, IO_SYNC_OFF,
};
use crate::kernel::{Unreadable, read, read_at};
use crate::maps::Scratch;
use crate::probes::act::{add_object, begin_act};
use crate::probes::calls::Call;
use crate::probes::file::transferred;
use crate::record::Urgency;

/// The file that an operation made: behind a descriptor, or in the table of fixed files, at a place that it was given or at
/// one that was free.
#[inline(always)]
pub(super) fn made_file(call: &Call, ring: u64, slot: u32) -> Result<u64, Unreadable> {
    const DESCRIPTOR: u32 = 0;
    const ANY_FREE: u32 = u32::MAX;
    match slot {
        DESCRIPTOR => call.file(call.result as u64),
        ANY_FREE => fixed_file(ring, call.result as u32),
        place => fixed_file(ring, place - 1),
    }
}

/// The file at a place of the table of fixed files.
#[inline(always)]
fn fixed_file(ring: u64, place: u32) -> Result<u64, Unreadable> {
    /// The kernel has none: before 6.13 the table held the files themselves.
    /// What the kernel keeps in the lowest bits of a file's address (`FFS_MASK`).
    const KNOWN_OF_FILE: u64 = 7;
    let table: u64 = read(ring, &IO_FIXED_FILES)?;
    let mut file: u64 = read_at(table + u64::from(place) * 8)?;
    if file != 0 && IO_NODE_FILE.load() != ABSENT {
        file = read(file, &IO_NODE_FILE)?;
    }
    match file & !KNOWN_OF_FILE {
        0 => Err(Unreadable),
        file => Ok(file),
    }
}

/// Bytes that were read or written.
#[inline(always)]
pub(super) fn moved(call: &Call, scratch: *mut Scratch, request: u64, opcode: u8) -> Result<(), Unreadable> {
    let file: u64 = read(request, &IO_FILE)?;
    let (from, to) = match opcode {
        SPLICE => (spliced_from(call, request)?, file),
        WRITEV | WRITE_FIXED | WRITE | WRITEV_FIXED => (0, file),
        _ => (file, 0),
    };
    for (file, access) in [(from, ACCESS_READ), (to, ACCESS_WRITE)] {
        if file != 0 {
            transferred(scratch, file, access)?;
        }
    }
    Ok(())
}

/// Where spliced bytes came from. One that has been closed by now is counted as lost.
#[inline(always)]
fn spliced_from(call: &Call, request: u64) -> Result<u64, Unreadable> {
    const SPLICE_F_FD_IN_FIXED: u32 = 1 << 31;
    let command = request + IO_CMD.load();
    let (fd, flags): (u32, u32) = (read(command, &IO_SPLICE_IN)?, read(command, &IO_SPLICE_FLAGS)?);
    if flags & SPLICE_F_FD_IN_FIXED != 0 {
        fixed_file(read(request, &IO_CONTEXT)?, fd)
    } else {
        call.file(u64::from(fd))
    }
}

/// A file's length was set, or room for it made: the arguments stand where the system calls have them.
#[inline(always)]
pub(super) fn resized(call: &mut Call, scratch: *mut Scratch, request: u64, opcode: u8) -> Result<(), Unreadable> {
    const OF_FTRUNCATE: u32 = SystemCall::place_of("ftruncate");
    const OF_FALLOCATE: u32 = SystemCall::place_of("fallocate");
    let command = request + IO_CMD.load();
    if opcode == FTRUNCATE {
        call.place = OF_FTRUNCATE;
        call.arguments[1] = read(command, &IO_FTRUNCATE_LEN)?;
    } else {
        call.place = OF_FALLOCATE;
        call.arguments[1] = u64::from(read::<u32>(command, &IO_SYNC_MODE)?);
        call.arguments[2] = read(command, &IO_SYNC_OFF)?;
        call.arguments[3] = read(command, &IO_SYNC_LEN)?;
    }
    let (mut record, body) = begin_act(call, RecordKind::Truncate.to_wire(), scratch);
    let file: u64 = read(request, &IO_FILE)?;
    if file != 0 {
        add_object(&mut record, body, scratch, file)?;
    }
    record.emit(Urgency::Weighty);
    Ok(())
}
