//! Several nodes: which of them is asked, what each knows of the cell, and what an operator wishes of it.
//!
//! Only the primary has locks and sessions, so a question about them goes on to the node that a backup names. What a node
//! is asked about itself stays with it.

use super::{Admin, Looked, always};
use crate::clock;
use crate::dial;
use crate::endpoint::Endpoint;
use crate::error::{AdminError, ConnectError};
use crate::transport::{self, Target};
use fairlock_protocol::cluster::{ClusterView, NodeEntry};
use fairlock_protocol::limits::NODE_NAMES_BYTES_MAX;
use fairlock_protocol::{CellId, Refusal, Reply, Request, Role, Tick};
use std::sync::Arc;
use std::time::Duration;

pub use fairlock_protocol::cluster::NodePart;

/// Pause before a node that is not the primary is asked again: another may be about to take over.
const NEXT_LOOK: Duration = Duration::from_millis(50);
/// Longest try to reach one node while another may be the right one.
const ONE_NODE: Duration = Duration::from_secs(1);

/// One node of a cell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeLine {
    /// Its name.
    pub node: String,
    /// Its part.
    pub part: NodePart,
    /// Which of its lives, as the register knows it.
    pub incarnation: u64,
    /// Id of its machine.
    pub machine: String,
    /// Where other nodes reach it.
    pub peer: String,
    /// Where clients reach it: an endpoint; may be empty.
    pub clients: String,
    /// Operations it has not acknowledged; `None`: not known to the node that was asked, or it is not connected.
    pub lag: Option<u64>,
    /// Shards that have a stream with it; only the primary knows.
    pub streams: u16,
}

/// A cell, as one of its nodes knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClusterReport {
    /// Its name.
    pub name: String,
    /// Its id; 0 while the node knows nothing.
    pub cell: CellId,
    /// Number of its configuration; 0: not known.
    pub epoch: u32,
    /// Epoch in which the primary took office.
    pub reign: u32,
    /// The primary; empty: not known.
    pub primary: String,
    /// The node that was asked.
    pub node: String,
    /// Its part.
    pub part: NodePart,
    /// Newest operations in use, and the newest the node that was asked understands.
    pub feature_level: u16,
    /// The newest that the node that was asked understands.
    pub feature_level_own: u16,
    /// Shards of every node.
    pub shards: u16,
    /// Members with a copy.
    pub copies: u16,
    /// With fewer nothing is granted, as the node that was asked is told.
    pub copies_min: u16,
    /// Longest lease so far, in milliseconds.
    pub ttl_horizon_ms: u32,
    /// What is left of a quarantine, in milliseconds.
    pub recovering_ms: u32,
    /// It began anew without what its nodes knew.
    pub state_lost: bool,
    /// Where the register is.
    pub register: String,
    /// Why it does not answer; empty: it does.
    pub register_fault: String,
    /// Nodes that the one that was asked waits for.
    pub waits_for: Vec<String>,
    /// What somebody should look at.
    pub alarms: Vec<String>,
    /// Members, then who is on the way to become one.
    pub nodes: Vec<NodeLine>,
}

/// Something was done to a cell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fulfilled {
    /// How long it took, as the server counts.
    pub took: Duration,
    /// The epoch since.
    pub epoch: u32,
    /// The primary's endpoint since; empty: not known.
    pub primary: String,
}

impl From<NodeEntry<'_>> for NodeLine {
    fn from(entry: NodeEntry<'_>) -> NodeLine {
        NodeLine {
            node: entry.node.to_owned(),
            part: entry.part,
            incarnation: entry.incarnation,
            machine: entry.machine.to_owned(),
            peer: entry.peer.to_owned(),
            clients: entry.clients.to_owned(),
            lag: entry.lag,
            streams: entry.streams,
        }
    }
}

impl From<&ClusterView<'_>> for ClusterReport {
    fn from(view: &ClusterView<'_>) -> ClusterReport {
        let names = view.waits_for.split(',').filter(|name| !name.is_empty());
        ClusterReport {
            name: view.name.to_owned(),
            cell: view.cell,
            epoch: view.epoch,
            reign: view.reign,
            primary: view.primary.to_owned(),
            node: view.node.to_owned(),
            part: view.part,
            feature_level: view.feature_level,
            feature_level_own: view.feature_level_own,
            shards: view.shards,
            copies: view.copies,
            copies_min: view.copies_min,
            ttl_horizon_ms: view.ttl_horizon_ms,
            recovering_ms: view.recovering_ms,
            state_lost: view.state_lost,
            register: view.register.to_owned(),
            register_fault: view.register_fault.to_owned(),
            waits_for: names.map(str::to_owned).collect(),
            alarms: view.alarms.lines().map(str::to_owned).collect(),
            nodes: view.nodes.entries().map(NodeLine::from).collect(),
        }
    }
}

