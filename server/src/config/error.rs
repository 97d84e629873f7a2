//! What can be wrong with a configuration. Each message names the place and what to do; each ends a start with exit
//! code 78.

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use thiserror::Error;

/// The configuration cannot be used.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read the configuration file {}", path.display())]
    Unreadable {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The file says something that cannot be.
    #[error("{}:{line}: {}{message}", path.display(), key_prefix(key))]
    Syntax {
        /// Which file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// The key on that line, as far as there is one.
        key: String,
        /// What is wrong.
        message: String,
    },
    /// An address that others can reach, without authentication.
    #[error(
        "`{key}` = {address} can be reached from other hosts, and nobody would have to show who he is; \
        choose a loopback address, or accept that with --insecure (`insecure = true`)"
    )]
    Exposed {
        /// Which key.
        key: &'static str,
        /// Which address.
        address: SocketAddr,
    },
    /// What a namespace's queues cannot go by.
    #[error("`namespace.{namespace}{}{key}`: {message}", if key.is_empty() { "" } else { "." })]
    Namespace {
        /// Which namespace.
        namespace: String,
        /// Which of its keys; empty for its name.
        key: &'static str,
        /// What is possible, or what to do.
        message: &'static str,
    },
    /// Keys of a cell without others that it needs.
    #[error("a cell needs {} as well", missing.join(" and "))]
    Partial {
        /// Which are missing, as flags and as keys.
        missing: Vec<&'static str>,
    },
    /// Other hosts could call as nodes of the cell without having to prove anything.
    #[error(
        "`cell.peer_listen` = {address} can be reached from other hosts, and whoever reaches it could join the cell; \
        give every node the same secret with --peer-secret (`cell.peer_secret`), or accept that with --insecure \
        (`insecure = true`)"
    )]
    ExposedPeer {
        /// Which address.
        address: SocketAddr,
    },
    /// The secret of the cell cannot be used.
    #[error("the cell secret {} {message}", path.display())]
    Secret {
        /// Which file.
        path: PathBuf,
        /// What is wrong, and what to do.
        message: &'static str,
    },
    /// The secret of the cell cannot be read.
    #[error("cannot read the cell secret {0} (`head -c 32 /dev/urandom | base64 > {0}; chmod 600 {0}` makes one, which \
        every node of the cell needs)", path.display())]
    SecretUnreadable {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A value outside its range.
    #[error("`{key}`: {message}")]
    Value {
        /// Which key.
        key: &'static str,
        /// What is possible.
        message: &'static str,
    },
}

impl ConfigError {
    /// The exit code of a server that cannot start because of this: `EX_CONFIG`.
    pub const fn exit_code(&self) -> u8 {
        78
    }

    pub(super) const fn value(key: &'static str, message: &'static str) -> ConfigError {
        ConfigError::Value { key, message }
    }

    pub(super) fn syntax(path: &Path, text: &str, error: &toml::de::Error) -> ConfigError {
        let at = error.span().map_or(0, |span| span.start.min(text.len()));
        let before = text.get(..at).unwrap_or_default();
        let line_start = before.rfind('\n').map_or(0, |end| end + 1);
        let whole = text.get(line_start..).and_then(|rest| rest.lines().next()).unwrap_or_default();
        let key = whole.split_once('=').map_or("", |(key, _)| key.trim());
        let message = error.message().trim().replace('\n', "; ");
        let line = before.bytes().filter(|byte| *byte == b'\n').count() + 1;
        ConfigError::Syntax { path: path.to_path_buf(), line, key: key.to_string(), message }
    }
}

fn key_prefix(key: &str) -> String {
    if key.is_empty() { String::new() } else { format!("`{key}`: ") }
}
