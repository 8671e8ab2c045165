//! An entry as an OCSF event.

use std::collections::BTreeMap;

use opentelemetry::KeyValue;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::class::{self, Activity, Class, classify};
use super::objects::{actor, ai_agent, command_line, connection, file, number, process, product, put, text};
use crate::entry::{Draft, Entry, ProcessRef, ReasonKind, SessionId, Verdict};
use crate::export::body;

/// The version of OCSF's schema that events are of.
const VERSION: &str = "1.9.0";
/// What the trail's chain is a hash of, since it is not of the event.
const SERIALIZATION: &str = "a line of Bailiwick's trail and the chain before it (docs/trail.md)";
/// Sessions whose charter is kept at once; an event of one beyond has none.
const MAX_CHARTERS: usize = 10_000;

/// The declaration that a session began under.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::export) struct Charter {
    file: String,
    sha256: String,
}

impl Charter {
    /// As OCSF's file with its hash.
    pub(super) fn as_file(&self) -> Value {
        let mut charter = file(&self.file, 1);
        if let Some(object) = charter.as_object_mut() {
            let hash = json!({ "algorithm_id": 3, "algorithm": "SHA-256", "value": self.sha256 });
            object.insert("hashes".to_owned(), json!([hash]));
        }
        charter
    }
}

/// The charters of sessions that live: kept with the cursor, since only the session's first entry names its own.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::export) struct Charters(BTreeMap<SessionId, Charter>);

impl Charters {
    /// Notes what an entry says of a session's charter, before it is written.
    pub(super) fn before(&mut self, draft: &Draft) {
        let Some(session) = draft.session else { return };
        let named = text(draft, "bailiwick.declaration.file").zip(text(draft, "bailiwick.declaration.sha256"));
        if let Some((file, sha256)) = named
            && self.0.len() < MAX_CHARTERS
        {
            self.0.insert(session, Charter { file: file.to_owned(), sha256: sha256.to_owned() });
        }
    }

    /// Forgets a session that this entry ended.
    pub(super) fn after(&mut self, draft: &Draft) {
        if draft.event == "session.end" {
            draft.session.map(|session| self.0.remove(&session));
        }
    }

    /// Whether there is none.
    pub(in crate::export) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn of(&self, session: Option<SessionId>) -> Option<&Charter> {
        self.0.get(&session?)
    }
}

/// The host that events are of.
#[derive(Clone, Debug)]
pub(in crate::export) struct Device {
    pub(in crate::export) hostname: String,
    pub(in crate::export) uid: Option<String>,
}

impl Device {
    /// What the resource says of its host.
    pub(in crate::export) fn of(resource: &[KeyValue]) -> Self {
        let said = |key: &str| {
            let found = resource.iter().find(|attribute| attribute.key.as_str() == key);
            found.map(|attribute| attribute.value.as_str().into_owned())
        };
        Self { hostname: said("host.name").unwrap_or_default(), uid: said("host.id") }
    }

    fn as_value(&self) -> Value {
        let mut device = Map::new();
        device.insert("hostname".to_owned(), self.hostname.clone().into());
        put(&mut device, "uid", self.uid.clone());
        device.insert("type_id".to_owned(), 0.into());
        device.insert("os".to_owned(), json!({ "name": "Linux", "type_id": 200 }));
        Value::Object(device)
    }
}

/// The event.
pub(super) fn event(entry: &Entry, device: &Device, charters: &Charters) -> Value {
    let draft = &entry.draft;
    let (class, activity) = classify(draft);
    let agent = ai_agent(draft, charters.of(draft.session));
    let mut event = Map::new();
    classification(&mut event, draft, class, activity);
    event.insert("metadata".to_owned(), metadata(entry, class, agent.is_some()));
    event.insert("message".to_owned(), body::sentence(draft).into());
    event.insert("device".to_owned(), device.as_value());
    event.insert("actor".to_owned(), actor(draft));
    event.insert("attestation".to_owned(), attestation(entry));
    outcome(&mut event, draft);
    control(&mut event, draft);
    specifics(&mut event, entry, class, agent.as_ref(), &device.hostname);
    if class.of_agents {
        put(&mut event, "ai_agent", agent);
    }
    event.insert("unmapped".to_owned(), json!({ "bailiwick": unmapped(draft) }));
    Value::Object(event)
}

