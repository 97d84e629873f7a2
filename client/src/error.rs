//! What can go wrong, one type an operation; each text says what happened and what to do next.
//!
//! A refusal by the server is the protocol's [`Refusal`], small and `Copy`; what broke on the way carries what was
//! seen. Errors are `Clone`, because one broken connection fails many callers at once.

use crate::endpoint::EndpointError;
use fairlock_protocol::{Malformed, Mode, OwnerId, Refusal, SessionId};
use std::convert::Infallible;
use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::Duration;
use thiserror::Error;

/// Why no session could be opened, or no question asked.
#[derive(Clone, Debug, Error)]
#[non_exhaustive]
pub enum ConnectError {
    /// The endpoint is not one.
    #[error(transparent)]
    Endpoint(#[from] EndpointError),
    /// Nobody listens there, or the host cannot be reached.
    #[error("no server at {endpoint}; start one with `fairlock serve`, or name another endpoint")]
    Unreachable {
        /// The last one that was tried, and the others.
        endpoint: String,
        /// What the system said.
        #[source]
        source: Arc<io::Error>,
    },
    /// Somebody listens but did not answer in time.
    #[error("the server at {endpoint} did not answer within {after:?}")]
    TimedOut {
        /// Where.
        endpoint: String,
        /// How long it was given.
        after: Duration,
    },
    /// The server answered and said no.
    #[error("the server at {endpoint} refused: {refusal}{}{detail}", if detail.is_empty() { "" } else { "; " })]
    Refused {
        /// Where.
        endpoint: String,
        /// Why.
        refusal: Refusal,
        /// Particulars, may be empty.
        detail: String,
    },
    /// What answers there does not speak this protocol.
    #[error("what answers at {endpoint} is not a Fairlock server of this version: {source}")]
    NotFairlock {
        /// Where.
        endpoint: String,
        /// What was wrong with its bytes.
        #[source]
        source: Malformed,
    },
    /// It answered with a well-formed message that does not belong there.
    #[error("the server at {endpoint} said {said} where {expected} was expected")]
    OutOfTurn {
        /// Where.
        endpoint: String,
        /// What came.
        said: &'static str,
        /// What should have come.
        expected: &'static str,
    },
    /// The connection ended during the first words.
    #[error("the server at {endpoint} ended the connection")]
    Broken {
        /// Where.
        endpoint: String,
        /// What the system said.
        #[source]
        source: Arc<io::Error>,
    },
    /// Shared memory was demanded, and there is none.
    #[error("no shared memory with the server at {endpoint}: {reason}")]
    NoSharedMemory {
        /// Where.
        endpoint: String,
        /// What stands in the way.
        reason: String,
    },
    /// Asked for something this version cannot do.
    #[error("{0}")]
    Unsupported(&'static str),
    /// The system refused something the client needs (a thread, a descriptor).
    #[error("the system refused {what}")]
    System {
        /// What.
        what: &'static str,
        /// Why.
        #[source]
        source: Arc<io::Error>,
    },
    /// The client was closed meanwhile, or the process forked after it was made.
    #[error("{}", Refusal::Closed.advice())]
    Closed,
}

impl ConnectError {
    /// Whether no server could be reached at all (a script's exit code 69).
    pub fn is_no_server(&self) -> bool {
        matches!(
            self,
            ConnectError::Unreachable { .. } | ConnectError::TimedOut { .. } | ConnectError::Broken { .. }
        )
    }

    /// The same, after all of these were tried: each is named, the last one first.
    pub(crate) fn among(mut self, tried: &[String]) -> ConnectError {
        use ConnectError::{Broken, NoSharedMemory, NotFairlock, OutOfTurn, Refused, TimedOut, Unreachable};
        if let Unreachable { endpoint, .. }
        | TimedOut { endpoint, .. }
        | Refused { endpoint, .. }
        | NotFairlock { endpoint, .. }
        | OutOfTurn { endpoint, .. }
        | Broken { endpoint, .. }
        | NoSharedMemory { endpoint, .. } = &mut self
            && tried.len() > 1
        {
            let others: Vec<&str> = tried.iter().map(String::as_str).filter(|it| it != endpoint).collect();
            *endpoint = format!("{endpoint} (tried before: {})", others.join(", "));
        }
        self
    }

    /// What the server said, when it was the server that refused.
    pub fn refusal(&self) -> Option<Refusal> {
        match self {
            ConnectError::Refused { refusal, .. } => Some(*refusal),
            _ => None,
        }
    }
}

impl From<Infallible> for ConnectError {
    fn from(never: Infallible) -> ConnectError {
        match never {}
    }
}

/// Whom a refused request would have waited for, who in turn waits for the caller.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cycle {
    /// The other's session.
    pub session: SessionId,
    /// The other's owner.
    pub owner: OwnerId,
    /// The mode it asks for.
    pub mode: Mode,
    /// What its program calls itself.
    pub label: String,
}

impl fmt::Display for Cycle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "session {} owner {} asks for {}", self.session, self.owner.0, self.mode)?;
        if self.label.is_empty() { Ok(()) } else { write!(f, " ({})", self.label) }
    }
}

