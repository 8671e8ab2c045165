//! Delegation: chains of agents, judged by what their declarations say of each other.

use std::path::{Path, PathBuf};

use bailiwick_tests::declaration::Declaration;
use bailiwick_tests::entries::Entries;
use bailiwick_tests::instance::Instance;
use bailiwick_tests::requirement::Requirement::Tier2;
use bailiwick_tests::requirement::require;
use bailiwick_tests::workload::{self, Place};
use serde_json::{Value, json};

/// Scripts of the agents `a`, `b` and `c`: `a` starts `b` as often as that, `b` starts `c`, and `c` reads the file it is given.
fn chain(place: &Place, times: u32) -> [PathBuf; 3] {
    let c = place.script("c", "#!/bin/sh\nread -r x < \"$1\"\nexit 0\n");
    let b = place.script("b", &format!("#!/bin/sh\n\"{}\" \"$1\"\nexit 0\n", c.display()));
    let a = format!("n={times}\nwhile [ $n -gt 0 ]; do \"{}\" \"$1\"; n=$((n - 1)); done", b.display());
    [place.script("a", &format!("#!/bin/sh\n{a}\nexit 0\n")), b, c]
}

fn agent(name: &str, script: &Path, rest: &str) -> Declaration {
    Declaration::new(name).script(script).with(rest)
}

fn delegates(to: &str) -> String {
    format!("[scope]\ninclude = [\"base\"]\n[scope.delegate]\nto = [\"{to}\"]\n")
}

fn session_of(trail: &Entries, agent: &str) -> Value {
    trail.event("session.start").filter(|entry| entry["agent"] == agent).only()["session"].clone()
}

#[test]
fn a_delegate_that_the_delegator_does_not_name_is_found_with_the_link_where_the_chain_broke() {
    if !require(&[Tier2]) {
        return;
    }
    let place = Place::new();
    let [a, b, c] = chain(&place, 1);
    let instance = Instance::start(&[agent("a", &a, &delegates("b")), agent("b", &b, "[scope]"), agent("c", &c, "")]);
    workload::run(&a, &[&place.script("file", "x\n")]).success();

    let trail = instance.synced_trail();
    let found = trail.event("finding.delegation").only().clone();
    let (a, b, c) = (session_of(&trail, "a"), session_of(&trail, "b"), session_of(&trail, "c"));
    assert_eq!((&found["agent"], &found["session"], &found["count"]), (&json!("c"), &c, &json!(0)), "{found}");
    assert_eq!(found["delegation"], json!([{"agent": "a", "session": a}, {"agent": "b", "session": b}]));
    let attributes = &found["attributes"];
    assert_eq!(attributes["bailiwick.delegation.from"], "b", "{found}");
    assert_eq!(attributes["bailiwick.delegation.from_session"], b);
    assert_eq!(attributes["bailiwick.delegation.to"], "c");
    let declared = attributes["bailiwick.delegation.declared_in"].as_str().unwrap();
    assert!(declared.ends_with("agents.d/b.toml:2"), "{declared}");
    let start = trail.event("delegation.start").filter(|entry| entry["session"] == c).only()["uid"].clone();
    assert_eq!(attributes["bailiwick.finding.causes"], json!([start]));
    let shown = instance.call(&format!("show {}", c.as_str().unwrap())).success().stdout;
    assert!(shown.contains("\nfindings\n  finding.delegation 'b' started 'c', which"), "{shown}");
}

#[test]
fn a_chain_deeper_than_an_agent_of_it_allows_is_found() {
    if !require(&[Tier2]) {
        return;
    }
    let place = Place::new();
    let [a, b, c] = chain(&place, 1);
    let instance = Instance::start(&[
        agent("a", &a, &format!("{}max_depth = 1", delegates("b"))),
        agent("b", &b, &delegates("c")),
        agent("c", &c, ""),
    ]);
    workload::run(&a, &[&place.script("file", "x\n")]).success();

    let found = instance.synced_trail().event("finding.delegation").only().clone();
    let attributes = &found["attributes"];
    assert_eq!(
        (&attributes["bailiwick.delegation.from"], &attributes["bailiwick.delegation.to"]),
        (&json!("b"), &json!("c"))
    );
    let depths = (&attributes["bailiwick.delegation.depth"], &attributes["bailiwick.delegation.max_depth"]);
    assert_eq!(depths, (&json!(2), &json!(1)), "{found}");
}

#[test]
fn a_loop_of_delegations_makes_one_finding_and_the_rest_are_counted() {
    if !require(&[Tier2]) {
        return;
    }
    const TIMES: u64 = 20;
    let place = Place::new();
    let [a, b, c] = chain(&place, TIMES as u32);
    let instance = Instance::start(&[agent("a", &a, "[scope]"), agent("b", &b, ""), agent("c", &c, "")]);
    workload::run(&a, &[&place.script("file", "x\n")]).success();
    let ended = |trail: &Entries| trail.agent("a").event("session.end").0.len() == 1;
    bailiwick_tests::bounded::until("the end of a", workload::SOON, || ended(&instance.synced_trail()));

    let trail = instance.synced_trail();
    assert_eq!(trail.event("delegation.start").0.len() as u64, 2 * TIMES);
    let found = trail.event("finding.delegation");
    let stands_for = |entry: &Value| entry["attributes"]["bailiwick.finding.repeats"].as_u64().unwrap_or(1);
    assert_eq!(found.0.iter().map(stands_for).collect::<Vec<_>>(), [1, TIMES - 1], "{:#?}", found.0);
}

