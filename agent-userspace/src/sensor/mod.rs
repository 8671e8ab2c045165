//! The sensor, from the daemon's side: the only place that names aya.
//!
//! Loads the programs with the running kernel's offsets, attaches them, hands out their records in the order of time, and
//! reads and writes their maps. It knows nothing of agents, scopes or the trail.
//!
//! - `btf`: offsets of fields.
//! - `measured`: what the sensor tells of itself.
//! - `ring`: a ring that is given up only when told to.
//! - `task_storage`: membership, by pidfd.
//! - `rows`: what the iterators write.

pub mod btf;
mod measured;
mod ring;
mod rows;
mod task_storage;

use std::collections::BTreeMap;
use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use agent_common::RecordKind;
use agent_common::call::Route;
use agent_common::file::OpenKey;
use agent_common::maps::{Decision, FileId, Fold, Loss, LossKey, Member, Opened, Recognition, TaskRow};
use aya::maps::{Array, HashMap, Map, MapError, PerCpuArray, ProgramArray};
use aya::programs::tp_btf::BtfTracePointLinkId;
use aya::programs::{BtfTracePoint, Iter, ProgramError};
use aya::{Btf, Ebpf, EbpfLoader};
use zerocopy::{Immutable, IntoBytes};

pub use self::measured::{Hook, ProgramCost, RingFill};
use self::ring::Ring;
pub use self::rows::OpenFile;
use crate::decode::{self, Event};

/// The hooks that make, grow and end sessions: attached as long as the daemon runs.
const RECOGNITION: &[(&str, &str)] =
    &[("on_fork", "sched_process_fork"), ("on_exec", "sched_process_exec"), ("on_exit", "sched_process_exit")];
/// The hooks that tax what every process on the host does, system calls above all: attached only while a session lives.
const ARMED: &[(&str, &str)] = &[
    ("on_socket_state", "inet_sock_set_state"),
    ("on_signal", "signal_generate"),
    ("on_uring_submit", "io_uring_submit_req"),
    ("on_uring_complete", "io_uring_complete"),
    ("on_uring_overflow", "io_uring_cqe_overflow"),
    ("on_sys_exit", "sys_exit"),
];
/// The programs that `on_sys_exit` hands system calls over to, and the places they are found at.
const HANDLERS: &[(&str, Route)] = &[
    ("handle_open", Route::Open),
    ("handle_exec_failed", Route::ExecFailed),
    ("handle_socket", Route::Socket),
    ("handle_act", Route::Act),
    ("handle_map", Route::Map),
    ("handle_transfer", Route::Transfer),
    ("handle_send_message", Route::SendMessage),
    ("handle_receive_message", Route::ReceiveMessage),
    ("handle_receive_messages", Route::ReceiveMessages),
];
const ITERATORS: &[(&str, &str)] = &[("list_tasks", "task"), ("adopt_tasks", "task"), ("list_files", "task_file")];

/// Places in the map `STATE`; the sensor's `State` has the same.
#[derive(Clone, Copy)]
enum State {
    Adopting = 1,
    EveryExec = 2,
    Adopted = 3,
    LostUncounted = 4,
    Drains = 7,
}

/// Where the running kernel keeps its BTF.
const KERNEL_BTF: &str = "/sys/kernel/btf/vmlinux";

/// The object as it was built; empty in a build without the sensor.
static OBJECT: &[u8] = aya::include_bytes_aligned!(env!("BAILIWICK_SENSOR_OBJECT"));

/// How the sensor is to be loaded.
#[derive(Clone, Debug)]
pub struct SensorOptions {
    /// The size of each ring: a power of two, and a multiple of the page's.
    pub ring_bytes: u32,
    /// Environment variables that may be recorded.
    pub environment: Vec<String>,
    /// Whether every system call is counted.
    pub count_calls: bool,
}

