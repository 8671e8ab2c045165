//! The one table of what is observed: name, family, grant, hook, what it guarantees and what it cannot see. Documents,
//! `doctor` and the sensor's start derive from it.

use agent_common::RecordKind;

use crate::finding::findings_page;

/// An observation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Observation {
    /// The event's name.
    pub event: &'static str,
    /// Its family: the same file name in `agent-common`, `agent-ebpf/src/probes`, `decode` and the tests.
    pub family: &'static str,
    /// The part of a scope that judges it; `None`: recorded only.
    pub grant: Option<&'static str>,
    /// Its attributes; those in brackets only where they apply.
    pub attributes: &'static [&'static str],
    /// The hook.
    pub hook: &'static str,
    /// What can be relied on.
    pub guarantee: &'static str,
    /// What it does not see.
    pub blind_spots: &'static [&'static str],
}

const OPEN_BLIND_SPOTS: &[&str] = &[
    "a deny by a pattern does not hold for a hard link that the file had before; a deny by its full name does",
    "a descriptor that another thread replaces before the call returns is seen as its replacement",
];
const FORK: &[&str] = &["bailiwick.child.tgid", "bailiwick.child.start_boot_ns"];
const EXEC: &[&str] = &[
    "process.executable.path",
    "process.command_args",
    "process.working_directory",
    "process.parent_pid",
    "process.user.id",
    "process.real_user.id",
    "bailiwick.exec.given",
    "bailiwick.exec.number",
    "[bailiwick.exec.script]",
    "[bailiwick.exec.nameless]",
    "[bailiwick.credential.variables]",
    "[process.environment_variable.KEY]",
    "[error.type]",
];
const EXIT: &[&str] = &[
    "[process.exit.code]",
    "[bailiwick.exit.signal]",
    "process.parent_pid",
    "[bailiwick.process.parent_start_boot_ns]",
    "process.creation.time",
    "process.executable.path",
    "process.command_args",
    "[process.environment_variable.TRACEPARENT]",
    "[process.environment_variable.TRACESTATE]",
];
const OPEN: &[&str] = &[
    "file.path",
    "bailiwick.file.access",
    "[bailiwick.file.device]",
    "[bailiwick.file.inode]",
    "[bailiwick.file.as_given]",
    "[bailiwick.file.deleted]",
    "[bailiwick.file.internal]",
    "[bailiwick.file.unreachable]",
    "[bailiwick.file.host_path]",
    "[bailiwick.file.other_path]",
    "[bailiwick.file.found_open]",
    "[error.type]",
];
const CONNECT: &[&str] = &[
    "server.address",
    "server.port",
    "network.transport",
    "network.type",
    "[network.local.address]",
    "[network.local.port]",
    "[bailiwick.network.as_given]",
    "[bailiwick.network.family]",
    "[bailiwick.vsock.context]",
    "[bailiwick.vsock.port]",
    "[bailiwick.file.found_open]",
    "[error.type]",
];

const NAMES_BLIND_SPOTS: &[&str] = &[
    "what is done by a path leaves no object: the path is as given, looked up again after the call where it still leads \
     somewhere, and another thread may have changed it during the call",
];
const MAP_BLIND_SPOTS: &[&str] =
    &["of one mprotect over several mappings the first is seen", "executable memory without a file is not told of"];
const NAMED: &[&str] = &[
    "file.path",
    "[bailiwick.syscall]",
    "[bailiwick.file.as_given]",
    "[bailiwick.file.resolved_after]",
    "[bailiwick.file.device]",
    "[bailiwick.file.inode]",
    "[bailiwick.file.deleted]",
    "[bailiwick.file.internal]",
    "[bailiwick.file.unreachable]",
    "[error.type]",
];

