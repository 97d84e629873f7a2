//! The node's place on the control thread: what `replication::Node` wants is done here (ask the register, dial a peer, give
//! orders to the shards), and what came of it is handed back. Nothing here waits: the register and every dialling have
//! threads of their own, and answer through the control thread's lane.

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use fairlock_protocol::{Refusal, Tick};
use fairlock_replication::node::{self, Dialed, Input, Node, NodeSettings, Standing, Wish, peer};
use fairlock_replication::replica::{Peer, Report};
use fairlock_replication::{Answer, Member, NodeId, Watched};

use super::clerk::{Clerk, Errand};
use super::picture::CellAnswer;
use super::wishes::Wishes;
use super::{Caller, DIAL_TIME, Introduction, PeerDoor, Purpose};
use crate::control::Alarms;
use crate::control::register::{RegisterThread, Watch};
use crate::lanes::{ControlLane, PeerStream, ShardLane, ToControl, ToShard};

/// What threads of a cell tell the control thread.
#[derive(Debug)]
pub(crate) enum CellEvent {
    /// The register answered.
    Register(Answer),
    /// The register's watch says something.
    Watched(Watched),
    /// What became of dialling a node.
    Dialed {
        /// Whom.
        member: Member,
        /// Only to learn who answers.
        probe: bool,
        /// What became of it.
        outcome: Dialed,
        /// A stream for each shard, when all stand.
        streams: Vec<OwnedFd>,
    },
    /// A node called.
    Called(Box<Caller>),
    /// A replica reports.
    Report(u16, Report),
}

/// What a desk may write to.
pub(crate) struct Tray<'a> {
    /// The ways to the shards.
    pub(crate) lanes: &'a mut [ShardLane],
    /// The board of alarms.
    pub(crate) alarms: &'a Alarms,
}

/// What came of a step, for the control thread itself.
#[derive(Debug, Default)]
pub(crate) struct Outcome {
    /// The node is something else now.
    pub(crate) became: Option<Standing>,
    /// The end of the cell is in the register.
    pub(crate) stopped: bool,
    /// What the node says to its own wish: to hand over.
    pub(crate) own_wish: Option<Result<(), (Refusal, String)>>,
    /// Answers to wishes of operators.
    pub(crate) answers: Vec<(u64, CellAnswer)>,
}

/// The ticket of a hand-over that a stopping node wants for itself; those of operators are above it.
pub(crate) const OWN_TICKET: u64 = 0;
/// How long it counts what a call showed when an operator says that a node is off.
const SIGN_TIME: Duration = Duration::from_secs(5);
/// Nodes that are remembered because they called; more is a mistake in somebody's configuration.
const MET_MAX: usize = 64;

/// What a call showed.
#[derive(Clone, Copy, Debug)]
struct Sign {
    at: Tick,
    /// That life answered, or somebody who may be it.
    answers: bool,
}

/// A node's desk.
#[derive(Debug)]
pub(crate) struct Desk {
    clerk: Clerk,
    introduction: Arc<Introduction>,
    register: RegisterThread,
    _watch: Watch,
    _door: PeerDoor,
    control: ControlLane,
    copies_min: usize,
    feature_level: u16,
    /// Where the register is, and why it does not answer; empty: it does.
    place: String,
    register_fault: String,
    /// Who called, and how to reach them.
    met: BTreeMap<NodeId, Member>,
    /// What the newest call of somebody who is listed showed.
    called: BTreeMap<Peer, Sign>,
    /// What operators wait for.
    wishes: Wishes,
    /// How often this node became primary.
    offices_total: u64,
}

/// What a desk is made of.
pub(crate) struct DeskParts {
    /// For the node.
    pub(crate) settings: NodeSettings,
    /// How this node introduces itself.
    pub(crate) introduction: Arc<Introduction>,
    /// The register.
    pub(crate) register: RegisterThread,
    /// Its watch.
    pub(crate) watch: Watch,
    /// Where other nodes call.
    pub(crate) door: PeerDoor,
    /// The way back to the control thread.
    pub(crate) control: ControlLane,
    /// With fewer members nothing is granted.
    pub(crate) copies_min: usize,
    /// Where the register is, for people.
    pub(crate) place: String,
}

