//! Links that were closed with bytes still to write wait here for their deadline. All wait equally long, so the queue is
//! in order of time by itself and needs no heap; those that finished early are skipped when they come up.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::FAREWELL_TIME;
use super::slots::Key;

/// Deadlines of closing links, earliest first.
#[derive(Debug, Default)]
pub(super) struct Farewells {
    queue: VecDeque<(Instant, Key)>,
}

impl Farewells {
    pub(super) fn begin(&mut self, link: Key) {
        self.queue.push_back((Instant::now() + FAREWELL_TIME, link));
    }

    /// The next link whose time is over; it may be gone already.
    pub(super) fn expired(&mut self, now: Instant) -> Option<Key> {
        self.queue.pop_front_if(|(deadline, _)| *deadline <= now).map(|(_, link)| link)
    }

    /// When to look again, forgetting first the leading links that are gone.
    pub(super) fn next(&mut self, is_alive: impl Fn(Key) -> bool) -> Option<Instant> {
        while self.queue.pop_front_if(|(_, link)| !is_alive(*link)).is_some() {}
        self.queue.front().map(|(deadline, _)| *deadline)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }
}

/// How long to sleep: as long as the caller allows, not beyond the driver's own deadline.
pub(super) fn sleep_time(allowed: Option<Duration>, deadline: Option<Instant>) -> Option<Duration> {
    let own = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
    match (allowed, own) {
        (Some(allowed), Some(own)) => Some(allowed.min(own)),
        (allowed, own) => allowed.or(own),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn deadlines_come_up_in_order_and_finished_links_are_skipped() {
        let mut farewells = Farewells::default();
        let keys = [Key::new(0, 0), Key::new(1, 0), Key::new(2, 0)];
        let before = Instant::now();
        for key in keys {
            farewells.begin(key);
        }
        assert_eq!(farewells.expired(before), None);
        assert!(farewells.next(|key| key != keys[0]).unwrap() >= before + FAREWELL_TIME);
        let later = Instant::now() + FAREWELL_TIME;
        assert_eq!([farewells.expired(later), farewells.expired(later)], [Some(keys[1]), Some(keys[2])]);
        assert!(farewells.is_empty() && farewells.expired(later).is_none());
    }

    #[test]
    fn a_sleep_ends_at_the_earlier_of_both_times() {
        let second = Duration::from_secs(1);
        assert_eq!(sleep_time(None, None), None);
        assert_eq!(sleep_time(Some(second), None), Some(second));
        assert!(sleep_time(Some(second * 9), Some(Instant::now() + second)).unwrap() <= second);
        assert_eq!(sleep_time(None, Some(Instant::now())), Some(Duration::ZERO));
    }
}
