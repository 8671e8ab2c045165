//! Makes processes as fast as they go, in every way that lets a child escape its parent, and says which it made.
//!
//! `storm COUNT [MODE,MODE...]` makes at least COUNT processes, the modes in turn, and prints one JSON object:
//! `{"root": tgid, "made": [{"tgid", "parent", "mode", "execs"}]}`; ids are those of the PID namespace that the storm
//! itself is in. It returns when all of them have ended, those that it is no parent of included, and fails when one
//! could not be made or did not end with 0.
//!
//! `storm noop` does nothing; `storm thread-exec` executes `storm noop` from a thread that is not the leader.

use std::ffi::{CString, c_char, c_int, c_void};
use std::io::{self, Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;

use anyhow::{Context, bail, ensure};
use rustix::net::{AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SocketFlags, SocketType};
use serde_json::json;

/// How many children may run at once: far below the usual limit of processes, far above what two cores keep busy.
const ALIVE_MAX: usize = 128;
/// What `clone` gives a child that brings its own stack.
const STACK_BYTES: usize = 64 * 1024;

#[derive(Clone, Copy, Debug)]
enum Mode {
    /// fork, exec.
    Fork,
    /// fork, fork, exec; the one in the middle ends at once.
    DoubleFork,
    /// fork, setsid, exec.
    Setsid,
    /// A thread forks, exec.
    Thread,
    /// `clone(CLONE_VM | CLONE_VFORK)`, exec: what vfork and posix_spawn are.
    Vfork,
    /// clone into new PID, mount, UTS and IPC namespaces, exec.
    Namespaces,
    /// clone into a new PID namespace, fork, fork, exec: all but the first have ids that only the namespaces above know.
    Nested,
    /// fork, exec, and a thread other than the leader executes again.
    ThreadExec,
}

const MODES: [(&str, Mode); 8] = [
    ("fork", Mode::Fork),
    ("double-fork", Mode::DoubleFork),
    ("setsid", Mode::Setsid),
    ("thread", Mode::Thread),
    ("vfork", Mode::Vfork),
    ("namespaces", Mode::Namespaces),
    ("nested", Mode::Nested),
    ("thread-exec", Mode::ThreadExec),
];

/// A program and its arguments, made before any fork: a child may not allocate.
struct Image {
    path: CString,
    argv: [*const c_char; 3],
    _argument: CString,
}

// SAFETY: the pointers are to the strings that the same value owns and never changes.
unsafe impl Sync for Image {}

impl Image {
    fn new(path: &CString, argument: &str) -> anyhow::Result<Self> {
        let argument = CString::new(argument)?;
        let path = path.clone();
        Ok(Self { argv: [path.as_ptr(), argument.as_ptr(), std::ptr::null()], path, _argument: argument })
    }

    /// Becomes this program, or ends with 127.
    fn exec(&self) -> ! {
        // SAFETY: both pointers stay valid until the call replaces the process; `_exit` is async-signal-safe.
        unsafe {
            libc::execv(self.path.as_ptr(), self.argv.as_ptr());
            libc::_exit(127)
        }
    }
}

extern "C" fn exec_image(image: *mut c_void) -> c_int {
    // SAFETY: `clone_and_exec` passes a pointer to an `Image` that outlives the child's use of it.
    let image = unsafe { &*image.cast::<Image>() };
    image.exec()
}

/// What the first process of a new PID namespace needs.
struct Nest<'a> {
    image: &'a Image,
    /// A socket: the kernel tells its reader who wrote, in ids of the reader's own namespace.
    out: c_int,
}

