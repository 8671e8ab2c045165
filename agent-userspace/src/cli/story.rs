//! One session's story: its process tree with what each process did, and how complete that is.
//!
//! Inputs: the session's entries, in the order of the trail, and the [`Closing`] that follows them. Outputs: text. Pure.
//! Refuses: to say "no violations" without saying what was lost and what could not be seen; to hold more than the limits
//! below, where it says how much more there is.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::deed::address;
use super::line::{action, command_line, exit_text, gap_text, moment, principal_text, resources, what, why};
use super::text::{Palette, Tone, counted, grouped, printable};
use crate::control::report::Closing;
use crate::control::sessions::child_of;
use crate::entry::{Draft, Entry, Gap, Verdict};
use crate::resource::named_in;

/// What is held, of each kind, so that a session of millions of entries can be told.
const MAX_PROCESSES: usize = 10_000;
const MAX_THINGS_HELD: usize = 2_000;
const MAX_VIOLATIONS: usize = 1_000;
const MAX_GAPS: usize = 1_000;
const MAX_FINDINGS: usize = 1_000;
const MAX_RESOURCES: usize = 1_000;

/// Things shown in a list before "and N more".
const THINGS_SHOWN: usize = 12;

/// The tree is not indented beyond this.
const MAX_INDENT: usize = 24;

type Key = (u32, u64);

/// What a process did, in the order it is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Deed {
    Executed,
    Read,
    Wrote,
    Changed,
    Reached,
    Tried,
    Did,
}

impl Deed {
    fn as_str(self) -> &'static str {
        match self {
            Self::Executed => "executed",
            Self::Read => "read",
            Self::Wrote => "wrote",
            Self::Changed => "changed",
            Self::Reached => "reached",
            Self::Tried => "tried",
            Self::Did => "did",
        }
    }
}

#[derive(Debug, Default)]
struct Thing {
    count: u64,
    is_out_of_scope: bool,
}

#[derive(Debug, Default)]
struct Process {
    parent: Option<Key>,
    name: Option<String>,
    end: Option<String>,
    deeds: BTreeMap<Deed, BTreeMap<String, Thing>>,
    /// Things that found no place.
    more: BTreeMap<Deed, u64>,
}

/// A story in the making.
#[derive(Debug, Default)]
pub struct Story {
    processes: BTreeMap<Key, Process>,
    order: Vec<Key>,
    untold_processes: u64,
    violations: Vec<String>,
    findings: Vec<String>,
    gaps: Vec<Gap>,
    /// What was done with each resource, and how often.
    resources: BTreeMap<String, BTreeMap<Deed, u64>>,
}

impl Story {
    /// Takes note of one of the session's entries.
    pub fn add(&mut self, entry: &Entry) {
        let draft = &entry.draft;
        if let Some(gap) = &draft.gap
            && self.gaps.len() < MAX_GAPS
        {
            self.gaps.push(gap.clone());
        }
        if is_out_of_scope(draft) && self.violations.len() < MAX_VIOLATIONS {
            self.violations.push(violation(entry));
        }
        if draft.event.starts_with("finding.") {
            if self.findings.len() < MAX_FINDINGS {
                self.findings.push(format!("{} {}", printable(&draft.event), action(draft)));
            }
            return;
        }
        let Some(acting) = draft.process.as_ref().map(|process| (process.tgid, process.start_boot_ns)) else { return };
        self.note_resources(draft);
        let executable = draft.process.as_ref().and_then(|process| process.executable.as_deref());
        if let Some(process) = self.process(acting) {
            if process.name.is_none() {
                process.name = executable.map(|path| printable(path).into_owned());
            }
            process.add(draft);
        }
        if let Some(child) = child_of(draft)
            && let Some(process) = self.process(child)
        {
            process.parent = Some(acting);
            process.name = process.name.take().or(executable.map(|path| printable(path).into_owned()));
        }
        if let Some(parent) = parent_of(draft)
            && let Some(process) = self.process(acting)
            && parent != acting
        {
            process.parent = process.parent.or(Some(parent));
        }
    }

