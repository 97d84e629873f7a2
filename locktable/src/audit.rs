//! The table checked against itself, and boiled down to a number.
//!
//! [`Table::audit`] recounts every invariant from the records alone and asserts it. [`Table::digest`] sums up what
//! every node that carried out the same commands must have in common: what renewals move, private keys and the places
//! of timers are left out, slot numbers that effects show are in.

use crate::chunks::NONE;
use crate::effect::Answer;
use crate::index::IndexKey;
use crate::list;
use crate::record::{Crowd, Grant, Lock, Notify};
use crate::table::Table;
use crate::wheel::Alarm;
use fairlock_protocol::Mode;

impl Table {
    /// Recounts every invariant of the table and asserts it. Takes time in proportion to the table.
    ///
    /// # Panics
    /// When an invariant does not hold: the table is wrong then, whatever the commands were.
    pub fn audit(&self) {
        self.locks.audit();
        self.grants.audit();
        self.extras.audit();
        self.crowds.audit();
        self.waiters.audit();
        self.turns.audit();
        self.rotas.audit();
        self.stakes.audit();
        self.bundles.audit();
        self.sessions.audit();
        self.wheel.audit();
        self.marks.audit(self.key);
        for index in [&self.by_digest, &self.pending, &self.by_stake, &self.by_id, &self.by_identity] {
            index.audit();
        }
        assert!(self.touched.is_empty(), "no scan is left undone");
        assert!(self.advancing.is_empty(), "no bundle is left where it could go on");
        let (mut holders, mut crowds) = (0, 0);
        for lock in self.locks.slots() {
            holders += self.audit_lock(lock);
            crowds += u32::from(self.locks[lock].crowd != NONE);
        }
        assert_eq!(holders, self.grants.len(), "every grant is among the holders of a lock");
        assert_eq!(crowds, self.crowds.len(), "every crowd is a lock's");
        assert_eq!(self.by_digest.len(), self.locks.len() as usize, "every lock is filed");
        assert_eq!(u64::from(self.locks.len()), self.namespaces.uses(), "every lock has a namespace");
        self.audit_waiters();
        self.audit_bundles();
        let (mut grants, mut waits) = (0, 0);
        for session in self.sessions.slots() {
            self.audit_session(session);
            grants += self.sessions[session].grant_count;
            waits += self.sessions[session].wait_count;
        }
        assert_eq!(
            (grants, waits),
            (self.grants.len(), self.waiters.len()),
            "everything belongs to a session"
        );
        assert_eq!(self.by_id.len(), self.sessions.len() as usize, "every session is filed");
        let extras = self.grants.slots().filter(|&grant| self.grants[grant].has(Grant::EXTRA)).count();
        assert_eq!(extras, self.extras.len() as usize, "every side record is a grant's");
        for stake in self.stakes.slots() {
            self.audit_stake(stake);
        }
        assert_eq!(self.by_stake.len(), self.stakes.len() as usize, "every stake is filed");
        self.audit_timers();
        self.audit_names();
        assert_eq!(self.counts.overtakes_total, 0, "nobody was overtaken");
    }

