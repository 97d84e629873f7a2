//! A cell of real processes: its etcds and its nodes, on loopback or each at a place of its own in a [`Network`], killed,
//! frozen and started again by process id, and ended however the test ends.
//!
//! What a node is is asked over its Unix socket, which no broken network takes away.

use crate::etcd::Etcd;
use crate::network::{Network, Place};
use crate::raw::Raw;
use crate::server::{Io, Plan, lasting_address};
use crate::slow_line::SlowLine;
use crate::{WATCHDOG, eventually};
use fairlock_protocol::admin::Status;
use fairlock_protocol::{Hello, Reply, Request, Role, ShardId, Welcome};
use rustix::process::{Pid, Signal, kill_process};
use std::fmt::Write;
use std::net::SocketAddr;
use std::process::Child;
use std::time::Duration;

/// Ports of a node at a place of its own: for clients, for the other nodes, and for them behind a line that can be slow.
const PORTS: (u16, u16, u16) = (7411, 7412, 7413);
/// A node that does not answer for so long is not asked further.
const PATIENCE: Duration = Duration::from_millis(300);

/// What a cell shall be.
#[derive(Clone, Debug)]
pub struct CellPlan {
    /// How many nodes.
    pub nodes: usize,
    /// How many shards each has.
    pub shards: u16,
    /// Which driver.
    pub io: Io,
    /// How many etcds.
    pub etcds: usize,
    /// Each at a place of its own, and so many more places for clients; `None`: all on loopback.
    pub places: Option<u8>,
    /// The nodes reach each other over lines that can be made slow; needs places.
    pub lines: bool,
    /// How soon a silence counts: `cloud`, so that no node is deposed because the machine is busy, or `lan`.
    pub profile: &'static str,
    /// Further keys of `[cell]`.
    pub cell: String,
    /// Keys of the configuration before any section.
    pub configuration: String,
    /// Arguments of the launcher.
    pub denied: Vec<String>,
}

impl CellPlan {
    /// So many nodes on loopback with one etcd.
    pub fn new(nodes: usize) -> CellPlan {
        CellPlan {
            nodes,
            shards: 1,
            io: Io::Auto,
            etcds: 1,
            places: None,
            lines: false,
            profile: "cloud",
            cell: String::new(),
            configuration: String::new(),
            denied: Vec::new(),
        }
    }

    /// Starts everything and waits until every node has its part.
    pub fn start(&self) -> Cell {
        let mut cell = self.prepare();
        cell.start_all();
        cell.settled(self.nodes);
        cell
    }

    /// Starts the etcds alone.
    ///
    /// # Panics
    /// When they, or a network, cannot be had.
    pub fn prepare(&self) -> Cell {
        let used = u8::try_from(self.nodes + self.etcds).expect("a few");
        let network = self.places.map(|more| Network::new(used + more));
        let etcds = match &network {
            Some(network) => Etcd::placed(&network.places()[self.nodes..self.nodes + self.etcds]),
            None => Etcd::cluster(self.etcds),
        };
        let register = etcds.iter().map(Etcd::endpoint).collect::<Vec<_>>().join(",");
        let node = |index| self.node(index, &register, network.as_ref().map(|network| network.place(index)));
        let nodes = (0..self.nodes).map(node).collect();
        let line = |place: &Place| SlowLine::new(&place.file(), place.at(PORTS.1), place.at(PORTS.2));
        let lined = network.iter().filter(|_| self.lines).flat_map(|it| &it.places()[..self.nodes]);
        let lines = lined.map(line).collect();
        Cell { nodes, etcds, lines, clients_at: self.nodes + self.etcds, network }
    }

