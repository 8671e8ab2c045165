//! Does one deed each in a way that a monitor could lose sight of, by the system calls themselves.
//!
//! - `evader truncate FILE`: the deed alone.
//! - `evader thread-exec FILE`: a thread that is not the first runs this program anew, for the deed.
//! - `evader leaderless FILE`: the first thread ends, and another does the deed afterwards.
//! - `evader detach FILE`: a grandchild in a session (of the kernel's) of its own, its parent gone.
//! - `evader vfork FILE`: a child that shares the memory does the deed, then becomes `true`.
//! - `evader seize FILE`, `evader traceme FILE`: a child that is traced.
//! - `evader trace PID`: seizes a process that is not its own, and lets go.
//! - `evader map FILE LATER`: writes to FILE through memory that is mapped so, to LATER through memory made so afterwards.
//! - `evader inherited PORT`: a child sends 14 bytes over its parent's connection, and a datagram by its parent's socket.
//! - `evader overlay LOWER BASE NAME`: reads NAME under an overlay in namespaces of its own.
//! - `evader binfmt DIR INTERPRETER`: runs DIR/given.evader by an interpreter registered in namespaces of its own.
//! - `evader vsock (local|refused)`: a vsock connection, in the latter case with flags that the kernel refuses.
//! - `evader x32 FILE`: unlinks by the system call of the x32 ABI.
//! - `evader upper FILE PORT`: truncates and connects by numbers with more in the register than the kernel looks at.
//! - `evader clone3`: a child in user and mount namespaces of its own.
//! - `evader unspecified PORT`: datagrams to 127.0.0.1, by an address that says it is of no family.
//! - `evader flood FILE PORT`: a million cheap calls around one connection.
//!
//! It ends with 1 where the technique itself failed, and with 77 where this kernel does not have it.

use std::ffi::{CString, c_int, c_long, c_void};
use std::io::{Read, Write};
use std::net::{TcpStream, UdpSocket};
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use anyhow::{Context, bail, ensure};
use rustix::pipe::{PipeFlags, pipe_with};

/// What a program says that leaves a test out.
const SKIPPED: u8 = 77;
const PAGE: usize = 4096;
const X32: c_long = 0x4000_0000;

