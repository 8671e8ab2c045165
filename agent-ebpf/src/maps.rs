//! Everything that outlives a call, and what the daemon reads and writes.

use core::ffi::c_void;
use core::ptr;

use agent_common::call::ROUTES;
use agent_common::file::OpenKey;
use agent_common::maps::{Decision, FileId, Fold, Loss, LossKey, Member, Opened, Owner, Recognition, Share};
use agent_common::record::KINDS;
use aya_ebpf::Global;
use aya_ebpf::bindings::{BPF_F_NO_PREALLOC, bpf_map_type::BPF_MAP_TYPE_TASK_STORAGE, task_struct};
use aya_ebpf::helpers::{bpf_task_storage_delete, bpf_task_storage_get};
use aya_ebpf::macros::{btf_map, map};
use aya_ebpf::maps::{Array, HashMap, LruHashMap, PerCpuArray, ProgramArray, RingBuf};

use crate::kernel::path::{Place, Resolved};
use crate::probes::calls::Call;
use crate::probes::io_uring::live::{Key, Live};
use crate::probes::io_uring::sockets::Copied;
use crate::probes::network::GivenAt;

/// A BPF task storage map: aya-ebpf has no type for one.
#[repr(C)]
pub struct TaskStorage<T> {
    r#type: *const [i32; BPF_MAP_TYPE_TASK_STORAGE as usize],
    key: *const i32,
    value: *const T,
    max_entries: *const [i32; 0],
    map_flags: *const [i32; BPF_F_NO_PREALLOC as usize],
}

// SAFETY: the struct only describes the map to the loader; the kernel synchronises access to the map itself.
unsafe impl<T> Sync for TaskStorage<T> {}

impl<T> TaskStorage<T> {
    const fn new() -> Self {
        Self {
            r#type: ptr::null(),
            key: ptr::null(),
            value: ptr::null(),
            max_entries: ptr::null(),
            map_flags: ptr::null(),
        }
    }

    #[inline(always)]
    fn map(&self) -> *mut c_void {
        ptr::from_ref(self).cast_mut().cast()
    }

    /// What is stored with the task.
    #[inline(always)]
    pub fn get(&self, task: *mut task_struct) -> Option<&'static mut T> {
        // SAFETY: the map is a task storage whose values are `T`; the verifier checks that `task` is a task.
        unsafe { bpf_task_storage_get(self.map(), task, ptr::null_mut(), 0).cast::<T>().as_mut() }
    }

    /// What is stored with the task, made of zeroes if there was nothing; `None` when there is no memory.
    #[inline(always)]
    pub fn get_or_create(&self, task: *mut task_struct) -> Option<&'static mut T> {
        const CREATE: u64 = 1;
        // SAFETY: as for `get`.
        unsafe { bpf_task_storage_get(self.map(), task, ptr::null_mut(), CREATE).cast::<T>().as_mut() }
    }

    /// Forgets what is stored with the task.
    #[inline(always)]
    pub fn delete(&self, task: *mut task_struct) {
        // SAFETY: as for `get`. Failing means that nothing was stored.
        let _ = unsafe { bpf_task_storage_delete(self.map(), task) };
    }
}

/// Who is in a session.
#[btf_map]
pub static MEMBER: TaskStorage<Member> = TaskStorage::new();

/// Rare and weighty records: fork, exec, exit, connect. A flood of opens cannot push them out.
#[map]
pub static WEIGHTY: RingBuf = RingBuf::with_byte_size(1 << 22, 0);

/// All the others.
#[map]
pub static BULK: RingBuf = RingBuf::with_byte_size(1 << 22, 0);

/// Whose a TCP connection is, by its `struct sock`.
#[map]
pub static OWNERS: HashMap<u64, Owner> = HashMap::with_max_entries(65_536, 0);

/// The addresses that operations of an io_uring were given, by their requests: the kernel's copies are gone at completion.
#[map]
pub static URING_ADDRESSES: HashMap<u64, Copied> = HashMap::with_max_entries(4_096, 0);

/// Operations of an io_uring that are under way, by what their completions will say.
#[map]
pub static URING_LIVE: HashMap<Key, Live> = HashMap::with_max_entries(8_192, 0);

