//! The gate against the real kernel: every test starts a gate of its own and marks only copies of a program that it made
//! itself in a folder of its own. Needs root; without it a test says so and passes, unless `BAILIWICK_REQUIRE` contains
//! `tier2`.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use agent_userspace::gate::{ANSWER_WITHIN, Gate, GateEvent, GateOptions, TargetState, Unmarked, Why};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

/// Whatever happens to the daemon or the gate, an exec goes on within this time.
const GOES_ON_WITHIN: Duration = Duration::from_secs(1);
/// How long a test waits for what must come.
const PATIENCE: Duration = Duration::from_secs(10);
/// Tells the stand-in daemon what to mark.
const STAND_IN_TARGET: &str = "BAILIWICK_TEST_GATE_TARGET";

/// Whether this process may use permission marks; where it may not, says why the test does nothing.
fn may_mark() -> bool {
    if rustix::process::geteuid().is_root() {
        return true;
    }
    let required = std::env::var("BAILIWICK_REQUIRE").unwrap_or_default();
    assert!(!required.contains("tier2"), "BAILIWICK_REQUIRE asks for tier2, but this is not root");
    eprintln!("skipped: fanotify permission marks need root");
    false
}

/// A program that exits at once with 0, as a new file. `cp` writes it: a descriptor of this process that is open for
/// writing could leak into another test's child and make the exec fail with ETXTBSY.
fn program(dir: &Path, name: &str) -> PathBuf {
    let path = dir.join(name);
    assert!(Command::new("cp").arg("/bin/true").arg(&path).status().unwrap().success());
    path
}

fn gate(targets: &[&Path]) -> Gate {
    let exe = PathBuf::from(env!("CARGO_BIN_EXE_bailiwick"));
    Gate::start(GateOptions { exe, targets: targets.iter().map(|path| path.to_path_buf()).collect() }).unwrap()
}

/// A folder with a program in it, and a gate that watches this program.
fn watched_program() -> (TempDir, PathBuf, Gate) {
    let dir = tempfile::tempdir().unwrap();
    let path = program(dir.path(), "agent");
    let mut gate = gate(&[&path]);
    assert_eq!(state(&gate, &path), TargetState::Marked);
    assert_eq!(gate.next_event(), Some(GateEvent::Marked { target: path.clone() }));
    (dir, path, gate)
}

fn state(gate: &Gate, path: &Path) -> TargetState {
    gate.targets().find(|(target, _)| *target == path).map(|(_, state)| state.clone()).unwrap()
}

/// An exec on its way.
struct Exec {
    done: mpsc::Receiver<(Duration, Child)>,
}

fn exec(path: &Path) -> Exec {
    let (sender, done) = mpsc::channel();
    let mut command = Command::new(path);
    command.stdin(Stdio::null());
    thread::spawn(move || {
        let start = Instant::now();
        // `spawn` returns when the child's exec has succeeded or failed.
        let child = command.spawn().unwrap();
        sender.send((start.elapsed(), child)).unwrap();
    });
    Exec { done }
}

impl Exec {
    fn is_held(&self) -> bool {
        matches!(self.done.try_recv(), Err(mpsc::TryRecvError::Empty))
    }

    /// How long the exec took, and the pid; the program must then end well.
    fn finish(self) -> (Duration, u32) {
        let (took, mut child) = self.done.recv_timeout(PATIENCE).expect("the exec hangs");
        let pid = child.id();
        assert!(child.wait().unwrap().success());
        (took, pid)
    }
}

/// The gate's next event, waited for.
fn next(gate: &mut Gate) -> GateEvent {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(event) = gate.next_event() {
            return event;
        }
        assert!(Instant::now() < deadline, "the gate says nothing");
        let timeout = Timespec { tv_sec: 1, tv_nsec: 0 };
        poll(&mut [PollFd::new(&*gate, PollFlags::IN)], Some(&timeout)).unwrap();
    }
}

