//! One signal on its way: reads the trail, sends, and moves its cursor once the receiver has acknowledged.
//!
//! It waits for ever rather than lose anything; whatever it waits for, no other signal waits with it.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior};

use super::backoff::Backoff;
use super::cursor::{CursorFile, Saved};
use super::dead_letters::DeadLetters;
use super::delivery::{Delivered, FEWEST_SUSPECTS, Sent};
use super::metrics;
use super::payload::Origin;
use super::sender::Sender;
use super::settings::Signal;
use crate::entry::{Entry, Timestamp};
use crate::metrics::Registry;
use crate::trail::{Cursor, Identity, Position, TrailError, TrailReader};

/// Records in a request.
pub(super) const MAX_RECORDS: usize = 512;
/// Bytes of the trail read for a request: as OTLP, entries grow by less than twice.
const MAX_READ_BYTES: usize = 1024 * 1024;
/// A cursor is kept at most this often: what was sent since is sent again after a crash, and is the same.
pub(super) const KEEP_EVERY: Duration = Duration::from_millis(500);

/// How far a signal has come.
#[derive(Clone, Debug, Default)]
pub(super) struct Progress {
    pub(super) acknowledged: u64,
    /// Records that the receiver refused for good, since the trail was made.
    pub(super) rejected: u64,
    /// Those of them that a dead letter tells of.
    pub(super) dead_lettered: u64,
    /// What happened since the daemon started.
    pub(super) counts: Counts,
    /// When the receiver last accepted something.
    pub(super) last_success: Option<Timestamp>,
    /// The time of the first entry that is on its way and not acknowledged.
    pub(super) oldest: Option<Timestamp>,
    /// Why it does not go on, while it does not.
    pub(super) error: Option<String>,
}

/// What happened to a signal since the daemon started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Counts {
    /// Records that the receiver accepted.
    pub(super) sent: u64,
    /// Requests that were tried again.
    pub(super) retried: u64,
    /// Records that the receiver refused for good.
    pub(super) rejected: u64,
    /// Those of them that a dead letter tells of.
    pub(super) dead_lettered: u64,
}

/// What a worker is given.
pub(super) struct Worker {
    pub(super) target: String,
    pub(super) signal: Signal,
    pub(super) state_dir: PathBuf,
    pub(super) identity: Identity,
    pub(super) sender: Sender,
    pub(super) origin: Origin,
    /// What the daemon tells of itself, beside the sums over the trail.
    pub(super) own: Arc<Registry>,
    pub(super) backoff: Backoff,
    pub(super) metrics_interval: Duration,
    /// The last seq that is durable.
    pub(super) durable: watch::Receiver<u64>,
    /// A seq that somebody waits for.
    pub(super) wanted: watch::Receiver<u64>,
    pub(super) stop: watch::Receiver<bool>,
    pub(super) progress: watch::Sender<Progress>,
    pub(super) dead_letters: DeadLetters,
    pub(super) file: CursorFile,
    pub(super) saved: Saved,
}

pub(super) struct Running {
    pub(super) worker: Worker,
    /// Records in a request: less after one was too large for the receiver, then slowly more again.
    pub(super) most: usize,
    /// How many records may be refused one after the other before it is the receiver that is wrong.
    pub(super) most_suspects: usize,
    pub(super) reader: Option<TrailReader>,
    kept: Saved,
    kept_at: Instant,
}

impl Worker {
    /// Works until it is told to stop.
    pub(super) async fn run(self) {
        let mut running = Running {
            most: MAX_RECORDS,
            most_suspects: FEWEST_SUSPECTS,
            reader: None,
            kept: self.saved.clone(),
            kept_at: Instant::now(),
            worker: self,
        };
        match running.worker.signal {
            Signal::Logs | Signal::Traces => {
                running.send_entries().await;
                running.keep().await;
            }
            // Its totals run ahead of what is acknowledged: they are kept only together, after each sending.
            Signal::Metrics => running.send_metrics().await,
        }
    }
}

impl Running {
    async fn send_entries(&mut self) {
        while !*self.worker.stop.borrow() {
            let through = *self.worker.durable.borrow_and_update();
            let entries = self.read(through).await;
            if entries.is_empty() {
                self.idle().await;
                continue;
            }
            match self.deliver(&entries).await {
                Delivered::All => self.acknowledged(),
                Delivered::Before(seq) => {
                    self.acknowledged_before(seq);
                    self.keep().await;
                    self.pause(self.worker.backoff.long_wait()).await;
                }
                Delivered::Stopped => return,
            }
            if self.kept_at.elapsed() >= KEEP_EVERY {
                self.keep().await;
            }
        }
    }

