//! A whole table as bytes, for a node that joins: pieces of bounded size, all of one moment of the table. They are made
//! one after the other while the table goes on (`slices.rs`).
//!
//! What is told is what decides: a table made from it does with every later command exactly what the original does,
//! down to slot numbers and the order of queues. What follows from that (indices, counts by mode, the places of names
//! and timers) is made anew by whoever reads, so it cannot disagree, and the private key of its indices is the reader's
//! own. Of a lease only what commands said is told, not what renewals moved.
//!
//! A piece is `version u16 · number u32 · records`, a record is `tag u8 · fields` and never cut in two. The last record of
//! the last piece says how many pieces there are and has a sum over all of them. Reading checks everything that later
//! commands rely on; it takes no more memory than the table that was told would, and never panics.

mod answers;
mod bundles;
mod check;
mod grants;
mod locks;
mod pieces;
mod restore;
mod sessions;
mod slices;
#[cfg(test)]
mod tests;
mod waiters;
mod write;

pub use restore::Restorer;
pub use slices::Slice;
pub(crate) use slices::Slices;

use crate::table::{Settings, Table};
use alloc::vec::Vec;
use core::fmt;
use fairlock_protocol::{Malformed, Refusal};

/// Which form of snapshot this version writes and reads.
pub const SNAPSHOT_VERSION: u16 = 1;
/// Longest piece in bytes: with what is put around it, it fits where a frame fits.
pub const PIECE_BYTES_MAX: usize = 60_000;
/// Longest record in bytes. A name with everything that a lock has takes about half of it.
const RECORD_BYTES_MAX: usize = 4096;

/// Kinds of records, in the order in which they come.
mod tag {
    pub(super) const HEAD: u8 = 1;
    pub(super) const RULE: u8 = 2;
    pub(super) const NAMESPACE: u8 = 3;
    /// A store begins: its chunks follow, then its records.
    pub(super) const BOOK: u8 = 4;
    pub(super) const PAGE: u8 = 5;
    /// A record that is not in use.
    pub(super) const VACANT: u8 = 6;
    pub(super) const SESSION: u8 = 7;
    /// A kept answer of the session before it.
    pub(super) const KEPT: u8 = 8;
    pub(super) const LOCK: u8 = 9;
    pub(super) const GRANT: u8 = 10;
    pub(super) const WAITER: u8 = 11;
    pub(super) const BUNDLE: u8 = 12;
    /// What the bundle before it asks for, one by one.
    pub(super) const ITEM: u8 = 13;
    /// Lists whose order counts and which are no links of records: who may inherit, who wants notices, who died.
    pub(super) const HEIR: u8 = 14;
    pub(super) const NOTICE: u8 = 15;
    pub(super) const MARK: u8 = 16;
    pub(super) const END: u8 = 17;
    /// Tokens whose grants were claimed after a loss; in the lists.
    pub(super) const REASSERTED: u8 = 18;
}

/// Why pieces do not make a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum BadSnapshot {
    /// They are of another form.
    Version {
        /// Which.
        found: u16,
    },
    /// A piece is missing or came twice.
    Piece {
        /// Number of the piece that was to come.
        expected: u32,
        /// Number of the piece that came.
        found: u32,
    },
    /// A record cannot be read.
    Malformed(Malformed),
    /// A record says what cannot be, or what does not go with the others.
    Unsound(&'static str),
    /// The table is not the settings': the nodes of a cell must agree on this.
    Settings(&'static str),
    /// The sum over all pieces is another.
    Sum,
    /// The last piece has not come.
    Incomplete,
}

impl fmt::Display for BadSnapshot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            BadSnapshot::Version { found } => {
                write!(f, "snapshot of version {found}, this node reads {SNAPSHOT_VERSION}")
            }
            BadSnapshot::Piece { expected, found } => {
                write!(f, "piece {found} of a snapshot came, piece {expected} was to come")
            }
            BadSnapshot::Malformed(malformed) => {
                write!(f, "a record of a snapshot cannot be read: {malformed}")
            }
            BadSnapshot::Unsound(what) => write!(f, "a snapshot is not sound: {what}"),
            BadSnapshot::Settings(which) => write!(f, "this node's {which} is not that of the cell"),
            BadSnapshot::Sum => write!(f, "the pieces of a snapshot do not add up to its sum"),
            BadSnapshot::Incomplete => write!(f, "a snapshot ends before its last piece"),
        }
    }
}

impl core::error::Error for BadSnapshot {}

impl From<Malformed> for BadSnapshot {
    fn from(malformed: Malformed) -> BadSnapshot {
        BadSnapshot::Malformed(malformed)
    }
}

impl From<Refusal> for BadSnapshot {
    fn from(refusal: Refusal) -> BadSnapshot {
        BadSnapshot::Malformed(Malformed::Refused(refusal))
    }
}

/// The fact that makes a snapshot sound, or what is wrong when it is not one.
fn sound(fact: bool, otherwise: &'static str) -> Result<(), BadSnapshot> {
    if fact { Ok(()) } else { Err(BadSnapshot::Unsound(otherwise)) }
}

impl Table {
    /// Tells the whole table, as it is now, in pieces of at most [`PIECE_BYTES_MAX`]. Between commands only.
    /// [`Table::begin_snapshot`] is for a table that goes on meanwhile.
    ///
    /// # Panics
    /// While this table is told in slices.
    pub fn snapshot(&self, mut give: impl FnMut(Vec<u8>)) {
        assert!(!self.has_slices(), "one snapshot is told at a time");
        let mut telling = write::Telling::new(self);
        while !telling.is_over() {
            telling.go_on(self, u32::MAX);
            while let Some(piece) = telling.pieces.take_full() {
                give(piece);
            }
        }
    }

    /// The table that these pieces tell of, all of them in order. See [`Restorer`] for pieces that come one by one.
    ///
    /// # Errors
    /// Says what is wrong with the pieces, or on what the settings do not agree with them.
    pub fn from_snapshot<P: AsRef<[u8]>>(
        settings: Settings,
        pieces: impl IntoIterator<Item = P>,
    ) -> Result<Table, BadSnapshot> {
        let mut restorer = Restorer::new(settings);
        for piece in pieces {
            restorer.piece(piece.as_ref())?;
            while !restorer.go_on(u32::MAX)? {}
        }
        restorer.finish()
    }
}
