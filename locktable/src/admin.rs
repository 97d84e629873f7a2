//! What an operator may do to holders: tell them to stop, and let the next one in on their word or, by force, at
//! once. Without their word the session is doomed, and its lease decides.

use crate::chunks::NONE;
use crate::command::{Ended, SessionKey};
use crate::effect::{Effect, Effects, Notice};
use crate::record::Grant;
use crate::table::Table;
use crate::wheel::Alarm;
use fairlock_protocol::limits::KEEPALIVE_DIVISOR;
use fairlock_protocol::{Digest, GrantId, Tick};

impl Table {
    /// Takes a resource from its holders. Those who wait are not touched.
    pub(crate) fn break_lock(&mut self, now: Tick, digest: Digest, force: bool, effects: &mut Effects) {
        let Some(lock) = self.lock_slot(digest) else {
            effects.push(Effect::Broke { holders: 0 });
            return;
        };
        let mut holders = 0;
        let mut slot = self.locks[lock].head;
        while slot != NONE {
            holders += 1;
            if self.grants[slot].has(Grant::PARTIAL) {
                // Its client does not know of it, so there is nobody to tell and nothing to wait for.
                let next = self.grants[slot].beside.next;
                self.call_off(slot, effects);
                slot = next;
                continue;
            }
            let (grant, session) = (self.grant_id(slot), self.grants[slot].session());
            let notice = Notice::Broken { grant, forced: force };
            effects.push(Effect::Told { session: self.session_key(session), notice });
            if !force && !self.grants[slot].has(Grant::BROKEN) {
                self.grants[slot].set(Grant::BROKEN);
                self.sessions[session].broken_count += 1;
                if self.sessions[session].renewable {
                    let (due, extra) = (self.confirmation_due(now, session), self.ensure_extra(slot));
                    self.extras[extra].confirm_timer = self.wheel.arm(due, Alarm::Broken(slot));
                }
            }
            slot = self.grants[slot].beside.next;
        }
        self.counts.breaks_total += u64::from(holders);
        effects.push(Effect::Broke { holders });
        if force {
            while self.locks[lock].head != NONE {
                self.end_grant(self.locks[lock].head, effects);
            }
            // Noted, not scanned here: a bundle that was called off may have noted it already.
            self.touch(lock);
        }
    }

    /// Ends a session: on its word, or at once.
    pub(crate) fn kill(&mut self, now: Tick, session: SessionKey, force: bool, effects: &mut Effects) {
        let Some(slot) = self.session_slot(session) else { return };
        if force {
            return self.end(now, slot, Ended::Killed, effects);
        }
        effects.push(Effect::Told { session, notice: Notice::Killed });
        self.sessions[slot].killed = true;
        if self.sessions[slot].confirm_timer == NONE && self.sessions[slot].renewable {
            let due = self.confirmation_due(now, slot);
            self.sessions[slot].confirm_timer = self.wheel.arm(due, Alarm::Confirm(slot));
        }
    }

    /// Until when a client's word is waited for: a fifth of its lease.
    pub(crate) fn confirmation_due(&self, now: Tick, session: u32) -> Tick {
        let ttl_ms = self.sessions[session].ttl_ms;
        assert!(ttl_ms > 0, "a lease has a length");
        now.after_millis(u64::from(ttl_ms.div_ceil(KEEPALIVE_DIVISOR)))
    }

    /// A broken grant is no longer used.
    pub(crate) fn confirm(&mut self, now: Tick, session: SessionKey, grant: GrantId, effects: &mut Effects) {
        let Some(slot) = self.session_slot(session).and_then(|session| self.grant_of(session, grant)) else {
            return;
        };
        if self.grants[slot].has(Grant::BROKEN) {
            let lock = self.end_grant(slot, effects);
            self.settle(now, lock, effects);
        }
    }
}
