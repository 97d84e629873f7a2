//! Values with a notation of their own: durations (`250ms`, `5s`, `2m`, `1h`, a bare number is seconds), permission
//! bits in octal, and paths that may be absent. One notation for file and command line.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use fairlock_protocol::Discipline;
use serde::Deserializer;
use serde::de::{Error, Visitor};

/// Longest duration that can be written: beyond it, a typing error is likelier than a wish.
const DURATION_MAX: Duration = Duration::from_hours(366 * 24);

/// The text is not a duration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotADuration;

impl fmt::Display for NotADuration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(
            "a duration is a number with ms, s, m or h, like 250ms, 5s, 1.5m, 1h; a bare number is seconds",
        )
    }
}

impl std::error::Error for NotADuration {}

/// A duration as the command line and the configuration write it; at most a year.
///
/// # Errors
/// [`NotADuration`].
pub fn parse_duration(text: &str) -> Result<Duration, NotADuration> {
    let text = text.trim();
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let unit_ns: u128 = match unit.trim_start() {
        "ms" => 1_000_000,
        "s" | "" => 1_000_000_000,
        "m" => 60_000_000_000,
        "h" => 3_600_000_000_000,
        _ => return Err(NotADuration),
    };
    let (whole, fraction) = number.split_once('.').unwrap_or((number, "0"));
    // Nine digits are nanoseconds of a second; more would only be rounded away.
    if whole.is_empty() || whole.len() > 12 || fraction.is_empty() || fraction.len() > 9 {
        return Err(NotADuration);
    }
    let digits_ns = |digits: &str| digits.parse::<u128>().map(|n| n * unit_ns).map_err(|_| NotADuration);
    let scale = 10_u128.pow(u32::try_from(fraction.len()).map_err(|_| NotADuration)?);
    let total_ns = digits_ns(whole)? + digits_ns(fraction)? / scale;
    let duration = u64::try_from(total_ns).map(Duration::from_nanos).map_err(|_| NotADuration)?;
    if duration <= DURATION_MAX { Ok(duration) } else { Err(NotADuration) }
}

/// A duration in the shortest notation that loses nothing but less than a millisecond.
pub(super) fn write_duration(duration: Duration) -> String {
    let ms = duration.as_millis();
    match ms {
        0 => "0s".to_string(),
        _ if ms.is_multiple_of(3_600_000) => format!("{}h", ms / 3_600_000),
        _ if ms.is_multiple_of(60_000) => format!("{}m", ms / 60_000),
        _ if ms.is_multiple_of(1000) => format!("{}s", ms / 1000),
        _ => format!("{ms}ms"),
    }
}

/// Text in quotes, or a number of seconds.
pub(super) fn duration<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    struct Text;
    impl Visitor<'_> for Text {
        type Value = Duration;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            write!(f, "{NotADuration}")
        }

        fn visit_str<E: Error>(self, text: &str) -> Result<Duration, E> {
            parse_duration(text).map_err(E::custom)
        }

        fn visit_i64<E: Error>(self, seconds: i64) -> Result<Duration, E> {
            parse_duration(&seconds.to_string()).map_err(E::custom)
        }

        fn visit_f64<E: Error>(self, seconds: f64) -> Result<Duration, E> {
            parse_duration(&seconds.to_string()).map_err(E::custom)
        }
    }
    deserializer.deserialize_any(Text)
}

/// Permission bits: octal digits in quotes, or a TOML number such as `0o660`.
pub(super) fn mode<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u32, D::Error> {
    struct Octal;
    impl Visitor<'_> for Octal {
        type Value = u32;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("permission bits in octal, like \"0660\"")
        }

        fn visit_str<E: Error>(self, text: &str) -> Result<u32, E> {
            let digits = text.strip_prefix("0o").unwrap_or(text);
            let mode = u32::from_str_radix(digits, 8).ok().filter(|mode| mode & !0o777 == 0);
            mode.ok_or_else(|| E::custom("permission bits are octal, like \"0660\""))
        }

        fn visit_i64<E: Error>(self, number: i64) -> Result<u32, E> {
            let mode = u32::try_from(number).ok().filter(|mode| mode & !0o777 == 0);
            mode.ok_or_else(|| E::custom("permission bits are octal, like \"0660\" or 0o660"))
        }
    }
    deserializer.deserialize_any(Octal)
}

/// A path, or nothing for the empty text.
pub(super) fn path_or_none<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<PathBuf>, D::Error> {
    let path = <PathBuf as serde::Deserialize>::deserialize(deserializer)?;
    Ok((!path.as_os_str().is_empty()).then_some(path))
}

/// The same, for a key that may be absent.
pub(super) fn some_duration<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<Duration>, D::Error> {
    duration(deserializer).map(Some)
}

/// A discipline by its word.
pub(super) fn discipline<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Discipline, D::Error> {
    let word = <String as serde::Deserialize>::deserialize(deserializer)?;
    word.parse().map_err(D::Error::custom)
}
