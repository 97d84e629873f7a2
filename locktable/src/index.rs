//! From a hash to a slot: open addressing over `{tag, slot}` pairs of eight bytes, linear probing, backward-shift
//! deletion (no tombstones), load at most 0.7.
//!
//! The index is cut into segments that grow and shrink by themselves, each copying its entries in order and
//! without touching a record: at ten million entries a growing segment moves some ten thousand entries, tens of
//! microseconds, where one table of that size would stand still for a tenth of a second. Where an entry stands
//! depends on a key that never leaves the process, and decides nothing: an index is only ever asked for one entry.

use crate::chunks::NONE;
use alloc::vec;
use alloc::vec::Vec;

/// Entries of a segment when it is first used.
const SEGMENT_ENTRIES_MIN: usize = 8;
/// From here on a segment grows by a quarter instead of a half: an entry takes 11 to 14 bytes then.
const SEGMENT_ENTRIES_LARGE: usize = 256;
const EMPTY: u64 = u64::MAX;

/// The private key of all positions.
#[derive(Clone, Copy, Debug)]
pub(crate) struct IndexKey(u64, u64);

impl IndexKey {
    pub(crate) const fn new(key: u64) -> IndexKey {
        IndexKey(key ^ 0x9E37_79B9_7F4A_7C15, key.rotate_left(32) ^ 0xD1B5_4A32_D192_ED03)
    }

    /// One wide multiplication of both halves under the key, folded.
    #[expect(clippy::cast_possible_truncation, reason = "both halves of the product are used")]
    #[inline]
    pub(crate) const fn hash(self, a: u64, b: u64) -> u64 {
        let product = (a ^ self.0) as u128 * (b ^ self.1) as u128;
        (product as u64) ^ ((product >> 64) as u64)
    }
}

/// Slots by hash.
#[derive(Debug)]
pub(crate) struct Index {
    segments: Vec<Segment>,
    /// High bits of a hash choose the segment: hash >> shift.
    shift: u32,
    len: usize,
}

#[derive(Debug, Default)]
struct Segment {
    entries: Vec<u64>,
    used: usize,
}

#[expect(clippy::cast_possible_truncation, reason = "the low half of the hash is the tag")]
const fn entry(hash: u64, slot: u32) -> u64 {
    ((hash as u32 as u64) << 32) | slot as u64
}

#[expect(clippy::cast_possible_truncation, reason = "the low half of an entry is the slot")]
const fn slot_of(entry: u64) -> u32 {
    entry as u32
}

/// Where an entry would like to stand: its tag, scaled to the number of places.
fn home(entry: u64, places: usize) -> usize {
    let place = ((entry >> 32) * places as u64) >> 32;
    usize::try_from(place).expect("below `places`, which is a length")
}

impl Index {
    /// An index of 2^`bits` segments.
    pub(crate) fn new(bits: u32) -> Index {
        assert!(bits > 0 && bits <= 16, "the segments are chosen by the high bits of a hash");
        let mut segments = Vec::new();
        segments.resize_with(1 << bits, Segment::default);
        Index { segments, shift: 64 - bits, len: 0 }
    }

    pub(crate) const fn len(&self) -> usize {
        self.len
    }

    /// The slot filed under `hash` for which `is` holds.
    #[inline]
    pub(crate) fn find(&self, hash: u64, is: impl Fn(u32) -> bool) -> Option<u32> {
        let entries = &self.segment(hash).entries;
        if entries.is_empty() {
            return None;
        }
        let tag = entry(hash, 0) >> 32;
        let mut at = home(entry(hash, 0), entries.len());
        loop {
            let found = entries[at];
            if found == EMPTY {
                return None;
            }
            if found >> 32 == tag && is(slot_of(found)) {
                return Some(slot_of(found));
            }
            at = if at + 1 == entries.len() { 0 } else { at + 1 };
        }
    }

    /// Reads where a look-up of `hash` will begin, and gives what stands there. A batch of these, one behind the other, waits
    /// for memory once; a batch of look-ups waits for each.
    #[inline]
    pub(crate) fn glance(&self, hash: u64) -> u64 {
        let entries = &self.segment(hash).entries;
        if entries.is_empty() {
            return EMPTY;
        }
        entries[home(entry(hash, 0), entries.len())]
    }

    /// Files `slot` under `hash`.
    pub(crate) fn insert(&mut self, hash: u64, slot: u32) {
        assert!(slot != NONE, "a slot is a slot");
        let segment = self.segment_mut(hash);
        if (segment.used + 1) * 10 > segment.entries.len() * 7 {
            let places = segment.entries.len();
            let step = if places < SEGMENT_ENTRIES_LARGE { places / 2 } else { places / 4 };
            segment.resize((places + step).max(SEGMENT_ENTRIES_MIN));
        }
        segment.place(entry(hash, slot));
        segment.used += 1;
        self.len += 1;
    }

