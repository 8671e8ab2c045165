#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

use super::*;
use crate::config::{Config, Sources, ThisHost};

fn load(text: &str) -> Result<Config, String> {
    let catalogues = vec![SourceFile::of_text("catalogue.d/own.toml", text)];
    let sources = Sources { catalogues, ..Sources::default() };
    sources.load(&ThisHost).map_err(|errors| errors.to_string())
}

#[test]
fn what_ships_is_right_and_knows_runtimes_by_more_than_their_names() {
    let catalogue = Catalogue::shipped();
    assert!(catalogue.runtimes.len() >= 20, "{}", catalogue.runtimes.len());
    assert!(catalogue.interpreters.iter().any(|one| one.name.value == "python" && !one.symbols.is_empty()));
    let image = b"/home/a/.local/share/claude/versions/2.0.14";
    assert_eq!(catalogue.runtime_of_image(image).map(|(runtime, _)| runtime.name.value.as_str()), Some("claude-code"));
    assert!(catalogue.runtime_of_image(b"/usr/bin/claude").is_none(), "a name is no evidence");
    assert_eq!(catalogue.interpreter_named(b"/usr/bin/python3.11").map(|one| one.name.value.as_str()), Some("python"));
}

#[test]
fn a_mistake_is_told_with_its_line_and_what_would_be_right() {
    for (text, line, expected) in [
        ("[[runtime]]\nname = \"x\"\nexecutabels = [\"/x\"]", 3, "did you mean `executables`?"),
        ("[[runtime]]\nname = \"x\"\nexecutables = [\"bin/x\"]", 3, "begin it with `/`, or with `**/`"),
        ("[[runtime]]\nname = \"x\"\nnpm = [\"@a\"]", 3, "as in `@scope/name`"),
        ("[[runtime]]\nname = \"x\"\npython = [\"not a module\"]", 3, "a module's name"),
        ("[[runtime]]\nname = \"x\"\nenvironment = [\"A=1\"]\npython = [\"x\"]", 3, "without `=`"),
        ("[[runtime]]\nname = \"x\"\nenvironment = [\"A\"]", 2, "names nothing that a process could be found by"),
        ("[[runtime]]\nnpm = [\"x\"]", 1, "has no `name`"),
        ("[[runtime]]\nname = \"aider\"\npython = [\"x\"]", 2, "add `replace = true`"),
        ("[[runtime]]\nname = \"nobody\"\nreplace = true\npython = [\"x\"]", 2, "so nothing is replaced"),
        ("\n[[model_server]]\nname = \"m\"\naddresses = [\"models.example:443\"]", 4, "names are not supported"),
        ("[[interpreter]]\nname = \"i\"\nsymbols = \"S\"", 3, "a list of strings"),
        ("[[runtimes]]\nname = \"x\"", 1, "did you mean `runtime`?"),
        ("[[runtime]\nname = \"x\"", 1, "is not TOML"),
    ] {
        let error = load(text).expect_err(text);
        assert!(error.starts_with(&format!("catalogue.d/own.toml:{line}:")), "{text}: {error}");
        assert!(error.contains(expected), "{text}: {error}");
    }
}

#[test]
fn an_entry_can_be_added_replaced_and_taken_out() {
    let text = "[[runtime]]\nname = \"mine\"\nscripts = [\"**/mine.py\"]\n\
                [[runtime]]\nname = \"aider\"\nreplace = true\npython = [\"other\"]\n\
                [[runtime]]\nname = \"goose\"\nreplace = true\n";
    let config = load(text).unwrap();
    let by_name = |name: &str| config.catalogue.runtimes.iter().find(|runtime| runtime.name.value == name);
    assert!(by_name("mine").is_some());
    assert_eq!(by_name("aider").unwrap().python, ["other"]);
    assert!(by_name("goose").is_none());
    let notes: Vec<_> = config.notes.iter().filter(|note| !note.shipped).map(ToString::to_string).collect();
    assert!(notes.iter().any(|note| note.contains("takes out the [[runtime]] `goose` that ships")), "{notes:?}");
}

#[test]
fn a_model_server_is_known_by_its_address() {
    let config = load("[[model_server]]\nname = \"gateway\"\naddresses = [\"10.0.0.5:8000\"]").unwrap();
    let at = |address: &str| {
        let address = address.parse().unwrap();
        config.catalogue.model_server_at(address).map(|server| server.name.value.clone())
    };
    assert_eq!(at("10.0.0.5:8000").as_deref(), Some("gateway"));
    assert_eq!(at("10.0.0.5:8001"), None);
    assert_eq!(at("127.0.0.1:11434").as_deref(), Some("ollama"));
}
