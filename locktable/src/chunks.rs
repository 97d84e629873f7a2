//! Which slot of a chunked store is next, and when a chunk's memory goes back.
//!
//! Records are addressed by 32-bit slot numbers: the high bits choose a chunk, the low bits a record in it. Vacant
//! records of a chunk form a list through the records themselves. A chunk that becomes empty gives its memory
//! back, except for one spare, so that a store at a chunk's edge does not allocate on each turn. A million records
//! that came and went leave nothing but this book: 20 bytes a chunk. The book knows no records, so that records
//! of a type ([`crate::slab`]) and plain bytes ([`crate::names`]) share it.

use alloc::vec::Vec;

/// No slot, no chunk, no record.
pub(crate) const NONE: u32 = u32::MAX;

/// Chunks with room form one list, chunks without memory another.
#[derive(Debug)]
pub(crate) struct Chunks {
    pages: Vec<Page>,
    /// First chunk with a vacant record; all such chunks are linked.
    open: u32,
    /// First chunk without memory, linked by `next`.
    parked: u32,
    /// The one empty chunk that keeps its memory.
    spare: u32,
    /// Records a chunk, as a power of two.
    bits: u32,
    used: u32,
}

#[derive(Debug)]
struct Page {
    /// First vacant slot below `fresh`; the list goes on in the records.
    vacant: u32,
    /// Records from here on were never used since the chunk got its memory.
    fresh: u32,
    used: u32,
    prev: u32,
    next: u32,
}

impl Page {
    /// It as it is told.
    fn words(&self) -> [u32; 5] {
        [self.vacant, self.fresh, self.used, self.prev, self.next]
    }
}

/// A slot handed out.
#[derive(Debug)]
pub(crate) struct Taken {
    pub(crate) slot: u32,
    /// The record is the next never used one of its chunk: append it.
    pub(crate) fresh: bool,
    /// The chunk has no memory yet.
    pub(crate) new_chunk: bool,
}

/// What becomes of the chunk whose record was given back.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Given {
    /// It stays; the vacated record must remember this slot number.
    Stays(u32),
    /// It is empty and kept as the spare.
    Emptied,
    /// It is empty and its memory goes back.
    Dropped,
}

impl Chunks {
    pub(crate) const fn new(bits: u32) -> Chunks {
        assert!(bits > 0 && bits < 20, "a chunk has between two and a million records");
        Chunks { pages: Vec::new(), open: NONE, parked: NONE, spare: NONE, bits, used: 0 }
    }

    /// Records in use.
    pub(crate) const fn used(&self) -> u32 {
        self.used
    }

    #[inline]
    pub(crate) const fn chunk_of(&self, slot: u32) -> usize {
        (slot >> self.bits) as usize
    }

    #[inline]
    pub(crate) const fn place_of(&self, slot: u32) -> usize {
        (slot & (self.size() - 1)) as usize
    }

    pub(crate) const fn size(&self) -> u32 {
        1 << self.bits
    }

    /// Slot numbers ever handed out are below this.
    pub(crate) fn end(&self) -> u32 {
        u32::try_from(self.pages.len()).map_or(NONE, |pages| pages << self.bits)
    }

    /// Takes a slot. `link` reads which slot a vacant record remembers.
    #[inline]
    pub(crate) fn take(&mut self, link: impl FnOnce(u32) -> u32) -> Taken {
        let new_chunk = self.open == NONE;
        if new_chunk {
            self.add();
        }
        let (chunk, size) = (self.open, self.size());
        let page = &mut self.pages[chunk as usize];
        assert!(page.used < size, "an open chunk has room");
        let fresh = page.vacant == NONE;
        let slot = if fresh { chunk << self.bits | page.fresh } else { page.vacant };
        if fresh {
            page.fresh += 1;
        } else {
            page.vacant = link(slot);
        }
        page.used += 1;
        self.used += 1;
        if page.used == size {
            self.close(chunk);
        }
        if self.spare == chunk {
            self.spare = NONE;
        }
        Taken { slot, fresh, new_chunk }
    }

