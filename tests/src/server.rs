//! A real `fairlock serve` as a child process: on a port and a socket of its own, with a state directory that outlives it
//! when a test wants to start it again, and ended by process id however the test ends.

use crate::random::Random;
use crate::scratch::Scratch;
use crate::{WATCHDOG, eventually, workspace};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use std::collections::BTreeSet;
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::sync::{Arc, Mutex, PoisonError};

/// Which driver moves the bytes of a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Io {
    /// `io_uring`.
    Uring,
    /// epoll.
    Epoll,
    /// The server's choice.
    Auto,
}

impl Io {
    /// The word the command line takes and the ready line says.
    pub const fn name(self) -> &'static str {
        match self {
            Io::Uring => "uring",
            Io::Epoll => "epoll",
            Io::Auto => "auto",
        }
    }
}

/// How a server shall be started.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Which driver.
    pub io: Io,
    /// How many shards.
    pub shards: u16,
    /// Its TCP address; port 0 picks one.
    pub listen: SocketAddr,
    /// Further arguments of `serve`.
    pub arguments: Vec<String>,
    /// Keys of its configuration file, in TOML.
    pub configuration: String,
    /// Arguments of the launcher: what the server is denied.
    pub denied: Vec<String>,
    /// Serve /metrics and /healthz.
    pub admin: bool,
    /// The directory with its socket and its state; shared by a server and those started after it.
    pub home: Arc<Scratch>,
}

impl Plan {
    /// One shard, this driver, a directory of its own.
    pub fn new(io: Io) -> Plan {
        Plan {
            io,
            shards: 1,
            listen: SocketAddr::from(([127, 0, 0, 1], 0)),
            arguments: Vec::new(),
            configuration: String::new(),
            denied: Vec::new(),
            admin: false,
            home: Arc::new(Scratch::new()),
        }
    }

    /// With so many shards.
    #[must_use]
    pub fn shards(mut self, shards: u16) -> Plan {
        self.shards = shards;
        self
    }

    /// At an address that the next server of this plan has again.
    #[must_use]
    pub fn at(mut self, listen: SocketAddr) -> Plan {
        self.listen = listen;
        self
    }

    /// With /metrics and /healthz.
    #[must_use]
    pub fn admin(mut self) -> Plan {
        self.admin = true;
        self
    }

    /// With one more argument of `serve`.
    #[must_use]
    pub fn argument(mut self, argument: impl Into<String>) -> Plan {
        self.arguments.push(argument.into());
        self
    }

    /// With lines of the configuration file.
    #[must_use]
    pub fn configuration(mut self, toml: &str) -> Plan {
        self.configuration.push_str(toml);
        self
    }

    /// With one more argument of the launcher.
    #[must_use]
    pub fn denied(mut self, argument: impl Into<String>) -> Plan {
        self.denied.push(argument.into());
        self
    }

    /// Its Unix socket.
    pub fn socket(&self) -> PathBuf {
        self.home.join("s")
    }

    /// Its state directory.
    pub fn state(&self) -> PathBuf {
        self.home.join("state")
    }

    /// The command that starts it.
    pub(crate) fn command(&self) -> Command {
        let mut command = Command::new(workspace::own_binary("confined"));
        command.args(&self.denied).arg("--").arg(workspace::fairlock()).arg("serve");
        command.args(["--io", self.io.name(), "--listen", &self.listen.to_string()]);
        command.arg("--shards").arg(self.shards.to_string());
        command.arg("--socket").arg(self.socket()).arg("--state-dir").arg(self.state());
        if !self.configuration.is_empty() {
            let path = self.home.join("fairlock.toml");
            std::fs::write(&path, &self.configuration).expect("the scratch directory can be written");
            command.arg("--config").arg(path);
        }
        if self.admin {
            command.args(["--admin", "127.0.0.1:0"]);
        }
        command.args(&self.arguments);
        command.stdin(Stdio::null()).stdout(Stdio::piped());
        let log = File::options().create(true).append(true).open(self.home.join("log"));
        command.stderr(log.expect("the scratch directory can be written"));
        command
    }

    /// Starts it and waits until it is ready.
    ///
    /// # Panics
    /// When it does not start.
    pub fn start(&self) -> Server {
        self.try_start().unwrap_or_else(|status| panic!("serve ended with {status}:\n{}", self.log()))
    }

