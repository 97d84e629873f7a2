//! What several streams and several addresses come to.

use std::net::TcpListener;
use std::sync::atomic::AtomicU32;

use fairlock_replication::{Incarnation, NodeId};

use super::*;
use crate::cell::answer;

fn fd() -> OwnedFd {
    std::fs::File::open("/dev/null").unwrap().into()
}

fn node(name: &str, life: u64) -> Introduction {
    let me = Member {
        node: NodeId::new(name).unwrap(),
        machine: "ab".to_owned(),
        incarnation: Incarnation::new(life).unwrap(),
        peer: "h:1".to_owned(),
        clients: String::new(),
    };
    Introduction { cell: "c".to_owned(), me, shards: 1, secret: None, epoch: AtomicU32::new(0) }
}

#[test]
fn all_streams_or_the_weightiest_reason() {
    let silent = || Dialed::Silent("s".to_owned());
    let rejected = || Dialed::Rejected("r".to_owned());
    let other = || Dialed::Other(node("b", 3).me);
    let come = |outcomes: Vec<Result<OwnedFd, Dialed>>| {
        let shards = u16::try_from(outcomes.len()).unwrap();
        outcome_of((0..shards).zip(outcomes).rev().collect(), shards)
    };
    let (outcome, streams) = come(vec![Ok(fd()), Ok(fd())]);
    assert_eq!((outcome, streams.len()), (Dialed::Up, 2));
    let table = [
        (vec![Err(Dialed::Refused), Err(Dialed::Refused)], Dialed::Refused),
        (vec![Err(Dialed::Refused), Err(silent())], silent()),
        (vec![Err(silent()), Err(rejected()), Ok(fd())], rejected()),
        (vec![Err(rejected()), Err(other()), Err(silent())], other()),
        // A stream came about: this is no death yet.
        (vec![Ok(fd()), Err(Dialed::Refused)], Dialed::Silent("some streams were refused".to_owned())),
    ];
    for (outcomes, expected) in table {
        let (outcome, streams) = come(outcomes);
        assert_eq!((outcome, streams.len()), (expected, 0));
    }
}

#[test]
fn every_address_of_a_name_is_tried() {
    let plenty = Duration::from_secs(20);
    let gone = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let good = listener.local_addr().unwrap();
    let (me, there) = (node("a", 1), node("b", 2));
    let dialling = |addresses: &[SocketAddr], limit| {
        let limit = Limit::of(limit);
        Dialling { me: &me, wanted: &there.me, addresses: addresses.to_vec(), limit }
            .stream(Purpose::Probe)
            .err()
    };
    std::thread::scope(|scope| {
        let answering = scope.spawn(|| answer(&there, listener.accept().unwrap().0, plenty).map(|_| ()));
        assert_eq!(dialling(&[gone, good], plenty), None);
        answering.join().unwrap().unwrap();
    });
    assert_eq!(dialling(&[gone, gone], plenty), Some(Dialed::Refused));
    // One that does not answer may be the one: that the other is refused is no death.
    let outcome = dialling(&[good, gone], Duration::from_millis(200));
    assert!(matches!(outcome, Some(Dialed::Silent(_))), "{outcome:?}");
}
