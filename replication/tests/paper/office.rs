//! The node and its register: `node/asking.rs`, `node/seeking.rs`, `node/office.rs`. Node and replica are one machine here;
//! the ways between a node's threads are the simulated cell's.

use super::Mistake;
use super::state::{Asked, Config, Peer, Phase, Purpose, State};
use super::turn::Turn;

impl State {
    /// Whom a node would dial: the primary it follows, in the life that is listed, when no stream stands.
    pub fn to_dial(&self, me: u8) -> Option<u8> {
        let Phase::Following { primary, .. } = self.node(me).phase else { return None };
        let alive = self.peer(primary.node) == primary && self.node(me).known.primary_peer() == primary;
        let may = self.node(me).has_state || self.left.joins > 0;
        let node = self.node(me);
        let in_vain = node.astray != 0 && node.astray == node.known.reign && self.is_member(me);
        (alive && may && !in_vain && primary.node != me && !self.link(me, primary.node).up)
            .then_some(primary.node)
    }

    /// `Node::leave_silent`: whoever is silent and primary no more has to hand nothing over any more.
    pub fn may_leave(&self, me: u8) -> Option<u8> {
        let Phase::Following { primary, .. } = self.node(me).phase else { return None };
        let silent = primary.node != me && self.is_led_by(me, primary.node);
        (silent && self.node(me).known.primary_peer() != primary).then_some(primary.node)
    }

    /// `Node::can_take_over` (R5).
    pub fn can_take_over(&self, me: u8) -> bool {
        let node = self.node(me);
        let Phase::Following { primary, .. } = node.phase else { return false };
        let here = self.peer(me);
        node.asked.is_none() && self.is_member(me) && node.known.primary_peer() == primary && primary != here
    }

    /// Whether the register names a node that is ready: its predecessor has handed over, or is heard no more
    /// (`Node::named_primary`).
    pub fn may_enter(&self, me: u8) -> bool {
        let node = self.node(me);
        let Phase::Following { primary, handed } = node.phase else { return false };
        let heard = self.is_led_by(me, primary.node);
        node.known.primary_peer() == self.peer(me) && self.is_member(me) && (handed || !heard)
    }
}

