//! `bailiwick live`: what happens on this host, as it happens, for a person.
//!
//! Inputs: a daemon that runs already (in this process or another), asked over its socket like by anyone else. Outputs: a
//! banner, then a line for each entry that is worth showing. Refuses: to show every open that is in scope.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::io;
use std::process::{Child, Command};
use std::time::Duration;

use super::CliError;
use super::args::Paths;
use super::line::Lines;
use super::output::{Output, Waited};
use super::text::{Palette, printable};
use crate::control::client::Client;
use crate::control::protocol::Since;
use crate::control::query::Filter;
use crate::control::report::Doctor;
use crate::control::{Request, Response};
use crate::entry::{Entry, Timestamp, Verdict};

/// How often it is asked whether the end has come.
const LOOK_UP_EVERY: Duration = Duration::from_millis(200);

/// Processes named in the banner at most.
const MAX_NAMED: usize = 20;

/// Whether an entry is worth a person's attention.
pub fn worth_showing(entry: &Entry) -> bool {
    let draft = &entry.draft;
    match draft.verdict {
        Verdict::OutOfScope | Verdict::Denied => return true,
        Verdict::InScope | Verdict::None => {}
    }
    let family = draft.event.split('.').next().unwrap_or_default();
    match draft.event.as_str() {
        // A search along PATH fails once for each directory before it succeeds.
        "process.exec" => draft.attributes.get("error.type").is_none_or(|error| error != "ENOENT"),
        "network.connect" | "network.listen" | "unix.connect" | "gap" | "trail.recovered" | "trail.tombstone" => true,
        _ => matches!(
            family,
            "privilege" | "session" | "delegation" | "finding" | "sensor" | "decision" | "config" | "credential"
        ),
    }
}

/// Commands that the banner tells of.
#[derive(Clone, Debug, Default)]
pub struct Hints {
    /// What starts the demo; none where a command is started anyway.
    pub demo: Option<String>,
    /// What a shell needs so that `bailiwick` is this program and asks this daemon; none where it does already.
    pub reach: Option<String>,
}

/// How many blind spots there are, and of what: each by its words is `doctor`'s to say.
fn blind_spots(doctor: &Doctor) -> String {
    let all = doctor.blind_spots();
    if all.is_empty() {
        return "Blind spots: none.\n".to_owned();
    }
    let mut families: Vec<(&str, BTreeSet<&str>)> = Vec::new();
    let mut told: BTreeSet<&str> = BTreeSet::new();
    for observation in &doctor.observations {
        let family = observation.event.split('.').next().unwrap_or_default();
        let new: Vec<&str> =
            observation.blind_spots.iter().map(String::as_str).filter(|spot| told.insert(spot)).collect();
        match families.iter_mut().find(|(name, _)| *name == family) {
            Some((_, spots)) => spots.extend(new),
            None => families.push((family, new.into_iter().collect())),
        }
    }
    let counts: Vec<String> = families
        .iter()
        .filter(|(_, spots)| !spots.is_empty())
        .map(|(family, spots)| format!("{} {}", printable(family), spots.len()))
        .collect();
    let mut text = format!("Blind spots: {} (`bailiwick doctor` says each).\n", all.len());
    if !counts.is_empty() {
        text.push_str(&format!("  {}\n", counts.join(", ")));
    }
    if !doctor.unobserved.is_empty() {
        text.push_str(&format!("  {}\n", printable(&doctor.unobserved)));
    }
    text
}

/// What stands above the entries: how this kernel is watched, what is not seen, who might be an agent, and how to see more.
pub fn banner(doctor: &Doctor, agent_like: &[String], hints: &Hints) -> String {
    let mut text = format!("Bailiwick watches this host (tier {}).\n", doctor.tier);
    text.push_str(&blind_spots(doctor));
    if agent_like.is_empty() {
        text.push_str("No process that looks like an agent is running.\n");
    } else {
        text.push_str("Running, and looking like agents, though nothing declares them:\n");
        for process in agent_like.iter().take(MAX_NAMED) {
            text.push_str(&format!("  {}\n", printable(process)));
        }
        if let Some(more) = agent_like.len().checked_sub(MAX_NAMED + 1) {
            text.push_str(&format!("  and {} more\n", more + 1));
        }
    }
    let end = match &hints.demo {
        Some(demo) => {
            text.push_str(&format!("To see an agent at work, run in another terminal:\n\n    {demo}\n\n"));
            "end with Ctrl-C"
        }
        None => "it ends with the command",
    };
    if let Some(reach) = &hints.reach {
        let hint = "Commands that the lines below name reach this daemon from a shell in which you have said:";
        text.push_str(&format!("{hint}\n\n    {reach}\n\n"));
    }
    text.push_str(&format!("What is worth your attention follows, one line an event (times in UTC; {end}).\n"));
    text
}

