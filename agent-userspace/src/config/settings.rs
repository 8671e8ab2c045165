//! The daemon's own settings: `bailiwick.toml`.
//!
//! Input: the file's top level. Output: [`Settings`]; what the file does not say has the default that
//! [`Settings::default`] gives. Environment variables and options override them where the daemon starts, not here.

use std::time::Duration;

use super::export::ExportSettings;
use super::fault::{Fault, Problem, nearest};
use super::metrics::MetricsSettings;
use super::reader::{Located, Section};
use super::rules::Reading;
use crate::redact::{Expression, RedactSettings};
use crate::trail::Retention;

/// The smallest ring: one page.
pub const MIN_RING_BYTES: u32 = 4096;
/// The largest ring.
pub const MAX_RING_BYTES: u32 = 1 << 30;
/// The most environment keys: the sensor compares each variable of an exec with each of them.
pub const MAX_ENVIRONMENT_KEYS: usize = 32;
/// The longest environment key.
pub const MAX_ENVIRONMENT_KEY_BYTES: usize = 64;

/// The most expressions of one list of `[redact]`: each is tried on every text of every entry.
pub const MAX_REDACT_EXPRESSIONS: usize = 64;

/// Environment keys that are read unless the settings name others.
pub const DEFAULT_ENVIRONMENT: [&str; 8] = [
    "TRACEPARENT",
    "TRACESTATE",
    "AI_AGENT",
    "CLAUDECODE",
    "CLAUDE_CODE_SESSION_ID",
    "CODEX_THREAD_ID",
    "CODEX_SANDBOX",
    "GEMINI_CLI",
];

/// What the sensor does while no session lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Idle {
    /// The hooks that tax every process are detached.
    Detach,
    /// They stay attached.
    Armed,
}

/// How much the sensor observes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Observe {
    /// All but counts of system calls.
    Default,
    /// These too.
    Full,
}

/// `[sensor]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SensorSettings {
    /// What it does while no session lives.
    pub idle: Idle,
    /// How much it observes.
    pub observe: Observe,
    /// The size of a ring: a power of two, of pages.
    pub ring_bytes: u32,
    /// How long the hooks stay attached after the last session's end.
    pub linger: Duration,
    /// Whether execs of declared executables are held until the hooks are attached.
    pub gate: bool,
    /// The environment keys that are read at an exec.
    pub environment: Vec<String>,
}

/// `[trail]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TrailSettings {
    /// How long an entry may wait before it is made durable.
    pub sync_interval: Duration,
    /// The length after which a segment is closed.
    pub segment_bytes: u64,
    /// A checkpoint is signed after so long, where there is something new,
    pub checkpoint_interval: Duration,
    /// or after so many entries.
    pub checkpoint_entries: u64,
    /// What need not be kept.
    pub retention: Retention,
}

/// `[discovery]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DiscoverySettings {
    /// Whether the daemon looks for agents that nothing declares.
    pub enabled: bool,
    /// How often.
    pub interval: Duration,
}

/// The daemon's settings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// `[sensor]`.
    pub sensor: SensorSettings,
    /// `[trail]`.
    pub trail: TrailSettings,
    /// `[export]`.
    pub export: ExportSettings,
    /// `[redact]`.
    pub redact: RedactSettings,
    /// `[metrics]`.
    pub metrics: MetricsSettings,
    /// `[discovery]`.
    pub discovery: DiscoverySettings,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            sensor: SensorSettings {
                idle: Idle::Detach,
                observe: Observe::Default,
                ring_bytes: 8 << 20,
                linger: Duration::from_secs(10),
                gate: true,
                environment: DEFAULT_ENVIRONMENT.map(str::to_owned).into(),
            },
            trail: TrailSettings {
                sync_interval: Duration::from_millis(100),
                segment_bytes: 64 << 20,
                checkpoint_interval: Duration::from_secs(60),
                checkpoint_entries: 10_000,
                retention: Retention::default(),
            },
            export: ExportSettings::default(),
            redact: RedactSettings::default(),
            metrics: MetricsSettings::default(),
            discovery: DiscoverySettings { enabled: true, interval: Duration::from_secs(60) },
        }
    }
}

/// The size is none that a ring can have.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a ring of {given} bytes cannot be made; give a power of two from {MIN_RING_BYTES} to {MAX_RING_BYTES}{}", advise(.nearest))]
pub struct RingBytesError {
    /// The size as given.
    given: String,
    nearest: Option<u32>,
}

fn advise(nearest: &Option<u32>) -> String {
    nearest.map_or_else(String::new, |bytes| format!(", such as {bytes}"))
}

