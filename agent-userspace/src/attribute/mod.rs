//! Whose action is it: events to sessions.
//!
//! Input: events in the order of time, and an injected `/proc`. Output: for each event its session, and what the kernel side
//! must be told of a provisional one. It owns the tables of sessions and processes; it judges nothing and writes nothing.
//!
//! Membership itself is the kernel side's: an event carries its session. What is decided here is what the kernel side
//! cannot: which agent a provisional session is, if any. An exec's record comes before anything else that its process does,
//! so a decision is made before an event needs it.

pub mod principal;
pub mod procfs;
mod recognised;
mod session;
pub mod tcp;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use agent_common::maps::{Decision, Opened, TaskRow};

use self::principal::{Lineage, lineage};
use self::procfs::ProcFs;
pub use self::recognised::script_of;
pub use self::session::{Process, Session, Tally};
use crate::config::Config;
use crate::decode::{Action, Event, Exec, Head, ProcessKey, Text};
use crate::entry::{Attribution, Confidence, Delegator, Method, SessionId, Timestamp};
use crate::trace_context::{TRACEPARENT, TraceContext};

/// The most that is kept of an environment variable, its name included.
const MOST_VARIABLE_BYTES: usize = 511;

/// An event whose session is known.
#[derive(Clone, Debug)]
pub struct Attributed {
    /// The event.
    pub event: Event,
    /// Its session.
    pub session: u64,
    /// Whether it opened that session, and the session it left for it (0: none).
    pub opened_from: Option<u64>,
    /// What the process was before this event, where it was known.
    pub before: Option<Process>,
}

/// What came of an event.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    /// The event, if it is a session's.
    pub attributed: Option<Attributed>,
    /// What to tell the kernel side of a provisional session.
    pub decision: Option<(u64, Decision)>,
}

/// What has been decided on a provisional session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    /// It is this session: its own id, or that of the session its process stayed in.
    Session(u64),
    /// It is none.
    Outsider,
}

/// Recognition that names an agent, with how sure that is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recognition {
    /// The agent's name.
    pub agent: String,
    /// How it was recognised.
    pub attribution: Attribution,
}

/// What opens a session.
struct Opening {
    id: u64,
    from: u64,
    root: ProcessKey,
    recognition: Recognition,
    lineage: Lineage,
    started: Timestamp,
}

/// The tables of sessions and processes.
pub struct Attributor {
    config: Arc<Config>,
    /// Agents by the index that the kernel side knows them by: names are only ever added, so an index keeps its meaning
    /// over changes of the configuration.
    agents: Vec<String>,
    proc: ProcFs,
    sessions: BTreeMap<u64, Session>,
    processes: HashMap<ProcessKey, Process>,
    fates: HashMap<u64, Fate>,
    /// Processes that live by our account and not by the kernel's, and since when that is so, in nanoseconds after boot.
    missing: HashMap<ProcessKey, u64>,
}

impl Attributor {
    /// Empty tables.
    pub fn new(config: Arc<Config>, proc: ProcFs) -> Self {
        let mut attributor = Self {
            config: Arc::clone(&config),
            agents: Vec::new(),
            proc,
            sessions: BTreeMap::new(),
            processes: HashMap::new(),
            fates: HashMap::new(),
            missing: HashMap::new(),
        };
        attributor.set_config(config);
        attributor
    }

    /// Takes another configuration. Sessions that live keep their agents.
    pub fn set_config(&mut self, config: Arc<Config>) {
        for declaration in &config.declarations {
            self.agent_index(declaration.name());
        }
        self.config = config;
    }

    /// The index that the kernel side knows an agent by.
    pub fn agent_index(&mut self, agent: &str) -> usize {
        match self.agents.iter().position(|known| known == agent) {
            Some(index) => index,
            None => {
                self.agents.push(agent.to_owned());
                self.agents.len() - 1
            }
        }
    }

