//! The way to a server: which endpoint is meant, what an unreachable one is told as, which name the bytes mean.

use crate::args::{Reach, TransportWord};
use crate::failure::{self, Failure};
use fairlock::admin::Admin;
use fairlock::{Address, AdminError, ConnectError, Endpoint, Transport};
use fairlock_protocol::name::Resource;
use std::error::Error;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

/// The endpoint that is meant: the one named, else the default socket.
///
/// # Errors
/// 64 for a text that is no endpoint or a transport that does not fit it, 69 when there is no default.
pub(crate) fn endpoint(reach: &Reach) -> Result<Endpoint, Failure> {
    let endpoint = match reach.endpoint.as_deref().filter(|text| !text.trim().is_empty()) {
        Some(text) => text.parse().map_err(|error| Failure::new(failure::USAGE, format!("{error}")))?,
        None => {
            Endpoint::default_socket().map_err(|error| Failure::new(failure::NO_SERVER, error.to_string()))?
        }
    };
    let misfit = match reach.transport {
        None => None,
        Some(TransportWord::Tcp) => endpoint.addresses().iter().find(|address| !is_tcp(address)),
        Some(TransportWord::Shm | TransportWord::Unix) => {
            endpoint.addresses().iter().find(|address| !is_unix(address))
        }
    };
    match misfit {
        Some(address) => {
            let text = format!("the transport asked for cannot reach {address}");
            let advice = "shm and unix need a unix: endpoint, tcp needs tcp://host:port";
            Err(Failure::new(failure::USAGE, text).advise(advice))
        }
        None => Ok(endpoint),
    }
}

/// Whether every member of the list is a Unix socket: only then a pipe can keep the session.
pub(crate) fn is_local(endpoint: &Endpoint) -> bool {
    endpoint.addresses().iter().all(is_unix)
}

fn is_unix(address: &Address) -> bool {
    matches!(address, Address::Unix(_))
}

fn is_tcp(address: &Address) -> bool {
    matches!(address, Address::Tcp { .. })
}

/// The transport to ask the library for.
pub(crate) fn transport(reach: &Reach) -> Transport {
    match reach.transport {
        None => Transport::Auto,
        Some(TransportWord::Shm) => Transport::Shm,
        Some(TransportWord::Unix) => Transport::Unix,
        Some(TransportWord::Tcp) => Transport::Tcp,
    }
}

/// A connection for questions.
///
/// # Errors
/// As [`endpoint`], and what [`of_connect`] makes of the rest.
pub(crate) fn admin(reach: &Reach) -> Result<Admin, Failure> {
    Admin::connect(endpoint(reach)?, reach.deadline).map_err(|error| of_connect(&error))
}

/// The bytes of a name, checked here because a wrong one is a usage error whether or not a server runs.
///
/// # Errors
/// 64.
pub(crate) fn name<'a>(namespace: &str, name: &'a OsStr) -> Result<&'a [u8], Failure> {
    let bytes = name.as_bytes();
    match Resource::new(namespace.as_bytes(), bytes) {
        Ok(_) => Ok(bytes),
        Err(refusal) => Err(Failure::new(failure::USAGE, format!("bad name: {}", refusal.advice()))),
    }
}

/// What a failed connection is told as.
pub(crate) fn of_connect(error: &ConnectError) -> Failure {
    let code = match error {
        ConnectError::Endpoint(_) | ConnectError::Unsupported(_) => failure::USAGE,
        ConnectError::Refused { refusal, .. } => failure::code_of(*refusal),
        ConnectError::System { .. } => failure::INTERNAL,
        _ => failure::NO_SERVER,
    };
    Failure::new(code, with_sources(error))
}

/// What a failed question is told as.
pub(crate) fn of_admin(error: &AdminError) -> Failure {
    match error {
        AdminError::Refused(refusal) => Failure::refused(*refusal, ""),
        AdminError::Explained { refusal, detail } => Failure::new(failure::code_of(*refusal), detail.clone()),
        AdminError::Connection(error) => of_connect(error),
        other => Failure::new(failure::INTERNAL, with_sources(other)),
    }
}

/// An error and what is behind it, on one line.
pub(crate) fn with_sources(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut behind = error.source();
    while let Some(source) = behind {
        let more = source.to_string();
        if !text.contains(&more) {
            text.push_str(": ");
            text.push_str(&more);
        }
        behind = source.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn reach(endpoint: &str, transport: Option<TransportWord>) -> Reach {
        let deadline = Duration::from_secs(1);
        Reach { endpoint: Some(endpoint.to_owned()), transport, json: false, deadline }
    }

    #[test]
    fn a_transport_must_fit_the_endpoint() {
        let code = |text, transport| endpoint(&reach(text, transport)).map_err(|failure| failure.code);
        assert_eq!(code("unix:/x", Some(TransportWord::Tcp)), Err(64));
        assert_eq!(code("tcp://h:1", Some(TransportWord::Shm)), Err(64));
        assert_eq!(code("tcp://h:1", Some(TransportWord::Unix)), Err(64));
        assert_eq!(code("nonsense", None), Err(64));
        assert!(code("tcp://h:1,tcp://i:2", Some(TransportWord::Tcp)).is_ok());
        assert!(code("unix:/x", None).is_ok());
    }

    #[test]
    fn a_bad_name_is_a_usage_error() {
        assert_eq!(name("default", OsStr::new("")).map_err(|f| f.code), Err(64));
        assert_eq!(name("Upper", OsStr::new("a")).map_err(|f| f.code), Err(64));
        assert_eq!(name("default", OsStr::from_bytes(&[b'x'; 1025])).map_err(|f| f.code), Err(64));
        assert!(name("default", OsStr::from_bytes(b"\xff\x00")).is_ok());
    }
}
