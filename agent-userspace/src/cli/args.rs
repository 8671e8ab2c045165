//! The command line's words, parsed once into what the rest works with.
//!
//! Inputs: arguments and `BAILIWICK_*` variables. Outputs: typed commands. Refuses, with exit code 2: what is no duration,
//! time, session, verdict or size of a ring.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};

use crate::control::protocol::Since;
use crate::control::query::Filter;
use crate::entry::{Timestamp, Verdict};

/// Where the control socket is unless another place is named.
pub const DEFAULT_RUNTIME_DIR: &str = "/run/bailiwick";

/// The least that a ring can be: a page.
const MIN_RING_BYTES: u32 = 4096;

/// Watches what AI agents do on this host, at the kernel, and judges it against what they were declared to be allowed.
#[derive(Debug, Parser)]
#[command(name = "bailiwick", version, arg_required_else_help = true, after_help = EXIT_CODES)]
pub struct Cli {
    /// Where this instance's things are.
    #[command(flatten)]
    pub paths: Paths,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

const EXIT_CODES: &str = "Exit codes: 0 good; 1 the answer is no; 2 bad input; 69 no daemon; 77 too little privilege.\n\
                          `bailiwick run` exits as its command does, 128 + n for signal n.";

/// Where an instance's things are. Two instances that share none of these do not touch each other.
#[derive(Clone, Debug, PartialEq, Eq, Args)]
pub struct Paths {
    /// Configuration: bailiwick.toml, agents.d, grants.d
    #[arg(long, global = true, env = "BAILIWICK_CONFIG_DIR", default_value = "/etc/bailiwick", value_name = "DIR")]
    pub config_dir: PathBuf,
    /// Trail, cursors, keys
    #[arg(long, global = true, env = "BAILIWICK_STATE_DIR", default_value = "/var/lib/bailiwick", value_name = "DIR")]
    pub state_dir: PathBuf,
    /// Control socket, lock
    #[arg(long, global = true, env = "BAILIWICK_RUNTIME_DIR", default_value = DEFAULT_RUNTIME_DIR, value_name = "DIR")]
    pub runtime_dir: PathBuf,
    /// Pinned maps and links; on a bpffs
    #[arg(long, global = true, env = "BAILIWICK_PIN_DIR", default_value = "/sys/fs/bpf/bailiwick", value_name = "DIR")]
    pub pin_dir: PathBuf,
    /// The cgroup below which the daemon may make its own
    #[arg(long, global = true, env = "BAILIWICK_CGROUP", value_name = "DIR")]
    pub cgroup: Option<PathBuf>,
    /// Size of a ring: a power of two, at least a page
    #[arg(long, global = true, env = "BAILIWICK_RING_BYTES", value_parser = ring_bytes, value_name = "BYTES")]
    pub ring_bytes: Option<u32>,
}

impl Paths {
    /// The options that name the same instance to another process.
    pub fn options(&self) -> Vec<OsString> {
        let mut options: Vec<OsString> = Vec::new();
        let directories = [
            ("--config-dir", Some(&self.config_dir)),
            ("--state-dir", Some(&self.state_dir)),
            ("--runtime-dir", Some(&self.runtime_dir)),
            ("--pin-dir", Some(&self.pin_dir)),
            ("--cgroup", self.cgroup.as_ref()),
        ];
        for (name, directory) in directories {
            if let Some(directory) = directory {
                options.extend([name.into(), directory.into()]);
            }
        }
        if let Some(bytes) = self.ring_bytes {
            options.extend(["--ring-bytes".into(), bytes.to_string().into()]);
        }
        options
    }
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the daemon, in the foreground
    Daemon,
    /// Run the daemon and show what is worth a person's attention; with --agent, start a command too
    Live(LiveArgs),
    /// Say what is wrong with declarations, or which of their grants decides; needs no daemon and no privilege
    Check(CheckArgs),
    /// Start a command as a declared agent, watched from its first instruction on
    Run(RunArgs),
    /// Print entries from now on, and follow
    Tail(TailArgs),
    /// List the declared agents
    Agents(JsonArgs),
    /// Look once for agents that run on this host, declared or not; needs no daemon
    Discover(DiscoverArgs),
    /// Say which agent reads which credential, and when each must be changed
    Credentials(CredentialsArgs),
    /// List the sessions in the trail
    Sessions(SessionsArgs),
    /// Tell one session's story: what it ran, read, wrote, reached, delegated
    Show(ShowArgs),
    /// Draw who delegated to whom, with what was done at each link
    Chain(ChainArgs),
    /// Say why an entry has its verdict, and what would have allowed it
    Explain(ExplainArgs),
    /// Wait until everything the kernel did before now is durable in the trail
    Sync(SyncArgs),
    /// Say for each event how it is observed on this kernel, and what is not seen
    Doctor(JsonArgs),
    /// Say whether the daemon is well
    Status(StatusArgs),
    /// Say whether the trail is whole, and up to where a checkpoint vouches for it; needs no daemon
    Verify(VerifyArgs),
    /// Write the narrow declaration that covers what sessions did; needs no daemon where the state directory can be read
    Learn(LearnArgs),
    /// Judge recorded history by a proposed declaration; needs no daemon where the state directory can be read
    Replay(ReplayArgs),
    /// Say what an agent was granted and did not use, and what it did without a grant
    Review(ReviewArgs),
    /// Read the declarations again
    Reload(JsonArgs),
}

/// A report that can be had as JSON.
#[derive(Clone, Copy, Debug, Args)]
pub struct JsonArgs {
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// `bailiwick discover`.
#[derive(Clone, Copy, Debug, Args)]
pub struct DiscoverArgs {
    /// Print JSON
    #[arg(long)]
    pub json: bool,
    /// Print a declaration for this undeclared process, as `bailiwick discover` lists it
    #[arg(long, conflicts_with = "json", value_name = "PROCESS")]
    pub declaration: Option<u32>,
}

/// `bailiwick run`.
#[derive(Clone, Debug, Args)]
pub struct RunArgs {
    /// The declared agent that the command is
    #[arg(long, value_name = "NAME")]
    pub agent: String,
    /// The command and its arguments
    #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true, value_name = "COMMAND")]
    pub command: Vec<OsString>,
}

/// Which entries, for every command that reads the trail.
#[derive(Clone, Debug, Default, Args)]
pub struct FilterArgs {
    /// Only this agent's
    #[arg(long, value_name = "NAME")]
    pub agent: Vec<String>,
    /// Only what was delegated by this agent, or session (its id, or the first digits of it), at any depth
    #[arg(long, value_name = "NAME|ID")]
    pub delegation: Vec<String>,
    /// Only this event, or family of events: file.open, 'file.*'
    #[arg(long, value_name = "EVENT")]
    pub event: Vec<String>,
    /// Only with this verdict: in_scope, out_of_scope, denied, none
    #[arg(long, value_parser = verdict, value_name = "VERDICT")]
    pub verdict: Vec<Verdict>,
    /// Only about this path and what lies below, or about paths of this pattern (*, **, ?)
    #[arg(long, value_name = "PATH")]
    pub path: Vec<String>,
    /// Only about this address: 10.0.0.5, 10.0.0.5:5432, 10.0.0.0/8, ::1
    #[arg(long, value_parser = address, value_name = "ADDRESS")]
    pub address: Vec<String>,
    /// End there: a time (2026-01-31T12:00:00Z), or so long ago (10m)
    #[arg(long, value_parser = since, value_name = "TIME")]
    pub until: Option<Beginning>,
}

impl FilterArgs {
    /// The filter as the daemon takes it.
    pub fn filter(&self, now: Timestamp) -> Filter {
        let absolute = |path: &String| {
            if path.starts_with(['/', '*']) {
                return path.clone();
            }
            std::path::absolute(path).map_or_else(|_| path.clone(), |full| full.to_string_lossy().into_owned())
        };
        Filter {
            agents: self.agent.clone(),
            sessions: Vec::new(),
            delegators: self.delegation.clone(),
            events: self.event.clone(),
            verdicts: self.verdict.clone(),
            paths: self.path.iter().map(absolute).collect(),
            addresses: self.address.clone(),
            since: None,
            until: self.until.and_then(|until| until.time(now)),
        }
    }
}

/// `bailiwick tail`.
#[derive(Clone, Debug, Args)]
pub struct TailArgs {
    /// Which entries.
    #[command(flatten)]
    pub which: FilterArgs,
    /// Only this session's: its id, or the first digits of it
    #[arg(long, value_parser = session_prefix, value_name = "ID")]
    pub session: Vec<String>,
    /// Begin there: start, a time (2026-01-31T12:00:00Z), or so long ago (10m)
    #[arg(long, value_parser = since, value_name = "TIME")]
    pub since: Option<Beginning>,
    /// End with the last entry there is
    #[arg(long)]
    pub no_follow: bool,
    /// Print the entries themselves, as JSON Lines
    #[arg(long)]
    pub json: bool,
}

impl TailArgs {
    /// The filter as the daemon takes it.
    pub fn filter(&self, now: Timestamp) -> Filter {
        Filter { sessions: self.session.clone(), ..self.which.filter(now) }
    }
}

/// `bailiwick sessions`: those of which an entry matches.
#[derive(Clone, Debug, Args)]
pub struct SessionsArgs {
    /// Which entries.
    #[command(flatten)]
    pub which: FilterArgs,
    /// Only this session: its id, or the first digits of it
    #[arg(long, value_parser = session_prefix, value_name = "ID")]
    pub session: Vec<String>,
    /// Only with entries from then on: a time (2026-01-31T12:00:00Z), or so long ago (10m)
    #[arg(long, value_parser = since, value_name = "TIME")]
    pub since: Option<Beginning>,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

impl SessionsArgs {
    /// The filter as the daemon takes it.
    pub fn filter(&self, now: Timestamp) -> Filter {
        let since = self.since.and_then(|since| since.time(now));
        Filter { sessions: self.session.clone(), since, ..self.which.filter(now) }
    }
}

/// `bailiwick show`.
#[derive(Clone, Debug, Args)]
pub struct ShowArgs {
    /// The session's id, or the first digits of it
    #[arg(value_parser = session_prefix)]
    pub session: String,
    /// Which of its entries.
    #[command(flatten)]
    pub which: FilterArgs,
    /// Only entries from then on: a time (2026-01-31T12:00:00Z), or so long ago (10m)
    #[arg(long, value_parser = since, value_name = "TIME")]
    pub since: Option<Beginning>,
    /// Print its entries themselves, as JSON Lines
    #[arg(long)]
    pub json: bool,
}

impl ShowArgs {
    /// The filter as the daemon takes it.
    pub fn filter(&self, now: Timestamp) -> Filter {
        Filter { since: self.since.and_then(|since| since.time(now)), ..self.which.filter(now) }
    }
}

/// `bailiwick chain`.
#[derive(Clone, Debug, Args)]
pub struct ChainArgs {
    /// The id of any session of the chain, or the first digits of it
    #[arg(value_parser = session_prefix)]
    pub session: String,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// `bailiwick credentials`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Args)]
pub struct CredentialsArgs {
    /// Print JSON
    #[arg(long)]
    pub json: bool,
    /// Print the catalogue of well-known credentials that ships, to be edited; needs no daemon
    #[arg(long, conflicts_with = "json")]
    pub catalogue: bool,
}

/// `bailiwick explain`.
#[derive(Clone, Debug, Args)]
pub struct ExplainArgs {
    /// The entry's uid, as every line of `tail` shows it
    pub uid: String,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// `bailiwick sync`.
#[derive(Clone, Copy, Debug, Args)]
pub struct SyncArgs {
    /// Wait also until every target has acknowledged it
    #[arg(long)]
    pub exported: bool,
    /// For how long to wait at most
    #[arg(long, value_parser = duration, default_value = "60s", value_name = "TIME")]
    pub wait: Duration,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// `bailiwick status`.
#[derive(Clone, Copy, Debug, Args)]
pub struct StatusArgs {
    /// Wait so long at most until the sensor watches and what already ran is reconciled
    #[arg(long, value_parser = duration, value_name = "TIME")]
    pub wait: Option<Duration>,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// `bailiwick verify`.
#[derive(Clone, Debug, Args)]
pub struct VerifyArgs {
    /// Begin there: a time (2026-01-31T12:00:00Z), or so long ago (10m); otherwise all is verified
    #[arg(long, value_parser = since, value_name = "TIME")]
    pub since: Option<Beginning>,
    /// Compare with checkpoints that a back end received, as JSON Lines
    #[arg(long, value_name = "FILE")]
    pub checkpoints: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// `bailiwick learn`.
#[derive(Clone, Debug, Args)]
pub struct LearnArgs {
    /// Sessions of one agent: their ids, or the first digits of them
    #[arg(required = true, value_parser = session_prefix, value_name = "SESSION")]
    pub sessions: Vec<String>,
    /// Grant also what was out of scope, but for what a rule denies
    #[arg(long)]
    pub include_out_of_scope: bool,
    /// Read the state directory, whether a daemon runs or not
    #[arg(long)]
    pub offline: bool,
}

/// `bailiwick replay`.
#[derive(Clone, Debug, Args)]
pub struct ReplayArgs {
    /// The proposed declaration
    #[arg(value_name = "DECLARATION")]
    pub declaration: PathBuf,
    /// Begin there: start, a time (2026-01-31T12:00:00Z), or so long ago (10m)
    #[arg(long, value_parser = since, value_name = "TIME")]
    pub since: Option<Beginning>,
    /// Only this session's: its id, or the first digits of it
    #[arg(long, value_parser = session_prefix, value_name = "ID")]
    pub session: Vec<String>,
    /// The history of this agent, in place of the one that is declared
    #[arg(long, value_name = "NAME")]
    pub agent: Vec<String>,
    /// Read the state directory, whether a daemon runs or not
    #[arg(long)]
    pub offline: bool,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// `bailiwick review`.
#[derive(Clone, Debug, Args)]
pub struct ReviewArgs {
    /// The declared agent
    #[arg(value_name = "AGENT")]
    pub agent: String,
    /// Begin there: start, a time (2026-01-31T12:00:00Z), or so long ago (90d)
    #[arg(long, value_parser = since, value_name = "TIME")]
    pub since: Option<Beginning>,
    /// Print only the difference to a declaration without what was not used
    #[arg(long, conflicts_with_all = ["json", "html", "accept"])]
    pub diff: bool,
    /// Print one page of HTML with charts, which needs nothing else
    #[arg(long, conflicts_with_all = ["json", "accept"])]
    pub html: bool,
    /// Record in the trail that you have reviewed this
    #[arg(long)]
    pub accept: bool,
    /// Read the state directory, whether a daemon runs or not
    #[arg(long, conflicts_with = "accept")]
    pub offline: bool,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// `bailiwick check`.
#[derive(Clone, Debug, Args)]
pub struct CheckArgs {
    /// Declarations, or sets of grants
    #[arg(required = true, value_name = "FILE")]
    pub files: Vec<PathBuf>,
    /// Say which grant decides on this path or address
    #[arg(long, value_name = "PATH|HOST:PORT")]
    pub explain: Option<String>,
}

/// `bailiwick live`.
#[derive(Clone, Debug, Args)]
pub struct LiveArgs {
    /// The declared agent that the command is
    #[arg(long, value_name = "NAME", requires = "command")]
    pub agent: Option<String>,
    /// Start this command as that agent
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, requires = "agent", value_name = "COMMAND")]
    pub command: Vec<OsString>,
}

/// Where `--since` begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Beginning {
    /// With the trail.
    Start,
    /// At a time.
    At(Timestamp),
    /// So long ago.
    Ago(Duration),
}

impl Beginning {
    /// The time it stands for; none for the trail's own start.
    pub fn time(self, now: Timestamp) -> Option<Timestamp> {
        match self.since(now) {
            Since::Start | Since::Now => None,
            Since::At(time) => Some(time),
        }
    }

