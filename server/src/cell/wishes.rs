//! What operators want of a cell, until it is done: a node says at once whether it goes about it, an operator wants to know
//! what came of it. So a wish waits here for what it is about to be seen, for a bounded time.

use std::time::Duration;

use fairlock_protocol::{Refusal, Tick};
use fairlock_replication::node::{Node, Standing, Wish, peer};
use fairlock_replication::replica::Peer;

use super::picture::CellAnswer;

/// How long a wish is waited for. A client's usual patience is a second longer.
const WISH_TIME: Duration = Duration::from_secs(4);
/// Wishes at one time: whoever wants more than that is no operator.
const WISHES_MAX: usize = 16;

/// The wishes that are not fulfilled.
#[derive(Debug, Default)]
pub(crate) struct Wishes(Vec<Pending>);

#[derive(Debug)]
struct Pending {
    ticket: u64,
    wish: Wish,
    begun: Tick,
    /// The node goes about it.
    accepted: bool,
    /// Of an eviction: whose life ends as a member.
    evicted: Option<Peer>,
}

impl Wishes {
    /// A wish that the node is told of now.
    ///
    /// # Errors
    /// There are too many.
    pub(crate) fn begin(
        &mut self,
        now: Tick,
        ticket: u64,
        wish: &Wish,
        node: &Node,
    ) -> Result<(), CellAnswer> {
        if self.0.len() >= WISHES_MAX {
            let why = "too much is wished at once; try again in a second".to_string();
            return Err(CellAnswer::Unmet { refusal: Refusal::Busy, why });
        }
        let evicted = match (wish, node.known()) {
            (Wish::Evict(whom), Some(known)) => known.configuration.member(whom).map(peer),
            _ => None,
        };
        let wish = wish.clone();
        self.0.push(Pending { ticket, wish, begun: now, accepted: false, evicted });
        Ok(())
    }

    /// What the node says: it goes about it, or not.
    pub(crate) fn answered(
        &mut self,
        ticket: u64,
        answer: Result<(), (Refusal, String)>,
    ) -> Option<CellAnswer> {
        let at = self.0.iter().position(|pending| pending.ticket == ticket)?;
        match answer {
            Ok(()) => {
                self.0[at].accepted = true;
                None
            }
            Err((refusal, why)) => {
                self.0.remove(at);
                Some(CellAnswer::Unmet { refusal, why })
            }
        }
    }

    /// Those that are fulfilled by now, and those whose time is over.
    pub(crate) fn settle(&mut self, now: Tick, node: &Node, fault: &str) -> Vec<(u64, CellAnswer)> {
        let mut settled = Vec::new();
        self.0.retain(|pending| {
            let took = now.since(pending.begun);
            if pending.is_fulfilled(node) {
                settled.push((pending.ticket, fulfilled(took, node)));
            } else if took >= WISH_TIME || pending.is_over(node) {
                settled.push((pending.ticket, pending.out_of_time(node, fault)));
            } else {
                return true;
            }
            false
        });
        settled
    }
}

impl Pending {
    fn is_fulfilled(&self, node: &Node) -> bool {
        let Some(known) = node.known() else { return false };
        let configuration = &known.configuration;
        self.accepted
            && match &self.wish {
                // The other one serves: it has said so to every shard of this node.
                Wish::Switchover(_) => node.hears() == Some(&configuration.primary),
                Wish::Evict(_) => {
                    !configuration.members.iter().any(|member| Some(peer(member)) == self.evicted)
                }
                Wish::ForceNew(_) => node.standing() == Standing::Primary,
            }
    }

    /// What was begun by force has not come into the register.
    fn is_over(&self, node: &Node) -> bool {
        self.accepted && matches!(self.wish, Wish::ForceNew(_)) && node.standing() == Standing::Halted
    }

    fn out_of_time(&self, node: &Node, fault: &str) -> CellAnswer {
        let why = if self.is_over(node) {
            "the register did not take it, and nothing was begun; try again".to_string()
        } else if !fault.is_empty() {
            let then = match self.wish {
                // A swap that certainly failed is not tried again, one whose outcome is unknown may be done yet.
                Wish::Switchover(_) => "see `fairlock cluster status` when it does, and ask again",
                Wish::Evict(_) | Wish::ForceNew(_) => "it is done when it does",
            };
            format!("the register does not answer ({fault}); {then}")
        } else if matches!(self.wish, Wish::Switchover(_)) && node.standing() == Standing::Primary {
            "the other node has not taken over; this one goes on for the time being".to_string()
        } else {
            "it was begun, and its end was not seen; `fairlock cluster status` tells".to_string()
        };
        CellAnswer::Unmet { refusal: Refusal::Timeout, why }
    }
}

fn fulfilled(took: Duration, node: &Node) -> CellAnswer {
    let configuration = node.known().map(|known| &known.configuration);
    CellAnswer::Fulfilled {
        took_ms: u32::try_from(took.as_millis()).unwrap_or(u32::MAX),
        epoch: configuration.map_or(0, |known| known.epoch.get()),
        primary: configuration.map_or_else(String::new, |known| known.primary_member().clients.clone()),
    }
}
