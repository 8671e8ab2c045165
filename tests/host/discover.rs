//! `bailiwick discover` on this host: real agents are found, and nothing is that only looks or sounds like one.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use bailiwick_tests::bounded;
use bailiwick_tests::held::Held;
use bailiwick_tests::requirement::Requirement::{Npm, Root, Venv};
use bailiwick_tests::requirement::require;
use bailiwick_tests::workload::{self, Place};
use serde_json::Value;

/// A real agent takes seconds to import all that it needs.
const SOON: Duration = Duration::from_secs(60);
/// One look, of a program that was built to be debugged.
const LOOK: Duration = Duration::from_secs(60);

fn discover(config: &Path, options: &[&str]) -> bounded::Said {
    let mut command = Command::new(workload::bailiwick());
    bounded::run(command.arg("--config-dir").arg(config).arg("discover").args(options), LOOK)
}

/// What is found of these processes.
fn found(config: &Path, of: &[&Held]) -> Vec<Value> {
    let all = discover(config, &["--json"]).success().json();
    let items = all["items"].as_array().unwrap().iter();
    items.filter(|item| of.iter().any(|held| item["process"]["tgid"] == held.tgid())).cloned().collect()
}

fn venv(program: &str, place: &Place) -> Command {
    let mut command = Command::new(workload::venv().join("bin").join(program));
    command.env("HOME", place.path()).env("MSWEA_CONFIGURED", "true").env("MSWEA_SILENT_STARTUP", "1");
    command
}

#[test]
fn real_agents_are_found_be_their_interpreter_renamed_and_each_with_a_declaration_that_passes() {
    if !require(&[Root, Venv, Npm]) {
        return;
    }
    let place = Place::new();
    fs::create_dir_all(place.join("config")).unwrap();
    let renamed = place.join("helper");
    fs::copy(node(), &renamed).unwrap();
    let mut gemini = Command::new(&renamed);
    gemini.arg(workload::npm().join("@google/gemini-cli/bundle/gemini.js")).arg("--acp");
    gemini.env("HOME", place.path()).env("GEMINI_API_KEY", "none");
    let agents = [
        ("mini-swe-agent", Held::start(&mut venv("mini", &place)).unwrap()),
        ("smolagents", Held::start(&mut venv("smolagent", &place)).unwrap()),
        ("gemini-cli", Held::start(&mut gemini).unwrap()),
    ];
    let all: Vec<&Held> = agents.iter().map(|(_, held)| held).collect();
    bounded::until("three agents", SOON, || found(&place.join("config"), &all).len() == agents.len());

    for (name, held) in &agents {
        let item = found(&place.join("config"), &[held]).pop().unwrap();
        assert_eq!(item["name"], *name, "{item}");
        assert_eq!((&item["kind"], &item["declared_as"]), (&"agent".into(), &Value::Null), "{item}");
        assert_eq!(item["evidence"][0]["kind"], "script", "{item}");
        let declaration =
            discover(&place.join("config"), &["--declaration", &held.tgid().to_string()]).success().stdout;
        assert_eq!(item["declaration"], declaration);
        let file = place.join("config/agents.d").join(format!("{name}.toml"));
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(&file, declaration).unwrap();
        let mut check = Command::new(workload::bailiwick());
        bounded::run(check.arg("check").arg(&file), LOOK).success();
    }
    // What was written recognises them.
    for item in found(&place.join("config"), &all) {
        assert_eq!((&item["declared_as"], &item["declaration"]), (&item["name"], &Value::Null), "{item}");
    }
}

fn node() -> PathBuf {
    let out = Command::new("node").args(["-p", "process.execPath"]).output().unwrap();
    PathBuf::from(String::from_utf8(out.stdout).unwrap().trim())
}

