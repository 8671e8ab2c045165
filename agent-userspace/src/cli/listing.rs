//! Reports as text: status, doctor, agents, sessions, and the explanation of an entry.
//!
//! Inputs: the reports of `control::report`. Outputs: text. Pure. Refuses: strings of agents and declarations as they are.

use super::line::{action, confidence_text, method_text, moment, principal_text};
use super::text::{Palette, Tone, counted, grouped, printable, table};
use crate::control::report::{AgentItem, Doctor, Explained, ExportWay, SessionItem, Status};
use crate::discover::Discovered;
use crate::entry::{Entry, Reason, ReasonKind, SessionId, Timestamp, Verdict};

/// `bailiwick status`.
pub(super) fn status(status: &Status, palette: Palette) -> String {
    let mut text = match (status.healthy, status.ready) {
        (false, _) => palette.paint(Tone::Alarm, "unhealthy"),
        (true, false) => palette.paint(Tone::Caution, "starting"),
        (true, true) => palette.paint(Tone::Strong, "healthy"),
    };
    text.push('\n');
    for reason in &status.reasons {
        text.push_str(&format!("  {}\n", printable(reason)));
    }
    text.push_str(&format!("trail        {}\n", counted(status.trail.entries, "entry", "entries")));
    text.push_str(&format!("lost         {}\n", counted(status.lost, "action", "actions")));
    match &status.blind_spots[..] {
        [] => text.push_str("blind spots  none\n"),
        spots => {
            text.push_str(&format!("blind spots  {} (see `bailiwick doctor`)\n", spots.len()));
            for spot in spots {
                text.push_str(&format!("  {}\n", printable(spot)));
            }
        }
    }
    if let Some(address) = status.metrics {
        text.push_str(&format!("metrics      http://{address}/metrics\n"));
    }
    if status.export.is_empty() {
        text.push_str("export       nothing is exported\n");
        return text;
    }
    let rows: Vec<Vec<String>> = status
        .export
        .iter()
        .map(|export| {
            vec![
                printable(&export.target).into_owned(),
                printable(&export.signal).into_owned(),
                grouped(export.acknowledged),
                grouped(export.pending),
                grouped(export.rejected),
                export.last_success.map_or_else(|| "-".to_owned(), moment),
            ]
        })
        .collect();
    text.push('\n');
    text.push_str(&table(&EXPORT_HEADINGS, &rows, palette));
    text
}

const EXPORT_HEADINGS: [&str; 6] = ["EXPORT TO", "SIGNAL", "ACKNOWLEDGED", "PENDING", "REFUSED", "LAST SUCCESS (UTC)"];

/// `bailiwick doctor`.
pub(super) fn doctor(doctor: &Doctor, palette: Palette) -> String {
    let mut text = palette.paint(Tone::Strong, &format!("tier {}", doctor.tier)) + "\n\n";
    let rows: Vec<Vec<String>> = doctor
        .observations
        .iter()
        .map(|seen| {
            let guarantee =
                if seen.working { seen.guarantee.as_str() } else { "NOT WORKING: it saw nothing when it was tried" };
            [seen.event.as_str(), &seen.hook, guarantee].map(|cell| printable(cell).into_owned()).to_vec()
        })
        .collect();
    text.push_str(&table(&["EVENT", "HOOK", "WHAT IT GUARANTEES"], &rows, palette));
    text.push_str(&palette.paint(Tone::Strong, "\nblind spots\n"));
    let spots = doctor.blind_spots();
    if spots.is_empty() {
        text.push_str("  none\n");
    }
    for spot in spots {
        let of: Vec<&str> = doctor
            .observations
            .iter()
            .filter(|seen| seen.blind_spots.iter().any(|other| other == spot))
            .map(|seen| seen.event.as_str())
            .collect();
        let of = if of.is_empty() { String::new() } else { format!(" ({})", printable(&of.join(", "))) };
        text.push_str(&format!("  {}{of}\n", palette.paint(Tone::Caution, &printable(spot))));
    }
    text.push_str(&export(&doctor.export, palette));
    text
}

