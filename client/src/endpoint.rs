//! Where a server is: `unix:/path`, `tcp://host:port`, or several of them separated by commas.
//!
//! An endpoint is checked as text here, once; whether anybody answers there is for the one who dials. The order of a
//! list is the order in which its members are tried.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

/// The port a `tcp:` endpoint without one means.
pub(crate) const PORT_DEFAULT: u16 = 7411;
/// Where a server started by root listens when nobody said otherwise.
const SOCKET_OF_ROOT: &str = "/run/fairlock.sock";
/// Name of the socket below `$XDG_RUNTIME_DIR`.
const SOCKET_NAME: &str = "fairlock.sock";
/// Longest path of a Unix socket, in bytes: what `sockaddr_un` holds before its closing zero.
const SOCKET_PATH_BYTES_MAX: usize = 107;
/// Members of one endpoint list: a cell has three or five nodes.
const MEMBERS_MAX: usize = 16;

/// One or more places where a server (or the nodes of one cell) can be reached.
///
/// ```
/// let endpoint: fairlock::Endpoint = "tcp://10.0.0.1:7411,tcp://10.0.0.2:7411".parse()?;
/// assert_eq!(endpoint.addresses().len(), 2);
/// # Ok::<(), fairlock::EndpointError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    addresses: Vec<Address>,
}

/// One member of an [`Endpoint`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Address {
    /// A Unix socket on this host.
    Unix(PathBuf),
    /// A host name or address, and a port.
    Tcp {
        /// Host name, IPv4 address, or IPv6 address without its brackets.
        host: String,
        /// Port.
        port: u16,
    },
}

impl Endpoint {
    /// The socket a server listens on when nobody said otherwise: `/run/fairlock.sock` for root, else
    /// `$XDG_RUNTIME_DIR/fairlock.sock`.
    ///
    /// # Errors
    /// [`EndpointError::NoDefault`] for an ordinary user without `XDG_RUNTIME_DIR`.
    pub fn default_socket() -> Result<Endpoint, EndpointError> {
        if rustix::process::geteuid().is_root() {
            return Ok(Endpoint::unix(SOCKET_OF_ROOT));
        }
        let folder = std::env::var_os("XDG_RUNTIME_DIR").filter(|folder| !folder.is_empty());
        folder
            .map(|folder| Endpoint::unix(Path::new(&folder).join(SOCKET_NAME)))
            .ok_or(EndpointError::NoDefault)
    }

    /// A Unix socket.
    pub fn unix(path: impl Into<PathBuf>) -> Endpoint {
        Endpoint { addresses: vec![Address::Unix(path.into())] }
    }

    /// The members, in the order in which they are tried; never empty.
    pub fn addresses(&self) -> &[Address] {
        &self.addresses
    }
}

impl FromStr for Endpoint {
    type Err = EndpointError;

    fn from_str(text: &str) -> Result<Endpoint, EndpointError> {
        let addresses = text.split(',').map(|member| member.trim().parse()).collect::<Result<Vec<_>, _>>()?;
        if addresses.len() > MEMBERS_MAX {
            return Err(EndpointError::TooMany { members: addresses.len() });
        }
        Ok(Endpoint { addresses })
    }
}

impl FromStr for Address {
    type Err = EndpointError;

    fn from_str(text: &str) -> Result<Address, EndpointError> {
        if let Some(path) = text.strip_prefix("unix:") {
            let path = path.strip_prefix("//").unwrap_or(path);
            return match path.len() {
                0 => Err(EndpointError::NoPath),
                1..=SOCKET_PATH_BYTES_MAX => Ok(Address::Unix(PathBuf::from(path))),
                bytes => Err(EndpointError::PathTooLong { bytes }),
            };
        }
        if let Some(rest) = text.strip_prefix("tcp:") {
            let rest = rest.strip_prefix("//").unwrap_or(rest);
            return tcp(rest.strip_suffix('/').unwrap_or(rest), text);
        }
        if text.starts_with("tls:") {
            return Err(EndpointError::TlsUnsupported);
        }
        Err(EndpointError::UnknownScheme(text.to_owned()))
    }
}

