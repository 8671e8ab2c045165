//! What the gate asks of the kernel and no safe wrapper offers: the fanotify group, the timer that kills a gate which
//! stands still, the page shared with the daemon, the boot clock.
//!
//! The only unsafe code of the gate. Nothing here decides anything.
#![allow(unsafe_code, reason = "fanotify, POSIX timers and a shared mapping have no safe wrapper in rustix or std")]

use std::ffi::CString;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::ptr::{self, NonNull};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use rustix::fs::{MemfdFlags, Mode, OFlags, SealFlags};
use rustix::io::Errno;
use rustix::mm::{MapFlags, ProtFlags};

use super::wire::FileId;

/// How many events one read takes at most.
pub(super) const EVENTS_A_READ: usize = 32;

/// The size of an event without further records, of which the group asks for none.
const EVENT_BYTES: usize = size_of::<libc::fanotify_event_metadata>();
/// `FANOTIFY_METADATA_VERSION`, which libc does not have.
const METADATA_VERSION: u8 = 3;

/// Room for one read's events.
pub(super) type EventBuffer = [u8; EVENT_BYTES * EVENTS_A_READ];

/// Room for one read's events, empty.
pub(super) const fn event_buffer() -> EventBuffer {
    [0; EVENT_BYTES * EVENTS_A_READ]
}

/// A fanotify group with open-for-exec permission marks. When it is closed its marks vanish and held execs go on.
#[derive(Debug)]
pub(super) struct Group {
    group: OwnedFd,
}

/// What a group's event says.
#[derive(Debug)]
pub(super) enum Notice {
    /// An exec waits for an answer.
    Held {
        /// What must be answered.
        file: HeldFile,
        /// Who executes it, as the gate's pid namespace numbers it.
        tgid: Option<u32>,
    },
    /// Events came that found no room in the kernel's queue; their execs went on.
    QueueFull,
}

/// The open file of an exec that waits for an answer.
#[derive(Debug)]
pub(super) struct HeldFile {
    file: OwnedFd,
}

impl HeldFile {
    /// Which file it is.
    pub(super) fn id(&self) -> io::Result<FileId> {
        let stat = rustix::fs::fstat(&self.file)?;
        Ok(FileId { device: stat.st_dev, inode: stat.st_ino })
    }
}

impl Group {
    /// A new group, without marks.
    pub(super) fn new() -> io::Result<Self> {
        let flags = libc::FAN_CLASS_CONTENT | libc::FAN_CLOEXEC | libc::FAN_NONBLOCK;
        // NONBLOCK: a read of the group opens the event's file, and must not wait for the holder of a lease on it.
        let event_flags = libc::O_RDONLY | libc::O_LARGEFILE | libc::O_CLOEXEC | libc::O_NONBLOCK;
        // SAFETY: fanotify_init takes two integers and touches no memory of ours.
        let group = unsafe { libc::fanotify_init(flags, event_flags.cast_unsigned()) };
        if group < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the call succeeded, so the descriptor is open, and nothing else knows its number yet.
        let group = unsafe { OwnedFd::from_raw_fd(group) };
        Ok(Self { group })
    }

    /// Marks a file, or does nothing where it is marked.
    ///
    /// The kernel refuses an exec whose event it cannot open for us. So the file is first opened as that would be, and
    /// one that this process may not read is not marked.
    pub(super) fn mark(&self, file: BorrowedFd<'_>) -> io::Result<()> {
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
        rustix::fs::open(link_of(file), flags, Mode::empty())?;
        self.change_mark(libc::FAN_MARK_ADD, file)
    }

    /// Takes a file's mark off.
    pub(super) fn unmark(&self, file: BorrowedFd<'_>) -> io::Result<()> {
        self.change_mark(libc::FAN_MARK_REMOVE, file)
    }

    fn change_mark(&self, change: libc::c_uint, file: BorrowedFd<'_>) -> io::Result<()> {
        let link = CString::new(link_of(file))?;
        // SAFETY: `link` is a string that ends with a zero byte and outlives the call, which keeps no pointer to it.
        let result = unsafe {
            libc::fanotify_mark(self.group.as_raw_fd(), change, libc::FAN_OPEN_EXEC_PERM, libc::AT_FDCWD, link.as_ptr())
        };
        if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }

