//! The one reader of a clock in the server: CLOCK_BOOTTIME, which counts suspend and never goes back.

use fairlock_protocol::Tick;
use rustix::time::{ClockId, clock_gettime};

/// This moment. Costs a vDSO call, tens of nanoseconds; a shard reads it once a pass.
pub(crate) fn now() -> Tick {
    read(ClockId::Boottime)
}

/// This moment on the clock that clients on this host compare stamps with cheaply. It stands still in suspend.
pub(crate) fn monotonic() -> Tick {
    read(ClockId::Monotonic)
}

fn read(clock: ClockId) -> Tick {
    let time = clock_gettime(clock);
    let seconds = u64::try_from(time.tv_sec).expect("time since boot is positive");
    let nanoseconds = u64::try_from(time.tv_nsec).expect("a timespec's nanoseconds are below 10^9");
    Tick(seconds.saturating_mul(1_000_000_000).saturating_add(nanoseconds))
}
