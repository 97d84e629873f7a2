//! The lease: one number, the deadline D on the local clock. While it lies ahead every guard of the session is valid as
//! far as time goes; once somebody has seen it lie behind, it is 0 for ever.
//!
//! Renewal and loss meet on one compare-and-swap: a confirmation either moves D before anybody found it past, or it
//! finds 0 and moves nothing. So a guard that was reported lost never becomes valid again.
//!
//! Through shared memory the server shows instead of confirming: its stamp is the moment at which it was last known to
//! serve this session, and counts like a renewal sent then. It also shows when it has ended the session, before anybody
//! can see what follows from that. Both are read by whoever checks.

use crate::clock;
use crate::error::LostCause;
use crate::transport::Memory;
use fairlock_protocol::limits::KEEPALIVE_DIVISOR;
use fairlock_protocol::tick::certain;
use fairlock_protocol::{Refusal, Tick};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
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
    witness: Option<Witness>,
    /// Why it is over; written before the deadline becomes OVER, by whoever ends it on purpose.
    cause: OnceLock<LostCause>,
}

/// What the server shows of the session.
#[derive(Debug)]
struct Witness {
    memory: Arc<Memory>,
    /// Its stamps renew, because the server ends the session for other reasons than silence. False once the connection is
    /// gone: nothing would show there that the session has ended. Release store in `look_away`, Acquire loads here.
    stamps_renew: AtomicBool,
    /// The connection is gone. Release store in `look_away`, Acquire loads here.
    is_away: AtomicBool,
    /// The session lives with another connection since, so that what is shown of its end here means nothing. Release store
    /// in `moved`, Acquire load in `check`.
    is_moved: AtomicBool,
    /// What is certain of a lease on the coarse clock, in nanoseconds, where that is enough: see
    /// [`Lease::coarse_witness`].
    coarsely_certain_ns: Option<u64>,
}

impl Witness {
    /// When the server was last known to serve the session, as far as that renews it.
    fn stamp(&self) -> Option<Tick> {
        self.stamps_renew.load(Ordering::Acquire).then(|| self.memory.stamp())
    }
}

impl Lease {
    /// A lease first confirmed for a request sent at `sent`.
    pub(crate) fn new(sent: Tick, ttl: Duration) -> Lease {
        let deadline = sent.after(certain(ttl));
        assert!(deadline > Tick::ZERO, "a lease begins after the first moment of the clock");
        Lease { ttl, deadline: AtomicU64::new(deadline.0), witness: None, cause: OnceLock::new() }
    }

    /// The same, of a session that was opened through this memory. `stamps_renew`: its liveness is not a heartbeat.
    /// `alone`: its server answers to nobody.
    pub(crate) fn shown_in(mut self, memory: Arc<Memory>, stamps_renew: bool, alone: bool) -> Lease {
        let certain = certain(self.ttl).saturating_sub(clock::coarse_tick());
        let certain_ns = u64::try_from(certain.as_nanos()).unwrap_or(u64::MAX);
        let is_enough = alone && stamps_renew && memory.reads_our_clocks(clock::now(), clock::steady_ns());
        let coarsely_certain_ns = is_enough.then_some(certain_ns);
        self.witness = Some(Witness {
            memory,
            stamps_renew: AtomicBool::new(stamps_renew),
            is_away: AtomicBool::new(false),
            is_moved: AtomicBool::new(false),
            coarsely_certain_ns,
        });
        self
    }

    /// The home shard's memory, and how long after its stamp the lease is certain on the kernel's coarse monotonic clock,
    /// less the tick that this clock lags behind; `None` where only the lease's own clock counts.
    ///
    /// The coarse clock is enough where the server stands alone: only the thread that stamps lets anybody else in, on this
    /// very host, and it shows the end of the session, or takes the word, before; and a thread that has died shows that.
    /// The clock only sees to it that a server that stands still for a lease is taken for lost. It does not count a
    /// suspended host's sleep, but neither did the server do anything meanwhile. It has to be the clock that the server
    /// stamps with: a time namespace may move it and not the other one, which is looked at when memory is passed. In a cell another node may take over, so
    /// there, and for heartbeats, the lease's own clock decides.
    pub(crate) fn coarse_witness(&self) -> Option<(&Arc<Memory>, u64)> {
        let witness = self.witness.as_ref()?;
        Some((&witness.memory, witness.coarsely_certain_ns?))
    }

