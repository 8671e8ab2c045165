//! The objects of OCSF that events are made of.

use serde_json::{Map, Value, json};

use super::event::Charter;
use crate::entry::{Draft, ProcessRef};

/// `bailiwick`, as the product that tells, and as the application whose life is told of.
pub(super) fn product() -> Value {
    json!({ "name": "Bailiwick", "vendor_name": "Bailiwick", "version": env!("CARGO_PKG_VERSION") })
}

pub(super) fn text<'a>(draft: &'a Draft, key: &str) -> Option<&'a str> {
    draft.attributes.get(key).and_then(Value::as_str)
}

pub(super) fn number(draft: &Draft, key: &str) -> Option<u64> {
    draft.attributes.get(key).and_then(Value::as_u64)
}

/// Puts a value there where there is one.
pub(super) fn put(object: &mut Map<String, Value>, key: &str, value: Option<impl Into<Value>>) {
    if let Some(value) = value {
        object.insert(key.to_owned(), value.into());
    }
}

/// A file by its path. What kind of file it is, only some events say.
pub(super) fn file(path: &str, type_id: u64) -> Value {
    let name = path.trim_end_matches('/').rsplit('/').next().filter(|name| !name.is_empty()).unwrap_or(path);
    json!({ "name": name, "path": path, "type_id": type_id })
}

/// The process of an entry: as it acted, or with the image that an exec gave it.
pub(super) fn process(draft: &Draft, of: &ProcessRef, executable: Option<&str>) -> Map<String, Value> {
    let mut process = Map::new();
    process.insert("pid".to_owned(), of.tgid.into());
    process.insert("tid".to_owned(), of.tid.into());
    // A pid is used again, and this is not: so it tells processes apart for good.
    process.insert("uid".to_owned(), format!("{}.{}", of.tgid, of.start_boot_ns).into());
    if let Some(path) = executable {
        process.insert("file".to_owned(), file(path, 1));
        process.insert("name".to_owned(), path.rsplit('/').next().unwrap_or(path).into());
    }
    let parent = number(draft, "process.parent_pid").filter(|_| draft.event.starts_with("process."));
    put(&mut process, "parent_process", parent.map(|pid| json!({ "pid": pid })));
    process
}

/// The arguments, in one line that a shell would read back.
pub(super) fn command_line(draft: &Draft) -> Option<String> {
    let arguments = draft.attributes.get("process.command_args")?.as_array()?;
    let plain = |character: char| character.is_ascii_alphanumeric() || "_-./:=,@%+".contains(character);
    let quoted = arguments.iter().filter_map(Value::as_str).map(|argument| {
        if !argument.is_empty() && argument.chars().all(plain) {
            argument.to_owned()
        } else {
            format!("'{}'", argument.replace('\'', "'\\''"))
        }
    });
    Some(quoted.collect::<Vec<_>>().join(" "))
}

/// Who acted: the process, on whose behalf.
pub(super) fn actor(draft: &Draft) -> Value {
    let mut actor = Map::new();
    let acting = draft.process.as_ref().map(|of| process(draft, of, of.executable.as_deref()));
    put(&mut actor, "process", acting);
    let user = draft.principal.as_ref().map(|principal| {
        let mut user = Map::new();
        user.insert("uid".to_owned(), principal.uid.to_string().into());
        put(&mut user, "name", principal.user.clone());
        user
    });
    put(&mut actor, "user", user);
    if actor.is_empty() {
        actor.insert("app_name".to_owned(), "Bailiwick".into());
    }
    Value::Object(actor)
}

/// The agent, and the declaration that its session began under.
pub(super) fn ai_agent(draft: &Draft, charter: Option<&Charter>) -> Option<Value> {
    let name = draft.agent.as_deref()?;
    let mut agent = Map::new();
    agent.insert("uid".to_owned(), name.into());
    agent.insert("name".to_owned(), name.into());
    put(&mut agent, "instance_uid", draft.session.map(|session| session.to_string()));
    put(&mut agent, "charter", charter.map(Charter::as_file));
    Some(Value::Object(agent))
}

/// One end of a connection.
fn endpoint(draft: &Draft, address: &str, port: &str) -> Option<Value> {
    let mut endpoint = Map::new();
    put(&mut endpoint, "ip", text(draft, address));
    put(&mut endpoint, "port", number(draft, port));
    (!endpoint.is_empty()).then_some(Value::Object(endpoint))
}

/// Both ends and what is between them.
pub(super) fn connection(draft: &Draft, event: &mut Map<String, Value>, hostname: &str) {
    let (own, inbound) =
        (endpoint(draft, "network.local.address", "network.local.port"), draft.event == "network.accept");
    let other = endpoint(draft, "server.address", "server.port")
        .or_else(|| endpoint(draft, "client.address", "client.port"))
        .or_else(|| text(draft, "bailiwick.unix.path").map(|path| json!({ "name": path, "svc_name": path })));
    let of_this_host = json!({ "hostname": hostname });
    let (source, destination) = match inbound {
        true => (other, Some(own.unwrap_or(of_this_host))),
        false if matches!(draft.event.as_str(), "network.listen" | "network.bind") => {
            (None, own.or(Some(of_this_host)))
        }
        false => (Some(own.unwrap_or(of_this_host)), other),
    };
    put(event, "src_endpoint", source);
    put(event, "dst_endpoint", destination);
    let mut info = Map::new();
    let direction = match draft.event.as_str() {
        "network.accept" | "network.listen" => (1, "Inbound"),
        "network.connect" | "network.send" => (2, "Outbound"),
        "unix.connect" => (4, "Local"),
        _ => (0, "Unknown"),
    };
    info.insert("direction_id".to_owned(), direction.0.into());
    info.insert("direction".to_owned(), direction.1.into());
    let local = (draft.event == "unix.connect").then_some("unix");
    put(&mut info, "protocol_name", text(draft, "network.transport").or(local));
    put(&mut info, "protocol_num", text(draft, "network.transport").and_then(protocol_number));
    put(
        &mut info,
        "protocol_ver_id",
        match text(draft, "network.type") {
            Some("ipv4") => Some(4),
            Some("ipv6") => Some(6),
            Some(_) | None => None,
        },
    );
    event.insert("connection_info".to_owned(), info.into());
    let (out, into) =
        (number(draft, "bailiwick.network.bytes_sent"), number(draft, "bailiwick.network.bytes_received"));
    if out.is_some() || into.is_some() {
        let (out, into) = (out.unwrap_or(0), into.unwrap_or(0));
        let traffic = json!({ "bytes_out": out, "bytes_in": into, "bytes": out.saturating_add(into) });
        event.insert("traffic".to_owned(), traffic);
    }
}

fn protocol_number(transport: &str) -> Option<u64> {
    match transport {
        "tcp" => Some(6),
        "udp" => Some(17),
        _ => None,
    }
}
