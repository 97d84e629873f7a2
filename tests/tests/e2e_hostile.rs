//! Clients on the same host that mean no good, with every byte of their memory in their hands: their session ends or they
//! hurt themselves alone. Others are served all the while, and the server is afterwards what it was.

use fairlock_protocol::{Liveness, Request, RequestId, ShardId};
use fairlock_shm::bell::Waiting;
use fairlock_shm::segment::Segment;
use fairlock_shm::word::Generation;
use fairlock_tests::eventually;
use fairlock_tests::fuzz::corpus;
use fairlock_tests::keeper::{cached, client, queued};
use fairlock_tests::memory::{Shared, places};
use fairlock_tests::random::{Random, fresh_seed};
use fairlock_tests::raw::{Raw, exclusive};
use fairlock_tests::resources::Resources;
use fairlock_tests::server::{Plan, Server};
use fairlock_tests::ways::drivers;
use rustix::fs::{FallocateFlags, SealFlags, fallocate, fcntl_add_seals, ftruncate};
use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// How long each attack goes on; `FAIRLOCK_ATTACK_MS` makes it longer.
fn attack_time() -> Duration {
    let asked = std::env::var("FAIRLOCK_ATTACK_MS").ok().and_then(|text| text.parse().ok());
    Duration::from_millis(asked.unwrap_or(400))
}

/// Two good clients, one through shared memory and one over TCP, that take and release all the time.
struct Bystanders {
    over: Arc<AtomicBool>,
    rounds: Arc<AtomicU64>,
    thread: Option<JoinHandle<()>>,
}

impl Bystanders {
    fn of(server: &Server) -> Bystanders {
        let mut near = client(server);
        let mut far = Raw::greeted(&server.tcp(), ShardId::ANY);
        far.open(60_000, Liveness::Heartbeat);
        let (over, rounds) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let (until, count) = (Arc::clone(&over), Arc::clone(&rounds));
        let thread = std::thread::spawn(move || {
            // Relaxed: nothing else is read for it.
            while !until.load(Ordering::Relaxed) {
                for raw in [&mut near, &mut far] {
                    let grant = raw.acquire(b"bystanders").grant;
                    raw.release(grant);
                }
                count.fetch_add(1, Ordering::Relaxed);
            }
        });
        Bystanders { over, rounds, thread: Some(thread) }
    }

    fn rounds(&self) -> u64 {
        self.rounds.load(Ordering::Relaxed)
    }

    /// They went on to the end.
    fn leave(mut self) {
        self.over.store(true, Ordering::Relaxed);
        let ended = self.thread.take().map(JoinHandle::join);
        assert!(matches!(ended, Some(Ok(()))), "nobody disturbed them");
    }
}

impl Drop for Bystanders {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
    }
}

/// Attacks again and again, and looks what that did to others and to the server.
fn survived(what: &str, mut attack: impl FnMut(&Server, &mut Random)) {
    let mut random = Random::from_seed(fresh_seed(what));
    for &io in drivers() {
        let mut server = Plan::new(io).start();
        let mut watcher = client(&server);
        attack(&server, &mut random);
        let before = Resources::of(server.pid());
        let bystanders = Bystanders::of(&server);
        let begun = Instant::now();
        let (mut attacks, mut served) = (0, bystanders.rounds());
        while begun.elapsed() < attack_time() {
            attack(&server, &mut random);
            attacks += 1;
        }
        eventually("others are served", || (bystanders.rounds() > served).then_some(()));
        served = bystanders.rounds() - served;
        bystanders.leave();
        assert!(server.is_running(), "{}", server.plan.log());
        let grant = watcher.acquire(b"afterwards").grant;
        watcher.release(grant);
        let after = eventually("what was theirs is gone", || {
            let now = Resources::of(server.pid());
            (now.segments == 1 && now.descriptors <= before.descriptors).then_some(now)
        });
        std::thread::sleep(Duration::from_secs(1));
        let ticks = Resources::of(server.pid()).ticks - after.ticks;
        let grown = after.resident.saturating_sub(before.resident);
        eprintln!(
            "{what}, {io:?}: {attacks} attacks, {served} rounds of others, {grown} bytes more, a quiet second takes \
             {ticks} of 100 ticks"
        );
        assert!(grown < 16 * 1024 * 1024, "{grown} bytes");
    }
}

/// The server has ended the session; it says so in its memory.
fn has_ended(shared: &Shared) {
    eventually("the session ends", || shared.segment.status().has_ended().then_some(()));
}

/// Has the server look at the ring.
fn ring(raw: &Raw) {
    let _ = raw.bell().write(&[0]);
}