    fn note_resources(&mut self, draft: &Draft) {
        for name in named_in(&draft.attributes) {
            if !self.resources.contains_key(name) && self.resources.len() >= MAX_RESOURCES {
                continue;
            }
            let used = self.resources.entry(name.to_owned()).or_default();
            for (deed, _) in deeds(draft) {
                let times = used.entry(deed).or_default();
                *times = times.saturating_add(draft.count);
            }
        }
    }

    fn tell_resources(&self, text: &mut String) {
        for (name, used) in self.resources.iter().filter(|(_, used)| !used.is_empty()) {
            let used: Vec<String> = used
                .iter()
                .map(|(deed, times)| {
                    let times = if *times > 1 { format!(" x{}", grouped(*times)) } else { String::new() };
                    format!("{}{times}", deed.as_str())
                })
                .collect();
            text.push_str(&format!("  {}: {}\n", printable(name), used.join(", ")));
        }
    }

    fn process(&mut self, key: Key) -> Option<&mut Process> {
        if !self.processes.contains_key(&key) {
            if self.processes.len() >= MAX_PROCESSES {
                self.untold_processes += 1;
                return None;
            }
            self.order.push(key);
        }
        Some(self.processes.entry(key).or_default())
    }

    /// The whole story.
    pub fn tell(&self, closing: &Closing, palette: Palette) -> String {
        let mut text = head(closing, palette);
        text.push_str(&palette.paint(Tone::Strong, "\nprocesses\n"));
        self.tell_tree(&mut text, palette);
        if self.untold_processes > 0 {
            text.push_str("  more processes than are told apart here: `show --json` has all\n");
        }
        if !self.resources.is_empty() {
            text.push_str(&palette.paint(Tone::Strong, "\nresources\n"));
            self.tell_resources(&mut text);
        }
        if !self.violations.is_empty() {
            text.push_str(&palette.paint(Tone::Strong, "\nout of scope\n"));
            for violation in &self.violations {
                text.push_str(&format!("  {}\n", palette.paint(Tone::Alarm, violation)));
            }
            let untold = closing.session.out_of_scope.saturating_sub(self.violations.len() as u64);
            if untold > 0 {
                text.push_str(&format!("  and {}\n", counted(untold, "more", "more")));
            }
        }
        if !self.findings.is_empty() {
            text.push_str(&palette.paint(Tone::Strong, "\nfindings\n"));
            for finding in &self.findings {
                text.push_str(&format!("  {}\n", palette.paint(Tone::Alarm, finding)));
            }
        }
        text.push_str(&palette.paint(Tone::Strong, "\ncompleteness\n"));
        for line in statement(closing, &self.gaps) {
            text.push_str(&format!("  {line}\n"));
        }
        text
    }

    /// Depth first, without recursion: a chain of forks may be thousands deep.
    fn tell_tree(&self, text: &mut String, palette: Palette) {
        let mut children: BTreeMap<Key, Vec<Key>> = BTreeMap::new();
        let mut roots = Vec::new();
        for key in &self.order {
            let parent = self.processes.get(key).and_then(|process| process.parent);
            match parent.filter(|parent| self.processes.contains_key(parent)) {
                Some(parent) => children.entry(parent).or_default().push(*key),
                None => roots.push(*key),
            }
        }
        let mut told = BTreeSet::new();
        // Processes that name each other as parents have no root; then they are told from the first of them on.
        for root in roots.iter().chain(&self.order) {
            let mut waiting = vec![(*root, 0)];
            while let Some((key, depth)) = waiting.pop() {
                if !told.insert(key) {
                    continue;
                }
                if let Some(process) = self.processes.get(&key) {
                    process.tell(key, depth, text, palette);
                }
                let below = children.get(&key).into_iter().flatten().rev();
                waiting.extend(below.map(|child| (*child, depth + 1)));
            }
        }
    }
}

impl Process {
    fn add(&mut self, draft: &Draft) {
        match draft.event.as_str() {
            "process.fork" | "session.start" | "session.end" | "delegation.start" | "gap" => {}
            "process.exit" => self.end = Some(exit_text(&draft.attributes)),
            _ => {
                let named = resources(&draft.attributes);
                for (deed, thing) in deeds(draft) {
                    self.note(deed, thing + &named, draft);
                }
            }
        }
        let has_replaced_itself = draft.event == "process.exec" && !draft.attributes.contains_key("error.type");
        if has_replaced_itself || draft.event == "session.start" {
            self.name = Some(command_line(&draft.attributes));
        }
    }