/// The next request to attach, past what is said of earlier execs.
fn next_request(gate: &mut Gate) -> GateEvent {
    loop {
        let event = next(gate);
        if matches!(event, GateEvent::AttachRequested { .. }) {
            return event;
        }
    }
}

/// The ticket of a request to attach for the expected target.
fn ticket(event: &GateEvent, expected: &Path) -> u64 {
    let GateEvent::AttachRequested { ticket, executable, since_boot_ns, .. } = event else {
        panic!("expected a request to attach, got {event:?}");
    };
    assert_eq!(executable.as_deref(), Some(expected));
    assert!(*since_boot_ns > 0);
    *ticket
}

fn signal(pid: u32, signal: Signal) {
    kill_process(Pid::from_raw(pid.try_into().unwrap()).unwrap(), signal).unwrap();
}

/// Waits until something holds.
fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < deadline, "never: {what}");
        thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn an_exec_is_held_until_the_daemon_has_attached() {
    if !may_mark() {
        return;
    }
    let (_dir, path, mut gate) = watched_program();
    let exec = exec(&path);
    let event = next(&mut gate);
    thread::sleep(ANSWER_WITHIN / 3);
    assert!(exec.is_held());
    ticket(&event, &path);
    gate.set_attached(true);
    let (took, pid) = exec.finish();
    assert!(took >= ANSWER_WITHIN / 3, "{took:?}");
    assert!(matches!(event, GateEvent::AttachRequested { tgid: Some(tgid), .. } if tgid == pid));
    assert_eq!(gate.next_event(), None);
    assert_eq!(gate.counts().after_attaching, 1);
}

#[test]
fn every_kind_of_answer_lets_an_exec_go_on_long_before_the_deadline() {
    if !may_mark() {
        return;
    }
    let (_dir, path, mut gate) = watched_program();
    let answers: [fn(&mut Gate, u64); 3] =
        [|gate, ticket| gate.attached(ticket), |gate, ticket| gate.declined(ticket), |gate, _| gate.set_attached(true)];
    for answer in answers {
        // The best of a few: one alone could be late on a busy machine.
        let best = (0..5).map(|_| {
            gate.set_attached(false);
            let exec = exec(&path);
            let ticket = ticket(&next_request(&mut gate), &path);
            // Until the gate sleeps: the answer must wake it.
            thread::sleep(ANSWER_WITHIN / 20);
            answer(&mut gate, ticket);
            exec.finish().0
        });
        assert!(best.min().is_some_and(|best| best < ANSWER_WITHIN / 2));
    }
    // Those that a busy machine made late are counted otherwise.
    let counts = gate.counts();
    assert!((2..=10).contains(&counts.after_attaching) && (1..=5).contains(&counts.let_through), "{counts:?}");
}

#[test]
fn while_the_hooks_are_attached_an_exec_goes_on_without_asking() {
    if !may_mark() {
        return;
    }
    let (_dir, path, mut gate) = watched_program();
    gate.set_attached(true);
    for _ in 0..20 {
        exec(&path).finish();
    }
    assert_eq!(gate.next_event(), None);
    assert_eq!((gate.counts().seen, gate.counts().at_once), (20, 20));
    // And what is no longer attached is asked for again.
    gate.set_attached(false);
    let exec = exec(&path);
    ticket(&next(&mut gate), &path);
    gate.set_attached(true);
    exec.finish();
}

