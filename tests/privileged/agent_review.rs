//! The review of an agent, from what it really did to the narrower scope in force.

use std::io::Write;
use std::process::{Command, Stdio};

use bailiwick_tests::declaration::Declaration;
use bailiwick_tests::instance::{Instance, Setup};
use bailiwick_tests::requirement::Requirement::Tier2;
use bailiwick_tests::requirement::require;
use bailiwick_tests::{bounded, workload};
use serde_json::Value;

/// An agent `opener` with grants that it uses and grants that it does not, after a session of its own.
fn used() -> Instance {
    let opener = Declaration::new("opener").with(
        "review_every = \"90d\"\n\n[scope]\ninclude = [\"rust\"]\n\n[scope.files]\nread = [\n    \"/**\",\n    \
         \"/opt/nothing/**\", # nobody knows why\n]\ndeny = [\"/etc/shadow\"]\n\n[scope.exec]\nallow = [\"/**\"]\n\n\
         [scope.privileges]\nallow = [\"ptrace\"]",
    );
    let instance = Setup::new().agent(&opener).start();
    instance.read_files(20);
    let _ = instance.run("opener", &["cat", "/etc/shadow"]);
    instance.sync();
    instance
}

fn texts(items: &Value) -> Vec<&str> {
    items.as_array().unwrap().iter().map(|item| item["text"].as_str().unwrap()).collect()
}

#[test]
fn a_review_tells_what_was_used_and_what_was_not_and_its_diff_narrows_the_scope_for_good() {
    if !require(&[Tier2]) {
        return;
    }
    let instance = used();
    let review = instance.json("review opener --json");
    assert_eq!(texts(&review["granted_unused"]), ["/opt/nothing/**", "ptrace", "rust"], "{review:#}");
    let denied = &review["used_not_granted"][0];
    assert_eq!((denied["event"].as_str(), denied["what"].as_str()), (Some("file.open"), Some("/etc/shadow")));
    let uid = denied["uid"].as_str().unwrap();
    assert!(instance.call(&format!("explain {uid}")).success().stdout.contains("/etc/shadow"));
    let read = review["last_used"].as_array().unwrap().iter().find(|used| used["grant"] == "files.read").unwrap();
    assert!(read["count"].as_u64() > Some(20) && read["last"].is_string(), "{read}");
    assert_eq!(review["completeness"]["lost"], 0);
    assert_eq!((review["overdue"].as_bool(), review["last_review"].is_null()), (Some(false), true));

    let diff = instance.call("review opener --diff").success().stdout;
    assert_eq!(diff, review["diff"].as_str().unwrap());
    let file = instance.config("agents.d/opener.toml");
    apply(&diff, &file);
    instance.call("reload").success();
    let narrowed = instance.json("review opener --json");
    assert_eq!(narrowed["granted_unused"].as_array().unwrap().len(), 0, "{narrowed:#}");
    assert_eq!(narrowed["diff"], "");
    let out_of_scope =
        |instance: &Instance| instance.trail().0.iter().filter(|e| e["verdict"] == "out_of_scope").count();
    let before = out_of_scope(&instance);
    instance.read_files(20);
    instance.sync();
    assert_eq!(out_of_scope(&instance), before, "the same work is in the narrower scope");
}

fn apply(diff: &str, file: &std::path::Path) {
    // Its paths are the host's, without the first slash.
    let mut git = Command::new("git");
    git.args(["apply", "-"]).current_dir("/").stdin(Stdio::piped());
    let mut child = git.spawn().unwrap();
    child.stdin.take().unwrap().write_all(diff.as_bytes()).unwrap();
    assert!(child.wait().unwrap().success(), "{diff}");
    assert!(!std::fs::read_to_string(file).unwrap().contains("/opt/nothing"));
}