/// How entries get to each target, and what is wrong with that.
fn export(ways: &[ExportWay], palette: Palette) -> String {
    if ways.is_empty() {
        return palette.paint(Tone::Strong, "\nexport\n") + "  nothing is exported\n";
    }
    let row = |way: &ExportWay| {
        let mut how = vec![way.protocol.clone()];
        how.extend((way.compression != "none").then(|| way.compression.clone()));
        how.extend(way.proxy.as_ref().map(|proxy| format!("through {proxy}")));
        how.extend(way.ca_file.as_ref().map(|file| format!("trusts {file}")));
        how.extend(way.certificate_file.as_ref().map(|file| format!("shows {file}")));
        how.extend(way.headers_file.as_ref().map(|file| format!("headers of {file}")));
        let state = way.error.as_ref().map_or_else(|| "well".to_owned(), |error| format!("WAITS: {error}"));
        [way.target.as_str(), &way.signal, &way.endpoint, &how.join(", "), &state]
            .map(|cell| printable(cell).into_owned())
            .to_vec()
    };
    let rows: Vec<Vec<String>> = ways.iter().map(row).collect();
    "\n".to_owned() + &table(&["EXPORT TO", "SIGNAL", "ENDPOINT", "HOW", "STATE"], &rows, palette)
}

/// `bailiwick agents`.
pub(super) fn agents(agents: &[AgentItem], now: Timestamp, palette: Palette) -> String {
    let rows: Vec<Vec<String>> =
        agents.iter().filter(|agent| agent.declared).map(|agent| agent_row(agent, now)).collect();
    let heads =
        ["AGENT", "OWNER", "LAST SEEN (UTC)", "SESSIONS", "LIVE SESSIONS", "REVIEW DUE (UTC)", "SCOPE", "PURPOSE"];
    let mut text = match rows.is_empty() {
        true => "no agent is declared: declarations stand in agents.d of the configuration's directory\n".to_owned(),
        false => table(&heads, &rows, palette),
    };
    let found: Vec<&Discovered> = agents.iter().filter_map(|agent| agent.found.as_ref()).collect();
    if !found.is_empty() {
        text.push_str("\nFound on this host, and not declared:\n");
        text.push_str(&super::discover::found(&found, palette));
    }
    text
}

fn agent_row(agent: &AgentItem, now: Timestamp) -> Vec<String> {
    let due = agent.review_due.map(|due| match due <= now {
        true => format!("OVERDUE since {}", moment(due)),
        false => moment(due),
    });
    vec![
        printable(&agent.agent).into_owned(),
        optional(agent.owner.as_deref()),
        agent.last_seen.map_or_else(|| "never".to_owned(), moment),
        grouped(agent.sessions_total),
        match &agent.sessions[..] {
            [] => "-".to_owned(),
            ids => ids.iter().map(SessionId::to_string).collect::<Vec<_>>().join(" "),
        },
        due.unwrap_or_else(|| "-".to_owned()),
        if agent.unscoped { "UNSCOPED: nothing is judged" } else { "declared" }.to_owned(),
        optional(agent.purpose.as_deref()),
    ]
}

