//! Inherited classes: an owner that holds a lock of a `priority` namespace and waits in another one waits with the highest
//! class that waits for what it holds, over several removes.
//!
//! Nothing is stored but who may inherit at all. What is inherited is looked up at each choice, so it is gone the
//! moment its cause is: when the other one is let in, gives up or dies, or the lock is given back. The search is bounded in
//! every direction; each bound is in `protocol::limits`, and what lies beyond is not inherited.

use crate::chunks::NONE;
use crate::list;
use crate::record::{Lock, Waiter};
use crate::table::Table;
use fairlock_protocol::limits::{
    INHERITANCE_DEPTH_MAX, INHERITANCE_HEIRS_MAX, INHERITANCE_LOCKS_MAX, INHERITANCE_SEARCH_MAX,
};
use fairlock_protocol::{Mode, Priority, Tick};

/// Locks found so far, nearest first.
struct Found {
    locks: [u32; INHERITANCE_LOCKS_MAX],
    count: usize,
}

impl Table {
    /// The highest class that waits for what this owner holds, for what those hold who wait for it, and so on; the
    /// lowest when nobody does. Each record looked at takes one of `steps`.
    pub(crate) fn inherited(&self, now: Tick, session: u32, owner: u64, steps: &mut u32) -> Priority {
        let mut found = Found { locks: [NONE; INHERITANCE_LOCKS_MAX], count: 0 };
        self.find_held(session, owner, &mut found, steps);
        let (mut highest, mut at) = (Priority::LOWEST, 0);
        for _ in 0..INHERITANCE_DEPTH_MAX {
            let of_this_remove = found.count;
            while at < of_this_remove {
                let rota = &self.rotas[self.crowds[self.locks[found.locks[at]].crowd].rota];
                let firsts = rota.classes.iter().map(|ends| ends.head).filter(|&turn| turn != NONE);
                let own = firsts.map(|turn| self.aged(now, self.turns[turn].waiter)).max();
                highest = highest.max(own.unwrap_or_default());
                let heirs = list::walk(&self.turns, rota.heirs.head, |turn| turn.heir);
                for turn in heirs.take(INHERITANCE_HEIRS_MAX) {
                    let Waiter { session, owner, .. } = self.waiters[self.turns[turn].waiter];
                    self.find_held(session, owner.0, &mut found, steps);
                }
                at += 1;
            }
        }
        highest
    }

    /// Adds the locks that an owner holds and somebody waits for, of `priority` namespaces.
    fn find_held(&self, session: u32, owner: u64, found: &mut Found, steps: &mut u32) {
        for grant in self.ranked_grants(session, owner, steps) {
            let lock = self.grants[grant].lock;
            let waited_for = self.crowd_of(lock).is_some_and(|crowd| crowd.rota != NONE);
            let known = found.locks[..found.count].contains(&lock);
            if waited_for && !known && found.count < INHERITANCE_LOCKS_MAX {
                found.locks[found.count] = lock;
                found.count += 1;
            }
        }
    }

    /// An owner's grants in `priority` namespaces, among the first of its session. One in NL keeps nobody waiting.
    fn ranked_grants(&self, session: u32, owner: u64, steps: &mut u32) -> impl Iterator<Item = u32> {
        let most = INHERITANCE_SEARCH_MAX.min(*steps as usize);
        let grants = list::walk(&self.grants, self.sessions[session].grants.head, |grant| grant.sibling);
        let looked_at = grants.take(most).inspect(move |_| *steps -= 1);
        looked_at.filter(move |&slot| {
            let grant = &self.grants[slot];
            grant.mode() != Mode::NL
                && self.locks[grant.lock].has(Lock::PRIORITY)
                && self.owner(slot) == owner
        })
    }

    /// Whether an owner holds anything for which others may wait with a class.
    pub(crate) fn holds_ranked(&self, session: u32, owner: u64) -> bool {
        let mut steps = u32::MAX;
        self.ranked_grants(session, owner, &mut steps).next().is_some()
    }

    /// A grant in a `priority` namespace begins, ends or changes its mode: whether the waits of its owner may inherit
    /// is asked anew.
    #[cold]
    pub(crate) fn review_heirs(&mut self, session: u32, owner: u64) {
        let mut at = self.sessions[session].waits.head;
        if at == NONE {
            return;
        }
        let inherits = self.holds_ranked(session, owner);
        for _ in 0..INHERITANCE_SEARCH_MAX {
            if at == NONE {
                break;
            }
            let waiter = &self.waiters[at];
            let (slot, next) = (at, waiter.sibling.next);
            let ranked = !waiter.converts && self.locks[waiter.lock].has(Lock::PRIORITY);
            if ranked && waiter.owner.0 == owner {
                self.set_heir(slot, inherits);
            }
            at = next;
        }
    }

    /// Lists a waiter among those that may inherit, or takes it from that list.
    pub(crate) fn set_heir(&mut self, waiter: u32, inherits: bool) {
        let turn = self.turn_slot(waiter);
        if self.turns[turn].inherits == inherits {
            return;
        }
        self.turns[turn].inherits = inherits;
        let crowd = self.locks[self.waiters[waiter].lock].crowd;
        let ends = &mut self.rotas[self.crowds[crowd].rota].heirs;
        if inherits {
            list::push_back(&mut self.turns, ends, turn, |turn| &mut turn.heir);
        } else {
            list::unlink(&mut self.turns, ends, turn, |turn| &mut turn.heir);
        }
    }
}
