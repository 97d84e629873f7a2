//! What this node is and may promise: the rules of `replication::Run` with the disk under them. The control thread
//! owns it; shards ask for longer leases through their lane and get them once they are durable.

use std::time::Duration;

use fairlock_protocol::{CellId, Epoch, Tick};
use fairlock_replication::{ColdStart, Record, Run};

use super::{StateDirectory, StateError};

/// How this run begins.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Beginning {
    /// Which cell.
    pub(crate) cell: CellId,
    /// Its epoch from now on.
    pub(crate) epoch: Epoch,
    /// Nothing was remembered.
    pub(crate) new_cell: bool,
    /// Until when nobody is granted anything; [`Tick::ZERO`] when there is no quarantine.
    pub(crate) recovering_until: Tick,
}

impl Beginning {
    /// Of a node that has yet to ask its cell's register.
    pub(crate) fn unknown() -> Beginning {
        let epoch = Epoch::new(1).expect("1 is an epoch");
        Beginning { cell: CellId(0), epoch, new_cell: false, recovering_until: Tick::ZERO }
    }
}

/// A run of this node on its directory.
#[derive(Debug)]
pub(crate) struct NodeState {
    directory: StateDirectory,
    run: Run,
    recovering_until: Tick,
}

impl NodeState {
    /// Begins a run: its epoch and that it did not stop cleanly are durable when this returns, which is before the first
    /// frame may be read. `fresh` becomes the id of a new cell; `clock` is read after the write, because a quarantine
    /// counts from there.
    ///
    /// # Errors
    /// [`StateError`]: do not start.
    pub(crate) fn begin(
        directory: StateDirectory,
        unix_s: u64,
        fresh: CellId,
        clock: impl FnOnce() -> Tick,
    ) -> Result<(NodeState, Beginning), StateError> {
        let stored = directory.read()?;
        let start = ColdStart::decide(stored, unix_s, fresh);
        let start = start
            .map_err(|source| StateError::EpochsExhausted { path: directory.path().to_path_buf(), source })?;
        directory.write(&start.record)?;
        let quarantined = !start.quarantine.is_zero();
        let recovering_until = if quarantined { clock().after(start.quarantine) } else { Tick::ZERO };
        let Record { cell, epoch, ttl_horizon, .. } = start.record;
        let beginning = Beginning { cell, epoch, new_cell: start.new_cell, recovering_until };
        let (path, number) = (directory.path().display(), epoch.get());
        if beginning.new_cell {
            tracing::info!(%path, %cell, epoch = number, "this is a new cell: the state directory was empty");
        } else {
            tracing::info!(%path, %cell, epoch = number, "state read");
        }
        if quarantined {
            let (wait, longest_lease) = (start.quarantine, ttl_horizon);
            let why = "the last run did not stop cleanly: no grants until its leases are over";
            tracing::warn!(?wait, ?longest_lease, "{why}");
        }
        Ok((NodeState { directory, run: Run::begun(&start), recovering_until }, beginning))
    }

    /// Until when nobody is granted anything; [`Tick::ZERO`] when there is no quarantine.
    pub(crate) fn recovering_until(&self) -> Tick {
        self.recovering_until
    }

    /// Makes leases up to `ttl` durable; they may be granted when this returns `Ok`.
    ///
    /// # Errors
    /// [`StateError`]: do not grant it; ask again later.
    pub(crate) fn raise(&mut self, ttl: Duration) -> Result<(), StateError> {
        if let Some(record) = self.run.to_cover(ttl) {
            self.store(record)?;
        }
        self.run.allow(ttl);
        Ok(())
    }

    /// The quarantine has passed: a later restart need not wait for what was before this run.
    ///
    /// # Errors
    /// [`StateError`]: nothing is lost but time at the next restart; ask again later.
    pub(crate) fn quarantine_over(&mut self) -> Result<(), StateError> {
        self.run.quarantine_over().map_or(Ok(()), |record| self.store(record))
    }

    /// Every shard has stopped. `Ok(true)`: the stop is clean, the next start waits for nothing.
    ///
    /// # Errors
    /// [`StateError`]: the stop does not count as clean.
    pub(crate) fn stopped(&mut self, live_sessions: u32) -> Result<bool, StateError> {
        let record = self.run.stopped(live_sessions);
        if record != self.run.record() {
            self.store(record)?;
        }
        Ok(record.clean)
    }

    fn store(&mut self, record: Record) -> Result<(), StateError> {
        let outcome = self.directory.write(&record);
        match outcome {
            Ok(()) => self.run.stored(record),
            Err(_) => self.run.not_stored(record),
        }
        outcome
    }
}
