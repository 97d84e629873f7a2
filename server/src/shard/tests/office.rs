//! A shard of a cell whose other node is played by hand: what a primary shows its clients on this host when it is cut off, and
//! when it leaves office.

use std::time::Duration;

use fairlock_locktable::{Limits, NamespaceRules, Settings as TableSettings};
use fairlock_protocol::{Epoch, Reply, Request, ShardId, Tick};
use fairlock_replication::message::Message;
use fairlock_replication::profile::Profile;
use fairlock_replication::replica::{Input, LinkKey, Order, Output, Peer, Replica, Report, Setup};
use fairlock_replication::{Incarnation, NodeId};
use fairlock_shm::word::Holder;

use super::words::cached;
use super::world::{World, open};
use crate::lanes::{ToControl, ToShard};

const STREAM: LinkKey = LinkKey(1);

fn node(name: &str, life: u64) -> Peer {
    Peer { node: NodeId::new(name).unwrap(), incarnation: Incarnation::new(life).unwrap() }
}

fn setup(epoch: u32, reign: u32, others: &[Peer]) -> Setup {
    let number = |number| Epoch::new(number).unwrap();
    Setup { epoch: number(epoch), reign: number(reign), others: others.to_vec(), configuration: vec![] }
}

/// A primary in epoch 5 and the other node.
struct Cell {
    world: World,
    other: Replica,
}

impl Cell {
    fn alone() -> Cell {
        let mut world = World::new(1);
        let (limits, rules) = (Limits::default(), NamespaceRules::new());
        let epoch = Epoch::new(5).unwrap();
        let table = TableSettings { epoch, shard: ShardId(0), index_key: 7, limits, rules };
        world.shards[0].replicate(Replica::new(Profile::LAN), table);
        let mut cell = Cell { world, other: Replica::new(Profile::LAN) };
        cell.order(Order::Office { setup: setup(5, 5, &[]), fresh: true });
        cell
    }

    /// The other node joins.
    fn joined(mut self) -> Cell {
        let now = self.world.now;
        self.world.shards[0].peer_linked(now, STREAM, node("b", 2), false);
        self.other.step(now, Input::Linked { link: STREAM, peer: node("a", 1), dialed: true });
        self.talk();
        assert!(self.reported(&Report::Joined(node("b", 2))));
        self.order(Order::Pin(node("b", 2)));
        self.talk();
        self.order(Order::Configure(setup(6, 5, &[node("b", 2)])));
        self.talk();
        self
    }

    fn order(&mut self, order: Order) {
        self.world.shards[0].message(self.world.now, ToShard::Order(Box::new(order)));
        self.world.turn();
    }

    fn reported(&self, wanted: &Report) -> bool {
        let is_it = |said: &ToControl| matches!(said, ToControl::Report { report, .. } if report == wanted);
        self.world.to_control.iter().any(is_it)
    }

    /// Carries what both nodes have to say, until nothing is left.
    fn talk(&mut self) {
        loop {
            self.world.turn();
            let now = self.world.now;
            let mut bytes = vec![];
            self.world.shards[0].take_peer_out(|_, out| bytes.append(out));
            let mut rest = bytes.as_slice();
            while let Some((message, length)) = Message::split(rest).unwrap() {
                self.other.step(now, Input::Received(STREAM, message));
                rest = &rest[length..];
            }
            for output in std::mem::take(self.other.outputs()) {
                if matches!(output, Output::Piece { last: true, .. }) {
                    self.other.restored();
                }
            }
            self.other.end_pass(now, false);
            let mut answer = vec![];
            self.other.take_out(|_, out| answer.append(out));
            self.world.shards[0].peer_received(STREAM, &answer);
            if bytes.is_empty() && answer.is_empty() {
                break;
            }
        }
    }

    /// Time goes on, a heartbeat at a time; nobody carries anything.
    fn pass_alone(&mut self, time: Duration) {
        let until = self.world.now.after(time);
        while self.world.now < until {
            self.world.pass_ms(5);
        }
    }

    fn confirmed(&self) -> Option<Tick> {
        self.world.shards[0].confirmed(self.world.now)
    }
}

