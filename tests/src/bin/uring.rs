//! Does things through an io_uring, and not by system calls.
//!
//! `uring plain|async|polled DIR PORT`: below an empty directory it makes, writes, reads, links, renames and removes files,
//! connects to `127.0.0.1:PORT` and sends a datagram there. `async` has each done by a worker thread of the kernel's,
//! `polled` has a thread of the kernel's take the operations. It prints `{"results": {"OPERATION": RESULT}}`.
//!
//! `uring silent DIR PORT` makes, opens and unlinks a file there and asks for no completion of it; then it has more
//! operations done than there is room for completions, and prints by how many.

use std::ffi::CString;
use std::net::SocketAddrV4;
use std::os::fd::{AsRawFd, RawFd};
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use io_uring::squeue::{Entry, Flags};
use io_uring::{IoUring, opcode, types};
use rustix::net::{AddressFamily, SocketType, socket};
use serde_json::{Map, Value, json};

struct Ring {
    ring: IoUring,
    flags: Flags,
    results: Map<String, Value>,
}

impl Ring {
    /// Has one operation done, and waits for it.
    fn run(&mut self, name: &str, entry: Entry) -> anyhow::Result<i32> {
        // SAFETY: whatever the entry leads to outlives this call, which waits for its completion.
        unsafe { self.ring.submission().push(&entry.flags(self.flags))? };
        self.ring.submit_and_wait(1)?;
        let result = self.ring.completion().next().context("no completion")?.result();
        self.results.insert(name.to_owned(), json!(result));
        Ok(result)
    }
}

impl Ring {
    /// Has an operation done that tells of its end a second time, when it needs its memory no longer.
    fn run_twice(&mut self, name: &str, entry: Entry) -> anyhow::Result<()> {
        self.run(name, entry)?;
        if self.ring.completion().next().is_none() {
            self.ring.submit_and_wait(1)?;
            self.ring.completion().next().context("no second completion")?;
        }
        Ok(())
    }
}

fn c_path(dir: &Path, name: &str) -> anyhow::Result<CString> {
    Ok(CString::new(dir.join(name).into_os_string().into_encoded_bytes())?)
}

fn files(ring: &mut Ring, dir: &Path) -> anyhow::Result<()> {
    const CWD: types::Fd = types::Fd(libc::AT_FDCWD);
    let path = |name: &str| c_path(dir, name);
    let (made, old, new) = (path("made")?, path("old")?, path("new")?);
    let open = opcode::OpenAt::new(CWD, made.as_ptr()).flags(libc::O_RDWR | libc::O_CREAT).mode(0o600).build();
    let fd: RawFd = ring.run("OPENAT", open)?;
    ring.run("WRITE", opcode::Write::new(types::Fd(fd), b"written".as_ptr(), 7).offset(0).build())?;
    let mut room = [0u8; 16];
    ring.run("READ", opcode::Read::new(types::Fd(fd), room.as_mut_ptr(), 16).offset(0).build())?;
    ring.run("LINKAT", opcode::LinkAt::new(CWD, made.as_ptr(), CWD, old.as_ptr()).build())?;
    ring.run("RENAMEAT", opcode::RenameAt::new(CWD, old.as_ptr(), CWD, new.as_ptr()).build())?;
    ring.run("UNLINKAT", opcode::UnlinkAt::new(CWD, new.as_ptr()).build())?;
    let (sub, link) = (path("sub")?, path("link")?);
    ring.run("MKDIRAT", opcode::MkDirAt::new(CWD, sub.as_ptr()).mode(0o700).build())?;
    ring.run("SYMLINKAT", opcode::SymlinkAt::new(CWD, c"made".as_ptr(), link.as_ptr()).build())?;
    ring.run("CLOSE", opcode::Close::new(types::Fd(fd)).build())?;
    Ok(())
}

