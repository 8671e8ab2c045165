//! Ways around that act by another's hand or in another's name: signals that the kernel sends, sockets of families that are
//! seldom met, names that change while they are used.

use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener};
use std::process::Command;

use bailiwick_tests::bounded::Running;
use bailiwick_tests::entries::Entries;
use serde_json::json;

use crate::detours::{in_both_sets, python};

#[test]
fn a_socket_of_any_other_family_is_told_of() {
    in_both_sets(|_, instance| {
        let script = "AF_XDP, AF_SMC, SOCK_PACKET, IPPROTO_SCTP = 44, 43, 10, 132\n\
            wanted = [(AF_XDP, socket.SOCK_RAW, 0), (AF_SMC, socket.SOCK_STREAM, 0), (socket.AF_ALG, socket.SOCK_SEQPACKET, 0),\n\
            \x20   (socket.AF_INET, SOCK_PACKET, 0), (socket.AF_INET6, socket.SOCK_STREAM, IPPROTO_SCTP),\n\
            \x20   (socket.AF_INET, socket.SOCK_DGRAM, 0), (socket.AF_UNIX, socket.SOCK_SEQPACKET, 0)]\n\
            for family, kind, protocol in wanted:\n\
            \x20   fd = libc.socket(family, kind, protocol)\n\
            \x20   if fd >= 0: os.close(fd)\n";
        let trail = python(instance, script, &[]);
        let told = trail.event("network.raw");
        let family = |entry: &serde_json::Value| entry["attributes"]["bailiwick.network.family"].clone();
        let families: Vec<_> = told.0.iter().map(family).collect();
        assert_eq!(families, [json!("xdp"), json!("smc"), json!("alg"), json!(null), json!(null)], "{:#?}", told.0);
        assert!(told.0.iter().all(|entry| entry["verdict"] == "out_of_scope"), "{:#?}", told.0);
        assert!(told.0.iter().all(|entry| entry["attributes"]["network.transport"] == "raw"), "{:#?}", told.0);
    });
}

#[test]
fn an_abstract_name_that_another_thread_changes_is_the_listeners_own() {
    in_both_sets(|_, instance| {
        let bad = format!("bailiwick-test-bad-{}", std::process::id());
        let listener = UnixListener::bind_addr(&SocketAddr::from_abstract_name(&bad).unwrap()).unwrap();
        listener.set_nonblocking(true).unwrap();
        let (stop, stopped) = std::sync::mpsc::channel::<()>();
        let server = std::thread::spawn(move || {
            while stopped.recv_timeout(std::time::Duration::from_millis(1)).is_err() {
                while listener.accept().is_ok() {}
            }
        });
        let script = "import threading\n\
            bad = b'\\0' + sys.argv[1].encode(); good = bad.replace(b'-bad-', b'-god-')\n\
            address = ctypes.create_string_buffer(struct.pack('H', socket.AF_UNIX) + bad, 2 + len(bad))\n\
            at, stop = ctypes.addressof(address) + 2, False\n\
            def flip():\n\
            \x20   while not stop:\n\
            \x20       ctypes.memmove(at, good, len(good)); ctypes.memmove(at, bad, len(bad))\n\
            thread = threading.Thread(target=flip); thread.start()\n\
            connected = 0\n\
            for _ in range(3000):\n\
            \x20   with socket.socket(socket.AF_UNIX) as one:\n\
            \x20       connected += libc.connect(one.fileno(), address, len(address)) == 0\n\
            stop = True; thread.join()\n\
            open(sys.argv[2], 'w').write(str(connected))\n";
        let count = instance.place().join("count");
        let trail = python(instance, script, &[&bad, count.to_str().unwrap()]);
        stop.send(()).unwrap();
        server.join().unwrap();
        let connected: u64 = std::fs::read_to_string(count).unwrap().parse().unwrap();
        assert!(connected > 0, "nothing was connected");
        let succeeded = trail.event("unix.connect").filter(|entry| entry["attributes"].get("error.type").is_none());
        let to_bad = succeeded.filter(|entry| entry["attributes"]["bailiwick.unix.abstract"] == json!(bad));
        assert_eq!(to_bad.count(), connected, "{:#?}", succeeded.filter(|entry| !to_bad.0.contains(entry)).0);
    });
}

