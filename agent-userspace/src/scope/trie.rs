//! A trie of path patterns, one level a component: which grant covers a path, and which ones come near.
//!
//! Input: patterns with the number of their grant, then paths. Output: the most specific grant that covers a path, and
//! how many operations that took. Literal components are looked up by hash, `*` and `**` are shared edges, and globs are
//! indexed by what they begin and end with: the cost depends on the path's length and on the shapes of the patterns, not
//! on their number. Refuses more than [`MAX_IRREGULAR`] globs that only trying can tell apart, since that cost would grow.

use std::collections::HashMap;

use super::glob::Glob;
use super::pattern::{Part, PathComponents, PathPattern};

/// The most globs with `?`, classes or several `*` that begin and end alike in one place.
pub const MAX_IRREGULAR: usize = 32;
/// How many grants each place of the trie remembers, to name the nearest ones.
pub const NEAREST: usize = 3;

const ROOT: u32 = 0;

/// Too many globs that no index tells apart.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "is one of more than {MAX_IRREGULAR} globs in the same directory that begin and end alike and have `?`, `[..]` or several `*`; \
     write them with a single `*`, or name the directory's whole content with `**`"
)]
pub struct TooManyIrregular;

#[derive(Debug, Default)]
struct Node {
    literals: HashMap<Box<[u8]>, u32>,
    globs: Option<Box<GlobIndex>>,
    /// Where `**` leads: a place that stays reached, whatever components follow.
    any_depth: Option<u32>,
    is_any_depth: bool,
    /// The grant of exactly this path.
    exact: Option<u32>,
    /// The grant of this path and all below it.
    subtree: Option<u32>,
    /// The first grants that lead through here.
    through: [Option<u32>; NEAREST],
}

/// Globs by the bytes that they begin with, then by those that they end with.
#[derive(Debug, Default)]
struct GlobIndex {
    prefix_lengths: Vec<usize>,
    by_prefix: HashMap<Box<[u8]>, Bucket>,
}

#[derive(Debug, Default)]
struct Bucket {
    suffix_lengths: Vec<usize>,
    by_suffix: HashMap<Box<[u8]>, Slot>,
}

#[derive(Debug, Default)]
struct Slot {
    /// The glob that is the prefix, one `*` and the suffix.
    plain: Option<u32>,
    irregular: Vec<(Glob, u32)>,
}

/// The trie.
#[derive(Debug)]
pub struct PathTrie {
    nodes: Vec<Node>,
}

impl Default for PathTrie {
    fn default() -> Self {
        Self { nodes: vec![Node::default()] }
    }
}

impl PathTrie {
    /// Adds a pattern. Of two equal ones, the first keeps its place.
    pub fn insert(&mut self, pattern: &PathPattern, grant: u32) -> Result<(), TooManyIrregular> {
        let mut at = ROOT;
        let last = pattern.parts().len().saturating_sub(1);
        self.remember(at, grant);
        for (position, part) in pattern.parts().iter().enumerate() {
            if *part == Part::AnyDepth && position == last {
                if let Some(node) = self.nodes.get_mut(at as usize) {
                    node.subtree.get_or_insert(grant);
                }
                return Ok(());
            }
            at = self.child(at, part)?;
            self.remember(at, grant);
        }
        if let Some(node) = self.nodes.get_mut(at as usize) {
            node.exact.get_or_insert(grant);
        }
        Ok(())
    }

    /// The most specific grant that covers the path: one of the path itself before one of a directory above it, the
    /// deeper directory first, and of equals the one that was added first. Adds to `operations` what that cost.
    pub fn find(&self, path: &[u8], operations: &mut u32) -> Option<u32> {
        let components = PathComponents::of(path)?;
        let mut active: Vec<u32> = Vec::with_capacity(8);
        let mut next: Vec<u32> = Vec::with_capacity(8);
        let mut best = None;
        let root = self.node(ROOT)?;
        if components.absolute {
            active.push(ROOT);
            active.extend(root.any_depth);
        } else {
            // Where a relative path begins is not known: only `**` may stand for it.
            best = root.subtree;
            active.extend(root.any_depth);
        }
        for component in &components.list {
            best = self.lowest(&active, |node| node.subtree).or(best);
            next.clear();
            for place in &active {
                *operations += 1;
                self.step(*place, component, &mut next, operations);
            }
            next.sort_unstable();
            next.dedup();
            std::mem::swap(&mut active, &mut next);
            if active.is_empty() {
                return best;
            }
        }
        let exact = self.lowest(&active, |node| node.exact);
        exact.or_else(|| self.lowest(&active, |node| node.subtree)).or(best)
    }

