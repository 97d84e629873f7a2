//! By hand, what luck would seldom bring about: single replicas and nodes in the moment where a mistake would show.

use std::time::Duration;

use fairlock_protocol::{CellId, DigestKey, Epoch, Tick};
use fairlock_replication::configuration::MacKey;
use fairlock_replication::log::Lsn;
use fairlock_replication::message::{Entries, Message, Round};
use fairlock_replication::node::{self, Fresh, Node, NodeSettings, peer};
use fairlock_replication::profile::Profile;
use fairlock_replication::register::{Answer, Ask};
use fairlock_replication::replica::{Input, LinkKey, Order, Output, Peer, Replica, Report, Setup};

use super::host::member;

const NOW: Tick = Tick::from_millis(1000);
const STREAM: LinkKey = LinkKey(1);

fn setup(epoch: u32, reign: u32, others: Vec<Peer>) -> Setup {
    let epochs = [epoch, reign].map(|number| Epoch::new(number).unwrap());
    Setup { epoch: epochs[0], reign: epochs[1], others, configuration: vec![] }
}

fn one(index: usize) -> Peer {
    peer(&member(index, 1))
}

fn hear(replica: &mut Replica, message: Message<'_>) {
    replica.step(NOW, Input::Received(STREAM, message));
}

/// A follower of `n0` in epoch 5 that has a table, and one entry that it does not know to be committed.
fn follower() -> Replica {
    let mut replica = Replica::new(Profile::LAN);
    replica.step(NOW, Input::Linked { link: STREAM, peer: one(0), dialed: true });
    let configuration: &[u8] = &[];
    hear(&mut replica, Message::Activate { epoch: 5, reign: 5, from: Lsn(0), snapshot: true, configuration });
    hear(&mut replica, Message::Piece { epoch: 5, number: 0, last: true, bytes: b"table" });
    replica.restored();
    let mut bytes = vec![];
    Entries::push(&mut bytes, b"entry");
    let entries = Entries::new(&bytes).unwrap();
    hear(&mut replica, Message::Append { epoch: 5, round: Round(1), commit: Lsn(0), after: Lsn(0), entries });
    assert_eq!(replica.received_lsn(), Lsn(1));
    replica
}

/// All of them.
pub fn all() {
    an_epoch_below_the_promise_is_not_activated();
    what_is_inherited_is_not_committed_at_once();
    a_joiner_with_everything_counts_before_it_is_pinned();
    a_pinned_joiner_counts_through_other_changes();
    a_failed_repetition_is_not_the_outcome();
}

fn an_epoch_below_the_promise_is_not_activated() {
    let mut replica = follower();
    replica.step(NOW, Input::Order(Order::Promise(Epoch::new(7).unwrap())));
    let configuration: &[u8] = &[];
    hear(
        &mut replica,
        Message::Activate { epoch: 6, reign: 5, from: Lsn(1), snapshot: false, configuration },
    );
    assert_eq!(replica.view(), 5, "R4: an epoch below the promise is activated");
}

fn what_is_inherited_is_not_committed_at_once() {
    let mut replica = follower();
    replica.step(NOW, Input::Order(Order::Promise(Epoch::new(7).unwrap())));
    let office = Order::Office { setup: setup(7, 7, vec![one(2)]), fresh: false };
    replica.step(NOW, Input::Order(office));
    assert_eq!(replica.commit_lsn(), Lsn(0), "R2: what is inherited is committed before a member has it");
    assert!(replica.next_committed().is_some(), "R5: it is applied");
}

/// A primary in epoch 5, and a joiner with everything.
fn primary_with_joiner() -> Replica {
    let mut replica = Replica::new(Profile::LAN);
    let office = Order::Office { setup: setup(5, 5, vec![]), fresh: true };
    replica.step(NOW, Input::Order(office));
    replica.step(NOW, Input::Linked { link: STREAM, peer: one(1), dialed: false });
    hear(&mut replica, Message::Greet { view: 0, reign: 0, received: Lsn(0), joins: true });
    assert!(replica.outputs().contains(&Output::SnapshotWanted(STREAM)));
    replica.begin_snapshot(NOW, STREAM);
    replica.offer_piece(STREAM, b"table".to_vec(), true);
    let round = replica.end_pass(NOW, true);
    assert_eq!(round, None, "nobody counts yet");
    hear(&mut replica, Message::Ack { epoch: 5, round: Round(0), received: Lsn(0), pieces: 1 });
    assert!(replica.outputs().contains(&Output::Report(Report::Joined(one(1)))));
    replica
}

fn must_wait(replica: &mut Replica, why: &str) {
    replica.append(b"entry");
    let round = replica.end_pass(NOW, true);
    assert!(round.is_some_and(|round| replica.released() < round), "R7: {why}");
    assert_eq!(replica.commit_lsn(), Lsn(0), "R7: {why}");
}

fn a_joiner_with_everything_counts_before_it_is_pinned() {
    must_wait(&mut primary_with_joiner(), "a joiner with everything does not count");
}

fn a_pinned_joiner_counts_through_other_changes() {
    let mut replica = primary_with_joiner();
    replica.step(NOW, Input::Order(Order::Pin(one(1))));
    replica.step(NOW, Input::Order(Order::Configure(setup(6, 5, vec![]))));
    replica.step(NOW, Input::Unlinked(STREAM));
    must_wait(&mut replica, "a pinned joiner does not count any more");
}

fn a_failed_repetition_is_not_the_outcome() {
    let mut node = Node::new(NodeSettings {
        me: member(0, 1),
        shards: 1,
        profile: Profile::LAN,
        feature_level: 1,
        fresh: Fresh {
            cell: CellId(7),
            epoch: Epoch::new(10).unwrap(),
            digest_key: DigestKey([1, 2]),
            mac_key: MacKey([3; 16]),
        },
        ttl_max: Duration::from_mins(10),
    });
    let mut asked = |input: node::Input| {
        node.step(NOW, input);
        let outputs = std::mem::take(node.outputs());
        let ask = outputs.into_iter().find_map(|output| match output {
            node::Output::Ask(ask) => Some(ask),
            _ => None,
        });
        (ask, node.is_asking())
    };
    asked(node::Input::Tick);
    let (ask, _) = asked(node::Input::Register(Answer::Value(None)));
    assert!(matches!(ask, Some(Ask::Cas { .. })));
    asked(node::Input::Register(Answer::Unknown("lost".into())));
    let (again, _) = asked(node::Input::Register(Answer::Value(None)));
    assert_eq!(again, ask, "the same once more");
    let (_, checks) = asked(node::Input::Register(Answer::Failed("no quorum".into())));
    assert!(checks, "R7: a failed repetition is taken for the outcome of the first try");
}
