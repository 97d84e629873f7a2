//! What a pass does for clients that share memory with the shard: it hears their rings, tells them that it lives, wakes
//! those that sleep, and says to all of them when it is about to sleep itself.

use fairlock_protocol::Tick;
use fairlock_shm::wait;

use super::{PASSES_PER_PUBLICATION, ShardThread};
use crate::clock;
use crate::connection::ConnectionKey;
use crate::driver::Event;

impl ShardThread {
    /// Says on every ring that this thread looks no more by itself, and looks once more. `false`: there is something to do.
    pub(super) fn may_sleep(&mut self) -> bool {
        if !self.rings.are_attached() {
            return true;
        }
        if self.rings.has_sleepers() || !self.rings.doze() {
            return false;
        }
        if self.shard.wants_words() {
            // A holder may have left by a plain store that is on its way, having seen nobody waiting.
            if self.shard.wants_barrier() && !wait::barrier() {
                tracing::debug!(
                    "no barrier: a word that was left is seen with the next message of its client"
                );
            }
            return !self.shard.look_at_wanted() || !self.shard.is_busy();
        }
        true
    }

    /// Takes what rings say: those that were heard, and those whose clients rang.
    pub(super) fn hear_rings(&mut self, events: &[Event]) -> bool {
        if !self.rings.are_attached() {
            return false;
        }
        for event in events {
            if let Event::Received { link, .. } = event
                && let Some(connection) = self.connection_of(*link)
                && self.rings.has(connection)
            {
                self.rings.hear(connection);
            }
        }
        let shard = &mut self.shard;
        let gathered = self.rings.gather(|connection, bytes| shard.received(connection, bytes));
        if self.passes.is_multiple_of(PASSES_PER_PUBLICATION) {
            self.rings.hush_silent();
        }
        for (connection, corrupt) in gathered.corrupt {
            self.shard.corrupted(clock::now(), connection, corrupt);
        }
        gathered.any
    }

    /// Tells the clients on this host, now and then, that this thread serves.
    pub(super) fn stamp(&mut self, now: Tick) {
        if self.rings.are_attached()
            && let Some(beacon) = &self.beacon
            && self.stamps.take(now)
        {
            beacon.stamp(self.number, now.0, clock::monotonic().0);
        }
    }

    /// A client that shared memory with us is gone: what it said before counts, nothing after.
    pub(super) fn hear_out(&mut self, now: Tick, connection: ConnectionKey) {
        if self.rings.has(connection) {
            let shard = &mut self.shard;
            self.rings.drain(connection, |connection, bytes| shard.received(connection, bytes));
            self.shard.serve_out(now, connection);
            self.rings.detach(connection);
        }
    }

    /// Publishes what found no slot before, then wakes clients that sleep: last, because each costs microseconds.
    pub(super) fn look_after_rings(&mut self) {
        if self.rings.are_full() {
            let mut drained = Vec::new();
            for (connection, corrupt) in self.rings.retry(&mut drained) {
                self.shard.corrupted(clock::now(), connection, corrupt);
            }
            for connection in drained {
                self.shard.unstall(connection);
            }
        }
        let mut sockets = std::mem::take(&mut self.bells);
        self.rings.wake(&mut sockets);
        for link in sockets.drain(..) {
            self.driver.send(link, &mut vec![0]);
        }
        self.bells = sockets;
    }
}
