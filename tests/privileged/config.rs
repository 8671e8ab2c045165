//! Bad input: a message with the place and what would be right, and nothing attached or pinned.

use std::os::unix::process::CommandExt;
use std::path::PathBuf;

use bailiwick_tests::bounded;
use bailiwick_tests::declaration::Declaration;
use bailiwick_tests::instance::{Instance, Setup};
use bailiwick_tests::requirement::Requirement::Tier2;
use bailiwick_tests::requirement::require;
use bailiwick_tests::workload::DEADLINE;

/// A declaration with a fault where the arrow stands, and a word that the message must hold.
struct Bad {
    what: &'static str,
    text: &'static str,
    says: &'static str,
}

const BAD: [Bad; 8] = [
    Bad { what: "no TOML", text: "[agent]\nname = ▸not quoted\n", says: "not TOML" },
    Bad { what: "a misspelt key", text: "[agent]\nname = \"a\"\n▸ownr = \"x\"\n", says: "owner" },
    Bad { what: "a misspelt section", text: "[agent]\nname = \"a\"\n[scope.▸fils]\nread = []\n", says: "files" },
    Bad { what: "another type", text: "[agent]\nname = \"a\"\n[scope.files]\nread = ▸\"/tmp\"\n", says: "read" },
    Bad { what: "an unknown set", text: "[agent]\nname = \"a\"\n[scope]\ninclude = [▸\"bsae\"]\n", says: "base" },
    Bad {
        what: "a name in a network grant",
        text: "[agent]\nname = \"a\"\n[scope.network]\nconnect = [▸\"example.com:443\"]\n",
        says: "example.com",
    },
    Bad {
        what: "a response that is not there yet",
        text: "[agent]\nname = \"a\"\n[respond]\nout_of_scope = ▸\"kill\"\n",
        says: "alert",
    },
    Bad {
        what: "a bad port",
        text: "[agent]\nname = \"a\"\n[scope.network]\nconnect = [▸\"127.0.0.1:99999\"]\n",
        says: "port",
    },
];

impl Bad {
    /// The text without the arrow, and the line and column where it stood.
    fn parts(&self) -> (String, usize, usize) {
        let (before, after) = self.text.split_once('▸').expect("an arrow");
        let line = before.matches('\n').count() + 1;
        let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
        (format!("{before}{after}"), line, column)
    }
}

fn nothing_pinned(instance: &Instance) {
    let pins = instance.pins();
    assert!(!pins.exists() || pins.read_dir().unwrap().next().is_none(), "pins are left in {}", pins.display());
}

#[test]
fn check_names_file_line_column_and_what_would_be_right() {
    if !require(&[Tier2]) {
        return;
    }
    for bad in BAD {
        let (text, line, column) = bad.parts();
        let instance = Setup::new().file("agents.d/a.toml", &text).prepare();
        let file = instance.config("agents.d/a.toml");
        let said = instance.call(&format!("check {}", file.display()));
        let output = said.stdout.clone() + &said.stderr;
        assert_eq!(said.code(), Some(2), "{}: {output}", bad.what);
        let place = format!("{}:{line}:{column}", file.display());
        assert!(output.contains(&place), "{}: {place} is not in {output}", bad.what);
        assert!(output.contains(bad.says), "{}: {:?} is not in {output}", bad.what, bad.says);
    }
}

#[test]
fn the_daemon_refuses_to_start_with_a_bad_declaration_and_leaves_nothing() {
    if !require(&[Tier2]) {
        return;
    }
    for bad in BAD {
        let (text, line, column) = bad.parts();
        let instance = Setup::new().file("agents.d/a.toml", &text).prepare();
        let said = instance.refused();
        assert_eq!(said.code(), Some(2), "{}: {}", bad.what, said.stderr);
        let place = format!("agents.d/a.toml:{line}:{column}");
        assert!(said.stderr.contains(&place), "{}: {place} is not in {}", bad.what, said.stderr);
        nothing_pinned(&instance);
    }
}

