//! Files: open, and create.

use agent_common::file::{self as wire, OpenKey};
use agent_common::{RecordKind, StringTag};

use super::{DecodeError, Rest, Text, join};

/// A file was opened, or was not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Open {
    /// What its repeats are folded by.
    pub key: OpenKey,
    /// How often the key was seen up to and including this record; 1 for one that is not folded.
    pub total: u64,
    /// When it was first seen, in nanoseconds after boot.
    pub first_boot_ns: u64,
    /// Whether the kernel side goes on counting it.
    pub folded: bool,
    /// The file's path: resolved, or as given where the open failed.
    pub path: Text,
    /// Whether the path is as given.
    pub as_given: bool,
    /// The constants beginning with `OPEN_`.
    pub flags: u32,
}

/// The count of something that is no file.
pub(super) fn counted(body: &wire::Open) -> Open {
    Open {
        key: body.key,
        total: body.total,
        first_boot_ns: body.first_boot_ns,
        folded: body.folded != 0,
        path: Text::default(),
        as_given: false,
        flags: 0,
    }
}

impl Open {
    /// The kind of record it came as.
    pub fn kind(&self) -> RecordKind {
        u16::try_from(self.key.kind).ok().and_then(RecordKind::from_wire).unwrap_or(RecordKind::Open)
    }
}

pub(super) fn open(mut rest: Rest<'_>) -> Result<Open, DecodeError> {
    let body: wire::Open = rest.body()?;
    let (mut resolved, mut directory, mut given) = (None, None, Text::default());
    rest.strings(|tag, text| match tag {
        StringTag::Path => resolved = Some(text),
        StringTag::Directory => directory = Some(text),
        StringTag::Given => given = text,
        StringTag::Arguments | StringTag::Environment | StringTag::Text => {}
    })?;
    let as_given = resolved.is_none();
    Ok(Open {
        key: body.key,
        total: body.total,
        first_boot_ns: body.first_boot_ns,
        folded: body.folded != 0,
        path: resolved.unwrap_or_else(|| join(directory, given)),
        as_given,
        flags: body.key.flags,
    })
}
