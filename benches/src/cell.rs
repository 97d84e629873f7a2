//! A cell of real nodes, each at a place of its own: killed, frozen and started again by process id. Whether a node is a
//! member is read in what the primary logs; who is primary is asked of the nodes as a client would.

use crate::cores;
use crate::launch;
use crate::network::Place;
use crate::process::Measured;
use crate::scratch::Scratch;
use crate::stream::Door;
use fairlock_protocol::{Frame, Hello, Reply, Request, RequestId, Role, ShardId, Welcome};
use std::fs::File;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::process::Stdio;
use std::time::{Duration, Instant};

/// Ports of a node, for clients and for the other nodes.
const PORTS: (u16, u16) = (7411, 7412);
/// A node that does not answer for so long is not asked further.
const PATIENCE: Duration = Duration::from_millis(300);
/// After this long whatever is waited for does not come.
const WATCHDOG: Duration = Duration::from_mins(2);
/// Lines of each log in a failure.
const STORY_LINES: usize = 30;
/// Pause between two looks.
const LOOK_EVERY: Duration = Duration::from_millis(5);
/// What is measured may hold locks for as long as a run takes, without a client that renews.
const CONFIGURATION: &str = "ttl_max = \"1h\"\n";

/// What a cell shall be.
#[derive(Clone, Debug)]
pub struct CellPlan<'a> {
    /// Its name in the register; no two of a run have the same.
    pub name: String,
    /// Which program.
    pub program: &'a PathBuf,
    /// `uring`, `epoll` or `auto`.
    pub io: &'a str,
    /// `always`, `never` or `auto`.
    pub poll: &'a str,
    /// Where its nodes are; the first becomes the primary.
    pub places: &'a [Place],
    /// Its register.
    pub register: String,
    /// The core of the first node, and that of the others; `None`: any.
    pub cores: Option<(usize, usize)>,
}

/// A cell that runs; dropping it kills its nodes.
#[derive(Debug)]
pub struct Cell {
    /// Its nodes.
    pub nodes: Vec<Node>,
}

/// One node.
#[derive(Debug)]
pub struct Node {
    name: String,
    address: SocketAddr,
    arguments: Vec<String>,
    namespace: Option<PathBuf>,
    program: PathBuf,
    core: Option<usize>,
    /// Its process; `None`: it was killed, or never started.
    pub process: Option<Measured>,
    scratch: Scratch,
}

impl Cell {
    /// Starts one and waits until every node is a member.
    ///
    /// # Errors
    /// What the system says, or what the nodes logged when they do not settle.
    pub fn start(plan: &CellPlan<'_>) -> io::Result<Cell> {
        let mut cell = Cell { nodes: Vec::new() };
        for (at, place) in plan.places.iter().enumerate() {
            cell.nodes.push(Node::plan(plan, at, place)?);
            cell.nodes[at].start()?;
            // Whoever is first decides the order of the others, not their race.
            cell.settled(at + 1)?;
        }
        Ok(cell)
    }

    /// The endpoint that names every node.
    pub fn endpoint(&self) -> String {
        let all: Vec<String> = self.nodes.iter().map(|node| format!("tcp://{}", node.address)).collect();
        all.join(",")
    }

    /// Who serves: the node that says so in the highest epoch.
    pub fn primary_now(&self) -> Option<usize> {
        let welcomed = self.nodes.iter().enumerate().filter_map(|(at, node)| Some((at, node.welcome()?)));
        let serving = welcomed.filter(|(_, welcome)| welcome.role == Role::Primary);
        serving.max_by_key(|(_, welcome)| welcome.epoch).map(|(at, _)| at)
    }

    /// Waits until somebody serves and the cell has so many members; who serves.
    ///
    /// # Errors
    /// What the nodes logged, when that takes too long.
    pub fn settled(&self, members: usize) -> io::Result<usize> {
        let is_settled = || self.primary_now().filter(|at| self.nodes[*at].members() == members);
        self.await_that(is_settled)
    }

    /// Waits until another than this one serves; who.
    ///
    /// # Errors
    /// As [`Cell::settled`].
    pub fn primary_but(&self, former: usize) -> io::Result<usize> {
        self.await_that(|| self.primary_now().filter(|at| *at != former))
    }

    fn await_that<T>(&self, mut probe: impl FnMut() -> Option<T>) -> io::Result<T> {
        let begun = Instant::now();
        while begun.elapsed() < WATCHDOG {
            if let Some(found) = probe() {
                return Ok(found);
            }
            std::thread::sleep(LOOK_EVERY);
        }
        Err(io::Error::other(format!("the cell does not settle:\n{}", self.story())))
    }

    /// What every node has logged last.
    pub fn story(&self) -> String {
        let last = |node: &Node| {
            let log = node.log();
            let lines: Vec<&str> = log.lines().collect();
            let from = lines.len().saturating_sub(STORY_LINES);
            format!("--- {} ---\n{}\n", node.name, lines[from..].join("\n"))
        };
        self.nodes.iter().map(last).collect()
    }
}