/// Why the sensor does not run.
#[derive(Debug, thiserror::Error)]
pub enum SensorError {
    /// Built without it.
    #[error("this program was built without the sensor; build it with `cargo xtask build`")]
    NotBuilt,
    /// The kernel's type information.
    #[error(transparent)]
    Btf(#[from] btf::BtfError),
    /// The kernel says no.
    #[error(
        "the kernel refuses BPF to this process ({why}); run it as root, or with CAP_BPF, CAP_PERFMON and CAP_SYS_ADMIN"
    )]
    NotPermitted {
        /// In its words.
        why: String,
    },
    /// The object could not be loaded.
    #[error("the sensor could not be loaded: {0}")]
    Load(String),
    /// A program could not be loaded or attached.
    #[error("the hook '{hook}' could not be {done}: {why}")]
    Hook {
        /// The kernel's name for it.
        hook: &'static str,
        /// `loaded` or `attached`.
        done: &'static str,
        /// What the kernel says.
        why: String,
    },
    /// A map is not as it was built.
    #[error("the sensor's map '{name}': {why}")]
    Map {
        /// Its name.
        name: &'static str,
        /// What is wrong.
        why: String,
    },
    /// An iterator failed.
    #[error("the iterator '{name}': {source}")]
    Iterator {
        /// Its name.
        name: &'static str,
        /// Why.
        source: io::Error,
    },
}

/// What [`Sensor::drain`] has handed out, to be given up when it is durable.
#[derive(Clone, Copy, Debug, Default)]
pub struct Drained {
    weighty: u64,
    bulk: u64,
}

/// Events in the order of time, and how many records were none.
#[derive(Debug, Default)]
pub struct Batch {
    /// The events.
    pub events: Vec<Event>,
    /// Records that could not be decoded.
    pub undecodable: u64,
}

/// The records that wait in a ring.
struct Waiting<'a> {
    records: Vec<(u64, u64, &'a [u8])>,
    start: u64,
    complete_until: u64,
}

impl<'a> Waiting<'a> {
    fn of(ring: &'a Ring, until_boot_ns: u64, most: usize) -> Self {
        let start = ring.position();
        let (mut position, mut records, mut complete_until) = (start, Vec::new(), until_boot_ns);
        while let Some((record, next)) = ring.record_at(position) {
            let time = decode::time_boot_ns(record).unwrap_or(0);
            if time >= until_boot_ns {
                break;
            }
            if records.len() == most {
                complete_until = time;
                break;
            }
            records.push((time, next, record));
            position = next;
        }
        Self { records, start, complete_until }
    }

    /// Decodes the records before that time, and returns the position behind them.
    fn take(self, until: u64, batch: &mut Batch) -> u64 {
        let mut position = self.start;
        for (_, next, record) in self.records.into_iter().take_while(|&(time, ..)| time < until) {
            match decode::decode(record) {
                Ok(event) => batch.events.push(event),
                Err(_) => batch.undecodable += 1,
            }
            position = next;
        }
        position
    }
}

/// The sensor, loaded.
pub struct Sensor {
    ebpf: Ebpf,
    weighty: Ring,
    bulk: Ring,
    recognising: bool,
    armed: Vec<BtfTracePointLinkId>,
    drains: u64,
    /// As long as it is open, the kernel measures programs.
    measuring: Option<OwnedFd>,
}

impl Sensor {
    /// Loads the programs; nothing is attached yet. Dropping the sensor detaches and unloads all.
    ///
    /// # Errors
    /// No BTF, too little privilege, a kernel that refuses a program.
    pub fn load(options: &SensorOptions) -> Result<Self, SensorError> {
        if OBJECT.is_empty() {
            return Err(SensorError::NotBuilt);
        }
        let offsets = btf::Offsets::of_file(Path::new(KERNEL_BTF))?;
        let kernel = Btf::from_sys_fs().map_err(|error| SensorError::Load(chain(&error)))?;
        let [session_base, key_low, key_high] = random()?;
        // Half of the ids are the kernel side's; see `first_own_session`.
        let session_base = session_base & !0xff_ffff;
        let count_calls = u64::from(options.count_calls);
        let mut loader = EbpfLoader::new();
        loader.allow_unsupported_maps().btf(Some(&kernel));
        for (global, offset) in offsets.iter() {
            loader.override_global(global, offset, true);
        }
        loader
            .override_global("COUNT_CALLS", &count_calls, true)
            .override_global("SESSION_BASE", &session_base, true)
            .override_global("PATH_HASH_KEY_LOW", &key_low, true)
            .override_global("PATH_HASH_KEY_HIGH", &key_high, true)
            .map_max_entries("WEIGHTY", options.ring_bytes)
            .map_max_entries("BULK", options.ring_bytes);
        let mut ebpf = loader.load(OBJECT).map_err(|error| {
            let why = chain(&error);
            if is_permission(&error) { SensorError::NotPermitted { why } } else { SensorError::Load(why) }
        })?;
        for &(name, hook) in RECOGNITION.iter().chain(ARMED) {
            tracepoint(&mut ebpf, name, hook)?.load(hook, &kernel).map_err(|error| SensorError::Hook {
                hook,
                done: "loaded",
                why: chain(&error),
            })?;
        }
        set_handlers(&mut ebpf, &kernel)?;
        for &(name, kind) in ITERATORS {
            iterator(&mut ebpf, name)?.load(kind, &kernel).map_err(|error| SensorError::Hook {
                hook: name,
                done: "loaded",
                why: chain(&error),
            })?;
        }
        let weighty = ring(&mut ebpf, "WEIGHTY", options.ring_bytes)?;
        let bulk = ring(&mut ebpf, "BULK", options.ring_bytes)?;
        let mut sensor =
            Self { ebpf, weighty, bulk, recognising: false, armed: Vec::new(), drains: 0, measuring: None };
        sensor.allow_environment(&options.environment)?;
        Ok(sensor)
    }