#[test]
fn a_daemon_that_does_not_answer_delays_an_exec_by_a_tenth_of_a_second_and_learns_of_the_gap() {
    if !may_mark() {
        return;
    }
    let (_dir, path, mut gate) = watched_program();
    let (took, pid) = exec(&path).finish();
    assert!(took >= ANSWER_WITHIN && took < GOES_ON_WITHIN, "{took:?}");
    // Only now does the daemon look: the request comes first, and attaching closes the gap.
    let request = next(&mut gate);
    ticket(&request, &path);
    let GateEvent::AttachRequested { since_boot_ns, .. } = request else { unreachable!() };
    gate.set_attached(true);
    let event = next(&mut gate);
    let GateEvent::LetThrough { executable, tgid, execs, from_boot_ns, until_boot_ns, why } = event else {
        panic!("expected a passage, got {event:?}");
    };
    assert_eq!(executable.as_deref(), Some(path.as_path()));
    assert_eq!((tgid, execs, why), (Some(pid), Some(1), Why::NoAnswer));
    let held_for = Duration::from_nanos(from_boot_ns - since_boot_ns);
    assert!(held_for >= ANSWER_WITHIN && held_for < GOES_ON_WITHIN, "{held_for:?}");
    assert!(until_boot_ns.is_some_and(|until| until > from_boot_ns), "{until_boot_ns:?}");
}

#[test]
fn a_gap_is_open_while_the_hooks_are_not_attached() {
    if !may_mark() {
        return;
    }
    let (_dir, path, mut gate) = watched_program();
    let exec = exec(&path);
    let ticket = ticket(&next(&mut gate), &path);
    gate.declined(ticket);
    exec.finish();
    let event = next(&mut gate);
    assert!(matches!(event, GateEvent::LetThrough { until_boot_ns: None, why: Why::Declined, .. }), "{event:?}");
}

#[test]
fn many_execs_at_once_wait_together_and_each_is_reported() {
    const EXECS: usize = 40;
    if !may_mark() {
        return;
    }
    let (_dir, path, mut gate) = watched_program();
    let execs: Vec<Exec> = (0..EXECS).map(|_| exec(&path)).collect();
    for exec in execs {
        let (took, _) = exec.finish();
        assert!(took < GOES_ON_WITHIN, "{took:?}");
    }
    let (mut requests, mut passages) = (0, 0);
    while passages < EXECS {
        match next(&mut gate) {
            GateEvent::AttachRequested { .. } => requests += 1,
            GateEvent::LetThrough { execs: Some(1), why: Why::NoAnswer, .. } => passages += 1,
            other => panic!("{other:?}"),
        }
    }
    assert_eq!((requests, gate.counts().let_through), (EXECS, EXECS as u64));
}

#[test]
fn hooks_are_withdrawn_only_when_no_exec_just_counted_on_them() {
    if !may_mark() {
        return;
    }
    let (_dir, path, mut gate) = watched_program();
    gate.set_attached(true);
    exec(&path).finish();
    assert!(!gate.withdraw(PATIENCE));
    exec(&path).finish();
    assert_eq!(gate.counts().at_once, 2);
    thread::sleep(Duration::from_millis(20));
    assert!(gate.withdraw(Duration::from_millis(10)));
    let exec = exec(&path);
    ticket(&next(&mut gate), &path);
    gate.set_attached(true);
    exec.finish();
}

#[test]
fn a_stopped_gate_is_killed_and_the_exec_goes_on() {
    if !may_mark() {
        return;
    }
    let (_dir, path, mut gate) = watched_program();
    signal(gate.pid(), Signal::STOP);
    let (took, _) = exec(&path).finish();
    assert!(took < GOES_ON_WITHIN, "{took:?}");
    let event = next(&mut gate);
    let GateEvent::Died { status, alive_until_boot_ns, .. } = event else {
        panic!("expected the gate's death, got {event:?}");
    };
    assert!(alive_until_boot_ns > 0);
    assert!(status.is_none_or(|status| status.signal() == Some(9)), "{status:?}");
    assert_eq!(gate.next_event(), None);
    assert_eq!(state(&gate, &path), TargetState::Unmarked(Unmarked::NoGate));
}

