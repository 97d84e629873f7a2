//! The processes of a demo, and the directory they live in. Dropping it ends and removes everything.

use crate::failure::{self, Failure};
use std::ffi::OsStr;
use std::fs::{self, File};
use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::DirBuilderExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Ports that a node can have again after its end: the kernel gives none of them to whoever dials.
const PORTS: std::ops::Range<u16> = 20_000..32_000;
/// Longest path of a Unix socket.
const SOCKET_PATH_BYTES_MAX: usize = 107;
/// Names of nodes.
const NAMES: [&str; 5] = ["a", "b", "c", "d", "e"];

/// What runs.
pub(super) struct Stage {
    directory: PathBuf,
    register: SocketAddr,
    etcd: Option<Child>,
    /// The nodes.
    pub(super) nodes: Vec<Node>,
}

/// One node.
pub(super) struct Node {
    /// Its name.
    pub(super) name: &'static str,
    /// Where clients reach it.
    pub(super) clients: SocketAddr,
    peer: SocketAddr,
    child: Option<Child>,
    /// It has answered in this life.
    pub(super) was_heard: bool,
    /// Since when it is dead.
    pub(super) dead_since: Option<Instant>,
}

impl Node {
    /// Its process, while it runs.
    pub(super) fn pid(&self) -> Option<u32> {
        self.child.as_ref().map(Child::id)
    }

    /// Its endpoint.
    pub(super) fn endpoint(&self) -> String {
        format!("tcp://{}", self.clients)
    }
}

impl Stage {
    /// Starts etcd and so many nodes.
    ///
    /// # Errors
    /// 69 when etcd is not installed; 70 when the system refuses something.
    pub(super) fn build(count: u8) -> Result<Stage, Failure> {
        let etcd = in_path("etcd").ok_or_else(|| {
            Failure::new(
                failure::NO_SERVER,
                "etcd is not installed: the nodes of a cell agree there who is primary",
            )
            .advise(
                "Debian, Ubuntu: apt-get install etcd-server; elsewhere: one file from \
                 https://github.com/etcd-io/etcd/releases in PATH",
            )
        })?;
        let count = usize::from(count).clamp(1, NAMES.len());
        let mut ports = free_ports(2 + 2 * count)?.into_iter();
        let mut port = || {
            let port = ports.next().unwrap_or_default();
            SocketAddr::from(([127, 0, 0, 1], port))
        };
        let (register, etcd_peer) = (port(), port());
        let node = |name| Node {
            name,
            clients: port(),
            peer: port(),
            child: None,
            was_heard: false,
            dead_since: None,
        };
        let nodes = NAMES.into_iter().take(count).map(node).collect();
        let mut stage = Stage { directory: own_directory()?, register, etcd: None, nodes };
        stage.etcd = Some(stage.start_etcd(&etcd, etcd_peer)?);
        for at in 0..stage.nodes.len() {
            stage.start(at)?;
        }
        Ok(stage)
    }

    /// Where the register is, as `serve` is told.
    pub(super) fn register(&self) -> String {
        format!("etcd://{}", self.register)
    }

    /// The endpoint that names all nodes.
    pub(super) fn endpoint(&self) -> String {
        self.nodes.iter().map(Node::endpoint).collect::<Vec<_>>().join(",")
    }

    /// Where everything lies.
    pub(super) fn directory(&self) -> &Path {
        &self.directory
    }

    fn start_etcd(&self, program: &Path, peer: SocketAddr) -> Result<Child, Failure> {
        let (clients, peers) = (format!("http://{}", self.register), format!("http://{peer}"));
        let data = self.directory.join("etcd");
        let member = format!("demo={peers}");
        let arguments: [&OsStr; 15] = [
            program.as_os_str(),
            "--name".as_ref(),
            "demo".as_ref(),
            "--data-dir".as_ref(),
            data.as_os_str(),
            "--listen-client-urls".as_ref(),
            clients.as_ref(),
            "--advertise-client-urls".as_ref(),
            clients.as_ref(),
            "--listen-peer-urls".as_ref(),
            peers.as_ref(),
            "--initial-advertise-peer-urls".as_ref(),
            peers.as_ref(),
            "--initial-cluster".as_ref(),
            member.as_ref(),
        ];
        self.leashed("etcd", &arguments)
    }

    /// Starts a node that does not run.
    fn start(&mut self, at: usize) -> Result<(), Failure> {
        let Some(node) = self.nodes.get(at) else { return Ok(()) };
        let own = own_program()?;
        let socket = self.directory.join(format!("{}.sock", node.name));
        let fits = socket.as_os_str().len() <= SOCKET_PATH_BYTES_MAX;
        let socket = if fits { socket } else { PathBuf::new() };
        let (state, register) = (self.directory.join(node.name), self.register());
        let (clients, peer) = (node.clients.to_string(), node.peer.to_string());
        let words = ["serve", "--cell", "demo", "--shards", "1", "--drain", "1s", "--node", node.name];
        let told = ["--register", &register, "--listen", &clients, "--peer-listen", &peer];
        let mut arguments: Vec<&OsStr> = vec![own.as_os_str()];
        arguments.extend(words.iter().chain(&told).map(OsStr::new));
        arguments.extend([
            OsStr::new("--socket"),
            socket.as_os_str(),
            OsStr::new("--state-dir"),
            state.as_os_str(),
        ]);
        let child = self.leashed(node.name, &arguments)?;
        if let Some(node) = self.nodes.get_mut(at) {
            (node.child, node.dead_since, node.was_heard) = (Some(child), None, false);
        }
        Ok(())
    }

