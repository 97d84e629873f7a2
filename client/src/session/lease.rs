//! The lease: one number, the deadline D on the local clock. While it lies ahead every guard of the session is valid as
//! far as time goes; once somebody has seen it lie behind, it is 0 for ever.
//!
//! Renewal and loss meet on one compare-and-swap: a confirmation either moves D before anybody found it past, or it
//! finds 0 and moves nothing. So a guard that was reported lost never becomes valid again.

use crate::error::LostCause;
use fairlock_protocol::Tick;
use fairlock_protocol::tick::certain;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Stands for "over" in the deadline word.
const OVER: u64 = 0;

/// One session's lease, shared by all its guards.
#[derive(Debug)]
pub(crate) struct Lease {
    ttl: Duration,
    /// D in nanoseconds, or [`OVER`]. Every store is a compare-and-swap (AcqRel) or the swap in `end`; each pairs
    /// with the Acquire load in `check`.
    deadline: AtomicU64,
    /// Why it is over; written before the deadline becomes OVER, by whoever ends it on purpose.
    cause: OnceLock<LostCause>,
}

impl Lease {
    /// A lease first confirmed for a request sent at `sent`.
    pub(crate) fn new(sent: Tick, ttl: Duration) -> Lease {
        let deadline = sent.after(certain(ttl));
        assert!(deadline > Tick::ZERO, "a lease begins after the first moment of the clock");
        Lease { ttl, deadline: AtomicU64::new(deadline.0), cause: OnceLock::new() }
    }

    /// Its length.
    pub(crate) fn ttl(&self) -> Duration {
        self.ttl
    }

    /// The deadline, if it lies ahead of `now`; else the lease is over from here on, for everybody.
    #[inline]
    pub(crate) fn check(&self, now: Tick) -> Result<Tick, LostCause> {
        loop {
            let deadline = self.deadline.load(Ordering::Acquire);
            if deadline == OVER {
                return Err(self.cause());
            }
            if now.0 < deadline {
                return Ok(Tick(deadline));
            }
            // Fails only when a renewal was confirmed meanwhile; then the new deadline is looked at.
            let swap = self.deadline.compare_exchange(deadline, OVER, Ordering::AcqRel, Ordering::Acquire);
            if swap.is_ok() {
                return Err(self.cause());
            }
        }
    }

    /// A renewal sent at `sent` is confirmed, and this is learned at `now`. Says whether the lease lives.
    pub(crate) fn renew(&self, now: Tick, sent: Tick) -> bool {
        assert!(sent <= now, "a confirmation follows its request");
        let renewed = sent.after(certain(self.ttl)).0;
        loop {
            let Ok(deadline) = self.check(now) else { return false };
            if renewed <= deadline.0 {
                return true;
            }
            let swap =
                self.deadline.compare_exchange(deadline.0, renewed, Ordering::AcqRel, Ordering::Acquire);
            if swap.is_ok() {
                return true;
            }
        }
    }

    /// When the newest confirmed renewal was sent; `None` when the lease is over.
    pub(crate) fn confirmed(&self) -> Option<Tick> {
        let deadline = self.deadline.load(Ordering::Acquire);
        let sent = deadline.checked_sub(u64::try_from(certain(self.ttl).as_nanos()).unwrap_or(u64::MAX))?;
        (deadline != OVER).then_some(Tick(sent))
    }

    /// Ends it now. The first cause stays.
    pub(crate) fn end(&self, cause: LostCause) {
        self.cause.get_or_init(|| cause);
        self.deadline.swap(OVER, Ordering::AcqRel);
    }

    /// Why it is over; time, when nobody ended it on purpose.
    fn cause(&self) -> LostCause {
        *self.cause.get_or_init(|| LostCause::Lease)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TTL: Duration = Duration::from_secs(1);

    fn at(ms: u64) -> Tick {
        Tick::from_millis(ms)
    }

    #[test]
    fn the_deadline_is_a_hundredth_and_ten_milliseconds_before_the_end_counted_from_the_sending() {
        let lease = Lease::new(at(1000), TTL);
        assert_eq!(lease.check(at(1979)), Ok(at(1980)));
        assert_eq!(lease.check(at(1980)), Err(LostCause::Lease));
    }

    #[test]
    fn an_older_confirmation_moves_nothing_back() {
        let lease = Lease::new(at(1000), TTL);
        assert!(lease.renew(at(1500), at(1400)));
        assert!(lease.renew(at(1501), at(1200)));
        assert_eq!(lease.check(at(1501)), Ok(at(2380)));
        assert_eq!(lease.confirmed(), Some(at(1400)));
    }

    #[test]
    fn a_confirmation_learned_after_the_deadline_saves_nothing() {
        let lease = Lease::new(at(1000), TTL);
        assert!(!lease.renew(at(1980), at(1900)));
        assert_eq!(
            lease.check(at(1500)),
            Err(LostCause::Lease),
            "lost is final, whatever the clock says now"
        );
    }

    #[test]
    fn whoever_sees_the_deadline_pass_ends_it_for_a_renewal_that_is_under_way() {
        let lease = Lease::new(at(1000), TTL);
        assert!(lease.check(at(1990)).is_err());
        assert!(!lease.renew(at(1970), at(1960)), "the confirmation was stamped earlier but came second");
        assert_eq!(lease.confirmed(), None);
    }

    #[test]
    fn the_first_cause_stays() {
        let lease = Lease::new(at(1000), TTL);
        lease.end(LostCause::Killed);
        lease.end(LostCause::Closed);
        assert_eq!(lease.check(at(1001)), Err(LostCause::Killed));
    }

    #[test]
    fn renewals_and_checks_race_without_a_lost_guard_coming_back() {
        for round in 0..200_u64 {
            let lease = Lease::new(at(1000), TTL);
            let lost_first = std::thread::scope(|scope| {
                let checker = scope.spawn(|| lease.check(at(1980)).is_err());
                let renewer = scope.spawn(|| lease.renew(at(1979), at(1500 + round)));
                checker.join().unwrap() && !renewer.join().unwrap()
            });
            assert_eq!(lease.check(at(1979)).is_err(), lost_first);
        }
    }
}
