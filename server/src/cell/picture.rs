//! What operators are told of a cell: one node's picture of all nodes, put together on the control thread, written out by
//! the shard whose client asked.

use std::collections::BTreeMap;

use fairlock_protocol::cluster::{ClusterView, NodeBuffer, NodeEntry, NodePart};
use fairlock_protocol::limits::{ALARMS_BYTES_MAX, NODE_NAMES_BYTES_MAX, PLACE_BYTES_MAX};
use fairlock_protocol::reply::Refused;
use fairlock_protocol::{CellId, Refusal, Reply, RequestId, Tick, Whereabouts};
use fairlock_replication::node::Standing;
use fairlock_replication::replica::Peer;
use fairlock_replication::{Member, NodeId, Stored};

use super::desk::Desk;

/// What a shard answers to an operator.
#[derive(Debug)]
pub(crate) enum CellAnswer {
    /// The cell.
    Picture(Box<Picture>),
    /// A wish was fulfilled.
    Fulfilled {
        /// How long it took, in milliseconds.
        took_ms: u32,
        /// The epoch since.
        epoch: u32,
        /// Where clients reach the primary.
        primary: String,
    },
    /// It was not.
    Unmet {
        /// The code.
        refusal: Refusal,
        /// Why, and what to do.
        why: String,
    },
}

impl CellAnswer {
    /// Appends it as one frame.
    pub(crate) fn encode(&self, request: RequestId, out: &mut Vec<u8>) {
        match self {
            CellAnswer::Picture(picture) => picture.encode(request, out),
            CellAnswer::Fulfilled { took_ms, epoch, primary } => {
                let primary = Whereabouts { epoch: *epoch, endpoints: primary };
                Reply::Fulfilled { took_ms: *took_ms, primary }.encode(request, 0, out);
            }
            CellAnswer::Unmet { refusal, why } => {
                let detail = clipped(why, PLACE_BYTES_MAX);
                Reply::Refused(Refused { detail, ..(*refusal).into() }).encode(request, 0, out);
            }
        }
    }
}

/// How far the followers of all shards are.
#[derive(Debug, Default)]
pub(crate) struct Progress(BTreeMap<NodeId, (Peer, u64, u16)>);

impl Progress {
    /// What one shard says.
    pub(crate) fn add(&mut self, followers: Vec<(Peer, u64)>) {
        for (peer, lag) in followers {
            let entry = self.0.entry(peer.node.clone()).or_insert_with(|| (peer.clone(), 0, 0));
            if entry.0 == peer {
                *entry = (peer, entry.1.saturating_add(lag), entry.2.saturating_add(1));
            }
        }
    }

    /// Lag and streams of one life of a node.
    fn of(&self, member: &Member) -> (Option<u64>, u16) {
        match self.0.get(&member.node) {
            Some((peer, lag, streams)) if peer.incarnation == member.incarnation => (Some(*lag), *streams),
            _ => (None, 0),
        }
    }
}

/// A picture of a cell.
#[derive(Debug)]
pub(crate) struct Picture {
    known: Option<Stored>,
    name: String,
    me: NodeId,
    part: NodePart,
    feature_level_own: u16,
    shards: u16,
    copies_min: u16,
    recovering_ms: u32,
    register: String,
    register_fault: String,
    waits_for: String,
    alarms: String,
    nodes: NodeBuffer,
}

impl Picture {
    /// What the desk knows, with what its shards say.
    pub(crate) fn of(desk: &Desk, now: Tick, progress: &Progress, alarms: &[String]) -> Picture {
        let node = desk.node();
        let known = node.known().cloned();
        let waits_for: Vec<String> = match node.standing() {
            Standing::Seeking => node.waits_for().iter().map(ToString::to_string).collect(),
            _ => Vec::new(),
        };
        let left_ms = desk.quarantine_until().since(now).as_millis();
        let own = desk.introduction();
        Picture {
            nodes: entries(desk, known.as_ref(), progress),
            known,
            name: own.cell.clone(),
            me: own.me.node.clone(),
            part: part(node.standing()),
            feature_level_own: desk.feature_level(),
            shards: own.shards,
            copies_min: u16::try_from(desk.copies_min()).unwrap_or(u16::MAX),
            recovering_ms: u32::try_from(left_ms).unwrap_or(u32::MAX),
            register: clipped(desk.place(), PLACE_BYTES_MAX).to_string(),
            register_fault: clipped(desk.register_fault(), PLACE_BYTES_MAX).to_string(),
            waits_for: clipped(&waits_for.join(","), NODE_NAMES_BYTES_MAX).to_string(),
            alarms: clipped(&alarms.join("\n"), ALARMS_BYTES_MAX).to_string(),
        }
    }

