//! The queues of a lock: C for conversions, W for everybody else, both strictly first in, first out. (A namespace may
//! be told otherwise for W: `turns.rs`.)
//!
//! [`Table::settle`] is what every release, down-conversion, cancel and end comes to: C is served from its head
//! while the head goes with the rest of the holders, then, only when C is empty, W the same way. It stops at the
//! first that must wait on, so it costs what it grants. Compatible neighbours are granted in one batch.

use crate::chunks::NONE;
use crate::command::Wait;
use crate::effect::{Answer, Effects};
use crate::list;
use crate::record::{Lock, Waiter};
use crate::seat::Seat;
use crate::slab::Record;
use crate::table::{Generations, Table};
use crate::wheel::Alarm;
use fairlock_protocol::{RequestId, Tick};

impl Table {
    /// Puts a request at the end of its queue. Number, generation and links are given here.
    pub(crate) fn enqueue(&mut self, now: Tick, mut waiter: Waiter, until: Option<Tick>) {
        let (lock, session) = (waiter.lock, waiter.session);
        let crowd = self.crowd(lock);
        waiter.generation = Generations::next(&mut self.generations.waiter);
        waiter.since = now;
        let Waiter { request, mode, converts, grant, .. } = waiter;
        if !converts {
            waiter.number = self.crowds[crowd].enqueued;
            self.crowds[crowd].enqueued += 1;
        }
        let slot = self.waiters.insert(waiter);
        if !converts && self.locks[lock].has(Lock::DISCIPLINED) {
            self.begin_turn(slot);
        }
        if let Some(until) = until {
            self.waiters[slot].timer = self.wheel.arm(until, Alarm::Wait(slot));
        }
        self.pending.insert(self.key.hash(u64::from(session), request.0), slot);
        let crowd = &mut self.crowds[crowd];
        let (ends, asked) = if converts {
            (&mut crowd.conversions, &mut crowd.converting)
        } else {
            (&mut crowd.waits, &mut crowd.waiting)
        };
        asked[mode as usize] += 1;
        list::push_back(&mut self.waiters, ends, slot, |waiter| &mut waiter.queue);
        let ends = &mut self.sessions[session].waits;
        list::push_back(&mut self.waiters, ends, slot, |waiter| &mut waiter.sibling);
        self.sessions[session].wait_count += 1;
        if grant != NONE {
            let extra = self.ensure_extra(grant);
            assert_eq!(self.extras[extra].conversion, NONE, "a grant has one conversion at a time");
            self.extras[extra].conversion = slot;
        }
        self.counts.conversions += u32::from(converts);
        self.counts.waits_total += 1;
    }

    /// When a wait that begins now ends by itself.
    pub(crate) fn end_of_wait(now: Tick, wait: Wait) -> Option<Tick> {
        match wait {
            Wait::Millis(ms) => Some(now.after_millis(ms.max(1))),
            Wait::Try | Wait::Forever => None,
        }
    }

    /// Takes a waiter out of everything. Its label is the caller's now; the lock is not scanned.
    pub(crate) fn dequeue(&mut self, slot: u32) -> Waiter {
        let Waiter { lock, session, request, timer, grant, mode, converts, .. } = self.waiters[slot];
        if !converts && self.locks[lock].has(Lock::DISCIPLINED) {
            self.end_turn(slot);
        }
        let crowd_slot = self.locks[lock].crowd;
        let crowd = &mut self.crowds[crowd_slot];
        let (ends, asked) = if converts {
            (&mut crowd.conversions, &mut crowd.converting)
        } else {
            (&mut crowd.waits, &mut crowd.waiting)
        };
        asked[mode as usize] -= 1;
        list::unlink(&mut self.waiters, ends, slot, |waiter| &mut waiter.queue);
        let ends = &mut self.sessions[session].waits;
        list::unlink(&mut self.waiters, ends, slot, |waiter| &mut waiter.sibling);
        self.sessions[session].wait_count -= 1;
        self.pending.remove(self.key.hash(u64::from(session), request.0), slot);
        if timer != NONE {
            self.wheel.disarm(timer);
        }
        if grant != NONE {
            let extra = self.extra_slot(grant);
            assert_eq!(self.extras[extra].conversion, slot, "a conversion and its grant know each other");
            self.extras[extra].conversion = NONE;
        }
        self.counts.conversions -= u32::from(converts);
        self.quieten(crowd_slot, mode);
        self.waiters.remove(slot)
    }

    /// Ends a wait without a grant, and the whole of a bundle. The lock is not scanned; those that a bundle held are
    /// noted for it.
    pub(crate) fn turn_away(&mut self, slot: u32, answer: Answer, effects: &mut Effects) -> u32 {
        let waiter = self.dequeue(slot);
        self.names.remove(waiter.label);
        if waiter.bundle != NONE {
            self.give_up(waiter.bundle);
        }
        self.answer(waiter.session, waiter.request, answer, effects);
        waiter.lock
    }