/// Whether the kernel has what was tried.
enum Outcome {
    Done,
    Missing(std::io::Error),
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match run(&words) {
        Ok(Outcome::Done) => ExitCode::SUCCESS,
        Ok(Outcome::Missing(why)) => {
            println!("{why}");
            ExitCode::from(SKIPPED)
        }
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(words: &[&str]) -> anyhow::Result<Outcome> {
    match words {
        ["truncate", file] => deed(&path(file)?)?,
        ["thread-exec", file] => thread_exec(file)?,
        ["leaderless", file] => leaderless(path(file)?)?,
        ["detach", file] => detach(&path(file)?)?,
        ["vfork", file] => vfork(&path(file)?)?,
        ["seize", file] => traced(&path(file)?, false)?,
        ["traceme", file] => traced(&path(file)?, true)?,
        ["trace", pid] => trace(pid.parse()?)?,
        ["map", file, later] => map(Path::new(file), Path::new(later))?,
        ["inherited", port] => inherited(port.parse()?)?,
        ["overlay", lower, base, name] => return overlay(Path::new(lower), Path::new(base), name),
        ["binfmt", dir, interpreter] => return binfmt(Path::new(dir), interpreter),
        ["vsock", way] => return vsock(*way == "local"),
        ["x32", file] => return x32(&path(file)?),
        ["upper", file, port] => upper(&path(file)?, port.parse()?)?,
        ["unspecified", port] => unspecified(port.parse()?)?,
        ["clone3"] => return clone3(),
        ["flood", file, port] => flood(Path::new(file), port.parse()?)?,
        _ => bail!("no such technique: {words:?}"),
    }
    Ok(Outcome::Done)
}

fn path(text: &str) -> anyhow::Result<CString> {
    Ok(CString::new(text)?)
}

/// The result of a system call, or why there is none.
fn checked(what: &str, result: impl Into<i64>) -> anyhow::Result<i64> {
    let result = result.into();
    if result < 0 {
        return Err(std::io::Error::last_os_error()).with_context(|| what.to_owned());
    }
    Ok(result)
}

fn deed(file: &CString) -> anyhow::Result<()> {
    // SAFETY: the path outlives the call.
    checked("truncate", unsafe { libc::truncate(file.as_ptr(), 1) })?;
    Ok(())
}

/// The kernel takes an IPv4 address of the family AF_UNSPEC for one of AF_INET.
fn unspecified(port: u16) -> anyhow::Result<()> {
    let socket = UdpSocket::bind("127.0.0.1:0")?;
    let address = libc::sockaddr_in { sin_family: libc::AF_UNSPEC as libc::sa_family_t, ..localhost(port) };
    let len = libc::socklen_t::try_from(size_of_val(&address))?;
    let at = (&raw const address).cast();
    // SAFETY: the bytes and the address outlive the call.
    checked("sendto", unsafe { libc::sendto(socket.as_raw_fd(), b"hidden".as_ptr().cast(), 6, 0, at, len) } as i64)?;
    Ok(())
}

/// What `clone3` takes, as far as it is needed here.
#[repr(C)]
struct CloneArguments {
    flags: u64,
    rest: [u64; 7],
}

fn clone3() -> anyhow::Result<Outcome> {
    let namespaces = libc::CLONE_NEWUSER | libc::CLONE_NEWNS;
    let mut arguments = CloneArguments { flags: 0, rest: [0; 7] };
    arguments.flags = u64::try_from(namespaces)?;
    arguments.rest[3] = u64::try_from(libc::SIGCHLD)?;
    // SAFETY: the structure has the length that is given; without memory of its own the child is as after a fork.
    let pid = unsafe { libc::syscall(libc::SYS_clone3, &raw mut arguments, size_of::<CloneArguments>()) };
    if pid == 0 {
        // SAFETY: a plain system call.
        unsafe { libc::_exit(0) };
    }
    if pid < 0 {
        return Ok(Outcome::Missing(std::io::Error::last_os_error()));
    }
    wait(libc::pid_t::try_from(pid)?)?;
    Ok(Outcome::Done)
}

/// Does `act` in a child, and ends it with whether that succeeded.
fn child(act: impl FnOnce() -> anyhow::Result<()>) -> anyhow::Result<libc::pid_t> {
    // SAFETY: there is one thread, and the child ends without returning.
    let pid = unsafe { libc::fork() };
    checked("fork", pid)?;
    if pid == 0 {
        let code = c_int::from(act().is_err());
        // SAFETY: a plain system call.
        unsafe { libc::_exit(code) };
    }
    Ok(pid)
}

fn wait(pid: libc::pid_t) -> anyhow::Result<()> {
    let mut status = 0;
    // SAFETY: the status is written where it lies.
    checked("waitpid", unsafe { libc::waitpid(pid, &raw mut status, 0) })?;
    ensure!(libc::WIFEXITED(status) && libc::WEXITSTATUS(status) == 0, "a child ended with {status:#x}");
    Ok(())
}

fn thread_exec(file: &str) -> anyhow::Result<()> {
    let program = std::env::current_exe()?;
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| Command::new(program).args(["truncate", file]).exec());
        match thread.join() {
            Ok(error) => Err(error).context("exec"),
            Err(_) => bail!("the thread panicked"),
        }
    })
}

fn leaderless(file: CString) -> anyhow::Result<()> {
    let main = format!("/proc/self/task/{}/stat", std::process::id());
    std::thread::Builder::new().spawn(move || {
        let dead = || std::fs::read_to_string(&main).is_ok_and(|stat| stat.contains(") Z "));
        let gone = (0..1000).any(|_| {
            std::thread::sleep(std::time::Duration::from_millis(2));
            dead()
        });
        let done = gone && deed(&file).is_ok();
        std::process::exit(i32::from(!done));
    })?;
    // SAFETY: this thread alone ends; it holds no lock, and nothing of its stack is used by the other.
    unsafe { libc::syscall(libc::SYS_exit, 0) };
    bail!("the first thread is still there")
}

fn detach(file: &CString) -> anyhow::Result<()> {
    let (reader, writer) = pipe_with(PipeFlags::CLOEXEC)?;
    let pid = child(|| {
        let middle = std::process::id();
        child(|| {
            // SAFETY: a plain system call.
            checked("setsid", unsafe { libc::setsid() })?;
            let orphaned = (0..1000).any(|_| {
                std::thread::sleep(std::time::Duration::from_millis(2));
                std::os::unix::process::parent_id() != middle
            });
            ensure!(orphaned, "the parent stayed");
            deed(file)?;
            rustix::io::write(&writer, b"x")?;
            Ok(())
        })?;
        Ok(())
    })?;
    drop(writer);
    wait(pid)?;
    let mut said = [0; 1];
    ensure!(rustix::io::read(&reader, &mut said)? == 1, "the grandchild failed");
    Ok(())
}

extern "C" fn vforked(file: *mut c_void) -> c_int {
    let arguments = [c"true".as_ptr(), std::ptr::null()];
    // SAFETY: the strings outlive the calls: the parent, which has them, waits until this has become another program.
    unsafe {
        if libc::truncate(file.cast(), 1) == 0 {
            libc::execv(c"/bin/true".as_ptr(), arguments.as_ptr());
        }
        libc::_exit(1)
    }
}

