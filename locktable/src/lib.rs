//! Who holds what, and who is next: the deterministic heart of Fairlock.
//!
//! A [`Table`] changes by [`Table::apply`] alone: a [`Command`] and the moment go in, [`Effects`] come out. What time
//! decides is a command, too, which the node that decides asks [`Table::due`] for. Nothing here reads a clock, does
//! I/O or iterates a map whose order is chance, so the same commands give the same table everywhere.
//!
//! A command can travel as bytes ([`mod@operation`]), which is what the nodes of a cell send each other.
//!
//! Start reading in [`mod@command`], then `table.rs`, `acquire.rs` and `queue.rs`; `record.rs` has the memory layout.
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;
#[cfg(test)]
extern crate std;

mod acquire;
mod admin;
mod audit;
mod blocking;
mod bundle;
mod bytes;
pub mod cache;
mod chunks;
pub mod command;
mod convert;
mod counts;
pub mod effect;
mod expiry;
mod index;
mod inheritance;
mod kept;
mod list;
mod locks;
mod marks;
mod names;
pub mod operation;
mod queue;
mod reassert;
mod record;
mod release;
mod rolling;
mod rules;
mod seat;
mod sessions;
mod slab;
pub mod snapshot;
mod table;
mod takeover;
#[cfg(test)]
mod tests;
mod turns;
mod twins;
mod views;
mod wheel;

pub use command::{
    Acquire, AcquireAll, Attributes, Command, Ended, Granted, Item, Lease, Open, SessionKey, Wait, WaiterKey,
};
pub use counts::Counts;
pub use effect::{Answer, Effect, Effects, Notice};
pub use operation::OPERATIONS_LEVEL;
pub use rules::{NamespaceRules, Rules};
pub use table::{Limits, Settings, Table};
pub use views::{EntryView, LockView, Role, SessionView};
