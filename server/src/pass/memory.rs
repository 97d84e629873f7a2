//! What a pass does for clients that share memory with the shard: it hears their rings, tells them that it lives, wakes
//! those that sleep, and says to all of them when it is about to sleep itself.

use fairlock_locktable::command::{Ended, SessionKey};
use fairlock_protocol::{SessionId, Tick};
use fairlock_shm::wait;

use super::{LOOKS, PASSES_PER_PUBLICATION, PASSES_WITHOUT_KERNEL, ShardThread};
use crate::clock;
use crate::connection::ConnectionKey;
use crate::driver::{Event, Flush, LinkId};
use crate::lanes::ToShard;
use crate::shard::Output;
use crate::stats::ShardStats;

/// Bells that may wait for a client that says it polls its socket; one that reads none of so many does not.
const BELLS_UNREAD_MAX: usize = 4096;

impl ShardThread {
    /// Begins and ends reading where the shard wants that.
    pub(super) fn read_as_wanted(&mut self, output: &mut Output) {
        let Output { read_once, pause, read_on, .. } = output;
        for connection in read_once.drain(..) {
            if let Some(link) = self.link_of(connection) {
                self.driver.read_once(link);
            }
        }
        for connection in pause.drain(..) {
            match self.link_of(connection) {
                Some(_) if self.rings.has(connection) => self.rings.pause(connection, true),
                Some(link) => self.driver.pause(link),
                None => {}
            }
        }
        for connection in read_on.drain(..) {
            match self.link_of(connection) {
                Some(_) if self.rings.has(connection) => self.rings.pause(connection, false),
                Some(link) => self.driver.read_on(link),
                None => {}
            }
        }
    }

    /// Whether a ring has something to say, so that the kernel need not be asked this time.
    pub(super) fn rings_are_ready(&mut self) -> bool {
        let looks = if self.temper.looks() { LOOKS } else { 1 };
        self.rings.are_heard() && self.without_kernel < PASSES_WITHOUT_KERNEL && self.rings.look(looks)
    }

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
            return !self.shard.look_at_wanted();
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
            && let Some(confirmed) = self.shard.confirmed(now)
            && self.stamps.take(now)
        {
            // What has passed since counts on both clocks; one that stood still meanwhile only makes it earlier.
            let since = now.0.saturating_sub(confirmed.0);
            beacon.stamp(self.number, confirmed.0, clock::monotonic().0.saturating_sub(since));
        }
    }

    /// A client that shared memory with us says no more, or nothing that would count: what it said before does.
    pub(super) fn hear_out(&mut self, now: Tick, connection: ConnectionKey, gone: bool) {
        if self.rings.has(connection) {
            let shard = &mut self.shard;
            self.rings.drain(connection, |connection, bytes| shard.received(connection, bytes));
            self.shard.serve_out(now, connection, gone);
        }
    }

    /// The process of a session is gone, or its last descendant is.
    pub(super) fn process_gone(&mut self, now: Tick, session: SessionKey) {
        let shared = self.shared_with(session);
        if let Some(connection) = shared {
            self.hear_out(now, connection, true);
        }
        self.shard.process_gone(now, session);
        self.bury(shared);
    }

    /// Another shard says that a session ended. What its client said to this one before that counts, although it was never
    /// heard.
    pub(super) fn session_over(&mut self, now: Tick, (id, why): (SessionId, Ended), message: ToShard) {
        let shared = self.shard.session(id).and_then(|session| self.shared_with(session));
        let gone = why == Ended::Died;
        if let Some(connection) = shared
            && (gone || why == Ended::Expired)
        {
            self.hear_out(now, connection, gone);
        }
        self.shard.message(now, message);
        self.bury(shared.filter(|_| gone));
    }

    /// The connection through which a session shares memory with this shard.
    fn shared_with(&mut self, session: SessionKey) -> Option<ConnectionKey> {
        self.shard.connection_of(session).filter(|connection| self.rings.has(*connection))
    }

    /// What is written to a client stays unread beyond all bounds: its connection ends, with everything that waits.
    pub(super) fn drop_unread(&mut self, connection: ConnectionKey, link: LinkId) {
        tracing::warn!(
            connection = connection.slot,
            "a client does not read its answers; connection dropped"
        );
        ShardStats::add(&self.stats.dropped_total);
        self.driver.close(link, Flush::Discard);
        self.forget(link, connection);
        self.shard.dropped(connection);
    }

    /// Nobody is at the other end any more, though a forked child may keep the socket open: its memory is given back.
    fn bury(&mut self, connection: Option<ConnectionKey>) {
        if let Some(connection) = connection
            && let Some(link) = self.link_of(connection)
        {
            self.driver.close(link, Flush::Discard);
            self.forget(link, connection);
            self.shard.disconnected(connection);
        }
    }

    /// Publishes what found no slot before, then wakes clients that sleep: last, because each costs microseconds.
    pub(super) fn look_after_rings(&mut self) {
        if !self.rings.are_attached() {
            return;
        }
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
            if self.driver.backlog(link) > BELLS_UNREAD_MAX
                && let Some(connection) = self.connection_of(link)
            {
                self.drop_unread(connection, link);
            }
        }
        self.bells = sockets;
    }
}

#[cfg(test)]
mod tests;
