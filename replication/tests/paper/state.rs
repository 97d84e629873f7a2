//! What a moment of the cell is made of: three nodes, the streams between them, the register with the swaps that are under
//! way to it, and, besides, what clients were shown and believe.
//!
//! Numbers are small on purpose: a log has few entries, each is the number of a client's operation and the reign that
//! entered it. What a table looks like follows from the log (`clients.rs`).

use std::hash::{Hash, Hasher};

use super::clients::{LOCKS, SESSIONS};

pub const NODES: u8 = 3;
/// Most entries of a log.
pub const LOG_MAX: usize = 5;
/// Most epochs; a scenario's bounds keep below.
pub const EPOCHS: usize = 9;
/// Pieces of a snapshot.
pub const PIECES: u8 = 2;
/// Not in common with that reign, as far as is known.
pub const NOTHING_COMMON: u8 = u8::MAX;

/// One life of one node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Peer {
    pub node: u8,
    pub life: u8,
}

/// A configuration as the register has it; its epoch is the revision, too.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Config {
    pub epoch: u8,
    pub reign: u8,
    pub primary: u8,
    /// The life of each node that is listed; 0 for none.
    pub members: [u8; NODES as usize],
}

impl Config {
    pub fn life(self, node: u8) -> u8 {
        self.members[usize::from(node)]
    }

    pub fn lists(self, peer: Peer) -> bool {
        self.life(peer.node) == peer.life
    }

    pub fn primary_peer(self) -> Peer {
        Peer { node: self.primary, life: self.life(self.primary) }
    }

    /// The next one, with the same members and primary.
    pub fn successor(self) -> Config {
        Config { epoch: self.epoch + 1, ..self }
    }
}

/// An operation in the log; `op` 0 is a place whose piece of the snapshot has not arrived.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Entry {
    pub op: u8,
    pub reign: u8,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Log {
    entries: [Entry; LOG_MAX],
    len: u8,
}

impl Log {
    pub fn len(&self) -> u8 {
        self.len
    }

    /// The entry at a place, counted from 1.
    pub fn get(&self, lsn: u8) -> Option<Entry> {
        (1..=self.len).contains(&lsn).then(|| self.entries[usize::from(lsn) - 1])
    }

    pub fn all(&self) -> &[Entry] {
        &self.entries[..usize::from(self.len)]
    }

    pub fn push(&mut self, entry: Entry) {
        self.entries[usize::from(self.len)] = entry;
        self.len += 1;
    }

    pub fn set(&mut self, lsn: u8, entry: Entry) {
        self.entries[usize::from(lsn) - 1] = entry;
    }

    pub fn truncate(&mut self, to: u8) {
        while self.len > to {
            self.len -= 1;
            self.entries[usize::from(self.len)] = Entry::default();
        }
    }

    /// So many places, of which nothing is known.
    pub fn blank(len: u8) -> Log {
        Log { len, ..Log::default() }
    }

    /// What lies behind a place.
    pub fn behind(&self, lsn: u8) -> Log {
        let mut rest = Log::default();
        self.all()[usize::from(lsn)..].iter().for_each(|entry| rest.push(*entry));
        rest
    }

