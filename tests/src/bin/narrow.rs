//! Opens, connects, names and messages by 32-bit system calls (`int 0x80`) from a 64-bit process, and by 64-bit ones to compare with.
//!
//! - `narrow 32 DIR ADDRESS:PORT` and `narrow 64 DIR ADDRESS:PORT` do the same in either way, in the directory DIR with the
//!   file `plain`, and print one JSON object: `{"processes": [{"tgid", "opens"}], "connects"}`, as `opener` and `connector`
//!   do. They create the file `new` in DIR and remove it. The datagrams that they send go to the same address.
//! - `narrow probe` ends well where the kernel takes 32-bit calls; elsewhere a signal ends it.

use std::arch::asm;
use std::io::{self, IoSlice, Write};
use std::mem::MaybeUninit;
use std::net::SocketAddrV4;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::UnixDatagram;
use std::path::Path;

use anyhow::{Context, bail, ensure};
use rustix::net::{
    AddressFamily, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketFlags, SocketType, sendmsg, socket_with,
};
use serde_json::{Value, json};

/// Room for what the calls point to.
const ARENA_BYTES: usize = 64 * 1024;

/// Memory below 4 GiB, where alone a 32-bit call can point to.
struct Arena {
    start: *mut u8,
    used: usize,
}

impl Arena {
    fn new() -> anyhow::Result<Self> {
        let (access, kind) =
            (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_32BIT);
        // SAFETY: a new mapping, at an address of the kernel's choice.
        let start = unsafe { libc::mmap(std::ptr::null_mut(), ARENA_BYTES, access, kind, -1, 0) };
        ensure!(start != libc::MAP_FAILED, "mmap: {}", io::Error::last_os_error());
        Ok(Self { start: start.cast(), used: 0 })
    }

    /// Copies bytes into it, eight-byte aligned, and returns their address.
    fn put(&mut self, bytes: &[u8]) -> anyhow::Result<u32> {
        let at = self.used.next_multiple_of(8);
        ensure!(at + bytes.len() <= ARENA_BYTES, "more than {ARENA_BYTES} bytes");
        // SAFETY: the bytes fit, as has just been seen, and nothing else refers to this part of the mapping.
        let address = unsafe {
            let to = self.start.add(at);
            to.copy_from_nonoverlapping(bytes.as_ptr(), bytes.len());
            to.addr()
        };
        self.used = at + bytes.len();
        u32::try_from(address).context("the mapping lies above 4 GiB")
    }

    fn path(&mut self, path: &Path) -> anyhow::Result<u32> {
        let mut bytes = path.as_os_str().as_bytes().to_vec();
        bytes.push(0);
        self.put(&bytes)
    }
}

/// The calls, each by its number on i386 and on x86-64.
#[derive(Clone, Copy, Debug)]
enum Call {
    Close,
    Chmod,
    Chown,
    Connect,
    Creat,
    Ftruncate,
    Link,
    Mkdir,
    Open,
    Openat,
    Recvmsg,
    Rename,
    Rmdir,
    Sendmsg,
    Sendto,
    Setresuid,
    /// On x86-64 there is none: the plain call stands in, here and below.
    SocketcallConnect,
    SocketcallRecvmsg,
    SocketcallSendmsg,
    Symlink,
    Truncate,
    Unlink,
    Write,
}

/// The two ways in.
#[derive(Clone, Copy, Debug)]
enum Width {
    Narrow,
    Wide,
}

impl Width {
    /// Makes a call; returns what it returned, a negative errno for one that failed.
    fn call(self, call: Call, arguments: [u32; 6]) -> i32 {
        let (narrow_number, wide_number) = call.numbers();
        match self {
            Self::Narrow => narrow(narrow_number, arguments),
            Self::Wide => {
                let [a, b, c, d, e, f] = arguments.map(u64::from);
                // SAFETY: pointers among the arguments lead into the arena, which lives as long as the process.
                let result = unsafe { libc::syscall(wide_number, a, b, c, d, e, f) };
                if result >= 0 {
                    return i32::try_from(result).unwrap_or(i32::MAX);
                }
                -io::Error::last_os_error().raw_os_error().unwrap_or(libc::EIO)
            }
        }
    }

    /// Bytes of a pointer, and of all that is as long as one.
    fn word(self, value: u32) -> Vec<u8> {
        match self {
            Self::Narrow => value.to_ne_bytes().to_vec(),
            Self::Wide => u64::from(value).to_ne_bytes().to_vec(),
        }
    }
}