    /// The waiter with this request number.
    pub(crate) fn pending_slot(&self, session: u32, request: RequestId) -> Option<u32> {
        let is = |slot: u32| self.waiters[slot].session == session && self.waiters[slot].request == request;
        self.pending.find(self.key.hash(u64::from(session), request.0), is)
    }

    /// Notes a lock for a scan at the end of the command.
    pub(crate) fn touch(&mut self, lock: u32) {
        if !self.locks[lock].has(Lock::TOUCHED) {
            self.locks[lock].flags |= Lock::TOUCHED;
            self.touched.push(lock);
        }
    }

    /// Scans every lock noted, in the order they were noted.
    pub(crate) fn settle_touched(&mut self, now: Tick, effects: &mut Effects) {
        let mut touched = core::mem::take(&mut self.touched);
        for &lock in &touched {
            self.locks[lock].flags &= !Lock::TOUCHED;
            self.settle(now, lock, effects);
        }
        touched.clear();
        if touched.capacity() > 4096 {
            touched.shrink_to(4096);
        }
        self.touched = touched;
    }

    /// Grants what can be granted, tells whom somebody waits for, forgets what need not be remembered.
    pub(crate) fn settle(&mut self, now: Tick, lock: u32, effects: &mut Effects) {
        if self.locks[lock].crowd != NONE {
            self.serve(now, lock, effects);
            self.tell_blocking(lock, effects);
        }
        self.trim_lock(lock);
    }

    /// Somebody has joined a queue: holders hear of it. Where classes rise with age, the order of W may have changed
    /// since it was looked at last, and the newcomer is looked at as one of them.
    pub(crate) fn attend(&mut self, now: Tick, lock: u32, effects: &mut Effects) {
        if self.locks[lock].has(Lock::PRIORITY) {
            self.settle(now, lock, effects);
        } else {
            self.tell_blocking(lock, effects);
        }
    }

    /// Serves C, and when that is empty W, up to the first that must wait on.
    fn serve(&mut self, now: Tick, lock: u32, effects: &mut Effects) {
        let died = self.locks[lock].has(Lock::DIED);
        let mut batch = 0;
        loop {
            let conversion = self.crowds[self.locks[lock].crowd].conversions.head;
            let next = if conversion == NONE { self.next_of_waits(now, lock) } else { conversion };
            if next == NONE || !self.passes(next) {
                break;
            }
            self.let_in(now, next, died, effects);
            batch += 1;
        }
        if batch > 0 {
            self.locks[lock].flags &= !Lock::DIED;
        }
    }

    /// Whether the head of a queue may be granted now.
    fn passes(&self, slot: u32) -> bool {
        let waiter = &self.waiters[slot];
        let without = (waiter.grant != NONE).then_some(waiter.grant);
        self.held_mask(waiter.lock, without).admits(waiter.mode)
            && !self.is_kept_out(waiter.lock, waiter.session)
            && self.has_tokens()
    }

    /// Grants what a waiter waits for.
    fn let_in(&mut self, now: Tick, slot: u32, died: bool, effects: &mut Effects) {
        let is_strict = !self.locks[self.waiters[slot].lock].has(Lock::DISCIPLINED);
        if !is_strict {
            self.pass_earlier(slot);
        }
        let waiter = self.dequeue(slot);
        let waited_us = u64::try_from(now.since(waiter.since).as_micros()).unwrap_or(u64::MAX);
        if is_strict && !waiter.converts {
            let crowd = &mut self.crowds[self.locks[waiter.lock].crowd];
            self.counts.overtakes_total += u64::from(waiter.number < crowd.served);
            crowd.served = crowd.served.max(waiter.number);
        }
        let answer = if waiter.grant == NONE {
            let seat = Seat {
                lock: waiter.lock,
                session: waiter.session,
                owner: waiter.owner.0,
                mode: waiter.mode,
                notify: waiter.notify,
                lock_delay_ms: waiter.lock_delay_ms,
                max_hold_ms: waiter.max_hold_ms,
                label: waiter.label,
            };
            let grant = self.seat(now, &seat);
            if waiter.bundle != NONE {
                return self.let_bundle_in(waiter.bundle, grant, died);
            }
            Answer::Granted(self.granted(grant, waited_us, died))
        } else {
            self.reseat(waiter.grant, waiter.mode, true);
            Answer::Converted(self.granted(waiter.grant, waited_us, died))
        };
        self.answer(waiter.session, waiter.request, answer, effects);
    }

    /// A record of a waiter, to be completed by the caller.
    pub(crate) fn blank_waiter() -> Waiter {
        Waiter::vacant(NONE)
    }
}
