#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use std::sync::Arc;

use serde_json::json;

use super::*;
use crate::control::testing::entry;
use crate::entry::Reason;
use crate::scope::Scope;
use crate::scope::effective::Layer;
use crate::scope::grant::{Origin, PathRule, Rules};

fn rules(texts: &[&str]) -> Vec<PathRule> {
    let origin = Origin { file: Arc::from("x.toml"), line: 1, column: 1 };
    let rule =
        |text: &&str| PathRule { pattern: PathPattern::parse(text).unwrap(), resolved: None, origin: origin.clone() };
    texts.iter().map(rule).collect()
}

fn scope() -> Scope {
    let own = Rules { read: rules(&["/srv/**"]), deny: rules(&["**/.env", "/srv/secret"]), ..Rules::default() };
    Scope::compile([&own]).unwrap()
}

fn judged(draft: &Draft) -> Option<Verdict> {
    match Reading::of(draft) {
        Reading::Action(recorded) => {
            let scope = scope();
            let own = Some(Layer { agent: "demo", scope: &scope });
            Some(recorded.judge(&Effective::new(own, Vec::new())).verdict)
        }
        Reading::NotJudged | Reading::Unknown(_) => None,
    }
}

fn rule(text: &str) -> Option<Reason> {
    Some(Reason { kind: ReasonKind::Rule, text: text.to_owned(), file: None, line: None, delegator: None })
}

#[test]
fn escaped_bytes_come_back_as_they_were() {
    let bytes = b"/tmp/\xff\\x41\xc3";
    assert_eq!(unescape(&readable(bytes).0), bytes);
}

#[test]
fn bytes_that_are_no_utf8_are_escaped_and_said_to_be() {
    assert_eq!(readable(b"a\xff\xc3b"), ("a\\xFF\\xC3b".to_owned(), true));
    assert_eq!(readable("ä".as_bytes()), ("ä".to_owned(), false));
}

#[test]
fn a_path_is_normalised_by_its_text_and_never_leaves_the_root() {
    assert_eq!(normalised(b"/a/./b//../c"), b"/a/c");
    assert_eq!(normalised(b"/../.."), b"/");
}

#[test]
fn a_recorded_open_is_the_action_that_was_judged() {
    let draft = entry(1, "file.open").path("rw", "/srv/x").with("error.type", json!("ENOENT")).build().draft;
    let Reading::Action(recorded) = Reading::of(&draft) else { panic!("no action") };
    let path = Name { bytes: b"/srv/x".to_vec(), cut: false };
    assert_eq!(recorded.deed, Deed::File { path, access: Access::ReadWrite });
    assert_eq!(recorded.errno, Some(libc::ENOENT));
}

#[test]
fn what_no_scope_judges_is_no_action() {
    let internal = entry(1, "file.open").path("rw", "/memfd:x").with("bailiwick.file.internal", json!(true)).build();
    for draft in
        [internal.draft, entry(1, "process.fork").build().draft, entry(1, "file.io").path("r", "/x").build().draft]
    {
        assert!(matches!(Reading::of(&draft), Reading::NotJudged), "{draft:?}");
    }
}

#[test]
fn the_hosts_path_must_be_granted_as_well() {
    let seen =
        |host: &str| entry(1, "file.open").path("r", "/srv/x").with("bailiwick.file.host_path", json!(host)).build();
    assert_eq!(judged(&seen("/srv/y").draft), Some(Verdict::InScope));
    assert_eq!(judged(&seen("/etc/shadow").draft), Some(Verdict::OutOfScope));
}

#[test]
fn a_name_by_which_a_rule_denied_the_file_denies_it_again() {
    let mut linked = entry(1, "file.open").path("r", "/srv/link").build().draft;
    assert_eq!(judged(&linked), Some(Verdict::InScope));
    linked.reason = rule("/srv/secret");
    assert_eq!(judged(&linked), Some(Verdict::OutOfScope));
    linked.reason = rule("**/no-such-name");
    assert_eq!(judged(&linked), Some(Verdict::InScope), "it says nothing of another name of the file");
    linked.attributes.insert("bailiwick.file.other_path".to_owned(), json!("/mnt/.env"));
    assert_eq!(judged(&linked), Some(Verdict::OutOfScope));
}

#[test]
fn what_was_judged_by_a_redacted_or_a_later_cut_value_is_unknown() {
    let mut draft = entry(1, "file.open").path("r", "/srv/[redacted]").build().draft;
    draft.redacted.push("file.path".to_owned());
    assert!(matches!(Reading::of(&draft), Reading::Unknown(_)));
    let mut draft = entry(1, "file.open").path("r", "/srv/x").verdict(Verdict::InScope).build().draft;
    draft.truncated.push("file.path".to_owned());
    assert!(matches!(Reading::of(&draft), Reading::Unknown(_)));
    draft.verdict = Verdict::OutOfScope;
    assert_eq!(judged(&draft), Some(Verdict::OutOfScope), "it was cut when it was judged");
}