impl Node {
    fn plan(plan: &CellPlan<'_>, at: usize, place: &Place) -> io::Result<Node> {
        let scratch = Scratch::new()?;
        let (name, address) = (format!("n{}", at + 1), place.at(PORTS.0));
        let configuration = scratch.join("fairlock.toml");
        std::fs::write(&configuration, CONFIGURATION)?;
        let paths = [
            ("--config", configuration),
            ("--socket", scratch.join("s")),
            ("--state-dir", scratch.join("state")),
        ];
        let words = [
            ("--listen", address.to_string()),
            ("--peer-listen", place.at(PORTS.1).to_string()),
            ("--cell", plan.name.clone()),
            ("--node", name.clone()),
            ("--register", plan.register.clone()),
            ("--profile", "lan".to_owned()),
            ("--shards", "1".to_owned()),
            ("--drain", "0s".to_owned()),
            ("--io", plan.io.to_owned()),
            ("--poll", plan.poll.to_owned()),
        ];
        let paths = paths.into_iter().map(|(flag, path)| (flag, path.display().to_string()));
        let flags = words.into_iter().chain(paths).flat_map(|(flag, value)| [flag.to_owned(), value]);
        let arguments = ["serve", "--insecure"].map(str::to_owned).into_iter().chain(flags).collect();
        let core = plan.cores.map(|(first, others)| if at == 0 { first } else { others });
        let (namespace, program) = (place.namespace.clone(), plan.program.clone());
        Ok(Node { name, address, arguments, namespace, program, core, process: None, scratch })
    }

    /// Starts it if it does not run, and waits for nothing.
    ///
    /// # Errors
    /// What the system says.
    pub fn start(&mut self) -> io::Result<()> {
        if self.process.is_some() {
            return Ok(());
        }
        let log = File::options().create(true).append(true).open(self.scratch.join("log"))?;
        let mut command = launch::command(&self.program, self.namespace.as_deref())?;
        command.args(&self.arguments).env("FAIRLOCK_LOG", "info").env("NO_COLOR", "1");
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        let mut spawn = || command.spawn();
        let child = if let Some(core) = self.core { cores::born_on(core, spawn) } else { spawn() };
        self.process = Some(Measured::new(child?));
        Ok(())
    }

    /// Kills it as a crash would, and waits until it is gone.
    pub fn kill(&mut self) {
        self.process = None;
    }

    /// Stops its clock, as a debugger or a hypervisor does.
    pub fn freeze(&self) {
        self.process.iter().for_each(Measured::freeze);
    }

    /// Lets it go on.
    pub fn thaw(&self) {
        self.process.iter().for_each(Measured::thaw);
    }

    /// Where clients reach it.
    pub fn door(&self) -> Door {
        Door::Tcp(self.address)
    }

    /// What it has logged so far.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.scratch.join("log")).unwrap_or_default()
    }

    /// How many members the cell has, as this node has last logged it.
    pub fn members(&self) -> usize {
        let log = self.log();
        let named = log.lines().rev().find_map(members_in);
        named.map_or(0, |named| named.split(',').filter(|name| !name.is_empty()).count())
    }

    /// What it says first; `None` when it does not answer soon.
    pub fn welcome(&self) -> Option<Welcome> {
        greet(self.address).ok()
    }

    /// The endpoint that names it alone.
    pub fn endpoint(&self) -> String {
        format!("tcp://{}", self.address)
    }
}

/// The members a line of a log names.
fn members_in(line: &str) -> Option<&str> {
    let (_, rest) = line.split_once("members=\"")?;
    rest.split_once('"').map(|(named, _)| named)
}

fn greet(address: SocketAddr) -> io::Result<Welcome> {
    let mut stream = TcpStream::connect_timeout(&address, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let (mut hello, mut inbound) = (Vec::new(), Vec::new());
    Request::Hello(Hello::to(ShardId::ANY)).encode(RequestId::NOTICE, 0, &mut hello);
    stream.write_all(&hello)?;
    loop {
        let mut piece = [0; 1024];
        match stream.read(&mut piece)? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            count => inbound.extend_from_slice(&piece[..count]),
        }
        let frame = Frame::split(&inbound).map_err(io::Error::other)?;
        if let Some((frame, _)) = frame {
            return match Reply::decode(&frame) {
                Ok(Reply::Welcome(welcome)) => Ok(welcome),
                other => Err(io::Error::other(format!("no welcome: {other:?}"))),
            };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_are_found_in_a_line_of_a_log() {
        let line = r#"INFO configuration epoch=3 primary=n2 members="n2,n1""#;
        assert_eq!(members_in(line), Some("n2,n1"));
        assert_eq!(members_in("INFO ready"), None);
    }
}
