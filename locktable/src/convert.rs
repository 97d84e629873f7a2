//! A grant changes its mode. Down at once; up at once when no conversion waits and the rest of the holders go with
//! it, else at the end of C with the old mode kept. From NL a conversion is a new request: it stands in W.

use crate::chunks::NONE;
use crate::command::{SessionKey, Wait};
use crate::effect::{Answer, Effects};
use crate::list;
use crate::record::{Crowd, Grant, Lock, Waiter};
use crate::table::Table;
use crate::turns::Newcomer;
use fairlock_protocol::{GrantId, Mode, OwnerId, Priority, Refusal, RequestId, Tick};

/// What becomes of a conversion.
enum Decision {
    /// It is done: the mode and a flag for "up", or nothing when the mode is held already.
    Now(Option<(Mode, bool)>),
    /// It waits, in C or (from NL) in W.
    Later { converts: bool },
    /// It would wait for one who would wait for it: that one.
    Deadlock(u32),
}

impl Table {
    pub(crate) fn convert(
        &mut self,
        now: Tick,
        key: SessionKey,
        request: RequestId,
        (grant, mode, wait): (GrantId, Mode, Wait),
        effects: &mut Effects,
    ) {
        let same = |table: &Table, waiter: u32| {
            let waiter = &table.waiters[waiter];
            waiter.grant != NONE && waiter.mode == mode && table.grant_id(waiter.grant) == grant
        };
        let Some(session) = self.admit(key, request, same, effects) else { return };
        let Some(slot) = self.grant_of(session, grant) else {
            return self.answer(session, request, Answer::Refused(Refusal::NotHeld), effects);
        };
        let lock = self.grants[slot].lock;
        match self.decide_conversion(now, session, slot, mode, wait) {
            Err(refusal) => self.answer(session, request, Answer::Refused(refusal), effects),
            Ok(Decision::Now(change)) => {
                let mut died = false;
                if let Some((mode, up)) = change {
                    let passes = self.crowd_of(lock).is_some_and(|crowd| !crowd.waits.is_empty());
                    if passes && self.grants[slot].mode() == Mode::NL {
                        self.pass_all(lock);
                    }
                    self.reseat(slot, mode, up);
                    died = up && self.locks[lock].has(Lock::DIED);
                    if died {
                        self.locks[lock].flags &= !Lock::DIED;
                    }
                }
                let answer = Answer::Converted(self.granted(slot, 0, died));
                self.answer(session, request, answer, effects);
                self.settle(now, lock, effects);
            }
            Ok(Decision::Later { converts }) => {
                let owner = OwnerId(self.owner(slot));
                let blank = Table::blank_waiter();
                let waiter = Waiter { lock, session, grant: slot, request, owner, mode, converts, ..blank };
                self.enqueue(now, waiter, Table::end_of_wait(now, wait));
                self.attend(now, lock, effects);
            }
            Ok(Decision::Deadlock(other)) => {
                let Waiter { session: other_session, owner, mode, .. } = self.waiters[other];
                let other = self.sessions[other_session].id;
                let answer = Answer::Deadlock { session: other, owner, mode };
                self.answer(session, request, answer, effects);
            }
        }
    }

    /// Decides; changes nothing.
    fn decide_conversion(
        &self,
        now: Tick,
        session: u32,
        slot: u32,
        mode: Mode,
        wait: Wait,
    ) -> Result<Decision, Refusal> {
        let grant = &self.grants[slot];
        let (held, lock) = (grant.mode(), grant.lock);
        if grant.has(Grant::EXTRA) && self.extra(slot).conversion != NONE {
            return Err(Refusal::BadConversion);
        }
        if held.covers(mode) {
            return Ok(Decision::Now((held != mode).then_some((mode, false))));
        }
        let from_nl = held == Mode::NL;
        let crowd = self.crowd_of(lock);
        let newcomer = Newcomer { session, owner: self.owner(slot), mode, priority: Priority::LOWEST };
        let passes_waits = |crowd: &Crowd| crowd.waits.is_empty() || self.may_pass(now, lock, &newcomer);
        let first =
            crowd.is_none_or(|crowd| crowd.conversions.is_empty() && (!from_nl || passes_waits(crowd)));
        let goes = self.held_mask(lock, Some(slot)).admits(mode) && !self.is_kept_out(lock, session);
        if first && goes {
            return if self.has_tokens() {
                Ok(Decision::Now(Some((mode, true))))
            } else {
                Err(Refusal::Internal)
            };
        }
        if wait == Wait::Try {
            return Err(Refusal::WouldBlock);
        }
        if !from_nl && let Some(other) = self.deadlocks_with(lock, held) {
            return Ok(Decision::Deadlock(other));
        }
        self.may_hold_more(session)?;
        self.may_wait(session, 1)?;
        self.may_queue(lock)?;
        Ok(Decision::Later { converts: !from_nl })
    }

    /// The first entry of C that would wait for a holder of `held`, behind which that holder would wait for it.
    /// Only a refusal walks: whether there is one is counted by mode.
    fn deadlocks_with(&self, lock: u32, held: Mode) -> Option<u32> {
        let crowd = self.crowd_of(lock)?;
        let conflicting = |asked: Mode| crowd.converting[asked as usize] > 0 && !asked.compatible(held);
        if !Mode::ALL.into_iter().any(conflicting) {
            return None;
        }
        list::walk(&self.waiters, crowd.conversions.head, |waiter| waiter.queue)
            .find(|&waiter| !self.waiters[waiter].mode.compatible(held))
    }
}
