//! System calls: the one table of those that are observed, and the record of what most of them leave.
//!
//! Numbers differ between 64-bit and 32-bit calls; what they do does not. Both sides read this table: the sensor to find
//! out which program handles a number and where its arguments are, the daemon to name the call. A call is known by its
//! place in it, from 1; 0 is one that nobody observes.

use crate::RecordKind;
use crate::wire;

wire! {
    /// The body of a system call that is told of as it was made.
    ///
    /// Strings: of the object that a descriptor leads to `Path`; of each path, in the table's order, `Given` and, where it
    /// does not start from the root of all, `Directory`; then `Text`.
    pub struct Act [112] {
        /// The arguments.
        pub arguments: [u64; 6],
        /// What it returned; a negative errno where it failed.
        pub result: i64,
        /// The object's inode; 0 where there is none.
        pub inode: u64,
        /// When the process that it was done to started, in nanoseconds after boot; 0 where none is known.
        pub target_start_boot_ns: u64,
        /// The session of that process; 0 for none.
        pub target_session: u64,
        /// The call's place in [`CALLS`], from 1; of an operation of an io_uring that of the call that does the same; 0 where
        /// it was seen by another hook.
        pub call: u32,
        /// Why it failed, as a positive errno; 0 where it succeeded.
        pub errno: u32,
        /// The object's device, as the kernel writes it.
        pub device: u32,
        /// Of the object: the constants beginning with `OPEN_` in [`crate::file`].
        pub flags: u32,
        /// Of the object: the constants beginning with `ACCESS_` in [`crate::file`].
        pub access: u32,
        /// The process that it was done to; 0 where none is known.
        pub target_tgid: u32,
        /// [`ACT_OBJECT`] or 0.
        pub has: u32,
        /// Zero.
        pub reserved: u32,
    }
}

/// The record names an object.
pub const ACT_OBJECT: u32 = 1;

/// The program that handles a call; the number is its place in the sensor's table of programs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Route {
    /// What makes a descriptor of a file.
    Open = 0,
    /// An exec that failed.
    ExecFailed = 1,
    /// Sockets.
    Socket = 2,
    /// What is told of as it was made: [`Act`].
    Act = 3,
    /// Mappings.
    Map = 4,
    /// Messages that are sent to an address.
    SendMessage = 5,
    /// What comes with a message.
    ReceiveMessage = 6,
    /// What comes with several messages.
    ReceiveMessages = 7,
    /// Bytes read and written.
    Transfer = 8,
}

/// How many routes there are.
pub const ROUTES: u32 = 9;

/// No argument, or no number.
pub const NONE: u16 = 0xffff;
/// In the place of a directory's argument: the working directory.
pub const CWD: u8 = 0xfe;
/// In the place of an argument: there is none.
pub const ABSENT: u8 = 0xff;

/// Where a path stands among the arguments.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct PathArgument {
    /// The descriptor of the directory that it starts from, or [`CWD`].
    pub directory: u8,
    /// The path itself, or [`ABSENT`].
    pub name: u8,
}

/// A system call that is observed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Call {
    /// Its name.
    pub name: &'static str,
    /// Its number, or [`NONE`].
    pub wide: u16,
    /// Its number among the 32-bit ones, or [`NONE`].
    pub narrow: u16,
    /// Its number in the x32 ABI where that is one of its own (what it points to is laid out as for 32 bits), or [`NONE`].
    pub x32: u16,
    /// Its number in `socketcall`, by which 32-bit programs make all calls about sockets, or 0.
    pub socketcall: u8,
    /// Who handles it.
    pub route: Route,
    /// The kind of its record.
    pub kind: RecordKind,
    /// The argument that is a descriptor of the object.
    pub object: u8,
    /// The paths.
    pub paths: [PathArgument; 2],
    /// The argument that is some other string.
    pub text: u8,
    /// The argument that is the process it is done to.
    pub target: u8,
}

