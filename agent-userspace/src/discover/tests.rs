//! A host that is made up: its processes, files and sockets, as `/proc` would show them.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use super::*;
use crate::config::Config;

struct Host {
    place: tempfile::TempDir,
    next: u32,
}

impl Host {
    fn new() -> Self {
        let place = tempfile::tempdir().unwrap();
        fs::create_dir_all(place.path().join("proc")).unwrap();
        fs::create_dir_all(place.path().join("root")).unwrap();
        fs::write(place.path().join("proc/stat"), "cpu 1\nbtime 1700000000\n").unwrap();
        Self { place, next: 100 }
    }

    fn file(&self, path: &str, text: &str) {
        let path = self.place.path().join("root").join(path.trim_start_matches('/'));
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    fn link(&self, path: &str, target: &str) {
        let path = self.place.path().join("root").join(path.trim_start_matches('/'));
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        symlink(target, path).unwrap();
    }

    /// Starts a process; its command line is split at blanks.
    fn start(&mut self, parent: u32, executable: &str, command: &str) -> u32 {
        self.next += 1;
        let (tgid, directory) = (self.next, self.directory(self.next));
        fs::create_dir_all(directory.join("fd")).unwrap();
        fs::create_dir_all(directory.join("net")).unwrap();
        symlink(executable, directory.join("exe")).unwrap();
        symlink(self.place.path().join("root"), directory.join("root")).unwrap();
        symlink("/srv", directory.join("cwd")).unwrap();
        fs::write(directory.join("cmdline"), command.replace(' ', "\0") + "\0").unwrap();
        let stat = format!("{tgid} (x) S {parent} 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 {} 0", 1000 + tgid);
        fs::write(directory.join("stat"), stat).unwrap();
        fs::write(directory.join("status"), format!("PPid:\t{parent}\nUid:\t1000\t1000\t0\t0\n")).unwrap();
        tgid
    }

    fn directory(&self, tgid: u32) -> std::path::PathBuf {
        self.place.path().join("proc").join(tgid.to_string())
    }

    fn mark(&self, tgid: u32, variable: &str) {
        fs::write(self.directory(tgid).join("environ"), format!("HOME=/root\0{variable}\0")).unwrap();
    }

    fn holds(&self, tgid: u32, inode: u64) {
        symlink(format!("socket:[{inode}]"), self.directory(tgid).join(format!("fd/{inode}"))).unwrap();
    }

    /// The table of sockets that every process sees: those that stand in it as local, remote, state and inode.
    fn sockets(&self, rows: &[(&str, &str, &str, u64)]) {
        let mut table = String::from("  sl  local_address rem_address st\n");
        for (local, remote, state, inode) in rows {
            table.push_str(&format!(" 0: {local} {remote} {state} 0:0 00:0 0 0 0 {inode} 1\n"));
        }
        for entry in fs::read_dir(self.place.path().join("proc")).unwrap().flatten() {
            if entry.path().is_dir() {
                fs::write(entry.path().join("net/tcp"), &table).unwrap();
            }
        }
    }

    fn scan(&self, whose: &dyn Whose) -> Inventory {
        let config = Config::load(None).unwrap();
        Scanner::of(ProcFs::at(&self.place.path().join("proc")), 1).scan(&config, whose, true)
    }

    fn found(&self) -> Vec<(String, u32)> {
        self.scan(&Nobody).items.into_iter().map(|item| (item.name, item.process.tgid)).collect()
    }
}

struct Nobody;

impl Whose for Nobody {
    fn root(&self, _: u32) -> Option<String> {
        None
    }