    /// Attaches the hooks that make, grow and end sessions.
    ///
    /// # Errors
    /// The kernel refuses one.
    pub fn attach_recognition(&mut self) -> Result<(), SensorError> {
        for &(name, hook) in RECOGNITION {
            tracepoint(&mut self.ebpf, name, hook)?.attach().map_err(|error| SensorError::Hook {
                hook,
                done: "attached",
                why: chain(&error),
            })?;
        }
        self.recognising = true;
        Ok(())
    }

    /// Attaches the hooks that are attached only while a session lives, if they are not.
    ///
    /// # Errors
    /// The kernel refuses one; then none is left attached.
    pub fn arm(&mut self) -> Result<(), SensorError> {
        for &(name, hook) in ARMED.iter().skip(self.armed.len()) {
            match tracepoint(&mut self.ebpf, name, hook)?.attach() {
                Ok(link) => self.armed.push(link),
                Err(error) => {
                    let why = chain(&error);
                    // What the kernel refuses to give up goes with the process.
                    let _ = self.disarm();
                    return Err(SensorError::Hook { hook, done: "attached", why });
                }
            }
        }
        Ok(())
    }

    /// Detaches them, if they are attached.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn disarm(&mut self) -> Result<(), SensorError> {
        while let Some(link) = self.armed.pop() {
            let Some(&(name, hook)) = ARMED.get(self.armed.len()) else { break };
            tracepoint(&mut self.ebpf, name, hook)?.detach(link).map_err(|error| SensorError::Hook {
                hook,
                done: "detached",
                why: chain(&error),
            })?;
        }
        self.forget_owners();
        Ok(())
    }

    /// Forgets whose connections are whose: what ends while nobody looks would be taken for another's that has its place.
    fn forget_owners(&mut self) {
        if let Ok(mut map) = typed::<HashMap<_, u64, [u8; 32]>>(&mut self.ebpf, "OWNERS") {
            let sockets: Vec<u64> = map.keys().filter_map(Result::ok).collect();
            for socket in sockets {
                // It may have ended by now.
                let _ = map.remove(&socket);
            }
        }
    }

    /// Whether they are attached.
    pub fn is_armed(&self) -> bool {
        self.armed.len() == ARMED.len()
    }

    /// What to poll: readable when the sensor asks to be looked at.
    pub fn wake_fds(&self) -> [BorrowedFd<'_>; 2] {
        [self.weighty.as_fd(), self.bulk.as_fd()]
    }

    /// Hands out the events that happened before `until_boot_ns`, in the order of time, up to `most` of each ring. They stay
    /// in the rings until [`Sensor::give_up`].
    pub fn drain(&self, until_boot_ns: u64, most: usize) -> (Batch, Drained) {
        let weighty = Waiting::of(&self.weighty, until_boot_ns, most);
        let bulk = Waiting::of(&self.bulk, until_boot_ns, most);
        // A ring that was not drained to the end says nothing of what comes later: nor may the other.
        let until = weighty.complete_until.min(bulk.complete_until);
        let mut batch = Batch::default();
        let drained = Drained { weighty: weighty.take(until, &mut batch), bulk: bulk.take(until, &mut batch) };
        batch.events.sort_by_key(|event| event.head.time_boot_ns);
        (batch, drained)
    }

    /// Shows each record that waits, as it stands in its ring. It goes on waiting.
    pub fn visit_waiting(&self, mut visit: impl FnMut(&[u8])) {
        for ring in [&self.weighty, &self.bulk] {
            for (.., record) in Waiting::of(ring, u64::MAX, usize::MAX).records {
                visit(record);
            }
        }
    }

    /// Gives up what was drained.
    pub fn give_up(&mut self, drained: Drained) {
        self.weighty.give_up(drained.weighty);
        self.bulk.give_up(drained.bulk);
        self.drains += 1;
        // Should it fail, sessions are held to the share that they have used up.
        if let Err(error) = self.set_state(State::Drains, self.drains) {
            tracing::warn!(%error, "sessions that flooded a ring stay limited");
        }
    }

    /// Sets what the kernel side recognises by itself.
    ///
    /// # Errors
    /// A map has no room.
    pub fn set_recognition(
        &mut self,
        executables: &BTreeMap<(u32, u64), Recognition>,
        users: &BTreeMap<u32, Recognition>,
        every_exec: bool,
    ) -> Result<(), SensorError> {
        let mut map: HashMap<_, [u8; 16], [u8; 8]> = typed(&mut self.ebpf, "EXECUTABLES")?;
        let stale: Vec<_> = map.keys().filter_map(Result::ok).collect();
        for (&(device, inode), recognition) in executables {
            let key: [u8; 16] = zerocopy::transmute!(FileId { inode, device, reserved: 0 });
            map.insert(key, zerocopy_bytes::<8, _>(recognition), 0)
                .map_err(|error| map_error("EXECUTABLES", &error))?;
        }
        for key in stale {
            let file: FileId = zerocopy::transmute!(key);
            if !executables.contains_key(&(file.device, file.inode)) {
                map.remove(&key).map_err(|error| map_error("EXECUTABLES", &error))?;
            }
        }
        let mut map: HashMap<_, u32, [u8; 8]> = typed(&mut self.ebpf, "USERS")?;
        let stale: Vec<_> = map.keys().filter_map(Result::ok).collect();
        for (uid, recognition) in users {
            map.insert(uid, zerocopy_bytes::<8, _>(recognition), 0).map_err(|error| map_error("USERS", &error))?;
        }
        for uid in stale {
            if !users.contains_key(&uid) {
                map.remove(&uid).map_err(|error| map_error("USERS", &error))?;
            }
        }
        self.set_state(State::EveryExec, u64::from(every_exec))
    }

    /// Makes the process behind the pidfd a member.
    ///
    /// # Errors
    /// It has ended.
    pub fn set_member(&self, pidfd: BorrowedFd<'_>, member: &Member) -> io::Result<()> {
        task_storage::set_member(self.membership()?, pidfd, member)
    }

    /// The membership of the process behind the pidfd.
    ///
    /// # Errors
    /// It has ended.
    pub fn member(&self, pidfd: BorrowedFd<'_>) -> io::Result<Option<Member>> {
        task_storage::member(self.membership()?, pidfd)
    }

    fn membership(&self) -> io::Result<BorrowedFd<'_>> {
        match self.ebpf.map("MEMBER") {
            Some(Map::Unsupported(data)) => Ok(data.fd().as_fd()),
            _ => Err(io::Error::other("the sensor has no task storage")),
        }
    }

    /// Says what a provisional session is.
    ///
    /// # Errors
    /// The map has no room.
    pub fn decide(&mut self, provisional: u64, decision: &Decision) -> Result<(), SensorError> {
        let mut map: HashMap<_, u64, [u8; 16]> = typed(&mut self.ebpf, "DECIDED")?;
        map.insert(provisional, zerocopy_bytes::<16, _>(decision), 0).map_err(|error| map_error("DECIDED", &error))
    }

    /// Forgets a decision, when no process can be left that has not heard of it.
    pub fn forget_decision(&mut self, provisional: u64) {
        if let Ok(mut map) = typed::<HashMap<_, u64, [u8; 16]>>(&mut self.ebpf, "DECIDED") {
            // It may never have been made.
            let _ = map.remove(&provisional);
        }
    }

    /// Sessions that the kernel side opened, taken out of its table.
    ///
    /// # Errors
    /// The map can't be read.
    pub fn take_opened(&mut self, session: u64) -> Result<Option<Opened>, SensorError> {
        let mut map: HashMap<_, u64, [u8; 40]> = typed(&mut self.ebpf, "OPENED")?;
        match map.get(&session, 0) {
            Ok(bytes) => {
                let _ = map.remove(&session);
                Ok(Some(zerocopy::transmute!(bytes)))
            }
            Err(MapError::KeyNotFound) => Ok(None),
            Err(error) => Err(map_error("OPENED", &error)),
        }
    }

    /// Every session that the kernel side opened and nobody has taken.
    ///
    /// # Errors
    /// The map can't be read.
    pub fn all_opened(&mut self) -> Result<Vec<(u64, Opened)>, SensorError> {
        let map: HashMap<_, u64, [u8; 40]> = typed(&mut self.ebpf, "OPENED")?;
        Ok(map.iter().filter_map(Result::ok).map(|(session, bytes)| (session, zerocopy::transmute!(bytes))).collect())
    }

    /// The count of a folded key, if it is known.
    ///
    /// # Errors
    /// The map can't be read.
    pub fn fold(&mut self, key: &OpenKey) -> Result<Option<Fold>, SensorError> {
        let map: HashMap<_, [u8; 64], [u8; 40]> = typed(&mut self.ebpf, "FOLDED")?;
        match map.get(&zerocopy_bytes::<64, _>(key), 0) {
            Ok(bytes) => Ok(Some(zerocopy::transmute!(bytes))),
            Err(MapError::KeyNotFound) => Ok(None),
            Err(error) => Err(map_error("FOLDED", &error)),
        }
    }

    /// Forgets a folded key: its process has ended, or runs another image.
    pub fn forget_fold(&mut self, key: &OpenKey) {
        if let Ok(mut map) = typed::<HashMap<_, [u8; 64], [u8; 40]>>(&mut self.ebpf, "FOLDED") {
            // Forgotten already is as good.
            let _ = map.remove(&zerocopy_bytes::<64, _>(key));
        }
    }

    /// Every folded key and its count.
    ///
    /// # Errors
    /// The map can't be read.
    pub fn folds(&mut self) -> Result<Vec<(OpenKey, Fold)>, SensorError> {
        let map: HashMap<_, [u8; 64], [u8; 40]> = typed(&mut self.ebpf, "FOLDED")?;
        let pairs = map.iter().filter_map(Result::ok);
        Ok(pairs.map(|(key, fold)| (zerocopy::transmute!(key), zerocopy::transmute!(fold))).collect())
    }

    /// What could not be handed over, ever, by session, kind and reason.
    ///
    /// # Errors
    /// The map can't be read.
    pub fn losses(&mut self) -> Result<Vec<(LossKey, Loss)>, SensorError> {
        let map: HashMap<_, [u8; 16], [u8; 24]> = typed(&mut self.ebpf, "LOST")?;
        let pairs = map.iter().filter_map(Result::ok);
        Ok(pairs.map(|(key, loss)| (zerocopy::transmute!(key), zerocopy::transmute!(loss))).collect())
    }

    /// Forgets what was lost of a session that has ended.
    pub fn forget_loss(&mut self, key: &LossKey) {
        if let Ok(mut map) = typed::<HashMap<_, [u8; 16], [u8; 24]>>(&mut self.ebpf, "LOST") {
            let _ = map.remove(&zerocopy_bytes::<16, _>(key));
        }
    }

    /// Losses that found no room in the table of losses, ever.
    ///
    /// # Errors
    /// The map can't be read.
    pub fn uncounted_losses(&mut self) -> Result<u64, SensorError> {
        self.state(State::LostUncounted)
    }

    /// How often a program was skipped because it was running already on that processor, ever, by hook.
    pub fn recursion_misses(&mut self) -> Vec<(&'static str, u64)> {
        let hooks = RECOGNITION.iter().chain(ARMED);
        hooks.map(|&(name, hook)| (hook, self.missed(name).unwrap_or(0))).collect()
    }

    /// Records handed over, ever, by kind.
    ///
    /// # Errors
    /// The map can't be read.
    pub fn emitted(&mut self) -> Result<Vec<(RecordKind, u64)>, SensorError> {
        let map: PerCpuArray<_, u64> = typed(&mut self.ebpf, "EMITTED")?;
        let count = |kind: &RecordKind| {
            let values = map.get(&u32::from(kind.to_wire()), 0).map_err(|error| map_error("EMITTED", &error))?;
            Ok((*kind, values.iter().sum()))
        };
        RecordKind::ALL.iter().map(count).collect()
    }

    /// While it is on, every fork on the host is recorded.
    ///
    /// # Errors
    /// The map can't be written.
    pub fn set_adopting(&mut self, on: bool) -> Result<(), SensorError> {
        self.set_state(State::Adopting, u64::from(on))
    }

    /// Makes members of these processes, all their threads and all that descends from them; returns how many tasks that
    /// were. To be repeated until it returns 0.
    ///
    /// # Errors
    /// A map has no room, or the iterator fails.
    pub fn adopt(&mut self, members: &BTreeMap<u32, Member>) -> Result<u64, SensorError> {
        let mut map: HashMap<_, u32, [u8; 24]> = typed(&mut self.ebpf, "ADOPT")?;
        for (tgid, member) in members {
            map.insert(tgid, zerocopy_bytes::<24, _>(member), 0).map_err(|error| map_error("ADOPT", &error))?;
        }
        let before = self.state(State::Adopted)?;
        let ran = self.iterate("adopt_tasks");
        let mut map: HashMap<_, u32, [u8; 24]> = typed(&mut self.ebpf, "ADOPT")?;
        for tgid in members.keys() {
            // A process id is not kept beyond this call: it may be another's by the next.
            let _ = map.remove(tgid);
        }
        ran?;
        Ok(self.state(State::Adopted)? - before)
    }

    /// Every task on the host.
    ///
    /// # Errors
    /// The iterator fails.
    pub fn tasks(&mut self) -> Result<Vec<TaskRow>, SensorError> {
        Ok(rows::tasks(&self.iterate("list_tasks")?))
    }

    /// When a process that runs started, in nanoseconds after boot.
    ///
    /// # Errors
    /// The iterator fails, or there is no such process.
    pub fn start_of(&mut self, tgid: u32) -> Result<u64, SensorError> {
        let row = self.tasks()?.into_iter().find(|row| row.tgid == tgid);
        let gone = SensorError::Iterator { name: "list_tasks", source: io::ErrorKind::NotFound.into() };
        row.map(|row| row.start_boot_ns).ok_or(gone)
    }

    /// Every file that a member has open.
    ///
    /// # Errors
    /// The iterator fails.
    pub fn open_files(&mut self) -> Result<Vec<OpenFile>, SensorError> {
        Ok(rows::open_files(&self.iterate("list_files")?))
    }

    fn iterate(&mut self, name: &'static str) -> Result<Vec<u8>, SensorError> {
        let failed = |error: &ProgramError| SensorError::Hook { hook: name, done: "attached", why: chain(error) };
        let program = iterator(&mut self.ebpf, name)?;
        let link = program.attach().map_err(|error| failed(&error))?;
        let link = program.take_link(link).map_err(|error| failed(&error))?;
        let read = |source| SensorError::Iterator { name, source };
        let mut file = link.into_file().map_err(|error| read(io::Error::other(chain(&error))))?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes).map_err(read)?;
        Ok(bytes)
    }

    fn allow_environment(&mut self, keys: &[String]) -> Result<(), SensorError> {
        let mut map: HashMap<_, [u8; 64], u8> = typed(&mut self.ebpf, "ENVIRONMENT")?;
        for key in keys {
            let mut padded = [0u8; 64];
            // A longer key was refused with the configuration.
            for (to, from) in padded.iter_mut().zip(key.as_bytes()) {
                *to = *from;
            }
            map.insert(padded, 1, 0).map_err(|error| map_error("ENVIRONMENT", &error))?;
        }
        Ok(())
    }

    fn state(&mut self, place: State) -> Result<u64, SensorError> {
        let map: Array<_, u64> = typed(&mut self.ebpf, "STATE")?;
        map.get(&(place as u32), 0).map_err(|error| map_error("STATE", &error))
    }

    fn set_state(&mut self, place: State, value: u64) -> Result<(), SensorError> {
        let mut map: Array<_, u64> = typed(&mut self.ebpf, "STATE")?;
        map.set(place as u32, value, 0).map_err(|error| map_error("STATE", &error))
    }
}

