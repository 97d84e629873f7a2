//! Deaths that the next holder must hear of, remembered after the lock itself was reclaimed: digests in order of
//! death, found by digest. The oldest is forgotten when there are too many; whoever relies on the hint alone would
//! be wrong anyway, a fencing token is what protects.

use crate::chunks::NONE;
use crate::index::{Index, IndexKey};
use crate::list::{self, Ends, Link};
use crate::slab::{Record, Slab};
use fairlock_protocol::Digest;

/// Resources whose last writing holder died.
#[derive(Debug)]
pub(crate) struct Marks {
    slab: Slab<Mark, 8>,
    by_digest: Index,
    order: Ends,
    most: usize,
}

/// One of them.
#[derive(Clone, Debug)]
pub(crate) struct Mark {
    digest: Digest,
    link: Link,
    vacant: bool,
}

impl Record for Mark {
    fn vacant(next: u32) -> Mark {
        Mark { digest: Digest([0; 2]), link: Link { prev: NONE, next }, vacant: true }
    }

    fn next_vacant(&self) -> Option<u32> {
        self.vacant.then_some(self.link.next)
    }
}

impl Marks {
    pub(crate) fn new(most: usize) -> Marks {
        Marks { slab: Slab::new(), by_digest: Index::new(4), order: Ends::EMPTY, most }
    }

    /// Remembers a death.
    pub(crate) fn insert(&mut self, key: IndexKey, digest: Digest) {
        if self.most == 0 {
            return;
        }
        debug_assert!(self.find(key, digest).is_none(), "a mark is taken when its lock comes back");
        if self.by_digest.len() >= self.most {
            let oldest = self.order.head;
            self.remove(key, oldest);
        }
        let slot = self.slab.insert(Mark { digest, link: Link::NONE, vacant: false });
        self.by_digest.insert(key.hash(digest.0[0], digest.0[1]), slot);
        list::push_back(&mut self.slab, &mut self.order, slot, |mark| &mut mark.link);
    }

    /// Whether a death is remembered; it is not any more then.
    pub(crate) fn take(&mut self, key: IndexKey, digest: Digest) -> bool {
        if self.by_digest.len() == 0 {
            return false;
        }
        let found = self.find(key, digest);
        if let Some(slot) = found {
            self.remove(key, slot);
        }
        found.is_some()
    }

    /// Remembers a death after those that are remembered; false when it is known or there are too many.
    pub(crate) fn put_back(&mut self, key: IndexKey, digest: Digest) -> bool {
        let fits = self.by_digest.len() < self.most && self.find(key, digest).is_none();
        if fits {
            self.insert(key, digest);
        }
        fits
    }

    /// Digests, oldest death first.
    pub(crate) fn digests(&self) -> impl Iterator<Item = Digest> + '_ {
        list::walk(&self.slab, self.order.head, |mark| mark.link).map(|slot| self.slab[slot].digest)
    }

    /// The oldest death, where a snapshot begins to tell of them.
    pub(crate) const fn oldest(&self) -> u32 {
        self.order.head
    }

    /// A death, and the next one, as they were when keeping began.
    pub(crate) fn as_it_was(&self, mark: u32) -> (Digest, u32) {
        let mark = self.slab.as_it_was(mark);
        (mark.digest, mark.link.next)
    }

    /// The records, for a snapshot to keep what they are.
    pub(crate) const fn records_mut(&mut self) -> &mut Slab<Mark, 8> {
        &mut self.slab
    }

    pub(crate) fn memory(&self) -> usize {
        self.slab.memory() + self.by_digest.memory()
    }

    pub(crate) fn audit(&self, key: IndexKey) {
        self.slab.audit();
        self.by_digest.audit();
        let listed = list::audit(&self.slab, self.order, |mark| mark.link);
        assert_eq!(listed, self.slab.len(), "every mark is in the order");
        assert_eq!(self.by_digest.len(), listed as usize, "every mark is filed");
        assert!(listed as usize <= self.most, "marks are bounded");
        assert!(self.digests().all(|digest| self.find(key, digest).is_some()), "every mark is found");
    }

    fn find(&self, key: IndexKey, digest: Digest) -> Option<u32> {
        self.by_digest.find(key.hash(digest.0[0], digest.0[1]), |slot| self.slab[slot].digest == digest)
    }

    fn remove(&mut self, key: IndexKey, slot: u32) {
        list::unlink(&mut self.slab, &mut self.order, slot, |mark| &mut mark.link);
        let mark = self.slab.remove(slot);
        self.by_digest.remove(key.hash(mark.digest.0[0], mark.digest.0[1]), slot);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_death_is_forgotten_first() {
        let key = IndexKey::new(1);
        let mut marks = Marks::new(2);
        for number in 0..3 {
            marks.insert(key, Digest([number, 0]));
            marks.audit(key);
        }
        assert!(!marks.take(key, Digest([0, 0])));
        assert!(marks.take(key, Digest([2, 0])) && marks.take(key, Digest([1, 0])));
        assert!(!marks.take(key, Digest([1, 0])), "a death is told once");
        marks.audit(key);
    }
}
