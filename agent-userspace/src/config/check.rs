//! `bailiwick check`: whether files are right, what is worth knowing of them, and which grant decides about a path or an
//! address. Needs no privileges and no daemon.
//!
//! Input: files (declarations, grant sets, catalogues, daemon settings, told apart by their sections) or configuration directories,
//! and what to explain. Output: a [`CheckOutcome`]: text, and whether all is well. A declaration in a directory named
//! `agents.d` is checked with the `grants.d` and `bailiwick.toml` beside it; its delegates may be declared elsewhere.

use std::collections::BTreeSet;
use std::fmt::Write;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use super::delegation::chains_to;
use super::fault::{ConfigErrors, Fault, Problem};
use super::host::{Host, ThisHost};
use super::kernel_selectors::kernel_selectors;
use super::reader::read_document;
use super::source::{SourceFile, files_of, is_there};
use super::{Config, Declaration, Sources, keep};
use crate::entry::{Delegator, SessionId};
use crate::scope::explain::describe as describe_action;
use crate::scope::grant::{PRIVILEGES, Rules};
use crate::scope::network::{NetworkError, NetworkPattern};
use crate::scope::{Access, Action, SeenPath, UnixAddress};

/// What a check found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CheckOutcome {
    /// What to print, with a newline at its end.
    pub text: String,
    /// Whether nothing is wrong. Otherwise the exit code is 2.
    pub ok: bool,
}

/// Checks files and directories; with `explain` (a path or `HOST:PORT`), says what each declaration makes of it.
pub fn check(files: &[PathBuf], explain: Option<&str>) -> CheckOutcome {
    check_on(files, explain, &ThisHost)
}

/// Checks as though on another host.
pub fn check_on(files: &[PathBuf], explain: Option<&str>, host: &dyn Host) -> CheckOutcome {
    let loaded = gather(files).and_then(|(sources, asked)| Ok((sources.load(host)?, asked)));
    let (config, asked) = match loaded {
        Ok(loaded) => loaded,
        Err(errors) => return CheckOutcome { text: format!("{errors}\n"), ok: false },
    };
    let mut text = String::new();
    if let Some(target) = explain {
        return explain_target(&config, &asked, target);
    }
    report(&config, &asked, host, &mut text);
    CheckOutcome { text, ok: true }
}

/// What a file is, by its sections.
enum Kind {
    Declaration,
    GrantSet,
    Catalogue,
    Settings,
    WellKnown,
}

/// Reads what is given and what stands beside it. The second value are the names of the files that were asked about; empty
/// stands for all.
fn gather(files: &[PathBuf]) -> Result<(Sources, BTreeSet<String>), ConfigErrors> {
    if let [directory] = files
        && directory.is_dir()
    {
        if !["agents.d", "grants.d", "catalogue.d", "bailiwick.toml", super::well_known::FILE]
            .into_iter()
            .any(|name| is_there(&directory.join(name)))
        {
            let problem = Problem::of_file(&directory.display().to_string(), Fault::NotAConfiguration);
            return Err(ConfigErrors(vec![problem]));
        }
        return Ok((Sources::of_directory(directory)?, BTreeSet::new()));
    }
    let mut problems = Vec::new();
    let mut sources = Sources { partial: true, ..Sources::default() };
    let mut asked = BTreeSet::new();
    for file in files {
        let Some(source) = keep(SourceFile::read(file), &mut problems) else { continue };
        // A file that is given twice is still one file.
        if !asked.insert(source.name().to_string()) {
            continue;
        }
        match kind_of(&source, &mut problems) {
            Some(Kind::Declaration) => sources.declarations.push(source),
            Some(Kind::GrantSet) => sources.grant_sets.push(source),
            Some(Kind::Catalogue) => sources.catalogues.push(source),
            Some(Kind::Settings) => sources.settings = Some(source),
            Some(Kind::WellKnown) => sources.well_known = Some(source),
            None => {}
        }
    }
    for directory in neighbours(files) {
        for file in keep(files_of(&directory.join("grants.d")), &mut problems).unwrap_or_default() {
            if !asked.contains(&file.display().to_string()) {
                sources.grant_sets.extend(keep(SourceFile::read(&file), &mut problems));
            }
        }
        let settings = directory.join("bailiwick.toml");
        if sources.settings.is_none() && is_there(&settings) {
            sources.settings = keep(SourceFile::read(&settings), &mut problems);
        }
        let well_known = directory.join(super::well_known::FILE);
        if sources.well_known.is_none() && is_there(&well_known) {
            sources.well_known = keep(SourceFile::read(&well_known), &mut problems);
        }
    }
    if problems.is_empty() { Ok((sources, asked)) } else { Err(ConfigErrors(problems)) }
}

