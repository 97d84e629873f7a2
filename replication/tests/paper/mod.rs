//! The protocol on paper: an abstract cell of three nodes whose every history, within bounds, a model checker walks through.
//!
//! What production code decides in `Node` and `Replica` is told here once more, in as few words as it can be: one shard, one
//! machine for a node, no time. Suspicion, silence and lateness may come at any moment, so no clock can be in the way of a
//! history. Each step names what it stands for. Streams keep their order and lose whatever is on its way when they end;
//! messages wait as long as they like. What is left out is listed in docs/reliability.md.

mod clients;
mod follower;
mod office;
mod primary;
pub mod scenarios;
pub mod state;
mod turn;

use stateright::{Model, Property};

pub use clients::Op;
use state::{Bounds, Config, Entry, NODES, Node, Peer, Phase, Progress, Rule, Seen, Stage, State};
use turn::Turn;

/// A mistake to be made, named as in `src/mutants.rs` where it is made there, too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mistake {
    ExposeBeforeAck,
    ReadWithoutRound,
    KeepParkedReplies,
    RestartKeepsIncarnation,
    SnapshotIsStale,
    AckOldEpoch,
    TakeOverWithoutPromise,
    AcceptOldActivation,
    KeepForeignSuffix,
    TakeOverDropsSuffix,
    InheritedIsCommitted,
    ApplyUncommitted,
    CommitIsOwnEnd,
    AckMeansSent,
    UnknownIsFailure,
    UnknownIsSuccess,
    FailedRepeatIsFailure,
    EvictBeforeSwap,
    DropMemberWithoutSwap,
    JoinerToldAtOnce,
    JoinerDoesNotCount,
    PinnedNotCounted,
}

/// A model: where it begins, what clients want, what may go wrong how often.
#[derive(Clone, Debug)]
pub struct Rules {
    pub name: &'static str,
    /// The members at first, with the first of them primary; the others have nothing.
    pub members: u8,
    pub ops: Vec<Op>,
    pub log_max: u8,
    pub bounds: Bounds,
    pub mistake: Option<Mistake>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Action {
    /// A client's request arrives, or the primary's clock decides: `Replica::append` and `end_pass`.
    Submit { at: u8, op: u8 },
    /// A lease's renewal arrives: `Replica::end_pass` with something that wants a round.
    KeepAlive { at: u8 },
    /// `Replica::watch_followers`: a round of its own, which tells how far the log is committed.
    Heartbeat { at: u8 },
    /// `Replica::received`, and the end of the pass.
    Deliver { from: u8, to: u8 },
    /// A stream ends with whatever is on its way: `Replica::unlinked` at both ends.
    Break { one: u8, other: u8 },
    /// A process ends without memory, and another begins: `Node::new`, `Replica::new`.
    Crash { node: u8 },
    /// `Node::go_on_following`, `Replica::linked` and `greet`.
    Dial { node: u8, primary: u8 },
    /// `Node::leave_silent`.
    Leave { node: u8, former: u8 },
    /// `Node::watched` or `found`: the node learns what stands in the register.
    Look { node: u8 },
    /// `Node::primary_died` or `primary_silent`, and `seize`.
    Seize { node: u8 },
    /// `Node::named_primary`.
    Enter { node: u8 },
    /// `Replica::promise`, `Node::promised`.
    Promise { node: u8 },
    /// `Replica::take_office`.
    TakeOffice { node: u8 },
    /// `Node::late` and `swap_members`.
    Evict { by: u8, whom: u8 },
    /// `Node::pin_next`, `Replica::pin`.
    Pin { by: u8, joiner: u8 },
    /// `Node::swap_members` with the joiner that is pinned.
    List { by: u8, joiner: Peer },
    /// `Node::unpin`.
    Unpin { by: u8 },
    /// `Node::swap_primary`; what follows is `Replica::begin_to_yield`.
    HandOver { by: u8, to: u8 },
    /// `Replica::give_up_yielding`.
    GiveUpYielding { by: u8 },
    /// The register carries a swap out, whoever still waits for it.
    CarryOut { at: usize },
    /// `Node::answered` with `Written` or `Conflict`.
    Answer { node: u8 },
    /// `Node::answered` with `Unknown`.
    LoseAnswer { node: u8 },
    /// The look after it: `Node::compare`.
    Check { node: u8 },
}

impl Rules {
    pub fn op(&self, op: u8) -> Op {
        self.ops[usize::from(op) - 1]
    }

    /// In which piece of a snapshot an entry's effect is.
    pub fn piece_of(&self, entry: Entry) -> u8 {
        let first = entry.op != 0
            && matches!(self.op(entry.op), Op::Acquire { lock: 0, .. } | Op::Release { lock: 0, .. });
        u8::from(!first)
    }

