//! What goes wrong: which kinds, how often and for how long is drawn once for each seed, so that some seeds have a lot of
//! one thing and nothing of another.

use fairlock_replication::node::{Input, Wish};

use super::host::name;
use super::random::Random;
use super::register::Chaos;
use super::{Event, MS, World};

/// Kinds of faults.
const KINDS: usize = 15;

/// What ends again.
#[derive(Clone, Copy, Debug)]
pub enum Mend {
    Cut(usize, usize),
    RegisterCut(usize),
    Outage,
    Slow(usize),
    Lane(usize),
}

/// What may go wrong in this seed.
#[derive(Debug)]
pub struct Faults {
    /// How likely each kind is, against the others.
    weights: [u64; KINDS],
    /// Between two of them, ns.
    pause: u64,
    /// A watch misses this many changes of 1000.
    pub blind: u64,
    /// This many new streams of 1000 are dead at once.
    pub stillborn: u64,
    /// This host's machine is off, too.
    pub dark: Vec<bool>,
}

impl Faults {
    pub fn new(random: &mut Random) -> Faults {
        let weights = std::array::from_fn(|_| if random.chance(500) { random.between(1, 10) } else { 0 });
        let (blind, stillborn) = (pick(random, 200), pick(random, 100));
        Faults { weights, pause: random.between(30, 800) * MS, blind, stillborn, dark: vec![false; 8] }
    }

    pub fn chaos(random: &mut Random) -> Chaos {
        Chaos {
            failed: pick(random, 100),
            unknown_done: pick(random, 300),
            unknown_void: pick(random, 100),
            unknown_later: pick(random, 100),
            delay: random.between(1, 30) * MS,
            outage: false,
        }
    }
}

/// Nothing, as often as not, or up to so many of 1000.
fn pick(random: &mut Random, most: u64) -> u64 {
    if random.chance(500) { random.below(most) } else { 0 }
}

impl World {
    pub(super) fn fault(&mut self) {
        if self.healed {
            return;
        }
        let pause = self.random.between(MS, 2 * self.faults.pause);
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
        let host = self.random.index(self.hosts.len());
        let other = self.random.index(self.hosts.len());
        if self.loud {
            eprintln!("{:>10.3} FAULT {kind} n{host} n{other}", self.now as f64 / MS as f64);
        }
        self.strike(kind, host, other);
    }

    fn strike(&mut self, kind: usize, host: usize, other: usize) {
        let long = if self.random.chance(300) { 2000 } else { 150 };
        let time = self.random.between(1, long) * MS;
        match kind {
            0 => self.crash(host, time),
            1 => self.crash_primary(time),
            2 => {
                for host in 0..self.hosts.len() {
                    let spread = self.random.below(30 * MS);
                    self.crash(host, time + spread);
                }
            }
            3 => self.pause_node(host, time),
            4 => {
                let thread = self.random.index(1 + usize::from(self.shards));
                self.stall(host, thread, time);
            }
            5 if host != other => {
                self.cut(host, other, time);
                self.cut(other, host, time);
            }
            6 if host != other => self.cut(host, other, time),
            7 => {
                self.network.register_cut[host] = [self.random.chance(700), self.random.chance(700)];
                self.put(time, Event::Mend(Mend::RegisterCut(host)));
            }
            8 => {
                self.chaos.outage = true;
                self.put(time, Event::Mend(Mend::Outage));
            }
            9 => self.break_streams(),
            10 => {
                self.network.slow[host] = self.random.between(1, 60) * MS;
                self.put(time, Event::Mend(Mend::Slow(host)));
            }
            11 => {
                self.hosts[host].lane = self.random.between(1, 60) * MS;
                self.put(time, Event::Mend(Mend::Lane(host)));
            }
            12 => self.wish_switchover(host),
            13 => self.wish_eviction(host),
            14 => self.wish_force(host),
            _ => {}
        }
    }

    fn crash(&mut self, host: usize, off: u64) {
        let life = self.hosts[host].life;
        if life == 0 {
            return;
        }
        if self.loud {
            eprintln!("{:>10.3} n{host} crashes", self.now as f64 / MS as f64);
        }
        self.hosts[host].stop();
        self.faults.dark[host] = self.random.chance(200);
        let keys: Vec<u64> = self.network.streams.keys().copied().collect();
        for key in keys {
            let Some(stream) = self.network.streams.get(&key) else { continue };
            for side in [0, 1] {
                if stream.ends[side].host == host {
                    self.send(key, side, None);
                    break;
                }
            }
        }
        self.put(off, Event::Start(host));
    }

