//! What sends: the daemon, on this host.

use std::fs;
use std::path::Path;

use opentelemetry::KeyValue;

/// The semantic conventions that the names are of.
pub(super) const SCHEMA_URL: &str = "https://opentelemetry.io/schemas/1.44.0";

/// The daemon's resource: its name and version, the host's name and id (`/etc/machine-id`, as the semantic conventions
/// have it, so that it joins what other collectors say of the host).
pub fn host_resource() -> Vec<KeyValue> {
    let mut resource =
        vec![KeyValue::new("service.name", "bailiwick"), KeyValue::new("service.version", env!("CARGO_PKG_VERSION"))];
    let name = rustix::system::uname().nodename().to_string_lossy().into_owned();
    resource.push(KeyValue::new("host.name", name));
    resource.extend(machine_id(Path::new("/etc/machine-id")).map(|id| KeyValue::new("host.id", id)));
    resource
}

fn machine_id(path: &Path) -> Option<String> {
    let id = fs::read_to_string(path).ok()?;
    Some(id.trim().to_owned()).filter(|id| !id.is_empty())
}
