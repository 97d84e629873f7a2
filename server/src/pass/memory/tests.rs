//! A shard's thread and clients that share memory with it, over real drivers: what it does when they go, and when they
//! ask for more than they read.

use std::net::SocketAddr;
use std::os::unix::net::UnixStream;
use std::process::{Child, Command};
use std::sync::Arc;

use fairlock_protocol::handshake::Hello;
use fairlock_protocol::request::Open;
use fairlock_protocol::{
    Frame, GrantId, Liveness, Reply, Request, RequestId, Secret, SessionId, ShardId, Wait,
};
use fairlock_shm::bell::Waiting;
use fairlock_shm::ring::{Receiver, Sender};
use fairlock_shm::segment::Segment;

use super::super::tests::threads;
use super::*;
use crate::config::Poll;
use crate::connection::{Peer, UnixPeer};
use crate::driver::IoChoice;
use crate::driver::peer::PeerCredentials;
use crate::lanes::Adoption;
use crate::shard::tests::world;

const DRIVERS: [IoChoice; 2] = [IoChoice::Epoll, IoChoice::Auto];

/// The other end of a ring.
struct Client {
    socket: UnixStream,
    segment: Arc<Segment>,
    requests: Sender,
    replies: Receiver,
    sent: u64,
}

impl Client {
    /// A client that the thread has just taken in.
    fn of(thread: &mut ShardThread, peer: Peer) -> Client {
        Client::at(thread, 0, peer)
    }

    /// The same, of a shard with this number.
    fn at(thread: &mut ShardThread, shard: u16, peer: Peer) -> Client {
        let (near, socket) = UnixStream::pair().unwrap();
        let segment = Arc::new(Segment::create().unwrap().0);
        let mut received = vec![];
        Request::Hello(Hello::to(ShardId(shard))).encode(RequestId::NOTICE, 0, &mut received);
        let shared = Some(segment.clone());
        thread.adopt(clock::now(), Adoption { socket: near.into(), received, peer, segment: shared });
        Client { socket, segment, requests: Sender::default(), replies: Receiver::default(), sent: 0 }
    }

    fn send(&mut self, messages: &[Request<'_>]) {
        let mut bytes = vec![];
        for message in messages {
            self.sent += 1;
            message.encode(RequestId(self.sent), 0, &mut bytes);
        }
        assert_eq!(self.requests.send(self.segment.requests(), &bytes), Ok(bytes.len()), "the ring has room");
    }

    /// Everything that was said to it.
    fn heard(&mut self) -> Vec<u8> {
        let mut bytes = vec![];
        while let Some(piece) = self.replies.receive(self.segment.replies()).unwrap() {
            bytes.extend_from_slice(piece.bytes());
        }
        self.replies.give_back(self.segment.replies());
        bytes
    }

    fn opens(&mut self, thread: &mut ShardThread, liveness: Liveness) {
        self.send(&[Request::Open(Open { liveness, ..world::open(60_000) })]);
        passes(thread, 8);
        self.is_opened();
    }

    /// It was welcomed, and has a session.
    fn is_opened(&mut self) -> (SessionId, Secret) {
        let heard = self.heard();
        let (_, at) = Frame::split(&heard).unwrap().expect("WELCOME");
        let (frame, _) = Frame::split(&heard[at..]).unwrap().expect("OPENED");
        let Ok(Reply::Opened { session, secret, .. }) = Reply::decode(&frame) else { panic!("{frame:?}") };
        (session, secret)
    }

    /// The one grant it heard of.
    fn granted(&mut self) -> GrantId {
        let heard = self.heard();
        let mut at = 0;
        while let Some((frame, length)) = Frame::split(&heard[at..]).unwrap() {
            if let Ok(Reply::Granted(granted)) = Reply::decode(&frame) {
                return granted.grant;
            }
            at += length;
        }
        panic!("nothing was granted");
    }
}

fn passes(thread: &mut ShardThread, count: usize) {
    (0..count).for_each(|_| thread.pass().unwrap());
}

fn nobody() -> Peer {
    Peer::Tcp(SocketAddr::from(([127, 0, 0, 1], 1)))
}

/// A process that does nothing.
fn sleeping() -> Child {
    Command::new("sleep").arg("1000").spawn().unwrap()
}

/// A client that is this process.
fn peer(process: &Child) -> Peer {
    let pid = rustix::process::Pid::from_child(process);
    let pidfd = rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty()).unwrap();
    let credentials = PeerCredentials { pid: process.id(), uid: 0, gid: 0 };
    Peer::Unix(Box::new(UnixPeer { credentials, pidfd, pipe: None }))
}

