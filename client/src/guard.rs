//! A held lock. The guard decides by itself, without asking anybody, whether it still is one: it compares the clock
//! with the lease's deadline, and the server never grants to somebody else before that has passed.

use crate::clock;
use crate::engine::{Anchor, Outcome, Session, Slot, ask_to_convert, await_slot, give_back};
use crate::error::{AcquireError, ConvertError, GuardError, LostCause, ReleaseError};
use crate::session::Hold;
use fairlock_protocol::{FencingToken, GrantId, Mode, Tick, Wait};
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, Thread};
use std::time::Duration;

/// A held lock. Dropping it gives the lock back, without waiting for the server's answer.
///
/// A guard may move between threads and tasks; it alone is the ownership. What it protects should be protected twice:
/// ask [`Guard::check`] (or [`Guard::valid_for`]) before a step that must not overlap with the next holder's, and hand
/// [`Guard::token`] to the resource, so that it can refuse a step that comes too late all the same.
#[must_use = "a dropped guard gives the lock back"]
pub struct Guard {
    anchor: Arc<Anchor>,
    session: Arc<Session>,
    hold: Arc<Hold>,
    released: bool,
}

/// How a guard stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum GuardState {
    /// Held.
    Valid,
    /// Held, but the server cannot be reached at the moment: the lease runs.
    Suspended,
    /// No longer held; final.
    Lost,
}

impl fmt::Debug for Guard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = f.debug_struct("Guard");
        shown.field("name", &String::from_utf8_lossy(self.name())).field("mode", &self.mode());
        shown
            .field("token", &self.try_token().map(FencingToken::get))
            .field("grant", &self.grant_id())
            .finish()
    }
}

impl Guard {
    pub(crate) fn new(anchor: Arc<Anchor>, session: Arc<Session>, hold: Arc<Hold>) -> Guard {
        Guard { anchor, session, hold, released: false }
    }

    /// The fencing token: higher than that of every earlier tenure of this lock, through every failure.
    ///
    /// It stays the same as long as the lock is held in one mode or weaker ones, but for one event: a server that was killed
    /// and took the lock on gives it a higher one.
    ///
    /// # Panics
    /// In mode NL, which keeps nobody out and has no token; [`Guard::try_token`] says so without a panic.
    pub fn token(&self) -> FencingToken {
        self.try_token().expect("a grant in mode NL has no fencing token; use try_token")
    }

    /// The fencing token; `None` in mode NL.
    pub fn try_token(&self) -> Option<FencingToken> {
        self.hold.facts().token
    }

    /// What a fenced resource remembers: it accepts (token, fence) iff token > h, then sets h = max(h, fence). Meaningful
    /// for EX, PW and PR; 0 else.
    pub fn fence(&self) -> u64 {
        self.hold.facts().fence
    }

    /// The mode held.
    pub fn mode(&self) -> Mode {
        self.hold.facts().mode
    }

    /// The name.
    pub fn name(&self) -> &[u8] {
        &self.hold.spec.name
    }

    /// The namespace.
    pub fn namespace(&self) -> &str {
        let namespace: &str = &self.hold.spec.namespace;
        if namespace.is_empty() { fairlock_protocol::name::DEFAULT_NAMESPACE } else { namespace }
    }

    /// The grant's number at its shard; guards of one re-entered grant share it.
    pub fn grant_id(&self) -> GrantId {
        self.hold.grant()
    }

    /// How long the request waited at the server, never over-stated.
    pub fn waited(&self) -> Duration {
        self.hold.waited
    }

    /// A holder before this one died while it could write: what the lock protects may be half changed.
    pub fn previous_owner_died(&self) -> bool {
        self.hold.previous_owner_died
    }

    /// Where it is held, and what.
    pub(crate) fn parts(&self) -> (&Arc<Session>, &Hold) {
        (&self.session, &self.hold)
    }

    /// The moment until which the lock is certainly held.
    #[inline]
    fn certain_until(&self, now: Tick) -> Result<Tick, LostCause> {
        if self.anchor.core.mark.is_child() {
            return Err(LostCause::Forked);
        }
        self.hold.check(&self.session.lease, now)
    }

    /// Whether the lock is held, by the local clock, without I/O: tens of nanoseconds.
    ///
    /// # Errors
    /// [`GuardError::Lost`]; final.
    #[inline]
    pub fn check(&self) -> Result<(), GuardError> {
        self.certain_until(clock::now()).map(drop).map_err(GuardError::Lost)
    }

    /// Whether the lock is certainly held for `work` longer, even if no renewal comes through.
    ///
    /// # Errors
    /// [`GuardError`].
    pub fn valid_for(&self, work: Duration) -> Result<(), GuardError> {
        let now = clock::now();
        let remaining = self.certain_until(now).map_err(GuardError::Lost)?.since(now);
        if work < remaining { Ok(()) } else { Err(GuardError::TooShort { remaining }) }
    }

    /// How long the lock is certainly held even if no renewal comes through; `None` when it is lost.
    pub fn valid_until(&self) -> Option<Duration> {
        let now = clock::now();
        self.certain_until(now).ok().map(|until| until.since(now))
    }

