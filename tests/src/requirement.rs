//! What a test needs of the machine, and what it does where that is missing: it says why, and passes.
//!
//! A run that must not skip says so: with `BAILIWICK_REQUIRE=root,tier2,ia32,strace,dbus,venv,promtool,npm` in the environment, a test
//! whose requirement is named there fails where it is not met.

use std::io::{self, Write};
use std::path::Path;
use std::process::Command;
use std::sync::LazyLock;

use crate::workload;

/// Where the kernel describes its own types.
pub(crate) const BTF: &str = "/sys/kernel/btf/vmlinux";

/// Something that not every machine has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Requirement {
    /// Root.
    Root,
    /// Root, the kernel's BTF, the right to attach to raw tracepoints, and a built daemon.
    Tier2,
    /// A kernel that takes 32-bit system calls of 64-bit processes.
    Ia32,
    /// The program `strace`.
    Strace,
    /// The daemon of D-Bus; what sends to it comes with it.
    Dbus,
    /// The Python environment with the real agent and the real receiver.
    Venv,
    /// Prometheus' `promtool`.
    Promtool,
    /// The npm packages, and a Node that runs them.
    Npm,
}

impl Requirement {
    /// Its name in `BAILIWICK_REQUIRE`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Root => "root",
            Self::Tier2 => "tier2",
            Self::Ia32 => "ia32",
            Self::Strace => "strace",
            Self::Dbus => "dbus",
            Self::Venv => "venv",
            Self::Promtool => "promtool",
            Self::Npm => "npm",
        }
    }

    /// What is missing, in words that say what to do about it.
    fn missing(self) -> Result<(), String> {
        match self {
            Self::Root => root(),
            Self::Tier2 => tier2(),
            Self::Ia32 => ia32(),
            Self::Strace => answers("strace", "-V"),
            Self::Dbus => answers("dbus-daemon", "--version"),
            Self::Venv => venv(),
            Self::Promtool => promtool(),
            Self::Npm => npm(),
        }
    }
}

/// Whether the test can run; where it cannot, the reason has been printed.
///
/// # Panics
///
/// If a requirement that `BAILIWICK_REQUIRE` names is not met.
#[must_use]
pub fn require(requirements: &[Requirement]) -> bool {
    let forced = std::env::var("BAILIWICK_REQUIRE").unwrap_or_default();
    for requirement in requirements {
        let Err(why) = requirement.missing() else { continue };
        let name = requirement.name();
        assert!(!forced.split(',').any(|forced| forced == name), "{name} is required here, but {why}");
        let test = std::thread::current().name().unwrap_or("a test").to_owned();
        // Written past the harness, which would hide it where a test passes.
        let _ = writeln!(io::stderr(), "skipped: {test} needs {name}: {why}");
        return false;
    }
    true
}

fn root() -> Result<(), String> {
    if rustix::process::geteuid().is_root() {
        return Ok(());
    }
    Err("this is not root: run `sudo -E cargo xtask test`".into())
}

fn tier2() -> Result<(), String> {
    static TIER2: LazyLock<Result<(), String>> = LazyLock::new(|| {
        root()?;
        if !Path::new(BTF).exists() {
            return Err(format!("{BTF} is missing: this kernel was built without CONFIG_DEBUG_INFO_BTF"));
        }
        load_tracepoint_program()?;
        let program = workload::bailiwick();
        if !program.exists() {
            return Err(format!("{} is not built: run `cargo xtask build`", program.display()));
        }
        Ok(())
    });
    TIER2.clone()
}

fn ia32() -> Result<(), String> {
    let program = workload::target_dir().join("narrow");
    match Command::new(&program).arg("probe").output() {
        Ok(output) if output.status.success() => Ok(()),
        Ok(output) => Err(format!(
            "this kernel takes no 32-bit system calls (`narrow probe`: {}): it wants CONFIG_IA32_EMULATION, and no \
             ia32_emulation=off on its command line",
            output.status
        )),
        Err(error) => Err(format!("{} cannot be run ({error}): run `cargo xtask build`", program.display())),
    }
}

fn answers(program: &str, version: &str) -> Result<(), String> {
    match Command::new(program).arg(version).output() {
        Ok(output) if output.status.success() => Ok(()),
        Ok(output) => Err(format!("`{program} {version}` ends with {}", output.status)),
        Err(error) => Err(format!("`{program}` cannot be run ({error}): run `cargo xtask setup`")),
    }
}

