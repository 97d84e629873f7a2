//! Who holds what, and who is next: the deterministic heart of Fairlock.
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;
#[cfg(test)]
extern crate std;

pub mod command;
pub mod effect;
