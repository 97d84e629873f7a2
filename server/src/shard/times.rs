//! What time decides at the doors: handshakes, first frames and halves of frames that take too long, and who goes when
//! too many connections show no session. All of one kind take equally long, so a queue each is enough and every
//! operation costs the same however many there are.

use std::collections::{BTreeMap, VecDeque};
use std::net::IpAddr;

use fairlock_protocol::limits::{FIRST_FRAME_TIME, PARTIAL_FRAME_TIME};
use fairlock_protocol::{Refusal, RequestId, Tick};

use super::Shard;
use crate::connection::{Connection, ConnectionKey, Phase};
use crate::lanes::ToControl;
use crate::stats::ShardStats;

/// Entries that are gone or bound may stand in the list of the unbound, beside as many as are there.
const UNBOUND_SPARE: usize = 64;

/// Deadlines of connections, and how many show no session.
#[derive(Debug, Default)]
pub(super) struct Timeouts {
    /// Connections that have yet to show a session, oldest first; some may be gone or bound since.
    unbound: VecDeque<ConnectionKey>,
    unbound_count: usize,
    by_address: BTreeMap<IpAddr, usize>,
    /// HELLOs and first frames that are due.
    greetings: VecDeque<(Tick, ConnectionKey)>,
    /// Halves of frames: since when.
    partials: VecDeque<(Tick, ConnectionKey)>,
}

impl Timeouts {
    /// A connection was made, and has shown no session.
    pub(super) fn greeting(&mut self, due: Tick, key: ConnectionKey, address: Option<IpAddr>) {
        self.unbound(key, address);
        self.due(due, key);
    }

    /// A connection shows no session, or shows none any more: it counts against the caps.
    pub(super) fn unbound(&mut self, key: ConnectionKey, address: Option<IpAddr>) {
        self.unbound.push_back(key);
        self.unbound_count += 1;
        if let Some(address) = address {
            *self.by_address.entry(address).or_default() += 1;
        }
    }

    fn due(&mut self, due: Tick, key: ConnectionKey) {
        self.greetings.push_back((due, key));
    }

    /// The beginning of a frame waits for its end.
    pub(super) fn partial(&mut self, since: Tick, key: ConnectionKey) {
        self.partials.push_back((since, key));
    }

    /// A connection showed a session, or is ending: it counts no more against the caps.
    pub(super) fn bound(&mut self, address: Option<IpAddr>) {
        assert!(self.unbound_count > 0, "it was counted when it came");
        self.unbound_count -= 1;
        if let Some(address) = address
            && let Some(count) = self.by_address.get_mut(&address)
        {
            *count -= 1;
            if *count == 0 {
                self.by_address.remove(&address);
            }
        }
    }

    /// Forgets those that are gone or bound, when they have become the greater part.
    fn prune(&mut self, is_unbound: impl Fn(ConnectionKey) -> bool) {
        if self.unbound.len() > 2 * self.unbound_count + UNBOUND_SPARE {
            self.unbound.retain(|&key| is_unbound(key));
        }
    }

    /// The one that came first among those `wanted`.
    fn oldest(&self, wanted: impl Fn(ConnectionKey) -> bool) -> Option<ConnectionKey> {
        self.unbound.iter().copied().find(|&key| wanted(key))
    }

    /// Which cap leaves no room for one more connection from `address`.
    fn crowding(&self, address: Option<IpAddr>, in_all: usize, each: usize) -> Crowding {
        let here = address.and_then(|address| self.by_address.get(&address)).copied().unwrap_or(0);
        match address {
            Some(address) if here >= each => Crowding::From(address),
            _ if self.unbound_count >= in_all => Crowding::InAll,
            _ => Crowding::None,
        }
    }
}

/// Who must make room for one more connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Crowding {
    /// Nobody.
    None,
    /// The oldest from this address.
    From(IpAddr),
    /// The oldest of all.
    InAll,
}

impl Shard {
    /// Ends the oldest connections without a session while the caps leave no room for one more.
    pub(super) fn make_room(&mut self, address: Option<IpAddr>) {
        let (in_all, each) = (self.settings.unbound_max, self.settings.unbound_per_address_max);
        let connections = &self.connections;
        self.timeouts.prune(|key| connections.at(key).is_some_and(Connection::is_unbound));
        loop {
            let connections = &self.connections;
            let from = |key: ConnectionKey| {
                connections.at(key).filter(|connection| connection.is_unbound()).map(|c| c.peer.address())
            };
            let oldest = match self.timeouts.crowding(address, in_all, each) {
                Crowding::None => return,
                Crowding::From(address) => self.timeouts.oldest(|key| from(key) == Some(Some(address))),
                Crowding::InAll => self.timeouts.oldest(|key| from(key).is_some()),
            };
            let Some(oldest) = oldest else { return };
            ShardStats::add(&self.stats.dropped_total);
            self.refuse(oldest, RequestId::NOTICE, Refusal::Busy.into());
            self.end_connection(oldest, true);
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

    /// Applies everything that time has decided by now.
    pub(super) fn run_due(&mut self) {
        while let Some(command) = self.table.due(self.now) {
            self.apply(command);
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
            let stuck =
                self.connections.at(key).is_some_and(|connection| connection.partial_since == Some(since));
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
        [self.table.next_due(), greeting, partial, parked].into_iter().flatten().min()
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
