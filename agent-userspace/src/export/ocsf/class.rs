//! Which class of OCSF 1.9.0 an entry is of, and what it did there.

use serde_json::Value;

use crate::entry::Draft;

/// A class, as OCSF's schema has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Class {
    pub(super) uid: u64,
    pub(super) name: &'static str,
    pub(super) category: u64,
    pub(super) category_name: &'static str,
    /// Whether the class has `actor` and `device` of its own; the others have them by the profile `host`.
    pub(super) of_system: bool,
    /// Whether it may carry the profile `ai_operation`.
    pub(super) of_agents: bool,
}

const fn system(uid: u64, name: &'static str) -> Class {
    Class { uid, name, category: 1, category_name: "System Activity", of_system: true, of_agents: true }
}

const fn application(uid: u64, name: &'static str) -> Class {
    Class { uid, name, category: 6, category_name: "Application Activity", of_system: false, of_agents: true }
}

pub(super) const FILE: Class = system(1001, "File System Activity");
pub(super) const KERNEL_EXTENSION: Class = system(1002, "Kernel Extension Activity");
pub(super) const KERNEL: Class = system(1003, "Kernel Activity");
pub(super) const MODULE: Class = system(1005, "Module Activity");
pub(super) const PROCESS: Class = system(1007, "Process Activity");
pub(super) const EVENT_LOG: Class = system(1008, "Event Log Activity");
pub(super) const FINDING: Class = Class {
    uid: 2004,
    name: "Detection Finding",
    category: 2,
    category_name: "Findings",
    of_system: false,
    of_agents: false,
};
pub(super) const NETWORK: Class = Class {
    uid: 4001,
    name: "Network Activity",
    category: 4,
    category_name: "Network Activity",
    of_system: false,
    of_agents: true,
};
pub(super) const LIFECYCLE: Class = application(6002, "Application Lifecycle");
pub(super) const APPLICATION_ERROR: Class = application(6008, "Application Error");
pub(super) const BASE: Class = Class {
    uid: 0,
    name: "Base Event",
    category: 0,
    category_name: "Uncategorized",
    of_system: false,
    of_agents: false,
};

/// What was done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Activity(pub(super) u64, pub(super) &'static str);

/// The schema has no word of its own for it: then the event's name says what it was.
const OTHER: u64 = 99;

/// The class of an entry and what was done.
pub(super) fn classify(draft: &Draft) -> (Class, Activity) {
    let event = draft.event.as_str();
    let failed = draft.attributes.get("error.type").and_then(Value::as_str);
    match event.split_once('.').map_or(event, |(family, _)| family) {
        "process" => (PROCESS, process(event)),
        "file" if event == "file.map_exec" => (MODULE, Activity(1, "Load")),
        "file" | "credential" if has_path(draft) => (FILE, file(draft)),
        "fd" if has_path(draft) => (FILE, Activity(14, "Open")),
        "network" | "unix" | "tls" | "fd" => (NETWORK, network(event, failed)),
        "privilege" => privilege(event),
        "io_uring" | "syscall" => (KERNEL, Activity(4, "Invoke")),
        "session" | "sensor" | "delegation" | "config" => lifecycle(event),
        "gap" => (APPLICATION_ERROR, Activity(1, "General Error")),
        "trail" => (EVENT_LOG, trail(event)),
        "finding" => (FINDING, Activity(1, "Create")),
        _ => (BASE, Activity(OTHER, "Other")),
    }
}

fn has_path(draft: &Draft) -> bool {
    draft.attributes.get("file.path").is_some_and(Value::is_string)
}

fn process(event: &str) -> Activity {
    match event {
        "process.fork" | "process.exec" => Activity(1, "Launch"),
        "process.exit" => Activity(2, "Terminate"),
        _ => Activity(OTHER, "Other"),
    }
}

fn file(draft: &Draft) -> Activity {
    let writes = draft.attributes.get("bailiwick.file.access").and_then(Value::as_str) == Some("w");
    match draft.event.as_str() {
        "file.create" | "file.link" | "file.symlink" | "file.mkdir" => Activity(1, "Create"),
        "file.io" if !writes => Activity(2, "Read"),
        "file.io" | "file.truncate" | "file.map_write" => Activity(3, "Update"),
        "file.unlink" | "file.rmdir" => Activity(4, "Delete"),
        "file.rename" => Activity(5, "Rename"),
        "file.xattr" => Activity(6, "Set Attributes"),
        "file.chmod" | "file.chown" => Activity(7, "Set Security"),
        "file.mount" => Activity(12, "Mount"),
        "file.open" | "credential.read" => Activity(14, "Open"),
        _ => Activity(OTHER, "Other"),
    }
}

fn network(event: &str, failed: Option<&str>) -> Activity {
    match (event, failed) {
        ("network.connect" | "unix.connect", Some("ECONNREFUSED")) => Activity(5, "Refuse"),
        ("network.connect" | "unix.connect", Some(_)) => Activity(4, "Fail"),
        ("network.connect" | "unix.connect" | "network.accept", _) => Activity(1, "Open"),
        ("network.close", _) => Activity(2, "Close"),
        ("network.send" | "tls.hello", _) => Activity(6, "Traffic"),
        ("network.listen", _) => Activity(7, "Listen"),
        _ => Activity(OTHER, "Other"),
    }
}

fn privilege(event: &str) -> (Class, Activity) {
    match event {
        "privilege.ptrace" => (PROCESS, Activity(3, "Open")),
        "privilege.signal" => (PROCESS, Activity(OTHER, "Other")),
        "privilege.setid" => (PROCESS, Activity(5, "Set User ID")),
        "privilege.module" => (KERNEL_EXTENSION, Activity(OTHER, "Other")),
        _ => (KERNEL, Activity(4, "Invoke")),
    }
}

fn lifecycle(event: &str) -> (Class, Activity) {
    match event {
        "session.start" | "sensor.start" | "delegation.start" => (LIFECYCLE, Activity(3, "Start")),
        "session.end" | "sensor.stop" => (LIFECYCLE, Activity(4, "Stop")),
        "config.change" => (LIFECYCLE, Activity(8, "Update")),
        "sensor.degraded" => (APPLICATION_ERROR, Activity(1, "General Error")),
        _ => (LIFECYCLE, Activity(OTHER, "Other")),
    }
}

fn trail(event: &str) -> Activity {
    match event {
        "trail.tombstone" => Activity(2, "Delete"),
        _ => Activity(OTHER, "Other"),
    }
}
