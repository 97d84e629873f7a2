//! Nouns and sentences of Fairlock: identities, lock modes, time as data, messages, refusals, limits, and their
//! bytes. Everything two processes must agree on stands here and nowhere else; nothing here does anything.
//!
//! No `std`, no `unsafe`, and no allocation to decode: a decoded message borrows from the frame it came in.
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;
#[cfg(test)]
extern crate std;

pub mod admin;
pub mod bundle;
pub mod cluster;
pub mod digest;
pub mod handshake;
pub mod ids;
pub mod limits;
pub mod mode;
pub mod name;
mod opening;
pub mod priority;
pub mod proof;
pub mod refusal;
pub mod reply;
pub mod request;
pub mod tick;
mod whereabouts;
pub mod wire;

pub use admin::Transport;
pub use digest::{Digest, DigestKey};
pub use handshake::{Hello, Role, Welcome};
pub use ids::{CellId, Epoch, FencingToken, GrantId, OwnerId, RequestId, Secret, SessionId, ShardId};
pub use mode::{Mode, ModeSet};
pub use name::{Name, Namespace, Resource};
pub use priority::{Discipline, Priority};
pub use proof::{MacKey, Proof};
pub use refusal::{Class, Refusal};
pub use reply::Reply;
pub use request::{Liveness, Request, Wait};
pub use tick::Tick;
pub use whereabouts::Whereabouts;
pub use wire::{Frame, Malformed};
