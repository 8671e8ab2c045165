//! Everything that is observed, done once.
//!
//! What changes names or files is asked for where nothing is, so that the kernel refuses it; what could change the host is
//! given arguments that it must refuse. Nothing is left behind.

#![allow(unsafe_code, reason = "the calls are made as they are, with arguments that no safe wrapper would pass on")]

use std::ffi::c_long;
use std::io::{IoSlice, IoSliceMut, Read};
use std::mem::MaybeUninit;
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;

use libc::{AT_FDCWD, syscall};
use rustix::net::{
    RecvAncillaryBuffer, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};

/// Nothing is there, and nobody can put anything there.
const NOTHING: *const libc::c_char = c"/proc/bailiwick/nothing".as_ptr();
const WRONG: u64 = 0xffff_ffff;
const PAGE: usize = 4096;

/// A system call whose result does not matter: that it was made does.
macro_rules! call {
    ($number:ident $(, $argument:expr)*) => {
        // SAFETY: pointers among the arguments lead to static strings or are null; the kernel checks all else.
        unsafe { syscall(libc::$number $(, $argument)*) }
    };
}

/// Waits to be let go, does everything, and returns the exit code.
pub(super) fn do_all() -> i32 {
    let mut go = [0u8; 2];
    if std::io::stdin().read_exact(&mut go).is_err() {
        return 1;
    }
    names();
    files();
    privileges();
    ring();
    network();
    processes();
    0
}

fn names() {
    call!(SYS_unlink, NOTHING);
    call!(SYS_rename, NOTHING, NOTHING);
    call!(SYS_link, NOTHING, NOTHING);
    call!(SYS_symlink, NOTHING, NOTHING);
    call!(SYS_mkdir, NOTHING, 0);
    call!(SYS_rmdir, NOTHING);
    call!(SYS_mknod, NOTHING, libc::S_IFIFO, 0);
    call!(SYS_truncate, NOTHING, 0);
    call!(SYS_chmod, NOTHING, 0);
    call!(SYS_chown, NOTHING, -1, -1);
    call!(SYS_removexattr, NOTHING, c"user.nothing".as_ptr());
    call!(SYS_mount, c"none".as_ptr(), NOTHING, c"none".as_ptr(), 0, 0);
}

fn files() {
    call!(SYS_openat, AT_FDCWD, NOTHING, libc::O_RDONLY);
    let memory = call!(SYS_memfd_create, c"hook-check".as_ptr(), libc::MFD_CLOEXEC);
    call!(SYS_ftruncate, memory, PAGE);
    call!(SYS_write, memory, c"x".as_ptr(), 1);
    map(memory, libc::PROT_READ | libc::PROT_EXEC, libc::MAP_PRIVATE);
    map(memory, libc::PROT_READ | libc::PROT_WRITE, libc::MAP_SHARED);
    call!(SYS_close, memory);
}

fn map(fd: c_long, protection: i32, flags: i32) {
    let at = call!(SYS_mmap, 0, PAGE, protection, flags, fd, 0);
    call!(SYS_munmap, at, PAGE);
}

fn privileges() {
    /// No process has it: ids end at 4,194,304.
    const NOBODY: i32 = 0x3fff_fff0;
    call!(SYS_ptrace, libc::PTRACE_ATTACH, NOBODY, 0, 0);
    call!(SYS_setresuid, WRONG, WRONG, WRONG);
    call!(SYS_capset, 0, 0);
    call!(SYS_setns, -1, 0);
    call!(SYS_bpf, WRONG, 0, 0);
    call!(SYS_delete_module, 0, 0);
    call!(SYS_kexec_load, 0, 0, 0, WRONG);
    call!(SYS_keyctl, WRONG, 0, 0, 0, 0);
    call!(SYS_perf_event_open, 0, 0, -1, -1, 0);
}