    /// Asserts what one lock's records say; gives the number of holders.
    fn audit_lock(&self, lock: u32) -> u32 {
        let record = &self.locks[lock];
        assert_eq!(self.lock_slot(record.digest), Some(lock), "a lock is found by its digest");
        assert!(!record.has(Lock::TOUCHED), "no scan is left undone");
        assert!(record.head != NONE || record.crowd != NONE, "a free lock has no record");
        let count = list::audit(&self.grants, self.holder_ends(lock), |grant| grant.beside);
        let mut held = [0_u32; 6];
        let (mut oldest_reader, mut newest) = (u64::MAX, 0);
        for slot in self.holders(lock) {
            let grant = &self.grants[slot];
            assert_eq!(grant.lock, lock, "a holder knows its lock");
            assert_eq!(grant.token == 0, grant.mode() == Mode::NL, "every grant but NL has a token");
            newest = newest.max(grant.token);
            held[grant.mode() as usize] += 1;
            if grant.mode() == Mode::PR {
                oldest_reader = oldest_reader.min(grant.token);
            }
            if grant.has(Grant::EXTRA) {
                assert_eq!(self.extra(slot).grant, slot, "a side record knows its grant");
            }
        }
        for a in Mode::ALL.into_iter().filter(|&a| held[a as usize] > 0) {
            for b in Mode::ALL.into_iter().filter(|&b| held[b as usize] > u32::from(a == b)) {
                assert!(a.compatible(b), "{a} and {b} do not stand beside each other");
            }
        }
        match self.crowd_of(lock) {
            None => {
                assert!(count == 1 && !record.has(Lock::STAKED), "a lock without a crowd has one holder");
            }
            Some(crowd) => {
                assert_eq!((crowd.lock, crowd.holders, crowd.held), (lock, count, held), "holders by mode");
                assert_eq!(crowd.run_first == 0, held[Mode::PR as usize] == 0, "readers have a run");
                assert!(crowd.run_first <= oldest_reader && crowd.run_first <= newest.max(crowd.run_first));
                self.audit_crowd(lock, crowd);
            }
        }
        count
    }

    /// Asserts what a lock's queues say.
    fn audit_crowd(&self, lock: u32, crowd: &Crowd) {
        let disciplined = self.locks[lock].has(Lock::DISCIPLINED);
        list::audit(&self.waiters, crowd.conversions, |waiter| waiter.queue);
        list::audit(&self.waiters, crowd.waits, |waiter| waiter.queue);
        for (ends, asked, converts) in
            [(crowd.conversions, crowd.converting, true), (crowd.waits, crowd.waiting, false)]
        {
            let mut counted = [0_u32; 6];
            let mut last = 0;
            for slot in list::walk(&self.waiters, ends.head, |waiter| waiter.queue) {
                let waiter = &self.waiters[slot];
                assert_eq!((waiter.lock, waiter.converts), (lock, converts), "a waiter knows its queue");
                counted[waiter.mode as usize] += 1;
                if !converts && !disciplined {
                    assert!(waiter.number > last && waiter.number < crowd.enqueued, "W is in order");
                    assert!(waiter.number > crowd.served, "nobody who came later was served");
                    last = waiter.number;
                }
            }
            assert_eq!(counted, asked, "entries by mode asked for");
        }
        if disciplined {
            self.audit_turns(lock, crowd);
        }
        let conversion = crowd.conversions.head;
        let head = if conversion == NONE { crowd.waits.head } else { conversion };
        // An order that goes by class and age is as of the moment when the lock was looked at last.
        let in_order = conversion != NONE || !self.locks[lock].has(Lock::PRIORITY);
        if head != NONE && in_order && self.has_tokens() {
            let waiter = &self.waiters[head];
            let without = (waiter.grant != NONE).then_some(waiter.grant);
            let goes = self.held_mask(lock, without).admits(waiter.mode);
            assert!(!goes || self.is_kept_out(lock, waiter.session), "who is next must really wait");
        }
        let mut listed = 0;
        for (mode, &ends) in Mode::ALL.into_iter().zip(&crowd.quiet) {
            list::audit(&self.extras, ends, |extra| extra.notice);
            for extra in list::walk(&self.extras, ends.head, |extra| extra.notice) {
                let extra = &self.extras[extra];
                let grant = &self.grants[extra.grant];
                assert_eq!((grant.lock, grant.mode(), extra.notify), (lock, mode, Notify::Quiet));
                let own = extra.conversion != NONE && !self.waiters[extra.conversion].mode.compatible(mode);
                assert_eq!(crowd.blocked_by(mode), u32::from(own), "who blocks somebody was told");
                listed += 1;
            }
        }
        for (mode, &ends) in Mode::ALL.into_iter().zip(&crowd.told) {
            list::audit(&self.extras, ends, |extra| extra.notice);
            for extra in list::walk(&self.extras, ends.head, |extra| extra.notice) {
                let extra = &self.extras[extra];
                assert_eq!((self.grants[extra.grant].mode(), extra.notify), (mode, Notify::Told));
                assert!(crowd.blocked_by(mode) > 0, "who blocks nobody any more is told again next time");
                listed += 1;
            }
        }
        let wants =
            |&grant: &u32| self.grants[grant].has(Grant::EXTRA) && self.extra(grant).notify != Notify::Off;
        assert_eq!(self.holders(lock).filter(wants).count(), listed, "who wants notices is listed");
        if self.locks[lock].has(Lock::STAKED) {
            let filed =
                |grant: u32| self.stake(lock, self.grants[grant].session(), self.owner(grant)).is_some();
            assert!(self.holders(lock).all(filed), "every holder has a stake");
        }
        if let Some(closed) = &crowd.closed {
            assert_eq!(self.wheel.alarm(closed.timer), Alarm::Delay(lock), "a delay ends");
        }
    }