/// Loads the programs that handle system calls and puts each in its place.
fn set_handlers(ebpf: &mut Ebpf, kernel: &Btf) -> Result<(), SensorError> {
    let hook = "sys_exit";
    for &(name, route) in HANDLERS {
        let failed =
            |error: &ProgramError| SensorError::Hook { hook, done: "loaded", why: format!("{name}: {}", chain(error)) };
        let program = tracepoint(ebpf, name, hook)?;
        program.load(hook, kernel).map_err(|error| failed(&error))?;
        let fd = program.fd().and_then(|fd| Ok(fd.try_clone()?)).map_err(|error| failed(&error))?;
        let mut places: ProgramArray<_> = typed(ebpf, "HANDLERS")?;
        places.set(route as u32, &fd, 0).map_err(|error| map_error("HANDLERS", &error))?;
    }
    Ok(())
}

/// Session ids for sessions that the daemon opens itself: random, with a bit set that the kernel side's never have, since
/// it counts up from a multiple of 2^24.
///
/// # Errors
/// The kernel gives no random bytes.
pub fn new_session() -> Result<u64, SensorError> {
    let [random] = random()?;
    Ok(random | 0x80_0000)
}

fn random<const N: usize>() -> Result<[u64; N], SensorError> {
    let mut words = [0u64; N];
    let bytes = words.as_mut_bytes();
    let read = rustix::rand::getrandom(&mut *bytes, rustix::rand::GetRandomFlags::empty());
    match read {
        Ok(read) if read == bytes.len() => Ok(words),
        Ok(_) | Err(_) => Err(SensorError::Load("the kernel gives no random bytes".to_owned())),
    }
}

