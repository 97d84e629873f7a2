//! How a shard's thread waits: it polls for a while, then yields, then sleeps.
//!
//! Waking a sleeping core costs a hundred times a polled hop, and one spinner too many on a busy core costs
//! milliseconds. The budgets are about twice the cost of a wake-up (ski rental: at worst twice the best in hindsight);
//! where two or fewer processors serve everybody, polling is cut to a quarter so that it takes nobody's turn.

use std::time::Duration;

use fairlock_protocol::Tick;

use crate::config::Poll;
use crate::driver::Patience;

/// Decides how the next wait waits.
#[derive(Debug)]
pub(crate) struct Temper {
    poll: Poll,
    poll_for: Duration,
    yield_for: Duration,
    /// When there was something to do last.
    busy_at: Tick,
}

impl Temper {
    /// For a thread of a server on `processors`.
    pub(crate) fn new(poll: Poll, processors: usize) -> Temper {
        let (poll_us, yield_us) = if processors <= 2 { (5, 20) } else { (20, 50) };
        Temper {
            poll,
            poll_for: Duration::from_micros(poll_us),
            yield_for: Duration::from_micros(yield_us),
            busy_at: Tick::ZERO,
        }
    }

    /// Something was done at `now`.
    pub(crate) fn worked(&mut self, now: Tick) {
        self.busy_at = now;
    }

    /// Whether it looks again and again before it asks the kernel.
    pub(crate) fn looks(&self) -> bool {
        self.poll != Poll::Never
    }

    /// How to wait at `now`, when the next thing is due at `due`.
    pub(crate) fn next(&self, now: Tick, due: Option<Tick>) -> Patience {
        let left = due.map(|due| due.since(now));
        if left.is_some_and(|left| left.is_zero()) {
            return Patience::Poll;
        }
        let idle = now.since(self.busy_at);
        match self.poll {
            Poll::Always => Patience::Poll,
            Poll::Auto if idle < self.poll_for => Patience::Poll,
            Poll::Auto if idle < self.yield_for => Patience::Yield,
            Poll::Auto | Poll::Never => Patience::Sleep(left),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_polls_then_yields_then_sleeps_until_the_next_thing_is_due() {
        let mut temper = Temper::new(Poll::Auto, 8);
        let start = Tick::from_millis(1000);
        temper.worked(start);
        let after = |us: u64| start.after(Duration::from_micros(us));
        let due = Some(start.after_millis(5));
        assert_eq!(temper.next(after(19), due), Patience::Poll);
        assert_eq!(temper.next(after(49), due), Patience::Yield);
        assert_eq!(temper.next(after(1000), due), Patience::Sleep(Some(Duration::from_millis(4))));
        assert_eq!(temper.next(after(1000), None), Patience::Sleep(None));
        assert_eq!(temper.next(after(6000), due), Patience::Poll, "what is due is not slept over");
    }

    #[test]
    fn always_never_sleeps_and_never_never_polls() {
        let at = Tick::from_millis(9);
        assert_eq!(Temper::new(Poll::Always, 8).next(at, None), Patience::Poll);
        let mut temper = Temper::new(Poll::Never, 8);
        temper.worked(at);
        assert_eq!(temper.next(at, None), Patience::Sleep(None));
    }
}
