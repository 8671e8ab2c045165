//! For tests: entries built in a line, and a core that holds a list of them.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

use std::collections::HashSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::sync::watch;

use super::client::Client;
use super::core::{Answer, Core, CoreError, Entries, Found, From, Question, RunRefused};
use super::peer::{Access, Peer};
use super::protocol::{Request, Response, ReviewDone};
use super::report::{
    AgentItem, Doctor, Explanation, Observation, ReloadReport, RunAccepted, Status, SyncReport, TrailStatus,
};
use super::server::{Limits, serve};
use super::socket::ControlSocket;
use crate::credential::map::CredentialMap;
use crate::entry::{
    Attribution, Confidence, Delegator, Draft, Entry, Gap, Method, Principal, ProcessRef, Reason, ReasonKind,
    SessionId, Timestamp, Verdict,
};

/// 2026-01-31T12:03:04.123Z; entry `seq` is that many milliseconds later.
pub(crate) const NOON: u64 = 1_769_860_984_123_000_000;

/// The time of entry `seq`.
pub(crate) fn time_of(seq: u64) -> Timestamp {
    Timestamp(NOON + seq * 1_000_000)
}

/// An entry in the making.
pub(crate) struct Builder(Entry);

/// Entry `seq` of the trail 5f3a91c2.
pub(crate) fn entry(seq: u64, event: &str) -> Builder {
    Builder(Entry {
        uid: format!("5f3a91c2-{seq}"),
        seq,
        draft: Draft::of_host(time_of(seq), event),
        chain: String::new(),
    })
}

impl Builder {
    pub(crate) fn build(self) -> Entry {
        self.0
    }

    pub(crate) fn agent(mut self, agent: &str, session: u64) -> Self {
        self.0.draft.agent = Some(agent.to_owned());
        self.0.draft.session = Some(SessionId(session));
        self.0.draft.attribution = Some(Attribution { method: Method::Run, confidence: Confidence::Certain });
        self.0.draft.principal = Some(Principal {
            uid: 1000,
            user: Some("alice".into()),
            login_uid: Some(1000),
            via: Some("run".into()),
            ..Principal::default()
        });
        self.0.draft.count = 1;
        self
    }

    pub(crate) fn process(mut self, tgid: u32, executable: &str) -> Self {
        let executable = Some(executable.to_owned());
        self.0.draft.process = Some(ProcessRef { tgid, tid: tgid, start_boot_ns: u64::from(tgid) * 1000, executable });
        self
    }

    pub(crate) fn path(self, access: &str, path: &str) -> Self {
        self.with("bailiwick.file.access", json!(access)).with("file.path", json!(path))
    }

    pub(crate) fn with(mut self, name: &str, value: Value) -> Self {
        self.0.draft.attributes.insert(name.to_owned(), value);
        self
    }

    pub(crate) fn verdict(mut self, verdict: Verdict) -> Self {
        self.0.draft.verdict = verdict;
        self
    }

    pub(crate) fn nearest(mut self, text: &str) -> Self {
        self.0.draft.verdict = Verdict::OutOfScope;
        let file = Some("/etc/bailiwick/agents.d/demo.toml".to_owned());
        self.0.draft.reason =
            Some(Reason { kind: ReasonKind::Nearest, text: text.to_owned(), file, line: Some(9), delegator: None });
        self
    }

    pub(crate) fn count(mut self, count: u64) -> Self {
        self.0.draft.count = count;
        self
    }

    pub(crate) fn delegated_by(mut self, agent: &str, session: u64) -> Self {
        self.0.draft.delegation.push(Delegator { agent: agent.to_owned(), session: SessionId(session) });
        self
    }

    /// A gap from entry `from` to entry `to`, of the session that stands in the entry.
    pub(crate) fn gap(mut self, lost: Option<u64>, from: u64, to: u64) -> Self {
        self.0.draft.gap = Some(Gap {
            kind: "file.open".into(),
            session: self.0.draft.session,
            lost,
            from: time_of(from),
            to: time_of(to),
            reason: "the ring was full".into(),
        });
        self.0.draft.count = 0;
        self
    }
}

/// A core that holds a list of entries, and knows one agent: `demo`.
pub(crate) struct FakeCore {
    entries: Mutex<Vec<Entry>>,
    last: watch::Sender<u64>,
    pub(crate) ready: watch::Sender<bool>,
    pub(crate) live: Mutex<HashSet<SessionId>>,
    pub(crate) runs: Mutex<Vec<(String, u32, Peer)>>,
}

impl FakeCore {
    pub(crate) fn holding(entries: Vec<Entry>) -> Arc<Self> {
        let last = entries.last().map_or(0, |entry| entry.seq);
        Arc::new(Self {
            entries: Mutex::new(entries),
            last: watch::Sender::new(last),
            ready: watch::Sender::new(true),
            live: Mutex::default(),
            runs: Mutex::default(),
        })
    }

    pub(crate) fn append(&self, entry: Entry) {
        let seq = entry.seq;
        self.entries.lock().unwrap().push(entry);
        self.last.send_replace(seq);
    }
}

