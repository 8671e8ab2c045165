//! A learnt scope as TOML: a declaration that passes `check`, with a comment for each grant.
//!
//! The parts of the present declaration that are no scope (who the agent is, how it is recognised, its resources and
//! credentials) stay as they stand there, comments included. Refuses to let a string of an agent end its comment's line.

use std::fmt::Write;

use super::Learnt;
use super::tree::Pattern;
use super::uses::Use;
use crate::cli::text::{counted, printable};
use crate::config::declaration::{DeclaredScope, Limit};
use crate::scope::{GrantRule, PathList, Scope};

/// What stands in the present declaration and is kept.
#[derive(Debug, Default)]
pub struct Kept<'a> {
    /// Its file's text.
    pub text: Option<&'a str>,
    /// Its scope as declared, and compiled.
    pub scope: Option<(&'a DeclaredScope, &'a Scope)>,
}

impl Learnt {
    /// The agent that it is for.
    pub fn agent(&self) -> &str {
        &self.agent
    }

    /// How many grants there are, beside those of sets.
    pub fn grants(&self) -> usize {
        let paths: usize = self.lists.iter().map(|(_, patterns)| patterns.len()).sum();
        paths + self.connect.len() + self.listen.len() + self.privileges.len()
    }

    /// The declaration.
    pub fn to_toml(&self, kept: &Kept<'_>) -> String {
        let mut text = self.head();
        text.push_str(&self.without_scope(kept.text));
        let _ = writeln!(text, "\n[scope]");
        if !self.include.is_empty() {
            let sets = self.include.iter().map(|(name, uses)| (name.clone(), sets_told(uses)));
            list(&mut text, "include", sets);
        }
        self.files(&mut text, kept);
        self.network(&mut text);
        let unix: Vec<(String, String)> = self
            .patterns(PathList::Unix)
            .map(|pattern| (pattern.text.clone(), pattern.uses.told("connected to")))
            .chain(self.patterns(PathList::UnixAbstract).map(|pattern| {
                (format!("@{}", pattern.text.trim_start_matches('/')), pattern.uses.told("connected to"))
            }))
            .collect();
        section(&mut text, "scope.unix", &[("connect", unix)]);
        let exec = self.of(PathList::Exec, "run");
        section(&mut text, "scope.exec", &[("allow", exec), ("deny", denies(kept, PathList::ExecDeny))]);
        let privileges = self.privileges.iter().map(|(name, uses)| ((*name).to_owned(), uses.told("used"))).collect();
        section(&mut text, "scope.privileges", &[("allow", privileges)]);
        self.delegate(&mut text, kept);
        self.tail(&mut text);
        text
    }

    fn head(&self) -> String {
        let mut text = format!(
            "# Learnt by `bailiwick learn` from {} of {}: {}.\n",
            counted(self.sessions.len() as u64, "session", "sessions"),
            self.agent,
            counted(self.actions, "action", "actions"),
        );
        for session in &self.sessions {
            let _ = writeln!(text, "#   {session}");
        }
        text.push_str("# It grants what was done then. Read it before you put it into force.\n\n");
        text
    }

    fn without_scope(&self, present: Option<&str>) -> String {
        let document = present.and_then(|text| text.parse::<toml_edit::DocumentMut>().ok());
        match document {
            Some(mut document) => {
                document.remove("scope");
                document.to_string().trim_end().to_owned() + "\n"
            }
            None => format!("[agent]\nname = {}\n# owner = who answers for it\n", quoted(&self.agent)),
        }
    }

    fn patterns(&self, of: PathList) -> impl Iterator<Item = &Pattern> {
        self.lists.iter().filter(move |(list, _)| *list == of).flat_map(|(_, patterns)| patterns)
    }

    fn of(&self, list: PathList, verb: &str) -> Vec<(String, String)> {
        self.patterns(list).map(|pattern| (pattern.text.clone(), pattern.uses.told(verb))).collect()
    }

    fn files(&self, text: &mut String, kept: &Kept<'_>) {
        let (read, write) = (self.of(PathList::Read, "read"), self.of(PathList::Write, "written"));
        let mut deny = denies(kept, PathList::Deny);
        let is_wide = read.iter().chain(&write).any(|(pattern, _)| pattern.ends_with("/**"));
        if is_wide {
            for secret in &self.secrets {
                if !deny.iter().any(|(pattern, _)| pattern == secret) {
                    let why = "never needed; the directories above must not grant it";
                    deny.push(((*secret).to_owned(), why.to_owned()));
                }
            }
        }
        section(text, "scope.files", &[("read", read), ("write", write), ("deny", deny)]);
    }

