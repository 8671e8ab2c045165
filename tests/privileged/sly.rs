//! Ways around a monitor that takes a process for its first thread, a child for its parent, or a name for the file.
//!
//! `evader` does each, and every test runs under both sets of observations.

use std::io::Read;
use std::net::{TcpListener, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::Command;

use bailiwick_tests::bounded::{Running, Said};
use bailiwick_tests::declaration::Declaration;
use bailiwick_tests::entries::Entries;
use bailiwick_tests::instance::{Instance, Setup, both_sets};
use bailiwick_tests::requirement::Requirement::Tier2;
use serde_json::json;

/// What `evader` says where this kernel does not have the technique.
const SKIPPED: Option<i32> = Some(77);

/// An agent that may read everything, write below `granted`, and is denied the file `secret`, whose content is its name.
struct Scene {
    instance: Instance,
    program: PathBuf,
    granted: PathBuf,
    secret: PathBuf,
}

impl Scene {
    fn new(setup: Setup) -> Self {
        let instance = setup.prepare();
        let (granted, hidden) = (instance.place().files("granted", 1), instance.place().files("hidden", 0));
        let (program, secret) = (instance.place().copy_of("evader", "evader"), hidden.join("secret"));
        std::fs::write(&secret, "secret").unwrap();
        let scope = format!(
            "[scope.files]\nread = [\"/**\"]\nwrite = [\"{}/**\"]\ndeny = [\"{}\"]\n[scope.exec]\nallow = [\"/**\"]\n",
            granted.display(),
            secret.display()
        );
        let declaration = Declaration::new("sly").with(&scope);
        instance.write(&declaration.file(), declaration.text());
        let mut scene = Self { instance, program, granted, secret };
        scene.instance.start_daemon();
        scene
    }

    fn command<'a>(&'a self, words: &[&'a str]) -> Vec<&'a str> {
        let mut command = vec![self.program.to_str().unwrap()];
        command.extend(words);
        command
    }

    /// Runs a technique that every kernel has.
    fn evade(&self, words: &[&str]) -> (Said, Entries) {
        let said = self.instance.run("sly", &self.command(words)).success();
        (said, self.instance.synced_trail())
    }

    /// Runs a technique that this kernel may not have, and then says so.
    fn try_to(&self, words: &[&str]) -> Option<Entries> {
        let said = self.instance.run("sly", &self.command(words));
        if said.code() == SKIPPED {
            eprintln!("skipped: this kernel does not let {words:?} be tried: {}", said.stdout.trim());
            return None;
        }
        said.success();
        Some(self.instance.synced_trail())
    }

    fn secret(&self) -> &str {
        self.secret.to_str().unwrap()
    }

    /// The one deed that `trail` has: judged, and of the one session.
    fn deed(&self, trail: &Entries) -> u64 {
        let deeds = at(trail, "file.truncate", &self.secret);
        let entry = deeds.only();
        assert_eq!((&entry["verdict"], entry["count"].as_u64()), (&json!("out_of_scope"), Some(1)), "{entry:#}");
        assert_eq!(entry["session"], trail.event("session.start").only()["session"], "{entry:#}");
        entry["process"]["tgid"].as_u64().unwrap()
    }
}

fn at(trail: &Entries, event: &str, path: &Path) -> Entries {
    trail.event(event).filter(|entry| entry["attributes"]["file.path"] == json!(path.to_str()))
}

/// The executable's own first process: whom `run` became.
fn first(trail: &Entries) -> u64 {
    trail.event("session.start").only()["process"]["tgid"].as_u64().unwrap()
}

fn in_both_sets(test: impl Fn(&Scene)) {
    for setup in both_sets(&[Tier2]) {
        test(&Scene::new(setup));
    }
}

#[test]
fn a_thread_that_execs_takes_its_process_along() {
    in_both_sets(|scene| {
        let (_, trail) = scene.evade(&["thread-exec", scene.secret()]);
        let doer = scene.deed(&trail);
        let execs = trail.event("process.exec").process(doer);
        let again = execs.filter(|entry| entry["attributes"]["process.command_args"][1] == "truncate");
        let entry = again.only();
        assert_eq!(entry["attributes"]["process.executable.path"], json!(scene.program.to_str()), "{entry:#}");
        assert_eq!(doer, first(&trail), "the process is another");
        let exits = trail.event("process.exit").process(doer);
        assert_eq!(exits.only()["attributes"]["process.exit.code"], 0, "{:#?}", exits.0);
    });
}

#[test]
fn a_process_whose_first_thread_is_dead_goes_on_being_watched() {
    in_both_sets(|scene| {
        let (_, trail) = scene.evade(&["leaderless", scene.secret()]);
        let doer = scene.deed(&trail);
        assert_eq!(doer, first(&trail));
        assert_eq!(trail.event("process.exit").process(doer).len(), 1);
    });
}

#[test]
fn a_grandchild_that_nobody_is_parent_of_stays_in_the_session() {
    in_both_sets(|scene| {
        let (_, trail) = scene.evade(&["detach", scene.secret()]);
        let doer = scene.deed(&trail);
        assert_ne!(doer, first(&trail));
    });
}

#[test]
fn a_child_that_shares_its_parents_memory_acts_in_its_own_name() {
    in_both_sets(|scene| {
        let (_, trail) = scene.evade(&["vfork", scene.secret()]);
        let doer = scene.deed(&trail);
        assert_ne!(doer, first(&trail));
        let became = trail.event("process.exec").process(doer);
        assert!(became.only()["attributes"]["process.executable.path"].as_str().unwrap().ends_with("/true"));
    });
}

#[test]
fn a_traced_child_stays_in_the_session_and_the_tracing_is_told_of() {
    in_both_sets(|scene| {
        for (way, request, by_itself) in [("seize", "SEIZE", false), ("traceme", "TRACEME", true)] {
            std::fs::write(&scene.secret, "secret").unwrap();
            let before = scene.instance.synced_trail().len();
            let (_, trail) = scene.evade(&[way, scene.secret()]);
            let trail = Entries(trail.0[before..].to_vec());
            let doer = scene.deed(&trail);
            let traced = trail.event("privilege.ptrace");
            let entry = traced.only();
            assert_eq!(entry["attributes"]["bailiwick.ptrace.request"], request, "{entry:#}");
            assert_eq!(entry["verdict"], "out_of_scope", "{entry:#}");
            assert_eq!(entry["process"]["tgid"], if by_itself { doer } else { first(&trail) }, "{entry:#}");
            if !by_itself {
                assert_eq!(entry["attributes"]["bailiwick.target.tgid"], doer, "{entry:#}");
            }
        }
    });
}

#[test]
fn tracing_a_process_outside_the_session_names_it() {
    in_both_sets(|scene| {
        let outside = Running::start(Command::new("sleep").arg("60"));
        let pid = outside.tgid();
        let (_, trail) = scene.evade(&["trace", &pid.to_string()]);
        let traced = trail.event("privilege.ptrace");
        let entry = traced.only();
        assert_eq!(entry["attributes"]["bailiwick.target.tgid"], pid, "{entry:#}");
        assert_eq!(entry["verdict"], "out_of_scope", "{entry:#}");
        assert!(trail.process(pid.into()).is_empty(), "who is traced is no member");
    });
}

#[test]
fn what_is_written_through_memory_names_the_file() {
    in_both_sets(|scene| {
        let later = scene.granted.join("f0");
        let (_, trail) = scene.evade(&["map", scene.secret(), later.to_str().unwrap()]);
        for (path, verdict) in [(&scene.secret, "out_of_scope"), (&later, "in_scope")] {
            for event in ["file.truncate", "file.map_write"] {
                let told = at(&trail, event, path);
                assert!(!told.is_empty(), "{event} of {}: {:#?}", path.display(), trail.event(event).0);
                assert!(told.0.iter().all(|entry| entry["verdict"] == verdict), "{:#?}", told.0);
            }
        }
    });
}

#[test]
fn what_a_child_sends_by_its_parents_sockets_is_the_childs() {
    in_both_sets(|scene| {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let _sink = UdpSocket::bind(("127.0.0.1", port)).unwrap();
        let server = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            stream.read_exact(&mut [0; 14]).unwrap();
        });
        let (said, trail) = scene.evade(&["inherited", &port.to_string()]);
        server.join().unwrap();
        let child: u64 = said.stdout.trim().parse().unwrap();
        let by = |event: &str| trail.event(event).filter(|entry| entry["attributes"]["server.port"] == port);
        let (sent, connected, closed) = (by("network.send"), by("network.connect"), by("network.close"));
        assert_eq!(sent.only()["process"]["tgid"], child, "{:#?}", sent.0);
        assert_eq!(sent.only()["verdict"], "out_of_scope");
        assert_eq!(connected.only()["process"]["tgid"], first(&trail), "{:#?}", connected.0);
        assert_eq!(closed.only()["attributes"]["bailiwick.network.bytes_sent"], 14, "{:#?}", closed.0);
    });
}

