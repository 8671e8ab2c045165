//! What the pipeline shows of itself to whoever asks, without being asked to stop.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::config::Config;
use crate::discover::Inventory;
use crate::entry::{SessionId, Timestamp};
use crate::integrity::Files;

/// A view of the pipeline, renewed by it.
#[derive(Debug)]
pub(super) struct View {
    /// What is in force.
    pub(super) config: Arc<Config>,
    /// Whether recognition is attached, the rest attached or armed, and what ran is reconciled.
    pub(super) ready: bool,
    /// What is wrong, in sentences.
    pub(super) problems: BTreeMap<&'static str, String>,
    /// Events whose hooks saw nothing when they were tried.
    pub(super) not_working: BTreeSet<&'static str>,
    /// Actions known to be lost since the start.
    pub(super) lost: u64,
    /// Records that the sensor has handed over since the start.
    pub(super) records: u64,
    /// The sessions that live, by agent.
    pub(super) live: BTreeMap<String, Vec<SessionId>>,
    /// When an agent last did something.
    pub(super) last_seen: BTreeMap<String, Timestamp>,
    /// What discovery found last that nothing declares.
    pub(super) found: Arc<Inventory>,
    /// What agents began with.
    pub(super) files: Files,
}

/// A view that can be shared.
#[derive(Clone, Debug)]
pub(super) struct SharedView(Arc<Mutex<View>>);

impl SharedView {
    pub(super) fn new(config: Arc<Config>) -> Self {
        Self(Arc::new(Mutex::new(View {
            config,
            ready: false,
            problems: BTreeMap::new(),
            not_working: BTreeSet::new(),
            lost: 0,
            records: 0,
            live: BTreeMap::new(),
            last_seen: BTreeMap::new(),
            found: Arc::default(),
            files: Files::default(),
        })))
    }

    /// Looks at it, or renews it: held for a moment only.
    pub(super) fn lock(&self) -> MutexGuard<'_, View> {
        // Whoever panicked left a whole value: every write is one assignment.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
