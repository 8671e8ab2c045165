//! A ring, and what became of each operation.

use anyhow::Context;
use io_uring::squeue::{Entry, Flags};
use io_uring::types::Timespec;
use io_uring::{IoUring, opcode};
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
    mode: Mode,
}

impl Ring {
    pub(crate) fn new(mode: Mode) -> anyhow::Result<Self> {
        let (ring, flags) = match mode {
            Mode::Plain => (IoUring::new(8)?, Flags::empty()),
            Mode::Async => (IoUring::new(8)?, Flags::ASYNC),
            Mode::Polled => (IoUring::builder().setup_sqpoll(50).build(8)?, Flags::empty()),
        };
        Ok(Self { ring, flags, done: Vec::new(), mode })
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

    /// Has one done a little later than it is taken in, and `meanwhile` before it begins.
    pub(crate) fn run_later(&mut self, name: &str, entry: Entry, meanwhile: impl FnOnce()) -> anyhow::Result<i32> {
        const FIRST: u64 = 1;
        let wait = Timespec::new().nsec(50_000_000);
        let first = opcode::Timeout::new(&raw const wait).build().flags(Flags::IO_HARDLINK).user_data(FIRST);
        // SAFETY: whatever the entries lead to outlives this call, which waits for their completions.
        unsafe {
            self.ring.submission().push(&first)?;
            self.ring.submission().push(&entry.flags(self.flags))?;
        }
        self.ring.submit()?;
        if self.mode == Mode::Polled {
            // Until the thread has taken them in.
            while !self.ring.submission().is_empty() {
                std::thread::yield_now();
            }
        }
        meanwhile();
        let result = loop {
            self.ring.submit_and_wait(1)?;
            if let Some(end) = self.ring.completion().find(|end| end.user_data() != FIRST) {
                break end.result();
            }
        };
        self.done.push(json!({"operation": "TIMEOUT", "result": -libc::ETIME}));
        self.done.push(json!({"operation": name, "result": result}));
        Ok(result)
    }

    /// Has one done that has several completions, each caused by one of so many calls of `cause`.
    pub(crate) fn run_several(
        &mut self,
        entry: Entry,
        times: usize,
        mut cause: impl FnMut(usize) -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        const SEVERAL: u64 = 7;
        // SAFETY: whatever the entry leads to outlives the ring, which its owner drops first.
        unsafe { self.ring.submission().push(&entry.flags(self.flags).user_data(SEVERAL))? };
        self.ring.submit()?;
        for time in 0..times {
            cause(time)?;
            self.ring.submit_and_wait(1)?;
            let end = self.ring.completion().next().context("no completion")?;
            anyhow::ensure!(end.result() >= 0, "number {time} came to {}", end.result());
            anyhow::ensure!(io_uring::cqueue::more(end.flags()), "number {time} was the last");
        }
        // SAFETY: the entry leads to nothing.
        unsafe { self.ring.submission().push(&opcode::AsyncCancel::new(SEVERAL).build())? };
        loop {
            self.ring.submit_and_wait(1)?;
            if self.ring.completion().any(|end| end.user_data() == SEVERAL) {
                return Ok(());
            }
        }
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