    /// Grants that share a beginning with the path, component by component: those that share most of it first, of each place
    /// on the way at most [`NEAREST`]. Its cost is bounded by the path's length.
    pub fn nearest(&self, path: &[u8], operations: &mut u32) -> Vec<u32> {
        let components = PathComponents::of(path).map(|components| components.list).unwrap_or_default();
        let mut way = vec![ROOT];
        let mut at = ROOT;
        for component in components {
            *operations += 1;
            let Some(child) = self.node(at).and_then(|node| node.literals.get(component)) else { break };
            at = *child;
            way.push(at);
        }
        let mut found = Vec::with_capacity(NEAREST * way.len());
        for place in way.iter().rev().filter_map(|place| self.node(*place)) {
            *operations += 1;
            for grant in place.through.iter().flatten() {
                if !found.contains(grant) {
                    found.push(*grant);
                }
            }
        }
        found
    }

    fn node(&self, place: u32) -> Option<&Node> {
        self.nodes.get(place as usize)
    }

    fn lowest(&self, places: &[u32], grant: impl Fn(&Node) -> Option<u32>) -> Option<u32> {
        places.iter().filter_map(|place| self.node(*place).and_then(&grant)).min()
    }

    /// Adds to `next` where `component` leads from `place`.
    fn step(&self, place: u32, component: &[u8], next: &mut Vec<u32>, operations: &mut u32) {
        let Some(node) = self.node(place) else { return };
        let from = next.len();
        *operations += 1;
        next.extend(node.literals.get(component));
        if let Some(globs) = &node.globs {
            globs.find(component, next, operations);
        }
        let reached = next.len();
        for index in from..reached {
            let any_depth = next.get(index).and_then(|child| self.node(*child)).and_then(|child| child.any_depth);
            next.extend(any_depth);
        }
        if node.is_any_depth {
            next.push(place);
        }
    }

    fn remember(&mut self, place: u32, grant: u32) {
        let Some(node) = self.nodes.get_mut(place as usize) else { return };
        if node.through.contains(&Some(grant)) {
            return;
        }
        if let Some(free) = node.through.iter_mut().find(|slot| slot.is_none()) {
            *free = Some(grant);
        }
    }

    /// The place that a part leads to, made where there is none.
    fn child(&mut self, at: u32, part: &Part) -> Result<u32, TooManyIrregular> {
        let fresh = u32::try_from(self.nodes.len()).unwrap_or(u32::MAX);
        let Some(node) = self.nodes.get_mut(at as usize) else { return Ok(at) };
        let child = match part {
            Part::Literal(bytes) => *node.literals.entry(bytes.clone()).or_insert(fresh),
            Part::Glob(glob) => match glob.as_literal() {
                Some(bytes) => *node.literals.entry(bytes.into()).or_insert(fresh),
                None => node.globs.get_or_insert_default().insert(glob, fresh)?,
            },
            Part::AnyDepth => *node.any_depth.get_or_insert(fresh),
        };
        if child == fresh {
            self.nodes.push(Node { is_any_depth: *part == Part::AnyDepth, ..Node::default() });
        }
        Ok(child)
    }
}

