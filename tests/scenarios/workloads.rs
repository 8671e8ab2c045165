//! Ordinary work, watched by Bailiwick and by `strace`: nothing is missing, and nothing is invented.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use bailiwick_tests::bounded;
use bailiwick_tests::declaration::Declaration;
use bailiwick_tests::instance::Instance;
use bailiwick_tests::requirement::Requirement::{Strace, Tier2, Venv};
use bailiwick_tests::requirement::require;
use bailiwick_tests::{strace, workload};

use crate::compare;

const WITHIN: Duration = Duration::from_secs(180);

/// Runs a script as an agent, all of it under `strace`, and compares the two.
fn same_as_strace(instance: &Instance, script: &str, arguments: &[&Path]) {
    let script = instance.place().script("work", &format!("#!/bin/sh\nset -e\n{script}"));
    let mut line = vec![script.as_os_str()];
    line.extend(arguments.iter().map(|argument| argument.as_os_str()));
    let prefix = instance.place().join("trace");
    let mut command = instance.run_traced_command("worker", &line, &prefix);
    command.env("HOME", instance.place().path());
    bounded::run(&mut command, WITHIN).success();
    let observed = strace::read(&prefix, &script).unwrap();
    let trail = instance.synced_trail();
    let [session] = &trail.sessions()[..] else { panic!("not one session: {:?}", trail.sessions()) };
    assert!(trail.event("gap").is_empty(), "{:#?}", trail.event("gap").0);
    compare::session(&trail.session(session), &observed);
}

#[test]
fn cloning_and_building_a_c_project() {
    if !require(&[Tier2, Strace]) {
        return;
    }
    let instance = Instance::start(&[Declaration::new("worker")]);
    let origin = instance.place().files("origin", 0);
    fs::write(origin.join("main.c"), "#include \"greet.h\"\nint main(void) { return greet(); }\n").unwrap();
    fs::write(origin.join("greet.c"), "#include <stdio.h>\nint greet(void) { return puts(\"hi\") < 0; }\n").unwrap();
    fs::write(origin.join("greet.h"), "int greet(void);\n").unwrap();
    fs::write(origin.join("Makefile"), "hello: main.o greet.o\n\t$(CC) -o $@ $^\nclean:\n\trm -f *.o hello\n").unwrap();
    for git in [&["init", "-q"][..], &["add", "-A"], &["commit", "-q", "-m", "Greet"]] {
        let mut command = Command::new("git");
        command.args(["-c", "user.name=A", "-c", "user.email=a@example.com"]).args(git).current_dir(&origin);
        assert!(command.status().unwrap().success(), "git {git:?}");
    }
    let script = "git clone -q \"$1\" \"$2\"\ncd \"$2\"\nmake -s -j2\n./hello\nmake -s clean\n";
    same_as_strace(&instance, script, &[&origin, &instance.place().join("clone")]);
}

#[test]
fn installing_a_python_package_from_a_wheel() {
    if !require(&[Tier2, Strace, Venv]) {
        return;
    }
    let instance = Instance::start(&[Declaration::new("worker")]);
    let wheel = instance.place().join("thing-1.0-py3-none-any.whl");
    let make = "import sys, zipfile\n\
        with zipfile.ZipFile(sys.argv[1], 'w') as wheel:\n\
        \x20   wheel.writestr('thing/__init__.py', 'value = 1\\n')\n\
        \x20   info = 'thing-1.0.dist-info/'\n\
        \x20   wheel.writestr(info + 'METADATA', 'Metadata-Version: 2.1\\nName: thing\\nVersion: 1.0\\n')\n\
        \x20   wheel.writestr(info + 'WHEEL', 'Wheel-Version: 1.0\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n')\n\
        \x20   wheel.writestr(info + 'RECORD', '')\n";
    assert!(Command::new("python3").args(["-c", make]).arg(&wheel).status().unwrap().success());
    let python = workload::venv().join("bin/python");
    let script =
        "\"$1\" -m pip install --quiet --no-index --disable-pip-version-check --no-cache-dir --target \"$3\" \"$2\"\n";
    same_as_strace(&instance, script, &[&python, &wheel, &instance.place().join("target")]);
}

#[test]
fn a_python_web_server_and_its_client() {
    if !require(&[Tier2, Strace, Venv]) {
        return;
    }
    let instance = Instance::start(&[Declaration::new("worker")]);
    let served = instance.place().files("served", 3);
    let python = workload::venv().join("bin/python");
    let program = "import functools, http.server, sys, threading, urllib.request\n\
        handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=sys.argv[1])\n\
        server = http.server.ThreadingHTTPServer(('127.0.0.1', 0), handler)\n\
        threading.Thread(target=server.serve_forever).start()\n\
        base = 'http://127.0.0.1:%d/' % server.server_address[1]\n\
        for name in ['f0', 'f1', 'f2', '']:\n\
        \x20   urllib.request.urlopen(base + name).read()\n\
        server.shutdown()\n";
    let file = instance.place().join("serve.py");
    fs::write(&file, program).unwrap();
    same_as_strace(&instance, "touch \"$3/made\"\n\"$1\" \"$2\" \"$3\" 2>/dev/null\n", &[&python, &file, &served]);
}

#[test]
fn installing_a_node_package_from_a_directory() {
    if !require(&[Tier2, Strace]) {
        return;
    }
    if !Command::new("npm").arg("--version").output().is_ok_and(|said| said.status.success()) {
        println!("skipped: npm is not installed");
        return;
    }
    let instance = Instance::start(&[Declaration::new("worker")]);
    let (package, project) = (instance.place().files("thing", 0), instance.place().files("project", 0));
    fs::write(package.join("package.json"), "{\"name\": \"thing\", \"version\": \"1.0.0\", \"main\": \"i.js\"}")
        .unwrap();
    fs::write(package.join("i.js"), "module.exports = 1;\n").unwrap();
    fs::write(project.join("package.json"), "{\"name\": \"project\", \"version\": \"1.0.0\"}").unwrap();
    let script = "cd \"$1\"\nnpm install --silent --offline --no-audit --no-fund --no-update-notifier \"$2\"\n";
    same_as_strace(&instance, script, &[&project, &package]);
}