/// Fills every slot of the requests with this head, the lap aside, and these bytes.
fn fill_slots(shared: &Shared, lap: u64, length: u8, body: &[u8]) {
    let head = lap << 40 | u64::from(length) << 32 | u64::from(u32::MAX);
    let mut line = head.to_le_bytes().to_vec();
    line.extend_from_slice(&body[..56]);
    for slot in 1..=256 {
        shared.write(places::REQUESTS + slot * places::LINE, &line).expect("its own memory");
    }
}

#[test]
fn the_test_knows_where_things_lie_in_a_segment() {
    let server = Plan::new(drivers()[0]).start();
    let mut raw = client(&server);
    let (_, index, generation) = cached(&mut raw, b"x");
    let shared = raw.shared();
    shared.segment.parking().announce(Waiting::Socket);
    assert_eq!(shared.read(places::PARKING).expect("readable"), 2);
    let word = shared.read(places::WORDS + u64::from(index) * places::LINE).expect("readable");
    assert_eq!(Generation(u32::try_from(word >> 32).expect("the upper half")), generation);
    assert!(
        shared.read(places::REQUESTS + places::LINE).expect("readable") >> 40 > 0,
        "a slot that was used"
    );
    assert!(shared.read(places::REPLIES + places::LINE).expect("readable") >> 40 > 0, "a slot that was used");
    assert_eq!(
        rustix::fs::fstat(&*shared.file).expect("a file").st_size,
        i64::try_from(Segment::BYTES).unwrap_or(0)
    );
}

// G45: whatever it writes, others do not notice.
#[test]
fn noise_in_every_byte_of_the_memory_harms_its_client_alone() {
    survived("noise everywhere", |server, random| {
        let mut raw = client(server);
        let shared = raw.shared();
        let (name, mut frame) = (random.bytes(8), Vec::new());
        Request::Acquire(exclusive(&name)).encode(RequestId(2), 1, &mut frame);
        let begun = Instant::now();
        raw.insist(Duration::from_millis(1));
        while begun.elapsed() < Duration::from_millis(20) {
            let length = 1 + random.index(200);
            let at = random.below(Segment::BYTES as u64 - length as u64);
            shared.write(at, &random.bytes(length)).expect("its own memory");
            if random.once_in(8) {
                let _ = raw.send_bytes(&frame);
                ring(&raw);
            }
        }
        // All of it at once.
        shared.write(0, &random.bytes(Segment::BYTES)).expect("its own memory");
        ring(&raw);
    });
}

#[test]
fn slots_of_impossible_lengths_and_laps_end_the_session() {
    survived("slots", |server, random| {
        let body = random.bytes(56);
        for length in [0, 61, 255] {
            let raw = client(server);
            fill_slots(&raw.shared(), 1, length, &body);
            ring(&raw);
            has_ended(&raw.shared());
        }
        // Lengths that are right, of frames that are none.
        let raw = client(server);
        fill_slots(&raw.shared(), 1, 60, &body);
        ring(&raw);
        has_ended(&raw.shared());
        // Laps that are not due say nothing at all.
        let mut raw = client(server);
        fill_slots(&raw.shared(), 0xFF_FFFF, 60, &body);
        ring(&raw);
        raw.call(&Request::Status);
    });
}

#[test]
fn a_position_of_the_reader_that_cannot_be_ends_the_session() {
    survived("positions", |server, random| {
        let mut raw = client(server);
        let shared = raw.shared();
        raw.insist(Duration::from_millis(100));
        let taken = [u64::MAX, 1 << 32, 100_000, u64::MAX / 2][random.index(4)];
        // Nobody looks at the position before the ring is full.
        for _ in 0..2000 {
            shared.write(places::REPLIES, &taken.to_le_bytes()).expect("its own memory");
            raw.send(&Request::Status);
            if shared.segment.status().has_ended() {
                break;
            }
        }
        has_ended(&shared);
    });
}

#[test]
fn forged_words_keep_a_lock_no_longer_than_their_client_lives() {
    survived("words", |server, random| {
        let (mut raw, mut other) = (client(server), client(server));
        let (_, index, generation) = cached(&mut raw, b"forged");
        let shared = raw.shared();
        let wait = other.send(&Request::Acquire(exclusive(b"forged")));
        let begun = Instant::now();
        while begun.elapsed() < Duration::from_millis(20) {
            let forged = match random.below(4) {
                0 => random.next(),
                1 => u64::from(generation.0.wrapping_add(1)) << 32 | (1 + random.below(2)),
                2 => u64::from(generation.0) << 32 | random.below(256) | 0x100,
                _ => random.below(6),
            };
            let at = if random.once_in(2) { u64::from(index) } else { random.below(4096) };
            shared.write(places::WORDS + at * places::LINE, &forged.to_le_bytes()).expect("its own memory");
            shared.write(places::WORDS + at * places::LINE + 8, &random.bytes(56)).expect("its own memory");
            if random.once_in(8) {
                raw.send(&Request::Look);
            }
        }
        drop(raw);
        other.answer(wait).grant();
    });
}

