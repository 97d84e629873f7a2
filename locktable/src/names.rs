//! Names and labels, kept cold and tight. A name of up to 40 bytes lies among names of exactly its length and costs
//! its bytes and no more; a longer one lies in a class of places, with a byte that says how much of its place is
//! padding. Namespaces are interned: a lock carries two bytes for its own.

use crate::chunks::{Chunks, Given, NONE};
use crate::rules::{NamespaceRules, Rules};
use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use fairlock_protocol::limits::{LABEL_BYTES_MAX, NAME_BYTES_MAX};
use fairlock_protocol::{Discipline, Namespace};

/// Lengths up to this have a class each, and need no padding.
const EXACT_MAX: usize = 40;
/// Bytes a place has at least: a vacant one holds a number.
const PLACE_BYTES_MIN: usize = 4;
/// Places of the classes beyond, in bytes with the padding byte.
const STRIDES: [u16; 20] =
    [48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384, 448, 512, 640, 768, 896, 1024, 1152];
/// Bits of a reference that number a name within its class.
const NUMBER_BITS: u32 = 26;
const _: () = assert!(EXACT_MAX + STRIDES.len() < 1 << (32 - NUMBER_BITS), "NONE is no name");
const _: () = assert!(NAME_BYTES_MAX < STRIDES[19] as usize && LABEL_BYTES_MAX < NAME_BYTES_MAX);

/// Where some bytes are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct NameRef(u32);

impl NameRef {
    /// No bytes at all.
    pub(crate) const EMPTY: NameRef = NameRef(NONE);

    pub(crate) const fn is_empty(self) -> bool {
        self.0 == NONE
    }
}

/// Byte strings of up to 1024 bytes.
#[derive(Debug)]
pub(crate) struct Names {
    classes: Vec<Class>,
    /// While a snapshot is told: what was removed since it began, by its place. What is first removed from a place that
    /// the snapshot knows is what the snapshot means.
    kept: Option<BTreeMap<NameRef, Box<[u8]>>>,
    /// What was kept is wanted no more.
    forgets: bool,
}

/// Byte strings of one size class.
#[derive(Debug)]
struct Class {
    stride: usize,
    /// The one length of an exact class; the last byte of a place says it in the others.
    length: Option<usize>,
    chunks: Chunks,
    rows: Vec<Vec<u8>>,
}

impl Names {
    pub(crate) fn new() -> Names {
        let exact = (1..=EXACT_MAX).map(|length| (length.max(PLACE_BYTES_MIN), Some(length)));
        let padded = STRIDES.iter().map(|&stride| (usize::from(stride), None));
        let class = |(stride, length)| {
            // Chunks of some 64 KiB at most.
            let bits = if stride <= 64 { 10 } else { 6 };
            Class { stride, length, chunks: Chunks::new(bits), rows: Vec::new() }
        };
        Names { classes: exact.chain(padded).map(class).collect(), kept: None, forgets: false }
    }

    /// Keeps `bytes`.
    pub(crate) fn insert(&mut self, bytes: &[u8]) -> NameRef {
        if bytes.is_empty() {
            return NameRef::EMPTY;
        }
        assert!(bytes.len() <= NAME_BYTES_MAX, "names and labels are checked at the door");
        let class = if bytes.len() <= EXACT_MAX {
            bytes.len() - 1
        } else {
            EXACT_MAX + STRIDES.partition_point(|&stride| usize::from(stride) <= bytes.len())
        };
        let number = self.classes[class].insert(bytes);
        assert!(number < 1 << NUMBER_BITS, "sixty million names of one length");
        NameRef(u32::try_from(class).expect("60 classes") << NUMBER_BITS | number)
    }

    /// The bytes kept.
    pub(crate) fn bytes(&self, name: NameRef) -> &[u8] {
        if name.is_empty() {
            return &[];
        }
        let class = &self.classes[(name.0 >> NUMBER_BITS) as usize];
        let place = class.place(name.0 & ((1 << NUMBER_BITS) - 1));
        if let Some(length) = class.length {
            return &place[..length];
        }
        let (padding, bytes) = place.split_last().expect("a place has at least four bytes");
        &bytes[..bytes.len() - usize::from(*padding)]
    }

    /// The bytes that were kept at this place when keeping began; they are there now when nothing is kept.
    pub(crate) fn bytes_as_they_were(&self, name: NameRef) -> &[u8] {
        let copy = self.kept.as_ref().and_then(|kept| kept.get(&name)).map(|bytes| &**bytes);
        copy.unwrap_or_else(|| self.bytes(name))
    }

    /// Begins to keep what is removed.
    pub(crate) fn begin_keeping(&mut self) {
        assert!(self.kept.is_none(), "one snapshot at a time");
        (self.kept, self.forgets) = (Some(BTreeMap::new()), false);
    }

    /// Keeps nothing from here on.
    pub(crate) fn end_keeping(&mut self) {
        self.forgets = true;
    }

