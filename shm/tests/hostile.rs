//! A client that writes whatever it likes, whenever it likes, wherever it can: into every byte of a segment's head and
//! rings and into words, chosen to look right or at random. The server's side of everything must neither panic nor hang,
//! believe no position beyond what it sent itself, and do bounded work for each call.
//!
//! The seed is printed; `FAIRLOCK_SEED` replays what is written, though not when.
#![cfg(not(loom))]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use fairlock_shm::bell::{Waiting, publish_fence};
use fairlock_shm::ring::{Corrupt, Receiver, SLOT_BYTES, Sender};
use fairlock_shm::segment::{RING_SLOTS, Segment, WORDS};
use fairlock_shm::wait::unpark;
use fairlock_shm::word::{Generation, Seen};
use memmap2::{MmapOptions, MmapRaw};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

const TIME: Duration = Duration::from_millis(1500);

/// SplitMix64.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.next() % end as u64).unwrap()
    }
}

fn seed() -> u64 {
    let fresh = || std::process::id().into();
    let seed = std::env::var("FAIRLOCK_SEED").map_or_else(|_| fresh(), |text| text.parse().unwrap());
    println!("FAIRLOCK_SEED={seed}");
    seed
}

/// The client's own mapping of a segment, which it may write as it likes.
struct Bytes(MmapRaw);

impl Bytes {
    #[expect(unsafe_code, reason = "what a hostile client does")]
    fn words(&self) -> &[AtomicU64] {
        // SAFETY: the mapping is of so many bytes and lives as long as `self`; it begins at a page, every bit pattern is a
        // value, and all access to it is atomic. That a few of the words are halves to the server is what a client in
        // another process may do too; the machine has an answer to it, and the compiler sees two memories.
        unsafe { std::slice::from_raw_parts(self.0.as_ptr().cast(), self.0.len() / 8) }
    }

    fn word(&self, at: usize) -> &AtomicU64 {
        &self.words()[at / 8]
    }

    fn set_byte(&self, at: usize, byte: u8) {
        let mut bytes = self.word(at).load(Ordering::Relaxed).to_le_bytes();
        bytes[at % 8] = byte;
        self.word(at).store(u64::from_le_bytes(bytes), Ordering::Relaxed);
    }
}

fn segment() -> (Segment, Bytes) {
    let (server, file) = Segment::create().unwrap();
    let bytes = Bytes(MmapOptions::new().len(Segment::BYTES).map_raw(&file).unwrap());
    (server, bytes)
}

/// The server's end of everything, and what it has seen.
struct Server {
    segment: Segment,
    receiver: Receiver,
    sender: Sender,
    sent: u64,
    received: u64,
    corrupt: u64,
    generation: u32,
    given: Vec<Option<Generation>>,
}

impl Server {
    fn new(segment: Segment) -> Server {
        let (receiver, sender) = (Receiver::default(), Sender::default());
        Server {
            segment,
            receiver,
            sender,
            sent: 0,
            received: 0,
            corrupt: 0,
            generation: 0,
            given: vec![None; 64],
        }
    }

    /// One pass of a shard over this client. A real one ends the session at the first `Corrupt`; this one begins anew.
    fn pass(&mut self, random: &mut Random) {
        let ring = self.segment.requests();
        for _ in 0..64 {
            match self.receiver.receive(ring) {
                Ok(Some(piece)) => {
                    assert!((1..=SLOT_BYTES).contains(&piece.bytes().len()));
                    self.received += 1;
                }
                Ok(None) => break,
                Err(Corrupt::Length(bytes)) => {
                    assert!(bytes == 0 || usize::from(bytes) > SLOT_BYTES);
                    self.corrupt += 1;
                    self.receiver = Receiver::default();
                    break;
                }
                Err(other) => panic!("a reader reads no position: {other}"),
            }
        }
        self.receiver.give_back(ring);
        let frame = [7; 300];
        let length = random.below(frame.len()) + 1;
        match self.sender.send(self.segment.replies(), &frame[..length]) {
            Ok(bytes) => {
                assert!(bytes <= length);
                self.sent += bytes.div_ceil(SLOT_BYTES) as u64;
            }
            Err(Corrupt::Position { taken, sent }) => {
                // Some of the pieces may have found room before.
                assert!((self.sent..self.sent + 5).contains(&sent), "its own position is its own");
                assert_ne!(taken, sent, "that could be true");
                self.corrupt += 1;
                (self.sender, self.sent) = (Sender::default(), 0);
            }
            Err(other) => panic!("a writer reads no length: {other}"),
        }
        self.bells(random);
        self.words(random);
    }

    fn bells(&self, random: &mut Random) {
        if random.below(4) == 0 {
            self.segment.attention().doze();
        } else {
            self.segment.attention().listen();
        }
        publish_fence();
        if self.segment.parking().to_wake() == Waiting::Futex {
            unpark(self.segment.parking());
        }
        let _ = self.segment.leaving();
        let _ = format!("{:?}", self.segment);
    }

    fn words(&mut self, random: &mut Random) {
        let place = random.below(self.given.len());
        let word = self.segment.word(u32::try_from(place).unwrap()).unwrap();
        let Some(generation) = self.given[place] else {
            self.generation += 1;
            word.grant(Generation(self.generation), random.below(2) == 0);
            self.given[place] = Some(Generation(self.generation));
            return;
        };
        let over = match random.below(4) {
            0 => {
                word.want();
                false
            }
            1 => word.take(generation),
            2 => word.void(generation) == Seen::Free,
            _ => {
                let _ = (word.look(generation), word.entries());
                false
            }
        };
        if over {
            self.given[place] = None;
        }
    }
}

