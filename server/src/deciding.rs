//! The deciding half of a node of a cell: [`Control`], which is what its control thread decides, and [`Shard`], which is
//! what one shard's thread does. Without threads, sockets, clocks and randomness of their own: both are stepped with the
//! moment and what arrived, and say what is to be done. So a simulator runs the very code that a server runs.
//!
//! What one thread says to another ([`Letter`], [`Note`]) is opaque: whoever carries it decides only when it arrives, in
//! order between any two. Everything of shared memory and of watched processes is left out here: clients come by streams.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use fairlock_locktable::{Limits, NamespaceRules, Settings as TableSettings, Table};
use fairlock_protocol::{CellId, DigestKey, Epoch, MacKey, Refusal, ShardId, Tick};
use fairlock_replication::node::{self, Dialed, Node, NodeSettings, Standing, Wish};
use fairlock_replication::profile::Profile;
use fairlock_replication::replica::{LinkKey, Peer, Replica};
use fairlock_replication::{Answer, Ask, Member, Watched};

use crate::cell::clerk::{Clerk, Errand};
use crate::connection::{self, ConnectionKey};
use crate::control::Alarms;
use crate::lanes::{ToControl, ToShard};
use crate::shard::{self, Output};
use crate::stats::ShardStats;

/// A message on its way to a shard.
#[derive(Debug)]
pub struct Letter(ToShard);

/// A message of a shard on its way to the control thread.
#[derive(Debug)]
pub struct Note(ToControl);

/// What arrives at the control thread.
#[derive(Debug)]
pub enum Told {
    /// The register answered.
    Register(Answer),
    /// The register's watch says something.
    Watched(Watched),
    /// What became of dialling a node. The streams of one that was reached go to the shards before this.
    Dialed {
        /// Whom.
        member: Member,
        /// Only to learn who answers.
        probe: bool,
        /// What became of it.
        outcome: Dialed,
    },
    /// A node called, to follow. Its streams go to the shards after this.
    Called(Member),
    /// A shard says something.
    Note(Note),
    /// An operator wants something; the number comes back with the answer.
    Wish(u64, Wish),
    /// Time went on.
    Tick,
}

/// What the control thread wants done, in this order.
#[derive(Debug)]
pub enum Duty {
    /// Ask the register.
    Ask(Ask),
    /// Reach a member: with a stream for each shard, or (`probe`) only to learn who answers.
    Dial {
        /// Whom.
        member: Member,
        /// Only to learn who answers.
        probe: bool,
    },
    /// One letter for each shard, by number.
    Tell(Vec<Letter>),
    /// The node is something else now.
    Became(Standing),
    /// The answer to an operator.
    Answer(u64, Result<(), (Refusal, String)>),
}

/// What a node's control thread decides.
#[derive(Debug)]
pub struct Control {
    clerk: Clerk,
    shards: u16,
    alarms: Alarms,
}

impl Control {
    /// A node that has yet to look around. With fewer than `copies_min` members nothing is granted.
    pub fn new(settings: NodeSettings, copies_min: usize) -> Control {
        let shards = settings.shards;
        Control { clerk: Clerk::new(settings, copies_min), shards, alarms: Alarms::default() }
    }

    /// The node, for whoever wants to look.
    pub fn node(&self) -> &Node {
        self.clerk.node()
    }

    /// When it has something to do by itself.
    pub fn next_due(&self, now: Tick) -> Tick {
        self.clerk.node().next_due(now)
    }

    /// Takes one thing in.
    pub fn step(&mut self, now: Tick, told: Told) -> Vec<Duty> {
        let input = match told {
            Told::Register(answer) => node::Input::Register(answer),
            Told::Watched(watched) => node::Input::Watched(watched),
            Told::Dialed { member, probe, outcome } => {
                node::Input::Dialed { node: member.node, probe, outcome }
            }
            Told::Called(member) => node::Input::Met(member),
            Told::Wish(ticket, wish) => node::Input::Wish(ticket, wish),
            Told::Tick => node::Input::Tick,
            Told::Note(Note(ToControl::Report { shard, report })) => node::Input::Shard(shard, report),
            Told::Note(Note(ToControl::RaiseHorizon { ttl_ms })) => {
                node::Input::RaiseHorizon(Duration::from_millis(ttl_ms.into()))
            }
            // The others are of threads, which are not here.
            Told::Note(_) => return Vec::new(),
        };
        let errands = self.clerk.step(now, input, &self.alarms);
        errands.into_iter().filter_map(|errand| self.duty(errand)).collect()
    }

    fn duty(&self, errand: Errand) -> Option<Duty> {
        Some(match errand {
            Errand::Ask(ask) => Duty::Ask(ask),
            Errand::Dial { member, probe } => Duty::Dial { member, probe },
            Errand::Tell(message) => Duty::Tell((0..self.shards).map(|_| Letter(message.copy())).collect()),
            Errand::Became(standing) => Duty::Became(standing),
            Errand::Answer(ticket, answer) => Duty::Answer(ticket, answer),
            Errand::Known(_) | Errand::Stopped => return None,
        })
    }
}

/// What a shard is made of.
pub struct Birth {
    /// Which shard.
    pub me: u16,
    /// How many there are.
    pub shards: u16,
    /// Longest lease.
    pub ttl_max: Duration,
    /// Times of the cell.
    pub profile: Profile,
    /// Key of the positions in the table's indices; every node has its own.
    pub index_key: u64,
    /// Namespaces that are not strict.
    pub rules: NamespaceRules,
    /// Secrets of sessions come from here.
    pub entropy: Box<dyn FnMut() -> u128 + Send>,
}

