//! What the daemon and the gate say to each other: messages of eight words, one a packet.
//!
//! Both ends are the same binary, so there is neither version nor byte order. Decoding is pure and never panics; a
//! message that cannot be decoded is `None`.

/// The size of every message.
pub(super) const MESSAGE_BYTES: usize = WORDS * 8;

const WORDS: usize = 8;

/// A message on its way.
pub(super) type Message = [u8; MESSAGE_BYTES];

/// A file as fanotify's events and the paths of targets agree on: device and inode.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct FileId {
    /// The device's number (`st_dev`).
    pub(super) device: u64,
    /// The inode's number (`st_ino`).
    pub(super) inode: u64,
}

/// What the daemon tells the gate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Order {
    /// Begin: the descriptor that comes along is the shared page.
    Begin,
    /// Mark the file whose descriptor comes along.
    Mark {
        /// The attempt, repeated in the report.
        id: u64,
    },
    /// Take the mark off the file whose descriptor comes along.
    Unmark,
    /// Take off every mark.
    UnmarkAll,
    /// The answer to `Report::Held`.
    Answer {
        /// Which one.
        ticket: u64,
        /// Whether the hooks are attached.
        attached: bool,
    },
    /// The shared page says that the hooks are attached: look.
    Look,
}

/// What the gate tells the daemon.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Report {
    /// It is ready for marks.
    Ready,
    /// It cannot begin, and ends.
    Failed {
        /// What failed.
        step: Step,
        /// With which error.
        errno: i32,
    },
    /// The file is marked.
    Marked {
        /// The attempt.
        id: u64,
    },
    /// The kernel refused the mark.
    NotMarked {
        /// The attempt.
        id: u64,
        /// With which error.
        errno: i32,
    },
    /// An exec waits for the hooks.
    Held {
        /// To be repeated in the answer.
        ticket: u64,
        /// What is executed.
        file: FileId,
        /// Who executes it, where the kernel could tell.
        tgid: Option<u32>,
        /// Since when it waits, nanoseconds after boot.
        since_boot_ns: u64,
    },
    /// An exec went on while the hooks were not attached.
    LetThrough(Passage),
}

/// An exec, or several, that went on unattached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Passage {
    /// What was executed; `None` where there are several, or the kernel did not say.
    pub(super) file: Option<FileId>,
    /// Who executed it; `None` likewise.
    pub(super) tgid: Option<u32>,
    /// How many there were; `None` where the kernel did not count them.
    pub(super) execs: Option<u64>,
    /// When the (first) exec went on, nanoseconds after boot.
    pub(super) from_boot_ns: u64,
    /// Why.
    pub(super) why: Why,
}

/// Why an exec went on although the hooks were not attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Why {
    /// The daemon did not answer in time: it was stopped, or too busy.
    NoAnswer,
    /// The daemon answered that it cannot attach.
    Declined,
    /// More execs waited than the gate holds.
    Crowded,
    /// More execs came than the kernel queues.
    QueueFull,
}

impl Why {
    /// The reason as a gap's entry gives it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::NoAnswer => "the daemon did not attach its hooks in time",
            Self::Declined => "the daemon could not attach its hooks",
            Self::Crowded => "more executables were started at once than the gate holds",
            Self::QueueFull => "more executables were started at once than the kernel queues for the gate",
        }
    }

    const ALL: [Self; 4] = [Self::NoAnswer, Self::Declined, Self::Crowded, Self::QueueFull];

    fn to_wire(self) -> u64 {
        match self {
            Self::NoAnswer => 0,
            Self::Declined => 1,
            Self::Crowded => 2,
            Self::QueueFull => 3,
        }
    }

    fn from_wire(raw: u64) -> Option<Self> {
        Self::ALL.into_iter().find(|why| why.to_wire() == raw)
    }
}

/// A step of the gate's beginning that can fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Step {
    /// Making the fanotify group.
    Group,
    /// Making the timer that kills a gate which stands still.
    Timer,
    /// Mapping the page shared with the daemon.
    Page,
    /// Having enough file descriptors: an event for which there is none would be a refused exec.
    Descriptors,
}

impl Step {
    /// The step, to stand after "the gate failed at".
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Group => "fanotify_init (it needs CAP_SYS_ADMIN and a kernel with fanotify permission events)",
            Self::Timer => "timer_create",
            Self::Page => "mapping the page it shares with the daemon",
            Self::Descriptors => "raising its limit of open files",
        }
    }

    const ALL: [Self; 4] = [Self::Group, Self::Timer, Self::Page, Self::Descriptors];

    fn to_wire(self) -> u64 {
        match self {
            Self::Group => 0,
            Self::Timer => 1,
            Self::Page => 2,
            Self::Descriptors => 3,
        }
    }

    fn from_wire(raw: u64) -> Option<Self> {
        Self::ALL.into_iter().find(|step| step.to_wire() == raw)
    }
}

impl Order {
    /// The message that says this.
    pub(super) fn encode(self) -> Message {
        match self {
            Self::Begin => pack([1, 0, 0, 0, 0, 0, 0, 0]),
            Self::Mark { id } => pack([2, id, 0, 0, 0, 0, 0, 0]),
            Self::Unmark => pack([3, 0, 0, 0, 0, 0, 0, 0]),
            Self::UnmarkAll => pack([4, 0, 0, 0, 0, 0, 0, 0]),
            Self::Answer { ticket, attached } => pack([5, ticket, u64::from(attached), 0, 0, 0, 0, 0]),
            Self::Look => pack([6, 0, 0, 0, 0, 0, 0, 0]),
        }
    }

