//! How long to wait before trying again.

use std::hash::{BuildHasher, RandomState};
use std::time::Duration;

/// Waits grow from `first` by half each time up to `longest`, each cut by up to a half at random, so that many daemons
/// do not come back to a collector in step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backoff {
    /// The first wait.
    pub first: Duration,
    /// No wait is longer, unless the receiver asks for it.
    pub longest: Duration,
}

impl Default for Backoff {
    fn default() -> Self {
        Self { first: Duration::from_secs(1), longest: Duration::from_secs(30) }
    }
}

impl Backoff {
    /// The wait after this many failures in a row, from 1.
    pub(super) fn wait(&self, failures: u32) -> Duration {
        // 1.5^40 is beyond any sensible ratio of longest to first.
        let grown = self.first.mul_f64(1.5_f64.powi(i32::try_from(failures.saturating_sub(1).min(40)).unwrap_or(40)));
        jittered(grown.min(self.longest))
    }

    /// The wait where trying again soon would be no use.
    pub(super) fn long_wait(&self) -> Duration {
        jittered(self.longest)
    }
}

fn jittered(wait: Duration) -> Duration {
    // The standard library's hasher is keyed at random: enough to spread, and no source of randomness is needed.
    let fraction = u32::try_from(RandomState::new().hash_one(0) % 1000).unwrap_or(0);
    wait - wait * fraction / 2000
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::Backoff;

    #[test]
    fn waits_grow_to_the_longest_and_are_never_nothing() {
        let backoff = Backoff { first: Duration::from_secs(1), longest: Duration::from_secs(30) };
        for (failures, most) in [(1, 1.0), (2, 1.5), (3, 2.25), (9, 25.63), (10, 30.0), (u32::MAX, 30.0)] {
            let wait = backoff.wait(failures).as_secs_f64();
            assert!(wait >= most / 2.0 - 0.01 && wait <= most, "after {failures} failures: {wait}");
        }
    }
}
