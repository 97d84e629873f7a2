//! A whole cell and its clients in one thread: the deciding halves of servers and clients as they are, on made-up networks,
//! clocks, memories and a made-up register, with everything going wrong that a seed decides. What is asserted after every
//! step stands in `tables.rs` and `program.rs`; what must come back when all faults are over, here.

mod clients;
mod clock;
mod dialing;
mod faults;
mod host;
mod network;
mod passes;
mod program;
mod register;
mod spares;
mod tables;

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, VecDeque};

use fairlock_protocol::Digest;
use fairlock_replication::memory::Memory;
use fairlock_replication::node::Standing;
use fairlock_replication::profile::Profile;
use fairlock_replication::replica::Part;
use fairlock_replication::{Ask, Member};
use fairlock_tests::random::Random;

use clients::Client;
use clock::Clock;
use faults::{Faults, Mend};
pub(crate) use faults::{KINDS, STATES};
use host::{Errand, Host, Task, index_of};
use network::{Network, Parcel};
use program::Guard;
use register::Trouble;
use tables::Judge;

pub(crate) const US: u64 = 1000;
pub(crate) const MS: u64 = 1_000_000;
/// How long faults go on.
const FAULTS_NS: u64 = 10_000 * MS;
/// Within this time after the last fault everybody is back (L1, L4).
const HEAL_NS: u64 = 30_000 * MS;
/// Longest quarantine after the longest lease here.
const QUARANTINE_NS: u64 = 2100 * MS;
/// How late something that was begun before takes effect.
const LATE_NS: u64 = 2500 * MS;
/// How long the healed cell goes on, and then has to come to rest (L2, L6).
const CALM_NS: u64 = 1500 * MS;
const REST_NS: u64 = 20_000 * MS;
/// Steps that are remembered, for people.
const REMEMBERED: usize = 400;

/// What happens next.
#[derive(Debug)]
pub(crate) enum Event {
    /// A control thread, a shard's thread, a client run, if that is still when they wanted to.
    Control(usize, u64, u64),
    Shard(usize, u64, u16, u64),
    Client(usize, u64, u64),
    Errand(usize, u64, Box<Errand>),
    Task(usize, u64, u16, Box<Task>),
    /// Something reaches an end of a stream.
    Arrive(u64, usize, Parcel),
    Knock(usize, u64, Box<Member>, bool),
    /// A question reaches the register; what one of unknown outcome does in the end.
    Asked(usize, u64, Box<Ask>),
    Effect(Box<Ask>),
    Start(usize),
    StartClient(usize),
    HangUp(u64),
    Fault,
    Mend(Mend),
}

/// What came of one seed.
#[derive(Clone, Debug)]
pub(crate) struct Summary {
    /// Of every step: the same seed gives the same.
    pub(crate) trace: u64,
    pub(crate) simulated_ns: u64,
    pub(crate) struck: [[u64; STATES.len()]; KINDS.len()],
    pub(crate) passes: u64,
    pub(crate) grants: u64,
    pub(crate) offices: u64,
    pub(crate) compared: u64,
    pub(crate) inherited: u64,
    pub(crate) forgotten: u64,
}

