//! Files: open, create, map, and the bytes read and written.
//!
//! Hook: `tp_btf/sys_exit` of `open`, `openat`, `openat2`, `creat` and `open_by_handle_at`. One that succeeded is resolved
//! from the descriptor it returned, through every mount: the file really opened, whatever the path argument said. One that
//! failed left no object: its path is as given, beside the directory it starts from. Misses what io_uring does; a descriptor that
//! another thread replaces between its making and the exit of the call is seen as its replacement.

use core::hint::black_box;
use core::ptr::addr_of_mut;

use agent_common::call::Call as SystemCall;
use agent_common::file::{
    ACCESS_CREATED, ACCESS_PATH, ACCESS_READ, ACCESS_WRITE, OPEN_ANONYMOUS, OPEN_BOUND, OPEN_INTERNAL, OPEN_LAYERED,
    OPEN_NAMELESS, OPEN_PIPE, OPEN_SOCKET, OPEN_UNREACHABLE, Open,
};
use agent_common::maps::{Fold, LOSS_ANNOUNCE};
use agent_common::{RecordKind, StringTag};
use aya_ebpf::helpers::bpf_ktime_get_boot_ns;
use aya_ebpf::helpers::generated::{bpf_find_vma, bpf_probe_read_user};

use super::calls::{AT_FDCWD, Call};
use crate::kernel::hash::Hash;
use crate::kernel::offsets::{
    FILE_INODE, FILE_MODE, FILE_PATH_DENTRY, FILE_PATH_MNT, INODE_INO, INODE_MODE, INODE_SB, SB_DEV, SB_MAGIC, SB_ROOT,
    VMA_FILE, VMA_FLAGS,
};
use crate::kernel::path::{Place, Resolved, is_bound, is_internal, is_nameless, resolve, resolve_within};
use crate::kernel::task::current;
use crate::kernel::{Unreadable, field, read};
use crate::maps::{FOLDED, Scratch, fetch_add};
use crate::record::{BPF_NOEXIST, Builder, Given, Urgency, count_lost};
use crate::verified::verified_once;

/// The flags in a `struct open_how`; 0 where it cannot be read.
#[inline(always)]
fn open_how(address: u64) -> u64 {
    let mut flags = 0u64;
    // SAFETY: eight bytes of our own.
    unsafe { bpf_probe_read_user(addr_of_mut!(flags).cast(), 8, address as *const core::ffi::c_void) };
    flags
}

/// An open, at the exit of the call.
#[inline(always)]
pub fn open_call(call: &Call, scratch: *mut Scratch) -> Result<(), Unreadable> {
    const OPEN: u32 = SystemCall::place_of("open");
    const CREAT: u32 = SystemCall::place_of("creat");
    const OPENAT2: u32 = SystemCall::place_of("openat2");
    const BY_HANDLE: u32 = SystemCall::place_of("open_by_handle_at");
    const O_CREAT_WRONLY: u64 = 0o101;
    if call.result >= 0 {
        return tell_open(scratch, call.file(call.result as u64)?);
    }
    let (mut record, open) = begin(call, RecordKind::Open, scratch);
    let [first, second, third, ..] = call.arguments;
    let (directory_fd, name, flags) = match call.place {
        OPEN => (AT_FDCWD, first, second),
        CREAT => (AT_FDCWD, first, O_CREAT_WRONLY),
        OPENAT2 => (first, second, open_how(third)),
        BY_HANDLE => (first, 0, third),
        _ => (first, second, third),
    };
    open.key.errno = call.errno();
    open.key.access = access_of_flags(flags);
    let given = record.user_string(StringTag::Given, name);
    name_as_given(&mut record, open, call, scratch, directory_fd, &given)?;
    if count(&record, open) {
        announce(&mut record, open);
    }
    Ok(())
}

/// An open that this file came of.
#[inline(always)]
pub fn tell_open(scratch: *mut Scratch, file: u64) -> Result<(), Unreadable> {
    tell(scratch, RecordKind::Open, file)
}

