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
    /// A connection was asked for: [`crate::network::Connect`].
    Connect = 6,
}

/// Room for the counters that are kept by kind: one more than the highest number.
pub const KINDS: u32 = 16;

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
            _ => None,
        }
    }
}
