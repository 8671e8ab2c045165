//! How each phase went, how long it took, and how many tests passed.

use std::{
    io::{self, Write},
    ops::AddAssign,
    time::{Duration, Instant},
};

use anyhow::Result;

/// How many tests ended in which way.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    pub(crate) passed: u64,
    pub(crate) failed: u64,
    pub(crate) ignored: u64,
}

impl Counts {
    /// What a line of `cargo test`'s output adds: nothing, unless a test program sums itself up with it.
    pub(crate) fn of_line(line: &str) -> Self {
        let mut counts = Self::default();
        let Some((_, numbers)) = line.strip_prefix("test result: ").and_then(|result| result.split_once(". ")) else {
            return counts;
        };
        for number in numbers.split(';') {
            let Some((number, what)) = number.trim().split_once(' ') else { continue };
            let Ok(number) = number.parse() else { continue };
            match what {
                "passed" => counts.passed = number,
                "failed" => counts.failed = number,
                "ignored" => counts.ignored = number,
                _ => {}
            }
        }
        counts
    }
}

impl AddAssign for Counts {
    fn add_assign(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.ignored += other.ignored;
    }
}

struct Phase {
    name: String,
    took: Duration,
    counts: Counts,
    good: bool,
}

/// The phases so far.
pub(crate) struct Report {
    phases: Vec<Phase>,
}

impl Report {
    /// A report of nothing yet.
    pub(crate) fn new() -> Self {
        Self { phases: Vec::new() }
    }

    /// Carries out `work` as the phase `name`, and says whether it went well.
    pub(crate) fn phase(&mut self, name: &str, work: impl FnOnce(&mut Counts) -> Result<()>) -> bool {
        let started = Instant::now();
        let mut counts = Counts::default();
        let result = work(&mut counts);
        if let Err(error) = &result {
            eprintln!("test: {name}: {error:#}");
            counts.failed = counts.failed.max(1);
        }
        let good = counts.failed == 0;
        self.phases.push(Phase { name: name.to_owned(), took: started.elapsed(), counts, good });
        good
    }

    /// Whether every phase went well.
    pub(crate) fn is_good(&self) -> bool {
        self.phases.iter().all(|phase| phase.good)
    }

    /// Writes the table, and the sum as the last line.
    ///
    /// # Errors
    /// When `out` cannot be written.
    pub(crate) fn print(&self, out: &mut impl Write) -> io::Result<()> {
        let mut sum = Counts::default();
        writeln!(
            out,
            "\n{:<18} {:>8}  {:<6} {:>7} {:>7} {:>8}",
            "phase", "seconds", "result", "passed", "failed", "ignored"
        )?;
        for Phase { name, took, counts, good } in &self.phases {
            let result = if *good { "good" } else { "FAILED" };
            let Counts { passed, failed, ignored } = counts;
            let seconds = took.as_secs_f64();
            writeln!(out, "{name:<18} {seconds:>8.1}  {result:<6} {passed:>7} {failed:>7} {ignored:>8}")?;
            sum += *counts;
        }
        writeln!(out, "\n{} passed, {} failed", sum.passed, sum.failed)?;
        out.flush()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use anyhow::bail;

    use super::*;

    fn last_line(report: &Report) -> String {
        let mut out = Vec::new();
        report.print(&mut out).unwrap();
        String::from_utf8(out).unwrap().lines().last().unwrap().to_owned()
    }

    #[test]
    fn the_line_in_which_a_test_program_sums_itself_up_is_counted() {
        let line = "test result: FAILED. 12 passed; 2 failed; 1 ignored; 0 measured; 3 filtered out; finished in 0.31s";
        assert_eq!(Counts::of_line(line), Counts { passed: 12, failed: 2, ignored: 1 });
    }

    #[test]
    fn other_lines_count_for_nothing() {
        for line in
            ["running 3 tests", "test a_test ... ok", "3 passed; 1 failed", "error: test result: ok. 1 passed", ""]
        {
            assert_eq!(Counts::of_line(line), Counts::default(), "{line}");
        }
    }

    #[test]
    fn the_last_line_sums_up_every_phase() {
        let mut report = Report::new();
        for _ in 0..2 {
            report.phase("tests", |counts| {
                *counts += Counts::of_line("test result: ok. 3 passed; 0 failed; 0 ignored");
                *counts += Counts::of_line("test result: ok. 4 passed; 0 failed; 0 ignored");
                Ok(())
            });
        }
        assert!(report.is_good());
        assert_eq!(last_line(&report), "14 passed, 0 failed");
    }

    #[test]
    fn a_phase_that_fails_without_a_failed_test_counts_as_one_failure() {
        let mut report = Report::new();
        assert!(!report.phase("check", |_| bail!("a lint")));
        assert!(!report.is_good());
        assert_eq!(last_line(&report), "0 passed, 1 failed");
    }

    #[test]
    fn failed_tests_are_counted_once_though_cargo_fails_for_them_too() {
        let mut report = Report::new();
        report.phase("tests", |counts| {
            *counts += Counts::of_line("test result: FAILED. 5 passed; 3 failed; 0 ignored");
            bail!("`cargo test` failed: exit status: 101")
        });
        assert_eq!(last_line(&report), "5 passed, 3 failed");
    }
}
