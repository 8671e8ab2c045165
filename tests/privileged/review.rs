//! Recorded history judged again: the same declaration gives every entry the verdict that its event had, whatever the event.

use std::path::Path;

use bailiwick_tests::bounded;
use bailiwick_tests::declaration::Declaration;
use bailiwick_tests::instance::{Instance, Setup};
use bailiwick_tests::requirement::Requirement::Tier2;
use bailiwick_tests::requirement::require;
use bailiwick_tests::workload::{DEADLINE, Place};
use serde_json::Value;

/// What a scope judges, of every kind: by names and by descriptors, in scope and out of it, done and failed; a denied file by
/// its name, by a hard link and by a bind mount.
const DEEDS: &str = "import ctypes, os, signal, socket, subprocess, sys\n\
    granted, hidden, secret, other = sys.argv[1:5]\n\
    at = lambda name: os.path.join(granted, name)\n\
    def tried(deed, *args):\n\
    \x20   try: return deed(*args)\n\
    \x20   except OSError: return None\n\
    for name in ('a', 'b'): open(at(name), 'w').write(name)\n\
    open(at('a'), 'r+').read()\n\
    open('/dev/stderr', 'w').write('x')\n\
    tried(open, at('missing/x'))\n\
    tried(open, os.path.join(hidden, 'missing'))\n\
    tried(open, hidden + '/x\\udcff', 'w')\n\
    tried(open, secret)\n\
    os.link(secret, at('link'))\n\
    open(at('link')).read()\n\
    os.rename(at('a'), at('c'))\n\
    os.rename(at('b'), os.path.join(hidden, 'b'))\n\
    os.symlink('/nowhere', at('sym'))\n\
    os.mkdir(at('dir')); os.rmdir(at('dir')); os.chmod(at('c'), 0o600); os.truncate(at('c'), 1)\n\
    fd = os.open(at('c'), os.O_RDWR); os.fchmod(fd, 0o644); os.ftruncate(fd, 0); os.setxattr(at('c'), 'user.x', b'1')\n\
    os.close(os.memfd_create('nothing'))\n\
    os.kill(int(sys.argv[5]), 0)\n\
    os.kill(int(sys.argv[5]), signal.SIGCONT)\n\
    os.setresuid(0, 0, 0)\n\
    tried(subprocess.run, ['/no/such/program'])\n\
    tried(subprocess.run, ['/usr/bin/../bin/true'])\n\
    tried(subprocess.run, [at('c')])\n\
    subprocess.run(['/bin/sh', '-c', 'exec /usr/bin/id'])\n\
    for address in (('127.0.0.1', 9), ('127.0.0.2', 9)):\n\
    \x20   s = socket.socket(); tried(s.connect, address); s.close()\n\
    s = socket.socket(); s.bind(('127.0.0.1', 0)); s.listen()\n\
    c = socket.create_connection(s.getsockname()); c.close()\n\
    u = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); tried(u.sendto, b'x', ('127.0.0.1', 9))\n\
    for name in ('\\0bailiwick-nobody', at('no-socket')):\n\
    \x20   s = socket.socket(socket.AF_UNIX); tried(s.connect, name)\n\
    tried(socket.socket, socket.AF_PACKET, socket.SOCK_RAW, 0)\n\
    libc = ctypes.CDLL(None)\n\
    libc.unshare(0x20000)\n\
    libc.mount(None, b'/', None, 0x44000, None)\n\
    for source in (hidden, other):\n\
    \x20   libc.mount(source.encode(), at('mnt').encode(), None, 4096, None)\n\
    \x20   for name in ('secret', 'plain'): tried(open, at('mnt/' + name))\n\
    \x20   libc.umount2(at('mnt').encode(), 2)\n\
    open(at('c')).read()\n";

struct Files {
    _place: Place,
    arguments: Vec<String>,
    secret: String,
}

fn files() -> Files {
    let place = Place::new();
    let [granted, hidden, other] = ["granted", "hidden", "other"].map(|name| place.files(name, 0));
    std::fs::create_dir(granted.join("mnt")).unwrap();
    for (dir, name) in [(&hidden, "secret"), (&hidden, "plain"), (&other, "plain")] {
        std::fs::write(dir.join(name), name).unwrap();
    }
    let text = |path: &Path| path.display().to_string();
    let secret = text(&hidden.join("secret"));
    let arguments = vec![text(&granted), text(&hidden), secret.clone(), text(&other)];
    Files { _place: place, arguments, secret }
}

