//! A shard's thread: one loop that moves bytes between a driver and a [`Shard`], reads the clock once a pass, and
//! decides nothing.
//!
//! One pass: wait as patience allows; hand every received chunk to the shard; *then* read the clock, so that no
//! request bears a time before it was sent; take the messages of other threads; step the shard; write what came of it,
//! one send for each connection; close and move connections.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use fairlock_locktable::command::SessionKey;
use fairlock_protocol::Tick;
use fairlock_protocol::limits::WRITE_PAUSE_BYTES;
use fairlock_replication::replica::LinkKey;
use fairlock_shm::beacon::Beacon;

use crate::clock;
use crate::connection::{ConnectionKey, Peer};
use crate::driver::{Driver, Event, Flush, LinkId, Patience, WatchId};
use crate::lanes::{Adoption, ControlLane, Inbox, Left, ShardLane, ToControl, ToShard};
use crate::patience::Temper;
use crate::rings::{Rings, Stamps};
use crate::shard::{Output, Shard, Watch};
use crate::state::SnapshotPlace;
use crate::stats::ShardStats;

/// Passes between two publications of a busy shard's numbers.
const PASSES_PER_PUBLICATION: u64 = 64;
/// Pause between two weighings of the table, which walk over every session.
const WEIGH_EVERY: Duration = Duration::from_secs(1);
/// Messages taken from one lane in a pass, so that clients are served between them.
const MESSAGES_PER_PASS: usize = 256;
/// Pause before a message that did not fit into a lane is tried again: its reader rings no bell.
const LANE_RETRY_TIME: Duration = Duration::from_millis(1);

/// Passes in a row that serve rings alone, so that sockets are not kept waiting for long.
const PASSES_WITHOUT_KERNEL: u32 = 8;
/// Looks at the rings between two questions to the kernel: a look costs nanoseconds, a question hundreds.
const LOOKS: u32 = 128;
/// Pause before bytes that found no slot in a ring are tried again: its client rings no bell for that.
const RING_RETRY_TIME: Duration = Duration::from_millis(1);

/// What connects a shard's thread with the others.
#[derive(Debug)]
pub(crate) struct Wiring {
    /// Messages for this shard, one lane from each other thread.
    pub(crate) inboxes: Vec<Inbox>,
    /// Lanes to the shards, by number; `None` for this one.
    pub(crate) shards: Vec<Option<ShardLane>>,
    /// The lane to the control thread.
    pub(crate) control: ControlLane,
}

/// A shard with its driver.
pub(crate) struct ShardThread {
    shard: Shard,
    driver: Box<dyn Driver>,
    wiring: Wiring,
    temper: Temper,
    stats: Arc<ShardStats>,
    /// Connection of each link, by the link's slot.
    links: Vec<Option<(LinkId, ConnectionKey)>>,
    /// Link of each connection, by the connection's slot.
    connections: Vec<Option<(ConnectionKey, LinkId)>>,
    /// Session of each watch, by the watch's slot.
    watches: Vec<Option<(WatchId, SessionKey)>>,
    /// Watch of each session, by the session's slot.
    watched: Vec<Option<(SessionKey, WatchId)>>,
    events: Vec<Event>,
    /// Streams with other nodes, by the link's slot.
    peers: Vec<Option<(LinkId, LinkKey)>>,
    streams_begun: u64,
    /// The door of shared memory.
    rings: Rings,
    /// What clients on this host see of this thread.
    beacon: Option<Arc<Beacon>>,
    stamps: Stamps,
    number: u16,
    /// The moment of the present or last pass.
    now: Tick,
    /// Passes since the driver was asked.
    without_kernel: u32,
    /// Sockets of clients that sleep in a poll, kept for its memory.
    bells: Vec<LinkId>,
    /// A lane has more messages than one pass takes.
    unheard: bool,
    stopping: bool,
    passes: u64,
    /// When the table is to be weighed again; `None` while nothing has changed since the last time.
    weigh_at: Option<Tick>,
    weighed_at: Tick,
    /// Unwritten bytes beyond which a connection is dropped.
    write_backlog_bytes: usize,
    /// Unwritten bytes beyond which a connection's requests wait.
    write_pause_bytes: usize,
    /// Where everything is written down at the end.
    snapshots: Option<SnapshotPlace>,
}

/// Says that a shard's thread panicked, in a program where that does not end the process: a server that has lost part of
/// its names must not go on with the rest.
struct LastWord {
    shard: u16,
    control: ControlLane,
}