    fn node(&self, index: usize, register: &str, place: Option<&Place>) -> CellNode {
        let name = format!("n{}", index + 1);
        let (listen, peer) = match place {
            Some(place) => (place.at(PORTS.0), place.at(PORTS.1)),
            None => (lasting_address(), lasting_address()),
        };
        let dialled = peer;
        let peer = place.filter(|_| self.lines).map_or(peer, |place| place.at(PORTS.2));
        let mut toml = self.configuration.clone();
        if place.is_some() {
            toml.push_str("insecure = true\n");
        }
        let cell = format!(
            "name = \"broken\"\nnode = \"{name}\"\npeer_listen = \"{peer}\"\npeer_address = \"{dialled}\"\nprofile = \"{}\"",
            self.profile
        );
        let more = &self.cell;
        write!(toml, "[register]\nurl = \"etcd://{register}\"\n[cell]\n{cell}\n{more}\n")
            .expect("a string takes everything");
        let mut plan = Plan::new(self.io).shards(self.shards).at(listen).configuration(&toml);
        plan.denied.clone_from(&self.denied);
        if let Some(place) = place {
            plan.denied.extend(["--network".to_owned(), place.file().display().to_string()]);
        }
        CellNode { name, listen, plan, child: None }
    }
}

/// A cell that runs.
#[derive(Debug)]
pub struct Cell {
    /// Its nodes.
    pub nodes: Vec<CellNode>,
    /// Its register.
    pub etcds: Vec<Etcd>,
    /// The lines to the nodes that can be made slow, if the plan has any.
    pub lines: Vec<SlowLine>,
    clients_at: usize,
    /// Last, so that everybody is gone before it is.
    pub network: Option<Network>,
}

/// One node; dropping it kills it.
#[derive(Debug)]
pub struct CellNode {
    /// What the cell calls it.
    pub name: String,
    /// Where clients dial it.
    pub listen: SocketAddr,
    /// How it is started.
    pub plan: Plan,
    child: Option<Child>,
}

impl Cell {
    /// Starts every node that does not run, the first one first: it makes the cell when there is none.
    pub fn start_all(&mut self) {
        for node in &mut self.nodes {
            let begins = node.child.is_none();
            node.start();
            if begins {
                // Whoever is first decides the order of the others, not their race.
                eventually("a node answers", || {
                    let ended = node.ended();
                    assert!(ended.is_none(), "{} ended with {ended:?}:\n{}", node.name, node.plan.log());
                    node.welcome()
                });
            }
        }
    }

    /// The place of a client.
    ///
    /// # Panics
    /// When the plan has none.
    pub fn client_place(&self, number: usize) -> &Place {
        self.network.as_ref().expect("the plan has places").place(self.clients_at + number)
    }

    /// The endpoint that names every node.
    pub fn endpoint(&self) -> String {
        let all: Vec<String> = self.nodes.iter().map(CellNode::tcp).collect();
        all.join(",")
    }

    /// Who serves: the node that says so in the highest epoch.
    pub fn primary_now(&self) -> Option<usize> {
        let welcomed = self.nodes.iter().enumerate().filter_map(|(at, node)| Some((at, node.welcome()?)));
        let serving = welcomed.filter(|(_, welcome)| welcome.role == Role::Primary);
        serving.max_by_key(|(_, welcome)| welcome.epoch).map(|(at, _)| at)
    }

    /// Waits until somebody serves.
    pub fn primary(&self) -> usize {
        eventually("somebody serves", || self.primary_now())
    }

    /// Waits until another than this one serves.
    pub fn primary_but(&self, former: usize) -> usize {
        eventually("another one serves", || self.primary_now().filter(|at| *at != former))
    }