    /// Forgets up to `left` of what was kept, and says whether nothing is left.
    pub(crate) fn forget_kept(&mut self, left: &mut u32) -> bool {
        let Some(kept) = &mut self.kept else { return true };
        while *left > 0 && kept.pop_first().is_some() {
            *left -= 1;
        }
        let none = kept.is_empty();
        if none {
            self.kept = None;
        }
        none
    }

    /// Forgets the bytes.
    pub(crate) fn remove(&mut self, name: NameRef) {
        if self.kept.is_some() && !self.forgets && !name.is_empty() {
            let bytes = Box::from(self.bytes(name));
            self.kept.get_or_insert_default().entry(name).or_insert(bytes);
        }
        if !name.is_empty() {
            self.classes[(name.0 >> NUMBER_BITS) as usize].remove(name.0 & ((1 << NUMBER_BITS) - 1));
        }
    }

    /// Byte strings kept.
    pub(crate) fn len(&self) -> u32 {
        self.classes.iter().map(|class| class.chunks.used()).sum()
    }

    /// Bytes taken from the allocator.
    pub(crate) fn memory(&self) -> usize {
        let row = |class: &Class| {
            let rows: usize = class.rows.iter().map(Vec::capacity).sum();
            rows + class.rows.capacity() * size_of::<Vec<u8>>() + class.chunks.memory()
        };
        let kept =
            self.kept.iter().flatten().map(|(_, bytes)| bytes.len() + size_of::<(NameRef, Box<[u8]>)>());
        kept.sum::<usize>()
            + self.classes.iter().map(row).sum::<usize>()
            + self.classes.capacity() * size_of::<Class>()
    }
}

impl Class {
    fn insert(&mut self, bytes: &[u8]) -> u32 {
        let Class { stride, length, chunks, rows } = self;
        let stride = *stride;
        let (size, mask) = (chunks.size() as usize, chunks.size() - 1);
        let link = |number: u32| {
            let row = &rows[number as usize / size];
            let at = (number & mask) as usize * stride;
            u32::from_le_bytes([row[at], row[at + 1], row[at + 2], row[at + 3]])
        };
        let taken = chunks.take(link);
        let (chunk, place) = (chunks.chunk_of(taken.slot), chunks.place_of(taken.slot));
        if taken.new_chunk {
            if chunk == rows.len() {
                rows.push(Vec::new());
            }
            rows[chunk].reserve_exact(size * stride);
        }
        let row = &mut rows[chunk];
        let start = place * stride;
        if taken.fresh {
            assert_eq!(row.len(), start, "never used places are taken in order");
            row.resize(start + stride, 0);
        }
        row[start..start + bytes.len()].copy_from_slice(bytes);
        if length.is_none() {
            let padding = stride - 1 - bytes.len();
            row[start + stride - 1] = u8::try_from(padding).expect("classes are at most 128 bytes apart");
        }
        taken.slot
    }

    fn place(&self, number: u32) -> &[u8] {
        let start = self.chunks.place_of(number) * self.stride;
        &self.rows[self.chunks.chunk_of(number)][start..start + self.stride]
    }

    fn remove(&mut self, number: u32) {
        let (chunk, place) = (self.chunks.chunk_of(number), self.chunks.place_of(number));
        let row = &mut self.rows[chunk];
        match self.chunks.give(number) {
            Given::Stays(link) => {
                row[place * self.stride..][..4].copy_from_slice(&link.to_le_bytes());
            }
            Given::Emptied => row.clear(),
            Given::Dropped => *row = Vec::new(),
        }
    }
}

/// Namespaces by number. One that no lock uses any more stays until its number is needed, so that a lock that
/// comes and goes does not allocate.
#[derive(Debug)]
pub(crate) struct Namespaces {
    entries: Vec<Entry>,
    numbers: BTreeMap<Box<str>, u16>,
    /// The one used last: most locks of a burst share theirs.
    last: u16,
    most: usize,
    told: NamespaceRules,
}

#[derive(Debug)]
struct Entry {
    text: Box<str>,
    /// Locks in it.
    uses: u32,
    rules: Rules,
}

impl Namespaces {
    /// At most `most` namespaces at a time, with these rules.
    pub(crate) fn new(most: usize, told: NamespaceRules) -> Namespaces {
        let most = most.clamp(1, usize::from(u16::MAX));
        Namespaces { entries: Vec::new(), numbers: BTreeMap::new(), last: 0, most, told }
    }

    /// The number of a namespace, used once more, and its discipline; `None` when too many are in use.
    pub(crate) fn enter(&mut self, namespace: Namespace<'_>) -> Option<(u16, Discipline)> {
        let text = namespace.as_str();
        let known = |entry: &Entry| *entry.text == *text;
        let number = if self.entries.get(usize::from(self.last)).is_some_and(known) {
            self.last
        } else if let Some(&number) = self.numbers.get(text) {
            number
        } else {
            self.add(namespace)?
        };
        self.last = number;
        let entry = &mut self.entries[usize::from(number)];
        entry.uses += 1;
        Some((number, entry.rules.discipline))
    }

    /// The namespaces by number, those without locks too.
    pub(crate) fn texts(&self) -> impl ExactSizeIterator<Item = &str> {
        self.entries.iter().map(|entry| &*entry.text)
    }

