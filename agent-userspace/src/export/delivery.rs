//! Entries to a receiver, whatever it answers: what is tried again, divided, held, or put among the dead letters.
//!
//! A record is refused for good only by a receiver that takes others: it is put aside, and is a dead letter when the next
//! one is accepted. A receiver that refuses everything is wrong itself, and nothing is given up because of it.

use std::time::Duration;

use tokio::time::Instant;

use super::dead_letters::Letter;
use super::outcome::Outcome;
use super::payload::Payload;
use super::settings::Signal;
use super::worker::{MAX_RECORDS, Running, stopped};
use crate::entry::{Entry, Timestamp};

/// Receivers take 4 MiB by default, and some that are meant for tests 1 MiB: less than that reaches all of them.
const MAX_REQUEST_BYTES: usize = 1000 * 1024;
/// A receiver that fails at the same request so often does so because of what is in it, if it takes another.
const PATIENCE: u32 = 4;
/// How many records may at first be refused one after the other: a receiver that refuses all gets few requests.
pub(super) const FEWEST_SUSPECTS: usize = 8;
/// How often it is looked whether a file that the settings name has changed, while nothing can be sent.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// What became of a request.
pub(super) enum Sent {
    Done {
        /// Whether the receiver took some of it.
        taken: bool,
    },
    /// Less of it may pass.
    TooLarge,
    /// The receiver will not take it, and says why.
    Refused(String),
    Stopped,
}

/// What became of entries.
pub(super) enum Delivered {
    All,
    /// This one, and all that were not refused after it, are still to be sent.
    Before(u64),
    Stopped,
}

/// A record that was refused on its own, and after which nothing was accepted yet.
struct Suspect<'a> {
    entry: &'a Entry,
    why: String,
}

impl Running {
    /// Sends entries, in as many requests as it takes.
    pub(super) async fn deliver(&mut self, entries: &[Entry]) -> Delivered {
        self.on_its_way(entries);
        let mut rest = entries;
        let mut suspects: Vec<Suspect<'_>> = Vec::new();
        // Whether something was refused of these entries, and whether something was accepted since.
        let (mut refused, mut cleared) = (false, false);
        while !rest.is_empty() && suspects.len() < self.most_suspects {
            let (now, later) = rest.split_at(rest.len().min(self.most));
            let Some(payload) = self.payload(now) else {
                rest = later;
                continue;
            };
            if now.len() > 1 && payload.encoded_len() > MAX_REQUEST_BYTES {
                self.most = now.len() / 2;
                continue;
            }
            match self.send(&payload, now).await {
                Sent::Done { taken } => {
                    rest = later;
                    self.most = (self.most + MAX_RECORDS / 32).min(MAX_RECORDS);
                    if taken {
                        cleared = refused;
                        self.most_suspects = FEWEST_SUSPECTS;
                        for suspect in suspects.drain(..) {
                            self.give_up(suspect).await;
                        }
                    }
                }
                Sent::TooLarge => self.most = now.len() / 2,
                Sent::Refused(why) => match now {
                    [entry] => {
                        (rest, refused) = (later, true);
                        let suspect = Suspect { entry, why };
                        if cleared {
                            self.give_up(suspect).await;
                        } else {
                            suspects.push(suspect);
                        }
                    }
                    several => {
                        refused = true;
                        self.most = several.len() / 2;
                    }
                },
                Sent::Stopped => return Delivered::Stopped,
            }
        }
        let Some(first) = suspects.first() else { return Delivered::All };
        self.most_suspects = (self.most_suspects * 2).min(MAX_RECORDS);
        self.failed(format!("refused, and nothing after it was accepted: {}", first.why));
        Delivered::Before(first.entry.seq)
    }

    fn payload(&self, entries: &[Entry]) -> Option<Payload> {
        match self.worker.signal {
            Signal::Logs => Some(self.worker.origin.logs(entries)),
            Signal::Traces => self.worker.origin.traces(entries),
            Signal::Metrics => None,
        }
    }