    /// Takes every mark off.
    pub(super) fn unmark_all(&self) -> io::Result<()> {
        // SAFETY: with FAN_MARK_FLUSH the path is not read, and may be null.
        let result = unsafe {
            libc::fanotify_mark(self.group.as_raw_fd(), libc::FAN_MARK_FLUSH, 0, libc::AT_FDCWD, ptr::null())
        };
        if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }

    /// Takes what waits, without blocking: at most [`EVENTS_A_READ`] events, all of which must be taken.
    pub(super) fn read<'buffer>(&self, buffer: &'buffer mut EventBuffer) -> io::Result<Notices<'buffer>> {
        match rustix::io::read(&self.group, &mut buffer[..]) {
            Ok(len_bytes) => Ok(Notices { rest: buffer.get(..len_bytes).unwrap_or_default() }),
            Err(Errno::AGAIN | Errno::INTR) => Ok(Notices { rest: &[] }),
            Err(errno) => Err(errno.into()),
        }
    }

    /// Lets an exec go on. The kernel takes the answer also for a process that was killed while it waited.
    pub(super) fn allow(&self, held: HeldFile) -> io::Result<()> {
        let mut answer = [0; size_of::<libc::fanotify_response>()];
        let (file, response) = answer.split_at_mut(size_of::<libc::c_int>());
        file.copy_from_slice(&held.file.as_raw_fd().to_ne_bytes());
        response.copy_from_slice(&libc::FAN_ALLOW.to_ne_bytes());
        match rustix::io::retry_on_intr(|| rustix::io::write(&self.group, &answer)) {
            // Nobody waits for this answer any more.
            Ok(_) | Err(Errno::NOENT) => Ok(()),
            Err(errno) => Err(errno.into()),
        }
    }
}

/// The link to a descriptor's very file, whatever its path leads to by now. What refuses an `O_PATH` descriptor as such
/// follows this.
fn link_of(file: BorrowedFd<'_>) -> String {
    format!("/proc/self/fd/{}", file.as_raw_fd())
}

impl AsFd for Group {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.group.as_fd()
    }
}

/// The events of one read.
#[derive(Debug)]
pub(super) struct Notices<'buffer> {
    rest: &'buffer [u8],
}

impl Iterator for Notices<'_> {
    type Item = io::Result<Notice>;

    fn next(&mut self) -> Option<Self::Item> {
        let (event, rest) = self.rest.split_first_chunk::<EVENT_BYTES>()?;
        self.rest = rest;
        // SAFETY: the metadata is a C struct of integers, valid for any bytes, and the read is of exactly its size; the
        // buffer need not be aligned for `read_unaligned`.
        let event = unsafe { ptr::read_unaligned(event.as_ptr().cast::<libc::fanotify_event_metadata>()) };
        // A record behind the metadata would be taken for an event: the group asks for none, so the kernel sends none.
        if event.vers != METADATA_VERSION || event.event_len as usize != EVENT_BYTES {
            return Some(Err(io::Error::new(io::ErrorKind::InvalidData, "fanotify events of an unknown layout")));
        }
        if event.fd < 0 {
            return Some(Ok(Notice::QueueFull));
        }
        // SAFETY: the kernel opened this descriptor for us with this event, and each event is taken once.
        let file = unsafe { OwnedFd::from_raw_fd(event.fd) };
        let tgid = u32::try_from(event.pid).ok().filter(|tgid| *tgid != 0);
        Some(Ok(Notice::Held { file: HeldFile { file }, tgid }))
    }
}

/// A timer in the kernel that kills this process unless it is set again and again.
///
/// The kernel delivers it also to a process that is stopped, traced or frozen by its control group (version 2), and
/// needs nobody else to be alive for it.
#[derive(Debug)]
pub(super) struct DeadMansSwitch {
    timer: libc::timer_t,
}

