//! A real etcd as a child process, or a cluster of them: on ports of its own that it has again after a restart, with its
//! data in a scratch directory, frozen and killed by process id, and ended however the test ends.

use crate::network::{Place, within};
use crate::scratch::Scratch;
use crate::server::lasting_address;
use crate::{WATCHDOG, eventually, workspace};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use std::fs::File;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

/// One member; dropping it kills it.
#[derive(Debug)]
pub struct Etcd {
    child: Option<Child>,
    name: String,
    client: SocketAddr,
    peer: SocketAddr,
    /// `name=url` of every member, as etcd wants it.
    members: String,
    options: Vec<String>,
    home: Arc<Scratch>,
    /// The network it is in; `None`: that of the test.
    network: Option<PathBuf>,
}

/// Where a member is: its name, for its clients, for the others, and in which network.
struct Seat {
    name: String,
    client: SocketAddr,
    peer: SocketAddr,
    network: Option<PathBuf>,
}

impl Etcd {
    /// One that runs alone, and is ready.
    ///
    /// # Panics
    /// When it does not start; `etcd` must be installed (Debian: `etcd-server`).
    pub fn start() -> Etcd {
        Etcd::with(&[])
    }

    /// The same, with further options; with `--cert-file` it speaks TLS.
    pub fn with(options: &[&str]) -> Etcd {
        let mut alone = Etcd::members(1, options);
        alone.pop().expect("one was started")
    }

    /// So many that are one cluster, and ready.
    pub fn cluster(count: usize) -> Vec<Etcd> {
        Etcd::members(count, &[])
    }

    /// So many that are one cluster, each at a place of its own of a network.
    pub fn placed(places: &[Place]) -> Vec<Etcd> {
        let seat = |(at, place): (usize, &Place)| Seat {
            name: format!("m{at}"),
            client: place.at(2379),
            peer: place.at(2380),
            network: Some(place.file()),
        };
        Etcd::seated(places.iter().enumerate().map(seat).collect(), &[])
    }

    fn members(count: usize, options: &[&str]) -> Vec<Etcd> {
        let seat = |at| Seat {
            name: format!("m{at}"),
            client: lasting_address(),
            peer: lasting_address(),
            network: None,
        };
        Etcd::seated((0..count).map(seat).collect(), options)
    }

    fn seated(seats: Vec<Seat>, options: &[&str]) -> Vec<Etcd> {
        let home = Arc::new(Scratch::new());
        let members: Vec<String> =
            seats.iter().map(|seat| format!("{}=http://{}", seat.name, seat.peer)).collect();
        let members = members.join(",");
        let member = |seat: Seat| Etcd {
            child: None,
            name: seat.name,
            client: seat.client,
            peer: seat.peer,
            members: members.clone(),
            options: options.iter().map(ToString::to_string).collect(),
            home: Arc::clone(&home),
            network: seat.network,
        };
        let mut started: Vec<Etcd> = seats.into_iter().map(member).collect();
        started.iter_mut().for_each(Etcd::spawn);
        started.iter_mut().for_each(Etcd::await_ready);
        started
    }