const NO_PATH: PathArgument = PathArgument { directory: ABSENT, name: ABSENT };

const fn routed(name: &'static str, wide: u16, narrow: u16, route: Route, kind: RecordKind) -> Call {
    let (x32, socketcall) = (NONE, 0);
    let (object, paths, text, target) = (ABSENT, [NO_PATH; 2], ABSENT, ABSENT);
    Call { name, wide, narrow, x32, socketcall, route, kind, object, paths, text, target }
}

const fn act(name: &'static str, wide: u16, narrow: u16, kind: RecordKind) -> Call {
    routed(name, wide, narrow, Route::Act, kind)
}

impl Call {
    const fn path(self, directory: u8, name: u8) -> Self {
        Self { paths: [PathArgument { directory, name }, NO_PATH], ..self }
    }

    const fn other(self, directory: u8, name: u8) -> Self {
        Self { paths: [self.paths[0], PathArgument { directory, name }], ..self }
    }

    const fn object(self, object: u8) -> Self {
        Self { object, ..self }
    }

    const fn text(self, text: u8) -> Self {
        Self { text, ..self }
    }

    const fn target(self, target: u8) -> Self {
        Self { target, ..self }
    }

    const fn x32(self, x32: u16) -> Self {
        Self { x32, ..self }
    }

    const fn socketcall(self, socketcall: u8) -> Self {
        Self { socketcall, ..self }
    }

    /// The place of the call with that name, from 1. For constants: a name that is not there does not compile.
    #[allow(clippy::panic, reason = "evaluated by the compiler: a name that is not there does not compile")]
    pub const fn place_of(name: &str) -> u32 {
        let mut at = 0;
        while at < CALLS.len() {
            if is_same(CALLS[at].name.as_bytes(), name.as_bytes()) {
                return at as u32 + 1;
            }
            at += 1;
        }
        panic!("no such call is observed")
    }

    /// The call at that place of the table, from 1.
    pub fn at(place: u32) -> Option<&'static Self> {
        CALLS.get((place as usize).checked_sub(1)?)
    }
}

const fn is_same(a: &[u8], b: &[u8]) -> bool {
    let mut at = 0;
    while at < a.len() && at < b.len() {
        if a[at] != b[at] {
            return false;
        }
        at += 1;
    }
    a.len() == b.len()
}