/// A ring's size, where it can have it: for the option and the environment variable too.
pub fn ring_bytes(given: i64) -> Result<u32, RingBytesError> {
    let range = MIN_RING_BYTES..=MAX_RING_BYTES;
    match u32::try_from(given) {
        Ok(bytes) if range.contains(&bytes) && bytes.is_power_of_two() => Ok(bytes),
        Ok(bytes) => {
            let nearest = bytes.checked_next_power_of_two().filter(|power| range.contains(power));
            Err(RingBytesError { given: given.to_string(), nearest })
        }
        Err(_) => Err(RingBytesError { given: given.to_string(), nearest: None }),
    }
}

impl Settings {
    /// Reads the top level of `bailiwick.toml`.
    pub(super) fn read(mut top: Section<'_>, reading: &mut Reading<'_>) -> Self {
        let mut settings = Self::default();
        if let Some(section) = top.section("sensor", "[sensor]", &mut reading.problems) {
            settings.sensor.read(section, reading);
        }
        if let Some(section) = top.section("trail", "[trail]", &mut reading.problems) {
            settings.trail.read(section, reading);
        }
        if let Some(section) = top.section("export", "[export]", &mut reading.problems) {
            settings.export.read(section, reading);
        }
        if let Some(section) = top.section("redact", "[redact]", &mut reading.problems) {
            read_redact(&mut settings.redact, section, &mut reading.problems);
        }
        if let Some(section) = top.section("metrics", "[metrics]", &mut reading.problems) {
            settings.metrics.read(section, reading);
        }
        if let Some(section) = top.section("discovery", "[discovery]", &mut reading.problems) {
            settings.discovery.read(section, &mut reading.problems);
        }
        top.finish(&mut reading.problems);
        settings
    }
}

impl SensorSettings {
    fn read(&mut self, mut section: Section<'_>, reading: &mut Reading<'_>) {
        let problems = &mut reading.problems;
        if let Some(idle) = choice(&mut section, "idle", &[("detach", Idle::Detach), ("armed", Idle::Armed)], problems)
        {
            self.idle = idle;
        }
        let observations = [("default", Observe::Default), ("full", Observe::Full)];
        if let Some(observe) = choice(&mut section, "observe", &observations, problems) {
            self.observe = observe;
        }
        if let Some(given) = section.integer("ring_bytes", problems) {
            match ring_bytes(given.value) {
                Ok(bytes) => self.ring_bytes = bytes,
                Err(error) => {
                    let such = error.nearest.map_or_else(String::new, |bytes| format!(", such as {bytes}"));
                    let wanted = format!("a power of two from {MIN_RING_BYTES} to {MAX_RING_BYTES}{such}");
                    let fault = Fault::Range { key: "ring_bytes", value: given.value.to_string(), wanted };
                    problems.push(Problem::at(&given.origin, fault));
                }
            }
        }
        if let Some(seconds) = within(&mut section, "linger_seconds", 0, 3600, problems) {
            self.linger = Duration::from_secs(seconds);
        }
        if let Some(gate) = section.boolean("gate", problems) {
            self.gate = gate.value;
        }
        if let Some(keys) = section.strings("environment", problems) {
            self.environment = environment_keys(&keys, &section, problems);
        }
        section.finish(problems);
    }
}

impl TrailSettings {
    fn read(&mut self, mut section: Section<'_>, reading: &mut Reading<'_>) {
        let problems = &mut reading.problems;
        if let Some(millis) = within(&mut section, "sync_interval_ms", 1, 60_000, problems) {
            self.sync_interval = Duration::from_millis(millis);
        }
        if let Some(bytes) = within(&mut section, "segment_bytes", 64 << 10, 1 << 30, problems) {
            self.segment_bytes = bytes;
        }
        if let Some(seconds) = within(&mut section, "checkpoint_seconds", 1, 86_400, problems) {
            self.checkpoint_interval = Duration::from_secs(seconds);
        }
        if let Some(entries) = within(&mut section, "checkpoint_entries", 1, 1_000_000, problems) {
            self.checkpoint_entries = entries;
        }
        if let Some(days) = within(&mut section, "keep_days", 1, 36_500, problems) {
            self.retention.age = Some(Duration::from_secs(days * 86_400));
        }
        if let Some(bytes) = within(&mut section, "keep_bytes", 128 << 10, i64::MAX.cast_unsigned(), problems) {
            self.retention.bytes = Some(bytes);
        }
        if let Some(bytes) = within(&mut section, "keep_free_bytes", 1 << 20, i64::MAX.cast_unsigned(), problems) {
            self.retention.free = Some(bytes);
        }
        if let Some(delete) = section.boolean("delete_unacknowledged", problems) {
            self.retention.unacknowledged = delete.value;
        }
        section.finish(problems);
    }
}

