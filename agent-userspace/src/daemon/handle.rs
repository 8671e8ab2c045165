//! What the pipeline makes of one event: its session, its verdict, its entry.

use agent_common::RecordKind;
use agent_common::file::{ACCESS_CREATED, ACCESS_PATH, ACCESS_READ, ACCESS_WRITE, OPEN_INTERNAL};
use agent_common::maps::Decision;
use tracing::{error, info, warn};

use super::clock::boot_ns;
use super::drafts::{Compose, gap, script, uncounted_gap};
use super::gatekeeper::Passage;
use super::pipeline::Pipeline;
use super::places::{DeniedFiles, FileSeen, HostMounts};
use crate::attribute::{Attributed, Process};
use crate::decode::{self, Action, Event, Exec, ExecFailed, Head, Open, ProcessKey, Text};
use crate::entry::{Draft, Gap, Reason, ReasonKind, Timestamp, Verdict};
use crate::observation::event_of;
use crate::scope::effective::Effective;
use crate::scope::recorded::normalised;
use crate::scope::{self, Access, SeenPath};
use crate::sensor::OpenFile;

/// A decision is kept for its tasks for so long, in nanoseconds: each hears of it with its next action. One that sleeps
/// longer is told again.
const KEEP_DECISION_NS: u64 = 5_000_000_000;

impl Pipeline {
    /// Takes one event from the sensor to a draft.
    pub(super) fn handle(&mut self, event: Event) {
        if let Some(checked) = &mut self.checked
            && checked.session == event.head.session
        {
            checked.seen.insert(event.action.kind());
            return;
        }
        let time = self.clock.wall(event.head.time_boot_ns);
        if self.took_late(&event, time) {
            return;
        }
        if self.attributor.is_unknown(&event.head) {
            self.meet_unseen(event.head.session, time);
        }
        let outcome = self.attributor.attribute(event, time);
        if let Some((provisional, decision)) = outcome.decision {
            self.decide(provisional, &decision);
        }
        if let Some(attributed) = outcome.attributed {
            self.record(&attributed, time);
        }
    }

    /// A session whose first record was lost.
    fn meet_unseen(&mut self, session: u64, time: Timestamp) {
        let opened = self.sensor.take_opened(session).unwrap_or_default();
        let outcome = self.attributor.open_unseen(session, opened.as_ref(), time);
        if let Some((provisional, decision)) = outcome.decision {
            self.decide(provisional, &decision);
        }
        if let Some(attributed) = outcome.attributed
            && attributed.opened_from.is_some()
        {
            self.announce_session(&attributed, time);
        }
    }

    /// Tells the kernel side what a provisional session is. Should that fail it is said again with the next record.
    fn decide(&mut self, provisional: u64, decision: &Decision) {
        if let Err(error) = self.sensor.decide(provisional, decision) {
            error!(%error, "the kernel side was not told what a provisional session is");
        }
        let keep_until = boot_ns() + KEEP_DECISION_NS;
        self.decisions.push_back((keep_until, provisional));
    }

    fn record(&mut self, attributed: &Attributed, time: Timestamp) {
        let head = &attributed.event.head;
        if attributed.opened_from.is_some() {
            self.announce_session(attributed, time);
        }
        match &attributed.event.action {
            Action::Fork(fork) => {
                let mut compose = self.compose(attributed.session, head, time, "process.fork");
                if let Some(compose) = &mut compose {
                    compose.fork(fork);
                }
                self.push_composed(attributed.session, compose);
            }
            Action::Exec(exec) => self.record_exec(attributed.session, head, exec, time),
            Action::ExecFailed(exec) => self.record_exec_failed(attributed.session, head, exec, time),
            Action::Exit(exit) => {
                // An exit seen twice is one: two threads may both have taken themselves for the last.
                if attributed.before.as_ref().is_some_and(|before| before.ended_boot_ns.is_some()) {
                    return;
                }
                let inside = self.attributor.resolve(exit.parent_session) == Some(attributed.session);
                let started = self.clock.wall(head.process.start_boot_ns);
                let process = self.attributor.process(head.process).cloned();
                let mut compose = self.compose(attributed.session, head, time, "process.exit");
                if let Some(compose) = &mut compose {
                    compose.exit(exit, process.as_ref(), started, inside);
                }
                self.push_composed(attributed.session, compose);
                self.flush_process(head.process, None);
            }
            Action::Open(open) => match open.kind() {
                RecordKind::IoUringSubmit => self.record_operation(attributed.session, head, open, time),
                RecordKind::Io => self.record_transfer(attributed.session, head, open, time),
                RecordKind::SyscallCount => self.record_call_count(attributed.session, head, open, time),
                _ => self.record_open(attributed.session, head, open, time),
            },
            Action::Socket(socket) => self.record_socket(attributed.session, head, socket, time),
            Action::Sent(sent) => self.record_sent(attributed.session, head, sent, time),
            Action::Closed(closed) => self.record_closed(attributed.session, head, closed, time),
            Action::Unix(unix) => self.record_unix(attributed.session, head, unix, time),
            Action::Act(act) => self.record_act(attributed.session, head, act, time),
        }
    }