impl DeadMansSwitch {
    /// A switch that is off.
    pub(super) fn new() -> io::Result<Self> {
        // SAFETY: sigevent is a C struct of integers and a union of integers and pointers, for which zero is valid.
        let mut event: libc::sigevent = unsafe { MaybeUninit::zeroed().assume_init() };
        event.sigev_notify = libc::SIGEV_SIGNAL;
        event.sigev_signo = libc::SIGKILL;
        let mut timer: libc::timer_t = ptr::null_mut();
        // SAFETY: both pointers are to locals that outlive the call; the kernel keeps neither.
        let result = unsafe { libc::timer_create(libc::CLOCK_MONOTONIC, &raw mut event, &raw mut timer) };
        if result < 0 { Err(io::Error::last_os_error()) } else { Ok(Self { timer }) }
    }

    /// Kills this process after `wait` from now, unless it is set again before. Zero turns the switch off.
    pub(super) fn set(&self, wait: Duration) -> io::Result<()> {
        let value = libc::timespec {
            tv_sec: libc::time_t::try_from(wait.as_secs()).unwrap_or(libc::time_t::MAX),
            tv_nsec: wait.subsec_nanos().into(),
        };
        let setting = libc::itimerspec { it_interval: libc::timespec { tv_sec: 0, tv_nsec: 0 }, it_value: value };
        // SAFETY: the timer is ours until `drop`; `setting` outlives the call; the old setting is not asked for.
        let result = unsafe { libc::timer_settime(self.timer, 0, &raw const setting, ptr::null_mut()) };
        if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }
}

impl Drop for DeadMansSwitch {
    fn drop(&mut self) {
        // SAFETY: the timer was made by `new`, and is deleted here alone.
        unsafe { libc::timer_delete(self.timer) };
    }
}

/// What the daemon and the gate both see, without asking each other. Numbers only grow, but for the first.
#[derive(Debug)]
#[repr(C)]
pub(super) struct Page {
    /// Since when the hooks are attached, nanoseconds after boot; 0 while they are not. Written by the daemon.
    pub(super) attached_since_boot_ns: AtomicU64,
    /// When the gate last looked at the word above in order to let an exec go on. Written by the gate, as are the rest.
    pub(super) last_passage_boot_ns: AtomicU64,
    /// When the gate last showed that it lives.
    pub(super) last_beat_boot_ns: AtomicU64,
    /// Execs that the gate saw.
    pub(super) seen: AtomicU64,
    /// Of these: went on with the hooks attached, without waiting.
    pub(super) at_once: AtomicU64,
    /// Of these: went on with the hooks attached, after waiting for that.
    pub(super) after_attaching: AtomicU64,
    /// Of these: went on without.
    pub(super) let_through: AtomicU64,
}

impl Page {
    /// Decides whether an exec goes on with the hooks attached.
    ///
    /// The gate writes its word and then reads the daemon's; the daemon, before it detaches, writes its word and then
    /// reads the gate's. Both orders are sequentially consistent, so at least one of the two sees the other: no exec is
    /// let go on the strength of hooks that are just being detached.
    pub(super) fn passes_attached(&self, now_boot_ns: u64) -> bool {
        self.last_passage_boot_ns.store(now_boot_ns, Ordering::SeqCst);
        self.attached_since_boot_ns.load(Ordering::SeqCst) != 0
    }
}

/// The page, mapped into this process.
#[derive(Debug)]
pub(super) struct SharedPage {
    page: NonNull<Page>,
}

// SAFETY: the mapping belongs to no thread, and all of its contents are atomics.
unsafe impl Send for SharedPage {}

impl SharedPage {
    /// A new page, and the descriptor by which another process maps it.
    pub(super) fn create() -> io::Result<(Self, OwnedFd)> {
        let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
        // Kernels before 6.3 do not know NOEXEC_SEAL; newer ones may be told to refuse what lacks it.
        let memory = match rustix::fs::memfd_create(c"bailiwick-gate", flags | MemfdFlags::NOEXEC_SEAL) {
            Err(Errno::INVAL) => rustix::fs::memfd_create(c"bailiwick-gate", flags)?,
            other => other?,
        };
        rustix::fs::ftruncate(&memory, size_of::<Page>() as u64)?;
        rustix::fs::fcntl_add_seals(&memory, SealFlags::SHRINK | SealFlags::GROW)?;
        Ok((Self::map(memory.as_fd())?, memory))
    }

