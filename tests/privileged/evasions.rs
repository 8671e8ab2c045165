//! Ways around a monitor that looks at arguments, or at names alone: each is judged by what really happened.

use std::os::unix::fs::symlink;
use std::path::Path;

use bailiwick_tests::declaration::Declaration;
use bailiwick_tests::entries::Entries;
use bailiwick_tests::instance::{Instance, Setup, both_sets};
use bailiwick_tests::requirement::Requirement::Tier2;
use bailiwick_tests::workload::Place;
use serde_json::json;

/// An agent that may read everything, write below `granted`, and is denied `denied` by its full name.
fn sly(setup: Setup, granted: &Path, denied: &Path) -> Instance {
    let scope = format!(
        "[scope.files]\nread = [\"/**\"]\nwrite = [\"{}/**\"]\ndeny = [\"{}\"]\n[scope.exec]\nallow = [\"/**\"]\n\
         [scope.privileges]\nallow = [\"namespace\", \"mount\", \"memfd\", \"setid\"]",
        granted.display(),
        denied.display()
    );
    setup.agent(&Declaration::new("sly").with(&scope)).start()
}

fn shell(instance: &Instance, script: &str) -> Entries {
    instance.run("sly", &["sh", "-c", script]).success();
    instance.synced_trail()
}

fn opened(trail: &Entries, path: &Path) -> Entries {
    trail.event("file.open").filter(|entry| entry["attributes"]["file.path"] == json!(path.to_str()))
}

/// A granted directory and a secret beside it.
fn places() -> (Place, std::path::PathBuf, std::path::PathBuf) {
    let place = Place::new();
    let (granted, hidden) = (place.files("granted", 1), place.files("hidden", 0));
    let secret = hidden.join("secret");
    std::fs::write(&secret, "secret").unwrap();
    (place, granted, secret)
}

#[test]
fn a_file_denied_by_its_full_name_is_denied_under_every_other() {
    for setup in both_sets(&[Tier2]) {
        let (_place, granted, secret) = places();
        let (hard, soft) = (granted.join("hard"), granted.join("soft"));
        std::fs::hard_link(&secret, &hard).unwrap();
        symlink(&secret, &soft).unwrap();
        let instance = sly(setup, &granted, &secret);
        let script = format!(
            "cat {hard} {soft} {dots} /proc/self/root{secret} > /dev/null; exec 3< {secret}; cat /proc/self/fd/3 > /dev/null",
            hard = hard.display(),
            soft = soft.display(),
            dots = granted.join("../hidden/./secret").display(),
            secret = secret.display()
        );
        let trail = shell(&instance, &script);
        let by_link = opened(&trail, &hard);
        let entry = by_link.only();
        assert_eq!(
            (&entry["verdict"], &entry["reason"]["kind"]),
            (&json!("out_of_scope"), &json!("rule")),
            "{entry:#}"
        );
        let by_name = opened(&trail, &secret);
        // By the symbolic link, by dots, by /proc/self/root, by its name, by /proc/self/fd.
        assert_eq!(by_name.count(), 5, "{:#?}", by_name.0);
        assert!(by_name.0.iter().all(|entry| entry["verdict"] == "out_of_scope"), "{:#?}", by_name.0);
    }
}

