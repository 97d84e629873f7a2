//! A shard driven by hand: the moment is a number, connections are lists of bytes. What is tested here is what the doors
//! decide; what the table decides is tested beside it.

mod bundles;
mod connections;
mod hostile;
mod office;
mod sessions;
mod words;
pub(crate) mod world;
