//! Bytes on their way out of one link: one buffer the kernel is taking from, one that collects behind it. The first is
//! never touched while it is not empty, so the kernel may read it during a send in flight, and queueing swaps buffers
//! with the caller instead of copying.

use std::mem;

/// A drained buffer larger than this is given back to the allocator: a slow reader's backlog must not stay for ever.
const KEEP_BYTES: usize = 64 * 1024;

/// The two buffers of a link. Invariant: the second is empty when the first is.
#[derive(Debug, Default)]
pub(super) struct Outgoing {
    front: Vec<u8>,
    /// How much of `front` the kernel has taken.
    taken: usize,
    behind: Vec<u8>,
    /// The owner waits until no more than these bytes are left.
    awaited: Option<usize>,
}

impl Outgoing {
    /// The owner wants to know when no more than `bytes` are left.
    pub(super) fn await_drain(&mut self, bytes: usize) {
        self.awaited = Some(bytes);
    }

    /// Whether what the owner waits for has come; once.
    pub(super) fn take_drained(&mut self) -> bool {
        let left = self.len();
        self.awaited.take_if(|bytes| left <= *bytes).is_some()
    }

    /// Queues all of `out` and leaves it empty.
    pub(super) fn push(&mut self, out: &mut Vec<u8>) {
        if self.front.is_empty() {
            assert!(self.behind.is_empty() && self.taken == 0, "nothing queues behind nothing");
            mem::swap(&mut self.front, out);
        } else if self.behind.is_empty() {
            mem::swap(&mut self.behind, out);
        } else {
            self.behind.extend_from_slice(out);
            out.clear();
        }
        debug_assert!(out.is_empty(), "a buffer swapped out has been drained");
    }

    /// What the kernel should take next; empty when nothing is queued.
    pub(super) fn next(&self) -> &[u8] {
        &self.front[self.taken..]
    }

    /// The kernel took `bytes` of [`Outgoing::next`].
    pub(super) fn advance(&mut self, bytes: usize) {
        self.taken += bytes;
        assert!(self.taken <= self.front.len(), "the kernel took more than it was offered");
        if self.taken == self.front.len() {
            drain(&mut self.front);
            self.taken = 0;
            mem::swap(&mut self.front, &mut self.behind);
        }
    }

    /// Bytes not taken yet.
    pub(super) fn len(&self) -> usize {
        self.front.len() - self.taken + self.behind.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.front.is_empty()
    }

    /// Forgets everything. Not while a send is in flight.
    pub(super) fn clear(&mut self) {
        self.awaited = None;
        drain(&mut self.front);
        drain(&mut self.behind);
        self.taken = 0;
    }
}

fn drain(buffer: &mut Vec<u8>) {
    if buffer.capacity() > KEEP_BYTES {
        *buffer = Vec::new();
    } else {
        buffer.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_leave_in_the_order_they_were_queued() {
        let mut outgoing = Outgoing::default();
        let mut sent = Vec::new();
        for (round, text) in ["one ", "two ", "three ", "four ", "five "].iter().enumerate() {
            let mut out = text.as_bytes().to_vec();
            outgoing.push(&mut out);
            assert!(out.is_empty());
            if round % 2 == 1 {
                let some: Vec<u8> = outgoing.next().iter().copied().take(3).collect();
                outgoing.advance(some.len());
                sent.extend(some);
            }
        }
        while !outgoing.is_empty() {
            let some = outgoing.next()[..1].to_vec();
            outgoing.advance(1);
            sent.extend(some);
        }
        assert_eq!(sent, b"one two three four five ");
        assert_eq!(outgoing.len(), 0);
    }

    #[test]
    fn queueing_behind_does_not_move_the_bytes_in_flight() {
        let mut outgoing = Outgoing::default();
        outgoing.push(&mut vec![1; 100]);
        let flying = outgoing.next().as_ptr();
        for _ in 0..100 {
            outgoing.push(&mut vec![2; 1000]);
        }
        assert_eq!(outgoing.next().as_ptr(), flying);
        assert_eq!(outgoing.len(), 100_100);
    }

    #[test]
    fn a_large_backlog_is_not_kept_after_it_drained() {
        let mut outgoing = Outgoing::default();
        outgoing.push(&mut vec![0; KEEP_BYTES * 4]);
        outgoing.advance(KEEP_BYTES * 4);
        assert!(outgoing.is_empty() && outgoing.front.capacity() <= KEEP_BYTES);
    }
}
