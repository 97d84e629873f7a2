//! The loop itself: no work is slept over, and connections change their thread with real drivers.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use fairlock_protocol::handshake::Hello;
use fairlock_protocol::limits::REQUESTS_PER_PASS;
use fairlock_protocol::{Frame, Reply, Request, RequestId, SessionId, ShardId};

use super::*;
use crate::config::Poll;
use crate::driver::{self, IoChoice};
use crate::shard::tests::world;

/// Threads of a server that nobody has started, each with a lane to every other.
pub(super) fn threads(count: u16, poll: Poll, choice: IoChoice) -> Vec<ShardThread> {
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
        ShardThread::new(
            shard,
            driver,
            wiring,
            Temper::new(poll, 2, Duration::from_micros(20)),
            stats.clone(),
            (1 << 20, 0, None),
            None,
        )
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
    threads[0].adopt(
        clock::now(),
        Adoption { socket: socket.into(), received: vec![], peer: Peer::Tcp(address), segment: None },
    );
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
    assert!(matches!(
        heard.recv(),
        Ok(ToControl::Stopped { shard: 3, left: Left { holders: 1.., file: None, .. }, error: Some(_) })
    ));
}

/// A client that pipelines requests and reads nothing for a while.
fn stalls(choice: IoChoice) {
    const REQUESTS: u64 = 60_000;
    let mut threads = threads(1, Poll::Always, choice);
    let thread = &mut threads[0];
    let (near, mut client) = UnixStream::pair().unwrap();
    let peer = Peer::Tcp(SocketAddr::from(([127, 0, 0, 1], 1)));
    thread.adopt(clock::now(), Adoption { socket: near.into(), received: vec![], peer, segment: None });
    let mut bytes = vec![];
    Request::Hello(Hello::to(ShardId(0))).encode(RequestId::NOTICE, 0, &mut bytes);
    (1..=REQUESTS).for_each(|request| Request::Keepalive.encode(RequestId(request), 0, &mut bytes));
    client.set_nonblocking(true).unwrap();
    let (mut sent, mut quiet, mut backlog_max) = (0, 0, 0);
    while quiet < 500 {
        quiet += 1;
        match client.write(&bytes[sent..]) {
            Ok(length) => (sent, quiet) = (sent + length, 0),
            Err(error) => assert_eq!(error.kind(), ErrorKind::WouldBlock),
        }
        thread.pass().unwrap();
        let link = thread.links[0].unwrap().0;
        backlog_max = backlog_max.max(thread.driver.backlog(link));
    }
    let one_pass = REQUESTS_PER_PASS * 64;
    assert!(sent < bytes.len(), "the client has to wait");
    assert!(backlog_max > WRITE_PAUSE_BYTES && backlog_max <= WRITE_PAUSE_BYTES + one_pass, "{backlog_max}");
    thread.temper = Temper::new(Poll::Never, 2, Duration::from_micros(20));
    thread.publish(clock::now());
    assert_ne!(thread.patience(clock::now()), Patience::Poll, "there is nothing to do but to wait");

    client.set_nonblocking(false).unwrap();
    let mut writing = client.try_clone().unwrap();
    let writer = std::thread::spawn(move || writing.write_all(&bytes[sent..]).unwrap());
    let done = Arc::new(AtomicBool::new(false));
    let (waker, tell) = (thread.driver.waker(), done.clone());
    let reader = std::thread::spawn(move || {
        let (mut heard, mut frames, mut piece) = (vec![], vec![], [0; 4096]);
        while frames.len() as u64 <= REQUESTS {
            let length = client.read(&mut piece).unwrap();
            assert!(length > 0, "hung up after {} frames", frames.len());
            heard.extend_from_slice(&piece[..length]);
            let mut at = 0;
            while let Some((frame, length)) = Frame::split(&heard[at..]).unwrap() {
                frames.push(frame.request.0);
                at += length;
            }
            heard.drain(..at);
        }
        // Pairs with the load below.
        tell.store(true, Ordering::Release);
        waker.wake();
        frames
    });
    while !done.load(Ordering::Acquire) {
        // A sleep that nothing ended would last for ever.
        thread.pass().unwrap();
    }
    writer.join().unwrap();
    assert_eq!(reader.join().unwrap(), (0..=REQUESTS).collect::<Vec<_>>(), "each is answered once, in order");
}

#[test]
fn who_does_not_read_its_answers_is_served_later_under_epoll() {
    stalls(IoChoice::Epoll);
}

#[test]
fn who_does_not_read_its_answers_is_served_later_under_the_driver_of_choice() {
    stalls(IoChoice::Auto);
}