/// A file that was mapped, at the exit of the call: to be executed, or so that writing reaches it.
#[inline(always)]
pub fn map_call(call: &Call, scratch: *mut Scratch) -> Result<(), Unreadable> {
    const PROT_WRITE: u64 = 2;
    const PROT_EXEC: u64 = 4;
    const HIGHEST_ERROR: u64 = 4_095;
    const MAP_SHARED: u64 = 1;
    const MAP_ANONYMOUS: u64 = 0x20;
    const VM_SHARED: u64 = 8;
    let [address, _, protection, flags, fd, ..] = call.arguments;
    let maps = call.place == MMAP || call.place == MMAP2;
    // The 32-bit `mmap` has its arguments in memory that another thread may have changed since.
    let hidden = call.narrow && call.place == MMAP;
    if call.result as u64 > u64::MAX - HIGHEST_ERROR
        || !hidden && protection & (PROT_EXEC | PROT_WRITE) == 0
        || maps && !hidden && flags & MAP_ANONYMOUS != 0
    {
        return Ok(());
    }
    let found = mapping(scratch, if maps { call.result as u64 } else { address });
    let (file, shared, protection) = if found.file != 0 {
        (found.file, found.flags & VM_SHARED != 0, if hidden { found.flags } else { protection })
    } else {
        // While another thread changes the process's mappings they cannot be asked: then the descriptor must do.
        if !maps || hidden {
            return Ok(());
        }
        let Ok(file) = call.file(fd) else { return Ok(()) };
        (file, flags & MAP_SHARED != 0, protection)
    };
    if protection & PROT_EXEC != 0 {
        tell(scratch, RecordKind::MapExec, file)?;
    }
    if protection & PROT_WRITE != 0 && shared {
        tell(scratch, RecordKind::MapWrite, file)?;
    }
    Ok(())
}

const MMAP: u32 = SystemCall::place_of("mmap");
const MMAP2: u32 = SystemCall::place_of("mmap2");

/// What is mapped at an address, by the kernel's own account.
#[inline(always)]
fn mapping(scratch: *mut Scratch, address: u64) -> Found {
    let mut found = Found { file: 0, flags: 0 };
    // SAFETY: `found_mapping` takes a `Found`, which outlives the call.
    unsafe {
        bpf_find_vma(
            current().cast(),
            address,
            found_mapping as *const () as *mut core::ffi::c_void,
            addr_of_mut!(found).cast(),
            0,
        );
    }
    found.file = Scratch::number(scratch, found.file);
    found
}

#[repr(C)]
struct Found {
    /// Null where none is.
    file: u64,
    /// `vm_flags`, of which those for reading, writing and executing are the same as of a protection.
    flags: u64,
}

extern "C" fn found_mapping(_task: *mut core::ffi::c_void, vma: *const core::ffi::c_void, found: *mut Found) -> i64 {
    // SAFETY: `bpf_find_vma` hands on a BTF-typed mapping and the pointer that it was given.
    unsafe {
        (*found).file = field(vma, &VMA_FILE);
        (*found).flags = field(vma, &VMA_FLAGS);
    }
    0
}

verified_once! {
    /// Tells of a file, or counts a repeat.
    fn tell as tell_of_file(call, scratch, kind: RecordKind, file: u64) {
        let (mut record, open) = begin(call, kind, scratch);
        let path = name_file(open, file, scratch)?;
        if !count(&record, open) {
            return Ok(());
        }
        record.path(StringTag::Path, &path)?;
        add_within(&mut record, open, file, scratch)?;
        announce(&mut record, open);
        Ok(())
    }
}

/// Adds where a file lies in its file system, where its path may not tell.
#[inline(always)]
fn add_within(record: &mut Builder, open: &Open, file: u64, scratch: *mut Scratch) -> Result<(), Unreadable> {
    if open.key.flags & OPEN_BOUND != 0 {
        let place = Place { mnt: read(file, &FILE_PATH_MNT)?, dentry: read(file, &FILE_PATH_DENTRY)? };
        let path = resolve_within(place, scratch)?;
        record.path(StringTag::Within, &path)?;
    }
    Ok(())
}