    /// Takes `slot` out, which is filed under `hash`.
    pub(crate) fn remove(&mut self, hash: u64, slot: u32) {
        let segment = self.segment_mut(hash);
        let sought = entry(hash, slot);
        assert!(segment.used > 0, "what is removed was filed");
        let places = segment.entries.len();
        let mut hole = home(sought, places);
        while segment.entries[hole] != sought {
            assert!(segment.entries[hole] != EMPTY, "what is removed was filed");
            hole = if hole + 1 == places { 0 } else { hole + 1 };
        }
        segment.close(hole);
        segment.used -= 1;
        if places > SEGMENT_ENTRIES_MIN && segment.used * 5 < places {
            segment.resize((places / 2).max(SEGMENT_ENTRIES_MIN));
        }
        self.len -= 1;
    }

    /// Bytes taken from the allocator.
    pub(crate) fn memory(&self) -> usize {
        let entries: usize = self.segments.iter().map(|segment| segment.entries.capacity()).sum();
        self.segments.capacity() * size_of::<Segment>() + entries * size_of::<u64>()
    }

    /// Asserts counts, load and that each entry is found from its home.
    pub(crate) fn audit(&self) {
        let mut len = 0;
        for segment in &self.segments {
            let places = segment.entries.len();
            let used = segment.entries.iter().filter(|&&entry| entry != EMPTY).count();
            assert_eq!(used, segment.used, "entries of a segment");
            assert!(used * 10 <= places * 7, "the load is at most 0.7");
            for (at, &entry) in segment.entries.iter().enumerate().filter(|&(_, &entry)| entry != EMPTY) {
                let mut between = home(entry, places);
                while between != at {
                    assert!(segment.entries[between] != EMPTY, "no gap between an entry and its home");
                    between = if between + 1 == places { 0 } else { between + 1 };
                }
            }
            len += used;
        }
        assert_eq!(len, self.len, "entries of the index");
    }

    #[expect(clippy::cast_possible_truncation, reason = "at most 16 bits are left")]
    fn segment(&self, hash: u64) -> &Segment {
        &self.segments[(hash >> self.shift) as usize]
    }

    #[expect(clippy::cast_possible_truncation, reason = "at most 16 bits are left")]
    fn segment_mut(&mut self, hash: u64) -> &mut Segment {
        &mut self.segments[(hash >> self.shift) as usize]
    }
}

impl Segment {
    /// Puts an entry at the first free place from its home on.
    fn place(&mut self, entry: u64) {
        let places = self.entries.len();
        let mut at = home(entry, places);
        while self.entries[at] != EMPTY {
            at = if at + 1 == places { 0 } else { at + 1 };
        }
        self.entries[at] = entry;
    }

    /// Empties a place and moves later entries of its run forward where that brings them nearer to their homes.
    fn close(&mut self, mut hole: usize) {
        let places = self.entries.len();
        let distance = |from: usize, to: usize| if to >= from { to - from } else { to + places - from };
        let mut at = hole;
        loop {
            at = if at + 1 == places { 0 } else { at + 1 };
            let entry = self.entries[at];
            if entry == EMPTY {
                break;
            }
            if distance(home(entry, places), at) >= distance(hole, at) {
                self.entries[hole] = entry;
                hole = at;
            }
        }
        self.entries[hole] = EMPTY;
    }

    fn resize(&mut self, places: usize) {
        assert!(places > self.used, "there is room for every entry");
        let old = core::mem::replace(&mut self.entries, vec![EMPTY; places]);
        for entry in old.into_iter().filter(|&entry| entry != EMPTY) {
            self.place(entry);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    #[test]
    fn an_index_gives_its_memory_back() {
        let key = IndexKey::new(7);
        let mut index = Index::new(4);
        for slot in 0..100_000 {
            index.insert(key.hash(u64::from(slot), 1), slot);
        }
        let full = index.memory();
        assert!(full < 100_000 * 20, "{full} bytes for 100 000 entries");
        for slot in 0..100_000 {
            assert_eq!(index.find(key.hash(u64::from(slot), 1), |found| found == slot), Some(slot));
            index.remove(key.hash(u64::from(slot), 1), slot);
        }
        index.audit();
        assert!(index.memory() * 50 < full, "{} of {full} bytes are left", index.memory());
    }

    proptest! {
        #[test]
        fn an_index_finds_what_a_map_finds(steps in proptest::collection::vec((any::<bool>(), 0_u64..200), 1..600)) {
            // Few hashes, so that runs are long and wrap.
            let hash = |name: u64| name.wrapping_mul(0x9E37_79B9) & 0xFFFF_FFFF | (name & 1) << 63;
            let mut index = Index::new(1);
            let mut model = BTreeMap::new();
            for (slot, (insert, name)) in (0_u32..).zip(steps) {
                if insert && !model.contains_key(&name) {
                    index.insert(hash(name), slot);
                    model.insert(name, slot);
                } else if let Some(slot) = model.remove(&name) {
                    index.remove(hash(name), slot);
                }
                index.audit();
                for probe in 0..200 {
                    let expected = model.get(&probe).copied();
                    prop_assert_eq!(index.find(hash(probe), |slot| Some(slot) == expected), expected);
                }
            }
        }
    }
}
