//! Processes: fork, exec, exit.

use agent_common::StringTag;
use agent_common::process as wire;

use super::{DecodeError, ProcessKey, Rest, Text, join};

/// A process was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fork {
    /// The new process.
    pub child: ProcessKey,
}

/// A process runs a new image.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Exec {
    /// The session that the process was in before; 0 for none.
    pub session_before: u64,
    /// The image's path as the kernel resolved it.
    pub path: Text,
    /// The path that was given to exec.
    pub given: Text,
    /// The working directory.
    pub directory: Text,
    /// The arguments.
    pub arguments: Vec<Vec<u8>>,
    /// Whether arguments were left out for want of room.
    pub arguments_cut: bool,
    /// Allow-listed environment variables, `KEY=VALUE`.
    pub environment: Vec<Text>,
    /// The image's inode.
    pub inode: u64,
    /// The image's device: major << 20 | minor.
    pub device: u32,
    /// The index of the agent that the kernel side recognised.
    pub agent: Option<usize>,
    /// The parent process.
    pub parent_tgid: u32,
    /// When it started.
    pub parent_start_boot_ns: u64,
    /// Real user id.
    pub uid: u32,
    /// Effective user id.
    pub euid: u32,
    /// Real group id.
    pub gid: u32,
    /// The user id that logged in.
    pub login_uid: Option<u32>,
    /// What was named to exec was a script (or a format) that named the image as its interpreter.
    pub interpreted: bool,
    /// The image has no name on disk.
    pub nameless: bool,
    /// The control group's id in the unified hierarchy.
    pub cgroup_id: u64,
}

/// An exec failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExecFailed {
    /// The path as given, after the directory it starts from.
    pub path: Text,
    /// Why, as a positive errno.
    pub errno: u32,
}

/// A process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exit {
    /// The status as `wait` gives it.
    pub status: u32,
    /// The parent process.
    pub parent: ProcessKey,
    /// The session that the parent is in; 0 for none.
    pub parent_session: u64,
}

pub(super) fn fork(mut rest: Rest<'_>) -> Result<Fork, DecodeError> {
    let body: wire::Fork = rest.body()?;
    Ok(Fork { child: ProcessKey { tgid: body.child_tgid, start_boot_ns: body.child_start_boot_ns } })
}

pub(super) fn exec(mut rest: Rest<'_>) -> Result<Exec, DecodeError> {
    let body: wire::Exec = rest.body()?;
    let mut exec = Exec {
        session_before: body.session_before,
        inode: body.inode,
        device: body.device,
        agent: body.agent.checked_sub(1).map(|index| index as usize),
        parent_tgid: body.parent_tgid,
        parent_start_boot_ns: body.parent_start_boot_ns,
        uid: body.uid,
        euid: body.euid,
        gid: body.gid,
        login_uid: (body.login_uid != u32::MAX).then_some(body.login_uid),
        interpreted: body.flags & wire::EXEC_INTERPRETED != 0,
        nameless: body.flags & wire::EXEC_NAMELESS != 0,
        cgroup_id: body.cgroup_id,
        ..Exec::default()
    };
    rest.strings(|tag, text| match tag {
        StringTag::Path => exec.path = text,
        StringTag::Given => exec.given = text,
        StringTag::Directory => exec.directory = text,
        StringTag::Environment => exec.environment.push(text),
        StringTag::Arguments => {
            exec.arguments_cut = text.cut;
            exec.arguments = split_arguments(&text.bytes);
        }
        StringTag::Text | StringTag::Within => {}
    })?;
    Ok(exec)
}

/// Splits a block of arguments, each ended by a NUL; the last may have been cut.
fn split_arguments(block: &[u8]) -> Vec<Vec<u8>> {
    let block = block.strip_suffix(b"\0").unwrap_or(block);
    if block.is_empty() { Vec::new() } else { block.split(|&byte| byte == 0).map(<[u8]>::to_vec).collect() }
}

pub(super) fn exec_failed(mut rest: Rest<'_>) -> Result<ExecFailed, DecodeError> {
    let body: wire::ExecFailed = rest.body()?;
    let (directory, given) = given(rest)?;
    Ok(ExecFailed { path: join(directory, given), errno: body.errno })
}

/// The directory and the given path of an action that failed.
pub(super) fn given(rest: Rest<'_>) -> Result<(Option<Text>, Text), DecodeError> {
    let (mut directory, mut given) = (None, Text::default());
    rest.strings(|tag, text| match tag {
        StringTag::Directory => directory = Some(text),
        StringTag::Given => given = text,
        StringTag::Path | StringTag::Arguments | StringTag::Environment | StringTag::Text | StringTag::Within => {}
    })?;
    Ok((directory, given))
}

pub(super) fn exit(mut rest: Rest<'_>) -> Result<Exit, DecodeError> {
    let body: wire::Exit = rest.body()?;
    Ok(Exit {
        status: body.status,
        parent: ProcessKey { tgid: body.parent_tgid, start_boot_ns: body.parent_start_boot_ns },
        parent_session: body.parent_session,
    })
}
