//! What goes into a replica and what comes out of it.

use alloc::vec::Vec;

use fairlock_protocol::Epoch;

use super::LinkKey;
#[cfg(doc)]
use super::Replica;
use crate::member::{Incarnation, NodeId};
use crate::message::Message;

/// One life of one node, as others know it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Peer {
    /// Its name.
    pub node: NodeId,
    /// Which of its lives.
    pub incarnation: Incarnation,
}

/// An epoch as a replica needs it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Setup {
    /// Its number.
    pub epoch: Epoch,
    /// The epoch in which its primary took office.
    pub reign: Epoch,
    /// The members but this node.
    pub others: Vec<Peer>,
    /// The configuration for the followers' nodes, opaque here.
    pub configuration: Vec<u8>,
}

/// What a node tells all its replicas.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Order {
    /// Acknowledge nothing below this epoch any more (R4); answered with [`Report::Promised`].
    Promise(Epoch),
    /// This node is primary: go on with everything that is here. Answered with [`Report::InOffice`].
    Office {
        /// The epoch.
        setup: Setup,
        /// Nothing that was is kept: a first start, or one after everybody lost their memory.
        fresh: bool,
    },
    /// The members changed; this node is primary still.
    Configure(Setup),
    /// Before a joiner is listed: from now on it counts like a member. Answered with [`Report::Pinned`] or
    /// [`Report::NotPinned`].
    Pin(Peer),
    /// It was certainly not listed.
    Unpin(Peer),
    /// Another node is primary from this epoch on: take nothing in, and hand over when all is committed. Answered with
    /// [`Report::Yielded`].
    Yield {
        /// The epoch.
        setup: Setup,
        /// Who takes over.
        to: Peer,
    },
    /// End every stream with this peer.
    Drop(Peer),
    /// This node is primary no more and what was not committed is void; it has to join again. Answered with
    /// [`Report::SteppedDown`].
    StepDown,
    /// Leave office with everything that is here: another node was made primary, and this one is listed still, so it may have
    /// to take over again with what it has. Answered with [`Report::SteppedDown`].
    Retire,
}

/// What a replica tells its node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Report {
    /// Nothing below this epoch is acknowledged here any more.
    Promised(Epoch),
    /// This replica serves.
    InOffice(Epoch),
    /// A primary has activated an epoch here; its configuration.
    Follows {
        /// The primary.
        primary: Peer,
        /// The epoch.
        epoch: u32,
        /// Its configuration, as its node gave it.
        configuration: Vec<u8>,
    },
    /// This replica has something to go on with: what a joiner was sent is complete, or an office began.
    Restored,
    /// It has not any more.
    StateLost,
    /// An order to step down was carried out: whatever is said after this is about what came since.
    SteppedDown,
    /// The stream with this peer ended.
    Lost(Peer),
    /// The primary has been silent for too long, and this loop was not; said again while the silence goes on.
    Suspect(Peer),
    /// What is here cannot go on as this primary does: it has to be dropped, if this node does not take over with it.
    Astray(Peer),
    /// A member leaves something unacknowledged for too long, or cannot go on.
    Late(Peer),
    /// A joiner has everything and counts.
    Joined(Peer),
    /// The joiner counts until it is listed or unpinned.
    Pinned(Peer),
    /// The joiner is gone.
    NotPinned(Peer),
    /// Somebody has promised an epoch later than this primary's.
    Deposed(u32),
    /// This replica has handed over; `complete` when everything was committed before.
    Yielded {
        /// Whether it goes on as a full backup.
        complete: bool,
    },
    /// The primary hands over, and this is the configuration that begins.
    HandedOver {
        /// Its configuration.
        configuration: Vec<u8>,
    },
    /// The node that was asked is not primary.
    Refused(Peer),
}

/// What is to be done outside.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// For the node.
    Report(Report),
    /// End this stream.
    HangUp(LinkKey),
    /// What is there is void: an empty table, until a snapshot is complete or an order comes.
    Reset,
    /// A follower wants a snapshot of this moment: answer with [`Replica::begin_snapshot`]
    /// before anything is appended, or with [`Replica::postpone_snapshot`].
    SnapshotWanted(LinkKey),
    /// A piece of the snapshot that this replica joins by.
    Piece {
        /// Its bytes.
        bytes: Vec<u8>,
        /// It is the last: the table can be made of them. Answer with [`Replica::restored`], in this pass or
        /// a later one in which [`Replica::awaits_restored`] holds.
        last: bool,
    },
}

/// What arrives at a replica.
#[derive(Clone, Debug)]
pub enum Input<'a> {
    /// A stream with a peer stands; `dialed`: from here, to follow.
    Linked {
        /// Its key, never used before.
        link: LinkKey,
        /// Who is at the other end.
        peer: Peer,
        /// Who made it.
        dialed: bool,
    },
    /// A stream ended.
    Unlinked(LinkKey),
    /// A message came on a stream.
    Received(LinkKey, Message<'a>),
    /// An order of the node.
    Order(Order),
    /// Time went on.
    Tick,
}

/// What a replica is to its shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// Nothing: it waits for an order or a stream.
    Idle,
    /// It follows a primary, or has done so and could take over.
    Backup,
    /// It serves.
    Primary,
    /// It hands over: nothing new is taken in.
    Yielding,
}