#[test]
fn a_gate_stopped_while_it_holds_an_exec_is_killed_and_the_exec_goes_on() {
    if !may_mark() {
        return;
    }
    let (_dir, path, mut gate) = watched_program();
    let exec = exec(&path);
    ticket(&next(&mut gate), &path);
    signal(gate.pid(), Signal::STOP);
    let (took, _) = exec.finish();
    assert!(took < GOES_ON_WITHIN, "{took:?}");
    let event = next(&mut gate);
    assert!(matches!(event, GateEvent::Died { unreported: 1, .. }), "{event:?}");
}

#[test]
fn a_gate_that_watches_nothing_may_be_stopped() {
    if !may_mark() {
        return;
    }
    let mut gate = gate(&[]);
    signal(gate.pid(), Signal::STOP);
    thread::sleep(GOES_ON_WITHIN);
    signal(gate.pid(), Signal::CONT);
    let dir = tempfile::tempdir().unwrap();
    let path = program(dir.path(), "agent");
    gate.set_targets(vec![path.clone()]);
    assert_eq!(next(&mut gate), GateEvent::Marked { target: path });
}

#[test]
fn a_killed_gate_frees_the_exec_that_it_holds() {
    if !may_mark() {
        return;
    }
    let (_dir, path, mut gate) = watched_program();
    let exec = exec(&path);
    ticket(&next(&mut gate), &path);
    signal(gate.pid(), Signal::KILL);
    exec.finish();
    let event = next(&mut gate);
    assert!(matches!(event, GateEvent::Died { unreported: 1, .. }), "{event:?}");
}

#[test]
fn dropping_the_gate_ends_its_process_and_frees_the_exec_that_it_holds() {
    if !may_mark() {
        return;
    }
    let (_dir, path, mut gate) = watched_program();
    let pid = gate.pid();
    let exec = exec(&path);
    ticket(&next(&mut gate), &path);
    drop(gate);
    assert!(!Path::new(&format!("/proc/{pid}")).exists());
    exec.finish();
}

#[test]
fn a_target_replaced_by_another_file_is_marked_again_at_refresh() {
    if !may_mark() {
        return;
    }
    let (dir, path, mut gate) = watched_program();
    fs::rename(program(dir.path(), "agent.new"), &path).unwrap();
    exec(&path).finish();
    assert_eq!(gate.counts().seen, 0, "the new file is not marked yet");
    gate.refresh();
    // Nothing says when the new mark stands, since the target was and is marked: so until an exec is held.
    until("the new file is marked", || {
        exec(&path).finish();
        gate.counts().seen > 0
    });
    ticket(&next(&mut gate), &path);
}

#[test]
fn a_target_deleted_and_made_again_is_marked_again_at_refresh() {
    if !may_mark() {
        return;
    }
    let (dir, path, mut gate) = watched_program();
    fs::remove_file(&path).unwrap();
    gate.refresh();
    assert_eq!(next(&mut gate), GateEvent::Unmarked { target: path.clone(), why: Unmarked::Absent });
    // The new file often gets the old one's inode number.
    program(dir.path(), "agent");
    gate.refresh();
    assert_eq!(next(&mut gate), GateEvent::Marked { target: path.clone() });
    let exec = exec(&path);
    ticket(&next(&mut gate), &path);
    gate.set_attached(true);
    exec.finish();
}

#[test]
fn a_target_that_does_not_exist_yet_is_reported_and_marked_when_it_does() {
    if !may_mark() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("agent");
    let mut gate = gate(&[&path]);
    assert_eq!(state(&gate, &path), TargetState::Unmarked(Unmarked::Absent));
    assert_eq!(next(&mut gate), GateEvent::Unmarked { target: path.clone(), why: Unmarked::Absent });
    program(dir.path(), "agent");
    gate.refresh();
    assert_eq!(next(&mut gate), GateEvent::Marked { target: path });
}

