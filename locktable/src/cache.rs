//! Grants that stay with their client between two holds (cached grants). To the table they are grants like others; what
//! differs is that no thread or task of the client owns them, since any may enter next, and that they are always told
//! when they block somebody: whoever keeps them then takes them back.

use crate::command::SessionKey;
use crate::effect::Effects;
use crate::record::Notify;
use crate::table::Table;
use fairlock_protocol::{GrantId, Tick};

/// The owner of a cached grant: no thread or task of the client in particular.
pub const NOBODY: u64 = u64::MAX;

impl Table {
    /// From now on the grant stays with its session until it is given back.
    pub(crate) fn cache(&mut self, session: SessionKey, grant: GrantId, effects: &mut Effects) {
        let Some(slot) = self.session_slot(session).and_then(|session| self.grant_of(session, grant)) else {
            return;
        };
        self.disown(slot, NOBODY);
        let extra = self.ensure_extra(slot);
        if self.extras[extra].notify == Notify::Off {
            self.list_notice(slot, Notify::Quiet);
        }
        let lock = self.grants[slot].lock;
        if self.crowd_of(lock).is_some() {
            self.tell_blocking(lock, effects);
        }
    }

    /// A cached grant was found free, or its client gave it up: it ends, and nobody is answered.
    pub(crate) fn give_back(
        &mut self,
        now: Tick,
        session: SessionKey,
        grant: GrantId,
        effects: &mut Effects,
    ) {
        let Some(slot) = self.session_slot(session).and_then(|session| self.grant_of(session, grant)) else {
            return;
        };
        self.counts.releases_total += 1;
        let lock = self.end_grant(slot, effects);
        self.settle(now, lock, effects);
    }
}