    pub(super) fn compose(&self, session: u64, head: &Head, time: Timestamp, event: &str) -> Option<Compose> {
        let session = self.attributor.session(session)?;
        let mut compose = Compose::of(&self.attributor, session, head.process, head.tid, time, event);
        if head.io_uring {
            compose.set("bailiwick.io_uring", true);
        }
        Some(compose)
    }

    pub(super) fn push_composed(&mut self, session: u64, compose: Option<Compose>) {
        if let Some(compose) = compose {
            self.push(session, compose.draft);
        }
    }

    /// The entries that open a session: its start, a delegation, and what was not seen of its beginning.
    fn announce_session(&mut self, attributed: &Attributed, time: Timestamp) {
        let head = &attributed.event.head;
        let environment = self.config.settings.sensor.environment.clone();
        let start = self.compose(attributed.session, head, time, "session.start").map(|mut compose| {
            compose.draft.count = 0;
            if let Action::Exec(exec) = &attributed.event.action {
                compose.exec(exec, 1, &environment);
            }
            compose
        });
        self.push_composed(attributed.session, start);
        if attributed.opened_from.is_some_and(|from| from != 0) {
            self.announce_delegation(attributed.session, head.process, time, attributed.before.as_ref());
        }
        self.live_sessions.note(self.attributor.sessions());
        self.look_at_files();
        self.watch_from(attributed.session, head.time_boot_ns);
    }

    /// The entry that says who delegated. It carries what the process was in the delegator's session, for its span there.
    pub(super) fn announce_delegation(
        &mut self,
        session: u64,
        key: ProcessKey,
        time: Timestamp,
        before: Option<&Process>,
    ) {
        let head = Head {
            time_boot_ns: 0,
            session,
            provisional: false,
            new_session: true,
            io_uring: false,
            process: key,
            tid: key.tgid,
            exec_number: 0,
        };
        let started = self.clock.wall(key.start_boot_ns);
        let delegation = self.compose(session, &head, time, "delegation.start").map(|mut compose| {
            compose.draft.count = 0;
            compose.set("process.creation.time", started.to_string());
            if let Some(before) = before {
                compose.image(Some(before));
                if let Some(parent) = before.parent_tgid {
                    compose.set("process.parent_pid", parent);
                }
                if let Some(parent) = before.parent {
                    compose.set("bailiwick.process.parent_start_boot_ns", parent.start_boot_ns.to_string());
                }
            }
            compose
        });
        if let Some(Compose { draft }) = delegation {
            let seq = self.push(session, draft.clone());
            self.look_at_delegation(&draft, seq);
        }
    }

    /// Sees to it that a session's system calls are watched. What was not from its beginning on is a gap; what it has open
    /// by then is added.
    pub(super) fn watch_from(&mut self, session: u64, since_boot_ns: u64) {
        if let Err(error) = self.arm() {
            error!(%error, "a session is not watched");
        }
        let armed = self.armed_since.unwrap_or_else(boot_ns);
        if armed <= since_boot_ns {
            return;
        }
        let reason = "what it did before the system-call hook was attached was not seen";
        self.lose(Some(session), "all", None, (since_boot_ns, armed), reason);
        self.add_found_open(&[session]);
    }

    /// Adds what the processes of these sessions have open.
    pub(super) fn add_found_open(&mut self, sessions: &[u64]) {
        let files = match self.sensor.open_files() {
            Ok(files) => files,
            Err(error) => return warn!(%error, "what is open already is not known"),
        };
        let time = self.clock.wall(boot_ns());
        for file in files {
            let Some(session) = self.attributor.resolve(file.row.session).filter(|id| sessions.contains(id)) else {
                continue;
            };
            let found = self.found_open(session, &file, time);
            if let Some(draft) = found {
                self.push(session, draft);
            }
        }
    }

