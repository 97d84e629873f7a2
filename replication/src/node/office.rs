//! Being primary: entering the office, changing the members, raising the horizon, handing over.
//!
//! One change at a time is under way, and each takes effect in the replicas only after the register has it (R6). A joiner is
//! the other way round: it counts before it is listed (R7), and goes on counting until the outcome is known.

use alloc::collections::BTreeSet;
use alloc::string::{String, ToString};
use core::time::Duration;

use fairlock_protocol::{Refusal, Tick};

use super::{
    Configuration, MEMBERS_MAX, Node, NodeId, Order, Output, Peer, Phase, Purpose, Report, Stored, Wish,
    peer, successor,
};

impl Node {
    pub(super) fn reported_in_office(&mut self, now: Tick, shard: u16, report: Report) {
        match report {
            Report::Promised(epoch) => self.promised(now, shard, epoch.get()),
            Report::InOffice(epoch) => self.seated(shard, epoch.get()),
            Report::Late(late) | Report::Lost(late) => self.late(now, late),
            Report::Joined(joiner) => self.joined(shard, joiner),
            Report::Pinned(joiner) => {
                self.pin_answers_due = self.pin_answers_due.saturating_sub(1);
                if let Some((pinned, shards)) = &mut self.wants.pinned
                    && *pinned == joiner
                {
                    shards.insert(shard);
                }
            }
            Report::NotPinned(joiner) => {
                self.pin_answers_due = self.pin_answers_due.saturating_sub(1);
                self.unpin(&joiner);
            }
            Report::Yielded { complete } => self.yielded(now, shard, complete),
            _ => {}
        }
    }

    fn promised(&mut self, now: Tick, shard: u16, epoch: u32) {
        let Some(known) = self.known.clone() else { return };
        let Phase::Entering { fresh, promised, .. } = &mut self.phase else { return };
        if known.configuration.epoch.get() != epoch || !promised.insert(shard) {
            return;
        }
        // R4: on all shards before any of them goes on.
        if promised.len() == usize::from(self.settings.shards) {
            let fresh = *fresh;
            // A promise was made behind everything that was said before about what is here, and after it nothing is lost.
            if !fresh && self.stateful.len() < self.shards() {
                self.step_down();
                let me = self.me();
                return self.follow(now, me);
            }
            let setup = self.setup(&known);
            self.order(Order::Office { setup, fresh });
        }
    }

    fn seated(&mut self, shard: u16, epoch: u32) {
        let Phase::Entering { seated, .. } = &mut self.phase else { return };
        let of_this = self.known.as_ref().is_some_and(|known| known.configuration.epoch.get() == epoch);
        if of_this && seated.insert(shard) && seated.len() == usize::from(self.settings.shards) {
            self.phase = Phase::Primary;
            self.alarm("waiting", None);
            self.alarm("peer", None);
        }
    }

    /// A member or joiner is late, or its stream ended.
    fn late(&mut self, now: Tick, late: Peer) {
        self.wants.joined.remove(&late);
        let listed = self
            .known
            .as_ref()
            .is_some_and(|known| known.configuration.members.iter().any(|member| peer(member) == late));
        let pinned = self.wants.pinned.as_ref().is_some_and(|(pinned, _)| *pinned == late);
        if listed && late != self.me() {
            self.wants.evict.insert(late, Some(now));
        } else if !pinned {
            // A joiner begins anew on all shards, or some would wait for the others for ever.
            self.order(Order::Drop(late));
        } else if self.asked.is_none() {
            self.unpin(&late);
        }
    }

    fn joined(&mut self, shard: u16, joiner: Peer) {
        self.wants.joined.entry(joiner).or_default().insert(shard);
    }

    /// A joiner that was certainly not listed is let go.
    fn unpin(&mut self, joiner: &Peer) {
        // A late answer to an order that was taken back says nothing of the next try.
        if self.wants.pinned.take_if(|(pinned, _)| pinned == joiner).is_some() {
            self.order(Order::Unpin(joiner.clone()));
            self.order(Order::Drop(joiner.clone()));
            self.wants.joined.remove(joiner);
        }
    }