fn venv() -> Result<(), String> {
    let programs = ["mini", "smolagent", "ddapm-test-agent"].map(|program| workload::venv().join("bin").join(program));
    for path in programs.into_iter().chain([crate::rotel::program()]) {
        if !path.exists() {
            return Err(format!("{} is missing: run `cargo xtask setup`", path.display()));
        }
    }
    Ok(())
}

fn promtool() -> Result<(), String> {
    match Command::new(workload::promtool()).arg("--version").output() {
        Ok(output) if output.status.success() => Ok(()),
        Ok(output) => Err(format!("`promtool --version` ends with {}", output.status)),
        Err(error) => Err(format!("`promtool` cannot be run ({error}): run `cargo xtask setup`")),
    }
}

fn npm() -> Result<(), String> {
    let script = workload::npm().join("@google/gemini-cli/bundle/gemini.js");
    if !script.exists() {
        return Err(format!("{} is missing: run `cargo xtask setup` where there is an npm", script.display()));
    }
    answers("node", "--version")
}

/// The part of `union bpf_attr` that BPF_PROG_LOAD reads here, as `linux/bpf.h` lays it out.
#[repr(C)]
#[derive(Default)]
struct ProgLoad {
    prog_type: u32,
    insn_cnt: u32,
    insns: u64,
    license: u64,
    log: [u32; 4],
    kern_version: u32,
    prog_flags: u32,
    prog_name: [u8; 16],
    prog_ifindex: u32,
    expected_attach_type: u32,
    prog_btf_fd: u32,
    func_info_rec_size: u32,
    func_info: u64,
    func_info_cnt: u32,
    line_info_rec_size: u32,
    line_info: u64,
    line_info_cnt: u32,
    attach_btf_id: u32,
}

const BPF_PROG_LOAD: libc::c_long = 5;
const BPF_PROG_TYPE_TRACING: u32 = 26;
const BPF_TRACE_RAW_TP: u32 = 23;

/// Loads, and does not attach, a program that returns 0, for the raw tracepoint that the sensor cannot do without.
fn load_tracepoint_program() -> Result<(), String> {
    let btf = btf_rs::Btf::from_file(BTF).map_err(|error| format!("{BTF} cannot be read: {error}"))?;
    let ids = btf.resolve_ids_by_name("btf_trace_sys_exit").unwrap_or_default();
    let id = ids.first().ok_or("this kernel's BTF knows no tracepoint sys_exit")?;
    // `r0 = 0; exit`, each instruction eight bytes.
    let instructions: [u64; 2] = [0xb7, 0x95];
    let license = c"GPL";
    let attributes = ProgLoad {
        prog_type: BPF_PROG_TYPE_TRACING,
        insn_cnt: 2,
        insns: instructions.as_ptr().addr() as u64,
        license: license.as_ptr().addr() as u64,
        expected_attach_type: BPF_TRACE_RAW_TP,
        attach_btf_id: *id,
        ..ProgLoad::default()
    };
    // SAFETY: the attributes' pointers are valid for the call, which reads `size` bytes of them.
    let fd = unsafe { libc::syscall(libc::SYS_bpf, BPF_PROG_LOAD, &raw const attributes, size_of::<ProgLoad>()) };
    if fd < 0 {
        let error = io::Error::last_os_error();
        return Err(format!("the kernel lets nothing be loaded for a raw tracepoint ({error})"));
    }
    // SAFETY: the call has just returned this descriptor, and nothing else knows it.
    unsafe { libc::close(i32::try_from(fd).unwrap_or(-1)) };
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::{Requirement, load_tracepoint_program};

    #[test]
    fn names_are_those_of_the_environment_variable() {
        use Requirement::{Dbus, Ia32, Npm, Promtool, Root, Strace, Tier2, Venv};
        let names = [Root, Tier2, Ia32, Strace, Dbus, Venv, Promtool, Npm].map(Requirement::name);
        assert_eq!(names, ["root", "tier2", "ia32", "strace", "dbus", "venv", "promtool", "npm"]);
    }

    #[test]
    fn loading_for_a_tracepoint_succeeds_or_says_why() {
        if let Err(why) = load_tracepoint_program() {
            assert!(why.contains("tracepoint") || why.contains("BTF") || why.contains("vmlinux"), "{why}");
        }
    }
}
