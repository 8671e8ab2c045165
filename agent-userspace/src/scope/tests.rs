#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

use std::sync::Arc;

use super::grant::Origin;
use super::network::NetworkPattern;
use super::pattern::PathPattern;
use super::*;

fn origin(line: u32) -> Origin {
    Origin { file: Arc::from("agents.d/x.toml"), line, column: 1 }
}

fn rules(texts: &[&str], first_line: u32) -> Vec<PathRule> {
    (first_line..)
        .zip(texts)
        .map(|(line, text)| PathRule {
            pattern: PathPattern::parse(text).unwrap(),
            resolved: None,
            origin: origin(line),
        })
        .collect()
}

fn network(text: &str, line: u32) -> Vec<NetworkRule> {
    vec![NetworkRule { pattern: NetworkPattern::parse(text).unwrap(), origin: origin(line) }]
}

fn shop() -> Scope {
    let own = Rules {
        read: rules(&["/srv/shop/**", "/srv/shared/*.txt", "/srv/shop/both", "/var/log/shop"], 10),
        write: rules(&["/srv/shop/**", "/tmp/**"], 20),
        deny: rules(&["**/.env", "/srv/shop/secret/**"], 30),
        exec: rules(&["/usr/bin/git", "/srv/shop/bin/*"], 40),
        exec_deny: rules(&["/srv/shop/bin/evil", "/usr/bin/perl"], 50),
        connect: network("10.0.0.0/8:5432", 60),
        listen: network("127.0.0.1:*", 70),
        unix: rules(&["/run/shop/*.sock", "/srv/shop/secret/sock"], 80),
        unix_abstract: rules(&["/shop-*"], 90),
        privileges: vec![grant::PrivilegeRule { name: "ptrace".to_owned(), origin: origin(100) }],
    };
    Scope::compile([&own]).unwrap()
}

fn file(path: &str, access: Access) -> Action<'_> {
    Action::File { path: SeenPath::whole(path.as_bytes()), access }
}

fn said(judgement: &Judgement) -> (Verdict, ReasonKind, &str, Option<u32>) {
    let reason = judgement.reason.as_ref().expect("a reason");
    (judgement.verdict, reason.kind, &reason.text, reason.line)
}

#[test]
fn a_granted_read_names_its_grant_with_file_and_line() {
    let judgement = shop().judge(&file("/srv/shop/src/a.rs", Access::Read));
    assert_eq!(said(&judgement), (Verdict::InScope, ReasonKind::Grant, "/srv/shop/**", Some(10)));
    assert_eq!(judgement.reason.unwrap().file.as_deref(), Some("agents.d/x.toml"));
}

#[test]
fn every_name_of_a_change_counts_and_a_deny_on_any_decides() {
    let scope = shop();
    let judge = |names: &[&str]| {
        let paths: Vec<SeenPath<'_>> = names.iter().map(|name| SeenPath::whole(name.as_bytes())).collect();
        scope.judge(&Action::Files { paths: &paths, access: Access::Write })
    };
    assert_eq!(judge(&["/srv/shop/a", "/tmp/b"]).verdict, Verdict::InScope);
    assert_eq!(judge(&["/srv/shop/a", "/etc/b"]).verdict, Verdict::OutOfScope);
    let denied = judge(&["/etc/b", "/srv/shop/.env"]);
    assert_eq!(said(&denied), (Verdict::OutOfScope, ReasonKind::Rule, "**/.env", Some(30)));
}

#[test]
fn listening_unix_sockets_and_privileges_are_granted_by_lists_of_their_own() {
    let scope = shop();
    let listen = |address: &str| scope.judge(&Action::Listen { address: address.parse().unwrap() });
    assert_eq!(said(&listen("127.0.0.1:80")), (Verdict::InScope, ReasonKind::Grant, "127.0.0.1:*", Some(70)));
    assert_eq!(listen("10.0.0.1:5432").verdict, Verdict::OutOfScope);
    let unix = |path: &'static str| UnixAddress::Path(SeenPath::whole(path.as_bytes()));
    let connect = |address| scope.judge(&Action::Unix { address });
    assert_eq!(connect(unix("/run/shop/a.sock")).verdict, Verdict::InScope);
    assert_eq!(said(&connect(unix("/srv/shop/secret/sock"))).2, "/srv/shop/secret/**");
    let named = connect(UnixAddress::Abstract(b"shop-1"));
    assert_eq!(said(&named), (Verdict::InScope, ReasonKind::Grant, "@shop-*", Some(90)));
    assert_eq!(connect(unix("/shop-1")).verdict, Verdict::OutOfScope);
    let privilege = |name| scope.judge(&Action::Privilege { name });
    assert_eq!(privilege("ptrace").verdict, Verdict::InScope);
    assert_eq!(said(&privilege("mount")).2, "no grant for file.mount");
    assert_eq!(said(&privilege("setid")).2, "no grant for privilege.setid");
}

