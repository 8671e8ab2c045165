//! Absolute paths, as the kernel holds them: dentry by dentry to the mount's root, mount by mount to the namespace's.

use core::ffi::c_void;
use core::hint::black_box;

use aya_ebpf::helpers::generated::{bpf_loop, bpf_probe_read_kernel};

use super::hash::hash_of_end;
use super::offsets::{
    DENTRY_HASH_PPREV, DENTRY_NAME, DENTRY_PARENT, MOUNT_MNT, MOUNT_MOUNTPOINT, MOUNT_NS, MOUNT_PARENT, VFSMOUNT_ROOT,
};
use super::{Unreadable, read, read_at};
use crate::maps::{PATH_BYTES, Scratch};

/// A place in the tree of files: `struct path`.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Place {
    /// A `struct vfsmount`.
    pub mnt: u64,
    /// A `struct dentry`.
    pub dentry: u64,
}

/// A path in the scratch buffer: `len_bytes` bytes from `start` on.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Resolved {
    /// Where it starts in [`Scratch::path`].
    pub start: u32,
    /// How long it is.
    pub len_bytes: u32,
    /// Whether names were left out at its beginning, for want of room.
    pub cut: bool,
    /// Whether the walk ended at the root of a mount that hangs nowhere.
    pub unreachable: bool,
    /// A keyed hash of it.
    pub hash: u64,
}

/// More steps than any path has: `PATH_MAX / 2` names, and mounts.
const MOST_STEPS: u32 = 2_200;
const NAME_BYTES: u32 = 255;
const NO_STEP: u64 = 0;

#[repr(C)]
struct Walk {
    mnt: u64,
    root: u64,
    dentry: u64,
    path: *mut u8,
    start: u32,
    end: End,
}

#[repr(u32)]
#[derive(Clone, Copy, PartialEq)]
enum End {
    NotYet = 0,
    Root = 1,
    Unreachable = 2,
    Full = 3,
    Unreadable = 4,
}

extern "C" fn step(_index: u64, walk: *mut Walk) -> i64 {
    const GO_ON: i64 = 0;
    const STOP: i64 = 1;
    // SAFETY: `bpf_loop` hands on the pointer that `resolve` gave it.
    let walk = unsafe { &mut *walk };
    match try_step(walk) {
        Ok(End::NotYet) => GO_ON,
        Ok(end) => {
            walk.end = end;
            STOP
        }
        Err(Unreadable) => {
            walk.end = End::Unreadable;
            STOP
        }
    }
}

#[inline(always)]
fn try_step(walk: &mut Walk) -> Result<End, Unreadable> {
    let parent: u64 = read(walk.dentry, &DENTRY_PARENT)?;
    if walk.dentry == walk.root {
        let mount = walk.mnt - MOUNT_MNT.load();
        let above: u64 = read(mount, &MOUNT_PARENT)?;
        if above == mount {
            return Ok(End::Root);
        }
        walk.dentry = read(mount, &MOUNT_MOUNTPOINT)?;
        walk.mnt = above + MOUNT_MNT.load();
        walk.root = read(walk.mnt, &VFSMOUNT_ROOT)?;
        return Ok(End::NotYet);
    }
    // struct qstr: { u32 hash, u32 len } and the name's address.
    let [hash_len, name]: [u64; 2] = read(walk.dentry, &DENTRY_NAME)?;
    let len = (hash_len >> 32) as u32;
    let len = if len > NAME_BYTES { NAME_BYTES } else { len };
    if walk.start < len + 1 {
        return Ok(End::Full);
    }
    let start = walk.start - len - 1;
    let slash = (black_box(start) & (PATH_BYTES as u32 - 1)) as usize;
    let at = slash + 1;
    // SAFETY: `slash` is less than PATH_BYTES, and a name at most 255 bytes: the buffer is twice as long.
    let failed = unsafe {
        *walk.path.add(slash) = b'/';
        bpf_probe_read_kernel(walk.path.add(at).cast(), black_box(len) & NAME_BYTES, name as *const c_void)
    };
    if failed != 0 {
        return Err(Unreadable);
    }
    walk.start = start;
    if parent == walk.dentry {
        // A root that its mount does not know: a memfd, say, whose own name is all there is.
        return Ok(End::Unreachable);
    }
    walk.dentry = parent;
    Ok(End::NotYet)
}

