//! Queues that are not strict: who of W is next, who may be let in before those who wait, and how often.
//!
//! Under `phase` W is served in order, and readers may join readers who hold. Under `priority` W goes by class, which
//! rises with age; the first of each class stands in a list of its own, so the choice costs the same however many wait.
//!
//! How often a waiter was passed is exact and costs nothing that grows. Whoever is let in before others leaves one mark
//! with the neighbour it stood behind, and with that all the marks that were left with itself. A waiter was so
//! passed as often as there are marks from its own place on; the oldest, which was passed most, by all of them.
//! A lock of a strict namespace has neither [`Turn`]s nor a [`Rota`].

use crate::chunks::NONE;
use crate::list::{self, Ends, Link};
use crate::record::{Crowd, Lock, Waiter};
use crate::rules::Rules;
use crate::slab::Record;
use crate::table::Table;
use fairlock_protocol::limits::{INHERITANCE_HEIRS_MAX, INHERITANCE_STEPS_MAX, PRIORITY_CLASSES};
use fairlock_protocol::{Mode, Priority, Tick};

/// What is to be known of a waiter in W beyond a strict queue.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Turn {
    /// `NONE` for a vacant record.
    pub(crate) waiter: u32,
    /// How many were let in that stood behind it and before the next of W (behind the last: all that came later).
    pub(crate) behind: u32,
    /// Place in the order of W.
    pub(crate) number: u64,
    /// Among those who asked in the same class.
    pub(crate) rank: Link,
    /// Among the heirs.
    pub(crate) heir: Link,
    /// Its owner holds locks of `priority` namespaces, so it may inherit a class.
    pub(crate) inherits: bool,
}

/// The side record of a wait queue that is not strict and not empty.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rota {
    /// `NONE` for a vacant record.
    pub(crate) lock: u32,
    /// How often the oldest of W was passed: the sum of what is marked as let in behind somebody.
    pub(crate) passed: u32,
    /// W by the class asked for, each in order; under `priority` alone.
    pub(crate) classes: [Ends; PRIORITY_CLASSES as usize],
    /// Those of W that may inherit a class.
    pub(crate) heirs: Ends,
}

/// Who asks for a lock, as far as a queue wants to know.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Newcomer {
    pub(crate) session: u32,
    pub(crate) owner: u64,
    pub(crate) mode: Mode,
    pub(crate) priority: Priority,
}

impl Record for Turn {
    fn vacant(next: u32) -> Turn {
        let (rank, heir) = (Link { prev: NONE, next }, Link::NONE);
        Turn { waiter: NONE, behind: 0, number: 0, rank, heir, inherits: false }
    }

    fn next_vacant(&self) -> Option<u32> {
        (self.waiter == NONE).then_some(self.rank.next)
    }
}

impl Rota {
    pub(crate) const fn new(lock: u32) -> Rota {
        Rota { lock, passed: 0, classes: [Ends::EMPTY; PRIORITY_CLASSES as usize], heirs: Ends::EMPTY }
    }
}

impl Record for Rota {
    fn vacant(next: u32) -> Rota {
        Rota { passed: next, ..Rota::new(NONE) }
    }

    fn next_vacant(&self) -> Option<u32> {
        (self.lock == NONE).then_some(self.passed)
    }
}

impl Crowd {
    /// Whether readers hold the lock, and nobody but readers (who holds NL holds nothing back).
    fn is_read(&self) -> bool {
        let held = |mode: Mode| self.held[mode as usize] > 0;
        let written = Mode::ALL.into_iter().any(|mode| mode.writes() && held(mode));
        !written && (held(Mode::CR) || held(Mode::PR))
    }
}

impl Table {
    /// The rules of a lock's namespace.
    pub(crate) fn rules(&self, lock: u32) -> Rules {
        self.namespaces.rules(self.locks[lock].namespace)
    }

    /// The slot of a waiter's turn; only in W, and only where the queue is not strict.
    pub(crate) fn turn_slot(&self, waiter: u32) -> u32 {
        u32::try_from(self.waiters[waiter].number).expect("under a discipline the number is a slot")
    }

