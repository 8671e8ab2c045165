//! The one table of what is observed: name, family, grant, hook, what it guarantees and what it cannot see. Documents,
//! `doctor` and the sensor's start derive from it.

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
    "opens through io_uring are not seen",
    "a file is judged by the path in its own mount namespace; a chroot's view is not",
    "a descriptor that another thread replaces before the call returns is seen as its replacement",
    "a file received over a socket, or taken with pidfd_getfd, was opened by another",
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
    "[bailiwick.file.found_open]",
    "[error.type]",
];

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
    Observation {
        event: "network.connect",
        family: "network",
        grant: Some("scope.network"),
        attributes: CONNECT,
        hook: "tp_btf/sys_exit",
        guarantee: "IPv4 and IPv6, the address that the socket holds; of a failed one the address as given",
        blind_spots: &[
            "connects through io_uring are not seen",
            "what is sent without a connect (UDP sendto) is not seen",
            "Unix sockets are not seen",
        ],
    },
];

/// What has no observation at all: a blind spot too.
pub const UNOBSERVED: &str =
    "not observed yet: unlink, rename and other changes of names, listen and accept, Unix sockets, DNS, privileges";

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
    page
}

const EVENTS_HEAD: &str = "# Events

Made from the table in `agent-userspace/src/observation.rs`; a test holds this page to it. Attributes in brackets stand
only where they apply. All of this is tier 2: BTF-typed tracepoints, kernel 6.1 and newer.
";

const EVENTS_TAIL: &str = "
## Derived, with no hook of their own

All are recorded only, with a `count` of 0.

- `session.start`: the attributes of its first process's exec; `bailiwick.session.adopted` where it ran before the daemon.
- `session.end`: `bailiwick.session.start_time`, `.processes`, `.entries`, `.out_of_scope`, `.lost`; `.end_unseen` where a
  daemon that was killed left it open.
- `delegation.start`: the entry of the new session; what the process was in the delegator's.
- `gap`: the object `gap`, and the same as `bailiwick.gap.kind`, `.lost`, `.from`, `.to`, `.reason`.
- `sensor.start`: `bailiwick.sensor.tier`, `.blind_spots`, `.hooks`, `bailiwick.config.hash`; `sensor.stop`.
- `config.change`: `bailiwick.config.hash`.
- `trail.recovered`: `bailiwick.trail.bytes`, `bailiwick.trail.kept_in`.
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