    /// Maps a page that another process made.
    pub(super) fn map(memory: BorrowedFd<'_>) -> io::Result<Self> {
        let seals = rustix::fs::fcntl_get_seals(memory)?;
        let len_bytes = rustix::fs::fstat(memory)?.st_size;
        if !seals.contains(SealFlags::SHRINK) || len_bytes != size_of::<Page>() as i64 {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "no page that can be shared"));
        }
        let protection = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: a new mapping at an address of the kernel's choice overlaps nothing. The file is at least as long as
        // the page and sealed against shrinking, so that every access stays within it.
        let address =
            unsafe { rustix::mm::mmap(ptr::null_mut(), size_of::<Page>(), protection, MapFlags::SHARED, memory, 0)? };
        let page = NonNull::new(address.cast()).ok_or(Errno::NOMEM)?;
        Ok(Self { page })
    }
}

impl std::ops::Deref for SharedPage {
    type Target = Page;

    fn deref(&self) -> &Page {
        // SAFETY: the mapping is readable, writable, aligned to a page, long enough, and lives until `drop`; all bit
        // patterns are valid for atomics of integers, and the other process changes them through atomics alone.
        unsafe { self.page.as_ref() }
    }
}

impl Drop for SharedPage {
    fn drop(&mut self) {
        // SAFETY: the mapping was made by `map` with this size, and no reference into it outlives `self`. A failure
        // would leave it mapped, which harms nobody.
        let _still_mapped = unsafe { rustix::mm::munmap(self.page.as_ptr().cast(), size_of::<Page>()) };
    }
}

/// Nanoseconds since boot, time asleep included: the clock of the sensor's records.
pub(super) fn boot_ns() -> u64 {
    let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `now` outlives the call. It cannot fail: the clock exists since Linux 2.6.39, and the pointer is valid.
    unsafe { libc::clock_gettime(libc::CLOCK_BOOTTIME, &raw mut now) };
    now.tv_sec.cast_unsigned().saturating_mul(1_000_000_000).saturating_add(now.tv_nsec.cast_unsigned())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;

    #[test]
    fn what_one_mapping_writes_the_other_reads() {
        let (here, memory) = SharedPage::create().unwrap();
        let there = SharedPage::map(memory.as_fd()).unwrap();
        assert!(!there.passes_attached(5));
        assert_eq!(here.last_passage_boot_ns.load(Ordering::SeqCst), 5);
        here.attached_since_boot_ns.store(9, Ordering::SeqCst);
        assert!(there.passes_attached(10));
    }

    #[test]
    fn a_file_of_another_size_is_no_page() {
        let memory = rustix::fs::memfd_create(c"short", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING).unwrap();
        rustix::fs::ftruncate(&memory, 8).unwrap();
        rustix::fs::fcntl_add_seals(&memory, SealFlags::SHRINK).unwrap();
        assert_eq!(SharedPage::map(memory.as_fd()).unwrap_err().kind(), io::ErrorKind::InvalidData);
    }

    #[test]
    fn the_boot_clock_goes_on() {
        let before = boot_ns();
        std::thread::sleep(Duration::from_millis(2));
        assert!(boot_ns() >= before + 2_000_000);
    }

    #[test]
    fn events_of_an_unknown_layout_are_an_error_and_not_a_descriptor() {
        let mut event = event_buffer();
        event[..4].copy_from_slice(&(EVENT_BYTES as u32).to_ne_bytes());
        event[4] = METADATA_VERSION + 1;
        let mut notices = Notices { rest: &event[..EVENT_BYTES] };
        assert_eq!(notices.next().unwrap().unwrap_err().kind(), io::ErrorKind::InvalidData);
    }

    #[test]
    fn an_event_without_a_file_says_that_the_queue_was_full() {
        let mut event = event_buffer();
        event[..4].copy_from_slice(&(EVENT_BYTES as u32).to_ne_bytes());
        event[4] = METADATA_VERSION;
        event[16..20].copy_from_slice(&libc::FAN_NOFD.to_ne_bytes());
        let mut notices = Notices { rest: &event[..EVENT_BYTES] };
        assert!(matches!(notices.next(), Some(Ok(Notice::QueueFull))));
        assert!(notices.next().is_none());
    }
}
