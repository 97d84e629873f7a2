//! The questions of an operator. A connection of this kind opens no session and holds nothing; it asks every shard
//! of the server and puts the answers together.

mod entries;

use crate::endpoint::Endpoint;
use crate::error::{AdminError, ConnectError};
use fairlock_protocol::SessionId;
use std::time::Duration;

pub use entries::{LockLine, SessionLine, Show, ShowLine, StatusReport};
pub use fairlock_protocol::handshake::Role;
pub use fairlock_protocol::{CellId, Transport};

/// Connections to every shard of one server, for questions.
#[derive(Debug)]
pub struct Admin {}

impl Admin {
    /// Connects; `deadline` bounds every later answer too.
    ///
    /// # Errors
    /// [`ConnectError`].
    pub fn connect<E>(endpoint: E, _deadline: Duration) -> Result<Admin, ConnectError>
    where
        E: TryInto<Endpoint>,
        ConnectError: From<E::Error>,
    {
        let _endpoint: Endpoint = endpoint.try_into()?;
        Err(ConnectError::Unsupported("not yet"))
    }

    /// Names in use that begin with `prefix`, sorted by namespace and name.
    ///
    /// # Errors
    /// [`AdminError`].
    pub fn list(&mut self, _prefix: &[u8]) -> Result<Vec<LockLine>, AdminError> {
        Ok(vec![])
    }

    /// Holders, conversions and waiters of one name; a free name has none. An empty namespace is the default one.
    ///
    /// # Errors
    /// [`AdminError`].
    pub fn show(&mut self, _namespace: &str, _name: &[u8]) -> Result<Show, AdminError> {
        Ok(Show::default())
    }

    /// Sessions, grants and waits summed over the shards, sorted by id.
    ///
    /// # Errors
    /// [`AdminError`].
    pub fn sessions(&mut self) -> Result<Vec<SessionLine>, AdminError> {
        Ok(vec![])
    }

    /// The server's state, summed over the shards.
    ///
    /// # Errors
    /// [`AdminError`].
    pub fn status(&mut self) -> Result<StatusReport, AdminError> {
        Err(ConnectError::Unsupported("not yet").into())
    }

    /// Takes a lock from its holders; says how many were told. With `force` the next one is let in at once.
    ///
    /// # Errors
    /// [`AdminError`]; [`fairlock_protocol::Refusal::NotFound`] when nobody holds it.
    pub fn break_lock(&mut self, _namespace: &str, _name: &[u8], _force: bool) -> Result<u32, AdminError> {
        Ok(0)
    }

    /// Ends a session.
    ///
    /// # Errors
    /// [`AdminError`]; [`fairlock_protocol::Refusal::NotFound`] when there is none.
    pub fn kill(&mut self, _session: SessionId, _force: bool) -> Result<(), AdminError> {
        Ok(())
    }
}