/// Every call that is observed.
pub const CALLS: &[Call] = &[
    // Files: what makes or finds a descriptor.
    routed("open", 2, 5, Route::Open, RecordKind::Open),
    routed("creat", 85, 8, Route::Open, RecordKind::Open),
    routed("openat", 257, 295, Route::Open, RecordKind::Open),
    routed("openat2", 437, 437, Route::Open, RecordKind::Open),
    routed("open_by_handle_at", 304, 342, Route::Open, RecordKind::Open),
    // Files: names.
    act("unlink", 87, 10, RecordKind::Unlink).path(CWD, 0),
    act("unlinkat", 263, 301, RecordKind::Unlink).path(0, 1),
    act("rmdir", 84, 40, RecordKind::Rmdir).path(CWD, 0),
    act("rename", 82, 38, RecordKind::Rename).path(CWD, 0).other(CWD, 1),
    act("renameat", 264, 302, RecordKind::Rename).path(0, 1).other(2, 3),
    act("renameat2", 316, 353, RecordKind::Rename).path(0, 1).other(2, 3),
    act("link", 86, 9, RecordKind::Link).path(CWD, 0).other(CWD, 1),
    act("linkat", 265, 303, RecordKind::Link).path(0, 1).other(2, 3),
    act("symlink", 88, 83, RecordKind::Symlink).path(CWD, 1).text(0),
    act("symlinkat", 266, 304, RecordKind::Symlink).path(1, 2).text(0),
    act("mkdir", 83, 39, RecordKind::Mkdir).path(CWD, 0),
    act("mkdirat", 258, 296, RecordKind::Mkdir).path(0, 1),
    act("mknod", 133, 14, RecordKind::Mknod).path(CWD, 0),
    act("mknodat", 259, 297, RecordKind::Mknod).path(0, 1),
    // Files: what they are.
    act("truncate", 76, 92, RecordKind::Truncate).path(CWD, 0),
    act("truncate64", NONE, 193, RecordKind::Truncate).path(CWD, 0),
    act("ftruncate", 77, 93, RecordKind::Truncate).object(0),
    act("ftruncate64", NONE, 194, RecordKind::Truncate).object(0),
    act("fallocate", 285, 324, RecordKind::Truncate).object(0),
    act("chmod", 90, 15, RecordKind::Chmod).path(CWD, 0),
    act("fchmod", 91, 94, RecordKind::Chmod).object(0),
    act("fchmodat", 268, 306, RecordKind::Chmod).path(0, 1),
    act("fchmodat2", 452, 452, RecordKind::Chmod).path(0, 1),
    act("chown", 92, 182, RecordKind::Chown).path(CWD, 0),
    act("chown32", NONE, 212, RecordKind::Chown).path(CWD, 0),
    act("lchown", 94, 16, RecordKind::Chown).path(CWD, 0),
    act("lchown32", NONE, 198, RecordKind::Chown).path(CWD, 0),
    act("fchown", 93, 95, RecordKind::Chown).object(0),
    act("fchown32", NONE, 207, RecordKind::Chown).object(0),
    act("fchownat", 260, 298, RecordKind::Chown).path(0, 1),
    act("setxattr", 188, 226, RecordKind::Xattr).path(CWD, 0).text(1),
    act("lsetxattr", 189, 227, RecordKind::Xattr).path(CWD, 0).text(1),
    act("fsetxattr", 190, 228, RecordKind::Xattr).object(0).text(1),
    act("removexattr", 197, 235, RecordKind::Xattr).path(CWD, 0).text(1),
    act("lremovexattr", 198, 236, RecordKind::Xattr).path(CWD, 0).text(1),
    act("fremovexattr", 199, 237, RecordKind::Xattr).object(0).text(1),
    act("setxattrat", 463, 463, RecordKind::Xattr).path(0, 1).text(3),
    act("removexattrat", 466, 466, RecordKind::Xattr).path(0, 1).text(3),
    act("mount", 165, 21, RecordKind::Mount).path(CWD, 1).other(CWD, 0),
    act("umount", NONE, 22, RecordKind::Mount).path(CWD, 0),
    act("umount2", 166, 52, RecordKind::Mount).path(CWD, 0),
    act("pivot_root", 155, 217, RecordKind::Mount).path(CWD, 0).other(CWD, 1),
    act("move_mount", 429, 429, RecordKind::Mount).path(2, 3).other(0, 1),
    act("open_tree", 428, 428, RecordKind::Mount).path(0, 1),
    act("open_tree_attr", 467, 467, RecordKind::Mount).path(0, 1),
    act("fsmount", 432, 432, RecordKind::Mount),
    act("fsconfig", 431, 431, RecordKind::Mount).text(2),
    act("mount_setattr", 442, 442, RecordKind::Mount).path(0, 1),
    // Files: how their contents are reached without a read or a write.
    routed("mmap", 9, 90, Route::Map, RecordKind::MapExec).object(4),
    routed("mmap2", NONE, 192, Route::Map, RecordKind::MapExec).object(4),
    routed("mprotect", 10, 125, Route::Map, RecordKind::MapExec),
    routed("pkey_mprotect", 329, 380, Route::Map, RecordKind::MapExec),
    // Files: bytes.
    routed("read", 0, 3, Route::Transfer, RecordKind::Io),
    routed("pread64", 17, 180, Route::Transfer, RecordKind::Io),
    routed("readv", 19, 145, Route::Transfer, RecordKind::Io).x32(515),
    routed("preadv", 295, 333, Route::Transfer, RecordKind::Io).x32(534),
    routed("preadv2", 327, 378, Route::Transfer, RecordKind::Io).x32(546),
    routed("write", 1, 4, Route::Transfer, RecordKind::Io),
    routed("pwrite64", 18, 181, Route::Transfer, RecordKind::Io),
    routed("writev", 20, 146, Route::Transfer, RecordKind::Io).x32(516),
    routed("pwritev", 296, 334, Route::Transfer, RecordKind::Io).x32(535),
    routed("pwritev2", 328, 379, Route::Transfer, RecordKind::Io).x32(547),
    routed("sendfile", 40, 187, Route::Transfer, RecordKind::Io),
    routed("sendfile64", NONE, 239, Route::Transfer, RecordKind::Io),
    routed("splice", 275, 313, Route::Transfer, RecordKind::Io),
    routed("copy_file_range", 326, 377, Route::Transfer, RecordKind::Io),
    // Processes.
    routed("execve", 59, 11, Route::ExecFailed, RecordKind::ExecFailed).x32(520),
    routed("execveat", 322, 358, Route::ExecFailed, RecordKind::ExecFailed).x32(545),
    // Network.
    routed("connect", 42, 362, Route::Socket, RecordKind::Connect).socketcall(3),
    routed("socketcall", NONE, 102, Route::Socket, RecordKind::Connect),
    routed("accept", 43, NONE, Route::Socket, RecordKind::Accept).socketcall(5),
    routed("accept4", 288, 364, Route::Socket, RecordKind::Accept).socketcall(18),
    routed("bind", 49, 361, Route::Socket, RecordKind::Bind).socketcall(2),
    routed("listen", 50, 363, Route::Socket, RecordKind::Listen).socketcall(4),
    routed("socket", 41, 359, Route::Socket, RecordKind::Raw).socketcall(1),
    routed("sendto", 44, 369, Route::Socket, RecordKind::Send).socketcall(11),
    routed("sendmsg", 46, 370, Route::SendMessage, RecordKind::Send).x32(518).socketcall(16),
    routed("sendmmsg", 307, 345, Route::SendMessage, RecordKind::Send).x32(538).socketcall(20),
    routed("recvmsg", 47, 372, Route::ReceiveMessage, RecordKind::FdReceive).x32(519).socketcall(17),
    routed("recvmmsg", 299, 337, Route::ReceiveMessages, RecordKind::FdReceive).x32(537).socketcall(19),
    routed("recvmmsg_time64", NONE, 417, Route::ReceiveMessages, RecordKind::FdReceive),
    // Privileges.
    act("ptrace", 101, 26, RecordKind::Ptrace).target(1).x32(521),
    act("process_vm_readv", 310, 347, RecordKind::Ptrace).target(0).x32(539),
    act("process_vm_writev", 311, 348, RecordKind::Ptrace).target(0).x32(540),
    act("pidfd_getfd", 438, 438, RecordKind::Ptrace).object(0),
    act("process_madvise", 440, 440, RecordKind::Ptrace).object(0),
    act("kcmp", 312, 349, RecordKind::Ptrace).target(0),
    act("setuid", 105, 23, RecordKind::Setid),
    act("setuid32", NONE, 213, RecordKind::Setid),
    act("setgid", 106, 46, RecordKind::Setid),
    act("setgid32", NONE, 214, RecordKind::Setid),
    act("setreuid", 113, 70, RecordKind::Setid),
    act("setreuid32", NONE, 203, RecordKind::Setid),
    act("setregid", 114, 71, RecordKind::Setid),
    act("setregid32", NONE, 204, RecordKind::Setid),
    act("setresuid", 117, 164, RecordKind::Setid),
    act("setresuid32", NONE, 208, RecordKind::Setid),
    act("setresgid", 119, 170, RecordKind::Setid),
    act("setresgid32", NONE, 210, RecordKind::Setid),
    act("setfsuid", 122, 138, RecordKind::Setid),
    act("setfsuid32", NONE, 215, RecordKind::Setid),
    act("setfsgid", 123, 139, RecordKind::Setid),
    act("setfsgid32", NONE, 216, RecordKind::Setid),
    act("setgroups", 116, 81, RecordKind::Setid),
    act("setgroups32", NONE, 206, RecordKind::Setid),
    act("capset", 126, 185, RecordKind::Capset),
    act("unshare", 272, 310, RecordKind::Namespace),
    // Told of by another hook, where what was made can be seen.
    act("clone", NONE, NONE, RecordKind::Namespace),
    act("setns", 308, 346, RecordKind::Namespace),
    act("chroot", 161, 61, RecordKind::Namespace).path(CWD, 0),
    act("bpf", 321, 357, RecordKind::Bpf),
    act("init_module", 175, 128, RecordKind::Module),
    act("finit_module", 313, 350, RecordKind::Module).object(0),
    act("delete_module", 176, 129, RecordKind::Module).text(0),
    act("kexec_load", 246, 283, RecordKind::Kexec).x32(528),
    act("kexec_file_load", 320, NONE, RecordKind::Kexec).object(0),
    act("add_key", 248, 286, RecordKind::Keyctl).text(0),
    act("request_key", 249, 287, RecordKind::Keyctl).text(0),
    act("keyctl", 250, 288, RecordKind::Keyctl),
    act("memfd_create", 319, 356, RecordKind::Memfd).text(0),
    act("memfd_secret", 447, 447, RecordKind::Memfd),
    act("perf_event_open", 298, 336, RecordKind::Perf),
    // Who is signalled when something happens to a file; all else that they do is not told of.
    act("fcntl", 72, 55, RecordKind::Signal),
    act("fcntl64", NONE, 221, RecordKind::Signal),
    act("ioctl", 16, 54, RecordKind::Signal).x32(514),
    // io_uring.
    act("io_uring_setup", 425, 425, RecordKind::IoUringSetup),
];

