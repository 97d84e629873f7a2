//! One process's presence at a server.

use crate::builder::Builder;
use crate::endpoint::Endpoint;
use crate::error::ConnectError;
use crate::lock::LockRequest;
use fairlock_protocol::SessionId;

/// One process's presence at a server: a session, its connections, and what keeps it alive.
#[derive(Clone, Debug)]
pub struct Client {}

/// How a client stands with its server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ClientState {
    /// Connected; guards are valid.
    Connected,
    /// Not connected at the moment; the lease runs, guards are still held.
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
    /// [`ConnectError`].
    pub fn connect<E>(endpoint: E) -> Result<Client, ConnectError>
    where
        E: TryInto<Endpoint>,
        ConnectError: From<E::Error>,
    {
        Client::builder().connect(endpoint)
    }

    /// Says more before connecting.
    pub fn builder() -> Builder {
        Builder::default()
    }

    pub(crate) fn open(_builder: Builder, _endpoint: &Endpoint) -> Result<Client, ConnectError> {
        Err(ConnectError::Unsupported("not yet"))
    }

    /// A request for the lock `name`: exclusive and waiting for ever, unless said otherwise.
    pub fn lock(&self, name: impl AsRef<[u8]>) -> LockRequest {
        LockRequest::new(name.as_ref())
    }

    /// The session.
    pub fn session(&self) -> SessionId {
        SessionId::from_raw(1).expect("one is not zero")
    }

    /// How long the lease is, as the server granted it.
    pub fn ttl(&self) -> std::time::Duration {
        std::time::Duration::ZERO
    }

    /// How the client stands with its server.
    pub fn state(&self) -> ClientState {
        ClientState::Closed
    }

    /// Ends the session: every guard is lost, every waiting acquire fails with `Closed`; everything is given back.
    pub fn close(&self) {}
}
