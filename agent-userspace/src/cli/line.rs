//! An entry as one line for a person.
//!
//! Inputs: entries, in the order of the trail. Outputs: lines, aligned with those before. Pure.
//! Refuses: strings of agents as they are: all go through [`printable`].

use serde_json::{Map, Value};

use super::deed;
use super::text::{Palette, Tone, counted, grouped, printable, printable_start};
use crate::entry::{Confidence, Draft, Entry, Gap, Method, Principal, ReasonKind, Timestamp, Verdict};
use crate::finding::{CAUSES, REPEATS, TEXT};
use crate::resource::named_in;

/// Columns do not grow beyond this, so that one long name does not push all lines to the right.
const MAX_COLUMN: usize = 24;

/// A command line, and a value that this version does not know, are shown to this length.
const MAX_SHOWN: usize = 160;

/// Writes entries as lines.
#[derive(Debug)]
pub struct Lines {
    palette: Palette,
    day: String,
    agent_width: usize,
    uid_width: usize,
}

impl Lines {
    /// Lines that begin today: an entry of another day gets a line with the day before it.
    pub fn new(palette: Palette, now: Timestamp) -> Self {
        Self { palette, day: day_of(now), agent_width: 6, uid_width: 13 }
    }

    /// The entry's line, with its end.
    pub fn line(&mut self, entry: &Entry) -> String {
        let draft = &entry.draft;
        let mut text = self.day_line(draft.time);
        let agent = draft.agent.as_deref().map_or("-".into(), printable);
        self.agent_width = self.agent_width.max(agent.chars().count().min(MAX_COLUMN));
        self.uid_width = self.uid_width.max(entry.uid.len().min(MAX_COLUMN));
        let (agent_width, uid_width) = (self.agent_width, self.uid_width);
        let uid = printable(&entry.uid);
        let time = self.palette.paint(Tone::Quiet, &clock(draft.time));
        text.push_str(&format!(
            "{time} {} {agent:<agent_width$} {uid:<uid_width$} {:<15} {}",
            self.mark(draft),
            printable(&draft.event),
            action(draft),
        ));
        if let Some(by) = by(draft) {
            text.push_str(&format!("  by {by}"));
        }
        if let Some(why) = why(draft) {
            text.push_str(&format!("  {}", self.palette.paint(Tone::Strong, &why)));
        }
        if matches!(draft.verdict, Verdict::OutOfScope | Verdict::Denied) {
            text.push_str(&format!("  (explain: bailiwick explain {uid})"));
        }
        text.push('\n');
        text
    }

    fn day_line(&mut self, time: Timestamp) -> String {
        let day = day_of(time);
        if day == self.day {
            return String::new();
        }
        self.day = day;
        self.palette.paint(Tone::Quiet, &format!("-- {} UTC --", self.day)) + "\n"
    }

    fn mark(&self, draft: &Draft) -> String {
        if draft.gap.is_some() || draft.event == "gap" {
            return self.palette.paint(Tone::Caution, "GAP ");
        }
        match draft.verdict {
            Verdict::InScope => "ok  ".to_owned(),
            Verdict::OutOfScope => self.palette.paint(Tone::Alarm, "OUT "),
            Verdict::Denied => self.palette.paint(Tone::Alarm, "DENY"),
            Verdict::None if draft.event.starts_with("finding.") => self.palette.paint(Tone::Alarm, "FIND"),
            Verdict::None => self.palette.paint(Tone::Quiet, "-   "),
        }
    }
}

/// The day in UTC.
fn day_of(time: Timestamp) -> String {
    time.to_string().chars().take(10).collect()
}

/// The time of day in UTC, to the millisecond.
fn clock(time: Timestamp) -> String {
    time.to_string().chars().skip(11).take(12).collect()
}

/// Day and time to the second, UTC.
pub fn moment(time: Timestamp) -> String {
    let text: String = time.to_string().chars().take(19).collect();
    text.replace('T', " ")
}

fn by(draft: &Draft) -> Option<String> {
    let process = draft.process.as_ref()?;
    let name = process.executable.as_deref().map_or("?", |path| path.rsplit('/').next().unwrap_or(path));
    Some(format!("{}[{}]", printable(name), process.tgid))
}

