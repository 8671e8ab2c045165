//! Durations as people write them: `90d`, `30s`.
//!
//! Input: a text. Output: a [`Duration`]. Refuses zero, signs, fractions and numbers without a unit.

use std::time::Duration;

/// The longest duration: a hundred years.
const MAX_SECONDS: u64 = 100 * 365 * 86_400;

/// Why a text is no duration.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DurationError {
    /// No number and unit.
    #[error("is no duration; write a whole number and a unit (s, m, h, d, w), as in `90d`")]
    Form,
    /// A sign.
    #[error("is negative; write a duration above zero, as in `90d`")]
    Negative,
    /// Nothing.
    #[error("is no time at all; write a duration above zero, as in `90d`")]
    Zero,
    /// More than a hundred years.
    #[error("is longer than a hundred years; write a shorter one, as in `90d`")]
    TooLong,
}

/// Reads a duration.
pub fn parse(text: &str) -> Result<Duration, DurationError> {
    if text.starts_with('-') {
        return Err(DurationError::Negative);
    }
    let digits_end = text.find(|character: char| !character.is_ascii_digit()).ok_or(DurationError::Form)?;
    let (digits, unit) = text.split_at(digits_end);
    let unit_seconds: u64 = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3_600,
        "d" => 86_400,
        "w" => 7 * 86_400,
        _ => return Err(DurationError::Form),
    };
    if digits.is_empty() {
        return Err(DurationError::Form);
    }
    // Only digits are left, so a number that cannot be read is one that is too great.
    let number: u64 = digits.parse().map_err(|_| DurationError::TooLong)?;
    match number.checked_mul(unit_seconds) {
        Some(0) => Err(DurationError::Zero),
        Some(seconds) if seconds <= MAX_SECONDS => Ok(Duration::from_secs(seconds)),
        Some(_) | None => Err(DurationError::TooLong),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_and_a_unit_are_a_duration_and_nothing_else_is() {
        assert_eq!(parse("90d"), Ok(Duration::from_secs(90 * 86_400)));
        assert_eq!(parse("30s"), Ok(Duration::from_secs(30)));
        for (text, error) in [
            ("", DurationError::Form),
            ("90", DurationError::Form),
            ("d", DurationError::Form),
            ("90 days", DurationError::Form),
            ("1.5h", DurationError::Form),
            ("-1d", DurationError::Negative),
            ("0d", DurationError::Zero),
            ("9999w", DurationError::TooLong),
            ("99999999999999999999999d", DurationError::TooLong),
        ] {
            assert_eq!(parse(text), Err(error), "{text}");
        }
    }
}