/// Programs that everybody runs, at work on files that are agents' or bear their names.
fn ordinary(place: &Place) -> Vec<(&'static str, Command)> {
    let mini = workload::venv().join("bin/mini");
    let gemini = workload::npm().join("@google/gemini-cli/bundle/gemini.js");
    let path = |name: &str, text: &str| {
        let path = place.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, text).unwrap();
        path
    };
    let copy = |name: &str| {
        let path = place.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::copy("/bin/sleep", &path).unwrap();
        path
    };
    let log = path("claude.log", "x\n");
    let makefile = path("codex/Makefile", "agent:\n\t@sleep 600\n");
    let server = path(
        "node_modules/cursor-agent/server.js",
        "require('http').createServer((q, s) => s.end('claude')).listen(0, '127.0.0.1');\n",
    );
    let build = path("build.js", "process.stdin.resume();\n");
    let client = path(
        "claude_client.py",
        "import http.client, http.server, threading, sys\n\
         server = http.server.HTTPServer(('127.0.0.1', 0), http.server.SimpleHTTPRequestHandler)\n\
         threading.Thread(target=server.serve_forever, daemon=True).start()\n\
         client = http.client.HTTPConnection('127.0.0.1', server.server_port)\n\
         client.connect()\nsys.stdin.read()\n",
    );
    let editor = path("edit.py", "import sys\nopen(sys.argv[1]).read()\nsys.stdin.read()\n");
    let shell = path("claude.sh", "read line\n");
    fn command<'a>(program: impl AsRef<std::ffi::OsStr>, arguments: impl IntoIterator<Item = &'a Path>) -> Command {
        let mut command = Command::new(program);
        command.args(arguments);
        command
    }
    let word = Path::new;
    let mut marked = command("/bin/bash", [word("-c"), word("read line")]);
    marked.env("CLAUDECODE", "1").env("AI_AGENT", "claude-code").env("GEMINI_CLI", "1");
    marked.env("TRACEPARENT", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01");
    vec![
        ("an editor on an agent's script", command("vim", [word("-es"), &mini])),
        ("an editor on an agent's bundle", command("vim", [word("-es"), &gemini])),
        ("a follower of an agent's log", command("tail", [word("-f"), &log])),
        ("a follower of an agent's script", command("tail", [word("-f"), &mini])),
        ("a build tool", command("make", [word("-f"), &makefile, word("agent")])),
        ("a web server of Python's", command("python3", ["-m", "http.server", "--bind", "127.0.0.1", "0"].map(word))),
        ("a Python program with an HTTP client", command("python3", [&*client])),
        ("an editor in Python on an agent's script", command("python3", [&*editor, &mini])),
        ("a Python program that names an agent", command("python3", ["-c", "input()", "-m", "aider"].map(word))),
        ("a web server of Node's", command("node", [&*server])),
        ("a build step of Node's on an agent's bundle", command("node", [&*build, &gemini])),
        ("Node's own prompt", command("node", ["-i", "--", "codex"].map(word))),
        ("a shell script that is called so", command("/bin/bash", [&*shell])),
        ("a program that is called claude", command(copy("claude"), [word("600")])),
        ("a program that is called mini", command(copy("bin/mini"), [word("600")])),
        ("a program in a directory that is called so", command(copy("codex/bin/run"), [word("600")])),
        ("a shell with markers and a trace of others", marked),
        ("a search for an agent's name", command("grep", ["-r", "claude", "-"].map(word))),
        ("an editor of streams", command("sed", ["-n", "/opencode/p"].map(word))),
        ("a language of patterns", command("awk", ["/gemini/"].map(word))),
        ("a pager's source", command("cat", ["-", "aider"].map(word))),
        ("a copier", command("dd", ["of=/dev/null", "status=none"].map(word))),
    ]
}

#[test]
fn no_ordinary_program_is_taken_for_an_agent() {
    if !require(&[Root, Venv, Npm]) {
        return;
    }
    let place = Place::new();
    fs::create_dir_all(place.join("config")).unwrap();
    let mut started = Vec::new();
    for (what, mut command) in ordinary(&place) {
        command.current_dir(place.path());
        // A machine may lack one or two of them.
        if let Ok(held) = Held::start(&mut command) {
            started.push((what, held));
        }
    }
    // An interpreter has opened its script by then.
    std::thread::sleep(Duration::from_secs(2));
    started.retain_mut(|(_, held)| !held.ended());
    assert!(started.len() >= 20, "only {} run", started.len());

    let all = discover(&place.join("config"), &["--json"]).success().json();
    for (what, held) in &started {
        let taken = all["items"].as_array().unwrap().iter().find(|item| item["process"]["tgid"] == held.tgid());
        assert_eq!(taken, None, "{what}");
    }
    let marked = started.iter().find(|(what, _)| what.contains("markers")).unwrap().1.tgid();
    let parent_is_marked = ["CLAUDECODE", "GEMINI_CLI"].iter().any(|marker| std::env::var_os(marker).is_some());
    let claims = all["claims"].as_array().unwrap();
    assert!(parent_is_marked || claims.iter().any(|claim| claim["process"]["tgid"] == marked), "{claims:?}");
}

#[test]
fn a_mistake_in_the_catalogue_is_told_with_its_line() {
    if !workload::bailiwick().exists() {
        return;
    }
    let place = Place::new();
    fs::create_dir_all(place.join("catalogue.d")).unwrap();
    let file = place.join("catalogue.d/own.toml");
    fs::write(&file, "[[runtime]]\nname = \"own\"\nexecutables = [\"bin/own\"]\n").unwrap();
    let said = discover(place.path(), &[]);
    assert_eq!(said.code(), Some(2), "{}", said.stderr);
    let expected = format!("{}:3:16: \"bin/own\" is not absolute", file.display());
    assert!(said.stderr.contains(&expected), "{}", said.stderr);
    let mut check = Command::new(workload::bailiwick());
    let said = bounded::run(check.arg("check").arg(&file), LOOK);
    assert_eq!((said.code(), said.stdout.contains(&expected)), (Some(2), true), "{}", said.stdout);

    fs::write(&file, "[[runtime]]\nname = \"own\"\nexecutables = [\"**/bin/own\"]\n").unwrap();
    discover(place.path(), &[]).success();
    let mut check = Command::new(workload::bailiwick());
    bounded::run(check.arg("check").arg(&file), LOOK).success();
}