fn vfork(file: &CString) -> anyhow::Result<()> {
    let mut stack = vec![0u128; 4 * PAGE];
    let top = stack.as_mut_ptr_range().end;
    let flags = libc::CLONE_VM | libc::CLONE_VFORK | libc::SIGCHLD;
    // SAFETY: the child has this stack to itself, and the parent goes on when it has left it.
    let pid = unsafe { libc::clone(vforked, top.cast(), flags, file.as_ptr().cast_mut().cast()) };
    checked("clone", pid)?;
    wait(pid)
}

fn ptrace(request: libc::c_uint, pid: libc::pid_t) -> anyhow::Result<()> {
    // SAFETY: these requests read no memory.
    checked("ptrace", unsafe { libc::ptrace(request, pid, 0, 0) })?;
    Ok(())
}

fn traced(file: &CString, by_itself: bool) -> anyhow::Result<()> {
    let (reader, writer) = pipe_with(PipeFlags::CLOEXEC)?;
    let pid = child(|| {
        if by_itself {
            ptrace(libc::PTRACE_TRACEME, 0)?;
        } else {
            rustix::io::read(&reader, &mut [0; 1])?;
        }
        deed(file)
    })?;
    if !by_itself {
        ptrace(libc::PTRACE_SEIZE, pid)?;
        rustix::io::write(&writer, b"x")?;
    }
    wait(pid)
}

fn trace(pid: libc::pid_t) -> anyhow::Result<()> {
    ptrace(libc::PTRACE_SEIZE, pid)?;
    ptrace(libc::PTRACE_INTERRUPT, pid)?;
    let mut status = 0;
    // SAFETY: the status is written where it lies.
    checked("waitpid", unsafe { libc::waitpid(pid, &raw mut status, libc::__WALL) })?;
    ptrace(libc::PTRACE_DETACH, pid)
}

fn map(file: &Path, later: &Path) -> anyhow::Result<()> {
    for (path, at_first) in [(file, libc::PROT_READ | libc::PROT_WRITE), (later, libc::PROT_READ)] {
        let opened = std::fs::File::options().read(true).write(true).open(path)?;
        opened.set_len(PAGE as u64)?;
        let fd = std::os::fd::AsRawFd::as_raw_fd(&opened);
        // SAFETY: the mapping is new, one page long, and nobody else shortens the file.
        unsafe {
            let page = libc::mmap(std::ptr::null_mut(), PAGE, at_first, libc::MAP_SHARED, fd, 0);
            ensure!(page != libc::MAP_FAILED, "mmap: {}", std::io::Error::last_os_error());
            checked("mprotect", libc::mprotect(page, PAGE, libc::PROT_READ | libc::PROT_WRITE))?;
            page.cast::<u8>().write_volatile(b'w');
        }
    }
    Ok(())
}

fn inherited(port: u16) -> anyhow::Result<()> {
    let mut connection = TcpStream::connect(("127.0.0.1", port))?;
    let datagrams = UdpSocket::bind("127.0.0.1:0")?;
    let pid = child(|| {
        connection.try_clone()?.write_all(b"from the child")?;
        datagrams.send_to(b"x", ("127.0.0.1", port))?;
        println!("{}", std::process::id());
        Ok(())
    })?;
    wait(pid)?;
    ensure!(connection.read(&mut [0; 1])? == 0, "the peer said something");
    Ok(())
}

/// A user and a mount namespace of its own, where it is root.
fn own_namespaces() -> Result<(), std::io::Error> {
    // SAFETY: plain system calls.
    let (uid, gid) = unsafe { (libc::geteuid(), libc::getegid()) };
    // SAFETY: as above.
    if unsafe { libc::unshare(libc::CLONE_NEWUSER | libc::CLONE_NEWNS) } != 0 {
        return Err(std::io::Error::last_os_error());
    }
    std::fs::write("/proc/self/setgroups", "deny")?;
    std::fs::write("/proc/self/uid_map", format!("0 {uid} 1"))?;
    std::fs::write("/proc/self/gid_map", format!("0 {gid} 1"))
}

fn mount(kind: &str, at: &Path, options: &str) -> Result<(), std::io::Error> {
    let [kind, options] = [kind, options].map(|text| CString::new(text).unwrap_or_default());
    let at = CString::new(at.as_os_str().as_bytes()).unwrap_or_default();
    // SAFETY: the strings outlive the call.
    let done = unsafe { libc::mount(kind.as_ptr(), at.as_ptr(), kind.as_ptr(), 0, options.as_ptr().cast()) };
    if done == 0 { Ok(()) } else { Err(std::io::Error::last_os_error()) }
}

