//! Operators' questions about the cell, and their wishes: the control thread has the answers. They say nothing of locks,
//! so an answer waits for no round: also a primary that nobody acknowledges says how it stands.

use fairlock_protocol::reply::Refused;
use fairlock_protocol::{Refusal, Request, RequestId};
use fairlock_replication::NodeId;
use fairlock_replication::node::Wish;
use fairlock_replication::replica::Replica;

use super::Shard;
use crate::cell::picture::CellAnswer;
use crate::connection::ConnectionKey;
use crate::lanes::{Asker, ToControl};
use crate::stats::ShardStats;

impl Shard {
    /// Whether a node that is not the primary answers this: what it is about is the node itself.
    pub(super) fn is_about_node(message: &Request<'_>) -> bool {
        matches!(message, Request::Status | Request::Cluster | Request::ForceNew(_))
    }

    /// A question about the cell or a wish; `false` for anything else.
    pub(super) fn cell_request(
        &mut self,
        key: ConnectionKey,
        request: RequestId,
        message: &Request<'_>,
    ) -> bool {
        let wish = match *message {
            Request::Cluster => Ok(None),
            Request::Switchover("") => Ok(Some(Wish::Switchover(None))),
            Request::Switchover(to) => NodeId::new(to).map(|to| Some(Wish::Switchover(Some(to)))),
            Request::Evict(node) => NodeId::new(node).map(|node| Some(Wish::Evict(node))),
            Request::ForceNew(off) => {
                let names = off.split(',').filter(|name| !name.is_empty());
                names.map(NodeId::new).collect::<Result<_, _>>().map(|off| Some(Wish::ForceNew(off)))
            }
            _ => return false,
        };
        if self.replicated.is_none() {
            let detail = "this server runs alone: it belongs to no cell";
            self.refuse(key, request, Refused { detail, ..Refusal::Unsupported.into() });
            return true;
        }
        let (shard, asker) = (self.settings.me.0, Asker { connection: key, request });
        match wish {
            Ok(None) => self.output.to_control.push(ToControl::CellAsked { shard, asker }),
            Ok(Some(wish)) => {
                tracing::warn!(?wish, "an operator's wish for the cell");
                self.output.to_control.push(ToControl::Wish { shard, asker, wish });
            }
            Err(bad) => {
                let detail = bad.to_string();
                self.refuse(key, request, Refused { detail: &detail, ..Refusal::BadName.into() });
            }
        }
        true
    }

    /// What the control thread says to it.
    pub(super) fn cell_answered(&mut self, asker: Asker, answer: &CellAnswer) {
        if matches!(answer, CellAnswer::Unmet { .. }) {
            ShardStats::add(&self.stats.refusals_total);
        }
        let there = |connection: &&mut crate::connection::Connection| !connection.hung_up;
        let Some(connection) = self.connections.at_mut(asker.connection).filter(there) else { return };
        answer.encode(asker.request, &mut connection.out);
        if !std::mem::replace(&mut connection.dirty, true) {
            self.output.dirty.push(asker.connection);
        }
    }

    /// Tells the control thread how far those are who follow.
    pub(super) fn tell_progress(&mut self, ticket: u64) {
        let replica = self.replicated.as_ref().map(|replicated| replicated.replica());
        let end = replica.map_or(0, |replica| replica.received_lsn().0);
        let far = replica.into_iter().flat_map(Replica::progress);
        let followers = far.map(|(peer, acked, _)| (peer.clone(), end.saturating_sub(acked.0))).collect();
        self.output.to_control.push(ToControl::Progress { ticket, followers });
    }

    /// Publishes how the log stands: how much of it others lack, and how many follow.
    pub(super) fn publish_log(&self) {
        let Some(replica) = self.replicated.as_ref().map(|replicated| replicated.replica()) else { return };
        let end = replica.received_lsn().0;
        let lag = replica.progress().map(|(_, acked, _)| end.saturating_sub(acked.0)).max();
        ShardStats::set(&self.stats.log_bytes, replica.log_bytes() as u64);
        ShardStats::set(&self.stats.follower_lag, lag.unwrap_or(0));
        ShardStats::set(&self.stats.followers, replica.progress().count() as u64);
    }
}
