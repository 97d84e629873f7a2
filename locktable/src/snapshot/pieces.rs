//! Records gathered into pieces, and the sum over all pieces.

use super::{PIECE_BYTES_MAX, RECORD_BYTES_MAX, SNAPSHOT_VERSION, tag};
use crate::bytes::Writer;
use crate::index::IndexKey;
use crate::rolling::Rolling;
use alloc::collections::VecDeque;
use alloc::vec::Vec;

/// The piece that is written, and those that are full and were not taken yet.
#[derive(Debug)]
pub(super) struct Pieces {
    piece: Vec<u8>,
    number: u32,
    sum: Sum,
    full: VecDeque<Vec<u8>>,
}

impl Pieces {
    pub(super) fn new() -> Pieces {
        Pieces { piece: Pieces::begin(0), number: 0, sum: Sum::default(), full: VecDeque::new() }
    }

    fn begin(number: u32) -> Vec<u8> {
        let mut piece = Vec::with_capacity(PIECE_BYTES_MAX);
        Writer(&mut piece).u16(SNAPSHOT_VERSION).u32(number);
        piece
    }

    /// A place for one more record, its tag written.
    #[inline]
    pub(super) fn record(&mut self, tag: u8) -> Writer<'_> {
        if self.piece.len() + RECORD_BYTES_MAX > PIECE_BYTES_MAX {
            self.turn_over();
        }
        self.piece.push(tag);
        Writer(&mut self.piece)
    }

    /// Whether a piece can be taken.
    pub(super) fn has_full(&self) -> bool {
        !self.full.is_empty()
    }

    /// The oldest full piece.
    pub(super) fn take_full(&mut self) -> Option<Vec<u8>> {
        self.full.pop_front()
    }

    fn turn_over(&mut self) {
        self.number += 1;
        let piece = core::mem::replace(&mut self.piece, Pieces::begin(self.number));
        assert!(piece.len() <= PIECE_BYTES_MAX, "a record is not longer than a record may be");
        self.sum.add(&piece);
        self.full.push_back(piece);
    }

    /// Ends the last piece.
    pub(super) fn finish(&mut self) {
        let count = self.number + 1;
        self.record(tag::END).u32(count);
        self.sum.add(&self.piece);
        let (high, low) = self.sum.total();
        Writer(&mut self.piece).u64(high).u64(low);
        self.full.push_back(core::mem::take(&mut self.piece));
    }
}

/// Bytes that are taken into a sum at a time.
const BLOCK_BYTES: usize = 64;
const LANES: usize = BLOCK_BYTES / 16;

/// A sum over pieces, fast because its lanes do not wait for each other. It finds mistakes, not attacks.
#[derive(Debug, Default)]
pub(super) struct Sum(Rolling);

impl Sum {
    pub(super) fn add(&mut self, piece: &[u8]) {
        let mut lanes =
            [IndexKey::new(3), IndexKey::new(5), IndexKey::new(7), IndexKey::new(11)].map(|key| (key, 0_u64));
        let (blocks, rest) = piece.as_chunks::<BLOCK_BYTES>();
        for block in blocks {
            Sum::take_in(&mut lanes, block);
        }
        let mut last = [0; BLOCK_BYTES];
        last[..rest.len()].copy_from_slice(rest);
        Sum::take_in(&mut lanes, &last);
        self.0.fold(piece.len() as u64, lanes[0].1);
        self.0.fold(lanes[1].1, lanes[2].1);
        self.0.fold(lanes[3].1, 0);
    }

    #[inline]
    fn take_in(lanes: &mut [(IndexKey, u64); LANES], block: &[u8; BLOCK_BYTES]) {
        let (words, _) = block.as_chunks::<8>();
        for (at, (key, sum)) in lanes.iter_mut().enumerate() {
            let (a, b) = (u64::from_le_bytes(words[2 * at]), u64::from_le_bytes(words[2 * at + 1]));
            // The rotation keeps what a product with zero would lose.
            *sum = key.hash(a ^ *sum, b) ^ sum.rotate_left(23) ^ a;
        }
    }

    pub(super) const fn total(&self) -> (u64, u64) {
        (self.0.0, self.0.1)
    }
}
