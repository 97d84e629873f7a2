//! Time as data. Nothing on the lower floors reads a clock; whoever owns one hands in a [`Tick`].
//!
//! The lease arithmetic stands here once, because both ends must agree on it: the client's deadline ends
//! strictly before the server's expiry whatever the offset of their clocks, as long as their *rates* differ by
//! no more than [`RATE_ERROR_PPM`].

use core::time::Duration;

/// A moment on CLOCK_BOOTTIME of the machine that made it, in nanoseconds. Ticks of two machines do not compare.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Tick(pub u64);

/// Bound on the error of a clock's rate, in parts per million (1000 ppm is ten times what crystals show).
pub const RATE_ERROR_PPM: u64 = 1000;
/// Fixed part that a client takes off each lease, for its own scheduling.
pub const LEASE_SLACK: Duration = Duration::from_millis(10);
/// A client takes this fraction off each lease: 1 %, five times what two clocks at the bound can drift apart.
pub const LEASE_MARGIN_DIVISOR: u32 = 100;

const _: () = assert!(
    1_000_000 / LEASE_MARGIN_DIVISOR as u64 >= 2 * RATE_ERROR_PPM,
    "the margin covers both clocks erring in opposite directions"
);

impl Tick {
    /// The first moment.
    pub const ZERO: Tick = Tick(0);

    /// From whole milliseconds.
    pub const fn from_millis(ms: u64) -> Tick {
        Tick(ms.saturating_mul(1_000_000))
    }

    /// Whole milliseconds, rounded down.
    pub const fn millis(self) -> u64 {
        self.0 / 1_000_000
    }

    /// This much later; stays at the end of time rather than wrapping.
    #[must_use]
    pub const fn after(self, duration: Duration) -> Tick {
        let seconds_ns = duration.as_secs().saturating_mul(1_000_000_000);
        Tick(self.0.saturating_add(seconds_ns).saturating_add(duration.subsec_nanos() as u64))
    }

    /// This much later, in milliseconds.
    #[must_use]
    pub const fn after_millis(self, ms: u64) -> Tick {
        Tick(self.0.saturating_add(ms.saturating_mul(1_000_000)))
    }

    /// How long ago `earlier` was; zero when it is not earlier.
    pub const fn since(self, earlier: Tick) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

/// What is certainly left of a lease of `length` at the moment its renewal was sent: `length − 1 % − 10 ms`.
///
/// A client's deadline is this much after it *sent* the newest confirmed renewal; the server expires no earlier
/// than `length` after it *received* it.
pub fn certain(length: Duration) -> Duration {
    length.saturating_sub(length / LEASE_MARGIN_DIVISOR).saturating_sub(LEASE_SLACK)
}

/// How long a server that lost its memory keeps everybody out, when the longest lease it may have granted was
/// `ttl_horizon`: the lease, four times the rate error, and the slack.
pub fn quarantine(ttl_horizon: Duration) -> Duration {
    if ttl_horizon.is_zero() {
        return Duration::ZERO;
    }
    let drift_ns = ttl_horizon.as_nanos() * u128::from(4 * RATE_ERROR_PPM) / 1_000_000;
    ttl_horizon + Duration::from_nanos(u64::try_from(drift_ns).unwrap_or(u64::MAX)) + LEASE_SLACK
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_with_the_slowest_clock_stops_before_a_server_with_the_fastest() {
        for ttl_ms in [200_u64, 5_000, 60_000, 3_600_000] {
            let ttl = Duration::from_millis(ttl_ms);
            let client_real_ns = certain(ttl).as_nanos() * 1_000_000 / u128::from(1_000_000 - RATE_ERROR_PPM);
            let server_real_ns = ttl.as_nanos() * 1_000_000 / u128::from(1_000_000 + RATE_ERROR_PPM);
            assert!(client_real_ns < server_real_ns, "ttl {ttl_ms} ms");
        }
    }

    #[test]
    fn the_quarantine_outlives_every_lease_on_the_slowest_clock() {
        let ttl = Duration::from_mins(1);
        let quarantine_real_ns =
            quarantine(ttl).as_nanos() * 1_000_000 / u128::from(1_000_000 + RATE_ERROR_PPM);
        let lease_real_ns = certain(ttl).as_nanos() * 1_000_000 / u128::from(1_000_000 - RATE_ERROR_PPM);
        assert!(lease_real_ns < quarantine_real_ns);
        assert_eq!(quarantine(Duration::ZERO), Duration::ZERO);
    }

    #[test]
    fn time_does_not_wrap_at_its_end() {
        assert_eq!(Tick(u64::MAX).after(Duration::from_secs(1)), Tick(u64::MAX));
        assert_eq!(Tick::ZERO.since(Tick(5)), Duration::ZERO);
        assert_eq!(Tick::from_millis(7).after_millis(3).millis(), 10);
    }
}
