//! Epochs, cold starts, and what a node must remember: the part of replication that one node alone needs.
//!
//! Sans-IO: inputs are what was read from disk, the wall clock's seconds and fresh randomness; outputs are records to
//! make durable and how long to keep everybody out. Knows no locks and no files.
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;
#[cfg(test)]
extern crate std;

pub mod cold_start;
pub mod record;

pub use cold_start::{ColdStart, EpochsExhausted, Run};
pub use record::{NotARecord, Record};
