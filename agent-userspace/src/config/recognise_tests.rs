#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

use std::collections::HashMap;

use super::super::host::Host;
use super::super::tests::{FakeHost, declarations};
use super::*;

/// A process of a test's own making.
#[derive(Default)]
struct Process {
    executable: &'static str,
    identity: Option<FileIdentity>,
    script: Option<&'static str>,
    argv: Vec<Vec<u8>>,
    directory: Option<&'static str>,
    uid: u32,
    cgroup: Option<&'static str>,
    environment: HashMap<&'static str, &'static str>,
    links: HashMap<&'static str, &'static str>,
    sha256: Option<[u8; 32]>,
}

impl Lookups for Process {
    fn sha256(&self) -> Option<[u8; 32]> {
        self.sha256
    }

    fn environment(&self, key: &str) -> Option<Vec<u8>> {
        self.environment.get(key).map(|value| value.as_bytes().to_vec())
    }

    fn canonicalize(&self, path: &Path) -> Option<PathBuf> {
        self.links.get(path.to_str()?).map(PathBuf::from)
    }
}

impl Process {
    fn of(executable: &'static str, command: &str) -> Self {
        let argv = command.split(' ').map(|argument| argument.as_bytes().to_vec()).collect();
        Self { executable, argv, uid: 1000, ..Self::default() }
    }

    fn facts(&self) -> Facts<'_> {
        Facts {
            executable: Some(self.executable.as_bytes()),
            identity: self.identity,
            script: self.script.map(str::as_bytes),
            argv: &self.argv,
            working_directory: self.directory.map(str::as_bytes),
            uid: self.uid,
            cgroup: self.cgroup.map(str::as_bytes),
            lookups: self,
        }
    }
}

fn agents(tables: &[&str]) -> Vec<Declaration> {
    let texts: Vec<String> = tables
        .iter()
        .enumerate()
        .map(|(number, table)| format!("[agent]\nname = \"a{number}\"\n[[recognise]]\n{table}\n"))
        .collect();
    let host = FakeHost::new(&["/opt/agent", "/usr/bin/dash"], &[("/usr/bin/sh", "/usr/bin/dash")]);
    declarations(&texts.iter().map(String::as_str).collect::<Vec<_>>(), &host)
}

fn found(tables: &[&str], process: &Process) -> Option<(usize, Method, Confidence)> {
    let recognised = recognise(&agents(tables), &process.facts())?;
    Some((recognised.agent, recognised.method, recognised.confidence))
}

const NODE: &str = "executable = \"/usr/bin/node\"";
const CLI: &str = "executable = \"/usr/bin/node\"\nscript = \"**/@acme/agent/cli.js\"";

#[test]
fn an_executable_is_recognised_by_its_path_its_link_and_its_file() {
    let certain = Some((0, Method::Executable, Confidence::Certain));
    assert_eq!(found(&[NODE], &Process::of("/usr/bin/node", "node x.js")), certain);
    assert_eq!(found(&[NODE], &Process::of("/usr/bin/nodejs", "node x.js")), None);
    assert_eq!(found(&["executable = \"/usr/bin/sh\""], &Process::of("/usr/bin/dash", "sh")), certain);
    assert_eq!(found(&["executable = \"/opt/agents/*/bin\""], &Process::of("/opt/agents/7/bin", "bin")), certain);
    let moved = Process {
        identity: FakeHost::new(&["/opt/agent"], &[]).identity(Path::new("/opt/agent")),
        ..Process::of("/mnt/elsewhere/agent", "agent")
    };
    assert_eq!(found(&["executable = \"/opt/agent\""], &moved), certain);
}