impl GlobIndex {
    /// The place of a glob: `fresh` where it is new.
    fn insert(&mut self, glob: &Glob, fresh: u32) -> Result<u32, TooManyIrregular> {
        let (prefix, suffix) = (glob.literal_prefix(), glob.literal_suffix());
        add_length(&mut self.prefix_lengths, prefix.len());
        let bucket = self.by_prefix.entry(prefix.into()).or_default();
        add_length(&mut bucket.suffix_lengths, suffix.len());
        let slot = bucket.by_suffix.entry(suffix.into()).or_default();
        if glob.is_prefix_star_suffix() {
            return Ok(*slot.plain.get_or_insert(fresh));
        }
        if let Some((_, place)) = slot.irregular.iter().find(|(known, _)| known == glob) {
            return Ok(*place);
        }
        if slot.irregular.len() == MAX_IRREGULAR {
            return Err(TooManyIrregular);
        }
        slot.irregular.push((glob.clone(), fresh));
        Ok(fresh)
    }

    fn find(&self, component: &[u8], next: &mut Vec<u32>, operations: &mut u32) {
        for prefix_length in &self.prefix_lengths {
            let Some((prefix, rest)) = component.split_at_checked(*prefix_length) else { break };
            *operations += 1;
            let Some(bucket) = self.by_prefix.get(prefix) else { continue };
            for suffix_length in &bucket.suffix_lengths {
                let Some(start) = rest.len().checked_sub(*suffix_length) else { break };
                *operations += 1;
                let Some(slot) = rest.get(start..).and_then(|suffix| bucket.by_suffix.get(suffix)) else { continue };
                next.extend(slot.plain);
                for (glob, place) in &slot.irregular {
                    *operations += 1;
                    if glob.matches(component) {
                        next.push(*place);
                    }
                }
            }
        }
    }
}

