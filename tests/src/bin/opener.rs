//! Opens files in known ways and says exactly what it opened.
//!
//! Each form prints one JSON object, `{"processes": [{"tgid", "opens": [{"path", "access", "count", "errno"}]}]}`:
//! absolute paths, `access` as the contract writes it, `errno` a name or null. What the program's own loader opens is not
//! in it.
//!
//! - `opener repeats DIR FILES REPEATS THREADS ACCESS,... [PROCESSES]` opens each of `DIR/f0 ... DIR/fN` REPEATS times in
//!   each access mode, the threads sharing the repeats; with PROCESSES, in that many processes.
//! - `opener ways DIR` opens what stands in DIR in every way that names a file otherwise than by its absolute path.
//! - `opener nameless` opens a pipe, a socket and an eventfd of its own through `/proc/self/fd`, named as the kernel does.
//! - `opener fail DIR` fails in every way that is easily had. Wants root for `EACCES`.

use std::ffi::{CStr, CString, c_int};
use std::io::{self, Write};
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, bail, ensure};
use rustix::event::EventfdFlags;
use rustix::fs::{Mode, OFlags, ResolveFlags};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};
use rustix::pipe::PipeFlags;
use serde_json::{Value, json};

/// The access modes that the contract names, with the flag that asks for each.
const ACCESS: [(&str, c_int); 3] = [("r", libc::O_RDONLY), ("w", libc::O_WRONLY), ("rw", libc::O_RDWR)];
/// A user that owns nothing.
const NOBODY: u32 = 65534;

fn print(opens: &[Value]) -> anyhow::Result<()> {
    let process = json!({"tgid": std::process::id(), "opens": opens});
    writeln!(io::stdout(), "{}", json!({"processes": [process]}))?;
    Ok(())
}

fn repeats(dir: &Path, files: usize, repeats: usize, threads: usize, names: &str) -> anyhow::Result<()> {
    let modes: Option<Vec<_>> =
        names.split(',').map(|name| ACCESS.into_iter().find(|(known, _)| *known == name)).collect();
    let modes = modes.context("no such access mode")?;
    let mut paths = Vec::with_capacity(files);
    for number in 0..files {
        paths.push(CString::new(dir.join(format!("f{number}")).as_os_str().as_bytes())?);
    }

    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..threads)
            .map(|first| {
                let (paths, modes) = (&paths, &modes);
                scope.spawn(move || open_each(paths, modes, (first..repeats).step_by(threads).count()))
            })
            .collect();
        workers.into_iter().try_for_each(|worker| worker.join().unwrap_or_else(|_| bail!("a thread panicked")))
    })?;

    let opened = paths.iter().flat_map(|path| {
        let path = path.to_string_lossy();
        modes.iter().map(move |(access, _)| json!({"path": path, "access": access, "count": repeats, "errno": null}))
    });
    print(&opened.collect::<Vec<_>>())
}

/// Allocates nothing, so that a thread opens nothing but what it is asked to.
fn open_each(paths: &[CString], modes: &[(&str, c_int)], times: usize) -> anyhow::Result<()> {
    for _ in 0..times {
        for path in paths {
            for (_, flag) in modes {
                open_once(path, *flag)?;
            }
        }
    }
    Ok(())
}

fn open_once(path: &CStr, flags: c_int) -> anyhow::Result<()> {
    // SAFETY: `path` ends with a zero byte; the descriptor is closed here and nowhere else.
    let opened = unsafe {
        let fd = libc::open(path.as_ptr(), flags | libc::O_CLOEXEC);
        fd >= 0 && libc::close(fd) == 0
    };
    ensure!(opened, "{}: {}", path.to_string_lossy(), io::Error::last_os_error());
    Ok(())
}

/// Runs the same in `processes` processes and joins what they say.
fn in_processes(processes: usize, arguments: &[String]) -> anyhow::Result<()> {
    let program = std::env::current_exe()?;
    let started: Result<Vec<_>, _> =
        (0..processes).map(|_| Command::new(&program).args(arguments).stdout(Stdio::piped()).spawn()).collect();
    let mut all = Vec::new();
    for child in started? {
        let output = child.wait_with_output()?;
        ensure!(output.status.success(), "a process ended with {}", output.status);
        let said: Value = serde_json::from_slice(&output.stdout)?;
        all.extend(said["processes"].as_array().context("a process said nothing")?.iter().cloned());
    }
    writeln!(io::stdout(), "{}", json!({"processes": all}))?;
    Ok(())
}