#[test]
fn a_hash_narrows_an_executable() {
    let zeros = format!("executable = \"/opt/agent\"\nsha256 = \"{}\"", "00".repeat(32));
    let with = |sha256| Process { sha256, ..Process::of("/opt/agent", "agent") };
    assert_eq!(found(&[&zeros], &with(Some([0; 32]))), Some((0, Method::Executable, Confidence::Certain)));
    assert_eq!(found(&[&zeros], &with(Some([1; 32]))), None);
    assert_eq!(found(&[&zeros], &with(None)), None, "what cannot be hashed is not taken for it");
    let both = ["executable = \"/opt/agent\"", zeros.as_str()];
    assert_eq!(found(&both, &with(Some([0; 32]))).unwrap().0, 1);
    assert_eq!(found(&both, &with(Some([1; 32]))).unwrap().0, 0);
}

#[test]
fn a_script_that_the_kernel_ran_is_certain_and_one_named_to_an_interpreter_probable() {
    let shebang = Process {
        script: Some("/usr/lib/node_modules/@acme/agent/cli.js"),
        ..Process::of("/usr/bin/node", "node /usr/lib/node_modules/@acme/agent/cli.js")
    };
    assert_eq!(found(&[CLI], &shebang), Some((0, Method::Script, Confidence::Certain)));
    let named = Process::of("/usr/bin/node", "node /usr/lib/node_modules/@acme/agent/cli.js --help");
    assert_eq!(found(&[CLI], &named), Some((0, Method::Script, Confidence::Probable)));
    assert_eq!(found(&[CLI], &Process::of("/usr/bin/node", "node other.js @acme/agent/cli.js")), None);
    assert_eq!(found(&[CLI], &Process::of("/usr/bin/bun", "bun /x/@acme/agent/cli.js")), None, "all keys must hold");
}

#[test]
fn a_script_is_found_through_a_link_and_from_the_working_directory() {
    let links = HashMap::from([("/usr/local/bin/agent", "/usr/local/lib/@acme/agent/cli.js")]);
    let linked = Process {
        script: Some("/usr/local/bin/agent"),
        links: links.clone(),
        ..Process::of("/usr/bin/node", "node /usr/local/bin/agent")
    };
    assert_eq!(found(&[CLI], &linked), Some((0, Method::Script, Confidence::Certain)));
    let relative = Process { directory: Some("/srv/@acme/agent"), ..Process::of("/usr/bin/node", "node ./cli.js") };
    assert_eq!(found(&[CLI], &relative), Some((0, Method::Script, Confidence::Probable)));
    let elsewhere = Process { directory: Some("/srv/other"), ..Process::of("/usr/bin/node", "node ./cli.js") };
    assert_eq!(found(&[CLI], &elsewhere), None);
}

#[test]
fn the_script_is_the_first_argument_that_is_no_option_nor_an_options_value() {
    let script = |command: &str| {
        let argv: Vec<Vec<u8>> = command.split(' ').map(|argument| argument.as_bytes().to_vec()).collect();
        script_argument(&argv).map(|script| String::from_utf8(script.to_vec()).unwrap())
    };
    for (command, expected) in [
        ("node cli.js x", Some("cli.js")),
        ("node --require hook.js --no-warnings cli.js", Some("cli.js")),
        ("node -e code cli.js", None),
        ("/usr/bin/python3.11 -W ignore -u x.py", Some("x.py")),
        ("python3 -m module x.py", None),
        ("python3 -c code", None),
        ("bash -o pipefail x.sh", Some("x.sh")),
        ("bash -- -x.sh", Some("-x.sh")),
        ("node --", None),
        ("node", None),
        ("pythonic -W x.py", Some("x.py")),
    ] {
        assert_eq!(script(command).as_deref(), expected, "{command}");
    }
    assert_eq!(script_argument(&[]), None);
}

