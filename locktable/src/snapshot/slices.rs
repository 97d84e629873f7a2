//! A snapshot in slices: the table goes on changing while it is told, and each slice is as long as its caller allows.

use super::write::Telling;
use crate::table::Table;
use alloc::vec::Vec;

/// What one slice of a snapshot gave.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Slice {
    /// A piece is complete.
    Piece {
        /// Its bytes.
        bytes: Vec<u8>,
        /// It is the last one.
        last: bool,
    },
    /// There is more to do.
    Nothing,
    /// No snapshot is told, and nothing is left of the one before: the next can begin.
    Over,
}

/// Where the present snapshot is.
#[derive(Debug, Default)]
pub(crate) enum Slices {
    /// There is none.
    #[default]
    None,
    /// It is told.
    Telling(Telling),
    /// It was told, or is wanted no more: what was kept for it is forgotten little by little.
    Forgetting,
}

impl Table {
    /// Begins to tell the table as it is now; [`Table::snapshot_slice`] gives its pieces. False when the snapshot before this
    /// one is not over yet: one is told at a time. Between commands only.
    pub fn begin_snapshot(&mut self) -> bool {
        if !matches!(self.slices, Slices::None) {
            return false;
        }
        let telling = Telling::new(self);
        self.each_store(&mut |store| {
            store.begin_keeping();
            true
        });
        self.slices = Slices::Telling(telling);
        true
    }

    /// Tells up to about `records` records more of the snapshot that was begun. After the last piece, goes on forgetting
    /// what was kept for it.
    pub fn snapshot_slice(&mut self, records: u32) -> Slice {
        match core::mem::take(&mut self.slices) {
            Slices::None => Slice::Over,
            Slices::Telling(mut telling) => {
                telling.go_on(self, records);
                let last_told = telling.is_over();
                let bytes = telling.pieces.take_full();
                let last = last_told && !telling.pieces.has_full();
                self.slices = Slices::Telling(telling);
                let Some(bytes) = bytes else { return Slice::Nothing };
                if last {
                    self.end_snapshot();
                }
                Slice::Piece { bytes, last }
            }
            Slices::Forgetting => {
                let mut left = records;
                if self.each_store(&mut |store| store.forget_kept(&mut left)) {
                    return Slice::Over;
                }
                self.slices = Slices::Forgetting;
                Slice::Nothing
            }
        }
    }

    /// Nobody wants the snapshot any more: nothing is kept for it from here on, and slices forget what was.
    pub fn end_snapshot(&mut self) {
        if let Slices::Telling(_) = self.slices {
            self.each_store(&mut |store| {
                store.end_keeping();
                true
            });
            self.slices = Slices::Forgetting;
        }
    }

    /// Whether [`Table::snapshot_slice`] has something to do.
    pub const fn has_slices(&self) -> bool {
        !matches!(self.slices, Slices::None)
    }

    /// Visits every store that a snapshot reads; whether `visit` was true of all.
    fn each_store(&mut self, visit: &mut dyn FnMut(&mut dyn Keeps) -> bool) -> bool {
        let stores: [&mut dyn Keeps; 12] = [
            &mut self.sessions,
            &mut self.locks,
            &mut self.grants,
            &mut self.waiters,
            &mut self.bundles,
            &mut self.extras,
            &mut self.crowds,
            &mut self.turns,
            &mut self.rotas,
            self.wheel.timers_mut(),
            self.marks.records_mut(),
            &mut self.names,
        ];
        let mut all = true;
        for store in stores {
            all &= visit(store);
        }
        all
    }
}

/// A store that can keep what it was.
trait Keeps {
    fn begin_keeping(&mut self);
    fn end_keeping(&mut self);
    fn forget_kept(&mut self, left: &mut u32) -> bool;
}

impl<T: crate::slab::Record, const B: u32> Keeps for crate::slab::Slab<T, B> {
    fn begin_keeping(&mut self) {
        self.begin_keeping();
    }
    fn end_keeping(&mut self) {
        self.end_keeping();
    }
    fn forget_kept(&mut self, left: &mut u32) -> bool {
        self.forget_kept(left)
    }
}

impl Keeps for crate::names::Names {
    fn begin_keeping(&mut self) {
        self.begin_keeping();
    }
    fn end_keeping(&mut self) {
        self.end_keeping();
    }
    fn forget_kept(&mut self, left: &mut u32) -> bool {
        self.forget_kept(left)
    }
}

#[cfg(test)]
mod tests;