fn classification(event: &mut Map<String, Value>, draft: &Draft, class: Class, activity: Activity) {
    let Activity(id, name) = activity;
    let name = if id == 99 { draft.event.as_str() } else { name };
    let (severity_id, severity) = severity(draft);
    for (key, value) in [
        ("activity_id", id),
        ("category_uid", class.category),
        ("class_uid", class.uid),
        ("type_uid", class.uid * 100 + id),
        ("severity_id", severity_id),
        ("time", draft.time.0 / 1_000_000),
    ] {
        event.insert(key.to_owned(), value.into());
    }
    let type_name = format!("{}: {name}", class.name);
    for (key, value) in [
        ("activity_name", name),
        ("category_name", class.category_name),
        ("class_name", class.name),
        ("type_name", &type_name),
        ("severity", severity),
    ] {
        event.insert(key.to_owned(), value.into());
    }
    if draft.count > 0 {
        event.insert("count".to_owned(), draft.count.into());
    }
    put(event, "start_time", draft.first_time.map(|time| time.0 / 1_000_000));
}

fn severity(draft: &Draft) -> (u64, &'static str) {
    let by_rule = draft.reason.as_ref().is_some_and(|reason| reason.kind == ReasonKind::Rule);
    match (draft.verdict, draft.event.as_str()) {
        (Verdict::OutOfScope, _) if by_rule => (4, "High"),
        (Verdict::OutOfScope | Verdict::Denied, _) => (3, "Medium"),
        (_, "gap" | "sensor.degraded") => (4, "High"),
        (_, "trail.recovered") => (3, "Medium"),
        (_, event) if event.starts_with("finding.") => (3, "Medium"),
        (Verdict::InScope | Verdict::None, _) => (1, "Informational"),
    }
}

fn metadata(entry: &Entry, class: Class, agent: bool) -> Value {
    let draft = &entry.draft;
    let mut profiles = vec!["record_integrity", "security_control"];
    if !class.of_system {
        profiles.push("host");
    }
    if class.of_agents && agent {
        profiles.push("ai_operation");
    }
    profiles.sort_unstable();
    let mut metadata = Map::new();
    metadata.insert("version".to_owned(), VERSION.into());
    metadata.insert("product".to_owned(), product());
    metadata.insert("profiles".to_owned(), profiles.into());
    metadata.insert("uid".to_owned(), entry.uid.clone().into());
    metadata.insert("event_code".to_owned(), draft.event.clone().into());
    // To the nanosecond, which `time` is not.
    metadata.insert("original_time".to_owned(), draft.time.to_string().into());
    metadata.insert("sequence".to_owned(), entry.seq.into());
    put(&mut metadata, "correlation_uid", draft.session.map(|session| session.to_string()));
    if !draft.truncated.is_empty() {
        metadata.insert("is_truncated".to_owned(), true.into());
    }
    Value::Object(metadata)
}

/// The trail's chain: it vouches for the entry that the event was made of.
fn attestation(entry: &Entry) -> Value {
    let trail = entry.uid.rsplit_once('-').map_or(entry.uid.as_str(), |(trail, _)| trail);
    let mut attestation = Map::new();
    attestation.insert("uid".to_owned(), entry.uid.clone().into());
    attestation.insert("chain_uid".to_owned(), trail.into());
    let fingerprint = json!({
        "algorithm_id": 3,
        "algorithm": "SHA-256",
        "encoding_id": 1,
        "encoding": "Hex",
        "serialization_id": 99,
        "serialization": SERIALIZATION,
        "value": entry.chain,
    });
    attestation.insert("fingerprint".to_owned(), fingerprint);
    if entry.seq > 1 {
        attestation.insert("prev_event".to_owned(), json!({ "uid": format!("{trail}-{}", entry.seq - 1) }));
    }
    Value::Object(attestation)
}

