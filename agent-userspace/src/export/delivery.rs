//! Entries to a receiver, whatever it answers: what is tried again, divided, held, or put among the dead letters.
//!
//! A record is refused for good only by a receiver that takes others: it is put aside, and is a dead letter when the next
//! one is accepted and it is refused again. A receiver that refuses everything is wrong itself, and nothing is given up
//! because of it.

use std::time::Duration;

use tokio::time::Instant;

use super::contexts::Noting;
use super::dead_letters::{DeadLetters, Letter};
use super::outcome::Outcome;
use super::payload::{Origin, Payload};
use super::place::{MAX_RECORDS, Place, Sink, Taken};
use super::sender::Sender;
use super::settings::Signal;
use crate::entry::{Entry, Timestamp};

/// Receivers take 4 MiB by default, and some that are meant for tests 1 MiB: less than that reaches all of them.
const MAX_REQUEST_BYTES: usize = 1000 * 1024;
/// A receiver that fails at the same request so often does so because of what is in it, if it takes another.
const PATIENCE: u32 = 4;
/// How many records may at first be refused one after the other: a receiver that refuses all gets few requests.
const FEWEST_SUSPECTS: usize = 8;
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

/// A record that was refused on its own, and after which nothing was accepted yet.
struct Suspect<'a> {
    entry: &'a Entry,
    why: String,
}

/// The way to a receiver, for one signal.
pub(super) struct Delivery {
    pub(super) origin: Origin,
    sender: Sender,
    dead_letters: DeadLetters,
    /// Whether sessions join the agent's own trace.
    joins: bool,
    /// Records in a request: less after one was too large for the receiver, then slowly more again.
    most: usize,
    /// How many records may be refused one after the other before it is the receiver that is wrong.
    most_suspects: usize,
}

impl Sink for Delivery {
    /// Sends entries, in as many requests as it takes.
    async fn take(&mut self, place: &mut Place, entries: Vec<Entry>) -> Taken {
        place.saved.contexts.begin(&entries, self.noting(place.signal));
        let mut rest = entries.as_slice();
        let mut suspects: Vec<Suspect<'_>> = Vec::new();
        // Whether something was refused of these entries, and whether something was accepted since.
        let (mut refused, mut cleared) = (false, false);
        while !rest.is_empty() && suspects.len() < self.most_suspects {
            let (now, later) = rest.split_at(rest.len().min(self.most));
            let Some(payload) = self.payload(place, now) else {
                rest = later;
                continue;
            };
            if now.len() > 1 && payload.encoded_len() > MAX_REQUEST_BYTES {
                self.most = now.len() / 2;
                continue;
            }
            match self.send(place, &payload, now).await {
                Sent::Done { taken } => {
                    rest = later;
                    self.most = (self.most + MAX_RECORDS / 32).min(MAX_RECORDS);
                    if taken {
                        cleared = refused;
                        self.most_suspects = FEWEST_SUSPECTS;
                        for suspect in suspects.drain(..) {
                            if !self.try_once_more(place, suspect).await {
                                return Taken::Stopped;
                            }
                        }
                    }
                }
                Sent::TooLarge => self.most = now.len() / 2,
                Sent::Refused(why) => match now {
                    [entry] => {
                        (rest, refused) = (later, true);
                        let suspect = Suspect { entry, why };
                        if cleared {
                            // One for each that is accepted: a receiver may begin to refuse everything just now.
                            cleared = false;
                            self.give_up(place, &suspect).await;
                        } else {
                            suspects.push(suspect);
                        }
                    }
                    several => {
                        refused = true;
                        self.most = several.len() / 2;
                    }
                },
                Sent::Stopped => return Taken::Stopped,
            }
        }
        let Some(first) = suspects.first() else {
            place.saved.contexts.end(&entries);
            return Taken::All;
        };
        self.most_suspects = (self.most_suspects * 2).min(MAX_RECORDS);
        place.failed(format!("refused, and nothing after it was accepted: {}", first.why));
        Taken::Before(first.entry.seq)
    }

    async fn pause(&self, place: &Place) {
        self.wait(place, place.backoff.long_wait()).await;
    }
}

impl Delivery {
    pub(super) fn new(sender: Sender, origin: Origin, dead_letters: DeadLetters, joins: bool) -> Self {
        Self { origin, sender, dead_letters, joins, most: MAX_RECORDS, most_suspects: FEWEST_SUSPECTS }
    }

