//! A TCP line that can be cut: it forwards bytes both ways until told to hold them back, as a network does that has
//! lost its route. Nothing is reset, nothing is lost; what was held back goes on when the line is mended.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// How often a thread looks whether the line is cut or over.
const LOOK: Duration = Duration::from_millis(2);

#[derive(Debug, Default)]
struct Line {
    /// Stored by the test, loaded by the forwarding threads; no other memory depends on it.
    cut: AtomicBool,
    /// The same, once, at the end.
    over: AtomicBool,
}

/// A line to one server.
#[derive(Debug)]
pub struct Proxy {
    address: SocketAddr,
    line: Arc<Line>,
}

impl Proxy {
    /// A line to `server`, whole.
    ///
    /// # Panics
    /// When loopback has no free port.
    pub fn to(server: SocketAddr) -> Proxy {
        let listener = TcpListener::bind("127.0.0.1:0").expect("loopback has a free port");
        let address = listener.local_addr().expect("a bound socket has an address");
        listener.set_nonblocking(true).expect("a listener can be nonblocking");
        let line = Arc::new(Line::default());
        let accepting = line.clone();
        std::thread::spawn(move || {
            while !accepting.over.load(Ordering::Relaxed) {
                let Ok((client, _)) = listener.accept() else {
                    std::thread::sleep(LOOK);
                    continue;
                };
                let Ok(server) = TcpStream::connect(server) else { continue };
                forward(&client, &server, &accepting);
                forward(&server, &client, &accepting);
            }
        });
        Proxy { address, line }
    }

    /// The endpoint that leads through the line.
    pub fn endpoint(&self) -> String {
        format!("tcp://{}", self.address)
    }

    /// From now on nothing passes.
    pub fn cut(&self) {
        self.line.cut.store(true, Ordering::Relaxed);
    }

    /// From now on everything passes again.
    pub fn mend(&self) {
        self.line.cut.store(false, Ordering::Relaxed);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.line.over.store(true, Ordering::Relaxed);
    }
}

fn forward(from: &TcpStream, to: &TcpStream, line: &Arc<Line>) {
    let (Ok(mut from), Ok(mut to)) = (from.try_clone(), to.try_clone()) else { return };
    let line = line.clone();
    let _ = from.set_nonblocking(false);
    let _ = (from.set_nodelay(true), to.set_nodelay(true));
    let _ = from.set_read_timeout(Some(LOOK));
    std::thread::spawn(move || {
        let mut bytes = [0; 16 * 1024];
        while !line.over.load(Ordering::Relaxed) {
            let length = match from.read(&mut bytes) {
                Ok(0) => break,
                Ok(length) => length,
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => continue,
                Err(_) => break,
            };
            while line.cut.load(Ordering::Relaxed) && !line.over.load(Ordering::Relaxed) {
                std::thread::sleep(LOOK);
            }
            if to.write_all(&bytes[..length]).is_err() {
                break;
            }
        }
        let _ = to.shutdown(std::net::Shutdown::Write);
    });
}