/// The first process of a new PID namespace: forks a child that forks another, which executes. The namespace ends with its
/// first process, so each waits for its child.
extern "C" fn nest(nest: *mut c_void) -> c_int {
    // SAFETY: `nested` passes a pointer to a `Nest`, of which the child has a copy.
    let nest = unsafe { &*nest.cast::<Nest<'_>>() };
    waited(fork(|| {
        tell(nest.out);
        waited(fork(|| {
            tell(nest.out);
            nest.image.exec()
        }))
    }))
}

/// Says that this process is there.
fn tell(out: c_int) {
    // SAFETY: one byte, valid for reading.
    unsafe { libc::write(out, [0_u8].as_ptr().cast(), 1) };
}

/// Waits for a child; 0 if it was made and ended with 0.
fn waited(child: io::Result<c_int>) -> c_int {
    let Ok(child) = child else { return 1 };
    let mut status = 0;
    // SAFETY: `status` is a valid place for the result.
    let ended = unsafe { libc::waitpid(child, &raw mut status, 0) };
    c_int::from(ended != child || status != 0)
}

struct Made {
    tgid: c_int,
    parent: c_int,
    mode: &'static str,
    execs: u32,
}

struct Storm {
    noop: Image,
    thread_exec: Image,
    made: Vec<Made>,
    alive: usize,
    root: c_int,
}

/// Forks; the child runs `in_child`, which may only call what is async-signal-safe.
fn fork(in_child: impl FnOnce() -> c_int) -> io::Result<c_int> {
    // SAFETY: the child calls nothing but `in_child`, which by contract neither allocates nor takes a lock.
    match unsafe { libc::fork() } {
        -1 => Err(io::Error::last_os_error()),
        // SAFETY: ends the child without running what the parent registered for its own exit.
        0 => unsafe { libc::_exit(in_child()) },
        tgid => Ok(tgid),
    }
}

fn clone_and_exec(flags: c_int, image: &Image) -> io::Result<c_int> {
    let argument: *const Image = image;
    clone(flags, exec_image, argument.cast())
}

/// Clones; the child runs `in_child`, which may only call what is async-signal-safe, with the argument.
fn clone(flags: c_int, in_child: extern "C" fn(*mut c_void) -> c_int, argument: *const c_void) -> io::Result<c_int> {
    let mut stack = vec![0_u128; STACK_BYTES / size_of::<u128>()];
    let top = stack.as_mut_ptr_range().end;
    // SAFETY: the stack is aligned, grows down from its end and lives until the child has executed: with CLONE_VFORK the
    // call returns only then, and without CLONE_VM the child has a copy.
    let tgid = unsafe { libc::clone(in_child, top.cast(), flags | libc::SIGCHLD, argument.cast_mut()) };
    if tgid < 0 { Err(io::Error::last_os_error()) } else { Ok(tgid) }
}

impl Storm {
    fn make(&mut self, name: &'static str, mode: Mode) -> anyhow::Result<()> {
        let root = self.root;
        let mut note = |tgid, parent, execs| self.made.push(Made { tgid, parent, mode: name, execs });
        let noop = &self.noop;
        let tgid = match mode {
            Mode::Fork => fork(|| noop.exec())?,
            Mode::DoubleFork => {
                let (middle, grandchild) = double_fork(noop)?;
                note(grandchild, middle, 1);
                note(middle, root, 0);
                self.alive += 1;
                return Ok(());
            }
            Mode::Setsid => fork(|| {
                // SAFETY: a plain system call.
                unsafe { libc::setsid() };
                noop.exec()
            })?,
            Mode::Thread => std::thread::scope(|scope| {
                let forked = scope.spawn(|| fork(|| noop.exec())).join();
                forked.unwrap_or_else(|_| Err(io::Error::other("the forking thread panicked")))
            })?,
            Mode::Vfork => clone_and_exec(libc::CLONE_VM | libc::CLONE_VFORK, noop)?,
            Mode::Namespaces => {
                let new = libc::CLONE_NEWPID | libc::CLONE_NEWNS | libc::CLONE_NEWUTS | libc::CLONE_NEWIPC;
                clone_and_exec(new, noop).context("new namespaces want root")?
            }
            Mode::Nested => {
                let chain = nested(noop).context("a new PID namespace wants root")?;
                let mut parent = root;
                for (depth, tgid) in (1..).zip(chain) {
                    note(tgid, parent, u32::from(depth == chain.len()));
                    parent = tgid;
                }
                self.alive += 1;
                return Ok(());
            }
            Mode::ThreadExec => {
                let thread_exec = &self.thread_exec;
                let tgid = fork(|| thread_exec.exec())?;
                note(tgid, root, 2);
                self.alive += 1;
                return Ok(());
            }
        };
        note(tgid, root, 1);
        self.alive += 1;
        Ok(())
    }

    /// Collects children until at most `remaining` are alive.
    fn reap(&mut self, remaining: usize) -> anyhow::Result<()> {
        while self.alive > remaining {
            let mut status = 0;
            // SAFETY: `status` is a valid place for the result.
            let tgid = unsafe { libc::waitpid(-1, &raw mut status, 0) };
            ensure!(tgid > 0, "waitpid: {}", io::Error::last_os_error());
            ensure!(status == 0, "process {tgid} ended with status {status:#x}");
            self.alive -= 1;
        }
        Ok(())
    }
}

/// Makes a process in a new PID namespace, its child and its grandchild, and returns the three.
fn nested(image: &Image) -> anyhow::Result<[c_int; 3]> {
    let (reader, writer) =
        rustix::net::socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
    rustix::net::sockopt::set_socket_passcred(&reader, true)?;
    let argument = Nest { image, out: writer.as_raw_fd() };
    let first = clone(libc::CLONE_NEWPID, nest, (&raw const argument).cast())?;
    // Of the writing end only they have copies: when they are gone there is nothing to wait for.
    drop(writer);
    Ok([first, writer_of_next(&reader)?, writer_of_next(&reader)?])
}

/// Who wrote the next byte to a socket with `SO_PASSCRED`, in ids of our own PID namespace.
fn writer_of_next(socket: &OwnedFd) -> anyhow::Result<c_int> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmCredentials(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut byte = [0; 1];
    rustix::net::recvmsg(socket, &mut [io::IoSliceMut::new(&mut byte)], &mut control, RecvFlags::empty())?;
    let credentials = control.drain().find_map(|message| match message {
        RecvAncillaryMessage::ScmCredentials(credentials) => Some(credentials),
        _ => None,
    });
    Ok(credentials.context("nobody wrote")?.pid.as_raw_nonzero().get())
}

/// Returns the child, and the grandchild whose parent ends at once.
fn double_fork(image: &Image) -> anyhow::Result<(c_int, c_int)> {
    let (mut reader, writer) = io::pipe()?;
    let out = writer.as_raw_fd();
    let middle = fork(|| {
        let Ok(grandchild) = fork(|| image.exec()) else { return 1 };
        let bytes = grandchild.to_ne_bytes();
        // SAFETY: `bytes` is valid for its length; the pipe holds four bytes at once.
        let written = unsafe { libc::write(out, bytes.as_ptr().cast(), bytes.len()) };
        c_int::from(written != 4)
    })?;
    drop(writer);
    let mut bytes = [0; 4];
    reader.read_exact(&mut bytes).context("the child between told of no grandchild")?;
    Ok((middle, c_int::from_ne_bytes(bytes)))
}

fn storm(count: usize, modes: &[(&'static str, Mode)]) -> anyhow::Result<()> {
    let path = CString::new(std::env::current_exe()?.into_os_string().into_vec())?;
    let root = c_int::try_from(std::process::id())?;
    // Every process made inherits the writing end, so the reading end is at its end when the last of them is gone.
    let (mut all_gone, alive) = io::pipe()?;
    // SAFETY: clears close-on-exec of a descriptor that this function owns.
    ensure!(unsafe { libc::fcntl(alive.as_raw_fd(), libc::F_SETFD, 0) } == 0, "fcntl: {}", io::Error::last_os_error());

    let mut storm = Storm {
        noop: Image::new(&path, "noop")?,
        thread_exec: Image::new(&path, "thread-exec")?,
        made: Vec::with_capacity(count + 1),
        alive: 0,
        root,
    };
    for (name, mode) in modes.iter().cycle() {
        if storm.made.len() >= count {
            break;
        }
        storm.make(name, *mode).with_context(|| format!("mode {name}"))?;
        storm.reap(ALIVE_MAX)?;
    }
    storm.reap(0)?;
    drop(alive);
    all_gone.read_to_end(&mut Vec::new())?;

    let made: Vec<_> = storm
        .made
        .iter()
        .map(|made| json!({"tgid": made.tgid, "parent": made.parent, "mode": made.mode, "execs": made.execs}))
        .collect();
    writeln!(io::stdout(), "{}", json!({"root": root, "made": made}))?;
    Ok(())
}

fn thread_exec() -> anyhow::Result<()> {
    let path = CString::new(std::env::current_exe()?.into_os_string().into_vec())?;
    let noop = Image::new(&path, "noop")?;
    std::thread::scope(|scope| {
        scope.spawn(|| noop.exec());
    });
    bail!("the thread's exec did not replace the process")
}

fn main() -> anyhow::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["noop"] => Ok(()),
        ["thread-exec"] => thread_exec(),
        [count] => storm(count.parse()?, &MODES),
        [count, names] => {
            let modes: Option<Vec<_>> =
                names.split(',').map(|name| MODES.into_iter().find(|(known, _)| *known == name)).collect();
            storm(count.parse()?, &modes.context("no such mode")?)
        }
        _ => bail!("usage: storm COUNT [MODE,MODE...] | noop | thread-exec"),
    }
}
