//! What time decides at the doors: handshakes, first frames and halves of frames that take too long, and who goes when
//! too many connections show no session. All of one kind take equally long, so a queue each is enough and every
//! operation costs the same however many there are.

use std::collections::{BTreeMap, VecDeque};
use std::net::IpAddr;

use fairlock_locktable::command::Command;
use fairlock_protocol::limits::{FIRST_FRAME_TIME, PARTIAL_FRAME_TIME};
use fairlock_protocol::{Refusal, RequestId, Tick};

use super::Shard;
use crate::connection::{Connection, ConnectionKey, Phase};
use crate::lanes::ToControl;
use crate::stats::ShardStats;

/// Deadlines of connections, and which show no session.
#[derive(Debug, Default)]
pub(super) struct Timeouts {
    /// Connections that show no session, by the number of their turn: the oldest first.
    unbound: BTreeMap<u64, ConnectionKey>,
    /// The same by address; processes on this host have none.
    by_address: BTreeMap<IpAddr, BTreeMap<u64, ConnectionKey>>,
    /// The newest number.
    turn: u64,
    /// HELLOs and first frames that are due.
    greetings: VecDeque<(Tick, ConnectionKey)>,
    /// Halves of frames: since when.
    partials: VecDeque<(Tick, ConnectionKey)>,
}

impl Timeouts {
    /// A connection was made, and has shown no session.
    pub(super) fn greeting(&mut self, due: Tick, key: ConnectionKey, connection: &mut Connection) {
        self.unbound(key, connection);
        self.due(due, key);
    }

    /// A connection shows no session, or shows none any more: it counts against the caps, as the newest.
    pub(super) fn unbound(&mut self, key: ConnectionKey, connection: &mut Connection) {
        assert!(connection.unbound.is_none(), "a connection is counted once");
        self.turn += 1;
        connection.unbound = Some(self.turn);
        self.unbound.insert(self.turn, key);
        if let Some(address) = connection.peer.address() {
            self.by_address.entry(address).or_default().insert(self.turn, key);
        }
    }

    /// A connection showed a session, or is ending: it counts no more against the caps, if it did.
    pub(super) fn bound(&mut self, connection: &mut Connection) {
        let Some(turn) = connection.unbound.take() else { return };
        let known = self.unbound.remove(&turn);
        assert!(known.is_some(), "it was counted when it came");
        if let Some(address) = connection.peer.address()
            && let Some(neighbours) = self.by_address.get_mut(&address)
        {
            neighbours.remove(&turn);
            if neighbours.is_empty() {
                self.by_address.remove(&address);
            }
        }
    }

    fn due(&mut self, due: Tick, key: ConnectionKey) {
        self.greetings.push_back((due, key));
    }

    /// The beginning of a frame waits for its end.
    pub(super) fn partial(&mut self, since: Tick, key: ConnectionKey) {
        self.partials.push_back((since, key));
    }

    /// How many connections show no session.
    #[cfg(test)]
    pub(super) fn unbound_count(&self) -> usize {
        self.unbound.len()
    }

    /// Who must make room for one more connection from `address`: the oldest from there, or the oldest of all.
    fn crowding(&self, address: Option<IpAddr>, in_all: usize, each: usize) -> Option<ConnectionKey> {
        let neighbours = address.and_then(|address| self.by_address.get(&address));
        let crowd = match neighbours {
            Some(neighbours) if neighbours.len() >= each => neighbours,
            _ if self.unbound.len() >= in_all => &self.unbound,
            _ => return None,
        };
        crowd.first_key_value().map(|(_, key)| *key)
    }
}

impl Shard {
    /// Ends the oldest connections without a session while the caps leave no room for one more.
    pub(super) fn make_room(&mut self, address: Option<IpAddr>) {
        let (in_all, each) = (self.settings.unbound_max, self.settings.unbound_per_address_max);
        while let Some(oldest) = self.timeouts.crowding(address, in_all, each) {
            ShardStats::add(&self.stats.dropped_total);
            self.refuse(oldest, RequestId::NOTICE, Refusal::Busy.into());
            // At once: whoever floods us would have each of them linger for a second, descriptor and all.
            self.end_connection(oldest, false);
        }
    }

    /// The HELLO is answered; the first frame after it is due next.
    pub(super) fn await_first_frame(&mut self, key: ConnectionKey) {
        let due = self.now.after(FIRST_FRAME_TIME);
        if let Some(connection) = self.connections.at_mut(key) {
            connection.greeting_due = due;
            self.timeouts.due(due, key);
        }
    }

    /// The HELLO is answered, and the first frame after it may come at any time. The connection shows no session until
    /// then, and goes when room is needed.
    pub(super) fn stand_by(&mut self, key: ConnectionKey) {
        if let Some(connection) = self.connections.at_mut(key) {
            connection.greeting_due = Tick(u64::MAX);
        }
    }

    /// Applies everything that time has decided by now.
    pub(super) fn run_due(&mut self) {
        // What time decides is decided by whoever serves, and told to the others.
        while self.serves()
            && let Some(command) = self.table.due(self.moment())
        {
            match command {
                Command::End { session, why } => self.end_session(session, why),
                command => self.apply(command),
            }
        }
        while let Some(&(due, key)) = self.timeouts.greetings.front() {
            if due > self.now {
                break;
            }
            self.timeouts.greetings.pop_front();
            let late = self.connections.at(key).is_some_and(|connection| {
                matches!(connection.phase, Phase::Greeting | Phase::Welcomed)
                    && connection.greeting_due <= due
            });
            if late {
                self.drop_slow(key, "said nothing in time");
            }
        }
        while let Some(&(since, key)) = self.timeouts.partials.front() {
            if since.after(PARTIAL_FRAME_TIME) > self.now {
                break;
            }
            self.timeouts.partials.pop_front();
            // The frame may be whole by now and wait for answers to be read.
            let stuck = self
                .connections
                .at(key)
                .is_some_and(|connection| connection.partial_since == Some(since) && !connection.has_frame());
            if stuck {
                self.drop_slow(key, "the rest of a frame did not come");
            }
        }
        self.expire_parked();
    }

    /// Ends a connection that keeps us waiting; its session, if any, can come back on another.
    fn drop_slow(&mut self, key: ConnectionKey, why: &str) {
        ShardStats::add(&self.stats.dropped_total);
        tracing::debug!(connection = key.slot, why, "connection dropped");
        let refused = fairlock_protocol::reply::Refused { detail: why, ..Refusal::BadRequest.into() };
        self.refuse(key, RequestId::NOTICE, refused);
        self.end_connection(key, true);
    }

    /// The next moment at which [`Shard::step`] has something to do without any input.
    pub(crate) fn next_due(&self) -> Option<Tick> {
        let greeting = self.timeouts.greetings.front().map(|&(due, _)| due);
        let partial = self.timeouts.partials.front().map(|&(since, _)| since.after(PARTIAL_FRAME_TIME));
        let parked = self.parked.front().map(|parked| parked.due);
        let decided = self.table.next_due().filter(|_| self.serves()).map(|moment| self.tick_of(moment));
        let due = [decided, greeting, partial, parked, self.reclaim_due(), self.replica_due()];
        due.into_iter().flatten().min()
    }

    /// While draining: tells the control thread once that nothing is held or waited for here.
    pub(super) fn report_idle(&mut self) {
        if self.draining
            && !self.idle_told
            && self.table.counts().grants == 0
            && self.table.counts().waiters == 0
        {
            self.idle_told = true;
            self.output.to_control.push(ToControl::Idle { shard: self.settings.me.0 });
        }
    }
}
