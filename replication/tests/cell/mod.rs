//! A cell in one thread: production nodes and replicas on a made-up network, with a made-up register, clocks that err, and
//! everything going wrong that a seed decides. What is asserted after every step is in `checks.rs`.
//!
//! The server's duties are here as it has them: operations are applied at once on the primary, answers are held until their
//! round is released, and dropped when the office ends; a table is emptied on a reset and made of a snapshot's pieces.

#![allow(dead_code, reason = "two programs use this, each a part of it")]

mod checks;
mod clients;
mod control;
pub mod drills;
mod faults;
mod host;
mod mistakes;
mod network;
mod random;
mod register;
mod serving;
mod table;

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use fairlock_replication::node::Input as NodeInput;
use fairlock_replication::register::Ask;
use fairlock_replication::replica::{Order, Peer};
use fairlock_replication::{Member, Stored};

use checks::Checks;
use clients::Client;
use faults::Faults;
use host::{Clock, Host};
use network::Network;
use random::Random;
use register::{Chaos, Memory};

pub const MS: u64 = 1_000_000;
/// How long faults go on.
pub const FAULTS_NS: u64 = 10_000 * MS;
/// Within this time after the last fault everybody is back (L1, L4, L6).
pub const HEAL_NS: u64 = 10_000 * MS;
/// And stays so for this time.
pub const CALM_NS: u64 = 1_000 * MS;

/// A client's wish.
#[derive(Clone, Copy, Debug)]
pub struct Request {
    pub client: usize,
    pub shard: u16,
    pub number: u64,
    /// Nothing is changed: a query, or a lease that is kept.
    pub read: bool,
    /// Newest token that anybody had seen when it was sent.
    pub floor: u64,
    pub attempt: u64,
}

/// What arrives at a shard's thread.
#[derive(Clone, Debug)]
pub enum Task {
    Linked(u64, Peer, bool),
    Unlinked(u64),
    Bytes(u64, Vec<u8>),
    Order(Order),
    Tick(u64),
    Request(Request),
}

/// What happens next.
#[derive(Clone, Debug)]
pub enum Event {
    Control(usize, u64, NodeInput),
    ControlTick(usize, u64, u64),
    Shard(usize, u64, u16, Task),
    /// A dialled node hears of it.
    Knock {
        from: usize,
        life: u64,
        member: Member,
        probe: bool,
    },
    /// A question reaches the register.
    Asked(usize, u64, Ask),
    /// What a swap of unknown outcome does in the end.
    Effect(Ask),
    /// A thread goes on.
    Resume(usize, usize),
    /// A client sends, or sends again.
    Client(usize, u64),
    /// An answer reaches a client; `None`: not here.
    Reply(usize, u64, Option<u64>),
    Start(usize),
    Fault,
    Mend(faults::Mend),
}

#[derive(Debug)]
struct Entry {
    at: u64,
    sequence: u64,
    event: Event,
}

impl PartialEq for Entry {
    fn eq(&self, other: &Entry) -> bool {
        (self.at, self.sequence) == (other.at, other.sequence)
    }
}
impl Eq for Entry {}
impl PartialOrd for Entry {
    fn partial_cmp(&self, other: &Entry) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Entry {
    fn cmp(&self, other: &Entry) -> std::cmp::Ordering {
        (self.at, self.sequence).cmp(&(other.at, other.sequence))
    }
}

/// The cell and everything around it.
pub struct World {
    pub seed: u64,
    pub now: u64,
    sequence: u64,
    queue: BinaryHeap<Reverse<Entry>>,
    random: Random,
    pub shards: u16,
    hosts: Vec<Host>,
    network: Network,
    memory: Memory,
    chaos: Chaos,
    clients: Vec<Client>,
    checks: Checks,
    faults: Faults,
    /// No more faults.
    healed: bool,
    lives: u64,
    /// Every event, for people.
    loud: bool,
    pub events: u64,
}

impl World {
    pub fn new(seed: u64) -> World {
        let mut random = Random::new(seed);
        let count = if random.chance(400) { 2 } else { 3 };
        let shards = u16::try_from(random.between(1, 2)).unwrap();
        let mut clock = || Clock {
            offset: random.below(1_000_000) * MS,
            ppm: i64::try_from(random.below(2001)).unwrap() - 1000,
        };
        let hosts = (0..count).map(|index| Host::new(index, shards, clock())).collect();
        let faults = Faults::new(&mut random);
        let chaos = Faults::chaos(&mut random);
        World {
            seed,
            now: 0,
            sequence: 0,
            queue: BinaryHeap::new(),
            shards,
            hosts,
            network: Network::new(count),
            memory: Memory::default(),
            chaos,
            clients: (0..table::CLIENTS).map(|_| Client::new(shards)).collect(),
            checks: Checks::new(shards),
            faults,
            random,
            healed: false,
            lives: 0,
            loud: std::env::var_os("FAIRLOCK_LOUD").is_some(),
            events: 0,
        }
    }

