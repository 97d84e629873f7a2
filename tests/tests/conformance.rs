//! The same scenarios through the Rust client, over every way: TCP, Unix socket and shared memory, both drivers, one and two
//! shards.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use fairlock::{
    AcquireError, Client, ClientState, ConvertError, GuardError, GuardState, LostCause, Mode, OwnerId,
    Refusal,
};
use fairlock_protocol::mode::COMPATIBLE;
use fairlock_tests::proxy::Proxy;
use fairlock_tests::server::{Io, Plan};
use fairlock_tests::ways::{self, Way};
use fairlock_tests::{WATCHDOG, eventually};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

/// Plays a scenario over every way, each with a server of its own.
fn every_way(scenario: impl Fn(&dyn Fn() -> Client)) {
    for way in ways::of_clients() {
        let server = way.plan().start();
        let endpoint = way.endpoint(&server);
        let builder = || Client::builder().ttl(Duration::from_secs(20)).transport(way.transport());
        let connect = || {
            let client = builder().connect(&*endpoint).unwrap();
            assert_eq!(client.transport(), way.transport());
            client
        };
        scenario(&connect);
    }
}

fn would_block(outcome: &Result<fairlock::Guard, AcquireError>) -> bool {
    matches!(outcome, Err(AcquireError::Refused(Refusal::WouldBlock)))
}

#[test]
fn a_lock_is_taken_held_and_given_back() {
    every_way(|connect| {
        let (one, other) = (connect(), connect());
        let guard = one.lock("orders/42").acquire().unwrap();
        assert_eq!((guard.mode(), guard.name(), guard.namespace()), (Mode::EX, &b"orders/42"[..], "default"));
        assert_eq!(guard.state(), GuardState::Valid);
        guard.check().unwrap();
        guard.valid_for(Duration::from_millis(50)).unwrap();
        assert!(would_block(&other.lock("orders/42").try_acquire()));
        let first = guard.token();
        guard.release().unwrap();
        let guard = other.lock("orders/42").acquire().unwrap();
        assert!(guard.token() > first && !guard.previous_owner_died());
    });
}

/// G3: the 36 cells, from every way alike.
#[test]
fn the_thirty_six_cells_are_as_published() {
    every_way(|connect| {
        let (one, other) = (connect(), connect());
        for held in Mode::ALL {
            for asked in Mode::ALL {
                let name = format!("{held}-{asked}");
                let guard = one.lock(&name).mode(held).acquire().unwrap();
                let outcome = other.lock(&name).mode(asked).try_acquire();
                let compatible = COMPATIBLE[usize::from(held.wire())][usize::from(asked.wire())];
                assert_eq!(outcome.is_ok(), compatible, "held {held}, asked {asked}");
                assert!(compatible || would_block(&outcome));
                drop(guard);
            }
        }
    });
}

/// G9: the end of a wait is the end of the request.
#[test]
fn a_wait_that_ends_is_a_timeout_and_leaves_nothing_behind() {
    every_way(|connect| {
        let (one, other, third) = (connect(), connect(), connect());
        let guard = one.lock("x").acquire().unwrap();
        let outcome = other.lock("x").wait(Duration::from_millis(30)).acquire();
        assert!(matches!(outcome, Err(AcquireError::Refused(Refusal::Timeout))), "{outcome:?}");
        guard.release().unwrap();
        // Giving back returns at once and arrives when it does; whoever waits for it gets it.
        third.lock("x").wait(WATCHDOG).acquire().unwrap().release().unwrap();
    });
}

/// G6: a try does not pass who waits, also when the lock would be compatible.
#[test]
fn a_try_fails_while_anybody_waits() {
    every_way(|connect| {
        let (reader, writer, bold) = (connect(), connect(), connect());
        let read = reader.lock("x").mode(Mode::PR).acquire().unwrap();
        std::thread::scope(|scope| {
            let written = scope.spawn(|| writer.lock("x").acquire().unwrap());
            eventually("the writer waits", || {
                would_block(&bold.lock("x").mode(Mode::PR).try_acquire()).then_some(())
            });
            read.release().unwrap();
            written.join().unwrap().release().unwrap();
        });
        drop(bold.lock("x").mode(Mode::PR).wait(WATCHDOG).acquire().unwrap());
    });
}