    pub fn has(&self, op: u8) -> bool {
        self.all().iter().any(|entry| entry.op == op)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Message {
    Greet { reign: u8, received: u8, joins: bool },
    Activate { from: u8, snapshot: bool, configuration: Config },
    Append { epoch: u8, round: u8, commit: u8, after: u8, entries: Log },
    Piece { number: u8, table: Log },
    Yield { configuration: Config },
    Ack { epoch: u8, round: u8, received: u8, pieces: u8 },
}

/// What one end of a stream uses it for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Stage {
    #[default]
    Quiet,
    Greeted,
    Led,
    Waiting {
        reign: u8,
        received: u8,
        joins: bool,
    },
    Follows(Progress),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Progress {
    pub sent: u8,
    pub acked: u8,
    pub sent_round: u8,
    pub acked_round: u8,
    pub acked_in: u8,
    pub sent_commit: u8,
    pub joiner: Option<Joiner>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Joiner {
    pub pieces: u8,
    pub counts_from: Option<u8>,
    pub told: bool,
}

/// The stream between two nodes; index 0 is the end of the lower one, queues are named for the end they lead to.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Link {
    pub up: bool,
    pub stages: [Stage; 2],
    pub queues: [Vec<Message>; 2],
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Phase {
    Following { primary: Peer, handed: bool },
    Seizing,
    Entering { promised: bool },
    Primary,
    Yielding { setup: Config },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Purpose {
    Seize,
    Members,
    Handover,
}

/// A swap that a node waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Asked {
    pub purpose: Purpose,
    pub new: Config,
    /// It has happened, and the answer is under way.
    pub done: bool,
    /// The answer was lost: what stands there has to be read.
    pub unknown: bool,
    /// It was asked before, and that may yet happen.
    pub again: bool,
}

/// What a primary holds back until a round is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Held {
    Answer {
        lsn: u8,
        entry: Entry,
    },
    /// A lease's confirmation, and the newest epoch that anybody had promised when it was asked for.
    Confirmation {
        overtaken: u8,
    },
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Node {
    pub life: u8,
    pub known: Config,
    pub phase: Phase,
    pub asked: Option<Asked>,
    /// What its office goes by.
    pub conf: Config,
    pub pinned: Option<Peer>,
    pub view: u8,
    pub promised: u8,
    pub reign: u8,
    /// Up to where the log is that of an earlier reign, too.
    pub common: [u8; EPOCHS],
    pub log: Log,
    pub commit: u8,
    pub applied: u8,
    pub has_state: bool,
    pub pieces: u8,
    pub round: u8,
    pub released: u8,
    pub seen_round: u8,
    pub held: Vec<(u8, Held)>,
    /// The reign whose primary cannot go on with this table, while it is listed: that one is dialled again in vain, which is
    /// left out here.
    pub astray: u8,
}

impl Node {
    /// A life that has nothing.
    pub fn new(life: u8, known: Config) -> Node {
        Node {
            life,
            known,
            phase: Phase::Following { primary: known.primary_peer(), handed: false },
            asked: None,
            conf: known,
            pinned: None,
            view: 0,
            promised: 0,
            reign: 0,
            common: [NOTHING_COMMON; EPOCHS],
            log: Log::default(),
            commit: 0,
            applied: 0,
            has_state: false,
            pieces: 0,
            round: 0,
            released: 0,
            seen_round: 0,
            held: Vec::new(),
            astray: 0,
        }
    }

    pub fn in_office(&self) -> bool {
        matches!(self.phase, Phase::Primary | Phase::Yielding { .. })
    }
}

/// What may go wrong, or is still to be done, so many times.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Bounds {
    pub crashes: u8,
    pub breaks: u8,
    pub unknowns: u8,
    pub joins: u8,
    pub evictions: u8,
    pub seizures: u8,
    pub switchovers: u8,
    pub keepalives: u8,
    pub heartbeats: u8,
}

/// What clients saw, and what nobody in the cell knows.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Seen {
    pub committed: Log,
    /// The answer that was shown of each place.
    pub shown: [Entry; LOG_MAX],
    /// The newest epoch that a take-over has promised.
    pub overtaken: u8,
    /// Who believes to hold each lock, counted from 1.
    pub holds: [u8; LOCKS],
    /// The newest token shown of each lock.
    pub token: [(u8, u8); LOCKS],
    /// Sessions that are over.
    pub gone: [bool; SESSIONS],
    /// Releases that were sent.
    pub let_go: u8,
    pub broken: Option<Rule>,
}

/// What was violated by a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Rule {
    OneHolder,
    TokensRise,
    AnswersStay,
    OneHistory,
    ListedHaveIt,
    CommittedFirst,
    Rounds,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct State {
    pub nodes: [Node; NODES as usize],
    pub links: [Link; NODES as usize],
    pub register: Config,
    /// Swaps under way to the register, whose asker may be dead by now.
    pub swaps: Vec<(Peer, Config)>,
    pub left: Bounds,
    pub seen: Seen,
}

impl State {
    pub fn node(&self, node: u8) -> &Node {
        &self.nodes[usize::from(node)]
    }

    pub fn peer(&self, node: u8) -> Peer {
        Peer { node, life: self.node(node).life }
    }

    pub fn link(&self, one: u8, other: u8) -> &Link {
        &self.links[usize::from(one + other) - 1]
    }

    pub fn stage(&self, me: u8, other: u8) -> Option<&Stage> {
        let link = self.link(me, other);
        link.up.then(|| &link.stages[usize::from(me > other)])
    }

    pub fn progress(&self, me: u8, other: u8) -> Option<&Progress> {
        match self.stage(me, other) {
            Some(Stage::Follows(progress)) => Some(progress),
            _ => None,
        }
    }

    /// Whether a node takes another for its primary, or asks it to be.
    pub fn is_led_by(&self, me: u8, other: u8) -> bool {
        me != other && matches!(self.stage(me, other), Some(Stage::Led | Stage::Greeted))
    }

    pub fn is_primary(&self, node: u8) -> bool {
        self.node(node).phase == Phase::Primary
    }

    /// Whether a node is a member with everything that is committed, as far as it knows.
    pub fn is_member(&self, node: u8) -> bool {
        self.node(node).has_state && self.node(node).known.lists(self.peer(node))
    }
}

/// The nodes but one.
pub fn others(me: u8) -> impl Iterator<Item = u8> {
    (0..NODES).filter(move |node| *node != me)
}

/// Gathers what is hashed, so that the checker's hash goes over one piece of memory instead of hundreds of bytes one by one.
#[derive(Default)]
struct Gathered(Vec<u8>);

impl Hasher for Gathered {
    fn write(&mut self, bytes: &[u8]) {
        self.0.extend_from_slice(bytes);
    }

    fn write_u8(&mut self, byte: u8) {
        self.0.push(byte);
    }

    fn write_usize(&mut self, length: usize) {
        self.0.push(u8::try_from(length).expect("queues and logs are short"));
    }

    fn write_isize(&mut self, discriminant: isize) {
        self.0.push(u8::try_from(discriminant).expect("few variants"));
    }

    fn finish(&self) -> u64 {
        unreachable!("what was gathered is hashed by another")
    }
}

impl Hash for State {
    fn hash<H: Hasher>(&self, hasher: &mut H) {
        let State { nodes, links, register, swaps, left, seen } = self;
        let mut gathered = Gathered(Vec::with_capacity(512));
        (nodes, links, register, swaps, left, seen).hash(&mut gathered);
        hasher.write(&gathered.0);
    }
}
