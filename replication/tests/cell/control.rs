//! Control threads, what they dial and what they ask the register.

use fairlock_replication::node::{Dialed, Input, Output, peer};
use fairlock_replication::register::{Answer, Ask, Watched};
use fairlock_replication::replica::{Order, Report};
use fairlock_replication::{Member, node};

use super::host::member;
use super::mistakes;
use super::network::{End, Stream};
use super::register::Outcome;
use super::{Event, MS, Task, World, index_of};

impl World {
    /// A new process on a host.
    pub(super) fn start(&mut self, host: usize) {
        if self.hosts[host].life != 0 {
            return;
        }
        self.lives += 1;
        let life = if mistakes::restart_keeps_life() { host as u64 + 1_000_000 } else { self.lives };
        let shards = self.shards;
        self.hosts[host].start(life, shards);
        if self.loud {
            eprintln!("{:>10.3} n{host} starts as {life}", self.now as f64 / MS as f64);
        }
        let value = self.memory.value.clone();
        if !self.network.register_cut[host].contains(&true) {
            let delay = self.random.below(5 * MS);
            self.put(delay, Event::Control(host, life, Input::Watched(Watched::Value(value))));
        }
        self.put(0, Event::Control(host, life, Input::Tick));
    }

    pub(super) fn control(&mut self, host: usize, life: u64, input: Input) {
        if self.hosts[host].life != life {
            return;
        }
        let now = self.hosts[host].clock.local(self.now);
        let Some(node) = &mut self.hosts[host].node else { return };
        node.step(now, input);
        let outputs = std::mem::take(node.outputs());
        let due = node.next_due(now);
        for output in outputs {
            self.carry_out(host, life, output);
        }
        let at = self.hosts[host].clock.world(due).max(self.now + MS / 5);
        if at < self.hosts[host].tick_at {
            self.hosts[host].tick_at = at;
            self.put_at(at, Event::ControlTick(host, life, at));
        }
    }

    fn carry_out(&mut self, host: usize, life: u64, output: Output) {
        if self.loud && !matches!(output, Output::Configured(_) | Output::HorizonRaised(_)) {
            let text: String = format!("{output:?}").chars().take(300).collect();
            eprintln!("{:>10.3}   n{host} {text}", self.now as f64 / MS as f64);
        }
        match output {
            Output::Ask(ask) => {
                if self.network.register_cut[host][0] {
                    return self.never_answered(host, life, &ask);
                }
                let delay = self.random.between(MS / 5, self.chaos.delay);
                self.put(delay, Event::Asked(host, life, ask));
            }
            Output::Dial { member, probe } => {
                let stepping = self.hosts[host].shards.iter().any(|shard| shard.stepping_down > 0);
                assert!(probe || !stepping, "S10: n{host} follows before it has stepped down");
                let delay = self.way(host);
                self.put(delay, Event::Knock { from: host, life, member, probe });
            }
            Output::Order(order) => {
                for shard in 0..self.shards {
                    let lane = self.hosts[host].lane;
                    let delay = self.random.below(lane);
                    let here = &mut self.hosts[host].shards[usize::from(shard)];
                    here.stepping_down += u32::from(matches!(order, Order::StepDown | Order::Retire));
                    let last = &mut here.orders_last;
                    *last = (*last + 1).max(self.now + delay);
                    let at = *last;
                    self.put_at(at, Event::Shard(host, life, shard, Task::Order(order.clone())));
                }
            }
            Output::Became(standing) => self.hosts[host].standing = standing,
            Output::Configured(_)
            | Output::Quarantine(_)
            | Output::HorizonRaised(_)
            | Output::Answer(..)
            | Output::Alarm(..)
            | Output::Stopped => {}
        }
    }