#[test]
fn two_agents_of_one_name_and_two_that_recognise_the_same_are_refused() {
    if !require(&[Tier2]) {
        return;
    }
    let same = Declaration::new("same");
    let instance = Setup::new().agent(&same).file("agents.d/other.toml", same.text()).prepare();
    let said = instance.refused();
    assert_eq!(said.code(), Some(2), "{}", said.stderr);
    assert!(said.stderr.contains("same.toml") && said.stderr.contains("other.toml:2:"), "{}", said.stderr);

    let program = PathBuf::from("/opt/agent");
    let instance = Setup::new()
        .agent(&Declaration::new("one").executable(&program))
        .agent(&Declaration::new("two").executable(&program))
        .prepare();
    let said = instance.refused();
    assert_eq!(said.code(), Some(2), "{}", said.stderr);
    assert!(said.stderr.contains("one") && said.stderr.contains("two"), "{}", said.stderr);
}

#[test]
fn a_good_declaration_is_good() {
    if !require(&[Tier2]) {
        return;
    }
    let good = Declaration::new("good").with("[scope]\ninclude = [\"base\"]\n[scope.files]\nread = [\"/srv/**\"]\n");
    let instance = Setup::new().agent(&good).prepare();
    let file = instance.config("agents.d/good.toml");
    let checked = instance.call(&format!("check {}", file.display()));
    assert_eq!(checked.code(), Some(0), "{}{}", checked.stdout, checked.stderr);
    let explained = instance.call(&format!("check {} --explain /srv/a/b", file.display())).success();
    assert!(explained.stdout.contains("/srv/**"), "{}", explained.stdout);
}

#[test]
fn a_bad_reload_keeps_what_was_in_force_and_says_so() {
    if !require(&[Tier2]) {
        return;
    }
    let instance = Instance::start(&[Declaration::new("kept")]);
    let (text, line, column) = BAD[1].parts();
    instance.write("agents.d/new.toml", &text);
    let said = instance.call("reload");
    assert_eq!(said.code(), Some(2), "{}{}", said.stdout, said.stderr);
    let place = format!("agents.d/new.toml:{line}:{column}");
    assert!(said.stderr.contains(&place), "{place} is not in {}", said.stderr);
    let agents = instance.json("agents --json");
    assert_eq!(agents["items"].as_array().unwrap().len(), 1, "{agents}");
    instance.run("kept", &["/bin/true"]).success();

    instance.write("agents.d/new.toml", Declaration::new("new").text());
    instance.call("reload").success();
    instance.run("new", &["/bin/true"]).success();
    let trail = instance.synced_trail();
    assert_eq!(trail.event("config.change").len(), 1, "the reload that was refused changed nothing");
}

#[test]
fn a_change_of_configuration_stands_in_the_trail_with_the_hash_of_what_was_loaded_and_who_asked() {
    if !require(&[Tier2]) {
        return;
    }
    let mut instance = Instance::start(&[Declaration::new("kept")]);
    instance.write("agents.d/new.toml", Declaration::new("new").text());
    instance.call("reload").success();
    std::fs::remove_file(instance.config("agents.d/new.toml")).unwrap();
    instance.signal(rustix::process::Signal::HUP);
    bounded::until("the second change", DEADLINE, || instance.trail().event("config.change").len() == 2);
    assert_eq!(instance.stop(), Some(0));
    instance.start_daemon();
    let trail = instance.synced_trail();
    let hash = |entry: &serde_json::Value| entry["attributes"]["bailiwick.config.hash"].as_str().unwrap().to_owned();
    let (starts, changes) = (trail.event("sensor.start").0, trail.event("config.change").0);
    let hashes: Vec<String> = starts.iter().chain(&changes).map(hash).collect();
    let [first, again, with_new, back] = &hashes[..] else { panic!("{hashes:?}") };
    assert_eq!(first.len(), 64);
    assert!(first == again && first == back && first != with_new, "{hashes:?}");
    let before: Vec<_> = changes.iter().map(|change| &change["attributes"]["bailiwick.config.hash_before"]).collect();
    assert_eq!(before, [first, with_new]);
    assert_eq!(changes[0]["principal"]["uid"], 0, "{}", changes[0]);
    assert!(changes[1]["principal"].is_null(), "nobody signs a signal: {}", changes[1]);
}

