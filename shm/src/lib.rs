//! What one process shares with one shard, and what it must know about itself before it touches that: here and in
//! the server's drivers is all the `unsafe` of the house.
//!
//! [`fork`]: telling a process from its forked copies, and closing what a copy must not use.

pub mod fork;