    /// The same, as it stands in a map: plus one, and 0 for none.
    pub fn wire_agent(&mut self, agent: &str) -> u32 {
        u32::try_from(self.agent_index(agent) + 1).unwrap_or(0)
    }

    /// The sessions that have not been closed.
    pub fn sessions(&self) -> impl Iterator<Item = (u64, &Session)> {
        self.sessions.iter().map(|(&id, session)| (id, session))
    }

    /// A session.
    pub fn session(&self, id: u64) -> Option<&Session> {
        self.sessions.get(&id)
    }

    /// A session, to be counted in.
    pub fn session_mut(&mut self, id: u64) -> Option<&mut Session> {
        self.sessions.get_mut(&id)
    }

    /// A process.
    pub fn process(&self, key: ProcessKey) -> Option<&Process> {
        self.processes.get(&key)
    }

    /// The session that an id of the kernel side stands for.
    pub fn resolve(&self, id: u64) -> Option<u64> {
        match self.fates.get(&id) {
            Some(Fate::Session(session)) => Some(*session),
            Some(Fate::Outsider) => None,
            None => self.sessions.contains_key(&id).then_some(id),
        }
    }

    /// Whether nothing is known of an event's session: its first record was lost.
    pub fn is_unknown(&self, head: &Head) -> bool {
        head.session != 0
            && !head.new_session
            && !self.sessions.contains_key(&head.session)
            && !self.fates.contains_key(&head.session)
    }

    /// Attributes an event.
    pub fn attribute(&mut self, event: Event, time: Timestamp) -> Outcome {
        let head = event.head;
        let tells = head.new_session || matches!(event.action, Action::Exit(_));
        let before = if tells { self.processes.get(&head.process).cloned() } else { None };
        if head.new_session
            && let Action::Exec(exec) = &event.action
        {
            let (session, opened_from, decision) = self.join(&head, exec, time);
            let Some(session) = session else { return Outcome { attributed: None, decision } };
            self.executed(&head, exec, session, opened_from.is_some());
            return Outcome { attributed: Some(Attributed { event, session, opened_from, before }), decision };
        }
        let Some(session) = self.resolve(head.session) else {
            return Outcome { attributed: None, decision: self.decide_again(&head) };
        };
        let decision = self.decide_again(&head);
        // A connection may end long after the process that made it.
        if !self.processes.contains_key(&head.process) && !matches!(event.action, Action::Closed(_)) {
            self.learn(head.process, session);
        }
        match &event.action {
            Action::Fork(fork) => self.forked(head.process, fork.child, session),
            Action::Exec(exec) => self.executed(&head, exec, session, false),
            Action::Exit(_) => self.ended(head.process, session, head.time_boot_ns),
            Action::ExecFailed(_)
            | Action::Open(_)
            | Action::Socket(_)
            | Action::Sent(_)
            | Action::Closed(_)
            | Action::Unix(_)
            | Action::Act(_) => {}
        }
        Outcome { attributed: Some(Attributed { event, session, opened_from: None, before }), decision }
    }

    /// The environment of a process, each variable cut where the sensor cuts it.
    pub fn environment_of(&self, tgid: u32) -> Vec<Text> {
        let text = |mut bytes: Vec<u8>| {
            let cut = bytes.len() > MOST_VARIABLE_BYTES;
            bytes.truncate(MOST_VARIABLE_BYTES);
            Text { bytes, cut }
        };
        self.proc.environment(tgid).into_iter().map(text).collect()
    }

    /// The image that a process runs, in a session or not.
    pub fn executable_of(&self, tgid: u32) -> Option<Vec<u8>> {
        self.proc.executable(tgid)
    }

