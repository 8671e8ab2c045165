//! Unix sockets: what is connected to, and who listens there.

use agent_common::call::Act;
use agent_common::network::{UNIX_ABSTRACT, UNIX_AS_GIVEN, Unix};
use agent_common::{RecordKind, StringTag};

use super::{AF_UNIX, GivenAt};
use crate::kernel::offsets::{
    CRED_EUID, PID_NUMBERS, SOCK_FAMILY, SOCK_PEER_CRED, SOCK_PEER_PID, SOCK_TYPE, UNIX_ADDRESS, UNIX_ADDRESS_LEN,
    UNIX_ADDRESS_NAME, UNIX_PATH_DENTRY, UNIX_PATH_MNT, UNIX_PEER,
};
use crate::kernel::path::{Place, resolve};
use crate::kernel::{Unreadable, read, read_at};
use crate::maps::Scratch;
use crate::probes::act::begin_act;
use crate::probes::calls::{AT_FDCWD, add_directory};
use crate::record::{Builder, Urgency};
use crate::verified::verified_once;

/// Where a name begins in a `sockaddr_un`.
const NAME_AT: u64 = 2;
/// The bytes of a `sockaddr_un`.
const LONGEST: u64 = 110;

verified_once! {
    /// A connect on a Unix socket, or a message sent to an address on one. Of one that succeeded the
    /// listener's own name is known, and on a stream its process.
    pub(super) fn connected as tell_of_unix_connect(call, scratch, sock: u64) {
        let given = GivenAt::of(scratch);
        if read::<u16>(sock, &SOCK_FAMILY)? != AF_UNIX {
            return Ok(());
        }
        let (mut record, body) = Builder::begin::<Unix>(scratch, call.header(RecordKind::UnixConnect));
        body.errno = call.errno();
        body.socket_type = u32::from(read::<u16>(sock, &SOCK_TYPE)?);
        body.peer_tgid = 0;
        body.peer_uid = u32::MAX;
        body.flags = 0;
        body.reserved = 0;
        if call.result >= 0 {
            let pid: u64 = read(sock, &SOCK_PEER_PID)?;
            if pid != 0 {
                // struct upid begins with the number; the first is the host's.
                body.peer_tgid = read(pid, &PID_NUMBERS)?;
                let cred: u64 = read(sock, &SOCK_PEER_CRED)?;
                if cred != 0 {
                    body.peer_uid = read(cred, &CRED_EUID)?;
                }
            }
            let peer: u64 = read(sock, &UNIX_PEER)?;
            if peer != 0 {
                let place = Place { mnt: read(peer, &UNIX_PATH_MNT)?, dentry: read(peer, &UNIX_PATH_DENTRY)? };
                if place.dentry != 0 {
                    let path = resolve(place, scratch)?;
                    record.path(StringTag::Path, &path)?;
                    record.emit(Urgency::Weighty);
                    return Ok(());
                }
                if add_own_name(&mut record, read(peer, &UNIX_ADDRESS)?)? {
                    body.flags = UNIX_ABSTRACT;
                    record.emit(Urgency::Weighty);
                    return Ok(());
                }
            }
        }
        body.flags = UNIX_AS_GIVEN;
        if add_name(&mut record, scratch, given)? {
            body.flags |= UNIX_ABSTRACT;
        }
        record.emit(Urgency::Weighty);
        Ok(())
    }
}

/// Adds the abstract name that a socket has; whether it has one. It is the kernel's own: what was given stands in memory that
/// another thread may have changed since.
#[inline(always)]
fn add_own_name(record: &mut Builder, address: u64) -> Result<bool, Unreadable> {
    if address == 0 {
        return Ok(false);
    }
    let len: u32 = read(address, &UNIX_ADDRESS_LEN)?;
    let name = address + UNIX_ADDRESS_NAME.load() + NAME_AT;
    if len <= NAME_AT as u32 || read_at::<u8>(name)? != 0 {
        return Ok(false);
    }
    let len = if len > LONGEST as u32 { LONGEST as u32 } else { len };
    record.bytes(StringTag::Text, (name + 1) as *const u8, len - NAME_AT as u32 - 1, false)?;
    Ok(true)
}

verified_once! {
    /// A bind to a path makes a file; one to an abstract name, or to none, leaves nothing behind.
    pub(super) fn bound as tell_of_unix_bind(call, scratch) {
        let given = GivenAt::of(scratch);
        let (mut record, _body): (Builder, &mut Act) = begin_act(call, RecordKind::Mknod.to_wire(), scratch);
        if given.len() <= NAME_AT || add_name(&mut record, scratch, given)? {
            return Ok(());
        }
        record.emit(Urgency::Weighty);
        Ok(())
    }
}

/// Adds the name that was given; whether it is abstract.
#[inline(always)]
fn add_name(record: &mut Builder, scratch: *mut Scratch, given: GivenAt) -> Result<bool, Unreadable> {
    let path = match given {
        GivenAt::Process { at, .. } => record.user_string(StringTag::Given, at + NAME_AT),
        GivenAt::Copy { at, .. } => record.kernel_string(StringTag::Given, at + NAME_AT)?,
    };
    if path.first != 0 {
        add_directory(scratch, AT_FDCWD, u32::from(path.first))?;
        return Ok(false);
    }
    let end = if given.len() > LONGEST { LONGEST } else { given.len() };
    if end > NAME_AT + 1 {
        match given {
            GivenAt::Process { at, .. } => record.user_block(StringTag::Text, at + NAME_AT + 1, at + end)?,
            GivenAt::Copy { at, .. } => {
                let from = (at + NAME_AT + 1) as *const u8;
                record.bytes(StringTag::Text, from, (end - NAME_AT - 1) as u32, false)?;
            }
        }
    }
    Ok(true)
}