/// Why it is out of scope; an action in scope needs no words.
pub fn why(draft: &Draft) -> Option<String> {
    match draft.verdict {
        Verdict::InScope | Verdict::None => return None,
        Verdict::OutOfScope | Verdict::Denied => {}
    }
    let Some(reason) = &draft.reason else { return Some("no reason is recorded".to_owned()) };
    let text = match &reason.delegator {
        Some(delegator) => format!("{} (of its delegator {})", printable(&reason.text), printable(delegator)).into(),
        None => printable(&reason.text),
    };
    Some(match reason.kind {
        ReasonKind::Grant => format!("granted by: {text}"),
        ReasonKind::Rule => format!("forbidden by: {text}"),
        ReasonKind::Nearest if text.is_empty() => "nearest: no grant of this kind".to_owned(),
        ReasonKind::Nearest => format!("nearest: {text}"),
    })
}

/// What was done, how often, and how it failed: the event's own part of the line.
pub fn action(draft: &Draft) -> String {
    let mut text = what(draft);
    text.push_str(&resources(&draft.attributes));
    if draft.count > 1 {
        text.push_str(&format!(" x{}", grouped(draft.count)));
    }
    if let Some(error) = string(&draft.attributes, "error.type") {
        text.push_str(&format!(" = {}", printable(error)));
    }
    text
}

/// The names of the resources that an entry is about, in brackets; empty where there are none.
pub(super) fn resources(attributes: &Map<String, Value>) -> String {
    let names: Vec<_> = named_in(attributes).map(printable).collect();
    if names.is_empty() { String::new() } else { format!(" [{}]", names.join(", ")) }
}

/// What was done, or tried.
pub fn what(draft: &Draft) -> String {
    if let Some(gap) = &draft.gap {
        return gap_text(gap);
    }
    let attributes = &draft.attributes;
    match draft.event.as_str() {
        "process.exec" => command_line(attributes),
        "process.fork" => format!("child {}", shown(attributes, "bailiwick.child.tgid")),
        "process.exit" => exit_text(attributes),
        "session.start" | "delegation.start" => session_start(draft),
        "session.end" => session_end(attributes),
        "sensor.start" => sensor_start(attributes),
        "unix.connect" => deed::unix(attributes),
        "fd.receive" => deed::file(attributes),
        "credential.read" => deed::credential(attributes),
        event if event.starts_with("finding.") => finding(attributes),
        event if event.starts_with("network.") => deed::address(attributes),
        event if event.starts_with("file.") => deed::file(attributes),
        event if event.starts_with("privilege.") => deed::privilege(attributes),
        _ => others(attributes),
    }
}

pub(super) fn string<'a>(attributes: &'a Map<String, Value>, name: &str) -> Option<&'a str> {
    attributes.get(name).and_then(Value::as_str)
}

/// What was found, how often, and the entries that it follows from.
fn finding(attributes: &Map<String, Value>) -> String {
    let mut text = string(attributes, TEXT).map_or("?".into(), printable).into_owned();
    if let Some(repeats) = attributes.get(REPEATS).and_then(Value::as_u64) {
        text.push_str(&format!(" x{}", grouped(repeats)));
    }
    let causes = shown(attributes, CAUSES);
    if !causes.is_empty() && causes != "?" {
        text.push_str(&format!("  (from {causes})"));
    }
    text
}

/// An attribute as text, `?` where there is none.
pub(super) fn shown(attributes: &Map<String, Value>, name: &str) -> String {
    attributes.get(name).map_or_else(|| "?".to_owned(), value_text)
}