/// What operations of an io_uring are to do by a path, by their requests: records in the making, from the submission to the
/// completion. A full table evicts nothing: what finds no room is told of without its result.
#[map]
pub static URING_KEPT: HashMap<u64, [u8; 1_024]> = HashMap::with_max_entries(4_096, 0);

/// The same, of those that are longer.
#[map]
pub static URING_KEPT_LONG: HashMap<u64, [u8; LONGEST_KEPT]> = HashMap::with_max_entries(128, 0);

/// The longest record that is kept: two paths and the directories that they start from.
pub const LONGEST_KEPT: usize = 16_640;

/// Requests that were told of before their end. One that is forgotten too soon and fails is told of as lost besides.
#[map]
pub static URING_TOLD: LruHashMap<u64, u64> = LruHashMap::with_max_entries(4_096, 0);

/// What each session has put into a ring that is filling up. A full table forgets the one that was quiet for longest.
#[map]
pub static SHARES: LruHashMap<u64, Share> = LruHashMap::with_max_entries(4_096, 0);

/// The counts of folded repeats. A full table stops folding and never evicts.
#[map]
pub static FOLDED: HashMap<OpenKey, Fold> = HashMap::with_max_entries(65_536, 0);

/// Failed reserves.
#[map]
pub static LOST: HashMap<LossKey, Loss> = HashMap::with_max_entries(4_096, 0);

/// What the kernel side can recognise by itself: executables.
#[map]
pub static EXECUTABLES: HashMap<FileId, Recognition> = HashMap::with_max_entries(8_192, 0);

/// Users whose processes the daemon must decide on.
#[map]
pub static USERS: HashMap<u32, Recognition> = HashMap::with_max_entries(1_024, 0);

/// Sessions that the kernel side opened.
#[map]
pub static OPENED: HashMap<u64, Opened> = HashMap::with_max_entries(16_384, 0);

/// The daemon's word on provisional sessions.
#[map]
pub static DECIDED: HashMap<u64, Decision> = HashMap::with_max_entries(16_384, 0);

/// Processes (by tgid) that the daemon recognised while adopting what runs.
#[map]
pub static ADOPT: HashMap<u32, Member> = HashMap::with_max_entries(16_384, 0);

/// Environment variables that may be recorded: the key padded with zeroes.
#[map]
pub static ENVIRONMENT: HashMap<[u8; 64], u8> = HashMap::with_max_entries(64, 0);

/// The programs that handle system calls, by [`agent_common::call::Route`].
#[map]
pub static HANDLERS: ProgramArray = ProgramArray::with_max_entries(ROUTES, 0);

/// Numbers that the daemon reads and sets; see [`State`].
#[map]
pub static STATE: Array<u64> = Array::with_max_entries(16, 0);

/// Records handed over, by kind.
#[map]
pub static EMITTED: PerCpuArray<u64> = PerCpuArray::with_max_entries(KINDS, 0);

/// Places in [`STATE`].
#[derive(Clone, Copy)]
pub enum State {
    /// Sessions opened by the kernel side so far.
    Sessions = 0,
    /// Not 0: every fork on the host is recorded, since what runs is being adopted.
    Adopting = 1,
    /// Not 0: every exec on the host is provisional.
    EveryExec = 2,
    /// Tasks that the adopting iterator added.
    Adopted = 3,
    /// Failed reserves that found no room in [`LOST`].
    LostUncounted = 4,
    /// Sequence numbers of the weighty ring.
    WeightySequence = 5,
    /// Sequence numbers of the other ring.
    BulkSequence = 6,
    /// How often the daemon has given up what it drained.
    Drains = 7,
}

impl State {
    /// The present number.
    #[inline(always)]
    pub fn load(self) -> u64 {
        match STATE.get(self as u32) {
            Some(value) => *value,
            None => 0,
        }
    }

    /// Adds one, and returns what was there before.
    #[inline(always)]
    pub fn next(self) -> u64 {
        match STATE.get_ptr_mut(self as u32) {
            // SAFETY: the pointer comes from the map, which lives as long as the program.
            Some(value) => unsafe { fetch_add(value, 1) },
            None => 0,
        }
    }
}