/// Every way but the absolute path. What stands in `dir`: the file `plain`, the directory `sub` with the file `inner`,
/// the links `link -> plain` and `up -> sub/../plain`.
fn ways(dir: &Path) -> anyhow::Result<()> {
    let mut opens = Vec::new();
    let mut note = |name: &str, access: &str| {
        let path = if name.is_empty() { dir.to_owned() } else { dir.join(name) };
        opens.push(json!({"path": path, "access": access, "count": 1, "errno": null}));
    };
    let (read, none) = (OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty());

    let at = rustix::fs::open(dir, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, none)?;
    note("", "path");
    rustix::fs::openat(&at, "plain", read, none)?;
    note("plain", "r");
    std::env::set_current_dir(dir.join("sub"))?;
    rustix::fs::open("inner", read, none)?;
    note("sub/inner", "r");
    rustix::fs::open("../plain", OFlags::WRONLY | OFlags::CLOEXEC, none)?;
    note("plain", "w");
    rustix::fs::open(dir.join("link"), OFlags::RDWR | OFlags::CLOEXEC, none)?;
    note("plain", "rw");
    rustix::fs::open(dir.join("link"), OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, none)?;
    note("link", "path");
    rustix::fs::open(dir.join("up"), OFlags::PATH | OFlags::CLOEXEC, none)?;
    note("plain", "path");
    rustix::fs::openat2(&at, "sub/inner", OFlags::WRONLY | OFlags::CLOEXEC, none, ResolveFlags::BENEATH)?;
    note("sub/inner", "w");
    rustix::fs::openat2(&at, "/sub/inner", OFlags::RDWR | OFlags::CLOEXEC, none, ResolveFlags::IN_ROOT)?;
    note("sub/inner", "rw");
    rustix::fs::open(dir.join("./sub//../sub/."), read | OFlags::DIRECTORY, none)?;
    note("sub", "r");
    print(&opens)
}

/// What has no path: opened again by its descriptor. Of a socket and an eventfd only the place can be had.
fn nameless() -> anyhow::Result<()> {
    let (reader, writer) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC)?;
    let socket = socket_with(AddressFamily::INET, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
    let event = rustix::event::eventfd(0, EventfdFlags::CLOEXEC)?;
    let mut opens = Vec::new();
    let (read, write, path) = (OFlags::RDONLY, OFlags::WRONLY, OFlags::PATH);
    for (fd, flags, access) in
        [(&reader, read, "r"), (&writer, write, "w"), (&socket, path, "path"), (&event, path, "path")]
    {
        let link = format!("/proc/self/fd/{}", fd.as_raw_fd());
        let name = std::fs::read_link(&link)?;
        rustix::fs::open(&link, flags | OFlags::CLOEXEC, Mode::empty()).with_context(|| link)?;
        opens.push(json!({"path": name, "access": access, "count": 1, "errno": null}));
    }
    print(&opens)
}

/// What stands in `dir`: the file `plain`, the directory `sub`, the link `loop -> loop`, the FIFO `fifo` that nobody
/// reads, the file `secret` that only its owner may read.
fn fail(dir: &Path) -> anyhow::Result<()> {
    let long = "n".repeat(256);
    let cases = [
        ("missing", OFlags::RDONLY, "r", "ENOENT"),
        ("sub/missing", OFlags::WRONLY, "w", "ENOENT"),
        ("plain/below", OFlags::RDONLY, "r", "ENOTDIR"),
        ("loop", OFlags::RDONLY, "r", "ELOOP"),
        ("sub", OFlags::WRONLY, "w", "EISDIR"),
        ("fifo", OFlags::WRONLY.union(OFlags::NONBLOCK), "w", "ENXIO"),
        ("plain", OFlags::RDWR.union(OFlags::CREATE).union(OFlags::EXCL), "rw", "EEXIST"),
        (&long, OFlags::RDONLY, "r", "ENAMETOOLONG"),
        ("secret", OFlags::RDONLY, "r", "EACCES"),
    ];
    let mut opens = Vec::new();
    for (name, flags, access, errno) in cases {
        let path = dir.join(name);
        if errno == "EACCES" {
            // Root is refused nothing. Only the effective user changes, this is the last case, and the process ends with it.
            // SAFETY: a plain system call.
            ensure!(unsafe { libc::seteuid(NOBODY) } == 0, "seteuid: {}", io::Error::last_os_error());
        }
        match rustix::fs::open(&path, flags | OFlags::CLOEXEC, Mode::empty()) {
            Ok(_) => bail!("{} opened, and should have failed with {errno}", path.display()),
            Err(error) => {
                let expected = expected_errno(errno)?;
                ensure!(error == expected, "{}: {error}, and should have been {errno}", path.display());
            }
        }
        opens.push(json!({"path": path, "access": access, "count": 1, "errno": errno}));
    }
    print(&opens)
}

fn expected_errno(name: &str) -> anyhow::Result<rustix::io::Errno> {
    use rustix::io::Errno;
    Ok(match name {
        "ENOENT" => Errno::NOENT,
        "ENOTDIR" => Errno::NOTDIR,
        "ELOOP" => Errno::LOOP,
        "EISDIR" => Errno::ISDIR,
        "ENXIO" => Errno::NXIO,
        "EEXIST" => Errno::EXIST,
        "ENAMETOOLONG" => Errno::NAMETOOLONG,
        "EACCES" => Errno::ACCESS,
        _ => bail!("{name} is in no case"),
    })
}

fn main() -> anyhow::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["repeats", dir, files, times, threads, modes] => {
            repeats(Path::new(dir), files.parse()?, times.parse()?, threads.parse()?, modes)
        }
        ["repeats", .., processes] => in_processes(processes.parse()?, &arguments[..arguments.len() - 1]),
        ["ways", dir] => ways(Path::new(dir)),
        ["nameless"] => nameless(),
        ["fail", dir] => fail(Path::new(dir)),
        _ => bail!(
            "usage: opener repeats DIR FILES REPEATS THREADS ACCESS,... [PROCESSES] | ways DIR | nameless | fail DIR"
        ),
    }
}