    fn spawn(&mut self) {
        assert!(self.child.is_none(), "it runs already");
        let scheme = if self.is_tls() { "https" } else { "http" };
        let (client, peer) = (format!("{scheme}://{}", self.client), format!("http://{}", self.peer));
        let log =
            File::options().create(true).append(true).open(self.home.join(&format!("{}.log", self.name)));
        let mut command = Command::new(workspace::own_binary("confined"));
        if let Some(network) = &self.network {
            command.arg("--network").arg(network);
        }
        command.args(["--", "etcd", "--name", &self.name, "--initial-cluster", &self.members]);
        command.arg("--data-dir").arg(self.data());
        command.args(["--listen-client-urls", &client, "--advertise-client-urls", &client]);
        command.args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer]);
        command.args(&self.options).stdin(Stdio::null()).stdout(Stdio::null());
        command.stderr(log.expect("the scratch directory can be written"));
        // What a developer's shell says to etcd is not for this one.
        for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("ETCD")) {
            command.env_remove(name);
        }
        self.child = Some(command.spawn().expect("the launcher runs"));
    }

    /// Waits until it has a leader, or at least listens where TLS hides the rest.
    ///
    /// # Panics
    /// When it ends instead, or hangs.
    pub fn await_ready(&mut self) {
        eventually("etcd is ready", || {
            let ended = self.child.as_mut().and_then(|child| child.try_wait().ok()?);
            let advice = "Debian has it in etcd-server";
            assert!(ended.is_none(), "etcd ended with {ended:?} ({advice}):\n{}", self.log());
            if self.is_tls() {
                return TcpStream::connect(self.client).ok().map(drop);
            }
            let health = self.request("GET", "/health", "").ok()?;
            (health.get("health")? == "true").then_some(())
        });
    }

    fn is_tls(&self) -> bool {
        self.options.iter().any(|option| option == "--cert-file")
    }

    fn data(&self) -> std::path::PathBuf {
        self.home.join(&self.name)
    }

    /// Its `host:port` for clients.
    pub fn endpoint(&self) -> String {
        self.client.to_string()
    }

    /// What it has logged so far.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.home.join(&format!("{}.log", self.name))).unwrap_or_default()
    }

    fn pid(&self) -> Pid {
        Pid::from_child(self.child.as_ref().expect("it runs"))
    }

    /// Stops its clock: it keeps its connections, and says nothing.
    ///
    /// # Panics
    /// When it is gone.
    pub fn freeze(&self) {
        kill_process(self.pid(), Signal::STOP).expect("etcd runs");
    }

    /// Lets it go on.
    ///
    /// # Panics
    /// When it is gone.
    pub fn thaw(&self) {
        kill_process(self.pid(), Signal::CONT).expect("etcd runs");
    }

    /// [`Etcd::freeze`], unless it was killed.
    pub fn freeze_if_running(&self) {
        if self.child.is_some() {
            self.freeze();
        }
    }

    /// It goes on if it was frozen, and is started again if it was killed; nobody waits for it.
    pub fn revive(&mut self) {
        match self.child {
            Some(_) => self.thaw(),
            None => self.spawn(),
        }
    }

    /// Whether it leads its cluster, as it says itself.
    pub fn leads(&self) -> bool {
        let Ok(status) = self.request("POST", "/v3/maintenance/status", "{}") else { return false };
        status.get("leader").is_some() && status.get("leader") == status.pointer("/header/member_id")
    }

    /// Kills it as a crash would, and waits until it is gone.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// Kills it if it runs, starts it on the same data and ports, and waits until it is ready.
    pub fn restart(&mut self) {
        self.kill();
        self.spawn();
        self.await_ready();
    }

    /// Restarts it, and keeps a copy of all it has, as a backup does.
    ///
    /// # Panics
    /// When its data cannot be copied.
    pub fn back_up(&mut self) {
        self.kill();
        copy(&self.data(), &self.home.join("backup")).expect("the scratch directory can be written");
        self.spawn();
        self.await_ready();
    }

    /// Restarts it with the copy.
    ///
    /// # Panics
    /// When there is none.
    pub fn restore(&mut self) {
        self.kill();
        std::fs::remove_dir_all(self.data()).expect("it has data");
        copy(&self.home.join("backup"), &self.data()).expect("there is a backup");
        self.spawn();
        self.await_ready();
    }

    /// Asks it through its gateway.
    ///
    /// # Panics
    /// When it does not answer with JSON.
    pub fn post(&self, path: &str, body: &Value) -> Value {
        self.request("POST", path, &body.to_string()).unwrap_or_else(|error| panic!("{path}: {error}"))
    }

    fn request(&self, method: &str, path: &str, body: &str) -> std::io::Result<Value> {
        match &self.network {
            None => self.exchange(method, path, body),
            Some(network) => within(network, || self.exchange(method, path, body)),
        }
    }

    fn exchange(&self, method: &str, path: &str, body: &str) -> std::io::Result<Value> {
        let mut stream = TcpStream::connect(self.client)?;
        stream.set_read_timeout(Some(WATCHDOG))?;
        // HTTP/1.0: the answer is one piece and ends with the connection.
        write!(stream, "{method} {path} HTTP/1.0\r\nContent-Length: {}\r\n\r\n{body}", body.len())?;
        let mut text = String::new();
        stream.read_to_string(&mut text)?;
        let body = text.split_once("\r\n\r\n").map_or("", |(_, body)| body);
        Ok(serde_json::from_str(body)?)
    }
}

/// Copies a directory with all that is in it.
fn copy(from: &Path, to: &Path) -> std::io::Result<()> {
    std::fs::create_dir_all(to)?;
    for entry in std::fs::read_dir(from)? {
        let entry = entry?;
        let (source, target) = (entry.path(), to.join(entry.file_name()));
        if entry.file_type()?.is_dir() {
            copy(&source, &target)?;
        } else {
            std::fs::copy(&source, &target)?;
        }
    }
    Ok(())
}

impl Drop for Etcd {
    fn drop(&mut self) {
        self.kill();
    }
}
