//! This server as a node of a cell: how it introduces itself to others, and the desk on the control thread where its node
//! decides. What is decided, and how shards carry their logs to each other, stands in `fairlock-replication`.

pub(crate) mod desk;
pub(crate) mod introduction;
pub(crate) mod listen;
mod starting;

pub(crate) use starting::{Founding, found};