#[test]
fn a_target_that_was_taken_off_is_held_no_more_and_one_that_stays_is() {
    if !may_mark() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let (goes, stays) = (program(dir.path(), "goes"), program(dir.path(), "stays"));
    let mut gate = gate(&[&goes, &stays]);
    while gate.next_event().is_some() {}
    gate.set_targets(vec![stays.clone()]);
    let exec_of_stays = exec(&stays);
    let ticket = ticket(&next(&mut gate), &stays);
    gate.attached(ticket);
    exec_of_stays.finish();
    // The gate obeys in order, so by now the other's mark is gone.
    exec(&goes).finish();
    assert_eq!(gate.counts().seen, 1);
    gate.set_targets(Vec::new());
    until("the last mark is gone", || {
        let seen = gate.counts().seen;
        exec(&stays).finish();
        gate.counts().seen == seen
    });
}

#[test]
fn a_script_is_held_by_its_own_path_and_its_interpreter_is_not() {
    if !may_mark() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let interpreter = program(dir.path(), "interpreter");
    let script = dir.path().join("agent");
    let write = "printf '#!%s\\n' \"$1\" > \"$2\" && chmod 755 \"$2\"";
    let written = Command::new("sh").args(["-c", write, "sh"]).arg(&interpreter).arg(&script).status().unwrap();
    assert!(written.success());
    let mut gate = gate(&[&script]);
    assert_eq!(next(&mut gate), GateEvent::Marked { target: script.clone() });
    let held = exec(&script);
    ticket(&next(&mut gate), &script);
    assert!(held.is_held());
    gate.set_attached(true);
    held.finish();
    exec(&interpreter).finish();
    assert_eq!(gate.counts().seen, 1);
}

#[test]
fn a_process_that_waits_can_be_killed_and_the_gate_goes_on() {
    if !may_mark() {
        return;
    }
    let (_dir, path, mut gate) = watched_program();
    let mut command = Command::new(&path);
    // The child dies before its exec, which `spawn` takes for a success.
    let spawned = thread::spawn(move || command.spawn().unwrap().wait().unwrap());
    let GateEvent::AttachRequested { ticket, tgid: Some(tgid), .. } = next(&mut gate) else {
        panic!("expected a request");
    };
    signal(tgid, Signal::KILL);
    assert_eq!(spawned.join().unwrap().signal(), Some(9));
    gate.attached(ticket);
    gate.set_attached(true);
    exec(&path).finish();
    until("both are counted", || gate.counts().after_attaching + gate.counts().at_once == 2);
}

/// Not a test: the daemon that the tests below stop and kill. Starts a gate, says its pid, answers nothing.
#[test]
#[ignore = "the stand-in daemon that other tests start"]
fn stand_in_daemon() {
    let Some(target) = std::env::var_os(STAND_IN_TARGET) else {
        return;
    };
    let gate = gate(&[Path::new(&target)]);
    println!("\ngate {}", gate.pid());
    // Longer than any test, and an end all the same.
    thread::sleep(6 * PATIENCE);
}

/// A daemon in a process of its own, and its gate's pid.
fn stand_in(target: &Path) -> (Child, u32) {
    use std::io::{BufRead, BufReader};
    let mut daemon = Command::new(std::env::current_exe().unwrap())
        .args(["--ignored", "--exact", "stand_in_daemon", "--nocapture"])
        .env(STAND_IN_TARGET, target)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(daemon.stdout.take().unwrap()).lines().map(Result::unwrap);
    let gate = lines.find_map(|line| line.strip_prefix("gate ").map(|pid| pid.parse().unwrap()));
    (daemon, gate.expect("the stand-in daemon has no gate"))
}

fn has_ended(pid: u32) -> bool {
    // A zombie has ended too, where nobody reaps orphans.
    fs::read_to_string(format!("/proc/{pid}/stat")).map_or(true, |stat| stat.contains(") Z "))
}

