//! What calls that are told of as they were made become: changes of names, of what files are, of mounts, of privileges.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use agent_common::RecordKind;
use serde_json::json;

use super::afterwards::{LastName, lookup};
use super::drafts::Compose;
use super::files::kernel_id;
use super::pipeline::Pipeline;
use super::places::FileSeen;
use crate::decode::{Act, Head, Named, Object, ProcessKey, Text};
use crate::entry::Timestamp;
use crate::observation::{Judged, event_of, judged_by};
use crate::scope::recorded::normalised;
use crate::scope::{self, Access, SeenPath};

/// A path that an act names: as it was given, and where it leads.
pub(super) struct Place {
    pub(super) path: Text,
    resolved_after: bool,
}

impl Pipeline {
    pub(super) fn record_act(&mut self, session: u64, head: &Head, act: &Act, time: Timestamp) {
        if act.kind == RecordKind::Signal && self.is_inside(session, act) {
            return;
        }
        let Some(mut compose) = self.compose(session, head, time, event_of(act.kind)) else { return };
        let mut places: Vec<Place> =
            act.names.iter().map(|named| place_of(head.process.tgid, named, last_name(act))).collect();
        if let Some(call) = act.call
            && !head.io_uring
        {
            compose.set("bailiwick.syscall", call.name);
        }
        compose.act(act);
        compose.places(act.kind, &places);
        if let Some(object) = &act.object {
            compose.object(act.kind, object);
            places.push(Place { path: object.path.clone(), resolved_after: false });
        }
        let errno = (act.errno != 0).then_some(act.errno);
        match judged_by(act.kind) {
            Judged::Write => {
                self.judge_places(session, &mut compose, &places, errno);
                for file in self.changed_files(session, act, &places) {
                    self.judge_identity(session, &mut compose, file);
                }
            }
            Judged::Privilege(name) => self.judge(session, &mut compose, &scope::Action::Privilege { name }, errno),
            Judged::Otherwise => {}
        }
        self.push(session, compose.draft);
    }

    /// Judges every name as written to: one that is out of scope makes the whole so.
    fn judge_places(&self, session: u64, compose: &mut Compose, places: &[Place], errno: Option<u32>) {
        let paths: Vec<SeenPath<'_>> =
            places.iter().map(|place| SeenPath { bytes: &place.path.bytes, cut: place.path.cut }).collect();
        self.judge(session, compose, &scope::Action::Files { paths: &paths, access: Access::Write }, errno);
    }

    /// The files that an act changed, where it may matter which they are: what a descriptor leads to, and what stands where
    /// a path leads that is followed to its end.
    fn changed_files(&self, session: u64, act: &Act, places: &[Place]) -> Vec<FileSeen> {
        if !self.effective(session).layers().any(|layer| self.denied.names_any(layer.agent)) {
            return Vec::new();
        }
        let of = |object: &Object| FileSeen { device: object.device, inode: object.inode, flags: object.flags };
        let mut files: Vec<FileSeen> = act.object.iter().map(of).collect();
        if last_name(act) == LastName::Followed {
            let named = places.iter().take(act.names.len());
            files.extend(named.filter_map(|place| {
                let (device, inode) = kernel_id(Path::new(OsStr::from_bytes(&place.path.bytes))).ok()?;
                Some(FileSeen { device, inode, flags: 0 })
            }));
        }
        files
    }

    /// Whether a signal stays inside the session: the kernel side knows the sessions by their first ids. Of whom a file's
    /// signals go to it knows the process alone, and of a group only its first process's id.
    fn is_inside(&self, session: u64, act: &Act) -> bool {
        let Some(target) = act.target else { return false };
        if act.call.is_none() {
            return self.attributor.resolve(target.session) == Some(session);
        }
        let started = |key: &ProcessKey| target.start_boot_ns == 0 || key.start_boot_ns == target.start_boot_ns;
        let mut live = self.attributor.session(session).into_iter().flat_map(|session| &session.live);
        live.any(|key| key.tgid == target.tgid && started(key))
    }
}

/// Where a path leads that a process gave.
pub(super) fn place_of(tgid: u32, named: &Named, last: LastName) -> Place {
    let joined = named.joined();
    let plain = normalised(&joined.bytes);
    let found = if joined.cut { None } else { lookup(tgid, &joined.bytes, named.directory.is_some(), last) };
    let resolved_after = found.as_ref().is_some_and(|found| *found != plain);
    Place { path: Text { bytes: found.unwrap_or(plain), cut: joined.cut }, resolved_after }
}

