//! How near the code is to the machine: a request and its reply through two rings against a bare cache line that goes to
//! and fro between the same two processors, and entering and leaving a word against the atomics it consists of.
//!
//! `cargo run -p fairlock-shm --release --example ping`; prints, asserts nothing. Best and median of many short
//! rounds, because a host moves virtual processors and other programs run.

#[cfg(loom)]
fn main() {}

#[cfg(not(loom))]
fn main() {
    measure::all();
}

#[cfg(not(loom))]
mod measure {
    use fairlock_shm::bell::publish_fence;
    use fairlock_shm::ring::{Receiver, Ring, Sender};
    use fairlock_shm::segment::{RING_SLOTS, Segment, SegmentRing};
    use fairlock_shm::word::{Entry, Generation, Holder, Leaving, Word};
    use rustix::thread::{CpuSet, sched_setaffinity};
    use std::hint::{black_box, spin_loop};
    use std::sync::atomic::{AtomicU64, Ordering};
    use std::thread;
    use std::time::Instant;

    const ROUNDS: usize = 2001;
    const TRIPS: u64 = 100;
    const PAIRS: u64 = 5_000;

    fn pin(processor: usize) {
        let mut set = CpuSet::new();
        set.set(processor);
        if let Err(error) = sched_setaffinity(None, &set) {
            println!("not pinned to processor {processor}: {error}");
        }
    }

    /// Nanoseconds a time: best and median.
    fn time(times: u64, mut run: impl FnMut()) -> (f64, f64) {
        let mut rounds: Vec<f64> = (0..ROUNDS)
            .map(|_| {
                let begun = Instant::now();
                run();
                #[expect(clippy::cast_precision_loss, reason = "some millions")]
                let each = begun.elapsed().as_nanos() as f64 / times as f64;
                each
            })
            .collect();
        rounds.sort_by(f64::total_cmp);
        (rounds[0], rounds[ROUNDS / 2])
    }

    fn say(what: &str, (best, median): (f64, f64), base: f64) {
        println!("{what:<58} {best:>7.1} {median:>7.1} ns  {:>5.2} x", best / base);
    }

    /// Two threads on two processors: `other` runs until `one` has made all its rounds.
    fn beside(other: impl FnOnce() + Send, one: impl FnOnce() -> (f64, f64)) -> (f64, f64) {
        thread::scope(|scope| {
            scope.spawn(|| {
                pin(1);
                other();
            });
            one()
        })
    }

    #[repr(align(64))]
    struct Line(AtomicU64);

    /// One line there, one line back, as the rings have it.
    fn bare() -> (f64, f64) {
        let (there, back) = (Line(AtomicU64::new(0)), Line(AtomicU64::new(0)));
        let wait = |line: &Line, value: u64| {
            while line.0.load(Ordering::Acquire) != value {
                spin_loop();
            }
        };
        let all = ROUNDS as u64 * TRIPS;
        let mut trip = 0;
        beside(
            || {
                for trip in 1..=all {
                    wait(&there, trip);
                    back.0.store(trip, Ordering::Release);
                }
            },
            || {
                time(TRIPS, || {
                    for _ in 0..TRIPS {
                        trip += 1;
                        there.0.store(trip, Ordering::Release);
                        wait(&back, trip);
                    }
                })
            },
        )
    }

    /// Takes so many bytes, in whichever pieces they come.
    fn take(receiver: &mut Receiver, ring: &SegmentRing, bytes: usize) {
        let mut taken = 0;
        while taken < bytes {
            if let Some(piece) = receiver.receive(ring).expect("lengths are right") {
                taken += black_box(piece.bytes()).len();
            } else {
                spin_loop();
            }
        }
        receiver.give_back(ring);
    }

    /// A request of `bytes` and a reply of as many. `fenced`: each side looks at the other's bell, as when they may sleep.
    fn rings(bytes: usize, fenced: bool) -> (f64, f64) {
        let (server, file) = Segment::create().expect("a segment");
        let client = Segment::open(&file).expect("the same segment");
        server.attention().listen();
        let frame = vec![7; bytes];
        let all = ROUNDS as u64 * TRIPS;
        // Each side's positions lie on its own stack, as in two processes.
        beside(
            || {
                let (mut asks, mut answers) = (Receiver::default(), Sender::default());
                for _ in 0..all {
                    take(&mut asks, server.requests(), bytes);
                    let sent = answers.send(server.replies(), &frame).expect("positions are right");
                    assert_eq!(sent, bytes);
                    if fenced {
                        publish_fence();
                        black_box(server.parking().to_wake());
                    }
                }
            },
            || {
                let (mut asks, mut answers) = (Sender::default(), Receiver::default());
                time(TRIPS, || {
                    for _ in 0..TRIPS {
                        let sent = asks.send(client.requests(), &frame).expect("positions are right");
                        assert_eq!(sent, bytes);
                        if fenced {
                            black_box(client.attention().must_ring());
                        }
                        take(&mut answers, client.replies(), bytes);
                    }
                })
            },
        )
    }

    /// What a message costs one processor, without any line that moves.
    fn alone(bytes: usize) -> (f64, f64) {
        let ring = Ring::<RING_SLOTS>::default();
        let (mut sender, mut receiver) = (Sender::default(), Receiver::default());
        let frame = vec![7; bytes];
        time(PAIRS, || {
            for _ in 0..PAIRS {
                let sent = sender.send(&ring, black_box(&frame)).expect("positions are right");
                black_box(sent);
                black_box(receiver.receive(&ring)).expect("lengths are right");
                receiver.give_back(&ring);
            }
        })
    }

    fn pair(leaving: Leaving) -> (f64, f64) {
        let (word, generation) = (Word::default(), Generation(1));
        word.grant(generation, false);
        black_box(word.leave(generation, leaving));
        let me = Holder::new(1);
        time(PAIRS, || {
            for _ in 0..PAIRS {
                assert_eq!(black_box(&word).enter(generation, me, leaving), Entry::Entered);
                black_box(word.leave(generation, leaving));
            }
        })
    }

    /// A locked exchange and a store of a line of one's own.
    fn bare_pair() -> (f64, f64) {
        let line = Line(AtomicU64::new(1));
        time(PAIRS, || {
            for _ in 0..PAIRS {
                let entered =
                    black_box(&line).0.compare_exchange(1, 2, Ordering::SeqCst, Ordering::Relaxed).is_ok();
                assert!(entered);
                line.0.store(1, Ordering::Release);
            }
        })
    }

    pub(super) fn all() {
        let two = thread::available_parallelism().is_ok_and(|processors| processors.get() > 1);
        pin(0);
        println!("{:<58} {:>7} {:>7}", "", "best", "median");
        if two {
            let bare = bare();
            say("a bare line there and back", bare, bare.0);
            for bytes in [4, 32, 60, 120] {
                say(&format!("request and reply of {bytes} bytes"), rings(bytes, false), bare.0);
            }
            say("a bare line there and back, again", self::bare(), bare.0);
            say("request and reply of 32 bytes, both looking at the bells", rings(32, true), bare.0);
        }
        for bytes in [4, 32, 60] {
            let alone = alone(bytes);
            say(&format!("sending and receiving {bytes} bytes on one processor"), alone, alone.0);
        }
        let bare = bare_pair();
        say("compare-and-swap and store", bare, bare.0);
        say("entering and leaving, the server having a barrier", pair(Leaving::Barrier), bare.0);
        say("entering and leaving by exchange", pair(Leaving::Exchange), bare.0);
    }
}