    /// Starts a command that ends with this process; what it says goes into a file.
    fn leashed(&self, name: &str, arguments: &[&OsStr]) -> Result<Child, Failure> {
        let path = self.directory.join(format!("{name}.log"));
        let failed = |error: std::io::Error| Failure::system(&format!("start {name}"), &error);
        let log = File::options().create(true).append(true).open(path).map_err(failed)?;
        let also = log.try_clone().map_err(failed)?;
        let mut command = Command::new(own_program()?);
        command.arg("internal-leash").arg(std::process::id().to_string()).arg("--").args(arguments);
        command.stdin(Stdio::null()).stdout(log).stderr(also);
        // Ctrl-C is for the demo, which ends the others itself.
        command.process_group(0).env_remove("NOTIFY_SOCKET").env("NO_COLOR", "1");
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("ETCD") {
                command.env_remove(name);
            }
        }
        command.spawn().map_err(failed)
    }

    /// Notes which nodes have ended.
    ///
    /// # Errors
    /// etcd has ended: the show is over.
    pub(super) fn reap(&mut self) -> Result<(), Failure> {
        for node in &mut self.nodes {
            if node.child.as_mut().is_some_and(|child| !matches!(child.try_wait(), Ok(None))) {
                (node.child, node.dead_since) = (None, Some(Instant::now()));
            }
        }
        if self.etcd.as_mut().is_some_and(|child| !matches!(child.try_wait(), Ok(None))) {
            let log = fs::read_to_string(self.directory.join("etcd.log")).unwrap_or_default();
            let last = log.lines().last().unwrap_or("it said nothing").to_owned();
            return Err(Failure::new(failure::NO_SERVER, format!("etcd has ended; it last said: {last}")));
        }
        Ok(())
    }

    /// Starts the nodes that are dead, or those that have been for so long.
    ///
    /// # Errors
    /// The system starts no process.
    pub(super) fn start_dead(&mut self, for_at_least: Option<Duration>) -> Result<(), Failure> {
        for at in 0..self.nodes.len() {
            let dead = self.nodes.get(at).and_then(|node| node.dead_since);
            if dead.is_some_and(|since| for_at_least.is_none_or(|least| since.elapsed() >= least)) {
                self.start(at)?;
            }
        }
        Ok(())
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        let nodes = self.nodes.iter_mut().filter_map(|node| node.child.as_mut());
        for child in nodes.chain(self.etcd.as_mut()) {
            // One that ended meanwhile is a zombie of ours until it is waited for: its number is nobody else's.
            let _ = child.kill();
            let _ = child.wait();
        }
        // What cannot be removed is in a directory for temporary files.
        let _ = fs::remove_dir_all(&self.directory);
    }
}

fn own_program() -> Result<PathBuf, Failure> {
    std::env::current_exe().map_err(|error| Failure::system("find this program", &error))
}

/// A directory that is nobody else's.
fn own_directory() -> Result<PathBuf, Failure> {
    let nanos = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.subsec_nanos());
    let name = format!("fairlock-demo.{}.{nanos}", std::process::id());
    let path = std::env::temp_dir().join(name);
    let made = fs::DirBuilder::new().mode(0o700).create(&path);
    made.map_err(|error| Failure::system(&format!("make {}", path.display()), &error))?;
    Ok(path)
}

/// Ports on loopback that nobody listens on.
fn free_ports(count: usize) -> Result<Vec<u16>, Failure> {
    let nanos = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.subsec_nanos());
    let many = u32::from(PORTS.end - PORTS.start);
    let first = (nanos / 1000).wrapping_add(std::process::id().wrapping_mul(97)) % many;
    let ports =
        (0..many).filter_map(|step| u16::try_from(u32::from(PORTS.start) + (first + step) % many).ok());
    let free = ports.filter(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok());
    let found: Vec<u16> = free.take(count).collect();
    if found.len() == count {
        Ok(found)
    } else {
        Err(Failure::new(failure::INTERNAL, "127.0.0.1 has too few free ports"))
    }
}

/// A program that the shell would find.
fn in_path(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    let places = std::env::split_paths(&path).map(|directory| directory.join(name));
    let may_run =
        |place: &PathBuf| place.is_file() && rustix::fs::access(place, rustix::fs::Access::EXEC_OK).is_ok();
    places.into_iter().find(may_run)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_is_found_where_the_shell_would_find_it() {
        assert!(in_path("sh").is_some());
        assert!(in_path("no-program-has-this-name").is_none());
    }

    #[test]
    fn free_ports_are_different_and_not_those_of_who_dials() {
        let mut ports = free_ports(8).expect("loopback has ports");
        ports.sort_unstable();
        ports.dedup();
        assert_eq!(ports.len(), 8);
        assert!(ports.iter().all(|port| PORTS.contains(port)));
    }
}
