//! What an operator forces: a cell that begins anew at this node, because those who are named are off.

use alloc::string::{String, ToString};
use alloc::vec::Vec;

use fairlock_protocol::Tick;

use super::{Configuration, Node, NodeId, Output, Phase, Purpose, Stored};

impl Node {
    /// An operator says that these nodes are off.
    pub(super) fn force_new(&mut self, ticket: u64, named: &[NodeId]) {
        let refusal = self.refuse_force(named);
        if let Some(why) = refusal {
            return self.outputs.push(Output::Answer(ticket, Err(why)));
        }
        if self.forcing.is_some() {
            let why = "somebody else is at it already; see `fairlock cluster status`".to_string();
            return self.outputs.push(Output::Answer(ticket, Err(why)));
        }
        // What is being asked is answered first.
        self.forcing = Some((ticket, named.to_vec()));
        self.look();
    }

    /// What stands in the register now may be newer than what was known, older (a backup that was restored) or gone: the
    /// new epoch is behind both, and what stands there is what is replaced. Until here nothing of this node's is given up.
    pub(super) fn force_on(&mut self, now: Tick, ticket: u64, named: &[NodeId], found: Option<&Stored>) {
        let expected = found.map(|found| found.revision);
        let is_news = |found: &Stored, known: &Stored| {
            let (new, old) = (&found.configuration, &known.configuration);
            new.cell != old.cell || found.revision > known.revision && new.epoch >= old.epoch
        };
        // Which halts it when this is no history that it can go on from.
        if let (Some(found), Some(known)) = (found, &self.known)
            && !matches!(self.phase, Phase::Halted)
            && is_news(found, known)
        {
            self.found(now, Some(found.clone()));
        }
        if let Some(found) = found
            && self.is_news_to_halted(&found.configuration)
        {
            self.know_of_others(now, found);
            let why = "what stands in the register is newer than what this node knew; look at `fairlock cluster status`, \
                       and try again";
            return self.outputs.push(Output::Answer(ticket, Err(why.to_string())));
        }
        if let Some(why) = self.refuse_force(named) {
            return self.outputs.push(Output::Answer(ticket, Err(why)));
        }
        let Some(last) = self.known.as_ref().map(|known| known.configuration.clone()) else { return };
        self.alarm("name", None);
        self.alarm("register", None);
        self.phase = Phase::Seeking { look_at: Tick(u64::MAX) };
        self.step_down();
        let new = self.anew(&Configuration { clean: false, ..last });
        self.swap_with(expected, Purpose::Begin, new);
        self.outputs.push(Output::Answer(ticket, Ok(())));
    }

    /// Whether this node, which goes on no more, has not followed what was written since; or another cell was begun.
    fn is_news_to_halted(&self, found: &Configuration) -> bool {
        let Some(known) = &self.known else { return false };
        let known = &known.configuration;
        let is_another = found.members != known.members || found.primary != known.primary;
        let is_later = found.epoch > known.epoch
            || found.epoch == known.epoch && (is_another || found.ttl_horizon > known.ttl_horizon);
        found.cell != known.cell || matches!(self.phase, Phase::Halted) && is_later
    }

    /// Goes by what others wrote: who has to be named, and which leases may be alive. No epoch, and no lease, of either is
    /// forgotten.
    fn know_of_others(&mut self, now: Tick, found: &Stored) {
        let (mut stored, mine) =
            (found.clone(), self.known.as_ref().map(|known| known.configuration.clone()));
        if let Some(mine) = mine {
            let theirs = &mut stored.configuration;
            theirs.epoch = theirs.epoch.max(mine.epoch);
            theirs.reign = theirs.reign.max(mine.reign);
            theirs.ttl_horizon = theirs.ttl_horizon.max(mine.ttl_horizon);
            theirs.clean &= mine.clean;
        }
        self.know(now, stored);
    }

    fn refuse_force(&self, named: &[NodeId]) -> Option<String> {
        if matches!(self.phase, Phase::Primary | Phase::Entering { .. } | Phase::Yielding { .. }) {
            return Some("this node is primary: nothing has to be forced".to_string());
        }
        if self.is_member() {
            return Some(
                "this node has everything and takes over by itself: nothing has to be forced".to_string(),
            );
        }
        let Some(known) = &self.known else {
            return Some("the register could not be read; nothing is known of the cell".to_string());
        };
        let missing: Vec<&NodeId> = known
            .configuration
            .members
            .iter()
            .filter(|member| !self.is_gone(member))
            .map(|member| &member.node)
            .collect();
        let unnamed: Vec<&str> =
            missing.into_iter().filter(|node| !named.contains(node)).map(NodeId::as_str).collect();
        (!unnamed.is_empty()).then(|| {
            alloc::format!(
                "these members may be alive: {}; name each one that you have made sure is off",
                unnamed.join(", ")
            )
        })
    }
}