/// One operation that does nothing.
fn ring() {
    let mut parameters = [0u8; PARAMETERS_BYTES];
    let ring = call!(SYS_io_uring_setup, 1, parameters.as_mut_ptr());
    let (Some(array), Some(tail)) = (offset(&parameters, SQ_ARRAY), offset(&parameters, SQ_TAIL)) else { return };
    if ring < 0 {
        return;
    }
    // SAFETY: both mappings are of the ring's own size or more, and the offsets those that the kernel has given; the entry
    // is all zero, as mapped: the operation that does nothing.
    unsafe {
        let flags = libc::MAP_SHARED;
        let queue = syscall(libc::SYS_mmap, 0, PAGE, libc::PROT_READ | libc::PROT_WRITE, flags, ring, 0);
        let entries = syscall(libc::SYS_mmap, 0, PAGE, libc::PROT_READ | libc::PROT_WRITE, flags, ring, SQ_ENTRIES_AT);
        if queue > 0 && entries > 0 {
            let queue = std::ptr::with_exposed_provenance_mut::<u8>(queue.unsigned_abs() as usize);
            queue.add(array).cast::<u32>().write_volatile(0);
            queue.add(tail).cast::<u32>().write_volatile(1);
            syscall(libc::SYS_io_uring_enter, ring, 1, 1, ENTER_GETEVENTS, 0, 0);
        }
        syscall(libc::SYS_close, ring);
    }
}

// `struct io_uring_params`, and where the offsets of the submission queue's tail and array stand in it.
const PARAMETERS_BYTES: usize = 120;
const SQ_TAIL: usize = 44;
const SQ_ARRAY: usize = 64;
const SQ_ENTRIES_AT: u64 = 0x1000_0000;
const ENTER_GETEVENTS: u32 = 1;

fn offset(parameters: &[u8], at: usize) -> Option<usize> {
    let bytes = parameters.get(at..at + 4)?;
    Some(u32::from_ne_bytes(bytes.try_into().ok()?) as usize)
}

fn network() {
    if let Ok(listener) = TcpListener::bind("127.0.0.1:0")
        && let Ok(address) = listener.local_addr()
    {
        // Nobody else can know of it.
        let connected = TcpStream::connect(address);
        let accepted = listener.accept();
        drop((connected, accepted));
    }
    if let Ok(socket) = UdpSocket::bind("127.0.0.1:0")
        && let Ok(address) = socket.local_addr()
    {
        // To itself.
        let _ = socket.send_to(b"x", address);
    }
    // With no protocol it is given no packet.
    let raw = call!(SYS_socket, libc::AF_PACKET, libc::SOCK_RAW | libc::SOCK_CLOEXEC, 0);
    call!(SYS_close, raw);
    let netlink = call!(SYS_socket, libc::AF_NETLINK, libc::SOCK_RAW | libc::SOCK_CLOEXEC, 0);
    call!(SYS_close, netlink);
    // Nothing listens there.
    let _ = UnixStream::connect("/proc/bailiwick/nothing");
    receive_descriptor();
}

/// Sends itself its standard input.
fn receive_descriptor() {
    let Ok((from, to)) = UnixStream::pair() else { return };
    let mut room = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut room);
    let stdin = std::io::stdin();
    let descriptors = [stdin.as_fd()];
    control.push(SendAncillaryMessage::ScmRights(&descriptors));
    let _ = sendmsg(&from, &[IoSlice::new(b"x")], &mut control, SendFlags::empty());
    let mut room = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut room);
    let mut byte = [0u8; 1];
    let _ = recvmsg(&to, &mut [IoSliceMut::new(&mut byte)], &mut control, RecvFlags::empty());
}

fn processes() {
    call!(SYS_execve, NOTHING, 0, 0);
    // The daemon, which is in no session, ignores it, as every process does that has not asked for it.
    // SAFETY: neither call takes a pointer.
    unsafe { libc::kill(libc::getppid(), libc::SIGURG) };
    // SAFETY: the child makes one call and ends.
    let child = unsafe { libc::fork() };
    if child == 0 {
        let exe = c"/proc/self/exe";
        let arguments = [exe.as_ptr(), c"--version".as_ptr(), std::ptr::null()];
        // SAFETY: the arguments are static and end with a null; `_exit` does not return.
        unsafe {
            libc::execv(exe.as_ptr(), arguments.as_ptr());
            libc::_exit(1);
        }
    }
    // SAFETY: a null is allowed where no status is wanted.
    unsafe { libc::waitpid(child, std::ptr::null_mut(), 0) };
}
