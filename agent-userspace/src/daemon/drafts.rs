//! What an entry says: attributed events to drafts, with the attributes of `docs/events.md`.
//!
//! Pure. Strings are bytes up to here; what is no UTF-8 is escaped, and said to be.

use serde_json::{Map, Value, json};

use crate::attribute::{Attributor, Process, Session};
use crate::decode::{Exec, ExecFailed, Exit, Fork, Open, ProcessKey, Text};
use crate::entry::{Draft, Gap, ProcessRef, SessionId, Timestamp, Verdict};
use crate::scope::recorded::{normalised, readable};
use crate::trace_context::{TRACEPARENT, TRACESTATE, VARIABLE};

/// A draft in the making.
pub(super) struct Compose {
    pub(super) draft: Draft,
}

impl Compose {
    /// An entry about what a process of a session did.
    pub(super) fn of(
        attributor: &Attributor,
        session: &Session,
        key: ProcessKey,
        tid: u32,
        time: Timestamp,
        event: &str,
    ) -> Self {
        let process = attributor.process(key);
        let mut compose = Self {
            draft: Draft {
                agent: Some(session.agent.clone()),
                session: Some(session.id),
                delegation: session.delegation.clone(),
                principal: Some(session.principal.clone()),
                attribution: Some(attributor.attribution(session, key)),
                count: 1,
                ..Draft::of_host(time, event)
            },
        };
        let forgotten = || session.root_executable.as_deref().filter(|_| key == session.root);
        let executable = process.and_then(|process| process.executable.as_deref()).or_else(forgotten);
        let executable = executable.map(|path| compose.plain("process.executable", path));
        compose.draft.process = Some(ProcessRef { tgid: key.tgid, tid, start_boot_ns: key.start_boot_ns, executable });
        compose
    }

    /// A string that is no attribute of its own.
    fn plain(&mut self, field: &str, bytes: &[u8]) -> String {
        let (text, escaped) = readable(bytes);
        if escaped {
            self.draft.escaped.push(field.to_owned());
        }
        text
    }

    pub(super) fn set(&mut self, name: &str, value: impl Into<Value>) {
        self.draft.attributes.insert(name.to_owned(), value.into());
    }

    pub(super) fn bytes(&mut self, name: &str, bytes: &[u8]) {
        let text = self.plain(name, bytes);
        self.set(name, text);
    }

    pub(super) fn text(&mut self, name: &str, text: &Text) {
        self.bytes(name, &text.bytes);
        if text.cut {
            self.draft.truncated.push(name.to_owned());
        }
    }

    pub(super) fn error(&mut self, errno: u32) {
        if errno != 0 {
            self.set("error.type", errno_name(errno));
        }
    }

    fn arguments(&mut self, arguments: &[Vec<u8>]) {
        const NAME: &str = "process.command_args";
        let mut escaped = false;
        let texts: Vec<String> = arguments
            .iter()
            .map(|argument| {
                let (text, argument_escaped) = readable(argument);
                escaped |= argument_escaped;
                text
            })
            .collect();
        if escaped {
            self.draft.escaped.push(NAME.to_owned());
        }
        self.set(NAME, texts);
    }

    pub(super) fn fork(&mut self, fork: &Fork) {
        self.set("bailiwick.child.tgid", fork.child.tgid);
        self.set("bailiwick.child.start_boot_ns", fork.child.start_boot_ns.to_string());
    }

    /// What an exec says; environment variables among `environment` alone.
    pub(super) fn exec(&mut self, exec: &Exec, number: u32, environment: &[String]) {
        self.text("process.executable.path", &exec.path);
        self.arguments(&exec.arguments);
        if exec.arguments_cut {
            self.draft.truncated.push("process.command_args".to_owned());
        }
        self.text("process.working_directory", &exec.directory);
        self.set("process.parent_pid", exec.parent_tgid);
        self.set("process.user.id", exec.euid);
        self.set("process.real_user.id", exec.uid);
        self.text("bailiwick.exec.given", &exec.given);
        self.set("bailiwick.exec.number", number);
        if exec.interpreted {
            let script = script(exec);
            self.bytes("bailiwick.exec.script", &script);
        }
        if exec.nameless {
            self.set("bailiwick.exec.nameless", true);
        }
        self.environment(&exec.environment, environment);
    }

    /// Variables, `KEY=VALUE` each: those that are `allowed`.
    pub(super) fn environment(&mut self, variables: &[Text], allowed: &[String]) {
        for variable in variables {
            let Some(equals) = variable.bytes.iter().position(|&byte| byte == b'=') else { continue };
            let (key, value) = variable.bytes.split_at(equals);
            let Some(key) = allowed.iter().find(|allowed| allowed.as_bytes() == key) else { continue };
            let value = Text { bytes: value.get(1..).unwrap_or_default().to_vec(), cut: variable.cut };
            self.text(&format!("{VARIABLE}{key}"), &value);
        }
    }

    pub(super) fn exec_failed(&mut self, exec: &ExecFailed) {
        self.text("process.executable.path", &exec.path);
        self.text("bailiwick.exec.given", &exec.path);
        self.error(exec.errno);
    }

    /// What an exit says.
    pub(super) fn exit(&mut self, exit: &Exit, process: Option<&Process>, started: Timestamp, parent_inside: bool) {
        let signal = exit.status & 0x7f;
        if signal == 0 {
            self.set("process.exit.code", (exit.status >> 8) & 0xff);
        } else {
            self.set("bailiwick.exit.signal", signal);
        }
        self.set("process.parent_pid", exit.parent.tgid);
        if parent_inside {
            self.set("bailiwick.process.parent_start_boot_ns", exit.parent.start_boot_ns.to_string());
        }
        self.set("process.creation.time", started.to_string());
        self.image(process);
    }

