//! Names of attributes and metrics: those of the semantic conventions, and those that our documents have.

use std::collections::BTreeSet;
use std::path::Path;

use opentelemetry_semantic_conventions::{attribute, metric};

/// The conventions that the export says its names are of. The crate of names is of 1.42: since then, no attribute that it
/// has was renamed, nor a metric of ours.
pub const SCHEMA_URL: &str = "https://opentelemetry.io/schemas/1.44.0";

/// Attributes of the conventions that are exported.
const ATTRIBUTES: &[&str] = &[
    attribute::CLIENT_ADDRESS,
    attribute::CLIENT_PORT,
    attribute::CPU_MODE,
    attribute::ERROR_TYPE,
    attribute::FILE_GROUP_ID,
    attribute::FILE_MODE,
    attribute::FILE_OWNER_ID,
    attribute::FILE_PATH,
    attribute::FILE_SIZE,
    attribute::FILE_SYMBOLIC_LINK_TARGET_PATH,
    attribute::HOST_ID,
    attribute::HOST_NAME,
    attribute::LOG_RECORD_UID,
    attribute::NETWORK_LOCAL_ADDRESS,
    attribute::NETWORK_LOCAL_PORT,
    attribute::NETWORK_PEER_ADDRESS,
    attribute::NETWORK_PEER_PORT,
    attribute::NETWORK_TRANSPORT,
    attribute::NETWORK_TYPE,
    attribute::PROCESS_COMMAND_ARGS,
    attribute::PROCESS_CREATION_TIME,
    attribute::PROCESS_EXECUTABLE_NAME,
    attribute::PROCESS_EXECUTABLE_PATH,
    attribute::PROCESS_EXIT_CODE,
    attribute::PROCESS_PARENT_PID,
    attribute::PROCESS_PID,
    attribute::PROCESS_REAL_USER_ID,
    attribute::PROCESS_USER_ID,
    attribute::PROCESS_WORKING_DIRECTORY,
    attribute::SERVER_ADDRESS,
    attribute::SERVER_PORT,
    attribute::SERVICE_INSTANCE_ID,
    attribute::SERVICE_NAME,
    attribute::SERVICE_VERSION,
    attribute::SESSION_ID,
    attribute::THREAD_ID,
];

/// Metrics of the conventions that are exported.
const METRICS: &[&str] = &[
    metric::PROCESS_CPU_TIME,
    metric::PROCESS_MEMORY_USAGE,
    metric::PROCESS_MEMORY_VIRTUAL,
    metric::PROCESS_THREAD_COUNT,
    metric::PROCESS_UNIX_FILE_DESCRIPTOR_COUNT,
    metric::PROCESS_UPTIME,
];

/// Of the conventions for generative AI, which have schemas of their own now.
const GEN_AI_AGENT_NAME: &str = "gen_ai.agent.name";

/// The attribute by which the specification of metrics (not the conventions) marks what is beyond a limit of series.
const OVERFLOW: &str = "otel.metric.overflow";

/// Whether the conventions have this attribute.
pub fn has_attribute(name: &str) -> bool {
    let of_template = || {
        let key = name.strip_prefix(attribute::PROCESS_ENVIRONMENT_VARIABLE).and_then(|rest| rest.strip_prefix('.'));
        key.is_some_and(|key| !key.is_empty())
    };
    ATTRIBUTES.contains(&name) || [OVERFLOW, GEN_AI_AGENT_NAME].contains(&name) || of_template()
}

/// Whether the conventions have this metric.
pub fn has_metric(name: &str) -> bool {
    METRICS.contains(&name)
}

/// Every name in our own namespace that a document has.
///
/// # Panics
///
/// If a document cannot be read.
pub fn documented() -> BTreeSet<String> {
    let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs");
    let pages = ["contract.md", "events.md", "export.md", "metrics.md"];
    let texts = pages.map(|page| std::fs::read_to_string(docs.join(page)).unwrap());
    texts.iter().flat_map(|text| names(text)).filter(|name| name.starts_with("bailiwick.")).collect()
}

/// The names that a text has in code quotes. `a.{b,c}` are two; `.d` after them is `a.d`, on the next line too.
fn names(text: &str) -> Vec<String> {
    let mut found: Vec<String> = Vec::new();
    // No quote goes over the end of a line.
    let quoted = text.lines().flat_map(|line| line.split('`').skip(1).step_by(2));
    for name in quoted.map(|name| name.trim_matches(['[', ']'])) {
        let parent = found.last().and_then(|last| last.rsplit_once('.')).map(|(parent, _)| parent.to_owned());
        let whole = match parent {
            Some(parent) if name.starts_with('.') => format!("{parent}{name}"),
            _ => name.to_owned(),
        };
        match whole.split_once('{').and_then(|(before, rest)| Some((before, rest.split_once('}')?))) {
            Some((before, (list, after))) => found.extend(list.split(',').map(|one| format!("{before}{one}{after}"))),
            None => found.push(whole),
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::names;

    #[test]
    fn names_are_found_however_a_document_shortens_them() {
        let text = "- `x.gap`: `bailiwick.gap.kind`,\n`.lost`, and `[bailiwick.reason.{kind,text}]`; `bailiwick.seq`";
        let expected = [
            "x.gap",
            "bailiwick.gap.kind",
            "bailiwick.gap.lost",
            "bailiwick.reason.kind",
            "bailiwick.reason.text",
            "bailiwick.seq",
        ];
        assert_eq!(names(text), expected);
    }
}