/// Shows entries, until nobody reads the output, or `last` returns the position of the last entry to show and that one has
/// come. `since` is a time from before what must not be missed was started.
pub fn watch(
    client: &Client,
    since: Since,
    output: &mut Output<'_>,
    palette: Palette,
    mut last: impl FnMut() -> Option<u64>,
) -> Result<(), CliError> {
    let request = Request::Tail { filter: Filter::default(), since, follow: true };
    let mut answer = client.ask(&request, None)?;
    let mut lines = Lines::new(palette, Timestamp::now());
    let mut seen = 0;
    loop {
        if answer.is_drained() {
            output.flush()?;
            match output.wait(&answer, Some(LOOK_UP_EVERY))? {
                Waited::ReaderLeft => return Ok(()),
                Waited::TimedOut if last().is_some_and(|last| last <= seen) => return Ok(()),
                Waited::TimedOut => continue,
                Waited::Readable => {}
            }
        }
        match answer.next().transpose()? {
            Some(Response::Entry(entry)) => {
                seen = entry.seq;
                if worth_showing(&entry) {
                    output.text(&lines.line(&entry))?;
                }
            }
            None => return Ok(()),
            Some(_) => return Err(answer.not_understood("an answer to another question").into()),
        }
    }
}

/// Starts a command as a declared agent: `bailiwick run`, in a process of its own, with the same instance.
pub fn start_agent(paths: &Paths, agent: &str, command: &[OsString]) -> io::Result<Child> {
    let mut run = Command::new(std::env::current_exe()?);
    run.args(paths.options()).args(["run", "--agent", agent, "--"]).args(command);
    run.spawn()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use serde_json::json;

    use super::*;
    use crate::control::report::Observation;
    use crate::control::testing::{FakeDaemon, entry};

    #[test]
    fn what_is_in_scope_and_ordinary_is_not_shown() {
        for event in ["file.open", "file.create", "process.fork", "process.exit", "trail.checkpoint", "syscall.count"] {
            let ordinary = entry(1, event).agent("demo", 1).verdict(Verdict::InScope).build();
            assert!(!worth_showing(&ordinary), "{event}");
        }
    }

    #[test]
    fn what_a_person_should_know_is_shown() {
        let events = [
            "session.start",
            "session.end",
            "process.exec",
            "network.connect",
            "gap",
            "finding.unusual",
            "sensor.degraded",
            "delegation.start",
            "config.change",
            "trail.recovered",
        ];
        for event in events {
            assert!(worth_showing(&entry(1, event).build()), "{event}");
        }
        assert!(worth_showing(&entry(1, "file.open").nearest("/x").build()));
        assert!(worth_showing(&entry(1, "file.unlink").verdict(Verdict::Denied).build()));
    }

    #[test]
    fn a_search_along_the_path_is_not_shown_but_a_forbidden_exec_is() {
        let failed = |error: &str| entry(1, "process.exec").with("error.type", json!(error)).build();
        assert!(!worth_showing(&failed("ENOENT")));
        assert!(worth_showing(&failed("EACCES")));
    }

    fn doctor(blind_spots: &[&str]) -> Doctor {
        let blind_spots = blind_spots.iter().map(|spot| (*spot).to_owned()).collect();
        let (event, hook, guarantee) = ("file.open".into(), "tp_btf/sys_exit".into(), "all".into());
        let observations = vec![Observation { event, working: true, hook, guarantee, blind_spots }];
        Doctor { tier: 2, observations, unobserved: String::new(), export: Vec::new() }
    }

    #[test]
    fn the_banner_of_a_quiet_host_is_not_blank() {
        let hints = Hints { demo: Some("bailiwick run --agent demo".into()), reach: Some("export A=b".into()) };
        let text = banner(&doctor(&["io_uring"]), &["node cli.js\u{1b}[2J (77)".into()], &hints);
        assert!(text.contains("(tier 2)"), "{text}");
        assert!(text.contains("Blind spots: 1 (`bailiwick doctor` says each).\n  file 1\n"), "{text}");
        assert!(text.contains("  node cli.js\\x1b[2J (77)\n"), "{text}");
        assert!(text.contains("\n    bailiwick run --agent demo\n"), "{text}");
        assert!(text.contains("\n    export A=b\n"), "{text}");
    }

    #[test]
    fn the_banner_says_so_where_there_is_nothing_to_name() {
        let text = banner(&doctor(&[]), &[], &Hints::default());
        assert!(text.contains("Blind spots: none.\nNo process that looks like an agent is running.\n"), "{text}");
        assert!(text.ends_with("it ends with the command).\n") && !text.contains("another terminal"), "{text}");
        let many: Vec<String> = (0..=MAX_NAMED).map(|n| n.to_string()).collect();
        assert!(banner(&doctor(&[]), &many, &Hints::default()).contains("  and 1 more\n"));
    }

    #[test]
    fn watching_ends_once_the_last_entry_has_come() {
        let daemon = FakeDaemon::holding(Vec::new());
        let core = std::sync::Arc::clone(&daemon.core);
        let mut written = Vec::new();
        let mut asked = 0;
        watch(&daemon.client(), Since::Start, &mut Output::to(&mut written), Palette::PLAIN, || {
            asked += 1;
            if asked == 1 {
                core.append(entry(1, "file.open").agent("demo", 1).path("r", "/quiet").build());
                core.append(entry(2, "file.open").agent("demo", 1).path("r", "/loud").nearest("/x").build());
            }
            Some(2)
        })
        .unwrap();
        let text = String::from_utf8(written).unwrap();
        assert!(text.contains("/loud") && !text.contains("/quiet"), "{text}");
    }
}
