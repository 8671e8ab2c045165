use std::collections::BTreeMap;
use std::path::Path;

use super::{Connect, Observed, normalised, observe, unhex};
use crate::workload::Open;

fn hex(text: &str) -> String {
    text.bytes().map(|byte| format!("\\x{byte:02x}")).collect()
}

/// Writes `"text"` and `<text>` as strace does with `-xx`.
fn as_traced(line: &str) -> String {
    let mut traced = String::new();
    for (index, part) in line.split('\'').enumerate() {
        traced.push_str(&if index % 2 == 1 { hex(part) } else { part.to_owned() });
    }
    traced
}

fn traced(threads: &[(u64, &[&str])]) -> BTreeMap<u64, String> {
    threads.iter().map(|(tid, lines)| (*tid, lines.iter().map(|line| as_traced(line) + "\n").collect())).collect()
}

fn seen(lines: &[&str]) -> Observed {
    let mut all = vec![r#"execve("'/bin/a'", ["'a'"], 0x7ffd /* 9 vars */) = 0"#];
    all.extend(lines);
    observe(&traced(&[(7, &all)]), "/bin/a").unwrap()
}

fn only_open(lines: &[&str]) -> Open {
    let opens = seen(lines).opens;
    assert_eq!(opens.len(), 1, "{opens:?}");
    opens.into_keys().next().unwrap()
}

fn open(path: &str, access: &str, errno: Option<&str>) -> Open {
    Open { tgid: 7, path: path.into(), access: access.into(), errno: errno.map(Into::into) }
}

#[test]
fn an_open_that_succeeds_has_the_path_of_its_descriptor() {
    let line = r#"openat(AT_FDCWD<'/srv'>, "'link'", O_RDWR|O_CLOEXEC) = 3<'/srv/real'>"#;
    assert_eq!(only_open(&[line]), open("/srv/real", "rw", None));
}

#[test]
fn an_open_that_fails_has_the_path_it_was_given_from_its_directory() {
    let line = r#"openat(AT_FDCWD<'/srv'>, "'../etc/./x'", O_WRONLY|O_CREAT, 0666) = -1 EACCES (Permission denied)"#;
    assert_eq!(only_open(&[line]), open("/etc/x", "w", Some("EACCES")));
}

#[test]
fn every_form_of_open_is_understood() {
    assert_eq!(only_open(&[r#"open("'/a'", O_RDONLY) = 3<'/a'>"#]), open("/a", "r", None));
    assert_eq!(only_open(&[r#"creat("'/a'", 0600) = 3<'/a'>"#]), open("/a", "w", None));
    assert_eq!(only_open(&[r#"openat(4<'/'>, "'a'", O_PATH|O_CLOEXEC) = 5<'/a'>"#]), open("/a", "path", None));
    let openat2 = r#"openat2(4<'/'>, "'a'", {flags=O_RDONLY|O_CLOEXEC, resolve=RESOLVE_BENEATH}, 24) = 5<'/a'>"#;
    assert_eq!(only_open(&[openat2]), open("/a", "r", None));
}

#[test]
fn repeats_are_counted_and_creations_noted() {
    let line = r#"openat(AT_FDCWD<'/'>, "'/a'", O_WRONLY|O_CREAT|O_TRUNC, 0666) = 3<'/a'>"#;
    let observed = seen(&[line, line]);
    assert_eq!(observed.opens[&open("/a", "w", None)], 2);
    assert!(observed.creating.contains(&open("/a", "w", None)));
}

#[test]
fn a_call_that_never_returned_is_none() {
    assert!(seen(&[r#"openat(AT_FDCWD<'/'>, "'/a'", O_RDONLY) = ?"#]).opens.is_empty());
    let restarted =
        r#"openat(AT_FDCWD<'/'>, "'/fifo'", O_RDONLY) = ? ERESTARTSYS (To be restarted if SA_RESTART is set)"#;
    assert!(seen(&[restarted]).opens.is_empty());
    assert!(
        seen(&[r#"openat(AT_FDCWD<'/'>, "'/a'", O_RDONLY <unfinished ...>"#, "+++ killed by SIGKILL +++"])
            .opens
            .is_empty()
    );
}

#[test]
fn threads_belong_to_their_process_and_children_are_their_own() {
    let threads = traced(&[
        (
            7,
            &[
                r#"execve("'/bin/a'", ["'a'"], 0x7ffd /* 9 vars */) = 0"#,
                "clone3({flags=CLONE_VM|CLONE_THREAD} => {parent_tid=[8]}, 88) = 8",
            ],
        ),
        (8, &["vfork()                                 = 9", r#"openat(AT_FDCWD<'/'>, "'/t'", O_RDONLY) = 3<'/t'>"#]),
        (
            9,
            &[r#"execve("'/bin/b'", ["'b'", "'-x, ]'"], 0x7ffd /* 9 vars */) = -1 ENOENT (No such file or directory)"#],
        ),
    ]);
    let observed = observe(&threads, "/bin/a").unwrap();
    assert_eq!(observed.forks.into_iter().collect::<Vec<_>>(), [(7, 9)]);
    assert_eq!(observed.processes.into_iter().collect::<Vec<_>>(), [7, 9]);
    assert!(observed.opens.contains_key(&open("/t", "r", None)));
    let failed = observed.execs.into_keys().find(|exec| exec.errno.is_some()).unwrap();
    assert_eq!((failed.tgid, failed.arguments), (9, vec!["b".to_owned(), "-x, ]".to_owned()]));
}

#[test]
fn what_the_starter_did_before_it_became_the_command_is_left_out() {
    let threads = traced(&[
        (
            7,
            &[
                r#"execve("'/bin/starter'", ["'starter'"], 0x7ffd /* 9 vars */) = 0"#,
                r#"openat(AT_FDCWD<'/'>, "'/before'", O_RDONLY) = 3<'/before'>"#,
                "vfork()                                 = 8",
                r#"execve("'/bin/a'", ["'a'"], 0x7ffd /* 9 vars */) = 0"#,
            ],
        ),
        (8, &[r#"openat(AT_FDCWD<'/'>, "'/other'", O_RDONLY) = 3<'/other'>"#]),
    ]);
    let observed = observe(&threads, "/bin/a").unwrap();
    assert!(observed.opens.is_empty() && observed.forks.is_empty());
    assert_eq!(observed.execs.len(), 1);
}

#[test]
fn connections_are_those_of_the_internet_and_under_way_is_no_failure() {
    let observed = seen(&[
        r#"connect(3<TCP:[1]>, {sa_family=AF_INET, sin_port=htons(80), sin_addr=inet_addr("'127.0.0.1'")}, 16) = -1 EINPROGRESS (Operation now in progress)"#,
        r#"connect(3<UDPv6:[1]>, {sa_family=AF_INET6, sin6_port=htons(9), sin6_flowinfo=htonl(0), inet_pton(AF_INET6, "'::1'", &sin6_addr), sin6_scope_id=0}, 28) = 0"#,
        r#"connect(3<UNIX-STREAM:[1]>, {sa_family=AF_UNIX, sun_path="'/run/x'"}, 110) = -1 ENOENT (No such file or directory)"#,
        r#"connect(3<TCP:[1]>, {sa_family=AF_INET, sin_port=htons(1), sin_addr=inet_addr("'127.0.0.1'")}, 16) = -1 ECONNREFUSED (Connection refused)"#,
    ]);
    let connect = |transport: &str, address: &str, port, errno: Option<&str>| Connect {
        tgid: 7,
        transport: transport.into(),
        address: address.parse().unwrap(),
        port,
        errno: errno.map(Into::into),
    };
    let expected = [
        connect("tcp", "127.0.0.1", 1, Some("ECONNREFUSED")),
        connect("tcp", "127.0.0.1", 80, None),
        connect("udp", "::1", 9, None),
    ];
    assert_eq!(observed.connects.into_keys().collect::<Vec<_>>(), expected);
}

#[test]
fn a_line_that_is_not_understood_is_an_error() {
    for line in ["gibberish", "openat(AT_FDCWD) = 3", "getdents64(3, 0x7ffd, 100) = 0", "<... openat resumed>) = 3"] {
        let start = as_traced(r#"execve("'/bin/a'", ["'a'"], 0x7ffd /* 9 vars */) = 0"#);
        let threads = BTreeMap::from([(7, format!("{start}\n{line}\n"))]);
        assert!(observe(&threads, "/bin/a").is_err(), "{line}");
    }
    assert!(observe(&traced(&[(7, &[])]), "/bin/a").is_err());
}

#[test]
fn bytes_that_are_no_text_are_escaped_as_the_contract_says() {
    assert_eq!(unhex("\\x2f\\xff\\x61").unwrap(), "/\\xFFa");
    assert_eq!(unhex("plain"), None);
}

#[test]
fn a_path_is_normalised_by_its_letters() {
    assert_eq!(normalised(Path::new("/a//b/./c/../d/")), "/a/b/d");
    assert_eq!(normalised(Path::new("/../x")), "/x");
}
