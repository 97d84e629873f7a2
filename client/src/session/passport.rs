//! What a session shows of itself to be taken up again, at whichever node, and where nodes are said to be.

use fairlock_protocol::handshake::FEATURE_PROOF;
use fairlock_protocol::{
    CellId, DigestKey, Hello, Request, Secret, SessionId, ShardId, Welcome, Whereabouts,
};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, PoisonError};

/// What a stream shows to take its session up again.
#[derive(Debug)]
pub(crate) struct Passport {
    /// Who it is, and what shows it. Another one only after a server's loss of memory.
    pub(crate) identity: Mutex<(SessionId, Secret)>,
    pub(crate) home: ShardId,
    pub(crate) shards: u16,
    pub(crate) digest_key: DigestKey,
    pub(crate) cell: CellId,
    /// Highest epoch seen; a server that knows only an earlier one has lost its memory. Relaxed: a number alone.
    pub(crate) epoch: AtomicU32,
}

impl Passport {
    /// Who the session is, and what shows it.
    pub(crate) fn identity(&self) -> (SessionId, Secret) {
        *self.identity.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Its id.
    pub(crate) fn session(&self) -> SessionId {
        self.identity().0
    }

    /// From now on it is another session.
    pub(crate) fn becomes(&self, session: SessionId, secret: Secret) {
        *self.identity.lock().unwrap_or_else(PoisonError::into_inner) = (session, secret);
    }

    /// The first words to a shard, with these feature bits beside the library's own.
    pub(crate) fn hello(&self, shard: ShardId, features: u64) -> Request<'static> {
        let plain = Hello::to(shard);
        let (cell, epoch) = (self.cell, self.epoch.load(Ordering::Relaxed));
        let features = plain.features | FEATURE_PROOF | features;
        Request::Hello(Hello { features, cell, epoch, ..plain })
    }

    /// The words that take the session up, where so many kept replies were received.
    pub(crate) fn resume(&self, received: u64) -> Request<'static> {
        let (session, secret) = self.identity();
        Request::Resume { session, secret, received }
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
