//! Asking for a lock: what is asked, and the three ways to wait for it.

use crate::clock;
use crate::engine::{Anchor, Outcome, Slot, Wish, ask_for, await_slot, cancel, undo};
use crate::error::AcquireError;
use crate::guard::Guard;
use crate::owner::{fresh_owner, owner_of_this_thread};
use crate::prepared::Lock;
use crate::session::Spec;
use fairlock_protocol::limits::{LABEL_BYTES_MAX, LOCK_DELAY_MAX};
use fairlock_protocol::{Mode, OwnerId, Priority, Refusal, Wait};
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Weak};
use std::task::{Context, Poll};
use std::time::Duration;

/// A request for a lock, not yet sent.
///
/// ```no_run
/// use fairlock::{AcquireError, Client, Mode, Refusal};
/// use std::time::Duration;
///
/// let client = Client::connect("tcp://127.0.0.1:7411")?;
/// match client.lock("orders/42").mode(Mode::PR).wait(Duration::from_secs(1)).acquire() {
///     Ok(guard) => println!("reading under token {}", guard.token().get()),
///     Err(AcquireError::Refused(Refusal::Timeout)) => println!("somebody writes for long"),
///     Err(error) => return Err(error.into()),
/// }
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
#[must_use = "nothing is asked before `acquire`"]
pub struct LockRequest {
    anchor: Arc<Anchor>,
    spec: Spec,
    /// As the program said; else this thread, or this request alone.
    owner: Option<OwnerId>,
    /// As the program said, in range or not.
    priority: u8,
    slot: Arc<Slot>,
}

/// Withdraws one acquire from another thread. Does not keep the client open.
#[derive(Clone, Debug)]
pub struct Canceller {
    anchor: Weak<Anchor>,
    slot: Arc<Slot>,
}

impl Canceller {
    /// The acquire fails at once with [`Refusal::Cancelled`], also one that has not begun; a grant that is on its way
    /// is given back. Does nothing once the acquire has its outcome.
    pub fn cancel(&self) {
        if let Some(anchor) = self.anchor.upgrade()
            && !anchor.core.mark.is_child()
        {
            cancel(&anchor.core, &self.slot);
        }
    }
}

impl LockRequest {
    pub(crate) fn new(anchor: Arc<Anchor>, name: &[u8]) -> LockRequest {
        LockRequest { anchor, spec: Spec::plain(name), owner: None, priority: 0, slot: Slot::new() }
    }

    /// In which namespace: 1 to 64 of `[a-z0-9._-]` (default `default`).
    pub fn namespace(mut self, namespace: impl Into<String>) -> LockRequest {
        self.spec.namespace = namespace.into().into_boxed_str();
        self
    }

    /// In which mode (default [`Mode::EX`]).
    pub fn mode(mut self, mode: Mode) -> LockRequest {
        self.spec.mode = mode;
        self
    }

    /// How urgent it is: 0 (default, the lowest class) to 7; anything else is refused [`Refusal::BadRequest`].
    ///
    /// It counts in namespaces to which the server gives the discipline `priority`, and changes nothing elsewhere.
    pub fn priority(mut self, class: u8) -> LockRequest {
        self.priority = class;
        self
    }

    /// Wait at most this long (default: for ever), counted by the server; zero is a try.
    pub fn wait(mut self, wait: Duration) -> LockRequest {
        self.spec.wait = Wait::up_to(wait);
        self
    }

    /// For which thread or task: decides re-entry and deadlock detection.
    ///
    /// By default a blocking acquire is its thread's: two threads wait for each other, and a thread that asks again for
    /// what it holds itself is refused [`Refusal::AlreadyHeld`] instead of waiting for ever. A future is nobody's but
    /// its own. Name an owner when guards move between threads, or when a task takes several locks and wants
    /// deadlocks found.
    pub fn owner(mut self, owner: OwnerId) -> LockRequest {
        self.owner = Some(owner);
        self
    }