impl DiscoverySettings {
    fn read(&mut self, mut section: Section<'_>, problems: &mut Vec<Problem>) {
        if let Some(enabled) = section.boolean("enabled", problems) {
            self.enabled = enabled.value;
        }
        if let Some(seconds) = within(&mut section, "interval_seconds", 1, 86_400, problems) {
            self.interval = Duration::from_secs(seconds);
        }
        section.finish(problems);
    }
}

fn read_redact(redact: &mut RedactSettings, mut section: Section<'_>, problems: &mut Vec<Problem>) {
    if let Some(enabled) = section.boolean("enabled", problems) {
        redact.enabled = enabled.value;
    }
    if let Some(entropy) = section.boolean("entropy", problems) {
        redact.entropy = entropy.value;
    }
    for (key, expressions) in [("patterns", &mut redact.patterns), ("allow", &mut redact.allow)] {
        let texts = section.strings(key, problems).unwrap_or_default();
        if texts.len() > MAX_REDACT_EXPRESSIONS {
            let fault = Fault::TooMany { key: key.to_owned(), found: texts.len(), limit: MAX_REDACT_EXPRESSIONS };
            problems.push(Problem::at(&section.key_origin(key), fault));
            continue;
        }
        for text in texts {
            match Expression::parse(text.value) {
                Ok(expression) => expressions.push(expression),
                Err(error) => {
                    let shown = text.value.escape_debug().take(80).collect();
                    problems.push(Problem::at(&text.origin, Fault::Expression { key, text: shown, error }));
                }
            }
        }
    }
    section.finish(problems);
}

/// One of several words.
pub(super) fn choice<T: Copy>(
    section: &mut Section<'_>,
    key: &'static str,
    choices: &[(&str, T)],
    problems: &mut Vec<Problem>,
) -> Option<T> {
    let text = section.string(key, problems)?;
    if let Some((_, chosen)) = choices.iter().find(|(word, _)| *word == text.value) {
        return Some(*chosen);
    }
    problems.push(Problem::at(&text.origin, no_choice(key, text.value, choices.iter().map(|(word, _)| *word))));
    None
}

/// The fault of a word that is none of the choices.
pub(super) fn no_choice<'a>(key: &'static str, word: &str, choices: impl Iterator<Item = &'a str> + Clone) -> Fault {
    Fault::Choice {
        key,
        value: word.escape_debug().take(64).collect(),
        near: nearest(word, choices.clone()),
        known: choices.map(str::to_owned).collect(),
    }
}

/// A whole number between two others.
pub(super) fn within(
    section: &mut Section<'_>,
    key: &'static str,
    least: u64,
    most: u64,
    problems: &mut Vec<Problem>,
) -> Option<u64> {
    let number = section.integer(key, problems)?;
    match u64::try_from(number.value) {
        Ok(value) if (least..=most).contains(&value) => Some(value),
        Ok(_) | Err(_) => {
            let wanted = format!("a whole number from {least} to {most}");
            problems.push(Problem::at(&number.origin, Fault::Range { key, value: number.value.to_string(), wanted }));
            None
        }
    }
}

/// Names of variables that the sensor can look for.
pub(super) fn environment_keys(
    keys: &[Located<&str>],
    section: &Section<'_>,
    problems: &mut Vec<Problem>,
) -> Vec<String> {
    if keys.len() > MAX_ENVIRONMENT_KEYS {
        let fault = Fault::TooMany { key: "environment".to_owned(), found: keys.len(), limit: MAX_ENVIRONMENT_KEYS };
        problems.push(Problem::at(&section.key_origin("environment"), fault));
    }
    let mut read = Vec::new();
    for key in keys {
        let usable = !key.value.is_empty()
            && key.value.len() <= MAX_ENVIRONMENT_KEY_BYTES
            && !key.value.contains(|character: char| character == '=' || character.is_control());
        if !usable {
            let wanted = format!("the name of a variable of at most {MAX_ENVIRONMENT_KEY_BYTES} bytes, without `=`");
            let value = format!("{:?}", key.value.chars().take(80).collect::<String>());
            problems.push(Problem::at(&key.origin, Fault::Range { key: "environment", value, wanted }));
        } else if !read.iter().any(|known| known == key.value) {
            read.push(key.value.to_owned());
        }
    }
    read
}
