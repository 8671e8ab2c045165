//! What ships: it loads, it grants what programs need, and nothing that is anyone's own.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

use super::tests::{FakeHost, declarations, load, verdict};
use super::*;
use crate::entry::{ReasonKind, Verdict};
use crate::scope::{Access, Action, SeenPath};

#[test]
fn everything_that_ships_is_right_and_has_no_note_of_its_own() {
    let config = Config::load(None).unwrap_or_else(|errors| panic!("{errors}"));
    let names: Vec<&str> = config.declarations.iter().map(Declaration::name).collect();
    assert_eq!(names, ["code-assistant", "demo"]);
    let sets: Vec<&str> = config.grant_sets.iter().map(|set| set.name.value.as_str()).collect();
    assert_eq!(sets, ["base", "git", "node", "python", "rust"]);
    assert!(config.declaration("demo").is_some_and(|demo| demo.recognise.is_empty()));
    assert_eq!(config.hash.len(), 64);
    assert!(SHIPPED_DECLARATIONS.iter().all(|(_, text)| text.lines().count() <= 25));
}

#[test]
fn the_directory_that_the_unit_installs_is_right_and_has_the_defaults() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../systemd");
    let config = Config::load(Some(&directory)).unwrap_or_else(|errors| panic!("{errors}"));
    assert_eq!(config.settings, Settings::default());
    assert_eq!(config.declarations.len(), 2);
}

#[test]
fn the_settings_that_are_commented_out_are_the_defaults() {
    let shipped = include_str!("../../../systemd/bailiwick.toml");
    let set = shipped.lines().map(|line| match line.strip_prefix("# ") {
        Some(setting) if setting.contains(" = ") || setting.starts_with("    \"") || setting == "]" => setting,
        Some(heading) if heading.starts_with('[') && heading.ends_with(']') => heading,
        Some(_) | None => line,
    });
    let text = set.collect::<Vec<_>>().join("\n");
    assert!(text.contains("\nring_bytes = "), "the lines are found");
    let settings = load(&[("bailiwick.toml", &text)], &FakeHost::default()).unwrap().settings;
    let mut expected = Settings::default();
    // These have no default but nothing: the file shows an example.
    expected.trail.retention.age = Some(std::time::Duration::from_secs(365 * 86_400));
    expected.trail.retention.bytes = Some(32 << 30);
    expected.trail.retention.free = Some(2 << 30);
    expected.export.endpoint = Some("http://127.0.0.1:4317".to_owned());
    expected.export.protocol = Some(crate::export::Protocol::Grpc);
    let [backup] = settings.export.targets.as_slice() else { panic!("one target: {:?}", settings.export.targets) };
    assert_eq!((backup.name.as_str(), backup.signals.len()), ("backup", 2));
    expected.export.targets = settings.export.targets.clone();
    let file = "/var/log/bailiwick/ocsf.jsonl".into();
    expected.export.ocsf = Some(crate::export::ocsf::OcsfSettings { file, rotate_bytes: 100 << 20, keep_files: 5 });
    expected.metrics.listen = Some(([127, 0, 0, 1], 9464).into());
    assert_eq!(settings, expected);
}

#[test]
fn no_shipped_set_covers_what_is_private_or_a_whole_tree_and_none_grants_network() {
    let host = FakeHost::default();
    let all = "[agent]\nname = \"x\"\n[scope]\ninclude = [\"base\", \"git\", \"node\", \"python\", \"rust\"]\n";
    let agent = &declarations(&[all], &host)[0];
    for path in [
        "/",
        "/x",
        "/home",
        "/home/u",
        "/home/u/x",
        "/home/u/.ssh/id_ed25519",
        "/home/u/.npmrc",
        "/home/u/.aws/credentials",
        "/home/u/.git-credentials",
        "/home/u/.config/git/credentials",
        "/home/u/.cargo/credentials.toml",
        "/root",
        "/root/x",
        "/root/.ssh/id_ed25519",
        "/root/.netrc",
        "/etc",
        "/etc/x",
        "/etc/shadow",
        "/etc/sudoers",
        "/etc/ssh/ssh_host_ed25519_key",
        "/etc/ssl/private/key.pem",
        "/proc/1/environ",
        "/proc/1/mem",
        "/proc/1/cmdline",
        "/dev/sda",
        "/dev/mem",
        "/srv/x",
        "/var/lib/x",
        "/tmp/x",
        "/run/x",
        "/usr/bin/x/y",
        "/boot/x",
        "/opt/x",
    ] {
        for access in [Access::Write, Access::Exec] {
            assert_eq!(verdict(agent, path, access), Verdict::OutOfScope, "{access:?} {path}");
        }
        assert_eq!(verdict(agent, path, Access::Read), Verdict::OutOfScope, "read {path}");
    }
    for address in ["127.0.0.1:80", "10.0.0.1:443", "[::1]:53", "[2001:db8::1]:443", "0.0.0.0:0"] {
        let action = Action::Connect { address: address.parse().unwrap() };
        assert_eq!(agent.scope.as_ref().unwrap().judge(&action).verdict, Verdict::OutOfScope, "{address}");
    }
}

