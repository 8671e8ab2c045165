//! A declaration: who an agent is, how it is recognised, what it may do.
//!
//! Input: the top level of a file of `agents.d`. Output: a parsed declaration, whose includes and delegates are still
//! names; [`super::Config`] makes [`Declaration`]s of them, once all files are known. `docs/declarations.md` describes
//! the format.

use std::sync::Arc;
use std::time::Duration;

use super::credential::{self, Credential};
use super::duration;
use super::fault::Fault;
use super::reader::{Located, Section};
use super::resource::{self, Resource};
use super::rules::Reading;
use super::selectors::{self, Recognise};
use super::settings::{choice, no_choice, within};
use crate::scope::Scope;
use crate::scope::grant::{Origin, PRIVILEGES, PrivilegeRule, Rules};

/// The longest name of an agent or a grant set.
pub const MAX_NAME_BYTES: usize = 64;
/// The deepest chain of delegations that can be declared.
pub const MAX_DELEGATION_DEPTH: u64 = 16;

/// Whose scope binds a delegate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Limit {
    /// The delegator's as well as its own.
    #[default]
    Mine,
    /// Its own alone.
    Theirs,
}

/// `[scope.delegate]`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Delegate {
    /// The agents that may be started from within this one's session.
    pub to: Vec<Located<String>>,
    /// Whose scope binds them.
    pub limit: Limit,
    /// How deep the chain may go; none: as deep as it does.
    pub max_depth: Option<u64>,
}

/// `[scope]` as written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DeclaredScope {
    /// The grant sets it includes.
    pub include: Vec<Located<String>>,
    /// Its own grants and denies.
    pub rules: Rules,
    /// To whom it may delegate.
    pub delegate: Delegate,
}

/// Who an agent is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct About {
    /// Its name.
    pub name: String,
    /// Where the name stands.
    pub origin: Origin,
    /// Who answers for it.
    pub owner: Option<String>,
    /// What it is for.
    pub purpose: Option<String>,
    /// How often its scope must be reviewed.
    pub review_every: Option<Duration>,
}

/// A declaration of which only its own file is known.
#[derive(Clone, Debug)]
pub(super) struct ParsedDeclaration {
    pub(super) about: About,
    pub(super) recognise: Vec<Recognise>,
    pub(super) scope: Option<DeclaredScope>,
    pub(super) resources: Vec<Resource>,
    pub(super) credentials: Vec<Credential>,
}

/// A declared agent.
#[derive(Clone, Debug)]
pub struct Declaration {
    /// Who it is.
    pub about: About,
    /// How it is recognised, any of these; where there is none, it is started by `bailiwick run` alone.
    pub recognise: Vec<Recognise>,
    /// Its `[scope]` as written; none: the agent is unscoped.
    pub declared_scope: Option<DeclaredScope>,
    /// The same with what it includes, ready to judge.
    pub scope: Option<Arc<Scope>>,
    /// Names for what matters.
    pub resources: Vec<Resource>,
    /// Its secrets.
    pub credentials: Vec<Credential>,
}

impl Declaration {
    /// The agent's name.
    pub fn name(&self) -> &str {
        &self.about.name
    }

    /// Whether an agent that it may start is bound by its own scope alone.
    pub fn lifts_limit_for(&self, delegate: &str) -> bool {
        let rules = self.declared_scope.as_ref().map(|scope| &scope.delegate);
        rules.is_some_and(|rules| rules.limit == Limit::Theirs && rules.to.iter().any(|name| name.value == delegate))
    }
}

/// Reads a declaration's file; none where it has no usable name.
pub(super) fn read(
    mut top: Section<'_>,
    environment: &[String],
    reading: &mut Reading<'_>,
) -> Option<ParsedDeclaration> {
    let about = match top.section("agent", "[agent]", &mut reading.problems) {
        Some(section) => read_about(section, reading),
        None if top.has("agent") => None,
        None => {
            let example = "[agent] with `name = \"my-agent\"`";
            reading.fault(&top.origin(), Fault::MissingKey { section: "the file".to_owned(), key: "agent", example });
            None
        }
    };
    let tables = top.sections("recognise", "[[recognise]]", &mut reading.problems);
    let recognise = tables.into_iter().filter_map(|table| selectors::read(table, environment, reading)).collect();
    let scope = top.section("scope", "[scope]", &mut reading.problems).map(|section| read_scope(section, reading));
    let resources = top.sections("resource", "[[resource]]", &mut reading.problems);
    let resources = resources.into_iter().filter_map(|section| resource::read(section, reading)).collect();
    let credentials = top.sections("credential", "[[credential]]", &mut reading.problems);
    let credentials = credential::read_all(credentials, reading);
    if let Some(section) = top.section("respond", "[respond]", &mut reading.problems) {
        read_respond(section, reading);
    }
    top.finish(&mut reading.problems);
    about.map(|about| ParsedDeclaration { about, recognise, scope, resources, credentials })
}

