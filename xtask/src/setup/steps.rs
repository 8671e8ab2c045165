//! What is missing on a host, as the steps that install it. Nothing here changes anything.
//!
//! Whatever works counts as present, however it came to the host: packages are looked for by the program or file that
//! is needed of them, not in dpkg's list.

use std::{
    ffi::OsString,
    fmt,
    path::{Path, PathBuf},
};

use super::{Group, probe::Probe};
use crate::{invocation::Invocation, workspace::Workspace};

/// Links the sensor. Its LLVM must be of the same major version as rustc's, so it moves with the pinned toolchain.
const BPF_LINKER: &str = "0.13.0";
const LLVM: &str = "llvm-22";
const LLVM_PREFIX: &str = "/usr/lib/llvm-22";

/// Checks licences, sources and duplicates. Pinned, since a newer one may judge differently; needs rustc 1.88.
const CARGO_DENY: &str = "0.20.2";

/// Builds what fuzzes the decoder, and runs it.
const CARGO_FUZZ: &str = "0.13.2";

/// One thing to install.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Step {
    pub(crate) what: String,
    /// Why it is needed, in lines.
    pub(crate) why: Vec<String>,
    /// About how long it takes on two cores.
    pub(crate) about: &'static str,
    installer: Installer,
    pub(crate) commands: Vec<Invocation>,
    /// Written after the commands, to know the step as done.
    pub(crate) stamp: Option<Stamp>,
}

/// A file whose content says for which input a step was carried out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Stamp {
    pub(crate) path: PathBuf,
    pub(crate) content: String,
}

/// What carries a step out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Installer {
    /// As root.
    Apt,
    Rustup,
    /// Cargo, which is there since it started us, and what the steps before this one installed.
    Own,
}

/// Why a step cannot be carried out from here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Obstacle {
    NotRoot,
    NoApt,
    NoRustup,
}

impl fmt::Display for Obstacle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NotRoot => "This needs root.",
            Self::NoApt => "This host has no apt-get: install what corresponds to these Debian packages.",
            Self::NoRustup => "This host has no rustup: install it first.",
        })
    }
}

impl Step {
    /// Why this step cannot be carried out on the host that `probe` sees.
    pub(crate) fn obstacle(&self, probe: &dyn Probe) -> Option<Obstacle> {
        match self.installer {
            Installer::Apt if !probe.has_program("apt-get") => Some(Obstacle::NoApt),
            Installer::Apt if !probe.is_root() => Some(Obstacle::NotRoot),
            Installer::Rustup if !probe.has_program("rustup") => Some(Obstacle::NoRustup),
            Installer::Apt | Installer::Rustup | Installer::Own => None,
        }
    }
}

/// What is missing of `groups`, in the order in which to install it.
pub(crate) fn missing(workspace: &Workspace, groups: &[Group], probe: &dyn Probe) -> Vec<Step> {
    let wants = |group: Group| groups.contains(&group);
    let linker = wants(Group::Build).then(|| bpf_linker(probe)).flatten();
    let deny = wants(Group::Check).then(|| cargo_deny(probe)).flatten();
    let fuzz = wants(Group::Test).then(|| cargo_fuzz(probe)).flatten();
    let promtool = wants(Group::Test).then(|| promtool(workspace, probe)).flatten();
    let python = wants(Group::Test).then(|| python(workspace, probe)).flatten();
    let npm = wants(Group::Test).then(|| npm(workspace, probe)).flatten();

    let mut wanted: Vec<&Package> = Vec::new();
    wanted.extend(wants(Group::Build).then_some(COMPILER).into_iter().flatten());
    wanted.extend(linker.is_some().then_some(LINKED_INTO_BPF_LINKER).into_iter().flatten());
    wanted.extend(wants(Group::Test).then_some(USED_BY_TESTS).into_iter().flatten());
    // Asked only when an environment is to be made: it takes a Python start.
    wanted.extend(python.is_some().then_some(MAKES_ENVIRONMENTS).into_iter().flatten());

    // First the packages: the other steps compile. Then the toolchain, which they compile with.
    let first = [packages(&wanted, probe), toolchain(workspace, probe)];
    first.into_iter().chain([linker, deny, fuzz, promtool, python, npm]).flatten().collect()
}

/// A Debian package, why it is needed, and what shows that it (or what stands for it) is there.
struct Package {
    name: &'static str,
    why: &'static str,
    shown_by: Sign,
}

