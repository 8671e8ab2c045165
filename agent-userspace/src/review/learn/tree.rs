//! Many paths to few patterns: the paths of one list as a tree, whose directories are put together where that is sensible, and
//! further where there is no room for all.
//!
//! Input: shaped paths with what was done there, and paths that must stay outside. Output: patterns with the sums of what they
//! stand for. A directory that others share (`/home/NAME`, `/etc`, `/tmp`) is never put together as a whole unless nothing else
//! is left; the file system's root never is. Refuses any pattern that would cover what must stay outside.

use std::collections::{BTreeMap, BTreeSet};

use super::shape::{Shaped, Why};
use super::uses::Use;
use crate::scope::pattern::PathPattern;

/// From so many patterns on, a directory stands for them.
const MANY: usize = 8;

/// Directories whose content belongs together.
const UNITS: [&str; 12] = [
    ".git",
    ".hg",
    "node_modules",
    "__pycache__",
    ".venv",
    "venv",
    "site-packages",
    "dist-packages",
    ".mypy_cache",
    ".pytest_cache",
    ".ruff_cache",
    "_cacache",
];

/// What lies in a home directory and in few others.
const OF_A_HOME: [&str; 16] = [
    ".bash_history",
    ".bashrc",
    ".profile",
    ".zshrc",
    ".config",
    ".cache",
    ".local",
    ".ssh",
    ".gnupg",
    ".aws",
    ".kube",
    ".npm",
    ".npmrc",
    ".netrc",
    ".gitconfig",
    ".docker",
];

/// What a place of the tree is granted as.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Granted {
    /// Not itself.
    #[default]
    Nothing,
    /// As itself.
    Itself,
    /// With everything below.
    Below,
}

#[derive(Debug, Default)]
struct Node {
    children: BTreeMap<String, Node>,
    granted: Granted,
    uses: Use,
}

/// A pattern, and what it stands for.
#[derive(Clone, Debug)]
pub(super) struct Pattern {
    pub(super) text: String,
    pub(super) uses: Use,
}

/// The paths of one list.
#[derive(Debug, Default)]
pub(super) struct Tree {
    root: Node,
    /// Paths that no pattern may cover.
    outside: BTreeSet<Vec<u8>>,
}

impl Tree {
    pub(super) fn new(outside: BTreeSet<Vec<u8>>) -> Self {
        Self { root: Node::default(), outside }
    }

    /// Adds a path; `literal` is what it is without any glob, for where the shaped one would cover what must stay outside.
    pub(super) fn add(&mut self, shaped: &[Shaped], literal: &str, uses: &Use) {
        let text: String = shaped.iter().map(|shaped| format!("/{}", shaped.text)).collect();
        let is_wide = text != literal;
        let (parts, whys): (Vec<&str>, BTreeSet<Why>) = if is_wide && self.covers_outside(&text) {
            (literal.split('/').skip(1).collect(), BTreeSet::new())
        } else {
            (shaped.iter().map(|shaped| shaped.text.as_str()).collect(), shaped.iter().filter_map(|s| s.why).collect())
        };
        let mut node = &mut self.root;
        for part in parts.into_iter().filter(|part| !part.is_empty()) {
            node = node.children.entry(part.to_owned()).or_default();
        }
        node.granted = Granted::Itself;
        node.uses.add(uses);
        node.uses.whys.extend(whys);
    }

    /// How many patterns there are.
    pub(super) fn len(&self) -> usize {
        leaves(&self.root)
    }