#[test]
fn a_denied_file_under_an_overlay_of_the_agents_own_is_denied_there() {
    in_both_sets(|scene| {
        let (lower, base) = (scene.secret.parent().unwrap(), &scene.granted);
        let words = ["overlay", lower.to_str().unwrap(), base.to_str().unwrap(), "secret"];
        let Some(trail) = scene.try_to(&words) else { return };
        let opened = at(&trail, "file.open", &base.join("merged/secret"));
        assert_eq!(opened.only()["verdict"], "out_of_scope", "{:#?}", opened.0);
        assert_eq!(opened.only()["reason"]["kind"], "rule", "{:#?}", opened.0);
        let mounted = trail.event("file.mount");
        assert_eq!(mounted.only()["verdict"], "out_of_scope", "{:#?}", mounted.0);
        assert_eq!(mounted.only()["attributes"]["file.path"], json!(base.join("merged").to_str()));
        let apart = trail.event("privilege.namespace");
        assert_eq!(apart.only()["verdict"], "out_of_scope", "{:#?}", apart.0);
    });
}

#[test]
fn an_interpreter_registered_in_a_namespace_is_the_image_that_runs() {
    in_both_sets(|scene| {
        let dir = &scene.granted;
        let true_ = Path::new("/bin/true").canonicalize().unwrap();
        scene.instance.place().script("granted/given.evader", "no program\n");
        let Some(trail) = scene.try_to(&["binfmt", dir.to_str().unwrap(), true_.to_str().unwrap()]) else { return };
        let image = |path: &Path| {
            trail.event("process.exec").filter(|entry| {
                entry["attributes"]["process.executable.path"] == json!(path.to_str())
                    && entry["attributes"].get("error.type").is_none()
            })
        };
        let entry = image(&true_).only().clone();
        let given = dir.join("given.evader");
        assert_eq!(entry["attributes"]["process.command_args"][1], json!(given.to_str()), "{entry:#}");
        assert!(image(&given).is_empty());
        assert!(!at(&trail, "file.mount", &dir.join("binfmt")).is_empty());
    });
}

