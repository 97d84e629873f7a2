//! When to say that one is still there: every fifth of the lease, measured from the newest *confirmed* renewal, so that
//! a busy client says nothing extra. Two beats without an answer mean that the connection is dead, whatever the
//! system thinks of it.

use super::jitter::Jitter;
use fairlock_protocol::Tick;
use fairlock_protocol::limits::KEEPALIVE_DIVISOR;
use std::time::Duration;

/// Deviation of a beat, in percent.
const JITTER_PERCENT: u32 = 10;
/// Beats without an answer after which a connection is given up.
const BEATS_UNANSWERED: u32 = 2;

/// What to do now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Beat {
    /// Nothing before this moment.
    Wait(Tick),
    /// Send a keepalive, and ask again at this moment.
    Send(Tick),
    /// Nothing was answered for too long: break the connection and make another.
    Break,
}

/// The rhythm of one session.
#[derive(Debug)]
pub(crate) struct Pulse {
    interval: Duration,
    due: Tick,
    /// When the oldest keepalive that nothing has answered was sent.
    unanswered_since: Option<Tick>,
    jitter: Jitter,
}

impl Pulse {
    pub(crate) fn new(ttl: Duration, confirmed: Tick, mut jitter: Jitter) -> Pulse {
        let interval = ttl / KEEPALIVE_DIVISOR;
        let due = confirmed.after(jitter.around(interval, JITTER_PERCENT));
        Pulse { interval, due, unanswered_since: None, jitter }
    }

    /// What to do at `now`, when the newest confirmed renewal was sent at `confirmed` and the home shard is, or is
    /// not, connected.
    pub(crate) fn beat(&mut self, now: Tick, confirmed: Tick, connected: bool) -> Beat {
        if self.unanswered_since.is_some_and(|since| confirmed >= since) || !connected {
            self.unanswered_since = None;
        }
        if now < self.due {
            return Beat::Wait(self.due);
        }
        let pause = self.jitter.around(self.interval, JITTER_PERCENT);
        let after_confirmed = confirmed.after(pause);
        if after_confirmed > now {
            self.due = after_confirmed;
            return Beat::Wait(self.due);
        }
        self.due = now.after(pause);
        if !connected {
            return Beat::Wait(self.due);
        }
        if let Some(since) = self.unanswered_since
            && now.since(since) >= self.interval * BEATS_UNANSWERED * 9 / 10
        {
            self.unanswered_since = None;
            return Beat::Break;
        }
        self.unanswered_since.get_or_insert(now);
        Beat::Send(self.due)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Tick {
        Tick::from_millis(ms)
    }

    fn pulse() -> Pulse {
        Pulse::new(Duration::from_secs(5), at(1000), Jitter::new(3))
    }

    #[test]
    fn an_idle_client_beats_every_fifth_of_its_lease() {
        let mut pulse = pulse();
        assert!(
            matches!(pulse.beat(at(1500), at(1000), true), Beat::Wait(due) if due > at(1890) && due < at(2110))
        );
        assert!(matches!(pulse.beat(at(2110), at(1000), true), Beat::Send(due) if due > at(3000)));
    }

    #[test]
    fn every_confirmed_renewal_postpones_the_beat() {
        let mut pulse = pulse();
        assert!(matches!(pulse.beat(at(2110), at(2100), true), Beat::Wait(due) if due > at(2990)));
    }

    #[test]
    fn two_beats_without_an_answer_give_the_connection_up() {
        let mut pulse = pulse();
        let mut now = at(1000);
        let beats: Vec<_> = (0..3)
            .map(|_| {
                now = now.after_millis(1101);
                pulse.beat(now, at(1000), true)
            })
            .collect();
        assert!(matches!(beats[..], [Beat::Send(_), Beat::Send(_), Beat::Break]), "{beats:?}");
    }

    #[test]
    fn without_a_connection_there_is_nobody_to_tell() {
        let mut pulse = pulse();
        for ms in [2200, 3400, 4600, 5800] {
            assert!(matches!(pulse.beat(at(ms), at(1000), false), Beat::Wait(_)));
        }
    }
}