    /// Whether it was found over.
    #[inline]
    pub(crate) fn is_over(&self) -> bool {
        self.deadline.load(Ordering::Acquire) == OVER
    }

    /// The connection with the memory is gone: what the server has shown until now counts, and from now on what it
    /// confirms.
    pub(crate) fn look_away(&self) {
        let Some(witness) = &self.witness else { return };
        if let Some(stamp) = witness.stamp() {
            let shown = stamp.after(certain(self.ttl)).0;
            let later = |deadline| (deadline != OVER && deadline < shown).then_some(shown);
            // Refused when it is over or later already.
            let _ = self.deadline.fetch_update(Ordering::AcqRel, Ordering::Acquire, later);
        }
        witness.stamps_renew.store(false, Ordering::Release);
        witness.is_away.store(true, Ordering::Release);
    }

    /// A server took the session up after the connection with the memory was gone: from now on that one says when it ends,
    /// and the former one, which may be no part of the cell any more, nothing.
    pub(crate) fn moved(&self) {
        if let Some(witness) = self.witness.as_ref().filter(|it| it.is_away.load(Ordering::Acquire)) {
            witness.is_moved.store(true, Ordering::Release);
        }
    }

    /// Whether the session goes through memory, in which the server shows itself.
    pub(crate) fn is_shown(&self) -> bool {
        self.witness.as_ref().is_some_and(|witness| !witness.is_away.load(Ordering::Acquire))
    }

    /// The same, or did and no server has taken it up on another connection since.
    pub(crate) fn was_shown(&self) -> bool {
        self.witness.as_ref().is_some_and(|witness| !witness.is_moved.load(Ordering::Acquire))
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
            let mut until = deadline;
            if let Some(witness) = &self.witness {
                if witness.memory.has_ended() && !witness.is_moved.load(Ordering::Acquire) {
                    self.end(LostCause::Session(Refusal::SessionExpired));
                    return Err(self.cause());
                }
                if let Some(stamp) = witness.stamp() {
                    until = until.max(stamp.after(certain(self.ttl)).0);
                }
            }
            if now.0 < until {
                return Ok(Tick(until));
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
            if self.check(now).is_err() {
                return false;
            }
            let deadline = self.deadline.load(Ordering::Acquire);
            if deadline == OVER {
                return false;
            }
            if renewed <= deadline {
                return true;
            }
            let swap = self.deadline.compare_exchange(deadline, renewed, Ordering::AcqRel, Ordering::Acquire);
            if swap.is_ok() {
                return true;
            }
        }
    }

    /// When the newest confirmed renewal was sent, or the server last shown to serve; `None` when the lease is over.
    pub(crate) fn confirmed(&self) -> Option<Tick> {
        let deadline = self.deadline.load(Ordering::Acquire);
        if deadline == OVER {
            return None;
        }
        let certain_ns = u64::try_from(certain(self.ttl).as_nanos()).unwrap_or(u64::MAX);
        let sent = Tick(deadline.saturating_sub(certain_ns));
        let stamp = self.witness.as_ref().and_then(Witness::stamp);
        Some(stamp.map_or(sent, |stamp| sent.max(stamp)))
    }

