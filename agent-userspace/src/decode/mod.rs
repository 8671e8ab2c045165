//! Records to events: a pure function of the bytes. Nothing here knows where they come from.
//!
//! Whatever stands in a record was written by the sensor, but strings in it were chosen by the monitored process: every
//! length is checked, nothing panics, and bytes stay bytes.

mod act;
mod file;
pub(crate) mod network;
mod process;

use agent_common::record::{FLAG_IO_URING, FLAG_NEW_SESSION, FLAG_PROVISIONAL, STRING_CUT};
use agent_common::{RecordHeader, RecordKind, StringHeader, StringTag};
use zerocopy::{FromBytes, Immutable, KnownLayout};

pub use self::act::{Act, Named, Object, Target};
pub use self::file::Open;
pub use self::network::{Closed, Sent, Socket, Unix, UnixName};
pub use self::process::{Exec, ExecFailed, Exit, Fork};

/// A process: ids are used again, so its start belongs to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ProcessKey {
    /// Its id.
    pub tgid: u32,
    /// When it started, in nanoseconds after boot.
    pub start_boot_ns: u64,
}

/// What all events have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    /// When it happened, in nanoseconds after boot.
    pub time_boot_ns: u64,
    /// The session that the kernel side holds the process to be in; 0 for none.
    pub session: u64,
    /// Whether the daemon has yet to decide on that session.
    pub provisional: bool,
    /// Whether this exec opened that session.
    pub new_session: bool,
    /// Whether it was done through an io_uring.
    pub io_uring: bool,
    /// Who acted.
    pub process: ProcessKey,
    /// Which thread of it.
    pub tid: u32,
    /// How often the process had exec'd.
    pub exec_number: u32,
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// A process was made.
    Fork(Fork),
    /// A process runs a new image.
    Exec(Box<Exec>),
    /// An exec failed.
    ExecFailed(ExecFailed),
    /// A process ended.
    Exit(Exit),
    /// A file was opened, or was not.
    Open(Open),
    /// Something was done with a socket: a connection was asked for, ...
    Socket(Socket),
    /// Something was sent to an address.
    Sent(Box<Sent>),
    /// A connection ended.
    Closed(Closed),
    /// A connection to a Unix socket.
    Unix(Box<Unix>),
    /// A call that is told of as it was made.
    Act(Box<Act>),
}

impl Action {
    /// The kind of record it came as.
    pub fn kind(&self) -> RecordKind {
        match self {
            Self::Fork(_) => RecordKind::Fork,
            Self::Exec(_) => RecordKind::Exec,
            Self::ExecFailed(_) => RecordKind::ExecFailed,
            Self::Exit(_) => RecordKind::Exit,
            Self::Open(open) => open.kind(),
            Self::Socket(socket) => socket.kind,
            Self::Sent(_) => RecordKind::Send,
            Self::Closed(_) => RecordKind::Close,
            Self::Unix(_) => RecordKind::UnixConnect,
            Self::Act(act) => act.kind,
        }
    }
}

/// A record, decoded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// What all events have.
    pub head: Head,
    /// What happened.
    pub action: Action,
}

/// A string of a record.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Text {
    /// Its bytes.
    pub bytes: Vec<u8>,
    /// Whether it was longer than its room.
    pub cut: bool,
}

/// Why bytes are no record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// Less bytes than the head and the body take.
    #[error("a record of {len} bytes is too short")]
    TooShort {
        /// How many there are.
        len: usize,
    },
    /// A kind that this daemon does not know.
    #[error("a record of the unknown kind {kind}")]
    UnknownKind {
        /// Its number.
        kind: u16,
    },
    /// A string reaches beyond the record.
    #[error("a record of the kind {kind} has a string beyond its end")]
    BadString {
        /// The kind's number.
        kind: u16,
    },
}

/// When a record happened, without decoding the rest.
pub fn time_boot_ns(record: &[u8]) -> Option<u64> {
    RecordHeader::ref_from_prefix(record).ok().map(|(header, _)| header.time_boot_ns)
}