/// What an endpoint means now; a name that cannot be looked up is left out as long as another leads somewhere.
pub(super) fn targets(endpoint: &Endpoint) -> Result<Vec<Target>, ConnectError> {
    let mut found = Vec::new();
    let mut last = None;
    for address in endpoint.addresses() {
        match transport::places(address) {
            Ok(places) => found.extend(places),
            Err(source) => {
                let endpoint = address.to_string();
                last = Some(ConnectError::Unreachable { endpoint, source: Arc::new(source) });
            }
        }
    }
    match last {
        Some(error) if found.is_empty() => Err(error),
        _ => Ok(found),
    }
}

impl Admin {
    /// What the node that is asked is to its cell.
    pub fn role(&self) -> Role {
        self.role
    }

    /// The cell as the node that is asked knows it.
    ///
    /// # Errors
    /// [`AdminError`]; [`Refusal::Unsupported`] by a server without a cell.
    pub fn cluster(&mut self) -> Result<ClusterReport, AdminError> {
        self.ask(0, &Request::Cluster, |reply| match reply {
            Reply::Cluster(view) => Some(ClusterReport::from(view)),
            _ => None,
        })
    }

    /// Has another member take over without a gap: the one named, or any. Returns when it serves.
    ///
    /// # Errors
    /// [`AdminError`], with the reason.
    pub fn switchover(&mut self, to: Option<&str>) -> Result<Fulfilled, AdminError> {
        let to = to.unwrap_or_default();
        self.at_primary(|admin| admin.wish(to, Request::Switchover(to)))
    }

    /// Has a member taken out of the cell. It joins again by itself when it lives. Returns when the configuration has
    /// changed.
    ///
    /// # Errors
    /// [`AdminError`], with the reason.
    pub fn evict(&mut self, node: &str) -> Result<Fulfilled, AdminError> {
        self.at_primary(|admin| admin.wish(node, Request::Evict(node)))
    }

    /// Asserts that the named nodes are off, and has the node that is asked begin the cell anew without what they know:
    /// every lock is lost, and nothing is granted until the longest lease is over. Returns when it serves.
    ///
    /// # Errors
    /// [`AdminError`], with the reason.
    pub fn force_new(&mut self, off: &[String]) -> Result<Fulfilled, AdminError> {
        let names = off.join(",");
        self.wish(&names, Request::ForceNew(&names))
    }

    fn wish(&mut self, names: &str, request: Request<'_>) -> Looked<Fulfilled> {
        if names.len() > NODE_NAMES_BYTES_MAX {
            return Err(AdminError::Refused(Refusal::TooLong));
        }
        self.ask(0, &request, |reply| match reply {
            Reply::Fulfilled { took_ms, primary } => Some(Fulfilled {
                took: Duration::from_millis((*took_ms).into()),
                epoch: primary.epoch,
                primary: primary.endpoints.to_owned(),
            }),
            _ => None,
        })
    }

    /// Asks the primary: a node that is not names it, or one of those that are known is.
    pub(super) fn at_primary<R>(&mut self, mut question: impl FnMut(&mut Admin) -> Looked<R>) -> Looked<R> {
        let until = clock::now().after(self.deadline);
        loop {
            match question(self) {
                Err(error)
                    if error.refusal() == Some(Refusal::NotPrimary)
                        && clock::now().after(NEXT_LOOK) < until =>
                {
                    if !self.go_to_primary(until) {
                        std::thread::sleep(NEXT_LOOK);
                    }
                }
                said => return said,
            }
        }
    }

    /// Changes over to the primary, if one of the nodes that are known is; the one it is at names it, as a rule.
    pub(super) fn go_to_primary(&mut self, until: Tick) -> bool {
        if self.hint.is_none() {
            // Any question about sessions is answered with where to ask.
            let _ = self.ask(0, &Request::Sessions { cursor: 0 }, |_| Some(()));
        }
        let told = self.hint.take().and_then(|hint| hint.parse::<Endpoint>().ok());
        let told = told.and_then(|told| targets(&told).ok()).unwrap_or_default();
        for target in told.iter().chain(&self.named.clone()) {
            let left = until.since(clock::now()).min(ONE_NODE);
            if left.is_zero() {
                return false;
            }
            match Admin::connect_to(target, left, self.deadline) {
                Ok(other) if other.role != Role::Backup && other.cell == self.cell => {
                    *self = Admin { named: std::mem::take(&mut self.named), ..other };
                    return true;
                }
                _ => {}
            }
        }
        false
    }

    /// Of several nodes that were named, the primary is asked if it can be found.
    pub(super) fn prefer_primary(mut self, until: Tick) -> Admin {
        if self.role == Role::Backup && self.named.len() > 1 {
            self.go_to_primary(until);
        }
        self
    }
}

/// Tries the places in their order, each for its share of the time, and says what became of all when nobody answers.
pub(super) fn reach(named: Vec<Target>, deadline: Duration) -> Result<Admin, ConnectError> {
    let until = clock::now().after(deadline);
    let admin = dial::first_that(&|| named.clone(), deadline, &always, |target, allowed| {
        Admin::connect_to(target, allowed, deadline)
    })?;
    Ok(Admin { named, ..admin }.prefer_primary(until))
}
