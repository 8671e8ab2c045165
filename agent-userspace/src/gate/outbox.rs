//! What the gate still has to tell the daemon: bounded, in order, and without losing a passage.
//!
//! A daemon that is stopped does not read. Reports then wait here; when there is no more room, passages are merged into
//! one that says how many there were and from when, and other reports are dropped (the daemon asks again).

use std::collections::VecDeque;
use std::io;

use super::wire::{Passage, Report};

/// How many reports wait: those of a few seconds of one start after another, at one a hundredth of a second.
pub(super) const MAX_REPORTS: usize = 512;

/// Reports that wait for the daemon to read.
#[derive(Debug)]
pub(super) struct Outbox {
    reports: VecDeque<Report>,
    merged: Option<Passage>,
}

impl Outbox {
    /// Room for [`MAX_REPORTS`] reports, allocated once.
    pub(super) fn new() -> Self {
        Self { reports: VecDeque::with_capacity(MAX_REPORTS), merged: None }
    }

    /// Whether nothing waits.
    pub(super) fn is_empty(&self) -> bool {
        self.reports.is_empty() && self.merged.is_none()
    }

    /// Adds a report.
    pub(super) fn push(&mut self, report: Report) {
        if self.reports.len() < MAX_REPORTS && self.merged.is_none() {
            self.reports.push_back(report);
            return;
        }
        match report {
            Report::LetThrough(passage) => self.merged = Some(merge(self.merged, passage)),
            Report::Ready
            | Report::Failed { .. }
            | Report::Marked { .. }
            | Report::NotMarked { .. }
            | Report::Held { .. } => {}
        }
    }

    /// Sends as many as `send` takes; the rest waits on.
    ///
    /// # Errors
    ///
    /// What `send` gives, but for `WouldBlock`.
    pub(super) fn flush(&mut self, mut send: impl FnMut(Report) -> io::Result<()>) -> io::Result<()> {
        while let Some(report) = self.reports.front().copied().or(self.merged.map(Report::LetThrough)) {
            match send(report) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            }
            if self.reports.pop_front().is_none() {
                self.merged = None;
            }
        }
        Ok(())
    }
}

fn merge(merged: Option<Passage>, passage: Passage) -> Passage {
    let Some(merged) = merged else {
        return passage;
    };
    Passage {
        file: merged.file.filter(|_| merged.file == passage.file),
        tgid: None,
        execs: merged.execs.zip(passage.execs).map(|(some, more)| some.saturating_add(more)),
        from_boot_ns: merged.from_boot_ns.min(passage.from_boot_ns),
        why: merged.why,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;
    use crate::gate::wire::{FileId, Why};

    fn passage(from_boot_ns: u64) -> Passage {
        let file = Some(FileId { device: 1, inode: 2 });
        Passage { file, tgid: Some(3), execs: Some(1), from_boot_ns, why: Why::NoAnswer }
    }

    #[test]
    fn reports_go_out_in_order_as_soon_as_the_daemon_reads() {
        let mut outbox = Outbox::new();
        outbox.push(Report::Marked { id: 1 });
        outbox.push(Report::LetThrough(passage(5)));
        outbox.flush(|_| Err(io::ErrorKind::WouldBlock.into())).unwrap();
        assert!(!outbox.is_empty());
        let mut sent = Vec::new();
        outbox
            .flush(|report| {
                sent.push(report);
                Ok(())
            })
            .unwrap();
        assert_eq!(sent, [Report::Marked { id: 1 }, Report::LetThrough(passage(5))]);
        assert!(outbox.is_empty());
    }

    #[test]
    fn what_has_no_room_is_merged_and_every_passage_is_still_counted() {
        let mut outbox = Outbox::new();
        let all = MAX_REPORTS as u64 + 1_000;
        for from_boot_ns in 1..=all {
            outbox.push(Report::LetThrough(passage(from_boot_ns)));
        }
        let mut sent = Vec::new();
        outbox
            .flush(|report| {
                sent.push(report);
                Ok(())
            })
            .unwrap();
        assert_eq!(sent.len(), MAX_REPORTS + 1);
        let merged = Passage { tgid: None, execs: Some(1_000), ..passage(MAX_REPORTS as u64 + 1) };
        assert_eq!(sent.last(), Some(&Report::LetThrough(merged)));
    }

    #[test]
    fn what_was_not_counted_stays_uncounted_when_merged() {
        let merged = merge(Some(Passage { execs: None, ..passage(9) }), passage(4));
        assert_eq!(merged.execs, None);
        assert_eq!(merged.from_boot_ns, 4);
    }

    #[test]
    fn an_error_of_the_socket_is_passed_on() {
        let mut outbox = Outbox::new();
        outbox.push(Report::Ready);
        let error = outbox.flush(|_| Err(io::ErrorKind::BrokenPipe.into())).map_err(|error| error.kind());
        assert_eq!(error, Err(io::ErrorKind::BrokenPipe));
    }
}