/// Decodes a record.
///
/// # Errors
/// It is none.
pub fn decode(record: &[u8]) -> Result<Event, DecodeError> {
    let (header, rest) =
        RecordHeader::read_from_prefix(record).map_err(|_| DecodeError::TooShort { len: record.len() })?;
    let kind = RecordKind::from_wire(header.kind).ok_or(DecodeError::UnknownKind { kind: header.kind })?;
    let head = Head {
        time_boot_ns: header.time_boot_ns,
        session: header.session,
        provisional: header.flags & FLAG_PROVISIONAL != 0,
        new_session: header.flags & FLAG_NEW_SESSION != 0,
        io_uring: header.flags & FLAG_IO_URING != 0,
        process: ProcessKey { tgid: header.tgid, start_boot_ns: header.start_boot_ns },
        tid: header.tid,
        exec_number: header.exec_number,
    };
    let rest = Rest { kind, rest, len: record.len() };
    let action = match kind {
        RecordKind::Fork => Action::Fork(process::fork(rest)?),
        RecordKind::Exec => Action::Exec(Box::new(process::exec(rest)?)),
        RecordKind::ExecFailed => Action::ExecFailed(process::exec_failed(rest)?),
        RecordKind::Exit => Action::Exit(process::exit(rest)?),
        RecordKind::Open
        | RecordKind::MapExec
        | RecordKind::MapWrite
        | RecordKind::FdReceive
        | RecordKind::IoUringSubmit
        | RecordKind::Io
        | RecordKind::SyscallCount => Action::Open(file::open(rest)?),
        RecordKind::Connect
        | RecordKind::Accept
        | RecordKind::Bind
        | RecordKind::Listen
        | RecordKind::Raw
        | RecordKind::Netlink => Action::Socket(network::socket(rest)?),
        RecordKind::Send => Action::Sent(Box::new(network::sent(rest)?)),
        RecordKind::Close => Action::Closed(network::closed(rest)?),
        RecordKind::UnixConnect => Action::Unix(Box::new(network::unix(rest)?)),
        RecordKind::Unlink
        | RecordKind::Rename
        | RecordKind::Link
        | RecordKind::Symlink
        | RecordKind::Mkdir
        | RecordKind::Rmdir
        | RecordKind::Mknod
        | RecordKind::Truncate
        | RecordKind::Chmod
        | RecordKind::Chown
        | RecordKind::Xattr
        | RecordKind::Mount
        | RecordKind::Ptrace
        | RecordKind::Signal
        | RecordKind::Setid
        | RecordKind::Capset
        | RecordKind::Namespace
        | RecordKind::Bpf
        | RecordKind::Module
        | RecordKind::Kexec
        | RecordKind::Keyctl
        | RecordKind::Memfd
        | RecordKind::Perf
        | RecordKind::IoUringSetup => Action::Act(Box::new(act::act(rest)?)),
    };
    Ok(Event { head, action })
}

/// What follows a record's head.
struct Rest<'a> {
    kind: RecordKind,
    rest: &'a [u8],
    len: usize,
}

impl<'a> Rest<'a> {
    fn body<B: FromBytes + KnownLayout + Immutable>(&mut self) -> Result<B, DecodeError> {
        let (body, rest) = B::read_from_prefix(self.rest).map_err(|_| DecodeError::TooShort { len: self.len })?;
        self.rest = rest;
        Ok(body)
    }

    /// Each string and what it is; one of an unknown tag is passed over.
    fn strings(mut self, mut take: impl FnMut(StringTag, Text)) -> Result<(), DecodeError> {
        while !self.rest.is_empty() {
            let (header, bytes) = self.string()?;
            if let Some(tag) = StringTag::from_wire(header.tag) {
                take(tag, Text { bytes: bytes.to_vec(), cut: header.flags & STRING_CUT != 0 });
            }
        }
        Ok(())
    }

    fn string(&mut self) -> Result<(StringHeader, &'a [u8]), DecodeError> {
        let bad = DecodeError::BadString { kind: self.kind.to_wire() };
        let (header, rest) = StringHeader::read_from_prefix(self.rest).map_err(|_| bad)?;
        let (bytes, rest) = rest.split_at_checked(usize::from(header.len_bytes)).ok_or(bad)?;
        self.rest = rest;
        Ok((header, bytes))
    }
}

/// The absolute path that a process meant: what it gave, after the directory (for an absolute one, the process's own root)
/// that it starts from. It is not resolved, only joined.
fn join(directory: Option<Text>, given: Text) -> Text {
    let Some(mut path) = directory else { return given };
    if path.bytes.last() != Some(&b'/') && given.bytes.first().is_some_and(|&byte| byte != b'/') {
        path.bytes.push(b'/');
    }
    path.bytes.extend_from_slice(&given.bytes);
    Text { bytes: path.bytes, cut: path.cut || given.cut }
}

#[cfg(test)]
mod tests;
