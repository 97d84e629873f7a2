//! The client library over shared memory beside the other transports: one queue for all of them, grants that stay and
//! come back, and what a guard knows when its server is killed or frozen.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use fairlock::{Client, ClientState, GuardState, Transport};
use fairlock_tests::history::{Hold, contradictions};
use fairlock_tests::metrics::{get, metric};
use fairlock_tests::server::{Plan, Server};
use fairlock_tests::ways::drivers;
use fairlock_tests::{boottime_ns, eventually};
use rustix::process::Signal;
use std::collections::BTreeMap;
use std::time::Duration;

/// Acquires of each client.
const ROUNDS: u32 = 1500;

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
fn turns(client: &Client, number: u32) -> Vec<(u32, Hold)> {
    let mut holds = Vec::new();
    for round in 0..ROUNDS {
        let name = match round % 16 {
            0..5 => "wanted".to_owned(),
            5 => format!("calm/{}", (number + 1) % 5),
            _ => format!("calm/{number}"),
        };
        let asked_ns = boottime_ns();
        let guard = client.lock(&name).acquire().unwrap();
        let from_ns = boottime_ns();
        let waited_ns = u64::try_from(guard.waited().as_nanos()).unwrap();
        // The clock is read before the check: what is found valid was held at that moment.
        let (until_ns, valid) = (boottime_ns(), guard.check());
        valid.unwrap();
        let token = guard.token().get();
        guard.release().unwrap();
        holds.push((number, Hold { name, token, asked_ns, waited_ns, from_ns, until_ns }));
    }
    holds
}

/// Entries of one tenure as one hold: they bear one token, belong to one client and follow each other.
fn tenures(holds: Vec<(u32, Hold)>) -> (Vec<Hold>, usize) {
    let mut by_token: BTreeMap<(String, u64), Vec<(u32, Hold)>> = BTreeMap::new();
    for (number, hold) in holds {
        by_token.entry((hold.name.clone(), hold.token)).or_default().push((number, hold));
    }
    let mut again = 0;
    let merged = by_token.into_values().map(|mut entries| {
        entries.sort_by_key(|(_, hold)| hold.from_ns);
        for pair in entries.windows(2) {
            assert_eq!(pair[0].0, pair[1].0, "one tenure is one client's: {pair:?}");
            assert!(pair[0].1.until_ns < pair[1].1.from_ns, "entries follow each other: {pair:?}");
        }
        again += entries.len() - 1;
        let last = entries.last().unwrap().1.until_ns;
        Hold { until_ns: last, ..entries.swap_remove(0).1 }
    });
    (merged.collect(), again)
}

// G42, G43: thousands of hand-overs between shared memory, Unix sockets and TCP; nobody overtakes, no two hold at once.
#[test]
fn one_queue_serves_clients_of_every_transport() {
    for &io in drivers() {
        let server = Plan::new(io).admin().start();
        let clients = clients(&server);
        let holds = std::thread::scope(|scope| {
            let turns: Vec<_> = clients
                .iter()
                .zip(0..)
                .map(|(client, number)| scope.spawn(move || turns(client, number)))
                .collect();
            turns.into_iter().flat_map(|turns| turns.join().unwrap()).collect::<Vec<_>>()
        });
        assert_eq!(holds.len(), 5 * ROUNDS as usize);
        let (tenures, again) = tenures(holds);
        let found = contradictions(&tenures);
        assert!(
            found.is_empty(),
            "{io:?}: {} of {}: {:?}",
            found.len(),
            tenures.len(),
            &found[..found.len().min(5)]
        );
        let page = get(server.admin(), "/metrics").1;
        assert_eq!(metric(&page, "overtakes_total"), Some(0.0), "{page}");
        assert!(again > 0, "some locks were entered again without a message");
        assert!(metric(&page, "revocations_total") > Some(0.0), "and came back: {page}");
    }
}

/// A guard over shared memory, of a lease of two seconds.
fn guard(server: &Server) -> (Client, fairlock::Guard) {
    let builder = Client::builder().transport(Transport::Shm).ttl(Duration::from_secs(2));
    let client = builder.connect(server.unix().as_str()).unwrap();
    let guard = client.lock("held").acquire().unwrap();
    assert_eq!((guard.state(), client.state()), (GuardState::Valid, ClientState::Connected));
    (client, guard)
}

/// Looks until the guard is lost. It is never found valid later than its lease after the server's last moment.
fn lost(guard: &fairlock::Guard, last_ns: u64) {
    loop {
        let before_ns = boottime_ns();
        if guard.check().is_err() {
            break;
        }
        assert!(before_ns < last_ns + 2_000_000_000, "valid after its lease");
        std::thread::sleep(Duration::from_millis(1));
    }
    assert_eq!(guard.state(), GuardState::Lost);
}

// G46: killed: suspended at once, lost by the deadline, and nobody was asked.
#[test]
fn a_guard_of_a_killed_server_is_suspended_and_then_lost() {
    for &io in drivers() {
        let server = Plan::new(io).start();
        let (client, guard) = guard(&server);
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
        let (client, guard) = guard(&server);
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

// G12, G44: a restarted server knows nothing of the old session; the client finds its way with a new one.
#[test]
fn a_client_goes_on_with_a_restarted_server() {
    let server = Plan::new(drivers()[0]).start();
    let (client, guard) = guard(&server);
    let server = server.crash().start();
    lost(&guard, boottime_ns());
    drop(guard);
    let again = client.lock("held").acquire().unwrap();
    again.check().unwrap();
    assert_eq!(client.transport(), Transport::Shm);
    drop(server);
}
