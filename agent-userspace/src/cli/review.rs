//! `bailiwick review`: what an agent was granted and did not use, and what it did without a grant.
//!
//! Inputs: an agent's name, the configuration, the trail. Outputs: text or JSON, or the narrower declaration as a diff; with
//! `--accept` an entry that says who reviewed. Refuses: to say "unused" without the time that was looked at and what is missing of it.

use std::time::Duration;

use super::args::{Paths, ReviewArgs};
use super::history::{self, Wanted};
use super::line::moment;
use super::output::Output;
use super::replay::{missing_text, unreadable};
use super::text::{Palette, Tone, counted, grouped, printable, table};
use super::{CliError, GOOD};
use crate::config::Config;
use crate::control::client::Client;
use crate::control::protocol::ReviewDone;
use crate::control::query::Filter;
use crate::control::{Request, Response};
use crate::daemon::ConfigSource;
use crate::entry::Timestamp;
use crate::observation::blind_spots;
use crate::review::agent::grants::Uses;
use crate::review::agent::narrow::{diff, narrowed};
use crate::review::agent::page::page;
use crate::review::agent::report::{GrantItem, Review, UsedGrant};
use crate::review::agent::{DECISION, Reviewing};

/// Rows of a table of the text.
const ROWS: usize = 25;
/// How long the daemon may take to write a decision.
const ACCEPT_PATIENCE: Duration = Duration::from_secs(15);

/// Reviews, and says what it came to.
pub(super) fn review(
    paths: &Paths,
    args: &ReviewArgs,
    client: &Client,
    output: &mut Output<'_>,
    palette: Palette,
) -> Result<u8, CliError> {
    let config = ConfigSource::at(&paths.config_dir).load()?;
    let review = read(paths, args, &config)?;
    if args.accept {
        return accept(client, &review, output);
    }
    if args.json {
        output.json(&review)?;
    } else if args.html {
        output.text(&page(&review, Timestamp::now()))?;
    } else if args.diff {
        output.text(review.diff.as_deref().unwrap_or_default())?;
    } else {
        output.text(&told(&review, palette))?;
    }
    Ok(GOOD)
}

fn read(paths: &Paths, args: &ReviewArgs, config: &Config) -> Result<Review, CliError> {
    let Some(declaration) = config.declaration(&args.agent) else {
        let known: Vec<&str> = config.declarations.iter().map(crate::config::Declaration::name).collect();
        let known = if known.is_empty() { "none is".to_owned() } else { known.join(", ") };
        return Err(CliError::BadInput(format!("no agent '{}' is declared; declared are: {known}", args.agent)));
    };
    let now = Timestamp::now();
    let mut reviewing = Reviewing::of(config, declaration);
    let agents = vec![args.agent.clone()];
    // Whatever time is looked at, who reviewed last may have been before.
    let events = vec![DECISION.to_owned(), "session.start".to_owned()];
    let before = Wanted { filters: vec![Filter { agents: agents.clone(), events, ..Filter::default() }], since: None };
    history::read(paths, args.offline, &before, |entry| {
        reviewing.look_back(entry);
        Ok(())
    })?;
    let own = Filter { agents: agents.clone(), ..Filter::default() };
    let delegates = Filter { delegators: agents, ..Filter::default() };
    let since = args.since.and_then(|since| since.time(now));
    let read = history::read(paths, args.offline, &Wanted::with_gaps(vec![own, delegates], since), |entry| {
        reviewing.add(entry);
        Ok(())
    })?;
    if read.unreadable > 0 {
        reviewing.add_missing(unreadable(read.unreadable));
    }
    let (mut review, unused) = reviewing.finish(now, blind_spots());
    if review.scoped
        && let Some(file) = review.declared_in.clone()
    {
        let text = super::learn::text_of(&file)?.unwrap_or_default();
        let after = narrowed(&text, &unused).map_err(|error| CliError::BadInput(format!("{file}: {error}")))?;
        review.diff = Some(diff(&file, &text, &after));
    }
    Ok(review)
}

