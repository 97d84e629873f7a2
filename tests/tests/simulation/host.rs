//! A node: the control thread and the shards' threads of one server process, each with what has arrived for it and when it
//! runs next. A thread that runs takes everything that has arrived, as a pass of a server does. A process that ends forgets
//! everything.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use fairlock_locktable::NamespaceRules;
use fairlock_protocol::{CellId, DigestKey, Epoch};
use fairlock_replication::node::{Dialed, Fresh, NodeSettings, Standing, peer};
use fairlock_replication::profile::Profile;
use fairlock_replication::replica::Peer;
use fairlock_replication::{Incarnation, MacKey, Member, NodeId};
use fairlock_server::deciding::{Birth, Control, Duty, Letter, Line, Shard, Told};

use super::clock::Clock;
use super::network::{End, Parcel};
use super::tables::Watcher;
use super::{Event, US, World};

/// Longest lease.
pub(crate) const TTL_MAX: Duration = Duration::from_mins(1);

/// What has arrived for a control thread.
#[derive(Debug)]
pub(crate) enum Errand {
    Told(Told),
    /// A node called, with a stream for a shard.
    Called(Member, u16, u64),
    /// What became of dialling, with the streams.
    Dialed(Member, bool, Dialed, Vec<u64>),
}

/// What has arrived for a shard's thread.
#[derive(Debug)]
pub(crate) enum Task {
    Letter(Letter),
    /// A stream with another node, and on which side of it this one is.
    Peer(u64, usize, Peer),
    /// A client's connection that was made to another shard, with what it said.
    Adopt(u64, Vec<u8>),
    Parcel(u64, Parcel),
}

/// One shard's thread.
#[derive(Debug)]
pub(crate) struct Desk {
    pub(crate) shard: Shard,
    pub(crate) inbox: VecDeque<Task>,
    pub(crate) wakes_at: u64,
    pub(crate) stalled_until: u64,
    /// Streams with nodes, and this node's side of each.
    pub(crate) peers: BTreeMap<u64, usize>,
    pub(crate) lines: BTreeMap<u64, Line>,
    pub(crate) watcher: Watcher,
}

/// A process.
#[derive(Debug)]
pub(crate) struct Process {
    pub(crate) control: Control,
    pub(crate) inbox: VecDeque<Errand>,
    pub(crate) wakes_at: u64,
    pub(crate) stalled_until: u64,
    pub(crate) desks: Vec<Desk>,
    pub(crate) me: Member,
}

/// A node.
#[derive(Debug)]
pub(crate) struct Host {
    pub(crate) clock: Clock,
    /// Number of its process, counted over all nodes; 0 while there is none.
    pub(crate) life: u64,
    pub(crate) process: Option<Box<Process>>,
    pub(crate) standing: Standing,
    /// The machine is off.
    pub(crate) dark: bool,
    /// When letters between two threads arrive at the latest so far: control last.
    lanes: BTreeMap<(u16, u16), u64>,
}

/// The control thread among the threads.
pub(crate) const CONTROL: u16 = u16::MAX;

impl Host {
    pub(crate) fn new(clock: Clock) -> Host {
        let standing = Standing::Seeking;
        Host { clock, life: 0, process: None, standing, dark: false, lanes: BTreeMap::new() }
    }

    /// A shard's thread, if the process runs.
    pub(crate) fn desk(&mut self, shard: u16) -> Option<&mut Desk> {
        self.process.as_mut()?.desks.get_mut(usize::from(shard))
    }
}

/// Where clients reach a node.
pub(crate) fn endpoint(host: usize) -> String {
    format!("tcp://n{host}:7411")
}

/// The node that is reached there.
pub(crate) fn host_at(endpoint: &str) -> Option<usize> {
    endpoint.strip_prefix("tcp://n")?.split(':').next()?.parse().ok()
}

/// The node of this name.
pub(crate) fn index_of(node: &NodeId) -> usize {
    node.as_str()[1..].parse().expect("nodes are numbered")
}

impl World {
    /// A process of a node begins.
    pub(super) fn start(&mut self, index: usize) {
        if self.hosts[index].life != 0 {
            return;
        }
        self.lives += 1;
        let life = self.lives;
        let me = Member {
            node: NodeId::new(&format!("n{index}")).expect("a good name"),
            machine: format!("{:08x}", index + 1),
            incarnation: Incarnation::new(life).expect("lives begin with 1"),
            peer: format!("n{index}:7412"),
            clients: endpoint(index),
        };
        let fresh = Fresh {
            cell: CellId(self.random.next().into()),
            epoch: Epoch::new(10).expect("10 is an epoch"),
            digest_key: DigestKey([self.random.next(), self.random.next()]),
            mac_key: MacKey([0; 16]),
        };
        let (shards, profile) = (self.shards, self.profile);
        // An update under way: every other start is of a version that knows one level more. The cell stays at its own.
        let feature_level = if self.stored().is_some() { 1 + u16::from(life.is_multiple_of(2)) } else { 1 };
        let settings =
            NodeSettings { me: me.clone(), shards, profile, feature_level, fresh, ttl_max: TTL_MAX };
        let desks = (0..shards).map(|number| self.desk(index, number, profile)).collect();
        let process = Process {
            control: Control::new(settings, 1),
            inbox: VecDeque::from([Errand::Told(Told::Tick)]),
            wakes_at: u64::MAX,
            stalled_until: 0,
            desks,
            me,
        };
        let host = &mut self.hosts[index];
        (host.life, host.dark, host.standing) = (life, false, Standing::Seeking);
        host.process = Some(Box::new(process));
        host.lanes.clear();
        self.trace("start", index as u64, life, 0);
        self.wake_control(index, self.now);
    }