/// `host`, `host:port`, `[v6]`, `[v6]:port`.
fn tcp(rest: &str, whole: &str) -> Result<Address, EndpointError> {
    let malformed = || EndpointError::BadAddress(whole.to_owned());
    let (host, port) = if let Some(bracketed) = rest.strip_prefix('[') {
        let (host, after) = bracketed.split_once(']').ok_or_else(malformed)?;
        match after {
            "" => (host, None),
            after => (host, Some(after.strip_prefix(':').ok_or_else(malformed)?)),
        }
    } else {
        match rest.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (rest, None),
        }
    };
    let port = match port {
        Some(port) => port.parse().map_err(|_| malformed())?,
        None => PORT_DEFAULT,
    };
    if host.is_empty() || port == 0 {
        return Err(malformed());
    }
    Ok(Address::Tcp { host: host.to_owned(), port })
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Address::Unix(path) => write!(f, "unix:{}", path.display()),
            Address::Tcp { host, port } if host.contains(':') => write!(f, "tcp://[{host}]:{port}"),
            Address::Tcp { host, port } => write!(f, "tcp://{host}:{port}"),
        }
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, address) in self.addresses.iter().enumerate() {
            write!(f, "{}{address}", if index == 0 { "" } else { "," })?;
        }
        Ok(())
    }
}

impl TryFrom<&str> for Endpoint {
    type Error = EndpointError;
    fn try_from(text: &str) -> Result<Endpoint, EndpointError> {
        text.parse()
    }
}

impl TryFrom<&String> for Endpoint {
    type Error = EndpointError;
    fn try_from(text: &String) -> Result<Endpoint, EndpointError> {
        text.parse()
    }
}

impl TryFrom<String> for Endpoint {
    type Error = EndpointError;
    fn try_from(text: String) -> Result<Endpoint, EndpointError> {
        text.parse()
    }
}

impl From<&Endpoint> for Endpoint {
    fn from(endpoint: &Endpoint) -> Endpoint {
        endpoint.clone()
    }
}

/// The text names no place.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum EndpointError {
    /// It begins with nothing known.
    #[error(
        "`{0}` is not an endpoint: it begins with unix: or tcp: (unix:/run/fairlock.sock, tcp://host:7411)"
    )]
    UnknownScheme(String),
    /// Host or port do not read.
    #[error("`{0}` is not an endpoint: a tcp endpoint is tcp://host:port, port from 1 to 65535")]
    BadAddress(String),
    /// `unix:` alone.
    #[error("`unix:` needs the path of a socket (unix:/run/fairlock.sock)")]
    NoPath,
    /// Longer than the system takes.
    #[error("the path of a unix socket has at most 107 bytes, this one has {bytes}")]
    PathTooLong {
        /// Its length.
        bytes: usize,
    },
    /// More members than a list may have.
    #[error("an endpoint list has at most 16 members, this one has {members}")]
    TooMany {
        /// How many.
        members: usize,
    },
    /// TLS is not offered yet.
    #[error(
        "tls: endpoints are not supported by this version; use tcp: inside a trusted network or a tunnel"
    )]
    TlsUnsupported,
    /// No endpoint was given and there is no default one.
    #[error("no endpoint given, and XDG_RUNTIME_DIR is not set; name one (FAIRLOCK_ENDPOINT=unix:/path)")]
    NoDefault,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<String, EndpointError> {
        text.parse::<Endpoint>().map(|endpoint| endpoint.to_string())
    }

    #[test]
    fn endpoints_read_back_as_they_were_written() {
        for text in ["unix:/run/fairlock.sock", "tcp://127.0.0.1:7411", "tcp://[::1]:80", "tcp://a:1,unix:/b"]
        {
            assert_eq!(read(text).as_deref(), Ok(text));
        }
        assert_eq!(read("tcp:host").as_deref(), Ok("tcp://host:7411"));
        assert_eq!(read("unix:///run/x").as_deref(), Ok("unix:/run/x"));
        assert_eq!(read(" tcp://a:1 , tcp://b:2 ").as_deref(), Ok("tcp://a:1,tcp://b:2"));
    }

    #[test]
    fn what_names_no_place_is_refused_with_what_would() {
        for text in
            ["", "host:7411", "tcp://", "tcp://:7411", "tcp://h:0", "tcp://h:x", "tcp://[::1", "tcp://[::1]x"]
        {
            assert!(read(text).is_err(), "{text:?}");
        }
        assert_eq!(read("tls://h:1"), Err(EndpointError::TlsUnsupported));
        assert_eq!(read("unix:"), Err(EndpointError::NoPath));
        assert_eq!(read("tcp://a,"), Err(EndpointError::UnknownScheme(String::new())));
        assert!(matches!(
            read(&format!("unix:/{}", "x".repeat(107))),
            Err(EndpointError::PathTooLong { bytes: 108 })
        ));
        assert!(matches!(read(&["tcp://a"; 17].join(",")), Err(EndpointError::TooMany { members: 17 })));
    }
}
