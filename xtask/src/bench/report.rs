//! What was measured, and the tables made of it.

use std::{collections::BTreeMap, fmt::Write};

use serde_json::{Value, json};

use super::{
    audit::Account,
    cost::Memory,
    plan::{Condition, Workload},
    stats::{Spread, ratio},
};

/// What one condition cost, one time.
#[derive(Debug, Clone)]
pub(super) struct Slot {
    pub(super) condition: Condition,
    /// The worker's CPU for one operation, in microseconds: the median of the passes.
    pub(super) cpu_us: BTreeMap<Workload, f64>,
    pub(super) daemon: Option<DaemonUse>,
}

/// What a daemon used meanwhile, and whether its trail is whole.
#[derive(Debug, Clone, Default)]
pub(super) struct DaemonUse {
    /// Its CPU for one operation of the worker, in microseconds.
    pub(super) cpu_us: BTreeMap<Workload, f64>,
    pub(super) memory: Memory,
    pub(super) account: Account,
}

/// All slots, in the order of their measuring: every second one has nothing attached, the first and the last too.
#[derive(Debug, Default)]
pub(super) struct Results {
    pub(super) slots: Vec<Slot>,
}

impl Results {
    /// The conditions that were compared, in the order of their rows.
    fn compared(&self) -> Vec<Condition> {
        let has = |condition: &Condition| self.slots.iter().any(|slot| slot.condition == *condition);
        Condition::COMPARED.into_iter().filter(has).collect()
    }

    fn daemons(&self, condition: Condition) -> impl Iterator<Item = &DaemonUse> {
        self.slots.iter().filter(move |slot| slot.condition == condition).filter_map(|slot| slot.daemon.as_ref())
    }

    /// Microseconds of an operation with nothing attached.
    fn base(&self, workload: Workload) -> Option<Spread> {
        let values = self.slots.iter().filter(|slot| slot.condition == Condition::Nothing);
        Spread::of(&values.filter_map(|slot| slot.cpu_us.get(&workload).copied()).collect::<Vec<_>>())
    }

    /// The ratios of `condition` to what was measured right before and after it. For [`Condition::Nothing`] that is the
    /// ratio to others of its kind: how far ratios stray when there is nothing to measure.
    fn ratios(&self, condition: Condition, workload: Workload) -> Option<Spread> {
        let reach = if condition == Condition::Nothing { 2 } else { 1 };
        let value = |index: usize| self.slots.get(index)?.cpu_us.get(&workload).copied();
        let at = |(index, slot): (usize, &Slot)| {
            let before = value(index.checked_sub(reach)?)?;
            (slot.condition == condition).then_some(())?;
            ratio(before, value(index)?, value(index + reach)?)
        };
        Spread::of(&self.slots.iter().enumerate().filter_map(at).collect::<Vec<_>>())
    }

    /// The daemon's own microseconds for an operation of the worker.
    fn own_cpu(&self, condition: Condition, workload: Workload) -> Option<Spread> {
        let values = self.daemons(condition).filter_map(|used| used.cpu_us.get(&workload).copied());
        Spread::of(&values.collect::<Vec<_>>())
    }

    /// The most memory of any daemon.
    fn memory(&self, condition: Condition) -> Memory {
        self.daemons(condition).fold(Memory::default(), |most, used| Memory {
            processes_bytes: most.processes_bytes.max(used.memory.processes_bytes),
            maps_bytes: most.maps_bytes.max(used.memory.maps_bytes),
        })
    }

    /// The account of all daemons of `condition`; none where there was none.
    fn account(&self, condition: Condition) -> Option<Account> {
        self.daemons(condition).fold(None, |sum: Option<Account>, used| {
            let mut sum = sum.unwrap_or_default();
            sum.add(used.account.clone());
            Some(sum)
        })
    }

    /// Whether no daemon lost anything.
    pub(super) fn is_whole(&self) -> bool {
        self.slots.iter().filter_map(|slot| slot.daemon.as_ref()).all(|used| used.account.is_whole())
    }

