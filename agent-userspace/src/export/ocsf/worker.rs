//! From the trail to the file: whatever it waits for, no other target waits with it.

use std::path::PathBuf;

use tokio::sync::watch;
use tokio::time::Instant;

use super::event::{Device, event};
use super::file::EventFile;
use crate::entry::{Entry, Timestamp};
use crate::export::backoff::Backoff;
use crate::export::cursor::{CursorFile, Saved};
use crate::export::worker::{KEEP_EVERY, Progress, read_batch, stopped};
use crate::trail::{Position, TrailReader};

/// What the worker is given.
pub(in crate::export) struct OcsfWorker {
    pub(in crate::export) state_dir: PathBuf,
    pub(in crate::export) device: Device,
    pub(in crate::export) backoff: Backoff,
    /// The last seq that is durable.
    pub(in crate::export) durable: watch::Receiver<u64>,
    pub(in crate::export) stop: watch::Receiver<bool>,
    pub(in crate::export) progress: watch::Sender<Progress>,
    pub(in crate::export) file: CursorFile,
    pub(in crate::export) saved: Saved,
    pub(in crate::export) events: EventFile,
}

/// What goes to a thread that may block, and comes back.
struct Place {
    state_dir: PathBuf,
    device: Device,
    events: EventFile,
    reader: Option<TrailReader>,
    saved: Saved,
    /// The last seq that the file has already; none while that was not looked at.
    there: Option<u64>,
}

impl OcsfWorker {
    /// Works until it is told to stop.
    pub(in crate::export) async fn run(mut self) {
        let mut place = Place {
            state_dir: self.state_dir.clone(),
            device: self.device.clone(),
            events: self.events,
            reader: None,
            saved: self.saved.clone(),
            there: None,
        };
        let (mut kept, mut kept_at, mut failures) = (self.saved, Instant::now(), 0u32);
        while !*self.stop.borrow() {
            let through = *self.durable.borrow_and_update();
            let stepped = tokio::task::spawn_blocking(move || {
                let stepped = place.step(through);
                (place, stepped)
            });
            let Ok((back, stepped)) = stepped.await else {
                tracing::error!("writing OCSF events did not end: they go on after the next start");
                return;
            };
            place = back;
            match stepped {
                Ok(()) => failures = 0,
                Err(_) => failures = failures.saturating_add(1),
            }
            let seq = place.saved.cursor.seq;
            tell(&self.progress, seq, stepped.as_ref().err());
            if kept != place.saved && (kept_at.elapsed() >= KEEP_EVERY || *self.stop.borrow()) {
                kept = keep(&self.file, &place.saved, kept).await;
                kept_at = Instant::now();
            }
            let behind = seq < through;
            if stepped.is_ok() && behind {
                continue;
            }
            let pause = match stepped {
                Err(_) => self.backoff.wait(failures),
                Ok(()) => KEEP_EVERY,
            };
            tokio::select! {
                alive = self.durable.changed(), if stepped.is_ok() => if alive.is_err() { break },
                () = tokio::time::sleep(pause), if stepped.is_err() || kept != place.saved => {}
                () = stopped(self.stop.clone()) => {}
            }
        }
        keep(&self.file, &place.saved, kept).await;
        stopped(self.stop.clone()).await;
    }
}

impl Place {
    /// Writes the next entries, none after `through`.
    fn step(&mut self, through: u64) -> Result<(), String> {
        let there = match self.there {
            Some(there) => there,
            None => {
                let uid = self.events.last_uid().map_err(|error| error.to_string())?;
                *self.there.insert(self.seq_of(uid.as_deref()))
            }
        };
        if through <= self.saved.cursor.seq {
            return Ok(());
        }
        let mut reader = match self.reader.take() {
            Some(reader) => reader,
            None => TrailReader::open(&self.state_dir, Position::Cursor(self.saved.cursor))
                .map_err(|error| error.to_string())?,
        };
        let entries = read_batch(&mut reader, through).map_err(|error| error.to_string())?;
        let mut charters = self.saved.charters.clone();
        let lines = lines(&entries, there, &self.device, &mut charters);
        if !lines.is_empty() {
            // On failure the reader is dropped with it: the next opens at the cursor.
            self.events.append(&lines).map_err(|error| error.to_string())?;
        }
        self.saved.cursor = reader.cursor();
        self.saved.charters = charters;
        self.reader = Some(reader);
        Ok(())
    }

    /// The seq in a uid of this trail; 0 for that of another.
    fn seq_of(&self, uid: Option<&str>) -> u64 {
        let split = uid.and_then(|uid| uid.rsplit_once('-'));
        split.filter(|(trail, _)| *trail == self.saved.trail).and_then(|(_, seq)| seq.parse().ok()).unwrap_or(0)
    }
}

/// The entries after `there` as lines.
fn lines(entries: &[Entry], there: u64, device: &Device, charters: &mut super::Charters) -> Vec<u8> {
    let mut lines = Vec::new();
    for entry in entries {
        charters.before(&entry.draft);
        if entry.seq > there {
            lines.extend_from_slice(event(entry, device, charters).to_string().as_bytes());
            lines.push(b'\n');
        }
        charters.after(&entry.draft);
    }
    lines
}

/// Shows how far it is, and says why it does not go on: once, not at every try.
fn tell(progress: &watch::Sender<Progress>, seq: u64, error: Option<&String>) {
    let before = progress.borrow().error.clone();
    match (error, before.as_ref()) {
        (Some(error), before) if before != Some(error) => {
            tracing::warn!(error, "OCSF events wait; the trail keeps what is to be written");
        }
        (None, Some(_)) => tracing::info!("OCSF events are written again"),
        (Some(_) | None, _) => {}
    }
    progress.send_modify(|progress| {
        let written = seq.saturating_sub(progress.acknowledged);
        if written > 0 {
            progress.counts.sent = progress.counts.sent.saturating_add(written);
            progress.last_success = Some(Timestamp::now());
        }
        progress.acknowledged = seq;
        progress.error = error.cloned();
    });
}

/// Keeps the cursor; returns what is kept now. A disk that is full is tried again: until then, the file's own end tells.
async fn keep(file: &CursorFile, saved: &Saved, kept: Saved) -> Saved {
    if kept == *saved {
        return kept;
    }
    let (file, saved) = (file.clone(), saved.clone());
    match tokio::task::spawn_blocking(move || file.save(&saved).map(|()| saved)).await {
        Ok(Ok(saved)) => saved,
        Ok(Err(error)) => {
            tracing::warn!(%error, "the place of OCSF events is not kept");
            kept
        }
        Err(_) => kept,
    }
}