/// What became of the reading of `file` by `c`, and of the instance.
fn read_by_c(a: &str, b: &str, c: &str) -> (Instance, Value) {
    let place = Place::new();
    let file = place.join("file");
    std::fs::write(&file, "x\n").unwrap();
    let scripts = chain(&place, 1);
    let fill = |text: &str| text.replace("{FILE}", &file.display().to_string());
    let instance = Instance::start(&[
        agent("a", &scripts[0], &fill(a)),
        agent("b", &scripts[1], &fill(b)),
        agent("c", &scripts[2], &fill(c)),
    ]);
    workload::run(&scripts[0], &[&file]).success();
    let trail = instance.synced_trail();
    let of_file = |entry: &Value| entry["attributes"]["file.path"] == json!(file);
    let open = trail.agent("c").event("file.open").filter(of_file).only().clone();
    (instance, open)
}

const READS: &str = "[scope]\ninclude = [\"base\"]\n[scope.files]\nread = [\"{FILE}\"]\n";

#[test]
fn a_delegates_action_must_be_granted_by_every_agent_of_the_chain_and_the_reason_names_the_one_that_does_not() {
    if !require(&[Tier2]) {
        return;
    }
    let (instance, open) = read_by_c(&delegates("b"), &format!("{READS}[scope.delegate]\nto = [\"c\"]"), READS);
    assert_eq!(open["verdict"], "out_of_scope", "{open}");
    assert_eq!(open["reason"]["delegator"], "a", "the outermost does not grant it: {open}");
    let explained = instance.json(&format!("explain {} --json", open["uid"].as_str().unwrap()));
    let text = explained["explanation"].to_string();
    assert!(text.contains("it acts for 'a' (a > b > c), within the scope of 'b' and of 'a' as well"), "{text}");
    assert!(text.contains("of 'a': read = "), "what would allow it names whose declaration lacks it: {text}");

    let all = format!("{READS}[scope.delegate]\nto = [\"b\"]");
    let (_instance, open) = read_by_c(&all, &format!("{READS}[scope.delegate]\nto = [\"c\"]"), READS);
    assert_eq!((&open["verdict"], &open["reason"]["delegator"]), (&json!("in_scope"), &Value::Null), "{open}");
}

#[test]
fn a_delegator_that_lifts_its_limit_leaves_the_delegate_to_its_own_scope() {
    if !require(&[Tier2]) {
        return;
    }
    let b = "[scope]\ninclude = [\"base\"]\n[scope.delegate]\nto = [\"c\"]\nlimit = \"theirs\"";
    let (_instance, open) = read_by_c(&delegates("b"), b, READS);
    assert_eq!(open["verdict"], "in_scope", "neither b nor a binds it: {open}");
    let b = "[scope]\ninclude = [\"base\"]\n[scope.delegate]\nlimit = \"theirs\"";
    let (_instance, open) = read_by_c(&delegates("b"), b, READS);
    assert_eq!(open["reason"]["delegator"], "b", "it lifts its limit only for those that it names: {open}");
}

#[test]
fn a_chain_is_drawn_with_what_was_done_at_each_link() {
    if !require(&[Tier2]) {
        return;
    }
    let (instance, open) = read_by_c(&delegates("b"), &delegates("c"), READS);
    let session = open["session"].as_str().unwrap();
    let chain = instance.json(&format!("chain {session} --json"));
    let links = chain["items"].as_array().unwrap();
    let told: Vec<(&Value, u64)> = links.iter().map(|link| (&link["agent"], link["depth"].as_u64().unwrap())).collect();
    assert_eq!(told, [(&json!("a"), 0), (&json!("b"), 1), (&json!("c"), 2)], "{chain}");
    assert_eq!(links[2]["session"], session);
    assert_eq!(links[2]["is_asked"], true);
    for link in links {
        assert!(link["actions"]["process.exec"].as_u64().unwrap() >= 1, "{link}");
        assert!(link["principal"]["uid"].is_u64() && link["command"][0].is_string(), "{link}");
    }
    let whole = instance.json(&format!("chain {} --json", links[0]["session"].as_str().unwrap()));
    assert_eq!(whole["items"].as_array().unwrap().len(), 3, "from its outermost link on, all of it: {whole}");
    let text = instance.call(&format!("chain {session}")).success().stdout;
    assert!(text.starts_with("a ") && text.contains("\n└─ b ") && text.contains("\n   └─ c "), "{text}");
}
