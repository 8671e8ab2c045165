//! Ways around a monitor that follows forks and descriptors alone: another cgroup, another process's memory or
//! descriptors, files reached without a name, layers of an overlay, many messages in one call, a flood.

use std::io::Read;
use std::net::{TcpListener, UdpSocket};
use std::path::{Path, PathBuf};

use bailiwick_tests::declaration::Declaration;
use bailiwick_tests::entries::Entries;
use bailiwick_tests::instance::{Instance, Setup, both_sets};
use bailiwick_tests::requirement::Requirement::Tier2;
use bailiwick_tests::workload::Place;
use serde_json::{Value, json};

/// What each script begins with: the call itself, which no library decides.
const CALL: &str = "import ctypes, os, socket, struct, sys\n\
    libc = ctypes.CDLL(None, use_errno=True)\n\
    def call(*a):\n\
    \x20   result = libc.syscall(*(ctypes.c_long(x) if isinstance(x, int) else x for x in a))\n\
    \x20   if result < 0: raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), str(a[0]))\n\
    \x20   return result\n";

/// An agent that may read everything but `denied`, write below `granted`, and run everything.
fn agent(setup: Setup, granted: &Path, denied: &Path) -> Instance {
    let scope = format!(
        "[scope.files]\nread = [\"/**\"]\nwrite = [\"{}/**\"]\ndeny = [\"{}\"]\n[scope.exec]\nallow = [\"/**\"]\n",
        granted.display(),
        denied.display()
    );
    setup.agent(&Declaration::new("detour").with(&scope)).start()
}

pub(crate) fn python(instance: &Instance, script: &str, arguments: &[&str]) -> Entries {
    let script = format!("{CALL}{script}");
    let mut command = vec!["python3", "-c", &script];
    command.extend(arguments);
    instance.run("detour", &command).success();
    instance.synced_trail()
}

pub(crate) fn at(trail: &Entries, event: &str, path: &Path) -> Entries {
    trail.event(event).filter(|entry| entry["attributes"]["file.path"] == json!(path.to_str()))
}

/// Asserts that it was out of scope for the declared deny, and says which entry it was.
pub(crate) fn denied(entries: &Entries) -> &Value {
    let entry = entries.0.first().unwrap_or_else(|| panic!("nothing was told of"));
    assert!(entries.0.iter().all(|entry| entry["verdict"] == "out_of_scope"), "{:#?}", entries.0);
    entry
}

pub(crate) struct Files {
    _place: Place,
    pub(crate) granted: PathBuf,
    pub(crate) secret: PathBuf,
}

fn files() -> Files {
    let place = Place::new();
    let (granted, hidden) = (place.files("granted", 1), place.files("hidden", 0));
    let secret = hidden.join("secret");
    std::fs::write(&secret, "secret").unwrap();
    Files { _place: place, granted, secret }
}

/// In every set of observations the same must come out.
pub(crate) fn in_both_sets(test: impl Fn(&Files, &Instance)) {
    for setup in both_sets(&[Tier2]) {
        let files = files();
        let instance = agent(setup, &files.granted, &files.secret);
        test(&files, &instance);
    }
}

#[test]
fn a_file_reached_without_its_name_is_itself() {
    in_both_sets(|files, instance| {
        let script = "secret = sys.argv[1].encode()\n\
            handle = ctypes.create_string_buffer(struct.pack('II', 128, 0) + bytes(128))\n\
            mount = ctypes.c_int()\n\
            call(303, -100, secret, handle, ctypes.byref(mount), 0)\n\
            top = os.open(os.path.dirname(secret), os.O_RDONLY)\n\
            os.close(call(304, top, handle, os.O_RDONLY))\n\
            bare = os.open(secret, os.O_PATH)\n\
            os.close(os.open(f'/proc/self/fd/{bare}', os.O_RDONLY))\n\
            how = struct.pack('QQQ', os.O_RDONLY, 0, 8)\n\
            os.close(call(437, top, b'secret', how, 24))\n";
        let secret = files.secret.to_str().unwrap();
        let trail = python(instance, script, &[secret]);
        let opened = at(&trail, "file.open", &files.secret);
        denied(&opened);
        assert_eq!(opened.count(), 4, "{:#?}", opened.0);
    });
}