    fn encode(&self, request: RequestId, out: &mut Vec<u8>) {
        let configuration = self.known.as_ref().map(|known| &known.configuration);
        let horizon_ms = configuration.map_or(0, |known| known.ttl_horizon.as_millis());
        let view = ClusterView {
            name: &self.name,
            cell: configuration.map_or(CellId(0), |known| known.cell),
            epoch: configuration.map_or(0, |known| known.epoch.get()),
            reign: configuration.map_or(0, |known| known.reign.get()),
            primary: configuration.map_or("", |known| known.primary.as_str()),
            node: self.me.as_str(),
            part: self.part,
            feature_level: configuration.map_or(0, |known| known.feature_level),
            feature_level_own: self.feature_level_own,
            shards: self.shards,
            copies: configuration.map_or(0, |known| u16::try_from(known.members.len()).unwrap_or(u16::MAX)),
            copies_min: self.copies_min,
            ttl_horizon_ms: u32::try_from(horizon_ms).unwrap_or(u32::MAX),
            recovering_ms: self.recovering_ms,
            state_lost: configuration.is_some_and(|known| known.state_lost),
            register: &self.register,
            register_fault: &self.register_fault,
            waits_for: &self.waits_for,
            alarms: &self.alarms,
            nodes: self.nodes.list(),
        };
        Reply::Cluster(view).encode(request, 0, out);
    }
}

/// Members, then who follows without being one.
fn entries(desk: &Desk, known: Option<&Stored>, progress: &Progress) -> NodeBuffer {
    let mut buffer = NodeBuffer::default();
    let node = desk.node();
    let serves = node.standing() == Standing::Primary;
    let mut push = |member: &Member, part: NodePart, (lag, streams): (Option<u64>, u16)| {
        // One too many is left out: a view is bounded.
        buffer.push(&NodeEntry {
            node: member.node.as_str(),
            part,
            incarnation: member.incarnation.get(),
            machine: &member.machine,
            peer: &member.peer,
            clients: &member.clients,
            lag,
            streams,
        });
    };
    let configuration = known.map(|known| &known.configuration);
    let me = &desk.introduction().me;
    for member in configuration.iter().flat_map(|known| &known.members) {
        let leads = configuration.is_some_and(|known| known.primary == member.node);
        let mine = serves && member == me;
        let far = if mine { (Some(0), 0) } else { progress.of(member) };
        push(member, if leads { NodePart::Primary } else { NodePart::Backup }, far);
    }
    let listed = |one: &Member| {
        configuration.is_some_and(|known| {
            known
                .members
                .iter()
                .any(|member| (&member.node, member.incarnation) == (&one.node, one.incarnation))
        })
    };
    let joiners = progress.0.values().filter_map(|(peer, ..)| {
        desk.met().get(&peer.node).filter(|member| member.incarnation == peer.incarnation)
    });
    for member in joiners.filter(|member| !listed(member)) {
        push(member, NodePart::Joining, progress.of(member));
    }
    if !serves && !listed(me) {
        push(me, part(node.standing()), (None, 0));
    }
    buffer
}

/// The wire's word for a node's standing.
fn part(standing: Standing) -> NodePart {
    match standing {
        Standing::Seeking => NodePart::Joining,
        Standing::Backup => NodePart::Backup,
        Standing::Primary => NodePart::Primary,
        Standing::Halted => NodePart::Halted,
    }
}

/// At most so many bytes of a text, whole characters.
fn clipped(text: &str, most: usize) -> &str {
    let mut end = text.len().min(most);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_cut_between_characters() {
        assert_eq!(clipped("abc", 2), "ab");
        assert_eq!(clipped("aß", 2), "a");
        assert_eq!((clipped("aß", 3), clipped("", 5)), ("aß", ""));
    }

    #[test]
    fn lags_of_all_shards_are_one_and_another_life_does_not_count() {
        let peer = |life| Peer {
            node: NodeId::new("b").expect("a name"),
            incarnation: fairlock_replication::Incarnation::new(life).expect("not 0"),
        };
        let mut progress = Progress::default();
        progress.add(vec![(peer(1), 3)]);
        progress.add(vec![(peer(1), 4)]);
        progress.add(vec![(peer(2), 100)]);
        let member = |life| Member {
            node: peer(life).node,
            machine: "4a".to_string(),
            incarnation: peer(life).incarnation,
            peer: "h:1".to_string(),
            clients: String::new(),
        };
        assert_eq!(progress.of(&member(1)), (Some(7), 2));
        assert_eq!(progress.of(&member(2)), (None, 0));
    }
}
