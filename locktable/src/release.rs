//! What ends a grant or a wait on its client's word: release and cancel.

use crate::chunks::NONE;
use crate::command::SessionKey;
use crate::effect::{Answer, Effects};
use crate::record::Grant;
use crate::table::Table;
use fairlock_protocol::{GrantId, Refusal, RequestId, Tick};

impl Table {
    /// One level of a grant is given back; with the last one the grant ends.
    pub(crate) fn release(
        &mut self,
        now: Tick,
        key: SessionKey,
        request: RequestId,
        grant: GrantId,
        effects: &mut Effects,
    ) {
        let Some(session) = self.admit(key, request, |_, _| false, effects) else { return };
        let Some(slot) = self.grant_of(session, grant) else {
            return self.answer(session, request, Answer::Refused(Refusal::NotHeld), effects);
        };
        self.counts.releases_total += 1;
        if self.grants[slot].has(Grant::EXTRA) {
            let extra = self.extra_slot(slot);
            let levels = &mut self.extras[extra].levels;
            if *levels > 1 {
                *levels -= 1;
                let remaining = *levels;
                return self.answer(session, request, Answer::Released { remaining }, effects);
            }
        }
        let lock = self.end_grant(slot, effects);
        self.answer(session, request, Answer::Released { remaining: 0 }, effects);
        self.settle(now, lock, effects);
    }

    /// Ends a grant and, with `CANCELLED`, the conversion it may wait for. Gives the lock, which is not scanned.
    pub(crate) fn end_grant(&mut self, slot: u32, effects: &mut Effects) -> u32 {
        let grant = self.grants[slot];
        if grant.has(Grant::EXTRA) {
            let conversion = self.extra(slot).conversion;
            if conversion != NONE {
                self.counts.cancels_total += 1;
                let lock = self.turn_away(conversion, Answer::Refused(Refusal::Cancelled), effects);
                assert_eq!(lock, grant.lock, "a conversion waits at its grant's lock");
            }
        }
        self.unseat(slot);
        grant.lock
    }

    /// A waiting request is withdrawn. It and the withdrawal each get their answer.
    pub(crate) fn cancel(
        &mut self,
        now: Tick,
        key: SessionKey,
        request: RequestId,
        target: RequestId,
        effects: &mut Effects,
    ) {
        let Some(session) = self.admit(key, request, |_, _| false, effects) else { return };
        let Some(waiter) = self.pending_slot(session, target) else {
            return self.answer(session, request, Answer::Withdrawn { was_waiting: false }, effects);
        };
        self.counts.cancels_total += 1;
        let lock = self.turn_away(waiter, Answer::Refused(Refusal::Cancelled), effects);
        self.answer(session, request, Answer::Withdrawn { was_waiting: true }, effects);
        self.settle(now, lock, effects);
    }
}