    fn note(&mut self, deed: Deed, thing: String, draft: &Draft) {
        let things = self.deeds.entry(deed).or_default();
        if !things.contains_key(&thing) && things.len() >= MAX_THINGS_HELD {
            *self.more.entry(deed).or_default() += 1;
            return;
        }
        let noted = things.entry(thing).or_default();
        noted.count = noted.count.saturating_add(draft.count);
        noted.is_out_of_scope |= is_out_of_scope(draft);
    }

    fn tell(&self, key: Key, depth: usize, text: &mut String, palette: Palette) {
        let indent = "  ".repeat(depth.min(MAX_INDENT) + 1);
        let name = self.name.as_deref().unwrap_or("?");
        let end = self.end.as_ref().map_or_else(String::new, |end| format!("  [{end}]"));
        text.push_str(&format!("{indent}{} {name}{end}\n", key.0));
        for (deed, things) in &self.deeds {
            // What is out of scope is never cut away.
            let (out, within): (Vec<_>, Vec<_>) = things.iter().partition(|(_, thing)| thing.is_out_of_scope);
            let lines = out.iter().chain(within.iter().take(THINGS_SHOWN));
            for (at, (name, thing)) in lines.enumerate() {
                let label = if at == 0 { deed.as_str() } else { "" };
                let times = if thing.count > 1 { format!(" x{}", thing.count) } else { String::new() };
                let line = format!("{name}{times}");
                let line = if thing.is_out_of_scope {
                    palette.paint(Tone::Alarm, &format!("{line}  OUT OF SCOPE"))
                } else {
                    line
                };
                text.push_str(&format!("{indent}    {label:<9} {line}\n"));
            }
            let untold = within.len().saturating_sub(THINGS_SHOWN) as u64 + self.more.get(deed).copied().unwrap_or(0);
            if untold > 0 {
                text.push_str(&format!("{indent}    {:<9} and {}\n", "", counted(untold, "more", "more")));
            }
        }
    }
}

fn is_out_of_scope(draft: &Draft) -> bool {
    match draft.verdict {
        Verdict::OutOfScope | Verdict::Denied => true,
        Verdict::InScope | Verdict::None => false,
    }
}

/// What an entry tells of its process: what was done, to what.
fn deeds(draft: &Draft) -> Vec<(Deed, String)> {
    let text = |name: &str| draft.attributes.get(name).and_then(Value::as_str);
    if let Some(error) = text("error.type").filter(|error| *error != "EINPROGRESS") {
        return vec![(Deed::Tried, format!("{} {} = {}", printable(&draft.event), what(draft), printable(error)))];
    }
    let path = || printable(text("file.path").unwrap_or("?")).into_owned();
    match draft.event.as_str() {
        "process.exec" => vec![(Deed::Executed, command_line(&draft.attributes))],
        "network.connect" | "network.send" => vec![(Deed::Reached, address(&draft.attributes))],
        "unix.connect" => vec![(Deed::Reached, what(draft))],
        // Told of by the opens, and by counts.
        "file.io" | "file.map_exec" | "network.close" | "syscall.count" | "io_uring.submit" => Vec::new(),
        "file.open" | "file.create" => match text("bailiwick.file.access").unwrap_or_default() {
            "w" => vec![(Deed::Wrote, path())],
            "rw" => vec![(Deed::Read, path()), (Deed::Wrote, path())],
            "r" | "x" => vec![(Deed::Read, path())],
            _ => vec![(Deed::Did, format!("{} {}", printable(&draft.event), what(draft)))],
        },
        event if event.starts_with("file.") => {
            vec![(Deed::Changed, format!("{} {}", printable(event), what(draft)))]
        }
        event => vec![(Deed::Did, format!("{} {}", printable(event), what(draft)))],
    }
}