/// Keeps `lengths` sorted and without repeats.
fn add_length(lengths: &mut Vec<usize>, length: usize) {
    if let Err(position) = lengths.binary_search(&length) {
        lengths.insert(position, length);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;

    fn pattern(text: &str) -> PathPattern {
        PathPattern::parse(text).unwrap()
    }

    fn trie(patterns: &[&str]) -> PathTrie {
        let mut trie = PathTrie::default();
        for (grant, text) in (0_u32..).zip(patterns) {
            trie.insert(&pattern(text), grant).unwrap();
        }
        trie
    }

    /// xorshift64: the same paths and patterns in every run.
    struct Dice(u64);

    impl Dice {
        fn roll(&mut self, below: usize) -> usize {
            self.0 ^= self.0 << 13;
            self.0 ^= self.0 >> 7;
            self.0 ^= self.0 << 17;
            usize::try_from(self.0 % below as u64).unwrap()
        }

        fn pick<'a>(&mut self, from: &[&'a str]) -> &'a str {
            from[self.roll(from.len())]
        }
    }

    #[test]
    fn the_trie_agrees_with_one_pattern_at_a_time_on_random_input() {
        let parts = ["a", "b", "ab", "abc", "*", "a*", "*c", "a*c", "?", "[ab]", "a?c", "*b*", "**"];
        let names = ["a", "b", "ab", "abc", "abbc", "c", "x"];
        let mut dice = Dice(0x5eed_1234_5678_9abc);
        let mut covered = 0;
        for _ in 0..400 {
            let texts: Vec<String> = (0..=dice.roll(12))
                .map(|_| {
                    let depth = 1 + dice.roll(4);
                    let joined: Vec<&str> = (0..depth).map(|_| dice.pick(&parts)).collect();
                    format!("/{}", joined.join("/"))
                })
                .filter(|text| PathPattern::parse(text).is_ok())
                .collect();
            let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
            let trie = trie(&texts);
            for _ in 0..60 {
                let depth = dice.roll(6);
                let joined: Vec<&str> = (0..depth).map(|_| dice.pick(&names)).collect();
                let path = format!("/{}", joined.join("/"));
                let naive: Vec<&str> =
                    texts.iter().copied().filter(|text| pattern(text).matches(path.as_bytes())).collect();
                let found = trie.find(path.as_bytes(), &mut 0);
                covered += usize::from(found.is_some());
                assert_eq!(found.is_some(), !naive.is_empty(), "{path} under {texts:?}: naive {naive:?}");
                if let Some(grant) = found {
                    assert!(naive.contains(&texts[grant as usize]), "{path} under {texts:?}: {grant}");
                }
            }
        }
        assert!((2_000..22_000).contains(&covered), "the dice make both outcomes common: {covered}");
    }

    #[test]
    fn the_most_specific_grant_is_the_one_named() {
        let trie = trie(&["/**", "/srv/**", "/srv/shop/**", "/srv/shop/a", "/srv/*/a"]);
        for (path, grant) in [("/x", 0), ("/srv", 1), ("/srv/x", 1), ("/srv/shop/b/c", 2), ("/srv/shop/a", 3)] {
            assert_eq!(trie.find(path.as_bytes(), &mut 0), Some(grant), "{path}");
        }
    }

    #[test]
    fn a_relative_path_is_covered_by_nothing_but_a_pattern_of_any_depth() {
        let trie = trie(&["/srv/**", "**/.env"]);
        assert_eq!(trie.find(b"srv/x", &mut 0), None);
        assert_eq!(trie.find(b"conf/.env", &mut 0), Some(1));
    }

    #[test]
    fn the_nearest_grants_share_the_longest_beginning() {
        let trie = trie(&["/etc/hosts", "/srv/a/**", "/srv/shop/x", "/srv/shop/*.txt", "/tmp/**"]);
        assert_eq!(trie.nearest(b"/srv/shop/y/z", &mut 0), [2, 3, 1, 0]);
        assert_eq!(trie.nearest(b"/tmp", &mut 0), [4, 0, 1, 2]);
        assert_eq!(PathTrie::default().nearest(b"/tmp", &mut 0), [0_u32; 0]);
    }

    #[test]
    fn more_irregular_globs_than_can_be_tried_are_refused() {
        let mut trie = PathTrie::default();
        for number in 0..32 {
            trie.insert(&pattern(&format!("/a/*{number}x*")), number).unwrap();
        }
        assert_eq!(trie.insert(&pattern("/a/*y*"), 32), Err(TooManyIrregular));
        // Elsewhere, or told apart by what they begin with, they are as good as any.
        trie.insert(&pattern("/b/*y*"), 33).unwrap();
        trie.insert(&pattern("/a/k*y*"), 34).unwrap();
        assert_eq!(trie.find(b"/a/kxy", &mut 0), Some(34));
    }

    /// Grants of every shape, `number` of them.
    fn mixed(number: u32) -> PathTrie {
        let mut trie = PathTrie::default();
        for grant in 0..number {
            let text = match grant % 10 {
                0 => format!("/srv/app{grant}/**"),
                1 => format!("/srv/app{grant}/data/file"),
                2 => format!("/srv/*/log{grant}"),
                3 => format!("/srv/pre{grant}*/x"),
                4 => format!("/srv/*suf{grant}/x"),
                5 => format!("/srv/a{grant}*z/**"),
                6 => format!("**/name{grant}"),
                7 => format!("/srv/**/deep{grant}/**"),
                8 => format!("/opt/tool{grant}/[0-9]*/bin/*"),
                _ => format!("/home/*/proj{grant}/**"),
            };
            trie.insert(&pattern(&text), grant).unwrap();
        }
        trie
    }

    #[test]
    fn finding_costs_the_same_at_ten_grants_and_at_a_hundred_thousand() {
        let (few, many) = (mixed(10), mixed(100_000));
        for path in [
            "/srv/app0/a/b/c",
            "/srv/app5551/data/file",
            "/srv/somewhere/else/entirely/with/a/long/way/down.txt",
            "/srv/pre9993xyz/x",
            "/home/someone/proj99999/src/main.rs",
            "/opt/tool8/7/bin/tool",
            "/nowhere/near",
        ] {
            let (mut at_few, mut at_many) = (0, 0);
            let _ = few.find(path.as_bytes(), &mut at_few);
            let _ = many.find(path.as_bytes(), &mut at_many);
            // Numbers of one to five digits make globs of five lengths rather than one: that is all that is added.
            let shapes = 5 * 3;
            assert!(at_many <= at_few + shapes * 3, "{path}: {at_few} operations at 10 grants, {at_many} at 100,000");
        }
        assert!(many.find(b"/srv/pre9993xyz/x", &mut 0).is_some());
        assert!(many.find(b"/home/someone/proj99999/src/main.rs", &mut 0).is_some());
    }
}