    /// Faults first, then none, and everybody has to come back. Gives the nanoseconds that went by.
    pub fn run(&mut self) -> u64 {
        self.begin();
        self.put(500 * MS, Event::Fault);
        self.run_to(FAULTS_NS);
        self.heal();
        let deadline = self.now + HEAL_NS;
        while let Some(missing) = self.unsettled() {
            assert!(self.now < deadline, "L1, L4: not back after {} ms: {missing}", HEAL_NS / MS);
            self.run_to(self.now + 50 * MS);
        }
        self.clients_begin_anew();
        self.run_to(self.now + CALM_NS);
        self.clients_finish();
        self.run_to(self.now + 300 * MS);
        self.check_calm();
        self.now
    }

    /// Everybody starts.
    fn begin(&mut self) {
        for host in 0..self.hosts.len() {
            let at = self.random.below(20 * MS);
            self.put(at, Event::Start(host));
        }
        for client in 0..self.clients.len() {
            self.put(MS, Event::Client(client, 0));
        }
    }

    fn run_to(&mut self, end: u64) {
        while let Some(Reverse(entry)) = self.queue.peek() {
            if entry.at > end {
                break;
            }
            let Some(Reverse(entry)) = self.queue.pop() else { break };
            self.now = entry.at;
            self.events += 1;
            self.happen(entry.event);
        }
        self.now = end;
    }

    /// Enters an event so many nanoseconds from now.
    fn put(&mut self, delay: u64, event: Event) {
        self.put_at(self.now + delay, event);
    }

    fn put_at(&mut self, at: u64, event: Event) {
        self.sequence += 1;
        self.queue.push(Reverse(Entry { at: at.max(self.now), sequence: self.sequence, event }));
    }

    fn happen(&mut self, event: Event) {
        let event = match thread_of(&event) {
            Some((host, thread)) if self.hosts[host].stalls[thread].until > self.now => {
                return self.hosts[host].stalls[thread].waiting.push(event);
            }
            _ => event,
        };
        if self.loud {
            self.tell(&event);
        }
        match event {
            Event::Control(host, life, input) => self.control(host, life, input),
            Event::ControlTick(host, life, at) => {
                if self.hosts[host].tick_at == at {
                    self.hosts[host].tick_at = u64::MAX;
                    self.control(host, life, NodeInput::Tick);
                }
            }
            Event::Shard(host, life, shard, task) => self.shard(host, life, shard, task),
            Event::Knock { from, life, member, probe } => self.knock(from, life, &member, probe),
            Event::Asked(host, life, ask) => self.asked(host, life, &ask),
            Event::Effect(ask) => {
                self.swap_in_register(|memory, _| memory.swap(&ask));
            }
            Event::Resume(host, thread) => self.resume(host, thread),
            Event::Client(client, attempt) => self.client(client, attempt),
            Event::Reply(client, attempt, answer) => self.reply(client, attempt, answer),
            Event::Start(host) => self.start(host),
            Event::Fault => self.fault(),
            Event::Mend(mend) => self.mend(mend),
        }
    }

    fn resume(&mut self, host: usize, thread: usize) {
        if self.hosts[host].stalls[thread].until > self.now {
            return;
        }
        for event in std::mem::take(&mut self.hosts[host].stalls[thread].waiting) {
            self.put(0, event);
        }
    }

    fn tell(&self, event: &Event) {
        let boring = matches!(
            event,
            Event::ControlTick(..)
                | Event::Shard(_, _, _, Task::Tick(_) | Task::Request(_))
                | Event::Client(..)
                | Event::Reply(..)
        );
        if boring {
            return;
        }
        let text = match event {
            Event::Shard(host, _, shard, Task::Bytes(link, bytes)) => {
                let mut rest = bytes.as_slice();
                let mut said = vec![];
                while let Ok(Some((message, length))) = fairlock_replication::message::Message::split(rest) {
                    let text = format!("{message:?}");
                    said.push(text.chars().take(110).collect::<String>());
                    rest = &rest[length..];
                }
                if said.iter().all(|text| text.starts_with("Append") || text.starts_with("Ack")) {
                    return;
                }
                format!("n{host}/{shard} hears on {link}: {said:?}")
            }
            other => format!("{other:?}").chars().take(400).collect(),
        };
        eprintln!("{:>10.3} {text}", self.now as f64 / MS as f64);
    }
}

/// Which thread of which host it happens on.
fn thread_of(event: &Event) -> Option<(usize, usize)> {
    match event {
        Event::Control(host, ..) | Event::ControlTick(host, ..) => Some((*host, 0)),
        Event::Shard(host, _, shard, _) => Some((*host, 1 + usize::from(*shard))),
        _ => None,
    }
}

/// The index of a node by its name.
fn index_of(name: &fairlock_replication::NodeId) -> usize {
    name.as_str()[1..].parse().unwrap()
}

/// Who a stored configuration names primary: index and life.
fn primary_of(stored: &Stored) -> (usize, u64) {
    let member = stored.configuration.primary_member();
    (index_of(&member.node), member.incarnation.get())
}
