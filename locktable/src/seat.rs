//! A grant's life on its lock: seated, in another mode, unseated, with every count and list that must agree.
//!
//! "What does this owner hold here already?" is asked on re-entry and before a refusal. Among a few holders a walk
//! answers; past [`STAKED_ABOVE`] holders each (session, owner) gets a [`Stake`] that counts its modes, and its
//! grants stand together in the session's list, so the answer costs the same among a hundred thousand readers.

use crate::chunks::NONE;
use crate::command::Granted;
use crate::list::{self, Ends};
use crate::names::NameRef;
use crate::record::{Grant, Lock, Notify, SINCE_NS, Stake};
use crate::table::{Generations, Table};
use crate::wheel::Alarm;
use fairlock_protocol::{Mode, Tick};

/// Holders up to which a walk finds an owner's grants.
const STAKED_ABOVE: u32 = 8;
/// Holders from which on down a walk is enough again; lower, so that a lock at the edge does not go to and fro.
const UNSTAKED_AT: u32 = 4;
/// Grants of one owner on one lock that a re-entry looks at, oldest first. Who holds more of them without
/// re-entry, and then asks for it, may get a grant of his own.
const REENTRY_SEARCH_MAX: usize = 64;

/// A grant to be.
#[derive(Debug)]
pub(crate) struct Seat {
    pub(crate) lock: u32,
    pub(crate) session: u32,
    pub(crate) owner: u64,
    pub(crate) mode: Mode,
    pub(crate) notify: bool,
    pub(crate) lock_delay_ms: u32,
    pub(crate) max_hold_ms: u32,
    pub(crate) label: NameRef,
}

impl Table {
    /// A new grant; whether it may be is decided above.
    pub(crate) fn seat(&mut self, now: Tick, seat: &Seat) -> u32 {
        debug_assert!(self.held_mask(seat.lock, None).admits(seat.mode), "a grant goes with those beside it");
        let token = if seat.mode == Mode::NL { 0 } else { self.next_token().get() };
        let generation = Generations::next(&mut self.generations.grant);
        let who = Grant::who(seat.session, seat.mode);
        let grant = Grant::new(token, seat.owner, seat.lock, who, generation, since_units(now));
        let grant = self.grants.insert(grant);
        if seat.notify || seat.lock_delay_ms > 0 || seat.max_hold_ms > 0 || !seat.label.is_empty() {
            let extra = self.ensure_extra(grant);
            if seat.max_hold_ms > 0 {
                let due = now.after_millis(u64::from(seat.max_hold_ms));
                self.extras[extra].hold_timer = self.wheel.arm(due, Alarm::Hold(grant));
                self.extras[extra].max_hold_ms = seat.max_hold_ms;
            }
            let extra = &mut self.extras[extra];
            (extra.label, extra.lock_delay_ms) = (seat.label, seat.lock_delay_ms);
            extra.notify = if seat.notify { Notify::Quiet } else { Notify::Off };
        }
        let flags = self.locks[seat.lock].flags;
        if self.locks[seat.lock].head != NONE {
            self.crowd(seat.lock);
        }
        let mut ends = self.holder_ends(seat.lock);
        list::push_back(&mut self.grants, &mut ends, grant, |grant| &mut grant.beside);
        self.set_holder_ends(seat.lock, ends);
        self.count_in(grant);
        self.hush(grant);
        self.file(grant, flags);
        self.sessions[seat.session].grant_count += 1;
        self.counts.grants_total += 1;
        if flags & Lock::PRIORITY != 0 {
            self.review_heirs(seat.session, seat.owner);
        }
        grant
    }

    /// Ends a grant, whose conversion, if any, was dealt with before. The lock is not scanned.
    pub(crate) fn unseat(&mut self, slot: u32) {
        let Grant { lock, mut owner, .. } = self.grants[slot];
        let flags = self.locks[lock].flags;
        self.unfile(slot, flags);
        self.count_out(slot);
        if self.grants[slot].has(Grant::EXTRA) {
            self.unhush(slot);
            let extra = self.extras.remove(self.extra_slot(slot));
            assert_eq!(extra.conversion, NONE, "a grant that ends converts no more");
            owner = extra.owner;
            for timer in [extra.hold_timer, extra.confirm_timer] {
                if timer != NONE {
                    self.wheel.disarm(timer);
                }
            }
            self.names.remove(extra.label);
        }
        let mut ends = self.holder_ends(lock);
        list::unlink(&mut self.grants, &mut ends, slot, |grant| &mut grant.beside);
        self.set_holder_ends(lock, ends);
        let grant = self.grants.remove(slot);
        let session = &mut self.sessions[grant.session()];
        session.grant_count -= 1;
        session.broken_count -= u32::from(grant.has(Grant::BROKEN));
        if flags & Lock::PRIORITY != 0 {
            self.review_heirs(grant.session(), owner);
        }
    }