    fn audit_waiters(&self) {
        assert_eq!(self.pending.len(), self.waiters.len() as usize, "every waiter is filed");
        let mut conversions = 0;
        for slot in self.waiters.slots() {
            let waiter = &self.waiters[slot];
            assert_eq!(self.pending_slot(waiter.session, waiter.request), Some(slot), "a waiter is found");
            assert!(self.sessions.get(waiter.session).is_some(), "nobody waits for an ended session");
            conversions += u32::from(waiter.converts);
            if waiter.grant != NONE {
                let grant = &self.grants[waiter.grant];
                assert_eq!((grant.lock, grant.session()), (waiter.lock, waiter.session), "a holder converts");
                assert_eq!(self.extra(waiter.grant).conversion, slot, "a grant knows its conversion");
                assert_eq!(waiter.converts, grant.mode() != Mode::NL, "from NL one waits in W");
                assert!(!grant.mode().covers(waiter.mode), "only up-conversions wait");
            }
            if waiter.timer != NONE {
                assert_eq!(self.wheel.alarm(waiter.timer), Alarm::Wait(slot), "a wait ends");
            }
        }
        assert_eq!(conversions, self.counts.conversions, "conversions that wait");
        let turns = |&slot: &u32| {
            let waiter = &self.waiters[slot];
            !waiter.converts && self.locks[waiter.lock].has(Lock::DISCIPLINED)
        };
        assert_eq!(self.waiters.slots().filter(turns).count(), self.turns.len() as usize, "a turn each");
        let rotas = self.crowds.slots().filter(|&slot| self.crowds[slot].rota != NONE).count();
        assert_eq!(rotas, self.rotas.len() as usize, "every rota is a queue's");
    }

    fn audit_bundles(&self) {
        let expected: u32 = self.sessions.slots().map(|slot| self.sessions[slot].wait_answers).sum();
        let beyond_one: usize = self.bundles.slots().map(|slot| self.bundles[slot].wanted.len() - 1).sum();
        assert_eq!(expected as usize, beyond_one, "answers that bundles may give");
        let taken: usize = self.bundles.slots().map(|slot| self.audit_bundle(slot)).sum();
        let partial = |&grant: &u32| self.grants[grant].has(Grant::PARTIAL);
        assert_eq!(self.grants.slots().filter(partial).count(), taken, "every partial holder is a bundle's");
        let heir = |&grant: &u32| self.grants[grant].has(Grant::HEIR) && !partial(&grant);
        assert_eq!(self.grants.slots().find(heir), None, "who was told of a death was told");
        let waits = self.waiters.slots().filter(|&slot| self.waiters[slot].bundle != NONE).count();
        assert_eq!(waits, self.bundles.len() as usize, "every bundle waits in one place");
    }

