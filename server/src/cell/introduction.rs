//! What a node says of itself, what it wants, and whether the two ends of a stream go together.
//!
//! Both ends know both introductions in the end, so both judge by the same function and no verdict has to travel: a
//! caller need not believe what it is told about itself.

use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicU32, Ordering};

use fairlock_replication::{Incarnation, Member, NodeId};
use thiserror::Error;

use super::Secret;

/// What this node says of itself, to whoever calls and to whom it calls.
#[derive(Debug)]
pub(crate) struct Introduction {
    /// Name of the cell.
    pub(crate) cell: String,
    /// This node, in this life.
    pub(crate) me: Member,
    /// Number of its shards.
    pub(crate) shards: u16,
    /// What the nodes of the cell know and nobody else.
    pub(crate) secret: Option<Secret>,
    /// Newest epoch it knows; 0 for none. It changes while callers are answered.
    pub(crate) epoch: AtomicU32,
}

impl Introduction {
    /// What it says now.
    pub(super) fn presentation(&self) -> Presentation {
        Presentation {
            cell: self.cell.clone(),
            member: self.me.clone(),
            shards: self.shards,
            // Relaxed: a number that is shown, and nothing else hangs on it.
            epoch: self.epoch.load(Ordering::Relaxed),
        }
    }
}

/// What a stream is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// A shard of the caller follows the same shard here.
    Follow {
        /// Which.
        shard: u16,
    },
    /// The caller only wants to know who lives here.
    Probe,
}

/// Everything about one accepted stream.
#[derive(Debug)]
pub(crate) struct Caller {
    /// Who it is, as it proved.
    pub(crate) member: Member,
    /// What it wants.
    pub(crate) purpose: Purpose,
    /// The stream behind the introduction: nothing more was read, without delay, blocking.
    pub(crate) socket: OwnedFd,
}

/// What one side says of itself on a stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Presentation {
    pub(super) cell: String,
    pub(super) member: Member,
    pub(super) shards: u16,
    pub(super) epoch: u32,
}

/// What a caller says: who it is, what it wants, and of whom.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Request {
    pub(super) caller: Presentation,
    pub(super) purpose: Purpose,
    pub(super) wanted: NodeId,
    pub(super) wanted_life: Incarnation,
}

/// Why two nodes that know the same secret do not go together.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub(crate) enum Unsuited {
    /// They are of different cells.
    #[error(
        "the caller is of cell `{caller}`, who answers of cell `{answerer}`: correct --cell, or --peer-address"
    )]
    OtherCell {
        /// The caller's.
        caller: String,
        /// The other's.
        answerer: String,
    },
    /// They are one process.
    #[error(
        "node `{node}` has called itself: `{wanted}` is listed with an address that leads here; correct its --peer-address"
    )]
    Myself {
        /// Which node.
        node: NodeId,
        /// Whom it wanted.
        wanted: NodeId,
    },
    /// Another node has the address.
    #[error("node `{answerer}` answers where `{wanted}` is listed; correct --peer-address of both")]
    OtherNode {
        /// Who was wanted.
        wanted: NodeId,
        /// Who answered.
        answerer: NodeId,
    },
    /// Another life of the wanted node answers.
    #[error("life {answerer} of node `{node}` answers where {wanted} is listed")]
    OtherLife {
        /// Which node.
        node: NodeId,
        /// The life that was wanted.
        wanted: Incarnation,
        /// The one that answers.
        answerer: Incarnation,
    },
    /// Two processes have one name.
    #[error("two nodes are called `{node}`: give one of them another --node")]
    Namesake {
        /// The name.
        node: NodeId,
    },
    /// They divide the names differently.
    #[error("the caller has {caller} shards, who answers has {answerer}: start both with the same --shards")]
    OtherShards {
        /// The caller's.
        caller: u16,
        /// The other's.
        answerer: u16,
    },
}

/// Whether the caller has found whom it wanted, and may have what it wants. The same on both sides.
///
/// # Errors
/// [`Unsuited`]: the first thing that is in the way. Another life comes before what is wrong with that life: that the
/// wanted one is over is then known.
pub(super) fn judge(request: &Request, answerer: &Presentation) -> Result<(), Unsuited> {
    let Request { caller, purpose, wanted, wanted_life } = request;
    let (here, there) = (&answerer.member, &caller.member);
    if caller.cell != answerer.cell {
        return Err(Unsuited::OtherCell { caller: caller.cell.clone(), answerer: answerer.cell.clone() });
    }
    if here.incarnation == there.incarnation {
        return Err(Unsuited::Myself { node: there.node.clone(), wanted: wanted.clone() });
    }
    if here.node != *wanted {
        return Err(Unsuited::OtherNode { wanted: wanted.clone(), answerer: here.node.clone() });
    }
    if here.incarnation != *wanted_life {
        let (node, wanted, answerer) = (wanted.clone(), *wanted_life, here.incarnation);
        return Err(Unsuited::OtherLife { node, wanted, answerer });
    }
    // A new life may ask whether its old one still answers; it may not follow it.
    if here.node == there.node && *purpose != Purpose::Probe {
        return Err(Unsuited::Namesake { node: here.node.clone() });
    }
    if caller.shards != answerer.shards {
        return Err(Unsuited::OtherShards { caller: caller.shards, answerer: answerer.shards });
    }
    Ok(())
}
