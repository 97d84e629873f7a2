//! A ring of slots through which bytes go from one process to another, in order, without a system call.
//!
//! Each slot is one cache line and carries its own sequence number: a reader looks at the slot it expects next and
//! at nothing else, so one line moves for each message. Up to 60 bytes travel in a slot; a frame that is longer
//! goes on in the next ones, so the ring is a byte stream like a socket, and whoever takes frames apart there does it
//! here with the same code.
//!
//! Each side keeps its own position, which nobody else can write. What the other side wrote is a claim: a length is
//! checked before it is used, a position before it is believed, and whatever else stands in a slot is only bytes.
//! All shared bytes are atomics, so a peer that writes at the wrong time spoils a message, never memory.

use crate::sync::{AtomicU64, Ordering};
use core::fmt;

/// Bytes one slot carries: its line less the sequence number and the length.
pub const SLOT_BYTES: usize = 60;
/// Whole words of a slot beside its head.
const BODY_WORDS: usize = 7;
/// Bits of the head's low half that are the first four bytes of the message.
const FIRST_BYTES: usize = 4;
const LENGTH_SHIFT: u32 = 32;
const SEQUENCE_SHIFT: u32 = 40;
/// Sequence numbers have 24 bits and count laps. A reader is never a whole cycle of 2²⁴ laps behind, because the
/// writer waits for it.
const SEQUENCE_MASK: u64 = (1 << 24) - 1;

const _: () = assert!(FIRST_BYTES + BODY_WORDS * 8 == SLOT_BYTES, "a slot is one line");

/// One cache line: `head` is the first four bytes, the length and the lap; the rest of the bytes follow.
#[derive(Debug, Default)]
#[repr(C, align(64))]
pub(crate) struct Slot {
    /// Release store of the writer, which publishes the slot; Acquire load of the reader.
    head: AtomicU64,
    body: [AtomicU64; BODY_WORDS],
}

/// `N` slots, and how far the reader has come.
#[derive(Debug)]
#[repr(C, align(64))]
pub struct Ring<const N: usize> {
    /// Slots taken so far. Release store of the reader after its copies, Acquire load of the writer before it
    /// writes there again.
    taken: AtomicU64,
    slots: [Slot; N],
}

impl<const N: usize> Default for Ring<N> {
    fn default() -> Ring<N> {
        Ring { taken: AtomicU64::new(0), slots: core::array::from_fn(|_| Slot::default()) }
    }
}

/// The other side wrote what it cannot have meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Corrupt {
    /// A slot says it carries so many bytes.
    Length(u8),
    /// The reader says it has taken so many slots, but only `sent` were sent or more had been taken before.
    Position {
        /// What it says.
        taken: u64,
        /// Slots sent.
        sent: u64,
    },
}

impl fmt::Display for Corrupt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Corrupt::Length(bytes) => write!(f, "a slot claims {bytes} bytes, at most {SLOT_BYTES} fit"),
            Corrupt::Position { taken, sent } => {
                write!(f, "a reader claims {taken} slots taken, {sent} were sent")
            }
        }
    }
}

impl std::error::Error for Corrupt {}

/// What one slot carried.
#[derive(Clone, Copy, Debug)]
pub struct Piece {
    bytes: [u8; SLOT_BYTES],
    length: usize,
}

impl Piece {
    /// The bytes.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes[..self.length]
    }
}

/// The lap of a position: 1 in the first round, so that zeroed memory is no message.
#[expect(clippy::cast_possible_truncation, reason = "a ring has far less than 2^32 slots")]
const fn lap<const N: usize>(position: u64) -> u64 {
    (position / (N as u32) as u64 + 1) & SEQUENCE_MASK
}

/// Less than eight bytes as a word. Shifted in, not copied into a buffer: reading a word that was just written in
/// parts costs more than the whole message.
fn padded(bytes: &[u8]) -> u64 {
    bytes.iter().rev().fold(0, |word, byte| word << 8 | u64::from(*byte))
}

fn slot<const N: usize>(ring: &Ring<N>, position: u64) -> &Slot {
    let index = usize::try_from(position % N as u64).expect("less than the number of slots");
    &ring.slots[index]
}

/// The writing side's position.
#[derive(Debug, Default)]
pub struct Sender {
    /// Slots sent.
    sent: u64,
    /// Slots the reader is known to have taken.
    taken: u64,
}

impl Sender {
    /// Publishes as many of the bytes as there is room for, and says how many: all of them unless the ring is full.
    ///
    /// # Errors
    /// [`Corrupt::Position`]: the reader claims a position it cannot have.
    pub fn send<const N: usize>(&mut self, ring: &Ring<N>, bytes: &[u8]) -> Result<usize, Corrupt> {
        let mut done = 0;
        for piece in bytes.chunks(SLOT_BYTES) {
            if self.sent - self.taken == N as u64 && !self.has_room(ring)? {
                break;
            }
            self.publish(ring, piece);
            done += piece.len();
        }
        debug_assert!(done <= bytes.len(), "no more is sent than there is");
        Ok(done)
    }

