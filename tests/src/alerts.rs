//! The alerts that ship, and the metrics that the documents list, under Prometheus' names.

use std::collections::BTreeSet;

const ALERTS: &str = include_str!("../../docs/alerts.yml");
/// The pages that list metrics in tables.
const PAGES: [&str; 2] = [include_str!("../../docs/metrics.md"), include_str!("../../docs/export.md")];

/// The names of all alerts.
pub fn names() -> Vec<&'static str> {
    ALERTS.lines().filter_map(|line| line.trim().strip_prefix("- alert: ")).collect()
}

/// The metrics that the alerts' expressions name, but for Prometheus' own.
pub fn metrics() -> BTreeSet<String> {
    // An expression ends where the next key of the rule begins; labels stand in braces and parentheses.
    let mut named = BTreeSet::new();
    let mut within = false;
    for line in ALERTS.lines().map(str::trim) {
        within = match line {
            _ if line.starts_with("expr:") => true,
            _ if ["labels:", "for:", "annotations:"].iter().any(|key| line.starts_with(key)) => false,
            _ => within,
        };
        if within {
            let words = line.split(|character: char| !(character.is_ascii_alphanumeric() || character == '_'));
            let is_metric = |word: &&str| {
                ["bailiwick_", "process_"].iter().any(|prefix| word.starts_with(prefix)) && !is_label(word)
            };
            named.extend(words.filter(is_metric).map(str::to_owned));
        }
    }
    named
}

/// The labels that the expressions name. None is a metric too.
fn is_label(word: &str) -> bool {
    ["bailiwick_agent", "bailiwick_event", "bailiwick_finding", "bailiwick_outcome", "bailiwick_verdict"]
        .contains(&word)
}

/// Every metric of the pages.
pub fn documented() -> BTreeSet<String> {
    PAGES.iter().flat_map(|page| page.lines()).filter_map(of_row).collect()
}

/// The name under which Prometheus has the metric of a row: `| name | kind | unit | by | says |`, or without a unit.
fn of_row(line: &str) -> Option<String> {
    let cells: Vec<&str> = line.split('|').map(str::trim).collect();
    let (name, kind) = (cells.get(1)?.strip_prefix('`')?.strip_suffix('`')?, *cells.get(2)?);
    if !["gauge", "sum", "histogram"].contains(&kind) {
        return None;
    }
    let unit = match *cells.get(3)? {
        "s" => "_seconds",
        "By" => "_bytes",
        _ => "",
    };
    let name = name.replace('.', "_");
    let unit = if name.ends_with(unit) { "" } else { unit };
    let total = if kind == "sum" { "_total" } else { "" };
    Some(format!("{name}{unit}{total}"))
}

#[cfg(test)]
mod tests {
    use super::{metrics, names, of_row};

    #[test]
    fn a_row_of_a_page_has_prometheus_name() {
        let of = |row: &str| of_row(row).unwrap_or_default();
        assert_eq!(of("| `a.ring.usage` | gauge | By | `x` | says |"), "a_ring_usage_bytes");
        assert_eq!(of("| `process.cpu.time` | sum | s | `cpu.mode` | says |"), "process_cpu_time_seconds_total");
        assert_eq!(of("| `a.lost` | sum | `a.agent` | says |"), "a_lost_total");
        assert_eq!(of("| `/metrics` | what this page lists |"), "");
    }

    #[test]
    fn expressions_over_several_lines_are_read_and_labels_are_no_metrics() {
        let named = metrics();
        for metric in ["bailiwick_lost_total", "process_uptime_seconds", "bailiwick_problem"] {
            assert!(named.contains(metric), "{metric}: {named:?}");
        }
        assert!(!named.contains("bailiwick_agent") && !named.contains("bailiwick_sensor_lost_total"), "{named:?}");
        assert!(names().contains(&"BailiwickDown"));
    }
}