#[test]
fn a_second_daemon_on_the_same_state_is_refused_and_the_first_goes_on() {
    if !require(&[Tier2]) {
        return;
    }
    let instance = Instance::start(&[Declaration::new("first")]);
    let said = instance.refused();
    assert_ne!(said.code(), Some(0));
    assert!(
        said.stderr.contains(&instance.state().display().to_string()) || said.stderr.contains("already"),
        "{}",
        said.stderr
    );
    instance.run("first", &["/bin/true"]).success();
    assert_eq!(instance.synced_trail().sessions().len(), 1);
}

#[test]
fn without_privilege_the_daemon_says_what_it_lacks_and_exits_77() {
    if !require(&[Tier2]) {
        return;
    }
    let instance = Setup::new().prepare();
    for dir in ["", "config", "config/agents.d", "config/grants.d", "state", "run"] {
        std::os::unix::fs::chown(instance.place().join(dir), Some(65534), Some(65534)).unwrap();
    }
    // The program may lie where this user cannot go.
    let program = instance.place().join("bailiwick");
    std::fs::copy(bailiwick_tests::workload::bailiwick(), &program).unwrap();
    let mut command = std::process::Command::new(program);
    command.arg("daemon").uid(65534).gid(65534);
    for (name, value) in instance.command(&[""; 0]).get_envs() {
        match value {
            Some(value) => command.env(name, value),
            None => command.env_remove(name),
        };
    }
    let said = bounded::run(&mut command, DEADLINE);
    assert_eq!(said.code(), Some(77), "{}", said.stderr);
    assert!(said.stderr.contains("CAP_BPF") || said.stderr.contains("root"), "{}", said.stderr);
    nothing_pinned(&instance);
}

#[test]
fn without_a_bpffs_the_daemon_says_what_to_do() {
    if !require(&[Tier2]) {
        return;
    }
    let place = bailiwick_tests::workload::Place::new();
    let instance = Setup::new().env("BAILIWICK_PIN_DIR", place.join("no-bpffs")).prepare();
    let said = instance.refused();
    assert_ne!(said.code(), Some(0));
    assert!(said.stderr.contains("bpffs") || said.stderr.contains("bpf file system"), "{}", said.stderr);
    assert!(said.stderr.contains("mount"), "the remedy is missing: {}", said.stderr);
}

#[test]
fn a_ring_size_that_cannot_be_is_refused() {
    if !require(&[Tier2]) {
        return;
    }
    for size in ["0", "5000", "many"] {
        let instance = Setup::new().env("BAILIWICK_RING_BYTES", size).prepare();
        let said = instance.refused();
        assert_eq!(said.code(), Some(2), "{size}: {}", said.stderr);
        nothing_pinned(&instance);
    }
}

/// Unreadable files: what the message must name beside the file, and how each is made.
fn unreadable(path: &std::path::Path, how: &str) -> &'static str {
    match how {
        "directory" => {
            std::fs::create_dir(path).unwrap();
            "is a directory; put a TOML file in its place"
        }
        _ => {
            std::os::unix::fs::symlink("nowhere.toml", path).unwrap();
            "is a symlink to nowhere.toml, which is not there; make it lead to what is, or remove it"
        }
    }
}

#[test]
fn a_declaration_that_cannot_be_read_is_named_with_what_would_be_right() {
    if !require(&[Tier2]) {
        return;
    }
    for how in ["directory", "symlink"] {
        let instance = Setup::new().agent(&Declaration::new("good")).prepare();
        let file = instance.config("agents.d/unreadable.toml");
        let right = unreadable(&file, how);
        let line = format!("{}: {right}", file.display());
        let said = instance.refused();
        assert_eq!(said.code(), Some(2), "{how}: {}", said.stderr);
        assert!(said.stderr.contains(&line), "{how}: {line:?} is not in {}", said.stderr);
        nothing_pinned(&instance);
        assert_eq!(instance.left_running(), 0);
        let said = instance.call(&format!("check {}", instance.config("").display()));
        assert_eq!(said.code(), Some(2), "{how}: {}{}", said.stdout, said.stderr);
        assert!(said.stdout.contains(&line), "{how}: {line:?} is not in {}", said.stdout);
        // Asked about alone, a directory could be meant as a whole configuration: it is told that it is none.
        let said = instance.call(&format!("check {}", file.display()));
        assert_eq!(said.code(), Some(2), "{how}: {}{}", said.stdout, said.stderr);
        assert!(said.stdout.starts_with(&format!("{}: is a ", file.display())), "{how}: {}", said.stdout);
    }
}

