//! `bailiwick discover`: the agents that run on this host, declared or not, looked for once and without a daemon.
//!
//! Inputs: the configuration, with its catalogue; `/proc`. Outputs: text, JSON, or the declaration that one of them could
//! have. Refuses: to say that there is nothing where it could not look: processes that it may not see are counted.

use std::sync::Arc;

use super::args::{DiscoverArgs, Paths};
use super::line::moment;
use super::listing::optional;
use super::output::Output;
use super::text::{Palette, Tone, counted, printable, printable_start, table};
use super::{CliError, GOOD};
use crate::daemon::ConfigSource;
use crate::discover::{Claim, Discovered, Inventory, Proof, look};

/// Claims that are told of one by one.
const CLAIMS_TOLD: usize = 10;
/// How much of a piece of evidence stands in a line.
const MOST_SHOWN: usize = 120;

/// Looks, and prints what was found.
pub(super) fn discover(
    paths: &Paths,
    args: &DiscoverArgs,
    output: &mut Output<'_>,
    palette: Palette,
) -> Result<u8, CliError> {
    let config = Arc::new(ConfigSource::at(&paths.config_dir).load()?);
    let inventory = look(&config, true);
    match args.declaration {
        Some(tgid) => output.text(&declaration_of(&inventory, tgid)?)?,
        None if args.json => output.json(&inventory)?,
        None => output.text(&told(&inventory, palette))?,
    }
    Ok(GOOD)
}

fn declaration_of(inventory: &Inventory, tgid: u32) -> Result<String, CliError> {
    let Some(item) = inventory.items.iter().find(|item| item.process.tgid == tgid) else {
        let found: Vec<String> = inventory.items.iter().map(|item| item.process.tgid.to_string()).collect();
        let found =
            if found.is_empty() { "nothing was".to_owned() } else { format!("found were {}", found.join(", ")) };
        return Err(CliError::BadInput(format!("process {tgid} was not found to be an agent: {found}")));
    };
    match (&item.declaration, &item.declared_as) {
        (Some(declaration), _) => Ok(declaration.clone()),
        (None, declared_as) => {
            let agent = declared_as.as_deref().unwrap_or_default();
            Err(CliError::BadInput(format!("process {tgid} is declared already, as '{agent}'")))
        }
    }
}

fn told(inventory: &Inventory, palette: Palette) -> String {
    let mut text = String::new();
    if inventory.items.is_empty() {
        text.push_str(&format!("no agent was found among {}\n", counted(inventory.processes, "process", "processes")));
    } else {
        text.push_str(&found(&inventory.items.iter().collect::<Vec<_>>(), palette));
    }
    let undeclared: Vec<&Discovered> = inventory.items.iter().filter(|item| item.declared_as.is_none()).collect();
    if let Some(first) = undeclared.first() {
        let count = counted(undeclared.len() as u64, "is not declared", "are not declared");
        let line =
            format!("{count}; a declaration to begin with: bailiwick discover --declaration {}", first.process.tgid);
        text.push_str(&format!("\n{}\n", palette.paint(Tone::Caution, &line)));
    }
    text.push_str(&claims(&inventory.claims));
    if inventory.unseen > 0 {
        let unseen = counted(inventory.unseen, "process", "processes");
        let line = format!(
            "{unseen} could not be looked into: only root can look into all, and not where the kernel forbids it\n"
        );
        text.push_str(&palette.paint(Tone::Caution, &line));
    }
    text
}

/// What was found, a line each.
pub(super) fn found(items: &[&Discovered], palette: Palette) -> String {
    let rows: Vec<Vec<String>> = items.iter().map(|item| row(item)).collect();
    table(&["NAME", "KIND", "PROCESS", "SINCE (UTC)", "USER", "DECLARED AS", "FOUND BY"], &rows, palette)
}