#[test]
fn an_accepted_review_is_in_the_trail_with_who_and_what_and_is_the_last_one() {
    if !require(&[Tier2]) {
        return;
    }
    let instance = used();
    let said = instance.call("review opener --accept").success().stdout;
    let trail = instance.trail();
    let decision = trail.0.iter().find(|entry| entry["event"] == "decision.review").unwrap();
    assert!(said.contains(decision["uid"].as_str().unwrap()), "{said}");
    assert_eq!((decision["agent"].as_str(), decision["count"].as_u64()), (Some("opener"), Some(0)));
    assert_eq!(decision["principal"]["uid"], 0);
    let attributes = &decision["attributes"];
    assert_eq!(attributes["bailiwick.review.granted_unused"], 3);
    assert_eq!(attributes["bailiwick.review.used_not_granted"], 1);
    assert_eq!(attributes["bailiwick.review.declaration_sha256"].as_str().unwrap().len(), 64);
    let review = instance.json("review opener --json");
    assert_eq!((&review["last_review"]["uid"], &review["last_review"]["by"]), (&decision["uid"], &"root".into()));
    let text = instance.call("review opener").success().stdout;
    assert!(text.contains(&format!("by root ({})", decision["uid"].as_str().unwrap())), "{text}");
}

#[test]
fn what_was_not_put_into_force_cannot_be_accepted() {
    if !require(&[Tier2]) {
        return;
    }
    let instance = used();
    let file = instance.config("agents.d/opener.toml");
    let text = std::fs::read_to_string(&file).unwrap();
    std::fs::write(&file, text.replace("\"ptrace\"", "")).unwrap();
    let refused = instance.call("review opener --accept");
    assert_eq!(refused.code(), Some(2));
    assert!(refused.stderr.contains("was changed since; `bailiwick reload`"), "{}", refused.stderr);
    assert!(instance.trail().0.iter().all(|entry| entry["event"] != "decision.review"));
    let unknown = instance.call("review nobody");
    assert_eq!(unknown.code(), Some(2));
    assert!(unknown.stderr.contains("declared are: opener"), "{}", unknown.stderr);
}

#[test]
fn the_page_has_its_charts_and_what_is_read_offline_is_the_same() {
    if !require(&[Tier2]) {
        return;
    }
    let instance = used();
    let page = instance.call("review opener --html").success().stdout;
    assert!(page.starts_with("<!doctype html>") && page.ends_with("</html>\n"));
    for part in ["id=\"activity\"", "<svg", "class=\"bars\"", "/opt/nothing/**", "id=\"diff\""] {
        assert!(page.contains(part), "{part}");
    }
    let offline = bounded::run(&mut instance.command(&["review", "opener", "--offline", "--json"]), workload::DEADLINE);
    assert_eq!(offline.success().json()["granted_unused"], instance.json("review opener --json")["granted_unused"]);
}

#[test]
fn a_review_that_is_overdue_is_found_when_the_daemon_starts_and_not_after_it_was_done() {
    if !require(&[Tier2]) {
        return;
    }
    let opener = Declaration::new("opener").with("review_every = \"1h\"");
    let mut instance = Setup::new().agent(&opener).start();
    instance.read_files(1);
    let found = |instance: &Instance| {
        instance.sync();
        instance.trail().0.into_iter().filter(|entry| entry["event"] == "finding.review_overdue").collect::<Vec<_>>()
    };
    assert_eq!(instance.stop(), Some(0));
    instance.start_daemon();
    assert_eq!(found(&instance).len(), 0, "an hour is not over");
    instance.write("agents.d/opener.toml", &opener.text().replace("1h", "1s"));
    assert_eq!(instance.stop(), Some(0));
    instance.start_daemon();
    bounded::until("it is found", workload::DEADLINE, || found(&instance).len() == 1);
    let finding = found(&instance).remove(0);
    assert_eq!(finding["agent"], "opener");
    let text = finding["attributes"]["bailiwick.finding.text"].as_str().unwrap();
    assert!(text.contains("its owner is tests@example.com"), "{text}");
    assert_eq!(instance.json("review opener --json")["overdue"], true);
    instance.write("agents.d/opener.toml", opener.text());
    instance.call("reload").success();
    instance.call("review opener --accept").success();
    assert_eq!(instance.json("review opener --json")["overdue"], false);
    assert_eq!(instance.stop(), Some(0));
    instance.start_daemon();
    assert_eq!(found(&instance).len(), 1);
}