    /// Whether nothing shows that the server is gone or stands still: a hint for people.
    pub(crate) fn sees_its_server(&self, now: Tick) -> bool {
        let Some(Witness { memory, .. }) = &self.witness else { return true };
        // Without the connection the memory says nothing of the one that came after it.
        memory.edition().is_none()
            || memory.is_alive() && now.since(memory.stamp()) < self.ttl * 2 / KEEPALIVE_DIVISOR
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
    use crate::transport::tests::Shown;

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

    /// A lease of a session whose server stamped last at this moment.
    fn shown(stamps_renew: bool, ms: u64) -> (Lease, Shown) {
        let shown = Shown::new();
        shown.stamp(at(ms));
        let lease = Lease::new(at(1000), TTL).shown_in(Arc::clone(&shown.memory), stamps_renew, true);
        (lease, shown)
    }

    #[test]
    fn a_stamp_counts_like_a_renewal_sent_at_that_moment() {
        let (lease, shown) = shown(true, 1500);
        assert_eq!(lease.check(at(2000)), Ok(at(2480)));
        assert_eq!(lease.confirmed(), Some(at(1500)));
        assert!(lease.sees_its_server(at(1899)) && !lease.sees_its_server(at(1900)));
        shown.stamp(at(5000));
        assert_eq!(
            lease.check(at(5001)),
            Ok(at(5980)),
            "a client that was stopped meanwhile has lost nothing"
        );
        assert!(lease.renew(at(5300), at(5200)), "the later of both counts");
        assert_eq!(lease.check(at(5300)), Ok(at(6180)));
        assert_eq!(lease.check(at(6180)), Err(LostCause::Lease));
        shown.stamp(at(6181));
        assert_eq!(lease.check(at(6182)), Err(LostCause::Lease), "lost is final");
    }

    #[test]
    fn the_coarse_clock_counts_only_where_the_server_reads_the_same_two_clocks() {
        let is_enough = |off_ns: u64| {
            let shown = Shown::new();
            shown.stamp_both(clock::now().0, clock::steady_ns().wrapping_add(off_ns));
            let lease = Lease::new(clock::now(), TTL).shown_in(Arc::clone(&shown.memory), true, true);
            lease.coarse_witness().is_some()
        };
        assert!(is_enough(0));
        // A time namespace moves each of the two clocks by itself.
        assert!(!is_enough(3_000_000_000) && !is_enough(3_000_000_000_u64.wrapping_neg()));
    }

    #[test]
    fn a_session_that_is_renewed_no_more_ends_a_lease_later_whatever_the_stamp_says() {
        let (lease, shown) = shown(true, 1500);
        shown.segment.status().stop_renewing(at(1600).0);
        shown.stamp(at(9000));
        assert_eq!(lease.check(at(2000)), Ok(at(2580)));
        assert_eq!(lease.check(at(2580)), Err(LostCause::Lease));
    }

    #[test]
    fn a_heartbeat_is_renewed_by_confirmations_alone_but_ended_by_a_look() {
        let (lease, shown) = shown(false, 1900);
        assert_eq!(lease.check(at(1950)), Ok(at(1980)));
        assert_eq!(lease.confirmed(), Some(at(1000)));
        shown.segment.status().end();
        assert_eq!(lease.check(at(1951)), Err(LostCause::Session(Refusal::SessionExpired)));
    }

    #[test]
    fn stamps_count_as_far_as_they_were_shown_before_the_connection_broke() {
        let (lease, shown) = shown(true, 1500);
        lease.look_away();
        shown.stamp(at(9000));
        assert_eq!((lease.check(at(2000)), lease.confirmed()), (Ok(at(2480)), Some(at(1500))));
        assert!(lease.renew(at(2100), at(2000)));
        assert_eq!(lease.check(at(2480)), Ok(at(2980)));
        lease.end(LostCause::Killed);
        lease.look_away();
        assert_eq!(lease.check(at(2480)), Err(LostCause::Killed));
    }

    #[test]
    fn a_former_server_ends_nothing_once_another_one_has_taken_the_session_up() {
        let (lease, former) = shown(true, 1500);
        lease.moved();
        lease.look_away();
        assert!(lease.renew(at(2000), at(1900)));
        lease.moved();
        former.segment.status().end();
        former.stamp(at(9000));
        assert_eq!(lease.check(at(2001)), Ok(at(2880)), "renewed by confirmations alone");
        let (lease, former) = shown(true, 1500);
        lease.moved();
        lease.look_away();
        former.segment.status().end();
        let ended = Err(LostCause::Session(Refusal::SessionExpired));
        assert_eq!(lease.check(at(1501)), ended, "nobody has taken it up yet");
    }

    #[test]
    fn an_end_that_is_shown_is_seen_at_once_and_stays() {
        let (lease, shown) = shown(true, 1500);
        shown.segment.status().end();
        let ended = Err(LostCause::Session(Refusal::SessionExpired));
        assert_eq!((lease.check(at(1501)), lease.check(at(1000))), (ended, ended));
        assert!(!lease.renew(at(1502), at(1501)));
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
