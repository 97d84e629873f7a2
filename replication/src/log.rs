//! The end of a shard's log: the entries that not everybody is known to have, or that are not applied yet. An entry is
//! bytes and has no number of its own: positions are counted.

use alloc::collections::VecDeque;
use alloc::vec::Vec;

/// Position in a shard's log: so many entries. Counted through all reigns, never reused for another committed entry.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Lsn(pub u64);

impl Lsn {
    /// The position so many entries further on.
    #[must_use]
    pub const fn plus(self, entries: u64) -> Lsn {
        Lsn(self.0 + entries)
    }
}

/// Entries behind `base`, in order.
#[derive(Debug, Default)]
pub struct Log {
    base: Lsn,
    entries: VecDeque<Vec<u8>>,
    bytes: usize,
    /// Buffers of dropped entries, for the next ones.
    spare: Vec<Vec<u8>>,
}

/// Buffers kept for re-use, and the largest that is kept.
const SPARE_MAX: usize = 1024;
const SPARE_BYTES_MAX: usize = 1024;

impl Log {
    /// An empty log that goes on behind `base`.
    pub fn behind(base: Lsn) -> Log {
        Log { base, ..Log::default() }
    }

    /// Position before the first entry that is kept.
    pub const fn base(&self) -> Lsn {
        self.base
    }

    /// Position of the last entry.
    pub fn end(&self) -> Lsn {
        self.base.plus(self.entries.len() as u64)
    }

    /// Bytes of the entries that are kept.
    pub const fn bytes(&self) -> usize {
        self.bytes
    }

    /// Adds an entry.
    pub fn push(&mut self, entry: &[u8]) {
        let mut own = self.spare.pop().unwrap_or_default();
        own.clear();
        own.extend_from_slice(entry);
        self.bytes += own.len();
        self.entries.push_back(own);
    }

    /// Counts an entry that nobody else needs.
    ///
    /// # Panics
    /// When an entry before it is kept.
    pub fn skip(&mut self) {
        assert!(self.entries.is_empty(), "an entry is skipped only when none before it is kept");
        self.base = self.base.plus(1);
    }

    /// The entry at a position; `None` when it is not kept.
    pub fn get(&self, at: Lsn) -> Option<&[u8]> {
        let index = at.0.checked_sub(self.base.0 + 1)?;
        self.entries.get(usize::try_from(index).ok()?).map(Vec::as_slice)
    }

    /// Forgets entries up to `to`.
    ///
    /// # Panics
    /// When there are not so many.
    pub fn drop_to(&mut self, to: Lsn) {
        assert!(to <= self.end(), "what is dropped was there");
        while self.base < to {
            let Some(entry) = self.entries.pop_front() else { return };
            self.bytes -= entry.len();
            self.base = self.base.plus(1);
            self.keep_buffer(entry);
        }
    }

    /// Forgets entries behind `to`.
    ///
    /// # Panics
    /// When that was dropped already.
    pub fn truncate(&mut self, to: Lsn) {
        assert!(to >= self.base, "what was dropped is not taken back");
        while self.end() > to {
            let Some(entry) = self.entries.pop_back() else { return };
            self.bytes -= entry.len();
            self.keep_buffer(entry);
        }
    }

    fn keep_buffer(&mut self, entry: Vec<u8>) {
        if self.spare.len() < SPARE_MAX && entry.capacity() <= SPARE_BYTES_MAX {
            self.spare.push(entry);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_are_counted_through_drops_and_truncation() {
        let mut log = Log::behind(Lsn(10));
        for entry in [b"a".as_slice(), b"bb", b"ccc"] {
            log.push(entry);
        }
        assert_eq!((log.end(), log.bytes()), (Lsn(13), 6));
        assert_eq!(log.get(Lsn(12)), Some(b"bb".as_slice()));
        log.drop_to(Lsn(11));
        assert_eq!((log.get(Lsn(11)), log.base()), (None, Lsn(11)));
        log.truncate(Lsn(12));
        assert_eq!((log.end(), log.bytes()), (Lsn(12), 2));
        log.push(b"new");
        assert_eq!(log.get(Lsn(13)), Some(b"new".as_slice()));
    }

    #[test]
    fn skipped_entries_move_the_end() {
        let mut log = Log::behind(Lsn(1));
        log.skip();
        assert_eq!((log.base(), log.end()), (Lsn(2), Lsn(2)));
    }
}