    /// Waits until somebody serves and the cell has so many members; who serves.
    ///
    /// # Panics
    /// When that takes too long, with what the nodes logged.
    pub fn settled(&self, members: usize) -> usize {
        let begun = std::time::Instant::now();
        loop {
            if let Some(primary) = self.primary_now()
                && self.nodes[primary].status().is_some()
                && self.members().len() == members
            {
                return primary;
            }
            assert!(begun.elapsed() < WATCHDOG, "the cell does not settle:\n{}", self.logs());
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Who is a member, as the newest node that serves has logged it.
    pub fn members(&self) -> Vec<String> {
        let Some(primary) = self.primary_now() else { return Vec::new() };
        let log = self.nodes[primary].plan.log();
        let line = log.lines().rev().find(|line| line.contains("members=\"")).unwrap_or_default();
        let named = line.split("members=\"").nth(1).and_then(|rest| rest.split('"').next());
        named.unwrap_or_default().split(',').map(str::to_owned).collect()
    }

    /// What every node has logged.
    pub fn logs(&self) -> String {
        let logs = self.nodes.iter().map(|node| format!("--- {} ---\n{}", node.name, node.plan.log()));
        logs.collect::<Vec<_>>().join("\n")
    }
}

impl Drop for Cell {
    fn drop(&mut self) {
        self.nodes.iter_mut().for_each(CellNode::kill);
        if std::thread::panicking() {
            eprintln!("{}", self.logs());
        }
    }
}

impl CellNode {
    /// Starts it if it does not run, and does not wait for anything.
    ///
    /// # Panics
    /// When the launcher is missing.
    pub fn start(&mut self) {
        if self.child.is_none() {
            let mut command = self.plan.command();
            command.stdout(std::process::Stdio::null()).env("FAIRLOCK_LOG", "info").env("NO_COLOR", "1");
            self.child = Some(command.spawn().expect("the launcher runs"));
        }
    }

    /// Its TCP endpoint.
    pub fn tcp(&self) -> String {
        format!("tcp://{}", self.listen)
    }

    /// Its Unix endpoint.
    pub fn unix(&self) -> String {
        format!("unix:{}", self.plan.socket().display())
    }

    /// Its process.
    ///
    /// # Panics
    /// When it does not run.
    pub fn pid(&self) -> Pid {
        Pid::from_child(self.child.as_ref().expect("it runs"))
    }

    /// Whether it was started, and not killed since.
    pub fn is_started(&self) -> bool {
        self.child.is_some()
    }

    /// How it ended by itself; `None` while it runs or when it was killed.
    ///
    /// # Panics
    /// Never: it is our child.
    pub fn ended(&mut self) -> Option<std::process::ExitStatus> {
        self.child.as_mut()?.try_wait().expect("it is our child")
    }

    /// Kills it as a crash would, and waits until it is gone.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// Asks it to stop, and waits until it has.
    ///
    /// # Panics
    /// When it hangs.
    pub fn stop(&mut self) -> Option<std::process::ExitStatus> {
        let mut child = self.child.take()?;
        let _ = kill_process(Pid::from_child(&child), Signal::TERM);
        Some(eventually("the node ends", || child.try_wait().expect("it is our child")))
    }

    /// Stops its clock, as a debugger or a hypervisor does.
    pub fn freeze(&self) {
        crate::freeze(self.pid());
    }

    /// Lets it go on.
    pub fn thaw(&self) {
        let _ = kill_process(self.pid(), Signal::CONT);
    }

    /// Asks its Unix socket; `None` when it does not answer soon.
    fn ask(&self) -> Option<Raw> {
        let mut raw = Raw::try_connect(&self.unix()).ok()?;
        raw.insist(PATIENCE);
        raw.send_numbered(0, &Request::Hello(Hello::to(ShardId::ANY)));
        let arrived = raw.frame_within(PATIENCE).ok()??;
        let Reply::Welcome(welcome) = arrived.reply() else { return None };
        raw.welcome = Some(welcome);
        Some(raw)
    }

    /// What it says first; `None` when it does not.
    pub fn welcome(&self) -> Option<Welcome> {
        self.ask()?.welcome
    }

    /// What one of its shards counts, if it serves.
    pub fn status(&self) -> Option<Counts> {
        let mut raw = self.ask()?;
        raw.send(&Request::Status);
        let arrived = raw.frame_within(PATIENCE).ok()??;
        let Reply::Status(status) = arrived.reply() else { return None };
        Some(Counts::of(&status))
    }
}

/// What a node counts; of one shard, when it has several.
#[derive(Clone, Debug)]
pub struct Counts {
    /// Sessions.
    pub sessions: u64,
    /// Grants that are held.
    pub grants: u64,
    /// Who waits.
    pub waiters: u64,
    /// Grants so far.
    pub grants_total: u64,
    /// Ones that passed another, of whom there must be none.
    pub overtakes: u64,
    /// What is wrong.
    pub alarms: Vec<String>,
}

impl Counts {
    fn of(status: &Status<'_>) -> Counts {
        Counts {
            sessions: status.sessions,
            grants: status.grants,
            waiters: status.waiters,
            grants_total: status.grants_total,
            overtakes: status.overtakes_total,
            alarms: status.alarms.lines().map(str::to_owned).collect(),
        }
    }
}

impl Drop for CellNode {
    fn drop(&mut self) {
        self.kill();
    }
}
