//! One grant as its guard sees it: what was granted, and whether it was taken away.
//!
//! The word that a check reads is written once and never cleared; whoever takes the grant away writes it before
//! anything tells the server that the holder has stopped.

use super::ask::Spec;
use super::lease::Lease;
use super::tenure::{Inside, Tenure};
use crate::error::LostCause;
use fairlock_protocol::tick::certain;
use fairlock_protocol::{FencingToken, GrantId, Mode, Proof, Tick, reply};
use fairlock_shm::word::Holder;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::task::Waker;
use std::time::Duration;

/// What a conversion can change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Facts {
    pub(crate) mode: Mode,
    pub(crate) token: Option<FencingToken>,
    pub(crate) fence: u64,
    /// What proves it to a server that has lost its memory, and in which mode.
    pub(crate) proof: Option<(Mode, Proof)>,
}

impl Facts {
    fn of(granted: &reply::Grant) -> Facts {
        let reply::Grant { mode, token, fence, proof, .. } = *granted;
        Facts { mode, token, fence, proof: proof.map(|proof| (mode, proof)) }
    }
}

/// One grant.
#[derive(Debug)]
pub(crate) struct Hold {
    /// Its number at its shard; another one when it was held on at a server that had lost its memory. Relaxed: changed and,
    /// where it matters, read under its stream's lock.
    grant: AtomicU64,
    pub(crate) spec: Arc<Spec>,
    pub(crate) waited: Duration,
    pub(crate) previous_owner_died: bool,
    /// When it ends by time of its own (`max_hold`); the end of time for most.
    pub(crate) end: Tick,
    /// Guards that share it (re-entry). Changed only under its stream's lock.
    levels: AtomicU32,
    /// Set once, when it is no longer held; pairs with the load in `check` (Acquire inside `OnceLock`).
    void: OnceLock<LostCause>,
    facts: Mutex<Facts>,
    /// The mode that the server has named last; `facts` have less while it is asked for less. Relaxed: changed and read
    /// under the stream's lock.
    granted: AtomicU8,
    /// It is held in a word of the connection's memory; set once, when the server leaves the grant with the client.
    inside: OnceLock<Inside>,
    /// It went on by messages, and its word means nothing any more. Release store before the server is told, Acquire load
    /// after the word was looked at.
    by_messages: AtomicBool,
    /// Who wants to be woken when it is lost.
    watchers: Mutex<Vec<Waker>>,
}

impl Hold {
    /// The grant that answers a request first sent at `sent`.
    pub(crate) fn new(granted: &reply::Grant, spec: Arc<Spec>, sent: Tick) -> Hold {
        let waited = Duration::from_micros(granted.waited_us);
        let end = match spec.max_hold_ms {
            0 => Tick(u64::MAX),
            // `waited` is never over-stated, so this ends before the server's own end.
            ms => sent.after(waited).after(certain(Duration::from_millis(ms.into()))),
        };
        Hold {
            grant: AtomicU64::new(granted.grant.get()),
            spec,
            waited,
            previous_owner_died: granted.previous_owner_died,
            end,
            levels: AtomicU32::new(1),
            void: OnceLock::new(),
            facts: Mutex::new(Facts::of(granted)),
            granted: AtomicU8::new(granted.mode as u8),
            inside: OnceLock::new(),
            by_messages: AtomicBool::new(false),
            watchers: Mutex::new(Vec::new()),
        }
    }

    /// A tenure that was entered without a message.
    pub(crate) fn entered(tenure: Arc<Tenure>, holder: Holder, spec: Arc<Spec>) -> Hold {
        Hold {
            grant: AtomicU64::new(tenure.grant.get()),
            spec,
            waited: Duration::ZERO,
            previous_owner_died: false,
            end: Tick(u64::MAX),
            levels: AtomicU32::new(1),
            void: OnceLock::new(),
            facts: Mutex::new(tenure.facts),
            granted: AtomicU8::new(tenure.facts.mode as u8),
            inside: OnceLock::from(Inside { tenure, holder }),
            by_messages: AtomicBool::new(false),
            watchers: Mutex::new(Vec::new()),
        }
    }

    /// Its number at its shard.
    pub(crate) fn grant(&self) -> GrantId {
        GrantId::from_raw(self.grant.load(Ordering::Relaxed)).expect("it was made from a number of a grant")
    }

    /// It is held on at a server that had lost its memory, under another number and token.
    pub(crate) fn goes_on_as(&self, granted: &reply::Grant) {
        self.convert(granted, []);
        self.grant.store(granted.grant.get(), Ordering::Relaxed);
    }