fn overlay(lower: &Path, base: &Path, name: &str) -> anyhow::Result<Outcome> {
    let [upper, work, merged] = ["upper", "work", "merged"].map(|part| base.join(part));
    for dir in [&upper, &work, &merged] {
        std::fs::create_dir(dir)?;
    }
    let options =
        format!("lowerdir={},upperdir={},workdir={},userxattr", lower.display(), upper.display(), work.display());
    if let Err(error) = own_namespaces().and_then(|()| mount("overlay", &merged, &options)) {
        return Ok(Outcome::Missing(error));
    }
    std::fs::read(merged.join(name))?;
    Ok(Outcome::Done)
}

fn binfmt(dir: &Path, interpreter: &str) -> anyhow::Result<Outcome> {
    let at: PathBuf = dir.join("binfmt");
    std::fs::create_dir(&at)?;
    // Registered in a namespace of its own or not at all: the machine's other programs see nothing of it.
    if let Err(error) = own_namespaces().and_then(|()| mount("binfmt_misc", &at, "")) {
        return Ok(Outcome::Missing(error));
    }
    std::fs::write(at.join("register"), format!(":evader:E::evader::{interpreter}:"))?;
    let status = Command::new(dir.join("given.evader")).status()?;
    ensure!(status.success(), "the interpreter: {status}");
    Ok(Outcome::Done)
}

fn vsock(local: bool) -> anyhow::Result<Outcome> {
    // SAFETY: a plain system call; the descriptor ends with the process.
    let fd = unsafe { libc::socket(libc::AF_VSOCK, libc::SOCK_STREAM | libc::SOCK_CLOEXEC, 0) };
    if fd < 0 {
        return Ok(Outcome::Missing(std::io::Error::last_os_error()));
    }
    // `struct sockaddr_vm`: family, reserved, port, context, flags, zeros. Those flags are nobody's.
    let flags: u8 = if local { 0 } else { 0x80 };
    let mut address = [0u8; 16];
    address[..2].copy_from_slice(&40u16.to_ne_bytes());
    address[4..8].copy_from_slice(&7u32.to_ne_bytes());
    address[8..12].copy_from_slice(&1u32.to_ne_bytes());
    address[12] = flags;
    // SAFETY: the address outlives the call, and is as long as is said.
    let connected = unsafe { libc::connect(fd, address.as_ptr().cast(), 16) };
    ensure!(connected != 0, "somebody listens");
    Ok(Outcome::Done)
}

fn x32(file: &CString) -> anyhow::Result<Outcome> {
    // SAFETY: the path outlives the call.
    if unsafe { libc::syscall(X32 | libc::SYS_unlink, file.as_ptr()) } == 0 {
        return Ok(Outcome::Done);
    }
    let error = std::io::Error::last_os_error();
    ensure!(error.raw_os_error() == Some(libc::ENOSYS), "{error}");
    Ok(Outcome::Missing(error))
}

/// The kernel takes a call's number from the lower half of its register alone.
fn upper(file: &CString, port: u16) -> anyhow::Result<()> {
    const BEYOND: c_long = 1 << 32;
    // SAFETY: the path outlives the call.
    checked("truncate", unsafe { libc::syscall(BEYOND | libc::SYS_truncate, file.as_ptr(), 1) })?;
    let address = localhost(port);
    // SAFETY: a plain system call; the descriptor ends with the process.
    let fd = unsafe { libc::socket(libc::AF_INET, libc::SOCK_STREAM | libc::SOCK_CLOEXEC, 0) };
    checked("socket", fd)?;
    // SAFETY: the address outlives the call, and is as long as is said.
    checked("connect", unsafe {
        libc::syscall(BEYOND | libc::SYS_connect, fd, &raw const address, size_of_val(&address))
    })?;
    Ok(())
}

/// The address of a port of this machine.
fn localhost(port: u16) -> libc::sockaddr_in {
    // SAFETY: zeros are an address.
    let mut address: libc::sockaddr_in = unsafe { std::mem::zeroed() };
    address.sin_family = libc::AF_INET as libc::sa_family_t;
    address.sin_port = port.to_be();
    address.sin_addr.s_addr = u32::from(std::net::Ipv4Addr::LOCALHOST).to_be();
    address
}

fn flood(file: &Path, port: u16) -> anyhow::Result<()> {
    let opened = std::fs::File::open(file)?;
    let half = || -> anyhow::Result<()> {
        for _ in 0..250_000 {
            // SAFETY: a plain system call.
            unsafe { libc::syscall(libc::SYS_getppid) };
            rustix::io::pread(&opened, &mut [0; 1], 0)?;
        }
        Ok(())
    };
    half()?;
    TcpStream::connect(("127.0.0.1", port))?;
    half()
}