/// `bailiwick sessions`.
pub(super) fn sessions(sessions: &[SessionItem], palette: Palette) -> String {
    if sessions.is_empty() {
        return "no session stands in the trail yet\n".to_owned();
    }
    let rows: Vec<Vec<String>> = sessions
        .iter()
        .map(|session| {
            let lost = match (session.lost, session.uncounted_gaps) {
                (lost, 0) => grouped(lost),
                (lost, gaps) => format!("{} + {}", grouped(lost), counted(gaps, "uncounted gap", "uncounted gaps")),
            };
            vec![
                session.session.to_string(),
                optional(session.agent.as_deref()),
                session.principal.as_ref().map_or_else(|| "-".to_owned(), principal_text),
                session.started.map_or_else(|| "-".to_owned(), moment),
                match (session.ended, session.alive) {
                    (Some(time), _) => moment(time),
                    (None, true) => "alive".to_owned(),
                    (None, false) => "end not seen".to_owned(),
                },
                grouped(session.processes),
                grouped(session.entries),
                grouped(session.out_of_scope),
                lost,
            ]
        })
        .collect();
    let heads =
        ["SESSION", "AGENT", "PRINCIPAL", "STARTED (UTC)", "ENDED", "PROCESSES", "ENTRIES", "OUT OF SCOPE", "LOST"];
    table(&heads, &rows, palette)
}

pub(super) fn optional(text: Option<&str>) -> String {
    text.map_or_else(|| "-".to_owned(), |text| printable(text).into_owned())
}

/// `bailiwick explain`.
pub(super) fn explanation(explained: &Explained, palette: Palette) -> String {
    let entry = &explained.entry;
    let draft = &entry.draft;
    let mut text = palette.paint(Tone::Strong, &printable(&entry.uid)) + "\n";
    let mut row = |name: &str, values: &[String]| {
        for (at, value) in values.iter().enumerate() {
            let name = if at == 0 { name } else { "" };
            text.push_str(&format!("  {name:<13} {value}\n"));
        }
    };
    row("action", &[format!("{} {}", printable(&draft.event), action(draft))]);
    row("time", &[time_text(draft.time)]);
    if let Some(process) = &draft.process {
        let executable = process.executable.as_deref().map_or("?".into(), printable);
        row("by", &[format!("{executable}, process {}, thread {}", process.tgid, process.tid)]);
    }
    if let (Some(agent), Some(session)) = (&draft.agent, draft.session) {
        row("session", &[format!("{session} of {}", printable(agent))]);
    }
    if let Some(principal) = &draft.principal {
        row("on behalf of", &[principal_text(principal)]);
    }
    row("attributed by", &attribution(explained));
    let chain: Vec<String> =
        draft.delegation.iter().map(|link| format!("{} {}", printable(&link.agent), link.session)).collect();
    if !chain.is_empty() {
        row("delegated by", &[chain.join(" > ")]);
    }
    row("verdict", &verdict(entry, palette));
    let lines = |lines: &[String]| lines.iter().map(|line| printable(line).into_owned()).collect::<Vec<_>>();
    row("tried", &lines(&explained.explanation.tried));
    row("would allow", &lines(&explained.explanation.would_allow));
    text
}

fn time_text(time: Timestamp) -> String {
    format!("{time} (UTC)")
}

fn attribution(explained: &Explained) -> Vec<String> {
    let first = match explained.entry.draft.attribution {
        Some(by) => format!("{} ({})", method_text(by.method), confidence_text(by.confidence)),
        None => "nothing: it belongs to no session".to_owned(),
    };
    let more = explained.explanation.attribution.iter().map(|line| printable(line).into_owned());
    std::iter::once(first).chain(more).collect()
}

fn verdict(entry: &Entry, palette: Palette) -> Vec<String> {
    let draft = &entry.draft;
    let verdict = match draft.verdict {
        Verdict::InScope => "in scope".to_owned(),
        Verdict::OutOfScope => palette.paint(Tone::Alarm, "out of scope"),
        Verdict::Denied => palette.paint(Tone::Alarm, "denied: Bailiwick refused it"),
        Verdict::None => "none: it is not judged, or the agent has no scope".to_owned(),
    };
    let reason = draft.reason.as_ref().map(reason_text);
    std::iter::once(verdict).chain(reason).collect()
}