/// Where there is no loopback, an address would go out of the machine: then it is one that the kernel refuses.
#[test]
fn a_vsock_connection_is_a_network_event() {
    in_both_sets(|scene| {
        let symbols = std::fs::read_to_string("/proc/kallsyms").unwrap_or_default();
        let local = symbols.contains(" vsock_loopback_send_pkt");
        if !local {
            eprintln!("skipped in part: this kernel has no vsock loopback; a refused connection is looked for");
        }
        let Some(trail) = scene.try_to(&["vsock", if local { "local" } else { "refused" }]) else { return };
        let connected = trail.event("network.connect");
        let entry = connected.only();
        assert_eq!(entry["attributes"]["bailiwick.vsock.context"], 1, "{entry:#}");
        assert_eq!(entry["attributes"]["bailiwick.vsock.port"], 7, "{entry:#}");
        assert!(entry["attributes"]["error.type"].is_string(), "{entry:#}");
    });
}

/// Where the kernel does not take it, the attempt is told of with its error.
#[test]
fn a_call_of_the_x32_abi_is_told_of_by_its_name() {
    in_both_sets(|scene| {
        let taken = scene.try_to(&["x32", scene.secret()]);
        assert_eq!(taken.is_none(), scene.secret.exists(), "what it did is not what it said");
        let trail = taken.clone().unwrap_or_else(|| scene.instance.synced_trail());
        let unlinked = at(&trail, "file.unlink", &scene.secret);
        let entry = unlinked.only();
        assert_eq!(entry["verdict"], "out_of_scope", "{entry:#}");
        let error = taken.is_none().then(|| json!("ENOSYS"));
        assert_eq!(entry["attributes"].get("error.type"), error.as_ref(), "{entry:#}");
    });
}