/// The configuration directories in whose `agents.d` the files lie.
fn neighbours(files: &[PathBuf]) -> BTreeSet<PathBuf> {
    let directory = |file: &PathBuf| {
        let agents = file.parent().filter(|parent| parent.file_name().is_some_and(|name| name == "agents.d"))?;
        agents.parent().map(|parent| if parent.as_os_str().is_empty() { Path::new(".") } else { parent }.to_owned())
    };
    files.iter().filter_map(directory).collect()
}

fn kind_of(source: &SourceFile, problems: &mut Vec<Problem>) -> Option<Kind> {
    let directory = Path::new(&**source.name()).parent().and_then(Path::file_name).unwrap_or_default();
    let kind = read_document(source, problems, |top| {
        let has = |keys: &[&str]| keys.iter().any(|key| top.has(key));
        if Path::new(&**source.name()).file_name().is_some_and(|name| name == super::well_known::FILE) {
            Some(Kind::WellKnown)
        } else if has(&["agent", "recognise", "scope"]) || directory == "agents.d" {
            Some(Kind::Declaration)
        } else if has(&["set", "files", "exec", "network"]) || directory == "grants.d" {
            Some(Kind::GrantSet)
        } else if has(&["runtime", "interpreter", "model_server"]) || directory == "catalogue.d" {
            Some(Kind::Catalogue)
        } else if has(&["sensor", "trail", "export", "redact", "discovery"])
            || source.name().ends_with("bailiwick.toml")
        {
            Some(Kind::Settings)
        } else {
            None
        }
    })?;
    if kind.is_none() {
        problems.push(Problem::of_file(source.name(), Fault::NoKind));
    }
    kind
}

/// A line a declaration and a line a note, then `ok`.
fn report(config: &Config, asked: &BTreeSet<String>, host: &dyn Host, text: &mut String) {
    let is_asked = |file: &str| asked.is_empty() || asked.contains(file);
    for declaration in config.declarations.iter().filter(|one| is_asked(&one.about.origin.file)) {
        let _ = writeln!(text, "{}: {}", declaration.about.origin.file, describe(declaration));
    }
    for set in config.grant_sets.iter().filter(|set| !set.shipped && is_asked(&set.name.origin.file)) {
        let (file, name) = (&set.name.origin.file, &set.name.value);
        let _ = writeln!(text, "{file}: grant set `{name}`, {}", size(&set.rules));
    }
    for note in config.notes.iter().filter(|note| !note.shipped && is_asked(&note.origin.file)) {
        let _ = writeln!(text, "{}: note: {}", note.origin, note.text);
    }
    for costly in &kernel_selectors(&config.declarations, host).costly {
        let _ = writeln!(text, "{}: {}", costly.origin, costly.text);
    }
    let _ = writeln!(text, "ok");
}

fn describe(declaration: &Declaration) -> String {
    let name = declaration.name();
    let ways = match declaration.recognise.len() {
        0 => "started by `bailiwick run` alone".to_owned(),
        1 => "recognised in 1 way".to_owned(),
        ways => format!("recognised in {ways} ways"),
    };
    let scope = match &declaration.declared_scope {
        None => "unscoped: nothing it does is judged".to_owned(),
        Some(scope) => {
            let mut included = scope.include.iter().map(|set| set.value.as_str()).collect::<Vec<_>>().join(", ");
            if included.is_empty() {
                "nothing".clone_into(&mut included);
            }
            format!("{} of its own, includes {included}", size(&scope.rules))
        }
    };
    format!("agent `{name}`, {ways}, {scope}")
}

/// How many rules there are.
fn size(rules: &Rules) -> String {
    let counted = |number: usize, one: &str, more: &str| format!("{number} {}", if number == 1 { one } else { more });
    let grants = rules.grants();
    let denies = rules.deny.len() + rules.exec_deny.len();
    format!("{} and {}", counted(grants, "grant", "grants"), counted(denies, "deny rule", "deny rules"))
}