#[test]
fn readers_share_and_a_writer_waits_for_all_of_them() {
    every_way(|connect| {
        let clients: Vec<Client> = (0..3).map(|_| connect()).collect();
        let reads: Vec<_> =
            clients.iter().map(|client| client.lock("x").mode(Mode::PR).acquire().unwrap()).collect();
        let writer = connect();
        let released = AtomicU32::new(0);
        std::thread::scope(|scope| {
            let written = scope.spawn(|| {
                let guard = writer.lock("x").acquire().unwrap();
                (released.load(Ordering::SeqCst), guard.token())
            });
            for read in reads {
                std::thread::sleep(Duration::from_millis(5));
                released.fetch_add(1, Ordering::SeqCst);
                read.release().unwrap();
            }
            assert_eq!(written.join().unwrap().0, 3);
        });
    });
}

#[test]
fn modes_are_converted_both_ways() {
    every_way(|connect| {
        let (one, other) = (connect(), connect());
        let mut guard = one.lock("x").mode(Mode::PR).acquire().unwrap();
        let shared = guard.token();
        guard.convert(Mode::EX).unwrap();
        assert!(guard.mode() == Mode::EX && guard.token() > shared, "going up is a new tenure");
        let exclusive = guard.token();
        guard.convert(Mode::PR).unwrap();
        assert_eq!((guard.mode(), guard.token()), (Mode::PR, exclusive), "going down is the same one");
        let read = other.lock("x").mode(Mode::PR).wait(WATCHDOG).acquire().unwrap();
        let refused = guard.convert_wait(Mode::EX, Duration::ZERO);
        assert!(matches!(refused, Err(ConvertError::Refused(Refusal::WouldBlock))), "{refused:?}");
        assert_eq!(guard.mode(), Mode::PR);
        drop(read);
        guard.convert_wait(Mode::EX, WATCHDOG).unwrap();
    });
}

/// G10: through the client, with the other one named.
#[test]
fn crossing_conversions_do_not_wait_for_each_other() {
    every_way(|connect| {
        let (one, other) = (connect(), connect());
        let mut first = one.lock("x").mode(Mode::PR).acquire().unwrap();
        let mut second = other.lock("x").mode(Mode::PR).acquire().unwrap();
        std::thread::scope(|scope| {
            let up = scope.spawn(move || first.convert(Mode::EX).map(|()| first));
            let refused = eventually("one of both is refused", || {
                if up.is_finished() { Some(None) } else { second.convert(Mode::EX).err().map(Some) }
            });
            match refused {
                Some(error) => {
                    assert!(matches!(error, ConvertError::Deadlock(_)), "{error}");
                    drop(second);
                    assert_eq!(up.join().unwrap().unwrap().mode(), Mode::EX);
                }
                None => assert!(matches!(up.join().unwrap(), Err(ConvertError::Deadlock(_)))),
            }
        });
    });
}

#[test]
fn the_same_owner_enters_again_only_when_it_says_so() {
    every_way(|connect| {
        let (client, other) = (connect(), connect());
        let outer = client.lock("x").owner(OwnerId(7)).reentrant(true).acquire().unwrap();
        let inner = client.lock("x").owner(OwnerId(7)).reentrant(true).acquire().unwrap();
        assert_eq!(outer.token(), inner.token());
        let refused = client.lock("x").owner(OwnerId(7)).acquire();
        assert!(matches!(refused, Err(AcquireError::Refused(Refusal::AlreadyHeld))), "{refused:?}");
        assert!(would_block(&client.lock("x").owner(OwnerId(8)).try_acquire()));
        drop(outer);
        inner.check().unwrap();
        assert!(would_block(&other.lock("x").try_acquire()));
        drop(inner);
        drop(other.lock("x").acquire().unwrap());
    });
}

