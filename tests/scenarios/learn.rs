//! A real agent's task, learnt from its first run: the second is in scope, and of the third what was planted alone is not.

use std::collections::BTreeSet;

use bailiwick_tests::bounded;
use bailiwick_tests::declaration::Declaration;
use bailiwick_tests::entries::Entries;
use bailiwick_tests::instance::Instance;
use bailiwick_tests::requirement::Requirement::{Tier2, Venv};
use bailiwick_tests::requirement::require;
use bailiwick_tests::workload;
use serde_json::Value;

use crate::mini::{Mini, NAME, SUBMIT, work};

const GRANTS_MAX: usize = 40;

/// Where nobody asked it to go.
const ELSEWHERE: &str = "127.0.0.2";

/// Three runs of one task: twice as it was asked, then with three things that nobody asked for.
fn three_runs(page: &str) -> Vec<String> {
    let planted = [
        "cat ~/.ssh/id_ed25519".to_owned(),
        format!("curl -s http://{ELSEWHERE}:9/"),
        "echo x > ../other.txt".to_owned(),
    ];
    let submit = || SUBMIT.to_owned();
    let twice = (0..2).flat_map(|_| work(page).into_iter().chain([submit()]));
    twice.chain(work(page)).chain(planted).chain([submit()]).collect()
}

/// Runs the agent once, and returns its session.
fn run(mini: &Mini, instance: &Instance) -> String {
    let mut command = instance.run_command(NAME, &mini.command_line());
    bounded::run(mini.prepare(&mut command), workload::DEADLINE).success();
    instance.synced_trail().sessions().pop().unwrap()
}

fn out_of_scope(entries: &Entries) -> BTreeSet<String> {
    let out = entries.filter(|entry| entry["verdict"] == "out_of_scope");
    let what = |entry: &Value| {
        let attributes = &entry["attributes"];
        let text = |name: &str| attributes[name].as_str().map(str::to_owned);
        text("file.path")
            .or_else(|| text("server.address"))
            .or_else(|| text("process.executable.path"))
            .unwrap_or_default()
    };
    out.0.iter().map(what).collect()
}

/// What a replay of a session would put out of scope.
fn replayed_out(instance: &Instance, declaration: &str, session: &str) -> Vec<Value> {
    let report = instance.call(&format!("replay --json --session {session} {declaration}")).json();
    assert!(report["judged"].as_u64().unwrap() > 100, "{report}");
    assert_eq!(report["gaps"], serde_json::json!([]), "{report:#}");
    let changed = report["changed"].as_array().unwrap();
    changed.iter().filter(|changed| changed["would_be"] == "out_of_scope").cloned().collect()
}

#[test]
fn a_declaration_learnt_from_one_run_covers_the_next_and_nothing_that_was_planted() {
    if !require(&[Tier2, Venv]) {
        return;
    }
    let mini = Mini::told(three_runs);
    let instance = Instance::start(&[Declaration::new(NAME)]);
    let first = run(&mini, &instance);
    let learnt = instance.call(&format!("learn {first}")).success().stdout;
    let file = instance.config("learnt.toml");
    std::fs::write(&file, &learnt).unwrap();
    let file = file.display().to_string();

    let checked = instance.call(&format!("check {file}")).success().stdout;
    let grants: usize = checked.split(", ").find_map(|part| part.split_once(" grants")?.0.parse().ok()).unwrap();
    assert!(grants <= GRANTS_MAX, "{checked}\n{learnt}");
    let commented = learnt.lines().filter(|line| line.trim_start().starts_with('"'));
    assert!(commented.clone().count() >= grants && commented.clone().all(|line| line.contains("  # ")), "{learnt}");

    mini.undo();
    let second = run(&mini, &instance);
    for session in [&first, &second] {
        let out = replayed_out(&instance, &file, session);
        assert!(out.is_empty(), "{session}: {out:#?}\n{learnt}");
    }

    mini.undo();
    std::fs::rename(&file, instance.config(&format!("agents.d/{NAME}.toml"))).unwrap();
    instance.call("reload").success();
    let third = run(&mini, &instance);
    let entries = instance.trail().session(&third);
    let planted = BTreeSet::from([
        mini.key().display().to_string(),
        ELSEWHERE.to_owned(),
        mini.place().join("other.txt").display().to_string(),
    ]);
    assert_eq!(out_of_scope(&entries), planted, "{learnt}");
    let own = instance.config(&format!("agents.d/{NAME}.toml")).display().to_string();
    instance.call(&format!("replay --session {third} {own}")).success();
    let again = instance.call(&format!("learn {third}")).success().stdout;
    assert!(planted.iter().all(|what| again.contains(what)) && again.contains("# Left out:"), "{again}");
}
