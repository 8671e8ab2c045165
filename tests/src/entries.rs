//! Questions to the entries of a trail.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use crate::workload::Open;

/// Entries, in the trail's order.
#[derive(Clone, Debug)]
pub struct Entries(pub Vec<Value>);

impl Entries {
    /// Reads JSON Lines.
    ///
    /// # Panics
    ///
    /// If a line is no JSON object.
    pub fn parse(lines: &str) -> Self {
        let parse = |line: &str| -> Value {
            let value = serde_json::from_str(line).unwrap_or_else(|error| panic!("no JSON: {error}: {line}"));
            assert!(Value::is_object(&value), "no entry: {line}");
            value
        };
        Self(lines.lines().map(parse).collect())
    }

    /// Those for which `condition` holds.
    #[must_use]
    pub fn filter(&self, condition: impl Fn(&Value) -> bool) -> Self {
        Self(self.0.iter().filter(|entry| condition(entry)).cloned().collect())
    }

    /// Those of an event.
    #[must_use]
    pub fn event(&self, name: &str) -> Self {
        self.filter(|entry| entry["event"] == name)
    }

    /// Those of a session.
    #[must_use]
    pub fn session(&self, id: &str) -> Self {
        self.filter(|entry| entry["session"] == id)
    }

    /// Those of a process.
    #[must_use]
    pub fn process(&self, tgid: u64) -> Self {
        self.filter(|entry| entry["process"]["tgid"] == tgid)
    }

    /// Those of an agent.
    #[must_use]
    pub fn agent(&self, name: &str) -> Self {
        self.filter(|entry| entry["agent"] == name)
    }

    /// How many.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The one that there is.
    ///
    /// # Panics
    ///
    /// If there is none, or more.
    #[track_caller]
    pub fn only(&self) -> &Value {
        assert_eq!(self.len(), 1, "not one entry: {:#?}", self.0);
        &self.0[0]
    }

    /// The sessions that were started, in order.
    pub fn sessions(&self) -> Vec<String> {
        let id = |entry: &Value| entry["session"].as_str().expect("a session.start has a session").to_owned();
        self.event("session.start").0.iter().map(id).collect()
    }

    /// Every process that acted, was forked or ended.
    pub fn processes(&self) -> BTreeSet<u64> {
        let acting = self.0.iter().filter_map(|entry| entry["process"]["tgid"].as_u64());
        let forked = self.0.iter().filter_map(|entry| entry["attributes"]["bailiwick.child.tgid"].as_u64());
        acting.chain(forked).collect()
    }

    /// The sum of `count`.
    pub fn count(&self) -> u64 {
        self.0.iter().map(|entry| entry["count"].as_u64().expect("every entry has a count")).sum()
    }

    /// The sum of `lost` over the gaps of an event, and of `all`.
    ///
    /// # Panics
    ///
    /// If a gap does not say how many were lost: where the hooks were not attached, nobody can add up.
    #[track_caller]
    pub fn lost(&self, event: &str) -> u64 {
        let gaps = self.event("gap").filter(|entry| entry["gap"]["kind"] == event || entry["gap"]["kind"] == "all");
        gaps.0.iter().map(|gap| gap["gap"]["lost"].as_u64().unwrap_or_else(|| panic!("uncounted: {gap}"))).sum()
    }

    /// Opens and creations, counted by key.
    pub fn opens(&self) -> BTreeMap<Open, u64> {
        let mut counts = BTreeMap::new();
        for entry in &self.0 {
            if entry["event"] != "file.open" && entry["event"] != "file.create" {
                continue;
            }
            let text = |name: &str| entry["attributes"][name].as_str().map(str::to_owned);
            let open = Open {
                tgid: entry["process"]["tgid"].as_u64().expect("an open has a process"),
                path: text("file.path").expect("an open has a path"),
                access: text("bailiwick.file.access").expect("an open has an access mode"),
                errno: text("error.type"),
            };
            *counts.entry(open).or_default() += entry["count"].as_u64().expect("every entry has a count");
        }
        counts
    }
}

#[cfg(test)]
mod tests {
    use super::Entries;

    const LINES: &str = r#"
{"event":"session.start","session":"s","count":0,"process":{"tgid":1},"attributes":{}}
{"event":"file.open","session":"s","count":1,"process":{"tgid":1},"attributes":{"file.path":"/a","bailiwick.file.access":"r"}}
{"event":"file.open","session":"s","count":4,"process":{"tgid":1},"attributes":{"file.path":"/a","bailiwick.file.access":"r"}}
{"event":"process.fork","session":"s","count":1,"process":{"tgid":1},"attributes":{"bailiwick.child.tgid":2}}
{"event":"gap","session":"s","count":0,"process":null,"attributes":{},"gap":{"kind":"file.open","lost":3}}
{"event":"gap","session":"s","count":0,"process":null,"attributes":{},"gap":{"kind":"network.connect","lost":9}}
"#;

    #[test]
    fn counts_and_losses_add_up_by_event() {
        let entries = Entries::parse(LINES.trim());
        assert_eq!((entries.event("file.open").count(), entries.lost("file.open")), (5, 3));
        assert_eq!(entries.opens().into_values().collect::<Vec<_>>(), [5]);
    }

    #[test]
    fn a_forked_child_is_a_process_though_it_did_nothing() {
        let entries = Entries::parse(LINES.trim());
        assert_eq!(entries.processes().into_iter().collect::<Vec<_>>(), [1, 2]);
        assert_eq!(entries.sessions(), ["s"]);
    }
}