    /// Gives a grant another mode; `up` when that needs a new token.
    pub(crate) fn reseat(&mut self, slot: u32, mode: Mode, up: bool) {
        let (old, lock) = (self.grants[slot].mode(), self.grants[slot].lock);
        debug_assert!(self.held_mask(lock, Some(slot)).admits(mode), "a grant goes with those beside it");
        let notify = self.unhush(slot);
        self.count_out(slot);
        self.grants[slot].set_mode(mode);
        if up {
            self.grants[slot].token = self.next_token().get();
        } else if mode == Mode::NL {
            // NL protects nothing: the tenure is over, and the token with it.
            self.grants[slot].token = 0;
        }
        self.count_in(slot);
        if notify == Notify::Told && self.blocked_by_grant(slot) > 0 {
            self.list_notice(slot, Notify::Told);
        } else if notify != Notify::Off {
            self.list_notice(slot, Notify::Quiet);
        }
        if let Some(stake) = self.stake_of(slot) {
            self.stakes[stake].held[old as usize] -= 1;
            self.stakes[stake].held[mode as usize] += 1;
        }
        self.counts.conversions_total += 1;
        if self.locks[lock].has(Lock::PRIORITY) {
            self.review_heirs(self.grants[slot].session(), self.owner(slot));
        }
    }

    /// What the holder is told about its grant.
    pub(crate) fn granted(&self, slot: u32, waited_us: u64, previous_owner_died: bool) -> Granted {
        let grant = &self.grants[slot];
        Granted {
            grant: self.grant_id(slot),
            token: grant.fencing_token(),
            fence: self.fence(slot),
            mode: grant.mode(),
            waited_us,
            previous_owner_died,
            reentered: false,
        }
    }

    /// What a resource remembers with this grant's token: readers of one run do not fence each other off.
    pub(crate) fn fence(&self, slot: u32) -> u64 {
        let grant = &self.grants[slot];
        match grant.mode() {
            Mode::PW | Mode::EX => grant.token - 1,
            Mode::PR => {
                let first = self.crowd_of(grant.lock).map_or(grant.token, |crowd| crowd.run_first);
                assert!(first > 0 && first <= grant.token, "a reader belongs to a run of readers");
                first - 1
            }
            Mode::NL | Mode::CR | Mode::CW => 0,
        }
    }

    /// The oldest grant of this owner here that has every right `mode` gives.
    pub(crate) fn own_cover(&self, lock: u32, session: u32, owner: u64, mode: Mode) -> Option<u32> {
        // What a bundle has taken is not entered again, as its client does not know of it yet, nor what was broken: its
        // client may have confirmed that, and the guard of a second entry would outlive the grant.
        let covers = |&grant: &u32| {
            let grant = &self.grants[grant];
            grant.mode().covers(mode) && !grant.has(Grant::PARTIAL) && !grant.has(Grant::BROKEN)
        };
        if !self.locks[lock].has(Lock::STAKED) {
            return self.own(lock, session, owner).find(covers);
        }
        let stake = &self.stakes[self.stake(lock, session, owner)?];
        if !Mode::ALL.into_iter().any(|held| stake.held[held as usize] > 0 && held.covers(mode)) {
            return None;
        }
        let own = list::walk(&self.grants, stake.grants.head, |grant| grant.sibling);
        own.take(REENTRY_SEARCH_MAX.min(stake.count as usize)).find(covers)
    }

    /// Whether this owner itself holds the lock in a mode that excludes `mode`.
    pub(crate) fn own_conflict(&self, lock: u32, session: u32, owner: u64, mode: Mode) -> bool {
        if self.held_mask(lock, None).admits(mode) {
            return false;
        }
        if !self.locks[lock].has(Lock::STAKED) {
            return self.own(lock, session, owner).any(|grant| !self.grants[grant].mode().compatible(mode));
        }
        let Some(stake) = self.stake(lock, session, owner) else { return false };
        let held = &self.stakes[stake].held;
        Mode::ALL.into_iter().any(|other| held[other as usize] > 0 && !other.compatible(mode))
    }

