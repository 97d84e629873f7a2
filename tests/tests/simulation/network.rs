//! Streams: in order, or broken. A cut direction holds what is sent into it until it heals, as a network does that sends
//! again; a dead machine answers nothing.

use std::collections::BTreeMap;

use super::{Event, MS, US, World};

/// Who is at one end of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// A client, in one of its lives.
    Client(usize, u64),
    /// A shard of a node, in one of the node's lives.
    Node(usize, u64, u16),
    /// An operator, who does not listen.
    Operator,
}

/// What goes along a stream.
#[derive(Clone, Debug)]
pub(crate) enum Parcel {
    /// A client connects.
    Connect,
    Bytes(Vec<u8>),
    Close,
}

/// A stream.
#[derive(Debug)]
pub(crate) struct Stream {
    /// Who made it, and whom it leads to.
    pub(crate) ends: [End; 2],
    /// When what was sent last from this end arrives.
    last: [u64; 2],
    /// Sent from this end into a cut.
    held: [Vec<Parcel>; 2],
    /// This end says nothing more.
    closed: [bool; 2],
    /// What reached this end before its shard knew of the stream.
    pub(crate) early: [Option<Vec<Parcel>>; 2],
}

/// All of them, and the state of the wires. Machines are numbered: nodes first, then clients.
#[derive(Debug)]
pub(crate) struct Network {
    pub(crate) streams: BTreeMap<u64, Stream>,
    next: u64,
    nodes: usize,
    /// From machine to machine nothing arrives.
    pub(crate) cut: Vec<Vec<bool>>,
    /// Longest extra time on the way from a machine.
    pub(crate) slow: Vec<u64>,
    /// Shortest time on the way.
    pub(crate) latency: u64,
}

impl Network {
    pub(crate) fn new(nodes: usize, clients: usize, latency: u64) -> Network {
        let machines = nodes + clients + 1;
        Network {
            streams: BTreeMap::new(),
            next: 1,
            nodes,
            cut: vec![vec![false; machines]; machines],
            slow: vec![0; machines],
            latency,
        }
    }

    /// A new stream. `early`: an end that does not know of it yet keeps what comes.
    pub(crate) fn open(&mut self, ends: [End; 2], early: [bool; 2]) -> u64 {
        let number = self.next;
        self.next += 1;
        let early = early.map(|early| early.then(Vec::new));
        let stream = Stream { ends, last: [0; 2], held: [Vec::new(), Vec::new()], closed: [false; 2], early };
        self.streams.insert(number, stream);
        number
    }

    pub(crate) fn machine(&self, end: End) -> usize {
        match end {
            End::Node(node, ..) => node,
            End::Client(client, _) => self.nodes + client,
            End::Operator => self.cut.len() - 1,
        }
    }

    pub(crate) fn is_whole(&self, one: usize, other: usize) -> bool {
        !self.cut[one][other] && !self.cut[other][one]
    }
}

impl World {
    /// Time on the way from a machine.
    pub(super) fn on_the_way(&mut self, from: usize) -> u64 {
        let jitter = if self.random.once_in(50) { 2 * MS } else { 50 * US };
        let slow = self.network.slow[from];
        let base = self.network.latency + self.random.below(jitter);
        base + if slow > 0 { self.random.below(slow) } else { 0 }
    }

    /// Sends from one end of a stream (0 made it).
    pub(super) fn send(&mut self, number: u64, side: usize, parcel: Parcel) {
        let Some(stream) = self.network.streams.get_mut(&number) else { return };
        if stream.closed[side] {
            return;
        }
        stream.closed[side] = matches!(parcel, Parcel::Close);
        let (from, to) = (stream.ends[side], stream.ends[1 - side]);
        let (from, to) = (self.network.machine(from), self.network.machine(to));
        if self.network.cut[from][to] {
            if let Some(stream) = self.network.streams.get_mut(&number) {
                stream.held[side].push(parcel);
            }
            return;
        }
        self.pass_on(number, side, parcel, from);
    }

    fn pass_on(&mut self, number: u64, side: usize, parcel: Parcel, from: usize) {
        let at = self.now + self.on_the_way(from);
        let Some(stream) = self.network.streams.get_mut(&number) else { return };
        let at = at.max(stream.last[side] + 1);
        stream.last[side] = at;
        self.put_at(at, Event::Arrive(number, 1 - side, parcel));
    }

