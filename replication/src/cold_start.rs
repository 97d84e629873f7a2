//! The start of a node that answers to nobody, and what it must write before it may promise anything (R13).
//!
//! Two things must outlive a process that dies without a word: its epoch, so that tokens never go back, and the longest
//! lease it may have granted, so that the next run keeps everybody out until that lease is certainly over. Both are
//! durable *before* they are used. A write that failed may or may not have reached the disk; [`Run`] therefore counts
//! on the worse of the two until a later write succeeds.

use core::fmt;
use core::time::Duration;

use fairlock_protocol::limits::TTL_MAX;
use fairlock_protocol::tick::quarantine;
use fairlock_protocol::{CellId, DigestKey, Epoch, MacKey};

use crate::record::Record;

/// How a run begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ColdStart {
    /// To be made durable before the first frame is read.
    pub record: Record,
    /// How long nobody is granted anything, counted from the moment the record is durable.
    pub quarantine: Duration,
    /// Nothing was remembered: this is a new cell.
    pub new_cell: bool,
    /// The run goes on with everything that the run before left in its snapshot.
    pub goes_on: bool,
}

/// Randomness, for what is made once.
#[derive(Clone, Copy, Debug)]
pub struct Fresh {
    /// The id of a new cell.
    pub cell: CellId,
    /// A key for the proofs of grants.
    pub mac_key: MacKey,
    /// A key for the digests of names.
    pub digest_key: DigestKey,
}

impl ColdStart {
    /// Decides from what was stored (`None` in a new directory), whether the snapshot that goes with it was read whole, the
    /// seconds since 1970, and what is random. A snapshot that cannot be read makes the end before an unclean one.
    ///
    /// # Errors
    /// [`EpochsExhausted`].
    ///
    /// # Panics
    /// When `fresh` is 0, which means "not known".
    pub fn decide(
        stored: Option<Record>,
        was_read: bool,
        unix_s: u64,
        fresh: Fresh,
    ) -> Result<ColdStart, EpochsExhausted> {
        let (snapshot, clean) = (None, false);
        let (mac_key, digest_key) = (Some(fresh.mac_key), Some(fresh.digest_key));
        let Some(stored) = stored else {
            assert_ne!(fresh.cell, CellId(0), "a cell has an id");
            let (cell, epoch, ttl_horizon) = (fresh.cell, Epoch::first_at(unix_s), Duration::ZERO);
            let record = Record { cell, epoch, ttl_horizon, clean, snapshot, mac_key, digest_key };
            return Ok(ColdStart { record, quarantine: Duration::ZERO, new_cell: true, goes_on: false });
        };
        let epoch = stored.epoch.next().ok_or(EpochsExhausted)?;
        assert!(epoch > stored.epoch, "an epoch is never used twice");
        // After a clean stop no lease is alive but those in the snapshot, whatever the horizon was.
        let is_over = stored.clean && stored.snapshot.is_none();
        let ttl_horizon = if is_over { Duration::ZERO } else { stored.ttl_horizon };
        let (mac_key, digest_key) = (stored.mac_key.or(mac_key), stored.digest_key.or(digest_key));
        let cell = stored.cell;
        let record = Record { cell, epoch, ttl_horizon, clean, snapshot, mac_key, digest_key };
        let goes_on = was_read && stored.snapshot.is_some();
        let quarantine = if goes_on { Duration::ZERO } else { quarantine(ttl_horizon) };
        Ok(ColdStart { record, quarantine, new_cell: false, goes_on })
    }
}

/// Every epoch was used (in 34 years of one change a minute).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EpochsExhausted;

impl fmt::Display for EpochsExhausted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("every epoch was used; tokens of this cell cannot rise any more")
    }
}

impl core::error::Error for EpochsExhausted {}

/// One run of a node, from its durable first record to its end: which leases it may grant, and what to write next.
///
/// Each record it gives out is followed by [`Run::stored`] or [`Run::not_stored`].
#[derive(Clone, Debug)]
pub struct Run {
    /// What the disk should hold.
    record: Record,
    /// A restart certainly waits at least for leases this long: the least that may be on disk.
    covered: Duration,
    /// Longest lease this run was allowed to grant.
    granted: Duration,
    /// Leases of the run before may be alive.
    in_quarantine: bool,
}

