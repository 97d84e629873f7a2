//! What the benchmark programs share: the machine, the clock's samples, cores, real servers, and the limits that every
//! figure stands beside.
//!
//! A figure alone says little on a machine whose cores move. So every program measures the limit (a bare echo, a
//! memory copy, a cache miss) in the same run, round by round in turns with the figure, and prints the ratio.
#![forbid(unsafe_code)]
#![allow(clippy::missing_panics_doc, reason = "a benchmark that cannot go on panics, and says why")]
#![allow(clippy::cast_precision_loss, reason = "figures are printed with three digits")]

pub mod batches;
pub mod cell;
pub mod cores;
pub mod echo;
pub mod etcd;
pub mod exchange;
pub mod figures;
pub mod hall;
pub mod launch;
pub mod machine;
pub mod memory;
pub mod network;
pub mod options;
pub mod pinger;
pub mod process;
pub mod raw;
pub mod redis;
pub mod rivals;
pub mod scratch;
pub mod server;
pub mod stream;