    /// What proves it, where the server, told of one hold, would know all there is to know of it.
    pub(crate) fn claim(&self) -> Option<(FencingToken, Proof)> {
        let facts = self.facts();
        // Relaxed: ordered by the stream's lock.
        let is_simple = self.is_ours_alone() || self.levels.load(Ordering::Relaxed) == 1;
        let (_, proof) = facts.proof.filter(|(mode, _)| is_simple && *mode == facts.mode)?;
        Some((facts.token?, proof)).filter(|_| self.void.get().is_none())
    }

    /// The server leaves the grant with the client: from now on it is held in a word; or, `by_messages`, it would have been,
    /// had the server not been told before that it goes on as others do.
    pub(crate) fn stays_in(&self, tenure: Arc<Tenure>, holder: Holder, by_messages: bool) {
        if by_messages {
            // Before there is a word, so that nobody finds himself thrown out of it.
            self.by_messages.store(true, Ordering::Release);
        }
        self.inside.get_or_init(|| Inside { tenure, holder });
    }

    /// The word it is held in, if it is held in one.
    pub(crate) fn inside(&self) -> Option<&Inside> {
        self.inside.get().filter(|_| !self.by_messages.load(Ordering::Acquire))
    }

    /// Whether the server does not know whose it is: it was left with the client once. Who enters it again is the client's
    /// matter then.
    pub(crate) fn is_ours_alone(&self) -> bool {
        self.inside.get().is_some()
    }

    /// Whether it is held in a word.
    pub(crate) fn is_entered(&self) -> bool {
        self.inside().is_some()
    }

    /// From now on it is a hold like others; the server is told so by a message. Gives the tenure it was in.
    pub(crate) fn go_on_by_messages(&self) -> Option<&Arc<Tenure>> {
        let inside = self.inside()?;
        self.by_messages.store(true, Ordering::Release);
        Some(&inside.tenure)
    }

    /// The tenure it was in before it went on by messages.
    pub(crate) fn was_inside(&self) -> Option<&Arc<Tenure>> {
        let inside = self.inside.get().filter(|_| self.by_messages.load(Ordering::Acquire))?;
        Some(&inside.tenure)
    }

    /// Whether its word, if it is held in one, has been taken from it. Looked at first of all: whatever else ended it was
    /// written before the word changed.
    #[inline]
    fn is_thrown_out(&self) -> bool {
        let Some(inside) = self.inside.get() else { return false };
        !inside.tenure.is_held(inside.holder) && !self.by_messages.load(Ordering::Acquire)
    }

    /// The moment until which it is certainly held, if that lies ahead.
    #[inline]
    pub(crate) fn check(&self, lease: &Lease, now: Tick) -> Result<Tick, LostCause> {
        let is_thrown_out = self.is_thrown_out();
        if let Some(&cause) = self.void.get() {
            return Err(cause);
        }
        let deadline = lease.check(now)?;
        if is_thrown_out {
            return Err(*self.void.get_or_init(|| LostCause::Broken));
        }
        if now < self.end {
            return Ok(deadline.min(self.end));
        }
        Err(*self.void.get_or_init(|| LostCause::MaxHold))
    }

    /// It is no longer held, for this reason unless there was one before.
    pub(crate) fn take_away(&self, cause: LostCause) {
        self.void.get_or_init(|| cause);
    }

