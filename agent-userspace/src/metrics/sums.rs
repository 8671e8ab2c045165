//! Counts by labels, as many as there are, up to a bound.

use std::collections::BTreeMap;

use super::{Instrument, Readings};

/// Series kept of one: labels are agents and events, so that this bites only where somebody declares thousands.
const MAX_SERIES: usize = 2_000;
/// The label of what found no series of its own.
const OTHER: &str = "other";

/// Sums of a counter, each by the values of its `N` labels.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sums<const N: usize> {
    series: BTreeMap<[String; N], u64>,
}

impl<const N: usize> Sums<N> {
    /// Adds to the series of these labels; beyond the bound to one that stands for all others, so that the sum stays right.
    pub fn add(&mut self, labels: [&str; N], more: u64) {
        let mut key = labels.map(str::to_owned);
        if self.series.len() >= MAX_SERIES && !self.series.contains_key(&key) {
            key = std::array::from_fn(|_| OTHER.to_owned());
        }
        let sum = self.series.entry(key).or_default();
        *sum = sum.saturating_add(more);
    }

    /// Tells every series.
    pub fn tell(&self, readings: &mut Readings, instrument: &'static Instrument) {
        for (labels, sum) in &self.series {
            readings.add(instrument, &labels.each_ref().map(String::as_str), *sum);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{MAX_SERIES, Sums};

    #[test]
    fn a_sum_stays_right_when_labels_are_made_up_without_end() {
        let mut sums = Sums::<2>::default();
        let many = MAX_SERIES as u64 + 70;
        for number in 0..many {
            sums.add([&number.to_string(), "x"], 2);
        }
        assert_eq!(sums.series.len(), MAX_SERIES + 1);
        assert_eq!(sums.series.values().sum::<u64>(), 2 * many);
        assert_eq!(sums.series.get(&["other".to_owned(), "other".to_owned()]), Some(&140));
    }
}