fn zerocopy_bytes<const N: usize, T: IntoBytes + Immutable>(value: &T) -> [u8; N] {
    let mut bytes = [0; N];
    bytes.copy_from_slice(value.as_bytes());
    bytes
}

fn typed<'a, M>(ebpf: &'a mut Ebpf, name: &'static str) -> Result<M, SensorError>
where
    M: TryFrom<&'a mut Map, Error = MapError>,
{
    let map = ebpf.map_mut(name).ok_or(SensorError::Map { name, why: "it is not there".to_owned() })?;
    M::try_from(map).map_err(|error| map_error(name, &error))
}

fn ring(ebpf: &mut Ebpf, name: &'static str, bytes: u32) -> Result<Ring, SensorError> {
    let no_ring = |why: String| SensorError::Map { name, why };
    let Some(Map::RingBuf(data)) = ebpf.map(name) else { return Err(no_ring("it is no ring".to_owned())) };
    let fd = data.fd().as_fd().try_clone_to_owned().map_err(|error| no_ring(error.to_string()))?;
    Ring::map(fd, u64::from(bytes)).map_err(|error| no_ring(error.to_string()))
}

fn tracepoint<'a>(ebpf: &'a mut Ebpf, name: &str, hook: &'static str) -> Result<&'a mut BtfTracePoint, SensorError> {
    let missing = || SensorError::Hook { hook, done: "found", why: format!("the sensor has no program '{name}'") };
    ebpf.program_mut(name).ok_or_else(missing)?.try_into().map_err(|_: ProgramError| missing())
}

fn iterator<'a>(ebpf: &'a mut Ebpf, name: &'static str) -> Result<&'a mut Iter, SensorError> {
    let missing = || SensorError::Hook { hook: name, done: "found", why: "the sensor has no such program".to_owned() };
    ebpf.program_mut(name).ok_or_else(missing)?.try_into().map_err(|_: ProgramError| missing())
}

fn map_error(name: &'static str, error: &MapError) -> SensorError {
    SensorError::Map { name, why: chain(error) }
}

/// An error and what caused it, in one line.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let inner = error.to_string();
        if !text.contains(&inner) {
            text.push_str(": ");
            text.push_str(&inner);
        }
        cause = error.source();
    }
    text
}

fn is_permission(error: &(dyn std::error::Error + 'static)) -> bool {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(error) = cause {
        if error.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::PermissionDenied) {
            return true;
        }
        cause = error.source();
    }
    false
}