fn network(ring: &mut Ring, port: u16) -> anyhow::Result<()> {
    let address = SocketAddrV4::new(std::net::Ipv4Addr::LOCALHOST, port);
    let raw = libc::sockaddr_in {
        sin_family: libc::AF_INET as u16,
        sin_port: address.port().to_be(),
        sin_addr: libc::in_addr { s_addr: u32::from(*address.ip()).to_be() },
        sin_zero: [0; 8],
    };
    let len = size_of_val(&raw) as u32;
    let stream = socket(AddressFamily::INET, SocketType::STREAM, None)?;
    let connect = opcode::Connect::new(types::Fd(stream.as_raw_fd()), (&raw const raw).cast(), len).build();
    ring.run("CONNECT", connect)?;
    ring.run("SEND", opcode::Send::new(types::Fd(stream.as_raw_fd()), b"x".as_ptr(), 1).build())?;
    let datagrams = socket(AddressFamily::INET, SocketType::DGRAM, None)?;
    let mut part = libc::iovec { iov_base: b"x".as_ptr().cast_mut().cast(), iov_len: 1 };
    // SAFETY: all zero is a message without a name, parts or control data.
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    message.msg_name = (&raw const raw).cast_mut().cast();
    message.msg_namelen = len;
    message.msg_iov = &raw mut part;
    message.msg_iovlen = 1;
    let to = opcode::SendZc::new(types::Fd(datagrams.as_raw_fd()), b"z".as_ptr(), 1);
    ring.run_twice("SEND_ZC", to.dest_addr((&raw const raw).cast()).dest_addr_len(len).build())?;
    ring.run("SENDMSG", opcode::SendMsg::new(types::Fd(datagrams.as_raw_fd()), &raw const message).build())?;
    Ok(())
}

/// Does what no completion tells of; returns how many completions found no room.
fn silent(dir: &Path) -> anyhow::Result<u32> {
    const CWD: types::Fd = types::Fd(libc::AT_FDCWD);
    const OPERATIONS: u32 = 7;
    let mut ring = IoUring::new(2)?;
    let made = c_path(dir, "silent")?;
    let open = opcode::OpenAt::new(CWD, made.as_ptr()).flags(libc::O_RDWR | libc::O_CREAT).mode(0o600).build();
    let unlink = opcode::UnlinkAt::new(CWD, made.as_ptr()).build();
    for (entry, exists) in [(open, true), (unlink, false)] {
        // SAFETY: the kernel has its own copy of the path when the submission returns.
        unsafe { ring.submission().push(&entry.flags(Flags::SKIP_SUCCESS))? };
        ring.submit()?;
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(10);
        while dir.join("silent").exists() != exists {
            anyhow::ensure!(std::time::Instant::now() < deadline, "what was asked for silently was not done");
            std::thread::sleep(std::time::Duration::from_millis(1));
        }
    }
    for _ in 0..OPERATIONS {
        // SAFETY: the operation leads to nothing.
        unsafe { ring.submission().push(&opcode::Nop::new().build())? };
        ring.submit()?;
    }
    Ok(OPERATIONS - ring.completion().len() as u32)
}

fn main() -> anyhow::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [mode, dir, port] = &arguments[..] else { bail!("usage: uring plain|async|polled|silent DIR PORT") };
    if mode == "silent" {
        println!("{}", json!({"overflowed": silent(Path::new(dir))?}));
        return Ok(());
    }
    let (ring, flags) = match mode.as_str() {
        "plain" => (IoUring::new(8)?, Flags::empty()),
        "async" => (IoUring::new(8)?, Flags::ASYNC),
        "polled" => (IoUring::builder().setup_sqpoll(50).build(8)?, Flags::empty()),
        _ => bail!("{mode} is none of plain, async, polled, silent"),
    };
    let mut ring = Ring { ring, flags, results: Map::new() };
    files(&mut ring, &PathBuf::from(dir))?;
    network(&mut ring, port.parse()?)?;
    println!("{}", json!({"results": ring.results}));
    Ok(())
}