    fn desk(&mut self, host: usize, me: u16, profile: Profile) -> Desk {
        let mut secrets = fairlock_tests::random::Random::from_seed(self.random.next());
        let birth = Birth {
            me,
            shards: self.shards,
            ttl_max: TTL_MAX,
            profile,
            index_key: self.random.next(),
            rules: NamespaceRules::new(),
            entropy: Box::new(move || u128::from(secrets.next()) << 64 | u128::from(secrets.next())),
        };
        Desk {
            shard: Shard::new(birth, self.hosts[host].clock.shows(self.now)),
            inbox: VecDeque::new(),
            wakes_at: u64::MAX,
            stalled_until: 0,
            peers: BTreeMap::new(),
            lines: BTreeMap::new(),
            watcher: Watcher::default(),
        }
    }

    /// A process ends without a word; `off`: its machine, too.
    pub(super) fn crash(&mut self, host: usize, off: bool) {
        let life = std::mem::take(&mut self.hosts[host].life);
        if life == 0 {
            return;
        }
        self.trace("crash", host as u64, life, u64::from(off));
        (self.hosts[host].process, self.hosts[host].dark) = (None, off);
        self.hang_up_all(|end| matches!(end, End::Node(node, its, _) if (node, its) == (host, life)), off);
    }

    pub(super) fn wake_control(&mut self, host: usize, at: u64) {
        let life = self.hosts[host].life;
        let Some(process) = &mut self.hosts[host].process else { return };
        let at = at.max(process.stalled_until);
        if at < process.wakes_at {
            process.wakes_at = at;
            self.put_at(at, Event::Control(host, life, at));
        }
    }

    pub(super) fn wake_shard(&mut self, host: usize, shard: u16, at: u64) {
        let life = self.hosts[host].life;
        let Some(desk) = self.hosts[host].desk(shard) else { return };
        let at = at.max(desk.stalled_until);
        if at < desk.wakes_at {
            desk.wakes_at = at;
            self.put_at(at, Event::Shard(host, life, shard, at));
        }
    }

    pub(super) fn parcel_for_node(&mut self, host: usize, shard: u16, number: u64, parcel: Parcel) {
        self.task(host, shard, Task::Parcel(number, parcel));
    }

    /// Something has arrived for a shard's thread.
    pub(super) fn task(&mut self, host: usize, shard: u16, task: Task) {
        if let Some(desk) = self.hosts[host].desk(shard) {
            desk.inbox.push_back(task);
            let soon = self.now + 2 * US;
            self.wake_shard(host, shard, soon);
        }
    }

    /// Something has arrived for a control thread.
    pub(super) fn errand(&mut self, host: usize, life: u64, errand: Errand) {
        if self.hosts[host].life != life {
            return;
        }
        if let Some(process) = &mut self.hosts[host].process {
            process.inbox.push_back(errand);
            self.wake_control(host, self.now);
        }
    }

    /// When something said from one thread to another arrives: in order.
    pub(super) fn lane(&mut self, host: usize, from: u16, to: u16) -> u64 {
        let at = self.now + 5 * US + self.random.below(50 * US);
        let last = self.hosts[host].lanes.entry((from, to)).or_default();
        *last = at.max(*last + 1);
        *last
    }

    pub(super) fn tell_shard(&mut self, host: usize, from: u16, to: u16, task: Task) {
        let at = self.lane(host, from, to);
        let life = self.hosts[host].life;
        self.put_at(at, Event::Task(host, life, to, Box::new(task)));
    }

    /// The control thread runs.
    pub(super) fn run_control(&mut self, host: usize, life: u64, at: u64) {
        let now = self.hosts[host].clock.shows(self.now);
        if self.hosts[host].life != life {
            return;
        }
        let Some(process) = &mut self.hosts[host].process else { return };
        if process.wakes_at != at {
            return;
        }
        process.wakes_at = u64::MAX;
        if process.stalled_until > self.now {
            return self.wake_control(host, self.now);
        }
        let inbox = std::mem::take(&mut process.inbox);
        for errand in inbox {
            let (told, after) = match errand {
                Errand::Told(told) => (told, None),
                Errand::Called(member, shard, stream) => {
                    (Told::Called(member.clone()), Some((shard, Task::Peer(stream, 1, peer(&member)))))
                }
                Errand::Dialed(member, probe, outcome, streams) => {
                    for (stream, shard) in streams.into_iter().zip(0..) {
                        self.tell_shard(host, CONTROL, shard, Task::Peer(stream, 0, peer(&member)));
                    }
                    (Told::Dialed { member, probe, outcome }, None)
                }
            };
            self.decide(host, now, told);
            if let Some((shard, task)) = after {
                self.tell_shard(host, CONTROL, shard, task);
            }
        }
        self.decide(host, now, Told::Tick);
        let Some(process) = &self.hosts[host].process else { return };
        let due = self.hosts[host].clock.truth(process.control.next_due(now));
        self.wake_control(host, due.max(self.now + 100 * US));
    }

    fn decide(&mut self, host: usize, now: fairlock_protocol::Tick, told: Told) {
        let Some(process) = &mut self.hosts[host].process else { return };
        for duty in process.control.step(now, told) {
            match duty {
                Duty::Ask(ask) => self.ask_register(host, ask),
                Duty::Dial { member, probe } => self.dial(host, member, probe),
                Duty::Tell(letters) => {
                    for (letter, shard) in letters.into_iter().zip(0..) {
                        self.tell_shard(host, CONTROL, shard, Task::Letter(letter));
                    }
                }
                Duty::Became(standing) => {
                    self.trace("became", host as u64, standing as u64, 0);
                    self.hosts[host].standing = standing;
                }
                Duty::Answer(..) => {}
            }
        }
    }
}
