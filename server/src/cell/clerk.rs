//! What a node decides, in words that its server's threads understand: which message goes to all shards, what the register
//! is asked, whom to dial, which alarm stands. No thread, socket or clock is here, so that the desk and a simulator have the
//! same clerk.

use fairlock_protocol::{Refusal, Tick};
use fairlock_replication::node::{Input, Node, NodeSettings, Output, Standing};
use fairlock_replication::replica::Order;
use fairlock_replication::{Ask, Member, Stored};

use crate::control::Alarms;
use crate::lanes::{CellNews, ToShard};
use crate::shard::replicated::CellFacts;

/// What is to be done outside, in this order.
#[derive(Debug)]
pub(crate) enum Errand {
    /// Ask the register.
    Ask(Ask),
    /// Reach a member: with a stream for each shard, or only to learn who answers.
    Dial {
        /// Whom.
        member: Member,
        /// Only to learn who answers.
        probe: bool,
    },
    /// Tell every shard.
    Tell(ForAll),
    /// This epoch is known now.
    Known(u32),
    /// The node is something else now.
    Became(Standing),
    /// The answer to a wish.
    Answer(u64, Result<(), (Refusal, String)>),
    /// The end of the cell is in the register.
    Stopped,
}

/// A message for every shard.
#[derive(Debug)]
pub(crate) enum ForAll {
    /// An order to its replica.
    Order(Order),
    /// What the configuration says.
    News(CellNews),
    /// Leases up to so many milliseconds may be granted.
    HorizonRaised(u32),
}

impl ForAll {
    /// One shard's copy.
    pub(crate) fn copy(&self) -> ToShard {
        match self {
            ForAll::Order(order) => ToShard::Order(Box::new(order.clone())),
            ForAll::News(news) => ToShard::Cell(Box::new(news.clone())),
            ForAll::HorizonRaised(ttl_ms) => ToShard::HorizonRaised { ttl_ms: *ttl_ms },
        }
    }
}

/// A node, and what is made of its decisions.
#[derive(Debug)]
pub(crate) struct Clerk {
    node: Node,
    copies_min: usize,
    quarantine_until: Tick,
}

impl Clerk {
    /// One that has yet to look around. With fewer than `copies_min` members nothing is granted.
    pub(crate) fn new(settings: NodeSettings, copies_min: usize) -> Clerk {
        Clerk { node: Node::new(settings), copies_min, quarantine_until: Tick::ZERO }
    }

    /// The node, for whoever wants to look.
    pub(crate) fn node(&self) -> &Node {
        &self.node
    }

    /// Until when nothing is granted; [`Tick::ZERO`] when there is no quarantine.
    pub(crate) fn quarantine_until(&self) -> Tick {
        self.quarantine_until
    }

    /// Takes one input in.
    pub(crate) fn step(&mut self, now: Tick, input: Input, alarms: &Alarms) -> Vec<Errand> {
        self.node.step(now, input);
        let mut errands = Vec::new();
        for output in std::mem::take(self.node.outputs()) {
            self.carry_out(now, output, alarms, &mut errands);
        }
        errands
    }

    fn carry_out(&mut self, now: Tick, output: Output, alarms: &Alarms, errands: &mut Vec<Errand>) {
        match output {
            Output::Ask(ask) => errands.push(Errand::Ask(ask)),
            Output::Dial { member, probe } => errands.push(Errand::Dial { member, probe }),
            Output::Order(order) => errands.push(Errand::Tell(ForAll::Order(order))),
            Output::Configured(stored) => {
                let configuration = &stored.configuration;
                let (epoch, primary) = (configuration.epoch.get(), &configuration.primary);
                let members = configuration.members.iter().map(|member| member.node.as_str());
                let members = members.collect::<Vec<_>>().join(",");
                tracing::info!(epoch, %primary, members, "configuration");
                errands.push(Errand::Known(epoch));
                errands.push(Errand::Tell(ForAll::News(self.news(&stored, None, alarms))));
            }
            Output::Quarantine(wait) => {
                self.quarantine_until = now.after(wait);
                tracing::warn!(?wait, "the cell lost its memory: no grants until its leases are over");
                if let Some(stored) = self.node.known().cloned() {
                    let news = self.news(&stored, Some(self.quarantine_until), alarms);
                    errands.push(Errand::Tell(ForAll::News(news)));
                }
            }
            Output::HorizonRaised(ttl) => {
                let ttl_ms = u32::try_from(ttl.as_millis()).unwrap_or(u32::MAX);
                errands.push(Errand::Tell(ForAll::HorizonRaised(ttl_ms)));
            }
            Output::Answer(ticket, answer) => errands.push(Errand::Answer(ticket, answer)),
            Output::Became(standing) => errands.push(Errand::Became(standing)),
            Output::Alarm(name, Some(text)) => alarms.raise(name, text),
            Output::Alarm(name, None) => alarms.clear(name),
            Output::Stopped => errands.push(Errand::Stopped),
        }
    }

    /// What a configuration means to the shards, and whether it is a worry.
    fn news(&self, stored: &Stored, quarantine_until: Option<Tick>, alarms: &Alarms) -> CellNews {
        let configuration = &stored.configuration;
        let primary = configuration.primary_member();
        let others = configuration.members.iter().filter(|member| member.node != primary.node);
        let nodes: Vec<&str> = std::iter::once(primary)
            .chain(others)
            .map(|member| member.clients.as_str())
            .filter(|clients| !clients.is_empty())
            .collect();
        let facts = CellFacts {
            primary: primary.clients.clone(),
            nodes: bounded(nodes.join(",")),
            epoch: configuration.epoch.get(),
            is_here: self.node.is_primary_of(configuration),
            copies: configuration.members.len(),
            copies_min: self.copies_min,
        };
        let (cell, digest_key, epoch) = (configuration.cell, configuration.digest_key, configuration.epoch);
        let copies = facts.copies;
        if copies < self.copies_min {
            let text = format!("copies={copies}, min_copies={}: nothing is granted", self.copies_min);
            alarms.raise("copies", text);
        } else if copies == 1 && facts.is_here {
            alarms.raise("copies", "copies=1: this node is alone; start another".to_string());
        } else {
            alarms.clear("copies");
        }
        let mac_key = configuration.mac_key;
        CellNews { cell, digest_key, mac_key, epoch, facts, quarantine_until }
    }
}

/// What a client may be told at once: whole endpoints, as many as fit.
fn bounded(nodes: String) -> String {
    let most = fairlock_protocol::limits::ENDPOINTS_BYTES_MAX;
    if nodes.len() <= most {
        return nodes;
    }
    let end = nodes[..most].rfind(',').unwrap_or(0);
    nodes[..end].to_string()
}