#[test]
fn a_deny_beats_every_grant_and_is_named() {
    let scope = shop();
    let judgement = scope.judge(&file("/srv/shop/a/.env", Access::Read));
    assert_eq!(said(&judgement), (Verdict::OutOfScope, ReasonKind::Rule, "**/.env", Some(30)));
    let exec = Action::Exec { path: SeenPath::whole(b"/srv/shop/bin/evil"), script: None };
    assert_eq!(said(&scope.judge(&exec)).3, Some(50));
    let denied_file = Action::Exec { path: SeenPath::whole(b"/srv/shop/secret/tool"), script: None };
    assert_eq!(said(&scope.judge(&denied_file)).3, Some(31), "a file that may not be read may not be executed");
}

#[test]
fn what_no_grant_covers_is_out_of_scope_and_names_the_nearest() {
    let judgement = shop().judge(&file("/srv/shared/a/b", Access::Read));
    assert_eq!(
        said(&judgement),
        (Verdict::OutOfScope, ReasonKind::Nearest, "/srv/shared/*.txt, /srv/shop/**, /srv/shop/both", None)
    );
    let judgement = Scope::default().judge(&file("/x", Access::Write));
    assert_eq!(said(&judgement).2, "no grant for file.write");
    let judgement = Scope::default().judge(&Action::Connect { address: "10.0.0.1:1".parse().unwrap() });
    assert_eq!(said(&judgement).2, "no grant for network.connect");
}

#[test]
fn the_nearest_grants_are_the_declarations_own_before_those_of_a_set() {
    let own = Rules { read: rules(&["/opt/tool/**", "/srv/shop/**", "/srv/shared/**"], 10), ..Rules::default() };
    let set = Rules {
        read: rules(&["/tmp/sh-thd.*", "/srv/shared/pictures/*.png", "/etc/hosts"], 50),
        write: rules(&["/tmp/sh-thd.*", "/tmp/shop-*", "/dev/null"], 60),
        ..Rules::default()
    };
    let scope = Scope::compile([&own, &set]).unwrap();
    let nearest = |path: &str, access| said(&scope.judge(&file(path, access))).2.to_owned();
    assert_eq!(nearest("/srv/share/x", Access::Read), "/srv/shared/**, /srv/shop/**");
    // Where the declaration has no grant that begins alike, its own are still the lines to change.
    assert_eq!(nearest("/tmp/x", Access::Read), "/opt/tool/**, /srv/shop/**, /srv/shared/**");
    // Where it has none of the kind, what it includes is all there is.
    assert_eq!(nearest("/tmp/shop.lock", Access::Write), "/tmp/shop-*, /tmp/sh-thd.*");
    assert_eq!(nearest("/home/x", Access::Write), "no grant for file.write is near");
    let tried: Vec<_> = scope.explain(&file("/srv/shared2", Access::Read)).tried.into_iter().map(|t| t.text).collect();
    assert_eq!(tried, ["/srv/shared/**", "/srv/shop/**", "/srv/shared/pictures/*.png"]);
}

#[test]
fn reading_and_writing_needs_both_and_writing_implies_no_reading() {
    let scope = shop();
    assert_eq!(scope.judge(&file("/srv/shop/x", Access::ReadWrite)).verdict, Verdict::InScope);
    assert_eq!(scope.judge(&file("/tmp/x", Access::Write)).verdict, Verdict::InScope);
    assert_eq!(scope.judge(&file("/tmp/x", Access::Read)).verdict, Verdict::OutOfScope);
    assert_eq!(scope.judge(&file("/tmp/x", Access::ReadWrite)).verdict, Verdict::OutOfScope);
    assert_eq!(scope.judge(&file("/var/log/shop", Access::ReadWrite)).verdict, Verdict::OutOfScope);
}

