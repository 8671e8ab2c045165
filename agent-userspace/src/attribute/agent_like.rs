//! Processes that look like AI agents: what the banner of `bailiwick live` names. A look at names and markers alone; the
//! inventory with its catalogue comes with discovery.

use std::path::Path;

use super::procfs::ProcFs;

/// Names that known agents run under: of the program, of its script, of a module.
const NAMES: &[&str] = &[
    "aider",
    "claude",
    "cline",
    "codex",
    "copilot",
    "crush",
    "cursor-agent",
    "gemini",
    "goose",
    "mini",
    "mini-swe-agent",
    "opencode",
    "openhands",
    "qwen",
    "sweagent",
];
/// Variables that known agents mark their children with.
const MARKERS: &[&str] = &["AI_AGENT", "CLAUDECODE", "CODEX_THREAD_ID", "CODEX_SANDBOX", "GEMINI_CLI"];
/// How many words of a command line may name an agent: the program, its interpreter's options, the script.
const WORDS: usize = 3;

/// Each as `name (process id): command line`.
pub fn agent_like(proc: &ProcFs, own_tgid: u32) -> Vec<String> {
    let mut found: Vec<(u32, String)> = proc
        .processes()
        .into_iter()
        .filter(|&tgid| tgid != own_tgid)
        .filter_map(|tgid| {
            let arguments = proc.arguments(tgid);
            let name = by_name(&arguments).or_else(|| by_marker(&proc.environment(tgid)))?;
            let line: Vec<_> = arguments.iter().map(|word| String::from_utf8_lossy(word).into_owned()).collect();
            Some((tgid, format!("{name} ({tgid}): {}", line.join(" "))))
        })
        .collect();
    found.sort();
    found.into_iter().map(|(_, text)| text).collect()
}

fn by_name(arguments: &[Vec<u8>]) -> Option<String> {
    arguments.iter().take(WORDS).find_map(|word| {
        let word = String::from_utf8_lossy(word);
        let base = Path::new(&*word).file_stem()?.to_str()?.to_owned();
        NAMES.contains(&base.as_str()).then_some(base)
    })
}

fn by_marker(environment: &[Vec<u8>]) -> Option<String> {
    MARKERS.iter().find_map(|marker| {
        let marked = environment
            .iter()
            .any(|variable| variable.strip_prefix(marker.as_bytes()).is_some_and(|rest| rest.starts_with(b"=")));
        marked.then(|| format!("marked {marker}"))
    })
}

#[cfg(test)]
mod tests {
    use super::{by_marker, by_name};

    #[test]
    fn an_agent_is_known_by_its_program_or_its_script() {
        let words = |line: &str| line.split(' ').map(|word| word.as_bytes().to_vec()).collect::<Vec<_>>();
        assert_eq!(by_name(&words("/usr/bin/node /opt/x/claude.js")).as_deref(), Some("claude"));
        assert_eq!(by_name(&words("/usr/bin/python3 server.py")), None);
    }

    #[test]
    fn a_marker_is_a_whole_variable_name() {
        assert_eq!(by_marker(&[b"GEMINI_CLI_X=1".to_vec()]), None);
        assert_eq!(by_marker(&[b"GEMINI_CLI=1".to_vec()]).as_deref(), Some("marked GEMINI_CLI"));
    }
}