impl std::fmt::Debug for Birth {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Birth").field("me", &self.me).field("shards", &self.shards).finish_non_exhaustive()
    }
}

/// One connection of a client with a shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Line(ConnectionKey);

/// What a shard wants done, in the order of the fields: bytes for other nodes first, ends and moves last.
#[derive(Debug, Default)]
pub struct Doings {
    /// Bytes for other nodes, by stream.
    pub streams: Vec<(LinkKey, Vec<u8>)>,
    /// Streams to end after that.
    pub hang_ups: Vec<LinkKey>,
    /// Bytes for clients.
    pub writes: Vec<(Line, Vec<u8>)>,
    /// Connections to end.
    pub closes: Vec<Line>,
    /// Connections that belong to another shard, with what was received on them and not taken.
    pub moves: Vec<(Line, u16, Vec<u8>)>,
    /// Letters to other shards.
    pub letters: Vec<(u16, Letter)>,
    /// Notes to the control thread.
    pub notes: Vec<Note>,
}

/// What one shard's thread does.
#[derive(Debug)]
pub struct Shard {
    shard: shard::Shard,
}

impl Shard {
    /// A shard that knows nothing yet.
    ///
    /// # Panics
    /// When there is no such shard.
    pub fn new(birth: Birth, now: Tick) -> Shard {
        let Birth { me, shards, ttl_max, profile, index_key, rules, entropy } = birth;
        let epoch = Epoch::new(1).expect("1 is an epoch");
        let table = TableSettings { epoch, shard: ShardId(me), index_key, limits: Limits::default(), rules };
        let settings = shard::Settings {
            me: ShardId(me),
            shards,
            cell: CellId(0),
            epoch,
            digest_key: DigestKey([0, 0]),
            mac_key: MacKey([0; 16]),
            ttl_max,
            horizon_ms: 0,
            quarantine_until: Tick::ZERO,
            unbound_max: 1024,
            unbound_per_address_max: 1024,
            cached_grants_max: 0,
            io: "none",
            started: now,
        };
        let stats = Arc::new(ShardStats::default());
        let mut shard =
            shard::Shard::new(settings, Table::new(table.clone()), stats, Alarms::default(), entropy);
        shard.replicate(Replica::new(profile), table);
        Shard { shard }
    }

    /// A client connected; its HELLO is to come.
    pub fn connected(&mut self, now: Tick, from: SocketAddr) -> Line {
        Line(self.shard.connected(now, connection::Peer::Tcp(from), None))
    }

    /// Bytes of a client arrived.
    pub fn received(&mut self, line: Line, bytes: &[u8]) {
        self.shard.received(line.0, bytes);
    }

    /// A client's connection is gone.
    pub fn disconnected(&mut self, line: Line) {
        self.shard.disconnected(line.0);
    }

    /// Another thread says something.
    pub fn letter(&mut self, now: Tick, letter: Letter) {
        self.shard.message(now, letter.0);
    }

    /// A stream with another node stands.
    pub fn peer_linked(&mut self, now: Tick, stream: LinkKey, peer: Peer, dialed: bool) {
        self.shard.peer_linked(now, stream, peer, dialed);
    }

    /// Bytes came on it.
    pub fn peer_received(&mut self, stream: LinkKey, bytes: &[u8]) {
        self.shard.peer_received(stream, bytes);
    }

    /// It ended.
    pub fn peer_unlinked(&mut self, now: Tick, stream: LinkKey) {
        self.shard.peer_unlinked(now, stream);
    }

    /// One pass, after everything that arrived was handed in: serves what waits and what is due.
    pub fn step(&mut self, now: Tick) -> Doings {
        self.shard.step(now);
        let mut doings = Doings::default();
        let streams = &mut doings.streams;
        doings.hang_ups = self.shard.take_peer_out(|key, out| streams.push((key, std::mem::take(out))));
        let Output { dirty, close, moves, to_shards, to_control, .. } = std::mem::take(self.shard.output());
        for key in dirty {
            if let Some(out) = self.shard.take_out(key) {
                doings.writes.push((Line(key), std::mem::take(out)));
            }
        }
        for (key, _) in close {
            self.shard.take_connection(key);
            doings.closes.push(Line(key));
        }
        for (key, to) in moves {
            if let Some((_, received)) = self.shard.take_connection(key) {
                doings.moves.push((Line(key), to.0, received));
            }
        }
        doings.letters = to_shards.into_iter().map(|(to, message)| (to.0, Letter(message))).collect();
        doings.notes = to_control.into_iter().map(Note).collect();
        self.shard.apply_committed();
        doings
    }

    /// Whether a pass has something to do although nothing arrived.
    pub fn is_busy(&self) -> bool {
        self.shard.is_busy()
    }

    /// When a pass has something to do by itself.
    pub fn next_due(&self) -> Option<Tick> {
        self.shard.next_due()
    }

    /// The table's time.
    pub fn moment(&self) -> Tick {
        self.shard.moment()
    }

    /// The lock table, for whoever checks it.
    pub fn table(&self) -> &Table {
        self.shard.table()
    }

    /// The replica, for whoever checks it.
    ///
    /// # Panics
    /// Never: a shard of a cell has one.
    pub fn replica(&self) -> &Replica {
        self.shard.replica().expect("a shard of a cell has a replica")
    }

    /// How far the log is applied in the table.
    pub fn applied_lsn(&self) -> u64 {
        self.replica().applied_lsn().0
    }
}
