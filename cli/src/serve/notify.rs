//! Telling a service manager (`Type=notify`): one datagram to the socket named in `NOTIFY_SOCKET`. Written by hand,
//! because it is one datagram.

use std::ffi::OsStr;
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};

/// The server serves.
pub(crate) fn ready() {
    tell("READY=1");
}

/// The server has stopped serving.
pub(crate) fn stopping() {
    tell("STOPPING=1");
}

fn tell(state: &str) {
    let Some(socket) = std::env::var_os("NOTIFY_SOCKET").filter(|socket| !socket.is_empty()) else { return };
    if let Err(error) = send(&socket, state) {
        // The manager will say so too, when its patience ends; the server serves all the same.
        tracing::warn!(%error, "cannot tell the service manager {state}");
    }
}

/// A leading `@` means an abstract name.
fn send(socket: &OsStr, state: &str) -> io::Result<()> {
    let address = match socket.as_bytes() {
        [b'@', name @ ..] => SocketAddr::from_abstract_name(name)?,
        path => SocketAddr::from_pathname(OsStr::from_bytes(path))?,
    };
    UnixDatagram::unbound()?.send_to_addr(state.as_bytes(), &address)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_manager_behind_an_abstract_name_is_told() {
        let name = format!("fairlock-notify-test-{}", std::process::id());
        let address = SocketAddr::from_abstract_name(name.as_bytes()).expect("an address");
        let manager = UnixDatagram::bind_addr(&address).expect("bound");
        send(OsStr::new(&format!("@{name}")), "READY=1").expect("sent");
        let mut buffer = [0; 32];
        let length = manager.recv(&mut buffer).expect("received");
        assert_eq!(&buffer[..length], b"READY=1");
    }

    #[test]
    fn a_manager_that_is_not_there_is_an_error_and_no_more() {
        assert!(send(OsStr::new("/nowhere/at/all"), "READY=1").is_err());
    }
}