    fn found_open(&self, session: u64, file: &OpenFile, time: Timestamp) -> Option<Draft> {
        let row = &file.row;
        let head = Head {
            time_boot_ns: 0,
            session,
            provisional: false,
            new_session: false,
            io_uring: false,
            process: ProcessKey { tgid: row.tgid, start_boot_ns: row.start_boot_ns },
            tid: row.tgid,
            exec_number: 0,
        };
        let mut draft = if row.socket.family != 0 {
            let connect = decode::network::of_wire(&row.socket, RecordKind::Connect);
            // A socket without a far end is no connection.
            if connect.remote.port() == 0 {
                return None;
            }
            self.socket_draft(session, &head, &connect, time)?.draft
        } else if row.flags & agent_common::file::OPEN_INTERNAL != 0 {
            return None;
        } else {
            let path = Text { bytes: file.path.clone(), cut: false };
            let mut compose = self.compose(session, &head, time, "file.open")?;
            compose.text("file.path", &path);
            compose.set("bailiwick.file.access", super::drafts::access_name(row.access));
            compose.file_identity(row.device, row.inode, row.flags);
            self.judge_file(session, &mut compose, &path, row.access, None);
            compose.draft
        };
        draft.count = 0;
        draft.attributes.insert("bailiwick.file.found_open".to_owned(), true.into());
        Some(draft)
    }

    fn record_exec(&mut self, session: u64, head: &Head, exec: &Exec, time: Timestamp) {
        // What the image before had counted can grow no more.
        self.flush_process(head.process, Some(head.exec_number));
        let number = self.attributor.process(head.process).map_or(1, |process| process.execs);
        let environment = self.config.settings.sensor.environment.clone();
        let Some(mut compose) = self.compose(session, head, time, "process.exec") else { return };
        compose.exec(exec, number, &environment);
        self.name_variables(&mut compose, head.process.tgid);
        let script = exec.interpreted.then(|| script(exec));
        let action = scope::Action::Exec {
            path: seen(&exec.path),
            script: script.as_ref().map(|path| SeenPath { bytes: path, cut: exec.given.cut }),
        };
        self.judge(session, &mut compose, &action, None);
        self.judge_identity(session, &mut compose, FileSeen { device: exec.device, inode: exec.inode, flags: 0 });
        let begins = number == 1 && self.attributor.session(session).is_some_and(|one| one.root == head.process);
        let whose = begins.then(|| compose.draft.clone());
        let seq = self.push(session, compose.draft);
        if let Some(whose) = whose {
            self.look_at_files_of(session, &whose, seq, Some(exec));
        }
    }

    fn record_exec_failed(&mut self, session: u64, head: &Head, exec: &ExecFailed, time: Timestamp) {
        let Some(mut compose) = self.compose(session, head, time, "process.exec") else { return };
        compose.exec_failed(exec);
        let path = normalised(&exec.path.bytes);
        let action = scope::Action::Exec { path: SeenPath { bytes: &path, cut: exec.path.cut }, script: None };
        self.judge(session, &mut compose, &action, Some(exec.errno));
        self.push(session, compose.draft);
    }

    fn record_open(&mut self, session: u64, head: &Head, open: &Open, time: Timestamp) {
        let kind = open.kind();
        let event = match kind {
            RecordKind::Open if open.key.access & ACCESS_CREATED != 0 => "file.create",
            kind => event_of(kind),
        };
        let Some(mut compose) = self.compose(session, head, time, event) else { return };
        let path = if open.as_given {
            Text { bytes: normalised(&open.path.bytes), cut: open.path.cut }
        } else {
            open.path.clone()
        };
        compose.open(open, &path);
        let errno = (open.key.errno != 0).then_some(open.key.errno);
        // What is mapped to be executed was judged when it was opened, and is no program. A pipe, a socket, a memfd has no
        // name that a grant could have.
        if kind != RecordKind::MapExec && open.flags & OPEN_INTERNAL == 0 {
            self.judge_open(session, &mut compose, open, &path, errno);
        }
        self.push_counted(session, open, compose.draft);
    }

    /// Notes a draft of something whose repeats may be counted in the kernel.
    pub(super) fn push_counted(&mut self, session: u64, count: &Open, draft: Draft) {
        let draft = if count.folded { self.folding.announce(count.key, count.total, draft) } else { Some(draft) };
        if let Some(draft) = draft {
            self.push(session, draft);
        }
    }

    /// Looks where files lie and which are denied. A host on which one session alone lives has the mounts that it had before.
    pub(super) fn look_at_files(&mut self) {
        self.denied = DeniedFiles::of(&self.config);
        self.credentials.look_at_files(&self.config);
        if self.attributor.sessions().count() <= 1 {
            self.mounts = HostMounts::now();
        }
    }

