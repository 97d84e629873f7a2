//! Records as they were when a snapshot began, while the store they are in goes on changing.
//!
//! Before a record is changed for the first time since then, a copy of it is kept; a bit for each slot says whether that
//! was done. Who tells the snapshot reads the copy where there is one, and else the record itself. The copies are of
//! single records and not of pages, so that one change costs one copy, and what is kept is bounded by what changed.
//! While no snapshot is under way all of this is one comparison for each change.
//!
//! Copies are forgotten a few at a time, too: a million of them at once would take as long as what they spared.

use alloc::collections::BTreeMap;
use alloc::vec;
use alloc::vec::Vec;

/// What a store of records of type `T` was.
#[derive(Debug)]
pub(crate) struct Kept<T> {
    /// Its book.
    heads: [u32; 4],
    pages: Vec<[u32; 5]>,
    bits: u32,
    /// A bit for each slot: it was changed, and what it was is among `records`.
    changed: Vec<u64>,
    records: BTreeMap<u32, T>,
    /// Nobody wants it any more.
    over: bool,
}

/// Where the book says how many records of a chunk were ever used.
const FRESH: usize = 1;

impl<T> Kept<T> {
    /// Begins to keep what a store with this book is.
    pub(crate) fn new(bits: u32, heads: [u32; 4], pages: Vec<[u32; 5]>) -> Kept<T> {
        let slots = pages.len() << bits;
        Kept {
            heads,
            pages,
            bits,
            changed: vec![0; slots.div_ceil(64)],
            records: BTreeMap::new(),
            over: false,
        }
    }

    /// Whether a record is to be kept before it is changed.
    pub(crate) fn wants(&self, slot: u32) -> bool {
        let place = slot & ((1 << self.bits) - 1);
        let was_there = self.pages.get((slot >> self.bits) as usize).is_some_and(|page| place < page[FRESH]);
        was_there && !self.over && !self.is_changed(slot)
    }

    /// Keeps a record that [`Kept::wants`].
    pub(crate) fn put(&mut self, slot: u32, record: T) {
        self.changed[slot as usize / 64] |= 1 << (slot % 64);
        self.records.insert(slot, record);
    }

    /// The copy of a record; `None` when that is still what it was.
    pub(crate) fn get(&self, slot: u32) -> Option<&T> {
        assert!(!self.over, "what is forgotten is not read");
        if self.is_changed(slot) { self.records.get(&slot) } else { None }
    }

    /// The heads of its book.
    pub(crate) const fn heads(&self) -> [u32; 4] {
        self.heads
    }

    /// What its book said of each chunk.
    pub(crate) fn pages(&self) -> &[[u32; 5]] {
        &self.pages
    }

    /// How many records of a chunk were ever used; `None` when there was no such chunk.
    pub(crate) fn fresh(&self, chunk: usize) -> Option<u32> {
        self.pages.get(chunk).map(|page| page[FRESH])
    }

    /// Nothing is kept from here on.
    pub(crate) fn end(&mut self) {
        self.over = true;
    }

    /// Forgets up to `left` copies, and says whether none is left.
    pub(crate) fn forget(&mut self, left: &mut u32) -> bool {
        while *left > 0 && self.records.pop_first().is_some() {
            *left -= 1;
        }
        self.records.is_empty()
    }

    /// Bytes taken from the allocator, roughly.
    pub(crate) fn memory(&self) -> usize {
        let book = self.pages.capacity() * size_of::<[u32; 5]>() + self.changed.capacity() * 8;
        book + self.records.len() * (size_of::<T>() + size_of::<u32>())
    }

    fn is_changed(&self, slot: u32) -> bool {
        self.changed[slot as usize / 64] >> (slot % 64) & 1 == 1
    }
}
