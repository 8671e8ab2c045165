//! Does each thing that is observed once, by the system call itself: no library decides which call it becomes.
//!
//! `deeds names DIR`: changes of names and of what files are, below an empty directory.
//! `deeds privileges`: uses of privileges, with arguments that the kernel must refuse.
//!
//! It prints a line of JSON for each: `{"deed": NAME, "errno": N}`, 0 where it succeeded.

use std::ffi::CString;
use std::io::Error;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;
use std::process::ExitCode;

fn main() -> ExitCode {
    let mut arguments = std::env::args_os().skip(1);
    let which = arguments.next().unwrap_or_default();
    match (which.to_str(), arguments.next().map(PathBuf::from)) {
        (Some("names"), Some(dir)) => names(&Names { dir }),
        (Some("privileges"), None) => privileges(),
        _ => {
            eprintln!("usage: deeds names DIR | deeds privileges");
            return ExitCode::from(2);
        }
    }
    ExitCode::SUCCESS
}

fn told(deed: &str, result: i64) -> i64 {
    let errno = if result < 0 { Error::last_os_error().raw_os_error().unwrap_or(-1) } else { 0 };
    println!("{{\"deed\": \"{deed}\", \"errno\": {errno}}}");
    result
}

/// A system call, its arguments widened as the kernel takes them.
macro_rules! call {
    ($deed:literal, $number:ident $(, $argument:expr)*) => {
        // SAFETY: pointers among the arguments lead to strings that outlive the call, or are refused by the kernel.
        told($deed, unsafe { libc::syscall(libc::$number $(, $argument)*) })
    };
}

struct Names {
    dir: PathBuf,
}

impl Names {
    fn at(&self, name: &str) -> CString {
        let mut path = self.dir.clone().into_os_string().into_vec();
        path.push(b'/');
        path.extend_from_slice(name.as_bytes());
        CString::new(path).unwrap_or_default()
    }
}

fn names(names: &Names) {
    const CWD: i32 = libc::AT_FDCWD;
    let path = |name: &str| names.at(name);
    let make = |name: &str| {
        let _ = std::fs::write(names.dir.join(name), "content");
    };
    for name in ["unlinked", "unlinkedat", "old", "older", "oldest", "one", "first", "changed", "mapped"] {
        make(name);
    }
    call!("unlink", SYS_unlink, path("unlinked").as_ptr());
    call!("unlinkat", SYS_unlinkat, CWD, path("unlinkedat").as_ptr(), 0);
    call!("rename", SYS_rename, path("old").as_ptr(), path("new").as_ptr());
    call!("renameat", SYS_renameat, CWD, path("older").as_ptr(), CWD, path("newer").as_ptr());
    call!("renameat2", SYS_renameat2, CWD, path("oldest").as_ptr(), CWD, path("newest").as_ptr(), 0);
    call!("link", SYS_link, path("one").as_ptr(), path("two").as_ptr());
    call!("linkat", SYS_linkat, CWD, path("first").as_ptr(), CWD, path("second").as_ptr(), 0);
    call!("symlink", SYS_symlink, c"changed".as_ptr(), path("symlink").as_ptr());
    call!("symlinkat", SYS_symlinkat, c"changed".as_ptr(), CWD, path("symlinkat").as_ptr());
    call!("mkdir", SYS_mkdir, path("dir").as_ptr(), 0o700);
    call!("mkdirat", SYS_mkdirat, CWD, path("dirat").as_ptr(), 0o700);
    call!("rmdir", SYS_rmdir, path("dir").as_ptr());
    call!("unlinkat of a directory", SYS_unlinkat, CWD, path("dirat").as_ptr(), libc::AT_REMOVEDIR);
    call!("mknod", SYS_mknod, path("fifo").as_ptr(), libc::S_IFIFO | 0o600, 0);
    call!("mknodat", SYS_mknodat, CWD, path("fifoat").as_ptr(), libc::S_IFIFO | 0o600, 0);
    call!("truncate", SYS_truncate, path("changed").as_ptr(), 3);
    call!("chmod", SYS_chmod, path("symlink").as_ptr(), 0o640);
    call!("fchmodat", SYS_fchmodat, CWD, path("changed").as_ptr(), 0o641);
    call!("chown", SYS_chown, path("changed").as_ptr(), -1, -1);
    call!("lchown", SYS_lchown, path("symlink").as_ptr(), -1, -1);
    call!("fchownat", SYS_fchownat, CWD, path("changed").as_ptr(), -1, -1, 0);
    let (file, name) = (path("changed"), c"user.deed".as_ptr());
    call!("setxattr", SYS_setxattr, file.as_ptr(), name, c"v".as_ptr(), 1, 0);
    call!("removexattr", SYS_removexattr, file.as_ptr(), name);
    by_descriptor(names);
}