#[test]
fn a_place_is_judged_as_read_and_an_open_for_exec_as_an_exec() {
    let scope = shop();
    assert_eq!(scope.judge(&file("/var/log/shop", Access::Path)).verdict, Verdict::InScope);
    assert_eq!(scope.judge(&file("/tmp/x", Access::Path)).verdict, Verdict::OutOfScope);
    assert_eq!(scope.judge(&file("/usr/bin/git", Access::Exec)).verdict, Verdict::InScope);
    assert_eq!(scope.judge(&file("/srv/shop/a", Access::Exec)).verdict, Verdict::OutOfScope);
}

#[test]
fn of_a_script_the_script_must_be_granted_and_a_deny_on_either_denies() {
    let scope = shop();
    let run = |image: &'static str, script: &'static str| {
        let script = Some(SeenPath::whole(script.as_bytes()));
        scope.judge(&Action::Exec { path: SeenPath::whole(image.as_bytes()), script })
    };
    assert_eq!(run("/usr/bin/dash", "/srv/shop/bin/tool").verdict, Verdict::InScope);
    assert_eq!(run("/usr/bin/git", "/elsewhere/tool").verdict, Verdict::OutOfScope);
    assert_eq!(said(&run("/usr/bin/perl", "/srv/shop/bin/tool")).2, "/usr/bin/perl");
}

#[test]
fn a_search_that_found_nothing_has_no_verdict_unless_a_deny_covers_it() {
    let scope = shop();
    for errno in [libc::ENOENT, libc::ENOTDIR] {
        assert_eq!(scope.judge_failed(&file("/nowhere", Access::Read), errno).verdict, Verdict::None);
        assert_eq!(scope.judge_failed(&file("/srv/shop/x", Access::Read), errno).verdict, Verdict::None);
        assert_eq!(scope.judge_failed(&file("/x/.env", Access::Read), errno).verdict, Verdict::OutOfScope);
        assert_eq!(scope.judge_failed(&file(".env", Access::Read), errno).verdict, Verdict::OutOfScope);
    }
    assert_eq!(scope.judge_failed(&file("/nowhere", Access::Read), libc::EACCES).verdict, Verdict::OutOfScope);
    assert_eq!(scope.judge_failed(&file("/srv/shop/x", Access::Read), libc::EACCES).verdict, Verdict::InScope);
}

#[test]
fn a_path_that_was_cut_matches_no_grant() {
    let path = SeenPath { bytes: b"/srv/shop/x", cut: true };
    let judgement = shop().judge(&Action::File { path, access: Access::Read });
    assert_eq!(judgement.verdict, Verdict::OutOfScope);
    assert!(said(&judgement).2.contains("was cut"));
}

#[test]
fn an_agent_without_a_scope_has_no_verdict() {
    let judgement = judge_for(None, &file("/x", Access::Read), None);
    assert_eq!((judgement.verdict, judgement.reason), (Verdict::None, None));
    assert_eq!(judge_for(Some(&shop()), &file("/x", Access::Read), None).verdict, Verdict::OutOfScope);
}

#[test]
fn a_pipe_that_is_reopened_by_name_is_not_judged() {
    assert_eq!(shop().judge(&file("pipe:[4711]", Access::Write)).verdict, Verdict::None);
    assert_eq!(shop().judge(&file("pipework", Access::Write)).verdict, Verdict::OutOfScope);
}

