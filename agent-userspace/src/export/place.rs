//! A reader's place in the trail: what it reads next, up to where it is acknowledged, and where that is kept.
//!
//! Each signal of each target has one of its own, and so has the file of OCSF events: there is one way from the trail, and
//! many ends ([`Sink`]). A place moves only when its end has taken what was read. It waits for ever rather than lose anything;
//! whatever it waits for, no other waits with it.

use std::path::PathBuf;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

use super::backoff::Backoff;
use super::cursor::{CursorError, CursorFile, Saved};
use super::settings::Signal;
use crate::entry::{Entry, Timestamp};
use crate::trail::{Cursor, Identity, Position, TrailError, TrailReader};

/// Entries read at once, and records in a request.
pub(super) const MAX_RECORDS: usize = 512;
/// Bytes of the trail read at once: as OTLP, entries grow by less than twice.
const MAX_READ_BYTES: usize = 1024 * 1024;
/// A cursor is kept at most this often: what was sent since is sent again after a crash, and is the same.
const KEEP_EVERY: Duration = Duration::from_millis(500);

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

/// What entries go to.
pub(super) trait Sink {
    /// Has it take entries, in their order.
    fn take(&mut self, place: &mut Place, entries: Vec<Entry>) -> impl Future<Output = Taken> + Send;

    /// Waits before what it did not take is read again.
    fn pause(&self, place: &Place) -> impl Future<Output = ()> + Send;
}

/// What became of entries.
pub(super) enum Taken {
    /// They are there, or refused for good.
    All,
    /// This one is still to be taken, and all after it.
    Before(u64),
    /// It was told to stop: what is not acknowledged is sent after the next start.
    Stopped,
}

/// Where a place is in, and who tells it to go on.
#[derive(Clone, Debug)]
pub(super) struct Ground {
    pub(super) state_dir: PathBuf,
    pub(super) identity: Identity,
    /// The last seq that is durable.
    pub(super) durable: watch::Receiver<u64>,
    pub(super) stop: watch::Receiver<bool>,
}

/// A place, and all that is known of the way from there.
pub(super) struct Place {
    pub(super) target: String,
    pub(super) signal: Signal,
    pub(super) ground: Ground,
    pub(super) backoff: Backoff,
    pub(super) progress: watch::Sender<Progress>,
    pub(super) saved: Saved,
    file: CursorFile,
    reader: Option<TrailReader>,
    kept: Saved,
    kept_at: Instant,
}

impl Place {
    /// Where a signal goes on. A place beyond the trail's end (a state directory that was put back from an old copy) would
    /// pass over what comes next: then it goes on at the end.
    pub(super) fn open(target: &str, signal: Signal, ground: &Ground, backoff: Backoff) -> Result<Self, CursorError> {
        let (trail, last_seq) = (&ground.identity.id, *ground.durable.borrow());
        let file = CursorFile::open(&ground.state_dir, target, signal.as_str())?;
        let mut saved = file.load(trail)?.unwrap_or_else(|| Saved { trail: trail.clone(), ..Saved::default() });
        if saved.cursor.seq > last_seq {
            let (signal, at) = (signal.as_str(), saved.cursor.seq);
            tracing::warn!(
                to = target,
                signal,
                at,
                last_seq,
                "the export was beyond the trail's end: it goes on there"
            );
            saved.cursor = Cursor { seq: last_seq, ..Cursor::default() };
        }
        let progress = Progress {
            acknowledged: saved.cursor.seq,
            rejected: saved.rejected,
            dead_lettered: saved.dead_lettered,
            ..Progress::default()
        };
        Ok(Self {
            target: target.to_owned(),
            signal,
            ground: ground.clone(),
            backoff,
            progress: watch::Sender::new(progress),
            kept: saved.clone(),
            saved,
            file,
            reader: None,
            kept_at: Instant::now(),
        })
    }

    /// Has the sink take all that comes, until it is told to stop.
    pub(super) async fn feed(mut self, mut sink: impl Sink) {
        while !self.is_to_stop() {
            let through = *self.ground.durable.borrow_and_update();
            let entries = self.read(through).await;
            if entries.is_empty() {
                self.idle().await;
                continue;
            }
            self.on_its_way(&entries);
            match sink.take(&mut self, entries).await {
                Taken::All => self.acknowledged(),
                Taken::Before(seq) => {
                    self.acknowledged_before(seq);
                    self.keep().await;
                    sink.pause(&self).await;
                }
                Taken::Stopped => break,
            }
            if self.kept_at.elapsed() >= KEEP_EVERY {
                self.keep().await;
            }
        }
        self.keep().await;
    }

