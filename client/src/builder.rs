//! What a program may say about itself before it connects.

use crate::client::Client;
use crate::endpoint::Endpoint;
use crate::error::ConnectError;
use fairlock_protocol::{GrantId, Liveness, Mode};
use std::fmt;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

/// How the bytes travel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Transport {
    /// The best the endpoint allows.
    #[default]
    Auto,
    /// Shared memory, through a `unix:` endpoint.
    Shm,
    /// A stream over a `unix:` endpoint.
    Unix,
    /// TCP, to a `tcp:` endpoint.
    Tcp,
}

/// Something a program may want to hear of without asking. Never needed for correctness: guards know by themselves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Notice {
    /// A grant (acquired with `notify`) begins to block others.
    Blocking {
        /// Which grant.
        grant: GrantId,
        /// What the first blocked one asks for.
        wanted: Mode,
        /// How many are blocked.
        waiters: u32,
    },
    /// An operator broke a lock; its guard is lost.
    Broken {
        /// Which grant.
        grant: GrantId,
        /// The next holder is in already.
        forced: bool,
    },
    /// An operator ends the session; every guard is lost.
    Killed,
    /// The server will stop: release what you can.
    Draining,
    /// The session's lease is over; every guard is lost.
    Lost,
}

pub(crate) type NoticeCallback = Arc<dyn Fn(Notice) + Send + Sync>;

/// Prepares a [`Client`].
#[derive(Default)]
#[must_use = "nothing happens before `connect`"]
pub struct Builder {
    pub(crate) ttl: Option<Duration>,
    pub(crate) label: String,
    pub(crate) identity: Vec<u8>,
    pub(crate) reclaim_key: Vec<u8>,
    pub(crate) predecessor_gone: bool,
    pub(crate) liveness: Option<Liveness>,
    pub(crate) inherit: Option<OwnedFd>,
    pub(crate) transport: Transport,
    pub(crate) deadline: Option<Duration>,
    pub(crate) on_notice: Option<NoticeCallback>,
    pub(crate) confirm_when_released: bool,
}

impl fmt::Debug for Builder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Builder").field("ttl", &self.ttl).field("label", &self.label).finish_non_exhaustive()
    }
}

impl Builder {
    /// Length of the lease; the server may grant less (default 5 s).
    pub fn ttl(mut self, ttl: Duration) -> Builder {
        self.ttl = Some(ttl);
        self
    }

    /// What the program calls itself, at most 256 bytes: operators see it.
    pub fn label(mut self, label: impl Into<String>) -> Builder {
        self.label = label.into();
        self
    }

    /// Who the program is across restarts, and what lets its successor take its place.
    pub fn identity(mut self, identity: impl Into<Vec<u8>>, reclaim_key: impl Into<Vec<u8>>) -> Builder {
        self.identity = identity.into();
        self.reclaim_key = reclaim_key.into();
        self
    }

    /// Asserts that the process that last had this identity cannot run any more: its locks pass at once.
    pub fn predecessor_gone(mut self, gone: bool) -> Builder {
        self.predecessor_gone = gone;
        self
    }

    /// What ends the session when the program says nothing (default: `Process` over a `unix:` endpoint, else
    /// `Heartbeat`). Where the primary of a cell is on another host, `Process` is `Heartbeat` there.
    pub fn liveness(mut self, liveness: Liveness) -> Builder {
        self.liveness = Some(liveness);
        self
    }

    /// The read end of a pipe; the session lives until the last holder of its write end has closed it. Sets
    /// [`Liveness::Inherit`]; only over a `unix:` endpoint.
    pub fn inherit(mut self, read_end: OwnedFd) -> Builder {
        self.inherit = Some(read_end);
        self.liveness = Some(Liveness::Inherit);
        self
    }

    /// How the bytes travel (default: what the endpoint allows).
    pub fn transport(mut self, transport: Transport) -> Builder {
        self.transport = transport;
        self
    }

    /// Bounds the client's own talk with the server (connect, open, close, the answer to a try), never the wait for a
    /// lock (default 5 s). Looking a host name up is the system's business and takes as long as it takes.
    pub fn deadline(mut self, deadline: Duration) -> Builder {
        self.deadline = Some(deadline);
        self
    }

    /// Called for every [`Notice`], one after the other, on a thread of its own.
    pub fn on_notice(mut self, callback: impl Fn(Notice) + Send + Sync + 'static) -> Builder {
        self.on_notice = Some(Arc::new(callback));
        self
    }

    /// When an operator takes a lock away (`break`, `session kill`) its guard is lost at once, and the next holder
    /// enters once that is confirmed: normally at once too, with this only when the guard is released or dropped. For
    /// a program that must first stop something outside itself. It has until the lease's end: a server that waits
    /// for a confirmation soon stops renewing. `--force` waits for nobody.
    pub fn confirm_when_released(mut self, late: bool) -> Builder {
        self.confirm_when_released = late;
        self
    }

    /// Connects and opens a session.
    ///
    /// # Errors
    /// [`ConnectError`], which says whether there was no server, no answer, or a no.
    pub fn connect<E>(self, endpoint: E) -> Result<Client, ConnectError>
    where
        E: TryInto<Endpoint>,
        ConnectError: From<E::Error>,
    {
        let endpoint = endpoint.try_into()?;
        Client::open(self, &endpoint)
    }
}