    /// Gives a slot back.
    #[inline]
    pub(crate) fn give(&mut self, slot: u32) -> Given {
        let (chunk, size) = (slot >> self.bits, self.size());
        let page = &mut self.pages[chunk as usize];
        assert!(page.used > 0, "slot {slot} was handed out");
        let was_full = page.used == size;
        page.used -= 1;
        self.used -= 1;
        let empty = page.used == 0;
        let link = core::mem::replace(&mut page.vacant, slot);
        if empty {
            (page.vacant, page.fresh) = (NONE, 0);
        }
        if was_full {
            self.reopen(chunk);
        }
        if !empty {
            return Given::Stays(link);
        }
        if self.spare == NONE {
            self.spare = chunk;
            return Given::Emptied;
        }
        self.close(chunk);
        self.pages[chunk as usize].next = self.parked;
        self.parked = chunk;
        Given::Dropped
    }

    /// Bytes of the book itself.
    pub(crate) fn memory(&self) -> usize {
        self.pages.capacity() * size_of::<Page>()
    }

    /// Opens a chunk without memory: a parked one, or one more.
    fn add(&mut self) {
        let chunk = self.parked;
        if chunk == NONE {
            let chunk =
                u32::try_from(self.pages.len()).expect("chunk numbers are slot numbers without low bits");
            assert!(chunk < NONE >> self.bits, "the slot numbers of this store are used up");
            self.pages.push(Page { vacant: NONE, fresh: 0, used: 0, prev: NONE, next: NONE });
            self.reopen(chunk);
        } else {
            self.parked = self.pages[chunk as usize].next;
            self.reopen(chunk);
        }
    }

    /// Puts a chunk in front of those with room.
    fn reopen(&mut self, chunk: u32) {
        let next = core::mem::replace(&mut self.open, chunk);
        let page = &mut self.pages[chunk as usize];
        (page.prev, page.next) = (NONE, next);
        if next != NONE {
            self.pages[next as usize].prev = chunk;
        }
    }

    /// Takes a chunk from those with room.
    fn close(&mut self, chunk: u32) {
        let Page { prev, next, .. } = self.pages[chunk as usize];
        if prev == NONE {
            assert!(self.open == chunk, "a chunk without a predecessor is the first");
            self.open = next;
        } else {
            self.pages[prev as usize].next = next;
        }
        if next != NONE {
            self.pages[next as usize].prev = prev;
        }
    }

    /// Chunks there are, then the first with room, the first without memory, and the spare: what a copy begins with.
    pub(crate) fn heads(&self) -> [u32; 4] {
        let pages = u32::try_from(self.pages.len()).expect("chunks are numbered in 32 bits");
        [pages, self.open, self.parked, self.spare]
    }

