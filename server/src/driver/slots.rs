//! A table of links, watches or listeners whose keys carry a generation: a completion or an id that outlived its entry
//! finds nothing instead of its successor. The generation counts the uses of one slot and needs 2^32 of them to repeat.

/// Entries of one table; the slot must fit the 24 bits it has in a [`super::token::Token`]. Descriptors run out first.
pub(super) const SLOTS_MAX: usize = 1 << 24;

/// Names one entry for as long as it lives.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(super) struct Key {
    slot: u32,
    generation: u32,
}

impl Key {
    pub(super) fn new(slot: u32, generation: u32) -> Key {
        assert!((slot as usize) < SLOTS_MAX, "a slot beyond the table");
        Key { slot, generation }
    }

    pub(super) fn slot(self) -> u32 {
        self.slot
    }

    pub(super) fn generation(self) -> u32 {
        self.generation
    }
}

#[derive(Debug)]
struct Slot<T> {
    generation: u32,
    entry: Option<T>,
}

/// The table. Grows to the largest number of entries there ever was; a freed slot is used again first.
#[derive(Debug)]
pub(super) struct Slots<T> {
    slots: Vec<Slot<T>>,
    free: Vec<u32>,
}

impl<T> Default for Slots<T> {
    fn default() -> Slots<T> {
        Slots { slots: Vec::new(), free: Vec::new() }
    }
}

impl<T> Slots<T> {
    /// Adds an entry; gives it back when the table is full.
    pub(super) fn insert(&mut self, entry: T) -> Result<Key, T> {
        if let Some(slot) = self.free.pop() {
            let place = &mut self.slots[slot as usize];
            assert!(place.entry.is_none(), "a free slot is empty");
            place.entry = Some(entry);
            return Ok(Key { slot, generation: place.generation });
        }
        match u32::try_from(self.slots.len()) {
            Ok(slot) if self.slots.len() < SLOTS_MAX => {
                self.slots.push(Slot { generation: 0, entry: Some(entry) });
                Ok(Key { slot, generation: 0 })
            }
            _ => Err(entry),
        }
    }

    pub(super) fn get(&self, key: Key) -> Option<&T> {
        let slot = self.slots.get(key.slot as usize)?;
        if slot.generation == key.generation { slot.entry.as_ref() } else { None }
    }

    pub(super) fn get_mut(&mut self, key: Key) -> Option<&mut T> {
        let slot = self.slots.get_mut(key.slot as usize)?;
        if slot.generation == key.generation { slot.entry.as_mut() } else { None }
    }

    pub(super) fn remove(&mut self, key: Key) -> Option<T> {
        let slot = self.slots.get_mut(key.slot as usize)?;
        if slot.generation != key.generation {
            return None;
        }
        let entry = slot.entry.take()?;
        slot.generation = slot.generation.wrapping_add(1);
        self.free.push(key.slot);
        Some(entry)
    }

    /// The key of the first living entry at or after `from`; a walk that tolerates removal on the way.
    pub(super) fn next_from(&self, from: u32) -> Option<Key> {
        let rest = self.slots.get(from as usize..)?;
        let slot = rest.iter().zip(from..).find(|(slot, _)| slot.entry.is_some());
        slot.map(|(slot, index)| Key { slot: index, generation: slot.generation })
    }

    pub(super) fn values(&self) -> impl Iterator<Item = &T> {
        self.slots.iter().filter_map(|slot| slot.entry.as_ref())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stale_key_finds_nothing_where_another_entry_lives_now() {
        let mut slots = Slots::default();
        let first = slots.insert('a').unwrap();
        assert_eq!(slots.remove(first), Some('a'));
        let second = slots.insert('b').unwrap();
        assert_eq!(first.slot(), second.slot());
        assert!(
            slots.get(first).is_none() && slots.get_mut(first).is_none() && slots.remove(first).is_none()
        );
        assert_eq!(slots.get(second), Some(&'b'));
    }

    #[test]
    fn a_walk_visits_every_living_entry_once() {
        let mut slots = Slots::default();
        let keys: Vec<Key> = (0..5).map(|n| slots.insert(n).unwrap()).collect();
        slots.remove(keys[1]);
        slots.remove(keys[4]);
        let mut seen = Vec::new();
        let mut from = 0;
        while let Some(key) = slots.next_from(from) {
            seen.push(key.slot());
            from = key.slot() + 1;
        }
        assert_eq!(seen, [0, 2, 3]);
        assert_eq!(slots.values().count(), 3);
    }
}