/// R9: a stamp is as old as the newest round that everybody answered, also while no round is begun.
#[test]
fn a_primary_that_nobody_answers_confirms_nothing() {
    let mut cell = Cell::alone();
    cell.world.pass_ms(100);
    assert_eq!(cell.confirmed(), Some(cell.world.now), "alone it answers to nobody");
    let mut cell = cell.joined();
    cell.world.pass_ms(5);
    cell.talk();
    let confirmed = cell.confirmed();
    assert_eq!(confirmed, Some(cell.world.now));
    cell.world.shards[0].peer_unlinked(cell.world.now, STREAM);
    cell.pass_alone(Duration::from_secs(1));
    assert_eq!(cell.confirmed(), confirmed);
}

/// G1: after an office another node may end the sessions that were served here, and this one may stamp again.
#[test]
fn who_leaves_office_renews_nobody_beyond_what_was_confirmed() {
    for others in [false, true] {
        let mut cell = Cell::alone();
        let (line, segment) = cell.world.share(0);
        cell.world.open_on(line, 60_000);
        if others {
            cell = cell.joined();
            cell.world.pass_ms(5);
            cell.talk();
        }
        let confirmed = cell.confirmed().unwrap();
        if others {
            cell.pass_alone(Duration::from_millis(20));
        }
        assert_eq!(segment.status().renewed_until(), None);
        cell.order(Order::StepDown);
        assert_eq!(segment.status().renewed_until(), Some(confirmed.0));
        assert!(!segment.status().has_ended() && !cell.world.is_open(line));
    }
}

/// G49: a client that leaves a primary which was replaced loses nothing by it: the end of a session counts when everybody has it.
#[test]
fn the_end_of_a_session_is_shown_when_everybody_has_it() {
    for is_replaced in [false, true] {
        let mut cell = Cell::alone();
        let (line, segment) = cell.world.share(0);
        cell.world.open_on(line, 60_000);
        let (_, index, generation) = cached(&mut cell.world, line, 1, "x");
        let mut cell = cell.joined();
        cell.world.hang_up(line);
        cell.world.turn();
        let shows = || {
            let is_inside = segment.word(index).unwrap().is_held(generation, Holder::GRANTED);
            (segment.status().has_ended(), is_inside)
        };
        assert_eq!(shows(), (false, true));
        if is_replaced {
            cell.order(Order::StepDown);
        } else {
            cell.talk();
        }
        assert_eq!(shows(), (!is_replaced, is_replaced));
        assert_eq!(segment.status().renewed_until().is_some(), is_replaced);
    }
}

/// G1: a client that this side drops may live and believe, and what ends its session may be known to others before it is here.
#[test]
fn the_end_of_a_client_that_is_dropped_is_shown_at_once() {
    let mut cell = Cell::alone();
    let (line, segment) = cell.world.share(0);
    cell.world.open_on(line, 60_000);
    let mut cell = cell.joined();
    cell.world.send_bytes(line, &[0xFF; 64]);
    assert!(segment.status().has_ended());
}

/// G50: what the register covers is asked for anew in every office.
#[test]
fn a_lease_of_an_earlier_office_covers_none_of_the_next() {
    let mut cell = Cell::alone();
    let line = cell.world.greet(0);
    cell.world.open_on(line, 60_000);
    assert!(!cell.world.to_control.iter().any(|said| matches!(said, ToControl::RaiseHorizon { .. })));
    cell.order(Order::StepDown);
    cell.order(Order::Office { setup: setup(7, 7, &[]), fresh: true });
    let line = cell.world.greet(0);
    cell.world.send(line, 0, 0, &Request::Open(open(60_000)));
    assert!(cell.world.heard(line).is_empty());
    let asks = |said: &ToControl| matches!(said, ToControl::RaiseHorizon { ttl_ms: 60_000 });
    assert!(cell.world.to_control.iter().any(asks));
    cell.world.shards[0].message(cell.world.now, ToShard::HorizonRaised { ttl_ms: 60_000 });
    cell.world.turn();
    assert!(cell.world.heard(line).iter().any(|heard| matches!(heard.reply(), Reply::Opened { .. })));
}
