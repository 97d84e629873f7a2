//! Epochs, cold starts, what a node must remember, and the configuration that a cell's nodes agree on.
//!
//! Sans-IO: inputs are what was read from disk or a register, the wall clock's seconds and fresh randomness; outputs are
//! records to make durable and how long to keep everybody out. Knows no locks, no files and no sockets.
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;
#[cfg(test)]
extern crate std;

/// Whether a mistake is to be made here; never, in an ordinary build.
macro_rules! mutant {
    ($name:ident) => {{
        #[cfg(mutants)]
        let made = crate::mutants::is(crate::mutants::Mutant::$name);
        #[cfg(not(mutants))]
        let made = false;
        made
    }};
}

pub mod cold_start;
pub mod configuration;
pub mod log;
pub mod member;
pub mod memory;
pub mod message;
#[cfg(mutants)]
pub mod mutants;
pub mod node;
pub mod profile;
pub mod record;
pub mod register;
pub mod replica;
mod text;

pub use cold_start::{ColdStart, EpochsExhausted, Fresh, Run};
pub use configuration::{Configuration, Inconsistent, MacKey};
pub use member::{BadNode, Incarnation, Member, NodeId};
pub use record::{NotARecord, Record};
pub use register::{Answer, Ask, Register, Revision, Stored, Watched};