    /// What was told of namespaces.
    pub(crate) const fn told(&self) -> &NamespaceRules {
        &self.told
    }

    /// Gives the next number to a namespace that no lock uses yet; false when there are too many, or when it has one.
    pub(crate) fn put_back(&mut self, namespace: Namespace<'_>) -> bool {
        let fits = self.entries.len() < self.most && !self.numbers.contains_key(namespace.as_str());
        fits && self.add(namespace).is_some()
    }

    /// One lock more in the namespace of this number; its discipline, or `None` when there is no such number.
    pub(crate) fn reenter(&mut self, number: u16) -> Option<Discipline> {
        let entry = self.entries.get_mut(usize::from(number))?;
        entry.uses = entry.uses.checked_add(1)?;
        Some(entry.rules.discipline)
    }

    /// One lock less in a namespace.
    pub(crate) fn leave(&mut self, number: u16) {
        let uses = &mut self.entries[usize::from(number)].uses;
        assert!(*uses > 0, "who leaves was in");
        *uses -= 1;
    }

    /// The namespace of a number.
    pub(crate) fn namespace(&self, number: u16) -> Namespace<'_> {
        Namespace::new(self.entries[usize::from(number)].text.as_bytes()).expect("checked before it was kept")
    }

    /// By what the queues of a namespace go.
    pub(crate) fn rules(&self, number: u16) -> Rules {
        self.entries[usize::from(number)].rules
    }

    /// Bytes of the entries, about.
    pub(crate) fn memory(&self) -> usize {
        let text: usize = self.entries.iter().map(|entry| 2 * entry.text.len()).sum();
        text + self.entries.capacity() * size_of::<Entry>() + self.numbers.len() * 32
    }

    /// Locks in all namespaces together.
    pub(crate) fn uses(&self) -> u64 {
        self.entries.iter().map(|entry| u64::from(entry.uses)).sum()
    }

    fn add(&mut self, namespace: Namespace<'_>) -> Option<u16> {
        let text = namespace.as_str();
        let entry = Entry { text: text.into(), uses: 0, rules: self.told.of(namespace) };
        let number = if self.entries.len() < self.most {
            self.entries.push(entry);
            self.entries.len() - 1
        } else {
            // A walk of all namespaces, only while as many as may be are known.
            let number = self.entries.iter().position(|entry| entry.uses == 0)?;
            let old = core::mem::replace(&mut self.entries[number], entry);
            self.numbers.remove(&old.text);
            number
        };
        let number = u16::try_from(number).expect("`most` fits");
        self.numbers.insert(text.into(), number);
        Some(number)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::vec;

    #[test]
    fn every_length_reads_back() {
        let mut names = Names::new();
        let kept: Vec<(NameRef, Vec<u8>)> = (0..=NAME_BYTES_MAX)
            .map(|length| {
                let bytes = vec![u8::try_from(length % 251).unwrap(); length];
                (names.insert(&bytes), bytes)
            })
            .collect();
        for (name, bytes) in &kept {
            assert_eq!(names.bytes(*name), &bytes[..]);
        }
        for (name, _) in kept {
            names.remove(name);
        }
        assert_eq!(names.len(), 0);
    }

    #[test]
    fn a_short_name_takes_its_bytes_and_no_more() {
        let mut names = Names::new();
        let empty = names.memory();
        for number in 0_u64..100_000 {
            let mut bytes = [7; 16];
            bytes[..8].copy_from_slice(&number.to_le_bytes());
            names.insert(&bytes);
        }
        assert!(names.memory() - empty < 100_000 * 17, "{}", names.memory());
    }

    #[test]
    fn places_of_forgotten_names_are_used_again() {
        let mut names = Names::new();
        let first: Vec<NameRef> = (0..5000_u32).map(|n| names.insert(&n.to_le_bytes())).collect();
        let full = names.memory();
        for &name in first.iter().step_by(2) {
            names.remove(name);
        }
        let second: Vec<NameRef> = (0..2500_u32).map(|n| names.insert(&(!n).to_le_bytes())).collect();
        assert_eq!(names.memory(), full);
        for (name, n) in second.into_iter().zip(0_u32..) {
            assert_eq!(names.bytes(name), (!n).to_le_bytes());
        }
        for (&name, n) in first.iter().zip(0_u32..).skip(1).step_by(2) {
            assert_eq!(names.bytes(name), n.to_le_bytes());
        }
    }

    #[test]
    fn a_namespace_nobody_uses_makes_room_for_another() {
        let mut namespaces = Namespaces::new(2, NamespaceRules::new());
        let name = |text: &'static str| Namespace::new(text.as_bytes()).unwrap();
        let mut enter = |text| namespaces.enter(name(text)).map(|(number, _)| number);
        assert_eq!((enter("a"), enter("b"), enter("c")), (Some(0), Some(1), None));
        namespaces.leave(0);
        assert_eq!(namespaces.enter(name("c")), Some((0, Discipline::Strict)));
        assert_eq!(namespaces.namespace(0), name("c"));
        assert_eq!(namespaces.enter(name("a")), None);
    }
}
