//! What a server is told: defaults that run alone with no configuration, a TOML file, and what the command line puts
//! over it. A key nobody knows is refused, because a misspelt limit that is silently ignored is worse than no start.
//!
//! `Config` is plain data. Only [`Config::check`] decides whether it may be used, so that file, flags and a program
//! that embeds a server meet the same rules.

mod cell;
mod describe;
mod error;
mod namespaces;
mod register;
#[cfg(test)]
mod tests;
mod values;

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use fairlock_locktable::NamespaceRules;
use fairlock_protocol::limits;
use serde::Deserialize;

pub use cell::{CellConfig, ProfileChoice};
pub use error::ConfigError;
pub use namespaces::NamespaceConfig;
pub use register::RegisterConfig;
pub use values::{NotADuration, parse_duration};

/// The port of a server that is not told another.
pub const PORT_DEFAULT: u16 = 7411;
/// Most shards a server can have: a session id has 8 bits for its home.
pub const SHARDS_MAX: u16 = 256;
/// How long holders have to release when a server is asked to stop.
pub const DRAIN_DEFAULT: Duration = Duration::from_secs(5);

/// Everything a server can be told.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct Config {
    /// TCP addresses to listen on; port 0 picks one. Empty: no TCP.
    pub listen: Vec<SocketAddr>,
    /// Unix socket; `None`: no Unix socket. In a file the empty text means none.
    #[serde(deserialize_with = "values::path_or_none")]
    pub socket: Option<PathBuf>,
    /// Permission bits of the Unix socket.
    #[serde(deserialize_with = "values::mode")]
    pub socket_mode: u32,
    /// Group of the Unix socket, by name or number; `None`: that of the process.
    pub socket_group: Option<String>,
    /// Shard threads; `None`: one a core, left after one for control.
    pub shards: Option<u16>,
    /// Where epoch and longest lease are remembered; `None`: [`crate::state::default_directory`].
    pub state_dir: Option<PathBuf>,
    /// How sockets are driven.
    pub io: IoChoice,
    /// Whether idle shards look for work without sleeping.
    pub poll: Poll,
    /// Whether each shard thread stays on a core of its own.
    pub pin: bool,
    /// Address of /metrics and /healthz; `None`: not served.
    pub admin: Option<SocketAddr>,
    /// How long holders have to release when the server is asked to stop.
    #[serde(deserialize_with = "values::duration")]
    pub drain: Duration,
    /// Listen without authentication beyond loopback.
    pub insecure: bool,
    /// Longest lease granted.
    #[serde(deserialize_with = "values::duration")]
    pub ttl_max: Duration,
    /// Answer to SIGTERM and SIGINT. Not in a file: the program decides, and one that embeds a server keeps its own.
    #[serde(skip)]
    pub signals: bool,
    /// What clients may use up.
    pub limits: Limits,
    /// Where the configuration of the cell lives.
    pub register: RegisterConfig,
    /// Queue disciplines, by namespace; one that is not named is strict.
    #[serde(rename = "namespace")]
    pub namespaces: BTreeMap<String, NamespaceConfig>,
    /// The cell this node belongs to, when others share its state.
    pub cell: CellConfig,
}

/// What clients may use up, by shard unless said otherwise. Reaching one is a counted refusal.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct Limits {
    /// Sessions of one shard.
    pub sessions: u32,
    /// Grants and waits of one session on one shard.
    pub locks_per_session: u32,
    /// Waiters of one resource.
    pub waiters_per_resource: u32,
    /// Grants of one shard that may stay with one client on this host between two holds; 0 for none.
    pub cached_grants: usize,
    /// Connections of one shard that have shown no session yet; the oldest silent one goes first. The Unix socket's
    /// door counts its own.
    pub unbound_connections: usize,
    /// The same from one address.
    pub unbound_connections_per_address: usize,
    /// Bytes waiting to be written to one connection, beyond which it is dropped, never its locks.
    pub write_backlog_bytes: usize,
}

/// How sockets are driven.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum IoChoice {
    /// `io_uring` where the kernel lets us, else epoll.
    #[default]
    Auto,
    /// `io_uring` or no start.
    Uring,
    /// epoll.
    Epoll,
}

/// Whether idle shards look for work without sleeping.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Poll {
    /// Never sleep: lowest latency, a core a shard.
    Always,
    /// For a calibrated while before each sleep, and only with cores to spare.
    #[default]
    Auto,
    /// Sleep at once.
    Never,
}

impl Default for Config {
    fn default() -> Config {
        Config {
            listen: vec![SocketAddr::from((Ipv4Addr::LOCALHOST, PORT_DEFAULT))],
            socket: default_socket(),
            socket_mode: 0o660,
            socket_group: None,
            shards: None,
            state_dir: None,
            io: IoChoice::Auto,
            poll: Poll::Auto,
            pin: false,
            admin: None,
            drain: DRAIN_DEFAULT,
            insecure: false,
            ttl_max: limits::TTL_CELL_MAX,
            signals: false,
            limits: Limits::default(),
            register: RegisterConfig::default(),
            namespaces: BTreeMap::new(),
            cell: CellConfig::default(),
        }
    }
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            sessions: limits::SESSIONS_MAX,
            locks_per_session: limits::LOCKS_PER_SESSION_MAX,
            waiters_per_resource: limits::WAITERS_PER_RESOURCE_MAX,
            cached_grants: fairlock_shm::segment::WORDS,
            unbound_connections: limits::UNBOUND_CONNECTIONS_MAX,
            unbound_connections_per_address: limits::UNBOUND_CONNECTIONS_PER_ADDRESS_MAX,
            write_backlog_bytes: limits::WRITE_BACKLOG_BYTES_MAX,
        }
    }
}

