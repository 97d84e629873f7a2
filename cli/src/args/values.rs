//! Durations as people write them: `250ms`, `5s`, `2m`, `1h`; a bare number is seconds; fractions are allowed.

use std::fmt;
use std::time::Duration;

/// The text is not a duration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct BadDuration;

impl fmt::Display for BadDuration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a duration is a number and ms, s, m or h: 250ms, 5s, 1.5m, 1h; a bare number is seconds")
    }
}

impl std::error::Error for BadDuration {}

/// Reads a duration.
///
/// # Errors
/// [`BadDuration`] for another unit, a sign, an exponent, or more than a duration holds.
pub(crate) fn duration(text: &str) -> Result<Duration, BadDuration> {
    let text = text.trim();
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let unit_s = match unit.trim_start() {
        "ms" => 1e-3,
        "" | "s" => 1.0,
        "m" | "min" => 60.0,
        "h" => 3600.0,
        _ => return Err(BadDuration),
    };
    // `.` alone reads as no number, which is what it is.
    let number: f64 = number.parse().map_err(|_| BadDuration)?;
    Duration::try_from_secs_f64(number * unit_s).map_err(|_| BadDuration)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_reads_as_it_is_written() {
        let ms = |text| duration(text).map(|d| d.as_millis());
        assert_eq!(ms("250ms"), Ok(250));
        assert_eq!(ms("5s"), Ok(5_000));
        assert_eq!(ms("2m"), Ok(120_000));
        assert_eq!(ms("1h"), Ok(3_600_000));
        assert_eq!(ms("3"), Ok(3_000));
        assert_eq!(ms("0.25"), Ok(250));
        assert_eq!(ms("1.5m"), Ok(90_000));
        assert_eq!(ms(".5s"), Ok(500));
        assert_eq!(ms("0"), Ok(0));
    }

    #[test]
    fn what_is_no_duration_is_refused() {
        for text in
            ["", ".", "5d", "-1s", "1e3", "5 s s", "ms", "1.2.3s", "inf", "NaN", "99999999999999999999h"]
        {
            assert_eq!(duration(text), Err(BadDuration), "{text:?}");
        }
    }
}
