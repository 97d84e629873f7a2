//! Where one request's outcome is put, and who is told. A request comes out exactly once: the first outcome stays, and
//! whoever comes second (a grant that raced with its withdrawal) gets his back, to undo it.

use super::session::Session;
use crate::error::AcquireError;
use crate::session::{Answer, Hold, rouse};
use fairlock_protocol::{Refusal, RequestId, ShardId};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::task::Waker;
use std::thread::{self, Thread};

/// How a request came out.
#[derive(Debug)]
pub(crate) enum Outcome {
    Granted(Arc<Session>, Arc<Hold>),
    GrantedAll(Arc<Session>, Vec<Arc<Hold>>),
    Converted,
    Failed(AcquireError),
}

impl Outcome {
    pub(crate) fn of(answer: Answer, session: &Arc<Session>) -> Outcome {
        match answer {
            Answer::Granted(hold) => Outcome::Granted(Arc::clone(session), hold),
            Answer::GrantedAll(holds) => Outcome::GrantedAll(Arc::clone(session), holds),
            Answer::Converted => Outcome::Converted,
            Answer::Refused(Refusal::Deadlock, cycle) => Outcome::Failed(AcquireError::Deadlock(cycle)),
            Answer::Refused(refusal, _) => Outcome::Failed(AcquireError::Refused(refusal)),
            Answer::Lost(cause) => Outcome::Failed(AcquireError::from_lost(cause)),
        }
    }
}

/// Where a request went.
#[derive(Debug)]
pub(crate) struct Place {
    pub(crate) session: Arc<Session>,
    pub(crate) shard: ShardId,
    pub(crate) id: RequestId,
}

#[derive(Debug)]
enum State {
    /// Not settled; the one to tell, if he is there already.
    Open(Option<Waiter>),
    /// Settled, not yet taken.
    Settled(Outcome),
    /// Taken, or nobody wants it any more.
    Gone,
}

#[derive(Debug)]
enum Waiter {
    Thread(Thread),
    Task(Waker),
}

/// One request's outcome.
#[derive(Debug)]
pub(crate) struct Slot {
    state: Mutex<State>,
    place: OnceLock<Place>,
}

impl Slot {
    pub(crate) fn new() -> Arc<Slot> {
        Arc::new(Slot { state: Mutex::new(State::Open(None)), place: OnceLock::new() })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Where the request went, once it did.
    pub(crate) fn place(&self) -> Option<&Place> {
        self.place.get()
    }

    /// The request went there. `false` when it was withdrawn meanwhile: whoever placed it withdraws it there.
    ///
    /// A withdrawal settles first and looks for the place second; here it is the other way round, so at least one of
    /// the two sees the other.
    pub(crate) fn put(&self, place: Place) -> bool {
        let fresh = self.place.set(place).is_ok();
        assert!(fresh, "a request is placed once");
        matches!(*self.state(), State::Open(_))
    }

    pub(crate) fn is_settled(&self) -> bool {
        !matches!(*self.state(), State::Open(_))
    }

    /// Settles, and wakes the one who waits. Gives the outcome back when there was one before.
    pub(crate) fn settle(&self, outcome: Outcome) -> Result<(), Outcome> {
        let waiter = {
            let mut state = self.state();
            let State::Open(waiter) = &mut *state else { return Err(outcome) };
            let waiter = waiter.take();
            *state = State::Settled(outcome);
            waiter
        };
        match waiter {
            Some(Waiter::Thread(thread)) if thread.id() != thread::current().id() => thread.unpark(),
            Some(Waiter::Task(waker)) => rouse(waker),
            _ => {}
        }
        Ok(())
    }

    /// The outcome, if it is there; else this thread is the one to tell.
    pub(crate) fn take_or_unpark(&self) -> Option<Outcome> {
        self.take(|| Waiter::Thread(thread::current()))
    }

    /// The outcome, if it is there; else this task is the one to tell.
    pub(crate) fn take_or_wake(&self, waker: &Waker) -> Option<Outcome> {
        self.take(|| Waiter::Task(waker.clone()))
    }

    fn take(&self, waiter: impl FnOnce() -> Waiter) -> Option<Outcome> {
        let mut state = self.state();
        match std::mem::replace(&mut *state, State::Gone) {
            State::Settled(outcome) => Some(outcome),
            State::Open(_) => {
                *state = State::Open(Some(waiter()));
                None
            }
            State::Gone => None,
        }
    }

    /// Nobody wants it any more. What was settled and not taken is given back, to be undone.
    pub(crate) fn leave(&self) -> Option<Outcome> {
        match std::mem::replace(&mut *self.state(), State::Gone) {
            State::Settled(outcome) => Some(outcome),
            State::Open(_) | State::Gone => None,
        }
    }

    /// Unparks the thread that waits, if one does, without settling anything.
    pub(crate) fn nudge(&self) {
        if let State::Open(Some(Waiter::Thread(thread))) = &*self.state() {
            thread.unpark();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_outcome_stays_and_the_second_goes_back() {
        let slot = Slot::new();
        assert!(slot.take_or_unpark().is_none());
        assert!(slot.settle(Outcome::Failed(AcquireError::Closed)).is_ok());
        assert!(matches!(slot.settle(Outcome::Converted), Err(Outcome::Converted)));
        assert!(matches!(slot.take_or_unpark(), Some(Outcome::Failed(AcquireError::Closed))));
        assert!(slot.take_or_unpark().is_none(), "taken once");
    }

    #[test]
    fn what_nobody_took_is_given_back_to_be_undone() {
        let slot = Slot::new();
        assert!(slot.settle(Outcome::Converted).is_ok());
        assert!(matches!(slot.leave(), Some(Outcome::Converted)));
        assert!(matches!(slot.settle(Outcome::Converted), Err(Outcome::Converted)));
    }
}
