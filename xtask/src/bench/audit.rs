//! Whether the trail accounts for all that the workers did.
//!
//! For each event: what really happened (the workers say how often) must be what the trail shows, plus what it admits to
//! have lost. So three things can go wrong, and each is told apart: lost and told, lost in silence, counted twice.

use std::{collections::BTreeMap, fmt};

use anyhow::{Context, Result};
use serde_json::Value;

use super::{instance::Instance, plan::Workload, stage::Files};

/// What became of one event.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Tally {
    /// What the workers did where they should be watched.
    pub(super) expected: u64,
    /// The sum of `count` of the entries about it.
    pub(super) seen: u64,
    /// The sum of `lost` of its gaps.
    pub(super) told: u64,
}

impl Tally {
    /// What the trail neither shows nor admits to have lost; less than nothing where it shows too much.
    pub(super) fn untold(&self) -> i64 {
        self.expected.cast_signed() - self.seen.cast_signed() - self.told.cast_signed()
    }
}

/// What became of all that the workers did under one daemon, or several.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Account {
    tallies: BTreeMap<String, Tally>,
    /// `lost` of `status`.
    status_lost: u64,
    /// Gaps by what they say, and how many there are.
    gaps: BTreeMap<String, u64>,
}

/// The events that an operation of a workload is to be seen by, and how often.
fn events(workload: Workload) -> &'static [(&'static str, u64)] {
    match workload {
        // Not observed: it is there to show what the hooks cost.
        Workload::Getpid => &[],
        Workload::OpenSame | Workload::OpenNew => &[("file.open", 1)],
        Workload::ReadWrite => &[("file.io", 2)],
        Workload::Connect => &[("network.connect", 1)],
        Workload::ForkExec => &[("process.fork", 1), ("process.exec", 1), ("process.exit", 1)],
    }
}

/// What the workers did in one daemon's life, to be compared with its trail.
#[derive(Debug, Clone)]
pub(super) struct Ledger {
    same: String,
    touched: String,
    new: String,
    tiny: String,
    port: u16,
    account: Account,
}

impl Ledger {
    /// Nothing done yet on this stage.
    pub(super) fn new(files: &Files, port: u16) -> Self {
        let text = |path: std::path::PathBuf| path.display().to_string();
        let (same, touched, tiny) = (text(files.same()), text(files.touched()), text(files.tiny()));
        let new = text(files.new_folder()) + "/";
        let every = Workload::ALL.iter().flat_map(|workload| events(*workload));
        let tallies = every.map(|(event, _)| ((*event).to_owned(), Tally::default())).collect();
        Self { same, touched, new, tiny, port, account: Account { tallies, ..Account::default() } }
    }

    /// A worker did `count` operations and was to be watched.
    pub(super) fn expect(&mut self, workload: Workload, count: u64) {
        for (event, times) in events(workload) {
            self.account.tallies.entry((*event).to_owned()).or_default().expected += times * count;
        }
    }

    /// Reads the trail, and closes the account.
    ///
    /// # Errors
    /// When the daemon does not answer.
    pub(super) fn close(mut self, instance: &Instance) -> Result<Account> {
        instance.sync()?;
        let status = instance.status()?;
        self.account.status_lost = status["lost"].as_u64().context("`bailiwick status --json` has no `lost`")?;
        instance.each_entry(|entry| self.enter(entry))?;
        Ok(self.account)
    }

    /// The account so far, of no trail.
    #[cfg(test)]
    pub(super) fn into_account(self) -> Account {
        self.account
    }

    fn enter(&mut self, entry: &Value) {
        let event = entry["event"].as_str().unwrap_or_default();
        if event == "gap" {
            self.enter_gap(&entry["gap"]);
        } else if self.is_the_workload(event, entry)
            && let Some(tally) = self.account.tallies.get_mut(event)
        {
            tally.seen += entry["count"].as_u64().unwrap_or(0);
        }
    }

