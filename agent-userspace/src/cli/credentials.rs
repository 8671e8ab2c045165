//! `bailiwick credentials`: who reads which credential, and which credentials an agent reads.
//!
//! Inputs: the map. Outputs: text. Pure. Refuses: strings of agents and declarations as they are.

use super::line::moment;
use super::text::{Palette, Tone, counted, grouped, printable, table};
use crate::credential::map::{AgentCredentials, CredentialItem, CredentialMap};
use crate::credential::rotation::State;
use crate::entry::Timestamp;

/// The whole text.
pub(super) fn credentials(map: &CredentialMap, palette: Palette) -> String {
    if map.items.is_empty() {
        return "no credential is declared, and none that is well known was read: [[credential]] of a declaration names \
                them\n"
            .to_owned();
    }
    let mut text = palette.paint(Tone::Strong, "credentials") + "\n";
    map.items.iter().for_each(|item| text.push_str(&credential(item, palette)));
    text.push_str(&format!("\n{}\n", palette.paint(Tone::Strong, "agents")));
    map.agents.iter().for_each(|agent| text.push_str(&of_agent(agent, palette)));
    if map.forgotten > 0 {
        let reads = counted(map.forgotten, "read is", "reads are");
        text.push_str(&palette.paint(Tone::Caution, &format!("\n{reads} not in this map, for want of room\n")));
    }
    text
}

fn credential(item: &CredentialItem, palette: Palette) -> String {
    let by = if item.declared_by.is_empty() {
        palette.paint(Tone::Alarm, "declared by nobody")
    } else {
        format!("declared by {}", printable(&item.declared_by.join(", ")))
    };
    let mut text = format!("{}  {by}\n", palette.paint(Tone::Strong, &printable(&item.name)));
    for place in &item.places {
        let exposed = place.exposed_mode.as_ref().map(|mode| {
            palette.paint(Tone::Alarm, &format!("  (mode {}: others than its owner may read it)", printable(mode)))
        });
        let (means, at) = (printable(&place.means), printable(&place.place));
        text.push_str(&format!("  {means:<12} {at}{}\n", exposed.unwrap_or_default()));
    }
    text.push_str(&format!("  {:<12} {}\n", "rotation", rotation(item, palette)));
    if item.readers.is_empty() {
        text.push_str(&format!("  {:<12} nobody yet\n", "read by"));
    }
    for (at, reader) in item.readers.iter().enumerate() {
        let undeclared = if item.declared_by.contains(&reader.agent) {
            String::new()
        } else {
            palette.paint(Tone::Alarm, "  does not declare it")
        };
        let label = if at == 0 { "read by" } else { "" };
        let times = if reader.reads > 1 { format!(" x{}", grouped(reader.reads)) } else { String::new() };
        let by = reader.last_process.as_ref().map_or_else(String::new, |process| {
            let executable = process.executable.as_deref().unwrap_or("?");
            format!(" by {}[{}]", printable(executable), process.tgid)
        });
        let last = moment(reader.last);
        let (agent, uid) = (printable(&reader.agent), printable(&reader.last_uid));
        text.push_str(&format!("  {label:<12} {agent}{times}, last {last}{by} ({uid}){undeclared}\n"));
    }
    text
}

fn rotation(item: &CredentialItem, palette: Palette) -> String {
    let rotation = &item.rotation;
    let at = |time: Option<Timestamp>| time.map_or_else(|| "?".to_owned(), moment);
    let changed = at(rotation.last_changed);
    match rotation.state {
        State::Fresh => format!("last changed {changed}, due {}", at(rotation.due)),
        State::Overdue => {
            palette.paint(Tone::Alarm, &format!("OVERDUE: last changed {changed}, was due {}", at(rotation.due)))
        }
        State::Unscheduled => format!("last changed {changed}; no `rotate_every` is declared"),
        State::Unknown => {
            let why = rotation.why.as_deref().map_or_else(String::new, |why| format!(": {}", printable(why)));
            format!("unknown{why}")
        }
    }
}

fn of_agent(agent: &AgentCredentials, palette: Palette) -> String {
    let rows: Vec<Vec<String>> = agent
        .credentials
        .iter()
        .map(|credential| {
            vec![
                printable(&credential.name).into_owned(),
                printable(&credential.place).into_owned(),
                if credential.declared { "yes" } else { "NO" }.to_owned(),
                grouped(credential.reads),
                credential.last.map_or_else(|| "never".to_owned(), moment),
                match credential.rotation {
                    State::Fresh => "fresh",
                    State::Overdue => "OVERDUE",
                    State::Unscheduled => "unscheduled",
                    State::Unknown => "unknown",
                }
                .to_owned(),
            ]
        })
        .collect();
    let head = ["CREDENTIAL", "PLACE", "DECLARED", "READS", "LAST", "ROTATION"];
    let name = palette.paint(Tone::Strong, &printable(&agent.agent));
    format!("{name}\n{}", table(&head, &rows, palette))
}