fn value_text(value: &Value) -> String {
    match value {
        Value::String(text) => printable_start(text, MAX_SHOWN),
        Value::Array(values) => {
            let texts: Vec<String> = values.iter().take(32).map(value_text).collect();
            texts.join(", ")
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::Object(_) => {
            printable_start(&value.to_string(), MAX_SHOWN)
        }
    }
}

/// What was executed: the command line where it is known, else the path.
pub fn command_line(attributes: &Map<String, Value>) -> String {
    let path = string(attributes, "process.executable.path").or_else(|| string(attributes, "bailiwick.exec.given"));
    let args = attributes.get("process.command_args").and_then(Value::as_array);
    let Some(args) = args.filter(|args| !args.is_empty()) else {
        return path.map_or("?".into(), printable).into_owned();
    };
    let words: Vec<String> = args.iter().filter_map(Value::as_str).map(quoted).collect();
    let mut text = printable_start(&words.join(" "), MAX_SHOWN);
    if let Some(path) = path
        && args.first().and_then(Value::as_str) != Some(path)
    {
        text = format!("{} ({text})", printable(path));
    }
    text
}

/// A word as a shell would take it, where it has blanks or quotes.
pub(super) fn quoted(word: &str) -> String {
    let is_plain = !word.is_empty() && word.chars().all(|c| !c.is_whitespace() && !"'\"\\$`;&|<>()*?#~".contains(c));
    if is_plain { word.to_owned() } else { format!("'{}'", word.replace('\'', "'\\''")) }
}

/// How a process ended.
pub fn exit_text(attributes: &Map<String, Value>) -> String {
    match attributes.get("bailiwick.exit.signal") {
        Some(signal) => format!("signal {}", value_text(signal)),
        None => format!("code {}", shown(attributes, "process.exit.code")),
    }
}

fn session_start(draft: &Draft) -> String {
    let by_run = draft.attribution.is_some_and(|attribution| attribution.method == Method::Run);
    let mut text = match by_run.then(|| after_run(&draft.attributes)).flatten() {
        Some(command) => command,
        None => command_line(&draft.attributes),
    };
    if let Some(principal) = &draft.principal {
        text.push_str(&format!("  for {}", principal_text(principal)));
    }
    if let Some(delegator) = draft.delegation.last() {
        text.push_str(&format!("  delegated by {} {}", printable(&delegator.agent), delegator.session));
    }
    if draft.attributes.get("bailiwick.session.adopted") == Some(&Value::Bool(true)) {
        text.push_str("  (it ran before the daemon)");
    }
    text
}

/// The command that `bailiwick run` was given. The session begins with the process that is to become it, and whose command
/// line is still that of `run` itself.
fn after_run(attributes: &Map<String, Value>) -> Option<String> {
    let args = attributes.get("process.command_args").and_then(Value::as_array)?;
    let words: Vec<String> =
        args.iter().filter_map(Value::as_str).skip_while(|word| *word != "--").skip(1).map(quoted).collect();
    (!words.is_empty()).then(|| printable_start(&words.join(" "), MAX_SHOWN))
}

fn session_end(attributes: &Map<String, Value>) -> String {
    let parts =
        [("processes", "processes"), ("entries", "entries"), ("out of scope", "out_of_scope"), ("lost", "lost")];
    let texts: Vec<String> = parts
        .into_iter()
        .map(|(words, name)| format!("{words} {}", shown(attributes, &format!("bailiwick.session.{name}"))))
        .collect();
    texts.join(", ")
}

/// What is attached, and how much cannot be seen. Which that is fills pages: the line names the command that shows them.
fn sensor_start(attributes: &Map<String, Value>) -> String {
    let texts = |name: &str| {
        let values = attributes.get(name).and_then(Value::as_array);
        values.into_iter().flatten().filter_map(Value::as_str)
    };
    let mut hooks: Vec<&str> = Vec::new();
    // One field may name two hooks, each with what it is there for.
    for hook in texts("bailiwick.sensor.hooks").flat_map(|hooks| hooks.split("; ")) {
        let hook = hook.rsplit(['/', ' ']).next().unwrap_or(hook);
        if !hooks.contains(&hook) {
            hooks.push(hook);
        }
    }
    let spots = texts("bailiwick.sensor.blind_spots").count();
    let spots = counted(u64::try_from(spots).unwrap_or(u64::MAX), "blind spot", "blind spots");
    let hooks = printable_start(&hooks.join(", "), MAX_SHOWN);
    format!("tier {}: {hooks}; {spots} (see: bailiwick doctor)", shown(attributes, "bailiwick.sensor.tier"))
}

fn others(attributes: &Map<String, Value>) -> String {
    let texts: Vec<String> = attributes
        .iter()
        .filter(|(name, _)| *name != "error.type")
        .take(8)
        .map(|(name, value)| {
            let name = name.rsplit('.').next().unwrap_or(name);
            format!("{}={}", printable(name), value_text(value))
        })
        .collect();
    texts.join(" ")
}

/// What a gap says.
pub fn gap_text(gap: &Gap) -> String {
    let lost = match gap.lost {
        Some(lost) => format!("lost {} of {}", counted(lost, "action", "actions"), printable(&gap.kind)),
        None => format!("nobody counted {}", printable(&gap.kind)),
    };
    format!("{lost} from {} to {}: {}", clock(gap.from), clock(gap.to), printable(&gap.reason))
}

/// On whose behalf.
pub fn principal_text(principal: &Principal) -> String {
    let user =
        principal.user.as_deref().map_or_else(|| format!("uid {}", principal.uid), |user| printable(user).into());
    let asked = principal.asked_by.as_ref().map(|asker| match &asker.user {
        Some(name) => format!(", asked by {}", printable(name)),
        None => format!(", asked by uid {}", asker.uid),
    });
    let from = principal.ssh.as_deref().map(|peer| format!(" from {}", printable(peer)));
    let via = principal.via.as_deref().map(|via| format!(" via {}", printable(via)));
    [Some(user), via, from, asked].into_iter().flatten().collect()
}

/// How an action was attributed, in words.
pub fn method_text(method: Method) -> &'static str {
    match method {
        Method::Run => "started by `bailiwick run`",
        Method::Executable => "its executable",
        Method::Script => "its script",
        Method::Argv => "its command line",
        Method::Environment => "its environment",
        Method::User => "its user",
        Method::Cgroup => "its control group",
        Method::Unit => "its systemd unit",
        Method::Inherited => "descent from a process of the session",
    }
}