#[test]
fn binding_a_denied_place_under_a_granted_one_grants_nothing() {
    for setup in both_sets(&[Tier2]) {
        let (place, granted, secret) = places();
        let hidden = secret.parent().unwrap();
        let at = granted.join("bound");
        std::fs::create_dir(&at).unwrap();
        std::fs::write(hidden.join("other"), "").unwrap();
        let scope = format!(
            "[scope.files]\nread = [\"/usr/**\", \"/etc/**\", \"/proc/**\", \"/dev/**\", \"{}/**\"]\nwrite = [\"/dev/**\"]\n\
         deny = [\"{}/sec*\"]\n[scope.exec]\nallow = [\"/**\"]\n[scope.privileges]\nallow = [\"namespace\", \"mount\"]",
            granted.display(),
            hidden.display()
        );
        let instance = setup.agent(&Declaration::new("sly").with(&scope)).start();
        // In a mount namespace of its own, which ends with it.
        let script = format!(
            "unshare --mount --propagation private sh -c 'mount --bind {} {at}; cat {at}/secret {at}/other {}/f0'",
            hidden.display(),
            granted.display(),
            at = at.display(),
        );
        let trail = shell(&instance, &script);
        let by_bind = opened(&trail, &at.join("secret"));
        let entry = by_bind.only();
        assert_eq!(
            (&entry["verdict"], &entry["reason"]["kind"]),
            (&json!("out_of_scope"), &json!("rule")),
            "{entry:#}"
        );
        assert_eq!(entry["attributes"]["bailiwick.file.host_path"], json!(secret.to_str()), "{entry:#}");
        let ungranted = opened(&trail, &at.join("other"));
        assert_eq!(ungranted.only()["verdict"], "out_of_scope", "{:#?}", ungranted.0);
        assert_eq!(opened(&trail, &granted.join("f0")).only()["verdict"], "in_scope");
        assert!(!trail.event("file.mount").is_empty() && !trail.event("privilege.namespace").is_empty());
        drop(place);
    }
}

#[test]
fn a_path_inside_a_chroot_is_the_hosts() {
    for setup in both_sets(&[Tier2]) {
        let (_place, granted, secret) = places();
        let instance = sly(setup, &granted, &secret);
        let script = format!(
            "python3 -c 'import os; os.chroot({:?}); os.chdir(\"/\"); open(\"/secret\"); os.unlink(\"/secret\")'",
            secret.parent().unwrap().display().to_string()
        );
        let trail = shell(&instance, &script);
        assert_eq!(opened(&trail, &secret).only()["verdict"], "out_of_scope");
        let unlinked =
            trail.event("file.unlink").filter(|entry| entry["attributes"]["file.path"] == json!(secret.to_str()));
        assert_eq!(unlinked.only()["verdict"], "out_of_scope", "{:#?}", trail.event("file.unlink").0);
    }
}

#[test]
fn an_image_without_a_name_is_flagged_and_one_by_a_loader_or_a_descriptor_is_named() {
    for setup in both_sets(&[Tier2]) {
        let (_place, granted, secret) = places();
        let instance = sly(setup, &granted, &secret);
        let script = "import os, shutil, subprocess\n\
        true = os.path.realpath(shutil.which('true'))\n\
        def child(run):\n\
        \x20   pid = os.fork()\n\
        \x20   if pid == 0:\n\
        \x20       try: run()\n\
        \x20       finally: os._exit(1)\n\
        \x20   assert os.waitpid(pid, 0)[1] == 0, run\n\
        memory = os.memfd_create('hidden', 0)\n\
        os.write(memory, open(true, 'rb').read())\n\
        child(lambda: os.execve(memory, ['memory'], {}))\n\
        copy = os.environ['COPY']; shutil.copy(true, copy)\n\
        fd = os.open(copy, os.O_RDONLY); os.unlink(copy)\n\
        child(lambda: os.execve(fd, ['deleted'], {}))\n\
        child(lambda: os.execve(os.open(true, os.O_RDONLY), ['descriptor'], {}))\n\
        loader = '/lib64/ld-linux-x86-64.so.2'\n\
        subprocess.run([loader, true], check=True)\n";
        let copy = granted.join("copy");
        let mut command = instance.run_command("sly", &["python3", "-c", script]);
        let said = bailiwick_tests::bounded::run(command.env("COPY", &copy), bailiwick_tests::workload::DEADLINE);
        said.success();
        let trail = instance.synced_trail();
        let execs = trail.event("process.exec");
        let called = |name: &str| execs.filter(|entry| entry["attributes"]["process.command_args"][0] == name);
        for name in ["memory", "deleted"] {
            let entry = called(name);
            assert_eq!(entry.only()["attributes"]["bailiwick.exec.nameless"], true, "{:#?}", entry.0);
        }
        let by_descriptor = called("descriptor");
        let image = by_descriptor.only()["attributes"]["process.executable.path"].clone();
        assert!(image.as_str().unwrap().ends_with("/true"), "{image}");
        let by_loader = called("/lib64/ld-linux-x86-64.so.2");
        assert!(by_loader.only()["attributes"]["process.executable.path"].as_str().unwrap().contains("/ld-"));
        let mapped = trail.event("file.map_exec").filter(|entry| entry["attributes"]["file.path"] == image);
        assert!(!mapped.is_empty(), "what the loader ran is not named");
    }
}