    /// A report on its way from a shard to its node.
    pub(super) fn report(&mut self, host: usize, life: u64, shard: u16, report: Report) {
        let lane = self.hosts[host].lane;
        let delay = self.random.below(lane);
        let last = &mut self.hosts[host].shards[usize::from(shard)].reports_last;
        *last = (*last + 1).max(self.now + delay);
        let at = *last;
        self.put_at(at, Event::Control(host, life, Input::Shard(shard, report)));
    }

    // --- the register ---

    fn never_answered(&mut self, host: usize, life: u64, ask: &Ask) {
        let answer = match ask {
            Ask::Read => Answer::Failed("timed out".into()),
            Ask::Cas { .. } => Answer::Unknown("timed out".into()),
        };
        let delay = self.random.between(100 * MS, 1000 * MS);
        self.put(delay, Event::Control(host, life, Input::Register(answer)));
    }

    pub(super) fn asked(&mut self, host: usize, life: u64, ask: &Ask) {
        let chaos = self.chaos;
        let mut later = false;
        let answer = self.swap_in_register(|memory, random| match memory.handle(ask, &chaos, random) {
            Outcome::Now(answer) => answer,
            Outcome::Later(answer) => {
                later = true;
                answer
            }
        });
        if later {
            let delay = self.random.between(MS, 600 * MS);
            self.put(delay, Event::Effect(ask.clone()));
        }
        if self.network.register_cut[host][1] {
            return self.never_answered(host, life, ask);
        }
        let delay = self.random.between(MS / 5, self.chaos.delay);
        self.put(delay, Event::Control(host, life, Input::Register(answer)));
    }

    /// Does something in the register; whoever watches hears of it.
    pub(super) fn swap_in_register(
        &mut self,
        act: impl FnOnce(&mut super::Memory, &mut super::Random) -> Answer,
    ) -> Answer {
        let before = self.memory.value.clone();
        let answer = act(&mut self.memory, &mut self.random);
        if self.memory.value != before {
            self.check_written(before.as_ref());
            for host in 0..self.hosts.len() {
                self.watch(host);
            }
        }
        answer
    }

    /// Tells a node what stands in the register.
    pub(super) fn watch(&mut self, host: usize) {
        let life = self.hosts[host].life;
        if life != 0 && !self.network.register_cut[host][1] && !self.random.chance(self.faults.blind) {
            let delay = self.random.between(MS, 20 * MS);
            let value = self.memory.value.clone();
            self.put(delay, Event::Control(host, life, Input::Watched(Watched::Value(value))));
        }
    }

    // --- the network ---

    /// A time on the way from a host.
    fn way(&mut self, host: usize) -> u64 {
        let slow = self.network.slow[host];
        MS / 20 + self.random.below(MS / 5 + slow)
    }

    /// A node hears that somebody dials it.
    pub(super) fn knock(&mut self, from: usize, life: u64, wanted: &Member, probe: bool) {
        if self.hosts[from].life != life {
            return;
        }
        let to = index_of(&wanted.node);
        let (host, node) = (&self.hosts[to], wanted.node.clone());
        let outcome = if !self.network.is_whole(from, to) || host.stalls[0].until > self.now {
            Dialed::Silent("no answer".into())
        } else if host.life == 0 {
            if self.faults.dark[to] { Dialed::Silent("no machine".into()) } else { Dialed::Refused }
        } else if host.life != wanted.incarnation.get() {
            Dialed::Other(member(to, host.life))
        } else if probe {
            Dialed::Alive
        } else {
            self.connect(from, to);
            Dialed::Up
        };
        let mut delay = self.way(to);
        if matches!(outcome, Dialed::Silent(_)) {
            delay += self.random.between(50 * MS, 200 * MS);
        }
        self.put(delay, Event::Control(from, life, node::Input::Dialed { node, probe, outcome }));
    }