    /// Puts together what belongs together, and directories with many patterns.
    pub(super) fn put_together(&mut self) {
        self.collapse(1, &|at: &Place<'_>| UNITS.contains(&at.name) && at.leaves >= 2);
        self.collapse(1, &|at: &Place<'_>| at.leaves >= MANY && !at.is_shared());
    }

    /// Puts more together, so that there are fewer patterns: the least wide step that helps. Returns whether there was one.
    /// Where there are `far_too_many`, all directories of a kind at once.
    pub(super) fn shrink(&mut self, far_too_many: bool) -> bool {
        let before = self.len();
        for least in [6, 4, 3, 2] {
            if far_too_many {
                self.collapse(1, &|at: &Place<'_>| at.leaves >= least && !at.is_shared());
                if self.len() < before {
                    return true;
                }
            }
            // The deepest first: one at a time, since others may not be needed then.
            if self.collapse_deepest(&|at: &Place<'_>| at.leaves >= least && !at.is_shared()) {
                return true;
            }
        }
        self.merge_siblings();
        if self.len() < before {
            return true;
        }
        self.collapse_deepest(&|at: &Place<'_>| at.leaves >= 2 && at.depth >= 1)
    }

    /// The patterns.
    pub(super) fn patterns(&self) -> Vec<Pattern> {
        let mut patterns = Vec::new();
        gather(&self.root, &mut String::new(), &mut patterns);
        patterns
    }

    fn covers_outside(&self, pattern: &str) -> bool {
        let Ok(parsed) = PathPattern::parse(pattern) else { return true };
        self.outside.iter().any(|path| parsed.matches(path))
    }

    fn collapse(&mut self, at_least_depth: usize, wanted: &dyn Fn(&Place<'_>) -> bool) {
        let mut root = std::mem::take(&mut self.root);
        let allowed = |path: &str| !self.covers_outside(&format!("{path}/**"));
        collapse_below(&mut root, &mut String::new(), "", 0, &|at: &Place<'_>| {
            at.depth >= at_least_depth && wanted(at) && allowed(at.path)
        });
        self.root = root;
    }

    fn collapse_deepest(&mut self, wanted: &dyn Fn(&Place<'_>) -> bool) -> bool {
        let mut found: Option<(usize, usize, String)> = None;
        let covers = |path: &str| self.covers_outside(&format!("{path}/**"));
        each(&self.root, &mut String::new(), "", 0, &mut |at: &Place<'_>| {
            let better = found.as_ref().is_none_or(|(depth, leaves, _)| (at.depth, at.leaves) > (*depth, *leaves));
            if at.depth >= 1 && at.leaves >= 2 && better && wanted(at) && !covers(at.path) {
                found = Some((at.depth, at.leaves, at.path.to_owned()));
            }
        });
        let Some((_, _, path)) = found else { return false };
        let mut node = &mut self.root;
        for part in path.split('/').skip(1) {
            let Some(child) = node.children.get_mut(part) else { return false };
            node = child;
        }
        collapse_node(node);
        true
    }

    /// In directories that are shared, puts together the names that begin or end alike.
    fn merge_siblings(&mut self) {
        let mut root = std::mem::take(&mut self.root);
        let allowed = |pattern: &str| !self.covers_outside(pattern);
        merge_below(&mut root, &mut String::new(), &allowed);
        self.root = root;
    }
}

/// A place of the tree, as it is decided upon.
struct Place<'a> {
    path: &'a str,
    name: &'a str,
    depth: usize,
    leaves: usize,
    node: &'a Node,
}

impl Place<'_> {
    /// Whether others have their things there, too: what lies below has nothing to do with each other.
    fn is_shared(&self) -> bool {
        let mut parts = self.path.split('/').skip(1);
        let (first, second, third) = (parts.next().unwrap_or_default(), parts.next(), parts.next());
        let shallow = match (first, second, third) {
            (_, None, _) => true,
            ("home" | "run" | "usr" | "var", Some(_), None) | ("run", Some("user"), Some(_)) => self.depth <= 3,
            ("proc" | "sys" | "dev", ..) => self.depth <= 2,
            _ => false,
        };
        let of_a_home = self.node.children.keys().filter(|name| OF_A_HOME.contains(&name.as_str())).count();
        let container = matches!(self.name, ".config" | ".cache" | ".local")
            || (self.name == "share" && self.path.ends_with("/.local/share"));
        // What begins with a wildcard is any directory of that place.
        let is_anything = self.name == "*" || self.name == "[0-9]*";
        shallow || of_a_home > 0 || container || is_anything
    }
}

fn leaves(node: &Node) -> usize {
    match node.granted {
        Granted::Below => 1,
        Granted::Itself => 1 + node.children.values().map(leaves).sum::<usize>(),
        Granted::Nothing => node.children.values().map(leaves).sum(),
    }
}

fn each(node: &Node, path: &mut String, name: &str, depth: usize, see: &mut dyn FnMut(&Place<'_>)) {
    if node.granted == Granted::Below {
        return;
    }
    see(&Place { path, name, depth, leaves: leaves(node), node });
    for (name, child) in &node.children {
        let length = path.len();
        path.push('/');
        path.push_str(name);
        each(child, path, name, depth + 1, see);
        path.truncate(length);
    }
}

fn collapse_below(node: &mut Node, path: &mut String, name: &str, depth: usize, wanted: &dyn Fn(&Place<'_>) -> bool) {
    if node.granted == Granted::Below {
        return;
    }
    for (name, child) in &mut node.children {
        let length = path.len();
        path.push('/');
        path.push_str(name);
        collapse_below(child, path, name, depth + 1, wanted);
        path.truncate(length);
    }
    let place = Place { path, name, depth, leaves: leaves(node), node };
    if place.leaves >= 2 && wanted(&place) {
        collapse_node(node);
    }
}

fn collapse_node(node: &mut Node) {
    fn take(node: &mut Node, into: &mut Use) {
        into.add(&node.uses);
        for child in node.children.values_mut() {
            take(child, into);
        }
    }
    let mut uses = Use::default();
    take(node, &mut uses);
    node.children.clear();
    node.uses = uses;
    node.uses.whys.clear();
    node.granted = Granted::Below;
}

/// Merges what lies directly in a directory: names without children of their own.
fn merge_below(node: &mut Node, path: &mut String, allowed: &dyn Fn(&str) -> bool) {
    for (name, child) in &mut node.children {
        let length = path.len();
        path.push('/');
        path.push_str(name);
        merge_below(child, path, allowed);
        path.truncate(length);
    }
    let is_plain = |child: &Node| child.children.is_empty() && child.granted == Granted::Itself;
    let names: Vec<String> =
        node.children.iter().filter(|(_, child)| is_plain(child)).map(|(name, _)| name.clone()).collect();
    for key in [begins_with as fn(&str) -> Option<String>, ends_with, |_: &str| Some("*".to_owned())] {
        let mut groups: BTreeMap<String, Vec<&String>> = BTreeMap::new();
        for name in &names {
            if let Some(glob) = key(name) {
                groups.entry(glob).or_default().push(name);
            }
        }
        groups.retain(|glob, names| names.len() >= 2 && allowed(&format!("{path}/{glob}")));
        if groups.is_empty() {
            continue;
        }
        for (glob, names) in groups {
            let mut merged = Use::default();
            for name in names {
                if let Some(child) = node.children.remove(name) {
                    merged.add(&child.uses);
                }
            }
            let child = node.children.entry(glob).or_default();
            child.granted = Granted::Itself;
            child.uses.add(&merged);
        }
        return;
    }
}

/// The glob of names that begin with the same letters.
fn begins_with(name: &str) -> Option<String> {
    let letters: String = name.chars().take_while(|character| character.is_alphabetic()).take(16).collect();
    let is_rest_plain = !name.contains(['*', '?', '[']);
    (!letters.is_empty() && letters.len() < name.len() && is_rest_plain).then(|| format!("{letters}*"))
}

/// The glob of names that have the same ending.
fn ends_with(name: &str) -> Option<String> {
    let (_, ending) = name.rsplit_once('.').filter(|(stem, _)| !stem.is_empty())?;
    (!ending.contains(['*', '?', '['])).then(|| format!("*.{ending}"))
}

fn gather(node: &Node, path: &mut String, patterns: &mut Vec<Pattern>) {
    match node.granted {
        Granted::Nothing => {}
        Granted::Itself => {
            let text = if path.is_empty() { "/".to_owned() } else { path.clone() };
            patterns.push(Pattern { text, uses: node.uses.clone() });
        }
        Granted::Below => {
            patterns.push(Pattern { text: format!("{path}/**"), uses: node.uses.clone() });
            return;
        }
    }
    for (name, child) in &node.children {
        let length = path.len();
        path.push('/');
        path.push_str(name);
        gather(child, path, patterns);
        path.truncate(length);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree(paths: &[&str], outside: &[&str]) -> Tree {
        let mut tree = Tree::new(outside.iter().map(|path| path.as_bytes().to_vec()).collect());
        for path in paths {
            let parts = path.split('/').skip(1).filter(|part| !part.is_empty());
            let shaped: Vec<Shaped> = parts.map(|text| Shaped { text: text.to_owned(), why: None }).collect();
            tree.add(&shaped, path, &Use::once("cat"));
        }
        tree
    }

    fn texts(tree: &Tree) -> Vec<String> {
        tree.patterns().into_iter().map(|pattern| pattern.text).collect()
    }

    fn numbered(directory: &str, count: usize) -> Vec<String> {
        (0..count).map(|number| format!("{directory}/f{number}")).collect()
    }

    #[test]
    fn few_files_stay_themselves_and_many_become_their_directory() {
        let mut few = tree(&["/srv/shop/a", "/srv/shop/b", "/etc/hosts"], &[]);
        few.put_together();
        assert_eq!(texts(&few), ["/etc/hosts", "/srv/shop/a", "/srv/shop/b"]);
        let paths = numbered("/srv/shop", 9);
        let mut many = tree(&paths.iter().map(String::as_str).collect::<Vec<_>>(), &[]);
        many.put_together();
        assert_eq!(texts(&many), ["/srv/shop/**"]);
        assert_eq!(many.patterns()[0].uses.paths, 9);
    }

    #[test]
    fn what_belongs_together_is_put_together() {
        let mut tree = tree(&["/srv/shop/.git/HEAD", "/srv/shop/.git/refs/x", "/srv/shop/a"], &[]);
        tree.put_together();
        assert_eq!(texts(&tree), ["/srv/shop/.git/**", "/srv/shop/a"]);
    }

    #[test]
    fn a_shared_directory_is_not_put_together_but_what_begins_alike_in_it_is_where_room_is_needed() {
        let mut paths = numbered("/tmp", 20);
        paths.extend(numbered("/home/a", 20));
        paths.push("/home/a/.bashrc".to_owned());
        let mut tree = tree(&paths.iter().map(String::as_str).collect::<Vec<_>>(), &[]);
        tree.put_together();
        assert_eq!(tree.len(), 41);
        assert!(tree.shrink(false));
        assert_eq!(texts(&tree), ["/home/a/.bashrc", "/home/a/f*", "/tmp/f*"]);
    }

    #[test]
    fn no_pattern_covers_what_must_stay_outside() {
        let paths = numbered("/srv/shop", 20);
        let mut tree = tree(&paths.iter().map(String::as_str).collect::<Vec<_>>(), &["/srv/shop/secret"]);
        tree.put_together();
        assert_eq!(tree.len(), 20);
        while tree.shrink(false) {}
        assert_eq!(texts(&tree), ["/srv/shop/f*"]);
    }
}