/// G8: cancelled or granted, never both. G9: and never later.
#[test]
fn a_cancelled_acquire_has_one_outcome() {
    every_way(|connect| {
        let (one, other) = (connect(), connect());
        for round in 0..50_u64 {
            let guard = one.lock("x").acquire().unwrap();
            let request = other.lock("x");
            let canceller = request.canceller();
            std::thread::scope(|scope| {
                let asked = scope.spawn(move || request.acquire());
                std::thread::sleep(Duration::from_micros(round * 20));
                if round % 2 == 0 {
                    canceller.cancel();
                    drop(guard);
                } else {
                    drop(guard);
                    canceller.cancel();
                }
                match asked.join().unwrap() {
                    Ok(granted) => granted.check().unwrap(),
                    Err(error) => assert_eq!(error.refusal(), Refusal::Cancelled),
                }
            });
        }
        drop(one.lock("x").wait(WATCHDOG).acquire().unwrap());
    });
}

/// G8: whoever withdrew a request has no part of it any more, and may ask again.
#[test]
fn who_cancelled_may_ask_again() {
    every_way(|connect| {
        let client = connect();
        for round in 0..200_u64 {
            let request = client.lock("x");
            let canceller = request.canceller();
            std::thread::scope(|scope| {
                let cancelling = scope.spawn(move || {
                    std::thread::sleep(Duration::from_micros(round));
                    canceller.cancel();
                });
                drop(request.acquire());
                cancelling.join().unwrap();
            });
            drop(client.lock("x").wait(WATCHDOG).acquire().unwrap());
        }
    });
}

struct Flag(AtomicBool);

impl Wake for Flag {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::SeqCst);
    }
}

/// G9: a future that is dropped withdraws its request.
#[test]
fn a_dropped_future_leaves_the_queue() {
    every_way(|connect| {
        let (one, other, third) = (connect(), connect(), connect());
        let guard = one.lock("x").acquire().unwrap();
        let flag = Arc::new(Flag(AtomicBool::new(false)));
        let waker = Waker::from(flag.clone());
        let mut context = Context::from_waker(&waker);
        let mut dropped = Box::pin(other.lock("x").acquire_async());
        assert!(dropped.as_mut().poll(&mut context).is_pending());
        let mut kept = Box::pin(third.lock("x").acquire_async());
        assert!(kept.as_mut().poll(&mut context).is_pending());
        drop(dropped);
        guard.release().unwrap();
        let guard = eventually("the second one is granted", || match kept.as_mut().poll(&mut context) {
            Poll::Ready(outcome) => Some(outcome.unwrap()),
            Poll::Pending => None,
        });
        eventually("it was woken", || flag.0.load(Ordering::SeqCst).then_some(()));
        guard.check().unwrap();
    });
}

use std::future::Future as _;

/// G14: closing gives everything back, and every guard knows.
#[test]
fn a_closed_client_has_lost_everything_and_others_have_it() {
    every_way(|connect| {
        let (one, other) = (connect(), connect());
        let guards: Vec<_> = (0..8).map(|n| one.lock(format!("closed {n}")).acquire().unwrap()).collect();
        one.close();
        assert_eq!(one.state(), ClientState::Closed);
        for guard in &guards {
            assert_eq!(guard.check(), Err(GuardError::Lost(LostCause::Closed)));
        }
        for n in 0..8 {
            drop(other.lock(format!("closed {n}")).wait(WATCHDOG).acquire().unwrap());
        }
        assert!(matches!(one.lock("y").acquire(), Err(AcquireError::Closed)));
    });
}

/// G5: sixteen threads of several clients, served one after the other, nobody overtaken.
#[test]
fn many_threads_take_turns() {
    every_way(|connect| {
        let clients: Vec<Client> = (0..4).map(|_| connect()).collect();
        let inside = AtomicU32::new(0);
        std::thread::scope(|scope| {
            for thread in 0..16_u64 {
                let (client, inside) = (clients[usize::try_from(thread % 4).unwrap()].clone(), &inside);
                scope.spawn(move || {
                    let mut last = None;
                    for _ in 0..20 {
                        let guard = client.lock("turns").owner(OwnerId(thread + 1)).acquire().unwrap();
                        assert_eq!(inside.fetch_add(1, Ordering::SeqCst), 0, "two at once");
                        assert!(Some(guard.token()) > last);
                        last = Some(guard.token());
                        inside.fetch_sub(1, Ordering::SeqCst);
                        guard.release().unwrap();
                    }
                });
            }
        });
    });
}

