//! A shard: the single-threaded state machine that owns a set of names, without a socket, a clock or a thread.
//!
//! Whoever drives it (a shard's thread, or a simulator) appends what connections received, calls [`Shard::step`] with
//! the moment, and carries out the [`Output`]. Everything that decides is here and below: handshake, sessions, locks,
//! operators' questions, times. Between `received` and `out` nobody can tell one transport from another.
//!
//! Order of a step: every waiting request first, then what time has decided. A request that arrived before a wait or a
//! lease ran out is therefore served before it does, and the moment is read after the last byte arrived.

mod admin;
mod cluster;
mod effects;
mod gate;
mod handshake;
mod joining;
mod locks;
mod messages;
mod office;
mod reading;
mod reassert;
pub(crate) mod replicated;
mod restart;
mod resume;
mod sessions;
#[cfg(test)]
pub(crate) mod tests;
mod times;
pub(crate) mod words;

use std::collections::{BTreeMap, VecDeque};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use fairlock_locktable::command::{Command, SessionKey};
use fairlock_locktable::{Effects, Table};
use fairlock_protocol::limits::PAGES_PER_PASS;
use fairlock_protocol::reply::Refused;
use fairlock_protocol::{
    CellId, DigestKey, Epoch, Frame, MacKey, Malformed, Refusal, Reply, Request, RequestId, SessionId,
    ShardId, Tick,
};

use crate::connection::{Connection, ConnectionKey, Connections, Peer, Phase};
use crate::control::Alarms;
use crate::driver::Watched;
use crate::lanes::{ToControl, ToShard};
use crate::stats::ShardStats;
use fairlock_shm::segment::Segment;
use sessions::{Opening, Parked, Presence};
use times::Timeouts;
use words::{Histories, Words};

/// What a shard is told at its start and never again.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    /// Which shard this is.
    pub(crate) me: ShardId,
    /// How many there are.
    pub(crate) shards: u16,
    /// The cell.
    pub(crate) cell: CellId,
    /// Its epoch.
    pub(crate) epoch: Epoch,
    /// Key of the digests.
    pub(crate) digest_key: DigestKey,
    /// Key of the proofs that go with grants.
    pub(crate) mac_key: MacKey,
    /// Longest lease granted.
    pub(crate) ttl_max: Duration,
    /// Longest lease that may be granted without asking the control thread, in milliseconds.
    pub(crate) horizon_ms: u32,
    /// Until when nothing is granted, after a loss of memory.
    pub(crate) quarantine_until: Tick,
    /// Connections without a session, in all and from one address.
    pub(crate) unbound_max: usize,
    /// The same from one address.
    pub(crate) unbound_per_address_max: usize,
    /// Grants that may stay with one client.
    pub(crate) cached_grants_max: usize,
    /// Which driver moves the bytes, for `status`.
    pub(crate) io: &'static str,
    /// When the server started.
    pub(crate) started: Tick,
}

/// What the driver of a shard has to do after a step.
#[derive(Debug, Default)]
pub(crate) struct Output {
    /// Connections with bytes to write.
    pub(crate) dirty: Vec<ConnectionKey>,
    /// Connections to read from until further notice.
    pub(crate) read_on: Vec<ConnectionKey>,
    /// Connections to read once more from.
    pub(crate) read_once: Vec<ConnectionKey>,
    /// Connections to stop reading from for a while.
    pub(crate) pause: Vec<ConnectionKey>,
    /// Connections to close; `true`: after what is queued was written.
    pub(crate) close: Vec<(ConnectionKey, bool)>,
    /// Connections that belong to another shard, with everything received on them.
    pub(crate) moves: Vec<(ConnectionKey, ShardId)>,
    /// Sessions that are to be watched, or not any more. In order: a slot may see an end and a beginning in one pass.
    pub(crate) watch: Vec<(SessionKey, Watch)>,
    /// Messages to other shards.
    pub(crate) to_shards: Vec<(ShardId, ToShard)>,
    /// Messages to the control thread.
    pub(crate) to_control: Vec<ToControl>,
}

impl Output {
    /// Whether there is nothing to do.
    pub(crate) fn is_empty(&self) -> bool {
        let Output { dirty, read_on, read_once, pause, close, moves, watch, to_shards, to_control } = self;
        let lists = [dirty, read_on, read_once, pause];
        lists.iter().all(|list| list.is_empty())
            && close.is_empty()
            && moves.is_empty()
            && watch.is_empty()
            && to_shards.is_empty()
            && to_control.is_empty()
    }
}

/// What the kernel is to tell of a session's process.
#[derive(Debug)]
pub(crate) enum Watch {
    /// When this process or pipe is gone.
    Begin(OwnedFd, Watched),
    /// Nothing any more.
    End,
}