/// The signals that a session was told to send, or to have sent, to a process: of each the call, if there is one, and its number.
fn signals_to(trail: &Entries, tgid: u32) -> Vec<(Option<String>, u64)> {
    let signals = trail.event("privilege.signal");
    assert!(signals.0.iter().all(|entry| entry["verdict"] == "out_of_scope"), "{:#?}", signals.0);
    assert!(signals.0.iter().all(|entry| entry["attributes"]["bailiwick.target.tgid"] == tgid), "{:#?}", signals.0);
    let said = |entry: &serde_json::Value| {
        let call = entry["attributes"].get("bailiwick.syscall").and_then(|call| call.as_str()).map(str::to_owned);
        (call, entry["attributes"]["bailiwick.signal"].as_u64().unwrap())
    };
    signals.0.iter().map(said).collect()
}

#[test]
fn an_outsider_that_is_made_the_owner_of_a_files_signals_is_told_of() {
    in_both_sets(|_, instance| {
        let outsider = Running::start(Command::new("sleep").arg("60"));
        let script = "import fcntl\n\
            F_SETSIG, F_SETOWN_EX, F_OWNER_TID, FIOSETOWN, SIGIO, SIGURG = 10, 15, 0, 0x8901, 29, 23\n\
            outsider = int(sys.argv[1])\n\
            r, w = os.pipe()\n\
            fcntl.fcntl(r, fcntl.F_SETOWN, os.getpid())\n\
            fcntl.fcntl(r, F_SETSIG, SIGURG)\n\
            child = os.fork()\n\
            if child == 0:\n\
            \x20   os.read(r, 1); os._exit(0)\n\
            fcntl.fcntl(r, fcntl.F_SETOWN, child)\n\
            fcntl.fcntl(r, F_SETOWN_EX, struct.pack('ii', F_OWNER_TID, outsider))\n\
            fcntl.fcntl(r, F_SETSIG, SIGIO)\n\
            one = socket.socket()\n\
            fcntl.ioctl(one, FIOSETOWN, struct.pack('i', outsider))\n\
            os.write(w, b'x'); os.wait()\n";
        let trail = python(instance, script, &[&outsider.tgid().to_string()]);
        let call = |name: &str, signal| (Some(name.to_owned()), signal);
        let expected = [call("fcntl", 23), call("fcntl", 29), call("ioctl", 29)];
        assert_eq!(signals_to(&trail, outsider.tgid()), expected);
    });
}

/// A timer's signal is sent by whoever runs when it goes off; a process can say that its own signal is one.
#[test]
fn the_signal_of_an_outsiders_timer_is_nobodys_and_one_that_pretends_to_be_is_the_senders() {
    in_both_sets(|_, instance| {
        let ticking = "import ctypes, signal, struct\n\
            signal.signal(signal.SIGALRM, lambda *_: None)\n\
            libc = ctypes.CDLL(None); timer = ctypes.c_void_p()\n\
            assert libc.timer_create(1, None, ctypes.byref(timer)) == 0\n\
            every = struct.pack('4q', 0, 1000000, 0, 1000000)\n\
            assert libc.timer_settime(timer, 0, every, None) == 0\n\
            while True: signal.pause()\n";
        let outsider = Running::start(Command::new("taskset").args(["1", "python3", "-c", ticking]));
        let script = "import time\n\
            SI_TIMER, SIGURG = -2, 23\n\
            os.sched_setaffinity(0, [0])\n\
            end = time.monotonic() + 2\n\
            while time.monotonic() < end: os.getppid()\n\
            info = ctypes.create_string_buffer(struct.pack('iii', SIGURG, 0, SI_TIMER), 128)\n\
            call(129, int(sys.argv[1]), SIGURG, info)\n";
        let trail = python(instance, script, &[&outsider.tgid().to_string()]);
        assert_eq!(signals_to(&trail, outsider.tgid()), [(None, 23)]);
    });
}
