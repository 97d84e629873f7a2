//! A cell of real nodes with an etcd of its own. Every node has a plan that it can be started with again, at the addresses
//! it had.

use crate::command::{Finished, finish};
use crate::etcd::Etcd;
use crate::eventually;
use crate::server::{Plan, Server, lasting_address};
use crate::ways;
use serde_json::Value;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Stdio;

/// A cell; dropping it ends everything.
#[derive(Debug)]
pub struct Cell {
    /// Its register.
    pub etcd: Etcd,
    /// Its nodes by number; `None`: it does not run.
    pub nodes: Vec<Option<Server>>,
    /// How each is started.
    pub plans: Vec<Plan>,
    listens: Vec<SocketAddr>,
}

/// Names of nodes, by number.
const NAMES: [&str; 5] = ["a", "b", "c", "d", "e"];

impl Cell {
    /// So many nodes, of which none runs.
    ///
    /// # Panics
    /// When etcd does not start.
    pub fn new(count: usize) -> Cell {
        let etcd = Etcd::start();
        let io = *ways::drivers().first().expect("a driver is tested");
        let listens: Vec<SocketAddr> = (0..count).map(|_| lasting_address()).collect();
        let plan = |(name, listen): (&&str, &SocketAddr)| {
            let words = ["--cell", "prod", "--node", name, "--drain", "1s"];
            let register = format!("etcd://{}", etcd.endpoint());
            let peer = lasting_address().to_string();
            let told = ["--register", register.as_str(), "--peer-listen", peer.as_str()];
            let plan = Plan::new(io).at(*listen).admin();
            words.iter().chain(&told).fold(plan, |plan, word| plan.argument(*word))
        };
        let plans: Vec<Plan> = NAMES.iter().zip(&listens).map(plan).collect();
        Cell { nodes: plans.iter().map(|_| None).collect(), etcd, plans, listens }
    }

    /// So many nodes that are all members, the first of them primary.
    ///
    /// # Panics
    /// When they do not get there.
    pub fn running(count: usize) -> Cell {
        let mut cell = Cell::new(count);
        for at in 0..count {
            cell.start(at);
        }
        cell.await_members(count);
        cell
    }

    /// Starts a node and waits until it has its place.
    ///
    /// # Panics
    /// When it gets none.
    pub fn start(&mut self, at: usize) {
        self.nodes[at] = Some(self.plans[at].start());
    }

    /// Kills a node as a crash would.
    pub fn crash(&mut self, at: usize) {
        if let Some(node) = self.nodes[at].take() {
            node.crash();
        }
    }

    /// A node that runs.
    ///
    /// # Panics
    /// When it does not.
    pub fn node(&self, at: usize) -> &Server {
        self.nodes[at].as_ref().expect("the node runs")
    }

    /// One node's endpoint.
    pub fn one(&self, at: usize) -> String {
        format!("tcp://{}", self.listens[at])
    }

    /// The endpoint that names them all.
    pub fn endpoint(&self) -> String {
        (0..self.listens.len()).map(|at| self.one(at)).collect::<Vec<_>>().join(",")
    }

    /// Runs a command at one node.
    pub fn at<const N: usize>(&self, at: usize, arguments: [&str; N]) -> Finished {
        finish(&self.one(at), arguments)
    }

    /// Runs a command with all nodes named.
    pub fn anywhere<const N: usize>(&self, arguments: [&str; N]) -> Finished {
        finish(&self.endpoint(), arguments)
    }

    /// What the primary says of the cell; `Null` while there is none.
    pub fn status(&self) -> Value {
        let said = self.anywhere(["cluster", "status", "--json"]);
        if said.code == 0 { said.json() } else { Value::Null }
    }

    /// Waits until a primary has so many members that follow it on all shards, and says how the cell is.
    pub fn await_members(&self, count: usize) -> Value {
        eventually("the cell has its members", || {
            let status = self.status();
            let far = |member: &Value| member["lag"].is_u64();
            let members = status["members"].as_array()?;
            let whole = status["role"] == "primary" && members.len() == count && members.iter().all(far);
            whole.then_some(status)
        })
    }

    /// The number of the node that is primary.
    ///
    /// # Panics
    /// When the primary has a name that no node has.
    pub fn primary(&self) -> usize {
        eventually("there is a primary", || {
            let status = self.status();
            let primary = status["primary"].as_str().filter(|_| status["role"] == "primary")?;
            NAMES.iter().position(|name| *name == primary)
        })
    }
}

/// The name of a node.
pub fn name(at: usize) -> &'static str {
    NAMES[at]
}

/// What a demo has told so far, and the command itself.
#[derive(Debug)]
pub struct Demo {
    /// The process.
    pub child: crate::command::Running,
    out: PathBuf,
    _home: crate::scratch::Scratch,
}

impl Demo {
    /// Starts `fairlock cluster demo --json` with further arguments.
    ///
    /// # Panics
    /// When it cannot be started.
    pub fn start(arguments: &[&str]) -> Demo {
        let home = crate::scratch::Scratch::new();
        let out = home.join("out");
        let mut command = crate::command::fairlock("", ["cluster", "demo", "--json"]);
        command.args(arguments).env("TMPDIR", home.path()).env_remove("FAIRLOCK_ENDPOINT");
        let file = std::fs::File::create(&out).expect("the scratch directory can be written");
        command.stdout(file).stderr(Stdio::inherit());
        Demo { child: crate::command::Running::start(command), out, _home: home }
    }

    /// The lines so far that are whole.
    pub fn lines(&self) -> Vec<Value> {
        let text = std::fs::read_to_string(&self.out).unwrap_or_default();
        text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
    }

    /// Waits for a line.
    pub fn await_line(&self, what: &str, mut wanted: impl FnMut(&Value) -> bool) -> Value {
        eventually(what, || self.lines().into_iter().rev().find(|line| wanted(line)))
    }
}
