//! The one table of the daemon's own metrics: name, kind, unit, labels, and what it says.

/// How a metric behaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// It only grows, from the daemon's start on.
    Counter,
    /// It is what it is now.
    Gauge,
    /// How many fell below which bound, from the daemon's start on.
    Histogram,
}

/// A metric.
#[derive(Debug, PartialEq, Eq)]
pub struct Instrument {
    /// OpenTelemetry's name; Prometheus' follows from it.
    pub name: &'static str,
    /// How it behaves.
    pub kind: Kind,
    /// As UCUM has it: `s`, `By`, `1`, or what is counted in braces.
    pub unit: &'static str,
    /// The attributes that tell its series apart, each with a bounded number of values.
    pub labels: &'static [&'static str],
    /// What it says, in a sentence.
    pub help: &'static str,
}

macro_rules! instruments {
    ($($(#[$doc:meta])* $ident:ident = $kind:ident $name:literal $unit:literal [$($label:literal),*] $help:literal;)*) => {
        $($(#[$doc])* pub static $ident: Instrument = Instrument {
            name: $name,
            kind: Kind::$kind,
            unit: $unit,
            labels: &[$($label),*],
            help: $help,
        };)*

        /// All of them.
        pub static ALL: &[&Instrument] = &[$(&$ident),*];
    };
}

instruments! {
    /// The program that runs.
    BUILD_INFO = Gauge "bailiwick.build.info" "" ["service.version"]
        "1, with the version of the program that runs";
    /// Processor time.
    CPU_TIME = Counter "process.cpu.time" "s" ["cpu.mode"]
        "Processor time that the daemon used, in its own code (user) and in the kernel (system)";
    /// Memory in use.
    MEMORY_USAGE = Gauge "process.memory.usage" "By" []
        "Physical memory that the daemon holds";
    /// Memory mapped.
    MEMORY_VIRTUAL = Gauge "process.memory.virtual" "By" []
        "Memory that the daemon has mapped";
    /// Threads.
    THREAD_COUNT = Gauge "process.thread.count" "{thread}" []
        "The daemon's threads";
    /// Descriptors.
    FILE_DESCRIPTOR_COUNT = Gauge "process.unix.file_descriptor.count" "{file_descriptor}" []
        "The daemon's open file descriptors";
    /// Since the start.
    UPTIME = Gauge "process.uptime" "s" []
        "Time since the daemon started";
    /// From the kernel to the trail.
    TRAIL_LATENCY = Histogram "bailiwick.trail.latency" "s" []
        "How long actions took from the kernel to their entry in the trail";
    /// Written, not durable.
    TRAIL_UNSYNCED = Gauge "bailiwick.trail.unsynced" "{entry}" []
        "Entries that are written, but would not survive a power cut yet";
    /// On disk.
    TRAIL_SIZE = Gauge "bailiwick.trail.size" "By" ["bailiwick.trail.part"]
        "What the trail takes on disk: its entries, and their index";
    /// Files.
    TRAIL_SEGMENTS = Gauge "bailiwick.trail.segments" "{segment}" []
        "Segments that the trail is kept in";
    /// How far back it goes.
    TRAIL_OLDEST_AGE = Gauge "bailiwick.trail.oldest_entry.age" "s" []
        "How long ago the oldest entry happened that is kept";
    /// Configurations read again.
    CONFIG_RELOADS = Counter "bailiwick.config.reloads" "{reload}" ["bailiwick.outcome"]
        "Configurations that were read again, and whether they came into force (ok) or not (failed)";
    /// Accepted.
    EXPORT_SENT = Counter "bailiwick.export.sent" "{record}" ["bailiwick.target", "bailiwick.signal"]
        "Records that a receiver accepted";
    /// Tried again.
    EXPORT_RETRIED = Counter "bailiwick.export.retried" "{request}" ["bailiwick.target", "bailiwick.signal"]
        "Requests that were tried again";
    /// Refused for good.
    EXPORT_REJECTED = Counter "bailiwick.export.rejected" "{record}" ["bailiwick.target", "bailiwick.signal"]
        "Records that a receiver refused for good";
    /// Among the dead letters.
    EXPORT_DEAD_LETTERED = Counter "bailiwick.export.dead_lettered" "{record}" ["bailiwick.target", "bailiwick.signal"]
        "Records refused for good that a dead letter tells of";
    /// Still to be acknowledged.
    EXPORT_QUEUE_SIZE = Gauge "bailiwick.export.queue.size" "{entry}" ["bailiwick.target", "bailiwick.signal"]
        "Entries that a receiver has not acknowledged yet";
    /// Of the oldest.
    EXPORT_QUEUE_AGE = Gauge "bailiwick.export.queue.age" "s" ["bailiwick.target", "bailiwick.signal"]
        "How long ago the oldest of them happened";
    /// Last accepted.
    EXPORT_LAST_SUCCESS = Gauge "bailiwick.export.last_success" "s" ["bailiwick.target", "bailiwick.signal"]
        "When a receiver last accepted something since the start, in seconds after 1970";
    /// As `status` says.
    HEALTHY = Gauge "bailiwick.healthy" "" []
        "1 where all is as it should be, 0 where `bailiwick status` names a reason";
    /// As `/readyz` says.
    READY = Gauge "bailiwick.ready" "" []
        "1 where the sensor is attached and the trail can be written";
    /// Which part is not well.
    PROBLEM = Gauge "bailiwick.problem" "" ["bailiwick.problem"]
        "1 for each part that is not as it should be; without a series for those that are";
    /// How long the pipeline has not turned.
    PIPELINE_SILENCE = Gauge "bailiwick.pipeline.silence" "s" []
        "Time since the pipeline last turned: a quarter of a second while nothing happens";
    /// Agents that are declared.
    AGENTS = Gauge "bailiwick.agents" "{agent}" []
        "Agents that are declared";
    /// Sessions begun.
    SESSIONS_STARTED = Counter "bailiwick.sessions.started" "{session}"
        ["bailiwick.agent", "bailiwick.attribution.method", "bailiwick.attribution.confidence"]
        "Sessions that began, by how their agent was recognised";
    /// Sessions ended.
    SESSIONS_ENDED = Counter "bailiwick.sessions.ended" "{session}" ["bailiwick.agent"]
        "Sessions that ended";
    /// Findings.
    FINDINGS = Counter "bailiwick.findings" "{finding}" ["bailiwick.agent", "bailiwick.finding"]
        "What was found, repeats included";
    /// Folded repeats.
    FOLDED = Counter "bailiwick.folded" "{event}" ["bailiwick.event"]
        "Repeats that the kernel side counted, so that one entry stands for many";
    /// Redacted values.
    REDACTED = Counter "bailiwick.redacted" "{value}" ["bailiwick.event"]
        "Pieces of entries in whose place [redacted] was written";
    /// Records handed over.
    SENSOR_RECORDS = Counter "bailiwick.sensor.records" "{record}" ["bailiwick.event"]
        "Records that the sensor has handed over";
    /// Losses.
    SENSOR_LOST = Counter "bailiwick.sensor.lost" "{record}" ["bailiwick.event", "bailiwick.loss.reason"]
        "Records that the sensor could not hand over, and why";
    /// Hooks attached.
    HOOK_ATTACHED = Gauge "bailiwick.sensor.hook.attached" "" ["bailiwick.hook"]
        "1 while the hook is attached";
    /// Hooks to be attached.
    HOOK_EXPECTED = Gauge "bailiwick.sensor.hook.expected" "" ["bailiwick.hook"]
        "1 while the hook should be attached: always, or while a session lives and a little longer";
    /// Programs skipped.
    HOOK_MISSED = Counter "bailiwick.sensor.hook.missed" "{run}" ["bailiwick.hook"]
        "Runs that the kernel left out because the program was running on that processor already";
    /// Observations that work.
    OBSERVATION_WORKING = Gauge "bailiwick.sensor.observation.working" "" ["bailiwick.event"]
        "1 where the event was seen when it was tried at the start";
    /// Blind spots.
    BLIND_SPOTS = Gauge "bailiwick.sensor.blind_spots" "{blind_spot}" []
        "What this kernel does not let the sensor see, as `bailiwick doctor` names it";
    /// Rings.
    RING_SIZE = Gauge "bailiwick.sensor.ring.size" "By" ["bailiwick.ring"]
        "What the ring can hold";
    /// What waits in them.
    RING_USAGE = Gauge "bailiwick.sensor.ring.usage" "By" ["bailiwick.ring"]
        "What waited in the ring when it was last looked at";
    /// What waited at worst.
    RING_PEAK = Gauge "bailiwick.sensor.ring.peak" "By" ["bailiwick.ring"]
        "The most that waited in the ring at a look, in the last one to two minutes";
    /// Run time.
    PROGRAM_TIME = Counter "bailiwick.sensor.program.time" "s" ["bailiwick.program"]
        "Time that the program ran, what it hands over to included; only with `[metrics] program_time`";
    /// Runs.
    PROGRAM_RUNS = Counter "bailiwick.sensor.program.runs" "{run}" ["bailiwick.program"]
        "Runs of the program since they are measured; only with `[metrics] program_time`";
}

#[cfg(test)]
mod tests {
    use super::{ALL, Kind};

    #[test]
    fn the_page_of_metrics_names_every_one_with_its_labels() {
        let page = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/metrics.md"));
        let page = page.unwrap_or_default();
        for instrument in ALL {
            let row = page.lines().find(|line| line.starts_with(&format!("| `{}` |", instrument.name)));
            assert!(row.is_some(), "docs/metrics.md has no row for `{}`", instrument.name);
            for label in instrument.labels {
                let named = row.is_some_and(|row| row.contains(&format!("`{label}`")));
                assert!(named, "docs/metrics.md: the row of `{}` does not name `{label}`", instrument.name);
            }
        }
        for line in page.lines().filter(|line| line.starts_with("| `")) {
            let known = ALL.iter().any(|instrument| line.starts_with(&format!("| `{}` |", instrument.name)));
            assert!(known, "docs/metrics.md tells of what is not there: {line}");
        }
    }

    #[test]
    fn no_metric_is_named_twice_and_no_counter_for_its_total() {
        let mut names: Vec<_> = ALL.iter().map(|instrument| instrument.name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), ALL.len());
        for instrument in ALL {
            assert!(instrument.kind != Kind::Counter || !instrument.name.ends_with("total"), "{}", instrument.name);
        }
    }
}