#[test]
fn a_path_that_another_thread_changes_during_the_call_names_the_file_really_opened() {
    for setup in both_sets(&[Tier2]) {
        let (_place, granted, secret) = places();
        let instance = sly(setup, &granted, &secret);
        let script = format!(
            "import ctypes, os, threading\n\
         good, bad = {good:?}.encode(), {bad:?}.encode()\n\
         assert len(good) == len(bad)\n\
         path = ctypes.create_string_buffer(good)\n\
         libc = ctypes.CDLL(None); stop = False\n\
         def flip():\n\
         \x20   while not stop:\n\
         \x20       ctypes.memmove(path, bad, len(bad)); ctypes.memmove(path, good, len(good))\n\
         thread = threading.Thread(target=flip); thread.start()\n\
         seen = {{}}\n\
         for _ in range(20000):\n\
         \x20   fd = libc.open(path, 0)\n\
         \x20   if fd < 0: continue\n\
         \x20   inode = os.fstat(fd).st_ino; seen[inode] = seen.get(inode, 0) + 1; libc.close(fd)\n\
         stop = True; thread.join()\n\
         print(seen[os.stat(good).st_ino], seen.get(os.stat(bad).st_ino, 0))\n",
            good = granted.join("../hidden/Secret").display().to_string(),
            bad = granted.join("../hidden/secret").display().to_string(),
        );
        std::fs::write(secret.with_file_name("Secret"), "").unwrap();
        let said = instance.run("sly", &["python3", "-c", &script]).success();
        let counts: Vec<u64> = said.stdout.split_whitespace().map(|count| count.parse().unwrap()).collect();
        let trail = instance.synced_trail();
        // Twice more: `os.stat` opens nothing.
        let good = opened(&trail, &secret.with_file_name("Secret"))
            .filter(|entry| entry["attributes"].get("error.type").is_none());
        let bad = opened(&trail, &secret).filter(|entry| entry["attributes"].get("error.type").is_none());
        assert_eq!((good.count(), bad.count()), (counts[0], counts[1]));
        assert!(bad.0.iter().all(|entry| entry["verdict"] == "out_of_scope"));
    }
}

#[test]
fn bytes_are_counted_by_file_whichever_call_moves_them() {
    for setup in both_sets(&[Tier2]) {
        let (_place, granted, secret) = places();
        let instance = sly(setup, &granted, &secret);
        let script = "import os, sys\n\
        dir = sys.argv[1]\n\
        def fd(name): return os.open(dir + '/' + name, os.O_RDWR | os.O_CREAT)\n\
        a, b, c, d = fd('a'), fd('b'), fd('c'), fd('d')\n\
        for _ in range(10): os.write(a, b'x' * 100)\n\
        os.pwrite(a, b'y' * 24, 0)\n\
        assert len(os.pread(a, 4096, 0)) == 1000\n\
        assert os.sendfile(b, a, 0, 600) == 600\n\
        assert os.copy_file_range(a, c, 500, 0, 0) == 500\n\
        r, w = os.pipe()\n\
        assert os.splice(a, w, 400, 0) == 400 and os.splice(r, d, 400) == 400\n\
        if os.fork() == 0:\n\
        \x20   os.pwrite(d, b'z' * 7, 0); os._exit(0)\n\
        os.wait()\n";
        let dir = granted.to_str().unwrap();
        instance.run("sly", &["python3", "-c", script, dir]).success();
        let trail = instance.synced_trail();
        let moved = |name: &str, access: &str| {
            let told = trail.event("file.io").filter(|entry| {
                entry["attributes"]["file.path"] == json!(granted.join(name).to_str())
                    && entry["attributes"]["bailiwick.file.access"] == access
            });
            let bytes: u64 =
                told.0.iter().map(|entry| entry["attributes"]["bailiwick.file.bytes"].as_u64().unwrap()).sum();
            (told.count(), bytes, told.processes().len())
        };
        assert_eq!(moved("a", "w"), (11, 1024, 1));
        assert_eq!(moved("a", "r"), (4, 1000 + 600 + 500 + 400, 1));
        assert_eq!(moved("b", "w"), (1, 600, 1));
        assert_eq!(moved("c", "w"), (1, 500, 1));
        // Its child wrote through a descriptor that it had inherited: whoever acts is named.
        assert_eq!(moved("d", "w"), (2, 407, 2));
    }
}

