//! A peer to stand beside: Redis, pipelined `SET name token NX` and `DEL name` over one connection. It grants a lock
//! without queue, lease or token; it is what many use as one.

use crate::cores;
use crate::launch;
use crate::network::Place;
use crate::process::Measured;
use crate::scratch::Scratch;
use crate::stream::{Door, Manner, Stream};
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// Port of one at a place of its own.
const PORT: u16 = 6379;

/// A running Redis without a disk.
#[derive(Debug)]
pub struct Redis {
    /// Its process.
    pub process: Measured,
    /// Where it listens.
    pub door: Door,
    /// Where it may write, if it does; gone after it.
    _scratch: Option<Scratch>,
}

impl Redis {
    /// Starts one on a core; `None` when it is not installed or does not come up.
    pub fn start(core: usize) -> Option<Redis> {
        // The port is free when it is asked for; a race with others would only cost this one measurement.
        let port = TcpListener::bind("127.0.0.1:0").ok()?.local_addr().ok()?.port();
        let mut command = Command::new("redis-server");
        command.args([
            "--bind",
            "127.0.0.1",
            "--port",
            &port.to_string(),
            "--save",
            "",
            "--appendonly",
            "no",
        ]);
        command.stdout(Stdio::null()).stderr(Stdio::null());
        let process = Measured::new(cores::born_on(core, || command.spawn()).ok()?);
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        Redis::await_connection(process, address)
    }

    /// Starts one at a place, on a core, as a copy `of` another if that is named; `None` when it is not installed or does
    /// not come up.
    pub fn placed(place: &Place, core: usize, of: Option<SocketAddr>) -> Option<Redis> {
        let address = place.at(PORT);
        let mut command = launch::command("redis-server", place.namespace.as_deref()).ok()?;
        command.args(["--bind", &address.ip().to_string(), "--port", &PORT.to_string()]);
        command.args(["--save", "", "--appendonly", "no", "--protected-mode", "no"]);
        // A copy is sent at once, and through the socket alone.
        command.args(["--repl-diskless-sync-delay", "0", "--repl-diskless-load", "on-empty-db"]);
        let scratch = Scratch::new().ok()?;
        command.arg("--dir").arg(scratch.path());
        if let Some(of) = of {
            command.args(["--replicaof", &of.ip().to_string(), &of.port().to_string()]);
        }
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let process = Measured::new(cores::born_on(core, || command.spawn()).ok()?);
        let redis = Redis::await_connection(process, address)?;
        Some(Redis { _scratch: Some(scratch), ..redis })
    }

    fn await_connection(process: Measured, address: SocketAddr) -> Option<Redis> {
        let until = Instant::now() + Duration::from_secs(5);
        while std::net::TcpStream::connect(address).is_err() {
            if Instant::now() > until {
                return None;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        Some(Redis { process, door: Door::Tcp(address), _scratch: None })
    }
}

/// One connection to it.
#[derive(Debug)]
pub struct Pipeline {
    stream: Stream,
    out: Vec<u8>,
    inbound: Vec<u8>,
}

impl Pipeline {
    /// Connects.
    ///
    /// # Errors
    /// What the system says.
    pub fn connect(door: &Door, manner: Manner) -> io::Result<Pipeline> {
        let stream = Stream::connect(door, manner)?;
        Ok(Pipeline { stream, out: Vec::new(), inbound: vec![0; 64 * 1024] })
    }

    /// Appends `SET name token NX`.
    pub fn put_set(&mut self, name: &[u8; 16]) {
        self.out.extend_from_slice(b"*4\r\n$3\r\nSET\r\n$16\r\n");
        self.out.extend_from_slice(name);
        self.out.extend_from_slice(b"\r\n$8\r\n01234567\r\n$2\r\nNX\r\n");
    }

    /// Appends `DEL name`.
    pub fn put_delete(&mut self, name: &[u8; 16]) {
        self.out.extend_from_slice(b"*2\r\n$3\r\nDEL\r\n$16\r\n");
        self.out.extend_from_slice(name);
        self.out.extend_from_slice(b"\r\n");
    }

    /// Appends `WAIT 1 patience`: what was put before has reached a copy, or the patience (in milliseconds) is over.
    pub fn put_wait(&mut self, patience_ms: u16) {
        let patience = patience_ms.to_string();
        let text = format!("*3\r\n$4\r\nWAIT\r\n$1\r\n1\r\n${}\r\n{patience}\r\n", patience.len());
        self.out.extend_from_slice(text.as_bytes());
    }

    /// Sends what was put.
    ///
    /// # Errors
    /// What the system says.
    pub fn send(&mut self) -> io::Result<()> {
        self.stream.put(&self.out)?;
        self.out.clear();
        Ok(())
    }

    /// Waits for `count` answers, each of which is `answer`.
    ///
    /// # Errors
    /// What the system says, or another answer.
    pub fn answers(&mut self, count: usize, answer: &[u8]) -> io::Result<()> {
        let mut left = count * answer.len();
        let mut first = true;
        while left > 0 {
            let room = left.min(self.inbound.len());
            let taken = self.stream.take(&mut self.inbound[..room])?;
            if taken == 0 || (first && self.inbound[0] != answer[0]) {
                return Err(io::ErrorKind::InvalidData.into());
            }
            (left, first) = (left - taken, false);
        }
        Ok(())
    }

    /// Waits for one answer, which is this one to the last byte.
    ///
    /// # Errors
    /// What the system says, or another answer.
    pub fn answer_is(&mut self, answer: &[u8]) -> io::Result<()> {
        let mut filled = 0;
        while filled < answer.len() {
            match self.stream.take(&mut self.inbound[filled..answer.len()])? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                count => filled += count,
            }
        }
        if self.inbound.starts_with(answer) { Ok(()) } else { Err(io::ErrorKind::InvalidData.into()) }
    }
}