/// Passes until the condition holds.
fn pass_until(thread: &mut ShardThread, what: &str, mut holds: impl FnMut(&mut ShardThread) -> bool) {
    let begun = std::time::Instant::now();
    while !holds(thread) {
        thread.pass().unwrap();
        assert!(begun.elapsed() < std::time::Duration::from_secs(30), "hangs: {what}");
    }
}

#[test]
fn who_goes_with_more_questions_than_a_pass_answers_is_heard_out_all_the_same() {
    // Pages are rationed by the pass, and one that was not answered kept its connection in the queue for ever.
    for choice in DRIVERS {
        let mut threads = threads(1, Poll::Always, choice);
        let thread = &mut threads[0];
        let mut client = Client::of(thread, nobody());
        client.opens(thread, Liveness::Heartbeat);
        client.send(&[Request::Status; 100]);
        drop(client.socket);
        pass_until(thread, "the client is forgotten", |thread| !thread.rings.are_attached());
        passes(thread, 4);
        assert!(!thread.shard.is_busy());
        assert_eq!(thread.shard.table().counts().sessions, 0);
    }
}

#[test]
fn a_release_and_an_end_in_one_breath_count_although_no_answer_was_read() {
    for choice in DRIVERS {
        let mut threads = threads(1, Poll::Always, choice);
        let thread = &mut threads[0];
        let mut client = Client::of(thread, nobody());
        client.opens(thread, Liveness::Heartbeat);
        client.send(&[world::acquire("x", Wait::Try)]);
        passes(thread, 40);
        let grant = client.granted();
        // Answers to these fill the ring; then its requests wait for it to read them.
        for _ in 0..40 {
            client.send(&[Request::Status; 4]);
            passes(thread, 40);
        }
        client.send(&[Request::Release(grant)]);
        drop(client.socket);
        pass_until(thread, "the client is forgotten", |thread| !thread.rings.are_attached());
        let counts = thread.shard.table().counts();
        assert_eq!((counts.releases_total, counts.sessions), (1, 0), "its last word was heard");
    }
}

#[test]
fn the_memory_of_a_dead_process_goes_although_a_copy_of_its_socket_stays_open() {
    for choice in DRIVERS {
        let mut threads = threads(1, Poll::Always, choice);
        let thread = &mut threads[0];
        let mut process = sleeping();
        let mut client = Client::of(thread, peer(&process));
        client.opens(thread, Liveness::Process);
        client.send(&[world::acquire("x", Wait::Try)]);
        process.kill().unwrap();
        process.wait().unwrap();
        pass_until(thread, "the process is gone", |thread| !thread.rings.are_attached());
        assert!(client.segment.status().has_ended());
        assert_eq!(thread.shard.table().counts().sessions, 0);
        pass_until(thread, "the memory is the test's alone", |_| Arc::strong_count(&client.segment) == 1);
        client.socket.set_nonblocking(true).unwrap();
        pass_until(thread, "the socket is shut", |_| {
            matches!(std::io::Read::read(&mut client.socket, &mut [0]), Ok(0))
        });
    }
}

