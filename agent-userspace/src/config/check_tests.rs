#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

use super::super::tests::FakeHost;
use super::*;

struct Files(tempfile::TempDir);

impl Files {
    fn new(files: &[(&str, &str)]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        for (name, text) in files {
            let path = directory.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        Self(directory)
    }

    fn check(&self, names: &[&str], explain: Option<&str>) -> (String, bool) {
        let files: Vec<PathBuf> = names.iter().map(|name| self.0.path().join(name)).collect();
        let host = FakeHost::new(&["/usr/bin/dash"], &[("/bin", "/usr/bin"), ("/usr/bin/sh", "/usr/bin/dash")]);
        let outcome = check_on(&files, explain, &host);
        (outcome.text.replace(&format!("{}/", self.0.path().display()), ""), outcome.ok)
    }
}

const AGENT: &str = "[agent]\nname = \"x\"\nowner = \"o\"\n[[recognise]]\nargv = [\"aider\"]\n\
    [scope]\ninclude = [\"base\"]\n[scope.files]\nread = [\"/srv/**\"]\ndeny = [\"**/.env\"]\n\
    [scope.network]\nconnect = [\"127.0.0.1:*\"]\n[scope.exec]\nallow = [\"/bin/sh\"]\n";

#[test]
fn a_right_declaration_is_ok_with_its_notes_and_what_is_costly() {
    let (text, ok) = Files::new(&[("x.toml", AGENT)]).check(&["x.toml"], None);
    assert_eq!(
        text,
        "x.toml: agent `x`, recognised in 1 way, 3 grants and 1 deny rule of its own, includes base\n\
         x.toml:14:10: note: \"/bin/sh\" begins with a symlink: \"/usr/bin/dash\" counts as well\n\
         x.toml:4:1: costly: recognised by `argv` alone, which the kernel cannot decide, so every exec on the host is kept \
         until it is decided; add `executable` (without `**`) or `user` to limit that to theirs\n\
         ok\n"
    );
    assert!(ok);
}

#[test]
fn a_faulty_file_is_not_ok_and_every_fault_is_told() {
    let files = Files::new(&[("x.toml", "[agent]\nname = \"x\"\nonwer = \"o\"\n[scope]\ninclude = [\"bsae\"]\n")]);
    assert_eq!(
        files.check(&["x.toml"], None),
        (
            "x.toml:3:1: `onwer` is not a key of [agent]; did you mean `owner`?\n\
             x.toml:5:12: there is no grant set `bsae`; did you mean `base`?\n"
                .to_owned(),
            false
        )
    );
    let (text, ok) = files.check(&["none.toml"], None);
    assert!(text == "none.toml: is not there; create it, or name another\n" && !ok, "{text}");
}

#[test]
fn a_file_is_known_by_its_sections_and_a_strange_one_is_refused() {
    let files = Files::new(&[
        ("set.toml", "[set]\nname = \"mine\"\n[files]\nread = [\"/srv/**\"]\n"),
        ("bailiwick.toml", "[sensor]\ngate = false\n"),
        ("strange.toml", "[colour]\nred = 1\n"),
        ("agents.d/empty.toml", ""),
    ]);
    assert_eq!(
        files.check(&["set.toml", "bailiwick.toml"], None),
        ("set.toml: grant set `mine`, 1 grant and 0 deny rules\nok\n".to_owned(), true)
    );
    let (text, ok) = files.check(&["strange.toml"], None);
    assert!(text.starts_with("strange.toml: is neither a declaration") && !ok, "{text}");
    let (text, ok) = files.check(&["agents.d/empty.toml"], None);
    assert!(text.starts_with("agents.d/empty.toml:1:1: the file has no `agent`") && !ok, "{text}");
}

#[test]
fn a_directory_that_is_no_configuration_is_not_ok() {
    let files = Files::new(&[("agents.d/x.toml/inner.toml", "[agent]\nname = \"x\"\n")]);
    let (text, ok) = files.check(&["agents.d/x.toml"], None);
    assert!(text.starts_with("agents.d/x.toml: is a directory without agents.d") && !ok, "{text}");
    let (text, ok) = files.check(&[""], None);
    assert!(text.contains("agents.d/x.toml: is a directory; put a TOML file in its place") && !ok, "{text}");
}

#[test]
fn a_declaration_is_checked_with_what_stands_beside_its_directory() {
    let files = Files::new(&[
        (
            "agents.d/x.toml",
            "[agent]\nname = \"x\"\nowner = \"o\"\n[[recognise]]\nuser = 1\nenvironment = [\"MINE\"]\n\
            [scope]\ninclude = [\"mine\"]\n[scope.delegate]\nto = [\"other\"]\n",
        ),
        ("grants.d/mine.toml", "[set]\nname = \"mine\"\n"),
        ("bailiwick.toml", "[sensor]\nenvironment = [\"MINE\"]\n"),
    ]);
    let (text, ok) = files.check(&["agents.d/x.toml"], None);
    assert_eq!(
        text,
        "agents.d/x.toml: agent `x`, recognised in 1 way, 0 grants and 0 deny rules of its own, includes mine\n\
         agents.d/x.toml:10:7: note: no file given declares the agent `other`\nok\n"
    );
    assert!(ok);
    let (text, ok) = files.check(&[""], None);
    assert!(text.contains("agents.d/x.toml:10:7: no agent `other` is declared") && !ok, "a whole directory: {text}");
}

#[test]
fn an_explanation_names_the_grant_that_decides_for_each_way_of_access() {
    let files = Files::new(&[("x.toml", AGENT)]);
    let (text, ok) = files.check(&["x.toml"], Some("/srv/a"));
    assert_eq!(
        text,
        "agent x:\n\
         read /srv/a: in_scope\n  granted by /srv/** (x.toml:9)\n  tried read \"/srv/**\", x.toml:9: covers it\n\
         write /srv/a: out_of_scope\n  no grant covers it; nearest: no grant for file.write is near\n  \
         would allow it: write = [\"/srv/a\"] in [scope.files]\n\
         execute /srv/a: out_of_scope\n  no grant covers it; nearest: /bin/sh\n  \
         would allow it: allow = [\"/srv/a\"] in [scope.exec]\n"
    );
    assert!(ok);
    let (text, _) = files.check(&["x.toml"], Some("/srv/.env"));
    assert!(text.contains("read /srv/.env: out_of_scope\n  denied by **/.env (x.toml:10)"), "{text}");
    let (text, _) = files.check(&["x.toml"], Some("127.0.0.1:80"));
    assert!(text.contains("connect to 127.0.0.1:80: in_scope\n  granted by 127.0.0.1:* (x.toml:12)"), "{text}");
    let (text, _) = files.check(&["x.toml"], Some("[::1]:80"));
    assert!(text.contains("would allow it: connect = [\"[::1]:80\"] in [scope.network]"), "{text}");
}

#[test]
fn a_target_that_is_no_path_nor_address_is_refused() {
    let files = Files::new(&[("x.toml", AGENT), ("set.toml", "[set]\nname = \"mine\"\n")]);
    for (target, expected) in [
        ("api.example.com:443", "`api.example.com:443`: names are not supported yet"),
        ("srv/a", "`srv/a` is neither an absolute path nor an address with a port"),
        ("10.0.0.1", "`10.0.0.1` is neither"),
        ("\u{1b}[31m", "`\\u{1b}[31m` is neither"),
    ] {
        let (text, ok) = files.check(&["x.toml"], Some(target));
        assert!(text.starts_with(expected) && !ok, "{text}");
    }
    let (text, ok) = files.check(&["set.toml"], Some("/x"));
    assert!(text.starts_with("no declaration was given") && !ok);
}

#[test]
fn an_explanation_says_what_becomes_of_an_action_where_the_agent_acts_for_another() {
    let outer = "[agent]\nname = \"outer\"\nowner = \"o\"\n[scope.files]\nread = [\"/opt/**\"]\n[scope.delegate]\nto = [\"x\"]\n";
    let files = Files::new(&[("agents.d/x.toml", AGENT), ("agents.d/outer.toml", outer)]);
    let (text, ok) = files.check(&["agents.d/x.toml", "agents.d/outer.toml"], Some("/srv/a"));
    assert!(ok, "{text}");
    let (_, within) = text.split_once("agent x started by outer:\n").unwrap_or_else(|| panic!("{text}"));
    assert!(
        within.starts_with("read /srv/a: out_of_scope, by the scope of outer: /opt/**\n")
            && within.contains("write /srv/a: out_of_scope, by its own scope: no grant for file.write"),
        "{text}"
    );
    let lifted = outer.replace("to =", "limit = \"theirs\"\nto =");
    let files = Files::new(&[("agents.d/x.toml", AGENT), ("agents.d/outer.toml", &lifted)]);
    let (text, _) = files.check(&["agents.d/x.toml", "agents.d/outer.toml"], Some("/srv/a"));
    assert!(text.contains("read /srv/a: in_scope, by its own scope: /srv/** (agents.d/x.toml:9)\n"), "{text}");
}