    /// A waiter takes its turn: the last in W.
    #[cold]
    pub(crate) fn begin_turn(&mut self, slot: u32) {
        let Waiter { lock, session, owner, priority, number, .. } = self.waiters[slot];
        let (rank, heir) = (Link::NONE, Link::NONE);
        let turn = self.turns.insert(Turn { waiter: slot, behind: 0, number, rank, heir, inherits: false });
        self.waiters[slot].number = u64::from(turn);
        let crowd = self.locks[lock].crowd;
        if self.crowds[crowd].rota == NONE {
            self.crowds[crowd].rota = self.rotas.insert(Rota::new(lock));
        }
        if self.locks[lock].has(Lock::PRIORITY) {
            let rota = &mut self.rotas[self.crowds[crowd].rota];
            let ends = &mut rota.classes[usize::from(priority.get())];
            list::push_back(&mut self.turns, ends, turn, |turn| &mut turn.rank);
            let inherits = self.holds_ranked(session, owner.0);
            self.set_heir(slot, inherits);
        }
    }

    /// A waiter is about to leave W, for whatever reason; marks that were left with it go to the one before it.
    #[cold]
    pub(crate) fn end_turn(&mut self, slot: u32) {
        let Waiter { lock, priority, queue, .. } = self.waiters[slot];
        let (turn, crowd) = (self.turn_slot(slot), self.locks[lock].crowd);
        let rota = self.crowds[crowd].rota;
        if self.locks[lock].has(Lock::PRIORITY) {
            self.set_heir(slot, false);
            let ends = &mut self.rotas[rota].classes[usize::from(priority.get())];
            list::unlink(&mut self.turns, ends, turn, |turn| &mut turn.rank);
        }
        let behind = self.turns.remove(turn).behind;
        if queue.prev == NONE {
            self.rotas[rota].passed -= behind;
        } else {
            let before = self.turn_slot(queue.prev);
            self.turns[before].behind += behind;
        }
        if queue == Link::NONE {
            assert_eq!(self.rotas[rota].passed, 0, "who is alone was all that was passed");
            self.rotas.remove(rota);
            self.crowds[crowd].rota = NONE;
        }
    }

    /// A newcomer is let in before all of W. In a strict queue that is a violation; elsewhere it is one when somebody
    /// is passed once too often.
    #[cold]
    pub(crate) fn pass_all(&mut self, lock: u32) {
        if !self.locks[lock].has(Lock::DISCIPLINED) {
            self.counts.overtakes_total += 1;
            return;
        }
        let last = self.crowds[self.locks[lock].crowd].waits.tail;
        self.mark_passed(lock, last);
    }

    /// A waiter is let in, perhaps before others of W.
    #[cold]
    pub(crate) fn pass_earlier(&mut self, slot: u32) {
        let Waiter { lock, queue, converts, .. } = self.waiters[slot];
        if !converts && queue.prev != NONE {
            self.mark_passed(lock, queue.prev);
        }
    }

    /// Marks that somebody who stood behind `nearest` is let in before it and all who came before it.
    fn mark_passed(&mut self, lock: u32, nearest: u32) {
        let budget = self.rules(lock).bypass_budget;
        let (turn, crowd) = (self.turn_slot(nearest), self.locks[lock].crowd);
        self.turns[turn].behind += 1;
        let rota = &mut self.rotas[self.crowds[crowd].rota];
        rota.passed += 1;
        if rota.passed > budget {
            self.counts.overtakes_total += 1;
        } else {
            self.counts.bypasses_total += 1;
        }
    }

    /// Whether a newcomer that goes with all holders may be let in although others wait. Nobody passes a conversion, and
    /// nobody passes who was passed as often as may be.
    #[inline]
    pub(crate) fn may_pass(&self, now: Tick, lock: u32, newcomer: &Newcomer) -> bool {
        self.locks[lock].has(Lock::DISCIPLINED) && self.may_pass_waits(now, lock, newcomer)
    }

    #[cold]
    fn may_pass_waits(&self, now: Tick, lock: u32, newcomer: &Newcomer) -> bool {
        let crowd = &self.crowds[self.locks[lock].crowd];
        if !crowd.conversions.is_empty() || self.is_spent(lock) {
            return false;
        }
        if !self.locks[lock].has(Lock::PRIORITY) {
            return matches!(newcomer.mode, Mode::CR | Mode::PR) && crowd.is_read();
        }
        let mut steps = INHERITANCE_STEPS_MAX;
        let inherited = self.inherited(now, newcomer.session, newcomer.owner, &mut steps);
        self.foremost(now, lock).is_none_or(|(class, _)| newcomer.priority.max(inherited) > class)
    }