    /// What to tell the kernel side again: of a task that has not heard of a decision, since it was taken off the table by
    /// then, or had not been made yet.
    fn decide_again(&mut self, head: &Head) -> Option<(u64, Decision)> {
        if !head.provisional {
            return None;
        }
        let session = match self.fates.get(&head.session) {
            Some(Fate::Outsider) => 0,
            Some(Fate::Session(session)) => *session,
            None if self.sessions.contains_key(&head.session) => head.session,
            None => return None,
        };
        let agent = self.sessions.get(&session).map(|session| session.agent.clone());
        let agent = agent.map_or(0, |agent| self.wire_agent(&agent));
        Some((head.session, Decision { session, agent, reserved: 0 }))
    }

    /// Forgets a provisional session that turned out to be none. A task that has not heard of it by then is met as one whose
    /// first record was lost, and is turned away again. One that stayed in a session is kept as long as that.
    pub fn forget_outsider(&mut self, id: u64) {
        if self.fates.get(&id) == Some(&Fate::Outsider) {
            self.fates.remove(&id);
        }
    }

    /// Finds the session of an exec for which the kernel side made a new one.
    fn join(
        &mut self,
        head: &Head,
        exec: &Exec,
        time: Timestamp,
    ) -> (Option<u64>, Option<u64>, Option<(u64, Decision)>) {
        let from = self.resolve(exec.session_before).unwrap_or(0);
        let recognition = if head.provisional {
            self.recognise_exec(head.process.tgid, exec)
        } else {
            exec.agent.and_then(|index| self.agents.get(index)).map(|agent| Recognition {
                agent: agent.clone(),
                attribution: Attribution { method: Method::Executable, confidence: Confidence::Certain },
            })
        };
        let recognition = recognition.filter(|found| self.may_open(from, found));
        let Some(recognition) = recognition else {
            let fate = if from == 0 { Fate::Outsider } else { Fate::Session(from) };
            self.fates.insert(head.session, fate);
            let agent = self.sessions.get(&from).map(|session| session.agent.clone());
            let agent = agent.map_or(0, |agent| self.wire_agent(&agent));
            let decision = Decision { session: from, agent, reserved: 0 };
            return ((from != 0).then_some(from), None, Some((head.session, decision)));
        };
        let decision = head.provisional.then(|| {
            let agent = self.wire_agent(&recognition.agent);
            (head.session, Decision { session: head.session, agent, reserved: 0 })
        });
        let lineage = lineage(&self.proc, head.process.tgid, exec.uid, exec.login_uid, None);
        self.open(Opening { id: head.session, from, root: head.process, recognition, lineage, started: time });
        (Some(head.session), Some(from), decision)
    }

    /// Whether what was recognised opens a session of its own: not inside a session of the same agent, and a claim not
    /// inside any.
    fn may_open(&self, from: u64, found: &Recognition) -> bool {
        match self.sessions.get(&from) {
            None => true,
            Some(outer) => outer.agent != found.agent && found.attribution.confidence != Confidence::Claimed,
        }
    }

    /// Opens a session that a process is started into by `bailiwick run`.
    pub fn open_run(&mut self, id: u64, agent: &str, root: ProcessKey, from: u64, uid: u32, started: Timestamp) {
        let recognition = Recognition {
            agent: agent.to_owned(),
            attribution: Attribution { method: Method::Run, confidence: Confidence::Certain },
        };
        let login_uid = self.proc.login_uid(root.tgid);
        let lineage = lineage(&self.proc, root.tgid, uid, login_uid, Some("run"));
        self.open(Opening { id, from, root, recognition, lineage, started });
        self.join_process(root, id, None);
    }

    /// Opens a session that the kernel side opened, and whose first record was lost. What it was is asked of `/proc`; a
    /// provisional one that can't be decided any more is taken for none. Returns whether it is a session, and the decision.
    pub fn open_unseen(&mut self, id: u64, opened: Option<&Opened>, time: Timestamp) -> Outcome {
        let Some(opened) = opened else {
            self.fates.insert(id, Fate::Outsider);
            return Outcome::default();
        };
        let root = ProcessKey { tgid: opened.tgid, start_boot_ns: opened.start_boot_ns };
        let exec = self.exec_from_proc(opened.tgid, opened.session_before, opened.agent);
        let provisional = opened.flags & agent_common::maps::MEMBER_PROVISIONAL != 0;
        let head = Head {
            time_boot_ns: opened.time_boot_ns,
            session: id,
            provisional,
            new_session: true,
            io_uring: false,
            process: root,
            tid: opened.tgid,
            exec_number: 1,
        };
        self.attribute(Event { head, action: Action::Exec(Box::new(exec)) }, time)
    }

