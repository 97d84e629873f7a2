//! What happens when: a hierarchical timing wheel, four levels of 256 lists, one millisecond a step.
//!
//! Arming and disarming are constant time. Deadlines are rounded up and moments down, so nothing rings early. A
//! timer hangs in the level of the highest byte in which its deadline differs from the present; when time reaches
//! a slot of a higher level its timers move down. Time jumps from one filled slot to the next, so a long idle
//! stretch costs nothing. What lies beyond 2³² ms waits in a list of its own.

use crate::chunks::NONE;
use crate::list::{self, Ends, Link};
use crate::slab::{Record, Slab};
use alloc::boxed::Box;
use alloc::vec;
use fairlock_protocol::Tick;

const LEVELS: usize = 4;
const SLOTS: usize = 256;
/// The list of timers beyond the highest level.
const FAR: usize = LEVELS * SLOTS;
/// The list of timers whose time has come.
const RIPE: usize = FAR + 1;
const NS_PER_MS: u64 = 1_000_000;

/// Whose time it is, by slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Alarm {
    /// A waiter's wait ends.
    Wait(u32),
    /// A grant's longest hold ends.
    Hold(u32),
    /// A lock's delay ends.
    Delay(u32),
    /// A session's lease ends, unless it was renewed meanwhile.
    Lease(u32),
    /// A killed session should have ended by now.
    Confirm(u32),
    /// A broken grant should have been confirmed by now.
    Broken(u32),
}

/// One of them.
#[derive(Clone, Debug)]
pub(crate) struct Timer {
    due_ms: u64,
    alarm: Alarm,
    link: Link,
    /// Which list it is in; `VACANT` when the record is not in use.
    list: u16,
}

const VACANT: u16 = u16::MAX;

impl Record for Timer {
    fn vacant(next: u32) -> Timer {
        Timer { due_ms: 0, alarm: Alarm::Wait(NONE), link: Link { prev: NONE, next }, list: VACANT }
    }

    fn next_vacant(&self) -> Option<u32> {
        (self.list == VACANT).then_some(self.link.next)
    }
}

/// All timers of a table.
#[derive(Debug)]
pub(crate) struct Wheel {
    now_ms: u64,
    timers: Slab<Timer, 8>,
    lists: Box<[Ends]>,
    /// Which lists of each level are not empty.
    filled: [[u64; SLOTS / 64]; LEVELS],
}

impl Wheel {
    pub(crate) fn new() -> Wheel {
        let lists = vec![Ends::EMPTY; RIPE + 1].into_boxed_slice();
        Wheel { now_ms: 0, timers: Slab::new(), lists, filled: [[0; SLOTS / 64]; LEVELS] }
    }

    /// An empty wheel that has come this far.
    pub(crate) fn at(now_ms: u64) -> Wheel {
        Wheel { now_ms, ..Wheel::new() }
    }

    /// When a timer rang, in milliseconds, as keeping began; `None` for no timer.
    pub(crate) fn due_ms_as_it_was(&self, timer: u32) -> Option<u64> {
        (timer != NONE).then(|| self.timers.as_it_was(timer).due_ms)
    }

    /// The timers, for a snapshot to keep what they are.
    pub(crate) const fn timers_mut(&mut self) -> &mut Slab<Timer, 8> {
        &mut self.timers
    }

    /// How far the wheel has come, in milliseconds.
    pub(crate) const fn now_ms(&self) -> u64 {
        self.now_ms
    }

    /// How far the wheel has come.
    pub(crate) const fn now(&self) -> Tick {
        Tick::from_millis(self.now_ms)
    }

    /// Timers that are armed, ripe ones included.
    pub(crate) const fn len(&self) -> u32 {
        self.timers.len()
    }

    /// Sets a timer; it rings at `due` or up to a millisecond later.
    pub(crate) fn arm(&mut self, due: Tick, alarm: Alarm) -> u32 {
        let due_ms = due.0.div_ceil(NS_PER_MS);
        let timer = self.timers.insert(Timer { due_ms, alarm, link: Link::NONE, list: 0 });
        self.hang(timer);
        timer
    }

    /// Takes a timer back, whether ripe or not.
    pub(crate) fn disarm(&mut self, timer: u32) -> Alarm {
        self.unhang(timer);
        self.timers.remove(timer).alarm
    }

    /// Moves a timer to another moment.
    pub(crate) fn rearm(&mut self, timer: u32, due: Tick) {
        self.unhang(timer);
        self.timers[timer].due_ms = due.0.div_ceil(NS_PER_MS);
        self.hang(timer);
    }

    /// What a timer is for.
    pub(crate) fn alarm(&self, timer: u32) -> Alarm {
        self.timers[timer].alarm
    }