    /// As the daemon takes it.
    pub fn since(self, now: Timestamp) -> Since {
        match self {
            Self::Start => Since::Start,
            Self::At(time) => Since::At(time),
            Self::Ago(ago) => {
                let nanoseconds = u64::try_from(ago.as_nanos()).unwrap_or(u64::MAX);
                Since::At(Timestamp(now.0.saturating_sub(nanoseconds)))
            }
        }
    }
}

fn since(text: &str) -> Result<Beginning, String> {
    if text == "start" {
        return Ok(Beginning::Start);
    }
    if let Ok(time) = text.parse() {
        return Ok(Beginning::At(time));
    }
    duration(text)
        .map(Beginning::Ago)
        .map_err(|_| "give `start`, a time such as 2026-01-31T12:00:00Z, or how long ago, such as 10m".to_owned())
}

/// `30s`, `500ms`, `10m`, `2h`, `1d`.
fn duration(text: &str) -> Result<Duration, String> {
    let bad = || "give a number and its unit: 500ms, 30s, 10m, 2h or 1d".to_owned();
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let number: u64 = text[..digits].parse().map_err(|_| bad())?;
    let milliseconds = match &text[digits..] {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return Err(bad()),
    };
    number.checked_mul(milliseconds).map(Duration::from_millis).ok_or_else(bad)
}

fn session_prefix(text: &str) -> Result<String, String> {
    let is_prefix = (1..=16).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    if is_prefix {
        Ok(text.to_ascii_lowercase())
    } else {
        Err("a session is named by sixteen hexadecimal digits, or the first of them (see `bailiwick sessions`)".into())
    }
}

fn address(text: &str) -> Result<String, String> {
    let is_one = crate::control::query::AddressPattern::parse(text).is_some();
    let bad =
        || "give an address, with a port or a length of its network or neither: 10.0.0.5, 10.0.0.5:5432, 10.0.0.0/8";
    if is_one { Ok(text.to_owned()) } else { Err(bad().to_owned()) }
}

fn verdict(text: &str) -> Result<Verdict, String> {
    let all = [Verdict::InScope, Verdict::OutOfScope, Verdict::Denied, Verdict::None];
    all.into_iter()
        .find(|verdict| verdict.as_str() == text)
        .ok_or_else(|| "verdicts are in_scope, out_of_scope, denied and none".to_owned())
}

fn ring_bytes(text: &str) -> Result<u32, String> {
    text.parse::<u32>()
        .ok()
        .filter(|bytes| bytes.is_power_of_two() && *bytes >= MIN_RING_BYTES)
        .ok_or_else(|| format!("a ring's size is a power of two, at least {MIN_RING_BYTES}: 1048576, say"))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

    use clap::CommandFactory;

    use super::*;

    fn parse(words: &[&str]) -> Result<Cli, clap::Error> {
        Cli::try_parse_from(std::iter::once("bailiwick").chain(words.iter().copied()))
    }

    fn tail(words: &[&str]) -> TailArgs {
        match parse(&[&["tail"], words].concat()).unwrap().command {
            Command::Tail(args) => args,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_definition_of_the_command_line_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn bad_words_exit_with_2() {
        let bad: [&[&str]; 12] = [
            &["nonsense"],
            &["tail", "--nonsense"],
            &["tail", "--since", "yesterday"],
            &["tail", "--verdict", "guilty"],
            &["tail", "--session", "xyz"],
            &["show", "../../etc"],
            &["show"],
            &["run", "--agent", "demo"],
            &["run", "--", "ls"],
            &["status", "--wait", "30"],
            &["--ring-bytes", "5000", "status"],
            &["--ring-bytes", "2048", "status"],
        ];
        for words in bad {
            assert_eq!(parse(words).unwrap_err().exit_code(), 2, "{words:?}");
        }
    }

    #[test]
    fn options_of_the_instance_stand_before_or_after_the_command() {
        for words in [["--runtime-dir", "/x", "status"], ["status", "--runtime-dir", "/x"]] {
            assert_eq!(parse(&words).unwrap().paths.runtime_dir, PathBuf::from("/x"));
        }
    }

    #[test]
    fn every_option_of_the_instance_has_its_variable() {
        let command = Cli::command();
        for name in ["CONFIG_DIR", "STATE_DIR", "RUNTIME_DIR", "PIN_DIR", "CGROUP", "RING_BYTES"] {
            let variable = format!("BAILIWICK_{name}");
            let option = name.to_ascii_lowercase().replace('_', "-");
            let found = command.get_arguments().find(|arg| arg.get_long() == Some(&option)).unwrap();
            assert_eq!(found.get_env().unwrap().to_str(), Some(variable.as_str()));
        }
    }

    #[test]
    fn options_handed_on_name_the_same_instance() {
        let words =
            ["--config-dir", "/c", "--state-dir", "/s", "--runtime-dir", "/r", "--pin-dir", "/p", "--cgroup", "/g"];
        let paths = parse(&[&words[..], &["--ring-bytes", "4096", "status"]].concat()).unwrap().paths;
        let mut handed_on: Vec<OsString> = vec!["bailiwick".into()];
        handed_on.extend(paths.options());
        handed_on.push("status".into());
        assert_eq!(Cli::try_parse_from(handed_on).unwrap().paths, paths);
    }

    #[test]
    fn a_command_keeps_its_own_options_with_and_without_the_two_dashes() {
        for words in [&["--agent", "a", "--", "ls", "-l", "--json"][..], &["--agent", "a", "ls", "-l", "--json"]] {
            let Command::Run(run) = parse(&[&["run"], words].concat()).unwrap().command else { panic!("no run") };
            assert_eq!(run.command, ["ls", "-l", "--json"]);
        }
    }

    #[test]
    fn a_beginning_is_the_start_a_time_or_so_long_ago() {
        let now = Timestamp(10_000_000_000_000);
        assert_eq!(tail(&["--since", "start"]).since.unwrap().since(now), Since::Start);
        assert_eq!(tail(&["--since", "10m"]).since.unwrap().since(now), Since::At(Timestamp(9_400_000_000_000)));
        let time: Timestamp = "2026-01-31T12:00:00Z".parse().unwrap();
        assert_eq!(tail(&["--since", "2026-01-31T12:00:00Z"]).since.unwrap().since(now), Since::At(time));
        assert_eq!(tail(&["--since", "99999d"]).since.unwrap().since(now), Since::At(Timestamp(0)));
    }

    #[test]
    fn durations_have_a_number_and_a_unit() {
        assert_eq!(duration("30s"), Ok(Duration::from_secs(30)));
        assert_eq!(duration("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(duration("1d"), Ok(Duration::from_secs(86_400)));
        for bad in ["", "s", "30", "-1s", "1.5s", "10 m", "99999999999999999999s", "9999999999999999999d"] {
            assert!(duration(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_relative_path_is_meant_from_here_and_a_pattern_is_not() {
        let here = std::env::current_dir().unwrap();
        let filter = tail(&["--path", "x/y", "--path", "**/.env", "--path", "/z"]).filter(Timestamp(0));
        assert_eq!(filter.paths, [here.join("x/y").to_str().unwrap(), "**/.env", "/z"]);
    }
}