impl Call {
    /// Its number on i386 and on x86-64.
    fn numbers(self) -> (u32, libc::c_long) {
        match self {
            Self::Close => (6, libc::SYS_close),
            Self::Chmod => (15, libc::SYS_chmod),
            Self::Chown => (212, libc::SYS_chown),
            Self::Connect => (362, libc::SYS_connect),
            Self::Creat => (8, libc::SYS_creat),
            // The 64-bit kind of each: 194 and 193.
            Self::Ftruncate => (194, libc::SYS_ftruncate),
            Self::Link => (9, libc::SYS_link),
            Self::Mkdir => (39, libc::SYS_mkdir),
            Self::Open => (5, libc::SYS_open),
            Self::Openat => (295, libc::SYS_openat),
            Self::Recvmsg => (372, libc::SYS_recvmsg),
            Self::Rename => (38, libc::SYS_rename),
            Self::Rmdir => (40, libc::SYS_rmdir),
            Self::Sendmsg => (370, libc::SYS_sendmsg),
            Self::Sendto => (369, libc::SYS_sendto),
            Self::Setresuid => (208, libc::SYS_setresuid),
            Self::SocketcallConnect => (102, libc::SYS_connect),
            Self::SocketcallRecvmsg => (102, libc::SYS_recvmsg),
            Self::SocketcallSendmsg => (102, libc::SYS_sendmsg),
            Self::Symlink => (83, libc::SYS_symlink),
            Self::Truncate => (193, libc::SYS_truncate),
            Self::Unlink => (10, libc::SYS_unlink),
            Self::Write => (4, libc::SYS_write),
        }
    }

    /// Its number in `socketcall` (`linux/net.h`), where it is made by that.
    fn in_socketcall(self) -> Option<u32> {
        match self {
            Self::SocketcallConnect => Some(3),
            Self::SocketcallSendmsg => Some(16),
            Self::SocketcallRecvmsg => Some(17),
            _ => None,
        }
    }
}

/// A 32-bit call. The compiler keeps `rbx` and `rbp` for itself, so they are put back.
fn narrow(number: u32, arguments: [u32; 6]) -> i32 {
    let [first, second, third, fourth, fifth, sixth] = arguments.map(u64::from);
    let result: i32;
    // SAFETY: pointers among the arguments lead into the arena, which lives as long as the process; the kernel may clear the
    // registers that 32-bit code does not have. What is pushed is popped, and the stack not used otherwise in between.
    unsafe {
        asm!(
            "push rbx",
            "push rbp",
            "mov rbx, r8",
            "mov rbp, r9",
            "int 0x80",
            "pop rbp",
            "pop rbx",
            inlateout("eax") number => result,
            in("rcx") second,
            in("rdx") third,
            in("rsi") fourth,
            in("rdi") fifth,
            inlateout("r8") first => _,
            inlateout("r9") sixth => _,
            out("r10") _,
            out("r11") _,
        );
    }
    result
}

struct Worker {
    width: Width,
    arena: Arena,
    opens: Vec<Value>,
    connects: Vec<Value>,
}

impl Worker {
    /// Makes an open, says so, and returns the descriptor; nothing where it failed as it should.
    fn open(
        &mut self,
        call: Call,
        arguments: [u32; 6],
        path: &Path,
        access: &str,
        errno: Option<(&str, i32)>,
    ) -> anyhow::Result<Option<u32>> {
        let result = self.width.call(call, arguments);
        let expected = errno.map_or(result.max(0), |(_, number)| -number);
        ensure!(result == expected, "{call:?} of {} gives {result}", path.display());
        let name = errno.map(|(name, _)| name);
        self.opens.push(json!({"path": path, "access": access, "count": 1, "errno": name}));
        Ok(u32::try_from(result).ok())
    }

