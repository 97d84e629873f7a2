//! Small deviations of times, so that many clients of one server do not act in step. Not a secret, hence a
//! generator of three shifts, seeded by whoever drives the session.

use std::time::Duration;

/// A source of deviations.
#[derive(Clone, Debug)]
pub(crate) struct Jitter(u64);

impl Jitter {
    /// Seeded; the seed decides everything that follows.
    pub(crate) fn new(seed: u64) -> Jitter {
        Jitter(seed | 1)
    }

    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    /// `duration` ± `percent` %.
    pub(crate) fn around(&mut self, duration: Duration, percent: u32) -> Duration {
        assert!(percent <= 100, "a deviation does not turn time around");
        let least = duration * (100 - percent) / 100;
        let span_ns = u64::try_from((duration * (2 * percent) / 100).as_nanos()).unwrap_or(u64::MAX);
        least + Duration::from_nanos(self.next() % span_ns.max(1))
    }

    /// The pause before attempt number `tries` (from 0): doubling from `first` to `most`, each somewhere in its upper half.
    pub(crate) fn backoff(&mut self, tries: u32, first: Duration, most: Duration) -> Duration {
        let pause = first.saturating_mul(1 << tries.min(16)).min(most);
        self.around(pause * 3 / 4, 33)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn deviations_stay_within_their_bounds_and_differ() {
        let mut jitter = Jitter::new(7);
        let second = Duration::from_secs(1);
        let drawn: Vec<_> = (0..100).map(|_| jitter.around(second, 10)).collect();
        assert!(drawn.iter().all(|d| (Duration::from_millis(900)..Duration::from_millis(1100)).contains(d)));
        assert!(drawn.windows(2).any(|pair| pair[0] != pair[1]));
        for tries in 0..40 {
            let pause = jitter.backoff(tries, Duration::from_millis(10), second);
            assert!(pause >= Duration::from_millis(5) && pause <= second, "{pause:?}");
        }
    }
}