    pub(crate) fn facts(&self) -> Facts {
        *self.facts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The server has named what is held. These modes it was asked for since, and may have granted.
    pub(crate) fn convert(&self, granted: &reply::Grant, asked: impl IntoIterator<Item = Mode>) {
        self.granted.store(granted.mode as u8, Ordering::Relaxed);
        self.believe(Facts::of(granted), asked);
    }

    /// Has no more than what the server named last and what these modes allow, which it is asked for: it may let others in
    /// at once.
    pub(crate) fn has_at_most(&self, asked: impl IntoIterator<Item = Mode>) {
        let granted = self.granted.load(Ordering::Relaxed);
        let mode = Mode::from_wire(granted).expect("it was made from a mode");
        self.believe(Facts { mode, ..self.facts() }, asked);
    }

    fn believe(&self, facts: Facts, asked: impl IntoIterator<Item = Mode>) {
        let mode = asked.into_iter().fold(facts.mode, weaker);
        *self.facts.lock().unwrap_or_else(PoisonError::into_inner) = Facts { mode, ..facts };
    }

    /// One more guard shares it.
    pub(crate) fn enter(&self) {
        // Relaxed: ordered by the stream's lock.
        self.levels.fetch_add(1, Ordering::Relaxed);
    }

    /// One guard less shares it; says how many remain.
    pub(crate) fn leave(&self) -> u32 {
        // Relaxed: ordered by the stream's lock.
        let before = self.levels.fetch_sub(1, Ordering::Relaxed);
        assert!(before > 0, "a grant is left no more often than it was entered");
        before - 1
    }

    /// Wakes this one when the grant is lost, once.
    pub(crate) fn watch(&self, waker: &Waker) {
        let mut watchers = self.watchers.lock().unwrap_or_else(PoisonError::into_inner);
        if !watchers.iter().any(|known| known.will_wake(waker)) {
            watchers.push(waker.clone());
        }
    }

    /// Nobody is to be woken by this one any more.
    pub(crate) fn unwatch(&self, waker: &Waker) {
        let mut watchers = self.watchers.lock().unwrap_or_else(PoisonError::into_inner);
        watchers.retain(|known| !known.will_wake(waker));
    }

    /// Wakes all who wanted it. To be called with no lock held: wakers may do anything.
    pub(crate) fn wake_watchers(&self) {
        let watchers = std::mem::take(&mut *self.watchers.lock().unwrap_or_else(PoisonError::into_inner));
        watchers.into_iter().for_each(rouse);
    }
}

/// What both allow. Of PR and CW, which allow different things, that is CR.
fn weaker(one: Mode, other: Mode) -> Mode {
    match (one.covers(other), other.covers(one)) {
        (true, _) => other,
        (false, true) => one,
        (false, false) => Mode::CR,
    }
}

/// Wakes a task. A waker is the program's code: its panic must not end the thread that serves everybody else.
pub(crate) fn rouse(waker: Waker) {
    let woken = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| waker.wake()));
    if woken.is_err() {
        tracing::error!("a waker panicked");
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use fairlock_protocol::{OwnerId, Priority, Wait};

    pub(crate) fn spec(max_hold_ms: u32) -> Arc<Spec> {
        Arc::new(Spec {
            namespace: "".into(),
            name: b"demo".as_slice().into(),
            label: "".into(),
            mode: Mode::EX,
            priority: Priority::LOWEST,
            wait: Wait::Forever,
            owner: OwnerId(0),
            reentrant: false,
            notify: false,
            lock_delay_ms: 0,
            max_hold_ms,
            cacheable: false,
        })
    }

    fn granted(waited_us: u64) -> reply::Grant {
        reply::Grant {
            grant: GrantId::from_raw(1 << 32).unwrap(),
            token: FencingToken::from_raw(9),
            fence: 8,
            mode: Mode::EX,
            waited_us,
            previous_owner_died: false,
            reentered: false,
            proof: None,
        }
    }

    #[test]
    fn a_longest_hold_counts_from_sending_plus_waiting_less_the_margin() {
        let lease = Lease::new(Tick::from_millis(1000), Duration::from_mins(1));
        let hold = Hold::new(&granted(500_000), spec(2000), Tick::from_millis(1000));
        let end = Tick::from_millis(1000 + 500 + 2000 - 20 - 10);
        assert_eq!(hold.check(&lease, Tick(end.0 - 1)), Ok(end));
        assert_eq!(hold.check(&lease, end), Err(LostCause::MaxHold));
        assert_eq!(hold.check(&lease, Tick(end.0 - 1)), Err(LostCause::MaxHold), "lost is final");
    }

    #[test]
    fn between_two_modes_that_do_not_compare_only_what_both_allow_is_certain() {
        let hold =
            Hold::new(&reply::Grant { mode: Mode::PR, ..granted(0) }, spec(0), Tick::from_millis(1000));
        hold.has_at_most([Mode::CW]);
        assert_eq!(hold.facts().mode, Mode::CR);
        hold.has_at_most([Mode::EX]);
        assert_eq!(hold.facts().mode, Mode::PR, "what is stronger is held when it is granted");
    }

    #[test]
    fn what_is_taken_away_stays_away_for_the_first_reason() {
        let lease = Lease::new(Tick::from_millis(1000), Duration::from_mins(1));
        let hold = Hold::new(&granted(0), spec(0), Tick::from_millis(1000));
        assert!(hold.check(&lease, Tick::from_millis(1001)).is_ok());
        hold.take_away(LostCause::Broken);
        hold.take_away(LostCause::MaxHold);
        assert_eq!(hold.check(&lease, Tick::from_millis(1001)), Err(LostCause::Broken));
    }
}
