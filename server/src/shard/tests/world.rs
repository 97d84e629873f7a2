//! A few shards, their lanes and a few clients, all in one thread with a clock of numbers.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use fairlock_locktable::{Limits, Settings as TableSettings, Table};
use fairlock_protocol::handshake::Hello;
use fairlock_protocol::request::{Acquire, Open};
use fairlock_protocol::wire::Writer;
use fairlock_protocol::{
    CellId, DigestKey, Epoch, Frame, Liveness, Mode, OwnerId, Reply, Request, RequestId, Resource, Secret,
    SessionId, ShardId, Tick, Wait,
};

use crate::connection::{ConnectionKey, Peer};
use crate::control::Alarms;
use crate::lanes::{ToControl, ToShard};
use crate::shard::{Settings, Shard};
use crate::stats::ShardStats;

/// What a client heard: a copy of each frame.
#[derive(Debug, Clone)]
pub(super) struct Heard {
    pub(super) kind: u8,
    pub(super) flags: u8,
    pub(super) request: u64,
    pub(super) body: Vec<u8>,
}

impl Heard {
    /// The message.
    pub(super) fn reply(&self) -> Reply<'_> {
        let frame = Frame {
            kind: self.kind,
            flags: self.flags,
            ack: 0,
            request: RequestId(self.request),
            body: &self.body,
        };
        Reply::decode(&frame).unwrap()
    }
}

/// One connection of a client.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Line(pub(super) usize);

pub(super) struct World {
    pub(super) shards: Vec<Shard>,
    pub(super) now: Tick,
    /// Where each line ends at present; `None` once it was closed.
    ends: Vec<Option<(usize, ConnectionKey)>>,
    heard: Vec<Vec<Heard>>,
    pub(super) to_control: Vec<ToControl>,
    /// Messages between shards are delivered by `turn` only while this is set.
    pub(super) lanes_open: bool,
    held_messages: Vec<(usize, ToShard)>,
    addresses: BTreeMap<usize, SocketAddr>,
}

pub(super) fn key() -> DigestKey {
    DigestKey([11, 12])
}

impl World {
    pub(super) fn new(shards: u16) -> World {
        World::with(shards, |_| {})
    }

    pub(super) fn with(count: u16, change: impl Fn(&mut Settings)) -> World {
        let epoch = Epoch::new(5).unwrap();
        let shard = |me: u16| {
            let mut settings = Settings {
                me: ShardId(me),
                shards: count,
                cell: CellId(99),
                epoch,
                digest_key: key(),
                ttl_max: Duration::from_mins(1),
                horizon_ms: 60_000,
                quarantine_until: Tick::ZERO,
                unbound_max: 64,
                unbound_per_address_max: 16,
                io: "none",
                started: Tick::ZERO,
            };
            change(&mut settings);
            let limits = Limits::default();
            let table = Table::new(TableSettings { epoch, shard: ShardId(me), index_key: 7, limits });
            let mut seed = u128::from(me) << 64;
            let entropy = Box::new(move || {
                seed += 1;
                seed
            });
            Shard::new(settings, table, Arc::new(ShardStats::default()), Alarms::default(), entropy)
        };
        World {
            shards: (0..count).map(shard).collect(),
            now: Tick::from_millis(1000),
            ends: vec![],
            heard: vec![],
            to_control: vec![],
            lanes_open: true,
            held_messages: vec![],
            addresses: BTreeMap::new(),
        }
    }

    /// A new connection, accepted by shard 0.
    pub(super) fn connect(&mut self) -> Line {
        self.connect_from(SocketAddr::from(([127, 0, 0, 1], 1000)))
    }

    pub(super) fn connect_from(&mut self, address: SocketAddr) -> Line {
        let connection = self.shards[0].connected(self.now, Peer::Tcp(address));
        self.ends.push(Some((0, connection)));
        self.heard.push(vec![]);
        let line = Line(self.ends.len() - 1);
        self.addresses.insert(line.0, address);
        line
    }

    /// The client's end breaks.
    pub(super) fn hang_up(&mut self, line: Line) {
        if let Some((shard, connection)) = self.ends[line.0].take() {
            self.shards[shard].disconnected(connection);
        }
    }

    pub(super) fn is_open(&self, line: Line) -> bool {
        self.ends[line.0].is_some()
    }

    /// Sends bytes as they are, and lets everybody act on them.
    pub(super) fn send_bytes(&mut self, line: Line, bytes: &[u8]) {
        if let Some((shard, connection)) = self.ends[line.0] {
            self.shards[shard].received(connection, bytes);
        }
        self.turn();
    }

    pub(super) fn send(&mut self, line: Line, request: u64, ack: u16, message: &Request<'_>) {
        let mut bytes = vec![];
        message.encode(RequestId(request), ack, &mut bytes);
        self.send_bytes(line, &bytes);
    }