    /// Log records only need to know which trace they are in.
    fn noting(&self, signal: Signal) -> Noting {
        Noting { joins: self.joins, links: signal == Signal::Traces }
    }

    fn payload(&self, place: &Place, entries: &[Entry]) -> Option<Payload> {
        let contexts = &place.saved.contexts;
        match place.signal {
            Signal::Logs => Some(self.origin.logs(entries, contexts)),
            Signal::Traces => self.origin.traces(entries, contexts),
            Signal::Metrics => None,
        }
    }

    /// Sends one request, made of these entries, until the receiver accepts it or says for good that it will not.
    pub(super) async fn send(&mut self, place: &mut Place, payload: &Payload, entries: &[Entry]) -> Sent {
        let divisible = entries.len() > 1;
        // Of metrics the next request says all that this one does: there is nothing to give up.
        let refusable = !entries.is_empty();
        let (mut failures, mut faults) = (0u32, 0u32);
        while !place.is_to_stop() {
            let backoff = place.backoff;
            let (wait, error) = match self.sender.send(payload).await {
                Outcome::Accepted { rejected, message } => {
                    self.accepted(place, payload, entries, rejected, &message).await;
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
            place.failed(error);
            place.tries_again();
            self.wait(place, wait).await;
        }
        Sent::Stopped
    }

    /// Waits, but no longer than until a file of headers or certificates changes: what was refused may pass then.
    async fn wait(&self, place: &Place, wait: Duration) {
        let until = Instant::now() + wait;
        while Instant::now() < until && !place.is_to_stop() && !self.sender.has_news() {
            tokio::select! {
                () = tokio::time::sleep_until(until.min(Instant::now() + LOOK_EVERY)) => {}
                () = place.stopped() => {}
            }
        }
    }

    async fn accepted(
        &mut self,
        place: &mut Place,
        payload: &Payload,
        entries: &[Entry],
        rejected: u64,
        message: &str,
    ) {
        place.went_on(payload.records().saturating_sub(rejected));
        if rejected > 0 {
            let among: Vec<&Entry> = entries.iter().filter(|entry| self.has_record(place, entry)).collect();
            self.refused_for_good(place, rejected, message, &among).await;
        } else if !message.is_empty() {
            let (to, signal) = (place.target.as_str(), place.signal.as_str());
            tracing::info!(to, signal, message, "the receiver accepted all, and says");
        }
    }

    fn has_record(&self, place: &Place, entry: &Entry) -> bool {
        self.payload(place, std::slice::from_ref(entry)).is_some()
    }

    /// Sends a record once more to a receiver that takes others now: perhaps it refused everything only for a while.
    /// `false` when it is time to stop.
    async fn try_once_more(&mut self, place: &mut Place, mut suspect: Suspect<'_>) -> bool {
        let entries = std::slice::from_ref(suspect.entry);
        let Some(payload) = self.payload(place, entries) else { return true };
        match self.send(place, &payload, entries).await {
            Sent::Done { .. } => return true,
            Sent::Stopped => return false,
            Sent::Refused(why) => suspect.why = why,
            // Of a single record that is said only where nothing smaller could pass.
            Sent::TooLarge => {}
        }
        self.give_up(place, &suspect).await;
        true
    }

    async fn give_up(&self, place: &mut Place, suspect: &Suspect<'_>) {
        self.refused_for_good(place, 1, &suspect.why, &[suspect.entry]).await;
    }

    /// Counts what was refused and writes its dead letter; a disk that is full keeps nothing from going on.
    async fn refused_for_good(&self, place: &mut Place, rejected: u64, why: &str, among: &[&Entry]) {
        let letter = Letter {
            time: Timestamp::now(),
            target: &place.target,
            signal: place.signal.as_str(),
            why,
            rejected,
            uids: among.iter().map(|entry| entry.uid.as_str()).collect(),
            entry: if let [entry] = among { Some(*entry) } else { None },
        };
        let written = match self.dead_letters.put(&letter) {
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
        let saved = &mut place.saved;
        saved.rejected = saved.rejected.saturating_add(rejected);
        saved.dead_lettered = saved.dead_lettered.saturating_add(written);
        let (all, lettered) = (saved.rejected, saved.dead_lettered);
        place.progress.send_modify(|progress| {
            (progress.rejected, progress.dead_lettered) = (all, lettered);
            progress.counts.rejected += rejected;
            progress.counts.dead_lettered += written;
        });
    }
}
