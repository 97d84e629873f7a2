//! What time has decided, carried out. Each command says so itself: whether the time has really come was decided
//! where [`Table::due`] was asked, and nobody decides it again.

use crate::chunks::NONE;
use crate::command::{SessionKey, WaiterKey};
use crate::effect::{Answer, Effect, Effects, Notice};
use crate::table::Table;
use fairlock_protocol::{Digest, GrantId, Refusal, Tick};

impl Table {
    /// A wait ends without a grant; a conversion keeps its old mode.
    pub(crate) fn wait_over(&mut self, now: Tick, waiter: WaiterKey, effects: &mut Effects) {
        let known = self.waiters.get(waiter.slot).is_some_and(|found| found.generation == waiter.generation);
        if !known {
            return;
        }
        self.counts.timeouts_total += 1;
        let lock = self.turn_away(waiter.slot, Answer::Refused(Refusal::Timeout), effects);
        self.settle(now, lock, effects);
    }

    /// A grant ends by its longest hold.
    pub(crate) fn hold_over(&mut self, now: Tick, grant: GrantId, effects: &mut Effects) {
        let slot = grant.slot();
        let Some(found) = self.grants.get(slot).filter(|found| found.generation == grant.generation()) else {
            return;
        };
        let session = self.session_key(found.session());
        self.counts.holds_over_total += 1;
        effects.push(Effect::Told { session, notice: Notice::HoldOver { grant } });
        let lock = self.end_grant(slot, effects);
        self.settle(now, lock, effects);
    }

    /// A lock opens again after its delay, unless a longer one has begun since that was decided.
    pub(crate) fn delay_over(&mut self, now: Tick, digest: Digest, effects: &mut Effects) {
        let Some(lock) = self.lock_slot(digest) else { return };
        let crowd = self.locks[lock].crowd;
        if crowd == NONE {
            return;
        }
        if let Some(closed) = self.crowds[crowd].closed.take_if(|closed| closed.until <= now) {
            self.wheel.disarm(closed.timer);
            self.settle(now, lock, effects);
        }
    }

    /// A client did not confirm in time: from here on its session is renewed no more.
    pub(crate) fn doom(&mut self, now: Tick, session: SessionKey, effects: &mut Effects) {
        let Some(slot) = self.session_slot(session) else { return };
        let timer = core::mem::replace(&mut self.sessions[slot].confirm_timer, NONE);
        if timer != NONE {
            self.wheel.disarm(timer);
        }
        self.refuse_renewals(now, slot, effects);
    }
}
