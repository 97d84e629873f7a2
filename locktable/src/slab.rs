//! Records of one type, addressed by 32-bit slot numbers that do not move. No record is allocated by itself, a
//! vacant one costs nothing but its place, and an empty chunk gives its memory back ([`crate::chunks`]).

use crate::chunks::{Chunks, Given};
use alloc::vec::Vec;
use core::ops::{Index, IndexMut};

/// A record that can lie vacant, remembering another slot number meanwhile.
pub(crate) trait Record {
    /// A vacant record that remembers `next`.
    fn vacant(next: u32) -> Self;
    /// What a vacant record remembers; `None` when the record is in use.
    fn next_vacant(&self) -> Option<u32>;
}

/// Records in chunks of 2^`BITS`.
#[derive(Debug)]
pub(crate) struct Slab<T, const BITS: u32> {
    chunks: Chunks,
    rows: Vec<Vec<T>>,
}

impl<T: Record, const BITS: u32> Slab<T, BITS> {
    pub(crate) const fn new() -> Self {
        Slab { chunks: Chunks::new(BITS), rows: Vec::new() }
    }

    /// Records in use.
    pub(crate) const fn len(&self) -> u32 {
        self.chunks.used()
    }

    /// Stores a record, and says where.
    #[inline]
    pub(crate) fn insert(&mut self, record: T) -> u32 {
        debug_assert!(record.next_vacant().is_none(), "a record in use does not look vacant");
        let rows = &mut self.rows;
        let link = |slot: u32| {
            let record = &rows[(slot >> BITS) as usize][(slot & ((1 << BITS) - 1)) as usize];
            record.next_vacant().expect("the list of vacant records holds vacant records")
        };
        let taken = self.chunks.take(link);
        let (chunk, place) = (self.chunks.chunk_of(taken.slot), self.chunks.place_of(taken.slot));
        if taken.new_chunk {
            if chunk == rows.len() {
                rows.push(Vec::new());
            }
            rows[chunk].reserve_exact(1 << BITS);
        }
        if taken.fresh {
            assert_eq!(rows[chunk].len(), place, "never used records are taken in order");
            rows[chunk].push(record);
        } else {
            rows[chunk][place] = record;
        }
        taken.slot
    }

    /// Takes a record out.
    #[inline]
    pub(crate) fn remove(&mut self, slot: u32) -> T {
        let (chunk, place) = (self.chunks.chunk_of(slot), self.chunks.place_of(slot));
        assert!(self.rows[chunk][place].next_vacant().is_none(), "slot {slot} is in use");
        let given = self.chunks.give(slot);
        let link = if let Given::Stays(link) = given { link } else { slot };
        let record = core::mem::replace(&mut self.rows[chunk][place], T::vacant(link));
        match given {
            Given::Stays(_) => {}
            Given::Emptied => self.rows[chunk].clear(),
            Given::Dropped => self.rows[chunk] = Vec::new(),
        }
        record
    }

    /// The record at a slot number that came from outside; `None` when there is none in use.
    #[inline]
    pub(crate) fn get(&self, slot: u32) -> Option<&T> {
        let row = self.rows.get(self.chunks.chunk_of(slot))?;
        row.get(self.chunks.place_of(slot)).filter(|record| record.next_vacant().is_none())
    }

    /// The first slot in use from `from` on.
    pub(crate) fn next_used(&self, from: u32) -> Option<u32> {
        let mut slot = from;
        while slot < self.chunks.end() {
            if self.rows[self.chunks.chunk_of(slot)].is_empty() {
                slot = (slot | (self.chunks.size() - 1)).checked_add(1)?;
            } else if self.get(slot).is_some() {
                return Some(slot);
            } else {
                slot += 1;
            }
        }
        None
    }

    /// Every slot in use, ascending.
    pub(crate) fn slots(&self) -> impl Iterator<Item = u32> + '_ {
        core::iter::successors(self.next_used(0), |&slot| self.next_used(slot.checked_add(1)?))
    }

    /// Bytes taken from the allocator, but not what records own beyond themselves.
    pub(crate) fn memory(&self) -> usize {
        let records: usize = self.rows.iter().map(Vec::capacity).sum();
        self.chunks.memory() + self.rows.capacity() * size_of::<Vec<T>>() + records * size_of::<T>()
    }

    /// Recounts use and vacancy.
    pub(crate) fn audit(&self) {
        self.chunks.audit(|slot| {
            let record = self.rows[self.chunks.chunk_of(slot)].get(self.chunks.place_of(slot))?;
            record.next_vacant()
        });
        assert_eq!(self.slots().count(), self.len() as usize, "records that do not look vacant");
    }
}

impl<T: Record, const BITS: u32> Index<u32> for Slab<T, BITS> {
    type Output = T;

    #[inline]
    fn index(&self, slot: u32) -> &T {
        let record = &self.rows[(slot >> BITS) as usize][(slot & ((1 << BITS) - 1)) as usize];
        debug_assert!(record.next_vacant().is_none(), "slot {slot} is in use");
        record
    }
}

impl<T: Record, const BITS: u32> IndexMut<u32> for Slab<T, BITS> {
    #[inline]
    fn index_mut(&mut self, slot: u32) -> &mut T {
        let record = &mut self.rows[(slot >> BITS) as usize][(slot & ((1 << BITS) - 1)) as usize];
        debug_assert!(record.next_vacant().is_none(), "slot {slot} is in use");
        record
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    #[derive(Debug)]
    enum Card {
        Vacant(u32),
        Number(u64),
    }

    impl Record for Card {
        fn vacant(next: u32) -> Card {
            Card::Vacant(next)
        }
        fn next_vacant(&self) -> Option<u32> {
            if let Card::Vacant(next) = self { Some(*next) } else { None }
        }
    }

    #[test]
    fn memory_returns_when_a_million_records_came_and_went() {
        let mut slab = Slab::<Card, 10>::new();
        let first = slab.insert(Card::Number(0));
        slab.remove(first);
        let before = slab.memory();
        let slots: Vec<u32> = (0..1_000_000).map(|number| slab.insert(Card::Number(number))).collect();
        assert!(slab.memory() >= 1_000_000 * size_of::<Card>());
        for slot in slots {
            slab.remove(slot);
        }
        slab.audit();
        assert!(slab.memory() < before + 1000 * 64, "{} against {before}", slab.memory());
    }

    #[test]
    fn one_record_that_comes_and_goes_keeps_its_chunk() {
        let mut slab = Slab::<Card, 4>::new();
        let slot = slab.insert(Card::Number(1));
        slab.remove(slot);
        let memory = slab.memory();
        for number in 0..100 {
            assert_eq!(slab.insert(Card::Number(number)), slot);
            assert_eq!(slab.memory(), memory);
            slab.remove(slot);
        }
    }

    proptest! {
        #[test]
        fn slots_are_those_of_a_map(steps in proptest::collection::vec((any::<bool>(), 0_usize..64), 1..400)) {
            let mut slab = Slab::<Card, 3>::new();
            let mut model = BTreeMap::new();
            for (number, (insert, pick)) in steps.into_iter().enumerate() {
                if insert || model.is_empty() {
                    let slot = slab.insert(Card::Number(number as u64));
                    prop_assert_eq!(model.insert(slot, number as u64), None);
                } else {
                    let slot = *model.keys().nth(pick % model.len()).unwrap();
                    let Card::Number(found) = slab.remove(slot) else { panic!("vacant") };
                    prop_assert_eq!(Some(found), model.remove(&slot));
                }
                slab.audit();
                prop_assert!(slab.slots().eq(model.keys().copied()));
            }
        }
    }
}