    /// This owner's grants among the few of a lock.
    fn own(&self, lock: u32, session: u32, owner: u64) -> impl Iterator<Item = u32> + '_ {
        self.holders(lock)
            .filter(move |&grant| self.grants[grant].session() == session && self.owner(grant) == owner)
    }

    /// Counts a grant among the holders of its mode.
    #[inline]
    fn count_in(&mut self, slot: u32) {
        let Grant { lock, token, .. } = self.grants[slot];
        let (crowd, mode) = (self.locks[lock].crowd, self.grants[slot].mode());
        if crowd == NONE {
            return;
        }
        let crowd = &mut self.crowds[crowd];
        crowd.holders += 1;
        crowd.held[mode as usize] += 1;
        if mode == Mode::PR && crowd.held[mode as usize] == 1 {
            crowd.run_first = token;
        }
    }

    #[inline]
    fn count_out(&mut self, slot: u32) {
        let Grant { lock, .. } = self.grants[slot];
        let (crowd, mode) = (self.locks[lock].crowd, self.grants[slot].mode());
        if crowd == NONE {
            return;
        }
        let crowd = &mut self.crowds[crowd];
        crowd.holders -= 1;
        crowd.held[mode as usize] -= 1;
        if mode == Mode::PR && crowd.held[mode as usize] == 0 {
            crowd.run_first = 0;
        }
    }

    /// Puts a grant into its session's list, and its owner's stake where the lock has stakes.
    fn file(&mut self, slot: u32, flags: u16) {
        let Grant { lock, .. } = self.grants[slot];
        let session = self.grants[slot].session();
        let holders = self.crowd_of(lock).map_or(1, |crowd| crowd.holders);
        let ends = &mut self.sessions[session].grants;
        list::push_back(&mut self.grants, ends, slot, |grant| &mut grant.sibling);
        if flags & Lock::STAKED != 0 {
            self.add_stake(slot);
        } else if holders > STAKED_ABOVE {
            self.locks[lock].assign(Lock::STAKED, true);
            let mut at = self.locks[lock].head;
            while at != NONE {
                self.add_stake(at);
                at = self.grants[at].beside.next;
            }
        }
    }

    fn unfile(&mut self, slot: u32, flags: u16) {
        let Grant { lock, .. } = self.grants[slot];
        let staked = flags & Lock::STAKED != 0;
        if staked {
            self.drop_stake(slot);
        }
        let ends = &mut self.sessions[self.grants[slot].session()].grants;
        list::unlink(&mut self.grants, ends, slot, |grant| &mut grant.sibling);
        if staked && self.crowd_of(lock).is_some_and(|crowd| crowd.holders <= UNSTAKED_AT + 1) {
            let mut at = self.locks[lock].head;
            while at != NONE {
                if at != slot {
                    self.drop_stake(at);
                }
                at = self.grants[at].beside.next;
            }
            self.locks[lock].assign(Lock::STAKED, false);
        }
    }

    pub(crate) fn stake_hash(&self, lock: u32, session: u32, owner: u64) -> u64 {
        self.key.hash(u64::from(lock) << 32 | u64::from(session), owner)
    }

    /// The stake of an owner in a lock.
    pub(crate) fn stake(&self, lock: u32, session: u32, owner: u64) -> Option<u32> {
        let is = |slot: u32| {
            let stake = &self.stakes[slot];
            (stake.lock, stake.session, stake.owner) == (lock, session, owner)
        };
        self.by_stake.find(self.stake_hash(lock, session, owner), is)
    }

    #[inline]
    fn stake_of(&self, grant: u32) -> Option<u32> {
        let Grant { lock, .. } = self.grants[grant];
        if !self.locks[lock].has(Lock::STAKED) {
            return None;
        }
        self.stake(lock, self.grants[grant].session(), self.owner(grant))
    }

    /// Counts a grant into its owner's stake and moves it, in its session's list, behind the owner's others.
    fn add_stake(&mut self, slot: u32) {
        let Grant { lock, .. } = self.grants[slot];
        let (session, owner, mode) =
            (self.grants[slot].session(), self.owner(slot), self.grants[slot].mode());
        if let Some(stake) = self.stake(lock, session, owner) {
            let last = self.stakes[stake].grants.tail;
            let ends = &mut self.sessions[session].grants;
            list::unlink(&mut self.grants, ends, slot, |grant| &mut grant.sibling);
            list::insert_after(&mut self.grants, ends, last, slot, |grant| &mut grant.sibling);
            let stake = &mut self.stakes[stake];
            stake.grants.tail = slot;
            stake.count += 1;
            stake.held[mode as usize] += 1;
        } else {
            let mut held = [0; 6];
            held[mode as usize] = 1;
            let grants = Ends { head: slot, tail: slot };
            let stake = self.stakes.insert(Stake { lock, session, owner, held, grants, count: 1 });
            self.by_stake.insert(self.stake_hash(lock, session, owner), stake);
        }
    }

    /// Gives a grant another owner.
    pub(crate) fn disown(&mut self, slot: u32, owner: u64) {
        let staked = self.stake_of(slot).is_some();
        self.drop_stake(slot);
        let extra = self.ensure_extra(slot);
        self.extras[extra].owner = owner;
        if staked {
            // An owner's grants stand together in the session's list: this one stands among the former owner's no more.
            let ends = &mut self.sessions[self.grants[slot].session()].grants;
            list::unlink(&mut self.grants, ends, slot, |grant| &mut grant.sibling);
            list::push_back(&mut self.grants, ends, slot, |grant| &mut grant.sibling);
            self.add_stake(slot);
        }
    }

    fn drop_stake(&mut self, slot: u32) {
        let Some(found) = self.stake_of(slot) else { return };
        let grant = self.grants[slot];
        let stake = &mut self.stakes[found];
        stake.count -= 1;
        stake.held[grant.mode() as usize] -= 1;
        if stake.count == 0 {
            let Stake { lock, session, owner, .. } = self.stakes.remove(found);
            self.by_stake.remove(self.stake_hash(lock, session, owner), found);
        } else if stake.grants.head == slot {
            stake.grants.head = grant.sibling.next;
        } else if stake.grants.tail == slot {
            stake.grants.tail = grant.sibling.prev;
        }
    }

    /// Asserts that an owner's stake says what the holders say.
    pub(crate) fn audit_stake(&self, slot: u32) {
        let stake = &self.stakes[slot];
        assert!(self.locks[stake.lock].has(Lock::STAKED), "the lock has stakes");
        assert_eq!(self.stake(stake.lock, stake.session, stake.owner), Some(slot), "a stake is filed");
        let mut held = [0; 6];
        let mut last = NONE;
        let own = list::walk(&self.grants, stake.grants.head, |grant| grant.sibling);
        for grant in own.take(stake.count as usize) {
            let record = &self.grants[grant];
            let of = (record.lock, record.session(), self.owner(grant));
            assert_eq!(of, (stake.lock, stake.session, stake.owner), "an owner's grants stand together");
            held[record.mode() as usize] += 1;
            last = grant;
        }
        assert_eq!((held, last), (stake.held, stake.grants.tail), "what the owner holds");
        assert_eq!(held.iter().sum::<u32>(), stake.count, "how much the owner holds");
    }
}

