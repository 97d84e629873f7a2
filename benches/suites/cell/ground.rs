//! What all measurements of a run stand on: the places, and the register. This program itself is at the first place, so that
//! whatever it says to a node crosses the network between them.

use fairlock_benches::cell::{Cell, CellPlan};
use fairlock_benches::etcd::Etcd;
use fairlock_benches::network::{Network, Place};
use fairlock_benches::scratch;
use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};

/// Places of nodes: those of a cell of one, of two and of three stand side by side.
const NODES: u8 = 6;
/// Members of the etcd.
const MEMBERS: u8 = 3;

/// See the module.
pub(crate) struct Ground<'a> {
    /// The program that is measured.
    pub(crate) program: &'a PathBuf,
    /// The register.
    pub(crate) etcd: Etcd,
    cells: AtomicU32,
    /// Last, so that everybody is gone before it is.
    network: Network,
}

/// How the nodes of a cell run.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Manner<'a> {
    /// `uring`, `epoll` or `auto`.
    pub(crate) io: &'a str,
    /// `always`, `never` or `auto`.
    pub(crate) poll: &'a str,
    /// The core of the first node, and that of the others; `None`: any.
    pub(crate) cores: Option<(usize, usize)>,
}

impl Manner<'_> {
    /// As a server does that is told nothing.
    pub(crate) const USUAL: Manner<'static> = Manner { io: "auto", poll: "auto", cores: None };
}

impl<'a> Ground<'a> {
    /// Makes the places and starts the register; this program moves to the first place.
    pub(crate) fn prepare(program: &'a PathBuf) -> io::Result<Ground<'a>> {
        scratch::sweep();
        let network = Network::new(1 + NODES + MEMBERS);
        network.places[0].enter()?;
        let etcd = Etcd::start(&network.places[usize::from(1 + NODES)..])?;
        Ok(Ground { program, etcd, cells: AtomicU32::new(0), network })
    }

    /// What it is, for the top of the output.
    pub(crate) fn line(&self) -> String {
        format!(
            "nodes, clients and a register of {MEMBERS} etcds: {}; {}; profile lan; leases of {:?}",
            self.network.kind(),
            scratch::kind(),
            fairlock_protocol::limits::TTL_DEFAULT,
        )
    }

    /// Places of a cell with so many nodes, apart from those of smaller cells.
    pub(crate) fn places(&self, nodes: usize) -> &[Place] {
        let first = 1 + nodes * (nodes - 1) / 2;
        &self.network.places[first..first + nodes]
    }

    /// Starts a cell of so many nodes, at most three, and waits until all are members.
    pub(crate) fn cell(&self, nodes: usize, manner: Manner<'_>) -> io::Result<Cell> {
        // Only its uniqueness matters; pairs with nothing.
        let number = self.cells.fetch_add(1, Ordering::Relaxed);
        let Manner { io, poll, cores } = manner;
        Cell::start(&CellPlan {
            name: format!("bench-{number}"),
            program: self.program,
            io,
            poll,
            places: self.places(nodes),
            register: self.etcd.url(),
            cores,
        })
    }
}
