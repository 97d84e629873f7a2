//! Cells as their operators see them: the commands, at one node or with all named; and the demo.

use crate::cell::{Cell, CellPlan};
use crate::command::{Finished, finish};
use crate::eventually;
use crate::server::lasting_address;
use serde_json::Value;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Stdio;

/// A cell and how it is asked; its nodes are called n1, n2, …
#[derive(Debug)]
pub struct Operated {
    /// The cell.
    pub cell: Cell,
    /// The pages of its nodes for monitors.
    pub admins: Vec<SocketAddr>,
}

impl Operated {
    /// So many nodes, of which none runs.
    pub fn new(count: usize) -> Operated {
        let mut cell = CellPlan::new(count).prepare();
        let admins: Vec<SocketAddr> = (0..count).map(|_| lasting_address()).collect();
        for (node, admin) in cell.nodes.iter_mut().zip(&admins) {
            node.plan.arguments.extend(["--admin".to_owned(), admin.to_string()]);
        }
        Operated { cell, admins }
    }

    /// So many nodes that are all members, the first of them primary.
    pub fn running(count: usize) -> Operated {
        let mut cell = Operated::new(count);
        for at in 0..count {
            cell.start(at);
            cell.await_members(at + 1);
        }
        cell
    }

    /// Starts a node, and waits for nothing.
    pub fn start(&mut self, at: usize) {
        self.cell.nodes[at].start();
    }

    /// One node's endpoint.
    pub fn one(&self, at: usize) -> String {
        self.cell.nodes[at].tcp()
    }

    /// Runs a command at one node.
    pub fn at<const N: usize>(&self, at: usize, arguments: [&str; N]) -> Finished {
        finish(&self.one(at), arguments)
    }

    /// Runs a command with all nodes named.
    pub fn anywhere<const N: usize>(&self, arguments: [&str; N]) -> Finished {
        finish(&self.cell.endpoint(), arguments)
    }

    /// What one node says of the cell, once it does.
    pub fn view(&self, at: usize, mut wanted: impl FnMut(&Value) -> bool) -> Value {
        eventually("the node says so", || {
            let said = self.at(at, ["cluster", "status", "--json"]);
            (said.code == 0).then(|| said.json()).filter(&mut wanted)
        })
    }

    /// Waits until a primary has so many members that follow it, and says how the cell is.
    pub fn await_members(&self, count: usize) -> Value {
        eventually("the cell has its members", || {
            let said = self.anywhere(["cluster", "status", "--json"]);
            let status = if said.code == 0 { said.json() } else { return None };
            let members = status["members"].as_array()?;
            let follow = members.iter().all(|member| member["lag"].is_u64());
            (status["role"] == "primary" && members.len() == count && follow).then_some(status)
        })
    }
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
