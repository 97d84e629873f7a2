//! The client library over shared memory beside the other transports: one queue for all of them, grants that stay and
//! come back, and what a guard knows when its server is killed or frozen.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use fairlock::{Client, ClientState, GuardState, Mode, Transport};
use fairlock_tests::history::judge_clean;
use fairlock_tests::metrics::{get, metric};
use fairlock_tests::recorder::{Recorder, Wish};
use fairlock_tests::scratch::Scratch;
use fairlock_tests::server::{Plan, Server};
use fairlock_tests::ways::drivers;
use fairlock_tests::{boottime_ns, eventually};
use rustix::process::Signal;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Acquires of each client.
const ROUNDS: u32 = 1500;
/// The lease of a guard whose end is waited for.
const TTL: Duration = Duration::from_secs(2);

fn clients(server: &Server) -> Vec<Client> {
    let over = |transport, endpoint: String| {
        let client = Client::builder().transport(transport).connect(endpoint.as_str()).unwrap();
        assert_eq!(client.transport(), transport);
        client
    };
    vec![
        over(Transport::Shm, server.unix()),
        over(Transport::Shm, server.unix()),
        over(Transport::Unix, server.unix()),
        over(Transport::Tcp, server.tcp()),
        over(Transport::Shm, server.unix()),
    ]
}

/// One client's turns: now at the lock everybody wants, now and then at that of a neighbour, mostly at its own.
fn turns(client: &Client, number: u32, history: &Path) {
    let recorder = Recorder::new(history, format!("client {number}"));
    for round in 0..ROUNDS {
        let name = match round % 16 {
            0..5 => "wanted".to_owned(),
            5 => format!("calm/{}", (number + 1) % 5),
            _ => format!("calm/{number}"),
        };
        let wish = Wish { name: &name, mode: Mode::EX, owner: 0, wait: None };
        let held = recorder.acquire(wish, || client.lock(&name).acquire()).unwrap();
        assert!(held.check());
        held.release();
    }
    recorder.closed();
}

// G42, G43: thousands of hand-overs between shared memory, Unix sockets and TCP; nobody overtakes, no two hold at once.
#[test]
fn one_queue_serves_clients_of_every_transport() {
    for &io in drivers() {
        let server = Plan::new(io).admin().start();
        let clients = clients(&server);
        let scratch = Scratch::new();
        let files: Vec<PathBuf> = (0..5).map(|number| scratch.join(&format!("client-{number}"))).collect();
        std::thread::scope(|scope| {
            for ((client, number), file) in clients.iter().zip(0..).zip(&files) {
                scope.spawn(move || turns(client, number, file));
            }
        });
        let counts = judge_clean(&files, &format!("{io:?}")).counts;
        assert_eq!(counts.certain_holds, 5 * u64::from(ROUNDS), "{counts:?}");
        let again = counts.granted - counts.tenures;
        let page = get(server.admin(), "/metrics").1;
        assert_eq!(metric(&page, "overtakes_total"), Some(0.0), "{page}");
        assert!(again > 0, "some locks were entered again without a message");
        assert!(metric(&page, "revocations_total") > Some(0.0), "and came back: {page}");
    }
}

/// A guard over shared memory.
fn guard(server: &Server, ttl: Duration) -> (Client, fairlock::Guard) {
    let builder = Client::builder().transport(Transport::Shm).ttl(ttl);
    let client = builder.connect(server.unix().as_str()).unwrap();
    let guard = client.lock("held").acquire().unwrap();
    eventually("connected", || {
        ((guard.state(), client.state()) == (GuardState::Valid, ClientState::Connected)).then_some(())
    });
    (client, guard)
}

/// Looks until the guard is lost. It is never found valid later than its lease after the server's last moment.
fn lost(guard: &fairlock::Guard, last_ns: u64) {
    loop {
        let before_ns = boottime_ns();
        if guard.check().is_err() {
            break;
        }
        let lease_ns = u64::try_from(TTL.as_nanos()).unwrap();
        assert!(before_ns < last_ns + lease_ns, "valid after its lease");
        std::thread::sleep(Duration::from_millis(1));
    }
    assert_eq!(guard.state(), GuardState::Lost);
}

// G46: killed: suspended at once, lost by the deadline, and nobody was asked.
#[test]
fn a_guard_of_a_killed_server_is_suspended_and_then_lost() {
    for &io in drivers() {
        let server = Plan::new(io).start();
        let (client, guard) = guard(&server, TTL);
        let _plan = server.crash();
        let dead_ns = boottime_ns();
        eventually("suspended", || (guard.state() != GuardState::Valid).then_some(()));
        lost(&guard, dead_ns);
        assert_eq!(client.state(), ClientState::Lost);
    }
}

// G46: frozen: no end of a connection tells, only the stamp that stops.
#[test]
fn a_guard_of_a_frozen_server_is_suspended_and_then_lost_and_a_new_one_is_had_when_it_goes_on() {
    for &io in drivers() {
        let server = Plan::new(io).start();
        let (client, guard) = guard(&server, TTL);
        server.signal(Signal::STOP);
        let frozen_ns = boottime_ns();
        eventually("suspended", || (guard.state() != GuardState::Valid).then_some(()));
        // It may have served until it was frozen.
        lost(&guard, frozen_ns);
        server.signal(Signal::CONT);
        drop(guard);
        let next = client.lock("held").acquire().unwrap();
        next.check().unwrap();
    }
}

// G12, G44, G56: a restarted server knows nothing of the old session; the client shows it what it holds, and goes on with a new one.
#[test]
fn a_client_goes_on_with_a_restarted_server() {
    let server = Plan::new(drivers()[0]).start();
    let (client, guard) = guard(&server, Duration::from_secs(10));
    let token = guard.token();
    let server = server.crash().start();
    eventually("the guard has a token of the new run", || {
        guard.check().expect("it is never lost");
        (guard.token() > token && guard.state() == GuardState::Valid).then_some(())
    });
    guard.release().unwrap();
    let again = client.lock("held").acquire().unwrap();
    again.check().unwrap();
    drop(server);
}