const RENAMED: &[&str] = &[
    "file.path",
    "bailiwick.file.new_path",
    "[bailiwick.syscall]",
    "[bailiwick.file.as_given]",
    "[bailiwick.file.resolved_after]",
    "[bailiwick.file.device]",
    "[bailiwick.file.inode]",
    "[bailiwick.file.deleted]",
    "[bailiwick.file.internal]",
    "[bailiwick.file.unreachable]",
    "[error.type]",
];
const SYMLINKED: &[&str] = &[
    "file.path",
    "file.symbolic_link.target_path",
    "[bailiwick.syscall]",
    "[bailiwick.file.as_given]",
    "[bailiwick.file.resolved_after]",
    "[bailiwick.file.device]",
    "[bailiwick.file.inode]",
    "[bailiwick.file.deleted]",
    "[bailiwick.file.internal]",
    "[bailiwick.file.unreachable]",
    "[error.type]",
];
const TRUNCATED: &[&str] = &[
    "file.path",
    "file.size",
    "[bailiwick.syscall]",
    "[bailiwick.file.as_given]",
    "[bailiwick.file.resolved_after]",
    "[bailiwick.file.device]",
    "[bailiwick.file.inode]",
    "[bailiwick.file.deleted]",
    "[bailiwick.file.internal]",
    "[bailiwick.file.unreachable]",
    "[error.type]",
];
const MODE_SET: &[&str] = &[
    "file.path",
    "file.mode",
    "bailiwick.syscall",
    "[bailiwick.file.as_given]",
    "[bailiwick.file.resolved_after]",
    "[bailiwick.file.device]",
    "[bailiwick.file.inode]",
    "[bailiwick.file.deleted]",
    "[bailiwick.file.internal]",
    "[bailiwick.file.unreachable]",
    "[error.type]",
];
const OWNER_SET: &[&str] = &[
    "file.path",
    "[file.owner.id]",
    "[file.group.id]",
    "bailiwick.syscall",
    "[bailiwick.file.as_given]",
    "[bailiwick.file.resolved_after]",
    "[bailiwick.file.device]",
    "[bailiwick.file.inode]",
    "[bailiwick.file.deleted]",
    "[bailiwick.file.internal]",
    "[bailiwick.file.unreachable]",
    "[error.type]",
];
const XATTR_SET: &[&str] = &[
    "file.path",
    "bailiwick.file.xattr",
    "[bailiwick.syscall]",
    "[bailiwick.file.as_given]",
    "[bailiwick.file.resolved_after]",
    "[bailiwick.file.device]",
    "[bailiwick.file.inode]",
    "[bailiwick.file.deleted]",
    "[bailiwick.file.internal]",
    "[bailiwick.file.unreachable]",
    "[error.type]",
];
const MOUNTED: &[&str] = &[
    "file.path",
    "[bailiwick.mount.source]",
    "[bailiwick.mount.flags]",
    "bailiwick.syscall",
    "[bailiwick.file.as_given]",
    "[bailiwick.file.resolved_after]",
    "[bailiwick.file.device]",
    "[bailiwick.file.inode]",
    "[bailiwick.file.deleted]",
    "[bailiwick.file.internal]",
    "[bailiwick.file.unreachable]",
    "[error.type]",
];
const PTRACED: &[&str] =
    &["[bailiwick.target.tgid]", "[bailiwick.ptrace.request]", "[file.path]", "bailiwick.syscall", "[error.type]"];
const SET_ID: &[&str] = &["bailiwick.setid.ids", "bailiwick.syscall", "[error.type]"];
const NAMESPACED: &[&str] = &[
    "[bailiwick.namespace.flags]",
    "[file.path]",
    "[bailiwick.file.as_given]",
    "[bailiwick.file.resolved_after]",
    "bailiwick.syscall",
    "[error.type]",
];
const MODULE: &[&str] = &["[bailiwick.module.name]", "[bailiwick.module.path]", "bailiwick.syscall", "[error.type]"];
const KEYS: &[&str] = &["[bailiwick.keyctl.operation]", "[bailiwick.keyctl.type]", "bailiwick.syscall", "[error.type]"];
const MEMFD: &[&str] = &["[bailiwick.memfd.name]", "bailiwick.syscall", "[error.type]"];

