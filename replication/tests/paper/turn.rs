//! One step being made: what is common to all of a node's halves. Streams, what is held back, and rules that were broken.

use std::ops::{Deref, DerefMut};

use super::state::{Held, Link, Message, Node, Progress, Rule, Stage, State};
use super::{Mistake, Rules};

pub struct Turn<'a> {
    pub rules: &'a Rules,
    pub state: State,
}

impl Deref for Turn<'_> {
    type Target = State;

    fn deref(&self) -> &State {
        &self.state
    }
}

impl DerefMut for Turn<'_> {
    fn deref_mut(&mut self) -> &mut State {
        &mut self.state
    }
}

impl Turn<'_> {
    pub fn makes(&self, mistake: Mistake) -> bool {
        self.rules.mistake == Some(mistake)
    }

    /// The first rule that was broken is told.
    pub fn broken(&mut self, rule: Rule) {
        self.seen.broken.get_or_insert(rule);
    }

    pub fn node_mut(&mut self, node: u8) -> &mut Node {
        &mut self.nodes[usize::from(node)]
    }

    fn link_mut(&mut self, one: u8, other: u8) -> &mut Link {
        &mut self.links[usize::from(one + other) - 1]
    }

    /// A new stream; one that stood ends.
    pub fn connect(&mut self, one: u8, other: u8) {
        *self.link_mut(one, other) = Link { up: true, ..Link::default() };
    }

    pub fn stage_mut(&mut self, me: u8, other: u8) -> &mut Stage {
        &mut self.link_mut(me, other).stages[usize::from(me > other)]
    }

    pub fn progress_mut(&mut self, me: u8, other: u8) -> Option<&mut Progress> {
        match self.stage_mut(me, other) {
            Stage::Follows(progress) => Some(progress),
            _ => None,
        }
    }

    pub fn send(&mut self, from: u8, to: u8, message: Message) {
        let link = self.link_mut(from, to);
        if link.up {
            link.queues[usize::from(to > from)].push(message);
        }
    }

    /// The oldest message on its way arrives.
    pub fn deliver(&mut self, from: u8, to: u8) {
        let message = self.link_mut(from, to).queues[usize::from(to > from)].remove(0);
        let welcome = match message {
            Message::Greet { .. } | Message::Ack { .. } => self.hear_follower(to, from, message),
            _ => self.hear_primary(to, from, message),
        };
        if welcome.is_none() {
            self.hang_up(to, from);
        }
    }

    /// `Replica::unlinked` at both ends. What was under way is lost; as messages wait as long as they like, any
    /// part of it may have arrived before.
    pub fn hang_up(&mut self, one: u8, other: u8) {
        *self.link_mut(one, other) = Link::default();
        for (me, peer) in [(one, other), (other, one)] {
            if self.makes(Mistake::DropMemberWithoutSwap) && self.node(me).in_office() {
                self.node_mut(me).conf.members[usize::from(peer)] = 0;
            }
            self.advance(me);
        }
    }

    /// Keeps something back until the next round is over.
    pub fn hold(&mut self, at: u8, what: Held) {
        let round = self.node(at).round + 1;
        if self.makes(Mistake::ExposeBeforeAck) && matches!(what, Held::Answer { .. })
            || self.makes(Mistake::ReadWithoutRound) && matches!(what, Held::Confirmation { .. })
        {
            return self.let_out(at, what);
        }
        self.node_mut(at).held.push((round, what));
    }

    /// `Replica::released`: whatever waited for rounds that are over.
    pub fn let_go(&mut self, at: u8) {
        let released = self.node(at).released;
        while let Some((round, what)) = self.node(at).held.first().copied()
            && round <= released
        {
            self.node_mut(at).held.remove(0);
            self.let_out(at, what);
        }
    }

    fn let_out(&mut self, at: u8, what: Held) {
        match what {
            Held::Answer { lsn, entry } => self.show(at, lsn, entry),
            Held::Confirmation { overtaken } => self.confirm(at, overtaken),
        }
    }

    /// A lease's renewal arrives at who thinks to be primary.
    pub fn keep_alive(&mut self, at: u8) {
        let overtaken = self.seen.overtaken;
        self.hold(at, Held::Confirmation { overtaken });
        self.begin_round(at);
        self.advance(at);
    }

    /// `Replica::step_down` and `forget_state`: what is here counts no more.
    pub fn step_down(&mut self, me: u8) {
        super::state::others(me).for_each(|other| self.end_stream(me, other));
        let keeps = self.makes(Mistake::KeepParkedReplies);
        let node = self.node_mut(me);
        let fresh = Node::new(node.life, node.known);
        let (view, promised, reign, round) = (node.view, node.promised, node.reign, node.round);
        let (asked, held) = (node.asked, std::mem::take(&mut node.held));
        *node = Node { asked, view, promised, reign, round, ..fresh };
        if keeps {
            node.held = held;
        }
    }

    /// `Node::retire` and `Replica::retire`: no role any more, and everything that is here stays.
    pub fn retire(&mut self, me: u8) {
        super::state::others(me).for_each(|other| self.end_stream(me, other));
        let keeps = self.makes(Mistake::KeepParkedReplies);
        let node = self.node_mut(me);
        node.pinned = None;
        if !keeps {
            node.held.clear();
        }
    }

    pub fn end_stream(&mut self, me: u8, other: u8) {
        if self.link(me, other).up {
            self.hang_up(me, other);
        }
    }

    /// A process ends and another begins, which knows what the register says and nothing else (R8).
    pub fn crash(&mut self, me: u8) {
        super::state::others(me).for_each(|other| self.end_stream(me, other));
        let (known, keeps) = (self.register, self.makes(Mistake::RestartKeepsIncarnation));
        let node = self.node_mut(me);
        let life = if keeps { node.life } else { node.life + 1 };
        *node = Node { has_state: keeps, ..Node::new(life, known) };
    }
}