    /// Everybody who is listed follows the first node, and nothing has happened yet.
    fn start(&self) -> State {
        let life = |node: u8| u8::from(node < self.members);
        let first = Config { epoch: 1, reign: 1, primary: 0, members: [life(0), life(1), life(2)] };
        let mut nodes = std::array::from_fn(|_| Node::new(1, first));
        for node in &mut nodes[..usize::from(self.members)] {
            (node.view, node.promised, node.reign, node.has_state) = (1, 1, 1, true);
        }
        nodes[0].phase = Phase::Primary;
        let state = State {
            nodes,
            links: std::array::from_fn(|_| state::Link::default()),
            register: first,
            swaps: Vec::new(),
            left: self.bounds,
            seen: Seen::default(),
        };
        let mut turn = Turn { rules: self, state };
        for member in 1..self.members {
            turn.connect(0, member);
            *turn.stage_mut(member, 0) = Stage::Led;
            *turn.stage_mut(0, member) = Stage::Follows(Progress {
                sent: 0,
                acked: 0,
                sent_round: 0,
                acked_round: 0,
                acked_in: 1,
                sent_commit: 0,
                joiner: None,
            });
        }
        turn.state
    }

    fn clients_and_streams(&self, state: &State, actions: &mut Vec<Action>) {
        for at in (0..NODES).filter(|at| state.is_primary(*at)) {
            let ops = 1..=u8::try_from(self.ops.len()).expect("few operations");
            actions
                .extend(ops.filter(|op| state.may_submit(self, at, *op)).map(|op| Action::Submit { at, op }));
            if state.left.keepalives > 0 {
                actions.push(Action::KeepAlive { at });
            }
            if state.left.heartbeats > 0 && state.has_news(at) {
                actions.push(Action::Heartbeat { at });
            }
        }
        for (one, other) in [(0, 1), (0, 2), (1, 2)] {
            let link = state.link(one, other);
            if !link.queues[1].is_empty() {
                actions.push(Action::Deliver { from: one, to: other });
            }
            if !link.queues[0].is_empty() {
                actions.push(Action::Deliver { from: other, to: one });
            }
            if link.up && state.left.breaks > 0 {
                actions.push(Action::Break { one, other });
            }
        }
    }
}

/// What a node may do to find a place.
fn seekers(state: &State, node: u8, actions: &mut Vec<Action>) {
    let here = state.node(node);
    if state.left.crashes > 0 {
        actions.push(Action::Crash { node });
    }
    if here.asked.is_none() && here.known.epoch < state.register.epoch {
        actions.push(Action::Look { node });
    }
    actions.extend(state.to_dial(node).map(|primary| Action::Dial { node, primary }));
    actions.extend(state.may_leave(node).map(|former| Action::Leave { node, former }));
    if state.left.seizures > 0 && state.can_take_over(node) {
        actions.push(Action::Seize { node });
    }
    if state.may_enter(node) {
        actions.push(Action::Enter { node });
    }
    match here.phase {
        Phase::Entering { promised: false } => actions.push(Action::Promise { node }),
        Phase::Entering { promised: true } if here.has_state && here.promised <= here.known.epoch => {
            actions.push(Action::TakeOffice { node });
        }
        Phase::Yielding { .. } => actions.push(Action::GiveUpYielding { by: node }),
        _ => {}
    }
}

/// What a primary may put into the register.
fn changes(state: &State, by: u8, actions: &mut Vec<Action>) {
    let node = state.node(by);
    if !state.is_primary(by) || node.asked.is_some() {
        return;
    }
    for other in state::others(by) {
        let listed = node.known.life(other) != 0;
        if listed && state.left.evictions > 0 {
            actions.push(Action::Evict { by, whom: other });
        }
        if listed && state.left.switchovers > 0 {
            actions.push(Action::HandOver { by, to: other });
        }
        if node.pinned.is_none() && !listed && state.is_ready(by, other) {
            actions.push(Action::Pin { by, joiner: other });
        }
    }
    if let Some(joiner) = node.pinned {
        actions.push(Action::Unpin { by });
        if state.peer(joiner.node) == joiner {
            actions.push(Action::List { by, joiner });
        }
    }
}

/// What may become of a swap that a node waits for.
fn answers(state: &State, node: u8, actions: &mut Vec<Action>) {
    let Some(asked) = state.node(node).asked else { return };
    if asked.unknown {
        return actions.push(Action::Check { node });
    }
    if asked.done || state.register.epoch >= asked.new.epoch {
        actions.push(Action::Answer { node });
    }
    if state.left.unknowns > 0 {
        actions.push(Action::LoseAnswer { node });
    }
}

impl Model for Rules {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        vec![self.start()]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        // Whatever follows a violation says nothing new.
        if state.seen.broken.is_some() {
            return;
        }
        self.clients_and_streams(state, actions);
        for node in 0..NODES {
            seekers(state, node, actions);
            changes(state, node, actions);
            answers(state, node, actions);
        }
        actions.extend((0..state.swaps.len()).map(|at| Action::CarryOut { at }));
    }

