//! What an operator forces: a cell that begins anew at this node, because those who are named are off.

use alloc::string::{String, ToString};
use alloc::vec::Vec;

use fairlock_protocol::{Refusal, Tick};

use super::{Configuration, Member, Node, NodeId, Output, Peer, Phase, Purpose, Stored, peer};

/// The answer to who wants to force what nobody was asked about.
pub(super) const ANOTHER: &str = "what stands in the register is not what this node knew; look at `fairlock cluster \
                                  status`, and try again";

impl Node {
    /// An operator says that these nodes are off.
    pub(super) fn force_new(&mut self, ticket: u64, named: &[NodeId]) {
        if let Some(refused) = self.refuse_force(named) {
            return self.outputs.push(Output::Answer(ticket, Err(refused)));
        }
        if self.forcing.is_some() {
            let why = "somebody else is at it already; see `fairlock cluster status`".to_string();
            return self.outputs.push(Output::Answer(ticket, Err((Refusal::Denied, why))));
        }
        // What is being asked is answered first.
        self.forcing = Some((ticket, named.to_vec()));
        self.look();
    }

    /// What stands in the register now may be newer than what was known, older (a backup that was restored), of another
    /// history or gone: the new epoch is behind all of them, and what stands there is what is replaced. Until here nothing of
    /// this node's is given up.
    pub(super) fn force_on(&mut self, now: Tick, ticket: u64, named: &[NodeId], found: Option<&Stored>) {
        if let Some(found) = found
            && self.known.as_ref() != Some(found)
        {
            // Which halts it when this is no history that it can go on from.
            self.found(now, Some(found.clone()));
            if !matches!(self.phase, Phase::Halted) || self.learn_of_others(now, found) {
                return self
                    .outputs
                    .push(Output::Answer(ticket, Err((Refusal::Denied, ANOTHER.to_string()))));
            }
        }
        if let Some(refused) = self.refuse_force(named) {
            return self.outputs.push(Output::Answer(ticket, Err(refused)));
        }
        let Some(last) = self.known.as_ref().map(|known| known.configuration.clone()) else { return };
        self.alarm("name", None);
        self.alarm("register", None);
        self.phase = Phase::Seeking { look_at: Tick(u64::MAX) };
        self.step_down();
        let new = self.anew(&Configuration { clean: false, ..last });
        self.swap_with(found.map(|found| found.revision), Purpose::Begin, new);
        self.outputs.push(Output::Answer(ticket, Ok(())));
    }

    /// Goes by what others wrote, and forgets nothing that it knew: no epoch, no lease and no member of either. Whether
    /// somebody is new, who has to be named, and called, before anything begins.
    fn learn_of_others(&mut self, now: Tick, found: &Stored) -> bool {
        let Some(mine) = self.known.as_ref().map(|known| known.configuration.clone()) else { return true };
        let known: Vec<Peer> = self.listed().map(peer).chain([self.me()]).collect();
        let mut stored = found.clone();
        let theirs = &mut stored.configuration;
        let is_strange = |member: &Member| !known.contains(&peer(member));
        let is_news = theirs.cell != mine.cell || theirs.members.iter().any(is_strange);
        theirs.epoch = theirs.epoch.max(mine.epoch);
        theirs.reign = theirs.reign.max(mine.reign);
        theirs.ttl_horizon = theirs.ttl_horizon.max(mine.ttl_horizon);
        theirs.clean &= mine.clean;
        self.others.extend(mine.members);
        self.others.retain(|other| !theirs.members.iter().any(|member| peer(member) == peer(other)));
        self.others.sort_by(|one, next| (&one.node, one.incarnation).cmp(&(&next.node, next.incarnation)));
        self.others.dedup_by(|one, next| peer(one) == peer(next));
        self.know(now, stored);
        is_news
    }

    fn refuse_force(&self, named: &[NodeId]) -> Option<(Refusal, String)> {
        if matches!(self.phase, Phase::Primary | Phase::Entering { .. } | Phase::Yielding { .. }) {
            return Some((Refusal::Denied, "this node is primary: nothing has to be forced".to_string()));
        }
        if self.is_member() {
            let why = "this node has everything and takes over by itself: nothing has to be forced";
            return Some((Refusal::Denied, why.to_string()));
        }
        if self.known.is_none() {
            let why = "the register could not be read; nothing is known of the cell";
            return Some((Refusal::Unavailable, why.to_string()));
        }
        let waited_for = self.waits_for();
        let unnamed: Vec<&str> =
            waited_for.iter().filter(|node| !named.contains(node)).map(NodeId::as_str).collect();
        (!unnamed.is_empty()).then(|| {
            let unnamed = unnamed.join(", ");
            let why = alloc::format!(
                "these members may be alive: {unnamed}; name each one that you have made sure is off"
            );
            (Refusal::Denied, why)
        })
    }
}