    /// A cut has healed: what was held goes on.
    pub(super) fn flow_again(&mut self, from: usize, to: usize) {
        let mut held = Vec::new();
        for (number, stream) in &mut self.network.streams {
            for side in 0..2 {
                let (source, target) = (stream.ends[side], stream.ends[1 - side]);
                held.push((*number, side, source, target, std::mem::take(&mut stream.held[side])));
            }
        }
        for (number, side, source, target, parcels) in held {
            let (source, target) = (self.network.machine(source), self.network.machine(target));
            for parcel in parcels {
                if (source, target) == (from, to) {
                    self.pass_on(number, side, parcel, from);
                } else if let Some(stream) = self.network.streams.get_mut(&number) {
                    stream.held[side].push(parcel);
                }
            }
        }
    }

    /// Something reaches an end.
    pub(super) fn arrive(&mut self, number: u64, side: usize, parcel: Parcel) {
        let Some(stream) = self.network.streams.get_mut(&number) else { return };
        if let Some(early) = &mut stream.early[side] {
            return early.push(parcel);
        }
        let (end, done) = (stream.ends[side], stream.closed == [true; 2]);
        if done && matches!(parcel, Parcel::Close) {
            self.network.streams.remove(&number);
        }
        match end {
            End::Node(host, life, shard) => {
                if life != 0 && self.hosts[host].life == life {
                    self.parcel_for_node(host, shard, number, parcel);
                } else {
                    self.nobody_there(number, side, host, &parcel);
                }
            }
            End::Client(client, life) => {
                if self.clients[client].life == life {
                    self.clients[client].inbox.push_back((number, parcel));
                    self.wake_client(client, self.now);
                } else if !matches!(parcel, Parcel::Close) {
                    self.send(number, side, Parcel::Close);
                }
            }
            End::Operator => {}
        }
    }

    /// A machine whose program is gone says so, also of a stream that it had before it was off; one that is off does not.
    fn nobody_there(&mut self, number: u64, side: usize, host: usize, parcel: &Parcel) {
        if self.hosts[host].dark || matches!(parcel, Parcel::Close) {
            return;
        }
        if let Some(stream) = self.network.streams.get_mut(&number) {
            stream.closed[side] = false;
        }
        self.send(number, side, Parcel::Close);
    }

    /// Whoever was told of the stream takes what has come meanwhile.
    pub(super) fn known_now(&mut self, number: u64, side: usize) {
        let early = self.network.streams.get_mut(&number).and_then(|stream| stream.early[side].take());
        for parcel in early.unwrap_or_default() {
            self.arrive(number, side, parcel);
        }
    }

    /// All streams of a program that ends. `silently`: its machine, too.
    pub(super) fn hang_up_all(&mut self, belongs: impl Fn(End) -> bool, silently: bool) {
        let mut ends = Vec::new();
        for (number, stream) in &mut self.network.streams {
            for side in 0..2 {
                if belongs(stream.ends[side]) {
                    stream.early[side] = None;
                    ends.push((*number, side));
                }
            }
        }
        for (number, side) in ends {
            if !silently {
                self.send(number, side, Parcel::Close);
            } else if let Some(stream) = self.network.streams.get_mut(&number) {
                stream.closed[side] = true;
                stream.held[side].clear();
            }
        }
    }

    /// Breaks a stream in the middle: both ends hear of it, and nothing under way arrives.
    pub(super) fn break_stream(&mut self, number: u64) {
        let Some(stream) = self.network.streams.remove(&number) else { return };
        for (side, end) in stream.ends.into_iter().enumerate() {
            match end {
                End::Node(host, life, shard)
                    if self.hosts[host].life == life
                        && !stream.closed[side]
                        && stream.early[side].is_none() =>
                {
                    self.parcel_for_node(host, shard, number, Parcel::Close);
                }
                End::Client(client, life) if self.clients[client].life == life => {
                    self.clients[client].inbox.push_back((number, Parcel::Close));
                    self.wake_client(client, self.now);
                }
                _ => {}
            }
        }
    }
}