    fn enter_gap(&mut self, gap: &Value) {
        let text = |name: &str| gap[name].as_str().unwrap_or("?").to_owned();
        let (kind, reason) = (text("kind"), text("reason"));
        let lost = gap["lost"].as_u64();
        let counted = if lost.is_some() { "counted" } else { "nobody counted" };
        *self.account.gaps.entry(format!("{kind}: {reason} ({counted})")).or_default() += 1;
        self.account.tallies.entry(kind).or_default().told += lost.unwrap_or(0);
    }

    /// Whether a worker's operation is what this entry is about: an agent also starts, loads libraries, and ends.
    fn is_the_workload(&self, event: &str, entry: &Value) -> bool {
        let attributes = &entry["attributes"];
        let text = |name: &str| attributes[name].as_str().unwrap_or_default();
        match event {
            "file.open" => text("file.path") == self.same || text("file.path").starts_with(&self.new),
            "file.io" => text("file.path") == self.touched,
            "network.connect" => attributes["server.port"] == self.port,
            // Nothing else in these sessions forks.
            "process.fork" => true,
            "process.exec" | "process.exit" => text("process.executable.path") == self.tiny,
            _ => false,
        }
    }
}

impl Account {
    /// Adds another daemon's.
    pub(super) fn add(&mut self, other: Self) {
        for (event, tally) in other.tallies {
            let sum = self.tallies.entry(event).or_default();
            sum.expected += tally.expected;
            sum.seen += tally.seen;
            sum.told += tally.told;
        }
        self.status_lost += other.status_lost;
        for (gap, count) in other.gaps {
            *self.gaps.entry(gap).or_default() += count;
        }
    }

    /// Whether every operation is in the trail, once, and no gap is.
    pub(super) fn is_whole(&self) -> bool {
        self.status_lost == 0 && self.gaps.is_empty() && self.tallies.values().all(|tally| tally.untold() == 0)
    }

    /// Events lost, told or not.
    pub(super) fn lost(&self) -> u64 {
        let told: u64 = self.tallies.values().map(|tally| tally.told).sum();
        let untold: u64 = self.tallies.values().map(|tally| u64::try_from(tally.untold()).unwrap_or(0)).sum();
        told.max(self.status_lost) + untold
    }

    /// As JSON.
    pub(super) fn to_json(&self) -> Value {
        let tally = |tally: &Tally| {
            serde_json::json!({
                "expected": tally.expected, "seen": tally.seen, "told": tally.told, "untold": tally.untold(),
            })
        };
        let tallies: serde_json::Map<_, _> =
            self.tallies.iter().map(|(event, found)| (event.clone(), tally(found))).collect();
        serde_json::json!({
            "lost": self.lost(), "status_lost": self.status_lost, "gaps": self.gaps, "events": tallies,
        })
    }
}