/// A change of names, or of what a file is, told of as it was made.
const fn change(event: &'static str, attributes: &'static [&'static str], guarantee: &'static str) -> Observation {
    Observation {
        event,
        family: "file",
        grant: Some("scope.files"),
        attributes,
        hook: "tp_btf/sys_exit",
        guarantee,
        blind_spots: NAMES_BLIND_SPOTS,
    }
}

/// Something done with a socket.
const fn socket(
    event: &'static str,
    grant: Option<&'static str>,
    attributes: &'static [&'static str],
    guarantee: &'static str,
    blind_spots: &'static [&'static str],
) -> Observation {
    Observation { event, family: "network", grant, attributes, hook: "tp_btf/sys_exit", guarantee, blind_spots }
}

const CONNECT_BLIND_SPOTS: &[&str] = &[
    "a vsock address is as given, and judged by no grant",
    "of sockets that are told of as network.raw (SCTP, SMC, Bluetooth, CAN, ...) connects are not told of",
];
const SEND: &[&str] = &[
    "server.address",
    "server.port",
    "network.transport",
    "network.type",
    "[network.local.address]",
    "[network.local.port]",
    "bailiwick.network.as_given",
    "[error.type]",
];
const OWN_ADDRESS: &[&str] = &[
    "network.local.address",
    "network.local.port",
    "network.transport",
    "network.type",
    "[bailiwick.network.as_given]",
    "[error.type]",
];
const ACCEPT: &[&str] = &[
    "client.address",
    "client.port",
    "network.local.address",
    "network.local.port",
    "network.transport",
    "network.type",
];
const CLOSE: &[&str] = &[
    "server.address",
    "server.port",
    "network.local.address",
    "network.local.port",
    "network.transport",
    "network.type",
    "bailiwick.network.bytes_sent",
    "bailiwick.network.bytes_received",
];
const RAW: &[&str] = &["[bailiwick.network.family]", "bailiwick.network.protocol", "network.transport", "[error.type]"];

