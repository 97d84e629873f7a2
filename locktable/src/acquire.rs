//! A request for a lock: entered again, granted at once, refused, or put at the end of the queue.

use crate::command::{Acquire, Wait};
use crate::effect::{Answer, Effects};
use crate::record::{Lock, Waiter};
use crate::seat::Seat;
use crate::table::Table;
use crate::turns::Newcomer;
use fairlock_protocol::limits::WAITS_PER_STREAM_MAX;
use fairlock_protocol::{Mode, Refusal, Tick};

impl Table {
    pub(crate) fn acquire(&mut self, now: Tick, ask: &Acquire<'_>, effects: &mut Effects) {
        let same = |table: &Table, waiter: u32| {
            let waiter = &table.waiters[waiter];
            waiter.grant == crate::chunks::NONE
                && waiter.bundle == crate::chunks::NONE
                && waiter.mode == ask.mode
                && table.locks[waiter.lock].digest == ask.digest
        };
        let Some(session) = self.admit(ask.session, ask.request, same, effects) else { return };
        if !self.reasserted.is_empty() {
            self.forget_reasserted();
        }
        let Some(lock) = self.lock_slot(ask.digest) else {
            let answer = match self.take_free(now, session, ask) {
                Ok(answer) => answer,
                Err(refusal) => Answer::Refused(refusal),
            };
            self.answer(session, ask.request, answer, effects);
            return;
        };
        debug_assert_eq!(self.resource(lock), ask.resource, "one digest is one resource");
        match self.take_used(now, session, lock, ask) {
            Ok(Some(answer)) => {
                self.answer(session, ask.request, answer, effects);
                if self.locks[lock].has(Lock::DISCIPLINED) && self.crowd_of(lock).is_some() {
                    // Who was let in before others may block them.
                    self.tell_blocking(lock, effects);
                }
            }
            Ok(None) => self.attend(now, lock, effects),
            Err(refusal) => self.answer(session, ask.request, Answer::Refused(refusal), effects),
        }
    }

    /// Takes a lock that has no record: nobody holds it, wants it or is kept from it.
    fn take_free(&mut self, now: Tick, session: u32, ask: &Acquire<'_>) -> Result<Answer, Refusal> {
        self.may_hold_more(session)?;
        if ask.mode != Mode::NL && !self.has_tokens() {
            return Err(Refusal::Internal);
        }
        let lock = self.create_lock(ask.digest, ask.resource).ok_or(Refusal::Quota)?;
        Ok(self.grant_at_once(now, session, lock, ask))
    }

    /// Takes or waits for a lock that is in use; `None` when it waits.
    fn take_used(
        &mut self,
        now: Tick,
        session: u32,
        lock: u32,
        ask: &Acquire<'_>,
    ) -> Result<Option<Answer>, Refusal> {
        if ask.reentrant
            && let Some(grant) = self.own_cover(lock, session, ask.owner.0, ask.mode)
        {
            return self.reenter(grant).map(Some);
        }
        if self.own_conflict(lock, session, ask.owner.0, ask.mode) {
            return Err(Refusal::AlreadyHeld);
        }
        self.may_hold_more(session)?;
        let Acquire { mode, priority, .. } = *ask;
        let newcomer = Newcomer { session, owner: ask.owner.0, mode, priority };
        if mode == Mode::NL || self.is_open_to(now, lock, &newcomer) {
            if mode != Mode::NL && !self.has_tokens() {
                return Err(Refusal::Internal);
            }
            return Ok(Some(self.grant_at_once(now, session, lock, ask)));
        }
        if ask.wait == Wait::Try {
            return Err(Refusal::WouldBlock);
        }
        self.may_wait(session, 1)?;
        self.may_queue(lock)?;
        let label = self.names.insert(ask.label);
        let waiter = Waiter {
            lock,
            session,
            request: ask.request,
            owner: ask.owner,
            label,
            lock_delay_ms: ask.lock_delay_ms,
            max_hold_ms: ask.max_hold_ms,
            mode,
            priority,
            notify: ask.notify,
            ..Table::blank_waiter()
        };
        self.enqueue(now, waiter, Table::end_of_wait(now, ask.wait));
        Ok(None)
    }

    /// One level deeper into a grant.
    fn reenter(&mut self, grant: u32) -> Result<Answer, Refusal> {
        let extra = self.ensure_extra(grant);
        let extra = &mut self.extras[extra];
        if extra.levels > self.limits.reentry {
            return Err(Refusal::HoldLimit);
        }
        extra.levels += 1;
        self.counts.reentries_total += 1;
        let mut granted = self.granted(grant, 0, false);
        granted.reentered = true;
        Ok(Answer::Granted(granted))
    }

    /// Whether a request is granted at once: it goes with all who hold, and nobody waits whom it may not pass.
    pub(crate) fn is_open_to(&self, now: Tick, lock: u32, newcomer: &Newcomer) -> bool {
        let unwanted = self.crowd_of(lock).is_none_or(|crowd| !crowd.is_waited_for());
        (unwanted || self.may_pass(now, lock, newcomer))
            && self.held_mask(lock, None).admits(newcomer.mode)
            && !self.is_kept_out(lock, newcomer.session)
    }

    pub(crate) fn grant_at_once(&mut self, now: Tick, session: u32, lock: u32, ask: &Acquire<'_>) -> Answer {
        let label = self.names.insert(ask.label);
        let seat = Seat {
            lock,
            session,
            owner: ask.owner.0,
            mode: ask.mode,
            notify: ask.notify,
            lock_delay_ms: ask.lock_delay_ms,
            max_hold_ms: ask.max_hold_ms,
            label,
        };
        let (grant, died) = self.seat_at_once(now, &seat);
        Answer::Granted(self.granted(grant, 0, died))
    }

    /// Seats one that need not wait. Says whether it is the one to be told of a death.
    pub(crate) fn seat_at_once(&mut self, now: Tick, seat: &Seat) -> (u32, bool) {
        let protects = seat.mode != Mode::NL;
        let passed = self.crowd_of(seat.lock).is_some_and(|crowd| !crowd.waits.is_empty());
        if passed && protects {
            self.pass_all(seat.lock);
        }
        let died = protects && self.locks[seat.lock].has(Lock::DIED);
        if died {
            self.locks[seat.lock].flags &= !Lock::DIED;
        }
        (self.seat(now, seat), died)
    }

    /// Whether the session may have one more grant or wait.
    pub(crate) fn may_hold_more(&self, session: u32) -> Result<(), Refusal> {
        let session = &self.sessions[session];
        let used = session.grant_count + session.wait_count;
        if used < self.limits.locks_per_session { Ok(()) } else { Err(Refusal::Quota) }
    }

    /// Whether one more request of the session may wait that will have so many answers. Those that wait may all be
    /// answered at once, and a client's acknowledgement counts answers modulo 2^16.
    pub(crate) fn may_wait(&self, session: u32, answers: u32) -> Result<(), Refusal> {
        let session = &self.sessions[session];
        let expected = session.wait_count + session.wait_answers + answers;
        if expected <= WAITS_PER_STREAM_MAX { Ok(()) } else { Err(Refusal::Quota) }
    }

    /// Whether the queues of a lock take one more.
    pub(crate) fn may_queue(&self, lock: u32) -> Result<(), Refusal> {
        let queued = self.crowd_of(lock).map_or(0, crate::record::Crowd::queued);
        if queued < self.limits.waiters_per_resource { Ok(()) } else { Err(Refusal::QueueFull) }
    }
}
