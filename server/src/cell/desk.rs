//! The node's place on the control thread: what `replication::Node` wants is done here (ask the register, dial a peer, give
//! orders to the shards), and what came of it is handed back. Nothing here waits: the register and every dialling have
//! threads of their own, and answer through the control thread's lane.

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use fairlock_protocol::Tick;
use fairlock_replication::node::{self, Dialed, Input, Node, NodeSettings, Standing, Wish, peer};
use fairlock_replication::replica::Report;
use fairlock_replication::{Answer, Member, NodeId, Watched};

use super::clerk::{Clerk, Errand};
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
    /// Answers to wishes.
    pub(crate) answers: Vec<(u64, Result<(), String>)>,
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
    /// How far each follower is, as the shards last said.
    lags: BTreeMap<NodeId, u64>,
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
}

impl Desk {
    pub(crate) fn new(parts: DeskParts) -> Desk {
        Desk {
            clerk: Clerk::new(parts.settings, parts.copies_min),
            introduction: parts.introduction,
            register: parts.register,
            _watch: parts.watch,
            _door: parts.door,
            control: parts.control,
            lags: BTreeMap::new(),
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
        self.clerk.node().known().map_or(0, |known| known.configuration.epoch.get())
    }

    /// When it has something to do by itself.
    pub(crate) fn next_due(&self, now: Tick) -> Tick {
        self.clerk.node().next_due(now)
    }

    /// A lease longer than any before is wanted.
    pub(crate) fn raise_horizon(&mut self, now: Tick, ttl: Duration, tray: &mut Tray<'_>) -> Outcome {
        self.step(now, Input::RaiseHorizon(ttl), tray)
    }

    /// What an operator wants.
    pub(crate) fn wish(&mut self, now: Tick, ticket: u64, wish: Wish, tray: &mut Tray<'_>) -> Outcome {
        self.step(now, Input::Wish(ticket, wish), tray)
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
            CellEvent::Register(answer) => self.step(now, Input::Register(answer), tray),
            CellEvent::Watched(watched) => self.step(now, Input::Watched(watched), tray),
            CellEvent::Report(shard, report) => self.step(now, Input::Shard(shard, report), tray),
            CellEvent::Called(caller) => self.called(now, *caller, tray),
            CellEvent::Dialed { member, probe, outcome, streams } => {
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
            Errand::Answer(ticket, answer) => outcome.answers.push((ticket, answer)),
            Errand::Became(standing) => {
                tracing::info!(?standing, "this node's part in the cell");
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

    /// What is known of how far followers are.
    pub(crate) fn lags(&self) -> &BTreeMap<NodeId, u64> {
        &self.lags
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
