//! When to start a gate again that died.

use std::time::Duration;

/// The first wait.
const FIRST: Duration = Duration::from_millis(100);
/// The longest wait.
const LONGEST: Duration = Duration::from_secs(30);
/// A gate that lived so long was healthy: the next wait is the first again.
const HEALTHY_AFTER: Duration = Duration::from_secs(60);

/// The wait before the next start, doubled with every death that follows soon on a start.
#[derive(Clone, Copy, Debug, Default)]
pub struct Backoff {
    last: Option<Duration>,
}

impl Backoff {
    /// A backoff that has seen no death.
    pub fn new() -> Self {
        Self::default()
    }

    /// How long to wait after a gate died (or failed to start) that had lived for `lived`.
    pub fn after_death(&mut self, lived: Duration) -> Duration {
        let wait = match self.last {
            Some(last) if lived < HEALTHY_AFTER => last.saturating_mul(2).min(LONGEST),
            Some(_) | None => FIRST,
        };
        self.last = Some(wait);
        wait
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn deaths_in_a_row_wait_ever_longer_up_to_a_limit() {
        let mut backoff = Backoff::new();
        let waits: Vec<u128> = (0..12).map(|_| backoff.after_death(Duration::ZERO).as_millis()).collect();
        assert_eq!(waits[..4], [100, 200, 400, 800]);
        assert_eq!(waits.last(), Some(&30_000));
    }

    #[test]
    fn a_gate_that_lived_long_is_started_again_soon() {
        let mut backoff = Backoff::new();
        for _ in 0..5 {
            backoff.after_death(Duration::ZERO);
        }
        assert_eq!(backoff.after_death(HEALTHY_AFTER), FIRST);
    }
}