/// A cgroup of the unified hierarchy that ends with the test.
struct Cgroup(PathBuf);

impl Cgroup {
    fn new() -> Self {
        let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap();
        let unified = mounts.lines().find_map(|line| {
            let mut fields = line.split(' ').skip(1);
            let (at, kind) = (fields.next()?, fields.next()?);
            (kind == "cgroup2").then(|| PathBuf::from(at))
        });
        let path = unified.expect("a cgroup2 is mounted").join(format!("bailiwick-test-{}", std::process::id()));
        std::fs::create_dir(&path).unwrap();
        Self(path)
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_dir(&self.0) {
            eprintln!("{}: left behind: {error}", self.0.display());
        }
    }
}

#[test]
fn a_denied_file_is_not_changed_under_another_name_unnoticed() {
    in_both_sets(|files, instance| {
        let hard = files.granted.join("hard");
        std::fs::hard_link(&files.secret, &hard).unwrap();
        let script = "hard = sys.argv[1]\n\
            os.chmod(hard, 0o600)\n\
            os.truncate(hard, 3)\n\
            fd = os.open(hard, os.O_RDWR); os.ftruncate(fd, 2)\n\
            os.chmod(os.path.dirname(hard) + '/f0', 0o600)\n";
        let trail = python(instance, script, &[hard.to_str().unwrap()]);
        for (event, times) in [("file.chmod", 1), ("file.truncate", 2), ("file.open", 1)] {
            let told = at(&trail, event, &hard);
            assert_eq!(denied(&told)["reason"]["kind"], "rule", "{event}: {:#?}", told.0);
            assert_eq!(told.len(), times, "{event}: {:#?}", told.0);
        }
        let beside = at(&trail, "file.chmod", &files.granted.join("f0"));
        assert_eq!(beside.only()["verdict"], "in_scope");
    });
}

#[test]
fn a_child_in_another_cgroup_and_one_that_is_traced_stay_in_the_session() {
    in_both_sets(|files, instance| {
        let cgroup = Cgroup::new();
        let script = "cgroup, secret = sys.argv[1:]\n\
            into = os.open(cgroup, os.O_RDONLY)\n\
            arguments = struct.pack('11Q', 0x200000000, 0, 0, 0, 17, 0, 0, 0, 0, 0, into)\n\
            pid = call(435, arguments, 88)\n\
            if pid == 0:\n\
            \x20   os.truncate(secret, 1); os._exit(0)\n\
            os.waitpid(pid, 0)\n\
            r, w = os.pipe()\n\
            pid = os.fork()\n\
            if pid == 0:\n\
            \x20   os.read(r, 1); os.truncate(secret, 2); os._exit(0)\n\
            call(101, 16, pid, 0, 0); os.waitpid(pid, 0); call(101, 17, pid, 0, 0)\n\
            os.write(w, b'x'); os.waitpid(pid, 0)\n";
        let trail = python(instance, script, &[cgroup.0.to_str().unwrap(), files.secret.to_str().unwrap()]);
        let start = trail.event("session.start");
        let session = start.only()["session"].as_str().unwrap();
        let truncated = at(&trail, "file.truncate", &files.secret);
        denied(&truncated);
        assert_eq!((truncated.session(session).len(), truncated.processes().len()), (2, 2));
        let traced = trail.event("privilege.ptrace");
        let attach = traced.filter(|entry| entry["attributes"]["bailiwick.ptrace.request"] == "ATTACH");
        assert_eq!(attach.only()["verdict"], "out_of_scope", "{:#?}", traced.0);
    });
}

