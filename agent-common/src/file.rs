//! Files: open.

use crate::wire;

wire! {
    /// The body of an open.
    ///
    /// Strings of one that succeeded: `Path`. Of one that failed: `Directory` (what a relative path starts from), `Given`.
    pub struct Open [96] {
        /// What repeats are folded by.
        pub key: OpenKey,
        /// How often this key was seen up to and including this record.
        pub total: u64,
        /// When the key was first seen, in nanoseconds after boot.
        pub first_boot_ns: u64,
        /// 1 where the kernel side goes on counting the key, 0 where this record stands alone.
        pub folded: u32,
        /// 1 where it was a 32-bit call, in a count of system calls.
        pub narrow: u32,
        /// The bytes of this action, where it is one that moves some.
        pub bytes: u64,
    }
}

wire! {
    /// What two opens must share to be repeats of one another: the contract's key.
    pub struct OpenKey [64] {
        /// The session.
        pub session: u64,
        /// When the process started, in nanoseconds after boot.
        pub start_boot_ns: u64,
        /// The file's inode; 0 for an open that failed.
        pub inode: u64,
        /// A keyed hash of the resolved path, or of the directory and the path as given.
        pub path_hash: u64,
        /// The process.
        pub tgid: u32,
        /// How often the process had exec'd.
        pub exec_number: u32,
        /// The file's device, as the kernel writes it; 0 for an open that failed.
        pub device: u32,
        /// Why it failed, as a positive errno; 0 for one that succeeded.
        pub errno: u32,
        /// See the constants beginning with `ACCESS_`.
        pub access: u32,
        /// The [`crate::RecordKind`].
        pub kind: u32,
        /// See the constants beginning with `OPEN_`: a file that has lost its name is not the one that had it.
        pub flags: u32,
        /// Zero.
        pub reserved: u32,
    }
}

/// Opened for reading.
pub const ACCESS_READ: u32 = 1;
/// Opened for writing.
pub const ACCESS_WRITE: u32 = 2;
/// A handle to the place alone (`O_PATH`).
pub const ACCESS_PATH: u32 = 4;
/// The open created the file.
pub const ACCESS_CREATED: u32 = 8;

/// The file has no name any more, or never had one.
pub const OPEN_NAMELESS: u32 = 1;
/// The file lies on a mount inside the kernel (a pipe, a memfd) that no path leads to.
pub const OPEN_INTERNAL: u32 = 2;
/// The walk to the root ended early: the path is only the end of the real one.
pub const OPEN_UNREACHABLE: u32 = 4;
/// A pipe without a name.
pub const OPEN_PIPE: u32 = 8;
/// A socket, by its descriptor.
pub const OPEN_SOCKET: u32 = 16;
/// An eventfd, a timerfd, a BPF map and the like: its path is the kernel's word for what it is.
pub const OPEN_ANONYMOUS: u32 = 32;
/// The file was reached through a mount of a part of its file system: a bind mount, or a container's.
pub const OPEN_BOUND: u32 = 64;
/// The file lies in an overlay: its device is the overlay's, its inode number that of the file in the layer below.
pub const OPEN_LAYERED: u32 = 128;