#[test]
fn the_shipped_sets_cover_what_plain_programs_open() {
    let all = "[agent]\nname = \"x\"\n[scope]\ninclude = [\"base\", \"git\", \"node\", \"python\", \"rust\"]\n";
    let agent = &declarations(&[all], &FakeHost::default())[0];
    // From `strace` of `bash -c`, `python3 -c`, `git commit`, `node -e` and `cargo --version` on Debian 12.
    for path in [
        "/etc/ld.so.cache",
        "/usr/lib/x86_64-linux-gnu/libc.so.6",
        "/usr/lib/locale/C.utf8/LC_MESSAGES/SYS_LC_MESSAGES",
        "/usr/lib/x86_64-linux-gnu/gconv/gconv-modules.cache",
        "/usr/share/zoneinfo/Etc/UTC",
        "/etc/nsswitch.conf",
        "/etc/passwd",
        "/proc/filesystems",
        "/proc/sys/kernel/ngroups_max",
        "/proc/4711/maps",
        "/proc/4711/cgroup",
        "/proc/4711/statm",
        "/proc/meminfo",
        "/proc/sys/vm/overcommit_memory",
        "/dev/null",
        "/dev/tty",
        "/dev/urandom",
        "/sys/kernel/mm/transparent_hugepage/enabled",
        "/sys/fs/cgroup/memory.max",
        "/usr/lib/ssl/openssl.cnf",
        "/etc/ssl/certs/ca-certificates.crt",
        "/usr/lib/python3.11/json/__pycache__/decoder.cpython-311.pyc",
        "/usr/lib/python3/dist-packages",
        "/usr/local/lib/python3.11/dist-packages/x.pth",
        "/root/.gitconfig",
        "/root/.pyenv/versions/3.11.7/lib/python3.11/os.py",
        "/srv/p/.venv/lib/python3.11/site-packages/x.py",
        "/usr/share/git-core/templates/hooks",
        "/usr/bin/node",
        "/usr/lib/node_modules/npm/package.json",
        "/root/.rustup/settings.toml",
        "/root/.rustup/toolchains/stable-x86_64-unknown-linux-gnu/lib/librustc_driver-6.so",
    ] {
        assert_eq!(verdict(agent, path, Access::Read), Verdict::InScope, "{path}");
    }
    for path in [
        "/usr/bin/dash",
        "/usr/bin/bash",
        "/usr/bin/[",
        "/usr/bin/sed",
        "/usr/bin/mawk",
        "/usr/bin/git",
        "/usr/lib/git-core/git-remote-https",
        "/usr/bin/python3.11",
        "/usr/bin/node",
        "/root/.cargo/bin/cargo",
        "/srv/p/node_modules/.bin/tsc",
        "/srv/p/.venv/bin/python3",
        "/usr/lib/gcc/x86_64-linux-gnu/12/collect2",
        "/root/.pyenv/versions/3.11.7/bin/python3.11",
        "/srv/p/target/debug/build/x-1/build-script-build",
    ] {
        assert_eq!(verdict(agent, path, Access::Exec), Verdict::InScope, "{path}");
    }
    assert_eq!(verdict(agent, "/dev/null", Access::ReadWrite), Verdict::InScope);
}

#[test]
fn the_demo_has_exactly_one_thing_out_of_scope() {
    let config = Config::load(None).unwrap();
    let demo = config.declaration("demo").unwrap();
    for path in ["/tmp/bailiwick-demo", "/tmp/bailiwick-demo/a/b"] {
        assert_eq!(verdict(demo, path, Access::Read), Verdict::InScope);
        assert_eq!(verdict(demo, path, Access::Write), Verdict::InScope);
    }
    for path in ["/usr/bin/dash", "/usr/bin/ls", "/usr/bin/cat", "/tmp/bailiwick-demo/demo.sh"] {
        assert_eq!(verdict(demo, path, Access::Exec), Verdict::InScope);
    }
    let key = Action::File { path: SeenPath::whole(b"/tmp/bailiwick-demo-secret/id_ed25519"), access: Access::Read };
    let judgement = demo.scope.as_ref().unwrap().judge(&key);
    let reason = judgement.reason.unwrap();
    assert_eq!((judgement.verdict, reason.kind), (Verdict::OutOfScope, ReasonKind::Nearest));
    assert_eq!(reason.text, "/tmp/bailiwick-demo/**");
}

#[test]
fn every_example_in_the_reference_is_right() {
    let reference = include_str!("../../../docs/declarations.md");
    let mut blocks = reference.split("```toml\n").skip(1).filter_map(|rest| rest.split("```").next());
    let mut next = || blocks.next().unwrap();
    let (declaration, resources, credentials, well_known) = (next(), next(), next(), next());
    let (set, catalogue) = (next(), next());
    assert_eq!(blocks.next(), None, "a further example wants a check");
    let declaration = format!("{declaration}{resources}{credentials}");
    let texts = [
        ("x.toml", &*declaration),
        ("grants.d/x.toml", set),
        ("catalogue.d/x.toml", catalogue),
        ("credentials.toml", well_known),
    ];
    let config = load(&texts, &FakeHost::new(&["/etc/keys/model"], &[]));
    let config = config.unwrap_or_else(|errors| panic!("{errors}"));
    assert_eq!(verdict(&config.declarations[0], "/srv/shop/a", Access::ReadWrite), Verdict::InScope);
}