fn reason_text(reason: &Reason) -> String {
    let text = printable(&reason.text);
    let said = match reason.kind {
        ReasonKind::Grant => format!("granted by {text}"),
        ReasonKind::Rule => format!("forbidden by {text}"),
        ReasonKind::Nearest if text.is_empty() => "no grant of this kind is declared".to_owned(),
        ReasonKind::Nearest => format!("no grant covers it; the nearest: {text}"),
    };
    let whose = reason
        .delegator
        .as_deref()
        .map_or_else(String::new, |agent| format!(", by the scope of its delegator {}", printable(agent)));
    match (&reason.file, reason.line) {
        (Some(file), Some(line)) => format!("{said} ({}:{line}){whose}", printable(file)),
        (Some(file), None) => format!("{said} ({}){whose}", printable(file)),
        (None, _) => format!("{said}{whose}"),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::control::report::{Explanation, ExportStatus, Observation, TrailStatus};
    use crate::control::testing::{entry, time_of};

    fn a_status() -> Status {
        let export = ExportStatus {
            target: "otlp".into(),
            signal: "logs".into(),
            acknowledged: 1042,
            pending: 3,
            last_success: Some(time_of(0)),
            ..ExportStatus::default()
        };
        Status {
            healthy: false,
            reasons: vec!["the collector \u{1b}[2J does not answer".into()],
            trail: TrailStatus { entries: 1045 },
            lost: 2,
            records: 5000,
            blind_spots: vec!["io_uring".into()],
            export: vec![export],
            ready: true,
            metrics: Some(([127, 0, 0, 1], 9464).into()),
        }
    }

    #[test]
    fn status_says_what_is_wrong_and_how_far_the_export_is() {
        assert_eq!(
            status(&a_status(), Palette::PLAIN),
            "unhealthy\n  the collector \\x1b[2J does not answer\ntrail        1,045 entries\nlost         2 actions\n\
             blind spots  1 (see `bailiwick doctor`)\n  io_uring\nmetrics      http://127.0.0.1:9464/metrics\n\n\
             EXPORT TO  SIGNAL  ACKNOWLEDGED  PENDING  REFUSED  LAST SUCCESS (UTC)\n\
             otlp       logs    1,042         3        0        2026-01-31 12:03:04\n"
        );
    }

    #[test]
    fn the_json_of_status_has_the_fields_of_the_contract() {
        let json = serde_json::to_value(a_status()).unwrap_or_default();
        assert_eq!(json["trail"]["entries"], 1045);
        assert_eq!(json["healthy"], false);
        assert_eq!((&json["lost"], &json["metrics"]), (&json!(2), &json!("127.0.0.1:9464")));
        assert_eq!(json["blind_spots"], json!(["io_uring"]));
        let export = json!({"target": "otlp", "signal": "logs", "acknowledged": 1042, "pending": 3, "dead_lettered": 0,
            "rejected": 0, "sent": 0, "retried": 0, "last_success": time_of(0).to_string(), "oldest": null, "error": null});
        assert_eq!(json["export"], json!([export]));
    }

    #[test]
    fn doctor_names_hooks_and_every_blind_spot_once_with_its_events() {
        let seen = |event: &str| Observation {
            working: true,
            event: event.into(),
            hook: "tp_btf/sys_exit".into(),
            guarantee: "all".into(),
            blind_spots: vec!["io_uring".into()],
        };
        let report = Doctor {
            tier: 2,
            observations: vec![seen("file.open"), seen("network.connect")],
            unobserved: "DNS".into(),
            export: vec![ExportWay {
                target: "backup".into(),
                signal: "logs".into(),
                endpoint: "https://c:4317/".into(),
                protocol: "grpc".into(),
                compression: "zstd".into(),
                proxy: Some("p:3128".into()),
                error: Some("Unauthenticated: no".into()),
                ..ExportWay::default()
            }],
        };
        let text = doctor(&report, Palette::PLAIN);
        assert!(text.starts_with("tier 2\n\nEVENT"), "{text}");
        assert!(text.contains("file.open        tp_btf/sys_exit  all\n"), "{text}");
        assert!(text.contains("\nblind spots\n  io_uring (file.open, network.connect)\n  DNS\n"), "{text}");
        let export = "backup     logs    https://c:4317/  grpc, zstd, through p:3128  WAITS: Unauthenticated: no\n";
        assert!(text.ends_with(export), "{text}");
    }

    #[test]
    fn an_unscoped_agent_is_marked() {
        let agent = AgentItem {
            agent: "demo\u{7}".into(),
            declared: true,
            purpose: Some("Shows".into()),
            last_seen: Some(time_of(0)),
            sessions: vec![SessionId(1)],
            sessions_total: 1_234,
            unscoped: true,
            ..AgentItem::default()
        };
        let text = agents(&[agent], time_of(0), Palette::PLAIN);
        let row: Vec<_> = text.lines().nth(1).unwrap_or_default().split("  ").filter(|cell| !cell.is_empty()).collect();
        let last_seen = "2026-01-31 12:03:04";
        let cells =
            ["demo\\x07", "-", last_seen, "1,234", "0000000000000001", "-", "UNSCOPED: nothing is judged", "Shows"];
        assert_eq!(row.iter().map(|cell| cell.trim()).collect::<Vec<_>>(), cells);
    }

    #[test]
    fn a_review_is_due_from_the_last_one_on_or_from_the_first_session() {
        const DAY: u64 = 86_400;
        let at = |day: u64| Timestamp(day * DAY * 1_000_000_000);
        let mut agent = AgentItem {
            agent: "demo".into(),
            declared: true,
            review_every_seconds: Some(10 * DAY),
            ..AgentItem::default()
        };
        assert!(agents(&[agent.clone()], at(100), Palette::PLAIN).contains("never"), "what never ran needs no review");
        let session = |day| SessionItem {
            started: Some(at(day)),
            ..crate::control::sessions::Tally::of(SessionId(day)).finish(false)
        };
        agent.add_session(&session(7));
        agent.add_session(&session(3));
        assert_eq!((agent.review_due, agent.last_seen, agent.sessions_total), (Some(at(13)), Some(at(7)), 2));
        assert!(agents(&[agent.clone()], at(13), Palette::PLAIN).contains("OVERDUE since 1970-01-14"));
        agent.add_review(at(12));
        agent.add_session(&session(20));
        assert_eq!(agent.review_due, Some(at(22)));
        assert!(!agents(&[agent], at(21), Palette::PLAIN).contains("OVERDUE"));
    }

    #[test]
    fn an_explanation_says_who_how_why_and_what_would_have_allowed_it() {
        let opened = entry(42, "file.open").agent("demo", 1).process(7, "/bin/cat").path("r", "/x").nearest("/tmp/**");
        let explained = Explained {
            entry: opened.delegated_by("lead", 2).build(),
            explanation: Explanation {
                attribution: vec!["process 5 was started by run".into()],
                tried: vec!["read /tmp/** does not cover it".into()],
                would_allow: vec!["[scope.files] read = [\"/x\"]".into()],
            },
        };
        assert_eq!(
            explanation(&explained, Palette::PLAIN),
            "5f3a91c2-42\n\
             \x20 action        file.open r /x\n\
             \x20 time          2026-01-31T12:03:04.165000000Z (UTC)\n\
             \x20 by            /bin/cat, process 7, thread 7\n\
             \x20 session       0000000000000001 of demo\n\
             \x20 on behalf of  alice via run\n\
             \x20 attributed by started by `bailiwick run` (certain)\n\
             \x20               process 5 was started by run\n\
             \x20 delegated by  lead 0000000000000002\n\
             \x20 verdict       out of scope\n\
             \x20               no grant covers it; the nearest: /tmp/** (/etc/bailiwick/agents.d/demo.toml:9)\n\
             \x20 tried         read /tmp/** does not cover it\n\
             \x20 would allow   [scope.files] read = [\"/x\"]\n"
        );
    }
}
