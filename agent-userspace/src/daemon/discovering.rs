//! Discovery at an interval: a thread that looks at the host, and tells the pipeline of what nothing declares.
//!
//! It looks at `/proc` alone, at the lowest priority, and waits for the pipeline only when it has looked: who is in whose
//! session is asked then, so that an agent that starts meanwhile is known by its session. What is found is told once for each
//! process; the rest is for whoever asks (`bailiwick agents`).

use std::cell::OnceCell;
use std::collections::{HashMap, HashSet};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::sync_channel;
use std::time::Duration;

use tracing::{debug, warn};

use super::clock::boot_ns;
use super::command::{Asker, Command};
use super::pipeline::Pipeline;
use super::state::SharedView;
use crate::attribute::Attributor;
use crate::attribute::procfs::ProcFs;
use crate::config::Config;
use crate::decode::ProcessKey;
use crate::discover::{Discovered, Inventory, Scanner, Whose};
use crate::entry::{Draft, ProcessRef, Timestamp};
use crate::finding::{Found, UNDECLARED_AGENT};

/// What the kernel did by then is with the pipeline: it looks that often while a session lives, and four times over.
const CAUGHT_UP: Duration = Duration::from_millis(100);
/// How long the pipeline is given to say who is in whose session.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);
/// The least of all priorities.
const NICENESS: i32 = 19;

/// Who is in whose session, by process id.
#[derive(Debug, Default)]
pub(super) struct Members {
    /// The first process of each session, and its agent.
    pub(super) roots: HashMap<u32, String>,
    /// Every process of a session, and its agent.
    pub(super) members: HashMap<u32, String>,
}

/// The thread.
pub(super) struct Discovery {
    asker: Asker,
    view: SharedView,
    scanner: Scanner,
    /// Who has been told of, of those that run: by process id and when it started.
    told: HashSet<(u32, Timestamp)>,
}

/// Who is whose: by sessions, asked for when it is first needed, and by the declarations.
struct BySessions<'a> {
    asker: &'a Asker,
    attributor: Attributor,
    members: OnceCell<Members>,
}

impl Whose for BySessions<'_> {
    fn root(&self, tgid: u32) -> Option<String> {
        let of_session = self.members().roots.get(&tgid).cloned();
        of_session.or_else(|| self.attributor.recognise_running(tgid).map(|recognition| recognition.agent))
    }

    fn member(&self, tgid: u32) -> Option<String> {
        self.members().members.get(&tgid).cloned()
    }
}

impl BySessions<'_> {
    fn members(&self) -> &Members {
        self.members.get_or_init(|| {
            std::thread::sleep(CAUGHT_UP);
            let (reply, answer) = sync_channel(1);
            self.asker.ask(Command::Members { reply });
            answer.recv_timeout(ANSWER_WITHIN).unwrap_or_default()
        })
    }
}

impl Discovery {
    pub(super) fn new(asker: Asker, view: SharedView) -> Self {
        let scanner = Scanner::of(ProcFs::at(Path::new("/proc")), std::process::id());
        Self { asker, view, scanner, told: HashSet::new() }
    }

    /// Looks at the interval of the settings in force, until the daemon ends.
    pub(super) fn run(mut self, ended: &AtomicBool) {
        let own = rustix::thread::gettid();
        if let Err(error) = rustix::process::setpriority_process(Some(own), NICENESS) {
            debug!(%error, "discovery keeps its priority");
        }
        while !ended.load(Ordering::Relaxed) {
            let config = Arc::clone(&self.view.lock().config);
            let settings = &config.settings.discovery;
            if settings.enabled {
                self.look(&config);
            } else {
                self.view.lock().found = Arc::default();
            }
            // It is woken when the daemon ends, and when the settings may have changed.
            std::thread::park_timeout(settings.interval);
        }
    }

    fn look(&mut self, config: &Arc<Config>) {
        let attributor = Attributor::new(Arc::clone(config), ProcFs::at(Path::new("/proc")));
        let whose = BySessions { asker: &self.asker, attributor, members: OnceCell::new() };
        let mut inventory = self.scanner.scan(config, &whose, false);
        inventory.items.retain(|item| item.declared_as.is_none());
        self.tell(&inventory);
        self.view.lock().found = Arc::new(inventory);
    }

    fn tell(&mut self, inventory: &Inventory) {
        let key = |item: &Discovered| (item.process.tgid, item.process.started);
        let present: HashSet<_> = inventory.items.iter().map(key).collect();
        self.told.retain(|known| present.contains(known));
        for item in &inventory.items {
            if self.told.insert(key(item)) {
                warn!(name = item.name, process = item.process.tgid, "an agent runs that nothing declares");
                self.asker.ask(Command::Undeclared { item: Box::new(item.clone()) });
            }
        }
    }
}

impl Pipeline {
    /// Who is in whose session now.
    pub(super) fn members(&self) -> Members {
        let mut members = Members::default();
        for (_, session) in self.attributor.sessions() {
            let live = session.live.iter().map(|key| (key.tgid, session.agent.clone()));
            members.members.extend(live);
            if session.live.contains(&session.root) {
                members.roots.insert(session.root.tgid, session.agent.clone());
            }
        }
        members
    }

    /// Records that an agent runs that nothing declares: as an entry of the session that it runs in, where it does.
    pub(super) fn find_undeclared(&mut self, item: &Discovered) {
        let tgid = item.process.tgid;
        let mut whose = Draft::of_host(self.clock.wall(boot_ns()), UNDECLARED_AGENT.event);
        whose.principal = Some(item.principal.clone());
        let is_here = |key: &ProcessKey| key.tgid == tgid;
        let within = self.attributor.sessions().find(|(_, session)| session.live.iter().any(is_here)).map(|(id, _)| id);
        if let Some(session) = within.and_then(|id| self.attributor.session(id)) {
            whose.agent = Some(session.agent.clone());
            whose.session = Some(session.id);
            whose.delegation.clone_from(&session.delegation);
            whose.principal = Some(session.principal.clone());
        }
        // One that has ended meanwhile has no start that could be told exactly.
        if let Ok(start_boot_ns) = self.sensor.start_of(tgid) {
            let executable = item.process.executable.clone();
            whose.process = Some(ProcessRef { tgid, tid: tgid, start_boot_ns, executable });
        }
        self.find(within.unwrap_or(0), &undeclared_found(item), whose);
    }
}

fn undeclared_found(item: &Discovered) -> Found {
    let by = item.evidence.first();
    let key = format!("{} {} {}", item.name, item.principal.uid, by.map_or("", |by| by.what.as_str()));
    let evidence: Vec<String> = item.evidence.iter().map(|one| format!("{} ({})", one.what, one.because)).collect();
    let what = item.kind.words();
    let text = format!("process {} is {what} that no declaration names: {}", item.process.tgid, item.name);
    let found = Found::new(&UNDECLARED_AGENT, key, text)
        .with("bailiwick.discovery.name", item.name.clone())
        .with("bailiwick.discovery.kind", item.kind.as_str())
        .with("bailiwick.discovery.evidence", evidence)
        .with("bailiwick.discovery.command_args", item.command.clone())
        .with("bailiwick.discovery.started", item.process.started.to_string())
        .with("bailiwick.discovery.declaration", item.declaration.clone().unwrap_or_default());
    match &item.inside {
        Some(inside) => found.with("bailiwick.discovery.inside", inside.clone()),
        None => found,
    }
}