/// More than the highest number of a call.
pub const NUMBERS: usize = 1_024;

/// The bit that marks a 64-bit call's number as one of the x32 ABI: `__X32_SYSCALL_BIT`.
pub const X32_BIT: u32 = 0x4000_0000;
/// The x32 ABI has numbers of its own from here on.
pub const X32_FIRST: usize = 512;

/// The places in [`CALLS`] by number, 0 for what nobody observes. Among the 64-bit ones stand those that the x32 ABI alone has.
pub const fn places(narrow: bool) -> [u8; NUMBERS] {
    let mut places = [0; NUMBERS];
    let mut at = 0;
    while at < CALLS.len() {
        let call = &CALLS[at];
        let numbers = if narrow { [call.narrow, NONE] } else { [call.wide, call.x32] };
        let mut which = 0;
        while which < 2 {
            let number = numbers[which];
            if number != NONE {
                assert!(which == 0 || number as usize >= X32_FIRST, "no number of the x32 ABI's own");
                assert!(places[number as usize] == 0, "a number stands in the table twice");
                places[number as usize] = at as u8 + 1;
            }
            which += 1;
        }
        at += 1;
    }
    places
}

/// More than the highest number of `socketcall`.
pub const SOCKETCALLS: usize = 32;

/// The places in [`CALLS`] by their numbers in `socketcall`, 0 for what nobody observes.
pub const fn socketcall_places() -> [u8; SOCKETCALLS] {
    let mut places = [0; SOCKETCALLS];
    let mut at = 0;
    while at < CALLS.len() {
        let number = CALLS[at].socketcall as usize;
        if number != 0 {
            assert!(places[number] == 0, "a number stands in the table twice");
            places[number] = at as u8 + 1;
        }
        at += 1;
    }
    places
}

const _: () = assert!(CALLS.len() < 255);
const _: [u8; NUMBERS] = places(false);
const _: [u8; NUMBERS] = places(true);
const _: [u8; SOCKETCALLS] = socketcall_places();