/// A use of a privilege, told of as it was made.
const fn privilege(event: &'static str, attributes: &'static [&'static str], guarantee: &'static str) -> Observation {
    Observation {
        event,
        family: "privilege",
        grant: Some("scope.privileges"),
        attributes,
        hook: "tp_btf/sys_exit",
        guarantee,
        blind_spots: &[],
    }
}

const PRIVILEGE: &[&str] = &["bailiwick.syscall", "[error.type]"];

/// Every observation, in the order of the contract.
pub const OBSERVATIONS: &[Observation] = &[
    Observation {
        event: "process.fork",
        family: "process",
        grant: None,
        attributes: FORK,
        hook: "tp_btf/sched_process_fork",
        guarantee: "every process made by a member, with membership inherited in the kernel",
        blind_spots: &[
            "worker threads of io_uring raise no event",
            "work handed to systemd, docker, cron or a terminal multiplexer runs outside the session",
        ],
    },
    Observation {
        event: "process.exec",
        family: "process",
        grant: Some("scope.exec"),
        attributes: EXEC,
        hook: "tp_btf/sched_process_exec; failed ones tp_btf/sys_exit",
        guarantee: "the image as the kernel resolved it, its arguments and allow-listed environment",
        blind_spots: &[
            "a failed exec has the path as given, without arguments",
            "the script behind a #! is named as given to exec",
            "of the environment variables that may be recorded, the first six, each up to 511 bytes",
            "variables that hold credentials are looked for in /proc, right after the exec: not of a process that has ended \
             by then, or has written over its environment",
        ],
    },
    Observation {
        event: "process.exit",
        family: "process",
        grant: None,
        attributes: EXIT,
        hook: "tp_btf/sched_process_exit",
        guarantee: "once a process, with the status that wait gives",
        blind_spots: &[],
    },
    Observation {
        event: "file.open",
        family: "file",
        grant: Some("scope.files"),
        attributes: OPEN,
        hook: "tp_btf/sys_exit",
        guarantee: "the file really opened, through every mount; repeats counted exactly",
        blind_spots: OPEN_BLIND_SPOTS,
    },
    Observation {
        event: "file.create",
        family: "file",
        grant: Some("scope.files"),
        attributes: OPEN,
        hook: "tp_btf/sys_exit",
        guarantee: "the file really created, through every mount; repeats counted exactly",
        blind_spots: OPEN_BLIND_SPOTS,
    },
    change("file.unlink", NAMED, "unlink and unlinkat"),
    change("file.rename", RENAMED, "rename, renameat and renameat2; both names are judged"),
    change("file.link", RENAMED, "link and linkat; both names are judged"),
    change("file.symlink", SYMLINKED, "symlink and symlinkat; the link's own name is judged"),
    change("file.mkdir", NAMED, "mkdir and mkdirat"),
    change("file.rmdir", NAMED, "rmdir, and unlinkat of a directory"),
    change("file.truncate", TRUNCATED, "truncate, ftruncate and fallocate"),
    change("file.chmod", MODE_SET, "chmod, fchmod, fchmodat and fchmodat2"),
    change("file.chown", OWNER_SET, "chown, lchown, fchown and fchownat"),
    change("file.xattr", XATTR_SET, "attributes set and removed; reading them is not told of"),
    Observation {
        grant: Some("scope.privileges"),
        ..change(
            "file.mount",
            MOUNTED,
            "mount, umount, move_mount, open_tree, fsmount, mount_setattr and pivot_root, bind mounts among them",
        )
    },
    Observation {
        event: "file.map_exec",
        family: "file",
        grant: None,
        attributes: OPEN,
        hook: "tp_btf/sys_exit",
        guarantee: "files mapped to be executed by mmap, or made so by mprotect; repeats counted exactly",
        blind_spots: MAP_BLIND_SPOTS,
    },
    Observation {
        event: "file.map_write",
        family: "file",
        grant: Some("scope.files"),
        attributes: OPEN,
        hook: "tp_btf/sys_exit",
        guarantee: "files mapped so that writing to memory writes to them; repeats counted exactly",
        blind_spots: MAP_BLIND_SPOTS,
    },
    Observation {
        event: "file.io",
        family: "file",
        grant: None,
        attributes: &[
            "file.path",
            "bailiwick.file.access",
            "bailiwick.file.bytes",
            "bailiwick.file.device",
            "bailiwick.file.inode",
        ],
        hook: "tp_btf/sys_exit, tp_btf/io_uring_complete",
        guarantee: "exact calls and bytes by process, file and direction, whoever opened it; sendfile, splice and \
                    copy_file_range name both files",
        blind_spots: &[
            "reads and writes of mapped memory are not counted",
            "a file with several names is counted under the one it was first used by",
            "copies within a file system by ioctl (FICLONE, FICLONERANGE, FIDEDUPERANGE) are no bytes read or written",
        ],
    },
    socket(
        "network.connect",
        Some("scope.network"),
        CONNECT,
        "IPv4 and IPv6, the address that the socket holds; of a failed one the address as given; TCP fast open; vsock",
        CONNECT_BLIND_SPOTS,
    ),
    socket(
        "network.send",
        Some("scope.network"),
        SEND,
        "sendto, sendmsg and sendmmsg to an address, as given; repeats to the same address counted exactly",
        &[],
    ),
    socket("network.bind", Some("scope.network"), OWN_ADDRESS, "the address that the socket holds", &[]),
    socket("network.listen", Some("scope.network"), OWN_ADDRESS, "the address that the socket holds", &[]),
    socket("network.accept", None, ACCEPT, "both ends, as the new socket holds them", &[]),
    Observation {
        hook: "tp_btf/inet_sock_set_state",
        ..socket(
            "network.close",
            None,
            CLOSE,
            "the end of a TCP connection that the session made or took, with its bytes of data",
            &[
                "the end of a connection that was made before its process joined the session is not told of",
                "the end of a connection that comes after its session's end stands behind that; it is not told of once no session \
                 lives and the hooks are detached",
                "the end of a UDP socket, and its bytes, are not told of",
            ],
        )
    },
    socket(
        "network.raw",
        Some("scope.privileges"),
        RAW,
        "when they are made, raw, packet and XDP sockets, and all others but those of Unix, netlink, vsock and the usual protocols \
         of IPv4 and IPv6",
        &[],
    ),
    socket("network.netlink", None, RAW, "netlink sockets, when they are made", &[]),
    Observation {
        event: "unix.connect",
        family: "network",
        grant: Some("scope.unix"),
        attributes: &[
            "[bailiwick.unix.path]",
            "[bailiwick.unix.abstract]",
            "[bailiwick.peer.tgid]",
            "[bailiwick.peer.executable]",
            "[bailiwick.peer.user.id]",
            "network.transport",
            "[bailiwick.network.as_given]",
            "[error.type]",
        ],
        hook: "tp_btf/sys_exit",
        guarantee: "the listener's own path or abstract name, whatever was given, and the process that listens",
        blind_spots: &[
            "of a message to an address, and of a connect that failed, the name is as given, and no process is known",
            "a process that hands its listening socket on is named still",
        ],
    },
    Observation {
        event: "fd.receive",
        family: "network",
        grant: Some("scope.files"),
        attributes: OPEN,
        hook: "tp_btf/sys_exit",
        guarantee: "every descriptor that came over a Unix socket or by pidfd_getfd, as the file that it is",
        blind_spots: &[
            "of descriptors received: another thread may change the message before it is looked at",
            "who opened a descriptor that was received is not known",
        ],
    },
    privilege(
        "privilege.ptrace",
        PTRACED,
        "ptrace (TRACEME, ATTACH, SEIZE), process_vm_readv and _writev, pidfd_getfd, kcmp",
    ),
    Observation {
        hook: "tp_btf/signal_generate, tp_btf/sys_exit",
        blind_spots: &["a signal that the kernel refuses to send is not told of"],
        ..privilege(
            "privilege.signal",
            &["bailiwick.signal", "bailiwick.target.tgid", "[bailiwick.target.start_boot_ns]", "[bailiwick.syscall]"],
            "every signal sent to a process outside the session, by whatever call; and every such process that is made the \
             owner of a file's signals (fcntl, ioctl), whoever sets them off then",
        )
    },
    privilege(
        "privilege.setid",
        SET_ID,
        "every call that sets user or group ids, of the file system too, and setgroups",
    ),
    privilege("privilege.capset", PRIVILEGE, "capset"),
    Observation {
        event: "privilege.namespace",
        family: "privilege",
        grant: Some("scope.privileges"),
        attributes: NAMESPACED,
        hook: "tp_btf/sys_exit, tp_btf/sched_process_fork",
        guarantee: "unshare, setns and chroot; clone and clone3 by the namespaces that they really made",
        blind_spots: &["a clone with new namespaces that the kernel refused"],
    },
    privilege("privilege.bpf", &["bailiwick.bpf.command", "bailiwick.syscall", "[error.type]"], "the call bpf"),
    privilege("privilege.module", MODULE, "init_module, finit_module and delete_module"),
    privilege("privilege.kexec", MODULE, "kexec_load and kexec_file_load"),
    privilege("privilege.keyctl", KEYS, "add_key, request_key and keyctl"),
    privilege("privilege.memfd", MEMFD, "memfd_create and memfd_secret"),
    privilege("privilege.perf", PRIVILEGE, "perf_event_open"),
    Observation {
        event: "io_uring.setup",
        family: "io_uring",
        grant: None,
        attributes: &["bailiwick.io_uring.entries", "bailiwick.syscall", "[error.type]"],
        hook: "tp_btf/sys_exit",
        guarantee: "every io_uring that is made",
        blind_spots: &[],
    },
    Observation {
        event: "syscall.count",
        family: "file",
        grant: None,
        attributes: &["bailiwick.syscall", "bailiwick.syscall.number", "[bailiwick.syscall.abi]"],
        hook: "tp_btf/sys_exit",
        guarantee: "exact counts by process and number; only with `sensor.observe = \"full\"`",
        blind_spots: &["system calls that never return are not counted"],
    },
    Observation {
        event: "io_uring.submit",
        family: "io_uring",
        grant: None,
        attributes: &[
            "bailiwick.io_uring.operation",
            "[file.path]",
            "[bailiwick.file.device]",
            "[bailiwick.file.inode]",
            "[error.type]",
        ],
        hook: "tp_btf/io_uring_complete; without a completion tp_btf/io_uring_submit_req, tp_btf/io_uring_cqe_overflow",
        guarantee: "every operation that was completed, with its file; repeats counted exactly; what it does is told of by \
                    the events of the same system calls, with `bailiwick.io_uring`",
        blind_spots: &[
            "an operation of an io_uring that is refused when it is taken in (a path that cannot be read, flags that are \
             unknown) is told of as an operation alone; of an open or a change of names that is a gap as well",
            "an operation of an io_uring that asks for no completion is told of when it is submitted, without its result, \
              and once more if the kernel tells of its failure, which of changes of names it does not; what it does beyond names \
              is a gap",
            "of operations of an io_uring that go by the same word (`user_data`) one whose completion finds no room is a gap, but \
             for what it does by a path: that is told of without its result",
            "while more than 4,096 operations by a path, or 128 by long ones, are under way, further ones are told of \
             without their result; an open that fails then is a gap",
            "while more than 4,096 operations of an io_uring that were given an address are under way, what further ones send to is \
             a gap, and of a failed connect the address is read when it is completed",
            "a file that another process puts into an io_uring's table by MSG_RING is no fd.receive",
        ],
    },
];

/// The event that a kind of record becomes; an open that creates is `file.create` instead.
pub fn event_of(kind: RecordKind) -> &'static str {
    match kind {
        RecordKind::Fork => "process.fork",
        RecordKind::Exec | RecordKind::ExecFailed => "process.exec",
        RecordKind::Exit => "process.exit",
        RecordKind::Open => "file.open",
        RecordKind::Mknod => "file.create",
        RecordKind::Unlink => "file.unlink",
        RecordKind::Rename => "file.rename",
        RecordKind::Link => "file.link",
        RecordKind::Symlink => "file.symlink",
        RecordKind::Mkdir => "file.mkdir",
        RecordKind::Rmdir => "file.rmdir",
        RecordKind::Truncate => "file.truncate",
        RecordKind::Chmod => "file.chmod",
        RecordKind::Chown => "file.chown",
        RecordKind::Xattr => "file.xattr",
        RecordKind::Mount => "file.mount",
        RecordKind::MapExec => "file.map_exec",
        RecordKind::MapWrite => "file.map_write",
        RecordKind::Connect => "network.connect",
        RecordKind::Accept => "network.accept",
        RecordKind::Bind => "network.bind",
        RecordKind::Listen => "network.listen",
        RecordKind::Raw => "network.raw",
        RecordKind::Netlink => "network.netlink",
        RecordKind::Send => "network.send",
        RecordKind::Close => "network.close",
        RecordKind::UnixConnect => "unix.connect",
        RecordKind::FdReceive => "fd.receive",
        RecordKind::Ptrace => "privilege.ptrace",
        RecordKind::Signal => "privilege.signal",
        RecordKind::Setid => "privilege.setid",
        RecordKind::Capset => "privilege.capset",
        RecordKind::Namespace => "privilege.namespace",
        RecordKind::Bpf => "privilege.bpf",
        RecordKind::Module => "privilege.module",
        RecordKind::Kexec => "privilege.kexec",
        RecordKind::Keyctl => "privilege.keyctl",
        RecordKind::Memfd => "privilege.memfd",
        RecordKind::Perf => "privilege.perf",
        RecordKind::IoUringSetup => "io_uring.setup",
        RecordKind::IoUringSubmit => "io_uring.submit",
        RecordKind::Io => "file.io",
        RecordKind::SyscallCount => "syscall.count",
    }
}