    pub(super) fn is_to_stop(&self) -> bool {
        *self.ground.stop.borrow()
    }

    /// Returns when it is time to stop.
    pub(super) async fn stopped(&self) {
        stopped(self.ground.stop.clone()).await;
    }

    /// The next entries, none after `through`; none where there are none, or where the trail cannot be read now.
    pub(super) async fn read(&mut self, through: u64) -> Vec<Entry> {
        let reader = self.reader.take();
        let (state_dir, cursor) = (self.ground.state_dir.clone(), self.saved.cursor);
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
        let moved = self.kept != self.saved;
        // While there is something to read that could not be read, look again after a while.
        let behind = *self.ground.durable.borrow() > self.saved.cursor.seq;
        let pause = if behind { self.backoff.first } else { KEEP_EVERY.saturating_sub(self.kept_at.elapsed()) };
        let stop = self.ground.stop.clone();
        tokio::select! {
            alive = self.ground.durable.changed() => {
                if alive.is_err() {
                    // The trail is closed: nothing will come any more.
                    self.keep().await;
                    self.stopped().await;
                }
            }
            () = tokio::time::sleep(pause), if moved || behind => self.keep().await,
            () = stopped(stop) => {}
        }
    }

    /// What was read is acknowledged.
    pub(super) fn acknowledged(&mut self) {
        self.passed();
        let seq = self.saved.cursor.seq;
        self.progress.send_modify(|progress| {
            progress.acknowledged = seq;
            progress.oldest = None;
        });
    }

    /// What was read needs not be read again, whether it is acknowledged or not.
    pub(super) fn passed(&mut self) {
        self.saved.cursor = self.reader.as_ref().map_or(self.saved.cursor, TrailReader::cursor);
    }

    /// Of what was read, only the entries before this one are acknowledged: it is read again from there on.
    fn acknowledged_before(&mut self, seq: u64) {
        self.reader = None;
        let last = seq.saturating_sub(1);
        if last > self.saved.cursor.seq {
            self.saved.cursor = Cursor { seq: last, ..self.saved.cursor };
            self.progress.send_modify(|progress| progress.acknowledged = last);
        }
    }

    /// Keeps the cursor. A disk that is full now is tried again: until then, a crash means sending again.
    pub(super) async fn keep(&mut self) {
        self.kept_at = Instant::now();
        if self.kept == self.saved {
            return;
        }
        let (file, saved) = (self.file.clone(), self.saved.clone());
        let (to, signal) = (self.target.as_str(), self.signal.as_str());
        match tokio::task::spawn_blocking(move || file.save(&saved).map(|()| saved)).await {
            Ok(Ok(saved)) => self.kept = saved,
            Ok(Err(error)) => tracing::warn!(to, signal, %error, "the export's place is not kept"),
            Err(error) => tracing::warn!(to, signal, %error, "the export's place is not kept"),
        }
    }

    /// From when the oldest entry is that was not taken yet.
    pub(super) fn on_its_way(&self, entries: &[Entry]) {
        let Some(first) = entries.first() else { return };
        self.progress.send_modify(|progress| {
            progress.oldest.get_or_insert(first.draft.time);
        });
    }

    /// So many records were taken: whatever kept it from going on is over.
    pub(super) fn went_on(&self, records: u64) {
        let recovered = self.progress.borrow().error.is_some();
        self.progress.send_modify(|progress| {
            progress.error = None;
            progress.counts.sent += records;
            progress.last_success = Some(Timestamp::now());
        });
        if recovered {
            let (to, signal) = (self.target.as_str(), self.signal.as_str());
            tracing::info!(to, signal, "the export goes on");
        }
    }

    /// Says why it does not go on: once, not at every try.
    pub(super) fn failed(&self, error: String) {
        if self.progress.borrow().error.as_ref() != Some(&error) {
            let (to, signal) = (self.target.as_str(), self.signal.as_str());
            tracing::warn!(to, signal, error, "the export waits; the trail keeps what is to be sent");
            self.progress.send_modify(|progress| progress.error = Some(error));
        }
    }

    /// It tries again what failed.
    pub(super) fn tries_again(&self) {
        self.progress.send_modify(|progress| progress.counts.retried += 1);
    }
}

/// Reads a batch, past lines that are no entries: those are for whoever verifies the trail, and hold up nothing here.
fn read_batch(reader: &mut TrailReader, through: u64) -> Result<Vec<Entry>, TrailError> {
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

async fn stopped(mut stop: watch::Receiver<bool>) {
    // An error means that whoever could say so is gone: that is the same.
    let _ = stop.wait_for(|stop| *stop).await;
}