#[test]
fn what_is_done_with_anothers_descriptor_or_memory_is_told_of_the_one_who_acts() {
    in_both_sets(|files, instance| {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let script = "secret, port = sys.argv[1], int(sys.argv[2])\n\
            told, tell = os.pipe(); done, end = os.pipe()\n\
            pid = os.fork()\n\
            if pid == 0:\n\
            \x20   fd = os.open(secret, os.O_RDWR)\n\
            \x20   os.write(tell, bytes([fd])); os.read(done, 1); os._exit(0)\n\
            fd = os.read(told, 1)[0]\n\
            taken = call(438, os.pidfd_open(pid), fd, 0)\n\
            assert os.pread(taken, 6, 0) == b'secret'\n\
            local = ctypes.create_string_buffer(b'x'); room = struct.pack('QQ', ctypes.addressof(local), 1)\n\
            call(311, pid, room, 1, room, 1, 0)\n\
            os.write(end, b'x'); os.waitpid(pid, 0)\n\
            connection = socket.create_connection(('127.0.0.1', port))\n\
            if os.fork() == 0:\n\
            \x20   connection.sendall(b'from the child'); os._exit(0)\n\
            os.wait()\n\
            assert connection.recv(1) == b''\n\
            connection.close()\n";
        let server = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            stream.read_exact(&mut [0; 14]).unwrap();
        });
        let trail = python(instance, script, &[files.secret.to_str().unwrap(), &port.to_string()]);
        server.join().unwrap();
        let opener = at(&trail, "file.open", &files.secret);
        let taken = at(&trail, "fd.receive", &files.secret);
        let read = at(&trail, "file.io", &files.secret);
        denied(&taken);
        assert_eq!(taken.len(), 1, "{:#?}", taken.0);
        assert_eq!(read.count(), 1, "{:#?}", read.0);
        assert_eq!(taken.processes(), read.processes(), "the one who acts");
        assert_ne!(opener.processes(), read.processes(), "not the one who opened");
        let called = |name: &str| {
            trail.event("privilege.ptrace").filter(|entry| entry["attributes"]["bailiwick.syscall"] == name)
        };
        for name in ["pidfd_getfd", "process_vm_writev"] {
            assert_eq!(called(name).only()["verdict"], "out_of_scope", "{name}");
        }
        let written = called("process_vm_writev");
        let target = &written.only()["attributes"]["bailiwick.target.tgid"];
        assert_eq!(opener.processes(), std::iter::once(target.as_u64().unwrap()).collect());
        let closed = trail.event("network.close").filter(|entry| entry["attributes"]["server.port"] == port);
        assert_eq!(closed.only()["attributes"]["bailiwick.network.bytes_sent"], 14, "{:#?}", closed.0);
    });
}

#[test]
fn messages_that_go_together_are_told_of_each() {
    in_both_sets(|files, instance| {
        let sinks = [UdpSocket::bind("127.0.0.1:0").unwrap(), UdpSocket::bind("127.0.0.1:0").unwrap()];
        let ports = sinks.map(|sink| sink.local_addr().unwrap().port());
        let script = "secret, *ports = sys.argv[1:]\n\
            keep = []\n\
            def at(bytes):\n\
            \x20   keep.append(ctypes.create_string_buffer(bytes, len(bytes))); return ctypes.addressof(keep[-1])\n\
            def message(name, data, control=b''):\n\
            \x20   part = at(struct.pack('QQ', at(data), len(data)))\n\
            \x20   return struct.pack('QIIQQQQiIII', at(name) if name else 0, len(name), 0, part, 1,\n\
            \x20                      at(control) if control else 0, len(control), 0, 0, 0, 0)\n\
            def address(port): return struct.pack('=H', 2) + struct.pack('>H', int(port)) + bytes([127, 0, 0, 1]) + bytes(8)\n\
            datagrams = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)\n\
            vector = b''.join(message(address(port), b'x') for port in ports)\n\
            assert call(307, datagrams.fileno(), at(vector), len(ports), 0) == len(ports)\n\
            one, two = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)\n\
            for _ in range(2): socket.send_fds(one, [b'x'], [os.open(secret, os.O_RDONLY)])\n\
            vector = at(b''.join(message(b'', b'x', bytes(64)) for _ in range(2)))\n\
            assert call(299, two.fileno(), vector, 2, 0, 0) == 2\n";
        let [first, second] = ports.map(|port| port.to_string());
        let trail = python(instance, script, &[files.secret.to_str().unwrap(), &first, &second]);
        for port in ports {
            let sent = trail.event("network.send").filter(|entry| entry["attributes"]["server.port"] == port);
            assert_eq!(sent.only()["verdict"], "out_of_scope", "{:#?}", trail.event("network.send").0);
        }
        let received = at(&trail, "fd.receive", &files.secret);
        denied(&received);
        assert_eq!(received.count(), 2, "{:#?}", received.0);
    });
}