#[test]
fn a_killed_daemon_takes_its_gate_along_and_the_exec_goes_on() {
    if !may_mark() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let path = program(dir.path(), "agent");
    let (mut daemon, gate) = stand_in(&path);
    let exec_while_it_dies = exec(&path);
    daemon.kill().unwrap();
    daemon.wait().unwrap();
    let (took, _) = exec_while_it_dies.finish();
    assert!(took < GOES_ON_WITHIN, "{took:?}");
    until("the gate ends", || has_ended(gate));
    exec(&path).finish();
}

#[test]
fn a_stopped_daemon_delays_an_exec_by_no_more_than_the_gates_deadline() {
    if !may_mark() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let path = program(dir.path(), "agent");
    let (mut daemon, gate) = stand_in(&path);
    signal(daemon.id(), Signal::STOP);
    for _ in 0..3 {
        let (took, _) = exec(&path).finish();
        assert!(took >= ANSWER_WITHIN && took < GOES_ON_WITHIN, "{took:?}");
    }
    daemon.kill().unwrap();
    daemon.wait().unwrap();
    until("the gate ends", || has_ended(gate));
}

#[test]
fn a_daemon_and_a_gate_both_stopped_do_not_hang_an_exec() {
    if !may_mark() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let path = program(dir.path(), "agent");
    let (mut daemon, gate) = stand_in(&path);
    signal(daemon.id(), Signal::STOP);
    signal(gate, Signal::STOP);
    let (took, _) = exec(&path).finish();
    assert!(took < GOES_ON_WITHIN, "{took:?}");
    until("the gate ends", || has_ended(gate));
    daemon.kill().unwrap();
    daemon.wait().unwrap();
}

/// A control group (version 2) of the test's own, made below the root; removed on drop.
struct ControlGroup(PathBuf);

impl ControlGroup {
    fn new() -> Option<Self> {
        let mounts = fs::read_to_string("/proc/self/mounts").unwrap();
        let root = mounts.lines().find_map(|line| {
            let mut fields = line.split(' ').skip(1);
            let (path, kind) = (fields.next()?, fields.next()?);
            (kind == "cgroup2").then(|| PathBuf::from(path))
        })?;
        let group = root.join(format!("bailiwick-test-gate-{}", std::process::id()));
        fs::create_dir(&group).ok().map(|()| Self(group))
    }

    fn write(&self, file: &str, text: &str) {
        fs::write(self.0.join(file), text).unwrap();
    }
}

impl Drop for ControlGroup {
    fn drop(&mut self) {
        // A group whose last process has just been reaped can be busy for a moment.
        until("the control group is gone", || fs::remove_dir(&self.0).is_ok());
    }
}

#[test]
fn a_frozen_gate_is_killed_and_the_exec_goes_on() {
    if !may_mark() {
        return;
    }
    let Some(group) = ControlGroup::new() else {
        eprintln!("skipped: no control group (version 2) can be made here");
        return;
    };
    let (_dir, path, mut gate) = watched_program();
    group.write("cgroup.procs", &gate.pid().to_string());
    group.write("cgroup.freeze", "1");
    let (took, _) = exec(&path).finish();
    assert!(took < GOES_ON_WITHIN, "{took:?}");
    assert!(matches!(next(&mut gate), GateEvent::Died { .. }));
    drop(gate);
}

#[test]
fn the_gate_started_by_hand_says_so_and_ends() {
    let output = Command::new(env!("CARGO_BIN_EXE_bailiwick")).arg("gate").stdin(Stdio::null()).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains("started by the daemon"));
}

#[test]
fn a_binary_without_a_gate_is_an_error_and_not_a_wait() {
    let start = |exe: &str| Gate::start(GateOptions { exe: exe.into(), targets: Vec::new() });
    let error = start("/bin/true").unwrap_err().to_string();
    assert!(error.contains("ended before it was ready"), "{error}");
    let error = start("/nonexistent/bailiwick").unwrap_err().to_string();
    assert!(error.contains("/nonexistent/bailiwick"), "{error}");
}
