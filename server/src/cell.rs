//! This server as a node of a cell. First who the other nodes are, before anything is said to them or believed: a follower
//! dials the primary, one stream for each shard; a probe dials to learn which life of a node answers
//! (docs/decisions/0008). Both begin with an introduction: each side says who it is and proves that it knows the secret of
//! the cell, the caller first, so that who knows no secret learns no more than that a node listens. All of that is blocking
//! code with a time limit, for threads that may block.
//!
//! Then the desk on the control thread, where this server's node decides. What it decides, and how shards carry their logs
//! to each other, stands in `fairlock-replication`.

mod answer;
pub(crate) mod clerk;
pub(crate) mod desk;
mod dial;
mod introduction;
mod listen;
pub(crate) mod picture;
mod resolve;
mod secret;
mod starting;
mod trouble;
mod wire;
pub(crate) mod wishes;
mod words;

#[cfg(test)]
mod tests;

pub(crate) use answer::answer;
pub(crate) use dial::{DIAL_TIME, dial};
pub(crate) use introduction::{Caller, Introduction, Purpose};
pub(crate) use listen::PeerDoor;
pub(crate) use secret::Secret;
pub(crate) use starting::found;
pub(crate) use trouble::Trouble;
