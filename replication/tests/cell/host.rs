//! One node of the cell: the production `Node` and its `Replica`s, each on a thread of its own, as the server has them.

use std::collections::VecDeque;

use fairlock_protocol::{CellId, DigestKey, Epoch, Tick};
use fairlock_replication::configuration::MacKey;
use fairlock_replication::node::{Fresh, Node, NodeSettings, Standing};
use fairlock_replication::profile::Profile;
use fairlock_replication::replica::Replica;
use fairlock_replication::{Incarnation, Member, NodeId};
use std::time::Duration;

use super::table::Table;
use super::{Event, Request};

/// A clock that runs a little wrong.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    pub offset: u64,
    pub ppm: i64,
}

impl Clock {
    pub fn local(self, now: u64) -> Tick {
        let error = i128::from(now) * i128::from(self.ppm) / 1_000_000;
        Tick(self.offset + u64::try_from(i128::from(now) + error).unwrap())
    }

    /// A moment of the world at which this clock shows at least `local`.
    pub fn world(self, local: Tick) -> u64 {
        let since = i128::from(local.0.saturating_sub(self.offset));
        u64::try_from(since * 1_000_000 / (1_000_000 + i128::from(self.ppm)) + 2).unwrap_or(u64::MAX)
    }
}

/// An answer that waits for its round.
#[derive(Clone, Debug)]
pub struct Held {
    pub round: u64,
    pub request: Request,
    pub arrived: u64,
    pub answer: u64,
    /// Where the operation stands in the log; 0 for a read.
    pub lsn: u64,
    pub view: u32,
    /// Where the history of the table began.
    pub origin: u64,
}

/// A shard's thread.
#[derive(Debug)]
pub struct Shard {
    pub replica: Replica,
    pub table: Table,
    /// The table before its newest operation.
    pub before: Table,
    /// Pieces of a table.
    pub pieces: Vec<u8>,
    pub held: VecDeque<Held>,
    /// In office since this epoch, and that is in the log.
    pub serves: Option<u32>,
    pub entering: Option<u32>,
    /// Digests of what is applied and not known to be committed.
    pub digests: VecDeque<(u64, u64)>,
    /// Lowest epoch that it may acknowledge.
    pub promised: u32,
    /// Orders to step down on their way.
    pub stepping_down: u32,
    pub tick_at: u64,
    /// When the newest order or report on its way arrives.
    pub orders_last: u64,
    pub reports_last: u64,
}

/// What stands still, and what has piled up meanwhile.
#[derive(Debug, Default)]
pub struct Stall {
    pub until: u64,
    pub waiting: Vec<Event>,
}

/// A node.
#[derive(Debug)]
pub struct Host {
    pub index: usize,
    /// 0 while it is off.
    pub life: u64,
    pub clock: Clock,
    pub node: Option<Node>,
    pub shards: Vec<Shard>,
    pub tick_at: u64,
    /// Control thread first, then the shards.
    pub stalls: Vec<Stall>,
    pub standing: Standing,
    /// Longest time an order or a report is on its way, ns.
    pub lane: u64,
}

pub fn name(index: usize) -> NodeId {
    NodeId::new(&format!("n{index}")).unwrap()
}

pub fn member(index: usize, life: u64) -> Member {
    Member {
        node: name(index),
        machine: format!("{index:x}a"),
        incarnation: Incarnation::new(life).unwrap(),
        peer: format!("host{index}:7"),
        clients: String::new(),
    }
}

impl Host {
    pub fn new(index: usize, shards: u16, clock: Clock) -> Host {
        let stalls = (0..=shards).map(|_| Stall::default()).collect();
        Host {
            index,
            life: 0,
            clock,
            node: None,
            shards: vec![],
            tick_at: u64::MAX,
            stalls,
            standing: Standing::Seeking,
            lane: 200_000,
        }
    }

    /// A new process, without memory.
    pub fn start(&mut self, life: u64, shards: u16) {
        assert_eq!(self.life, 0, "a node has one process");
        self.life = life;
        let fresh = Fresh {
            cell: CellId(7),
            epoch: Epoch::new(10).unwrap(),
            digest_key: DigestKey([1, 2]),
            mac_key: MacKey([3; 16]),
        };
        self.node = Some(Node::new(NodeSettings {
            me: member(self.index, life),
            shards,
            profile: Profile::LAN,
            feature_level: 1,
            fresh,
            ttl_max: Duration::from_mins(10),
        }));
        self.shards = (0..shards).map(|_| Shard::new()).collect();
        self.standing = Standing::Seeking;
        self.tick_at = u64::MAX;
    }

    /// The process is gone, and all it knew.
    pub fn stop(&mut self) {
        self.life = 0;
        self.node = None;
        self.shards.clear();
        for stall in &mut self.stalls {
            *stall = Stall::default();
        }
    }

    /// Whether every shard has something to go on with.
    pub fn is_stateful(&self) -> bool {
        use fairlock_replication::replica::Part;
        self.life != 0 && self.shards.iter().all(|shard| shard.replica.part() != Part::Idle)
    }
}

impl Shard {
    fn new() -> Shard {
        Shard {
            replica: Replica::new(Profile::LAN),
            table: Table::default(),
            before: Table::default(),
            pieces: vec![],
            held: VecDeque::new(),
            serves: None,
            entering: None,
            digests: VecDeque::new(),
            promised: 0,
            stepping_down: 0,
            tick_at: u64::MAX,
            orders_last: 0,
            reports_last: 0,
        }
    }
}
