//! The one clock of the client: CLOCK_BOOTTIME, which counts the time a machine sleeps, because leases do.

use fairlock_protocol::Tick;
use rustix::event::Timespec;
use rustix::time::{ClockId, clock_getres, clock_gettime};
use std::time::Duration;

/// The present moment.
#[inline]
pub(crate) fn now() -> Tick {
    Tick(nanoseconds(clock_gettime(ClockId::Boottime)))
}

#[inline]
fn nanoseconds(time: Timespec) -> u64 {
    // Both parts are positive since boot, and 2^64 ns are 584 years.
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    seconds * 1_000_000_000 + u64::try_from(time.tv_nsec).unwrap_or(0)
}

/// CLOCK_MONOTONIC as it was at the last tick of the kernel, in nanoseconds: a quarter of the price.
#[inline]
pub(crate) fn coarse_ns() -> u64 {
    nanoseconds(clock_gettime(ClockId::MonotonicCoarse))
}

/// CLOCK_MONOTONIC at this moment, in nanoseconds.
pub(crate) fn steady_ns() -> u64 {
    nanoseconds(clock_gettime(ClockId::Monotonic))
}

/// How far that clock lags behind at most while ticks come.
pub(crate) fn coarse_tick() -> Duration {
    let tick = clock_getres(ClockId::MonotonicCoarse);
    let seconds = Duration::from_secs(u64::try_from(tick.tv_sec).unwrap_or(0));
    seconds + Duration::from_nanos(u64::try_from(tick.tv_nsec).unwrap_or(0))
}

/// A timeout as poll takes it, rounded up by nothing: poll itself never returns early.
pub(crate) fn timespec(duration: Duration) -> Timespec {
    Timespec {
        tv_sec: i64::try_from(duration.as_secs()).unwrap_or(i64::MAX),
        tv_nsec: i64::from(duration.subsec_nanos()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_clock_goes_on() {
        let before = now();
        assert!(before > Tick::ZERO);
        assert!(now() >= before);
        assert!(coarse_ns() > 0 && coarse_tick() > Duration::ZERO);
        assert_eq!(timespec(Duration::from_millis(1500)).tv_nsec, 500_000_000);
    }
}
