//! What every record begins with, and the strings that follow a body.

use crate::wire;

wire! {
    /// The head of every record.
    pub struct RecordHeader [64] {
        /// Bytes of the whole record, this header included.
        pub len_bytes: u32,
        /// A [`RecordKind`], as [`RecordKind::to_wire`] gives it.
        pub kind: u16,
        /// See the constants beginning with `FLAG_`.
        pub flags: u16,
        /// When it happened, in nanoseconds after boot (suspended time included).
        pub time_boot_ns: u64,
        /// The session the acting process belongs to; 0 for none.
        pub session: u64,
        /// When the acting process started, in nanoseconds after boot.
        pub start_boot_ns: u64,
        /// The acting process.
        pub tgid: u32,
        /// The acting thread.
        pub tid: u32,
        /// How often the process has exec'd since it joined its session.
        pub exec_number: u32,
        /// Zero.
        pub reserved: u32,
        /// Position among the records of its ring.
        pub sequence: u64,
        /// Zero, for now.
        pub reserved_wide: u64,
    }
}

/// The session is not decided yet: the daemon decides, and says so in the map `DECIDED`.
pub const FLAG_PROVISIONAL: u16 = 1;
/// This exec opened the session in the header.
pub const FLAG_NEW_SESSION: u16 = 2;

/// It was done through an io_uring.
pub const FLAG_IO_URING: u16 = 4;

/// Declares the kinds of records with their numbers on the wire.
macro_rules! kinds {
    ($($(#[$meta:meta])* $name:ident = $number:literal,)*) => {
        /// What a record tells of.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum RecordKind { $($(#[$meta])* $name,)* }

        impl RecordKind {
            /// Every kind, by number.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// The number that stands for the kind on the wire.
            pub const fn to_wire(self) -> u16 {
                match self { $(Self::$name => $number,)* }
            }

            /// The kind of that number, if there is one: bytes from a ring are never made into an enum unchecked.
            pub const fn from_wire(number: u16) -> Option<Self> {
                match number { $($number => Some(Self::$name),)* _ => None }
            }
        }
    };
}

kinds! {
    /// A process was made: [`crate::process::Fork`].
    Fork = 1,
    /// A process runs a new image: [`crate::process::Exec`].
    Exec = 2,
    /// An exec that failed: [`crate::process::ExecFailed`].
    ExecFailed = 3,
    /// The last thread of a process ended: [`crate::process::Exit`].
    Exit = 4,
    /// A file was opened, or was not: [`crate::file::Open`].
    Open = 5,
    /// A connection was asked for: [`crate::network::Socket`].
    Connect = 6,
    /// A name of a file was removed: [`crate::call::Act`], as all up to the next that says otherwise.
    Unlink = 7,
    /// A file was given another name.
    Rename = 8,
    /// A file was given one more name.
    Link = 9,
    /// A symbolic link was made.
    Symlink = 10,
    /// A directory was made.
    Mkdir = 11,
    /// A directory was removed.
    Rmdir = 12,
    /// A device, a pipe, a socket or a file was made by `mknod`.
    Mknod = 13,
    /// A file's length was set.
    Truncate = 14,
    /// A file's mode was set.
    Chmod = 15,
    /// A file's owner was set.
    Chown = 16,
    /// An extended attribute of a file was set or removed.
    Xattr = 17,
    /// The tree of mounts was changed.
    Mount = 18,
    /// Another process was traced, or its memory reached.
    Ptrace = 19,
    /// A signal was sent to a process outside the session.
    Signal = 20,
    /// A user or group id was set.
    Setid = 21,
    /// Capabilities were set.
    Capset = 22,
    /// A namespace, or a root directory, was made or entered.
    Namespace = 23,
    /// The system call `bpf`.
    Bpf = 24,
    /// A kernel module was loaded or removed.
    Module = 25,
    /// Another kernel was loaded.
    Kexec = 26,
    /// A key of the kernel's key rings was asked for.
    Keyctl = 27,
    /// A file that lies in memory alone was made.
    Memfd = 28,
    /// A performance counter was opened.
    Perf = 29,
    /// An io_uring was made.
    IoUringSetup = 30,
    /// A file was mapped to be executed: [`crate::file::Open`].
    MapExec = 31,
    /// A file was mapped so that writing reaches it: [`crate::file::Open`].
    MapWrite = 32,
    /// A connection was taken: [`crate::network::Socket`], as all up to the next that says otherwise.
    Accept = 33,
    /// A socket was given an address of its own.
    Bind = 34,
    /// A socket waits for connections.
    Listen = 35,
    /// A socket was made that takes packets as they are.
    Raw = 36,
    /// A socket was made that talks to the kernel.
    Netlink = 37,
    /// Something was sent to an address: [`crate::network::Sent`].
    Send = 38,
    /// A connection ended: [`crate::network::Closed`].
    Close = 39,
    /// A connection to a Unix socket: [`crate::network::Unix`].
    UnixConnect = 40,
    /// A descriptor came from another process: [`crate::file::Open`].
    FdReceive = 41,
    /// An operation of an io_uring was completed: [`crate::file::Open`], with its number in the place of the access.
    IoUringSubmit = 42,
    /// Bytes were read from a file, or written to it: [`crate::file::Open`].
    Io = 43,
    /// A system call was made: [`crate::file::Open`], with its number in the place of the access.
    SyscallCount = 44,
}

/// Room for the counters that are kept by kind: one more than the highest number.
pub const KINDS: u32 = 64;

wire! {
    /// The head of each string behind a body.
    pub struct StringHeader [4] {
        /// A [`StringTag`].
        pub tag: u8,
        /// [`STRING_CUT`] or 0.
        pub flags: u8,
        /// Bytes that follow.
        pub len_bytes: u16,
    }
}

/// The string was longer than its room.
pub const STRING_CUT: u8 = 1;

/// What a string behind a body is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StringTag {
    /// The resolved path of the object.
    Path,
    /// The path as the process gave it.
    Given,
    /// The resolved path of the directory that the given path starts from.
    Directory,
    /// The arguments, each ended by a NUL.
    Arguments,
    /// One environment variable, `KEY=VALUE`.
    Environment,
    /// What else the process gave in words: the target of a symbolic link, the name of a module.
    Text,
    /// The object's path from the root of its file system, where it was reached through a mount of a part of it.
    Within,
}

impl StringTag {
    /// The number that stands for the tag on the wire.
    pub const fn to_wire(self) -> u8 {
        match self {
            Self::Path => 1,
            Self::Given => 2,
            Self::Directory => 3,
            Self::Arguments => 4,
            Self::Environment => 5,
            Self::Text => 6,
            Self::Within => 7,
        }
    }

    /// The tag of that number, if there is one.
    pub const fn from_wire(number: u8) -> Option<Self> {
        match number {
            1 => Some(Self::Path),
            2 => Some(Self::Given),
            3 => Some(Self::Directory),
            4 => Some(Self::Arguments),
            5 => Some(Self::Environment),
            6 => Some(Self::Text),
            7 => Some(Self::Within),
            _ => None,
        }
    }
}