/// G31: names are bytes.
#[test]
fn names_are_compared_as_bytes() {
    every_way(|connect| {
        let (one, other) = (connect(), connect());
        let long = vec![b'n'; 1024];
        let names: [&[u8]; 5] = [b"a\0b", b"a\0c", b"\xff\xfe", "größe".as_bytes(), &long];
        let guards: Vec<_> = names.iter().map(|name| one.lock(name).acquire().unwrap()).collect();
        for name in names {
            assert!(would_block(&other.lock(name).try_acquire()));
        }
        drop(guards);
        for name in [&b""[..], &[b'n'; 1025]] {
            let refused = one.lock(name).acquire().unwrap_err().refusal();
            assert!(matches!(refused, Refusal::BadName | Refusal::TooLong), "{refused}");
        }
        let elsewhere = one.lock("x").namespace("vm").acquire().unwrap();
        drop(other.lock("x").wait(WATCHDOG).acquire().unwrap());
        drop(elsewhere);
        assert_eq!(one.lock("x").namespace("Upper").acquire().unwrap_err().refusal(), Refusal::BadName);
    });
}

/// G1, G4: a client that is cut off knows by its own clock that its lock is gone, before anybody else has it.
#[test]
fn a_guard_is_lost_before_the_next_one_is_valid() {
    for &io in ways::drivers() {
        let server = Plan::new(io).start();
        let line = Proxy::to(server.address());
        let ttl = Duration::from_millis(600);
        let cut_off = Client::builder().ttl(ttl).connect(line.endpoint()).unwrap();
        let next = Client::connect(server.tcp()).unwrap();
        for _ in 0..3 {
            let guard = cut_off.lock("x").wait(WATCHDOG).acquire().unwrap();
            std::thread::scope(|scope| {
                line.cut();
                let taken = scope.spawn(|| next.lock("x").wait(WATCHDOG).acquire().unwrap());
                while !taken.is_finished() {
                    std::thread::yield_now();
                }
                let taken = taken.join().unwrap();
                assert_eq!(guard.check(), Err(GuardError::Lost(LostCause::Lease)), "both are valid");
                assert!(taken.token() > guard.token() && taken.previous_owner_died());
            });
            line.mend();
            assert!(guard.release().is_err(), "what was lost cannot be given back");
        }
    }
}

/// G7, G11: a short cut costs nothing: the guard is held through it, the place in the queue too.
#[test]
fn a_short_cut_is_survived_by_holder_and_waiter() {
    for &io in ways::drivers() {
        let server = Plan::new(io).shards(2).start();
        let line = Proxy::to(server.address());
        let through = Client::builder().ttl(Duration::from_secs(30)).connect(line.endpoint()).unwrap();
        let direct = Client::connect(server.unix()).unwrap();
        let guard = through.lock("held").acquire().unwrap();
        let first = direct.lock("queue").acquire().unwrap();
        std::thread::scope(|scope| {
            let waiter = scope.spawn(|| through.lock("queue").acquire().unwrap());
            eventually("it waits", || {
                would_block(&direct.lock("queue").owner(OwnerId(3)).try_acquire()).then_some(())
            });
            std::thread::sleep(Duration::from_millis(100));
            line.cut();
            std::thread::sleep(Duration::from_millis(300));
            first.release().unwrap();
            assert!(guard.check().is_ok(), "held, though the server is out of reach");
            line.mend();
            waiter.join().unwrap().check().unwrap();
        });
        guard.release().unwrap();
    }
}

/// G12: what a dead process held is another's at once, and he is told.
#[test]
fn the_next_holder_is_told_that_the_one_before_died() {
    let way = Way { io: Io::Auto, door: ways::Door::Unix, shards: 1 };
    let server = way.plan().start();
    let client = Client::connect(server.unix()).unwrap();
    let mut command = fairlock_tests::command::fairlock(&server.unix(), ["hold", "x", "--ttl", "60s"]);
    command.stdin(std::process::Stdio::piped()).stdout(std::process::Stdio::piped());
    let mut holder = fairlock_tests::command::Running::start(command);
    assert!(holder.line().contains("token"));
    drop(holder);
    let guard = client.lock("x").wait(WATCHDOG).acquire().unwrap();
    assert!(guard.previous_owner_died());
}
