//! Durations as people read them: three figures and a unit, `3.2s`, `250ms`, `12m05s`.

use std::time::Duration;

/// A duration for people.
pub(crate) fn human(duration: Duration) -> String {
    let seconds = duration.as_secs();
    match duration.as_nanos() {
        ns @ 0..1_000 => format!("{ns}ns"),
        ns @ 1_000..1_000_000 => figures(ns, 1_000, "µs"),
        ns @ 1_000_000..1_000_000_000 => figures(ns, 1_000_000, "ms"),
        ns if seconds < 60 => figures(ns, 1_000_000_000, "s"),
        _ if seconds < 3600 => format!("{}m{:02}s", seconds / 60, seconds % 60),
        _ if seconds < 86_400 => format!("{}h{:02}m", seconds / 3600, seconds % 3600 / 60),
        _ => format!("{}d{:02}h", seconds / 86_400, seconds % 86_400 / 3600),
    }
}

/// The same, from milliseconds.
pub(crate) fn human_ms(ms: u64) -> String {
    human(Duration::from_millis(ms))
}

/// One digit after the point below 100, none above.
fn figures(ns: u128, unit_ns: u128, unit: &str) -> String {
    let tenths = ns * 10 / unit_ns;
    if tenths >= 1_000 || tenths.is_multiple_of(10) {
        format!("{}{unit}", tenths / 10)
    } else {
        format!("{}.{}{unit}", tenths / 10, tenths % 10)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_is_short_at_every_size() {
        let human = |ns: u64| human(Duration::from_nanos(ns));
        assert_eq!(human(0), "0ns");
        assert_eq!(human(812), "812ns");
        assert_eq!(human(12_345), "12.3µs");
        assert_eq!(human(250_000_000), "250ms");
        assert_eq!(human(3_249_000_000), "3.2s");
        assert_eq!(human(5_000_000_000), "5s");
        assert_eq!(human(59_999_000_000), "59.9s");
        assert_eq!(human(725_000_000_000), "12m05s");
        assert_eq!(human(3_720_000_000_000), "1h02m");
        assert_eq!(human(200_000_000_000_000), "2d07h");
        assert_eq!(human_ms(1500), "1.5s");
    }
}