    fn opens(&mut self, dir: &Path) -> anyhow::Result<()> {
        const AT_FDCWD: u32 = libc::AT_FDCWD.cast_unsigned();
        let flags = |flags: i32| flags.cast_unsigned();
        let (read, write, both) = (flags(libc::O_RDONLY), flags(libc::O_WRONLY), flags(libc::O_RDWR));
        let (plain, new, missing) = (dir.join("plain"), dir.join("new"), dir.join("missing"));
        let (dir_at, plain_at, relative_at) =
            (self.arena.path(dir)?, self.arena.path(&plain)?, self.arena.path(Path::new("plain"))?);
        let (new_at, missing_at) = (self.arena.path(&new)?, self.arena.path(&missing)?);

        self.open(Call::Openat, [AT_FDCWD, plain_at, read, 0, 0, 0], &plain, "r", None)?;
        self.open(Call::Open, [plain_at, write, 0, 0, 0, 0], &plain, "w", None)?;
        let at = self.open(Call::Open, [dir_at, read, 0, 0, 0, 0], dir, "r", None)?.context("no descriptor")?;
        self.open(Call::Openat, [at, relative_at, both, 0, 0, 0], &plain, "rw", None)?;
        ensure!(self.width.call(Call::Close, [at, 0, 0, 0, 0, 0]) == 0, "close");
        self.open(Call::Creat, [new_at, 0o600, 0, 0, 0, 0], &new, "w", None)?;
        std::fs::remove_file(&new)?;
        self.open(Call::Open, [missing_at, read, 0, 0, 0, 0], &missing, "r", Some(("ENOENT", libc::ENOENT)))?;
        Ok(())
    }

    /// Makes a call, by `socketcall` where it is one of that.
    fn made(&mut self, call: Call, mut arguments: [u32; 6]) -> anyhow::Result<i32> {
        if let (Width::Narrow, Some(number)) = (self.width, call.in_socketcall()) {
            let of_call: Vec<u8> = arguments.iter().flat_map(|argument| argument.to_ne_bytes()).collect();
            arguments = [number, self.arena.put(&of_call)?, 0, 0, 0, 0];
        }
        Ok(self.width.call(call, arguments))
    }

    /// Makes a call that must succeed.
    fn done(&mut self, call: Call, arguments: [u32; 6]) -> anyhow::Result<u32> {
        let result = self.made(call, arguments)?;
        u32::try_from(result).with_context(|| format!("{call:?} gives {result}"))
    }

    fn names(&mut self, dir: &Path) -> anyhow::Result<()> {
        let mut at = |name: &str| self.arena.path(&dir.join(name));
        let (plain, one, two, sub, link) = (at("plain")?, at("one")?, at("two")?, at("made")?, at("soft")?);
        self.done(Call::Link, [plain, one, 0, 0, 0, 0])?;
        self.done(Call::Rename, [one, two, 0, 0, 0, 0])?;
        self.done(Call::Chmod, [two, 0o640, 0, 0, 0, 0])?;
        self.done(Call::Chown, [two, u32::MAX, u32::MAX, 0, 0, 0])?;
        self.done(Call::Truncate, [two, 3, 0, 0, 0, 0])?;
        self.done(Call::Symlink, [two, link, 0, 0, 0, 0])?;
        self.done(Call::Mkdir, [sub, 0o700, 0, 0, 0, 0])?;
        self.done(Call::Rmdir, [sub, 0, 0, 0, 0, 0])?;
        let fd = self.done(Call::Open, [two, libc::O_WRONLY.cast_unsigned(), 0, 0, 0, 0])?;
        self.opens.push(json!({"path": dir.join("two"), "access": "w", "count": 1, "errno": null}));
        self.done(Call::Ftruncate, [fd, 2, 0, 0, 0, 0])?;
        self.done(Call::Write, [fd, two, 5, 0, 0, 0])?;
        self.done(Call::Close, [fd, 0, 0, 0, 0, 0])?;
        self.done(Call::Unlink, [two, 0, 0, 0, 0, 0])?;
        self.done(Call::Unlink, [link, 0, 0, 0, 0, 0])?;
        self.done(Call::Setresuid, [u32::MAX, u32::MAX, u32::MAX, 0, 0, 0])?;
        Ok(())
    }

    /// A `struct msghdr` with one byte of data.
    fn message(&mut self, name: &[u8], control: &[u8]) -> anyhow::Result<u32> {
        let (byte, name_at) = (self.arena.put(b"x")?, self.arena.put(name)?);
        let control_at = self.arena.put(control)?;
        let word = |value: u32| self.width.word(value);
        let part = [word(byte), word(1)].concat();
        let part = self.arena.put(&part)?;
        let lengths = [name.len(), control.len()].map(u32::try_from);
        let [name_len, control_len] = [lengths[0]?, lengths[1]?];
        let word = |value: u32| self.width.word(value);
        let named = if name.is_empty() { 0 } else { name_at };
        // An int, and in the 64-bit structure what aligns the next word.
        let message = [word(named), word(name_len), word(part), word(1), word(control_at), word(control_len), word(0)];
        self.arena.put(&message.concat())
    }