fn outcome(event: &mut Map<String, Value>, draft: &Draft) {
    let error = text(draft, "error.type");
    let (id, status) = match error {
        Some(_) => (2, "Failure"),
        None if draft.count > 0 => (1, "Success"),
        // Nobody tried anything: it is told of, no more.
        None => return,
    };
    event.insert("status_id".to_owned(), id.into());
    event.insert("status".to_owned(), status.into());
    put(event, "status_code", error);
}

/// What the scope said, as a control's decision: what is out of scope is told of, and happened all the same.
fn control(event: &mut Map<String, Value>, draft: &Draft) {
    let (action, disposition, alert) = match draft.verdict {
        Verdict::InScope => ((1, "Allowed"), (1, "Allowed"), false),
        Verdict::OutOfScope => ((3, "Observed"), (15, "Detected"), true),
        Verdict::Denied => ((2, "Denied"), (2, "Blocked"), true),
        Verdict::None => ((3, "Observed"), (17, "Logged"), draft.event.starts_with("finding.")),
    };
    event.insert("action_id".to_owned(), action.0.into());
    event.insert("action".to_owned(), action.1.into());
    event.insert("disposition_id".to_owned(), disposition.0.into());
    event.insert("disposition".to_owned(), disposition.1.into());
    event.insert("is_alert".to_owned(), alert.into());
    let policy = draft.reason.as_ref().map(|reason| {
        let mut policy = Map::new();
        policy.insert("name".to_owned(), reason.text.clone().into());
        let kind = match reason.kind {
            ReasonKind::Grant => "grant",
            ReasonKind::Rule => "rule",
            ReasonKind::Nearest => "nearest",
        };
        policy.insert("type".to_owned(), kind.into());
        policy.insert("is_applied".to_owned(), (reason.kind != ReasonKind::Nearest).into());
        let place = reason.file.as_ref().map(|file| match reason.line {
            Some(line) => format!("{file}:{line}"),
            None => file.clone(),
        });
        put(&mut policy, "uid", place);
        policy
    });
    put(event, "policy", policy);
}

/// What a class has that others have not.
fn specifics(event: &mut Map<String, Value>, entry: &Entry, class: Class, agent: Option<&Value>, hostname: &str) {
    let draft = &entry.draft;
    match class {
        class::PROCESS => of_process(event, draft),
        class::FILE => of_file(event, draft),
        class::MODULE => {
            let mapped = file(text(draft, "file.path").unwrap_or_default(), 1);
            event.insert("module".to_owned(), json!({ "file": mapped, "load_type_id": 4, "load_type": "Mapped" }));
        }
        class::KERNEL => {
            let call = text(draft, "bailiwick.syscall").unwrap_or(&draft.event);
            event.insert("kernel".to_owned(), json!({ "name": call, "type_id": 2, "type": "System Call" }));
        }
        class::KERNEL_EXTENSION => {
            let name = text(draft, "bailiwick.module.path").or_else(|| text(draft, "bailiwick.module.name"));
            event.insert("driver".to_owned(), json!({ "file": file(name.unwrap_or("unknown"), 0) }));
        }
        class::EVENT_LOG => {
            event.insert("log_name".to_owned(), "bailiwick trail".into());
        }
        class::LIFECYCLE => {
            let agents_life = draft.agent.as_deref().map(|agent| json!({ "name": agent, "uid": agent }));
            event.insert("app".to_owned(), agents_life.unwrap_or_else(product));
        }
        class::NETWORK => connection(draft, event, hostname),
        class::FINDING => of_finding(event, entry, agent),
        _ => {}
    }
}

