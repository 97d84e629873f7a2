//! How a shard's thread waits: it polls for a while, then yields, then sleeps.
//!
//! Waking a sleeping core costs a hundred times a polled hop, and one spinner too many on a busy core costs
//! milliseconds. So the budgets follow what a wake-up costs on this machine, measured at the start: it polls as long as
//! one takes and yields until two and a half of them are over (ski rental: at worst about twice the best in hindsight);
//! where two or fewer processors serve everybody, it polls a quarter of that so that it takes nobody's turn.

use std::sync::mpsc;
use std::time::{Duration, Instant};

use fairlock_protocol::Tick;

use crate::config::Poll;
use crate::driver::Patience;

/// What a wake-up is taken to cost at least and at most: a measurement that a busy machine spoilt must not make a server
/// that spins for ever, or never.
const WAKE_MIN: Duration = Duration::from_micros(5);
/// See [`WAKE_MIN`].
const WAKE_MAX: Duration = Duration::from_micros(40);
/// Times a wake-up is measured; half a millisecond of a start.
const WAKES_MEASURED: usize = 15;

/// What waking a sleeping thread costs here: the middle of some measurements, within bounds.
pub(crate) fn wake_cost() -> Duration {
    let (ask, asked) = mpsc::channel::<Instant>();
    let (tell, told) = mpsc::channel();
    let sleeper = std::thread::spawn(move || {
        while let Ok(begun) = asked.recv() {
            if tell.send(begun.elapsed()).is_err() {
                return;
            }
        }
    });
    let mut costs: Vec<Duration> = Vec::new();
    while costs.len() < WAKES_MEASURED && ask.send(Instant::now()).is_ok() {
        let Ok(cost) = told.recv() else { break };
        costs.push(cost);
    }
    drop(ask);
    // It ends with the channel; a panic there is impossible, and would only cost the measurement.
    let _ = sleeper.join();
    costs.sort_unstable();
    let middle = costs.get(costs.len() / 2).copied().unwrap_or(WAKE_MAX);
    middle.clamp(WAKE_MIN, WAKE_MAX)
}

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
    /// For a thread of a server on `processors`, where a wake-up costs `wake`.
    pub(crate) fn new(poll: Poll, processors: usize, wake: Duration) -> Temper {
        let (poll_for, yield_for) = if processors <= 2 { (wake / 4, wake) } else { (wake, wake * 5 / 2) };
        Temper { poll, poll_for, yield_for, busy_at: Tick::ZERO }
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
        let mut temper = Temper::new(Poll::Auto, 8, Duration::from_micros(20));
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
    fn on_few_processors_it_polls_a_quarter_of_what_a_wake_up_costs() {
        let mut temper = Temper::new(Poll::Auto, 2, Duration::from_micros(20));
        let start = Tick::from_millis(1000);
        temper.worked(start);
        let after = |us: u64| start.after(Duration::from_micros(us));
        assert_eq!(temper.next(after(4), None), Patience::Poll);
        assert_eq!(temper.next(after(19), None), Patience::Yield);
        assert_eq!(temper.next(after(20), None), Patience::Sleep(None));
    }

    #[test]
    fn a_wake_up_is_measured_within_its_bounds() {
        let cost = wake_cost();
        assert!((WAKE_MIN..=WAKE_MAX).contains(&cost), "{cost:?}");
    }

    #[test]
    fn always_never_sleeps_and_never_never_polls() {
        let at = Tick::from_millis(9);
        assert_eq!(Temper::new(Poll::Always, 8, WAKE_MAX).next(at, None), Patience::Poll);
        let mut temper = Temper::new(Poll::Never, 8, WAKE_MAX);
        temper.worked(at);
        assert_eq!(temper.next(at, None), Patience::Sleep(None));
    }
}