fn declaration(files: &Files) -> Declaration {
    let granted = &files.arguments[0];
    Declaration::new("doer").with(&format!(
        "[scope]\ninclude = [\"base\", \"python\"]\n\
         [scope.files]\nread = [\"{granted}/**\", \"/proc/**\"]\nwrite = [\"{granted}/**\"]\ndeny = [\"{}\"]\n\
         [scope.network]\nconnect = [\"127.0.0.1:*\"]\n\
         [scope.privileges]\nallow = [\"setid\", \"namespace\"]\n",
        files.secret
    ))
}

/// Runs the deeds, and returns how many entries of the session were judged.
fn run(instance: &Instance, files: &Files) -> usize {
    let mut target = std::process::Command::new("/bin/sleep").arg("60").spawn().unwrap();
    let pid = target.id().to_string();
    let mut command = vec!["python3", "-c", DEEDS];
    command.extend(files.arguments.iter().map(String::as_str));
    command.push(&pid);
    let said = bounded::run(&mut instance.run_command("doer", &command), DEADLINE);
    target.kill().unwrap();
    target.wait().unwrap();
    said.success();
    let trail = instance.synced_trail();
    let judged = trail.filter(|entry| entry["verdict"] != "none");
    for event in ["file.open", "file.rename", "network.connect", "unix.connect", "process.exec", "privilege.setid"] {
        assert!(!judged.event(event).is_empty(), "nothing judged of {event}");
    }
    let denied = judged.filter(|entry| entry["reason"]["text"] == files.secret.as_str());
    for name in ["/hidden/secret", "/granted/link", "/granted/mnt/secret"] {
        let by = |entry: &Value| entry["attributes"]["file.path"].as_str().is_some_and(|path| path.ends_with(name));
        assert!(!denied.filter(by).is_empty(), "{name} was not denied: {:#?}", denied.0);
    }
    judged.len()
}

fn replayed(instance: &Instance, arguments: &str) -> (Option<i32>, Value) {
    let said = instance.call(&format!("replay --json {arguments}"));
    (said.code(), said.json())
}

#[test]
fn every_session_replayed_by_its_own_declaration_is_judged_as_it_was() {
    if !require(&[Tier2]) {
        return;
    }
    let files = files();
    let mut instance = Setup::new().agent(&declaration(&files)).start();
    let judged = run(&instance, &files);
    let own = instance.config("agents.d/doer.toml").display().to_string();
    let online = replayed(&instance, &own);
    assert_eq!((online.0, &online.1["changed"]), (Some(0), &serde_json::json!([])), "{:#}", online.1);
    let counted = usize::try_from(online.1["judged"].as_u64().unwrap()).unwrap();
    assert!(counted >= judged, "{counted} judged again of {judged}");
    instance.stop();
    assert_eq!(replayed(&instance, &own), online, "without a daemon it is the same");
}

#[test]
fn a_proposed_scope_says_which_entries_it_would_change_and_exits_with_1() {
    if !require(&[Tier2]) {
        return;
    }
    let files = files();
    let instance = Setup::new().agent(&declaration(&files)).start();
    run(&instance, &files);
    let narrower = declaration(&files).text().replace("\"setid\", ", "");
    let proposed = files._place.join("proposed.toml");
    std::fs::write(&proposed, narrower).unwrap();
    let (code, report) = replayed(&instance, &proposed.display().to_string());
    let used = instance.trail().event("privilege.setid");
    let changed = report["changed"].as_array().unwrap();
    assert_eq!((code, changed.len()), (Some(1), used.len()), "{report:#}");
    for (changed, used) in changed.iter().zip(&used.0) {
        assert_eq!(changed["uid"], used["uid"]);
        assert_eq!((&changed["was"], &changed["would_be"]), (&"in_scope".into(), &"out_of_scope".into()));
        assert_eq!(changed["reason"]["kind"], "nearest");
    }
    let text = instance.call(&format!("replay {}", proposed.display()));
    assert!(text.stdout.contains("in_scope -> out_of_scope"), "{}", text.stdout);
    let nobodys = instance.call(&format!("replay --session ffffffffffffffff {}", proposed.display())).success();
    assert!(nobodys.stdout.contains("nothing would be judged otherwise"), "{}", nobodys.stdout);
}

#[test]
fn a_proposed_declaration_that_is_wrong_is_refused_with_its_line() {
    let instance = Setup::new().prepare();
    let place = Place::new();
    let wrong = place.join("wrong.toml");
    std::fs::write(&wrong, "[agent]\nname = \"x\"\n[scope.files]\nread = [\"srv\"]\n").unwrap();
    let said = instance.call(&format!("replay {}", wrong.display()));
    assert_eq!(said.code(), Some(2));
    assert!(said.stderr.contains("wrong.toml:4:9"), "{}", said.stderr);
}