    /// What is wrong with the trails, by condition; nothing where all is well.
    pub(super) fn complaints(&self) -> String {
        let mut text = String::new();
        for condition in self.compared() {
            match self.account(condition) {
                Some(account) if !account.is_whole() => text += &format!("{condition}:\n{account}"),
                Some(_) | None => {}
            }
        }
        text
    }

    /// Ratios, with their spread, as a table in Markdown.
    pub(super) fn cost_table(&self) -> String {
        let mut rows = vec![row("nothing, µs", Workload::ALL.map(|workload| micros(self.base(workload))), "")];
        let ratios = |condition| Workload::ALL.map(|workload| times(self.ratios(condition, workload)));
        rows.push(row("nothing, beside nothing", ratios(Condition::Nothing), ""));
        for condition in self.compared() {
            let lost = self.account(condition).map(|account| account.lost().to_string()).unwrap_or_default();
            rows.push(row(&condition.to_string(), ratios(condition), &lost));
        }
        table(&["", "lost"], &rows)
    }

    /// What the daemon used itself, as a table in Markdown.
    pub(super) fn own_table(&self) -> String {
        let daemons = self.compared().into_iter().filter(|condition| condition.has_daemon());
        let rows = daemons.map(|condition| {
            let Memory { processes_bytes, maps_bytes } = self.memory(condition);
            let memory = format!("{} + {}", mebibytes(processes_bytes), mebibytes(maps_bytes));
            row(
                &condition.to_string(),
                Workload::ALL.map(|workload| micros(self.own_cpu(condition, workload))),
                &memory,
            )
        });
        table(&["the daemon itself, ms for 1,000 operations", "MiB: processes + maps"], &rows.collect::<Vec<_>>())
    }

    /// All of it as JSON.
    pub(super) fn to_json(&self) -> Value {
        let spreads = |of: &dyn Fn(Workload) -> Option<Spread>| -> Value {
            let values = Workload::ALL.iter().map(|workload| (workload.name().to_owned(), spread_json(of(*workload))));
            Value::Object(values.collect())
        };
        let conditions = self.compared().into_iter().map(|condition| {
            let memory = self.memory(condition);
            let mut item = json!({
                "condition": condition.name(),
                "ratio": spreads(&|workload| self.ratios(condition, workload)),
            });
            if let Some(account) = self.account(condition) {
                item["trail"] = account.to_json();
                item["daemon"] = json!({
                    "cpu_us": spreads(&|workload| self.own_cpu(condition, workload)),
                    "processes_bytes": memory.processes_bytes,
                    "maps_bytes": memory.maps_bytes,
                });
            }
            item
        });
        json!({
            "base_us": spreads(&|workload| self.base(workload)),
            "noise": spreads(&|workload| self.ratios(Condition::Nothing, workload)),
            "conditions": conditions.collect::<Vec<_>>(),
            "whole": self.is_whole(),
        })
    }
}

fn spread_json(spread: Option<Spread>) -> Value {
    spread.map_or(Value::Null, |Spread { median, min, max }| json!({ "median": median, "min": min, "max": max }))
}

/// As `1.24 (1.19..1.31)`.
fn times(spread: Option<Spread>) -> String {
    spread.map_or_else(String::new, |Spread { median, min, max }| {
        if median >= 10.0 {
            format!("{median:.1} ({min:.1}..{max:.1})")
        } else {
            format!("{median:.2} ({min:.2}..{max:.2})")
        }
    })
}

/// Microseconds, with as many digits as mean something.
fn micros(spread: Option<Spread>) -> String {
    spread.map_or_else(String::new, |Spread { median, min, max }| {
        if median >= 100.0 {
            format!("{median:.0} ({min:.0}..{max:.0})")
        } else {
            times(Some(Spread { median, min, max }))
        }
    })
}

fn mebibytes(bytes: u64) -> String {
    format!("{:.1}", bytes as f64 / f64::from(1 << 20))
}

fn row(heading: &str, cells: [String; Workload::ALL.len()], last: &str) -> String {
    format!("| {heading} | {} | {last} |\n", cells.join(" | "))
}