    /// A stream for each shard.
    fn connect(&mut self, from: usize, to: usize) {
        let ends = [from, to].map(|host| End { host, life: self.hosts[host].life });
        let members = [from, to].map(|host| member(host, self.hosts[host].life));
        self.put(0, Event::Control(to, ends[1].life, Input::Met(members[0].clone())));
        for shard in 0..self.shards {
            let key = self.network.next;
            self.network.next += 1;
            let lane = self.hosts[to].lane;
            let accepted = self.now + self.random.below(lane);
            let way = self.way(to);
            let lane = self.hosts[from].lane;
            let dialed = self.now + way + self.random.below(lane);
            let linked = |at: usize, by: bool| Task::Linked(key, peer(&members[at]), by);
            self.put_at(accepted, Event::Shard(to, ends[1].life, shard, linked(0, false)));
            self.put_at(dialed, Event::Shard(from, ends[0].life, shard, linked(1, true)));
            let stream = Stream {
                shard,
                ends,
                born: [dialed, accepted],
                last: [accepted, dialed],
                held: [vec![], vec![]],
                closed: [false; 2],
            };
            self.network.streams.insert(key, stream);
            if self.random.chance(self.faults.stillborn) {
                self.kill_stream(key);
            }
        }
    }

    /// Sends from one end of a stream; `None` ends it.
    pub(super) fn send(&mut self, key: u64, side: usize, parcel: Option<Vec<u8>>) {
        let Some(stream) = self.network.streams.get_mut(&key) else { return };
        if stream.closed[side] {
            return;
        }
        stream.closed[side] |= parcel.is_none();
        let (from, to) = (stream.ends[side].host, stream.ends[1 - side]);
        if self.network.cut[from][to.host] {
            stream.held[side].push(parcel);
            return;
        }
        let delay = self.way(from);
        let Some(stream) = self.network.streams.get_mut(&key) else { return };
        stream.last[side] = (stream.last[side] + 1).max(self.now + delay);
        let (at, shard) = (stream.last[side], stream.shard);
        let task = match parcel {
            Some(bytes) => Task::Bytes(key, bytes),
            None => Task::Unlinked(key),
        };
        if stream.closed == [true; 2] && stream.held.iter().all(Vec::is_empty) {
            self.network.streams.remove(&key);
        }
        self.put_at(at, Event::Shard(to.host, to.life, shard, task));
    }

    /// This end of a stream was closed by its owner, and hears no more of it.
    pub(super) fn close(&mut self, key: u64, host: usize) {
        let Some(stream) = self.network.streams.get(&key) else { return };
        let side = usize::from(stream.ends[0].host != host);
        self.send(key, side, None);
    }

    /// A stream breaks in the middle: both ends hear of it, each when it does.
    pub(super) fn kill_stream(&mut self, key: u64) {
        for side in [0, 1] {
            let Some(stream) = self.network.streams.get(&key) else { return };
            let (end, shard, last) = (stream.ends[side], stream.shard, stream.last[1 - side]);
            let delay = self.random.below(20 * MS);
            // What was on the way may be lost or not; the stream was made before it broke.
            let at = if self.random.chance(500) { last + 1 } else { self.now + delay };
            let at = at.max(stream.born[side] + 1);
            self.put_at(at, Event::Shard(end.host, end.life, shard, Task::Unlinked(key)));
        }
        self.network.streams.remove(&key);
    }

    /// What was held in a cut goes on, or its stream is dead by now.
    pub(super) fn flush(&mut self, from: usize, to: usize) {
        let keys: Vec<u64> = self.network.streams.keys().copied().collect();
        for key in keys {
            for side in [0, 1] {
                let Some(stream) = self.network.streams.get_mut(&key) else { continue };
                if stream.ends[side].host != from || stream.ends[1 - side].host != to {
                    continue;
                }
                let held = std::mem::take(&mut stream.held[side]);
                if held.is_empty() {
                    continue;
                }
                let closed = std::mem::replace(&mut stream.closed[side], false);
                if !closed && self.random.chance(300) {
                    self.kill_stream(key);
                    continue;
                }
                for parcel in held {
                    self.send(key, side, parcel);
                }
            }
        }
    }
}