#[test]
fn a_marker_or_argv_alone_is_a_claim_and_beside_something_stronger_it_narrows() {
    let process = Process {
        environment: HashMap::from([("CLAUDECODE", "1"), ("AI_AGENT", "x")]),
        ..Process::of("/usr/bin/python3.11", "python3 -m aider --yes")
    };
    assert_eq!(
        found(&["environment = [\"CLAUDECODE\"]"], &process),
        Some((0, Method::Environment, Confidence::Claimed))
    );
    assert_eq!(found(&["environment = [\"CLAUDECODE=[0-9]\"]"], &process).unwrap().0, 0);
    assert_eq!(found(&["environment = [\"CLAUDECODE=2\"]"], &process), None);
    assert_eq!(found(&["environment = [\"CLAUDECODE\", \"GEMINI_CLI\"]"], &process), None, "all must be there");
    assert_eq!(found(&["argv = [\"-m\", \"aider\"]"], &process), Some((0, Method::Argv, Confidence::Claimed)));
    assert_eq!(found(&["argv = [\"-m\", \"--yes\"]"], &process), None, "one after the other");
    let narrowed = "executable = \"/usr/bin/python3*\"\nargv = [\"-m\", \"aider\"]";
    assert_eq!(found(&[narrowed], &process), Some((0, Method::Executable, Confidence::Certain)));
}

#[test]
fn a_user_a_unit_and_a_control_group_are_certain() {
    let process =
        Process { uid: 990, cgroup: Some("/system.slice/agent@7.service/worker"), ..Process::of("/usr/bin/x", "x") };
    for (table, method) in [
        ("user = \"agent\"", Method::User),
        ("user = 990", Method::User),
        ("unit = \"agent@*.service\"", Method::Unit),
        ("cgroup = \"/system.slice/agent@7.service/**\"", Method::Cgroup),
    ] {
        assert_eq!(found(&[table], &process), Some((0, method, Confidence::Certain)), "{table}");
    }
    for table in ["user = 991", "unit = \"agent.service\"", "cgroup = \"/system.slice\""] {
        assert_eq!(found(&[table], &process), None, "{table}");
    }
}

#[test]
fn the_stronger_kind_wins_whatever_the_order_of_the_files() {
    let process = Process {
        uid: 990,
        cgroup: Some("/system.slice/agent.service"),
        script: Some("/opt/x.sh"),
        environment: HashMap::from([("AI_AGENT", "x")]),
        ..Process::of("/usr/bin/dash", "sh /opt/x.sh")
    };
    let strongest_first = [
        "executable = \"/usr/bin/dash\"",
        "script = \"/opt/x.sh\"",
        "unit = \"agent.service\"",
        "cgroup = \"/system.slice/**\"",
        "user = 990",
        "argv = [\"sh\"]",
        "environment = [\"AI_AGENT\"]",
    ];
    for first in 0..strongest_first.len() {
        let mut rest = strongest_first[first..].to_vec();
        assert_eq!(found(&rest, &process).unwrap().0, 0, "{rest:?}");
        rest.reverse();
        assert_eq!(found(&rest, &process).unwrap().0, rest.len() - 1, "{rest:?}");
    }
    let named = Process { script: None, ..process };
    let tables = ["script = \"/opt/x.sh\"", "user = 990", "argv = [\"sh\"]"];
    assert_eq!(found(&tables, &named).unwrap().0, 1, "a user outranks a script named to an interpreter");
    assert_eq!(found(&[tables[2], tables[0]], &named).unwrap().0, 1, "which outranks argv");
}

#[test]
fn the_narrower_table_wins_and_a_path_beats_a_pattern() {
    let process = Process::of("/usr/bin/node", "node /x/@acme/agent/cli.js");
    assert_eq!(found(&[NODE, CLI], &process), Some((1, Method::Script, Confidence::Probable)));
    assert_eq!(found(&[CLI, NODE], &Process::of("/usr/bin/node", "node other.js")).unwrap().0, 1);
    assert_eq!(found(&["executable = \"/usr/bin/nod*\"", NODE], &process).unwrap().0, 1);
    assert_eq!(found(&["executable = \"/usr/**\"", "executable = \"/usr/bin/*\""], &process).unwrap().0, 1);
}

#[test]
fn a_process_that_nothing_asks_for_is_nobodys() {
    assert_eq!(found(&[NODE, CLI, "user = 1"], &Process::of("/usr/bin/ls", "ls")), None);
    assert_eq!(recognise(&[], &Process::of("/usr/bin/ls", "ls").facts()), None);
}
