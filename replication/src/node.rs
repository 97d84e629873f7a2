//! A node's part in its cell: it talks with the register and decides who is what. Its replicas, one for each shard, carry
//! the log; this carries the configuration.
//!
//! Sans-IO: inputs are answers of the register, reports of the replicas, what became of dialling a peer, wishes of an
//! operator, and the moment; outputs are questions to the register, orders to all replicas, and peers to dial. At most one
//! question is under way. Everything that changes who counts is one compare-and-swap on what was read last, so a node that is
//! mistaken loses a swap and nothing else (R5, R6).

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::time::Duration;

use fairlock_protocol::Tick;

use crate::configuration::{Configuration, MEMBERS_MAX};
use crate::member::{Incarnation, Member, NodeId};
use crate::profile::Profile;
use crate::register::{Answer, Ask, Revision, Stored, Watched};
use crate::replica::{Order, Peer, Report, Setup};

mod asking;
mod forcing;
mod office;
mod seeking;
#[cfg(test)]
mod tests;
mod words;

pub use words::{Dialed, Fresh, Input, NodeSettings, Output, Standing, Wish};

/// Pause between two looks at a register that has not changed, and between two tries to reach somebody.
const LOOK_AGAIN: Duration = Duration::from_millis(500);
/// Pause before something that failed is tried again.
const TRY_AGAIN: Duration = Duration::from_millis(50);
/// Time in which a primary that was reached has taken its follower in, before it is asked anew.
const SETTLE_TIME: Duration = Duration::from_secs(5);
/// Who is late is found so with every look at the followers; who was not for so long is late no more.
const STILL_LATE: Duration = Duration::from_secs(1);

#[derive(Debug)]
enum Phase {
    /// It waits for the register, or for somebody to come back.
    Seeking { look_at: Tick },
    /// It follows a primary, or is about to.
    Following {
        primary: Peer,
        stream: Stream,
        since: Tick,
        /// A stream ended while all were being made; which one is not known.
        torn: bool,
        /// Shards that follow, and those on which the primary has handed over.
        shards: BTreeSet<u16>,
        handed: BTreeSet<u16>,
    },
    /// It has asked to take over.
    Seizing,
    /// It is primary in the register, and its replicas get ready.
    Entering { fresh: bool, promised: BTreeSet<u16>, seated: BTreeSet<u16> },
    /// It serves.
    Primary,
    /// It hands over.
    Yielding {
        yielded: BTreeSet<u16>,
        complete: bool,
        /// Shards on which the successor has activated its epoch already, and whether its streams stand.
        shards: BTreeSet<u16>,
        turned: bool,
    },
    /// It goes on no more.
    Halted,
}

/// The way to a primary.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stream {
    Down { dial_at: Tick },
    Dialling,
    Up,
}

/// A node.
#[derive(Debug)]
pub struct Node {
    settings: NodeSettings,
    phase: Phase,
    /// What was read last.
    known: Option<Stored>,
    /// Members of other histories of the register, which may be alive; of use to a node that halted.
    others: Vec<Member>,
    /// What was heard of the register while it was being asked.
    told: Option<Stored>,
    /// What the register was asked, and is to answer.
    asked: Option<Asked>,
    /// When it may be asked again after it failed.
    ask_at: Tick,
    /// Who called, and how to reach them: a joiner is listed as what it said it is.
    met: BTreeMap<NodeId, Member>,
    /// Shards whose replica has everything that this node was ever a member for.
    stateful: BTreeSet<u16>,
    /// Shards that have yet to carry out orders to step down, and how many: until then nobody is followed, and what they say
    /// they have is void.
    stepping_down: BTreeMap<u16, usize>,
    /// Who answered a probe that began after the present configuration was read.
    answering: BTreeMap<NodeId, Member>,
    /// Probes under way, and whether each began after the present configuration was read: only then it counts.
    probing: BTreeMap<NodeId, bool>,
    probe_at: Tick,
    /// The watch saw nothing where something stood, or something older: that has yet to be read.
    is_missed: bool,
    /// This life was listed.
    was_listed: bool,
    /// An earlier life of this node that was listed at another address, where nobody is any more.
    former_over: Option<Incarnation>,
    /// Since when whoever is to be followed has no room for a caller.
    busy_since: Option<Tick>,
    /// A take-over because of silence waits for this moment; pauses grow (R12).
    gap: Duration,
    gap_until: Tick,
    /// After a loss of memory: until when nothing is granted (R13).
    quarantine_until: Tick,
    /// Epoch in which this node took office last; 0 before the first time.
    reign: u32,
    wants: Wants,
    /// Replicas that have yet to answer the newest order to pin a joiner.
    pin_answers_due: usize,
    /// An operator says that these nodes are off; the register is looked at first.
    forcing: Option<(u64, Vec<NodeId>)>,
    standing: Standing,
    outputs: Vec<Output>,
}

