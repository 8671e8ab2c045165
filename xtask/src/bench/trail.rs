//! `cargo xtask bench trail`: writing, indexing, verifying the trail, and asking about it.
//!
//! Inputs: how many entries. Outputs: tables in Markdown (or JSON) on standard output. What is measured is in
//! `agent-userspace/benches/trail.rs`; needs no root. The trail that is made lies below the target folder, and is removed.

use std::fmt::Write;

use anyhow::{Context, Result};
use clap::Args;
use serde_json::Value;

use crate::{
    invocation::Invocation,
    setup::{self, Group},
    workspace::Workspace,
};

/// What to measure.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// Entries of the trail: a million take about 900 MB of disk
    #[arg(long, default_value_t = 10_000_000, value_parser = clap::value_parser!(u64).range(10_000..=100_000_000))]
    entries: u64,
    /// JSON instead of tables
    #[arg(long)]
    json: bool,
}

/// Builds the bench, optimised, runs it, and prints what it measured.
///
/// # Errors
/// When it cannot be built, or fails.
pub(super) fn run(workspace: &Workspace, options: &Options) -> Result<()> {
    setup::ensure(workspace, &[Group::Build])?;
    let place = workspace.metadata()?.target_directory.join(format!("bench-trail-{}", std::process::id()));
    let bench = Invocation::new("cargo").args(["bench", "--package", "agent-userspace", "--bench", "trail", "--"]);
    let output = bench.arg(options.entries.to_string()).arg(place).output_in(workspace)?;
    let results: Value = serde_json::from_str(&output).context("the bench printed no JSON")?;
    if options.json {
        println!("{results:#}")
    } else {
        println!("{}", tables(&results))
    }
    Ok(())
}

fn tables(results: &Value) -> String {
    let number = |pointer: &str| results.pointer(pointer).and_then(Value::as_f64).unwrap_or(f64::NAN);
    let thousands = |pointer: &str| in_thousands(number(pointer));
    let mib = |pointer: &str| format!("{:.0} MiB", number(pointer) / f64::from(1 << 20));
    let rows = [
        ("entries", thousands("/entries")),
        ("bytes an entry", format!("{:.0}", number("/write/bytes_an_entry"))),
        ("segments, of together", format!("{:.0}, {}", number("/write/segments"), mib("/write/bytes"))),
        ("appended a second, nothing beside it", thousands("/write/alone/entries_a_second")),
        ("appended a second, beside the indexer", thousands("/write/beside_the_indexer/entries_a_second")),
        ("CPU an entry appended", format!("{:.2} µs", number("/write/beside_the_indexer/cpu_us_an_entry"))),
        ("indexed a second, one thread", thousands("/index/entries_a_second")),
        ("CPU an entry indexed", format!("{:.2} µs", number("/index/cpu_us_an_entry"))),
        (
            "the index, of the trail's bytes",
            format!("{}, {:.1} %", mib("/index/bytes"), number("/index/share_of_trail") * 100.0),
        ),
        ("verified a second", thousands("/verify/entries_a_second")),
        ("the same in bytes", format!("{:.0} MiB", number("/verify/mib_a_second"))),
        ("read and parsed a second", thousands("/read/entries_a_second")),
        ("peak memory of the bench", format!("{:.0} MiB", number("/peak_rss_kib") / 1024.0)),
    ];
    let mut text = String::from("| what | measured |\n|---|---|\n");
    for (what, measured) in rows {
        // Writing to a string cannot fail.
        let _: std::fmt::Result = writeln!(text, "| {what} | {measured} |");
    }
    text.push_str("\n| question | entries, sessions | median, ms | greatest, ms |\n|---|---|---|---|\n");
    for asked in results["queries"].as_array().into_iter().flatten() {
        let (found, sessions) = (&asked["found"], &asked["sessions"]);
        let [median, greatest] = ["median_ms", "greatest_ms"].map(|time| asked[time].as_f64().unwrap_or(f64::NAN));
        let question = asked["question"].as_str().unwrap_or_default();
        let _: std::fmt::Result =
            writeln!(text, "| `{question}` | {found}, {sessions} | {median:.1} | {greatest:.1} |");
    }
    text
}

/// Rounded to thousands, with a comma after each three digits.
fn in_thousands(number: f64) -> String {
    let mut digits = format!("{:.0}000", number / 1e3);
    let mut at = digits.len();
    while at > 3 {
        at -= 3;
        digits.insert(at, ',');
    }
    digits
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_question_is_a_row() {
        let results = serde_json::json!({"entries": 10_000_000, "queries": [
            {"question": "tail --path /x", "found": 10, "sessions": 0, "median_ms": 12.34, "greatest_ms": 20.0},
        ]});
        let tables = tables(&results);
        assert!(tables.contains("| entries | 10,000,000 |"), "{tables}");
        assert_eq!(in_thousands(234_567.0), "235,000");
        assert!(tables.ends_with("| `tail --path /x` | 10, 0 | 12.3 | 20.0 |\n"), "{tables}");
    }
}