fn accept(client: &Client, review: &Review, output: &mut Output<'_>) -> Result<u8, CliError> {
    let done = ReviewDone {
        agent: review.agent.clone(),
        declaration_sha256: review.declaration_sha256.clone(),
        from: review.from,
        to: review.to,
        sessions: review.sessions.len() as u64 + review.sessions_left_out,
        entries: review.completeness.entries,
        lost: review.completeness.lost,
        gaps: review.completeness.gaps.len() as u64 + review.completeness.gaps_left_out,
        granted_unused: review.granted_unused.len() as u64,
        used_not_granted: review.used_not_granted.len() as u64 + review.used_not_granted_left_out,
        findings: review.findings.iter().map(|finding| finding.uses.count).sum(),
    };
    let answer = client.ask(&Request::Review { done: Box::new(done) }, Some(ACCEPT_PATIENCE))?.only()?;
    let Response::Reviewed { uid } = answer else { return Err(super::commands::strange(&answer).into()) };
    output.text(&format!("the review of {} is recorded as {uid}\n", printable(&review.agent)))?;
    Ok(GOOD)
}

fn told(review: &Review, palette: Palette) -> String {
    let mut text = head(review, palette);
    if review.scoped {
        unused(review, palette, &mut text);
        not_granted(review, palette, &mut text);
        last_used(review, palette, &mut text);
    } else {
        text.push_str("\nit has no scope: nothing is judged. `bailiwick learn SESSION` proposes one\n");
    }
    things(review, palette, &mut text);
    text.push('\n');
    let completeness = &review.completeness;
    text.push_str(&missing_text(&completeness.gaps, completeness.gaps_left_out, palette));
    let spots = completeness.blind_spots.len() as u64;
    text.push_str(&format!("{} (see `bailiwick doctor`)\n", counted(spots, "blind spot", "blind spots")));
    if let Some(diff) = review.diff.as_deref().filter(|diff| !diff.is_empty()) {
        text.push_str(&palette.paint(Tone::Strong, "\nthe narrower scope"));
        let file = review.declared_in.as_deref().unwrap_or_default();
        let how = format!(" (`bailiwick review {} --diff | patch {}` applies it)\n", review.agent, printable(file));
        text.push_str(&how);
        diff.lines().for_each(|line| text.push_str(&format!("{}\n", printable(line))));
    }
    text
}

fn head(review: &Review, palette: Palette) -> String {
    let mut text = palette.paint(Tone::Strong, &review.agent) + "\n";
    let mut line = |name: &str, value: &str| text.push_str(&format!("  {name:<12} {value}\n"));
    line("owner", &review.owner.as_deref().map_or("nobody".into(), printable));
    if let Some(purpose) = &review.purpose {
        line("purpose", &printable(purpose));
    }
    match review.from.zip(review.to) {
        None => line("looked at", "nothing: it did nothing in that time"),
        Some((from, to)) => {
            let sessions = review.sessions.len() as u64 + review.sessions_left_out;
            let what = [
                counted(sessions, "session", "sessions"),
                counted(review.actions, "action", "actions"),
                counted(review.completeness.entries, "entry", "entries"),
                counted(review.completeness.lost, "action lost", "actions lost"),
            ];
            line("looked at", &format!("{} to {}: {}", moment(from), moment(to), what.join(", ")));
        }
    }
    match &review.last_review {
        None => line("last review", "none is recorded"),
        Some(last) => line("last review", &format!("{} by {} ({})", moment(last.time), printable(&last.by), last.uid)),
    }
    if let Some(due) = review.due {
        let is_over = if review.overdue { palette.paint(Tone::Alarm, "overdue since") } else { "due".to_owned() };
        line("next review", &format!("{is_over} {}", moment(due)));
    }
    text
}

fn place(grant: &GrantItem) -> String {
    format!("{}:{}", printable(&grant.file), grant.line)
}

fn section(title: &str, heads: &[&str], rows: &[Vec<String>], palette: Palette, text: &mut String) {
    if rows.is_empty() {
        return;
    }
    text.push_str(&format!("\n{}\n", palette.paint(Tone::Strong, title)));
    text.push_str(&table(heads, rows.get(..ROWS).unwrap_or(rows), palette));
    if rows.len() > ROWS {
        let more = (rows.len() - ROWS) as u64;
        text.push_str(&format!("and {} (--json has them)\n", counted(more, "more", "more")));
    }
}

