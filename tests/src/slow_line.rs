//! A TCP line that can be made slow while bytes are on their way: each chunk arrives so much later than it came, and some
//! of them later still. It stands in the network of whoever is behind it. Where nobody is, callers are reset, as the
//! kernel would.

use crate::network::within;
use crate::random::Random;
use rustix::net::sockopt::set_socket_linger;
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc;
use std::time::{Duration, Instant};

/// How often a thread looks whether the line is over.
const LOOK: Duration = Duration::from_millis(20);

/// All are stored by the test and loaded by the forwarding threads; no other memory depends on them.
#[derive(Debug, Default)]
struct Line {
    delay_us: AtomicU64,
    jitter_us: AtomicU64,
    over: AtomicBool,
}

/// A line to one server.
#[derive(Debug)]
pub struct SlowLine(Arc<Line>);

impl SlowLine {
    /// A line from one address to another, both in this network, quick as yet.
    ///
    /// # Panics
    /// When the address is taken.
    pub fn new(network: &Path, listen: SocketAddr, server: SocketAddr) -> SlowLine {
        let line = Arc::new(Line::default());
        let ours = Arc::clone(&line);
        within(network, move || {
            let listener = TcpListener::bind(listen).expect("the address is free");
            listener.set_nonblocking(true).expect("a listener can be nonblocking");
            // In the network like the thread that starts it.
            std::thread::spawn(move || accept(&listener, server, &ours));
        });
        SlowLine(line)
    }

    /// From now on what comes arrives so much later, and up to `jitter` later still.
    pub fn set(&self, delay: Duration, jitter: Duration) {
        let us = |time: Duration| u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        self.0.delay_us.store(us(delay), Ordering::Relaxed);
        self.0.jitter_us.store(us(jitter), Ordering::Relaxed);
    }
}

impl Drop for SlowLine {
    fn drop(&mut self) {
        self.0.over.store(true, Ordering::Relaxed);
    }
}

fn accept(listener: &TcpListener, server: SocketAddr, line: &Arc<Line>) {
    while !line.over.load(Ordering::Relaxed) {
        let Ok((client, _)) = listener.accept() else {
            std::thread::sleep(Duration::from_millis(1));
            continue;
        };
        let Ok(server) = TcpStream::connect(server) else {
            let _ = set_socket_linger(&client, Some(Duration::ZERO));
            continue;
        };
        forward(&client, &server, line);
        forward(&server, &client, line);
    }
}

fn forward(from: &TcpStream, to: &TcpStream, line: &Arc<Line>) {
    let (Ok(mut from), Ok(mut to)) = (from.try_clone(), to.try_clone()) else { return };
    let _ = (from.set_nonblocking(false), from.set_read_timeout(Some(LOOK)), to.set_nodelay(true));
    let line = Arc::clone(line);
    let (sender, receiver) = mpsc::channel::<(Instant, Vec<u8>)>();
    std::thread::spawn(move || {
        let mut random = Random::from_seed(crate::boottime_ns());
        let mut bytes = [0; 16 * 1024];
        while !line.over.load(Ordering::Relaxed) {
            let length = match from.read(&mut bytes) {
                Ok(length) => length,
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => continue,
                Err(_) => 0,
            };
            let jitter = random.below(1 + line.jitter_us.load(Ordering::Relaxed));
            let later = Duration::from_micros(line.delay_us.load(Ordering::Relaxed) + jitter);
            // An end arrives as late as everything else.
            if sender.send((Instant::now() + later, bytes[..length].to_vec())).is_err() || length == 0 {
                break;
            }
        }
    });
    std::thread::spawn(move || {
        while let Ok((due, bytes)) = receiver.recv() {
            std::thread::sleep(due.saturating_duration_since(Instant::now()));
            if bytes.is_empty() || to.write_all(&bytes).is_err() {
                break;
            }
        }
        let _ = to.shutdown(Shutdown::Both);
    });
}