    /// Brings the wheel to `now`; timers whose time has come are ripe then. Time never goes back.
    pub(crate) fn advance(&mut self, now: Tick) {
        let to_ms = now.millis();
        while let Some((at_ms, list)) = self.next_event()
            && at_ms <= to_ms
        {
            assert!(at_ms > self.now_ms, "time goes forward");
            self.now_ms = at_ms;
            let mut timer = self.lists[list].head;
            assert!(timer != NONE, "a filled list has timers");
            // Take the list off as a whole first: a far timer may go back to the list it came from.
            self.lists[list] = Ends::EMPTY;
            self.mark(list, false);
            while timer != NONE {
                let next = self.timers[timer].link.next;
                self.hang(timer);
                timer = next;
            }
        }
        self.now_ms = self.now_ms.max(to_ms);
    }

    /// Brings the wheel back to `now` when it is ahead, because time is counted from an earlier moment again. What was
    /// ripe and is not any more hangs in its list again. Costs a walk over all timers then.
    pub(crate) fn turn_back(&mut self, now: Tick) {
        if now.millis() >= self.now_ms {
            return;
        }
        self.now_ms = now.millis();
        let mut next = self.timers.next_used(0);
        while let Some(timer) = next {
            next = self.timers.next_used(timer + 1);
            self.unhang(timer);
            self.hang(timer);
        }
    }

    /// The first timer whose time has come. It stays ripe until it is disarmed or moved.
    pub(crate) fn ripe(&self) -> Option<(u32, Alarm)> {
        let timer = self.lists[RIPE].head;
        (timer != NONE).then(|| (timer, self.timers[timer].alarm))
    }

    /// A moment before which nothing rings; `None` when no timer is set.
    pub(crate) fn next_due(&self) -> Option<Tick> {
        if !self.lists[RIPE].is_empty() {
            return Some(Tick::from_millis(self.now_ms));
        }
        self.next_event().map(|(at_ms, _)| Tick::from_millis(at_ms))
    }

    /// Bytes taken from the allocator.
    pub(crate) fn memory(&self) -> usize {
        self.timers.memory() + size_of_val(&*self.lists)
    }

    /// Asserts that every timer hangs where it belongs.
    pub(crate) fn audit(&self) {
        self.timers.audit();
        let mut count = 0;
        for (list, &ends) in self.lists.iter().enumerate() {
            count += list::audit(&self.timers, ends, |timer| timer.link);
            if list < FAR {
                let bit = self.filled[list / SLOTS][list % SLOTS / 64] >> (list % 64) & 1;
                assert_eq!(bit == 1, !ends.is_empty(), "list {list} is marked as it is");
            }
            for timer in list::walk(&self.timers, ends.head, |timer| timer.link) {
                assert_eq!(usize::from(self.timers[timer].list), list, "a timer knows its list");
                assert_eq!(self.list_for(self.timers[timer].due_ms), list, "a timer hangs where it belongs");
            }
        }
        assert_eq!(count, self.timers.len(), "every timer hangs somewhere");
    }

    /// Every armed timer, for those who compare timers with what they are for.
    pub(crate) fn alarms(&self) -> impl Iterator<Item = (u32, Alarm)> + '_ {
        self.timers.slots().map(|timer| (timer, self.timers[timer].alarm))
    }

    fn list_for(&self, due_ms: u64) -> usize {
        if due_ms <= self.now_ms {
            return RIPE;
        }
        let level = (due_ms ^ self.now_ms).ilog2() as usize / 8;
        if level >= LEVELS {
            return FAR;
        }
        level * SLOTS + usize::from((due_ms >> (8 * level)).to_le_bytes()[0])
    }

    fn hang(&mut self, timer: u32) {
        let list = self.list_for(self.timers[timer].due_ms);
        self.timers[timer].list = u16::try_from(list).expect("there are 1026 lists");
        list::push_back(&mut self.timers, &mut self.lists[list], timer, |timer| &mut timer.link);
        self.mark(list, true);
    }

    fn unhang(&mut self, timer: u32) {
        let list = usize::from(self.timers[timer].list);
        list::unlink(&mut self.timers, &mut self.lists[list], timer, |timer| &mut timer.link);
        if self.lists[list].is_empty() {
            self.mark(list, false);
        }
    }

    fn mark(&mut self, list: usize, filled: bool) {
        if list >= FAR {
            return;
        }
        let word = &mut self.filled[list / SLOTS][list % SLOTS / 64];
        let bit = 1 << (list % 64);
        *word = if filled { *word | bit } else { *word & !bit };
    }

    /// The next moment at which a list must be looked at, and the list.
    fn next_event(&self) -> Option<(u64, usize)> {
        for level in 0..LEVELS {
            let here = usize::from((self.now_ms >> (8 * level)).to_le_bytes()[0]);
            if let Some(slot) = first_after(&self.filled[level], here) {
                let base = self.now_ms >> (8 * (level + 1)) << (8 * (level + 1));
                return Some((base | (slot as u64) << (8 * level), level * SLOTS + slot));
            }
        }
        let turn = (self.now_ms >> (8 * LEVELS)) + 1;
        (!self.lists[FAR].is_empty()).then_some((turn << (8 * LEVELS), FAR))
    }
}

