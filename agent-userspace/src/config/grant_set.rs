//! Named grant sets: what `include` names.
//!
//! Input: the top level of a file of `grants.d`, or of one that ships. Output: a [`GrantSet`]. A user's set has a name of
//! its own; one that bears a shipped set's name must say `replace = true`, so that nothing is overridden unseen.

use super::declaration::read_name;
use super::fault::Fault;
use super::reader::{Located, Section};
use super::rules::Reading;
use super::source::SourceFile;
use crate::scope::grant::Rules;

/// The sets that ship with the daemon.
pub const SHIPPED: [(&str, &str); 5] = [
    ("grants/base.toml", include_str!("../../grants/base.toml")),
    ("grants/git.toml", include_str!("../../grants/git.toml")),
    ("grants/node.toml", include_str!("../../grants/node.toml")),
    ("grants/python.toml", include_str!("../../grants/python.toml")),
    ("grants/rust.toml", include_str!("../../grants/rust.toml")),
];

/// The sets that ship with the daemon, as files.
pub(super) fn shipped_sources() -> Vec<SourceFile> {
    SHIPPED.iter().map(|(name, text)| SourceFile::shipped(name, text)).collect()
}

/// A grant set.
#[derive(Clone, Debug)]
pub struct GrantSet {
    /// The name that `include` uses, and where it stands.
    pub name: Located<String>,
    /// What the set is for.
    pub purpose: Option<String>,
    /// What it grants and denies.
    pub rules: Rules,
    /// Whether it ships with the daemon.
    pub shipped: bool,
    /// Whether it takes the place of the shipped set of its name.
    replace: bool,
}

/// Reads a grant set's file; none where it has no usable name.
pub(super) fn read(mut top: Section<'_>, reading: &mut Reading<'_>) -> Option<GrantSet> {
    let mut about = None;
    if let Some(mut section) = top.section("set", "[set]", &mut reading.problems) {
        let name = read_name(&mut section, "name = \"my-tools\"", reading);
        let purpose = section.plain_string("purpose", &mut reading.problems).map(|purpose| purpose.value);
        let replace = section.boolean("replace", &mut reading.problems).is_some_and(|replace| replace.value);
        about = name.map(|name| (name, purpose, replace));
        section.finish(&mut reading.problems);
    } else if !top.has("set") {
        let fault = Fault::MissingKey {
            section: "the file".to_owned(),
            key: "set",
            example: "[set] with `name = \"my-tools\"`",
        };
        reading.fault(&top.origin(), fault);
    }
    let mut rules = Rules::default();
    if let Some(section) = top.section("files", "[files]", &mut reading.problems) {
        reading.files(section, &mut rules);
    }
    if let Some(section) = top.section("network", "[network]", &mut reading.problems) {
        reading.network(section, &mut rules);
    }
    if let Some(section) = top.section("unix", "[unix]", &mut reading.problems) {
        reading.unix(section, &mut rules);
    }
    if let Some(section) = top.section("exec", "[exec]", &mut reading.problems) {
        reading.exec(section, &mut rules);
    }
    top.finish(&mut reading.problems);
    let shipped = reading.shipped;
    about.map(|(name, purpose, replace)| GrantSet { name, purpose, rules, shipped, replace })
}

/// Adds a set to those known, or reports why it cannot be.
pub(super) fn add(sets: &mut Vec<GrantSet>, set: GrantSet, reading: &mut Reading<'_>) {
    let name = set.name.value.clone();
    let known = sets.iter().position(|known| known.name.value == name);
    match known.and_then(|position| sets.get_mut(position)) {
        Some(known) if known.shipped && set.replace => {
            reading.note(&set.name.origin, format!("the grant set `{name}` takes the place of the one that ships"));
            *known = set;
        }
        Some(known) if known.shipped => reading.fault(&set.name.origin, Fault::ShippedSet { name }),
        Some(known) => {
            let first = known.name.origin.clone();
            reading.fault(&set.name.origin, Fault::DuplicateSet { name, first });
        }
        None if set.replace => {
            let shipped = sets.iter().filter(|known| known.shipped).map(|known| known.name.value.as_str());
            let shipped = shipped.collect::<Vec<_>>().join(", ");
            reading.fault(&set.name.origin, Fault::NothingToReplace { name, shipped });
        }
        None => sets.push(set),
    }
}
