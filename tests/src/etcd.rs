//! A real etcd as a child process, or a cluster of them: on ports of its own that it has again after a restart, with its
//! data in a scratch directory, frozen and killed by process id, and ended however the test ends.

use crate::scratch::Scratch;
use crate::server::lasting_address;
use crate::{WATCHDOG, eventually};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use std::fs::File;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
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

    fn members(count: usize, options: &[&str]) -> Vec<Etcd> {
        let home = Arc::new(Scratch::new());
        let places: Vec<_> =
            (0..count).map(|at| (format!("m{at}"), lasting_address(), lasting_address())).collect();
        let members: Vec<String> =
            places.iter().map(|(name, _, peer)| format!("{name}=http://{peer}")).collect();
        let members = members.join(",");
        let member = |(name, client, peer)| Etcd {
            child: None,
            name,
            client,
            peer,
            members: members.clone(),
            options: options.iter().map(ToString::to_string).collect(),
            home: Arc::clone(&home),
        };
        let mut started: Vec<Etcd> = places.into_iter().map(member).collect();
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
        let mut command = Command::new("etcd");
        command.args(["--name", &self.name, "--initial-cluster", &self.members]);
        command.arg("--data-dir").arg(self.data());
        command.args(["--listen-client-urls", &client, "--advertise-client-urls", &client]);
        command.args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer]);
        command.args(&self.options).stdin(Stdio::null()).stdout(Stdio::null());
        command.stderr(log.expect("the scratch directory can be written"));
        // What a developer's shell says to etcd is not for this one.
        for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("ETCD")) {
            command.env_remove(name);
        }
        let child = command.spawn();
        self.child = Some(child.unwrap_or_else(|error| {
            panic!("cannot run etcd ({error}): install it (Debian: apt-get install etcd-server)")
        }));
    }

    /// Waits until it has a leader, or at least listens where TLS hides the rest.
    fn await_ready(&mut self) {
        eventually("etcd is ready", || {
            let ended = self.child.as_mut().and_then(|child| child.try_wait().ok()?);
            assert!(ended.is_none(), "etcd ended with {ended:?}:\n{}", self.log());
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

    /// Asks it through its gateway.
    ///
    /// # Panics
    /// When it does not answer with JSON.
    pub fn post(&self, path: &str, body: &Value) -> Value {
        self.request("POST", path, &body.to_string()).unwrap_or_else(|error| panic!("{path}: {error}"))
    }

    fn request(&self, method: &str, path: &str, body: &str) -> std::io::Result<Value> {
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

impl Drop for Etcd {
    fn drop(&mut self) {
        self.kill();
    }
}