    /// The image and arguments that a process runs, and the trace that it says it is part of.
    pub(super) fn image(&mut self, process: Option<&Process>) {
        let Some(process) = process else { return };
        if let Some(path) = process.executable.as_deref() {
            self.bytes("process.executable.path", path);
        }
        self.arguments(&process.arguments);
        if let Some(trace) = &process.trace {
            self.set(&format!("{VARIABLE}{TRACEPARENT}"), trace.traceparent());
            if !trace.state.is_empty() {
                self.set(&format!("{VARIABLE}{TRACESTATE}"), trace.state.as_str());
            }
        }
    }

    pub(super) fn open(&mut self, open: &Open, path: &Text) {
        self.text("file.path", path);
        self.set("bailiwick.file.access", access_name(open.key.access));
        if open.as_given {
            self.set("bailiwick.file.as_given", true);
        } else {
            self.file_identity(open.key.device, open.key.inode, open.flags);
        }
        self.error(open.key.errno);
    }

    pub(super) fn file_identity(&mut self, device: u32, inode: u64, flags: u32) {
        use agent_common::file::{OPEN_INTERNAL, OPEN_NAMELESS, OPEN_UNREACHABLE};
        self.set("bailiwick.file.device", format!("{}:{}", device >> 20, device & 0xf_ffff));
        self.set("bailiwick.file.inode", inode.to_string());
        for (flag, name) in [
            (OPEN_NAMELESS, "bailiwick.file.deleted"),
            (OPEN_INTERNAL, "bailiwick.file.internal"),
            (OPEN_UNREACHABLE, "bailiwick.file.unreachable"),
        ] {
            if flags & flag != 0 {
                self.set(name, true);
            }
        }
    }
}

/// The path of a `#!` script, as given to exec, made absolute.
pub(super) fn script(exec: &Exec) -> Vec<u8> {
    let absolute = if exec.given.bytes.starts_with(b"/") {
        exec.given.bytes.clone()
    } else {
        [&exec.directory.bytes[..], b"/", &exec.given.bytes].concat()
    };
    normalised(&absolute)
}

pub(super) fn access_name(access: u32) -> &'static str {
    use agent_common::file::{ACCESS_PATH, ACCESS_READ, ACCESS_WRITE};
    if access & ACCESS_PATH != 0 {
        return "path";
    }
    match (access & ACCESS_READ != 0, access & ACCESS_WRITE != 0) {
        (true, true) => "rw",
        (_, true) => "w",
        (_, false) => "r",
    }
}

/// An entry for what was lost.
pub(super) fn gap(gap: Gap, agent: Option<&str>) -> Draft {
    let mut attributes = Map::new();
    attributes.insert("bailiwick.gap.kind".to_owned(), json!(gap.kind));
    attributes.insert("bailiwick.gap.lost".to_owned(), json!(gap.lost));
    attributes.insert("bailiwick.gap.from".to_owned(), json!(gap.from.to_string()));
    attributes.insert("bailiwick.gap.to".to_owned(), json!(gap.to.to_string()));
    attributes.insert("bailiwick.gap.reason".to_owned(), json!(gap.reason));
    Draft {
        agent: agent.map(str::to_owned),
        session: gap.session,
        attributes,
        gap: Some(gap.clone()),
        verdict: Verdict::None,
        ..Draft::of_host(gap.to, "gap")
    }
}

/// A gap in which nobody counted.
pub(super) fn uncounted_gap(session: Option<SessionId>, from: Timestamp, to: Timestamp, reason: &str) -> Gap {
    Gap { kind: "all".to_owned(), session, lost: None, from, to, reason: reason.to_owned() }
}

/// An errno's name; its number where it has none here.
pub(super) fn errno_name(errno: u32) -> String {
    macro_rules! names {
        ($($name:ident)*) => {
            match i32::try_from(errno).unwrap_or(0) {
                $(libc::$name => stringify!($name).to_owned(),)*
                other => format!("errno {other}"),
            }
        };
    }
    names! {
        EPERM ENOENT ESRCH EINTR EIO ENXIO E2BIG ENOEXEC EBADF ECHILD EAGAIN ENOMEM EACCES EFAULT ENOTBLK EBUSY EEXIST
        EXDEV ENODEV ENOTDIR EISDIR EINVAL ENFILE EMFILE ENOTTY ETXTBSY EFBIG ENOSPC ESPIPE EROFS EMLINK EPIPE EDOM
        ERANGE EDEADLK ENAMETOOLONG ENOLCK ENOSYS ENOTEMPTY ELOOP ENOLINK EREMOTEIO EOVERFLOW EILSEQ EUSERS ENOTSOCK
        EDESTADDRREQ EMSGSIZE EPROTOTYPE ENOPROTOOPT EPROTONOSUPPORT ESOCKTNOSUPPORT EOPNOTSUPP EPFNOSUPPORT
        EAFNOSUPPORT EADDRINUSE EADDRNOTAVAIL ENETDOWN ENETUNREACH ENETRESET ECONNABORTED ECONNRESET ENOBUFS EISCONN
        ENOTCONN ESHUTDOWN ETIMEDOUT ECONNREFUSED EHOSTDOWN EHOSTUNREACH EALREADY EINPROGRESS ESTALE EDQUOT ENOMEDIUM
        EMEDIUMTYPE ECANCELED ELIBBAD EKEYREJECTED EKEYREVOKED EKEYEXPIRED ENOKEY EPROTO
    }
}

#[cfg(test)]
mod tests {
    use super::errno_name;

    #[test]
    fn an_errno_has_its_name() {
        assert_eq!(errno_name(2), "ENOENT");
        assert_eq!(errno_name(9999), "errno 9999");
    }
}
