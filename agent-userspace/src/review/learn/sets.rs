//! Which grant sets a learnt declaration includes: those that cover several of the things done, and nothing left out.

use std::collections::{BTreeMap, BTreeSet};

use super::uses::Use;
use super::{Done, LISTS};
use crate::config::grant_set::GrantSet;
use crate::config::{Config, Declaration};
use crate::scope::Scope;

/// So many different things done must a set cover that no other covers already; one that the present declaration includes, fewer.
const LEAST: usize = 3;
const LEAST_INCLUDED: usize = 2;

/// Chooses sets, takes what they cover out of `paths`, and says what that was.
pub(super) fn covering(
    config: &Config,
    present: Option<&Declaration>,
    paths: &mut BTreeMap<(usize, Vec<u8>), Done>,
    outside: &BTreeMap<usize, BTreeSet<Vec<u8>>>,
) -> Vec<(String, Use)> {
    let scopes: Vec<(&GrantSet, Scope, bool)> = config
        .grant_sets
        .iter()
        .filter_map(|set| {
            let included = present.and_then(|present| present.declared_scope.as_ref());
            let is_included =
                included.is_some_and(|scope| scope.include.iter().any(|name| name.value == set.name.value));
            Some((set, Scope::compile([&set.rules]).ok()?, is_included))
        })
        .collect();
    let mut chosen = Vec::new();
    let mut left: Vec<usize> = (0..scopes.len()).collect();
    loop {
        let gain = |at: usize| {
            let (_, scope, is_included) = scopes.get(at)?;
            let keys = paths.keys();
            let covered = keys.filter(|(list, path)| covers(scope, *list, path)).count();
            let least = if *is_included { LEAST_INCLUDED } else { LEAST };
            let excluded = outside.iter().any(|(list, paths)| paths.iter().any(|path| covers(scope, *list, path)));
            let denies = || paths.keys().any(|(_, path)| scope.denial_of(path).is_some());
            (covered >= least && !excluded && !denies()).then_some((*is_included, covered, at))
        };
        // A set that is included already comes first, then the one that covers most.
        let Some((_, _, best)) = left.iter().filter_map(|at| gain(*at)).max_by_key(|gain| (gain.0, gain.1)) else {
            return chosen;
        };
        left.retain(|at| *at != best);
        let Some((set, scope, _)) = scopes.get(best) else { return chosen };
        let mut uses = Use::default();
        paths.retain(|(list, path), done| {
            let is_covered = covers(scope, *list, path);
            if is_covered {
                uses.add(&done.uses);
            }
            !is_covered
        });
        chosen.push((set.name.value.clone(), uses));
    }
}

fn covers(scope: &Scope, list: usize, path: &[u8]) -> bool {
    LISTS.get(list).is_some_and(|list| scope.trie(*list).find(path, &mut 0).is_some())
}
