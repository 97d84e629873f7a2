//! A machine's clock: it began at some moment, and goes a little too fast or too slow.

use fairlock_protocol::Tick;

const MILLION: u64 = 1_000_000;
/// Times up to this one, more than an hour, are reckoned in 64 bits.
const SOON: u64 = 1 << 42;

/// A clock.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock {
    pub(crate) offset: u64,
    pub(crate) ppm: i64,
}

impl Clock {
    /// What it shows.
    pub(crate) fn shows(&self, truth: u64) -> Tick {
        Tick(self.offset + scaled(truth, self.rate(), MILLION))
    }

    /// The first moment at which it shows this.
    pub(crate) fn truth(&self, tick: Tick) -> u64 {
        let mut truth = scaled(tick.0.saturating_sub(self.offset), MILLION, self.rate());
        while truth < u64::MAX / 8 && self.shows(truth) < tick {
            truth += 1;
        }
        truth
    }

    /// What it shows of a million.
    fn rate(&self) -> u64 {
        MILLION.checked_add_signed(self.ppm).expect("a clock errs by a thousandth")
    }
}

/// `time * by / of`.
fn scaled(time: u64, by: u64, of: u64) -> u64 {
    if time < SOON {
        return time * by / of;
    }
    let scaled = u128::from(time) * u128::from(by) / u128::from(of);
    u64::try_from(scaled).unwrap_or(u64::MAX / 4)
}
