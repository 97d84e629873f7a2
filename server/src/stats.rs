//! Numbers a shard publishes for whoever wants to look: the metrics page and the health check. Written by the shard's
//! thread once a pass when something changed, read by the control thread; each is a fact of its own, so Relaxed is
//! enough and no reader may conclude from one to another.

use std::sync::atomic::{AtomicU64, Ordering};

macro_rules! stats {
    ($($(#[$doc:meta])* $name:ident: $kind:ident, $help:literal;)*) => {
        /// One shard's published numbers.
        #[derive(Debug, Default)]
        pub(crate) struct ShardStats {
            $($(#[$doc])* pub(crate) $name: AtomicU64,)*
        }

        impl ShardStats {
            /// Every number: name, whether it only rises, what it counts, and its value.
            pub(crate) fn read(&self) -> Vec<(&'static str, Kind, &'static str, u64)> {
                vec![$((stringify!($name), Kind::$kind, $help, self.$name.load(Ordering::Relaxed)),)*]
            }
        }
    };
}

/// How a number moves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Up and down.
    Gauge,
    /// Only up, from the start of the process.
    Counter,
}

stats! {
    /// Resources in use.
    locks: Gauge, "Resources with a holder, a waiter or a delay";
    /// Grants held.
    grants: Gauge, "Grants held";
    /// Waiting requests.
    waiters: Gauge, "Requests and conversions that wait";
    /// Sessions whose home this shard is.
    sessions: Gauge, "Sessions alive whose home this shard is";
    /// Open connections.
    connections: Gauge, "Connections open";
    /// Bytes of the lock table.
    table_bytes: Gauge, "Bytes the lock table takes";
    /// Milliseconds left of a quarantine.
    recovering_ms: Gauge, "Milliseconds left of the quarantine after a loss of memory";
    /// Grants given.
    grants_total: Counter, "Grants given";
    /// Grants given back.
    releases_total: Counter, "Grants given back";
    /// Waits that ended by time.
    timeouts_total: Counter, "Waits that ended by time";
    /// Waits withdrawn.
    cancels_total: Counter, "Waits withdrawn";
    /// Sessions ended by silence or death.
    expiries_total: Counter, "Sessions that expired or died";
    /// Conversions refused because of a cycle.
    deadlocks_total: Counter, "Requests refused because of a cycle of waits";
    /// Fairness violations.
    overtakes_total: Counter, "Times somebody was served before one who came earlier, against the rules; must stay 0";
    /// Passes that a discipline allows.
    bypasses_total: Counter, "Times somebody was served before one who came earlier, as the namespace's discipline allows";
    /// Requests refused.
    refusals_total: Counter, "Requests refused, for whatever reason";
    /// Frames received.
    frames_total: Counter, "Frames received";
    /// Connections closed for malformed input.
    malformed_total: Counter, "Connections closed for malformed input";
    /// Connections closed for a limit: handshake or frame time, backlog, too many.
    dropped_total: Counter, "Connections closed because a time or a size limit was reached";
    /// Connections accepted.
    accepts_total: Counter, "Connections accepted";
    /// Grants left with their clients.
    cached_total: Counter, "Grants that stayed with their client, to be entered again without a message";
    /// Cached grants wanted back.
    revocations_total: Counter, "Cached grants taken back because somebody else wanted the lock";
    /// Bytes of the log.
    log_bytes: Gauge, "Bytes of the log that not everybody has acknowledged";
    /// Operations that the last of those who follow has not acknowledged.
    follower_lag: Gauge, "Operations that the slowest node that follows has not acknowledged";
    /// Nodes that follow.
    followers: Gauge, "Nodes that follow this shard, members and joiners";
    /// Passes of the shard's loop.
    passes_total: Counter, "Passes of the shard's loop";
}

impl ShardStats {
    /// Counts one more. Only the shard's own thread writes, so no locked instruction is needed.
    pub(crate) fn add(cell: &AtomicU64) {
        cell.store(cell.load(Ordering::Relaxed).wrapping_add(1), Ordering::Relaxed);
    }

    /// Stores a gauge or a counter kept elsewhere.
    pub(crate) fn set(cell: &AtomicU64, value: u64) {
        cell.store(value, Ordering::Relaxed);
    }
}
