//! The declaration that an undeclared agent could have: ready to be put into `agents.d`.
//!
//! Input: what was found. Output: TOML that `check` takes, and that recognises the process when it is started again the same
//! way. It grants nothing and has no `[scope]`: what the agent may do, its owner says, or `learn` shows. It names no owner,
//! since nobody is known to answer for it.

use super::identify::{Identified, Run};
use super::{Discovered, Kind, Seen};
use crate::attribute::procfs::ProcFs;
use crate::config::declaration::MAX_NAME_BYTES;
use crate::scope::glob::Glob;
use crate::scope::pattern::{PathPattern, literally};
use crate::scope::recorded::normalised;

/// The most arguments that a command line is recognised by.
const MOST_ARGUMENTS: usize = 4;

/// Writes it, under a name that none of `taken` is, which then is one of them.
pub(super) fn propose(
    item: &Discovered,
    seen: &Seen,
    identified: &Identified,
    proc: &ProcFs,
    taken: &mut Vec<String>,
) -> String {
    let name = name(&item.name, taken);
    let what = match item.kind {
        Kind::Agent => format!("The agent runtime {}", plain(&item.name)),
        Kind::ModelClient => format!("{}, which talks to a model server", plain(&item.name)),
        Kind::ModelServer => format!("The model server {}", plain(&item.name)),
    };
    let mut text = format!("# Found by discovery: process {}, started {}", item.process.tgid, item.process.started);
    if let Some(user) = &item.principal.user {
        text.push_str(&format!(" by {}", plain(user)));
    }
    text.push('\n');
    for evidence in &item.evidence {
        text.push_str(&format!("#   {} ({})\n", plain(&evidence.what), plain(&evidence.because)));
    }
    text.push_str(&format!("\n[agent]\nname = {}\n", quoted(&name)));
    text.push_str("# owner = \"team@example.com\"     # who answers for it\n");
    text.push_str(&format!("purpose = {}\nreview_every = \"90d\"\n\n[[recognise]]\n", quoted(&what)));
    text.push_str(&selectors(seen, identified, proc));
    text.push_str(
        "\n# Nothing that it does is judged before there is a [scope]: `bailiwick learn SESSION` writes one from what it \
         did.\n",
    );
    taken.push(name);
    text
}

/// What recognises the same again, narrowest first.
fn selectors(seen: &Seen, identified: &Identified, proc: &ProcFs) -> String {
    let executable = path("executable", &seen.executable);
    let by_user = format!("user = {}\n", seen.uid);
    let text = match &identified.run {
        // With its interpreter beside it, so that not every exec on the host waits to be decided on.
        Run::Script(script) => {
            path("script", &normalised(script)).map(|script| format!("{}{script}", executable.unwrap_or_default()))
        }
        Run::Module(module) => {
            executable.map(|executable| format!("{executable}argv = [\"-m\", {}]\n", quoted(&literally(module))))
        }
        Run::Image if identified.kind == Kind::Agent => executable,
        // Of what was found by a socket alone, the program may be anybody's: an interpreter, a shell.
        Run::Image => match unit(seen.tgid, proc) {
            Some(unit) => Some(format!("unit = {}\n", quoted(&literally(&unit)))),
            None => executable.map(|executable| executable + &arguments(seen)),
        },
    };
    // Of what has no text of its own only the user is left.
    text.unwrap_or(by_user)
}

/// A selector of a path, where a pattern can name that.
fn path(key: &str, path: &[u8]) -> Option<String> {
    let pattern = literally(std::str::from_utf8(path).ok()?);
    PathPattern::parse(&pattern).ok()?;
    Some(format!("{key} = {}\n", quoted(&pattern)))
}

/// What tells a command line from others of the same program: its first arguments, and its user where these say little.
fn arguments(seen: &Seen) -> String {
    let usable = |argument: &Vec<u8>| {
        let text = literally(std::str::from_utf8(argument).ok()?);
        let fits = !text.is_empty() && !text.contains(char::is_control) && Glob::parse(&text).is_ok();
        fits.then_some(text)
    };
    let arguments: Vec<String> = seen.arguments.iter().skip(1).map_while(usable).take(MOST_ARGUMENTS).collect();
    let says_little = arguments.iter().all(|argument| argument.starts_with('-'));
    let quoted: Vec<String> = arguments.iter().map(|argument| quoted(argument)).collect();
    let argv = if quoted.is_empty() { String::new() } else { format!("argv = [{}]\n", quoted.join(", ")) };
    if says_little { format!("{argv}user = {}\n", seen.uid) } else { argv }
}

/// The service that a process belongs to.
fn unit(tgid: u32, proc: &ProcFs) -> Option<String> {
    let cgroup = proc.cgroup(tgid)?;
    cgroup.rsplit('/').find(|part| part.len() > ".service".len() && part.ends_with(".service")).map(str::to_owned)
}

/// A name that a declaration can have and none has yet.
fn name(wanted: &str, taken: &[String]) -> String {
    let allowed =
        |one: char| if one.is_ascii_alphanumeric() || "._-".contains(one) { one.to_ascii_lowercase() } else { '-' };
    let name: String = wanted.chars().map(allowed).take(MAX_NAME_BYTES - 8).collect();
    let name = name.trim_start_matches(['.', '_', '-']);
    let name = if name.is_empty() { "agent" } else { name };
    let numbered = (2..).map(|number| format!("{name}-{number}"));
    let mut names = std::iter::once(name.to_owned()).chain(numbered);
    names.find(|name| !taken.contains(name)).unwrap_or_else(|| name.to_owned())
}

/// A text for a comment, or within a sentence: on one line, and nothing but characters that are seen.
fn plain(text: &str) -> String {
    text.chars().map(|one| if one.is_control() { '?' } else { one }).collect()
}

fn quoted(text: &str) -> String {
    toml::Value::from(text).to_string()
}
