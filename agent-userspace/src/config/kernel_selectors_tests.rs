#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

use super::super::tests::{FakeHost, declarations};
use super::*;

fn host() -> FakeHost {
    FakeHost::new(
        &[
            "/usr/bin/node",
            "/usr/bin/dash",
            "/opt/a/1/agent",
            "/opt/a/2/agent",
            "/opt/a/2/other",
            "/opt/cli.js",
            "/opt/one",
        ],
        &[("/usr/bin/sh", "/usr/bin/dash"), ("/usr/local/bin/cli", "/opt/cli.js"), ("/opt/a/current", "/opt/a/2")],
    )
}

fn selectors(tables: &[&str]) -> KernelSelectors {
    let texts: Vec<String> = tables
        .iter()
        .enumerate()
        .map(|(number, table)| format!("[agent]\nname = \"a{number}\"\n[[recognise]]\n{table}\n"))
        .collect();
    kernel_selectors(&declarations(&texts.iter().map(String::as_str).collect::<Vec<_>>(), &host()), &host())
}

fn paths(paths: &[&str]) -> Vec<PathBuf> {
    paths.iter().map(PathBuf::from).collect()
}

#[test]
fn an_executable_alone_decides_in_the_kernel_as_resolved_and_may_be_held() {
    let found = selectors(&["executable = \"/usr/bin/sh\""]);
    assert_eq!(found.executables, [DecidingExecutable { path: "/usr/bin/dash".into(), agent: 0 }]);
    assert_eq!(found.gate_targets, paths(&["/usr/bin/dash"]));
    assert!(found.provisional_executables.is_empty() && !found.all_execs_provisional());
}

#[test]
fn an_executable_with_a_hash_is_provisional_and_may_be_held() {
    let found = selectors(&[&format!("executable = \"/opt/one\"\nsha256 = \"{}\"", "0".repeat(64))]);
    assert_eq!(found.provisional_executables, paths(&["/opt/one"]));
    assert_eq!(found.gate_targets, paths(&["/opt/one"]));
    assert!(found.executables.is_empty());
}

#[test]
fn an_interpreter_is_provisional_for_the_sake_of_a_script_and_never_held() {
    let found = selectors(&["executable = \"/usr/bin/node\"\nscript = \"/usr/local/bin/cli\""]);
    assert_eq!(found.provisional_executables, paths(&["/usr/bin/node"]));
    assert_eq!(found.gate_targets, paths(&["/opt/cli.js"]), "the script itself may be held");
    let found = selectors(&["executable = \"/usr/bin/node\"\nargv = [\"agent\"]"]);
    assert_eq!((found.provisional_executables.len(), found.gate_targets.len()), (1, 0));
}

#[test]
fn an_executable_that_a_narrower_table_or_another_agent_asks_for_is_provisional() {
    let found = selectors(&["executable = \"/usr/bin/node\"", "executable = \"/usr/bin/node\"\nargv = [\"x\"]"]);
    assert!(found.executables.is_empty());
    assert_eq!(found.provisional_executables, paths(&["/usr/bin/node"]));
    let found = selectors(&["executable = \"/usr/bin/node\"", "executable = \"/usr/bin/no*\""]);
    assert!(found.executables.is_empty());
    assert_eq!(found.provisional_executables, paths(&["/usr/bin/node"]));
}

#[test]
fn a_pattern_is_expanded_to_the_files_there_are() {
    let found = selectors(&["executable = \"/opt/a/*/agent\""]);
    let agents: Vec<PathBuf> = found.executables.into_iter().map(|one| one.path).collect();
    assert_eq!(agents, paths(&["/opt/a/1/agent", "/opt/a/2/agent"]));
    assert_eq!(found.gate_targets, paths(&["/opt/a/1/agent", "/opt/a/2/agent"]));
}

#[test]
fn a_path_that_does_not_exist_yet_is_watched_for_but_not_held() {
    let found = selectors(&["executable = \"/opt/later\""]);
    assert_eq!(found.executables, [DecidingExecutable { path: "/opt/later".into(), agent: 0 }]);
    assert!(found.gate_targets.is_empty());
}

#[test]
fn a_user_limits_what_is_provisional() {
    let found = selectors(&["user = \"agent\"", "user = 7\nargv = [\"x\"]"]);
    assert_eq!(found.provisional_uids, [7, 990]);
    assert!(!found.all_execs_provisional());
}

#[test]
fn what_the_kernel_cannot_decide_makes_every_exec_provisional_and_is_named() {
    for (table, by) in [
        ("argv = [\"aider\"]", "`argv`"),
        ("environment = [\"CLAUDECODE\"]", "`environment`"),
        ("script = \"**/cli.js\"", "`script`"),
        ("unit = \"a.service\"", "`unit`"),
        ("cgroup = \"/a/**\"", "`cgroup`"),
        ("executable = \"**/claude\"", "an `executable` with `**`"),
        ("argv = [\"aider\"]\nunit = \"a.service\"", "`argv` and `unit`"),
    ] {
        let found = selectors(&[table]);
        assert!(found.all_execs_provisional(), "{table}");
        let text = &found.costly[0].text;
        assert!(text.starts_with(&format!("costly: recognised by {by} alone")), "{text}");
        assert_eq!((found.costly[0].agent, found.costly[0].origin.line), (0, 3));
    }
}
