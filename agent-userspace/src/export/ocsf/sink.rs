//! From the trail to the file.

use std::sync::Arc;

use super::event::{Device, event};
use super::file::EventFile;
use super::{Charters, FileError, OcsfSettings};
use crate::entry::Entry;
use crate::export::place::{Place, Sink, Taken};

/// The file as an end of a way from the trail.
pub(in crate::export) struct OcsfSink {
    settings: OcsfSettings,
    device: Arc<Device>,
    /// None until it is opened, and after it could not be written.
    open: Option<Open>,
    failures: u32,
}

struct Open {
    events: EventFile,
    /// The last seq that the file has already: what was written before a crash and not noted.
    there: u64,
}

impl OcsfSink {
    pub(in crate::export) fn new(settings: OcsfSettings, device: Device) -> Self {
        Self { settings, device: Arc::new(device), open: None, failures: 0 }
    }
}

impl Sink for OcsfSink {
    async fn take(&mut self, place: &mut Place, entries: Vec<Entry>) -> Taken {
        let Some(first) = entries.first().map(|entry| entry.seq) else { return Taken::All };
        let (open, settings, device) = (self.open.take(), self.settings.clone(), Arc::clone(&self.device));
        let (trail, mut charters) = (place.saved.trail.clone(), place.saved.charters.clone());
        let writing = tokio::task::spawn_blocking(move || {
            let mut open = open.map_or_else(|| Open::at_its_end(settings, &trail), Ok)?;
            let lines = lines(&entries, open.there, &device, &mut charters);
            if !lines.is_empty() {
                open.events.append(&lines)?;
            }
            Ok::<_, FileError>((open, charters, entries.len()))
        });
        let error = match writing.await {
            Ok(Ok((open, charters, written))) => {
                self.open = Some(open);
                self.failures = 0;
                place.saved.charters = charters;
                place.went_on(u64::try_from(written).unwrap_or(u64::MAX));
                return Taken::All;
            }
            Ok(Err(error)) => error.to_string(),
            Err(error) => format!("writing events did not end: {error}"),
        };
        self.failures = self.failures.saturating_add(1);
        place.failed(error);
        place.tries_again();
        Taken::Before(first)
    }

    async fn pause(&self, place: &Place) {
        tokio::select! {
            () = tokio::time::sleep(place.backoff.wait(self.failures)) => {}
            () = place.stopped() => {}
        }
    }
}

impl Open {
    /// The file of the settings, and what it has of this trail.
    fn at_its_end(settings: OcsfSettings, trail: &str) -> Result<Self, FileError> {
        let mut events = EventFile::new(settings);
        let uid = events.last_uid()?;
        Ok(Self { events, there: seq_of(uid.as_deref(), trail) })
    }
}

/// The seq in a uid of this trail; 0 for that of another.
fn seq_of(uid: Option<&str>, of_trail: &str) -> u64 {
    let split = uid.and_then(|uid| uid.rsplit_once('-'));
    split.filter(|(trail, _)| *trail == of_trail).and_then(|(_, seq)| seq.parse().ok()).unwrap_or(0)
}

/// The entries after `there` as lines.
fn lines(entries: &[Entry], there: u64, device: &Device, charters: &mut Charters) -> Vec<u8> {
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
