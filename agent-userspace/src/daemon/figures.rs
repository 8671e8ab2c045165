//! What the pipeline counts of itself, for whoever measures the daemon.
//!
//! The pipeline counts in a value of its own and publishes a copy twice a second: nobody that reads it can make the pipeline
//! wait, and what is read is whole.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use agent_common::RecordKind;
use agent_common::maps::{LOSS_INHERIT, LOSS_READ, LOSS_RING, LOSS_UNTOLD};
use opentelemetry_proto::tonic::metrics::v1::Metric;
use serde_json::Value;
use tracing::warn;

use super::pipeline::Pipeline;
use crate::config::settings::Idle;
use crate::entry::{Draft, Timestamp};
use crate::export::Totals;
use crate::finding::REPEATS;
use crate::metrics::{Readings, Sums, instruments};
use crate::observation::event_of;
use crate::redact::REDACTED_PIECES;
use crate::sensor::{Hook, ProgramCost, RingFill};

/// A peak is that of this time and of the one before.
const PEAK_OF: Duration = Duration::from_secs(60);

/// Records of an unknown form.
pub(super) const LOST_UNDECODABLE: &str = "undecodable";
/// Losses that found no room in the table of losses.
pub(super) const LOST_UNCOUNTED: &str = "no_room_to_count";
/// No room in a ring.
pub(super) const LOST_RING_FULL: &str = "ring_full";

/// Why records were lost, as a label.
pub(super) fn loss_reason(why: u32) -> &'static str {
    match why {
        LOSS_RING => LOST_RING_FULL,
        LOSS_READ => "unreadable",
        LOSS_INHERIT => "no_membership",
        LOSS_UNTOLD => "untold",
        _ => "other",
    }
}

/// The figures.
#[derive(Clone, Debug, Default)]
pub(super) struct Figures {
    totals: Totals,
    started: Sums<3>,
    ended: Sums<1>,
    findings: Sums<2>,
    folded: Sums<1>,
    redacted: Sums<1>,
    lost: Sums<2>,
    sensor: SensorFigures,
}

/// The sensor's, as they were last looked at.
#[derive(Clone, Debug, Default)]
struct SensorFigures {
    records: BTreeMap<&'static str, u64>,
    missed: BTreeMap<&'static str, u64>,
    rings: [Peak; 2],
    hooks: Vec<(Hook, bool)>,
    costs: Vec<ProgramCost>,
}

/// A ring, and how full it has been.
#[derive(Clone, Copy, Debug, Default)]
struct Peak {
    now: RingFill,
    /// Since when `current` is.
    since: Option<Instant>,
    current: u64,
    before: u64,
}

impl Peak {
    fn look(&mut self, fill: RingFill, at: Instant) {
        let since = *self.since.get_or_insert(at);
        if at.duration_since(since) >= PEAK_OF {
            (self.before, self.current, self.since) = (self.current, 0, Some(at));
        }
        self.now = fill;
        self.current = self.current.max(fill.used_bytes);
    }

    fn bytes(&self) -> u64 {
        self.current.max(self.before)
    }
}

impl Figures {
    /// Counts what is about to be written.
    pub(super) fn count<'a>(&mut self, drafts: impl Iterator<Item = &'a Draft>) {
        for draft in drafts {
            self.totals.add_draft(draft);
            self.count_one(draft);
        }
    }

    fn count_one(&mut self, draft: &Draft) {
        let agent = draft.agent.as_deref().unwrap_or_default();
        let event = draft.event.as_str();
        if draft.first_time.is_some() {
            self.folded.add([event], draft.count);
        }
        if let Some(pieces) = draft.attributes.get(REDACTED_PIECES).and_then(Value::as_u64) {
            self.redacted.add([event], pieces);
        }
        match event {
            "session.start" => {
                let (method, confidence) =
                    draft.attribution.map(|by| (by.method.as_str(), by.confidence.as_str())).unwrap_or_default();
                self.started.add([agent, method, confidence], 1);
            }
            "session.end" => self.ended.add([agent], 1),
            _ => {
                if let Some(finding) = event.strip_prefix("finding.") {
                    let repeats = draft.attributes.get(REPEATS).and_then(Value::as_u64).unwrap_or(1);
                    self.findings.add([agent, finding], repeats);
                }
            }
        }
    }

    /// Counts records that were not handed over.
    pub(super) fn lose(&mut self, event: &str, reason: &'static str, more: u64) {
        self.lost.add([event, reason], more);
    }

    /// Notes how full the rings are.
    pub(super) fn look_at_rings(&mut self, fills: [RingFill; 2]) {
        let now = Instant::now();
        for (peak, fill) in self.sensor.rings.iter_mut().zip(fills) {
            peak.look(fill, now);
        }
    }

    /// Notes how many records were handed over, by kind.
    pub(super) fn note_records(&mut self, emitted: &[(RecordKind, u64)]) {
        self.sensor.records.clear();
        for &(kind, records) in emitted {
            *self.sensor.records.entry(event_of(kind)).or_default() += records;
        }
    }

    /// Tells them.
    pub(super) fn tell(&self, readings: &mut Readings) {
        self.started.tell(readings, &instruments::SESSIONS_STARTED);
        self.ended.tell(readings, &instruments::SESSIONS_ENDED);
        self.findings.tell(readings, &instruments::FINDINGS);
        self.folded.tell(readings, &instruments::FOLDED);
        self.redacted.tell(readings, &instruments::REDACTED);
        self.lost.tell(readings, &instruments::SENSOR_LOST);
        self.sensor.tell(readings);
    }

    /// The sums that the export keeps over the whole trail, of what was written since `start`.
    pub(super) fn sums(&self, start: Timestamp) -> Vec<Metric> {
        self.totals.metrics(start)
    }
}