fn of_process(event: &mut Map<String, Value>, draft: &Draft) {
    let acting = draft.process.as_ref();
    let target = match draft.event.as_str() {
        "process.fork" => number(draft, "bailiwick.child.tgid").map(|pid| {
            event.insert("launch_type_id".to_owned(), 2.into());
            event.insert("launch_type".to_owned(), "Fork".into());
            let start = text(draft, "bailiwick.child.start_boot_ns").and_then(|start| start.parse().ok());
            let tgid = u32::try_from(pid).unwrap_or(0);
            let child = ProcessRef { tgid, tid: tgid, start_boot_ns: start.unwrap_or(0), executable: None };
            process(draft, &child, acting.and_then(|parent| parent.executable.as_deref()))
        }),
        "privilege.ptrace" | "privilege.signal" => target_of(draft),
        _ => acting.map(|of| {
            let path = text(draft, "process.executable.path").or(of.executable.as_deref());
            let mut process = process(draft, of, path);
            put(&mut process, "cmd_line", command_line(draft));
            put(&mut process, "working_directory", text(draft, "process.working_directory"));
            process
        }),
    };
    if draft.event == "process.exec" {
        event.insert("launch_type_id".to_owned(), 3.into());
        event.insert("launch_type".to_owned(), "Exec".into());
    }
    put(event, "exit_code", number(draft, "process.exit.code"));
    let unknown = || Map::from_iter([("uid".to_owned(), Value::from("unknown"))]);
    event.insert("process".to_owned(), target.unwrap_or_else(unknown).into());
}

/// The process that a signal or a trace was for.
fn target_of(draft: &Draft) -> Option<Map<String, Value>> {
    let pid = number(draft, "bailiwick.target.tgid")?;
    Some(Map::from_iter([("pid".to_owned(), Value::from(pid))]))
}

fn of_file(event: &mut Map<String, Value>, draft: &Draft) {
    let type_id = match draft.event.as_str() {
        "file.mkdir" | "file.rmdir" => 2,
        "file.symlink" => 7,
        _ => 0,
    };
    let mut of = file(text(draft, "file.path").unwrap_or_default(), type_id);
    if let Some(object) = of.as_object_mut() {
        put(object, "is_deleted", draft.attributes.get("bailiwick.file.deleted").cloned());
        put(object, "uid", text(draft, "bailiwick.file.inode"));
    }
    event.insert("file".to_owned(), of);
    put(event, "file_result", text(draft, "bailiwick.file.new_path").map(|path| file(path, type_id)));
}

fn of_finding(event: &mut Map<String, Value>, entry: &Entry, agent: Option<&Value>) {
    let draft = &entry.draft;
    let title = draft.event.trim_start_matches("finding.");
    let mut info = Map::new();
    info.insert("uid".to_owned(), entry.uid.clone().into());
    info.insert("title".to_owned(), title.into());
    info.insert("created_time".to_owned(), (draft.time.0 / 1_000_000).into());
    info.insert("analytic".to_owned(), json!({ "name": draft.event, "type_id": 1, "type": "Rule" }));
    put(&mut info, "desc", text(draft, "bailiwick.finding.text"));
    let causes = draft.attributes.get("bailiwick.finding.causes").and_then(Value::as_array);
    let related = causes.map(|causes| causes.iter().map(|uid| json!({ "uid": uid })).collect::<Vec<_>>());
    put(&mut info, "related_events", related.filter(|related| !related.is_empty()));
    event.insert("finding_info".to_owned(), info.into());
    let mut evidence = Map::from_iter([("actor".to_owned(), actor(draft))]);
    put(&mut evidence, "ai_agent", agent.cloned());
    put(&mut evidence, "file", text(draft, "file.path").map(|path| file(path, 0)));
    event.insert("evidences".to_owned(), json!([evidence]));
}

/// The entry's own words: so nothing is missing of what OCSF has no place for.
fn unmapped(draft: &Draft) -> Map<String, Value> {
    let mut own = serde_json::to_value(draft).ok().and_then(|value| match value {
        Value::Object(own) => Some(own),
        _ => None,
    });
    if let Some(own) = &mut own {
        own.remove("time");
        own.retain(|_, value| !value.is_null());
    }
    own.unwrap_or_default()
}