/// Reads `name`, which must be there.
pub(super) fn read_name(
    section: &mut Section<'_>,
    example: &'static str,
    reading: &mut Reading<'_>,
) -> Option<Located<String>> {
    let Some(name) = section.string("name", &mut reading.problems) else {
        if !section.has("name") {
            let fault = Fault::MissingKey { section: section.name().to_owned(), key: "name", example };
            reading.fault(&section.origin(), fault);
        }
        return None;
    };
    let allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"._-".contains(&byte);
    let begins_well = name.value.starts_with(|first: char| first.is_ascii_lowercase() || first.is_ascii_digit());
    if begins_well && name.value.len() <= MAX_NAME_BYTES && name.value.bytes().all(allowed) {
        return Some(Located { value: name.value.to_owned(), origin: name.origin });
    }
    reading.fault(&name.origin, Fault::Name(name.value.chars().take(MAX_NAME_BYTES + 1).collect()));
    None
}

fn read_about(mut section: Section<'_>, reading: &mut Reading<'_>) -> Option<About> {
    let name = read_name(&mut section, "name = \"my-agent\"", reading);
    let owner = section.plain_string("owner", &mut reading.problems).map(|owner| owner.value);
    let purpose = section.plain_string("purpose", &mut reading.problems).map(|purpose| purpose.value);
    let review_every = read_duration(&mut section, "review_every", reading);
    let has_owner = section.has("owner");
    section.finish(&mut reading.problems);
    let name = name?;
    if !has_owner {
        reading.note(&name.origin, format!("the agent `{}` has no owner: nobody answers for it", name.value));
    }
    Some(About { name: name.value, origin: name.origin, owner, purpose, review_every })
}

pub(super) fn read_duration(
    section: &mut Section<'_>,
    key: &'static str,
    reading: &mut Reading<'_>,
) -> Option<Duration> {
    let text = section.string(key, &mut reading.problems)?;
    match duration::parse(text.value) {
        Ok(duration) => Some(duration),
        Err(error) => {
            let text_shown = text.value.escape_debug().take(64).collect();
            reading.fault(&text.origin, Fault::Duration { key, text: text_shown, error });
            None
        }
    }
}

fn read_scope(mut section: Section<'_>, reading: &mut Reading<'_>) -> DeclaredScope {
    let mut scope = DeclaredScope::default();
    for name in section.strings("include", &mut reading.problems).unwrap_or_default() {
        let name = Located { value: name.value.to_owned(), origin: name.origin };
        if !scope.include.iter().any(|known| known.value == name.value) {
            scope.include.push(name);
        }
    }
    if let Some(files) = section.section("files", "[scope.files]", &mut reading.problems) {
        reading.files(files, &mut scope.rules);
    }
    if let Some(network) = section.section("network", "[scope.network]", &mut reading.problems) {
        reading.network(network, &mut scope.rules);
    }
    if let Some(unix) = section.section("unix", "[scope.unix]", &mut reading.problems) {
        reading.unix(unix, &mut scope.rules);
    }
    if let Some(exec) = section.section("exec", "[scope.exec]", &mut reading.problems) {
        reading.exec(exec, &mut scope.rules);
    }
    if let Some(mut privileges) = section.section("privileges", "[scope.privileges]", &mut reading.problems) {
        for name in privileges.strings("allow", &mut reading.problems).unwrap_or_default() {
            if PRIVILEGES.contains(&name.value) {
                let name = PrivilegeRule { name: name.value.to_owned(), origin: name.origin };
                scope.rules.privileges.push(name);
            } else {
                reading.fault(&name.origin, no_choice("allow", name.value, PRIVILEGES.iter().copied()));
            }
        }
        privileges.finish(&mut reading.problems);
    }
    if let Some(delegate) = section.section("delegate", "[scope.delegate]", &mut reading.problems) {
        scope.delegate = read_delegate(delegate, reading);
    }
    section.finish(&mut reading.problems);
    scope
}

fn read_delegate(mut section: Section<'_>, reading: &mut Reading<'_>) -> Delegate {
    let to = section.strings("to", &mut reading.problems).unwrap_or_default();
    let to = to.into_iter().map(|name| Located { value: name.value.to_owned(), origin: name.origin }).collect();
    let limits = [("mine", Limit::Mine), ("theirs", Limit::Theirs)];
    let limit = choice(&mut section, "limit", &limits, &mut reading.problems).unwrap_or_default();
    let max_depth = within(&mut section, "max_depth", 1, MAX_DELEGATION_DEPTH, &mut reading.problems);
    section.finish(&mut reading.problems);
    Delegate { to, limit, max_depth }
}

/// Reads a `name` that may be any plain text.
pub(super) fn read_title(
    section: &mut Section<'_>,
    example: &'static str,
    reading: &mut Reading<'_>,
) -> Option<String> {
    if !section.has("name") {
        let fault = Fault::MissingKey { section: section.name().to_owned(), key: "name", example };
        reading.fault(&section.origin(), fault);
    }
    section.plain_string("name", &mut reading.problems).map(|name| name.value)
}

fn read_respond(mut section: Section<'_>, reading: &mut Reading<'_>) {
    const RESPONSES: [&str; 4] = ["alert", "deny", "kill", "pause"];
    if let Some(response) = section.string("out_of_scope", &mut reading.problems) {
        match response.value {
            "alert" => {}
            known if RESPONSES.contains(&known) => {
                let what = format!("`out_of_scope = \"{known}\"`");
                let instead = "write \"alert\": nothing is prevented yet, everything is reported";
                reading.fault(&response.origin, Fault::NotYet { what, instead });
            }
            other => reading.fault(&response.origin, no_choice("out_of_scope", other, RESPONSES.iter().copied())),
        }
    }
    section.finish(&mut reading.problems);
}
