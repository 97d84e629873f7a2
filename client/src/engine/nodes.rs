//! Where the nodes of the cell can be reached: what the program named, and what servers have said since.
//!
//! What a server says is a hint, however often it is right: it decides where to ask first, and whoever answers there must
//! show that it belongs to the cell. So anything that does not read is overlooked, and news of an earlier epoch is old.

use crate::endpoint::Address;
use crate::session::Directions;
use crate::transport::{self, Bell, Target};
use fairlock_protocol::Epoch;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Places that are known at most; a cell has a few nodes, a host name a few addresses.
const PLACES_MAX: usize = 32;

/// What one client knows.
#[derive(Debug)]
pub(crate) struct Nodes {
    /// What servers say is used: not where the program insists on another transport than TCP, which is all they offer.
    listens: bool,
    /// Rung when more is known.
    bell: Arc<Bell>,
    known: Mutex<Known>,
}

#[derive(Debug)]
struct Known {
    named: Vec<Target>,
    told: Vec<Target>,
    /// Both, each place once, in that order.
    all: Arc<[Target]>,
    /// How often `all` has changed.
    revision: u64,
    /// Of the newest news.
    epoch: u32,
    /// Who decides, by that news.
    primary: Option<Address>,
    /// The epoch of the first news of that one.
    since: u32,
    /// Host names that are yet to be looked up, and whether a thread is at it.
    names: Vec<Address>,
    looking: bool,
}

impl Nodes {
    pub(crate) fn new(named: Vec<Target>, listens: bool, bell: &Arc<Bell>) -> Arc<Nodes> {
        assert!(!named.is_empty(), "an endpoint has a member");
        let known = Known {
            all: named.clone().into(),
            named,
            told: Vec::new(),
            revision: 1,
            epoch: 0,
            primary: None,
            since: 0,
            names: Vec::new(),
            looking: false,
        };
        Arc::new(Nodes { listens, bell: Arc::clone(bell), known: Mutex::new(known) })
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Every place, what the program named first.
    pub(crate) fn all(&self) -> Arc<[Target]> {
        Arc::clone(&self.known().all)
    }

    /// Every place, the primary's first.
    pub(super) fn in_order(&self) -> Vec<Target> {
        let known = self.known();
        let mut all = known.all.to_vec();
        all.sort_by_key(|target| !known.is_primary(target));
        all
    }

    /// The places of each node, and how often they have changed.
    pub(super) fn by_node(&self) -> (Vec<Vec<Target>>, u64) {
        let known = self.known();
        let mut nodes: Vec<Vec<Target>> = Vec::new();
        for target in known.all.iter() {
            match nodes.iter_mut().find(|node| node[0].is_same_node(target)) {
                Some(node) => node.push(target.clone()),
                None => nodes.push(vec![target.clone()]),
            }
        }
        (nodes, known.revision)
    }

    pub(super) fn revision(&self) -> u64 {
        self.known().revision
    }

    /// Whether there is more than one node.
    pub(super) fn are_several(&self) -> bool {
        let known = self.known();
        known.all.iter().any(|target| !target.is_same_node(&known.all[0]))
    }

    /// The epoch of the newest news.
    pub(super) fn epoch(&self) -> u32 {
        self.known().epoch
    }

    /// The epoch in which the primary was first said to be the one it is; 0 before the first news.
    pub(super) fn primary_since(&self) -> u32 {
        self.known().since
    }

    /// Whether the primary was said to be there.
    pub(super) fn is_primary(&self, target: &Target) -> bool {
        self.known().is_primary(target)
    }

    /// The names the program gave were looked up again.
    pub(super) fn set_named(&self, named: Vec<Target>) {
        if !named.is_empty() {
            let mut known = self.known();
            known.named = named;
            known.settle();
        }
    }

    /// A server has said where nodes are: `whole`, all of them, the primary first; else the primary alone.
    pub(super) fn learn(self: &Arc<Self>, said: &Directions, whole: bool) {
        let addresses = read(&said.endpoints);
        let mut known = self.known();
        let is_news = Epoch::new(said.epoch).is_some() && said.epoch >= known.epoch;
        let Some(primary) = addresses.first().filter(|_| is_news && self.listens) else { return };
        known.epoch = said.epoch;
        if known.primary.replace(primary.clone()).is_none_or(|former| former != *primary) {
            known.since = said.epoch;
        }
        let former = std::mem::take(&mut known.told);
        for address in addresses {
            let before = former.iter().chain(&known.named).filter(|target| target.is_at(&address));
            let mut found: Vec<Target> = before.cloned().collect();
            found.extend(literal(&address).filter(|_| found.is_empty()));
            if found.is_empty() {
                known.names.push(address);
            }
            known.told.extend(found);
        }
        if !whole {
            known.told.extend(former);
        }
        known.settle();
        if !known.names.is_empty() && !std::mem::replace(&mut known.looking, true) {
            drop(known);
            self.look_up();
        }
    }

    /// Names are looked up by a thread that may wait for it, and ends when there is none left.
    fn look_up(self: &Arc<Self>) {
        let nodes = Arc::clone(self);
        let started = std::thread::Builder::new().name("fairlock-names".to_owned()).spawn(move || {
            while let Some(address) = nodes.next_name() {
                let found = transport::places(&address).unwrap_or_else(|error| {
                    tracing::debug!(%error, %address, "a node's name is not known here");
                    Vec::new()
                });
                let mut known = nodes.known();
                known.told.extend(found);
                known.settle();
                drop(known);
                nodes.bell.ring();
            }
        });
        if started.is_err() {
            let mut known = self.known();
            known.names.clear();
            known.looking = false;
        }
    }

    fn next_name(&self) -> Option<Address> {
        let mut known = self.known();
        let next = known.names.pop();
        known.looking = next.is_some();
        next
    }
}

impl Known {
    fn is_primary(&self, target: &Target) -> bool {
        self.primary.as_ref().is_some_and(|primary| target.is_at(primary))
    }