    /// What a message says.
    pub(super) fn decode(message: &Message) -> Option<Self> {
        let [kind, first, second, ..] = unpack(message);
        match kind {
            1 => Some(Self::Begin),
            2 => Some(Self::Mark { id: first }),
            3 => Some(Self::Unmark),
            4 => Some(Self::UnmarkAll),
            5 => Some(Self::Answer { ticket: first, attached: second != 0 }),
            6 => Some(Self::Look),
            _ => None,
        }
    }
}

impl Report {
    /// The message that says this.
    pub(super) fn encode(self) -> Message {
        match self {
            Self::Ready => pack([1, 0, 0, 0, 0, 0, 0, 0]),
            Self::Failed { step, errno } => pack([2, step.to_wire(), u64::from(errno.unsigned_abs()), 0, 0, 0, 0, 0]),
            Self::Marked { id } => pack([3, id, 0, 0, 0, 0, 0, 0]),
            Self::NotMarked { id, errno } => pack([4, id, u64::from(errno.unsigned_abs()), 0, 0, 0, 0, 0]),
            Self::Held { ticket, file, tgid, since_boot_ns } => {
                let tgid = u64::from(tgid.unwrap_or(0));
                pack([5, ticket, file.device, file.inode, tgid, since_boot_ns, 0, 0])
            }
            Self::LetThrough(Passage { file, tgid, execs, from_boot_ns, why }) => {
                // No file has inode 0 and no process the id 0, so 0 can stand for "unknown".
                let (device, inode) = file.map_or((0, 0), |file| (file.device, file.inode));
                let tgid = u64::from(tgid.unwrap_or(0));
                pack([6, device, inode, tgid, execs.unwrap_or(0), from_boot_ns, why.to_wire(), 0])
            }
        }
    }

    /// What a message says.
    pub(super) fn decode(message: &Message) -> Option<Self> {
        let [kind, a, b, c, d, e, f, _] = unpack(message);
        match kind {
            1 => Some(Self::Ready),
            2 => Some(Self::Failed { step: Step::from_wire(a)?, errno: i32::try_from(b).ok()? }),
            3 => Some(Self::Marked { id: a }),
            4 => Some(Self::NotMarked { id: a, errno: i32::try_from(b).ok()? }),
            5 => {
                let file = FileId { device: b, inode: c };
                Some(Self::Held { ticket: a, file, tgid: tgid_from_wire(d)?, since_boot_ns: e })
            }
            6 => Some(Self::LetThrough(Passage {
                file: (b != 0).then_some(FileId { device: a, inode: b }),
                tgid: tgid_from_wire(c)?,
                execs: (d != 0).then_some(d),
                from_boot_ns: e,
                why: Why::from_wire(f)?,
            })),
            _ => None,
        }
    }
}

/// `Some(None)` for "unknown", `None` for what is no id at all.
fn tgid_from_wire(raw: u64) -> Option<Option<u32>> {
    let tgid = u32::try_from(raw).ok()?;
    Some((tgid != 0).then_some(tgid))
}

fn pack(words: [u64; WORDS]) -> Message {
    let mut message = [0; MESSAGE_BYTES];
    for (bytes, word) in message.chunks_exact_mut(8).zip(words) {
        bytes.copy_from_slice(&word.to_ne_bytes());
    }
    message
}

fn unpack(message: &Message) -> [u64; WORDS] {
    let mut words = [0; WORDS];
    for (word, bytes) in words.iter_mut().zip(message.chunks_exact(8)) {
        *word = bytes.try_into().map_or(0, u64::from_ne_bytes);
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_order_says_after_the_way_what_it_said_before() {
        let orders = [
            Order::Begin,
            Order::Mark { id: u64::MAX },
            Order::Unmark,
            Order::UnmarkAll,
            Order::Answer { ticket: 7, attached: true },
            Order::Answer { ticket: 8, attached: false },
            Order::Look,
        ];
        for order in orders {
            assert_eq!(Order::decode(&order.encode()), Some(order));
        }
    }

    #[test]
    fn every_report_says_after_the_way_what_it_said_before() {
        let file = FileId { device: 0xfe00, inode: u64::MAX };
        let mut reports = vec![
            Report::Ready,
            Report::Marked { id: 3 },
            Report::NotMarked { id: 4, errno: 13 },
            Report::Held { ticket: 5, file, tgid: Some(42), since_boot_ns: u64::MAX },
            Report::Held { ticket: 5, file, tgid: None, since_boot_ns: 0 },
        ];
        reports.extend(Step::ALL.map(|step| Report::Failed { step, errno: 1 }));
        for why in Why::ALL {
            let known = Passage { file: Some(file), tgid: Some(1), execs: Some(1), from_boot_ns: 9, why };
            reports.push(Report::LetThrough(known));
            reports.push(Report::LetThrough(Passage { file: None, tgid: None, execs: None, ..known }));
        }
        for report in reports {
            assert_eq!(Report::decode(&report.encode()), Some(report));
        }
    }

    #[test]
    fn what_is_no_message_is_not_taken_for_one() {
        assert_eq!(Order::decode(&pack([99, 0, 0, 0, 0, 0, 0, 0])), None);
        assert_eq!(Report::decode(&pack([99, 0, 0, 0, 0, 0, 0, 0])), None);
        assert_eq!(Report::decode(&pack([2, 99, 1, 0, 0, 0, 0, 0])), None);
        assert_eq!(Report::decode(&pack([6, 1, 1, u64::MAX, 1, 1, 0, 0])), None);
        assert_eq!(Report::decode(&pack([6, 1, 1, 1, 1, 1, 99, 0])), None);
    }
}