#[test]
fn names_that_are_long_deep_or_no_text_are_whole_or_marked() {
    for setup in both_sets(&[Tier2]) {
        let (_place, granted, secret) = places();
        let instance = sly(setup, &granted, &secret);
        let script = "import os, sys\n\
        dir = sys.argv[1].encode()\n\
        open(dir + b'/' + b'n' * 255, 'w').close()\n\
        open(dir + b'/new\\nline\\x1b[2J', 'w').close()\n\
        open(dir + b'/not\\xfftext', 'w').close()\n\
        os.chdir(dir)\n\
        for _ in range(60):\n\
        \x20   os.mkdir('d' * 60); os.chdir('d' * 60)\n\
        open('deep', 'w').close()\n\
        for _ in range(60):\n\
        \x20   os.mkdir('d' * 60); os.chdir('d' * 60)\n\
        open('deeper', 'w').close()\n\
        pid = os.fork()\n\
        if pid == 0: os.execv('/bin/true', ['true'] + ['x' * 100000] * 19)\n\
        os.waitpid(pid, 0)\n";
        let dir = granted.to_str().unwrap();
        instance.run("sly", &["python3", "-c", script, dir]).success();
        let trail = instance.synced_trail();
        let created = trail.event("file.create");
        let ends = |end: &str| {
            created.filter(|entry| entry["attributes"]["file.path"].as_str().is_some_and(|path| path.ends_with(end)))
        };
        assert_eq!(ends(&"n".repeat(255)).only()["verdict"], "in_scope");
        assert_eq!(ends("/new\nline\u{1b}[2J").only()["verdict"], "in_scope");
        let escaped = ends("/not\\xFFtext");
        assert_eq!(escaped.only()["escaped"], json!(["file.path"]));
        let deep = ends("/deep");
        assert_eq!(deep.only()["verdict"], "in_scope");
        assert!(deep.only()["attributes"]["file.path"].as_str().unwrap().starts_with(dir), "{:#?}", deep.0);
        let deeper = ends("/deeper");
        assert_eq!(deeper.only()["truncated"], json!(["file.path"]));
        assert_eq!(deeper.only()["verdict"], "out_of_scope", "a path that was cut matches no grant");
        let long = trail.event("process.exec").filter(|entry| entry["attributes"]["process.command_args"][0] == "true");
        assert!(long.only()["truncated"].as_array().unwrap().contains(&json!("process.command_args")));
        let text = instance.call("tail --since start --no-follow --event file.create").success().stdout;
        assert!(!text.contains('\u{1b}'), "an escape reached the terminal");
    }
}

#[test]
fn every_system_call_is_counted_where_that_is_asked_for() {
    for (setup, expected) in both_sets(&[Tier2]).into_iter().zip([0, 5000]) {
        let instance = setup.agent(&Declaration::new("sly")).start();
        let script = "import os\nfor _ in range(5000): os.getppid()\n";
        instance.run("sly", &["python3", "-c", script]).success();
        let trail = instance.synced_trail();
        let counted = trail.event("syscall.count").filter(|entry| {
            // What starts the interpreter may be a shell, which asks for its parent too.
            let executable = entry["process"]["executable"].as_str().unwrap_or_default();
            entry["attributes"]["bailiwick.syscall"] == "getppid" && executable.contains("/python")
        });
        assert_eq!(counted.count(), expected, "{:#?}", counted.0);
    }
}