    fn audit_timers(&self) {
        for (timer, alarm) in self.wheel.alarms() {
            let owner = match alarm {
                Alarm::Wait(slot) => self.waiters[slot].timer,
                Alarm::Hold(slot) => self.extra(slot).hold_timer,
                Alarm::Delay(lock) => self
                    .crowd_of(lock)
                    .and_then(|crowd| crowd.closed.as_ref())
                    .map_or(NONE, |closed| closed.timer),
                Alarm::Lease(slot) => self.sessions[slot].lease_timer,
                Alarm::Confirm(slot) => self.sessions[slot].confirm_timer,
                Alarm::Broken(slot) => {
                    assert!(self.grants[slot].has(Grant::BROKEN), "only a broken grant is to be confirmed");
                    self.extra(slot).confirm_timer
                }
            };
            assert_eq!(owner, timer, "a timer is somebody's: {alarm:?}");
        }
        for slot in self.extras.slots() {
            let extra = &self.extras[slot];
            if extra.hold_timer != NONE {
                assert_eq!(self.wheel.alarm(extra.hold_timer), Alarm::Hold(extra.grant), "a hold ends");
            }
        }
    }

    fn audit_names(&self) {
        let labels = self.extras.slots().map(|slot| self.extras[slot].label);
        let labels = labels.chain(self.waiters.slots().map(|slot| self.waiters[slot].label));
        let labels = labels.filter(|label| !label.is_empty()).count();
        assert_eq!(labels + self.locks.len() as usize, self.names.len() as usize, "every name is somebody's");
    }

    /// A sum over everything that nodes which carried out the same commands have in common.
    ///
    /// Equal sums mean equal tables, but for an adversary who works at it: this finds mistakes, not attacks.
    pub fn digest(&self) -> u128 {
        let mut sum = Sum::default();
        sum.add(&[u64::from(self.epoch.get()), self.seq, u64::from(self.shard.0)]);
        let generations = self.generations;
        sum.add(&[generations.grant.into(), generations.waiter.into(), generations.session.into()]);
        for slot in self.sessions.slots() {
            self.sum_session(slot, &mut sum);
        }
        for slot in self.locks.slots() {
            self.sum_lock(slot, &mut sum);
        }
        sum.add(&[self.bundles_begun]);
        for slot in self.bundles.slots() {
            self.sum_bundle(slot, &mut sum);
        }
        for digest in self.marks.digests() {
            sum.add(&digest.0);
        }
        sum.total()
    }

    fn sum_session(&self, slot: u32, sum: &mut Sum) {
        let session = &self.sessions[slot];
        sum.add(&[slot.into(), session.generation.into(), session.id.get(), session.ttl_ms.into()]);
        let flags = [session.visiting, session.renewable, session.replaced, session.killed];
        sum.add(&flags.map(u64::from));
        sum.add(&[session.lease as u64, session.seen.0, session.kept_sent, session.acknowledged]);
        // Not the deadline: renewals move that, and only the primary knows of them.
        sum.add(&[session.granted.0, session.fresh.into()]);
        let about = &session.about;
        for text in [&about.identity, &about.reclaim_key, &about.host, &about.exe, &about.label] {
            sum.bytes(text);
        }
        sum.bytes(&session.secret.0.to_le_bytes());
        for &(request, answer) in &session.kept {
            sum.add(&[request.0]);
            sum.answer(answer);
        }
        for grant in list::walk(&self.grants, session.grants.head, |grant| grant.sibling) {
            sum.add(&[grant.into()]);
        }
        for waiter in list::walk(&self.waiters, session.waits.head, |waiter| waiter.sibling) {
            sum.add(&[waiter.into()]);
        }
    }

    fn sum_bundle(&self, slot: u32, sum: &mut Sum) {
        let bundle = &self.bundles[slot];
        sum.add(&[slot.into(), bundle.number, bundle.session.into(), bundle.request.0, bundle.owner.0]);
        sum.bytes(&bundle.label);
        for (digest, mode) in bundle.wanted.keys() {
            sum.add(&[digest.0[0], digest.0[1], mode as u64]);
        }
        for &grant in &bundle.taken {
            sum.add(&[grant.into()]);
        }
    }