impl Turn<'_> {
    /// `Node::told` and `adopt`: what a primary, a watch or a look says, when nothing is asked.
    pub fn told(&mut self, me: u8, found: Config) {
        if self.node(me).asked.is_none() && found.epoch > self.node(me).known.epoch {
            self.node_mut(me).known = found;
            self.settle(me);
        }
    }

    /// `Node::settle`. To take the office that one was given is a step of its own.
    pub fn settle(&mut self, me: u8) {
        let node = self.node(me);
        let (known, named) = (node.known, node.known.primary_peer());
        let here = self.peer(me);
        if named == here {
            if node.phase == Phase::Primary && node.reign != known.reign && self.is_member(me) {
                self.retire(me);
                self.enter(me);
            }
            return;
        }
        match node.phase {
            Phase::Primary | Phase::Entering { .. } => {
                if self.is_member(me) {
                    self.retire(me);
                } else {
                    self.step_down(me);
                }
                self.follow(me, named);
            }
            Phase::Yielding { .. } => {}
            Phase::Seizing => self.follow(me, named),
            Phase::Following { primary, handed } => {
                let stays = self.is_led_by(me, primary.node) && !handed && self.is_member(me);
                if primary != named && !(stays && known.lists(primary)) {
                    self.follow(me, named);
                }
            }
        }
    }

    /// `Node::follow`. The stream that a hand-over turned round stays.
    fn follow(&mut self, me: u8, primary: Peer) {
        if let Phase::Following { primary: former, .. } = self.node(me).phase
            && former.node != me
        {
            self.end_stream(me, former.node);
        }
        if self.node(me).phase == Phase::Seizing {
            for other in super::state::others(me) {
                if self.is_led_by(me, other) {
                    self.end_stream(me, other);
                }
            }
        }
        self.node_mut(me).phase = Phase::Following { primary, handed: false };
    }

    pub fn leave(&mut self, me: u8, former: u8) {
        self.end_stream(me, former);
        self.settle(me);
    }

    /// `Node::seize`.
    pub fn seize(&mut self, me: u8) {
        let known = self.node(me).known;
        let epoch = known.epoch + 1;
        let mut new = Config { epoch, reign: epoch, primary: me, ..known };
        new.members[usize::from(known.primary)] = 0;
        self.node_mut(me).phase = Phase::Seizing;
        self.ask(me, Purpose::Seize, new);
    }

    /// `Node::swap_members`, without a member.
    pub fn evict(&mut self, me: u8, whom: u8) {
        let mut new = self.node(me).known.successor();
        new.members[usize::from(whom)] = 0;
        self.ask(me, Purpose::Members, new);
        if self.makes(Mistake::EvictBeforeSwap) {
            self.configure(me, new);
        }
    }

    /// `Node::swap_members`, with a joiner.
    pub fn list(&mut self, me: u8, joiner: Peer) {
        let mut new = self.node(me).known.successor();
        new.members[usize::from(joiner.node)] = joiner.life;
        self.ask(me, Purpose::Members, new);
    }

    /// `Node::swap_primary`.
    pub fn hand_over(&mut self, me: u8, to: u8) {
        let new = self.node(me).known.successor();
        self.ask(me, Purpose::Handover, Config { reign: new.epoch, primary: to, ..new });
    }

    /// `Node::swap_with`.
    fn ask(&mut self, me: u8, purpose: Purpose, new: Config) {
        self.node_mut(me).asked = Some(Asked { purpose, new, done: false, unknown: false, again: false });
        self.send_swap(me, new);
    }

    /// What expects another revision than stands there is refused whenever it arrives.
    fn send_swap(&mut self, me: u8, new: Config) {
        let asked = (self.peer(me), new);
        if new.epoch > self.register.epoch && !self.swaps.contains(&asked) {
            self.swaps.push(asked);
            self.swaps.sort_unstable();
        }
    }

    /// The register carries a swap out: those that expected what was there before can happen no more.
    pub fn carry_out(&mut self, at: usize) {
        let (asker, new) = self.swaps[at];
        self.register = new;
        self.swaps.retain(|(_, other)| other.epoch > new.epoch);
        if self.peer(asker.node) == asker
            && let Some(asked) = &mut self.node_mut(asker.node).asked
            && asked.new == new
        {
            asked.done = true;
        }
    }

    /// The register's answer arrives: `Node::answered`.
    pub fn answered(&mut self, me: u8) {
        let Some(asked) = self.node_mut(me).asked.take() else { return };
        if asked.done {
            self.swapped(me, asked.purpose, asked.new);
        } else {
            self.not_swapped(me, asked.purpose);
        }
    }

    /// The answer is lost, whatever becomes of the swap.
    pub fn lose_answer(&mut self, me: u8) {
        let Some(asked) = self.node_mut(me).asked.take() else { return };
        let fails = self.makes(Mistake::UnknownIsFailure)
            || asked.again && self.makes(Mistake::FailedRepeatIsFailure);
        if fails {
            return self.failed(me, asked.purpose);
        }
        if self.makes(Mistake::UnknownIsSuccess) {
            return self.swapped(me, asked.purpose, asked.new);
        }
        self.node_mut(me).asked = Some(Asked { unknown: true, ..asked });
    }

    /// The look after a swap of unknown outcome: `Node::compare`.
    pub fn check(&mut self, me: u8) {
        let Some(asked) = self.node_mut(me).asked.take() else { return };
        if self.register == asked.new {
            self.swapped(me, asked.purpose, asked.new);
        } else if self.register.epoch < asked.new.epoch {
            // It has had no effect yet, and may still have one: the same once more.
            self.send_swap(me, asked.new);
            self.node_mut(me).asked = Some(Asked { unknown: false, again: true, ..asked });
        } else {
            self.not_swapped(me, asked.purpose);
        }
    }

    /// `Node::swapped` and `reconfigured`.
    fn swapped(&mut self, me: u8, purpose: Purpose, new: Config) {
        self.node_mut(me).known = new;
        match purpose {
            Purpose::Seize => self.enter(me),
            Purpose::Members if self.is_primary(me) => self.configure(me, new),
            Purpose::Handover if self.is_primary(me) => {
                self.node_mut(me).phase = Phase::Yielding { setup: new };
                self.begin_round(me);
                self.advance(me);
            }
            Purpose::Members | Purpose::Handover => self.settle(me),
        }
    }

    /// It certainly did not happen: what stands there instead is read with the refusal.
    fn not_swapped(&mut self, me: u8, purpose: Purpose) {
        let found = self.register;
        self.told(me, found);
        self.failed(me, purpose);
    }

    fn failed(&mut self, me: u8, purpose: Purpose) {
        if purpose == Purpose::Seize && self.node(me).phase == Phase::Seizing {
            let named = self.node(me).known.primary_peer();
            self.follow(me, named);
        }
    }

    /// `Node::enter`: the promise comes first.
    pub fn enter(&mut self, me: u8) {
        self.node_mut(me).phase = Phase::Entering { promised: false };
    }

    /// `Replica::promise` (R4), and `Node::promised`: from here on nothing older is confirmed by this node.
    pub fn promise(&mut self, me: u8) {
        let epoch = self.node(me).known.epoch;
        if !self.makes(Mistake::TakeOverWithoutPromise) {
            self.node_mut(me).promised = epoch;
        }
        self.seen.overtaken = self.seen.overtaken.max(epoch);
        self.node_mut(me).phase = Phase::Entering { promised: true };
    }
}