impl Core for FakeCore {
    fn run(&self, agent: &str, child_tgid: u32, peer: Peer) -> Result<RunAccepted, RunRefused> {
        if agent != "demo" {
            return Err(RunRefused::UnknownAgent {
                agent: agent.to_owned(),
                known: vec!["demo".into(), "other".into()],
            });
        }
        self.runs.lock().unwrap().push((agent.to_owned(), child_tgid, peer));
        Ok(RunAccepted { session: SessionId(1) })
    }

    fn sync(&self, exported: bool, wait: Duration) -> Result<SyncReport, CoreError> {
        if exported {
            return Err(CoreError::TimedOut { wait, waiting_for: "http://127.0.0.1:4318 (logs)".into() });
        }
        Ok(SyncReport { seq: *self.last.borrow() })
    }

    fn status(&self) -> Status {
        Status {
            healthy: true,
            reasons: Vec::new(),
            trail: TrailStatus { entries: self.entries.lock().unwrap().len() as u64 },
            lost: 0,
            records: 0,
            blind_spots: Vec::new(),
            export: Vec::new(),
            ready: *self.ready.borrow(),
            metrics: None,
        }
    }

    fn doctor(&self) -> Doctor {
        Doctor {
            tier: 2,
            observations: vec![Observation {
                event: "file.open".into(),
                hook: "tp_btf/sys_exit".into(),
                working: true,
                guarantee: "every open that a system call makes".into(),
                blind_spots: vec!["opens submitted through io_uring".into()],
            }],
            unobserved: String::new(),
            export: Vec::new(),
        }
    }

    fn agents(&self) -> Vec<AgentItem> {
        vec![AgentItem {
            agent: "demo".into(),
            declared: true,
            owner: Some("platform-team@example.com".into()),
            sessions: self.live.lock().unwrap().iter().copied().collect(),
            ..AgentItem::default()
        }]
    }

    fn credentials(&self) -> CredentialMap {
        CredentialMap { items: Vec::new(), agents: Vec::new(), forgotten: 3 }
    }

    fn reload(&self, _: Option<Peer>) -> Result<ReloadReport, CoreError> {
        Err(CoreError::BadInput("/etc/bailiwick/agents.d/demo.toml:3:1: unknown key `owmer`".into()))
    }

    fn review(&self, done: ReviewDone, peer: Peer) -> Result<String, CoreError> {
        Ok(format!("{} by {}", done.agent, peer.uid))
    }

    fn explain(&self, entry: &Entry) -> Explanation {
        Explanation { tried: vec![format!("tried for {}", entry.uid)], ..Explanation::default() }
    }

    fn entries(&self, from: From) -> Entries {
        let all = self.entries.lock().unwrap().clone();
        let first = match from {
            From::Start => 0,
            From::Seq(seq) => seq,
            From::Time(_) => 0,
        };
        Box::new(all.into_iter().filter(move |entry| entry.seq >= first).map(Ok))
    }

    fn find(&self, question: Question) -> Answer {
        let from = match question {
            Question::Entries { from, .. } => from,
            Question::Sessions { .. } | Question::Story { .. } => From::Start,
        };
        Box::new(self.entries(from).map(|entry| entry.map(Found::Entry)))
    }

    fn follow(&self) -> watch::Receiver<u64> {
        self.last.subscribe()
    }
}

/// A server on a socket of its own, with a fake core. Ends when dropped.
pub(crate) struct FakeDaemon {
    pub(crate) core: Arc<FakeCore>,
    pub(crate) runtime_dir: tempfile::TempDir,
    _runtime: tokio::runtime::Runtime,
}

impl FakeDaemon {
    pub(crate) fn holding(entries: Vec<Entry>) -> Self {
        Self::limited(entries, Limits::default(), Access::of_host())
    }

    pub(crate) fn limited(entries: Vec<Entry>, limits: Limits, access: Access) -> Self {
        let runtime_dir = tempfile::tempdir().unwrap();
        let socket = ControlSocket::bind(runtime_dir.path(), &access).unwrap();
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let core = FakeCore::holding(entries);
        let served: Arc<dyn Core> = Arc::clone(&core) as Arc<dyn Core>;
        runtime.spawn(serve(socket, served, access, limits));
        Self { core, runtime_dir, _runtime: runtime }
    }

    pub(crate) fn client(&self) -> Client {
        Client::at(self.runtime_dir.path())
    }

    /// All lines of an answer, but the one that ends it.
    pub(crate) fn ask(&self, request: &Request) -> Result<Vec<Response>, super::client::ClientError> {
        self.client().ask(request, Some(Duration::from_secs(20)))?.collect()
    }
}

/// The `seq` of the entries among these responses.
pub(crate) fn seqs(responses: &[Response]) -> Vec<u64> {
    let seq = |response: &Response| match response {
        Response::Entry(entry) => Some(entry.seq),
        _ => None,
    };
    responses.iter().filter_map(seq).collect()
}