    /// Looks how far the reader is; says whether a slot is free.
    fn has_room<const N: usize>(&mut self, ring: &Ring<N>) -> Result<bool, Corrupt> {
        // Acquire: pairs with the Release store in `Receiver::give_back`; what was taken has been copied.
        let taken = ring.taken.load(Ordering::Acquire);
        if taken < self.taken || taken > self.sent {
            return Err(Corrupt::Position { taken, sent: self.sent });
        }
        self.taken = taken;
        debug_assert!(self.sent - self.taken <= N as u64, "no slot is used twice");
        Ok(self.sent - self.taken < N as u64)
    }

    fn publish<const N: usize>(&mut self, ring: &Ring<N>, piece: &[u8]) {
        debug_assert!(!piece.is_empty() && piece.len() <= SLOT_BYTES, "a piece fits a slot");
        let slot = slot(ring, self.sent);
        let (first, rest) = piece.split_at(piece.len().min(FIRST_BYTES));
        let (whole, last) = rest.as_chunks::<8>();
        let mut places = slot.body.iter();
        // Relaxed, here and below: published by the head.
        for (word, place) in whole.iter().zip(&mut places) {
            place.store(u64::from_le_bytes(*word), Ordering::Relaxed);
        }
        if let (false, Some(place)) = (last.is_empty(), places.next()) {
            place.store(padded(last), Ordering::Relaxed);
        }
        let head =
            padded(first) | (piece.len() as u64) << LENGTH_SHIFT | lap::<N>(self.sent) << SEQUENCE_SHIFT;
        // Release: pairs with the Acquire load in `Receiver::receive`; whoever sees this lap sees the body.
        slot.head.store(head, Ordering::Release);
        self.sent += 1;
    }
}

/// The reading side's position.
#[derive(Debug, Default)]
pub struct Receiver {
    taken: u64,
    /// What the writer was told.
    told: u64,
}

impl Receiver {
    /// Whether a message is there. One load of the line that will bring it.
    #[inline]
    pub fn is_ready<const N: usize>(&self, ring: &Ring<N>) -> bool {
        // Relaxed: only a reason to call `receive`, which looks again.
        slot(ring, self.taken).head.load(Ordering::Relaxed) >> SEQUENCE_SHIFT == lap::<N>(self.taken)
    }

    /// The next piece, if it is there.
    ///
    /// # Errors
    /// [`Corrupt::Length`]: no slot carries so much.
    #[inline]
    pub fn receive<const N: usize>(&mut self, ring: &Ring<N>) -> Result<Option<Piece>, Corrupt> {
        let slot = slot(ring, self.taken);
        // Acquire: pairs with the Release store in `Sender::publish`.
        let head = slot.head.load(Ordering::Acquire);
        if head >> SEQUENCE_SHIFT != lap::<N>(self.taken) {
            return Ok(None);
        }
        let claimed = (head >> LENGTH_SHIFT).to_le_bytes()[0];
        let length = usize::from(claimed);
        if length == 0 || length > SLOT_BYTES {
            return Err(Corrupt::Length(claimed));
        }
        let mut bytes = [0; SLOT_BYTES];
        let [first @ .., _, _, _, _] = head.to_le_bytes();
        let (front, back) = bytes.split_at_mut(FIRST_BYTES);
        front.copy_from_slice(&first);
        let (words, _) = back.as_chunks_mut::<8>();
        let used = length.saturating_sub(FIRST_BYTES).div_ceil(8);
        for (place, word) in words.iter_mut().zip(&slot.body).take(used) {
            // Relaxed: ordered by the head above. Each is read once; a writer that changes it now spoils its own words.
            *place = word.load(Ordering::Relaxed).to_le_bytes();
        }
        self.taken += 1;
        Ok(Some(Piece { bytes, length }))
    }

    /// Tells the writer which slots it may use again; to be called after a batch. Nobody is woken by it: a writer without
    /// room looks again, or sleeps only where the reader wakes it after this as it would after a message. Costs a store to a line that the
    /// writer reads only when it has run out of slots.
    #[inline]
    pub fn give_back<const N: usize>(&mut self, ring: &Ring<N>) {
        if self.told != self.taken {
            self.told = self.taken;
            // Release: pairs with the Acquire load in `Sender::has_room`; the copies above come before.
            ring.taken.store(self.taken, Ordering::Release);
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests;

#[cfg(all(test, loom))]
mod order;
