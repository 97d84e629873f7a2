//! Doubly linked lists through the records of a slab: a place in a queue costs eight bytes and no allocation, and
//! whoever leaves, from wherever in the queue, leaves in constant time.

use crate::chunks::NONE;
use crate::slab::{Record, Slab};

/// A record's neighbours in one list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Link {
    pub(crate) prev: u32,
    pub(crate) next: u32,
}

/// First and last of a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ends {
    pub(crate) head: u32,
    pub(crate) tail: u32,
}

impl Link {
    pub(crate) const NONE: Link = Link { prev: NONE, next: NONE };
}

impl Ends {
    pub(crate) const EMPTY: Ends = Ends { head: NONE, tail: NONE };

    pub(crate) const fn is_empty(self) -> bool {
        self.head == NONE
    }
}

/// Appends `slot`.
pub(crate) fn push_back<T: Record, const B: u32>(
    slab: &mut Slab<T, B>,
    ends: &mut Ends,
    slot: u32,
    link: impl Fn(&mut T) -> &mut Link,
) {
    let tail = core::mem::replace(&mut ends.tail, slot);
    *link(&mut slab[slot]) = Link { prev: tail, next: NONE };
    if tail == NONE {
        debug_assert!(ends.head == NONE, "a list without a last has no first");
        ends.head = slot;
    } else {
        link(&mut slab[tail]).next = slot;
    }
}

/// Puts `slot` right behind `after`, which is in the list.
pub(crate) fn insert_after<T: Record, const B: u32>(
    slab: &mut Slab<T, B>,
    ends: &mut Ends,
    after: u32,
    slot: u32,
    link: impl Fn(&mut T) -> &mut Link,
) {
    let next = core::mem::replace(&mut link(&mut slab[after]).next, slot);
    *link(&mut slab[slot]) = Link { prev: after, next };
    if next == NONE {
        debug_assert!(ends.tail == after, "who has no successor is the last");
        ends.tail = slot;
    } else {
        link(&mut slab[next]).prev = slot;
    }
}

/// Takes `slot` out.
pub(crate) fn unlink<T: Record, const B: u32>(
    slab: &mut Slab<T, B>,
    ends: &mut Ends,
    slot: u32,
    link: impl Fn(&mut T) -> &mut Link,
) {
    let Link { prev, next } = core::mem::replace(link(&mut slab[slot]), Link::NONE);
    if prev == NONE {
        assert!(ends.head == slot, "who has no predecessor is the first");
        ends.head = next;
    } else {
        link(&mut slab[prev]).next = next;
    }
    if next == NONE {
        assert!(ends.tail == slot, "who has no successor is the last");
        ends.tail = prev;
    } else {
        link(&mut slab[next]).prev = prev;
    }
}

/// The slots of a list from `head` on.
pub(crate) fn walk<T: Record, const B: u32>(
    slab: &Slab<T, B>,
    head: u32,
    link: impl Fn(&T) -> Link,
) -> impl Iterator<Item = u32> {
    let some = |slot: u32| (slot != NONE).then_some(slot);
    core::iter::successors(some(head), move |&slot| some(link(&slab[slot]).next))
}

/// Asserts that a list is linked both ways, ends where it says, and gives its length.
pub(crate) fn audit<T: Record, const B: u32>(
    slab: &Slab<T, B>,
    ends: Ends,
    link: impl Fn(&T) -> Link,
) -> u32 {
    let (mut count, mut prev, mut at) = (0, NONE, ends.head);
    while at != NONE {
        assert_eq!(link(&slab[at]).prev, prev, "the link back from {at}");
        (prev, at) = (at, link(&slab[at]).next);
        count += 1;
    }
    assert_eq!(ends.tail, prev, "the last of the list");
    count
}