    fn network(&self, text: &mut String) {
        let told = |patterns: &[Pattern], verb: &str| {
            patterns.iter().map(|pattern| (pattern.text.clone(), pattern.uses.told(verb))).collect()
        };
        let (connect, listen) = (told(&self.connect, "reached"), told(&self.listen, "taken"));
        section(text, "scope.network", &[("connect", connect), ("listen", listen)]);
    }

    fn delegate(&self, text: &mut String, kept: &Kept<'_>) {
        if self.delegates.is_empty() {
            return;
        }
        let to = self.delegates.iter().map(|(name, times)| (name.clone(), format!("started {times} times"))).collect();
        section(text, "scope.delegate", &[("to", to)]);
        let present = kept.scope.map(|(declared, _)| &declared.delegate);
        if present.is_some_and(|delegate| delegate.limit == Limit::Theirs) {
            text.push_str("limit = \"theirs\"    # as declared\n");
        }
        if let Some(depth) = present.and_then(|delegate| delegate.max_depth) {
            let _ = writeln!(text, "max_depth = {depth}    # as declared");
        }
    }

    fn tail(&self, text: &mut String) {
        for note in &self.notes {
            let _ = writeln!(text, "\n# Not whole: {}", printable(note));
        }
        if !self.left_out.is_empty() {
            text.push_str("\n# Left out:\n");
            for what in &self.left_out {
                let _ = writeln!(text, "#   {}", printable(what));
            }
            if self.left_out_more > 0 {
                let _ = writeln!(text, "#   and {} more", self.left_out_more);
            }
            text.push_str("# `bailiwick learn --include-out-of-scope` grants those of them that no rule denies.\n");
        }
        for (what, times) in &self.ungrantable {
            let _ = writeln!(text, "\n# No grant can name {what}: {times} times.");
        }
        if self.beyond > 0 {
            let _ = writeln!(
                text,
                "\n# There were more paths than are kept apart: {} actions are not looked at.",
                self.beyond
            );
        }
    }
}

/// Places of secrets, which a directory that is granted as a whole must not grant by the way.
pub(super) const SECRETS: [&str; 12] = [
    "**/.ssh/**",
    "**/.gnupg/**",
    "**/.aws/**",
    "**/.kube/**",
    "**/.docker/config.json",
    "**/.config/gcloud/**",
    "**/.netrc",
    "**/.git-credentials",
    "**/.npmrc",
    "**/.pypirc",
    "**/.env",
    "**/id_rsa",
];

fn denies(kept: &Kept<'_>, of: PathList) -> Vec<(String, String)> {
    let Some((_, scope)) = kept.scope else { return Vec::new() };
    let rules = scope.grants.iter().filter(|grant| matches!(&grant.rule, GrantRule::Path { list, .. } if *list == of));
    rules
        .map(|grant| (grant.text().into_owned(), format!("as declared in {}:{}", grant.origin.file, grant.origin.line)))
        .collect()
}

fn sets_told(uses: &Use) -> String {
    format!("covers {}, {}", counted(uses.paths, "path", "paths"), counted(uses.actions, "action", "actions"))
}

fn section(text: &mut String, name: &str, lists: &[(&str, Vec<(String, String)>)]) {
    if lists.iter().all(|(_, items)| items.is_empty()) {
        return;
    }
    let _ = writeln!(text, "\n[{name}]");
    for (key, items) in lists.iter().filter(|(_, items)| !items.is_empty()) {
        list(text, key, items.iter().cloned());
    }
}

fn list(text: &mut String, key: &str, items: impl Iterator<Item = (String, String)>) {
    let items: Vec<(String, String)> = items.map(|(value, comment)| (quoted(&value) + ",", comment)).collect();
    let width = items.iter().map(|(value, _)| value.chars().count()).max().unwrap_or(0).min(60);
    let _ = writeln!(text, "{key} = [");
    for (value, comment) in items {
        let _ = writeln!(text, "    {value:<width$}  # {}", printable(&comment));
    }
    text.push_str("]\n");
}

fn quoted(text: &str) -> String {
    toml::Value::from(text).to_string()
}