/// How sure an attribution is, in words.
pub fn confidence_text(confidence: Confidence) -> &'static str {
    match confidence {
        Confidence::Claimed => "claimed: the process says so itself",
        Confidence::Probable => "probable: a script that was named to an interpreter",
        Confidence::Certain => "certain",
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::control::testing::{NOON, entry};
    use crate::entry::Attribution;

    fn line(entry: &Entry) -> String {
        Lines::new(Palette::PLAIN, Timestamp(NOON)).line(entry)
    }

    #[test]
    fn an_open_out_of_scope_names_the_nearest_grants_and_ends_with_the_command_that_explains_it() {
        let opened = entry(42, "file.open")
            .agent("demo", 1)
            .process(1234, "/bin/cat")
            .path("r", "/tmp/x")
            .nearest("/tmp/bailiwick-demo/**");
        assert_eq!(
            line(&opened.build()),
            "12:03:04.165 OUT  demo   5f3a91c2-42   file.open       r /tmp/x  by cat[1234]  \
             nearest: /tmp/bailiwick-demo/**  (explain: bailiwick explain 5f3a91c2-42)\n"
        );
    }

    #[test]
    fn lines_stay_aligned_after_a_longer_name() {
        let mut lines = Lines::new(Palette::PLAIN, Timestamp(NOON));
        lines.line(&entry(1, "file.open").agent("code-assistant", 1).path("r", "/x").build());
        let short = lines.line(&entry(2, "file.open").agent("demo", 2).path("r", "/x").build());
        assert!(short.starts_with("12:03:04.125 -    demo           5f3a91c2-2    file.open"), "{short}");
    }

    #[test]
    fn no_string_of_an_agent_reaches_the_terminal_raw() {
        let evil = "\u{1b}[2J\u{202e}\n";
        let entries = [
            entry(1, "file.open").agent(evil, 1).process(1, evil).path(evil, evil).nearest(evil),
            entry(2, "process.exec").agent("a", 1).with("process.command_args", json!([evil, evil])),
            entry(3, "process.exec").agent("a", 1).with("bailiwick.exec.given", json!(evil)),
            entry(4, "network.connect").agent("a", 1).with("server.address", json!(evil)),
            entry(5, "finding.new").agent("a", 1).with(evil, json!({ evil: [evil] })),
            entry(6, evil).agent("a", 1).with("x", json!([evil])).with("error.type", json!(evil)),
            entry(7, "session.start").agent("a", 1).delegated_by(evil, 2),
            entry(8, "process.exit").agent("a", 1).with("process.exit.code", json!(evil)),
        ];
        for hostile in entries {
            let text = line(&hostile.build());
            let body = text.strip_suffix('\n').unwrap_or(&text);
            assert!(!body.chars().any(|c| c.is_control() || c == '\u{202e}'), "{text:?}");
        }
    }

    fn said(builder: crate::control::testing::Builder) -> String {
        action(&builder.build().draft)
    }

    #[test]
    fn each_kind_of_action_says_what_was_done() {
        let exec = entry(1, "process.exec")
            .with("process.executable.path", json!("/usr/bin/git"))
            .with("process.command_args", json!(["git", "commit", "-m", "it's done"]));
        assert_eq!(said(exec), "/usr/bin/git (git commit -m 'it'\\''s done')");
        assert_eq!(said(entry(1, "process.exit").with("bailiwick.exit.signal", json!(9))), "signal 9");
        assert_eq!(said(entry(1, "process.exit").with("process.exit.code", json!(3))), "code 3");
        let connect = entry(1, "network.connect")
            .with("server.address", json!("::1"))
            .with("server.port", json!(443))
            .with("network.transport", json!("tcp"))
            .with("error.type", json!("ECONNREFUSED"));
        assert_eq!(said(connect), "tcp [::1]:443 = ECONNREFUSED");
        assert_eq!(said(entry(1, "file.open").path("r", "/x").count(1000)), "r /x x1,000");
        let gap = entry(5, "gap").gap(Some(12), 1, 5);
        assert_eq!(said(gap), "lost 12 actions of file.open from 12:03:04.124 to 12:03:04.128: the ring was full");
        let unseen = entry(5, "gap").gap(None, 1, 5);
        assert!(said(unseen).starts_with("nobody counted file.open from"));
        assert_eq!(said(entry(1, "process.fork").with("bailiwick.child.tgid", json!(7))), "child 7");
    }

    #[test]
    fn a_session_that_run_starts_begins_with_the_command_and_not_with_ours() {
        let mut start = entry(1, "session.start")
            .with("process.executable.path", json!("/usr/bin/bailiwick"))
            .with("process.command_args", json!(["bailiwick", "run", "--agent", "a", "--", "sh", "-c", "a -- b"]))
            .build();
        start.draft.attribution = Some(Attribution { method: Method::Run, confidence: Confidence::Certain });
        assert_eq!(what(&start.draft), "sh -c 'a -- b'");
    }

    #[test]
    fn the_sensors_start_is_one_short_line_that_names_where_the_rest_stands() {
        let start = entry(1, "sensor.start")
            .with("bailiwick.sensor.tier", json!(2))
            .with(
                "bailiwick.sensor.hooks",
                json!(["tp_btf/fork", "tp_btf/exec; failed ones tp_btf/sys_exit", "tp_btf/sys_exit"]),
            )
            .with("bailiwick.sensor.blind_spots", json!(["file.open: one", "file.open: two"]))
            .with("bailiwick.config.hash", json!("00ff"));
        assert_eq!(said(start), "tier 2: fork, exec, sys_exit; 2 blind spots (see: bailiwick doctor)");
    }

    #[test]
    fn an_entry_of_another_day_gets_a_line_with_the_day() {
        let mut lines = Lines::new(Palette::PLAIN, Timestamp(NOON + 86_400_000_000_000));
        let first = lines.line(&entry(1, "sensor.start").build());
        assert!(first.starts_with("-- 2026-01-31 UTC --\n12:03:04.124 "), "{first}");
        assert!(lines.line(&entry(2, "sensor.start").build()).starts_with("12:03:04.125 "));
    }

    #[test]
    fn out_of_scope_is_red_and_a_gap_yellow_where_colours_are_on() {
        let coloured = |entry: &Entry| Lines::new(Palette::COLOURED, Timestamp(NOON)).line(entry);
        assert!(coloured(&entry(1, "file.open").nearest("/x").build()).contains("\u{1b}[31;1mOUT "));
        assert!(coloured(&entry(1, "gap").gap(None, 1, 2).build()).contains("\u{1b}[33mGAP "));
    }
}