#[test]
fn what_stands_beside_a_calls_number_hides_no_call() {
    in_both_sets(|scene| {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let (_, trail) = scene.evade(&["upper", scene.secret(), &port.to_string()]);
        scene.deed(&trail);
        let connected = trail.event("network.connect").filter(|entry| entry["attributes"]["server.port"] == port);
        assert_eq!(connected.only()["verdict"], "out_of_scope", "{:#?}", connected.0);
    });
}

#[test]
fn one_connection_in_a_flood_of_a_million_is_told_of() {
    in_both_sets(|scene| {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let (_, trail) = scene.evade(&["flood", scene.secret(), &port.to_string()]);
        let connected = trail.event("network.connect").filter(|entry| entry["attributes"]["server.port"] == port);
        assert_eq!(connected.only()["verdict"], "out_of_scope", "{:#?}", connected.0);
        let read = at(&trail, "file.io", &scene.secret);
        assert_eq!(read.count() + trail.lost("file.io"), 500_000, "{:#?}", read.0);
        let asked = trail.event("syscall.count").filter(|entry| {
            entry["attributes"]["bailiwick.syscall"] == "getppid" && entry["process"]["tgid"] == first(&trail)
        });
        assert!(asked.is_empty() || asked.count() + trail.lost("syscall.count") == 500_000, "{:#?}", asked.0);
    });
}

#[test]
fn namespaces_that_a_clone_makes_are_a_privilege() {
    in_both_sets(|scene| {
        let Some(trail) = scene.try_to(&["clone3"]) else { return };
        let made = trail.event("privilege.namespace");
        let entry = made.only();
        assert_eq!(entry["attributes"]["bailiwick.namespace.flags"], "0x10020000", "{entry:#}");
        assert_eq!(entry["attributes"]["bailiwick.syscall"], "clone", "{entry:#}");
        assert_eq!(entry["verdict"], "out_of_scope", "{entry:#}");
        assert_eq!(entry["process"]["tgid"].as_u64(), Some(first(&trail)));
    });
}

#[test]
fn a_datagram_to_an_address_of_no_family_is_told_of() {
    in_both_sets(|scene| {
        let receiver = UdpSocket::bind("127.0.0.1:0").unwrap();
        let port = receiver.local_addr().unwrap().port();
        let (_, trail) = scene.evade(&["unspecified", &port.to_string()]);
        let mut bytes = [0; 16];
        assert_eq!(receiver.recv(&mut bytes).unwrap(), 6, "it really arrives");
        let sent = trail.event("network.send");
        let attributes = &sent.only()["attributes"];
        assert_eq!((&attributes["server.address"], &attributes["server.port"]), (&json!("127.0.0.1"), &json!(port)));
        assert_eq!(sent.only()["verdict"], "out_of_scope");
    });
}