#[test]
fn what_was_released_at_another_shard_before_the_death_counts_there() {
    for choice in DRIVERS {
        let mut threads = threads(2, Poll::Always, choice);
        let mut process = sleeping();
        let both = |threads: &mut Vec<ShardThread>| {
            (0..40).for_each(|_| threads.iter_mut().for_each(|thread| thread.pass().unwrap()));
        };
        let mut home = Client::of(&mut threads[0], peer(&process));
        home.send(&[Request::Open(Open { liveness: Liveness::Process, ..world::open(60_000) })]);
        both(&mut threads);
        let (session, secret) = home.is_opened();
        let mut there = Client::at(&mut threads[1], 1, peer(&process));
        let name = world::name_on(1, 2);
        there.send(&[Request::Resume { session, secret, received: 0 }, world::acquire(&name, Wait::Try)]);
        both(&mut threads);
        let grant = there.granted();
        there.send(&[Request::Release(grant)]);
        process.kill().unwrap();
        process.wait().unwrap();
        // The home learns of the death and says so before the other shard looks at its ring.
        pass_until(&mut threads[0], "the process is gone", |thread| !thread.rings.are_attached());
        threads[1].take_messages(clock::now());
        let counts = threads[1].shard.table().counts();
        assert_eq!((counts.releases_total, counts.sessions), (1, 0));
        assert!(!threads[1].rings.are_attached());
    }
}

#[test]
fn what_was_released_at_home_before_the_end_counts_although_another_shard_saw_the_end_first() {
    for choice in DRIVERS {
        let mut threads = threads(2, Poll::Always, choice);
        let both = |threads: &mut Vec<ShardThread>| {
            (0..40).for_each(|_| threads.iter_mut().for_each(|thread| thread.pass().unwrap()));
        };
        let mut home = Client::of(&mut threads[0], nobody());
        home.send(&[Request::Open(world::open(60_000))]);
        both(&mut threads);
        let (session, secret) = home.is_opened();
        let mut there = Client::at(&mut threads[1], 1, nobody());
        there.send(&[Request::Resume { session, secret, received: 0 }]);
        let name = world::name_on(0, 2);
        home.send(&[world::acquire(&name, Wait::Try)]);
        both(&mut threads);
        let grant = home.granted();
        home.send(&[Request::Release(grant)]);
        drop(there);
        pass_until(&mut threads[1], "the end is seen", |thread| !thread.rings.are_attached());
        threads[0].take_messages(clock::now());
        let counts = threads[0].shard.table().counts();
        assert_eq!((counts.releases_total, counts.sessions), (1, 0));
    }
}

#[test]
fn who_sleeps_on_its_memory_is_woken_when_its_connection_ends() {
    for choice in DRIVERS {
        let mut threads = threads(1, Poll::Always, choice);
        let thread = &mut threads[0];
        let mut client = Client::of(thread, nobody());
        client.opens(thread, Liveness::Heartbeat);
        let segment = client.segment.clone();
        segment.parking().announce(Waiting::Futex);
        // Without a time-out: a wake-up that was lost would never end it.
        let sleeper = std::thread::spawn(move || wait::park(segment.parking(), None));
        // A second OPEN ends the connection, with an answer and a bell on the socket that the sleeper does not see.
        client.send(&[Request::Open(world::open(1000))]);
        pass_until(thread, "the end", |thread| !thread.rings.are_attached());
        sleeper.join().unwrap();
        assert!(!client.heard().is_empty());
    }
}

#[test]
fn bells_that_nobody_reads_do_not_pile_up() {
    for choice in DRIVERS {
        let mut threads = threads(1, Poll::Always, choice);
        let thread = &mut threads[0];
        let mut client = Client::of(thread, nobody());
        client.opens(thread, Liveness::Heartbeat);
        let mut bells = 0;
        while thread.rings.are_attached() {
            client.segment.parking().announce(Waiting::Socket);
            client.send(&[Request::Keepalive]);
            passes(thread, 2);
            client.heard();
            bells += 1;
            assert!(bells < 100_000, "each has a byte of the server's memory");
        }
        assert!(bells > BELLS_UNREAD_MAX, "a few may wait");
    }
}
