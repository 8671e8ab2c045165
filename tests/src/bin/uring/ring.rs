//! A ring, and what became of each operation.

use anyhow::Context;
use io_uring::IoUring;
use io_uring::squeue::{Entry, Flags};
use serde_json::{Value, json};

/// Who does the operations.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    /// The process itself.
    Plain,
    /// A worker thread of the kernel's.
    Async,
    /// A thread of the kernel's takes them.
    Polled,
}

/// A ring.
pub(crate) struct Ring {
    pub(crate) ring: IoUring,
    flags: Flags,
    pub(crate) done: Vec<Value>,
}

impl Ring {
    pub(crate) fn new(mode: Mode) -> anyhow::Result<Self> {
        let (ring, flags) = match mode {
            Mode::Plain => (IoUring::new(8)?, Flags::empty()),
            Mode::Async => (IoUring::new(8)?, Flags::ASYNC),
            Mode::Polled => (IoUring::builder().setup_sqpoll(50).build(8)?, Flags::empty()),
        };
        Ok(Self { ring, flags, done: Vec::new() })
    }

    /// Has one operation done, and waits for it.
    pub(crate) fn attempt(&mut self, name: &str, entry: Entry) -> anyhow::Result<i32> {
        // SAFETY: whatever the entry leads to outlives this call, which waits for its completion.
        unsafe { self.ring.submission().push(&entry.flags(self.flags))? };
        self.ring.submit_and_wait(1)?;
        let result = self.ring.completion().next().context("no completion")?.result();
        self.done.push(json!({"operation": name, "result": result}));
        Ok(result)
    }

    /// Has one done that must succeed.
    pub(crate) fn run(&mut self, name: &str, entry: Entry) -> anyhow::Result<i32> {
        let result = self.attempt(name, entry)?;
        anyhow::ensure!(result >= 0, "{name}: {}", std::io::Error::from_raw_os_error(-result));
        Ok(result)
    }

    /// Has one done that must fail so.
    pub(crate) fn fail(&mut self, name: &str, errno: i32, entry: Entry) -> anyhow::Result<()> {
        let result = self.attempt(name, entry)?;
        anyhow::ensure!(result == -errno, "{name} came to {result}, not to {}", -errno);
        Ok(())
    }

    /// Has one done that tells of its end a second time, when it needs its memory no longer.
    pub(crate) fn run_twice(&mut self, name: &str, entry: Entry) -> anyhow::Result<()> {
        self.run(name, entry)?;
        if self.ring.completion().next().is_none() {
            self.ring.submit_and_wait(1)?;
            self.ring.completion().next().context("no second completion")?;
        }
        Ok(())
    }
}
