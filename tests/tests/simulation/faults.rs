//! What goes wrong: which kinds, how often and for how long is drawn once for each seed, so that some seeds have much of one
//! thing and nothing of another. Each that strikes is counted by what the node was at that moment.

use fairlock_protocol::handshake::Hello;
use fairlock_protocol::{Request, RequestId, Resource, ShardId};
use fairlock_replication::node::{Standing, Wish};
use fairlock_server::deciding::Told;

use super::host::Errand;
use super::network::{End, Parcel};
use super::{Event, MS, World};

/// Kinds of faults, and operators' orders.
pub(crate) const KINDS: [&str; 20] = [
    "process killed",
    "machine off",
    "all killed",
    "node paused",
    "thread paused",
    "cut, one way",
    "cut, both ways",
    "cut from all",
    "stream broken",
    "node slow",
    "register away",
    "register cut off",
    "primary killed",
    "client killed",
    "client off",
    "client paused",
    "client cut off",
    "client's stream broken",
    "switchover, evict",
    "break, kill",
];

/// What a node can be when it strikes.
pub(crate) const STATES: [&str; 6] = ["off", "seeking", "backup", "primary", "primary asking", "halted"];

/// What ends again.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Mend {
    Cut(usize, usize),
    RegisterCut(usize),
    Outage,
    Slow(usize),
}

/// What may go wrong in this seed.
#[derive(Debug)]
pub(crate) struct Faults {
    weights: [u64; KINDS.len()],
    pause: u64,
    pub(crate) struck: [[u64; STATES.len()]; KINDS.len()],
}

impl Faults {
    pub(crate) fn new(random: &mut fairlock_tests::random::Random) -> Faults {
        let weights = std::array::from_fn(|_| if random.once_in(2) { 1 + random.below(10) } else { 0 });
        let pause = (20 + random.below(600)) * MS;
        Faults { weights, pause, struck: [[0; STATES.len()]; KINDS.len()] }
    }
}

impl World {
    /// What a node is at this moment.
    fn state_of(&self, host: usize) -> usize {
        let Some(process) = &self.hosts[host].process else { return 0 };
        match self.hosts[host].standing {
            Standing::Seeking => 1,
            Standing::Backup => 2,
            Standing::Primary if process.control.node().is_asking() => 4,
            Standing::Primary => 3,
            Standing::Halted => 5,
        }
    }

    /// Something goes wrong, and when the next thing does.
    pub(super) fn fault(&mut self) {
        if self.healed {
            return;
        }
        let pause = MS + self.random.below(2 * self.faults.pause);
        self.put(pause, Event::Fault);
        let sum: u64 = self.faults.weights.iter().sum();
        if sum == 0 {
            return;
        }
        let mut drawn = self.random.below(sum);
        let mut kind = 0;
        while drawn >= self.faults.weights[kind] {
            drawn -= self.faults.weights[kind];
            kind += 1;
        }
        let long = if self.random.once_in(3) { 3000 } else { 200 };
        let time = (1 + self.random.below(long)) * MS;
        self.strike(kind, time);
    }

    fn strike(&mut self, kind: usize, time: u64) {
        let mut host = self.random.index(self.hosts.len());
        if kind == 12 {
            host = self.primary(0).unwrap_or(host);
        }
        let client = self.random.index(self.clients.len());
        self.faults.struck[kind][self.state_of(host)] += 1;
        self.trace(KINDS[kind], host as u64, client as u64, time / MS);
        let machine = self.hosts.len() + client;
        let other = self.random.index(self.hosts.len());
        match kind {
            0 | 12 => self.kill(host, time, false),
            1 => self.kill(host, time, true),
            2 => (0..self.hosts.len()).for_each(|host| {
                let spread = self.random.below(50 * MS);
                self.kill(host, time + spread, false);
            }),
            3 => (0..=self.shards).for_each(|thread| self.stall(host, thread, time)),
            4 => {
                let thread = u16::try_from(self.random.below(1 + u64::from(self.shards))).expect("few");
                self.stall(host, thread, time);
            }
            5 => self.cut(host, other, time),
            6 => self.cut_both(host, other, time),
            7 => (0..self.network.cut.len()).for_each(|other| self.cut_both(host, other, time)),
            8 => self.break_one(|end| matches!(end, End::Node(node, ..) if node == host)),
            9 => {
                self.network.slow[host] = (1 + self.random.below(60)) * MS;
                self.put(time, Event::Mend(Mend::Slow(host)));
            }
            10 => {
                self.trouble.outage = true;
                self.put(time, Event::Mend(Mend::Outage));
            }
            11 => {
                self.trouble.cut[host] = true;
                self.put(time, Event::Mend(Mend::RegisterCut(host)));
            }
            13 | 14 => {
                self.crash_client(client, kind == 14);
                self.put(time, Event::StartClient(client));
            }
            15 => self.stall_client(client, time),
            16 => self.cut_both(machine, host, time),
            17 => self.break_one(|end| matches!(end, End::Client(one, _) if one == client)),
            18 => self.order_node(),
            _ => self.order_locks(client),
        }
    }

