//! The commands that ask the daemon and print its answer.
//!
//! Inputs: parsed arguments, a client. Outputs: text or JSON; the exit code. Refuses: answers that are not to the question.

use std::thread::sleep;
use std::time::{Duration, Instant};

use super::args::{
    ChainArgs, CredentialsArgs, ExplainArgs, JsonArgs, SessionsArgs, ShowArgs, StatusArgs, SyncArgs, TailArgs,
};
use super::line::Lines;
use super::listing;
use super::output::{Output, Waited};
use super::story::Story;
use super::text::{Palette, counted, printable};
use super::{CliError, GOOD, NO};
use crate::control::client::{Answer, Client, ClientError};
use crate::control::protocol::Since;
use crate::control::report::Status;
use crate::control::{Request, Response};
use crate::entry::Timestamp;

/// How long a report may take: the daemon has it at hand.
const REPORT_PATIENCE: Duration = Duration::from_secs(10);

/// How long reading the configuration again may take.
const RELOAD_PATIENCE: Duration = Duration::from_secs(60);

/// What is given to a sync beyond the time it waits.
const SYNC_GRACE: Duration = Duration::from_secs(5);

/// How often `status --wait` asks.
const STATUS_EVERY: Duration = Duration::from_millis(100);

/// Asks for a report of one line, and takes it out of the response.
macro_rules! report {
    ($client:expr, $request:expr, $patience:expr, $variant:path) => {{
        match $client.ask(&$request, Some($patience))?.only()? {
            $variant(report) => report,
            other => return Err(strange(&other).into()),
        }
    }};
}

pub(super) fn strange(response: &Response) -> ClientError {
    let problem = format!("an answer to another question: {response:?}").chars().take(200).collect();
    ClientError::Unreadable { socket: "control.sock".into(), problem }
}

pub(super) fn tail(
    client: &Client,
    args: &TailArgs,
    output: &mut Output<'_>,
    palette: Palette,
) -> Result<u8, CliError> {
    let now = Timestamp::now();
    let since = args.since.map_or(Since::Now, |beginning| beginning.since(now));
    let request = Request::Tail { filter: args.filter(now), since, follow: !args.no_follow };
    let mut answer = client.ask(&request, None)?;
    let mut lines = Lines::new(palette, now);
    loop {
        if answer.is_drained() {
            output.flush()?;
            match output.wait(&answer, None)? {
                Waited::ReaderLeft => return Ok(GOOD),
                Waited::TimedOut => continue,
                Waited::Readable => {}
            }
        }
        match answer.next().transpose()? {
            None => return Ok(GOOD),
            Some(Response::Entry(entry)) if args.json => output.json(&entry)?,
            Some(Response::Entry(entry)) => output.text(&lines.line(&entry))?,
            Some(other) => return Err(strange(&other).into()),
        }
    }
}

pub(super) fn agents(
    client: &Client,
    args: JsonArgs,
    output: &mut Output<'_>,
    palette: Palette,
) -> Result<u8, CliError> {
    let agents = report!(client, Request::Agents {}, REPORT_PATIENCE, Response::Agents);
    if args.json {
        output.json(&agents)?
    } else {
        output.text(&listing::agents(&agents.items, Timestamp::now(), palette))?
    }
    Ok(GOOD)
}

pub(super) fn credentials(
    client: &Client,
    args: CredentialsArgs,
    output: &mut Output<'_>,
    palette: Palette,
) -> Result<u8, CliError> {
    if args.catalogue {
        output.text(crate::config::well_known::SHIPPED.1)?;
        return Ok(GOOD);
    }
    let map = report!(client, Request::Credentials {}, REPORT_PATIENCE, Response::Credentials);
    if args.json {
        output.json(&map)?
    } else {
        output.text(&super::credentials::credentials(&map, palette))?
    }
    Ok(GOOD)
}

pub(super) fn sessions(
    client: &Client,
    args: &SessionsArgs,
    output: &mut Output<'_>,
    palette: Palette,
) -> Result<u8, CliError> {
    let request = Request::Sessions { filter: args.filter(Timestamp::now()) };
    // No limit: it reads the whole trail.
    let sessions = match client.ask(&request, None)?.only()? {
        Response::Sessions(sessions) => sessions,
        other => return Err(strange(&other).into()),
    };
    if args.json {
        output.json(&sessions)?
    } else {
        output.text(&listing::sessions(&sessions.items, palette))?
    }
    Ok(GOOD)
}

