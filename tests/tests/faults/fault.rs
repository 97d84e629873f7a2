//! What can befall a cell: drawn from a seed, done, and made good again.

use fairlock_protocol::Role;
use fairlock_tests::cell::Cell;
use fairlock_tests::random::Random;
use rustix::process::{Pid, Resource, Rlimit, prlimit};
use serde_json::json;
use std::time::Duration;

/// Shortest and longest time a fault lasts.
const LENGTHS_MS: (u64, u64) = (10, 3000);

/// What happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    NodeKilled,
    NodeFrozen,
    CellKilled,
    LineCut,
    LineCutOneWay,
    NodeIsolated,
    NodeWithoutRegister,
    NodeDeafToRegister,
    ClientsCutOneWay,
    LineLossy,
    NodeSlow,
    LineDelayed,
    RegisterKilled,
    RegisterFrozen,
    LeaderKilled,
    LeaderFrozen,
    DiskFull,
    NoDescriptors,
}

/// All of them; the first ones happen to the primary as often as to the others.
const KINDS: [Kind; 18] = [
    Kind::NodeKilled,
    Kind::NodeFrozen,
    Kind::CellKilled,
    Kind::LineCut,
    Kind::LineCutOneWay,
    Kind::NodeIsolated,
    Kind::NodeWithoutRegister,
    Kind::NodeDeafToRegister,
    Kind::ClientsCutOneWay,
    Kind::LineLossy,
    Kind::NodeSlow,
    Kind::LineDelayed,
    Kind::RegisterKilled,
    Kind::RegisterFrozen,
    Kind::LeaderKilled,
    Kind::LeaderFrozen,
    Kind::DiskFull,
    Kind::NoDescriptors,
];

/// One thing that happens, to whom, and for how long.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Fault {
    pub(crate) kind: Kind,
    /// A node.
    node: usize,
    /// Another node, or an etcd.
    other: usize,
    pub(crate) length: Duration,
    amount: u64,
}

impl Fault {
    /// The next one of a seed, that this cell can suffer.
    pub(crate) fn draw(random: &mut Random, cell: &Cell) -> Fault {
        let nodes = cell.nodes.len();
        loop {
            let node = random.index(nodes);
            // Evenly on a scale of powers: as many short ones as long ones.
            let doublings = (LENGTHS_MS.1 / LENGTHS_MS.0).ilog2() + 1;
            let most = LENGTHS_MS.0 << random.below(u64::from(doublings) + 1);
            let length = Duration::from_millis((most / 2 + random.below(most)).min(LENGTHS_MS.1));
            let fault = Fault {
                kind: KINDS[random.index(KINDS.len())],
                node,
                other: (node + 1 + random.index((nodes - 1).max(1))) % nodes,
                length,
                amount: random.below(1000),
            };
            if fault.is_possible(cell) {
                return fault;
            }
        }
    }

    fn is_possible(&self, cell: &Cell) -> bool {
        match self.kind {
            Kind::LineCut | Kind::LineCutOneWay | Kind::LineLossy => cell.nodes.len() > 1,
            Kind::LineDelayed => !cell.lines.is_empty(),
            Kind::LeaderKilled | Kind::LeaderFrozen => cell.etcds.len() > 1,
            _ => true,
        }
    }

