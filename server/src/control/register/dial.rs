//! A connection to one endpoint, on which every wait has an end.
//!
//! Looking a name up cannot be interrupted, so a thread of its own does it; while it hangs, the addresses of the last
//! time are used, so that a register outlives its name server.

use std::io::{self, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream, ToSocketAddrs};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, StreamOwned};

use super::place::Endpoint;

/// How long a name is looked up before the addresses of the last time are used.
const LOOKUP_PATIENCE: Duration = Duration::from_millis(200);

/// A socket whose reads and writes end at a moment.
#[derive(Debug)]
struct Socket {
    tcp: TcpStream,
    deadline: Instant,
}

impl Socket {
    fn left(&self) -> io::Result<Option<Duration>> {
        let left = self.deadline.saturating_duration_since(Instant::now());
        if left.is_zero() { Err(io::ErrorKind::TimedOut.into()) } else { Ok(Some(left)) }
    }
}

/// A socket that waited long enough says so as one that was asked not to wait.
fn as_late(error: io::Error) -> io::Error {
    if error.kind() == io::ErrorKind::WouldBlock { io::ErrorKind::TimedOut.into() } else { error }
}

impl Read for Socket {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        self.tcp.set_read_timeout(self.left()?)?;
        self.tcp.read(bytes).map_err(as_late)
    }
}

impl Write for Socket {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.tcp.set_write_timeout(self.left()?)?;
        self.tcp.write(bytes).map_err(as_late)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A connection to an endpoint.
#[derive(Debug)]
pub(super) struct Stream(Kind);

#[derive(Debug)]
enum Kind {
    Plain(Socket),
    Tls(Box<StreamOwned<ClientConnection, Socket>>),
}

impl Stream {
    fn socket(&mut self) -> &mut Socket {
        match &mut self.0 {
            Kind::Plain(socket) => socket,
            Kind::Tls(stream) => &mut stream.sock,
        }
    }

    /// Reads and writes end at this moment from now on.
    pub(super) fn set_deadline(&mut self, deadline: Instant) {
        self.socket().deadline = deadline;
    }

    /// A second handle on its socket, to cut it off from elsewhere.
    ///
    /// # Errors
    /// No descriptor is left.
    pub(super) fn handle(&mut self) -> io::Result<TcpStream> {
        self.socket().tcp.try_clone()
    }
}

impl Read for Stream {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        match &mut self.0 {
            Kind::Plain(socket) => socket.read(bytes),
            Kind::Tls(stream) => stream.read(bytes),
        }
    }
}

impl Write for Stream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match &mut self.0 {
            Kind::Plain(socket) => socket.write(bytes),
            Kind::Tls(stream) => stream.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match &mut self.0 {
            Kind::Plain(socket) => socket.flush(),
            Kind::Tls(stream) => stream.flush(),
        }
    }
}

/// Makes connections to one endpoint.
#[derive(Debug)]
pub(super) struct Dialer {
    endpoint: Endpoint,
    tls: Option<Arc<ClientConfig>>,
    /// Addresses of the last time.
    known: Vec<SocketAddr>,
    /// A look-up that is under way.
    lookup: Option<mpsc::Receiver<io::Result<Vec<SocketAddr>>>>,
}

impl Dialer {
    /// For this endpoint.
    pub(super) fn new(endpoint: Endpoint, tls: Option<Arc<ClientConfig>>) -> Dialer {
        let literal = endpoint.host.parse::<IpAddr>().ok();
        let known = literal.map(|address| SocketAddr::new(address, endpoint.port)).into_iter().collect();
        Dialer { endpoint, tls, known, lookup: None }
    }

    /// Which endpoint.
    pub(super) const fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// A connection on which the handshake is done; nothing was asked on it.
    ///
    /// # Errors
    /// Why there is none.
    pub(super) fn connect(&mut self, deadline: Instant) -> io::Result<Stream> {
        let tcp = self.tcp(deadline)?;
        tcp.set_nodelay(true)?;
        let mut socket = Socket { tcp, deadline };
        let Some(tls) = self.tls.clone() else { return Ok(Stream(Kind::Plain(socket))) };
        let name = ServerName::try_from(self.endpoint.host.clone()).map_err(io::Error::other)?;
        let mut connection = ClientConnection::new(tls, name).map_err(io::Error::other)?;
        while connection.is_handshaking() {
            connection.complete_io(&mut socket)?;
        }
        Ok(Stream(Kind::Tls(Box::new(StreamOwned::new(connection, socket)))))
    }

    /// The first of its addresses that answers; each has its part of the time.
    fn tcp(&mut self, deadline: Instant) -> io::Result<TcpStream> {
        let addresses = self.addresses(deadline)?;
        let mut failed = io::Error::from(io::ErrorKind::NotFound);
        for (at, address) in addresses.iter().enumerate() {
            let left = deadline.saturating_duration_since(Instant::now());
            let part = left / u32::try_from(addresses.len() - at).unwrap_or(u32::MAX);
            if part.is_zero() {
                return Err(io::ErrorKind::TimedOut.into());
            }
            match TcpStream::connect_timeout(address, part) {
                Ok(tcp) => return Ok(tcp),
                Err(error) => failed = error,
            }
        }
        Err(failed)
    }

    fn addresses(&mut self, deadline: Instant) -> io::Result<Vec<SocketAddr>> {
        if self.endpoint.host.parse::<IpAddr>().is_ok() {
            return Ok(self.known.clone());
        }
        let lookup = match self.lookup.take() {
            Some(under_way) => under_way,
            None => look_up(self.endpoint.clone())?,
        };
        let left = deadline.saturating_duration_since(Instant::now());
        let patience = if self.known.is_empty() { left } else { left.min(LOOKUP_PATIENCE) };
        match lookup.recv_timeout(patience) {
            Ok(Ok(found)) if !found.is_empty() => self.known = found,
            Ok(Err(error)) if self.known.is_empty() => return Err(error),
            Ok(_) | Err(mpsc::RecvTimeoutError::Disconnected) => {}
            // One at a time: the next ask waits for the same one.
            Err(mpsc::RecvTimeoutError::Timeout) => self.lookup = Some(lookup),
        }
        if self.known.is_empty() {
            return Err(io::Error::new(io::ErrorKind::NotFound, "its name has no address"));
        }
        Ok(self.known.clone())
    }
}

/// Looks a name up on a thread of its own.
fn look_up(endpoint: Endpoint) -> io::Result<mpsc::Receiver<io::Result<Vec<SocketAddr>>>> {
    let (sender, receiver) = mpsc::channel();
    std::thread::Builder::new().name("register-name".into()).spawn(move || {
        let found = (endpoint.host.as_str(), endpoint.port).to_socket_addrs();
        // Nobody may be waiting any more.
        let _ = sender.send(found.map(Iterator::collect));
    })?;
    Ok(receiver)
}