impl Desk {
    pub(crate) fn new(parts: DeskParts) -> Desk {
        let feature_level = parts.settings.feature_level;
        Desk {
            feature_level,
            place: parts.place,
            register_fault: String::new(),
            met: BTreeMap::new(),
            called: BTreeMap::new(),
            wishes: Wishes::default(),
            offices_total: 0,
            clerk: Clerk::new(parts.settings, parts.copies_min),
            introduction: parts.introduction,
            register: parts.register,
            _watch: parts.watch,
            _door: parts.door,
            control: parts.control,
            copies_min: parts.copies_min,
        }
    }

    /// The node, for whoever wants to look.
    pub(crate) fn node(&self) -> &Node {
        self.clerk.node()
    }

    /// Until when nothing is granted; [`Tick::ZERO`] when there is no quarantine.
    pub(crate) fn quarantine_until(&self) -> Tick {
        self.clerk.quarantine_until()
    }

    /// The epoch that is known; 0 for none.
    pub(crate) fn epoch(&self) -> u32 {
        self.node().known().map_or(0, |known| known.configuration.epoch.get())
    }

    /// When it has something to do by itself.
    pub(crate) fn next_due(&self, now: Tick) -> Tick {
        self.node().next_due(now)
    }

    /// A lease longer than any before is wanted.
    pub(crate) fn raise_horizon(&mut self, now: Tick, ttl: Duration, tray: &mut Tray<'_>) -> Outcome {
        self.step(now, Input::RaiseHorizon(ttl), tray)
    }

    /// What an operator wants, or this node by itself.
    pub(crate) fn wish(&mut self, now: Tick, ticket: u64, wish: Wish, tray: &mut Tray<'_>) -> Outcome {
        if ticket != OWN_TICKET {
            let begun = match self.refuse(now, &wish) {
                Some((refusal, why)) => Err(CellAnswer::Unmet { refusal, why }),
                None => self.wishes.begin(now, ticket, &wish, self.clerk.node()),
            };
            if let Err(answer) = begun {
                return Outcome { answers: vec![(ticket, answer)], ..Outcome::default() };
            }
        }
        self.step(now, Input::Wish(ticket, wish), tray)
    }

    /// What is not even begun. What the node itself knows it says later.
    fn refuse(&self, now: Tick, wish: &Wish) -> Option<(Refusal, String)> {
        let me = &self.introduction.me.node;
        match wish {
            Wish::Switchover(Some(to)) if to == me => {
                Some((Refusal::NotFound, format!("{to} is the primary already")))
            }
            Wish::Evict(node) if node == me => {
                let why =
                    format!("{node} is the primary: hand over first, with `fairlock cluster switchover`");
                Some((Refusal::Denied, why))
            }
            Wish::ForceNew(_) if self.node().known().is_none() => {
                let (place, fault) = (&self.place, &self.register_fault);
                let why = format!(
                    "nothing is known of the cell: the register at {place} does not answer ({fault})"
                );
                Some((Refusal::Unavailable, why))
            }
            Wish::ForceNew(off) => self.refuse_force(now, off),
            Wish::Switchover(_) | Wish::Evict(_) => None,
        }
    }

    /// Why a cell is not begun anew by force: somebody of it was heard (R13), or has yet to be called.
    fn refuse_force(&self, now: Tick, off: &[NodeId]) -> Option<(Refusal, String)> {
        // Those have words of their own.
        if matches!(self.node().standing(), Standing::Primary | Standing::Backup)
            && self.node().hears().is_none()
        {
            return None;
        }
        if let Some(primary) = self.node().hears() {
            let why =
                format!("{primary} serves this cell, and this node follows it: nothing has to be forced");
            return Some((Refusal::Denied, why));
        }
        let own_life = self.introduction.me.incarnation;
        let named = self.node().listed().filter(|one| off.contains(&one.node) && one.incarnation != own_life);
        let signs = named.map(|member| {
            let sign = self.called.get(&peer(member));
            (member, sign.filter(|sign| now.since(sign.at) < SIGN_TIME))
        });
        let signs: Vec<_> = signs.collect();
        let answers = |(_, sign): &&(&Member, Option<&Sign>)| sign.is_some_and(|sign| sign.answers);
        if let Some((Member { node, peer, .. }, _)) = signs.iter().find(answers) {
            let why = format!(
                "somebody answers at {peer}, where {node} is listed, or has a moment ago: stop it, and try again after \
                 {} s",
                SIGN_TIME.as_secs()
            );
            return Some((Refusal::Denied, why));
        }
        let unknown: Vec<&Member> =
            signs.iter().filter(|(_, sign)| sign.is_none()).map(|(member, _)| *member).collect();
        for member in &unknown {
            self.dial((*member).clone(), true);
        }
        let names: Vec<&str> = unknown.iter().map(|member| member.node.as_str()).collect();
        (!names.is_empty())
            .then(|| (Refusal::Busy, format!("{} is being called; try again in a second", names.join(", "))))
    }