    /// What the book says of each chunk: first vacant slot, used before, in use, and the neighbours in its list.
    pub(crate) fn pages(&self) -> impl Iterator<Item = [u32; 5]> + '_ {
        self.pages.iter().map(Page::words)
    }

    /// What the book says of one chunk; `None` when there is no such chunk.
    pub(crate) fn page(&self, chunk: usize) -> Option<[u32; 5]> {
        self.pages.get(chunk).map(Page::words)
    }

    /// Vacant records of a chunk that have memory.
    pub(crate) fn vacant(&self, chunk: usize) -> usize {
        (self.pages[chunk].fresh - self.pages[chunk].used) as usize
    }

    /// The same book again; `None` when what is told does not fit together. Vacant records are not looked at here.
    pub(crate) fn from_parts(bits: u32, heads: [u32; 4], pages: &[[u32; 5]]) -> Option<Chunks> {
        let [_, open, parked, spare] = heads;
        let page = |&[vacant, fresh, used, prev, next]: &[u32; 5]| Page { vacant, fresh, used, prev, next };
        let mut chunks =
            Chunks { pages: pages.iter().map(page).collect(), open, parked, spare, bits, used: 0 };
        let size = chunks.size();
        let mut used = 0_u64;
        for page in &chunks.pages {
            let sound = page.fresh <= size
                && page.used <= page.fresh
                && (page.used == page.fresh) == (page.vacant == NONE)
                && (page.used > 0 || page.fresh == 0);
            used += u64::from(page.used);
            if !sound {
                return None;
            }
        }
        chunks.used = u32::try_from(used).ok()?;
        (chunks.pages.len() < (NONE >> bits) as usize && chunks.lists_are_sound()).then_some(chunks)
    }

    /// Whether each chunk with room is in one list, once; parked ones are empty, and only the spare is among the others.
    fn lists_are_sound(&self) -> bool {
        let mut listed = alloc::vec![false; self.pages.len()];
        for first in [self.open, self.parked] {
            let (mut prev, mut at) = (NONE, first);
            while at != NONE {
                let Some(page) = self.pages.get(at as usize) else { return false };
                if core::mem::replace(&mut listed[at as usize], true) || page.used == self.size() {
                    return false;
                }
                let is_open = first == self.open;
                let is_empty = page.used == 0;
                if (is_open && page.prev != prev) || is_empty != (!is_open || at == self.spare) {
                    return false;
                }
                (prev, at) = (at, page.next);
            }
        }
        let spare = (self.spare as usize) < self.pages.len() || self.spare == NONE;
        spare && self.pages.iter().zip(&listed).all(|(page, &listed)| listed == (page.used < self.size()))
    }

    /// Records of a chunk that were ever used since it got its memory.
    pub(crate) fn fresh(&self, chunk: usize) -> usize {
        self.pages[chunk].fresh as usize
    }

    /// Whether a chunk's vacant records are all on its list, as `vacant_link` tells of each record.
    pub(crate) fn vacancies_are_sound(&self, chunk: usize, vacant_link: impl Fn(u32) -> Option<u32>) -> bool {
        let page = &self.pages[chunk];
        let (mut left, mut at) = (page.fresh - page.used, page.vacant);
        while at != NONE && left > 0 && self.chunk_of(at) == chunk {
            let Some(link) = vacant_link(at) else { return false };
            (left, at) = (left - 1, link);
        }
        at == NONE && left == 0
    }

    /// Recounts everything; `vacant_link` reads a vacant record's link, `None` when the record is in use.
    pub(crate) fn audit(&self, vacant_link: impl Fn(u32) -> Option<u32>) {
        let (mut used, mut with_room) = (0, 0);
        for (number, page) in self.pages.iter().enumerate() {
            let chunk = u32::try_from(number).expect("chunks are numbered in 32 bits");
            let (mut vacant, mut at) = (0, page.vacant);
            while at != NONE {
                assert_eq!(at >> self.bits, chunk, "a chunk's vacant records are its own");
                at = vacant_link(at).expect("what is on the list of vacant records is vacant");
                vacant += 1;
            }
            assert_eq!(page.used + vacant, page.fresh, "each record of chunk {chunk} is used or vacant");
            used += page.used;
            with_room += u32::from(page.used < self.size());
        }
        assert_eq!(used, self.used, "records in use");
        let (mut listed, mut empty) = (0, 0);
        for first in [self.open, self.parked] {
            let mut chunk = first;
            while chunk != NONE {
                listed += 1;
                let page = &self.pages[chunk as usize];
                assert!(first == self.open || page.used == 0, "a chunk without memory has no records");
                empty += u32::from(first == self.open && page.used == 0);
                chunk = page.next;
            }
        }
        assert_eq!(listed, with_room, "every chunk with room is listed once");
        assert_eq!(empty, u32::from(self.spare != NONE), "at most one empty chunk keeps its memory");
    }
}
