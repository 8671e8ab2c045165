//! Who may start whom: what the declarations say of a chain of delegations.
//!
//! Input: declarations, and a chain of agents' names, outermost first. Output: the first link that a declaration does not
//! allow; circles, as faults with their line. Pure. Refuses: declarations that delegate in a circle, since a chain could
//! then go on without an end.

use super::declaration::{Declaration, ParsedDeclaration};
use super::fault::Fault;
use super::rules::Reading;
use crate::entry::Delegator;
use crate::scope::effective::{Effective, Layer};
use crate::scope::grant::Origin;

/// The chains of delegators of one agent that are told.
pub const MOST_CHAINS: usize = 16;

/// Why a link is not allowed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Broken {
    /// The delegator does not name the delegate in `to`.
    NotNamed {
        /// Where the delegator is declared.
        declared: Origin,
    },
    /// The link is deeper below an agent of the chain than that one's `max_depth`.
    TooDeep {
        /// The agent that sets the limit.
        limit_of: String,
        /// Its limit.
        max_depth: u64,
        /// How deep the link is below it.
        depth: u64,
        /// Where that agent is declared.
        declared: Origin,
    },
}

/// Whether the last link of a chain is allowed: that from the last of `delegators` (outermost first) to `delegate`. An agent
/// without a `[scope]` forbids nothing; one that is not declared any more neither.
pub fn broken_link<'a>(
    delegators: &[&str],
    delegate: &str,
    declaration: impl Fn(&str) -> Option<&'a Declaration>,
) -> Option<Broken> {
    let declared = |agent: &str| {
        let declaration = declaration(agent)?;
        Some((declaration, &declaration.declared_scope.as_ref()?.delegate))
    };
    let (from, _) = delegators.split_last()?;
    if let Some((declaration, rules)) = declared(from)
        && !rules.to.iter().any(|name| name.value == delegate)
    {
        return Some(Broken::NotNamed { declared: declaration.about.origin.clone() });
    }
    let depths = (1_u64..).zip(delegators.iter().rev());
    let (depth, limit_of, declaration, max_depth) = depths
        .filter_map(|(depth, agent)| {
            let (declaration, rules) = declared(agent)?;
            Some((depth, *agent, declaration, rules.max_depth.filter(|&most| depth > most)?))
        })
        .next()?;
    let declared = declaration.about.origin.clone();
    Some(Broken::TooDeep { limit_of: limit_of.to_owned(), max_depth, depth, declared })
}

/// The scope that binds an agent's session: its own, within those of its delegators (outermost first), up to the first that
/// lifts its limit for the one it delegated to.
pub fn effective<'a>(
    agent: &'a str,
    delegation: &'a [Delegator],
    declaration: impl Fn(&str) -> Option<&'a Declaration>,
) -> Effective<'a> {
    let layer = |agent: &'a str| Some(Layer { agent, scope: declaration(agent)?.scope.as_deref()? });
    let mut delegators = Vec::new();
    let mut delegate = agent;
    for link in delegation.iter().rev() {
        if declaration(&link.agent).is_some_and(|delegator| delegator.lifts_limit_for(delegate)) {
            break;
        }
        delegators.extend(layer(&link.agent));
        delegate = &link.agent;
    }
    Effective::new(layer(agent), delegators)
}

/// The chains of delegators, outermost first, that the declarations allow an agent to be started by; of many the first
/// [`MOST_CHAINS`].
pub fn chains_to(agent: &str, declarations: &[Declaration]) -> Vec<Vec<String>> {
    let mut chains: Vec<Vec<String>> = Vec::new();
    let mut waiting = vec![vec![agent.to_owned()]];
    while let Some(chain) = waiting.pop() {
        let Some(first) = chain.first() else { continue };
        let by = declarations.iter().filter(|one| {
            let to = one.declared_scope.iter().flat_map(|scope| &scope.delegate.to);
            to.into_iter().any(|name| name.value == *first)
        });
        for delegator in by {
            if chains.len() >= MOST_CHAINS {
                return chains;
            }
            let longer: Vec<String> =
                std::iter::once(delegator.name().to_owned()).chain(chain.iter().cloned()).collect();
            chains.push(longer.split_last().map(|(_, delegators)| delegators.to_vec()).unwrap_or_default());
            waiting.push(longer);
        }
    }
    chains
}

