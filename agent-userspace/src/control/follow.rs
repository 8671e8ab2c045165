//! Passes over the trail's entries, in batches, so that neither a long trail nor a slow client holds a thread.
//!
//! Inputs: answers; a state that decides what of them the client gets. Outputs: lines on the wire; the state.
//! Refuses: nothing; it ends when the client is gone or stalls.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::watch;
use tokio::task::spawn_blocking;

use super::core::{Answer, Core, CoreError, Found, From, Question};
use super::protocol::{ErrorKind, RemoteError, Response, Since};
use super::query::Filter;
use super::writer::{Ended, Wire, append};
use crate::entry::{Entry, Timestamp};

/// Pieces looked at, bytes gathered, and time passed before the client is served: bounds the memory and the thread's time.
const BATCH_PIECES: usize = 4096;
const BATCH_BYTES: usize = 256 * 1024;
const BATCH_TIME: Duration = Duration::from_millis(100);

/// How long a follower lets entries gather before it reads them: a person does not see it, a busy host saves reads.
const GATHER: Duration = Duration::from_millis(20);

/// One way through an answer.
pub(super) struct Pass<S> {
    answer: Answer,
    state: S,
    /// What the client gets of a piece, if anything; may change the state.
    take: fn(&mut S, Found) -> Option<Entry>,
    lines: Vec<u8>,
    is_finished: bool,
}

impl<S: Send + 'static> Pass<S> {
    pub(super) fn new(answer: Answer, state: S, take: fn(&mut S, Found) -> Option<Entry>) -> Self {
        Self { answer, state, take, lines: Vec::new(), is_finished: false }
    }

    /// Goes through all of it; returns the state.
    pub(super) async fn send(mut self, wire: &mut Wire) -> Result<S, Ended> {
        while !self.is_finished {
            self = wire.while_there(on_its_own_thread(move || self.batch())).await???;
            wire.queue_lines(&self.lines);
            wire.flush().await?;
        }
        Ok(self.state)
    }

    fn batch(mut self) -> Result<Self, RemoteError> {
        self.lines.clear();
        let began = Instant::now();
        for _ in 0..BATCH_PIECES {
            let Some(found) = self.answer.next() else {
                self.is_finished = true;
                break;
            };
            if let Some(entry) = (self.take)(&mut self.state, found?) {
                append(&mut self.lines, &Response::Entry(Box::new(entry)))?;
            }
            if self.lines.len() >= BATCH_BYTES || began.elapsed() >= BATCH_TIME {
                break;
            }
        }
        Ok(self)
    }
}

/// Runs what may block where it may.
pub(super) async fn on_its_own_thread<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, RemoteError> {
    spawn_blocking(work).await.map_err(|_| RemoteError::new(ErrorKind::Failed, "the daemon failed on this request"))
}

/// What `tail` keeps between batches.
struct Tail {
    filter: Filter,
    not_before: Timestamp,
    /// Entries before this one are not of this pass: an answer may begin earlier than it was asked to.
    first_seq: u64,
    last_seq: u64,
}

impl Tail {
    fn take(&mut self, found: Found) -> Option<Entry> {
        let (Found::Entry(entry) | Found::Counted(entry)) = found else { return None };
        self.last_seq = self.last_seq.max(entry.seq);
        let is_of_pass = entry.seq >= self.first_seq && entry.draft.time >= self.not_before;
        (is_of_pass && self.filter.matches(&entry)).then_some(entry)
    }
}

/// Sends the entries that match, and with `is_following` those to come, until the client leaves.
pub(super) async fn tail(
    core: &Arc<dyn Core>,
    filter: Filter,
    since: Since,
    is_following: bool,
    wire: &mut Wire,
) -> Result<(), Ended> {
    let mut written = core.follow();
    // Read before the first pass, so that nothing falls between it and the second.
    let last_seq = *written.borrow_and_update();
    let not_before = match since {
        Since::Now | Since::Start => Timestamp::default(),
        Since::At(time) => time,
    };
    let mut tail = Tail { filter, not_before, first_seq: 0, last_seq };
    let first = match since {
        Since::Now => None,
        Since::Start => Some(From::Start),
        Since::At(time) => Some(From::Time(time)),
    };
    if let Some(from) = first {
        tail = pass(core, from, tail, wire).await?;
    }
    if !is_following {
        return Ok(());
    }
    loop {
        let is_more = wire.while_there(grown(&mut written, tail.last_seq)).await?;
        if !is_more {
            return Err(CoreError::Stopping.into());
        }
        // An answer leaves out what cannot matter: how far the pass came does not follow from the entries that it gave.
        let through = *written.borrow_and_update();
        tail.first_seq = tail.last_seq.saturating_add(1);
        tail = pass(core, From::Seq(tail.first_seq), tail, wire).await?;
        tail.last_seq = tail.last_seq.max(through);
    }
}

async fn pass(core: &Arc<dyn Core>, from: From, tail: Tail, wire: &mut Wire) -> Result<Tail, Ended> {
    let (reader, filter) = (Arc::clone(core), tail.filter.clone());
    let answer = on_its_own_thread(move || reader.find(Question::Entries { from, filter })).await?;
    Pass::new(answer, tail, Tail::take).send(wire).await
}

/// Waits until there is more than `last_seq`; false when there will never be.
async fn grown(written: &mut watch::Receiver<u64>, last_seq: u64) -> bool {
    let is_there = written.wait_for(|seq| *seq > last_seq).await.is_ok();
    if is_there {
        tokio::time::sleep(GATHER).await;
    }
    is_there
}