    /// The same owner may enter again, in the same or a weaker mode; every guard has to be released.
    pub fn reentrant(mut self, reentrant: bool) -> LockRequest {
        self.spec.reentrant = reentrant;
        self
    }

    /// Asks for a [`Notice::Blocking`](crate::Notice::Blocking) when the grant begins to block somebody.
    pub fn notify(mut self, notify: bool) -> LockRequest {
        self.spec.notify = notify;
        self
    }

    /// After this session's *expiry* (never after a release) keep others out this long, at most 60 s: for resources
    /// that cannot check tokens.
    pub fn lock_delay(mut self, delay: Duration) -> LockRequest {
        self.spec.lock_delay_ms = millis(delay.min(LOCK_DELAY_MAX));
        self
    }

    /// End the grant by time, this long after it was granted (default: never).
    pub fn max_hold(mut self, hold: Duration) -> LockRequest {
        self.spec.max_hold_ms = millis(hold);
        self
    }

    /// What operators see beside this request, at most 256 bytes (default: the client's label).
    pub fn label(mut self, label: impl Into<String>) -> LockRequest {
        self.spec.label = label.into().into_boxed_str();
        self
    }

    /// Prepares the lock to be taken again and again: over shared memory one that nobody else asks for then costs some
    /// nanoseconds. A [`Canceller`] that was made before withdraws nothing.
    ///
    /// # Errors
    /// [`AcquireError::Refused`] for a name, namespace or label that cannot be one, or [`AcquireError::Closed`].
    pub fn prepare(mut self) -> Result<Lock, AcquireError> {
        self.check()?;
        Ok(Lock::new(self.anchor, self.spec, self.owner))
    }

    /// A request that was made before.
    pub(crate) fn again(anchor: Arc<Anchor>, spec: Spec, owner: Option<OwnerId>) -> LockRequest {
        let priority = spec.priority.get();
        LockRequest { anchor, spec, owner, priority, slot: Slot::new() }
    }

    /// A handle that withdraws this acquire from another thread.
    pub fn canceller(&self) -> Canceller {
        Canceller { anchor: Arc::downgrade(&self.anchor), slot: Arc::clone(&self.slot) }
    }

    /// Waits for the lock. The calling thread reads the answer itself.
    ///
    /// # Errors
    /// [`AcquireError`]; with [`LockRequest::wait`] also [`Refusal::Timeout`].
    pub fn acquire(mut self) -> Result<Guard, AcquireError> {
        self.check()?;
        self.spec.owner = self.owner.unwrap_or_else(owner_of_this_thread);
        self.spec.cacheable = self.is_plain();
        let deadline = self.anchor.core.config.deadline;
        let give_up = patience(self.spec.wait, deadline).map(|longest| clock::now().after(longest));
        let is_timed = matches!(self.spec.wait, Wait::Millis(_));
        let spec = Arc::new(self.spec);
        ask_for(&self.anchor.core, Wish::One(spec), &self.slot, false);
        match await_slot(&self.anchor.core, &self.slot, give_up) {
            Some(outcome) => guard(&self.anchor, outcome),
            None if is_timed => Err(AcquireError::Refused(Refusal::Timeout)),
            None => Err(AcquireError::Unanswered { after: deadline }),
        }
    }

    /// Takes the lock if nobody holds it against us and nobody waits before us.
    ///
    /// # Errors
    /// [`AcquireError::Refused`] with [`Refusal::WouldBlock`] when somebody does; else as [`LockRequest::acquire`].
    pub fn try_acquire(mut self) -> Result<Guard, AcquireError> {
        self.spec.wait = Wait::Try;
        let unnamed = self.owner.is_none();
        self.acquire().map_err(|error| match error {
            // Taken is taken, also by this thread; the difference matters only to an owner who named himself.
            AcquireError::Refused(Refusal::AlreadyHeld) if unnamed => {
                AcquireError::Refused(Refusal::WouldBlock)
            }
            error => error,
        })
    }