fn by_descriptor(names: &Names) {
    const PAGE: usize = 4096;
    // SAFETY: the path outlives the call.
    let fd = unsafe { libc::open(names.at("mapped").as_ptr(), libc::O_RDWR | libc::O_CLOEXEC) };
    call!("ftruncate", SYS_ftruncate, fd, PAGE);
    call!("fallocate", SYS_fallocate, fd, 0, 0, 2 * PAGE);
    call!("fchmod", SYS_fchmod, fd, 0o600);
    // The upper half of the register is nothing to the kernel.
    call!("fchown", SYS_fchown, i64::from(fd) | 1 << 32, -1, -1);
    call!("fsetxattr", SYS_fsetxattr, fd, c"user.deed".as_ptr(), c"v".as_ptr(), 1, 0);
    let shared = call!("mmap to write", SYS_mmap, 0, PAGE, libc::PROT_WRITE, libc::MAP_SHARED, fd, 0);
    call!("mmap to execute", SYS_mmap, 0, PAGE, libc::PROT_READ | libc::PROT_EXEC, libc::MAP_PRIVATE, fd, 0);
    call!("mprotect to execute", SYS_mprotect, shared, PAGE, libc::PROT_READ | libc::PROT_EXEC);
}

fn privileges() {
    const NOBODY: i32 = 0x3fff_fff0;
    const WRONG: u64 = 0xffff_ffff;
    call!("ptrace", SYS_ptrace, libc::PTRACE_ATTACH, NOBODY, 0, 0);
    call!("process_vm_readv", SYS_process_vm_readv, NOBODY, 0, 0, 0, 0, 0);
    call!("setuid", SYS_setuid, WRONG);
    call!("setresgid", SYS_setresgid, WRONG, WRONG, WRONG);
    call!("capset", SYS_capset, 0, 0);
    call!("unshare", SYS_unshare, 1);
    call!("setns", SYS_setns, -1, 0);
    call!("chroot", SYS_chroot, c"/proc/version".as_ptr());
    call!("bpf", SYS_bpf, WRONG, 0, 0);
    call!("init_module", SYS_init_module, 0, 0, c"".as_ptr());
    call!("delete_module", SYS_delete_module, 0, 0);
    call!("kexec_load", SYS_kexec_load, 0, 0, 0, WRONG);
    call!("keyctl", SYS_keyctl, WRONG, 0, 0, 0, 0);
    call!("add_key", SYS_add_key, c".bad".as_ptr(), c"x".as_ptr(), 0, 0, 0);
    call!("memfd_create", SYS_memfd_create, c"deed".as_ptr(), libc::MFD_CLOEXEC);
    call!("perf_event_open", SYS_perf_event_open, 0, 0, -1, -1, 0);
    call!("mount", SYS_mount, c"none".as_ptr(), c"/proc/version".as_ptr(), c"no-such-fs".as_ptr(), 0, 0);
    call!("io_uring_setup", SYS_io_uring_setup, 0, 0);
}