/// By what something was found, in short.
fn found_by(item: &Discovered) -> String {
    let of = |kind: Proof| match kind {
        Proof::Executable => "executable",
        Proof::Script => "script",
        Proof::Module => "module",
        Proof::Connection => "connection to",
        Proof::Listening => "listening at",
        Proof::Environment => "marker",
    };
    let evidence = item.evidence.iter();
    let evidence = evidence.map(|one| format!("{} {} ({})", of(one.kind), one.what, one.because));
    evidence.collect::<Vec<_>>().join("; ")
}

fn row(item: &Discovered) -> Vec<String> {
    let declared = match (&item.declared_as, &item.inside) {
        (Some(agent), _) => printable(agent).into_owned(),
        (None, Some(inside)) => format!("NOT DECLARED, within {}", printable(inside)),
        (None, None) => "NOT DECLARED".to_owned(),
    };
    vec![
        printable(&item.name).into_owned(),
        item.kind.as_str().replace('_', " "),
        item.process.tgid.to_string(),
        moment(item.process.started),
        item.principal.user.as_deref().map_or_else(|| item.principal.uid.to_string(), |user| optional(Some(user))),
        declared,
        printable_start(&found_by(item), MOST_SHOWN),
    ]
}

fn claims(claims: &[Claim]) -> String {
    if claims.is_empty() {
        return String::new();
    }
    let mut text = String::from("\nMarked as an agent's children, and nothing else shows that they are:\n");
    for claim in claims.iter().take(CLAIMS_TOLD) {
        let executable = optional(claim.process.executable.as_deref());
        text.push_str(&format!("  {} {executable} ({}, {})\n", claim.process.tgid, claim.marker, claim.name));
    }
    if let Some(more @ 1..) = claims.len().checked_sub(CLAIMS_TOLD) {
        text.push_str(&format!("  and {more} more\n"));
    }
    text
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;
    use crate::discover::{Evidence, FoundProcess, Kind};
    use crate::entry::{Principal, Timestamp};

    fn item(declared_as: Option<&str>) -> Discovered {
        let process = FoundProcess { tgid: 7, started: Timestamp(0), executable: Some("/usr/bin/node".to_owned()) };
        let (kind, what) = (Proof::Script, "/opt/a\u{1b}[2J.js".to_owned());
        Discovered {
            name: "codex".to_owned(),
            kind: Kind::Agent,
            process,
            command: Vec::new(),
            principal: Principal { uid: 1000, ..Principal::default() },
            evidence: vec![Evidence { kind, what, because: "codex: npm @openai/codex".to_owned() }],
            declared_as: declared_as.map(str::to_owned),
            inside: None,
            declaration: declared_as.is_none().then(|| "[agent]\n".to_owned()),
        }
    }

    #[test]
    fn what_nothing_declares_is_told_with_the_command_that_helps() {
        let inventory = Inventory { items: vec![item(None)], processes: 1, ..Inventory::default() };
        let text = told(&inventory, Palette::PLAIN);
        assert!(text.contains("NOT DECLARED") && text.contains("bailiwick discover --declaration 7"), "{text}");
        assert!(text.contains("script /opt/a\\x1b[2J.js (codex: npm @openai/codex)"), "{text}");
        assert_eq!(declaration_of(&inventory, 7).unwrap(), "[agent]\n");
    }

    #[test]
    fn what_could_not_be_seen_is_told() {
        let inventory = Inventory { unseen: 3, processes: 9, ..Inventory::default() };
        let text = told(&inventory, Palette::PLAIN);
        assert_eq!(
            text,
            "no agent was found among 9 processes\n3 processes could not be looked into: only root can look into all, and not where the kernel forbids it\n"
        );
    }

    #[test]
    fn a_declaration_is_had_of_what_has_none_only() {
        let declared = Inventory { items: vec![item(Some("helper"))], ..Inventory::default() };
        let error = declaration_of(&declared, 7).unwrap_err().to_string();
        assert_eq!(error, "process 7 is declared already, as 'helper'");
        let error = declaration_of(&declared, 8).unwrap_err().to_string();
        assert_eq!(error, "process 8 was not found to be an agent: found were 7");
    }
}