    fn member(&self, _: u32) -> Option<String> {
        None
    }
}

/// Who begins a session, and who is in one.
struct Sessions<'a>(&'a [(u32, &'a str)], &'a [(u32, &'a str)]);

impl Whose for Sessions<'_> {
    fn root(&self, tgid: u32) -> Option<String> {
        self.0.iter().find(|(root, _)| *root == tgid).map(|(_, agent)| (*agent).to_owned())
    }

    fn member(&self, tgid: u32) -> Option<String> {
        self.1.iter().find(|(member, _)| *member == tgid).map(|(_, agent)| (*agent).to_owned())
    }
}

const MINI: &str = "#!/venv/bin/python\nimport sys\nfrom minisweagent.run.mini import app\nsys.exit(app())\n";
const PYTHON: &str = "/usr/bin/python3.11";

fn checked(declaration: &str) {
    let directory = tempfile::tempdir().unwrap();
    let (config, agent) = Config::with_proposed_text("found.toml", declaration, directory.path())
        .unwrap_or_else(|errors| panic!("{errors}\n{declaration}"));
    assert_eq!(config.declaration(&agent).unwrap().recognise.len(), 1, "{declaration}");
}

#[test]
fn an_agent_is_found_by_what_its_interpreter_runs_and_by_its_image() {
    let mut host = Host::new();
    host.file("/venv/bin/mini", MINI);
    host.file("/usr/lib/node_modules/@google/gemini-cli/bundle/gemini.js", "");
    host.link("/usr/bin/gemini", "../lib/node_modules/@google/gemini-cli/bundle/gemini.js");
    let by_script = host.start(1, PYTHON, "python /venv/bin/mini -t task");
    let by_link = host.start(1, "/usr/bin/node", "node /usr/bin/gemini");
    let by_module = host.start(1, PYTHON, "python3 -X utf8 -m aider");
    let by_image = host.start(1, "/home/a/.local/share/claude/versions/2.0.14", "claude");
    let expected =
        [("aider", by_module), ("claude-code", by_image), ("gemini-cli", by_link), ("mini-swe-agent", by_script)];
    assert_eq!(host.found(), expected.map(|(name, tgid)| (name.to_owned(), tgid)));
    for item in host.scan(&Nobody).items {
        checked(item.declaration.as_deref().unwrap());
    }
}

#[test]
fn what_only_names_an_agent_is_none() {
    let mut host = Host::new();
    host.file("/venv/bin/mini", MINI);
    host.file("/usr/lib/node_modules/@openai/codex/bin/codex.js", "");
    host.file("/usr/lib/node_modules/@openai/codex/node_modules/tool/cli.js", "");
    host.file("/usr/lib/node_modules/npm/bin/npm-cli.js", "");
    host.file("/srv/claude.py", "import httpx\n# import aider\n");
    host.file("/srv/claude.sh", "exec sleep 1\n");
    host.start(1, "/usr/bin/vim", "vim /venv/bin/mini");
    host.start(1, "/usr/bin/less", "claude /usr/lib/node_modules/@openai/codex/bin/codex.js");
    host.start(1, "/usr/bin/tail", "tail -f claude.log");
    host.start(1, "/usr/bin/node", "node /usr/lib/node_modules/npm/bin/npm-cli.js install @openai/codex");
    host.start(1, "/usr/bin/node", "node /usr/lib/node_modules/@openai/codex/node_modules/tool/cli.js");
    host.start(1, PYTHON, "python claude.py");
    host.start(1, PYTHON, "python -m pip install aider-chat");
    host.start(1, PYTHON, "python claude.py -m aider");
    host.start(1, "/bin/bash", "bash claude.sh");
    host.start(1, "/usr/bin/claude", "claude");
    assert_eq!(host.found(), []);
}

#[test]
fn what_an_agent_starts_is_part_of_it_and_another_agent_within_is_not() {
    let mut host = Host::new();
    host.file("/venv/bin/mini", MINI);
    let outer = host.start(1, "/opt/.opencode/bin/opencode", "opencode");
    host.start(outer, "/opt/.opencode/bin/opencode", "opencode worker");
    let shell = host.start(outer, "/bin/bash", "bash -c mini");
    let inner = host.start(shell, PYTHON, "python /venv/bin/mini");
    let all = host.scan(&Nobody).items;
    assert_eq!(all.iter().map(|item| item.process.tgid).collect::<Vec<_>>(), [inner, outer]);
    assert_eq!(all[0].inside.as_deref(), Some("opencode"));

    let session = Sessions(&[(outer, "helper")], &[(outer, "helper"), (shell, "helper"), (inner, "helper")]);
    let items = host.scan(&session).items;
    assert_eq!((items[1].declared_as.as_deref(), &items[1].declaration), (Some("helper"), &None));
    assert_eq!(items[0].declared_as, None, "it is another agent than the one whose session it is in");
    assert_eq!(items[0].inside.as_deref(), Some("helper"));

    let delegated = Sessions(&[(outer, "helper"), (inner, "fixer")], &[(inner, "fixer")]);
    assert_eq!(host.scan(&delegated).items[0].declared_as.as_deref(), Some("fixer"));
    let wrapped = Sessions(&[(shell, "fixer")], &[]);
    assert_eq!(host.scan(&wrapped).items[0].declared_as.as_deref(), Some("fixer"), "what was started around it counts");
}

#[test]
fn a_marker_makes_nobody_an_agent() {
    let mut host = Host::new();
    let shell = host.start(1, "/bin/bash", "bash");
    let child = host.start(shell, "/usr/bin/make", "make");
    host.mark(shell, "CLAUDECODE=1");
    host.mark(child, "CLAUDECODE=1");
    let inventory = host.scan(&Nobody);
    assert_eq!(inventory.items, []);
    let claims: Vec<_> = inventory.claims.iter().map(|one| (one.process.tgid, one.marker.as_str())).collect();
    assert_eq!(claims, [(shell, "CLAUDECODE")], "the first of the line of descent");
}

#[test]
fn who_holds_a_connection_to_a_model_server_is_found_and_so_is_who_listens_as_one() {
    let mut host = Host::new();
    let ollama = host.start(1, "/usr/local/bin/ollama", "ollama serve");
    let client = host.start(1, PYTHON, "python app.py --fast");
    let own = host.start(1, "/opt/own-agent", "own-agent");
    let web = host.start(1, PYTHON, "python -m http.server 8000");
    let browser = host.start(1, PYTHON, "python fetch.py");
    host.sockets(&[
        ("0100007F:9999", "00000000:0000", "0A", 1),
        ("0100007F:A001", "0100007F:9999", "01", 2),
        ("0A00000A:A002", "0A684FA0:01BB", "01", 3),
        ("00000000:1F40", "00000000:0000", "0A", 4),
        ("0100007F:A003", "0100007F:1F40", "01", 5),
    ]);
    for (tgid, inode) in [(ollama, 1), (client, 2), (own, 3), (web, 4), (browser, 5)] {
        host.holds(tgid, inode);
    }
    let items = host.scan(&Nobody).items;
    let found: Vec<_> = items.iter().map(|item| (item.kind, item.name.as_str(), item.process.tgid)).collect();
    assert_eq!(
        found,
        [
            (Kind::ModelClient, "own-agent", own),
            (Kind::ModelClient, "python3.11", client),
            (Kind::ModelServer, "ollama", ollama)
        ]
    );
    let to = |item: &Discovered| item.evidence.iter().map(|one| one.what.clone()).collect::<Vec<_>>();
    assert_eq!(to(&items[0]), ["160.79.104.10:443"]);
    assert_eq!(to(&items[1]), ["127.0.0.1:39321"]);
    for item in &items {
        checked(item.declaration.as_deref().unwrap());
    }
    let text = items[1].declaration.as_deref().unwrap();
    assert!(text.contains("argv = [\"app.py\", \"--fast\"]"), "more than its interpreter: {text}");
}

#[test]
fn two_of_a_kind_get_two_names_and_hostile_names_stay_text() {
    let mut host = Host::new();
    host.file("/v/a*b\n[agent]/bin/mini", MINI);
    host.file("/w/bin/mini", MINI);
    for path in ["/v/a*b\n[agent]/bin/mini", "/w/../w/bin/mini"] {
        host.start(1, PYTHON, &format!("python {path}"));
    }
    let items = host.scan(&Nobody).items;
    let names: Vec<_> = items
        .iter()
        .map(|item| item.declaration.as_deref().unwrap().lines().find(|line| line.starts_with("name")).unwrap())
        .collect();
    assert_eq!(names, ["name = \"mini-swe-agent\"", "name = \"mini-swe-agent-2\""]);
    items.iter().for_each(|item| checked(item.declaration.as_deref().unwrap()));
    assert!(items[1].declaration.as_deref().unwrap().contains("script = \"/w/bin/mini\""));
}

#[test]
fn a_script_that_is_no_regular_file_holds_nobody_up() {
    let mut host = Host::new();
    let pipe = host.place.path().join("root/pipe");
    rustix::fs::mknodat(rustix::fs::CWD, &pipe, rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
    host.start(1, PYTHON, "python /pipe");
    assert!(Path::new(&pipe).exists());
    assert_eq!(host.found(), []);
}
