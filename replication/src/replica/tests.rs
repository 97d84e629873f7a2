//! Two replicas, by hand.

use super::*;
use crate::{Incarnation, NodeId};
use alloc::string::ToString;
use core::time::Duration;
use std::vec;
use std::vec::Vec;

fn peer(name: &str, life: u64) -> Peer {
    Peer { node: NodeId::new(name).unwrap(), incarnation: Incarnation::new(life).unwrap() }
}

fn setup(epoch: u32, reign: u32, others: &[Peer]) -> Setup {
    Setup {
        epoch: Epoch::new(epoch).unwrap(),
        reign: Epoch::new(reign).unwrap(),
        others: others.to_vec(),
        configuration: epoch.to_string().into_bytes(),
    }
}

/// A primary `a` and a follower `b`, and the stream between them.
struct Pair {
    now: Tick,
    a: Replica,
    b: Replica,
    applied: Vec<Vec<u8>>,
    snapshot: Vec<u8>,
}

const STREAM: LinkKey = LinkKey(1);

impl Pair {
    fn new() -> Pair {
        let (a, b) = (Replica::new(Profile::LAN), Replica::new(Profile::LAN));
        let now = Tick::from_millis(1000);
        let mut pair = Pair { now, a, b, applied: vec![], snapshot: vec![] };
        pair.a.step(now, Input::Order(Order::Office { setup: setup(5, 5, &[]), fresh: true }));
        pair.a.outputs().clear();
        pair
    }

    fn link(&mut self) {
        self.a.step(self.now, Input::Linked { link: STREAM, peer: peer("b", 2), dialed: false });
        self.b.step(self.now, Input::Linked { link: STREAM, peer: peer("a", 1), dialed: true });
    }

    /// With `b` as a member.
    fn joined() -> Pair {
        let mut pair = Pair::new();
        pair.link();
        pair.talk();
        pair.a.step(pair.now, Input::Order(Order::Pin(peer("b", 2))));
        pair.a.step(pair.now, Input::Order(Order::Configure(setup(6, 5, &[peer("b", 2)]))));
        pair.talk();
        pair
    }

    /// Moves bytes and ends passes until nothing is left to say.
    fn talk(&mut self) -> Vec<Report> {
        let mut reports = vec![];
        for _ in 0..100 {
            self.a.end_pass(self.now, false);
            self.b.end_pass(self.now, false);
            let busy = carry(self.now, &mut self.a, &mut self.b) | carry(self.now, &mut self.b, &mut self.a);
            for output in mem::take(self.a.outputs()) {
                match output {
                    Output::SnapshotWanted(link) => {
                        self.a.begin_snapshot(self.now, link);
                        self.a.offer_piece(link, b"snap".to_vec(), false);
                        self.a.offer_piece(link, b"shot".to_vec(), true);
                    }
                    Output::Report(report) => reports.push(report),
                    _ => {}
                }
            }
            for output in mem::take(self.b.outputs()) {
                match output {
                    Output::Piece { bytes, last } => {
                        self.snapshot.extend(bytes);
                        if last {
                            self.b.restored();
                        }
                    }
                    Output::Report(report) => reports.push(report),
                    _ => {}
                }
            }
            while let Some(operation) = self.b.next_committed() {
                self.applied.push(operation.to_vec());
            }
            if !busy {
                break;
            }
        }
        reports
    }
}

fn carry(now: Tick, from: &mut Replica, to: &mut Replica) -> bool {
    let mut bytes = vec![];
    from.take_out(|_, out| bytes.append(out));
    let mut rest = bytes.as_slice();
    while let Some((message, length)) = Message::split(rest).unwrap() {
        to.step(now, Input::Received(STREAM, message));
        rest = &rest[length..];
    }
    !bytes.is_empty()
}

#[test]
fn alone_nothing_waits() {
    let mut pair = Pair::new();
    assert_eq!(pair.a.append(b"one"), Lsn(1));
    assert_eq!(pair.a.end_pass(pair.now, true), None);
    assert_eq!(pair.a.commit_lsn(), Lsn(1));
}

#[test]
fn a_joiner_gets_a_snapshot_counts_and_then_holds_outputs_back() {
    let mut pair = Pair::new();
    pair.a.append(b"before");
    pair.link();
    let reports = pair.talk();
    assert!(reports.contains(&Report::Joined(peer("b", 2))), "{reports:?}");
    assert_eq!(pair.snapshot, b"snapshot");
    pair.a.step(pair.now, Input::Order(Order::Pin(peer("b", 2))));
    assert!(pair.talk().contains(&Report::Pinned(peer("b", 2))));
    pair.a.step(pair.now, Input::Order(Order::Configure(setup(6, 5, &[peer("b", 2)]))));
    pair.talk();
    pair.a.append(b"after");
    let round = pair.a.end_pass(pair.now, true).expect("a member has to acknowledge it");
    assert!(pair.a.released() < round);
    pair.talk();
    assert!(pair.a.released() >= round, "acknowledged");
    // Backups hear of a commit with the next round.
    pair.a.end_pass(pair.now, true);
    pair.talk();
    assert_eq!(pair.applied, [b"after".to_vec()]);
}