impl Drop for LastWord {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let error = Some(io::Error::other("the shard's thread panicked"));
            // How many sessions it leaves is not known, and nobody may take the stop for a clean one.
            self.control.send(ToControl::Stopped { shard: self.shard, left: Left::UNKNOWN, error });
        }
    }
}

/// The entry of a slot-indexed list, made long enough.
fn place<T>(list: &mut Vec<Option<T>>, slot: u32) -> &mut Option<T> {
    let slot = slot as usize;
    if list.len() <= slot {
        list.resize_with(slot + 1, || None);
    }
    &mut list[slot]
}

impl ShardThread {
    pub(crate) fn new(
        shard: Shard,
        driver: Box<dyn Driver>,
        wiring: Wiring,
        temper: Temper,
        stats: Arc<ShardStats>,
        (write_backlog_bytes, number, beacon): (usize, u16, Option<Arc<Beacon>>),
        snapshots: Option<SnapshotPlace>,
    ) -> ShardThread {
        ShardThread {
            snapshots,
            peers: Vec::new(),
            streams_begun: 0,
            rings: Rings::default(),
            beacon,
            stamps: Stamps::new(),
            number,
            now: clock::now(),
            without_kernel: 0,
            bells: Vec::new(),
            shard,
            driver,
            wiring,
            temper,
            stats,
            links: Vec::new(),
            connections: Vec::new(),
            watches: Vec::new(),
            watched: Vec::new(),
            events: Vec::new(),
            unheard: false,
            stopping: false,
            passes: 0,
            weigh_at: Some(Tick::ZERO),
            weighed_at: Tick::ZERO,
            write_backlog_bytes,
            // Where the bound was configured low, requests wait before the connection is dropped all the same.
            write_pause_bytes: WRITE_PAUSE_BYTES.min(write_backlog_bytes / 2),
        }
    }

    /// Runs until told to stop, and reports how it ended.
    pub(crate) fn run(mut self) {
        let shard = self.number;
        let _last_word = LastWord { shard, control: self.wiring.control.clone() };
        let mut error = None;
        while !self.stopping {
            if let Err(broken) = self.pass() {
                tracing::error!(shard, error = %broken, "the io driver failed; the server stops");
                error = Some(broken);
                break;
            }
        }
        self.hang_up();
        let left = self.leave(error.is_none());
        self.wiring.control.send(ToControl::Stopped { shard, left, error });
    }

    fn pass(&mut self) -> io::Result<()> {
        let mut events = std::mem::take(&mut self.events);
        if self.rings_are_ready() {
            self.without_kernel += 1;
        } else {
            self.without_kernel = 0;
            let patience = self.settled_patience();
            self.driver.wait(patience, &mut events)?;
        }
        let said = self.hear_rings(&events);
        let now = clock::now();
        self.now = now;
        let mut worked = said || !events.is_empty() || self.shard.is_busy();
        // A link that ended has given its place away already, and whoever is taken in may get it: those who went come first.
        let is_arrival = |event: &Event| matches!(event, Event::Accepted { .. });
        events.sort_by_key(is_arrival);
        for event in events.drain(..) {
            self.event(now, event);
        }
        self.events = events;
        worked |= self.take_messages(now);
        if worked {
            self.temper.worked(now);
        }
        self.shard.step(now);
        self.stamp(now);
        if worked || self.shard.is_busy() {
            self.weigh_at = self.weigh_at.or(Some(self.weighed_at.after(WEIGH_EVERY)));
        }
        self.carry_out();
        self.passes += 1;
        if self.passes.is_multiple_of(PASSES_PER_PUBLICATION) {
            self.publish(now);
        }
        Ok(())
    }

    /// How the driver is to wait, after what comes before a sleep was done.
    fn settled_patience(&mut self) -> Patience {
        // The clock of the pass before is near enough while nothing sleeps.
        let mut before = self.now;
        if self.weigh_at.is_some_and(|at| before >= at) {
            self.publish(before);
        }
        let mut patience = self.patience(before);
        if matches!(patience, Patience::Sleep(_)) {
            before = clock::now();
            patience = self.patience(before);
            self.publish(before);
            if matches!(patience, Patience::Sleep(_)) && !self.may_sleep() {
                patience = Patience::Poll;
            }
        }
        patience
    }

    /// How long the next wait may last: not at all while anything is left to do, else until something is due.
    fn patience(&self, now: Tick) -> Patience {
        if self.shard.is_busy() || self.unheard {
            return Patience::Poll;
        }
        let full = self.wiring.shards.iter().flatten().any(ShardLane::has_backlog);
        let retry = full.then(|| now.after(LANE_RETRY_TIME));
        let stamp = self.rings.are_attached().then(|| self.stamps.due());
        let again = self.rings.are_full().then(|| now.after(RING_RETRY_TIME));
        let due = [self.shard.next_due(), retry, self.weigh_at, stamp, again].into_iter().flatten().min();
        self.temper.next(now, due)
    }