pub(super) fn show(
    client: &Client,
    args: &ShowArgs,
    output: &mut Output<'_>,
    palette: Palette,
) -> Result<u8, CliError> {
    let mut answer: Answer = {
        let filter = args.filter(Timestamp::now());
        client.ask(&Request::Show { session: args.session.clone(), filter }, None)?
    };
    let mut story = Story::default();
    while let Some(response) = answer.next().transpose()? {
        match response {
            Response::Entry(entry) if args.json => output.json(&entry)?,
            Response::Entry(entry) => story.add(&entry),
            Response::Closing(closing) if !args.json => output.text(&story.tell(&closing, palette))?,
            Response::Closing(_) => {}
            other => return Err(strange(&other).into()),
        }
    }
    Ok(GOOD)
}

pub(super) fn chain(
    client: &Client,
    args: &ChainArgs,
    output: &mut Output<'_>,
    palette: Palette,
) -> Result<u8, CliError> {
    // No limit: it reads the whole trail.
    let links = match client.ask(&Request::Chain { session: args.session.clone() }, None)?.only()? {
        Response::Chain(links) => links,
        other => return Err(strange(&other).into()),
    };
    if args.json {
        output.json(&links)?
    } else {
        output.text(&super::chain::chain(&links.items, palette))?
    }
    Ok(GOOD)
}

pub(super) fn explain(
    client: &Client,
    args: &ExplainArgs,
    output: &mut Output<'_>,
    palette: Palette,
) -> Result<u8, CliError> {
    let request = Request::Explain { uid: args.uid.clone() };
    let explained = report!(client, request, REPORT_PATIENCE, Response::Explained);
    if args.json {
        output.json(&explained)?
    } else {
        output.text(&listing::explanation(&explained, palette))?
    }
    Ok(GOOD)
}

pub(super) fn sync(client: &Client, args: SyncArgs, output: &mut Output<'_>) -> Result<u8, CliError> {
    let wait_ms = u64::try_from(args.wait.as_millis()).unwrap_or(u64::MAX);
    let request = Request::Sync { exported: args.exported, wait_ms };
    let synced = report!(client, request, args.wait.saturating_add(SYNC_GRACE), Response::Synced);
    if args.json {
        output.json(&synced)?
    }
    Ok(GOOD)
}

pub(super) fn doctor(
    client: &Client,
    args: JsonArgs,
    output: &mut Output<'_>,
    palette: Palette,
) -> Result<u8, CliError> {
    let doctor = report!(client, Request::Doctor {}, REPORT_PATIENCE, Response::Doctor);
    if args.json {
        output.json(&doctor)?
    } else {
        output.text(&listing::doctor(&doctor, palette))?
    }
    Ok(GOOD)
}

pub(super) fn status(
    client: &Client,
    args: StatusArgs,
    output: &mut Output<'_>,
    palette: Palette,
) -> Result<u8, CliError> {
    let status = match args.wait {
        None => status_now(client, REPORT_PATIENCE)?,
        Some(wait) => ready_within(client, wait)?,
    };
    if args.json {
        output.json(&status)?
    } else {
        output.text(&listing::status(&status, palette))?
    }
    Ok(if status.healthy { GOOD } else { NO })
}

fn status_now(client: &Client, patience: Duration) -> Result<Status, CliError> {
    Ok(report!(client, Request::Status {}, patience, Response::Status))
}

/// Asks until the daemon is there and ready. Of what may pass (no daemon yet, one that is just starting or ending), the last
/// is the error.
fn ready_within(client: &Client, wait: Duration) -> Result<Status, CliError> {
    let began = Instant::now();
    loop {
        // A daemon that hangs must not make the wait longer; a moment is given to it even at the end.
        let patience = wait.saturating_sub(began.elapsed()).clamp(STATUS_EVERY, REPORT_PATIENCE);
        let error = match status_now(client, patience) {
            Ok(status) if status.ready => return Ok(status),
            Ok(status) => CliError::NotReady { waited: wait, reasons: status.reasons },
            Err(error) if error.exit_code() == super::NO_DAEMON => error,
            Err(error) => return Err(error),
        };
        let left = wait.saturating_sub(began.elapsed());
        if left.is_zero() {
            return Err(error);
        }
        sleep(STATUS_EVERY.min(left));
    }
}

pub(super) fn reload(client: &Client, args: JsonArgs, output: &mut Output<'_>) -> Result<u8, CliError> {
    let reloaded = report!(client, Request::Reload {}, RELOAD_PATIENCE, Response::Reloaded);
    if args.json {
        output.json(&reloaded)?;
        return Ok(GOOD);
    }
    output.text(&format!("in force: {}\n", counted(reloaded.agents, "declared agent", "declared agents")))?;
    for warning in &reloaded.warnings {
        output.text(&format!("warning: {}\n", printable(warning)))?;
    }
    Ok(GOOD)
}

#[cfg(test)]
#[path = "command_tests.rs"]
mod tests;
