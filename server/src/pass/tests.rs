//! The loop itself: no work is slept over, and connections change their thread with real drivers.

use std::io::{ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::time::{Duration, Instant};

use fairlock_protocol::handshake::Hello;
use fairlock_protocol::{Frame, Reply, Request, RequestId, SessionId, ShardId};

use super::*;
use crate::config::Poll;
use crate::driver::{self, IoChoice};
use crate::shard::tests::world;

/// Threads of a server that nobody has started, each with a lane to every other.
fn threads(count: u16, poll: Poll, choice: IoChoice) -> Vec<ShardThread> {
    let drivers: Vec<_> = (0..count).map(|_| driver::open(choice).unwrap()).collect();
    let wakers: Vec<_> = drivers.iter().map(|driver| driver.waker()).collect();
    let (control, _, _) = ControlLane::new().unwrap();
    let wiring = |_| Wiring { inboxes: vec![], shards: vec![], control: control.clone() };
    let mut wirings: Vec<Wiring> = wakers.iter().map(wiring).collect();
    for from in 0..wakers.len() {
        for (to, waker) in wakers.iter().enumerate() {
            let lane = (to != from).then(|| {
                let (lane, inbox) = ShardLane::new(waker.clone());
                wirings[to].inboxes.push(inbox);
                lane
            });
            wirings[from].shards.push(lane);
        }
    }
    let stats = Arc::new(ShardStats::default());
    let parts = (0_u16..).zip(drivers).zip(wirings);
    let thread = |((me, driver), wiring)| {
        let shard = world::shard(me, count, |_| {});
        ShardThread::new(shard, driver, wiring, Temper::new(poll, 2), stats.clone(), 1 << 20)
    };
    parts.map(thread).collect()
}

fn doomed(number: u64) -> ToShard {
    ToShard::SessionDoomed { id: SessionId::from_raw(number + 1).unwrap() }
}

#[test]
fn a_lane_that_was_full_is_tried_again_although_nobody_rings() {
    let mut threads = threads(2, Poll::Never, IoChoice::Epoll);
    let lane = threads[0].wiring.shards[1].as_mut().unwrap();
    (0..3000).for_each(|number| lane.send(doomed(number)));
    assert!(lane.has_backlog());
    threads[0].publish(clock::now());
    let patience = threads[0].patience(clock::now());
    assert!(
        matches!(patience, Patience::Sleep(Some(time)) if time <= LANE_RETRY_TIME),
        "{patience:?}: a mass of expiries must not wait for the next client"
    );
    let mut passes = 0;
    while threads[0].wiring.shards[1].as_ref().unwrap().has_backlog() {
        threads[0].pass().unwrap();
        threads[1].pass().unwrap();
        passes += 1;
        assert!(passes < 1000, "the reader makes room and the writer uses it");
    }
}

#[test]
fn a_flood_of_messages_leaves_clients_their_turn_and_is_not_slept_over() {
    let mut threads = threads(2, Poll::Never, IoChoice::Epoll);
    let lane = threads[0].wiring.shards[1].as_mut().unwrap();
    (0..=MESSAGES_PER_PASS as u64).for_each(|number| lane.send(doomed(number)));
    assert!(threads[1].take_messages(clock::now()));
    assert_eq!(threads[1].patience(clock::now()), Patience::Poll, "one message is left");
    threads[1].take_messages(clock::now());
    assert!(!threads[1].unheard);
}

#[test]
fn what_carrying_out_an_output_gave_is_not_slept_over() {
    let mut threads = threads(2, Poll::Never, IoChoice::Epoll);
    threads[0].publish(clock::now());
    threads[0].shard.output().to_control.push(ToControl::Idle { shard: 0 });
    assert_eq!(threads[0].patience(clock::now()), Patience::Poll);
    threads[0].carry_out();
    assert_ne!(threads[0].patience(clock::now()), Patience::Poll);
}

/// A connection that shard 0 accepted asks for shard 1, and is answered there.
fn moves(choice: IoChoice) {
    let mut threads = threads(2, Poll::Always, choice);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (socket, address) = listener.accept().unwrap();
    threads[0]
        .adopt(clock::now(), Adoption { socket: socket.into(), received: vec![], peer: Peer::Tcp(address) });
    client.set_nonblocking(true).unwrap();
    let mut bytes = vec![];
    Request::Hello(Hello::to(ShardId(1))).encode(RequestId::NOTICE, 0, &mut bytes);
    Request::Status.encode(RequestId(7), 0, &mut bytes);
    // In two pieces, so that the beginning alone is read first.
    let (beginning, rest) = bytes.split_at(20);
    let mut heard = vec![];
    let mut wait_for = |client: &mut TcpStream, frames: usize, passes: usize| {
        let begun = Instant::now();
        for pass in 0.. {
            for thread in &mut threads {
                thread.pass().unwrap();
            }
            let mut piece = [0; 4096];
            match client.read(&mut piece) {
                Ok(0) => panic!("hung up"),
                Ok(length) => heard.extend_from_slice(&piece[..length]),
                Err(error) => assert_eq!(error.kind(), ErrorKind::WouldBlock),
            }
            let count = std::iter::successors(Frame::split(&heard).unwrap(), |&(_, at)| {
                Frame::split(&heard[at..]).unwrap().map(|(frame, length)| (frame, at + length))
            })
            .count();
            if count >= frames && pass >= passes {
                return;
            }
            assert!(begun.elapsed() < Duration::from_secs(30), "{count} frames heard");
        }
    };
    client.write_all(beginning).unwrap();
    wait_for(&mut client, 0, 50);
    client.write_all(rest).unwrap();
    wait_for(&mut client, 2, 0);
    let (frame, _) = Frame::split(&heard).unwrap().unwrap();
    assert!(matches!(Reply::decode(&frame).unwrap(), Reply::Welcome(welcome) if welcome.shard == ShardId(1)));
}

#[test]
fn a_connection_changes_its_thread_under_epoll() {
    moves(IoChoice::Epoll);
}

#[test]
fn a_connection_changes_its_thread_under_the_driver_of_choice() {
    moves(IoChoice::Auto);
}

#[test]
fn a_thread_that_panics_says_so() {
    let (control, heard, _) = ControlLane::new().unwrap();
    let thread = std::thread::spawn(move || {
        let _last_word = LastWord { shard: 3, control };
        panic!("on purpose");
    });
    assert!(thread.join().is_err());
    assert!(matches!(heard.recv(), Ok(ToControl::Stopped { shard: 3, live_sessions: 1.., error: Some(_) })));
}