/// The parent that a `process.exit` names, where that belongs to the same session.
fn parent_of(draft: &Draft) -> Option<Key> {
    if draft.event != "process.exit" {
        return None;
    }
    let tgid = draft.attributes.get("process.parent_pid").and_then(Value::as_u64)?;
    let start = draft.attributes.get("bailiwick.process.parent_start_boot_ns").and_then(Value::as_str)?;
    Some((u32::try_from(tgid).ok()?, start.parse().ok()?))
}

fn violation(entry: &Entry) -> String {
    let draft = &entry.draft;
    let tgid = draft.process.as_ref().map_or_else(String::new, |process| format!("  by {}", process.tgid));
    let why = why(draft).map_or_else(String::new, |why| format!("  {why}"));
    let (event, uid) = (printable(&draft.event), printable(&entry.uid));
    format!("{event} {}{tgid}{why}  (explain: bailiwick explain {uid})", action(draft))
}

fn head(closing: &Closing, palette: Palette) -> String {
    let session = &closing.session;
    let agent = session.agent.as_deref().map_or("?".into(), printable);
    let mut text = palette.paint(Tone::Strong, &format!("session {} of {agent}", session.session)) + "\n";
    if let Some(principal) = &session.principal {
        text.push_str(&format!("  on behalf of  {}\n", principal_text(principal)));
    }
    let chain: Vec<String> =
        session.delegation.iter().map(|link| format!("{} {}", printable(&link.agent), link.session)).collect();
    if !chain.is_empty() {
        text.push_str(&format!("  delegated by  {}\n", chain.join(" > ")));
    }
    for link in &closing.delegated_to {
        text.push_str(&format!("  delegated to  {} {}\n", printable(&link.agent), link.session));
    }
    let started = session.started.map_or_else(|| "?".to_owned(), moment);
    text.push_str(&format!("  started       {started} UTC\n"));
    let ended = match (session.ended, session.alive) {
        (Some(time), _) => format!("{} UTC", moment(time)),
        (None, true) => "it lives".to_owned(),
        (None, false) => "its end was not seen".to_owned(),
    };
    text.push_str(&format!("  ended         {ended}\n"));
    text.push_str(&format!("  processes     {}\n", session.processes));
    text
}

/// How complete the story is. Violations are only ever denied together with what was lost and what cannot be seen.
pub fn statement(closing: &Closing, gaps: &[Gap]) -> Vec<String> {
    let session = &closing.session;
    let is_nothing_lost =
        session.lost == 0 && session.uncounted_gaps == 0 && gaps.is_empty() && closing.host_gaps.is_empty();
    let is_all_seen = closing.blind_spots.as_ref().is_some_and(Vec::is_empty);
    let so_far = if session.alive { " so far" } else { "" };
    let mut lines = vec![format!("{}{so_far}.", counted(session.entries, "entry", "entries"))];
    lines.push(if session.out_of_scope > 0 {
        format!("{} out of scope.", counted(session.out_of_scope, "entry is", "entries are"))
    } else if session.in_scope == 0 {
        "Nothing was judged: the agent has no scope, or did nothing that is judged.".to_owned()
    } else if is_nothing_lost && is_all_seen {
        "No violations, with nothing lost and no blind spots.".to_owned()
    } else {
        "No violations in what was seen; what was not seen follows.".to_owned()
    });
    if is_nothing_lost {
        lines.push("Nothing lost.".to_owned());
    } else {
        lines.push(format!("Lost: {}, as far as counted.", counted(session.lost, "action", "actions")));
        lines.extend(gaps.iter().map(|gap| format!("  {}", gap_text(gap))));
        let of_host = closing.host_gaps.iter();
        lines.extend(of_host.map(|gap| format!("  {} (of no known session: may be this one's)", gap_text(gap))));
    }
    match closing.blind_spots.as_deref() {
        None => lines.push("Blind spots: unknown, the trail does not hold the start of the sensor.".to_owned()),
        Some([]) => lines.push("No blind spots.".to_owned()),
        Some(spots) => {
            lines.push(format!("{}:", counted(spots.len() as u64, "blind spot", "blind spots")));
            lines.extend(spots.iter().map(|spot| format!("  {}", printable(spot))));
        }
    }
    lines
}

#[cfg(test)]
#[path = "story_tests.rs"]
mod tests;