    fn event(&mut self, now: Tick, event: Event) {
        match event {
            Event::Received { link, chunk } => {
                if let Some(stream) = self.stream_of(link) {
                    self.shard.peer_received(stream, self.driver.bytes(&chunk));
                } else if let Some(connection) = self.connection_of(link)
                    && !self.rings.has(connection)
                {
                    self.shard.received(connection, self.driver.bytes(&chunk));
                }
                self.driver.recycle(chunk);
            }
            Event::Accepted { socket, peer } => {
                self.adopt(
                    now,
                    Adoption { socket, received: Vec::new(), peer: Peer::Tcp(peer), segment: None },
                );
            }
            Event::Drained { link } => {
                if let Some(connection) = self.connection_of(link) {
                    self.shard.unstall(connection);
                }
            }
            Event::Closed { link, error } => {
                if let Some(stream) = self.stream_of(link) {
                    tracing::debug!(?error, "the stream with another node ended");
                    *place(&mut self.peers, link.slot()) = None;
                    self.shard.peer_unlinked(now, stream);
                } else if let Some(connection) = self.connection_of(link) {
                    tracing::debug!(connection = connection.slot, ?error, "connection closed by the peer");
                    self.hear_out(now, connection, true);
                    self.forget(link, connection);
                    self.shard.disconnected(connection);
                }
            }
            Event::Gone { watch } => {
                let known = place(&mut self.watches, watch.slot()).take_if(|(known, _)| *known == watch);
                if let Some((_, session)) = known {
                    self.watched[session.slot as usize].take_if(|(known, _)| *known == session);
                    self.process_gone(now, session);
                }
            }
            Event::Woken => {}
        }
    }

    fn take_messages(&mut self, now: Tick) -> bool {
        let mut any = false;
        self.unheard = false;
        let mut inboxes = std::mem::take(&mut self.wiring.inboxes);
        for inbox in &mut inboxes {
            for _ in 0..MESSAGES_PER_PASS {
                let Ok(message) = inbox.pop() else { break };
                any = true;
                match message {
                    ToShard::Adopt(adoption) => self.adopt(now, *adoption),
                    ToShard::Peer(stream) => self.adopt_peer(now, *stream),
                    ToShard::Stop => self.stopping = true,
                    ToShard::SessionOver { id, why } | ToShard::SessionClosed { id, why } => {
                        self.session_over(now, (id, why), message);
                    }
                    other => self.shard.message(now, other),
                }
            }
            self.unheard |= !inbox.is_empty();
        }
        self.wiring.inboxes = inboxes;
        any
    }

    /// Takes a connection in, with what was received on it elsewhere.
    fn adopt(&mut self, now: Tick, adoption: Adoption) {
        let link = match self.driver.attach(adoption.socket) {
            Ok(link) => link,
            Err(error) => return tracing::warn!(%error, "a connection could not be taken"),
        };
        let segment = adoption.segment;
        let connection = self.shard.connected(now, adoption.peer, segment.clone());
        *place(&mut self.links, link.slot()) = Some((link, connection));
        *place(&mut self.connections, connection.slot) = Some((connection, link));
        if let Some(segment) = segment {
            self.rings.attach(connection, link, segment);
            // On the socket a byte is a bell and its end the end; the rest goes through the rings.
            self.driver.read_on(link);
            self.stamps = Stamps::new();
        }
        if !adoption.received.is_empty() {
            self.shard.received(connection, &adoption.received);
        }
    }

    fn connection_of(&self, link: LinkId) -> Option<ConnectionKey> {
        let (known, connection) = (*self.links.get(link.slot() as usize)?)?;
        (known == link).then_some(connection)
    }

    fn link_of(&self, connection: ConnectionKey) -> Option<LinkId> {
        let (known, link) = (*self.connections.get(connection.slot as usize)?)?;
        (known == connection).then_some(link)
    }

    fn forget(&mut self, link: LinkId, connection: ConnectionKey) {
        self.rings.detach(connection);
        place(&mut self.links, link.slot()).take_if(|(known, _)| *known == link);
        place(&mut self.connections, connection.slot).take_if(|(known, _)| *known == connection);
    }