enum Sign {
    Program(&'static str),
    File(&'static str),
    /// `python3 -c` with this text ends well.
    Python(&'static str),
}

impl Package {
    fn is_there(&self, probe: &dyn Probe) -> bool {
        match self.shown_by {
            Sign::Program(program) => probe.has_program(program),
            Sign::File(path) => probe.has_file(Path::new(path)),
            Sign::Python(text) => {
                probe.has_program("python3") && probe.answer(&Invocation::new("python3").args(["-c", text])).is_some()
            }
        }
    }
}

const COMPILER: &[Package] = &[
    Package { name: "gcc", why: "links every Rust program, compiles C parts of crates", shown_by: Sign::Program("cc") },
    Package { name: "libc6-dev", why: "what gcc links with", shown_by: Sign::File("/usr/include/stdio.h") },
    Package {
        name: "ca-certificates",
        why: "to trust the registry that crates come from",
        shown_by: Sign::File("/etc/ssl/certs/ca-certificates.crt"),
    },
];

const LINKED_INTO_BPF_LINKER: &[Package] = &[
    Package {
        name: "llvm-22-dev",
        why: "bpf-linker is built on it; the same LLVM as rustc's",
        shown_by: Sign::File("/usr/lib/llvm-22/include/llvm-c/Core.h"),
    },
    Package { name: "zlib1g-dev", why: "LLVM links with it", shown_by: Sign::File("/usr/include/zlib.h") },
    Package { name: "libzstd-dev", why: "LLVM links with it", shown_by: Sign::File("/usr/include/zstd.h") },
    Package { name: "pkg-config", why: "finds these libraries", shown_by: Sign::Program("pkg-config") },
];

const USED_BY_TESTS: &[Package] = &[
    Package { name: "g++", why: "compiles libFuzzer", shown_by: Sign::Program("c++") },
    Package {
        name: "dbus",
        why: "a private message bus that a test hands work to",
        shown_by: Sign::Program("dbus-daemon"),
    },
    Package { name: "git", why: "the agent under test commits with it", shown_by: Sign::Program("git") },
    Package { name: "strace", why: "the observer that tests compare with", shown_by: Sign::Program("strace") },
    Package { name: "tmux", why: "gives tests a terminal", shown_by: Sign::Program("tmux") },
];

const MAKES_ENVIRONMENTS: &[Package] = &[Package {
    name: "python3-venv",
    why: "runs the agent and the receiver of the end-to-end test",
    shown_by: Sign::Python("import ensurepip, venv"),
}];

fn packages(wanted: &[&Package], probe: &dyn Probe) -> Option<Step> {
    let absent: Vec<_> = wanted.iter().filter(|package| !package.is_there(probe)).collect();
    if absent.is_empty() {
        return None;
    }
    let install = Invocation::new("apt-get")
        .env("DEBIAN_FRONTEND", "noninteractive")
        .args(["install", "--yes", "--no-install-recommends"])
        .args(absent.iter().map(|package| package.name));
    Some(Step {
        what: "Debian packages".to_owned(),
        why: absent.iter().map(|package| format!("{}: {}", package.name, package.why)).collect(),
        about: "about a minute",
        installer: Installer::Apt,
        commands: vec![Invocation::new("apt-get").arg("update"), install],
        stamp: None,
    })
}

fn toolchain(workspace: &Workspace, probe: &dyn Probe) -> Option<Step> {
    let channel = workspace.channel();
    let rustc = |args: &[&str]| probe.answer(&Invocation::new("rustc").args(args.iter().copied()));
    // Without rustup the search path may hold any rustc.
    let pinned = rustc(&["--version"]).is_some_and(|version| version.starts_with(&format!("rustc {channel} ")));
    let sysroot = pinned.then(|| rustc(&["--print", "sysroot"])).flatten().map(PathBuf::from);
    let parts = [
        ("rust-src", "lib/rustlib/src/rust/library/Cargo.lock", "core is compiled for the BPF target from it"),
        ("clippy", "bin/cargo-clippy", "`cargo xtask check` lints with it"),
        ("rustfmt", "bin/cargo-fmt", "`cargo xtask check` compares formatting with it"),
    ];
    let absent: Vec<_> = parts
        .into_iter()
        .filter(|(_, file, _)| sysroot.as_ref().is_none_or(|sysroot| !probe.has_file(&sysroot.join(file))))
        .collect();
    if absent.is_empty() {
        return None;
    }
    let mut why: Vec<_> = absent.iter().map(|(part, _, why)| format!("{part}: {why}")).collect();
    let names = absent.iter().map(|(part, ..)| *part);
    let (what, about, command) = if sysroot.is_some() {
        let add = Invocation::new("rustup").args(["component", "add", "--toolchain", channel]).args(names);
        (format!("components of Rust {channel}"), "about ten seconds", add)
    } else {
        why.insert(0, format!("Rust {channel}: the version that the project is pinned to"));
        let install = Invocation::new("rustup")
            .args(["toolchain", "install", channel, "--profile", "minimal", "--no-self-update"])
            .args(names.flat_map(|part| ["--component", part]));
        (format!("Rust {channel}"), "about a minute", install)
    };
    Some(Step { what, why, about, installer: Installer::Rustup, commands: vec![command], stamp: None })
}

fn bpf_linker(probe: &dyn Probe) -> Option<Step> {
    // The answer also shows that it finds its LLVM.
    if probe.answer(&Invocation::new("bpf-linker").arg("--version")) == Some(format!("bpf-linker {BPF_LINKER}")) {
        return None;
    }
    Some(Step {
        what: format!("bpf-linker {BPF_LINKER}"),
        why: vec!["links the sensor, and writes the BTF that the kernel asks for".to_owned()],
        about: "one to one and a half minutes",
        installer: Installer::Own,
        commands: vec![
            // Without the prefix its build may take another LLVM that is there, and fail at the end.
            install("bpf-linker", BPF_LINKER).env("LLVM_PREFIX", LLVM_PREFIX).args([
                "--no-default-features",
                "--features",
                LLVM,
            ]),
        ],
        stamp: None,
    })
}

fn cargo_deny(probe: &dyn Probe) -> Option<Step> {
    if probe.answer(&Invocation::new("cargo-deny").arg("--version")) == Some(format!("cargo-deny {CARGO_DENY}")) {
        return None;
    }
    Some(Step {
        what: format!("cargo-deny {CARGO_DENY}"),
        why: vec!["checks the licences and sources of all that is linked in".to_owned()],
        about: "about two and a half minutes",
        installer: Installer::Own,
        commands: vec![install("cargo-deny", CARGO_DENY)],
        stamp: None,
    })
}

fn cargo_fuzz(probe: &dyn Probe) -> Option<Step> {
    if probe.answer(&Invocation::new("cargo-fuzz").arg("--version")) == Some(format!("cargo-fuzz {CARGO_FUZZ}")) {
        return None;
    }
    Some(Step {
        what: format!("cargo-fuzz {CARGO_FUZZ}"),
        why: vec!["builds what fuzzes the decoder, and runs it".to_owned()],
        about: "about half a minute",
        installer: Installer::Own,
        commands: vec![install("cargo-fuzz", CARGO_FUZZ)],
        stamp: None,
    })
}

/// Debian's package is unpacked and not installed: installed, it would start a service.
fn promtool(workspace: &Workspace, probe: &dyn Probe) -> Option<Step> {
    const UNPACK: &str = "set -e; package=$(ls -t prometheus_*.deb | head -n 1); \
                          dpkg-deb --fsys-tarfile \"$package\" | tar -x ./usr/bin/promtool; rm prometheus_*.deb";
    let folder = workspace.prometheus();
    if probe.has_program("promtool") || probe.has_file(&folder.join("usr/bin/promtool")) {
        return None;
    }
    let within = || {
        let mut chdir = OsString::from("--chdir=");
        chdir.push(&folder);
        Invocation::new("env").arg(chdir)
    };
    Some(Step {
        what: "promtool".to_owned(),
        why: vec!["judges metrics and tests alerts; from Debian's package, which is not installed".to_owned()],
        about: "about ten seconds",
        installer: Installer::Apt,
        commands: vec![
            Invocation::new("apt-get").arg("update"),
            Invocation::new("mkdir").arg("-p").arg(&folder),
            within().args(["apt-get", "download", "prometheus"]),
            within().args(["sh", "-c", UNPACK]),
        ],
        stamp: None,
    })
}

/// Forced, since one that is there but does not start must be built again.
fn install(name: &str, version: &str) -> Invocation {
    Invocation::new("cargo").args(["install", "--locked", "--force", name, "--version", version])
}

/// The virtual environment of the tests: none where the project asks for no Python package.
fn python(workspace: &Workspace, probe: &dyn Probe) -> Option<Step> {
    let requirements = workspace.python_requirements();
    let environment = workspace.python_environment();
    let stamp = Stamp { path: environment.join("requirements.stamp"), content: probe.read(&requirements)? };
    let python = environment.join("bin/python");
    if probe.has_file(&python) && probe.read(&stamp.path).as_ref() == Some(&stamp.content) {
        return None;
    }
    Some(Step {
        what: "Python packages of the tests".to_owned(),
        why: vec!["the agent and the receiver of the end-to-end test, in an environment of their own".to_owned()],
        about: "about a minute",
        installer: Installer::Own,
        commands: vec![
            Invocation::new("python3").args(["-m", "venv", "--clear"]).arg(&environment),
            Invocation::new(&python)
                .args(["-m", "pip", "install", "--disable-pip-version-check", "--no-input", "--requirement"])
                .arg(&requirements),
        ],
        stamp: Some(stamp),
    })
}

/// The npm packages of the tests: none where the project asks for no such package, or the host has no npm.
fn npm(workspace: &Workspace, probe: &dyn Probe) -> Option<Step> {
    let directory = workspace.npm_directory();
    let content = probe.read(&workspace.npm_requirements())?;
    let stamp = Stamp { path: directory.join("npm.stamp"), content };
    if !probe.has_program("npm") || probe.read(&stamp.path).as_ref() == Some(&stamp.content) {
        return None;
    }
    let lines = stamp.content.lines().map(str::trim);
    let packages: Vec<&str> = lines.filter(|line| !line.is_empty() && !line.starts_with('#')).collect();
    let install = Invocation::new("npm").args(["install", "--no-audit", "--no-fund", "--no-save", "--ignore-scripts"]);
    Some(Step {
        what: "npm packages of the tests".to_owned(),
        why: vec!["an agent that Node runs, for discovery to find".to_owned()],
        about: "about ten seconds",
        installer: Installer::Own,
        commands: vec![install.arg("--prefix").arg(&directory).args(packages)],
        stamp: Some(stamp),
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::{super::probe::fake::FakeHost, *};

    fn missing_on(host: &FakeHost, groups: &[Group]) -> Vec<Step> {
        missing(&FakeHost::workspace(), groups, host)
    }

    fn names(steps: &[Step]) -> Vec<&str> {
        steps.iter().map(|step| step.what.as_str()).collect()
    }

    fn last_command(step: &Step) -> String {
        step.commands.last().unwrap().to_string()
    }

    #[test]
    fn on_a_complete_host_nothing_is_missing() {
        assert_eq!(missing_on(&FakeHost::complete(), &Group::ALL), []);
    }

    #[test]
    fn on_a_bare_host_packages_come_first_and_what_compiles_comes_after_the_toolchain() {
        let host = FakeHost::bare_debian().with_requirements("a==1\n");
        assert_eq!(
            names(&missing_on(&host, &Group::ALL)),
            [
                "Debian packages",
                "Rust 1.95.0",
                "bpf-linker 0.13.0",
                "cargo-deny 0.20.2",
                "cargo-fuzz 0.13.2",
                "promtool",
                "Python packages of the tests"
            ]
        );
    }

    #[test]
    fn building_asks_for_nothing_that_only_tests_need() {
        let steps = missing_on(&FakeHost::bare_debian().with_requirements("a==1\n"), &[Group::Build]);
        assert_eq!(names(&steps), ["Debian packages", "Rust 1.95.0", "bpf-linker 0.13.0"]);
        assert_eq!(
            last_command(&steps[0]),
            "DEBIAN_FRONTEND=noninteractive apt-get install --yes --no-install-recommends \
             ca-certificates llvm-22-dev zlib1g-dev libzstd-dev pkg-config"
        );
    }

    #[test]
    fn a_package_whose_program_is_there_by_other_means_is_not_installed() {
        let steps = missing_on(&FakeHost::complete().without_program("strace"), &Group::ALL);
        assert_eq!(names(&steps), ["Debian packages"]);
        assert!(last_command(&steps[0]).ends_with("--no-install-recommends strace"));
        assert_eq!(steps[0].why, ["strace: the observer that tests compare with"]);
    }

    #[test]
    fn llvm_is_asked_for_only_while_bpf_linker_is_missing() {
        let steps = missing_on(&FakeHost::complete().without_version("bpf-linker"), &Group::ALL);
        assert_eq!(names(&steps), ["Debian packages", "bpf-linker 0.13.0"]);
        assert!(last_command(&steps[0]).contains("llvm-22-dev"));
    }

    #[test]
    fn another_version_of_bpf_linker_is_replaced() {
        let host = FakeHost::complete().with_answer("bpf-linker --version", "bpf-linker 0.9.15");
        let steps = missing_on(&host, &[Group::Build]);
        assert_eq!(
            last_command(steps.last().unwrap()),
            "LLVM_PREFIX=/usr/lib/llvm-22 cargo install --locked --force bpf-linker --version 0.13.0 \
             --no-default-features --features llvm-22"
        );
    }

    #[test]
    fn a_missing_component_is_added_to_the_toolchain_that_is_there() {
        let host = FakeHost::complete().without_file("/sysroot/lib/rustlib/src/rust/library/Cargo.lock");
        let steps = missing_on(&host, &Group::ALL);
        assert_eq!(names(&steps), ["components of Rust 1.95.0"]);
        assert_eq!(last_command(&steps[0]), "rustup component add --toolchain 1.95.0 rust-src");
    }

    #[test]
    fn another_rustc_than_the_pinned_one_counts_as_none() {
        let host = FakeHost::complete().with_answer("rustc --version", "rustc 1.94.1 (e408947bf 2026-03-25)");
        let steps = missing_on(&host, &Group::ALL);
        assert_eq!(
            last_command(&steps[0]),
            "rustup toolchain install 1.95.0 --profile minimal --no-self-update \
             --component rust-src --component clippy --component rustfmt"
        );
        let without_rustup = missing_on(&host.without_program("rustup"), &Group::ALL);
        let host = FakeHost::complete().without_program("rustup");
        assert_eq!(without_rustup[0].obstacle(&host), Some(Obstacle::NoRustup));
    }

    #[test]
    fn python_packages_are_installed_again_when_their_list_changed() {
        let host = FakeHost::complete().with_requirements("some-package==1.1\n");
        let steps = missing_on(&host, &Group::ALL);
        assert_eq!(names(&steps), ["Debian packages", "Python packages of the tests"]);
        assert_eq!(steps[1].stamp.as_ref().unwrap().content, "some-package==1.1\n");

        let stamped = host.with_file(&steps[1].stamp.as_ref().unwrap().path, "some-package==1.1\n");
        assert_eq!(missing_on(&stamped, &Group::ALL), []);
    }

    #[test]
    fn a_host_whose_python_makes_environments_needs_no_package_for_it() {
        let host = FakeHost::complete()
            .with_requirements("some-package==1.1\n")
            .with_answer("python3 -c 'import ensurepip, venv'", "");
        assert_eq!(names(&missing_on(&host, &[Group::Test])), ["Python packages of the tests"]);
    }

    #[test]
    fn an_environment_whose_python_is_gone_is_made_again() {
        let python = FakeHost::workspace().python_environment().join("bin/python");
        let steps = missing_on(&FakeHost::complete().without_file(python), &[Group::Test]);
        assert_eq!(names(&steps).last(), Some(&"Python packages of the tests"));
    }

    #[test]
    fn promtool_is_unpacked_where_neither_the_host_nor_an_earlier_setup_has_it() {
        let host = FakeHost::complete().without_program("promtool");
        let steps = missing_on(&host, &[Group::Test]);
        assert_eq!(names(&steps), ["promtool"]);
        assert!(steps[0].commands.iter().all(|command| !command.to_string().contains("install")));
        let unpacked = host.with_file(FakeHost::workspace().prometheus().join("usr/bin/promtool"), "");
        assert_eq!(missing_on(&unpacked, &[Group::Test]), []);
    }

    #[test]
    fn without_a_list_of_python_packages_none_is_asked_for() {
        let host = FakeHost::complete().without_file(FakeHost::workspace().python_requirements());
        assert_eq!(missing_on(&host, &[Group::Test]), []);
    }

    #[test]
    fn npm_packages_are_installed_where_there_is_an_npm_and_again_when_their_list_changed() {
        let host = FakeHost::complete().with_file(FakeHost::workspace().npm_requirements(), "# why\n@a/b@1.0.0\n");
        assert_eq!(missing_on(&host, &Group::ALL), []);
        let host = host.with_program("npm");
        let steps = missing_on(&host, &[Group::Test]);
        assert_eq!(names(&steps), ["npm packages of the tests"]);
        assert!(last_command(&steps[0]).ends_with("target/npm @a/b@1.0.0"), "{}", last_command(&steps[0]));
        let stamped = host.with_file(&steps[0].stamp.as_ref().unwrap().path, "# why\n@a/b@1.0.0\n");
        assert_eq!(missing_on(&stamped, &Group::ALL), []);
    }
}