/// Bytes that a call read or wrote.
#[inline(always)]
pub fn transfer_call(call: &Call, scratch: *mut Scratch) -> Result<(), Unreadable> {
    const FIRST_WRITE: u32 = SystemCall::place_of("write");
    const SENDFILE: u32 = SystemCall::place_of("sendfile");
    const SENDFILE64: u32 = SystemCall::place_of("sendfile64");
    const SPLICE: u32 = SystemCall::place_of("splice");
    const COPY: u32 = SystemCall::place_of("copy_file_range");
    if call.result <= 0 {
        return Ok(());
    }
    let [first, second, third, ..] = call.arguments;
    let (from, to) = match call.place {
        SENDFILE | SENDFILE64 => (Some(second), Some(first)),
        SPLICE | COPY => (Some(first), Some(third)),
        // The table has the calls that read before those that write.
        place if place >= FIRST_WRITE => (None, Some(first)),
        _ => (Some(first), None),
    };
    for (fd, access) in [(from, ACCESS_READ), (to, ACCESS_WRITE)] {
        if let Some(fd) = fd
            && let Ok(file) = call.file(fd)
        {
            transferred(scratch, file, access)?;
        }
    }
    Ok(())
}

verified_once! {
    /// Counts what was read from a file or written to it. Pipes, sockets and devices are no files that keep anything.
    pub fn transferred as count_transfer(call, scratch, file: u64, access: u32) {
        const S_IFMT: u16 = 0o170_000;
        const S_IFREG: u16 = 0o100_000;
        let inode: u64 = read(file, &FILE_INODE)?;
        if read::<u16>(inode, &INODE_MODE)? & S_IFMT != S_IFREG {
            return Ok(());
        }
        let sb: u64 = read(inode, &INODE_SB)?;
        let (mut record, open) = begin(call, RecordKind::Io, scratch);
        open.key.inode = read(inode, &INODE_INO)?;
        open.key.device = read(sb, &SB_DEV)?;
        open.key.access = access;
        open.key.errno = 0;
        // By whatever name: to resolve it each time would cost more than the call.
        open.key.path_hash = 0;
        open.key.flags = 0;
        open.bytes = call.result as u64;
        if !count(&record, open) {
            return Ok(());
        }
        let path = resolve(OpenFile::read(file)?.place, scratch)?;
        record.path(StringTag::Path, &path)?;
        announce(&mut record, open);
        Ok(())
    }
}

/// Counts a system call by its number.
#[inline(always)]
pub fn count_call(call: &Call, number: u32, scratch: *mut Scratch) {
    let (mut record, open) = begin(call, RecordKind::SyscallCount, scratch);
    open.key.inode = 0;
    open.key.device = 0;
    open.key.access = number;
    open.key.errno = 0;
    open.key.path_hash = 0;
    open.key.flags = u32::from(call.narrow);
    open.narrow = u32::from(call.narrow);
    if count(&record, open) {
        announce(&mut record, open);
    }
}

verified_once! {
    /// A descriptor that came from another process: each is told of, none is counted.
    pub fn received as tell_of_received(call, scratch, fd: u64) {
        // Another thread may have closed it.
        let Ok(file) = call.file(fd) else { return Ok(()) };
        let (mut record, open) = begin(call, RecordKind::FdReceive, scratch);
        let path = name_file(open, file, scratch)?;
        alone(open);
        record.path(StringTag::Path, &path)?;
        add_within(&mut record, open, file, scratch)?;
        record.emit(Urgency::Weighty);
        Ok(())
    }
}

/// Begins a record of what is folded.
#[inline(always)]
pub fn begin(call: &Call, kind: RecordKind, scratch: *mut Scratch) -> (Builder, &'static mut Open) {
    let (record, open) = Builder::begin::<Open>(scratch, call.header(kind));
    begin_key(call, kind, open);
    (record, open)
}

/// Writes into a key whose it is.
#[inline(always)]
pub fn begin_key(call: &Call, kind: RecordKind, open: &mut Open) {
    open.key.session = call.member.session;
    open.key.start_boot_ns = call.who.start_boot_ns;
    open.key.tgid = call.who.tgid;
    open.key.exec_number = call.member.exec_number;
    open.key.kind = u32::from(kind.to_wire());
    open.key.reserved = 0;
    open.narrow = 0;
    open.bytes = 0;
}