fn unused(review: &Review, palette: Palette, text: &mut String) {
    let row = |grant: &GrantItem| vec![grant.grant.clone(), printable(&grant.text).into_owned(), place(grant)];
    let rows: Vec<_> = review.granted_unused.iter().map(row).collect();
    if rows.is_empty() {
        text.push_str("\nevery grant was used\n");
    }
    section("granted and not used", &["GRANT", "OF", "DECLARED IN"], &rows, palette, text);
}

fn not_granted(review: &Review, palette: Palette, text: &mut String) {
    let rows: Vec<_> = review
        .used_not_granted
        .iter()
        .map(|one| {
            let uses = &one.thing.uses;
            let last = uses.last.map(moment).unwrap_or_default();
            let uid = uses.uid.clone().unwrap_or_default();
            let whose = one.delegator.as_deref().map(|delegator| format!("scope of {}", printable(delegator)));
            let what = printable(&one.thing.what).into_owned();
            vec![one.thing.event.clone(), what, grouped(uses.count), last, uid, whose.unwrap_or_default()]
        })
        .collect();
    if rows.is_empty() {
        text.push_str("\nnothing was done without a grant\n");
    }
    let heads = ["EVENT", "OF", "TIMES", "LAST", "ENTRY", ""];
    section("done and not granted", &heads, &rows, palette, text);
}

fn last_used(review: &Review, palette: Palette, text: &mut String) {
    let mut used: Vec<&UsedGrant> = review.last_used.iter().filter(|used| !used.uses.is_none()).collect();
    used.sort_by_key(|used| std::cmp::Reverse(used.uses.last));
    let rows: Vec<_> = used
        .into_iter()
        .map(|used| {
            let last = used.uses.last.map(moment).unwrap_or_default();
            vec![used.grant.grant.clone(), printable(&used.grant.text).into_owned(), grouped(used.uses.count), last]
        })
        .collect();
    section("granted and used", &["GRANT", "OF", "TIMES", "LAST"], &rows, palette, text);
}

/// Privileges, resources, credentials, delegations and findings.
fn things(review: &Review, palette: Palette, text: &mut String) {
    let last = |uses: &Uses| uses.last.map_or("never".to_owned(), moment);
    let rows: Vec<_> = review
        .privileges
        .iter()
        .map(|used| {
            let granted = if used.granted { "granted" } else { "not granted" };
            vec![used.privilege.clone(), granted.to_owned(), grouped(used.uses.count), last(&used.uses)]
        })
        .collect();
    section("privileges", &["PRIVILEGE", "", "TIMES", "LAST"], &rows, palette, text);
    let named =
        |name: &str, of: String, uses: &Uses| vec![printable(name).into_owned(), of, grouped(uses.count), last(uses)];
    let rows: Vec<_> = review
        .resources
        .iter()
        .map(|one| vec![printable(&one.name).into_owned(), grouped(one.uses.count), last(&one.uses)])
        .collect();
    section("resources", &["RESOURCE", "TIMES", "LAST"], &rows, palette, text);
    let rows: Vec<_> = review
        .credentials
        .iter()
        .map(|one| named(&one.name, if one.declared { "declared" } else { "not declared" }.to_owned(), &one.uses))
        .collect();
    section("credentials", &["CREDENTIAL", "", "READ", "LAST"], &rows, palette, text);
    let rows: Vec<_> =
        review.delegations.iter().map(|one| named(&one.from, printable(&one.to).into_owned(), &one.uses)).collect();
    section("delegations", &["FROM", "TO", "TIMES", "LAST"], &rows, palette, text);
    let rows: Vec<_> = review
        .findings
        .iter()
        .map(|one| {
            vec![one.event.clone(), grouped(one.uses.count), last(&one.uses), one.uses.uid.clone().unwrap_or_default()]
        })
        .collect();
    section("findings", &["FINDING", "TIMES", "LAST", "ENTRY"], &rows, palette, text);
}