/// Writes the absolute path of a place into the scratch buffer.
#[inline(always)]
pub fn resolve(place: Place, scratch: *mut Scratch) -> Result<Resolved, Unreadable> {
    const TO_ITS_MOUNTS: u32 = 0;
    walk(place, TO_ITS_MOUNTS, scratch)
}

/// Writes the path of a place from the root of its file system into the scratch buffer. It begins with two slashes more:
/// the root's own name is one.
#[inline(always)]
pub fn resolve_within(place: Place, scratch: *mut Scratch) -> Result<Resolved, Unreadable> {
    const NO_MOUNT_ENDS_IT: u32 = 1;
    walk(place, NO_MOUNT_ENDS_IT, scratch)
}

#[inline(always)]
fn walk(place: Place, within: u32, scratch: *mut Scratch) -> Result<Resolved, Unreadable> {
    // SAFETY: `scratch` is a map's value. By way of its memory typed pointers become numbers.
    unsafe {
        (*scratch).from = place;
        match write_path((*scratch).place, within) {
            0 => Err(Unreadable),
            _ => Ok((*scratch).resolved),
        }
    }
}

/// Writes the path of the place in the scratch buffer beside it, with what is known of it; 0 where the kernel's memory could
/// not be read.
///
/// By numbers alone, so that the verifier goes through it once for each program, not once for each way that leads to it.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn write_path(scratch: u32, within: u32) -> u32 {
    let Some(scratch) = Scratch::at(scratch) else { return 0 };
    // SAFETY: `scratch` is a map's value.
    let (Place { mnt, dentry }, path) =
        unsafe { ((*scratch).from, core::ptr::addr_of_mut!((*scratch).path).cast::<u8>()) };
    let root = if within == 0 { read(mnt, &VFSMOUNT_ROOT) } else { Ok(0) };
    let Ok(root) = root else { return 0 };
    let mut walk = Walk { mnt, root, dentry, path, start: PATH_BYTES as u32, end: End::NotYet };
    // SAFETY: `step` takes a `Walk`, and the walk outlives the loop.
    unsafe {
        bpf_loop(MOST_STEPS, step as *const () as *mut c_void, core::ptr::addr_of_mut!(walk).cast(), NO_STEP);
    }
    if walk.end == End::Unreadable {
        return 0;
    }
    if walk.start == PATH_BYTES as u32 && walk.end == End::Root {
        walk.start -= 1;
        // SAFETY: one byte before the end of the first half of the buffer.
        unsafe { *path.add(PATH_BYTES - 1) = b'/' };
    }
    let resolved = Resolved {
        start: walk.start,
        len_bytes: PATH_BYTES as u32 - walk.start,
        cut: walk.end == End::Full || walk.end == End::NotYet,
        unreachable: walk.end == End::Unreachable,
        hash: hash_of_end(path.cast(), walk.start),
    };
    // SAFETY: `scratch` is a map's value.
    unsafe { (*scratch).resolved = resolved };
    1
}

/// Whether a dentry has been unlinked (`d_unhashed`), as opposed to being a root that never was hashed.
#[inline(always)]
pub fn is_nameless(dentry: u64) -> Result<bool, Unreadable> {
    let hashed: u64 = read(dentry, &DENTRY_HASH_PPREV)?;
    let parent: u64 = read(dentry, &DENTRY_PARENT)?;
    Ok(hashed == 0 && parent != dentry)
}

/// Whether a mount belongs to no namespace: pipes, sockets and memfds lie on such.
#[inline(always)]
pub fn is_internal(mnt: u64) -> Result<bool, Unreadable> {
    const HIGHEST_ERROR: u64 = 4_095;
    let namespace: u64 = read_at(mnt - MOUNT_MNT.load() + MOUNT_NS.load())?;
    Ok(namespace == 0 || namespace > u64::MAX - HIGHEST_ERROR)
}

/// Whether a mount shows only a part of its file system, whose root that is.
#[inline(always)]
pub fn is_bound(mnt: u64, file_system_root: u64) -> Result<bool, Unreadable> {
    let root: u64 = read(mnt, &VFSMOUNT_ROOT)?;
    Ok(root != file_system_root)
}