    async fn send_metrics(&mut self) {
        let mut ticks = tokio::time::interval(self.worker.metrics_interval);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let acknowledged = self.worker.progress.borrow().acknowledged;
            let wanted = self.worker.wanted.clone();
            let awaited = async {
                let mut wanted = wanted;
                wanted.wait_for(|seq| *seq > acknowledged).await.is_ok()
            };
            let due = tokio::select! {
                _ = ticks.tick() => true,
                alive = awaited => alive && self.durable_beyond(acknowledged).await,
                () = stopped(self.worker.stop.clone()) => return,
            };
            if !due {
                return;
            }
            let through = *self.worker.durable.borrow_and_update();
            self.fold(through).await;
            if self.worker.saved.cursor.seq == acknowledged && through > acknowledged {
                // The trail could not be read: whoever waits must not make this loop spin.
                tokio::time::sleep(self.worker.backoff.first).await;
            }
            let totals = self.worker.saved.totals.clone().unwrap_or_default();
            let mut metrics = metrics::metrics(&totals, self.worker.identity.created, Timestamp::now());
            metrics.extend(self.worker.own.metrics());
            let payload = self.worker.origin.metrics(metrics);
            if let Sent::Stopped = self.send(&payload, &[]).await {
                return;
            }
            self.acknowledged();
            self.keep().await;
        }
    }

    /// Waits until there is more that may be sent; `false` when it is time to stop.
    async fn durable_beyond(&self, seq: u64) -> bool {
        let mut durable = self.worker.durable.clone();
        let stop = self.worker.stop.clone();
        tokio::select! {
            more = durable.wait_for(|last| *last > seq) => more.is_ok(),
            () = stopped(stop) => false,
        }
    }

    /// Adds what is new to the totals.
    async fn fold(&mut self, through: u64) {
        let mut totals = self.worker.saved.totals.take().unwrap_or_default();
        while !*self.worker.stop.borrow() {
            let entries = self.read(through).await;
            if entries.is_empty() {
                break;
            }
            self.on_its_way(&entries);
            for entry in &entries {
                totals.add(entry);
            }
            self.worker.saved.cursor = self.reader.as_ref().map_or(self.worker.saved.cursor, TrailReader::cursor);
        }
        self.worker.saved.totals = Some(totals);
    }

    /// The next entries, none after `through`; none where there are none, or where the trail cannot be read now.
    async fn read(&mut self, through: u64) -> Vec<Entry> {
        let reader = self.reader.take();
        let (state_dir, cursor) = (self.worker.state_dir.clone(), self.worker.saved.cursor);
        if through <= cursor.seq {
            self.reader = reader;
            return Vec::new();
        }
        let reading = tokio::task::spawn_blocking(move || {
            let mut reader = match reader {
                Some(reader) => reader,
                None => TrailReader::open(&state_dir, Position::Cursor(cursor))?,
            };
            let entries = read_batch(&mut reader, through)?;
            Ok::<_, TrailError>((reader, entries))
        });
        match reading.await {
            Ok(Ok((reader, entries))) => {
                self.reader = Some(reader);
                entries
            }
            // Opened anew at the cursor next time.
            Ok(Err(error)) => {
                self.failed(error.to_string());
                Vec::new()
            }
            Err(error) => {
                self.failed(format!("reading the trail did not end: {error}"));
                Vec::new()
            }
        }
    }

    /// Waits for something to do; meanwhile keeps the cursor, once it has moved.
    async fn idle(&mut self) {
        let stop = self.worker.stop.clone();
        let moved = self.kept != self.worker.saved;
        // While there is something to read that could not be read, look again after a while.
        let behind = *self.worker.durable.borrow() > self.worker.saved.cursor.seq;
        let pause = if behind { self.worker.backoff.first } else { KEEP_EVERY.saturating_sub(self.kept_at.elapsed()) };
        tokio::select! {
            alive = self.worker.durable.changed() => {
                if alive.is_err() {
                    // The trail is closed: nothing will come any more.
                    self.keep().await;
                    stopped(stop).await;
                }
            }
            () = tokio::time::sleep(pause), if moved || behind => self.keep().await,
            () = stopped(self.worker.stop.clone()) => {}
        }
    }

    fn acknowledged(&mut self) {
        let cursor = self.reader.as_ref().map_or(self.worker.saved.cursor, TrailReader::cursor);
        self.worker.saved.cursor = cursor;
        self.worker.progress.send_modify(|progress| {
            progress.acknowledged = cursor.seq;
            progress.oldest = None;
        });
    }

    /// Of what was read, only the entries before this one are acknowledged: it is read again from there on.
    fn acknowledged_before(&mut self, seq: u64) {
        self.reader = None;
        let last = seq.saturating_sub(1);
        if last > self.worker.saved.cursor.seq {
            self.worker.saved.cursor = Cursor { seq: last, ..self.worker.saved.cursor };
            self.worker.progress.send_modify(|progress| progress.acknowledged = last);
        }
    }

    /// Keeps the cursor. A disk that is full now is tried again: until then, a crash means sending again.
    async fn keep(&mut self) {
        self.kept_at = Instant::now();
        if self.kept == self.worker.saved {
            return;
        }
        let (file, saved) = (self.worker.file.clone(), self.worker.saved.clone());
        let (to, signal) = (self.worker.target.as_str(), self.worker.signal.as_str());
        match tokio::task::spawn_blocking(move || file.save(&saved).map(|()| saved)).await {
            Ok(Ok(saved)) => self.kept = saved,
            Ok(Err(error)) => tracing::warn!(to, signal, %error, "the export's place is not kept"),
            Err(error) => tracing::warn!(to, signal, %error, "the export's place is not kept"),
        }
    }
}

/// Reads a batch, past lines that are no entries: those are for whoever verifies the trail, and hold up nothing here.
pub(super) fn read_batch(reader: &mut TrailReader, through: u64) -> Result<Vec<Entry>, TrailError> {
    loop {
        match reader.next_batch_through(through, MAX_RECORDS, MAX_READ_BYTES) {
            Err(error) if error.is_bad_line() => {
                tracing::error!(%error, "a line of the trail is not exported");
                reader.skip_line()?;
            }
            result => return result,
        }
    }
}

/// Returns when it is time to stop.
pub(super) async fn stopped(mut stop: watch::Receiver<bool>) {
    // An error means that whoever could say so is gone: that is the same.
    let _ = stop.wait_for(|stop| *stop).await;
}
