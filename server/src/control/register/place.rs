//! Where a register is, as an operator writes it: `etcd://host:port,host:port`, `etcds://…` for TLS, `file:/directory`.

use std::fmt;
use std::path::PathBuf;

/// The port of an etcd that is named without one.
const ETCD_PORT: u16 = 2379;
/// Most endpoints: an etcd cluster has seven members at most.
const ENDPOINTS_MAX: usize = 16;
/// Longest host name there can be, in bytes.
const HOST_BYTES_MAX: usize = 253;

/// Where a register is.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Place {
    /// In an etcd cluster.
    Etcd {
        /// Its members, in the order in which they are tried first.
        endpoints: Vec<Endpoint>,
        /// Through TLS.
        tls: bool,
    },
    /// In a directory of this machine: for one node alone.
    File(PathBuf),
}

/// One member of an etcd cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// Name or address, without brackets.
    pub host: String,
    /// Its port for clients.
    pub port: u16,
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Endpoint { host, port } = self;
        if host.contains(':') { write!(f, "[{host}]:{port}") } else { write!(f, "{host}:{port}") }
    }
}

/// The text names no place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BadPlace(pub &'static str);

impl fmt::Display for BadPlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

impl std::error::Error for BadPlace {}

impl Place {
    /// The place that is written so.
    ///
    /// # Errors
    /// [`BadPlace`], saying what is possible.
    pub fn parse(url: &str) -> Result<Place, BadPlace> {
        if let Some(path) = url.strip_prefix("file:") {
            let path = PathBuf::from(path);
            let absolute = path.is_absolute().then_some(Place::File(path));
            return absolute.ok_or(BadPlace("a register in a directory is `file:/directory`"));
        }
        let (list, tls) = match (url.strip_prefix("etcd://"), url.strip_prefix("etcds://")) {
            (Some(list), _) => (list, false),
            (None, Some(list)) => (list, true),
            (None, None) => {
                return Err(BadPlace(
                    "a register is `etcd://host:port,host:port`, `etcds://…` or `file:/directory`",
                ));
            }
        };
        let endpoints: Option<Vec<Endpoint>> = list.trim_end_matches('/').split(',').map(endpoint).collect();
        let endpoints =
            endpoints.ok_or(BadPlace("an etcd endpoint is `host:port`, several separated by commas"))?;
        if endpoints.len() > ENDPOINTS_MAX {
            return Err(BadPlace("at most 16 etcd endpoints are possible"));
        }
        Ok(Place::Etcd { endpoints, tls })
    }
}

/// `host`, `host:port`, `[address]` or `[address]:port`.
fn endpoint(text: &str) -> Option<Endpoint> {
    let (host, port) = if let Some(text) = text.strip_prefix('[') {
        let (host, port) = text.split_once(']')?;
        host.parse::<std::net::Ipv6Addr>().ok()?;
        (host, if port.is_empty() { None } else { Some(port.strip_prefix(':')?) })
    } else {
        let (host, port) = text.split_once(':').map_or((text, None), |(host, port)| (host, Some(port)));
        let good = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
        if !(1..=HOST_BYTES_MAX).contains(&host.len()) || !host.bytes().all(good) {
            return None;
        }
        (host, port)
    };
    let digits = |port: &&str| port.bytes().all(|byte| byte.is_ascii_digit());
    let port = match port {
        None => ETCD_PORT,
        Some(port) => Some(port).filter(digits)?.parse().ok().filter(|port| *port > 0)?,
    };
    Some(Endpoint { host: host.to_owned(), port })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_operator_writes_is_understood() {
        let endpoints = |url: &str| match Place::parse(url) {
            Ok(Place::Etcd { endpoints, tls }) => {
                (endpoints.iter().map(ToString::to_string).collect::<Vec<_>>().join(" "), tls)
            }
            other => panic!("{url}: {other:?}"),
        };
        assert_eq!(endpoints("etcd://h1:2379,h2:99"), ("h1:2379 h2:99".to_owned(), false));
        assert_eq!(endpoints("etcds://e.example/"), ("e.example:2379".to_owned(), true));
        assert_eq!(
            endpoints("etcd://[::1]:1,[fd00::2],10.0.0.1"),
            ("[::1]:1 [fd00::2]:2379 10.0.0.1:2379".to_owned(), false)
        );
        assert_eq!(Place::parse("file:/var/lib/x"), Ok(Place::File("/var/lib/x".into())));
    }

    #[test]
    fn what_names_no_place_is_refused_with_advice() {
        for (url, advice) in [
            ("", "etcds://"),
            ("http://h:1", "etcds://"),
            ("etcd:h:1", "etcds://"),
            ("etcd://", "host:port"),
            ("etcd://h:1,", "host:port"),
            ("etcd://h:0", "host:port"),
            ("etcd://h:65536", "host:port"),
            ("etcd://h:+1", "host:port"),
            ("etcd://u@h:1", "host:port"),
            ("etcd://h:1/x", "host:port"),
            ("etcd://[::1", "host:port"),
            ("etcd://[h]:1", "host:port"),
            ("etcd://::1", "host:port"),
            ("etcd://h h:1", "host:port"),
            ("file:", "file:/directory"),
            ("file:relative", "file:/directory"),
            ("etcd://a,a,a,a,a,a,a,a,a,a,a,a,a,a,a,a,a", "16"),
        ] {
            let error = Place::parse(url).unwrap_err().to_string();
            assert!(error.contains(advice), "{url}: {error}");
        }
    }
}