    /// Puts the next change into the register.
    pub(super) fn go_on_serving(&mut self, now: Tick) {
        if self.asked.is_some() || now < self.ask_at {
            return;
        }
        let Some(known) = self.known.clone() else { return };
        let configuration = &known.configuration;
        self.evict_wished(configuration);
        if !self.wants.evict.is_empty() {
            return self.swap_members(now, configuration, None);
        }
        if self.pin_next() {
            return;
        }
        if let Some((joiner, shards)) = &self.wants.pinned
            && shards.len() == self.shards()
        {
            let joiner = joiner.clone();
            return self.swap_members(now, configuration, Some(&joiner));
        }
        if let Some(horizon) = self.wants.horizon {
            let new = Configuration { ttl_horizon: horizon, clean: false, ..configuration.clone() };
            return self.swap(Purpose::Horizon, Some(new));
        }
        if let Some((to, ticket)) = self.wants.switchover.take() {
            return self.swap_primary(now, configuration, (to, ticket));
        }
        if self.wants.clean {
            let new = Configuration { clean: true, ttl_horizon: Duration::ZERO, ..configuration.clone() };
            self.swap(Purpose::End, Some(new));
        }
    }

    /// Evictions that operators want.
    fn evict_wished(&mut self, configuration: &Configuration) {
        for (node, ticket) in core::mem::take(&mut self.wants.evictions) {
            let found = configuration.member(&node).filter(|member| **member != self.settings.me);
            let answer = if let Some(member) = found {
                self.wants.evict.entry(peer(member)).or_insert(None);
                Ok(())
            } else {
                let why = alloc::format!("{node} is no member but this one: see `fairlock cluster status`");
                Err((Refusal::NotFound, why))
            };
            self.outputs.push(Output::Answer(ticket, answer));
        }
    }

    /// Has the replicas pin the next joiner that has everything everywhere.
    fn pin_next(&mut self) -> bool {
        // An answer to an order of before must not be taken for one to the next.
        let full = self.known.as_ref().is_some_and(|known| known.configuration.members.len() == MEMBERS_MAX);
        if self.wants.pinned.is_some() || self.pin_answers_due > 0 || full {
            return false;
        }
        let shards = self.shards();
        let ready = self.wants.joined.iter().find(|(_, joined)| joined.len() == shards);
        let Some(joiner) = ready.map(|(joiner, _)| joiner.clone()) else { return false };
        self.wants.pinned = Some((joiner.clone(), BTreeSet::new()));
        self.order(Order::Pin(joiner));
        self.pin_answers_due = shards;
        true
    }

    /// The members without those that are late, and with a joiner.
    fn swap_members(&mut self, now: Tick, configuration: &Configuration, joiner: Option<&Peer>) {
        let late = &self.wants.evict;
        let lost = configuration.state_lost && now < self.quarantine_until;
        let new = successor(configuration).map(|mut next| {
            next.state_lost = lost;
            next.members.retain(|member| !late.contains_key(&peer(member)));
            if let Some(member) = joiner.and_then(|joiner| self.met.get(&joiner.node)) {
                next.members.push(member.clone());
                next.members.sort_by(|one, other| one.node.cmp(&other.node));
            }
            next
        });
        let met = |joiner: &Peer| self.met.get(&joiner.node).is_some_and(|member| peer(member) == *joiner);
        match joiner {
            // Another life of it has called since.
            Some(joiner) if !met(joiner) => {
                let joiner = joiner.clone();
                self.unpin(&joiner);
            }
            _ if new.as_ref().is_some_and(|new| new.members == configuration.members) => {
                self.wants.evict.clear();
            }
            _ => {
                if mutant!(EvictBeforeSwap)
                    && let Some(configuration) = new.clone()
                {
                    let revision = super::Revision(0);
                    let setup = self.setup(&Stored { configuration, revision });
                    self.order(Order::Configure(setup));
                }
                self.swap(Purpose::Members, new);
            }
        }
    }

    fn swap_primary(
        &mut self,
        now: Tick,
        configuration: &Configuration,
        (to, ticket): (NodeId, Option<u64>),
    ) {
        if configuration.member(&to).is_none_or(|member| *member == self.settings.me) {
            let why = alloc::format!("{to} is no other member: see `fairlock cluster status`");
            let refused = Err((Refusal::NotFound, why));
            return self.outputs.extend(ticket.map(|ticket| Output::Answer(ticket, refused)));
        }
        self.outputs.extend(ticket.map(|ticket| Output::Answer(ticket, Ok(()))));
        let new = successor(configuration).map(|next| Configuration {
            reign: next.epoch,
            primary: to,
            state_lost: next.state_lost && now < self.quarantine_until,
            ..next
        });
        self.swap(Purpose::Handover, new);
    }

