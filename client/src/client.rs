//! One process's presence at a server: the handle a program shares among its threads and tasks.

use crate::builder::{Builder, Transport};
use crate::clock;
use crate::endpoint::Endpoint;
use crate::engine::{Anchor, Core};
use crate::error::ConnectError;
use crate::lock::LockRequest;
use crate::lock_all::LockAllRequest;
use fairlock_protocol::{Mode, SessionId};
use std::sync::Arc;
use std::time::Duration;

/// One process's presence at a server: a session, its connections, and what keeps it alive. Cheap to clone and share.
///
/// When the last clone and the last guard are gone, the session is closed in the background; [`Client::close`] does it
/// now and waits. After `fork` the child's copy is closed and touches nothing: connect again there.
#[derive(Clone, Debug)]
pub struct Client {
    anchor: Arc<Anchor>,
}

/// How a client stands with its server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ClientState {
    /// Connected; guards are valid.
    Connected,
    /// Not connected at the moment: the lease runs, guards are still held.
    Suspended,
    /// The session is over; the next acquire opens a new one.
    Lost,
    /// Closed, or the process forked.
    Closed,
}

impl Client {
    /// Connects with defaults and opens a session.
    ///
    /// # Errors
    /// [`ConnectError`], which says whether there was no server, no answer, or a no.
    pub fn connect<E>(endpoint: E) -> Result<Client, ConnectError>
    where
        E: TryInto<Endpoint>,
        ConnectError: From<E::Error>,
    {
        Client::builder().connect(endpoint)
    }

    /// Says more before connecting: lease, label, identity, liveness, transport.
    pub fn builder() -> Builder {
        Builder::default()
    }

    pub(crate) fn open(builder: Builder, endpoint: &Endpoint) -> Result<Client, ConnectError> {
        Ok(Client { anchor: Core::start(builder, endpoint)? })
    }

    /// A request for the lock `name` (1 to 1024 bytes): exclusive and waiting for ever, unless said otherwise.
    pub fn lock(&self, name: impl AsRef<[u8]>) -> LockRequest {
        LockRequest::new(Arc::clone(&self.anchor), name.as_ref())
    }

    /// A request for several locks, all or none: waiting for ever, unless said otherwise. Two such requests never wait for
    /// each other, in whatever order they name their locks.
    pub fn lock_all<N: AsRef<[u8]>>(&self, locks: impl IntoIterator<Item = (N, Mode)>) -> LockAllRequest {
        LockAllRequest::new(Arc::clone(&self.anchor), locks)
    }

    /// The session's number, as `fairlock sessions` shows it. It changes when a lost session is followed by a new one.
    pub fn session(&self) -> SessionId {
        self.anchor.core.session().passport.session()
    }

    /// Length of the lease, as the server granted it.
    pub fn ttl(&self) -> Duration {
        self.anchor.core.session().lease.ttl()
    }

    /// How the bytes travel, or did before the connection broke; never [`Transport::Auto`], except in a forked child.
    pub fn transport(&self) -> Transport {
        let core = &self.anchor.core;
        if core.mark.is_child() { Transport::Auto } else { core.session().transport() }
    }

    /// The node the session lives with, or did before the connection broke, as an endpoint; empty in a forked child.
    pub fn node(&self) -> String {
        let core = &self.anchor.core;
        let at = if core.mark.is_child() { None } else { core.session().home().at() };
        at.map(|at| at.to_string()).unwrap_or_default()
    }

    /// Every node the client knows, as endpoints: those the program named, then those that servers have told of.
    pub fn members(&self) -> Vec<String> {
        let mut members: Vec<String> = self.anchor.core.nodes.all().iter().map(ToString::to_string).collect();
        members.dedup();
        members
    }

    /// How the client stands with its server.
    pub fn state(&self) -> ClientState {
        let core = &self.anchor.core;
        if core.mark.is_child() || core.is_closing() {
            return ClientState::Closed;
        }
        let session = core.session();
        match session.lease.check(clock::now()) {
            Err(_) => ClientState::Lost,
            Ok(_) if session.is_reachable() => ClientState::Connected,
            Ok(_) => ClientState::Suspended,
        }
    }

    /// Ends the session: every guard is lost at once, every waiting acquire fails with `Closed`, and then the server is
    /// told. Waits for its answer, at most for the client's deadline.
    pub fn close(&self) {
        if !self.anchor.core.mark.is_child() {
            self.anchor.core.close();
        }
    }
}