    fn sum_lock(&self, slot: u32, sum: &mut Sum) {
        let lock = &self.locks[slot];
        sum.add(&[slot.into(), lock.digest.0[0], lock.digest.0[1], lock.flags.into()]);
        let resource = self.resource(slot);
        sum.bytes(resource.namespace.as_str().as_bytes());
        sum.bytes(resource.name.as_bytes());
        for slot in self.holders(slot) {
            let grant = &self.grants[slot];
            let flags = [Grant::BROKEN, Grant::PARTIAL, Grant::HEIR].map(|flag| u64::from(grant.has(flag)));
            sum.add(&[slot.into(), grant.generation.into(), grant.session().into(), grant.mode() as u64]);
            sum.add(&flags);
            sum.add(&[grant.token, self.owner(slot)]);
            if grant.has(Grant::EXTRA) {
                let extra = self.extra(slot);
                sum.add(&[extra.levels.into(), extra.lock_delay_ms.into(), extra.notify as u64]);
                sum.bytes(self.names.bytes(extra.label));
            }
        }
        let Some(crowd) = self.crowd_of(slot) else { return };
        sum.add(&[crowd.run_first, crowd.enqueued, crowd.served]);
        if let Some(closed) = &crowd.closed {
            sum.add(&[closed.until.0]);
            sum.bytes(&closed.identity);
            sum.bytes(&closed.reclaim_key);
        }
        for ends in [crowd.conversions, crowd.waits] {
            for slot in list::walk(&self.waiters, ends.head, |waiter| waiter.queue) {
                let waiter = &self.waiters[slot];
                sum.add(&[slot.into(), waiter.generation.into(), waiter.session.into(), waiter.request.0]);
                sum.add(&[waiter.mode as u64, waiter.owner.0, waiter.grant.into()]);
                if waiter.converts || !lock.has(Lock::DISCIPLINED) {
                    sum.add(&[waiter.number]);
                }
                if !waiter.converts && lock.has(Lock::DISCIPLINED) {
                    // By class and age one is chosen before another, so here the moment counts.
                    let turn = &self.turns[self.turn_slot(slot)];
                    let class = u64::from(waiter.priority.get());
                    sum.add(&[turn.number, turn.behind.into(), class, waiter.since.0, turn.inherits.into()]);
                }
                sum.add(&[waiter.lock_delay_ms.into(), waiter.max_hold_ms.into(), waiter.notify.into()]);
                sum.bytes(self.names.bytes(waiter.label));
            }
        }
    }
}

/// A running sum of 128 bits.
#[derive(Default)]
struct Sum(u64, u64);

impl Sum {
    fn add(&mut self, words: &[u64]) {
        for &word in words {
            self.0 = IndexKey::new(1).hash(self.0 ^ word, self.1.wrapping_add(1));
            self.1 = IndexKey::new(2).hash(self.1.wrapping_add(word), self.0);
        }
    }

    fn bytes(&mut self, bytes: &[u8]) {
        self.add(&[bytes.len() as u64]);
        for chunk in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            self.add(&[u64::from_le_bytes(word)]);
        }
    }

    /// An answer without how long it waited, which each node measures with its own clock.
    fn answer(&mut self, answer: Answer) {
        match answer {
            Answer::Granted(granted) | Answer::Converted(granted) => {
                let token = granted.token.map_or(0, fairlock_protocol::FencingToken::get);
                self.add(&[1, granted.grant.get(), token, granted.fence, granted.mode as u64]);
                self.add(&[granted.previous_owner_died.into(), granted.reentered.into()]);
            }
            Answer::Released { remaining } => self.add(&[2, remaining.into()]),
            Answer::Withdrawn { was_waiting } => self.add(&[3, was_waiting.into()]),
            Answer::Refused(refusal) => self.add(&[4, refusal.code().into()]),
            Answer::Deadlock { session, owner, mode } => self.add(&[5, session.get(), owner.0, mode as u64]),
        }
    }

    fn total(&self) -> u128 {
        u128::from(self.0) << 64 | u128::from(self.1)
    }
}