/// What looks right in one place or another.
fn chosen(random: &mut Random) -> u64 {
    let lap = (random.next() % 4) << 40;
    match random.below(8) {
        0 => 0,
        1 => u64::MAX,
        2 => lap | (random.next() % 70) << 32,
        3 => random.next() % (RING_SLOTS as u64 * 2),
        // A word of some tenure, in some state.
        4 => (random.next() % 100) << 32 | (random.next() % 5),
        5 => lap | 60 << 32 | (random.next() >> 32),
        6 => 1 << (random.next() % 64),
        _ => random.next(),
    }
}

#[test]
fn every_byte_of_a_segment_may_be_anything_while_the_server_does_not_look() {
    let mut random = Random(seed());
    let (segment, bytes) = segment();
    let mut server = Server::new(segment);
    // Everything before the words, and the words in use.
    let end = Segment::BYTES - (WORDS - 64) * 64;
    for at in 0..end {
        bytes.set_byte(at, random.next().to_le_bytes()[0]);
        if at % 16 == 0 {
            server.pass(&mut random);
        }
    }
    for round in 0..200_000 {
        let value = if round % 2 == 0 { chosen(&mut random) } else { random.next() };
        bytes.word(random.below(end / 8) * 8).store(value, Ordering::Relaxed);
        if round % 4 == 0 {
            server.pass(&mut random);
        }
    }
    assert!(server.corrupt > 0, "the garbage was never noticed");
}

#[test]
fn every_byte_of_a_segment_may_change_while_the_server_looks() {
    let seed = seed();
    let (segment, bytes) = segment();
    let requests = first_request_at(&segment, &bytes);
    let mut server = Server::new(segment);
    let end = Segment::BYTES - (WORDS - 64) * 64;
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            let mut random = Random(seed);
            while !over.load(Ordering::Relaxed) {
                let value = chosen(&mut random);
                if random.below(8) == 0 {
                    // Some that are believed, so that the server comes further than the first slot.
                    let (length, lap) = (random.next() % 60 + 1, random.next() % 3 + 1);
                    for slot in 0..random.below(RING_SLOTS) {
                        let head = lap << 40 | length << 32;
                        bytes.word(requests + slot * 64).store(head, Ordering::Relaxed);
                    }
                } else if random.below(2) == 0 {
                    bytes.word(random.below(end / 8) * 8).store(value, Ordering::Relaxed);
                } else {
                    bytes.set_byte(random.below(end), value.to_le_bytes()[0]);
                }
            }
        });
        let (mut random, begun, mut passes) = (Random(seed + 1), Instant::now(), 0_u64);
        while begun.elapsed() < TIME {
            server.pass(&mut random);
            passes += 1;
        }
        over.store(true, Ordering::Relaxed);
        assert!(server.received > 0 && server.corrupt > 0, "garbage and messages");
        println!("{passes} passes, {} times corrupt, {} slots received", server.corrupt, server.received);
    });
}

/// A client that says of every position that it has read everything gets answers overwritten, and only its own.
#[test]
fn a_reader_that_claims_everything_harms_itself_alone() {
    let (segment, bytes) = segment();
    let mut sender = Sender::default();
    let position = taken_at(&segment, &bytes);
    for sent in 1..RING_SLOTS as u64 * 3 {
        assert_eq!(sender.send(segment.replies(), &[1]), Ok(1));
        bytes.word(position).store(sent, Ordering::Relaxed);
    }
    bytes.word(position).store(u64::MAX, Ordering::Relaxed);
    let mut room = RING_SLOTS;
    let error = loop {
        match sender.send(segment.replies(), &[1]) {
            Ok(bytes) => room -= bytes,
            Err(error) => break error,
        }
    };
    assert!(room < RING_SLOTS, "it looks only when it must");
    assert!(matches!(error, Corrupt::Position { taken: u64::MAX, .. }));
}

/// The words of a segment that something changes.
fn changed_by(bytes: &Bytes, change: impl FnOnce()) -> Vec<usize> {
    let now = || (0..Segment::BYTES / 8).map(|at| bytes.word(at * 8).load(Ordering::Relaxed));
    let before: Vec<u64> = now().collect();
    change();
    now()
        .zip(before)
        .enumerate()
        .filter_map(|(at, (now, before))| (now != before).then_some(at * 8))
        .collect()
}

/// Where the reader of replies says how far it is.
fn taken_at(segment: &Segment, bytes: &Bytes) -> usize {
    let (mut sender, mut receiver) = (Sender::default(), Receiver::default());
    assert_eq!(sender.send(segment.replies(), &[1]), Ok(1));
    assert!(receiver.receive(segment.replies()).unwrap().is_some());
    let places = changed_by(bytes, || receiver.give_back(segment.replies()));
    assert_eq!(places.len(), 1);
    bytes.word(places[0]).store(0, Ordering::Relaxed);
    places[0]
}

/// Where the head of the first request is; the others follow, one a line.
fn first_request_at(segment: &Segment, bytes: &Bytes) -> usize {
    let places = changed_by(bytes, || assert_eq!(Sender::default().send(segment.requests(), &[1]), Ok(1)));
    assert_eq!(places.len(), 1);
    places[0]
}