/// Reports each circle once, at the line that closes it.
pub(super) fn refuse_circles(parsed: &[ParsedDeclaration], reading: &mut Reading<'_>) {
    let position = |name: &str| parsed.iter().position(|one| one.about.name == name);
    let to: Vec<Vec<(usize, &Origin)>> = parsed
        .iter()
        .map(|one| {
            let names = one.scope.iter().flat_map(|scope| &scope.delegate.to);
            names.filter_map(|name| Some((position(&name.value)?, &name.origin))).collect()
        })
        .collect();
    // Depth first: 0 not visited, 1 on the way, 2 done. A link to one on the way closes a circle.
    let mut state = vec![0_u8; parsed.len()];
    for start in 0..parsed.len() {
        let mut way: Vec<(usize, usize)> = Vec::new();
        if state.get(start) == Some(&0) {
            way.push((start, 0));
        }
        while let Some((at, next)) = way.last_mut() {
            let at = *at;
            if let Some(state) = state.get_mut(at) {
                *state = 1;
            }
            let Some(&(target, origin)) = to.get(at).and_then(|to| to.get(*next)) else {
                if let Some(state) = state.get_mut(at) {
                    *state = 2;
                }
                way.pop();
                continue;
            };
            *next += 1;
            match state.get(target) {
                Some(0) => way.push((target, 0)),
                Some(1) => {
                    let circle = way.iter().map(|&(at, _)| at).skip_while(|&at| at != target).chain([target]);
                    let names: Vec<&str> =
                        circle.filter_map(|at| parsed.get(at)).map(|one| one.about.name.as_str()).collect();
                    reading.fault(origin, Fault::DelegationCircle(names.join(" > ")));
                }
                Some(_) | None => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;
    use crate::config::Config;

    fn config(agents: &[(&str, &str)]) -> Result<Config, String> {
        let place = tempfile::tempdir().unwrap();
        std::fs::create_dir(place.path().join("agents.d")).unwrap();
        for (name, rest) in agents {
            let text = format!("[agent]\nname = \"{name}\"\nowner = \"o\"\n{rest}\n");
            std::fs::write(place.path().join(format!("agents.d/{name}.toml")), text).unwrap();
        }
        Config::load(Some(place.path()))
            .map_err(|errors| errors.to_string().replace(&format!("{}/agents.d/", place.path().display()), ""))
    }

    fn to(names: &str, rest: &str) -> String {
        format!("[scope.delegate]\nto = [{names}]\n{rest}")
    }

    #[test]
    fn declarations_that_delegate_in_a_circle_are_refused_with_the_line_that_closes_it() {
        let error = config(&[("a", &to("\"b\"", "")), ("b", &to("\"c\"", "")), ("c", &to("\"a\"", ""))]).unwrap_err();
        assert_eq!(
            error,
            "c.toml:5:7: the agents delegate in a circle: a > b > c > a, so that a chain of them need not end; take one of \
             these links away"
        );
        let error = config(&[("a", &to("\"a\"", ""))]).unwrap_err();
        assert!(error.starts_with("a.toml:5:7: the agents delegate in a circle: a > a,"), "{error}");
    }

    #[test]
    fn two_ways_to_one_delegate_are_no_circle() {
        assert!(config(&[("a", &to("\"b\", \"c\"", "")), ("b", &to("\"c\"", "")), ("c", "")]).is_ok());
    }

    #[test]
    fn a_link_breaks_where_the_delegate_is_not_named_or_a_limit_is_passed() {
        let agents = [("a", to("\"b\"", "max_depth = 1")), ("b", to("\"c\"", "")), ("c", String::new())];
        let agents: Vec<(&str, &str)> = agents.iter().map(|(name, text)| (*name, text.as_str())).collect();
        let config = config(&agents).unwrap();
        let broken = |chain: &[&str], delegate| broken_link(chain, delegate, |name| config.declaration(name));
        assert_eq!(broken(&["a"], "b"), None);
        assert_eq!(broken(&["b"], "c"), None);
        assert!(
            matches!(broken(&["a"], "c"), Some(Broken::NotNamed { declared }) if declared.file.ends_with("a.toml"))
        );
        assert!(matches!(
            broken(&["a", "b"], "c"),
            Some(Broken::TooDeep { limit_of, max_depth: 1, depth: 2, .. }) if limit_of == "a"
        ));
        assert_eq!(broken(&["c"], "a"), None, "an agent without a scope forbids nothing");
        assert_eq!(broken(&["gone"], "a"), None);
        assert_eq!(broken(&[], "a"), None);
    }
}