    fn crash_primary(&mut self, off: u64) {
        if let Some(stored) = &self.memory.value {
            let (host, _) = super::primary_of(stored);
            self.crash(host, off);
        }
    }

    fn pause_node(&mut self, host: usize, time: u64) {
        for thread in 0..=usize::from(self.shards) {
            self.stall(host, thread, time);
        }
    }

    fn stall(&mut self, host: usize, thread: usize, time: u64) {
        let until = self.now + time;
        let stall = &mut self.hosts[host].stalls[thread];
        stall.until = stall.until.max(until);
        let until = stall.until;
        self.put_at(until, Event::Resume(host, thread));
    }

    fn cut(&mut self, from: usize, to: usize, time: u64) {
        self.network.cut[from][to] = true;
        self.put(time, Event::Mend(Mend::Cut(from, to)));
    }

    fn break_streams(&mut self) {
        let share = self.random.below(1000);
        let keys: Vec<u64> = self.network.streams.keys().copied().collect();
        for key in keys {
            if self.random.chance(share) {
                self.kill_stream(key);
            }
        }
    }

    fn wish(&mut self, host: usize, wish: Wish) {
        let life = self.hosts[host].life;
        if life != 0 {
            self.put(0, Event::Control(host, life, Input::Wish(1, wish)));
        }
    }

    fn wish_switchover(&mut self, to: usize) {
        let Some(stored) = &self.memory.value else { return };
        let (primary, _) = super::primary_of(stored);
        let to = self.random.chance(500).then(|| name(to));
        self.wish(primary, Wish::Switchover(to));
    }

    fn wish_eviction(&mut self, whom: usize) {
        let Some(stored) = &self.memory.value else { return };
        let (primary, _) = super::primary_of(stored);
        self.wish(primary, Wish::Evict(name(whom)));
    }

    /// The operator has looked: these are off.
    fn wish_force(&mut self, host: usize) {
        let off: Vec<usize> = (0..self.hosts.len()).filter(|other| self.hosts[*other].life == 0).collect();
        self.wish(host, Wish::ForceNew(off.into_iter().map(name).collect()));
    }

    pub(super) fn mend(&mut self, mend: Mend) {
        match mend {
            Mend::Cut(from, to) => {
                self.network.cut[from][to] = false;
                self.flush(from, to);
            }
            Mend::RegisterCut(host) => {
                self.network.register_cut[host] = [false; 2];
                self.watch(host);
            }
            Mend::Outage => self.chaos.outage = false,
            Mend::Slow(host) => self.network.slow[host] = 0,
            Mend::Lane(host) => self.hosts[host].lane = MS / 5,
        }
    }

    /// A cell in which nothing goes wrong but one thing: its primary stands still. Another takes over (L1).
    pub fn drill(&mut self) {
        self.faults.weights = [0; KINDS];
        self.chaos = Chaos { delay: 5 * MS, ..Chaos::default() };
        (self.faults.blind, self.faults.stillborn) = (0, 0);
        self.begin();
        self.run_to(3000 * MS);
        assert_eq!(self.unsettled(), None, "L4: a cell begins");
        let primary = |world: &World| world.memory.value.as_ref().map(super::primary_of);
        let first = primary(self);
        self.pause_node(first.map_or(0, |(host, _)| host), 1000 * MS);
        self.run_to(self.now + 500 * MS);
        assert_ne!(primary(self), first, "L1: a silent primary is replaced");
        self.run_to(self.now + 3000 * MS);
        assert_eq!(self.unsettled(), None, "L4: it comes back and joins");
    }

    /// Nothing goes wrong any more.
    pub(super) fn heal(&mut self) {
        self.healed = true;
        if self.loud {
            eprintln!("{:>10.3} HEALED", self.now as f64 / MS as f64);
        }
        self.chaos = Chaos { delay: 5 * MS, ..Chaos::default() };
        (self.faults.blind, self.faults.stillborn) = (0, 0);
        for host in 0..self.hosts.len() {
            self.mend(Mend::Slow(host));
            self.mend(Mend::Lane(host));
            self.mend(Mend::RegisterCut(host));
            for other in 0..self.hosts.len() {
                self.mend(Mend::Cut(host, other));
            }
            for thread in 0..=usize::from(self.shards) {
                self.hosts[host].stalls[thread].until = self.now;
                self.put(0, Event::Resume(host, thread));
            }
            self.put(MS, Event::Start(host));
        }
    }
}
