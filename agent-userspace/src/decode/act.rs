//! Calls that are told of as they were made: changes of names, of what files are, of mounts, and of privileges.

use agent_common::call::{ACT_OBJECT, Act as Body, Call};
use agent_common::{RecordKind, StringTag};

use super::{DecodeError, Rest, Text, join};

/// A call that is told of as it was made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Act {
    /// What it did.
    pub kind: RecordKind,
    /// The call; `None` where it was seen by another hook.
    pub call: Option<&'static Call>,
    /// The arguments.
    pub arguments: [u64; 6],
    /// What it returned.
    pub result: i64,
    /// Why it failed, as a positive errno; 0 where it succeeded.
    pub errno: u32,
    /// What a descriptor among the arguments leads to.
    pub object: Option<Object>,
    /// The paths among the arguments, in the order of the table.
    pub names: Vec<Named>,
    /// The other string among the arguments.
    pub text: Option<Text>,
    /// The process that it was done to.
    pub target: Option<Target>,
}

/// A file as the kernel holds it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Object {
    /// Its resolved path.
    pub path: Text,
    /// Its inode.
    pub inode: u64,
    /// Its device: major << 20 | minor.
    pub device: u32,
    /// The constants beginning with `OPEN_`.
    pub flags: u32,
}

/// A path as the process gave it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Named {
    /// What it gave.
    pub given: Text,
    /// The resolved path of the directory that it starts from, where it is relative.
    pub directory: Option<Text>,
}

impl Named {
    /// The path, joined and not resolved.
    pub fn joined(&self) -> Text {
        join(self.directory.clone(), self.given.clone())
    }
}

/// The process that something was done to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Target {
    /// Its id: the host's where `start_boot_ns` is known, else as the acting process gave it.
    pub tgid: u32,
    /// When it started, in nanoseconds after boot; 0 where that is not known.
    pub start_boot_ns: u64,
    /// The session that the kernel side holds it to be in; 0 for none.
    pub session: u64,
}

pub(super) fn act(mut rest: Rest<'_>) -> Result<Act, DecodeError> {
    let kind = rest.kind;
    let body: Body = rest.body()?;
    let (mut path, mut names, mut other) = (Text::default(), Vec::<Named>::new(), None);
    rest.strings(|tag, text| match tag {
        StringTag::Path => path = text,
        StringTag::Given => names.push(Named { given: text, directory: None }),
        StringTag::Directory => {
            if let Some(named) = names.last_mut() {
                named.directory = Some(text);
            }
        }
        StringTag::Text => other = Some(text),
        StringTag::Arguments | StringTag::Environment | StringTag::Within => {}
    })?;
    let object = (body.has & ACT_OBJECT != 0).then_some(Object {
        path,
        inode: body.inode,
        device: body.device,
        flags: body.flags,
    });
    let target = (body.target_tgid != 0).then_some(Target {
        tgid: body.target_tgid,
        start_boot_ns: body.target_start_boot_ns,
        session: body.target_session,
    });
    Ok(Act {
        kind,
        call: Call::at(body.call),
        arguments: body.arguments,
        result: body.result,
        errno: body.errno,
        object,
        names,
        text: other,
        target,
    })
}
