//! Files: open, and create.

use agent_common::file::{self as wire, OPEN_ANONYMOUS, OPEN_PIPE, OPEN_SOCKET, OpenKey};
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
    /// Its path from the root of its file system, where it was reached through a mount of a part of it.
    pub within: Option<Text>,
    /// The bytes of this action, where it is one that moves some.
    pub bytes: u64,
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
        within: None,
        bytes: 0,
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
    let (mut resolved, mut directory, mut given, mut within) = (None, None, Text::default(), None);
    rest.strings(|tag, text| match tag {
        StringTag::Path => resolved = Some(text),
        StringTag::Directory => directory = Some(text),
        StringTag::Given => given = text,
        // It begins with the root's own name, which is a slash.
        StringTag::Within => {
            within = Some(Text { bytes: text.bytes.get(2..).unwrap_or_default().to_vec(), cut: text.cut })
        }
        StringTag::Arguments | StringTag::Environment | StringTag::Text => {}
    })?;
    let as_given = resolved.is_none();
    let resolved = resolved.map(|path| kernel_name(body.key.flags, body.key.inode, path));
    Ok(Open {
        key: body.key,
        total: body.total,
        first_boot_ns: body.first_boot_ns,
        folded: body.folded != 0,
        path: resolved.unwrap_or_else(|| join(directory, given)),
        as_given,
        flags: body.key.flags,
        within,
        bytes: body.bytes,
    })
}

/// The name that the kernel itself gives to a file without a path, as `/proc/PID/fd` shows it.
fn kernel_name(flags: u32, inode: u64, path: Text) -> Text {
    let bytes = if flags & OPEN_PIPE != 0 {
        format!("pipe:[{inode}]").into_bytes()
    } else if flags & OPEN_SOCKET != 0 {
        format!("socket:[{inode}]").into_bytes()
    } else if flags & OPEN_ANONYMOUS != 0 {
        // The walk ended at a root that nothing leads to, whose own name says what it is: `/[eventfd]`.
        [b"anon_inode:", path.bytes.strip_prefix(b"/").unwrap_or(&path.bytes)].concat()
    } else {
        return path;
    };
    Text { bytes, cut: path.cut }
}

#[cfg(test)]
mod tests {
    use super::{OPEN_ANONYMOUS, OPEN_PIPE, OPEN_SOCKET, Text, kernel_name};

    #[test]
    fn a_file_without_a_path_has_the_name_that_the_kernel_gives_it() {
        let named = |flags: u32, path: &str| {
            let text = kernel_name(flags, 42, Text { bytes: path.into(), cut: false });
            String::from_utf8_lossy(&text.bytes).into_owned()
        };
        assert_eq!(named(OPEN_PIPE, "/"), "pipe:[42]");
        assert_eq!(named(OPEN_SOCKET, "/TCP"), "socket:[42]");
        assert_eq!(named(OPEN_ANONYMOUS, "/[eventfd]"), "anon_inode:[eventfd]");
        assert_eq!(named(OPEN_ANONYMOUS, "/inotify"), "anon_inode:inotify");
        assert_eq!(named(0, "/memfd:x"), "/memfd:x");
    }
}
