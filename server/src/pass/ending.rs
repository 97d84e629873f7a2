//! The end of a shard's thread: what is left of its shard, and that it is written down.

use super::ShardThread;
use crate::clock;
use crate::lanes::Left;

impl ShardThread {
    /// What is left behind at the end of the thread. After a failure nothing is written down: nobody knows what of it was
    /// said to others.
    pub(super) fn leave(&mut self, in_order: bool) -> Left {
        // What other shards said of sessions before they stopped counts.
        let now = clock::now();
        while in_order && self.take_messages(now) {}
        let place = self.snapshots.take().filter(|_| in_order);
        let file = place.and_then(|place| match self.shard.write_down(now, &place) {
            Ok(file) => Some(file),
            Err(error) => {
                tracing::error!(shard = self.number, %error, "what is held cannot be written down");
                None
            }
        });
        self.shard.left(file)
    }
}