    /// What the one it happens to was: what came of it hangs on that.
    pub(crate) fn state(&self, cell: &Cell) -> &'static str {
        match self.kind {
            Kind::CellKilled => "all",
            Kind::RegisterKilled | Kind::RegisterFrozen | Kind::LeaderKilled | Kind::LeaderFrozen => {
                if cell.etcds.len() > 1 { "one of three" } else { "the only one" }
            }
            _ => match cell.nodes[self.node].welcome() {
                Some(welcome) if welcome.role == Role::Primary => "primary",
                Some(_) => "backup",
                None => "absent",
            },
        }
    }

    fn etcd(&self, cell: &Cell) -> usize {
        self.other % cell.etcds.len()
    }

    /// Lets it happen.
    pub(crate) fn strike(&self, cell: &mut Cell) {
        match self.kind {
            Kind::NodeKilled => cell.nodes[self.node].kill(),
            Kind::NodeFrozen if cell.nodes[self.node].is_started() => cell.nodes[self.node].freeze(),
            Kind::NodeFrozen => {}
            Kind::CellKilled => cell.nodes.iter_mut().for_each(fairlock_tests::cell::CellNode::kill),
            Kind::RegisterKilled => {
                let at = self.etcd(cell);
                cell.etcds[at].kill();
            }
            Kind::RegisterFrozen => {
                let at = self.etcd(cell);
                cell.etcds[at].freeze_if_running();
            }
            Kind::LeaderKilled => {
                let at = leader(cell);
                cell.etcds[at].kill();
            }
            Kind::LeaderFrozen => {
                let at = leader(cell);
                cell.etcds[at].freeze_if_running();
            }
            Kind::DiskFull => {
                let node = &mut cell.nodes[self.node];
                node.kill();
                let state = node.plan.state().display().to_string();
                node.plan.denied.extend(["--full-disk".to_owned(), state]);
                node.start();
            }
            Kind::NoDescriptors => limit_descriptors(cell, self.node),
            Kind::LineDelayed => {
                let delay = Duration::from_micros(200 * (1 + self.amount % 500));
                cell.lines[self.node].set(delay, delay / 4);
            }
            _ => self.break_lines(cell),
        }
    }

    fn break_lines(&self, cell: &Cell) {
        let Some(network) = &cell.network else { return };
        let (nodes, etcds) = (cell.nodes.len(), cell.etcds.len());
        let register = nodes..nodes + etcds;
        let everybody = 0..network.places().len();
        let (node, other) = (self.node, self.other);
        match self.kind {
            Kind::LineCut => {
                network.cut(node, other);
                network.cut(other, node);
            }
            Kind::LineCutOneWay => network.cut(node, other),
            Kind::NodeIsolated => everybody.filter(|at| *at != node).for_each(|at| {
                network.cut(node, at);
                network.cut(at, node);
            }),
            Kind::NodeWithoutRegister => register.for_each(|at| {
                network.cut(node, at);
                network.cut(at, node);
            }),
            Kind::NodeDeafToRegister => register.for_each(|at| network.cut(at, node)),
            Kind::ClientsCutOneWay => network.cut(node, nodes + etcds),
            Kind::LineLossy => {
                let percent = u32::try_from(5 + self.amount % 40).expect("small");
                network.lose(node, other, percent);
                network.lose(other, node, percent);
            }
            Kind::NodeSlow => network.slow(node, u32::try_from(64 + self.amount).expect("small")),
            other => unreachable!("{other:?} breaks no line"),
        }
    }

    /// For the record.
    pub(crate) fn described(&self) -> serde_json::Value {
        json!({"kind": format!("{:?}", self.kind), "node": self.node, "other": self.other,
               "ms": u64::try_from(self.length.as_millis()).unwrap_or(u64::MAX), "amount": self.amount})
    }
}

/// Everything that was broken is whole again, and everybody who was killed is started; nobody is waited for.
pub(crate) fn heal(cell: &mut Cell) {
    if let Some(network) = &cell.network {
        network.heal();
    }
    for line in &cell.lines {
        line.set(Duration::ZERO, Duration::ZERO);
    }
    for etcd in &mut cell.etcds {
        etcd.revive();
    }
    for node in &mut cell.nodes {
        let on_full_disk = node.plan.denied.iter().position(|word| word == "--full-disk");
        if let Some(at) = on_full_disk {
            node.kill();
            node.plan.denied.truncate(at);
        }
        if node.is_started() {
            node.thaw();
            set_descriptors(node.pid(), None);
        }
        node.start();
    }
    cell.etcds.iter_mut().for_each(fairlock_tests::etcd::Etcd::await_ready);
}

/// The etcd that leads, as far as anybody says.
fn leader(cell: &Cell) -> usize {
    cell.etcds.iter().position(fairlock_tests::etcd::Etcd::leads).unwrap_or(0)
}

/// Not one more descriptor than it has.
fn limit_descriptors(cell: &Cell, node: usize) {
    let node = &cell.nodes[node];
    if node.is_started() {
        let pid = node.pid();
        let open = std::fs::read_dir(format!("/proc/{}/fd", pid.as_raw_nonzero())).map_or(0, Iterator::count);
        set_descriptors(pid, Some(u64::try_from(open).expect("a count")));
    }
}

/// So many at most; `None` for as many as it was given at its start. One that is gone has none.
fn set_descriptors(pid: Pid, most: Option<u64>) {
    let Ok(before) = prlimit(Some(pid), Resource::Nofile, rustix::process::getrlimit(Resource::Nofile))
    else {
        return;
    };
    if let Some(most) = most {
        let limit = Rlimit { current: Some(most), maximum: before.maximum };
        let _ = prlimit(Some(pid), Resource::Nofile, limit);
    }
}
