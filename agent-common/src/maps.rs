//! Keys and values of the maps that both sides use.

use crate::wire;

wire! {
    /// Membership: what the sensor keeps with every task of a session.
    pub struct Member [24] {
        /// The session.
        pub session: u64,
        /// How often the process has exec'd since it joined.
        pub exec_number: u32,
        /// [`MEMBER_PROVISIONAL`] or 0.
        pub flags: u32,
        /// The index of the session's agent plus one; 0 while it is not known.
        pub agent: u32,
        /// Zero.
        pub reserved: u32,
    }
}

/// The session is not decided: look for it in `DECIDED` before believing it.
pub const MEMBER_PROVISIONAL: u32 = 1;

wire! {
    /// A file as the kernel knows it.
    pub struct FileId [16] {
        /// Its inode.
        pub inode: u64,
        /// Its file system's device: major << 20 | minor.
        pub device: u32,
        /// Zero.
        pub reserved: u32,
    }
}

wire! {
    /// What an executable, or a user, says about who runs it.
    pub struct Recognition [8] {
        /// The index of the agent plus one; 0 where several may be meant.
        pub agent: u32,
        /// [`RECOGNISE_DECIDED`] or [`RECOGNISE_PROVISIONAL`].
        pub how: u32,
    }
}

/// The kernel side decides alone: who runs this is that agent.
pub const RECOGNISE_DECIDED: u32 = 1;
/// The daemon must decide.
pub const RECOGNISE_PROVISIONAL: u32 = 2;

wire! {
    /// A session as the kernel side opened it: how the daemon learns of one whose first record was lost.
    pub struct Opened [40] {
        /// When, in nanoseconds after boot.
        pub time_boot_ns: u64,
        /// When its first process started, in nanoseconds after boot.
        pub start_boot_ns: u64,
        /// The session that the process was in before; 0 for none.
        pub session_before: u64,
        /// Its first process.
        pub tgid: u32,
        /// The index of the agent plus one; 0 while it is not known.
        pub agent: u32,
        /// [`MEMBER_PROVISIONAL`] or 0.
        pub flags: u32,
        /// Zero.
        pub reserved: u32,
    }
}

wire! {
    /// The daemon's word on a provisional session.
    pub struct Decision [16] {
        /// The session its processes belong to from now on; 0: to none.
        pub session: u64,
        /// The index of the agent plus one.
        pub agent: u32,
        /// Zero.
        pub reserved: u32,
    }
}

wire! {
    /// What failed reserves are counted by.
    pub struct LossKey [16] {
        /// The session.
        pub session: u64,
        /// The [`crate::RecordKind`].
        pub kind: u32,
        /// One of the constants beginning with `LOSS_`.
        pub why: u32,
    }
}

/// The ring had no room.
pub const LOSS_RING: u32 = 1;
/// A child could not be given its parent's membership.
pub const LOSS_INHERIT: u32 = 2;
/// A record could not be made: the kernel's memory could not be read.
pub const LOSS_READ: u32 = 3;
/// The first record of a folded key found no room. The key's count goes on: what is counted here is not lost unless the
/// key is never announced.
pub const LOSS_ANNOUNCE: u32 = 4;
/// It was asked for through an io_uring, and its end was told to nobody.
pub const LOSS_UNTOLD: u32 = 5;

wire! {
    /// Failed reserves of one key.
    pub struct Loss [24] {
        /// How many.
        pub count: u64,
        /// The first, in nanoseconds after boot.
        pub first_boot_ns: u64,
        /// The last, in nanoseconds after boot.
        pub last_boot_ns: u64,
    }
}

wire! {
    /// What a session has put into a ring that is filling up, since the daemon last gave up some of it.
    pub struct Share [24] {
        /// The daemon's count of its drains.
        pub epoch: u64,
        /// Bytes in the weighty ring.
        pub weighty_bytes: u64,
        /// Bytes in the other.
        pub bulk_bytes: u64,
    }
}

wire! {
    /// Whose connection it is.
    pub struct Owner [32] {
        /// The session.
        pub session: u64,
        /// When the process started, in nanoseconds after boot.
        pub start_boot_ns: u64,
        /// The process that made it.
        pub tgid: u32,
        /// The thread.
        pub tid: u32,
        /// How often the process had exec'd.
        pub exec_number: u32,
        /// The flags that records about it carry.
        pub flags: u32,
    }
}

wire! {
    /// A folded key's count. It only grows.
    pub struct Fold [40] {
        /// How many actions.
        pub total: u64,
        /// How many bytes, where it counts such.
        pub bytes: u64,
        /// The first, in nanoseconds after boot.
        pub first_boot_ns: u64,
        /// The last, in nanoseconds after boot.
        pub last_boot_ns: u64,
        /// 1 when a record with the path has been emitted.
        pub announced: u64,
    }
}

wire! {
    /// A task as the iterator `list_tasks` writes it.
    pub struct TaskRow [56] {
        /// When the process started, in nanoseconds after boot.
        pub start_boot_ns: u64,
        /// The session that it is in; 0 for none.
        pub session: u64,
        /// When its parent started.
        pub parent_start_boot_ns: u64,
        /// The process.
        pub tgid: u32,
        /// The thread.
        pub tid: u32,
        /// Its parent.
        pub parent_tgid: u32,
        /// The real user id.
        pub uid: u32,
        /// 1 for a kernel thread.
        pub kernel_thread: u32,
        /// How often it has exec'd since it joined its session.
        pub exec_number: u32,
        /// The member's flags.
        pub flags: u32,
        /// 1 for a task that is ending, or has ended and waits for its parent.
        pub exiting: u32,
    }
}

wire! {
    /// An open file as the iterator `list_files` writes it; the path follows.
    pub struct FileRow [96] {
        /// When the process started, in nanoseconds after boot.
        pub start_boot_ns: u64,
        /// The session that it is in.
        pub session: u64,
        /// The file's inode.
        pub inode: u64,
        /// The process.
        pub tgid: u32,
        /// The descriptor.
        pub fd: u32,
        /// The file's device.
        pub device: u32,
        /// As for an open: the constants beginning with `ACCESS_`.
        pub access: u32,
        /// As for an open: the constants beginning with `OPEN_`.
        pub flags: u32,
        /// Bytes of path that follow.
        pub path_len_bytes: u32,
        /// For a socket, its connection; a family of 0 for all else.
        pub socket: crate::network::Socket,
    }
}
