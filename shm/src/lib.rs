//! What one process shares with one shard, and what it must know about itself before it touches that: here and in
//! the server's drivers is all the `unsafe` of the house.
//!
//! [`segment`]: everything a client and a shard share; [`ring`]: bytes from one to the other; [`bell`]: who must be
//! woken; [`word`]: grants that stay with a client; [`beacon`] and [`robust`]: whether a server lives; [`wait`]: sleeping
//! on a word; [`fork`]: telling a process from its forked copies, and closing what a copy must not use.
//!
//! Everything shared is atomics, reached through one cast in `mapping`; what the other side wrote is a claim that is
//! checked before it is used.

pub mod bell;
pub mod ring;
mod sync;
pub mod word;

#[cfg(not(loom))]
pub mod beacon;
#[cfg(not(loom))]
pub mod fork;
#[cfg(not(loom))]
mod mapping;
#[cfg(not(loom))]
pub mod robust;
#[cfg(not(loom))]
pub mod segment;
#[cfg(not(loom))]
pub mod wait;