/// What each declaration makes of a path or an address.
fn explain_target(config: &Config, asked: &BTreeSet<String>, target: &str) -> CheckOutcome {
    let actions = match actions_on(target) {
        Ok(actions) => actions,
        Err(fault) => return CheckOutcome { text: format!("{fault}\n"), ok: false },
    };
    let mut text = String::new();
    let is_asked = |one: &&Declaration| asked.is_empty() || asked.contains(&*one.about.origin.file);
    for declaration in config.declarations.iter().filter(is_asked) {
        let _ = writeln!(text, "agent {}:", declaration.name());
        match &declaration.scope {
            Some(scope) => actions.iter().for_each(|action| {
                let _ = write!(text, "{}", scope.explain(action));
            }),
            None => {
                let _ = writeln!(text, "unscoped: nothing it does is judged");
            }
        }
        explain_as_delegate(config, declaration, &actions, &mut text);
    }
    if text.is_empty() {
        return CheckOutcome { text: "no declaration was given; name a file with an [agent]\n".to_owned(), ok: false };
    }
    CheckOutcome { text, ok: true }
}

/// What becomes of the actions where the agent acts for others, by each chain that the declarations allow.
fn explain_as_delegate(config: &Config, declaration: &Declaration, actions: &[Action<'_>], text: &mut String) {
    let name = declaration.name();
    for chain in chains_to(name, &config.declarations) {
        let delegation: Vec<Delegator> =
            chain.iter().map(|agent| Delegator { agent: agent.clone(), session: SessionId(0) }).collect();
        let effective = config.effective(name, &delegation);
        let _ = writeln!(text, "agent {name} started by {}:", chain.join(" > "));
        for action in actions {
            let judgement = effective.judge(action, None);
            let _ = write!(text, "{}: {}", describe_action(action), judgement.verdict.as_str());
            let Some(reason) = judgement.reason else {
                let _ = writeln!(text);
                continue;
            };
            let whose =
                reason.delegator.map_or_else(|| "its own scope".to_owned(), |agent| format!("the scope of {agent}"));
            let place =
                reason.file.zip(reason.line).map_or_else(String::new, |(file, line)| format!(" ({file}:{line})"));
            let _ = writeln!(text, ", by {whose}: {}{place}", reason.text);
        }
    }
}

/// What `--explain` was given is neither a path nor an address.
#[derive(Debug, thiserror::Error)]
enum TargetError {
    /// A host's name.
    #[error("`{0}`: names are not supported yet; use an address, as in `10.0.0.5:443`")]
    Name(String),
    /// Neither.
    #[error(
        "`{0}` is neither an absolute path nor an address with a port; write `/srv/file`, `10.0.0.5:443`, `[::1]:443`, \
         `unix:/run/x.sock`, `unix:@name` or `privilege:ptrace`"
    )]
    Neither(String),
}

fn actions_on(target: &str) -> Result<Vec<Action<'_>>, TargetError> {
    if target.starts_with('/') {
        let path = SeenPath::whole(target.as_bytes());
        let file = |access| Action::File { path, access };
        return Ok(vec![file(Access::Read), file(Access::Write), Action::Exec { path, script: None }]);
    }
    if let Ok(address) = target.parse::<SocketAddr>() {
        return Ok(vec![Action::Connect { address }, Action::Listen { address }]);
    }
    if let Some(name) = target.strip_prefix("unix:@") {
        return Ok(vec![Action::Unix { address: UnixAddress::Abstract(name.as_bytes()) }]);
    }
    if let Some(path) = target.strip_prefix("unix:").filter(|path| path.starts_with('/')) {
        return Ok(vec![Action::Unix { address: UnixAddress::Path(SeenPath::whole(path.as_bytes())) }]);
    }
    if let Some(name) = target.strip_prefix("privilege:").filter(|name| PRIVILEGES.contains(name)) {
        return Ok(vec![Action::Privilege { name }]);
    }
    let shown = target.escape_debug().take(200).collect();
    match NetworkPattern::parse(target) {
        Err(NetworkError::Name) if target.contains(':') => Err(TargetError::Name(shown)),
        Ok(_) | Err(_) => Err(TargetError::Neither(shown)),
    }
}

#[cfg(test)]
#[path = "check_tests.rs"]
mod tests;
