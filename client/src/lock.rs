//! Asking for a lock.

use crate::error::AcquireError;
use crate::guard::Guard;
use fairlock_protocol::{Mode, OwnerId};
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

/// A request for a lock, not yet sent.
#[derive(Debug)]
#[must_use = "nothing is asked before `acquire`"]
pub struct LockRequest {}

/// Withdraws one acquire from another thread.
#[derive(Clone, Debug)]
pub struct Canceller {}

impl Canceller {
    /// The acquire fails at once with [`fairlock_protocol::Refusal::Cancelled`]; a grant that raced in is given back.
    /// Does nothing once the guard was returned.
    pub fn cancel(&self) {}
}

impl LockRequest {
    pub(crate) fn new(_name: &[u8]) -> LockRequest {
        LockRequest {}
    }
    /// In which namespace (default `default`).
    pub fn namespace(self, _namespace: impl Into<String>) -> LockRequest {
        self
    }
    /// In which mode (default [`Mode::EX`]).
    pub fn mode(self, _mode: Mode) -> LockRequest {
        self
    }
    /// Wait at most this long (default: for ever); the server counts.
    pub fn wait(self, _wait: Duration) -> LockRequest {
        self
    }
    /// For which thread or task (default: the session's common owner).
    pub fn owner(self, _owner: OwnerId) -> LockRequest {
        self
    }
    /// The same owner may enter again.
    pub fn reentrant(self, _reentrant: bool) -> LockRequest {
        self
    }
    /// Asks for a notice when the grant begins to block somebody.
    pub fn notify(self, _notify: bool) -> LockRequest {
        self
    }
    /// After this session's *expiry* keep others out this long.
    pub fn lock_delay(self, _delay: Duration) -> LockRequest {
        self
    }
    /// End the grant by time.
    pub fn max_hold(self, _hold: Duration) -> LockRequest {
        self
    }
    /// What operators see beside this request.
    pub fn label(self, _label: impl Into<String>) -> LockRequest {
        self
    }
    /// A handle that withdraws this acquire from another thread.
    pub fn canceller(&self) -> Canceller {
        Canceller {}
    }
    /// Waits for the lock.
    ///
    /// # Errors
    /// [`AcquireError`].
    pub fn acquire(self) -> Result<Guard, AcquireError> {
        Err(AcquireError::Closed)
    }
    /// Takes the lock if nobody stands in the way.
    ///
    /// # Errors
    /// [`AcquireError`].
    pub fn try_acquire(self) -> Result<Guard, AcquireError> {
        Err(AcquireError::Closed)
    }
    /// Asks now, and resolves to the guard; dropping the future withdraws the request.
    pub fn acquire_async(self) -> Acquiring {
        Acquiring {}
    }
}

/// A lock being waited for; dropping it withdraws the request.
#[derive(Debug)]
#[must_use = "dropping it withdraws the request"]
pub struct Acquiring {}

impl Future for Acquiring {
    type Output = Result<Guard, AcquireError>;
    fn poll(self: Pin<&mut Self>, _context: &mut Context<'_>) -> Poll<Self::Output> {
        Poll::Ready(Err(AcquireError::Closed))
    }
}