/// Whether the call follows a symbolic link in the last place of its path.
fn last_name(act: &Act) -> LastName {
    const AT_SYMLINK_NOFOLLOW: u64 = 0x100;
    const AT_SYMLINK_FOLLOW: u64 = 0x400;
    let [_, _, third, fourth, fifth, _] = act.arguments;
    let follows = match act.call.map_or("", |call| call.name) {
        "chmod" | "fchmodat" | "chown" | "chown32" | "truncate" | "truncate64" | "setxattr" | "removexattr"
        | "mount" | "umount" | "umount2" | "pivot_root" | "chroot" => true,
        "fchmodat2" => fourth & AT_SYMLINK_NOFOLLOW == 0,
        "fchownat" => fifth & AT_SYMLINK_NOFOLLOW == 0,
        "setxattrat" | "removexattrat" => third & AT_SYMLINK_NOFOLLOW == 0,
        "linkat" => fifth & AT_SYMLINK_FOLLOW != 0,
        _ => false,
    };
    if follows { LastName::Followed } else { LastName::Kept }
}

impl Compose {
    /// What an act says, but for its paths.
    fn act(&mut self, act: &Act) {
        self.error(act.errno);
        if let Some(target) = &act.target {
            self.set("bailiwick.target.tgid", target.tgid);
            if target.start_boot_ns != 0 {
                self.set("bailiwick.target.start_boot_ns", target.start_boot_ns.to_string());
            }
        }
        let [first, second, third, fourth, ..] = act.arguments;
        let call = act.call.map_or("", |call| call.name);
        match act.kind {
            RecordKind::Chmod => {
                let mode = if matches!(call, "fchmodat" | "fchmodat2") { third } else { second };
                self.set("file.mode", format!("{:04o}", mode & 0o7777));
            }
            RecordKind::Chown => {
                let (owner, group) = if call == "fchownat" { (third, fourth) } else { (second, third) };
                self.id("file.owner.id", owner);
                self.id("file.group.id", group);
            }
            RecordKind::Truncate => {
                self.set("file.size", if call == "fallocate" { third.saturating_add(fourth) } else { second })
            }
            RecordKind::Mount => self.set("bailiwick.mount.flags", format!("{fourth:#x}")),
            RecordKind::Ptrace if call == "ptrace" => self.set("bailiwick.ptrace.request", ptrace_request(first)),
            RecordKind::Signal => self.set("bailiwick.signal", first),
            RecordKind::Setid => {
                let ids: Vec<i64> = [first, second, third]
                    .iter()
                    .take(ids_of(call))
                    .map(|&id| i64::from((id & 0xffff_ffff) as u32 as i32))
                    .collect();
                self.set("bailiwick.setid.ids", json!(ids));
            }
            RecordKind::Namespace => {
                let flags = if call == "setns" { second } else { first };
                if call != "chroot" {
                    self.set("bailiwick.namespace.flags", format!("{flags:#x}"));
                }
            }
            RecordKind::Bpf => self.set("bailiwick.bpf.command", first),
            RecordKind::Keyctl if call == "keyctl" => self.set("bailiwick.keyctl.operation", first),
            RecordKind::IoUringSetup => self.set("bailiwick.io_uring.entries", first & 0xffff_ffff),
            _ => {}
        }
        if let Some(text) = &act.text {
            self.text(text_name(act.kind), text);
        }
    }

    /// A user or group id; the one that means "as it is" is left out.
    fn id(&mut self, name: &str, id: u64) {
        let id = (id & 0xffff_ffff) as u32;
        if id != u32::MAX {
            self.set(name, id.to_string());
        }
    }

    /// The paths that an act was given.
    fn places(&mut self, kind: RecordKind, places: &[Place]) {
        let other = if kind == RecordKind::Mount { "bailiwick.mount.source" } else { "bailiwick.file.new_path" };
        for (place, name) in places.iter().zip(["file.path", other]) {
            self.text(name, &place.path);
            self.set("bailiwick.file.as_given", true);
            if place.resolved_after {
                self.set("bailiwick.file.resolved_after", true);
            }
        }
    }

    fn object(&mut self, kind: RecordKind, object: &crate::decode::Object) {
        let name = match kind {
            RecordKind::Module | RecordKind::Kexec => "bailiwick.module.path",
            _ => "file.path",
        };
        self.text(name, &object.path);
        self.file_identity(object.device, object.inode, object.flags);
    }
}

/// What the words are that a call was given beside paths.
fn text_name(kind: RecordKind) -> &'static str {
    match kind {
        RecordKind::Symlink => "file.symbolic_link.target_path",
        RecordKind::Xattr => "bailiwick.file.xattr",
        RecordKind::Module => "bailiwick.module.name",
        RecordKind::Keyctl => "bailiwick.keyctl.type",
        RecordKind::Memfd => "bailiwick.memfd.name",
        _ => "bailiwick.text",
    }
}

fn ids_of(call: &str) -> usize {
    match call {
        "setresuid" | "setresuid32" | "setresgid" | "setresgid32" => 3,
        "setreuid" | "setreuid32" | "setregid" | "setregid32" => 2,
        "setgroups" | "setgroups32" => 0,
        _ => 1,
    }
}

fn ptrace_request(request: u64) -> String {
    match request {
        0 => "TRACEME".to_owned(),
        16 => "ATTACH".to_owned(),
        0x4206 => "SEIZE".to_owned(),
        other => format!("{other:#x}"),
    }
}