    /// Whether the oldest of W was passed as often as may be: then it is next, and nobody is let in before it.
    fn is_spent(&self, lock: u32) -> bool {
        let rota = self.crowds[self.locks[lock].crowd].rota;
        rota != NONE && self.rotas[rota].passed >= self.rules(lock).bypass_budget
    }

    /// The first of W in the order of service; `NONE` when W is empty.
    #[inline]
    pub(crate) fn next_of_waits(&self, now: Tick, lock: u32) -> u32 {
        if self.locks[lock].has(Lock::PRIORITY) {
            return self.next_by_class(now, lock);
        }
        self.crowds[self.locks[lock].crowd].waits.head
    }

    #[cold]
    fn next_by_class(&self, now: Tick, lock: u32) -> u32 {
        let head = self.crowds[self.locks[lock].crowd].waits.head;
        if head == NONE || self.is_spent(lock) {
            return head;
        }
        self.foremost(now, lock).map_or(NONE, |(_, waiter)| waiter)
    }

    /// The oldest of the highest class of W, and that class.
    fn foremost(&self, now: Tick, lock: u32) -> Option<(Priority, u32)> {
        let rota = &self.rotas[self.crowds[self.locks[lock].crowd].rota];
        let mut steps = INHERITANCE_STEPS_MAX;
        let firsts = rota.classes.iter().map(|ends| ends.head).filter(|&turn| turn != NONE);
        let own = firsts.map(|turn| (self.aged(now, self.turns[turn].waiter), turn));
        let heirs = list::walk(&self.turns, rota.heirs.head, |turn| turn.heir).take(INHERITANCE_HEIRS_MAX);
        let raised = heirs.map(|turn| (self.class_of(now, self.turns[turn].waiter, &mut steps), turn));
        let best = own.chain(raised).max_by_key(|&(class, turn)| (class, !self.turns[turn].number))?;
        Some((best.0, self.turns[best.1].waiter))
    }

    /// The class of a waiter by what it asked for and its age.
    pub(crate) fn aged(&self, now: Tick, waiter: u32) -> Priority {
        let Waiter { lock, priority, since, .. } = self.waiters[waiter];
        priority.raised(self.rules(lock).risen(now.since(since)))
    }

    /// The class of a waiter by now: its own, or one that it inherits.
    pub(crate) fn class_of(&self, now: Tick, waiter: u32, steps: &mut u32) -> Priority {
        let own = self.aged(now, waiter);
        if !self.turns[self.turn_slot(waiter)].inherits {
            return own;
        }
        let Waiter { session, owner, .. } = self.waiters[waiter];
        own.max(self.inherited(now, session, owner.0, steps))
    }

    /// Asserts what the side records of a queue that is not strict say.
    pub(crate) fn audit_turns(&self, lock: u32, crowd: &Crowd) {
        assert_eq!(crowd.rota == NONE, crowd.waits.is_empty(), "a queue that is not empty has a rota");
        if crowd.rota == NONE {
            return;
        }
        let (rota, ranked) = (&self.rotas[crowd.rota], self.locks[lock].has(Lock::PRIORITY));
        assert_eq!(rota.lock, lock, "a rota knows its lock");
        assert!(rota.passed <= self.rules(lock).bypass_budget, "nobody is passed more often than may be");
        let (mut passed, mut last, mut heirs) = (0, 0, 0);
        for slot in list::walk(&self.waiters, crowd.waits.head, |waiter| waiter.queue) {
            let turn = &self.turns[self.turn_slot(slot)];
            assert_eq!(turn.waiter, slot, "a turn knows its waiter");
            assert!(turn.number > last && turn.number < crowd.enqueued, "W is in order");
            last = turn.number;
            passed += turn.behind;
            heirs += u32::from(turn.inherits);
        }
        assert_eq!(passed, rota.passed, "how often the oldest was passed");
        assert_eq!(list::audit(&self.turns, rota.heirs, |turn| turn.heir), heirs, "heirs are listed");
        let mut listed = 0;
        for (class, &ends) in (0..PRIORITY_CLASSES).zip(&rota.classes) {
            listed += list::audit(&self.turns, ends, |turn| turn.rank);
            let mut last = 0;
            for turn in list::walk(&self.turns, ends.head, |turn| turn.rank) {
                let turn = &self.turns[turn];
                assert_eq!(self.waiters[turn.waiter].priority.get(), class, "listed by class");
                assert!(turn.number > last, "a class is in order");
                last = turn.number;
            }
        }
        assert_eq!(listed, if ranked { crowd.waiting.iter().sum() } else { 0 }, "everybody has a class");
    }
}
