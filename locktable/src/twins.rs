//! Sessions of one identity: the newest is found by it, the older ones stand behind it, newest first. Who opens an
//! identity again replaces those that have the same reclaim key.

use crate::chunks::NONE;
use crate::command::{Ended, Open};
use crate::effect::Effects;
use crate::list::Link;
use crate::table::Table;
use fairlock_protocol::Tick;

impl Table {
    /// The sessions of this identity and key, newest first, are renewed no more; when they cannot run any more they
    /// end at once, all of them before anybody is granted what they had. Behind one that was replaced all were.
    pub(crate) fn replace_twins(&mut self, now: Tick, newest: u32, open: &Open<'_>, effects: &mut Effects) {
        let mut twin = newest;
        while twin != NONE {
            let slot = twin;
            twin = self.sessions[slot].twins.next;
            if *self.sessions[slot].about.reclaim_key != *open.reclaim_key {
                continue;
            }
            if open.predecessor_gone {
                self.strip(now, slot, Ended::Replaced, effects);
            } else if core::mem::replace(&mut self.sessions[slot].replaced, true) {
                break;
            } else {
                self.refuse_renewals(now, slot, effects);
            }
        }
        self.settle_touched(now, effects);
    }

    pub(crate) fn identity_hash(&self, identity: &[u8]) -> u64 {
        identity.chunks(8).fold(identity.len() as u64, |hash, chunk| {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            self.key.hash(hash, u64::from_le_bytes(word))
        })
    }

    /// The newest session of an identity; nobody in particular has no twins.
    pub(crate) fn newest_twin(&self, identity: &[u8]) -> Option<u32> {
        if identity.is_empty() {
            return None;
        }
        let is = |slot: u32| *self.sessions[slot].about.identity == *identity;
        self.by_identity.find(self.identity_hash(identity), is)
    }

    pub(crate) fn join_twins(&mut self, slot: u32) {
        if self.sessions[slot].about.identity.is_empty() {
            return;
        }
        let hash = self.identity_hash(&self.sessions[slot].about.identity);
        self.sessions[slot].alike = true;
        if let Some(older) = self.newest_twin(&self.sessions[slot].about.identity) {
            let (new, old) = (&self.sessions[slot], &self.sessions[older]);
            // At its home it was let in because all are alike.
            let alike = !new.visiting || old.alike && new.about.reclaim_key == old.about.reclaim_key;
            self.sessions[slot].alike = alike;
            self.by_identity.remove(hash, older);
            self.sessions[older].twins.prev = slot;
            self.sessions[slot].twins.next = older;
        }
        self.by_identity.insert(hash, slot);
    }

    pub(crate) fn leave_twins(&mut self, slot: u32) {
        let Link { prev, next } = self.sessions[slot].twins;
        if next != NONE {
            self.sessions[next].twins.prev = prev;
        }
        if prev != NONE {
            self.sessions[prev].twins.next = next;
        } else if !self.sessions[slot].about.identity.is_empty() {
            let hash = self.identity_hash(&self.sessions[slot].about.identity);
            self.by_identity.remove(hash, slot);
            if next != NONE {
                self.by_identity.insert(hash, next);
            }
        }
    }
}
