//! A few shards, their lanes and a few clients, all in one thread with a clock of numbers.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use fairlock_locktable::command::SessionKey;
use fairlock_locktable::{Limits, NamespaceRules, Settings as TableSettings, Table};
use fairlock_protocol::handshake::Hello;
use fairlock_protocol::request::{Acquire, Open};
use fairlock_protocol::wire::Writer;
use fairlock_protocol::{
    CellId, DigestKey, Epoch, Frame, Liveness, Mode, OwnerId, Priority, Reply, Request, RequestId, Resource,
    Secret, SessionId, ShardId, Tick, Wait,
};
use fairlock_shm::segment::Segment;

use crate::connection::{ConnectionKey, Peer};
use crate::control::Alarms;
use crate::lanes::{ToControl, ToShard};
use crate::shard::{Settings, Shard, Watch};
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

/// What a driver does for a link: bytes wait in the socket until they are asked for.
#[derive(Debug, Default)]
struct Link {
    reading: Reading,
    socket: Vec<u8>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Reading {
    /// Right after it was attached.
    #[default]
    Once,
    On,
    Off,
}

/// Bytes a driver delivers at once.
const CHUNK_BYTES: usize = 16 * 1024;

pub(crate) struct World {
    pub(super) shards: Vec<Shard>,
    pub(super) now: Tick,
    /// Where each line ends at present; `None` once it was closed.
    ends: Vec<Option<(usize, ConnectionKey)>>,
    links: Vec<Link>,
    heard: Vec<Vec<Heard>>,
    pub(super) to_control: Vec<ToControl>,
    /// Messages between shards are delivered by `turn` only while this is set.
    pub(super) lanes_open: bool,
    held_messages: Vec<(usize, ToShard)>,
    /// What is watched, by shard and the session's slot.
    pub(super) watched: BTreeMap<(usize, u32), SessionKey>,
}

pub(super) fn key() -> DigestKey {
    DigestKey([11, 12])
}

/// One shard of `count`, with an empty table.
pub(crate) fn shard(me: u16, count: u16, change: impl Fn(&mut Settings)) -> Shard {
    let epoch = Epoch::new(5).unwrap();
    let mut settings = Settings {
        me: ShardId(me),
        shards: count,
        cell: CellId(99),
        epoch,
        digest_key: key(),
        mac_key: fairlock_protocol::MacKey([7; 16]),
        ttl_max: Duration::from_mins(1),
        horizon_ms: 60_000,
        quarantine_until: Tick::ZERO,
        unbound_max: 64,
        unbound_per_address_max: 16,
        cached_grants_max: 64,
        io: "none",
        started: Tick::ZERO,
    };
    change(&mut settings);
    let limits = Limits::default();
    let rules = NamespaceRules::new();
    let table = Table::new(TableSettings { epoch, shard: ShardId(me), index_key: 7, limits, rules });
    let mut seed = u128::from(me) << 64;
    let entropy = Box::new(move || {
        seed += 1;
        seed
    });
    Shard::new(settings, table, Arc::new(ShardStats::default()), Alarms::default(), entropy)
}

impl World {
    pub(super) fn new(shards: u16) -> World {
        World::with(shards, |_| {})
    }

    pub(super) fn with(count: u16, change: impl Fn(&mut Settings)) -> World {
        World {
            shards: (0..count).map(|me| shard(me, count, &change)).collect(),
            now: Tick::from_millis(1000),
            ends: vec![],
            links: vec![],
            heard: vec![],
            to_control: vec![],
            lanes_open: true,
            held_messages: vec![],
            watched: BTreeMap::new(),
        }
    }

    /// A new connection, accepted by shard 0.
    pub(super) fn connect(&mut self) -> Line {
        self.connect_from(SocketAddr::from(([127, 0, 0, 1], 1000)))
    }

    pub(super) fn connect_from(&mut self, address: SocketAddr) -> Line {
        self.connect_as(Peer::Tcp(address))
    }

    pub(super) fn connect_as(&mut self, peer: Peer) -> Line {
        self.take_in(0, peer, None)
    }

    /// A client that shares memory with shard `to`, welcomed there. Its bytes travel as those of others do.
    pub(super) fn share(&mut self, to: usize) -> (Line, Arc<Segment>) {
        let segment = Arc::new(Segment::create().unwrap().0);
        let peer = Peer::Tcp(SocketAddr::from(([127, 0, 0, 1], 1000)));
        let line = self.take_in(to, peer, Some(segment.clone()));
        self.send(line, 0, 0, &Request::Hello(Hello::to(ShardId(u16::try_from(to).unwrap()))));
        let heard = self.only(line);
        assert!(matches!(heard.reply(), Reply::Welcome(_)), "{heard:?}");
        (line, segment)
    }

    fn take_in(&mut self, shard: usize, peer: Peer, segment: Option<Arc<Segment>>) -> Line {
        let connection = self.shards[shard].connected(self.now, peer, segment);
        self.ends.push(Some((shard, connection)));
        self.links.push(Link::default());
        self.heard.push(vec![]);
        Line(self.ends.len() - 1)
    }