#[test]
fn an_explanation_names_what_was_tried_and_what_would_allow_it() {
    let scope = shop();
    let explanation = scope.explain(&file("/srv/shared/a b[1].rs", Access::Read));
    assert_eq!(
        explanation.to_string(),
        "read /srv/shared/a b[1].rs: out_of_scope\n  \
         no grant covers it; nearest: /srv/shared/*.txt, /srv/shop/**, /srv/shop/both\n  \
         tried read \"/srv/shared/*.txt\", agents.d/x.toml:11: does not cover it\n  \
         tried read \"/srv/shop/**\", agents.d/x.toml:10: does not cover it\n  \
         tried read \"/srv/shop/both\", agents.d/x.toml:12: does not cover it\n  \
         tried deny \"/srv/shop/secret/**\", agents.d/x.toml:31: does not cover it\n  \
         would allow it: read = [\"/srv/shared/a b[[]1].rs\"] in [scope.files]\n"
    );
    let remedy = |action: &Action<'_>| scope.explain(action).would_allow;
    assert_eq!(remedy(&file("/srv/shop/x", Access::Read)), None);
    assert_eq!(
        remedy(&file("/srv/shop/.env", Access::Read)).unwrap(),
        "no grant can: a deny beats every grant; only taking `**/.env` at agents.d/x.toml:30 away would"
    );
    assert_eq!(
        remedy(&Action::Connect { address: "[::ffff:10.0.0.1]:80".parse().unwrap() }).unwrap(),
        "connect = [\"10.0.0.1:80\"] in [scope.network]"
    );
    assert_eq!(remedy(&file("/tmp/x", Access::ReadWrite)).unwrap(), "read = [\"/tmp/x\"] in [scope.files]");
}

#[test]
fn what_an_explanation_says_would_allow_an_action_does() {
    for path in ["/srv/x", "/srv/a b[1]*?.rs", "/srv/\u{e9}t\u{e9}", "/q\"uote\\"] {
        let action = file(path, Access::Read);
        let line = Scope::default().explain(&action).would_allow.unwrap();
        let toml = line.strip_suffix(" in [scope.files]").unwrap();
        let table: toml::Table = toml.parse().unwrap();
        let pattern = table["read"][0].as_str().unwrap();
        assert!(PathPattern::parse(pattern).unwrap().matches(path.as_bytes()), "{path}: {line}");
    }
}

#[test]
fn judging_costs_the_same_at_ten_grants_and_at_a_hundred_thousand() {
    let build = |in_each_list: u32| {
        let texts = |list: &str| -> Vec<String> {
            let one = |grant: u32| match grant % 5 {
                0 => format!("/srv/{list}{grant:06}/**"),
                1 => format!("/srv/*/{list}{grant:06}"),
                2 => format!("**/{list}{grant:06}"),
                3 => format!("/srv/{list}{grant:06}*/x"),
                _ => format!("/home/*/{list}{grant:06}/**"),
            };
            (0..in_each_list).map(one).collect()
        };
        let rules = |list: &str| rules(&texts(list).iter().map(String::as_str).collect::<Vec<_>>(), 1);
        let connect = (0..in_each_list).map(|grant| NetworkRule {
            pattern: NetworkPattern::parse(&format!("10.0.{}.{}:{}", grant / 256, grant % 256, grant)).unwrap(),
            origin: origin(1),
        });
        let own = Rules {
            read: rules("read"),
            write: rules("write"),
            deny: rules("deny"),
            exec: rules("exec"),
            exec_deny: Vec::new(),
            connect: connect.clone().collect(),
            listen: connect.collect(),
            unix: rules("unix"),
            ..Rules::default()
        };
        Scope::compile([&own]).unwrap()
    };
    let (few, many) = (build(10), build(20_000));
    assert_eq!(many.grants.len(), 140_000);
    let script = Some(SeenPath::whole(b"/srv/exec000000/run"));
    for action in [
        file("/srv/read000000/a/b", Access::Read),
        file("/srv/elsewhere/and/far/down/below.txt", Access::ReadWrite),
        file("/home/u/read000004/a/b", Access::Write),
        Action::Exec { path: SeenPath::whole(b"/usr/bin/dash"), script },
        Action::Connect { address: "10.0.0.1:1".parse().unwrap() },
        Action::Connect { address: "192.0.2.1:1".parse().unwrap() },
        Action::Listen { address: "192.0.2.1:1".parse().unwrap() },
        Action::Unix { address: UnixAddress::Path(SeenPath::whole(b"/srv/unix000000/run")) },
        Action::Privilege { name: "ptrace" },
    ] {
        let (at_few, at_many) = (few.judge(&action).operations, many.judge(&action).operations);
        assert_eq!(at_few, at_many, "{action:?}: operations at 10 grants a list, and at 140,000 in all");
    }
}