/// A file as the kernel holds it open.
pub struct OpenFile {
    /// Where it lies.
    pub place: Place,
    /// Its inode's number.
    pub inode: u64,
    /// Its file system's device.
    pub device: u32,
    /// How it was opened.
    pub access: u32,
    /// See the constants beginning with `OPEN_`.
    pub flags: u32,
}

impl OpenFile {
    /// Reads a `struct file`.
    #[inline(always)]
    pub fn read(file: u64) -> Result<Self, Unreadable> {
        let place = Place { mnt: read(file, &FILE_PATH_MNT)?, dentry: read(file, &FILE_PATH_DENTRY)? };
        let inode: u64 = read(file, &FILE_INODE)?;
        const OVERLAYFS_SUPER_MAGIC: u64 = 0x794c_7630;
        let sb: u64 = read(inode, &INODE_SB)?;
        let mut flags = 0;
        if is_nameless(place.dentry)? {
            flags |= OPEN_NAMELESS;
        }
        let magic: u64 = read(sb, &SB_MAGIC)?;
        if magic == OVERLAYFS_SUPER_MAGIC {
            flags |= OPEN_LAYERED;
        }
        if is_internal(place.mnt)? {
            flags |= OPEN_INTERNAL | kind_of_internal(magic);
        } else if is_bound(place.mnt, read(sb, &SB_ROOT)?)? {
            flags |= OPEN_BOUND;
        }
        Ok(Self {
            place,
            inode: read(inode, &INODE_INO)?,
            device: read(sb, &SB_DEV)?,
            access: access_of_mode(read(file, &FILE_MODE)?),
            flags,
        })
    }
}

/// What a file of the kernel's own is, by the magic number of its file system: such have no path, and the kernel makes up
/// their names when it is asked for them (`d_dname`).
#[inline(always)]
fn kind_of_internal(magic: u64) -> u32 {
    const PIPEFS_MAGIC: u64 = 0x5049_5045;
    const SOCKFS_MAGIC: u64 = 0x534f_434b;
    const ANON_INODE_FS_MAGIC: u64 = 0x0904_1934;
    match magic {
        PIPEFS_MAGIC => OPEN_PIPE,
        SOCKFS_MAGIC => OPEN_SOCKET,
        ANON_INODE_FS_MAGIC => OPEN_ANONYMOUS,
        _ => 0,
    }
}

/// `f_mode` as access.
#[inline(always)]
fn access_of_mode(mode: u32) -> u32 {
    const FMODE_READ: u32 = 1;
    const FMODE_WRITE: u32 = 2;
    const FMODE_PATH: u32 = 1 << 14;
    const FMODE_CREATED: u32 = 1 << 20;
    let mut access = 0;
    if mode & FMODE_READ != 0 {
        access |= ACCESS_READ;
    }
    if mode & FMODE_WRITE != 0 {
        access |= ACCESS_WRITE;
    }
    if mode & FMODE_PATH != 0 {
        access |= ACCESS_PATH;
    }
    if mode & FMODE_CREATED != 0 {
        access |= ACCESS_CREATED;
    }
    access
}

/// The flags of an open that failed as access.
#[inline(always)]
pub fn access_of_flags(flags: u64) -> u32 {
    const O_ACCMODE: u64 = 3;
    const O_PATH: u64 = 0o10_000_000;
    if flags & O_PATH != 0 {
        return ACCESS_PATH;
    }
    match flags & O_ACCMODE {
        0 => ACCESS_READ,
        1 => ACCESS_WRITE,
        _ => ACCESS_READ | ACCESS_WRITE,
    }
}

/// Says in the body which file it is.
#[inline(always)]
fn name_file(open: &mut Open, file: u64, scratch: *mut Scratch) -> Result<Resolved, Unreadable> {
    let found = OpenFile::read(file)?;
    let path = resolve(found.place, scratch)?;
    open.key.inode = found.inode;
    open.key.device = found.device;
    open.key.access = found.access;
    open.key.errno = 0;
    open.key.path_hash = path.hash;
    open.key.flags = found.flags | if path.unreachable { OPEN_UNREACHABLE } else { 0 };
    Ok(path)
}