/// Adds to a number that several processors share, and returns what was there before.
///
/// `SeqCst`: with this target's `Relaxed`, a used result becomes a plain addition.
///
/// # Safety
/// `value` points into a map's value.
#[inline(always)]
pub unsafe fn fetch_add(value: *mut u64, by: u64) -> u64 {
    // SAFETY: the caller's promise.
    unsafe { core::intrinsics::atomic_xadd::<u64, u64, { core::intrinsics::AtomicOrdering::SeqCst }>(value, by) }
}

/// Sessions opened by the kernel side are numbered from here: random, so that ids do not repeat over restarts.
#[unsafe(no_mangle)]
static SESSION_BASE: Global<u64> = Global::new(0);

/// The id for a new session.
#[inline(always)]
pub fn new_session() -> u64 {
    SESSION_BASE.load() + State::Sessions.next() + 1
}

/// One program's working memory. Each program has its own: a program is not entered twice on one processor, but another
/// one may be entered while it runs.
#[repr(C)]
pub struct Scratch {
    /// The record in the making.
    pub record: [u8; RECORD_BYTES],
    /// A path, written from [`PATH_BYTES`] backwards, and room for its last name.
    pub path: [u8; PATH_BYTES + LAST_NAME_BYTES],
    /// What is known of that path.
    pub resolved: Resolved,
    /// The place whose path it is.
    pub from: Place,
    /// The call that is handled. Here, not on the stack: it has 512 bytes, and the verifier does not follow what stands in a
    /// map, so that it does not go through a program once for each way in which a call comes.
    pub call: Call,
    /// The address that was given with it.
    pub given: GivenAt,
    /// See [`Scratch::number`].
    number: u64,
    /// Whose memory this is: its place in [`SCRATCH`].
    pub place: u32,
    /// So that what stands anywhere in the path's first half may, for all the verifier knows, be as long as that.
    _behind: [u8; 3_384],
}

/// Room for a record.
pub const RECORD_BYTES: usize = 24_576;
/// Room for a path.
pub const PATH_BYTES: usize = 4_096;
/// Room for a name, and what stands behind it.
const LAST_NAME_BYTES: usize = 512;
const _: () = assert!(size_of::<Scratch>() <= 32_768); // the most that a per-CPU value may have
const _: () = assert!(size_of::<Scratch>() - core::mem::offset_of!(Scratch, path) >= 2 * PATH_BYTES);

/// The working memory of all programs, by [`ScratchOf`].
#[map]
static SCRATCH: PerCpuArray<Scratch> = PerCpuArray::with_max_entries(6, 0);

/// Whose working memory.
#[derive(Clone, Copy)]
pub enum ScratchOf {
    /// Of the exec hook.
    Exec = 0,
    /// Of the system-call hook and the programs that it hands over to.
    Call = 1,
    /// Of the hook on sockets' states.
    State = 2,
    /// Of the hooks on io_uring.
    Uring = 3,
    /// Of the hook on signals.
    Signal = 4,
    /// Of the iterator over files.
    Files = 5,
}

impl Scratch {
    /// A program's working memory.
    #[inline(always)]
    pub fn of(whose: ScratchOf) -> Option<*mut Self> {
        let scratch = SCRATCH.get_ptr_mut(whose as u32)?;
        // SAFETY: the pointer comes from the map.
        unsafe { (*scratch).place = whose as u32 };
        Some(scratch)
    }

    /// An address that the verifier knows the type of, as a number: functions that are verified by themselves take no other.
    #[inline(always)]
    pub fn number(scratch: *mut Self, address: u64) -> u64 {
        // SAFETY: `scratch` is a map's value. What stands in a map is a number to the verifier.
        unsafe {
            let place = ptr::addr_of_mut!((*scratch).number);
            place.write_volatile(address);
            place.read_volatile()
        }
    }

    /// The working memory at that place: for functions that are verified by themselves, which take numbers alone.
    #[inline(always)]
    pub fn at(place: u32) -> Option<*mut Self> {
        SCRATCH.get_ptr_mut(place)
    }
}