impl Run {
    /// The run that follows this start, whose record is durable.
    ///
    /// # Panics
    /// When the start was not made by [`ColdStart::decide`].
    pub fn begun(start: &ColdStart) -> Run {
        assert!(!start.record.clean, "a run that began is not a clean stop");
        let (in_quarantine, horizon) = (!start.quarantine.is_zero(), start.record.ttl_horizon);
        assert!(
            in_quarantine != horizon.is_zero() || start.goes_on,
            "old leases and a quarantine come together, unless the leases go on"
        );
        // Leases that go on are this run's from here on.
        let granted = if start.goes_on { horizon } else { Duration::ZERO };
        Run { record: start.record, covered: horizon, granted, in_quarantine }
    }

    /// What the disk should hold.
    pub fn record(&self) -> Record {
        self.record
    }

    /// Longest lease this run was allowed to grant.
    pub fn granted(&self) -> Duration {
        self.granted
    }

    /// What to store before a lease of `ttl` is granted; `None` when a restart waits long enough already (then the
    /// caller says [`Run::allow`] at once).
    ///
    /// # Panics
    /// When `ttl` is longer than the protocol allows.
    pub fn to_cover(&self, ttl: Duration) -> Option<Record> {
        assert!(ttl <= TTL_MAX, "a lease is checked where it is asked for");
        if ttl <= self.covered {
            return None;
        }
        Some(Record { ttl_horizon: whole_millis(ttl).max(self.record.ttl_horizon), ..self.record })
    }

    /// Leases up to `ttl` are granted from now on.
    ///
    /// # Panics
    /// When a restart would not wait for them: [`Run::to_cover`] comes first.
    pub fn allow(&mut self, ttl: Duration) {
        assert!(ttl <= self.covered, "a lease is durable before it is granted");
        self.granted = self.granted.max(whole_millis(ttl));
    }

    /// The quarantine has passed: what to store so that a later restart waits for this run's leases only; `None` when
    /// that is stored already.
    ///
    /// # Panics
    /// Never, unless the run was told of records it did not give out.
    pub fn quarantine_over(&mut self) -> Option<Record> {
        self.in_quarantine = false;
        if self.record.ttl_horizon == self.granted {
            return None;
        }
        assert!(self.granted < self.record.ttl_horizon, "what was granted is covered");
        Some(Record { ttl_horizon: self.granted, ..self.record })
    }

    /// What to store when every shard has stopped and left so many leases: a clean stop if and only if none of them is
    /// alive, or all are in the snapshot with this sum, and none of the run before can be.
    ///
    /// # Panics
    /// Never, unless the run was told of records it did not give out.
    pub fn stopped(&self, live_sessions: u32, snapshot: Option<u128>) -> Record {
        let clean = (live_sessions == 0 || snapshot.is_some()) && !self.in_quarantine;
        let is_over = clean && live_sessions == 0;
        let ttl_horizon = if is_over { Duration::ZERO } else { self.record.ttl_horizon };
        let record = Record { ttl_horizon, clean, snapshot: snapshot.filter(|_| clean), ..self.record };
        assert!(record.clean || record.ttl_horizon >= self.granted, "an unclean stop keeps the horizon");
        record
    }

    /// The record is durable.
    ///
    /// # Panics
    /// When this run did not give it out.
    pub fn stored(&mut self, record: Record) {
        assert_eq!((record.cell, record.epoch), (self.record.cell, self.record.epoch), "a run has one epoch");
        self.record = record;
        self.covered = record.ttl_horizon;
    }

    /// The record could not be stored: the disk holds it or the one before, nobody can say which.
    ///
    /// # Panics
    /// When this run did not give it out.
    pub fn not_stored(&mut self, record: Record) {
        assert_eq!((record.cell, record.epoch), (self.record.cell, self.record.epoch), "a run has one epoch");
        self.covered = self.covered.min(record.ttl_horizon);
        assert!(
            record.clean || self.covered >= self.granted,
            "no record in between covers less than was granted"
        );
    }
}

/// Rounded up to what the text of a record can say: rounding down would promise too little.
fn whole_millis(duration: Duration) -> Duration {
    let whole_ms = u64::try_from(duration.as_nanos().div_ceil(1_000_000)).unwrap_or(u64::MAX);
    let whole = Duration::from_millis(whole_ms);
    assert!(whole >= duration, "rounded up");
    whole
}

#[cfg(test)]
mod tests;
