//! A child that is forked, held until it is released, and then becomes the command.
//!
//! Inputs: an [`Image`], the signals as they were inherited. Outputs: the child's id while it is held; what came of its
//! execution. Refuses: to let the child live on when nobody releases it: it ends with this process, or when dropped.
#![allow(unsafe_code, reason = "std cannot hold a child between fork and exec; each block says what it relies on")]

use std::ffi::{CString, OsString, c_char, c_int};
use std::io::{self, Read};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::ptr;

use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{Pid, WaitOptions, waitpid};

use super::path::NotExecutable;
use super::signals::Inherited;

/// What a child exits with that never became the command; nobody sees it.
const NEVER_STARTED: c_int = 127;

/// What the command gets when `bailiwick run` ends before it; `prctl` takes it as this type.
const WHEN_THE_PARENT_ENDS: libc::c_ulong = libc::SIGTERM as libc::c_ulong;

/// The shell that a script without `#!` is given to, as `execvp` and every shell do.
const SHELL: &std::ffi::CStr = c"/bin/sh";

/// What to execute.
pub(super) struct Image {
    path: PathBuf,
    file: CString,
    arguments: Vec<CString>,
}

impl Image {
    /// This file with these words, the command's name first.
    pub(super) fn new(path: PathBuf, words: &[OsString]) -> Result<Self, NotExecutable> {
        let with_zero = |_| NotExecutable::at(&path, io::ErrorKind::InvalidInput.into());
        let file = CString::new(path.as_os_str().as_bytes()).map_err(with_zero)?;
        let arguments: Result<Vec<_>, _> = words.iter().map(|word| CString::new(word.as_bytes())).collect();
        let arguments = arguments.map_err(with_zero)?;
        Ok(Self { path, file, arguments })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }
}

/// A child that waits to be released.
pub(super) struct HeldChild {
    child: Pid,
    /// One byte on it lets the child go; its end, without one, ends the child. Gone once released.
    go: Option<OwnedFd>,
    /// The error number of an execution that failed; ends without one when it succeeded.
    failure: std::fs::File,
    is_started: bool,
}

/// All that the child needs after the fork, made before it: it must not allocate.
struct Prepared<'a> {
    file: *const c_char,
    arguments: &'a [*const c_char],
    for_shell: &'a [*const c_char],
    parent: c_int,
    go: [RawFd; 2],
    failure: [RawFd; 2],
    inherited: &'a Inherited,
}

impl HeldChild {
    /// Forks. The child does nothing but wait.
    pub(super) fn fork(image: &Image, inherited: &Inherited) -> io::Result<Self> {
        let (go_read, go_write) = pipe_with(PipeFlags::CLOEXEC)?;
        let (failure_read, failure_write) = pipe_with(PipeFlags::CLOEXEC)?;
        let words = || image.arguments.iter().map(|word| word.as_ptr());
        let arguments: Vec<*const c_char> = words().chain([ptr::null()]).collect();
        let shell = [SHELL.as_ptr(), image.file.as_ptr()];
        let for_shell: Vec<*const c_char> = shell.into_iter().chain(words().skip(1)).chain([ptr::null()]).collect();
        let prepared = Prepared {
            file: image.file.as_ptr(),
            arguments: &arguments,
            for_shell: &for_shell,
            parent: rustix::process::getpid().as_raw_nonzero().get(),
            go: [go_read.as_raw_fd(), go_write.as_raw_fd()],
            failure: [failure_read.as_raw_fd(), failure_write.as_raw_fd()],
            inherited,
        };
        // SAFETY: the child runs only `become_command`, which calls async-signal-safe functions alone and touches only
        // memory made before, so it may be forked whatever other threads hold.
        let forked = unsafe { libc::fork() };
        if forked == 0 {
            // SAFETY: this is the child, and all that `prepared` points to outlives the call, which does not return.
            unsafe { become_command(&prepared) }
        }
        let child = Pid::from_raw(forked).filter(|_| forked > 0).ok_or_else(io::Error::last_os_error)?;
        Ok(Self { child, go: Some(go_write), failure: failure_read.into(), is_started: false })
    }

    /// The child's process id.
    pub(super) fn tgid(&self) -> u32 {
        self.child.as_raw_nonzero().get().unsigned_abs()
    }

    /// Lets it go, and waits until it has become the command; or tells why it could not.
    pub(super) fn release(&mut self) -> io::Result<()> {
        if let Some(go) = self.go.take() {
            rustix::io::write(&go, &[1])?;
        }
        let mut number = Vec::new();
        (&self.failure).take(4).read_to_end(&mut number)?;
        match <[u8; 4]>::try_from(number) {
            Ok(number) => Err(io::Error::from_raw_os_error(i32::from_ne_bytes(number))),
            Err(_) => {
                self.is_started = true;
                Ok(())
            }
        }
    }

    /// The command's process, once it was released: to be waited for by the caller.
    pub(super) fn started(self) -> Pid {
        self.child
    }
}

impl Drop for HeldChild {
    fn drop(&mut self) {
        if self.is_started {
            return;
        }
        // The end of the pipe ends a child that was not released; one that failed has ended.
        self.go = None;
        let _ = waitpid(Some(self.child), WaitOptions::empty());
    }
}

/// The child's side of the fork.
///
/// # Safety
///
/// To be called in a fresh child, with pointers that are valid; arrays end with a null pointer.
unsafe fn become_command(prepared: &Prepared<'_>) -> ! {
    // SAFETY: system calls on values and on descriptors of this process; no memory but a byte on the stack, and what
    // `prepared` points to. The child has one thread.
    unsafe {
        libc::prctl(libc::PR_SET_PDEATHSIG, WHEN_THE_PARENT_ENDS);
        // The parent's ends, so that the pipe ends when the parent does.
        libc::close(prepared.go[1]);
        libc::close(prepared.failure[0]);
        // A parent that ended before prctl sends nothing.
        if libc::getppid() != prepared.parent || !is_released(prepared.go[0]) {
            libc::_exit(NEVER_STARTED);
        }
        prepared.inherited.restore();
        libc::execv(prepared.file, prepared.arguments.as_ptr());
        if errno() == libc::ENOEXEC {
            libc::execv(SHELL.as_ptr(), prepared.for_shell.as_ptr());
        }
        let number = errno().to_ne_bytes();
        libc::write(prepared.failure[1], number.as_ptr().cast(), number.len());
        libc::_exit(NEVER_STARTED)
    }
}

/// Waits for the byte; false at the end without one.
///
/// # Safety
///
/// As of [`become_command`].
unsafe fn is_released(go: RawFd) -> bool {
    let mut byte = 0_u8;
    loop {
        // SAFETY: one byte is read into one byte.
        let read = unsafe { libc::read(go, (&raw mut byte).cast(), 1) };
        if read >= 0 {
            return read == 1;
        }
        if errno() != libc::EINTR {
            return false;
        }
    }
}

fn errno() -> c_int {
    // SAFETY: glibc and musl return a valid pointer to the thread's own number.
    unsafe { *libc::__errno_location() }
}
