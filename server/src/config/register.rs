//! Where a cell's configuration lives, and how a server shows there who it is.

use std::path::PathBuf;
use std::time::Duration;

use serde::Deserialize;

use super::ConfigError;
use super::describe::{Page, quoted};
use super::values::{self, write_duration};
use crate::register::Place;

/// Limit of one ask of the register, when it is not told another.
const TIMEOUT_DEFAULT: Duration = Duration::from_secs(1);
/// Shortest limit that makes sense: etcd writes to its disk, and to a majority of its members.
const TIMEOUT_MIN: Duration = Duration::from_millis(50);
/// Longest: a node without an answer cannot take over meanwhile.
const TIMEOUT_MAX: Duration = Duration::from_mins(1);

/// How to reach the register.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct RegisterConfig {
    /// `etcd://host:port,…`, `etcds://…` or `file:/directory`; `None`: this server is alone.
    pub url: Option<String>,
    /// PEM file with the certificates that may have signed etcd's.
    pub ca: Option<PathBuf>,
    /// PEM file with the certificate that is shown to etcd.
    pub cert: Option<PathBuf>,
    /// PEM file with its private key.
    pub key: Option<PathBuf>,
    /// User of etcd.
    pub user: Option<String>,
    /// File with the user's password.
    pub password_file: Option<PathBuf>,
    /// Limit of one ask.
    #[serde(deserialize_with = "values::duration")]
    pub timeout: Duration,
}

impl Default for RegisterConfig {
    fn default() -> RegisterConfig {
        let timeout = TIMEOUT_DEFAULT;
        RegisterConfig {
            url: None,
            ca: None,
            cert: None,
            key: None,
            user: None,
            password_file: None,
            timeout,
        }
    }
}

impl RegisterConfig {
    /// Whether a register can be reached so. Files are not looked at.
    pub(super) fn check(&self) -> Result<(), ConfigError> {
        let place = self.url.as_deref().map(Place::parse).transpose();
        let place = place.map_err(|bad| ConfigError::value("register.url", bad.0))?;
        let (etcd, tls) = match place {
            Some(Place::Etcd { tls, .. }) => (true, tls),
            Some(Place::File(_)) => (false, false),
            None => return self.check_alone(),
        };
        let only_tls = "is used by `etcds://` only";
        let rules = [
            ("register.ca", tls || self.ca.is_none(), only_tls),
            ("register.cert", tls || self.cert.is_none(), only_tls),
            ("register.key", tls || self.key.is_none(), only_tls),
            (
                "register.ca",
                !tls || self.ca.is_some(),
                "`etcds://` needs the certificate that has signed etcd's",
            ),
            ("register.cert", self.cert.is_some() || self.key.is_none(), "a key needs its certificate"),
            ("register.key", self.key.is_some() || self.cert.is_none(), "a certificate needs its key"),
            ("register.user", etcd || self.user.is_none(), "is used by etcd only"),
            (
                "register.user",
                self.user.is_some() || self.password_file.is_none(),
                "a password needs its user",
            ),
            (
                "register.password_file",
                self.password_file.is_some() || self.user.is_none(),
                "a user needs a password",
            ),
        ];
        self.check_timeout()?;
        let broken = rules.into_iter().find(|(_, holds, _)| !holds);
        broken.map_or(Ok(()), |(key, _, message)| Err(ConfigError::value(key, message)))
    }

    /// What is said about a register that is not named was meant for one that is.
    fn check_alone(&self) -> Result<(), ConfigError> {
        let files = [&self.ca, &self.cert, &self.key, &self.password_file];
        if self.user.is_some() || files.iter().any(|file| file.is_some()) {
            return Err(ConfigError::value("register.url", "is missing; the other keys say how to reach it"));
        }
        self.check_timeout()
    }

    fn check_timeout(&self) -> Result<(), ConfigError> {
        let possible = (TIMEOUT_MIN..=TIMEOUT_MAX).contains(&self.timeout);
        if possible { Ok(()) } else { Err(ConfigError::value("register.timeout", "50ms to 1m is possible")) }
    }

    pub(super) fn describe(&self, page: &mut Page, default: &RegisterConfig) {
        page.line("\n# Where the nodes of a cell agree on who is primary.\n[register]");
        let meaning =
            "\"etcd://host:port,host:port\", \"etcds://...\" (TLS) or \"file:/directory\" (one node)";
        let url = self.url.as_ref().map(quoted);
        page.optional("url", meaning, "none: this server is alone", url, "\"etcd://127.0.0.1:2379\"");
        let path = |path: &Option<PathBuf>| path.as_ref().map(|path| quoted(path.display()));
        let meaning = "PEM file with the certificates that may have signed etcd's; etcds only";
        page.optional("ca", meaning, "none", path(&self.ca), "\"/etc/fairlock/etcd-ca.pem\"");
        let meaning = "PEM file with the certificate that is shown to etcd; etcds only";
        page.optional("cert", meaning, "none", path(&self.cert), "\"/etc/fairlock/etcd.pem\"");
        let meaning = "PEM file with its private key; etcds only";
        page.optional("key", meaning, "none", path(&self.key), "\"/etc/fairlock/etcd.key\"");
        let meaning = "user of etcd, where etcd has users";
        page.optional("user", meaning, "none", self.user.as_ref().map(quoted), "\"fairlock\"");
        let meaning = "file with the user's password; a line end behind it does not count";
        let (file, example) = (path(&self.password_file), "\"/etc/fairlock/etcd.password\"");
        page.optional("password_file", meaning, "none", file, example);
        let timeout = |config: &RegisterConfig| quoted(write_duration(config.timeout));
        page.key("timeout", "limit of one ask of the register, 50ms to 1m, duration", timeout, self, default);
    }
}