    /// A change of this primary is in the register.
    pub(super) fn reconfigured(&mut self, now: Tick, purpose: Purpose, stored: &Stored) {
        if !matches!(self.phase, Phase::Primary) {
            return self.settle(now);
        }
        let members = &stored.configuration.members;
        let listed = |one: &Peer| members.iter().any(|member| peer(member) == *one);
        match purpose {
            Purpose::Members => {
                self.wants.evict.retain(|late, _| listed(late));
                self.wants.pinned.take_if(|(pinned, _)| listed(pinned));
                self.wants.joined.retain(|joiner, _| !listed(joiner));
                let setup = self.setup(stored);
                self.order(Order::Configure(setup));
            }
            Purpose::Horizon => {
                let horizon = stored.configuration.ttl_horizon;
                self.wants.horizon.take_if(|wanted| *wanted <= horizon);
                self.outputs.push(Output::HorizonRaised(horizon));
            }
            Purpose::Handover => {
                let (setup, to) = (self.setup(stored), peer(stored.configuration.primary_member()));
                self.phase = Phase::Yielding {
                    yielded: BTreeSet::new(),
                    complete: true,
                    shards: BTreeSet::new(),
                    turned: true,
                };
                self.order(Order::Yield { setup, to });
            }
            Purpose::End => {
                self.wants.clean = false;
                self.outputs.push(Output::Stopped);
            }
            Purpose::Begin | Purpose::Seize => unreachable!("these begin an office"),
        }
    }

    fn yielded(&mut self, now: Tick, shard: u16, whole: bool) {
        let Phase::Yielding { yielded, complete, .. } = &mut self.phase else { return };
        yielded.insert(shard);
        *complete &= whole;
        if yielded.len() < usize::from(self.settings.shards) {
            return;
        }
        let Phase::Yielding { complete, shards: activated, turned, .. } = &mut self.phase else { return };
        let (up, activated) = (*complete && *turned, core::mem::take(activated));
        self.wants = super::Wants::default();
        let Some(known) = &self.known else { return };
        let primary = peer(known.configuration.primary_member());
        self.follow(now, primary);
        if up && let Phase::Following { stream, shards, .. } = &mut self.phase {
            // The streams that stand are turned round.
            (*stream, *shards) = (super::Stream::Up, activated);
        }
        self.settle(now);
    }

    pub(super) fn raise_horizon(&mut self, ttl: Duration) {
        // Of an office that is over: the next one says anew how far it goes.
        if !matches!(self.phase, Phase::Primary | Phase::Entering { .. }) {
            return;
        }
        let whole_ms = u64::try_from(ttl.as_nanos().div_ceil(1_000_000)).unwrap_or(u64::MAX);
        let ttl = Duration::from_millis(whole_ms).min(self.settings.ttl_max);
        let known = self.known.as_ref().map_or(Duration::ZERO, |known| known.configuration.ttl_horizon);
        if ttl <= known {
            self.outputs.push(Output::HorizonRaised(known));
        } else if self.wants.horizon.is_none_or(|wanted| wanted < ttl) {
            self.wants.horizon = Some(ttl);
        }
    }

    pub(super) fn wished(&mut self, ticket: u64, wish: Wish) {
        let not_primary = || -> String {
            let primary = self.known.as_ref().map(|known| known.configuration.primary.to_string());
            alloc::format!("this node is not the primary; ask {}", primary.as_deref().unwrap_or("another"))
        };
        let serving = matches!(self.phase, Phase::Primary);
        match wish {
            Wish::ForceNew(named) => self.force_new(ticket, &named),
            _ if !serving => {
                let why = not_primary();
                self.outputs.push(Output::Answer(ticket, Err((Refusal::NotPrimary, why))));
            }
            Wish::Evict(node) => self.wants.evictions.push((node, ticket)),
            Wish::Switchover(to) => self.wish_switchover(ticket, to),
        }
    }

    fn wish_switchover(&mut self, ticket: u64, to: Option<NodeId>) {
        let me = &self.settings.me.node;
        let mut members = self.known.iter().flat_map(|known| &known.configuration.members);
        let other =
            to.or_else(|| members.find(|member| member.node != *me).map(|member| member.node.clone()));
        if let Some(other) = other {
            self.wants.switchover = Some((other, Some(ticket)));
        } else {
            let why = "there is no other member to hand over to; see `fairlock cluster status`".to_string();
            self.outputs.push(Output::Answer(ticket, Err((Refusal::NotFound, why))));
        }
    }
}