    fn judge_file(&self, session: u64, compose: &mut Compose, path: &Text, access: u32, errno: Option<u32>) {
        let action = scope::Action::File { path: seen(path), access: access_of(access) };
        self.judge(session, compose, &action, errno);
    }

    /// Judges an open by the path that the session sees, and by those that the host does: a deny on any denies, and through
    /// a mount that the host did not have, the host's own path must be granted.
    fn judge_open(&self, session: u64, compose: &mut Compose, open: &Open, path: &Text, errno: Option<u32>) {
        self.judge_file(session, compose, path, open.key.access, errno);
        if let Some(within) = &open.within {
            let hosts = self.mounts.paths(open.key.device, &within.bytes);
            let is_the_hosts = hosts.is_empty() || hosts.contains(&path.bytes);
            if !is_the_hosts && let Some(host) = hosts.first() {
                compose.bytes("bailiwick.file.host_path", host);
            }
            for host in hosts.into_iter().map(|bytes| Text { bytes, cut: within.cut }) {
                if compose.draft.verdict == Verdict::OutOfScope {
                    break;
                }
                let seen = (compose.draft.verdict, compose.draft.reason.clone());
                self.judge_file(session, compose, &host, open.key.access, errno);
                let denied = compose.draft.reason.as_ref().is_some_and(|reason| reason.kind == ReasonKind::Rule);
                if denied && host.bytes != path.bytes {
                    compose.bytes("bailiwick.file.other_path", &host.bytes);
                } else if is_the_hosts {
                    (compose.draft.verdict, compose.draft.reason) = seen;
                }
            }
        }
        let seen = FileSeen { device: open.key.device, inode: open.key.inode, flags: open.flags };
        self.judge_identity(session, compose, seen);
    }

    /// A file that is denied by its full name is denied under every other.
    pub(super) fn judge_identity(&self, session: u64, compose: &mut Compose, file: FileSeen) {
        if compose.draft.verdict != Verdict::InScope {
            return;
        }
        let effective = self.effective(session);
        let denying = effective.layers().find_map(|layer| Some((layer, self.denied.rule(layer.agent, file)?.clone())));
        if let Some((layer, rule)) = denying {
            let delegator = effective.is_delegators(layer).then(|| layer.agent.to_owned());
            compose.draft.verdict = Verdict::OutOfScope;
            compose.draft.reason = Some(Reason { delegator, ..rule });
        }
    }

    /// The scope that binds a session.
    pub(super) fn effective(&self, session: u64) -> Effective<'_> {
        let session = self.attributor.session(session);
        session.map(|session| self.config.effective(&session.agent, &session.delegation)).unwrap_or_default()
    }

    pub(super) fn judge(&self, session: u64, compose: &mut Compose, action: &scope::Action<'_>, errno: Option<u32>) {
        let judgement = self.effective(session).judge(action, errno.map(u32::cast_signed));
        compose.draft.verdict = judgement.verdict;
        compose.draft.reason = judgement.reason;
    }

    /// Records that something was lost between two boot times, of a session or (`None`) of nobody knows which.
    pub(super) fn lose(&mut self, session: Option<u64>, kind: &str, lost: Option<u64>, between: (u64, u64), why: &str) {
        let (from, to) = (self.clock.wall(between.0), self.clock.wall(between.1.max(between.0)));
        let known = session.and_then(|id| self.attributor.session(id));
        let agent = known.map(|session| session.agent.clone());
        let of = Gap { kind: kind.to_owned(), lost, ..uncounted_gap(known.map(|session| session.id), from, to, why) };
        self.view.lock().lost += lost.unwrap_or(0);
        self.push(session.unwrap_or(0), gap(of, agent.as_deref()));
    }

    /// An exec that the gate let go on unattached: a gap, unless its session has one of its own.
    pub(super) fn note_passage(&mut self, passage: &Passage) {
        let began = self.attributor.sessions().find(|(_, session)| Some(session.root.tgid) == passage.tgid);
        if let Some((id, _)) = began {
            info!(session = %id, "its beginning went unseen");
            return;
        }
        self.lose(None, "all", None, (passage.from_boot_ns, passage.until_boot_ns), &passage.why);
    }
}

fn seen(text: &Text) -> SeenPath<'_> {
    SeenPath { bytes: &text.bytes, cut: text.cut }
}

fn access_of(access: u32) -> Access {
    let (read, write) = (access & ACCESS_READ != 0, access & ACCESS_WRITE != 0);
    match (access & ACCESS_PATH != 0, read, write) {
        (true, ..) => Access::Path,
        (false, true, true) => Access::ReadWrite,
        (false, false, true) => Access::Write,
        (false, _, false) => Access::Read,
    }
}