/// Why a lock was not acquired.
#[derive(Clone, Debug, Error)]
#[non_exhaustive]
pub enum AcquireError {
    /// The server refused; [`Refusal::WouldBlock`] and [`Refusal::Timeout`] are the everyday ones.
    #[error("{0}")]
    Refused(Refusal),
    /// Each would wait for the other: release what you hold and start again.
    #[error("{}{}", Refusal::Deadlock, .0.as_ref().map(|cycle| format!(" ({cycle})")).unwrap_or_default())]
    Deadlock(Option<Cycle>),
    /// The session's lease ended while the request waited; the place in the queue is gone.
    #[error(
        "the session was lost while the request waited ({0}); acquire again for a new place in the queue"
    )]
    Lost(LostCause),
    /// The client was closed, or the process forked after it was made.
    #[error("{}", Refusal::Closed.advice())]
    Closed,
    /// There is no session, and none could be opened.
    #[error("no session with the server")]
    Connection(#[from] ConnectError),
    /// The server took the request and did not answer within the deadline; a late grant is given back.
    #[error("the server did not answer within {after:?}; a late grant is given back by itself")]
    Unanswered {
        /// How long it was given beyond the wait asked for.
        after: Duration,
    },
}

impl AcquireError {
    /// What the end of the session means to a request that waited.
    pub(crate) fn from_lost(cause: LostCause) -> AcquireError {
        match cause {
            LostCause::Closed | LostCause::Forked => AcquireError::Closed,
            cause => AcquireError::Lost(cause),
        }
    }

    /// The code of the protocol's closed list that fits best.
    pub fn refusal(&self) -> Refusal {
        match self {
            AcquireError::Refused(refusal) | AcquireError::Lost(LostCause::Session(refusal)) => *refusal,
            AcquireError::Deadlock(_) => Refusal::Deadlock,
            AcquireError::Lost(_) => Refusal::LeaseGuard,
            AcquireError::Closed => Refusal::Closed,
            AcquireError::Connection(error) => error.refusal().unwrap_or(Refusal::Unavailable),
            AcquireError::Unanswered { .. } => Refusal::Unavailable,
        }
    }
}

/// Why a guard is lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum LostCause {
    /// The lease ended: no renewal was confirmed in time.
    Lease,
    /// The grant reached its longest hold.
    MaxHold,
    /// An operator broke the lock.
    Broken,
    /// An operator ended the session.
    Killed,
    /// The server ended the session, for this reason.
    Session(Refusal),
    /// The client was closed.
    Closed,
    /// The process forked: the guard belongs to the parent.
    Forked,
    /// It was given back, by its holder.
    Released,
}