    /// Sends one request, made of these entries, until the receiver accepts it or says for good that it will not.
    pub(super) async fn send(&mut self, payload: &Payload, entries: &[Entry]) -> Sent {
        let divisible = entries.len() > 1;
        // Of metrics the next request says all that this one does: there is nothing to give up.
        let refusable = !entries.is_empty();
        let (mut failures, mut faults) = (0u32, 0u32);
        while !*self.worker.stop.borrow() {
            let backoff = self.worker.backoff;
            let (wait, error) = match self.worker.sender.send(payload).await {
                Outcome::Accepted { rejected, message } => {
                    self.accepted(payload, entries, rejected, &message).await;
                    return Sent::Done { taken: rejected < payload.records() };
                }
                Outcome::TooLarge { .. } if divisible => return Sent::TooLarge,
                Outcome::TooLarge { certain: true, error } | Outcome::Refused { error } if refusable => {
                    return Sent::Refused(error);
                }
                Outcome::Failed { error } => {
                    (failures, faults) = (failures.saturating_add(1), faults.saturating_add(1));
                    if refusable && faults >= PATIENCE {
                        return Sent::Refused(error);
                    }
                    (backoff.wait(failures), error)
                }
                Outcome::Retry { after, error } => {
                    failures = failures.saturating_add(1);
                    (backoff.wait(failures).max(after.unwrap_or_default()), error)
                }
                Outcome::TooLarge { error, .. } | Outcome::Refused { error } | Outcome::Hold { error } => {
                    (backoff.long_wait(), error)
                }
            };
            self.failed(error);
            self.worker.progress.send_modify(|progress| progress.counts.retried += 1);
            self.pause(wait).await;
        }
        Sent::Stopped
    }

    /// Waits, but no longer than until a file of headers or certificates changes: what was refused may pass then.
    pub(super) async fn pause(&self, wait: Duration) {
        let until = Instant::now() + wait;
        while Instant::now() < until && !*self.worker.stop.borrow() && !self.worker.sender.has_news() {
            tokio::select! {
                () = tokio::time::sleep_until(until.min(Instant::now() + LOOK_EVERY)) => {}
                () = stopped(self.worker.stop.clone()) => {}
            }
        }
    }

    /// From when the oldest entry is that the receiver does not have.
    pub(super) fn on_its_way(&self, entries: &[Entry]) {
        let Some(first) = entries.first() else { return };
        self.worker.progress.send_modify(|progress| {
            progress.oldest.get_or_insert(first.draft.time);
        });
    }

    async fn accepted(&mut self, payload: &Payload, entries: &[Entry], rejected: u64, message: &str) {
        let (to, signal) = (self.worker.target.clone(), self.worker.signal.as_str());
        let sent = payload.records().saturating_sub(rejected);
        let recovered = self.worker.progress.borrow().error.is_some();
        self.worker.progress.send_modify(|progress| {
            progress.error = None;
            progress.counts.sent += sent;
            progress.last_success = Some(Timestamp::now());
        });
        if recovered {
            tracing::info!(to, signal, "the export goes on");
        }
        if rejected > 0 {
            let among: Vec<&Entry> = entries.iter().filter(|entry| self.has_record(entry)).collect();
            self.refused_for_good(rejected, message, &among).await;
        } else if !message.is_empty() {
            tracing::info!(to, signal, message, "the receiver accepted all, and says");
        }
    }

    fn has_record(&self, entry: &Entry) -> bool {
        self.payload(std::slice::from_ref(entry)).is_some()
    }

    async fn give_up(&mut self, suspect: Suspect<'_>) {
        self.refused_for_good(1, &suspect.why, &[suspect.entry]).await;
    }

    /// Counts what was refused and writes its dead letter; a disk that is full keeps nothing from going on.
    async fn refused_for_good(&mut self, rejected: u64, why: &str, among: &[&Entry]) {
        let letter = Letter {
            time: Timestamp::now(),
            target: &self.worker.target,
            signal: self.worker.signal.as_str(),
            why,
            rejected,
            uids: among.iter().map(|entry| entry.uid.as_str()).collect(),
            entry: if let [entry] = among { Some(*entry) } else { None },
        };
        let written = match self.worker.dead_letters.put(&letter) {
            Ok(()) => rejected,
            Err(error) => {
                tracing::error!(to = letter.target, signal = letter.signal, %error, "a dead letter is not kept");
                0
            }
        };
        let uid = letter.uids.first().copied().unwrap_or_default();
        let (to, signal) = (letter.target, letter.signal);
        tracing::warn!(
            to,
            signal,
            rejected,
            why,
            uid,
            "the receiver refuses records for good: they are among the dead letters"
        );
        let saved = &mut self.worker.saved;
        saved.rejected = saved.rejected.saturating_add(rejected);
        saved.dead_lettered = saved.dead_lettered.saturating_add(written);
        let (all, lettered) = (saved.rejected, saved.dead_lettered);
        self.worker.progress.send_modify(|progress| {
            (progress.rejected, progress.dead_lettered) = (all, lettered);
            progress.counts.rejected += rejected;
            progress.counts.dead_lettered += written;
        });
    }

    /// Says why it does not go on: once, not at every try.
    pub(super) fn failed(&self, error: String) {
        if self.worker.progress.borrow().error.as_ref() != Some(&error) {
            let (to, signal) = (self.worker.target.as_str(), self.worker.signal.as_str());
            tracing::warn!(to, signal, error, "the export waits; the trail keeps what is to be sent");
            self.worker.progress.send_modify(|progress| progress.error = Some(error));
        }
    }
}
