//! What a session shows of itself to be taken up again, at whichever node, and where nodes are said to be.

use fairlock_protocol::{
    CellId, DigestKey, Hello, Request, Secret, SessionId, ShardId, Welcome, Whereabouts,
};
use std::sync::atomic::{AtomicU32, Ordering};

/// What a stream shows to take its session up again.
#[derive(Debug)]
pub(crate) struct Passport {
    pub(crate) session: SessionId,
    pub(crate) secret: Secret,
    pub(crate) home: ShardId,
    pub(crate) shards: u16,
    pub(crate) digest_key: DigestKey,
    pub(crate) cell: CellId,
    /// Highest epoch seen; a server that knows only an earlier one has lost its memory. Relaxed: a number alone.
    pub(crate) epoch: AtomicU32,
}

impl Passport {
    /// The first words to a shard, with these feature bits beside the library's own.
    pub(crate) fn hello(&self, shard: ShardId, features: u64) -> Request<'static> {
        let plain = Hello::to(shard);
        let (cell, epoch) = (self.cell, self.epoch.load(Ordering::Relaxed));
        Request::Hello(Hello { features: plain.features | features, cell, epoch, ..plain })
    }

    /// The words that take the session up, where so many kept replies were received.
    pub(crate) fn resume(&self, received: u64) -> Request<'static> {
        Request::Resume { session: self.session, secret: self.secret, received }
    }

    /// Whether this is a server of the session's cell, which spreads names as it was when the session was opened.
    pub(crate) fn fits(&self, shard: ShardId, welcome: &Welcome) -> bool {
        welcome.shard == shard
            && welcome.shards == self.shards
            && welcome.digest_key == self.digest_key
            && welcome.cell == self.cell
    }
}

/// Where a server says nodes are. Not looked at yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Directions {
    pub(crate) epoch: u32,
    pub(crate) endpoints: Box<str>,
}

impl From<Whereabouts<'_>> for Directions {
    fn from(said: Whereabouts<'_>) -> Directions {
        Directions { epoch: said.epoch, endpoints: said.endpoints.into() }
    }
}