    fn kill(&mut self, host: usize, time: u64, off: bool) {
        self.crash(host, off);
        self.put(time, Event::Start(host));
    }

    /// A thread stands still: the shards' by number, then the control thread.
    fn stall(&mut self, host: usize, thread: u16, time: u64) {
        let until = self.now + time;
        let shards = self.shards;
        let Some(process) = &mut self.hosts[host].process else { return };
        let stalled = match process.desks.get_mut(usize::from(thread)) {
            Some(desk) => &mut desk.stalled_until,
            None => &mut process.stalled_until,
        };
        *stalled = until.max(*stalled);
        if thread < shards {
            self.wake_shard(host, thread, until);
        } else {
            self.wake_control(host, until);
        }
    }

    fn stall_client(&mut self, client: usize, time: u64) {
        let until = self.now + time;
        let c = &mut self.clients[client];
        c.stalled_until = until.max(c.stalled_until);
        self.wake_client(client, until);
    }

    fn cut_both(&mut self, one: usize, other: usize, time: u64) {
        self.cut(one, other, time);
        self.cut(other, one, time);
    }

    fn cut(&mut self, from: usize, to: usize, time: u64) {
        if from != to {
            self.network.cut[from][to] = true;
            self.put(time, Event::Mend(Mend::Cut(from, to)));
        }
    }

    fn break_one(&mut self, is: impl Fn(End) -> bool) {
        let all: Vec<u64> = self
            .network
            .streams
            .iter()
            .filter(|(_, stream)| stream.ends.iter().any(|end| is(*end)))
            .map(|(number, _)| *number)
            .collect();
        if !all.is_empty() {
            let number = all[self.random.index(all.len())];
            self.break_stream(number);
        }
    }

    /// An operator wants another primary, or one member less.
    fn order_node(&mut self) {
        let Some(host) = self.primary(0) else { return };
        let other = self.random.index(self.hosts.len());
        let name = fairlock_replication::NodeId::new(&format!("n{other}")).expect("a good name");
        let wish = if self.random.once_in(3) { Wish::Evict(name) } else { Wish::Switchover(None) };
        let life = self.hosts[host].life;
        self.errand(host, life, Errand::Told(Told::Wish(1, wish)));
    }

    /// An operator breaks a lock, or ends a session.
    fn order_locks(&mut self, client: usize) {
        let Some(stored) = self.stored() else { return };
        let key = stored.configuration.digest_key;
        let name = self.names[self.random.index(self.names.len())].clone();
        let Ok(resource) = Resource::new(b"", name.as_bytes()) else { return };
        let mut order = (key.digest(resource).shard(self.shards), Request::Break { resource, force: false });
        if self.random.once_in(2)
            && let Some(session) = &self.clients[client].session
        {
            order = (session.home(), Request::Kill { session: session.id(), force: false });
        }
        let Some(host) = self.primary(order.0.0) else { return };
        let there = End::Node(host, self.hosts[host].life, 0);
        let line = self.network.open([End::Operator, there], [false; 2]);
        let mut out = Vec::new();
        Request::Hello(Hello::to(ShardId(order.0.0))).encode(RequestId::NOTICE, 0, &mut out);
        order.1.encode(RequestId(1), 0, &mut out);
        self.send(line, 0, Parcel::Connect);
        self.send(line, 0, Parcel::Bytes(out));
        self.put(1000 * MS, Event::HangUp(line));
    }

    /// Something ends.
    pub(super) fn mend(&mut self, mend: Mend) {
        match mend {
            Mend::Cut(from, to) => {
                self.network.cut[from][to] = false;
                self.flow_again(from, to);
            }
            Mend::RegisterCut(host) => self.trouble.cut[host] = false,
            Mend::Outage => self.trouble.outage = false,
            Mend::Slow(host) => self.network.slow[host] = 0,
        }
    }

    /// Everything ends, and whoever is off comes back.
    pub(super) fn heal(&mut self) {
        self.healed = true;
        for from in 0..self.network.cut.len() {
            for to in 0..self.network.cut.len() {
                if std::mem::take(&mut self.network.cut[from][to]) {
                    self.flow_again(from, to);
                }
            }
        }
        self.network.slow.fill(0);
        self.trouble = super::register::Trouble {
            delay: self.trouble.delay,
            cut: vec![false; self.hosts.len()],
            ..super::register::Trouble::default()
        };
        for host in 0..self.hosts.len() {
            self.start(host);
            if let Some(process) = &mut self.hosts[host].process {
                process.stalled_until = 0;
                process.desks.iter_mut().for_each(|desk| desk.stalled_until = 0);
            }
            self.wake_control(host, self.now);
            (0..self.shards).for_each(|shard| self.wake_shard(host, shard, self.now));
        }
        for client in 0..self.clients.len() {
            self.start_client(client);
            self.clients[client].stalled_until = 0;
            self.wake_client(client, self.now);
        }
    }
}