/// What judges an act.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Judged {
    /// Each of its names, as written to.
    Write,
    /// The privilege of that name.
    Privilege(&'static str),
    /// Nothing, or what its own kind of record is judged by.
    Otherwise,
}

/// What judges the acts of a kind.
pub fn judged_by(kind: RecordKind) -> Judged {
    match kind {
        RecordKind::Mknod
        | RecordKind::Unlink
        | RecordKind::Rename
        | RecordKind::Link
        | RecordKind::Symlink
        | RecordKind::Mkdir
        | RecordKind::Rmdir
        | RecordKind::Truncate
        | RecordKind::Chmod
        | RecordKind::Chown
        | RecordKind::Xattr => Judged::Write,
        RecordKind::Mount => Judged::Privilege("mount"),
        RecordKind::Ptrace => Judged::Privilege("ptrace"),
        RecordKind::Signal => Judged::Privilege("signal"),
        RecordKind::Setid => Judged::Privilege("setid"),
        RecordKind::Capset => Judged::Privilege("capset"),
        RecordKind::Namespace => Judged::Privilege("namespace"),
        RecordKind::Bpf => Judged::Privilege("bpf"),
        RecordKind::Module => Judged::Privilege("module"),
        RecordKind::Kexec => Judged::Privilege("kexec"),
        RecordKind::Keyctl => Judged::Privilege("keyctl"),
        RecordKind::Memfd => Judged::Privilege("memfd"),
        RecordKind::Perf => Judged::Privilege("perf"),
        RecordKind::Fork
        | RecordKind::Exec
        | RecordKind::ExecFailed
        | RecordKind::Exit
        | RecordKind::Open
        | RecordKind::MapExec
        | RecordKind::MapWrite
        | RecordKind::Connect
        | RecordKind::Accept
        | RecordKind::Bind
        | RecordKind::Listen
        | RecordKind::Raw
        | RecordKind::Netlink
        | RecordKind::Send
        | RecordKind::Close
        | RecordKind::UnixConnect
        | RecordKind::FdReceive
        | RecordKind::IoUringSetup
        | RecordKind::IoUringSubmit
        | RecordKind::Io
        | RecordKind::SyscallCount => Judged::Otherwise,
    }
}

