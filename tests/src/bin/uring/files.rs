//! Files: opened, read, written, changed, by descriptors, by places in the table of fixed files, and by paths.

use std::ffi::CString;
use std::os::fd::{AsRawFd, RawFd};
use std::path::Path;

use io_uring::squeue::Entry;
use io_uring::types::{DestinationSlot, Fd, Fixed};
use io_uring::{opcode, types};

use crate::ring::Ring;

const CWD: Fd = types::Fd(libc::AT_FDCWD);

pub(crate) fn c_path(dir: &Path, name: &str) -> anyhow::Result<CString> {
    Ok(CString::new(dir.join(name).into_os_string().into_encoded_bytes())?)
}

fn open(path: &CString, flags: i32, slot: Option<DestinationSlot>) -> Entry {
    opcode::OpenAt::new(CWD, path.as_ptr()).flags(flags).mode(0o600).file_index(slot).build()
}

/// What succeeds, by paths and descriptors.
pub(crate) fn files(ring: &mut Ring, dir: &Path) -> anyhow::Result<()> {
    let path = |name: &str| c_path(dir, name);
    let (made, old, new) = (path("made")?, path("old")?, path("new")?);
    let fd: RawFd = ring.run("OPENAT", open(&made, libc::O_RDWR | libc::O_CREAT, None))?;
    ring.run("WRITE", opcode::Write::new(types::Fd(fd), b"written".as_ptr(), 7).offset(0).build())?;
    let mut room = [0u8; 16];
    ring.run("READ", opcode::Read::new(types::Fd(fd), room.as_mut_ptr(), 16).offset(0).build())?;
    ring.run("FALLOCATE", opcode::Fallocate::new(types::Fd(fd), 96).offset(4).build())?;
    ring.run("FTRUNCATE", opcode::Ftruncate::new(types::Fd(fd), 7).build())?;
    let (by_path, by_file) = (c"user.by_path", c"user.by_file");
    let set = opcode::SetXattr::new(by_path.as_ptr(), b"1".as_ptr().cast(), made.as_ptr(), 1);
    ring.run("SETXATTR", set.build())?;
    let set = opcode::FSetXattr::new(types::Fd(fd), by_file.as_ptr(), b"1".as_ptr().cast(), 1);
    ring.run("FSETXATTR", set.build())?;
    ring.run("LINKAT", opcode::LinkAt::new(CWD, made.as_ptr(), CWD, old.as_ptr()).build())?;
    ring.run("RENAMEAT", opcode::RenameAt::new(CWD, old.as_ptr(), CWD, new.as_ptr()).build())?;
    ring.run("UNLINKAT", opcode::UnlinkAt::new(CWD, new.as_ptr()).build())?;
    let (sub, link, gone) = (path("sub")?, path("link")?, path("gone")?);
    ring.run("MKDIRAT", opcode::MkDirAt::new(CWD, sub.as_ptr()).mode(0o700).build())?;
    ring.run("MKDIRAT", opcode::MkDirAt::new(CWD, gone.as_ptr()).mode(0o700).build())?;
    let remove = opcode::UnlinkAt::new(CWD, gone.as_ptr()).flags(libc::AT_REMOVEDIR).build();
    ring.run("UNLINKAT", remove)?;
    ring.run("SYMLINKAT", opcode::SymlinkAt::new(CWD, c"made".as_ptr(), link.as_ptr()).build())?;
    ring.run("CLOSE", opcode::Close::new(types::Fd(fd)).build())?;
    Ok(())
}

/// What fails.
pub(crate) fn failures(ring: &mut Ring, dir: &Path) -> anyhow::Result<()> {
    let path = |name: &str| c_path(dir, name);
    let (absent, sub, made) = (path("absent")?, path("sub")?, path("made")?);
    // Longer than what most paths take.
    let long = path(&format!("{}/absent", "sub/../".repeat(300)))?;
    ring.fail("OPENAT", libc::ENOENT, open(&absent, libc::O_RDONLY, None))?;
    ring.fail("OPENAT", libc::EISDIR, open(&sub, libc::O_WRONLY, None))?;
    ring.fail("UNLINKAT", libc::ENOENT, opcode::UnlinkAt::new(CWD, absent.as_ptr()).build())?;
    ring.fail("UNLINKAT", libc::ENOENT, opcode::UnlinkAt::new(CWD, long.as_ptr()).build())?;
    ring.fail("UNLINKAT", libc::EISDIR, opcode::UnlinkAt::new(CWD, sub.as_ptr()).build())?;
    let rename = opcode::RenameAt::new(CWD, sub.as_ptr(), CWD, made.as_ptr()).build();
    ring.fail("RENAMEAT", libc::ENOTDIR, rename)?;
    ring.fail("LINKAT", libc::EEXIST, opcode::LinkAt::new(CWD, made.as_ptr(), CWD, sub.as_ptr()).build())?;
    ring.fail("MKDIRAT", libc::EEXIST, opcode::MkDirAt::new(CWD, made.as_ptr()).build())?;
    ring.fail("SYMLINKAT", libc::EEXIST, opcode::SymlinkAt::new(CWD, c"x".as_ptr(), made.as_ptr()).build())?;
    let set = opcode::SetXattr::new(c"none.x".as_ptr(), b"1".as_ptr().cast(), made.as_ptr(), 1);
    ring.fail("SETXATTR", libc::EOPNOTSUPP, set.build())?;
    Ok(())
}

/// Files that never have a descriptor.
pub(crate) fn fixed(ring: &mut Ring, dir: &Path) -> anyhow::Result<()> {
    ring.ring.submitter().register_files_sparse(4)?;
    let path = c_path(dir, "fixed")?;
    let place = DestinationSlot::try_from_slot_target(2).ok();
    ring.run("OPENAT", open(&path, libc::O_RDWR | libc::O_CREAT, place))?;
    ring.run("WRITE", opcode::Write::new(Fixed(2), b"fixed".as_ptr(), 5).offset(0).build())?;
    let free = ring.run("OPENAT", open(&path, libc::O_RDONLY, Some(DestinationSlot::auto_target())))?;
    let free = u32::try_from(free)?;
    let mut room = [0u8; 16];
    ring.run("READ", opcode::Read::new(Fixed(free), room.as_mut_ptr(), 16).offset(0).build())?;
    splice(ring, dir, free)
}

/// Five bytes from a fixed file by a pipe to another.
fn splice(ring: &mut Ring, dir: &Path, from: u32) -> anyhow::Result<()> {
    const HERE: i64 = -1;
    let (reader, writer) = std::io::pipe()?;
    let into = opcode::Splice::new(Fixed(from), 0, types::Fd(writer.as_raw_fd()), HERE, 5).build();
    ring.run("SPLICE", into)?;
    let spliced = std::fs::File::create(dir.join("spliced"))?;
    let out = opcode::Splice::new(types::Fd(reader.as_raw_fd()), HERE, types::Fd(spliced.as_raw_fd()), 0, 5);
    ring.run("SPLICE", out.build())?;
    Ok(())
}
