//! The register of a cell: where its configuration lives, outside all of its nodes.
//!
//! [`open`] gives something that can be asked and something that can be watched. Both wait, so each belongs on a thread
//! of its own: [`RegisterThread`] and [`Watch`] have one. Every trouble has a defined effect (see
//! [`fairlock_replication::Answer`]) and a message that says what to do.

mod base64;
mod dial;
mod etcd;
mod file;
mod gateway;
mod http;
mod place;
#[cfg(test)]
mod tests;
mod thread;
mod tls;
mod trouble;
mod watch;

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use fairlock_replication::{NodeId, Register, Watched};
use thiserror::Error;

use crate::config::RegisterConfig;
use crate::state::StateError;
use etcd::{Credentials, Etcd, Settings};
use file::FileRegister;
pub use place::{BadPlace, Endpoint, Place};
pub use thread::{Busy, RegisterThread};
pub use watch::Watch;

/// Longest password, in bytes.
const PASSWORD_BYTES_MAX: usize = 4096;

/// A register cannot be used as it is configured. Whether it can be reached is another matter: it is asked to find out.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum OpenError {
    /// No register is configured.
    #[error("no register is configured: set `register.url`")]
    None,
    /// The place is none.
    #[error("`register.url`: {0}")]
    Place(#[from] BadPlace),
    /// The cell has no name that a key can have.
    #[error("a cell is named with 1 to 64 of a-z 0-9 . _ -")]
    Cell,
    /// A certificate or key cannot be used.
    #[error("`register.ca`, `register.cert`, `register.key`: {0}")]
    Certificate(String),
    /// The password cannot be read.
    #[error("`register.password_file`: cannot read {}: {source}", path.display())]
    Password {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The directory cannot be used.
    #[error(transparent)]
    Directory(#[from] StateError),
}

impl OpenError {
    /// The exit code of a server that cannot start because of this: `EX_CONFIG`.
    pub const fn exit_code(&self) -> u8 {
        78
    }
}

/// A register that was opened.
pub struct Opened {
    /// Reads and swaps.
    pub register: Box<dyn Register>,
    /// Tells of changes.
    pub watcher: Watcher,
}

impl fmt::Debug for Opened {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Opened").finish_non_exhaustive()
    }
}

/// Something that can be watched.
pub struct Watcher(Option<Settings>);

impl Watcher {
    /// Starts to watch: `told` is called on a thread of its own, soon for the first time. Where nobody else can change
    /// anything, it is never called.
    ///
    /// # Errors
    /// No thread is left.
    pub fn start(self, told: impl FnMut(Watched) + Send + 'static) -> io::Result<Watch> {
        match self.0 {
            Some(settings) => Watch::start(&settings, told),
            None => Ok(Watch::idle()),
        }
    }
}

impl fmt::Debug for Watcher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Watcher")
    }
}

/// Opens the register of the cell of this name. Reads certificates and password, and locks a directory; connects to
/// nobody yet.
///
/// # Errors
/// [`OpenError`].
pub fn open(config: &RegisterConfig, cell: &str) -> Result<Opened, OpenError> {
    // The same letters as a node's, so that a key in etcd has one form.
    NodeId::new(cell).map_err(|_| OpenError::Cell)?;
    match Place::parse(config.url.as_deref().ok_or(OpenError::None)?)? {
        Place::File(path) => {
            Ok(Opened { register: Box::new(FileRegister::open(&path)?), watcher: Watcher(None) })
        }
        Place::Etcd { endpoints, tls } => {
            let tls = if tls { Some(certificates(config)?) } else { None };
            let (key, timeout) = (gateway::key_of(cell), config.timeout);
            let settings = Settings { endpoints, tls, credentials: credentials(config)?, key, timeout };
            Ok(Opened { register: Box::new(Etcd::new(&settings)), watcher: Watcher(Some(settings)) })
        }
    }
}

fn certificates(config: &RegisterConfig) -> Result<std::sync::Arc<rustls::ClientConfig>, OpenError> {
    let ca =
        config.ca.as_deref().ok_or_else(|| OpenError::Certificate("`etcds://` needs a `ca`".to_owned()))?;
    let identity = config.cert.as_deref().zip(config.key.as_deref());
    tls::client(ca, identity).map_err(|bad| OpenError::Certificate(bad.0))
}

fn credentials(config: &RegisterConfig) -> Result<Option<Credentials>, OpenError> {
    let Some((user, path)) = config.user.as_ref().zip(config.password_file.as_deref()) else {
        return Ok(None);
    };
    let password =
        password(path).map_err(|source| OpenError::Password { path: path.to_path_buf(), source })?;
    Ok(Some(Credentials { user: user.clone(), password }))
}

/// The password in a file, without the line end an editor leaves.
fn password(path: &Path) -> io::Result<String> {
    let text = std::fs::read_to_string(path)?;
    let password = text.strip_suffix('\n').unwrap_or(&text);
    let password = password.strip_suffix('\r').unwrap_or(password);
    if password.is_empty() || password.len() > PASSWORD_BYTES_MAX {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "a password has 1 to 4096 bytes"));
    }
    Ok(password.to_owned())
}