    /// Starts it; when it ends before it is ready, says how.
    ///
    /// # Errors
    /// Its exit status.
    ///
    /// # Panics
    /// When it hangs, or says something else than it is ready.
    pub fn try_start(&self) -> Result<Server, ExitStatus> {
        let mut child = self.command().spawn().expect("the launcher runs");
        let mut stdout = BufReader::new(child.stdout.take().expect("piped above"));
        let (sender, receiver) = mpsc::channel();
        std::thread::spawn(move || {
            let mut line = String::new();
            let _ = stdout.read_line(&mut line);
            let _ = sender.send(line);
            // Whatever else it says is taken away, so that it never blocks.
            let _ = std::io::copy(&mut stdout, &mut std::io::sink());
        });
        let mut server = Server { child, ready: Value::Null, plan: self.clone() };
        let line = receiver.recv_timeout(WATCHDOG).expect("serve is ready or ends");
        if line.is_empty() {
            return Err(server.wait());
        }
        server.ready =
            serde_json::from_str(&line).unwrap_or_else(|error| panic!("ready line {line:?}: {error}"));
        assert_eq!(server.ready["event"], "ready", "{line}");
        Ok(server)
    }

    /// What every server of this plan has logged so far.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.home.join("log")).unwrap_or_default()
    }
}

/// An address on loopback that a server can have again after its end: below the ports the kernel gives to clients, so
/// that none of them sits on it meanwhile (or meets itself there).
///
/// # Panics
/// When there is none.
pub fn lasting_address() -> SocketAddr {
    // Tests run side by side, and whoever got an address may bind it later.
    static GIVEN: Mutex<BTreeSet<u16>> = Mutex::new(BTreeSet::new());
    let mut given = GIVEN.lock().unwrap_or_else(PoisonError::into_inner);
    let mut random = Random::from_seed(crate::boottime_ns() ^ u64::from(std::process::id()));
    let free = (0..200).find_map(|_| {
        // Below those that a demo takes.
        let port = u16::try_from(10_000 + random.below(10_000)).expect("below 20 000");
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        (std::net::TcpListener::bind(address).is_ok() && given.insert(port)).then_some(address)
    });
    free.expect("loopback has a free port")
}

/// A server that runs; dropping it kills it.
#[derive(Debug)]
pub struct Server {
    child: Child,
    /// What it said when it was ready.
    pub ready: Value,
    /// How it was started.
    pub plan: Plan,
}

impl Server {
    /// Its process.
    ///
    /// # Panics
    /// Never: a child has a process id.
    pub fn pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }

    /// Its TCP address.
    ///
    /// # Panics
    /// When its ready line names none.
    pub fn address(&self) -> SocketAddr {
        let text = self.ready["tcp"].as_str().unwrap_or_else(|| panic!("no tcp address in {}", self.ready));
        text.parse().expect("an address")
    }

    /// Its TCP endpoint.
    pub fn tcp(&self) -> String {
        format!("tcp://{}", self.address())
    }

    /// Its Unix socket.
    pub fn socket(&self) -> PathBuf {
        self.plan.socket()
    }

    /// Its Unix endpoint.
    pub fn unix(&self) -> String {
        format!("unix:{}", self.socket().display())
    }

    /// Its Unix endpoint for clients that share memory with it.
    pub fn shm(&self) -> String {
        format!("shm:{}", self.socket().display())
    }

    /// The address of /metrics.
    ///
    /// # Panics
    /// When the plan has none.
    pub fn admin(&self) -> SocketAddr {
        let text = self.ready["admin"].as_str().expect("the plan says `admin`");
        text.parse().expect("an address")
    }

    /// Sends it a signal.
    ///
    /// # Panics
    /// When it is gone.
    pub fn signal(&self, signal: Signal) {
        kill_process(self.pid(), signal).expect("the server runs");
    }

    /// Kills it as a crash would, and waits until it is gone.
    pub fn crash(mut self) -> Plan {
        let _ = self.child.kill();
        let _ = self.child.wait();
        self.plan.clone()
    }

    /// Asks it to stop, and waits until it has.
    pub fn stop(mut self) -> (Plan, ExitStatus) {
        self.signal(Signal::TERM);
        let status = self.wait();
        (self.plan.clone(), status)
    }

    /// Waits for its end.
    pub fn wait(&mut self) -> ExitStatus {
        eventually("the server ends", || self.child.try_wait().expect("it is our child"))
    }

    /// Whether it still runs.
    pub fn is_running(&mut self) -> bool {
        self.child.try_wait().expect("it is our child").is_none()
    }

    /// Bytes of memory that are its own, as the kernel counts them.
    ///
    /// # Panics
    /// When it is gone.
    pub fn resident_bytes(&self) -> u64 {
        let path = format!("/proc/{}/status", self.child.id());
        let status = std::fs::read_to_string(Path::new(&path)).expect("the server runs");
        let line = status.lines().find(|line| line.starts_with("VmRSS:")).expect("a process has memory");
        let kib: u64 = line.split_whitespace().nth(1).and_then(|word| word.parse().ok()).expect("a number");
        kib * 1024
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("--- log of the server ---\n{}", self.plan.log());
        }
    }
}
