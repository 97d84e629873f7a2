//! Several locks in one request, through the real client and a real server, on one shard and spread over two.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use fairlock::{AcquireError, Client, Guard, Mode, Refusal};
use fairlock_tests::ways;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, Thread};
use std::time::Duration;

/// So many that either of two shards owns some.
const NAMES: [&str; 8] = ["g", "b", "f", "a", "h", "c", "e", "d"];

struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

fn block_on<F: Future>(future: F) -> F::Output {
    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    let mut future = std::pin::pin!(future);
    loop {
        if let Poll::Ready(output) = future.as_mut().poll(&mut Context::from_waker(&waker)) {
            return output;
        }
        thread::park();
    }
}

fn exclusive<'a>(names: &[&'a str]) -> Vec<(&'a str, Mode)> {
    names.iter().map(|&name| (name, Mode::EX)).collect()
}

fn refusal(outcome: Result<Vec<Guard>, AcquireError>) -> Refusal {
    match outcome {
        Err(error) => error.refusal(),
        Ok(guards) => panic!("granted: {guards:?}"),
    }
}

/// G37: all are held or none is, in whatever way one waits, and on however many shards they are.
#[test]
fn several_locks_are_all_held_or_none_is() {
    for way in ways::all() {
        let server = way.plan().start();
        let client = || Client::connect(way.endpoint(&server).as_str()).unwrap();
        let (one, two, three) = (client(), client(), client());
        let guards = one.lock_all(exclusive(&NAMES)).label("all").acquire().unwrap();
        let names: Vec<&[u8]> = guards.iter().map(Guard::name).collect();
        assert_eq!(names, NAMES.map(str::as_bytes), "in the order in which they were named");
        assert!(guards.iter().all(|guard| guard.check().is_ok()));
        assert_eq!(refusal(two.lock_all(exclusive(&NAMES)).try_acquire()), Refusal::WouldBlock);
        drop(guards);
        for kept in NAMES {
            let guard = one.lock(kept).acquire().unwrap();
            let brief = two.lock_all(exclusive(&NAMES)).wait(Duration::from_millis(20));
            assert_eq!(refusal(brief.acquire()), Refusal::Timeout);
            let withdrawn = two.lock_all(exclusive(&NAMES)).acquire_async();
            drop(withdrawn);
            for other in NAMES.into_iter().filter(|&other| other != kept) {
                drop(three.lock(other).acquire().unwrap());
            }
            drop(guard);
        }
        let guards = block_on(two.lock_all(exclusive(&NAMES)).acquire_async()).unwrap();
        assert_eq!(guards.len(), NAMES.len());
        assert_eq!(refusal(two.lock_all(exclusive(&["x", "x"])).acquire()), Refusal::BadRequest);
        assert_eq!(refusal(two.lock_all(exclusive(&[])).acquire()), Refusal::BadRequest);
    }
}

/// G37: whoever wants several at once never waits for another who does, in whatever order they name them.
#[test]
fn requests_for_several_locks_never_wait_for_each_other() {
    for way in ways::all() {
        let server = way.plan().start();
        let clients = [(); 2].map(|()| Client::connect(way.endpoint(&server).as_str()).unwrap());
        let inside: [AtomicU32; NAMES.len()] = Default::default();
        thread::scope(|scope| {
            for seed in 0..4_u64 {
                let (client, inside) = (&clients[usize::try_from(seed % 2).unwrap()], &inside);
                scope.spawn(move || {
                    let mut random = fairlock_tests::random::Random::from_seed(seed + 1);
                    for _ in 0..100 {
                        let mut picked: Vec<usize> =
                            (0..NAMES.len()).filter(|_| random.below(2) == 0).collect();
                        if random.below(2) == 0 {
                            picked.reverse();
                        }
                        if picked.is_empty() {
                            continue;
                        }
                        let names: Vec<&str> = picked.iter().map(|&place| NAMES[place]).collect();
                        let guards = client.lock_all(exclusive(&names)).acquire().unwrap();
                        for &place in &picked {
                            assert_eq!(inside[place].fetch_add(1, Ordering::SeqCst), 0, "alone");
                        }
                        for &place in &picked {
                            inside[place].fetch_sub(1, Ordering::SeqCst);
                        }
                        drop(guards);
                    }
                });
            }
        });
    }
}
