//! Medians, spreads, and ratios to the neighbours.
//!
//! Input: microseconds of CPU per operation, slot by slot. Output: one spread a condition and workload. Refuses: to
//! say anything of no values, or of a ratio to nothing.

/// The middle of some values, and how far they lie apart.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Spread {
    pub(super) median: f64,
    pub(super) min: f64,
    pub(super) max: f64,
}

impl Spread {
    /// The spread of `values`; none where there is no value.
    pub(super) fn of(values: &[f64]) -> Option<Self> {
        let middle = median(values)?;
        let fold = |start, pick: fn(f64, f64) -> f64| values.iter().copied().fold(start, pick);
        Some(Self { median: middle, min: fold(f64::INFINITY, f64::min), max: fold(f64::NEG_INFINITY, f64::max) })
    }
}

/// The middle value, or the mean of the two in the middle.
pub(super) fn median(values: &[f64]) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let upper = *sorted.get(sorted.len() / 2)?;
    if sorted.len() % 2 == 1 {
        return Some(upper);
    }
    Some((sorted.get(sorted.len() / 2 - 1)? + upper) / 2.0)
}

/// `value` over the mean of what was measured right before and right after it, so that a machine that gets slower or
/// faster meanwhile does not show. None where the neighbours are zero.
pub(super) fn ratio(before: f64, value: f64, after: f64) -> Option<f64> {
    let base = f64::midpoint(before, after);
    (base > 0.0).then(|| value / base)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_the_middle_value_whatever_the_order() {
        assert_eq!(median(&[3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(&[4.0, 1.0, 2.0, 100.0]), Some(3.0));
        assert_eq!(median(&[7.0]), Some(7.0));
    }

    #[test]
    fn no_values_have_no_median_and_no_spread() {
        assert_eq!(median(&[]), None);
        assert_eq!(Spread::of(&[]), None);
    }

    #[test]
    fn a_spread_reaches_from_the_least_value_to_the_greatest() {
        assert_eq!(Spread::of(&[1.2, 1.0, 9.0]), Some(Spread { median: 1.2, min: 1.0, max: 9.0 }));
    }

    #[test]
    fn a_machine_that_gets_slower_evenly_changes_no_ratio() {
        assert_eq!(ratio(1.0, 3.0, 2.0), Some(2.0));
        assert_eq!(ratio(2.0, 6.0, 4.0), Some(2.0));
    }

    #[test]
    fn there_is_no_ratio_to_nothing() {
        assert_eq!(ratio(0.0, 1.0, 0.0), None);
    }
}