    /// Puts together what is known.
    fn settle(&mut self) {
        let mut all: Vec<Target> = Vec::new();
        for target in self.named.iter().chain(&self.told) {
            if all.len() < PLACES_MAX && !all.iter().any(|known| known.is_same_place(target)) {
                all.push(target.clone());
            }
        }
        self.told.truncate(PLACES_MAX);
        self.names.truncate(PLACES_MAX);
        let is_same = all.len() == self.all.len()
            && all.iter().zip(self.all.iter()).all(|(new, old)| new.is_same_place(old));
        if !is_same {
            self.all = all.into();
            self.revision += 1;
        }
    }
}

/// The addresses in a text of a server's that mean something on another host, too.
fn read(endpoints: &str) -> Vec<Address> {
    let addresses = endpoints.split(',').filter_map(|text| text.trim().parse().ok());
    addresses.filter(|address| matches!(address, Address::Tcp { .. })).take(PLACES_MAX).collect()
}

/// An address that needs no looking up.
fn literal(address: &Address) -> Option<Target> {
    let Address::Tcp { host, port } = address else { return None };
    let ip: IpAddr = host.parse().ok()?;
    Some(Target::Tcp(SocketAddr::new(ip, *port), address.clone()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nodes(listens: bool) -> Arc<Nodes> {
        let named = Target::Tcp("127.0.0.1:1".parse().unwrap(), "tcp://127.0.0.1:1".parse().unwrap());
        Nodes::new(vec![named], listens, &Arc::new(Bell::new().unwrap()))
    }

    fn said(epoch: u32, endpoints: &str) -> Directions {
        Directions { epoch, endpoints: endpoints.into() }
    }

    fn texts(nodes: &Nodes) -> Vec<String> {
        nodes.in_order().iter().map(Target::to_string).collect()
    }

    #[test]
    fn members_are_learned_and_the_primary_comes_first() {
        let nodes = nodes(true);
        assert!(!nodes.are_several());
        nodes.learn(&said(4, "tcp://127.0.0.2:1,tcp://127.0.0.1:1"), true);
        assert_eq!(texts(&nodes), ["tcp://127.0.0.2:1", "tcp://127.0.0.1:1"]);
        assert!(nodes.are_several() && nodes.by_node().0.len() == 2);
        nodes.learn(&said(5, "tcp://127.0.0.3:1"), true);
        assert_eq!(texts(&nodes), ["tcp://127.0.0.3:1", "tcp://127.0.0.1:1"], "what was named stays");
        assert_eq!((nodes.epoch(), nodes.primary_since()), (5, 5));
        nodes.learn(&said(5, "tcp://127.0.0.4:1"), false);
        assert_eq!(texts(&nodes), ["tcp://127.0.0.4:1", "tcp://127.0.0.1:1", "tcp://127.0.0.3:1"]);
        nodes.learn(&said(6, "tcp://127.0.0.4:1,tcp://127.0.0.5:1"), true);
        assert_eq!((nodes.epoch(), nodes.primary_since()), (6, 5), "another member is no other primary");
    }

    #[test]
    fn what_does_not_read_or_is_old_is_overlooked() {
        let nodes = nodes(true);
        nodes.learn(&said(5, "tcp://127.0.0.2:1"), true);
        let before = texts(&nodes);
        for (epoch, endpoints) in [
            (4, "tcp://127.0.0.9:1"),
            (0, "tcp://127.0.0.9:1"),
            (u32::MAX, "tcp://127.0.0.9:1"),
            (6, ""),
            (6, "unix:/run/x,nonsense,tcp://:0"),
        ] {
            nodes.learn(&said(epoch, endpoints), true);
            assert_eq!(texts(&nodes), before, "{epoch} {endpoints}");
        }
        let deaf = self::nodes(false);
        deaf.learn(&said(6, "tcp://127.0.0.2:1"), true);
        assert_eq!(texts(&deaf), ["tcp://127.0.0.1:1"]);
    }

    #[test]
    fn no_more_places_are_kept_than_there_is_use_for() {
        let nodes = nodes(true);
        let many: Vec<String> = (2..100).map(|number| format!("tcp://127.0.1.{number}:1")).collect();
        nodes.learn(&said(5, &many.join(",")), true);
        assert_eq!(nodes.all().len(), PLACES_MAX);
    }

    #[test]
    fn a_host_name_is_looked_up_by_somebody_else() {
        let nodes = nodes(true);
        nodes.learn(&said(5, "tcp://localhost:9"), true);
        while nodes.known().looking {
            std::thread::yield_now();
        }
        assert!(nodes.is_primary(nodes.all().last().unwrap()), "{:?}", nodes.all());
    }
}
