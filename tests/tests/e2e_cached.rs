//! Grants that stay with a client, through the library and a real server: nobody else notices but by waiting shorter.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use fairlock::{Client, GuardError, Liveness, LostCause, Mode, OwnerId, Transport};
use fairlock_tests::command::finish;
use fairlock_tests::metrics::{get, metric};
use fairlock_tests::server::{Plan, Server};
use fairlock_tests::ways::drivers;
use fairlock_tests::{WATCHDOG, eventually};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

fn connect(server: &Server) -> Client {
    let builder = Client::builder().ttl(Duration::from_secs(20)).transport(Transport::Shm);
    builder.connect(server.unix()).unwrap()
}

/// Takes and leaves the lock until it stays: the token is the same as before.
fn until_it_stays(client: &Client, name: &str) -> u64 {
    let mut last = 0;
    eventually("the lock stays", || {
        let guard = client.lock(name).acquire().unwrap();
        let token = guard.token().get();
        guard.release().unwrap();
        (std::mem::replace(&mut last, token) == token).then_some(token)
    })
}

/// G43: it is wanted, and passes on.
#[test]
fn a_lock_that_stays_is_another_ones_as_soon_as_he_waits() {
    for &io in drivers() {
        for shards in [1, 2] {
            let server = Plan::new(io).shards(shards).start();
            let (keeper, other) = (connect(&server), connect(&server));
            let over_tcp = Client::connect(server.tcp()).unwrap();
            for name in ["a", "b", "c", "d"] {
                let token = until_it_stays(&keeper, name);
                let next = other.lock(name).acquire().unwrap();
                assert!(next.token().get() > token && !next.previous_owner_died());
                drop(next);
                let token = until_it_stays(&keeper, name);
                let inside = keeper.lock(name).acquire().unwrap();
                assert_eq!(inside.token().get(), token);
                std::thread::scope(|scope| {
                    let waiter = scope.spawn(|| over_tcp.lock(name).acquire().unwrap().token().get());
                    std::thread::sleep(Duration::from_millis(30));
                    assert!(!waiter.is_finished());
                    inside.check().unwrap();
                    drop(inside);
                    assert!(waiter.join().unwrap() > token);
                });
            }
        }
    }
}

/// G2: whoever takes a lock through a word, a message or a queue: one at a time, and each tenure's token is higher.
#[test]
fn prepared_locks_guards_and_strangers_exclude_each_other() {
    for &io in drivers() {
        for shards in [1, 2] {
            let server = Plan::new(io).shards(shards).admin().start();
            let (inside, entered, highest) = (AtomicBool::new(false), AtomicU64::new(0), AtomicU64::new(0));
            let work = |token: u64| {
                assert!(!inside.swap(true, Ordering::SeqCst), "two are inside");
                assert!(highest.fetch_max(token, Ordering::SeqCst) <= token, "an older tenure came later");
                entered.fetch_add(1, Ordering::Relaxed);
                std::hint::spin_loop();
                inside.store(false, Ordering::SeqCst);
            };
            let clients = [connect(&server), connect(&server)];
            let over_tcp = Client::connect(server.tcp()).unwrap();
            let locks: Vec<_> = clients.iter().map(|client| client.lock("hot").prepare().unwrap()).collect();
            let until = std::time::Instant::now() + Duration::from_millis(1500);
            let goes_on = || std::time::Instant::now() < until;
            std::thread::scope(|scope| {
                for (client, lock) in clients.iter().zip(&locks) {
                    for _ in 0..2 {
                        scope.spawn(|| {
                            while goes_on() {
                                let held = lock.acquire().unwrap();
                                work(held.token().get());
                                held.release().unwrap();
                            }
                        });
                    }
                    scope.spawn(|| {
                        while goes_on() {
                            let guard = client.lock("hot").acquire().unwrap();
                            work(guard.token().get());
                            guard.release().unwrap();
                        }
                    });
                }
                scope.spawn(|| {
                    while goes_on() {
                        std::thread::sleep(Duration::from_millis(20));
                        let guard = over_tcp.lock("hot").acquire().unwrap();
                        work(guard.token().get());
                    }
                });
            });
            let entered = entered.load(Ordering::Relaxed);
            eprintln!("{entered} times entered, {io:?}, {shards} shards");
            assert!(entered > 0);
            let page = get(server.admin(), "/metrics").1;
            assert_eq!(metric(&page, "overtakes_total"), Some(0.0), "{page}");
        }
    }
}