    /// The node stops and leaves no lease behind.
    pub(crate) fn stop_clean(&mut self, now: Tick, tray: &mut Tray<'_>) -> Outcome {
        self.step(now, Input::StopClean, tray)
    }

    /// Time went on.
    pub(crate) fn tick(&mut self, now: Tick, tray: &mut Tray<'_>) -> Outcome {
        self.step(now, Input::Tick, tray)
    }

    /// Something happened.
    pub(crate) fn hear(&mut self, now: Tick, event: CellEvent, tray: &mut Tray<'_>) -> Outcome {
        match event {
            CellEvent::Register(answer) => {
                self.register_fault = match &answer {
                    Answer::Failed(why) | Answer::Unknown(why) => why.clone(),
                    Answer::Value(_) | Answer::Written(_) | Answer::Conflict(_) => String::new(),
                };
                self.step(now, Input::Register(answer), tray)
            }
            CellEvent::Watched(watched) => {
                self.register_fault = match &watched {
                    Watched::Blind(why) => why.clone(),
                    Watched::Value(_) => String::new(),
                };
                self.step(now, Input::Watched(watched), tray)
            }
            CellEvent::Report(shard, report) => self.step(now, Input::Shard(shard, report), tray),
            CellEvent::Called(caller) => self.called(now, *caller, tray),
            CellEvent::Dialed { member, probe, outcome, streams } => {
                let answers =
                    matches!(outcome, Dialed::Alive | Dialed::Up | Dialed::Unproven(_) | Dialed::Busy(_));
                self.called.retain(|_, sign| now.since(sign.at) < SIGN_TIME);
                // Whoever has answered has, for a while, whatever came of another call.
                if answers || !self.called.get(&peer(&member)).is_some_and(|before| before.answers) {
                    self.called.insert(peer(&member), Sign { at: now, answers });
                }
                for (socket, lane) in streams.into_iter().zip(tray.lanes.iter_mut()) {
                    lane.send(ToShard::Peer(Box::new(PeerStream {
                        socket,
                        peer: peer(&member),
                        dialed: true,
                    })));
                }
                self.step(now, Input::Dialed { node: member.node, probe, outcome }, tray)
            }
        }
    }

    /// Another node introduced itself: who follows is handed to the shard that it wants.
    fn called(&mut self, now: Tick, caller: Caller, tray: &mut Tray<'_>) -> Outcome {
        let Caller { member, purpose, socket, .. } = caller;
        let Purpose::Follow { shard } = purpose else { return Outcome::default() };
        let peer = peer(&member);
        if self.met.len() < MET_MAX || self.met.contains_key(&member.node) {
            self.met.insert(member.node.clone(), member.clone());
        }
        let outcome = self.step(now, Input::Met(member), tray);
        if let Some(lane) = tray.lanes.get_mut(usize::from(shard)) {
            lane.send(ToShard::Peer(Box::new(PeerStream { socket, peer, dialed: false })));
        }
        outcome
    }

    fn step(&mut self, now: Tick, input: Input, tray: &mut Tray<'_>) -> Outcome {
        let mut outcome = Outcome::default();
        for errand in self.clerk.step(now, input, tray.alarms) {
            self.carry_out(errand, tray, &mut outcome);
        }
        outcome.answers.extend(self.wishes.settle(now, self.clerk.node(), &self.register_fault));
        outcome
    }

