//! A held lock.

use crate::error::{ConvertError, GuardError, LostCause, ReleaseError};
use fairlock_protocol::{FencingToken, GrantId, Mode};
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

/// A held lock. Dropping it gives the lock back.
#[derive(Debug)]
#[must_use = "a dropped guard gives the lock back"]
pub struct Guard {
    never: std::convert::Infallible,
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

impl Guard {
    /// The fencing token.
    ///
    /// # Panics
    /// For a grant in mode NL, which has none; see [`Guard::try_token`].
    pub fn token(&self) -> FencingToken {
        match self.never {}
    }
    /// The fencing token; `None` in mode NL.
    pub fn try_token(&self) -> Option<FencingToken> {
        match self.never {}
    }
    /// What a fenced resource remembers together with the token.
    pub fn fence(&self) -> u64 {
        match self.never {}
    }
    /// The mode held.
    pub fn mode(&self) -> Mode {
        match self.never {}
    }
    /// The name.
    pub fn name(&self) -> &[u8] {
        match self.never {}
    }
    /// The namespace.
    pub fn namespace(&self) -> &str {
        match self.never {}
    }
    /// The grant's number.
    pub fn grant_id(&self) -> GrantId {
        match self.never {}
    }
    /// How long the request waited at the server.
    pub fn waited(&self) -> Duration {
        match self.never {}
    }
    /// A holder before this one died while it could write.
    pub fn previous_owner_died(&self) -> bool {
        match self.never {}
    }
    /// Whether the lock is held, by the local clock, without I/O: tens of nanoseconds.
    ///
    /// # Errors
    /// [`GuardError::Lost`].
    pub fn check(&self) -> Result<(), GuardError> {
        match self.never {}
    }
    /// Whether it is certainly held for `work` longer.
    ///
    /// # Errors
    /// [`GuardError`].
    pub fn valid_for(&self, _work: Duration) -> Result<(), GuardError> {
        match self.never {}
    }
    /// How long it is certainly held without a further renewal; `None` when it is lost.
    pub fn valid_until(&self) -> Option<Duration> {
        match self.never {}
    }
    /// How it stands.
    pub fn state(&self) -> GuardState {
        match self.never {}
    }
    /// Changes the mode, waiting for ever.
    ///
    /// # Errors
    /// [`ConvertError`].
    pub fn convert(&mut self, _mode: Mode) -> Result<(), ConvertError> {
        match self.never {}
    }
    /// Changes the mode, waiting at most this long; zero is a try.
    ///
    /// # Errors
    /// [`ConvertError`].
    pub fn convert_wait(&mut self, _mode: Mode, _wait: Duration) -> Result<(), ConvertError> {
        match self.never {}
    }
    /// Gives the lock back.
    ///
    /// # Errors
    /// [`ReleaseError::Lost`] when it was lost before.
    pub fn release(self) -> Result<(), ReleaseError> {
        match self.never {}
    }
    /// Resolves when the guard is lost.
    pub fn lost(&self) -> Lost {
        match self.never {}
    }
    /// Waits until the guard is lost, at most this long; `None` when it was not.
    pub fn wait_lost(&self, _timeout: Duration) -> Option<LostCause> {
        match self.never {}
    }
}

/// Resolves when a guard is lost, to the cause.
#[derive(Debug)]
pub struct Lost {
    never: std::convert::Infallible,
}

impl Future for Lost {
    type Output = LostCause;
    fn poll(self: Pin<&mut Self>, _context: &mut Context<'_>) -> Poll<LostCause> {
        match self.never {}
    }
}
