//! What stands for paths by patterns, other than grants: names of resources, credentials.
//!
//! Input: path rules, each with a number that means something to the caller; then paths. Output: the numbers of the most
//! specific pattern that covers a path, all of them where several rules have it. A look-up costs the same with ten patterns
//! or ten thousand.

use std::collections::HashMap;

use super::CompileError;
use super::grant::PathRule;
use super::pattern::PathPattern;
use super::trie::PathTrie;

/// Numbers by patterns.
#[derive(Debug, Default)]
pub struct PathIndex {
    trie: PathTrie,
    places: HashMap<PathPattern, u32>,
    numbers: Vec<Vec<u32>>,
}

impl PathIndex {
    /// Adds a rule, its resolved pattern as well.
    ///
    /// # Errors
    /// There are too many globs that no index tells apart.
    pub fn add(&mut self, rule: &PathRule, number: u32) -> Result<(), CompileError> {
        for pattern in [Some(&rule.pattern), rule.resolved.as_ref()].into_iter().flatten() {
            let place = match self.places.get(pattern) {
                Some(&place) => place,
                None => {
                    let place = u32::try_from(self.numbers.len()).unwrap_or(u32::MAX);
                    self.trie.insert(pattern, place).map_err(|error| CompileError {
                        origin: rule.origin.clone(),
                        text: pattern.text().to_owned(),
                        error,
                    })?;
                    self.places.insert(pattern.clone(), place);
                    self.numbers.push(Vec::new());
                    place
                }
            };
            if let Some(numbers) = self.numbers.get_mut(place as usize)
                && !numbers.contains(&number)
            {
                numbers.push(number);
            }
        }
        Ok(())
    }

    /// Whether nothing was added.
    pub fn is_empty(&self) -> bool {
        self.numbers.is_empty()
    }

    /// The numbers of the most specific pattern that covers the path, in the order in which they were added.
    pub fn find(&self, path: &[u8]) -> &[u32] {
        let mut operations = 0;
        let place = if self.is_empty() { None } else { self.trie.find(path, &mut operations) };
        place.and_then(|place| self.numbers.get(place as usize)).map_or(&[], Vec::as_slice)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;
    use crate::scope::grant::Origin;

    fn rule(pattern: &str, resolved: Option<&str>) -> PathRule {
        PathRule {
            pattern: PathPattern::parse(pattern).unwrap(),
            resolved: resolved.map(|resolved| PathPattern::parse(resolved).unwrap()),
            origin: Origin { file: "x".into(), line: 1, column: 1 },
        }
    }

    #[test]
    fn the_most_specific_pattern_decides_and_equal_ones_count_together() {
        let mut index = PathIndex::default();
        index.add(&rule("/srv/**", None), 0).unwrap();
        index.add(&rule("/srv/db", Some("/data/db")), 1).unwrap();
        index.add(&rule("/srv/db", None), 2).unwrap();
        assert_eq!(index.find(b"/srv/x"), [0]);
        assert_eq!(index.find(b"/srv/db"), [1, 2]);
        assert_eq!(index.find(b"/data/db"), [1]);
        assert!(index.find(b"/data").is_empty());
    }
}
