//! What the worker works on: files, a program of a few bytes, a listener. All made before anything is measured.

use std::{
    ffi::CString,
    fs,
    net::{Ipv4Addr, SocketAddrV4},
    os::{
        fd::OwnedFd,
        unix::{ffi::OsStrExt, fs::PermissionsExt},
    },
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use anyhow::{Context, Result, bail};
use rustix::net::{AddressFamily, SocketFlags, SocketType, acceptfrom_with, bind, getsockname, listen, socket_with};

/// Room for all that one run connects: a full queue would make the worker wait a second.
const BACKLOG: i32 = 4096;

/// The files of a stage, which lie in one directory.
#[derive(Debug, Clone)]
pub(super) struct Files {
    root: PathBuf,
}

impl Files {
    /// Those of the stage in `root`.
    pub(super) fn at(root: PathBuf) -> Self {
        Self { root }
    }

    /// Makes them, `new` of those that are opened once.
    ///
    /// # Errors
    /// When the directory exists, or a file cannot be written.
    pub(super) fn make(root: PathBuf, new: usize) -> Result<Self> {
        let files = Self::at(root);
        let write = |path: &Path, bytes: &[u8]| {
            fs::write(path, bytes).with_context(|| format!("cannot write {}", path.display()))
        };
        fs::create_dir(&files.root).with_context(|| format!("cannot create {}", files.root.display()))?;
        fs::create_dir(files.new_folder())
            .with_context(|| format!("cannot create {}", files.new_folder().display()))?;
        write(&files.same(), b"")?;
        write(&files.touched(), &[b'x'; 64])?;
        for number in 0..new {
            write(&files.new_folder().join(number.to_string()), b"")?;
        }
        write(&files.tiny(), &tiny_program()?)?;
        fs::set_permissions(files.tiny(), fs::Permissions::from_mode(0o755))
            .context("cannot make a file executable")?;
        Ok(files)
    }

    /// The directory of all of them.
    pub(super) fn root(&self) -> &Path {
        &self.root
    }

    /// The file that is opened again and again.
    pub(super) fn same(&self) -> PathBuf {
        self.root.join("same")
    }

    /// The file that is read and written.
    pub(super) fn touched(&self) -> PathBuf {
        self.root.join("touched")
    }

    /// The directory of the files that are opened once a process.
    pub(super) fn new_folder(&self) -> PathBuf {
        self.root.join("new")
    }

    /// The program that ends as soon as it starts.
    pub(super) fn tiny(&self) -> PathBuf {
        self.root.join("tiny")
    }

    /// The first `count` of the files that are opened once, as the kernel takes paths.
    pub(super) fn new_files(&self, count: usize) -> Result<Vec<CString>> {
        (0..count).map(|number| c_path(&self.new_folder().join(number.to_string()))).collect()
    }
}

/// `path` as the kernel takes it.
pub(super) fn c_path(path: &Path) -> Result<CString> {
    CString::new(path.as_os_str().as_bytes()).with_context(|| format!("{} has a zero byte", path.display()))
}

/// An executable without libraries that calls `exit(0)`: what fork and exec themselves cost, and nothing else.
fn tiny_program() -> Result<Vec<u8>> {
    const HEADERS: u16 = 64 + 56;
    const BASE: u64 = 0x40_0000;
    /// `xor edi, edi; mov eax, 60; syscall`
    const CODE: [u8; 9] = [0x31, 0xff, 0xb8, 60, 0, 0, 0, 0x0f, 0x05];
    if !cfg!(target_arch = "x86_64") {
        bail!("the bench knows no program of a few bytes for this architecture");
    }
    let size = u64::from(HEADERS) + CODE.len() as u64;
    let mut elf = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0".to_vec();
    let half = |elf: &mut Vec<u8>, words: &[u16]| words.iter().for_each(|word| elf.extend(word.to_le_bytes()));
    let long = |elf: &mut Vec<u8>, words: &[u64]| words.iter().for_each(|word| elf.extend(word.to_le_bytes()));
    // ET_EXEC for EM_X86_64, version 1; entry, program headers at 64, no section headers; no flags.
    half(&mut elf, &[2, 62, 1, 0]);
    long(&mut elf, &[BASE + u64::from(HEADERS), 64, 0]);
    half(&mut elf, &[0, 0, 64, 56, 1, 0, 0, 0]);
    // One PT_LOAD that may be read and executed: the whole file.
    half(&mut elf, &[1, 0, 5, 0]);
    long(&mut elf, &[0, BASE, BASE, size, size, 0x1000]);
    elf.extend(CODE);
    Ok(elf)
}

/// A listener on loopback that accepts and closes until it is dropped.
#[derive(Debug)]
pub(super) struct Listener {
    port: u16,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Listener {
    /// Listens on a port of the kernel's choice.
    ///
    /// # Errors
    /// When loopback is missing, or a thread cannot be started.
    pub(super) fn start() -> Result<Self> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket =
            socket_with(AddressFamily::INET, SocketType::STREAM, flags, None).context("cannot make a socket")?;
        bind(&socket, &SocketAddrV4::new(Ipv4Addr::LOCALHOST, 0)).context("cannot bind to 127.0.0.1")?;
        listen(&socket, BACKLOG).context("cannot listen on 127.0.0.1")?;
        let address = getsockname(&socket).context("cannot read a socket's address")?;
        let port = SocketAddrV4::try_from(address).context("a socket without a port")?.port();
        let stop = Arc::new(AtomicBool::new(false));
        let thread = thread::Builder::new()
            .spawn({
                let stop = Arc::clone(&stop);
                move || accept_until(&stop, &socket)
            })
            .context("cannot start a thread")?;
        Ok(Self { port, stop, thread: Some(thread) })
    }

    /// Where it listens.
    pub(super) fn port(&self) -> u16 {
        self.port
    }
}

/// Polls: a thread that waited in accept would be woken by each connection, at the worker's expense.
fn accept_until(stop: &AtomicBool, socket: &OwnedFd) {
    while !stop.load(Ordering::Relaxed) {
        while acceptfrom_with(socket, SocketFlags::CLOEXEC).is_ok() {}
        thread::sleep(Duration::from_millis(1));
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // It cannot have panicked, and there is nobody to tell here.
            let _: thread::Result<()> = thread.join();
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use std::process::Command;

    use super::{super::worker::connect_and_close, *};

    #[test]
    fn the_tiny_program_runs_and_ends_well() {
        let folder = tempfile::tempdir().unwrap();
        let files = Files::make(folder.path().join("stage"), 0).unwrap();
        assert!(Command::new(files.tiny()).status().unwrap().success());
    }

    #[test]
    fn every_new_file_exists_and_is_another() {
        let folder = tempfile::tempdir().unwrap();
        let files = Files::make(folder.path().join("stage"), 12).unwrap();
        let mut paths = files.new_files(12).unwrap();
        assert!(paths.iter().all(|path| fs::exists(path.to_str().unwrap()).unwrap()));
        paths.sort();
        paths.dedup();
        assert_eq!(paths.len(), 12);
    }

    #[test]
    fn a_stage_is_not_made_over_another() {
        let folder = tempfile::tempdir().unwrap();
        assert!(Files::make(folder.path().to_owned(), 0).is_err());
    }

    #[test]
    fn the_listener_takes_more_connections_than_its_queue_holds_and_ends_when_dropped() {
        let listener = Listener::start().unwrap();
        let port = listener.port();
        let address = SocketAddrV4::new(Ipv4Addr::LOCALHOST, port);
        for _ in 0..BACKLOG + 100 {
            connect_and_close(&address).unwrap();
        }
        drop(listener);
        assert_eq!(connect_and_close(&address), Err(rustix::io::Errno::CONNREFUSED));
    }
}
