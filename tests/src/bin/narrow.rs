//! Opens and connects by 32-bit system calls (`int 0x80`) from a 64-bit process, and by 64-bit ones to compare with.
//!
//! - `narrow 32 DIR ADDRESS:PORT` and `narrow 64 DIR ADDRESS:PORT` do the same in either way, in the directory DIR with the
//!   file `plain`, and print one JSON object: `{"processes": [{"tgid", "opens"}], "connects"}`, as `opener` and `connector`
//!   do. They create the file `new` in DIR and remove it.
//! - `narrow probe` ends well where the kernel takes 32-bit calls; elsewhere a signal ends it.

use std::arch::asm;
use std::io::{self, Write};
use std::net::SocketAddrV4;
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use anyhow::{Context, bail, ensure};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};
use serde_json::{Value, json};

/// Room for what the calls point to.
const ARENA_BYTES: usize = 64 * 1024;
/// `SYS_CONNECT` of `linux/net.h`: which call `socketcall` is to make.
const SOCKETCALL_CONNECT: u32 = 3;

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
    Connect,
    Creat,
    Open,
    Openat,
    /// On x86-64 there is none: a plain connect stands in.
    SocketcallConnect,
}

/// The two ways in.
#[derive(Clone, Copy, Debug)]
enum Width {
    Narrow,
    Wide,
}

impl Width {
    /// Makes a call; returns what it returned, a negative errno for one that failed.
    fn call(self, call: Call, arguments: [u32; 3]) -> i32 {
        let [first, second, third] = arguments;
        match self {
            Self::Narrow => {
                let number = match call {
                    Call::Open => 5,
                    Call::Close => 6,
                    Call::Creat => 8,
                    Call::SocketcallConnect => 102,
                    Call::Openat => 295,
                    Call::Connect => 362,
                };
                narrow(number, arguments)
            }
            Self::Wide => {
                let number = match call {
                    Call::Open => libc::SYS_open,
                    Call::Close => libc::SYS_close,
                    Call::Creat => libc::SYS_creat,
                    Call::Openat => libc::SYS_openat,
                    Call::Connect | Call::SocketcallConnect => libc::SYS_connect,
                };
                // SAFETY: pointers among the arguments lead into the arena, which lives as long as the process.
                let result = unsafe { libc::syscall(number, u64::from(first), u64::from(second), u64::from(third)) };
                if result >= 0 {
                    return i32::try_from(result).unwrap_or(i32::MAX);
                }
                -io::Error::last_os_error().raw_os_error().unwrap_or(libc::EIO)
            }
        }
    }
}

/// A 32-bit call. The compiler keeps `rbx` for itself, so it is put back.
fn narrow(number: u32, arguments: [u32; 3]) -> i32 {
    let [first, second, third] = arguments;
    let result: i32;
    // SAFETY: pointers among the arguments lead into the arena, which lives as long as the process; the kernel may clear the
    // registers that 32-bit code does not have.
    unsafe {
        asm!(
            "xchg {first:r}, rbx",
            "int 0x80",
            "xchg {first:r}, rbx",
            first = inout(reg) u64::from(first) => _,
            inlateout("eax") number => result,
            in("ecx") second,
            in("edx") third,
            in("esi") 0,
            in("edi") 0,
            out("r8") _,
            out("r9") _,
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
        arguments: [u32; 3],
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

        self.open(Call::Openat, [AT_FDCWD, plain_at, read], &plain, "r", None)?;
        self.open(Call::Open, [plain_at, write, 0], &plain, "w", None)?;
        let at = self.open(Call::Open, [dir_at, read, 0], dir, "r", None)?.context("no descriptor")?;
        self.open(Call::Openat, [at, relative_at, both], &plain, "rw", None)?;
        ensure!(self.width.call(Call::Close, [at, 0, 0]) == 0, "close");
        self.open(Call::Creat, [new_at, 0o600, 0], &new, "w", None)?;
        std::fs::remove_file(&new)?;
        self.open(Call::Open, [missing_at, read, 0], &missing, "r", Some(("ENOENT", libc::ENOENT)))?;
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
        let mut arguments = [fd, address, length];
        if let (Width::Narrow, Call::SocketcallConnect) = (self.width, call) {
            let of_call: Vec<u8> = arguments.iter().flat_map(|argument| argument.to_ne_bytes()).collect();
            arguments = [SOCKETCALL_CONNECT, self.arena.put(&of_call)?, 0];
        }
        let result = self.width.call(call, arguments);
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
    let process = json!({"tgid": std::process::id(), "opens": worker.opens});
    writeln!(io::stdout(), "{}", json!({"processes": [process], "connects": worker.connects}))?;
    Ok(())
}

fn probe() -> anyhow::Result<()> {
    const GETPID: u32 = 20;
    let tgid = narrow(GETPID, [0; 3]);
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
