//! The other nodes of the cell: who they are, before anything is said to them or believed.
//!
//! A follower dials the primary, one stream for each shard; a probe dials to learn which life of a node answers
//! (docs/decisions/0008). Both begin with an introduction: each side says who it is and proves that it knows the secret of
//! the cell, the caller first, so that who knows no secret learns no more than that a node listens. All of it is blocking
//! code with a time limit, for threads that may block.
#![cfg_attr(
    not(test),
    expect(dead_code, unused_imports, reason = "a server alone has nobody to introduce itself to")
)]

mod answer;
mod dial;
mod introduction;
mod listen;
mod resolve;
mod secret;
mod trouble;
mod wire;
mod words;

#[cfg(test)]
mod tests;

pub(crate) use answer::answer;
pub(crate) use dial::{DIAL_TIME, dial};
pub(crate) use introduction::{Caller, Introduction, Purpose};
pub(crate) use listen::PeerDoor;
pub(crate) use secret::Secret;
pub(crate) use trouble::Trouble;