/// A moment in the units of a grant's age, rounded up: an age is never over-stated.
#[expect(clippy::cast_possible_truncation, reason = "compared modulo 2³²")]
pub(crate) const fn since_units(now: Tick) -> u32 {
    now.0.div_ceil(SINCE_NS) as u32
}

/// The moment that [`since_units`] stands for, when `near` is less than a year from it.
#[expect(clippy::cast_possible_wrap, reason = "a difference modulo 2³², either way")]
pub(crate) fn since_tick(units: u32, near: Tick) -> Tick {
    let base = near.0 / SINCE_NS;
    let distance = i64::from(units.wrapping_sub(since_units(Tick(base * SINCE_NS))) as i32);
    Tick(base.saturating_add_signed(distance) * SINCE_NS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_coarse_age_reads_back_from_before_and_after() {
        for now in [Tick(0), Tick(1), Tick::from_millis(16), Tick::from_millis(1 << 37)] {
            for near in [Tick(0), now, now.after_millis(10_000)] {
                if now.0.abs_diff(near.0) < 365 * 86_400 * 1_000_000_000 {
                    let back = since_tick(since_units(now), near);
                    assert!(back >= now && back.0 - now.0 < SINCE_NS, "{now:?} near {near:?}: {back:?}");
                }
            }
        }
    }
}