#[test]
fn readers_keep_their_locks_side_by_side_and_a_writer_gets_in() {
    let server = Plan::new(drivers()[0]).start();
    let clients = [connect(&server), connect(&server)];
    let (readers, writers) = (AtomicU64::new(0), AtomicU64::new(0));
    let written = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for client in &clients {
            let lock = client.lock("table").mode(Mode::PR).prepare().unwrap();
            let (readers, writers, written) = (&readers, &writers, &written);
            scope.spawn(move || {
                while !written.load(Ordering::Acquire) {
                    let held = lock.acquire().unwrap();
                    readers.fetch_add(1, Ordering::SeqCst);
                    assert_eq!(writers.load(Ordering::SeqCst), 0);
                    readers.fetch_sub(1, Ordering::SeqCst);
                    held.check().unwrap();
                }
            });
        }
        let writer = Client::connect(server.tcp()).unwrap();
        for _ in 0..20 {
            std::thread::sleep(Duration::from_millis(10));
            let guard = writer.lock("table").wait(WATCHDOG).acquire().unwrap();
            writers.fetch_add(1, Ordering::SeqCst);
            assert_eq!(readers.load(Ordering::SeqCst), 0);
            writers.fetch_sub(1, Ordering::SeqCst);
            drop(guard);
        }
        written.store(true, Ordering::Release);
    });
}

/// G24, G46: by message and by force.
#[test]
fn one_who_is_inside_is_asked_like_every_holder() {
    for &io in drivers() {
        let server = Plan::new(io).start();
        let (keeper, other) = (connect(&server), connect(&server));
        until_it_stays(&keeper, "x");
        // Conversion: the word is given up, the hold goes on.
        let mut guard = keeper.lock("x").acquire().unwrap();
        guard.convert(Mode::PR).unwrap();
        guard.check().unwrap();
        other.lock("x").mode(Mode::PR).wait(WATCHDOG).acquire().unwrap().release().unwrap();
        guard.convert(Mode::EX).unwrap();
        assert!(keeper.lock("x").try_acquire().is_err() && keeper.lock("x").acquire().is_err());
        drop(guard);
        // A break: the guard is lost, the next one is let in.
        until_it_stays(&keeper, "x");
        let lock = keeper.lock("x").prepare().unwrap();
        drop(lock.acquire().unwrap());
        let held = lock.acquire().unwrap();
        assert_eq!(finish(&server.unix(), ["break", "x"]).code, 0);
        eventually("it is lost", || held.check().is_err().then_some(()));
        assert_eq!(held.check(), Err(GuardError::Lost(LostCause::Broken)));
        other.lock("x").wait(WATCHDOG).acquire().unwrap().release().unwrap();
        drop(held);
        drop(lock.acquire().unwrap());
        // By force: lost at once.
        until_it_stays(&keeper, "x");
        let guard = keeper.lock("x").acquire().unwrap();
        assert_eq!(finish(&server.unix(), ["break", "x", "--force"]).code, 0);
        assert_eq!(guard.check(), Err(GuardError::Lost(LostCause::Broken)));
        drop(guard);
        until_it_stays(&keeper, "x");
    }
}

#[test]
fn a_client_that_closes_gives_back_what_stayed() {
    let server = Plan::new(drivers()[0]).start();
    let (keeper, other) = (connect(&server), connect(&server));
    for name in ["a", "b"] {
        until_it_stays(&keeper, name);
    }
    let inside = keeper.lock("a").acquire().unwrap();
    keeper.close();
    assert_eq!(inside.check(), Err(GuardError::Lost(LostCause::Closed)));
    for name in ["a", "b"] {
        other.lock(name).wait(WATCHDOG).acquire().unwrap().release().unwrap();
    }
}

/// G46: seen without I/O.
#[test]
fn a_server_that_dies_loses_the_locks_that_stay_at_the_leases_end_and_the_next_one_is_asked() {
    let server = Plan::new(drivers()[0]).start();
    let builder = Client::builder().ttl(Duration::from_secs(3)).transport(Transport::Shm);
    let client = builder.connect(server.unix()).unwrap();
    until_it_stays(&client, "x");
    let lock = client.lock("x").prepare().unwrap();
    drop(lock.acquire().unwrap());
    let held = lock.acquire().unwrap();
    let before = held.token();
    let plan = server.crash();
    held.check().unwrap();
    assert!(lock.try_acquire().is_err(), "nobody is there to be asked");
    eventually("the lease ends", || held.check().is_err().then_some(()));
    drop(held);
    let server = plan.start();
    let next = eventually("the next server is asked", || lock.acquire().ok());
    assert!(next.token() > before);
    drop(next);
    for _ in 0..1000 {
        lock.acquire().unwrap().check().unwrap();
    }
    drop(server);
}

#[test]
fn heartbeats_and_named_owners_go_the_same_way_or_the_ordinary_one() {
    let server = Plan::new(drivers()[0]).start();
    let builder = Client::builder().liveness(Liveness::Heartbeat).ttl(Duration::from_secs(3));
    let client = builder.transport(Transport::Shm).connect(server.unix()).unwrap();
    let lock = client.lock("x").prepare().unwrap();
    let named = client.lock("y").owner(OwnerId(7)).prepare().unwrap();
    let begun = std::time::Instant::now();
    while begun.elapsed() < Duration::from_secs(4) {
        lock.acquire().unwrap().check().unwrap();
        named.acquire().unwrap().check().unwrap();
    }
}
