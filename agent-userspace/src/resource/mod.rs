//! Resources: what matters, by name, in the entries of whatever touches it.
//!
//! Input: `[[resource]]` of all declarations; then drafts. Output: the attribute [`RESOURCE`], the names of what an entry is
//! about. What matters, matters whoever touches it: names hold for every agent. Of several patterns the most specific names
//! it. Pure. Refuses to guess: a path that was cut is nothing's.

use serde_json::{Map, Value};

use crate::config::resource::Resource;
use crate::entry::Draft;
use crate::scope::CompileError;
use crate::scope::network::NetworkTable;
use crate::scope::path_index::PathIndex;
use crate::scope::recorded::{address, bytes, is_cut};

/// The names of the resources that an entry is about.
pub const RESOURCE: &str = "bailiwick.resource";

/// The attributes that name files.
const FILES: [&str; 4] =
    ["file.path", "bailiwick.file.new_path", "bailiwick.file.host_path", "bailiwick.file.other_path"];

/// Where resources are, ready for look-ups.
#[derive(Debug, Default)]
pub struct ResourceTable {
    names: Vec<String>,
    files: PathIndex,
    sockets: PathIndex,
    abstract_sockets: PathIndex,
    programs: PathIndex,
    addresses: NetworkTable,
}

impl ResourceTable {
    /// Adds a resource; returns what of it cannot be looked up.
    pub fn add(&mut self, resource: &Resource) -> Vec<CompileError> {
        let known = self.names.iter().position(|name| *name == resource.name);
        let number = u32::try_from(known.unwrap_or(self.names.len())).unwrap_or(u32::MAX);
        if known.is_none() {
            self.names.push(resource.name.clone());
        }
        resource.address.iter().for_each(|rule| self.addresses.insert(&rule.pattern, number));
        let lists = [
            (&mut self.files, &resource.file),
            (&mut self.sockets, &resource.socket),
            (&mut self.abstract_sockets, &resource.socket_abstract),
            (&mut self.programs, &resource.program),
        ];
        let rules = lists.into_iter().flat_map(|(index, rules)| {
            rules.iter().filter_map(|rule| index.add(rule, number).err()).collect::<Vec<_>>()
        });
        rules.collect()
    }

    /// Says in a draft which resources it is about.
    pub fn name(&self, draft: &mut Draft) {
        if self.names.is_empty() {
            return;
        }
        let names = self.names_of(draft);
        if !names.is_empty() {
            draft.attributes.insert(RESOURCE.to_owned(), names.into());
        }
    }

    /// The names of the resources that a draft is about.
    pub fn names_of(&self, draft: &Draft) -> Vec<&str> {
        let numbers = self.touched(draft);
        let mut names: Vec<&str> =
            numbers.into_iter().filter_map(|number| self.names.get(number as usize)).map(String::as_str).collect();
        names.sort_unstable();
        names.dedup();
        names
    }

    fn touched(&self, draft: &Draft) -> Vec<u32> {
        let mut numbers = Vec::new();
        let mut look = |index: &PathIndex, attribute: &str| {
            if !is_cut(draft, attribute)
                && let Some(path) = bytes(draft, attribute)
            {
                numbers.extend(index.find(&path));
            }
        };
        match draft.event.as_str() {
            "process.exec" => {
                look(&self.programs, "process.executable.path");
                look(&self.programs, "bailiwick.exec.script");
            }
            "unix.connect" => {
                look(&self.sockets, "bailiwick.unix.path");
                if let Some(name) = bytes(draft, "bailiwick.unix.abstract") {
                    let path = [b"/", &name[..]].concat();
                    numbers.extend(self.abstract_sockets.find(&path));
                }
            }
            "network.connect" | "network.send" | "network.close" => {
                let mut operations = 0;
                let found = address(draft, "server");
                numbers.extend(found.and_then(|address| self.addresses.find(address, &mut operations)));
            }
            "fd.receive" => FILES.iter().for_each(|attribute| look(&self.files, attribute)),
            event if event.starts_with("file.") => FILES.iter().for_each(|attribute| look(&self.files, attribute)),
            _ => {}
        }
        numbers
    }
}

/// The names of the resources that an entry is about, as it says.
pub fn named_in(attributes: &Map<String, Value>) -> impl Iterator<Item = &str> {
    let names = attributes.get(RESOURCE).and_then(Value::as_array);
    names.into_iter().flatten().filter_map(Value::as_str)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use serde_json::json;

    use super::*;
    use crate::config::Config;
    use crate::entry::Timestamp;

    fn config() -> Config {
        let text = "[agent]\nname = \"a\"\nowner = \"o\"\n\
            [[resource]]\nname = \"orders\"\naddress = \"10.0.0.5:5432\"\nsocket = [\"/run/orders.sock\", \"@orders-*\"]\n\
            [[resource]]\nname = \"customers\"\nfile = [\"/srv/customers/**\", \"/srv/x\"]\n\
            [[resource]]\nname = \"deployment\"\nprogram = \"/usr/bin/deploy\"\nfile = [\"/srv/x\", \"/srv/customers/d\"]\n";
        Config::with_proposed_text("a.toml", text, std::path::Path::new("/nonexistent/x")).unwrap().0
    }

    fn names(event: &str, attributes: Value) -> Vec<String> {
        let mut draft = Draft::of_host(Timestamp(0), event);
        draft.attributes = attributes.as_object().unwrap().clone();
        config().resources.name(&mut draft);
        named_in(&draft.attributes).map(str::to_owned).collect()
    }

    #[test]
    fn an_entry_says_the_names_of_what_it_is_about() {
        assert_eq!(names("file.open", json!({"file.path": "/srv/customers/a"})), ["customers"]);
        assert_eq!(names("file.io", json!({"file.path": "/srv/customers/d"})), ["deployment"], "the most specific");
        assert_eq!(names("file.open", json!({"file.path": "/srv/x"})), ["customers", "deployment"]);
        let moved = json!({"file.path": "/tmp/a", "bailiwick.file.new_path": "/srv/customers/a"});
        assert_eq!(names("file.rename", moved), ["customers"]);
        let connect = |port| names("network.connect", json!({"server.address": "10.0.0.5", "server.port": port}));
        assert_eq!(connect(5432), ["orders"]);
        assert!(connect(22).is_empty());
        assert_eq!(names("unix.connect", json!({"bailiwick.unix.path": "/run/orders.sock"})), ["orders"]);
        assert_eq!(names("unix.connect", json!({"bailiwick.unix.abstract": "orders-7"})), ["orders"]);
        assert_eq!(names("process.exec", json!({"process.executable.path": "/usr/bin/deploy"})), ["deployment"]);
        assert!(names("process.exit", json!({"process.executable.path": "/usr/bin/deploy"})).is_empty());
    }

    #[test]
    fn a_path_that_was_cut_is_nothings() {
        let mut draft = Draft::of_host(Timestamp(0), "file.open");
        draft.attributes.insert("file.path".to_owned(), "/srv/customers/a".into());
        draft.truncated.push("file.path".to_owned());
        config().resources.name(&mut draft);
        assert_eq!(named_in(&draft.attributes).count(), 0);
    }
}