/// One shard.
#[expect(clippy::struct_excessive_bools, reason = "independent facts, none a state of another")]
pub(crate) struct Shard {
    settings: Settings,
    table: Table,
    effects: Effects,
    connections: Connections,
    /// What the doors know of a session beyond the table, by the session's slot.
    presences: Vec<Option<Presence>>,
    /// Connections with whole frames, in the order in which they came.
    ready: VecDeque<ConnectionKey>,
    timeouts: Timeouts,
    /// Sessions that other shards have yet to learn of.
    openings: BTreeMap<SessionId, Opening>,
    /// OPENs that wait until their lease is on disk.
    parked: VecDeque<Parked>,
    /// Number of the newest session of this shard; those refused have none.
    session_seq: u32,
    /// Sessions here whose home is another shard.
    visiting: u64,
    ahead: reading::Ahead,
    /// What was seen of locks, for deciding which grants stay with their clients.
    histories: Histories,
    draining: bool,
    idle_told: bool,
    now: Tick,
    /// The table's time is this much ahead of the clock, where it went on after the server, or the host, was restarted.
    ahead_ns: i64,
    /// Grants that were given before this run.
    granted_before: u64,
    passes: u64,
    /// Lists and the like that this pass may still answer.
    pages_left: usize,
    /// A lease or token of a cell or epoch that this server does not remember was seen.
    memory_alarm: bool,
    entropy: Box<dyn FnMut() -> u128 + Send>,
    stats: Arc<ShardStats>,
    /// What is wrong with the server, for `status`.
    alarms: Alarms,
    /// Of a shard of a cell: its log, and what waits for others.
    replicated: Option<Box<replicated::Replicated>>,
    /// What is written now waits for a round.
    holds_back: bool,
    output: Output,
}

impl std::fmt::Debug for Shard {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shard").field("settings", &self.settings).finish_non_exhaustive()
    }
}

impl Shard {
    /// A shard with an empty table. `entropy` gives secrets and must not repeat.
    pub(crate) fn new(
        settings: Settings,
        table: Table,
        stats: Arc<ShardStats>,
        alarms: Alarms,
        entropy: Box<dyn FnMut() -> u128 + Send>,
    ) -> Shard {
        assert!(settings.shards > 0 && settings.me.0 < settings.shards, "a shard is one of those there are");
        Shard {
            settings,
            table,
            effects: Effects::default(),
            connections: Connections::default(),
            presences: Vec::new(),
            ready: VecDeque::new(),
            timeouts: Timeouts::default(),
            openings: BTreeMap::new(),
            parked: VecDeque::new(),
            session_seq: 0,
            visiting: 0,
            ahead: reading::Ahead::default(),
            histories: Histories::default(),
            draining: false,
            idle_told: false,
            now: Tick::ZERO,
            ahead_ns: 0,
            granted_before: 0,
            passes: 0,
            pages_left: 0,
            memory_alarm: false,
            entropy,
            stats,
            alarms,
            replicated: None,
            holds_back: false,
            output: Output::default(),
        }
    }

    /// A connection was made; its HELLO is to come. One too many costs the oldest that is bound to no session.
    /// With a segment, its bytes travel through shared memory.
    pub(crate) fn connected(
        &mut self,
        now: Tick,
        peer: Peer,
        segment: Option<Arc<Segment>>,
    ) -> ConnectionKey {
        self.now = now;
        ShardStats::add(&self.stats.accepts_total);
        self.make_room(peer.address());
        let due = now.after(fairlock_protocol::limits::HANDSHAKE_TIME);
        let key = self.connections.insert(Connection::new(
            peer,
            segment.map(|segment| Words::new(segment, self.settings.cached_grants_max)),
            due,
        ));
        if let Some(connection) = self.connections.at_mut(key) {
            self.timeouts.greeting(due, key, connection);
        }
        key
    }

    /// Serves what waits and what is due.
    pub(crate) fn step(&mut self, now: Tick) {
        assert!(now >= self.now, "time does not go back");
        self.now = now;
        self.passes += 1;
        self.pages_left = PAGES_PER_PASS;
        self.hear_peers(now);
        if self.wants_words() {
            self.look_at_wanted();
        }
        let sources = if self.is_full() { 0 } else { self.ready.len() };
        if sources > 1 {
            let first = usize::try_from(self.passes % sources as u64).expect("less than a usize");
            self.ready.rotate_left(first);
        }
        for _ in 0..sources {
            if let Some(key) = self.ready.pop_front() {
                self.serve(key);
            }
        }
        self.run_due();
        self.reclaim_idle_words();
        self.report_idle();
        self.end_replicated_pass();
    }

