//! What goes into a node and what comes out of it.

use alloc::string::String;
use alloc::vec::Vec;
use core::time::Duration;

use fairlock_protocol::{CellId, DigestKey, Epoch, Refusal};

use crate::configuration::MacKey;
use crate::member::{Member, NodeId};
use crate::profile::Profile;
use crate::register::{Answer, Ask, Stored, Watched};
use crate::replica::{Order, Report};

/// What a node is told at its start.
#[derive(Clone, Debug)]
pub struct NodeSettings {
    /// This node, in this life.
    pub me: Member,
    /// Number of its shards.
    pub shards: u16,
    /// Times.
    pub profile: Profile,
    /// Newest operations it understands.
    pub feature_level: u16,
    /// What a new cell is made of.
    pub fresh: Fresh,
    /// Longest lease, for a register that forgot.
    pub ttl_max: Duration,
}

/// Randomness and the wall clock's seconds, for the case that this node makes the cell.
#[derive(Clone, Debug)]
pub struct Fresh {
    /// The cell's id.
    pub cell: CellId,
    /// Its first epoch.
    pub epoch: Epoch,
    /// Key of its digests.
    pub digest_key: DigestKey,
    /// Key of its proofs.
    pub mac_key: MacKey,
}

/// What became of dialling a peer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Dialed {
    /// Every shard has a stream to the life that was wanted.
    Up,
    /// It was a probe, and the life that is listed answered.
    Alive,
    /// Another life of this node answers: the one that was wanted is over.
    Other(Member),
    /// Nobody listens there.
    Refused,
    /// No answer in time, or something went wrong on the way.
    Silent(String),
    /// It answered, and will have nothing to do with us: another cell, or a number of shards that does not fit.
    Rejected(String),
    /// Somebody answered that too many call at present.
    Busy(String),
    /// Somebody answered who cannot be told from the one that was wanted: the secrets or the versions differ.
    Unproven(String),
}

/// What an operator wants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wish {
    /// Another member takes over, without a gap.
    Switchover(Option<NodeId>),
    /// A member is taken out.
    Evict(NodeId),
    /// The named nodes are off, says the operator: this node begins anew without what they know.
    ForceNew(Vec<NodeId>),
}

/// What arrives at a node.
#[derive(Clone, Debug)]
pub enum Input {
    /// The register's answer to what was asked.
    Register(Answer),
    /// What the register says unasked.
    Watched(Watched),
    /// A report of a replica.
    Shard(u16, Report),
    /// What became of dialling, and whether it was a probe.
    Dialed {
        /// Whom.
        node: NodeId,
        /// Only to learn who answers.
        probe: bool,
        /// What became of it.
        outcome: Dialed,
    },
    /// A peer has dialled us, and this is who it is.
    Met(Member),
    /// What an operator wants; the number comes back with the answer.
    Wish(u64, Wish),
    /// A lease longer than any before is wanted.
    RaiseHorizon(Duration),
    /// The node stops and no lease is left behind: remember that.
    StopClean,
    /// Time went on.
    Tick,
}

/// What is to be done outside.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// Ask the register.
    Ask(Ask),
    /// Reach a member: with a stream for each shard, or only to learn whether it lives.
    Dial {
        /// Whom.
        member: Member,
        /// Only to learn who answers.
        probe: bool,
    },
    /// An order to all replicas.
    Order(Order),
    /// The newest configuration that is known: every node's clients may be told of it.
    Configured(Stored),
    /// Nothing is granted for so long, from now on (R13).
    Quarantine(Duration),
    /// Leases up to this length may be granted.
    HorizonRaised(Duration),
    /// The answer to an operator: the node goes about it, or not, and why.
    Answer(u64, Result<(), (Refusal, String)>),
    /// What the node is has changed.
    Became(Standing),
    /// Something is wrong, or is not any more.
    Alarm(&'static str, Option<String>),
    /// The end of the cell is in the register.
    Stopped,
}

/// What a node is, as others see it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// Looking for its place.
    Seeking,
    /// A member that is ready to take over.
    Backup,
    /// It serves.
    Primary,
    /// It goes on no more, by itself.
    Halted,
}