/// The first bit set behind `here`.
fn first_after(bits: &[u64; SLOTS / 64], here: usize) -> Option<usize> {
    let start = here + 1;
    (start / 64..SLOTS / 64).find_map(|word| {
        let mask = if word == start / 64 { u64::MAX << (start % 64) } else { u64::MAX };
        let left = bits[word] & mask;
        (left != 0).then(|| word * 64 + left.trailing_zeros() as usize)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;
    use std::vec::Vec;

    fn ring(wheel: &mut Wheel, now: Tick) -> Vec<u32> {
        wheel.advance(now);
        wheel.audit();
        let mut rung = Vec::new();
        while let Some((timer, alarm)) = wheel.ripe() {
            let Alarm::Wait(number) = alarm else { panic!("{alarm:?}") };
            assert_eq!(wheel.disarm(timer), alarm);
            rung.push(number);
        }
        rung
    }

    #[test]
    fn nothing_rings_early_even_by_a_nanosecond() {
        let mut wheel = Wheel::new();
        wheel.arm(Tick(5_000_001), Alarm::Wait(1));
        assert_eq!(ring(&mut wheel, Tick(5_999_999)), []);
        assert_eq!(ring(&mut wheel, Tick(6_000_000)), [1]);
    }

    #[test]
    fn a_wheel_that_was_ahead_rings_at_the_time_that_counts() {
        let mut wheel = Wheel::new();
        let due = [5_u64, 300, 70_000, 20_000_000, 5 << 32];
        for (number, ms) in (0_u32..).zip(due) {
            wheel.arm(Tick::from_millis(ms), Alarm::Wait(number));
        }
        wheel.advance(Tick::from_millis(100_000));
        wheel.turn_back(Tick::from_millis(200_000));
        wheel.audit();
        assert_eq!(wheel.now(), Tick::from_millis(100_000), "it is turned back, never on");
        wheel.turn_back(Tick::from_millis(299));
        wheel.audit();
        assert_eq!(ring(&mut wheel, Tick::from_millis(299)), [0]);
        assert_eq!(ring(&mut wheel, Tick::from_millis(69_999)), [1]);
        assert_eq!(ring(&mut wheel, Tick::from_millis(70_000)), [2]);
        assert_eq!(ring(&mut wheel, Tick::from_millis(6 << 32)), [3, 4]);
    }

    #[test]
    fn a_timer_centuries_away_rings_in_its_time() {
        let mut wheel = Wheel::new();
        let far = Tick::from_millis((5 << 32) + 77);
        wheel.arm(far, Alarm::Wait(1));
        let mut sleeps = 0;
        while let Some(next) = wheel.next_due().filter(|&next| next < far) {
            assert_eq!(ring(&mut wheel, next), []);
            sleeps += 1;
        }
        assert!(sleeps < 20, "{sleeps} wake-ups");
        assert_eq!(ring(&mut wheel, far), [1]);
        assert_eq!(wheel.next_due(), None);
    }

    proptest! {
        #[test]
        fn timers_ring_as_in_a_sorted_map(
            start in 0_u64..1 << 33,
            steps in proptest::collection::vec((0_u8..4, 0_u32..34, any::<u64>()), 1..200),
        ) {
            let mut wheel = Wheel::new();
            let mut now = Tick::from_millis(start);
            wheel.advance(now);
            let mut model: BTreeMap<u32, (u64, u32)> = BTreeMap::new();
            for (number, (what, bits, random)) in (0_u32..).zip(steps) {
                let span = random % (1 << bits);
                match what {
                    0 | 1 => {
                        let due = now.after_millis(span);
                        model.insert(number, (due.0, wheel.arm(due, Alarm::Wait(number))));
                    }
                    2 if !model.is_empty() => {
                        let key = *model.keys().nth(usize::try_from(random).unwrap() % model.len()).unwrap();
                        let (_, timer) = model.remove(&key).unwrap();
                        prop_assert_eq!(wheel.disarm(timer), Alarm::Wait(key));
                    }
                    _ => {
                        now = now.after_millis(span);
                        let mut rung = ring(&mut wheel, now);
                        rung.sort_unstable();
                        let mut expected: Vec<u32> =
                            model.iter().filter(|(_, (due, _))| *due <= now.0).map(|(&key, _)| key).collect();
                        expected.sort_unstable();
                        prop_assert_eq!(rung, expected);
                        model.retain(|_, (due, _)| *due > now.0);
                    }
                }
                wheel.audit();
                let first = model.values().map(|&(due, _)| Tick(due)).min();
                prop_assert_eq!(wheel.next_due().is_some(), first.is_some());
                prop_assert!(wheel.next_due() <= first || first <= Some(now));
            }
        }
    }
}