/// A table with a column a workload between its first and its last.
fn table([first, last]: &[&str; 2], rows: &[String]) -> String {
    let headings = Workload::ALL.map(Workload::heading);
    let mut text = row(first, headings.map(str::to_owned), last);
    // Writing to a string cannot fail.
    let _: std::fmt::Result = writeln!(text, "|{}", "---|".repeat(headings.len() + 2));
    text.extend(rows.iter().map(String::as_str));
    text
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;

    fn slot(condition: Condition, cpu_us: f64) -> Slot {
        let daemon = condition.has_daemon().then(|| DaemonUse {
            cpu_us: BTreeMap::from([(Workload::Getpid, 0.5)]),
            memory: Memory { processes_bytes: 3 << 20, maps_bytes: 1 << 19 },
            account: Account::default(),
        });
        Slot { condition, cpu_us: BTreeMap::from([(Workload::Getpid, cpu_us)]), daemon }
    }

    fn results() -> Results {
        let (nothing, inside, strace) = (Condition::Nothing, Condition::Inside, Condition::Strace);
        let slots = [
            (nothing, 1.0),
            (inside, 2.0),
            (nothing, 1.0),
            (strace, 60.0),
            (nothing, 3.0),
            (inside, 4.5),
            (nothing, 3.0),
        ];
        Results { slots: slots.into_iter().map(|(condition, value)| slot(condition, value)).collect() }
    }

    #[test]
    fn a_ratio_is_to_the_neighbours_with_nothing_attached() {
        let results = results();
        let inside = results.ratios(Condition::Inside, Workload::Getpid).unwrap();
        assert_eq!(inside, Spread { median: 1.75, min: 1.5, max: 2.0 });
        assert_eq!(results.ratios(Condition::Strace, Workload::Getpid).unwrap().median, 30.0);
        assert_eq!(results.ratios(Condition::Inside, Workload::Connect), None);
    }

    #[test]
    fn the_noise_is_what_nothing_costs_beside_nothing() {
        let noise = results().ratios(Condition::Nothing, Workload::Getpid).unwrap();
        // The second of four beside the first and the third, the third beside its own neighbours.
        assert_eq!(noise, Spread { median: 1.0, min: 0.5, max: 1.5 });
    }

    #[test]
    fn the_table_has_a_row_a_condition_in_a_fixed_order() {
        let table = results().cost_table();
        let lines: Vec<_> = table.lines().collect();
        assert_eq!(lines[0].matches('|').count(), Workload::ALL.len() + 3);
        assert!(lines.iter().all(|line| line.matches('|').count() == Workload::ALL.len() + 3), "{table}");
        assert!(lines[2].starts_with("| nothing, µs | 2.00 (1.00..3.00) | "), "{table}");
        assert_eq!(lines[4], "| Bailiwick, inside a session | 1.75 (1.50..2.00) |  |  |  |  |  | 0 |");
        assert_eq!(lines[5], "| `strace -f` | 30.0 (30.0..30.0) |  |  |  |  |  |  |");
    }

    #[test]
    fn the_daemons_own_table_has_those_conditions_alone_that_have_a_daemon() {
        let table = results().own_table();
        assert_eq!(table.lines().count(), 3);
        assert!(
            table.contains("| Bailiwick, inside a session | 0.50 (0.50..0.50) |  |  |  |  |  | 3.0 + 0.5 |"),
            "{table}"
        );
    }

    #[test]
    fn one_daemon_that_lost_something_spoils_the_whole() {
        let mut results = results();
        assert!(results.is_whole() && results.complaints().is_empty());
        let files = super::super::stage::Files::at("/s".into());
        let mut ledger = super::super::audit::Ledger::new(&files, 1);
        ledger.expect(Workload::Connect, 2);
        results.slots[5].daemon.as_mut().unwrap().account = ledger.into_account();
        assert!(!results.is_whole());
        assert!(results.complaints().starts_with("Bailiwick, inside a session:\n  network.connect: 2 done"));
        assert!(results.cost_table().contains("| 2 |\n"));
        assert_eq!(results.to_json()["whole"], false);
    }
}