    /// How it stands.
    pub fn state(&self) -> GuardState {
        match self.certain_until(clock::now()) {
            Err(_) => GuardState::Lost,
            Ok(_) if self.session.is_reachable() => GuardState::Valid,
            Ok(_) => GuardState::Suspended,
        }
    }

    /// Changes the mode, waiting for ever. A stronger mode is held when the call returns; until then, and after every
    /// error but `Lost`, it is the old one. A weaker mode is held from the call on, unless the server refuses.
    ///
    /// # Errors
    /// [`ConvertError`].
    pub fn convert(&mut self, mode: Mode) -> Result<(), ConvertError> {
        self.convert_within(mode, Wait::Forever)
    }

    /// Changes the mode, waiting at most this long; zero is a try.
    ///
    /// # Errors
    /// [`ConvertError`].
    pub fn convert_wait(&mut self, mode: Mode, wait: Duration) -> Result<(), ConvertError> {
        self.convert_within(mode, Wait::up_to(wait))
    }

    fn convert_within(&mut self, mode: Mode, wait: Wait) -> Result<(), ConvertError> {
        let now = clock::now();
        self.certain_until(now).map_err(ConvertError::Lost)?;
        let core = &self.anchor.core;
        let deadline = core.config.deadline;
        let give_up = match wait {
            Wait::Try => Some(now.after(deadline)),
            Wait::Millis(ms) => Some(now.after_millis(ms).after(deadline)),
            Wait::Forever => None,
        };
        let slot = Slot::new();
        let lane = self.session.lane_of(&self.hold.spec);
        if !ask_to_convert(core, &self.session, lane, (self.hold.grant(), mode, wait), &slot) {
            return Err(ConvertError::Lost(self.certain_until(now).err().unwrap_or(LostCause::Lease)));
        }
        match await_slot(core, &slot, give_up) {
            Some(Outcome::Converted | Outcome::Granted(..) | Outcome::GrantedAll(..)) => Ok(()),
            Some(Outcome::Failed(AcquireError::Refused(refusal))) => Err(ConvertError::Refused(refusal)),
            Some(Outcome::Failed(AcquireError::Deadlock(cycle))) => Err(ConvertError::Deadlock(cycle)),
            Some(Outcome::Failed(AcquireError::Lost(cause))) => Err(ConvertError::Lost(cause)),
            Some(Outcome::Failed(_)) => Err(ConvertError::Lost(LostCause::Closed)),
            None => Err(ConvertError::Unanswered { after: deadline }),
        }
    }

    /// Gives the lock back. The application goes on at once; the library says it again until it is done.
    ///
    /// # Errors
    /// [`ReleaseError::Lost`] when the lock was lost before: what was done under it may have overlapped.
    pub fn release(mut self) -> Result<(), ReleaseError> {
        let held = self.certain_until(clock::now());
        self.let_go();
        held.map(drop).map_err(ReleaseError::Lost)
    }

    fn let_go(&mut self) {
        // The fork mark first of all: in a child nothing is touched.
        if self.anchor.core.mark.is_child() || std::mem::replace(&mut self.released, true) {
            return;
        }
        give_back(&self.anchor.core, &self.session, &self.hold);
    }

    /// Resolves, on any executor, when the lock is lost (or given back), to the cause.
    pub fn lost(&self) -> Lost {
        let (anchor, session) = (Arc::downgrade(&self.anchor), Arc::clone(&self.session));
        Lost { anchor, session, hold: Arc::clone(&self.hold) }
    }

    /// Waits until the lock is lost, at most this long; `None` when it was not.
    pub fn wait_lost(&self, timeout: Duration) -> Option<LostCause> {
        let waker = Waker::from(Arc::new(Unpark(thread::current())));
        let end = clock::now().after(timeout);
        loop {
            // Watch first, look second: a loss between the two wakes.
            self.hold.watch(&waker);
            let now = clock::now();
            match self.certain_until(now) {
                Err(cause) => return Some(cause),
                Ok(_) if now >= end => {
                    self.hold.unwatch(&waker);
                    return None;
                }
                Ok(until) => thread::park_timeout(until.min(end).since(now)),
            }
        }
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        self.let_go();
    }
}

/// Wakes a thread.
struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

/// Resolves when a guard is lost, or given back, to the cause. Does not keep the client open.
#[derive(Debug)]
#[must_use = "a future does nothing unless polled"]
pub struct Lost {
    anchor: std::sync::Weak<Anchor>,
    session: Arc<Session>,
    hold: Arc<Hold>,
}

impl Future for Lost {
    type Output = LostCause;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<LostCause> {
        if self.anchor.upgrade().is_some_and(|anchor| anchor.core.mark.is_child()) {
            return Poll::Ready(LostCause::Forked);
        }
        // Watch first, look second: a loss between the two wakes.
        self.hold.watch(context.waker());
        match self.hold.check(&self.session.lease, clock::now()) {
            Ok(_) => Poll::Pending,
            Err(cause) => Poll::Ready(cause),
        }
    }
}