    /// Does what the shard wants done. Bytes first: what is closed or moved afterwards has said its last word.
    fn carry_out(&mut self) {
        self.write_to_peers();
        // As a rule there is nothing but bytes, and the long list of everything else need not be moved.
        let mut dirty = std::mem::take(&mut self.shard.output().dirty);
        let rest = !self.shard.output().is_empty();
        let mut output = if rest { std::mem::take(self.shard.output()) } else { Output::default() };
        for connection in dirty.drain(..) {
            self.write(connection);
        }
        if rest {
            self.carry_out_rest(&mut output);
            self.return_output(output);
        }
        // Writing may have ended connections, and that may have given others something to read.
        dirty.append(&mut self.shard.output().dirty);
        self.shard.output().dirty = dirty;
        for lane in self.wiring.shards.iter_mut().flatten() {
            lane.flush();
        }
        self.look_after_rings();
        // What others committed need not be applied for what is said of it, so those who wait for that do not wait for this.
        self.shard.apply_committed();
    }

    /// Everything but bytes.
    fn carry_out_rest(&mut self, output: &mut Output) {
        self.read_as_wanted(output);
        for (connection, flush) in output.close.drain(..) {
            let flush = if flush { Flush::Queued } else { Flush::Discard };
            if let Some(link) = self.link_of(connection) {
                self.driver.close(link, flush);
                self.forget(link, connection);
            }
            self.shard.take_connection(connection);
        }
        for (connection, to) in output.moves.drain(..) {
            self.hand_over(connection, to.0);
        }
        for (session, watch) in output.watch.drain(..) {
            match watch {
                Watch::Begin(descriptor, watched) => self.watch(session, descriptor, watched),
                Watch::End => self.unwatch(session),
            }
        }
        for (shard, message) in output.to_shards.drain(..) {
            if let Some(Some(lane)) = self.wiring.shards.get_mut(usize::from(shard.0)) {
                lane.send(message);
            }
        }
        for message in output.to_control.drain(..) {
            self.wiring.control.send(message);
        }
    }

    /// Keeps the lists' memory for the next pass, unless carrying them out gave new work, which then comes first.
    fn return_output(&mut self, output: Output) {
        assert!(output.is_empty(), "everything was carried out");
        if self.shard.output().is_empty() {
            *self.shard.output() = output;
        }
    }

    fn write(&mut self, connection: ConnectionKey) {
        let Some(link) = self.link_of(connection) else { return };
        let Some(out) = self.shard.take_out(connection) else { return };
        let through_ring = self.rings.has(connection);
        let backlog = if through_ring {
            if let Err(corrupt) = self.rings.send(connection, out) {
                return self.shard.corrupted(clock::now(), connection, corrupt);
            }
            self.rings.backlog(connection)
        } else {
            self.driver.send(link, out);
            self.driver.backlog(link)
        };
        if backlog > self.write_backlog_bytes {
            self.drop_unread(connection, link);
        } else if through_ring && backlog > 0 {
            // It goes on when its client has taken everything: one that does not read is asked for no more answers.
            self.shard.stall(connection);
        } else if backlog > self.write_pause_bytes && self.shard.stall(connection) {
            self.driver.tell_drained(link, self.write_pause_bytes / 2);
        }
    }

    fn hand_over(&mut self, connection: ConnectionKey, to: u16) {
        let Some(link) = self.link_of(connection) else { return };
        self.forget(link, connection);
        let Some((peer, received)) = self.shard.take_connection(connection) else { return };
        let Some(socket) = self.driver.detach(link) else { return };
        if let Some(Some(lane)) = self.wiring.shards.get_mut(usize::from(to)) {
            lane.send(ToShard::Adopt(Box::new(Adoption { socket, received, peer, segment: None })));
        }
    }

    /// Publishes the shard's numbers for the metrics page; its weight only now and then.
    fn publish(&mut self, now: Tick) {
        let weigh = self.weigh_at.is_some_and(|at| now >= at);
        if weigh {
            (self.weigh_at, self.weighed_at) = (None, now);
        }
        self.shard.publish(weigh);
        ShardStats::set(&self.stats.passes_total, self.passes);
    }

    /// Ends every connection after what was written to it, at the end of the thread.
    fn hang_up(&mut self) {
        self.driver.stop_listening();
        for (connection, link) in self.connections.iter().flatten() {
            self.driver.close(*link, Flush::Queued);
            self.rings.detach(*connection);
        }
        // One more turn submits the closings; the driver's own end drops what then remains.
        let _ = self.driver.wait(Patience::Poll, &mut self.events);
        self.publish(clock::now());
    }
}

mod ending;
mod memory;
mod peers;
#[cfg(test)]
mod tests;
mod watching;