    fn open(&mut self, opening: Opening) {
        let outer = self.sessions.get(&opening.from);
        let mut delegation = outer.map(|outer| outer.delegation.clone()).unwrap_or_default();
        delegation.extend(outer.map(|outer| Delegator { agent: outer.agent.clone(), session: outer.id }));
        // Who acts for whom does not change with a delegation.
        let Lineage { principal, lost } = opening.lineage;
        let (principal, lost) = outer.map_or((principal, lost), |outer| (outer.principal.clone(), None));
        if let Some(outer) = self.sessions.get_mut(&opening.from) {
            outer.live.remove(&opening.root);
        }
        let session = Session {
            id: SessionId(opening.id),
            agent: opening.recognition.agent,
            root: opening.root,
            root_executable: None,
            attribution: opening.recognition.attribution,
            delegation,
            principal,
            lost,
            started: opening.started,
            live: [opening.root].into(),
            processes: 1,
            tally: Tally::default(),
        };
        self.sessions.insert(opening.id, session);
    }

    /// Whether nothing of a session lives, and all that ended has been settled with.
    pub fn is_over(&self, id: u64) -> bool {
        self.sessions.get(&id).is_some_and(|session| session.live.is_empty())
            && self.processes.values().all(|process| process.session != id)
    }

    /// Takes a session off the tables when nothing of it lives.
    pub fn close(&mut self, id: u64) -> Option<Session> {
        self.fates.retain(|_, fate| *fate != Fate::Session(id));
        self.processes.retain(|_, process| process.session != id);
        self.sessions.remove(&id)
    }

    /// Forgets a process that has ended, when all its records have come. Of a session's first one the image is kept: the
    /// session's end names it.
    pub fn forget(&mut self, key: ProcessKey) {
        let Some(process) = self.processes.remove(&key) else { return };
        if let Some(session) = self.sessions.get_mut(&process.session)
            && session.root == key
        {
            session.root_executable = process.executable;
        }
    }

    /// Processes that ended before that time.
    pub fn ended_before(&self, boot_ns: u64) -> Vec<ProcessKey> {
        let ended = self.processes.iter().filter(|(_, process)| process.ended_boot_ns.is_some_and(|at| at < boot_ns));
        ended.map(|(&key, _)| key).collect()
    }

    /// Corrects who lives by what the iterator found: after losses, and before a session is closed. Returns the processes
    /// that were not known to live.
    ///
    /// One that the kernel does not know any more may have its exit in a ring still: only when none has come for a while is it
    /// taken for lost.
    pub fn reconcile(&mut self, rows: &[TaskRow], now_boot_ns: u64) -> Vec<ProcessKey> {
        const LOST_AFTER_NS: u64 = 1_000_000_000;
        let mut found: HashMap<ProcessKey, &TaskRow> = HashMap::new();
        for row in rows.iter().filter(|row| row.session != 0 && row.exiting == 0) {
            found.insert(ProcessKey { tgid: row.tgid, start_boot_ns: row.start_boot_ns }, row);
        }
        let mut unknown = Vec::new();
        for (&key, row) in &found {
            let Some(session) = self.resolve(row.session) else { continue };
            let known = self.sessions.get(&session).is_some_and(|session| session.live.contains(&key));
            let ended = self.processes.get(&key).is_some_and(|process| process.ended_boot_ns.is_some());
            if !known && !ended {
                let parent = ProcessKey { tgid: row.parent_tgid, start_boot_ns: row.parent_start_boot_ns };
                self.processes.remove(&key);
                self.join_process(key, session, Some(parent));
                unknown.push(key);
            }
        }
        for session in self.sessions.values_mut() {
            session.live.retain(|key| {
                if found.contains_key(key) {
                    self.missing.remove(key);
                    return true;
                }
                let since = *self.missing.entry(*key).or_insert(now_boot_ns);
                let waits = now_boot_ns - since < LOST_AFTER_NS;
                if !waits && let Some(process) = self.processes.get_mut(key) {
                    process.ended_boot_ns.get_or_insert(now_boot_ns);
                }
                waits
            });
        }
        let live: Vec<_> = self.sessions.values().map(|session| &session.live).collect();
        self.missing.retain(|key, _| live.iter().any(|live| live.contains(key)));
        unknown
    }