/// What has no observation at all: a blind spot too.
pub const UNOBSERVED: &str = "not observed yet: DNS and TLS names";

/// What tier 2 cannot see whatever is asked of it: stands in `doctor`, `status` and `sensor.start`.
/// Each once, with the events that it is about.
pub fn blind_spots() -> Vec<String> {
    let mut spots: Vec<(&str, Vec<&str>)> = Vec::new();
    for observation in OBSERVATIONS {
        for spot in observation.blind_spots {
            match spots.iter_mut().find(|(known, _)| known == spot) {
                Some((_, events)) => events.push(observation.event),
                None => spots.push((spot, vec![observation.event])),
            }
        }
    }
    let texts = spots.into_iter().map(|(spot, events)| format!("{}: {spot}", events.join(", ")));
    texts.chain([UNOBSERVED.to_owned()]).collect()
}

/// `docs/events.md`, as the table says it.
pub fn events_page() -> String {
    let mut page = String::from(EVENTS_HEAD);
    for observation in OBSERVATIONS {
        let judged = observation.grant.map_or_else(|| "recorded only".to_owned(), |grant| format!("`{grant}`"));
        let attributes: Vec<String> = observation.attributes.iter().map(|name| format!("`{name}`")).collect();
        page.push_str(&format!("\n## {}\n\n", observation.event));
        page.push_str(&format!("- Judged by: {judged}\n- Hook: `{}`\n", observation.hook));
        page.push_str(&format!("- Guarantee: {}\n- Attributes: {}\n", observation.guarantee, attributes.join(", ")));
        for spot in observation.blind_spots {
            page.push_str(&format!("- Blind spot: {spot}\n"));
        }
    }
    page.push_str(EVENTS_TAIL);
    page.push_str(&findings_page());
    page
}

