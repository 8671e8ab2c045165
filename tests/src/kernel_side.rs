//! What of a daemon's sensor the kernel holds: its programs, and which of them are attached to what. All of it is asked of
//! the kernel (`bpf(2)`), nothing of the daemon: whoever says that a hook is there may be wrong.
//!
//! A program is a daemon's when it uses a map that the daemon has open. So it does not matter whether programs and links are
//! pinned, nor by whom they are held, and other instances are not mistaken for this one.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use rustix::process::Pid;

/// A program of the sensor's.
#[derive(Clone, Debug)]
pub struct Program {
    /// Its name, of which the kernel keeps fifteen bytes.
    pub name: String,
    /// The tracepoint that it was loaded for; `None` for an iterator and the like.
    pub tracepoint: Option<String>,
    /// Whether it is attached.
    pub is_attached: bool,
    /// How many instructions the verifier went through.
    pub verified: u64,
}

/// `enum bpf_cmd`, and what its commands need.
const PROG_GET_NEXT_ID: libc::c_long = 11;
const PROG_GET_FD_BY_ID: libc::c_long = 13;
const OBJ_GET_INFO_BY_FD: libc::c_long = 15;
const LINK_GET_FD_BY_ID: libc::c_long = 30;
const LINK_GET_NEXT_ID: libc::c_long = 31;
const BPF_PROG_TYPE_TRACING: u32 = 26;

/// More than any host has.
const OBJECTS_MAX: usize = 100_000;

/// The programs of that daemon's sensor.
///
/// # Panics
///
/// If the kernel does not answer.
pub fn programs_of(daemon: Pid) -> Vec<Program> {
    let maps = maps_of(daemon);
    let attached: BTreeSet<u32> = each(LINK_GET_NEXT_ID, LINK_GET_FD_BY_ID, link_program).into_iter().collect();
    let names = tracepoints();
    let program = |fd: &OwnedFd| -> Option<Program> {
        let (info, uses) = program_info(fd)?;
        if info.kind != BPF_PROG_TYPE_TRACING || uses.is_disjoint(&maps) {
            return None;
        }
        let name: Vec<u8> = info.name.iter().copied().take_while(|&byte| byte != 0).collect();
        Some(Program {
            name: String::from_utf8_lossy(&name).into_owned(),
            tracepoint: names.get(&info.attach_btf_id).cloned(),
            is_attached: attached.contains(&info.id),
            verified: info.verified_insns.into(),
        })
    };
    each(PROG_GET_NEXT_ID, PROG_GET_FD_BY_ID, program)
}

/// The ids of the maps that a process has open.
fn maps_of(process: Pid) -> BTreeSet<u32> {
    let folder = format!("/proc/{}/fdinfo", process.as_raw_pid());
    let entries = std::fs::read_dir(&folder).unwrap_or_else(|error| panic!("{folder}: {error}"));
    let id = |entry: io::Result<std::fs::DirEntry>| {
        // A descriptor may be closed meanwhile.
        let text = std::fs::read_to_string(entry.ok()?.path()).ok()?;
        text.lines().find_map(|line| line.strip_prefix("map_id:")?.trim().parse().ok())
    };
    entries.filter_map(id).collect()
}

/// The kernel's tracepoints by the number of their type.
fn tracepoints() -> BTreeMap<u32, String> {
    let btf = btf_rs::Btf::from_file(crate::requirement::BTF).unwrap();
    let name = |id: u32| {
        let btf_rs::Type::Typedef(named) = btf.resolve_type_by_id(id).ok()? else { return None };
        Some((id, btf.resolve_name(&named).ok()?.strip_prefix("btf_trace_")?.to_owned()))
    };
    // Types are numbered without holes.
    (1..).map_while(|id| btf.resolve_type_by_id(id).is_ok().then_some(id)).filter_map(name).collect()
}

/// `struct bpf_prog_info`, as much as is asked for.
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct ProgramInfo {
    kind: u32,
    id: u32,
    before_maps: [u64; 5],
    created_by_uid: u32,
    nr_map_ids: u32,
    map_ids: u64,
    name: [u8; 16],
    before_verified: [u64; 17],
    verified_insns: u32,
    attach_btf_obj_id: u32,
    attach_btf_id: u32,
    reserved: u32,
}

const _: () = assert!(std::mem::offset_of!(ProgramInfo, map_ids) == 56);
const _: () = assert!(std::mem::offset_of!(ProgramInfo, verified_insns) == 216);

/// `struct bpf_link_info`, as much as is asked for.
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct LinkInfo {
    kind: u32,
    id: u32,
    program: u32,
    reserved: u32,
}

fn program_info(fd: &OwnedFd) -> Option<(ProgramInfo, BTreeSet<u32>)> {
    const MAPS_MAX: usize = 64;
    let mut maps = [0u32; MAPS_MAX];
    let mut info =
        ProgramInfo { nr_map_ids: MAPS_MAX as u32, map_ids: maps.as_mut_ptr().addr() as u64, ..ProgramInfo::default() };
    info_of(fd, &mut info)?;
    let used = maps.iter().copied().take(info.nr_map_ids as usize).collect();
    Some((info, used))
}

fn link_program(fd: &OwnedFd) -> Option<u32> {
    let mut info = LinkInfo::default();
    info_of(fd, &mut info)?;
    Some(info.program)
}

/// Goes through all objects of a kind; one that ends meanwhile is left out.
fn each<T>(next: libc::c_long, open: libc::c_long, ask: impl Fn(&OwnedFd) -> Option<T>) -> Vec<T> {
    let (mut found, mut id) = (Vec::new(), 0u32);
    for _ in 0..OBJECTS_MAX {
        // `start_id`, `next_id`, `open_flags`.
        let mut attributes = [id, 0, 0, 0];
        if bpf(next, &mut attributes) < 0 {
            return found;
        }
        id = attributes[1];
        let mut attributes = [id, 0, 0, 0];
        let fd = bpf(open, &mut attributes);
        if let Ok(fd) = i32::try_from(fd)
            && fd >= 0
        {
            // SAFETY: the call has just returned this descriptor, and nothing else knows it.
            found.extend(ask(&unsafe { OwnedFd::from_raw_fd(fd) }));
        }
    }
    panic!("more than {OBJECTS_MAX} objects");
}

fn info_of<T>(fd: &OwnedFd, info: &mut T) -> Option<()> {
    #[repr(C)]
    struct Attributes {
        fd: u32,
        len_bytes: u32,
        info: u64,
    }
    let len_bytes = u32::try_from(size_of::<T>()).ok()?;
    let fd = u32::try_from(fd.as_raw_fd()).ok()?;
    let mut attributes = Attributes { fd, len_bytes, info: std::ptr::from_mut(info).addr() as u64 };
    (bpf(OBJ_GET_INFO_BY_FD, &mut attributes) == 0).then_some(())
}

fn bpf<T>(command: libc::c_long, attributes: &mut T) -> libc::c_long {
    // SAFETY: the kernel reads and writes `size_of::<T>()` bytes of the attributes, and what they point to is as long as they
    // say: `info_of` gives the size of its structure, `program_info` that of its array.
    unsafe { libc::syscall(libc::SYS_bpf, command, std::ptr::from_mut(attributes), size_of::<T>()) }
}
