//! Task storage from user space: by pidfd, through bpf(2), since aya has no type for it.
#![allow(unsafe_code, reason = "bpf(2) has no safe wrapper for task storage")]

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};
use std::time::Duration;

use agent_common::maps::Member;

const BPF_MAP_LOOKUP_ELEM: libc::c_int = 1;
const BPF_MAP_UPDATE_ELEM: libc::c_int = 2;

/// How often an update is tried that another one disturbs, and how long it is waited between: a tenth of a second in all.
const MOST_TRIES: u32 = 100;
const BETWEEN_TRIES: Duration = Duration::from_millis(1);

/// `union bpf_attr` for commands on map elements, padded to what old and new kernels take.
#[repr(C, align(8))]
#[derive(Default)]
struct ElementAttr {
    map_fd: u32,
    reserved: u32,
    key: u64,
    value: u64,
    flags: u64,
}

/// Makes the process behind the pidfd (its leader thread) a member.
///
/// The kernel answers EAGAIN where what is stored with the task is being made or freed for another map at that moment, such as
/// one of a daemon that ends (`bpf_local_storage_update`): then it is tried again.
///
/// # Errors
/// The process has ended.
pub(super) fn set_member(map: BorrowedFd<'_>, pidfd: BorrowedFd<'_>, member: &Member) -> io::Result<()> {
    let mut member = *member;
    let mut tries = 1;
    loop {
        match command(BPF_MAP_UPDATE_ELEM, map, pidfd.as_raw_fd(), &mut member) {
            Err(error) if error.raw_os_error() == Some(libc::EAGAIN) && tries < MOST_TRIES => {
                tries += 1;
                std::thread::sleep(BETWEEN_TRIES);
            }
            result => return result,
        }
    }
}

/// The membership of the process behind the pidfd (of its leader thread), if it has one.
///
/// # Errors
/// The process has ended.
pub(super) fn member(map: BorrowedFd<'_>, pidfd: BorrowedFd<'_>) -> io::Result<Option<Member>> {
    let mut member = Member::default();
    match command(BPF_MAP_LOOKUP_ELEM, map, pidfd.as_raw_fd(), &mut member) {
        Ok(()) => Ok(Some(member)),
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(None),
        Err(error) => Err(error),
    }
}

fn command(command: libc::c_int, map: BorrowedFd<'_>, pidfd: RawFd, member: &mut Member) -> io::Result<()> {
    let attr = ElementAttr {
        map_fd: map.as_raw_fd().cast_unsigned(),
        key: std::ptr::from_ref(&pidfd).addr() as u64,
        value: std::ptr::from_mut(member).addr() as u64,
        ..ElementAttr::default()
    };
    // The kernel reads and writes through the addresses in `attr`: keep their provenance exposed.
    std::ptr::from_ref(&pidfd).expose_provenance();
    std::ptr::from_mut(member).expose_provenance();
    // SAFETY: the key is an int and the value a `Member`, as the map was made; both outlive the call.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, &raw const attr, size_of::<ElementAttr>()) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