/// One remembered step.
type Step = (u64, &'static str, [u64; 3]);

/// The cell and everything around it.
#[derive(Debug)]
pub(crate) struct World {
    seed: u64,
    pub(crate) now: u64,
    sequence: u64,
    /// When, in which order, and where the event is.
    queue: BinaryHeap<Reverse<(u64, u64, usize)>>,
    events: Vec<Option<Event>>,
    vacant: Vec<usize>,
    random: Random,
    shards: u16,
    profile: Profile,
    hosts: Vec<Host>,
    network: Network,
    memory: Memory,
    trouble: Trouble,
    clients: Vec<Client>,
    guards: Vec<Guard>,
    /// The newest token of each name that anybody was certain of, by mode, and who.
    newest: BTreeMap<Vec<u8>, BTreeMap<u8, (u64, usize)>>,
    names: Vec<String>,
    /// The digests of the names, under the key of the cell.
    digests: Vec<(Digest, String)>,
    judge: Judge,
    faults: Faults,
    healed: bool,
    draining: bool,
    lives: u64,
    tickets: u64,
    /// Between two things that a client does.
    pace: u64,
    passes: u64,
    trace: u64,
    steps: VecDeque<Step>,
}

impl World {
    /// The world of a seed.
    pub(crate) fn new(seed: u64) -> World {
        let mut random = Random::from_seed(seed);
        let hosts = match random.below(10) {
            0 => 1,
            1..5 => 2,
            _ => 3,
        };
        let clients = 3 + random.index(6);
        let mut clock = || Clock {
            offset: random.below(1_000_000) * MS + 1_000_000 * MS,
            ppm: i64::try_from(random.below(2001)).expect("small") - 1000,
        };
        let all: Vec<Clock> = (0..hosts + clients).map(|_| clock()).collect();
        let profile = if random.once_in(4) { Profile::LAN } else { Profile::CLOUD };
        let latency = if random.once_in(4) { MS } else { 50 * US };
        let faults = Faults::new(&mut random);
        let mut often = |most: u64| if random.once_in(2) { random.below(most) } else { 0 };
        let trouble = Trouble {
            failed: often(100),
            unknown_done: often(300),
            unknown_void: often(100),
            unknown_later: often(100),
            blind: often(300),
            delay: 2 * MS,
            outage: false,
            cut: vec![false; hosts],
        };
        let shards = 1 + u16::from(random.once_in(2));
        let pace = (5 + random.below(60)) * MS;
        let names = (0..3 + random.index(4)).map(|number| format!("lock/{number}")).collect();
        let mut client = |clock: &Clock| {
            let most = if random.once_in(2) { 400 } else { 1800 };
            let ttl_ms = 200 + random.below(most);
            Client::new(*clock, u32::try_from(ttl_ms).expect("small"))
        };
        let clients: Vec<Client> = all[hosts..].iter().map(&mut client).collect();
        World {
            seed,
            now: 0,
            sequence: 0,
            queue: BinaryHeap::new(),
            events: Vec::new(),
            vacant: Vec::new(),
            shards,
            profile,
            hosts: all[..hosts].iter().map(|clock| Host::new(*clock)).collect(),
            network: Network::new(hosts, clients.len(), latency),
            memory: Memory::new(),
            trouble,
            clients,
            guards: Vec::new(),
            newest: BTreeMap::new(),
            names,
            digests: Vec::new(),
            judge: Judge::default(),
            faults,
            healed: false,
            draining: false,
            lives: 0,
            tickets: 0,
            pace,
            passes: 0,
            trace: seed,
            steps: VecDeque::new(),
            random,
        }
    }

    /// Faults first, then none, and everybody has to come back and to rest.
    pub(crate) fn run(&mut self) -> Summary {
        for host in 0..self.hosts.len() {
            let at = self.random.below(20 * MS);
            self.put(at, Event::Start(host));
        }
        for client in 0..self.clients.len() {
            self.put(MS, Event::StartClient(client));
        }
        self.put(500 * MS, Event::Fault);
        self.run_to(FAULTS_NS);
        self.heal();
        // What is under way to the register may still take effect.
        self.run_to(self.now + LATE_NS);
        let deadline = self.now + HEAL_NS;
        while let Some(missing) = self.unsettled().or_else(|| self.without_session()) {
            assert!(self.now < deadline, "L1, L4: not back after {} ms: {missing}", HEAL_NS / MS);
            self.run_to(self.now + 50 * MS);
        }
        let before: Vec<u64> = self.clients.iter().map(|client| client.program.granted).collect();
        self.run_to(self.now + CALM_NS);
        assert_eq!(self.unsettled(), None, "L4: it fell apart again");
        let after = self.clients.iter().map(|client| client.program.granted).sum::<u64>();
        assert!(after > before.iter().sum(), "L2: nobody was granted anything in peace");
        self.draining = true;
        let deadline = self.now + REST_NS;
        while let Some(left) = self.unrested() {
            if self.now >= deadline {
                self.show_tables();
            }
            assert!(self.now < deadline, "L2, L5, L6: no rest after {} ms: {left}", REST_NS / MS);
            self.run_to(self.now + 50 * MS);
        }
        self.compare_tables();
        Summary {
            trace: self.trace,
            simulated_ns: self.now,
            struck: self.faults.struck,
            passes: self.passes,
            grants: self.judge.grants,
            offices: self.judge.offices.len() as u64,
            compared: self.judge.compared,
            inherited: self.judge.inherited,
            forgotten: self.judge.forgotten,
        }
    }

    fn run_to(&mut self, end: u64) {
        while self.queue.peek().is_some_and(|Reverse((at, ..))| *at <= end) {
            let Some(Reverse((at, _, place))) = self.queue.pop() else { break };
            let event = self.events[place].take().expect("an event is kept until it happens");
            self.vacant.push(place);
            self.now = at;
            self.trace = (self.trace ^ at).wrapping_mul(0x0000_0100_0000_01B3);
            self.happen(event);
        }
        self.now = end;
    }

    /// Enters an event so many nanoseconds from now.
    fn put(&mut self, delay: u64, event: Event) {
        self.put_at(self.now + delay, event);
    }

    fn put_at(&mut self, at: u64, event: Event) {
        self.sequence += 1;
        let place = self.vacant.pop().unwrap_or(self.events.len());
        if place == self.events.len() {
            self.events.push(None);
        }
        self.events[place] = Some(event);
        self.queue.push(Reverse((at.max(self.now), self.sequence, place)));
    }

    fn happen(&mut self, event: Event) {
        if is_loud()
            && !matches!(event, Event::Control(..) | Event::Shard(..) | Event::Client(..) | Event::Arrive(..))
        {
            let text: String = format!("{event:?}").chars().take(220).collect();
            eprintln!("{:>12.3} {text}", self.now as f64 / 1e6);
        }
        match event {
            Event::Control(host, life, at) => self.run_control(host, life, at),
            Event::Shard(host, life, shard, at) => self.run_shard(host, life, shard, at),
            Event::Client(client, life, at) => self.run_client(client, life, at),
            Event::Errand(host, life, errand) => self.errand(host, life, *errand),
            Event::Task(host, life, shard, task) => {
                if self.hosts[host].life == life {
                    self.task(host, shard, *task);
                }
            }
            Event::Arrive(number, side, parcel) => self.arrive(number, side, parcel),
            Event::Knock(from, life, member, probe) => self.knock(from, life, *member, probe),
            Event::Asked(host, life, ask) => self.asked(host, life, &ask),
            Event::Effect(ask) => {
                self.swap(&ask);
            }
            Event::Start(host) => self.start(host),
            Event::StartClient(client) => self.start_client(client),
            Event::HangUp(line) => self.send(line, 0, Parcel::Close),
            Event::Fault => self.fault(),
            Event::Mend(mend) => self.mend(mend),
        }
    }

    /// Remembers a step.
    fn trace(&mut self, what: &'static str, one: u64, two: u64, three: u64) {
        for number in [one, two, three] {
            self.trace = (self.trace ^ number).wrapping_mul(0x0000_0100_0000_01B3).rotate_left(7);
        }
        if self.steps.len() == REMEMBERED {
            self.steps.pop_front();
        }
        self.steps.push_back((self.now, what, [one, two, three]));
    }

    /// What is missing until the cell is whole (L1, L4).
    fn unsettled(&self) -> Option<String> {
        let stored = self.stored()?;
        let primary = index_of(&stored.configuration.primary);
        for (index, host) in self.hosts.iter().enumerate() {
            let wanted = if index == primary { Standing::Primary } else { Standing::Backup };
            if host.standing != wanted || host.process.is_none() {
                return Some(format!("n{index} is {:?}", host.standing));
            }
            let members = &stored.configuration.members;
            let listed = members
                .iter()
                .any(|member| index_of(&member.node) == index && member.incarnation.get() == host.life);
            if !listed {
                return Some(format!("n{index} is not listed"));
            }
            for (number, desk) in host.process.iter().flat_map(|process| &process.desks).enumerate() {
                let part = desk.shard.replica().part();
                let wanted = if index == primary { Part::Primary } else { Part::Backup };
                if part != wanted {
                    return Some(format!("n{index}/{number} is {part:?}"));
                }
            }
        }
        // Who takes over in a quarantine begins it anew.
        let begun = self.judge.offices.values().last().map_or(0, |office| office.1);
        if self.judge.forgotten > 0 && self.now < begun + QUARANTINE_NS {
            return Some("nothing is granted yet".into());
        }
        None
    }

    /// A client that has no session, though it wants one.
    fn without_session(&self) -> Option<String> {
        let without = self.clients.iter().position(|client| client.session.is_none());
        without.map(|client| format!("client {client} has no session"))
    }

    /// What is left although nobody asks for anything any more (L2, L5, L6).
    fn unrested(&self) -> Option<String> {
        if let Some((client, age)) = self.oldest_ask() {
            let c = &self.clients[client];
            let lanes: Vec<_> = c.lanes.iter().map(|lane| (lane.line, lane.seeks)).collect();
            let asks = &c.program.asks;
            return Some(format!("client {client} waits for {} ms: {asks:?} {lanes:?}", age / MS));
        }
        let primary = self.stored().map_or(0, |stored| index_of(&stored.configuration.primary));
        let desks = self.hosts[primary].process.iter().flat_map(|process| &process.desks);
        for (number, desk) in desks.enumerate() {
            let counts = desk.shard.table().counts();
            if counts.sessions > 0 || counts.grants > 0 || counts.waiters > 0 {
                let (sessions, grants, waiters) = (counts.sessions, counts.grants, counts.waiters);
                return Some(format!(
                    "n{primary}/{number} has {sessions} sessions, {grants} grants, {waiters} waiters"
                ));
            }
        }
        None
    }

    /// Everything that is held and waited for, for people.
    fn show_tables(&self) {
        for (index, host) in self.hosts.iter().enumerate() {
            for (number, desk) in host.process.iter().flat_map(|process| &process.desks).enumerate() {
                let (table, go_on) = (desk.shard.table(), std::ops::ControlFlow::<()>::Continue(()));
                table.locks(0, |lock| {
                    table.show(lock.digest, 0, |entry| {
                        let who = table.session_view(entry.session).map(|session| session.id);
                        eprintln!("n{index}/{number} {who:?} {:?} {entry:?}", lock.resource);
                        go_on
                    });
                    go_on
                });
            }
        }
    }

    /// Whole tables are equal where they are equally long, and sound (S6, S12).
    fn compare_tables(&self) {
        for shard in 0..usize::from(self.shards) {
            let mut known: BTreeMap<u64, u128> = BTreeMap::new();
            for (index, host) in self.hosts.iter().enumerate() {
                let Some(process) = &host.process else { continue };
                let desk = &process.desks[shard];
                desk.shard.table().audit();
                let digest = desk.shard.table().digest();
                let first = *known.entry(desk.shard.applied_lsn()).or_insert(digest);
                assert_eq!(first, digest, "S6: the tables differ at n{index}/{shard}");
            }
        }
    }
}

impl Drop for World {
    /// A world that fails says how to have it again, and what happened last.
    fn drop(&mut self) {
        if std::thread::panicking() {
            for (at, what, [one, two, three]) in &self.steps {
                eprintln!("{:>12.3} ms  {what:<22} {one} {two} {three}", *at as f64 / 1e6);
            }
            eprintln!("at {:.3} ms; SEED={}", self.now as f64 / 1e6, self.seed);
        }
    }
}

/// Whether everything is told, for people who look at one seed.
fn is_loud() -> bool {
    static LOUD: std::sync::OnceLock<bool> = std::sync::OnceLock::new();
    *LOUD.get_or_init(|| std::env::var_os("FAIRLOCK_LOUD").is_some())
}

/// One number of many bytes.
fn stir(bytes: &[u8]) -> u64 {
    bytes
        .iter()
        .fold(0xCBF2_9CE4_8422_2325, |sum, byte| (sum ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01B3))
}