    /// The client's end breaks.
    pub(super) fn hang_up(&mut self, line: Line) {
        if let Some((shard, connection)) = self.ends[line.0].take() {
            self.shards[shard].disconnected(connection);
        }
    }

    /// The driver has too many answers for a line, or no longer so.
    pub(super) fn stall(&mut self, line: Line, stalled: bool) {
        let (shard, connection) = self.ends[line.0].unwrap();
        if stalled {
            assert!(self.shards[shard].stall(connection));
        } else {
            self.shards[shard].unstall(connection);
        }
        self.turn();
    }

    pub(super) fn is_open(&self, line: Line) -> bool {
        self.ends[line.0].is_some()
    }

    /// Sends bytes as they are, and lets everybody act on them.
    pub(super) fn send_bytes(&mut self, line: Line, bytes: &[u8]) {
        self.push(line, bytes);
        self.turn();
    }

    /// Sends bytes that nobody acts on yet.
    pub(super) fn push(&mut self, line: Line, bytes: &[u8]) {
        self.links[line.0].socket.extend_from_slice(bytes);
    }

    /// Sends bytes and breaks the line in one breath: its shard learns of both together.
    pub(super) fn send_and_hang_up(&mut self, line: Line, bytes: &[u8]) {
        self.links[line.0].socket.extend_from_slice(bytes);
        self.deliver();
        self.hang_up(line);
        self.turn();
    }

    /// Hands over what waits in the sockets, as far as somebody reads. Says whether anything did.
    fn deliver(&mut self) -> bool {
        let mut delivered = false;
        for (end, link) in self.ends.iter().zip(&mut self.links) {
            let Some((shard, connection)) = *end else { continue };
            while !link.socket.is_empty() && link.reading != Reading::Off {
                let rest = link.socket.split_off(link.socket.len().min(CHUNK_BYTES));
                self.shards[shard].received(connection, &link.socket);
                link.socket = rest;
                if link.reading == Reading::Once {
                    link.reading = Reading::Off;
                }
                delivered = true;
                if self.shards[shard].output().pause.contains(&connection) {
                    break;
                }
            }
        }
        delivered
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
            let mut quiet = !self.deliver();
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
        let asked =
            [(output.read_once, Reading::Once), (output.pause, Reading::Off), (output.read_on, Reading::On)];
        for (connections, reading) in asked {
            for connection in connections {
                if let Some(line) = self.ends.iter().position(|end| *end == Some((index, connection))) {
                    self.links[line].reading = reading;
                    worked |= reading != Reading::Off && !self.links[line].socket.is_empty();
                }
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
            assert_eq!(self.links[line].reading, Reading::Off, "a driver gives away what nobody reads");
            let (peer, received) = self.shards[index].take_connection(connection).unwrap();
            let to = usize::from(to.0);
            let moved = self.shards[to].connected(self.now, peer, None);
            self.shards[to].received(moved, &received);
            self.ends[line] = Some((to, moved));
            self.links[line].reading = Reading::Once;
        }
        for (session, watch) in output.watch {
            let place = (index, session.slot);
            match watch {
                Watch::Begin(..) => {
                    assert_eq!(self.watched.insert(place, session), None, "one watch a session");
                }
                Watch::End if self.watched.get(&place) == Some(&session) => {
                    self.watched.remove(&place);
                }
                Watch::End => {}
            }
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

    /// Nothing new is granted at the first shard.
    pub(super) fn drain(&mut self) {
        self.shards[0].message(self.now, ToShard::Drain);
        self.turn();
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
        let (session, secret) = self.open_on(line, ttl_ms);
        (line, session, secret)
    }

    /// A session on a line that was welcomed.
    pub(super) fn open_on(&mut self, line: Line, ttl_ms: u32) -> (SessionId, Secret) {
        self.send(line, 0, 0, &Request::Open(open(ttl_ms)));
        let heard = self.only(line);
        match heard.reply() {
            Reply::Opened { session, secret, .. } => (session, secret),
            other => panic!("not opened: {other:?}"),
        }
    }
}

pub(crate) fn open(ttl_ms: u32) -> Open<'static> {
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

pub(crate) fn acquire(name: &str, wait: Wait) -> Request<'_> {
    Request::Acquire(Acquire {
        resource: Resource::new(b"", name.as_bytes()).unwrap(),
        mode: Mode::EX,
        priority: Priority::LOWEST,
        wait,
        owner: OwnerId(0),
        reentrant: false,
        notify: false,
        cacheable: false,
        lock_delay_ms: 0,
        max_hold_ms: 0,
        label: b"",
    })
}

/// A name that belongs to `shard` of `shards`.
pub(crate) fn name_on(shard: u16, shards: u16) -> String {
    (0..100_000_u32)
        .map(|number| format!("name/{number}"))
        .find(|name| {
            key().digest(Resource::new(b"", name.as_bytes()).unwrap()).shard(shards) == ShardId(shard)
        })
        .unwrap()
}