#[test]
fn a_reload_of_a_declaration_that_cannot_be_read_keeps_what_was_in_force() {
    if !require(&[Tier2]) {
        return;
    }
    let instance = Instance::start(&[Declaration::new("kept")]);
    let file = instance.config("agents.d/unreadable.toml");
    let right = unreadable(&file, "symlink");
    let said = instance.call("reload");
    assert_eq!(said.code(), Some(2), "{}{}", said.stdout, said.stderr);
    assert!(said.stderr.contains(&format!("{}: {right}", file.display())), "{}", said.stderr);
    instance.run("kept", &["/bin/true"]).success();
}

#[test]
fn check_says_who_may_not_read_a_declaration() {
    if !require(&[Tier2]) {
        return;
    }
    let instance = Setup::new().agent(&Declaration::new("secret")).prepare();
    let file = instance.config("agents.d/secret.toml");
    std::fs::set_permissions(&file, std::os::unix::fs::PermissionsExt::from_mode(0o000)).unwrap();
    // The program may lie where this user cannot go.
    let program = instance.place().join("bailiwick");
    std::fs::copy(bailiwick_tests::workload::bailiwick(), &program).unwrap();
    let mut check = std::process::Command::new("setpriv");
    check.args(["--reuid", "65534", "--regid", "65534", "--clear-groups"]).arg(&program).arg("check").arg(&file);
    let said = bounded::run(&mut check, DEADLINE);
    assert_eq!(said.code(), Some(2), "{}{}", said.stdout, said.stderr);
    let expected = "may not be read by uid 65534; let that user read it, or run this as one who may";
    assert!(said.stdout.contains(&format!("{}: {expected}", file.display())), "{}", said.stdout);
}

/// A daemon in a mount namespace of its own, in which `mount` has been done before it starts.
fn refused_after(instance: &Instance, mount: &str) -> bounded::Said {
    let daemon = instance.command(&["daemon"]);
    let mut unshared = std::process::Command::new("unshare");
    unshared.args(["--mount", "--propagation", "private", "sh", "-c", &format!("{mount} && exec \"$0\" daemon")]);
    unshared.arg(daemon.get_program());
    for (name, value) in daemon.get_envs() {
        match value {
            Some(value) => unshared.env(name, value),
            None => unshared.env_remove(name),
        };
    }
    bounded::run(&mut unshared, DEADLINE)
}

#[test]
fn without_the_kernels_type_information_the_daemon_says_what_to_do_and_leaves_nothing() {
    if !require(&[Tier2]) {
        return;
    }
    let place = bailiwick_tests::workload::Place::new();
    std::fs::write(place.join("empty"), []).unwrap();
    std::fs::write(place.join("garbage"), "no type information").unwrap();
    let over = |file: &str| format!("mount --bind '{}' /sys/kernel/btf/vmlinux", place.join(file).display());
    for mount in ["mount -t tmpfs none /sys/kernel/btf".to_owned(), over("empty"), over("garbage")] {
        let instance = Setup::new().agent(&Declaration::new("idle")).prepare();
        let said = refused_after(&instance, &mount);
        assert_eq!(said.code(), Some(1), "{mount}: {}", said.stderr);
        let told: Vec<_> = said.stderr.lines().filter(|line| line.starts_with("bailiwick: ")).collect();
        let [line] = told[..] else { panic!("{mount}: not one sentence: {}", said.stderr) };
        assert!(line.contains("/sys/kernel/btf/vmlinux"), "{mount}: {line}");
        assert!(line.contains("CONFIG_DEBUG_INFO_BTF"), "{mount}: the remedy is missing: {line}");
        nothing_pinned(&instance);
        assert_eq!(instance.left_running(), 0, "{mount}");
        let left: Vec<_> = instance.place().join("run").read_dir().unwrap().collect();
        assert!(left.is_empty(), "{mount}: {left:?}");
    }
}