/// What is wrong, a line each; nothing where all is well.
impl fmt::Display for Account {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.status_lost > 0 {
            writeln!(f, "  `bailiwick status` says that {} events are lost", self.status_lost)?;
        }
        for (gap, count) in &self.gaps {
            writeln!(f, "  {count} gap(s): {gap}")?;
        }
        for (event, tally) in &self.tallies {
            let Tally { expected, seen, told } = tally;
            let (verb, by) = if tally.untold() < 0 { ("shows too much", "by") } else { ("is silent", "about") };
            if tally.untold() != 0 {
                let wrong = tally.untold().unsigned_abs();
                writeln!(
                    f,
                    "  {event}: {expected} done, {seen} in the trail, {told} told as lost: it {verb} {by} {wrong}"
                )?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use serde_json::json;

    use super::*;

    fn ledger() -> Ledger {
        Ledger::new(&Files::at(PathBuf::from("/s")), 4242)
    }

    fn open(path: &str, count: u64) -> Value {
        json!({"event": "file.open", "count": count, "attributes": {"file.path": path}})
    }

    fn gap(kind: &str, lost: Option<u64>) -> Value {
        json!({"event": "gap", "count": 0, "gap": {"kind": kind, "lost": lost, "reason": "ring full"}})
    }

    #[test]
    fn a_trail_that_shows_every_operation_once_is_whole() {
        let mut ledger = ledger();
        ledger.expect(Workload::OpenSame, 10);
        ledger.expect(Workload::OpenNew, 2);
        ledger.expect(Workload::ReadWrite, 3);
        ledger.expect(Workload::Connect, 1);
        ledger.expect(Workload::ForkExec, 1);
        ledger.expect(Workload::Getpid, 1000);
        for entry in [
            open("/s/same", 1),
            open("/s/same", 9),
            open("/s/new/0", 1),
            open("/s/new/1", 1),
            open("/etc/ld.so.cache", 1),
            json!({"event": "file.io", "count": 3, "attributes": {"file.path": "/s/touched", "bailiwick.file.access": "r"}}),
            json!({"event": "file.io", "count": 3, "attributes": {"file.path": "/s/touched", "bailiwick.file.access": "w"}}),
            json!({"event": "file.io", "count": 9, "attributes": {"file.path": "/lib/libc.so.6"}}),
            json!({"event": "network.connect", "count": 1, "attributes": {"server.port": 4242}}),
            json!({"event": "network.connect", "count": 1, "attributes": {"server.port": 53}}),
            json!({"event": "process.fork", "count": 1, "attributes": {}}),
            json!({"event": "process.exec", "count": 1, "attributes": {"process.executable.path": "/s/tiny"}}),
            json!({"event": "process.exec", "count": 1, "attributes": {"process.executable.path": "/s/worker"}}),
            json!({"event": "process.exit", "count": 1, "attributes": {"process.executable.path": "/s/tiny"}}),
            json!({"event": "session.start", "count": 0, "attributes": {}}),
        ] {
            ledger.enter(&entry);
        }
        assert!(ledger.account.is_whole(), "{}", ledger.account);
        assert_eq!((ledger.account.lost(), ledger.account.to_string()), (0, String::new()));
    }

    #[test]
    fn what_is_lost_and_told_is_told_apart_from_what_is_lost_in_silence() {
        let mut ledger = ledger();
        ledger.expect(Workload::OpenNew, 10);
        ledger.enter(&open("/s/new/0", 4));
        ledger.enter(&gap("file.open", Some(5)));
        assert!(!ledger.account.is_whole());
        assert_eq!(ledger.account.lost(), 6);
        let text = ledger.account.to_string();
        assert!(text.contains("1 gap(s): file.open: ring full (counted)"), "{text}");
        assert!(text.contains("10 done, 4 in the trail, 5 told as lost: it is silent about 1"), "{text}");
    }

    #[test]
    fn an_action_that_is_counted_twice_is_as_wrong_as_a_lost_one() {
        let mut ledger = ledger();
        ledger.expect(Workload::OpenSame, 3);
        ledger.enter(&open("/s/same", 4));
        assert!(!ledger.account.is_whole());
        assert!(ledger.account.to_string().contains("it shows too much by 1"), "{}", ledger.account);
    }

    #[test]
    fn what_happens_outside_a_session_is_expected_nowhere() {
        let mut ledger = ledger();
        ledger.enter(&open("/s/same", 1));
        assert_eq!(ledger.account.tallies["file.open"].untold(), -1);
    }

    #[test]
    fn a_gap_in_which_nobody_counted_is_not_whole_either() {
        let mut ledger = ledger();
        ledger.enter(&gap("all", None));
        assert!(!ledger.account.is_whole());
        assert!(ledger.account.to_string().contains("(nobody counted)"), "{}", ledger.account);
    }

    #[test]
    fn accounts_of_several_daemons_add_up() {
        let mut sum = Account::default();
        for _ in 0..3 {
            let mut ledger = ledger();
            ledger.expect(Workload::Connect, 2);
            ledger.account.status_lost = 2;
            sum.add(ledger.account);
        }
        assert_eq!(sum.tallies["network.connect"], Tally { expected: 6, seen: 0, told: 0 });
        assert_eq!(sum.lost(), 12);
        assert_eq!(sum.to_json()["events"]["network.connect"]["untold"], 6);
    }
}
