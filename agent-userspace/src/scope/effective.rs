//! The effective scope: an agent's own, within those of the agents that it acts for.
//!
//! Input: the scopes of a chain, the agent's own first, then its delegators', innermost first ([`Layer`]); actions. Output:
//! the verdict: each scope of the chain must grant the action. Pure. An agent without a scope has no layer: it neither
//! grants nor forbids. Without any layer nothing is judged.

use super::explain::Explanation;
use super::{Action, Judgement, Scope, judge_for};
use crate::entry::{ReasonKind, Verdict};

/// One scope of a chain.
#[derive(Clone, Copy, Debug)]
pub struct Layer<'a> {
    /// Whose it is.
    pub agent: &'a str,
    /// The scope.
    pub scope: &'a Scope,
}

/// The scopes that an action must be within, all of them.
#[derive(Clone, Debug, Default)]
pub struct Effective<'a> {
    own: Option<Layer<'a>>,
    delegators: Vec<Layer<'a>>,
}

impl<'a> Effective<'a> {
    /// An agent's own scope, if it has one, and those of its delegators that bind it, innermost first.
    pub fn new(own: Option<Layer<'a>>, delegators: Vec<Layer<'a>>) -> Self {
        Self { own, delegators }
    }

    /// Whether nothing is judged.
    pub fn is_unscoped(&self) -> bool {
        self.layers().next().is_none()
    }

    /// The scopes, the agent's own first.
    pub fn layers(&self) -> impl Iterator<Item = Layer<'a>> {
        self.own.iter().chain(&self.delegators).copied()
    }

    /// Judges an action, one that failed with `errno` or one that succeeded: out of scope where any scope says so. A rule
    /// that denies is named before a grant that is missing, and the agent's own before a delegator's.
    pub fn judge(&self, action: &Action<'_>, errno: Option<i32>) -> Judgement {
        let mut decided: Option<Judgement> = None;
        let mut operations = 0;
        for layer in self.layers() {
            let judgement = self.judge_in(layer, action, errno);
            operations += judgement.operations;
            if decided.as_ref().is_none_or(|before| weight(&judgement) > weight(before)) {
                decided = Some(judgement);
            }
        }
        let decided = decided.unwrap_or_else(|| judge_for(None, action, errno));
        Judgement { operations, ..decided }
    }

    /// The verdict of one of its scopes. A reason that is a delegator's says whose.
    fn judge_in(&self, layer: Layer<'_>, action: &Action<'_>, errno: Option<i32>) -> Judgement {
        self.told(layer, judge_for(Some(layer.scope), action, errno))
    }

    /// The verdict of a rule that denies a path, in any of its scopes.
    pub fn denial_of(&self, path: &[u8]) -> Option<Judgement> {
        self.layers().find_map(|layer| Some(self.told(layer, layer.scope.denial_of(path)?)))
    }

    fn told(&self, layer: Layer<'_>, mut judgement: Judgement) -> Judgement {
        if self.is_delegators(layer)
            && let Some(reason) = &mut judgement.reason
        {
            reason.delegator = Some(layer.agent.to_owned());
        }
        judgement
    }

    /// Explains the verdict of each of its scopes on an action that succeeded.
    pub fn explain(&self, action: &Action<'_>) -> Vec<(Layer<'a>, Explanation)> {
        self.layers().map(|layer| (layer, layer.scope.explain(action))).collect()
    }

    /// Whether a layer is not the agent's own.
    pub fn is_delegators(&self, layer: Layer<'_>) -> bool {
        self.own.is_none_or(|own| !std::ptr::eq(own.scope, layer.scope))
    }
}

/// What outweighs what: a denial, a missing grant, a grant, no verdict.
fn weight(judgement: &Judgement) -> u8 {
    let denies = judgement.reason.as_ref().is_some_and(|reason| reason.kind == ReasonKind::Rule);
    match judgement.verdict {
        Verdict::OutOfScope | Verdict::Denied => 2 + u8::from(denies),
        Verdict::InScope => 1,
        Verdict::None => 0,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;
    use crate::scope::grant::{Origin, PathRule, Rules};
    use crate::scope::pattern::PathPattern;
    use crate::scope::{Access, SeenPath};

    fn scope(file: &str, read: &[&str], deny: &[&str]) -> Scope {
        let rules = |texts: &[&str]| -> Vec<PathRule> {
            let origin = Origin { file: file.into(), line: 3, column: 1 };
            let rule = |text: &&str| PathRule {
                pattern: PathPattern::parse(text).unwrap(),
                resolved: None,
                origin: origin.clone(),
            };
            texts.iter().map(rule).collect()
        };
        Scope::compile([&Rules { read: rules(read), deny: rules(deny), ..Rules::default() }]).unwrap()
    }

    fn judge(own: Option<&Scope>, delegators: &[&Scope], path: &str, errno: Option<i32>) -> (Verdict, String) {
        let own = own.map(|scope| Layer { agent: "inner", scope });
        let delegators = delegators.iter().map(|scope| Layer { agent: "outer", scope }).collect();
        let action = Action::File { path: SeenPath::whole(path.as_bytes()), access: Access::Read };
        let judgement = Effective::new(own, delegators).judge(&action, errno);
        let reason = judgement.reason.map_or_else(String::new, |reason| {
            let whose = reason.delegator.map_or_else(String::new, |delegator| format!(" of {delegator}"));
            format!("{}{whose}", reason.text)
        });
        (judgement.verdict, reason)
    }

    #[test]
    fn both_must_grant_and_the_reason_names_the_one_that_does_not() {
        let (inner, outer) =
            (scope("i", &["/srv/a/**", "/srv/b/**"], &[]), scope("o", &["/srv/b/**", "/srv/c/**"], &[]));
        let seen = |path| judge(Some(&inner), &[&outer], path, None);
        assert_eq!(seen("/srv/b/x"), (Verdict::InScope, "/srv/b/**".to_owned()));
        assert_eq!(seen("/srv/a/x"), (Verdict::OutOfScope, "/srv/b/**, /srv/c/** of outer".to_owned()));
        assert_eq!(seen("/srv/c/x"), (Verdict::OutOfScope, "/srv/a/**, /srv/b/**".to_owned()));
    }

    #[test]
    fn a_denial_of_the_delegator_outweighs_a_grant_that_is_missing() {
        let (inner, outer) = (scope("i", &["/srv/a/**"], &[]), scope("o", &["/srv/**"], &["/srv/b/**"]));
        assert_eq!(
            judge(Some(&inner), &[&outer], "/srv/b/x", None),
            (Verdict::OutOfScope, "/srv/b/** of outer".to_owned())
        );
    }

    #[test]
    fn an_agent_without_a_scope_stays_within_its_delegators_and_alone_is_not_judged() {
        let outer = scope("o", &["/srv/**"], &[]);
        assert_eq!(judge(None, &[&outer], "/etc/x", None).0, Verdict::OutOfScope);
        assert_eq!(judge(None, &[&outer], "/srv/x", None), (Verdict::InScope, "/srv/** of outer".to_owned()));
        assert_eq!(judge(None, &[], "/etc/x", None), (Verdict::None, String::new()));
    }

    #[test]
    fn a_search_that_found_nothing_is_only_judged_by_denials_of_any() {
        let (inner, outer) = (scope("i", &[], &[]), scope("o", &[], &["/srv/**"]));
        assert_eq!(judge(Some(&inner), &[&outer], "/etc/x", Some(libc::ENOENT)).0, Verdict::None);
        assert_eq!(judge(Some(&inner), &[&outer], "/srv/x", Some(libc::ENOENT)).0, Verdict::OutOfScope);
    }
}