#[test]
fn who_scribbles_over_what_the_server_says_and_how_it_waits_is_alone_confused() {
    survived("status, attention, parking and manners", |server, random| {
        let mut raw = client(server);
        let shared = raw.shared();
        raw.insist(Duration::from_millis(5));
        let begun = Instant::now();
        while begun.elapsed() < Duration::from_millis(20) {
            let place =
                [places::STATUS, places::ATTENTION, places::PARKING, places::MANNERS][random.index(4)];
            let value = if random.once_in(2) { random.below(4) } else { random.next() };
            shared.write(place, &value.to_le_bytes()).expect("its own memory");
            raw.send(&Request::Keepalive);
        }
    });
}

#[test]
fn who_never_gives_a_lock_back_can_be_made_to() {
    survived("a revocation that is not answered", |server, _| {
        let (mut raw, mut other, mut operator) = (client(server), client(server), client(server));
        cached(&mut raw, b"mine");
        let wait = other.send(&Request::Acquire(exclusive(b"mine")));
        queued(&mut operator, b"mine", 1);
        assert!(other.frame_within(Duration::from_millis(10)).is_err(), "it is inside");
        operator.call(&Request::Break { resource: exclusive(b"mine").resource, force: true });
        other.answer(wait).grant();
    });
}

#[test]
fn a_flood_of_bells_is_not_heard_by_others() {
    survived("bells", |server, _| {
        let raw = client(server);
        let mut bell = raw.bell();
        bell.set_nonblocking(true).expect("a socket can be");
        let begun = Instant::now();
        while begun.elapsed() < Duration::from_millis(50) {
            let _ = bell.write(&[0; 8192]);
        }
        bell.set_nonblocking(false).expect("a socket can be");
    });
}

#[test]
fn spoilt_frames_through_the_ring_end_sessions_at_most() {
    let sound = corpus::sound();
    survived("spoilt frames", |server, random| {
        let mut raw = client(server);
        raw.insist(Duration::from_millis(20));
        for _ in 0..50 {
            if raw.send_bytes(&corpus::spoilt(&sound, random)).is_err() {
                break;
            }
        }
    });
}

#[test]
fn who_asks_for_pages_and_goes_stops_nobody() {
    survived("questions without an asker", |server, _| {
        let mut raw = client(server);
        let mut asked = Vec::new();
        Request::Status.encode(RequestId(9), 0, &mut asked);
        raw.insist(Duration::from_millis(5));
        let _ = raw.send_bytes(&asked.repeat(100));
    });
}

#[test]
fn who_asks_and_never_reads_is_asked_for_no_more() {
    survived("answers that nobody reads", |server, _| {
        let mut raw = client(server);
        let mut asked = Vec::new();
        Request::Status.encode(RequestId(9), 0, &mut asked);
        let asked = asked.repeat(64);
        raw.insist(Duration::from_millis(50));
        let (begun, mut bursts) = (Instant::now(), 0);
        while raw.send_bytes(&asked).is_ok() {
            bursts += 1;
            assert!(begun.elapsed() < Duration::from_secs(30), "{bursts} bursts were taken");
        }
        assert!(!raw.shared().segment.status().has_ended(), "it may read them yet");
    });
}

#[test]
fn memory_can_be_neither_shortened_nor_sealed_and_holes_in_it_are_zeroes() {
    survived("holes", |server, random| {
        let mut raw = client(server);
        let shared = raw.shared();
        let file = &*shared.file;
        assert!(ftruncate(file, 0).is_err() && ftruncate(file, 1 << 30).is_err());
        for seal in [SealFlags::WRITE, SealFlags::FUTURE_WRITE, SealFlags::SHRINK] {
            assert!(fcntl_add_seals(file, seal).is_err());
        }
        raw.insist(Duration::from_millis(1));
        let begun = Instant::now();
        while begun.elapsed() < Duration::from_millis(20) {
            let at = 4096 * random.below(Segment::BYTES as u64 / 4096);
            let hole = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
            fallocate(file, hole, at, 4096).expect("its own memory");
            raw.send(&Request::Keepalive);
            ring(&raw);
        }
    });
}