#[test]
fn a_connection_of_another_kind_is_a_network_event() {
    in_both_sets(|_, instance| {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let script = "try: several = socket.socket(socket.AF_INET, socket.SOCK_STREAM, 262)\n\
            except OSError as error: print('MPTCP:', error); sys.exit(77)\n\
            several.connect(('127.0.0.1', int(sys.argv[1])))\n";
        let script = format!("{CALL}{script}");
        let said = instance.run("detour", &["python3", "-c", &script, &port.to_string()]);
        if said.status.code() == Some(77) {
            eprintln!("skipped: this kernel makes no MPTCP socket: {}", said.stdout);
            return;
        }
        said.success();
        let trail = instance.synced_trail();
        let connected = trail.event("network.connect").filter(|entry| entry["attributes"]["server.port"] == port);
        assert_eq!(connected.only()["verdict"], "out_of_scope", "{:#?}", trail.event("network.connect").0);
    });
}

#[test]
fn a_file_that_is_denied_is_denied_in_an_overlay_of_its_directory() {
    in_both_sets(|files, instance| {
        let script = "lower, base = sys.argv[1:]\n\
            CLONE_NEWNS, CLONE_NEWUSER = 0x20000, 0x10000000\n\
            for name in ('upper', 'work', 'merged'): os.mkdir(f'{base}/{name}')\n\
            call(272, CLONE_NEWNS)\n\
            call(165, b'none', b'/', 0, ctypes.c_long(0x44000), 0)\n\
            options = f'lowerdir={lower},upperdir={base}/upper,workdir={base}/work'.encode()\n\
            call(165, b'overlay', f'{base}/merged'.encode(), b'overlay', 0, options)\n\
            open(f'{base}/merged/secret').read()\n\
            open(f'{base}/merged/beside').read()\n\
            open(f'{base}/merged/secret', 'a').write('more')\n";
        std::fs::write(files.secret.with_file_name("beside"), "beside").unwrap();
        let (lower, base) = (files.secret.parent().unwrap(), &files.granted);
        let trail = python(instance, script, &[lower.to_str().unwrap(), base.to_str().unwrap()]);
        let merged = at(&trail, "file.open", &base.join("merged/secret"));
        assert!(!merged.is_empty(), "{:#?}", trail.event("file.open").0);
        let reason = &merged.0[0]["reason"];
        assert_eq!(reason["kind"], "rule", "the file itself is denied: {reason:#}");
        let other = at(&trail, "file.open", &base.join("merged/beside"));
        assert_eq!(other.only()["verdict"], "in_scope", "a file beside it is not");
        let mounted = trail.event("file.mount");
        let mounted = mounted.filter(|entry| entry["attributes"].get("error.type").is_none());
        denied(&mounted);
    });
}

#[test]
fn one_weighty_deed_in_a_flood_of_a_million_is_told_of() {
    in_both_sets(|files, instance| {
        let script = "secret, dir = sys.argv[1:]\n\
            fd = os.open(dir + '/f0', os.O_RDWR)\n\
            os.write(fd, b'x')\n\
            pread = os.pread\n\
            for _ in range(500000): pread(fd, 1, 0)\n\
            os.unlink(secret)\n\
            for _ in range(500000): pread(fd, 1, 0)\n";
        let trail = python(instance, script, &[files.secret.to_str().unwrap(), files.granted.to_str().unwrap()]);
        let unlinked = at(&trail, "file.unlink", &files.secret);
        assert_eq!(unlinked.only()["verdict"], "out_of_scope");
        let read = at(&trail, "file.io", &files.granted.join("f0"));
        let read = read.filter(|entry| entry["attributes"]["bailiwick.file.access"] == "r");
        assert_eq!(read.count() + trail.lost("file.io"), 1_000_000, "{:#?}", read.0);
    });
}
