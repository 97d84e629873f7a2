//! Records of one type, addressed by 32-bit slot numbers that do not move. No record is allocated by itself, a
//! vacant one costs nothing but its place, and an empty chunk gives its memory back ([`crate::chunks`]). While a snapshot
//! is told, what records were when it began is kept beside them ([`crate::kept`]).

use crate::chunks::{Chunks, Given};
use crate::kept::Kept;
use alloc::boxed::Box;
use alloc::vec::Vec;
use core::ops::{Index, IndexMut};

/// A record that can lie vacant, remembering another slot number meanwhile.
pub(crate) trait Record: Clone {
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
    /// Present while a snapshot is told, and until what was kept for it is forgotten.
    kept: Option<Box<Kept<T>>>,
}

impl<T: Record, const BITS: u32> Slab<T, BITS> {
    pub(crate) const fn new() -> Self {
        Slab { chunks: Chunks::new(BITS), rows: Vec::new(), kept: None }
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
            self.about_to_change(taken.slot);
            self.rows[chunk][place] = record;
        }
        taken.slot
    }

    /// Takes a record out.
    #[inline]
    pub(crate) fn remove(&mut self, slot: u32) -> T {
        let (chunk, place) = (self.chunks.chunk_of(slot), self.chunks.place_of(slot));
        assert!(self.rows[chunk][place].next_vacant().is_none(), "slot {slot} is in use");
        self.about_to_change(slot);
        let given = self.chunks.give(slot);
        let link = if let Given::Stays(link) = given { link } else { slot };
        let record = core::mem::replace(&mut self.rows[chunk][place], T::vacant(link));
        if self.kept.is_some() && !matches!(given, Given::Stays(_)) {
            self.about_to_clear(slot);
        }
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

    /// A store with this book, whose records are to be put back, one after the other.
    pub(crate) fn with_book(chunks: Chunks) -> Self {
        let [pages, _, _, spare] = chunks.heads();
        let mut rows = Vec::new();
        rows.resize_with(pages as usize, Vec::new);
        if let Some(spare) = rows.get_mut(spare as usize) {
            spare.reserve_exact(1 << BITS);
        }
        Slab { chunks, rows, kept: None }
    }

    /// The slot of the next record to be put back, in chunk `at` or a later one; `at` moves on.
    pub(crate) fn next_missing(&self, at: &mut usize) -> Option<u32> {
        loop {
            let row = self.rows.get(*at)?;
            if row.len() < self.chunks.fresh(*at) {
                let slot = (*at << BITS) + row.len();
                return Some(u32::try_from(slot).expect("the book has checked the number of chunks"));
            }
            *at += 1;
        }
    }

    /// Puts a record back at the slot that [`Slab::next_missing`] gave.
    pub(crate) fn put_back(&mut self, slot: u32, record: T) {
        let row = &mut self.rows[self.chunks.chunk_of(slot)];
        if row.is_empty() {
            row.reserve_exact(1 << BITS);
        }
        assert_eq!(row.len(), self.chunks.place_of(slot), "records are put back in order");
        row.push(record);
    }

    /// Whether the vacant records of the chunk of `slot` are those that the book takes for vacant; true as long as the
    /// chunk's records are not all back.
    pub(crate) fn chunk_is_sound(&self, slot: u32) -> bool {
        let chunk = self.chunks.chunk_of(slot);
        let row = &self.rows[chunk];
        if row.len() < self.chunks.fresh(chunk) {
            return true;
        }
        let link = |slot: u32| row.get(self.chunks.place_of(slot))?.next_vacant();
        let vacant = row.iter().filter(|record| record.next_vacant().is_some()).count();
        vacant == self.chunks.vacant(chunk) && self.chunks.vacancies_are_sound(chunk, link)
    }

    /// Begins to keep what every record is now.
    pub(crate) fn begin_keeping(&mut self) {
        assert!(self.kept.is_none(), "one snapshot at a time");
        self.kept = Some(Box::new(Kept::new(BITS, self.chunks.heads(), self.chunks.pages().collect())));
    }

    /// Keeps nothing from here on; what is kept is to be forgotten.
    pub(crate) fn end_keeping(&mut self) {
        if let Some(kept) = &mut self.kept {
            kept.end();
        }
    }

    /// Forgets up to `left` of what was kept, and says whether nothing is left.
    pub(crate) fn forget_kept(&mut self, left: &mut u32) -> bool {
        if self.kept.as_mut().is_none_or(|kept| kept.forget(left)) {
            self.kept = None;
        }
        self.kept.is_none()
    }

    /// A record, vacant or not, as it was when keeping began; as it is when nothing is kept.
    pub(crate) fn as_it_was(&self, slot: u32) -> &T {
        let copy = self.kept.as_ref().and_then(|kept| kept.get(slot));
        copy.unwrap_or_else(|| &self.rows[self.chunks.chunk_of(slot)][self.chunks.place_of(slot)])
    }

    /// The first slot from `from` on that had a record, vacant or not, when keeping began.
    pub(crate) fn next_as_it_was(&self, from: u32) -> Option<u32> {
        let (mut chunk, mut place) = (self.chunks.chunk_of(from), from & (self.chunks.size() - 1));
        loop {
            let fresh = match &self.kept {
                Some(kept) => kept.fresh(chunk)?,
                None => u32::try_from(self.rows.get(chunk)?.len()).expect("a chunk is at most 2^20 records"),
            };
            if place < fresh {
                let first = u32::try_from(chunk << BITS).expect("slots are numbered in 32 bits");
                return Some(first | place);
            }
            (chunk, place) = (chunk + 1, 0);
        }
    }

    /// The heads of the book when keeping began.
    pub(crate) fn heads_as_they_were(&self) -> [u32; 4] {
        self.kept.as_ref().map_or_else(|| self.chunks.heads(), |kept| kept.heads())
    }

    /// What the book said of a chunk when keeping began; `None` when there was no such chunk.
    pub(crate) fn page_as_it_was(&self, chunk: usize) -> Option<[u32; 5]> {
        match &self.kept {
            Some(kept) => kept.pages().get(chunk).copied(),
            None => self.chunks.page(chunk),
        }
    }

    #[inline]
    fn about_to_change(&mut self, slot: u32) {
        if self.kept.is_some() {
            self.keep(slot);
        }
    }

    #[cold]
    #[inline(never)]
    fn keep(&mut self, slot: u32) {
        if let Some(kept) = &mut self.kept
            && kept.wants(slot)
        {
            kept.put(slot, self.rows[self.chunks.chunk_of(slot)][self.chunks.place_of(slot)].clone());
        }
    }

    /// Keeps all of a chunk that is empty now: vacant records remember something, too.
    #[cold]
    fn about_to_clear(&mut self, slot: u32) {
        let first = slot & !(self.chunks.size() - 1);
        let places = u32::try_from(self.rows[self.chunks.chunk_of(slot)].len()).expect("at most 2^20");
        for place in 0..places {
            self.keep(first | place);
        }
    }

    /// Bytes taken from the allocator, but not what records own beyond themselves.
    pub(crate) fn memory(&self) -> usize {
        let records: usize = self.rows.iter().map(Vec::capacity).sum();
        let kept = self.kept.as_ref().map_or(0, |kept| kept.memory());
        kept + self.chunks.memory() + self.rows.capacity() * size_of::<Vec<T>>() + records * size_of::<T>()
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
        self.about_to_change(slot);
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

    #[derive(Clone, Debug)]
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