/// The socket of a server that is not told another: `/run/fairlock.sock` as root, else `fairlock.sock` in
/// `$XDG_RUNTIME_DIR`, else none.
pub fn default_socket() -> Option<PathBuf> {
    if rustix::process::geteuid().is_root() {
        return Some(PathBuf::from("/run/fairlock.sock"));
    }
    let directory = PathBuf::from(std::env::var_os("XDG_RUNTIME_DIR")?);
    directory.is_absolute().then(|| directory.join("fairlock.sock"))
}

impl Config {
    /// Reads a TOML file; keys it does not have keep their defaults. Call [`Config::check`] when everything is known.
    ///
    /// # Errors
    /// [`ConfigError`], with file, line and key.
    pub fn load(path: &Path) -> Result<Config, ConfigError> {
        let text = std::fs::read_to_string(path)
            .map_err(|source| ConfigError::Unreadable { path: path.to_path_buf(), source })?;
        Config::parse(path, &text)
    }

    fn parse(path: &Path, text: &str) -> Result<Config, ConfigError> {
        toml::from_str(text).map_err(|error| ConfigError::syntax(path, text, &error))
    }

    /// Whether a server may run so.
    ///
    /// # Errors
    /// [`ConfigError`], naming the key and what to do.
    pub fn check(&self) -> Result<(), ConfigError> {
        if self.listen.is_empty() && self.socket.is_none() {
            return Err(ConfigError::value(
                "listen",
                "neither a TCP address nor a Unix socket is left to listen on",
            ));
        }
        if !self.insecure {
            let exposed = self.listen.iter().find(|address| !address.ip().is_loopback());
            if let Some(address) = exposed {
                return Err(ConfigError::Exposed { key: "listen", address: *address });
            }
            if let Some(address) = self.admin.filter(|address| !address.ip().is_loopback()) {
                return Err(ConfigError::Exposed { key: "admin", address });
            }
        }
        if self.shards.is_some_and(|shards| shards == 0 || shards > SHARDS_MAX) {
            return Err(ConfigError::value("shards", "1 to 256 shards are possible"));
        }
        if !(limits::TTL_MIN..=limits::TTL_MAX).contains(&self.ttl_max) {
            return Err(ConfigError::value("ttl_max", "a lease has 200ms to 1h"));
        }
        if self.socket_mode & !0o777 != 0 {
            return Err(ConfigError::value("socket_mode", "permission bits are 0000 to 0777, in octal"));
        }
        namespaces::check(&self.namespaces)?;
        self.register.check()?;
        self.cell.check(&self.listen, self.register.url.is_some(), self.insecure)?;
        self.limits.check()
    }

    /// The limits of one shard's lock table.
    pub(crate) fn table_limits(&self) -> fairlock_locktable::Limits {
        let Limits { sessions, locks_per_session, waiters_per_resource, .. } = self.limits;
        fairlock_locktable::Limits {
            locks_per_session,
            sessions,
            waiters_per_resource,
            ..fairlock_locktable::Limits::default()
        }
    }

    /// The queue disciplines of the lock tables.
    pub(crate) fn table_rules(&self) -> NamespaceRules {
        namespaces::rules(&self.namespaces)
    }

    /// Whether the choice to listen without authentication is used: to be logged at every start.
    pub fn is_exposed(&self) -> bool {
        let peers = self.cell.peer_listen.as_ref().filter(|_| self.cell.peer_secret.is_none());
        self.listen.iter().chain(&self.admin).chain(peers).any(|address| !address.ip().is_loopback())
    }
}

impl Limits {
    fn check(&self) -> Result<(), ConfigError> {
        let counts = [
            ("limits.locks_per_session", u64::from(self.locks_per_session)),
            ("limits.waiters_per_resource", u64::from(self.waiters_per_resource)),
            ("limits.unbound_connections", self.unbound_connections as u64),
            ("limits.unbound_connections_per_address", self.unbound_connections_per_address as u64),
        ];
        for (key, count) in counts {
            if count == 0 || count > u64::from(u32::MAX / 2) {
                return Err(ConfigError::value(key, "1 to 2147483647 is possible"));
            }
        }
        // Handles of the lock table have 24 bits for a session.
        if self.sessions == 0 || self.sessions > 1 << 24 {
            return Err(ConfigError::value("limits.sessions", "1 to 16777216 is possible"));
        }
        if self.cached_grants > fairlock_shm::segment::WORDS {
            return Err(ConfigError::value("limits.cached_grants", "0 to 4096 is possible"));
        }
        if self.write_backlog_bytes < 2 * limits::FRAME_BYTES_MAX {
            return Err(ConfigError::value(
                "limits.write_backlog_bytes",
                "two frames (131072 bytes) must fit",
            ));
        }
        Ok(())
    }
}