/// Says in the body which file was asked for, where there is none: by what was given, which stands in the record, and the
/// directory that it starts from.
#[inline(always)]
pub fn name_as_given(
    record: &mut Builder,
    open: &mut Open,
    call: &Call,
    scratch: *mut Scratch,
    directory_fd: u64,
    given: &Given,
) -> Result<(), Unreadable> {
    let given_hash = record.hash_of(given)?;
    open.key.inode = 0;
    open.key.device = 0;
    open.key.path_hash = given_hash;
    open.key.flags = 0;
    if let Some(directory) = call.directory(directory_fd, given.first)? {
        let path = resolve(directory, scratch)?;
        record.path(StringTag::Directory, &path)?;
        let mut hash = Hash::new();
        hash.word(path.hash);
        hash.word(given_hash);
        open.key.path_hash = hash.finish();
    }
    Ok(())
}

/// Counts an open under its key, and says so in the body; whether the key is still to be announced.
#[inline(always)]
pub fn count(record: &Builder, open: &mut Open) -> bool {
    count_at(record.scratch(), record.place_of(open)) != 0
}

/// The `Open` that stands so far from the beginning of a scratch buffer.
#[inline(always)]
fn open_at(scratch: *mut Scratch, at: u32) -> *mut Open {
    /// Behind the header, and at most another body.
    const FURTHEST: u32 = 0xf8;
    // SAFETY: a record's buffer is much longer, and begins a map's value; an `Open` is integers alone.
    unsafe { scratch.cast::<u8>().add((black_box(at) & FURTHEST) as usize).cast() }
}

/// By numbers alone: see `hand_over`.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn count_at(scratch: u32, at: u32) -> u32 {
    let Some(scratch) = Scratch::at(scratch) else { return 0 };
    // SAFETY: what stands there is an `Open`.
    let open = unsafe { &mut *open_at(scratch, at) };
    // SAFETY: the helper takes nothing.
    let now = unsafe { bpf_ktime_get_boot_ns() };
    let mut fold = FOLDED.get_ptr_mut(&open.key);
    if fold.is_none() {
        // Another processor may have been quicker: then this fails, as it should. So it does in a full table.
        let new = Fold { total: 0, bytes: 0, first_boot_ns: now, last_boot_ns: now, announced: 0 };
        let _ = FOLDED.insert(&open.key, &new, BPF_NOEXIST);
        fold = FOLDED.get_ptr_mut(&open.key);
    }
    let Some(fold) = fold else {
        // A full table: the record stands for itself alone.
        alone(open);
        return 1;
    };
    // SAFETY: `fold` points into the map.
    unsafe {
        open.total = fetch_add(addr_of_mut!((*fold).total), 1) + 1;
        if open.bytes != 0 {
            fetch_add(addr_of_mut!((*fold).bytes), open.bytes);
        }
        (*fold).last_boot_ns = now;
        if (*fold).announced != 0 {
            return 0;
        }
        open.first_boot_ns = (*fold).first_boot_ns;
    }
    open.folded = 1;
    1
}

/// Says in the body that the record stands for itself alone.
#[inline(always)]
fn alone(open: &mut Open) {
    open.total = 1;
    // SAFETY: the helper takes nothing.
    open.first_boot_ns = unsafe { bpf_ktime_get_boot_ns() };
    open.folded = 0;
}

/// Hands over the record that tells of a key. Where it finds no room, the next repeat announces the key again; the count
/// goes on either way.
#[inline(always)]
pub fn announce(record: &mut Builder, open: &Open) {
    announce_at(record.scratch(), record.place_of(open));
}

/// By numbers alone: see `hand_over`.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn announce_at(scratch: u32, at: u32) -> u32 {
    let Some(scratch) = Scratch::at(scratch) else { return 0 };
    // SAFETY: what stands there is an `Open`.
    let open = unsafe { &*open_at(scratch, at) };
    let mut record = Builder::of(scratch);
    if open.folded == 0 {
        record.emit(Urgency::Bulk);
    } else if record.try_emit(Urgency::Bulk) {
        if let Some(fold) = FOLDED.get_ptr_mut(&open.key) {
            // SAFETY: `fold` points into the map.
            unsafe { (*fold).announced = 1 };
        }
    } else {
        count_lost(open.key.session, open.key.kind as u16, LOSS_ANNOUNCE);
    }
    0
}