/// What a primary has yet to put into the register.
#[derive(Debug, Default)]
struct Wants {
    /// With when each was found late last; `None`: nobody but an operator wants it out.
    evict: BTreeMap<Peer, Option<Tick>>,
    /// Shards on which a joiner has everything, and those on which it is pinned.
    joined: BTreeMap<Peer, BTreeSet<u16>>,
    pinned: Option<(Peer, BTreeSet<u16>)>,
    horizon: Option<Duration>,
    switchover: Option<(NodeId, Option<u64>)>,
    evictions: Vec<(NodeId, u64)>,
    clean: bool,
}

/// A question and what it is for.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Asked {
    Look {
        /// The watch had seen something that has to be read.
        missed: bool,
    },
    Swap {
        purpose: Purpose,
        expected: Option<Revision>,
        new: Configuration,
        /// The same was asked before, and may yet happen.
        again: bool,
    },
    /// A swap whose outcome is unknown was followed by this look.
    Check {
        purpose: Purpose,
        expected: Option<Revision>,
        new: Configuration,
        /// When the look is made again; `None` while one is under way.
        again_at: Option<Tick>,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Purpose {
    /// To be the first, or the first again.
    Begin,
    /// To take over.
    Seize,
    /// To change the members.
    Members,
    /// To raise the horizon.
    Horizon,
    /// To hand over.
    Handover,
    /// To end.
    End,
}

impl Node {
    /// A node that has yet to look around: give it a [`Input::Tick`].
    pub fn new(settings: NodeSettings) -> Node {
        let gap = settings.profile.gap;
        Node {
            settings,
            phase: Phase::Seeking { look_at: Tick::ZERO },
            known: None,
            others: Vec::new(),
            told: None,
            asked: None,
            ask_at: Tick::ZERO,
            met: BTreeMap::new(),
            stateful: BTreeSet::new(),
            stepping_down: BTreeMap::new(),
            answering: BTreeMap::new(),
            probing: BTreeMap::new(),
            probe_at: Tick::ZERO,
            is_missed: false,
            was_listed: false,
            former_over: None,
            busy_since: None,
            gap,
            gap_until: Tick::ZERO,
            quarantine_until: Tick::ZERO,
            reign: 0,
            wants: Wants::default(),
            pin_answers_due: 0,
            forcing: None,
            standing: Standing::Seeking,
            outputs: Vec::new(),
        }
    }

    /// Takes one input in.
    pub fn step(&mut self, now: Tick, input: Input) {
        match input {
            Input::Register(answer) => self.answered(now, answer),
            Input::Watched(Watched::Value(Some(stored))) => self.watched(now, stored),
            Input::Watched(Watched::Blind(why)) => self.register_fails(why),
            Input::Shard(shard, report) => self.reported(now, shard, report),
            Input::Dialed { node, probe: true, outcome } => self.probed(&node, outcome),
            Input::Dialed { node, probe: false, outcome } => self.dialed(now, &node, outcome),
            Input::Met(member) => {
                self.met.insert(member.node.clone(), member);
            }
            Input::Wish(ticket, wish) => self.wished(ticket, wish),
            Input::RaiseHorizon(ttl) => self.raise_horizon(ttl),
            Input::StopClean => self.wants.clean = true,
            // Only a read says for certain that nothing stands there.
            Input::Watched(Watched::Value(None)) => self.is_missed |= self.known.is_some(),
            Input::Tick => {}
        }
        self.go_on(now);
        self.tell_standing();
    }

    /// When it has something to do without any input.
    pub fn next_due(&self, now: Tick) -> Tick {
        let waits = match &self.phase {
            Phase::Seeking { look_at } if self.asked.is_none() => (*look_at).max(self.ask_at),
            Phase::Following { stream: Stream::Down { dial_at }, .. } if self.may_dial() => *dial_at,
            _ => now.after(LOOK_AGAIN),
        };
        match &self.asked {
            None if self.ask_at > now => waits.min(self.ask_at),
            Some(Asked::Check { again_at: Some(at), .. }) => waits.min(*at),
            _ => waits,
        }
    }

    /// What is to be done outside; the caller empties it.
    pub fn outputs(&mut self) -> &mut Vec<Output> {
        &mut self.outputs
    }

    /// The newest configuration that is known.
    pub fn known(&self) -> Option<&Stored> {
        self.known.as_ref()
    }

    /// Whether a configuration names this very life the primary.
    pub fn is_primary_of(&self, configuration: &Configuration) -> bool {
        self.lists_me(configuration) && configuration.primary == self.settings.me.node
    }

    /// What it is.
    pub fn standing(&self) -> Standing {
        match &self.phase {
            Phase::Primary | Phase::Yielding { .. } => Standing::Primary,
            Phase::Following { .. } | Phase::Seizing if self.is_member() => Standing::Backup,
            Phase::Halted => Standing::Halted,
            _ => Standing::Seeking,
        }
    }

    /// The primary that this node hears: it serves, and the streams of all shards stand.
    pub fn hears(&self) -> Option<&NodeId> {
        match &self.phase {
            Phase::Following { primary, stream: Stream::Up, shards, .. } if shards.len() == self.shards() => {
                Some(&primary.node)
            }
            _ => None,
        }
    }

    /// Everybody who is listed, also in other histories that the register had.
    pub fn listed(&self) -> impl Iterator<Item = &Member> {
        self.known.iter().flat_map(|known| &known.configuration.members).chain(&self.others)
    }

    /// Members that this primary finds late, and that are listed as yet: without them nothing is confirmed.
    pub fn finds_late(&self, now: Tick) -> impl Iterator<Item = &NodeId> {
        let still = move |found: &Option<Tick>| found.is_some_and(|found| now.since(found) < STILL_LATE);
        self.wants.evict.iter().filter(move |(_, found)| still(found)).map(|(late, _)| &late.node)
    }

    /// For people: what it waits for, when it has no place.
    pub fn waits_for(&self) -> Vec<NodeId> {
        let missing: BTreeSet<&NodeId> =
            self.listed().filter(|member| !self.is_gone(member)).map(|member| &member.node).collect();
        missing.into_iter().cloned().collect()
    }

    fn shards(&self) -> usize {
        usize::from(self.settings.shards)
    }

    fn me(&self) -> Peer {
        peer(&self.settings.me)
    }

    fn is_listed(&self) -> bool {
        self.known.as_ref().is_some_and(|known| self.lists_me(&known.configuration))
    }

    /// Whether this node is a member with everything that is committed: whoever is listed has acknowledged all of it.
    fn is_member(&self) -> bool {
        self.stateful.len() == self.shards() && self.is_listed()
    }

    fn lists_me(&self, configuration: &Configuration) -> bool {
        configuration
            .member(&self.settings.me.node)
            .is_some_and(|member| member.incarnation == self.settings.me.incarnation)
    }

    /// Whether the register is being asked, for whoever wants to know how far something is.
    pub fn is_asking(&self) -> bool {
        self.asked.is_some()
    }

    fn order(&mut self, order: Order) {
        self.outputs.push(Output::Order(order));
    }

    fn alarm(&mut self, name: &'static str, text: Option<String>) {
        self.outputs.push(Output::Alarm(name, text));
    }

    fn tell_standing(&mut self) {
        let standing = self.standing();
        if core::mem::replace(&mut self.standing, standing) != standing {
            self.outputs.push(Output::Became(standing));
        }
    }

    /// What a replica needs to know of a configuration.
    fn setup(&self, stored: &Stored) -> Setup {
        let configuration = &stored.configuration;
        let me = self.me();
        let others = configuration.members.iter().map(peer).filter(|other| *other != me).collect();
        Setup { epoch: configuration.epoch, reign: configuration.reign, others, configuration: pack(stored) }
    }

    /// Whether the life that is listed is certainly over: its own node says so, by living another (R13). A life has its
    /// node's lock, and whoever answered was asked after the listed one was read: so it is the later one.
    fn is_gone(&self, listed: &Member) -> bool {
        let me = &self.settings.me;
        // This very life, when nothing is left of what it knew.
        if listed.incarnation == me.incarnation && listed.node == me.node {
            return self.stateful.len() < self.shards();
        }
        let later = |other: &Member| {
            other.node == listed.node
                && other.machine == listed.machine
                && other.incarnation != listed.incarnation
        };
        (later(me) && self.namesake().is_none()) || self.answering.get(&listed.node).is_some_and(later)
    }

    /// Who is listed by this node's name at another address, until it is certain that nobody is there: whoever was given
    /// another state directory does not have the lock that lets one life follow another.
    fn namesake(&self) -> Option<&Member> {
        let me = &self.settings.me;
        self.listed().find(|listed| {
            let is_one =
                listed.node == me.node && listed.incarnation != me.incarnation && listed.peer != me.peer;
            is_one && self.former_over != Some(listed.incarnation)
        })
    }

    /// Whether a primary may be followed. It takes a new life in for the one that is listed, which must not be one that lives;
    /// one that does not is taken out without this node's doing.
    fn may_dial(&self) -> bool {
        self.stepping_down.is_empty() && self.namesake().is_none()
    }

    /// Nothing that is here counts any more.
    fn step_down(&mut self) {
        self.order(Order::StepDown);
        if mutant!(StepDownUnheard) {
            return;
        }
        self.stateful.clear();
        self.await_stepped_down();
    }

    /// The replicas leave office and keep what they have.
    fn retire(&mut self) {
        self.order(Order::Retire);
        self.await_stepped_down();
    }

    /// Whatever a replica says before it says that it stepped down is of before.
    fn await_stepped_down(&mut self) {
        for shard in 0..self.settings.shards {
            *self.stepping_down.entry(shard).or_default() += 1;
        }
    }

    fn stepped_down(&mut self, shard: u16) {
        if let Some(due) = self.stepping_down.get_mut(&shard) {
            *due -= 1;
            if *due == 0 {
                self.stepping_down.remove(&shard);
            }
        }
    }

    fn halt(&mut self, name: &'static str, why: String) {
        self.step_down();
        self.alarm(name, Some(why));
        self.phase = Phase::Halted;
    }
}

/// The life of a member.
pub fn peer(member: &Member) -> Peer {
    Peer { node: member.node.clone(), incarnation: member.incarnation }
}

/// A configuration with its revision, as followers hand it to their nodes.
fn pack(stored: &Stored) -> Vec<u8> {
    let mut bytes = stored.revision.0.to_le_bytes().to_vec();
    bytes.extend_from_slice(stored.configuration.to_text().as_bytes());
    bytes
}

/// What [`pack`] packed; `None` for anything else.
fn unpack(bytes: &[u8]) -> Option<Stored> {
    let (revision, text) = bytes.split_first_chunk::<8>()?;
    let configuration = Configuration::from_text(text).ok()?;
    Some(Stored { configuration, revision: Revision(u64::from_le_bytes(*revision)) })
}

/// The configuration after this one, with what every change has in common.
fn successor(of: &Configuration) -> Option<Configuration> {
    let epoch = of.epoch.next()?;
    Some(Configuration { epoch, clean: false, ..of.clone() })
}

fn exhausted() -> String {
    "every epoch was used; tokens of this cell cannot rise any more".to_string()
}
