//! Blocking notices: a grant that asked for it is told when it begins to block somebody, once until it blocks nobody
//! any more. Whoever never asked costs nothing here.
//!
//! Whether a mode blocks anybody is counted, not searched. Grants to be told stand in one list a mode, those that
//! were told in another, so each notice costs the same however many hold the lock and however many wait.

use crate::chunks::NONE;
use crate::effect::{Effect, Effects, Notice};
use crate::list::{self, Ends};
use crate::record::{Grant, Notify};
use crate::table::Table;
use fairlock_protocol::Mode;

/// Entries of a queue looked at for the first one that a holder blocks; a notice names the strongest mode waited
/// for when none of them is it.
const FIRST_BLOCKED_SEARCH_MAX: usize = 8;

impl Table {
    /// Puts a grant among those to be told when they block somebody, if it wants to know.
    #[inline]
    pub(crate) fn hush(&mut self, slot: u32) {
        if self.grants[slot].has(Grant::EXTRA) && self.extra(slot).notify != Notify::Off {
            self.list_notice(slot, Notify::Quiet);
        }
    }

    /// Takes a grant from the list it is in, and says which that was: `Off` when it is in none.
    #[inline]
    pub(crate) fn unhush(&mut self, slot: u32) -> Notify {
        let grant = &self.grants[slot];
        let crowd = self.locks[grant.lock].crowd;
        if !grant.has(Grant::EXTRA) {
            return Notify::Off;
        }
        let (extra, mode) = (self.extra_slot(slot), grant.mode() as usize);
        let notify = self.extras[extra].notify;
        if notify == Notify::Off || crowd == NONE {
            assert!(notify != Notify::Told, "a sole holder blocks nobody");
            return Notify::Off;
        }
        let crowd = &mut self.crowds[crowd];
        let ends = if notify == Notify::Told { &mut crowd.told[mode] } else { &mut crowd.quiet[mode] };
        list::unlink(&mut self.extras, ends, extra, |extra| &mut extra.notice);
        notify
    }

    /// Puts a grant that wants to know into one of the two lists of its mode.
    pub(crate) fn list_notice(&mut self, slot: u32, notify: Notify) {
        let grant = &self.grants[slot];
        let crowd = self.locks[grant.lock].crowd;
        let (extra, mode) = (self.extra_slot(slot), grant.mode() as usize);
        assert!(notify != Notify::Off, "who does not want to know is in no list");
        self.extras[extra].notify = notify;
        if crowd == NONE {
            assert!(notify == Notify::Quiet, "a sole holder blocks nobody");
            return;
        }
        let crowd = &mut self.crowds[crowd];
        let ends = if notify == Notify::Told { &mut crowd.told[mode] } else { &mut crowd.quiet[mode] };
        list::push_back(&mut self.extras, ends, extra, |extra| &mut extra.notice);
    }

    /// How many entries of the queues a grant blocks; its own conversion is not one of them.
    pub(crate) fn blocked_by_grant(&self, slot: u32) -> u32 {
        let grant = &self.grants[slot];
        let Some(crowd) = self.crowd_of(grant.lock) else { return 0 };
        let own = if grant.has(Grant::EXTRA) { self.extra(slot).conversion } else { NONE };
        let own = own != NONE && !self.waiters[own].mode.compatible(grant.mode());
        crowd.blocked_by(grant.mode()) - u32::from(own)
    }

    /// Tells holders that want to know, once, that they block somebody.
    pub(crate) fn tell_blocking(&mut self, lock: u32, effects: &mut Effects) {
        let crowd_slot = self.locks[lock].crowd;
        for mode in Mode::ALL {
            let crowd = &self.crowds[crowd_slot];
            let mut at = crowd.quiet[mode as usize].head;
            if at == NONE || crowd.blocked_by(mode) == 0 {
                continue;
            }
            while at != NONE {
                let extra = &self.extras[at];
                let (grant, own) = (extra.grant, extra.conversion);
                at = extra.notice.next;
                let waiters = self.blocked_by_grant(grant);
                if waiters == 0 {
                    continue;
                }
                let wanted = self.first_blocked(crowd_slot, mode, own);
                let notice = Notice::Blocking { grant: self.grant_id(grant), wanted, waiters };
                let session = self.session_key(self.grants[grant].session());
                effects.push(Effect::Told { session, notice });
                self.unhush(grant);
                self.list_notice(grant, Notify::Told);
            }
        }
    }

    /// An entry that asked for `asked` has left the queues: who blocks nobody any more is told again next time.
    pub(crate) fn quieten(&mut self, crowd_slot: u32, asked: Mode) {
        for mode in Mode::ALL.into_iter().filter(|mode| !mode.compatible(asked)) {
            let crowd = &self.crowds[crowd_slot];
            if crowd.told[mode as usize].is_empty() {
                continue;
            }
            match crowd.blocked_by(mode) {
                0 => {
                    while !self.crowds[crowd_slot].told[mode as usize].is_empty() {
                        let extra = self.crowds[crowd_slot].told[mode as usize].head;
                        let grant = self.extras[extra].grant;
                        self.unhush(grant);
                        self.list_notice(grant, Notify::Quiet);
                    }
                }
                1 => {
                    // The last one blocked may be the conversion of a grant that was told because of others.
                    let last = self.blocked(crowd.conversions, mode, NONE).next();
                    let grant = last.map_or(NONE, |waiter| self.waiters[waiter].grant);
                    if grant != NONE
                        && self.extra(grant).notify == Notify::Told
                        && self.blocked_by_grant(grant) == 0
                    {
                        self.unhush(grant);
                        self.list_notice(grant, Notify::Quiet);
                    }
                }
                _ => {}
            }
        }
    }

    /// Entries among the first of a queue that a holder of `mode` blocks, but for its own conversion.
    fn blocked(&self, queue: Ends, mode: Mode, own: u32) -> impl Iterator<Item = u32> {
        list::walk(&self.waiters, queue.head, |waiter| waiter.queue)
            .take(FIRST_BLOCKED_SEARCH_MAX)
            .filter(move |&waiter| waiter != own && !self.waiters[waiter].mode.compatible(mode))
    }

    /// What the first one that a holder of `mode` blocks asks for, in the order of service.
    fn first_blocked(&self, crowd: u32, mode: Mode, own: u32) -> Mode {
        let crowd = &self.crowds[crowd];
        let mut blocked =
            self.blocked(crowd.conversions, mode, own).chain(self.blocked(crowd.waits, mode, own));
        let strongest = || {
            let asked = |&asked: &Mode| {
                let waiting = crowd.converting[asked as usize] + crowd.waiting[asked as usize];
                waiting > 0 && !asked.compatible(mode)
            };
            Mode::ALL.into_iter().rev().find(asked).expect("somebody is blocked")
        };
        blocked.next().map_or_else(strongest, |waiter| self.waiters[waiter].mode)
    }
}
