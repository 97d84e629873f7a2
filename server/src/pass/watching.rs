//! Processes and pipes that a shard wants to be told the end of.

use fairlock_locktable::command::SessionKey;

use super::{ShardThread, place};
use crate::clock;
use crate::driver::Watched;

impl ShardThread {
    pub(super) fn watch(&mut self, session: SessionKey, descriptor: std::os::fd::OwnedFd, watched: Watched) {
        match self.driver.watch(descriptor, watched) {
            Ok(watch) => {
                *place(&mut self.watches, watch.slot()) = Some((watch, session));
                *place(&mut self.watched, session.slot) = Some((session, watch));
            }
            Err(error) => {
                tracing::error!(%error, "a process cannot be watched; its session ends");
                self.shard.process_gone(clock::now(), session);
            }
        }
    }

    pub(super) fn unwatch(&mut self, session: SessionKey) {
        let known = self.watched.get(session.slot as usize).copied().flatten();
        if let Some((known, watch)) = known
            && known == session
        {
            self.driver.unwatch(watch);
            *place(&mut self.watched, session.slot) = None;
            *place(&mut self.watches, watch.slot()) = None;
        }
    }
}
