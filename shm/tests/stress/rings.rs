//! Requests, replies and both bells: clients that sleep on their word or poll their socket, and a shard that polls all
//! its sockets when nobody has said anything for a while.

use crate::{Random, TIME, WATCH, seed};
use fairlock_shm::bell::{Attention, Waiting, publish_fence};
use fairlock_shm::ring::{Receiver, Sender};
use fairlock_shm::segment::Segment;
use fairlock_shm::wait;
use rustix::event::{PollFd, PollFlags, poll};
use std::collections::VecDeque;
use std::io::{ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Instant;

const CLIENTS: usize = 4;
/// Requests under way of one client: their slots never fill a ring, so that nobody waits for room.
const UNDER_WAY: u64 = 40;
const LENGTH_MAX: u64 = 200;

/// The byte at a place of a client's stream.
fn byte(at: u64) -> u8 {
    (at ^ at >> 8).to_le_bytes()[0]
}

/// Reads away what was sent; `false`: nothing came before the watch ended.
fn sleep_on(sockets: &[&UnixStream]) -> bool {
    let mut ends: Vec<_> = sockets.iter().map(|socket| PollFd::new(*socket, PollFlags::IN)).collect();
    let woken = poll(&mut ends, Some(&WATCH.try_into().unwrap())).unwrap() > 0;
    for mut socket in sockets.iter().copied() {
        while matches!(socket.read(&mut [0; 64]), Ok(1..)) {}
    }
    woken
}

fn ring(mut socket: &UnixStream) {
    if let Err(error) = socket.write_all(&[0]) {
        // Full of bytes that nobody has read: it is readable.
        assert_eq!(error.kind(), ErrorKind::WouldBlock);
    }
}

struct Client {
    segment: Segment,
    socket: UnixStream,
    sent: u64,
    arrived: u64,
    sleeps: u64,
    sender: Sender,
    receiver: Receiver,
}

impl Client {
    /// Sends some requests and waits for all their replies.
    fn round(&mut self, random: &mut Random) {
        for _ in 0..=random.below(UNDER_WAY) {
            let request: Vec<u8> = (self.sent..=self.sent + random.below(LENGTH_MAX)).map(byte).collect();
            assert_eq!(self.sender.send(self.segment.requests(), &request), Ok(request.len()));
            self.sent += request.len() as u64;
            if self.segment.attention().must_ring() {
                ring(&self.socket);
            }
        }
        while self.arrived < self.sent {
            if !self.look() {
                self.sleep(random);
            }
        }
    }

    fn look(&mut self) -> bool {
        let before = self.arrived;
        while let Some(piece) = self.receiver.receive(self.segment.replies()).unwrap() {
            for arrived in piece.bytes() {
                assert_eq!(*arrived, byte(self.arrived), "byte {}", self.arrived);
                self.arrived += 1;
            }
        }
        self.receiver.give_back(self.segment.replies());
        self.arrived > before
    }

    fn sleep(&mut self, random: &mut Random) {
        let parking = self.segment.parking();
        match random.below(4) {
            0 => thread::yield_now(),
            1 => {
                parking.announce(Waiting::Socket);
                if !self.receiver.is_ready(self.segment.replies()) {
                    assert!(sleep_on(&[&self.socket]), "a client slept through its replies");
                }
            }
            _ => {
                parking.announce(Waiting::Futex);
                if !self.receiver.is_ready(self.segment.replies()) {
                    let begun = Instant::now();
                    wait::park(parking, Some(WATCH));
                    assert!(begun.elapsed() < WATCH, "a client slept through its replies");
                }
            }
        }
        self.sleeps += 1;
        self.segment.parking().announce(Waiting::Looking);
    }
}

/// The shard's end of one client.
struct Served {
    segment: Segment,
    socket: UnixStream,
    receiver: Receiver,
    sender: Sender,
}

impl Served {
    /// Echoes what is there, at most a batch.
    fn pass(&mut self) -> bool {
        let mut batch = VecDeque::new();
        while batch.len() < 64 {
            let Some(piece) = self.receiver.receive(self.segment.requests()).unwrap() else { break };
            batch.push_back(piece);
        }
        self.receiver.give_back(self.segment.requests());
        for piece in &batch {
            let sent = self.sender.send(self.segment.replies(), piece.bytes());
            assert_eq!(sent, Ok(piece.bytes().len()), "replies have room");
        }
        if !batch.is_empty() {
            publish_fence();
            match self.segment.parking().to_wake() {
                Waiting::Looking => {}
                Waiting::Futex => wait::unpark(self.segment.parking()),
                Waiting::Socket => ring(&self.socket),
            }
        }
        !batch.is_empty()
    }
}

fn tell(clients: &[Served], attention: fn(&Attention)) {
    for client in clients {
        attention(client.segment.attention());
    }
}

/// Serves until every client has ended; how often it slept.
fn shard(mut clients: Vec<Served>, living: &AtomicU64, seed: u64) -> u64 {
    let (mut random, mut sleeps) = (Random(seed), 0);
    tell(&clients, Attention::listen);
    while living.load(Ordering::Acquire) > 0 {
        let busy = clients.iter_mut().fold(false, |busy, client| client.pass() | busy);
        if busy || random.below(8) > 0 {
            continue;
        }
        tell(&clients, Attention::doze);
        let something = clients.iter().any(|client| client.receiver.is_ready(client.segment.requests()));
        if !something {
            let sockets: Vec<_> = clients.iter().map(|client| &client.socket).collect();
            let woken = sleep_on(&sockets);
            assert!(woken || living.load(Ordering::Acquire) == 0, "the shard slept through a request");
            sleeps += 1;
        }
        tell(&clients, Attention::listen);
    }
    sleeps
}

fn client(segment: Segment, socket: UnixStream, seed: u64, living: &AtomicU64) -> (u64, u64) {
    let (sender, receiver) = (Sender::default(), Receiver::default());
    let mut client = Client { segment, socket, sent: 0, arrived: 0, sleeps: 0, sender, receiver };
    let (mut random, begun) = (Random(seed), Instant::now());
    while begun.elapsed() < TIME {
        client.round(&mut random);
    }
    living.fetch_sub(1, Ordering::Release);
    ring(&client.socket);
    (client.arrived, client.sleeps)
}

#[test]
fn requests_and_replies_arrive_while_both_sides_fall_asleep() {
    let seed = seed();
    let living = AtomicU64::new(CLIENTS as u64);
    let (mut served, mut theirs) = (Vec::new(), Vec::new());
    for _ in 0..CLIENTS {
        let (segment, file) = Segment::create().unwrap();
        let (near, far) = UnixStream::pair().unwrap();
        near.set_nonblocking(true).unwrap();
        far.set_nonblocking(true).unwrap();
        theirs.push((Segment::open(&file).unwrap(), far));
        served.push(Served {
            segment,
            socket: near,
            receiver: Receiver::default(),
            sender: Sender::default(),
        });
    }
    thread::scope(|scope| {
        let shard = scope.spawn(|| shard(served, &living, seed));
        let living = &living;
        let clients: Vec<_> = theirs
            .into_iter()
            .zip(1..)
            .map(|((segment, socket), number)| {
                scope.spawn(move || client(segment, socket, seed + number, living))
            })
            .collect();
        for client in clients {
            let (bytes, sleeps) = client.join().unwrap();
            println!("a client: {bytes} bytes there and back, {sleeps} sleeps");
        }
        println!("the shard: {} sleeps", shard.join().unwrap());
    });
}