#[test]
fn whoever_takes_over_keeps_what_was_not_committed_and_the_old_one_is_told() {
    let mut pair = Pair::joined();
    pair.a.append(b"not acknowledged");
    pair.a.end_pass(pair.now, true);
    carry(pair.now, &mut pair.a, &mut pair.b);
    assert!(pair.b.next_committed().is_none(), "R3: it is not committed");
    pair.b.step(pair.now, Input::Order(Order::Promise(Epoch::new(7).unwrap())));
    pair.b.end_pass(pair.now, false);
    pair.b.take_out(|_, out| out.clear());
    pair.a.end_pass(pair.now, true);
    let reports = pair.talk();
    assert!(reports.contains(&Report::Deposed(7)), "{reports:?}");
    pair.b.step(pair.now, Input::Order(Order::Office { setup: setup(7, 7, &[]), fresh: false }));
    assert_eq!(pair.b.next_committed(), Some(b"not acknowledged".as_slice()), "R5");
    assert_eq!(pair.a.commit_lsn(), Lsn(0), "R4: nothing was acknowledged after the promise");
}

#[test]
fn a_hand_over_turns_the_stream_round() {
    let mut pair = Pair::joined();
    pair.a.append(b"last");
    let next = setup(7, 7, &[peer("b", 2)]);
    pair.a.step(pair.now, Input::Order(Order::Yield { setup: next, to: peer("b", 2) }));
    assert_eq!(pair.a.part(), Part::Yielding);
    let reports = pair.talk();
    assert!(reports.contains(&Report::Yielded { complete: true }), "{reports:?}");
    assert!(reports.iter().any(|report| matches!(report, Report::HandedOver { .. })), "{reports:?}");
    let office = Order::Office { setup: setup(7, 7, &[peer("a", 1)]), fresh: false };
    pair.b.step(pair.now, Input::Order(office));
    while pair.b.next_committed().is_some() {}
    pair.b.append(b"first");
    let round = pair.b.end_pass(pair.now, true).expect("the former primary is a member");
    pair.talk();
    assert!(pair.b.released() >= round && pair.a.received_lsn() == Lsn(2), "it follows");
}

impl Pair {
    /// Time goes on for the primary alone. What it says, in the order of moments.
    fn wait(&mut self, time: Duration) -> Vec<Output> {
        let (mut outputs, until) = (vec![], self.now.after(time));
        while self.now < until {
            self.now = self.now.after(Profile::LAN.heartbeat);
            self.a.step(self.now, Input::Tick);
            self.a.end_pass(self.now, false);
            outputs.append(self.a.outputs());
        }
        outputs
    }

    /// A joiner that is sent the snapshot, and says nothing.
    fn sending() -> Pair {
        let mut pair = Pair::new();
        pair.link();
        carry(pair.now, &mut pair.b, &mut pair.a);
        assert!(mem::take(pair.a.outputs()).contains(&Output::SnapshotWanted(STREAM)));
        pair.a.begin_snapshot(pair.now, STREAM);
        pair.a.offer_piece(STREAM, b"snap".to_vec(), false);
        pair
    }
}

const LET_GO: Output = Output::HangUp(STREAM);

/// L7: nobody waits for it, so its log is kept for it; no longer than there is room.
#[test]
fn a_joiner_that_falls_silent_is_let_go_before_it_fills_the_window() {
    let mut pair = Pair::sending();
    assert!(!pair.wait(Duration::from_secs(1)).contains(&LET_GO), "it may be at work");
    while !pair.a.is_full() {
        pair.a.append(&vec![7; 60_000]);
    }
    assert!(pair.wait(Profile::LAN.evict * 2).contains(&LET_GO));
    assert!(!pair.a.is_full());
    let mut pair = Pair::sending();
    assert!(pair.wait(Duration::from_secs(3)).contains(&LET_GO), "not for ever");
}

#[test]
fn the_next_life_of_a_joiner_does_not_wait_for_the_end_of_the_one_before() {
    let mut pair = Pair::sending();
    let (next, mut other) = (LinkKey(2), Replica::new(Profile::LAN));
    pair.wait(Profile::LAN.heartbeat * 5);
    pair.a.step(pair.now, Input::Linked { link: next, peer: peer("b", 3), dialed: false });
    other.step(pair.now, Input::Linked { link: STREAM, peer: peer("a", 1), dialed: true });
    let mut greeting = vec![];
    other.take_out(|_, out| greeting.append(out));
    let (message, _) = Message::split(&greeting).unwrap().unwrap();
    pair.a.step(pair.now, Input::Received(next, message));
    let outputs = mem::take(pair.a.outputs());
    assert!(outputs.ends_with(&[LET_GO, Output::SnapshotWanted(next)]), "{outputs:?}");
}

/// L7: a member that acknowledges ever less of what it is sent is late, although it says something all the time.
#[test]
fn a_follower_that_lags_ever_more_is_late() {
    let mut pair = Pair::joined();
    let mut late_in = |lag: u64| {
        (0..100).any(|_| {
            pair.a.append(b"something");
            let late =
                pair.wait(Profile::LAN.heartbeat).contains(&Output::Report(Report::Late(peer("b", 2))));
            let (round, received) =
                (Round(pair.a.round().0.saturating_sub(lag)), pair.a.commit_lsn().plus(1));
            let ack = Message::Ack { epoch: 6, round, received, pieces: 2 };
            pair.a.step(pair.now, Input::Received(STREAM, ack));
            late
        })
    };
    assert!(!late_in(4), "always a little behind");
    assert!(late_in(60));
}