    /// Asks now, and resolves to the guard, on any executor. Dropping the future withdraws the request; a grant that
    /// raced in is given back.
    pub fn acquire_async(mut self) -> Acquiring {
        let refused = self.check().err();
        self.spec.owner = self.owner.unwrap_or_else(fresh_owner);
        self.spec.cacheable = self.is_plain();
        let LockRequest { anchor, spec, slot, .. } = self;
        if refused.is_none() {
            ask_for(&anchor.core, Wish::One(Arc::new(spec)), &slot, true);
        }
        Acquiring { anchor, slot, refused, finished: false }
    }

    /// Whether its grant may stay with the client: nothing about it is anybody's in particular.
    fn is_plain(&self) -> bool {
        let spec = &self.spec;
        matches!(spec.mode, Mode::EX | Mode::PR)
            && self.owner.is_none()
            && !(spec.reentrant || spec.notify)
            && spec.lock_delay_ms == 0
            && spec.max_hold_ms == 0
            && spec.priority == Priority::LOWEST
    }

    /// What can be refused without asking.
    fn check(&mut self) -> Result<(), AcquireError> {
        let core = &self.anchor.core;
        if core.mark.is_child() || core.is_closing() {
            return Err(AcquireError::Closed);
        }
        self.spec.resource().map_err(AcquireError::Refused)?;
        if self.spec.label.len() > LABEL_BYTES_MAX {
            return Err(AcquireError::Refused(Refusal::TooLong));
        }
        self.spec.priority =
            Priority::new(self.priority).ok_or(AcquireError::Refused(Refusal::BadRequest))?;
        Ok(())
    }
}

/// How long an answer is waited for; for ever when `None`. The wait itself runs at the server: the deadline bounds only
/// how long its answer may take beyond it.
pub(crate) fn patience(wait: Wait, deadline: Duration) -> Option<Duration> {
    match wait {
        Wait::Try => Some(deadline),
        Wait::Millis(ms) => Some(deadline.saturating_add(Duration::from_millis(ms))),
        Wait::Forever => None,
    }
}

/// Whole milliseconds, rounded up.
fn millis(duration: Duration) -> u32 {
    u32::try_from(duration.as_nanos().div_ceil(1_000_000)).unwrap_or(u32::MAX)
}

fn guard(anchor: &Arc<Anchor>, outcome: Outcome) -> Result<Guard, AcquireError> {
    match outcome {
        Outcome::Granted(session, hold) => Ok(Guard::new(Arc::clone(anchor), session, hold)),
        Outcome::Failed(error) => Err(error),
        Outcome::Converted | Outcome::GrantedAll(..) => {
            unreachable!("other requests are answered so, and each has a slot of its own")
        }
    }
}

/// A lock being waited for. Dropping it withdraws the request.
#[derive(Debug)]
#[must_use = "dropping it withdraws the request"]
pub struct Acquiring {
    anchor: Arc<Anchor>,
    slot: Arc<Slot>,
    /// Refused before it was asked.
    refused: Option<AcquireError>,
    finished: bool,
}

impl Future for Acquiring {
    type Output = Result<Guard, AcquireError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        assert!(!self.finished, "a future is not polled after it was ready");
        if self.anchor.core.mark.is_child() {
            self.finished = true;
            return Poll::Ready(Err(AcquireError::Closed));
        }
        if let Some(refused) = self.refused.take() {
            self.finished = true;
            return Poll::Ready(Err(refused));
        }
        match self.slot.take_or_wake(context.waker()) {
            Some(outcome) => {
                self.finished = true;
                Poll::Ready(guard(&self.anchor, outcome))
            }
            None => Poll::Pending,
        }
    }
}

impl Drop for Acquiring {
    fn drop(&mut self) {
        if !self.finished && !self.anchor.core.mark.is_child() {
            drop(undo(&self.anchor.core, &self.slot));
        }
    }
}