    /// Sends a frame of any kind and body.
    pub(super) fn send_frame(&mut self, line: Line, kind: u8, body: &[u8]) {
        let mut bytes = vec![];
        let mut writer = Writer::begin(&mut bytes, kind, 0, 0, RequestId(1));
        writer.bytes(body);
        writer.finish();
        self.send_bytes(line, &bytes);
    }

    /// Lets time pass.
    pub(super) fn pass_ms(&mut self, ms: u64) {
        self.now = self.now.after_millis(ms);
        self.turn();
    }

    /// Steps every shard until nobody has anything to do.
    pub(super) fn turn(&mut self) {
        loop {
            let mut quiet = true;
            for index in 0..self.shards.len() {
                self.shards[index].step(self.now);
                quiet &= !self.carry_out(index) && !self.shards[index].is_busy();
            }
            if self.lanes_open {
                for (to, message) in std::mem::take(&mut self.held_messages) {
                    quiet = false;
                    self.shards[to].message(self.now, message);
                }
            }
            if quiet {
                break;
            }
        }
        for shard in &self.shards {
            shard.table().audit();
        }
    }

    fn carry_out(&mut self, index: usize) -> bool {
        let output = std::mem::take(self.shards[index].output());
        let mut worked = false;
        for connection in output.dirty {
            let line = self.ends.iter().position(|end| *end == Some((index, connection)));
            let bytes = self.shards[index].take_out(connection).map(std::mem::take).unwrap_or_default();
            if let Some(line) = line {
                self.hear(line, &bytes);
            }
        }
        for (connection, _) in output.close {
            for end in &mut self.ends {
                if *end == Some((index, connection)) {
                    *end = None;
                }
            }
            self.shards[index].take_connection(connection);
        }
        for (connection, to) in output.moves {
            worked = true;
            let line = self.ends.iter().position(|end| *end == Some((index, connection))).unwrap();
            let (peer, received) = self.shards[index].take_connection(connection).unwrap();
            let to = usize::from(to.0);
            let moved = self.shards[to].connected(self.now, peer);
            self.shards[to].received(moved, &received);
            self.ends[line] = Some((to, moved));
        }
        for (to, message) in output.to_shards {
            worked = true;
            self.held_messages.push((usize::from(to.0), message));
        }
        self.to_control.extend(output.to_control);
        worked
    }

    fn hear(&mut self, line: usize, mut bytes: &[u8]) {
        while let Some((frame, length)) = Frame::split(bytes).unwrap() {
            let Frame { kind, flags, request, body, .. } = frame;
            self.heard[line].push(Heard { kind, flags, request: request.0, body: body.to_vec() });
            bytes = &bytes[length..];
        }
        assert!(bytes.is_empty(), "a server writes whole frames");
    }

    /// What a line heard since the last time.
    pub(super) fn heard(&mut self, line: Line) -> Vec<Heard> {
        std::mem::take(&mut self.heard[line.0])
    }

    /// The one frame a line heard since the last time.
    pub(super) fn only(&mut self, line: Line) -> Heard {
        let heard = self.heard(line);
        assert_eq!(heard.len(), 1, "{heard:?}");
        heard.into_iter().next().unwrap()
    }

    /// A connection of shard `to` that was welcomed.
    pub(super) fn greet(&mut self, to: u16) -> Line {
        let line = self.connect();
        self.send(line, 0, 0, &Request::Hello(Hello::to(ShardId(to))));
        let heard = self.only(line);
        assert!(matches!(heard.reply(), Reply::Welcome(_)), "{heard:?}");
        line
    }

    /// A session with its home on shard `to`.
    pub(super) fn open(&mut self, to: u16, ttl_ms: u32) -> (Line, SessionId, Secret) {
        let line = self.greet(to);
        self.send(line, 0, 0, &Request::Open(open(ttl_ms)));
        let heard = self.only(line);
        match heard.reply() {
            Reply::Opened { session, secret, .. } => (line, session, secret),
            other => panic!("not opened: {other:?}"),
        }
    }
}

pub(super) fn open(ttl_ms: u32) -> Open<'static> {
    Open {
        ttl_ms,
        liveness: Liveness::Heartbeat,
        predecessor_gone: false,
        pid: 1,
        identity: b"",
        reclaim_key: b"",
        host: b"h",
        exe: b"/x",
        label: b"test",
    }
}

pub(super) fn acquire(name: &str, wait: Wait) -> Request<'_> {
    Request::Acquire(Acquire {
        resource: Resource::new(b"", name.as_bytes()).unwrap(),
        mode: Mode::EX,
        wait,
        owner: OwnerId(0),
        reentrant: false,
        notify: false,
        lock_delay_ms: 0,
        max_hold_ms: 0,
        label: b"",
    })
}

/// A name that belongs to `shard` of `shards`.
pub(super) fn name_on(shard: u16, shards: u16) -> String {
    (0..100_000_u32)
        .map(|number| format!("name/{number}"))
        .find(|name| {
            key().digest(Resource::new(b"", name.as_bytes()).unwrap()).shard(shards) == ShardId(shard)
        })
        .unwrap()
}