impl fmt::Display for LostCause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            LostCause::Lease => f.write_str("its lease ended without a confirmed renewal"),
            LostCause::MaxHold => f.write_str("its longest hold is over"),
            LostCause::Broken => f.write_str("an operator broke the lock"),
            LostCause::Killed => f.write_str("an operator ended the session"),
            LostCause::Session(refusal) => write!(f, "the server ended the session, {refusal}"),
            LostCause::Closed => f.write_str("the client was closed"),
            LostCause::Forked => f.write_str("the process forked, the guard is its parent's"),
            LostCause::Released => f.write_str("it was given back"),
        }
    }
}

/// What a guard's own check found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum GuardError {
    /// The lock is no longer held: stop what it protects.
    #[error("the lock is lost: {0}; stop what it protects")]
    Lost(LostCause),
    /// It is held, but not certainly for as long as asked.
    #[error("the lock is certain for only {remaining:?} more")]
    TooShort {
        /// How long it certainly is.
        remaining: Duration,
    },
}

impl GuardError {
    /// The code of the protocol's closed list: `LEASE_GUARD`, or `CLOSED`.
    pub fn refusal(self) -> Refusal {
        match self {
            GuardError::Lost(LostCause::Closed | LostCause::Forked) => Refusal::Closed,
            _ => Refusal::LeaseGuard,
        }
    }
}

/// What giving a lock back found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum ReleaseError {
    /// It was lost before: what was done under it may have overlapped with the next holder.
    #[error("the lock was lost before it was released: {0}; check what was done under it (fencing token)")]
    Lost(LostCause),
}

/// Why a grant kept its mode.
#[derive(Clone, Debug, Error)]
#[non_exhaustive]
pub enum ConvertError {
    /// The server refused; the mode held before is still held.
    #[error("{0}")]
    Refused(Refusal),
    /// Each would wait for the other; the mode held before is still held.
    #[error("{}{}", Refusal::Deadlock, .0.as_ref().map(|cycle| format!(" ({cycle})")).unwrap_or_default())]
    Deadlock(Option<Cycle>),
    /// The guard is lost.
    #[error("the lock is lost: {0}; stop what it protects")]
    Lost(LostCause),
    /// The server took the request and did not answer within the deadline. Which mode is held is not known: give
    /// the guard back.
    #[error("the server did not answer within {after:?}; release the guard, its mode is not known")]
    Unanswered {
        /// How long it was given beyond the wait asked for.
        after: Duration,
    },
}

/// What an operator's question met.
#[derive(Clone, Debug, Error)]
#[non_exhaustive]
pub enum AdminError {
    /// The server said no.
    #[error("{0}")]
    Refused(Refusal),
    /// The server said no, and why.
    #[error("{detail} ({refusal})")]
    Explained {
        /// No.
        refusal: Refusal,
        /// Why, for a person.
        detail: String,
    },
    /// No connection, or it broke.
    #[error(transparent)]
    Connection(#[from] ConnectError),
}

impl AdminError {
    /// What the server said, when it was the server that refused.
    pub fn refusal(&self) -> Option<Refusal> {
        match self {
            AdminError::Refused(refusal) | AdminError::Explained { refusal, .. } => Some(*refusal),
            AdminError::Connection(error) => error.refusal(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_absent_server_says_how_to_start_one() {
        let source = Arc::new(io::Error::from(io::ErrorKind::ConnectionRefused));
        let error = ConnectError::Unreachable { endpoint: "tcp://127.0.0.1:1".into(), source };
        assert!(error.is_no_server());
        assert!(error.to_string().contains("fairlock serve"));
        assert!(std::error::Error::source(&error).is_some());
    }

    #[test]
    fn every_way_of_losing_has_a_code() {
        assert_eq!(GuardError::Lost(LostCause::Broken).refusal(), Refusal::LeaseGuard);
        assert_eq!(GuardError::Lost(LostCause::Forked).refusal(), Refusal::Closed);
        assert_eq!(
            AcquireError::Lost(LostCause::Session(Refusal::SessionExpired)).refusal(),
            Refusal::SessionExpired
        );
    }
}
