//! What was done under a grant: how often, at how many places, by which programs.

use std::collections::BTreeSet;

use super::shape::Why;

/// Programs that a comment names.
const PROGRAMS: usize = 3;

/// What was done.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Use {
    /// How many actions.
    pub(super) actions: u64,
    /// At how many different paths, addresses or names.
    pub(super) paths: u64,
    /// How many of the actions failed.
    pub(super) failed: u64,
    /// By which programs: a few of them.
    pub(super) programs: BTreeSet<String>,
    /// Of more programs than those.
    pub(super) by_more: bool,
    /// Why it is no literal.
    pub(super) whys: BTreeSet<Why>,
}

impl Use {
    /// One action at one place.
    #[cfg(test)]
    pub(super) fn once(program: &str) -> Self {
        Self { actions: 1, paths: 1, programs: BTreeSet::from([program.to_owned()]), ..Self::default() }
    }

    /// Adds another.
    pub(super) fn add(&mut self, other: &Self) {
        self.actions = self.actions.saturating_add(other.actions);
        self.paths = self.paths.saturating_add(other.paths);
        self.failed = self.failed.saturating_add(other.failed);
        for program in &other.programs {
            self.by(program);
        }
        self.by_more |= other.by_more;
        self.whys.extend(other.whys.iter().copied());
    }

    /// Adds a program.
    pub(super) fn by(&mut self, program: &str) {
        if self.programs.contains(program) {
            return;
        }
        if self.programs.len() < PROGRAMS {
            self.programs.insert(program.to_owned());
        } else {
            self.by_more = true;
        }
    }

    /// Why and how often, for a comment. The names of programs are as they were seen, and are not yet harmless.
    pub(super) fn told(&self, verb: &str) -> String {
        let times = |number: u64| match number {
            0 => "open already".to_owned(),
            1 => "once".to_owned(),
            many => format!("{many} times"),
        };
        let mut text = format!("{verb} {}", times(self.actions));
        if self.paths > 1 {
            text.push_str(&format!(" at {} places", self.paths));
        }
        if !self.programs.is_empty() {
            let names: Vec<&str> = self.programs.iter().map(String::as_str).collect();
            let more = if self.by_more { " and others" } else { "" };
            text.push_str(&format!(" by {}{more}", names.join(", ")));
        }
        if self.failed > 0 {
            let all = if self.failed == self.actions { "failed".to_owned() } else { format!("{} failed", self.failed) };
            text.push_str(&format!("; {all}"));
        }
        for why in &self.whys {
            text.push_str(match why {
                Why::Number => "; a number that the kernel gives",
                Why::Version => "; whatever its version",
                Why::Drawn => "; a name drawn anew each time",
                Why::Redacted => "; a secret stood there",
                Why::Bytes => "; `?` is a byte that is no text",
            });
        }
        text
    }
}