    /// Two datagrams, by the call's own number and by `socketcall`; and two descriptors received likewise.
    fn messages(&mut self, dir: &Path, target: SocketAddrV4) -> anyhow::Result<()> {
        let datagrams = socket_with(AddressFamily::INET, SocketType::DGRAM, SocketFlags::CLOEXEC, None)?;
        let fd = datagrams.as_raw_fd().cast_unsigned();
        let mut name = vec![2, 0];
        name.extend(target.port().to_be_bytes());
        name.extend(target.ip().octets());
        name.extend([0; 8]);
        let message = self.message(&name, &[])?;
        for call in [Call::Sendmsg, Call::SocketcallSendmsg] {
            ensure!(self.done(call, [fd, message, 0, 0, 0, 0])? == 1, "{call:?}");
        }
        let address = self.arena.put(&name)?;
        self.done(Call::Sendto, [fd, address, 1, 0, address, 16])?;
        let plain = std::fs::File::open(dir.join("plain"))?;
        let (from, to) = UnixDatagram::pair()?;
        for call in [Call::Recvmsg, Call::SocketcallRecvmsg] {
            let mut room = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
            let mut control = SendAncillaryBuffer::new(&mut room);
            let descriptors = [plain.as_fd()];
            ensure!(control.push(SendAncillaryMessage::ScmRights(&descriptors)), "no room for a descriptor");
            sendmsg(&from, &[IoSlice::new(b"x")], &mut control, SendFlags::empty())?;
            let message = self.message(&[], &[0; 64])?;
            self.done(call, [to.as_raw_fd().cast_unsigned(), message, 0, 0, 0, 0])?;
        }
        // As the first open of all was.
        if let Some(first) = self.opens.first_mut() {
            first["count"] = json!(2);
        }
        Ok(())
    }

    fn connect(&mut self, call: Call, target: SocketAddrV4) -> anyhow::Result<()> {
        let socket = socket_with(AddressFamily::INET, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
        let fd = socket.as_raw_fd().cast_unsigned();
        // struct sockaddr_in: the family in the host's order, port and address in the network's, zeroes.
        let mut address = vec![2, 0];
        address.extend(target.port().to_be_bytes());
        address.extend(target.ip().octets());
        address.extend([0; 8]);
        let length = u32::try_from(address.len())?;
        let address = self.arena.put(&address)?;
        let result = self.made(call, [fd, address, length, 0, 0, 0])?;
        ensure!(result == 0, "{call:?} to {target} gives {result}");
        let (ip, port) = (target.ip().to_string(), target.port());
        let said = json!({"transport": "tcp", "type": "ipv4", "address": ip, "port": port, "errno": null});
        self.connects.push(said);
        Ok(())
    }
}

fn work(width: Width, dir: &Path, target: &str) -> anyhow::Result<()> {
    let target: SocketAddrV4 = target.parse().with_context(|| format!("{target} is no ADDRESS:PORT"))?;
    let mut worker = Worker { width, arena: Arena::new()?, opens: Vec::new(), connects: Vec::new() };
    worker.opens(dir)?;
    worker.connect(Call::Connect, target)?;
    worker.connect(Call::SocketcallConnect, target)?;
    worker.names(dir)?;
    worker.messages(dir, target)?;
    let process = json!({"tgid": std::process::id(), "opens": worker.opens});
    writeln!(io::stdout(), "{}", json!({"processes": [process], "connects": worker.connects}))?;
    Ok(())
}

fn probe() -> anyhow::Result<()> {
    const GETPID: u32 = 20;
    let tgid = narrow(GETPID, [0; 6]);
    ensure!(tgid.cast_unsigned() == std::process::id(), "getpid gives {tgid}");
    Ok(())
}

fn main() -> anyhow::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["32", dir, target] => work(Width::Narrow, Path::new(dir), target),
        ["64", dir, target] => work(Width::Wide, Path::new(dir), target),
        ["probe"] => probe(),
        _ => bail!("usage: narrow 32|64 DIR ADDRESS:PORT | probe"),
    }
}
