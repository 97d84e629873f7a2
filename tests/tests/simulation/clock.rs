//! A machine's clock: it began at some moment, and goes a little too fast or too slow.

use fairlock_protocol::Tick;

const MILLION: i128 = 1_000_000;

/// A clock.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock {
    pub(crate) offset: u64,
    pub(crate) ppm: i64,
}

impl Clock {
    /// What it shows.
    pub(crate) fn shows(&self, truth: u64) -> Tick {
        let elapsed = i128::from(truth) * (MILLION + i128::from(self.ppm)) / MILLION;
        Tick(self.offset + u64::try_from(elapsed).expect("time goes on"))
    }

    /// The first moment at which it shows this.
    pub(crate) fn truth(&self, tick: Tick) -> u64 {
        let elapsed = i128::from(tick.0.saturating_sub(self.offset));
        let mut truth =
            u64::try_from(elapsed * MILLION / (MILLION + i128::from(self.ppm))).unwrap_or(u64::MAX / 4);
        while truth < u64::MAX / 8 && self.shows(truth) < tick {
            truth += 1;
        }
        truth
    }
}