    fn next_state(&self, state: &State, action: Action) -> Option<State> {
        let mut turn = Turn { rules: self, state: state.clone() };
        turn.make(action);
        Some(turn.state)
    }

    fn properties(&self) -> Vec<Property<Rules>> {
        fn kept(state: &State, rule: Rule) -> bool {
            state.seen.broken != Some(rule)
        }
        let mut properties = vec![
            Property::<Rules>::always("S1: one holder", |_, state| kept(state, Rule::OneHolder)),
            Property::<Rules>::always("S3: tokens rise", |_, state| kept(state, Rule::TokensRise)),
            Property::<Rules>::always("S4, S7: what was shown stays", |_, state| {
                kept(state, Rule::AnswersStay) && newest_has(state, &state.seen.shown)
            }),
            Property::<Rules>::always("S5: one primary an epoch", |_, state| one_primary(state)),
            Property::<Rules>::always("S6: one committed history", |_, state| {
                kept(state, Rule::OneHistory) && newest_has(state, state.seen.committed.all())
            }),
            Property::<Rules>::always("R2, S10: the listed have it", |_, state| {
                kept(state, Rule::ListedHaveIt)
            }),
            Property::<Rules>::always("R3: committed first", |_, state| kept(state, Rule::CommittedFirst)),
            Property::<Rules>::always("R9: rounds", |_, state| kept(state, Rule::Rounds)),
        ];
        if self.mistake.is_none() {
            properties.extend(scenarios::reached(self));
        }
        properties
    }
}

/// The primary that the register names, once it is in office, has all of these.
fn newest_has(state: &State, entries: &[Entry]) -> bool {
    let newest = state.nodes.iter().find(|node| node.in_office() && node.reign == state.register.reign);
    newest.is_none_or(|node| {
        (1..).zip(entries).all(|(lsn, entry)| *entry == Entry::default() || node.log.get(lsn) == Some(*entry))
    })
}

/// No two nodes work as primary in the same epoch, and none in one that the register does not have yet.
fn one_primary(state: &State) -> bool {
    let epochs = state.nodes.iter().filter(|node| node.in_office()).map(|node| node.view);
    let mut epochs: Vec<u8> = epochs.collect();
    epochs.sort_unstable();
    epochs.windows(2).all(|pair| pair[0] < pair[1])
        && epochs.iter().all(|epoch| *epoch <= state.register.epoch)
}

impl Turn<'_> {
    fn make(&mut self, action: Action) {
        match action {
            Action::Submit { at, op } => self.submit(at, op),
            Action::KeepAlive { at } => {
                self.left.keepalives -= 1;
                self.keep_alive(at);
            }
            Action::Heartbeat { at } => {
                self.left.heartbeats -= 1;
                self.begin_round(at);
                self.advance(at);
            }
            Action::Deliver { from, to } => self.deliver(from, to),
            Action::Break { one, other } => {
                self.left.breaks -= 1;
                self.hang_up(one, other);
            }
            Action::Crash { node } => {
                self.left.crashes -= 1;
                self.crash(node);
            }
            Action::Dial { node, primary } => self.dial(node, primary),
            Action::Leave { node, former } => self.leave(node, former),
            Action::Look { node } => {
                let found = self.register;
                self.told(node, found);
            }
            other => self.make_in_office(other),
        }
    }

    fn make_in_office(&mut self, action: Action) {
        match action {
            Action::Seize { node } => {
                self.left.seizures -= 1;
                self.seize(node);
            }
            Action::Enter { node } => self.enter(node),
            Action::Promise { node } => self.promise(node),
            Action::TakeOffice { node } => self.take_office(node),
            Action::Evict { by, whom } => {
                self.left.evictions -= 1;
                self.evict(by, whom);
            }
            Action::Pin { by, joiner } => self.pin(by, joiner),
            Action::List { by, joiner } => self.list(by, joiner),
            Action::Unpin { by } => self.unpin(by),
            Action::HandOver { by, to } => {
                self.left.switchovers -= 1;
                self.hand_over(by, to);
            }
            Action::GiveUpYielding { by } => self.give_up_yielding(by),
            Action::CarryOut { at } => self.carry_out(at),
            Action::Answer { node } => self.answered(node),
            Action::LoseAnswer { node } => {
                self.left.unknowns -= 1;
                self.lose_answer(node);
            }
            Action::Check { node } => self.check(node),
            other => unreachable!("{other:?} is made above"),
        }
    }
}
