//! The server and the client, over a real socket.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use super::client::ClientError;
use super::protocol::{MAX_REQUEST_BYTES, Since};
use super::query::Filter;
use super::server::Limits;
use super::socket::{BindError, path_in};
use super::testing::{FakeDaemon, entry, seqs, time_of};
use super::{Access, ControlSocket, ErrorKind, RemoteError, Request, Response};
use crate::entry::{Entry, SessionId};

fn opens(range: std::ops::RangeInclusive<u64>) -> Vec<Entry> {
    range.map(|seq| entry(seq, "file.open").agent("demo", 1).path("r", "/tmp/x").build()).collect()
}

fn tail(since: Since, follow: bool) -> Request {
    Request::Tail { filter: Filter::default(), since, follow }
}

fn refusal(result: Result<Vec<Response>, ClientError>) -> RemoteError {
    match result.unwrap_err() {
        ClientError::Remote(error) => error,
        other => panic!("{other}"),
    }
}

/// Sends these bytes, and reads all that comes back.
fn raw(daemon: &FakeDaemon, request: &[u8]) -> String {
    let mut stream = UnixStream::connect(path_in(daemon.runtime_dir.path())).unwrap();
    stream.write_all(request).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

#[test]
fn tail_from_the_start_sends_every_entry_exactly_as_it_is() {
    let entries = opens(1..=10_000);
    let daemon = FakeDaemon::holding(entries.clone());
    let responses = daemon.ask(&tail(Since::Start, false)).unwrap();
    let sent: Vec<Entry> = responses
        .into_iter()
        .map(|response| match response {
            Response::Entry(entry) => *entry,
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(sent, entries);
}

#[test]
fn tail_since_a_time_drops_what_is_earlier() {
    let daemon = FakeDaemon::holding(opens(1..=5));
    assert_eq!(seqs(&daemon.ask(&tail(Since::At(time_of(4)), false)).unwrap()), [4, 5]);
}

#[test]
fn tail_from_now_on_follows_and_misses_nothing() {
    let daemon = FakeDaemon::holding(opens(1..=3));
    let mut answer = daemon.client().ask(&tail(Since::Now, true), Some(Duration::from_secs(20))).unwrap();
    std::thread::sleep(Duration::from_millis(100));
    let appended = 4..=1_000;
    for entry in opens(appended.clone()) {
        daemon.core.append(entry);
    }
    for expected in appended {
        let Some(Ok(response)) = answer.next() else { panic!("entry {expected} does not come") };
        assert_eq!(seqs(&[response]), [expected]);
    }
}

#[test]
fn what_does_not_match_is_not_sent() {
    let mut entries = opens(1..=3);
    entries.push(entry(4, "process.exec").agent("demo", 1).build());
    let daemon = FakeDaemon::holding(entries);
    let filter = Filter { events: vec!["process.*".into()], ..Filter::default() };
    let responses = daemon.ask(&Request::Tail { filter, since: Since::Start, follow: false }).unwrap();
    assert_eq!(seqs(&responses), [4]);
}

#[test]
fn sessions_tells_the_living_from_those_whose_end_was_not_seen() {
    let entries =
        vec![entry(1, "session.start").agent("demo", 1).build(), entry(2, "session.start").agent("demo", 2).build()];
    let daemon = FakeDaemon::holding(entries);
    daemon.core.live.lock().unwrap().insert(SessionId(2));
    let responses = daemon.ask(&Request::Sessions { filter: Filter::default() }).unwrap();
    let [Response::Sessions(items)] = &responses[..] else { panic!("{responses:?}") };
    let alive: Vec<_> = items.items.iter().map(|item| (item.session.0, item.alive)).collect();
    assert_eq!(alive, [(1, false), (2, true)]);
}

#[test]
fn show_sends_the_sessions_entries_and_then_the_closing() {
    let entries = vec![
        entry(1, "session.start").agent("demo", 1).build(),
        entry(2, "session.start").agent("demo", 2).build(),
        entry(3, "session.end").agent("demo", 1).build(),
    ];
    let daemon = FakeDaemon::holding(entries);
    let responses =
        daemon.ask(&Request::Show { session: "0000000000000001".into(), filter: Filter::default() }).unwrap();
    assert_eq!(seqs(&responses), [1, 3]);
    let Some(Response::Closing(closing)) = responses.last() else { panic!("{responses:?}") };
    assert_eq!(closing.session.entries, 2);
    assert_eq!(
        refusal(daemon.ask(&Request::Show { session: "f".into(), filter: Filter::default() })).kind,
        ErrorKind::NotFound
    );
}

#[test]
fn explain_finds_one_entry_and_refuses_anothers_uid() {
    let daemon = FakeDaemon::holding(opens(1..=3));
    let explain = |uid: &str| daemon.ask(&Request::Explain { uid: uid.into() });
    let responses = explain("5f3a91c2-2").unwrap();
    let [Response::Explained(explained)] = &responses[..] else { panic!("{responses:?}") };
    assert_eq!(explained.entry.seq, 2);
    assert_eq!(explained.explanation.tried, ["tried for 5f3a91c2-2"]);
    assert_eq!(refusal(explain("ffffffff-2")).kind, ErrorKind::NotFound);
    assert_eq!(refusal(explain("5f3a91c2-9")).kind, ErrorKind::NotFound);
    assert_eq!(refusal(explain("nonsense")).kind, ErrorKind::BadRequest);
}

#[test]
fn sync_that_runs_out_of_time_and_a_bad_reload_say_so() {
    let daemon = FakeDaemon::holding(opens(1..=3));
    let responses = daemon.ask(&Request::Sync { exported: false, wait_ms: 100 }).unwrap();
    assert!(matches!(&responses[..], [Response::Synced(report)] if report.seq == 3), "{responses:?}");
    let late = refusal(daemon.ask(&Request::Sync { exported: true, wait_ms: 100 }));
    assert_eq!(late.kind, ErrorKind::TimedOut);
    let bad = refusal(daemon.ask(&Request::Reload {}));
    assert_eq!(bad.kind, ErrorKind::BadRequest);
    assert!(bad.message.contains("demo.toml:3:1"), "{bad}");
}

#[test]
fn run_is_refused_for_a_process_that_is_not_the_askers_child() {
    let daemon = FakeDaemon::holding(Vec::new());
    let error = refusal(daemon.ask(&Request::Run { agent: "demo".into(), child: 1 }));
    assert_eq!(error.message, "process 1 is not a child of the process that asks");
    assert!(daemon.core.runs.lock().unwrap().is_empty());
}

#[test]
fn what_is_no_request_is_answered_with_an_error() {
    let daemon = FakeDaemon::holding(Vec::new());
    for request in ["nonsense\n", "{\"status\":{\"more\":1}}\n", "{\"nothing\":{}}\n", "[]\n", "\u{1b}\n"] {
        let answer = raw(&daemon, request.as_bytes());
        assert!(answer.starts_with("{\"error\":{\"kind\":\"bad_request\""), "{request}: {answer}");
        assert_eq!(answer.lines().count(), 1);
    }
}

#[test]
fn a_request_over_the_limit_is_refused() {
    let daemon = FakeDaemon::holding(Vec::new());
    let mut request = vec![b' '; MAX_REQUEST_BYTES];
    request.extend_from_slice(b"{\"status\":{}}\n");
    let mut stream = UnixStream::connect(path_in(daemon.runtime_dir.path())).unwrap();
    // The daemon stops reading at the limit, so the rest may not be taken.
    drop(stream.write_all(&request));
    let mut line = String::new();
    BufReader::new(stream).read_line(&mut line).unwrap();
    assert!(line.contains("longer than 65536 bytes"), "{line}");
}

#[test]
fn a_client_that_sends_nothing_is_let_go() {
    let limits = Limits { request_time: Duration::from_millis(50), ..Limits::default() };
    let daemon = FakeDaemon::limited(Vec::new(), limits, Access::of_host());
    assert!(raw(&daemon, b"").contains("no request within 50ms"));
}

#[test]
fn connections_over_the_limit_are_turned_away_and_come_free_again() {
    let limits = Limits { own_connections: 1, ..Limits::default() };
    let daemon = FakeDaemon::limited(opens(1..=1), limits, Access::of_host());
    let mut first = daemon.client().ask(&tail(Since::Start, true), Some(Duration::from_secs(20))).unwrap();
    first.next().unwrap().unwrap();
    assert_eq!(refusal(daemon.ask(&Request::Status {})).kind, ErrorKind::Busy);
    drop(first);
    let until = Instant::now() + Duration::from_secs(10);
    while daemon.ask(&Request::Status {}).is_err() {
        assert!(Instant::now() < until, "the place does not come free though the client left");
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn a_peer_that_may_not_use_the_socket_is_told_so() {
    let uid = rustix::process::geteuid().as_raw();
    if uid == 0 {
        println!("skipped: root may always use the socket");
        return;
    }
    let access = Access::with(None, uid + 1, PathBuf::from("/proc"));
    let daemon = FakeDaemon::limited(Vec::new(), Limits::default(), access);
    assert_eq!(refusal(daemon.ask(&Request::Status {})).kind, ErrorKind::Forbidden);
}

#[test]
fn a_reader_that_does_not_read_is_dropped_with_a_last_line_and_others_are_served() {
    let limits = Limits { stall: Duration::from_secs(1), ..Limits::default() };
    let daemon = FakeDaemon::limited(opens(1..=20_000), limits, Access::of_host());
    let mut slow = UnixStream::connect(path_in(daemon.runtime_dir.path())).unwrap();
    let request = serde_json::to_string(&tail(Since::Start, true)).unwrap() + "\n";
    slow.write_all(request.as_bytes()).unwrap();
    std::thread::sleep(Duration::from_millis(1300));
    daemon.ask(&Request::Status {}).unwrap();
    // It stalled once; what it reads within the second time of a stall is whole lines, and why it ended.
    let mut lines: Vec<String> = BufReader::new(slow).lines().map(Result::unwrap).collect();
    let last = lines.pop().unwrap();
    assert!(last.starts_with("{\"error\":{\"kind\":\"too_slow\""), "{last}");
    assert!(!lines.is_empty() && lines.len() < 20_000);
    for line in lines {
        serde_json::from_str::<Response>(&line).unwrap();
    }
}

#[test]
fn the_socket_is_for_its_owner_and_group_alone_and_goes_with_the_daemon() {
    let directory = tempfile::tempdir().unwrap();
    let own = Access::with(None, 0, PathBuf::from("/proc"));
    let socket = ControlSocket::bind(directory.path(), &own).unwrap();
    let metadata = std::fs::metadata(socket.path()).unwrap();
    assert!(metadata.file_type().is_socket());
    assert_eq!(metadata.permissions().mode() & 0o777, 0o600);
    let path = socket.path().to_owned();
    drop(socket);
    assert!(!path.exists());

    let gid = rustix::process::getegid().as_raw();
    let with_group = Access::with(Some(gid), 0, PathBuf::from("/proc"));
    let socket = ControlSocket::bind(directory.path(), &with_group).unwrap();
    assert_eq!(std::fs::metadata(socket.path()).unwrap().permissions().mode() & 0o777, 0o660);
}

#[test]
fn a_dead_socket_is_replaced_and_a_living_one_is_not() {
    let directory = tempfile::tempdir().unwrap();
    drop(std::os::unix::net::UnixListener::bind(path_in(directory.path())).unwrap());
    let access = Access::of_host();
    let living = ControlSocket::bind(directory.path(), &access).unwrap();
    let error = ControlSocket::bind(directory.path(), &access).unwrap_err();
    assert!(matches!(error, BindError::InUse { .. }), "{error}");
    assert!(living.path().exists());
}

#[test]
fn a_directory_whose_name_is_too_long_for_a_socket_is_refused_with_its_name() {
    let directory = PathBuf::from("/tmp").join("x".repeat(120));
    let error = ControlSocket::bind(&directory, &Access::of_host()).unwrap_err();
    assert!(error.to_string().contains("xxx/control.sock"), "{error}");
}

#[test]
fn without_a_daemon_the_error_names_the_socket_and_the_remedy() {
    let directory = tempfile::tempdir().unwrap();
    let error = super::client::Client::at(directory.path()).connect().unwrap_err();
    assert!(matches!(error, ClientError::NoDaemon { .. }));
    let sentence = error.to_string();
    assert!(sentence.contains(path_in(directory.path()).to_str().unwrap()), "{sentence}");
    assert!(sentence.contains("bailiwick daemon"), "{sentence}");
}

#[test]
fn an_answer_that_is_cut_off_is_not_taken_for_a_whole_one() {
    let directory = tempfile::tempdir().unwrap();
    let listener = std::os::unix::net::UnixListener::bind(path_in(directory.path())).unwrap();
    let server = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut request = String::new();
        BufReader::new(&stream).read_line(&mut request).unwrap();
        stream.write_all(b"{\"synced\":{\"seq\":1}}\n{\"synced\":{\"se").unwrap();
    });
    let client = super::client::Client::at(directory.path());
    let lines: Vec<_> = client.ask(&Request::Status {}, Some(Duration::from_secs(20))).unwrap().collect();
    server.join().unwrap();
    assert!(matches!(&lines[..], [Ok(Response::Synced(_)), Err(ClientError::CutOff { .. })]), "{lines:?}");
}