const EVENTS_HEAD: &str = "# Events

Made from the tables in `agent-userspace/src/observation.rs` and `finding/`; a test holds this page to them. Attributes in brackets stand
only where they apply. All of this is tier 2: BTF-typed tracepoints, kernel 6.1 and newer.

Any event about a file, a socket, an address or a program that a `[[resource]]` names has `bailiwick.resource` beside its own
attributes: a list of the names.
";

const EVENTS_TAIL: &str = "
## Derived, with no hook of their own

All are recorded only, with a `count` of 0 but for `credential.read`.

- `session.start`: the attributes of its first process's exec, or the variables of its environment where it ran already;
  `bailiwick.declaration.file`, `.sha256`: the declaration that it begins under; `bailiwick.session.adopted` where it ran before the
  daemon.
- `session.end`, the statement of completeness: `bailiwick.session.start_time`, `.processes`, `.entries`, `.out_of_scope`, `.findings`,
  `.lost` (actions), `.gaps` (how many, those of unknown sessions meanwhile among them), `.gaps_told` (the first sixteen: kind, how many,
  interval, reason), `.lost_by_kind` (all gaps: for each kind how many, in how many gaps, from when to when), `.blind_spots`; `.end_unseen` where a daemon that was killed left it open.
- `credential.read`: a credential was read: a file opened for reading, a socket connected to, a variable in the environment of an
  exec (once a session for each variable and program). `bailiwick.credential.name`, `.means` (`file`, `socket`, `environment`), `.declared`
  (by this agent), `.entry` (the uid of the entry that it follows from); `file.path`, or `.path` of a socket, or `.variable`. Never the
  value. Its `count` is that of the entry it follows from, flushes of repeats included.