    /// Makes a process known that was not: its fork was lost, or it ran before.
    fn learn(&mut self, key: ProcessKey, session: u64) {
        self.join_process(key, session, None);
    }

    fn join_process(&mut self, key: ProcessKey, session: u64, parent: Option<ProcessKey>) {
        let identity = self.proc.identity(key.tgid);
        let parent = parent.filter(|parent| self.processes.get(parent).is_some_and(|parent| parent.session == session));
        let process = Process {
            session,
            executable: self.proc.executable(key.tgid),
            arguments: self.proc.arguments(key.tgid),
            parent_tgid: identity.map(|identity| identity.parent_tgid),
            parent,
            trace: self.trace_of(self.proc.environment(key.tgid).iter().map(Vec::as_slice)),
            execs: 0,
            ended_boot_ns: None,
        };
        self.processes.insert(key, process);
        if let Some(session) = self.sessions.get_mut(&session)
            && session.live.insert(key)
        {
            session.processes += 1;
        }
    }

    fn forked(&mut self, parent: ProcessKey, child: ProcessKey, session: u64) {
        let elder = self.processes.get(&parent).cloned().unwrap_or_default();
        let process = Process {
            session,
            parent_tgid: Some(parent.tgid),
            parent: Some(parent),
            execs: 0,
            ended_boot_ns: None,
            ..elder
        };
        self.processes.insert(child, process);
        if let Some(session) = self.sessions.get_mut(&session)
            && session.live.insert(child)
        {
            session.processes += 1;
        }
    }

    /// The trace that an environment says it is part of, if that is among the variables that may be read.
    fn trace_of<'a>(&self, environment: impl Iterator<Item = &'a [u8]> + Clone) -> Option<Arc<TraceContext>> {
        let may_read = self.config.settings.sensor.environment.iter().any(|key| key == TRACEPARENT);
        TraceContext::of_environment(environment).filter(|_| may_read).map(Arc::new)
    }

    fn executed(&mut self, head: &Head, exec: &Exec, session: u64, opened: bool) {
        let whole = exec.environment.iter().filter(|variable| !variable.cut);
        let trace = self.trace_of(whole.map(|variable| variable.bytes.as_slice()));
        let process = self.processes.entry(head.process).or_default();
        process.session = session;
        process.executable = Some(exec.path.bytes.clone());
        process.arguments.clone_from(&exec.arguments);
        process.parent_tgid = Some(exec.parent_tgid);
        process.trace = trace;
        if opened {
            process.parent = None;
            process.execs = 0;
        }
        process.execs += 1;
    }

    fn ended(&mut self, key: ProcessKey, session: u64, boot_ns: u64) {
        if let Some(process) = self.processes.get_mut(&key) {
            process.ended_boot_ns.get_or_insert(boot_ns);
        }
        if let Some(session) = self.sessions.get_mut(&session) {
            session.live.remove(&key);
        }
    }

    /// How an action of a process of a session is attributed.
    pub fn attribution(&self, session: &Session, process: ProcessKey) -> Attribution {
        if process == session.root {
            session.attribution
        } else {
            Attribution { method: Method::Inherited, confidence: session.attribution.confidence }
        }
    }
}
