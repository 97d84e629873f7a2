//! What this node is and may promise: the rules of `replication::Run` with the disk under them. The control thread
//! owns it; shards ask for longer leases through their lane and get them once they are durable.

use std::time::Duration;

use fairlock_protocol::{CellId, DigestKey, Epoch, MacKey, Tick};
use fairlock_replication::{ColdStart, Fresh, Record, Run};

use super::snapshot::{FileSum, Unusable, sum_of};
use super::{Pasts, RECORD, StateDirectory, StateError};

/// How this run begins.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Beginning {
    /// Which cell.
    pub(crate) cell: CellId,
    /// Its epoch from now on.
    pub(crate) epoch: Epoch,
    /// Until when nobody is granted anything; [`Tick::ZERO`] when there is no quarantine.
    pub(crate) recovering_until: Tick,
    /// Key of the proofs that clients get with their grants.
    pub(crate) mac_key: MacKey,
    /// Key of the digests of names.
    pub(crate) digest_key: DigestKey,
}

impl Beginning {
    /// Of a node that has yet to ask its cell's register.
    pub(crate) fn unknown() -> Beginning {
        let (epoch, recovering_until) = (Epoch::new(1).expect("1 is an epoch"), Tick::ZERO);
        let (mac_key, digest_key) = (MacKey([0; 16]), DigestKey([0, 0]));
        Beginning { cell: CellId(0), epoch, recovering_until, mac_key, digest_key }
    }
}

/// A run that has begun.
#[derive(Debug)]
pub(crate) struct Begun {
    /// Its keeper.
    pub(crate) state: NodeState,
    /// What it is.
    pub(crate) beginning: Beginning,
    /// What the run before left, to go on from.
    pub(crate) pasts: Option<Pasts>,
    /// It left something that cannot be used.
    pub(crate) unusable: Option<Unusable>,
}

/// What the shards left when they stopped.
#[derive(Clone, Debug, Default)]
pub(crate) struct Leftovers {
    /// Sessions that may be alive.
    pub(crate) sessions: u32,
    /// Sessions that hold something.
    pub(crate) holders: u32,
    /// A shard waited for older leases to end.
    pub(crate) recovering: bool,
    /// The sums of what they wrote, one for each shard; `None` when one of them did not.
    pub(crate) files: Option<Vec<FileSum>>,
}

/// The epoch of the server alone that used a directory which a node of a cell uses now; `None`: nobody did.
///
/// # Errors
/// [`StateError`]: somebody may still hold what that server granted, or it cannot be read.
pub(crate) fn epoch_alone(directory: &StateDirectory) -> Result<Option<Epoch>, StateError> {
    match directory.read()? {
        // No lease was granted, or a clean end left none alive.
        Some(Record { ttl_horizon: Duration::ZERO, epoch, .. }) => Ok(Some(epoch)),
        Some(_) => Err(StateError::LeftAlone { path: directory.path().join(RECORD) }),
        None => Ok(None),
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
    /// Begins a run: its epoch, that it did not stop cleanly and that there is no snapshot any more are durable when this
    /// returns, which is before the first frame may be read. `fresh` becomes the id of a new cell; `recall` reads the
    /// snapshot that goes with a record; `clock` is read after the write, because a quarantine counts from there.
    ///
    /// # Errors
    /// [`StateError`]: do not start.
    pub(crate) fn begin(
        directory: StateDirectory,
        unix_s: u64,
        fresh: Fresh,
        recall: impl FnOnce(&StateDirectory, &Record) -> Result<Pasts, Unusable>,
        clock: impl FnOnce() -> Tick,
    ) -> Result<Begun, StateError> {
        let stored = directory.read()?;
        let left = stored.filter(|record| record.snapshot.is_some());
        let recalled = left.map(|record| recall(&directory, &record));
        let (pasts, unusable) = match recalled.transpose() {
            Ok(pasts) => (pasts, None),
            Err(unusable) => (None, Some(unusable)),
        };
        let start = ColdStart::decide(stored, pasts.is_some(), unix_s, fresh);
        let start = start
            .map_err(|source| StateError::EpochsExhausted { path: directory.path().to_path_buf(), source })?;
        directory.write(&start.record)?;
        directory.remove_snapshot()?;
        let quarantined = !start.quarantine.is_zero();
        let recovering_until = if quarantined { clock().after(start.quarantine) } else { Tick::ZERO };
        let Record { cell, epoch, mac_key, digest_key, .. } = start.record;
        let mac_key = mac_key.unwrap_or(fresh.mac_key);
        let digest_key = digest_key.unwrap_or(fresh.digest_key);
        let beginning = Beginning { cell, epoch, recovering_until, mac_key, digest_key };
        tell(&directory, &start, unusable.as_ref());
        let state = NodeState { directory, run: Run::begun(&start), recovering_until };
        Ok(Begun { state, beginning, pasts, unusable })
    }

    /// The directory it keeps.
    pub(crate) fn directory(&self) -> &StateDirectory {
        &self.directory
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
    pub(crate) fn stopped(&mut self, left: &Leftovers) -> Result<bool, StateError> {
        if left.files.is_some() {
            self.directory.settle()?;
        }
        let snapshot = left.files.as_deref().filter(|_| !left.recovering).map(sum_of);
        // Whoever is in the snapshot goes on and may be granted something; whoever is not is over unless he holds it.
        let alive = if snapshot.is_some() { left.sessions } else { left.holders };
        let record = self.run.stopped(alive.max(left.recovering.into()), snapshot);
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

/// Says how a run begins, for people.
fn tell(directory: &StateDirectory, start: &ColdStart, unusable: Option<&Unusable>) {
    let Record { cell, epoch, ttl_horizon, .. } = start.record;
    let (path, number) = (directory.path().display(), epoch.get());
    if let Some(unusable) = unusable {
        tracing::error!(%path, %unusable, "the snapshot of the last stop cannot be used: its sessions are forgotten");
    }
    if start.new_cell {
        tracing::info!(%path, %cell, epoch = number, "this is a new cell: the state directory was empty");
    } else {
        tracing::info!(%path, %cell, epoch = number, goes_on = start.goes_on, "state read");
    }
    if !start.quarantine.is_zero() {
        let (wait, longest_lease) = (start.quarantine, ttl_horizon);
        let why = "the last run did not stop cleanly: no grants until its leases are over";
        tracing::warn!(?wait, ?longest_lease, "{why}");
    }
}