- `delegation.start`: the entry of the new session; what the process was in the delegator's.
- `gap`: the object `gap`, and the same as `bailiwick.gap.kind`, `.lost`, `.from`, `.to`, `.reason`.
- `sensor.start`: `bailiwick.sensor.tier`, `.blind_spots`, `.hooks`, `bailiwick.config.hash`; `sensor.stop`.
- `config.change`: `bailiwick.config.hash`, `.hash_before`; the principal is who asked for it, null where a signal did.
- `decision.review`, of the agent that was reviewed, on whose word in `principal`: `bailiwick.review.from`, `.to` (the entries looked
  at), `.sessions`, `.entries`, `.lost`, `.gaps`, `.granted_unused`, `.used_not_granted`, `.findings`, `.declaration_sha256`.
- `trail.recovered`: `bailiwick.trail.bytes`, `bailiwick.trail.kept_in`.
- `trail.checkpoint`: `bailiwick.checkpoint.trail`, `.seq`, `.chain`, `.time`, `.key`, `.signature` (`docs/trail.md`).
- `trail.tombstone`: `bailiwick.tombstone.from_seq`, `.to_seq`, `.chain`, `.bytes`, `.reason`.
";

#[cfg(test)]
mod tests {
    use super::{OBSERVATIONS, events_page};

    #[test]
    fn the_page_of_events_says_what_the_table_says() {
        let page = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/events.md");
        if std::env::var_os("BAILIWICK_WRITE_DOCS").is_some() {
            assert!(std::fs::write(page, events_page()).is_ok());
        }
        let written = std::fs::read_to_string(page).unwrap_or_default();
        assert_eq!(
            written,
            events_page(),
            "make it anew: BAILIWICK_WRITE_DOCS=1 cargo test -p agent-userspace page_of_events"
        );
    }

    #[test]
    fn no_event_stands_in_the_table_twice() {
        let mut names: Vec<_> = OBSERVATIONS.iter().map(|observation| observation.event).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), OBSERVATIONS.len());
    }
}