    /// A request on a connection that acts for a session.
    fn bound_request(
        &mut self,
        key: ConnectionKey,
        session: SessionKey,
        frame: &Frame<'_>,
        request: &Request<'_>,
    ) {
        if !self.acknowledge(session, frame.ack) {
            return self.reject(key, frame.request, Malformed::Illegal("ack"));
        }
        self.renew(session);
        match *request {
            Request::Open(_) | Request::Resume { .. } => {
                self.reject(
                    key,
                    frame.request,
                    Malformed::Illegal("the connection acts for a session already"),
                );
            }
            Request::Keepalive => self.keepalive(key, session, frame.request),
            Request::Close => self.close_session(key, session, frame.request),
            Request::Acquire(ref acquire) => self.acquire(key, session, frame.request, acquire),
            Request::AcquireAll(ref all) => self.acquire_all(key, session, frame.request, all),
            Request::Reassert(ref claim) => self.reassert(key, session, frame.request, claim),
            Request::Release(grant) => {
                self.forget_word(key, grant);
                self.apply(Command::Release { session, request: frame.request, grant });
            }
            Request::Convert { grant, mode, wait } => {
                self.forget_word(key, grant);
                self.convert(key, session, frame.request, (grant, mode, wait));
            }
            Request::Cancel(target) => {
                self.apply(Command::Cancel { session, request: frame.request, target });
            }
            Request::Confirm(grant) => {
                self.confirm_word(key, grant);
                self.apply(Command::Confirm { session, grant });
            }
            // Wanted words are looked at in every step; this only brought one about.
            Request::Look => {}
            ref other => self.operator_request(key, frame.request, other),
        }
    }

    /// A request on a connection that acts for no session.
    fn unbound_request(&mut self, key: ConnectionKey, request: RequestId, message: &Request<'_>) {
        if !self.serves() && !Shard::is_about_node(message) {
            return self.refuse_not_primary(key, request);
        }
        match *message {
            Request::Open(ref open) => self.open(key, request, open),
            Request::Resume { session, secret, received } => {
                self.resume(key, request, session, secret, received);
            }
            Request::Close
            | Request::Keepalive
            | Request::Acquire(_)
            | Request::AcquireAll(_)
            | Request::Reassert(_)
            | Request::Release(_)
            | Request::Convert { .. }
            | Request::Cancel(_)
            | Request::Look
            | Request::Confirm(_) => self.refuse(key, request, Refusal::SessionUnknown.into()),
            ref other => self.operator_request(key, request, other),
        }
    }

    /// Answers on a connection, if it is still there.
    fn reply(&mut self, key: ConnectionKey, request: RequestId, flags: u8, reply: &Reply<'_>) {
        if let Some(out) = self.out(key) {
            reply.encode(request, flags, out);
        }
    }

    /// Refuses one request.
    fn refuse(&mut self, key: ConnectionKey, request: RequestId, refused: Refused<'_>) {
        ShardStats::add(&self.stats.refusals_total);
        self.reply(key, request, 0, &Reply::Refused(refused));
    }

    /// Tells a peer what was wrong with its bytes and ends the connection; its session is not touched.
    fn reject(&mut self, key: ConnectionKey, request: RequestId, malformed: Malformed) {
        ShardStats::add(&self.stats.malformed_total);
        let detail = malformed.to_string();
        self.refuse(key, request, Refused { detail: &detail, ..malformed.refusal().into() });
        self.end_connection(key, true);
    }

    /// Ends a connection, after what is queued when `flush`.
    fn end_connection(&mut self, key: ConnectionKey, flush: bool) {
        let Some(connection) = self.connections.at_mut(key) else { return };
        let session = connection.session();
        connection.phase = Phase::Ending;
        self.timeouts.bound(connection);
        if let Some(session) = session {
            self.hang_up(session, key, false);
        }
        self.output.close.push((key, flush));
    }

    /// The buffer of a connection, which is then written at the end of the pass.
    fn out(&mut self, key: ConnectionKey) -> Option<&mut Vec<u8>> {
        if self.holds_back {
            let there = self.connections.at(key).is_some_and(|connection| !connection.hung_up);
            return if there { self.held_out(key) } else { None };
        }
        let connection = self.connections.at_mut(key).filter(|connection| !connection.hung_up)?;
        if !connection.dirty {
            connection.dirty = true;
            self.output.dirty.push(key);
        }
        Some(&mut connection.out)
    }

    /// What is to be done outside after a step; the caller empties it.
    pub(crate) fn output(&mut self) -> &mut Output {
        &mut self.output
    }

    /// Takes the bytes that are to be written to a connection.
    pub(crate) fn take_out(&mut self, key: ConnectionKey) -> Option<&mut Vec<u8>> {
        let connection = self.connections.at_mut(key)?;
        connection.dirty = false;
        Some(&mut connection.out)
    }

    /// Lets a connection go that was closed or moved, with everything received on it.
    pub(crate) fn take_connection(&mut self, key: ConnectionKey) -> Option<(Peer, Vec<u8>)> {
        let mut connection = self.connections.remove(key)?;
        self.timeouts.bound(&mut connection);
        let unread = connection.unread().to_vec();
        Some((connection.peer, unread))
    }

    /// Whether something is to be done at once: requests wait that no step has taken, or an output was not carried out.
    pub(crate) fn is_busy(&self) -> bool {
        !self.ready.is_empty() || !self.output.is_empty() || self.is_joining()
    }

    /// The lock table, for whoever checks it.
    pub(crate) fn table(&self) -> &Table {
        &self.table
    }
}
