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
    pub(super) fn force_on(&mut self, now: Tick, ticket: u64, named: &[NodeId], found: Option<Stored>) {
        let expected = found.as_ref().map(|found| found.revision);
        let known = self.known.as_ref().map_or(0, |known| known.configuration.epoch.get());
        if found.as_ref().is_some_and(|found| found.configuration.epoch.get() > known) {
            self.found(now, found);
        }
        if let Some(why) = self.refuse_force(named) {
            return self.outputs.push(Output::Answer(ticket, Err(why)));
        }
        let Some(last) = self.known.as_ref().map(|known| known.configuration.clone()) else { return };
        self.phase = Phase::Seeking { look_at: Tick(u64::MAX) };
        self.step_down();
        let new = self.anew(&Configuration { clean: false, ..last });
        self.swap_with(expected, Purpose::Begin, new);
        self.outputs.push(Output::Answer(ticket, Ok(())));
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
            .filter(|member| member.node != self.settings.me.node || self.namesake().is_some())
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
