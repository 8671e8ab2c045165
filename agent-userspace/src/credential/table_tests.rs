#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test fails by panicking")]

use serde_json::json;

use super::*;
use crate::config::Config;
use crate::entry::Timestamp;

/// The agents `a` and `b`: both declare the same socket, each a variable; `a` a pattern.
fn config() -> Config {
    let directory = tempfile::tempdir().unwrap();
    std::fs::create_dir(directory.path().join("agents.d")).unwrap();
    let declare = |agent: &str, rest: &str| {
        let text = format!("[agent]\nname = \"{agent}\"\nowner = \"o\"\n{rest}");
        std::fs::write(directory.path().join(format!("agents.d/{agent}.toml")), text).unwrap();
    };
    declare(
        "a",
        "[[credential]]\nname = \"k\"\nsocket = \"/run/k.sock\"\nenvironment = \"A_KEY\"\nrotate_every = \"30d\"\n\
         [[credential]]\nname = \"keys\"\nfile = \"/srv/keys/*\"\n",
    );
    declare(
        "b",
        "[[credential]]\nname = \"other\"\nsocket = [\"/run/k.sock\", \"@k\"]\nenvironment = \"B_KEY\"\nrotate_every = \"7d\"\n",
    );
    Config::load(Some(directory.path())).unwrap()
}

fn uses(agent: &str, event: &str, attributes: Value) -> Vec<(String, String, bool)> {
    let config = config();
    let mut draft = Draft::of_host(Timestamp(0), event);
    draft.agent = Some(agent.to_owned());
    draft.attributes = attributes.as_object().unwrap().clone();
    let declared = HashMap::from([((8 << 20 | 1, 77), b"/srv/keys/x".to_vec())]);
    let name = |used: &Use| config.credentials.get(used.number).unwrap().name.clone();
    let uses = config.credentials.uses(&draft, &declared);
    uses.iter().map(|used| (name(used), used.place.clone(), used.is_declared)).collect()
}

fn opened(agent: &str, path: &str, access: &str) -> Vec<(String, String, bool)> {
    uses(agent, "file.open", json!({"file.path": path, "bailiwick.file.access": access}))
}

fn one(name: &str, place: &str, is_declared: bool) -> Vec<(String, String, bool)> {
    vec![(name.to_owned(), place.to_owned(), is_declared)]
}

#[test]
fn a_file_is_a_credential_where_it_is_opened_for_reading_and_not_where_it_is_written_or_missing() {
    assert_eq!(opened("a", "/srv/keys/x", "r"), one("keys", "/srv/keys/x", true));
    assert_eq!(opened("b", "/srv/keys/x", "rw"), one("keys", "/srv/keys/x", false));
    assert!(opened("a", "/srv/keys/x", "w").is_empty() && opened("a", "/srv/x", "r").is_empty());
    let missing = json!({"file.path": "/srv/keys/x", "bailiwick.file.access": "r", "error.type": "ENOENT"});
    assert!(uses("a", "file.open", missing).is_empty());
    let linked = json!({"file.path": "/tmp/l", "bailiwick.file.access": "r", "bailiwick.file.device": "8:1",
        "bailiwick.file.inode": "77"});
    assert_eq!(uses("a", "file.open", linked), one("keys", "/srv/keys/x", true), "by another name");
}

#[test]
fn what_is_well_known_is_found_though_nobody_declares_it_and_its_exceptions_are_not() {
    for (path, name) in [
        ("/home/u/.ssh/id_ed25519", "ssh private key"),
        ("/root/.ssh/deploy", "ssh private key"),
        ("/srv/u/.aws/credentials", "aws credentials"),
        ("/etc/shadow", "password hashes of the host"),
        ("/srv/shop/.env", "environment file"),
    ] {
        assert_eq!(opened("a", path, "r"), one(name, path, false));
    }
    for path in ["/home/u/.ssh/id_ed25519.pub", "/home/u/.ssh/known_hosts", "/home/u/.ssh/config", "/etc/passwd"] {
        assert!(opened("a", path, "r").is_empty(), "{path}");
    }
}

#[test]
fn the_same_place_of_two_agents_is_one_credential_and_the_shorter_rotation_counts() {
    let config = config();
    let known = &config.credentials.known()[0];
    assert_eq!((known.name.as_str(), &known.declared_by[..]), ("k", &["a".to_owned(), "b".to_owned()][..]));
    assert_eq!(known.rotate_every, Some(Duration::from_secs(7 * 86_400)));
    assert_eq!(known.files().count(), 0);
    let connected = |agent, name| uses(agent, "unix.connect", json!({ "bailiwick.unix.path": name }));
    assert_eq!(connected("b", "/run/k.sock"), one("k", "/run/k.sock", true));
    assert_eq!(connected("c", "/run/k.sock"), one("k", "/run/k.sock", false));
    assert_eq!(uses("b", "unix.connect", json!({"bailiwick.unix.abstract": "k"})), one("k", "@k", true));
}

#[test]
fn a_variable_is_a_credential_of_whoever_declares_it() {
    let executed = |agent| uses(agent, "process.exec", json!({ VARIABLES: ["A_KEY", "GH_TOKEN", "PATH"] }));
    let both = |is_as| [one("k", "A_KEY", is_as), one("code forge token", "GH_TOKEN", false)].concat();
    assert_eq!(executed("a"), both(true));
    assert_eq!(executed("b"), both(false));
    let config = config();
    assert_eq!(config.credentials.variable(b"B_KEY=x"), Some("B_KEY"));
    assert_eq!(config.credentials.variable(b"B_KEY="), None, "an empty variable holds nothing");
    assert_eq!(config.credentials.variable(b"HOME=/root"), None);
}
