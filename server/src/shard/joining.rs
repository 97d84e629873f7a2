//! A node joins a shard: the primary tells its table in slices between requests, the joiner puts it together the same way.
//!
//! Neither stands still for it: a slice is a few microseconds while there are requests, and more while there are none. The
//! snapshot is of the moment at which it began; what is decided since follows in the log. One is told at a time; who wants
//! one meanwhile asks again.

use std::collections::VecDeque;

use fairlock_locktable::snapshot::{BadSnapshot, Restorer, Slice};
use fairlock_locktable::{Settings as TableSettings, Table};
use fairlock_protocol::Tick;
use fairlock_replication::replica::LinkKey;

use super::Shard;

/// Records told in a pass that served somebody (R7), and in one that did not.
const RECORDS_BUSY: u32 = 64;
const RECORDS_IDLE: u32 = 512;
/// Pieces read in a pass, and records checked after the last of them: nobody waits for a joiner yet.
const PIECES_A_PASS: usize = 2;
const CHECKS_A_PASS: u32 = 4096;

/// A snapshot on its way.
#[derive(Debug, Default)]
pub(super) struct Join {
    /// To whom it is told.
    to: Option<LinkKey>,
    /// What was received of one and not read yet, and whether that is all.
    received: VecDeque<Vec<u8>>,
    complete: bool,
    /// The table as far as it was read, and its moment.
    restorer: Option<(Tick, Restorer)>,
    /// Something of the piece read last is still to be done.
    unfinished: bool,
}

impl Join {
    /// A piece came.
    pub(super) fn take_in(&mut self, bytes: Vec<u8>, last: bool) {
        self.received.push_back(bytes);
        self.complete = last;
    }

    /// Whether a pass has something to read.
    fn reads(&self) -> bool {
        !self.received.is_empty() || self.unfinished
    }

    /// Reads on, and gives the table when it is complete.
    fn read(&mut self, settings: &TableSettings) -> Result<Option<(Tick, Table)>, BadSnapshot> {
        for _ in 0..PIECES_A_PASS {
            if let Some((_, restorer)) = &mut self.restorer {
                self.unfinished = !restorer.go_on(CHECKS_A_PASS)?;
                if self.unfinished {
                    return Ok(None);
                }
            }
            let Some(piece) = self.received.pop_front() else { break };
            match &mut self.restorer {
                None => {
                    // The first piece is the moment.
                    let moment = piece.try_into().map_err(|_| BadSnapshot::Incomplete)?;
                    self.restorer = Some((Tick(u64::from_le_bytes(moment)), Restorer::new(settings.clone())));
                }
                Some((_, restorer)) => {
                    restorer.piece(&piece)?;
                    self.unfinished = true;
                }
            }
        }
        if self.unfinished || !self.complete || !self.received.is_empty() {
            return Ok(None);
        }
        let Some((moment, restorer)) = self.restorer.take() else { return Ok(None) };
        Ok(Some((moment, restorer.finish()?)))
    }
}

impl Shard {
    /// Whether a snapshot gives this shard work although nothing arrives.
    pub(super) fn is_joining(&self) -> bool {
        let Some(replicated) = &self.replicated else { return false };
        let can_tell = match replicated.join.to {
            Some(key) => replicated.replica.wants_pieces(key) != Some(0),
            None => true,
        };
        replicated.join.reads() || self.table.has_slices() && can_tell
    }

    /// A node wants a snapshot of the table as it is.
    pub(super) fn begin_to_tell(&mut self, key: LinkKey) {
        let Some(replicated) = &mut self.replicated else { return };
        if !self.table.begin_snapshot() {
            return replicated.replica.postpone_snapshot(key);
        }
        replicated.join.to = Some(key);
        replicated.replica.begin_snapshot(self.now, key);
        replicated.replica.offer_piece(key, replicated.moment.0.to_le_bytes().to_vec(), false);
    }

    /// Tells the next slice, if the joiner can take it; forgets what was kept for one that is over.
    pub(super) fn tell_joiner(&mut self) {
        let Some(replicated) = &mut self.replicated else { return };
        if !self.table.has_slices() {
            return;
        }
        let records = if replicated.written.is_empty() { RECORDS_IDLE } else { RECORDS_BUSY };
        let Some(key) = replicated.join.to else {
            self.table.snapshot_slice(records);
            return;
        };
        match replicated.replica.wants_pieces(key) {
            Some(0) => {}
            Some(_) => {
                if let Slice::Piece { bytes, last } = self.table.snapshot_slice(records) {
                    replicated.replica.offer_piece(key, bytes, last);
                    replicated.join.to.take_if(|_| last);
                }
            }
            // It went, or this node is no primary any more.
            None => {
                replicated.join.to = None;
                self.table.end_snapshot();
            }
        }
    }

    /// Reads on in the snapshot that a primary sends; with the last of it this node has a table.
    pub(super) fn restore(&mut self) {
        let Some(replicated) = &mut self.replicated else { return };
        if !replicated.join.reads() {
            return;
        }
        if !replicated.replica.awaits_restored() {
            // Its sender went; another snapshot begins with a reset.
            replicated.join = Join::default();
            return;
        }
        match replicated.join.read(&replicated.table) {
            Ok(None) => {}
            Ok(Some((moment, table))) => {
                self.table = table;
                replicated.moment = moment;
                replicated.replica.restored();
            }
            Err(error) => {
                replicated.join = Join::default();
                tracing::error!(%error, "a snapshot that cannot be read; this node cannot join");
            }
        }
    }
}