impl SensorFigures {
    fn tell(&self, readings: &mut Readings) {
        for (event, records) in &self.records {
            readings.add(&instruments::SENSOR_RECORDS, &[event], *records);
        }
        for (hook, missed) in &self.missed {
            readings.add(&instruments::HOOK_MISSED, &[hook], *missed);
        }
        for (hook, expected) in &self.hooks {
            readings.add(&instruments::HOOK_ATTACHED, &[hook.name], hook.attached);
            readings.add(&instruments::HOOK_EXPECTED, &[hook.name], *expected);
        }
        for ring in &self.rings {
            let labels = [ring.now.name];
            readings.add(&instruments::RING_SIZE, &labels, ring.now.size_bytes);
            readings.add(&instruments::RING_USAGE, &labels, ring.now.used_bytes);
            readings.add(&instruments::RING_PEAK, &labels, ring.bytes());
        }
        for cost in &self.costs {
            readings.add(&instruments::PROGRAM_TIME, &[cost.program], cost.run_time_ns as f64 / 1e9);
            readings.add(&instruments::PROGRAM_RUNS, &[cost.program], cost.runs);
        }
    }
}

/// The last figures that were published.
#[derive(Clone, Debug, Default)]
pub(super) struct Published(Arc<Mutex<Arc<Figures>>>);

impl Published {
    /// The figures.
    pub(super) fn figures(&self) -> Arc<Figures> {
        Arc::clone(&self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn publish(&self, figures: Figures) {
        let figures = Arc::new(figures);
        // What was published before is dropped after the lock is.
        let _before = std::mem::replace(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner), figures);
    }
}

impl Pipeline {
    /// Looks at the sensor, and shows what was counted.
    pub(super) fn publish_figures(&mut self) {
        let live = self.attributor.sessions().next().is_some();
        let wanted = live || self.config.settings.sensor.idle == Idle::Armed;
        self.figures.look_at_rings(self.sensor.rings());
        let sensor = &mut self.figures.sensor;
        sensor.hooks = self.sensor.hooks().map(|hook| (hook, hook.always || wanted || hook.attached)).collect();
        sensor.costs = self.sensor.program_costs();
        sensor.missed.clone_from(&self.missed);
        self.published.publish(self.figures.clone());
    }

    /// Has the kernel measure the sensor's programs, where that is wanted.
    pub(super) fn measure_programs(&mut self) {
        if !self.config.settings.metrics.program_time {
            return;
        }
        if let Err(error) = self.sensor.measure_programs() {
            warn!(%error, "how long programs run is not known");
            let problem = format!("how long programs run is not known: {error}");
            self.view.lock().problems.insert("program_time", problem);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peak_is_seen_for_a_minute_at_least_and_two_at_most() {
        let start = Instant::now();
        let mut peak = Peak::default();
        let fill = |used_bytes| RingFill { name: "bulk", size_bytes: 4096, used_bytes };
        let mut at = |seconds: u64, used: u64| {
            peak.look(fill(used), start + Duration::from_secs(seconds));
            (peak.now.used_bytes, peak.bytes())
        };
        assert_eq!(at(0, 10), (10, 10));
        assert_eq!(at(59, 3000), (3000, 3000));
        assert_eq!(at(60, 7), (7, 3000));
        assert_eq!(at(119, 8), (8, 3000));
        assert_eq!(at(120, 1), (1, 8));
        assert_eq!(at(180, 0), (0, 1));
    }
}