    fn carry_out(&mut self, errand: Errand, tray: &mut Tray<'_>, outcome: &mut Outcome) {
        match errand {
            Errand::Ask(ask) => {
                if let Err(busy) = self.register.ask(ask) {
                    tracing::error!(?busy, "the register was asked twice at a time");
                }
            }
            Errand::Dial { member, probe } => self.dial(member, probe),
            Errand::Tell(message) => tray.lanes.iter_mut().for_each(|lane| lane.send(message.copy())),
            // Relaxed: a number that is shown.
            Errand::Known(epoch) => {
                self.introduction.epoch.store(epoch, std::sync::atomic::Ordering::Relaxed);
            }
            Errand::Answer(OWN_TICKET, answer) => outcome.own_wish = Some(answer),
            Errand::Answer(ticket, answer) => {
                let answer = self.wishes.answered(ticket, answer);
                outcome.answers.extend(answer.map(|answer| (ticket, answer)));
            }
            Errand::Became(standing) => {
                tracing::info!(?standing, "this node's part in the cell");
                self.offices_total += u64::from(standing == Standing::Primary);
                if matches!(standing, Standing::Primary | Standing::Backup) {
                    tray.alarms.clear("waiting");
                    tray.alarms.clear("peer");
                }
                outcome.became = Some(standing);
            }
            Errand::Stopped => outcome.stopped = true,
        }
    }

    /// Dials on a thread of its own, which ends with the answer.
    fn dial(&self, member: Member, probe: bool) {
        let (introduction, control) = (self.introduction.clone(), self.control.clone());
        let told = member.clone();
        let body = move || {
            let (outcome, streams) = super::dial(&introduction, &member, probe, DIAL_TIME);
            tracing::debug!(node = %member.node, probe, ?outcome, "dialled");
            control.send(ToControl::Cell(CellEvent::Dialed { member, probe, outcome, streams }));
        };
        if let Err(error) = std::thread::Builder::new().name("dial".into()).spawn(body) {
            let outcome = Dialed::Silent(format!("no thread is left to dial with: {error}"));
            let streams = Vec::new();
            self.control.send(ToControl::Cell(CellEvent::Dialed { member: told, probe, outcome, streams }));
        }
    }

    /// How this node introduces itself.
    pub(crate) fn introduction(&self) -> &Introduction {
        &self.introduction
    }

    /// Newest operations it understands.
    pub(crate) fn feature_level(&self) -> u16 {
        self.feature_level
    }

    /// With fewer members nothing is granted.
    pub(crate) fn copies_min(&self) -> usize {
        self.copies_min
    }

    /// Members that are known.
    pub(crate) fn copies(&self) -> usize {
        self.node().known().map_or(0, |known| known.configuration.members.len())
    }

    /// Where the register is.
    pub(crate) fn place(&self) -> &str {
        &self.place
    }

    /// Who does not answer while the register, which would take it out, does not either: nothing is confirmed until one does.
    pub(crate) fn waits_for_both(&self, now: Tick) -> Option<&NodeId> {
        self.node().finds_late(now).next().filter(|_| !self.register_fault.is_empty())
    }

    /// Why it does not answer; empty: it does.
    pub(crate) fn register_fault(&self) -> &str {
        &self.register_fault
    }

    /// Who has called, and how to reach them.
    pub(crate) fn met(&self) -> &BTreeMap<NodeId, Member> {
        &self.met
    }

    /// How often this node became primary.
    pub(crate) fn offices_total(&self) -> u64 {
        self.offices_total
    }

    /// What it is about while it has no place, for a person.
    pub(crate) fn waiting(&self) -> String {
        if !self.register_fault.is_empty() {
            return format!("the register at {} does not answer: {}", self.place, self.register_fault);
        }
        let Some(known) = self.node().known() else {
            return format!("reading the register at {}", self.place);
        };
        if self.node().standing() == Standing::Halted {
            return "this node goes on no more: its alarms tell why, and what to do".to_string();
        }
        let names = |nodes: &[NodeId]| nodes.iter().map(NodeId::as_str).collect::<Vec<_>>().join(", ");
        if let Some(primary) = self.node().hears() {
            return format!("{primary} is the primary and brings this node up to date");
        }
        let (primary, missing) = (&known.configuration.primary, names(&self.node().waits_for()));
        format!("the primary {primary} does not take this node in; waiting for {missing}")
    }
}

/// The role a standing is called in `status`.
pub(crate) const fn role_name(standing: Standing) -> &'static str {
    match standing {
        node::Standing::Primary => "primary",
        node::Standing::Backup => "backup",
        node::Standing::Seeking => "joining",
        node::Standing::Halted => "halted",
    }
}
